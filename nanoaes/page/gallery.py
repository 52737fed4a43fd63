"""A dozen pictures with what each stage said about them: score, ruler, critique.

A picture is shown as the model saw it (upright, alpha on white). Left out: every other picture;
their answers are in the evaluations' JSON.
"""

import base64
import io
import re
from pathlib import Path

from PIL import Image

from nanoaes.errors import UserError
from nanoaes.images import load_image
from nanoaes.page.charts import known
from nanoaes.page.parts import article
from nanoaes.page.text import block, inline, plain
from nanoaes.prompt import critique_of

GALLERY = 12  # pictures
SIDE = 512  # pixels of an embedded picture's longer side; a smaller one is kept as it is


def gallery(evals: dict[str, dict]) -> str:
    """The section; nothing of results without pictures."""
    cards = ""
    for name, item in pick_gallery(evals):
        words = ""
        for stage, result in evals.items():
            items = result["sets"].get(name, {}).get("items", [])
            match = next((i for i in items if i["image"] == item["image"]), None)
            words += said(stage, match)
        cards += article(picture(item["image"]), f'truth {item["truth"]:.2f}', name,
                         item["image"], words)
    return (f'<section><h2>Critiques</h2><p class="note">The same pictures at every stage. On the '
            'ruler from 0 to 1 the bar is what people said, the dot what the model answered.</p>'
            f'<div style="--n:{max(1, len(evals))}">{cards}</div></section>') if cards else ""


def pick_gallery(evals: dict[str, dict]) -> list[tuple[str, dict]]:
    """(set, item) of GALLERY pictures: the sets in equal shares, each over its range of truth.

    Deterministic; chosen among the last stage's items, the other stages are matched by image.
    """
    sets = list(evals.values())[-1]["sets"] if evals else {}
    sets = {name: result["items"] for name, result in sets.items() if result["items"]}
    picked = []
    for i, (name, items) in enumerate(sets.items()):
        share = GALLERY // len(sets) + (i < GALLERY % len(sets))
        picked += [(name, item) for item in spread(items, share)]
    return picked


def spread(items: list[dict], count: int) -> list[dict]:
    """At most `count` items over the range of truth."""
    count = min(len(items), count)
    ordered = sorted(items, key=lambda item: (item["truth"], str(item["image"])))
    # The middle of each of `count` equal slices: the extremes are often outliers.
    return [ordered[int((j + 0.5) * len(ordered) / count)] for j in range(count)]


def said(who: str, item: dict | None, *, as_written: bool = False, foot: str = "") -> str:
    """One answer: badge, ruler and critique; an unreadable one is shown as written.

    Args:
        as_written: show this one so, too.
        foot: HTML below it.
    """
    if item is None:
        return _framed(who, "", '<p class="none">Not asked.</p>')
    read = known(item["pred"])
    badge = (f'<span class="badge">{item["pred"]:.2f}</span>' if read else
             '<span class="badge bad">unreadable</span>')
    if as_written or not read:
        words = f'<pre dir="ltr">{block(item["text"]) or "(empty)"}</pre>'
    else:
        words = f'<blockquote>{paragraphs(item["text"])}</blockquote>'
    return _framed(who, badge, f'{ruler(item["truth"], item["pred"])}{words}{foot}')


def _framed(who: str, badge: str, words: str) -> str:
    return f'<div class="said"><header>{inline(who)}{badge}</header>{words}</div>'


def ruler(*scores: float | None) -> str:
    """Truth, then what was answered and could be read, as marks on a line from 0 to 1."""
    marks = "".join(f'<i style="left:{100 * score:.0f}%"></i>' for score in filter(known, scores))
    return f'<div class="ruler">{marks}</div>'


def paragraphs(text: str) -> str:
    """A reply's think block as paragraphs, **bold** and a leading "Composition:" set in bold."""
    # Not splitlines() and strip(): they would swallow control characters that are to be seen.
    lines = [line.strip(" \t") for line in critique_of(text).split("\n")]
    paragraphs = [block(line) for line in lines if line]
    bold = [re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", p) for p in paragraphs]
    led = [re.sub(r"^([A-Z][A-Za-z ]{2,24}:)(?= )", r"<b>\1</b>", p) for p in bold]
    return "".join(f'<p dir="auto">{p}</p>' for p in led) or '<p class="none">No critique.</p>'


def picture(path: str, side: int = SIDE) -> str:
    """What the model saw as a data: address, small ones losslessly; a grey square if it is lost."""
    try:
        image = load_image(Path(path))
    except UserError:
        return '<div class="lost">picture cannot be read</div>'
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    kind = "PNG" if max(image.size) <= 128 else "JPEG"
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {}))
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{plain(Path(path).name)}" src="data:image/{kind.lower()};base64,{data}">'
