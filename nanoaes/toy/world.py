"""The toy world: photographs with known qualities, raters, and four data sets on disk.

A photograph has five qualities in [0, 1], one per dimension of the paper. Its true score is a fixed
function of them (`true_score`); raters add noise and taste. Four sets are written in the formats in
which the real ones are downloaded, so that the same readers serve both:

    AVA     in domain      hills    votes 1..10        most pictures are middling
    TAD66K  in domain      hills    mean score 1..10   gifted and clumsy photographers
    PARA    out of domain  coast    mean score 1..5    milder raters' scale, film grain
    AADB    out of domain  city     mean score 0..1    towers, soft print

The names say which format is imitated; no picture or rating of the real sets is in them. What the
photographer knew (`attributes.jsonl`) lies beside them: the toy teacher may read it, models never.
Left out: raters who differ in taste; each has a noise of his own.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import norm

from nanoaes.cot import score_level
from nanoaes.errors import UserError
from nanoaes.progress import progress
from nanoaes.toy.render import render

WORDS = {  # dimension -> two words for each level: bad, fair, good
    "light": (("flat", "dull"), ("soft", "gentle"), ("sculpted", "radiant")),
    "mood": (("empty", "lifeless"), ("quiet", "calm"), ("lively", "storied")),
    "composition": (("lopsided", "tilted"), ("centred", "static"), ("balanced", "poised")),
    "color": (("clashing", "garish"), ("muted", "plain"), ("harmonious", "rich")),
    "exposure": (("clipped", "harsh"), ("uneven", "strained"), ("even", "faithful")),
}
WEIGHTS = np.array([0.22, 0.18, 0.22, 0.20, 0.18])  # what the raters care about
LEVEL_CENTRES = np.array([0.15, 0.50, 0.85])
VERDICTS = ("weak", "fair", "strong")  # of each of `cot.LEVELS`


@dataclass(frozen=True)
class SetPlan:
    """How one set is photographed and rated."""

    name: str
    manner: str
    levels: tuple[float, float, float]  # how often a quality is bad, fair, good
    skill: float  # 0: qualities are independent; 1: the photographer is either gifted or clumsy
    n_train: int
    n_test: int


PLANS = (
    SetPlan("AVA", "hills", (0.28, 0.44, 0.28), 0.0, 800, 250),
    SetPlan("TAD66K", "hills", (0.38, 0.24, 0.38), 0.45, 800, 250),
    SetPlan("PARA", "coast", (0.28, 0.36, 0.36), 0.2, 0, 250),
    SetPlan("AADB", "city", (0.34, 0.33, 0.33), 0.2, 0, 250),
)


def level(quality: float) -> int:
    """0 bad, 1 fair, 2 good."""
    return int(quality >= 0.35) + int(quality >= 0.65)


def draw_qualities(rng: np.random.Generator, levels: tuple[float, float, float],
                   skill: float = 0.0) -> np.ndarray:
    """(5,) qualities in [0, 1]; `skill` > 0 lets one photographer's qualities go together."""
    bad, fair, good = levels
    shift = skill * rng.choice((-1.0, 1.0))
    p = np.array([bad * (1 - shift), fair, good * (1 + shift)])
    which = rng.choice(3, size=len(WEIGHTS), p=p / p.sum())
    return LEVEL_CENTRES[which] + rng.uniform(-0.1, 0.1, len(WEIGHTS))


def true_score(qualities: np.ndarray) -> float:
    """What people would say on average, in (0, 1): Phi((w·q − .5) / .16), a spread of about .25."""
    return float(norm.cdf((WEIGHTS @ qualities - 0.5) / 0.16))


def ratings(score: float, rng: np.random.Generator) -> np.ndarray:
    """(R,) single ratings in [0, 1]: a shared taste for this picture, then each rater's noise."""
    raters = rng.integers(25, 60)
    return np.clip(score + rng.normal(0, 0.03) + rng.normal(0, 0.12, raters), 0, 1)


def verdict(score: float) -> str:
    """The word for a score's level."""
    return VERDICTS[score_level(score)]


def critique(levels: list[int], score: float, rng: np.random.Generator) -> str:
    """A critique that names all five dimensions and ends in a judgement that fits the score."""
    parts = [f"{rng.choice(WORDS[name][i])} {name}" for name, i in zip(WORDS, levels, strict=True)]
    return f"{', '.join(parts)}: a {verdict(score)} picture."


def read_critique(text: str) -> dict[str, int]:
    """Dimension -> level, for every dimension that `text` names with a word of ours."""
    found = {}
    for name, levels in WORDS.items():
        for i, words in enumerate(levels):
            if re.search(rf"\b({'|'.join(words)}) {name}\b", text):
                found[name] = i
    return found


