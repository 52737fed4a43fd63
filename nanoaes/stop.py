"""A run that is asked to stop ends its step first: SIGTERM of a scheduler, Ctrl-C of a person.

    with stopping() as stop:
        for step in …:
            …
            if stop.asked():    any process's signal stops all
                save, raise Stopped

Left out: cutting a step short. torchrun kills 30 seconds after it has passed a signal on; give it
as long as a step takes (`--shutdown-timeout`, torch 2.13).
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nanoaes.parallel import most
from nanoaes.progress import first_by_name

SIGNALS = signal.SIGTERM, signal.SIGINT


class Stopping:
    """The signal that came, if any."""

    def __init__(self) -> None:
        self.number = 0

    def asked(self) -> int:
        """The number of the signal that this or another process was sent, else 0. All have to
        ask; all get the same."""
        return most(self.number)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler. A second Ctrl-C is Python's own: it stops at once."""
        self.number = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if first_by_name():  # not `say`: the signal may have come in the middle of a print
            name = signal.Signals(number).name
            os.write(2, f"\n{name}: stops at the end of this step; Ctrl-C: at once\n".encode())


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Catch the signals in here, in the main thread; the handlers before come back."""
    stop = Stopping()
    before = {number: signal.signal(number, stop.hear) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
