"""RAPO: teach a multimodal LLM to rank and to score pictures as people do.

    python train_rapo.py           the whole road in the toy world, up to the table and the report
    python train_rapo.py --help    all options

Per step: draw pictures -> sample K answers each -> three rewards -> advantages -> clipped update.
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import train_sft
from eval import Best, Sets, compare, read_sets
from nanoaes.batching import token_batches
from nanoaes.checkpoint import append_row, read_rows, recover, set_aside, write_json
from nanoaes.config import OptionError, RAPOConfig, SFTConfig, inherit, run_script
from nanoaes.data import Example, load_image, read_all
from nanoaes.errors import at
from nanoaes.graphs import Graphs
from nanoaes.inputs import Prompts
from nanoaes.logprob import fused_token_loss, token_logprob
from nanoaes.metrics import format_table
from nanoaes.optimize import take_step
from nanoaes.page.report import write_report
from nanoaes.progress import progress, say
from nanoaes.prompt import format_ok, parse_score
from nanoaes.rapo import Tokens, advantages, rapo_loss, token_loss, token_weights
from nanoaes.reward import Rewards, Truth, rewards
from nanoaes.rollout import Rollouts, rollout
from nanoaes.runs import claim, keep_going, need_room, refuse_overwrite
from nanoaes.sampler import StepSampler, by_dataset, hold_out
from nanoaes.sampling import uniforms
from nanoaes.toy import road as toy
from nanoaes.vlm import VLM
from nanoaes.watch import warn_of_collapse


@dataclass
class Judged:
    """What the rewards made of one step's answers; all in fp64."""

    scores: Tensor  # (N, K), 0 where not valid
    valid: Tensor  # (N, K) bool
    rewards: Rewards
    truth: Truth


def train(cfg: RAPOConfig, policy: VLM, reference: VLM | None, examples: list[Example],
          best: Best) -> None:
    """The loop. What did best on the held-out pictures is kept by `best`."""
    sampler = StepSampler([e.dataset for e in examples], cfg.images, cfg.seed)
    steps, said = total_steps(cfg, sampler), set()
    policy.hf.model.visual.requires_grad_(cfg.train_vision)
    trained = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), weight_decay=cfg.weight_decay)
    best.begin(policy)
    for step in (bar := progress(range(steps), "RAPO")):
        # 1. Draw N pictures and ask.
        batch = [examples[i] for i in sampler.indices(step)]
        prompts = policy.prompts([load_image(e.image) for e in batch])
        # 2. K answers each, from the policy as it is.
        limit = policy.asking.max_new_tokens
        with at(f"step {step + 1}"):
            rolls = rollout(
                policy, prompts, k=cfg.k, max_new_tokens=limit, temperature=cfg.temperature,
                uniform=uniforms(cfg.seed, step, range(len(batch)), cfg.k, limit),
                tokens=cfg.tokens_per_micro_batch, graphs=best.graphs)
        # 3. Relative, absolute and format reward, over all pictures of the step.
        judged = judge(cfg, rolls.texts(policy), batch)
        # 4. Each answer against its siblings.
        advantage, flat = advantages(judged.rewards.total, cfg.advantage)
        # 5. Clipped update with KL to the reference.
        lr = learning_rate(cfg, step, steps)
        numbers = update(cfg, policy, reference, optimizer, prompts=prompts, rolls=rolls,
                         advantage=advantage.float().to(policy.device), lr=lr, step=step)
        row = {"step": step + 1, "epoch": (step + 1) * cfg.images / sampler.epoch_size,
               **describe(judged, rolls, flat), **numbers, "lr": lr}
        # 6. Now and then: how does it score pictures that it was never trained on?
        if (step + 1) % cfg.eval_every == 0 or step + 1 == steps:
            row |= best.consider(policy, step + 1)
        with keep_going(f"the row of step {step + 1}", say):
            append_row(best.history, row)
        said = warn_of_collapse(row, said)
        bar.set_postfix({k: f"{row[k]:.3f}" for k in ("reward", "reward_rel", "reward_abs", "kl")
                         if k in row})


def judge(cfg: RAPOConfig, texts: list[str], batch: list[Example]) -> Judged:
    """Read N·K answers and reward them; the only place where text becomes reward."""
    n = len(batch)
    read = [parse_score(text) for text in texts]
    scores = torch.tensor([s or 0.0 for s in read], dtype=torch.float64).view(n, -1)
    valid = torch.tensor([s is not None for s in read]).view(n, -1)
    well_formed = torch.tensor([format_ok(text) for text in texts]).view(n, -1)
    names = sorted({e.dataset for e in batch})
    spread = torch.tensor([math.nan if e.std is None else e.std for e in batch],
                          dtype=torch.float64)
    truth = Truth(torch.tensor([e.score for e in batch], dtype=torch.float64),
                  spread if cfg.soft_truth else None,
                  torch.tensor([names.index(e.dataset) for e in batch]))
    return Judged(scores, valid, rewards(
        scores, valid, well_formed, truth, w_relative=cfg.w_relative, w_absolute=cfg.w_absolute,
        w_format=cfg.w_format, sigma=cfg.sigma, ties=cfg.ties), truth)


