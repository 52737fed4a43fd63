"""Does a run survive? A small `train_rapo.py` is killed again and again and goes on each time.

    python bench/resume.py             12 kills (SIGKILL), about 6 minutes on 2 cores
    python bench/resume.py 30 7        30 kills, seed 7 of the moments

Some kills come at a random moment after a step, some while a state or the best model is being
written. What is left at the end is held against a run that nobody disturbed: the best model's files
and the last state to the bit, every row of metrics.jsonl but its timings, every answer. Then two
processes' state goes on in one and one's in two. The last line is JSON.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from models import machine, taught, toy_pictures
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from nanoaes.checkpoint import read_rows

ROOT = Path(__file__).resolve().parent.parent
STEPS, EVERY = 12, 2
SCRIPT = (str(ROOT / "train_rapo.py"),)
KINDS = ("state", "row", "best", "row")  # what a kill waits for
TIMED = {"tokens_per_s", "mfu", "peak_memory", "eval_share"}  # and s_…: of the machine, not the run


def album(root: Path) -> list[str]:
    """Pictures with scores, a model that has learnt to say a number; the options of a small run."""
    pictures = [picture.resize((84, 84)) for picture in toy_pictures(9)]
    for i, picture in enumerate(pictures):
        picture.save(root / f"{i}.png")
    rows = [f"{i}.png,{i / 8:.3f}" for i in range(9)]
    (root / "a.csv").write_text("\n".join(["image,score", *rows]) + "\n")
    taught(pictures, steps=60).save(root / "model")
    csv = f"csv:{root / 'a.csv'}@0-1"
    given = {"model": root / "model", "train": csv, "test_in": csv, "heldout": 3, "images": 6,
             "k": 4, "steps": STEPS, "max_new_tokens": 32, "eval_every": 3, "device": "cpu",
             "save_every": EVERY, "keep_last": 2, "log_every": 1, "warmup": 2}
    return [str(x) for name, value in given.items() for x in (f"--{name}", value)]


def launch(run: Path, options: list[str], world: int = 1, start: Sequence[str] = SCRIPT
           ) -> list[subprocess.Popen]:
    """`world` processes of one run, as torchrun starts them; what they say goes to RUN.log.

    start: what Python is to run.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    names = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE=str(world))
    with run.with_suffix(".log").open("a") as log:
        return [subprocess.Popen(
            [sys.executable, *start, "--run", str(run), *options],
            stdout=log, stderr=log, cwd=ROOT,
            env=env | (names | {"RANK": str(r), "LOCAL_RANK": str(r)} if world > 1 else {}))
            for r in range(world)]


def finish(run: Path, processes: list[subprocess.Popen]) -> None:
    """To its own end."""
    if any(p.wait() for p in processes):
        sys.exit(f"{run} failed:\n" + run.with_suffix(".log").read_text()[-3000:])


def rows_of(run: Path) -> list[dict]:
    """Of metrics.jsonl, without what a clock has measured."""
    path = run / "metrics.jsonl"
    rows = read_rows(path) if path.is_file() else []
    return [{k: v for k, v in row.items() if k not in TIMED and not k.startswith("s_")}
            for row in rows]


def live(run: Path, options: list[str], kind: str, rng: np.random.Generator) -> bool:
    """Start or go on, and kill at a moment of that kind; False if the run ended before."""
    (process,) = launch(run, options)
    goal = len(rows_of(run)) + int(rng.integers(1, 4))

    def ripe() -> bool:
        if kind == "row":
            return len(rows_of(run)) >= goal
        aside = (run / "resume").glob(".step-*") if kind == "state" else run.glob(".rapo.*")
        return next(aside, None) is not None

    while process.poll() is None and not ripe():
        time.sleep(0.001)
    time.sleep(rng.uniform(0, {"row": 0.5, "state": 0.05, "best": 0.05}[kind]))
    killed = process.poll() is None
    process.kill()
    if not killed:
        finish(run, [process])
    process.wait()
    return killed


def states(run: Path) -> list[int]:
    """The steps whose state is whole."""
    return sorted(int(p.name[5:]) for p in (run / "resume").glob("step-*"))


