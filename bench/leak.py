"""How often is the leak filter right, on sentences that it was not written for?

    python bench/leak.py            tests/leaks_unseen.txt, written when the filter was finished
    python bench/leak.py --tuned    tests/leaks.txt, for which it was; names what is wrong

A line is a sentence of a critique, "+" with a leak, "-" without. Sentences and filter are by the
same hand: a stranger's leaks will be missed more often. Who changes the filter for an unseen
sentence moves it to the other file. The last line is JSON: precision and recall.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nanoaes.leak import leak_in  # noqa: E402


def sentences(file: str) -> list[tuple[bool, str]]:
    """(leaks, sentence) of a file under tests."""
    lines = (ROOT / "tests" / file).read_text(encoding="utf-8").splitlines()
    return [(line[0] == "+", line[2:]) for line in lines]


def measured(file: str) -> tuple[dict[str, float], list[str]]:
    """Counts, precision and recall; and what is wrong."""
    pairs = [(truth, text, leak_in(text)) for truth, text in sentences(file)]
    right = sum(truth and bool(found) for truth, _, found in pairs)
    alarms = sum(bool(found) for _, _, found in pairs)
    leaks = sum(truth for truth, _, _ in pairs)
    wrong = [f"missed: {text}" if truth else f"false alarm: {text} [{found}]"
             for truth, text, found in pairs if truth != bool(found)]
    return {"with": leaks, "without": len(pairs) - leaks, "leak_precision": right / alarms,
            "leak_recall": right / leaks}, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tuned", action="store_true", help="those that it was written for")
    tuned = parser.parse_args().tuned
    counts, wrong = measured("leaks.txt" if tuned else "leaks_unseen.txt")
    if tuned:
        print("\n".join(wrong))
    print(f"{len(wrong)} of {counts['with'] + counts['without']} sentences wrong")
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
