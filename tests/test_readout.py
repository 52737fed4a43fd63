"""How a score is read out, against transformers' own forward over every whole reply."""

import copy
import dataclasses
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kin import KIN, tiny_kin
from PIL import Image
from tiny import pictures
from tokenizers import AddedToken
from torch import Tensor, nn

from nanoaes import readout
from nanoaes.errors import NotFinite, UserError
from nanoaes.prompt import stated
from nanoaes.readout import Form, Reading, Score, boundary, candidates, direct, expect, read
from nanoaes.rollout import Rollouts, rollout
from nanoaes.tree import continuations
from nanoaes.vlm import VLM

CRITIQUE = "<think>soft light.</think>"


def made(kin: str = "qwen2_5") -> VLM:
    """In fp64, and with weights so large that the numbers' probabilities differ."""
    vlm = tiny_kin(kin, torch.float64, scale=4)
    vlm.asking = dataclasses.replace(vlm.asking, prompt="Judge.", max_new_tokens=48,
                                     min_pixels=3136)
    return vlm


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return made()


def ids_of(vlm: VLM, text: str) -> list[int]:
    return vlm.tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def plain(vlm: VLM, image: Image.Image, rows: list[list[int]]) -> Tensor:
    """(K,) log-probs of whole rows behind the prompt, by transformers' forward and head."""
    prompt, out = vlm.prompts([image]), []
    for i in range(0, len(rows), 64):
        tails = [torch.tensor(row) for row in rows[i : i + 64]]
        whole = nn.utils.rnn.pad_sequence([torch.cat([prompt.ids[0], t]) for t in tails], True)
        k, start = len(whole), prompt.ids.shape[1] - 1
        mask = torch.tensor([[j <= start + len(t) for j in range(whole.shape[1])] for t in tails])
        logits = vlm.hf(input_ids=whole, attention_mask=mask.long(),
                        pixel_values=prompt.pixels.repeat(k, 1), image_grid_thw=prompt.grid.repeat(
                            k, 1), mm_token_type_ids=(whole == vlm.image_id).int()).logits
        logp = logits[:, start:-1].masked_fill(vlm.forbidden, -torch.inf).log_softmax(-1)
        logp = logp.gather(2, whole[:, start + 1 :, None])[..., 0].double()
        out.append((logp * mask[:, start + 1 :]).sum(1))
    return torch.cat(out)


def by_hand(vlm: VLM, image: Image.Image, before: str, after: str, *, low: str = "0",
            high: str = "1", most: int = 2, like: str = "0.62") -> float:
    """E from every whole reply `before` + number + `after`, low and high as they are written."""
    rows, scores = [], []
    for decimals in range(most + 1):
        step, x = Decimal(1).scaleb(-decimals), Decimal(low).quantize(Decimal(1).scaleb(-decimals))
        while x <= Decimal(high):
            if x >= Decimal(low):
                number = f"{x:.{decimals}f}"
                number = number[1:] if like[0] == "." and number[:2] == "0." else number
                number = number.replace(".", ",") if "," in like else number
                ids = ids_of(vlm, before + number + after)
                if decimals == most:  # whatever follows
                    long = [len(vlm.tokenizer.decode(ids[:n])) for n in range(len(ids) + 1)]
                    end = len(before + number)
                    ids = ids[: next(n for n, seen in enumerate(long) if seen >= end)]
                rows.append(ids)
                scores.append((x - Decimal(low)) / (Decimal(high) - Decimal(low)))
            x += step
    p = plain(vlm, image, rows).softmax(0)
    return float(p @ torch.tensor([float(s) for s in scores], dtype=torch.float64))


def expected(vlm: VLM, image: Image.Image, reply: str) -> float | None:
    """`expect` of a reply as the tokenizer writes it."""
    found = stated(reply, vlm.asking.score_range)
    return expect(vlm, vlm.prompts([image]), [*ids_of(vlm, reply), vlm.stop_ids[0]], found)


