"""A run that goes on from a state is the run that went on past it in its own process.

Not only at the end: pictures, answers, rewards, learning rates, losses, weights, the optimizer.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import album, tiny_vlm

import train_rapo
import train_sft
from nanoaes.checkpoint import read_rows
from nanoaes.config import RAPOConfig, SFTConfig
from nanoaes.errors import UserError

ROOT = Path(__file__).parent.parent
TIMED = {"eval_share", "tokens_per_s", "peak_memory", "s_data", "s_rollout", "s_reference",
         "s_update", "s_eval"}


def options(root: Path, run: Path, **more: Any) -> RAPOConfig:
    """Six steps of four pictures, a state after every second."""
    csv = f"csv:{root / 'photos.csv'}@0-1"
    return RAPOConfig(**{"run": str(run), "model": str(root / "model"), "train": csv,
                         "test_in": csv, "heldout": 3, "images": 4, "k": 2, "steps": 6,
                         "max_new_tokens": 6, "eval_every": 3, "save_every": 2, "keep_last": 9,
                         "log_every": 1, "lr": 1e-3, "updates": 2, "device": "cpu", **more})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Path]:
    """Pictures and a model; the run that nobody has stopped."""
    root = album(tmp_path_factory.mktemp("whole"), (i / 8 for i in range(9)))
    train_rapo.main(options(root, root / "run"))
    return root, root / "run"


def story(run: Path) -> tuple[list[dict], list[dict]]:
    """All that does not depend on the clock."""
    rows = [{k: v for k, v in row.items() if k not in TIMED}
            for row in read_rows(run / "metrics.jsonl")]
    return rows, read_rows(run / "completions.jsonl")


def weights(folder: Path) -> list[bytes]:
    return [f.read_bytes() for f in sorted(folder.glob("*.safetensors")) + sorted(
        folder.glob("*.distcp"))]


@pytest.mark.parametrize("after", [2, 4])
def test_going_on_is_going_past(after: int, whole: tuple[Path, Path], tmp_path: Path, capsys
                                ) -> None:
    root, run = whole
    again = tmp_path / "again"
    shutil.copytree(run, again)
    for step in range(after + 1, 7):  # as if the run had died before them
        shutil.rmtree(again / "resume" / f"step-{step:06d}", ignore_errors=True)
    (again / "rapo" / "eval.json").write_text("figures")  # of eval.py bench
    train_rapo.main(options(root, again, resume=True))
    assert (again / "before-1" / "rapo-eval.json").read_text() == "figures"
    assert f"going on after step {after}" in capsys.readouterr().out
    rows, answers = story(again)
    assert [row["step"] for row in rows] == list(range(7))
    assert len(answers) == 6 * 4 * 2
    assert (rows, answers) == story(run)
    for part in (Path("resume") / "step-000006", Path("rapo")):
        assert weights(again / part) == weights(run / part) != []
    assert [p.name for p in again.glob("before-*/*")] == ["rapo-eval.json"]


def test_without_a_state_a_resume_begins(whole: tuple[Path, Path], tmp_path: Path) -> None:
    root, run = whole
    train_rapo.main(options(root, tmp_path, resume=True, save_every=0))
    assert story(tmp_path) == story(run) and not (tmp_path / "resume").exists()


def test_another_run_is_refused_with_what_differs(whole: tuple[Path, Path], tmp_path: Path
                                                  ) -> None:
    root, run = whole
    before = weights(run / "rapo")
    with pytest.raises(UserError, match="steps: saved 6, now 7, lr: saved 0.001, now 0.01"):
        train_rapo.main(options(root, run, resume=True, steps=7, lr=0.01))
    shutil.copytree(root, tmp_path / "b", ignore=shutil.ignore_patterns("run"))
    tiny_vlm(1).save(tmp_path / "b" / "model")
    with pytest.raises(UserError, match="weights: saved"):
        train_rapo.main(options(tmp_path / "b", run, resume=True))
    assert weights(run / "rapo") == before and (run / "metrics.jsonl").is_file()


def stopped(whole: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the run that has not done its last steps."""
    again = tmp_path / "again"
    shutil.copytree(whole[1], again)
    shutil.rmtree(again / "resume" / "step-000006")
    return again


