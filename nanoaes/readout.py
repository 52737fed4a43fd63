"""How a score is read out of a model that has looked at a picture.

    greedy   the number that the reply states
    expect   E = Σ p(x)·x over the numbers x that can stand where the reply states its own
    direct   the same without a critique: the reply is made to begin <think></think><answer>

`expect` is as deterministic as `greedy` and takes nearly as many values as there are pictures: of
greedy scores with two decimals a fifth of all pairs tie. It is exact for any tokenizer. Prompt,
reply and what numbers begin with alike are computed once (`tree.py`); each picture has a forward of
its own, so that its bits do not depend on what else is scored.

`direct` begins with an empty critique and not with <answer> at once: what stands before a number is
then what the model has learnt to see there, and only so is the answer of a thinking model, whose
template has opened <think>, well-formed. With `samples` the critique is not the greedy one but n
sampled ones; mean and spread of their numbers, however these are read, are the score and its std.
Left out: numbers in another form than the reply's own (of "85%", those that do not end in %).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, inf
from os.path import commonprefix
from statistics import fmean, pstdev

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from nanoaes.errors import NotFinite, UserError
from nanoaes.graphs import Graphs
from nanoaes.inputs import Prompts
from nanoaes.prompt import Stated, critique_of, parse_score, rest_of, stated
from nanoaes.rollout import Answer, Rollouts, cached, eval_mode, rollout
from nanoaes.sampling import uniforms
from nanoaes.tree import continuations
from nanoaes.vlm import VLM

READOUTS = ("greedy", "expect", "direct")
BARE = "<think></think><answer>"
MOST = 100.0  # the widest range whose numbers are weighed: 1,102 candidates
FINE = 10.0  # numbers of a range up to this wide have two decimals, of a wider one, one


@dataclass(frozen=True)
class Score:
    """What is known of one picture."""

    score: float | None  # in [0, 1]; None: unreadable
    text: str  # the reply; of several the one whose number is nearest to their mean; direct: ""
    std: float | None = None  # of the readable samples' scores, in [0, 0.5]; None without samples
    n_tokens: int = 0  # of the reply, up to and including the stop token
    cut: bool = False  # the reply has no stop token within the limit

    @property
    def critique(self) -> str:
        """The reply's words without its tags and number."""
        return critique_of(self.text)


@dataclass(frozen=True)
class Form:
    """Where a number stands, and how it is written."""

    before: str  # the text from a border between tokens up to the number
    after: str  # and from there to the end of the answer
    low: float  # of the numbers, as they are written
    high: float
    comma: bool = False  # 0,62
    bare: bool = False  # .62

    def written(self, x: float, decimals: int) -> str:
        """A number of the range."""
        text = f"{x:.{decimals}f}"
        if self.bare and decimals:
            text = text.removeprefix("0")
        return text.replace(".", ",") if self.comma else text


@dataclass(frozen=True)
class Reading:
    """How pictures are read, all alike."""

    readout: str = "greedy"
    samples: int = 0  # critiques per picture; 0: one
    temperature: float = 0.0  # of the critiques; 0: greedy, but samples are drawn at 1
    seed: int = 0  # of the samples
    tokens: int = 2048  # per forward of the rollout; changes memory, never a score
    graphs: Graphs | None = None  # on CUDA: what rollouts record and replay

    def __post_init__(self) -> None:
        """Raises UserError for what no picture can be read by."""
        if self.readout not in READOUTS:
            raise UserError(f"readout {self.readout!r}: use one of {', '.join(READOUTS)}")
        if self.samples < 0:
            raise UserError(f"{self.samples} samples: use 0 or more")
        if self.readout == "direct" and (self.samples or self.temperature):
            raise UserError("readout direct writes no critique that could be sampled; leave "
                            "samples and temperature at 0")

    @property
    def k(self) -> int:
        """Critiques per picture."""
        return max(1, self.samples)

    @property
    def drawn_at(self) -> float:
        """The temperature of the critiques."""
        return self.temperature or float(self.samples > 0)


