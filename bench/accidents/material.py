"""What a run is given, or computes, is wrong: a model, a picture, numbers that are not finite."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import resume
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_vlm

from accidents.outcome import (
    ON,
    WEIGHTS,
    End,
    Outcome,
    Place,
    copy,
    end_of,
    halve,
    play,
    unlike,
    until,
)

# train_rapo.py, in which something is not finite.
POISONED = """
import sys
sys.path.insert(0, {root!r})
import torch, train_rapo
from nanoaes.config import RAPOConfig
from nanoaes.script import run_script
update, loss = train_rapo.update, train_rapo.rapo_loss

def nan_loss(*args, **options):
    return {{name: x * torch.nan for name, x in loss(*args, **options).items()}}

def poisoned(cfg, policy, *args, step, **more):
    train_rapo.rapo_loss = nan_loss if step + 1 in {losses} else loss
    row = update(cfg, policy, *args, step=step, **more)
    if step + 1 in {weights}:
        with torch.no_grad():
            next(policy.parameters()).view(-1)[7] = torch.nan
    return row

train_rapo.update = poisoned
run_script(train_rapo.main, RAPOConfig)
"""


def model_cut(place: Place) -> Outcome:
    """The weights of the model that is to be trained lack half of their bytes."""
    return refused_model(place, "the model's safetensors cut in half", "bad", halve)


def model_nan(place: Place) -> Outcome:
    """One weight of the model that is to be trained is NaN."""
    def spoil(file: Path) -> None:
        tensors = load_file(file)
        next(iter(tensors.values())).view(-1)[7] = torch.nan
        save_file(tensors, file, metadata={"format": "pt"})

    return refused_model(place, "one weight of the model is NaN", "nan", spoil)


def refused_model(place: Place, what: str, name: str, damage: Callable[[Path], None]) -> Outcome:
    """A new run, where an earlier one's results lie, that starts from a damaged model."""
    run, model = copy(place, f"on_{name}"), place.root / name
    shutil.copytree(place.root / "model", model)
    damage(model / WEIGHTS)
    end = play(run, [*place.options, "--model", str(model)])
    moved = any(run.glob("before-*"))
    return Outcome(f"{what}, then a new run in a folder with results", f"refused with {end.status}"
                   + (", earlier results moved" if moved else ", nothing moved"),
                   end.line("^train_rapo.py: "),
                   unlike(run, place.plain) + ["no refusal"] * (end.status == 0))


def picture_spoilt(place: Place) -> Outcome:
    """A picture that was whole at the start is overwritten with rubbish."""
    run = place.root / "picture"
    (process,) = resume.launch(run, place.options)
    until(run, 4, process)
    process.send_signal(signal.SIGSTOP)
    picture = Path(resume.read_rows(run / "completions.jsonl")[0]["image"])
    before = picture.read_bytes()
    picture.write_bytes(b"rubbish" * 99)
    process.send_signal(signal.SIGCONT)
    end = end_of(run, [process])
    refused = play(run, place.options + ON)
    picture.write_bytes(before)
    again = play(run, place.options + ON)
    return Outcome("a picture of the training set overwritten with rubbish after step 3",
                   f"ended with {end.status} at its turn; --resume refused with {refused.status}; "
                   f"with the picture back: {again.line('going on after step')}",
                   end.line(picture.name + ".*cannot be decoded"), unlike(run, place.plain))


def nonsense(place: Place) -> Outcome:
    """The model has random weights: nothing that it says can be read."""
    model, run = place.root / "untrained", place.root / "nonsense"
    tiny_vlm().save(model)
    end = play(run, [*place.options, "--model", str(model)])
    same = load_file(model / WEIGHTS)
    kept = load_file(run / "rapo" / WEIGHTS)
    lost = ["the cold start"] * any(not torch.equal(x, kept[n]) for n, x in same.items())
    lost += [f"the run ended with {end.status}"] * (end.status != 0)
    return Outcome("a model of random weights: no answer can be read",
                   f"ended with {end.status} after {len(resume.rows_of(run)) - 1} steps; the best "
                   "is the cold start", end.line("of the answers were read"), lost)


def collapsed(place: Place) -> Outcome:
    """A learning rate a thousand times too high: what could be read turns into nonsense."""
    run = place.root / "collapsed"
    end = play(run, [*place.options, "--lr", "0.3"])
    rows, best = resume.rows_of(run), json.loads((run / "rapo" / "heldout.json").read_text())
    lost = ["the best is worse than the cold start"] * (best["score"] < rows[0]["eval_score"])
    lost += [f"the run ended with {end.status}"] * (end.status != 0)
    return Outcome("a learning rate a thousand times too high",
                   f"{rows[1]['parse_rate']:.0%} of the answers readable at step 1, "
                   f"{rows[-1]['parse_rate']:.0%} at the last; ended with {end.status}; the best, "
                   f"of step {best['step']}: {best['score']:.2f} (cold start "
                   f"{rows[0]['eval_score']:.2f}, last {rows[-1]['eval_score']:.2f})",
                   end.line(r"^step \d+: .*(of the answers were|collapse)"), lost)


def poisoned(place: Place, run: Path, losses: tuple[int, ...] = (), weights: tuple[int, ...] = ()
             ) -> End:
    """A run whose loss, or a weight after the update, is NaN at those steps."""
    script = run.with_suffix(".py")
    script.write_text(POISONED.format(root=str(resume.ROOT), losses=losses, weights=weights))
    return play(run, place.options, start=(str(script),))


def one_nan(place: Place) -> Outcome:
    """The loss of one step is NaN."""
    run = place.root / "nan1"
    end = poisoned(place, run, losses=(5,))
    rows = resume.rows_of(run)
    skipped = [row["step"] for row in rows if row.get("skipped")]
    lost = [f"steps {skipped} were skipped"] * (skipped != [5])
    lost += [f"the run ended with {end.status}"] * (end.status != 0)
    lost += ["weights"] * any(not x.isfinite().all() for x in resume.tensors(run).values())
    return Outcome("the loss of step 5 is NaN", f"skipped and counted; ended with {end.status} "
                   f"after step {rows[-1]['step']}, all weights finite",
                   end.line("step 5: .*this step is skipped"), lost)


def three_nans(place: Place) -> Outcome:
    """The loss of three steps in a row is NaN; then without that, from an earlier state."""
    run = place.root / "nan3"
    end = poisoned(place, run, losses=(5, 6, 7))
    return recovered(place, run, end, "the loss of steps 5, 6 and 7 is NaN",
                     "3 steps in a row are not finite")


def nan_weight(place: Place) -> Outcome:
    """A weight becomes NaN before a state is saved, which would be of no use."""
    run = place.root / "nanw"
    end = poisoned(place, run, weights=(4,))
    return recovered(place, run, end, "a weight becomes NaN in step 4, before its state is saved",
                     "after step 4 is not finite")


def recovered(place: Place, run: Path, end: End, what: str, words: str) -> Outcome:
    """From the state of step 4, or an earlier one, the run is as if nothing had been."""
    had = resume.states(run)
    shutil.rmtree(run / "resume" / "step-000006", ignore_errors=True)  # as it was told
    again = play(run, place.options + ON)
    return Outcome(what, f"ended with {end.status}, states of steps {had}; from an earlier one: "
                   + again.line("going on after step"), end.line(words),
                   unlike(run, place.plain))
