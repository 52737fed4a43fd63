"""Is it the same run? A run goes on with the options and the model that it was saved with.

Left out: the pictures' contents; a hash of a hundred thousand files would cost what a step does.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from nanoaes.adapters import find_base, is_adapters
from nanoaes.errors import UserError
from nanoaes.hub import find_folder

C = TypeVar("C")
SAMPLES, SAMPLE = 512, 4096  # of a weight file; bytes of each
# Where things are, what is said, how much fits: other bits perhaps, the same run.
MAY_CHANGE = {"run", "out", "device", "shard", "reference", "gradient_checkpointing", "save_every",
              "keep_last", "resume", "dry_run", "gpu", "gpus", "log_every", "tracker", "merge",
              "tokens_per_micro_batch", "overlap"}
AS_SAVED_IF_ZERO = {"tokens_per_micro_batch"}  # what was chosen then gives the same bits


def check_same(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Is this the run that was saved? `saved`, `now`: options and `fingerprint`s, by name.

    Raises:
        UserError: one line with each that differs.
    """
    names = [name for name in {**saved, **now} if name not in MAY_CHANGE
             and saved.get(name) != now.get(name)]
    if names:
        differ = ", ".join(f"{name}: saved {saved.get(name)!r}, now {now.get(name)!r}"
                           for name in names)
        raise UserError(f"--resume goes on with the same options only; {differ}; give them as "
                        "they were saved or choose another --run")


def began_with(model: Path, lessons: Iterable[tuple[Path, float | str]]) -> dict[str, str]:
    """"weights" and "pictures" of a run: model and what it learns from, for its states.

    Args:
        lessons: pictures in order, of which the names count, each with its score or answer.
    """
    seen = hashlib.sha256()
    for image, learned in lessons:
        seen.update(f"{image.name}\0{learned!r}\n".encode(errors="surrogateescape"))
    return {"weights": fingerprint(find_folder(model)), "pictures": seen.hexdigest()[:16]}


def as_saved(cfg: C, begun: dict[str, str], state: dict[str, Any]) -> C:
    """The options of a run that goes on; where they leave the micro-batch open, the saved one.

    Args:
        begun: as `began_with` returns.
        state: what was saved: the same, and its "options".
    Raises:
        UserError: as `check_same`.
    """
    now = {**vars(cfg), **begun}
    check_same({**state["options"], **{name: state.get(name) for name in begun}}, now)
    return replace(cfg, **{name: now[name] or state["options"][name] for name in AS_SAVED_IF_ZERO})


def fingerprint(path: Path) -> str:
    """Of a model's folder: config, names and sizes of weight files, SAMPLES of their bytes; of
    adapters also what they belong to.

    All over a file: it may begin and end with tensors that no training has touched.
    """
    seen = hashlib.sha256()
    if is_adapters(path):
        seen.update(fingerprint(find_base(path)[1]).encode())
    for file in sorted([*path.glob("*config.json"), *path.glob("*.safetensors")]):
        size = file.stat().st_size
        seen.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            last = max(size - SAMPLE, 0)
            for place in (*range(0, last, max(size // SAMPLES, SAMPLE)), last):
                content.seek(place)
                seen.update(content.read(SAMPLE))
    return seen.hexdigest()[:16]