@pytest.mark.parametrize("kin", KIN)
def test_a_tree_gives_the_log_probs_of_every_row_alone(kin: str) -> None:
    vlm, image = made(kin), pictures(2)[1]
    rows = [[5], [6, 7], [6, 8, 9, 9], [6, 8, 9, 10], [11, 5, 5]]
    got = continuations(vlm, vlm.prompts([image]), rows)
    assert got.dtype == torch.float64 and got.shape == (5,)
    torch.testing.assert_close(got, plain(vlm, image, rows), atol=1e-5, rtol=0)
    assert len(set(got.tolist())) == 5


@pytest.mark.parametrize("kin", KIN)
def test_an_expectation_is_that_over_all_whole_replies(kin: str) -> None:
    vlm, found = made(kin), []
    for image in pictures(2):
        found.append(expected(vlm, image, CRITIQUE + "<answer>0.62</answer>"))
        want = by_hand(vlm, image, CRITIQUE + "<answer>", "</answer>")
        assert found[-1] == pytest.approx(want, abs=1e-6)
    assert abs(found[0] - found[1]) > 1e-3


@pytest.mark.parametrize("before, number, after, span", [
    ("", "0,62", "", ("0", "1", 2)),
    ("", ".62", "", ("0", "1", 2)),
    ("\n Rating: ", "1", ".\n", ("0", "1", 2)),  # "1." and then no digit
    ("", "3", "/5", ("0", "5", 2)),
    ("", "0.625", "", ("0", "1", 2)),  # counts as 0.62
])
def test_numbers_are_varied_in_the_form_that_the_reply_has(vlm: VLM, before: str, number: str,
                                                           after: str, span: tuple) -> None:
    image, head = pictures(1)[0], CRITIQUE + "<answer>" + before
    low, high, most = span
    got = expected(vlm, image, head + number + after + "</answer>")
    want = by_hand(vlm, image, head, after + "</answer>", low=low, high=high, most=most,
                   like=number)
    assert got == pytest.approx(want, abs=1e-6)
    assert abs(got - expected(vlm, image, CRITIQUE + "<answer>0.62</answer>")) > (
        2e-5 if number != "0.625" else -1)


@pytest.mark.parametrize("low, high, most, number", [
    ("1", "5", 2, "4"), ("0.2", "1", 2, "0.5"), ("0", "20", 1, "17.25")])
def test_another_range_has_its_own_numbers(low: str, high: str, most: int, number: str) -> None:
    vlm, image = made(), pictures(1)[0]
    vlm.asking = dataclasses.replace(vlm.asking, score_range=(float(low), float(high)))
    got = expected(vlm, image, f"{CRITIQUE}<answer>{number}</answer>")
    want = by_hand(vlm, image, CRITIQUE + "<answer>", "</answer>", low=low, high=high, most=most)
    assert got == pytest.approx(want, abs=1e-6)


def test_what_counts_by_more_than_a_hundred_is_unreadable(vlm: VLM) -> None:
    reply = CRITIQUE + "<answer>{}</answer>"
    assert stated(reply.format("85/101")).score == 85 / 101
    assert expected(vlm, pictures(1)[0], reply.format("85/101")) is None
    assert expected(vlm, pictures(1)[0], reply.format("85%")) is not None


def test_all_numbers_of_a_range_once(vlm: VLM) -> None:
    for form, count in ((Form("", "<", 0.0, 1.0), 2 + 11 + 101),
                        (Form("", "<", 1.0, 5.0), 5 + 41 + 401),
                        (Form("", "<", 0.29, 0.57), 0 + 3 + 29),
                        (Form("", "<", 0.0, 100.0), 101 + 1001)):
        rows, scores = candidates(vlm.tokenizer, form)
        texts = [vlm.tokenizer.decode(row) for row in rows]
        assert len(rows) == len(scores) == len(set(texts)) == count
        assert scores.min() >= 0 and scores.max() <= 1
        starts = [a for a in texts for b in texts if a != b and b.startswith(a)]
        assert not starts  # no reply begins with two of them
        for text, score in zip(texts, scores.tolist(), strict=True):
            value = float(text.removesuffix("<"))
            assert (value - form.low) / (form.high - form.low) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("words", [
    ["<answer>0"], ["<answer>0."], ["2</answer>"], ["light.</think><answer>"],
    ["light.</think><answer>0.6", "1</", "0</answer>"]])
