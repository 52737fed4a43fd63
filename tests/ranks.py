"""What several processes do in tests/test_parallel.py: started by `spawn`, they run CASES and save
what came out, each in its own file. Started alone, one process does the same without a group.
"""

import nanoaes  # noqa: F401  before torch: see there

# isort: split
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import warm
from kin import tiny_kin
from tiny import pictures, tiny_vlm
from torch import nn
from torch.distributed.tensor import DTensor

import train_rapo
from nanoaes import parallel
from nanoaes.checkpoint import read_rows  # noqa: F401  for the tests
from nanoaes.config import RAPOConfig, SFTConfig
from nanoaes.models import DTYPES, Models, load_models
from nanoaes.optimize import take_step
from nanoaes.rapo import advantages
from nanoaes.reward import Truth, rewards
from nanoaes.rollout import rollout
from nanoaes.sampling import uniforms
from nanoaes.sft import Lesson, learn
from nanoaes.vlm import VLM

HERE = Path(__file__)
N, K, T, STEPS = 5, 3, 8, 2  # 5 pictures: no number of processes shares them evenly
CASES: dict[str, dict[str, Any]] = {
    "toy": dict(reference="cpu"),
    "fp64": dict(kind="qwen2_5", dtype="float64", tied=False),
    "qwen2": dict(kind="qwen2", tied=False, updates=2, gradient_checkpointing=True,
                  train_vision=False),
    "qwen3": dict(kind="qwen3"),
    "lora": dict(lora_rank=4, lora_vision=True, lora_targets="q_proj,down_proj,qkv"),
    "bf16": dict(dtype="bfloat16"),
}


def models_folder(root: Path) -> None:
    """A model for each case, and one to be its reference."""
    for name, case in CASES.items():
        for seed in 0, 1:
            if "kind" in case:
                vlm = tiny_kin(case["kind"], seed=seed, scale=1.2)
                if not case.get("tied", True):
                    untie(vlm)
            else:
                vlm = tiny_vlm(seed)
            vlm.stop_ids = [vlm.stop_ids[0], *range(100, 200)]  # by chance: answers end ragged
            vlm.asking = dataclasses.replace(vlm.asking, max_new_tokens=T)
            vlm.save(root / f"{name} {seed}")


def untie(vlm: VLM) -> None:
    """A head of its own."""
    head = vlm.hf.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone().roll(1, 0))
    for config in (vlm.hf.config, vlm.hf.config.text_config):
        config.tie_word_embeddings = False


def of_case(root: Path, name: str) -> tuple[RAPOConfig, Models]:
    """The policy of seed 0 against the reference of seed 1, so that the KL has a gradient."""
    case = {k: v for k, v in CASES[name].items() if k not in ("kind", "tied")}
    # Small micro-batches, so that their numbers differ between processes.
    cfg = RAPOConfig(k=K, images=N, beta=0.1, tokens_per_micro_batch=150, lr=1e-3, device="cpu",
                     shard=int(os.environ.get("SHARD", "0")), max_grad_norm=0.5, **case)
    models = load_models(root / f"{name} 0", cfg)
    models.reference = load_models(root / f"{name} 1", cfg, cfg.reference).reference
    return cfg, models


