"""No answer that is known to cheat is worth more than an honest one (bench/drills.py's list)."""

import importlib
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"


@pytest.mark.parametrize("drill", ["single_cheats", "whole_policies"])
def test_no_cheat_pays_changes_others_or_is_passed_over(drill: str,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    outcome = getattr(importlib.import_module("accidents.answers"), drill)(None)
    assert outcome.lost == [] and outcome.told
