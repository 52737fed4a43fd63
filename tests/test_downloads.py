"""Each public set as it lies on disk after its download: names, delimiters, encodings, quirks.

Scores and spreads are derived again from the votes, in fractions. Left out: what test_datasets.py
has of AVA, TAD66K, PARA and AADB.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_datasets import summary, write

from nanoaes.datasets import read_dataset
from nanoaes.downloads import moments
from nanoaes.images import DataError


@given(st.lists(st.integers(0, 10**6), min_size=10, max_size=10).filter(any))
def test_votes_give_mean_and_spread(votes: list[int]) -> None:
    total = sum(votes)
    mean = sum(Fraction(i * n, total) for i, n in enumerate(votes, 1))
    variance = sum(Fraction(n, total) * (i - mean) ** 2 for i, n in enumerate(votes, 1))
    found = moments([str(n) for n in votes])
    assert found == pytest.approx((float(mean), math.sqrt(variance)), rel=1e-12, abs=1e-12)


def ava(root: Path) -> str:
    write(root / "AVA.txt", "1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396\n"
          "2 953958 10 7 15 26 26 21 10 8 1 2 15 21 1396\n3 954184 0 0 0 0 0 0 0 0 0 9 0 0 8\n"
          "4 954113 7 0 0 0 0 0 0 0 0 0 1 22 1396\n5 953980 7 0 0 0 0 0 0 0 0 0 1 22 1396\n"
          "6 954175 0 0 0 0 0 0 0 0 0 3 1 22 1396\n")
    write(root / "aesthetics_image_lists/generic_test.jpgl", "953980\n954175\n404\n")
    write(root / "challenges.txt", "8 Rule of Thirds II\n1396 Diptych\n")
    return f"ava:{root}"


def tad66k(root: Path, labels: str = "labels") -> str:
    write(root / labels / "merge/train.csv",
          "image,score\r\n48421006@N08_1.jpg,1\r\nb.jpg,10.0\r\n")
    write(root / labels / "merge/test.csv", "image,score\r\nc.jpg,1.0\r\nd.jpg,10\r\n")
    write(root / labels / "unmerge/train/animal.csv", "image,score\r\nb.jpg,9.1\r\nc.jpg,1.2\r\n")
    write(root / labels / "unmerge/test/streetview.csv", "image,score\r\nc.jpg,1.0\r\n")
    return f"tad66k:{root}"


def tad66k_zip(root: Path) -> str:
    return tad66k(root, "dataset")


def para(root: Path) -> str:
    more = [f"attribute{i}" for i in range(90)]  # 95 columns
    head = ["imageName", "sessionId", "semantic", *more, "aestheticScore_mean",
            "aestheticScore_std"]
    for split, names in (("Train", "ab"), ("Test", "cd")):
        rows = [[f"iaa_{name}.jpg", "session7", "night scene", *["3"] * 90, score, "0.5"]
                for name, score in zip(names, ("1.0", "5"), strict=True)]
        write(root / f"annotation/PARA-Giaa{split}.csv",
              "".join(",".join(row) + "\r\n" for row in [head, *rows]))
    return f"para:{root}"


def aadb(root: Path, folder: str = "AADB_newtest_originalSize") -> str:
    lists = root / "imgListFiles_label"
    write(lists / "imgListTrainRegression_score.txt", "farm1_1.jpg 0.0\nfarm1_2.jpg 1.0\n")
    write(lists / "imgListTestNewRegression_score.txt", "farm1_3.jpg 0.00\nfarm1_4.jpg 1.00\n")
    write(root / folder / "0.500_farm1_3.jpg", "")
    return f"aadb:{root}"


def aadb_short(root: Path) -> str:
    return aadb(root, "AADB_newtest")


def flickr_aes(root: Path, folder: str = "40K") -> str:
    """Names begin with a blank, columns of the other list too. 22 and 32 are of the test split."""
    names = [f"farm{i}_b.jpg" for i in range(200)]
    scores = dict.fromkeys(names, "0.6") | {"farm0_b.jpg": "0.2", "farm2_b.jpg": "1.0",
                                            "farm22_b.jpg": "0.2", "farm32_b.jpg": "1"}
    write(root / "FLICKR-AES_image_score.txt", "".join(f" {n} {s}\n" for n, s in scores.items()))
    write(root / "FLICKR-AES_image_labeled_by_each_worker.csv", "worker, imagePair, score\n"
          + "".join(f"A1{i}, farm1_b.jpg, {v}\n" for i, v in enumerate((1, 5, 3, 3, 3)))
          + "A1, farm2_b.jpg, 5\nA1, farm4_b.jpg, 5\nA2, farm4_b.jpg, 1\n")
    (root / folder).mkdir(parents=True)
    return f"flickr_aes:{root}"


def flickr_aes_zip(root: Path) -> str:
    return flickr_aes(root, "FLICKR-AES-001/40K")


def baid(root: Path, folder: str = "dataset/") -> str:
    for split, names in (("train", "ab"), ("val", "ef"), ("test", "cd")):
        write(root / f"{folder}{split}_set.csv", f"image,score\n{names[0]}.jpg,0.0\n"
                                                 f"{names[1]}.jpg,10\n")
    return f"baid:{root}"


def baid_plain(root: Path) -> str:
    return baid(root, "")


SETS = [ava, tad66k, tad66k_zip, para, aadb, aadb_short, flickr_aes, flickr_aes_zip, baid,
        baid_plain]


@pytest.mark.parametrize("make", SETS)
def test_splits_are_disjoint_and_the_scales_ends_are_0_and_1(
        tmp_path: Path, make: Callable[[Path], str]) -> None:
    spec = make(tmp_path)
    train, test = read_dataset(spec, "train"), read_dataset(spec, "test")
    assert train and test and not {e.image for e in train} & {e.image for e in test}
    assert len({e.dataset for e in train + test}) == 1
    for part in (train, test):
        assert min(e.score for e in part) == 0 and max(e.score for e in part) == 1
        assert all(e.std is None or 0 <= e.std <= 0.5 for e in part)


def test_ava_keeps_the_challenge(tmp_path: Path) -> None:
    spec = ava(tmp_path)
    assert [e.theme for e in read_dataset(spec, "train")] == ["Diptych"] * 2 + [
        "Rule of Thirds II", "Diptych"]
    (tmp_path / "challenges.txt").unlink()
    assert [e.theme for e in read_dataset(spec, "test")] == ["1396", "1396"]


@pytest.mark.parametrize("make", [tad66k, tad66k_zip])
def test_tad66k_joins_the_theme_by_name(tmp_path: Path, make: Callable[[Path], str]) -> None:
    spec = make(tmp_path)
    assert [(e.image.name, e.theme, e.score) for e in read_dataset(spec, "train")] == [
        ("48421006@N08_1.jpg", "", 0.0), ("b.jpg", "animal", 1.0)]
    # of its own split first: the unmerged train lists hold pictures of the merged test
    assert [(e.image.name, e.theme) for e in read_dataset(spec, "test")] == [
        ("c.jpg", "streetview"), ("d.jpg", "")]
    assert read_dataset(spec, "test")[0].image == tmp_path / "TAD66K" / "c.jpg"


def test_para_keeps_spread_and_semantic(tmp_path: Path) -> None:
    first, _ = read_dataset(para(tmp_path), "train")
    assert (first.theme, first.std) == ("night scene", 0.125)
    assert first.image == tmp_path / "imgs" / "session7" / "iaa_a.jpg"


def test_aadb_has_its_new_test_in_the_short_folder_too(tmp_path: Path) -> None:
    images = [e.image for e in read_dataset(aadb_short(tmp_path), "test")]
    assert images == [tmp_path / "AADB_newtest" / "0.500_farm1_3.jpg",
                      tmp_path / "AADB_newtest" / "farm1_4.jpg"]


@pytest.mark.parametrize("make, folder", [(flickr_aes, "40K"),
                                          (flickr_aes_zip, "FLICKR-AES-001/40K")])
def test_flickr_aes_has_a_scale_of_its_own_and_its_workers_spread(
        tmp_path: Path, make: Callable[[Path], str], folder: str) -> None:
    spec = make(tmp_path)
    both = {e.image.name: e for e in read_dataset(spec, "train") + read_dataset(spec, "test")}
    one, two, plain, most = (both[f"farm{i}_b.jpg"] for i in (1, 2, 3, 4))
    assert (one.dataset, one.scale, one.image.parent) == ("FLICKR-AES", (0.2, 1),
                                                          tmp_path / folder)
    assert one.score == pytest.approx(0.5)               # (.6 - .2) / .8
    assert one.std == pytest.approx(1.6**0.5 / 4)        # votes 1 5 3 3 3, 1 to 5 are 0 to 1
    assert (two.score, two.std, plain.std) == (1.0, None, None)  # one vote has no spread
    assert most.std == pytest.approx(0.5)


def test_flickr_aes_is_split_by_name_alone(tmp_path: Path) -> None:
    spec = flickr_aes(tmp_path)
    file = tmp_path / "FLICKR-AES_image_score.txt"
    before = [{e.image.name for e in read_dataset(spec, s)} for s in ("train", "test")]
    lines = file.read_text().splitlines()
    write(file, "\n".join(lines[:20:-1]))
    after = [{e.image.name for e in read_dataset(spec, s)} for s in ("train", "test")]
    kept = {line.split()[0] for line in lines[21:]}
    assert after == [part & kept for part in before]
    write(file, "".join(f"{i}.jpg 0.5\n" for i in range(4000)))
    assert len(read_dataset(spec, "test")) == pytest.approx(400, abs=60)  # 3 standard deviations


def test_baid_is_found_in_both_places(tmp_path: Path) -> None:
    for make, root in ((baid, tmp_path / "a"), (baid_plain, tmp_path / "b")):
        spec = make(root)
        assert summary(read_dataset(spec, "test")) == [("c.jpg", 0.0, None), ("d.jpg", 1.0, None)]
        assert read_dataset(spec, "test")[0].image == root / "images" / "c.jpg"


def test_a_bad_vote_of_a_worker_is_named(tmp_path: Path) -> None:
    spec = flickr_aes(tmp_path)
    file = tmp_path / "FLICKR-AES_image_labeled_by_each_worker.csv"
    write(file, "worker, imagePair, score\nA1, farm1_b.jpg, good\n")
    with pytest.raises(DataError, match=r"each_worker.csv, line 2: 'good' is not a number"):
        read_dataset(spec, "train")
