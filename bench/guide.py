"""What the presets need and what the paper's run costs at best, card by card. No GPU is used.

    python bench/guide.py

Of each preset and machine: the peak of memory per GPU with the micro-batch that a run would choose,
and if it fits; the least time of a step that the card's data sheet allows (`roofline.py`, answers
of 250 tokens); and from it the hours of the paper's run, 10 passes over 15,000 pictures, 4 answers
each. A real run is slower. The last line is JSON.
"""

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from nanoaes.budget import fits  # noqa: E402
from nanoaes.config import RAPOConfig  # noqa: E402
from nanoaes.dry_run import GB, TYPICAL, chosen, config_of, job_of_config  # noqa: E402
from nanoaes.folder import default_asking  # noqa: E402
from nanoaes.memory import estimate  # noqa: E402
from nanoaes.options import parse  # noqa: E402
from nanoaes.roofline import CARDS, seconds  # noqa: E402

MACHINES = (("RTX4090", 1), ("RTX4090", 8), ("L40S", 1), ("A100-80", 1), ("A100-80", 8),
            ("H100", 1), ("H100", 4), ("H100", 8), ("H200", 8))
PRESETS = ("qwen3b_lora", "qwen7b_lora", "qwen3b", "qwen7b")
TESTED = 20_000  # pictures of the largest test set: AVA's


def main() -> None:
    result = {}
    for preset in PRESETS:
        cfg = parse(RAPOConfig, ["--preset", preset])
        config = config_of(cfg.model)
        asking = default_asking(config.model_type)
        steps = math.ceil(cfg.limit / cfg.images * cfg.epochs)
        print(f"\n{preset}: {cfg.model}, {steps:,} steps of {cfg.images} pictures, "
              f"{steps * cfg.images * cfg.k:,} answers")
        for name, gpus in MACHINES:
            card = CARDS[name]
            job = chosen(job_of_config(cfg, Path(cfg.model), config, asking, processes=gpus,
                                       cuda=True, reference=cfg.reference_kept,
                                       tested=-(-TESTED // gpus)), card.memory)
            peak, fit = estimate(job)["peak"] / GB, fits(job, card.memory)
            line = f"  {gpus} x {name:8} {peak:6.1f} of {card.memory / GB:5.1f} GB  "
            if fit:
                step = sum(seconds(job, card, gpus, TYPICAL).values())
                line += f"{step:6.1f} s a step at best, {step * steps / 3600:6.1f} h the run"
                result[f"{preset} {gpus}x{name}"] = {"peak_gb": round(peak, 1),
                                                    "step_s": round(step, 2)}
            print(line if fit else line + "does not fit")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
