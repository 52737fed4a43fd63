"""RAPO: teach a multimodal LLM to rank and to score pictures as people do.

    python train_rapo.py           the whole road in the toy world, up to the table and the report
    python train_rapo.py --help    all options

Per step: draw pictures -> sample K answers each -> three rewards -> advantages -> clipped update.
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import train_sft
from eval import pictures
from nanoaes.ahead import ahead
from nanoaes.batching import token_batches
from nanoaes.checkpoint import cut_rows, read_rows, recover, set_aside, write_json
from nanoaes.clock import Timer, untimed
from nanoaes.completions import excerpt
from nanoaes.config import RAPOConfig, SFTConfig, inherit
from nanoaes.datasets import Example, Sets
from nanoaes.diary import Diary
from nanoaes.dry_run import planned, settled
from nanoaes.errors import at
from nanoaes.evaluation import STAGES_READ, Best, compare_stages, recorded
from nanoaes.graphs import Graphs
from nanoaes.inputs import Prompts
from nanoaes.judge import describe, judge
from nanoaes.logprob import fused_token_loss
from nanoaes.metrics import format_table
from nanoaes.models import Models, Reference, keep_sources, load_models, write_merged
from nanoaes.optimize import adamw, backward, take_step
from nanoaes.page.report import write_report
from nanoaes.parallel import by_first, enough, even, everyone, first, share, size, total
from nanoaes.patience import Patience
from nanoaes.predictions import EVALUATED
from nanoaes.progress import progress, say
from nanoaes.rapo import Tokens, add, advantages, rapo_loss, rollout_gap, token_loss, token_weights
from nanoaes.resume import Saves
from nanoaes.rollout import Rollouts, rollout
from nanoaes.runs import claim, keep_going, need_room
from nanoaes.same import as_saved, began_with
from nanoaes.sampler import StepSampler
from nanoaes.sampling import uniforms
from nanoaes.schedule import learning_rate, total_steps
from nanoaes.script import run_script
from nanoaes.stop import stopping
from nanoaes.toy import road as toy
from nanoaes.tracker import find
from nanoaes.vlm import VLM
from nanoaes.watch import warn_of_collapse


def train(cfg: RAPOConfig, models: Models, examples: list[Example], *, best: Best, diary: Diary,
          saves: Saves) -> None:
    """The loop. What did best on the held-out pictures is kept by `best`."""
    sampler = StepSampler([e.dataset for e in examples], cfg.images, cfg.seed)
    steps, said = total_steps(cfg, sampler), set()
    speaker, limit, clock = models.speaker, models.speaker.asking.max_new_tokens, diary.clock
    optimizer = adamw(models.trained, weight_decay=cfg.weight_decay)
    patience = Patience(optimizer)
    begun, mine = begin(cfg, models, optimizer, best, saves), share(cfg.images)

    def drawn(step: int) -> list[Example]:
        return [examples[i] for i in sampler.indices(step)]

    paths = (e.image for step in range(begun, steps) for e in drawn(step)[mine.start : mine.stop])
    with stopping() as stop, closing(ahead(paths, speaker.fit, len(mine))) as shown:
        for step in (bar := progress(range(begun, steps), "RAPO")):
            # 1. Draw N pictures and ask about this process's share of them.
            with clock("data"):
                batch = drawn(step)
                prompts = speaker.prompts([next(shown) for _ in mine])
            # 2. K answers each, from the policy as it is.
            with clock("rollout"), at(f"step {step + 1}"):
                rolls = rollout(
                    speaker, prompts, k=cfg.k, max_new_tokens=limit, temperature=cfg.temperature,
                    uniform=uniforms(cfg.seed, step, mine, cfg.k, limit),
                    tokens=cfg.tokens_per_micro_batch, graphs=best.graphs)
                answers = everyone(rolls.answers(speaker))
            # 3. Relative, absolute and format reward, over all pictures of the step.
            judged = judge(cfg, answers, batch)
            # 4. Each answer against its siblings.
            advantage, flat = advantages(judged.rewards.total, cfg.advantage)
            # 5. Clipped update with KL to the reference.
            lr = learning_rate(cfg, step, steps)
            row = {"step": step + 1, "epoch": (step + 1) * cfg.images / sampler.epoch_size,
                   **describe(judged, flat), "lr": lr}
            with clock("update"), patience.bear(judged, batch) as numbers:
                ours = advantage.float()[list(mine)].to(speaker.device)
                numbers |= update(cfg, models.learner, models.reference, optimizer,
                                  prompts=prompts, rolls=rolls, advantage=ours, lr=lr, step=step,
                                  clock=clock)
            models.refresh()
            # 6. Now and then: how does it score pictures that it was never trained on?
            if (step + 1) % cfg.eval_every == 0 or step + 1 == steps:
                with clock("eval"):
                    numbers |= best.consider(speaker, step + 1)
            row |= numbers
            diary.note(row, of=steps, prompts=prompts, rolls=rolls, batch=batch, judged=judged,
                       advantage=advantage)
            saves.after(step + 1, models.trained, optimizer, stop)
            said = warn_of_collapse(row, said)
            bar.set_postfix({k: f"{row[k]:.3f}" for k in
                             ("reward", "reward_rel", "reward_abs", "kl") if k in row})


def begin(cfg: RAPOConfig, models: Models, optimizer: torch.optim.Optimizer, best: Best,
          saves: Saves) -> int:
    """The cold start, or with --resume the newest state; returns how many steps are done."""
    state = saves.load(models.trained, optimizer) if cfg.resume else None
    if state is None:
        best.begin(models.speaker)
        return 0
    models.refresh()
    best.go_on()
    say(f"going on after step {state['step']}")
    return state["step"]


def update(cfg: RAPOConfig, policy: VLM, reference: Reference | None,
           optimizer: torch.optim.Optimizer, *, prompts: Prompts, rolls: Rollouts,
           advantage: Tensor, lr: float, step: int, clock: Timer = untimed) -> dict[str, float]:
    """mu gradient steps on this process's rollouts; advantage: (N, K), or (N, K, T) token by token.

    Returns:
        the last one's numbers; the rollout gap is the first one's, before the policy moves. The
        first one's loss is 0 but for the KL: the ratio is 1 and a group's advantages sum to 0.
        Its gradient is not.
    """
    counted = ~rolls.truncated if cfg.mask_truncated else torch.ones_like(rolls.truncated)
    weight = token_weights(rolls.mask, counted, total({"n": counted.sum()})["n"])
    paid = advantage.reshape(*advantage.shape[:2], -1).expand_as(rolls.mask)
    trained = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    with clock("reference"):
        logp_ref = reference_pass(cfg, reference, prompts, rolls) if reference else None
    known: list[Tokens] = []  # of each micro-batch, from the first update on
    gap: dict[str, Tensor] = {}
    for _ in range(cfg.updates):
        sums: dict[str, Tensor] = {}
        for i, (rows, part, counts) in enumerate(micro_batches(cfg, prompts, rolls)):
            logp, entropy = logprobs(cfg, policy, part, rolls, rows)
            if len(known) == i:  # the first update's own log-probs are the old ones
                old, mask = logp.detach(), rolls.mask[rows]
                known.append(Tokens(old, logp_ref[i] if logp_ref else old, paid[rows][mask],
                                    counts * weight[rows][mask]))
                add(gap, rollout_gap(old, rolls.logp[rows][mask], known[i].weight))
            stats = rapo_loss(logp, known[i], eps_low=cfg.eps_low, eps_high=cfg.eps_high,
                              beta=cfg.beta,
                              token_loss=fused_token_loss(cfg.backend, logp) or token_loss)
            backward(stats["loss"])
            if logp_ref is None:
                del stats["kl"]  # it would be the drift from the old policy
            add(sums, {**stats, "entropy": (known[i].weight * entropy).sum()})
        numbers = take_step(optimizer, trained, lr=lr, max_norm=cfg.max_grad_norm,
                            sums={**sums, **gap}, where=f"step {step + 1}")
    return numbers


@torch.no_grad()
def reference_pass(cfg: RAPOConfig, reference: Reference, prompts: Prompts, rolls: Rollouts
                   ) -> list[Tensor]:
    """Log-probs (M,) of each micro-batch under the cold-started model."""
    return [logprobs(cfg, reference, part, rolls, rows)[0]
            for rows, part, _ in micro_batches(cfg, prompts, rolls)]


def micro_batches(cfg: RAPOConfig, prompts: Prompts, rolls: Rollouts
                  ) -> Iterator[tuple[Tensor, Prompts, float]]:
    """Pictures (n,), their prompts, and what they count (1, or 0: see `even`), such that prompts
    and answers fill --tokens_per_micro_batch at most."""
    answers = rolls.mask.shape[1] * rolls.mask.sum(2).amax(1)  # attention pads to the longest
    lengths = torch.stack([prompts.mask.sum(1), answers], dim=1)
    for batch, counts in even(token_batches(lengths.tolist(), cfg.tokens_per_micro_batch)):
        rows = torch.tensor(batch, device=lengths.device)
        yield rows, prompts.select(rows), counts


def logprobs(cfg: RAPOConfig, model: VLM | Reference, part: Prompts, rolls: Rollouts, rows: Tensor
             ) -> tuple[Tensor, Tensor]:
    """Log-prob and entropy of the completion tokens of some pictures, both (M,)."""
    return model(part, rolls.ids[rows], rolls.mask[rows], cfg.temperature, cfg.backend)


def main(cfg: RAPOConfig) -> None:
    """Data, cold-started model, training, evaluation of all stages, report and table."""
    run = Path(cfg.run)
    enough("--images", cfg.images)
    if cfg.dry_run:
        epoch = by_first(lambda: len(pictures(cfg, run)[0])) if cfg.train else 0
        return say(planned(cfg, cfg.reference_kept, processes=size(), script="rapo", epoch=epoch))
    with ExitStack() as claimed:
        (examples, held, tests), stages, cfg, saves = by_first(
            partial(prepare, cfg, run, claimed, size()))
        models = load_models(stages["cold start"], cfg, cfg.reference_kept)
        begun = by_first(partial(make_room, cfg, run, models, saves))
        best = Best(run / "rapo", run / "metrics.jsonl", held, cfg,
                    Graphs() if models.speaker.device.type == "cuda" else None)
        diary = Diary(cfg, models.speaker, partial(draw, cfg, run), begun)
        claimed.callback(diary.tracker.close)
        train(cfg, models, examples, best=best, diary=diary, saves=saves)
        say(f"held-out checks took {best.share():.0%} of the time; the best, of step {best.step}, "
            f"is in {best.path}")
        best.graphs = models = None  # their memory is needed for the stages
        if cfg.lora_rank and cfg.merge:
            by_first(partial(write_merged, cfg, best.path, run / "rapo_merged"))
        report(cfg, {**stages, "RAPO": best.path}, tests, run, best.step)


def prepare(cfg: RAPOConfig, run: Path, claimed: ExitStack, processes: int
            ) -> tuple[tuple[list[Example], Sets, Sets], dict[str, Path], RAPOConfig, Saves]:
    """All that can be refused, before anything is moved: folder, pictures, stages, another run.

    Returns pictures, stages, the options with nothing left open, and the run's states.
    """
    keep_sources(cfg.model, "--run", run / "rapo", run / "rapo_merged")
    find(cfg.tracker)
    claimed.enter_context(claim(run, "train_rapo.py"))
    for name in ("backbone", "sft", "rapo", "rapo_merged"):
        recover(run / name)
    sets = pictures(cfg, run)
    StepSampler([e.dataset for e in sets[0]], cfg.images)
    stages = cold_start(cfg, run)
    begun = began_with(stages["cold start"], [(e.image, e.score) for e in sets[0]])
    state = Saves(run / "resume", cfg.keep_last).facts() if cfg.resume else None
    if state:
        recorded(run / "rapo")
        cfg = as_saved(cfg, begun, state)
    cfg = settled(cfg, stages["cold start"], cfg.reference_kept, processes=processes, script="rapo",
                  tested=max(len(examples) for _, examples in sets[2].values()))
    return sets, stages, cfg, Saves(run / "resume", cfg.keep_last, cfg.save_every,
                                    {"options": asdict(cfg), **begun})


def make_room(cfg: RAPOConfig, run: Path, models: Models, saves: Saves) -> int:
    """For what will be written; an earlier run's results are moved, or with --resume gone on with.

    Returns how many steps are done.
    """
    size = sum(p.numel() * p.element_size() for p in models.speaker.parameters())
    state = saves.facts() if cfg.resume else None
    need_room(run, (1 if state else 2) * size + saves.room(models.trained, bool(state)) + 2**24,
              "the best checkpoint, old and new, and --keep_last states of the run,")
    if not state:
        set_aside(run, ["metrics.jsonl", "completions.jsonl", "rapo", "rapo_merged", "report.html",
                        "resume", "tensorboard", *(path.name for path in run.glob("eval_*.json"))])
        write_json(run / "train_rapo.json", asdict(cfg))
        return 0
    set_aside(run, [f"{of}/{name}" for of in ("rapo", "rapo_merged") for name in EVALUATED])
    for name in ("metrics.jsonl", "completions.jsonl"):
        cut_rows(run / name, state["step"])
    return state["step"]


def report(cfg: RAPOConfig, stages: dict[str, Path], tests: Sets, run: Path, step: int) -> None:
    """Every stage on the test sets: `eval_*.json`, report, then the table."""
    evals = compare_stages(stages, tests, cfg, run)
    if not first():
        return
    remarks = [] if cfg.train else [f"{name}: {toy.remark(result, run / 'world')}"
                                    for name, result in evals.items()]
    remarks += [STAGES_READ, f"RAPO: the checkpoint of step {step}, the best on held-out pictures"]
    with keep_going("the report"):
        remarks.append(f"report: {draw(cfg, run, 0, evals, remarks).resolve()}")
    print(format_table(evals), *remarks, sep="\n")


def draw(cfg: RAPOConfig, run: Path, steps: int, evals: dict[str, dict] | None = None,
         remarks: Sequence[str] = ()) -> Path:
    """The report; `steps`, of the whole run, while that still goes on."""
    return write_report(run / "report.html", "Aes-R1" if cfg.train else "Aes-R1 in miniature",
                        read_rows(run / "metrics.jsonl"), evals or {}, vars(cfg), list(remarks),
                        answers=excerpt(run / "completions.jsonl"), steps=steps)


def cold_start(cfg: RAPOConfig, run: Path) -> dict[str, Path]:
    """The stages before RAPO: one's own model, or the toy's, made if missing."""
    if cfg.model:
        return {"cold start": Path(cfg.model)}
    if (run / "sft" / "nanoaes.json").is_file():
        say(f"using {run / 'sft'} as it is; remove it to train it again")
    else:
        # In bf16 FSDP would wait for the other processes, which wait for this one.
        train_sft.main(inherit(SFTConfig, cfg, dtype="float32"))
    return {"backbone": run / "backbone", "cold start": run / "sft"}


if __name__ == "__main__":
    run_script(main, RAPOConfig)
