"""Which checkpoint is kept: the best on the held-out pictures, the cold start if none is better."""

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanoaes import evaluation
from nanoaes.checkpoint import read_rows, write_json
from nanoaes.config import RAPOConfig
from nanoaes.datasets import Example
from nanoaes.errors import UserError
from nanoaes.evaluation import RECORD, Best, recorded
from nanoaes.metrics import evaluate
from nanoaes.readout import Score

TRUTH = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
PERFECT = TRUTH
GOOD = [0.3, 0.2, 0.3, 0.5, 0.4, 0.8, 0.6, 0.9]
POOR = [0.5, 0.2, 0.6, 0.9, 0.1, 0.7, 0.3, 0.8]
LUCKY = [0.1, 0.2, 0.3, *[None] * 5]  # three readable answers, in perfect order
REVERSED = TRUTH[::-1]


class Policy(SimpleNamespace):
    """Writes its name; its answers are scripted: what is expected, and what is written (the same
    where only one is given)."""

    def save(self, folder: Path) -> None:
        (folder / "name").write_text(self.name)


def told(scores: list[float | None], numbers: list[float | None]) -> list[Score]:
    return [Score(s, "I cannot tell" if n is None else f"<answer>{n}</answer>")
            for s, n in zip(scores, numbers, strict=True)]


@pytest.fixture
def best(tmp_path: Path, monkeypatch) -> Best:
    """Of one held-out set, all but the model's answering real."""
    def answers(vlm, examples, places, reading):
        assert reading.readout == "expect"
        scores = told(vlm.scores, vlm.numbers)
        yield [evaluation.item_of(examples[i], scores[i]) for i in places]

    monkeypatch.setattr(evaluation, "answers", answers)
    held = [Example(Path(f"{i}.png"), t, None, "a", (0.0, 1.0)) for i, t in enumerate(TRUTH)]
    return Best(tmp_path / "rapo", tmp_path / "metrics.jsonl", {"a": ("in", held)}, RAPOConfig(),
                None)


def policy(name: str, scores: list[float | None], numbers: list[float | None] | None = None
           ) -> Policy:
    return Policy(name=name, scores=scores, numbers=numbers or scores,
                  device=SimpleNamespace(type="cpu"), described=lambda temperature: {})


def kept(best: Best) -> str:
    return (best.path / "name").read_text()


@pytest.mark.parametrize("scores, stays", [
    (PERFECT, False), (POOR, True), (REVERSED, True), (GOOD, False), (LUCKY, True),
    ([0.5] * 8, True), ([None] * 8, True)])
def test_a_candidate_replaces_the_cold_start_unless_it_is_worse(best: Best, scores: list,
                                                                stays: bool) -> None:
    """Of equal ones the later; an unreadable answer is a wrong one."""
    best.begin(policy("cold start", GOOD))
    row = best.consider(policy("step 1", scores), 1)
    assert kept(best) == ("cold start" if stays else "step 1")
    first = read_rows(best.history)[0]
    assert first["step"] == 0 and (row["eval_score"] < first["eval_score"]) == stays


def test_a_worse_one_does_not_lower_the_bar(best: Best) -> None:
    for step, (scores, name) in enumerate([(POOR, "0"), (PERFECT, "1"), (POOR, "1"), (GOOD, "1"),
                                           (LUCKY, "1"), (PERFECT, "5")]):
        one = policy(str(step), scores)
        best.begin(one) if step == 0 else best.consider(one, step)
        assert kept(best) == name, step


def scripted(monkeypatch, **figures: float) -> None:
    """What the next look finds; figures that are not named are 0."""
    names = ("plcc", "srcc", "strict_plcc", "strict_srcc")
    zero = dict.fromkeys(names, 0.0)
    monkeypatch.setattr(evaluation, "evaluate_sets", lambda *args, **options: {
        "mean": {"in": zero | figures, "ood": dict.fromkeys(names), "all": zero}, "sets": {}})


