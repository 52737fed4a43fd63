"""RAPO's update does not depend on memory knobs; the scripts run and refuse bad input."""

import dataclasses
import json
import os
import re
import subprocess
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
import warm
from tiny import tiny_prompts, tiny_vlm

import eval as eval_script
import train_rapo
import train_sft
from nanoaes import evaluation
from nanoaes.config import OptionError, RAPOConfig, SFTConfig
from nanoaes.datasets import Example
from nanoaes.errors import NotFinite, UserError
from nanoaes.folder import CheckpointError
from nanoaes.images import DataError
from nanoaes.inputs import Prompts
from nanoaes.judge import judge
from nanoaes.models import Models
from nanoaes.options import parse
from nanoaes.rapo import advantages
from nanoaes.rollout import Answer, Rollouts, rollout
from nanoaes.sampling import uniforms
from nanoaes.schedule import learning_rate
from nanoaes.verbs import EvalConfig
from nanoaes.vlm import VLM

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "nanoaes" / "TOUR.md"


def one_update(paid: Callable = lambda advantage: advantage, **options
               ) -> tuple[dict[str, float], torch.Tensor]:
    """One update with plain SGD, so that weights after it show the gradient."""
    cfg = RAPOConfig(k=3, max_new_tokens=8, **options)
    policy, reference = tiny_vlm(0), tiny_vlm(1)
    prompts = tiny_prompts(policy, 4)
    rolls = rollout(policy, prompts, k=cfg.k, max_new_tokens=cfg.max_new_tokens,
                    uniform=uniforms(0, 0, range(4), cfg.k, cfg.max_new_tokens))
    reward = torch.rand(4, 3, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.SGD(policy.parameters(), lr=1e-2)
    numbers = train_rapo.update(cfg, policy, reference, optimizer, prompts=prompts, rolls=rolls,
                                advantage=paid(advantages(reward)[0]), lr=1e-2, step=0)
    return numbers, torch.cat([p.detach().flatten() for p in policy.parameters()])


@pytest.mark.parametrize("updates", [1, 3])
def test_the_update_is_the_same_for_any_micro_batch(updates: int) -> None:
    whole, weights = one_update(tokens_per_micro_batch=10_000, updates=updates)
    for tokens in (1, 130):  # one picture each, and two
        numbers, other = one_update(tokens_per_micro_batch=tokens, updates=updates)
        assert numbers == pytest.approx(whole, rel=1e-4, abs=1e-5)
        torch.testing.assert_close(other, weights, rtol=1e-5, atol=1e-6)


def plain_update(cfg: RAPOConfig, policy: VLM, reference: VLM, prompts: Prompts, rolls: Rollouts,
                 advantage: torch.Tensor) -> dict[str, float]:
    """The guided tour's: row by row through transformers' own forward, the formulas in a loop."""
    space: dict = {}
    exec(re.search(r"```python\n(.*?)```", TOUR.read_text(), re.DOTALL)[1], space)
    ones = [prompts.select(torch.tensor([i])) for i in range(len(prompts.ids))]
    questions = [{"input_ids": one.ids[:, : one.mask.sum()], "pixel_values": one.pixels,
                  "image_grid_thw": one.grid} for one in ones]
    answers = [[ids[mask] for ids, mask in zip(*rows, strict=True)]
               for rows in zip(rolls.ids, rolls.mask, strict=True)]
    loss, kl = space["plain_update"](policy, reference, questions, answers, advantage,
                                     eps_low=cfg.eps_low, eps_high=cfg.eps_high, beta=cfg.beta,
                                     temperature=cfg.temperature)
    return {"loss": loss, "kl": kl}


@pytest.mark.parametrize("temperature, beta", [(1.0, 0.05), (0.7, 0.5)])
def test_the_update_is_the_papers_formula(temperature: float, beta: float) -> None:
    """Against an independent derivation: loss, KL and every gradient, policy ≠ reference."""
    cfg = RAPOConfig(k=3, max_new_tokens=7, temperature=temperature, beta=beta,
                     max_grad_norm=1e9, tokens_per_micro_batch=100)
    policy, reference = tiny_vlm(0), tiny_vlm(1)
    prompts = tiny_prompts(policy, 3)
    rolls = rollout(policy, prompts, k=3, max_new_tokens=7, temperature=temperature,
                    uniform=uniforms(0, 0, range(3), 3, 7))
    advantage = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    before = [p.detach().clone() for p in policy.parameters()]
    numbers = train_rapo.update(cfg, policy, reference, torch.optim.SGD(policy.parameters(), 1.0),
                                prompts=prompts, rolls=rolls, advantage=advantage, lr=1.0, step=0)
    step = [a - p.detach() for a, p in zip(before, policy.parameters(), strict=True)]
    again = tiny_vlm(0)
    plain = plain_update(cfg, again, reference, prompts, rolls, advantage)
    assert numbers["loss"] == pytest.approx(plain["loss"], rel=1e-4, abs=1e-5)
    assert numbers["kl"] == pytest.approx(plain["kl"], rel=1e-4) and numbers["kl"] > 0.01
    for (name, p), moved in zip(again.named_parameters(), step, strict=True):
        grad = torch.zeros_like(p) if p.grad is None else p.grad
        assert (moved - grad).norm() <= 2e-3 * grad.norm() + 1e-6, name


def test_tokens_of_one_answer_can_be_paid_apart() -> None:
    """(N, K, T) alike is (N, K) to the bit; two halves of the tokens make up the whole step."""
    def step(paid) -> torch.Tensor:
        return one_update(paid, beta=0.0, max_grad_norm=1e9)[1].double() - start

    start = torch.cat([p.detach().flatten() for p in tiny_vlm(0).parameters()]).double()
    early = torch.arange(8) < 3
    whole = step(lambda advantage: advantage)
    assert torch.equal(step(lambda a: a[..., None] * torch.ones(8)), whole)
    halves = [step(lambda a, part=part: a[..., None] * part) for part in (early, ~early)]
    assert min(half.norm() for half in halves) > 0.1 * whole.norm()
    assert (sum(halves) - whole).norm() < 1e-2 * whole.norm()


def test_the_better_answer_becomes_likelier_and_the_worse_one_less() -> None:
    cfg = RAPOConfig(k=2, max_new_tokens=8, beta=0.0)
    policy = tiny_vlm(0)
    prompts = tiny_prompts(policy, 2)
    rolls = rollout(policy, prompts, k=2, max_new_tokens=8,
                    uniform=uniforms(0, 0, range(len(prompts.ids)), 2, 8))
    advantage, _ = advantages(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    train_rapo.update(cfg, policy, tiny_vlm(1), torch.optim.SGD(policy.parameters(), 1e-2),
                      prompts=prompts, rolls=rolls, advantage=advantage, lr=1e-2, step=0)
    after = torch.zeros_like(rolls.logp)
    after[rolls.mask] = train_rapo.logprobs(cfg, policy, prompts, rolls, slice(None))[0].detach()
    change = (after - rolls.logp).sum(2)
    assert (change[0, 0] > change[0, 1]) and (change[1, 1] > change[1, 0])


def test_a_gradient_that_is_not_finite_stops_the_run() -> None:
    policy = tiny_vlm(0)
    prompts = tiny_prompts(policy, 2)
    rolls = rollout(policy, prompts, k=2, max_new_tokens=4,
                    uniform=uniforms(0, 0, range(len(prompts.ids)), 2, 4))
    before = [p.clone() for p in policy.parameters()]
    with pytest.raises(NotFinite, match="^step 3: loss, grad_norm .the first such gradient: "):
        train_rapo.update(RAPOConfig(k=2), policy, tiny_vlm(1),
                          torch.optim.SGD(policy.parameters(), 1.0), prompts=prompts, rolls=rolls,
                          advantage=torch.full((2, 2), torch.nan), lr=1.0, step=2)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_learning_rate_warms_up_to_the_full_rate_and_falls_to_nothing() -> None:
    cfg = RAPOConfig(warmup=4, lr=1.0)
    rates = [learning_rate(cfg, s, 104) for s in range(104)]
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0] and rates[54] == 0.5 and 0 < rates[103] < 0.011
    assert min(learning_rate(cfg, s, 3) for s in range(3)) > 0  # warm-up to the end


def three_updates(backend: str) -> list[torch.Tensor]:
    """The weights after each of the first three RAPO steps of the tiny model."""
    cfg = RAPOConfig(k=2, max_new_tokens=6, tokens_per_micro_batch=60, backend=backend)
    device = "cuda" if torch.cuda.is_available() else "cpu"  # on the CPU: Triton's interpreter
    policy, reference, after = tiny_vlm(0).to(device), tiny_vlm(1).to(device), []
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, eps=1e-4)
    for step in range(3):
        prompts = tiny_prompts(policy, 2, seed=step)
        rolls = rollout(policy, prompts, k=cfg.k, max_new_tokens=cfg.max_new_tokens,
                        uniform=uniforms(0, step, range(2), cfg.k, cfg.max_new_tokens))
        generator = torch.Generator(device).manual_seed(step)
        reward = torch.rand(2, 2, generator=generator, device=device)
        train_rapo.update(cfg, policy, reference, optimizer, prompts=prompts, rolls=rolls,
                          advantage=advantages(reward)[0], lr=1e-4, step=step)
        after.append(torch.cat([p.detach().flatten() for p in policy.parameters()]))
    return after


