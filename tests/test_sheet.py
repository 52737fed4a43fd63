"""The contact sheet: safe, of bounded size, and in a real browser searched, filtered, sorted."""

import base64
import io
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanoaes.page.sheet import FEW, LARGE, SIGN, SMALL, sheet, thumbnail
from nanoaes.standing import Standing

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)
EVIL = "<img src=x onerror=boom()></script><script>boom()</script>\u202e**"


def shots(n: int) -> list[tuple[Standing, str]]:
    """The best first; every second one speaks of light."""
    return [(Standing(Path(f"/photos/{chr(97 + 7 * i % 26)}{i}.jpg"), 1 - i / n, 100 - 100 * i / n,
                      5 - 5 * i // n, 2, 1, 3 if i == 1 else 1),
             ("Radiant LIGHT, calm mood." if i % 2 else "Flat color; soft ligh") + f" Number {i}.")
            for i in range(n)]


def page(some: list[tuple[Standing, str]], title: str = "photos") -> str:
    return "".join(sheet(title, "a note", some, ["<i>picture</i>"] * len(some)))


def noisy(path: Path, size: tuple[int, int]) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
                    ).save(path)
    return path


def test_every_shot_is_there_with_what_is_said_of_it() -> None:
    some, text = shots(8), page(shots(8), "my photos")
    cards = re.findall(r'<li class="shot".*?</li>', text, re.DOTALL)
    assert len(cards) == 8 and SIGN in text[:2000] and "<bdi>my photos</bdi>" in text
    for (shot, critique), card in zip(some, cards, strict=True):
        assert f"<bdi>{shot.path.name}</bdi>" in card and f'title="{shot.path}"' in card
        assert f">{shot.score:.2f}</span>" in card
        assert f"better than {shot.percentile:.0f} %" in card
        assert f'aria-label="{shot.stars} stars">{"★" * shot.stars}</span>' in card
        assert critique in card and card.count("<i>picture</i>") == 1
        assert (shot.moment in card) and ("burst 2: 1 of 3" in card) == (shot is some[1][0])


def test_nothing_that_was_written_or_named_is_markup() -> None:
    some = [(Standing(Path(f"/photos/{EVIL}\".jpg"), 0.5, 50.0, 3), EVIL)]
    text = page(some, EVIL)
    assert text.count("<script") == 1 and "<img src=x" not in text and "\u202e" not in text
    assert text.count("&lt;img src=x onerror=boom()&gt;") >= 5 and "[U+202E]" in text
    surrogate = Standing(Path(os.fsdecode(b"/\xff.jpg")), 0.5, 50.0, 3), ""
    assert "[U+DCFF]" in page([surrogate])


def test_it_asks_for_nothing_and_needs_no_script() -> None:
    text = page(shots(3))
    assert not re.search(r"""(?:src|href)=|url\(|https?:|import\b|fetch|XMLHttp""", text)
    assert '<form hidden>' in text and "hidden" not in re.search(r"<li.*?>", text)[0]
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)[1]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_small_pictures_where_there_are_many(tmp_path: Path) -> None:
    path = noisy(tmp_path / "a.png", (1200, 800))
    for count, side in ((FEW, LARGE), (FEW + 1, SMALL)):
        data = base64.b64decode(re.search(r"base64,([^\"]*)", thumbnail(path, count))[1])
        assert Image.open(io.BytesIO(data)).size == (side, side * 2 // 3)
    assert len(thumbnail(path, FEW + 1)) < 50_000  # of noise, which JPEG can do little about
    assert 'class="lost"' in thumbnail(tmp_path / "gone.jpg", 1)


def browse(file: Path, view: str = "") -> str:
    """The page as a browser has made it, with a view in its address."""
    if BROWSER is None:
        pytest.skip("no chromium or google-chrome on PATH: the page is not tried in a browser")
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=1000",
         f"--user-data-dir={file.parent / 'browser'}", "--dump-dom", file.as_uri() + view],
        capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def shown(dom: str) -> list[int]:
    """Numbers of the pictures that can be seen, in order."""
    cards = re.findall(r'<li class="shot"([^>]*)>.*?Number (\d+)\.', dom, re.DOTALL)
    return [int(number) for rest, number in cards if " hidden" not in rest]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sheet") / "sheet.html"
    path.write_text(page([*shots(10), (Standing(Path(EVIL), 0, 0.0, 1), EVIL + " Number 10.")]))
    return path


def test_a_browser_shows_searches_filters_and_sorts(file: Path) -> None:
    dom = browse(file)
    assert shown(dom) == list(range(11)) and '<form hidden' not in dom
    assert "11 of 11" in dom
    dom = browse(file, "#q=light+RADIANT&stars=3&order=name")
    names = {i: shot.path.name for i, (shot, _) in enumerate(shots(10))}
    assert shown(dom) == sorted((i for i in range(10) if i % 2 and shots(10)[i][0].stars >= 3),
                                key=names.get) != [1, 3]
    assert f">{len(shown(dom))} of 11</output>" in dom
    assert shown(browse(file, "#order=worst&q=flat")) == [8, 6, 4, 2, 0]
    dom = browse(file, "#q=nobody+wrote+this&stars=9&order=none")
    assert shown(dom) == [] and '<p class="none empty">' in dom


def test_typing_changes_the_view_and_its_address(file: Path) -> None:
    """With a script that types, which the page's own policy would not let in."""
    typing = """<script>form.q.value = "flat"; form.stars.value = "4";
    form.dispatchEvent(new Event("input")); document.title = location.hash;
    document.body.append(getComputedStyle(list.children[1]).display)</script>"""
    text = file.read_text()
    open_page = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", typing + "</body>")
    file.with_name("open.html").write_text(open_page)
    dom = browse(file.with_name("open.html"))
    assert "<title>#q=flat&amp;stars=4</title>" in dom
    assert dom.rstrip().endswith("none</body></html>")  # what is hidden takes no room
    assert shown(dom) == [i for i in range(0, 10, 2) if shots(10)[i][0].stars >= 4] != []
    file.with_name("shut.html").write_text(text.replace("</body>", typing + "</body>"))
    assert "<title>photos</title>" in browse(file.with_name("shut.html"))
