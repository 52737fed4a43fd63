"""What went wrong outside the code: bad data, options, checkpoints. One line with the remedy.

The scripts print a `UserError` as it is and stop; every other exception is a bug and keeps its
traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """One line: the file, the row or the option, and what to do."""


class NotFinite(UserError):
    """NaN or infinity where a number belongs: the training has gone astray, not the code."""

    def __init__(self, what: str):
        """what: the tensor and its place, such as "the log-probs of token 12 are"."""
        super().__init__(f"{what} not finite: the weights are broken or the learning rate is too "
                         "high; go back to an earlier checkpoint, lower --lr")
        self.what = what


class NoAnswer(Exception):
    """Why a model that was asked has not answered; it may, when it is asked again."""


class Refused(NoAnswer):
    """A model does not answer this, and will not the next time; in its own words."""


class Ended(Exception):
    """All processes end here, in order: what they return, and a line to say."""

    def __init__(self, status: int, message: str):
        super().__init__(status, message)  # both: pickle hands them to the other processes
        self.status = status

    def __str__(self) -> str:
        return self.args[1]


class Stopped(Ended):
    """A run has ended as it was asked to."""

    def __init__(self, number: int, message: str):
        """number: of the signal."""
        super().__init__(number, message)
        self.status = 128 + number


@contextmanager
def at(place: str) -> Iterator[None]:
    """Whatever is not finite in here is said to be there: "step 12"."""
    try:
        yield
    except NotFinite as error:
        raise NotFinite(f"{place}: {error.what}") from error
