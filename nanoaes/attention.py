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
# torch's first choice on Hopper and Blackwell, but cuDNN plans anew for every shape (half a second
# on a B200: modelscope/FunASR#3704), and here nearly every micro-batch has a shape of its own.
torch.backends.cuda.enable_cudnn_sdp(False)


def causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The prompt's part. No mask: its padding is on the right, where no real token looks."""
    return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale,
                                        enable_gqa=key.shape[1] < query.shape[1])


class PackedRows:
    """Rows [prompt; answer 1; …; answer K], the answers' real tokens without gaps between them.

    Tokens are counted in two ways: a `slot` is one of the N·K·T of the padded answers, a `place`
    one of the N·L of the rows, L = P + C. `X_of_Y` holds an X for each Y. One image, a prompt
    P1 P2 and the answers A1 A2 A3 and B1, T = 3:

        slots                   A1 A2 A3 | B1 –  –
        places                  P1 P2 A1 A2 A3 B1
        slot_of_packed (N, C)   [[0, 1, 2, 3]]                  which token stands behind the prompt
        place_of_slot (N·K, T)  [[2, 3, 4], [5, 5, 5]]          where an answer's token stands
        place_of_key (N·K, P+T) [[0, 1, 2, 3, 4], [0, 1, 5, 5, 5]]     what an answer may look at
        step (N, C)             [[0, 1, 2, 0]]                  how far into its answer a token is
        predictor (M,)          [1, 2, 3, 1]                    the place that predicts a real token

    B1 comes from P2, as A1 does. Padding slots share the place of a real token, whose output they
    may not change: no key of theirs is in its past. Rows shorter than C end in padding slots.
    """

    def __init__(self, prompt_mask: Tensor, mask: Tensor, groups: int):
        """prompt_mask (N, P) bool, padded on the right; groups: query heads per key head.

        mask (N, K, T) bool, True on an answer's first tokens; T shrinks to the longest answer.
        """
        mask = mask[:, :, : int(mask.sum(2).max())]
        (n, k, t), p, device = mask.shape, prompt_mask.shape[1], mask.device
        real = mask.flatten(1)
        order = real.int().argsort(dim=1, descending=True, stable=True)
        packed = order[:, : int(real.sum(1).max())]
        image = torch.arange(n, device=device)[:, None]
        start = image * (p + packed.shape[1])  # the place where an image's row starts
        prompt = (start + torch.arange(p, device=device)).repeat_interleave(k, 0)
        self.slot_of_packed, self.step = image * k * t + packed, packed % t
        own = (real.cumsum(1) - 1).clamp(min=0)  # (N, K·T): `packed` the other way round
        self.place_of_slot = (start + p + own).view(n * k, t)
        self.place_of_key = torch.cat([prompt, self.place_of_slot], dim=1)
        before = (self.place_of_slot - 1).view(n, k, t)
        # An answer's first token stands behind another answer, but the prompt predicts it.
        before[:, :, 0] = start + prompt_mask.sum(1, keepdim=True) - 1
        self.predictor = before[mask]
        self.prompt_mask, self.groups, self.bias = prompt_mask, groups, None

    def words(self, completions: Tensor) -> Tensor:
        """(N, K, T or longer) token ids -> (N, C), as they stand behind the prompts."""
        t = self.place_of_slot.shape[1]
        return completions[:, :, :t].flatten()[self.slot_of_packed]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float
                 ) -> Tensor:
        """(N, heads, P + C, D) -> (N, P + C, heads, D)."""
        p, h = self.prompt_mask.shape[1], key.shape[1]
        if self.bias is None:
            self.bias = self._bias(query.dtype)
        prompt = causal(query[:, :, :p], key[:, :, :p], value[:, :, :p], scale)
        # Query heads that share a key head become more queries of it: keys are never repeated.
        q = _tokens(query, self.place_of_slot).unflatten(2, (h, -1)).permute(0, 2, 3, 1, 4)
        out = scaled_dot_product_attention(
            q.flatten(2, 3), _tokens(key, self.place_of_key).transpose(1, 2),
            _tokens(value, self.place_of_key).transpose(1, 2), attn_mask=self.bias, scale=scale)
        out = out.view(q.shape).flatten(1, 2)  # (N·K, query heads, T, D)
        return torch.cat([prompt.transpose(1, 2), _tokens(out, self.slot_of_packed)], dim=1)

    def _bias(self, dtype: torch.dtype) -> Tensor:
        """(N·K, 1, groups·T, P + T): 0 for the prompt and an answer's past, -inf for the rest.

        A bool mask would be turned into this by every layer's call, and autograd would keep each
        one; of this one it keeps one. Lines are padded to 8 numbers: the memory-efficient kernel
        copies what is not aligned.
        """
        (n, p), t = self.prompt_mask.shape, self.place_of_slot.shape[1]
        k = len(self.place_of_slot) // n
        bias = torch.zeros(n, k, self.groups, t, -(-(p + t) // 8) * 8, dtype=dtype,
                           device=self.prompt_mask.device)
        bias[..., :p].masked_fill_(~self.prompt_mask[:, None, None, None], -torch.inf)
        future = torch.ones(t, t, dtype=torch.bool, device=bias.device).triu(1)
        bias[..., p : p + t].masked_fill_(future, -torch.inf)
        return bias.view(n * k, 1, self.groups * t, -1)[..., : p + t]


def _tokens(x: Tensor, index: Tensor) -> Tensor:
    """(B, heads, L, D) and (N, M) numbers of tokens in (B·L,) -> (N, M, heads, D)."""
    rows = x.transpose(1, 2).reshape(-1, x.shape[1] * x.shape[3])
    # An embedding: its backward adds whole rows, a gather's single numbers.
    return embedding(index, rows).unflatten(2, (x.shape[1], x.shape[3]))


class SharedKV:
    """Keys and values while sampling: the prompt's once per image, an answer's in its own row.

    The first forwards are the prefill of the prompts, some pictures each; each later one brings one
    token of n·k rows, which are what `keep` has left. Storage never moves and may be larger than
    asked: what is used stands at its front, where a captured CUDA graph will look for it.
    """

    def __init__(self, size: tuple[int, int, int, int], device: torch.device):
        """size: room for prompts, their tokens, rows of answers over all prompts, their tokens."""
        self.size = size
        self.mask = torch.zeros(size[:2], dtype=torch.bool, device=device)
        self.prompt: list[tuple[Tensor, Tensor]] = []  # per layer: keys, values (N, heads, P, D)
        self.own: list[tuple[Tensor, Tensor]] = []  # the same, flat: see `view`

    @property
    def nbytes(self) -> int:
        """Of what the prefill has made."""
        return sum(x.nbytes for pair in self.prompt + self.own for x in pair)

    def start(self, prompt_mask: Tensor, k: int) -> None:
        """N prompts (N, P) with k answers each; no more of either than there is room for."""
        n, p = prompt_mask.shape
        self.first = self.n, self.k = n, k
        self.mask.zero_()[:n, :p] = prompt_mask

    def fill(self, images: Tensor) -> None:
        """The next forward is the prefill of images (n',) among the N."""
        self.at, self.images = None, images

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
        n, p, rows, room = self.size
        _, h, length, d = key.shape
        if layer == len(self.prompt):
            for store, shape in ((self.prompt, (n, h, p, d)), (self.own, (rows * h * room * d,))):
                store.append((key.new_zeros(shape), key.new_zeros(shape)))
        for store, x in zip(self.prompt[layer], (key, value), strict=True):
            store[self.images, :, :length] = x


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """query @ key.T in fp32 or better: rounded to bf16, scores would shift weights by per cents."""
    if query.dtype not in (torch.bfloat16, torch.float16):
        return query @ key.mT
    if not query.is_cuda:
        return query.float() @ key.mT.float()
    batch = query.shape[:-2]
    x = torch.bmm(query.flatten(0, -3), key.flatten(0, -3).mT, out_dtype=torch.float32)
    return x.unflatten(0, batch)
