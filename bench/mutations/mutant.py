"""One thing that is wrong."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    what: str  # is wrong
    old: str
    new: str
    tests: str  # file names without "test_", in the order in which they run
    equivalent: str = ""  # why no test can notice
    file: str = ""  # from the table
