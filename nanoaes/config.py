"""One dataclass per script; every field is an option `--field value` of that script.

Defaults are the toy world's; `presets.py` has others, `options.py` reads the command line. A
field's help text stands beside its default. What scripts share stands once, in a base class, and
one script hands it on to the next with `inherit`.
Left out: configuration files. A run saves what it used as `SCRIPT.json`.
"""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nanoaes.errors import UserError

C = TypeVar("C")
V = TypeVar("V", bool, int, float, str)


class OptionError(UserError):
    """A command line that cannot be understood."""


def opt(default: V, text: str, choices: tuple[str, ...] = (), low: float = -math.inf,
        above: float = -math.inf) -> V:
    """A dataclass field with its help text and what it may be: low <= value, above < value."""
    return field(default=default, metadata={"help": text, "choices": choices, "low": low,
                                            "above": above})


def words(text: str) -> tuple[str, ...]:
    """A dataclass field for what stands on the command line without a key, in order."""
    return field(default=(), metadata={"help": text, "words": True})


SETS = ("as ava:DIR, tad66k:DIR, flickr_aes:DIR, para:DIR, aadb:DIR, baid:DIR, csv:FILE@LO-HI, "
        "json:FILE@LO-HI or jsonl:FILE@LO-HI, comma between")


@dataclass
class Config:
    """What every script has."""

    run: str = opt("runs/toy", "folder of the run; everything is written here")


@dataclass
class DataConfig(Config):
    """What every script has that reads pictures with labels."""

    bad_images: str = opt("refuse", "what to do with missing or corrupt pictures",
                          ("refuse", "skip"))
    seed: int = opt(0, "seed of all that is drawn")


@dataclass
class SetsConfig(DataConfig):
    """What every script has that is told which pictures to use."""

    columns: str = opt("", "of csv, json and jsonl: the names of image, score and, where there "
                           "are, std and theme; empty: image,score,std,theme")


@dataclass
class TrainConfig(DataConfig):
    """What every script has that must not look at held-out pictures."""

    heldout: int = opt(64, "pictures of each training set that no training may see", low=3)


@dataclass
class ModelConfig(Config):
    """What every script has that runs a model. Empty or 0: as the model's folder says."""

    device: str = opt("auto", "auto | cpu | cuda | cuda:1: where the model runs")
    dtype: str = opt("float32", "what is computed in; trained weights stay float32 beside it",
                     ("float32", "bfloat16"))
    prompt: str = opt("", "what the model is asked; empty: what it was trained with, else full",
                      ("", "full", "short"))
    max_pixels: int = opt(0, "largest picture area, larger ones are shrunk; 0: as the model's "
                             "folder says", low=0)
    max_new_tokens: int = opt(0, "longest answer, longer ones are cut and counted; 0: as the "
                                 "model's folder says", low=0)
    tokens_per_micro_batch: int = opt(2048, "tokens per forward, in every phase; changes memory, "
                                            "never a number", low=1)

    def loading(self) -> dict[str, Any]:
        """For `VLM.load`."""
        return {"device": self.device, "prompt": self.prompt, "max_pixels": self.max_pixels,
                "max_new_tokens": self.max_new_tokens}


@dataclass
class LearnConfig(TrainConfig, ModelConfig):
    """What both trainings have."""

    backend: str = opt("auto", "for log-probs; auto: triton on CUDA", ("auto", "torch", "triton"))
    gradient_checkpointing: bool = opt(False, "keep one activation per layer and compute the rest "
                                              "again: far less memory, a third more time")
    lora_rank: int = opt(0, "train adapters of this rank on a frozen model; 0: all weights", low=0)
    lora_alpha: float = opt(32.0, "adapters are scaled by alpha / rank", above=0)
    lora_targets: str = opt("q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
                            "names of the layers that get adapters, comma between")
    lora_vision: bool = opt(False, "adapters in the vision tower, too")
    merge: bool = opt(False, "with adapters: also write the whole model, beside them")
    tokens_per_micro_batch: int = opt(2048, "tokens per forward, in every phase; changes memory, "
                                            "never a number; 0: from free memory", low=0)
    dry_run: bool = opt(False, "print what the run needs and how fast it could be, then end")
    gpu: str = opt("", "with --dry_run: for this card instead of the device that is here",
                   ("", "H100", "H200", "A100-80", "A100-40", "L40S", "RTX4090"))
    gpus: int = opt(0, "with --dry_run: how many of them; 0: the processes there are", low=0)
    deterministic: bool = opt(False, "on CUDA: only kernels that give the same bits each time, "
                                     "slower; a CPU always gives them")
    save_every: int = opt(0, "steps between states of the whole run, from which --resume goes on; "
                             "0: only when the run is asked to stop", low=0)
    keep_last: int = opt(2, "states that are kept, the newest", low=1)
    resume: bool = opt(False, "go on from the newest state in RUN; without one, begin")
    shard: int = opt(0, "processes that share one copy of the trained weights, such as a node's; "
                        "0: all that torchrun has started", low=0)

    @property
    def targets(self) -> tuple[str, ...]:
        """`lora_targets`, name by name."""
        return tuple(name.strip() for name in self.lora_targets.split(","))


