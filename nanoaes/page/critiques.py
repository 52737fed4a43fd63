"""One self-contained HTML page of a list of critiques: the data card, kept ones, rejected ones.

What a filter has found is marked where its reason quotes the critique. Pictures are embedded and no
more than a few dozen; the page needs no network and no JavaScript, follows the reader's light or
dark setting and reads on a phone. What a model wrote is data and is made safe to show (text.py).
Left out: every other critique; all of them are in the list itself.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from nanoaes.card import called, flagged, flags_of, meaning, reason, some
from nanoaes.checkpoint import write_whole
from nanoaes.cot import LEVELS, score_level
from nanoaes.critiques import picture_of
from nanoaes.metrics import DASH, percent
from nanoaes.page.charts import histogram, histogram_peak
from nanoaes.page.gallery import paragraphs, picture, ruler
from nanoaes.page.parts import article, opening, table, tiles
from nanoaes.page.text import block, inline, plain

KEPT, REJECTED = 12, 6  # critiques that are shown, of each filter
LARGE, SMALL = 384, 224  # pixels of their pictures' longer sides
MOST, SAID = 6000, 400  # characters of a critique and of a reason

CSS = """
.warn{border-color:var(--warn)}.warn b{color:var(--warn)}
.wide tr>:last-child{text-align:left;padding-left:1.6rem;width:99%}
.wide td:last-child{white-space:normal;min-width:15rem;color:var(--soft)}
.wide a{color:inherit}
.some{display:grid;gap:0 2.6rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,28rem),1fr))}
.some .card{grid-template-columns:7.5rem minmax(0,1fr);gap:1.2rem;align-content:start}
.some blockquote{font-size:.94rem;max-height:19rem}.some blockquote:has(mark){max-height:none}
.why{margin:0 0 .5rem;font-size:.86rem;color:var(--warn)}.why small{color:var(--soft)}
.raw{white-space:pre-wrap}
mark{color:inherit;border-radius:3px;padding:0 .12em;
  background:color-mix(in srgb,var(--warn) 26%,transparent)}
.scores{max-width:16rem;margin:1.8rem 0 0}.scores .plot text{font-size:9.5px}
@media(max-width:520px){.some .card{grid-template-columns:6.2rem minmax(0,1fr)}
  .wide tr>:last-child{display:none}}
"""

# A picture may stand under several filters.
_picture = lru_cache(maxsize=64)(picture)


def write_page(path: Path, title: str, rows: Sequence[dict[str, Any]], card: dict[str, Any]
               ) -> None:
    """Write the page, atomically (a reader never sees half of it).

    Args:
        path: the page's; a picture's path may be relative to it, as to the list beside it.
        rows: build_cot.py's, each with "image", "score", "critique", "kept" and its flags.
        card: what `card.card` makes of them.
    Raises:
        OSError: the page cannot be written. A picture that cannot be read leaves a grey square.
    """
    rows = [{**row, "image": str(picture_of(path, row["image"]))} for row in rows]
    write_whole(path, _page(title, rows, card))


def _page(name: str, rows: list[dict[str, Any]], card: dict[str, Any]) -> Iterator[str]:
    yield opening("AesCoT", name, "What a teacher wrote about scored pictures, what the filters "
                  "found in it, and what is left to learn from.", CSS)
    yield from (f'<p class="running">{inline(short)}</p>' for short in [card["short"]] if short)
    yield from (f'<p class="running warn"><b>warning:</b> {inline(warning)}</p>'
                for warning in card["warnings"])
    yield _tiles(card) + _filters(card) + _levels(card, rows) + _judge(card["judge_reads"])
    yield from _kept(rows)
    for flag in flags_of(rows):
        yield from _rejected(rows, flag)
    asked = {key: card[key] for key in ("teacher", "judge", "teachers", "judges", "options")}
    yield ('<details><summary>Who was asked, and how</summary><pre dir="ltr">'
           f"{block(json.dumps(asked, indent=2))}</pre></details></main></body></html>")


def _tiles(card: dict[str, Any]) -> str:
    """The card's first figures in large type."""
    tokens = card["tokens"] or {}
    wanted = f"{card['target']:,} wanted" if card["target"] else ""
    rows = [("kept", f"{card['kept']:,}", wanted),
            ("of critiques", f"{card['critiques']:,}", f"{percent(card['keep_rate'])} kept"),
            ("refused by the teacher", f"{card['refusals']:,}", ""),
            ("without the judge's answer", f"{card['unjudged']:,}", "")]
    if tokens:
        each = DASH if tokens["per_kept"] is None else f"{tokens['per_kept']:,.0f}"
        rows.append(("tokens for each one kept", each, f"{tokens['asked']:,} asked, "
                     f"{tokens['answered']:,} answered, {tokens['requests']:,} requests"))
    return tiles(rows)


def _filters(card: dict[str, Any]) -> str:
    """How many critiques each filter has rejected."""
    rows = {called(flag): [f'<a href="#{plain(flag)}">{part["count"]:,}</a>' if part["count"] else
                           "0", percent(part["share"]), f"{part['alone']:,}",
                           inline(meaning(flag))]
            for flag, part in card["filters"].items()}
    return ("<section><h2>Filters</h2>"
            + table("filter", ["rejected", "share", "alone", "what it finds"], rows,
                    ' class="wide"')
            + '<p class="note">Whatever one of them rejects is not kept. None hides another: a '
              "critique may stand in several lines; alone are those that no other filter "
              "rejects.</p></section>")


