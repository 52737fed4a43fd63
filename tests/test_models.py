"""One folder in three roles: what is one object, what is frozen, what a copy."""

import gc
from pathlib import Path

import pytest
import torch
from kin import KIN, tiny_kin
from tiny import ragged, tiny_prompts, tiny_vlm
from torch.distributed.tensor import DTensor

from nanoaes import sharding
from nanoaes.config import SFTConfig
from nanoaes.errors import UserError
from nanoaes.lora import LoRA, attach
from nanoaes.models import Models, load_models, roles
from nanoaes.optimize import backward
from nanoaes.vlm import VLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "toy"
    tiny_vlm().save(path)
    return path


def config(**options) -> SFTConfig:
    return SFTConfig(device="cpu", **options)


def test_the_toy_pays_for_no_copy(folder: Path) -> None:
    models = load_models(folder, config(train_vision=True))
    assert models.speaker is models.learner and models.reference is None
    assert list(models.trained) == [n for n, _ in models.learner.named_parameters()]
    assert not models.learner.hf.training


def test_a_frozen_tower_is_not_trained(folder: Path) -> None:
    models = load_models(folder, config())
    assert list(models.trained) == [n for n, _ in models.learner.named_parameters()
                                    if ".visual." not in n]


def test_the_reference_is_a_frozen_copy(folder: Path) -> None:
    models = load_models(folder, config(), reference="sharded")
    for p, q in zip(models.learner.parameters(), models.reference.parameters(), strict=True):
        assert torch.equal(p, q) and p.data_ptr() != q.data_ptr() and not q.requires_grad


@pytest.mark.parametrize("name", KIN)
def test_a_blank_has_every_weight_and_no_memory(name: str) -> None:
    vlm = tiny_kin(name)
    blank = VLM.blank(*vlm.recipe)
    shapes = [{n: p.shape for n, p in x.named_parameters()} for x in (vlm, blank)]
    assert shapes[0] == shapes[1] and all(p.is_meta for p in blank.parameters())
    assert {n for n, _ in vlm.named_buffers()} == {n for n, _ in blank.named_buffers()}
    assert len(blank.blocks) == len(vlm.blocks) > 4


@pytest.mark.parametrize("name", KIN)
def test_checkpointing_computes_the_same(name: str) -> None:
    gradients = []
    for checkpoint in (False, True):
        vlm, count = tiny_kin(name), 0
        if checkpoint:
            vlm.checkpoint()
        layer = vlm.blocks[-1].mlp
        forward = layer.forward

        def counted(x: torch.Tensor, forward=forward) -> torch.Tensor:
            nonlocal count
            count += 1
            return forward(x)

        layer.forward = counted
        vlm(tiny_prompts(vlm, 2), *ragged(vlm, 2, 3, 6))[0].sum().backward()
        assert count == 1 + checkpoint
        gradients.append([p.grad for p in vlm.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_deterministic_is_asked_of_torch(folder: Path) -> None:
    try:
        models = load_models(folder, config(deterministic=True))
        assert torch.are_deterministic_algorithms_enabled()
        loss = models.learner(tiny_prompts(models.learner, 2), *ragged(models.learner, 2, 3, 6))[0]
        warns = []
        loss.register_hook(lambda grad: warns.append(
            torch.is_deterministic_algorithms_warn_only_enabled()))
        backward(loss.sum())
        assert warns == [False] and torch.is_deterministic_algorithms_warn_only_enabled()
        with pytest.raises(RuntimeError, match="second time"):
            backward(loss.sum())
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_folders_adapters_are_those_that_are_asked_for(tmp_path: Path, capsys) -> None:
    vlm = tiny_vlm()
    attach(vlm.hf, LoRA(2, 16.0, ("q_proj", "v_proj"), False))
    given = dict(lora_rank=2, lora_alpha=16.0, lora_targets="q_proj,v_proj")
    assert roles(vlm, config(**given)).trained
    assert "too" not in capsys.readouterr().out
    for other in (dict(lora_alpha=64.0), dict(lora_vision=True), dict(lora_rank=4)):
        with pytest.raises(UserError, match="the model's folder has adapters of"):
            roles(vlm, config(**given | other))
    roles(vlm, config(**given | dict(lora_targets="q_proj")))
    assert "v_proj too, whatever --lora_targets says" in capsys.readouterr().out


def test_a_speaker_of_its_own_is_refreshed() -> None:
    speaker, learner = tiny_vlm(0), tiny_vlm(1)
    speaker.to(torch.bfloat16)
    Models(speaker, learner).refresh()
    for p, q in zip(speaker.parameters(), learner.parameters(), strict=True):
        assert torch.equal(p, q.to(torch.bfloat16))


def test_of_whole_weights_only_one_part_is_alive_while_they_are_cut(monkeypatch) -> None:
    """A second whole model in fp32 would be 33 GB of a GPU for 7B."""
    source, alive = tiny_vlm().to(torch.bfloat16).requires_grad_(False), []
    blank = VLM.blank(*source.recipe)
    parts = [len(list(block.parameters())) for block in blank.blocks]
    parts.append(len(list(blank.parameters())) - sum(parts))

    def counted(unit: torch.nn.Module, real=sharding.fully_shard, **how: object) -> None:
        real(unit, **how)
        alive.append(sum(type(x) is torch.nn.Parameter and x.dtype == torch.float32
                         and not x.is_meta and not isinstance(x, DTensor)
                         for x in gc.get_objects()))

    gc.collect()
    monkeypatch.setattr(sharding, "fully_shard", counted)
    sharding.sharded(source, blank=blank, dtype=torch.float32, compute=torch.bfloat16,
                     over=sharding.mesh(torch.device("cpu"), 0), frozen=lambda name: False)
    assert len(alive) == len(blank.blocks) + 1
    assert max(alive) - alive[0] <= max(parts) < sum(parts) / 2, alive
