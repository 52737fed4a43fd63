"""No run destroys another: one process a folder, room on the disk first, no source overwritten.

Left out: quotas, which no portable call tells beforehand (`keep_going` meets them when they
strike); ranks: under torchrun one rank claims the folder, the others write nothing into it.
"""

import errno
import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nanoaes.errors import UserError
from nanoaes.progress import say

# The locks of this process: device and inode of the lock file -> its descriptor.
_held: dict[tuple[int, int], int] = {}


def _forget_locks() -> None:
    """A forked child (a worker that loads pictures) would keep its dead parent's lock alive."""
    for file in _held.values():
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def claim(run: Path, script: str, option: str = "--run") -> Iterator[None]:
    """Make the folder `run` and keep every other process out of it.

    The lock is the kernel's, on RUN/.lock: it ends with the process, however that ends. What the
    file says is only for the other's message. A claim within a claim of the same folder, by the
    same process, changes nothing. Where the disk has no locks, that is said and the run goes on.

    Args:
        script: who claims, as the other process shall name it.
        option: what the user named the folder, or a file in it, with.

    Raises:
        UserError: the folder is no folder, cannot be written, or is in use.
    """
    file = _open_lock(run, option)
    key = os.fstat(file).st_dev, os.fstat(file).st_ino  # two paths may name one folder
    if key in _held:
        os.close(file)
        yield
        return
    _held[key] = file
    try:
        _lock(file, run, option, signed=True)
        _sign(file, run, script, option)
        yield
    finally:  # the file stays: without it two others could lock two of that name
        del _held[key]
        os.close(file)


def _open_lock(run: Path, option: str) -> int:
    """A descriptor of RUN/.lock, in a folder that is made for it."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        return os.open(run / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except FileExistsError:
        raise UserError(f"{run} is a file, not a folder; choose another {option}") from None
    except OSError as error:
        raise _unwritable(run, error, option) from None


@contextmanager
def hold_file(path: Path, option: str) -> Iterator[None]:
    """Make the file `path`, and keep every other process that asks out of it; else as `claim`.

    Args:
        option: how the user named it, such as "--out".
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another {option}"
                        ) from None
    key = os.fstat(file).st_dev, os.fstat(file).st_ino
    try:
        _lock(file, path, option, signed=False)
        _held[key] = file
        yield
    finally:
        if _held.get(key) == file:
            del _held[key]
        os.close(file)


def _lock(file: int, path: Path, option: str, signed: bool) -> None:
    """Exclusive, at once or not at all. signed: the file says who holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(file, 1000, 0).decode(errors="replace") if signed else ""
        raise UserError(f"{path} is in use by {other or 'another process'}; choose another "
                        f"{option} or wait") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        say(f"{path}: this disk has no locks; see to it that no other run uses it")


def _sign(file: int, run: Path, script: str, option: str) -> None:
    """Leave word for the process that comes second."""
    word = (f"{script}, process {os.getpid()} on {socket.gethostname()} "
            f"since {time.strftime('%Y-%m-%d %H:%M')}")
    try:
        os.truncate(file, 0)
        os.write(file, word.encode())
    except OSError as error:
        raise _unwritable(run, error, option) from None


def _unwritable(run: Path, error: OSError, option: str) -> UserError:
    return UserError(f"{run} cannot be written ({error.strerror}); choose another {option}")


def need_room(folder: Path, size: int, what: str) -> None:
    """Before the first step: does what will be written have room?

    Args:
        folder: where to; need not be there yet.
        size: bytes. A folder that is replaced stays until the new one is whole: count both.

    Raises:
        UserError: there is less room than that.
    """
    folder = folder.resolve()
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    if free < size:
        raise UserError(f"{folder}: {what} needs {_bytes(size)} of disk and {_bytes(free)} are "
                        "free; make room or choose another --run")


def _bytes(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"


@dataclass
class Saving:
    """How a save went; `done` only when all of it is written."""

    done: bool = False


@contextmanager
def keep_going(what: str) -> Iterator[Saving]:
    """Around a save in the middle of a run: a disk that fails costs the save, not the run.

        with keep_going("the checkpoint of step 40") as saving, publish(path) as folder:
            policy.save(folder)
        if saving.done: ...

    Raises:
        whatever the body raises that is not the disk's doing.
    """
    saving = Saving()
    try:
        yield saving
        saving.done = True
    except Exception as error:
        if not _is_of_the_disk(error):
            raise
        say(f"{what} is not saved ({str(error).splitlines()[0]}); the run goes on")


def _is_of_the_disk(error: Exception) -> bool:
    """Full, over quota, read-only, torn off: as Python, Rust and torch say it.

    safetensors raises a SafetensorError and tokenizers a bare Exception, each with the system's
    number in its text; torch.save a RuntimeError with nothing but the line that failed. An
    OSError without a number is transformers', about a folder's contents.
    """
    if isinstance(error, OSError):
        return error.errno is not None
    return bool(re.search(r"\(os error \d+\)|IoError\(Os \{ code: \d+|inline_container\.cc",
                          str(error)))


def refuse_overwrite(source: Path, target: Path, option: str) -> None:
    """A result may not replace what it is made from, nor hold it, nor lie inside it.

    Args:
        option: how the user named the target, such as "--out".

    Raises:
        UserError: it would.
    """
    a, b = source.resolve(), target.resolve()
    if a == b or a in b.parents or b in a.parents:
        raise UserError(f"{option} {target}: the result would overwrite {source}, which it is made "
                        f"from; choose another {option}")


def refuse_foreign(target: Path, option: str, sign: str = "config.json") -> None:
    """A result may replace an earlier one, but no file and no folder of something else.

    Args:
        sign: the file by which an earlier result is known.

    Raises:
        UserError: the target is a file, or a folder with contents and without that sign.
    """
    if not target.exists() or (target / sign).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise UserError(f"{option} {target}: there is something else than an earlier result; move "
                        f"it or choose another {option}")
