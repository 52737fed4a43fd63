"""Steps cover every picture once an epoch and depend on nothing but seed and step."""

from pathlib import Path

import numpy as np
import pytest

from nanoaes.datasets import Example
from nanoaes.images import DataError
from nanoaes.sampler import StepSampler, by_dataset, hold_out


def drawn(sampler: StepSampler, steps: int) -> list[int]:
    return [index for step in range(steps) for index in sampler.indices(step)]


@pytest.mark.parametrize("n, images_per_step", [(12, 4), (13, 4), (7, 7), (9, 5), (2, 2)])
def test_each_epoch_is_its_own_permutation(n: int, images_per_step: int) -> None:
    sampler = StepSampler(["AVA"] * n, images_per_step, seed=3)
    stream = drawn(sampler, 4 * n)
    epochs = [stream[start: start + n] for start in range(0, len(stream) - n + 1, n)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert all(len(sampler.indices(step)) == images_per_step for step in range(20))
    assert all(type(index) is int for index in stream)


def test_a_step_depends_on_seed_and_step_alone() -> None:
    names = ["AVA"] * 20 + ["PARA"] * 11
    sampler = StepSampler(names, 6, seed=1)
    late = sampler.indices(40)
    assert late == StepSampler(names, 6, seed=1).indices(40) == sampler.indices(40)
    assert drawn(sampler, 10) != drawn(StepSampler(names, 6, seed=2), 10)


@pytest.mark.parametrize("sizes", [(40, 40, 20), (41, 39, 7), (200, 2), (3, 3, 3), (5, 2)])
@pytest.mark.parametrize("images_per_step", [4, 6])
def test_datasets_share_each_step_in_pairs(sizes: tuple[int, ...], images_per_step: int) -> None:
    names = np.repeat([f"set{i}" for i in range(len(sizes))], sizes)
    sampler = StepSampler(names.tolist(), images_per_step)
    usable = sum(size // 2 * 2 for size in sizes)
    for step in range(200):
        members, counts = np.unique(names[sampler.indices(step)], return_counts=True)
        assert (counts % 2 == 0).all()
        for member, count in zip(members, counts, strict=True):
            share = images_per_step * (sizes[int(member[-1])] // 2 * 2) / usable
            assert abs(count - share) < 4  # less than two pairs
    stream = drawn(sampler, usable)
    for start in range(0, len(stream), usable):
        epoch = stream[start: start + usable]
        assert len(set(epoch)) == usable  # none twice; only an odd dataset leaves one out


def test_the_image_that_an_odd_dataset_leaves_out_changes() -> None:
    sampler = StepSampler(["a"] * 3 + ["b"] * 5, 2)
    assert set(drawn(sampler, 60)) == set(range(8))


@pytest.mark.parametrize("names, images_per_step, problem", [
    (["a"] * 8, 1, "at least 2"),
    (["a"] * 8, 0, "at least 2"),
    (["a"] * 8, -2, "at least 2"),
    (["a"] * 8, 9, "at most an epoch's 8"),
    ([], 2, "at most an epoch's 0"),
    (["a"] * 3 + ["b"] * 3, 6, "at most an epoch's 4"),
    (["a"] * 4 + ["b"] * 4, 3, "even"),
    (["a"] * 4 + ["b"], 2, "2 images or more"),
])
def test_impossible_steps_are_refused(names: list[str], images_per_step: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        StepSampler(names, images_per_step)


def of(name: str, n: int) -> list[Example]:
    return [Example(Path(f"{name}{i}.jpg"), i / n, None, name, (0.0, 1.0)) for i in range(n)]


def test_hold_out_is_the_same_for_every_script_and_takes_all_levels() -> None:
    examples = of("a", 200) + of("b", 100)  # sorted by score, as lists often are
    train, held = hold_out(examples, 20)
    again = hold_out(examples[::-1], 20)
    assert set(held) == set(again[1]) and not set(held) & set(train)
    assert set(train) | set(held) == set(examples)
    assert {n: len(e) for n, e in by_dataset(held).items()} == {"a": 20, "b": 20}
    for part in by_dataset(held).values():
        assert 0.3 < np.mean([e.score for e in part]) < 0.7


def test_holding_out_everything_is_an_error() -> None:
    with pytest.raises(DataError, match="lower --heldout"):
        hold_out(of("a", 5), 5)
