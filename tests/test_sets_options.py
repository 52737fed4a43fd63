"""--columns and --limit reach a training run; what is held out stays the same."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_datasets import write

from nanoaes.config import RAPOConfig
from nanoaes.images import DataError
from nanoaes.options import parse
from train_rapo import pictures


def test_columns_and_limit_reach_a_training_run(tmp_path: Path) -> None:
    rows = []
    for i in range(30):
        Image.fromarray(np.full((28, 28, 3), i, np.uint8)).save(tmp_path / f"p{i}.png")
        rows.append(f"p{i}.png;{1 + i % 5};{i}")
    file = write(tmp_path / "p.csv", "\n".join(["File;MOS;note", *rows]))
    test = write(tmp_path / "t.csv", "File;MOS\np1.png;1,5\np2.png;4,5\n")

    def seen(**more: object) -> tuple[set[str], set[str], list[float]]:
        given = {"train": f"csv:{file}@1-5", "test_in": f"csv:{test}@1-5", "model": "x",
                 "heldout": 3, "columns": "file,mos", **more}
        cfg = parse(RAPOConfig, [w for k, v in given.items() for w in (f"--{k}", str(v))])
        train, held, tests = pictures(cfg, tmp_path / "run")
        return ({e.image.name for e in train}, {e.image.name for e in held["p"][1]},
                [e.score for e in tests["t"][1]])

    train, held, scores = seen()
    fewer, same, _ = seen(limit=10)
    assert (len(train), len(held), scores) == (27, 3, [0.125, 0.875])
    assert len(fewer) == 7 and fewer < train and same == held
    with pytest.raises(DataError, match="no column 'image'"):
        seen(columns="")
