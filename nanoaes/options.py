"""The command line: `--key value`, `--key=value`, `--preset NAME` -> a script's dataclass.

argparse reads; here are the words for what it cannot read, with the nearest name or the bound.
"""

import argparse
import dataclasses
import difflib
import inspect
import math
import re
import sys
from collections.abc import Callable
from os.path import expanduser
from typing import Any, NoReturn, TypeVar

import torch

from nanoaes.config import OptionError
from nanoaes.presets import PRESETS

C = TypeVar("C")
# Two options that say how many; the first, given, puts out the other, and what does so.
RIVALS = {"steps": ("epochs", 0.0), "per_level": ("target", 0)}
WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Parser(argparse.ArgumentParser):
    """argparse, with errors as exceptions."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(message.removeprefix("argument "))


def parse(cls: type[C], argv: list[str] | None = None, verb: str = "") -> C:
    """`--key value`, `--key=value` and `--preset name` -> the script's dataclass.

    Args:
        verb: for the help.

    Prints help and leaves with 0 for --help.
    Raises:
        OptionError: an unknown key (with the nearest name), a missing, unreadable or impossible
            value.
    """
    fields = [f for f in dataclasses.fields(cls) if "words" not in f.metadata]
    bare = [f for f in dataclasses.fields(cls) if "words" in f.metadata]
    usage = " ".join([f"%(prog)s{verb and ' '}{verb}", *(f"[{f.name.upper()} …]" for f in bare)])
    parser = Parser(description=inspect.cleandoc(cls.__doc__), allow_abbrev=False,
                    usage=f"{usage} [--preset NAME] [--key value …]",
                    argument_default=argparse.SUPPRESS,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="toy", choices=PRESETS,
                        help="values for all options at once; options given beside it win")
    for f in bare:
        parser.add_argument(f.name, nargs="*", help=f.metadata["help"], metavar=f.name.upper())
    for f in fields:
        # A switch may stand alone: --soft_truth is --soft_truth true.
        alone = dict(nargs="?", const=True) if isinstance(f.default, bool) else {}
        choices = " | ".join(filter(None, f.metadata["choices"]))
        text = f"{choices}: " * bool(choices) + f.metadata["help"].replace("%", "%%")
        parser.add_argument(f"--{f.name}", type=_reader(f), help=f"{text} [{f.default!s}]",
                            metavar=type(f.default).__name__, **alone)
    argv = _underscored(sys.argv[1:] if argv is None else argv)
    if bare:
        argv = _switched(argv, {f"--{f.name}" for f in fields if isinstance(f.default, bool)})
    # Words may stand before, between and after the options.
    given, rest = (parser.parse_known_intermixed_args if bare else parser.parse_known_args)(argv)
    if rest:
        raise OptionError(_unknown(rest[0], [f.name for f in fields]))
    values = vars(given)
    values |= {f.name: tuple(map(expanduser, values.get(f.name, ()))) for f in bare}
    preset = PRESETS[values.pop("preset")].get(cls, {})
    for one, (other, none) in RIVALS.items():
        if one in values:
            if values.get(other):
                raise OptionError(f"--{one} and --{other} say the same in two ways; give one")
            values[other] = none  # or a preset's would win
    return cls(**preset | values)


def _underscored(argv: list[str]) -> list[str]:
    """--train-vision is --train_vision; values keep their hyphens."""
    return [re.sub(r"^--[^=]+", lambda key: "--" + key[0][2:].replace("-", "_"), word)
            for word in argv]


def _switched(argv: list[str], switches: set[str]) -> list[str]:
    """A switch alone is true, also before a word that is not its value: --bursts photos/."""
    alone = [word in switches and after.lower() not in WORDS
             for word, after in zip(argv, [*argv, ""][1:], strict=True)]
    return [f"{word}=true" if on else word for word, on in zip(argv, alone, strict=True)]


def _unknown(word: str, names: list[str]) -> str:
    if not word.startswith("--"):
        return f"{word!r} stands alone; options are written --key value"
    key = word[2:].partition("=")[0]
    near = difflib.get_close_matches(key, [*names, "preset"], n=1, cutoff=0)[0]
    return f"--{key} is no option of this script; did you mean --{near}?"


def _reader(f: dataclasses.Field) -> Callable[[str], Any]:
    """Text -> the field's type, within its choices and bounds."""
    kind, m = type(f.default), f.metadata

    def read(text: str) -> Any:
        try:
            value = (boolean(text) if kind is bool else expanduser(text) if kind is str else
                     kind(text))  # a shell leaves --model=~/x as it is
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no value of type {kind.__name__}") from None
        if m["choices"] and value not in m["choices"]:
            raise argparse.ArgumentTypeError(f"{text!r}: choose one of "
                                             + ", ".join(filter(None, m["choices"])))
        if kind in (int, float) and not (m["low"] <= value < math.inf and value > m["above"]):
            bound = f"{m['low']} or more" if m["low"] > -math.inf else f"more than {m['above']}"
            raise argparse.ArgumentTypeError(f"{text}: use {bound}")
        return _device(value) if f.name == "device" else value
    return read


def boolean(text: str) -> bool:
    """bool("False") is True, so booleans are read by word."""
    if text.lower() not in WORDS:
        raise argparse.ArgumentTypeError(f"{text!r}: say true or false")
    return WORDS[text.lower()]


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise argparse.ArgumentTypeError(f"{name}: choose auto, cpu, cuda or cuda:NUMBER")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(f"{name}: torch finds no CUDA here; use auto or cpu")
    return name
