"""Many questions at once to whoever takes seconds to answer; results in the order of arrival.

Left out: order (`ahead.in_threads` keeps it); here one slow answer would keep the others from the
disk.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event
from typing import TypeVar

LOOK = 0.2  # seconds between looks at signals while nothing arrives
T, R = TypeVar("T"), TypeVar("R")


def as_they_come(do: Callable[[T], R], items: Sequence[T], threads: int, halt: Event,
                 look: Callable[[], object] = lambda: None) -> Iterator[R]:
    """`do` of each item, as many at once as there are threads; with one thread in order.

    Args:
        halt: set when this ends, however it ends: what then still waits shall give up.
        look: called now and then, in this thread; may raise.
    Raises:
        what `do` and `look` raise.
    """
    done: SimpleQueue[Future[R]] = SimpleQueue()
    pool = ThreadPoolExecutor(threads, "answers")
    try:
        for item in items:
            pool.submit(do, item).add_done_callback(done.put)
        for _ in items:
            yield _next(done, look).result()
    finally:
        halt.set()
        pool.shutdown(cancel_futures=True)
        halt.clear()


def _next(done: SimpleQueue, look: Callable[[], object]) -> Future:
    while True:
        look()
        try:
            return done.get(timeout=LOOK)
        except Empty:
            continue
