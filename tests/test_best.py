"""Which checkpoint is kept: the best on the held-out pictures, the cold start if none is better."""

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanoaes import evaluation
from nanoaes.checkpoint import read_rows
from nanoaes.config import RAPOConfig
from nanoaes.datasets import Example
from nanoaes.evaluation import Best
from nanoaes.readout import Score

TRUTH = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
PERFECT = TRUTH
GOOD = [0.3, 0.2, 0.3, 0.5, 0.4, 0.8, 0.6, 0.9]
POOR = [0.5, 0.2, 0.6, 0.9, 0.1, 0.7, 0.3, 0.8]
LUCKY = [0.1, 0.2, 0.3, *[None] * 5]  # three readable answers, in perfect order
REVERSED = TRUTH[::-1]


class Policy(SimpleNamespace):
    """Writes its name; its answers are scripted."""

    def save(self, folder: Path) -> None:
        (folder / "name").write_text(self.name)


def told(scores: list[float | None]) -> list[Score]:
    return [Score(s, "I cannot tell" if s is None else f"<answer>{s}</answer>") for s in scores]


@pytest.fixture
def best(tmp_path: Path, monkeypatch) -> Best:
    """Of one held-out set, all but the model's answering real."""
    def answers(vlm, examples, places, reading):
        yield [evaluation.item_of(examples[i], told(vlm.scores)[i]) for i in places]

    monkeypatch.setattr(evaluation, "answers", answers)
    held = [Example(Path(f"{i}.png"), t, None, "a", (0.0, 1.0)) for i, t in enumerate(TRUTH)]
    return Best(tmp_path / "rapo", tmp_path / "metrics.jsonl", {"a": ("in", held)}, RAPOConfig(),
                None)


def policy(name: str, scores: list[float | None]) -> Policy:
    return Policy(name=name, scores=scores, device=SimpleNamespace(type="cpu"),
                  described=lambda temperature: {})


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
        "mean": {"in": zero | figures, "ood": dict.fromkeys(names), "all": zero}})


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
