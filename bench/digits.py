"""Why does a model write few different numbers after RAPO? What its digits do while it learns.

    python bench/ablation.py               first; all rows, or --rows of it
    python bench/digits.py                 of each row, all seeds: digits of the sampled answers
    python bench/digits.py --rows base     one row, and the ten frequencies of its second digit

A score is two digits, and the reward is a function of the score alone. So within one picture's K
answers the advantage's spread is that between first digits plus that between second digits of the
same first: the share of the latter is what the second digit has to learn from. Entropies are in
nats (ten digits alike: 2.30), of all sampled answers of a recorded step; `numbers` counts the
different ones among the greedy answers to a test set. The last line is JSON.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import ablation  # noqa: E402

from nanoaes.checkpoint import read_rows  # noqa: E402


def entropy(values: list[str]) -> float:
    """Nats."""
    share = np.array(list(Counter(values).values())) / len(values)
    return float(-(share * np.log(share)).sum())


def digits(score: float) -> tuple[str, str]:
    """.62 -> 6, 2; what is written with more is cut, 1.00 is 9, 9."""
    text = f"{min(score, 0.99):.4f}"
    return text[2], text[3]


def second_share(rows: list[dict]) -> float:
    """Of the advantage's variance within pictures: what lies within one first digit."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        key = row["image"], digits(row["score"])[0]
        groups.setdefault(key, []).append(row["advantage"])
    within = sum(float(((np.array(g) - np.mean(g)) ** 2).sum()) for g in groups.values())
    whole = sum(row["advantage"] ** 2 for row in rows)  # a picture's mean is 0
    return within / whole if whole else 0.0


def watch(run: Path) -> dict[str, list]:
    """One run: of each recorded step the two entropies and the second digit's share."""
    steps: dict[int, list[dict]] = {}
    for row in read_rows(run / "completions.jsonl"):
        if row["score"] is not None:
            steps.setdefault(row["step"], []).append(row)
    out: dict[str, list] = {"step": sorted(steps), "first": [], "second": [], "share": []}
    for step in out["step"]:
        firsts, seconds = zip(*(digits(row["score"]) for row in steps[step]), strict=True)
        out["first"].append(entropy(list(firsts)))
        out["second"].append(entropy(list(seconds)))
        out["share"].append(second_share(steps[step]))
    return out


def written(run: Path) -> list[str]:
    """The second digits of the greedy answers to all test sets."""
    sets = json.loads((run / "eval_RAPO.json").read_text())["sets"].values()
    return [digits(item["pred"])[1] for part in sets for item in part["items"]
            if item["pred"] is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=ablation.ROWS, default=list(ablation.ROWS))
    parser.add_argument("--root", type=Path, default=ablation.ROOT / "runs/bench/ablation")
    options = parser.parse_args()
    result: dict[str, dict] = {}
    print(f"{'':16} entropy of the sampled first / second digit, and the second's share of the "
          "advantage's variance\n" + " " * 17 + "at the first, a middle and the last recorded step "
          "| numbers PLCC")
    for name in options.rows:
        runs = {seed: ablation.folder(options.root, name, seed) for seed in options.seeds}
        runs = {seed: run for seed, run in runs.items() if (run / "result.json").is_file()}
        if not runs:
            continue
        seen = [watch(run) for run in runs.values()]
        mean = {key: np.mean([s[key] for s in seen], axis=0)
                for key in ("first", "second", "share")}
        done = [json.loads((run / "result.json").read_text()) for run in runs.values()]
        numbers, plcc = (float(np.mean([d[key] or 0.0 for d in done]))
                         for key in ("distinct", "plcc_all"))
        at = [0, len(seen[0]["step"]) // 2, -1]
        print(f"{name:16} " + "   ".join(
            f"{mean['first'][i]:.2f}/{mean['second'][i]:.2f} {mean['share'][i]:4.0%}" for i in at)
            + f" | {numbers:4.0f}    {plcc:.3f}  ({len(runs)} seeds)")
        result[name] = {"numbers": round(numbers, 1),
                        "second_entropy": round(float(mean["second"][-1]), 2),
                        "second_share": round(float(mean["share"][-1]), 3)}
        if len(options.rows) == 1:
            for seed, run in runs.items():
                count = Counter(written(run))
                print(f"  seed {seed}, second digits written: " + "  ".join(
                    f"{digit}: {count[digit] / count.total():.0%}" for digit in "0123456789"))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
