"""Passing on is exact: what is sent arrives as it was, once, with the right credentials, and leaves no trace here."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from email.message import Message
from email.parser import BytesHeaderParser
from queue import Empty, Queue
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.twilio.signature import form_fields
from app.upstream import api
from app.upstream.api import FORWARDED_BY, Answer, Busy, Twilio, Unanswered
from tests.cast import ACCOUNT, TOKEN

OTHER, OTHERS_TOKEN = "AC" + "9" * 32, "another: token"
LOGINS = {ACCOUNT: (ACCOUNT, TOKEN.encode()), OTHER: ("SK" + "9" * 32, OTHERS_TOKEN.encode())}
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences/a%2Fb%20%C3%BC/Participants.json"
BODY = b"To=%2B15550123456&Label=anna"


class Received(NamedTuple):
    """A request as the server got it."""

    line: str
    headers: Message
    body: bytes

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]


Talk = Callable[[socket.socket, Received], bool]
"""Says something to a request; whether the connection stays open for another."""


def answer(status: str = "200 OK", body: bytes = b"{}", *headers: str) -> bytes:
    """An answer's bytes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def saying(words: bytes) -> Talk:
    """Always answers so, and keeps the connection."""

    def talk(connection: socket.socket, _: Received) -> bool:
        connection.sendall(words)
        return True

    return talk


