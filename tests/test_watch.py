"""Each cause is named by itself, once, and again only after it was gone."""

import pytest

from nanoaes.watch import warn_of_collapse

FINE = {"step": 1, "truncated": 0.1, "parse_rate": 0.9, "format_rate": 0.8, "pred_std": 0.2,
        "truth_std": 0.25, "flat_groups": 0.1}


@pytest.mark.parametrize("change, cause, words", [
    ({"truncated": 0.6}, "cut", "60% of the answers were cut at the length limit"),
    ({"parse_rate": 0.2, "format_rate": 0.1}, "unreadable", "only 20% of the answers were read"),
    ({"format_rate": 0.0}, "formless", "no answer has the form"),
    ({"pred_std": 0.05}, "one score", "the predictions spread 0.050, the truth 0.250"),
    ({"flat_groups": 0.7}, "flat", "70% of the groups have no spread"),
])
def test_each_cause_by_itself(change: dict, cause: str, words: str, capsys) -> None:
    assert warn_of_collapse(FINE | change, set()) == {cause}
    (told,) = capsys.readouterr().out.splitlines()
    assert words in told and told.startswith("step 1: ")


def test_nothing_to_say_and_nothing_said_twice(capsys) -> None:
    assert warn_of_collapse(FINE, set()) == set() and capsys.readouterr().out == ""
    said: set[str] = set()
    for truncated in (0.6, 0.7, 0.1, 0.9):
        said = warn_of_collapse(FINE | {"truncated": truncated}, said)
    assert capsys.readouterr().out.count("\n") == 2


def test_two_causes_are_two_lines(capsys) -> None:
    row = FINE | {"truncated": 1.0, "parse_rate": 0.0, "format_rate": 0.0}
    assert warn_of_collapse(row, set()) == {"cut", "unreadable"}
    assert capsys.readouterr().out.count("\n") == 2
