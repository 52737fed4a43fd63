"""One self-contained HTML page of a run: results, training curves, distributions, critiques.

It can be written while the run goes on. Pictures are embedded (gallery.py, answers.py), charts are
inline SVG (curves.py, charts.py): the page needs no network and no JavaScript, follows the reader's
light or dark setting and reads on a phone. Whatever a model wrote is data and is made safe to show
(text.py). Left out: sorting, zooming, and every picture but a dozen; the numbers are in
metrics.jsonl and the evaluations' JSON.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from nanoaes.checkpoint import write_whole
from nanoaes.metrics import CORRELATIONS, DASH, cut_share, percent, short, unreadable
from nanoaes.page import charts
from nanoaes.page.answers import told
from nanoaes.page.breakdown import breakdown
from nanoaes.page.charts import known
from nanoaes.page.curves import effort, training
from nanoaes.page.gallery import gallery
from nanoaes.page.parts import opening, tiles
from nanoaes.page.quality import quality
from nanoaes.page.text import block, inline

SHARES = {"unreadable": unreadable, "cut off": cut_share}  # a column's heading -> a stage's share
MADE_WORLD = ("A small made world: the photographs are drawn by a program that knows how good each "
              "one is, and a tiny model learns to judge them. The sets bear the names of the real "
              "ones whose file formats they imitate; no figure here compares with the paper's.")
READ_BY = {"greedy": "Scores are the numbers written.",
           "expect": "Scores are the expectations of the numbers written.",
           "direct": "Scores are the expectations of numbers without a critique."}
REAL_WORLD = "How well a model's judgement of beauty agrees with people's."


def write_report(path: Path, title: str, history: list[dict], evals: dict[str, dict],
                 config: dict, notes: list[str], *, answers: Sequence[dict] = (), steps: int = 0
                 ) -> Path:
    """Write the page, atomically (a reader never sees half of it), and return its path.

    Args:
        history: rows of metrics.jsonl, {"step": int, ...floats}; a missing key leaves a gap, no
            row no curves. The last "epoch" (passes over the pictures) and "eval_share" stand
            above the curves.
        evals: stage name -> {"checkpoint", "decoding", "sets": {name: {"domain": "in" | "ood",
            "metrics": as `evaluate` returns, "items": [{"image", "truth", "pred", "text"}]}},
            "mean": as `domain_means` returns}. First the backbone, last the final model. A result
            may lack "critiques" (`quality.py`).
        config: the run's settings; without sets of one's own the page says that its world is a
            made one.
        notes: sentences for the reader, shown at the end.
        answers: what `completions.excerpt` returns.
        steps: of the whole training; while it runs there are no `evals`, and the page tells how
            far it is.
    Raises:
        OSError: the page cannot be written. A picture that cannot be read leaves a grey square.
    """
    made = not any(config.get(key) for key in ("train", "test_in", "test_ood"))
    write_whole(path, [
        opening("report", title, MADE_WORLD if made else REAL_WORLD),
        _running(history, steps) if steps and not evals else _results(evals), breakdown(evals),
        training(history) if history else "", quality(evals, history), effort(history),
        told(answers), _distributions(evals), gallery(evals), _appendix(evals, config, notes),
        "</main></body></html>"])
    return path


def _running(history: list[dict], steps: int) -> str:
    """How far the training is. The hour tells a run that goes on from one that died."""
    step = max((row["step"] for row in history), default=0)
    return (f'<p class="running"><b>running: step {step:,} of {steps:,}</b> · written '
            f'{time.strftime("%Y-%m-%d %H:%M")} · the test sets come after the last step</p>')


def _results(evals: dict[str, dict]) -> str:
    """Tiles and the table of all stages and sets."""
    if not evals:
        return '<p class="none">No evaluation was given.</p>'
    stages, domains = list(evals), _domains(evals)
    heads = "".join(
        f'<th>{inline(s)}<small>{"in-domain" if d == "in" else "OOD"}</small></th>'
        for s, d in domains.items())
    heads += "".join(f'<th class="mean">{m}<small>mean</small></th>'
                     for m in ("in-domain", "OOD", "all"))
    heads += "".join(f"<th>{name}</th>" for name in SHARES)
    rows = "".join(f'<tr{" class=last" if name == stages[-1] else ""}><th>{inline(name)}</th>'
                   f"{_cells(evals[name], domains)}</tr>" for name in stages)
    if len(stages) > 1:
        rows += _gain_row(stages, evals, domains)
    ways = {result.get("decoding", {}).get("readout") for result in evals.values()}
    note = "".join(f" {READ_BY[way]}" for way in sorted(ways & READ_BY.keys()))
    return (f'{_tiles(evals)}<section><h2>Agreement with people</h2>'
            f'<div class="scroll"><table><thead><tr><th>PLCC<small>SRCC</small></th>{heads}'
            f'</tr></thead><tbody>{rows}</tbody></table></div><p class="note">'
            'PLCC above SRCC, each with its 95 % bootstrap interval over images. Means are plain '
            'means over sets, never pooled; a constant answer has no order and counts as 0. '
            'Unreadable answers are left out of the correlations. Cut off: answers that reached '
            f'the length limit.{note}</p></section>')


def _domains(evals: dict[str, dict]) -> dict[str, str]:
    """Set -> "in" or "ood", over all stages, in-domain first."""
    found = {s: r["domain"] for result in evals.values() for s, r in result["sets"].items()}
    return dict(sorted(found.items(), key=lambda pair: pair[1] != "in"))


def _tiles(evals: dict[str, dict]) -> str:
    """Three gains in large type and the share of unreadable answers, first stage to last."""
    first, *_, last = [*evals.values(), *evals.values()]  # one stage is both
    rows = []
    for name, domain, key in (("mean PLCC", "all", "plcc"), ("mean SRCC", "all", "srcc"),
                              ("out of domain PLCC", "ood", "plcc")):
        a, b = first["mean"][domain][key], last["mean"][domain][key]
        rows.append((name, short(b), f"from {short(a)}, {_gain(a, b)}"))
    rows.append(("unreadable answers", percent(unreadable(last)),
                 f"from {percent(unreadable(first))}"))
    return tiles((name, value, was if len(evals) > 1 else "") for name, value, was in rows)


def _gain(before: float | None, after: float | None) -> str:
    """Relative gain as the paper's headline; meaningless from a baseline that is not positive."""
    if before is None or after is None or before <= 0:
        return DASH
    return f"{100 * (after / before - 1):+.1f} %".replace("-", "−")


