"""How many pictures of each set are drawn, and which.

All drawing goes by a hash of the file's name. A smaller draw is part of a larger one, and the
pictures that `sampler.hold_out` keeps from training are the same whatever the draw: scripts with
another --limit still agree on them. Left out: drawing a picture twice to fill up a small set.
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction


def name_hash(name: str) -> bytes:
    """(32,) bytes, as good as random."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def counts(sizes: Sequence[int], ratios: Sequence[Fraction | None], limit: int = 0) -> list[int]:
    """How many to draw of sets that have `sizes` pictures.

    With ratios the drawn counts are as the ratios (a set without one counts 1) to within one
    picture, and as many as the smallest set for its ratio and the limit allow: no picture is drawn
    twice. AVA : TAD66K : FLICKR-AES = 2 : 2 : 1 of 15,000 (the paper) is 6,000 : 6,000 : 3,000.
    Without any, each set gives the same part of itself.

    Args:
        limit: pictures in all; 0: no limit.
    """
    if not sizes:
        return []
    weights = [Fraction(s) for s in sizes]
    if any(r is not None for r in ratios):
        weights = [Fraction(1) if r is None else r for r in ratios]
    whole = sum(weights)
    total = int(min(s * whole / w for s, w in zip(sizes, weights, strict=True)))
    total = min(total, limit) if limit else total
    ends = [int(total * sum(weights[:i]) / whole) for i in range(len(weights) + 1)]
    return [end - start for start, end in zip(ends, ends[1:], strict=False)]


def draw(names: Sequence[str], n: int) -> list[int]:
    """Places of the n names whose hashes are the smallest, in order."""
    return sorted(sorted(range(len(names)), key=lambda i: name_hash(names[i]))[:n])
