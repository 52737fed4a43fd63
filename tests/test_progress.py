"""Progress in a log file: whole lines, few of them; on a terminal a bar; no sign that breaks it."""

import io
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from nanoaes.progress import LogBar, Pace, progress, say

ROOT = Path(__file__).parents[1]
RUN = """
import sys
from nanoaes.progress import Pace, progress, say
now = [0.0]
pace = Pace(10, lambda: now[0])
for step in (bar := progress(range(100), "outer", pace=pace)):
    now[0] += 0.5
    bar.set_postfix(reward="0.5")
    if step % 25 == 0:
        with progress(None, "inner", 4, keep=False, pace=pace) as inner:
            for _ in range(4):
                now[0] += 1
                inner.update(1)
say("3 \u2013 4 \\udcff")
"""


def run(**streams: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", RUN], cwd=ROOT, **streams,
                            env=os.environ | {"PYTHONIOENCODING": "ascii"})


def test_a_log_file_gets_a_line_every_ten_seconds(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = run(stderr=log, stdout=subprocess.PIPE)
    assert process.communicate()[0] == b"3 ? 4 ?\n" and process.returncode == 0
    log = (tmp_path / "log").read_bytes()
    lines = log.decode("ascii").splitlines()
    # 100 halves and 4 times 4 seconds are 66: the line of the 10th, 20th, ... second, at the tick
    # behind it, whichever bar's that is.
    assert len(lines) == 6 and b"\r" not in log and log.endswith(b"\n")
    assert lines[0] == "outer: 12/100 [00:10<01:13,  1.20it/s, reward=0.5]"
    assert {line.split(":")[0] for line in lines} == {"outer", "inner"}


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = run(stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 1 << 16):
            shown += part
    except OSError:  # Linux: the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    assert b"\router: 100%|####" in shown and b"100/100" in shown


def test_the_rate_is_bounded_over_all_bars_together(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    now = [0.0]
    pace = Pace(10, lambda: now[0])
    bars = [progress(None, str(i), 200, pace=pace) for i in range(5)]
    for second in range(1, 101):
        now[0] = second
        for bar in bars:
            bar.update()
            bar.set_postfix({"a": second})
    assert log.getvalue().count("\n") == 10
    assert log.getvalue().splitlines()[-1] == "0: 100/200 [01:40<01:40,  1.00it/s, a=99]"


def test_a_bar_passes_on_what_it_iterates_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    bar = progress(iter("abc"), "letters", 3)
    assert isinstance(bar, LogBar) and list(bar) == ["a", "b", "c"]
    assert (bar.n, bar.total) == (3, 3)
    assert progress([1, 2]).total == 2


def test_a_log_on_a_full_disk_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", full)
        say("lost")
        for _ in progress(range(3), "lost", pace=Pace(0)):
            pass
        monkeypatch.undo()
        with pytest.raises(OSError):
            full.close()
