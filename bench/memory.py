"""The memory that a RAPO step takes on a CPU against what `nanoaes/memory.py` said beforehand.

    python bench/memory.py               three sizes x full, LoRA, sharded x checkpointing or not
    python bench/memory.py --sizes toy   one size only

Each case runs in its own process: rollout, reference pass, update, twice, of 4 pictures of 500
tokens with 4 answers of 64, two pictures in a micro-batch. Measured are the allocator's own events
(torch.profiler), not the process's size: they count every tensor and no gap. "sharded" is FSDP2 on
one process in bf16, with its masters, its whole copy and its reference. The last line is JSON.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch: it measures the CPU's allocator
import torch
from models import SIZES, long_questions, machine, random_model
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

import train_rapo
from nanoaes.anatomy import anatomy
from nanoaes.config import RAPOConfig
from nanoaes.memory import Job, estimate
from nanoaes.models import Models
from nanoaes.optimize import adamw
from nanoaes.parallel import device
from nanoaes.rollout import rollout
from nanoaes.sampling import uniforms
from nanoaes.sharding import mesh, sharded
from nanoaes.vlm import VLM

SIZES["between"] = ((192, 768, 5, 4, 1, 1408, True), (4, 128, 344, 4))
MODES = ("full", "lora", "sharded")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
N, K, P, T, RANK = 4, 4, 500, 64, 16
TOKENS = 2 * (P + K * T)  # two pictures


def peak_of(function: Callable[[], object]) -> tuple[int, object]:
    """The largest sum of bytes that lived at a time, of those allocated in here; and the result."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = function()
    events, rest = [], list(seen.profiler.kineto_results.experimental_event_tree())
    while rest:
        event = rest.pop()
        rest += event.children
        if event.tag == _EventType.Allocation:
            events.append((event.start_time_ns, event.extra_fields.alloc_size))
    alive = most = 0
    for _, size in sorted(events, key=lambda x: x[0]):
        alive += size
        most = max(most, alive)
    return most, result


def make(size: str, mode: str) -> Models:
    """The roles, as `load_models` makes them."""
    vlm = random_model(size, torch.bfloat16 if mode == "sharded" else torch.float32)
    if mode == "lora":
        from nanoaes.lora import LoRA, as_reference, attach
        attach(vlm.hf, LoRA(RANK, 2.0 * RANK, TARGETS, False))

        def as_begun(*inputs):
            with as_reference(vlm.hf):
                return vlm(*inputs)
        return Models(vlm, vlm, as_begun)
    if mode == "full":
        return Models(vlm, vlm, copy.deepcopy(vlm).requires_grad_(False))
    vlm.requires_grad_(False)
    parts = partial(sharded, vlm, compute=torch.bfloat16, over=mesh(device("cpu"), 0))
    return Models(vlm, parts(blank=VLM.blank(*vlm.recipe), dtype=torch.float32,
                             frozen=lambda name: False),
                  parts(blank=VLM.blank(*vlm.recipe), dtype=torch.bfloat16,
                        frozen=lambda name: True, idle=True))


def nbytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of different storages; of a sharded tensor this process's part."""
    local = [getattr(x, "_local_tensor", x) for x in tensors]
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in local}
               .values())


def measure(size: str, mode: str, checkpointing: bool) -> dict[str, dict[str, int]]:
    """Peaks of this process and their estimates, by phase."""
    models = make(size, mode)
    if checkpointing:
        models.learner.checkpoint()
    images, question = long_questions(models.speaker, N, P)
    # The third one is shorter, so its micro-batches are no neighbours and are copied.
    asked = [question] * 2 + [question[:-1]] + [question] * (N - 3)
    prompts = models.speaker.prompts(images, asked)
    cfg = RAPOConfig(tokens_per_micro_batch=TOKENS)
    optimizer = adamw(models.trained, weight_decay=0.0)
    found = {"in rollout": 0, "in update": 0}
    for step in range(2):  # the second one's optimizer has its moments
        roles = [models.speaker, models.learner, models.reference]
        held = nbytes([x for role in roles if isinstance(role, VLM) for x in role.parameters()]
                      + [x for s in optimizer.state.values() for x in s.values()]
                      + [prompts.pixels])
        most, rolls = peak_of(lambda: rollout(
            models.speaker, prompts, k=K, max_new_tokens=T, tokens=TOKENS,
            uniform=uniforms(0, step, range(N), K, T)))  # noqa: B023
        found["in rollout"] = held + most
        most, _ = peak_of(lambda: train_rapo.update(
            cfg, models.learner, models.reference, optimizer, prompts=prompts, rolls=rolls,  # noqa: B023
            advantage=torch.randn(N, K), lr=1e-6, step=0))
        found["in update"] = held + most
        models.refresh()
    model, lora = anatomy(models.speaker.hf.config), mode == "lora"
    job = Job(model, TOKENS, P, 336, T, K, N, checkpointing=checkpointing, vision=not lora,
              reference="sharded", dtype="bfloat16" if mode == "sharded" else "float32",
              rank=RANK * lora, adapters=model.adapters(RANK * lora, TARGETS, False))
    said = estimate(job)
    return {"measured": found, "estimate": {name: said[name] for name in found}, "parts": said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=["toy", "between", "eighth"])
    parser.add_argument("--modes", nargs="*", default=MODES)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        size, mode, checkpointing = flags.one
        print(json.dumps(measure(size, mode, checkpointing == "True")))
        return
    print(machine(), "MB: estimate, measured, ratio", sep="\n")
    ratios = {}
    for size in flags.sizes:
        for mode in flags.modes:
            for checkpointing in (False, True):
                out = subprocess.run(
                    [sys.executable, __file__, "--one", size, mode, str(checkpointing)],
                    check=True, capture_output=True, text=True).stdout
                found = json.loads(out.splitlines()[-1])
                name = f"{size} {mode}{' checkpointing' * checkpointing}"
                for phase, real in found["measured"].items():
                    said = found["estimate"][phase]
                    print(f"{name:32} {phase:10} {said / 2**20:7.1f} {real / 2**20:7.1f} "
                          f"{said / real:5.2f}", flush=True)
                ratios[name] = round(max(found["estimate"].values())
                                     / max(found["measured"].values()), 3)
    print(json.dumps({"machine": machine(), "ratios": ratios,
                      "worst": max(ratios.values(), key=lambda x: abs(x - 1))}))


if __name__ == "__main__":
    main()