def rapo_steps(root: Path, name: str) -> dict[str, Any]:
    """STEPS steps as in `train_rapo.train`: answers, rewards, first gradients, last weights."""
    cfg, models = of_case(root, name)
    optimizer = torch.optim.AdamW(models.trained.values(), eps=1e-3)
    out: dict[str, Any] = {"answers": [], "rewards": [], "rows": [], "counts": [], "raw": []}
    truth = Truth(torch.linspace(0, 1, N, dtype=torch.float64), None, torch.zeros(N))
    first = None
    for step in range(STEPS):
        mine = parallel.share(N)
        prompts = models.speaker.prompts([pictures(N, step)[i] for i in mine])
        rolls = rollout(models.speaker, prompts, k=K, max_new_tokens=T,
                        uniform=uniforms(0, step, mine, K, T), tokens=100)
        answers = parallel.everyone(rolls.answers(models.speaker))
        # Readable or not by the text's length: untrained models write no scores.
        length = torch.tensor([[len(a.text) for a in row] for row in answers])
        reward = rewards((length % 97).double() / 97, length % 5 > 0, length % 2 == 0, truth,
                         w_relative=1, w_absolute=1, w_format=1, sigma=0.1, ties="half")
        advantage, _ = advantages(reward.total)
        first = first or watch_first_step(optimizer, models)
        row = train_rapo.update(
            cfg, models.learner, models.reference, optimizer, prompts=prompts, rolls=rolls,
            advantage=advantage.float()[list(mine)], lr=1e-3, step=step)
        models.refresh()
        out["answers"].append([[a.text for a in r] for r in answers])
        out["rewards"].append(reward.total)
        out["rows"].append(row)
        with monkeyed(lambda n: n):
            out["raw"].append(len(list(train_rapo.micro_batches(cfg, prompts, rolls))))
        out["counts"].append(len(list(train_rapo.micro_batches(cfg, prompts, rolls))))
    out["held"] = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel()
                      for p in models.trained.values())
    out["all"] = sum(p.numel() for p in models.trained.values())
    weights = {n: parallel.whole(p.detach()) for n, p in models.trained.items()}
    spoken = {n: p.detach() for n, p in models.speaker.named_parameters()}
    return {**out, "gradients": first.gradients, "weights": weights, "spoken": spoken}


@contextmanager
def monkeyed(most: Callable[[int], int]) -> Iterator[None]:
    """As if no process waited for another."""
    real, parallel.most = parallel.most, most
    try:
        yield
    finally:
        parallel.most = real


def watch_first_step(optimizer: torch.optim.Optimizer, models: Models) -> SimpleNamespace:
    """Keep the (clipped) gradients that the optimizer's first step is given."""
    seen = SimpleNamespace(gradients={})

    def before(*_: Any) -> None:
        if not seen.gradients:
            seen.gradients = {n: parallel.whole(p.grad).clone() for n, p in models.trained.items()
                              if p.grad is not None}

    optimizer.register_step_pre_hook(before)
    return seen


def sft_steps(root: Path) -> dict[str, Any]:
    """Two steps of the cold start on five lessons."""
    cfg = SFTConfig(device="cpu", train_vision=True, shard=int(os.environ.get("SHARD", "0")))
    models = load_models(root / "toy 0", cfg)
    optimizer = torch.optim.AdamW(models.trained.values(), eps=1e-3)
    every = [Lesson(image, "Judge.", "soft light and calm colours, " * (1 + i))
             for i, image in enumerate(pictures(5))]
    rows = []
    for _ in range(2):
        sums = learn(models.learner, [every[i] for i in parallel.share(5)], 150, "auto")
        rows.append(take_step(optimizer, models.trained, lr=1e-3, max_norm=0.5, sums=sums,
                              where="sft"))
    return {"rows": rows,
            "weights": {n: parallel.whole(p.detach()) for n, p in models.trained.items()}}


def run(root: Path, out: Path) -> None:
    """All cases, one after another."""
    torch.set_num_threads(1)
    DTYPES["float64"] = torch.float64
    with parallel.together("cpu"):
        named = os.environ.get("CASES", ",".join(CASES)).split(",")
        results = {name: rapo_steps(root, name) for name in named}
        results["sft"] = sft_steps(root)
        torch.save(results, out / f"{parallel.rank()}.pt")


def spawn(world: int, script: list[str], timeout: float = 240, **more: str
          ) -> list[subprocess.CompletedProcess]:
    """`world` processes of one group; their ends. A hang ends the test."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    return warm.run(script, [
        {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(r),
         "LOCAL_RANK": str(r), "WORLD_SIZE": str(world), **more} for r in range(world)], timeout)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
