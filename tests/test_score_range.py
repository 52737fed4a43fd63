"""Another question and another range of scores, for models that were trained elsewhere."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import album, tiny_vlm

import eval as eval_script
from nanoaes.config import OptionError, RAPOConfig
from nanoaes.errors import UserError
from nanoaes.models import load_models
from nanoaes.options import parse
from nanoaes.prompt import check_range, parse_score, stated
from nanoaes.verbs import EvalConfig


@pytest.mark.parametrize("low, high, block, score", [
    (1, 5, "3", 0.5), (1, 5, "1", 0.0), (1, 5, "5.00", 1.0), (1, 5, "4.2", 0.8),
    (1, 5, "3/5", 0.5), (1, 5, "3 out of 5 stars", 0.5),
    (1, 5, "0.62", None), (1, 5, "5.01", None), (1, 5, "0", None), (1, 5, "-3", None),
    (1, 5, "8/10", None), (1, 5, "85%", None), (1, 5, "3/1", None),
    (0, 100, "78", 0.78), (0, 100, "78.5", 0.785), (0, 100, "78%", 0.78), (0, 100, "78/100", 0.78),
    (0, 100, "4/5", 0.8), (0, 100, "101", None), (0, 100, "6/5", None), (0, 100, "0", 0.0),
    (0.2, 1, "0.6", 0.5), (0.2, 1, "0.2", 0.0), (0.2, 1, "0.1", None), (0.2, 1, "60%", None),
    (0, 10, "7,5", 0.75), (0, 10, "15/20", 0.75), (0, 10, "75%", 0.75), (0, 10, "5/0", None)])
def test_a_range_maps_the_number_to_the_unit_interval(low: float, high: float, block: str,
                                                      score: float | None) -> None:
    got = parse_score(f"<think>x</think><answer>{block}</answer>", (low, high))
    assert got == (None if score is None else pytest.approx(score, abs=1e-12))


@given(st.floats(0, 99), st.floats(0, 100), st.floats(0, 100))
def test_what_is_read_is_where_the_number_lies(low: float, width: float, x: float) -> None:
    low, high, x = round(low, 2), round(low + width, 2), round(x, 2)
    if low < high <= 100:
        got = parse_score(f"<answer>{x:.2f}</answer>", (low, high))
        inside = low <= x <= high
        assert got == pytest.approx((x - low) / (high - low), abs=1e-9) if inside else got is None


@pytest.mark.parametrize("text, parts", [
    ("<think>a 0.3</think><answer>0.62</answer> so", ("<think>a 0.3</think><answer>", "0.62",
                                                      "</answer>", 1.0)),
    ("<answer>\nRating: **4/5** </answer>", ("<answer>\nRating: **", "4", "/5** </answer>", 5.0)),
    ("<answer>\uff10\uff0e\uff15\uff05</answer>", ("<answer>", "0.5", "%</answer>", 100.0)),
    ("<answer>.5</answer>", ("<answer>", ".5", "</answer>", 1.0))])
def test_the_number_and_its_place(text: str, parts: tuple) -> None:
    found = stated(text)
    assert (found.before, found.number, found.after, found.unit) == parts


@pytest.mark.parametrize("low, high", [(1, 1), (5, 1), (-1, 1), (0, 101), (0, float("inf")),
                                       (float("nan"), 1), (0, float("nan"))])
def test_a_range_that_is_none(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="use 0 <= LO < HI <= 100"):
        check_range(low, high)


@pytest.mark.parametrize("text", ["5-1", "1-1", "-1-1", "1", "1-5-9", "a-b", "0-1000", "1:5",
                                  "1e0-5", "nan-1", "-", " "])
def test_a_range_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"--score_range {text}: write LO-HI")) as error:
        parse(EvalConfig, ["--score_range=" + text]).loading()
    assert "\n" not in str(error.value)


def test_options_that_are_a_range_and_a_question(tmp_path: Path) -> None:
    assert EvalConfig().loading()["score_range"] is None and EvalConfig().loading()["prompt"] == ""
    for text, want in (("1-5", (1, 5)), ("0-100", (0, 100)), (".2-1", (0.2, 1)),
                       ("0-0.5", (0, 0.5))):
        assert parse(EvalConfig, ["--score_range", text]).loading()["score_range"] == want
    (tmp_path / "q.txt").write_text("\nWie schön?\n", encoding="utf-8")
    assert EvalConfig(prompt_file=str(tmp_path / "q.txt")).loading()["prompt"] == "Wie schön?"
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes("schön".encode("latin-1"))
    for name, message in (("gone.txt", "No such file"), ("empty.txt", "is empty"),
                          ("latin.txt", "can't decode"), ("", "Is a directory")):
        file = str(tmp_path / name)
        with pytest.raises(OptionError, match=re.escape(file) + ".*" + message) as error:
            EvalConfig(prompt_file=file).loading()
        assert "\n" not in str(error.value)
    with pytest.raises(OptionError, match="ask two questions; give one"):
        EvalConfig(prompt_file=str(tmp_path / "q.txt"), prompt="full").loading()


def test_an_evaluation_asks_and_reads_so(tmp_path: Path, capsys) -> None:
    """From the command line to the file, by each readout."""
    album(tmp_path, range(4))
    vlm = tiny_vlm()
    vlm.asking = dataclasses.replace(vlm.asking, max_new_tokens=6)
    vlm.save(tmp_path / "model")
    (tmp_path / "q.txt").write_text("Rate it from 1 to 5.")
    common = ["--model", str(tmp_path / "model"), "--test_in", f"csv:{tmp_path}/photos.csv@0-3",
              "--device", "cpu", "--out", str(tmp_path / "out.json"),
              "--prompt_file", str(tmp_path / "q.txt"), "--score_range", "1-5"]
    results = {}
    for more in (("--readout", "direct"), ("--readout", "expect"), ("--samples", "2")):
        eval_script.bench(parse(EvalConfig, [*common, *more]))
        results[more[1]] = json.loads((tmp_path / "out.json").read_text())
        decoding = results[more[1]]["decoding"]
        assert decoding["prompt"] == "Rate it from 1 to 5." and decoding["score_range"] == [1, 5]
    assert [(r["decoding"]["readout"], r["decoding"]["samples"], r["decoding"]["temperature"])
            for r in results.values()] == [("direct", 0, 0), ("expect", 0, 0), ("expect", 2, 1)]
    metrics = results["direct"]["sets"]["photos"]["metrics"]
    assert metrics["distinct"] == 4 and metrics["ties"] == 0 and metrics["parse_fail"] == 0
    assert results["expect"]["sets"]["photos"]["metrics"]["parse_fail"] == 4  # untrained
    said = capsys.readouterr().out
    assert "photos: n 4 of 4 expected, unreadable 0, cut 0, 4 distinct scores, 0.0 % of" in said


def test_training_refuses_another_range(tmp_path: Path) -> None:
    vlm = tiny_vlm()
    vlm.asking = dataclasses.replace(vlm.asking, score_range=(1.0, 5.0))
    vlm.save(tmp_path / "model")
    with pytest.raises(UserError, match="asks for scores from 1 to 5; training reads 0 to 1"):
        load_models(tmp_path / "model", RAPOConfig(device="cpu"))
