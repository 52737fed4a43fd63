"""A whole RAPO step: one row per picture against K separate rows, and against TRL's GRPOTrainer.

    python bench/step.py                   FLOPs, wall-clock, memory on a CPU, 15 minutes and more
    python bench/step.py --only flops      one table: flops | wall | peak | trl
    python bench/step.py --sizes 3B 7B     on a GPU: random weights, bf16, 64 rows, P 500, T 256

A step is rollout, reference pass, policy forward and backward, update; P = 500, T = 250.
"Separate" is the same code with every prompt given K times and K = 1: vision tower and prompt run
K times. FLOPs: torch's counter on a quarter of Qwen2.5-VL-3B (depth and vocabulary; every part's
share stays), products counted but not computed. Wall-clock: an eighth of its width, N = 2; TRL's
whole step on the same, and on the toy (N = 16, K = 8, P = 23, T = 48), where little is shared;
needs `pip install trl`. The last line is JSON.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time

import torch
from models import (
    CUDA,
    alternate,
    long_prompts,
    long_questions,
    machine,
    random_model,
    seconds,
    toy_pictures,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import train_rapo
from nanoaes.config import RAPOConfig
from nanoaes.graphs import Graphs
from nanoaes.inputs import Prompts
from nanoaes.prompt import PROMPTS
from nanoaes.rollout import rollout
from nanoaes.sampling import uniforms
from nanoaes.vlm import VLM


class RapoStep:
    """One policy, a reference with the same weights, and one step of either kind."""

    def __init__(self, vlm: VLM, room: int, micro_batch: int = 10**9):
        self.policy, self.reference = vlm, vlm  # the reference pass costs the same on any weights
        self.room = room
        # Of either kind its own: together they would grow past what is kept between rollouts.
        self.graphs = {kind: Graphs() if CUDA else None for kind in (False, True)}
        self.cfg = RAPOConfig(tokens_per_micro_batch=micro_batch)
        self.optimizer = torch.optim.SGD(vlm.parameters(), lr=0.0)
        self.tokens = 0

    def __call__(self, prompts: Prompts, k: int, separate: bool = False) -> None:
        n = len(prompts.ids)
        if separate:
            images = torch.arange(n, device=prompts.ids.device).repeat_interleave(k)
            prompts, n, k = prompts.select(images), n * k, 1
        rolls = rollout(self.policy, prompts, k=k, max_new_tokens=self.room,
                        graphs=self.graphs[separate],
                        uniform=uniforms(0, 0, range(n), k, self.room))
        self.tokens = int(rolls.mask.sum())
        advantage = torch.randn(n, k, device=self.policy.device)
        train_rapo.update(self.cfg, self.policy, self.reference, self.optimizer,
                          prompts=prompts, rolls=rolls, advantage=advantage,
                          lr=self.optimizer.param_groups[0]["lr"], step=0)


class CountOnly(TorchDispatchMode):
    """Products return zeros of the right shape: a counter sees them, nobody computes them."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function._overloadpacket not in flop_registry or "out" in kwargs:
            return function(*args, **kwargs)
        place = next(x.device for x in args if isinstance(x, torch.Tensor))
        shapes = [x.to("meta") if isinstance(x, torch.Tensor) else x for x in args]
        result = function(*shapes, **kwargs)
        return torch.utils._pytree.tree_map_only(
            torch.Tensor, lambda x: torch.zeros(x.shape, dtype=x.dtype, device=place), result)


def flops(ks: tuple[int, ...] = (4, 8), room: int = 250) -> dict[str, float]:
    """`flops_ratio_k4`, `flops_ratio_k8`: shared over separate."""
    vlm = random_model("quarter", torch.bfloat16)
    prompts, result = long_prompts(vlm, 1), {}
    for k in ks:
        count = {}
        for name, separate in (("shared", False), ("separate", True)):
            step = RapoStep(vlm, room, micro_batch=1 if separate else 10**9)  # little memory
            # MATH: the counter knows plain products, not the CPU's fused attention
            with FlopCounterMode(display=False) as counter, CountOnly(), \
                    sdpa_kernel(SDPBackend.MATH):
                step(prompts, k, separate)
            count[name] = counter.get_total_flops()
            print(f"K {k} {name}: {count[name] / 1e12:.1f} TFLOP for {step.tokens} tokens",
                  flush=True)
        result[f"flops_ratio_k{k}"] = round(count["shared"] / count["separate"], 3)
    return result


