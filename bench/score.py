"""Does `eval.py score` lose a picture? A folder of odd and broken files, killed again and again.

    python bench/score.py              1,000 pictures and more, 10 kills (SIGKILL), some 5 minutes
    python bench/score.py 3 200        3 kills, 200 pictures

The folder is made here: photographs of a made world, each of ODD ways in which a sound picture may
lie on a disk (all have to be scored), each of BROKEN ones (all have to be named), and what is no
picture (passed over). A small model learns to answer readably. Kills come at random: while Python
starts, between rows, while the page is written; after some the last line is torn besides, as by a
power cut. Then the list is held against that of a run that nobody disturbed. The last line is JSON.
"""

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from models import machine, taught, toy_pictures
from PIL import Image, ImageCms

from nanoaes.checkpoint import read_rows

ROOT = Path(__file__).resolve().parent.parent
SEED = 0


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(image, "JPEG", exif=exif)


def deep(image: Image.Image) -> bytes:
    return saved(Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257), "PNG")


def clear(image: Image.Image, mode: str) -> Image.Image:
    image = image.convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(image: Image.Image) -> bytes:
    """A PNG that claims 60,000 x 60,000 pixels."""
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
            + chunk(b"IDAT", zlib.compress(b"\0" * 99)))


def noise(data: bytes, start: int, n: int = 200) -> bytes:
    """With a stretch of it overwritten."""
    rng = np.random.default_rng(len(data))
    return data[:start] + rng.bytes(n) + data[start + n:]


Make = Callable[[Image.Image], bytes]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ODD: dict[str, Make] = {
    "IMG_1.JPG": lambda i: saved(i, "JPEG"), "progressive.jpeg": lambda i: saved(
        i, "JPEG", progressive=True), "turned.jpg": turned,
    "cmyk.jpg": lambda i: saved(i.convert("CMYK"), "JPEG"),
    "grey.jpg": lambda i: saved(i.convert("L"), "JPEG"), "grey16.png": deep,
    "palette.png": lambda i: saved(i.quantize(16), "PNG"),
    "holes.gif": lambda i: saved(i.quantize(16), "GIF", transparency=3),
    "alpha.png": lambda i: saved(clear(i, "RGB"), "PNG"),
    "la.png": lambda i: saved(clear(i, "L"), "PNG"), "bits.png": lambda i: saved(
        i.convert("1"), "PNG"), "moving.gif": lambda i: saved(
        i, "GIF", save_all=True, append_images=[i.rotate(90)]),
    "a.webp": lambda i: saved(i, "WEBP"), "a.tif": lambda i: saved(i, "TIFF"),
    "a.bmp": lambda i: saved(i, "BMP"), "a.ppm": lambda i: saved(i, "PPM"),
    "a.tga": lambda i: saved(i, "TGA"), "profile.jpg": lambda i: saved(i, "JPEG", icc_profile=SRGB),
    "long.png": lambda i: saved(i.resize((1900, 10)), "PNG"),
    "pixel.png": lambda i: saved(i.resize((1, 1)), "PNG"),
    "behind.jpg": lambda i: saved(i, "JPEG") + b"\0" * 999, "jpeg.png": lambda i: saved(i, "JPEG"),
    "with blank, comma;\"quote\".jpg": lambda i: saved(i, "JPEG"),
    "#1 <b>&amp;.jpg": lambda i: saved(i, "JPEG"), "größe 東京 🌄.jpg": lambda i: saved(i, "JPEG"),
    os.fsdecode(b"\xff\xfe latin \xe9.jpg"): lambda i: saved(i, "JPEG"),
    "two\nlines.jpg": lambda i: saved(i, "JPEG"), "-o.jpg": lambda i: saved(i, "JPEG"),
    "n" * 240 + ".jpg": lambda i: saved(i, "JPEG"),
}
BROKEN: dict[str, Make] = {
    "empty.jpg": lambda i: b"", "words.jpg": lambda i: b"no picture\n" * 9,
    "page.png": lambda i: b"<!doctype html><html>404</html>", "zeros.jpg": lambda i: bytes(5000),
    "torn.jpg": lambda i: saved(i, "JPEG")[:700], "torn.png": lambda i: saved(i, "PNG")[:900],
    "torn.webp": lambda i: saved(i, "WEBP")[:300], "torn.gif": lambda i: saved(i, "GIF")[:500],
    "torn.bmp": lambda i: saved(i, "BMP")[:900], "torn.tif": lambda i: saved(i, "TIFF")[:900],
    "head.jpg": lambda i: saved(i, "JPEG")[:20], "head.png": lambda i: saved(i, "PNG")[:33],
    "flipped.png": lambda i: noise(saved(i, "PNG"), 60), "bomb.png": bomb,
    "offset.tif": lambda i: b"II*\0\xff\xff\xff\x7f", "ribbon.png": lambda i: saved(
        i.resize((3000, 10)), "PNG"), "float.tif": lambda i: saved(i.convert("F"), "TIFF"),
    "a.dds": lambda i: b"DDS " + bytes(124), "damaged.dds": lambda i: noise(
        saved(i.convert("RGBA"), "DDS"), 76, 52),
    "a.blp": lambda i: b"BLP2" + b"\xff" * 200, "phone.heic": lambda i: (
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)),
    "a.avif": lambda i: b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(300),
    "a.jp2": lambda i: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200), "a.psd": lambda i: (
        b"8BPS\0\1" + bytes(6) + b"\0\3" + b"\0\0\x7f\xff" * 2 + b"\0\x08\0\3" + bytes(20)),
    "a.ico": lambda i: b"\0\0\1\0\1\0" + b"\x10\x10" + bytes(6) + b"\xff\xff\0\0\x16\0\0\0",
    "a.icns": lambda i: b"icns\0\0\0\x40ic07\0\0\0\x38" + bytes(48),
    "a.pcx": lambda i: b"\x0a\5\1\x08" + b"\xff" * 124,
    "a.sgi": lambda i: b"\1\xda\1\1" + b"\xff" * 508, "a.tga": lambda i: b"\0\1\1" + b"\xff" * 40,
    "a.pgm": lambda i: b"P5 99999 99999 255\n" + b"\0" * 9,
    "archive.jpg": lambda i: b"PK\3\4" + bytes(300),
}
PASSED = [".DS_Store", "IMG_1.MOV", "IMG_1.JPG.xmp", "IMG_1.CR2", "Thumbs.db", "._IMG_1.JPG",
          ".trash/old.jpg", "notes"]


