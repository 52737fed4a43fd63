"""Sampling with the hand-written cache describes exactly the policy that the update will see."""

import pytest
import torch
from scipy.stats import chisquare
from tiny import tiny_prompts, tiny_vlm

from nanoaes.logprob import token_logprob
from nanoaes.prompt import format_ok
from nanoaes.rollout import Rollouts, rollout


def test_greedy_equals_full_forward() -> None:
    """Without any cache: the whole row again for every token."""
    vlm = tiny_vlm()
    prompts = tiny_prompts(vlm, 3)
    rolls = rollout(vlm, prompts, 1, 8, temperature=0)
    ids = rolls.ids[:, :, :0]
    for t in range(rolls.ids.shape[2]):
        guess = torch.cat([ids, torch.zeros(3, 1, 1, dtype=torch.int64)], dim=2)
        hidden = vlm(prompts, guess, torch.ones_like(guess, dtype=torch.bool)).view(3, t + 1, -1)
        logits = (hidden[:, -1] @ vlm.head.T).masked_fill(vlm.forbidden, -torch.inf)
        ids = torch.cat([ids, logits.argmax(-1)[:, None, None]], dim=2)
        live = rolls.mask[:, 0, t]
        assert torch.equal(ids[live, 0, t], rolls.ids[live, 0, t])
        logp = logits.log_softmax(-1).amax(-1)
        torch.testing.assert_close(logp[live], rolls.logp[live, 0, t], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_kept_logprobs_equal_the_training_pass(temperature: float) -> None:
    vlm = tiny_vlm()
    prompts = tiny_prompts(vlm, 4)
    rolls = rollout(vlm, prompts, 3, 10, temperature, torch.Generator().manual_seed(0))
    logp, _ = token_logprob(vlm(prompts, rolls.ids, rolls.mask), vlm.head, rolls.ids[rolls.mask],
                            temperature, vlm.forbidden)
    torch.testing.assert_close(rolls.logp[rolls.mask], logp, rtol=0, atol=1e-4)
    assert (rolls.logp[~rolls.mask] == 0).all()


def test_masks_reach_to_the_first_stop_token_and_truncation_is_counted() -> None:
    vlm = tiny_vlm()
    vlm.stop_ids = [vlm.stop_ids[0], *range(100, 160)]  # so that some rows stop by chance
    rolls = rollout(vlm, tiny_prompts(vlm, 4), 6, 12, 1.5, torch.Generator().manual_seed(1))
    stop = torch.isin(rolls.ids, torch.tensor(vlm.stop_ids))
    for ids_stop, mask, cut in zip(stop.flatten(0, 1), rolls.mask.flatten(0, 1),
                                   rolls.truncated.flatten(), strict=True):
        first = ids_stop.nonzero().flatten().tolist()
        assert cut == (not first)
        assert mask.sum() == (first[0] + 1 if first else len(mask))
        assert mask[: mask.sum()].all()
    assert rolls.truncated.any() and not rolls.truncated.all()


def test_sampled_frequencies_match_the_softmax_and_forbidden_never_come() -> None:
    vlm = tiny_vlm()
    prompts = tiny_prompts(vlm, 1)
    rolls = rollout(vlm, prompts, 20_000, 1, 1.0, torch.Generator().manual_seed(0))
    first = torch.zeros(1, 1, 1, dtype=torch.int64)
    hidden = vlm(prompts, first, first == 0)
    p = (hidden @ vlm.head.T).masked_fill(vlm.forbidden, -torch.inf).softmax(-1)[0].double()
    counts = torch.bincount(rolls.ids.flatten(), minlength=len(p)).double()
    assert counts[vlm.forbidden].sum() == 0
    observed = counts[~vlm.forbidden]
    expected = (p[~vlm.forbidden] * 20_000).detach()
    assert expected.min() > 5  # else the test does not apply
    assert chisquare(observed.numpy(), (expected * 20_000 / expected.sum()).numpy()).pvalue > 1e-3


def test_same_generator_same_answers_and_mode_is_restored() -> None:
    vlm = tiny_vlm().train()
    a, b = (rollout(vlm, tiny_prompts(vlm, 2), 2, 6, 1.0, torch.Generator().manual_seed(5))
            for _ in range(2))
    assert torch.equal(a.ids, b.ids) and vlm.training


def test_batch_of_one_equals_batch_of_n() -> None:
    """Prompts of three lengths: padding changes no answer."""
    vlm = tiny_vlm()
    prompts = tiny_prompts(vlm, 5)
    whole = rollout(vlm, prompts, 1, 8, temperature=0)
    for i in range(5):
        one = rollout(vlm, prompts.select(torch.tensor([i])), 1, 8, temperature=0)
        assert torch.equal(one.ids[one.mask], whole.ids[i : i + 1][whole.mask[i : i + 1]])
        torch.testing.assert_close(one.logp[one.mask], whole.logp[i][whole.mask[i]])


def test_texts_show_special_tokens_but_not_the_stop() -> None:
    vlm = tiny_vlm()
    answer = "<think>soft<|im_start|> light</think><answer>0.5</answer>"
    ids = torch.tensor(vlm.tokenizer(answer, add_special_tokens=False)["input_ids"])
    stopped = torch.cat([ids, torch.tensor(vlm.stop_ids[:1])])[None, None]
    whole = torch.ones_like(stopped, dtype=torch.bool)
    zero = torch.zeros(1, 1)
    for rolls in (Rollouts(stopped, whole, whole.float(), zero.bool()),
                  Rollouts(ids[None, None], whole[..., 1:], whole[..., 1:].float(), zero == 0)):
        assert rolls.texts(vlm.tokenizer) == [answer]
    assert not format_ok(answer)
