"""A start that is refused touches nothing; a disk that fails costs a checkpoint, not the run."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from tiny import tiny_vlm

import train_rapo
import train_sft
from nanoaes.config import RAPOConfig, SFTConfig
from nanoaes.errors import NotFinite, UserError
from nanoaes.lora import LoRA, attach
from nanoaes.options import parse
from nanoaes.vlm import VLM

ROOT = Path(__file__).parent.parent


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Eight pictures with scores, a model, critiques, and the results of an earlier run."""
    tiny.album(tmp_path, (1 + i / 2 for i in range(8)))
    row = {"image": str(tmp_path / "1.png"), "score": 0.6, "dataset": "mine", "kept": True,
           "critique": "soft light"}
    (tmp_path / "cot.jsonl").write_text(json.dumps(row) + "\n")
    for name in ("run/rapo/weights", "run/report.html", "run/metrics.jsonl", "run/sft/weights"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("earlier")
    return tmp_path


def options(album: Path, **more: object) -> RAPOConfig:
    values = {"run": album / "run", "model": album / "model", "images": 4, "k": 2, "steps": 2,
              "train": f"csv:{album / 'photos.csv'}@1-5", "heldout": 3, "max_new_tokens": 4,
              "test_in": f"csv:{album / 'photos.csv'}@1-5", "eval_every": 1, **more}
    return parse(RAPOConfig, [w for k, v in values.items() for w in (f"--{k}", str(v))])


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*"))
            if p.is_file() and p.name not in (".lock", "pictures.jsonl")}  # which are no results


@pytest.mark.parametrize("change, message", [
    ({"images": 8}, "images_per_step is 8"),
    ({"model": "tests"}, "no config.json"),
    ({"heldout": 8}, "lower --heldout"),
    ({"test_in": "csv:no.csv@1-5"}, "no.csv"),
    ({"train": ""}, "need --train"),
])
def test_a_refused_start_moves_nothing(album: Path, change: dict, message: str) -> None:
    before = files(album / "run")
    with pytest.raises(UserError, match=message):
        train_rapo.main(options(album, **change))
    assert files(album / "run") == before


def test_a_full_disk_is_seen_before_the_first_step(album: Path, monkeypatch) -> None:
    before = files(album / "run")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="needs .* MB of disk"):
        train_rapo.main(options(album))
    assert files(album / "run") == before


def test_a_cold_start_counts_its_states_and_says_when_the_disk_fails(album: Path, monkeypatch
                                                                      ) -> None:
    cfg = SFTConfig(run=str(album / "run"), model=str(album / "model"), save_every=1,
                    cot=str(album / "cot.jsonl"), out=str(album / "cold"), device="cpu",
                    train_vision=True)
    size = sum(p.numel() for p in tiny_vlm().parameters())
    free = 2 * 4 * size + 2 * 12 * size  # two models, and two states of the three
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    before = files(album / "run")
    with pytest.raises(UserError, match="--keep_last states of the run, needs"):
        train_sft.main(cfg)
    assert files(album / "run") == before

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train_sft.VLM, "save", full)
    with pytest.raises(UserError, match="cold cannot be written .*No space.*--resume true"):
        train_sft.hand_out(tiny_vlm(), [], album / "cold")


def test_no_result_buries_what_it_is_made_from_or_what_is_not_its_own(album: Path) -> None:
    """A merged model is a result, too; and adapters are made from whose they are."""
    run = album / "run"
    (run / "rapo").rename(run / "rapo_merged")
    tiny_vlm().save(run / "rapo_merged")
    second = tiny_vlm()
    attach(second.hf, LoRA(2, 4.0, ("q_proj",), False))
    for model in (run / "rapo_merged", run / "sft2"):
        if model.name == "sft2":
            second.save(model)
            config = json.loads((model / "adapter_config.json").read_text())
            config["base_model_name_or_path"] = str(run / "rapo_merged")
            (model / "adapter_config.json").write_text(json.dumps(config))
        before = files(run)
        with pytest.raises(UserError, match="would overwrite .*rapo_merged, which it is made from"):
            train_rapo.main(options(album, model=model))
        assert files(run) == before
    mine = album / "cold_merged" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(UserError, match="cold_merged: there is something else"):
        train_sft.main(SFTConfig(run=str(run), model=str(album / "model"), lora_rank=2, merge=True,
                                 cot=str(album / "cot.jsonl"), out=str(album / "cold")))
    assert mine.read_text() == "mine"


