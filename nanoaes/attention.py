"""Attention for K answers that share one picture's prompt, in training and while sampling.

                       prompt keys          own keys
                    ┌───────────────┐   ┌─────────────┐
        prompt      │ ■ ■           │   │             │
                    │ ■ ■ ■         │   │             │
        answer 1    │ ■ ■ ■ ■ ■ ■ ■ │ + │ ■           │   one softmax over both parts
                    │ ■ ■ ■ ■ ■ ■ ■ │ + │ ■ ■         │
        answer K    │ ■ ■ ■ ■ ■ ■ ■ │ + │ ■           │   its own keys, the same prompt keys
                    └───────────────┘   └─────────────┘

transformers' attention layers find `attend` by name in the attention registry; it hands their
queries, keys and values to a layout, passed through the model's forward as `shared=`: `PackedRows`
when training, `SharedKV` when sampling. Without a layout it is transformers' own SDPA, so that
their `generate` runs on the same model.
Left out: one masked call over the whole row (1.8 times as long at 500 prompt and 250 answer tokens
for K = 4, 2.3 times for K = 8: bench/attention.py), sliding windows, dropout.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "nanoaes_shared_prompt"


def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
           scaling: float, shared: "PackedRows | SharedKV | None" = None, **options
           ) -> tuple[Tensor, None]:
    """What transformers calls: (B, heads, L, D) in, (B, L, heads, D) out."""
    if shared is None:
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **options)
    return shared(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


def causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The prompt's part. No mask: its padding is on the right, where no real token looks."""
    return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale,
                                        enable_gqa=key.shape[1] < query.shape[1])


class PackedRows:
    """Rows [prompt; answer 1; …; answer K], the answers' real tokens without gaps between them.

    `pack` (N, C) says which of an image's K·T places a packed token comes from; padding behind the
    last answer comes from padding places.
    """

    def __init__(self, prompt_mask: Tensor, mask: Tensor, groups: int):
        """prompt_mask (N, P), mask (N, K, T) bool; groups: query heads per key head."""
        (n, k, t), p = mask.shape, prompt_mask.shape[1]
        real = mask.flatten(1)
        order = real.int().argsort(dim=1, descending=True, stable=True)
        self.pack = order[:, : int(real.sum(1).max())]
        image = torch.arange(n, device=mask.device)[:, None]
        first = image * (p + self.pack.shape[1])  # where an image's row starts in (N·L,)
        own = p + (real.cumsum(1) - 1).clamp(min=0)  # (N, K·T): `pack` the other way round
        self.own = (first + own).view(n * k, t)
        prompt = (first + torch.arange(p, device=mask.device)).repeat_interleave(k, 0)
        self.seen_at = torch.cat([prompt, self.own], dim=1)  # (N·K, P + T)
        self.packed = image * k * t + self.pack  # (N, C) in (N·K·T,)
        past = torch.ones(t, t, dtype=torch.bool, device=mask.device).tril()
        seen = torch.cat([prompt_mask[:, None, None, None].expand(n, k, groups, t, p),
                          past.expand(n, k, groups, t, t)], dim=-1)
        self.seen = seen.reshape(n * k, 1, groups * t, p + t)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float
                 ) -> Tensor:
        """(N, heads, P + C, D) -> (N, P + C, heads, D)."""
        p, h = query.shape[2] - self.pack.shape[1], key.shape[1]
        prompt = causal(query[:, :, :p], key[:, :, :p], value[:, :, :p], scale)
        # Query heads that share a key head become more queries of it: keys are never repeated.
        q = _tokens(query, self.own).unflatten(2, (h, -1)).permute(0, 2, 3, 1, 4)
        out = scaled_dot_product_attention(
            q.flatten(2, 3), _tokens(key, self.seen_at).transpose(1, 2),
            _tokens(value, self.seen_at).transpose(1, 2), attn_mask=self.seen, scale=scale)
        out = out.view(q.shape).flatten(1, 2)  # (N·K, query heads, T, D)
        return torch.cat([prompt.transpose(1, 2), _tokens(out, self.packed)], dim=1)


def _tokens(x: Tensor, index: Tensor) -> Tensor:
    """(B, heads, L, D) and (N, M) numbers of tokens in (B·L,) -> (N, M, heads, D)."""
    rows = x.transpose(1, 2).reshape(-1, x.shape[1] * x.shape[3])
    # An embedding: its backward adds whole rows, a gather's single numbers.
    return embedding(index, rows).unflatten(2, (x.shape[1], x.shape[3]))