def test_triton_and_torch_give_the_same_first_three_updates() -> None:
    for ours, readable in zip(three_updates("triton"), three_updates("torch"), strict=True):
        torch.testing.assert_close(ours, readable, rtol=0, atol=1e-5)


def test_first_update_has_ratio_one_and_later_ones_do_not() -> None:
    once, _ = one_update(updates=1, beta=0.0, eps_low=1e-6, eps_high=1e-6)
    more, _ = one_update(updates=3, beta=0.0, eps_low=1e-6, eps_high=1e-6)
    assert once["clip_low"] == once["clip_high"] == 0
    assert more["clip_low"] + more["clip_high"] > 0.1
    assert once["rollout_gap"] < 1e-5 and once["entropy"] > 0


def answers(texts: list[str]) -> list[list[Answer]]:
    """Two to a picture."""
    return [[Answer(text, 9, False) for text in texts[i : i + 2]] for i in range(0, len(texts), 2)]


def test_judge_reads_and_groups() -> None:
    batch = [Example(Path(f"{i}.jpg"), s, std, name, (0.0, 1.0)) for i, (s, std, name) in
             enumerate([(0.2, 0.3, "A"), (0.8, 0.3, "A"), (0.5, None, "B"), (0.6, None, "B")])]
    good = "<think>x</think><answer>{:.2f}</answer>"
    texts = [good.format(x) for x in (0.2, 0.3, 0.8, 0.7, 0.5, 0.4, 0.6, 0.6)]
    texts[3] = "I cannot rate this 1 picture"
    judged = judge(RAPOConfig(), answers(texts), batch)
    assert judged.valid.flatten().tolist() == [True] * 3 + [False] + [True] * 4
    assert judged.rewards.total[1, 1] == 0 and judged.rewards.format[0, 0] == 1
    assert judged.rewards.absolute[0, 0] == 1
    soft = judge(dataclasses.replace(RAPOConfig(), soft_truth=True), answers(texts), batch)
    assert not torch.equal(soft.rewards.relative[:2], judged.rewards.relative[:2])
    assert torch.isfinite(soft.rewards.total).all()


