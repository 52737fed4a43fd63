"""Two and four processes do what one does: answers, rewards, gradients, weights; errors end all.

Each number of processes is started once for all cases (tests/ranks.py), on the CPU with gloo.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
import warm
from ranks import CASES, HERE, N, spawn
from test_going_on import TIMED
from tiny import pictures, tiny_vlm

import train_rapo
from nanoaes import parallel
from nanoaes.config import RAPOConfig
from nanoaes.errors import UserError
from nanoaes.parallel import everyone, share

ROOT = Path(__file__).parent.parent
WORLDS = {"2": (2, {}), "4": (4, {"CASES": "qwen3"}),
          "2x2": (4, {"SHARD": "2", "CASES": "qwen3"})}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    ranks.models_folder(root)
    return root


def results(folders: Path, out: Path, world: int, **more: str) -> list[dict[str, Any]]:
    """What each process found."""
    for done in spawn(world, [str(HERE), str(folders), str(out)], **more):
        assert done.returncode == 0, done.stderr
    return [torch.load(out / f"{r}.pt", weights_only=False) for r in range(world)]


@pytest.fixture(scope="module")
def alone(folders: Path, tmp_path_factory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("alone")
    done, = warm.run([str(HERE), str(folders), str(out)], [os.environ], 240)
    assert done.returncode == 0, done.stderr
    return torch.load(out / "0.pt", weights_only=False)


@pytest.fixture(scope="module", params=WORLDS)
def worlds(request, folders: Path, tmp_path_factory) -> list[dict[str, Any]]:
    world, more = WORLDS[request.param]
    return results(folders, tmp_path_factory.mktemp("out"), world, **more)


def test_processes_do_what_one_does(worlds: list[dict], alone: dict) -> None:
    for name in CASES:
        for one in worlds:
            if name in one:
                assert_same(one[name], alone[name], name)


def assert_same(got: dict, want: dict, name: str) -> None:
    """Bounds: answers token for token, gradients 1e-6 (fp64 1e-10), weights 1e-5."""
    steps = 1 if name == "bf16" else ranks.STEPS  # bf16 rounds the first update otherwise
    assert got["answers"][:steps] == want["answers"][:steps], name
    assert len({text for row in want["answers"][0] for text in row}) > N
    for a, b in zip(got["rewards"][:steps], want["rewards"][:steps], strict=True):
        assert torch.equal(a, b), name
    bound = {"fp64": 1e-10, "bf16": 2e-4}.get(name, 1e-6)
    assert got["gradients"].keys() == want["gradients"].keys()
    assert max(g.abs().max() for g in want["gradients"].values()) > 50 * bound
    for key, gradient in want["gradients"].items():
        assert (got["gradients"][key] - gradient).abs().max() <= bound, (name, key)
    for part in ("weights", "spoken"):
        assert got[part].keys() == want[part].keys()
        for key, weight in want[part].items():
            assert (got[part][key] - weight).abs().max() <= (1e-2 if name == "bf16" else 1e-5)
    for ours, theirs in zip(got["rows"][:steps], want["rows"][:steps], strict=True):
        assert ours == pytest.approx(theirs, rel=2e-2 if name == "bf16" else 1e-4, abs=2e-5), name


def test_processes_had_micro_batches_of_different_numbers(worlds: list[dict]) -> None:
    """Else nothing is tested: who has fewer has to fill up."""
    assert any(len({tuple(one[name]["raw"]) for one in worlds}) > 1
               for name in CASES if name in worlds[0])
    for name in CASES:
        if name in worlds[0]:
            assert len({tuple(one[name]["counts"]) for one in worlds}) == 1


def test_the_cold_start_is_the_same(worlds: list[dict], alone: dict) -> None:
    for one in worlds:
        for ours, theirs in zip(one["sft"]["rows"], alone["sft"]["rows"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
        for key, weight in alone["sft"]["weights"].items():
            assert (one["sft"]["weights"][key] - weight).abs().max() <= 1e-5, key


def test_the_weights_lay_in_parts(worlds: list[dict]) -> None:
    for one in worlds:
        assert one["qwen3"]["held"] <= 0.62 * one["qwen3"]["all"]


@pytest.mark.parametrize("n", [2, 7, 64])
def test_shares_are_everything_once(n: int, monkeypatch) -> None:
    for world in (1, 2, 5):
        monkeypatch.setattr(parallel, "size", lambda world=world: world)
        parts = []
        for rank in range(world):
            monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
            parts += share(n)
        assert parts == list(range(n))


def test_each_process_has_a_gpu_of_its_own(monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    for there, auto in ((True, "cuda:3"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert str(parallel.device("auto")) == auto and str(parallel.device("cuda")) == "cuda:3"
        assert str(parallel.device("cuda:1")) == "cuda:1" and str(parallel.device("cpu")) == "cpu"


def test_one_process_notices_nothing() -> None:
    sums = {"a": torch.tensor(1.0)}
    assert parallel.total(sums) is sums and everyone([1]) == [1] and parallel.most(3) == 3
    assert parallel.even([[0, 1], [2]]) == [([0, 1], 1.0), ([2], 1.0)]
    with pytest.raises(UserError, match="^mine$"):
        parallel.by_first(lambda: (_ for _ in ()).throw(UserError("mine")))


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """Pictures with scores and an untrained model beside them."""
    root = tmp_path_factory.mktemp("album")
    for i, picture in enumerate(pictures(9)):
        picture.save(root / f"{i}.png")
    rows = [f"{i}.png,{i / 8:.3f}" for i in range(9)]
    (root / "a.csv").write_text("\n".join(["image,score", *rows]) + "\n")
    tiny_vlm().save(root / "model")
    return root


def options(album: Path, run: Path, **more: str) -> list[str]:
    """A small run of one's own pictures."""
    csv = f"csv:{album / 'a.csv'}@0-1"
    given = {"run": run, "model": album / "model", "train": csv, "test_in": csv, "heldout": "3",
             "images": "4", "k": "2", "steps": "2", "max_new_tokens": "6", "eval_every": "1",
             "device": "cpu", **more}
    return [str(x) for name, value in given.items() for x in (f"--{name}", value)]


