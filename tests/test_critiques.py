"""Critiques that everybody has are read: three layouts, their scales, and what is no critique."""

import json
from pathlib import Path

import pytest
from tiny import pictures

import train_sft
from nanoaes.config import OptionError, SFTConfig
from nanoaes.critiques import Critique, read_critiques, split_scale
from nanoaes.images import DataError
from nanoaes.unfit import unfit

TEXT = "Soft light falls on one walker; the horizon tilts."


def turns(reply: str, **more: object) -> dict:
    return {"messages": [{"role": "system", "content": "You judge."},
                         {"role": "user", "content": "<image>Rate this."},
                         {"role": "assistant", "content": reply}], "images": ["a/1.png"], **more}


def answer(score: object, text: str = TEXT) -> str:
    return f"<think>\n{text}\n</think>\n<answer>\n{score}\n</answer>"


BARE = {"image": "a/1.png", "score": 0.75, "critique": TEXT}
OLDER = {"conversations": [{"from": "human", "value": "<image>Rate."},
                           {"from": "gpt", "value": answer("0.75")}], "images": ["a/1.png"]}
PARTS = {"messages": [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant",
         "content": [{"type": "text", "text": answer(0.75)}]}], "images": "a/1.png"}


def written(folder: Path, rows: list, layout: str = "lines") -> Path:
    """One object a line, the same without the last line break, or a list."""
    file = folder / "list.json"
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text({"lines": lines + "\n", "open": lines,
                     "list": json.dumps(rows, indent=1)}[layout], encoding="utf-8")
    return file


@pytest.mark.parametrize("layout", ["lines", "open", "list"])
@pytest.mark.parametrize("row", [
    BARE, {**BARE, "score": "0,75"}, {**BARE, "kept": True, "dataset": "a"},
    turns(answer("0.75")), turns(answer("75%")), turns(answer("3/4")), turns(TEXT, score=0.75),
    turns(answer("0.75"), gt_score=0.75), OLDER, PARTS])
def test_each_layout_says_the_same(row: dict, layout: str, tmp_path: Path) -> None:
    expected = Critique((tmp_path / "a/1.png").resolve(), 0.75,
                        f"<think>{TEXT}</think><answer>0.75</answer>")
    assert read_critiques(written(tmp_path, [row, row], layout)) == [expected] * 2


@pytest.mark.parametrize("row, scale", [
    ({**BARE, "score": 4}, (1, 5)), ({**BARE, "score": 0.5}, (-1, 1)),
    (turns(answer(4)), (1, 5)), (turns(answer("4/5")), (1, 5)),
    (turns(answer("4.0"), score=4), (1, 5)),
    (turns(answer(75)), (0, 100)), (turns(answer("Rating: 7.75")), (1, 10))])
def test_another_scale_becomes_the_contracts(row: dict, scale: tuple, tmp_path: Path) -> None:
    found, = read_critiques(written(tmp_path, [row]), scale)
    assert found.score == pytest.approx(0.75) and found.answer.endswith("<answer>0.75</answer>")


def test_the_scale_stands_behind_the_path(tmp_path: Path) -> None:
    assert split_scale("c.jsonl") == (Path("c.jsonl"), (0, 1))
    assert split_scale("c.jsonl@1-5") == (Path("c.jsonl"), (1, 5))
    assert split_scale("a@b/c.jsonl@-1-1.5") == (Path("a@b/c.jsonl"), (-1, 1.5))
    own = tmp_path / "c@1-5"
    own.touch()
    assert split_scale(str(own)) == (own, (0, 1))
    with pytest.raises(DataError, match="no scale"):
        split_scale("c.jsonl@5-1")


@pytest.mark.parametrize("row, why", [
    ({**BARE, "critique": " \n"}, "empty"),
    (turns(answer(0.75, " ")), "empty"),
    ({**BARE, "critique": "I'm sorry, but I can't help with that."}, "a refusal: 'I'm sorry"),
    (turns("Sorry, I cannot view images."), "a refusal"),
    ({**BARE, "critique": "Soft <b>light</b>."}, "a tag inside"),
    (turns(answer(0.75, "Soft <think> light")), "a tag inside"),
    (turns(TEXT), "no <think>…</think><answer>…</answer>"),
    (turns(f"<answer>0.75</answer> {TEXT}", score=0.75), "no <think>"),
    (turns(answer("rather good")), "an answer that is no score: 'rather good'"),
    (turns(answer("0.75"), score=0.5), "its answer is not its score: 0.75, 0.50")])
