"""The cold start trains the answer and its stop token, nothing else, however it is split."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import pictures, tiny_vlm

import train_sft
from nanoaes import ahead
from nanoaes.checkpoint import read_rows
from nanoaes.config import SFTConfig
from nanoaes.resume import Saves
from nanoaes.rollout import rollout
from nanoaes.schedule import cosine
from nanoaes.sft import Lesson, completion_loss, encode_answers, fit

ANSWERS = ["<think>flat light</think><answer>0.21</answer>", "<answer>0.9</answer>",
           "<think>soft light, calm mood</think><answer>0.55</answer>"]
QUESTIONS = ["Judge this photograph.", "Judge.", "Describe this photograph."]


def test_answers_end_in_one_stop_token() -> None:
    vlm = tiny_vlm()
    ids, mask = encode_answers(vlm, ANSWERS)
    for row, m, answer in zip(ids[:, 0], mask[:, 0], ANSWERS, strict=True):
        assert row[m][-1] == vlm.stop_ids[0] and vlm.stop_ids[0] not in row[m][:-1]
        assert vlm.tokenizer.decode(row[m][:-1]) == answer


def test_loss_equals_transformers_own_loss_on_completion_tokens() -> None:
    """Prompt and padding carry none: labels are -100 there in transformers' loss."""
    vlm = tiny_vlm()
    vlm.forbidden[:] = False  # transformers' loss knows no forbidden words
    images = pictures(3)
    ids, mask = encode_answers(vlm, ANSWERS)
    total, n = 0.0, int(mask.sum())
    for i, image in enumerate(images):
        one = vlm.prompts([image], [QUESTIONS[i]])
        answer = ids[i, 0][mask[i, 0]]
        whole = torch.cat([one.ids[0], answer])[None]
        labels = torch.cat([torch.full_like(one.ids[0], -100), answer])[None]
        out = vlm.hf(input_ids=whole, attention_mask=torch.ones_like(whole), labels=labels,
                     pixel_values=one.pixels, image_grid_thw=one.grid,
                     mm_token_type_ids=(whole == vlm.image_id).int())
        total += out.loss.item() * len(answer)
    loss, entropy = completion_loss(vlm, vlm.prompts(images, QUESTIONS), ids, mask,
                                    n_tokens=n)
    torch.testing.assert_close(loss.item(), total / n, rtol=1e-5, atol=1e-6)
    assert 0 < entropy < torch.tensor(float(len(vlm.forbidden))).log()


def test_the_stop_token_is_learned() -> None:
    """After a few steps on one answer the model says it, and then stops."""
    vlm = tiny_vlm()
    lesson = Lesson(pictures(1)[0], QUESTIONS[0], ANSWERS[0])
    fit(vlm, lambda step: [lesson], steps=40, lr_at=lambda step: 2e-3, label="test")
    rolls = rollout(vlm, vlm.prompts([lesson.image], [lesson.question]), k=1, max_new_tokens=60,
                    temperature=0)
    assert rolls.answers(vlm)[0][0].text == ANSWERS[0] and not rolls.truncated.any()


def test_the_update_is_the_same_for_any_micro_batch() -> None:
    lessons = [Lesson(*x) for x in zip(pictures(3), QUESTIONS, ANSWERS, strict=True)]
    results = []
    for tokens in (1, 140, 10_000):  # one critique each, two, all
        vlm, rows = tiny_vlm(), []
        fit(vlm, lambda step: lessons, steps=2, lr_at=lambda step: 1e-3, label="test",
            tokens_per_micro_batch=tokens, log=rows.append)
        results.append((rows, torch.cat([p.detach().flatten() for p in vlm.parameters()])))
    for rows, weights in results[1:]:
        for a, b in zip(rows, results[0][0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        # Adam's first steps are ±lr: a gradient of rounding size may flip, nothing else
        assert ((weights - results[0][1]).abs() > 1e-4).float().mean() < 1e-3


def test_three_steps_are_those_of_a_plain_loop(monkeypatch) -> None:
    """The rate of each step, the limit of the norm, the decay; what is frozen has no share."""
    adam = torch.optim.AdamW  # its eps: a gradient of rounding size shall move nothing
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **kw: adam(
        *args, **{"eps": 1e-3, **kw}))
    ours, plain, rows, want = tiny_vlm(), tiny_vlm(), [], []
    lessons = [Lesson(*x) for x in zip(pictures(3), QUESTIONS, ANSWERS, strict=True)]
    rates = [2e-3, 1e-3, 3e-3]
    for vlm in (ours, plain):
        vlm.hf.model.visual.requires_grad_(False)
    fit(ours, lambda step: lessons[step:], steps=3, lr_at=rates.__getitem__, label="test",
        tokens_per_micro_batch=60, max_grad_norm=0.1, weight_decay=4.0, log=rows.append)
    trained = [p for p in plain.parameters() if p.requires_grad]
    optimizer = adam(trained, betas=(0.9, 0.98), eps=1e-3, weight_decay=4.0)
    for step, rate in enumerate(rates):
        ids, mask = encode_answers(plain, ANSWERS[step:])
        prompts = plain.prompts(pictures(3)[step:], QUESTIONS[step:])
        optimizer.zero_grad()
        loss, entropy = completion_loss(plain, prompts, ids, mask, n_tokens=int(mask.sum()))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 0.1)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        want.append({"step": step + 1, "loss": loss.item(), "entropy": entropy.item(),
                     "grad_norm": norm.item(), "lr": rate})
    for row, plainly in zip(rows, want, strict=True):
        assert row == pytest.approx(plainly, rel=1e-4) and row["grad_norm"] > 0.1
    for (name, a), b, c in zip(ours.named_parameters(), plain.parameters(),
                               tiny_vlm().parameters(), strict=True):
        assert (a - b).norm() <= 5e-3 * (b - c).norm(), name