def read(vlm: VLM, images: Sequence[Image.Image], places: Sequence[int], reading: Reading
         ) -> list[Score]:
    """The score of each picture; all of them are answered side by side.

    Args:
        images: N, RGB.
        places: N numbers >= 0, of which each picture's own random numbers are made.
    Raises:
        NotFinite: NaN or infinity in the hidden states or the log-probs.
    """
    prompts, limit = vlm.prompts(images), vlm.asking.max_new_tokens
    if reading.readout == "direct":
        with eval_mode(vlm, None):
            return [Score(direct(vlm, one), "") for one in each(prompts)]
    rolls = rollout(vlm, prompts, k=reading.k, max_new_tokens=limit, temperature=reading.drawn_at,
                    uniform=uniforms(reading.seed, 0, places, reading.k, limit),
                    tokens=reading.tokens, graphs=reading.graphs)
    answers = rolls.answers(vlm)
    if reading.readout == "expect":
        with eval_mode(vlm, None):
            scores = expected(vlm, prompts, rolls, answers)
    else:
        scores = [[parse_score(a.text, vlm.asking.score_range) for a in row] for row in answers]
    return [summary(*known, reading.samples > 0) for known in zip(answers, scores, strict=True)]


def batches(vlm: VLM, items: Iterable[tuple[int, Image.Image]], reading: Reading
            ) -> Iterator[tuple[list[int], list[Image.Image]]]:
    """Places and their pictures, in order, as many at once as a rollout keeps in one cache."""
    places, batch, longest = [], [], 0
    for place, image in items:
        length = vlm.prompt_length(image)
        longest = max(longest, length)
        room = longest + reading.k * vlm.asking.max_new_tokens
        if batch and (len(batch) + 1) * room > cached(reading.tokens):
            yield places, batch
            places, batch, longest = [], [], length
        places, batch = [*places, place], [*batch, image]
    if batch:
        yield places, batch


def each(prompts: Prompts) -> Iterator[Prompts]:
    """N prompts, one by one."""
    for i in range(len(prompts.ids)):
        yield prompts.select(torch.tensor([i], device=prompts.ids.device))


def summary(answers: list[Answer], scores: list[float | None], sampled: bool) -> Score:
    """K answers to one picture and their scores -> mean, spread, and the answer most like them."""
    known = [s for s in scores if s is not None]
    mean = fmean(known) if known else None
    off = [inf if s is None else abs(s - mean) for s in scores]
    answer = answers[off.index(min(off))]
    return Score(mean, answer.text, pstdev(known) if sampled and known else None, answer.n_tokens,
                 answer.cut)


def expected(vlm: VLM, prompts: Prompts, rolls: Rollouts, answers: list[list[Answer]]
             ) -> list[list[float | None]]:
    """N pictures' K expected scores; None where an answer is unreadable."""
    out = []
    for ids, prompt, row in zip(rolls.ids.tolist(), each(prompts), answers, strict=True):
        found = [stated(a.text, vlm.asking.score_range) for a in row]
        out.append([f and expect(vlm, prompt, said[: a.n_tokens], f)
                    for said, a, f in zip(ids, row, found, strict=True)])
    return out


def direct(vlm: VLM, prompt: Prompts) -> float:
    """The expected score in [0, 1] of a reply that begins with an empty critique."""
    form = Form(rest_of(BARE, vlm.opened), "</answer>", *vlm.asking.score_range)
    return expectation(vlm, prompt, [], form)


