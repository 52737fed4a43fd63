"""Kept critiques in LLaMA-Factory's layout: it finds all of it by its description, we read it back.
"""

import json
from pathlib import Path

import pytest

from nanoaes.critiques import read_critiques
from nanoaes.errors import UserError
from nanoaes.prompt import SCORING_PROMPT
from nanoaes.sharegpt import sharegpt, write_sharegpt

TEXTS = ["Soft light; the horizon tilts.", "Weiches Licht – „schön“.\n\nColor: 静かな色。",
         "A fine \"mood\", a < b."]


def row(image: object, score: float, critique: str, kept: bool = True) -> dict:
    return {"image": str(image), "score": score, "critique": critique, "kept": kept, "leak": False}


def rows(folder: Path) -> list[dict]:
    return [*(row(folder / f"{i}.jpg", 0.2 + i / 3, text) for i, text in enumerate(TEXTS)),
            row(folder / "no.jpg", 0.5, "A leak: 7/10.", kept=False),
            row(folder / "older.jpg", 0.5, "I'm sorry, but I can't help with that."),
            row(folder / "tag.jpg", 0.5, "Light <image> and shade.")]


def test_what_is_read_back_is_what_was_kept(tmp_path: Path) -> None:
    write_sharegpt(tmp_path / "cot_sharegpt.json", rows(tmp_path))
    found = read_critiques(tmp_path / "cot_sharegpt.json")
    assert [(c.image, c.score) for c in found] == [
        ((tmp_path / f"{i}.jpg").resolve(), pytest.approx(0.2 + i / 3, abs=0.005))
        for i in range(3)]
    for one, text in zip(found, TEXTS, strict=True):
        assert one.answer.startswith(f"<think>{text}</think><answer>")


def test_llama_factory_finds_everything_by_the_description(tmp_path: Path) -> None:
    """Read as its converter does: names of columns and tags from dataset_info.json alone."""
    write_sharegpt(tmp_path / "cot_sharegpt.json", rows(tmp_path))
    info = json.loads((tmp_path / "dataset_info.json").read_text())["cot_sharegpt"]
    assert info["formatting"] == "sharegpt"
    columns, tags = info["columns"], info["tags"]
    listed = json.loads((tmp_path / info["file_name"]).read_text(encoding="utf-8"))
    assert len(listed) == 3
    for one in listed:
        user, assistant = one[columns["messages"]]
        assert user[tags["role_tag"]] == tags["user_tag"]
        assert assistant[tags["role_tag"]] == tags["assistant_tag"]
        said = user[tags["content_tag"]] + assistant[tags["content_tag"]]
        image, = one[columns["images"]]
        assert user[tags["content_tag"]] == f"<image>{SCORING_PROMPT}"
        assert said.count("<image>") == 1 and Path(image).is_absolute()


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    monkeypatch.chdir(tmp_path)
    one, = sharegpt([row("b.jpg", 0.5, TEXTS[0])])
    assert one["images"] == [str(tmp_path.resolve() / "b.jpg")]
    write_sharegpt(Path("run/c.json"), [row("a.jpg", 0.5, "x"), row("b.jpg", 0.5, "x")])
    assert [c.image for c in read_critiques(Path("run/c.json"))] == [
        tmp_path.resolve() / "run" / "a.jpg", tmp_path.resolve() / "b.jpg"]


def test_other_descriptions_stay(tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    info.write_text('{"mine": {"file_name": "mine.json"}, "c": {"file_name": "old"}}')
    write_sharegpt(tmp_path / "c.json", rows(tmp_path))
    found = json.loads(info.read_text())
    assert found["mine"] == {"file_name": "mine.json"} and found["c"]["file_name"] == "c.json"
    assert list(tmp_path.glob("*.partial")) == []


@pytest.mark.parametrize("text", ["{", "[1]", '"words"'])
def test_a_broken_description_is_told_and_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text(text)
    with pytest.raises(UserError, match=r"dataset_info.json: no JSON object; correct or delete it"):
        write_sharegpt(tmp_path / "c.json", rows(tmp_path))
    assert (tmp_path / "dataset_info.json").read_text() == text
    assert not (tmp_path / "c.json").exists()
