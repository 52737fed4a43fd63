"""build_cot.py with a model of this machine as teacher and judge, from pictures to critiques."""

import csv
import json
from pathlib import Path

import pytest
import torch
from kin import tiny_kin
from PIL import Image
from tiny import pictures
from torch import nn

import build_cot
from nanoaes import teachers
from nanoaes.checkpoint import read_rows
from nanoaes.config import CoTConfig

SCORES = (0.2, 0.5, 0.9)  # bad, fair, good
PRAISE = "The light is soft. A calm picture that works."
BLAME = "The light is flat. A dull picture that fails."
SHORT = {"TEACHER": "Write. It is {level}.", "READS": "Level? {critique}",
         "ABSENT": "Absent? {critique}", "LEVEL_WORDS": ("bad", "fair", "good")}


def small() -> list[Image.Image]:
    """Twelve pictures of three sizes."""
    sizes = (56, 56), (84, 56), (56, 84)
    return [image.resize(sizes[i % 3]) for i, image in enumerate(pictures(12))]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """The list of these pictures, of three levels."""
    folder = tmp_path_factory.mktemp("photos")
    with (folder / "photos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "score"])
        for i, image in enumerate(small()):
            image.save(folder / f"{i}.png")
            rows.writerow([f"{i}.png", SCORES[i % 3]])
    return folder / "photos.csv"


def built(photos: Path, run: Path, teacher: Path, **options) -> list[dict]:
    """The rows that build_cot.py leaves; three pictures are held out."""
    cfg = CoTConfig(run=str(run), train=f"csv:{photos}@0-1", heldout=3, teacher=str(teacher),
                    device="cpu", dtype="float32", concurrency=4, **options)
    return read_rows(build_cot.main(cfg))


def taught(folder: Path) -> Path:
    """A tiny model that has learned by heart what to write, in short words, whatever it sees.

    Of a fair picture it writes as of a good one; and it judges by the words.
    """
    vlm, album, sure = tiny_kin("qwen2_5", scale=1.0), small(), 0
    seen = [("Write. It is bad.", BLAME), ("Write. It is fair.", PRAISE),
            ("Write. It is good.", PRAISE), (f"Absent? {PRAISE}", '{"absent": []}'),
            (f"Absent? {BLAME}", '{"absent": ["A dull picture"]}')]
    words = [(f"Level? {PRAISE}", '{"level": "good"}'), (f"Level? {BLAME}", '{"level": "bad"}')]
    texts, replies = zip(*seen, *words, strict=True)
    ids = [torch.tensor([*vlm.tokenizer(reply)["input_ids"], vlm.stop_ids[0]])
           for reply in replies]
    mask = nn.utils.rnn.pad_sequence([row >= 0 for row in ids], True)[:, None]
    ids = nn.utils.rnn.pad_sequence(ids, True)[:, None]
    optimizer = torch.optim.AdamW(vlm.parameters(), lr=6e-3)
    for step in range(400):
        shown = [album[(5 * step + 7 * i) % 12] for i in range(len(seen))]
        logp, _ = vlm(vlm.prompts([*shown, None, None], texts), ids, mask)
        optimizer.zero_grad()
        (-logp.mean()).backward()
        nn.utils.clip_grad_norm_(vlm.parameters(), 1.0)
        optimizer.step()
        sure = sure + 1 if logp.min() > -0.1 else 0
        if sure == 12:  # of every token, of every picture; at temperature 0.7 still more
            break
    assert sure == 12
    vlm.save(folder)
    return folder


def test_a_taught_model_writes_and_judges(photos: Path, tmp_path: Path, monkeypatch) -> None:
    for name, words in SHORT.items():
        monkeypatch.setattr(teachers, name, words)
    model = taught(tmp_path / "model")
    rows = built(photos, tmp_path / "run", model, filters="none", max_new_tokens=40)
    assert len(rows) == 9 and {row["score"] for row in rows} == set(SCORES)
    for row in rows:
        assert row["critique"] == (BLAME if row["score"] == 0.2 else PRAISE)
        assert row["kept"] == (row["score"] == 0.9) and not row["unjudged"]
        assert row["mismatch"] == (row["score"] == 0.5)
        assert row["why"].get("invented") == ("A dull picture" if row["score"] == 0.2 else None)
        assert row["teacher"].startswith("model@") and row["judge"].startswith("model@")
        assert row["tokens"]["requests"] == 3
    again = built(photos, tmp_path / "run", model, filters="none", max_new_tokens=40)
    assert again == rows, "what is there is asked again"


def test_what_an_untaught_model_says_is_rejected_and_counted(
        photos: Path, tmp_path: Path) -> None:
    """With the questions as they are, 1,150 tokens for this tokenizer; it stops by chance."""
    vlm = tiny_kin("qwen2_5", seed=3, scale=8)
    vlm.stop_ids = [vlm.stop_ids[0], *range(60, 400, 6)]
    vlm.save(tmp_path / "model")
    rows = built(photos, tmp_path / "run", tmp_path / "model", max_new_tokens=12)
    about = json.loads((tmp_path / "run" / "cot_card.json").read_text())
    unjudged = sum(row["unjudged"] for row in rows)
    assert 0 < unjudged <= len(rows) < 9, "nothing was cut, or all: the test does not apply"
    assert all(row["unjudged"] or row["unfit"] for row in rows)
    assert (about["critiques"], about["kept"], about["unjudged"]) == (len(rows), 0, unjudged)
    assert about["short"].startswith(f"{9 - len(rows)} without an answer")
    assert about["tokens"]["requests"] == sum(row["tokens"]["requests"] for row in rows)
