"""What a CUDA graph would do, without CUDA: a traced list of kernels on fixed tensors, replayed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from tiny import restless, tiny_prompts, tiny_vlm
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from nanoaes.errors import NotFinite
from nanoaes.graphs import Graphs
from nanoaes.inputs import Prompts
from nanoaes.rollout import rollout
from nanoaes.sampling import uniforms
from nanoaes.vlm import VLM


def traced(function: Callable[[], Tensor], pool: object
           ) -> tuple[Callable[[], Tensor], Tensor, object]:
    """Like a capture: Python runs once; a replay is the same operations on the same storage."""
    out = function()
    replay = make_fx(lambda: out.copy_(function()))()
    return replay, out, pool or object()


class Store:
    """Storage that says how many of its kind there are."""

    alive = most = 0

    def __init__(self, size: tuple[int, ...], nbytes: int = 100):
        self.size, self.nbytes = size, nbytes
        Store.alive += 1
        Store.most = max(Store.most, Store.alive)

    def __del__(self):
        Store.alive -= 1


def test_it_records_and_replays_on_the_inputs_device(monkeypatch) -> None:
    """Streams and graphs are the current device's, which a thread of its own never has set."""
    current = []

    @contextmanager
    def device_of(x: torch.Tensor) -> Iterator[None]:
        current.append(x.item())
        yield
        current.clear()

    def record(function, pool):
        assert current == [1.0]
        return (lambda: current[0]), function(), pool

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    graphs = Graphs(record)
    for _ in range(2):
        graphs("x", lambda x: x + 1, torch.tensor(1.0))
    assert not current


def test_inputs_are_copied_and_the_output_stays_in_place() -> None:
    calls = []
    graphs = Graphs(lambda *args: (calls.append(1), traced(*args))[1])
    weight = torch.tensor([2.0])
    graphs.keep((1,), Store, [weight])
    first = graphs("x", lambda x: x * weight, torch.tensor([1.0]))
    assert first.item() == 2
    assert graphs("x", lambda x: x * weight, torch.tensor([5.0])) is first and first.item() == 10
    weight.mul_(3)  # in place: seen without a new recording
    assert graphs("x", lambda x: x * weight, torch.tensor([1.0])).item() == 6
    assert len(calls) == 1


def test_storage_only_grows_and_the_old_goes_before_the_new_is_made() -> None:
    graphs, weight = Graphs(traced), torch.ones(1)
    Store.most = 0

    def ask(*size: int) -> tuple[int, ...]:
        got = graphs.keep(size, Store, [weight]).size
        graphs("x", lambda x: x + 1, torch.ones(1))
        return got

    assert ask(4, 128) == (4, 128)
    before = graphs.storage
    assert ask(3, 128) == ask(4, 100) == (4, 128) and graphs.storage is before
    del before
    assert ask(2, 256) == (4, 256), "each number for itself"
    assert ask(5, 1) == ask(1, 1) == (5, 256)
    assert Store.most == 1, "two at a time"


def test_recordings_go_with_the_storage_and_when_weights_move() -> None:
    graphs, weight, pools = Graphs(traced), torch.ones(1), []
    for size, moved, kept in ((1, 0, False), (1, 0, True), (1, 1, False), (2, 0, False)):
        weight = weight.clone() if moved else weight
        held = [graphs.storage, weight]  # so that nothing new can take the old one's address
        graphs.keep((size,), Store, [weight])
        assert bool(graphs.recorded) is kept
        for name in "xy":
            graphs(name, lambda x: x + 1, torch.ones(1))
        assert pools[-1:] == [graphs.pool] if kept else graphs.pool not in pools, \
            "a pool lives as long as its graphs"
        pools.append(graphs.pool)
        del held


def test_large_storage_rests_and_small_storage_stays() -> None:
    for nbytes, stays in ((1000, True), (1001, False)):
        graphs = Graphs(traced, keep_bytes=1000)
        graphs.rest()  # nothing there yet
        graphs.keep((3,), lambda size: Store(size, nbytes), [])  # noqa: B023
        graphs("x", lambda x: x + 1, torch.ones(1))
        graphs.rest()
        assert (graphs.storage is not None) is bool(graphs.recorded) is stays
    assert graphs.keep((2,), Store, []).size == (2,), "what has gone asks for no room"


def both(vlm: VLM, prompts: Prompts, graphs: Graphs, k: int = 2, room: int = 10, seed: int = 0
         ) -> None:
    """The same rollout with graphs and without."""
    uniform = uniforms(seed, 0, range(len(prompts.ids)), k, room)
    ours, theirs = (rollout(vlm, prompts, k=k, max_new_tokens=room, temperature=1.3,
                            uniform=uniform, graphs=g) for g in (graphs, None))
    assert torch.equal(ours.mask, theirs.mask)
    assert torch.equal(ours.ids[ours.mask], theirs.ids[ours.mask])
    torch.testing.assert_close(ours.logp, theirs.logp, rtol=1e-4, atol=1e-5)


def test_replayed_rollouts_equal_eager_ones_while_weights_and_prompts_change() -> None:
    vlm, graphs = restless(), Graphs(traced)
    sizes = []
    for turn in range(3):
        both(vlm, tiny_prompts(vlm, 6, seed=turn).select(torch.arange(6).roll(turn)), graphs,
             seed=turn)
        sizes.append(set(graphs.recorded))
        with torch.no_grad():
            for p in vlm.parameters():
                p.mul_(1.01)
    assert len(sizes[-1]) > 1, "no row ever left: the test does not apply"
    assert sizes[0] <= sizes[1] <= sizes[2], "changed weights made it record again"


def test_training_and_evaluation_share_one_storage() -> None:
    """Fewer pictures, one answer each, more answers each, shorter ones: all in what is there."""
    vlm, graphs, seen = restless(), Graphs(traced), []
    for n, k, room in ((6, 2, 9), (5, 1, 4), (3, 4, 9), (6, 2, 4)):
        both(vlm, tiny_prompts(vlm, n), graphs, k, room, seed=n)
        seen.append((graphs.storage, set(graphs.recorded)))
    assert len({id(storage) for storage, _ in seen}) == 1
    assert seen[0][1] < seen[1][1] < seen[2][1] and {(n, k) for n, k, _ in seen[2][1]} >= {
        (6, 2), (5, 1), (3, 4)}
    assert seen[3][1] == seen[2][1], "the first sizes came again and were recorded again"


def test_a_rollout_leaves_no_large_storage_behind() -> None:
    vlm, graphs = tiny_vlm(), Graphs(traced, keep_bytes=10_000)
    both(vlm, tiny_prompts(vlm, 3), graphs, room=3)
    assert graphs.storage is None and not graphs.recorded
    graphs.keep_bytes = 2**30
    both(vlm, tiny_prompts(vlm, 3), graphs, room=3)
    assert graphs.storage.nbytes > 10_000 and graphs.recorded


def test_nan_does_not_outlive_better_weights() -> None:
    """It stands where the next prompt, a shorter one, has padding."""
    vlm, graphs = tiny_vlm(), Graphs(traced)
    prompts = tiny_prompts(vlm, 3)
    order = prompts.mask.sum(1).argsort()
    short, long = prompts.select(order[:1]), prompts.select(order[-1:])
    assert short.ids.shape[1] < long.ids.shape[1]
    long.pixels.fill_(torch.nan)
    with pytest.raises(NotFinite):
        both(vlm, long, graphs, room=3)
    both(vlm, short, graphs, room=3)
