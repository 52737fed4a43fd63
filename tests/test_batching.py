"""Every row in exactly one micro-batch, within the budget, with little padding."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoaes.batching import token_batches


def cost(batch: list[int], lengths: list[tuple[int, int]]) -> int:
    """Tokens with padding: prompts to the longest prompt, answers to the longest answers."""
    return len(batch) * (max(lengths[i][0] for i in batch) + max(lengths[i][1] for i in batch))


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 800)), max_size=60),
       st.integers(1, 4000))
def test_every_row_once_and_within_the_budget(lengths: list[tuple[int, int]], budget: int) -> None:
    batches = token_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or cost(batch, lengths) <= budget
    for batch, after in zip(batches, batches[1:], strict=False):
        assert min(sum(lengths[i]) for i in batch) >= max(sum(lengths[i]) for i in after)
        assert cost([*batch, after[0]], lengths) > budget, "the next row had room here"


def test_a_row_too_long_is_alone_and_the_longest_come_first() -> None:
    assert token_batches([(10,), (900,), (20,), (11,)], 44) == [[1], [2, 3], [0]]


def test_prompts_and_answers_are_padded_apart() -> None:
    """Rows of 30 tokens each, two of them 50 together: (20 + 28) · 2 with padding."""
    assert token_batches([(2, 28), (20, 10)], 95) == [[0], [1]]
    assert token_batches([(2, 28), (20, 10)], 96) == [[0, 1]]


def test_padding_stays_low() -> None:
    rng = random.Random(0)
    lengths = [(rng.randint(450, 550), rng.randint(300, 2000)) for _ in range(200)]
    real = sum(map(sum, lengths))
    padded = sum(cost(b, lengths) for b in token_batches(lengths, 8192))
    assert padded < 1.1 * real
    in_order = [range(i, i + 5) for i in range(0, 200, 5)]  # as many pictures each, not sorted
    assert sum(cost(b, lengths) for b in in_order) > 1.2 * real


def test_no_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match="use 1 or more"):
        token_batches([(1,)], 0)
