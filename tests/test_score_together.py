"""`eval.py score` under torchrun: each process its share, one writes."""

from pathlib import Path

from ranks import spawn
from test_score import model, photos, score, small_windows  # noqa: F401  fixtures

TWO = """
from nanoaes.script import run_script
from test_score import Rollouts, ScoreConfig, eval_script, readable, scoring
Rollouts.answers, scoring.WINDOW = readable, 4
run_script(eval_script.score, ScoreConfig)
"""


def test_two_processes_write_the_list_of_one(
        model: Path, photos: Path, tmp_path: Path) -> None:  # noqa: F811
    """Started as torchrun starts them."""
    score(model, photos, out=tmp_path / "1.csv")
    (tmp_path / "two.py").write_text(TWO)
    for done in spawn(2, [str(tmp_path / "two.py"), str(photos), "--model", str(model), "--out",
                          str(tmp_path / "2.csv"), "--device", "cpu", "--readout",
                          "greedy"], 120):
        assert done.returncode == 3, done.stderr
    for name in "{}.jsonl", "{}.csv":
        one, two = (tmp_path / name.format(world) for world in (1, 2))
        assert one.read_bytes() == two.read_bytes() != b""
