"""What each part of RAPO is worth in the made world: one change at a time, against the same base.

    python bench/ablation.py                       all rows, seeds 0 1 2; two runs side by side
    python bench/ablation.py --rows base relative  some rows
    python bench/ablation.py --steps 2             to see that it runs

All runs of a seed begin at the same world and cold start (but rows that change it) and take --steps
steps; each runs on one thread, so a row that is run again gives the same figures to the last digit.
What is there is kept; a command that was stopped goes on. PLCC and SRCC are means over the four
test sets, of the numbers written, of the checkpoint that is best on held-out pictures; differences
to the base are paired by seed, with Student's interval. Beside them: the entropy at the first step
(nats), shares of tokens that a clip stopped, of groups without spread, of steps whose gradient was
clipped, the largest of all steps, how many different scores were given, and the share of what
critiques name that is right. A figure, ablation.html, lies beside the runs. The last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import train_rapo  # noqa: E402
import train_sft  # noqa: E402
from nanoaes import reward  # noqa: E402
from nanoaes.checkpoint import read_rows, write_json  # noqa: E402
from nanoaes.config import RAPOConfig, SFTConfig  # noqa: E402
from nanoaes.toy import road as toy  # noqa: E402
from nanoaes.toy.world import read_attributes, toy_specs  # noqa: E402

SIDE_BY_SIDE = 2
STEPS = 60
POOL = 8  # pictures that the released code compares, those of one GPU


@dataclass(frozen=True)
class Row:
    """One change."""

    why: str  # what of the paper, or of a reviewer's question, it tells
    options: dict[str, Any] = field(default_factory=dict)
    change: Callable[[], None] | None = None  # of code that no option reaches
    epochs: int | None = None  # of the cold start; None: the base's


def binary() -> None:
    """1 within sigma of people's score, else 0, in the absolute reward's place."""
    def near(scores, valid, truth, sigma=0.1):
        return (valid & ((scores - truth[:, None]).abs() <= sigma)).to(scores.dtype)
    reward.absolute_reward = near


def margin() -> None:
    """Score differences are fitted: exp(−½ ((o_ik − mu_j − (s_i − s_j)) / .1)²), mean over j."""
    def fits(scores, valid, truth, ties="half"):
        n_valid = valid.sum(1)
        mu = torch.where(valid, scores, 0).sum(1) / n_valid.clamp(min=1)
        difference = truth.score[:, None] - truth.score
        error = scores[:, :, None] - mu - difference[:, None, :]
        partner = (truth.group[:, None] == truth.group) & (n_valid > 0)
        partner.fill_diagonal_(False)
        near = torch.exp(-0.5 * (error / 0.1) ** 2) * partner[:, None, :]
        return torch.where(valid, near.sum(2) / partner.sum(1).clamp(min=1)[:, None], 0)
    reward.relative_reward = fits


def pool() -> None:
    """Only pictures of one block of POOL are compared, as on one GPU of the released script."""
    whole = reward.relative_reward

    def blocks(scores, valid, truth, ties="half"):
        block = torch.arange(len(scores)) // POOL
        group = truth.group * len(scores) + block
        return whole(scores, valid, reward.Truth(truth.score, truth.std, group), ties)
    reward.relative_reward = blocks


def per_token() -> None:
    """The mean over tokens, in place of the mean over rollouts of each one's token mean."""
    def weights(mask, counted=None, n_counted=None):
        some = mask if counted is None else mask & counted[..., None]
        return some / some.sum().clamp(min=1)
    train_rapo.token_weights = weights


def paid(answer: bool) -> Callable[[], None]:
    """Only the tokens from <answer> on are paid for a good score, or only those before."""
    def change() -> None:
        whole = train_rapo.update

        def update(cfg, policy, *others, rolls, advantage, **more):
            begins = rolls.ids == policy.tokenizer.convert_tokens_to_ids("<answer>")
            part = (begins.cumsum(2) > 0) == answer
            return whole(cfg, policy, *others, rolls=rolls, advantage=advantage[..., None] * part,
                         **more)
        train_rapo.update = update
    return change


def by_spread() -> None:
    """A picture counts as much as its K scores differ, over the step's mean."""
    read, made, seen = train_rapo.judge, train_rapo.advantages, {}

    def judge(*words):
        seen["scores"] = (judged := read(*words)).scores
        return judged

    def advantages(total, scale):
        advantage, flat = made(total, scale)
        spread = seen["scores"].std(1, keepdim=True)
        return advantage * spread / spread.mean().clamp(min=1e-6), flat
    train_rapo.judge, train_rapo.advantages = judge, advantages


