"""ICC profiles as bytes, by the specification (ICC.1:2001-04), as cameras and printers embed."""

import struct
from collections.abc import Callable, Sequence

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])  # X, Y, Z of the profile connection space's white
D65 = np.array([0.95047, 1.0, 1.08883])
# x, y of red, green, blue (white D65): what each standard says of itself
PRIMARIES = {"sRGB": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
             "Display P3": ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
             "Adobe RGB": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))}


def srgb_to_light(v: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: value on [0, 1] -> light."""
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def light_to_srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def to_xyz(name: str) -> np.ndarray:
    """(3, 3): light of a space -> XYZ under D65, by its primaries."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in PRIMARIES[name]]).T
    return xyz * np.linalg.solve(xyz, D65)


def adapted(xyz: np.ndarray) -> np.ndarray:
    """XYZ under D65 (columns) -> under D50, by Bradford."""
    m = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    return np.linalg.inv(m) @ np.diag((m @ D50) / (m @ D65)) @ m @ xyz


def _profile(kind: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    body, table = b"", struct.pack(">I", len(tags))
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s12s4s", start + len(body), b"\0" * 4, 0x02400000, kind, space,
                         pcs, b"\0" * 12, b"acsp") + b"\0" * 28
    return (header + _xyz(D50)[8:]).ljust(128, b"\0") + table + body


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def _curve(to_light: Callable[[np.ndarray], np.ndarray], points: int = 1024) -> bytes:
    levels = (to_light(np.linspace(0, 1, points)) * 65535).round().astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(levels)) + levels.tobytes()


def _text(words: str) -> bytes:
    return (b"desc\0\0\0\0" + struct.pack(">I", len(words) + 1) + words.encode() + b"\0" * 79)


def rgb_profile(name: str, to_light: Callable[[np.ndarray], np.ndarray], points: int = 1024
                ) -> bytes:
    """A display's: three primaries and one curve of so many points."""
    columns, curve = adapted(to_xyz(name)).T, _curve(to_light, points)
    return _profile(b"mntr", b"RGB ", b"XYZ ", {
        b"desc": _text(name), b"wtpt": _xyz(D50), b"rXYZ": _xyz(columns[0]),
        b"gXYZ": _xyz(columns[1]), b"bXYZ": _xyz(columns[2]), b"rTRC": curve, b"gTRC": curve,
        b"bTRC": curve})


def grey_profile(to_light: Callable[[np.ndarray], np.ndarray]) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {
        b"desc": _text("grey"), b"wtpt": _xyz(D50), b"kTRC": _curve(to_light)})


def cmyk_profile(to_srgb: Callable[[np.ndarray], np.ndarray], points: int = 13) -> bytes:
    """A printer's: a table from inks (…, 4) on [0, 1], as sRGB values (…, 3) say, to Lab."""
    axis = np.linspace(0, 1, points)
    inks = np.stack(np.meshgrid(axis, axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 4)
    xyz = adapted(to_xyz("sRGB")) @ srgb_to_light(to_srgb(inks)).T / D50[:, None]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    lab = np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])], axis=-1)
    table = np.stack([lab[:, 0] * 652.8, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], -1)
    identity = np.array([0, 65535], ">u2").tobytes()
    lut = (b"mft2\0\0\0\0" + struct.pack(">4B", 4, 3, points, 0)
           + np.round(np.eye(3) * 65536).astype(">i4").tobytes() + struct.pack(">2H", 2, 2)
           + 4 * identity + table.round().clip(0, 65535).astype(">u2").tobytes() + 3 * identity)
    return _profile(b"prtr", b"CMYK", b"Lab ", {
        b"desc": _text("inks"), b"wtpt": _xyz(D50), b"A2B0": lut})