def test_what_is_no_critique_is_passed_over_and_said(row: dict, why: str, tmp_path: Path,
                                                     capsys) -> None:
    file = written(tmp_path, [BARE, row, *[row] * 6])
    assert len(read_critiques(file)) == 1
    said = capsys.readouterr().out
    assert f"{file}: 7 of 8 critiques are not learned from: {why[:5]}" in said
    assert f"skipped line 2: {why}" in said.replace('"', "'") and said.count("skipped") == 5
    with pytest.raises(DataError, match=r"none of 2 .* the first, row 1: .*; correct[^\n]*$"):
        read_critiques(written(tmp_path, [row, row], "list"))


@pytest.mark.parametrize("row, message", [
    ({**BARE, "score": 4}, "4 is outside the scale 0 to 1: name the scores' scale"),
    (turns(answer(4)), "4 is outside the scale 0 to 1: name the scores' scale, --cot FILE@1-5"),
    ({**BARE, "score": None}, "there is no score"), ({**BARE, "score": "high"}, "not a number"),
    ({**BARE, "score": float("nan")}, "not a number"), ({**BARE, "score": True}, "not a number"),
    ({**BARE, "image": None}, "no picture's path"), (turns("x", images=["a", "b"]), "2 pictures"),
    ({**BARE, "critique": None}, "neither a critique nor messages"),
    ({**BARE, "critique": 3}, "the critique is 3 and no text"),
    ({**BARE, "kept": "no"}, "neither true nor false"),
    ({"messages": "x", "images": "a"}, "messages are no"),
    ({"messages": [], "images": "a"}, "0 replies in messages")])
def test_a_row_that_is_none_is_named(row: dict, message: str, tmp_path: Path) -> None:
    for layout, place in (("lines", "line 2"), ("list", "row 2")):
        file = written(tmp_path, [BARE, row], layout)
        with pytest.raises(DataError) as raised:
            read_critiques(file)
        assert str(raised.value).startswith(f"{file}, {place}: ")
        assert message in str(raised.value) and "\n" not in str(raised.value)


def test_rejected_rows_are_not_there(tmp_path: Path) -> None:
    rejected = {**BARE, "kept": False, "critique": ""}
    assert len(read_critiques(written(tmp_path, [rejected, BARE]))) == 1
    with pytest.raises(DataError, match="no kept critique"):
        read_critiques(written(tmp_path, [rejected]))


def test_a_line_that_a_crash_cut_off_is_said_and_no_other_is(tmp_path: Path, capsys) -> None:
    file = written(tmp_path, [BARE, BARE])
    file.write_text(file.read_text()[:-9])
    assert len(read_critiques(file)) == 1 and "cut off" in capsys.readouterr().out
    file.write_text("nothing of the kind")
    with pytest.raises(DataError, match="line 1: no JSON"):
        read_critiques(file)


def test_pictures_lie_beside_the_list_or_where_the_toys_once_did(tmp_path: Path, monkeypatch
                                                                ) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").touch()
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "run", [BARE]).relative_to(tmp_path)
    assert read_critiques(file)[0].image == (tmp_path / "a/1.png").resolve()
    (tmp_path / "run/a").mkdir()
    (tmp_path / "run/a/1.png").touch()
    assert read_critiques(file)[0].image == (tmp_path / "run/a/1.png").resolve()


def test_a_scale_behind_the_projects_own_list_is_refused(tmp_path: Path) -> None:
    """Its scores are on 0-1; a tenth of each would be learned in silence."""
    file = written(tmp_path, [{**BARE, "kept": True, "leak": False}])
    with pytest.raises(DataError, match="line 1: build_cot.py's own row.* on 0-1; leave out @"):
        read_critiques(file, (0, 10))


