"""What the model is asked, and how its answer is read.

The contract is `<think>critique</think><answer>0.62</answer>`. A reply that breaks it is a value
(None, False), never an exception and never a guess, because a reward is computed from whatever a
sampled policy wrote. A number in prose is no score ("I cannot rate this 1 picture" is an excuse):
only the words of LABELS may stand beside it. Left out: repair of half-readable answers (a clipped
or guessed score would reward the guess), scientific notation and thousands separators (no rating
is written so), labels in languages other than the prompt's (in these only the bare number is read).
"""

import re
import unicodedata
from dataclasses import dataclass

UNIT = (0.0, 1.0)  # the range of scores that the contract asks for
DIMENSIONS = ("Light and Shadow", "Mood and Narrative", "Composition", "Color", "Exposure")

SCORING_PROMPT = (
    "Look closely at this photograph and judge how beautiful it is.\n"
    "First write a critique that covers five dimensions: "
    "Light and Shadow (contrast of tones, direction, depth); "
    "Mood and Narrative (theme, emotion, story); "
    "Composition (balance, hierarchy, the path of the eye); "
    "Color (harmony, palette, warm against cool); "
    "Exposure (spread of tones, detail in highlights and shadows). "
    "Say what succeeds and what fails, and end with your overall judgement.\n"
    "Then rate the photograph with a number between 0 (worst) and 1 (best), "
    "written with two decimals.\n"
    "Put all of the critique in one <think></think> block and only the number in one "
    "<answer></answer> block that follows it. Write nothing outside these two blocks."
)
# A tiny model pays for each prompt token and knows few words.
TOY_PROMPT = "Judge this photograph."
PROMPTS = {"full": SCORING_PROMPT, "short": TOY_PROMPT}

# An answer longer than this is no rating; the bound also caps the cost of Unicode normalisation,
# which is quadratic in a run of combining marks.
MAX_ANSWER_CHARS = 1000

# All that may stand beside the number: words that name it, and marks that quote, set or end it.
# Every other word makes the answer unreadable, for it may deny the number, hedge it or count
# something else: "not", "about", "between", "pictures". So does every other mark: - and + (a sign,
# a range), < ~ ≈ ? (a bound, a hedge), # (a rank), % and / anywhere but behind the number.
LABELS = frozenset({
    "a", "an", "the", "my", "is", "rate", "rated", "rating", "score", "overall", "final", "answer",
    "aesthetic", "quality", "beauty", "boxed",  # LaTeX's \boxed{0.85}
})
_MARK = r"""[\s.,:;'"`“”‘’«»„()\[\]{}*_=\\$]|!(?!=)"""  # != denies
_ALNUM = r"[^\W_]"


def _beside(words: frozenset[str]) -> str:
    """Pattern: marks and whole words. A character fits in one way only, so no match explodes."""
    return rf"(?:{_MARK}|(?:{'|'.join(sorted(words))})(?!{_ALNUM}))*"


# 0.85 | .85 | 1 | 0,85 | 12,5. Not 1,000: a comma before three digits may part thousands,
# unless what precedes it is a lone 0.
_NUMBER = r"(?:[0-9]+\.[0-9]+|\.[0-9]+|0,[0-9]+|[0-9]+,[0-9]{1,2}|[0-9]+)"
# `of` leads to a number ("a score of 0.85") but behind it counts ("1 of the ..."); stars and
# points are a score only where the answer says of how many.
_ANSWER = re.compile(
    rf"{_beside(LABELS | {'of'})}(?<!{_ALNUM})(?<![.,])(?P<number>{_NUMBER})"
    rf"(?:(?:\s*/\s*|\s+out\s+of\s+)(?P<denominator>{_NUMBER})(?:\s+(?:stars|points))?"
    rf"|(?P<percent>\s*%))?(?!{_ALNUM}){_beside(LABELS)}"
)
# A critique may say "a < b" or "<3"; anything that opens like a tag or special token is refused.
_FORMAT = re.compile(
    r"<think>(?P<critique>(?:[^<]|<(?![A-Za-z/|]))*)</think>\s*<answer>[^<]*</answer>"
)
_TAG = re.compile(r"</?(?:think|answer)>")


def answer_text(critique: str, score: float) -> str:
    """The reply that states `critique` and `score` in [0, 1]: the cold start's target.

    Raises ValueError when the reply would not satisfy `format_ok`: a score outside [0, 1] or NaN,
    an empty critique, a tag inside the critique.
    """
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"a score lies in [0, 1], this one is {score!r}")
    text = f"<think>{critique}</think><answer>{abs(score):.2f}</answer>"  # abs: -0.0 has a sign
    if not format_ok(text):
        raise ValueError(f"a critique is non-empty and free of tags, this one is {critique[:80]!r}")
    return text


@dataclass(frozen=True)
class Stated:
    """The number that a reply states, and where: the reply begins `before` + `number` + `after`.

    (But for the answer block's full-width characters, which are plain here.)
    """

    before: str
    number: str
    after: str  # up to and including </answer>
    unit: float  # what the number is divided by: 1, 100 of `85%`, 5 of `4/5`
    score: float  # in [0, 1]


