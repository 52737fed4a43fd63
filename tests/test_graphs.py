"""What a CUDA graph would do, without CUDA: a traced list of kernels on fixed tensors, replayed."""

from collections.abc import Callable

import torch
from tiny import tiny_prompts, tiny_vlm
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from nanoaes.graphs import Graphs
from nanoaes.rollout import rollout


def traced(function: Callable[[], Tensor]) -> tuple[Callable[[], Tensor], Tensor]:
    """Like a capture: Python runs once; a replay is the same operations on the same storage."""
    out = function()
    replay = make_fx(lambda: out.copy_(function()))()
    return replay, out


def test_inputs_are_copied_and_the_output_stays_in_place() -> None:
    calls = []
    graphs = Graphs(lambda function: (calls.append(1), traced(function))[1])
    weight = torch.tensor([2.0])
    graphs.keep("a", object, [weight])
    first = graphs("x", lambda x: x * weight, torch.tensor([1.0]))
    assert first.item() == 2
    assert graphs("x", lambda x: x * weight, torch.tensor([5.0])) is first and first.item() == 10
    weight.mul_(3)  # in place: seen without a new recording
    assert graphs("x", lambda x: x * weight, torch.tensor([1.0])).item() == 6
    assert len(calls) == 1


def test_storage_is_kept_for_one_size_and_dropped_when_weights_move() -> None:
    graphs, weight = Graphs(traced), torch.ones(1)
    first = graphs.keep(1, object, [weight])
    graphs("x", lambda x: x + 1, torch.ones(1))
    assert graphs.keep(1, object, [weight]) is first and graphs.recorded
    assert graphs.keep(1, object, [weight.clone()]) is not first and not graphs.recorded
    assert graphs.keep(2, object, [weight]) is not graphs.keep(1, object, [weight])
    assert len(graphs.storage) == 1


def test_replayed_rollouts_equal_eager_ones_while_weights_and_prompts_change() -> None:
    vlm, graphs = tiny_vlm(), Graphs(traced)
    vlm.stop_ids = [vlm.stop_ids[0], *range(100, 300)]  # rows finish at different times
    sizes = []
    for turn in range(3):
        prompts = tiny_prompts(vlm, 6, seed=turn).select(torch.arange(6).roll(turn))
        ours, theirs = (rollout(vlm, prompts, 2, 10, 1.3, torch.Generator().manual_seed(turn), g)
                        for g in (graphs, None))
        assert torch.equal(ours.mask, theirs.mask)
        assert torch.equal(ours.ids[ours.mask], theirs.ids[ours.mask])
        torch.testing.assert_close(ours.logp, theirs.logp, rtol=1e-4, atol=1e-5)
        sizes.append(set(graphs.recorded))
        with torch.no_grad():
            for p in vlm.parameters():
                p.mul_(1.01)
    assert len(sizes[-1]) > 1, "no row ever left: the test does not apply"
    assert sizes[0] <= sizes[1] <= sizes[2], "changed weights made it record again"
