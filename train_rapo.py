"""RAPO: teach a multimodal LLM to rank and to score pictures as people do.

    python train_rapo.py           the whole road in the toy world, up to the table and the report
    python train_rapo.py --help    all options

Per step: draw pictures -> sample K answers each -> three rewards -> advantages -> clipped update.
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import train_sft
from eval import Sets, evaluate_sets, read_sets
from nanoaes.batching import token_batches
from nanoaes.checkpoint import append_row, publish, read_rows, set_aside, write_json
from nanoaes.config import OptionError, RAPOConfig, SFTConfig, parse, save
from nanoaes.data import Example, load_image, read_all
from nanoaes.errors import UserError
from nanoaes.graphs import Graphs
from nanoaes.inputs import Prompts
from nanoaes.logprob import fused_token_loss, token_logprob
from nanoaes.metrics import format_table
from nanoaes.page.report import write_report
from nanoaes.prompt import PROMPTS, format_ok, parse_score
from nanoaes.rapo import advantages, rapo_loss, token_loss, token_weights
from nanoaes.reward import Rewards, rewards
from nanoaes.rollout import Rollouts, rollout
from nanoaes.sampler import StepSampler, by_dataset, hold_out
from nanoaes.toy.teacher import critique_quality
from nanoaes.toy.world import build_world, read_attributes, toy_specs
from nanoaes.vlm import VLM


@dataclass
class Judged:
    """What the rewards made of one step's answers."""

    scores: Tensor  # (N, K), 0 where not valid
    valid: Tensor  # (N, K) bool
    rewards: Rewards
    truth: Tensor  # (N,)


def judge(cfg: RAPOConfig, texts: list[str], batch: list[Example]) -> Judged:
    """Read N·K answers and reward them; the only place where text becomes reward."""
    n = len(batch)
    read = [parse_score(text) for text in texts]
    scores = torch.tensor([s or 0.0 for s in read]).view(n, -1)
    valid = torch.tensor([s is not None for s in read]).view(n, -1)
    well_formed = torch.tensor([format_ok(text) for text in texts]).view(n, -1)
    truth = torch.tensor([e.score for e in batch])
    spread = torch.tensor([float("nan") if e.std is None else e.std for e in batch])
    names = sorted({e.dataset for e in batch})
    group = torch.tensor([names.index(e.dataset) for e in batch])
    got = rewards(scores, valid, well_formed, truth, group, spread if cfg.soft_truth else None,
                  cfg.w_relative, cfg.w_absolute, cfg.w_format, cfg.sigma, cfg.ties)
    return Judged(scores, valid, got, truth)


def micro_batches(prompts: Prompts, rolls: Rollouts, tokens: int
                  ) -> Iterator[tuple[Tensor, Prompts]]:
    """Pictures (n,) and their prompts, such that prompts and answers fill `tokens` at most."""
    lengths = prompts.mask.sum(1) + rolls.mask.sum((1, 2))
    for batch in token_batches(lengths.tolist(), tokens):
        rows = torch.tensor(batch, device=lengths.device)
        yield rows, prompts.select(rows)


def logprobs(cfg: RAPOConfig, vlm: VLM, part: Prompts, rolls: Rollouts, rows: Tensor
             ) -> tuple[Tensor, Tensor]:
    """Log-prob and entropy of the completion tokens of some pictures, both (M,)."""
    ids, mask = rolls.ids[rows], rolls.mask[rows]
    return token_logprob(vlm(part, ids, mask), vlm.head, ids[mask], cfg.temperature, vlm.forbidden,
                         cfg.backend)


def update(cfg: RAPOConfig, policy: VLM, reference: VLM, optimizer: torch.optim.Optimizer,
           prompts: Prompts, rolls: Rollouts, advantage: Tensor) -> dict[str, float]:
    """mu gradient steps on one batch of rollouts; the numbers of the last one."""
    weight = token_weights(rolls.mask)
    token_advantage = advantage[..., None].expand_as(weight)
    parts = list(micro_batches(prompts, rolls, cfg.tokens_per_micro_batch))
    with torch.no_grad():
        logp_ref = [logprobs(cfg, reference, part, rolls, rows)[0] for rows, part in parts]
    logp_old: list[Tensor] = []
    trained = [p for p in policy.parameters() if p.requires_grad]
    for _ in range(cfg.updates):
        sums = torch.zeros(6)
        for i, (rows, part) in enumerate(parts):
            logp, entropy = logprobs(cfg, policy, part, rolls, rows)
            if len(logp_old) == i:  # the first update's own log-probs are the old ones
                logp_old.append(logp.detach())
            mask, w = rolls.mask[rows], weight[rows][rolls.mask[rows]]
            stats = rapo_loss(logp, logp_old[i], logp_ref[i], token_advantage[rows][mask], w,
                              cfg.eps_low, cfg.eps_high, cfg.beta,
                              fused_token_loss(cfg.backend, logp) or token_loss)
            stats.loss.backward()
            gap = (logp.detach() - rolls.logp[rows][mask]).abs() * w
            sums += torch.stack([stats.loss.detach(), stats.kl, stats.clip_low, stats.clip_high,
                                 (w * entropy).sum(), gap.sum()]).cpu()
        norm = torch.nn.utils.clip_grad_norm_(trained, cfg.max_grad_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"the gradient is {norm}, the sums are {sums.tolist()}")
        optimizer.step()
        optimizer.zero_grad()
    names = ("loss", "kl", "clip_low", "clip_high", "entropy", "rollout_gap")
    return dict(zip(names, sums.tolist(), strict=True)) | {"grad_norm": float(norm)}


