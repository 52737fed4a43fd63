"""Triton kernels: the tiles of the head for `logprob.py`, and RAPO's per-token loss in one pass.

A Triton kernel is the body of a loop over tiles, run by one *program* (a block of GPU threads) per
tile.  Its variables are whole tiles, as in PyTorch.  With M tokens, H hidden, V words:

                       BV
            +--------+----+----------+     One program owns one (BM, BV) tile of the logits x.
          H |  w^T   |::::|          |     It walks along H in steps of BK and adds up
            +--------+----+----------+         x += h (BM, BK) @ w^T (BK, BV)
       H                                   in fp32 on the tensor cores.  x never leaves the
    +-----+ +--------+----+----------+     registers: what is stored are three numbers per row
    |:::::| |     BM | x  |          | M   (statistics) or, in backward, the tile's gradient
    +-----+ +--------+----+----------+     d(loss)/d(logits) in 16 bits.
       h                V

    statistics   m = max x    s = sum exp(x - m)    t = sum (x - m) exp(x - m)   per row and tile;
                 the tile that owns the target's column also stores its logit.  No atomics and no
                 locks: every number has one writer, so two runs give the same bits.
    gradient     x again, then g_logp (onehot - p) - g_entropy p (log p + entropy), for a chunk of
                 the vocabulary at a time; `logprob.py` multiplies it by h and by w (cuBLAS).

A *descriptor* is a 2-D array that Hopper's copy engine (TMA) reads and writes by tiles; beyond its
edges a read gives zeros and a write does nothing, so tokens, words and H need no masks in the loop.

Left out: autotuning (it makes the first step slow and the interpreter fail; `bench/logprob.py
--sweep` tries tile sizes), persistent programs and warp specialisation (a few per cent, twice the
code), fusing the backward matrix products (dW would need atomics or a second recompute).
"""
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.tools.tensor_descriptor import TensorDescriptor

MASKED = tl.constexpr(-1e30)  # logit of a column that does not exist or is forbidden
TILE = 2**28  # elements of d(logits) in backward: 512 MB in 16 bits
GROUP = 8  # token tiles that share a vocabulary tile while it is in the L2 cache


@triton.jit
def _tile_index(M, V, BM: tl.constexpr, BV: tl.constexpr, GROUP: tl.constexpr):
    """Program number -> (row, column) of its tile: down GROUP rows, then one column right."""
    pid = tl.program_id(0)
    n_rows = tl.cdiv(M, BM)
    per_group = GROUP * tl.cdiv(V, BV)
    first = pid // per_group * GROUP
    group = min(n_rows - first, GROUP)  # the last group may be lower
    return first + pid % per_group % group, pid % per_group // group


@triton.jit
def _logits(h, w, forbidden, row, col, V, scale, H: tl.constexpr, UPCAST: tl.constexpr,
            BM: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr):
    """x (BM, BV) in fp32 and its column numbers (BV,); columns outside V or forbidden: -1e30."""
    x = tl.zeros((BM, BV), tl.float32)
    for k in range(0, H, BK):
        a = h.load([row, k])  # (BM, BK)
        b = w.load([col, k])  # (BV, BK)
        if UPCAST:  # the interpreter gets bf16 products wrong without saying so
            a, b = a.to(tl.float32), b.to(tl.float32)
        x = tl.dot(a, b.T, x, input_precision="ieee")  # fp32 inputs: no TF32
    cols = col + tl.arange(0, BV)
    allowed = cols < V
    if forbidden is not None:
        allowed = allowed & (tl.load(forbidden + cols, mask=allowed, other=1) == 0)
    return tl.where(allowed[None, :], x * scale, MASKED), cols


@triton.jit
def _statistics_kernel(h, w, targets, forbidden, out, chosen, M, V, n_tiles, scale,
                       H: tl.constexpr, UPCAST: tl.constexpr, GROUP: tl.constexpr,
                       BM: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr):
    """out (3, n_tiles, M) = m, s, t of every tile; chosen (M,) = the targets' logits."""
    i, j = _tile_index(M, V, BM, BV, GROUP)
    x, cols = _logits(h, w, forbidden, i * BM, j * BV, V, scale, H, UPCAST, BM, BV, BK)
    rows = i * BM + tl.arange(0, BM)
    live = rows < M
    target = tl.load(targets + rows, mask=live, other=-1)
    mine = tl.sum(tl.where(cols[None, :] == target[:, None], x, 0.0), 1)
    owns = live & (target >= j * BV) & (target < min(j * BV + BV, V))
    tl.store(chosen + rows, mine, mask=owns)
    m = tl.max(x, 1)
    x = x - m[:, None]
    e = tl.exp(x)
    at = out + j * M + rows
    tl.store(at, m, mask=live)
    tl.store(at + n_tiles * M, tl.sum(e, 1), mask=live)
    tl.store(at + 2 * n_tiles * M, tl.sum(e * x, 1), mask=live)


