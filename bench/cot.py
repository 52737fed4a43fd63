"""Does AesCoT lose or double anything when its teacher's server misbehaves and it is killed?

    python bench/cot.py                 2,000 pictures of the made world, ten kills

A server on this machine plays teacher and judge. It knows the pictures, by what it is shown, and
plants faults whose truth it keeps: a critique that shows the score, that ends in another judgement,
that says what is not there, that is a refusal. Its judge reads rightly but for LIES of the texts,
and answers now and then with what is no JSON or with claims that nobody made.
`build_cot.py` works twice: undisturbed, which tells its share of the requests that the server could
have answered; then with an eighth of the requests going wrong (TROUBLE) and ten SIGKILLs, each
after a random number of rows; every third time the last row is torn as well. Compared: the rows of
both, picture by picture; the flags with the truth; whether the key, which the server echoes, stands
in any file or word of the run.
The last line is JSON. Left out: what the filters beyond the paper's find, which toy critiques of a
line would all fail; how good the leak filter is on many ways to say a score (bench/leak.py). Of the
twelve in LEAKS, written without a look at the filter, it missed one at first (a recall of .93).
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import talker as t  # noqa: E402

from nanoaes.chat import shown  # noqa: E402
from nanoaes.cot import LEVELS, score_level  # noqa: E402
from nanoaes.toy.world import (  # noqa: E402
    VERDICTS,
    WORDS,
    build_world,
    critique,
    level,
    read_critique,
    true_score,
)

KEY = "sk-bench-a-key-that-nobody-may-see"
HELD = 3  # pictures that no training may see: the fewest that there can be
AT_ONCE, SERVICE = 8, 0.064  # the server's limit: 125 requests a second
THREADS, TIMEOUT, MAX_PIXELS = 24, 3.0, 262_144
SHARES = {"leak": 0.12, "mismatch": 0.12, "invented": 0.12, "unfit": 0.02}
UNREADABLE, LIES = 0.05, 0.004  # of the judge's first answers; of the texts that it reads
NOBODY = b'{"error": "no such key: {authorization}"}'
TROUBLE = [*[t.status(500)] * 6, *[t.HALF_JSON] * 4, *[t.EMPTY] * 4, *[t.hang_up] * 3,
           *[t.cut_off] * 3, *[t.A_PAGE] * 3, *[t.NO_CHOICES] * 3, *[t.says(NOBODY, 503)] * 3,
           t.status(429, retry_after="1"), t.late(TIMEOUT + 1)]
SHARE = 0.12  # of the requests that go wrong
LEAKS = ("People rated it {0:.2f}.", "I would give it {1} out of 10.", "Score: {2}/100.",
         "A solid {3}.", "Viewers put it at {0:.2f} on a scale from 0 to 1.", "It earns {4} stars.",
         "In figures, {0:.2f}.", "That is {2} per cent of the maximum.", "评分：{1}分。",
         "I was told that the mean is {0:.2f}.", "Overall: {1}/10", "Its rating is {3} of ten.")
HARMLESS = ("", "The rule of thirds would have helped.", "It was taken at f/2.8.",
            "It recalls the 1920s.", "Two figures stand at the edge.", "It is sharp even in 4K.",
            "It shows the golden hour at 5 pm.", "At 1/250 s nothing is blurred.",
            "The two-point perspective leads the eye.", "A frame of 16:9 would suit it.")
FIGURES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass
class Photo:
    """One picture, what is true of it, and what the teacher says."""

    path: Path
    score: float
    levels: list[int]
    text: str
    planted: set[str]  # flags


def album(world: Path, n: int, seed: int) -> list[Photo]:
    """The first pictures of the made world, and a critique for each."""
    rows = [json.loads(row) for row in (world / "attributes.jsonl").read_text().splitlines()[:n]]
    return [written(world / row["image"], np.array(row["qualities"]),
                    np.random.default_rng([seed, number])) for number, row in enumerate(rows)]


def written(path: Path, qualities: np.ndarray, rng: np.random.Generator) -> Photo:
    """One critique with its planted faults."""
    score, levels = round(true_score(qualities), 4), [level(q) for q in qualities]
    planted = {name for name, share in SHARES.items() if rng.random() < share}
    told, says = score, list(levels)
    if "unfit" in planted:
        return Photo(path, score, levels, "I am sorry, but I cannot judge this picture.", {"unfit"})
    if "invented" in planted:
        i = rng.integers(len(levels))
        says[i] = (levels[i] + rng.integers(1, 3)) % 3
    if "mismatch" in planted:
        told = rng.choice([s for s in (0.2, 0.5, 0.9) if score_level(s) != score_level(score)])
    text = f"{critique(says, told, rng)} {rng.choice(HARMLESS)}".strip()
    if "leak" in planted:
        ten = round(10 * score)
        text += " " + str(rng.choice(LEAKS)).format(score, ten, round(100 * score), FIGURES[ten],
                                                    FIGURES[max(1, round(5 * score))])
    return Photo(path, score, levels, text, planted)


def look(image: Image.Image) -> np.ndarray:
    """(768,) levels of what survives JPEG; a difference hash takes some dark pictures for one."""
    small = image.convert("RGB").resize((16, 16), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()


class Cast:
    """Plays teacher and judge. Which it is asked for, the question's form tells."""

    def __init__(self, photos: list[Photo]):
        self.photos = photos
        self.looks = np.stack([look(shown(p.path, MAX_PIXELS)) for p in photos])
        self.done: list[float] = []  # when it has answered

    def reply(self, messages: t.Messages) -> str | bytes:
        text, content = t.words(messages), messages[-1]["content"]
        said = re.search(r"<<<\n(.*)\n>>>", text, re.DOTALL)
        again = not text.endswith(">>>")
        self.done.append(time.monotonic())
        if said is None:
            photo = self.seen(messages)
            if "unfit" in photo.planted and crc32(photo.path.name.encode()) % 2:
                return t.completion(None, refusal=photo.text)
            return photo.text
        first = crc32(said[1].encode()) / 2**32
        if isinstance(content, str):
            return self.level(said[1], first, again)
        return self.absent(said[1], self.seen(messages), first, again)

    def seen(self, messages: t.Messages) -> Photo:
        """The picture that is shown."""
        off = ((self.looks - look(t.picture(messages))) ** 2).sum(1)
        return self.photos[int(off.argmin())]

    def level(self, text: str, chance: float, again: bool) -> str:
        """The words' verdict; for a few texts another one."""
        found = re.search(f"a ({'|'.join(VERDICTS)}) picture", text)
        number = VERDICTS.index(found[1])
        if not again and chance < UNREADABLE:
            return ("It is " + LEVELS[number], '{"level": "superb"}', '{"level":')[len(text) % 3]
        lie = 1 - chance < LIES
        return json.dumps({"level": LEVELS[(number + lie) % 3]})

    def absent(self, text: str, photo: Photo, chance: float, again: bool) -> str:
        """What the words say otherwise than the notes; for a few texts something that is true."""
        truth = dict(zip(WORDS, photo.levels, strict=True))
        said = read_critique(text)
        wrong = [name for name in WORDS if name in said and said[name] != truth[name]]
        if not again and chance < UNREADABLE:
            return ('{"absent": ["an elephant in the sky"]}', "Nothing is wrong.",
                    '{"absent": "light"}')[len(text) % 3]
        if not wrong and 1 - chance < LIES:
            wrong = ["light"]
        claims = [re.search(rf"\w+ {name}", text)[0] for name in wrong]
        return f"```json\n{json.dumps({'absent': claims})}\n```"


