"""--dry_run says what the arithmetic says, from a config alone."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from kin import tiny_kin
from tiny import tiny_vlm

import train_rapo
import train_sft
from nanoaes import hub
from nanoaes.anatomy import anatomy
from nanoaes.checks import CheckpointError
from nanoaes.config import OptionError, RAPOConfig, SFTConfig
from nanoaes.dry_run import chosen, config_of, describe, job_of, planned, settled
from nanoaes.errors import UserError
from nanoaes.folder import default_asking
from nanoaes.lora import LoRA, attach
from nanoaes.memory import Job, estimate
from nanoaes.roofline import CARDS, speed

QWEN = "Qwen/Qwen2.5-VL-7B-Instruct"


def job(processes: int = 8, cls: type = RAPOConfig, **given) -> Job:
    cfg = cls(**{"dtype": "bfloat16", "gradient_checkpointing": True, "tokens_per_micro_batch": 0,
                 "lora_targets": "q_proj, v_proj", **given})
    asking, _ = default_asking("qwen2_5_vl").but(max_new_tokens=1024)
    return job_of(cfg, anatomy(config_of(QWEN)), asking, processes=processes, cuda=True, side=28,
                  reference="" if cls is SFTConfig else "sharded",
                  script="sft" if cls is SFTConfig else "rapo")


def test_options_become_a_job() -> None:
    one = job(images=60, k=4, shard=4, train_vision=False)
    assert (one.images, one.k, one.processes, one.picture, one.answer) == (8, 4, 4, 334, 1024)
    assert 480 < one.prompt < 580 and one.checkpointing and not one.vision and one.sharded
    lora = job(lora_rank=8)
    assert lora.adapters == one.model.adapters(8, ("q_proj", "v_proj"), False) and not lora.sharded
    assert not lora.vision and job(lora_rank=8, lora_vision=True).vision
    sft = job(cls=SFTConfig, batch=64)
    assert (sft.k, sft.images, sft.script) == (1, 8, "sft")


def test_the_text_holds_the_estimates_numbers() -> None:
    card = CARDS["H100"]
    one = chosen(job(images=64, k=4), card.memory)
    text = describe(one, name=QWEN, free=card.memory, where="H100", processes=8, card=card,
                    epoch=15_000)
    for part, n in estimate(one).items():
        assert re.search(rf"{part} +{n / 1e9:.1f}\b", text), part
    most = speed(one, card, 8, 250)
    assert f"{most['tokens']:,.0f} tokens/s" in text and f"MFU {most['mfu']:.0%}" in text
    assert "8.29 B parameters (vision 0.68, embedding 0.54, layers 6.53, head 0.54)" in text
    assert "epoch: 235 steps" in text and text.endswith("%")
    assert "334 of them the picture's" in text and "spare: fits" in text


def test_what_does_not_fit_is_said_with_what_does() -> None:
    text = describe(chosen(job(1, images=64), 10**9), name=QWEN, free=CARDS["H100"].memory,
                    where="H100")
    assert "DOES NOT FIT; what does: " in text and "--lora_rank 16" in text
    assert "at best" not in text  # the card was not given


def test_a_given_budget_is_kept() -> None:
    assert chosen(job(tokens_per_micro_batch=5000), 10**12).tokens == 5000


def test_a_folder_needs_no_more_than_its_config(tmp_path: Path) -> None:
    tiny_kin("qwen3").hf.config.save_pretrained(tmp_path)
    assert anatomy(config_of(str(tmp_path))) == anatomy(tiny_kin("qwen3").hf.config)


def test_a_folder_is_planned_as_it_is_asked(tmp_path: Path) -> None:
    """It remembers how; and one of adapters is the model's whose they are."""
    vlm = tiny_vlm()
    vlm.asking = replace(vlm.asking, max_pixels=12_544, max_new_tokens=100)
    vlm.save(tmp_path / "model")
    attach(vlm.hf, LoRA(2, 4.0, ("q_proj",), False))
    vlm.save(tmp_path / "sft")
    config = json.loads((tmp_path / "sft" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "model")
    (tmp_path / "sft" / "adapter_config.json").write_text(json.dumps(config))
    for name in "model", "sft":
        text = planned(RAPOConfig(model=str(tmp_path / name)), processes=1, script="rapo")
        assert "16 of them the picture's; answers: up to 100" in text
    with pytest.raises(OptionError, match="--shard 8: 4 processes do not divide"):
        planned(RAPOConfig(model=str(tmp_path / "model"), shard=8, gpus=4), processes=1,
                script="rapo")


@pytest.mark.parametrize("content, message", [
    (None, "no config.json"), ({"model_type": "llama", "image_token_id": 1}, "a llama model"),
    ({"model_type": "qwen2_vl"}, "no image_token_id")])
def test_other_folders_are_refused(tmp_path: Path, content: dict | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        config_of(str(tmp_path))


def test_of_the_hub_only_the_config_is_fetched(tmp_path: Path, monkeypatch) -> None:
    tiny_kin("qwen2").hf.config.save_pretrained(tmp_path)
    asked = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert config_of("some/model").model_type == "qwen2_vl"
    config_of(QWEN)  # known by heart
    assert asked == [("some/model", ["config.json"])]


def test_the_scripts_print_it_and_do_nothing(tmp_path: Path, capsys) -> None:
    given = dict(run=str(tmp_path / "run"), model=QWEN, dry_run=True, dtype="bfloat16", gpu="H100",
                 gpus=8, device="cpu", gradient_checkpointing=True, tokens_per_micro_batch=0)
    train_rapo.main(RAPOConfig(images=64, max_new_tokens=1024, **given))
    train_sft.main(SFTConfig(**given))
    text = capsys.readouterr().out
    assert text.count("8.29 B parameters") == text.count("8 x H100") == 2 and "rollout" in text
    assert not (tmp_path / "run").exists()
    with pytest.raises(OptionError, match="--dry_run needs a --model"):
        train_rapo.main(RAPOConfig(dry_run=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_vlm().save(tmp_path / "model")
    return tmp_path / "model"


def test_an_open_budget_is_settled_and_a_given_one_kept(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("nanoaes.dry_run.free_memory", lambda place: 10**9)
    open_ = RAPOConfig(device="cpu", images=8, k=4, tokens_per_micro_batch=0)
    found = settled(open_, folder, "sharded", processes=1, script="rapo")
    assert found.tokens_per_micro_batch >= 1024 and found.tokens_per_micro_batch % 1024 == 0
    assert f"--tokens_per_micro_batch {found.tokens_per_micro_batch}" in capsys.readouterr().out
    kept = settled(RAPOConfig(device="cpu"), folder, processes=1, script="rapo")
    assert kept == RAPOConfig(device="cpu")


def test_what_cannot_fit_is_refused_before_it_allocates(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("nanoaes.dry_run.free_memory", lambda place: 10**7)
    with pytest.raises(UserError, match=r"cpu: the run needs .* 0.0 GB are free") as caught:
        settled(RAPOConfig(device="cpu"), folder, "sharded", processes=1, script="rapo")
    assert "\n" not in str(caught.value)
