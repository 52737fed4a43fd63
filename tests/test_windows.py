"""The vision tower with equal windows in one call is the tower of transformers."""

import pytest
import torch
from kin import KIN, exact_rotary, gradients, tiny_kin
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from nanoaes import windows
from nanoaes.vlm import VLM
from nanoaes.windows import Groups, Windows

# Patches; the first has inner, right, bottom and corner windows, the third is one small window.
GRIDS = [(1, 20, 14), (1, 16, 16), (1, 4, 6), (1, 20, 14), (1, 8, 12)]


class Count(TorchFunctionMode):
    """Counts calls of attention and fetches of a tensor's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = self.fetches = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.attention += function is scaled_dot_product_attention
        self.fetches += function in (Tensor.tolist, Tensor.item)
        return function(*args, **(kwargs or {}))


def pixels(vlm: VLM, grids: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
    """Random patches, the same for the same grids, and the grids."""
    grid = torch.tensor(grids)
    generator = torch.Generator().manual_seed(0)
    size = 3 * 2 * vlm.patch ** 2
    x = torch.randn(int(grid.prod(1).sum()), size, generator=generator, dtype=torch.float64)
    return x.to(vlm.hf.dtype), grid


def look(vlm: VLM, grids: list[tuple[int, int, int]], **options: Windows) -> list[Tensor]:
    """All that the tower gives out."""
    x, grid = pixels(vlm, grids)
    out = vlm.hf.model.visual(x, grid_thw=grid, **options)
    return [out.pooler_output, *getattr(out, "deepstack_features", [])]


def rival(vlm: VLM, name: str = "sdpa") -> None:
    vlm.hf.set_attn_implementation({"vision_config": name})


def error(got: Tensor, want: Tensor) -> float:
    return ((got - want).norm() / want.norm()).item()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("grids", [GRIDS, GRIDS[:1], GRIDS[1:2] * 3])
@pytest.mark.parametrize("kin", KIN)
def test_the_tower_is_transformers(monkeypatch, kin: str, grids: list, checkpointing: bool) -> None:
    """Mixed grids, one picture, several of one grid; outputs and every parameter's gradient."""
    vlm = tiny_kin(kin, torch.float64)
    exact_rotary(monkeypatch, vlm)
    rival(vlm)
    want = look(vlm, grids)
    want_grad = gradients(vlm, want)
    rival(vlm, windows.NAME)
    if checkpointing:
        vlm.checkpoint()
    got = look(vlm, grids, windows=Windows())
    got_grad = gradients(vlm, got)
    assert len(got) == len(want) == (4 if kin == "qwen3" else 1)
    assert max(error(g, w) for g, w in zip(got, want, strict=True)) < 1e-10
    assert got_grad.keys() == want_grad.keys() and any("attn.qkv" in name for name in got_grad)
    for name, g in want_grad.items():
        assert (got_grad[name] - g).norm() <= 1e-10 * g.norm() + 1e-12, name


@pytest.mark.parametrize("kin", KIN)
def test_bf16(kin: str) -> None:
    vlm = tiny_kin(kin, torch.bfloat16)
    got = look(vlm, GRIDS, windows=Windows())
    got_grad = gradients(vlm, got)
    rival(vlm)
    want = look(vlm, GRIDS)
    want_grad = gradients(vlm, want)
    assert {x.dtype for x in got} == {torch.bfloat16}
    assert max(error(g, w) for g, w in zip(got, want, strict=True)) < 0.02
    name = next(name for name in want_grad if name.endswith("blocks.0.attn.qkv.weight"))
    assert error(got_grad[name], want_grad[name]) < 0.05


@pytest.mark.parametrize("kin, calls", [("qwen2", 2), ("qwen2_5", 4 + 1), ("qwen3", 4)])
def test_calls_do_not_grow_with_the_pictures(kin: str, calls: int) -> None:
    """All layers' together: Qwen2.5-VL's first has windows of four lengths, its second one."""
    vlm = tiny_kin(kin)
    for n in (1, 8):
        with Count() as ours:
            look(vlm, GRIDS[:1] * n, windows=Windows())
        assert ours.attention == calls
    rival(vlm)
    with Count() as theirs:
        look(vlm, GRIDS[:1] * 8)
    assert theirs.attention >= 8 * len(vlm.hf.model.visual.blocks)  # the count can count


@pytest.mark.parametrize("kin", KIN)
def test_lengths_are_fetched_once_a_pass(kin: str) -> None:
    """Not once a layer, nor again when checkpointing runs a layer a second time."""
    vlm = tiny_kin(kin)
    visual = vlm.hf.model.visual
    vlm.checkpoint()

    def fetches(**options: Windows) -> int:
        with Count() as count:
            gradients(vlm, look(vlm, GRIDS, **options))
        return count.fetches

    once, seen = fetches(windows=Windows()), Windows()
    visual.blocks = nn.ModuleList([*visual.blocks, *[visual.blocks[-1]] * 3])
    assert fetches(windows=seen) == once
    assert len(seen.known) == (2 if kin == "qwen2_5" else 1)
    assert fetches() >= once + 2 * 3  # without `windows`: the count can count


@pytest.mark.parametrize("kin", KIN)
def test_without_windows_every_layer_finds_them_itself(kin: str) -> None:
    """As in transformers' own `generate`, which knows nothing of them."""
    vlm = tiny_kin(kin)
    for got, want in zip(look(vlm, GRIDS), look(vlm, GRIDS, windows=Windows()), strict=True):
        assert torch.equal(got, want)


def test_the_example_in_the_docstring() -> None:
    groups = Groups(torch.tensor([0, 2, 3, 5], dtype=torch.int32))
    for name, value in {"sizes": [(1, 1), (2, 2)], "order": [2, 0, 1, 3, 4],
                        "back": [1, 2, 0, 3, 4]}.items():
        found = getattr(groups, name)
        assert (found.tolist() if isinstance(found, Tensor) else found) == value
        assert f"{name:7} {value}" in Groups.__doc__


@pytest.mark.parametrize("lengths", [[3, 3, 3], [5], [1, 2, 2, 4], [4, 2, 2, 4, 1, 2]])
def test_groups_are_one_softmax_per_window(lengths: list[int]) -> None:
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, sum(lengths), 8, generator=generator, dtype=torch.float64)
    groups = Groups(bounds)
    assert (groups.order is None) == (lengths == sorted(lengths))  # then nothing moves
    want = [(q[0, :, a:b] @ k[0, :, a:b].mT * 0.3).softmax(-1) @ v[0, :, a:b]
            for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    torch.testing.assert_close(groups(q, k, v, 0.3)[0], torch.cat(want, 1).transpose(0, 1),
                               rtol=0, atol=1e-12)
