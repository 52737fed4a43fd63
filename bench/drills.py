"""Accidents, played: does nanoaes lose anything, and does it say what happened?

    python bench/drills.py                  all, 11.7 minutes on 2 cores with other work beside
    python bench/drills.py disk nan          those whose name holds one of the words

Each drill does something bad to a small run: it kills it, fills its disk, cuts its files, spoils a
picture, makes numbers NaN, lets a policy cheat its reward, lets a teacher's server die. What is
left is held against what nobody disturbed, to the bit where that is promised. Told per drill: what
was done, what happened, what was lost beyond what is promised, and the line that the user read.
The last line is JSON; the exit status is 1 if anything was lost or passed over in silence.
Left out: crashes of the machine itself (a power cut), GPUs, networks between nodes. Kills at
length: bench/resume.py; a server that misbehaves at length: bench/cot.py.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch; the undisturbed run has one thread, too
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import resume  # noqa: E402
from accidents import LANES  # noqa: E402
from accidents.outcome import Outcome, Place  # noqa: E402
from models import machine  # noqa: E402

Drill = Callable[[Place], Outcome]
STEPS = 8
OWN_MOUNTS = "NANOAES_OWN_MOUNTS"  # set where this script may mount a small disk


def with_mounts() -> None:
    """Begin again where one may mount a small disk without being root, if the system has that."""
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    if OWN_MOUNTS in os.environ or not shutil.which("unshare"):
        return
    if subprocess.run([*own, "true"], stderr=subprocess.DEVNULL).returncode == 0:
        os.environ[OWN_MOUNTS] = "1"
        os.execvp(own[0], [*own, sys.executable, *sys.argv])


def prepare(root: Path) -> Place:
    """Pictures, a model that can answer, and a run that nobody disturbs."""
    options = [*resume.album(root), "--steps", str(STEPS)]
    plain = root / "plain"
    resume.finish(plain, resume.launch(plain, options))
    return Place(root, options, plain)


def in_turn(drills: list[Drill], place: Place) -> dict[str, Outcome]:
    """One after another, each told at once."""
    outcomes = {}
    for drill in drills:
        begun = time.monotonic()
        outcomes[drill.__name__] = o = drill(place)
        print(f"{drill.__name__} ({time.monotonic() - begun:.0f} s)\n   done      {o.what}\n   "
              f"happened  {o.happened}\n   lost      {'; '.join(o.lost) or 'nothing'}\n   "
              f"told      {o.told or 'NOTHING'}", flush=True)
    return outcomes


def play_all(words: list[str], root: Path) -> dict[str, Outcome]:
    """Those whose name holds one of the words, all if there are none; both lanes at once."""
    place = prepare(root)
    lanes = [[drill for drill in lane if not words or any(w in drill.__name__ for w in words)]
             for lane in LANES]
    with ThreadPoolExecutor(len(lanes)) as pool:
        played = [pool.submit(in_turn, lane, place) for lane in lanes]
        return {name: outcome for lane in played for name, outcome in lane.result().items()}


def table(outcomes: dict[str, Outcome]) -> str:
    """A line for each."""
    rows = [("drill", "what was done", "lost", "told"),
            *((name, o.what, str(len(o.lost)), "yes" if o.told else "NO")
              for name, o in outcomes.items())]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(x.ljust(w) for x, w in zip(row, wide, strict=True)).rstrip()
                     for row in rows)


def main() -> int:
    if "--help" in sys.argv:
        print(__doc__)
        return 0
    with_mounts()
    begun, root = time.monotonic(), Path(tempfile.mkdtemp())
    print(machine())
    try:
        outcomes = play_all(sys.argv[1:], root)
    finally:
        shutil.rmtree(root)
    print(table(outcomes))
    lost = sum(len(o.lost) for o in outcomes.values())
    silent = sum(not o.told for o in outcomes.values())
    print(json.dumps({"drills": len(outcomes), "lost": lost, "silent": silent,
                      "minutes": round((time.monotonic() - begun) / 60, 1)}))
    return int(lost + silent > 0)


if __name__ == "__main__":
    sys.exit(main())
