"""The report: self-contained, escaped, drawn as valid SVG, and robust to what a run lacks."""

import re
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from nanoaes.datasets import Example
from nanoaes.details import add_details
from nanoaes.metrics import domain_means, evaluate
from nanoaes.page import charts
from nanoaes.page.breakdown import calibrated
from nanoaes.page.curves import CURVES
from nanoaes.page.gallery import GALLERY
from nanoaes.page.report import write_report

EVIL = "<script>alert('x')</script><img src=http://evil.example/a.png onerror=go()>"
STAGES = ("backbone", "cold start", "RAPO")


@pytest.fixture
def evals(tmp_path):
    """Three stages on two sets of 20 pictures; some answers are hostile, some unreadable."""
    rng = np.random.default_rng(0)
    truths = {name: rng.random(20) for name in ("AVA", "AADB")}
    for name, truth in truths.items():
        for i, t in enumerate(truth):
            Image.new("RGB", (12, 8), (int(255 * t), 90, 90)).save(tmp_path / f"{name}_{i}.png")
    return {stage: result(tmp_path, truths, spread, rng)
            for stage, spread in zip(STAGES, (0.3, 0.2, 0.1), strict=True)}


def result(folder, truths, spread, rng):
    """One stage's evaluation."""
    sets = {}
    for name, truth in truths.items():
        items = []
        for i, t in enumerate(truth):
            p = None if i % 7 == 3 else round(float(np.clip(t + rng.normal(0, spread), 0, 1)), 2)
            answer = "no idea" if p is None else p
            text = f"<think>Color: **warm** & {EVIL}\nsecond line</think><answer>{answer}</answer>"
            items.append({"image": str(folder / f"{name}_{i}.png"), "truth": float(t), "pred": p,
                          "text": text})
        sets[name] = {"domain": "in" if name == "AVA" else "ood", "items": items,
                      "metrics": evaluate([i["pred"] for i in items], truth)}
    mean = domain_means({n: s["metrics"] for n, s in sets.items()},
                        {n: s["domain"] for n, s in sets.items()})
    return {"checkpoint": "runs/a", "decoding": {"max_new_tokens": 64}, "sets": sets, "mean": mean}


def history(steps=30):
    """Rows with every key, the evaluation's only now and then."""
    keys = [k for curve in CURVES if not curve.sparse for k in curve.keys]
    rows = [{"step": t, **{k: 0.5 + 0.01 * t for k in keys}} for t in range(steps)]
    for row in rows[::10]:
        row.update(eval_plcc=0.4, eval_srcc=0.5)
    return rows


def page(path, *args):
    return write_report(path / "report.html", *args).read_text()


def drawings(text):
    """All SVG elements; raises where one is not well-formed."""
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def test_whole_page(tmp_path, evals):
    text = page(tmp_path, "A <run> & more", history(), evals, {"K": 4, "tag": EVIL}, [EVIL])
    assert "<title>A &lt;run&gt; &amp; more</title>" in text and "small made world" in text
    for title, names, *_ in CURVES:
        assert f"<b>{title}</b>" in text
        assert all(f">{name}</span>" in text for name in names.values())
    # The curves; scatter and histogram per set for the first stage and the last.
    assert len(drawings(text)) == len(CURVES) + 2 * 2 * 2
    assert text.count("data:image/png;base64,") == GALLERY
    for stage in STAGES:
        assert text.count(f"<header><bdi>{stage}</bdi>") == GALLERY
    assert 'name="viewport"' in text and "prefers-color-scheme:dark" in text
    assert "Not recorded" not in text and "over <bdi>backbone</bdi>" in text
    assert not list(tmp_path.glob("*.partial"))


def test_nothing_a_model_wrote_is_markup(tmp_path, evals):
    text = page(tmp_path, EVIL, history(), evals, {"tag": EVIL}, [EVIL])
    assert "<script" not in text and "onerror=go()&gt;" in text
    assert not re.search(r"""(src|href)\s*=\s*["']?https?:""", text.replace(EVIL_ESCAPED, ""))
    assert "url(" not in text and "@import" not in text and "<link" not in text
    assert "<b>Color:</b> <b>warm</b> &amp; &lt;script&gt;" in text
    assert '<p dir="auto">second line</p>' in text


EVIL_ESCAPED = "src=http://evil.example/a.png onerror=go()&gt;"  # text, not an attribute


def test_unreadable_answers_are_shown_as_written(tmp_path, evals):
    text = page(tmp_path, "t", [], evals, {}, [])
    assert 'class="badge bad">unreadable' in text
    assert "&lt;answer&gt;no idea&lt;/answer&gt;" in text


