"""The training loop does what its options say: against a plain one, answer by answer."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import tiny_prompts, tiny_vlm
from torch import Tensor

import train_rapo
from nanoaes import evaluation, readout
from nanoaes.checkpoint import read_rows
from nanoaes.config import RAPOConfig
from nanoaes.datasets import Example
from nanoaes.diary import Diary
from nanoaes.errors import NotFinite
from nanoaes.images import load_image
from nanoaes.inputs import Prompts
from nanoaes.judge import Judged
from nanoaes.models import Models
from nanoaes.resume import Saves
from nanoaes.reward import Rewards, Truth
from nanoaes.rollout import Answer, Rollouts, rollout
from nanoaes.sampler import StepSampler
from nanoaes.sampling import uniforms
from nanoaes.vlm import VLM

ROOM = 6  # tokens of the longest answer


def restless(seed: int = 0) -> VLM:
    """Stops by chance, so that some answers are cut and some are not."""
    vlm = tiny_vlm(seed)
    vlm.stop_ids = [vlm.stop_ids[0], *range(100, 200)]
    vlm.asking = dataclasses.replace(vlm.asking, max_new_tokens=ROOM)
    return vlm


def scored_by_their_ids(rolls: Rollouts, vlm: VLM) -> list[list[Answer]]:
    """In the place of an untrained model's gibberish: readable but for one answer in five."""
    def answer(s: int, n: int, cut: bool) -> Answer:
        text = f"<think>x</think><answer>{s % 101 / 100}</answer>" if s % 5 else "no score"
        return Answer(text, n, cut)

    columns = (rolls.ids * rolls.mask).sum(2), rolls.mask.sum(2), rolls.truncated
    return [list(map(answer, *row)) for row in zip(*(x.tolist() for x in columns), strict=True)]


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> list[Example]:
    """Twelve pictures; what else `tiny.album` makes lies beside them."""
    root = tiny.album(tmp_path_factory.mktemp("album"), (i / 11 for i in range(12)))
    return [Example(root / f"{i}.png", i / 11, None, "a", (0.0, 1.0)) for i in range(12)]


def token_logps(vlm: VLM, prompts: Prompts, rolls: Rollouts, at: tuple[int, int],
                temperature: float) -> tuple[Tensor, Tensor]:
    """One answer through transformers' own forward; its entropies, too."""
    one = prompts.select(torch.tensor(at[:1]))
    answer = rolls.ids[at][rolls.mask[at]]
    row = torch.cat([one.ids[0], answer])[None]
    out = vlm.hf(input_ids=row, attention_mask=torch.ones_like(row), pixel_values=one.pixels,
                 image_grid_thw=one.grid, mm_token_type_ids=(row == vlm.image_id).int())
    logits = out.logits[0, one.ids.shape[1] - 1 : -1] / temperature
    every = logits.masked_fill(vlm.forbidden, -torch.inf).log_softmax(-1)
    entropy = torch.special.entr(every.detach().exp()).sum(-1)
    return every.gather(1, answer[:, None])[:, 0], entropy


