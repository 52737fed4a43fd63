"""Two evaluations of the same pictures: which is better by how much, and where they part.

Differences are B - A on the pictures that both have, with 95 % bootstrap intervals that draw the
same pictures for both: what makes a picture hard for both then cancels, so that such an interval
is narrower than those of A and B suggest, and is the one to read. Correlations and errors are of
the pictures that both have a readable score for; the choices count unreadable ones as wrong.
Left out: a test's p-value (an interval without 0 says as much), corrections for many figures.
"""

from pathlib import Path

import numpy as np

from nanoaes import choices
from nanoaes.errors import UserError
from nanoaes.metrics import RESAMPLED, between, figures, resamples, short
from nanoaes.predictions import Item, read_items

MOVED = 10  # pictures that are told of each set
BETTER_IF_LESS = ("rmse", "mae")
SAME = 1e-9  # truths this close are the same
Items = dict[str, dict[str, Item]]  # set -> picture's full path -> item


def compared(a: Path, b: Path, seed: int = 0) -> dict:
    """Two files of predictions, as `eval.py bench` writes them.

    Returns:
        {"a", "b": {"file", "about"}, "sets": {name: as `of_set` returns}}.
    Raises:
        UserError: no such file; they have no set or no picture in common; a picture's truths
            differ; a line that is none.
    """
    (about_a, of_a), (about_b, of_b) = opened(a), opened(b)
    both = [name for name in of_a if name in of_b]
    if not any(of_a[name].keys() & of_b[name].keys() for name in both):
        raise UserError(f"{a} and {b} share no pictures: the first has {shown(of_a)}, the second "
                        f"{shown(of_b)}; compare evaluations of the same test sets")
    return {"a": {"file": str(a), "about": about_a}, "b": {"file": str(b), "about": about_b},
            "sets": {name: of_set(f"{a} and {b}, {name}", of_a[name], of_b[name], seed)
                     for name in both if of_a[name].keys() & of_b[name].keys()}}