def test_gaps_and_nan(tmp_path, evals):
    rows = history()
    for row in rows[5:9]:
        row["kl"] = float("nan")
    del rows[12]["kl"], rows[12]["reward"]
    rows[20]["loss"] = float("inf")
    for row in rows:
        del row["clip_low"], row["clip_high"]
    text = page(tmp_path, "t", rows, evals, {"train": "csv:a.csv@1-5"}, [])
    assert not re.search(r"\bnan\b|\binf\b", re.sub(r"base64,[^\"]*", "", text), re.IGNORECASE)
    assert text.count("Not recorded") == 1 and "small made world" not in text
    assert drawings(text)


def test_a_file_of_an_older_run_still_renders(tmp_path, evals):
    new = {"rollout_gap", "rollout_gap_max", "truncated", "epoch", "eval_share"}
    rows = [{k: v for k, v in row.items() if k not in new} for row in history()]
    text = page(tmp_path, "t", rows, evals, {}, [])
    assert text.count("Not recorded") == 2
    assert "Passes over" not in text and "Held-out checks" not in text


def test_passes_and_the_time_of_checks_are_those_of_the_last_row_that_knows(tmp_path):
    rows = history()
    for row in rows:
        row.update(epoch=0.1 * row["step"], eval_share=0.001 * row["step"])
    del rows[-1]["eval_share"]
    text = page(tmp_path, "t", rows, {}, {}, [])
    assert "Passes over the training pictures: 2.9. Held-out checks took 2.8 % of the time." in text


def test_loss_of_zero_is_explained_below_its_chart(tmp_path):
    text = page(tmp_path, "t", history(), {}, {}, [])
    chart = next(c for c in text.split('<figure class="chart">') if "<b>Loss</b>" in c)
    assert re.search(r'</svg><p class="note">[^<]*sum to 0', chart)


def test_answers_cut_are_shares_over_all_sets(tmp_path, evals):
    for i, result in enumerate(evals.values()):
        for j, part in enumerate(result["sets"].values()):
            part["metrics"]["cut"] = i + j  # 0 + 1, then 1 + 2, then 2 + 3, of 40 answers
    table = re.search(r"<table>.*</table>", page(tmp_path, "t", [], evals, {}, []), re.DOTALL)[0]
    heads, *rows = re.findall(r"<tr.*?</tr>", table)
    assert heads.endswith("<th>unreadable</th><th>cut off</th></tr>")
    assert [row.split("<td>")[-1] for row in rows[:3]] == [
        "2.5 %</td></tr>", "7.5 %</td></tr>", "12.5 %</td></tr>"]
    assert len({row.count("<td") for row in rows}) == 1


def test_line_lifts_its_pen_at_a_gap():
    svg = charts.line_chart("t", range(6), {"a": [1, 2, None, 4, float("nan"), 6]})
    raw = re.search(r'class="raw" d="([^"]*)"', svg)[1]
    assert raw.count("M") == 3
    joined = charts.line_chart("t", range(6), {"a": [1, 2, None, 4, float("nan"), 6]}, sparse=True)
    assert joined.count("<circle") == 4
    assert re.search(r'class="smooth" d="([^"]*)"', joined)[1].count("M") == 1


def test_smooth_keeps_constants_and_gaps():
    y = np.full(100, 0.7)
    y[40:50] = np.nan
    np.testing.assert_allclose(charts.smooth(y), y)
    np.testing.assert_allclose(charts.smooth(np.array([3.0])), [3.0])


@pytest.mark.parametrize("lo, hi", [(0, 1), (-3e-7, 5e-7), (24, 28.5), (0, 123456),
                                    (0, 2.3e-4), (1.1e-4, 1.9e-4), (0, 2.5e6)])
def test_ticks_are_round_and_inside(lo, hi):
    marks = charts.ticks(lo, hi)
    assert 3 <= len(marks) <= 9 and lo - 1e-12 <= marks[0] and marks[-1] <= hi + 1e-12
    assert len({charts.number(t) for t in marks}) == len(marks)
    for t in marks:
        assert float(charts.number(t).replace("−", "-")) == pytest.approx(t)


@pytest.mark.parametrize("last, marks", [(0, ["0"]), (2, ["0", "1", "2"]), (40, 5)])
def test_steps_are_whole(last, marks):
    drawn = charts.line_chart("KL", range(last + 1), {"kl": [0.5] * (last + 1)})
    found = re.findall(r'<text class="mid" x="[^"]*" y="170.0">([^<]*)</text>', drawn)
    assert found == marks or len(found) == marks and all(text.isdecimal() for text in found)