def test_judge_compares_within_a_set_and_weighs_the_parts() -> None:
    """Two sets that contradict each other: compared across, the rewards would differ."""
    def example(score: float, name: str) -> Example:
        return Example(Path(f"{name}{score}.jpg"), score, None, name, (0.0, 1.0))

    good = "<think>x</think><answer>{:.2f}</answer>"
    a = [example(0.2, "A"), example(0.8, "A")]
    b = [example(0.3, "B"), example(0.9, "B")]
    texts = [good.format(x) for x in (0.2, 0.4, 0.7, 0.8, 0.9, 0.8, 0.1, 0.3)]
    cfg = RAPOConfig(w_relative=2, w_absolute=3, w_format=5)
    both = judge(cfg, answers(texts), a + b).rewards
    first = judge(cfg, answers(texts[:4]), a).rewards
    second = judge(cfg, answers(texts[4:]), b).rewards
    torch.testing.assert_close(both.relative, torch.cat([first.relative, second.relative]))
    torch.testing.assert_close(both.total, 2 * both.relative + 3 * both.absolute + 5 * both.format)
    assert first.relative.min() > 0.9 and second.relative.max() < 0.5


def run(script: str, *options: str) -> subprocess.CompletedProcess:
    return warm.run([str(ROOT / script), *options], [os.environ], 300)[0]


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    return tiny.album(tmp_path_factory.mktemp("album"), (1 + i / 2 for i in range(8)))


