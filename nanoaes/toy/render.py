"""The toy world's camera: draws a small "photograph" whose five qualities are known.

A picture is a landscape with a sky, hills, a ground or sea, one subject and perhaps some life in
it. Each of the paper's five dimensions is a number in [0, 1] that steers one visible thing:

    Light and Shadow    flat, no shadow            ->  a low sun, side light, a long cast shadow
    Mood and Narrative  nobody there, mist         ->  walkers under a sky of lanterns
    Composition         tilted, subject cut off    ->  level, subject on a third
    Color               garish, clashing hues      ->  a harmonious palette (grey in between)
    Exposure            burnt out or drowned       ->  a full range of tones

Left out: perspective, texture, faces, everything a real picture has. The three manners (`hills`,
`coast`, `city`) differ in motif and print, so that a model trained on the first can be tested out
of domain on the other two.
"""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 84  # pixels; 3 x 3 merged image tokens for a vision tower with 14-pixel patches merged 2 x 2
CANVAS = 2 * SIZE  # drawn twice as large, then reduced: soft edges
MARGIN = 36  # canvas pixels around the frame, so that a tilted picture has no empty corners
MANNERS = ("hills", "coast", "city")
Colour = tuple[float, float, float]


def render(qualities: np.ndarray, manner: str, rng: np.random.Generator) -> Image.Image:
    """One photograph.

    Args:
        qualities: (5,) in [0, 1]: light, mood, composition, color, exposure.
        manner: one of MANNERS.
        rng: draws everything that no rater looks at (season, subject, side, shape of the hills).
    Returns:
        An RGB image of SIZE x SIZE pixels.
    """
    light, mood, composition, color, exposure = (float(q) for q in qualities)
    palette = _palette(color, rng)
    side = rng.choice((-1, 1))  # where the subject stands; the sun stands opposite
    subject_x, horizon, tilt = _layout(composition, side, rng)
    size = CANVAS + 2 * MARGIN
    image = Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(image, "RGBA")
    _sky(image, palette, horizon)
    _sun(image, light, -side, horizon, rng)
    _land(draw, palette, horizon, manner, rng)
    _shadow(draw, light, subject_x, horizon, side)
    _subject(draw, palette, subject_x, horizon, manner, rng)
    _life(draw, mood, subject_x, horizon, side, rng)
    frame = (MARGIN, MARGIN, MARGIN + CANVAS, MARGIN + CANVAS)
    image = image.rotate(tilt, Image.BILINEAR).crop(frame).resize((SIZE, SIZE), Image.BOX)
    return _develop(image, light, exposure, side, manner, rng)


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    rgb = colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))
    return tuple(255 * c for c in rgb)


def _ints(colour: Colour, alpha: float = 1.0) -> tuple[int, int, int, int]:
    return (*(int(np.clip(c, 0, 255)) for c in colour), int(255 * alpha))


def _palette(color: float, rng: np.random.Generator) -> dict[str, Colour]:
    """Below .35 clashing hues, around .5 greys, above .65 a sky and its complement."""
    base = rng.uniform()
    if color < 0.35:
        sat, hues = 1.0 - 0.6 * color, (base, base + 0.30, base + 0.55, base + 0.80)
    elif color < 0.65:
        sat, hues = 0.12, (base, base + 0.05, base + 0.10, base + 0.5)
    else:  # blue hour or golden hour, with the complement on the ground
        base = rng.choice((0.55, 0.60, 0.07, 0.04)) + rng.uniform(-0.02, 0.02)
        sat, hues = 0.40 + 0.15 * color, (base, base + 0.48, base + 0.50, base + 0.45)
    return {
        "sky": _rgb(hues[0], sat, 0.80),
        "glow": _rgb(hues[0] + 0.03, 0.55 * sat, 0.97),
        "far": _rgb(hues[1], 0.8 * sat, 0.62),
        "near": _rgb(hues[2], sat, 0.46),
        "subject": _rgb(hues[3], sat, 0.28),
    }


