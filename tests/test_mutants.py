"""The tables of mutations fit the code: a text that is gone would make bench/mutants.py stop."""

import importlib
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"


def test_every_mutation_still_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    module = importlib.import_module("mutants")
    assert len(module.MUTANTS) > 150
    for mutant in module.MUTANTS:
        module.mutated(mutant)  # leaves with a message where the old text is not found once