def test_a_token_may_reach_over_the_seam(words: list[str]) -> None:
    """Of a tag and a digit, of a critique and a tag, of a digit and a tag."""
    old, image = made(), pictures(1)[0]
    tokenizer = copy.deepcopy(old.tokenizer)
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    vlm = VLM(old.hf, tokenizer, old.stop_ids, old.asking).eval()
    reply = CRITIQUE + "<answer>0.62</answer>"
    assert ids_of(vlm, reply) != ids_of(old, reply)
    want = by_hand(vlm, image, CRITIQUE + "<answer>", "</answer>")
    assert expected(vlm, image, reply) == pytest.approx(want, abs=1e-6)


def test_a_border_lies_between_whole_characters() -> None:
    """A token may end in the middle of one; what it decodes to is not in the text."""
    texts = ["", "a", "a\ufffd", "a\u00e9<answer>", "a\u00e9<answer>1"]
    vlm = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda ids: texts[len(ids)]))
    assert boundary(vlm, [0, 1, 2, 3], "a\u00e9<answer>") == (1, "a")


def test_direct_is_an_expectation_behind_an_empty_critique(vlm: VLM) -> None:
    found = []
    for image in pictures(2):
        found.append(direct(vlm, vlm.prompts([image])))
        want = by_hand(vlm, image, "<think></think><answer>", "</answer>")
        assert found[-1] == pytest.approx(want, abs=1e-6)
    assert found[0] != found[1]


def test_a_thinking_models_template_has_opened_the_critique() -> None:
    vlm, image = made(), pictures(1)[0]
    vlm.tokenizer = copy.deepcopy(vlm.tokenizer)
    vlm.tokenizer.chat_template += "{{ '<think>\\n' }}"
    vlm = VLM(vlm.hf, vlm.tokenizer, vlm.stop_ids, vlm.asking).eval()
    assert vlm.opened == "<think>\n"
    want = by_hand(vlm, image, "</think><answer>", "</answer>")
    assert direct(vlm, vlm.prompts([image])) == pytest.approx(want, abs=1e-6)
    rest = "soft light.</think><answer>"
    found = stated(vlm.opened + rest + "0.62</answer>")
    got = expect(vlm, vlm.prompts([image]), ids_of(vlm, rest + "0.62</answer>"), found)
    assert got == pytest.approx(by_hand(vlm, image, rest, "</answer>"), abs=1e-6)


def test_broken_weights_are_told(vlm: VLM) -> None:
    broken = copy.deepcopy(vlm)
    broken.hf.model.language_model.norm.weight.data[3] = torch.nan
    with pytest.raises(NotFinite, match="log-probs of a score"):
        direct(broken, broken.prompts(pictures(1)))


def scripted(vlm: VLM, replies: list[list[str]], monkeypatch) -> dict:
    """Rollouts are these; returns what was asked of them."""
    asked = {}

    def told(vlm: VLM, prompts, **options) -> Rollouts:
        asked.update(options)
        rows = [[torch.tensor([*ids_of(vlm, reply), *[vlm.stop_ids[0]] * (reply[-1:] == ">")])
                 for reply in of_one] for of_one in replies]
        longest = max(len(row) for of_one in rows for row in of_one)
        ids = torch.full((len(rows), len(rows[0]), longest), vlm.pad_id)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for i, of_one in enumerate(rows):
            for j, row in enumerate(of_one):
                ids[i, j, : len(row)], mask[i, j, : len(row)] = row, True
        cut = torch.tensor([[reply[-1:] != ">" for reply in of_one] for of_one in replies])
        return Rollouts(ids, mask, torch.zeros(ids.shape), cut)

    monkeypatch.setattr(readout, "rollout", told)
    return asked