def _layout(composition: float, side: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """(subject's x, horizon's y) in canvas pixels and the tilt in degrees."""
    jitter = rng.uniform(-0.02, 0.02)
    if composition < 0.35:
        x, y = 0.5 + side * (0.45 + jitter), 0.52
        tilt = rng.choice((-1, 1)) * (15 - 18 * composition)
    elif composition < 0.65:
        x, y, tilt = 0.5 + jitter, 0.52, 0.0
    else:
        x, y, tilt = 0.5 + side * (0.19 + jitter), 0.64, 0.0
    return MARGIN + x * CANVAS, MARGIN + (y + jitter) * CANVAS, float(tilt)


def _sky(image: Image.Image, palette: dict[str, Colour], horizon: float) -> None:
    t = np.clip(np.arange(image.height) / horizon, 0, 1)[:, None, None]
    rows = np.array(palette["sky"]) * (1 - t) + np.array(palette["glow"]) * t  # (height, 1, 3)
    array = np.broadcast_to(rows, (image.height, image.width, 3)).astype(np.uint8)
    image.paste(Image.fromarray(np.ascontiguousarray(array)))


def _sun(image: Image.Image, light: float, side: int, horizon: float,
         rng: np.random.Generator) -> None:
    """A low sun with a halo; its strength is the light quality, none below .3."""
    strength = np.clip((light - 0.3) / 0.6, 0, 1)
    x = MARGIN + (0.5 + side * rng.uniform(0.22, 0.34)) * CANVAS
    y = horizon - (0.10 + rng.uniform(0, 0.12)) * CANVAS
    axis = np.arange(image.height, dtype=np.float32)
    r2 = (axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2
    glow = strength * (0.55 * np.exp(-r2 / 34**2) + (r2 < (8 + 6 * strength) ** 2))
    mask = Image.fromarray((255 * np.clip(glow, 0, 1)).astype(np.uint8))
    image.paste((255, 244, 214), mask=mask)


def _land(draw: ImageDraw.ImageDraw, palette: dict[str, Colour], horizon: float, manner: str,
          rng: np.random.Generator) -> None:
    width = CANVAS + 2 * MARGIN
    xs = np.linspace(0, width, 40)
    if manner == "city":
        x = 0.0
        while x < width:
            w, h = rng.uniform(10, 22), rng.uniform(8, 34)
            draw.rectangle((x, horizon - h, x + w, horizon + 2), fill=_ints(palette["far"]))
            x += w
    else:
        rough = 16 if manner == "hills" else 6
        a, b = rng.uniform(0, 6.28, 2)
        ys = horizon - rough * (1 + 0.6 * np.sin(xs / 37 + a) + 0.4 * np.sin(xs / 15 + b)) * 0.6
        ridge = list(zip(xs, ys, strict=True))
        draw.polygon([*ridge, (width, width), (0, width)], fill=_ints(palette["far"]))
    draw.rectangle((0, horizon, width, width), fill=_ints(palette["near"]))
    if manner == "coast":  # waves
        for y in np.arange(horizon + 5, width, 9):
            x0 = rng.uniform(0, width)
            foam = _ints(palette["glow"], 0.5)
            draw.line((x0, y, x0 + rng.uniform(20, 70), y), fill=foam, width=2)


def _shadow(draw: ImageDraw.ImageDraw, light: float, x: float, horizon: float, side: int) -> None:
    """Cast away from the sun: longer and darker with better light."""
    strength = np.clip((light - 0.2) / 0.8, 0, 1)
    length = 75 * strength
    ground = horizon + 14
    shape = [(x - 8, ground), (x + 8, ground), (x + side * length + 14, ground + 0.5 * length),
             (x + side * length - 14, ground + 0.5 * length)]
    draw.polygon(shape, fill=(10, 8, 24, int(170 * strength)))


def _subject(draw: ImageDraw.ImageDraw, palette: dict[str, Colour], x: float, horizon: float,
             manner: str, rng: np.random.Generator) -> None:
    dark, ground = _ints(palette["subject"]), horizon + 16
    scale = rng.uniform(0.9, 1.1)
    if manner == "coast":  # a sailing boat
        hull, deck = ground - 10, ground - 13
        draw.polygon([(x - 18, hull), (x + 18, hull), (x + 11, ground), (x - 11, ground)], dark)
        draw.polygon([(x, ground - 58 * scale), (x, deck), (x + 17, deck)], dark)
        draw.polygon([(x - 3, ground - 48 * scale), (x - 3, deck), (x - 15, deck)], dark)
    elif manner == "city":  # a tower
        draw.rectangle((x - 10, ground - 58 * scale, x + 10, ground), fill=dark)
        eaves, top = ground - 58 * scale, ground - 76 * scale
        draw.polygon([(x - 10, eaves), (x + 10, eaves), (x, top)], dark)
    else:  # a tree
        draw.rectangle((x - 3, ground - 30, x + 3, ground), fill=dark)
        for dx, dy, r in ((0, 46, 17), (-10, 36, 12), (10, 36, 12)):
            r *= scale
            draw.ellipse((x + dx - r, ground - dy - r, x + dx + r, ground - dy + r), fill=dark)


def _life(draw: ImageDraw.ImageDraw, mood: float, x: float, horizon: float, side: int,
          rng: np.random.Generator) -> None:
    """Nobody, and mist; one walker; two walkers under a sky of lanterns."""
    ink, red, cream = (24, 20, 30, 255), (214, 60, 48, 255), (250, 226, 170, 255)
    width = CANVAS + 2 * MARGIN
    if mood < 0.35:
        for i in range(8):  # mist lies on the horizon
            y = horizon - 26 + 9 * i
            draw.rectangle((0, y, width, y + 8), fill=(205, 208, 214, 60 + 20 * min(i, 7 - i)))
        return
    for i in range(1 if mood < 0.65 else 2):
        wx, wy = x - side * (40 + 22 * i), horizon + 46
        draw.polygon([(wx - 9, wy), (wx + 9, wy), (wx + 4, wy - 22), (wx - 4, wy - 22)],
                     fill=red if i == 0 else cream)
        draw.ellipse((wx - 6, wy - 34, wx + 6, wy - 22), fill=ink)
    for i in range(12 if mood >= 0.65 else 0):
        lx = MARGIN + (i + rng.uniform(0.1, 0.9)) / 12 * CANVAS
        ly = MARGIN + rng.uniform(0.06, 0.38) * CANVAS
        draw.rounded_rectangle((lx - 5, ly - 6, lx + 5, ly + 6), 3, fill=red)
        draw.ellipse((lx - 3, ly - 3, lx + 3, ly + 5), fill=(255, 214, 110, 255))


def _develop(image: Image.Image, light: float, exposure: float, side: int, manner: str,
             rng: np.random.Generator) -> Image.Image:
    """Side light, exposure and the manner's print."""
    x = np.asarray(image, dtype=np.float32) / 255
    ramp = np.linspace(-1, 1, SIZE, dtype=np.float32)[None, :, None] * -side
    x = x * (1 + 0.45 * np.clip((light - 0.2) / 0.8, 0, 1) * ramp)
    x = 0.5 + (x - 0.5) * (0.62 + 0.38 * np.clip(light / 0.6, 0, 1))  # flat light: little contrast
    miss = 1.0 - np.clip(exposure, 0, 1)  # stops away from the right exposure, up or down
    stops = 0.0 if exposure >= 0.65 else rng.choice((-1, 1)) * (1.9 * miss - 0.2)
    x = np.clip(x, 0, 1) * 2 ** (stops if stops < 0 else 0.8 * stops)
    if manner == "coast":  # film grain and a warm print
        x = x * np.array([1.04, 1.0, 0.93], dtype=np.float32)
        x = x + rng.normal(0, 0.025, x.shape).astype(np.float32)
    out = Image.fromarray((np.clip(x, 0, 1) * 255).astype(np.uint8))
    return out.filter(ImageFilter.GaussianBlur(0.6)) if manner == "city" else out
