"""A critique cut up by the five dimensions that it was asked to cover.

Read: a dimension's name as a heading, that is at the start of a line or a sentence and with a colon
behind it, with or without Markdown's signs (`**Color:** warm`, `3. Composition: …`).
Left out: critiques that name dimensions within sentences, such as the toy's; they stay whole.
"""

import re

from nanoaes.prompt import DIMENSIONS

_NAMES = "|".join(name.replace(" and ", r"\s+(?:and|&)\s+") for name in DIMENSIONS)
_HEADING = re.compile(rf"(?:^|(?<=[.!?]))[\s#*_\d.)–-]*\b({_NAMES})\s*[*_]*\s*:\s*[*_]*",
                      re.IGNORECASE | re.MULTILINE)


def by_dimension(critique: str) -> dict[str, str]:
    """What is said of each of DIMENSIONS; "" of one without a heading.

    What stands before the first heading, and a last paragraph that sums up behind the last one,
    are of no dimension.
    """
    said = dict.fromkeys(DIMENSIONS, "")
    headings = list(_HEADING.finditer(critique))
    starts = [heading.start() for heading in headings] + [len(critique)]
    for heading, end in zip(headings, starts[1:], strict=True):
        words = re.sub(r"\s+(?:and|&)\s+", " and ", heading[1]).lower()
        name = next(name for name in DIMENSIONS if name.lower() == words)
        said[name] = said[name] or critique[heading.end() : end].strip().split("\n\n")[0].strip()
    return said
