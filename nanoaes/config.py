"""One dataclass per script; every field is an option `--field value` of that script.

Defaults are the toy world's. `--preset paper` sets the paper's values for a full-size model;
options given beside it win. A field's help text stands beside its default.
Left out: configuration files. A run saves what it used as `SCRIPT.json`.
"""

import dataclasses
import difflib
import inspect
import json
import math
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from nanoaes.errors import UserError

C = TypeVar("C")


class OptionError(UserError):
    """A command line that cannot be understood."""


def opt(default: Any, text: str, choices: tuple[str, ...] = (), low: float | None = None,
        above: float | None = None) -> Any:
    """A dataclass field with its help text and what it may be: see `validate`."""
    if choices:
        text = f"{' | '.join(choices)}: {text}"
    return field(default=default, metadata={"help": text, "choices": choices, "low": low,
                                            "above": above})


BAD_IMAGES = opt("refuse", "what to do with missing or corrupt pictures", ("refuse", "skip"))
PROMPT = opt("short", "what the model is asked; short is for tiny models", ("full", "short"))
DEVICE = opt("auto", "auto | cpu | cuda | cuda:1: where the model runs")
BACKEND = opt("auto", "for log-probs; auto: triton on CUDA", ("auto", "torch", "triton"))
MAX_PIXELS = opt(262_144, "largest picture area; larger ones are shrunk", low=3136)
SETS = "as ava:DIR, tad66k:DIR, para:DIR, aadb:DIR or csv:FILE@LO-HI, comma between"


@dataclass
class CoTConfig:
    """AesCoT: let a teacher write critiques for scored pictures, filter them, balance the levels.

    Without options it uses the toy world, its rule-based teacher and its judge.
    """

    run: str = opt("runs/toy", "folder of the run; the toy world is made here")
    out: str = opt("", "critiques as JSON lines; empty: RUN/cot.jsonl")
    per_level: int = opt(300, "pictures asked for per score level (bad, fair, good)", low=1)
    heldout: int = opt(64, "pictures of each training set that no training may see", low=3)
    bad_images: str = BAD_IMAGES
    seed: int = opt(0, "seed")


@dataclass
class SFTConfig:
    """Cold start: teach explain-then-score by supervised fine-tuning on AesCoT critiques.

    Without options it makes what is missing of the toy world, its backbone and its critiques.
    """

    run: str = opt("runs/toy", "folder of the run")
    model: str = opt("", "Hugging Face folder to start from; empty: the toy backbone")
    cot: str = opt("", "critiques from build_cot.py; empty: RUN/cot.jsonl, made if missing")
    heldout: int = opt(64, "pictures of each training set that no training may see", low=3)
    out: str = opt("", "where the cold-started model goes; empty: RUN/sft")
    bad_images: str = BAD_IMAGES
    epochs: int = opt(2, "passes over the critiques (the paper: 1, over 3,000 and more)", low=1)
    batch: int = opt(32, "critiques per update", low=1)
    micro_batch: int = opt(32, "critiques per forward; changes memory, never the gradient", low=1)
    lr: float = opt(1e-3, "peak learning rate; cosine to 0", above=0)
    weight_decay: float = opt(0.0, "AdamW's weight decay", low=0)
    max_grad_norm: float = opt(1.0, "gradient clipping", above=0)
    train_vision: bool = opt(False, "also train the vision tower and its projector")
    prompt: str = PROMPT
    max_pixels: int = MAX_PIXELS
    device: str = DEVICE
    backend: str = BACKEND
    seed: int = opt(0, "seed")


