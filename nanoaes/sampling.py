"""Random numbers that belong to a picture, and the words they choose.

A token is the first word at which the cumulated probability exceeds a uniform number. The numbers
are drawn from (seed, step, picture) before anything is sampled, so that neither batching nor
finished rows, neither the number of machines nor a restart change an answer.
Left out: top-k, top-p (see `rollout.py`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BLOCK = 128  # words; 1,187 blocks of 150,000 words, 6 of the toy's 704: both searches are short


def uniforms(seed: int, step: int, places: Sequence[int], k: int, t: int) -> Tensor:
    """(N, K, T) float64 in [0, 1) on the CPU, one number per token.

    Args:
        places: the N pictures' places in their step (or in their test set), each >= 0, as are
            `seed` and `step`. A picture's first rows are the same for any K.
    """
    # place + 1: numpy drops a trailing zero, and (seed, epoch) draws the order of pictures.
    rows = [np.random.default_rng((seed, step, place + 1)).random((k, t)) for place in places]
    return torch.from_numpy(np.array(rows).reshape(len(places), k, t))


def draw(weight: Tensor, uniform: Tensor) -> Tensor:
    """One word per row, with probability weight / sum(weight).

    The block first, then the word in it: no (B, V) tensor is made, least of all the cumulated sum
    in fp64, twice as large as the logits. fp32 holds the sum of one block's 128 words to 1e-6 of
    itself; what is cumulated, is so in fp64, or 150,000 words' rounding would bias the last ones.

    Args:
        weight: (B, V) >= 0, probabilities or any multiple of them.
        uniform: (B,) float64 in [0, 1).
    Returns:
        (B,) int64 in [0, V), never a word of weight 0; any word where a row holds NaN.
    """
    v = weight.shape[1]
    whole = v // BLOCK
    sums = torch.cat([weight[:, : whole * BLOCK].unflatten(1, (whole, BLOCK)).sum(2),
                      weight[:, whole * BLOCK :].sum(1, keepdim=True)], dim=1)
    block, uniform = _choose(sums, uniform)
    word = block[:, None] * BLOCK + torch.arange(BLOCK, device=weight.device)  # (B, BLOCK)
    part = weight.gather(1, word.clamp(max=v - 1)).masked_fill(word >= v, 0)
    inner, _ = _choose(part, uniform)
    return (block * BLOCK + inner).clamp(max=v - 1)


def _choose(weight: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Index (B,), and where between that index' borders the number fell: uniform in [0, 1) again.

    Two traps: a parallel sum may rise by rounding where a 0 was added, and end below u times the
    total. So an index of weight 0 never counts, and the target stays below the last border.
    """
    weight = weight.double()
    border = weight.cumsum(1).masked_fill(weight == 0, 0)
    last = border.amax(1)
    target = (uniform * last).minimum(torch.nextafter(last, torch.zeros_like(last)))
    index = (border > target[:, None]).int().argmax(1)  # the first; 0 if none, as with NaN
    width = weight.gather(1, index[:, None])[:, 0]
    rest = target - (border.gather(1, index[:, None])[:, 0] - width)
    return index, (rest / width).clamp(min=0)
