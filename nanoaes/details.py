"""What a benchmark says beside PLCC and SRCC: choosing among pictures, themes, n of how many.

Added to a result of `evaluate_sets`, for its file, the page and the terminal. A figure that does
not exist is None in the file and "undefined" in words, with the reason. Left out: any figure of all
sets together.
"""

from collections import Counter

import numpy as np

from nanoaes import choices
from nanoaes.datasets import Example, Sets
from nanoaes.metrics import CORRELATIONS, FIGURES, RESAMPLED, evaluate, percent, short
from nanoaes.prompt import parse_score
from nanoaes.quality import add_quality

FLAT = 1e-6  # a slope below this is the bound 0


def add_details(result: dict, sets: Sets, dropped: Counter[str], seed: int,
                written: tuple[float, float] | None = None) -> None:
    """Per set "expected" (pictures that its list names), "choices", "themes" (those that its
    pictures have: their metrics), "critiques" (`quality.py`) and KRCC's interval.

    Args:
        dropped: pictures of each set that could not be read.
        written: the range of the numbers in the replies, where scores are their expectations: adds
            "written", the metrics of the numbers themselves.
    """
    add_quality(result, seed)
    for name, part in result["sets"].items():
        examples, items = sets[name][1], part["items"]
        pred, truth = [i["pred"] for i in items], [i["truth"] for i in items]
        found = choices.told(choices.measure(pred, truth), seed)
        part["metrics"]["krcc_ci"] = found.pop("krcc_ci")
        part |= {"expected": len(items) + dropped[name], "choices": found,
                 "themes": of_themes(examples, pred, seed)}
        if written:
            numbers = [parse_score(i["text"], written) for i in items]
            part["written"] = evaluate(numbers, truth, seed=seed)


def of_themes(examples: list[Example], pred: list[float | None], seed: int) -> dict[str, dict]:
    """Metrics of each theme's pictures, by name; nothing where all are of one, or none has any."""
    themes = {e.theme for e in examples}
    named = sorted(themes - {""}) if len(themes) > 1 else []
    places = {theme: [i for i, e in enumerate(examples) if e.theme == theme] for theme in named}
    return {theme: evaluate([pred[i] for i in some], [examples[i].score for i in some], seed=seed)
            for theme, some in places.items()}


def lines(name: str, part: dict) -> list[str]:
    """For a terminal: a set's figures with their intervals, its choices, its themes' extremes."""
    m, c = part["metrics"], part["choices"]
    found = [f"{name}: n {m['n']:,} of {part['expected']:,} expected, unreadable {m['parse_fail']},"
             f" cut {m['cut']}, {m['distinct']:,} distinct scores, {percent(m['ties'])} of pairs "
             "tied",
             "  " + ", ".join(f"{key.upper()} {figure(m, key)}" for key in FIGURES),
             "  chosen rightly: " + ", ".join(
                 f"{key.replace('_', ' ')} {figure(c, key)}" for key in choices.NAMES)]
    if w := part.get("written"):
        found.append("  by the numbers written: " + ", ".join(
            f"{key.upper()} {figure(w, key)}" for key in CORRELATIONS) +
            f", {w['distinct']:,} distinct scores, {percent(w['ties'])} of pairs tied")
    found += critiques(part.get("critiques"))
    if any(m[key] is None for key in FIGURES):
        found.append(f"  undefined: {reason(part['items'])}")
    ranked = sorted((t["srcc"], theme) for theme, t in part["themes"].items()
                    if t["srcc"] is not None)
    if ranked:
        ends = " to ".join(f"{theme} {short(srcc)}" for srcc, theme in (ranked[0], ranked[-1]))
        found.append(f"  themes: {len(part['themes'])}, SRCC from {ends}; all in the report")
    return found


def critiques(of: dict | None) -> list[str]:
    """What the critiques are worth, in a line; none where none were written."""
    if not of:
        return []
    right = f", named qualities right {percent(of['right'])}" if "right" in of else ""
    return [f"  critiques: judge as people do {figure(of, 'level')}, as they score themselves "
            f"{figure(of, 'consistent')}, dimensions {of['coverage']:.2f} of 5, praise and "
            f"criticism {percent(of['both'])}, repetition {short(of['repetition'])}, "
            f"words {of['words']:.0f}{right}"]


def figure(of: dict, key: str) -> str:
    """.8123 [.791, .834]"""
    if of[key] is None:
        return "undefined"
    ci = of[f"{key}_ci"]
    between = " [{:.3f}, {:.3f}]".format(*ci).replace("0.", ".") if ci else ""
    return short(of[key]) + between


def reason(items: list[dict]) -> str:
    """Why a set has no correlation."""
    read = [(i["pred"], i["truth"]) for i in items if i["pred"] is not None]
    if len(read) < 2:
        return "fewer than 2 readable answers"
    return "all predictions are alike" if np.ptp([p for p, _ in read]) == 0 else (
        "all truths are alike")


def calibrated(found: dict) -> list[str]:
    """For a terminal: each set before and after the map of --calibrate."""
    out = [f"calibrated on {found['labels']} labels: "
           f"sigmoid({found['slope']:.2f} logit(score) {found['shift']:+.2f})"]
    if found["slope"] < FLAT:
        out.append("  the labels do not rise with the scores: the map makes all scores alike")
    for name, part in found["sets"].items():
        out += [f"  {name}, {when}: n {m['n']:,}, " + ", ".join(
            f"{key.upper()} {figure(m, key)}" for key in RESAMPLED)
            for when, m in part.items()]
    return out
