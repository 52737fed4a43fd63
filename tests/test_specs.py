"""What the command line says of sets: names of folders are their owners' business."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_datasets import write

from nanoaes.datasets import read_dataset
from nanoaes.images import DataError
from nanoaes.specs import FORMATS, named_columns, parse_spec, split_specs


@pytest.mark.parametrize("text, specs", [
    ("", []), (" , ", []), ("ava:A", ["ava:A"]), ("ava:A,", ["ava:A"]),
    ("ava:A,para:B", ["ava:A", "para:B"]), ("ava:A , para:B", ["ava:A", "para:B"]),
    ("ava:A,,para:B", ["ava:A", "para:B"]), ("ava:A, B,para:C", ["ava:A, B", "para:C"]),
    ("csv:Rome, 2019.csv@1-5,csv:b.csv@0,2-1", ["csv:Rome, 2019.csv@1-5", "csv:b.csv@0,2-1"]),
    ("ava:my ava:2,jsonl:x", ["ava:my ava:2", "jsonl:x"]),
    ("ava:A,AVA:B", ["ava:A", "AVA:B"]), ("ava:A,x:B", ["ava:A,x:B"]),
])
def test_a_comma_parts_sets_only_before_a_format(text: str, specs: list[str]) -> None:
    assert split_specs(text) == specs


@given(st.lists(st.tuples(st.sampled_from(FORMATS), st.text("ab ,:@-1.*", min_size=1)
                          .map(str.strip).filter(lambda t: t and t[-1] != "," and t[0] != ",")),
                max_size=4))
def test_what_is_joined_is_parted(parts: list) -> None:
    specs = [f"{name}:{path}" for name, path in parts]
    assert split_specs(",".join(specs)) == specs


@pytest.mark.parametrize("text, scale", [
    ("1-5", (1, 5)), ("0-100", (0, 100)), (".2-1", (0.2, 1)), ("0,2-1", (0.2, 1)),
    ("-1-1", (-1, 1)), ("-1--.5", (-1, -0.5)), ("1–10", (1, 10)), ("-2–2", (-2, 2)),
    ("1.-5.", (1, 5)), ("1e-1-1e1", (0.1, 10)), (" 1 - 5 ", (1, 5)), ("+0-1", (0, 1)),
])
def test_a_scale_is_any_two_numbers(tmp_path: Path, text: str, scale: tuple) -> None:
    lo, hi = scale
    file = write(tmp_path / "p.csv", f"image;score\na.jpg;{lo}\nb.jpg;{hi}\n")
    first, last = read_dataset(f"csv:{file}@{text}", "train")
    assert (first.scale, first.score, last.score) == (scale, 0.0, 1.0)


@pytest.mark.parametrize("spec, path, ratio", [
    ("ava:data/AVA", "data/AVA", None), ("ava:data/AVA*2", "data/AVA", Fraction(2)),
    ("flickr_aes: F * 0.5 ", "F", Fraction(1, 2)), ("ava:a*b", "a*b", None),
    ("csv: p.csv @ 1 - 5 ", "p.csv", None),
    ("csv:p.csv@1-5*3", "p.csv", Fraction(3)), ("csv:a@b:c, d.csv@1-5", "a@b:c, d.csv", None),
    ("csv:{split}/p_{split}.csv@0-1", "train/p_train.csv", None),
])
def test_paths_and_ratios(spec: str, path: str, ratio: Fraction | None) -> None:
    found = parse_spec(spec, "train")
    assert (str(found.path), found.ratio) == (path, ratio)


@pytest.mark.parametrize("name", ["with blank", "a,b", "a, b", "mail@home", "x@2019-2024", "12:30",
                                  "a,x:y", "ends,", "{split}"])
def test_folders_may_be_called_anything(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    write(root / "labels/merge/train.csv", "image,score\na.jpg,5.5\n")
    write(root / "p.csv", "image,score\na.jpg,5.5\n")
    if name != "{split}":  # which stands for the split in a list's path
        assert read_dataset(f"csv:{root}/p.csv@1-10", "train")[0].image == root / "a.jpg"
    (both,) = split_specs(f"tad66k:{root},")
    assert read_dataset(f"tad66k:{root}", "train")[0].image == root / "TAD66K" / "a.jpg"
    assert both == f"tad66k:{root}".rstrip(",")


def test_a_tilde_is_ones_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_spec("ava:~/AVA", "test").path == tmp_path / "AVA"
    assert parse_spec("csv:~/p.csv@1-5", "test").path == tmp_path / "p.csv"


@pytest.mark.parametrize("spec, problem", [
    ("ava:A,tad66:B", "tad66 is no format; did you mean tad66k: after the comma"),
    ("csv:a.csv@1-5,cvs:b.csv@1-5", "cvs is no format; did you mean csv:"),
    ("ava:A*0", "a ratio is more than 0"),
    ("json:p.json", "csv:photos.csv@1-5"),
    ("csv:p.csv@1_5", "lowest and highest"), ("csv:p.csv@5", "lowest and highest"),
    ("csv:p.csv@0-1e999", "lowest and highest"), ("csv:p.csv@1-10-2", "lowest and highest"),
    ("baid:nowhere@0-10", "the other formats have their own"),
    ("x" * 10**5, "is not format:path"), ("ava: ", "is not format:path"),
])
def test_what_is_no_spec_is_named(spec: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as error:
        parse_spec(spec, "train")
    assert len(str(error.value)) < 300


def test_columns_by_option() -> None:
    assert named_columns("") == ()
    assert named_columns("path, MOS") == ("path", "MOS")
    assert named_columns("path,MOS,SD,class") == ("path", "MOS", "SD", "class")
    assert named_columns("path,mos,,class") == ("path", "mos", "", "class")
    for text in ("path", "path,", ",mos", "a,b,c,d,e", "a,A", "a,b,a"):
        with pytest.raises(DataError, match="--columns"):
            named_columns(text)
