"""What every page is made of: style sheet, opening, figures in large type, tables, pictures.

One palette, light and dark, serves text and drawings; its hues stay apart for colour-blind eyes,
and lines differ in dash as well. A page asks for nothing from outside, and its policy has a browser
see to it. Left out: a layout for print.
"""

from collections.abc import Iterable
from pathlib import Path

from nanoaes.page.text import inline, plain

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
STYLE = """
:root{color-scheme:light dark;--page:#fbfaf7;--ink:#1d2126;--soft:#5b6169;--faint:#9aa0a6;
  --line:#e6e3dc;--bar:#cfcabf;--tint:#2563a81f;
  --c0:#2563a8;--c1:#b4560f;--c2:#0f7a66;--c3:#7a4fa3;--warn:#a3341f}
@media(prefers-color-scheme:dark){:root{--page:#14161a;--ink:#ebe8e1;--soft:#a6abb2;--faint:#6c727a;
  --line:#2c3036;--bar:#494d54;--tint:#7db4f033;
  --c0:#7db4f0;--c1:#f0a35e;--c2:#5fc9b0;--c3:#c1a1e8;--warn:#f08a73}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.6 system-ui,-apple-system,
  "Segoe UI",Roboto,"Liberation Sans",sans-serif;-webkit-text-size-adjust:100%;
  overflow-wrap:anywhere}
main{max-width:1120px;margin:0 auto;padding:clamp(2rem,6vw,5rem) clamp(1.1rem,4vw,2.5rem)}
h1,h2,blockquote{font-family:"Iowan Old Style",Palatino,"Palatino Linotype",Georgia,
  "Liberation Serif",serif}
h1{font-size:clamp(2rem,5vw,3.1rem);line-height:1.12;font-weight:500;letter-spacing:-.015em;
  margin:.4rem 0 1.1rem;text-wrap:balance}
h2{font-size:1.65rem;font-weight:500;margin:clamp(3.5rem,8vw,5.5rem) 0 .5rem}
h3{font-size:1rem;font-weight:600;margin:2.2rem 0 .6rem}
p{max-width:42rem;margin:0 0 1rem}.lede{font-size:1.12rem;color:var(--soft)}
.over,.tag{font-size:.74rem;letter-spacing:.09em;text-transform:uppercase;color:var(--soft)}
.running{margin:1.8rem 0;padding:.7rem 0 .7rem 1rem;border-left:3px solid var(--c2);
  color:var(--soft)}.running b{color:var(--ink)}
.note,.none{font-size:.88rem;color:var(--soft)}.note+.grid{margin-top:1.8rem}
.tag{margin-left:.6rem;font-weight:400;white-space:nowrap}
.grid{display:grid;gap:2.4rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr))}
.tiles{display:grid;gap:1.6rem;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));
  margin:2.6rem 0 3rem;padding:1.6rem 0;border:solid var(--line);border-width:1px 0}
.tiles div{display:flex;flex-direction:column}.tiles b{font:500 2rem/1.2 Georgia,
  "Liberation Serif",serif;color:var(--c0)}.tiles span{font-size:.86rem;color:var(--soft)}
.scroll{overflow-x:auto;margin:1.4rem 0 .8rem}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.55rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{font-weight:600}thead th{vertical-align:bottom;font-size:.84rem}th small{font-weight:400}
th:first-child{text-align:left;position:sticky;left:0;background:var(--page);padding-left:0}
th bdi{display:inline-block;max-width:10rem;overflow:hidden;text-overflow:ellipsis;
  vertical-align:bottom}
.ci{display:block;height:3px;width:4.4rem;margin:.1rem 0 .1rem auto;background:linear-gradient(
  90deg,var(--line) var(--a),currentColor var(--a) var(--b),var(--line) var(--b))}
td small,th small{display:block;font-size:.74rem;color:var(--soft)}td div+div{margin-top:.5rem}
.mean{background:color-mix(in srgb,var(--line) 35%,transparent)}.mean div{font-weight:600}
.last td,.last th{color:var(--c0)}
.gain td,.gain th{border:0;color:var(--soft)}
.pairs{display:grid;gap:1rem 2.6rem;grid-template-columns:repeat(2,minmax(0,1fr))}
.pairs>div{display:grid;gap:.4rem 1.2rem;grid-template-columns:1fr 1fr;align-content:start}
.pairs>div>*,.said{min-width:0}
.pairs h4{grid-column:1/-1;margin:0;font-size:.9rem;font-weight:600}
.pairs h4 small{font-weight:400;color:var(--soft);margin-left:.5rem}
.card{display:grid;gap:1.4rem 1.8rem;grid-template-columns:13rem repeat(var(--n),minmax(0,1fr));
  padding:1.8rem 0;border-top:1px solid var(--line)}
.card figure{margin:0}.card img{display:block;width:100%;height:auto;border-radius:6px;
  image-rendering:auto;border:1px solid var(--line)}
.lost{aspect-ratio:1;display:grid;place-items:center;border-radius:6px;background:var(--line);
  font-size:.85rem;color:var(--soft)}
.card figcaption{margin-top:.6rem;font-size:.8rem;color:var(--soft)}
.card figcaption .ruler{margin:1rem 5px}.card figcaption .ruler i+i{opacity:.6}
.card figcaption .ruler i:first-child{z-index:1}
.card figcaption b{color:var(--ink)}.said header{display:flex;align-items:center;gap:.6rem;
  justify-content:space-between;font-size:.86rem;font-weight:600}
.badge{flex:none;padding:.12rem .6rem;border-radius:99px;color:var(--c0);background:var(--tint);
  font-variant-numeric:tabular-nums}
.badge.bad{color:var(--warn);background:none;box-shadow:inset 0 0 0 1px;font-weight:400}
.ruler{position:relative;height:1px;background:var(--faint);margin:.8rem 5px .9rem}
.ruler i{position:absolute;top:-5px;width:2px;height:11px;margin-left:-1px;background:var(--ink)}
.ruler i+i{top:-5px;width:11px;margin-left:-5.5px;border-radius:50%;background:var(--c0)}
.figures{margin:.7rem 0 0;font-size:.8rem;color:var(--soft);font-variant-numeric:tabular-nums}
.figures b{color:var(--ink)}
blockquote{margin:0;font-size:1.02rem;line-height:1.55;max-height:32rem;overflow-y:auto}
blockquote p{margin:0 0 .5rem}
pre{white-space:pre-wrap;font:.8rem/1.5 ui-monospace,Menlo,Consolas,
  "Liberation Mono",monospace;margin:0 0 1rem}
.sign{unicode-bidi:isolate;direction:ltr;padding:0 .15em;border-radius:3px;font-size:.85em;
  color:var(--warn);background:color-mix(in srgb,var(--line) 60%,transparent)}
details{margin-top:clamp(3.5rem,8vw,5.5rem);border-top:1px solid var(--line);padding-top:1.2rem}
summary{cursor:pointer;font-weight:600}
@media(max-width:860px){.pairs{grid-template-columns:minmax(0,1fr)}.card{grid-template-columns:1fr}
  .card figure{max-width:18rem}.pairs>div{max-width:30rem}}
.chart{margin:0;min-width:0}
.chart figcaption{display:flex;flex-wrap:wrap;gap:.1rem .9rem;align-items:baseline;margin:0 0 .5rem}
.chart figcaption b{flex:1 0 100%;font-weight:600;font-size:.95rem}
.key{font-size:.8rem;color:var(--soft);white-space:nowrap}
.key::before{content:"";display:inline-block;width:1.15rem;margin-right:.4rem;
  vertical-align:.25em;border-top:2.5px solid var(--c)}
.key.c2::before{border-top-style:dashed}.key.c3::before{border-top-style:dotted}
.key.truth::before,.key.pred::before{height:.6rem;border:0;background:var(--bar);vertical-align:-.05em}
.key.pred::before{background:var(--tint);border:1.5px solid var(--c0);box-sizing:border-box}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}
.chart .note{margin:.6rem 0 0;font-size:.8rem;line-height:1.5}
svg.plot{display:block;width:100%;height:auto;overflow:visible}
.plot text{font-size:11.5px;fill:var(--soft);font-variant-numeric:tabular-nums}
.pairs .plot text{font-size:9.5px}
@media(max-width:520px){.pairs .plot text{font-size:11px}.pairs>div{gap:.4rem .6rem}}
.plot .end{text-anchor:end}.plot .mid{text-anchor:middle}
.plot .grid{stroke:var(--line);stroke-width:1}.plot .axis{stroke:var(--faint);stroke-width:1}
.plot .diagonal{stroke:var(--faint);stroke-width:1;stroke-dasharray:3 3}
.plot .raw,.plot .smooth{fill:none;stroke:var(--c);stroke-linejoin:round;stroke-linecap:round}
.plot .raw{stroke-width:1;opacity:.28}.plot .smooth{stroke-width:2}
.plot .c2 .smooth{stroke-dasharray:7 4}.plot .c3 .smooth{stroke-dasharray:.5 4;stroke-width:2.4}
.plot .dot{fill:var(--c)}.plot .point{fill:var(--c0);fill-opacity:.5}
.plot .truth{fill:var(--bar)}.plot .pred{fill:var(--tint);stroke:var(--c0);stroke-width:1.4}
"""