def rapo_options(album: Path, tmp_path: Path, csv: str = "photos.csv", **more: str) -> list[str]:
    options = {"run": tmp_path / "run", "model": album / "model",
               "train": f"csv:{album / csv}@1-5", "test_in": f"csv:{album / 'photos.csv'}@1-5",
               "test_ood": "", "heldout": 3, "images": 4, "k": 2, "steps": 2, "eval_every": 1,
               "max_new_tokens": 6, **more}
    return [w for k, v in options.items() for w in (f"--{k}", str(v))]


def test_train_rapo_on_a_folder_of_ones_own(album: Path, tmp_path: Path) -> None:
    """A real run of the script: steps, checkpoint, table, report."""
    done = run("train_rapo.py", *rapo_options(album, tmp_path))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [0, 1, 2]
    section = (ROOT / "README.md").read_text().split("## What a run logs")[1].split("\n## ")[0]
    explained = {key for line in section.splitlines() for key in
                 re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")}
    assert {key for row in rows for key in row} - explained == set()
    assert (tmp_path / "run/rapo/model.safetensors").is_file()
    assert "report:" in done.stdout and (tmp_path / "run/report.html").is_file()
    assert {p.name for p in (tmp_path / "run").glob("eval_*")} == {"eval_cold_start.json",
                                                                   "eval_RAPO.json"}
    again = run("eval.py", "--model", str(tmp_path / "run/rapo"),
                "--test_in", f"csv:{album / 'photos.csv'}@1-5")
    assert again.returncode == 0, again.stderr
    result = json.loads((tmp_path / "run/rapo/eval.json").read_text())
    assert result["sets"]["photos"]["metrics"]["cut"] == 8  # an untrained model never stops
    assert result["decoding"]["max_new_tokens"] == 6  # as it was trained: kept in its folder
    assert "100% of the answers are unreadable" in again.stdout
    train_rapo.main(parse(RAPOConfig, rapo_options(album, tmp_path)))  # nothing is overwritten
    with pytest.raises(UserError, match="choose another --run"):
        train_rapo.main(parse(RAPOConfig, rapo_options(album, tmp_path,
                                                       model=tmp_path / "run/rapo")))
    assert (tmp_path / "run/before-1/rapo/model.safetensors").is_file()


def changed(album: Path, name: str, old: str, new: str) -> str:
    (album / name).write_text((album / "photos.csv").read_text().replace(old, new))
    return name


@pytest.mark.parametrize("old, new, message", [
    ("3.png,2.5", "gone.png,2.5", "gone.png"),
    ("3.png,2.5", "broken.png,2.5", "broken.png"),
    ("3.png,2.5", "3.png,", "line 5"),
    ("3.png,2.5", "3.png,nan", "line 5"),
    ("3.png,2.5", "3.png,7.5", "line 5"),
])
def test_bad_rows_are_refused(album: Path, tmp_path: Path, old: str, new: str,
                                          message: str) -> None:
    (album / "broken.png").write_bytes((album / "1.png").read_bytes()[:900])
    argv = rapo_options(album, tmp_path, changed(album, "bad.csv", old, new))
    with pytest.raises(DataError, match=message) as error:
        train_rapo.main(parse(RAPOConfig, argv))
    assert "\n" not in str(error.value)


def test_an_error_is_one_line_without_a_traceback(album: Path, tmp_path: Path) -> None:
    argv = rapo_options(album, tmp_path, changed(album, "bad.csv", "3.png,2.5", "3.png,nan"))
    done = run("train_rapo.py", *argv)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "line 5" in last and last.startswith("train_rapo.py: ")
    assert "Traceback" not in done.stderr


def test_train_sft_on_critiques_of_ones_own(album: Path, tmp_path: Path) -> None:
    """Kept rows are learned, rejected ones are not; a broken row is named."""
    row = {"image": str(album / "1.png"), "score": 0.6, "dataset": "mine", "kept": True,
           "critique": "soft light, calm mood"}
    cot = tmp_path / "cot.jsonl"
    cot.write_text("".join(json.dumps(r) + "\n" for r in (row, row | {"kept": False})))
    options = ("--run", str(tmp_path), "--model", str(album / "model"), "--cot", str(cot))
    done = run("train_sft.py", *options)
    assert done.returncode == 0 and "1 critiques x 2 epochs" in done.stdout, done.stderr
    assert (tmp_path / "sft/model.safetensors").is_file()
    size = (album / "1.png").stat().st_size
    assert (tmp_path / "sft/learned.txt").read_text() == f"{size} 1.png\n"
    cot.write_text(json.dumps(row) + "\n" + json.dumps(row | {"score": None}) + "\n")
    done = run("train_sft.py", *options)
    assert done.returncode == 1 and "line 2" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("main, config, argv, message", [
    (train_sft.main, SFTConfig, ("--model", "tests"), "--model without --cot"),
    (train_sft.main, SFTConfig, ("--model", "tests", "--cot", "no.jsonl"), "no such file"),
    (eval_script.bench, EvalConfig, ("--model", "tests", "--test_in", "csv:{}/photos.csv@1-5"),
     "no config.json"),
])
def test_the_other_scripts_refuse_too(main, config: type, argv: tuple[str, ...], message: str,
                                      album: Path, tmp_path: Path) -> None:
    with pytest.raises((OptionError, CheckpointError), match=message):
        main(parse(config, ["--run", str(tmp_path), *(word.format(album) for word in argv)]))


def test_two_sets_of_one_name_are_refused(album: Path) -> None:
    spec = f"csv:{album / 'photos.csv'}@1-5"
    with pytest.raises(OptionError, match="both hold a set named photos"):
        evaluation.read_sets(spec, spec, "refuse")


def test_the_trained_model_is_gone_before_the_stages_are_read(album: Path, tmp_path: Path,
                                                             monkeypatch) -> None:
    """Beside another whole one, adapters on a 7B would not fit on the card that they fit on."""
    refs, load = [], train_rapo.load_models

    def loaded(*args: object) -> Models:
        models = load(*args)
        refs.extend(weakref.ref(vlm.hf) for vlm in (models.speaker, models.learner))
        return models

    def read(*args: object) -> None:
        raise UserError(f"{[ref() is None for ref in refs]}")

    monkeypatch.setattr(train_rapo, "load_models", loaded)
    monkeypatch.setattr(evaluation, "load_whole", read)
    with pytest.raises(UserError, match=r"\[True, True\]"):
        train_rapo.main(parse(RAPOConfig, rapo_options(album, tmp_path, steps="1",
                                                       dtype="bfloat16")))


@pytest.mark.parametrize("script", ["train_rapo.py", "train_sft.py", "build_cot.py", "eval.py"])
def test_help(script: str) -> None:
    done = run(script, "--help")
    assert done.returncode == 0 and "options:" in done.stdout and "--run" in done.stdout
