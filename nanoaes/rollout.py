"""K sampled answers to each picture: vision tower and prompt once, then one token per row and step.

The prompt's keys and values are stored once and shared by the picture's K rows (`attention.py`);
rows that have finished leave when enough of them have. Sampling is from the fp32 softmax at the
given temperature, without top-k, top-p or repetition penalty: the ratio of the update is only the
policy's if its log-probs describe the distribution that was sampled.
Left out: rows that join while others run (a step's pictures are all known), speculative decoding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nanoaes.attention import SharedKV
from nanoaes.graphs import Graphs
from nanoaes.inputs import Prompts
from nanoaes.logprob import sampling_logits
from nanoaes.vlm import VLM

CHECK = 4  # steps between looks at who has finished; on CUDA each look waits for the GPU
SPAN, PROMPT = 128, 128  # graphs are recorded for own and prompt lengths in multiples of these


@dataclass
class Rollouts:
    """N images, K answers each, T = the longest answer."""

    ids: Tensor  # (N, K, T) int64
    mask: Tensor  # (N, K, T) bool, True up to and including the first stop token
    logp: Tensor  # (N, K, T) fp32, of the sampled token when it was sampled; 0 where masked
    truncated: Tensor  # (N, K) bool, no stop token within the limit

    def texts(self, tokenizer) -> list[str]:
        """N·K answers as text, image by image, without their stop token.

        Other special tokens stay visible: an answer that holds one has not the form asked for.
        """
        lengths = (self.mask.sum(2) - 1 + self.truncated.int()).flatten().tolist()
        rows = [ids[:n] for ids, n in zip(self.ids.flatten(0, 1).tolist(), lengths, strict=True)]
        return tokenizer.batch_decode(rows)


@dataclass
class Rows:
    """The rows that still run, n images with k rows each; some may have finished."""

    number: Tensor  # (n, k) int64, place among all N·K rows
    position: Tensor  # (n, k) int64, of the answer's first token
    live: Tensor  # (n, k) bool
    token: Tensor  # (n, k) int64, the last one sampled

    def select(self, images: Tensor, rows: Tensor) -> "Rows":
        """Images (n',) and, of each, rows (n', k')."""
        return Rows(**{name: x[images[:, None], rows] for name, x in vars(self).items()})


@torch.no_grad()
def rollout(vlm: VLM, prompts: Prompts, k: int, max_new_tokens: int, temperature: float,
            generator: torch.Generator | None = None, graphs: Graphs | None = None) -> Rollouts:
    """Sample K answers per image.

    Args:
        temperature: > 0 samples; 0 takes the likeliest token (greedy).
        generator: on the model's device; the same state gives the same answers.
        graphs: on CUDA, what this and later rollouts of the same sizes record and replay.
    """
    was_training = vlm.training
    vlm.eval()  # the checkpointing of a training forward has no place here
    n, kv = len(prompts.ids), storage(vlm, prompts, k, max_new_tokens, graphs)
    hidden = prefill(vlm, prompts, kv).repeat_interleave(k, 0)  # (N·K, H)
    number = torch.arange(n * k, device=vlm.device).view(n, k)
    rows = Rows(number, prompts.next_position[:, None].expand(n, k), number >= 0, number)
    ids = number.new_full((n * k, max_new_tokens), vlm.pad_id)
    mask, logps = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.float)
    stop = torch.tensor(vlm.stop_ids, device=vlm.device)
    for t in range(max_new_tokens):
        token, logp = sample(hidden, vlm, temperature, generator)
        rows.token = token.view_as(rows.live)
        ids[rows.number, t], mask[rows.number, t] = rows.token, rows.live
        logps[rows.number, t] = torch.where(rows.live, logp.view_as(rows.live), 0)
        rows.live = rows.live & ~torch.isin(rows.token, stop)
        if t + 1 < max_new_tokens:
            if t % CHECK == CHECK - 1:
                if not rows.live.any():
                    break
                rows = drop_finished(rows, kv)
            hidden = next_hidden(vlm, kv, rows, t, graphs)
    vlm.train(was_training)
    truncated = torch.zeros(n * k, dtype=torch.bool, device=vlm.device)
    truncated[rows.number] = rows.live
    longest = int(mask.sum(1).max())
    return Rollouts(*(x[:, :longest].view(n, k, -1) for x in (ids, mask, logps)),
                    truncated.view(n, k))