@triton.jit
def _grad_kernel(h, w, d, targets, forbidden, row_data, M, V, row_stride, scale,
                 ENTROPY: tl.constexpr, H: tl.constexpr, UPCAST: tl.constexpr, GROUP: tl.constexpr,
                 BM: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr):
    """d (M, V) = d(loss)/d(logits); row_data (5, M) as in `grad_logits`."""
    i, j = _tile_index(M, V, BM, BV, GROUP)
    x, cols = _logits(h, w, forbidden, i * BM, j * BV, V, scale, H, UPCAST, BM, BV, BK)
    rows = i * BM + tl.arange(0, BM)
    live = rows < M
    target = tl.load(targets + rows, mask=live, other=-1)
    at = row_data + rows
    m = tl.load(at, mask=live, other=0.0)
    log_sum = tl.load(at + row_stride, mask=live, other=0.0)
    g_logp = tl.load(at + 2 * row_stride, mask=live, other=0.0)
    logp = x - m[:, None] - log_sum[:, None]
    # the one-hot comes last: in one expression with exp, triton 3.6 spills 50 bytes
    if ENTROPY:
        constant = tl.load(at + 3 * row_stride, mask=live, other=0.0)  # g_logp + g_entropy * H
        g_entropy = tl.load(at + 4 * row_stride, mask=live, other=0.0)
        grad = -tl.exp(logp) * (constant[:, None] + g_entropy[:, None] * logp)
    else:
        grad = -tl.exp(logp) * g_logp[:, None]
    grad += tl.where(cols[None, :] == target[:, None], g_logp[:, None], 0.0)
    d.store([i * BM, j * BV], grad.to(d.dtype))