@dataclass
class RAPOConfig:
    """RAPO: reinforcement learning with a relative (ranking) and an absolute (score) reward.

    Without options: the whole road in the toy world, up to the table and the report.
    """

    run: str = opt("runs/toy", "folder of the run; everything is written here")
    model: str = opt("", "cold-started Hugging Face folder; empty: the toy's, made if missing")
    train: str = opt("", f"training sets {SETS}; empty: the toy's two")
    test_in: str = opt("", "in-domain test sets; empty: the toy's two")
    test_ood: str = opt("", "out-of-domain test sets; empty: the toy's two")
    heldout: int = opt(64, "pictures of each training set kept for choosing a checkpoint", low=3)
    bad_images: str = BAD_IMAGES
    prompt: str = PROMPT
    max_pixels: int = MAX_PIXELS
    device: str = DEVICE
    backend: str = BACKEND
    steps: int = opt(120, "steps; each draws pictures, samples answers, updates", low=1)
    images: int = opt(32, "N, pictures per step; the relative reward compares them", low=2)
    k: int = opt(8, "K, answers per picture (the paper: 4)", low=2)
    max_new_tokens: int = opt(48, "longest answer; longer ones are cut and counted", low=1)
    temperature: float = opt(1.0, "of sampling and of every log-prob", above=0)
    updates: int = opt(1, "mu, updates per rollout; with 1 the clip never acts", low=1)
    tokens_per_micro_batch: int = opt(2048, "changes memory, never the gradient", low=1)
    w_relative: float = opt(1.0, "weight of the relative reward; 0 switches it off", low=0)
    w_absolute: float = opt(1.0, "weight of the absolute reward; 0 switches it off", low=0)
    w_format: float = opt(1.0, "weight of the format reward; 0 switches it off", low=0)
    sigma: float = opt(0.1, "width of the absolute reward", above=0)
    ties: str = opt("half", "what equal truths count in the relative reward", ("half", "paper"))
    soft_truth: bool = opt(False, "preferences from the raters' spread instead of 0 or 1")
    advantage: str = opt("std", "divide a group's advantages by its spread or not", ("std", "none"))
    eps_low: float = opt(0.2, "clip below 1 - eps_low", low=0)
    eps_high: float = opt(0.28, "clip above 1 + eps_high", low=0)
    beta: float = opt(0.05, "weight of the KL to the cold-started model (the paper: 0.01)", low=0)
    lr: float = opt(3e-4, "peak learning rate; linear to 0", above=0)
    warmup: int = opt(5, "steps of linear warm-up", low=0)
    weight_decay: float = opt(0.0, "AdamW's weight decay", low=0)
    max_grad_norm: float = opt(1.0, "gradient clipping", above=0)
    train_vision: bool = opt(True, "train the vision tower too")
    eval_every: int = opt(20, "steps between evaluations on the held-out pictures", low=1)
    eval_batch: int = opt(64, "pictures per forward when evaluating", low=1)
    seed: int = opt(0, "seed")


@dataclass
class EvalConfig:
    """Score test sets with a checkpoint: PLCC, SRCC, KRCC, RMSE, MAE, unreadable answers."""

    model: str = opt("runs/toy/rapo", "Hugging Face folder")
    run: str = opt("runs/toy", "folder of the toy world, used when no test sets are named")
    test_in: str = opt("", f"in-domain test sets {SETS}; empty: the toy's")
    test_ood: str = opt("", "out-of-domain test sets; empty: the toy's two")
    out: str = opt("", "result as JSON; empty: MODEL/eval.json")
    bad_images: str = BAD_IMAGES
    prompt: str = PROMPT
    max_pixels: int = MAX_PIXELS
    device: str = DEVICE
    max_new_tokens: int = opt(48, "longest answer", low=1)
    temperature: float = opt(0.0, "0: greedy; else sampled", low=0)
    eval_batch: int = opt(64, "pictures per forward", low=1)
    seed: int = opt(0, "seed of the bootstrap intervals and of sampling")