@pytest.mark.parametrize("better", [
    dict(strict_plcc=0.5, strict_srcc=0.61), dict(strict_plcc=0.2, strict_srcc=0.9),
    dict(strict_plcc=0.9, strict_srcc=0.2)])
@pytest.mark.parametrize("worse", [
    dict(strict_plcc=0.5, strict_srcc=0.49), dict(strict_plcc=0.9, strict_srcc=0.05),
    dict(strict_plcc=0.05, strict_srcc=0.9),
    dict(plcc=1.0, srcc=1.0, strict_plcc=0.4, strict_srcc=0.5)])
def test_both_strict_correlations_count_and_nothing_else(best: Best, monkeypatch, better: dict,
                                                         worse: dict) -> None:
    scripted(monkeypatch, plcc=0.5, srcc=0.5, strict_plcc=0.5, strict_srcc=0.5)
    best.begin(policy("cold start", GOOD))
    scripted(monkeypatch, **worse)
    best.consider(policy("worse", GOOD), 1)
    assert kept(best) == "cold start"
    scripted(monkeypatch, **better)
    row = best.consider(policy("better", GOOD), 2)
    assert kept(best) == "better"
    assert row["eval_score"] == pytest.approx(sum(better.values()))
    assert row["eval_plcc"] == row["eval_srcc"] == 0.0


def full(folder: Path) -> None:
    (folder / "name").write_text("half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(folder: Path) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("save, error", [(full, None), (broken, ZeroDivisionError)])
def test_a_save_that_fails_is_not_the_best(best: Best, capsys, save: Callable,
                                           error: type | None) -> None:
    """The earlier one stays whole, and what beats that one is still kept."""
    best.begin(policy("cold start", POOR))
    failing = policy("step 1", PERFECT)
    failing.save = save
    if error:
        with pytest.raises(error):
            best.consider(failing, 1)
    else:
        best.consider(failing, 1)
        assert "the checkpoint of step 1 is not saved" in capsys.readouterr().out
    assert kept(best) == "cold start"
    best.consider(policy("step 2", GOOD), 2)
    assert kept(best) == "step 2"


def test_a_cold_start_that_cannot_be_saved_ends_the_run(best: Best) -> None:
    failing = policy("cold start", GOOD)
    failing.save = full
    with pytest.raises(OSError, match="No space"):
        best.begin(failing)
    assert not best.path.exists()


def test_expectations_choose_and_the_numbers_written_are_told_beside(best: Best) -> None:
    """The cold start writes better numbers than it expects; the first step the other way round."""
    best.begin(policy("cold start", POOR, PERFECT))
    row = best.consider(policy("step 1", GOOD, REVERSED), 1)
    assert kept(best) == "step 1"
    want, numbers = evaluate(GOOD, TRUTH), evaluate(REVERSED, TRUTH)
    assert [row[key] for key in ("eval_plcc", "eval_srcc", "eval_score")] == pytest.approx(
        [want["plcc"], want["srcc"], want["plcc"] + want["srcc"]])
    assert [row["eval_plcc_written"], row["eval_srcc_written"]] == pytest.approx(
        [numbers["plcc"], numbers["srcc"]])
    first = read_rows(best.history)[0]
    assert first["eval_plcc_written"] == pytest.approx(1.0) and first["eval_plcc"] < 0.9


def test_a_resume_knows_the_best_and_compares_with_its_like_only(best: Best) -> None:
    best.begin(policy("cold start", GOOD))
    again = Best(best.path, best.history, best.held, best.cfg, None)
    again.go_on()
    assert (again.score, again.step) == (best.score, 0) and again.score > 1
    record = recorded(best.path)
    for older in ({**record, "readout": "greedy"}, {k: record[k] for k in ("step", "score")}):
        write_json(best.path / RECORD, older)
        with pytest.raises(UserError, match="chosen by readout greedy, .* by expect now .*--run"):
            again.go_on()
    (best.path / RECORD).unlink()
    with pytest.raises(UserError, match="heldout.json: .*choose another --run"):
        again.go_on()
