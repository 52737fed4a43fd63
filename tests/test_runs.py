"""No run destroys another: locks between processes, full disks, results on top of their source."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from nanoaes.checkpoint import publish
from nanoaes.errors import UserError
from nanoaes.runs import claim, hold_file, keep_going, need_room, refuse_foreign, refuse_overwrite

ROOT = Path(__file__).parents[1]
HOLDER = """
import os, sys, time
from pathlib import Path
from nanoaes.runs import claim
with claim(Path(sys.argv[1]), "holder.py"):
    child = os.fork() if sys.argv[2] == "fork" else 0
    if child or sys.argv[2] != "fork":
        print(child, flush=True)
    time.sleep(60)
"""


def hold(run: Path, how: str = "alone") -> tuple[subprocess.Popen, int]:
    """Another process that holds `run`, and its child if it forked one."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(run), how], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    with process.stdout as said:
        return process, int(said.readline())


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    process, _ = hold(tmp_path / "run")
    try:
        with (pytest.raises(UserError, match=f"in use by holder.py, process {process.pid} on .*"
                            r" since \d{4}-.*\d\d:\d\d; choose another --run"),
              claim(tmp_path / "run", "second.py")):
            pass
        with claim(tmp_path / "other", "second.py"):
            pass
    finally:
        process.kill()
        process.wait()
    with claim(tmp_path / "run", "second.py"):  # kill -9 left no lock
        pass


def test_a_worker_that_outlives_its_killed_parent_holds_nothing(tmp_path: Path) -> None:
    process, child = hold(tmp_path, "fork")
    process.kill()
    process.wait()
    try:
        os.kill(child, 0)  # it lives
        for _ in range(100):  # it drops the lock when it first runs, which may be a little later
            with suppress(UserError), claim(tmp_path, "second.py"):
                return
            time.sleep(0.05)
        pytest.fail("the child keeps the lock")
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_claim_within_a_claim_is_none_and_frees_nothing(tmp_path: Path) -> None:
    run, link = tmp_path / "run", tmp_path / "link"
    run.mkdir()
    link.symlink_to(run)
    with claim(run, "outer.py"):
        with claim(link, "inner.py"):
            assert (run / ".lock").read_text().startswith(f"outer.py, process {os.getpid()} on ")
        assert is_locked(run)
    assert not is_locked(run)


def test_a_claim_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), claim(tmp_path, "a.py"):
        raise RuntimeError
    assert not is_locked(tmp_path)


def is_locked(run: Path) -> bool:
    with (run / ".lock").open() as file:  # its own open file: to flock, another's
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_disk_without_locks_costs_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with claim(tmp_path, "a.py"), claim(tmp_path, "b.py"):
        pass
    assert capsys.readouterr().out.count("no locks") == 1


def test_a_file_is_held_by_one_and_not_by_its_orphans(tmp_path: Path) -> None:
    out = tmp_path / "new/scores.jsonl"
    with hold_file(out, "--out"):
        # To flock, another open file is another's.
        with (pytest.raises(UserError, match="in use by another process; choose another --out"),
              hold_file(out, "--out")):
            pass
        with hold_file(tmp_path / "other.jsonl", "--out"):
            pass
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.write(write, b"x")
            time.sleep(60)
            os._exit(0)
        os.read(read, 1)  # it has let go of what it inherited
    try:
        with hold_file(out, "--out"):
            assert out.read_bytes() == b""
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with pytest.raises(UserError, match="cannot be written"), hold_file(tmp_path, "--out"):
        pass


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/run", "x" * 300])
def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with (pytest.raises(UserError, match="file.*choose another --run|cannot be written.*--run"),
          claim(tmp_path / place, "a.py")):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_room_is_asked_for_where_no_folder_is_yet(tmp_path: Path) -> None:
    need_room(tmp_path / "a" / "b", 1, "a checkpoint")
    with pytest.raises(UserError, match=r"two checkpoints needs 1000000000.0 GB .* [GM]B are free"):
        need_room(tmp_path / "a" / "b", 10**18, "two checkpoints")
    assert not (tmp_path / "a").exists()


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file beyond 64 kB: the same errors as a full disk's, with another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


BIG = 1 << 18
WRITERS: dict[str, Callable[[Path], object]] = {
    "python": lambda path: path.write_bytes(bytes(BIG)),
    "safetensors": lambda path: save_file({"a": np.zeros(BIG)}, path),
    "tokenizers": lambda path: Tokenizer(models.WordLevel(
        {str(i): i for i in range(BIG // 16)}, unk_token="0")).save(str(path)),
    "torch": lambda path: torch.save(torch.zeros(BIG), path),
}


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_costs_the_checkpoint_only(tmp_path: Path, writer: str, capsys) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "a").write_text("old")
    with keep_going("step 40") as saving, publish(tmp_path / "best") as folder:
        WRITERS[writer](folder / "a")
    (said,) = capsys.readouterr().out.splitlines()
    assert not saving.done
    assert said.startswith("step 40 is not saved (") and said.endswith("the run goes on")
    assert (tmp_path / "best" / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_a_save_that_went_well_is_done(capsys) -> None:
    with keep_going("step 40") as saving:
        pass
    assert saving.done and capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [ValueError("bug"), Exception("bug"), KeyboardInterrupt(),
                                   OSError("transformers: no such model")])
def test_what_is_not_the_disks_fault_ends_the_run(error: BaseException) -> None:
    with pytest.raises(type(error)), keep_going("step 40"):
        raise error


@pytest.mark.parametrize(("source", "target"), [
    ("a", "a"), ("a", "b/../a"), ("a", "link"), ("a/b", "a"), ("a", "a/b/c")])
def test_no_result_on_top_of_its_source(tmp_path: Path, source: str, target: str) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match="--out .*would overwrite"):
        refuse_overwrite(tmp_path / source, tmp_path / target, "--out")


def test_a_result_beside_its_source(tmp_path: Path) -> None:
    refuse_overwrite(tmp_path / "a", tmp_path / "ab", "--out")


def test_a_result_replaces_results_only(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "new", "--out")
    refuse_foreign(tmp_path, "--out")  # empty
    (tmp_path / "letter").write_text("dear")
    for mine in (tmp_path, tmp_path / "letter"):
        with pytest.raises(UserError, match="--out .*something else"):
            refuse_foreign(mine, "--out")
    (tmp_path / "config.json").write_text("{}")
    refuse_foreign(tmp_path, "--out")
