"""One optimizer step: gradients added up over all processes and clipped, numbers fetched, nothing
changed if one is not finite.

Left out: a check of every activation, which would wait for the device each time. No bad loss or
gradient passes the norm of the gradients, and a rollout looks where it waits anyway.
"""

import math

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from nanoaes.errors import NotFinite
from nanoaes.parallel import add_gradients, total, whole


def adamw(trained: dict[str, Tensor], *, weight_decay: float,
          betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.AdamW:
    """AdamW over name -> parameter; `take_step` sets its learning rate."""
    # On CUDA torch's default makes temporaries of the size of all weights.
    fused = next(iter(trained.values())).is_cuda or None
    return torch.optim.AdamW(trained.values(), lr=0.0, betas=betas, weight_decay=weight_decay,
                             fused=fused)


def backward(loss: Tensor) -> None:
    """`loss.backward()`; with --deterministic torch is strict meanwhile, and raises where it cannot
    be: if it only warned, attention would take its faster, indeterminate kernels (torch 2.13)."""
    if not torch.are_deterministic_algorithms_enabled():
        return loss.backward()
    torch.use_deterministic_algorithms(True)
    try:
        loss.backward()
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def take_step(optimizer: torch.optim.Optimizer, trained: dict[str, Tensor], *, lr: float,
              max_norm: float, sums: dict[str, Tensor], where: str) -> dict[str, float]:
    """Clip to a global norm of `max_norm`, step, forget the gradients.

    Args:
        trained: name -> parameter, with the gradients of this process's part of the step.
        sums: scalars of this process's part, on the device; `total` says what becomes of them.
        where: which step, for the message.
    Returns:
        `sums` as numbers and "grad_norm" before clipping: one transfer from the device.
    Raises:
        NotFinite: one of them is none; names a tensor. No weight has changed.
    """
    add_gradients(trained)
    sums = total(sums)
    norm = whole(get_total_norm([p.grad for p in trained.values() if p.grad is not None]))
    values = torch.stack([*(x.float() for x in sums.values()), norm.float()]).tolist()
    numbers = dict(zip([*sums, "grad_norm"], values, strict=True))
    if not all(map(math.isfinite, values)):
        bad = ", ".join(name for name, x in numbers.items() if not math.isfinite(x))
        raise NotFinite(f"{where}: {bad} ({_culprit(trained)}; no weight was changed)")
    clip_grads_with_norm_(trained.values(), max_norm, norm)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad()
    return numbers


def _culprit(trained: dict[str, Tensor]) -> str:
    """The first weight that is not finite, else the first gradient."""
    for name, p in trained.items():
        if not whole(torch.isfinite(p).all()):
            return f"the first such weight: {name}"
    for name, p in trained.items():
        if p.grad is not None and not whole(torch.isfinite(p.grad).all()):
            return f"the first such gradient: {name}"
    return "each weight and gradient is finite, their sum is not"
