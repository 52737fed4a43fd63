"""The report while training runs: how far it is, what it costs, what was answered."""

import base64
import io
import re

import pytest
from PIL import Image
from test_report import EVIL, drawings, history

from nanoaes.page import answers as answers_page
from nanoaes.page.answers import PICTURES, SMALL
from nanoaes.page.curves import EFFORT
from nanoaes.page.report import write_report


def page(path, rows, **how):
    return write_report(path / "report.html", "t", rows, how.pop("evals", {}), {}, [],
                        **how).read_text()


def rows_of(folder, step, pictures=5, k=4):
    """K answers to each picture: answer 0 is the best, answer 3 unreadable, the others between."""
    rows = []
    for i in range(pictures):
        path = folder / f"{step}_{i}.png"
        Image.new("RGB", (600, 300), (50 * i, 90, 90)).save(path)
        for j in range(k):
            score = None if j == 3 else 0.2 * i
            form = float(j == 0)
            text = (f"<think>words {step} {i} {j}</think><answer>{score}</answer>" if form else
                    f"{EVIL} {step} {i} {j}")
            rows.append({"step": step, "image": str(path), "dataset": "AVA", "truth": 0.2 * i,
                         "answer": j, "text": text, "score": score, "reward": 3.0 - j,
                         "reward_rel": 0.75, "reward_abs": 0.25, "reward_fmt": form,
                         "advantage": 1.5 - j, "length": 1200 + j, "cut": j == 3})
    return rows


def told(text):
    """The section's HTML."""
    return re.search(r"<section><h2>Answers while training.*?</section>", text, re.DOTALL)[0]


def test_three_steps_with_the_best_and_the_worst_answer(tmp_path):
    rows = [row for step in (10, 1000, 2000) for row in rows_of(tmp_path, step)]
    section = told(page(tmp_path, history(), answers=rows, steps=3000))
    assert re.findall(r"<h3>(.*?)</h3>", section) == ["Step 10", "Step 1,000", "Step 2,000"]
    cards = section.split("<article")[1:]
    assert len(cards) == 3 * PICTURES
    # Of five truths 0, .2, … the middles of three slices are the first, the third, the fifth.
    assert [re.search(r"truth (\S+)</b>", card)[1] for card in cards[:3]] == ["0.00", "0.40",
                                                                              "0.80"]
    best, worst = cards[1].split('<div class="said">')[1:]
    assert "highest reward of 4" in best and 'class="badge">0.40<' in best
    assert '<blockquote><p dir="auto">words 10 2 0</p>' in best
    assert ("reward <b>3.00</b>: relative 0.75, absolute 0.25, format 1 · advantage +1.50 · "
            "1,200 tokens<") in best
    assert "lowest reward of 4" in worst and "unreadable" in worst
    assert "format 0 · advantage −1.50 · 1,203 tokens, cut at the limit<" in worst
    # Below the picture: truth and the three answers that could be read.
    assert cards[1].split("</figcaption>")[0].count('<i style="left:40%">') == 4


def test_no_answer_is_markup_and_what_lacks_the_form_is_shown_as_written(tmp_path):
    rows = rows_of(tmp_path, 1, pictures=1)
    rows[3].update(score=0.0, dataset=EVIL)  # readable, but without the form
    section = told(page(tmp_path, [], answers=rows))
    assert "<script" not in section and "onerror=go()>" not in section
    assert '<pre dir="ltr">&lt;script&gt;' in section and "unreadable" not in section


def test_pictures_are_small_and_encoded_once_in_a_run(tmp_path, monkeypatch):
    loaded = []
    load = answers_page.picture.__globals__["load_image"]
    monkeypatch.setitem(answers_page.picture.__globals__, "load_image",
                        lambda path: loaded.append(path) or load(path))
    early, late = (rows_of(tmp_path, step) for step in (1, 2))
    page(tmp_path, [], answers=early)
    text = page(tmp_path, [], answers=early + late)
    assert len(loaded) == len(set(loaded)) == 2 * PICTURES
    for data in re.findall(r'src="data:image/jpeg;base64,([^"]*)"', text):
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (SMALL, SMALL // 2)
    assert text.count("data:image/jpeg") == 2 * PICTURES


def test_one_answer_is_shown_once_and_a_lost_picture_is_a_grey_square(tmp_path):
    row = rows_of(tmp_path, 1, 1, 1)[0] | {"image": "gone.png"}
    section = told(page(tmp_path, [], answers=[row]))
    assert section.count('<div class="said">') == 1 and 'class="lost"' in section


@pytest.mark.parametrize("rows, step", [([], "0"), ([{"step": 0}, {"step": 1040}], "1,040")])
def test_how_far_a_run_is(tmp_path, rows, step):
    text = page(tmp_path, rows, steps=1200)
    assert f"<b>running: step {step} of 1,200</b>" in text
    assert re.search(r"written \d{4}-\d\d-\d\d \d\d:\d\d", text)
    assert "No evaluation was given" not in text and "Answers while training" not in text


def test_a_run_that_has_been_evaluated_is_over(tmp_path):
    mean = {d: {"plcc": 0.5, "srcc": 0.5} for d in ("in", "ood", "all")}
    result = {"checkpoint": "", "decoding": {}, "sets": {}, "mean": mean}
    assert "running:" not in page(tmp_path, [], evals={"RAPO": result}, steps=10)


def test_time_and_memory_are_shown_where_they_were_recorded(tmp_path):
    rows = history()
    assert "Time and memory" not in page(tmp_path, rows)
    for row in rows:
        row.update(s_rollout=2.0 + row["step"], tokens_per_s=1400.0, peak_memory=75 * 10**9)
    rows[10]["s_eval"] = rows[20]["s_eval"] = 30.0
    text = page(tmp_path, rows)
    section = re.search(r"<section><h2>Time and memory.*?</section>", text, re.DOTALL)[0]
    shown = re.findall(r"<figcaption><b>(.*?)</b>", section)
    assert shown == ["Seconds per phase", "Seconds of an evaluation", "Speed", "Peak memory"]
    memory = section.split("<b>Peak memory<")[1]
    assert ">70<" in memory and ">80<" in memory and len(drawings(section)) == 4
    for row in rows:
        row.update(mfu=0.19, skipped=0)
    text = page(tmp_path, rows)
    assert "Skipped updates:" not in text
    assert all(f"<b>{curve.title}</b>" in text.split("<h2>Time and memory")[1] for curve in EFFORT)
    rows[3]["skipped"], rows[9]["skipped"] = 1, 2
    assert "Skipped updates: 3." in page(tmp_path, rows)
