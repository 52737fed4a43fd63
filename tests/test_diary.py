"""What a step leaves behind: a row with its speed, the answers, the report after a look."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_prompts, tiny_vlm
from torch.utils.flop_counter import FlopCounterMode

from nanoaes.checkpoint import read_rows
from nanoaes.config import RAPOConfig
from nanoaes.datasets import Example
from nanoaes.diary import Diary
from nanoaes.judge import judge
from nanoaes.rapo import advantages
from nanoaes.rollout import rollout
from nanoaes.sampling import uniforms


@pytest.fixture
def step() -> dict[str, Any]:
    """Two pictures, three answers each."""
    vlm = tiny_vlm()
    prompts = tiny_prompts(vlm, 2)
    rolls = rollout(vlm, prompts, k=3, max_new_tokens=6, uniform=uniforms(0, 0, range(2), 3, 6))
    batch = [Example(Path(f"{i}.png"), i / 2, None, "a", (0.0, 1.0)) for i in range(2)]
    judged = judge(RAPOConfig(), rolls.answers(vlm), batch)
    return {"vlm": vlm, "prompts": prompts, "rolls": rolls, "batch": batch, "judged": judged,
            "advantage": advantages(judged.rewards.total)[0]}


def note(diary: Diary, row: dict, step: dict[str, Any]) -> None:
    with diary.clock("update"):
        pass
    diary.note(row, of=4, **{k: v for k, v in step.items() if k != "vlm"})


def test_rows_answers_and_report(step: dict[str, Any], tmp_path: Path) -> None:
    drawn: list[int] = []
    diary = Diary(RAPOConfig(run=str(tmp_path), log_every=2), step["vlm"], drawn.append)
    for i in range(1, 5):
        note(diary, {"step": i, **({"eval_score": 1.0} if i == 3 else {})}, step)
    rows, told = (read_rows(tmp_path / f"{name}.jsonl") for name in ("metrics", "completions"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and drawn == [4]
    assert [row["step"] for row in told] == [2] * 6 + [4] * 6
    lengths = 3 * step["prompts"].mask.sum() + step["rolls"].mask.sum()
    assert rows[0]["tokens_per_s"] * rows[0]["s_update"] == pytest.approx(int(lengths))
    assert rows[0]["peak_memory"] > 1e8 and "mfu" not in rows[0]


def test_mfu_is_of_what_torch_counts(step: dict[str, Any], tmp_path: Path) -> None:
    """One forward of this share, by torch's counter; a step has three and a backward of two."""
    diary = Diary(RAPOConfig(run=str(tmp_path), log_every=0), step["vlm"], lambda of: None)
    rolls, prompts = step["rolls"], step["prompts"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        step["vlm"].hidden(prompts, rolls.ids, rolls.mask) @ step["vlm"].head.T
    assert diary.flops(prompts, rolls) / 5 == pytest.approx(counter.get_total_flops(), rel=0.15)
    diary.peak = 1e12
    row = {"step": 1}
    note(diary, row, step)
    assert row["mfu"] * row["s_update"] * 1e12 == pytest.approx(diary.flops(prompts, rolls))
    assert not (tmp_path / "completions.jsonl").exists()


def test_a_full_disk_costs_a_row(step: dict[str, Any], tmp_path: Path, monkeypatch, capsys) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nanoaes.diary.append_row", full)
    diary = Diary(RAPOConfig(run=str(tmp_path)), step["vlm"], lambda of: None)
    note(diary, {"step": 1}, step)
    assert "the row of step 1 is not saved" in capsys.readouterr().out