def test_the_cold_start_reads_its_option(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    pictures(1)[0].save(tmp_path / "a/1.png")
    file = written(tmp_path, [turns(answer(4)), turns(answer(2))])
    lessons = train_sft.lessons_of(SFTConfig(run=str(tmp_path), model="m", cot=f"{file}@1-5"),
                                   tmp_path)
    assert [text[-23:] for _, text in lessons] == ["</think><answer>0.75</answer>"[-23:],
                                                   "</think><answer>0.25</answer>"[-23:]]
    with pytest.raises(OptionError, match="no such file"):
        train_sft.lessons_of(SFTConfig(model="m", cot="no.jsonl@1-5"), tmp_path)


def test_the_toys_own_list_is_finished_before_it_is_learned(tmp_path: Path, monkeypatch) -> None:
    """A run that died while it was written leaves a part of it, and no card."""
    for i, picture in enumerate(pictures(3)):
        picture.save(tmp_path / f"{i}.png")
    rows = [json.dumps({**BARE, "image": f"{i}.png", "kept": True, "leak": False}) + "\n"
            for i in range(3)]
    cot, asked = tmp_path / "cot.jsonl", []

    def finish(cfg: object) -> None:
        asked.append(cfg)
        cot.write_text("".join(rows))
        (tmp_path / "cot_card.json").write_text("{}")

    monkeypatch.setattr(train_sft.build_cot, "main", finish)
    cot.write_text(rows[0])
    for _ in range(2):
        assert len(train_sft.lessons_of(SFTConfig(run=str(tmp_path)), tmp_path)) == 3
    assert len(asked) == 1


@pytest.mark.parametrize("text", [
    "I'm sorry, I can't help with that.", "I’m really sorry, but I cannot assist.",
    "Sorry, I can't.", "Unfortunately, I am unable to view images.",
    "I cannot provide a critique of this image.",
    "As an AI language model, I have no eyes.", "I can't see the image.", "抱歉,我无法评价。",
    "I don't have access to the picture.", "My apologies, but I can't analyze it.",
    "The light is soft. As an AI, I cannot judge it.", "  I won't rate people.",
    "Lo siento, no puedo.", "I'm afraid I can't help with that.", "No image was provided.",
    "I cannot write a critique of this image.", "I can't create a detailed critique of it.",
    "I'm unable to identify people in photos.", "Sorry, this image can't be processed.",
    "I won't be able to help with that request.", "The picture was not attached.",
    "This photo could not be loaded."])
def test_a_refusal(text: str) -> None:
    assert unfit(text) == "a refusal"


@pytest.mark.parametrize("text", [
    "I can't help but admire the light.", "I cannot see her eyes, which costs the portrait.",
    "It looks sorry for itself.", "The sorry state of the barn is the point.",
    "It reads as an AI render.",
    "I am not able to find a focal point.", "Unfortunately, the horizon tilts.", "a < b, I <3 it",
    "The picture is opened by a strip of light.",
    "I'm afraid of this dog, and so I should be.", "This image cannot be loved at first sight.",
    "I can't identify with her, which is the point.", "No image was ever so calm.",
    "The couple apologises with its eyes.", "I can't decide which subject leads.",
    "The pose is odd. I cannot provide a reason why it works, but it does."])
def test_no_refusal(text: str) -> None:
    assert unfit(text) == ""


def test_scores_that_others_critiques_give_away_are_said(tmp_path: Path, capsys) -> None:
    rows = [BARE, {**BARE, "critique": "Soft light. I would give it 7 out of 10."},
            {**BARE, "critique": "People rated it low."}]
    file = written(tmp_path, rows)
    assert len(read_critiques(file)) == 3
    out = capsys.readouterr().out
    assert "2 of 3 critiques seem to give their score away, the first line 2: '" in out
    read_critiques(written(tmp_path, [{**row, "kept": True, "leak": False, "image": f"{i}.png"}
                                      for i, row in enumerate(rows)]))
    assert "give their score away" not in capsys.readouterr().out, "build_cot.py has looked"
