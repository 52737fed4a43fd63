"""--tracker: the numbers of each step, also to TensorBoard or Weights & Biases.

Both belong to the user: nothing here is needed, and neither is imported before it is asked for.
Left out: pictures and texts (the report and completions.jsonl have them); one W&B run over a
resume (the resumed one is a second run in the same group).
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from nanoaes.errors import UserError

Parts = tuple[Callable[[dict[str, float], int], object], Callable[[], object]]  # log, close


PACKAGES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}  # what is imported


def find(kind: str) -> None:
    """Before anything is trained: is --tracker's package there?

    Raises:
        UserError: it is not.
    """
    if kind != "none":
        _imported(PACKAGES[kind], kind)


class Tracker:
    """Only the first process makes one."""

    def __init__(self, kind: str, run: Path, config: dict[str, Any], step: int = 0):
        """
        Args:
            kind: "none", "tensorboard" or "wandb".
            step: that the run goes on after; what was told of later ones is void.
        Raises:
            UserError: the package is not there or cannot start.
        """
        self._log, self.close = {"none": _none, "tensorboard": _tensorboard, "wandb": _wandb}[kind](
            run, config, step)

    def log(self, row: dict[str, Any]) -> None:
        """The numbers of one row of metrics.jsonl, at its step."""
        self._log({key: value for key, value in row.items() if key != "step"
                   and isinstance(value, int | float) and not isinstance(value, bool)}, row["step"])


def _none(run: Path, config: dict[str, Any], step: int) -> Parts:
    return lambda numbers, step: None, lambda: None


def _tensorboard(run: Path, config: dict[str, Any], step: int) -> Parts:
    """Into RUN/tensorboard."""
    writer = _imported(PACKAGES["tensorboard"], "tensorboard").SummaryWriter(
        run / "tensorboard", purge_step=step + 1 if step else None)

    def log(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        writer.flush()  # or one looks at numbers two minutes old

    return log, writer.close


def _wandb(run: Path, config: dict[str, Any], step: int) -> Parts:
    """To the user's W&B project "nanoaes"; WANDB_MODE=offline keeps it in RUN/wandb."""
    wandb = _imported(PACKAGES["wandb"], "wandb")
    try:
        begun = wandb.init(project="nanoaes", group=run.resolve().name, dir=run, config=config)
    except wandb.Error as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"--tracker wandb: {reason}; `wandb login`, or WANDB_MODE=offline, or "
                        "--tracker none") from error
    return lambda numbers, step: begun.log(numbers, step=step), begun.finish


def _imported(module: str, package: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"--tracker {package}: the package cannot be imported "
                        f"({' '.join(str(error).split())}); pip install {package}, or --tracker "
                        "none") from error
