"""From hidden states to log-probability and entropy, without the (tokens, vocabulary) logits.

RL needs, for each completion token, log p(token) and the entropy of the distribution it was drawn
from.  The textbook way (`readable_logprob`, below) makes the full logits: 8,192 tokens by 152,064
words in fp32 are 5 GB, and its backward makes them again.  `token_logprob` walks over tiles of
them instead.  A tile leaves three numbers per token behind: its maximum m, s = sum exp(x - m)
and t = sum (x - m) exp(x - m); from these come the log-sum-exp and the entropy.  Backward computes
each tile a second time instead of having stored it.

The tiles themselves are made by one of two backends with the same two functions (`Tiles`): this
file's torch, or the Triton kernels of `kernels.py`.

Left out: top-k, top-p and other warpers (they would make the ratio of two log-probs something else
than the policy's); gradient filtering (in RL the low-probability tail carries signal); a bias and
logit soft-capping (Qwen2.5-VL's head has neither); second derivatives.
"""
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MASKED = -1e30  # logit of a forbidden word: exp gives 0 and, unlike -inf, 0 * x stays a number
TILE = 2**24  # the torch backend's largest tile, in elements: 64 MB in fp32
MIN_COLS = 256  # vocabulary chunks are multiples of this: narrower ones waste the product