@triton.jit
def _token_loss_kernel(logp, logp_old, logp_ref, advantage, loss, ratio_out, kl_out, grad, M,
                       low, high, beta, BLOCK: tl.constexpr):
    """Each token once: loss, ratio, k3 and d(loss)/d(logp), all (M,)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = i < M
    new = tl.load(logp + i, mask=live, other=0.0)
    A = tl.load(advantage + i, mask=live, other=0.0)
    ratio = tl.exp(new - tl.load(logp_old + i, mask=live, other=0.0))
    free = ratio * A
    clipped = tl.minimum(tl.maximum(ratio, low), high) * A
    diff = tl.load(logp_ref + i, mask=live, other=0.0) - new
    bounded = tl.minimum(tl.maximum(diff, -20.0), 20.0)
    kl = tl.exp(bounded) - bounded - 1.0
    # as autograd has it: torch.minimum gives each side half of a tie, clamp passes its edges
    share = tl.where(free < clipped, 1.0, tl.where(free == clipped, 0.5, 0.0))
    share += tl.where((ratio >= low) & (ratio <= high), 1.0 - share, 0.0)
    d_kl = tl.where(diff == bounded, 1.0 - tl.exp(bounded), 0.0)
    tl.store(loss + i, beta * kl - tl.minimum(free, clipped), mask=live)
    tl.store(ratio_out + i, ratio, mask=live)
    tl.store(kl_out + i, kl, mask=live)
    tl.store(grad + i, beta * d_kl - share * A * ratio, mask=live)


INTERPRETED = not isinstance(_logits, triton.JITFunction)  # TRITON_INTERPRET=1 at import


def tile_config(dtype: torch.dtype, entropy_grad: bool = False,
                device: torch.device | None = None) -> dict[str, int]:
    """Tile sizes, warps and pipeline stages that compile without register spills on sm_90."""
    shared = 232_448  # bytes of shared memory per program on an H100, assumed without a device
    if device is not None and device.type == "cuda":
        shared = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    if INTERPRETED:  # small, so that small tests have several tiles
        BM, BV, BK, warps, stages = 32, 64, 32, 4, 1
    elif dtype == torch.float32:  # no tensor cores: exact products, for tests
        BM, BV, BK, warps, stages = 64, 64, 16, 8, 3
    elif shared < 200_000:  # A100 and smaller
        BM, BV, BK, warps, stages = 128, 128, 64, 8, 2
    else:  # with the entropy's gradient 256 columns do not fit the registers
        BM, BV, BK, warps, stages = 128, 128 if entropy_grad else 256, 64, 8, 4
    return {"BM": BM, "BV": BV, "BK": BK, "num_warps": warps, "num_stages": stages}


def statistics(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float,
               forbidden: Tensor | None, chosen: Tensor, config: dict[str, int] | None = None
               ) -> tuple[Tensor, Tensor, Tensor]:
    """(M, H), (V, H), (M,) -> m, s, t of each vocabulary tile, (tiles, M) fp32.

    Same contract as `logprob.TorchTiles.statistics`: x = scale * hidden @ weight.T, targets count
    from this chunk's first word, and `chosen` (M,) receives those of its entries that lie in it.
    """
    (M, H), V = hidden.shape, len(weight)
    c = config or tile_config(hidden.dtype, False, hidden.device)
    n_tiles = triton.cdiv(V, c["BV"])
    out = torch.empty(3, n_tiles, M, device=hidden.device)
    with torch.cuda.device_of(hidden):  # Triton launches on the current device
        _statistics_kernel[(triton.cdiv(M, c["BM"]) * n_tiles,)](
            _descriptor(hidden, c["BM"], c["BK"]), _descriptor(weight, c["BV"], c["BK"]),
            targets.contiguous(), _bytes(forbidden), out, chosen, M, V, n_tiles, scale,
            H=H, UPCAST=INTERPRETED, GROUP=GROUP, **c)
    return out[0], out[1], out[2]


def grad_logits(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float,
                forbidden: Tensor | None, row_data: Tensor, entropy_grad: bool,
                config: dict[str, int] | None = None) -> Tensor:
    """d(loss)/d(hidden @ weight.T), (M, V) in hidden's dtype.

    Same contract as `logprob.TorchTiles.grad_logits`; row_data (5, M) fp32 holds m, log s,
    g_logp, g_logp + g_entropy * H and g_entropy, the gradients already times scale.
    """
    (M, H), V = hidden.shape, len(weight)
    c = config or tile_config(hidden.dtype, entropy_grad, hidden.device)
    d = hidden.new_empty(M, triton.cdiv(V, 8) * 8)  # a descriptor's rows start at 16-byte steps
    with torch.cuda.device_of(hidden):
        _grad_kernel[(triton.cdiv(M, c["BM"]) * triton.cdiv(V, c["BV"]),)](
            _descriptor(hidden, c["BM"], c["BK"]), _descriptor(weight, c["BV"], c["BK"]),
            _descriptor(d, c["BM"], c["BV"]), targets.contiguous(), _bytes(forbidden), row_data,
            M, V, row_data.stride(0), scale, ENTROPY=entropy_grad, H=H, UPCAST=INTERPRETED,
            GROUP=GROUP, **c)
    return d[:, :V]


def _descriptor(x: Tensor, rows: int, cols: int) -> TensorDescriptor:
    """2-D x in tiles of (rows, cols).  An H that TMA cannot step over is padded in a copy."""
    step = 16 // x.element_size()
    if x.shape[1] % step or x.stride(1) != 1 or x.stride(0) % step or x.data_ptr() % 16:
        x = torch.nn.functional.pad(x, (0, -x.shape[1] % step)).contiguous()
    return TensorDescriptor.from_tensor(x, [rows, cols])


def _bytes(mask: Tensor | None) -> Tensor | None:
    """bool -> uint8, which a kernel can load; None stays None and its code is not compiled."""
    return None if mask is None else mask.contiguous().view(torch.uint8)


class _TokenLoss(torch.autograd.Function):
    """The gradient is made together with the loss: it costs one more store."""

    @staticmethod
    def forward(ctx: Any, logp: Tensor, logp_old: Tensor, logp_ref: Tensor, advantage: Tensor,
                eps_low: float, eps_high: float, beta: float) -> tuple[Tensor, Tensor, Tensor]:
        """Four (M,) -> loss, ratio, kl (M,)."""
        inputs = [x.contiguous() for x in (logp, logp_old, logp_ref, advantage)]
        loss, ratio, kl, grad = (torch.empty_like(inputs[0]) for _ in range(4))
        if len(logp):
            with torch.cuda.device_of(logp):
                _token_loss_kernel[(triton.cdiv(len(logp), 1024),)](
                    *inputs, loss, ratio, kl, grad, len(logp), 1 - eps_low, 1 + eps_high, beta,
                    BLOCK=1024)
        ctx.save_for_backward(grad)
        ctx.mark_non_differentiable(ratio, kl)
        return loss, ratio, kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_loss: Tensor, g_ratio: Tensor, g_kl: Tensor
                 ) -> tuple[Tensor | None, ...]:
        """Only logp gets a gradient."""
        return (g_loss * ctx.saved_tensors[0],) + (None,) * 6


def fused_token_loss(logp: Tensor, logp_old: Tensor, logp_ref: Tensor, advantage: Tensor, *,
                     eps_low: float, eps_high: float, beta: float
                     ) -> tuple[Tensor, Tensor, Tensor]:
    """`rapo.token_loss` in one kernel: loss, ratio and k3 estimate per token.

    ratio = exp(logp - logp_old);  d = clamp(logp_ref - logp, -20, 20);  kl = exp(d) - d - 1;
    loss = beta * kl - min(ratio * A, clip(ratio, 1 - eps_low, 1 + eps_high) * A).

    Four (M,) fp32 tensors on one device (nats; advantage without unit), clip widths in [0, 1),
    beta >= 0.  Returns loss (gradient to logp only), ratio and kl (detached), (M,) fp32.
    Raises ValueError where a tensor is not fp32 or the shapes differ.
    """
    tensors = (logp, logp_old, logp_ref, advantage)
    if any(x.dtype != torch.float32 or x.shape != logp.shape or x.ndim != 1 for x in tensors):
        raise ValueError(f"need four (M,) fp32: {[(tuple(x.shape), x.dtype) for x in tensors]}")
    return _TokenLoss.apply(*tensors, eps_low, eps_high, beta)
