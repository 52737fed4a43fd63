"""Text from outside, made safe to show: a model's, a file's name, a setting.

Markup is escaped, a character that draws nothing is replaced by a sign, and the direction of
writing is kept inside: nothing can hide on the page or reorder what stands beside it. Spelling with
joiners (Persian, emoji families) therefore shows its joiners. Left out: letters that only look
alike, and stacks of combining marks, which can be seen.
"""

import re
import unicodedata
from html import escape

# Letters and marks by category, but drawn as nothing.
# Selectors can carry hidden text; those of emoji (FE0E, FE0F) stay.
FILLERS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0"
                     "\U000e0100-\U000e01ef]")


def plain(text: str) -> str:
    """Text without markup: for attributes, the page's title, drawings."""
    return re.sub(r"[^\n -~]", lambda match: sign(match[0]), escape(text))


def block(text: str) -> str:
    """HTML whose signs are tinted, for an element with a `dir` that holds nothing else."""
    return re.sub(r"[^\n -~]", lambda match: _tinted(match[0]), escape(text))


def inline(text: str) -> str:
    """HTML whose direction stops at its ends, for use amid other words."""
    return f"<bdi>{block(text)}</bdi>"


def sign(char: str) -> str:
    """What stands for a character: a blank for a tab, [U+202E]; itself if it shows."""
    # C: control, format, surrogate, private, unassigned. The two separators break a line unseen.
    unseen = unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" or FILLERS.match(char)
    return " " if char == "\t" else f"[U+{ord(char):04X}]" if unseen else char


def _tinted(char: str) -> str:
    shown = sign(char)
    return shown if shown in (char, " ") else f'<span class="sign">{shown}</span>'
