"""What critiques are worth, on the page and in the terminal: stages, sets, curves, nothing."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_report import drawings, evals, history, page  # noqa: F401  evals is a fixture

from nanoaes import details
from nanoaes.page.curves import CRITIQUES
from nanoaes.quality import KEYS, add_quality
from nanoaes.toy import road
from nanoaes.toy.world import critique


@pytest.fixture
def asked(evals) -> dict[str, dict]:  # noqa: F811
    for result in evals.values():
        add_quality(result, seed=0)
    return evals


def section(text: str) -> str:
    return text.partition("<h2>Critique quality</h2>")[2].partition("</section>")[0]


def test_stages_are_lines_and_the_question_is_asked(tmp_path: Path, asked: dict) -> None:
    asked["RAPO"]["critiques"] |= {"level": 0.125, "level_ci": [0.05, 0.25], "coverage": 1.25,
                                   "consistent": None}
    text = section(page(tmp_path, "t", [], asked, {}, []))
    assert "hollows out" in text and "<th>stage</th>" in text and "true<small>" not in text
    rows = text.split("<tr>")[2:]
    assert [row.split("</bdi>")[0] for row in rows] == [f"<th><bdi>{name}" for name in asked]
    assert "12.5 %<small>[5.0, 25.0]" in rows[2] and "<td>1.25<small>[" in rows[2]
    assert "<td>–</td>" in rows[2]


def test_one_model_has_a_line_for_each_set(tmp_path: Path, asked: dict) -> None:
    one = {"RAPO": asked["RAPO"]}
    one["RAPO"]["sets"]["AVA"]["critiques"]["right"] = 0.5
    one["RAPO"]["sets"]["AADB"]["critiques"] |= {"words": 17.25}
    text = section(page(tmp_path, "t", [], one, {}, []))
    assert "<bdi>AVA</bdi>" in text and "<bdi>AADB</bdi>" in text and "hollows" not in text
    assert "<td>50.0 %<small>" in text and "True: of the toy" in text and "17.2" in text


def test_curves_while_it_runs_and_nothing_of_older_runs(tmp_path: Path, evals) -> None:  # noqa: F811
    assert "Critique quality" not in page(tmp_path, "t", history(), evals, {}, [])
    rows = history()
    for i, row in enumerate(rows[::10]):
        row.update({f"eval_{key}": 0.1 * i for key in KEYS})
    text = section(page(tmp_path, "t", rows, {}, {}, []))
    assert len(drawings(text)) == len(CRITIQUES) == 3 and "<table" not in text
    assert all(f">{name}</span>" in text for curve in CRITIQUES for name in curve.keys.values())
    assert {key for curve in CRITIQUES for key in curve.keys} == {f"eval_{key}" for key in KEYS}


def test_a_line_for_the_terminal(asked: dict) -> None:
    part = asked["RAPO"]["sets"]["AVA"]
    details.add_details(asked["RAPO"], {name: (p["domain"], []) for name, p in
                                        asked["RAPO"]["sets"].items()}, Counter(), 0)
    line, = (line for line in details.lines("AVA", part) if "critiques:" in line)
    assert "dimensions 1.00 of 5" in line and "named" not in line
    part["critiques"]["right"] = 0.75
    assert details.lines("AVA", part)[-1].endswith("named qualities right 75.0 %")
    part["critiques"] = None
    assert not any("critiques:" in line for line in details.lines("AVA", part))


def test_the_toys_notes_tell_what_is_true(tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    notes = {tmp_path.resolve() / f"{i}.png": [i % 3] * 5 for i in range(6)}
    monkeypatch.setattr(road, "read_attributes", lambda world: notes)
    said = {"a": [0, 1, 2, 0, 1, 2], "b": [0, 0, 0, 0, 0, 0], "c": []}
    result = {"sets": {name: {"items": [
        {"image": str(path), "truth": 0.5, "pred": 0.5, "text": critique([level] * 5, 0.5, rng)}
        for level, path in zip(levels, notes, strict=False)]} for name, levels in said.items()}}
    add_quality(result, 0)
    remark = road.remark(result, tmp_path)
    assert remark == "critiques name 5.0 of 5 dimensions, 67% of them rightly"
    sets = result["sets"]
    assert sets["a"]["critiques"]["right"] == 1.0
    assert sets["b"]["critiques"]["right"] == pytest.approx(1 / 3)
    assert sets["c"]["critiques"] is None
    assert result["critiques"]["right"] == pytest.approx(2 / 3)
