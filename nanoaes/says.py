"""What a critique says, found by program from its words: dimensions, praise, blame, judgement.

    by_dimension("**Color:** warm.")           {..., "Color": "warm.", "Exposure": ""}
    spoken("Hard flash, a cluttered frame.")   ("Light and Shadow", "Composition")
    sides("No clutter, but flat light.")       (True, True)
    closing("... Overall, a strong picture.")  2

English only. A word counts, its sense does not: irony is taken at its word. A word behind a
negation ("not flat", "never distracts", "lacks depth", "no clutter") counts for the other side.
Left out: what is implied only ("you can hear the sea" speaks of a mood without a word for one).
How often it is right: `bench/says.py`.
"""

import re
from bisect import bisect

from nanoaes.lexicon import BAD, BLAME, FAIR, GOOD, PRAISE, SPEAKS
from nanoaes.prompt import DIMENSIONS

_NAMES = "|".join(name.replace(" and ", r"\s+(?:and|&)\s+") for name in DIMENSIONS)
_HEADING = re.compile(rf"(?:^|(?<=[.!?]))[\s#*_\d.)–-]{{0,20}}\b({_NAMES})\s*[*_]*\s*:\s*[*_]*",
                      re.IGNORECASE | re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])[\"”’)*]*\s+|\n+")
_CLAUSE = re.compile(r"[,.;:!?()—–\n]|\b(?:but|yet|however|although|though|while|which|because)\b"
                     r"|\band (?=(?:the|an?|it|its|his|her|there|this|that|they|we|i)\b)")
_NO = re.compile(
    r"\b(?:not|neither|no|never|without|nor|hardly|barely|scarcely|nothing|none|nobody|cannot"
    r"|\w+n['’]t|lack(?:s|ing)?|free (?:of|from)|avoids?|little|fails? to|far from|anything but"
    r"|less than|rather than|instead of|nowhere|devoid of|short of|too|needs?|in vain for|less"
    r"|limited|few|loses?|robs|minimal|scant|insufficient|missing|absence of)\b")
_NO_NO = re.compile(r"\bnot (?:only|just|merely|simply)\b|\bno (?:doubt|wonder|less|lack of)\b"
                    r"|\bnothing (?:short of|but|less than)\b|\ba (?:little|few)\b|\bwhat a\b"
                    r"|\bso (?:little|few) effort\b|\bfew (?:pictures|images|photo\w+)\b"
                    r"|\ba good deal\b|\bdoes without\b"
                    r"|\b(?:do|does|did)(?: not|n['’]t) (?:harm|hurt|diminish|matter)\b")
_REACH = 5  # a negation reaches so many words ahead, within its clause

_WHOLE = (r"(?:picture|image|photo|photograph|photography|shot|snapshot|snap|capture|work|piece"
          r"|attempt|effort|study|portrait|landscape|abstraction|treatment|scene|view|still life"
          r"|result|outcome|record|example)")
_SUMS_UP = re.compile(
    r"\b(?:overall|all in all|all told|on the whole|as a whole|altogether|in the end|in conclusion"
    r"|to conclude|in sum|in summary|in short|taken together|by any measure|ultimately|verdict"
    r"|judge?ment|conclusion|result|outcome|impression|consequently|as it stands"
    rf"|{_WHOLE}s?)\b|^\W*(?:it|this|this one|that|i|one|an?)\b")
_CONCEDES = re.compile(
    r"\b(?:despite|in spite of|notwithstanding|although|though|even if|apart from|aside from"
    r"|except for|save for)\b[^,;.]*[,;]?|\bnothing really\b"
    r"|[^,;.]{0,80}\b(?:could|might|would) have (?:been|made)\b[^,;.]*[,;]?"
    r"|\b(?:that|which) (?:could|would|might) (?:benefit|profit|gain)\b[^;.]*")
_JUDGED = re.compile(
    r"(?P<how>\b(?:(?:not|never|hardly|no|\w+n['’]t) )?(?:an?|this|the|very|is|but|and|or)\b"
    rf"(?: [\w’'-]+,?){{1,7}}?) {_WHOLE}\b")
_SHORT = 4  # a sentence of no more words may judge without saying what
_BORDER = 0.34  # of the mean of +1, 0 and −1


