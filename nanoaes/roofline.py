"""How fast a step could be: its arithmetic over a card's peak, its bytes over a card's bandwidth.

    rollout     prefill by arithmetic; each further token reads all weights and the KV cache
    reference   one forward;  update: forward and backward, with checkpointing a second forward
    optimizer   masters, gradients and moments once through memory
    refresh     what was trained, to every process's whole copy

No run reaches it: launches, softmax, sampling and padding are left out, and all processes finish at
once. What a run measures is to be held against it. `model_flops` is what MFU divides.
"""

from dataclasses import dataclass

from nanoaes.anatomy import HEAD, Anatomy
from nanoaes.memory import Job, groups

NODE = 8  # GPUs that NVLink (or one board) joins


@dataclass(frozen=True)
class Card:
    """One GPU. Rates per second; of links one direction of one GPU."""

    peak: float  # dense bf16 products with fp32 sums, FLOP
    bandwidth: float  # bytes of its memory
    memory: int  # bytes, as nvidia-smi shows it
    link: float  # bytes to GPUs of its node
    network: float  # bytes to other nodes: assumed, one network card of the time per GPU


MIB = 2**20
CARDS = {
    # NVIDIA H100 data sheet, SXM: 1,979 TFLOPS with sparsity, 3.35 TB/s, NVLink 900 GB/s both
    # ways. Network: 400 Gbit/s (ConnectX-7, as in a DGX H100).
    "H100": Card(989e12, 3.35e12, 81_559 * MIB, 450e9, 50e9),
    # NVIDIA H200 data sheet, SXM: as H100, with 4.8 TB/s and 141 GB.
    "H200": Card(989e12, 4.8e12, 143_771 * MIB, 450e9, 50e9),
    # NVIDIA A100 data sheet, SXM 80 GB: 312 TFLOPS, 2,039 GB/s, NVLink 600 GB/s both ways.
    # Network: 200 Gbit/s (ConnectX-6, as in a DGX A100).
    "A100-80": Card(312e12, 2.039e12, 81_920 * MIB, 300e9, 25e9),
    # The same sheet, 40 GB: 1,555 GB/s.
    "A100-40": Card(312e12, 1.555e12, 40_960 * MIB, 300e9, 25e9),
    # NVIDIA L40S data sheet: 362.05 TFLOPS, 864 GB/s, PCIe 4 x16 (64 GB/s both ways), no NVLink.
    # Network: 100 Gbit/s.
    "L40S": Card(362e12, 0.864e12, 46_068 * MIB, 32e9, 12.5e9),
    # NVIDIA Ada GPU architecture white paper, RTX 4090: 165.2 TFLOPS (bf16 with fp32 sums),
    # 1,008 GB/s; PCIe 4 x16. Network: 100 Gbit/s.
    "RTX4090": Card(165.2e12, 1.008e12, 24_564 * MIB, 32e9, 12.5e9),
}


def card_of(name: str) -> Card | None:
    """The card that torch.cuda.get_device_name means, such as "NVIDIA H100 80GB HBM3"."""
    plain = name.replace(" ", "").replace("-", "").upper()
    for known, card in CARDS.items():
        model, _, size = known.partition("-")
        if model in plain and size in plain:
            return card
    return None


@dataclass(frozen=True)
class Work:
    """FLOPs of one forward over one picture's row."""

    vision: float
    prompt: float
    answers: float
    head: float

    @property
    def text(self) -> float:
        return self.prompt + self.answers + self.head


def forward_flops(m: Anatomy, *, prompt: float, picture: float, answer: float, k: int) -> Work:
    """2 per weight and token, and attention: 4 · width per query and key that it may see.

    Args:
        prompt: P, tokens of a prompt, `picture` of them the picture's; answer: T, tokens of one of
            the K answers on the mean.
    """
    text = sum(a * b for name, seen, a, b in m.linears if not seen and name + "." != HEAD)
    patches, eyes = picture * m.merge, m.eyes
    blocks = sum(a * b for name, seen, a, b in m.linears if seen and ".blocks." in name)
    ends = sum(a * b for name, seen, a, b in m.linears if seen and ".blocks." not in name)
    per_block = m.full * patches + (eyes.layers - m.full) * min(m.window, patches)
    vision = patches * (2 * (blocks + m.patch * eyes.hidden) + 4 * eyes.query * per_block)
    attention = 4 * m.text.query * m.text.layers
    return Work(
        vision=vision + 2 * picture * ends,
        prompt=2 * text * prompt + attention * prompt**2 / 2,
        answers=k * (2 * text * answer + attention * answer * (prompt + answer / 2)),
        head=2 * k * answer * m.words * m.text.hidden)


