"""What a run needs, before it allocates: bytes per process by part, from a model's numbers alone.

    parts    weights, gradients, optimizer, copy, reference, KV cache, activations, head, …
    phases   rollout, evaluation, reference, update, step: what is alive in each; the largest is
             the peak

Everything is counted at the longest that the options allow: prompts and answers without gaps, all
answers at their limit. It follows from shapes and from what autograd keeps; bench/memory.py holds
it against what is measured.
Left out: what CUDA itself, NCCL and the allocator's gaps take (`budget.MARGIN` is for them), and
loading, which needs less than training does.
"""

from dataclasses import dataclass, replace

from nanoaes.anatomy import Anatomy, Tower
from nanoaes.graphs import KEPT
from nanoaes.logprob import TILE
from nanoaes.rollout import LOGITS, PROMPT, cached

GPU_TILE = 2**28  # as `kernels.TILE`, which needs Triton to be imported; in 16 bits
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Job:
    """What a run asks of each process."""

    model: Anatomy
    tokens: int  # --tokens_per_micro_batch
    prompt: int  # P, tokens of a prompt with its picture
    picture: int  # image tokens of it
    answer: int  # T, tokens of the longest answer
    k: int  # K, answers per picture
    images: int  # N / processes
    dtype: str = "float32"
    processes: int = 1  # that share one copy of the weights
    alone: bool = True  # no others at all
    checkpointing: bool = False
    reference: str = ""  # "", sharded or cpu
    vision: bool = True  # train the vision tower
    rank: int = 0  # LoRA's; 0: full training
    adapters: int = 0  # its parameters
    cuda: bool = False
    script: str = "rapo"  # rapo; sft: no rollout; eval: nothing else
    held: int = 0  # held-out pictures / processes
    tested: int = 0  # pictures of the largest test set / processes

    @property
    def e(self) -> int:
        """Bytes of a number that is computed with."""
        return BYTES[self.dtype]

    @property
    def sharded(self) -> bool:
        """Is the learner a model of its own, under FSDP? As `models.load_models`."""
        if self.adapters or self.script == "eval":
            return False
        return not self.alone or self.e < 4 or self.reference == "cpu"

    @property
    def row(self) -> int:
        """Tokens of one picture's row."""
        return self.prompt + self.k * self.answer

    @property
    def rows(self) -> int:
        """Pictures of a micro-batch."""
        return min(self.images, max(1, self.tokens // self.row))


def estimate(job: Job) -> dict[str, int]:
    """Bytes per process by part, then all of them "in" each phase, and the largest as "peak".

    A part that comes and goes has its largest size; no phase has all parts.
    """
    m, held = job.model, persistent(job)
    gradients = 0 if job.script == "eval" else held["optimizer"] // 2
    cache = kv_cache(job) if job.script != "sft" else 0
    kept = cache if job.cuda and cache <= KEPT else 0
    layer, outside = (job.e * m.largest, job.e * m.outside) if job.sharded else (0, 0)
    always, work, gathered, last = sum(held.values()), 0, 0, 0
    phases = {}
    if job.script != "sft":
        phases["rollout"] = always + cache + prefill(job) + sampling(job)
        # Of held-out pictures beside all else, of the test sets when only the weights are left.
        phases["evaluation"] = max(always + looking(job, job.held),
                                   job.e * m.total + looking(job, job.tested))
    if job.reference:
        phases["reference"] = (always + kept + outside + 2 * layer + forward(job, job.rows > 1)
                               + head(job, False))
    if job.script != "eval":
        work = update(job)
        # Two layers, the gradient of one, and of two in fp32 on their way to the other processes.
        gathered = outside + 3 * layer + 8 * m.largest * job.sharded
        # The root's gradient goes that way last, when all activations are gone.
        last = (2 * job.e + 4) * m.outside * job.sharded
        phases["update"] = always + kept + gradients + max(work + gathered, last)
        # AdamW's square roots: of one weight after another. On CUDA it is fused and makes none.
        phases["step"] = always + kept + gradients + 12 * m.largest * (not job.cuda)
    workspace = head(job, True) if work else 0
    parts = held | {"gradients": gradients, "KV cache": cache, "activations": work - workspace,
                    "head": workspace, "gathered": max(gathered, last - work)}
    return {**{name: x for name, x in parts.items() if x},
            **{f"in {name}": x for name, x in phases.items()}, "peak": max(phases.values())}


def persistent(job: Job) -> dict[str, int]:
    """What is alive from the first step to the last, and a step's pictures."""
    m, e, w = job.model, job.e, job.processes if job.sharded else 1
    trained = job.adapters or m.trained(job.vision)
    masters = e * m.total + 4 * job.adapters if job.adapters else 4 * -(-m.total // w)
    if job.script == "eval":
        masters, trained = e * m.total + 4 * job.adapters, 0
    second = 4 * job.adapters if job.adapters else e * -(-m.total // w)
    return {"weights": masters, "optimizer": 8 * -(-trained // w),
            "copy": e * m.total if job.sharded else 0,
            "reference": second if job.reference == "sharded" else 0,
            "pictures": 4 * job.images * job.picture * m.merge * m.patch}


def kept_by_layer(job: Job, tower: Tower) -> int:
    """Bytes that one layer keeps for its backward, of all tokens of a micro-batch.

    Each linear layer keeps its input, each product its two factors, a norm what it divided (in
    fp32) and the quotient, attention its queries, keys, values and output.
    """
    e, n, p, t, k = job.e, job.rows, job.prompt, job.answer, job.k
    tokens = tokens_of(job, tower)
    # A frozen norm's quotient has no use, nor has it where LayerNorm makes it again.
    kinds = (4 + e + e * (not job.rank)) if tower.gated else 2 * e
    norms, lora = 2 * tower.hidden * kinds, 7 * job.rank * e
    inner = (4 if tower.gated else 3) * e * tower.inner + lora
    if tower is not job.model.text:
        return tokens * (norms + inner + 5 * e * tower.query + 4 * tower.heads)
    # Queries and keys of the whole row, then of prompt and answers apart (`attention.PackedRows`).
    whole = tokens * (2 * tower.query + 2 * tower.key)
    apart = n * (p + 2 * k * t) * tower.query + 2 * n * k * (p + t) * tower.key
    normed = (4 + e) * (tower.query + tower.key) if tower.head_norm else 0
    return tokens * (norms + inner + normed + 8 * tower.heads) + e * (whole + apart)


def passing(job: Job, tower: Tower, gradient: bool) -> int:
    """Bytes that come and go within one layer: the widest moment of its feed-forward part.

    In the backward pass what was kept goes as the gradients come.
    """
    wide, narrow = (2, 2) if gradient else (3, 3)
    wide += bool(job.rank) and not gradient  # the detour's result
    return tokens_of(job, tower) * job.e * (wide * tower.inner + narrow * tower.hidden)


def tokens_of(job: Job, tower: Tower) -> int:
    """Of a micro-batch: the language model's tokens, the vision tower's patches."""
    m = job.model
    return job.rows * (job.row if tower is m.text else job.picture * m.merge)


def bias(job: Job) -> int:
    """The mask of a micro-batch, (N·K, 1, groups·T, P + T)."""
    text = job.model.text
    return job.e * job.rows * job.k * (text.query // text.key) * job.answer * (
        job.prompt + job.answer)


def pixels(job: Job, copied: bool) -> int:
    """Patches of a micro-batch: cast for bf16; copied where not all are taken or one, since
    pictures of like lengths are no neighbours."""
    m = job.model
    return tokens_of(job, m.eyes) * m.patch * (4 * copied + job.e * (job.e < 4))


def merger(job: Job) -> int:
    """Kept by the vision tower's end: a norm and two layers."""
    eyes = job.model.eyes
    return tokens_of(job, eyes) * eyes.hidden * (4 + 4 * job.e)


def last_norm(job: Job) -> int:
    """Kept by the language model's end, with the hidden states that the head gets."""
    text, e = job.model.text, job.e
    quotient = e * (not job.rank)  # as in `kept_by_layer`
    return text.hidden * (tokens_of(job, text) * (4 + quotient)
                          + job.rows * job.k * job.answer * e)


def forward(job: Job, copied: bool) -> int:
    """A forward without gradient, head apart: the vision tower, then the language model."""
    m = job.model
    return pixels(job, copied) + max(passing(job, m.eyes, False),
                             bias(job) + last_norm(job) + passing(job, m.text, False))


def update(job: Job) -> int:
    """Activations of a micro-batch and the head's workspace, at the widest of three moments of a
    backward pass: in the head, in a layer of the language model, in one of the vision tower."""
    m, seen = job.model, job.vision
    text, eyes = (kept_by_layer(job, tower) for tower in (m.text, m.eyes))
    if job.checkpointing:
        inputs = [job.e * tokens_of(job, x) * x.hidden * x.layers for x in (m.text, m.eyes)]
    else:
        inputs, text, eyes = [text * m.text.layers, eyes * m.eyes.layers], 0, 0
    start = pixels(job, job.rows > 1) + seen * (merger(job) + inputs[1])
    whole = start + bias(job) + last_norm(job) + inputs[0]
    weight = 0 if job.adapters else job.e * m.words * m.text.hidden
    return max(whole + head(job, True), whole + weight + text + passing(job, m.text, True),
               seen * (start + weight + eyes + passing(job, m.eyes, True)))


def head(job: Job, gradient: bool) -> int:
    """`logprob.token_logprob`'s workspace: tiles, sums in fp32, the head's gradient."""
    e, h, v = job.e, job.model.text.hidden, job.model.words
    tokens = job.rows * job.k * job.answer
    tile = min(2 * GPU_TILE, 2 * tokens * v) if job.cuda else min(4 * TILE, 4 * tokens * v)
    if not gradient:
        return 12 * tokens * -(-v // 128) if job.cuda else 2 * tile
    weight = 0 if job.adapters else e * v * h
    return tile + tokens * h * (8 + e) + weight


def groups(job: Job) -> int:
    """How many groups of pictures are answered one after another, as `rollout.groups`."""
    return -(-job.images // max(1, cached(job.tokens) // job.row))


def kv_cache(job: Job) -> int:
    """Keys and values of the largest group of pictures."""
    size = -(-job.images // groups(job))
    prompt = -(-job.prompt // PROMPT) * PROMPT if job.cuda else job.prompt
    text = job.model.text
    return size * (prompt + job.k * job.answer) * 2 * text.layers * text.key * job.e


def prefill(job: Job) -> int:
    """The widest moment of prompts in one forward."""
    n = min(job.images, max(1, job.tokens // job.prompt))
    part = replace(job, k=0, answer=0, images=n, tokens=n * job.prompt)
    return forward(part, 1 < n < job.images)


def looking(job: Job, images: int) -> int:
    """One answer to each of some pictures, as many at once as `readout.batches` takes."""
    n = min(images, max(1, cached(job.tokens) // (job.prompt + job.answer)))
    part = replace(job, k=1, images=max(1, n))
    taken = persistent(part)["pictures"] + kv_cache(part) + prefill(part) + sampling(part)
    return taken if n else 0


def sampling(job: Job) -> int:
    """Logits, probabilities and their copies, in fp32."""
    return 3 * 4 * min(LOGITS, job.images * job.k * job.model.words)
