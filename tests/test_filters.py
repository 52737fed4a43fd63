"""AesCoT's program filters: each with its reason, and repeats against all pairs."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoaes.filters import FILTERS, NEAR, SHINGLE, repeats
from nanoaes.says import runs

GOOD = ("The light is soft and shadows give depth. The mood is calm. The composition is balanced, "
        "though the foreground is empty. Colors are muted and harmonious. The exposure keeps "
        "detail in the highlights. Overall, it is a strong picture with a small weakness.")


def test_a_whole_critique_passes_all() -> None:
    assert {flag: reason(GOOD) for flag, reason in FILTERS.items()} == dict.fromkeys(FILTERS, "")
    assert set(FILTERS) == {"leak", "unfit", "thin", "onesided", "length", "language"}


@pytest.mark.parametrize("flag, text, reason", [
    ("leak", f"{GOOD} I give it a 7.", '"give it a 7"'), ("unfit", " ", "empty"),
    ("unfit", "I cannot view the image.", "a refusal"),
    ("thin", "Soft light, calm mood.", "nothing on Composition, Color, Exposure"),
    ("onesided", "A beautiful picture.", "no criticism"),
    ("onesided", "An ugly picture.", "no praise"),
    ("onesided", "A picture.", "no praise and no criticism"),
    ("length", "word " * 39, "39 words, at least 40"), ("length", "word " * 40, ""),
    ("length", "word " * 500, ""), ("length", "word " * 501, "501 words, at most 500"),
    ("language", "Das Licht ist weich und die Stimmung ist ruhig.", "language de"),
    ("language", "★", "no one language")])
def test_the_reason_is_named(flag: str, text: str, reason: str) -> None:
    assert FILTERS[flag](text) == reason


def by_all_pairs(texts: list[str]) -> list[int | None]:
    found: list[int | None] = []
    for i, text in enumerate(texts):
        a = runs(text, SHINGLE)
        kept = [(j, runs(texts[j], SHINGLE)) for j in range(i) if found[j] is None]
        found.append(next((j for j, b in kept if len(a & b) >= NEAR * len(a | b)), None))
    return found


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), max_size=12))
def test_repeats_are_those_of_all_pairs(texts: list[str]) -> None:
    assert repeats(texts) == by_all_pairs(texts)


def test_of_a_chain_the_ends_are_both_kept() -> None:
    words = [f"w{i}" for i in range(16)]
    assert repeats([" ".join(words[i : i + 12]) for i in (0, 2, 4)]) == [None, 0, None]


def test_case_and_marks_make_no_difference() -> None:
    other = GOOD.replace("calm", "quiet").upper().replace(".", "!")
    assert repeats([GOOD, "Another one.", other, GOOD]) == [None, None, 0, 0]


def test_ten_thousand_critiques_take_seconds() -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(2000)])
    texts = [" ".join(words[(rng.pareto(1.0, 100) * 20).astype(int) % 2000]) for _ in range(10_000)]
    begun = time.process_time()
    assert sum(r is not None for r in repeats(texts + texts[:10])) == 10
    assert time.process_time() - begun < 30