ROWS = {
    "base": Row("what the others are compared with"),
    "absolute": Row("Table 2: absolute only", dict(w_relative=0.0)),
    "relative": Row("Table 2: relative only", dict(w_absolute=0.0)),
    "binary": Row("Table 2: binary", dict(w_relative=0.0), binary),
    "binary+relative": Row("Table 2", {}, binary),
    "margin": Row("score differences are fitted", dict(w_absolute=0.0), margin),
    "no format": Row("the paper has none", dict(w_format=0.0)),
    "rel .4 abs .6": Row("reviewers: weights", dict(w_relative=0.8, w_absolute=1.2)),
    "rel .6 abs .4": Row("reviewers: weights", dict(w_relative=1.2, w_absolute=0.8)),
    "no cold start": Row("Table 3: 0 epochs", epochs=0),
    "cold start 1": Row("Table 3: 1 epoch", epochs=1),
    "cold start 10": Row("Table 3: 10 epochs", epochs=10),
    "sigma .05": Row("width of the absolute reward", dict(sigma=0.05)),
    "sigma .2": Row("width of the absolute reward", dict(sigma=0.2)),
    "K 2": Row("answers per picture", dict(k=2)),
    "K 4": Row("answers per picture: the paper's", dict(k=4)),
    "pool of 8": Row("pictures that are compared: one GPU's", {}, pool),
    "soft": Row("preference from the raters' spread", dict(soft_truth=True)),
    "ties win": Row("the paper's rule", dict(ties="paper")),
    "no KL": Row("beta", dict(beta=0.0)),
    "beta .5": Row("beta", dict(beta=0.5)),
    "4 updates": Row("per rollout; the clip acts", dict(updates=4)),
    "no std": Row("advantage not divided by the group's spread", dict(advantage="none")),
    "per token": Row("mean over tokens", {}, per_token),
    "answer paid": Row("is it calibration? only the answer's tokens are paid", {}, paid(True)),
    "critique paid": Row("or sight? only the critique's", {}, paid(False)),
    "by spread": Row("a picture counts as much as its scores differ", {}, by_spread),
    "tight gradient": Row("the gradient's clip acts", dict(max_grad_norm=0.1)),
    "1/4 data": Row("fewer pictures", dict(limit=496)),
    "1/16 data": Row("fewer pictures", dict(limit=220)),
    "one set": Row("Table 4: trained on AVA alone", dict(train="AVA")),
}


def run_one(name: str, seed: int, root: Path, steps: int) -> None:
    """One row of one seed, in this process; leaves result.json."""
    row, base, run = ROWS[name], root / f"seed{seed}", folder(root, name, seed)
    run.mkdir(parents=True, exist_ok=True)
    for part in ("world", "backbone", "cot.jsonl", *["sft"] * (row.epochs is None)):
        if not (run / part).exists():
            (run / part).symlink_to((base / part).resolve())
    if row.epochs == 0 and not (run / "sft").exists():
        (run / "sft").symlink_to((base / "backbone").resolve())
    elif row.epochs:
        train_sft.main(SFTConfig(run=str(run), seed=seed, epochs=row.epochs))
    options = {**row.options}
    if options.get("train") == "AVA":
        specs = toy_specs(run / "world")
        options = dict(train=f"ava:{run}/world/AVA", model=str(run / "sft"),
                       test_in=specs["test_in"], test_ood=specs["test_ood"])
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
                        str(steps)], cwd=ROOT, check=True, stdout=log, stderr=log,
                       env={**os.environ, "OMP_NUM_THREADS": "1"})


def done(root: Path, name: str, seed: int, steps: int) -> dict | None:
    file = folder(root, name, seed) / "result.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    return found if found.get("steps") == steps else None


def table(found: dict[str, list[dict]]) -> None:
    """Rows, with the paired difference to the base."""
    print(f"\n{'':16} PLCC  SRCC | in domain   OOD         | PLCC - base [95 %]       "
          "| entropy clip- clip+ flat grad distinct")
    for name, seeds in found.items():
        mean = {key: float(np.mean([s[key] or 0.0 for s in seeds])) for key in seeds[0]}
        gain = [(a["plcc_all"] or 0.0) - (b["plcc_all"] or 0.0)
                for a, b in zip(seeds, found.get("base", seeds), strict=True)]
        half = (student.ppf(0.975, len(gain) - 1) * np.std(gain, ddof=1) / len(gain) ** 0.5
                if len(gain) > 1 else np.nan)
        print(f"{name:16} {mean['plcc_all']:.3f} {mean['srcc_all']:.3f} | {mean['plcc_in']:.3f} "
              f"{mean['srcc_in']:.3f} {mean['plcc_ood']:.3f} {mean['srcc_ood']:.3f} | "
              f"{np.mean(gain):+.3f} [{np.mean(gain) - half:+.3f}, {np.mean(gain) + half:+.3f}] | "
              f"{mean['entropy']:.3f} {mean['clip_low']:.3f} {mean['clip_high']:.3f} "
              f"{mean['flat_groups']:.3f} {mean['grad_clipped']:.2f} {mean['distinct']:.0f}  "
              f"{ROWS[name].why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--root", type=Path, default=ROOT / "runs" / "bench" / "ablation")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a row, or "start": what all rows share
    options = parser.parse_args()
    root, start = options.root.resolve(), time.perf_counter()
    if options.one == "start":
        return train_sft.main(SFTConfig(run=str(root / f"seed{options.seeds[0]}"),
                                        seed=options.seeds[0])) and None
    if options.one:
        return run_one(options.one, options.seeds[0], root, options.steps)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as workers:
        for _ in workers.map(lambda seed: (root / f"seed{seed}" / "sft" / "nanoaes.json").is_file()
                             or child(root, options.steps, seed, "--one", "start"), options.seeds):
            pass
        todo = [(name, seed) for name in options.rows for seed in options.seeds
                if done(root, name, seed, options.steps) is None]
        for name, seed in workers.map(
                lambda pair: child(root, options.steps, pair[1], "--one", pair[0]) or pair, todo):
            print(f"{name}, seed {seed}: PLCC "
                  f"{done(root, name, seed, options.steps)['plcc_all']:.4f}", flush=True)
    found = {name: [done(root, name, seed, options.steps) for seed in options.seeds]
             for name in options.rows}
    table(found)
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes, torch {torch.__version__}")
    print(json.dumps({"steps": options.steps, "seeds": options.seeds, "rows": {
        name: {key: [round(s[f"{key}_all"] or 0.0, 4) for s in seeds] for key in ("plcc", "srcc")}
        for name, seeds in found.items()}}))


if __name__ == "__main__":
    main()
