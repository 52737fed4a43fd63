"""What a benchmark's page says beside agreement: choosing among pictures, themes, calibration.

Left out of a page of stages, whose results have none of it.
"""

from nanoaes.choices import CHANCE, NAMES
from nanoaes.metrics import FIGURES, RESAMPLED, percent, short
from nanoaes.page.parts import table
from nanoaes.page.text import inline

HEADS = {name: f"{name.split('_')[0]}<small>of {name.split('_')[-1]}</small>" for name in NAMES} | {
    "pairs": "pairs<small>any two</small>", "pairs_apart": "pairs<small>&gt; .1 apart</small>"}


def breakdown(evals: dict[str, dict]) -> str:
    """The sections of the last stage."""
    result = list(evals.values())[-1] if evals else {}
    sets = {name: part for name, part in result.get("sets", {}).items() if "choices" in part}
    if not sets:
        return ""
    return counts(sets) + chosen(sets) + themes(sets) + calibrated(result.get("calibration"))


def cell(of: dict, key: str) -> str:
    """A figure above its interval; a theme's KRCC has none."""
    between = "[{:.3f}, {:.3f}]".format(*ci) if (ci := of.get(f"{key}_ci")) else "&nbsp;"
    return f"{short(of[key])}<small>{between.replace('-', '−').replace('0.', '.')}</small>"


def counts(sets: dict[str, dict]) -> str:
    """All figures, and of how many pictures."""
    rows = {name: [f"{p['metrics']['n']:,}<small>of {p['expected']:,}</small>",
                   f"{p['metrics']['parse_fail']:,}", *(cell(p["metrics"], k) for k in FIGURES),
                   f"{p['metrics']['distinct']:,}", percent(p["metrics"]["ties"])]
            for name, p in sets.items()}
    heads = ["pictures", "unreadable", *map(str.upper, FIGURES), "distinct<small>scores</small>",
             "ties<small>of pairs</small>"]
    return ("<section><h2>All figures</h2>" + table("set", heads, rows)
            + '<p class="note">Each with its 95 % bootstrap interval over pictures; a dash is a '
              "figure that does not exist, such as the order of a constant. Errors are on the "
              "scale from 0 to 1.</p></section>")


def chosen(sets: dict[str, dict]) -> str:
    """Accuracy of choosing, above that of a random pick."""
    rows = {name: [cell(part["choices"], key) for key in NAMES] for name, part in sets.items()}
    rows["random pick"] = [short(CHANCE[key]) for key in NAMES]
    return ("<section><h2>Choosing among pictures</h2>"
            + table("set", list(HEADS.values()), rows)
            + '<p class="note">How often the model picks what people rate highest (best) or lowest '
              "(worst) of 4 or 8 pictures of a set, over all such sets, and the better of two. "
              "Equal scores count as a random pick, unreadable answers as wrong.</p></section>")


def themes(sets: dict[str, dict]) -> str:
    """A table for each set that has themes."""
    tables = "".join(
        f"<h3>{inline(name)}</h3>" + table("theme", ["pictures", *map(str.upper, FIGURES)], {
            theme: [f"{m['n']:,}", *(cell(m, key) for key in FIGURES)]
            for theme, m in part["themes"].items()})
        for name, part in sets.items() if part["themes"])
    return f"<section><h2>Themes</h2>{tables}</section>" if tables else ""


def calibrated(found: dict | None) -> str:
    """Before and after the map of --calibrate."""
    if not found:
        return ""
    shift = f"{found['shift']:+.2f}".replace("+0.", "+.").replace("-0.", "-.").replace("-", "−")
    rows = {f"{name}, {when}": [f"{part[when]['n']:,}", *(cell(part[when], k) for k in RESAMPLED)]
            for name, part in found["sets"].items() for when in ("before", "after")}
    return ("<section><h2>Calibrated</h2>"
            + table("set", ["pictures", *map(str.upper, RESAMPLED)], rows)
            + f'<p class="note">By a map fitted to {found["labels"]:,} labelled pictures, '
              f'sigmoid({found["slope"]:.2f} · logit(score) {shift}). Those '
              "pictures are left out of both lines.</p></section>")
