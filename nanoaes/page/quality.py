"""What critiques are worth, by stage and over training: is RAPO hollowing them out?

Of a single model a line for each of its sets. Left out: single critiques (`gallery.py`).
"""

from nanoaes.metrics import DASH
from nanoaes.page.curves import CRITIQUES, recorded
from nanoaes.page.parts import table

HEADS = {"level": "judge as<small>people do</small>",
         "consistent": "judge as<small>they score</small>",
         "coverage": "dimensions<small>of 5</small>", "both": "praise and<small>criticism</small>",
         "repetition": "repetition<small>among 50</small>", "words": "words<small>mean</small>",
         "right": "true<small>of what is named</small>"}
SHOWN = {"coverage": (1, "{:.2f}", ""), "words": (1, "{:.1f}", "")}  # the others are shares
NOTE = ("Judge as people do: critiques whose closing judgement (bad, fair, good) is the level of "
        "people's score; as they score: of the score read from the same reply. A critique without "
        "a judgement agrees with none. Dimensions: how many of the five a critique speaks of. "
        "Praise and criticism: critiques that have both. Repetition: of a critique's runs of four "
        "words, the share that one of 49 other pictures' critiques has, too; at 0 % all are new, "
        "at 100 % all are the same. {}All are read by program from the words, in English: they "
        "compare models, and may misread a critique. Small: 95 % bootstrap interval over "
        "pictures.")
TRUE = ("True: of the toy's qualities that critiques name, the share named rightly. The toy has "
        "few words, so its critiques repeat each other in any case. ")
QUESTION = ("RAPO rewards the number and the form, never the words. A critique that it hollows out "
            "speaks of fewer dimensions, repeats itself from picture to picture, or judges "
            "otherwise than it scores; here is each stage, as a mean over all test sets.")


def quality(evals: dict[str, dict], history: list[dict]) -> str:
    """Table and curves; nothing of results that have no figures of critiques."""
    stages = {name: result["critiques"] for name, result in evals.items()
              if result.get("critiques")}
    rows = stages
    if len(evals) == 1:
        rows = {name: part["critiques"] for result in evals.values()
                for name, part in result["sets"].items() if part.get("critiques")}
    curves = recorded(CRITIQUES, history)
    if not (rows or curves):
        return ""
    asked = f'<p class="note">{QUESTION}</p>' if len(stages) > 1 else ""
    first = "set" if len(evals) == 1 else "stage"
    return f"<section><h2>Critique quality</h2>{asked}{_table(first, rows)}{curves}</section>"


def _table(first: str, rows: dict[str, dict]) -> str:
    """Stages or sets, line by line, and what the columns are."""
    if not rows:
        return ""
    true = any("right" in of for of in rows.values())
    heads = {key: head for key, head in HEADS.items() if key != "right" or true}
    cells = {name: [_figure(of, key) for key in heads] for name, of in rows.items()}
    return (table(first, list(heads.values()), cells)
            + f'<p class="note">{NOTE.format(TRUE if true else "")}</p>')


def _figure(of: dict, key: str) -> str:
    """A share in per cent, another figure as it is; its interval below."""
    if of.get(key) is None:
        return DASH
    scale, form, sign = SHOWN.get(key, (100, "{:.1f}", " %"))
    ci = of.get(f"{key}_ci")
    between = f"[{form}, {form}]".format(*(scale * end for end in ci)) if ci else "&nbsp;"
    return f"{form.format(scale * of[key])}{sign}<small>{between}</small>"
