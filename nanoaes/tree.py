"""Log-probs of many short texts behind one prompt, each of their tokens computed once.

                     0 ── . ──┬── 5 ──┬── 0           "0.50" "0.51" "0.60" "1.00" as a tree:
    prompt ──────┬── 0        │       └── 1           what they begin with alike is one node
                 └── 1 …      └── 6 ──── 0

The row [prompt; nodes] goes through the model at once; a node sees the prompt, its ancestors and
itself, and stands as far behind the prompt as it is deep. `attention.PackedRows` would give the
same numbers: the 114 numbers of `readout.py` are 450 tokens there and 114 here.
Left out: several prompts at once, a gradient.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nanoaes.attention import causal
from nanoaes.inputs import Prompts
from nanoaes.logprob import token_logprob
from nanoaes.vlm import VLM

Path = tuple[int, ...]  # a node: the ids from the first one to its own


class Tree:
    """Attention of a row [P prompt tokens; M nodes], as `attention.attend` calls it."""

    def __init__(self, p: int, paths: list[Path], groups: int, like: Tensor):
        """groups: query heads per key head; like: of the dtype and device of the queries."""
        number = {path: i for i, path in enumerate(paths)}
        past = [[number[path[:t]] for t in range(1, len(path) + 1)] for path in paths]
        bias = torch.full((len(paths), p + len(paths)), -torch.inf)
        bias[:, :p] = 0
        for row, seen in zip(bias, past, strict=True):
            row[p:][seen] = 0
        self.p, self.groups = p, groups
        self.bias = bias.to(like).repeat(groups, 1)[None, None]  # (1, 1, groups·M, P + M)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float
                 ) -> Tensor:
        """(1, heads, P + M, D) -> (1, P + M, heads, D)."""
        p, h = self.p, key.shape[1]
        prompt = causal(query[:, :, :p], key[:, :, :p], value[:, :, :p], scale)
        # Query heads that share a key head become more queries of it.
        q = query[:, :, p:].unflatten(1, (h, self.groups)).flatten(2, 3)  # (1, h, groups·M, D)
        out = scaled_dot_product_attention(q, key, value, attn_mask=self.bias, scale=scale)
        out = out.unflatten(2, (self.groups, -1)).flatten(1, 2)
        return torch.cat([prompt, out], dim=2).transpose(1, 2)


@torch.no_grad()
def continuations(vlm: VLM, prompt: Prompts, rows: list[list[int]]) -> Tensor:
    """(K,) log-probs in float64, log Π_t p(token t of row k | prompt, the row's tokens before t).

    Args:
        prompt: one.
        rows: K rows of 1 or more ids, none the beginning of another.
    """
    device, p = vlm.device, prompt.ids.shape[1]
    edges = list(dict.fromkeys(tuple(row[:t]) for row in rows for t in range(1, len(row) + 1)))
    ends = {tuple(row) for row in rows}
    nodes = [path for path in edges if path not in ends]  # behind an end nothing is asked
    words = torch.tensor([path[-1] for path in nodes], dtype=torch.long, device=device)
    x, deepstack = vlm.embed(prompt, words[None])
    depth = torch.tensor([len(path) - 1 for path in nodes], dtype=torch.long, device=device)
    places = (prompt.next_position + depth).expand(3, 1, -1)
    hidden = vlm.decode_layers(x, torch.cat([prompt.positions, places], dim=2),
                               Tree(p, nodes, vlm.groups, x), **deepstack)[0]
    place = {(): p - 1} | {path: p + i for i, path in enumerate(nodes)}
    logp = token_logprob(hidden[[place[path[:-1]] for path in edges]], vlm.head,
                         torch.tensor([path[-1] for path in edges], device=device),
                         forbidden=vlm.forbidden)[0].double()
    number = {path: i for i, path in enumerate(edges)}
    return torch.stack([logp[[number[tuple(row[:t])] for t in range(1, len(row) + 1)]].sum()
                        for row in rows]).cpu()
