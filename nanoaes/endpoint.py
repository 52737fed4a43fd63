"""A chat model behind an address: any server that speaks OpenAI's protocol.

    picture, words -> request -> an answer
                              -> trouble: asked again a few times, later each time (429, 5xx, no
                                 answer in time, a reply that is cut off, empty or no JSON)
                              -> NoAnswer: this question has none (declined, too long, not taken)
                              -> UserError: no repetition mends it (the key, the name, the address)

What decides is a reply's body: completions labelled as plain text are read. The key leaves this
file in one header to one host. Left out: streaming; a limit of time for a server that goes on
sending, bit by bit; more than 100 requests at once, which is what the library's session allows.
"""

import base64
import io
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HTTPError, InferenceTimeoutError, OfflineModeIsEnabled

from nanoaes.chat import Cut, Question, Spent, shown
from nanoaes.errors import NoAnswer, Refused, UserError
from nanoaes.progress import say
from nanoaes.turns import Turns, retry_after
from nanoaes.wire import Declined, address, brief, displayed, guard, hider, message_of

QUALITY = 95  # of the JPEG that is sent
BUSY = 429  # what a server says that is asked too often
AGAIN = {408, 409, 425, BUSY}  # beside all from 500 on
PATIENCE = 10  # times as many tries for a question that only queues
LONGEST = 60.0  # seconds between two tries
NOT_TAKEN = 3  # requests that are not taken, before any is answered: no picture's fault
UNSUPPORTED = re.compile(r"unsupported|not support|unrecogni[sz]ed|unknown|not permitted|extra "
                         r"inputs", re.IGNORECASE)
FILTERED = ("content_filter", "content_policy", "content management policy")


@dataclass(frozen=True)
class Reply:
    """What a completion says."""

    text: str
    end: str  # "stop"; "length": cut off; "content_filter"
    refusal: str
    asked: int  # tokens, as the server counts them
    answered: int


@dataclass(frozen=True)
class Trouble:
    """Why a request has brought no completion."""

    why: str
    status: int = 0  # 0: no answer at all, or a broken one
    after: float | None = None  # seconds that the server asks for
    unreachable: bool = False
    body: str = ""  # as it came, to be searched, not shown


