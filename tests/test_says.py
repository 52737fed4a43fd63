"""What a critique says, held against critiques that were read and labelled by hand."""

import time

import pytest

from bench.says import LETTERS, critiques, shares
from nanoaes.language import language
from nanoaes.says import closing, sides, spoken


def test_critiques_that_the_words_were_chosen_for() -> None:
    found, wrong = shares("says.txt")
    assert len(found) == 4 and min(found.values()) >= 0.95, (found, wrong)


def test_critiques_that_were_written_later() -> None:
    found, wrong = shares("says_unseen.txt")
    assert len(found) == 4 and min(found.values()) >= 0.85, (found, wrong)


def test_no_critique_is_in_both_files() -> None:
    seen, unseen = critiques("says.txt"), critiques("says_unseen.txt")
    assert len({text for *_, text in seen + unseen}) == len(seen + unseen)
    assert len(seen) >= 60 and len(unseen) >= 25


@pytest.mark.parametrize("text, said", [
    ("flat light, calm mood, lopsided composition, rich color, harsh exposure: a weak picture.",
     "LMCKE"), ("A lighthouse delights and slightly highlights the harbour.", ""),
    ("By contrast, a light touch.", ""), ("In light of this, the white balance is off.", "K"),
    ("Light blue curtains.", ""), ("The light blues of dawn.", "LK"), ("", ""),
    ("Highlights are gone.", "E"), ("She highlights the text.", ""), ("Red against green.", "K")])
def test_a_word_is_not_taken_for_another(text: str, said: str) -> None:
    assert spoken(text) == tuple(LETTERS[letter] for letter in said)


@pytest.mark.parametrize("text, praised, blamed", [
    ("It is not flat.", True, False), ("No clutter here.", True, False),
    ("It never distracts.", True, False), ("It lacks depth.", False, True),
    ("There is hardly a distracting twig.", True, False), ("It isn't beautiful.", False, True),
    ("Not only beautiful.", True, False), ("No doubt it is beautiful.", True, False),
    ("It is not loud, but beautiful.", True, False), ("Too bright.", False, True),
    ("No people walk on the old road to the beautiful hills.", True, False),
    ("Two boats and a pier.", False, False), ("", False, False),
    ("The uncluttered frame.", False, False), ("An unflattering angle.", False, True)])
def test_a_negation_counts_for_the_other_side(text: str, praised: bool, blamed: bool) -> None:
    assert sides(text) == (praised, blamed)


@pytest.mark.parametrize("text, level", [
    ("Soft light: a weak picture.", 0), ("Soft light: a fair picture.", 1),
    ("Flat light: a strong picture.", 2), ("Not a bad picture.", 1), ("Not a good picture.", 0),
    ("Despite its weak light, a strong picture.", 2), ("A good picture, nothing more.", 1),
    ("A strong start. The fence is in the way.", None), ("Weak light. A strong picture.", 2),
    ("**Overall:** excellent", 2), ("Soft light, fine colors, wonderful!", 2),
    ("Soft light, rich colors.", None), ("The light is soft, the sea's color wonderful.", None),
    ("Overall it succeeds despite its weak light.", 2), ("Neither good nor bad.", 1),
    ("The light on the sea is good.", None), ("", None), ("…", None)])
def test_the_last_sentence_judges(text: str, level: int | None) -> None:
    assert closing(text) == level


@pytest.mark.parametrize("text, code", [
    ("The bokeh and the chiaroscuro of Il Gesù are superb, contre-jour at its best.", "en"),
    ("The peaks of 黄山 rise in the mist and the light is soft.", "en"), ("", ""), ("123 ★", ""),
    ("soft light, quiet mood, tilted composition, rich color, uneven exposure: a fair picture.",
     "en"), ("光は柔らかく、構図は安定し、全体として良好。", "ja"),
    ("Het licht is zacht en de sfeer is rustig.", "nl"), ("Zażółć gęślą jaźń", "")])
def test_a_name_does_not_change_the_language(text: str, code: str) -> None:
    assert language(text) == code


@pytest.mark.parametrize("text", ["a" * 20_000, "not good " * 3000, "a red " * 3000, "x-" * 9000,
                                  "could have " * 2000, "a good, " * 2500, "n't " * 5000,
                                  "the very bad and " * 1500, "**" * 9000, "highlights " * 2000])
def test_a_strange_critique_costs_no_hours(text: str) -> None:
    begun = time.process_time()
    spoken(text), sides(text), closing(text), language(text)
    assert time.process_time() - begun < 5