def start(run: Path, table: Path, url: str) -> subprocess.Popen:
    """build_cot.py on all pictures; what it says goes to a file in the run."""
    options = {"run": run, "train": f"csv:{table}@0-1", "heldout": HELD, "teacher": url,
               "teacher_model": "talker", "per_level": 10**6, "filters": "none",
               "concurrency": THREADS, "timeout": TIMEOUT, "max_pixels": MAX_PIXELS}
    command = [sys.executable, str(ROOT / "build_cot.py")]
    command += [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    run.mkdir(parents=True, exist_ok=True)
    with (run / "said.txt").open("a") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, cwd=ROOT,
                                env={**os.environ, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1",
                                     "TEACHER_API_KEY": KEY})


def count(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def finish(run: Path, table: Path, url: str, n: int) -> None:
    """Runs until each picture has its row; whoever got no answer is asked once more, and again."""
    for _ in range(4):
        if start(run, table, url).wait():
            raise SystemExit((run / "said.txt").read_text()[-2000:])
        rows = lines(run / "cot.jsonl")
        if len({row["image"] for row in rows if not row["unjudged"]}) == n:
            return


def with_kills(run: Path, table: Path, url: str, n: int, kills: int, seed: int) -> int:
    """As `finish`, killed first. Returns how many kills have hit a run."""
    rng, hit, out = random.Random(seed), 0, run / "cot.jsonl"
    for number, limit in enumerate(sorted(rng.sample(range(n), kills))):
        process = start(run, table, url)
        while process.poll() is None and count(out) < limit:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.3))
        hit += process.poll() is None
        process.kill()
        process.wait()
        if number % 3 == 2:  # as a crash of the machine may leave it
            os.truncate(out, out.stat().st_size - 20)
    finish(run, table, url, n)
    return hit


