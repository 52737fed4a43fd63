"""Before a run: does it fit, how large are its micro-batches; --dry_run: all of that as text.

    parameters, image tokens, tokens of a step, memory per process by part and phase against a
    card's, steps of an epoch, and the seconds per phase that the card allows at best

No weight is read, so it also plans for a machine that is not this one (--gpu, --gpus).
Left out: what pictures and answers will be like. Memory is counted at their limits, seconds at
`TYPICAL` tokens of an answer.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedConfig, Qwen2_5_VLConfig

from nanoaes.anatomy import BUILT_IN, Anatomy, anatomy
from nanoaes.budget import MARGIN, fits, free_memory, micro_batch_tokens, refuse, remedies
from nanoaes.checks import check_kind, read_config, reading
from nanoaes.config import LearnConfig, OptionError
from nanoaes.folder import Asking, default_asking, read_asking
from nanoaes.hub import find_folder
from nanoaes.memory import Job, estimate
from nanoaes.parallel import device
from nanoaes.progress import say
from nanoaes.roofline import CARDS, Card, seconds, speed

C = TypeVar("C", bound=LearnConfig)
GB = 1e9
TYPICAL = 250  # tokens of an answer: a critique of five dimensions and a score
MANY = 10**6  # pictures of a test set that is not at hand
LETTERS, CHAT = 4, 25  # per token of English, at least; tokens of a chat template around it


def config_of(model: str) -> PreTrainedConfig:
    """A folder's config.json, else what is known by heart, else the hub's; nothing more of it.

    Raises:
        CheckpointError: none of these, or of a model that this code does not know.
    """
    if model in BUILT_IN and not Path(model).is_dir():
        return Qwen2_5_VLConfig(**BUILT_IN[model])
    path = find_folder(Path(model), ["config.json"])
    check_kind(path)
    return read_config(path)


def job_of(cfg: LearnConfig, model: Anatomy, asking: Asking, *, processes: int, cuda: bool,
           side: int, reference: str = "", script: str = "rapo", tested: int = 0) -> Job:
    """A script's options as a job; --tokens_per_micro_batch as it is, 0 included.

    Args:
        asking: with the options in place (`Asking.but`).
        processes: all of them.
        side: pixels of an image token's side, patch · merge.
        reference: "" for none, as for `models.load_models`.
        tested: pictures of the largest test set that one process has to score.
    """
    picture = asking.max_pixels // side**2
    rapo = script == "rapo"
    return Job(
        model, cfg.tokens_per_micro_batch, prompt=picture + len(asking.prompt) // LETTERS + CHAT,
        picture=picture, answer=asking.max_new_tokens, k=cfg.k if rapo else 1,
        images=-(-(cfg.images if rapo else cfg.batch) // processes), dtype=cfg.dtype,
        processes=cfg.shard or processes, alone=processes == 1,
        checkpointing=cfg.gradient_checkpointing, reference=reference,
        vision=cfg.lora_vision if cfg.lora_rank else cfg.train_vision, rank=cfg.lora_rank,
        adapters=model.adapters(cfg.lora_rank, cfg.targets, cfg.lora_vision), cuda=cuda,
        script=script, held=-(-cfg.heldout // processes), tested=tested)


def chosen(job: Job, free: int) -> Job:
    """The job with a --tokens_per_micro_batch: as given, or where it is 0 from what is free."""
    return job if job.tokens else replace(job, tokens=micro_batch_tokens(job, free))


def describe(job: Job, *, name: str, free: int, where: str, processes: int = 1,
             card: Card | None = None, updates: int = 1, epoch: int = 0) -> str:
    """The text of --dry_run.

    Args:
        job: with its --tokens_per_micro_batch chosen.
        name: the model's; where: the device's; free: its bytes that are free.
        card: of each process, where its speed is known.
        updates: mu; epoch: pictures of a pass, 0: not known.
    """
    lines = [*_model(job, name), *_step(job, processes, epoch), *_memory(job, free, where)]
    return "\n".join(lines + (_speed(job, card, where, processes, updates) if card else []))


def _model(job: Job, name: str) -> list[str]:
    m = job.model
    parts = {"vision": m.vision, "embedding": m.embedding, "layers": m.layers, "head": m.head}
    said = ", ".join(f"{part} {n / 1e9:.2f}" if n else f"{part} tied" for part, n in parts.items())
    trained = job.adapters or m.trained(job.vision)
    return [f"{name}: {m.total / 1e9:.2f} B parameters ({said}); {trained / 1e9:.2f} B trained"
            + (f", adapters of rank {job.rank}" if job.rank else "")]


def _step(job: Job, processes: int, epoch: int) -> list[str]:
    pictures = job.images * processes
    lines = [f"prompt: up to {job.prompt} tokens, {job.picture} of them the picture's; "
             f"answers: up to {job.answer}",
             f"step: {pictures} pictures x {job.k} answers, up to "
             f"{pictures * job.row:,} tokens; {processes} processes of {job.images} pictures, "
             f"micro-batches of {job.tokens:,} tokens ({job.rows} pictures)"]
    if epoch:
        lines.append(f"epoch: {math.ceil(epoch / pictures)} steps of {epoch:,} pictures")
    return lines


def _memory(job: Job, free: int, where: str) -> list[str]:
    found = estimate(job)
    peak = found.pop("peak")
    lines = [f"memory per process, GB ({where}: {free / GB:.1f})"]
    lines += [f"  {part:13}{n / GB:7.1f}" for part, n in found.items()]
    spare = f"peak {peak / GB:.1f} and {MARGIN:.0%} spare"
    if fits(job, free):
        return [*lines, f"  {spare}: fits"]
    help_ = " or ".join(name for name, _ in remedies(job, free)) or "a smaller model"
    return [*lines, f"  {spare}: DOES NOT FIT; what does: {help_}"]


def _speed(job: Job, card: Card, where: str, gpus: int, updates: int) -> list[str]:
    answer = min(TYPICAL, job.answer)
    times = seconds(job, card, gpus, answer, updates)
    most = speed(job, card, gpus, answer, updates)
    said = "  ".join(f"{name} {s:.2f}" for name, s in times.items() if s)
    return [f"at best, seconds of a step on {gpus} x {where}, answers of {answer} tokens: {said}",
            f"  {most['seconds']:.2f} s; per GPU {most['tokens']:,.0f} tokens/s, each answer with "
            f"its prompt ({most['answer tokens']:,.0f} of answers); MFU {most['mfu']:.0%}"]


def settled(cfg: C, model: Path, reference: str = "", *, processes: int, script: str,
            tested: int = 0) -> C:
    """The options with a --tokens_per_micro_batch, of a run that fits.

    Args:
        tested: pictures of the largest test set.
    Raises:
        CheckpointError: as `read_asking`. UserError: it does not fit; what helps.
    """
    place = device(cfg.device)
    free = free_memory(place) // (1 if place.type == "cuda" else processes)
    config, asking = read_asking(model)
    job = chosen(job_of_config(cfg, model, config, asking, processes=processes,
                               cuda=place.type == "cuda", reference=reference, script=script,
                               tested=-(-tested // processes)), free)
    refuse(job, free, str(place))
    if job.tokens != cfg.tokens_per_micro_batch:
        say(f"--tokens_per_micro_batch {job.tokens}: what {free / GB:.1f} GB have room for")
    return replace(cfg, tokens_per_micro_batch=job.tokens)


def planned(cfg: LearnConfig, reference: str = "", *, processes: int, script: str, epoch: int = 0
            ) -> str:
    """The text of --dry_run, for --gpu and --gpus or for what is here.

    Args:
        epoch: pictures of a pass; 0: not known.
    Raises:
        CheckpointError: as `config_of`. OptionError: no --model.
    """
    if not cfg.model:
        raise OptionError("--dry_run needs a --model: a folder, or a name of the hub, such as "
                          "Qwen/Qwen2.5-VL-7B-Instruct")
    place, gpus = device(cfg.device), cfg.gpus or processes
    if cfg.shard and gpus % cfg.shard:
        raise OptionError(f"--shard {cfg.shard}: {gpus} processes do not divide by it")
    if Path(cfg.model).is_dir():  # which remembers how it is asked; adapters, whose they are
        config, asking = read_asking(Path(cfg.model))
    else:
        config = config_of(cfg.model)
        asking = default_asking(config.model_type)
    card = CARDS[cfg.gpu] if cfg.gpu else None
    cuda = bool(card) or place.type == "cuda"
    free = card.memory if card else free_memory(place) // (1 if cuda else gpus)
    job = chosen(job_of_config(cfg, Path(cfg.model), config, asking, processes=gpus, cuda=cuda,
                               reference=reference, script=script, tested=MANY), free)
    rapo = script == "rapo"
    return describe(job, name=cfg.model, free=free, where=cfg.gpu or str(place), processes=gpus,
                    card=card, updates=cfg.updates if rapo else 1, epoch=epoch)


def job_of_config(cfg: LearnConfig, model: Path, config: PreTrainedConfig, asking: Asking,
                  **others: Any) -> Job:
    """As `job_of`, of what a folder's config.json and `asking` say; the options win.

    Raises:
        CheckpointError: sizes of which no model can be made.
    """
    options = {k: v for k, v in cfg.loading().items() if k != "device"}
    side = config.vision_config.patch_size * config.vision_config.spatial_merge_size
    with reading(model, "config.json"):
        body = anatomy(config)
    return job_of(cfg, body, asking.but(**options)[0], side=side, **others)