@dataclass
class CoTConfig(TrainConfig, SetsConfig):
    """AesCoT: let a teacher write critiques for scored pictures, filter them, balance the levels.

    Without options it uses the toy world, its rule-based teacher and its judge. A key is read from
    the environment, TEACHER_API_KEY and JUDGE_API_KEY, and is never shown or stored.
    """

    out: str = opt("", "critiques as JSON lines, a data card and a page beside them; empty: "
                       "RUN/cot.jsonl")
    train: str = opt("", f"scored pictures {SETS}; empty: the toy's two sets")
    per_level: int = opt(300, "pictures asked for per score level (bad, fair, good), whatever is "
                              "kept of them", low=1)
    target: int = opt(0, "critiques to keep, of all levels alike: draws pictures until each level "
                         "is full or has no more; 0: --per_level", low=0)
    filters: str = opt("", "beyond leak, mismatch, invention and refusal: thin, onesided, length, "
                           "language, repeat, comma between, or none; empty: all, in the toy none")
    sharegpt: bool = opt(False, "also write what is kept as LLaMA-Factory reads it")
    teacher: str = opt("", "address of an OpenAI-compatible server, http://localhost:8000/v1, or a "
                           "Hugging Face folder or hub name that runs here; empty: the toy's")
    teacher_model: str = opt("", "the model's name on that server")
    judge: str = opt("", "who judges, likewise; empty: the teacher")
    judge_model: str = opt("", "the model's name there")
    concurrency: int = opt(8, "pictures worked on at once", low=1)
    rate: float = opt(0.0, "requests per minute to one server, at most; 0: no limit", low=0)
    timeout: float = opt(120.0, "seconds until an answer is given up and asked for again", above=0)
    max_pixels: int = opt(262_144, "largest picture area that is shown, the student's", low=784)
    max_new_tokens: int = opt(1024, "longest critique, in the teacher's tokens", low=1)
    device: str = opt("auto", "auto | cpu | cuda | cuda:1: where a model of a folder runs")
    dtype: str = opt("bfloat16", "what it computes in", ("float32", "bfloat16"))

    def __post_init__(self) -> None:
        """Options are printed and stored. Raises OptionError: an address with a secret in it."""
        for name in ("teacher", "judge"):
            where = getattr(self, name)
            if "://" in where and re.search(r"//[^/]*@|\?(?!api-version=[\w.-]*$)", where):
                raise OptionError(f"--{name}: leave passwords and keys out of the address; a key "
                                  f"belongs into the environment, {name.upper()}_API_KEY")


@dataclass
class SFTConfig(LearnConfig):
    """Cold start: teach explain-then-score by supervised fine-tuning on AesCoT critiques.

    Without options it makes what is missing of the toy world, its backbone and its critiques.
    """

    model: str = opt("", "Hugging Face folder or hub name to start from; empty: the toy backbone")
    cot: str = opt("", "critiques: build_cot.py's, or JSON of one's own, FILE@1-5 where scores are "
                        "not 0-1; empty: RUN/cot.jsonl, made if missing")
    out: str = opt("", "where the cold-started model goes; empty: RUN/sft")
    epochs: int = opt(2, "passes over the critiques (the paper: 1, over 3,000 and more)", low=1)
    batch: int = opt(32, "critiques per update", low=1)
    lr: float = opt(1e-3, "peak learning rate; cosine to 0", above=0)
    weight_decay: float = opt(0.0, "AdamW's weight decay", low=0)
    max_grad_norm: float = opt(1.0, "gradient clipping", above=0)
    train_vision: bool = opt(False, "also train the vision tower and its projector")