def opening(kind: str, title: str, lede: str, css: str = "", policy: str = POLICY, sign: str = ""
            ) -> str:
    """From the first byte to the end of the header. lede: HTML; sign: a tag it is known by."""
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'{sign}<meta http-equiv="Content-Security-Policy" content="{policy}">'
            f"<title>{plain(title)}</title>"
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{STYLE}{css}</style></head><body><main><header>"
            f'<div class="over">nanoaes · {kind}</div><h1>{inline(title)}</h1>'
            f'<p class="lede">{lede}</p></header>')


def tiles(rows: Iterable[tuple[str, str, str]]) -> str:
    """(name, value, remark) of each figure."""
    return '<div class="tiles">{}</div>'.format("".join(
        f"<div><span>{name}</span><b>{value}</b><span>{remark}</span></div>"
        for name, value, remark in rows))


def table(first: str, heads: list[str], rows: dict[str, list[str]], css: str = "") -> str:
    """Rows by name; cells and heads are HTML."""
    head = "".join(f"<th>{h}</th>" for h in heads)
    body = "".join(f"<tr><th>{inline(name)}</th>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"
                   for name, cells in rows.items())
    return (f'<div class="scroll"><table{css}><thead><tr><th>{first}</th>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>")


def article(shown: str, fact: str, dataset: str, image: str, words: str, marks: str = "") -> str:
    """A picture, what is known of it, and what is said. All HTML but two names; image: a path."""
    return (f'<article class="card"><figure>{shown}<figcaption><b>{fact}</b> · {inline(dataset)} '
            f"· {inline(Path(image).name)}{marks}</figcaption></figure>{words}</article>")
