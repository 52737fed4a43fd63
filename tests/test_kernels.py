"""The Triton kernels against fp64 autograd: on a GPU where there is one, else interpreted."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_logprob import close, problem, run

from nanoaes import rapo
from nanoaes.logprob import readable_logprob, token_logprob

pytest.importorskip("triton")
from nanoaes import kernels  # noqa: E402 (triton exists on Linux only)

ROOT = Path(__file__).parent.parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# the gradients are rounded to 16 bits twice; the interpreter truncates instead of rounding
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
SHAPES = [(1, 1, 1), (7, 65, 16), (33, 64, 37), (32, 128, 100), (50, 200, 64)]  # M, V, H


def compare(M, V, H, dtype=torch.float32, entropy_grad=False, masked=False, temperature=1.0,
            tolerance=None, seed=0):
    """Values and gradients of one problem, kernels against the definition in fp64."""
    hidden, weight, targets, mask, g = problem(M, V, H, dtype, seed)
    mask = mask if masked else None
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    want = run(readable_logprob, *exact, targets, g, entropy_grad, temperature, mask)
    hidden, weight = (x.detach().to(DEVICE).requires_grad_() for x in (hidden, weight))
    mask = None if mask is None else mask.to(DEVICE)
    got = [x.cpu() for x in run(token_logprob, hidden, weight, targets.to(DEVICE), g.to(DEVICE),
                                entropy_grad, temperature, mask, backend="triton")]
    assert got[0].dtype == got[1].dtype == torch.float32 and got[2].dtype == dtype
    for a, b in zip(got[:2], want[:2], strict=True):  # fp32, whatever the inputs are
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
    close(got, want, tolerance or TOLERANCE[dtype])
    return got


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(shape, dtype):
    compare(*shape, dtype, temperature=0.7)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("entropy_grad, masked", [(True, False), (False, True), (True, True)])
def test_entropy_gradient_and_forbidden_words(dtype, entropy_grad, masked):
    compare(40, 150, 37, dtype, entropy_grad, masked, temperature=1.7)


@settings(derandomize=True, max_examples=12)
@given(M=st.integers(1, 70), V=st.integers(1, 200), H=st.sampled_from([8, 30, 64]),
       entropy_grad=st.booleans(), masked=st.booleans(), seed=st.integers(0, 99))
def test_any_shape(M, V, H, entropy_grad, masked, seed):
    compare(M, V, H, torch.float32, entropy_grad, masked, seed=seed)


@pytest.mark.parametrize("tile", [1, 70 * 300])
def test_chunks_of_the_vocabulary_and_of_the_tokens(monkeypatch, tile):
    """tile = 1: one token and 256 words at a time; then all tokens and 300 of 600 words."""
    monkeypatch.setattr(kernels, "TILE", tile)
    compare(3 if tile == 1 else 70, 600, 24, entropy_grad=True, masked=True)


def test_a_whole_tile_is_forbidden():
    hidden, weight, _, _, g = (x.to(DEVICE) for x in problem(5, 200, 16, torch.float32))
    mask = torch.arange(200, device=DEVICE) < 150
    targets = torch.full((5,), 180, device=DEVICE)
    want = run(token_logprob, hidden, weight, targets, g, True, 1.0, mask, backend="torch")
    close(run(token_logprob, hidden, weight, targets, g, True, 1.0, mask, backend="triton"), want,
          1e-5)
    assert not want[3][:150].any()


@pytest.mark.parametrize("size", [dict(BM=128, BV=256, BK=64), dict(BM=64, BV=64, BK=16)])
def test_the_gpu_tile_sizes(monkeypatch, size):
    if DEVICE == "cpu":
        monkeypatch.setattr(kernels, "tile_config",
                            lambda *_: size | dict(num_warps=8, num_stages=4))
    compare(150, 300, 72, torch.float16, entropy_grad=True, masked=True)


def test_large_logits_keep_their_digits():
    """Whole numbers up to ±800 have exact logits in fp32: what is left is our own error."""
    weight = torch.randint(-800, 801, (90, 1), generator=torch.Generator().manual_seed(0)).float()
    weight[:20] = 800 - torch.arange(20.0)[:, None]
    hidden = torch.tensor([[1.0], [-1.0], [0.5], [0.0]])
    targets, g = torch.tensor([3, 40, 5, 89]), torch.ones(2, 4)
    exact = [x.double().requires_grad_() for x in (hidden, weight)]
    hidden, weight = (x.to(DEVICE).requires_grad_() for x in (hidden, weight))
    got = run(token_logprob, hidden, weight, targets.to(DEVICE), g.to(DEVICE), True,
              backend="triton")
    close([x.cpu() for x in got], run(readable_logprob, *exact, targets, g, True), 1e-5)


def test_frozen_head_no_grad_strides_and_no_tokens():
    hidden, weight, targets, _, g = (x.to(DEVICE) for x in problem(20, 70, 9, torch.float32))
    h, w = hidden.detach().requires_grad_(), weight.detach()
    logp, _ = token_logprob(h, w, targets, backend="triton")
    (g[0] * logp).sum().backward()
    want = run(token_logprob, h, weight, targets, g, False, backend="torch")
    close([h.grad], [want[2]], 1e-5)
    with torch.no_grad():
        again, _ = token_logprob(torch.stack([h, h], 2)[..., 0], w, targets, backend="triton")
    assert torch.equal(again, logp) and not again.requires_grad  # same bits, other strides
    logp, entropy = token_logprob(h[:0], w, targets[:0], backend="triton")
    assert logp.shape == entropy.shape == (0,)


def test_tied_head_and_targets_out_of_range():
    weight = problem(1, 70, 16, torch.float32)[1].detach().to(DEVICE).requires_grad_()
    ids = torch.arange(12, device=DEVICE)

    def tied(backend):
        logp, _ = token_logprob(weight[ids], weight, ids + 1, backend=backend)
        return [torch.autograd.grad(logp.sum(), weight)[0]]

    close(tied("triton"), tied("torch"), 1e-5)
    wrong = torch.tensor([0, -100, 70], device=DEVICE)
    assert token_logprob(weight[:3], weight, wrong, backend="triton")[0].isnan().tolist() == [
        False, True, True]


def test_same_bits_every_time():
    first = compare(40, 150, 37, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(first, compare(40, 150, 37), strict=True))


def test_refuses_what_it_cannot_do(monkeypatch):
    args = torch.zeros(2, 3), torch.zeros(5, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="bf16, fp16 or fp32"):
        token_logprob(args[0].double(), args[1].double(), args[2], backend="triton")
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    with pytest.raises(ValueError, match="TRITON_INTERPRET=1"):
        token_logprob(*args, backend="triton")


CLIP = dict(eps_low=0.2, eps_high=0.2, beta=0.0)


def token_losses(logp, old, ref, advantage, **rest):
    """loss, ratio, kl and d(logp) by the definition and by the kernel."""
    results = []
    for function in (rapo.token_loss, kernels.fused_token_loss):
        x = logp.clone().requires_grad_()
        loss, ratio, kl = function(x, old, ref, advantage, **rest)
        loss.backward(torch.linspace(0.5, 2, len(x), device=x.device))
        results.append((loss.detach(), ratio.detach(), kl.detach(), x.grad))
    return results


@settings(derandomize=True, max_examples=25)
@given(M=st.integers(1, 2500), spread=st.sampled_from([1e-3, 0.3, 3.0]),
       eps_low=st.sampled_from([0.1, 0.2]), eps_high=st.sampled_from([0.2, 0.28]),
       beta=st.sampled_from([0.0, 0.04]), seed=st.integers(0, 99))
def test_token_loss_equals_its_definition(M, spread, eps_low, eps_high, beta, seed):
    g = torch.Generator().manual_seed(seed)
    logp, old, ref = (-2 + spread * torch.randn(3, M, generator=g)).clamp(max=0).to(DEVICE)
    advantage = torch.randn(M, generator=g).to(DEVICE)
    want, got = token_losses(logp, old, ref, advantage, eps_low=eps_low, eps_high=eps_high,
                             beta=beta)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_token_loss_at_the_edges():
    """A ratio of 1 is exact: clip widths of 0 put both edges there.  Differences at ±20."""
    logp = torch.tensor([-1.0, -1.0, -1.0, -1.0, -1.0, -0.5, -1.5], device=DEVICE)
    old = torch.full_like(logp, -1.0)
    ref = logp + torch.tensor([0, 20, -20, 21, -21, 1, -1.0], device=DEVICE)
    for A, eps in ((1.0, 0.0), (-1.0, 0.0), (0.0, 0.0), (1.0, 0.2), (-1.0, 0.2), (0.0, 0.2)):
        advantage = torch.full_like(logp, A)
        want, got = token_losses(logp, old, ref, advantage, eps_low=eps, eps_high=eps, beta=0.04)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_token_loss_refuses_other_types_and_takes_no_tokens():
    x = torch.zeros(3, device=DEVICE)
    with pytest.raises(ValueError, match="fp32"):
        kernels.fused_token_loss(x, x, x, x.half(), **CLIP)
    with pytest.raises(ValueError, match="fp32"):
        kernels.fused_token_loss(x, x, x[:2], x, **CLIP)
    assert kernels.fused_token_loss(x[:0], x[:0], x[:0], x[:0], **CLIP)[0].shape == (0,)


def test_compiles_for_hopper_without_spills():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    out = subprocess.run([sys.executable, "bench/logprob.py", "--compile-only"], cwd=ROOT,
                         env=environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr
    report = json.loads(out.stdout.splitlines()[-1])["kernels"]
    assert len(report) >= 10 and not any(r["stack_bytes"] for r in report)
    assert all(r["wgmma"] and r["shared_bytes"] <= 232_448 for r in report if r["dtype"] == "bf16")
