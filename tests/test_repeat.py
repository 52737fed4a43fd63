"""A run repeats itself: the same seed and the same number of threads give the same bits.

What would break it is a sum whose order is that of the threads. On a CPU that is the backward of
`hidden[place]` where places repeat, from 32,768 numbers on: each thread adds its rows as it comes
to them, and the K answers' first tokens share a place. Left out: other numbers of threads and other
machines, where sums are cut elsewhere and rounding differs; GPUs.
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest
import torch
from kin import KIN, tiny_kin
from tiny import pictures, ragged, tiny_prompts, tiny_vlm
from torch import Tensor, nn

import train_rapo
from nanoaes.config import RAPOConfig
from nanoaes.rapo import advantages
from nanoaes.rollout import rollout
from nanoaes.sampling import uniforms
from nanoaes.sft import Lesson, fit
from nanoaes.vlm import VLM

HERE = Path(__file__)
THREADS = 2
ALONE = 32_768  # up to so many numbers torch adds in one thread
BURN = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


def fingerprint(vlm: VLM) -> str:
    """Of every bit of every weight."""
    digest = hashlib.sha256()
    for p in vlm.parameters():
        digest.update(p.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def rapo_run() -> Iterator[str]:
    """Six RAPO steps, as in `train_rapo.train`; the fingerprint after each."""
    n, k, t = 2, 16, 24
    cfg = RAPOConfig(k=k, max_new_tokens=t, tokens_per_micro_batch=1)  # a picture at a time
    policy, reference = tiny_vlm(0), tiny_vlm(1)
    optimizer = torch.optim.AdamW(policy.parameters())
    for step in range(6):
        prompts = tiny_prompts(policy, n, seed=step)
        rolls = rollout(policy, prompts, k=k, max_new_tokens=t,
                        uniform=uniforms(0, step, range(n), k, t))
        assert rolls.mask.sum((1, 2)).min() * policy.head.shape[1] > ALONE  # else nothing is tested
        reward = torch.rand(n, k, generator=torch.Generator().manual_seed(step))
        train_rapo.update(cfg, policy, reference, optimizer, prompts=prompts, rolls=rolls,
                          advantage=advantages(reward)[0], lr=1e-3, step=step)
        yield fingerprint(policy)


def sft_run() -> Iterator[str]:
    """Three steps of the cold start; the fingerprint after each."""
    vlm, told = tiny_vlm(0), []
    answer = "soft light and calm colours, the horizon is level. " * 3
    lessons = [Lesson(image, "Judge.", answer[10 * i :]) for i, image in enumerate(pictures(8))]
    fit(vlm, lambda step: lessons[step:], steps=3, lr_at=lambda step: 1e-3, label="repeat",
        log=lambda row: told.append(fingerprint(vlm)))
    yield from told


def indexed(embedding: Callable) -> Callable:
    """The old way, to see these tests fail: what gathers `VLM.forward`'s rows is an index.

    It is told by its arguments: nn.Embedding passes options, and other modules have `embedding`
    by name.
    """
    def gather(place: Tensor, weight: Tensor, *options: Any) -> Tensor:
        return embedding(place, weight, *options) if options else weight[place]
    return gather


def run(hash_seed: str) -> list[str]:
    """The fingerprints of a fresh process; `hash_seed` decides the order of a set of strings."""
    path = os.pathsep.join(map(str, (HERE.parent.parent, HERE.parent)))
    done = subprocess.run(
        [sys.executable, str(HERE)], text=True, capture_output=True, timeout=120,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed,
             "OMP_NUM_THREADS": str(THREADS)})
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout.split()


@contextmanager
def busy_core() -> Iterator[None]:
    """Someone else wants a core, so that threads come late, and each time otherwise."""
    burner = subprocess.Popen([sys.executable, "-c", BURN])
    try:
        yield
    finally:
        burner.kill()
        burner.wait()


def test_two_processes_with_two_threads_end_with_the_same_bits() -> None:
    """Chance decides whether this sees a sum in thread order, but nearly always.

    With `python tests/test_repeat.py index` in place of both processes 18 of 18 pairs differed on
    2 cores, most from the first update on; without the busy core 4 of 6. As it is, 0 of 6.
    """
    with busy_core(), ThreadPool(2) as pool:
        first, second = pool.map(run, ("1", "2"))
    assert len(set(first)) == 9  # six updates and three lessons, all of which change weights
    assert first == second


def indices_that_repeat(out: Tensor) -> int:
    """How many indices of the backward would add several rows to one place."""
    todo, seen, count = [out.grad_fn], set(), 0
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [parent for parent, _ in node.next_functions]
        if node.name() == "IndexBackward0":
            places = [i for i in node._saved_indices if i is not None and i.dtype != torch.bool]
            if places:
                rows = torch.stack(torch.broadcast_tensors(*places)).flatten(1)
                count += len(rows.unique(dim=1).T) < len(rows.T)
    return count


@pytest.mark.parametrize("name", KIN)
def test_no_index_of_the_backward_repeats_a_place(name: str, monkeypatch) -> None:
    """The cause itself, in transformers' part too; without chance."""
    vlm = tiny_kin(name)
    prompts, (ids, mask) = tiny_prompts(vlm, 2), ragged(vlm, 2, 8, 5)
    assert indices_that_repeat(vlm(prompts, ids, mask)[0]) == 0
    monkeypatch.setattr(nn.functional, "embedding", indexed(nn.functional.embedding))
    assert indices_that_repeat(vlm(prompts, ids, mask)[0]) == 1


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    if sys.argv[1:] == ["index"]:
        nn.functional.embedding = indexed(nn.functional.embedding)
    print(*rapo_run(), *sft_run(), sep="\n")