def wall(rounds: int, size: str = "eighth", n: int = 2, ks: tuple[int, ...] = (4, 8),
         room: int = 250) -> dict[str, float]:
    """`wall_ratio_k4`, `wall_ratio_k8`: seconds of a separate step over a shared one."""
    vlm = random_model(size, torch.bfloat16 if CUDA else torch.float32)
    if CUDA:
        vlm.hf.gradient_checkpointing_enable()
    prompts, result = long_prompts(vlm, n), {}
    for k in ks:
        step = RapoStep(vlm, room, 16384)
        vlm.train()
        took = alternate({"shared": lambda: step(prompts, k),  # noqa: B023
                          "separate": lambda: step(prompts, k, True)}, rounds)  # noqa: B023
        for name, s in took.items():
            print(f"{size} N {n} K {k} {name}: {s:.3f} s a step, {step.tokens / s:.0f} tokens/s",
                  flush=True)
        result[f"wall_ratio_k{k}"] = round(took["separate"] / took["shared"], 2)
    return result


def peak_of(k: int, separate: bool) -> float:
    """MB that one step adds to the model, all rows in one micro-batch. CPU: in this process."""
    vlm = random_model("eighth", torch.float32)
    prompts, step = long_prompts(vlm, 1), RapoStep(vlm, 250)
    for p in vlm.parameters():
        p.grad = torch.zeros_like(p)
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(prompts, k, separate)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(prompts, k, separate)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def peak(k: int = 8) -> dict[str, float]:
    """`peak_ratio_k8`: shared over separate; a process each, since a CPU's peak never falls."""
    mb = {}
    for name in ("shared", "separate"):
        out = subprocess.run([sys.executable, __file__, "--peak-of", name, str(k)], check=True,
                             capture_output=True, text=True).stdout
        mb[name] = float(out.split()[-1])
        print(f"K {k} {name}: {mb[name]:.0f} MB beyond the model", flush=True)
    return {f"peak_ratio_k{k}": round(mb["shared"] / mb["separate"], 3)}


def trl(rounds: int, size: str, n: int, k: int, room: int, images: list, question: str) -> float:
    """Seconds of TRL's step over ours, in turns within TRL's own loop."""
    from trl_step import run_trl
    ours, theirs = random_model(size, torch.float32), random_model(size, torch.float32)
    step = RapoStep(ours, room, RAPOConfig().tokens_per_micro_batch)
    step.reference = random_model(size, torch.float32)
    step.optimizer = torch.optim.AdamW(ours.parameters(), lr=1e-6)

    def one() -> float:
        return seconds(lambda: step(ours.prompts(images, [question] * n), k))

    with tempfile.TemporaryDirectory() as folder:
        took = run_trl(theirs, folder, images, question, k, room, rounds, one)
    for name, s in took.items():
        print(f"{size} N {n} K {k} T {room} {name}: {s:.3f} s a step", flush=True)
    return round(took["trl"] / took["ours"], 2)


def against_trl(rounds: int) -> dict[str, float | None]:
    """`step_vs_trl` at the paper's lengths, `step_vs_trl_toy` at the toy's."""
    if importlib.util.find_spec("trl") is None:
        print("TRL: not installed (pip install trl)")
        return {"step_vs_trl": None, "step_vs_trl_toy": None}
    images, question = long_questions(random_model("eighth", torch.float32), 2)
    return {"step_vs_trl": trl(rounds, "eighth", 2, 8, 250, images, question),
            "step_vs_trl_toy": trl(2 * rounds, "toy", 16, 8, 48, toy_pictures(16),
                                   PROMPTS["short"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["flops", "wall", "peak", "trl"])
    parser.add_argument("--sizes", nargs="*", default=[], help="3B 7B: random weights, needs CUDA")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.peak_of:
        print(peak_of(int(flags.peak_of[1]), flags.peak_of[0] == "separate"))
        return
    print(machine())
    started, result = time.perf_counter(), {}
    for size in flags.sizes:
        torch.cuda.reset_peak_memory_stats()
        found = wall(flags.rounds, size, n=16, ks=(4,), room=256)
        peak_gb = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        result |= {f"{key}_{size}": value for key, value in found.items()}
        result |= {f"peak_gb_{size}": peak_gb}
    if not flags.sizes:
        tables = {"flops": flops, "wall": lambda: wall(flags.rounds), "peak": peak,
                  "trl": lambda: against_trl(flags.rounds)}
        for name, table in tables.items():
            if flags.only in (None, name):
                result |= table()
    print(f"{time.perf_counter() - started:.0f} s")
    print(json.dumps({"machine": machine(), **result}))


if __name__ == "__main__":
    main()
