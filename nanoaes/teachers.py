"""A chat model as AesCoT's teacher and as its judge, wherever it runs (`endpoint.py`, `local.py`).

    ChatTeacher   picture and score -> a critique that does not show the score
    ChatJudge     words -> the level that they tell;  picture and words -> what is not there

A judge's answer counts only as the JSON that was asked for, and what it finds missing from a
picture only where the critique says so, in these words. It is asked a few times; whoever gives no
such answer has given none.
Left out: several judges that vote.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from nanoaes.chat import Chat, Cut, Question
from nanoaes.cot import LEVELS, score_level
from nanoaes.errors import NoAnswer
from nanoaes.wording import ABSENT, AGAIN, LEVEL_WORDS, READS, TEACHER, fingerprint

T = TypeVar("T")
TRIES = 3  # of a question to the judge
WARM = 0.7  # temperature of a critique, and of a judge that is asked again


class ChatTeacher:
    """Writes critiques, each picture's with random numbers of its own."""

    def __init__(self, chat: Chat):
        self.chat = chat
        self.name = f"{chat.name}#{fingerprint(TEACHER, *LEVEL_WORDS)}"

    def write(self, image: Path, score: float) -> str:
        """One critique. Raises as `Chat.ask`."""
        told = TEACHER.format(score=score, level=LEVEL_WORDS[score_level(score)])
        return self.chat.ask(Question(told, image, WARM, crc32(image.name.encode()))).strip()


class ChatJudge:
    """Answers AesCoT's two questions about a critique."""

    def __init__(self, chat: Chat):
        self.chat = chat
        self.name = f"{chat.name}#{fingerprint(READS, ABSENT, AGAIN)}"

    def level(self, critique: str) -> int:
        """0 bad, 1 fair, 2 good, as the words alone tell. Raises as `Chat.ask`; NoAnswer: no level
        in any answer."""
        return self._asked(READS.format(critique=critique), None, read_level)

    def invented(self, critique: str, image: Path) -> list[str]:
        """What the critique says, in its words, that is not in the picture. Raises as `level`."""
        return self._asked(ABSENT.format(critique=critique), image,
                           lambda reply: read_absent(reply, critique))

    def _asked(self, text: str, image: Path | None, read: Callable[[str], T]) -> T:
        for number in range(TRIES):
            question = Question(text + AGAIN * (number > 0), image, WARM * (number > 0), number)
            try:
                reply = self.chat.ask(question)
            except Cut as error:
                problem = str(error)
                continue
            try:
                return read(reply)
            except ValueError as error:
                problem = f"{error}: {reply[:80]!r}"
        raise NoAnswer(f"the judge gives no answer that can be read ({problem})")


def read_level(reply: str) -> int:
    """{"level": "fair"} -> 1. Raises ValueError: anything else."""
    level = _field(reply, "level")
    if not isinstance(level, str) or level.strip().lower() not in LEVELS:
        raise ValueError(f"the level is none of {', '.join(LEVELS)}")
    return LEVELS.index(level.strip().lower())


def read_absent(reply: str, critique: str) -> list[str]:
    """{"absent": ["a red boat"]} -> its list, each entry words of the critique.

    Raises ValueError: anything else, words that the critique does not have.
    """
    absent = _field(reply, "absent")
    if not isinstance(absent, list) or not all(isinstance(a, str) and _plain(a) for a in absent):
        raise ValueError("absent is no list of statements")
    for claim in absent:
        if f" {_plain(claim)} " not in f" {_plain(critique)} ":
            raise ValueError("a statement that the critique does not make")
    return absent


def _field(reply: str, name: str) -> object:
    """The only field of the only object of a reply; models like to put ```json around it."""
    start, end = reply.find("{"), reply.rfind("}")
    try:
        found = json.loads(reply[start : end + 1])
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(found, dict) or found.keys() != {name}:
        raise ValueError(f"no object with {name} alone")
    return found[name]


def _plain(text: str) -> str:
    """Words in small letters, one blank between: a quotation may set other marks."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