def album(root: Path, n: int) -> tuple[set[str], set[str]]:
    """Files under root/photos; (paths of sound pictures, of broken ones), n at least in all."""
    rng, photos = np.random.default_rng(SEED), root / "photos"
    worlds = [image.resize((224, 168)) for image in toy_pictures(40)]
    good: set[str] = set()
    bad: set[str] = set()

    def put(name: str, data: bytes, kind: set[str] | None) -> None:
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if kind is not None:
            kind.add(str(path))

    copies = max(1, n // 250)
    for c in range(copies):
        for kinds, kind in ((ODD, good), (BROKEN, bad)):
            for name, make in kinds.items():
                part = "broken" if kind is bad else "odd"
                put(f"{part} {c}/{name}", make(worlds[int(rng.integers(40))]), kind)
    for name in PASSED:
        put(name, b"x", None)
    (photos / "circle").symlink_to(photos)
    os.mkfifo(photos / "pipe.jpg")
    (photos / "dangling.jpg").symlink_to("nowhere.jpg")
    (photos / "itself.jpg").symlink_to("itself.jpg")
    bad |= {str(photos / name) for name in ("pipe.jpg", "dangling.jpg", "itself.jpg")}
    i = 0
    while len(good) + len(bad) < n:
        image = worlds[i % 40].rotate(float(rng.uniform(-9, 9)))  # no two alike
        put(f"{i // 100:02}/{i}.jpg", saved(image, "JPEG"), good)
        i += 1
    (photos / "zz").mkdir()
    (photos / "zz/again.jpg").symlink_to(min(good))  # the same file: once
    return good, bad


def launch(root: Path, out: Path, *words: Path | str) -> subprocess.Popen:
    """The command; what it says goes to OUT.log."""
    with out.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "eval.py"), "score", *map(str, words), "--model",
             str(root / "model"), "--out", str(out), "--html", str(out.with_suffix(".html")),
             "--max_new_tokens", "32", "--device", "cpu", "--bursts", "--readout", "greedy"],
            stdout=log, stderr=log, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(out: Path, process: subprocess.Popen) -> float:
    """To its own end, which is 3: some files are broken. Returns its largest memory in MB."""
    peak = 0.0
    while process.poll() is None:  # not rusage: it begins with what the parent has
        with suppress(OSError, TypeError):  # it has just ended
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
        time.sleep(0.02)
    if process.returncode != 3:
        sys.exit(f"{out}: {process.returncode}\n" + out.with_suffix(".log").read_text()[-3000:])
    return peak


