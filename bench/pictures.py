"""Pictures: how fast they are checked, and how long a step waits for them.

    python bench/pictures.py            two minutes on 2 cores

2,000 JPEGs of 256 x 192 are checked, then again from RUN/pictures.jsonl, then with one bad picture
among them. Then RAPO steps of the toy's model, untrained, on JPEGs of 12 megapixels: decoded ahead
of the step as they are, and only when they are asked for. A step's wait is what its `s_data` says;
preparing the decoded pictures is part of it. The last line is JSON.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from tiny import tiny_vlm  # noqa: E402

import train_rapo  # noqa: E402
from nanoaes.ahead import ahead  # noqa: E402
from nanoaes.checkpoint import read_rows  # noqa: E402
from nanoaes.config import RAPOConfig  # noqa: E402
from nanoaes.datasets import Example, check_images  # noqa: E402
from nanoaes.images import DataError  # noqa: E402
from nanoaes.index import Index  # noqa: E402

SMALL, LARGE = 2000, 12  # pictures


def write(folder: Path, n: int, size: tuple[int, int]) -> list[Path]:
    """JPEGs with soft shapes and a little noise; 12 megapixels are 3 megabytes."""
    folder.mkdir()
    rng, paths = np.random.default_rng(0), []
    for i in range(n):
        shapes = rng.integers(0, 256, (size[1] // 50, size[0] // 50, 3), dtype=np.uint8)
        soft = np.asarray(Image.fromarray(shapes).resize(size, Image.Resampling.BICUBIC), np.int16)
        noisy = soft + rng.integers(-6, 7, (*size[::-1], 1), dtype=np.int16)
        paths.append(folder / f"{i}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def checked(paths: list[Path], run: Path) -> float:
    """Seconds until all are checked, or one is refused."""
    examples = [Example(path, 0.5, None, "small", (0, 1)) for path in paths]
    begun = time.perf_counter()
    with contextlib.suppress(DataError), contextlib.redirect_stdout(io.StringIO()):
        check_images(examples, "refuse", Index(run))
    return time.perf_counter() - begun


def waited(folder: Path, run: Path, n: int | None) -> dict[str, float]:
    """A step's seconds and the share that is waiting for pictures, n ahead (None: a step's)."""
    cfg = RAPOConfig(run=str(run), model=str(folder / "model"), heldout=3, images=4, k=8, steps=6,
                     train=f"csv:{folder / 'large.csv'}@0-1", device="cpu", eval_every=99,
                     test_in=f"csv:{folder / 'test.csv'}@0-1", max_new_tokens=64, log_every=0)
    with (contextlib.redirect_stdout(io.StringIO()), mock.patch.object(
            train_rapo, "ahead", lambda paths, fit, a_step: ahead(
                paths, fit, a_step if n is None else n))):
        train_rapo.main(cfg)
    rows = read_rows(run / "metrics.jsonl")[2:]  # after the cold start and the first step
    step = sum(v for row in rows for k, v in row.items() if k in (
        "s_data", "s_rollout", "s_reference", "s_update"))
    return {"step_s": step / len(rows), "wait_share": sum(row["s_data"] for row in rows) / step}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = write(folder / "small", SMALL, (256, 192))
        cold, known = checked(small, folder / "run"), checked(small, folder / "run")
        small[7].write_bytes(b"no picture")
        new, again = checked(small, folder / "new"), checked(small, folder / "new")
        result = {"cold_per_s": SMALL / cold, "known_per_s": SMALL / known, "first_error_s": new,
                  "first_error_again_s": again}
        large = write(folder / "large", LARGE, (4000, 3000))
        rows = [f"{path},{i / LARGE}" for i, path in enumerate(large)]
        (folder / "large.csv").write_text("\n".join(["image,score", *rows]))
        write(folder / "test", 1, (256, 192))
        (folder / "test.csv").write_text("image,score\ntest/0.jpg,0.5\n")
        tiny_vlm().save(folder / "model")
        for how, n in (("ahead", None), ("asked_for", 0)):
            found = waited(folder, folder / how, n)
            result |= {f"{how}_{k}": v for k, v in found.items()}
    for key, value in result.items():
        print(f"{key:24s} {value:10.3f}")
    print(json.dumps({k: round(v, 3) for k, v in result.items()}))


if __name__ == "__main__":
    main()
