"""Adapters compute W + alpha / r · B A, learn alone, and are their own reference."""

import copy
import math

import pytest
import torch
from kin import KIN, tiny_kin
from tiny import ragged, tiny_prompts, tiny_vlm
from torch import Tensor, nn

from nanoaes.errors import UserError
from nanoaes.lora import Adapter, LoRA, adapters, as_reference, attach, begin_here, merge, spec_of
from nanoaes.vlm import VLM

TEXT = ("q_proj", "v_proj", "down_proj")
EYES = {"qwen2": ("qkv", "fc1"), "qwen2_5": ("qkv", "gate_proj"), "qwen3": ("qkv", "linear_fc2")}


def spec(kin: str = "qwen2_5", vision: bool = True) -> LoRA:
    return LoRA(rank=4, alpha=6.0, targets=TEXT + EYES[kin] * vision, vision=vision)


def untied(vlm: VLM) -> VLM:
    """With a head of its own."""
    config = copy.deepcopy(vlm.hf.config)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    hf = type(vlm.hf)._from_config(config, attn_implementation="sdpa")
    hf.load_state_dict(vlm.hf.state_dict())
    with torch.no_grad():
        hf.lm_head.weight.copy_(hf.lm_head.weight.flip(0))
    return VLM(hf.to(vlm.hf.dtype), vlm.tokenizer, vlm.stop_ids, vlm.asking).eval()