def rows_of(out: Path) -> list[dict]:
    path = out.with_suffix(".jsonl")
    return read_rows(path) if path.is_file() else []


def killed(root: Path, out: Path, kills: int, rng: np.random.Generator) -> None:
    """Begin and go on until it was killed so often; then to its end."""
    moments = [("rows", "rows", "start", "rows")[i % 4] for i in range(kills - 1)] + ["page"]
    for i, moment in enumerate(moments):
        process = launch(root, out, root / "photos")
        goal = len(rows_of(out)) + int(rng.integers(1, 100))

        def ripe(moment: str = moment, goal: int = goal) -> bool:
            return moment == "start" or (len(rows_of(out)) >= goal and moment == "rows") or any(
                root.glob(f".{out.stem}.*.partial"))

        while process.poll() is None and not ripe():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 5 if moment == "start" else 0.3))
        ended = process.poll() is not None
        process.kill()
        process.wait()
        lines = out.with_suffix(".jsonl")
        torn = moment == "rows" and i % 2 and lines.is_file() and lines.stat().st_size
        if torn:
            os.truncate(lines, lines.stat().st_size - int(rng.integers(1, 200)))
        print(f"kill {i + 1} ({moment}{', ended before' * ended}{', line torn' * bool(torn)}): "
              f"{len(rows_of(out))} rows", flush=True)
    finish(out, launch(root, out, root / "photos"))


def main() -> None:
    if "--help" in sys.argv:
        print(__doc__)
        return
    kills, n = ([int(x) for x in sys.argv[1:]] + [10, 1200][len(sys.argv) - 1:])[:2]
    print(machine())
    root = Path(tempfile.mkdtemp())
    try:
        good, bad = album(root, n)
        sizes = ((84, 84), (224, 168), (168, 224), (1900, 28))
        taught([picture.resize(sizes[i % 4]) for i, picture in enumerate(toy_pictures(16))],
               steps=120).save(root / "model")
        print(f"{len(ODD)} odd kinds, {len(BROKEN) + 3} broken ones")
        plain, out, tenth = root / "plain.csv", root / "killed.csv", root / "tenth.csv"
        peak = finish(plain, launch(root, plain, root / "photos"))
        (root / "some.txt").write_text("\n".join(sorted(good)[: n // 10] + sorted(bad)[:9]))
        small = finish(tenth, launch(root, tenth, f"@{root / 'some.txt'}"))
        killed(root, out, kills, np.random.default_rng(SEED))
        rows = rows_of(out)
        times = Counter(row["path"] for row in rows)
        scored = {row["path"] for row in rows if row["score"] is not None}
        named = {row["path"] for row in rows if "error" in row and "look" not in row}
        for row in rows:
            if row["path"] in good and row["score"] is None:
                print(f"{row['path']!r}: {row['error']}; {row.get('reply')!r}")
        told = re.search(r"pictures in .*: ([\d.]+) a second, ([\d.]+)% of",
                         plain.with_suffix(".log").read_text())
        print(f"memory: {small:.0f} MB for {n // 10} pictures, {peak:.0f} MB for {n}")
        print(json.dumps({
            "files": len(good) + len(bad), "scored": len(scored & good),
            "named_bad": len(named & bad), "lost": len(good - scored) + len(bad - named),
            "doubled": sum(times.values()) - len(times),
            "strangers": len(times.keys() - good - bad),
            "as_undisturbed": sorted(rows_of(plain), key=str) == sorted(rows, key=str)
            and plain.read_bytes() == out.read_bytes(),
            "images_per_s": float(told[1]), "decode_share": float(told[2]) / 100,
            "peak_mb": round(peak), "peak_mb_of_a_tenth": round(small)}))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