class Server:
    """A server at socket level that keeps what it got."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.received: list[Received] = []
        self.connections = 0
        self.arrived: Queue[Received] = Queue()
        self.hung_up: Queue[None] = Queue()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.open: list[socket.socket] = []

    def run(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self.listening.accept()
                self.connections += 1
                self.open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while (request := _read(connection)) is not None:
                self.received.append(request)
                self.arrived.put(request)
                if not self.talk(connection, request):
                    break
        connection.close()
        self.hung_up.put(None)

    def close(self) -> None:
        self.listening.close()
        for connection in self.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _read(connection: socket.socket) -> Received | None:
    raw = b""
    while b"\r\n\r\n" not in raw:
        more = connection.recv(65536)
        if not more:
            return None
        raw += more
    head, _, body = raw.partition(b"\r\n\r\n")
    line, _, lines = head.partition(b"\r\n")
    headers = BytesHeaderParser().parsebytes(lines)
    while len(body) < int(headers.get("Content-Length", 0)):
        body += connection.recv(65536)
    return Received(line.decode("latin-1"), headers, body)


@contextmanager
def serving(talk: Talk) -> Iterator[Server]:
    """A server that talks so while the block lasts."""
    server = Server(talk)
    threading.Thread(target=server.run, daemon=True).start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Talk], Server]]:
    """Starts servers, and ends them with the test."""
    with ExitStack() as stack:
        yield lambda talk: stack.enter_context(serving(talk))


@pytest.fixture(scope="module")
def patient() -> Iterator[tuple[Server, Twilio]]:
    """One server that always says yes, for tests that send a great deal."""
    with serving(saying(answer())) as server:
        yield server, Twilio(server.origin, LOGINS)


Serve = Callable[[Talk], Server]
many = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# What arrives


@many
@given(body=st.binary(min_size=1, max_size=2000))
@example(body=b"Label=b%C3%BCro&Label=caf%e9&Unknown=%&=&&a+b=c%20d&%7e=~&100%=%zz")
@example(body="To=+1555 0100&Näme=ü".encode())
def test_a_body_arrives_byte_for_byte_and_once(patient: tuple[Server, Twilio], body: bytes) -> None:
    server, twilio = patient
    server.received.clear()
    assert twilio.send("POST", ACCOUNT, PATH, body).status == 200
    [request] = server.received
    assert request.body == body
    assert request.line == f"POST {PATH} HTTP/1.1"
    assert request.headers.get_all("Content-Type") == ["application/x-www-form-urlencoded"]


@many
@given(fields=st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.text(max_size=0))))
@example(
    fields=[("StatusCallbackEvent", "initiated"), ("StatusCallbackEvent", "ringing"), ("NotYetKnown", "100% & ü/?#")]
)
def test_a_query_arrives_as_sent_and_once(patient: tuple[Server, Twilio], fields: list[tuple[str, str]]) -> None:
    server, twilio = patient
    server.received.clear()
    query = urlencode(fields)
    twilio.send("DELETE", ACCOUNT, f"{PATH}?{query}" if query else PATH, b"")
    [request] = server.received
    assert request.target == (f"{PATH}?{query}" if query else PATH)


@pytest.mark.parametrize(
    "query",
    [
        *("a=%7e%2D%41", "a=%c3%bc", "a=it's", "a=b&&=c&d", "a=%252F"),
        *('a={"b"}|^`', "a=%26b=c", "a=+b", "a=b?c/d", "a=1;b=2"),
    ],
)
def test_an_oddly_written_query_still_says_the_same(patient: tuple[Server, Twilio], query: str) -> None:
    server, twilio = patient
    server.received.clear()
    twilio.send("POST", ACCOUNT, f"{PATH}?{query}", b"")
    [request] = server.received
    assert form_fields(request.target.partition("?")[2].encode()) == form_fields(query.encode())


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_request_without_a_body_has_none_at_twilio(patient: tuple[Server, Twilio], method: str) -> None:
    server, twilio = patient
    server.received.clear()
    twilio.send(method, ACCOUNT, PATH, b"")
    [request] = server.received
    assert (request.line, request.body) == (f"{method} {PATH} HTTP/1.1", b"")
    assert "Content-Type" not in request.headers
    assert request.headers.get("Content-Length", "0") == "0"


def test_each_account_has_its_own_credentials(patient: tuple[Server, Twilio]) -> None:
    server, twilio = patient
    for account, (name, secret) in LOGINS.items():
        server.received.clear()
        twilio.send("POST", account, PATH, BODY)
        [request] = server.received
        assert request.headers.get_all("Authorization") == ["Basic " + b64encode(f"{name}:".encode() + secret).decode()]


def test_an_account_without_credentials_cannot_be_reached(patient: tuple[Server, Twilio]) -> None:
    _, twilio = patient
    assert twilio.can_reach(ACCOUNT)
    assert not twilio.can_reach("AC" + "0" * 32)


def test_what_we_send_says_that_it_is_ours_and_asks_for_json(patient: tuple[Server, Twilio]) -> None:
    server, twilio = patient
    server.received.clear()
    twilio.send("POST", ACCOUNT, PATH, BODY)
    [request] = server.received
    assert request.headers["Accept"] == "application/json"
    assert request.headers["User-Agent"].startswith("offhook/")
    assert request.headers[FORWARDED_BY]


def test_credentials_of_the_machine_are_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = serve(saying(answer()))
    Twilio(server.origin, LOGINS).send("POST", ACCOUNT, PATH, BODY)
    [request] = server.received
    assert request.headers["Authorization"] == "Basic " + b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()


# What comes back


@pytest.mark.parametrize(
    ("status", "code"), [("201 Created", 201), ("400 Bad Request", 400), ("404 Not Found", 404), ("500 Oh", 500)]
)
def test_an_answer_comes_back_as_it_was(serve: Serve, status: str, code: int) -> None:
    body = '{"friendly_name": "Büro \\u00e9", "a" : 1}\n'.encode()
    server = serve(saying(answer(status, body, "Content-Type: application/json;charset=utf-8")))
    got = Twilio(server.origin, LOGINS).send("POST", ACCOUNT, PATH, BODY)
    assert got == Answer(code, {"Content-Type": "application/json;charset=utf-8"}, body)


def test_an_answer_without_a_body_comes_back_without_one(serve: Serve) -> None:
    server = serve(saying(b"HTTP/1.1 204 No Content\r\nTwilio-Request-Id: RQ1\r\n\r\n"))
    assert Twilio(server.origin, LOGINS).send("DELETE", ACCOUNT, PATH, b"") == Answer(
        204, {"Twilio-Request-Id": "RQ1"}, b""
    )


@pytest.mark.parametrize("media", ["text/plain", "application/json", "text/html; charset=iso-8859-1"])
def test_no_encoding_is_guessed(serve: Serve, media: str) -> None:
    server = serve(saying(answer("200 OK", "„Büro“".encode(), f"Content-Type: {media}")))
    assert Twilio(server.origin, LOGINS).send("POST", ACCOUNT, PATH, BODY).body == "„Büro“".encode()


def test_a_compressed_answer_is_unpacked(serve: Serve) -> None:
    server = serve(saying(answer("200 OK", gzip.compress(b'{"a":1}'), "Content-Encoding: gzip")))
    assert Twilio(server.origin, LOGINS).send("POST", ACCOUNT, PATH, BODY) == Answer(200, {}, b'{"a":1}')


def test_only_known_headers_come_back(serve: Serve) -> None:
    kept = {
        "Content-Type": "application/json",
        "Twilio-Request-Id": "RQ1",
        "Twilio-Concurrent-Requests": "1",
        "Retry-After": "3",
        "X-Home-Region": "us1",
        "X-API-Domain": "api.twilio.com",
    }
    others = {
        "Set-Cookie": "session=1",
        "Location": "/elsewhere",
        "Access-Control-Allow-Origin": "*",
        "Strict-Transport-Security": "max-age=31536000",
        "X-Powered-By": "AT-5000",
        "ETag": '"1"',
        "WWW-Authenticate": 'Basic realm="Twilio"',
        "Cache-Control": "public",
        "X-Twilio-Like": "1",
    }
    lines = [f"{name}: {value}" for name, value in {**kept, **others}.items()]
    server = serve(saying(answer("401 Unauthorized", b"{}", *lines)))
    assert Twilio(server.origin, LOGINS).send("POST", ACCOUNT, PATH, BODY).headers == kept


def test_when_an_answer_was_made_is_told_beside_it(serve: Serve) -> None:
    server = serve(saying(answer("200 OK", b"{}", "Date: Sun, 22 Nov 2026 12:00:00 GMT")))
    got = Twilio(server.origin, LOGINS).send("GET", ACCOUNT, PATH, b"")
    assert (got.date, got.headers) == ("Sun, 22 Nov 2026 12:00:00 GMT", {})


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_an_answer_and_is_not_followed(serve: Serve, status: str) -> None:
    elsewhere = serve(saying(answer()))
    server = serve(saying(answer(status, b"", f"Location: {elsewhere.origin}/x")))
    got = Twilio(server.origin, LOGINS).send("POST", ACCOUNT, PATH, BODY)
    assert got == Answer(int(status[:3]), {}, b"")
    assert len(server.received) == 1
    assert not elsewhere.received


@pytest.mark.parametrize("location", [b"http://[", b"mailto:anna", b"http://\xff\xfe/", b"", b"//", b"http://x:y/"])
def test_a_redirect_to_nonsense_is_an_answer_too(serve: Serve, location: bytes) -> None:
    server = serve(saying(b"HTTP/1.1 307 Temporary\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"))
    assert Twilio(server.origin, LOGINS).send("POST", ACCOUNT, PATH, BODY) == Answer(307, {}, b"")
    assert len(server.received) == 1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 Internal", "502 Bad", "503 Away", "504 Late"])
def test_no_answer_makes_it_be_sent_again(serve: Serve, status: str) -> None:
    server = serve(saying(answer(status, b"{}", "Retry-After: 0")))
    got = Twilio(server.origin, LOGINS).send("POST", ACCOUNT, PATH, BODY)
    assert (got.status, got.headers) == (int(status[:3]), {"Retry-After": "0"})
    assert len(server.received) == 1


def test_cookies_are_not_kept(serve: Serve) -> None:
    server = serve(saying(answer("302 Found", b"{}", "Set-Cookie: session=1; Path=/", "Location: /next")))
    twilio = Twilio(server.origin, LOGINS)
    for account in (ACCOUNT, OTHER):
        twilio.send("POST", account, PATH, BODY)
    assert [request.headers["Cookie"] for request in server.received] == [None, None]


def test_many_at_once_get_each_its_own_answer(serve: Serve) -> None:
    def echo(connection: socket.socket, request: Received) -> bool:
        connection.sendall(answer("200 OK", request.body))
        return True

    twilio = Twilio(serve(echo).origin, LOGINS)
    bodies = [f"number={number}".encode() for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda body: twilio.send("POST", ACCOUNT, PATH, body), bodies))
    assert [each.body for each in answers] == bodies


# When no answer comes


def unanswered(twilio: Twilio) -> tuple[bool, bool]:
    """Whether it may have been sent, and whether time ran out."""
    with pytest.raises(Unanswered) as caught:
        twilio.send("POST", ACCOUNT, PATH, BODY)
    assert "555" not in str(caught.value)
    assert "anna" not in str(caught.value)
    return caught.value.sent, caught.value.timed_out


def test_a_port_where_nobody_listens_was_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert unanswered(Twilio(f"http://127.0.0.1:{port}", LOGINS)) == (False, False)


def test_a_name_without_an_address_was_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert unanswered(Twilio("http://api.twilio.example", LOGINS)) == (False, False)


def test_a_connection_that_takes_too_long_was_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", late)
    assert unanswered(Twilio("http://127.0.0.1:9", LOGINS)) == (False, True)


def test_hanging_up_without_an_answer_may_have_been_done_and_is_not_tried_again(serve: Serve) -> None:
    server = serve(lambda connection, request: False)
    assert unanswered(Twilio(server.origin, LOGINS)) == (True, False)
    assert len(server.received) == server.connections == 1


@pytest.mark.parametrize(
    "words", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"HTTP/1.1 2"]
)
def test_an_answer_that_breaks_off_may_have_been_done_and_is_not_asked_for_again(serve: Serve, words: bytes) -> None:
    def talk(connection: socket.socket, _: Received) -> bool:
        connection.sendall(words)
        return False

    server = serve(talk)
    assert unanswered(Twilio(server.origin, LOGINS)) == (True, False)
    assert len(server.received) == server.connections == 1


def test_broken_compression_is_no_answer(serve: Serve) -> None:
    server = serve(saying(answer("200 OK", b"not gzip", "Content-Encoding: gzip")))
    assert unanswered(Twilio(server.origin, LOGINS)) == (True, False)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    "words",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"],
    ids=["all", "head", "body"],
)
def test_silence_may_have_been_done_and_is_not_asked_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    monkeypatch.setattr(api, "PATIENCE", 0.2)
    server = serve(saying(words))
    assert unanswered(Twilio(server.origin, LOGINS)) == (True, True)
    assert len(server.received) == server.connections == 1


def test_a_kept_connection_that_dies_under_a_request_does_not_have_it_sent_twice(serve: Serve) -> None:
    def talk(connection: socket.socket, request: Received) -> bool:
        if request.body == BODY:
            return False
        connection.sendall(answer())
        return True

    server = serve(talk)
    twilio = Twilio(server.origin, LOGINS)
    twilio.send("POST", ACCOUNT, PATH, b"first=1")
    assert unanswered(twilio) == (True, False)
    assert [request.body for request in server.received] == [b"first=1", BODY]
    assert server.connections == 1, "the kept connection was to be used again"


def test_a_kept_connection_that_has_been_closed_is_replaced_and_the_request_sent_once(serve: Serve) -> None:
    def talk(connection: socket.socket, _: Received) -> bool:
        connection.sendall(answer())
        return False

    server = serve(talk)
    twilio = Twilio(server.origin, LOGINS)
    for number in range(3):
        assert twilio.send("POST", ACCOUNT, PATH, b"number=%d" % number).status == 200
        server.hung_up.get(timeout=10)
    assert [request.body for request in server.received] == [b"number=0", b"number=1", b"number=2"]


# When there are too many


def test_too_many_at_once_are_not_sent(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "AT_ONCE", 2)
    gate = threading.Event()

    def talk(connection: socket.socket, _: Received) -> bool:
        gate.wait(20)
        connection.sendall(answer())
        return True

    server = serve(talk)
    twilio = Twilio(server.origin, LOGINS)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(twilio.send, "POST", ACCOUNT, PATH, BODY) for _ in range(2)]
        try:
            for _ in waiting:
                server.arrived.get(timeout=20)
            with pytest.raises(Busy):
                twilio.send("POST", ACCOUNT, PATH, BODY)
        finally:
            gate.set()
        assert [each.result().status for each in waiting] == [200, 200]
    assert len(server.received) == 2
    assert twilio.send("POST", ACCOUNT, PATH, BODY).status == 200


def test_a_failure_gives_its_place_back(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "AT_ONCE", 1)
    server = serve(lambda connection, request: False)
    twilio = Twilio(server.origin, LOGINS)
    assert [unanswered(twilio) for _ in range(3)] == [(True, False)] * 3


# What is not said


@pytest.mark.parametrize("talk", [saying(answer()), lambda connection, request: False], ids=["answered", "hung up"])
def test_nothing_of_it_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture, talk: Talk) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(talk)
    with suppress(Unanswered):
        Twilio(server.origin, LOGINS).send("POST", ACCOUNT, f"{PATH}?Label=anna", BODY)
    said = " ".join(record.getMessage() for record in caplog.records)
    for word in (TOKEN, "5550123456", "anna", b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()):
        assert word not in said


def test_nothing_arrives_that_was_not_sent(serve: Serve) -> None:
    server = serve(saying(answer()))
    Twilio(server.origin, LOGINS)
    with pytest.raises(Empty):
        server.arrived.get_nowait()
