"""Every row in exactly one micro-batch, within the budget, with little padding."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoaes.batching import token_batches


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 2000))
def test_every_row_once_and_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = token_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_a_row_too_long_is_alone_and_the_longest_come_first() -> None:
    assert token_batches([10, 900, 20, 11], 44) == [[1], [2, 3], [0]]


def test_padding_stays_low() -> None:
    rng = random.Random(0)
    lengths = [rng.randint(500, 1500) for _ in range(200)]
    padded = sum(len(b) * max(lengths[i] for i in b) for b in token_batches(lengths, 8192))
    assert padded < 1.05 * sum(lengths)
    in_order = [range(i, i + 5) for i in range(0, 200, 5)]  # as many pictures each, not sorted
    assert sum(5 * max(lengths[i] for i in b) for b in in_order) > 1.2 * sum(lengths)


def test_no_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match="use 1 or more"):
        token_batches([1], 0)
