"""JSON lists as Q-Align, ArtiMuse and the released Aes-R1 code ship them, and what is no such list.

The scale is stated by the user: the released example's prompt asks for 1 to 5, its labels are of
0 to 1.
"""

import json
from pathlib import Path

import pytest
from test_datasets import summary, write

from nanoaes.datasets import Example, read_dataset
from nanoaes.images import DataError

Q_ALIGN = [{"id": "1", "image": "ava/1.jpg", "gt_score": 5.5, "conversations": [{"from": "human"}]},
           {"id": "2", "image": "ava/2.jpg", "gt_score": "10.00", "score": 3.1}]
ARTIMUSE = [{"img_path": "1.jpg", "gt_score": 1.0, "std": 4.5, "theme": "sea"},
            {"img_path": "2.jpg", "gt_score": 10}]
AES_R1 = [{"messages": [{"content": "How beautiful is <image>?", "role": "user"},
                        {"content": content, "role": "assistant"}], "images": images}
          for content, images in (("0.25", "a.jpg"), ("0.80", ["b.jpg"]))]


def read(file: Path, rows: object, scale: str, columns: tuple[str, ...] = ()) -> list[Example]:
    """The rows as a list, which must say the same as one object a line."""
    write(file, json.dumps(rows, indent=2))
    examples = read_dataset(f"json:{file}@{scale}", "train", columns)
    write(file, "\n\n".join(json.dumps(row) for row in rows) + "\n")
    assert read_dataset(f"jsonl:{file}@{scale}", "train", columns) == examples
    return examples


def test_q_align(tmp_path: Path) -> None:
    first, second = read(tmp_path / "test_ava.json", Q_ALIGN, "1-10")
    assert (first.image, first.score) == (tmp_path / "ava" / "1.jpg", 0.5)
    assert (first.dataset, first.scale, second.score) == ("test_ava", (1, 10), 1.0)


def test_artimuse_with_spread_and_theme(tmp_path: Path) -> None:
    examples = read(tmp_path / "a.json", ARTIMUSE, "1-10")
    assert summary(examples) == [("1.jpg", 0.0, 0.5), ("2.jpg", 1.0, None)]
    assert [e.theme for e in examples] == ["sea", ""]


def test_the_released_codes_messages(tmp_path: Path) -> None:
    assert summary(read(tmp_path / "a.json", AES_R1, "0-1")) == [
        ("a.jpg", 0.25, None), ("b.jpg", 0.8, None)]


def test_fields_by_name_in_any_case_and_encoding(tmp_path: Path) -> None:
    rows = [{"File": "é.jpg", "MOS": 3, "gt_score": 5, "SD": 0.5, "Class": "x"}]
    (one,) = read(tmp_path / "a.json", rows, "1-5", ("file", "mos", "sd", "CLASS"))
    assert (one.image.name, one.score, one.std, one.theme) == ("é.jpg", 0.5, 0.125, "x")
    write(tmp_path / "b.json", json.dumps([{"IMAGE": "a.jpg", "GT_Score": 3}]).encode("utf-16"))
    assert read_dataset(f"json:{tmp_path}/b.json@1-5", "test")[0].score == 0.5


def test_a_row_without_a_score_is_passed_over_and_counted(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [{"image": "a.jpg"}, {"image": "b.jpg", "gt_score": None}, *ARTIMUSE,
            {"image": "c.jpg", "gt_score": ""}]
    assert len(read(tmp_path / "a.json", rows, "1-10")) == 2
    assert capsys.readouterr().out.count("3 of 5 rows have no score and are passed over") == 2


@pytest.mark.parametrize("kind, text, problem", [
    ("json", '[{"image": "a.jpg", "gt_score": 3},\n{"image" "b.jpg"}]', "line 2: no JSON"),
    ("json", '{"image": "a.jpg", "gt_score": 3}\n{"image": "b.jpg", "gt_score": 3}',
     "line 2: no JSON (Extra data); correct it; one object a line is jsonl:"),
    ("json", '{"image": "a.jpg", "gt_score": 3}', "no list of rows but one dict"),
    ("json", "[3]", "row 1: no {…} but 3"),
    ("jsonl", '{"image": "a.jpg", "gt_score": 3}\n[3]', "line 2: no {…} but [3]"),
    ("jsonl", '[\n{"image": "a.jpg", "gt_score": 3}\n]', "line 1: no JSON"),
    ("json", '[{"image": "a.jpg", "gt_score": 3, "GT_SCORE": 3}]', "field twice: 'image, gt_score"),
    ("jsonl", '\n{"image": "a.jpg", "image": "b.jpg"}', "line 2: an object has a field twice"),
    ("json", '[{"image": "a.jpg", "mos": 3}]', "no row has a gt_score or score or messages; the "
     "last row's fields are 'image, mos'; name the score's with --columns"),
    ("json", '[{"gt_score": 3}]', "row 1: there is no image or img_path or images"),
    ("json", '[{"image": "", "gt_score": 3}]', "row 1: there is no image"),
    ("json", '[{"images": ["a.jpg", "b.jpg"], "gt_score": 3}]', "row 1: 2 images where one"),
    ("json", '[{"image": {"path": "a.jpg"}, "gt_score": 3}]', "row 1: image is neither text nor"),
    ("json", '[{"images": [], "gt_score": 3}]', "row 1: 0 images where one"),
    ("json", '[{"images": "a.jpg", "messages": "3"}]', "row 1: messages are no [{role, content}"),
    ("json", '[{"images": "a.jpg", "messages": [{"role": "user", "content": "?"}]}]',
     "row 1: 0 messages where one"),
    ("jsonl", '\n{"image": "a.jpg", "gt_score": NaN}', "line 2: 'nan' is not a number"),
    ("json", '[{"image": "a.jpg", "gt_score": true}]', "row 1: 'True' is not a number"),
    ("json", '[{"image": "a.jpg", "gt_score": 6}]', "row 1: 6 is outside the scale 1 to 5"),
    ("json", '[{"image": "a.jpg", "gt_score": 3}, {"image": "./a.jpg", "gt_score": 3}]',
     "row 2: './a.jpg' is on an earlier row"),
    ("json", "[]", "no rows for train"),
    ("json", "[" * 10**5, "correct it"),
    ("json", '[{"image": "a.jpg", "gt_score": "' + "x" * 10**6 + '"}]', "is not a number"),
    ("json", '["' + "x" * 10**6 + '"]', "row 1: no {…} but 'xxx"),
], ids=range(24))
def test_what_is_no_such_list_is_named(tmp_path: Path, kind: str, text: str, problem: str) -> None:
    file = write(tmp_path / "a.json", text)
    with pytest.raises(DataError) as error:
        read_dataset(f"{kind}:{file}@1-5", "train")
    message = str(error.value)
    assert message.startswith(str(file)) and problem in message
    assert "\n" not in message and len(message) < len(str(file)) + 220
