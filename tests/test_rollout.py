"""Sampling with the hand-written cache describes exactly the policy that the update will see."""

from collections.abc import Callable

import pytest
import torch
from scipy.stats import chisquare
from tiny import pictures, restless, tiny_prompts, tiny_vlm

from nanoaes import rollout as rollout_module
from nanoaes.errors import NotFinite
from nanoaes.inputs import Prompts
from nanoaes.prompt import format_ok
from nanoaes.rollout import Rollouts, rollout
from nanoaes.sampling import uniforms
from nanoaes.vlm import VLM


def sampled(vlm: VLM, prompts: Prompts, k: int, room: int, temperature: float = 1.0, seed: int = 0,
            **options) -> Rollouts:
    """Each picture with the numbers of its place."""
    uniform = uniforms(seed, 0, range(len(prompts.ids)), k, room)
    return rollout(vlm, prompts, k=k, max_new_tokens=room, temperature=temperature,
                   uniform=uniform, **options)


def assert_same_answers(ours: Rollouts, theirs: Rollouts) -> None:
    """But for padding behind the longest."""
    assert torch.equal(ours.mask.sum(2), theirs.mask.sum(2))
    assert torch.equal(ours.ids[ours.mask], theirs.ids[theirs.mask])
    assert torch.equal(ours.truncated, theirs.truncated)
    torch.testing.assert_close(ours.logp[ours.mask], theirs.logp[theirs.mask], rtol=0, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])  # greedy's are of temperature 1
def test_kept_logprobs_equal_the_training_pass(temperature: float) -> None:
    vlm = tiny_vlm()
    prompts = tiny_prompts(vlm, 4)
    rolls = sampled(vlm, prompts, 3, 10, temperature)
    logp, _ = vlm(prompts, rolls.ids, rolls.mask, temperature or 1.0)
    torch.testing.assert_close(rolls.logp[rolls.mask], logp, rtol=0, atol=1e-4)
    assert (rolls.logp[~rolls.mask] == 0).all()


def test_masks_reach_to_the_first_stop_token_and_truncation_is_counted() -> None:
    vlm = tiny_vlm()
    vlm.stop_ids = [vlm.stop_ids[0], *range(100, 160)]  # so that some rows stop by chance
    rolls = sampled(vlm, tiny_prompts(vlm, 4), 6, 12, 1.5)
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
    rolls = sampled(vlm, prompts, 20_000, 1)
    first = torch.zeros(1, 1, 1, dtype=torch.int64)
    hidden = vlm.hidden(prompts, first, first == 0)
    p = (hidden @ vlm.head.T).masked_fill(vlm.forbidden, -torch.inf).softmax(-1)[0].double()
    counts = torch.bincount(rolls.ids.flatten(), minlength=len(p)).double()
    assert counts[vlm.forbidden].sum() == 0
    observed = counts[~vlm.forbidden]
    expected = (p[~vlm.forbidden] * 20_000).detach()
    assert expected.min() > 5  # else the test does not apply
    assert chisquare(observed.numpy(), (expected * 20_000 / expected.sum()).numpy()).pvalue > 1e-3


def test_each_token_is_chosen_by_its_own_number() -> None:
    """Against the training pass and a cumulated sum over all words."""
    vlm, n, k, room = tiny_vlm(), 3, 4, 8
    prompts, uniform = tiny_prompts(vlm, n), uniforms(6, 1, range(n), k, room)
    rolls = rollout(vlm, prompts, k=k, max_new_tokens=room, uniform=uniform)
    hidden = vlm.hidden(prompts, rolls.ids, rolls.mask)
    logits = (hidden @ vlm.head.T).masked_fill(vlm.forbidden, -torch.inf)
    border = logits.double().softmax(-1).cumsum(-1).detach()  # (M, V)
    u = uniform[..., : rolls.mask.shape[2]][rolls.mask][:, None]
    clear = (border - u).abs().amin(1) > 1e-5
    assert clear.float().mean() > 0.9 and clear.sum() > 40
    word = torch.searchsorted(border, u, right=True)[:, 0]
    assert torch.equal(word[clear], rolls.ids[rolls.mask][clear])


