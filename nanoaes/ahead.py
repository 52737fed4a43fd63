"""Pictures are decoded while the model still works on those before them.

By threads: PIL lets go of Python's lock while it decodes and resizes. Processes would have to copy
each picture, and forking beside CUDA, gloo and the run's lock invites trouble of its own.
Left out: results as they are ready (`answering.py`); a picture waits for the one before it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image

from nanoaes.images import load_image

THREADS = min(4, os.cpu_count() or 1)
T, R = TypeVar("T"), TypeVar("R")


def ahead(paths: Iterable[Path], fit: Callable[[Image.Image], Image.Image], n: int
          ) -> Iterator[Image.Image]:
    """The pictures in order; when one is handed out, the next n are begun. Close it when done.

    Args:
        paths: asked for in this thread, n in advance.
        fit: what is kept of a picture until its turn (`VLM.fit`); runs in the threads.
    Raises:
        DataError: where the picture that cannot be read has its turn.
    """
    return in_threads(lambda path: fit(load_image(path)), paths, n)


def in_threads(do: Callable[[T], R], items: Iterable[T], n: int) -> Iterator[R]:
    """`do` of each item, in order, by threads that are at most n items ahead; as `ahead`."""
    pool, begun = ThreadPoolExecutor(THREADS, "pictures"), deque[Future[R]]()
    try:
        for item in items:
            begun.append(pool.submit(do, item))
            if len(begun) > n:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
