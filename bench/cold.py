"""What the filters of AesCoT are worth: a cold start on kept critiques against one on any.

    python bench/cold.py                       seeds 0 1 2, about 20 minutes each on one core
    OMP_NUM_THREADS=1 python bench/cold.py 0   one seed; two such commands fit two cores
    python bench/cold.py 0 --steps small       3 steps of RAPO, to see that it runs

The made world, whose teacher errs at known rates (`toy/teacher.py`). Both arms of a seed share the
world, the backbone and the teacher's critiques. `filtered` is the road of `train_rapo.py` as it is;
`unfiltered` learns from critiques drawn from all that the teacher wrote, of each level of score as
many as the filters have kept of it: what the critiques say differs, not how many they are, nor
their levels, nor the number of steps. What is there is kept, a run that was stopped goes on.

Scores are read by expectation, the numbers written stand beside; figures are means over the four
test sets. Of the critiques: how many give the score away (`leak.py`), how many of the dimensions
that they name are right, how many end in another verdict than their own number; of greedy ones and
of such as RAPO samples, because a habit of one critique in twenty is never the greedy one. A seed's
interval draws test pictures, the same ones for both arms; the last one is Student's t over the
seeds and holds what the training's chance does, but three seeds make it wide. The last line is
JSON.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.stats import t as student

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from nanoaes.checkpoint import read_rows, write_whole  # noqa: E402
from nanoaes.cot import score_level  # noqa: E402
from nanoaes.leak import leak_in  # noqa: E402
from nanoaes.metrics import CORRELATIONS, resamples  # noqa: E402
from nanoaes.paired import Items, opened, percentiles  # noqa: E402
from nanoaes.prompt import critique_of, parse_score  # noqa: E402
from nanoaes.toy.road import quality_of  # noqa: E402
from nanoaes.toy.world import read_attributes, verdict  # noqa: E402

ARMS = ("filtered", "unfiltered")
STAGES = {"cold start": "sft", "RAPO": "rapo"}  # -> folder of a run, and the keys below
STEPS = {"full": 120, "small": 3}


def drawn(rows: list[dict], seed: int) -> list[dict]:
    """Critiques as the unfiltered arm learns them: of each level as many as were kept, from all."""
    kept = Counter(score_level(row["score"]) for row in rows if row["kept"])
    chosen = []
    for i in np.random.default_rng(seed).permutation(len(rows)):
        level = score_level(rows[i]["score"])
        if kept[level]:
            kept[level] -= 1
            chosen.append({key: rows[i][key] for key in ("image", "score", "critique")})
    return chosen


def script(run: Path, *words: object) -> None:
    """Call a script of ours; what it says goes to RUN/cold.log."""
    with (run / "cold.log").open("a") as log:
        subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, check=True, stdout=log,
                       stderr=log)


def train(run: Path, seed: int, steps: int) -> None:
    """The whole road of one arm, or what is left of it.

    Raises:
        SystemExit: what is there was made with another number of steps.
    """
    made = run / "train_rapo.json"
    if made.is_file() and json.loads(made.read_text())["steps"] != steps:
        raise SystemExit(f"{run} is a run of other --steps; choose another --root")
    if not (run / "eval_RAPO.json").is_file():
        script(run, "train_rapo.py", "--run", run, "--seed", seed, "--steps", steps,
               "--save_every", 20, "--resume", "true")


def unfiltered(run: Path, filtered: Path, seed: int) -> int:
    """Its folder, with the other arm's world and backbone; returns the number of its lessons.

    Links, so that a test picture is the same file in both: by that `paired.py` knows it.
    """
    for name in ("world", "backbone"):
        if not (run / name).exists():
            (run / name).symlink_to(filtered.resolve() / name)
    if not (run / "cot.jsonl").is_file():
        rows = drawn(read_rows(filtered / "cot.jsonl"), seed)
        write_whole(run / "cot.jsonl", (json.dumps(row) + "\n" for row in rows))
        write_whole(run / "cot_card.json", ["{}"])  # it is whole as it is
    return len(read_rows(run / "cot.jsonl"))


def measured(run: Path, stage: str, notes: dict[Path, list[int]]) -> dict[str, float]:
    """One arm's figures after one stage, and what its critiques say, greedy ones and sampled."""
    parts = asked(run, stage, "expect")
    row = {f"{key}{end}": float(np.mean([part[of][key] or 0.0 for part in parts]))
           for key in CORRELATIONS for of, end in (("metrics", ""), ("written", "_written"))}
    sampled = asked(run, stage, "greedy", "--temperature", 1)
    return row | spoken(parts, notes) | {
        f"{key}_sampled": value for key, value in spoken(sampled, notes).items()}


def asked(run: Path, stage: str, readout: str, *more: object) -> list[dict]:
    """The test sets' results; `eval.py bench` goes on where it was stopped."""
    out = run / f"cold_{stage}_{readout}.json"
    script(run, "eval.py", "bench", "--run", run, "--model", run / stage, "--out", out,
           "--readout", readout, *more)
    return list(json.loads(out.read_text())["sets"].values())


