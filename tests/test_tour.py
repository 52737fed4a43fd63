"""The guided tour: its blocks run and print what stands below them (its update: test_train.py)."""

import contextlib
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import nanoaes.reward

TOUR = Path(nanoaes.reward.__file__).parent / "TOUR.md"
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", TOUR.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the blocks define, after all of them; the reward that they replace comes back."""
    before, digits = nanoaes.reward.relative_reward, torch._tensor_str.PRINT_OPTS.precision
    space: dict[str, Any] = {"printed": []}
    for code, _ in BLOCKS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, str(TOUR), "exec"), space)
        space["printed"].append(out.getvalue())
    space["in_use"], nanoaes.reward.relative_reward = nanoaes.reward.relative_reward, before
    torch.set_printoptions(precision=digits, sci_mode=None)
    return space


def test_each_block_prints_what_stands_below_it(names: dict[str, Any]) -> None:
    assert len(BLOCKS) > 10 and names["printed"] == [text for _, text in BLOCKS]


def test_links_lead_to_files() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TOUR.read_text()):
        assert (TOUR.parent / link).is_file(), link


def test_the_tours_reward_is_bradley_terry_and_takes_the_others_place(names: dict[str, Any]
                                                                    ) -> None:
    """Against the formula in a loop; and `rewards` adds it up."""
    scores, truth = names["scores"], names["truth"]
    ours = names["bradley_terry"](scores, names["valid"], truth)
    for i in range(3):
        for k in range(4):
            total = 0.0
            for j in {0, 1, 2} - {i}:
                p = 1 / (1 + math.exp(-float(scores[i, k] - scores[j].mean()) / 0.1))
                total += math.sqrt(p if truth.score[i] > truth.score[j] else 1 - p)
            assert float(ours[i, k]) == pytest.approx(total / 2)
    assert names["in_use"] is names["bradley_terry"]
    assert nanoaes.reward.relative_reward is not names["bradley_terry"]


def test_the_tours_reward_leaves_out_what_cannot_be_read(names: dict[str, Any]) -> None:
    """An answer is worth 0 and is in nobody's mean; a picture without one is nobody's partner."""
    scores, valid, truth = names["scores"].clone(), names["valid"].clone(), names["truth"]
    valid[:2, 3] = valid[2] = False
    scores[~valid] = 99
    ours = names["bradley_terry"](scores, valid, truth)
    two = names["bradley_terry"](scores[:2, :3], valid[:2, :3], type(truth)(
        truth.score[:2], None, truth.group[:2]))
    assert torch.equal(ours[:2, :3], two) and two.min() > 0 and not ours[~valid].any()
    alone = names["bradley_terry"](scores[:1], valid[:1], type(truth)(
        truth.score[:1], None, truth.group[:1]))
    assert not alone.any()


def test_changing_the_reward_takes_ten_lines() -> None:
    code = next(code for code, _ in BLOCKS if "def bradley_terry" in code)
    body = code[code.index("def bradley_terry") : code.index("\n\nprint")]
    assert body.count("\n") + 1 <= 10
