"""Pictures, thousands of them -> a row each: read ahead, asked in batches, gathered in order.

    paths -> see, in threads: hash, decode, shrink          -> Sights, a few at once
    Sights of a window -> replies, batches of like length   -> rows for the ledger

A window is small, so that a kill costs seconds and memory does not grow with the folder; a picture
is kept at the size that the model sees. An answer is the picture's own: not of its batch, its
place, or how often the run was begun.
Left out: the pictures' colours and sizes for people (the sheet reads a file once more).
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from nanoaes.ahead import in_threads
from nanoaes.batching import token_batches
from nanoaes.bursts import look_of, taken
from nanoaes.errors import at
from nanoaes.hub import find_folder
from nanoaes.images import DataError, load_image
from nanoaes.ledger import Stamp, digest, stamp
from nanoaes.parallel import everyone, share, size
from nanoaes.readout import Reading, Score, read
from nanoaes.rollout import cached
from nanoaes.same import fingerprint
from nanoaes.vlm import VLM

WINDOW = 32  # pictures of one process between two writes to the ledger, at most
PIXELS = 2**26  # of them together: they are kept as large as the model may see them
SILENT = "the answer states no score"
CUT = "the answer was cut before it stated a score; raise --max_new_tokens"


@dataclass
class Sight:
    """A file as it was found: a picture, or what is wrong with it."""

    path: Path
    stamp: Stamp
    digest: str | None
    image: Image.Image | None = None
    taken: float | None = None
    look: str | None = None
    error: str | None = None


@dataclass
class Waited:
    """How much of the time went into waiting for pictures."""

    seconds: float = 0.0


def signature(model: Path, vlm: VLM, dtype: str, reading: Reading) -> str:
    """The model, how it is asked and read, for a line of the ledger: "rapo@1f2e3d4c5b6a".

    A model is known by its files; its folder's name is for people.
    """
    asked = json.dumps([fingerprint(find_folder(model)), vlm.described(reading.drawn_at), dtype,
                        reading.readout, reading.samples])
    return f"{model.name}@{hashlib.sha256(asked.encode()).hexdigest()[:12]}"


def see(path: Path, vlm: VLM) -> Sight:
    """Read one file. The stamp comes first: a file that changes meanwhile is done again."""
    sight = Sight(path, stamp(path), digest(path))
    try:
        image = load_image(path)
    except DataError as error:
        sight.error = str(error).removeprefix(f"{path}: ")
        return sight
    sight.image, sight.look, sight.taken = vlm.fit(image), look_of(image), taken(path)
    return sight


def replies(vlm: VLM, sights: Sequence[Sight], reading: Reading) -> list[Score]:
    """What the model says of each picture: this is the place where scores come from."""
    images = [sight.image for sight in sights]
    room = reading.k * vlm.asking.max_new_tokens
    lengths = [(vlm.prompt_length(image), room) for image in images]
    told: dict[int, Score] = {}
    for batch in token_batches(lengths, cached(reading.tokens)):
        # Random numbers by content: a picture has the same samples wherever and whenever it is met.
        places = [int((sights[i].digest or "0")[:8], 16) for i in batch]
        told |= zip(batch, read(vlm, [images[i] for i in batch], places, reading), strict=True)
    return [told[i] for i in range(len(images))]


def rows_of(vlm: VLM, sights: Sequence[Sight], reading: Reading) -> list[dict[str, Any]]:
    """A line of the ledger for each file; see there."""
    told = iter(replies(vlm, [sight for sight in sights if sight.image is not None], reading))
    return [{"path": str(sight.path), "score": None,
             **({"error": sight.error} if sight.error else said(sight, next(told))),
             **sight.stamp._asdict(), "hash": sight.digest} for sight in sights]


def said(sight: Sight, told: Score) -> dict[str, Any]:
    """What a line tells of a picture that was answered."""
    row: dict[str, Any] = {"score": told.score, "critique": told.critique, "taken": sight.taken,
                           "look": sight.look}
    if told.std is not None:
        row["std"] = told.std
    if told.score is None:
        row |= {"error": CUT if told.cut else SILENT, "reply": told.text}
    return row


def window(max_pixels: int) -> int:
    """Pictures of one process between two writes."""
    return min(WINDOW, max(1, PIXELS // max_pixels))


def score_all(vlm: VLM, paths: Sequence[Path], reading: Reading, waited: Waited
              ) -> Iterator[list[dict[str, Any]]]:
    """Rows of all pictures in the order of `paths`, window by window, on every process.

    Raises:
        NotFinite: the model's numbers are.
    """
    each = window(vlm.asking.max_pixels)
    whole = each * size()
    windows = [paths[i : i + whole] for i in range(0, len(paths), whole)]
    mine = [[some[i] for i in share(len(some))] for some in windows]
    sights = in_threads(lambda path: see(path, vlm), (path for part in mine for path in part),
                        2 * each)
    with closing(sights):
        for asked, part in zip(windows, mine, strict=True):
            begun = time.perf_counter()
            some = list(islice(sights, len(part)))
            waited.seconds += time.perf_counter() - begun
            with at(str(asked[0])):
                yield everyone(rows_of(vlm, some, reading))
