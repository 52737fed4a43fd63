"""How often is it right what `nanoaes/says.py` and `language.py` read from a critique's words?

    python bench/says.py            tests/says_unseen.txt, written when the words were chosen
    python bench/says.py --tuned    tests/says.txt, for which they were; names what is wrong

A line is `DIMENSIONS SIDES LEVEL LANGUAGE: critique`: L, M, C, K, E for the dimensions in their
order, + for praise, - for criticism, 0 bad, 1 fair, 2 good as the closing judgement; a dot is none.
Critiques, labels and words are by the same hand: a stranger's will be misread more often. Who
changes a word for an unseen critique moves it to the other file. The last line is JSON: of each
property the share that is right, one dimension of one critique counting as one, one side likewise.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nanoaes.language import language  # noqa: E402
from nanoaes.prompt import DIMENSIONS  # noqa: E402
from nanoaes.says import closing, sides, spoken  # noqa: E402

LETTERS = dict(zip("LMCKE", DIMENSIONS, strict=True))


def critiques(file: str) -> list[tuple[str, str, str, str, str]]:
    """(dimensions, sides, level, language, critique) of a file under tests."""
    lines = (ROOT / "tests" / file).read_text(encoding="utf-8").splitlines()
    return [(*line.split(": ", 1)[0].split(), line.split(": ", 1)[1]) for line in lines]


def shares(file: str) -> tuple[dict[str, float], list[str]]:
    """Share that is right, by property, and what is wrong. Of another language that only."""
    right, n, wrong = Counter(), Counter(), []
    for letters, signs, level, code, text in critiques(file):
        checks = [("language", language(text) or "xx", code)]
        if code == "en":
            said, judged = spoken(text), closing(text)
            checks += [("dimensions", letter if name in said else f"no {letter}",
                        letter if letter in letters else f"no {letter}")
                       for letter, name in LETTERS.items()]
            checks += [("sides", sign if found else f"no {sign}",
                        sign if sign in signs else f"no {sign}")
                       for found, sign in zip(sides(text), "+-", strict=True)]
            checks += [("level", "." if judged is None else str(judged), level)]
        for name, found, truth in checks:
            n[name] += 1
            right[name] += found == truth
            if found != truth:
                wrong.append(f"{name}: {found}, not {truth}: {text}")
    return {name: right[name] / n[name] for name in n}, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tuned", action="store_true", help="those that they were chosen for")
    tuned = parser.parse_args().tuned
    file = "says.txt" if tuned else "says_unseen.txt"
    found, wrong = shares(file)
    if tuned:
        print("\n".join(wrong))
    print(f"{len(wrong)} misread in {len(critiques(file))} critiques")
    print(json.dumps({name: round(share, 4) for name, share in found.items()}))


if __name__ == "__main__":
    main()