def update(cfg: RAPOConfig, policy: VLM, reference: VLM | None, optimizer: torch.optim.Optimizer, *,
           prompts: Prompts, rolls: Rollouts, advantage: Tensor, lr: float, step: int
           ) -> dict[str, float]:
    """mu gradient steps on one batch of rollouts.

    Returns:
        the last one's numbers; the rollout gap is the first one's, before the policy moves. The
        first one's loss is 0 but for the KL: the ratio is 1 and a group's advantages sum to 0.
        Its gradient is not.
    """
    weight = token_weights(rolls.mask, ~rolls.truncated if cfg.mask_truncated else None)
    trained = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    logp_ref = reference_pass(cfg, reference, prompts, rolls) if reference is not None else None
    known: list[Tokens] = []  # of each micro-batch, from the first update on
    gap: dict[str, Tensor] = {}
    for _ in range(cfg.updates):
        sums: dict[str, Tensor] = {}
        for i, (rows, part) in enumerate(micro_batches(prompts, rolls, cfg.tokens_per_micro_batch)):
            logp, entropy = logprobs(cfg, policy, part, rolls, rows)
            if len(known) == i:  # the first update's own log-probs are the old ones
                old, mask = logp.detach(), rolls.mask[rows]
                known.append(Tokens(old, logp_ref[i] if logp_ref else old,
                                    advantage[rows][..., None].expand_as(mask)[mask],
                                    weight[rows][mask]))
                add(gap, rollout_gap(old, rolls.logp[rows][mask], known[i].weight))
            stats = rapo_loss(logp, known[i], eps_low=cfg.eps_low, eps_high=cfg.eps_high,
                              beta=cfg.beta,
                              token_loss=fused_token_loss(cfg.backend, logp) or token_loss)
            stats["loss"].backward()
            if logp_ref is None:
                del stats["kl"]  # it would be the drift from the old policy
            add(sums, {**stats, "entropy": (known[i].weight * entropy).sum()})
        numbers = take_step(optimizer, trained, lr=lr, max_norm=cfg.max_grad_norm,
                            sums={**sums, **gap}, where=f"step {step + 1}")
    return numbers


@torch.no_grad()
def reference_pass(cfg: RAPOConfig, reference: VLM, prompts: Prompts, rolls: Rollouts
                   ) -> list[Tensor]:
    """Log-probs (M,) of each micro-batch under the cold-started model."""
    return [logprobs(cfg, reference, part, rolls, rows)[0]
            for rows, part in micro_batches(prompts, rolls, cfg.tokens_per_micro_batch)]


def micro_batches(prompts: Prompts, rolls: Rollouts, tokens: int
                  ) -> Iterator[tuple[Tensor, Prompts]]:
    """Pictures (n,) and their prompts, such that prompts and answers fill `tokens` at most."""
    answers = rolls.mask.shape[1] * rolls.mask.sum(2).amax(1)  # attention pads to the longest
    lengths = torch.stack([prompts.mask.sum(1), answers], dim=1)
    for batch in token_batches(lengths.tolist(), tokens):
        rows = torch.tensor(batch, device=lengths.device)
        yield rows, prompts.select(rows)


def logprobs(cfg: RAPOConfig, vlm: VLM, part: Prompts, rolls: Rollouts, rows: Tensor
             ) -> tuple[Tensor, Tensor]:
    """Log-prob and entropy of the completion tokens of some pictures, both (M,)."""
    ids, mask = rolls.ids[rows], rolls.mask[rows]
    return token_logprob(vlm(part, ids, mask), vlm.head, ids[mask], cfg.temperature, vlm.forbidden,
                         backend=cfg.backend)


