"""PEFT's folder, both ways; a folder of adapters is a model as any other, or is refused."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kin import KIN, tiny_kin
from safetensors.torch import load_file, save_file
from test_lora import logps, spec, trained, untied
from tiny import tiny_vlm

from nanoaes.adapters import CONFIG, WEIGHTS, load_adapters, save_adapters
from nanoaes.checks import CheckpointError
from nanoaes.folder import Asking, read_folder
from nanoaes.lora import LoRA, adapters, attach, merge
from nanoaes.vlm import VLM

Q = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """base, a whole model; lora, adapters that belong to it."""
    path = tmp_path_factory.mktemp("made")
    tiny_vlm().save(path / "base")
    vlm = VLM.load(path / "base", device="cpu")
    attach(vlm.hf, LoRA(4, 6.0, ("q_proj", "down_proj"), False))
    trained(vlm).save(path / "lora")
    return path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "x")
    edit(base_model_name_or_path=str(tmp_path / "x" / "base"))(tmp_path / "x" / "lora")
    return tmp_path / "x" / "lora"


def edit(**values: object) -> Damage:
    def damage(path: Path) -> None:
        config = json.loads((path / CONFIG).read_text()) | values
        (path / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(path: Path) -> None:
        found = {name: x.clone() for name, x in load_file(path / WEIGHTS).items()}
        change(found)
        save_file(found, path / WEIGHTS, metadata={"format": "pt"})
    return damage


def older(path: Path) -> None:
    """Names of layers as before transformers 4.52."""
    tensors(lambda x: x.update({
        n.replace(".model.language_model.", ".model.").replace(".model.model.visual.",
                                                               ".model.visual."): x.pop(n)
        for n in list(x)}))(path)


@pytest.mark.parametrize("vision", [True, False])
@pytest.mark.parametrize("kin", KIN)
def test_peft_reads_what_is_written(tmp_path: Path, kin: str, vision: bool) -> None:
    peft = pytest.importorskip("peft")
    vlm, other = tiny_kin(kin), tiny_kin(kin)
    attach(vlm.hf, spec(kin, vision))
    save_adapters(trained(vlm).hf, tmp_path, "someone/model")
    theirs = peft.PeftModel.from_pretrained(other.hf, tmp_path)
    assert {n.removeprefix("base_model.model.") for n, m in theirs.named_modules()
            if isinstance(m, peft.tuners.lora.Linear)} == set(adapters(vlm.hf))
    torch.testing.assert_close(logps(vlm), logps(other), rtol=0, atol=1e-6)
    theirs.save_pretrained(tmp_path / "again", save_embedding_layers=False)
    ours = load_file(tmp_path / WEIGHTS)
    again = load_file(tmp_path / "again" / WEIGHTS)
    assert ours.keys() == again.keys() and all(torch.equal(x, again[n]) for n, x in ours.items())
    config = json.loads((tmp_path / CONFIG).read_text())
    again = json.loads((tmp_path / "again" / CONFIG).read_text())
    for key in config.keys() - {"target_modules", "base_model_name_or_path"}:
        assert config[key] == again[key], key


RULES = {
    "names": dict(target_modules=["q_proj", "down_proj"]),
    "attention": dict(target_modules=r".*language_model.*\.(q|v)_proj"),
    "one layer": dict(target_modules=["model.language_model.layers.1.mlp.up_proj"]),
    "vision": dict(target_modules=r"model\.visual\..*(qkv|fc1|gate_proj)"),
    "all but": dict(target_modules=["q_proj", "k_proj"], exclude_modules=r".*layers\.0\..*"),
    "all but none": dict(target_modules=["v_proj"], exclude_modules=r"layers\.0"),  # a part of it
    "all": dict(target_modules="all-linear", exclude_modules=["lm_head"]),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kin", KIN)
def test_what_peft_writes_is_read(tmp_path: Path, kin: str, rule: str, old: bool) -> None:
    peft = pytest.importorskip("peft")
    vlm, other = tiny_kin(kin), tiny_kin(kin)
    theirs = peft.get_peft_model(other.hf, peft.LoraConfig(
        task_type="CAUSAL_LM", r=3, lora_alpha=5, lora_dropout=0.1, init_lora_weights="gaussian",
        **RULES[rule])).eval()
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    theirs.save_pretrained(tmp_path, save_embedding_layers=False)
    if old:
        older(tmp_path)
    load_adapters(vlm.hf, tmp_path)
    assert set(adapters(vlm.hf)) == {n.removeprefix("base_model.model.")
                                     for n, m in theirs.named_modules()
                                     if isinstance(m, peft.tuners.lora.Linear)}
    expected = logps(other)
    assert (expected - logps(tiny_kin(kin))).abs().max() > 1e-3
    torch.testing.assert_close(logps(vlm), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("targets, named", [
    ("model.layers.0.self_attn.q_proj", ["model.language_model.layers.0.self_attn.q_proj"]),
    ("visual.blocks.1.attn.qkv", ["model.visual.blocks.1.attn.qkv"]),
])
def test_targets_by_older_names(tmp_path: Path, targets: str, named: list[str]) -> None:
    for rule in ([targets], re.escape(targets)):
        vlm, other = tiny_kin("qwen2_5"), tiny_kin("qwen2_5")
        attach(vlm.hf, LoRA(4, 6.0, tuple(named), vision=".visual." in named[0]))
        save_adapters(trained(vlm).hf, tmp_path, "")
        edit(target_modules=rule)(tmp_path)
        load_adapters(other.hf, tmp_path)
        assert list(adapters(other.hf)) == named
        assert torch.equal(logps(vlm), logps(other))


@pytest.mark.parametrize("kin", KIN)
def test_a_folder_of_adapters_is_a_model(tmp_path: Path, kin: str) -> None:
    tiny_kin(kin).save(tmp_path / "base")
    vlm = VLM.load(tmp_path / "base", device="cpu")
    vlm.asking = Asking(prompt="Hm?", max_new_tokens=7, min_pixels=3136, max_pixels=50_176,
                        mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    vlm.stop_ids.pop()
    attach(vlm.hf, spec(kin))
    trained(vlm).save(tmp_path / "lora")
    assert not {"config.json", "model.safetensors"} & set(os.listdir(tmp_path / "lora"))
    again = VLM.load(tmp_path / "lora", device="cpu")
    assert again.asking == vlm.asking and again.stop_ids == vlm.stop_ids
    assert torch.equal(logps(again), logps(vlm))
    assert again.source == vlm.source == str(tmp_path / "base")
    again.save(tmp_path / "again")
    for file in sorted((tmp_path / "lora").iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kin", KIN)
def test_merged_it_is_an_ordinary_folder(tmp_path: Path, kin: str, tied: bool) -> None:
    (tiny_kin(kin) if tied else untied(tiny_kin(kin))).save(tmp_path / "base")
    vlm = VLM.load(tmp_path / "base", device="cpu")
    attach(vlm.hf, spec(kin))
    before = {n: x.clone() for n, x in trained(vlm).hf.state_dict().items()}
    vlm.save(tmp_path / "whole", merged=True)
    now = vlm.hf.state_dict()
    assert now.keys() == before.keys() and all(torch.equal(now[n], x) for n, x in before.items())
    assert set(os.listdir(tmp_path / "whole")) == set(os.listdir(tmp_path / "base"))
    again = VLM.load(tmp_path / "whole", device="cpu")
    assert not adapters(again.hf)
    torch.testing.assert_close(logps(again), logps(vlm), rtol=0, atol=1e-5)
    merge(vlm.hf)
    assert torch.equal(logps(again), logps(vlm))


def test_what_the_adapters_folder_lacks_is_its_models(folder: Path) -> None:
    """Others' folders hold adapters alone."""
    expected = VLM.load(folder, device="cpu")
    for file in folder.iterdir():
        if file.name not in (CONFIG, WEIGHTS):
            file.unlink()
    vlm = VLM.load(folder, device="cpu")
    assert vlm.asking == expected.asking and vlm.stop_ids == expected.stop_ids
    assert torch.equal(logps(vlm), logps(expected))