def _metrics(result: dict, domains: dict[str, str]) -> list[dict]:
    """The columns of a stage: each set's metrics ({} where it was not evaluated), three means."""
    sets = [result["sets"].get(name, {}).get("metrics", {}) for name in domains]
    return sets + [result["mean"][domain] for domain in ("in", "ood", "all")]


def _cells(result: dict, domains: dict[str, str]) -> str:
    """A stage's line of the table."""
    cells = ""
    for i, m in enumerate(_metrics(result, domains)):
        cells += '<td class="mean">' if i >= len(domains) else "<td>"
        for key in CORRELATIONS:
            cells += f"<div>{short(m.get(key))}{_interval(m.get(key + '_ci'))}</div>"
        cells += "</td>"
    return cells + "".join(f"<td>{percent(of(result))}</td>" for of in SHARES.values())


def _interval(ci: list[float] | None) -> str:
    """[lo, hi] drawn on a line from 0 to 1, and in figures; as much empty space without one."""
    if not ci:
        return '<i class="ci" style="visibility:hidden"></i><small>&nbsp;</small>'
    a, b = (100 * min(max(v, 0.0), 1.0) for v in ci)
    text = "[{:.2f}, {:.2f}]".format(*ci).replace("-", "−")
    return f'<i class="ci" style="--a:{a:.0f}%;--b:{b:.0f}%"></i><small>{text}</small>'


def _gain_row(stages: list[str], evals: dict[str, dict], domains: dict[str, str]) -> str:
    """Gain of the last stage over the first, in percent; shares have none."""
    ends = (_metrics(evals[stages[0]], domains), _metrics(evals[stages[-1]], domains))
    cells = "".join(
        f'<td>{"<br>".join(_gain(a.get(key), b.get(key)) for key in CORRELATIONS)}</td>'
        for a, b in zip(*ends, strict=True))
    head = f"{inline(stages[-1])}<small>over {inline(stages[0])}</small>"
    return f'<tr class="gain"><th>{head}</th>{cells}{"<td></td>" * len(SHARES)}</tr>'


def _distributions(evals: dict[str, dict]) -> str:
    """Per set: scatter and histograms of the first stage beside those of the last."""
    if not evals:
        return ""
    ends = list(evals)[:: max(1, len(evals) - 1)]
    out = ""
    for name, domain in _domains(evals).items():
        read = {e: _readable(evals[e]["sets"].get(name, {}).get("items", [])) for e in ends}
        peak = charts.histogram_peak(*(sample for pair in read.values() for sample in pair))
        panels = "".join(_panel(name, e, *read[e], peak) for e in ends)
        tag = f'<span class="tag">{"in-domain" if domain == "in" else "out of domain"}</span>'
        out += f'<h3>{inline(name)}{tag}</h3><div class="pairs">{panels}</div>'
    return ('<section><h2>Predictions and truth</h2><p class="note">Left, each picture a point; '
            'a perfect answer lies on the dashed line. Right, how the scores are distributed: '
            '<span class="key truth">truth</span> and <span class="key pred">prediction</span>.'
            f'</p>{out}</section>')


def _readable(items: list[dict]) -> tuple[list[float], list[float]]:
    """(truths, predictions) of the items with a readable answer."""
    kept = [(i["truth"], i["pred"]) for i in items if known(i["pred"])]
    return [t for t, _ in kept], [p for _, p in kept]


def _panel(name: str, stage: str, truth: list[float], pred: list[float], peak: float) -> str:
    label = f"{stage} on {name}"
    return (f"<div><h4>{inline(stage)}<small>{len(truth):,} readable</small></h4>"
            f'{charts.scatter(truth, pred, label + ": prediction against truth")}'
            f'{charts.histogram(truth, pred, peak, label + ": both distributions")}</div>')


def _appendix(evals: dict[str, dict], config: dict, notes: list[str]) -> str:
    """Notes, configuration, checkpoints and decoding settings, folded away."""
    runs = {name: {key: result.get(key) for key in ("checkpoint", "decoding")}
            for name, result in evals.items()}
    blocks = "".join(
        f'<h3>{name}</h3><pre dir="ltr">{block(json.dumps(value, indent=2, default=str))}</pre>'
        for name, value in (("Configuration", config), ("Evaluations", runs)))
    listed = "".join(f"<li>{inline(note)}</li>" for note in notes)
    return (f'<details><summary>Notes and configuration</summary><h3>Notes</h3><ul>{listed}</ul>'
            f"{blocks}</details>")
