"""What a model's folder must be before anything of it is loaded: its files, names and shapes.

transformers meets a damaged folder with a traceback, with random numbers in place of what lacks,
or in silence, and only after gigabytes are read. Here each damage is one line that names the file
and the remedy. The kind of model is read from config.json by ourselves, since an auto class that
does not know a kind asks to run the folder's code; of the weights only the headers are read.
Left out: whether the numbers are good ones (`folder.py` looks for NaN once they are loaded).
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from nanoaes.errors import UserError

PROCESSORS = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor",
              "qwen3_vl": "Qwen3VLProcessor"}  # the kinds of model that this code knows
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TEXTS = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json",
         "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
         "chat_template.json", "nanoaes.json", "adapter_config.json", INDEX)
SPECIAL = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
Shapes = dict[str, tuple[int, ...]]  # a tensor's name -> its shape


class CheckpointError(UserError):
    """A model folder that cannot be used."""


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """What others' readers raise over a damaged file, as one line.

    Any exception: tokenizers raises `Exception` itself, and what transformers lets through depends
    on the file's damage.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path}: {what} cannot be read ({reason}); copy it again"
                              ) from error


def check_files(path: Path) -> None:
    """All that can be seen in the small files of a whole model's folder.

    Raises:
        CheckpointError: no config, another kind of model, adapters, quantised weights, no
            tokenizer, a file that is no JSON object or only Git LFS's pointer to it.
    """
    if (path / "adapter_config.json").is_file():
        raise CheckpointError(f"{path}: adapter_config.json where a whole model is wanted; merge "
                              "the adapters into their model first (PEFT's merge_and_unload), or "
                              "remove the file if the weights here are merged")
    check_texts(path)
    check_kind(path)
    if not has_tokenizer(path):
        raise CheckpointError(f"{path}: no tokenizer.json; copy the tokenizer's files of the model "
                              "that this one was made from")


def check_texts(path: Path) -> None:
    """A folder's JSON files hold objects, and no file is only Git LFS's pointer to one.

    Raises:
        CheckpointError: one does not, one is.
    """
    for file in sorted(path.iterdir()):
        if file.suffix in {".json", ".safetensors", ".jinja", ".txt"} and file.is_file():
            with file.open("rb") as start:
                if start.read(24) == b"version https://git-lfs.":
                    raise CheckpointError(f"{path}: {file.name} is only Git LFS's pointer to the "
                                          "file; run `git lfs pull` there")
    for name in TEXTS:
        if (path / name).is_file():
            json_object(path, name)


def has_tokenizer(path: Path) -> bool:
    """In one of the two forms."""
    return (path / "tokenizer.json").is_file() or all(
        (path / name).is_file() for name in ("vocab.json", "merges.txt"))


def json_object(path: Path, name: str) -> dict[str, Any]:
    """One of a folder's JSON files."""
    with reading(path, name):
        value = json.loads((path / name).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise TypeError(f"a {type(value).__name__}, not an object")
    return value


def check_kind(path: Path) -> None:
    """What config.json itself says, before any class of transformers sees it.

    Raises:
        CheckpointError: no config, another kind of model, quantised weights, no image token.
    """
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path}: no config.json; give a Hugging Face model folder, "
                              "such as train_rapo.py leaves in RUN/rapo")
    config = json_object(path, "config.json")
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in PROCESSORS:
        said = f"a {kind} model" if kind else "config.json has no model_type"
        raise CheckpointError(f"{path}: {said}; this code knows {', '.join(PROCESSORS)}: give a "
                              "folder of one of these")
    parts = [config, config.get("text_config")]
    if any(isinstance(part, dict) and part.get("quantization_config") for part in parts):
        raise CheckpointError(f"{path}: config.json has a quantization_config, and quantised "
                              "weights cannot be trained; give the model that was quantised")
    if not isinstance(config.get("image_token_id"), int):
        raise CheckpointError(f"{path}: config.json has no image_token_id; copy config.json of the "
                              "model that this one was made from")


def read_config(path: Path) -> PreTrainedConfig:
    """What transformers makes of a config.json that `check_kind` has seen.

    Raises:
        CheckpointError: no model can be made of it, layers with a sliding window, special tokens
            outside the vocabulary.
    """
    with reading(path, "config.json"):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    text = config.text_config
    windows = [kind for kind in getattr(text, "layer_types", None) or []
               if kind != "full_attention"]
    if windows:
        raise CheckpointError(f"{path}: config.json gives {len(windows)} layers {windows[0]}, "
                              "which this code does not compute; set use_sliding_window to false "
                              "if the model was trained without, else take another model")
    for name in SPECIAL:
        if not 0 <= getattr(config, name) < text.vocab_size:
            raise CheckpointError(f"{path}: {name} {getattr(config, name)} of config.json is "
                                  f"outside its vocab_size {text.vocab_size}; copy config.json of "
                                  "the model that this one was made from")
    return config