def check_range(low: float, high: float) -> None:
    """Raises ValueError for a range of scores that cannot be asked for.

    It begins at 0 or above because a sign makes an answer unreadable, and ends at 100 or below
    because `readout.py` weighs every number in it.
    """
    if not 0.0 <= low < high <= 100.0:  # NaN fails it too
        raise ValueError(f"scores from {low:g} to {high:g}; use 0 <= LO < HI <= 100")


def parse_score(text: str, score_range: tuple[float, float] = UNIT) -> float | None:
    """The score in [0, 1] that a reply states, or None when it states none. Never raises.

    Args:
        score_range: lowest and highest number asked for, which become 0 and 1. Of another range
            than the contract's, what is below holds likewise: with (1, 5) `4` and `4/5` are 0.75,
            and what counts by another number than 5 is None; with (0, 100) `4/5` is 80 of 100.

    Read: `0.85`, `.85`, `0,85` = 0.85; `85/100` = 0.85 and `4/5` = 0.8; `85%` = 0.85; the same in
    full-width characters (NFKC); `4 out of 5` = 0.8, `4/5 stars` = 0.8; with LABELS in any case,
    quotes and Markdown's stars around it, `Rating: 0.85.`, `**0.85**` = 0.85.
    None: not exactly one `<answer>` and one `</answer>` tag, in this order; any other word (`about
    0.85`, `0.85 points`, `1 picture`); no number or more than one (`0.8 to 0.9`, `0.8.5`,
    `1,2,3`); a sign beside it (`-0.5`, `- 0.5`, `+0.5`); a bound (`<0.5`, `0.5+`); a letter that
    touches it (`1e-1`, `0x1`); `1,000`; digits of other scripts, superscripts and fraction
    characters (`0.8²` would normalise to 0.82); a value outside [0, 1] (`7`, `1.5`, `5/4`, `101%`);
    a denominator of 0; `nan`, `inf`; more than MAX_ANSWER_CHARS.
    Time is linear in the length of `text`.
    """
    found = stated(text, score_range)
    return None if found is None else found.score


def stated(text: str, score_range: tuple[float, float] = UNIT) -> Stated | None:
    """What `parse_score` reads, and where it stands."""
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    head, tag, rest = text.partition("<answer>")
    block, closing, _ = rest.partition("</answer>")
    if not closing or len(block) > MAX_ANSWER_CHARS:
        return None
    if any(unicodedata.category(char) == "No" for char in block):
        return None
    block = unicodedata.normalize("NFKC", block)
    match = _ANSWER.fullmatch(block.lower())
    if match is None:
        return None
    low, high = score_range
    # float() and not int(): an int of more than 4,300 digits raises, a float overflows to inf.
    most = 100.0 if match["percent"] else _float(match["denominator"] or str(high))
    # A share of the range's top, whatever counts as all of it: but "4 of 10" is no rating from 1
    # to 5.
    if most <= 0.0 or (low > 0.0 and most != high):
        return None
    unit = most / high
    score = (_float(match["number"]) / unit - low) / (high - low)
    if not 0.0 <= score <= 1.0:  # NaN (inf / inf) fails the comparison too
        return None
    start, end = match.span("number")  # what matches has as many characters in lower case
    return Stated(head + tag + block[:start], block[start:end], block[end:] + closing, unit, score)


def _float(number: str) -> float:
    return float(number.replace(",", "."))


def format_ok(text: str) -> bool:
    """Whether a reply is one non-blank think block, white space or none, one readable answer.

    Nothing may stand outside the two blocks, not even a line break, and nothing inside them may
    open like a tag (`<b>`, `</think>`, `<|im_end|>`). True implies that `parse_score` is not None.
    Source: the released code's format reward, which also accepts an empty answer; this does not.
    """
    match = _FORMAT.fullmatch(text)
    return bool(match and match["critique"].strip()) and parse_score(text) is not None


def critique_of(text: str) -> str:
    """What a reply says in its first think block, or in all of it where none is complete.

    `text` is the whole reply: what the prompt has opened (`opened_by`), then what the model wrote.
    The contract's tags are left out, white space at the ends too.
    """
    inside, closing, _ = text.partition("<think>")[2].partition("</think>")
    return _TAG.sub("", inside if closing else text).strip()


def opened_by(prompt: str) -> str:
    """What of the reply a rendered prompt has already opened: "" or `<think>` and white space.

    The chat template of a thinking model may end in `<think>`; the model then writes what follows.
    The reply to read (score, format, critique) is `opened_by(prompt) + what the model wrote`. A
    template that ends in a closed block, `<think>\\n\\n</think>`, opens nothing.
    """
    body = prompt.rstrip()
    return prompt[len(body) - len("<think>"):] if body.endswith("<think>") else ""


def rest_of(answer: str, opened: str) -> str:
    """What a model still has to write of a whole `answer` after a prompt with `opened`.

    The white space behind the tag is the prompt's, so the answer's own is dropped there.
    Raises ValueError when the answer does not begin with the tag that the prompt has opened.
    """
    if not opened:
        return answer
    if not answer.startswith(opened.rstrip()):
        raise ValueError(f"the prompt has opened {opened!r}, the answer begins {answer[:80]!r}")
    return answer[len(opened.rstrip()):].lstrip()
