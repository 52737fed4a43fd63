"""A model of full width through the scripts: cold start, RAPO, a resume; time and memory.

    python bench/full_width.py          3B's width and vocabulary, 2 layers, bf16 on the CPU
    python bench/full_width.py --size toy       the same in seconds

Random weights, so nothing is learnt: what is seen is whether shapes that only a real model has go
through (151,936 words, 2,048 hidden numbers), how long a script takes and how much memory it held.
Each script is a process of its own, which its end tells. The last line is JSON.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
from models import machine, random_model, toy_pictures

from nanoaes.checkpoint import append_row, read_rows

ROOT = Path(__file__).resolve().parent.parent
PICTURES, HELD = 10, 3


def prepare(root: Path, size: str) -> list[str]:
    """Model, pictures, critiques; what both trainings are told."""
    vlm = random_model(size, torch.bfloat16)
    vlm.save(root / "model")
    rows = ["image,score"]
    for i, picture in enumerate(toy_pictures(PICTURES)):
        picture.resize((224, 224)).save(root / f"{i}.png")
        rows.append(f"{i}.png,{i / PICTURES:.2f}")
        append_row(root / "cot.jsonl", {
            "image": str(root / f"{i}.png"), "score": i / PICTURES, "dataset": "a", "kept": True,
            "critique": "Soft light and calm colours; the horizon is level."})
    (root / "a.csv").write_text("\n".join(rows) + "\n")
    return ["--run", str(root / "run"), "--dtype", "bfloat16", "--heldout", str(HELD),
            "--max_new_tokens", "32", "--tokens_per_micro_batch", "512", "--device", "cpu",
            "--gradient_checkpointing", "true"]


def run(script: str, *options: str) -> tuple[float, float]:
    """Seconds and GB at its peak."""
    start, words = time.perf_counter(), [sys.executable, str(ROOT / script), *options]
    child = os.posix_spawn(sys.executable, words, os.environ)
    _, status, used = os.wait4(child, 0)
    if status:
        sys.exit(f"{script} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, used.ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="wide", help="one of bench/models.py's sizes")
    size = parser.parse_args().size
    root = Path(tempfile.mkdtemp(prefix="full_width"))
    try:
        shared = prepare(root, size)
        csv = f"csv:{root / 'a.csv'}@0-1"
        parts = {"model_gb": sum(f.stat().st_size for f in (root / "model").iterdir()) / 1e9}
        rapo = ["--model", str(root / "run" / "sft"), "--train", csv, "--test_in", csv, "--images",
                "4", "--k", "4", "--eval_every", "2", "--save_every", "1", *shared]
        for name, script, options in (
                ("sft", "train_sft.py", ["--model", str(root / "model"), "--cot",
                                         str(root / "cot.jsonl"), "--epochs", "1", "--batch", "5",
                                         *shared]),
                ("rapo", "train_rapo.py", ["--steps", "2", *rapo]),
                ("resume", "train_rapo.py", ["--steps", "2", "--resume", "true", *rapo])):
            if name == "resume":  # as if the run had died in its second step
                shutil.rmtree(root / "run" / "resume" / "step-000002")
            parts[f"{name}_s"], parts[f"{name}_gb"] = run(script, *options)
        steps = [row["step"] for row in read_rows(root / "run" / "metrics.jsonl")]
        print(f"{machine()}; {size}: {parts}; steps {steps}")
        print(json.dumps({"size": size, "steps": steps,
                          **{k: round(v, 2) for k, v in parts.items()}}))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
