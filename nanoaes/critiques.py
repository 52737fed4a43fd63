"""A list of critiques, whoever made it -> what the cold start learns: picture and whole answer.

A JSON list, or an object a line, with rows of any of

    {"image": path, "score": x, "critique": text, "kept": true, "teacher": …}    build_cot.py's own
    {"image": path, "score": x, "critique": text}
    {"messages": [{"role": "user", "content": "<image>…"}, {"role": "assistant", "content":
     "<think>critique</think><answer>x</answer>"}], "images": [path]}            LLaMA-Factory's

or LLaMA-Factory's older `conversations` of {"from", "value"}. The question is the project's own,
whatever the list asks. The answer is written anew, its score on [0, 1] with two decimals; where a
row has a score beside its reply, that one counts, and both must agree.
Left out: filters of what a critique says (`cot.py`, which needs a judge); how many give their score
away is said.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from nanoaes.datasets import normalise
from nanoaes.images import DataError
from nanoaes.leak import leak_in
from nanoaes.progress import progress, say
from nanoaes.prompt import UNIT, answer_text, critique_of, parse_score
from nanoaes.records import IMAGE, objects
from nanoaes.specs import Scale, rises, scaled
from nanoaes.tables import NUMBER, number, short, text_of
from nanoaes.unfit import unfit

OWN = {"kept", "leak"}  # only build_cot.py's rows have both
LISTED = 5  # rows that are named when they are not learned from
AGREE = 0.01  # of [0, 1]: a reply's answer and the label beside it, which may be rounded
_REPLY = re.compile(r"\s*<think>(.*)</think>\s*<answer>([^<]*)</answer>\s*", re.DOTALL)
_TURNS = {"messages": ("role", "content", "assistant"), "conversations": ("from", "value", "gpt")}


class Critique(NamedTuple):
    """One lesson of the cold start."""

    image: Path
    score: float  # on [0, 1]
    answer: str  # <think>critique</think><answer>0.62</answer>


class _Skip(Exception):
    """A row that is well written and is not learned from: why."""


def split_scale(text: str) -> tuple[Path, Scale]:
    """`critiques.jsonl@1-5` -> path, lowest and highest score; 0 and 1 where none is said.

    DataError: a scale that is none.
    """
    path, scale = scaled(text)
    if not scale or Path(text).exists():
        return Path(text).expanduser(), UNIT
    if not rises(scale):
        raise DataError(f"{text}: no scale from lowest to highest score; correct the part after @")
    return Path(path.strip()).expanduser(), scale


def read_critiques(file: Path, scale: Scale = UNIT) -> list[Critique]:
    """All that can be learned from; how many rows cannot, and the first of them, is said.

    Rows that build_cot.py has rejected (`"kept": false`) do not count. Picture paths are relative
    to the file.

    Raises:
        DataError: no JSON of this shape; a row without picture, critique or score, or with a score
            outside `scale`; no row left.
    """
    text, found, skipped, foreign = text_of(file), [], [], []
    lines = not text.lstrip().startswith("[")
    unit = "line" if lines else "row"
    for place, row in current(file, objects(file, _whole(file, text) if lines else text, lines)):
        try:
            if _kept(row):
                found.append(_critique(row, file, scale))
                if row.keys() >= OWN and scale != UNIT:
                    raise ValueError("build_cot.py's own row, whose score is on 0-1; leave out @…")
                if not row.keys() >= OWN:
                    foreign.append((place, critique_of(found[-1].answer)))
        except _Skip as why:
            skipped.append((place, str(why)))
        except ValueError as error:
            raise DataError(f"{file}, {unit} {place}: {error}; correct or delete it") from None
    seen = len(found) + len(skipped)
    if not seen:
        raise DataError(f"{file}: no kept critique; let build_cot.py write more, with --per_level "
                        "or --target")
    if not found:
        raise DataError(f"{file}: none of {seen} critiques can be learned from; the first, {unit} "
                        f"{skipped[0][0]}: {skipped[0][1]}; correct the list")
    _tell(file, unit, seen, skipped)
    _tell_leaks(file, unit, foreign)
    return found


def picture_of(file: Path, name: str) -> Path:
    """Whole path of a picture that a list of critiques names, relative to the list.

    build_cot.py once wrote paths from where it ran: they count where the list's own are not there.
    """
    path = file.parent / name
    return Path(name if os.path.exists(name) and not path.exists() else path).resolve()


def item(file: Path, row: dict[str, Any]) -> tuple[Path, str, str]:
    """What a row of build_cot.py's is about: picture, score, teacher (once there was the toy's)."""
    picture = picture_of(file, str(row.get("image")))
    return picture, str(row.get("score")), str(row.get("teacher", "toy"))


def current(file: Path, rows: Iterable[tuple[int, dict[str, Any]]]
            ) -> list[tuple[int, dict[str, Any]]]:
    """Without those rows of build_cot.py's that a later one replaces: the same item, written twice,
    or a picture with an earlier label. Of other lists, all: a picture may have several critiques.
    """
    found: dict[Any, tuple[int, dict[str, Any]]] = {}
    labels: dict[Path, str] = {}
    for place, row in rows:
        if row.keys() >= OWN:
            picture, label, teacher = item(file, row)
            labels[picture] = label
            found[picture, label, teacher] = place, row
        else:
            found[place] = place, row
    return [kept for key, kept in found.items()
            if isinstance(key, int) or labels[key[0]] == key[1]]


def _tell(file: Path, unit: str, seen: int, skipped: list[tuple[int, str]]) -> None:
    if skipped:
        kinds = Counter(why.partition(":")[0] for _, why in skipped)
        say(f"{file}: {len(skipped)} of {seen} critiques are not learned from: "
            + ", ".join(f"{kind} {n}" for kind, n in kinds.most_common()))
    for place, why in skipped[:LISTED]:
        say(f"  skipped {unit} {place}: {why}")


def _tell_leaks(file: Path, unit: str, critiques: list[tuple[int, str]]) -> None:
    """Of critiques that build_cot.py has not filtered. They are learned from all the same: whose
    list it is may want them, and a few are false alarms."""
    shown = progress(critiques, f"looking for scores in {file.name}", keep=False)
    leaking = [(place, words) for place, text in shown if (words := leak_in(text))]
    if leaking:
        place, words = leaking[0]
        say(f"{file}: {len(leaking)} of {len(critiques)} critiques seem to give their score away, "
            f"the first {unit} {place}: {short(repr(words), 40)}; a model that learns from them "
            "writes scores without reasons: look through them")


def _whole(file: Path, text: str) -> str:
    """Lines without a last one that a crash has cut off: it has no line break and is no JSON."""
    before, _, last = text.rpartition("\n")
    try:
        json.loads(last or "{}")
    except ValueError:
        if before:
            say(f"{file}: the last line is cut off and does not count")
            return before
    return text


def _kept(row: dict[str, Any]) -> bool:
    kept = row.get("kept", True)
    if not isinstance(kept, bool):
        raise ValueError(f"kept is {short(repr(kept), 40)}, neither true nor false")
    return kept


def _critique(row: dict[str, Any], file: Path, scale: Scale) -> Critique:
    image, label = _image(row), _score(row, scale)
    if turns := next((name for name in _TURNS if row.get(name) is not None), ""):
        critique, score = _replied(_reply(row, turns), label, scale)
    else:
        critique, score = _text(row.get("critique")), label
        if score is None:
            raise ValueError("there is no score")
    if why := unfit(critique):
        raise _Skip(f"{why}: {short(critique, 40)!r}" if critique.strip() else why)
    return Critique(picture_of(file, image), score, answer_text(critique.strip(), score))


def _image(row: dict[str, Any]) -> str:
    value = next((row[name] for name in IMAGE if row.get(name) is not None), "")
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"{len(value)} pictures where one is judged")
        value = value[0]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"there is no picture's path ({', '.join(IMAGE)})")
    return value.strip()


def _score(row: dict[str, Any], scale: Scale) -> float | None:
    """What is stated beside a critique, on [0, 1]."""
    value = next((row[name] for name in ("gt_score", "score") if row.get(name) is not None), None)
    return None if value is None else _on(number(str(value).strip()), scale)


def _on(value: float, scale: Scale) -> float:
    try:
        return normalise(value, scale)
    except ValueError as error:
        raise ValueError(f"{error}: name the scores' scale, --cot FILE@1-5") from None


def _text(value: object) -> str:
    """A critique, or a turn's content: text, or parts of which some are."""
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return "\n".join(str(part["text"]) for part in value if part.get("text"))
    if not isinstance(value, str):
        raise ValueError("there is neither a critique nor messages" if value is None else
                         f"the critique is {short(repr(value), 40)} and no text")
    return value


