"""K sampled answers to each picture: vision tower and prompt once, then one token per row and step.

The prompt's keys and values are stored once and shared by the picture's K rows (`attention.py`);
rows that have finished leave when enough of them have. Sampling is from the fp32 softmax at the
given temperature, without top-k, top-p or repetition penalty: the ratio of the update is only the
policy's if its log-probs describe the distribution that was sampled.
Left out: rows that join while others run (a step's pictures are all known), speculative decoding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from nanoaes.attention import SharedKV
from nanoaes.batching import token_batches
from nanoaes.errors import NotFinite
from nanoaes.graphs import Graphs
from nanoaes.inputs import Prompts
from nanoaes.logprob import sampling_logits
from nanoaes.sampling import draw
from nanoaes.vlm import VLM

# Tokens kept as keys and values for one of a forward: for its backward a token keeps 75 times as
# much, a few times with checkpointing. Small groups decode one by one and leave the device idle.
# Beyond MOST more rows save little, and 7B's keys and values are 7.5 GB.
CACHED, MOST = 32, 2**17
CHECK = 4  # steps between looks at who has finished; on CUDA each look waits for the GPU
SPAN, PROMPT = 128, 128  # graphs are recorded for own and prompt lengths in multiples of these
LOGITS = 2**26  # the largest (rows, vocabulary) tensor, in elements: 256 MB in fp32


@dataclass(frozen=True)
class Answer:
    """What is read of a rollout."""

    text: str
    n_tokens: int  # up to and including the stop token
    cut: bool  # no stop token within the limit


@dataclass
class Rollouts:
    """N images, K answers each, T = the longest answer."""

    ids: Tensor  # (N, K, T) int64
    mask: Tensor  # (N, K, T) bool, True up to and including the first stop token
    logp: Tensor  # (N, K, T) fp32, of the sampled token when it was sampled; 0 where masked
    truncated: Tensor  # (N, K) bool, no stop token within the limit

    def answers(self, vlm: VLM) -> list[list[Answer]]:
        """N pictures' K answers as text, without their stop token.

        Other special tokens stay visible: an answer that holds one has not the form asked for.
        What the chat template has opened for the answer belongs to it.
        """
        n_tokens, cut = self.mask.sum(2).flatten().tolist(), self.truncated.flatten().tolist()
        rows = [ids[: n - 1 + c]
                for ids, n, c in zip(self.ids.flatten(0, 1).tolist(), n_tokens, cut, strict=True)]
        texts = [vlm.opened + text for text in vlm.tokenizer.batch_decode(rows)]
        flat, k = list(map(Answer, texts, n_tokens, cut)), self.ids.shape[1]
        return [flat[i : i + k] for i in range(0, len(flat), k)]


@dataclass(frozen=True)
class Plan:
    """What is asked, of all pictures alike."""

    k: int
    room: int  # tokens of the longest answer
    temperature: float
    uniform: Tensor | None  # (N·K, room) fp64, None: greedy
    tokens: int  # per forward
    graphs: Graphs | None


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
def rollout(vlm: VLM, prompts: Prompts, *, k: int, max_new_tokens: int, temperature: float = 1.0,
            uniform: Tensor | None = None, tokens: int | None = None,
            graphs: Graphs | None = None) -> Rollouts:
    """Sample K answers per image.

    Args:
        temperature: > 0 samples; 0 takes the likeliest token (greedy).
        uniform: (N, K, max_new_tokens) float64 in [0, 1), each token's own number, as
            `sampling.uniforms` draws them; greedy needs none.
        tokens: at most so many per forward, padding counted, and `cached` of them in the
            cache. It changes memory, never an answer. A single picture is not split.
        graphs: on CUDA, what this and later rollouts record and replay.
    Raises:
        ValueError: numbers missing or of another shape.
        NotFinite: NaN or infinity in the hidden states or the log-probs.
    """
    n = len(prompts.ids)
    if temperature == 0:
        uniform = None
    elif uniform is None or uniform.shape != (n, k, max_new_tokens):
        raise ValueError(f"temperature {temperature} needs uniform numbers {n, k, max_new_tokens}, "
                         f"not {None if uniform is None else tuple(uniform.shape)}")
    else:
        uniform = uniform.flatten(0, 1).to(vlm.device)
    plan = Plan(k, max_new_tokens, temperature, uniform, tokens or 2**62, graphs)
    rolls = unwritten(vlm, n, plan)
    with eval_mode(vlm, graphs):
        for images in groups(prompts, plan):
            answer(vlm, prompts, images, plan, rolls)
        longest = int(rolls.mask.sum(2).max())
        if not rolls.logp.isfinite().all():
            raise not_finite_logp(rolls)
    return Rollouts(rolls.ids[..., :longest], rolls.mask[..., :longest], rolls.logp[..., :longest],
                    rolls.truncated)


@contextmanager
def eval_mode(vlm: VLM, graphs: Graphs | None) -> Iterator[None]:
    """The checkpointing of a training forward has no place here; the mode comes back, whatever
    happens, and the graphs come to rest."""
    was_training = vlm.training
    vlm.eval()
    try:
        yield
    except NotFinite:
        if graphs is not None:
            graphs.drop()  # NaN in storage would outlive better weights: 0 · NaN is NaN
        raise
    finally:
        vlm.train(was_training)
        if graphs is not None:
            graphs.rest()


def cached(tokens: int) -> int:
    """Tokens kept as keys and values beside forwards of `tokens`."""
    return min(CACHED * tokens, MOST)


def groups(prompts: Prompts, plan: Plan) -> tuple[Tensor, ...]:
    """The pictures that are answered side by side, as far as their cache has room."""
    n, p = prompts.ids.shape
    size = max(1, cached(plan.tokens) // (p + plan.k * plan.room))
    return torch.arange(n, device=prompts.ids.device).tensor_split(-(-n // size))  # of like sizes


def unwritten(vlm: VLM, n: int, plan: Plan) -> Rollouts:
    """Rollouts of the full length, all masked."""
    ids = torch.full((n, plan.k, plan.room), vlm.pad_id, device=vlm.device)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    return Rollouts(ids, mask, torch.zeros_like(ids, dtype=torch.float), mask.any(2))


def answer(vlm: VLM, prompts: Prompts, images: Tensor, plan: Plan, rolls: Rollouts) -> None:
    """Write K answers to each of `images` (n,) into `rolls`, all n·K rows side by side."""
    part = some(prompts, images)
    kv = storage(vlm, part, plan.k, plan.room, plan.graphs)
    first = prefill(vlm, part, kv, plan.k, plan.tokens)  # (n, H)
    if not first.isfinite().all():
        bad = images[~first.isfinite().all(1)]
        raise NotFinite(f"the hidden states of picture {int(bad[0]) + 1}'s prompt are")
    hidden = first.repeat_interleave(plan.k, 0)  # (n·K, H)
    rows = first_rows(images, part, plan.k)
    stop = torch.tensor(vlm.stop_ids, device=vlm.device)
    for t in range(plan.room):
        choose_and_write(vlm, hidden, rows, t, plan, rolls)
        rows.live = rows.live & ~torch.isin(rows.token, stop)
        look = t % CHECK == CHECK - 1
        if t + 1 == plan.room or (look and finished(rows, rolls)):
            break
        if look:
            rows = drop_finished(rows, kv)
        hidden = next_hidden(vlm, kv, rows, t, plan.graphs)
    rolls.truncated.view(-1)[rows.number] = rows.live


def first_rows(images: Tensor, prompts: Prompts, k: int) -> Rows:
    """K rows for each of `images` (n,), all of them live."""
    number = images[:, None] * k + torch.arange(k, device=images.device)
    return Rows(number, prompts.next_position[:, None].expand_as(number),
                torch.ones_like(number, dtype=torch.bool), torch.zeros_like(number))


def some(prompts: Prompts, images: Tensor) -> Prompts:
    """The prompts `images` (n,), in ascending order; all of them: without a copy."""
    return prompts if len(images) == len(prompts.ids) else prompts.select(images)


def storage(vlm: VLM, prompts: Prompts, k: int, room: int, graphs: Graphs | None) -> SharedKV:
    """Room for the keys and values; with graphs, in what the graphs know."""
    n, p = prompts.ids.shape
    if graphs is None:
        return SharedKV((n, p, n * k, room), vlm.device)
    return graphs.keep((n, -(-p // PROMPT) * PROMPT, n * k, room),
                       lambda size: SharedKV(size, vlm.device), vlm.parameters())


def prefill(vlm: VLM, prompts: Prompts, kv: SharedKV, k: int, tokens: int) -> Tensor:
    """Fill `kv` with the prompts; (N, H) hidden states that predict the answers' first tokens."""
    kv.start(prompts.mask, k)
    hidden, order = [], []
    for batch in token_batches([(p,) for p in prompts.mask.sum(1).tolist()], tokens):
        images = torch.tensor(sorted(batch), device=vlm.device)
        part = some(prompts, images)
        kv.fill(images)
        x, deepstack = vlm.embed(part, part.ids[:, :0])
        row = vlm.decode_layers(x, part.positions, kv, **deepstack)
        hidden.append(row[torch.arange(len(batch), device=vlm.device), part.last])
        order.append(images)
    return torch.cat(hidden)[torch.cat(order).argsort()]


