"""Which pictures are held out, and which a step shows.

Both are pure functions (of file names; of seed and step), so that scripts agree and resuming needs
no state. Left out: weights of pictures or of levels.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from nanoaes.datasets import Example
from nanoaes.errors import UserError
from nanoaes.images import DataError
from nanoaes.mixture import name_hash


class StepSampler:
    """Which examples each step shows, from (seed, step) alone: resuming needs the step number only.

    Each epoch is a new permutation; a step that spans two epochs can hold an image twice. Several
    datasets share each step in proportion to their sizes, in pairs, so that no image lacks a
    partner to be ranked against; there a dataset of odd size leaves out one image per epoch.
    """

    def __init__(self, datasets: Sequence[str], images_per_step: int, seed: int = 0):
        """datasets: of each example. Raises UserError where no such step can be."""
        self.n, self.seed = images_per_step, seed
        names = np.array(datasets)
        self.members = [np.flatnonzero(names == name) for name in sorted(set(datasets))]
        self.orders: dict[int, np.ndarray] = {}  # epoch -> its order, of the two that a step needs
        sizes = [len(m) for m in self.members]
        if len(sizes) > 1 and (images_per_step % 2 or min(sizes) < 2):
            raise UserError(f"datasets of {dict(Counter(datasets))} images come in pairs: "
                            f"images_per_step must be even, it is {images_per_step}, and each "
                            "dataset have 2 images or more")
        unit = min(2, len(sizes))
        self.epoch_size = sum(size // unit * unit for size in sizes)
        if not 2 <= images_per_step <= self.epoch_size:
            raise UserError(f"images_per_step is {images_per_step}: the reward compares images, so "
                            f"it must be at least 2, and at most an epoch's {self.epoch_size}")

    def indices(self, step: int) -> list[int]:
        """The images_per_step example indices of a step (counted from 0)."""
        epoch, start = divmod(step * self.n, self.epoch_size)
        self.orders = {e: self.orders[e] if e in self.orders else self._order(e)
                       for e in (epoch, epoch + 1)}
        order = np.concatenate([self.orders[epoch][start : start + self.n],
                                self.orders[epoch + 1][: max(0, start + self.n - self.epoch_size)]])
        return order.tolist()

    def _order(self, epoch: int) -> np.ndarray:
        """One epoch's example indices; pair j of a dataset of m pairs stands near j / m of it."""
        rng, unit, order, place = (np.random.default_rng((self.seed, epoch)),
                                   min(2, len(self.members)), [], [])
        for members in self.members:
            shuffled = rng.permutation(members)
            order.append(shuffled[: len(members) // unit * unit])
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
        members.sort(key=lambda e: name_hash(e.image.name))
        train += members[n:]
        held += members[:n]
    return train, held