def lines(file: Path) -> list[dict]:
    """Of a run that has ended: each is whole, or this raises ValueError."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def final(rows: list[dict]) -> dict[str, tuple]:
    """Picture -> what its last row says."""
    return {row["image"]: (row["critique"], row["kept"], *(row[name] for name in SHARES))
            for row in rows}


def shares(rows: list[dict], photos: list[Photo]) -> dict[str, float]:
    """Precision and recall of each flag; of what is no critique the others are not asked."""
    truth = {str(p.path.resolve()): p.planted for p in photos}
    found = {}
    for flag, name in (("leak", "leak"), ("mismatch", "mismatch"), ("invented", "fact"),
                       ("unfit", "refusal")):
        pairs = Counter((row[flag], flag in truth[row["image"]]) for row in rows)
        right = pairs[True, True]
        found[f"{name}_precision"] = right / max(1, right + pairs[True, False])
        found[f"{name}_recall"] = right / max(1, right + pairs[False, True])
    return found


def measured(place: Path, n: int, kills: int, seed: int) -> dict[str, object]:
    """Both runs, compared."""
    world = build_world(place / "world", seed)
    photos = album(world, n + HELD, seed)
    table = place / "photos.csv"
    table.write_text("image,score\n" + "".join(f"{p.path},{p.score}\n" for p in photos))
    cast, quiet, loud = Cast(photos), place / "quiet", place / "loud"
    same = {"at_once": AT_ONCE, "service": SERVICE, "keep": False}
    with t.Talker(cast.reply, **same) as talker:
        finish(quiet, table, talker.url, n)
    per_second = (len(cast.done) - 1) / (cast.done[-1] - cast.done[0])
    print(f"undisturbed: {len(cast.done)} requests, {per_second:.1f} of "
          f"{AT_ONCE / SERVICE:.1f} a second", flush=True)
    began = time.monotonic()
    with t.Talker(cast.reply, t.at_random(SHARE, TROUBLE, seed), **same) as talker:
        hit = with_kills(loud, table, talker.url, n, kills, seed)
        print(f"disturbed: {talker.count} requests, {hit} kills, "
              f"{time.monotonic() - began:.0f} seconds", flush=True)
    rows, before = lines(loud / "cot.jsonl"), final(lines(quiet / "cot.jsonl"))
    last = {row["image"]: row for row in rows}
    again = sum(row["unjudged"] for row in rows)  # read by a judge later: a row that replaces
    told = "".join(path.read_text(errors="replace") for run in (quiet, loud)
                   for path in run.rglob("*") if path.is_file())
    return {"items": len(last), "lost": n - len(last), "doubled": len(rows) - again - len(last),
            **shares(list(last.values()), photos),
            "throughput_share": per_second / (AT_ONCE / SERVICE), "kills": hit,
            "same_final_set": final(rows) == before, "key_seen": KEY in told,
            "kept": sum(row["kept"] for row in last.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="a folder for the runs, to look at; empty: none is kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(measured(Path(args.keep or place).resolve(), args.items, args.kills,
                                  args.seed)))


if __name__ == "__main__":
    main()
