"""The server of a teacher dies while AesCoT is at work (bench/cot.py's, which plays both)."""

import time
from collections import Counter
from pathlib import Path

import cot
import numpy as np
import talker

from accidents.outcome import SOON, End, Outcome, Place
from nanoaes.toy.render import render
from nanoaes.toy.world import draw_qualities

PICTURES, DEAD_AFTER = 40, 12
THIRDS = (1 / 3, 1 / 3, 1 / 3)


def album(root: Path) -> tuple[list[cot.Photo], Path]:
    """Pictures whose truth is known, and their table."""
    root.mkdir()
    rng, photos = np.random.default_rng(0), []
    for i in range(PICTURES + cot.HELD):
        qualities = draw_qualities(rng, THIRDS)
        render(qualities, "hills", rng).save(root / f"{i}.png")
        photos.append(cot.written(root / f"{i}.png", qualities, rng))
    table = root / "photos.csv"
    table.write_text("image,score\n" + "".join(f"{p.path},{p.score}\n" for p in photos))
    return photos, table


def server_dies(place: Place) -> Outcome:
    """Then another one, at another address, answers the same command."""
    photos, table = album(place.root / "photos")
    run, cast = place.root / "aescot", cot.Cast(photos)
    rows = run / "cot.jsonl"
    with talker.Talker(cast.reply, at_once=cot.AT_ONCE, service=cot.SERVICE, keep=False) as server:
        process = cot.start(run, table, server.url)
        while cot.count(rows) < DEAD_AFTER and process.poll() is None:
            time.sleep(0.01)
    begun = time.monotonic()
    end = End(process.wait(timeout=SOON), (run / "said.txt").read_text())
    took, before = time.monotonic() - begun, rows.read_bytes()
    with talker.Talker(cast.reply, keep=False) as server:
        cot.finish(run, table, server.url, PICTURES)
    n = len(before.splitlines())
    return Outcome(f"the teacher's server dies after {DEAD_AFTER} of {PICTURES} critiques",
                   f"build_cot.py ended after {took:.0f} s with {end.status}, {n} rows written; "
                   "the same command, another server: the rest",
                   end.line("cannot be reached|without an answer"), missed(rows, before, photos))


def missed(rows: Path, before: bytes, photos: list[cot.Photo]) -> list[str]:
    """What is lost, or written twice."""
    written = cot.lines(rows)
    found = Counter(row["image"] for row in written if not row["unjudged"])  # else: read again
    wrong = [f"{PICTURES - len(found)} critiques"] * (len(found) != PICTURES)
    wrong += ["critiques are doubled"] * (max(found.values()) > 1)
    wrong += ["rows that were written"] * (not rows.read_bytes().startswith(before))
    texts = {str(p.path.resolve()): p.text for p in photos}
    return wrong + [f"the words about {row['image']}" for row in written
                    if row["critique"] != texts[row["image"]]]
