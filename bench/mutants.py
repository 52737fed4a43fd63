"""Do the tests notice a wrong program? Each mutant is the code with one thing wrong.

    python bench/mutants.py                      all of them, about 20 minutes on 2 cores
    python bench/mutants.py --only clip          those whose name, file or text holds "clip"
    python bench/mutants.py --jobs 1             one after another

Every git-tracked file is copied to a temporary folder, one mutation is made there, and the test
files that should notice run, on the CPU, with one thread a process. First they run without a
mutation: they have to pass. A mutant is killed by a test that fails, or by the time limit (a wrong
program may never end; the line says so). One that survives is a hole in the tests, or
`equivalent`: then the table says why. The last line is JSON.

To add one: a line below its file in `mutations/`, with what is wrong, the text as it stands in the
file (exactly once, else the run stops: the tables shall not rot), what replaces it, and the
smallest test file that should fail: "loop" is tests/test_loop.py, "train:judge" its tests with
`-k judge`.
`python bench/mutants.py --only "WHAT IS WRONG"` tries it. A new test file must be tracked by git.
Left out: mutations made by a machine (thousands, most of them equivalent), the Triton kernels
(tests compare every number of theirs with the torch backend's).
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mutations import TABLE
from mutations.mutant import Mutant

ROOT = Path(__file__).resolve().parent.parent

MUTANTS = [Mutant(m.what, m.old, m.new, m.tests, m.equivalent, file)
           for file, mutants in TABLE.items() for m in mutants]


def mutated(m: Mutant) -> str:
    """The whole file with one thing wrong.

    Raises:
        SystemExit: the text is not there exactly once, nothing changes, or it is no Python.
    """
    text = (ROOT / m.file).read_text(encoding="utf-8")
    if text.count(m.old) != 1:
        raise SystemExit(f"{m.file}: {m.what!r} is found {text.count(m.old)} times, not once; "
                         f"correct it in bench/mutations: {m.old!r}")
    wrong = text.replace(m.old, m.new)
    try:
        compile(wrong, m.file, "exec")
    except SyntaxError as error:
        raise SystemExit(f"{m.file}: {m.what!r} is no Python: {error}") from None
    return wrong


def copy_tree(to: Path) -> Path:
    """What git tracks, as it is now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True,
                            text=True).stdout
    for name in filter(None, listed.split("\0")):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, to / name)
    return to


def import_once() -> None:
    """What takes most of a short test's time; each mutant's process is a fork of this one."""
    # No bytecode: a file that changes twice in a second, at the same size, would keep its old one.
    sys.dont_write_bytecode = True
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "1",
                   "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path = [p for p in sys.path if Path(p).resolve() not in (ROOT, ROOT / "bench")]
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForImageTextToText, AutoTokenizer  # noqa: F401
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl  # noqa: F401
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl  # noqa: F401


class Trial:
    """A process in which the tests of one mutant run, or without a mutant some tests."""

    def __init__(self, tree: Path, tests: str, mutant: Mutant | None = None):
        self.tree, self.tests, self.mutant, self.begun = tree, tests, mutant, time.perf_counter()
        self.log = tree.with_name(tree.name + ".log")
        if mutant:
            (tree / mutant.file).write_text(mutated(mutant), encoding="utf-8")
        sys.stdout.flush()
        self.process = os.fork()
        if self.process == 0:
            self._child()

    def _child(self) -> None:
        """Leaves with pytest's exit code."""
        import pytest

        code = 99
        try:
            os.setsid()  # so that what tests have started ends with them
            file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.chdir(self.tree)
            for name, _, k in (part.partition(":") for part in self.tests.split()):
                code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--tb=line",
                                        f"tests/test_{name}.py", *(["-k", k] if k else [])]))
                if code:
                    break
        finally:
            sys.stdout.flush()
            os._exit(code)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    def ended(self, limit: float) -> str | None:
        """"" if all pass, else the test that fails, or that there was no end; None: not yet.

        Raises:
            SystemExit: pytest could not run the tests.
        """
        process, status = os.waitpid(self.process, os.WNOHANG)
        late = not process and self.seconds > limit
        if not process and not late:
            return None
        if late:
            os.killpg(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        if self.mutant:
            shutil.copyfile(ROOT / self.mutant.file, self.tree / self.mutant.file)
        if late:
            return f"no end after {limit:g} s"
        code, told = os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace")
        found = re.search(r"^(?:FAILED|ERROR) (tests/\S+::\S+)", told, re.MULTILINE)
        if code == 0 or (code == 1 and found):
            return found[1] if code else ""
        what = self.mutant.what if self.mutant else "without a mutation"
        raise SystemExit(f"{what}: {self.tests} cannot run (exit code {code}): {told[-2000:]}")


def trials(todo: list[tuple[str, Mutant | None]], trees: list[Path], limit: float
           ) -> Iterator[tuple[Trial, str]]:
    """(trial, what ended it) for each (tests, mutant), as they end; one a tree side by side."""
    free, left, running = list(trees), list(todo), []
    while left or running:
        while left and free:
            running.append(Trial(free.pop(), *left.pop(0)))
        time.sleep(0.05)
        for trial in list(running):
            if (how := trial.ended(limit)) is not None:
                running.remove(trial)
                free.append(trial.tree)
                yield trial, how


def main() -> int:
    """Number of survivors that the table does not explain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="regular expression: name, file or text")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a mutant")
    args = parser.parse_args()
    for m in MUTANTS:
        mutated(m)
    chosen = [m for m in MUTANTS if re.search(args.only, f"{m.what}\n{m.file}\n{m.old}\n{m.new}")]
    if not chosen:
        raise SystemExit(f"--only {args.only}: no mutant is like that")
    import_once()
    killed, survivors, equivalent = 0, [], []
    with tempfile.TemporaryDirectory() as folder:
        trees = [copy_tree(Path(folder) / str(job)) for job in range(args.jobs)]
        names = sorted({name for m in chosen for name in m.tests.split()})
        for trial, how in trials([(name, None) for name in names], trees, 600):
            print(f"without a mutation: {trial.tests} {how or 'passes'}", flush=True)
            if how:
                raise SystemExit("the tests have to pass, or a kill means nothing")
        for trial, how in trials([(m.tests, m) for m in chosen], trees, args.limit):
            m = trial.mutant
            killed += bool(how)
            if not how:
                (equivalent if m.equivalent else survivors).append(f"{m.file}: {m.what}")
                how = f"equivalent: {m.equivalent}" if m.equivalent else "SURVIVES"
            print(f"{m.file:20s} {m.what:47s} {trial.seconds:5.1f} s  {how}", flush=True)
    print(json.dumps({"mutants": len(chosen), "killed": killed, "equivalent": equivalent,
                      "survivors": survivors}))
    return len(survivors)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