def test_what_cannot_be_read_has_no_score(vlm: VLM, monkeypatch) -> None:
    """Cut in the critique, without a number, with two; however it is read."""
    good = CRITIQUE + "<answer>0.62</answer>"
    replies = ["<think>soft light", CRITIQUE + "<answer>good</answer>", good + good, good]
    scripted(vlm, [[reply] for reply in replies], monkeypatch)
    greedy = read(vlm, pictures(4), range(4), Reading())
    assert [one.score for one in greedy] == [None, None, None, 0.62]
    assert [one.cut for one in greedy] == [True, False, False, False]
    assert greedy[3].critique == "soft light."
    by_mean = read(vlm, pictures(4), range(4), Reading("expect"))
    assert [one.text for one in by_mean] == [one.text for one in greedy] == replies
    want = by_hand(vlm, pictures(4)[3], CRITIQUE + "<answer>", "</answer>")
    assert [one.score for one in by_mean] == [None, None, None, pytest.approx(want, abs=1e-6)]
    assert all(one.std is None for one in greedy + by_mean)
    assert read(vlm, pictures(4), range(4), Reading("direct"))[0] == Score(
        pytest.approx(by_hand(vlm, pictures(4)[0], "<think></think><answer>", "</answer>")), "")


@pytest.mark.parametrize("name", ["greedy", "expect"])
def test_samples_have_a_mean_and_a_spread(vlm: VLM, monkeypatch, name: str) -> None:
    texts = [f"<think>{word}</think><answer>{number}</answer>" for word, number in (
        ("soft", "0.10"), ("hard", "0.90"), ("light", "none"), ("deep", "0.60"))]
    asked = scripted(vlm, [texts, [texts[2]] * 4], monkeypatch)
    images = pictures(2)
    one, other = read(vlm, images, range(2), Reading(name, samples=4, seed=3))
    assert asked["k"] == 4 and asked["temperature"] == 1.0
    assert asked["uniform"].shape == (2, 4, vlm.asking.max_new_tokens)
    known = [0.1, 0.9, 0.6] if name == "greedy" else [
        expected(vlm, images[0], texts[i]) for i in (0, 1, 3)]
    assert one.score == pytest.approx(np.mean(known), abs=1e-6)
    assert one.std == pytest.approx(np.std(known), abs=1e-6)
    nearest = int(np.argmin(np.abs(np.array(known) - np.mean(known))))
    assert one.text == texts[(0, 1, 3)[nearest]]
    assert (other.score, other.std, other.text) == (None, None, texts[2])


def test_samples_are_drawn_and_one_answer_is_greedy(vlm: VLM) -> None:
    """Untrained: nothing can be read, but what is written is what rollout writes."""
    images = pictures(2)
    (first,) = rollout(vlm, vlm.prompts(images[:1]), k=1, max_new_tokens=48,
                       temperature=0).answers(vlm)[0]
    texts = {reading: [one.text for one in read(vlm, images, (4, 5), reading)] for reading in (
        Reading(), Reading("expect"), Reading(samples=1), Reading(samples=1, seed=1),
        Reading(temperature=1.0))}
    assert texts[Reading()][0] == first.text and texts[Reading("expect")] == texts[Reading()]
    assert texts[Reading(samples=1)] == texts[Reading(temperature=1.0)]
    assert len({tuple(t) for t in texts.values()}) == 3


@pytest.mark.parametrize("options, message", [
    (dict(readout="mean"), "'mean': use one of greedy, expect, direct"),
    (dict(samples=-1), "-1 samples"),
    (dict(readout="direct", samples=2), "leave samples and temperature at 0"),
    (dict(readout="direct", temperature=1.0), "leave samples and temperature at 0")])
def test_what_no_picture_can_be_read_by_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Reading(**options)