def opened(path: Path) -> tuple[dict | None, Items]:
    """What a file says of itself, and its items; the pictures that --calibrate had are no set."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; eval.py bench writes a predictions.jsonl")
    about, items = read_items(path)
    return about, {name: {str(Path(image).parent.resolve() / Path(image).name): item
                          for image, item in part.items()}
                   for name, part in items.items() if not name.startswith("--")}


def shown(items: Items) -> str:
    """Sets with an example of each: AVA (data/AVA/images/1.jpg)."""
    return ", ".join(f"{name} ({next(iter(part))})" for name, part in items.items()) or "none"


def of_set(where: str, a: dict[str, Item], b: dict[str, Item], seed: int) -> dict:
    """Of one set, by picture.

    Args:
        where: for errors.
    Returns:
        {"n" in both, "only_a", "only_b", "unreadable_a", "unreadable_b", "figures": {name: {"a",
        "b", "difference", "ci"}}, "moved": the MOVED pictures with the largest |b - a|}.
    """
    shared = [image for image in a if image in b]
    for image in shared:
        if abs(a[image]["truth"] - b[image]["truth"]) > SAME:
            raise UserError(f"{where}: {image} is worth {a[image]['truth']:g} in the first and "
                            f"{b[image]['truth']:g} in the second; evaluate both on one list")
    truth = np.array([a[image]["truth"] for image in shared])
    pred = [[of[image]["pred"] for image in shared] for of in (a, b)]
    read = np.array([None not in pair for pair in zip(*pred, strict=True)])
    return {"n": len(shared), "only_a": len(a) - len(shared), "only_b": len(b) - len(shared),
            "unreadable_a": pred[0].count(None), "unreadable_b": pred[1].count(None),
            "figures": agreements(pred, truth, read, seed) | chosen(pred, truth, read, seed),
            "moved": moved(shared, pred, truth)}


def agreements(pred: list[list[float | None]], truth: np.ndarray, read: np.ndarray, seed: int
               ) -> dict[str, dict]:
    """Correlations and errors where both are readable."""
    y = truth[read]
    x = [np.array(p, dtype=float)[read] for p in pred]
    a, b = (figures(one, y) for one in x)
    if len(y) < 3:
        return {key: difference(a[key], b[key], None) for key in RESAMPLED}
    drawn_a, drawn_b = (resamples(one, y, seed) for one in x)
    return {key: difference(a[key], b[key], percentiles(drawn_b[key] - drawn_a[key], len(y)))
            for key in RESAMPLED}


def percentiles(values: np.ndarray, n: int) -> list[float] | None:
    """Of differences (RESAMPLES,) of n resampled pictures; one without spread has no correlation
    (NaN)."""
    return between(values, n).tolist() if np.isfinite(values).any() else None


def chosen(pred: list[list[float | None]], truth: np.ndarray, read: np.ndarray, seed: int
           ) -> dict[str, dict]:
    """KRCC where both are readable, pairs and sets: their influences' difference is resampled
    (choices.py)."""
    found = [choices.measure(p, truth) for p in pred]
    if not read.all():
        both = [np.where(read, np.array(p, dtype=float), np.nan) for p in pred]
        found = [of | {"krcc": choices.pairs(x, truth)["krcc"]}
                 for of, x in zip(found, both, strict=True)]
    a, b = found
    out = {}
    for name in ("krcc", *choices.NAMES):
        one, two, ci = a[name], b[name], None
        if one.value is not None and two.value is not None:
            drawn = choices.resampled((two.influence - one.influence)[None], seed)[:, 0]
            ends = choices.ends(drawn, one.size, len(truth))
            ci = (two.value - one.value + ends).tolist()
        out[name] = difference(one.value, two.value, ci)
    return out


def difference(a: float | None, b: float | None, ci: list[float] | None) -> dict:
    """One figure of both; without a difference where one is undefined."""
    if a is None or b is None:
        return {"a": a, "b": b, "difference": None, "ci": None}
    return {"a": a, "b": b, "difference": b - a, "ci": ci}


def moved(images: list[str], pred: list[list[float | None]], truth: np.ndarray) -> list[dict]:
    """The pictures whose scores differ most, the largest change first; those alike are none."""
    rows = [{"image": image, "truth": float(t), "a": x, "b": y}
            for image, x, y, t in zip(images, *pred, truth, strict=True)
            if x is not None and y is not None and x != y]
    return sorted(rows, key=lambda row: -abs(row["b"] - row["a"]))[:MOVED]


def lines(result: dict) -> list[str]:
    """For a terminal."""
    out = [f"A {result['a']['file']}", f"B {result['b']['file']}"]
    read = [(result[one]["about"] or {}).get("readout") for one in "ab"]
    if read[0] != read[1]:
        out.append("read differently (A {}, B {}): a part of the difference is the readout's, not "
                   "the model's".format(*(how or "unknown" for how in read)))
    for name, part in result["sets"].items():
        out += ["", f"{name}: {part['n']:,} pictures in both, {part['only_a']:,} only in A, "
                    f"{part['only_b']:,} only in B; unreadable {part['unreadable_a']:,} and "
                    f"{part['unreadable_b']:,}",
                f"  {'':11}{'A':>7}{'B':>7}{'B - A':>9}  95 %"]
        out += [row(key, found) for key, found in part["figures"].items()]
        out += ["  moved most, A to B (people):"] * bool(part["moved"])
        out += [f"    {one['a']:.2f} to {one['b']:.2f} ({one['truth']:.2f})  {one['image']}"
                for one in part["moved"]]
    return out


def row(key: str, found: dict) -> str:
    """A figure of both, its difference, and who is better where the interval leaves no doubt."""
    head = f"  {key.replace('_', ' '):11}{short(found['a']):>7}{short(found['b']):>7}"
    if found["difference"] is None:
        return head + "  undefined"
    text = f"{head}{found['difference']:>+9.4f}"
    if found["ci"] is None:
        return text
    lo, hi = found["ci"]
    verdict = "" if lo <= 0 <= hi else "B" if (lo > 0) != (key in BETTER_IF_LESS) else "A"
    return f"{text}  [{lo:+.4f}, {hi:+.4f}]" + (f"  {verdict} is better" if verdict else "")
