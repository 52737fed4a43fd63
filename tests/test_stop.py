"""SIGTERM and Ctrl-C end a run at its step's end, on all processes, and say how to go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import spawn

from nanoaes.stop import stopping

ROOT = Path(__file__).parent.parent
RUN = """
import time
from dataclasses import dataclass
from nanoaes import parallel
from nanoaes.config import Config, opt
from nanoaes.script import run_script
from nanoaes.errors import Stopped
from nanoaes.stop import stopping

@dataclass
class Small(Config):
    "Steps."
    device: str = opt("cpu", "where")

def main(cfg):
    with stopping() as stop:
        for step in range(1, 100):
            print("step", step, flush=True)
            time.sleep(0.3)
            if number := stop.asked():
                raise Stopped(number, f"stopped after step {step}")

run_script(main, Small)
"""


def started(tmp_path: Path) -> subprocess.Popen:
    """A run in its first step."""
    script = tmp_path / "small.py"
    script.write_text(RUN)
    run = subprocess.Popen([sys.executable, str(script)], text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while run.stdout.readline() != "step 1\n":
        assert run.poll() is None
    return run


@pytest.mark.parametrize("number, name", [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_signal_ends_the_run_after_its_step(tmp_path: Path, number: int, name: str) -> None:
    run = started(tmp_path)
    run.send_signal(number)
    out, err = run.communicate(timeout=20)
    assert run.returncode == 128 + number
    assert out == "small.py: stopped after step 1\n"
    assert err == f"\n{name}: stops at the end of this step; Ctrl-C: at once\n"


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    run = started(tmp_path)
    run.send_signal(signal.SIGINT)
    assert run.stderr.readline() + run.stderr.readline()  # it has been heard
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=20)
    assert "KeyboardInterrupt" in err and "stopped" not in out
    assert run.returncode == -signal.SIGINT


def test_one_processs_signal_stops_all(tmp_path: Path) -> None:
    script = tmp_path / "small.py"
    script.write_text(RUN.replace("time.sleep(0.3)", """
            import os, signal
            if step == 2 and parallel.rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)"""))
    done = spawn(2, [str(script)], 60)
    assert [d.returncode for d in done] == [143, 143], done[0].stderr
    assert done[0].stdout.endswith("step 2\nsmall.py: stopped after step 2\n")
    assert done[1].stdout == "step 1\nstep 2\n" and not done[1].stderr


def test_the_handlers_before_come_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with stopping() as stop:
        assert stop.asked() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked() == signal.SIGTERM
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_what_stops_the_first_alone_stops_all(tmp_path: Path) -> None:
    """In the toy's cold start the others wait for the first."""
    script = tmp_path / "alone.py"
    script.write_text("""
from nanoaes import parallel
from nanoaes.verbs import EvalConfig
from nanoaes.errors import Stopped
from nanoaes.script import run_script

def make():
    raise Stopped(15, "stopped after step 3")

run_script(lambda cfg: parallel.by_first(make), EvalConfig)
""")
    done = spawn(2, [str(script), "--device", "cpu"], 60)
    assert [d.returncode for d in done] == [143, 143] and not any(d.stderr for d in done)
    assert done[0].stdout.endswith("\nalone.py: stopped after step 3\n") and not done[1].stdout
