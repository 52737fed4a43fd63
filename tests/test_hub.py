"""A model's name: a local folder wins, else the hub; whatever goes wrong there is one line."""

import fnmatch
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import errors
from tiny import tiny_vlm

from nanoaes.checks import CheckpointError
from nanoaes.hub import find_folder
from nanoaes.vlm import VLM

ROOT = Path(__file__).parent.parent
NAME = "Qwen/Qwen2.5-VL-7B-Instruct"
ANSWER = SimpleNamespace(headers={}, request=None)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hub(monkeypatch, answer: Path | Exception) -> list[tuple[str, list[str]]]:
    """A hub with one answer. Returns what it is asked: name and patterns."""
    asked = []

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr("nanoaes.hub.snapshot_download", download)
    return asked


def test_a_name_is_fetched_and_loaded(elsewhere: Path, monkeypatch) -> None:
    tiny_vlm().save(elsewhere / "cache" / "snapshot")
    asked = hub(monkeypatch, elsewhere / "cache" / "snapshot")
    assert VLM.load(NAME, device="cpu").asking == tiny_vlm().asking
    ((name, patterns),) = asked
    assert name == NAME
    files = ("config.json", "model.safetensors.index.json", "model-00001-of-00005.safetensors",
             "tokenizer.json", "vocab.json", "merges.txt", "chat_template.jinja",
             "modeling.py", "pytorch_model.bin", "model.pth", "README.md", "x.gguf")
    taken = [f for f in files if any(fnmatch.fnmatch(f, p) for p in patterns)]
    assert taken == list(files[:7])


def test_a_local_folder_wins(elsewhere: Path, monkeypatch) -> None:
    asked = hub(monkeypatch, AssertionError())
    (elsewhere / NAME).mkdir(parents=True)
    assert find_folder(Path(NAME)) == Path(NAME)
    with pytest.raises(CheckpointError, match="no config.json"):
        VLM.load(NAME)
    assert asked == []


@pytest.mark.parametrize("model", ["runs/sfd", "runs/toy/sft", "sft", "/no/sft", "../sft", "~/sft",
                                   "a b/c", "./a/b/c"])
def test_a_path_with_an_error_in_it_is_no_name(elsewhere: Path, monkeypatch, model: str) -> None:
    """The hub is not told of it."""
    asked = hub(monkeypatch, AssertionError())
    (elsewhere / "runs").mkdir()
    with pytest.raises(CheckpointError, match="no such folder; give"):
        find_folder(Path(model))
    assert asked == []


@pytest.mark.parametrize("error, message", [
    (errors.LocalEntryNotFoundError("no\nnetwork"), f"out of reach .*hf download {NAME}"),
    (errors.GatedRepoError("403", response=ANSWER), "accept the terms .*hf auth login"),
    (errors.RepositoryNotFoundError("404", response=ANSWER), "no such public model; mend the name"),
    (errors.HFValidationError("a--b"), "no such public model; mend the name"),
    (errors.HfHubHTTPError("500\nbusy", response=ANSWER), "HfHubHTTPError: 500 busy.; try"),
    (OSError(28, "No space left on device"), "No space left on device.; try `hf download"),
])
def test_what_the_hub_refuses_is_one_line(elsewhere: Path, monkeypatch, error: Exception,
                                          message: str) -> None:
    hub(monkeypatch, error)
    with pytest.raises(CheckpointError, match=message) as refusal:
        VLM.load(NAME)
    assert str(refusal.value).startswith(f"{NAME}: ") and "\n" not in str(refusal.value)


def test_the_real_library_offline(tmp_path: Path) -> None:
    code = ("import time\nfrom pathlib import Path\n"
            "from nanoaes.hub import find_folder\nfrom nanoaes.checks import CheckpointError\n"
            f"start = time.perf_counter()\ntry:\n    find_folder(Path({NAME!r}))\n"
            "except CheckpointError as e:\n    print(e)\nprint(time.perf_counter() - start)\n")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                         cwd=ROOT, env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    message, seconds = out.stdout.splitlines()
    assert "the hub is out of reach (offline, or HF_HUB_OFFLINE is set)" in message
    assert float(seconds) < 5