class Tiles(Protocol):
    """What a backend provides: a module or a class with these two functions."""

    TILE: int  # the largest tile, in elements

    def statistics(self, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float,
                   forbidden: Tensor | None, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """m, s, t of one tile, each (parts, M); writes into `chosen` the target logits it owns."""
        ...

    def grad_logits(self, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float,
                    forbidden: Tensor | None, row_data: Tensor, entropy_grad: bool) -> Tensor:
        """d(loss)/d(logits) of one tile, (M, v), from five numbers per row."""
        ...


def readable_logprob(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0,
                     forbidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The definition: what `token_logprob` computes, with all M*V logits in memory.

    Same arguments and results as `token_logprob`; its entropy is always differentiable.
    """
    logits = hidden.to(_accumulator(hidden)) @ weight.to(_accumulator(weight)).T / temperature
    if forbidden is not None:
        logits = logits.masked_fill(forbidden, MASKED)
    logp = logits.log_softmax(-1)  # (M, V)
    entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(1, targets[:, None]).squeeze(1), entropy


def token_logprob(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0,
                  forbidden: Tensor | None = None, *, backend: str = "auto",
                  entropy_grad: bool = False) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution, in bounded memory.

    logits = hidden @ weight.T / temperature;  logp = log_softmax(logits)[target];
    entropy = -sum_v p_v log p_v, in nats, over the words that are not forbidden.

    Args:
        hidden: (M, H) last hidden states, only those rows that predict a completion token.
        weight: (V, H) head, same dtype as hidden: bf16, fp16, fp32 (torch backend: also fp64).
        targets: (M,) int64 in [0, V).  Outside that range logp is NaN (checking would make the
            CPU wait for the GPU); for a forbidden word it is about -1e30.
        temperature: > 0, the one the tokens were sampled with.
        forbidden: optional (V,) bool, True = can never be sampled (image placeholders, padding).
        backend: "torch", "triton", or "auto": triton on CUDA and torch elsewhere.
        entropy_grad: whether the entropy carries a gradient; without it, it comes back detached.

    Returns:
        logp (M,) <= 0 and entropy (M,) in [0, log V], fp32 (fp64 for fp64 inputs).

    Raises:
        ValueError: shapes, dtypes, devices or the backend do not fit.
    """
    _check(hidden, weight, targets, temperature, forbidden)
    tiles = _backend(backend, hidden)
    return _TokenLogprob.apply(hidden, weight, targets, 1.0 / temperature, forbidden, tiles,
                               entropy_grad)


class _TokenLogprob(torch.autograd.Function):
    """Loops over tiles; x = scale * hidden @ weight.T is one tile's logits."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float,
                forbidden: Tensor | None, tiles: Tiles, entropy_grad: bool
                ) -> tuple[Tensor, Tensor]:
        """(M, H), (V, H), (M,) -> logp (M,), entropy (M,)."""
        chosen = hidden.new_full(targets.shape, math.nan, dtype=_accumulator(hidden))  # (M,)
        top, log_sum, entropy = (torch.empty_like(chosen) for _ in range(3))
        row_chunks, col_chunks = _chunks(hidden, weight, tiles.TILE)
        with torch.autocast(hidden.device.type, enabled=False):  # would turn fp32 products bf16
            for rows in row_chunks:
                parts = []
                for cols in col_chunks:
                    parts.append(_combine(*tiles.statistics(
                        hidden[rows], weight[cols], targets[rows] - cols.start, scale,
                        _part(forbidden, cols), chosen[rows])))
                m, s, t = _combine(*(torch.stack(p) for p in zip(*parts, strict=True)))
                # entropy = log s - t / s, since log p = x - m - log s and p = exp(x - m) / s
                top[rows], log_sum[rows], entropy[rows] = m, s.log(), s.log() - t / s
        if not entropy_grad:
            ctx.mark_non_differentiable(entropy)
        ctx.save_for_backward(hidden, weight, targets, forbidden, top, log_sum, entropy)
        ctx.scale, ctx.tiles, ctx.entropy_grad = scale, tiles, entropy_grad
        return (chosen - top) - log_sum, entropy  # this order: chosen - top loses no digits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_logp: Tensor, g_entropy: Tensor) -> tuple[Tensor | None, ...]:
        """d(logits) tile by tile; each vocabulary chunk writes its rows of d(weight) once."""
        hidden, weight, targets, forbidden, top, log_sum, entropy = ctx.saved_tensors
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        g_logp, g_entropy = g_logp * ctx.scale, g_entropy * ctx.scale  # d(x) / d(hidden @ w.T)
        row_data = torch.stack([top, log_sum, g_logp, g_logp + g_entropy * entropy, g_entropy])
        d_hidden = torch.zeros_like(hidden, dtype=top.dtype) if need_hidden else None
        d_weight = torch.empty_like(weight) if need_weight else None
        row_chunks, col_chunks = _chunks(hidden, weight, ctx.tiles.TILE)
        once = len(row_chunks) == 1  # nearly always: then no fp32 copy of d(weight)'s chunk
        with torch.autocast(hidden.device.type, enabled=False):
            for cols in col_chunks:
                w = weight[cols]
                total = None if once or not need_weight else torch.zeros_like(w, dtype=top.dtype)
                for rows in row_chunks:
                    d_logits = ctx.tiles.grad_logits(
                        hidden[rows], w, targets[rows] - cols.start, ctx.scale,
                        _part(forbidden, cols), row_data[:, rows], ctx.entropy_grad)
                    if need_hidden:
                        d_hidden[rows] += _matmul(d_logits, w)
                    if need_weight and once:
                        _matmul(d_logits.T, hidden, out=d_weight[cols])
                    elif need_weight:
                        total += _matmul(d_logits.T, hidden[rows])
                    del d_logits  # else two of them are alive while the next one is made
                if total is not None:
                    d_weight[cols] = total
        d_hidden = d_hidden.to(hidden.dtype) if need_hidden else None
        return d_hidden, d_weight, None, None, None, None, None


def _combine(m: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(tiles, M) statistics, each relative to its own maximum -> (M,), relative to the largest."""
    top = m.amax(0)
    shift = m - top  # <= 0
    w = shift.exp()
    return top, (w * s).sum(0), (w * (t + s * shift)).sum(0)


class TorchTiles:
    """The torch backend: the two functions that `kernels.py` has in Triton."""

    TILE = TILE

    @staticmethod
    def statistics(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float,
                   forbidden: Tensor | None, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """m, s, t of one tile, each (1, M); writes into `chosen` the target logits it owns."""
        x = _logits(hidden, weight, scale, forbidden)  # (M, v)
        owns = (targets >= 0) & (targets < len(weight))
        mine = x.gather(1, targets.clamp(0, len(weight) - 1)[:, None]).squeeze(1)
        chosen.copy_(torch.where(owns, mine, chosen))
        m = x.amax(1, keepdim=True)
        e = x.sub_(m).exp()
        return m.T, e.sum(1)[None], e.mul_(x).sum(1)[None]

    @staticmethod
    def grad_logits(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float,
                    forbidden: Tensor | None, row_data: Tensor, entropy_grad: bool) -> Tensor:
        """d(loss)/d(logits) of one tile, (M, v): g_logp (onehot - p) - g_entropy p (log p + H).

        row_data (5, M): m, log s, g_logp, g_logp + g_entropy * H, g_entropy.
        """
        m, log_sum, g_logp, constant, g_entropy = row_data[:, :, None]  # (M, 1) each
        logp = _logits(hidden, weight, scale, forbidden).sub_(m).sub_(log_sum)
        if entropy_grad:
            d = logp.exp().mul_(-constant - g_entropy * logp)
        else:
            d = logp.exp_().mul_(-g_logp)
        owns = (targets >= 0) & (targets < len(weight))
        index = targets.clamp(0, len(weight) - 1)[:, None]
        d.scatter_add_(1, index, torch.where(owns[:, None], g_logp, 0.0))
        return d.to(hidden.dtype) if d.is_cuda else d  # on CUDA the next products are 16-bit


def _logits(hidden: Tensor, weight: Tensor, scale: float, forbidden: Tensor | None) -> Tensor:
    """One tile of logits in fp32, (M, v)."""
    x = _matmul(hidden, weight.T).mul_(scale)
    return x if forbidden is None else x.masked_fill_(forbidden, MASKED)


def _matmul(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b accumulated in fp32: returned so, or rounded once into `out`.  16-bit on CUDA."""
    if a.is_cuda and a.dtype == b.dtype and a.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(a, b, out_dtype=torch.float32) if out is None else torch.mm(a, b, out=out)
    product = a.to(_accumulator(a)) @ b.to(_accumulator(b))
    return product if out is None else out.copy_(product)


def _chunks(hidden: Tensor, weight: Tensor, tile: int) -> tuple[list[slice], list[slice]]:
    """Slices of the M tokens and of the V words such that no tile exceeds `tile` elements."""
    (M, H), V = hidden.shape, len(weight)
    # H, because a chunk of the weight may be upcast; whole multiples, so that no tile is ragged
    n_cols = max(1, tile // max(M, H, 1) // MIN_COLS) * MIN_COLS
    n_rows = max(1, tile // n_cols)
    return ([slice(i, min(i + n_rows, M)) for i in range(0, M, n_rows)],
            [slice(i, min(i + n_cols, V)) for i in range(0, V, n_cols)])


def _part(forbidden: Tensor | None, cols: slice) -> Tensor | None:
    """This vocabulary chunk's share of the mask."""
    return None if forbidden is None else forbidden[cols]


def _accumulator(x: Tensor) -> torch.dtype:
    """fp32, or fp64 for fp64 (tests)."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def fused_token_loss(backend: str, like: Tensor) -> Callable | None:
    """The Triton version of `rapo.token_loss` where `backend` means Triton for tensors like
    `like`, else None."""
    tiles = _backend(backend, like)
    return None if tiles is TorchTiles else tiles.fused_token_loss


def _backend(name: str, hidden: Tensor) -> Tiles:
    """Who makes the tiles."""
    if name not in ("auto", "torch", "triton"):
        raise ValueError(f"backend {name!r}: choose auto, torch or triton")
    if name == "torch" or (name == "auto" and not hidden.is_cuda):
        return TorchTiles
    if hidden.dtype == torch.float64:
        raise ValueError("backend 'triton' takes bf16, fp16 or fp32; fp64 needs backend 'torch'")
    try:
        from nanoaes import kernels  # here, because triton exists on Linux only
    except ImportError as error:
        raise ValueError("backend 'triton' needs the triton package (Linux only)") from error
    if not hidden.is_cuda and not kernels.INTERPRETED:
        raise ValueError("backend 'triton' on CPU tensors needs TRITON_INTERPRET=1 (for tests), "
                         "set before triton is imported")
    return kernels


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float,
           forbidden: Tensor | None) -> None:
    """Shapes, dtypes and devices; raises ValueError with what it saw."""
    M, V = len(hidden), len(weight)
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1:] != weight.shape[1:] or not V:
        raise ValueError(f"need hidden (M, H), weight (V, H): {hidden.shape}, {weight.shape}")
    if targets.shape != hidden.shape[:1] or targets.dtype != torch.int64:
        raise ValueError(f"need targets ({M},) int64: {targets.shape} {targets.dtype}")
    dtypes = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    if hidden.dtype != weight.dtype or hidden.dtype not in dtypes:
        raise ValueError(f"need one float dtype: hidden {hidden.dtype}, weight {weight.dtype}")
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0: {temperature}")
    if forbidden is not None and (forbidden.shape != weight.shape[:1]
                                  or forbidden.dtype != torch.bool):
        raise ValueError(f"need forbidden ({V},) bool: {forbidden.shape}")
    others = [weight, targets] + ([] if forbidden is None else [forbidden])
    if any(t.device != hidden.device for t in others):
        raise ValueError(f"all tensors must be on one device: {[t.device for t in others]}")


def sampling_logits(hidden: Tensor, weight: Tensor, temperature: float,
                    forbidden: Tensor | None = None) -> Tensor:
    """(B, V) fp32 logits of a few rows, for sampling: the same arithmetic as `token_logprob`."""
    return _logits(hidden, weight, 1.0 / temperature, forbidden)
