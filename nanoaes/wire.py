"""Between huggingface_hub's client and a server that is not trusted: where to, and what comes back.

The library follows redirects with the picture, logs what a server writes into a header, and reads
errors in the Hub's form. A hook of its session looks at each answer to a chat first: whatever is no
success ends here, as `Declined`. And whatever a server says is cleaned of the key before anyone
sees it. Left out: a key in another code than base64 or a URL's.
"""

import base64
import html
import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import get_session

from nanoaes.errors import UserError

CHAT = "/chat/completions"
READ, SEARCHED, SHOWN = 65536, 4096, 200  # characters of a server's error
SECRET = 8  # a shorter key is hidden as a word only
WORD = 20  # letters; fewer are a word such as EMPTY that local servers want, and no secret


class Declined(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, text: str, after: str, location: str):
        """text: its body. after, location: the headers Retry-After and Location, "" without."""
        super().__init__(status)
        self.status, self.text, self.after, self.location = status, text, after, location


def address(url: str) -> str:
    """What people type -> what the client completes with /v1/chat/completions.

    Raises:
        UserError: no address, or one with a password, which would be stored and shown.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UserError(f"{url}: no address of a server; write it as http://localhost:8000/v1")
    if "@" in parts.netloc:
        raise UserError(f"{parts.scheme}://{parts.hostname}: leave user and password out of the "
                        "address; a key belongs into the environment")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/"), fragment=""))


def displayed(url: str) -> str:
    """An address without what may be secret in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "no address"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def guard() -> None:
    """Before a request: the session, which is the whole process's, has the hook."""
    hooks = get_session().event_hooks["response"]
    if look not in hooks:
        hooks.append(look)
    for name in ("httpx", "httpcore", "httpx2", "httpcore2"):  # the name differs by version
        logger = logging.getLogger(name)  # they write a server's headers into a log for debugging
        logger.setLevel(max(logger.level, logging.WARNING))


def look(response: Any) -> None:
    """The hook. Answers to others than a chat pass. Raises Declined."""
    request = response.request
    if request.method != "POST" or not request.url.path.endswith(CHAT):
        return
    response.headers.pop("x-hf-warning", None)  # the library would log it
    if response.status_code // 100 == 2:
        return
    text = ""
    with suppress(HTTPError):  # what has come of it will do
        for part in response.iter_text():
            text += part
            if len(text) > READ:
                break
    raise Declined(response.status_code, text[:READ], response.headers.get("retry-after", ""),
                   response.headers.get("location", ""))


def message_of(body: str) -> str:
    """What an error's body says: the message that such servers wrap in JSON, or all of it."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return html.unescape(re.sub(r"<[^<>]{0,500}>", " ", body))
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def hider(key: str) -> Callable[[str], str]:
    """A function that takes the key out of a text, also where it stands in base64 or in a URL."""
    if not key or key.isalpha() and len(key) < WORD:
        return lambda text: text
    if len(key) < SECRET:
        return lambda text: re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", "***", text)
    forms = {key, quote(key, safe="")}
    for before in range(3):  # the bytes before it decide which of three ways base64 writes it
        code = base64.b64encode(b"\0" * before + key.encode()).decode()
        core = code[(0, 2, 3)[before] : (before + len(key)) // 3 * 4]
        forms |= {core, core.translate(str.maketrans("+/", "-_"))}
    longest = sorted(map(re.escape, forms), key=len, reverse=True)
    pattern = re.compile("|".join(longest), re.IGNORECASE)
    return lambda text: pattern.sub("***", text)


def brief(text: str, hide: Callable[[str], str]) -> str:
    """A server's words for a person: one line, printable, short, and no key in them."""
    text = hide(text)[:SEARCHED]
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
