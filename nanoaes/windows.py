"""Attention within the vision tower: windows of one length in one call, not a call per window.

    a row of patches, window by window   |64|64|32|64|64|32|        two pictures
    windows of one length together       |64|64|64|64| |32|32|      two calls, for any number

A picture has windows of up to four lengths (inner, right edge, bottom edge, corner), so that the
calls of a layer do not grow with the number of pictures of one size. Without flash attention
transformers splits the row, calls attention for every window, and fetches the lengths from the
device in every layer. `attend` is found by name in its attention registry and gets the row whole;
a `Windows`, passed through the tower's forward as `windows=`, finds the lengths once a pass.
What that saves are a GPU's launches and waits; a CPU gains nothing (bench/passes.py).
Left out: kernels that take ragged windows (flash-attn's, torch's `varlen_attn`: 16-bit on CUDA
only), dropout.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import AttentionInterface

# The trap: transformers looks for "flash" in the name. Only then do its vision towers hand over
# the whole row with the windows' bounds; under any other name they split it themselves. It is set
# as {"vision_config": NAME} on the whole model: set on the tower, it would be sought in flash-attn.
NAME = "nanoaes_windows_like_flash"


class Groups:
    """The windows of one row, sorted by length; a window's tokens stay in their order.

    Windows of lengths 2 1 2 hold the tokens 0 1 | 2 | 3 4:

        sizes   [(1, 1), (2, 2)]   how many windows, of which length
        order   [2, 0, 1, 3, 4]    which token stands at a sorted place
        back    [1, 2, 0, 3, 4]    at which sorted place a token stands
    """

    def __init__(self, bounds: Tensor):
        """bounds (windows + 1,) int, ascending from 0: where windows start, and the row's end."""
        ends = torch.tensor(bounds.tolist())  # the one wait for the device
        lengths = ends.diff()
        found, counts = lengths.unique(return_counts=True)
        self.sizes = list(zip(counts.tolist(), found.tolist(), strict=True))
        self.order = self.back = None  # nothing moves where the lengths ascend already
        if (lengths.diff() < 0).any():
            order = lengths.repeat_interleave(lengths).argsort(stable=True)
            self.order, self.back = order.to(bounds.device), order.argsort().to(bounds.device)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """(1, heads, S, D) -> (1, S, heads, D), each window for itself."""
        rows = [x[0].transpose(0, 1) for x in (query, key, value)]  # (S, heads, D)
        if self.order is not None:
            rows = [_move(x, self.order) for x in rows]
        parts = zip(*(x.split([n * t for n, t in self.sizes]) for x in rows), strict=True)
        outs = []
        for (n, t), part in zip(self.sizes, parts, strict=True):
            q, k, v = (x.unflatten(0, (n, t)).transpose(1, 2) for x in part)  # (n, heads, t, D)
            out = scaled_dot_product_attention(q, k, v, scale=scale)
            outs.append(out.transpose(1, 2).flatten(0, 1))
        out = torch.cat(outs)
        return (out if self.back is None else _move(out, self.back))[None]


def _move(x: Tensor, order: Tensor) -> Tensor:
    """(S, heads, D), token order[i] to place i. An embedding, for its backward: whole rows."""
    return embedding(order, x.flatten(1)).view(x.shape)


class Windows:
    """The groups of one pass: made when a layer first shows its bounds, then kept for the rest.

    A pass has one tensor of bounds, or two: Qwen2.5-VL has layers that see the whole picture.
    """

    def __init__(self) -> None:
        self.known: list[tuple[Tensor, Groups]] = []

    def __call__(self, bounds: Tensor) -> Groups:
        for seen, groups in self.known:
            if seen is bounds:
                return groups
        self.known.append((bounds, Groups(bounds)))
        return self.known[-1][1]


def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None,
           scaling: float, cu_seq_lens_q: Tensor, windows: Windows | None = None, **options
           ) -> tuple[Tensor, None]:
    """What transformers calls: (1, heads, S, D) in, (1, S, heads, D) out.

    Without `windows` (in transformers' own `generate`) every layer looks at its bounds itself.
    """
    groups = (windows or Windows())(cu_seq_lens_q)
    return groups(query, key, value, scaling), None


AttentionInterface.register(NAME, attend)