def describe(judged: Judged, rolls: Rollouts, flat: Tensor) -> dict[str, float]:
    """The step's numbers that need no model."""
    r, readable = judged.rewards, judged.scores[judged.valid]
    return {
        "reward": r.total.mean().item(), "reward_rel": r.relative.mean().item(),
        "reward_abs": r.absolute.mean().item(), "reward_fmt": r.format.mean().item(),
        "format_rate": r.format.mean().item(), "parse_rate": judged.valid.float().mean().item(),
        "flat_groups": flat.float().mean().item(),
        "length": rolls.mask.sum(2).float().mean().item(),
        "truncated": rolls.truncated.float().mean().item(),
        "pred_std": readable.std().item() if len(readable) > 1 else 0.0,
        "truth_std": judged.truth.std().item(),
    }


def learning_rate(cfg: RAPOConfig, step: int) -> float:
    """Linear warm-up, then linear to 0."""
    # differs from the paper: it names no warm-up; a tiny model's first Adam steps need one.
    return cfg.lr * min((step + 1) / (cfg.warmup + 1), 1 - step / cfg.steps)


def train(cfg: RAPOConfig, policy: VLM, reference: VLM, examples: list[Example], held: Sets,
          run: Path) -> Path:
    """The loop. Returns the folder of the checkpoint that did best on the held-out pictures."""
    history, best_path, best = run / "metrics.jsonl", run / "rapo", float("-inf")
    sampler = StepSampler([e.dataset for e in examples], cfg.images, cfg.seed)
    generator = torch.Generator(policy.device).manual_seed(cfg.seed)
    policy.hf.model.visual.requires_grad_(cfg.train_vision)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=0.0,
                                  weight_decay=cfg.weight_decay)
    graphs = Graphs() if policy.device.type == "cuda" else None
    bar = tqdm(range(cfg.steps), "RAPO", mininterval=1)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(cfg, step)
        # 1. Draw N pictures and ask.
        batch = [examples[i] for i in sampler.indices(step)]
        prompts = policy.prompts([load_image(e.image) for e in batch],
                                 [PROMPTS[cfg.prompt]] * len(batch))
        # 2. K answers each, from the policy as it is.
        rolls = rollout(policy, prompts, cfg.k, cfg.max_new_tokens, cfg.temperature, generator,
                        graphs)
        # 3. Relative, absolute and format reward, over all pictures of the step.
        judged = judge(cfg, rolls.texts(policy.tokenizer), batch)
        # 4. Each answer against its siblings.
        advantage, flat = advantages(judged.rewards.total, cfg.advantage)
        # 5. Clipped update with KL to the reference.
        numbers = update(cfg, policy, reference, optimizer, prompts, rolls,
                         advantage.to(policy.device))
        row = {"step": step + 1, **describe(judged, rolls, flat), **numbers,
               "lr": learning_rate(cfg, step)}
        # 6. Now and then: how does it score pictures that it was never trained on?
        if (step + 1) % cfg.eval_every == 0 or step + 1 == cfg.steps:
            mean = evaluate_sets(policy, held, cfg, "held out", keep_bar=False)["mean"]["in"]
            row |= {"eval_plcc": mean["plcc"], "eval_srcc": mean["srcc"]}
            if mean["plcc"] + mean["srcc"] >= best:
                best = mean["plcc"] + mean["srcc"]
                with publish(best_path) as folder:
                    policy.save(folder)
        append_row(history, row)
        warn_of_collapse(row)
        bar.set_postfix({k: f"{row[k]:.3f}" for k in ("reward", "reward_rel", "reward_abs", "kl")})
    return best_path