@pytest.mark.parametrize("rows", [[], [{"step": 3}], [{"step": 3, "kl": 0.0, "eval_plcc": 0.1}]])
def test_nearly_nothing(tmp_path, rows):
    assert "No evaluation was given" in page(tmp_path, "t", rows, {}, {}, [])


def test_one_stage_missing_sets_and_lost_pictures(tmp_path, evals):
    one = {"RAPO": evals["RAPO"]}
    assert "from" not in re.search(r'class="tiles">.*?</section>', page(
        tmp_path, "t", [], one, {}, []), re.DOTALL)[0].split("<section>")[0]
    del evals["backbone"]["sets"]["AVA"]
    (tmp_path / "AADB_0.png").write_bytes(b"not a picture")
    for item in evals["RAPO"]["sets"]["AADB"]["items"]:
        item["image"] = str(tmp_path / "AADB_0.png")
    text = page(tmp_path, "t", history(), evals, {}, [])
    assert "picture cannot be read" in text and "Not asked." in text
    assert drawings(text)


def test_all_unreadable(tmp_path):
    items = [{"image": "gone.png", "truth": 0.1 * i, "pred": None, "text": ""} for i in range(5)]
    m = evaluate([None] * 5, [i["truth"] for i in items])
    result = {"checkpoint": "", "decoding": {}, "mean": domain_means({"AVA": m}, {"AVA": "in"}),
              "sets": {"AVA": {"domain": "in", "metrics": m, "items": items}}}
    text = page(tmp_path, "t", [], {"a": result, "b": result}, {}, [])
    assert "100.0 %" in text and "(empty)" in text and drawings(text)


def test_a_page_of_one_benchmark(tmp_path, evals):
    """Choices, themes and calibration; no curves, as nothing was trained."""
    one = evals["RAPO"]
    sets = {name: (p["domain"], [Example(i["image"], i["truth"], None, name, (0.0, 1.0),
                                         ("sea", EVIL)[i["truth"] > 0.5] if name == "AVA" else "")
                                 for i in p["items"]]) for name, p in one["sets"].items()}
    before = page(tmp_path, "t", [], {"RAPO": one}, {}, [])
    assert "Choosing among" not in before and "Training" not in before
    add_details(one, sets, Counter(AVA=3), 0)
    flat = {"n": 18, "plcc": None, "plcc_ci": None, "srcc": None, "srcc_ci": None,
            "rmse": 0.25, "rmse_ci": [0.2, 0.31], "mae": 0.2, "mae_ci": [0.15, 0.25]}
    one["calibration"] = {"labels": 7, "slope": 0.5, "shift": -0.25,
                          "sets": {"AVA": {"before": flat, "after": flat}}}
    text = page(tmp_path, "t", [], {"RAPO": one}, {"test_in": "ava:x"}, [])
    assert "made world" not in text and EVIL not in text and "onerror=go()>" not in text
    for words in ("All figures", "Choosing among pictures", "random pick", "<h2>Themes</h2>",
                  "20<small>of 23</small>", "7 labelled pictures", "AVA, after", "\u2212.25).",
                  ".2500<small>[.200, .310]</small>"):
        assert words in text, words
    share = one["sets"]["AADB"]["choices"]["best_of_4"]
    assert f"{share:.4f}".replace("0.", ".") + "<small>[" in text
    assert text.count("<h3><bdi>AVA</bdi></h3>") == 1  # AADB has no themes


@pytest.mark.parametrize("shift, said", [(-50.12, "−50.12"), (20.5, "+20.50"), (0.5, "+.50")])
def test_a_map_of_few_labels_is_told_as_it_is(shift, said):
    told = calibrated({"labels": 3, "slope": 35.0, "shift": shift, "sets": {}})
    assert f"sigmoid(35.00 · logit(score) {said})." in told


@pytest.mark.parametrize("ways, said", [
    (["greedy"] * 3, [True, False]), (["expect"] * 3, [False, True]), ([None] * 3, [False, False]),
    (["greedy", "greedy", "expect"], [True, True])])
def test_the_table_says_how_scores_are_read(tmp_path, evals, ways, said):
    for stage, way in zip(evals.values(), ways, strict=True):
        stage["decoding"]["readout"] = way
    text = page(tmp_path, "A run", [], evals, {}, [])
    assert [words in text for words in ("Scores are the numbers written.",
                                        "Scores are the expectations of the numbers")] == said
