"""Text on the page: every character is to be seen, and none moves its neighbours."""

import re
import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nanoaes.metrics import domain_means, evaluate
from nanoaes.page.report import write_report
from nanoaes.page.text import block, inline, plain

HEBREW, ARABIC = "שלום עולם, 5 מתוך 7", "صورة جميلة"
BAD = {  # class -> characters that draw nothing, break lines or turn the direction
    "control": [chr(c) for c in (*range(32), *range(0x7F, 0xA0)) if chr(c) not in "\t\n"],
    "surrogate": ["\ud800", "\udbff", "\udc00", "\udfff"],
    "zero width": list("\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u3164"),
    "direction": list("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"),
    "separator": list("\u2028\u2029"),
    "private, tag, none": ["\ue000", "\U000e0041", "\ufffe", "\U0010ffff"],
}
EVERY = "".join(c for chars in BAD.values() for c in chars)


class Reader(HTMLParser):
    """Collects where each piece of text stands: (elements around it, the text)."""

    VOID = {"meta", "img", "br"}

    def __init__(self, page):
        super().__init__()
        self.stack, self.texts, self.values = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.values += [value for _, value in attrs if value]
        if tag not in self.VOID:
            self.stack.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag, "elements are properly nested"

    def handle_data(self, data):
        self.texts.append((list(self.stack), data))


def report(path, words, name):
    """A page in which `words` and `name` stand wherever somebody else's text can."""
    Image.new("RGB", (8, 8)).save(path / f"{name}0.png")  # the other pictures are lost
    def item(i):
        good = f"<think>Color: {words}\n**{words}**</think><answer>0.5</answer>"
        return {"image": f"{path}/{name}{i}.png", "truth": 0.1 * i, "pred": None if i == 1 else 0.5,
                "text": words if i == 1 else good}
    items = [item(i) for i in range(4)]
    metrics = evaluate([i["pred"] for i in items], [i["truth"] for i in items])
    one = {"checkpoint": words, "decoding": {words: words}, "mean": domain_means({"a": metrics},
           {"a": "in"}), "sets": {name: {"domain": "in", "metrics": metrics, "items": items}}}
    return write_report(path / "report.html", words, [], {f"first {words}": one, words: one},
                        {"train": words}, [words]).read_text(encoding="utf-8")


@pytest.mark.parametrize("chars", BAD.values(), ids=BAD)
def test_each_becomes_a_sign_of_its_own(chars):
    for char in chars:
        assert plain(f"a{char}b") == f"a[U+{ord(char):04X}]b"
        assert block(f"a{char}b") == f'a<span class="sign">[U+{ord(char):04X}]</span>b'


def test_signs_by_example():
    assert plain("\0\x1b[31m\x7f\x9b") == "[U+0000][U+001B][31m[U+007F][U+009B]"
    assert plain("a\u202eb\u200d\ud83d") == "a[U+202E]b[U+200D][U+D83D]"
    assert plain("a\tb\nc") == "a b\nc"
    assert block("a\tb\nc") == "a b\nc"


@pytest.mark.parametrize("words", [HEBREW, ARABIC, "naïve – 1/f² · „schön“", "e\u0301",
                                   "夕焼け 🌅 ☀\ufe0f"])
def test_what_can_be_seen_stays_as_it_is(words):
    assert plain(words) == block(words) == words and inline(words) == f"<bdi>{words}</bdi>"


@given(st.text(st.characters(categories=None) | st.sampled_from(EVERY)))
def test_nothing_unseen_is_left_and_lengths_say_so(text):
    shown = plain(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown
               if c != "\n")
    assert shown.count("\n") == text.count("\n") and not re.search(r"[<>\"']", shown)
    shown.encode("utf-8")


def test_no_raw_control_character_is_in_the_page(tmp_path):
    words = EVERY + "x</think>\0" + EVERY
    # What Linux lets into a file's name: all but NUL and whole surrogates, in 255 bytes.
    text = report(tmp_path, words, "x\x1b\x7f\x9b\u200b\u202e\u2028\u3164\ue000\udc80")
    assert 'alt="x[U+001B][U+007F][U+009B][U+200B][U+202E]' in text
    raw = {c for c in text if c != "\n" and unicodedata.category(c)[0] == "C"}
    assert not raw | (set("\u2028\u2029\u034f\u3164") & set(text))
    assert "[U+202E]" in text and "[U+D800]" in text
    Reader(text)  # properly nested


def test_right_to_left_text_is_readable_and_cannot_reorder_its_neighbours(tmp_path):
    read = Reader(report(tmp_path, HEBREW, ARABIC))
    found = [(stack, data) for stack, data in read.texts if HEBREW in data or ARABIC in data]
    # Stages: 2 in the table, 2 in its last row, 2 beside the plots, 8 in the gallery; a title, a
    # note; critiques: 2 paragraphs, 2 stages, 3 readable pictures, and 2 unreadable.
    assert sum(data.count(HEBREW) for _, data in found) == 14 + 3 + 12 + 2
    for stack, data in found:
        apart = any(tag in ("bdi", "title") or a.get("dir") for tag, a in stack)
        assert apart, (stack, data)
    # What is isolated holds only the foreign text, not the page's own words beside it.
    for stack, data in read.texts:
        if any(tag == "bdi" for tag, _ in stack):
            assert data.replace("first ", "").replace(".png", "").rstrip("0123") in (HEBREW, ARABIC)
    assert any(HEBREW in value and "prediction against truth" in value for value in read.values)
