"""What each part of RAPO is worth in the made world: one change at a time, against the same base.

    python bench/ablation.py                       all rows, seeds 0 1 2; two runs side by side
    python bench/ablation.py --rows base relative  some rows
    python bench/ablation.py --table               of the rows that are there; nothing is run
    python bench/ablation.py --steps 2             to see that it runs

All runs of a seed begin at the same world and cold start (but rows that change it) and take --steps
steps; each runs on one thread, so a row that is run again gives the same figures to the last digit.
What is there is kept; a command that was stopped goes on. PLCC and SRCC are means over the four
test sets, of the numbers written, of the checkpoint that is best on held-out pictures; differences
to the base are paired by seed, with Student's interval. Beside them: the entropy at the first step
(nats), shares of tokens that a clip stopped, of groups without spread, of steps whose gradient was
clipped, the largest of all steps, how many different scores were given, and the share of what
critiques name that is right. A figure, ablation.svg, lies beside the runs. The last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from scipy.stats import t as student

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from ablation_rows import ROWS  # noqa: E402
from front import STYLE  # noqa: E402

import train_rapo  # noqa: E402
import train_sft  # noqa: E402
from nanoaes.checkpoint import read_rows, write_json  # noqa: E402
from nanoaes.config import RAPOConfig, SFTConfig  # noqa: E402
from nanoaes.page.charts import Frame, ticks  # noqa: E402
from nanoaes.toy import road as toy  # noqa: E402
from nanoaes.toy.world import read_attributes, toy_specs  # noqa: E402

SIDE_BY_SIDE = 2
STEPS = 60


def run_one(name: str, seed: int, root: Path, steps: int) -> None:
    """One row of one seed, in this process; leaves result.json."""
    row, base, run = ROWS[name], root / f"seed{seed}", folder(root, name, seed)
    run.mkdir(parents=True, exist_ok=True)
    shared = ["world", "backbone", "cot.jsonl", "cot_card.json"]
    for part in shared + ["sft"] * (row.epochs is None):
        if not (run / part).exists():
            (run / part).symlink_to((base / part).resolve())
    if row.epochs == 0 and not (run / "sft").exists():
        (run / "sft").symlink_to((base / "backbone").resolve())
    elif row.epochs:
        train_sft.main(SFTConfig(run=str(run), seed=seed, epochs=row.epochs))
    places = {"run": run, **toy_specs(run / "world")}
    options = {key: value.format(**places) if isinstance(value, str) else value
               for key, value in row.options.items()}
    if row.change:
        row.change()
    every = train_rapo.compare_stages
    train_rapo.compare_stages = lambda stages, *more: every({"RAPO": stages["RAPO"]}, *more)
    train_rapo.main(RAPOConfig(run=str(run), seed=seed, steps=steps, warmup=min(5, steps),
                               **options))
    write_json(run / "result.json", {"steps": steps, **figures(run)})


def figures(run: Path) -> dict[str, float | None]:
    """Of one run that is done."""
    result = json.loads((run / "eval_RAPO.json").read_text())
    steps = [row for row in read_rows(run / "metrics.jsonl") if row["step"]]
    limit = json.loads((run / "train_rapo.json").read_text())["max_grad_norm"]
    return {**{f"{key}_{domain}": result["mean"][domain][key] for domain in ("all", "in", "ood")
               for key in ("plcc", "srcc")},
            "entropy": steps[0]["entropy"],
            **{key: max(row[key] for row in steps)
               for key in ("clip_low", "clip_high", "flat_groups")},
            "right": toy.quality_of([item for part in result["sets"].values()
                                     for item in part["items"]], read_attributes(run / "world"))[1],
            "grad_clipped": float(np.mean([row["grad_norm"] > limit for row in steps])),
            "distinct": float(np.mean([part["metrics"]["distinct"]
                                       for part in result["sets"].values()]))}


def folder(root: Path, name: str, seed: int) -> Path:
    return root / f"seed{seed}" / "rows" / name.replace(" ", "_").replace("/", "of")


def child(root: Path, steps: int, *words: object) -> None:
    """This script on one thread; what it says goes to a log."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "ablation.log").open("a") as log:
        subprocess.run([sys.executable, __file__, *map(str, words), "--root", root, "--steps",
                        str(steps)], cwd=ROOT, check=False, stdout=log, stderr=log,
                       env={**os.environ, "OMP_NUM_THREADS": "1"})


def done(root: Path, name: str, seed: int, steps: int) -> dict | None:
    file = folder(root, name, seed) / "result.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    return found if found.get("steps") == steps else None


def gains(name: str, found: dict[str, list[dict]]) -> list[float]:
    """PLCC of a row minus the base's, seed by seed; 0 where the base is not told."""
    base = found.get("base", found[name])
    return [(a["plcc_all"] or 0.0) - (b["plcc_all"] or 0.0)
            for a, b in zip(found[name], base, strict=True)]


def difference(name: str, found: dict[str, list[dict]]) -> tuple[float, float]:
    """The mean of `gains`, and half of Student's interval."""
    gain = gains(name, found)
    half = (student.ppf(0.975, len(gain) - 1) * np.std(gain, ddof=1) / len(gain) ** 0.5
            if len(gain) > 1 else np.nan)
    return float(np.mean(gain)), float(half)


