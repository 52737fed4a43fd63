"""Cold start: supervised fine-tuning on AesCoT critiques, explain then score.

    python train_sft.py            the toy world; makes its backbone and critiques if missing
    python train_sft.py --help     all options
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from torch.optim import Optimizer

import build_cot
from nanoaes.ahead import ahead
from nanoaes.checkpoint import (
    append_row,
    cut_rows,
    publish,
    recover,
    set_aside,
    write_json,
)
from nanoaes.config import CoTConfig, OptionError, SFTConfig, inherit
from nanoaes.critiques import read_critiques, split_scale
from nanoaes.datasets import Example, check_images
from nanoaes.dry_run import planned, settled
from nanoaes.errors import UserError
from nanoaes.index import Index
from nanoaes.models import keep_sources, load_models, write_merged
from nanoaes.overlap import write_learned
from nanoaes.parallel import by_first, enough, first, share, size
from nanoaes.predictions import EVALUATED
from nanoaes.progress import say
from nanoaes.prompt import UNIT
from nanoaes.resume import Saves
from nanoaes.runs import claim, keep_going, need_room, refuse_foreign
from nanoaes.same import as_saved, began_with
from nanoaes.schedule import cosine
from nanoaes.script import run_script
from nanoaes.sft import Lesson, Trained, fit
from nanoaes.stop import stopping
from nanoaes.toy.school import build_backbone
from nanoaes.vlm import VLM

STATES = "sft_resume"  # the folder of the run's states


def main(cfg: SFTConfig) -> Path:
    """Returns the folder of the cold-started model."""
    run = Path(cfg.run)
    out = Path(cfg.out) if cfg.out else run / "sft"
    enough("--batch", cfg.batch)
    if cfg.dry_run:
        return say(planned(cfg, processes=size(), script="sft")) or out
    with ExitStack() as claimed:
        critiques, start, cfg, saves = by_first(partial(prepare, cfg, run, out, claimed, size()))
        enough("kept critiques:", len(critiques))
        models = load_models(start, cfg)
        by_first(lambda: make_room(cfg, run, out, models.speaker, models.trained, saves))
        last = train(cfg, models.learner, critiques, run / "sft_metrics.jsonl", saves)
        models.refresh()
        if first():
            hand_out(models.speaker, critiques, out)
        if cfg.lora_rank and cfg.merge:
            by_first(partial(write_merged, cfg, out, merged_of(out)))
    told = f", token entropy {last['entropy']:.3f} nats" if last else ""  # or all was done before
    say(f"cold start: {len(critiques)} critiques x {cfg.epochs} epochs{told} -> {out}")
    return out


def merged_of(out: Path) -> Path:
    """Where the whole model of adapters in `out` lies."""
    return out.with_name(f"{out.name}_merged")


def hand_out(vlm: VLM, critiques: list[tuple[Path, str]], out: Path) -> None:
    """The model, and what it has learned.

    Raises:
        UserError: the disk fails.
    """
    try:
        with publish(out) as folder:
            vlm.save(folder)
            write_learned(folder, [path for path, _ in critiques])
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); make room; --resume true "
                        "goes on from a state, if --save_every has made one") from error


def prepare(cfg: SFTConfig, run: Path, out: Path, claimed: ExitStack, processes: int
            ) -> tuple[list[tuple[Path, str]], Path, SFTConfig, Saves]:
    """All that can be refused, before anything is moved: folders, critiques, the model's folder.

    Returns critiques, that folder, the options with nothing left open, and the run's states.
    """
    merged = merged_of(out)
    keep_sources(cfg.model, "--out", out, merged)
    for target in (out, merged) if cfg.lora_rank and cfg.merge else (out,):
        refuse_foreign(target, "--out", "nanoaes.json")
    for folder in (run, out.parent):
        claimed.enter_context(claim(folder, "train_sft.py"))
    recover(run / "backbone")
    recover(out)
    recover(merged)
    critiques = lessons_of(cfg, run)
    start = Path(cfg.model) if cfg.model else build_backbone(run / "backbone", cfg.seed)
    begun = began_with(start, critiques)
    state = Saves(run / STATES, cfg.keep_last).facts() if cfg.resume else None
    if state:
        cfg = as_saved(cfg, begun, state)
    cfg = settled(cfg, start, processes=processes, script="sft")
    return critiques, start, cfg, Saves(run / STATES, cfg.keep_last, cfg.save_every,
                                        {"options": asdict(cfg), **begun})


def make_room(cfg: SFTConfig, run: Path, out: Path, vlm: VLM, trained: Trained, saves: Saves
              ) -> None:
    """For what will be written; an earlier run's results are moved, or gone on with."""
    state = saves.facts() if cfg.resume else None
    states = saves.room(trained, bool(state))
    need_room(run, states, "--keep_last states of the run,")
    # Old and new, beside the states if they are on one disk, as they mostly are.
    need_room(out, states * (out.parent.resolve() == run.resolve())
              + 2 * sum(p.numel() * p.element_size() for p in vlm.parameters()),
              "the cold-started model, beside its states,")
    if state:
        set_aside(out.parent, [f"{out.name}/{name}" for name in EVALUATED])
        return cut_rows(run / "sft_metrics.jsonl", state["step"])
    aside = {run.resolve(): ["sft_metrics.jsonl", STATES]}
    merged = merged_of(out)
    aside.setdefault(out.parent.resolve(), []).extend(
        [out.name, *[merged.name] * (merged / "nanoaes.json").is_file()])
    for folder, names in aside.items():
        set_aside(folder, names)
    write_json(run / "train_sft.json", asdict(cfg))


