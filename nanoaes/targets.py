"""The files that `eval.py score` writes: where they are, and that they replace nothing else.

Left out: the sidecars, each of which is looked for when its turn comes (`xmp.py`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nanoaes.checkpoint import write_whole
from nanoaes.config import OptionError
from nanoaes.errors import UserError
from nanoaes.standing import COLUMNS, borders
from nanoaes.verbs import ScoreConfig

HEAD = 2000  # bytes in which a file's sign stands


class Targets(NamedTuple):
    """None: not asked for."""

    ledger: Path
    csv: Path | None
    html: Path | None


def targets(cfg: ScoreConfig, page_sign: str) -> Targets:
    """What will be written.

    Args:
        page_sign: what an earlier contact sheet holds near its beginning.
    Raises:
        OptionError: options that do not fit each other.
        UserError: a file of something else is in the way.
    """
    out = Path(cfg.out or Path(cfg.run) / "scores.jsonl")
    if out.suffix.lower() not in (".jsonl", ".csv"):
        raise OptionError(f"--out {out}: name it .jsonl or .csv")
    if cfg.keep and not cfg.bursts:
        raise OptionError(f"--keep {cfg.keep} is of each burst; add --bursts")
    if cfg.dry_run and not cfg.xmp:
        raise OptionError("--dry_run is of the sidecars; add --xmp")
    if cfg.dimensions and out.suffix.lower() != ".csv":
        raise OptionError("--dimensions makes columns; name a file.csv with --out")
    borders(cfg.stars)
    html = Path(cfg.html) if cfg.html else None
    if out.suffix.lower() == ".csv":
        _refuse_other(out, ",".join(COLUMNS), "--out")
    if html:
        _refuse_other(html, page_sign, "--html")
    return Targets(out.with_suffix(".jsonl"), out if out.suffix.lower() == ".csv" else None, html)


def _refuse_other(path: Path, sign: str, option: str) -> None:
    """A result may replace an earlier one, which begins alike, and nothing else."""
    try:
        with path.open("rb") as file:
            known = sign.encode() in file.read(HEAD)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be read ({error.strerror}); choose another name"
                        ) from None
    if not known:
        raise UserError(f"{option} {path}: there is something else than an earlier result; move it "
                        f"or choose another {option}")


def write_pieces(path: Path, pieces: Iterable[str]) -> None:
    """As `checkpoint.write_whole`, in a folder that is made for it.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, pieces)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); make room or choose another "
                        "name: the scores are kept, the same command goes on") from error
