"""eval.py bench: what is asked once is kept, the same by any number of processes; files, themes."""

import dataclasses
import inspect
import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from ranks import spawn
from tiny import pictures, tiny_vlm

import eval as eval_script
from nanoaes import choices, details, evaluation, readout
from nanoaes.datasets import Example
from nanoaes.errors import Stopped, UserError
from nanoaes.metrics import evaluate
from nanoaes.predictions import beside, check_writable, digest, read_items
from nanoaes.scorer import Scorer
from nanoaes.verbs import EvalConfig, ScoreConfig

ROOT = Path(__file__).parent.parent
N = 9


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("album")
    for i, picture in enumerate(pictures(N)):
        picture.save(root / f"{i}.png")
    rows = [f"{i}.png,{1 + i / 2}" for i in range(N)]
    (root / "a.csv").write_text("\n".join(["image,score", *rows]) + "\n")
    (root / "b.csv").write_text("\n".join(["image,score", *rows[:6]]) + "\n")
    (root / "few.csv").write_text("image,score\n2.png,5\n5.png,4.5\n7.png,3\n8.png,1.2\n")
    vlm = tiny_vlm()
    vlm.asking = dataclasses.replace(vlm.asking, max_new_tokens=6)
    vlm.save(root / "model")
    return root


@pytest.fixture
def readable(monkeypatch) -> None:
    """An untrained model writes no scores: any text is one."""
    monkeypatch.setattr(readout, "parse_score",
                        lambda text, scale: sum(map(ord, text)) % 101 / 100)


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """The places that are asked for, as they are."""
    seen: list[int] = []
    real = evaluation.batches

    def batches(vlm, items, reading):
        for some, images in real(vlm, items, reading):
            seen.extend(some)
            yield some, images

    monkeypatch.setattr(evaluation, "batches", batches)
    return seen


def options(album: Path, out: Path, **more) -> EvalConfig:
    """One picture at a time, by the number written: an untrained model writes none to weigh."""
    return EvalConfig(**{"run": str(out.parent), "model": str(album / "model"), "device": "cpu",
                         "test_in": f"csv:{album / 'a.csv'}@1-5", "out": str(out),
                         "test_ood": f"csv:{album / 'b.csv'}@1-5", "readout": "greedy",
                         "tokens_per_micro_batch": 1, **more})


def test_a_score_is_an_expectation_wherever_none_is_asked_for() -> None:
    asked = [EvalConfig().readout, ScoreConfig().readout, evaluation.CHOSEN_BY,
             inspect.signature(Scorer).parameters["readout"].default]
    assert asked == ["expect"] * 4


def test_what_was_cut_off_goes_on(album: Path, tmp_path: Path, readable, asked: list[int],
                                  monkeypatch, capsys) -> None:
    """Ctrl-C while picture 3 of b is answered: none is lost or asked twice, the same file."""
    whole, cut = tmp_path / "1" / "eval.json", tmp_path / "2" / "eval.json"
    eval_script.bench(options(album, whole))
    real = evaluation.read

    def interrupted(*asking):
        if asked == [*range(N), *range(4)]:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*asking)

    asked.clear()
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(evaluation, "read", interrupted)
    with pytest.raises(Stopped, match="the same command goes on") as stopped:
        eval_script.bench(options(album, cut))
    assert stopped.value.status == 130 and signal.getsignal(signal.SIGINT) is before
    about, kept = read_items(beside(cut)[0])
    assert {name: len(items) for name, items in kept.items()} == {"a": N, "b": 4}
    assert about["dtype"] == "float32" and set(about["sets"]) == {"a", "b"}
    with beside(cut)[0].open("a") as file:
        file.write('{"set": "b", "im')  # and a line that a crash cut off
    monkeypatch.setattr(evaluation, "read", real)
    asked.clear()
    eval_script.bench(options(album, cut))
    assert asked == [4, 5] and "going on: 13 answers" in capsys.readouterr().out
    assert cut.read_bytes() == whole.read_bytes()
    assert beside(cut)[0].read_text() == beside(whole)[0].read_text()
    assert beside(cut)[1].is_file() and not (tmp_path / "2" / "before-1").exists()


