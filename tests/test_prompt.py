"""How an answer is read: a table of stated meanings, and properties over 100,000 generated texts.

Left out: the words beside the number (test_labels.py); what a model makes of the prompts (a
matter for training runs).
"""

import itertools
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanoaes.prompt import (
    DIMENSIONS,
    MAX_ANSWER_CHARS,
    SCORING_PROMPT,
    TOY_PROMPT,
    answer_text,
    critique_of,
    format_ok,
    opened_by,
    parse_score,
    rest_of,
)


def fast(max_examples: int) -> settings:
    """The same examples in every run, none stored, no clock."""
    return settings(max_examples=max_examples, database=None, derandomize=True,
                    suppress_health_check=list(HealthCheck))


READ = {
    "0.85": 0.85, ".85": 0.85, "0,85": 0.85, "0,850": 0.85, "85/100": 0.85, "4/5": 0.8, "85%": 0.85,
    "0": 0.0, "1": 1.0, "1.00": 1.0, "0.": 0.0, "1.": 1.0, "0/7": 0.0, "7/7": 1.0, "100%": 1.0,
    " 0.85\n": 0.85, "85 %": 0.85, "85 / 100": 0.85, "8.5/10": 0.85, "8,5/10": 0.85, "12,5%": 0.125,
    "Rating: 0.85.": 0.85, "**0.85**": 0.85, "(0.85)": 0.85,
    "score=0.85": 0.85, "'0.85'": 0.85, "0.85 out of 1": 0.85, "\\boxed{0.85}": 0.85,
    "０．８５": 0.85, "８５％": 0.85, "４／５": 0.8, "𝟎.𝟖𝟓": 0.85, "0.85…": 0.85,
    "0." + "3" * 900: 1 / 3, "1/1" + "0" * 900: 0.0,
}
UNREAD = [
    "", " ", "nan", "NaN", "inf", "-inf", "none", "zero", ".", ",", "/", "%",
    "7", "1.5", "1.01", "5/4", "101%", "85", "-0.5", "--0.5", "- 0.5", "−0.5", "-(0.5)", "+0.5",
    "-0", "±0.5", "<0.5", "≥0.5", "0.8 to 0.9", "0.8-0.9", "0.8 or 0.9", "0.8.5", "..85", "0..85",
    "1,2,3", "0,8,5", "1,000", "0.85/", "0.85 /", "/0.85", "1/0", "0/0", "3/4/5", "1/-2", "85%%",
    "1e-1", "1E-1", "5e-324", "0x1", "0b1", "1_0", "0_8", "1 000", "0 .85",
    "0.8²", "½", "①", "0.8٥", "٠٫٨٥", "<b>0.85</b>", "0.85/ten", "0.5\x000",
    "9" * 5000, "0." + "3" * 5000, "9" * 900 + "/" + "9" * 900, "9" * 400 + "/" + "9" * 400,
    " " * MAX_ANSWER_CHARS + "0.5",
]


@pytest.mark.parametrize("block, score", READ.items())
def test_reads(block: str, score: float) -> None:
    text = f"<think>Calm light.</think>\n<answer>{block}</answer>"
    assert parse_score(text) == pytest.approx(score, abs=1e-12)
    assert format_ok(text)


@pytest.mark.parametrize("block", UNREAD)
def test_does_not_guess(block: str) -> None:
    text = f"<think>Calm light.</think><answer>{block}</answer>"
    assert parse_score(text) is None
    assert not format_ok(text)


@pytest.mark.parametrize("text", [
    "", "0.5", "<answer>0.5", "0.5</answer>", "</answer>0.5<answer>", "<answer>0.5<answer>",
    "<answer>0.5</answer><answer>0.5</answer>", "<answer>0.5</answer></answer>",
    "<answer>0.5</answer><answer>", "<answer><answer>0.5</answer></answer>", "<ANSWER>0.5</ANSWER>",
    "<answer >0.5</answer>", "<think>I answer in <answer> tags</think><answer>0.5</answer>",
])
def test_needs_exactly_one_answer_block(text: str) -> None:
    assert parse_score(text) is None
    assert not format_ok(text)


