"""The page of critiques: its figures, a few critiques of each kind, marks, and nothing unsafe."""

import base64
import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_card import TEXT, mixed, older, row
from test_page_text import Reader

from nanoaes.card import card
from nanoaes.page import critiques
from nanoaes.page.critiques import KEPT, LARGE, REJECTED, SMALL, marked, write_page

EVIL = "<img src=x onerror=boom()></script><script>boom()</script>\u202e\""


@pytest.fixture(autouse=True)
def forget() -> None:
    critiques._picture.cache_clear()


def page(folder: Path, rows: list[dict], asked: dict | None = None, title: str = "mine") -> str:
    file = folder / "cot.html"
    write_page(file, title, rows, card(rows, asked or {}))
    return file.read_text(encoding="utf-8")


def cards(text: str, heading: str) -> list[str]:
    """The cards of one section."""
    section, = re.findall(rf"<section[^>]*><h2>{heading}</h2>.*?</section>", text, re.DOTALL)
    return re.findall(r"<article.*?</article>", section, re.DOTALL)


def test_the_cards_figures_stand_at_the_top(tmp_path: Path) -> None:
    spent = {"asked": 1000, "answered": 200, "requests": 3}
    rows = [{**r, "tokens": spent} for r in mixed()]
    text = page(tmp_path, rows, {"teacher": "org/m#0a1b2c3d", "options": {"target": 3000},
                                 "short": "no more pictures: bad 1 of 2"}, "my <critiques>")
    assert "<h1><bdi>my &lt;critiques&gt;</bdi></h1>" in text
    for tile in ("<span>kept</span><b>32</b><span>3,000 wanted</span>",
                 "<span>of critiques</span><b>60</b><span>53.3 % kept</span>",
                 f"<span>tokens for each one kept</span><b>{60 * 1200 / 32:,.0f}</b>"):
        assert tile in text
    filters = dict(re.findall(r'<tr><th><bdi>([^<]*)</bdi></th><td><a href="#\w+">(\d+)</a>', text))
    assert filters == {"score leaked": "20", "dimension missing": "12"}
    found = card(rows, {})["levels_of_datasets"]
    for name in ("AVA", "PARA"):
        cells = "".join(f"<td>{p['kept']}<small>of {p['asked']}</small></td>"
                        for p in found[name].values())
        assert f"<th><bdi>{name}</bdi></th>{cells}" in text
    assert "no more pictures: bad 1 of 2" in text and "0a1b2c3d" in text
    assert "the score's level in 30.0 % of 60 critiques" in text  # judged 1 of scores .4 to .7
    Reader(text)  # properly nested


def test_a_set_may_be_called_all(tmp_path: Path) -> None:
    text = page(tmp_path, [{**r, "dataset": "all"} for r in mixed()])
    assert text.count("<th><bdi>all</bdi></th>") == text.count("<th><bdi>all sets</bdi></th>") == 1


def test_a_warning_comes_first(tmp_path: Path) -> None:
    text = page(tmp_path, [row(i, 0.9, judged=1) for i in range(50)])
    assert text.index("the judge reads fair in 100 %") < text.index("tiles\">")


def test_few_critiques_of_each_kind_over_the_levels(tmp_path: Path) -> None:
    text = page(tmp_path, mixed())
    kept = cards(text, "Kept")
    assert len(kept) == KEPT == 12
    assert Counter(re.search(r"<b>(\w+), ", one)[1] for one in kept) == {"bad": 4, "fair": 4,
                                                                         "good": 4}
    leaked = cards(text, "Rejected: <bdi>score leaked</bdi>")
    assert len(leaked) == REJECTED == 6
    for one in leaked:
        i = int(re.search(r"(\d+)\.jpg", one)[1])
        assert i % 3 == 0 and f"why leak of {i}" in one
        assert ("also: <bdi>dimension missing" in one) == (i % 5 == 0)
    assert "6 of 20. <bdi>Words that give" in text
    assert len(cards(text, "Rejected: <bdi>dimension missing</bdi>")) == 6
    assert text.count("<article") == 24 and "Rejected: <bdi>invented" not in text


def test_rows_of_earlier_versions(tmp_path: Path) -> None:
    text = page(tmp_path, [older(0, 0.1), older(1, 0.9, "leak", critique="I give it 7/10. Yes."),
                           older(2, 0.5, "mismatch")])
    leaked, = cards(text, "Rejected: <bdi>score leaked</bdi>")
    assert re.search(r"<mark>[^<]*7/10[^<]*</mark>", leaked)
    off, = cards(text, "Rejected: <bdi>judgement off</bdi>")
    assert '<p class="why"><bdi>judgement off</bdi></p>' in off and TEXT in off
    assert "What the judge reads" not in text and "tokens" not in text.split("<details>")[0]