def test_answers_belong_to_the_picture() -> None:
    """One by one, in another order, in groups, with fewer answers: whatever runs beside them."""
    vlm, n, k, room = restless(), 6, 4, 12
    prompts, uniform = tiny_prompts(vlm, n), uniforms(5, 2, range(n), k, room)

    def answers(pictures: list[int], k: int = k, tokens: int | None = None) -> Rollouts:
        return rollout(vlm, prompts.select(torch.tensor(pictures)), k=k, max_new_tokens=room,
                       uniform=uniforms(5, 2, pictures, k, room), tokens=tokens)

    def part(pictures: list[int], k: int = k) -> Rollouts:
        return Rollouts(*(x[pictures, :k] for x in vars(whole).values()))

    whole = rollout(vlm, prompts, k=k, max_new_tokens=room, uniform=uniform)
    assert len(set(whole.mask.sum(2).flatten().tolist())) > 4, "rows finish together"
    assert len({tuple(x) for x in whole.ids.flatten(0, 1).tolist()}) > n * k // 2
    for i in range(n):
        assert_same_answers(answers([i]), part([i]))
    order = [4, 0, 5, 3, 1, 2]
    assert_same_answers(answers(order), part(order))
    assert_same_answers(answers(order, k=2), part(order, k=2))
    for tokens in (1, 9, 60, 10**6):
        assert_same_answers(answers(order, tokens=tokens), part(order))


def test_logits_in_parts_give_the_same_answers(monkeypatch) -> None:
    vlm = restless()
    prompts = tiny_prompts(vlm, 3)
    whole = sampled(vlm, prompts, 4, 8)
    monkeypatch.setattr(rollout_module, "LOGITS", 5 * len(vlm.head))  # 12 rows: 5, 5 and 2
    assert_same_answers(sampled(vlm, prompts, 4, 8), whole)


@pytest.mark.parametrize("uniform", [None, torch.zeros(2, 3, 5), torch.zeros(2, 3)])
def test_sampling_without_its_numbers_is_an_error(uniform: torch.Tensor | None) -> None:
    vlm = tiny_vlm()
    with pytest.raises(ValueError, match=r"needs uniform numbers \(2, 3, 4\)"):
        rollout(vlm, tiny_prompts(vlm, 2), k=3, max_new_tokens=4, uniform=uniform)


def forwards(vlm: VLM, monkeypatch, run: Callable[[], object]) -> tuple[list, list]:
    """(pictures, tokens with padding) of each prefill, and the rows of each first decode."""
    shapes, inner = [], vlm.decode_layers
    monkeypatch.setattr(vlm, "decode_layers", lambda x, *args, **kw: (
        shapes.append(x.shape[:2]), inner(x, *args, **kw))[1])
    run()
    before = [(0, 2), *shapes]
    return ([tuple(s) for s in shapes if s[1] > 1],
            [s[0] for b, s in zip(before, shapes, strict=False) if b[1] > 1 == s[1]])