def refused(whole: tuple[Path, Path], run: Path, words: str) -> None:
    """--resume ends with these words, and nothing was cut or moved."""
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=words):
        train_rapo.main(options(whole[0], run, resume=True))
    assert (run / "metrics.jsonl").read_bytes() == before and not list(run.glob("before-*"))


def test_a_run_that_chose_by_another_figure_is_refused_before_anything_is_moved(
        whole: tuple[Path, Path], tmp_path: Path) -> None:
    """As one from before `expect`: its last rows are not even cut."""
    again = stopped(whole, tmp_path)
    record = again / "rapo" / "heldout.json"
    record.write_text(json.dumps({"step": 3, "score": 1.2}))
    refused(whole, again, "chosen by readout greedy")


def test_a_best_checkpoint_that_is_cut_off_is_refused_before_a_step(
        whole: tuple[Path, Path], tmp_path: Path) -> None:
    """Else the run would tell at its end, when nothing better has come."""
    again = stopped(whole, tmp_path)
    weights = again / "rapo" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    refused(whole, again, r"again/rapo: broken weights in model.safetensors .* copy")


@pytest.mark.parametrize("after", [0, 2, 4])
def test_a_cold_start_that_goes_on_is_one_that_went_past(after: int, whole: tuple[Path, Path],
                                                         tmp_path: Path) -> None:
    """Four steps; after the last there is nothing left but to write the model."""
    rows = [{"image": str(whole[0] / f"{i}.png"), "score": i / 8, "critique": f"soft light {i}",
             "kept": True, "dataset": "a"} for i in range(7)]
    (tmp_path / "cot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = SFTConfig(run=str(tmp_path / "run"), model=str(whole[0] / "model"), epochs=2, batch=4,
                    cot=str(tmp_path / "cot.jsonl"), save_every=2, keep_last=9, device="cpu")
    train_sft.main(cfg)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    (tmp_path / "again" / "sft" / "eval.json").write_text("figures")
    for step in range(after + 1, 5):
        shutil.rmtree(tmp_path / "again" / "sft_resume" / f"step-{step:06d}", ignore_errors=True)
    if after:  # another list is another run
        (tmp_path / "cot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
        with pytest.raises(UserError, match="pictures: saved"):
            train_sft.main(replace(cfg, run=str(tmp_path / "again"), resume=True))
        (tmp_path / "cot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_sft.main(replace(cfg, run=str(tmp_path / "again"), resume=True))
    assert [r["step"] for r in read_rows(tmp_path / "again" / "sft_metrics.jsonl")] == [1, 2, 3, 4]
    for file in ("sft_metrics.jsonl", "sft/model.safetensors"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()
    moved = {p.name for p in (tmp_path / "again").glob("before-1/*")}
    assert moved == ({"sft", "sft_resume", "sft_metrics.jsonl"} if after == 0 else
                     {"sft-eval.json"})


def test_a_signal_ends_the_step_saves_and_says_so(whole: tuple[Path, Path], tmp_path: Path
                                                  ) -> None:
    """SIGTERM after the first step; what goes on then is the run that nobody has stopped."""
    root, run = whole
    words = [sys.executable, str(ROOT / "train_rapo.py")]
    for name, value in vars(options(root, tmp_path / "run", save_every=0)).items():
        if value != "" and value is not False and name != "epochs":
            words += [f"--{name}", str(value)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    rows = tmp_path / "run" / "metrics.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (rows.is_file() and rows.read_text().count("\n") > 1):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in err, err
    assert "go on with --resume true" in out
    assert len(list((tmp_path / "run" / "resume").glob("step-*"))) == 1
    train_rapo.main(options(root, tmp_path / "run", save_every=0, resume=True))
    ours, theirs = story(tmp_path / "run"), story(run)
    assert [row["step"] for row in ours[0]] == list(range(7))
    assert ours[1] == theirs[1]
