"""Which pictures a step shows: a pure function of seed and step, so resuming needs no state."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepSampler:
    """Which examples each step shows, from (seed, step) alone: resuming needs the step number only.

    Each epoch is a new permutation; a step that spans two epochs can hold an image twice. Several
    datasets share each step in proportion to their sizes, in pairs, so that no image lacks a
    partner to be ranked against; there a dataset of odd size leaves out one image per epoch.
    """
    datasets: Sequence[str]         # of each example
    images_per_step: int
    seed: int = 0

    def __post_init__(self) -> None:
        counts, n = Counter(self.datasets), self.images_per_step
        if len(counts) > 1 and (n % 2 or min(counts.values()) < 2):
            raise ValueError(f"datasets of {dict(counts)} images come in pairs: images_per_step "
                             f"must be even, it is {n}, and each dataset have 2 images or more")
        usable = len(self._order(0)) if counts else 0
        if not 2 <= n <= usable:
            raise ValueError(f"images_per_step is {n}: the reward compares images, so it must be "
                             f"at least 2, and at most an epoch's {usable}")

    def indices(self, step: int) -> list[int]:
        """The images_per_step example indices of a step (counted from 0)."""
        epoch, start = divmod(step * self.images_per_step, len(self._order(0)))
        order = np.concatenate([self._order(epoch), self._order(epoch + 1)])
        return order[start: start + self.images_per_step].tolist()

    def _order(self, epoch: int) -> np.ndarray:
        """One epoch's example indices; pair j of a dataset of m pairs stands near j / m of it."""
        rng, names = np.random.default_rng((self.seed, epoch)), np.array(self.datasets)
        unit, order, place = min(2, len(set(self.datasets))), [], []
        for name in sorted(set(self.datasets)):
            members = rng.permutation(np.flatnonzero(names == name))
            order.append(members[: len(members) // unit * unit])
            place.append((np.arange(len(order[-1])) // unit + rng.random()) / len(order[-1]))
        return np.concatenate(order)[np.concatenate(place).argsort(kind="stable")]


def shard(indices: Sequence[int], rank: int, world: int) -> list[int]:
    """The rank's contiguous share; shares differ by at most 1 and join in order of rank."""
    return list(indices[len(indices) * rank // world: len(indices) * (rank + 1) // world])
