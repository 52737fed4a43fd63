"""Scripts in processes of their own, forked from one that has imported torch and transformers.

    run(argv, envs)  ->  this file as a script, one per test worker  ->  a fork per process

Those imports take six seconds of a core, and the tests start some forty processes. A fork becomes
what `python script.py` would be: its own environment, words, streams, exit status.
"""

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from nanoaes.progress import PACE

HERE = Path(__file__).resolve().parent


def run(argv: Sequence[str], envs: Sequence[Mapping[str, str]], timeout: float
        ) -> list[subprocess.CompletedProcess]:
    """A process of the script argv[0] for each environment, at once.

    Raises:
        subprocess.TimeoutExpired: they have been killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = [[f"{folder}/{i}.{stream}" for stream in ("out", "err")] for i in range(len(envs))]
        job = {"argv": argv, "envs": [dict(env) for env in envs], "said": said}
        server().stdin.write(json.dumps(job) + "\n")
        server().stdin.flush()
        if not select.select([server().stdout], [], [], timeout)[0]:
            os.killpg(server().pid, signal.SIGKILL)
            server.cache_clear()
            raise subprocess.TimeoutExpired(argv, timeout)
        codes = json.loads(server().stdout.readline())
        return [subprocess.CompletedProcess(argv, code, *(Path(path).read_text() for path in paths))
                for code, paths in zip(codes, said, strict=True)]


@cache
def server() -> subprocess.Popen:
    """It ends with this process, which held the other end of its stdin."""
    path = os.pathsep.join(map(str, (HERE.parent, HERE)))
    return subprocess.Popen([sys.executable, __file__], text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, start_new_session=True, cwd=HERE.parent,
                            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})


def serve() -> None:
    """A line of JSON in, exit statuses out. Threads do not live through a fork: none may run."""
    import train_rapo  # noqa: F401  it imports what all scripts do

    assert len(os.listdir("/proc/self/task")) == 1
    for line in sys.stdin:
        job, forked = json.loads(line), []
        for env, said in zip(job["envs"], job["said"], strict=True):
            forked.append(os.fork())
            if not forked[-1]:
                return become(job["argv"], env, said)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forked]),
              flush=True)


def become(argv: list[str], env: dict[str, str], said: list[str]) -> None:
    """In a fork: run the script, and end as it does."""
    for number, path in enumerate([os.devnull, *said]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(env)
    sys.argv, sys.path[0] = argv, str(Path(argv[0]).resolve().parent)
    PACE.last = PACE.clock()  # a log's first line is due so long after the process began
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    serve()
