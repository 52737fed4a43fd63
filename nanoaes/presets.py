"""--preset NAME: values for many options at once; options given beside it win."""

from typing import Any

from nanoaes.config import CoTConfig, EvalConfig, RAPOConfig, SFTConfig

# PAPER.md, hyper-parameters: RAPO on Qwen2.5-VL-7B, and its cold start.
PRESETS: dict[str, dict[type, dict[str, Any]]] = {
    "toy": {},
    "paper": {
        CoTConfig: dict(per_level=1000),
        SFTConfig: dict(epochs=1, batch=64, lr=1e-5, max_pixels=262_144),
        RAPOConfig: dict(epochs=10.0, images=64, k=4, max_new_tokens=1024, max_pixels=262_144,
                         tokens_per_micro_batch=8192, lr=1e-6, beta=0.01, eps_low=0.2,
                         eps_high=0.28, sigma=0.1, eval_every=100, heldout=200),
        EvalConfig: dict(tokens_per_micro_batch=8192),
    },
}