def test_no_row_and_none_kept(tmp_path: Path) -> None:
    assert "None is kept." in page(tmp_path, [])
    assert "None is kept." in page(tmp_path, [row(0, 0.5, "leak")])


@pytest.mark.parametrize("text, why, expected", [
    ("I give it 7/10, no less.", "7/10", "I give it <mark>7/10</mark>, no less."),
    ("I give it 7/10.", "says “7/10”", "I give it <mark>7/10</mark>."),
    ("Two stars ★★ here.", 'stars: "★★"', "Two stars <mark>★★</mark> here."),
    ("A red  Boat, a dog.", "red boat; a dog", "A <mark>red  Boat</mark>, <mark>a dog</mark>."),
    ("A cat, a catalogue.", "'cat'", "A <mark>cat</mark>, a catalogue."),
    ("It isn't the man's.", "no 'man's' nor 'none'", "It isn&#x27;t the <mark>man&#x27;s</mark>."),
    ("a (b[c", "(b[c", "a (<mark>b[c</mark>"),
    ("The sign says open.", 'the sign says "open"', "<mark>The sign says open</mark>."),
    ("Nothing of it.", "reads good, the score is bad", "Nothing of it."),
    ("<b> & a red boat", "a red boat", "&lt;b&gt; &amp; <mark>a red boat</mark>"),
    ("", "empty", "(empty)"), ("Words.", "", "Words."), ("Words; words", ";", "Words; words")])
def test_the_words_that_a_reason_quotes_are_marked(text: str, why: str, expected: str) -> None:
    assert marked(text, why) == expected


def test_a_critique_is_shown_as_written_and_cut_where_it_never_ends(tmp_path: Path) -> None:
    rows = [row(0, 0.5, why={"unfit": "a tag inside"}, critique="<think>Light.\n\nColor.</think>"),
            row(1, 0.5, "length", critique="word " * 9999)]
    text = page(tmp_path, rows)
    assert "&lt;think&gt;Light.\n\nColor.&lt;/think&gt;" in text
    long, = cards(text, "Rejected: <bdi>length</bdi>")
    assert len(long) < 8000 and long.count("word") > 500 and " …</blockquote>" in long


def test_nothing_that_was_written_or_named_is_markup(tmp_path: Path) -> None:
    rows = [row(i, 0.5, *flags, critique=EVIL, dataset=EVIL, teacher=EVIL, judge=EVIL,
                image=f"/{EVIL}.jpg", why={flag: f'"{EVIL}"' for flag in flags})
            for i, flags in enumerate([(), ("leak",), (EVIL,)])]
    text = page(tmp_path, rows, {"teacher": EVIL, "judge": EVIL, "short": EVIL,
                                 "options": {EVIL: EVIL}}, EVIL)
    assert "<script" not in text and "<img src=x" not in text and "\u202e" not in text
    assert text.count("&lt;img src=x") >= 20 and "[U+202E]" in text
    assert all("boom" not in name for name in re.findall(r"<[a-z]+ ([a-z]+)=", text))
    Reader(text)


def test_it_asks_for_nothing_and_its_links_stay_inside(tmp_path: Path) -> None:
    text = page(tmp_path, mixed())
    assert not re.search(r"""src="(?!data:)|url\(|https?:|@import|<script""", text)
    links = re.findall(r'href="([^"]*)"', text)
    assert links and {link[1:] for link in links} <= set(re.findall(r'id="(\w+)"', text))
    assert "default-src 'none'" in re.search(r'Content-Security-Policy" content="(.*?)"', text)[1]


def test_pictures_are_small_and_a_lost_one_leaves_a_square(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (800, 1200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    rows = [row(0, 0.5, image="a.jpg"), row(1, 0.5, "leak", image=str(tmp_path / "a.jpg")),
            row(2, 0.9, "leak", image="/nowhere/b.jpg")]
    text = page(tmp_path, rows)
    kept, = cards(text, "Kept")
    near, lost = cards(text, "Rejected: <bdi>score leaked</bdi>")
    for one, side in ((kept, LARGE), (near, SMALL)):
        data = base64.b64decode(re.search(r'base64,([^"]*)"', one)[1])
        assert Image.open(io.BytesIO(data)).size == (side, side * 2 // 3)
    assert "picture cannot be read" in lost and "<img" not in lost


def test_a_page_is_whole_or_as_it_was(tmp_path: Path) -> None:
    before = page(tmp_path, mixed())
    rows = mixed()
    found = card(rows, {})
    del found["judge_reads"]
    with pytest.raises(KeyError):
        write_page(tmp_path / "cot.html", "other", rows, found)
    assert (tmp_path / "cot.html").read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["cot.html"]
