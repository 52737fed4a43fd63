"""Each damage of a model's folder ends, soon, in one line that names the file and the remedy."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kin import KIN, tiny_kin
from safetensors.torch import load_file, save_file
from tiny import tiny_vlm
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3VLConfig

from nanoaes.checks import CheckpointError
from nanoaes.vlm import VLM

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "model"
    tiny_vlm().save(path)
    return path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def edit(file: str, text: bool = False, **values: object) -> Damage:
    """Some keys of a JSON file, or of its text_config; None removes one."""
    def damage(path: Path) -> None:
        config = json.loads((path / file).read_text())
        part = config["text_config"] if text else config
        part.update(values)
        for key in [k for k, v in part.items() if v is None]:
            del part[key]
        (path / file).write_text(json.dumps(config))
    return damage


def put(file: str, text: str) -> Damage:
    return lambda path: (path / file).write_text(text)


def drop(*files: str) -> Damage:
    return lambda path: [(path / file).unlink() for file in files]


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(path: Path) -> None:
        tensors = {name: x.clone() for name, x in load_file(path / WEIGHTS).items()}
        change(tensors)
        save_file(tensors, path / WEIGHTS, metadata={"format": "pt"})
    return damage


def half(path: Path) -> None:
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:1_000_000])


def pickled(path: Path) -> None:
    torch.save(load_file(path / WEIGHTS), path / "pytorch_model.bin")
    (path / WEIGHTS).unlink()


def shard(path: Path) -> dict[str, str]:
    """Two shards and their index, as save_pretrained writes them. Returns the index's map."""
    tensors = load_file(path / WEIGHTS)
    names = sorted(tensors)
    places = {name: SHARDS[i >= len(names) // 2] for i, name in enumerate(names)}
    for file in SHARDS:
        save_file({n: tensors[n] for n in names if places[n] == file}, path / file,
                  metadata={"format": "pt"})
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (path / WEIGHTS).unlink()
    return places


def index(change: Callable[[dict[str, str]], object]) -> Damage:
    def damage(path: Path) -> None:
        places = shard(path)
        change(places)
        (path / INDEX).write_text(json.dumps({"weight_map": places}))
    return damage


def sharded_then(damage: Damage) -> Damage:
    return lambda path: (shard(path), damage(path))


def more_words(path: Path) -> None:
    """A tokenizer with more tokens than the model."""
    text = json.loads((path / "tokenizer.json").read_text())
    text["added_tokens"] += [{**text["added_tokens"][0], "id": i, "content": f"<new {i}>"}
                             for i in range(487, 600)]
    (path / "tokenizer.json").write_text(json.dumps(text))


def other_id(path: Path) -> None:
    """Image and video token exchanged in the tokenizer."""
    text = (path / "tokenizer.json").read_text()
    text = text.replace("<|image_pad|>", "<|x|>").replace("<|video_pad|>", "<|image_pad|>")
    (path / "tokenizer.json").write_text(text.replace("<|x|>", "<|video_pad|>"))


def template(before: str, after: str) -> Damage:
    def damage(path: Path) -> None:
        file = path / "chat_template.jinja"
        assert before in file.read_text()
        file.write_text(file.read_text().replace(before, after))
    return damage


PAD, EMBED = "<|image_pad|>", "model.embed_tokens.weight"
DAMAGES: dict[str, tuple[Damage, str]] = {
    # the small files
    "no tokenizer": (drop("tokenizer.json", "tokenizer_config.json"), "no tokenizer.json; copy"),
    "tokenizer is a pointer": (put("tokenizer.json", POINTER), "tokenizer.json .*git lfs pull"),
    "tokenizer cut": (put("tokenizer.json", "{"), "tokenizer.json cannot be read .*copy"),
    "tokenizer of nothing": (put("tokenizer.json", "{}"), "tokenizer.json.* cannot be read .*copy"),
    "no config": (drop("config.json"), "no config.json; give a Hugging Face model folder"),
    "config cut": (put("config.json", "{"), "config.json cannot be read .*copy it again"),
    "config empty": (put("config.json", "{}"), "config.json has no model_type.* give a folder"),
    "config a list": (put("config.json", "[1]"), "config.json cannot be read .a list, not an obje"),
    "config not text": (lambda p: (p / "config.json").write_bytes(b"\xff\xfe{"),
                        "config.json cannot be read .*copy it again"),
    "text_config a list": (edit("config.json", text_config=[1]), "config.json cannot be read"),
    "text only": (edit("config.json", model_type="qwen2"), "a qwen2 model; this code knows"),
    "another kind": (edit("config.json", model_type="gpt2"), "a gpt2 model; this code knows"),
    "kind a list": (edit("config.json", model_type=["qwen2_vl"]), "this code knows qwen2_vl"),
    "heads a text": (edit("config.json", text=True, num_attention_heads="4"),
                     "config.json cannot be read .*copy it again"),
    "no image_token_id": (edit("config.json", image_token_id=None), "has no image_token_id; copy"),
    "ids outside": (edit("config.json", video_token_id=10**6), "video_token_id 1000000 .*copy"),
    "sliding windows": (edit("config.json", text=True, use_sliding_window=True, sliding_window=64,
                             max_window_layers=2, layer_types=None),
                        "config.json gives 2 layers sliding_attention.*set use_sliding_window"),
    "quantised": (edit("config.json", quantization_config={"quant_method": "awq", "bits": 4}),
                  "quantization_config.*give the model that was quantised"),
    "adapter": (put("adapter_config.json", "{}"), "adapter_config.json where a whole .*merge"),
    "adapter alone": (lambda p: (drop("config.json")(p), put("adapter_config.json", "{}")(p)),
                      "adapter_config.json says peft_type None.*merge it"),
    "generation_config cut": (put("generation_config.json", "{"), "generation_config.json cannot"),
    "stop outside": (edit("generation_config.json", eos_token_id=151645),
                     "eos_token_id .*151645.* of generation_config.json .*mend"),
    "preprocessor cut": (put("preprocessor_config.json", "["), "preprocessor_config.json cannot"),
    "no deviation": (edit("preprocessor_config.json", image_std=[0.0] * 3),
                     "preprocessor_config.json cannot be read .*image_std .*copy"),
    "two colours": (edit("preprocessor_config.json", image_mean=[0.5] * 2),
                    "preprocessor_config.json cannot be read .*copy"),
    "no pixels": (edit("preprocessor_config.json", max_pixels=0, min_pixels=0),
                  "preprocessor_config.json cannot be read .*pixels 0 to 0.*copy"),
    # the weights
    "no weights": (drop(WEIGHTS), "no .*safetensors here.* copy"),
    "pickles": (pickled, "pytorch_model.bin is a pickle.*save the model as safetensors"),
    "weights a pointer": (put(WEIGHTS, POINTER), "model.safetensors is only .*git lfs pull"),
    "weights cut": (half, "broken weights in model.safetensors .*copy it again"),
    "tensor lost": (weights(lambda x: x.pop(max(x))), "1 weights are missing, such as .*copy"),
    "adapters unmerged": (weights(lambda x: x.update({"model.x.lora_A.weight": torch.ones(1)})),
                          "1 tensors .*safetensors .*lora_A.weight; merge adapters first"),
    "bytes for weights": (weights(lambda x: x.update({EMBED: x[EMBED].to(torch.int8)})),
                          "embed_tokens.weight in model.safetensors is I8.* give the model"),
    "NaN": (weights(lambda x: x["model.norm.weight"][3:4].fill_(torch.nan)),
            "language_model.norm.weight in .*safetensors holds NaN .*copy"),
    "infinity": (weights(lambda x: x[EMBED][7, :1].fill_(-torch.inf)),
                 "embed_tokens.weight in .*safetensors holds NaN or infinity"),
    "other sizes": (edit("config.json", text=True, intermediate_size=384),
                    r"\(320, 128\) in .*safetensors and \(384, 128\) by config.json; .*copy"),
    "impossible sizes": (edit("config.json", text=True, hidden_size=-128), "config.json cannot be"),
    "other vocabulary": (edit("config.json", text=True, vocab_size=640),
                         r"embed_tokens.weight is \(512, 128\) .*\(640, 128\) by config.json"),
    "head not tied": (edit("config.json", tie_word_embeddings=False, text_config=None),
                      "weights are missing|in .*safetensors and"),
    # shards
    "no index": (sharded_then(drop(INDEX)), "neither model.safetensors nor .*index.json.*copy it"),
    "index cut": (sharded_then(put(INDEX, "{")), "index.json cannot be read .*copy it again"),
    "index empty": (sharded_then(put(INDEX, "{}")), "index.json cannot .*weight_map.*copy"),
    "shard lost": (sharded_then(drop(SHARDS[1])), "model-00002-of-00002.* is missing, .* copy it"),
    "shard not there": (index(lambda x: x.update({max(x): "model-00003-of-00003.safetensors"})),
                        "model-00003-of-00003.safetensors is missing.* copy it"),
    "shard elsewhere": (index(lambda x: x.update({max(x): "../model.safetensors"})),
                        "index.json cannot be read .*no plain file name"),
    "tensor not in index": (index(lambda x: x.pop(max(x))),
                            "patch_embed.proj.weight is not in model.safetensors.index.json.*copy"),
    "tensor not in shard": (index(lambda x: x.update({"model.new": SHARDS[0]})),
                            "model.new is not in model-00001-of-00002.safetensors.*copy"),
    "shard a pointer": (sharded_then(put(SHARDS[0], POINTER)), f"{SHARDS[0]} .*git lfs pull"),
    # tokenizer and template
    "more words": (more_words, "tokenizer.json has 600 tokens, config.json's .* 512; copy"),
    "no image token": (lambda p: (p / "tokenizer.json").write_text(
        (p / "tokenizer.json").read_text().replace(PAD, "<|other|>")),
        "has 0 image tokens .*copy chat_template.jinja"),
    "other image token": (other_id, "has 0 image tokens .*copy chat_template.jinja"),
    "image token outside": (edit("config.json", image_token_id=500),
                            "no token 500, config.json's image_token_id; copy"),
    "image token a word": (edit("config.json", image_token_id=40), "image tokens .*copy chat"),
    "no template": (put("chat_template.jinja", ""), "no chat template; copy"),
    "template cut": (put("chat_template.jinja", "{% for message in messages %}"),
                     "template fails .TemplateSyntaxError.*copy chat_template.jinja"),
    "template raises": (template("{% if add", "{{ raise_exception('no pictures') }}{% if add"),
                        "template fails .TemplateError: no pictures.*copy chat_template.jinja"),
    "template without picture": (template(PAD, ""), "has 0 image tokens .*copy"),
    "template with two": (template(PAD, PAD + PAD), "has 2 image tokens .*copy"),
    "template long": (template("<|im_end|>", "{{ 'x' * 3000000 }}"),
                      "a prompt of 3,00.,... characters.*copy chat_template.jinja"),
    "template huge": (template("<|im_end|>", "{{ ('x' * 10 ** 11) | length }}"),
                      "template fails .MemoryError.*copy chat_template.jinja"),
    "template endless": (template("<|im_end|>", "{% for i in range(99999) %}{% for j in "
                                  "range(99999) %}{% endfor %}{% endfor %}"),
                         "template does not end within 1 s.*copy chat_template.jinja"),
    "template counts": (template("<|im_end|>", "{{ 10 ** (10 ** 9) }}"),  # no thread could stop it
                        "chat template (does not end|fails).*copy chat_template.jinja"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_ends_in_one_line_before_its_weights_are_read(
        folder: Path, name: str, monkeypatch) -> None:
    damage, message = DAMAGES[name]
    damage(folder)
    if name not in ("NaN", "infinity"):
        monkeypatch.setattr("nanoaes.folder._weights", lambda *_: pytest.fail("read"))
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=message) as error:
        VLM.load(folder, device="cpu")
    assert time.perf_counter() - start < 15
    assert str(error.value).startswith(f"{folder}: ") and "\n" not in str(error.value)
    assert len(str(error.value).removeprefix(str(folder))) < 450


@pytest.mark.parametrize("kin", KIN)
def test_shards_are_one_model(tmp_path: Path, kin: str) -> None:
    vlm = tiny_kin(kin)
    vlm.save(tmp_path)
    shard(tmp_path)
    for a, b in zip(vlm.parameters(), VLM.load(tmp_path, device="cpu").parameters(), strict=True):
        assert torch.equal(a, b)


def test_harmless_tensors_are_passed_over(folder: Path) -> None:
    """Rotary frequencies that old versions wrote, a tied head that is written twice."""
    weights(lambda x: x.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16),
                                "lm_head.weight": x[EMBED].clone()}))(folder)
    VLM.load(folder, device="cpu")


