"""The torch backend of `logprob.py` against its definition, and its memory."""
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from nanoaes import logprob
from nanoaes.logprob import TorchTiles, readable_logprob, sampling_logits, token_logprob

ROOT = Path(__file__).parent.parent


class Shapes(TorchDispatchMode):
    """Records the shapes of what each operation returns, views left out."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor) and not func.is_view:
                self.seen.add(tuple(x.shape))
        return out


def problem(M, V, H, dtype=torch.float64, seed=0, forbidden=0.3):
    """hidden, weight (both require grad), targets, mask with allowed targets, two gradients."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(M, H, generator=g).to(dtype).requires_grad_()
    weight = torch.randn(V, H, generator=g).to(dtype).requires_grad_()
    targets = torch.randint(V, (M,), generator=g)
    mask = torch.rand(V, generator=g) < forbidden
    mask[targets] = False
    return hidden, weight, targets, mask, torch.randn(2, M, generator=g)


def run(function, hidden, weight, targets, g, entropy_grad, *args, **kwargs):
    """logp, entropy, d(hidden), d(weight) of sum(g0 * logp [+ g1 * entropy])."""
    if function is token_logprob:
        kwargs["entropy_grad"] = entropy_grad
    logp, entropy = function(hidden, weight, targets, *args, **kwargs)
    loss = (g[0] * logp).sum() + ((g[1] * entropy).sum() if entropy_grad else 0)
    return logp, entropy, *torch.autograd.grad(loss, (hidden, weight))


def close(got, want, tolerance):
    """Largest difference relative to the largest value, for each tensor."""
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.shape == b.shape, i
        if a.numel():
            error = (a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-3)
            assert error <= tolerance, (i, error.item())


@settings(derandomize=True, max_examples=60)
@given(M=st.integers(1, 40), V=st.integers(1, 90), H=st.integers(1, 20),
       tile=st.integers(1, 2000), entropy_grad=st.booleans(), masked=st.booleans(),
       temperature=st.sampled_from([0.3, 1.0, 2.5]), seed=st.integers(0, 99))
def test_equals_the_definition_for_any_tiling(M, V, H, tile, entropy_grad, masked, temperature,
                                              seed):
    hidden, weight, targets, mask, g = problem(M, V, H, seed=seed)
    args = (hidden, weight, targets, g, entropy_grad, temperature, mask if masked else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logprob, "MIN_COLS", 8)
        patch.setattr(TorchTiles, "TILE", tile)
        got = run(token_logprob, *args)
    close(got, run(readable_logprob, *args), 1e-11)


