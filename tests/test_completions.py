"""completions.jsonl: a line an answer, and a long file is read at three places."""

import json
from pathlib import Path

import pytest
import torch

from nanoaes.checkpoint import append_rows, read_rows
from nanoaes.completions import excerpt, rows_of
from nanoaes.config import RAPOConfig
from nanoaes.datasets import Example
from nanoaes.judge import judge
from nanoaes.rollout import Answer

TEXTS = [["<think>a</think><answer>0.50</answer>", "no idea"],
         ["<answer>0.10</answer>", "<think>\ud800 b</think><answer>0.90</answer>"]]


def test_a_step_is_a_line_for_each_answer(tmp_path):
    batch = [Example(Path(name), score, None, "AVA", (1.0, 10.0))
             for name, score in (("a.png", 0.5), ("b.png", 0.9))]
    answers = [[Answer(text, 10 * i + k, bool(k)) for k, text in enumerate(row)]
               for i, row in enumerate(TEXTS)]
    judged = judge(RAPOConfig(), answers, batch)
    advantage = torch.tensor([[1.0, -1.0], [0.25, -0.25]])
    rows = rows_of(40, batch, judged, advantage)
    append_rows(tmp_path / "completions.jsonl", rows)
    assert read_rows(tmp_path / "completions.jsonl") == rows
    assert [(r["image"], r["truth"], r["answer"]) for r in rows] == [
        ("a.png", 0.5, 0), ("a.png", 0.5, 1), ("b.png", 0.9, 0), ("b.png", 0.9, 1)]
    assert [r["text"] for r in rows] == sum(TEXTS, [])
    assert [r["score"] for r in rows] == [0.5, None, 0.1, 0.9]
    assert [r["advantage"] for r in rows] == [1.0, -1.0, 0.25, -0.25]
    assert [(r["length"], r["cut"]) for r in rows] == [(0, False), (1, True), (10, False),
                                                       (11, True)]
    # Exact answers have an absolute reward of 1; the form is right where a critique is.
    assert rows[0]["reward_abs"] == rows[3]["reward_abs"] == 1.0
    assert [r["reward_fmt"] for r in rows] == [1.0, 0.0, 0.0, 1.0]
    assert rows[1]["reward"] == rows[1]["reward_rel"] == rows[1]["reward_abs"] == 0.0
    for i, row in enumerate(rows):
        assert row["reward"] == judged.rewards.total[i // 2, i % 2].item()
        assert row["reward_rel"] == judged.rewards.relative[i // 2, i % 2].item()
        assert (row["step"], row["dataset"]) == (40, "AVA")


def file_of(path, steps, answers=6):
    """Recorded steps of six answers, each line 100 bytes."""
    lines = []
    for step in steps:
        for k in range(answers):
            row = json.dumps({"step": step, "answer": k, "text": ""})
            lines.append(row.replace('""', f'"{"x" * (99 - len(row))}"') + "\n")
    path.write_text("".join(lines))
    assert path.stat().st_size == 100 * answers * len(steps)
    return path


@pytest.mark.parametrize("window", [1_000, 1_250, 3_000, 10**6])
def test_first_middle_and_last_step_wherever_a_window_cuts(tmp_path, window):
    rows = excerpt(file_of(tmp_path / "a", range(10, 1010, 10)), window)
    steps = sorted({row["step"] for row in rows})
    assert len(steps) == 3 and steps[0] == 10 and steps[2] == 1000 and 480 <= steps[1] <= 520
    for step in (10, 1000):  # the window of the middle may hold but a part of its step
        assert [r["answer"] for r in rows if r["step"] == step] == list(range(6))
    assert 1 <= len([r for r in rows if r["step"] == steps[1]]) <= 6


@pytest.mark.parametrize("steps, shown", [([5], [5]), ([5, 9], [5, 9]), ([5, 7, 9], [5, 7, 9]),
                                          ([], [])])
def test_a_young_file(tmp_path, steps, shown):
    rows = excerpt(file_of(tmp_path / "a", steps))
    assert [r["step"] for r in rows] == sorted(shown * 6)
    assert excerpt(tmp_path / "none") == []


def test_a_damaged_line_is_left_out(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b'{"step": 1}\n{"ste\n\xff\n[1]\n{"step": "x"}\n{"step": 1, "a": 2}\n'
                     b'{"step": 2')
    assert excerpt(path) == [{"step": 1}, {"step": 1, "a": 2}]


def test_a_step_larger_than_the_window_is_shown_in_part(tmp_path):
    rows = excerpt(file_of(tmp_path / "a", [1, 2, 3], answers=50), 1_000)
    assert [[r["answer"] for r in rows if r["step"] == s] for s in (1, 2, 3)] == [
        list(range(10)), list(range(20, 30)), list(range(40, 50))]
