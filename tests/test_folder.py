"""A model's folder keeps whatever changes an answer, and what cannot be read is one line."""

import json
from pathlib import Path

import pytest
import torch
from kin import KIN, tiny_kin
from safetensors.torch import load_file, save_file
from tiny import pictures, ragged, tiny_prompts, tiny_vlm
from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from nanoaes.folder import Asking, CheckpointError
from nanoaes.prompt import SCORING_PROMPT, TOY_PROMPT, format_ok
from nanoaes.rollout import rollout
from nanoaes.sft import encode_answers
from nanoaes.vlm import VLM


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_vlm().save(tmp_path)
    return tmp_path


def edit(path: Path, **values) -> None:
    """Some keys of a JSON file; None removes one."""
    whole = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in whole.items() if v is not None}))


@pytest.mark.parametrize("kin", KIN)
def test_save_and_load_give_the_same_model(tmp_path: Path, kin: str) -> None:
    vlm = tiny_kin(kin)
    vlm.asking = Asking(prompt="Hm?", max_new_tokens=7, min_pixels=3136, max_pixels=50_176,
                        mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    vlm.save(tmp_path / "model")
    again = VLM.load(tmp_path / "model", device="cpu")
    assert again.asking == vlm.asking
    assert again.stop_ids == vlm.stop_ids and len(again.stop_ids) == 2
    prompts, (ids, mask) = tiny_prompts(vlm, 2), ragged(vlm, 2, 2, 4)
    assert torch.equal(tiny_prompts(again, 2).ids, prompts.ids)
    assert torch.equal(tiny_prompts(again, 2).pixels, prompts.pixels)
    torch.testing.assert_close(again(prompts, ids, mask), vlm(prompts, ids, mask))


def test_others_are_asked_the_full_prompt_with_the_pictures_of_their_folder(folder: Path) -> None:
    (folder / "nanoaes.json").unlink()
    edit(folder / "preprocessor_config.json", min_pixels=6272, max_pixels=12_544,
         image_mean=[0.5] * 3, image_std=[0.25] * 3)
    vlm = VLM.load(folder, device="cpu")
    assert vlm.asking == Asking(SCORING_PROMPT, 1024, 6272, 12_544, (0.5,) * 3, (0.25,) * 3)
    theirs = Qwen2VLImageProcessorPil.from_pretrained(folder)
    got = theirs(images=pictures(3), return_tensors="pt")
    torch.testing.assert_close(vlm.prompts(pictures(3)).pixels, got["pixel_values"], rtol=0,
                               atol=2e-6)
    (folder / "preprocessor_config.json").unlink()
    assert VLM.load(folder, device="cpu").asking == Asking()


def test_only_an_explicit_option_asks_otherwise_and_it_is_said(folder: Path, capsys) -> None:
    same = VLM.load(folder, device="cpu", prompt="", max_pixels=0, max_new_tokens=0)
    assert same.asking.prompt == TOY_PROMPT and same.asking.max_new_tokens == 48
    VLM.load(folder, device="cpu", prompt="short", max_new_tokens=48)
    assert capsys.readouterr().out == ""  # nothing changed, nothing said
    other = VLM.load(folder, device="cpu", prompt="full", max_pixels=1568, max_new_tokens=9)
    assert other.asking.prompt == SCORING_PROMPT and other.asking.max_new_tokens == 9
    assert other.asking.max_pixels == other.asking.min_pixels == 1568
    said = capsys.readouterr().out
    assert all(f"--{name}: " in said for name in ("prompt", "max_pixels", "max_new_tokens"))
    assert other.described(0.0) == {
        "prompt": SCORING_PROMPT, "max_new_tokens": 9, "min_pixels": 1568, "max_pixels": 1568,
        "mean": Asking().mean, "std": Asking().std, "score_range": (0.0, 1.0),
        "stop_ids": other.stop_ids, "temperature": 0.0}


def test_a_saved_folder_decodes_as_it_was_evaluated(tmp_path: Path) -> None:
    """transformers' generate, with nothing said, gives the evaluation's answers."""
    vlm = tiny_kin("qwen2_5", seed=3, scale=8)
    vlm.stop_ids = [vlm.stop_ids[0], *range(60, 400, 6)]
    vlm.hf.generation_config.update(repetition_penalty=1.5, do_sample=True, top_k=3)  # a source's
    vlm.asking = Asking(TOY_PROMPT, max_new_tokens=12)
    vlm.save(tmp_path)
    served = AutoModelForImageTextToText.from_pretrained(tmp_path)
    for image in pictures(12):
        prompts = vlm.prompts([image])
        ours = rollout(vlm, prompts, k=1, max_new_tokens=12, temperature=0)
        out = served.generate(
            input_ids=prompts.ids, attention_mask=prompts.mask.long(), pixel_values=prompts.pixels,
            image_grid_thw=prompts.grid,
            mm_token_type_ids=(prompts.ids == vlm.image_id).int())[0, prompts.ids.shape[1]:]
        assert out.tolist() == ours.ids[0, 0][ours.mask[0, 0]].tolist()


@pytest.mark.parametrize("of_config, of_tokenizer, expected", [
    (None, "<|im_end|>", ["<|im_end|>"]),
    ("<|endoftext|>", "<|im_end|>", ["<|im_end|>", "<|endoftext|>"]),
    ("<|im_end|>", "<|im_end|>", ["<|im_end|>"]),
    ("<|endoftext|>", None, ["<|endoftext|>"]),
])
def test_stop_tokens_are_those_of_tokenizer_and_generation_config(
        folder: Path, of_config: str | None, of_tokenizer: str | None, expected: list[str]) -> None:
    token = tiny_vlm().tokenizer.convert_tokens_to_ids
    edit(folder / "generation_config.json", eos_token_id=of_config and token(of_config))
    edit(folder / "tokenizer_config.json", eos_token=of_tokenizer)
    assert VLM.load(folder, device="cpu").stop_ids == [token(x) for x in expected]


def test_without_any_stop_token_the_folder_is_refused(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    edit(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(CheckpointError, match="no stop token; add eos_token_id"):
        VLM.load(folder)


def test_a_template_that_opens_think_counts_for_the_answer(folder: Path) -> None:
    """In what the rewards read, and in what the cold start teaches."""
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>assistant\n",
                                                     "<|im_start|>assistant\n<think>\n"))
    vlm = VLM.load(folder, device="cpu")
    assert vlm.opened == "<think>\n"
    answer = "<think>soft light</think><answer>0.50</answer>"
    ids, mask = encode_answers(vlm, [answer])
    assert vlm.tokenizer.decode(ids[0, 0][:-1]) == "soft light</think><answer>0.50</answer>"
    rolls = rollout(vlm, vlm.prompts(pictures(1)), k=1, max_new_tokens=ids.shape[2], temperature=0)
    rolls.ids, rolls.mask, rolls.truncated = ids, mask, rolls.truncated & False
    text = rolls.answers(vlm)[0][0].text
    assert format_ok(text) and text.count("<think>") == 1


@pytest.mark.parametrize("text, message", [
    ("{}", "nanoaes.json cannot be read .'prompt'"),
    ('{"prompt": "x", "max_new_tokens": 3, "score_range": [5, 1]}', "scores from 5 to 1; use 0 <="),
    ('{"prompt": "x", "max_new_tokens": 3, "score_range": [1]}', "nanoaes.json cannot be read"),
])
def test_another_contract_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "nanoaes.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        VLM.load(folder)


@pytest.mark.parametrize("file, values, message", [
    ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}},
     "a evil model"),
    ("config.json", {"auto_map": {"AutoConfig": "evil.Evil",
                                  "AutoModelForImageTextToText": "evil.Evil"}}, ""),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}, ""),
    ("tokenizer_config.json", {"tokenizer_class": "Evil",
                               "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}, ""),
    ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "evil.Evil"}}, ""),
])
def test_no_code_of_a_folder_runs(folder: Path, monkeypatch, file: str, values: dict,
                                  message: str) -> None:
    """Where transformers knows the kind, its own class reads the folder; else it is refused."""
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
    edit(folder / file, **values)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    if message:
        with pytest.raises(CheckpointError, match=message):
            VLM.load(folder)
    else:
        VLM.load(folder, device="cpu")
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("kin", KIN)
def test_saved_again_it_is_the_same_folder(tmp_path: Path, kin: str) -> None:
    """And older readers find rotary positions, head and tokenizer by the names they know."""
    made, once, twice = (tmp_path / name for name in ("made", "once", "twice"))
    tiny_kin(kin).save(made)
    VLM.load(made, device="cpu").save(once)
    VLM.load(once, device="cpu").save(twice)
    for file in sorted(once.iterdir()):
        assert file.read_bytes() == (twice / file.name).read_bytes(), file.name
    text = json.loads((once / "config.json").read_text())["text_config"]
    more = {"mrope_interleaved": True} if kin == "qwen3" else {}
    assert text["rope_scaling"] == {"rope_type": "default", "mrope_section": [2, 3, 3], **more}
    assert text["rope_theta"] == 1e4 and text["tie_word_embeddings"] is True
    words = json.loads((once / "tokenizer_config.json").read_text())
    assert words["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_special_tokens_stand_under_the_name_that_older_readers_know(folder: Path) -> None:
    tokens = ["<|im_start|>", "<|image_pad|>"]
    edit(folder / "tokenizer_config.json", additional_special_tokens=tokens,
         tokenizer_class="Qwen2Tokenizer")
    VLM.load(folder, device="cpu").save(folder / "again")
    words = json.loads((folder / "again" / "tokenizer_config.json").read_text())
    assert words["additional_special_tokens"] == tokens
    assert "extra_special_tokens" not in words and words["tokenizer_class"] == "Qwen2Tokenizer"
    vlm = VLM.load(folder / "again", device="cpu")
    assert vlm.tokenizer.extra_special_tokens == tokens


@pytest.mark.parametrize("kin", KIN)
def test_max_pixels_make_a_picture_smaller_in_each_kind(tmp_path: Path, kin: str) -> None:
    """Qwen3-VL's own least area is 65,536: an option below it must lower that too."""
    tiny_kin(kin).save(tmp_path)
    image = pictures(1)[0].resize((320, 240))
    usual, small = (VLM.load(tmp_path, device="cpu", max_pixels=n) for n in (0, 12_544))
    area = {vlm: vlm.grid(image)[1] * vlm.grid(image)[2] * vlm.patch**2 for vlm in (usual, small)}
    assert area[small] <= 12_544 < 65_536 <= area[usual]
    tokens = [(vlm.prompts([image]).ids == vlm.image_id).sum() for vlm in (small, usual)]
    assert tokens[0] * 4 < tokens[1]


BF16, FP32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize("of_source, computes_in, expected", [
    (BF16, FP32, BF16), (FP32, BF16, BF16), (FP32, FP32, FP32), (BF16, BF16, BF16),
    (torch.float16, FP32, torch.float16), (torch.float16, BF16, BF16), (FP32, torch.float64, FP32)])
@pytest.mark.parametrize("kin", KIN)
def test_weights_are_saved_as_narrow_as_they_came(
        tmp_path: Path, kin: str, of_source: torch.dtype, computes_in: torch.dtype,
        expected: torch.dtype) -> None:
    """And the model in memory stays as it is."""
    tiny_kin(kin, of_source).save(tmp_path / "source")
    vlm = VLM.load(tmp_path / "source", computes_in, device="cpu")
    with torch.no_grad():
        vlm.hf.model.language_model.norm.weight += 1e-3  # learnt, in the dtype that it computes in
    config, before = str(vlm.hf.config), dict(vlm.hf.state_dict())
    copies = {name: x.clone() for name, x in before.items()}
    vlm.save(tmp_path / "saved")
    assert str(vlm.hf.config) == config
    for name, x in vlm.hf.state_dict().items():
        assert x.data_ptr() == before[name].data_ptr() and torch.equal(x, copies[name]), name
    found = load_file(tmp_path / "saved" / "model.safetensors")
    assert {x.dtype for x in found.values()} == {expected}
    said = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert said["dtype"] == said["text_config"]["dtype"] == str(expected).removeprefix("torch.")
    again = VLM.load(tmp_path / "saved", computes_in, device="cpu").hf.state_dict()
    assert all(torch.equal(x.to(expected).to(computes_in), again[n]) for n, x in copies.items())


def test_many_small_wide_tensors_do_not_widen_the_rest(folder: Path) -> None:
    """As norms and biases in fp32 beside matrices in bf16."""
    file = folder / "model.safetensors"
    mixed = {n: x.bfloat16() if x.numel() > 40_000 else x.clone()
             for n, x in load_file(file).items()}
    assert sum(x.dtype == FP32 for x in mixed.values()) > len(mixed) / 2
    save_file(mixed, file, metadata={"format": "pt"})
    VLM.load(folder, device="cpu").save(folder / "again")
    assert {x.dtype for x in load_file(folder / "again" / "model.safetensors").values()} == {BF16}
