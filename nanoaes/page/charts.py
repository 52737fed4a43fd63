"""Charts as inline SVG written by hand: lines over steps, a scatter, two histograms.

Every function returns a piece of HTML without scripts or addresses; parts.py gives the colours.
Left out: zooming and tooltips (they need JavaScript; the numbers are in metrics.jsonl), logarithmic
axes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nanoaes.page.text import plain

MAX_POINTS = 600  # of a line or a scatter; more only makes the page heavy
BINS = 20


@dataclass(frozen=True)
class Frame:
    """A plot's area in SVG units and the ranges it shows."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 44
    bottom: float = 34
    top: float = 8
    right: float = 10

    def px(self, x: float) -> float:
        """Data to SVG, to the right."""
        lo, hi = self.x_range
        return self.left + (x - lo) / (hi - lo) * (self.width - self.left - self.right)

    def py(self, y: float) -> float:
        """Data to SVG; SVG counts downwards."""
        lo, hi = self.y_range
        return self.height - self.bottom - (y - lo) / (hi - lo) * (
            self.height - self.bottom - self.top)

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str,
             y_label: str = "") -> str:
        """Horizontal grid lines, tick labels, the base line and the axes' names."""
        base, end = self.height - self.bottom, self.width - self.right
        out = [f'<line class="grid" x1="{self.left:.1f}" x2="{end:.1f}" y1="{self.py(t):.1f}" '
               f'y2="{self.py(t):.1f}"/><text class="end" x="{self.left - 6:.1f}" '
               f'y="{self.py(t) + 3.5:.1f}">{number(t)}</text>' for t in y_ticks]
        out.append(f'<line class="axis" x1="{self.left}" x2="{end:.1f}" y1="{base}" y2="{base}"/>')
        out += [f'<text class="mid" x="{self.px(t):.1f}" y="{base + 14:.1f}">{number(t)}</text>'
                for t in x_ticks]
        out.append(f'<text class="mid" x="{(self.left + end) / 2:.1f}" '
                   f'y="{self.height - 4:.1f}">{plain(x_label)}</text>')
        if y_label:
            middle = (self.top + base) / 2
            out.append(f'<text class="mid" transform="translate(9 {middle:.1f}) rotate(-90)">'
                       f'{plain(y_label)}</text>')
        return "".join(out)

    def svg(self, body: str, label: str) -> str:
        """The whole drawing; `label` is read out where it cannot be seen."""
        return (f'<svg class="plot" role="img" aria-label="{plain(label)}" '
                f'viewBox="0 0 {self.width:g} {self.height:g}">{body}</svg>')