def _reply(row: dict[str, Any], name: str) -> str:
    """The model's turn of a dialogue."""
    role, content, speaker = _TURNS[name]
    try:
        said = [turn[content] for turn in row[name] if turn[role] in (speaker, "assistant")]
    except (TypeError, KeyError):
        raise ValueError(f"{name} are no [{{{role}, {content}}}, …]") from None
    if len(said) != 1:
        raise ValueError(f"{len(said)} replies in {name} where one is learned")
    return _text(said[0])


def _replied(reply: str, label: float | None, scale: Scale) -> tuple[str, float]:
    """A whole reply's critique and score; or a bare critique with the score that stands beside."""
    found = _REPLY.fullmatch(reply)
    if not found:
        if label is not None and "<" not in reply:
            return reply, label
        why = unfit(reply)
        raise _Skip((why if why in ("empty", "a refusal") else
                     "no <think>…</think><answer>…</answer>") + f": {short(reply, 40)!r}")
    answered = _answered(found[2].strip(), scale)
    if label is not None and abs(answered - label) > AGREE:
        raise _Skip(f"its answer is not its score: {answered:.2f}, {label:.2f}")
    return found[1], answered if label is None else label


def _answered(answer: str, scale: Scale) -> float:
    if re.fullmatch(NUMBER, answer):
        return _on(number(answer), scale)
    score = parse_score(f"<answer>{answer}</answer>", scale)
    if score is None:
        raise _Skip(f"an answer that is no score: {short(answer, 40)!r}")
    return score
