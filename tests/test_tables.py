"""Label files as people's programs write them: read as they are, or refused by what is wrong."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_datasets import summary, write

from nanoaes.datasets import read_dataset
from nanoaes.images import DataError
from nanoaes.tables import number, short, table

ROWS = "image{d}score{d}std\r\nété à Nîmes.jpg{d}3{p}5{d}0{p}5\r\nb.jpg{d}1{d}\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be",
                                      "utf-32", "latin-1", "cp1252"])
@pytest.mark.parametrize("delimiter, point", [(",", "."), (";", ","), (";", "."), ("\t", ","),
                                              ("\t", ".")])
def test_encodings_delimiters_and_decimal_commas(
        tmp_path: Path, encoding: str, delimiter: str, point: str) -> None:
    file = write(tmp_path / "p.csv", ROWS.format(d=delimiter, p=point).encode(encoding))
    assert summary(read_dataset(f"csv:{file}@1-5", "train")) == [
        ("été à Nîmes.jpg", 0.625, 0.125), ("b.jpg", 0.0, None)]


def test_a_big_endian_mark_and_old_line_ends(tmp_path: Path) -> None:
    text = "\ufeff" + ROWS.format(d=";", p=",").replace("\r\n", "\r")
    file = write(tmp_path / "p.csv", text.encode("utf-16-be"))
    assert len(read_dataset(f"csv:{file}@1-5", "train")) == 2


def test_what_is_not_utf8_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for encoding, said in (("utf-8", False), ("cp1252", True)):
        file = write(tmp_path / "p.csv", "image,score\né.jpg,3\n".encode(encoding))
        read_dataset(f"csv:{file}@1-5", "train")
        assert (f"{file}: not UTF-8" in capsys.readouterr().out) == said


@given(st.lists(st.tuples(st.text("ab ,;\"é'\t", min_size=1).map(str.strip).filter(bool),
                          st.integers(0, 999)), min_size=1, max_size=4),
       st.sampled_from(",;\t"))
def test_whatever_csv_writes_is_read(tmp_path_factory, rows: list, delimiter: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["image", "score"], *rows])
    file = write(tmp_path_factory.getbasetemp() / "any.csv", text.getvalue())
    found = [tuple(cells) for _, cells in table(file, ["image", "score"])]
    assert found == [(name, str(score)) for name, score in rows]


@pytest.mark.parametrize("head", ["Image,SCORE,Std", " image , score,STD", '"image";"score";"std"',
                                  "std\tscore\tIMAGE", "note (a; b),image,score,std",
                                  "notes, a, b, c, d;image;score;std"])
def test_columns_are_found_by_name_in_any_case_and_order(tmp_path: Path, head: str) -> None:
    delimiter = "\t" if "\t" in head else ";" if ";" in head and "note (" not in head else ","
    names = [name.strip(' "').lower() for name in head.split(delimiter)]
    cell = {"image": "a.jpg", "score": "3", "std": "1"}
    row = delimiter.join(cell.get(name, "x") for name in names)
    file = write(tmp_path / "p.csv", f"\n{head}\n{row}\n{delimiter * (len(names) - 1)}\n\n")
    assert summary(read_dataset(f"csv:{file}@1-5", "train")) == [("a.jpg", 0.5, 0.25)]


@pytest.mark.parametrize("text, problem", [
    ("image,score,Score\na.jpg,3,3\n", "line 1: 2 columns are named 'score'; rename or delete one"),
    ("image,score\na.jpg,3,75\n", "line 2: 3 cells for 2 columns (a comma in a name or in a num"),
    ("image;score\na.jpg;3;75\n", "line 2: 3 cells for 2 columns"),
    ("image|score\na.jpg|3\n", "line 1: no column 'image' in 'image|score'; rename one"),
    # quotes that are opened and not closed where they should be
    ('image,score\na.jpg,"3\nb.jpg,4\nc.jpg,5"\n', "line 2: a quote opened here is closed on line"),
    ('image,score\n"a.jpg,3\nb.jpg,4\n"c.jpg,5\n', "line 2: a quote opened here is closed on line"),
    ('image,score\na.jpg,3\n"b.jpg,4\n', "line 3: a quote opened here is closed on li"),
    ('image,"score\na.jpg,3\n', "line 1: a quote opened here"),
])
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = write(tmp_path / "p.csv", text)
    with pytest.raises(DataError) as error:
        read_dataset(f"csv:{file}@1-5", "train")
    assert f"{file}, {problem}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("data, problem", [
    (b"PK\x03\x04\0\0\0\0" + b"\x07" * 90, "no text but a program's own file; save it as a CSV"),
    (b"\xff\xfei\0m\0\0\xd8\0", "no utf-16-le at byte 6"),
])
def test_what_is_no_text_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    file = write(tmp_path / "p.csv", data)
    with pytest.raises(DataError, match=problem):
        read_dataset(f"csv:{file}@1-5", "train")


@pytest.mark.parametrize("text", [
    "x" * 10**6 + ",score\na.jpg,3\n",
    ",".join(f"c{i}" for i in range(10**5)) + "\n1\n",
    "image,score\na.jpg," + "9" * 10**5 + "x\n",
    "image,score\n" + "a" * 10**5 + ",3\n" + "a" * 10**5 + ",3\n",
    "image,score\n" + "a.jpg,three\n" * 10**5,
    "image,score\n" + "a,b.jpg,3\n" * 10**5,
    'image,score\n"' + "a.jpg,3\n" * 10**4,
], ids=["name", "names", "cell", "image", "rows", "commas", "quote"])
def test_an_error_is_short_however_large_the_file(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "p.csv", text)
    with pytest.raises(DataError) as error:
        read_dataset(f"csv:{file}@1-5", "train")
    assert len(str(error.value)) < len(str(file)) + 220


def test_numbers() -> None:
    assert [number(x) for x in ("3", "-.5", "3,25", "1e-2", "+4.", ",5")] == [
        3, -0.5, 3.25, 0.01, 4, 0.5]
    for cell in ("", "nan", "inf", "0_5", "1,2,3", "1.2.3", "1.234,5", "٣", "3 4", "."):
        with pytest.raises(ValueError):
            number(cell)
    assert short("x" * 80) == "x" * 80 and len(short("x" * 81)) == 80