def check_weights(path: Path, config: PreTrainedConfig) -> nn.Module:
    """Every weight of the model is there, in its shape, and no other. Reads headers only.

    Returns:
        the model on `meta`, without weights.
    Raises:
        CheckpointError: no weights, pickles only, a shard or a tensor too few or too many, shapes
            that are not config.json's, integers or 8-bit floats.
    """
    found = _tensors(path)
    with reading(path, "config.json"), torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    wanted = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight")
        found.pop("lm_head.weight", None)  # some write the embedding twice
    missing, extra = sorted(wanted.keys() - found), sorted(found.keys() - wanted)
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} weights are missing, such as {missing[0]}; "
                              "copy the *.safetensors again, or config.json is of another model")
    if extra:
        raise CheckpointError(
            f"{path}: {len(extra)} tensors of *.safetensors are none of this model's, such as "
            f"{extra[0]}; merge adapters first, or config.json is of another model")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(f"{path}: {name} is {found[name]} in *.safetensors and {shape} "
                                  "by config.json; one of the two is another model's: copy both "
                                  "again")
    return model


def _tensors(path: Path) -> Shapes:
    """All tensors of a folder's weights by the names that transformers 5 gives its modules."""
    single, given = (path / WEIGHTS).is_file(), _index(path)
    found: Shapes = {}
    for file in [WEIGHTS] if single else sorted(set(given.values())):
        here = header(path, file)
        listed = here.keys() if single else {name for name, place in given.items() if place == file}
        for name in sorted(here.keys() ^ listed):
            lacks = INDEX if name in here else file
            raise CheckpointError(f"{path}: {name} is not in {lacks}, though {file} and {INDEX} "
                                  "belong together; copy both again")
        found |= here
    # Harmless: rotary frequencies that old versions saved; they are computed.
    return {module_name(name): shape for name, shape in found.items()
            if not name.endswith(".inv_freq")}


def stored_dtype(path: Path) -> torch.dtype:
    """Of most of the numbers in a folder's weights. Reads headers only, of checked files."""
    count: Counter[str] = Counter()
    for file in sorted(set(_index(path).values())) or [WEIGHTS]:
        with safe_open(path / file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  safe_open is no mapping
                part = tensors.get_slice(name)
                count[part.get_dtype()] += math.prod(part.get_shape())
    return FLOATS[count.most_common(1)[0][0]]


def _index(path: Path) -> dict[str, str]:
    """A tensor's name -> its shard; empty for a model of one file.

    Raises:
        CheckpointError: no weights, or shards that are not all there.
    """
    if (path / WEIGHTS).is_file():
        return {}
    if not (path / INDEX).is_file():
        if list(path.glob("*.safetensors")):
            raise CheckpointError(f"{path}: *.safetensors, but neither {WEIGHTS} nor {INDEX}, "
                                  "which says what is where; copy it")
        pickles = [f.name for f in path.iterdir() if f.suffix in {".bin", ".pt", ".pth"}]
        if pickles:
            raise CheckpointError(f"{path}: {min(pickles)} is a pickle, which can run code, and is "
                                  "never read; save the model as safetensors where you trust it")
        raise CheckpointError(f"{path}: no *.safetensors here, the folder has no weights; copy "
                              "them")
    with reading(path, INDEX):
        shards = dict(json_object(path, INDEX)["weight_map"])
        if not all(isinstance(f, str) and Path(f).name == f for f in shards.values()):
            raise ValueError("a shard's name is no plain file name")
    for file in sorted(set(shards.values())):
        if not (path / file).is_file():
            raise CheckpointError(f"{path}: {file} is missing, which {INDEX} names; copy it")
    return shards


def header(path: Path, file: str) -> Shapes:
    """A file's tensors; it must be as long as its header says."""
    shapes: Shapes = {}
    try:
        with safe_open(path / file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  safe_open is no mapping
                part = tensors.get_slice(name)
                shapes[name] = tuple(part.get_shape())
                if part.get_dtype() not in FLOATS:
                    raise CheckpointError(f"{path}: {name} in {file} is {part.get_dtype()}, and "
                                          "quantised weights cannot be trained; give the model "
                                          "that was quantised")
    except CheckpointError:
        raise
    except Exception as error:  # SafetensorError, OSError
        raise CheckpointError(f"{path}: broken weights in {file} ({error}); copy it again"
                              ) from error
    return shapes


def module_name(name: str) -> str:
    """The hub's visual.*, model.layers.* -> model.visual.*, model.language_model.layers.*."""
    name = re.sub(r"^visual\.", "model.visual.", name)
    return re.sub(r"^model\.(?!language_model\.|visual\.)", "model.language_model.", name)


def check_finite(path: Path, model: nn.Module) -> None:
    """No weight is NaN or infinite.

    Raises:
        CheckpointError: the first that is.
    """
    for name, weight in model.named_parameters():
        # The two ends are 10 times faster than isfinite, and NaN is one of them where it occurs.
        if not torch.stack(torch.aminmax(weight.detach())).isfinite().all():
            raise CheckpointError(f"{path}: {name} in *.safetensors holds NaN or infinity; copy "
                                  "the weights again, or go back to an earlier checkpoint")