@dataclass(frozen=True)
class Photo:
    """One picture of a set with what its photographer and its raters know."""

    plan: SetPlan
    split: str
    number: int
    qualities: np.ndarray  # (5,)
    ratings: np.ndarray  # (R,) in [0, 1]
    image: Image.Image

    @property
    def name(self) -> str:
        """The file's name: AVA's are numbers."""
        prefix = "" if self.plan.name == "AVA" else f"{self.split}_"
        return f"{prefix}{self.number}.jpg"


def photos(seed: int) -> Iterator[Photo]:
    """All pictures of all sets, the same for the same seed."""
    for index, plan in enumerate(PLANS):
        rng = np.random.default_rng([seed, index])
        for number in range(plan.n_train + plan.n_test):
            qualities = draw_qualities(rng, plan.levels, plan.skill)
            votes = ratings(true_score(qualities), rng)
            split = "train" if number < plan.n_train else "test"
            yield Photo(plan, split, number + 1, qualities, votes,
                        render(qualities, plan.manner, rng))


def build_world(root: Path, seed: int | None) -> Path:
    """Write the four sets under `root`, or find them there. Returns `root`.

    Built beside and renamed, so that an interrupted build is never taken for a whole one.
    Args:
        seed: None takes the world that is there, whatever its seed (0 if there is none).
    Raises:
        UserError: the world that is there was made from another seed.
    """
    if (root / "seed").is_file():
        made = (root / "seed").read_text()
        if seed is not None and made != str(seed):
            raise UserError(f"{root} was made from seed {made}, not {seed}; choose another --run")
        return root
    seed = seed or 0
    aside = root.with_name(root.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    total = sum(p.n_train + p.n_test for p in PLANS)
    album: dict[str, list[Photo]] = {p.name: [] for p in PLANS}
    attributes = []
    for photo in progress(photos(seed), "taking toy photographs", total):
        path = aside / photo.plan.name / FOLDERS[photo.plan.name] / photo.name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.image.save(path, quality=95, subsampling=0)
        attributes.append({"image": str(path.relative_to(aside)),
                           "qualities": [round(float(q), 4) for q in photo.qualities]})
        album[photo.plan.name].append(photo)
    for name, rows in album.items():
        WRITERS[name](aside / name, rows)
    _write(aside / "attributes.jsonl", map(json.dumps, attributes))
    (aside / "seed").write_text(str(seed))
    os.replace(aside, root)
    return root


def read_attributes(root: Path) -> dict[Path, list[int]]:
    """Picture -> its five levels (0 bad, 1 fair, 2 good); what only the toy teacher may see."""
    rows = map(json.loads, (root / "attributes.jsonl").read_text().splitlines())
    return {(root / r["image"]).resolve(): [level(q) for q in r["qualities"]] for r in rows}


FOLDERS = {"AVA": "images", "TAD66K": "TAD66K", "PARA": "imgs/session1",
           "AADB": "AADB_newtest_originalSize"}


def _write(path: Path, lines: Iterable[object], end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}{end}" for line in lines), newline="")


def _write_ava(root: Path, rows: list[Photo]) -> None:
    votes = [np.bincount(np.rint(1 + 9 * p.ratings).astype(int), minlength=11)[1:] for p in rows]
    _write(root / "AVA.txt", (f"{i} {p.number} {' '.join(map(str, n))} 1 22 1396"
                              for i, (p, n) in enumerate(zip(rows, votes, strict=True), 1)))
    _write(root / "aesthetics_image_lists" / "generic_test.jpgl",
           (p.number for p in rows if p.split == "test"))


def _write_tad66k(root: Path, rows: list[Photo]) -> None:
    for split in ("train", "test"):
        lines = [f"{p.name},{1 + 9 * p.ratings.mean():.4f}" for p in rows if p.split == split]
        _write(root / "labels" / "merge" / f"{split}.csv", ["image,score", *lines], "\r\n")


def _write_para(root: Path, rows: list[Photo]) -> None:
    head = "sessionId,imageName,semantic,aestheticScore_mean,aestheticScore_std"
    lines = [f"session1,{p.name},scene,{1 + 4 * p.ratings.mean():.4f},{4 * p.ratings.std():.4f}"
             for p in rows]
    _write(root / "annotation" / "PARA-GiaaTest.csv", [head, *lines])


def _write_aadb(root: Path, rows: list[Photo]) -> None:
    _write(root / "imgListFiles_label" / "imgListTestNewRegression_score.txt",
           (f"{p.name} {p.ratings.mean():.4f}" for p in rows))


WRITERS = {"AVA": _write_ava, "TAD66K": _write_tad66k, "PARA": _write_para, "AADB": _write_aadb}


def toy_specs(root: Path) -> dict[str, str]:
    """The specs (`datasets.read_dataset`) of the toy world's training and test sets."""
    return {"train": f"ava:{root}/AVA,tad66k:{root}/TAD66K",
            "test_in": f"ava:{root}/AVA,tad66k:{root}/TAD66K",
            "test_ood": f"para:{root}/PARA,aadb:{root}/AADB"}
