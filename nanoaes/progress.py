"""How far a run is: a bar on a terminal, a plain line now and then in a log file.

tqdm's mininterval does not bound what it prints (each bar, each `set_postfix` refreshes on its
own), and a log file keeps every carriage return: so lines are paced here, over all bars together.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TextIO

from tqdm import tqdm


class Pace:
    """Says at most once in `seconds` that a line is due; the first time so long after it began."""

    def __init__(self, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic):
        self.seconds, self.clock, self.last = seconds, clock, clock()

    def due(self) -> bool:
        now = self.clock()
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True


PACE = Pace()  # of all bars of this process


class LogBar:
    """The part of a tqdm bar's manners that is used here, in lines."""

    def __init__(self, iterable: Iterable | None, label: str, total: int | None, stream: TextIO,
                 pace: Pace):
        self.iterable, self.label, self.total = iterable, label, total
        self.stream, self.pace = stream, pace
        self.n, self.postfix, self.start = 0, "", pace.clock()

    def __iter__(self) -> Iterator:
        for item in self.iterable:
            yield item
            self.update()

    def __enter__(self) -> "LogBar":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to clear: what is written stays."""

    def update(self, n: int = 1) -> None:
        """n more are done."""
        self.n += n
        if self.pace.due():
            _write(tqdm.format_meter(
                self.n, self.total, self.pace.clock() - self.start, prefix=self.label,
                postfix=self.postfix, bar_format="{desc}: {n_fmt}/{total_fmt} "
                "[{elapsed}<{remaining}, {rate_fmt}{postfix}]"), self.stream)

    def set_postfix(self, values: dict[str, Any] | None = None, **more: Any) -> None:
        """Numbers for the next line."""
        self.postfix = ", ".join(f"{k}={v}" for k, v in ((values or {}) | more).items())


def progress(iterable: Iterable | None = None, label: str = "", total: int | None = None,
             keep: bool = True, *, delay: float = 0.0, pace: Pace = PACE) -> "tqdm | LogBar":
    """Iterate over it, or call its `update(n)`; also `set_postfix`, and as a context manager.

    Args:
        total: where the iterable does not know its length.
        keep: whether the full bar stays on the terminal.
        delay: seconds before a bar shows on the terminal; what is done by then never shows.
    """
    stream = sys.stderr
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if stream.isatty() and first_by_name():
        return tqdm(iterable, _printable(label, stream), total, file=stream, leave=keep,
                    mininterval=1, delay=delay)
    return LogBar(iterable, label, total, stream, pace)


def say(text: str) -> None:
    """Print it without tearing a bar; what the stream's encoding lacks becomes a question mark."""
    _write(text, sys.stdout)


def first_by_name() -> bool:
    """Is this the process that speaks for all, of those that torchrun starts?"""
    return os.environ.get("RANK", "0") == "0"


def _write(text: str, stream: TextIO) -> None:
    if not first_by_name():
        return
    with suppress(OSError):  # a log on a full disk, a closed terminal: no reason to end a run
        tqdm.write(_printable(text, stream), stream)
        stream.flush()


def _printable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