def trained(vlm: VLM, seed: int = 5) -> VLM:
    """As if its adapters had learnt: B is no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in adapters(vlm.hf).values():
            adapter.lora_B.copy_(torch.randn(adapter.lora_B.shape, generator=generator) * 0.1)
    return vlm


def logps(vlm: VLM) -> Tensor:
    return vlm(tiny_prompts(vlm, 2), *ragged(vlm, 2, 2, 5))[0]


def delta(adapter: Adapter) -> Tensor:
    return adapter.alpha / adapter.rank * adapter.lora_B.double() @ adapter.lora_A.double()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vision", [True, False])
@pytest.mark.parametrize("kin", KIN)
def test_at_first_nothing_changes_and_only_adapters_learn(kin: str, vision: bool, tied: bool
                                                         ) -> None:
    vlm = tiny_kin(kin) if tied else untied(tiny_kin(kin))
    before, linear = logps(vlm), {n for n, m in vlm.hf.named_modules() if isinstance(m, nn.Linear)}
    attach(vlm.hf, spec(kin, vision), seed=1)
    wanted = {n for n in linear if n.endswith(tuple(f".{t}" for t in spec(kin, vision).targets))
              and (vision or ".visual." not in n)}
    assert set(adapters(vlm.hf)) == wanted and any(".visual." in n for n in wanted) == vision
    assert type(vlm.hf.lm_head) is nn.Linear
    now = logps(vlm)
    assert torch.equal(now, before)
    now.sum().backward()
    learns = {n for n, p in vlm.hf.named_parameters() if p.grad is not None}
    assert learns == {f"{n}.{part}" for n in wanted for part in ("lora_A", "lora_B")}
    assert all(a.lora_B.grad.abs().max() > 0 and a.lora_A.grad.abs().max() == 0
               for a in adapters(vlm.hf).values())  # A learns once B is not zero


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kin", KIN)
def test_forward_and_gradients_are_those_of_the_sum_of_weights(kin: str, tied: bool) -> None:
    """dL/dA = s Bᵀ dL/dW, dL/dB = s dL/dW Aᵀ, where W is the weight with all in it."""
    vlm = tiny_kin(kin, torch.float64)
    vlm = vlm if tied else untied(vlm)
    plain = copy.deepcopy(vlm)
    attach(vlm.hf, spec(kin), seed=2)
    trained(vlm)
    with torch.no_grad():
        for name, adapter in adapters(vlm.hf).items():
            plain.hf.get_submodule(name).weight += delta(adapter)
    ours, theirs = logps(vlm), logps(plain)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # vision passes through fp32
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for name, adapter in adapters(vlm.hf).items():
        scale, grad = adapter.alpha / adapter.rank, plain.hf.get_submodule(name).weight.grad
        for got, expected in ((adapter.lora_A.grad, scale * adapter.lora_B.double().T @ grad),
                              (adapter.lora_B.grad, scale * grad @ adapter.lora_A.double().T)):
            assert (got - expected).norm() < 1e-5 * expected.norm(), name


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_against_finite_differences(bias: bool) -> None:
    torch.manual_seed(0)
    adapter = Adapter(nn.Linear(5, 4, bias=bias), rank=2, alpha=3.0).double()
    nn.init.normal_(adapter.lora_A)
    nn.init.normal_(adapter.lora_B)
    adapter.base.requires_grad_(False)
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)

    def compute(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.func.functional_call(adapter, {"lora_A": a, "lora_B": b}, x)

    assert torch.autograd.gradcheck(compute, (x, adapter.lora_A, adapter.lora_B))


@pytest.mark.parametrize("vision", [True, False])
@pytest.mark.parametrize("kin", KIN)
def test_merged_it_is_a_plain_model_that_computes_the_same(kin: str, vision: bool) -> None:
    vlm = tiny_kin(kin)
    kinds = {n: type(m) for n, m in vlm.hf.named_modules()}
    attach(vlm.hf, spec(kin, vision), seed=3)
    before = logps(trained(vlm))
    merge(vlm.hf)
    assert {n: type(m) for n, m in vlm.hf.named_modules()} == kinds and spec_of(vlm.hf) is None
    assert (before - logps(tiny_kin(kin))).abs().max() > 0.01
    torch.testing.assert_close(logps(vlm), before, rtol=0, atol=1e-5)


def test_a_bf16_model_computes_in_bf16_and_is_merged_with_one_rounding() -> None:
    vlm = tiny_vlm(dtype=torch.bfloat16)
    attach(vlm.hf, LoRA(4, 6.0, TEXT, False))
    name, adapter = next(iter(adapters(trained(vlm).hf).items()))
    assert adapter.lora_A.dtype == adapter.lora_B.dtype == torch.float32
    y = adapter(torch.ones(2, adapter.base.in_features, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    expected = (adapter.base.weight.double() + delta(adapter)).bfloat16()
    merge(vlm.hf)
    got = vlm.hf.get_submodule(name).weight
    # Twice rounded, one weight in ten would differ.
    assert got.dtype == torch.bfloat16 and (got != expected).float().mean() < 1e-3


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    def drawn(seed: int) -> list[Tensor]:
        vlm = tiny_vlm()
        torch.rand(seed + 1)  # torch's own generator is not asked
        state = torch.get_rng_state()
        attach(vlm.hf, LoRA(4, 6.0, TEXT, False), seed)
        assert torch.equal(torch.get_rng_state(), state)
        return [a.lora_A.detach() for a in adapters(vlm.hf).values()]

    first, again, other = drawn(7), drawn(7), drawn(8)
    assert all(map(torch.equal, first, again)) and not any(map(torch.equal, first, other))
    assert not torch.equal(first[0], first[2])
    for a in first:  # uniform in ±1 / sqrt(in), as nn.Linear and PEFT
        bound = 1 / math.sqrt(a.shape[1])
        assert 0.9 * bound < a.abs().max() <= bound
        assert a.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_the_reference_is_the_model_with_fresh_adapters_off() -> None:
    vlm = tiny_kin("qwen3")
    before = logps(vlm)
    attach(vlm.hf, spec("qwen3"))
    after = logps(trained(vlm))
    assert not torch.equal(after, before)
    with as_reference(vlm.hf):
        assert torch.equal(logps(vlm), before)
        with as_reference(vlm.hf):
            pass
        assert torch.equal(logps(vlm), before)
    assert torch.equal(logps(vlm), after)


def test_the_reference_of_adapters_that_are_trained_on_is_how_they_began() -> None:
    vlm = tiny_kin("qwen2_5")
    attach(vlm.hf, spec())
    begun = logps(trained(vlm, 5))
    begin_here(vlm.hf)
    names = set(vlm.hf.state_dict())
    with torch.no_grad():
        for adapter in adapters(vlm.hf).values():
            adapter.lora_A.mul_(0.5)
    after = logps(trained(vlm, 6))
    with as_reference(vlm.hf):
        assert torch.equal(logps(vlm), begun)
    assert torch.equal(logps(vlm), after) and not torch.equal(after, begun)
    assert not any("start" in n for n in names)  # what is saved is what is trained


def test_an_exception_leaves_no_reference_behind() -> None:
    vlm = tiny_vlm()
    attach(vlm.hf, LoRA(4, 6.0, TEXT, False))
    after = logps(trained(vlm))
    with pytest.raises(KeyboardInterrupt), as_reference(vlm.hf):
        raise KeyboardInterrupt
    assert torch.equal(logps(vlm), after)


@pytest.mark.parametrize("targets, vision, message", [
    (("q_proj", "c_attn"), False, "no linear layer 'c_attn'; choose of down_proj, gate_proj, "),
    (("",), False, "no linear layer ''; choose of"),
    (("proj_q",), True, "no linear layer 'proj_q'; choose of .*o_proj, proj, q_proj, qkv"),
    (("lm_head",), False, "no linear layer 'lm_head'"),
    (("embed_tokens",), False, "no linear layer 'embed_tokens'"),
    (("qkv",), False, "no linear layer 'qkv'"),
    (("q_proj",), True, "--lora_vision: no target .* add some of .*qkv.* to --lora_targets"),
])
def test_targets_that_are_not_there(targets: tuple[str, ...], vision: bool, message: str) -> None:
    vlm = tiny_kin("qwen2_5")
    with pytest.raises(UserError, match=message) as error:
        attach(vlm.hf, LoRA(4, 6.0, targets, vision))
    assert "\n" not in str(error.value) and not adapters(vlm.hf)
    assert all(p.requires_grad for p in vlm.parameters()), "nothing is half done"


@pytest.mark.parametrize("kin", KIN)
def test_a_blank_has_the_same_adapters(kin: str) -> None:
    vlm = tiny_kin(kin)
    attach(vlm.hf, spec(kin))
    blank = VLM.blank(*vlm.recipe)
    assert {n: p.shape for n, p in blank.hf.named_parameters()} == \
        {n: p.shape for n, p in vlm.hf.named_parameters()}
    assert spec_of(blank.hf) == spec_of(vlm.hf)
