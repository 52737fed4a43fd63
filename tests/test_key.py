"""The key of an endpoint is sent in one header to one host, and is never seen elsewhere."""

import base64
import io
import logging
import traceback
from collections.abc import Callable
from urllib.parse import quote

import pytest
import talker as t
from talker import ECHO, Talker, in_turn, says

from nanoaes.chat import Question
from nanoaes.endpoint import Endpoint
from nanoaes.errors import NoAnswer, UserError
from nanoaes.wire import SHOWN, brief, hider

KEY = "sk-Proj+4/x9?~?>>_secret-words=="


def answers(messages: t.Messages) -> str:
    return "A strong picture."


def told(error: BaseException | None) -> str:
    """All that an error, and whatever hangs on it, says in any form."""
    said = ""
    while error is not None:
        said += "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
        error = error.__cause__ or error.__context__
    return said


FORMS = {  # how a server may give the key back
    "as it came": lambda header: header,
    "alone": lambda header: header.removeprefix("Bearer "),
    "small": str.lower,
    "in a URL": lambda header: quote(header, safe=""),
    "base64": lambda header: base64.b64encode(header.encode()).decode(),
    "base64, alone": lambda header: base64.b64encode(header[7:].encode()).decode(),
    "base64, behind one": lambda header: base64.b64encode(b"x" + header[7:].encode()).decode(),
    "base64 of URLs": lambda header: base64.urlsafe_b64encode(header[7:].encode()).decode(),
    "the same, behind two": lambda header: base64.urlsafe_b64encode(
        b"xy" + header[7:].encode()).decode(),
}
SECRET = [KEY.lower(), quote(KEY, safe="").lower(),
          *(base64.b64encode(b"x" * n + KEY.encode()).decode()[4:-4].lower() for n in range(3)),
          *(base64.urlsafe_b64encode(b"x" * n + KEY.encode()).decode()[4:-4].lower()
            for n in range(3))]


def safe(text: str) -> bool:
    return not any(secret in text.lower() for secret in SECRET)


def test_the_test_would_see_it() -> None:
    """Each form has the key in it, as this file's eyes see it."""
    for form in FORMS.values():
        assert not safe(form(f"Bearer {KEY}"))
    assert safe("A strong picture.")


def echo(form: Callable[[str], str], code: int) -> t.Fault:
    """In the body's message, headers that the library reads, and the line above them."""
    def fault(request: t.Handler) -> None:
        key = form(request.headers["Authorization"])
        body = f'{{"error": {{"message": "no key like {key} is known", "code": "{key}"}}}}'
        request.send(code, body.encode(), {"X-Error-Message": key, "X-HF-Warning": f"a; {key}",
                                           "X-Request-Id": key, "Location": f"/{key}"}, key)
    return fault


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("code", [200, 302, 400, 401, 403, 404, 422, 429, 500])
def test_an_error_that_echoes_it(form: str, code: int, caplog, capfd) -> None:
    caplog.set_level(logging.DEBUG)
    with Talker(answers, lambda: echo(FORMS[form], code)) as talker:
        asked = Endpoint(talker.url, "m", KEY, tries=2, pause=0.001)
        with pytest.raises((NoAnswer, UserError)) as error:
            asked.ask(Question("?"))
    assert talker.heard[0].headers["authorization"] == f"Bearer {KEY}"
    assert safe(told(error.value)), told(error.value)
    assert safe(caplog.text), caplog.text
    assert safe("".join(capfd.readouterr()))
    assert error.value.__context__ is None and len(str(error.value)) < SHOWN + 200
    assert safe(repr(asked)) and repr(asked) == f"Endpoint('{talker.url}', 'm')"


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_that_echoes_it(form: str) -> None:
    """What would be written into a file: words of the answer, of a refusal, of a filter."""
    def fault(**said: str) -> t.Fault:
        return lambda request: request.send(200, t.completion(**{
            name: text.replace(ECHO, FORMS[form](request.headers["Authorization"]))
            for name, text in said.items()}))

    faults = (fault(text=f"A {ECHO} picture."), fault(text="", refusal=f"No, {ECHO}."),
              fault(text=f"No {ECHO}.", end="content_filter"))
    with Talker(answers, in_turn(*faults)) as talker:
        asked = Endpoint(talker.url, "m", KEY)
        for words in ("repeats the key", "No", "No"):
            with pytest.raises(NoAnswer, match=words) as error:
                asked.ask(Question("?"))
            assert safe(told(error.value))


def test_a_key_that_stands_where_words_are_cut() -> None:
    """Half a key is one too: it is taken out before the words are shortened."""
    for before in range(SHOWN - len(KEY) - 3, SHOWN + 3):
        short = brief("x" * before + KEY, hider(KEY))
        assert KEY[:4] not in short and len(short) <= SHOWN
    assert brief("a\n\x1b[31m\0b\u202e c", hider(KEY)) == "a [31m b c"


def test_a_word_that_servers_want_for_a_key_is_no_secret_in_other_words() -> None:
    for key in ("key", "EMPTY", "anything"):
        with Talker(lambda messages: "A key light, an empty sky: anything goes.") as talker:
            assert "key light" in Endpoint(talker.url, "m", key).ask(Question("?"))
    assert hider("k3y")("a monk3y with k3y and k3yboard") == "a monk3y with *** and k3yboard"
    assert hider("")("any") == "any"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(code: int) -> None:
    """Neither the key nor the question goes to another server, or anywhere else on this one."""
    with Talker(answers) as other, Talker(answers) as here:
        for target in (other.url, here.url):
            here.faults = in_turn(says(b"", code, {"Location": target + t.PATH}))
            with pytest.raises(UserError, match=f"sends elsewhere .{code}: {target}"):
                Endpoint(here.url, "m", KEY).ask(Question("?"))
        assert other.count == 0 and here.count == 2


@pytest.mark.parametrize("key", ["sk-one\nsk-two-words", "sk one two three", "sk-schlüssel-wort"])
def test_what_no_header_can_hold_is_not_repeated(key: str) -> None:
    with pytest.raises(UserError, match="MY_KEY holds more than a key") as error:
        Endpoint("http://localhost", "m", key, variable="MY_KEY")
    assert "sk" not in told(error.value).partition("UserError")[2]
    assert Endpoint("http://localhost", "m", " sk-words-of-a-file\n").client.token[-1] == "e"


def test_the_library_s_own_logs_for_debugging(monkeypatch, caplog) -> None:
    """Its sessions' loggers write all headers of an answer."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.DEBUG)
    root.addHandler(handler)
    try:
        with Talker(answers, in_turn(says(t.completion("x"), headers={"X-Echo": ECHO}))) as talker:
            Endpoint(talker.url, "m", KEY).ask(Question("?"))
    finally:
        root.removeHandler(handler)
    assert safe(stream.getvalue())