def tensors(run: Path, nth: int = -1) -> dict[str, Tensor]:
    """A state, by default the last: weights, moments, counts."""
    whole = run.with_suffix(".pt")
    dcp_to_torch_save(run / "resume" / f"step-{states(run)[nth]:06d}", whole)
    return torch.load(whole)


def same_bits(run: Path, plain: Path) -> bool:
    """Are both runs' ends the same?"""
    files = sorted(p.name for p in (plain / "rapo").iterdir())
    ours, theirs = tensors(run), tensors(plain)
    return (files == sorted(p.name for p in (run / "rapo").iterdir())
            and all((run / "rapo" / name).read_bytes() == (plain / "rapo" / name).read_bytes()
                    for name in files)
            and ours.keys() == theirs.keys() and states(run) == states(plain)
            and all(torch.equal(x, theirs[name]) for name, x in ours.items())
            and rows_of(run) == rows_of(plain)
            and (run / "completions.jsonl").read_bytes()
            == (plain / "completions.jsonl").read_bytes())


def killed_runs(root: Path, options: list[str], plain: Path, kills: int, seed: int) -> dict:
    """Runs that are killed until there are enough, each then to its end and compared."""
    rng, done, inside, n = np.random.default_rng(seed), 0, 0, 0
    found = {"bit_equal": True, "lost_steps": 0, "doubled_steps": 0}
    while done < kills:
        run, n = root / f"killed{n}", n + 1
        ended = False
        while not ended and done < kills:
            kind = KINDS[done % len(KINDS)]
            ended = not live(run, options, kind, rng)
            done += not ended
            left = [p.name for p in (*run.glob(".rapo.*"), *(run / "resume").glob(".step-*"))]
            inside += bool(left)
            print(f"{run.name}: {'ended' if ended else 'killed'} ({kind}), rows "
                  f"{len(rows_of(run))}, states {states(run)}, half written {left}", flush=True)
        if not ended:
            finish(run, launch(run, options))
        steps = Counter(row["step"] for row in rows_of(run))
        found["lost_steps"] += len(set(range(STEPS + 1)) - set(steps))
        found["doubled_steps"] += sum(steps.values()) - len(steps)
        found["bit_equal"] &= same_bits(run, plain)
    return {"kills": done, "while_writing": inside, **found}


def resharded(root: Path, options: list[str], before: int, after: int) -> Path:
    """A run that `before` processes begin and `after` end."""
    run = root / f"{before}to{after}"
    processes = launch(run, options, before)
    while not states(run) or states(run)[-1] < STEPS - 2 * EVERY:
        if any(p.poll() is not None for p in processes):
            finish(run, processes)
        time.sleep(0.01)
    for process in processes:
        process.kill()
        process.wait()
    print(f"{run.name}: goes on from {states(run)}", flush=True)
    finish(run, launch(run, options, after))
    return run


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference of a weight."""
    return max((x - theirs[name]).abs().max().item() for name, x in ours.items()
               if name.startswith("weight."))


def main() -> None:
    if "--help" in sys.argv:
        print(__doc__)
        return
    kills, seed = ([int(x) for x in sys.argv[1:]] + [12, 0][len(sys.argv) - 1:])[:2]
    print(machine())
    root = Path(tempfile.mkdtemp())
    try:
        options = album(root)
        plain = root / "plain"
        finish(plain, launch(plain, options))
        for row in rows_of(plain):
            print({k: round(v, 4) for k, v in row.items()
                   if k in ("step", "reward", "parse_rate", "kl", "loss", "eval_score")})
        options += ["--resume", "true"]
        found = killed_runs(root, options, plain, kills, seed)
        last, moved = tensors(plain), furthest(tensors(plain), tensors(plain, -2))
        gaps = {f"{a}to{b}": furthest(tensors(resharded(root, options, a, b)), last)
                for a, b in ((2, 1), (1, 2))}
        print(f"largest differences of a weight: {gaps}; {EVERY} steps move one by {moved:.1e}")
        print(json.dumps({**found, "resharded": max(gaps.values()) <= 1e-5,
                          "resharded_gap": max(gaps.values())}))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