class SharedKV:
    """Keys and values while sampling: the prompt's once per image, an answer's in its own row.

    The first forward is the prefill of N prompts; each later one brings one token of n·k rows.
    n <= N images and k <= K rows are what `keep` has left. Storage never moves: what stays is
    copied to its front, where a captured CUDA graph will look for it.
    """

    def __init__(self, n: int, k: int, p: int, room: int, device: torch.device):
        """Room for n prompts of p tokens and, for each, k answers of `room` tokens."""
        self.size, self.n, self.k = (n, k, p, room), n, k
        self.mask = torch.zeros(n, p, dtype=torch.bool, device=device)
        self.prompt: list[tuple[Tensor, Tensor]] = []  # per layer: keys, values (N, heads, P, D)
        self.own: list[tuple[Tensor, Tensor]] = []  # the same, flat: see `view`

    def start(self, prompt_mask: Tensor) -> None:
        """(N, P) bool, P at most the room for it; the next forward is these prompts' prefill."""
        self.n, self.k, self.at = *self.size[:2], None
        self.mask.zero_()[:, : prompt_mask.shape[1]] = prompt_mask

    def step(self, at: Tensor, span: int) -> None:
        """The next forward brings every row's token number `at` (1,) int64; at < span <= room.

        `at` is a tensor and `span` a number, because a CUDA graph reads the one and is made for
        the other: keys past `span` are not looked at.
        """
        self.at, self.span = at, span
        past = torch.arange(span, device=at.device) <= at
        seen = torch.cat([self.mask[: self.n], past.expand(self.n, -1)], dim=1)
        bias = torch.zeros(seen.shape, device=at.device).masked_fill_(~seen, -torch.inf)
        self.bias = bias[:, None, None]  # (n, 1, 1, P + span)

    def keep(self, images: Tensor, rows: Tensor) -> None:
        """Go on with images (n',) and their rows (n', k') only."""
        self.mask[: len(images)] = self.mask[images]
        for prompts, owns in zip(self.prompt, self.own, strict=True):
            for prompt, own in zip(prompts, owns, strict=True):
                prompt[: len(images)] = prompt[images]
                x = self.view(own)[images]  # (n', heads, k, T, D)
                index = rows[:, None, :, None, None].expand(-1, x.shape[1], -1, *x.shape[3:])
                x = x.gather(2, index)
                own[: x.numel()] = x.flatten()
        self.n, self.k = rows.shape

    def view(self, own: Tensor) -> Tensor:
        """The rows in use, (n, heads, k, T, D)."""
        heads, d = self.prompt[0][0].shape[1::2]
        shape = self.n, heads, self.k, self.size[3], d
        return own[: math.prod(shape)].view(shape)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float
                 ) -> Tensor:
        """Prefill: (N, heads, P, D) -> (N, P, heads, D); then (n·k, heads, 1, D), likewise."""
        if self.at is None:
            self._store_prompt(layer, key, value)
            return causal(query, key, value, scale).transpose(1, 2)
        n, k, (h, d) = self.n, self.k, key.shape[1::2]
        owns = [self.view(x) for x in self.own[layer]]
        for own, new in zip(owns, (key, value), strict=True):
            own.index_copy_(3, self.at, new.view(n, k, h, 1, d).transpose(1, 2))
        (keys, values), (own_keys, own_values) = self.prompt[layer], owns
        p = keys.shape[2]
        q = query.view(n, k, h, -1, d).transpose(1, 2)  # (n, heads, k, G, D)
        # All k·G queries of an image meet its prompt in one product; nothing is repeated.
        scores = torch.cat([
            _scores(q.reshape(n, h, -1, d), keys[:n]),
            _scores(q, own_keys[:, :, :, : self.span]).flatten(2, 3)], dim=-1)
        weight = (scores * scale + self.bias).softmax(-1).to(value.dtype)  # (n, h, k·G, P + span)
        out = (weight[..., p:].unflatten(2, (k, -1)) @ own_values[:, :, :, : self.span])
        out = out + (weight[..., :p] @ values[:n]).view(out.shape)
        return out.transpose(1, 2).reshape(n * k, 1, -1, d)

    def _store_prompt(self, layer: int, key: Tensor, value: Tensor) -> None:
        n, k, p, room = self.size
        _, h, length, d = key.shape
        if layer == len(self.prompt):
            for store, shape in ((self.prompt, (n, h, p, d)), (self.own, (n * h * k * room * d,))):
                store.append((key.new_zeros(shape), key.new_zeros(shape)))
        for store, x in zip(self.prompt[layer], (key, value), strict=True):
            store[:, :, :length] = x


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """query @ key.T in fp32 or better: rounded to bf16, scores would shift weights by per cents."""
    if query.dtype not in (torch.bfloat16, torch.float16):
        return query @ key.mT
    if not query.is_cuda:
        return query.float() @ key.mT.float()
    batch = query.shape[:-2]
    x = torch.bmm(query.flatten(0, -3), key.flatten(0, -3).mT, out_dtype=torch.float32)
    return x.unflatten(0, batch)
