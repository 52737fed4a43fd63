"""The data card of a list of critiques: what was asked, what each filter found, what it cost.

Counted from the rows of build_cot.py, also from those of earlier versions, which have fewer fields.
Left out: how good the kept critiques are (their words have to be read for that), prices.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any
from zlib import crc32

from nanoaes.cot import ALWAYS, LEVELS, score_level
from nanoaes.leak import leak_in
from nanoaes.unfit import unfit

Row = dict[str, Any]
FILTERS = {  # flag -> its name, and what is wrong with a row that has it
    "leak": ("score leaked",
             "words that give the score away, which the teacher was to keep to itself"),
    "mismatch": ("judgement off",
                 "a judge that sees the words alone reads another level than the score's"),
    "invented": ("invented",
                 "a judge that sees the picture misses in it what the words say is there"),
    "unfit": ("no critique", "nothing, a refusal, or a text with tags"),
    "thin": ("dimension missing", "no word on one of the five dimensions"),
    "onesided": ("one-sided", "nothing but praise, or nothing but criticism"),
    "length": ("length", "too short to explain anything, or too long to learn"),
    "language": ("language", "not in the language that was asked for"),
    "repeat": ("repeated", "nearly the words of another picture's critique"),
    "unjudged": ("not judged", "the judge gave no answer; a later run asks again"),
}
NO_LEVEL = "no level"  # what the judge has read in words that tell none
EXAMPLES, FIRST = 3, 200  # of each filter; characters of a critique
# More than this share of at least so many: a judge that always says the same does not judge, and
# a filter that rejects nearly all does not fit what is written.
MOST, ENOUGH = 0.9, 50


def card(rows: Sequence[Row], asked: dict[str, Any]) -> dict[str, Any]:
    """All figures, ready for JSON; a share of nothing is None.

    Args:
        rows: those that count (`critiques.current`).
        asked: "teacher" and "judge", named as in the rows: the fingerprint of what they are asked
            stands behind a #. "options", among them "target", the number of critiques to keep;
            "short", why there are fewer. What is not there is None.
    """
    kept, options = sum(row["kept"] for row in rows), asked.get("options") or {}
    flags = flags_of(rows)
    sets = _tally(rows, _dataset)
    found = {
        "critiques": len(rows), "kept": kept, "keep_rate": _share(kept, len(rows)),
        "target": options.get("target") or None, "short": asked.get("short") or None,
        "filters": {flag: _filter(rows, flag, flags) for flag in flags},
        "refusals": sum(flagged(row, "unfit") and reason(row, "unfit") == "a refusal"
                        for row in rows),
        "unjudged": sum(flagged(row, "unjudged") for row in rows),
        "levels": _tally(rows, _level, LEVELS), "datasets": sets,
        "levels_of_datasets": {
            name: _tally([row for row in rows if _dataset(row) == name], _level, LEVELS)
            for name in sets},
        "judge_reads": _reads(rows), "tokens": _tokens(rows, kept),
        "teacher": _who(asked.get("teacher")), "judge": _who(asked.get("judge")),
        "teachers": _tally(rows, lambda row: str(row.get("teacher", "toy"))),
        "judges": _tally(rows, lambda row: str(row.get("judge", "toy"))),
        "options": options,
    }
    return {**found, "warnings": _same(found["judge_reads"]) + _misfits(found)}


def lines(about: dict[str, Any]) -> list[str]:
    """The card in a few lines, for the terminal."""
    target = f", {about['target']:,} wanted" if about["target"] else ""
    rate = "" if about["keep_rate"] is None else f" ({100 * about['keep_rate']:.1f} %)"
    found = ", ".join(f"{called(flag)} {part['count']:,}"
                      for flag, part in about["filters"].items())
    told = [f"AesCoT: kept {about['kept']:,} of {about['critiques']:,} critiques{rate}{target}",
            f"  rejected, some for several reasons: {found}"]
    told += [f"  refused by the teacher: {about['refusals']:,}"] * bool(about["refusals"])
    told.append(f"  kept of each level: {_listed(about['levels'])}")
    if len(about["datasets"]) > 1:
        told.append(f"  kept of each dataset: {_listed(about['datasets'])}")
    if spent := about["tokens"]:
        each = f", {spent['per_kept']:,.0f} for each one kept" if about["kept"] else ""
        told.append(f"  tokens: {spent['asked']:,} asked and {spent['answered']:,} answered in "
                    f"{spent['requests']:,} requests{each}")
    told += [f"  {about['short']}"] * bool(about["short"])
    return told + [f"  warning: {warning}" for warning in about["warnings"]]


def called(flag: str) -> str:
    """A filter's name in words."""
    return FILTERS.get(flag, (flag, ""))[0]


def meaning(flag: str) -> str:
    """What a filter finds."""
    return FILTERS.get(flag, ("", "another error"))[1]


