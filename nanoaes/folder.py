"""A model's folder as Hugging Face writes it, and what changes an answer beside the weights.

    config.json, *.safetensors      transformers' model
    tokenizer, chat template        transformers' tokenizer
    preprocessor_config.json        how large a picture may be, mean and deviation of its colours
    generation_config.json          stop tokens, longest answer, greedy: as our evaluation decodes
    nanoaes.json                    what the model is asked, and the range of its scores

A model trained on small pictures or with another question answers badly to any other, so all of it
is kept with the model, read back, and written into every result (`Asking`). A folder that others
made has no nanoaes.json: it is asked the full prompt. No code of a folder ever runs.
Left out: processors of video; a source's own decoding (penalties, top-k), which no ratio survives.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from nanoaes.errors import UserError
from nanoaes.prompt import PROMPTS, SCORING_PROMPT

PROCESSORS = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor",
              "qwen3_vl": "Qwen3VLProcessor"}  # the kinds of model that this code knows
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean, std
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SCORE_RANGE = [0.0, 1.0]  # `prompt.parse_score` reads no other

transformers.logging.disable_progress_bar()  # a bar per file would bury the scripts' own


class CheckpointError(UserError):
    """A model folder that cannot be used."""


@dataclass(frozen=True)
class Asking:
    """How a model is asked: whatever changes its answer, except weights and stop tokens."""

    prompt: str = SCORING_PROMPT
    max_new_tokens: int = 1024
    min_pixels: int = 56 * 56
    max_pixels: int = 262_144  # the paper's
    mean: tuple[float, ...] = CLIP[0]  # of red, green, blue
    std: tuple[float, ...] = CLIP[1]

    def but(self, **options: Any) -> tuple["Asking", list[str]]:
        """With options that were given (not empty, not 0) in place, and a line for each change.

        A prompt is given by its name in `PROMPTS`.
        """
        options = {k: PROMPTS[v] if v and k == "prompt" else v for k, v in options.items()}
        given = {k: v for k, v in options.items() if v and v != getattr(self, k)}
        said = [f"--{k}: {getattr(self, k)!r} in the model's folder, now {v!r}"
                for k, v in given.items()]
        new = replace(self, **given)
        return replace(new, min_pixels=min(new.min_pixels, new.max_pixels)), said


@dataclass
class Folder:
    """What `read_folder` finds."""

    hf: nn.Module
    tokenizer: PreTrainedTokenizerBase
    stop_ids: list[int]
    asking: Asking


def read_folder(path: Path, dtype: torch.dtype) -> Folder:
    """Read an ordinary Hugging Face folder.

    Raises:
        CheckpointError: no such folder, another kind of model, missing or broken weights, a file
            that cannot be read, no stop token, another score range.
    """
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path}: no config.json; give a Hugging Face model folder, "
                              "such as train_rapo.py leaves in RUN/rapo")
    with _reading(path, "config.json"):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if config.model_type not in PROCESSORS:
        raise CheckpointError(f"{path}: a {config.model_type} model; this code knows "
                              f"{', '.join(PROCESSORS)}")
    with _reading(path, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise CheckpointError(f"{path}: the tokenizer has no chat template; copy the source's "
                              "chat_template.jinja or tokenizer_config.json")
    return Folder(_weights(path, config, dtype), tokenizer, _stop_ids(path, tokenizer),
                  _asking(path, config.model_type))


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """What transformers raises over a damaged file, as one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: {what} cannot be read ({reason}); copy it again") from error


def _weights(path: Path, config: PreTrainedConfig, dtype: torch.dtype) -> nn.Module:
    """transformers' model, whole: it fills what a folder lacks with random numbers and a warning.

    Raises:
        CheckpointError: no weights, missing ones, a file that cannot be read.
    """
    if not list(path.glob("*.safetensors")):
        raise CheckpointError(f"{path}: no *.safetensors here; the folder has no weights")
    try:
        hf, found = AutoModelForImageTextToText.from_pretrained(
            path, config=config, dtype=dtype, attn_implementation="sdpa", output_loading_info=True,
            trust_remote_code=False)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: broken weights ({error}); copy them again") from error
    if found["missing_keys"]:
        raise CheckpointError(f"{path}: {len(found['missing_keys'])} weights are missing, such as "
                              f"{min(found['missing_keys'])}; copy them again")
    return hf


def _stop_ids(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokenizer's stop token, then the generation config's: a chat ends with either.

    A folder whose generation config knows only <|endoftext|> would never stop at <|im_end|>.
    """
    found = [tokenizer.eos_token_id]
    if (path / "generation_config.json").is_file():
        with _reading(path, "generation_config.json"):
            more = GenerationConfig.from_pretrained(path).eos_token_id
        found += more if isinstance(more, list) else [more]
    stop = [i for i in dict.fromkeys(found) if i is not None]
    if not stop:
        raise CheckpointError(f"{path}: no stop token; add eos_token_id to generation_config.json")
    return stop


def default_asking(kind: str) -> Asking:
    """Of a folder without preprocessor_config.json and nanoaes.json: its kind's own pictures."""
    if kind.startswith("qwen3_vl"):
        return Asking(min_pixels=256 * 256, mean=HALF[0], std=HALF[1])
    return Asking()


def _asking(path: Path, kind: str) -> Asking:
    """From preprocessor_config.json and nanoaes.json, as far as they are there."""
    asking = default_asking(kind)
    files = [f for f in ("processor_config.json", "preprocessor_config.json")
             if (path / f).is_file()]  # what transformers 5 saves, and what the hub has
    if files:
        with _reading(path, files[-1]):
            found = Qwen2VLImageProcessorPil.from_pretrained(path, trust_remote_code=False)
        asking = replace(asking, min_pixels=found.size["shortest_edge"],
                         max_pixels=found.size["longest_edge"], mean=tuple(found.image_mean),
                         std=tuple(found.image_std))
    if not (path / "nanoaes.json").is_file():
        return asking
    with _reading(path, "nanoaes.json"):
        ours = json.loads((path / "nanoaes.json").read_text(encoding="utf-8"))
        if ours["score_range"] != SCORE_RANGE:
            raise ValueError(f"scores between {ours['score_range']}; this code knows {SCORE_RANGE}")
        return replace(asking, prompt=str(ours["prompt"]),
                       max_new_tokens=int(ours["max_new_tokens"]))


def write_folder(path: Path, folder: Folder, forbidden: list[int]) -> None:
    """The folder that `read_folder`, and anything that reads Hugging Face folders, reads.

    Args:
        forbidden: words that are never sampled here, nor shall be where the folder is served.
    """
    hf, asking = folder.hf, folder.asking
    hf.generation_config = GenerationConfig(
        bos_token_id=hf.config.text_config.bos_token_id, eos_token_id=folder.stop_ids,
        pad_token_id=folder.stop_ids[-1], do_sample=False, max_new_tokens=asking.max_new_tokens,
        suppress_tokens=forbidden)
    hf.save_pretrained(path)
    folder.tokenizer.save_pretrained(path)
    vision = hf.config.vision_config
    _write(path / "preprocessor_config.json", {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": PROCESSORS[hf.config.model_type], "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size, "temporal_patch_size": vision.temporal_patch_size,
        "min_pixels": asking.min_pixels, "max_pixels": asking.max_pixels,
        "image_mean": asking.mean, "image_std": asking.std})
    _write(path / "nanoaes.json", {"prompt": asking.prompt, "score_range": SCORE_RANGE,
                                   "max_new_tokens": asking.max_new_tokens})


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
