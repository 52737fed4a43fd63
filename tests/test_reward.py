"""Each reward against a slow loop over the paper's formula, and what an unreadable answer does."""

import math

import pytest
import torch
from scipy.stats import norm

from nanoaes.rapo import advantages
from nanoaes.reward import Truth, absolute_reward, preference, relative_reward, rewards

PLAIN = dict(w_relative=1, w_absolute=1, w_format=1, sigma=0.1, ties="half")


def slow_relative(scores, valid, truth, group, ties="half", std=None):
    """The formula with Python loops, images i, rollouts k, partners j."""
    n, k = scores.shape
    mean, var = [], []
    for i in range(n):
        read = [float(scores[i, a]) for a in range(k) if valid[i, a]]
        m = sum(read) / len(read) if read else 0.0
        mean.append(m)
        var.append(sum((x - m) ** 2 for x in read) / (len(read) - 1) if len(read) > 1 else 0.0)
    out = torch.zeros(n, k)
    for i in range(n):
        partners = [j for j in range(n) if j != i and group[j] == group[i] and valid[j].any()]
        for a in range(k):
            if not valid[i, a] or not partners:
                continue
            total = 0.0
            for j in partners:
                p = norm.cdf((float(scores[i, a]) - mean[j]) / math.sqrt(var[i] + var[j] + 1e-6))
                s_i, s_j = float(truth[i]), float(truth[j])
                tie = 0.5 if ties == "half" else 1.0
                c = tie if s_i == s_j else float(s_i > s_j)
                if std is not None:
                    c = norm.cdf((s_i - s_j) / math.sqrt(std[i] ** 2 + std[j] ** 2 + 1e-6))
                total += math.sqrt(c * p) + math.sqrt((1 - c) * (1 - p))
            out[i, a] = total / len(partners)
    return out


def case(seed: int = 0, n: int = 7, k: int = 4):
    g = torch.Generator().manual_seed(seed)
    scores = (torch.rand(n, k, generator=g) * 100).round() / 100
    valid = torch.rand(n, k, generator=g) > 0.25
    truth = (torch.rand(n, generator=g) * 10).round() / 10  # coarse: ties happen
    return scores, valid, truth, torch.randint(0, 2, (n,), generator=g)


@pytest.mark.parametrize("ties", ["half", "paper"])
@pytest.mark.parametrize("seed", range(5))
def test_relative_equals_the_formula(seed: int, ties: str) -> None:
    scores, valid, truth, group = case(seed)
    ours = relative_reward(scores.double(), valid, Truth(truth.double(), None, group), ties)
    slow = slow_relative(scores.double(), valid, truth.double(), group, ties)
    torch.testing.assert_close(ours.float(), slow, rtol=1e-5, atol=1e-5)


def test_soft_truth_uses_the_raters_spread_where_it_is_known() -> None:
    scores, valid, truth, group = case(1)
    std = torch.linspace(0.05, 0.3, len(truth))
    ours = relative_reward(scores.double(), valid, Truth(truth.double(), std.double(), group))
    slow = slow_relative(scores.double(), valid, truth.double(), group, std=std.tolist())
    torch.testing.assert_close(ours.float(), slow, rtol=1e-4, atol=1e-5)
    unknown = torch.full_like(std, float("nan"))
    assert torch.equal(preference(truth, unknown), preference(truth))


def test_ties() -> None:
    truth = torch.tensor([0.5, 0.5, 0.9])
    assert preference(truth)[0].tolist() == [0.5, 0.5, 0.0]
    assert preference(truth, ties="paper")[0].tolist() == [1.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="half or paper"):
        preference(truth, ties="none")


def test_absolute_equals_the_formula() -> None:
    scores, valid, truth, _ = case()
    ours = absolute_reward(scores, valid, truth, sigma=0.1)
    for i in range(len(truth)):
        for k in range(scores.shape[1]):
            error = float(scores[i, k] - truth[i])
            expected = math.exp(-0.5 * (error / 0.1) ** 2) if valid[i, k] else 0.0
            assert float(ours[i, k]) == pytest.approx(expected, abs=1e-6)


def test_one_unreadable_answer_changes_no_reward_of_its_own_batch_mates_by_its_value() -> None:
    """Whatever stands in an unreadable answer's place, every other reward is the same."""
    scores, valid, truth, group = case(3)
    valid[2, 1] = False
    results = []
    for garbage in (0.0, 0.7, 85.0, float("nan")):
        filled = scores.clone()
        filled[2, 1] = garbage
        results.append(rewards(filled, valid, valid, Truth(truth, None, group), **PLAIN))
    for other in results[1:]:
        assert torch.equal(other.total, results[0].total)
    assert results[0].total[2, 1] == 0


def test_an_image_whose_answers_are_all_unreadable_leaves_the_comparison() -> None:
    scores, valid, truth, _ = case(4)
    group, valid = torch.zeros(len(truth), dtype=torch.int64), torch.ones_like(valid)
    gone = valid.clone()
    gone[0] = False
    rest = relative_reward(scores[1:], valid[1:], Truth(truth[1:], None, group[1:]))
    assert torch.allclose(relative_reward(scores, gone, Truth(truth, None, group))[1:], rest)


def test_sets_are_not_compared_and_a_lonely_image_gets_nothing() -> None:
    scores, _, truth, _ = case(5)
    valid = torch.ones_like(scores, dtype=torch.bool)
    group = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    ours = relative_reward(scores, valid, Truth(truth, None, group))
    alone = relative_reward(scores[:3], valid[:3], Truth(truth[:3], None, group[:3]))
    assert torch.allclose(ours[:3], alone) and (ours[6] == 0).all()


def test_weights_switch_parts_off() -> None:
    scores, valid, truth, group = case(6)
    r = rewards(scores, valid, valid, Truth(truth, None, group),
                **PLAIN | dict(w_relative=0.0, w_absolute=2.0, w_format=0.0))
    assert torch.equal(r.total, 2 * r.absolute)


def test_the_papers_eps_changes_no_advantage() -> None:
    """r_abs + eps, as the paper has it: the same for all of a group, also where none is near."""
    scores, valid, truth, _ = case()
    valid[:] = True
    absolute = absolute_reward(scores.double(), valid, truth.double())
    ours, flat = advantages(absolute)
    for eps in (1e-6, 0.1):
        theirs, also = advantages(absolute + eps)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert torch.equal(flat, also)
