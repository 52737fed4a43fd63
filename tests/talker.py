"""A server that speaks OpenAI's chat protocol on this machine, and misbehaves where it is told to.

    with Talker(lambda messages: "A strong picture.", in_turn(status(500), None)) as talker:
        ... talker.url, talker.heard

A fault answers one request in place of the server: a function of the open request. Left out:
streaming, anything but /v1/chat/completions.
"""

import base64
import io
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from PIL import Image

Messages = list[dict[str, Any]]
ECHO = "{authorization}"  # in what a fault says: the header that the request came with
PATH = "/v1/chat/completions"


class Heard(NamedTuple):
    """One request."""

    at: float  # on time.monotonic
    headers: dict[str, str]  # names in small letters
    body: dict[str, Any]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: two would wait for each other
    server: "Server"

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.talker.answer(self)

    do_GET = do_PUT = lambda self: self.send(405, b"{}")  # noqa: E731

    def send(self, code: int, body: bytes, headers: dict[str, str] | None = None,
             reason: str | None = None, length: int | None = None) -> None:
        """length: that is said to be the body's."""
        self.send_response(code, reason)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *args: object) -> None:
        """Nothing."""


Fault = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    talker: "Talker"

    def handle_error(self, *args: object) -> None:
        """A client that is killed, or has lost its patience, is no error here."""


class Talker:
    """The server, from `with` on."""

    def __init__(self, reply: Callable[[Messages], str | bytes],
                 faults: Callable[[], Fault | None] = lambda: None, *,
                 at_once: int = 0, service: float = 0.0, keep: bool = True):
        """
        Args:
            reply: to a dialogue, words or a whole body; called by several threads.
            faults: of the next request; None: it is answered.
            at_once: requests that are worked on, the others wait; 0: all.
            service: seconds that each takes.
            keep: all requests in `heard`.
        """
        self.reply, self.faults, self.service, self.keep = reply, faults, service, keep
        self.room = threading.Semaphore(at_once) if at_once else nullcontext()
        self.heard: list[Heard] = []
        self.count, self.closed = 0, False
        self.door = threading.Lock()

    def __enter__(self) -> "Talker":
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.talker = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closed = True  # connections that are kept have threads of their own
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: Handler) -> None:
        if self.closed:
            return hang_up(request)
        with self.door:
            self.count += 1
            if self.keep:
                headers = {name.lower(): value for name, value in request.headers.items()}
                self.heard.append(Heard(time.monotonic(), headers, request.body))
            fault = self.faults()
        if fault:
            return fault(request)
        if request.path != PATH:
            return request.send(404, b'{"error": {"message": "no such page"}}')
        with self.room:
            time.sleep(self.service)
            text = self.reply(request.body["messages"])
        request.send(200, text if isinstance(text, bytes) else completion(text))


def completion(text: str | None, end: str = "stop", **message: object) -> bytes:
    """A whole reply's body."""
    said = {"role": "assistant", "content": text, **message}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "talker",
                       "choices": [{"index": 0, "message": said, "finish_reason": end}],
                       "usage": {"prompt_tokens": 100, "completion_tokens": len(text or "") // 4,
                                 "total_tokens": 100 + len(text or "") // 4}}).encode()


def picture(messages: Messages) -> Image.Image:
    """The picture that stands in a question."""
    (url,) = (part["image_url"]["url"] for part in messages[-1]["content"]
              if part["type"] == "image_url")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def words(messages: Messages) -> str:
    """The question's words."""
    content = messages[-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def says(body: bytes | str, code: int = 200, headers: dict[str, str] | None = None,
         reason: str | None = None) -> Fault:
    """Answers so, whatever is asked; ECHO in it becomes the header Authorization."""
    def fault(request: Handler) -> None:
        key = request.headers.get("Authorization", "")
        given = {name: value.replace(ECHO, key) for name, value in (headers or {}).items()}
        raw = body.encode() if isinstance(body, str) else body
        request.send(code, raw.replace(ECHO.encode(), key.encode()), given,
                     reason and reason.replace(ECHO, key))
    return fault


def status(code: int, message: str = "", **headers: str) -> Fault:
    """An error; retry_after="1" becomes the header Retry-After."""
    return says(json.dumps({"error": {"message": message, "code": code}}), code,
                {name.replace("_", "-").title(): value for name, value in headers.items()})


def late(seconds: float) -> Fault:
    """An answer, but too late."""
    def fault(request: Handler) -> None:
        time.sleep(seconds)
        request.send(200, completion("too late"))
    return fault


def hang_up(request: Handler) -> None:
    """No answer, the connection is closed."""
    request.close_connection = True


def cut_off(request: Handler) -> None:
    """Half of what the header promises."""
    body = completion("A strong picture.")
    request.send(200, body[: len(body) // 2], length=len(body))
    request.close_connection = True


HALF_JSON = says(completion("A strong picture.")[:60])
NO_CHOICES = says('{"choices": []}')
EMPTY = says(completion(""))
A_PAGE = says("<html><body>Sign in</body></html>", headers={"Content-Type": "text/html"})
REFUSES = says(completion(None, refusal="I cannot judge this person."))
FILTERS = says(completion(None, end="content_filter"))
TOO_LONG = says(completion("The light is", end="length"))


def in_turn(*faults: Fault | None) -> Callable[[], Fault | None]:
    """One request each, then none."""
    rest = list(faults)
    return lambda: rest.pop(0) if rest else None


def at_random(share: float, faults: Sequence[Fault], seed: int) -> Callable[[], Fault | None]:
    """A share of the requests goes wrong."""
    rng = random.Random(seed)
    return lambda: rng.choice(faults) if rng.random() < share else None