def storage(vlm: VLM, prompts: Prompts, k: int, room: int, graphs: Graphs | None) -> SharedKV:
    """Empty keys and values; with graphs, those that the graphs know."""
    n, p = prompts.ids.shape
    if graphs is None:
        return SharedKV(n, k, p, room, vlm.device)
    size = n, k, -(-p // PROMPT) * PROMPT, room
    return graphs.keep(size, lambda: SharedKV(*size, vlm.device), vlm.parameters())


def prefill(vlm: VLM, prompts: Prompts, kv: SharedKV) -> Tensor:
    """Fill `kv` with the prompts; (N, H) hidden states that predict the answers' first tokens."""
    kv.start(prompts.mask)
    x, deepstack = vlm.embed(prompts, prompts.ids[:, :0])
    hidden = vlm.decode_layers(x, prompts.positions, kv, **deepstack)
    return hidden[torch.arange(len(hidden), device=vlm.device), prompts.last]


def sample(hidden: Tensor, vlm: VLM, temperature: float, generator: torch.Generator | None
           ) -> tuple[Tensor, Tensor]:
    """One token per row from (B, H) hidden states, and its log-prob in fp32; both (B,)."""
    logits = sampling_logits(hidden, vlm.head, temperature or 1.0, vlm.forbidden)
    logp = logits.log_softmax(-1)
    if temperature == 0:
        token = logp.argmax(-1)
    else:
        # The first word at which the cumulated probability exceeds a uniform number: one random
        # number per row. In fp64, or 150,000 words' rounding would bias the last ones.
        cumulated = logits.softmax(-1).double().cumsum(-1)
        u = torch.rand(len(logp), 1, generator=generator, device=logp.device)
        token = torch.searchsorted(cumulated, u * cumulated[:, -1:], right=True)[:, 0]
    return token, logp.gather(1, token[:, None])[:, 0]


def next_hidden(vlm: VLM, kv: SharedKV, rows: Rows, t: int, graphs: Graphs | None) -> Tensor:
    """Feed every row's token number t; (n·k, H) hidden states that predict the next."""
    span = t + 1 if graphs is None else min(-(-(t + 1) // SPAN) * SPAN, kv.size[3])

    def forward(token: Tensor, position: Tensor, at: Tensor) -> Tensor:
        kv.step(at, span)
        x = vlm.hf.get_input_embeddings()(token)[:, None]  # (B, 1, H)
        return vlm.decode_layers(x, position.expand(3, -1)[..., None], kv)[:, 0]

    inputs = rows.token.flatten(), rows.position.flatten() + t, \
        torch.full((1,), t, device=vlm.device)
    return forward(*inputs) if graphs is None else graphs((kv.n, kv.k, span), forward, *inputs)


def drop_finished(rows: Rows, kv: SharedKV) -> Rows:
    """Shrink n and k to what lives, in quarters and eighths of the first size, if it saves enough.

    The K rows of an image stay beside each other, so that they go on sharing its prompt.
    """
    count = rows.live.sum(1)  # (n,)
    n, k = int((count > 0).sum()), int(count.max())
    n = min(_round_up(n, kv.size[0] // 8), kv.n)
    k = min(_round_up(k, kv.size[1] // 4), kv.k)
    if n * k > 0.75 * kv.n * kv.k:
        return rows
    images = count.argsort(descending=True, stable=True)[:n]
    order = rows.live[images].int().argsort(dim=1, descending=True, stable=True)[:, :k]
    kv.keep(images, order)
    return rows.select(images, order)


def _round_up(x: int, unit: int) -> int:
    return x if unit < 2 else -(-x // unit) * unit
