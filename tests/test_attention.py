"""A shared prompt changes nothing: log-probs, gradients and samples are those of separate rows."""

import pytest
import torch
from kin import KIN, exact_rotary, gradients, tiny_kin
from tiny import pictures, ragged
from torch import Tensor

from nanoaes.attention import PackedRows, SharedKV, _scores
from nanoaes.rollout import rollout
from nanoaes.sampling import uniforms
from nanoaes.vlm import VLM

QUESTIONS = ["Judge this photograph.", "Describe this photograph.", "Judge."]


def separate_logprobs(vlm: VLM, ids: Tensor, mask: Tensor) -> Tensor:
    """Every completion in its own row, through transformers' own forward with its own head."""
    rows = []
    for i, image in enumerate(pictures(len(ids))):
        one = vlm.prompts([image], [QUESTIONS[i]])
        for answer in (row[m] for row, m in zip(ids[i], mask[i], strict=True)):
            whole = torch.cat([one.ids[0], answer])[None]
            logits = vlm.hf(input_ids=whole, attention_mask=torch.ones_like(whole),
                            pixel_values=one.pixels, image_grid_thw=one.grid,
                            mm_token_type_ids=(whole == vlm.image_id).int()).logits
            logits = logits[0, one.ids.shape[1] - 1 : -1].masked_fill(vlm.forbidden, -torch.inf)
            rows.append(logits.log_softmax(-1).gather(1, answer[:, None])[:, 0])
    return torch.cat(rows)


def shared_logprobs(vlm: VLM, ids: Tensor, mask: Tensor) -> Tensor:
    prompts = vlm.prompts(pictures(len(ids)), QUESTIONS[: len(ids)])
    return vlm(prompts, ids, mask)[0]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kin, k", [("qwen2_5", k) for k in range(1, 9)]
                         + [("qwen2", 3), ("qwen3", 3)])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_shared_prompt_equals_separate_rows(monkeypatch, kin: str, k: int, checkpointing: bool,
                                            dtype: torch.dtype, tolerance: float) -> None:
    """Ragged prompts, pictures and completions; all parameters, the vision tower's too."""
    vlm = tiny_kin(kin, dtype)
    if dtype == torch.float64:
        exact_rotary(monkeypatch, vlm)
    ids, mask = ragged(vlm, 3, k, 7)
    want = separate_logprobs(vlm, ids, mask)
    want_grad = gradients(vlm, [want])
    if checkpointing:
        vlm.checkpoint()
    got = shared_logprobs(vlm, ids, mask)
    got_grad = gradients(vlm, [got])
    assert ((got - want).norm() / want.norm()).item() < tolerance
    assert got_grad.keys() == want_grad.keys()
    for name, g in want_grad.items():
        assert ((got_grad[name] - g).norm() / g.norm()).item() < tolerance, name


