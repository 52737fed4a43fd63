"""What may stand beside an answer's number: labels, marks and a scale; all else is prose, no score.

A table of stated meanings, then properties: any other word, any labels, any order of tokens.
"""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_prompt import fast

from nanoaes import prompt
from nanoaes.prompt import LABELS, format_ok, parse_score

BESIDE = {
    "My rating: 0.85": 0.85, "the final score is 0.85": 0.85, "RATING 0.85": 0.85,
    "a beauty rating of 0.85": 0.85, "Rated a 0.85.": 0.85, "0.85 overall": 0.85,
    "0.85 is my final answer!": 0.85, "Overall aesthetic quality (final): 0.85": 0.85,
    "Rating:\n\n0.85\n": 0.85, "Ｒａｔｉｎｇ：０．８５": 0.85, "**Rating:** 0.85": 0.85,
    "Rating: **0.85**": 0.85, "***0.85***": 0.85, "__0.85__": 0.85, "`0.85`": 0.85,
    '{"score": 0.85}': 0.85, "$\\boxed{0.85}$": 0.85, "“0.85”": 0.85, "«0,85»": 0.85,
    "[0.85]": 0.85, "rating = .85": 0.85, "Rating: 85%": 0.85, "85% overall": 0.85,
    "an 85/100": 0.85, "4 out of 5": 0.8, "7 out of 10": 0.7, "a 4 Out Of 5.": 0.8,
    "4\nout  of\n5": 0.8, "8,5 out of 10": 0.85, "Score: 85 out of 100 points!": 0.85,
    "4/5 stars": 0.8, "4 / 5 Stars": 0.8, "0 out of 5": 0.0, "Rating: 1": 1.0,
    "the answer is 0.": 0.0, "rating rating 0.85": 0.85,
    # an excuse, a count, a list, another quantity
    "I cannot rate this 1 picture": None, "1 picture": None, "not 0.85": None, "1 answer?": None,
    "1. Composition": None, "Rating 1st": None, "Score #1": None, "1 person": None,
    "1 of the": None, "no rating, 0 information": None, "f/1 lens": None, "x = 0.85": None,
    "0.85 seconds": None, "I give it 0.85, all told": None, "well-lit: 0.85": None,
    # a hedge, a bound, a range, a change of mind
    "about 0.85": None, "approximately 0.85": None, "0.85ish": None, "0.85-ish": None,
    "~0.85": None, "≈0.85": None, "0.85?": None, "maybe 0.85": None, "0.85 or so": None,
    "at least 0.85": None, "< 0.85": None, "0.85+": None, "0.85 -": None, "0.8–0.9": None,
    "between 0 and 1": None, "0.85 ± a": None, "~~0.85~~": None, "Rating != 1": None, "≠ 1": None,
    "not (0.85)": None,
    # a sign in words, a number in words, a unit without a scale, another scale
    "minus 0.5": None, "zero point 5": None, "0.5 million": None, "1 percent": None, "% 1": None,
    "Rating (%): 1": None, "1 star": None, "1 points": None, "0.85 stars": None, "1‱": None,
    "4 out of": None, "out of 5": None, "4 out of five": None, "4 out-of 5": None, "4 of 5": None,
    "4out of5": None, "4 out of -5": None, "5 out of 4": None, "1 out of 0": None, "4/5 cups": None,
    "3 out of 4 out of 5": None, "4/5stars": None, "4/5 out of 1": None, "85% out of 1": None,
    "Rating of 10: 1": None, "$1 price": None, "1€": None, "1°": None, "👍 1": None,
    "1\u0336": None,
    # a label that touches, hides in a longer word, or is another language's
    "rating0.85": None, "0.85rating": None, "a.85": None, "85%a": None, "ratings 0.85": None,
    "unrated 0.85": None, "theatrical 1": None, "over-all 0.85": None, "rating\u0301: 0.85": None,
    "评分：0.85": None, "Note : 0,85": None, "оценка 0,85": None, "ratıng 0.85": None,
}


@pytest.mark.parametrize("block, score", BESIDE.items())
def test_only_labels_and_scales_stand_beside_the_number(block: str, score: float | None) -> None:
    text = f"<think>Calm light.</think>\n<answer>{block}</answer>"
    assert parse_score(text) == score
    assert format_ok(text) == (score is not None)


@pytest.mark.parametrize("unit", [
    " ", "1", ".", "1.", "1,", "a ", "a", "the", "out of ", "of ", "1 out of ", "1/", "1 /", "!",
    "! ", "1 ", "%", "_", "stars ", "rating of ", ". ", "\ufdfa"])
@pytest.mark.parametrize("frame", ["{}", "{}0.5", "0.5{}", "4/5{}", "{}4 out of 5 stars{}", "{}."])
def test_reading_is_linear_without_the_bound_on_length(
        unit: str, frame: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "MAX_ANSWER_CHARS", 1_000_000)
    text = f"<answer>{frame.replace('{}', unit * (100_000 // len(unit)))}</answer>"
    start = time.process_time()
    parse_score(text)
    assert time.process_time() - start < 3.0  # quadratic would take minutes


NUMBERS = {"0.85": 0.85, ".85": 0.85, "1": 1.0, "85%": 0.85, "4/5": 0.8, "4 out of 5": 0.8}
LETTERS = st.text(st.characters(categories=["L"]), min_size=1, max_size=12)


@fast(1000)
@given(LETTERS | st.from_regex("[a-z]{1,8}", fullmatch=True), st.sampled_from(sorted(NUMBERS)))
def test_any_word_but_a_label_makes_the_number_unreadable(word: str, number: str) -> None:
    if unicodedata.normalize("NFKC", word).lower() not in LABELS | {"of", "stars", "points"}:
        for block in (f"{word} {number}", f"{number} {word}", f"{word}: **{number}** overall",
                      f"my rating, {number} ({word})", f"{word}{number}", f"{number}{word}"):
            assert parse_score(f"<answer>{block}</answer>") is None, block


WORDS = st.sampled_from(sorted(LABELS)).flatmap(
    lambda word: st.sampled_from([word, word.upper(), word.title(), f"**{word}**", f"({word})"]))


@fast(500)
@given(st.lists(WORDS), st.sampled_from(sorted(NUMBERS)), st.lists(WORDS),
       st.sampled_from([" ", "\n", ": ", ", ", ". ", " = "]))
def test_labels_change_no_value(before: list[str], number: str, after: list[str], space: str
                                ) -> None:
    block = space.join([*before, number, *after])
    assert parse_score(f"<answer>{block}</answer>") == NUMBERS[number]


@fast(1000)
@given(st.lists(st.sampled_from(
    ["rating", "the", "of", "out", "about", "0.5", "1", ".", "(", "**", "!", "-", "?", "<", "\n"])))
def test_reading_agrees_with_counting_tokens(tokens: list[str]) -> None:
    """An independent reading of spaced tokens: one number, labels and marks, `of` before it."""
    number = next((i for i, token in enumerate(tokens) if token in ("0.5", "1")), len(tokens))
    before, found, after = tokens[:number], tokens[number : number + 1], tokens[number + 1 :]
    fine = {"rating", "the", ".", "(", "**", "!", "\n"}
    readable = found and set(before) <= fine | {"of"} and set(after) <= fine
    score = parse_score(f"<answer>{' '.join(tokens)}</answer>")
    assert score == (float(found[0]) if readable else None)