def test_other_answers_are_not_mixed_and_nothing_is_replaced(
        album: Path, tmp_path: Path, asked: list[int], capsys) -> None:
    """Another temperature, seed, prompt, readout, set: each begins anew."""
    out = tmp_path / "eval.json"
    eval_script.bench(options(album, out))
    first = out.read_text()
    for number, change in enumerate((dict(temperature=1.0), dict(temperature=1.0, seed=1),
                                     dict(prompt="short"), dict(readout="expect"),
                                     dict(test_ood="")), 1):
        asked.clear()
        eval_script.bench(options(album, out, **change))
        assert len(asked) == (N if "test_ood" in change else N + 6)
        aside = tmp_path / f"before-{number}"
        assert f"moved to {aside}" in capsys.readouterr().out
        assert {p.name for p in aside.iterdir()} == {"eval.json", "predictions.jsonl",
                                                     "report.html"}
    assert (tmp_path / "before-1" / "eval.json").read_text() == first


def test_order_and_neighbours_change_no_answer(album: Path, tmp_path: Path, readable) -> None:
    rows = (album / "a.csv").read_text().splitlines()
    (album / "c.csv").write_text("\n".join([rows[0], *rows[:0:-1]]) + "\n")
    results = [eval_script.bench(options(
        album, tmp_path / f"{name}.json", test_in=f"csv:{album / name}.csv@1-5", test_ood="",
        tokens_per_micro_batch=tokens)) for name, tokens in (("a", 1), ("c", 2000))]
    a, c = ({i["image"]: i for i in r["sets"][name]["items"]}
            for r, name in zip(results, "ac", strict=True))
    assert a == c and len(a) == N
    assert {p.name for p in tmp_path.glob("a.*")} == {"a.json", "a.predictions.jsonl",
                                                     "a.report.html"}


def test_the_toys_notes_are_asked_in_its_world_only(album: Path, tmp_path: Path, monkeypatch
                                                    ) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(eval_script.toy, "sets", lambda world, seed: (
        "", f"csv:{album / 'a.csv'}@1-5", f"csv:{album / 'b.csv'}@1-5"))
    monkeypatch.setattr(eval_script.toy, "remark", lambda result, world: asked.append(world))
    eval_script.bench(options(album, tmp_path / "own.json"))
    assert asked == []
    eval_script.bench(options(album, tmp_path / "toy.json", test_in="", test_ood=""))
    assert asked == [tmp_path / "world"]


