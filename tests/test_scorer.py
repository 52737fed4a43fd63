"""Scorer: the same picture has the same score and critique, however it comes and with what."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from kin import tiny_kin
from PIL import Image
from tiny import pictures
from torch import Tensor, nn

from nanoaes import readout
from nanoaes.errors import UserError
from nanoaes.images import DataError, load_image
from nanoaes.prompt import parse_score
from nanoaes.rollout import Rollouts, rollout
from nanoaes.scorer import Scorer, as_rgb
from nanoaes.vlm import VLM

ROOM = 10
WAYS = [("greedy", 0), ("expect", 0), ("direct", 0), ("greedy", 3), ("expect", 3)]


def ended(vlm: VLM, prompts, **options) -> Rollouts:
    """What the untrained model says in fact, then a number made of it: every third is unreadable.

    Only so has it a score that depends on the picture and, if sampled, on the random numbers.
    """
    rolls = rollout(vlm, prompts, **options)
    (n, k), rows = rolls.truncated.shape, []
    for ids, mask in zip(rolls.ids.flatten(0, 1), rolls.mask.flatten(0, 1), strict=True):
        said = ids[mask].tolist()[:-1]
        end = f"</think><answer>{sum(said) % 89 / 100:.2f}" + "</answer>" * (sum(said) % 3 > 0)
        rows.append([*said, *vlm.tokenizer(end)["input_ids"], vlm.stop_ids[0]])
    ids, mask = (nn.utils.rnn.pad_sequence([f(torch.tensor(row)) for row in rows], True)
                 .unflatten(0, (n, k)) for f in (lambda x: x, lambda x: x >= 0))
    return Rollouts(ids, mask, torch.zeros(ids.shape), torch.zeros_like(rolls.truncated))


@pytest.fixture(scope="module")
def vlm() -> VLM:
    """With weights so large that its greedy answers differ between pictures."""
    vlm = tiny_kin("qwen2_5", seed=3, scale=8)
    vlm.asking = dataclasses.replace(vlm.asking, prompt="Judge.", max_new_tokens=ROOM)
    return vlm


@pytest.fixture
def answering(vlm: VLM, monkeypatch) -> VLM:
    monkeypatch.setattr(readout, "rollout", ended)
    return vlm


@pytest.mark.parametrize("name, samples", WAYS)
def test_a_picture_has_one_score_in_any_company(answering: VLM, name: str, samples: int) -> None:
    album = pictures(7)
    alone = [Scorer(answering, name, samples)([image])[0] for image in album]
    assert len({one.score for one in alone}) > 3
    for tokens in (1, 4, 10_000):  # one picture at once, a few, all
        scorer = Scorer(answering, name, samples, tokens=tokens)
        assert scorer(album) == alone and scorer(album[::-1]) == alone[::-1]
        assert scorer([album[3], album[1], album[3]]) == [alone[3], alone[1], alone[3]]
    assert (name == "direct") == all(one.critique == "" for one in alone)
    if samples:
        spreads = [one.std for one in alone if one.score is not None]
        assert 0 <= min(spreads) < max(spreads) < 0.5
        assert Scorer(answering, name, samples, seed=1)(album) != alone
    else:
        assert all(one.std is None for one in alone)


def test_scores_are_numbers_with_nan_for_the_unreadable(answering: VLM) -> None:
    scorer = Scorer(answering, "greedy")
    told, scores = scorer(pictures(7)), scorer.scores(pictures(7))
    assert scores.shape == (7,) and scores.dtype == torch.float32 and not scores.requires_grad
    for one, score in zip(told, scores.tolist(), strict=True):
        assert one.score == parse_score(one.text)
        assert math.isnan(score) if one.score is None else score == pytest.approx(one.score)
    assert 0 < scores.isnan().sum() < 7
    assert scorer([]) == [] and scorer.scores([]).shape == (0,)


def test_a_picture_comes_as_a_path_an_image_or_a_tensor(answering: VLM, tmp_path: Path) -> None:
    image = pictures(1)[0]
    image.save(tmp_path / "a.png")
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
    sideways = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[274] = 6  # turn it back
    sideways.save(tmp_path / "b.png", exif=exif)
    with Image.open(tmp_path / "b.png") as turned:
        given = [tmp_path / "a.png", str(tmp_path / "a.png"), image, image.convert("RGBA"), tensor,
                 tensor.double().requires_grad_(), turned]
        assert all(np.array_equal(as_rgb(x), np.asarray(image)) for x in given)
        assert len(set(Scorer(answering)(given))) == 1
    assert Scorer(answering)(tensor[None]) == Scorer(answering)([image])
    clear = Image.new("RGBA", (30, 30), (0, 0, 0, 0))
    assert np.asarray(as_rgb(clear)).min() == 255
    clear.save(tmp_path / "c.png")
    assert np.array_equal(as_rgb(clear), load_image(tmp_path / "c.png"))


@pytest.mark.parametrize("given, message", [
    (torch.rand(30, 30, 3), r"shape \(30, 30, 3\)"), (torch.zeros(2, 3, 30, 30), "shape"),
    (torch.zeros(3, 30, 30, dtype=torch.uint8), "torch.uint8; give"),
    (torch.rand(3, 30, 30) * 2 - 1, "give .0, 1., such as"),
    (torch.full((3, 30, 30), torch.nan), "values from nan")])
def test_a_tensor_that_is_no_picture_is_refused(vlm: VLM, given: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scorer(vlm)([given])


def test_refusals_name_what_is_wrong(vlm: VLM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is one path; give a list"):
        Scorer(vlm)("a.png")
    with pytest.raises(DataError, match="gone.png"):
        Scorer(vlm)([tmp_path / "gone.png"])
    with pytest.raises(UserError, match="use one of greedy"):
        Scorer(vlm, "mean")


def test_a_folder_is_asked_as_it_says_or_as_it_is_told(vlm: VLM, tmp_path: Path) -> None:
    vlm.save(tmp_path / "model")
    image = pictures(1)
    same = Scorer(tmp_path / "model", "direct", device="cpu")
    assert same(image) == Scorer(vlm, "direct")(image)
    other = Scorer(str(tmp_path / "model"), "direct", device="cpu", dtype=torch.bfloat16,
                   prompt="Is it good?", score_range=(1, 5), max_new_tokens=7)
    asking = other.vlm.asking
    assert (asking.prompt, asking.score_range, asking.max_new_tokens) == ("Is it good?", (1, 5), 7)
    assert other.vlm.hf.dtype == torch.bfloat16
    assert other(image) != same(image)
    other.vlm.save(tmp_path / "other")
    assert VLM.load(tmp_path / "other", device="cpu").asking == asking
    with pytest.raises(ValueError, match="scores from 5 to 1; use 0 <= LO < HI <= 100"):
        Scorer(tmp_path / "model", score_range=(5, 1))
    for mark in ("<|image_pad|>", "<|im_end|>"):
        with pytest.raises(UserError, match=f"holds {mark.replace('|', '.')}, a mark"):
            Scorer(tmp_path / "model", prompt=f"See {mark} this.")


def test_a_model_in_training_stays_so(answering: VLM) -> None:
    """And is read as one that is not: without checkpointing."""
    want = {name: Scorer(answering, name)(pictures(2)) for name in ("expect", "direct")}
    answering.checkpoint()
    try:
        for name, scores in want.items():
            assert Scorer(answering, name)(pictures(2)) == scores and answering.training
    finally:
        answering.eval()
        for block in answering.blocks:
            block.gradient_checkpointing = False
