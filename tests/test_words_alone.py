"""A question without a picture: the ids, logits and answers that transformers itself would make."""

import pytest
import torch
from kin import KIN, tiny_kin
from tiny import pictures

from nanoaes.rollout import Rollouts, rollout
from nanoaes.vlm import VLM

QUESTIONS = ["Judge this photograph.", "The light is soft and the sky is wide. Judge.", "Judge."]


@pytest.fixture(scope="module", params=KIN)
def vlm(request) -> VLM:
    """With weights so large that its answers differ between questions."""
    vlm = tiny_kin(request.param, seed=3, scale=8)
    vlm.stop_ids = [vlm.stop_ids[0], *range(60, 400, 6)]
    return vlm


def greedy(vlm: VLM, images: list, texts: list[str]) -> list[list[int]]:
    rolls: Rollouts = rollout(vlm, vlm.prompts(images, texts), k=1, max_new_tokens=12,
                              temperature=0)
    return [ids[m].tolist() for ids, m in zip(rolls.ids[:, 0], rolls.mask[:, 0], strict=True)]


def plain(vlm: VLM, text: str) -> torch.Tensor:
    """(1, P) ids of the turn as it is written."""
    turn = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return vlm.tokenizer(turn, return_tensors="pt", add_special_tokens=False)["input_ids"]


def test_a_prompt_is_the_turn_and_nothing_else(vlm: VLM) -> None:
    prompts = vlm.prompts([None] * 3, QUESTIONS)
    for i, text in enumerate(QUESTIONS):
        ids, n = plain(vlm, text)[0], int(prompts.mask[i].sum())
        assert prompts.ids[i, :n].tolist() == ids.tolist()
        assert torch.equal(prompts.positions[:, i, :n], torch.arange(n).expand(3, -1))
        assert prompts.next_position[i] == n
    assert len(prompts.pixels) == 0 and prompts.grid.tolist() == [[0, 0, 0]] * 3
    part = prompts.select(torch.tensor([2, 0]))
    assert part.ids[0, : int(part.mask[0].sum())].tolist() == plain(vlm, "Judge.")[0].tolist()


def test_logits_equal_transformers(vlm: VLM) -> None:
    answer = torch.arange(70, 76)
    for text in QUESTIONS:
        ids = plain(vlm, text)
        whole = torch.cat([ids, answer[None]], dim=1)
        with torch.no_grad():
            theirs = vlm.hf(input_ids=whole, attention_mask=torch.ones_like(whole)).logits
            hidden = vlm.hidden(vlm.prompts([None], [text]), answer[None, None],
                                torch.ones(1, 1, 6, dtype=torch.bool))
        torch.testing.assert_close(hidden @ vlm.head.T, theirs[0, ids.shape[1] - 1 : -1],
                                   rtol=1e-4, atol=1e-3)


def test_greedy_answers_equal_transformers_generate(vlm: VLM) -> None:
    texts = [f"{a} {b}" for a in QUESTIONS for b in ("", "It is dark.", "Why? Write a word.")]
    ours = greedy(vlm, [None] * 9, texts)
    for text, answer in zip(texts, ours, strict=True):
        ids = plain(vlm, text)
        out = vlm.hf.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12,
            do_sample=False, eos_token_id=vlm.stop_ids, pad_token_id=vlm.pad_id,
            suppress_tokens=vlm.forbidden.nonzero().flatten().tolist())
        assert out[0, ids.shape[1] :].tolist() == answer
    assert len({len(answer) for answer in ours}) > 2, "the test does not apply"


def test_questions_with_and_without_a_picture_stand_beside_each_other(vlm: VLM) -> None:
    images = pictures(3)
    mixed, texts = [None, images[0], None, images[1], images[2]], (QUESTIONS * 2)[:5]
    alone = [greedy(vlm, [image], [text])[0] for image, text in zip(mixed, texts, strict=True)]
    shown, visual = [], vlm.hf.model.visual
    hook = visual.register_forward_pre_hook(
        lambda tower, args, options: shown.append(options["grid_thw"].clone()), with_kwargs=True)
    assert greedy(vlm, mixed, texts) == alone
    hook.remove()
    assert torch.equal(torch.cat(shown), vlm.prompts(images).grid)
    without = [greedy(vlm, [None], [text])[0] for text in texts]
    assert sum(a != b for a, b in zip(alone, without, strict=True)) >= 2, "pictures are not seen"


def test_a_template_that_shows_a_picture_where_there_is_none_is_an_error(monkeypatch) -> None:
    vlm = tiny_kin("qwen2_5")
    monkeypatch.setattr(vlm, "chat", lambda text, picture=True: f"<|image_pad|>{text}")
    with pytest.raises(ValueError, match="1 image tokens, the picture has 0"):
        vlm.prompts([None], ["Judge."])
