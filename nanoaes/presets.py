"""--preset NAME: values for many options at once; options given beside it win."""

from typing import Any

from nanoaes.config import CoTConfig, RAPOConfig, SFTConfig
from nanoaes.verbs import EvalConfig, ScoreConfig

# The paper's: RAPO on Qwen2.5-VL-7B, and its cold start. The step's 64 pictures are
# the released script's 8 per GPU on 8 GPUs; eval_every and heldout are ours. The 15,000 pictures
# are --train ava:DIR*2,tad66k:DIR*2,flickr_aes:DIR*1, of which a preset can only know the number.
HELDOUT = 200  # of each set; no script may learn from what RAPO chooses its checkpoint by
COT = dict(target=3000, heldout=HELDOUT)
SFT = dict(epochs=1, batch=64, lr=1e-5, max_pixels=262_144)
RAPO = dict(limit=15_000, epochs=10.0, images=64, k=4, max_new_tokens=1024, max_pixels=262_144,
            lr=1e-6, beta=0.01, eps_low=0.2, eps_high=0.28, sigma=0.1, eval_every=100,
            heldout=HELDOUT)

# What full size needs besides: bf16 and checkpointing are the paper's; the micro-batch comes from
# the memory that is free (`budget.py`). A state every 50 steps: an hour of RAPO at EasyR1's pace is
# what a crash may cost; it takes 12 bytes a trained weight.
FULL = dict(dtype="bfloat16", gradient_checkpointing=True, tokens_per_micro_batch=0, save_every=50)
EVAL = dict(dtype="bfloat16", tokens_per_micro_batch=8192)
# Adapters learn best at about ten times the rate of full training, for any rank (Schulman et al.,
# "LoRA Without Regret", 2025, which also has alpha 32). Rank 64: 16 bytes x 161 M parameters of
# 7B's language model are 2.6 GB, beside 16.6 GB of weights.
LORA = dict(lora_rank=64, lora_alpha=32.0)


def _qwen(model: str, full: dict[str, Any], times: float = 1.0) -> dict[type, dict[str, Any]]:
    """The paper's values at full size. times: as fast as the paper learns."""
    return {CoTConfig: COT,
            SFTConfig: SFT | full | dict(model=model, lr=round(times * SFT["lr"], 12)),
            # Without a cold start from the backbone itself, the paper's "Zero": give --model.
            RAPOConfig: RAPO | full | dict(model=model, lr=round(times * RAPO["lr"], 12)),
            EvalConfig: EVAL, ScoreConfig: EVAL}


PRESETS: dict[str, dict[type, dict[str, Any]]] = {
    "toy": {},
    "paper": {
        CoTConfig: COT, SFTConfig: SFT, RAPOConfig: RAPO | dict(tokens_per_micro_batch=8192),
        EvalConfig: dict(tokens_per_micro_batch=8192),
        ScoreConfig: dict(tokens_per_micro_batch=8192),
    },
    # What each needs: README, "Full size" (bench/guide.py).
    # One GPU of 80 GB, with the reference in CPU memory.
    "qwen3b": _qwen("Qwen/Qwen2.5-VL-3B-Instruct", FULL),
    # Four GPUs of 80 GB.
    "qwen7b": _qwen("Qwen/Qwen2.5-VL-7B-Instruct", FULL),
    # One GPU of 24 GB.
    "qwen3b_lora": _qwen("Qwen/Qwen2.5-VL-3B-Instruct", FULL | LORA, 10),
    # One GPU of 48 GB.
    "qwen7b_lora": _qwen("Qwen/Qwen2.5-VL-7B-Instruct", FULL | LORA, 10),
}
PRESETS["qwen3b"][RAPOConfig]["reference"] = "cpu"
# Its evaluation keeps 37 KB a token: 200 held-out pictures would not fit beside a step's memory.
for script in (CoTConfig, RAPOConfig):
    PRESETS["qwen3b_lora"][script] = PRESETS["qwen3b_lora"][script] | dict(heldout=128)