def _levels(card: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Kept and asked, by dataset and level of the score, and how the scores lie."""
    def cell(part: dict[str, int]) -> str:
        return f"{part['kept']:,}<small>of {part['asked']:,}</small>"

    total = {"kept": card["kept"], "asked": card["critiques"]}
    cells = {name or DASH: [*map(cell, part.values()), cell(card["datasets"][name])]
             for name, part in card["levels_of_datasets"].items()}
    cells["all sets" if "all" in cells else "all"] = [
        *map(cell, card["levels"].values()), cell(total)]
    asked, kept = [row["score"] for row in rows], [row["score"] for row in rows if row["kept"]]
    plot = histogram(asked, kept, histogram_peak(asked, kept), "scores that were asked and kept")
    return ("<section><h2>Levels and datasets</h2>" + table("dataset", [*LEVELS, "all"], cells)
            + '<p class="note">Critiques that are kept, of how many pictures that were asked '
              "about. A picture is bad below .4, good from .7 on, fair between.</p>"
              f'<figure class="chart scores"><figcaption><b>Scores</b><span class="key truth">asked'
              f'</span><span class="key pred">kept</span></figcaption>{plot}</figure></section>')


def _judge(reads: dict[str, dict[str, int]] | None) -> str:
    """What the judge has read in the words, against the scores."""
    if not reads:
        return ""
    total = sum(sum(row.values()) for row in reads.values())
    right = sum(row[level] for level, row in reads.items())
    heads = [f"reads {read}" if read in LEVELS else read for read in next(iter(reads.values()))]
    rows = {f"score {level}": [f"<b>{n:,}</b>" if read == level else f"{n:,}"
                               for read, n in row.items()] for level, row in reads.items()}
    return ("<section><h2>What the judge reads</h2>" + table("", heads, rows)
            + f'<p class="note">From the words alone; the score\'s level in '
              f"{percent(right / total)} of {total:,} critiques.</p></section>")


def _kept(rows: list[dict[str, Any]]) -> Iterator[str]:
    shown = some([row for row in rows if row["kept"]], KEPT)
    yield ('<section><h2>Kept</h2><p class="note">A few of them, over the levels. On the ruler '
           'from 0 to 1 the bar is what people said.</p><div style="--n:1">')
    for row in shown:
        yield _card(row, LARGE, f"<blockquote>{paragraphs(row['critique'][:MOST])}</blockquote>")
    yield ("" if shown else '<p class="none">None is kept.</p>') + "</div></section>"


def _rejected(rows: list[dict[str, Any]], flag: str) -> Iterator[str]:
    """Some of those that one filter has rejected, as written."""
    found = [row for row in rows if flagged(row, flag)]
    if not found:
        return
    shown = some(found, REJECTED)
    yield (f'<section id="{plain(flag)}"><h2>Rejected: {inline(called(flag))}</h2><p class="note">'
           f"{len(shown):,} of {len(found):,}. {inline(meaning(flag).capitalize())}.</p>"
           '<div class="some">')
    for row in shown:
        why, text = reason(row, flag), row["critique"]
        also = [called(other) for other in flags_of([row]) if other != flag and flagged(row, other)]
        more = f" <small>also: {inline(', '.join(also))}</small>" if also else ""
        cut = " …" if len(text) > MOST else ""
        yield _card(row, SMALL, f'<p class="why">{inline(why[:SAID] or called(flag))}{more}</p>'
                    f'<blockquote class="raw" dir="auto">{marked(text[:MOST], why)}{cut}'
                    "</blockquote>")
    yield "</div></section>"


def _card(row: dict[str, Any], side: int, words: str) -> str:
    image, score = row["image"], row["score"]
    return article(_picture(image, side), f"{LEVELS[score_level(score)]}, {score:.2f}",
                   str(row.get("dataset", "")), image, f'<div class="said">{words}</div>',
                   ruler(score))


def marked(text: str, why: str) -> str:
    """A critique as HTML, with those words marked that a reason quotes.

    What stands between quotation marks, between semicolons, or the whole of it; in any case and
    with any marks between the words.
    """
    quoted = re.findall(r"""(?<!\w)["'“‘«](.+?)["'”’»](?!\w)""", why, re.DOTALL)
    # Beside a quotation a lone word is the reason's own: stars: "★★".
    whole = [part for part in [*why.split(";"), why] if not quoted or len(_words(part)) > 1]
    patterns = [r"\W+".join(map(re.escape, _words(part))) or re.escape(part.strip())
                for part in [*quoted, *whole] if part.strip(" ;")]
    if not patterns:
        return block(text) or "(empty)"
    pieces = re.split(rf"((?<!\w)(?:{'|'.join(patterns)})(?!\w))", text, flags=re.IGNORECASE)
    return "".join(f"<mark>{block(piece)}</mark>" if i % 2 else block(piece)
                   for i, piece in enumerate(pieces)) or "(empty)"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)