def expect(vlm: VLM, prompt: Prompts, said: list[int], found: Stated) -> float | None:
    """The expected score in [0, 1] where a reply states its own.

    Args:
        prompt: one.
        said: (T,) the reply's ids.
        found: what `stated` finds in its text.
    Returns:
        None where the reply counts by more than 100 ("850/1000"): too many numbers.
    """
    low, high = (end * found.unit for end in vlm.asking.score_range)
    if high - low > MOST:
        return None
    whole = found.before.removeprefix(vlm.opened)
    n, text = boundary(vlm, said, whole)
    form = Form(whole.removeprefix(text), found.after, low, high, comma="," in found.number,
                bare=found.number.startswith("."))
    return expectation(vlm, prompt, said[:n], form)


def boundary(vlm: VLM, said: list[int], before: str) -> tuple[int, str]:
    """How many of a reply's tokens end at or before its <answer>, and what these say.

    One token may hold the end of the critique and the tag, or the tag and a digit: so the
    candidates are written from here on. What they have in common costs nothing.
    """
    start = before.rindex("<answer>")
    texts = ((n, vlm.tokenizer.decode(said[:n])) for n in range(len(said), -1, -1))
    # Half a character decodes to another one, with which the text does not begin.
    return next((n, text) for n, text in texts if len(text) <= start and before.startswith(text))


@lru_cache(maxsize=16)  # thousands of replies have the same form
def candidates(tokenizer: PreTrainedTokenizerBase, form: Form) -> tuple[list[list[int]], Tensor]:
    """All numbers that can stand in a reply's place for one: their ids, their scores.

    They are those of the range with at most D decimals, D = 2 (1 where the range is wider than
    10): 1, 0.7, 0.70, 0.73. One with D decimals may go on, 0.731 counts as 0.73; a shorter one
    ends as the reply's own does. So no reply begins with two of them, and their probabilities add
    up.

    Returns:
        K rows of ids, and (K,) float64 in [0, 1].
    """
    low, high, most = form.low, form.high, 2 if form.high - form.low <= FINE else 1
    grid = [(i / 10**d, d) for d in range(most + 1)
            # Rounded: 0.29 * 100 is 28.999999999999996.
            for i in range(ceil(round(low * 10**d, 6)), floor(round(high * 10**d, 6)) + 1)]
    texts = [form.before + form.written(x, d) for x, d in grid]
    words = tokenizer([text + form.after for text in texts], add_special_tokens=False,
                      return_offsets_mapping=True)
    rows = [[token for token, (start, _) in zip(ids, places, strict=True)
             if d < most or start < len(text)]
            for ids, places, text, (_, d) in zip(words["input_ids"], words["offset_mapping"], texts,
                                                 grid, strict=True)]
    return rows, torch.tensor([(x - low) / (high - low) for x, _ in grid], dtype=torch.float64)


def expectation(vlm: VLM, prompt: Prompts, said: list[int], form: Form) -> float:
    """E = Σ_x p(x)·score(x) / Σ_x p(x), x the candidates behind a prompt and what was said.

    Args:
        prompt: one.
        said: ids of the reply's beginning.
    Raises:
        NotFinite: NaN or infinity in the log-probs.
    """
    rows, scores = candidates(vlm.tokenizer, form)
    common = commonprefix(rows)
    p = continuations(vlm, extended(prompt, [*said, *common]),
                      [row[len(common) :] for row in rows]).softmax(0)
    if not p.isfinite().all():
        raise NotFinite("the log-probs of a score are")
    return float(p @ scores)


def extended(prompt: Prompts, said: list[int]) -> Prompts:
    """One prompt and the beginning of its reply, as a prompt."""
    more = torch.tensor(said, dtype=torch.long, device=prompt.ids.device)
    step = torch.arange(len(said), device=prompt.ids.device)
    places = (prompt.next_position + step).expand(3, 1, -1)
    ids = torch.cat([prompt.ids, more[None]], dim=1)
    return Prompts(ids, torch.ones_like(ids, dtype=torch.bool),
                   torch.cat([prompt.positions, places], dim=2), prompt.next_position + len(said),
                   prompt.pixels, prompt.grid)
