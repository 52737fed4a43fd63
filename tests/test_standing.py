"""Percentiles, stars, places in bursts, dimensions, sidecars: against plain counting."""

import csv
import time
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.sparse.csgraph import connected_components

from nanoaes import bursts as bursts_module
from nanoaes.bursts import BITS, GAP, bursts, look_of, seconds, taken
from nanoaes.config import OptionError
from nanoaes.errors import UserError
from nanoaes.ledger import Line, Stamp
from nanoaes.prompt import DIMENSIONS
from nanoaes.says import by_dimension
from nanoaes.standing import COLUMNS, as_csv, borders, choose, percentiles, standings, table
from nanoaes.xmp import rate, sidecar, write_sidecar

EDGES = (0.2, 0.4, 0.6, 0.8)


def line(score: float | None, taken: float | None = None, look: str | None = "00") -> Line:
    return Line(0, Stamp(1, 1), "", score, None if score is not None else "bad", taken, look)


def test_percentiles_count_what_is_below_and_half_of_what_is_equal() -> None:
    scores = list(np.random.default_rng(0).integers(0, 8, 30) / 8)
    for score, got in zip(scores, percentiles(scores), strict=True):
        want = sum(s < score for s in scores) + 0.5 * sum(s == score for s in scores)
        assert got == pytest.approx(100 * want / 30, abs=1e-12)
    assert percentiles([0.3]) == [50.0] and percentiles([]) == []


@pytest.mark.parametrize("text", ["", ".2,.4,.6", ".2,.4,.6,.8,.9", ".2,.4,.4,.8", ".8,.6,.4,.2",
                                  "-.1,.4,.6,.8", ".2,.4,.6,1.1", ".2,.4,nan,.8", "a,b,c,d"])
def test_borders_are_four_ascending_scores(text: str) -> None:
    with pytest.raises(OptionError, match="give four ascending scores"):
        borders(text)


def test_stars_begin_at_their_border() -> None:
    assert borders(" 0, .25,0.5 ,1") == (0, 0.25, 0.5, 1)
    scores = [0.0, 0.19, 0.2, 0.59, 0.6, 0.8, 1.0]
    best = standings([Path(str(i)) for i in range(7)], list(map(line, scores)), EDGES, False)
    assert {s.score: s.stars for s in best} == dict(zip(scores, (1, 1, 2, 3, 4, 5, 5), strict=True))


def test_the_best_come_first_and_what_has_no_score_last() -> None:
    paths = [Path(name) for name in "dcba"]
    best = standings(paths, [line(0.5), line(None), line(0.9), line(0.5)], EDGES, False)
    assert [(str(s.path), s.score) for s in best] == [("b", 0.9), ("a", 0.5), ("d", 0.5),
                                                      ("c", None)]
    assert best[-1].percentile is best[-1].stars is best[0].burst is None
    assert [str(s.path) for s in choose(best, top=0, least=0.0, keep=0)] == ["b", "a", "d"]
    assert [str(s.path) for s in choose(best, top=1, least=0.0, keep=0)] == ["b"]
    assert [str(s.path) for s in choose(best, top=0, least=0.9, keep=0)] == ["b"]
    assert table(best[:3], 2).splitlines()[1:] == [
        "      score  percentile", "   1  0.90   83.3 %  *****  b", "   2  0.50   33.3 %  ***    a",
        "      and 1 more"] and table([], 3) == ""


def test_the_best_of_each_burst() -> None:
    scores = [0.3, 0.9, 0.6, None, 0.2]
    lines = [line(s, t) for s, t in zip(scores, (10, 11, 12, 13, 99), strict=True)]
    best = standings([Path(str(i)) for i in range(5)], lines, EDGES, True)
    assert {str(s.path): (s.burst, s.place) for s in best} == {
        "1": (1, 1), "2": (1, 2), "0": (1, 3), "3": (1, 4), "4": (2, 1)}
    assert [str(s.path) for s in choose(best, top=0, least=0, keep=1)] == ["1", "4"]
    assert [str(s.path) for s in choose(best, top=0, least=0, keep=2)] == ["1", "2", "4"]
    assert [s.moment for s in best] == ["burst 1: 1 of 4", "burst 1: 2 of 4", "burst 1: 3 of 4", "",
                                        "burst 1: 4 of 4"]
    assert "(burst 1: 2 of 4)" in table(best[:4], 9) and "burst 2" not in table(best[:4], 9)


