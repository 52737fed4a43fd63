"""The picture and the curve on README's front page, from the run of its first command.

    python train_rapo.py && python bench/front.py          of RUN=runs/toy
    python bench/front.py RUN

Writes bench/figures/picture.png and curve.svg, and prints the rows of README's table: what each
stage says of one picture. It is the picture of PARA, out of domain, whose error from backbone to
RAPO shrank by the median: not the best one. The last line is JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from nanoaes.checkpoint import read_rows  # noqa: E402
from nanoaes.images import load_image  # noqa: E402
from nanoaes.page.charts import Frame, smooth, ticks  # noqa: E402
from nanoaes.prompt import critique_of  # noqa: E402

FIGURES = ROOT / "bench" / "figures"
SET, TIMES = "PARA", 3
STYLE = """<style>
text{font:11px system-ui,sans-serif;fill:#5b6169}.end{text-anchor:end}.mid{text-anchor:middle}
.grid{stroke:#8884;stroke-width:1}.axis{stroke:#888;stroke-width:1}path{fill:none;stroke-width:2}
.c0{stroke:#2563a8}.c1{stroke:#b4560f}.c2{stroke:#0f7a66}text.c0{fill:#2563a8}
text.c1{fill:#b4560f}text.c2{fill:#0f7a66}text.c0,text.c1,text.c2{stroke:none}
@media(prefers-color-scheme:dark){text{fill:#a6abb2}.c0{stroke:#7db4f0}.c1{stroke:#f0a35e}
.c2{stroke:#5fc9b0}text.c0{fill:#7db4f0}text.c1{fill:#f0a35e}text.c2{fill:#5fc9b0}}
</style>"""


def chosen(stages: dict[str, dict]) -> list[dict]:
    """One picture's item of each stage."""
    items = [stage["sets"][SET]["items"] for stage in stages.values()]
    read = [one for one in zip(*items, strict=True) if None not in [i["pred"] for i in one]]
    off = [[abs(i["pred"] - i["truth"]) for i in one] for one in read]
    order = sorted(range(len(read)), key=lambda n: off[n][0] - off[n][-1])
    return list(read[order[len(order) // 2]])


def panel(title: str, lines: dict[str, tuple[np.ndarray, np.ndarray]], low: float) -> str:
    """Named lines over steps, each (x (T,), y (T,)), on [low, 1]; 360 x 220."""
    frame = Frame(360, 220, (0, max(x[-1] for x, _ in lines.values())), (low, 1.0), top=30)
    body = frame.axes(ticks(*frame.x_range), ticks(low, 1.0), "step")
    body += f'<text x="{frame.left}" y="14">{title}</text>'
    for i, (name, (x, y)) in enumerate(lines.items()):
        points = " ".join(f"{frame.px(a):.1f},{frame.py(b):.1f}"
                          for a, b in zip(x, y, strict=True) if np.isfinite(b))
        body += f'<path class="c{i}" d="M{points}"/>'
        body += f'<text class="c{i} end" x="{345 - 75 * (len(lines) - 1 - i)}" y="14">{name}</text>'
    return body


def curve(rows: list[dict]) -> str:
    """Rewards of each step, and how the held-out pictures are scored now and then."""
    steps = [row for row in rows if row["step"]]
    seen = [row for row in rows if "eval_plcc" in row]
    x = np.array([row["step"] for row in steps], float)
    rewards = {name: (x, smooth(np.array([row[key] for row in steps], float))) for name, key in (
        ("relative", "reward_rel"), ("absolute", "reward_abs"))}
    looks = np.array([row["step"] for row in seen], float)
    held = {name: (looks, np.array([row[key] for row in seen], float)) for name, key in (
        ("PLCC", "eval_plcc"), ("SRCC", "eval_srcc"))}
    low = np.floor(10 * min(y.min() for _, y in held.values())) / 10
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 220" width="740">'
            f'{STYLE}{panel("rewards of the sampled answers", rewards, 0.0)}'
            f'<g transform="translate(375)">{panel("held-out pictures", held, low)}</g></svg>\n')


def main() -> None:
    run = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "runs" / "toy")
    stages = {name: json.loads((run / f"eval_{name.replace(' ', '_')}.json").read_text())
              for name in ("backbone", "cold start", "RAPO")}
    one = dict(zip(stages, chosen(stages), strict=True))
    FIGURES.mkdir(exist_ok=True)
    picture = load_image(Path(one["RAPO"]["image"]))
    size = [TIMES * side for side in picture.size]
    picture.resize(size, Image.Resampling.NEAREST).save(FIGURES / "picture.png", optimize=True)
    (FIGURES / "curve.svg").write_text(curve(read_rows(run / "metrics.jsonl")), encoding="utf-8")
    print(f"{SET}, {Path(one['RAPO']['image']).name}; people: {one['RAPO']['truth']:.2f}\n")
    print("| | critique | score |\n|---|---|---|")
    for name, item in one.items():
        print(f"| {name} | {critique_of(item['text']).strip()} | {item['pred']:.2f} |")
    print(json.dumps({"truth": round(one["RAPO"]["truth"], 2),
                      **{name: round(item["pred"], 2) for name, item in one.items()}}))


if __name__ == "__main__":
    main()
