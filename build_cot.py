"""AesCoT: scored pictures -> critiques that explain the score, filtered and balanced.

    python build_cot.py            the toy world, its rule-based teacher
    python build_cot.py --help     all options

Every critique is written to disk as soon as it is there, kept or rejected; run again to go on.
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from nanoaes.checkpoint import append_row, read_rows, write_json
from nanoaes.config import CoTConfig
from nanoaes.cot import LEVELS, Judge, Teacher, balance, check, score_level
from nanoaes.critiques import current, item
from nanoaes.datasets import Example, read_all
from nanoaes.index import Index
from nanoaes.progress import progress, say
from nanoaes.runs import claim
from nanoaes.sampler import hold_out
from nanoaes.script import run_script
from nanoaes.toy import road as toy
from nanoaes.toy.teacher import ToyJudge, ToyTeacher
from nanoaes.toy.world import read_attributes


def main(cfg: CoTConfig) -> Path:
    """Returns the file of critiques."""
    run = Path(cfg.run)
    out = Path(cfg.out) if cfg.out else run / "cot.jsonl"
    with claim(run, "build_cot.py"):
        specs, _, _ = toy.sets(run / "world", cfg.seed)
        train, _ = hold_out(read_all(specs, "train", cfg.bad_images, index=Index(run)),
                            cfg.heldout)
        chosen = balance(train, [e.score for e in train], cfg.per_level, cfg.seed)
        notes = read_attributes(run / "world")
        write_json(run / "build_cot.json", asdict(cfg))
        collect(chosen, ToyTeacher(notes, cfg.seed), ToyJudge(notes), out)
    say(summary([row for _, row in current(out, enumerate(read_rows(out), 1))]))
    return out


def collect(examples: list[Example], teacher: Teacher, judge: Judge, out: Path) -> None:
    """One critique per example into `out`, with its flags; those already there are skipped.

    A picture with another score than in the file, or for another teacher, gets a new critique.
    """
    rows = current(out, enumerate(read_rows(out), 1)) if out.is_file() else []
    done = {item(out, row) for _, row in rows}
    asked = {example.image.resolve(): example for example in examples}  # the last label of each
    heads = [({"image": str(path), "score": example.score, "teacher": teacher.name}, example)
             for path, example in asked.items()]
    for head, example in progress([h for h in heads if item(out, h[0]) not in done], "AesCoT"):
        critique = teacher.write(example.image, example.score)
        flags = check(critique, example.image, example.score, judge)
        append_row(out, {**head, "dataset": example.dataset, "critique": critique,
                         "kept": flags.clean, **vars(flags)})


def summary(rows: list[dict]) -> str:
    """What the filters found, in one paragraph."""
    flags = {name: sum(row.get(name, False) for row in rows)
             for name in ("leak", "mismatch", "invented", "unfit")}
    kept = [row for row in rows if row["kept"]]
    levels = Counter(LEVELS[score_level(row["score"])] for row in kept)
    return (f"AesCoT: {len(rows)} critiques; score leaked {flags['leak']}, judgement off "
            f"{flags['mismatch']}, invented {flags['invented']}, no critique {flags['unfit']}; "
            f"kept {len(kept)} ("
            + ", ".join(f"{name} {levels[name]}" for name in LEVELS) + ")")


if __name__ == "__main__":
    run_script(main, CoTConfig)
