"""AVA's list of labels, made and read: seconds, and the largest error.

    python bench/index.py               255,530 rows, of which 19,930 are the test's

Writes an AVA.txt and a generic_test.jpgl of the real one's size, with 78 to 549 random votes a
picture, in a temporary folder, and reads both splits three times, next to what plain Python takes
for the numbers alone. Prints a row each; the last line is JSON: least CPU seconds of each (one
thread works; what others do on the machine is not counted), and the largest difference of a score
or spread from numpy's, which must be 1e-12 or less. No picture is opened.
"""

import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from nanoaes.datasets import read_dataset  # noqa: E402

ROWS, TESTS = 255_530, 19_930


def make(root: Path) -> np.ndarray:
    """The download; returns its votes (ROWS, 10)."""
    rng = np.random.default_rng(0)
    total, skew = rng.integers(78, 550, ROWS), rng.uniform(3.5, 7.5, (ROWS, 1))
    share = np.exp(-((np.arange(1, 11) - skew) ** 2) / 4)
    votes = rng.multinomial(total, share / share.sum(1, keepdims=True))
    ids = random.Random(0).sample(range(100, 960_000), ROWS)
    lines = [f"{i} {name} {' '.join(map(str, n))} {name % 67} 0 {name % 1400}\n"
             for i, (name, n) in enumerate(zip(ids, votes.tolist(), strict=True), 1)]
    (root / "AVA.txt").write_text("".join(lines))
    (root / "aesthetics_image_lists").mkdir()
    (root / "aesthetics_image_lists" / "generic_test.jpgl").write_text(
        "".join(f"{name}\n" for name in ids[-TESTS:]))
    return votes


def plain(root: Path) -> list[tuple[str, float, float]]:
    """Names, means and spreads as one writes them down, with nothing checked."""
    rows = []
    for line in (root / "AVA.txt").open():
        cells = line.split()
        n = [int(cell) for cell in cells[2:12]]
        mean = sum(i * x for i, x in enumerate(n, 1)) / sum(n)
        variance = sum(x * (i - mean) ** 2 for i, x in enumerate(n, 1)) / sum(n)
        rows.append((cells[1], mean, variance**0.5))
    return rows


def best(run: Callable[[], Any]) -> tuple[float, Any]:
    """The least CPU time of three, and the result."""
    times = []
    for _ in range(3):
        start = time.process_time()
        result = run()
        times.append(time.process_time() - start)
    return min(times), result


def main() -> None:
    if "--help" in sys.argv:
        print(__doc__)
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        votes = make(root)
        numbers: dict[str, float] = {"rows": ROWS}
        numbers["plain_s"], _ = best(lambda: plain(root))
        numbers["train_s"], train = best(lambda: read_dataset(f"ava:{root}", "train"))
        numbers["test_s"], test = best(lambda: read_dataset(f"ava:{root}", "test"))
    i, n = np.arange(1, 11), votes.sum(1)
    mean = votes @ i / n
    std = np.sqrt((votes * (i - mean[:, None]) ** 2).sum(1) / n)
    found = np.array([(e.score, e.std) for e in train + test])
    worst = np.abs(found - np.stack([(mean - 1) / 9, std / 9], axis=1)).max()
    for name, value in numbers.items():
        print(f"{name:10} {value:.6g}")
    print(json.dumps({**{k: round(v, 3) for k, v in numbers.items()}, "train": len(train),
                      "test": len(test), "worst": float(worst)}))


if __name__ == "__main__":
    main()
