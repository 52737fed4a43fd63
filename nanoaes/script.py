"""How a script starts and ends: its options, torchrun's processes, errors as one line."""

import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from nanoaes.config import Config
from nanoaes.errors import Ended, UserError
from nanoaes.options import parse
from nanoaes.parallel import lost_another, tell_once, together
from nanoaes.progress import first_by_name, say

C = TypeVar("C", bound=Config)
MOST = 500  # characters of an option that are printed: a shell may hand over thousands of names


def run_verbs(verbs: dict[str, tuple[Callable[[Any], Any], type[Config]]]) -> None:
    """`script.py VERB …`: that verb's `main` and options; without a verb the first one's."""
    default, verb = next(iter(verbs)), sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in verbs:
        run_script(*verbs[verb], sys.argv[2:], verb)
    elif verb and not verb.startswith("-"):
        sys.exit(f"{Path(sys.argv[0]).name}: {verb!r} is none of {', '.join(verbs)}"
                 if first_by_name() else 1)
    else:
        run_script(*verbs[default], sys.argv[1:], default)


def run_script(main: Callable[[C], Any], cls: type[C], argv: list[str] | None = None,
               verb: str = "") -> None:
    """Options read and printed once, then `main`; what the user can mend ends in one line.

    Args:
        argv: the words of the command line; None: all.
        verb: which of several the script does, for its help.
    """
    name = Path(sys.argv[0]).name
    for stream in sys.stdout, sys.stderr:
        stream.reconfigure(errors="replace")  # an ASCII terminal knows no dash
    status = 0
    try:
        cfg = parse(cls, argv, verb)
        with together(getattr(cfg, "device", "cpu")):
            try:
                say(" ".join(f"{k}={v}"[:MOST] for k, v in dataclasses.asdict(cfg).items()
                             if v not in ("", ())))
                main(cfg)
            except UserError as error:
                told = tell_once(f"{name}: {error}")
                sys.exit(told or 1)
            except Ended as ended:  # all processes did, so each leaves the group in order
                say(f"{name}: {ended}")
                status = ended.status
    except UserError as error:  # of the command line: all processes were given the same
        sys.exit(f"{name}: {error}" if first_by_name() else 1)
    except BrokenPipeError:  # … | head, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # of what is still to print
        sys.exit(128 + signal.SIGPIPE)
    except RuntimeError as error:
        if not lost_another(error):
            raise
        sys.exit(f"{name}: another process has ended; see its error")
    if status:
        sys.exit(status)
