"""A contact sheet: pictures by score with their critiques, in one HTML page to search and sort.

    sheet.html#q=light+composition&stars=4&order=name     a view is an address, to keep or to send

The page needs no network: pictures are embedded, small ones where there are many, and no more than
MOST of them, so that it stays some 30 MB. Without JavaScript it shows all. Whatever a model wrote
or a file is called is data (text.py); the page's policy lets no script run but its own.
Left out: links to the files (browsers follow none from a page that was sent), several pages.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from nanoaes.page.gallery import paragraphs, picture
from nanoaes.page.parts import POLICY, opening
from nanoaes.page.text import inline, plain
from nanoaes.standing import Standing

MOST = 2000  # pictures
FEW, LARGE, SMALL = 200, 384, 224  # up to FEW pictures have a longer side of LARGE pixels
SIGN = '<meta name="generator" content="nanoaes contact sheet">'  # an earlier sheet is known by it

CSS = """
main{max-width:1480px}h1{margin-bottom:.6rem}
form{position:sticky;top:0;z-index:2;display:flex;flex-wrap:wrap;gap:.6rem .9rem;align-items:center;
  margin:1.6rem 0;padding:.7rem 0;background:var(--page);border-bottom:1px solid var(--line)}
input,select{font:inherit;color:inherit;background:none;border:1px solid var(--bar);
  border-radius:6px;padding:.3rem .6rem;min-height:2.4rem}
select option{color:#1d2126;background:#fff}
input{flex:1 1 14rem;min-width:0}output{color:var(--soft);font-size:.88rem}
input:focus-visible,select:focus-visible,blockquote:focus-visible{outline:2px solid var(--c0);
  outline-offset:2px}
.shots{list-style:none;margin:0;padding:0;display:grid;gap:2rem 1.5rem;
  grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr))}
.shot{content-visibility:auto;contain-intrinsic-size:auto 24rem;min-width:0}
.shot[hidden]{display:none}
.shot .frame{display:grid;place-items:center;aspect-ratio:4/3;border-radius:6px;overflow:hidden;
  background:color-mix(in srgb,var(--line) 45%,transparent)}
.shot img{display:block;width:100%;height:100%;object-fit:contain}
.shot .lost{width:100%;height:100%;aspect-ratio:auto}
.shot header{display:flex;gap:.6rem;align-items:center;margin:.6rem 0 .15rem;font-size:.86rem}
.shot header b{flex:1;min-width:0;font-weight:600;overflow:hidden;white-space:nowrap;
  text-overflow:ellipsis}
.facts{margin:0 0 .4rem;font-size:.78rem;color:var(--soft);font-variant-numeric:tabular-nums}
.stars{color:var(--c1);letter-spacing:.05em;white-space:nowrap;margin-right:.3rem}
.shot blockquote{font-size:.92rem;line-height:1.5;max-height:none;overflow:hidden;cursor:pointer;
  display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:5}
.shot blockquote:focus{display:block;cursor:auto}
@media(max-width:520px){form{position:static}.shots{gap:2.4rem}}
@media print{form{display:none}}
"""

SCRIPT = """
const form = document.forms[0], list = document.querySelector(".shots");
const cards = [...list.children].map((card, place) => ({card, place, score: +card.dataset.score,
  stars: +card.dataset.stars, name: card.dataset.name, text: ""}));
const plain = text => text.normalize("NFKC").toLowerCase();
const orders = {best: (a, b) => a.place - b.place, worst: (a, b) => b.place - a.place,
  name: (a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : a.place - b.place};
let order = "best";
function show() {
  const words = plain(form.q.value).split(/\\s+/).filter(Boolean), least = +form.stars.value;
  let shown = 0;
  for (const c of cards) {
    c.text ||= plain(c.name + " " + c.card.textContent);
    const kept = c.stars >= least && words.every(word => c.text.includes(word));
    c.card.hidden = !kept;
    shown += kept;
  }
  if (form.order.value != order) {
    order = form.order.value;
    list.append(...[...cards].sort(orders[order]).map(c => c.card));
  }
  form.count.value = shown + " of " + cards.length;
  document.querySelector(".empty").hidden = shown > 0;
}
function read() {
  const view = new URLSearchParams(location.hash.slice(1));
  form.q.value = view.get("q") || "";
  for (const name of ["stars", "order"]) {
    form[name].value = view.get(name);
    if (form[name].selectedIndex < 0) form[name].selectedIndex = 0;
  }
  show();
}
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", () => {
  const view = new URLSearchParams(new FormData(form));
  for (const [name, none] of [["q", ""], ["stars", "1"], ["order", "best"]])
    if (view.get(name) == none) view.delete(name);
  history.replaceState(null, "", "#" + view);
  show();
});
addEventListener("hashchange", read);
form.hidden = false;
read();
"""

FORM = """<form hidden><input type="search" name="q" aria-label="Search names and critiques"
placeholder="Search names and critiques"><select name="stars" aria-label="Stars">
<option value="1">all stars</option><option value="2">★★ and more</option>
<option value="3">★★★ and more</option><option value="4">★★★★ and more</option>
<option value="5">★★★★★</option></select><select name="order" aria-label="Order">
<option value="best">best first</option><option value="worst">worst first</option>
<option value="name">by name</option></select><output name="count"></output></form>"""


def sheet(title: str, note: str, shots: Iterable[tuple[Standing, str]], images: Iterable[str]
          ) -> Iterator[str]:
    """The page, piece by piece: thousands of pictures need not be in memory.

    Args:
        note: a sentence below the title.
        shots: at most MOST pictures with scores and their critiques, the best first.
        images: HTML of each one's picture, from `thumbnail`.
    """
    policy = f"{POLICY}; form-action 'none'; script-src 'sha256-{_hash(SCRIPT)}'"
    yield opening("contact sheet", title, inline(note), CSS, policy, SIGN)
    yield f'{FORM}<ol class="shots">'
    for (shot, critique), image in zip(shots, images, strict=True):
        yield _card(shot, critique, image)
    yield ('</ol><p class="none empty" hidden>No picture has all of these words and stars.</p>'
           f"</main><script>{SCRIPT}</script></body></html>")


def thumbnail(path: Path, count: int) -> str:
    """A picture as an <img> with its data, for a sheet of `count`; a grey square if it is lost."""
    return picture(str(path), LARGE if count <= FEW else SMALL)


def _card(shot: Standing, critique: str, image: str) -> str:
    stars = (f'<span class="stars" role="img" aria-label="{shot.stars} stars">'
             f'{"★" * shot.stars}</span>')
    facts = " · ".join(filter(None, [f"better than {shot.percentile:.0f} %", shot.moment]))
    return (f'<li class="shot" data-score="{shot.score:.4f}" data-stars="{shot.stars}" '
            f'data-name="{plain(str(shot.path))}"><div class="frame">{image}</div>'
            f'<header><b title="{plain(str(shot.path))}">{inline(shot.path.name)}</b>'
            f'<span class="badge">{shot.score:.2f}</span></header>'
            f'<p class="facts">{stars} {facts}</p>'
            f'<blockquote tabindex="0">{paragraphs(critique)}</blockquote></li>')


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
