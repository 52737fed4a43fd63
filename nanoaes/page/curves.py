"""The numbers of metrics.jsonl over steps: what the training does, and what it costs.

Left out: a chart for each key of a row; what is not here is in the file.
"""

from collections.abc import Sequence
from typing import NamedTuple

from nanoaes.page import charts
from nanoaes.page.charts import known


class Curve(NamedTuple):
    """One chart over steps."""
    title: str
    keys: dict[str, str]            # key in metrics.jsonl -> name in the legend
    sparse: bool = False            # measured only now and then
    note: str = ""                  # what a reader might misread
    scale: float = 1.0              # of the file's unit into the chart's


CURVES = (
    Curve("Reward and its parts", {"reward": "sum", "reward_rel": "relative",
                                   "reward_abs": "absolute", "reward_fmt": "format"}),
    Curve("Held-out PLCC / SRCC", {"eval_plcc": "PLCC", "eval_srcc": "SRCC",
                                   "eval_plcc_written": "PLCC of the number written",
                                   "eval_srcc_written": "SRCC of the number written"},
          sparse=True),
    Curve("Spread of predictions and truth", {"pred_std": "predictions", "truth_std": "truth"}),
    Curve("KL to the reference", {"kl": "KL (nats per token)"}),
    Curve("Token entropy", {"entropy": "entropy (nats)"}),
    Curve("Completion length", {"length": "tokens"}),
    Curve("Answers cut at the limit", {"truncated": "share of answers"}),
    Curve("Format and parse rate", {"format_rate": "format", "parse_rate": "parse"}),
    Curve("Groups without spread", {"flat_groups": "share of groups"}),
    Curve("Clip fractions (low, high)", {"clip_low": "low", "clip_high": "high"}),
    Curve("Rollout against training log-probs",
          {"rollout_gap": "mean (nats)", "rollout_gap_max": "maximum"}),
    Curve("Loss", {"loss": "loss"}, note=(
        "A loss near 0 is no fault: at a step's first update the ratio is 1 and the advantages of "
        "a group sum to 0, so the policy's part of the loss is 0 while its gradient is not.")),
)
EFFORT = (  # shown where a run has recorded them
    Curve("Seconds per phase", {"s_rollout": "rollout", "s_update": "update",
                                "s_reference": "reference", "s_data": "data"}),
    Curve("Seconds of an evaluation", {"s_eval": "seconds"}, sparse=True),
    Curve("Speed", {"tokens_per_s": "tokens per second and device"}),
    Curve("Model FLOPs utilisation", {"mfu": "share of the device's peak"}),
    Curve("Peak memory", {"peak_memory": "GB"}, scale=1e-9),
    Curve("Skipped updates", {"skipped": "per step"}, note=(
        "An update is skipped where the loss or a gradient is not finite.")),
)

CRITIQUES = (  # of the held-out pictures, where a run has recorded them
    Curve("Held-out critiques, shares", {
        "eval_level": "judge as people", "eval_consistent": "judge as they score",
        "eval_both": "praise and criticise", "eval_repetition": "repetition"}, sparse=True),
    Curve("Held-out critiques, dimensions", {"eval_coverage": "spoken of, of 5"}, sparse=True),
    Curve("Held-out critiques, length", {"eval_words": "words"}, sparse=True),
)


def training(history: list[dict]) -> str:
    """Small multiples over steps."""
    rows = _merged(history)
    return ('<section><h2>Training</h2><p class="note">Faint: every step. Strong: a running mean '
            f'over some 4 % of the run, centred.{_sum_up(rows)}</p>{_grid(CURVES, rows)}</section>')


def effort(history: list[dict]) -> str:
    """The same of seconds, speed and memory; nothing where none was recorded."""
    curves = recorded(EFFORT, history)
    return f"<section><h2>Time and memory</h2>{curves}</section>" if curves else ""


def recorded(curves: Sequence[Curve], history: list[dict]) -> str:
    """Those charts that have something to show."""
    rows = _merged(history)
    some = [c for c in curves if any(known(row.get(key)) for row in rows for key in c.keys)]
    return _grid(some, rows) if some else ""


def _merged(history: list[dict]) -> list[dict]:
    """One row a step, ascending (a resumed run may repeat some)."""
    by_step: dict[int, dict] = {}
    for row in history:
        by_step.setdefault(row["step"], {}).update(row)
    return [by_step[step] for step in sorted(by_step)]


def _grid(curves: Sequence[Curve], rows: list[dict]) -> str:
    steps = [row["step"] for row in rows]
    return '<div class="grid">{}</div>'.format("".join(charts.line_chart(
        curve.title, steps,
        {name: [_scaled(row.get(key), curve.scale) for row in rows]
         for key, name in curve.keys.items()}, sparse=curve.sparse, note=curve.note)
        for curve in curves))


def _scaled(value: float | None, scale: float) -> float | None:
    return value * scale if known(value) else None


def _sum_up(rows: list[dict]) -> str:
    """Passes over the pictures, the time of the checks, lost updates: where they were recorded."""
    last = {key: row[key] for row in rows for key in ("epoch", "eval_share") if known(row.get(key))}
    out = ""
    if "epoch" in last:
        out += f" Passes over the training pictures: {charts.number(last['epoch'])}."
    if "eval_share" in last:
        out += f" Held-out checks took {100 * last['eval_share']:.1f} % of the time."
    if skipped := sum(row["skipped"] for row in rows if known(row.get("skipped"))):
        out += f" Skipped updates: {skipped:.0f}."
    return out