class Endpoint:
    """A `Chat` on a server, for any number of threads."""

    def __init__(self, url: str, model: str, key: str = "", *, variable: str = "TEACHER_API_KEY",
                 max_pixels: int = 262_144, max_new_tokens: int = 1024, timeout: float = 120.0,
                 tries: int = 6, rate: float = 0.0, pause: float = 1.0, seed: int = 0,
                 stop: Callable[[], bool] = lambda: False):
        """
        Args:
            url: of a server, with or without /v1 and /chat/completions.
            key: sent as a bearer token; without one none is sent, not even a Hub's that is stored.
            variable: of the environment, that the key came from; named in errors.
            max_pixels: pictures are shrunk to this area, as the student sees them.
            max_new_tokens: a longer answer is cut, and so is none.
            timeout: seconds without a sign of life.
            tries: of a question. Those that a server turns away while it answers others do not
                count: they queue.
            rate: requests per minute of all threads, at most; 0: no limit.
            pause: seconds before the second try, doubled for each further one up to a minute.
            stop: true ends all waiting with NoAnswer.
        Raises:
            UserError: no address, or a key with characters that no key has.
        """
        key = key.strip()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UserError(f"{variable} holds more than a key: only letters, figures and signs of "
                            "ASCII can be sent; set it again")
        self.name, self.spent, self.variable = model, Spent(), variable
        self.max_pixels, self.max_new_tokens, self.seed = max_pixels, max_new_tokens, seed
        self.timeout, self.tries, self.pause = timeout, tries, pause
        self.url = address(url)
        self.hide = hider(key)
        self.turns = Turns(rate, stop)
        # Without a key the library would send the Hub's token, which is nobody's business there.
        self.client = InferenceClient(base_url=self.url, token=key or None, timeout=timeout,
                                      headers=None if key else {"authorization": None})
        self.heard = 0.0  # when the last completion came, on time.monotonic
        self.not_taken = 0
        self.without: frozenset[str] = frozenset()  # settings that the server does not take

    def __repr__(self) -> str:
        return f"Endpoint({displayed(self.url)!r}, {self.name!r})"

    def ask(self, question: Question) -> str:
        """The answer, without what a thinking model thought before it.

        Raises:
            Refused: the model or its filter declines; in its words. Cut: longer than allowed.
            NoAnswer: not after so many tries, or stopped.
            UserError: for all questions alike: key, name, address, nobody there.
            DataError: no such picture.
        """
        messages = [{"role": "user", "content": self._content(question)}]
        began = before = time.monotonic()
        tries = number = 0
        while True:
            self.turns.turn()
            settings = {name: value for name, value in self._settings(question).items()
                        if name not in self.without}
            found = self._request(messages, settings)
            if isinstance(found, Reply):
                self.heard = time.monotonic()
                if text := self._read(found):
                    return text
                found = Trouble("an empty answer")
            elif name := unsupported(found, settings):
                self._leave_out(name)
                continue
            self._give_up_if_hopeless(found)
            number += 1
            tries += not (found.status == BUSY and self.heard > before)
            before = time.monotonic()
            if tries >= self.tries or number >= PATIENCE * self.tries:
                raise self._last(found, began, number)
            if not found.after:  # a 0 is no reason to hurry
                late = min(self.pause * 2 ** min(number - 1, 30), LONGEST)
                self.turns.wait(late * random.uniform(0.5, 1.0))
            else:
                self.turns.hold(found.after)

    def _content(self, question: Question) -> str | list[dict[str, Any]]:
        """The picture stands before the words, as the student is asked."""
        if question.image is None:
            return question.text
        file = io.BytesIO()
        shown(question.image, self.max_pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
        data = base64.b64encode(file.getvalue()).decode()
        return [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}},
                {"type": "text", "text": question.text}]

    def _settings(self, question: Question) -> dict[str, float]:
        return {"max_tokens": self.max_new_tokens, "temperature": question.temperature,
                "seed": (self.seed * 1_000_003 + question.place) % 2**31}

    def _leave_out(self, name: str) -> None:
        """Some models know max_tokens by another name, or have one temperature."""
        with self.turns.door:
            first, self.without = name not in self.without, self.without | {name}
        if first:
            say(f"{self.name}: the server does not take {name}, and is asked without it")

    def _request(self, messages: list[dict[str, Any]], settings: dict[str, float]
                 ) -> Reply | Trouble:
        """One. Nothing is raised from within `except`: the library's errors know the key."""
        self.spent.requests += 1
        more = {} if "max_tokens" in settings else {"max_completion_tokens": self.max_new_tokens}
        guard()
        try:
            return read(self.client.chat_completion(messages, model=self.name, extra_body=more,
                                                    **settings))
        except Declined as error:
            elsewhere = error.status < 400 and error.location
            said = displayed(error.location) if elsewhere else message_of(error.text)
            said = brief(said, self.hide)
            return Trouble(f"{error.status}: {said}" if said else str(error.status), error.status,
                           retry_after(error.after), body=error.text)
        except OfflineModeIsEnabled:
            return Trouble("HF_HUB_OFFLINE is set", status=-1)
        except InferenceTimeoutError as error:
            lost = type(error.__cause__).__name__ == "ConnectTimeout"
            return Trouble(f"no sign of life in {self.timeout:g} seconds", unreachable=lost)
        except HTTPError as error:
            return Trouble(brief(f"{type(error).__name__}: {error}", self.hide),
                           unreachable=type(error).__name__ == "ConnectError")
        except (ValueError, RecursionError) as error:
            return Trouble(brief(f"a reply of another form: {error}", self.hide))

    def _read(self, reply: Reply) -> str:
        """Counts a completion's tokens. Raises Refused, Cut."""
        self.spent.asked += reply.asked
        self.spent.answered += reply.answered
        said = self.hide(reply.text)
        text = said.rpartition("</think>")[2].strip()
        if reply.refusal or reply.end == "content_filter":
            raise Refused(self.hide(reply.refusal) or text or "the server's filter has taken it")
        if said != reply.text:
            raise NoAnswer("the answer repeats the key")
        if reply.end == "length":
            raise Cut(f"the answer is longer than {self.max_new_tokens} tokens")
        return text

    def _give_up_if_hopeless(self, trouble: Trouble) -> None:
        """Raises UserError where no question can be answered, NoAnswer where this one cannot."""
        status, why, where = trouble.status, trouble.why, displayed(self.url)
        if status == -1:
            raise UserError(f"{where} is not asked while HF_HUB_OFFLINE is set; unset it")
        if status == 402 or "insufficient_quota" in trouble.body:
            raise UserError(f"{where}: the account has nothing left ({why}); run again when it has")
        if status == 0 or status in AGAIN or status >= 500:
            return
        if status < 400:
            raise UserError(f"{where} sends elsewhere ({why}) and is not followed, lest key and "
                            "pictures go to a stranger; give the address that is meant")
        if status == 401 or status == 403 and not self.heard:
            raise UserError(f"{where} does not take the key ({why}); set {self.variable} to one "
                            "that it takes")
        if status == 404:
            raise UserError(f"{where} has no model {self.name}, or is not the address ({why}); "
                            "correct one or the other")
        if any(name in trouble.body for name in FILTERED):
            raise Refused(why)
        self.not_taken += 1
        if not self.heard and self.not_taken >= NOT_TAKEN:
            raise UserError(f"{where} takes none of the first {NOT_TAKEN} questions ({why}); is "
                            f"{self.name} a model that sees pictures?")
        raise NoAnswer(f"not taken ({why})")

    def _last(self, trouble: Trouble, began: float, number: int) -> Exception:
        """After the last try: has anyone else heard of the server meanwhile?"""
        if trouble.unreachable and self.heard <= began:
            return UserError(f"{displayed(self.url)} cannot be reached ({trouble.why}); start the "
                             "server, or correct the address, and run again")
        return NoAnswer(f"no answer in {number} tries, the last: {trouble.why}")


def unsupported(trouble: Trouble, settings: Iterable[str]) -> str:
    """The setting that a server has not taken, "" for none."""
    if trouble.status not in (400, 422) or not UNSUPPORTED.search(trouble.body):
        return ""
    return next((name for name in settings if re.search(rf"\b{name}\b", trouble.body)), "")


def read(said: Any) -> Reply:
    """A completion, of which nothing is taken for granted. Raises ValueError: it is none."""
    choices = said.choices
    if not isinstance(choices, list) or not choices:
        raise ValueError("no choices")
    message = choices[0].message
    if not isinstance(message, dict):  # the library's classes are dicts, too
        raise ValueError("no message")
    content = message.content or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        raise ValueError("the content is no text")
    content = content.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    refusal = str(dict.get(message, "refusal") or "")  # a server's field may be named get
    return Reply(content, str(choices[0].finish_reason), refusal,
                 _count(said.usage, "prompt_tokens"), _count(said.usage, "completion_tokens"))


def _count(usage: object, name: str) -> int:
    """Tokens; 0 where the server does not say."""
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0
