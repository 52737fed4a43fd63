"""The gallery: pictures as the model saw them, chosen evenly, grey squares for lost ones."""

import base64
import io
import re

import numpy as np
from PIL import Image

from nanoaes.images import load_image
from nanoaes.page.gallery import GALLERY, SIDE, gallery, pick_gallery


def evals(*paths):
    """One stage that judged these pictures."""
    items = [{"image": str(path), "truth": i / len(paths), "pred": 0.5, "text": "fine"}
             for i, path in enumerate(paths)]
    return {"RAPO": {"sets": {"AVA": {"domain": "in", "items": items}}}}


def shown(path):
    """The picture in the page."""
    kind, data = re.search(r'src="data:image/(\w+);base64,([^"]*)"', gallery(evals(path))).groups()
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format.lower() == kind
    return image


def test_a_picture_is_what_the_model_saw(tmp_path):
    """Clear on white, half clear between: images.py's reading, not PIL's."""
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, :, 0], pixels[:2, :, 3], pixels[2:, :3, 3] = 200, 255, 128
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    image = shown(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(load_image(tmp_path / "a.png")))
    assert image.getpixel((5, 3)) == (255, 255, 255)


def test_a_large_picture_shrinks_and_keeps_its_shape(tmp_path):
    Image.new("RGB", (2000, 1000), (200, 30, 40)).save(tmp_path / "a.png")
    image = shown(tmp_path / "a.png")
    assert image.format == "JPEG" and image.size == (SIDE, SIDE // 2)
    assert np.abs(np.asarray(image, int) - (200, 30, 40)).max() <= 3


def test_what_cannot_be_decoded_is_a_grey_square(tmp_path):
    Image.effect_noise((64, 64), 90).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    contents = {"words.png": b"not a picture", "empty.jpg": b"",
                "torn.png": whole[:len(whole) // 2],
                "flipped.png": whole[:60] + b"\xff" * 40 + whole[100:]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    lost = [*(tmp_path / name for name in contents), tmp_path / "none.png", tmp_path,
            "a\0b.png", "\ud800.png"]
    page = gallery(evals(*lost))
    assert page.count('class="lost"') == len(lost) and "<img" not in page


def test_choice_is_spread_and_deterministic():
    rng = np.random.default_rng(0)
    sets = {name: {"domain": "in", "items": [
        {"image": f"{name}_{i}.png", "truth": float(t)} for i, t in enumerate(rng.random(20))]}
        for name in ("AVA", "AADB")}
    picked = pick_gallery({"RAPO": {"sets": sets}})
    assert picked == pick_gallery({"RAPO": {"sets": sets}}) and len(picked) == GALLERY
    assert [name for name, _ in picked] == ["AVA"] * 6 + ["AADB"] * 6
    truths = [item["truth"] for _, item in picked[:6]]
    assert truths == sorted(truths) and truths[0] < 0.25 and truths[-1] > 0.75
    assert len({item["image"] for _, item in picked}) == GALLERY