@dataclass
class RAPOConfig(LearnConfig, SetsConfig):
    """RAPO: reinforcement learning with a relative (ranking) and an absolute (score) reward.

    Without options: the whole road in the toy world, up to the table and the report.
    """

    model: str = opt("", "cold-started Hugging Face folder or hub name; empty: the toy's, made if "
                         "missing")
    train: str = opt("", f"training sets {SETS}; a part of each with ava:DIR*2,tad66k:DIR*2,"
                         "flickr_aes:DIR*1; empty: the toy's two")
    limit: int = opt(0, "training pictures that are drawn, of all sets together and before "
                        "--heldout; 0: all", low=0)
    test_in: str = opt("", "in-domain test sets; empty: the toy's two")
    test_ood: str = opt("", "out-of-domain test sets; empty: the toy's two")
    overlap: str = opt("names", "how pictures that training and test sets share are looked for: by "
                                "file, name and size, or also by a hash of what is seen (slow)",
                       ("names", "hash"))
    steps: int = opt(120, "steps; each draws pictures, samples answers, updates", low=1)
    epochs: float = opt(0.0, "passes over the training pictures, instead of --steps; 0: --steps",
                        low=0)
    images: int = opt(32, "N, pictures per step; the relative reward compares them", low=2)
    k: int = opt(8, "K, answers per picture (the paper: 4)", low=2)
    mask_truncated: bool = opt(False, "leave answers that were cut out of the loss")
    temperature: float = opt(1.0, "of sampling and of every log-prob", above=0)
    updates: int = opt(1, "mu, updates per rollout; with 1 the clip never acts", low=1)
    w_relative: float = opt(1.0, "weight of the relative reward; 0 switches it off", low=0)
    w_absolute: float = opt(1.0, "weight of the absolute reward; 0 switches it off", low=0)
    w_format: float = opt(1.0, "weight of the format reward; 0 switches it off", low=0)
    sigma: float = opt(0.1, "width of the absolute reward", above=0)
    ties: str = opt("half", "what equal truths count in the relative reward", ("half", "paper"))
    soft_truth: bool = opt(False, "preferences from the raters' spread instead of 0 or 1")
    advantage: str = opt("std", "divide a group's advantages by its spread or not", ("std", "none"))
    eps_low: float = opt(0.2, "clip below 1 - eps_low", low=0)
    eps_high: float = opt(0.28, "clip above 1 + eps_high", low=0)
    beta: float = opt(0.05, "weight of the KL to the cold-started model (the paper: 0.01); 0: no "
                            "reference model", low=0)
    reference: str = opt("sharded", "where the reference model waits: in parts on the devices, or "
                                    "in CPU memory (slower)", ("sharded", "cpu"))
    lr: float = opt(3e-4, "peak learning rate; linear to 0", above=0)
    warmup: int = opt(5, "steps of linear warm-up", low=0)
    weight_decay: float = opt(0.0, "AdamW's weight decay", low=0)
    max_grad_norm: float = opt(1.0, "gradient clipping", above=0)
    train_vision: bool = opt(True, "train the vision tower too")
    eval_every: int = opt(20, "steps between evaluations on the held-out pictures", low=1)
    log_every: int = opt(20, "steps between those whose answers go to completions.jsonl; 0: none",
                         low=0)
    tracker: str = opt("none", "each step's numbers also to tensorboard or wandb, if installed",
                       ("none", "tensorboard", "wandb"))

    @property
    def reference_kept(self) -> str:
        """`reference`, or "" where the KL has no weight and none is kept."""
        return self.reference if self.beta else ""


def inherit(cls: type[C], cfg: Any, **others: Any) -> C:
    """A script's options from another script's: what both know from a common base, and `others`."""
    bases = [base for base in cls.__mro__ if base in type(cfg).__mro__]
    names = {f.name for base in bases if dataclasses.is_dataclass(base)
             for f in dataclasses.fields(base)}
    return cls(**{name: getattr(cfg, name) for name in names} | others)