def flags_of(rows: Sequence[Row]) -> list[str]:
    """The filters that rows have been through, and whatever else a reason is given for."""
    known = [flag for flag in FILTERS if flag in ALWAYS or any(flag in row for row in rows)]
    return known + sorted({flag for row in rows for flag in row.get("why", {})} - {*known})


def flagged(row: Row, flag: str) -> bool:
    """Has this filter found something?"""
    return bool(row.get(flag) or flag in row.get("why", {}))


def reason(row: Row, flag: str) -> str:
    """Why a filter has rejected a row; of an earlier version's, what a program can still tell."""
    if flag in row.get("why", {}):
        return row["why"][flag]
    return {"leak": leak_in, "unfit": unfit}.get(flag, lambda _: "")(row["critique"])


def some(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows, the levels in turn, by score; the lot falls by their names and words.

    So the same rows are shown whatever order they were written in.
    """
    drawn = sorted(rows, key=lambda row: crc32(
        f"{Path(row['image']).name} {row['critique']}".encode(errors="replace")))
    levels = [[row for row in drawn if _level(row) == level] for level in LEVELS]
    mixed = [row for turn in zip_longest(*levels) for row in turn if row is not None]
    return sorted(mixed[:count], key=lambda row: row["score"])


def _filter(rows: Sequence[Row], flag: str, flags: list[str]) -> dict[str, Any]:
    """What one filter has found; alone: what no other filter has."""
    found = [row for row in rows if flagged(row, flag)]
    return {"count": len(found), "share": _share(len(found), len(rows)),
            "alone": sum(sum(flagged(row, other) for other in flags) == 1 for row in found),
            "examples": [{"image": Path(row["image"]).name, "reason": reason(row, flag),
                          "critique": row["critique"][:FIRST]} for row in some(found, EXAMPLES)]}


def _tally(rows: Sequence[Row], key: Callable[[Row], str], names: Sequence[str] = ()
           ) -> dict[str, dict[str, int]]:
    """How many were asked for and kept, by `key`; those of `names` in any case."""
    found = {name: {"asked": 0, "kept": 0} for name in names or sorted({*map(key, rows)})}
    for row in rows:
        found[key(row)]["asked"] += 1
        found[key(row)]["kept"] += row["kept"]
    return found


def _reads(rows: Sequence[Row]) -> dict[str, dict[str, int]] | None:
    """Level of the score -> how often the judge has read each level in the words.

    None for rows without a note of it. What the judge was not asked or did not answer is left out.
    """
    told = [row for row in rows if row.get("judged") is not None or (
        "judged" in row and not flagged(row, "unfit") and not flagged(row, "unjudged"))]
    found = {level: dict.fromkeys((*LEVELS, NO_LEVEL), 0) for level in LEVELS}
    for row in told:
        found[_level(row)][NO_LEVEL if row["judged"] is None else LEVELS[row["judged"]]] += 1
    return found if told else None


def _same(reads: dict[str, dict[str, int]] | None) -> list[str]:
    """A judge that says nearly always the same; the scores tell whether it may be right."""
    reads = reads or {}
    answers = sum((Counter(row) for row in reads.values()), Counter())
    total = answers.total()
    return [f"the judge reads {read} in {100 * n / total:.0f} % of {total:,} critiques, the "
            f"scores say so of {100 * sum(reads.get(read, {}).values()) / total:.0f} %: see "
            "whether it judges at all, and take another --judge if not"
            for read, n in answers.items() if total >= ENOUGH and n > MOST * total]


def _misfits(found: dict[str, Any]) -> list[str]:
    """Filters that reject nearly all."""
    return [f"{called(flag)}: rejects {100 * part['share']:.0f} % of {found['critiques']:,} "
            "critiques; see the page for what it finds, and whether it fits this teacher"
            for flag, part in found["filters"].items()
            if found["critiques"] >= ENOUGH and part["share"] > MOST]


def _tokens(rows: Sequence[Row], kept: int) -> dict[str, Any] | None:
    """What teacher and judge have read and written together; None where nobody has counted."""
    told = [row["tokens"] for row in rows if row.get("tokens")]
    spent = {name: sum(one.get(name, 0) for one in told)
             for name in ("asked", "answered", "requests")}
    return {**spent, "per_kept": _share(spent["asked"] + spent["answered"], kept)} if told else None


def _who(name: str | None) -> dict[str, str | None] | None:
    """model#0a1b2c3d -> the model, and the fingerprint of what it is asked."""
    found = re.fullmatch(r"(.*?)(?:#([0-9a-f]{8}))?", name or "", re.DOTALL)
    return {"model": found[1], "prompt": found[2]} if name else None


def _listed(tally: dict[str, dict[str, int]]) -> str:
    return ", ".join(f"{name} {n['kept']:,} of {n['asked']:,}" for name, n in tally.items())


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _level(row: Row) -> str:
    return LEVELS[score_level(row["score"])]


def _dataset(row: Row) -> str:
    return str(row.get("dataset", ""))