def spoken(parts: list[dict], notes: dict[Path, list[int]]) -> dict[str, float]:
    """What replies say: "leak" and "off" are shares of them, "right" of the dimensions named."""
    items = [item for part in parts for item in part["items"]]
    critiques = [critique_of(item["text"]) for item in items]
    numbers = [parse_score(item["text"]) for item in items]
    named, right = quality_of([{**item, "text": critique} for item, critique in
                               zip(items, critiques, strict=True)], notes)
    off = [number is not None and f"a {verdict(number)} picture" not in critique
           for critique, number in zip(critiques, numbers, strict=True)]
    return {"leak": float(np.mean([leak_in(c) != "" for c in critiques])), "named": named,
            "right": right, "off": float(np.mean(off))}


def difference(a: Items, b: Items, key: str) -> list[float]:
    """95 % of resampled B - A of a correlation, mean over sets; the same pictures in both."""
    total = 0.0
    for seed, (name, items) in enumerate(a.items()):
        both = [(item, b[name][image]) for image, item in items.items()
                if None not in (item["pred"], b[name][image]["pred"])]
        y = np.array([one["truth"] for one, _ in both])
        x, z = (np.array([pair[i]["pred"] for pair in both]) for i in range(2))
        total = total + resamples(z, y, seed)[key] - resamples(x, y, seed)[key]
    return percentiles(total / len(a), min(map(len, a.values())))


def predictions(run: Path, stage: str) -> Items:
    """What `asked` has read by expectation."""
    return opened(run / f"cold_{stage}_expect.predictions.jsonl")[1]


def compared(root: Path, seed: int, steps: int) -> dict[str, dict]:
    """A seed's figures: stage -> {arm: figures, "ci": {"plcc", "srcc"}}; prints a line for each."""
    start = time.perf_counter()
    runs = {arm: root / f"cold{seed}" / arm for arm in ARMS}
    for run in runs.values():
        run.mkdir(parents=True, exist_ok=True)
    train(runs["filtered"], seed, steps)
    lessons = unfiltered(runs["unfiltered"], runs["filtered"], seed)
    train(runs["unfiltered"], seed, steps)
    notes, out = read_attributes(runs["filtered"] / "world"), {}
    for name, stage in STAGES.items():
        found = {arm: measured(run, stage, notes) for arm, run in runs.items()}
        both = [predictions(runs[arm], stage) for arm in ("unfiltered", "filtered")]
        found["ci"] = {key: difference(*both, key) for key in CORRELATIONS}
        out[stage] = found
        tell(f"seed {seed}, {name}", found)
    print(f"seed {seed}: {lessons} lessons in both arms, "
          f"{(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
    return out


def tell(head: str, found: dict) -> None:
    """One stage of one seed."""
    f, u = (found[arm] for arm in ARMS)
    print(f"{head}: filtered, unfiltered, difference [95 % over test pictures]")
    for key in CORRELATIONS:
        lo, hi = found["ci"][key]
        print(f"  {key.upper()} {f[key]:.4f}, {u[key]:.4f}, {f[key] - u[key]:+.4f} "
              f"[{lo:+.4f}, {hi:+.4f}]; of the numbers written {f[key + '_written']:.4f}, "
              f"{u[key + '_written']:.4f}")
    for end, how in (("", "greedy"), ("_sampled", "sampled")):
        print(f"  critiques, {how}: " + "; ".join(
            f"{what} {100 * f[key + end]:.1f} %, {100 * u[key + end]:.1f} %"
            for key, what in (("leak", "give the score away"), ("right", "named rightly"),
                              ("off", "verdict is not the number's")))
            + f"; dimensions named {f['named' + end]:.2f}, {u['named' + end]:.2f}", flush=True)


def over_seeds(values: list[float]) -> dict[str, float | list[float] | None]:
    """Mean of a difference over seeds, and Student's 95 % interval; None for a single seed."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return {"mean": mean, "ci": None}
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5)
    return {"mean": mean, "ci": [mean - half, mean + half]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", choices=STEPS, default="full", help="of RAPO: 120 or 3")
    parser.add_argument("--root", type=Path, default=ROOT / "runs" / "bench", help="for the runs")
    options = parser.parse_args()
    seeds = [compared(options.root.resolve(), seed, STEPS[options.steps])
             for seed in options.seeds]
    table: dict[str, object] = {"seeds": options.seeds, "steps": STEPS[options.steps]}
    for name, stage in STAGES.items():
        for key in seeds[0][stage]["filtered"]:
            pairs = [[one[stage][arm][key] for arm in ARMS] for one in seeds]
            gain = over_seeds([f - u for f, u in pairs])
            table[f"{stage}_{key}"] = {**{arm: [round(p[i], 4) for p in pairs]
                                          for i, arm in enumerate(ARMS)}, **rounded(gain)}
            if key in CORRELATIONS:
                between = "" if gain["ci"] is None else " [{:+.4f}, {:+.4f}]".format(*gain["ci"])
                print(f"{name}, {key.upper()}: filtered - unfiltered {gain['mean']:+.4f}{between}, "
                      f"mean over {len(seeds)} seeds [95 % of Student's t, few seeds: wide]")
        table[f"{stage}_ci"] = [rounded(one[stage]["ci"]) for one in seeds]
    print(json.dumps(table))


def rounded(of: dict) -> dict:
    return {key: value if value is None else np.round(value, 4).tolist()
            for key, value in of.items()}


if __name__ == "__main__":
    main()
