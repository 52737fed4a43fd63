"""AesCoT: scored pictures -> critiques that explain the score, filtered and balanced.

    python build_cot.py            the toy world, its rule-based teacher
    python build_cot.py --help     all options

Every critique is written to disk as soon as it is there, kept or rejected; run again to go on.
"""

import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from nanoaes.checkpoint import append_row, read_rows
from nanoaes.config import CoTConfig, parse, save
from nanoaes.cot import LEVELS, Judge, Teacher, balance, check, score_level
from nanoaes.data import Example, read_all
from nanoaes.errors import UserError
from nanoaes.sampler import hold_out
from nanoaes.toy.teacher import ToyJudge, ToyTeacher
from nanoaes.toy.world import build_world, read_attributes, toy_specs


def collect(examples: list[Example], teacher: Teacher, judge: Judge, out: Path) -> None:
    """One critique per example into `out`, with its flags; examples already there are skipped."""
    done = {row["image"] for row in read_rows(out)} if out.is_file() else set()
    for example in tqdm([e for e in examples if str(e.image) not in done], "AesCoT", mininterval=1):
        critique = teacher.write(example.image, example.score)
        flags = check(critique, example.image, example.score, judge)
        append_row(out, {"image": str(example.image), "score": example.score,
                         "dataset": example.dataset, "critique": critique, "kept": flags.clean,
                         **vars(flags)})


def summary(rows: list[dict]) -> str:
    """What the filters found, in one paragraph."""
    flags = {name: sum(row[name] for row in rows) for name in ("leak", "mismatch", "invented")}
    kept = [row for row in rows if row["kept"]]
    levels = Counter(LEVELS[score_level(row["score"])] for row in kept)
    return (f"AesCoT: {len(rows)} critiques; score leaked {flags['leak']}, judgement off "
            f"{flags['mismatch']}, invented {flags['invented']}; kept {len(kept)} ("
            + ", ".join(f"{name} {levels[name]}" for name in LEVELS) + ")")


def main(cfg: CoTConfig) -> Path:
    """Returns the file of critiques."""
    run = Path(cfg.run)
    out = Path(cfg.out) if cfg.out else run / "cot.jsonl"
    save(cfg, run / "build_cot.json")
    world = build_world(run / "world", cfg.seed)
    train, _ = hold_out(read_all(toy_specs(world)["train"], "train", cfg.bad_images), cfg.heldout)
    chosen = balance(train, [e.score for e in train], cfg.per_level, cfg.seed)
    notes = read_attributes(world)
    collect(chosen, ToyTeacher(notes, cfg.seed), ToyJudge(notes), out)
    print(summary(read_rows(out)))
    return out


if __name__ == "__main__":
    try:
        main(parse(CoTConfig))
    except UserError as error:
        sys.exit(f"build_cot.py: {error}")