def warn_of_collapse(row: dict) -> None:
    """Name what no reward can mend: unreadable answers, one score for all pictures."""
    if row["parse_rate"] < 0.5:
        tqdm.write(f"step {row['step']}: only {row['parse_rate']:.0%} of the answers were read; "
                   "is the model cold-started, and --prompt the one it was trained with?")
    elif row["pred_std"] < 0.3 * row["truth_std"] or row["flat_groups"] > 0.5:
        tqdm.write(f"step {row['step']}: collapse? the predictions spread {row['pred_std']:.3f}, "
                   f"the truth {row['truth_std']:.3f}; {row['flat_groups']:.0%} of the groups "
                   "have no spread (lower --lr, raise --beta or --temperature)")


def sets_of(cfg: RAPOConfig, run: Path) -> tuple[list[Example], Sets, Sets]:
    """(training pictures, held-out sets, test sets): all of the toy world, or all one's own."""
    named = cfg.train, cfg.test_in, cfg.test_ood
    if not any(named):
        toy = toy_specs(build_world(run / "world", cfg.seed))
        named = toy["train"], toy["test_in"], toy["test_ood"]
    elif not (cfg.train and cfg.model and (cfg.test_in or cfg.test_ood)):
        raise OptionError("one's own pictures need --train, --model and --test_in or --test_ood; "
                          "none of them: the toy world")
    train, test_in, test_ood = named
    examples, held = hold_out(read_all(train, "train", cfg.bad_images), cfg.heldout)
    return (examples, {name: ("in", part) for name, part in by_dataset(held).items()},
            read_sets(test_in, test_ood, cfg.bad_images))


def main(cfg: RAPOConfig) -> None:
    """Data, cold-started model, training, evaluation of all stages, table and report."""
    run = Path(cfg.run)
    if cfg.model and Path(cfg.model).resolve() == (run / "rapo").resolve():
        raise OptionError(f"--model {cfg.model}: this run would replace it; choose another --run")
    save(cfg, run / "train_rapo.json")
    examples, held, tests = sets_of(cfg, run)
    stages = {"cold start": Path(cfg.model) if cfg.model else run / "sft"}
    if not cfg.model:
        stages = {"backbone": run / "backbone", **stages}
        if (stages["cold start"] / "config.json").is_file():
            print(f"using {stages['cold start']} as it is; remove it to train it again")
        else:
            shared = {name: getattr(cfg, name) for name in
                      ("run", "heldout", "bad_images", "prompt", "max_pixels", "device", "backend",
                       "seed")}
            train_sft.main(SFTConfig(**shared))
    policy, reference = (VLM.load(stages["cold start"], max_pixels=cfg.max_pixels,
                                  device=cfg.device) for _ in range(2))
    reference.requires_grad_(False)
    set_aside(run, ["metrics.jsonl", "rapo", "report.html",
                    *(path.name for path in run.glob("eval_*.json"))])
    stages["RAPO"] = train(cfg, policy, reference, examples, held, run)
    del policy, reference  # their memory is needed for the stages
    compare(cfg, stages, tests, run)


def compare(cfg: RAPOConfig, stages: dict[str, Path], tests: Sets, run: Path) -> None:
    """Every stage on the test sets: table, `eval_*.json`, report."""
    evals, remarks = {}, []
    for name, path in stages.items():
        vlm = VLM.load(path, max_pixels=cfg.max_pixels, device=cfg.device)
        evals[name] = {"checkpoint": str(path), **evaluate_sets(vlm, tests, cfg, f"test: {name}")}
        write_json(run / f"eval_{name.replace(' ', '_')}.json", evals[name])
        if not cfg.train:
            named, right = critiques(evals[name], run / "world")
            remarks.append(f"{name}: critiques name {named:.1f} of 5 dimensions, "
                           f"{right:.0%} of them rightly")
    print(format_table(evals), *remarks, sep="\n")
    page = write_report(run / "report.html", "Aes-R1 in miniature" if not cfg.train else "Aes-R1",
                        read_rows(run / "metrics.jsonl"), evals, vars(cfg), remarks)
    print(f"report: {page.resolve()}")


def critiques(result: dict, world: Path) -> tuple[float, float]:
    """Toy world only: dimensions named per critique, and the share of them named rightly."""
    items = [item for part in result["sets"].values() for item in part["items"]]
    return critique_quality([i["text"] for i in items], [Path(i["image"]) for i in items],
                            read_attributes(world))


if __name__ == "__main__":
    try:
        main(parse(RAPOConfig))
    except UserError as error:
        sys.exit(f"train_rapo.py: {error}")
