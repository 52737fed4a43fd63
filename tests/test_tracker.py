"""--tracker: numbers reach the user's package, which is imported only when asked for."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nanoaes.errors import UserError
from nanoaes.tracker import Tracker, find

ROOT = Path(__file__).parents[1]
ROW = {"step": 7, "reward": 1.5, "skipped": 2, "where": "step 7", "resumed": True, "kl": None}


@pytest.fixture
def told(monkeypatch):
    """Fake packages; what they are told."""
    told = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            told.append((folder, purge_step))

        def add_scalar(self, *args):
            told.append(args)

        def flush(self):
            told.append("flush")

        def close(self):
            told.append("close")

    class Run:
        def log(self, numbers, step):
            told.append((numbers, step))

        def finish(self):
            told.append("close")

    board, wandb = ModuleType("torch.utils.tensorboard"), ModuleType("wandb")
    board.SummaryWriter = SummaryWriter
    wandb.Error = type("Error", (Exception,), {})
    wandb.init = lambda **how: told.append(how) or Run()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return told


@pytest.mark.parametrize("step, void", [(0, None), (40, 41)])
def test_tensorboard(tmp_path, told, step, void):
    tracker = Tracker("tensorboard", tmp_path, {}, step)
    tracker.log(ROW)
    tracker.close()
    assert told == [(tmp_path / "tensorboard", void), ("reward", 1.5, 7), ("skipped", 2, 7),
                    "flush", "close"]


def test_wandb(tmp_path, told):
    tracker = Tracker("wandb", tmp_path, {"k": 8})
    tracker.log(ROW)
    tracker.close()
    assert told == [{"project": "nanoaes", "group": tmp_path.name, "dir": tmp_path,
                     "config": {"k": 8}}, ({"reward": 1.5, "skipped": 2}, 7), "close"]


def test_wandb_that_cannot_start_says_why_in_one_line(tmp_path, told, monkeypatch):
    def init(**how):
        raise sys.modules["wandb"].Error("api_key not configured\n(no-tty)")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    with pytest.raises(UserError, match=r"^--tracker wandb: api_key not configured \(no-tty\); "
                                        r"`wandb login`.*--tracker none$"):
        Tracker("wandb", tmp_path, {})


def test_none_tells_nobody(tmp_path, told):
    tracker = Tracker("none", tmp_path, {})
    tracker.log(ROW)
    tracker.close()
    assert told == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind, module", [("tensorboard", "torch.utils.tensorboard"),
                                          ("wandb", "wandb")])
def test_a_package_that_is_not_there_is_named_with_the_remedy(tmp_path, monkeypatch, kind, module):
    monkeypatch.setitem(sys.modules, module, None)  # so that an import of it fails
    for ask in (lambda: find(kind), lambda: Tracker(kind, tmp_path, {})):
        with pytest.raises(UserError) as caught:
            ask()
        message = str(caught.value)
        assert message.startswith(f"--tracker {kind}: ") and f"pip install {kind}" in message
        assert "\n" not in message and not list(tmp_path.iterdir())


def test_nothing_is_imported_before_it_is_asked_for():
    code = ("import sys; from pathlib import Path; from nanoaes.tracker import Tracker; "
            "Tracker('none', Path('.'), {}).log({'step': 1}); "
            "print(*{'torch', 'wandb', 'tensorboard'} & set(sys.modules))")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (out.returncode, out.stdout.strip()) == (0, ""), out.stderr