def train(cfg: SFTConfig, vlm: VLM, critiques: list[tuple[Path, str]], history: Path, saves: Saves
          ) -> dict[str, float]:
    """Every critique once an epoch, in a new order each time.

    Returns the last step's row; empty where a resumed run had no step left.
    """
    rng = np.random.default_rng(cfg.seed)
    order = np.concatenate([rng.permutation(len(critiques)) for _ in range(cfg.epochs)])
    batches = [order[i : i + cfg.batch] for i in range(0, len(order), cfg.batch)]
    if len(batches[-1]) < size():  # each process needs a part of every batch
        batches[-2:] = np.split(np.concatenate(batches[-2:]), [-size()])

    def mine(step: int) -> list[tuple[Path, str]]:
        return [critiques[i] for i in batches[step][list(share(len(batches[step])))]]

    def lessons_at(step: int) -> list[Lesson]:
        return [Lesson(next(shown), vlm.asking.prompt, answer) for _, answer in mine(step)]

    last: dict[str, float] = {}

    def log(row: dict) -> None:
        last.update(row)
        with keep_going(f"the row of step {row['step']}"):
            if first():
                append_row(history, row)

    state = saves.facts() if cfg.resume else None
    begun = state["step"] if state else 0

    def begin(trained: Trained, optimizer: Optimizer) -> int:
        if begun:
            saves.load(trained, optimizer)
        return begun

    paths = (path for step in range(begun, len(batches)) for path, _ in mine(step))
    with stopping() as stop, closing(ahead(paths, vlm.fit, len(mine(0)))) as shown:
        fit(vlm, lessons_at, steps=len(batches), lr_at=cosine(cfg.lr, len(batches)),
            label="cold start (SFT)", tokens_per_micro_batch=cfg.tokens_per_micro_batch,
            max_grad_norm=cfg.max_grad_norm, weight_decay=cfg.weight_decay, backend=cfg.backend,
            log=log, begin=begin, after=partial(saves.after, stop=stop))
    return last


def lessons_of(cfg: SFTConfig, run: Path) -> list[tuple[Path, str]]:
    """Picture and the answer to learn: one's own critiques, or the toy's, made if missing.

    Raises:
        DataError: as `read_critiques`; a picture that is not whole.
    """
    if cfg.model and not cfg.cot:
        raise OptionError("--model without --cot: the toy's critiques fit the toy's model only; "
                          "name critiques with --cot")
    cot, scale = split_scale(cfg.cot) if cfg.cot else (run / "cot.jsonl", UNIT)
    if cfg.cot and not cot.is_file():
        raise OptionError(f"--cot {cot}: no such file; build_cot.py makes one")
    if not (cfg.cot or cot.with_name("cot_card.json").is_file()):  # it is written last
        build_cot.main(inherit(CoTConfig, cfg))
    found = read_critiques(cot, scale)
    examples = [Example(c.image, c.score, None, cot.stem, scale) for c in found]
    whole = {e.image for e in check_images(examples, cfg.bad_images, Index(run))}
    return [(c.image, c.answer) for c in found if c.image in whole]


if __name__ == "__main__":
    run_script(main, SFTConfig)