def choose_and_write(vlm: VLM, hidden: Tensor, rows: Rows, t: int, plan: Plan, rolls: Rollouts
                     ) -> None:
    """Token number t of every row, from (n·k, H) hidden states."""
    uniform = None if plan.uniform is None else plan.uniform[rows.number.flatten(), t]
    token, logp = sample(vlm, hidden, plan.temperature, uniform)
    rows.token = token.view_as(rows.number)
    rolls.ids.view(-1, plan.room)[rows.number, t] = rows.token
    rolls.mask.view(-1, plan.room)[rows.number, t] = rows.live
    rolls.logp.view(-1, plan.room)[rows.number, t] = torch.where(
        rows.live, logp.float().view_as(rows.number), 0)


def sample(vlm: VLM, hidden: Tensor, temperature: float, uniform: Tensor | None
           ) -> tuple[Tensor, Tensor]:
    """One token per row from (B, H) hidden states, and its log-prob in fp32; both (B,)."""
    parts, size = [], max(1, LOGITS // len(vlm.head))
    for at in (slice(i, i + size) for i in range(0, len(hidden), size)):
        logits = sampling_logits(hidden[at], vlm.head, temperature or 1.0, vlm.forbidden)
        p = logits.softmax(-1)
        token = logits.argmax(-1) if uniform is None else draw(p, uniform[at])
        # Over their sum: on a CPU softmax adds 150,000 words in few lanes and is 2e-5 off.
        parts.append((token, (p.gather(1, token[:, None])[:, 0] / p.sum(-1)).log()))
    tokens, logps = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(logps)


def finished(rows: Rows, rolls: Rollouts) -> bool:
    """Has every row its stop token? Waits for the device, once; so it is here that NaN is seen."""
    live, finite = torch.stack([rows.live.any(), rolls.logp.isfinite().all()]).tolist()
    if not finite:
        raise not_finite_logp(rolls)
    return not live


def not_finite_logp(rolls: Rollouts) -> NotFinite:
    """Names the first token of any answer whose log-prob is NaN or infinite."""
    bad = (~rolls.logp.isfinite()).flatten(0, 1).any(0)
    return NotFinite(f"the log-probs of token {int(bad.int().argmax()) + 1} are")


def next_hidden(vlm: VLM, kv: SharedKV, rows: Rows, t: int, graphs: Graphs | None) -> Tensor:
    """Feed every row's token number t; (n·k, H) hidden states that predict the next."""
    room = kv.size[3]
    span = t + 1 if graphs is None else min(-(-(t + 1) // SPAN) * SPAN, room)

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
    n = min(_round_up(n, kv.first[0] // 8), kv.n)
    k = min(_round_up(k, kv.first[1] // 4), kv.k)
    if n * k > 0.75 * kv.n * kv.k:
        return rows
    images = count.argsort(descending=True, stable=True)[:n]
    order = rows.live[images].int().argsort(dim=1, descending=True, stable=True)[:, :k]
    kv.keep(images, order)
    return rows.select(images, order)


def _round_up(x: int, unit: int) -> int:
    return x if unit < 2 else -(-x // unit) * unit
