"""Adapters on the disk, in PEFT's own folder: PEFT reads what is written here, and the reverse.

    adapter_config.json             rank, alpha, which layers, whose adapters they are
    adapter_model.safetensors       base_model.model.<layer>.lora_A.weight (r, in), .lora_B (out, r)

Names of layers from before transformers 4.52 are read too. What would compute otherwise than
`lora.py` does is refused in one line, before any weight of the model is read. Left out: regular
expressions that are made to run for ever; who fears them must not load strangers' folders.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from nanoaes.checks import CheckpointError, Shapes, header, json_object, module_name, reading
from nanoaes.hub import find_folder
from nanoaes.lora import LoRA, adapters, attach, is_meant, linears

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
READ = {"peft_type", "r", "lora_alpha", "target_modules", "exclude_modules", "bias",
        "init_lora_weights", "base_model_name_or_path"}
IDLE = {"task_type", "inference_mode", "lora_dropout", "auto_mapping", "peft_version",
        "megatron_core", "qalora_group_size"}  # change no answer by themselves
PARTS = ("lora_A", "lora_B")


def is_adapters(path: Path) -> bool:
    """Whether a folder holds adapters and no whole model."""
    return (path / CONFIG).is_file() and not (path / "config.json").is_file()


def find_base(path: Path) -> tuple[Path, Path]:
    """The name and the folder of the model that a folder's adapters belong to.

    Raises:
        CheckpointError: adapters that `lora.py` does not compute; a model that is neither here,
            nor beside the adapters, nor on the hub.
    """
    name = Path(_base_name(path))
    if not name.is_dir() and (path / name).is_dir():
        name = path / name
    try:
        return name, find_folder(name)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: the model that adapter_config.json names in "
                              f"base_model_name_or_path is not there: {error}") from error


def _base_name(path: Path) -> str:
    """From a config that says nothing that `lora.py` does not do."""
    config = json_object(path, CONFIG)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: {CONFIG} says peft_type {config.get('peft_type')}, and "
                              "only LORA is read; merge it with PEFT's merge_and_unload")
    odd = {k: v for k, v in config.items() if v and k not in READ | IDLE}
    if config.get("bias", "none") != "none":
        odd["bias"] = config["bias"]
    if config.get("init_lora_weights", True) not in (True, False, "gaussian"):
        odd["init_lora_weights"] = config["init_lora_weights"]  # PiSSA and others change the base
    if odd:
        said = ", ".join(f"{k} {v}" for k, v in sorted(odd.items()))[:200]
        raise CheckpointError(f"{path}: {CONFIG} has {said}, which this code does not compute; "
                              "merge it with PEFT's merge_and_unload")
    base = config.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise CheckpointError(f"{path}: {CONFIG} names no model that the adapters belong to; set "
                              "its base_model_name_or_path to a folder or a name of the hub")
    return base


def plan(path: Path, hf: nn.Module) -> LoRA:
    """Which layers of a model the folder's adapters belong to, each by its whole name.

    Args:
        hf: the model, on `meta` at best: only names and shapes are looked at.
    Raises:
        CheckpointError: no weights, tensors that are missing, none of this model's layers', or of
            other shapes than the config's rank gives.
    """
    config = json_object(path, CONFIG)
    with reading(path, CONFIG):
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        targets, left_out = config["target_modules"], config.get("exclude_modules") or []
        known = linears(hf, vision=True)
        wanted = [n for n in known if _means(targets, n) and not _means(left_out, n)]
        if rank < 1 or not math.isfinite(alpha) or not wanted:
            raise ValueError(f"r {rank}, lora_alpha {alpha}, {len(wanted)} layers")
    if not (path / WEIGHTS).is_file():
        raise CheckpointError(f"{path}: no {WEIGHTS}; copy it (a pickle, which can run code, is "
                              "never read: save adapters as safetensors)")
    found = {ours: shape for ours, (_, shape) in _tensors(path).items()}
    shapes = {f"{n}.{part}": shape for n in wanted for part, shape in zip(
        PARTS, ((rank, known[n].in_features), (known[n].out_features, rank)), strict=True)}
    missing, extra = sorted(shapes.keys() - found), sorted(found.keys() - shapes)
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} tensors are missing in {WEIGHTS}, such as "
                              f"{missing[0]}; copy it again, or {CONFIG} is of other adapters")
    if extra:
        raise CheckpointError(f"{path}: {len(extra)} tensors of {WEIGHTS} belong to no linear "
                              f"layer that {CONFIG} names, such as {extra[0]}; merge it with "
                              "PEFT's merge_and_unload, or take the model it was trained on")
    for name, shape in shapes.items():
        if found[name] != shape:
            raise CheckpointError(f"{path}: {name} is {found[name]} in {WEIGHTS} and {shape} by "
                                  f"{CONFIG} and its model; copy both again, or take the model "
                                  "that the adapters were trained on")
    return LoRA(rank, alpha, tuple(wanted), any(n.startswith("model.visual.") for n in wanted))


def _means(rule: Any, name: str) -> bool:
    """PEFT's rule for a layer's name: a regular expression or a list; also of older names."""
    old = name.replace("model.language_model.", "model.", 1).replace("model.visual.", "visual.", 1)
    if isinstance(rule, str):
        return any(re.fullmatch(rule, n) for n in (name, old))
    return any(is_meant(n, rule) for n in (name, old))


def _tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """`layer.lora_A` or `.lora_B` -> the name in the file and the shape there."""
    shapes: Shapes = header(path, WEIGHTS)
    return {module_name(n.removeprefix(PREFIX)).removesuffix(".weight"): (n, shape)
            for n, shape in shapes.items()}


def load_adapters(hf: nn.Module, path: Path) -> None:
    """Put a folder's adapters before a plain model's layers, in place.

    Raises:
        CheckpointError: as `plan`; NaN or infinity.
    """
    attach(hf, plan(path, hf))
    found = adapters(hf)
    with reading(path, WEIGHTS), safe_open(path / WEIGHTS, framework="pt") as file, torch.no_grad():
        for ours, (name, _) in _tensors(path).items():
            value = file.get_tensor(name)
            if not value.isfinite().all():
                raise CheckpointError(f"{path}: {name} in {WEIGHTS} holds NaN or infinity; copy "
                                      "it again, or go back to an earlier checkpoint")
            layer, part = ours.rsplit(".", 1)
            getattr(found[layer], part).copy_(value)


def save_adapters(hf: nn.Module, path: Path, base: str) -> None:
    """Write the two files from which PEFT adapts the same layers in the same way.

    Args:
        base: the model that they belong to: a folder or a name of the hub.
    """
    found = adapters(hf)
    one = next(iter(found.values()))
    path.mkdir(parents=True, exist_ok=True)
    ends = sorted({name.rsplit(".", 1)[1] for name in found})
    meant = {n for n, _ in hf.named_modules() if is_meant(n, ends)}
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base,
              "r": one.rank, "lora_alpha": one.alpha, "lora_dropout": 0.0, "bias": "none",
              # Whole names where the short ones mean other layers too, of the vision tower say.
              "target_modules": ends if meant == found.keys() else sorted(found),
              "inference_mode": True}
    (path / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({f"{PREFIX}{name}.{part}.weight": getattr(adapter, part).detach().contiguous()
               for name, adapter in found.items() for part in PARTS},
              path / WEIGHTS, metadata={"format": "pt"})