def number(value: float) -> str:
    """A tick's label: 0.25, 1500, 2e-6; a true minus sign."""
    text = f"{value:.4g}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.1e}".replace(
        ".0e", "e")
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def ticks(lo: float, hi: float, count: int = 5) -> list[float]:
    """About `count` round numbers in [lo, hi], 1, 2 or 5 times a power of ten apart."""
    raw = (hi - lo) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda m: abs(math.log(m * power / raw)))
    first, last = math.ceil(lo / step - 1e-9), math.floor(hi / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def smooth(y: np.ndarray) -> np.ndarray:
    """Centred Gaussian mean of (T,) over some 4 % of the run; NaN stays NaN and weighs nothing."""
    half = min(max(1, len(y) // 24), (len(y) - 1) // 2)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / max(half / 2, 1e-9)) ** 2)
    known = np.isfinite(y)
    total = np.convolve(np.where(known, y, 0.0), kernel, "same")
    weight = np.convolve(known.astype(float), kernel, "same")
    return np.where(known, total / np.maximum(weight, 1e-12), np.nan)


def known(value: float | None) -> bool:
    """Whether a number is there to be drawn."""
    return value is not None and math.isfinite(value)


def line_chart(title: str, steps: Sequence[float], series: dict[str, Sequence[float | None]],
               *, sparse: bool = False, note: str = "") -> str:
    """Named lines (T,) over `steps` (T,), ascending: raw faint, smoothed strong.

    A value that is None or not finite leaves a gap. `sparse` is for what is measured now and then:
    known points are marked and joined across gaps. `note` stands below.
    """
    x, lines = np.asarray(steps, float), [_finite(y) for y in series.values()]
    xs = np.concatenate([x[np.isfinite(y)] for y in lines])
    ys = np.concatenate([y[np.isfinite(y)] for y in lines])
    legend = "".join(f'<span class="key c{i}">{plain(name)}</span>'
                     for i, name in enumerate(series))
    head = f'<figure class="chart"><figcaption><b>{plain(title)}</b>{legend}</figcaption>'
    if not len(xs):
        return head + '<p class="none">Not recorded in this run.</p></figure>'
    foot = (f'<p class="note">{plain(note)}</p>' if note else "") + "</figure>"
    frame = Frame(330, 190, _range(xs, 0.0), _range(ys, 0.06))
    whole = [t for t in ticks(*frame.x_range) if float(t).is_integer()]
    body = frame.axes(whole, ticks(*frame.y_range), "step")
    for i, y in enumerate(lines):
        body += f'<g class="c{i}">{_line(frame, x, y, sparse)}</g>'
    return head + frame.svg(body, title) + foot


def _finite(values: Sequence[float | None]) -> np.ndarray:
    """None, NaN and infinities become NaN, so that one test finds every gap."""
    y = np.array([np.nan if v is None else float(v) for v in values], dtype=float)
    return np.where(np.isfinite(y), y, np.nan)


def _range(values: np.ndarray, margin: float) -> tuple[float, float]:
    """The values' range, widened by a share; never of width 0."""
    lo, hi = float(values.min()), float(values.max())
    pad = margin * (hi - lo) if hi > lo else 0.1 * max(abs(hi), 1e-3)
    # A margin below what cannot be negative (rates, lengths) would suggest negative values.
    return (max(0.0, lo - pad) if lo >= 0 else lo - pad), hi + pad


def _line(frame: Frame, x: np.ndarray, y: np.ndarray, sparse: bool) -> str:
    """One series: its raw path and its smoothed path, or marked points joined by a line."""
    if sparse:
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
        dots = (f'<circle class="dot" r="2.6" cx="{frame.px(a):.1f}" cy="{frame.py(b):.1f}"/>'
                for a, b in zip(x, y, strict=True))
        return _path(frame, x, y, "smooth") + "".join(dots)
    mean = smooth(y)
    every = max(1, math.ceil(len(x) / MAX_POINTS))
    return _path(frame, x[::every], y[::every], "raw") + _path(
        frame, x[::every], mean[::every], "smooth")


def _path(frame: Frame, x: np.ndarray, y: np.ndarray, css: str) -> str:
    """A path that lifts its pen at NaN; a lonely point becomes a dot by its round line cap."""
    parts, pen_down = [], False
    for a, b in zip(x, y, strict=True):
        if np.isfinite(b):
            point = f"{frame.px(a):.1f} {frame.py(b):.1f}"
            parts.append(f"L{point}" if pen_down else f"M{point}h0")
        pen_down = bool(np.isfinite(b))
    return f'<path class="{css}" d="{"".join(parts)}"/>' if parts else ""


def scatter(truth: Sequence[float], pred: Sequence[float], label: str) -> str:
    """Prediction (n,) against truth (n,) on [0, 1], the diagonal dashed; thinned evenly if many."""
    frame = Frame(190, 178, (0.0, 1.0), (0.0, 1.0), left=36)
    every = max(1, math.ceil(len(truth) / MAX_POINTS))
    points = "".join(
        f'<circle class="point" r="2.1" cx="{frame.px(t):.1f}" cy="{frame.py(p):.1f}"/>'
        for t, p in list(zip(truth, np.clip(pred, 0, 1), strict=True))[::every])
    diagonal = (f'<line class="diagonal" x1="{frame.px(0):.1f}" y1="{frame.py(0):.1f}" '
                f'x2="{frame.px(1):.1f}" y2="{frame.py(1):.1f}"/>')
    axes = frame.axes((0, 0.5, 1), (0, 0.5, 1), "truth", "prediction")
    return frame.svg(axes + diagonal + points, label)


def histogram_peak(*samples: Sequence[float]) -> float:
    """The largest share of a bin over all samples: gives several histograms one scale."""
    return max([float(_shares(s).max()) for s in samples] + [1e-3])


def histogram(truth: Sequence[float], pred: Sequence[float], peak: float, label: str) -> str:
    """Two distributions on [0, 1] over each other (Figure 1a); bars are shares of n."""
    frame = Frame(190, 178, (0.0, 1.0), (0.0, 105 * peak), left=36)
    shapes = ""
    for css, shares in (("truth", _shares(truth)), ("pred", _shares(pred))):
        corners = [(0.0, 0.0)]
        for i, share in enumerate(100 * shares):
            corners += [(i / BINS, share), ((i + 1) / BINS, share)]
        d = "L".join(f"{frame.px(a):.1f} {frame.py(b):.1f}" for a, b in [*corners, (1.0, 0.0)])
        shapes += f'<path class="{css}" d="M{d}Z"/>' if shares.any() else ""
    axes = frame.axes((0, 0.5, 1), ticks(*frame.y_range, 4), "score", "% of images")
    return frame.svg(axes + shapes, label)


def _shares(sample: Sequence[float]) -> np.ndarray:
    """(n,) in [0, 1] -> (BINS,) shares that sum to 1; zeros for an empty sample."""
    counts = np.histogram(np.clip(np.asarray(sample, float), 0, 1), BINS, (0, 1))[0]
    return counts / max(1, counts.sum())
