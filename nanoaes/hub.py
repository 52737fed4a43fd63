"""A model's name becomes a folder: one on this disk, else one of the Hugging Face hub.

Only texts and safetensors are fetched, into the hub's ordinary cache: a pickle or a Python file of
a stranger is not even on the disk. Left out: revisions, tokens (`hf auth login` keeps one).
"""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from nanoaes.checks import CheckpointError

WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
NAME = re.compile(r"[\w][\w.-]*/[\w.-]+")  # OWNER/MODEL
LOCAL = "give a Hugging Face model folder, such as train_rapo.py leaves in RUN/rapo"


def find_folder(model: Path, wanted: list[str] = WANTED) -> Path:
    """A folder that is here wins; else OWNER/MODEL is fetched, or found in the hub's cache.

    Args:
        wanted: patterns of the files to fetch.
    Raises:
        CheckpointError: neither; the hub is out of reach, does not know the name, asks for consent.
    """
    name = model.as_posix()
    if model.is_dir():
        return model
    # runs/sft beside a folder runs is a path with an error in it: the hub must not be asked.
    if not NAME.fullmatch(name) or Path(model.parts[0]).exists():
        raise CheckpointError(f"{model}: no such folder; {LOCAL}, or a name of the hub, such as "
                              "Qwen/Qwen2.5-VL-7B-Instruct")
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except GatedRepoError as error:  # also a RepositoryNotFoundError
        raise CheckpointError(f"{name}: its owner asks for consent; accept the terms on the "
                              "model's page of the hub, then `hf auth login`") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(f"{name}: no folder here, and the hub has no such public model; "
                              "mend the name, or `hf auth login` if it is private") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(f"{name}: no folder here, not whole in the hub's cache, and the hub "
                              "is out of reach (offline, or HF_HUB_OFFLINE is set); fetch it where "
                              f"there is a network with `hf download {name}`, then give its "
                              "folder") from error
    except Exception as error:  # whatever else a network, a proxy or a full disk raises
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name}: cannot be fetched ({type(error).__name__}: {reason}); try "
                              f"`hf download {name}`, then give its folder") from error