def test_a_csv_keeps_every_character() -> None:
    critique, path = 'He said: "a, b;\nc"', Path("x, y.jpg")
    best = standings([path, Path("bad.jpg")], [line(0.25), line(None)], EDGES, False)
    rows = {path: {"critique": critique}, Path("bad.jpg"): {"error": "why"}}
    read = list(csv.DictReader("".join(as_csv(best, rows.get, lambda text: {"more": text[:2]})
                                       ).splitlines(True)))
    assert list(read[0]) == [*COLUMNS, "more"]
    assert read[0] == {"path": str(path), "score": "0.25", "percentile": "50.0", "stars": "2",
                       "burst": "", "place": "", "critique": critique, "error": "", "more": "He"}
    assert (read[1]["score"], read[1]["percentile"], read[1]["error"]) == ("", "", "why")


@pytest.mark.parametrize("seed", range(8))
def test_bursts_hang_together_by_time_and_look(seed: int) -> None:
    """Against the components of the graph of all pairs."""
    rng = np.random.default_rng(seed)
    n = 40
    times = [None if rng.uniform() < 0.1 else float(t) for t in rng.uniform(0, 60, n)]
    seen = rng.integers(0, 2**63, 4).tolist()
    looks = [f"{seen[rng.integers(4)] ^ sum(1 << int(b) for b in rng.integers(0, 63, 7)):016x}"
             for _ in range(n)]
    looks[3] = None
    linked = np.zeros((n, n))
    for i, j in combinations(range(n), 2):
        if None not in (times[i], times[j], looks[i], looks[j]):
            linked[i, j] = (abs(times[i] - times[j]) <= GAP
                            and bin(int(looks[i], 16) ^ int(looks[j], 16)).count("1") <= BITS)
    _, want = connected_components(linked, directed=False)
    got = bursts(times, looks)
    pairs = [(i, j) for i, j in combinations(range(n), 2)]
    assert [got[i] == got[j] for i, j in pairs] == [want[i] == want[j] for i, j in pairs]
    assert 5 < len(set(got)) < n
    known = [t for t, look in zip(times, looks, strict=True) if t is not None and look]
    assert got[times.index(min(known))] == 0


def test_a_picture_between_two_bursts_makes_them_one() -> None:
    ends = [0.0, 1.0], ["00000", "fffff"]
    assert bursts(*ends) == [0, 1]
    assert bursts([*ends[0], 2.0], [*ends[1], "003ff"]) == [0, 0, 0]
    assert bursts([*ends[0], 0.5], [*ends[1], "003ff"]) == [0, 0, 0]


def test_a_thousand_pictures_of_one_second_are_quickly_one_burst(monkeypatch) -> None:
    assert set(bursts([5.0] * 5000, ["00"] * 5000)) == {0}
    monkeypatch.setattr(bursts_module, "BACK", 1)  # who is compared with whom is bounded
    assert bursts([0.0, 0.1, 0.2], ["00", "ffffffff", "00"]) == [0, 1, 2]


def test_looks_tell_pictures_apart_and_not_their_exposure() -> None:
    rng = np.random.default_rng(0)
    pixels = [np.kron(rng.integers(20, 200, (8, 9, 1)), np.ones((20, 20, 3))).astype(np.uint8)
              for _ in range(2)]
    a, b = (int(look_of(Image.fromarray(p)), 16) for p in pixels)
    brighter = int(look_of(Image.fromarray(pixels[0] + 40).resize((90, 80))), 16)
    assert a == brighter and 20 <= (a ^ b).bit_count() <= 44
    cells = pixels[0][10::20, 10::20, 0].astype(int)
    assert f"{a:064b}" == "".join(str(int(r[x] < r[x + 1])) for r in cells for x in range(8))


