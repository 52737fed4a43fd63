"""A run goes on with the options and the model it was saved with; which differ is said."""

from dataclasses import asdict
from pathlib import Path

import pytest

from nanoaes.config import RAPOConfig
from nanoaes.errors import UserError
from nanoaes.same import SAMPLE, SAMPLES, as_saved, began_with, check_same, fingerprint


def test_exactly_what_differs_is_named() -> None:
    saved = asdict(RAPOConfig(lr=1e-4, k=4)) | {"weights": "abc", "gone": 1}
    now = asdict(RAPOConfig(lr=2e-4, k=8)) | {"weights": "def"}
    with pytest.raises(UserError) as error:
        check_same(saved, now)
    assert str(error.value) == (
        "--resume goes on with the same options only; k: saved 4, now 8, lr: saved 0.0001, now "
        "0.0002, weights: saved 'abc', now 'def', gone: saved 1, now None; give them as they were "
        "saved or choose another --run")


def test_what_changes_no_number_may_change() -> None:
    saved = asdict(RAPOConfig(tokens_per_micro_batch=4096)) | {"save_every": 2, "resume": False}
    now = asdict(RAPOConfig(run="elsewhere", device="cpu", shard=2, reference="cpu",
                            gradient_checkpointing=True, tokens_per_micro_batch=0))
    check_same(saved, now | {"save_every": 5, "keep_last": 1, "resume": True, "log_every": 3})


def test_a_budget_that_was_left_open_is_the_saved_one() -> None:
    begun = {"weights": "abc", "pictures": "1"}
    state = {"options": asdict(RAPOConfig(tokens_per_micro_batch=4096)), **begun}
    for given, kept in ((0, 4096), (1024, 1024)):
        cfg = as_saved(RAPOConfig(tokens_per_micro_batch=given), begun, state)
        assert cfg == RAPOConfig(tokens_per_micro_batch=kept)
    for name, value in (("weights", "abc"), ("pictures", "1")):
        with pytest.raises(UserError, match=f"{name}: saved '{value}', now 'def'"):
            as_saved(RAPOConfig(), begun | {name: "def"}, state)


def test_what_a_run_learns_from_is_known_by_names_and_lessons(model: Path) -> None:
    """In order; a folder may move."""
    lessons = [(Path("a/1.jpg"), 0.5), (Path("a/2.jpg"), 0.25)]
    begun = began_with(model, lessons)
    assert begun == began_with(model, [(Path("b") / p.name, s) for p, s in lessons])
    assert begun["weights"] == fingerprint(model)
    for other in (lessons[:1], lessons[::-1], [lessons[0], (lessons[1][0], 0.26)]):
        assert began_with(model, other)["pictures"] != begun["pictures"]


def test_each_option_but_those_counts() -> None:
    """A new option counts until somebody says that it does not."""
    same = asdict(RAPOConfig())
    free = {"run", "device", "shard", "reference", "gradient_checkpointing", "save_every",
            "keep_last", "resume", "dry_run", "gpu", "gpus", "log_every", "tracker", "merge",
            "tokens_per_micro_batch", "overlap"}
    for name in same.keys() - free:
        with pytest.raises(UserError, match=f"; {name}: saved "):
            check_same(same, same | {name: "other"})


SIZE = 3 * SAMPLES * SAMPLE


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two weight files, one of which is not read whole."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "a.safetensors").write_bytes(bytes(100))
    (tmp_path / "b.safetensors").write_bytes(bytes(SIZE))
    return tmp_path


def patch(path: Path, place: int | range) -> None:
    raw = bytearray(path.read_bytes())
    for i in [place] if isinstance(place, int) else place:
        raw[i] ^= 1
    path.write_bytes(raw)


def test_a_fingerprint_tells_models_apart(model: Path) -> None:
    seen = [fingerprint(model)]
    for change in (
            lambda: (model / "config.json").write_text("{ }"),
            lambda: (model / "adapter_config.json").write_text("{ }"),
            lambda: patch(model / "a.safetensors", 50),
            lambda: patch(model / "b.safetensors", 0),
            lambda: patch(model / "b.safetensors", SIZE - 1),
            *(lambda i=i: patch(model / "b.safetensors", range(i, i + SIZE // SAMPLES))
              for i in range(0, SIZE - 3 * SAMPLE, SIZE // 7)),  # whatever tensor was trained
            lambda: (model / "b.safetensors").write_bytes(bytes(SIZE + 1)),
            lambda: (model / "b.safetensors").rename(model / "c.safetensors"),
            lambda: (model / "a.safetensors").unlink()):
        change()
        seen.append(fingerprint(model))
    assert len(set(seen)) == len(seen)


def test_a_fingerprint_is_of_the_model_only_and_reads_little(model: Path) -> None:
    before = fingerprint(model)
    (model / "eval.json").write_text("{}")
    moved = model.rename(model.parent / "moved")
    assert fingerprint(moved) == before
    with (moved / "b.safetensors").open("r+b") as file:
        file.truncate(2**40)  # a terabyte of nothing: read whole, this test would not end
    assert fingerprint(moved) != before


def test_adapters_are_told_apart_by_what_they_belong_to(model: Path, tmp_path: Path) -> None:
    base = tmp_path / "adapters" / "base"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    (base.parent / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "base"}')
    before = fingerprint(base.parent)
    (base / "config.json").write_text("{ }")
    assert fingerprint(base.parent) != before
