"""A step whose loss or gradient is not finite is skipped; a few in a row end the run.

One bad batch in a week of training is bad luck; three are a cause, and the error says what is known
of it: which reward, which pictures, which tensor.
Left out: going back to an earlier state by itself, which would meet the same pictures again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from nanoaes.datasets import Example
from nanoaes.errors import NotFinite, UserError
from nanoaes.judge import Judged
from nanoaes.progress import say

STEPS = 3  # in a row that end the run
SHOWN = 3  # pictures, and rewards, that an error names


class Patience:
    """Counts the steps in a row whose update was not finite."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer, self.skipped = optimizer, 0

    @contextmanager
    def bear(self, judged: Judged, batch: Sequence[Example]) -> Iterator[dict[str, float]]:
        """Around an update: the numbers that it fills in, and "skipped", 0 or 1.

        `take_step` raises on every process alike, and changes no weight.

        Raises:
            UserError: the last of so many in a row.
        """
        numbers: dict[str, float] = {"skipped": 0}
        try:
            yield numbers
            self.skipped = 0
        except NotFinite as error:
            self.skipped += 1
            self.optimizer.zero_grad()  # or the next step would add to what is not finite
            if self.skipped == STEPS:
                raise UserError(f"{STEPS} steps in a row are not finite: {error.what}; "
                                f"{diagnosis(judged, batch)}; lower --lr, or leave the pictures "
                                "out, and go on from an earlier state") from error
            say(f"{error.what} not finite: this step is skipped ({self.skipped} in a row)")
            numbers["skipped"] = 1


def diagnosis(judged: Judged, batch: Sequence[Example]) -> str:
    """Which rewards are outside [0, 1], of which pictures; else the pictures of the step."""
    found = []
    for name in ("relative", "absolute", "format"):
        reward = getattr(judged.rewards, name)
        wrong = ~((reward >= 0) & (reward <= 1))  # NaN too
        found += [f"the {name} reward of {batch[i].image} is {reward[i, k]:.3g}"
                  for i, k in wrong.nonzero().tolist()]
    if not found:
        found = ["all rewards are within 0 and 1; the pictures:",
                 *(str(example.image) for example in batch)]
        return " ".join(found[: 1 + SHOWN]) + _more(len(batch) - SHOWN)
    return ", ".join(found[:SHOWN]) + _more(len(found) - SHOWN)


def _more(n: int) -> str:
    return f" and {n} more" if n > 0 else ""
