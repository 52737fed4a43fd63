"""One model in its three roles, for any size: it answers, it learns, it is what it must not leave.

    speaker     whole on every process: rollouts, evaluation, what is saved
    learner     what the update runs: log-probs with a gradient
    reference   the cold-started model: log-probs without

In fp32 on one process speaker and learner are one object. Elsewhere the learner's fp32 masters are
sharded, and its weights go to the speaker after each update (`sharding.py`). With adapters
(`lora.py`) one frozen model is all three, whole on every process.
Left out: rollouts by another server's copy, whose log-probs would not be this code's.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanoaes.adapters import find_base, is_adapters
from nanoaes.checkpoint import publish
from nanoaes.config import LearnConfig, ModelConfig
from nanoaes.errors import UserError
from nanoaes.lora import (
    LoRA,
    adapters,
    as_reference,
    attach,
    begin_here,
    is_meant,
    merge,
    spec_of,
)
from nanoaes.parallel import by_first, device, size
from nanoaes.progress import say
from nanoaes.prompt import UNIT
from nanoaes.runs import refuse_overwrite
from nanoaes.sharding import everywhere, mesh, refresh, sharded
from nanoaes.vlm import VLM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


Reference = Callable[..., tuple[Tensor, Tensor]]  # as `VLM.forward`


@dataclass
class Models:
    """The roles. trained: the learner's weights that get a gradient, by name."""

    speaker: VLM
    learner: VLM
    reference: Reference | None = None
    trained: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        # Taken once: within and after a forward FSDP shows whole tensors in the parts' place.
        self.trained = {n: p for n, p in self.learner.named_parameters() if p.requires_grad}

    def refresh(self) -> None:
        """After an update: the speaker says what the learner has learnt."""
        if self.speaker is not self.learner:
            refresh(self.speaker, self.trained)


def load_whole(path: str | Path, cfg: ModelConfig) -> VLM:
    """A model on every process, none of it frozen; one process reads it.

    Raises:
        CheckpointError: as `VLM.load`, on every process.
    """
    place, dtype = device(cfg.device), DTYPES[cfg.dtype]
    if size() == 1:
        return VLM.load(path, dtype, **cfg.loading() | {"device": place})
    read: list[VLM] = []

    def by_the_first() -> tuple:
        read.append(VLM.load(path, dtype, **cfg.loading() | {"device": "cpu"}))
        return read[0].recipe

    recipe = by_first(by_the_first)
    return everywhere(read[0] if read else None, VLM.blank(*recipe), place, dtype)


def load_models(path: str | Path, cfg: LearnConfig, reference: str = "") -> Models:
    """All roles from one folder; arguments as in `roles`.

    Raises:
        CheckpointError: as `VLM.load`. UserError: as `roles`.
    """
    return roles(load_whole(path, cfg), cfg, reference)


def roles(speaker: VLM, cfg: LearnConfig, reference: str = "") -> Models:
    """All roles from one whole model, which every process has.

    Args:
        reference: "" for none, "sharded" or "cpu": where its weights wait.
    Raises:
        UserError: processes that do not divide by --shard; adapters of another rank; a model that
            is asked for another range of scores.
    """
    if speaker.asking.score_range != UNIT:
        raise UserError("the model's nanoaes.json asks for scores from "
                        "{:g} to {:g}; training reads 0 to 1: write [0, 1] there, and a prompt "
                        "that asks so".format(*speaker.asking.score_range))
    if cfg.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product
        torch.use_deterministic_algorithms(True, warn_only=True)
    if cfg.lora_rank:
        return adapted(speaker, cfg, bool(reference))
    merge(speaker.hf)  # adapters that others have trained: all weights go on from there
    dtype = DTYPES[cfg.dtype]

    def frozen(name: str) -> bool:
        return name.startswith("hf.model.visual.") and not cfg.train_vision

    if size() == 1 and dtype != torch.bfloat16 and reference != "cpu":
        learner = speaker
        other = copy.deepcopy(speaker).requires_grad_(False) if reference else None
        for name, p in learner.named_parameters():
            p.requires_grad_(not frozen(name))
    else:
        speaker.requires_grad_(False)
        over = mesh(speaker.device, cfg.shard)
        precise = torch.promote_types(dtype, torch.float32)
        learner = sharded(speaker, blank=VLM.blank(*speaker.recipe), dtype=precise, compute=dtype,
                          over=over, frozen=frozen)
        other = sharded(speaker, blank=VLM.blank(*speaker.recipe), dtype=dtype, compute=dtype,
                        over=over, frozen=lambda name: True, idle=True,
                        on_cpu=reference == "cpu") if reference else None
    if cfg.gradient_checkpointing:
        learner.checkpoint()
    return Models(speaker, learner, other)


def adapted(vlm: VLM, cfg: LearnConfig, reference: bool) -> Models:
    """One model with adapters; those that it has already are trained on.

    Raises:
        UserError: adapters of another rank, a target that is no layer.
    """
    had = adapters(vlm.hf)
    if not had:
        attach(vlm.hf, LoRA(cfg.lora_rank, cfg.lora_alpha, cfg.targets, cfg.lora_vision), cfg.seed)
    elif {a.rank for a in had.values()} != {cfg.lora_rank}:
        raise UserError(f"--lora_rank {cfg.lora_rank}: the model's folder has adapters of rank "
                        f"{next(iter(had.values())).rank}; give that, or 0 to train all weights")
    elif (has := spec_of(vlm.hf)) and (has.alpha, has.vision) != (cfg.lora_alpha, cfg.lora_vision):
        raise UserError(f"--lora_alpha {cfg.lora_alpha:g}, --lora_vision {cfg.lora_vision}: the "
                        f"model's folder has adapters of {has.alpha:g} and {has.vision}; give "
                        "those")
    elif odd := [name for name in had if not is_meant(name, cfg.targets)]:
        say(f"the folder's adapters are trained on, {odd[0]} too, whatever --lora_targets says")
    begin_here(vlm.hf)
    for name, p in vlm.named_parameters():
        p.requires_grad_(".lora_" in name)
    if cfg.gradient_checkpointing:
        vlm.checkpoint()

    def as_begun(*given: Any) -> tuple[Tensor, Tensor]:
        with as_reference(vlm.hf):
            return vlm(*given)

    return Models(vlm, vlm, as_begun if reference else None)


def keep_sources(model: str, option: str, *targets: Path) -> None:
    """A result may not replace what it is made from: the model, or whose adapters that has.

    Raises:
        UserError: as `refuse_overwrite`, `find_base`.
    """
    path = Path(model)
    for source in [path, *([find_base(path)[1]] if is_adapters(path) else [])] if model else []:
        for target in targets:
            refuse_overwrite(source, target, option)


def write_merged(cfg: LearnConfig, source: Path, target: Path) -> None:
    """The whole model that a folder of adapters makes; of one process, on the CPU."""
    # In fp32, and rounded once: it is saved in the dtype of the folder that the adapters belong to.
    vlm = VLM.load(source, torch.float32, **cfg.loading() | {"device": "cpu"})
    with publish(target) as folder:
        vlm.save(folder, merged=True)
