"""The leak filter: how people write a score, and what in a photographer's words only looks so."""

import time

import pytest

from bench.leak import measured, sentences
from nanoaes.leak import leak_in


def test_on_the_sentences_that_it_was_written_for() -> None:
    counts, wrong = measured("leaks.txt")
    assert counts["with"] >= 100 and counts["without"] >= 100
    assert [line.partition(" [")[0] for line in wrong] == [
        "false alarm: A rated speed of 50 is painted on the road."]


def test_no_sentence_is_in_both_files() -> None:
    seen, unseen = sentences("leaks.txt"), sentences("leaks_unseen.txt")
    assert len({text for _, text in seen + unseen}) == len(seen + unseen)
    assert min(sum(truth for truth, _ in unseen), sum(not truth for truth, _ in unseen)) >= 60


@pytest.mark.parametrize("text, words", [
    ("It is soft. I give it a 7, no more.", "give it a 7"), ("Soft, 7\u00a0/\u00a010.", "7 / 10"),
    ("At f/2.8 it is 0.62.", "0.62"), ("Overall ８．５", "Overall 8.5"),
    ("٧/١٠ works", "7/10"), ("Soft light.", "")])
def test_the_words_are_named(text: str, words: str) -> None:
    assert leak_in(text) == words


@pytest.mark.parametrize("text", ["1" * 6000, "1, " * 7000, "give it the a " * 1500, "x" * 20_000,
                                  "123456 " * 3000, "sign " * 4000, "out of " * 3000])
def test_a_strange_critique_costs_no_hours(text: str) -> None:
    begun = time.process_time()
    leak_in(text)
    assert time.process_time() - begun < 5