def test_every_critique_comes_once_an_epoch_in_a_new_order(monkeypatch, tmp_path: Path) -> None:
    given: dict = {}
    monkeypatch.setattr(ahead, "load_image", lambda path: path)
    monkeypatch.setattr(train_sft, "fit", lambda vlm, lessons_at, **options: given.update(
        options, lessons=[lessons_at(step) for step in range(options["steps"])]))
    cfg = SFTConfig(epochs=3, batch=4, lr=0.5, weight_decay=0.1, max_grad_norm=0.2,
                    tokens_per_micro_batch=77, backend="torch")
    critiques = [(Path(str(i)), f"answer {i}") for i in range(10)]
    vlm = SimpleNamespace(asking=SimpleNamespace(prompt="Judge."), fit=lambda image: image)
    train_sft.train(cfg, vlm, critiques, tmp_path / "rows.jsonl", Saves(tmp_path / "s", 1))
    assert [len(step) for step in given["lessons"]] == [4] * 7 + [2]
    lessons = [lesson for step in given["lessons"] for lesson in step]
    assert all((x.question, x.answer) == ("Judge.", f"answer {x.image}") for x in lessons)
    orders = [tuple(int(str(x.image)) for x in lessons[i : i + 10]) for i in (0, 10, 20)]
    assert [sorted(order) for order in orders] == [list(range(10))] * 3
    assert len({*orders, tuple(range(10))}) == 4
    assert given["lr_at"](0) == 0.5 and given["lr_at"](4) == pytest.approx(0.25)
    for name in ("weight_decay", "max_grad_norm", "tokens_per_micro_batch", "backend"):
        assert given[name] == getattr(cfg, name)
    given["log"]({"step": 1})
    assert read_rows(tmp_path / "rows.jsonl") == [{"step": 1}]


@pytest.mark.parametrize("processes, lengths", [(1, [4, 4, 1]), (3, [4, 2, 3])])
def test_the_last_batch_is_filled_up_and_the_steps_stay_as_many(processes: int, lengths: list[int],
                                                               monkeypatch, tmp_path: Path) -> None:
    """Else learning rates would depend on the number of processes, and a resumed run with it."""
    monkeypatch.setattr(train_sft, "size", lambda: processes)
    monkeypatch.setattr(train_sft, "share", range)
    monkeypatch.setattr(ahead, "load_image", lambda path: path)
    vlm = SimpleNamespace(asking=SimpleNamespace(prompt="Judge."), fit=lambda image: image)
    critiques = [(Path(str(i)), f"answer {i}") for i in range(9)]
    lessons: list[int] = []
    monkeypatch.setattr(train_sft, "fit", lambda vlm, lessons_at, **options: lessons.extend(
        len(lessons_at(step)) for step in range(options["steps"])))
    train_sft.train(SFTConfig(epochs=1, batch=4), vlm, critiques, tmp_path / "rows.jsonl",
                    Saves(tmp_path / "s", 1))
    assert lessons == lengths


def test_triton_and_torch_give_the_same_first_three_updates() -> None:
    """Each loss depends on all weights after the update before it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"  # on the CPU: Triton's interpreter
    lessons = [Lesson(*x) for x in zip(pictures(3), QUESTIONS, ANSWERS, strict=True)]
    rows: dict[str, list[dict]] = {"triton": [], "torch": []}
    for backend, row in rows.items():
        vlm = tiny_vlm().to(device)
        fit(vlm, lambda step: lessons, steps=4, lr_at=lambda step: 1e-3, label="test",
            log=row.append, backend=backend)
    for ours, readable in zip(rows["triton"], rows["torch"], strict=True):
        assert ours == pytest.approx(readable, rel=1e-5, abs=1e-5)
    assert rows["torch"][3]["loss"] < rows["torch"][0]["loss"] - 0.1


def test_cosine_warms_up_and_ends_low() -> None:
    lr = cosine(1.0, 100, warmup=10)
    assert lr(0) < lr(9) <= lr(10) == 1.0 and lr(55) < 0.6 and lr(99) < 1e-3
    quarter, half = cosine(1.0, 100)(25), cosine(1.0, 100)(50)
    assert quarter == pytest.approx(0.5 + 0.5**1.5) and half == pytest.approx(0.5)