def test_a_folder_in_use_names_the_other(album: Path) -> None:
    code = ("import sys\nfrom pathlib import Path\nfrom nanoaes.runs import claim\n"
            f"with claim(Path({str(album / 'run')!r}), 'other.py'):\n"
            "    print('held', flush=True)\n    sys.stdin.read()\n")
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == "held\n"
        before = files(album / "run")
        with pytest.raises(UserError, match=f"in use by other.py, process {other.pid}"):
            train_rapo.main(options(album))
        assert files(album / "run") == before
    finally:
        other.communicate("")


@pytest.mark.parametrize("out, message", [
    ("model", "would overwrite"), (".", "would overwrite"), ("model/sub", "would overwrite"),
    ("photos.csv", "something else than an earlier result")])
def test_the_cold_start_never_replaces_its_source(album: Path, out: str, message: str) -> None:
    before = files(album)
    cfg = SFTConfig(run=str(album / "run"), model=str(album / "model"), out=str(album / out),
                    cot=str(album / "cot.jsonl"))
    with pytest.raises(UserError, match=message):
        train_sft.main(cfg)
    assert files(album) == before


def test_the_cold_start_sets_an_earlier_one_aside(album: Path) -> None:
    (album / "run/sft/nanoaes.json").write_text("{}")
    train_sft.main(SFTConfig(run=str(album / "run"), model=str(album / "model"), epochs=1,
                             cot=str(album / "cot.jsonl"), prompt="full", max_pixels=1568))
    assert (album / "run/before-1/sft/weights").read_text() == "earlier"
    trained = VLM.load(album / "run/sft", device="cpu").asking  # remembers how it was trained
    assert trained.max_pixels == 1568 and trained.prompt.startswith("Look closely")


def test_a_save_that_fails_costs_the_checkpoint_and_not_the_run(album: Path, monkeypatch,
                                                                 capsys) -> None:
    save, saves = VLM.save, []

    def failing(vlm: VLM, path: Path) -> None:
        saves.append(path)
        if len(saves) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(vlm, path)

    monkeypatch.setattr(VLM, "save", failing)
    train_rapo.main(options(album))
    said = capsys.readouterr().out
    assert "No space left" in said and "is not saved" in said
    assert "RAPO" in said.splitlines()[-2] and (album / "run/report.html").is_file()
    kept = VLM.load(album / "run/rapo", device="cpu")  # the cold start, whole
    start = VLM.load(album / "model", device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), start.parameters(),
                                                 strict=True))


def test_weights_that_turn_not_finite_are_named(album: Path, monkeypatch) -> None:
    """Where a folder holds such weights, it is not even loaded (test_checks.py)."""
    load = VLM.load

    def poisoned(*args, **options) -> VLM:
        vlm = load(*args, **options)
        with torch.no_grad():
            vlm.hf.model.language_model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
        return vlm

    monkeypatch.setattr(VLM, "load", poisoned)
    with pytest.raises(NotFinite, match="^held out, step 0: the hidden states of picture 1's "
                                        "prompt are not finite: the weights are broken"):
        train_rapo.main(options(album))
    cfg = SFTConfig(run=str(album / "run"), model=str(album / "model"), out=str(album / "new"),
                    cot=str(album / "cot.jsonl"))
    with pytest.raises(NotFinite, match="step 1: loss, entropy, grad_norm .the first such weight: "
                                        ".*layers.1.mlp.up_proj"):
        train_sft.main(cfg)