def plain_update(cfg: RAPOConfig, policy: VLM, reference: VLM | None,
                 optimizer: torch.optim.Optimizer, prompts: Prompts, rolls: Rollouts,
                 advantage: Tensor) -> dict[str, float]:
    """mu updates, the paper's formulas in a loop. What is old stays what it was before the first.

    Also returns how many tokens a clip stops at the last update: "low" and "high".
    """
    n, k = rolls.ids.shape[:2]
    counted = [(i, j) for i in range(n) for j in range(k)
               if not (cfg.mask_truncated and rolls.truncated[i, j])]
    old: dict[tuple[int, int], Tensor] = {}
    ref: dict[tuple[int, int], Tensor] = {}
    for _ in range(cfg.updates):
        optimizer.zero_grad()
        row: dict[str, float] = {}
        for at in counted:
            logp, entropy = token_logps(policy, prompts, rolls, at, cfg.temperature)
            a = advantage[at]
            if at not in old:
                old[at] = ref[at] = logp.detach()
                if reference is not None:
                    ref[at], _ = token_logps(reference, prompts, rolls, at, cfg.temperature)
                    ref[at] = ref[at].detach()
            ratio = (logp - old[at]).exp()
            clipped = ratio.clamp(1 - cfg.eps_low, 1 + cfg.eps_high)
            k3 = (ref[at] - logp).exp() - (ref[at] - logp) - 1
            loss = -(torch.minimum(ratio * a, clipped * a) - cfg.beta * k3).mean() / len(counted)
            loss.backward()
            low = (ratio < 1 - cfg.eps_low) & (a < 0)
            high = (ratio > 1 + cfg.eps_high) & (a > 0)
            more = {"loss": loss, "kl": k3.mean() / len(counted),
                    "entropy": entropy.mean() / len(counted),
                    "clip_low": low.float().mean() / len(counted),
                    "clip_high": high.float().mean() / len(counted),
                    "low": low.sum(), "high": high.sum()}
            row = {name: row.get(name, 0.0) + value.item() for name, value in more.items()}
        trained = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        row["grad_norm"] = math.sqrt(sum(p.grad.double().square().sum() for p in trained))
        for p in trained:
            p.grad *= min(1.0, cfg.max_grad_norm / row["grad_norm"])
        optimizer.step()
    return row


def assert_moved_alike(ours: VLM, plain: VLM, start: VLM) -> None:
    """Every weight, by what it has moved."""
    for (name, a), b, c in zip(ours.named_parameters(), plain.parameters(), start.parameters(),
                               strict=True):
        assert (a - b).norm() <= 5e-3 * (b - c).norm() + 1e-7, name


@pytest.mark.parametrize("eps_low, eps_high", [(0.05, 0.3), (0.3, 0.05)])
def test_later_updates_are_the_papers_formula(eps_low: float, eps_high: float) -> None:
    """logp_old is the first update's own, whatever the rollout says; both clips act."""
    cfg = RAPOConfig(k=3, updates=3, beta=0.2, eps_low=eps_low, eps_high=eps_high,
                     max_grad_norm=0.5, tokens_per_micro_batch=60)
    policy, plain, reference = restless(0), restless(0), restless(1)
    prompts = tiny_prompts(policy, 4)
    rolls = rollout(policy, prompts, k=3, max_new_tokens=ROOM,
                    uniform=uniforms(0, 0, range(4), 3, ROOM))
    gap = torch.rand(rolls.mask.shape, generator=torch.Generator().manual_seed(2)) * 0.1
    rolls.logp = torch.where(rolls.mask, rolls.logp - gap, 0)
    advantage = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    numbers = train_rapo.update(cfg, policy, reference, torch.optim.SGD(policy.parameters(), 9.0),
                                prompts=prompts, rolls=rolls, advantage=advantage, lr=0.1, step=0)
    want = plain_update(cfg, plain, reference, torch.optim.SGD(plain.parameters(), 0.1), prompts,
                        rolls, advantage)
    assert min(want.pop("low"), want.pop("high")) >= 2, "a clip never acts"
    assert {k: numbers[k] for k in want} == pytest.approx(want, rel=1e-3, abs=1e-5)
    assert numbers["grad_norm"] > cfg.max_grad_norm
    gaps = [g[m] for g, m in zip(gap.flatten(0, 1), rolls.mask.flatten(0, 1), strict=True)]
    for name, value in (("rollout_gap", sum(g.mean() for g in gaps) / 12),
                        ("rollout_gap_max", torch.cat(gaps).max()),
                        ("rollout_gap_share", sum((g > 0.05).float().mean() for g in gaps) / 12)):
        assert numbers[name] == pytest.approx(value.item(), abs=1e-4), name
    assert_moved_alike(policy, plain, restless(0))


