"""README's toy numbers: the whole road with several seeds, one after another.

    python bench/toy.py                 seeds 0 1 2, about 6 minutes each on 2 cores
    python bench/toy.py 0 1 2 --keep    keep what is already there under runs/bench

Each seed makes its own world, backbone, critiques, cold start and RAPO run by calling
`python train_rapo.py`. Prints a table per seed; the last line is JSON, a list over seeds per key.
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from nanoaes.metrics import format_table, unreadable  # noqa: E402
from nanoaes.quality import add_quality  # noqa: E402
from nanoaes.toy.road import quality_of  # noqa: E402
from nanoaes.toy.world import read_attributes  # noqa: E402

STAGES = {"backbone": "backbone", "cold start": "sft", "RAPO": "rapo"}  # -> the keys below


def run_seed(seed: int, keep: bool) -> tuple[Path, float | None]:
    """One run of the main script; returns its folder and its minutes (None if it was kept)."""
    run = ROOT / "runs" / "bench" / f"toy{seed}"
    if keep and (run / "eval_RAPO.json").is_file():
        return run, None
    shutil.rmtree(run, ignore_errors=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, "train_rapo.py", "--run", str(run), "--seed", str(seed)],
                   cwd=ROOT, check=True)
    return run, (time.perf_counter() - start) / 60


def numbers(run: Path) -> dict:
    """What the acceptance asks of one run."""
    evals = {stage: json.loads((run / f"eval_{stage.replace(' ', '_')}.json").read_text())
             for stage in STAGES}
    print(format_table(evals))
    notes = read_attributes(run / "world")
    row = {}
    for stage, result in evals.items():
        items = [item for part in result["sets"].values() for item in part["items"]]
        named, right = quality_of(items, notes)
        row |= {f"{STAGES[stage]}_plcc": result["mean"]["all"]["plcc"],
                f"{STAGES[stage]}_srcc": result["mean"]["all"]["srcc"],
                f"{STAGES[stage]}_named": named, f"{STAGES[stage]}_named_right": right}
        add_quality(result, seed=0)  # or not there in the files of a kept, older run
        row |= {f"{STAGES[stage]}_{key}": result["critiques"][key]
                for key in ("level", "consistent", "both", "repetition")}
    first, last = evals["backbone"], evals["RAPO"]
    bias = [i["pred"] - i["truth"] for part in first["sets"].values() for i in part["items"]
            if i["pred"] is not None]
    ratios = [part["metrics"]["std_ratio"] for part in last["sets"].values()]
    for domain, label in (("in", "id"), ("ood", "ood")):
        for key in ("plcc", "srcc"):
            row[f"{label}_{key}"] = last["mean"][domain][key]
    for key in ("plcc", "srcc"):
        gain = last["mean"]["all"][key] / first["mean"]["all"][key] - 1
        row[f"gain_{key}_pct"] = 100 * gain
    return row | {"parse_fail_pct": 100 * unreadable(last), "std_ratio_min": min(ratios),
                  "std_ratio_max": max(ratios), "backbone_bias": float(np.mean(bias))}


def main() -> None:
    if "--help" in sys.argv:
        print(__doc__)
        return
    seeds = [int(x) for x in sys.argv[1:] if x.isdigit()] or [0, 1, 2]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}, torch {torch.__version__}, seeds {seeds}")
    rows = []
    for seed in seeds:
        run, minutes = run_seed(seed, "--keep" in sys.argv)
        print(f"seed {seed}: {run}")
        rows.append(numbers(run) | {"minutes": minutes})
    # of the largest child so far; Linux counts in KiB
    peak_gb = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2)
    table = {key: [None if r[key] is None else round(r[key], 4) for r in rows] for key in rows[0]}
    print(json.dumps({"seeds": seeds, **table, "peak_gb": peak_gb}))


if __name__ == "__main__":
    main()
