"""When the next request to a server may leave, for all threads that ask it.

Each thread takes the next free turn, `60 / rate` seconds behind the one before. Where the server
asks for a pause, all turns that were given out are void and are taken anew behind it: no thread
rushes in while another waits, and none all at once when it is over.
Left out: to find by itself how many requests at once a server bears; that is `--concurrency`.
"""

import random
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

from nanoaes.errors import NoAnswer

LOOK = 0.1  # seconds between looks at `stop`
SPREAD = 0.25  # of a pause, at most a second: over which those without a rate come back
LONGEST = 600.0  # seconds; a server that asks for more is asked again all the same


class Turns:
    """Turns of several threads."""

    def __init__(self, rate: float, stop: Callable[[], bool]):
        """rate: per minute, 0: no limit. stop: true ends all waiting."""
        self.gap = 60 / rate if rate else 0.0
        self.stop = stop
        self.door = threading.Lock()  # of what follows
        self.next = self.held = self.spread = 0.0  # the first two on time.monotonic
        self.holds = 0

    def turn(self) -> None:
        """Blocks until this thread may send. Raises NoAnswer: stopped."""
        while True:
            with self.door:
                holds, now = self.holds, time.monotonic()
                mine = max(self.next, now)
                self.next = mine + self.gap
                if not self.gap and mine > now:
                    mine += random.uniform(0, self.spread)
            self.wait(mine - now)
            if holds == self.holds:
                return

    def hold(self, seconds: float) -> None:
        """No thread sends for so long."""
        seconds = min(seconds, LONGEST)
        with self.door:
            now = time.monotonic()
            self.held = max(self.held, now + seconds)
            self.next = max(self.held, now + self.gap)
            self.spread = min(1.0, SPREAD * seconds)
            self.holds += 1

    def wait(self, seconds: float) -> None:
        """Raises NoAnswer: stopped, before or meanwhile."""
        until = time.monotonic() + seconds
        while True:
            if self.stop():
                raise NoAnswer("stopped before there was an answer")
            if (left := until - time.monotonic()) <= 0:
                return
            time.sleep(min(left, LOOK))


def retry_after(value: str) -> float | None:
    """Seconds that a header Retry-After asks for, as a number or a date; None: neither."""
    if re.fullmatch(r"\s*\d+(\.\d*)?\s*", value):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - time.time())