def train(cfg: RAPOConfig, models: Models, examples: list[Example], best: evaluation.Best) -> None:
    """The loop, with all that it writes beside `best`."""
    cfg = dataclasses.replace(cfg, run=str(best.path.parent))
    train_rapo.train(cfg, models, examples, best=best, saves=Saves(best.path.parent / "resume", 1),
                     diary=Diary(cfg, models.speaker, lambda steps: None))


def best_of(scores: list[float], folder: Path, cfg: RAPOConfig, monkeypatch) -> evaluation.Best:
    """Looks at nothing: one score after the other."""
    left = iter(scores)

    def evaluate_sets(*args: Any, **options: Any) -> dict:
        half = next(left) / 2
        mean = dict.fromkeys(("plcc", "srcc", "strict_plcc", "strict_srcc"), half)
        return {"mean": {"in": mean}, "sets": {}}

    monkeypatch.setattr(evaluation, "evaluate_sets", evaluate_sets)
    return evaluation.Best(folder / "rapo", folder / "metrics.jsonl", {}, cfg, None)


def plain_train(cfg: RAPOConfig, policy: VLM, reference: VLM | None, examples: list[Example]
                ) -> list[dict[str, float]]:
    """All of `train` but the held-out pictures; a row for each step."""
    trained = [p for name, p in policy.named_parameters()
               if cfg.train_vision or ".visual." not in name]
    optimizer = torch.optim.AdamW(trained, weight_decay=cfg.weight_decay)
    rows = []
    for step in range(cfg.steps):
        batch = [examples[i] for i in StepSampler(["a"] * len(examples), cfg.images,
                                                  cfg.seed).indices(step)]
        prompts = policy.prompts([load_image(e.image) for e in batch])
        rolls = rollout(policy, prompts, k=cfg.k, max_new_tokens=ROOM, temperature=cfg.temperature,
                        uniform=uniforms(cfg.seed, step, range(cfg.images), cfg.k, ROOM))
        reward = train_rapo.judge(cfg, scored_by_their_ids(rolls, policy), batch).rewards.total
        advantage = reward - reward.mean(1, keepdim=True)
        if cfg.advantage == "std":
            advantage /= reward.std(1, keepdim=True) + 1e-4
        up = cfg.warmup and (step + 1) / (cfg.warmup + 1)
        rate = cfg.lr * (up if step < cfg.warmup else (cfg.steps - step) / (cfg.steps - cfg.warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate
        numbers = plain_update(cfg, policy, reference, optimizer, prompts, rolls, advantage.float())
        rows.append({**numbers, "lr": rate, "step": step + 1, "reward": reward.mean().item(),
                     "truncated": rolls.truncated.double().mean().item(),
                     "epoch": (step + 1) * cfg.images / len(examples)})
    return rows


@pytest.mark.parametrize("options", [
    dict(updates=1, temperature=0.7, beta=0.0, advantage="std", train_vision=True, seed=3),
    dict(updates=2, temperature=1.3, beta=0.3, advantage="none", train_vision=False, seed=4,
         mask_truncated=True, weight_decay=3.0, max_grad_norm=0.2, eps_low=0.02, eps_high=0.1),
])
def test_three_steps_are_those_of_a_plain_loop(options: dict, album: list[Example], tmp_path: Path,
                                               monkeypatch) -> None:
    adam = torch.optim.AdamW  # its eps: a gradient of rounding size shall move nothing
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **kw: adam(*args, eps=1e-3, **kw))
    monkeypatch.setattr(Rollouts, "answers", scored_by_their_ids)
    cfg = RAPOConfig(**{"images": 4, "k": 3, "steps": 3, "lr": 3e-3, "warmup": 1, "eval_every": 2,
                        "max_grad_norm": 1e6, "tokens_per_micro_batch": 100, **options})
    policy, plain = restless(0), restless(0)
    policy.hf.model.visual.requires_grad_(cfg.train_vision)
    reference = restless(1).requires_grad_(False) if cfg.beta else None
    best = best_of([0.1, 0.2, 0.3], tmp_path, cfg, monkeypatch)
    train(cfg, Models(policy, policy, reference), album, best)
    want = plain_train(cfg, plain, reference, album)
    rows = read_rows(tmp_path / "metrics.jsonl")[1:]
    assert any(0 < row["truncated"] < 1 for row in want), "the mask has nothing to do"
    if cfg.updates > 1:
        assert sum(row["low"] + row["high"] for row in want) > 0, "no clip acts"
        assert all(row["grad_norm"] > cfg.max_grad_norm for row in want)
    for ours, plainly in zip(rows, want, strict=True):
        del plainly["low"], plainly["high"]
        if reference is None:
            del plainly["kl"]
            assert "kl" not in ours
        assert {k: ours[k] for k in plainly} == pytest.approx(plainly, rel=1e-3, abs=1e-5)
    assert_moved_alike(policy, plain, restless(0))


def test_the_folder_holds_the_weights_of_the_best_look(album: list[Example], tmp_path: Path,
                                                       monkeypatch) -> None:
    """Looks before the first step, every second step, and after the last one."""
    monkeypatch.setattr(Rollouts, "answers", scored_by_their_ids)
    cfg = RAPOConfig(images=2, k=2, steps=5, eval_every=2, lr=1e-2)
    for name, scores, chosen in (("cold", [0.9, 0.5, 0.8, 0.3], 0),
                                 ("mid", [0.1, 0.2, 1.4, 0.3], 2),
                                 ("last", [0.1, 0.5, 0.2, 0.6], 3)):
        looks: list[Tensor] = []
        folder = tmp_path / name
        folder.mkdir()
        best, policy = best_of(scores, folder, cfg, monkeypatch), restless()
        look = best._look

        def seen(vlm: VLM, step: int, look=look, looks=looks) -> tuple:
            looks.append(torch.cat([p.detach().flatten() for p in vlm.parameters()]))
            return look(vlm, step)

        best._look = seen
        train(cfg, Models(policy, policy), album, best)
        kept = VLM.load(folder / "rapo", device="cpu")
        same = [torch.equal(torch.cat([p.detach().flatten() for p in kept.parameters()]), x)
                for x in looks]
        assert same == [i == chosen for i in range(4)], name
        rows = read_rows(folder / "metrics.jsonl")
        assert {r["step"]: r["eval_score"] for r in rows if "eval_score" in r} == pytest.approx(
            dict(zip((0, 2, 4, 5), scores, strict=True)))


def test_who_speaks_has_the_learners_weights_after_a_skipped_step_too(
        album: list[Example], tmp_path: Path, monkeypatch) -> None:
    """Of several updates the first may have moved them before one is not finite."""
    speaker, learner = restless(0), restless(0)

    def update(*_: Any, **__: Any) -> dict[str, float]:
        with torch.no_grad():
            next(learner.parameters()).add_(1)
        raise NotFinite("loss")

    monkeypatch.setattr(train_rapo, "update", update)
    monkeypatch.setattr(Rollouts, "answers", scored_by_their_ids)
    cfg = RAPOConfig(images=4, k=2, steps=1, eval_every=1, updates=2)
    train(cfg, Models(speaker, learner), album, best_of([0.1, 0.2], tmp_path, cfg, monkeypatch))
    for ours, theirs in zip(speaker.parameters(), learner.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_training_samples_and_held_out_answers_are_greedy(album: list[Example], tmp_path: Path,
                                                          monkeypatch, capsys) -> None:
    """Each step with numbers of its own; a warning comes once, not at every step."""
    calls: dict[str, list[dict]] = {"train": [], "eval": []}
    for name, script in (("train", train_rapo), ("eval", readout)):
        def record(vlm: VLM, prompts: Prompts, name: str = name, **options: Any) -> Rollouts:
            calls[name].append({**options, "training": vlm.training})
            return rollout(vlm, prompts, **options)
        monkeypatch.setattr(script, "rollout", record)
    cfg = RAPOConfig(images=3, k=2, steps=3, eval_every=3, temperature=1.2, seed=8)
    best = evaluation.Best(tmp_path / "rapo", tmp_path / "metrics.jsonl",
                            {"a": ("in", album[:3])}, cfg, None)
    policy = restless()
    train(cfg, Models(policy, policy), album[3:], best)
    assert [c["temperature"] for c in calls["train"]] == [1.2] * 3
    assert [c["temperature"] for c in calls["eval"]] == [0] * 2
    for step, call in enumerate(calls["train"]):
        assert call["k"] == 2 and call["max_new_tokens"] == ROOM
        assert torch.equal(call["uniform"], uniforms(8, step, range(3), 2, ROOM))
    assert capsys.readouterr().out.count("of the answers were read") == 1


class Stopped(Exception):
    """What `main` has prepared is all that is asked."""


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_the_loop_is_given_a_reference_only_where_it_is_used(
        beta: float, album: list[Example], tmp_path: Path, monkeypatch) -> None:
    """And no picture that is held out."""
    given: dict[str, Any] = {}

    def train(cfg, models, examples, best, diary, saves) -> None:
        given.update(policy=models.learner, reference=models.reference, examples=examples,
                     best=best)
        assert models.speaker is models.learner, "the toy pays for a copy"
        raise Stopped

    monkeypatch.setattr(train_rapo, "train", train)
    root = album[0].image.parent
    csv = f"csv:{root / 'photos.csv'}@0-1"
    with pytest.raises(Stopped):
        train_rapo.main(RAPOConfig(run=str(tmp_path / "run"), model=str(root / "model"), train=csv,
                                   test_in=csv, heldout=4, images=4, beta=beta, device="cpu"))
    held = {e.image for _, part in given["best"].held.values() for e in part}
    seen = {e.image for e in given["examples"]}
    assert len(held) == 4 and len(seen) == 8 and not held & seen
    assert all(p.requires_grad for p in given["policy"].parameters())
    assert (given["reference"] is None) == (beta == 0)


def test_a_steps_numbers_by_hand() -> None:
    """Two pictures, three answers each; one unreadable, two cut."""
    scores = torch.tensor([[0.1, 0.2, 0.6], [0.9, 0.0, 0.3]], dtype=torch.float64)
    valid = torch.tensor([[True, True, True], [True, False, True]])
    parts = [torch.arange(6.0).view(2, 3) + i for i in range(4)]
    answers = [[Answer("", n, False) for n in (4, 1, 2)],
               [Answer("", 3, False), Answer("", 4, True), Answer("", 4, True)]]
    judged = Judged(answers, scores, valid, Rewards(*parts),
                    Truth(torch.tensor([0.2, 0.8]), None, torch.zeros(2)))
    got = train_rapo.describe(judged, torch.tensor([False, True]))
    spread = torch.tensor([0.1, 0.2, 0.6, 0.9, 0.3]).std().item()
    assert got == pytest.approx({
        "reward_rel": 2.5, "reward_abs": 3.5, "reward_fmt": 4.5, "format_rate": 4.5, "reward": 5.5,
        "parse_rate": 5 / 6, "flat_groups": 0.5, "length": 3.0, "truncated": 1 / 3,
        "pred_std": spread, "truth_std": 0.6 / math.sqrt(2)}, rel=1e-6)
    assert json.loads(json.dumps(got, allow_nan=False)) == got


@pytest.mark.parametrize("epochs, steps", [(0.0, 7), (1.0, 3), (1.5, 5), (0.1, 1)])
def test_epochs_are_passes_over_the_pictures(epochs: float, steps: int) -> None:
    cfg = RAPOConfig(steps=7, epochs=epochs, images=4)
    assert train_rapo.total_steps(cfg, StepSampler(["a"] * 12, 4)) == steps