def model_flops(m: Anatomy, *, pictures: float, prompt: float, picture: float, answer: float,
                k: int, vision: bool = True, lora: bool = False, reference: bool = True,
                updates: int = 1) -> float:
    """FLOPs that a step needs; what MFU divides by seconds · peak · GPUs.

    A backward pass is two forwards: one for the weights' gradients (not of frozen ones), one for
    the activations'. What checkpointing computes again is not counted, adapters are not either.

    Args:
        pictures: of the step, over all processes; lengths as in `forward_flops`.
        vision: is the vision tower trained; lora: is only an adapter.
        reference: does the step have one; updates: mu.
    """
    one = forward_flops(m, prompt=prompt, picture=picture, answer=answer, k=k)
    forwards = 1 + reference + updates  # 1: the rollout
    text = forwards + updates * (1 if lora else 2)
    return pictures * (text * one.text + (forwards + 2 * updates * vision) * one.vision)


def seconds(job: Job, card: Card, gpus: int, answer: float, updates: int = 1) -> dict[str, float]:
    """The least time of each phase of a step, of this job on each of `gpus` cards.

    Args:
        answer: tokens of an answer on the mean.
        updates: mu.
    """
    m, e = job.model, job.e
    one = forward_flops(m, prompt=job.prompt, picture=job.picture, answer=answer, k=job.k)
    forward = job.images * (one.vision + one.text)
    trained = 1 if job.adapters else 2
    backward = job.images * (trained * one.text + 2 * job.vision * one.vision)
    again = forward if job.checkpointing else 0
    batches = -(-job.images // max(1, int(job.tokens // (job.prompt + job.k * answer))))
    link = card.link if job.processes <= NODE else card.network
    part = (job.processes - 1) / job.processes
    gather = batches * e * m.total * part / link if job.sharded else 0
    scatter = batches * 4 * job.model.trained(job.vision) * part / link if job.sharded else 0
    if job.adapters:
        scatter = 2 * 4 * job.adapters * (gpus > 1) / (card.link if gpus <= NODE else card.network)
    elif gpus > job.processes:  # replicas: their parts' gradients are summed
        scatter += 2 * 4 * m.trained(job.vision) / job.processes / card.network
    learned = job.adapters or m.trained(job.vision)
    times = {
        "rollout": decode(job, card, answer) + job.images * (one.vision + one.prompt) / card.peak,
        "reference": max(forward / card.peak, gather) if job.reference else 0,
        "update": updates * max((forward + again + backward) / card.peak, 2 * gather + scatter),
        # AdamW reads weights, gradients and two moments and writes three of them, 4 bytes each.
        "optimizer": updates * 28 * learned / (job.processes if job.sharded else 1)
        / card.bandwidth,
        "refresh": e * learned * max(part / link, 2 / card.bandwidth) if job.sharded else 0}
    return times


def decode(job: Job, card: Card, answer: float) -> float:
    """Seconds of the tokens after the prefill: a step reads every weight of the language model and
    each row's keys and values once, the prompt's once per picture."""
    m, e = job.model, job.e
    weights = e * (m.layers + (m.head or m.embedding))
    token = 2 * m.text.layers * m.text.key * e
    steps = groups(job) * answer
    read = steps * weights + token * answer * job.images * (job.prompt + job.k * answer / 2)
    one = forward_flops(m, prompt=job.prompt, picture=job.picture, answer=answer, k=job.k)
    return max(read / card.bandwidth, job.images * (one.answers + one.head) / card.peak)


def speed(job: Job, card: Card, gpus: int, answer: float, updates: int = 1) -> dict[str, float]:
    """Of a step at the limit: seconds, answer tokens and all tokens per second and GPU, MFU.

    "tokens" are counted as verl and EasyR1 do, the prompt with each of its K answers.
    """
    time = sum(seconds(job, card, gpus, answer, updates).values())
    flops = model_flops(job.model, pictures=job.images, prompt=job.prompt, picture=job.picture,
                        answer=answer, k=job.k, vision=job.vision, lora=bool(job.adapters),
                        reference=bool(job.reference), updates=updates)
    rows = job.images * job.k
    return {"seconds": time, "answer tokens": rows * answer / time,
            "tokens": rows * (job.prompt + answer) / time, "mfu": flops / time / card.peak}