def test_torchrun_trains_evaluates_and_writes_once(album: Path, tmp_path: Path) -> None:
    """README's command on two processes: one table, one row per step, the folder of the best."""
    script, told = str(ROOT / "train_rapo.py"), []
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                "2", "--", script]
    for world in 1, 2:
        run = tmp_path / str(world)
        if world == 1:
            done, = warm.run([script, *options(album, run)], [os.environ], 300)
        else:
            done = subprocess.run([*torchrun, *options(album, run)], capture_output=True, text=True,
                                  timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0 and done.stdout.count("\nRAPO ") == 1, done.stderr
        rows = ranks.read_rows(run / "metrics.jsonl")
        assert [row["step"] for row in rows] == [0, 1, 2]
        assert (run / "report.html").is_file() and (run / "rapo" / "config.json").is_file()
        told.append((rows, (run / "eval_RAPO.json").read_text()))
    for one, two in zip(told[0][0], told[1][0], strict=True):
        assert {k: v for k, v in two.items() if k not in TIMED} == pytest.approx(
            {k: v for k, v in one.items() if k not in TIMED}, rel=1e-3, abs=1e-4)


def test_fewer_pictures_than_processes_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(parallel, "size", lambda: 4)
    parallel.enough("--images", 4)
    with pytest.raises(UserError, match="^--images 3: 4 processes need one each"):
        train_rapo.main(RAPOConfig(images=3))


@pytest.mark.parametrize("more, said", [
    ({"model": "none"}, "none"), ({"shard": "3"}, "--shard 3"),
    ({"shar": "3"}, "--shar is no option")])
def test_an_error_is_one_line_of_the_first_and_ends_all(more: dict, said: str, album: Path,
                                                        tmp_path: Path) -> None:
    done = spawn(2, [str(ROOT / "train_rapo.py"), *options(album, tmp_path / "run", **more)], 90)
    assert all(d.returncode == 1 for d in done)
    lines = "".join(d.stderr for d in done).strip().splitlines()
    assert len(lines) == 1 and said in lines[0], lines
    assert done[0].stderr and not any(d.stderr for d in done[1:])


REFUSED = """
import shutil, sys
from dataclasses import replace
from pathlib import Path
import train_rapo
from nanoaes.config import RAPOConfig
from nanoaes.errors import UserError
from nanoaes.options import parse
from nanoaes.parallel import by_first, everyone, together
from test_checks import DAMAGES
from tiny import tiny_vlm

here, cfg = Path(sys.argv[1]), parse(RAPOConfig, sys.argv[2:])
def refused(**but):
    try:
        train_rapo.main(replace(cfg, **but))
        said = "nothing"
    except UserError as error:
        said = str(error)
    assert len(set(everyone([said]))) == 1, everyone([said])
    return said

with together("cpu"):
    for name in ("text only", "impossible sizes", "pickles", "shard lost", "no image token", "NaN"):
        folder = here / "damaged"
        by_first(lambda: (shutil.rmtree(folder, ignore_errors=True), tiny_vlm().save(folder),
                          DAMAGES[name][0](folder))[0])
        said = refused(model=str(folder))
        assert said != "nothing" and said.count(chr(10)) == 0, (name, said)
    assert not (here / "run" / "metrics.jsonl").exists()
    train_rapo.main(replace(cfg, save_every=1))
    said = refused(resume=True, lr=0.5)
    assert "lr: saved" in said, said
    tiny_vlm(1).save(here / "other")
    said = refused(resume=True, model=str(here / "other"))
    assert "weights: saved" in said, said
"""


def test_two_processes_refuse_alike_what_one_refuses(album: Path, tmp_path: Path) -> None:
    """Damaged folders, a run of other options, a run of another model; and nobody waits."""
    script = tmp_path / "refused.py"
    script.write_text(REFUSED)
    done = spawn(2, [str(script), str(tmp_path), *options(album, tmp_path / "run")], 120)
    assert [d.returncode for d in done] == [0, 0], done[0].stderr + done[1].stderr


LONELY = """
import sys, torch.distributed as dist
from nanoaes.verbs import EvalConfig
from nanoaes.errors import UserError
from nanoaes.parallel import rank
from nanoaes.script import run_script
def main(cfg):
    if rank() == 1:
        {end}
    dist.barrier()
run_script(main, EvalConfig)
"""


@pytest.mark.parametrize("end, status, said", [
    ("raise UserError('my disk')", 1, "process 1: ones.py: my disk"),
    ("raise ZeroDivisionError", 1, "ZeroDivisionError"), ("sys.exit(7)", 7, "")])
def test_an_error_of_one_process_is_its_own_and_ends_the_others(end: str, status: int, said: str,
                                                                tmp_path: Path) -> None:
    script = tmp_path / "ones.py"
    script.write_text(LONELY.format(end=end))
    zero, one = spawn(2, [str(script), "--device", "cpu"], 60)
    assert one.returncode == status and said in one.stderr
    assert zero.returncode == 1
    assert zero.stderr.strip() == "ones.py: another process has ended; see its error"