def rollout_gap(logp: Tensor, sampled: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """|log-prob in training − when sampled| of the same weights: mean, maximum, share above .05.

    What it is above rounding, the ratio is wrong by.
    """
    gap = (logp - sampled).abs()
    return {"rollout_gap": (weight * gap).sum(), "rollout_gap_max": gap.max(),
            "rollout_gap_share": (weight * (gap > 0.05)).sum()}


def add(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    """A micro-batch's numbers to the step's, on the device: sums, and one maximum."""
    for name, x in more.items():
        x = x.detach()
        join = torch.maximum if name.endswith("_max") else torch.add
        sums[name] = join(sums[name], x) if name in sums else x


def describe(judged: Judged, rolls: Rollouts, flat: Tensor) -> dict[str, float]:
    """The step's numbers that need no model."""
    r, readable = judged.rewards, judged.scores[judged.valid]
    return {
        "reward": r.total.mean().item(), "reward_rel": r.relative.mean().item(),
        "reward_abs": r.absolute.mean().item(), "reward_fmt": r.format.mean().item(),
        "format_rate": r.format.mean().item(), "parse_rate": judged.valid.double().mean().item(),
        "flat_groups": flat.double().mean().item(),
        "length": rolls.mask.sum(2).double().mean().item(),
        "truncated": rolls.truncated.double().mean().item(),
        "pred_std": readable.std().item() if len(readable) > 1 else 0.0,
        "truth_std": judged.truth.score.std().item(),
    }


def total_steps(cfg: RAPOConfig, sampler: StepSampler) -> int:
    """--epochs or --steps as steps; says what they are in passes over the pictures."""
    steps = math.ceil(cfg.epochs * sampler.epoch_size / cfg.images) or cfg.steps
    say(f"RAPO: {steps} steps of {cfg.images} pictures x {cfg.k} answers, "
        f"{steps * cfg.images / sampler.epoch_size:.1f} passes over {sampler.epoch_size} pictures")
    return steps


def learning_rate(cfg: RAPOConfig, step: int, steps: int) -> float:
    """Linear warm-up, then from the full rate linearly to 0."""
    # differs from the paper: it names no warm-up; a tiny model's first Adam steps need one.
    if step < cfg.warmup:
        return cfg.lr * (step + 1) / (cfg.warmup + 1)
    return cfg.lr * (steps - step) / (steps - cfg.warmup)


def main(cfg: RAPOConfig) -> None:
    """Data, cold-started model, training, evaluation of all stages, report and table."""
    run = Path(cfg.run)
    if cfg.model:
        refuse_overwrite(Path(cfg.model), run / "rapo", "--run")
    with claim(run, "train_rapo.py"):
        for name in ("backbone", "sft", "rapo"):
            recover(run / name)
        # First all that can be refused; only then is an earlier result moved.
        examples, held, tests = pictures(cfg, run)
        StepSampler([e.dataset for e in examples], cfg.images)
        stages = cold_start(cfg, run)
        policy = VLM.load(stages["cold start"], **cfg.loading())
        size = sum(p.numel() * p.element_size() for p in policy.parameters())
        need_room(run, 2 * size + 2**24, "the best checkpoint, old and new,")
        reference = copy.deepcopy(policy).requires_grad_(False) if cfg.beta else None
        set_aside(run, ["metrics.jsonl", "rapo", "report.html",
                        *(path.name for path in run.glob("eval_*.json"))])
        write_json(run / "train_rapo.json", asdict(cfg))
        best = Best(run / "rapo", run / "metrics.jsonl", held, cfg,
                    Graphs() if policy.device.type == "cuda" else None)
        train(cfg, policy, reference, examples, best)
        say(f"held-out checks took {best.share():.0%} of the time; the best, of step {best.step}, "
            f"is in {best.path}")
        del policy, reference  # their memory is needed for the stages
        best.graphs = None
        report(cfg, {**stages, "RAPO": best.path}, tests, run, best.step)


def report(cfg: RAPOConfig, stages: dict[str, Path], tests: Sets, run: Path, step: int) -> None:
    """Every stage on the test sets: `eval_*.json`, report, then the table."""
    evals = compare(stages, tests, cfg, run)
    remarks = [] if cfg.train else [f"{name}: {toy.remark(result, run / 'world')}"
                                    for name, result in evals.items()]
    remarks.append(f"RAPO: the checkpoint of step {step}, the best on held-out pictures")
    with keep_going("the report", say):
        page = write_report(run / "report.html", "Aes-R1" if cfg.train else "Aes-R1 in miniature",
                            read_rows(run / "metrics.jsonl"), evals, vars(cfg), remarks)
        remarks.append(f"report: {page.resolve()}")
    print(format_table(evals), *remarks, sep="\n")


def pictures(cfg: RAPOConfig, run: Path) -> tuple[list[Example], Sets, Sets]:
    """(training pictures, held-out sets, test sets): all of the toy world, or all one's own."""
    named = cfg.train, cfg.test_in, cfg.test_ood
    if not any(named):
        named = toy.sets(run / "world", cfg.seed)
    elif not (cfg.train and cfg.model and (cfg.test_in or cfg.test_ood)):
        raise OptionError("one's own pictures need --train, --model and --test_in or --test_ood; "
                          "none of them: the toy world")
    train, test_in, test_ood = named
    examples, held = hold_out(read_all(train, "train", cfg.bad_images), cfg.heldout)
    return (examples, {name: ("in", part) for name, part in by_dataset(held).items()},
            read_sets(test_in, test_ood, cfg.bad_images))


def cold_start(cfg: RAPOConfig, run: Path) -> dict[str, Path]:
    """The stages before RAPO: one's own model, or the toy's, made if missing."""
    if cfg.model:
        return {"cold start": Path(cfg.model)}
    if (run / "sft" / "config.json").is_file():
        say(f"using {run / 'sft'} as it is; remove it to train it again")
    else:
        train_sft.main(inherit(SFTConfig, cfg))
    return {"backbone": run / "backbone", "cold start": run / "sft"}


if __name__ == "__main__":
    run_script(main, RAPOConfig)