def test_the_example_in_the_docstring() -> None:
    mask = torch.tensor([[[1, 1, 1], [1, 0, 0]]]).bool()
    rows = PackedRows(torch.ones(1, 2, dtype=torch.bool), mask, 1)
    for name, value in {"slot_of_packed": [[0, 1, 2, 3]],
                        "place_of_slot": [[2, 3, 4], [5, 5, 5]],
                        "place_of_key": [[0, 1, 2, 3, 4], [0, 1, 5, 5, 5]],
                        "step": [[0, 1, 2, 0]], "predictor": [1, 2, 3, 1]}.items():
        assert getattr(rows, name).tolist() == value
        line = next(x for x in PackedRows.__doc__.splitlines() if x.strip().startswith(name))
        assert f" {value} " in line, name


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_prompt_then_answers_one_after_another(seed: int) -> None:
    """Against lists; the mask's last columns are nobody's, prompts are ragged."""
    generator = torch.Generator().manual_seed(seed)
    n, k, t, p = 3, 4, 6, 5
    prompt = torch.arange(p) < torch.randint(1, p + 1, (n, 1), generator=generator)
    mask = torch.arange(t) < torch.randint(1, t - 1, (n, k, 1), generator=generator)
    ids = torch.arange(n * k * t).view(n, k, t)  # every token is its own name
    rows = PackedRows(prompt, mask, 1)
    words = rows.words(ids)
    length, expect = p + words.shape[1], []
    for i in range(n):
        answers = [row[m].tolist() for row, m in zip(ids[i], mask[i], strict=True)]
        real = [word for answer in answers for word in answer]
        assert words[i, : len(real)].tolist() == real
        assert rows.step[i, : len(real)].tolist() == [j for a in answers for j in range(len(a))]
        place = i * length + p
        for j, answer in enumerate(answers):
            row, end = i * k + j, place + len(answer)
            assert rows.place_of_slot[row, : len(answer)].tolist() == list(range(place, end))
            assert rows.place_of_key[row, : p + len(answer)].tolist() == [
                *range(i * length, i * length + p), *range(place, end)]
            expect += [i * length + int(prompt[i].sum()) - 1, *range(place, end - 1)]
            place = end
    assert words.shape[1] == int(mask.sum((1, 2)).max())
    assert rows.predictor.tolist() == expect and len(expect) == int(mask.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autograd_keeps_one_mask_for_all_layers(dtype: torch.dtype) -> None:
    vlm = tiny_kin("qwen2_5", dtype)
    prompts, (ids, mask) = vlm.prompts(pictures(3), QUESTIONS), ragged(vlm, 3, 4, 7)
    keys, masks = prompts.ids.shape[1] + int(mask.sum(2).max()), []

    def keep(x: Tensor) -> Tensor:
        if x.dtype.is_floating_point and x.shape[-1] == keys:
            masks.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        vlm(prompts, ids, mask)
    assert len(masks) == 4 and {x.dtype for x in masks} == {dtype}  # one of each layer's call
    assert len({x.untyped_storage().data_ptr() for x in masks}) == 1
    assert keys % 8 and all(stride % 8 == 0 for stride in masks[0].stride()[:-1])
    assert {0.0, -torch.inf} == set(masks[0].unique().tolist())


def test_checkpointing_makes_no_second_mask(monkeypatch) -> None:
    vlm, made = tiny_kin("qwen2_5"), []
    make = PackedRows._bias
    monkeypatch.setattr(PackedRows, "_bias", lambda rows, dtype: made.append(make(rows, dtype))
                        or made[-1])
    vlm.checkpoint()
    gradients(vlm, [shared_logprobs(vlm, *ragged(vlm, 3, 4, 7))])
    assert len(made) == 1


def generate(vlm: VLM, images, texts: list[str], room: int) -> list[list[int]]:
    """transformers' greedy answers, one batch, padded on the left as it wants it."""
    prompts = vlm.prompts(images, texts)
    n, p = prompts.ids.shape
    place = torch.arange(p) + prompts.mask.sum(1, keepdim=True)  # rolls the padding to the front
    ids, mask = prompts.ids.gather(1, place % p), prompts.mask.gather(1, place % p)
    out = vlm.hf.generate(
        input_ids=ids, attention_mask=mask.long(), pixel_values=prompts.pixels,
        image_grid_thw=prompts.grid, mm_token_type_ids=(ids == vlm.image_id).int(),
        max_new_tokens=room, do_sample=False, eos_token_id=vlm.stop_ids, pad_token_id=vlm.pad_id,
        suppress_tokens=vlm.forbidden.nonzero().flatten().tolist())[:, p:]
    stop = torch.isin(out, torch.tensor(vlm.stop_ids)).int()
    kept = stop.cumsum(1) - stop == 0
    return [row[m].tolist() for row, m in zip(out, kept, strict=True)]


@pytest.mark.parametrize("kin, n", [("qwen2", 24), ("qwen2_5", 208), ("qwen3", 24)])
def test_greedy_equals_transformers_generate(kin: str, n: int) -> None:
    vlm = tiny_kin(kin, seed=3, scale=8)
    vlm.stop_ids = [vlm.stop_ids[0], *range(60, 400, 6)]
    images, texts = pictures(n), [QUESTIONS[i % 3] for i in range(n)]
    ours = rollout(vlm, vlm.prompts(images, texts), k=1, max_new_tokens=16, temperature=0)
    theirs = generate(vlm, images, texts, 16)
    assert [ids[m].tolist() for ids, m in zip(ours.ids[:, 0], ours.mask[:, 0], strict=True)
            ] == theirs
    assert len({len(row) for row in theirs}) > 5, "rows finish together: the test does not apply"
    assert len(set(map(tuple, theirs))) > n // 2, "equal answers: the test does not apply"


@pytest.mark.parametrize("kin", KIN)
def test_rows_that_leave_change_no_other(monkeypatch, kin: str) -> None:
    """Log-probs kept while images and rows leave are the training pass's."""
    vlm, sizes = tiny_kin(kin), []
    keep = SharedKV.keep
    monkeypatch.setattr(SharedKV, "keep", lambda kv, *args: (keep(kv, *args),
                                                             sizes.append((kv.n, kv.k))))
    vlm.stop_ids = [vlm.stop_ids[0], *range(60, 120)]
    prompts = vlm.prompts(pictures(6), QUESTIONS * 2)
    rolls = rollout(vlm, prompts, k=6, max_new_tokens=40, temperature=1.2,
                    uniform=uniforms(1, 0, range(6), 6, 40))
    assert {n for n, _ in sizes} > {6} and min(k for _, k in sizes) < 4, sizes
    logp, _ = vlm(prompts, rolls.ids, rolls.mask, 1.2)
    torch.testing.assert_close(rolls.logp[rolls.mask], logp, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_scores_are_never_rounded_to_16_bits(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 3, n, 16, generator=generator).to(dtype) for n in (4, 5))
    got, exact = _scores(query, key), query.double() @ key.double().mT
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)


def test_the_prompt_is_stored_once_and_keys_are_never_repeated() -> None:
    vlm = tiny_kin("qwen2_5")
    prompts = vlm.prompts(pictures(3), QUESTIONS)
    kv = SharedKV((3, prompts.ids.shape[1], 3 * 4, 10), vlm.device)
    kv.start(prompts.mask, 4)
    kv.fill(torch.arange(3))
    x, deepstack = vlm.embed(prompts, prompts.ids[:, :0])
    vlm.decode_layers(x, prompts.positions, kv, **deepstack)
    assert len(kv.prompt) == len(kv.own) == 4
    assert kv.prompt[0][0].shape == (3, 2, prompts.ids.shape[1], 16)  # N, key heads, P, D
    assert kv.own[0][0].numel() == 3 * 4 * 2 * 10 * 16
