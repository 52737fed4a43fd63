"""Answers arrive as they are ready; whatever ends it, nobody is left waiting."""

import threading
import time

import pytest

from nanoaes.answering import as_they_come


def test_one_thread_keeps_the_order() -> None:
    assert list(as_they_come(lambda i: i * i, range(50), 1, threading.Event())) == [
        i * i for i in range(50)]


def test_a_slow_answer_keeps_no_other_back() -> None:
    gate = threading.Event()
    found = as_they_come(lambda i: gate.wait(10) and i if i == 0 else i, range(5), 2,
                         threading.Event())
    assert sorted(next(found) for _ in range(4)) == [1, 2, 3, 4]
    gate.set()
    assert list(found) == [0]


def test_as_many_at_once_as_there_are_threads() -> None:
    together = threading.Barrier(6, timeout=10)
    assert sorted(as_they_come(lambda i: together.wait() * 0 + i, range(6), 6, threading.Event())
                  ) == list(range(6))


@pytest.mark.parametrize("where", ["do", "look", "consumer"])
def test_whatever_ends_it_sets_the_halt_and_leaves_the_rest(where: str) -> None:
    halt, begun = threading.Event(), []

    def do(i: int) -> int:
        begun.append(i)
        if where == "do" and i == 0:
            raise KeyError(i)
        if i:
            assert halt.wait(10), "who waits is told"
        return i

    def look() -> None:
        if where == "look" and len(begun) > 1:
            raise KeyError(0)

    start, found = time.monotonic(), as_they_come(do, range(100), 2, halt, look)
    if where == "consumer":
        assert next(found) == 0
        found.close()
    else:
        with pytest.raises(KeyError):
            list(found)
    assert len(begun) < 100 and time.monotonic() - start < 9
    assert not halt.is_set(), "ready for the next round"
