"""Endpoint: what is sent, what is asked again, what is not, how threads take turns."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import talker as t
from PIL import Image
from talker import Talker, in_turn, says, status
from tiny import tiny_vlm

from nanoaes.chat import Cut, Question, shown
from nanoaes.endpoint import Endpoint
from nanoaes.errors import NoAnswer, Refused, UserError
from nanoaes.turns import Turns, retry_after
from nanoaes.wire import address

SAID = "A strong picture."


def answers(messages: t.Messages) -> str:
    return SAID


def endpoint(talker: Talker, **more) -> Endpoint:
    return Endpoint(talker.url, "some-model", **{"pause": 0.01, "timeout": 5.0, **more})


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph of 90 x 130, turned by Exif: it is seen as 130 wide."""
    exif = Image.Exif()
    exif[0x0112] = 6
    levels = np.linspace(0, 255, 90 * 130 * 3).reshape(130, 90, 3).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "photo.jpg", quality=95, exif=exif)
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/chat/completions",
                                 "/v1/chat/completions/"])
def test_addresses_that_people_type(end: str) -> None:
    with Talker(answers) as talker:
        assert Endpoint(talker.url + end, "m").ask(Question("How is it?")) == SAID


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "http://host:port/v1",
                                 "http://host:99999", "http://[::1/v1"])
def test_no_address(url: str) -> None:
    with pytest.raises(UserError, match="write it as http://localhost:8000/v1"):
        Endpoint(url, "m")


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="leave user and password out") as error:
        Endpoint("https://me:sesame@host/v1", "m")
    assert "sesame" not in str(error.value)
    assert address("http://host:80/v1/?api-version=2#x") == "http://host:80/v1?api-version=2"


def test_what_is_sent(photo: Path) -> None:
    """The picture, as the student sees it, before the words; no key, not even a stored one."""
    with Talker(answers) as talker:
        asked = endpoint(talker, max_pixels=5000, max_new_tokens=77, seed=3)
        asked.ask(Question("How is it?", photo, temperature=0.7, place=5))
        asked.ask(Question("And now?"))
        asked.ask(Question("And now?", place=1))
    first, second, third = (heard.body for heard in talker.heard)
    kinds = [part["type"] for part in first["messages"][0]["content"]]
    assert kinds == ["image_url", "text"] and first["messages"][0]["role"] == "user"
    sent = t.picture(first["messages"]).convert("RGB")
    student = tiny_vlm().asking
    assert student.min_pixels == 56 * 56
    assert sent.size == shown(photo, 5000).size == (84, 56)
    assert np.abs(np.int32(sent) - np.int32(shown(photo, 5000))).mean() < 3
    assert t.words(first["messages"]) == "How is it?" and t.words(second["messages"]) == "And now?"
    assert (first["model"], first["max_tokens"], first["temperature"]) == ("some-model", 77, 0.7)
    assert len({body["seed"] for body in (first, second, third)}) == 3
    assert "authorization" not in talker.heard[0].headers
    assert asked.name == "some-model"


