"""completions.jsonl: what was answered while the model learned, one line an answer.

    jq 'select(.step == 40 and .reward < 0.5) | .text' RUN/completions.jsonl

The keys are those of metrics.jsonl. `excerpt` reads three places of the file, however long it is.
Left out: the tokens (a seed draws them again) and the pictures (their paths are here).
"""

import json
from pathlib import Path

from torch import Tensor

from nanoaes.datasets import Example
from nanoaes.judge import Judged

WINDOW = 2**21  # bytes read at each place: some ten steps of 128 answers of 1,500 characters


def rows_of(step: int, batch: list[Example], judged: Judged, advantage: Tensor) -> list[dict]:
    """A step's N·K answers, picture by picture.

    Args:
        batch: the N pictures.
        advantage: (N, K).
    Returns:
        per answer {"step", "image", "dataset", "truth" in [0, 1], "answer" (0 … K−1), "text",
        "score" (None: unreadable), "reward" (the weighted sum), "reward_rel", "reward_abs",
        "reward_fmt", "advantage", "length" in tokens, "cut" at the length limit}.
    """
    r = judged.rewards
    numbers = {"reward": r.total, "reward_rel": r.relative, "reward_abs": r.absolute,
               "reward_fmt": r.format, "advantage": advantage}
    table = {name: x.tolist() for name, x in numbers.items()}
    scores, valid = judged.scores.tolist(), judged.valid.tolist()
    return [{"step": step, "image": str(example.image), "dataset": example.dataset,
             "truth": example.score, "answer": k, "text": answer.text,
             "score": scores[i][k] if valid[i][k] else None,
             **{name: x[i][k] for name, x in table.items()},
             "length": answer.n_tokens, "cut": answer.cut}
            for i, example in enumerate(batch) for k, answer in enumerate(judged.answers[i])]


def excerpt(path: Path, window: int = WINDOW) -> list[dict]:
    """The rows of the first, a middle and the last recorded step; of a step larger than `window`
    bytes a part. Without a file, none. A line that is no row is left out: a page is no reason to
    end a run."""
    if not path.is_file():
        return []
    size = path.stat().st_size
    picked: dict[int, list[dict]] = {}
    for share in (0.0, 0.5, 1.0):
        rows = _rows_from(path, int(share * max(0, size - window)), window)
        steps = sorted({row["step"] for row in rows})
        if steps:
            step = steps[int(share * (len(steps) - 1))]
            picked.setdefault(step, [row for row in rows if row["step"] == step])
    return [row for step in sorted(picked) for row in picked[step]]


def _rows_from(path: Path, start: int, window: int) -> list[dict]:
    """What can be read of the whole lines in `window` bytes."""
    with path.open("rb") as file:
        file.seek(max(0, start - 1))
        block = file.read(window + (start > 0))
    lines = block.split(b"\n")[start > 0:-1]  # the ends of a window cut lines in two
    return [row for row in map(_row, lines) if row]


def _row(line: bytes) -> dict | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
