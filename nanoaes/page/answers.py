"""Answers while training: some pictures of three steps, the best and the worst answer to each.

Left out: the other answers, which are dots on the ruler here and whole in completions.jsonl.
"""

from collections.abc import Sequence
from functools import lru_cache

from nanoaes.page.gallery import picture, ruler, said, spread
from nanoaes.page.parts import article

PICTURES = 3  # of each step
SMALL = 256  # pixels of a picture's longer side

# The page is written anew at every evaluation; the first step's pictures are always the same.
_small = lru_cache(maxsize=8 * PICTURES)(picture)


def told(rows: Sequence[dict]) -> str:
    """The section, from rows of completions.jsonl; nothing without rows."""
    by_step: dict[int, list[dict]] = {}
    for row in rows:
        by_step.setdefault(row["step"], []).append(row)
    steps = "".join(f"<h3>Step {step:,}</h3>{_step(by_step[step])}" for step in sorted(by_step))
    return ('<section><h2>Answers while training</h2><p class="note">The first, a middle and the '
            'last recorded step, each with other pictures: the answer of the highest reward and '
            'that of the lowest. Below a picture the bar is what people said and each dot an '
            'answer. What has not the form asked for is shown as written. All of them are in '
            f"completions.jsonl.</p>{steps}</section>") if steps else ""


def _step(rows: list[dict]) -> str:
    """Cards of some of a step's pictures, over the range of truth."""
    by_image: dict[str, list[dict]] = {}
    for row in rows:
        by_image.setdefault(row["image"], []).append(row)
    some = spread([answers[0] for answers in by_image.values()], PICTURES)
    return f'<div style="--n:2">{"".join(_card(by_image[one["image"]]) for one in some)}</div>'


def _card(answers: list[dict]) -> str:
    """A picture, where its answers lie, the best and the worst of them."""
    one, ranked = answers[0], sorted(answers, key=lambda row: -row["reward"])
    shown = {"highest reward": ranked[0], "lowest reward": ranked[-1]}
    words = "".join(said(f"{name} of {len(answers)}", {**row, "pred": row["score"]},
                         as_written=row["reward_fmt"] < 1, foot=_figures(row))
                    for name, row in list(shown.items())[:len(answers)])
    return article(_small(one["image"], SMALL), f'truth {one["truth"]:.2f}', one["dataset"],
                   one["image"], words, ruler(one["truth"], *(row["score"] for row in answers)))


def _figures(row: dict) -> str:
    """Each reward of one answer, and what became of it."""
    cut = ", cut at the limit" if row["cut"] else ""
    advantage = f'{row["advantage"]:+.2f}'.replace("-", "−")
    return (f'<p class="figures">reward <b>{row["reward"]:.2f}</b>: relative '
            f'{row["reward_rel"]:.2f}, absolute {row["reward_abs"]:.2f}, format '
            f'{row["reward_fmt"]:.0f} · advantage {advantage} · {row["length"]:,} tokens{cut}</p>')
