"""A model with adapters as a plain one: W + alpha / r · B A in the place of W."""

import torch
from torch import Tensor, nn

from nanoaes.lora import Adapter, adapters


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
