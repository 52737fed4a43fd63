"""N + M steps are N steps, a state on disk, M steps: to the bit; what a crash, a full disk or a
damaged file leaves. Two processes are started once for all their cases (`processes`)."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from nanoaes import checkpoint, parallel
from nanoaes import resume as resume_module
from nanoaes.errors import NotFinite, UserError
from nanoaes.resume import RECORD, Saves

HERE = Path(__file__)


class Net(nn.Module):
    """Odd shapes: no number of processes shares them evenly. `idle` never has a gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(5, 7), nn.Linear(7, 3)
        self.adapter = nn.Parameter(torch.randn(4, 5))
        self.idle = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x + x @ self.adapter.T @ self.adapter).tanh()).square().mean()


class Run:
    """A small training whose gradients are functions of the step, as the real one's are."""

    def __init__(self, sharded: bool = False, **how: Any):
        self.net, self.losses = Net(), []
        if sharded:
            over = init_device_mesh("cpu", (parallel.size(),))
            for unit in (self.net.inner, self.net):
                fully_shard(unit, mesh=over, ignored_params={self.net.adapter})
        self.trained = dict(self.net.named_parameters())
        self.optimizer = torch.optim.AdamW(self.trained.values(), weight_decay=0.1, **how)

    def go(self, start: int, stop: int) -> "Run":
        for step in range(start, stop):
            x = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))
            for group in self.optimizer.param_groups:
                group["lr"] = 0.01 / (1 + step)
            loss = self.net(x)
            loss.backward()
            self.losses.append(loss.item())
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self

    def all(self) -> dict[str, Tensor]:
        """Every number that the next step depends on."""
        return {name: parallel.whole(x).clone()
                for name, x in resume_module.state_of(self.trained, self.optimizer).items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, x in a.items():
        assert x.dtype == b[name].dtype and torch.equal(x, b[name]), name


def save(saves: Saves, run: Run, step: int) -> bool:
    return saves.save(step, run.trained, run.optimizer, {"score": 0.1 + step, "name": "é"})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("how", [{}, {"fused": True}, {"foreach": True}, {"amsgrad": True}],
                         ids=str)
def test_what_goes_on_is_what_went_on(tmp_path: Path, how: dict) -> None:
    saves, run = Saves(tmp_path / "resume", 2), Run(**how).go(0, 5)
    assert saves.facts() is None and saves.load(run.trained, run.optimizer) is None
    assert save(saves, run, 5)
    at_five = run.all()
    run.go(5, 9)
    fresh = Run(**how)
    facts = Saves(tmp_path / "resume", 2).load(fresh.trained, fresh.optimizer)
    assert facts == {"score": 5.1, "name": "é", "step": 5} == saves.facts()
    assert_equal(fresh.all(), at_five)
    assert fresh.go(5, 9).losses == run.losses[5:]
    assert_equal(fresh.all(), run.all())
    assert "exp_avg.idle" not in at_five and at_five["step.adapter"] == 5


def test_only_the_last_ones_stay(tmp_path: Path) -> None:
    saves, run = Saves(tmp_path, 2), Run()
    for step in (999_998, 999_999, 1_000_000):
        save(saves, run.go(0, 1), step)
    assert names(tmp_path) == ["step-1000000", "step-999999"]
    assert saves.facts()["step"] == 1_000_000


def test_a_copy_that_a_person_keeps_is_no_state(tmp_path: Path) -> None:
    saves, run = Saves(tmp_path, 1), Run()
    save(saves, run, 1)
    shutil.copytree(tmp_path / "step-000001", tmp_path / "step-000001.bak")
    assert save(saves, run, 2) and saves.facts()["step"] == 2
    assert names(tmp_path) == ["step-000001.bak", "step-000002"]


@pytest.mark.parametrize("every, there, goes_on, states", [
    (0, 0, False, 0), (5, 0, False, 3), (5, 1, True, 2), (5, 2, True, 1), (5, 2, False, 3)])
def test_room_is_for_what_is_not_there(tmp_path: Path, every: int, there: int, goes_on: bool,
                                       states: int) -> None:
    """A new state beside the oldest of two; earlier runs' will be moved and stay."""
    run = Run()
    for step in range(there):
        save(Saves(tmp_path, 2), run, step + 1)
    room = Saves(tmp_path, 2, every).room(run.trained, goes_on)
    assert room == states * 12 * sum(p.numel() for p in run.trained.values())


class Killed(BaseException):
    """As SIGKILL: no handler runs after it."""


def killed_at(monkeypatch, target: Any, name: str, nth: int, after: bool = False) -> None:
    """The nth call of a function is the process's last deed, or comes too late for it."""
    real, calls = getattr(target, name), []

    def deadly(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) < nth:
            return real(*args, **options)
        if len(calls) == nth and after:
            real(*args, **options)
        raise Killed  # from then on nothing reaches the disk: no clean-up either

    monkeypatch.setattr(target, name, deadly)


@pytest.mark.parametrize("target, name, nth", [
    (dcp, "save", 1), (resume_module, "checksums", 1), (resume_module, "write_json", 1),
    (checkpoint, "_to_disk", 3), (os, "replace", 1), (os, "replace", 2), (os, "replace", 3)])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_leaves_the_old_state_or_the_new_one(
        tmp_path: Path, monkeypatch, target: Any, name: str, nth: int, after: bool) -> None:
    """`os.replace`: of the record, of the folder, of the oldest one that goes."""
    saves, run = Saves(tmp_path, 1), Run().go(0, 2)
    save(saves, run, 2)
    states = {2: run.all()}
    states[4] = run.go(2, 4).all()
    with monkeypatch.context() as during:
        killed_at(during, target, name, nth, after)
        # No clean-up, as after SIGKILL.
        during.setattr(checkpoint, "recover", lambda path: None)
        during.setattr(checkpoint.shutil, "rmtree", lambda *a, **k: None)
        during.setattr(Path, "unlink", lambda *a, **k: None)
        with pytest.raises(Killed):
            save(saves, run, 4)
    fresh = Run()
    step = Saves(tmp_path, 1).load(fresh.trained, fresh.optimizer)["step"]
    assert step == (4 if (name, nth) == ("replace", 3) or (name, nth, after) == ("replace", 2, True)
                    else 2)
    assert_equal(fresh.all(), states[step])
    assert not [left for left in names(tmp_path) if left.startswith(".")]
    assert save(Saves(tmp_path, 1), fresh, 6) and names(tmp_path) == ["step-000006"]


@pytest.mark.parametrize("target, name", [
    (dcp.filesystem.FileSystem, "create_stream"), (resume_module, "write_json"),
    (checkpoint.os, "replace"), (checkpoint.os, "fsync"), (Path, "mkdir")])
def test_a_full_disk_costs_the_new_state_only(tmp_path: Path, monkeypatch, capsys, target: Any,
                                              name: str) -> None:
    saves, run = Saves(tmp_path, 1), Run().go(0, 2)
    save(saves, run, 2)
    before = run.all()
    run.go(2, 3)

    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as during:
        during.setattr(target, name, full)
        assert not save(saves, run, 3)
    said = capsys.readouterr().out.splitlines()
    assert said == ["the state of step 3 is not saved ([Errno 28] No space left on device); the "
                    "run goes on"]
    assert names(tmp_path) == ["step-000002"]
    fresh = Run()
    saves.load(fresh.trained, fresh.optimizer)
    assert_equal(fresh.all(), before)
    assert save(saves, run, 4) and names(tmp_path) == ["step-000004"]


def test_an_error_that_is_not_the_disks_is_not_hidden(tmp_path: Path, monkeypatch) -> None:
    """torch wraps all in a CheckpointException, Ctrl-C too."""
    run = Run()
    for error in (ZeroDivisionError, KeyboardInterrupt):
        def broken(*args: Any, error: type = error, **options: Any) -> None:
            raise error

        monkeypatch.setattr(dcp.FileSystemWriter, "write_data", broken)
        with pytest.raises(error):
            save(Saves(tmp_path, 1), run, 1)
        assert names(tmp_path) == []


def test_parts_that_lie_on_another_nodes_disk_are_missed(tmp_path: Path, monkeypatch) -> None:
    real = dcp.save

    def elsewhere(state: dict, storage_writer: Any, **options: Any) -> Any:
        done = real(state, storage_writer=storage_writer, **options)
        (storage_writer.path / "__0_0.distcp").unlink()
        return done

    monkeypatch.setattr(dcp, "save", elsewhere)
    with pytest.raises(UserError, match="does not see __0_0.distcp.*a disk that all nodes share"):
        save(Saves(tmp_path, 1), Run(), 1)
    assert names(tmp_path) == []


def flip(path: Path) -> None:
    """One bit in the middle, where torch looks at nothing."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 16
    path.write_bytes(raw)


@pytest.mark.parametrize("part, damage, said", [
    ("__0_0.distcp", flip, "__0_0.distcp is not what was written"),
    ("__0_0.distcp", Path.unlink, "__0_0.distcp is not what was written"),
    ("__0_0.distcp", lambda path: os.truncate(path, 100), "__0_0.distcp is not what"),
    (".metadata", flip, ".metadata is not what was written"),
    (RECORD, Path.unlink, f"{RECORD}: .*No such file"),
    (RECORD, lambda path: path.write_bytes(b"\0" * 50), f"{RECORD}: Expecting value")])
def test_a_damaged_state_is_named_and_the_one_before_serves(
        tmp_path: Path, part: str, damage: Callable, said: str) -> None:
    saves, run = Saves(tmp_path, 2), Run()
    for step in (1, 2):
        save(saves, run.go(step - 1, step), step)
    damage(tmp_path / "step-000002" / part)
    fresh = Run()
    with pytest.raises(UserError, match=f"step-000002 is damaged .{said}.*delete it: the one "
                                        "before") as error:
        saves.load(fresh.trained, fresh.optimizer)
    assert "\n" not in str(error.value)
    (tmp_path / "step-000002").rename(tmp_path / "away")
    assert saves.load(fresh.trained, fresh.optimizer)["step"] == 1


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", ["weight", "exp_avg_sq"])
def test_a_state_of_no_use_takes_no_ones_place(tmp_path: Path, part: str, wrong: float) -> None:
    saves, run = Saves(tmp_path, 1), Run().go(0, 2)
    save(saves, run, 2)
    before = run.all()
    with torch.no_grad():
        resume_module.state_of(run.trained, run.optimizer)[f"{part}.outer.weight"][1, 3] = wrong
    with pytest.raises(NotFinite, match=f"^{part}.outer.weight after step 3 is not finite"):
        save(saves, run, 3)
    assert names(tmp_path) == ["step-000002"]
    fresh = Run()
    saves.load(fresh.trained, fresh.optimizer)
    assert_equal(fresh.all(), before)


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    save(Saves(tmp_path, 1), Run(), 1)
    other = Run()
    other.trained["more"] = torch.zeros(2)
    with pytest.raises(UserError, match="step-000001 is damaged .*weight.more"):
        Saves(tmp_path, 1).load(other.trained, other.optimizer)


# --- two processes -------------------------------------------------------------------------------


def processes(root: Path) -> None:
    """What each of two does, in this order; its findings go into RANK.pt."""
    found: dict[str, Any] = {}
    with parallel.together("cpu"):
        one = Run(sharded=True)  # what a single process saved
        found["facts"] = Saves(root / "one", 1).load(one.trained, one.optimizer)
        found["from one"] = one.all()
        two, saves = Run(sharded=True).go(0, 3), Saves(root / "two", 1)
        save(saves, two, 3)
        found["two"] = two.all()
        found["went on"] = two.go(3, 5).all()
        fresh = Run(sharded=True)
        saves.load(fresh.trained, fresh.optimizer)
        found["resumed"] = fresh.go(3, 5).all()
        went = full_on_the_second(saves, two)
        found["full"] = went, parallel.by_first(lambda: names(root / "two"))
        if parallel.first():
            flip(root / "two" / "step-000003" / "__1_0.distcp")
        try:
            saves.load(fresh.trained, fresh.optimizer)
        except UserError as error:
            found["damaged"] = str(error)
        if parallel.first():
            flip(root / "two" / "step-000003" / "__1_0.distcp")
        if parallel.rank() == 1:
            two.trained["inner.bias"].detach().to_local().fill_(torch.nan)
        try:
            save(saves, two, 6)
        except NotFinite as error:
            found["not finite"] = str(error)
        torch.save(found, root / f"{parallel.rank()}.pt")


def full_on_the_second(saves: Saves, run: Run) -> list[bool]:
    """A disk that only the second process finds full: first for its part, then for its sums."""
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    went = []
    for target, name in ((dcp.FileSystemWriter, "write_data"), (resume_module, "checksums")):
        real = getattr(target, name)
        if parallel.rank() == 1:
            setattr(target, name, full)
        went.append(save(saves, run, 5))
        setattr(target, name, real)
    return went


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, list[dict[str, Any]], list[str]]:
    from ranks import spawn  # here: the processes themselves need not load the scripts

    root = tmp_path_factory.mktemp("two")
    save(Saves(root / "one", 1), Run().go(0, 3), 3)
    done = spawn(2, [str(HERE), str(root)], 120)
    assert [d.returncode for d in done] == [0, 0], done[0].stderr + done[1].stderr
    found = [torch.load(root / f"{r}.pt", weights_only=False) for r in range(2)]
    return root, found, [d.stdout for d in done]


def test_one_processs_state_goes_on_in_two(two: tuple) -> None:
    for found in two[1]:
        assert found["facts"] == {"score": 3.1, "name": "é", "step": 3}
        assert_equal(found["from one"], Run().go(0, 3).all())


def test_two_processes_state_goes_on_in_one(two: tuple) -> None:
    root, found, _ = two
    alone = Run()
    assert Saves(root / "two", 1).load(alone.trained, alone.optimizer)["step"] == 3
    assert_equal(alone.all(), found[0]["two"])
    assert alone.trained["outer.weight"].abs().sum() > 0


def test_two_processes_go_on_to_the_bit(two: tuple) -> None:
    for found in two[1]:
        assert_equal(found["resumed"], found["went on"])


def test_what_both_hold_is_written_once(two: tuple) -> None:
    """And each writes its own part of the rest."""
    folder = two[0] / "two" / "step-000003"
    index = dcp.FileSystemReader(folder).read_metadata().storage_data
    places = {}
    for key, where in index.items():
        places.setdefault(key.fqn, set()).add(where.relative_path)
    assert all(len(places[f"{kind}.adapter"]) == 1 for kind in ("weight", "exp_avg", "step"))
    assert places["weight.inner.weight"] == {"__0_0.distcp", "__1_0.distcp"}
    assert names(folder) == [".metadata", "__0_0.distcp", "__1_0.distcp", RECORD]


def test_a_full_disk_of_one_is_everybodys(two: tuple) -> None:
    for found in two[1]:
        assert found["full"] == ([False, False], ["step-000003"])
    assert two[2][0].count("the state of step 5 is not saved ([Errno 28]") == 2
    assert two[2][1] == ""


def test_damage_is_told_to_both(two: tuple) -> None:
    told = {found["damaged"] for found in two[1]}
    assert len(told) == 1 and "step-000003 is damaged (__1_0.distcp" in told.pop()


def test_a_nan_of_one_is_told_to_both(two: tuple) -> None:
    for found in two[1]:
        assert found["not finite"].startswith("weight.inner.bias after step 6 is not finite")


if __name__ == "__main__":
    torch.set_num_threads(1)
    processes(Path(sys.argv[1]))
