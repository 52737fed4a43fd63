"""Which pictures are held out, and which a step shows.

Both are pure functions (of file names; of seed and step), so that scripts agree and resuming needs
no state.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nanoaes.data import DataError, Example
from nanoaes.errors import UserError


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
            raise UserError(f"datasets of {dict(counts)} images come in pairs: images_per_step "
                             f"must be even, it is {n}, and each dataset have 2 images or more")
        usable = len(self._order(0)) if counts else 0
        if not 2 <= n <= usable:
            raise UserError(f"images_per_step is {n}: the reward compares images, so it must be "
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


def by_dataset(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """Set name -> its examples, in order."""
    names = dict.fromkeys(e.dataset for e in examples)
    return {name: [e for e in examples if e.dataset == name] for name in names}


def hold_out(examples: Sequence[Example], n: int) -> tuple[list[Example], list[Example]]:
    """(for training, held out): n examples of each set are kept from all training.

    Chosen by a hash of the file's name, so that every script holds out the same ones, and a list
    sorted by score loses no level.
    """
    train: list[Example] = []
    held: list[Example] = []
    for name, members in by_dataset(examples).items():
        if len(members) <= n:
            raise DataError(f"{name}: {len(members)} pictures, {n} of them held out: none is left "
                            "to train on; lower --heldout")
        members.sort(key=lambda e: hashlib.sha256(e.image.name.encode()).digest())
        train += members[n:]
        held += members[:n]
    return train, held