def by_dimension(critique: str) -> dict[str, str]:
    """What is said of each of DIMENSIONS; "" of one without a heading, that is its name and a colon
    at the start of a line or a sentence, with or without Markdown's signs (`3. Composition: …`).

    What stands before the first heading, and a last paragraph that sums up behind the last one,
    are of no dimension.
    """
    said = dict.fromkeys(DIMENSIONS, "")
    headings = list(_HEADING.finditer(critique))
    starts = [heading.start() for heading in headings] + [len(critique)]
    for heading, end in zip(headings, starts[1:], strict=True):
        words = " ".join(heading[1].lower().replace("&", "and").split())
        name = next((name for name in DIMENSIONS if name.lower() == words), None)
        if name is None:  # to a pattern without case ı is an i
            continue
        said[name] = said[name] or critique[heading.end() : end].strip().split("\n\n")[0].strip()
    return said


def spoken(critique: str) -> tuple[str, ...]:
    """Which of DIMENSIONS it speaks of, in their order."""
    text = critique.lower()
    return tuple(name for name, pattern in SPEAKS.items() if pattern.search(text))


def sides(critique: str) -> tuple[bool, bool]:
    """(praises, criticises)."""
    praise = blame = False
    for clause in _clauses(critique.lower()):
        good, bad = _weigh(clause, PRAISE), _weigh(clause, BLAME)
        praise |= good[0] > 0 or bad[1] > 0
        blame |= bad[0] > 0 or good[1] > 0
        if praise and blame:  # as soon as both are found: a long critique costs no more
            break
    return praise, blame


def closing(critique: str) -> int | None:
    """The level of the judgement in its last sentence: 0 bad, 1 fair, 2 good; None without one."""
    said = [part for part in _SENTENCE.split(critique.lower().strip()) if re.search(r"\w", part)]
    if not said:
        return None
    last = re.sub(r"[*_#]", "", said[-1])
    if spoken(last) and not (_SUMS_UP.search(last) or len(last.split()) <= _SHORT):
        # It is of a part of the picture; but "Soft light, fine colors, wonderful!"
        last = re.split("[,:;–—]", last)[-1]
        if spoken(last) or len(last.split()) > _SHORT:
            return None
    core = _CONCEDES.sub(" ", last)
    of_whole = [(level, core[m.end():]) for m in _JUDGED.finditer(core)
                if (level := _mean(m["how"], wide=True)) is not None]
    mean, rest = of_whole[-1] if of_whole else (_mean(core), "")
    if re.search(r"\b(?:nothing|no) more\b", rest):
        return 1
    return None if mean is None else 1 + (mean > _BORDER) - (mean < -_BORDER)


def runs(text: str, n: int) -> set[tuple[str, ...]]:
    """All runs of n words, without case and marks; of a shorter text the whole."""
    words = re.findall(r"[^\W_]+", text.lower())
    return {tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, bool(words)))}


def _mean(text: str, wide: bool = False) -> float | None:
    """Of a judgement's words: +1 of praise, 0 of a fair word, −1 of blame; None without any.

    Args:
        wide: where words of judgement are missing, others of praise and blame will do.
    """
    values = []
    for clause in _clauses(text):
        (good, not_good), (bad, not_bad) = _weigh(clause, GOOD), _weigh(clause, BAD)
        fair = len(FAIR.findall(clause)) + not_bad  # "not bad" is fair, "not good" is bad
        values += [1] * good + [-1] * (bad + not_good) + [0] * 2 * fair
    if not values and wide:
        praise, blame = (sum(_weigh(clause, words)[0] for clause in _clauses(text))
                         for words in (PRAISE, BLAME))
        values = [1] * praise + [-1] * blame
    return sum(values) / len(values) if values else None


def _clauses(text: str) -> list[str]:
    return [part for part in _CLAUSE.split(_NO_NO.sub(" ", text)) if part.strip()]


def _weigh(clause: str, words: re.Pattern[str]) -> tuple[int, int]:
    """How many of the words a clause has, as they are and denied."""
    found = list(words.finditer(clause))
    if not found:
        return 0, 0
    denials = [m.end() for m in _NO.finditer(clause)]
    denied = 0
    for m in found:
        if before := bisect(denials, m.start()):
            between = clause[denials[before - 1] : m.start()]
            denied += len(between.split(None, _REACH)) < _REACH
    return len(found) - denied, denied
