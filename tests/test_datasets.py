"""The readers against small files of each download's shape.

Expected values are worked out by hand beside each file. Left out: the real downloads (their
licences forbid shipping them).
"""

import gc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanoaes.datasets import Example, check_images, normalise, read_dataset
from nanoaes.images import DataError


def write(file: Path, text: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def summary(examples: list[Example]) -> list[tuple[str, float, float | None]]:
    return [(example.image.name, example.score, example.std) for example in examples]


AVA = (
    "1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396\n"      # 124 votes
    "2 953958 0 0 0 0 0 0 0 0 0 4 0 0 1396\n"           # all of them 10
    "3 954184 2 0 0 0 0 0 0 0 0 2 0 0 1396\n"           # half 1, half 10
)


@pytest.fixture
def ava(tmp_path: Path) -> Path:
    write(tmp_path / "AVA.txt", AVA)
    write(tmp_path / "aesthetics_image_lists/generic_test.jpgl", "953958\n404\n")
    return tmp_path


def test_ava_splits_and_scores_by_votes(ava: Path) -> None:
    first, third = read_dataset(f"ava:{ava}", "train")
    # sum i n_i = 2+15+68+190+216+105+48+45+10 = 699, sum n_i = 124
    mean = 699 / 124
    # sum i^2 n_i = 4+45+272+950+1296+735+384+405+100 = 4191
    assert first.score == pytest.approx((mean - 1) / 9)
    assert first.std == pytest.approx((4191 / 124 - mean**2) ** 0.5 / 9)
    assert first.image == ava / "images" / "953619.jpg"
    assert (first.dataset, first.scale) == ("AVA", (1, 10))
    assert (third.score, third.std) == pytest.approx((0.5, 0.5))
    assert summary(read_dataset(f"ava:{ava}", "test")) == [("953958.jpg", 1.0, 0.0)]


@pytest.mark.parametrize("row, problem", [
    ("4 99 0 0 0 0 0 0 0 0 0 0 1 22 1396", "no votes"),
    ("4 99 0 0 0 0 0 0 0 0 0 -1 1 22 1396", "'-1' is no number of votes"),
    ("4 99 0 0 0 0 0 0 0 0 0 1.5 1 22 1396", "'1.5' is no number of votes"),
    ("4 99 0 0 x 0 0 0 0 0 0 1 1 22 1396", "'x' is not a number"),
    ("4 99 0 0 1 22 1396", "7 cells for 15 columns"),
    ("4 953619 0 0 0 0 0 0 0 0 0 1 1 22 1396", "'953619.jpg' is on an earlier row"),
])
def test_ava_names_the_bad_row(ava: Path, row: str, problem: str) -> None:
    write(ava / "AVA.txt", AVA + "\n" + row + "\n")
    with pytest.raises(DataError) as error:
        read_dataset(f"ava:{ava}", "train")
    assert f"{ava / 'AVA.txt'}, line 5: " in str(error.value)
    assert problem in str(error.value) and "delete the row" in str(error.value)
    assert "\n" not in str(error.value)


def test_tad66k_reads_crlf_and_at_signs(tmp_path: Path) -> None:
    write(tmp_path / "labels/merge/train.csv", "image,score\r\n1@N00_2.jpg,5.5\r\nb.jpg,1\r\n")
    write(tmp_path / "labels/merge/test.csv", "image,score\r\nc.jpg,10.0\r\n")
    train = read_dataset(f"tad66k:{tmp_path}", "train")
    assert summary(train) == [("1@N00_2.jpg", 0.5, None), ("b.jpg", 0.0, None)]
    assert train[0].image == tmp_path / "TAD66K" / "1@N00_2.jpg"
    test = read_dataset(f"tad66k:{tmp_path}", "test")
    assert summary(test) == [("c.jpg", 1.0, None)]
    assert (test[0].dataset, test[0].scale) == ("TAD66K", (1, 10))


def test_para_reads_by_column_name(tmp_path: Path) -> None:
    write(tmp_path / "annotation/PARA-GiaaTrain.csv",
          "sessionId,imageName,semantic,aestheticScore_std,aestheticScore_mean\n"
          "session1,iaa_1.jpg,scene,0.8,3.4\n")
    write(tmp_path / "annotation/PARA-GiaaTest.csv",
          "sessionId,imageName,semantic,aestheticScore_mean,aestheticScore_std\n"
          "session2,iaa_1.jpg,scene,5.0,0\n")
    train = read_dataset(f"para:{tmp_path}", "train")
    assert train[0].image == tmp_path / "imgs" / "session1" / "iaa_1.jpg"
    assert (train[0].score, train[0].std) == pytest.approx((0.6, 0.2))  # (3.4-1)/4 and 0.8/4
    assert (train[0].dataset, train[0].scale) == ("PARA", (1, 5))
    assert summary(read_dataset(f"para:{tmp_path}", "test")) == [("iaa_1.jpg", 1.0, 0.0)]


def test_aadb_strips_the_score_before_a_new_test_name(tmp_path: Path) -> None:
    lists = tmp_path / "imgListFiles_label"
    write(lists / "imgListTrainRegression_score.txt", "farm1_1.jpg 0.55\nfarm1_2.jpg\t0.0 \n")
    write(lists / "imgListTestNewRegression_score.txt",
          "farm1_3.jpg 1.0\n0.250_farm1_4.jpg 0.25\nfarm1_5.jpg 0.4\n")
    new = tmp_path / "AADB_newtest_originalSize"
    for name in ("0.500_farm1_3.jpg", "farm1_4.jpg"):
        write(new / name, "")
    train = read_dataset(f"aadb:{tmp_path}", "train")
    assert summary(train) == [("farm1_1.jpg", 0.55, None), ("farm1_2.jpg", 0.0, None)]
    assert train[0].image.parent == tmp_path / "datasetImages_originalSize"
    test = read_dataset(f"aadb:{tmp_path}", "test")
    assert [e.image for e in test] == [new / "0.500_farm1_3.jpg", new / "farm1_4.jpg",
                                       new / "farm1_5.jpg"]
    assert [e.score for e in test] == [1.0, 0.25, 0.4]


def test_csv_takes_its_scale_from_the_spec(tmp_path: Path) -> None:
    file = write(tmp_path / "my@2x.csv", "\ufeffscore, image ,std,note\n"
                 '3,"a, b.jpg",0.5,x\n\n2,/abs/c.jpg,,y\n')
    examples = read_dataset(f"csv:{file}@1-5", "train")
    assert summary(examples) == [("a, b.jpg", 0.5, 0.125), ("c.jpg", 0.25, None)]
    assert [e.image for e in examples] == [tmp_path / "a, b.jpg", Path("/abs/c.jpg")]
    assert (examples[0].dataset, examples[0].scale) == ("my@2x", (1.0, 5.0))
    assert read_dataset(f"csv:{file}@1-5", "test") == examples
    assert read_dataset(f"csv:{file}@-1-4.0", "test")[0].score == pytest.approx(0.8)


def test_reading_leaves_the_collector_as_it_was(tmp_path: Path) -> None:
    file = write(tmp_path / "p.csv", "image,score\na.jpg,3\n")
    try:
        for on in (False, True):
            (gc.enable if on else gc.disable)()
            read_dataset(f"csv:{file}@1-5", "train")
            with pytest.raises(DataError):
                read_dataset(f"csv:{file}@1-2", "train")
            assert gc.isenabled() == on
    finally:
        gc.enable()


def test_csv_can_have_a_file_per_split_and_other_columns(tmp_path: Path) -> None:
    write(tmp_path / "p_train.csv", "path,mos\na.jpg,0\n")
    write(tmp_path / "p_test.csv", "path,mos\nb.jpg,100\n")
    spec, columns = f"csv:{tmp_path}/p_{{split}}.csv@0-100", ("path", "mos", "")
    assert summary(read_dataset(spec, "train", columns)) == [("a.jpg", 0.0, None)]
    assert summary(read_dataset(spec, "test", columns)) == [("b.jpg", 1.0, None)]


@pytest.mark.parametrize("row, problem", [
    ("b.jpg,", "there is no score"),
    ("b.jpg,good", "'good' is not a number"),
    ("b.jpg,nan", "'nan' is not a number"),
    ("b.jpg,inf", "'inf' is not a number"),
    ("b.jpg,0_3", "'0_3' is not a number"),
    ("b.jpg,1e999", "inf is outside the scale 1 to 5"),
    ("b.jpg,5.01", "5.01 is outside the scale 1 to 5"),
    ("b.jpg,0.99", "0.99 is outside the scale 1 to 5"),
    (",3", "there is no image name"),
    ("b.jpg", "1 cells for 2 columns"),
    ("b,c.jpg,3", "3 cells for 2 columns"),
    ("a.jpg,4", "'a.jpg' is on an earlier row"),
])
def test_csv_names_the_bad_row(tmp_path: Path, row: str, problem: str) -> None:
    file = write(tmp_path / "p.csv", f"image,score\na.jpg,3\n{row}\n")
    with pytest.raises(DataError) as error:
        read_dataset(f"csv:{file}@1-5", "train")
    message = str(error.value)
    assert message.startswith(f"{file}, line 3: {problem}") and "delete the row" in message
    assert "\n" not in message


@pytest.mark.parametrize("std, problem", [
    ("-0.1", "a spread of -0.1 cannot be on the scale 1 to 5"),
    ("2.01", "a spread of 2.01 cannot be on the scale 1 to 5, of which half, 2, is the most"),
    ("nan", "'nan' is not a number"), ("x", "'x' is not a number")])
def test_csv_refuses_a_bad_std(tmp_path: Path, std: str, problem: str) -> None:
    file = write(tmp_path / "p.csv", f"image,score,std\na.jpg,3,{std}\n")
    with pytest.raises(DataError, match=f"line 2: {problem}"):
        read_dataset(f"csv:{file}@1-5", "train")


def test_a_spread_on_another_scale_than_the_score_is_refused(tmp_path: Path) -> None:
    """KonIQ-10k's public list: MOS 0 to 100 beside the spread of ratings 1 to 5."""
    file = write(tmp_path / "koniq.csv", "image_name,MOS,SD\n"
                 "826373.jpg,59.4,0.47\n113.jpg,80.2,0.66\n84.jpg,3.91,0.53\n")
    with pytest.raises(DataError, match="koniq.csv: most of the spreads are below 2, .*another "
                                        "scale.*--columns image,score"):
        read_dataset(f"csv:{file}@0-100", "train", ("image_name", "mos", "sd"))
    assert len(read_dataset(f"csv:{file}@0-100", "train", ("image_name", "mos"))) == 3
    # the most that can be, none at all, and a few that agree are no other scale
    file = write(tmp_path / "p.csv", "image,score,std\na,3,2\nb,3,0\nc,3,0\nd,3,0.01\n")
    assert [e.std for e in read_dataset(f"csv:{file}@1-5", "train")] == [0.5, 0, 0, 0.0025]


@pytest.mark.parametrize("text, problem", [
    ("image,mos\na.jpg,3\n", "line 1: no column 'score'"),
    ("path,score\na.jpg,3\n", "line 1: no column 'image'"),
    ("image,score\n", "no rows for train"),
    ("", "no rows for train"),
    ('image,score\na.jpg,"' + "x\n" * 100_000, "repair its quotes"),
])
def test_csv_without_usable_rows(tmp_path: Path, text: str, problem: str) -> None:
    file = write(tmp_path / "p.csv", text)
    with pytest.raises(DataError, match=problem):
        read_dataset(f"csv:{file}@1-5", "train")


@pytest.mark.parametrize("spec, split, problem", [
    ("tad66:data", "train", "did you mean tad66k:data"),
    ("AVA:data", "train", "did you mean ava:data"),
    ("cvs:p.csv@1-5", "train", "did you mean csv:p.csv"),
    ("photos.csv", "train", "is not format:path"),
    ("ava:", "train", "is not format:path"),
    ("", "train", "is not format:path"),
    ("csv:p.csv", "train", "csv:photos.csv@1-5"),
    ("csv:p.csv@5-1", "train", "lowest and highest"),
    ("csv:p.csv@3-3", "train", "lowest and highest"),
    ("ava:data@1-10", "train", "the other formats have their own"),
    ("ava:data", "validation", "use train or test"),
    ("ava:nowhere", "test", "generic_test.jpgl: no such file"),
    ("tad66k:nowhere", "test", "labels/merge/test.csv: no such file"),
    ("para:nowhere", "train", "annotation/PARA-GiaaTrain.csv: no such file"),
    ("aadb:nowhere", "test", "imgListTestNewRegression_score.txt: no such file"),
    ("baid:nowhere", "test", "nowhere/dataset/test_set.csv: no such file"),
    ("flickr_aes:nowhere", "test", "nowhere/FLICKR-AES_image_score.txt: no such file"),
    ("csv:nowhere.csv@0-1", "test", "nowhere.csv: no such file"),
])
def test_what_cannot_be_read_is_named(spec: str, split: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_dataset(spec, split)


def test_normalise() -> None:
    assert [normalise(s, (1, 10)) for s in (1, 5.5, 10)] == [0.0, 0.5, 1.0]
    assert normalise(0.6, (0.2, 1.0)) == pytest.approx(0.5)
    for score in (0.99, 10.01, float("nan")):
        with pytest.raises(ValueError):
            normalise(score, (1, 10))


@pytest.fixture
def mixed(tmp_path: Path) -> list[Example]:
    """Seven examples; 1 is missing, 3 truncated, 5 no image, 6 a folder."""
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    for i in range(5):
        Image.fromarray(noise).save(tmp_path / f"{i}.jpg")
    (tmp_path / "1.jpg").unlink()
    whole = (tmp_path / "3.jpg").read_bytes()
    write(tmp_path / "3.jpg", whole[: len(whole) // 2])
    write(tmp_path / "5.jpg", "no image")
    (tmp_path / "6.jpg").mkdir()
    return [Example(tmp_path / f"{i}.jpg", 0.5, None, "AVA", (1, 10)) for i in range(7)]


def test_bad_images_are_refused_by_name(mixed: list[Example]) -> None:
    with pytest.raises(DataError) as error:
        check_images(mixed)
    message = str(error.value)
    assert message.startswith(str(mixed[1].image)) and "of 2 checked, of 7" in message
    assert "--bad_images skip" in message and "\n" not in message
    with pytest.raises(DataError, match="3.jpg.*all 2 images"):
        check_images([mixed[3], mixed[5]], bad_images="skip")


def test_bad_images_are_skipped_and_counted(mixed: list[Example], capsys: pytest.CaptureFixture
                                            ) -> None:
    assert check_images(mixed, bad_images="skip") == [mixed[0], mixed[2], mixed[4]]
    out, err = capsys.readouterr()
    assert "3 kept / 7 expected" in out and out.count("\n  skipped ") == 4 and "1.jpg" in out
    assert err == ""  # the progress bar waits a second
    assert check_images(mixed[:1]) == mixed[:1]
    assert "1 kept / 1 expected" in capsys.readouterr().out