def test_two_processes_write_what_one_does(album: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "1" / "eval.json", tmp_path / "2" / "eval.json"
    eval_script.bench(options(album, one))
    words = [x for key, value in vars(options(album, two)).items() if value
             for x in (f"--{key}", str(value))]
    ends = spawn(2, [str(ROOT / "eval.py"), "bench", *words], 100)
    assert [p.returncode for p in ends] == [0, 0], ends[0].stderr
    assert sum(p.stdout.count("written:") for p in ends) == 1
    assert two.read_bytes() == one.read_bytes()
    (about, a), (same, b) = read_items(beside(one)[0]), read_items(beside(two)[0])
    assert (about, a) == (same, b)


def test_a_place_that_cannot_be_written_is_told_first(album: Path, tmp_path: Path,
                                                      asked: list[int]) -> None:
    with pytest.raises(UserError, match="is a folder; name a file, such as .*eval.json"):
        eval_script.bench(options(album, tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is no folder that can be written"):
        check_writable(tmp_path / "file" / "deeper" / "x.json")
    assert asked == []


def test_a_disk_that_is_full_at_the_end_costs_no_figure(album: Path, tmp_path: Path, readable,
                                                        capsys, monkeypatch) -> None:
    out = tmp_path / "eval.json"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(eval_script, "write_json", full)
    with pytest.raises(UserError, match="eval.json cannot be written .*No space left.* goes on"):
        eval_script.bench(options(album, out))
    assert capsys.readouterr().out.count("PLCC") and not out.exists()
    assert len(read_items(beside(out)[0])[1]) == 2


def test_calibrated_on_a_few_labels(album: Path, tmp_path: Path, readable, asked: list[int],
                                    capsys) -> None:
    """Judged by the others; with other labels only those are asked for."""
    out = tmp_path / "eval.json"
    plain = eval_script.bench(options(album, out))
    asked.clear()
    result = eval_script.bench(options(album, out, calibrate=str(album / "few.csv")))
    found = result.pop("calibration")
    assert asked == [0, 1, 2, 3] and result == plain and found["labels"] == 4
    assert [found["sets"][name]["before"]["n"] for name in "ab"] == [5, 4]
    items = [i for i in plain["sets"]["a"]["items"] if Path(i["image"]).stem in "01346"]
    before = evaluate([i["pred"] for i in items], [i["truth"] for i in items])
    for key in ("plcc", "srcc", "rmse", "mae"):
        assert found["sets"]["a"]["before"][key] == before[key]
    assert found["sets"]["a"]["after"]["rmse"] != before["rmse"]
    assert found["sets"]["a"]["after"]["srcc"] == pytest.approx(before["srcc"])
    assert "a, after: n 5" in capsys.readouterr().out
    assert "Calibrated" in beside(out)[1].read_text()
    again = read_items(beside(out)[0])[1]
    assert sorted(map(len, again.values())) == [4, 6, N]


def test_a_bare_file_of_labels_needs_one_scale(album: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--calibrate few.csv: .* csv:few.csv@LO-HI"):
        eval_script.bench(options(album, tmp_path / "eval.json", calibrate="few.csv",
                                  test_ood=f"csv:{album / 'b.csv'}@1-6"))


def test_a_digest_tells_pictures_scores_and_order() -> None:
    a, b = (Example(Path(f"{i}.png"), i / 2, None, "s", (0.0, 1.0)) for i in range(2))
    some = [[a, b], [b, a], [a], [a, dataclasses.replace(b, score=0.4)],
            [a, dataclasses.replace(b, image=Path("2.png"))]]
    assert len(set(map(digest, some))) == len(some)


def one_set(pred: list[float | None], themes: list[str]) -> tuple[dict, dict]:
    """A result as `evaluate_sets` gives it, and its examples."""
    n = len(pred)
    examples = [Example(Path(f"{i}.png"), i / n, None, "s", (0.0, 1.0), theme)
                for i, theme in enumerate(themes)]
    items = [{"image": f"{i}.png", "truth": i / n, "pred": p, "text": ""}
             for i, p in enumerate(pred)]
    metrics = evaluate(pred, [i / n for i in range(n)], cut=[False] * n)
    return {"sets": {"s": {"items": items, "metrics": metrics}}}, {"s": ("in", examples)}


def test_details_of_a_set() -> None:
    pred = [0.1, 0.3, 0.2, None, 0.9, 0.6, 0.4, 0.8]
    result, sets = one_set(pred, ["sea", "sea", "sea", "sea", "town", "town", "town", ""])
    details.add_details(result, sets, Counter(s=2), seed=4)
    part, truth = result["sets"]["s"], [i / 8 for i in range(8)]
    measures = choices.measure(pred, truth)
    assert part["expected"] == 10 and part["choices"]["best_of_4"] == measures["best_of_4"].value
    assert part["metrics"]["krcc_ci"] == choices.intervals(measures, 4)["krcc"]
    assert part["themes"] == {"sea": evaluate(pred[:4], truth[:4], seed=4),
                              "town": evaluate(pred[4:7], truth[4:7], seed=4)}
    text = "\n".join(details.lines("s", part))
    assert "n 8 of 10 expected, unreadable 1, cut 0, 7 distinct scores, 0.0 % of" in text
    assert "undefined" not in text
    assert "themes: 2, SRCC from town -1.000 to sea .5000" in text
    assert json.loads(json.dumps(result, allow_nan=False))


def test_beside_expectations_stand_the_numbers_written() -> None:
    result, sets = one_set([0.11, 0.32, 0.23, 0.5], [""] * 4)
    replies = ["<answer>2</answer>", "<answer>4</answer>", "<answer>4</answer>", "none"]
    for item, text in zip(result["sets"]["s"]["items"], replies, strict=True):
        item["text"] = text
    details.add_details(result, sets, Counter(), seed=3, written=(1.0, 5.0))
    part = result["sets"]["s"]
    assert part["written"] == evaluate([0.25, 0.75, 0.75, None], [0, 0.25, 0.5, 0.75], seed=3)
    assert "by the numbers written: PLCC .8660" in "\n".join(details.lines("s", part))


@pytest.mark.parametrize("themes", [["sea"] * 4, [""] * 4])
def test_one_theme_is_no_breakdown(themes: list[str]) -> None:
    result, sets = one_set([0.1, 0.3, 0.2, 0.5], themes)
    details.add_details(result, sets, Counter(), seed=0)
    assert result["sets"]["s"]["themes"] == {}


@pytest.mark.parametrize("pred, why", [
    ([0.5] * 4, "all predictions are alike"), ([0.5, None, None, None], "fewer than 2 readable")])
def test_what_is_undefined_is_said_to_be(pred: list[float | None], why: str) -> None:
    result, sets = one_set(pred, [""] * 4)
    details.add_details(result, sets, Counter(), seed=0)
    text = "\n".join(details.lines("s", result["sets"]["s"]))
    assert "PLCC undefined, SRCC undefined, KRCC undefined" in text and why in text
    assert "themes" not in text and result["sets"]["s"]["themes"] == {}