def test_a_budget_bounds_prefill_and_rows(monkeypatch) -> None:
    vlm = tiny_vlm()
    prompts = tiny_prompts(vlm, 9)
    longest = prompts.ids.shape[1]
    monkeypatch.setattr(rollout_module, "CACHED", 4)
    tokens, cost = 2 * longest, longest + 8 * 3  # of a forward; of a picture in the cache
    prefills, rows = forwards(vlm, monkeypatch, lambda: sampled(vlm, prompts, 8, 3, tokens=tokens))
    assert all(n * p <= tokens for n, p in prefills) and sum(n for n, _ in prefills) == 9
    assert all(n // 8 * cost <= 4 * tokens for n in rows) and sum(rows) == 9 * 8
    assert len(prefills) > len(rows) >= 2, "never in parts: the test does not apply"
    assert max(rows) - min(rows) <= 8, "groups of like sizes decode side by side longest"


def test_the_toys_defaults_are_one_prefill_and_one_group(monkeypatch) -> None:
    vlm = tiny_vlm()
    prompts = vlm.prompts(*zip(*[(p, "Judge this photograph.") for p in pictures(32)], strict=True))
    assert prompts.ids.shape[1] >= 23
    prefills, rows = forwards(vlm, monkeypatch, lambda: sampled(vlm, prompts, 8, 2, tokens=2048))
    assert (len(prefills), rows) == (1, [256])


def test_the_mode_comes_back_even_after_an_error(monkeypatch) -> None:
    vlm = tiny_vlm()
    for training in (True, False):
        vlm.train(training)
        sampled(vlm, tiny_prompts(vlm, 2), 2, 3)
        assert vlm.training is training and vlm.hf.training is training
    vlm.train()
    monkeypatch.setattr(vlm, "embed", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sampled(vlm, tiny_prompts(vlm, 2), 2, 3)
    assert vlm.training


def test_every_forward_is_one_of_eval_mode(monkeypatch) -> None:
    """Else checkpointing would compute all again, and dropout answer in the policy's place."""
    vlm, modes, inner = tiny_vlm().train(), [], VLM.decode_layers
    monkeypatch.setattr(VLM, "decode_layers", lambda self, *args, **kw: (
        modes.extend(m.training for m in self.modules()), inner(self, *args, **kw))[1])
    sampled(vlm, tiny_prompts(vlm, 2), 2, 3)
    assert modes and not any(modes)


def test_nan_in_a_picture_names_its_prompt() -> None:
    vlm = tiny_vlm()
    prompts = tiny_prompts(vlm, 4)
    start = int(prompts.grid[:2].prod(1).sum())
    prompts.pixels[start] = torch.nan
    for tokens in (None, 4):  # in a group of its own, too
        with pytest.raises(NotFinite, match="hidden states of picture 3's prompt .*lower --lr"):
            sampled(vlm, prompts, 2, 6, tokens=tokens)


@pytest.mark.parametrize("room", [1, 7, 40])
def test_nan_weights_are_named_and_no_index_error(room: int) -> None:
    vlm = tiny_vlm()
    prompts = tiny_prompts(vlm, 2)
    embedding = vlm.hf.get_input_embeddings().weight
    unused = next(i for i in range(100, 400) if not (prompts.ids == i).any()
                  and not vlm.forbidden[i])
    embedding.data[unused] = torch.nan  # tied with the head
    for temperature in (0.0, 1.0):
        with pytest.raises(NotFinite, match="^the log-probs of token 1 are not finite"):
            sampled(vlm, prompts, 3, room, temperature)


def test_nan_that_comes_later_is_named_and_a_finished_row_does_no_harm(monkeypatch) -> None:
    """From the sixth token's forward on, in the last row that runs."""
    vlm, calls, inner = tiny_vlm(), [], VLM.decode_layers

    def broken(self, x, *args, **kw):
        hidden = inner(self, x, *args, **kw)
        calls.append(1)
        if len(calls) == 7:
            hidden[-1] = torch.nan
        return hidden

    monkeypatch.setattr(VLM, "decode_layers", broken)
    with pytest.raises(NotFinite, match="log-probs of token 7"):
        sampled(vlm, tiny_prompts(vlm, 2), 2, 30)
    calls.clear()
    vlm.stop_ids = list(range(len(vlm.forbidden)))  # every row has finished at its first token
    rolls = sampled(vlm, tiny_prompts(vlm, 2), 2, 30)
    assert len(calls) < 7 and rolls.ids.shape[2] == 1


def test_texts_show_special_tokens_but_not_the_stop() -> None:
    vlm = tiny_vlm()
    answer = "<think>soft<|im_start|> light</think><answer>0.5</answer>"
    ids = torch.tensor(vlm.tokenizer(answer, add_special_tokens=False)["input_ids"])
    stopped = torch.cat([ids, torch.tensor(vlm.stop_ids[:1])])[None, None]
    whole = torch.ones_like(stopped, dtype=torch.bool)
    zero = torch.zeros(1, 1)
    for rolls in (Rollouts(stopped, whole, whole.float(), zero.bool()),
                  Rollouts(ids[None, None], whole[..., 1:], whole[..., 1:].float(), zero == 0)):
        assert rolls.answers(vlm)[0][0].text == answer
        vlm.opened = "<think>\n"
        assert rolls.answers(vlm)[0][0].text == "<think>\n" + answer
        vlm.opened = ""
    assert not format_ok(answer)