# PAPER.md, hyper-parameters: RAPO on Qwen2.5-VL-7B, and its cold start.
PRESETS: dict[str, dict[type, dict[str, Any]]] = {
    "toy": {},
    "paper": {
        CoTConfig: dict(per_level=1000),
        SFTConfig: dict(epochs=1, batch=64, micro_batch=4, lr=1e-5, prompt="full"),
        RAPOConfig: dict(images=64, k=4, max_new_tokens=1024, tokens_per_micro_batch=8192,
                         lr=1e-6, beta=0.01, eps_low=0.2, eps_high=0.28, sigma=0.1, steps=2340,
                         eval_every=100, heldout=200, eval_batch=8, prompt="full"),
        EvalConfig: dict(max_new_tokens=1024, eval_batch=8, prompt="full"),
    },
}


def parse(cls: type[C], argv: list[str] | None = None) -> C:
    """`--key value`, `--key=value` and `--preset name` -> the script's dataclass.

    Prints help and leaves with 0 for --help.
    Raises:
        OptionError: an unknown key (with the nearest name), a missing, unreadable or impossible
            value.
    """
    argv = sys.argv[1:] if argv is None else argv
    if "--help" in argv or "-h" in argv:
        print(usage(cls))
        raise SystemExit(0)
    given = _pairs(argv)
    preset = given.pop("preset", "toy")
    if preset not in PRESETS:
        raise OptionError(f"--preset {preset}: choose one of {', '.join(PRESETS)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values = dict(PRESETS[preset].get(cls, {}))
    for key, text in given.items():
        if key not in fields:
            near = difflib.get_close_matches(key, [*fields, "preset"], n=1, cutoff=0)[0]
            raise OptionError(f"--{key} is no option of this script; did you mean --{near}?")
        values[key] = convert(key, text, type(fields[key].default))
    return validate(cls(**values))


def validate(cfg: C) -> C:
    """Every value against its field's choices and bounds, and the device. Raises OptionError."""
    for f in dataclasses.fields(cfg):
        value, bounds = getattr(cfg, f.name), f.metadata
        if bounds["choices"] and value not in bounds["choices"]:
            raise OptionError(f"--{f.name} {value}: choose one of {', '.join(bounds['choices'])}")
        if bounds["low"] is not None and not bounds["low"] <= value < math.inf:
            raise OptionError(f"--{f.name} {value}: use {bounds['low']} or more")
        if bounds["above"] is not None and not bounds["above"] < value < math.inf:
            raise OptionError(f"--{f.name} {value}: use more than {bounds['above']}")
    device = getattr(cfg, "device", "cpu")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise OptionError(f"--device {device}: choose auto, cpu, cuda or cuda:NUMBER")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError(f"--device {device}: torch finds no CUDA here; use auto or cpu")
    return cfg


def _pairs(argv: list[str]) -> dict[str, str]:
    given, rest = {}, list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise OptionError(f"{word!r} stands alone; options are written --key value")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise OptionError(f"--{key} needs a value: --{key} VALUE")
            text = rest.pop(0)
        given[key.replace("-", "_")] = text
    return given


def convert(key: str, text: str, kind: type) -> Any:
    """Text -> the field's type. bool("False") is True, so booleans are read by word."""
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in words:
            raise OptionError(f"--{key} {text}: say true or false")
        return words[text.lower()]
    try:
        return kind(text)
    except ValueError:
        raise OptionError(f"--{key} {text}: needs a value of type {kind.__name__}") from None


def usage(cls: type) -> str:
    """What --help prints."""
    lines = [inspect.cleandoc(cls.__doc__), "", "Options (--key value):"]
    for f in dataclasses.fields(cls):
        default = '""' if f.default == "" else f.default
        lines.append(f"  --{f.name:<23}{f.metadata['help']}  [{default}]")
    others = " | ".join(PRESETS)
    return "\n".join([*lines, f"  --{'preset':<23}{others}: values for all options at once  [toy]"])


def save(config: Any, path: Path) -> None:
    """Keep what the run used, and print it once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")
    print(" ".join(f"{k}={v}" for k, v in dataclasses.asdict(config).items() if v != ""))
