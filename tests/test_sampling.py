"""One number per token, from the picture alone; and the word that it chooses."""

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from nanoaes.sampling import BLOCK, draw, uniforms

LARGEST = 1 - 2**-53  # the largest float64 below 1


def readable_draw(weight: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: the word, and how far the number is from the nearest border."""
    border = weight.double().cumsum(-1)
    border = border / border[:, -1:]
    word = torch.searchsorted(border, uniform[:, None], right=True)[:, 0]
    return word, (border - uniform[:, None]).abs().amin(1)


@pytest.mark.parametrize("v", [3, BLOCK - 1, BLOCK, BLOCK + 1, 700, 20_000])
@pytest.mark.parametrize("spread", [0.0, 3.0, 12.0])
def test_equals_the_cumulated_sum_but_at_its_borders(v: int, spread: float) -> None:
    g = torch.Generator().manual_seed(v)
    weight = (torch.randn(400, v, generator=g) * spread).softmax(-1)
    uniform = torch.rand(400, generator=g, dtype=torch.float64)
    word, margin = readable_draw(weight, uniform)
    clear = margin > 1e-6
    assert clear.float().mean() > 0.9 or spread == 12
    assert clear.any()
    assert torch.equal(draw(weight, uniform)[clear], word[clear])
    assert torch.equal(draw(weight * 4, uniform), draw(weight, uniform)), "any multiple will do"


@pytest.mark.parametrize("u", [0.0, 2**-60, 0.5, LARGEST, 1.0])
def test_a_word_of_weight_0_never_comes(u: float) -> None:
    """At both ends, in the middle, in whole blocks, and where one word holds nearly everything."""
    rows = torch.zeros(6, 3 * BLOCK + 5)
    rows[0, 7] = 1
    rows[1, -1] = 1e-30
    rows[2, BLOCK - 1 : BLOCK + 1] = 1
    rows[3, BLOCK + 3 : -9 : 2] = torch.rand(rows[3, BLOCK + 3 : -9 : 2].shape) + 1e-9
    rows[4, [0, 2 * BLOCK, 3 * BLOCK + 1]] = torch.tensor([1.0, 1e-12, 1e-40])
    rows[5, 1::3] = 0.1
    word = draw(rows, torch.full((6,), u, dtype=torch.float64))
    assert (rows.gather(1, word[:, None]) > 0).all(), word
    if u == 0:
        assert word.tolist() == [7, 3 * BLOCK + 4, BLOCK - 1, BLOCK + 3, 0, 1]


def test_a_rare_word_in_a_rare_block_has_its_own_share() -> None:
    """Shares of 1e-9 and 3e-9 of the whole, far below what fp32 sums of all words would resolve."""
    weight = torch.zeros(1, 10 * BLOCK)
    weight[0, 5], weight[0, 9 * BLOCK], weight[0, 9 * BLOCK + 1] = 1.0, 1e-9, 3e-9
    tail = 4e-9 / (1 + 4e-9)
    for place, word in ((-1e-3, 5), (0.01, 9 * BLOCK), (0.24, 9 * BLOCK), (0.26, 9 * BLOCK + 1),
                        (0.99, 9 * BLOCK + 1)):
        u = torch.tensor([1 - tail + tail * place], dtype=torch.float64)
        assert draw(weight, u).item() == word, place


@pytest.mark.parametrize("v", [3, 700])
def test_nan_gives_some_word_and_no_index_error(v: int) -> None:
    weight = torch.rand(4, v)
    weight[0], weight[1, -1], weight[2, 0], weight[3] = torch.nan, torch.nan, torch.inf, 0
    for u in (0.0, 0.7, LARGEST, 1.0, float("nan")):
        word = draw(weight, torch.full((4,), u, dtype=torch.float64))
        assert ((word >= 0) & (word < v)).all()


def test_frequencies_match_the_weights() -> None:
    """Numbers of `uniforms`, over two blocks."""
    weight = torch.rand(BLOCK + 100, generator=torch.Generator().manual_seed(0)) + 0.2
    uniform = uniforms(0, 0, range(20), 10, 100).flatten()
    words = draw(weight.expand(len(uniform), -1), uniform)
    expected = weight.double() / weight.double().sum() * len(uniform)
    assert expected.min() > 5  # else the test does not apply
    counts = torch.bincount(words, minlength=len(weight))
    assert chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


def test_a_picture_keeps_its_numbers_in_any_company() -> None:
    whole = uniforms(3, 7, range(5), 4, 6)
    assert whole.shape == (5, 4, 6) and whole.dtype == torch.float64
    assert (whole >= 0).all() and (whole < 1).all()
    assert torch.equal(uniforms(3, 7, [4, 1], 4, 6), whole[[4, 1]])
    assert torch.equal(uniforms(3, 7, range(5), 2, 6), whole[:, :2])
    assert uniforms(3, 7, [], 4, 6).shape == (0, 4, 6)


def test_seeds_steps_places_and_answers_have_numbers_of_their_own() -> None:
    seen = torch.cat([uniforms(seed, step, range(4), 3, 5).flatten()
                      for seed in range(3) for step in range(3)])
    assert len(seen.unique()) == len(seen)
