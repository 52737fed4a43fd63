"""The table of mutations fits the code: a text that is gone would make bench/mutants.py stop."""

import importlib.util
import sys
from pathlib import Path

FILE = Path(__file__).parent.parent / "bench" / "mutants.py"


def test_every_mutation_still_applies() -> None:
    spec = importlib.util.spec_from_file_location("mutants", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    assert len(module.MUTANTS) > 150
    for mutant in module.MUTANTS:
        module.mutated(mutant)  # leaves with a message where the old text is not found once