def test_gradients_against_finite_differences(monkeypatch):
    monkeypatch.setattr(logprob, "MIN_COLS", 4)
    monkeypatch.setattr(TorchTiles, "TILE", 12)
    hidden, weight, targets, mask, _ = problem(5, 11, 3)
    assert torch.autograd.gradcheck(
        lambda h, w: token_logprob(h, w, targets, 0.7, mask, entropy_grad=True), (hidden, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_inputs_lose_nothing_in_the_values(dtype):
    hidden, weight, targets, mask, g = problem(50, 300, 64, dtype)
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    want = run(readable_logprob, *exact, targets, g, True, 0.8, mask)
    got = run(token_logprob, hidden, weight, targets, g, True, 0.8, mask)
    assert got[0].dtype == got[1].dtype == torch.float32
    assert got[2].dtype == got[3].dtype == dtype
    for a, b in zip(got[:2], want[:2], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
    close(got, want, {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype])


def test_numbers_known_by_hand():
    hidden, weight = torch.zeros(2, 3), torch.randn(8, 3)
    logp, entropy = token_logprob(hidden, weight, torch.tensor([1, 7]))
    torch.testing.assert_close(logp, torch.full((2,), -math.log(8)))
    torch.testing.assert_close(entropy, torch.full((2,), math.log(8)))
    half = torch.tensor([True, False] * 4)
    logp, entropy = token_logprob(hidden, weight, torch.tensor([1, 7]), forbidden=half)
    torch.testing.assert_close(logp, torch.full((2,), -math.log(4)))
    torch.testing.assert_close(entropy, torch.full((2,), math.log(4)))


def test_large_logits_keep_their_digits(monkeypatch):
    """Whole numbers up to ±800 have exact logits in fp32: what is left is our own error."""
    monkeypatch.setattr(logprob, "MIN_COLS", 8)
    monkeypatch.setattr(TorchTiles, "TILE", 64)
    g = torch.Generator().manual_seed(0)
    weight = torch.randint(-800, 801, (60, 1), generator=g).float()
    weight[:20] = 800 - torch.arange(20.0)[:, None]
    hidden = torch.tensor([[1.0], [-1.0], [0.5], [0.0]])
    targets = torch.tensor([3, 40, 5, 59])
    exact = [x.double().requires_grad_() for x in (hidden, weight)]
    gradient = torch.ones(2, 4)
    want = run(readable_logprob, *exact, targets, gradient, True)
    got = run(token_logprob, hidden.requires_grad_(), weight.requires_grad_(), targets, gradient,
              True)
    close(got, want, 1e-5)


def test_frozen_head_costs_no_weight_gradient():
    hidden, weight, targets, _, _ = problem(20, 70, 9, torch.float32)
    want = torch.autograd.grad(token_logprob(hidden, weight, targets)[0].sum(), hidden)[0]
    with Shapes() as shapes:
        token_logprob(hidden, weight.detach(), targets)[0].sum().backward()
    assert (70, 9) not in shapes.seen and torch.equal(hidden.grad, want)


def test_tied_head_gets_both_gradients():
    _, weight, targets, _, g = problem(12, 30, 6)
    ids = torch.arange(12)

    def tied(function):
        return torch.autograd.grad((g[0] * function(weight[ids], weight, targets)[0]).sum(),
                                   weight)[0]

    torch.testing.assert_close(tied(token_logprob), tied(readable_logprob))


def test_entropy_is_detached_unless_asked_for():
    hidden, weight, targets, _, _ = problem(4, 9, 3)
    assert not token_logprob(hidden, weight, targets)[1].requires_grad
    assert token_logprob(hidden, weight, targets, entropy_grad=True)[1].requires_grad
    with torch.no_grad():
        assert not token_logprob(hidden, weight, targets)[0].requires_grad


def test_no_tokens():
    hidden, weight, targets, mask, g = problem(0, 9, 3, torch.float32)
    logp, entropy, d_hidden, d_weight = run(token_logprob, hidden, weight, targets, g, False, 1.0,
                                            mask)
    assert logp.shape == entropy.shape == (0,) and d_hidden.shape == (0, 3)
    assert torch.equal(d_weight, torch.zeros(9, 3))


def test_autocast_does_not_lower_the_precision():
    hidden, weight, targets, _, g = problem(9, 40, 8, torch.float32)
    want = run(token_logprob, hidden, weight, targets, g, False)
    with torch.autocast("cpu", torch.bfloat16):
        got = run(token_logprob, hidden, weight, targets, g, False)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_strided_inputs_and_targets_out_of_range():
    hidden, weight, targets, _, _ = problem(10, 20, 6)
    strided = torch.stack([hidden, hidden], 2)[..., 0]
    assert torch.equal(token_logprob(strided, weight, targets)[0],
                       token_logprob(hidden, weight, targets)[0])
    targets[3], targets[4] = -100, 20
    wrong = token_logprob(hidden, weight, targets)[0].isnan()
    assert wrong.nonzero().flatten().tolist() == [3, 4]


def test_sampling_sees_the_same_distribution():
    hidden, weight, targets, mask, _ = problem(6, 40, 8, torch.float32)
    logits = sampling_logits(hidden, weight, 0.7, mask)
    assert torch.softmax(logits, 1)[:, mask].max() == 0
    torch.testing.assert_close(logits.log_softmax(1).gather(1, targets[:, None])[:, 0],
                               token_logprob(hidden, weight, targets, 0.7, mask)[0])


@pytest.mark.parametrize("change, message", [
    (dict(backend="cuda"), "choose auto"), (dict(temperature=0.0), "temperature"),
    (dict(weight=torch.zeros(5, 4)), "need hidden"),
    (dict(weight=torch.zeros(0, 3)), "need hidden"),
    (dict(weight=torch.zeros(5, 3).half()), "one float dtype"),
    (dict(targets=torch.zeros(2)), "targets"), (dict(targets=torch.zeros(3).long()), "targets"),
    (dict(forbidden=torch.zeros(4).bool()), "forbidden"),
    (dict(forbidden=torch.zeros(5)), "forbidden"),
    (dict(weight=torch.zeros(5, 3, device="meta")), "one device")])
def test_unsupported_inputs_are_refused(change, message):
    args = dict(hidden=torch.zeros(2, 3), weight=torch.zeros(5, 3),
                targets=torch.zeros(2, dtype=torch.int64)) | change
    with pytest.raises(ValueError, match=message):
        token_logprob(**args)


def test_works_without_triton_and_says_so():
    code = """
import sys; sys.modules["triton"] = None
import torch
from nanoaes.logprob import token_logprob
args = torch.zeros(2, 3), torch.zeros(5, 3), torch.zeros(2, dtype=torch.int64)
token_logprob(*args)
try: token_logprob(*args, backend="triton")
except ValueError as error: print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "Linux only" in out.stdout, out.stderr


def test_peak_memory_of_the_process_does_not_grow_with_tokens() -> None:
    """Measured: full logits of 300 and 1,200 tokens would be 182 and 730 MB, twice in backward."""
    script = """
import resource, sys, torch
from nanoaes.logprob import token_logprob
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def go(M, V):
    hidden = torch.randn(M, 16, requires_grad=True)
    weight = torch.randn(V, 16, requires_grad=True)
    token_logprob(hidden, weight, torch.randint(V, (M,)))[0].sum().backward()
go(8, 100)
before = peak()
go(int(sys.argv[1]), 152_064)
print(peak() - before)
"""
    grown = {}
    for tokens in (300, 1200):
        out = subprocess.run([sys.executable, "-c", script, str(tokens)], cwd=ROOT, text=True,
                             capture_output=True, check=True)
        grown[tokens] = float(out.stdout)
    assert grown[1200] < 400 and abs(grown[1200] - grown[300]) < 80, grown


def test_large_logits_cost_no_digits():
    """Around 4,096 fp32 numbers are 5e-4 apart: logit - (top + log sum) would be as far off."""
    weight = torch.tensor([[4096.0], [4095.0], [4094.5]])
    logp, _ = token_logprob(torch.ones(3, 1), weight, torch.arange(3))
    want = weight.double()[:, 0].log_softmax(0)
    torch.testing.assert_close(logp.double(), want, rtol=0, atol=1e-6)