def table(found: dict[str, list[dict]]) -> None:
    """Rows, with the paired difference to the base."""
    print(f"\n{'':16} PLCC  SRCC | in domain   OOD         | PLCC - base [95 %]       "
          "| entropy clip- clip+ flat grad distinct right")
    for name, seeds in found.items():
        mean = {key: float(np.mean([s[key] or 0.0 for s in seeds])) for key in seeds[0]}
        gain, half = difference(name, found)
        print(f"{name:16} {mean['plcc_all']:.3f} {mean['srcc_all']:.3f} | {mean['plcc_in']:.3f} "
              f"{mean['srcc_in']:.3f} {mean['plcc_ood']:.3f} {mean['srcc_ood']:.3f} | "
              f"{gain:+.3f} [{gain - half:+.3f}, {gain + half:+.3f}] | "
              f"{mean['entropy']:.3f} {mean['clip_low']:.3f} {mean['clip_high']:.3f} "
              f"{mean['flat_groups']:.3f} {mean['grad_clipped']:.2f} {mean['distinct']:3.0f}   "
              f"{mean['right']:.3f}  {ROWS[name].why}")


def figure(found: dict[str, list[dict]]) -> str:
    """Each row's difference to the base: seeds as dots, the mean as a bar, its interval as a line,
    all on the drawing."""
    rows = {name: (gains(name, found), *np.nan_to_num(difference(name, found))) for name in found}
    ends = [x for seeds, gain, half in rows.values() for x in (*seeds, gain - half, gain + half)]
    span = min(ends) - 0.01, max(ends) + 0.01
    frame = Frame(740, 40 + 19 * len(rows), span, (0, len(rows)), left=130)
    body = frame.axes(ticks(*span, 8), (), "mean PLCC - base")
    body += f'<path class="axis" d="M{frame.px(0):.0f} {frame.top}V{frame.height - frame.bottom}"/>'
    for i, (name, (seeds, gain, half)) in enumerate(rows.items()):
        y, lo, hi = frame.py(len(rows) - i - 0.5), frame.px(gain - half), frame.px(gain + half)
        tone = "c1" if gain + half < 0 else "c2" if gain - half > 0 else "c0"
        body += (f'<text class="end" x="{frame.left - 8}" y="{y + 4:.1f}">{name}</text>'
                 f'<path class="{tone}" d="M{lo:.1f} {y:.1f}H{hi:.1f}"/>'
                 f'<path class="{tone}" d="M{frame.px(gain):.1f} {y - 6:.1f}v12"/>')
        for x in map(frame.px, seeds if name != "base" else ()):
            body += f'<circle class="{tone}" cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="none"/>'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame.width} {frame.height}" '
            f'width="{frame.width}">{STYLE}{body}</svg>\n')


def run_all(root: Path, rows: list[str], seeds: list[int], steps: int) -> None:
    """What is not there yet, two at a time; a row that fails says so and the others go on."""
    starting = {seed: Lock() for seed in seeds}

    def row(pair: tuple[str, int]) -> None:
        name, seed = pair
        with starting[seed]:
            if not (root / f"seed{seed}" / "sft" / "nanoaes.json").is_file():
                child(root, steps, seed, "--one", "start")
        child(root, steps, seed, "--one", name)
        result = done(root, name, seed, steps)
        print(f"{name}, seed {seed}: " + (f"PLCC {result['plcc_all'] or 0.0:.4f}" if result else
                                          f"FAILED, see {root / 'ablation.log'}"), flush=True)

    with ThreadPoolExecutor(SIDE_BY_SIDE) as workers:
        list(workers.map(row, [(name, seed) for name in rows for seed in seeds
                               if done(root, name, seed, steps) is None]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--root", type=Path, default=ROOT / "runs" / "bench" / "ablation")
    parser.add_argument("--table", action="store_true", help="of what is there; nothing is run")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a row, or "start": what all rows share
    options = parser.parse_args()
    root, start = options.root.resolve(), time.perf_counter()
    if options.one == "start":
        return train_sft.main(SFTConfig(run=str(root / f"seed{options.seeds[0]}"),
                                        seed=options.seeds[0])) and None
    if options.one:
        return run_one(options.one, options.seeds[0], root, options.steps)
    if not options.table:
        run_all(root, options.rows, options.seeds, options.steps)
    found = {name: [done(root, name, seed, options.steps) for seed in options.seeds]
             for name in options.rows}
    missing = [name for name, seeds in found.items() if None in seeds]
    found = {name: seeds for name, seeds in found.items() if None not in seeds}
    if found:
        table(found)
        (root / "ablation.svg").write_text(figure(found), encoding="utf-8")
    if missing:
        print(f"not told, as a seed is missing ({root / 'ablation.log'}): {', '.join(missing)}")
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes, torch {torch.__version__}")
    print(json.dumps({"steps": options.steps, "seeds": options.seeds, "rows": {
        name: {key: [round(s[f"{key}_all"] or 0.0, 4) for s in seeds] for key in ("plcc", "srcc")}
        for name, seeds in found.items()}}))


if __name__ == "__main__":
    main()
