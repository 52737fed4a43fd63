"""eval.py compare: differences against a bootstrap written as a loop; what cannot be compared."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import eval as eval_script
from nanoaes import metrics, paired
from nanoaes.choices import intervals, measure
from nanoaes.errors import UserError
from nanoaes.verbs import CompareConfig

N = 60


def write(path: Path, pred: list[float | None], *, name: str = "AVA", start: int = 0,
          truth: np.ndarray | None = None) -> Path:
    """A file of predictions; picture i of the rng's truths."""
    truth = np.random.default_rng(0).random(N) if truth is None else truth
    rows = [{"set": name, "image": f"{i}.png", "truth": float(truth[i]), "pred": p}
            for i, p in enumerate(pred, start)]
    lines = [{"about": {"model": path.stem}}, *rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A is noisier than B, but has the same noise in it."""
    rng, truth = np.random.default_rng(1), np.random.default_rng(0).random(N)
    common = truth + rng.normal(0, 0.2, N)
    return (write(tmp_path / "a.jsonl", np.round(common + rng.normal(0, 0.04, N), 2).tolist()),
            write(tmp_path / "b.jsonl", np.round(common, 2).tolist()))


def loaded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return np.array([r["pred"] for r in rows]), np.array([r["truth"] for r in rows])


def test_differences_and_their_intervals(files: tuple[Path, Path]) -> None:
    part = paired.compared(*files, seed=5)["sets"]["AVA"]
    (a, truth), (b, _) = map(loaded, files)
    picks = np.random.default_rng(5).integers(0, N, (metrics.RESAMPLES, N))
    of = {"plcc": lambda x, y: stats.pearsonr(x, y).statistic,
          "srcc": lambda x, y: stats.spearmanr(x, y).statistic,
          "rmse": lambda x, y: np.sqrt(((x - y) ** 2).mean()),
          "mae": lambda x, y: np.abs(x - y).mean()}
    for key, value in of.items():
        found = part["figures"][key]
        assert found["a"] == pytest.approx(value(a, truth), abs=1e-12)
        assert found["difference"] == pytest.approx(value(b, truth) - value(a, truth), abs=1e-12)
        drawn = [value(b[p], truth[p]) - value(a[p], truth[p]) for p in picks]
        np.testing.assert_allclose(found["ci"], metrics.between(np.array(drawn), N), atol=1e-10)
    def tau(x: np.ndarray, y: np.ndarray) -> float:
        return stats.kendalltau(x, y).statistic

    drawn = [tau(b[p], truth[p]) - tau(a[p], truth[p]) for p in picks[:500]]
    width = np.ptp(np.percentile(drawn, (2.5, 97.5)))
    assert np.ptp(part["figures"]["krcc"]["ci"]) == pytest.approx(width, rel=0.2)
    for key in ("krcc", "pairs", "best_of_4"):
        lo, hi = part["figures"][key]["ci"]
        assert lo < part["figures"][key]["difference"] < hi
    assert part["n"] == N and (part["only_a"], part["only_b"]) == (0, 0)


def test_pairing_pays(files: tuple[Path, Path]) -> None:
    """What is hard for both cancels: narrower than two intervals of strangers."""
    part = paired.compared(*files)["sets"]["AVA"]
    (a, truth), (b, _) = map(loaded, files)
    for key in ("pairs", "best_of_4", "krcc"):
        widths = [np.ptp(intervals(measure(x, truth))[key]) for x in (a, b)]
        assert np.ptp(part["figures"][key]["ci"]) < 0.8 * np.hypot(*widths)


def test_the_pictures_that_moved_most(files: tuple[Path, Path]) -> None:
    (a, truth), (b, _) = map(loaded, files)
    moved = paired.compared(*files)["sets"]["AVA"]["moved"]
    order = np.argsort(-np.abs(b - a), kind="stable")[:paired.MOVED]
    assert [int(Path(m["image"]).stem) for m in moved] == order.tolist()
    assert moved[0] == {"image": str(Path(f"{order[0]}.png").resolve()), "a": a[order[0]],
                        "b": b[order[0]], "truth": truth[order[0]]}
    assert paired.compared(files[0], files[0])["sets"]["AVA"]["moved"] == []


def test_only_what_both_have_is_compared(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [0.1, None, 0.3, 0.5, 0.2, 0.8])
    b = write(tmp_path / "b.jsonl", [0.4, 0.2, None, 0.9, 0.1], start=1)
    part = paired.compared(a, b)["sets"]["AVA"]
    truth = np.random.default_rng(0).random(N)
    assert (part["n"], part["only_a"], part["only_b"]) == (5, 1, 0)
    assert (part["unreadable_a"], part["unreadable_b"]) == (1, 1)
    for one, pred in (("a", [0.3, 0.2, 0.8]), ("b", [0.2, 0.9, 0.1])):
        assert part["figures"]["plcc"][one] == pytest.approx(
            stats.pearsonr(pred, truth[[2, 4, 5]]).statistic)


def test_correlations_are_of_what_both_could_be_read_of(tmp_path: Path) -> None:
    """Who leaves the hard pictures unanswered orders no better what is left; it chooses worse."""
    truth = np.random.default_rng(0).random(N)
    pred = [float(x) for x in truth]
    for i in range(0, N, 2):
        pred[i] = 1 - pred[i]
    a = write(tmp_path / "a.jsonl", pred)
    b = write(tmp_path / "b.jsonl", [None if i % 2 == 0 else x for i, x in enumerate(pred)])
    figures = paired.compared(a, b)["sets"]["AVA"]["figures"]
    for key in ("plcc", "srcc", "krcc"):
        assert figures[key]["a"] == figures[key]["b"] == pytest.approx(1)
        assert figures[key]["difference"] == 0
    assert figures["pairs"]["difference"] < 0


def test_two_names_of_one_file_are_two_pictures(tmp_path: Path) -> None:
    """A set with duplicates in a store that links each name to its content; and a linked folder."""
    (tmp_path / "blob").write_bytes(b"pixels")
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for i in range(2):
        (tmp_path / "data" / f"{i}.jpg").symlink_to(tmp_path / "blob")
    for folder, file in (("data", "a.jsonl"), ("link", "b.jsonl")):
        (tmp_path / file).write_text("".join(json.dumps(
            {"set": "AVA", "image": str(tmp_path / folder / f"{i}.jpg"), "truth": i / 2,
             "pred": 0.1}) + "\n" for i in range(2)))
    part = paired.compared(tmp_path / "a.jsonl", tmp_path / "b.jsonl")["sets"]["AVA"]
    assert (part["n"], part["only_a"], part["only_b"]) == (2, 0, 0)


@pytest.mark.parametrize("pred", [[0.5] * 6, [0.3, 0.4]])
def test_what_is_undefined_has_no_difference(tmp_path: Path, pred: list[float]) -> None:
    a, b = (write(tmp_path / f"{x}.jsonl", pred) for x in "ab")
    result = paired.compared(a, b)
    best = result["sets"]["AVA"]["figures"]["plcc" if len(pred) > 2 else "best_of_4"]
    assert best["difference"] is None and best["ci"] is None
    assert re.search(r"(plcc|best of 4) .*undefined", "\n".join(paired.lines(result)))
    assert json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("change, message", [
    (dict(name="AADB"), r"share no pictures: the first has AVA \(.*0.png\), the second AADB"),
    (dict(start=6), "share no pictures"),
    (dict(truth=np.full(N, 0.25)), r"AVA: .*0.png is worth 0.636962 in the first and 0.25")])
def test_what_cannot_be_compared(tmp_path: Path, change: dict, message: str) -> None:
    a = write(tmp_path / "a.jsonl", [0.1, 0.2, 0.4])
    b = write(tmp_path / "b.jsonl", [0.3, 0.2, 0.4], **change)
    with pytest.raises(UserError, match=message):
        paired.compared(a, b)


def test_files_that_are_none(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [0.1, 0.2, 0.4])
    with pytest.raises(UserError, match="no such file; eval.py bench writes"):
        paired.compared(a, tmp_path / "b.jsonl")
    (tmp_path / "b.jsonl").write_text('{"set": "AVA", "image": "1.png"}\n')
    with pytest.raises(UserError, match="b.jsonl, line 1: no truth, pred; delete"):
        paired.compared(a, tmp_path / "b.jsonl")
    with pytest.raises(UserError, match="needs two files of predictions, not 1"):
        eval_script.compare(CompareConfig(files=(str(a),)))


def test_the_verb_prints_and_writes(files: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    out = tmp_path / "deep" / "compared.json"
    eval_script.compare(CompareConfig(files=tuple(map(str, files)), out=str(out)))
    result = json.loads(out.read_text())
    assert result["a"]["about"] == {"model": "a"} and result["sets"]["AVA"]["n"] == N
    text = capsys.readouterr().out
    assert "AVA: 60 pictures in both" in text and "moved most" in text
    assert re.search(r"\n  rmse +\.\d{4} +\.\d{4} +-0\.\d{4}  \[-0\.\d{4}, [-+]0\.\d{4}\]", text)


def test_readouts_that_differ_are_named(files: tuple[Path, Path]) -> None:
    """Read by expectation the same model scores better: that is no better model."""
    assert not any("read differently" in line for line in paired.lines(paired.compared(*files)))
    _, _, rest = files[1].read_text().partition("\n")
    files[1].write_text(json.dumps({"about": {"readout": "expect"}}) + "\n" + rest)
    text = "\n".join(paired.lines(paired.compared(*files)))
    assert "read differently (A unknown, B expect)" in text


@pytest.mark.parametrize("key, ci, verdict", [
    ("plcc", [0.1, 0.2], "B"), ("plcc", [-0.2, -0.1], "A"), ("mae", [0.1, 0.2], "A"),
    ("mae", [-0.2, -0.1], "B"), ("mae", [-0.1, 0.1], "")])
def test_who_is_better(key: str, ci: list[float], verdict: str) -> None:
    told = paired.row(key, {"a": 0.3, "b": 0.4, "difference": 0.1, "ci": ci})
    assert told.endswith(f"{verdict} is better" if verdict else "]")