@pytest.mark.parametrize("kin", KIN)
def test_names_as_on_the_hub_and_as_transformers_names_its_modules(tmp_path: Path, kin: str
                                                                  ) -> None:
    vlm = tiny_kin(kin)
    vlm.save(tmp_path)
    names = {".".join(name.split(".")[:2]) for name in load_file(tmp_path / WEIGHTS)}
    if kin == "qwen3":
        assert names == {"model.language_model", "model.visual"}
    else:
        assert names == {"model.embed_tokens", "model.layers", "model.norm", "visual.blocks",
                         "visual.merger", "visual.patch_embed"}
    own = {n: x.clone() for n, x in vlm.hf.state_dict().items() if n != "lm_head.weight"}
    save_file(own, tmp_path / WEIGHTS, metadata={"format": "pt"})
    VLM.load(tmp_path, device="cpu")


@pytest.mark.parametrize("config", [Qwen2VLConfig, Qwen2_5_VLConfig])
def test_an_idle_sliding_window_is_none(folder: Path, config: type) -> None:
    """The hub's own configs carry sliding_window with use_sliding_window false."""
    kind = config.model_type
    edit("config.json", text=True, sliding_window=32_768, use_sliding_window=False,
         max_window_layers=2, layer_types=None)(folder)
    if kind == "qwen2_5_vl":
        VLM.load(folder, device="cpu")
    assert set(config(use_sliding_window=False, sliding_window=64, max_window_layers=2)
               .text_config.layer_types) == {"full_attention"}


def test_qwen3_has_no_sliding_window() -> None:
    assert not hasattr(Qwen3VLConfig().text_config, "layer_types")
