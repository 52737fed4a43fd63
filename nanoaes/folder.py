"""A model's folder as Hugging Face writes it, and what changes an answer beside the weights.

    config.json, *.safetensors      transformers' model
    tokenizer, chat template        transformers' tokenizer
    preprocessor_config.json        how large a picture may be, mean and deviation of its colours
    generation_config.json          stop tokens, longest answer, greedy: as our evaluation decodes
    nanoaes.json                    what the model is asked, and the range of its scores

A folder of adapters (`adapters.py`) has adapter_config.json and adapter_model.safetensors in place
of the first line; what else it lacks is its base model's.
A model trained on small pictures or with another question answers badly to any other, so all of it
is kept with the model, read back, and written into every result (`Asking`). A folder that others
made has no nanoaes.json: it is asked the full prompt. No code of a folder ever runs, and nothing is
loaded before `checks.py` has seen the folder. What is written, transformers 4 reads too.
Left out: processors of video; a source's own decoding (penalties, top-k), which no ratio survives.
"""

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from nanoaes.adapters import find_base, is_adapters, load_adapters, plan, save_adapters
from nanoaes.checks import (
    PROCESSORS,
    CheckpointError,
    check_files,
    check_finite,
    check_texts,
    check_weights,
    has_tokenizer,
    json_object,
    read_config,
    reading,
    stored_dtype,
)
from nanoaes.hub import find_folder
from nanoaes.lora import adapters, whole_state
from nanoaes.older import older_config, older_words, write_object
from nanoaes.prompt import PROMPTS, SCORING_PROMPT, UNIT, check_range
from nanoaes.template import check_template

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean, std
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

transformers.logging.disable_progress_bar()  # a bar per file would bury the scripts' own


@dataclass(frozen=True)
class Asking:
    """How a model is asked: whatever changes its answer, except weights and stop tokens."""

    prompt: str = SCORING_PROMPT
    max_new_tokens: int = 1024
    min_pixels: int = 56 * 56
    max_pixels: int = 262_144  # the paper's
    mean: tuple[float, ...] = CLIP[0]  # of red, green, blue
    std: tuple[float, ...] = CLIP[1]
    score_range: tuple[float, float] = UNIT  # of the numbers that the prompt asks for

    def __post_init__(self) -> None:
        """Raises ValueError for a range that cannot be asked for."""
        check_range(*self.score_range)

    def but(self, **options: Any) -> tuple["Asking", list[str]]:
        """With options that were given (not empty, not 0) in place, and a line for each change.

        A prompt is given by its name in `PROMPTS`, or as its text.
        """
        options = {k: PROMPTS.get(v, v) if k == "prompt" else v for k, v in options.items()}
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
    source: str = ""  # whole weights: a folder or a name of the hub; adapters belong to it
    stored: torch.dtype | None = None  # of the weights there; wider ones are not written


def read_folder(model: Path, dtype: torch.dtype) -> Folder:
    """Read an ordinary Hugging Face folder, one of adapters, or a model of the hub.

    Args:
        model: a folder; or OWNER/MODEL, which is fetched once (`find_folder`).
    Raises:
        CheckpointError: no such folder or model, another kind of model, files that are missing,
            damaged or of different models, a chat template that is no good, no stop token, another
            score range. Whatever can be seen without reading the weights is seen before.
    """
    name, top, path, config, asking = _small_files(model)
    empty = check_weights(path, config)
    if top != path:
        plan(top, empty)
    words = config.text_config.vocab_size
    own = top if has_tokenizer(top) else path
    with reading(own, "the tokenizer (tokenizer.json, tokenizer_config.json)"):
        tokenizer = AutoTokenizer.from_pretrained(own, trust_remote_code=False)
    if len(tokenizer) > words:
        raise CheckpointError(f"{own}: tokenizer.json has {len(tokenizer)} tokens, config.json's "
                              f"vocab_size is {words}; copy both again, of the same model")
    check_template(own, tokenizer, asking.prompt, config.image_token_id)
    stop_ids = _stop_ids(_with(top, path, "generation_config.json"), tokenizer, words)
    hf = _weights(path, config, dtype)
    if top != path:
        load_adapters(hf, top)
    source = str(path.resolve()) if name.is_dir() else name.as_posix()
    return Folder(hf, tokenizer, stop_ids, asking, source, stored_dtype(path))


def read_asking(model: Path) -> tuple[PreTrainedConfig, Asking]:
    """What a model is and how it is asked, from its small files; raises as `read_folder`."""
    return _small_files(model)[3:]


def _small_files(model: Path) -> tuple[Path, Path, Path, PreTrainedConfig, Asking]:
    """Name and folder of the whole weights, the folder given between them; config; asking."""
    name, path = model, (top := find_folder(model))
    if is_adapters(top):
        check_texts(top)
        name, path = find_base(top)
    check_files(path)
    config = read_config(path)
    return name, top, path, config, _asking(top, path, config.model_type)


def _with(top: Path, path: Path, file: str) -> Path:
    """The adapters' folder if it has a file, else their model's."""
    return top if (top / file).is_file() else path


