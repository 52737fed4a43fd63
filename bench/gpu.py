"""What a card makes of a RAPO step at full size: memory, seconds, tokens/s, MFU, against the limit.

    python bench/gpu.py                         3B full and 7B with adapters, random weights
    torchrun --nproc-per-node 8 -- bench/gpu.py --settings 7B-full
    python bench/gpu.py --settings toy-full toy-lora --steps 3       (the default without a GPU)

P 500, T 250, K 8; every answer runs to the limit. The step is the project's own:
`rollout`, `train_rapo.update`, `Models.refresh`; only pictures and rewards are made up. Memory is
held against `memory.estimate`, seconds against `roofline.seconds`. A decode step's launches per
layer come first, since they decide what CUDA graphs can gain. Prints a table a setting; the last
line is JSON.
Left out: the tables of head, rollout and step, which have scripts of their own (RESULTS.md, end).
"""

import argparse
import gc
import json
import statistics
from dataclasses import replace

import torch
from models import CUDA, long_prompts, machine, random_model, toy_prompts
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import train_rapo
from nanoaes.anatomy import anatomy
from nanoaes.budget import free_memory, micro_batch_tokens
from nanoaes.clock import Clock, peak_memory, throughput
from nanoaes.config import RAPOConfig
from nanoaes.dry_run import job_of
from nanoaes.graphs import Graphs
from nanoaes.memory import estimate
from nanoaes.models import roles
from nanoaes.optimize import adamw
from nanoaes.parallel import device, first, size, together
from nanoaes.rollout import rollout
from nanoaes.roofline import card_of, model_flops
from nanoaes.roofline import seconds as least
from nanoaes.sampling import uniforms
from nanoaes.vlm import VLM

K, ROOM = 8, 250 if CUDA else 24


def config_of(kind: str, images: int) -> RAPOConfig:
    """bf16 with checkpointing, as the presets; 3B's reference on one card waits in CPU memory."""
    return RAPOConfig(dtype="bfloat16", gradient_checkpointing=True, k=K, images=images,
                      tokens_per_micro_batch=0, lora_rank=64 * (kind == "lora"), train_vision=True,
                      reference="cpu" if size() == 1 and kind == "full" else "sharded")


def launches(vlm: VLM, prompts) -> float:
    """What a decode step launches per layer, without graphs: kernels on CUDA, operators on a CPU.

    The difference of two rollouts, one token apart.
    """
    rollout(vlm, prompts, k=1, max_new_tokens=2, temperature=0)  # what is loaded at first

    def count(room: int) -> int:
        activity = ProfilerActivity.CUDA if CUDA else ProfilerActivity.CPU
        with profile(activities=[activity]) as seen:
            rollout(vlm, prompts, k=1, max_new_tokens=room, temperature=0)
        # With CUDA alone the runtime's calls are recorded, too: each launch would count twice.
        return sum(e.count for e in seen.key_averages() if (
            e.device_type == DeviceType.CUDA if CUDA else e.key.startswith("aten::")))

    return (count(3) - count(2)) / len(vlm.hf.model.language_model.layers)


def run(setting: str, images: int, steps: int) -> dict:
    """One setting's numbers."""
    gc.collect()  # the setting before: FSDP's modules hold each other
    if CUDA:
        torch.cuda.empty_cache()
    name, _, kind = setting.partition("-")
    cfg, vlm = config_of(kind, images * size()), random_model(name, torch.bfloat16)
    prompts = toy_prompts(vlm, images) if name == "toy" else long_prompts(vlm, images)
    per_layer = launches(vlm, prompts)
    p, picture = prompts.ids.shape[1], int((prompts.ids == vlm.image_id).sum()) // images
    job = replace(job_of(cfg, anatomy(vlm.hf.config), vlm.asking, processes=size(), cuda=CUDA,
                         side=vlm.patch * vlm.merge, reference=cfg.reference),
                  prompt=p, picture=picture, answer=ROOM, held=0)
    free = free_memory(vlm.device) + (torch.cuda.memory_reserved() if CUDA else 0)
    job = replace(job, tokens=micro_batch_tokens(job, free))
    cfg = replace(cfg, tokens_per_micro_batch=job.tokens)
    models, graphs, clock = roles(vlm, cfg, cfg.reference), Graphs() if CUDA else None, Clock(
        vlm.device)
    optimizer, rows = adamw(models.trained, weight_decay=0.0), []
    for step in range(steps + 1):
        with clock("rollout"):
            rolls = rollout(vlm, prompts, k=K, max_new_tokens=ROOM, tokens=job.tokens,
                            uniform=uniforms(0, step, range(images), K, ROOM), graphs=graphs)
        with clock("update"):
            train_rapo.update(cfg, models.learner, models.reference, optimizer, prompts=prompts,
                              rolls=rolls, advantage=torch.randn(images, K, device=vlm.device),
                              lr=1e-6, step=step, clock=clock)
            models.refresh()
        rows.append(clock.row() | {"peak": peak_memory(vlm.device)})
    times = {key: statistics.median(row[key] for row in rows[1:]) for key in rows[1]}
    card = card_of(torch.cuda.get_device_name()) if CUDA else None
    flops = size() * model_flops(job.model, pictures=images, prompt=p, picture=picture, answer=ROOM,
                                 k=K, vision=not cfg.lora_rank, lora=bool(cfg.lora_rank))
    speed = throughput(times, tokens=size() * images * K * (p + ROOM), devices=size(), flops=flops,
                       peak=card and card.peak)
    limit = least(job, card, size(), ROOM) if card else {}
    out = {"setting": setting, "gpus": size(), "images": images, "prompt": p, "answer": ROOM,
           "tokens_per_micro_batch": job.tokens, "launches_per_layer": round(per_layer, 1),
           **{key: round(x, 3) for key, x in (times | speed).items() if key != "peak"},
           "least": {key: round(x, 3) for key, x in limit.items()},
           "peak_gb": round(times["peak"] / 1e9, 2),
           "estimate_gb": round(estimate(job)["peak"] / 1e9, 2)}
    if first():
        print("\n".join(f"  {key:24}{value}" for key, value in out.items()))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", help="SIZE-full or SIZE-lora",
                        default=["3B-full", "7B-lora"] if CUDA else ["toy-full", "toy-lora"])
    parser.add_argument("--images", type=int, default=8, help="pictures per process")
    parser.add_argument("--steps", type=int, default=3, help="after one to warm up; their median")
    args = parser.parse_args()
    with together("auto" if CUDA else "cpu"):
        if CUDA:
            torch.cuda.set_device(device("auto"))
        if first():
            print(machine())
        found = [run(setting, args.images, args.steps) for setting in args.settings]
        if first():
            print(json.dumps(found))


if __name__ == "__main__":
    main()