def test_capture_times(tmp_path: Path) -> None:
    exif = Image.Exif()
    inner = exif.get_ifd(0x8769)
    inner[0x9003], inner[0x9291] = "2026:05:01 10:20:30", "25"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:40])
    assert taken(tmp_path / "a.jpg") == np.datetime64("2026-05-01T10:20:30.25").astype(
        "datetime64[ms]").astype(int) / 1000
    assert taken(tmp_path / "b.jpg") is taken(tmp_path / "c.jpg") is taken(tmp_path) is None
    assert seconds("1970:01:01 00:00:01\0", " 5 ") == 1.5
    assert seconds("1970:01:01 00:00:01", "") == 1
    for text in ("", "0000:00:00 00:00:00", "    :  :     :  :  ", "2026-05-01"):
        assert seconds(text, "1") is None


def test_a_critique_by_its_headings() -> None:
    text = ("A fine picture.\n**Light and Shadow:** hard. And low.\n2. mood & narrative : calm\n"
            "- Composition:\nbalanced. Color: warm: very.\n\nAll in all good.")
    assert by_dimension(text) == {
        "Light and Shadow": "hard. And low.", "Mood and Narrative": "calm",
        "Composition": "balanced.", "Color": "warm: very.", "Exposure": ""}
    assert list(by_dimension("")) == list(DIMENSIONS)
    for none in ("harsh exposure, plain color: a weak picture.", "The color: none"):
        assert set(by_dimension(none).values()) == {""}
    assert by_dimension("Color: a\nColor: b")["Color"] == "a"
    for odd in ("LIGHT  AND\tSHADOW: low", "Light\xa0& shadow: low", "Light And\nShadow: low"):
        assert by_dimension(odd)["Light and Shadow"] == "low"
    assert set(by_dimension("Composıtion: x").values()) == {""}
    begun = time.process_time()
    by_dimension("." * 100_000)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("dry", [True, False])
def test_two_pictures_that_share_a_sidecar_are_one_of_it(tmp_path: Path, dry: bool) -> None:
    both = [(tmp_path / "a.jpg", 4), (tmp_path / "a.png", 3)]
    assert rate(both, "lightroom", dry) == (1, [tmp_path / "a.xmp"])
    assert rate(both, "darktable", dry) == (2, [])


def test_no_half_sidecar_stays_behind(tmp_path: Path, monkeypatch) -> None:
    """Ctrl-C while it is written: it would be taken for a person's."""
    def interrupt(**_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("nanoaes.xmp.PACKET", SimpleNamespace(format=interrupt))
    with pytest.raises(KeyboardInterrupt):
        write_sidecar(tmp_path / "a.jpg", "darktable", 4, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("style, name", [("darktable", "a.b.JPG.xmp"), ("lightroom", "a.b.xmp")])
def test_a_sidecar_holds_the_rating_and_replaces_none(tmp_path: Path, style: str, name: str
                                                      ) -> None:
    picture = tmp_path / "a.b.JPG"
    picture.write_bytes(b"pixels")
    assert sidecar(picture, style) == tmp_path / name
    assert write_sidecar(picture, style, 4, True) and not (tmp_path / name).exists()
    assert write_sidecar(picture, style, 4, False)
    (node,) = ET.parse(tmp_path / name).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
                                             "Description")
    assert node.attrib["{http://ns.adobe.com/xap/1.0/}Rating"] == "4"
    before = (tmp_path / name).read_bytes()
    assert before.startswith(b'<?xpacket begin="\xef\xbb\xbf"')
    for dry in (True, False):
        assert rate([(picture, 1)], style, dry) == (0, [tmp_path / name])
    assert (tmp_path / name).read_bytes() == before and picture.read_bytes() == b"pixels"
    other = tmp_path / "c.png"
    sidecar(other, style).symlink_to("nowhere")
    assert not write_sidecar(other, style, 1, False) and not write_sidecar(other, style, 1, True)
    with pytest.raises(UserError, match="cannot be written"):
        write_sidecar(tmp_path / "gone/x.jpg", style, 1, False)