@pytest.mark.parametrize("text", [
    "<answer>0.5</answer>",
    "<think></think><answer>0.5</answer>",
    "<think> \n</think><answer>0.5</answer>",
    "Sure: <think>a</think><answer>0.5</answer>",
    " <think>a</think><answer>0.5</answer>",
    "<think>a</think><answer>0.5</answer>\n",
    "<think>a</think> so <answer>0.5</answer>",
    "<answer>0.5</answer><think>a</think>",
    "<think>a</think></think><answer>0.5</answer>",
    "<think>a<think>b</think><answer>0.5</answer>",
    "<think>a</think><think>b</think><answer>0.5</answer>",
    "<think>a <b>bold</b></think><answer>0.5</answer>",
    "<think>a<|im_end|></think><answer>0.5</answer>",
    "<think>a<answer>0.5</answer></think>",
])
def test_format_refuses_though_the_score_is_read(text: str) -> None:
    assert parse_score(text) == 0.5
    assert not format_ok(text)


def test_format_accepts_white_space_between_and_a_less_than_sign() -> None:
    assert format_ok("<think>shadows < lights,\nI <3 it</think> \n\t<answer>0.5</answer>")


@pytest.mark.parametrize("text, critique", [
    ("<think> soft light </think><answer>0.5</answer>", "soft light"),
    ("<think>soft light", "soft light"),
    ("soft light", "soft light"),
    ("soft light <answer>0.5</answer>", "soft light 0.5"),
    ("</think>soft<think>", "soft"),
    ("<think></think><answer>0.5</answer>", ""),
    ("<think>\n<think>soft light</think><answer>0.5</answer>", "soft light"),
])
def test_critique_of(text: str, critique: str) -> None:
    assert critique_of(text) == critique


@pytest.mark.parametrize("unit", [
    "<answer>", "<think>", "</think>", "<", "1", "1,", "0.", " ", "/", "-", "\u0316\u0301",
    "<think> ", "a", "%", "<answer>1</answer>", "\n"])
@pytest.mark.parametrize("frame", [
    "{}", "<answer>{}</answer>", "<think>{}</think><answer>.5</answer>"])
