"""The readouts side by side: what thinking, expectation and samples are worth, and what they cost.

    python bench/readout.py                             the toy of train_rapo.py, about 5 minutes
    python bench/readout.py --run runs/bench/toy1       another seed's

The RAPO model and its cold start on the four test sets, means over the sets. `ties` is the share
of pairs with equal scores; `best_of_4` how often the best-liked of four pictures drawn from one set
has the highest score (of m equal highest ones it counts as 1/m; a guess is right in 25 %). Prints
a table; the last line is JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from nanoaes import choices  # noqa: E402
from nanoaes.datasets import Sets  # noqa: E402
from nanoaes.evaluation import evaluate_sets, read_sets  # noqa: E402
from nanoaes.toy import road as toy  # noqa: E402
from nanoaes.vlm import VLM  # noqa: E402

STAGES = {"cold start": "sft", "RAPO": "rapo"}
WAYS = {"greedy": {}, "expect": {"readout": "expect"}, "direct": {"readout": "direct"},
        "samples 8": {"samples": 8}}


def best_of_4(items: list[dict]) -> float:
    """Of all sets of four."""
    pred, truth = zip(*((i["pred"], i["truth"]) for i in items), strict=True)
    return choices.measure(pred, truth)["best_of_4"].value


def measure(vlm: VLM, sets: Sets, name: str, way: dict) -> dict:
    """One row of the table."""
    start = time.perf_counter()
    result = evaluate_sets(vlm, sets, label=name, keep_bar=False, **way)
    took = time.perf_counter() - start
    parts = list(result["sets"].values())
    mean = {key: float(np.mean([p["metrics"][key] or 0.0 for p in parts]))
            for key in ("ties", "distinct")}
    return {"way": name, "plcc": result["mean"]["all"]["plcc"],
            "srcc": result["mean"]["all"]["srcc"], **mean,
            "best_of_4": float(np.mean([best_of_4(p["items"]) for p in parts])),
            "ms_per_picture": 1e3 * took / sum(len(p["items"]) for p in parts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="runs/toy", help="of train_rapo.py")
    run = Path(parser.parse_args().run)
    _, test_in, test_ood = toy.sets(run / "world", None)
    sets = read_sets(test_in, test_ood, "refuse")
    out = {}
    for stage, folder in STAGES.items():
        vlm = VLM.load(run / folder)
        out[stage] = [measure(vlm, sets, name, way) for name, way in WAYS.items()]
        for row in out[stage]:
            print(f"{stage:10} " + "  ".join(
                f"{key} {value}" if isinstance(value, str) else f"{key} {value:.3f}"
                for key, value in row.items()), flush=True)
    print(json.dumps({stage: [{k: v if isinstance(v, str) else round(v, 4) for k, v in row.items()}
                              for row in rows] for stage, rows in out.items()}))


if __name__ == "__main__":
    main()