def _weights(path: Path, config: PreTrainedConfig, dtype: torch.dtype) -> nn.Module:
    """transformers' model, whole: it fills what it does not find with random numbers.

    Raises:
        CheckpointError: weights that are missing or not finite, a file that cannot be read.
    """
    with reading(path, "*.safetensors"):
        hf, found = AutoModelForImageTextToText.from_pretrained(
            path, config=config, dtype=dtype, attn_implementation="sdpa", output_loading_info=True,
            trust_remote_code=False)
    if found["missing_keys"]:  # transformers names its modules otherwise than `checks.py` thinks
        raise CheckpointError(f"{path}: transformers {transformers.__version__} does not find "
                              f"{min(found['missing_keys'])} in *.safetensors; use a version that "
                              "requirements.txt names")
    check_finite(path, hf)
    return hf


def _stop_ids(path: Path, tokenizer: PreTrainedTokenizerBase, words: int) -> list[int]:
    """The tokenizer's stop token, then the generation config's: a chat ends with either.

    A folder whose generation config knows only <|endoftext|> would never stop at <|im_end|>.
    """
    found = [tokenizer.eos_token_id]
    if (path / "generation_config.json").is_file():
        with reading(path, "generation_config.json"):
            more = GenerationConfig.from_pretrained(path).eos_token_id
        found += more if isinstance(more, list) else [more]
    stop = [i for i in dict.fromkeys(found) if i is not None]
    if not stop:
        raise CheckpointError(f"{path}: no stop token; add eos_token_id to generation_config.json")
    if not all(isinstance(i, int) and 0 <= i < words for i in stop):
        raise CheckpointError(f"{path}: eos_token_id {stop} of generation_config.json is outside "
                              f"the vocabulary of {words}; mend it")
    return stop


def default_asking(kind: str) -> Asking:
    """Of a folder without preprocessor_config.json and nanoaes.json: its kind's own pictures."""
    if kind.startswith("qwen3_vl"):
        return Asking(min_pixels=256 * 256, mean=HALF[0], std=HALF[1])
    return Asking()


def _asking(top: Path, path: Path, kind: str) -> Asking:
    """From preprocessor_config.json and nanoaes.json, as far as they are there."""
    asking = default_asking(kind)
    files = [(folder, f) for folder in (path, top)
             for f in ("processor_config.json", "preprocessor_config.json")
             if (folder / f).is_file()]  # what transformers 5 saves, and what the hub has
    if files:
        folder, file = files[-1]
        with reading(folder, file):
            found = Qwen2VLImageProcessorPil.from_pretrained(folder, trust_remote_code=False)
            asking = replace(asking, min_pixels=int(found.size["shortest_edge"]),
                             max_pixels=int(found.size["longest_edge"]),
                             mean=_colours(found.image_mean), std=_colours(found.image_std))
            if not 0 < asking.min_pixels <= asking.max_pixels or min(asking.std) <= 0:
                raise ValueError(f"pixels {asking.min_pixels} to {asking.max_pixels}, image_std "
                                 f"{asking.std}")
    path = _with(top, path, "nanoaes.json")
    if not (path / "nanoaes.json").is_file():
        return asking
    with reading(path, "nanoaes.json"):
        ours = json_object(path, "nanoaes.json")
        return replace(asking, prompt=str(ours["prompt"]),
                       score_range=tuple(map(float, ours["score_range"])),
                       max_new_tokens=int(ours["max_new_tokens"]))


def _colours(given: list[float]) -> tuple[float, ...]:
    """Of red, green and blue, finite."""
    if len(given) != 3 or not all(map(math.isfinite, given)):
        raise ValueError(f"{given} for red, green and blue")
    return tuple(given)


def write_folder(path: Path, folder: Folder, forbidden: list[int], merged: bool = False) -> None:
    """The folder that `read_folder`, and anything that reads Hugging Face folders, reads.

    A model with adapters leaves them alone, in PEFT's form. The model in memory stays as it is.

    Args:
        forbidden: words that are never sampled here, nor shall be where the folder is served.
        merged: write the whole model, adapters merged into it.
    """
    hf, asking = folder.hf, folder.asking
    decoding = GenerationConfig(
        bos_token_id=hf.config.text_config.bos_token_id, eos_token_id=folder.stop_ids,
        pad_token_id=folder.stop_ids[-1], do_sample=False, max_new_tokens=asking.max_new_tokens,
        suppress_tokens=forbidden)
    if adapters(hf) and not merged:
        save_adapters(hf, path, folder.source)
        decoding.save_pretrained(path)
    else:
        plain = _plain(hf, min(hf.dtype, folder.stored or hf.dtype, key=lambda d: d.itemsize))
        plain.generation_config = decoding
        plain.save_pretrained(path)
        older_config(path)
    folder.tokenizer.save_pretrained(path)
    older_words(path)
    vision = hf.config.vision_config
    write_object(path / "preprocessor_config.json", {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": PROCESSORS[hf.config.model_type], "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size, "temporal_patch_size": vision.temporal_patch_size,
        "min_pixels": asking.min_pixels, "max_pixels": asking.max_pixels,
        "image_mean": asking.mean, "image_std": asking.std})
    write_object(path / "nanoaes.json", {"prompt": asking.prompt,
                                         "score_range": asking.score_range,
                                   "max_new_tokens": asking.max_new_tokens})


def _plain(hf: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A twin without adapters, in a dtype; it shares what it need not change."""
    with torch.device("meta"):
        twin = type(hf)._from_config(copy.deepcopy(hf.config), dtype=dtype,
                                     attn_implementation="sdpa")
    twin.load_state_dict({name: x if x.dtype == dtype else x.cpu().to(dtype)
                          for name, x in whole_state(hf).items()}, assign=True)
    twin.tie_weights()
    return twin