def test_a_megabyte_is_read_in_linear_time(unit: str, frame: str) -> None:
    text = frame.format(unit * (1_000_000 // len(unit)))
    start = time.perf_counter()
    parse_score(text), format_ok(text), critique_of(text)
    assert time.perf_counter() - start < 3.0  # quadratic would take hours


CRITIQUES = st.text(max_size=40).filter(lambda critique: "<" not in critique and critique.strip())


@fast(200)
@given(score=st.floats(0, 1), critique=CRITIQUES)
def test_answer_text_round_trip(score: float, critique: str) -> None:
    text = answer_text(critique, score)
    assert format_ok(text)
    assert abs(parse_score(text) - score) <= 0.005 + 1e-12
    assert critique_of(text) == critique.strip()


@pytest.mark.parametrize("rendered, opened", [
    ("user\nJudge.\nassistant\n<think>\n", "<think>\n"), ("assistant<think>", "<think>"),
    ("assistant\n<think> \n\n", "<think> \n\n"), ("assistant\n", ""), ("", ""), (" \n", ""),
    ("assistant\n<think>\n\n</think>\n\n", ""), ("write <think></think>\nassistant\n", ""),
    ("assistant\n<think>\nOk", ""), ("<think>\nassistant\n", ""), ("assistant\n<thinking>\n", ""),
    ("assistant\n<answer>\n", ""), ("<think><think>\n", "<think>\n"), ("think>\n", ""),
])
def test_opened_by(rendered: str, opened: str) -> None:
    assert opened_by(rendered) == opened


@pytest.mark.parametrize("answer, opened, rest", [
    ("<think>soft</think>x", "<think>\n", "soft</think>x"), ("<think>soft", "", "<think>soft"),
    ("<think>\n soft\n</think>", "<think>\n", "soft\n</think>"), (" plain", "", " plain"),
    ("<think>soft <think>", "<think>", "soft <think>"),
])
def test_rest_of(answer: str, opened: str, rest: str) -> None:
    assert rest_of(answer, opened) == rest


@pytest.mark.parametrize("answer", ["", "soft", " <think>soft", "<answer>0.5</answer>", "<Think>a"])
def test_rest_of_refuses_an_answer_without_the_opened_tag(answer: str) -> None:
    with pytest.raises(ValueError, match="opened '<think>"):
        rest_of(answer, "<think>\n")


@fast(300)
@given(score=st.floats(0, 1), critique=CRITIQUES | st.just("shadows < lights, I <3 it"),
       space=st.sampled_from(["", "\n", "\n\n", " "]), template=st.text(max_size=20))
def test_an_answer_is_the_same_whoever_opens_it(score: float, critique: str, space: str,
                                                template: str) -> None:
    whole = answer_text(critique, score)
    for rendered in (f"{template}<think>{space}", f"{template}<think></think>{space}"):
        opened = opened_by(rendered)
        text = opened + rest_of(whole, opened)
        assert opened == (f"<think>{space}" if rendered.endswith(f"<think>{space}") else "")
        assert format_ok(text)
        assert parse_score(text) == parse_score(whole)
        assert critique_of(text) == critique_of(whole)


@pytest.mark.parametrize("score", [i / 100 for i in range(101)])
def test_two_decimals_survive(score: float) -> None:
    assert parse_score(answer_text("Soft light.", score)) == score


@pytest.mark.parametrize("critique, score", [
    ("", 0.5), ("  ", 0.5), ("a</think>", 0.5), ("a<answer>", 0.5),
    ("a", -0.01), ("a", 1.01), ("a", float("nan")), ("a", float("inf")),
])
def test_answer_text_refuses(critique: str, score: float) -> None:
    with pytest.raises(ValueError):
        answer_text(critique, score)


def test_answer_text_has_no_negative_zero() -> None:
    assert answer_text("a", -0.0) == "<think>a</think><answer>0.00</answer>"


def test_prompts_say_what_is_wanted() -> None:
    assert len(DIMENSIONS) == 5
    wanted = (*DIMENSIONS, "<think>", "<answer>", "two decimals")
    assert all(words in SCORING_PROMPT for words in wanted)
    assert len(TOY_PROMPT.split()) <= 6


TOKENS = st.sampled_from([
    *"0123456789.,/%-+eE:_ ", "0.85", "85/100", "85%", "1,000", "nan", "inf", "٣", "²", "½", "．",
    "８", "／", "％", "−", "<think>", "</think>", "<answer>", "</answer>", "<", ">", "</",
    "<|im_end|>", "\n", "a", "Rating", "\u0301", "\ud800", "\x00", "𝟏", "1" * 400,
    " out of ", " stars", "about ", "!", "**",
])
PIECES = st.one_of(TOKENS, st.text(max_size=3), st.floats().map(str), st.integers().map(str))
FRAMES = (
    "{}", "<answer>{}</answer>", "<think>a</think><answer>{}</answer>",
    "<think>{}<answer>0.5</answer>", "<think>{}</think><answer>.5</answer>",
)


def test_no_text_raises_or_leaves_the_interval() -> None:
    """Three short lists of fragments per example; every combination in every frame is parsed."""
    seen: set[str] = set()
    outcomes = {"read": 0, "unread": 0, "formatted": 0}

    @fast(250)
    @given(*[st.lists(PIECES, min_size=5, max_size=5, unique=True)] * 3)
    def check(heads: list[str], middles: list[str], tails: list[str]) -> None:
        for parts in itertools.product(heads, middles, tails):
            for frame in FRAMES:
                text = frame.format("".join(parts))
                score, formatted = parse_score(text), format_ok(text)
                critique_of(text)
                assert score is None or (type(score) is float and 0.0 <= score <= 1.0), text
                assert score is not None or not formatted, text
                seen.add(text)
                outcomes["unread" if score is None else "read"] += 1
                outcomes["formatted"] += formatted

    check()
    assert len(seen) >= 100_000, len(seen)
    assert min(outcomes.values()) >= 1_000, outcomes  # neither side of the contract goes untested


@fast(500)
@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_fractions_and_percentages_agree_with_division(numerator: int, denominator: int) -> None:
    expected = numerator / denominator if numerator <= denominator else None
    assert parse_score(f"<answer>{numerator}/{denominator}</answer>") == expected
    percent = numerator / 100 if numerator <= 100 else None
    assert parse_score(f"<answer>{numerator}%</answer>") == percent