@pytest.mark.parametrize("name", ["x/base", "../base", "Own/Base"])
def test_where_the_model_is(folder: Path, tmp_path: Path, monkeypatch, name: str) -> None:
    """Below the working directory, beside the adapters, on the hub."""
    expected = logps(VLM.load(folder, device="cpu"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nanoaes.hub.snapshot_download", lambda *_a, **_k: tmp_path / "x" / "base")
    edit(base_model_name_or_path=name)(folder)
    vlm = VLM.load(folder, device="cpu")
    assert torch.equal(logps(vlm), expected)
    # A folder by its whole path, so that it is found from anywhere; a name of the hub as it is.
    assert vlm.source == (name if name == "Own/Base" else str(tmp_path / "x" / "base"))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "config cut": (lambda p: (p / CONFIG).write_text("{"), "adapter_config.json cannot be read"),
    "no kind": (edit(peft_type=None), "says peft_type None, and only LORA is read; merge it"),
    "another kind": (edit(peft_type="IA3"), "says peft_type IA3, and only LORA is read; merge it"),
    "DoRA": (edit(use_dora=True), "has use_dora True, which this code does not compute; merge it"),
    "rslora": (edit(use_rslora=True), "has use_rslora True, which this .* merge it"),
    "more modules": (edit(modules_to_save=["lm_head"]), r"has modules_to_save \['lm_head'\], wh"),
    "bias": (edit(bias="lora_only"), "has bias lora_only, which .* merge it"),
    "ranks": (edit(rank_pattern={"q_proj": 8}), "has rank_pattern .'q_proj': 8., which"),
    "alphas": (edit(alpha_pattern={"q_proj": 8}), "has alpha_pattern"),
    "PiSSA": (edit(init_lora_weights="pissa"), "has init_lora_weights pissa, which .* merge it"),
    "transposed": (edit(fan_in_fan_out=True), "has fan_in_fan_out True, which"),
    "unknown": (edit(use_new_trick={"a": "\n" * 900}), "has use_new_trick .*, which"),
    "r a text": (edit(r="four"), "adapter_config.json cannot be read .*four.* copy it again"),
    "r zero": (edit(r=0), "adapter_config.json cannot be read .r 0, lora_alpha 6.0, "),
    "no r": (edit(r=None), "adapter_config.json cannot be read .'r'"),
    "alpha infinite": (edit(lora_alpha=float("inf")), "cannot be read .*lora_alpha inf"),
    "no targets": (edit(target_modules=None), "cannot be read .'target_modules'"),
    "nothing meant": (edit(target_modules=["c_attn"]), "cannot be read .*, 0 layers"),
    "no expression": (edit(target_modules="("), "cannot be read .*unterminated"),
    "targets a number": (edit(target_modules=3), "cannot be read .*not iterable"),
    "no model named": (edit(base_model_name_or_path=""), "names no model .* set its base_model"),
    "model a list": (edit(base_model_name_or_path=["x"]), "names no model .* set its base_model"),
    "model not there": (edit(base_model_name_or_path="/models/q"),
                        "base_model_name_or_path is not there: /models/q: no such folder; give"),
    "no weights": (lambda p: (p / WEIGHTS).unlink(), "no adapter_model.safetensors; copy it"),
    "weights cut": (lambda p: (p / WEIGHTS).write_bytes((p / WEIGHTS).read_bytes()[:9000]),
                    "broken weights in adapter_model.safetensors"),
    "weights a pointer": (lambda p: (p / WEIGHTS).write_text(
        "version https://git-lfs.github.com/spec/v1\n"), "adapter_model.* only .*git lfs pull"),
    "tensor lost": (tensors(lambda x: x.pop(f"{Q}.lora_A.weight")),
                    "1 tensors are missing .* such as model.language_model.layers.0.self_attn"),
    "more layers meant": (edit(target_modules=["q_proj", "up_proj", "down_proj"]),
                          "tensors are missing .*up_proj"),
    "fewer layers meant": (edit(target_modules=["q_proj"]), "belong to no linear .*down_proj"),
    "a head": (tensors(lambda x: x.update({"base_model.model.lm_head.weight": torch.ones(2, 2)})),
               "1 tensors .* belong to no linear layer .* such as lm_head"),
    "another rank": (edit(r=8), r"lora_A is \(4, 128\) .*\(8, 128\) by adapter_config.json"),
    "another width": (tensors(lambda x: x.update({f"{Q}.lora_B.weight": torch.ones(64, 4)})),
                      r"q_proj.lora_B is \(64, 4\) in .* and \(128, 4\) by .* take the model"),
    "NaN": (tensors(lambda x: x[f"{Q}.lora_B.weight"][3:4].fill_(torch.nan)),
            "q_proj.lora_B.weight in adapter_model.safetensors holds NaN"),
    "no template": (lambda p: (p / "chat_template.jinja").write_text(""), "no chat template; copy"),
    "contract": (lambda p: (p / "nanoaes.json").write_text("{}"), "nanoaes.json cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_ends_in_one_line_before_the_model_is_read(folder: Path, name: str, monkeypatch
                                                         ) -> None:
    damage, message = DAMAGES[name]
    damage(folder)
    if name != "NaN":
        monkeypatch.setattr("nanoaes.folder._weights", lambda *_: pytest.fail("read"))
    with pytest.raises(CheckpointError, match=message) as error:
        VLM.load(folder, device="cpu")
    assert str(error.value).startswith(f"{folder}: ") and "\n" not in str(error.value)
    assert len(str(error.value).removeprefix(str(folder))) < 450


def test_adapters_of_adapters_are_refused(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "first")
    edit(base_model_name_or_path=str(folder.parent / "first"))(folder)
    with pytest.raises(CheckpointError, match="first: adapter_config.json where a whole model is"):
        read_folder(folder, torch.float32)


def test_a_damaged_model_is_said_to_be_the_damaged_one(folder: Path) -> None:
    (folder.parent / "base" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="base: no config.json"):
        read_folder(folder, torch.float32)