def test_a_hub_token_that_is_stored_goes_nowhere(monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_a_token_of_the_hub")
    with Talker(answers) as talker:
        endpoint(talker).ask(Question("?"))
        endpoint(talker, key="sk-mine-and-secret").ask(Question("?"))
    assert "authorization" not in talker.heard[0].headers
    assert talker.heard[1].headers["authorization"] == "Bearer sk-mine-and-secret"
    assert "hf_a_token" not in str(talker.heard)


AGAIN = {"429": status(429), "500": status(500), "503": status(503, retry_after="0"),
         "408": status(408), "529": status(529), "late": t.late(0.5), "hung up": t.hang_up,
         "cut off": t.cut_off, "half JSON": t.HALF_JSON, "no choices": t.NO_CHOICES,
         "empty": t.EMPTY, "a page": t.A_PAGE, "other JSON": says("[1, 2]"),
         "a number": says('{"choices": [1]}'), "choices are text": says('{"choices": "none"}'),
         "no message": says('{"choices": [{"message": "hello"}]}'),
         "no text": says('{"choices": [{"message": {"content": {"a": 1}}}]}'),
         "deep": says("[" * 100_000), "not UTF-8": says(b'"\xff\xfe"'),
         "odd error": says('["error"]', 500), "odd errors": says('{"errors": [1]}', 502),
         "no gzip": says("abc", headers={"Content-Encoding": "gzip"})}


@pytest.mark.parametrize("name", AGAIN)
def test_asked_again(name: str) -> None:
    """Twice so, then an answer; with so many tries as are allowed, none, and which it was."""
    with Talker(answers, in_turn(AGAIN[name], AGAIN[name], None, *[AGAIN[name]] * 3)) as talker:
        asked = endpoint(talker, tries=3, timeout=0.3)
        assert asked.ask(Question("?")) == SAID
        assert asked.spent.take()["requests"] == 3
        with pytest.raises(NoAnswer, match="no answer in 3 tries, the last: "):
            asked.ask(Question("?"))
        assert talker.count == 6 and asked.spent.take()["requests"] == 3


@pytest.mark.parametrize("after", [None, "0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_later_each_time(after: str | None) -> None:
    """Random between a half and the whole of pause, twice pause, and so on; also where a server
    that is overloaded says: at once."""
    with Talker(answers, in_turn(*[status(500, retry_after=after)] * 4)) as talker:
        endpoint(talker, pause=0.08).ask(Question("?"))
    at = [heard.at for heard in talker.heard]
    for number, (before, after) in enumerate(zip(at, at[1:], strict=False)):
        assert 0.04 * 2**number <= after - before < 0.08 * 2**number + 0.15


def test_completions_that_differ_in_form_are_read() -> None:
    parts = t.completion("").replace(b'"content": ""', b'"content": [{"type": "text", "text": '
                                     b'"A strong"}, {"type": "text", "text": " picture."}]')
    forms = [says(parts), says(t.completion(SAID), headers={"Content-Type": "text/plain"}),
             says(b"\n \n" + t.completion(f"\n {SAID} ")), says(t.completion(SAID), 201),
             says(t.completion(f"<think>Hm. </think>\n\n{SAID}")),
             says(t.completion(f"Hm.\n</think>{SAID}")),
             says(t.completion(SAID).replace(b'"usage"', b'"other"'))]
    with Talker(answers, in_turn(*forms)) as talker:
        asked = endpoint(talker)
        assert [asked.ask(Question("?")) for _ in forms] == [SAID] * len(forms)
    assert talker.count == len(forms)


@pytest.mark.parametrize("fault, kind, why", [
    (t.REFUSES, Refused, r"^I cannot judge this person\.$"),
    (t.FILTERS, Refused, "filter"),
    (says(t.completion("I am unable to.", end="content_filter")), Refused, r"^I am unable to\.$"),
    (status(400, "The response was filtered: content_filter"), Refused, "filtered"),
    (t.TOO_LONG, Cut, "longer than 1024 tokens"),
    (says(t.completion("", end="length")), Cut, "longer"),
])
def test_not_asked_again(fault: t.Fault, kind: type, why: str) -> None:
    with Talker(answers, in_turn(fault)) as talker:
        asked = endpoint(talker)
        with pytest.raises(kind, match=why):
            asked.ask(Question("?"))
        assert talker.count == 1
        assert asked.ask(Question("?")) == SAID  # the run goes on


@pytest.mark.parametrize("fault, remedy", [
    (status(401, "bad key"), r"does not take the key \(401: bad key\); set MY_KEY"),
    (status(403), "set MY_KEY"),
    (status(404, "no model abc"), r"no model some-model, .*\(404: no model abc\)"),
    (status(402, "pay"), "account has nothing left"),
    (says('{"error": {"message": "Quota", "code": "insufficient_quota"}}', 429), "nothing left"),
    (status(301, location="http://[::1"), r"sends elsewhere \(301: no address\)"),
    (status(301, location="https://elsewhere.example/v1?key=1"),
     r"sends elsewhere \(301: https://elsewhere.example/v1\)"),
])
def test_what_no_question_mends(fault: t.Fault, remedy: str) -> None:
    with Talker(answers, in_turn(fault)) as talker, pytest.raises(UserError, match=remedy):
        endpoint(talker, variable="MY_KEY").ask(Question("?"))
    assert talker.count == 1


def test_a_picture_that_is_not_taken_ends_no_run() -> None:
    """400, 413, 422, and 403 from a server that has answered: the question's own fault."""
    faults = [status(400, "too large"), None, status(413), status(422), status(403, "flagged"),
              status(400), status(400), status(400), status(400), None]
    with Talker(answers, in_turn(*faults)) as talker:
        asked = endpoint(talker)
        for fault in faults:
            if fault is None:
                assert asked.ask(Question("?")) == SAID
            else:
                with pytest.raises(NoAnswer, match="not taken"):
                    asked.ask(Question("?"))
    assert talker.count == len(faults)


def test_settings_that_a_model_does_not_take_are_left_out(capsys) -> None:
    """As OpenAI's reasoning models and strict servers say it; said once, by whichever thread."""
    said = {"max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. "
                          "Use 'max_completion_tokens' instead.",
            "temperature": "Unsupported value: 'temperature' does not support 0.7 with this model.",
            "seed": "seed: Extra inputs are not permitted"}

    def strict(request: t.Handler) -> None:
        wrong = next((name for name in said if name in request.body), "")
        (status(400, said[wrong]) if wrong else says(t.completion(SAID)))(request)

    with Talker(answers, lambda: strict) as talker:
        asked = endpoint(talker, max_new_tokens=77)
        ask_all(asked, 8, 8)
        assert capsys.readouterr().out.count("does not take") == 3
        talker.heard.clear()
        asked.ask(Question("?", temperature=0.7))
    (heard,) = talker.heard
    assert heard.body["max_completion_tokens"] == 77 and not heard.body.keys() & said.keys()
    with Talker(answers, lambda: status(400, "max_tokens is too large")) as talker:
        with pytest.raises(NoAnswer, match="too large"):
            endpoint(talker).ask(Question("?"))
        assert talker.count == 1


def test_a_server_that_has_taken_nothing_ends_the_run() -> None:
    with Talker(answers, lambda: status(400, "no pictures here")) as talker:
        asked = endpoint(talker)
        for _ in range(2):
            with pytest.raises(NoAnswer, match="no pictures here"):
                asked.ask(Question("?"))
        with pytest.raises(UserError, match="none of the first 3 .*no pictures here"):
            asked.ask(Question("?"))


def test_nobody_there() -> None:
    """From the start, and from when on a server is gone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=rf"127.0.0.1:{port} cannot be reached .*refused.*start"):
        Endpoint(f"http://127.0.0.1:{port}", "m", pause=0.01).ask(Question("?"))
    with Talker(answers) as talker:
        asked = endpoint(talker)
        asked.ask(Question("?"))
        asked.heard = time.monotonic() + 60  # others are answered meanwhile
    with pytest.raises(NoAnswer, match="in 6 tries"):
        asked.ask(Question("?"))
    asked.heard = time.monotonic() - 60
    with pytest.raises(UserError, match="cannot be reached"):
        asked.ask(Question("?"))


def test_offline_says_so(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    with Talker(answers) as talker, pytest.raises(UserError, match="unset it"):
        endpoint(talker).ask(Question("?"))


def ask_all(asked: Endpoint, n: int, threads: int) -> list[float]:
    """Seconds from the start until each is answered, sorted."""
    start, taken = time.monotonic(), []

    def one(_: int) -> None:
        assert asked.ask(Question("?")) == SAID
        taken.append(time.monotonic() - start)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(n)))
    return sorted(taken)


@pytest.mark.parametrize("header", ["1", "date"])
def test_retry_after_holds_all_threads_back(header: str) -> None:
    """And they do not come back all at once."""
    until = time.time() + 2
    value = formatdate(until, usegmt=True) if header == "date" else header
    with Talker(answers, in_turn(status(429, retry_after=value))) as talker:
        asked = endpoint(talker)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(asked.ask, Question("?"))
            time.sleep(0.3)
            assert talker.count == 1
            ask_all(asked, 20, 20)
            assert first.result() == SAID
    first, *others = [heard.at for heard in talker.heard]
    assert len(others) == 21
    least = 1.0 if header == "1" else 0.9  # a date has whole seconds
    assert least <= others[0] - first < 3
    assert max(others) - min(others) > 0.05


def test_rate_is_of_all_threads() -> None:
    """1,200 a minute by 10 threads: one each 50 ms, none beside another."""
    with Talker(answers) as talker:
        ask_all(endpoint(talker, rate=1200), 20, 10)
    at = [heard.at for heard in talker.heard]
    gaps = np.diff(at)
    assert 0.9 <= at[-1] - at[0] < 1.6 and gaps.min() > 0.01


def test_rate_holds_behind_a_pause() -> None:
    """Those that have waited through a pause take turns again."""
    turns, at = Turns(1200, lambda: False), []

    def one() -> None:
        turns.turn()
        at.append(time.monotonic())

    turns.turn()
    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.12)
    began, before = time.monotonic(), len(at)
    turns.hold(0.5)
    for thread in threads:
        thread.join()
    behind = sorted(at)[before:]
    assert len(behind) >= 4 and behind[0] - began >= 0.5
    assert np.diff(behind).min() > 0.03


def test_a_shorter_pause_shortens_none() -> None:
    turns = Turns(0, lambda: False)
    began = time.monotonic()
    turns.hold(0.4)
    turns.hold(0.1)
    turns.turn()
    assert time.monotonic() - began >= 0.4
    quick = Turns(600, lambda: False)
    quick.turn()
    began = time.monotonic()
    quick.hold(0)
    quick.turn()
    assert time.monotonic() - began >= 0.09  # a pause does not jump the queue either
    turns.hold(1e9)
    assert turns.held - time.monotonic() <= 600


def test_who_queues_is_not_lost() -> None:
    """Three tries, and a server that turns two of three requests away while it answers others."""
    number = count()
    with Talker(answers, lambda: status(429) if next(number) % 3 else None) as talker:
        asked = endpoint(talker, tries=3, pause=0.01)
        asked.turns.wait = lambda seconds: time.sleep(min(seconds, 0.02))
        ask_all(asked, 40, 10)
    assert talker.count == pytest.approx(120, abs=20)


def test_retry_after_reads_numbers_and_dates() -> None:
    assert retry_after("7") == 7 and retry_after("0.5") == 0.5
    assert retry_after("") is None and retry_after("soon") is None
    assert retry_after(formatdate(time.time() + 90, usegmt=True)) == pytest.approx(90, abs=2)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("nan") is None and retry_after("-3") is None


def test_stop_ends_all_waiting() -> None:
    halt = threading.Event()
    with Talker(answers, lambda: status(429, retry_after="30")) as talker:
        asked = endpoint(talker, stop=halt.is_set)
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(asked.ask, Question("?")) for _ in range(4)]
            time.sleep(0.3)
            halt.set()
            began = time.monotonic()
            for one in waiting:
                with pytest.raises(NoAnswer, match="stopped"):
                    one.result()
        assert time.monotonic() - began < 1
        count = talker.count
        with pytest.raises(NoAnswer, match="stopped"):
            asked.ask(Question("?"))
    assert talker.count == count


def test_what_is_spent_is_each_threads_own() -> None:
    with Talker(answers, in_turn(None, t.EMPTY, status(500))) as talker:
        asked = endpoint(talker)
        asked.ask(Question("?"))
        assert asked.spent.take() == {"asked": 100, "answered": 4, "requests": 1}
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asked.ask, Question("?")).result()
            assert asked.spent.take() == {"asked": 0, "answered": 0, "requests": 0}
            found = pool.submit(asked.spent.take).result()
    assert found == {"asked": 200, "answered": 4, "requests": 3}


def test_threads_fill_the_server() -> None:
    """8 at once, 20 ms each: 400 in a second; a fifth is allowed to be lost."""
    with Talker(answers, at_once=8, service=0.02) as talker:
        asked = endpoint(talker)
        ask_all(asked, 16, 8)
        taken = ask_all(asked, 240, 8)[-1]
    assert 240 / taken > 0.5 * 8 / 0.02  # of a busy machine; bench/cot.py measures it


@pytest.mark.parametrize("field, text", [
    ('"get": 1, "content": "hi"', "hi"), (r'"content": "a \ud83d sky"', "a ? sky")])
def test_what_a_message_may_hold(field: str, text: str) -> None:
    """A field with the name of a method; half of a character, which no file could take."""
    body = f'{{"choices": [{{"message": {{"role": "assistant", {field}}}}}]}}'
    with Talker(answers, in_turn(says(body))) as talker:
        assert endpoint(talker).ask(Question("?")) == text


def test_where_an_error_points_to_is_not_what_it_says() -> None:
    fault = status(404, "no such model", location="/docs")
    with Talker(answers, in_turn(fault)) as talker, pytest.raises(UserError, match="404: no such"):
        endpoint(talker).ask(Question("?"))
