"""The presets for full size: the paper's values, and the card that each was made for."""

from dataclasses import fields, replace

import pytest

from nanoaes.anatomy import anatomy
from nanoaes.budget import fits, micro_batch_tokens, remedies, smallest
from nanoaes.config import RAPOConfig, SFTConfig
from nanoaes.dry_run import config_of, job_of
from nanoaes.folder import default_asking
from nanoaes.memory import Job, estimate
from nanoaes.presets import PRESETS
from nanoaes.roofline import CARDS

ROOMS = [("qwen7b", 8, "H100"), ("qwen7b", 4, "H100"), ("qwen3b", 1, "H100"),
         ("qwen7b_lora", 1, "L40S"), ("qwen3b_lora", 1, "RTX4090")]


def job(name: str, processes: int, k: int, **other) -> Job:
    cfg = RAPOConfig(**PRESETS[name][RAPOConfig] | {"k": k} | other)
    asking, _ = default_asking("qwen2_5_vl").but(max_pixels=cfg.max_pixels,
                                                 max_new_tokens=cfg.max_new_tokens)
    return job_of(cfg, anatomy(config_of(cfg.model)), asking, processes=processes, cuda=True,
                  side=28, reference=cfg.reference if cfg.beta else "", tested=10**6)


@pytest.mark.parametrize(("name", "processes", "card"), ROOMS)
@pytest.mark.parametrize("k", [4, 8])
def test_a_preset_fits_the_card_that_it_was_made_for(name: str, processes: int, card: str, k: int
                                                     ) -> None:
    one, free = job(name, processes, k), CARDS[card].memory
    assert one.tokens == 0  # to be chosen
    assert fits(replace(one, tokens=micro_batch_tokens(one, free)), free)


def test_a_reference_beside_3b_is_too_much_for_one_card() -> None:
    one, free = job("qwen3b", 1, 4, reference="sharded"), CARDS["H100"].memory
    one = replace(one, tokens=smallest(one))
    assert not fits(one, free) and "--reference cpu" in [name for name, _ in remedies(one, free)]


@pytest.mark.parametrize(("name", "processes", "gigabytes"), [
    ("qwen3b", 1, 72), ("qwen7b", 4, 64), ("qwen7b", 8, 45), ("qwen3b_lora", 1, 16),
    ("qwen7b_lora", 1, 30)])
def test_the_sizes_that_presets_name(name: str, processes: int, gigabytes: int) -> None:
    one = job(name, processes, 4)
    peak = estimate(replace(one, tokens=smallest(one)))["peak"]
    assert peak / 1e9 == pytest.approx(gigabytes, abs=1)


def test_full_size_keeps_the_papers_values() -> None:
    for name in ("qwen3b", "qwen7b"):
        for cls in (SFTConfig, RAPOConfig):
            own = PRESETS[name][cls]
            differs = {key for key, value in PRESETS["paper"][cls].items() if own[key] != value}
            assert differs <= {"tokens_per_micro_batch"}
            assert own["dtype"] == "bfloat16" and own["gradient_checkpointing"]
            assert PRESETS[f"{name}_lora"][cls]["lr"] == pytest.approx(10 * own["lr"])


def test_presets_keep_to_what_an_option_may_be() -> None:
    for preset in PRESETS.values():
        for cls, given in preset.items():
            for f in fields(cls):
                value, m = given.get(f.name, f.default), f.metadata
                if isinstance(value, int | float):
                    assert m["low"] <= value and value > m["above"], (cls, f.name)
