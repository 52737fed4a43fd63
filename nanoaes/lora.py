"""Adapters of low rank: a frozen layer plus a narrow detour that learns.

    y = W x + b + alpha / r · B A x        A (r, in) random, B (out, r) zero at first
    merged: W + alpha / r · B A in the place of W, a plain model that computes the same

Adapters are fp32, so that small steps are not rounded away, and compute in the dtype of what comes
in. The model with its adapters as they began is the reference: no second model is needed. The head
and the embedding are never adapted. `adapters.py` has PEFT's folder.
Left out: dropout (log-probs of rollout and update would differ), DoRA, ranks per layer.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanoaes.errors import UserError


@dataclass(frozen=True)
class LoRA:
    """What is adapted, and how."""

    rank: int
    alpha: float
    targets: tuple[str, ...]  # a layer's name or the end of it: "q_proj"
    vision: bool              # in the vision tower too


class Adapter(nn.Module):
    """A linear layer with its detour."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base, self.rank, self.alpha = base, rank, alpha
        place = {"dtype": torch.float32, "device": base.weight.device}
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, **place))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **place))
        self.register_buffer("start_A", None, persistent=False)  # None: B began as zero
        self.register_buffer("start_B", None, persistent=False)
        self.as_begun = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        a, b = (self.start_A, self.start_B) if self.as_begun else (self.lora_A, self.lora_B)
        if a is None:
            return y
        return y + F.linear(F.linear(x, a.to(x.dtype)), b.to(x.dtype)) * (self.alpha / self.rank)


def adapters(hf: nn.Module) -> dict[str, Adapter]:
    """A model's adapters by their layers' names; empty for a model that has none."""
    return {name: m for name, m in hf.named_modules() if isinstance(m, Adapter)}


def spec_of(hf: nn.Module) -> LoRA | None:
    """What `attach` needs to make the same adapters, each layer by its whole name."""
    if not (found := adapters(hf)):
        return None
    one = next(iter(found.values()))
    return LoRA(one.rank, one.alpha, tuple(found), any(".visual." in name for name in found))


def linears(hf: nn.Module, vision: bool) -> dict[str, nn.Linear]:
    """The layers that can be adapted: of the language model, with `vision` of its tower too."""
    parts = ("model.language_model.", *(["model.visual."] if vision else []))
    return {name: m for name, m in hf.named_modules()
            if isinstance(m, nn.Linear) and name.startswith(parts)}


def is_meant(name: str, targets: Iterable[str]) -> bool:
    """Is a layer's name, or the end of it, one of the targets? So PEFT reads a list of them."""
    return any(f".{name}".endswith(f".{target}") for target in targets)


def attach(hf: nn.Module, spec: LoRA, seed: int = 0) -> None:
    """Put adapters before the layers that spec names, in place; all else is frozen. The A's, drawn
    from seed, are the same on every process and device; on `meta` none are drawn.

    Raises:
        UserError: a target that no layer has, a vision tower that has none of them.
    """
    known = linears(hf, spec.vision)
    here = {name: m for name, m in known.items() if is_meant(name, spec.targets)}
    ends = {part: ", ".join(sorted({n.rsplit(".", 1)[1] for n in known if part in n}))
            for part in (".", ".visual.")}
    for target in spec.targets:
        if not any(is_meant(name, [target]) for name in known):
            raise UserError(f"--lora_targets: no linear layer {target!r}; choose of {ends['.']}")
    if spec.vision and not any(".visual." in name for name in here):
        raise UserError("--lora_vision: no target is a layer of the vision tower; add some of "
                        f"{ends['.visual.']} to --lora_targets")
    hf.requires_grad_(False)
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, layer in here.items():
        adapter = Adapter(layer, spec.rank, spec.alpha)
        if not layer.weight.is_meta:  # as PEFT begins
            drawn = torch.empty(adapter.lora_A.shape, dtype=torch.float32, device="cpu")
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            adapter.lora_A.data.copy_(drawn)
        hf.set_submodule(name, adapter)


def begin_here(hf: nn.Module) -> None:
    """What the adapters are now is how they began: for adapters that are trained on."""
    for adapter in adapters(hf).values():
        adapter.start_A = adapter.lora_A.detach().clone()
        adapter.start_B = adapter.lora_B.detach().clone()


@contextmanager
def as_reference(hf: nn.Module) -> Iterator[None]:
    """In here the model computes as it did before its adapters were trained."""
    before = {adapter: adapter.as_begun for adapter in adapters(hf).values()}
    try:
        for adapter in before:
            adapter.as_begun = True
        yield
    finally:
        for adapter, was in before.items():
            adapter.as_begun = was


def merged(adapter: Adapter) -> Tensor:
    """(out, in) W + alpha / r · B A, rounded once."""
    w = adapter.base.weight.detach()
    wide = torch.promote_types(w.dtype, torch.float32)
    a, b = adapter.lora_A.detach().to(wide), adapter.lora_B.detach().to(wide)
    return torch.addmm(w.to(wide), b, a, alpha=adapter.alpha / adapter.rank).to(w.dtype)


def whole_state(hf: nn.Module) -> dict[str, Tensor]:
    """The weights of the plain model that computes the same; the model stays as it is.

    What is merged lies on the CPU: a GPU has no room for it beside the model.
    """
    state = hf.state_dict()
    for name, adapter in adapters(hf).items():
        del state[f"{name}.lora_A"], state[f"{name}.lora_B"]
        state[f"{name}.weight"] = merged(adapter).cpu()
        del state[f"{name}.base.weight"]
        if adapter.base.bias is not None:
            state[f"{name}.bias"] = state.pop(f"{name}.base.bias")
    return state


def merge(hf: nn.Module) -> None:
    """Put the adapters into their layers, which become plain again, in place."""
    for name, adapter in adapters(hf).items():
        with torch.no_grad():
            adapter.base.weight.copy_(merged(adapter))
        hf.set_submodule(name, adapter.base)
