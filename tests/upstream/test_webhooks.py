"""Alerts go out signed, to the address that was looked at, and nowhere into our own network unless that is allowed."""

from __future__ import annotations

import socket
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.upstream import webhooks
from app.upstream.webhooks import Endpoint, is_public, signature

SECRET = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
BODY = b'{"test": 2432232314}'
MESSAGE, MOMENT = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
"""What the libraries of Standard Webhooks are tested with."""


class Receiver(ThreadingHTTPServer):
    """Somebody who is told of alerts, and what they got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 204
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.port = self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers.items()), body))
        self.send_response(self.server.status)
        self.send_header("Location", f"http://127.0.0.1:{self.server.port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def test_a_signature_is_as_standard_webhooks_has_it() -> None:
    assert signature([SECRET], MESSAGE, MOMENT, BODY) == SIGNATURE
    assert signature([b"another", SECRET], MESSAGE, MOMENT, BODY).split(" ")[1] == SIGNATURE


def test_a_message_is_sent_signed(receiver: Receiver) -> None:
    endpoint = Endpoint(f"http://127.0.0.1:{receiver.port}/hook?room=1", [SECRET], private=True)
    assert endpoint.send(MESSAGE, MOMENT, BODY).result == "delivered"
    [(path, headers, body)] = receiver.got
    assert (path, body) == ("/hook?room=1", BODY)
    assert headers["webhook-id"] == MESSAGE
    assert headers["webhook-timestamp"] == str(MOMENT)
    assert headers["webhook-signature"] == SIGNATURE
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "result"),
    [(200, "delivered"), (302, "failed"), (307, "failed"), (400, "failed"), (410, "gone"), (503, "failed")],
)
def test_only_2xx_is_success_and_no_redirect_is_followed(receiver: Receiver, status: int, result: str) -> None:
    receiver.status = status
    outcome = Endpoint(f"http://127.0.0.1:{receiver.port}/", [SECRET], private=True).send(MESSAGE, MOMENT, BODY)
    assert outcome == (result, f"HTTP {status}")
    assert [path for path, *_ in receiver.got] == ["/"]


@pytest.mark.parametrize("url", ["https://127.0.0.1:{port}/", "https://localhost:{port}/", "http://127.0.0.1:{port}/"])
def test_our_own_network_gets_nothing(receiver: Receiver, url: str) -> None:
    outcome = Endpoint(url.format(port=receiver.port), [SECRET]).send(MESSAGE, MOMENT, BODY)
    assert outcome.result == "failed"
    assert outcome.reason in ("its name leads into a private network", "not https")
    assert receiver.got == []


def test_a_name_that_leads_both_out_and_in_gets_nothing() -> None:
    endpoint = Endpoint("https://hooks.example/", [SECRET], resolve=lambda *_: ["93.184.215.14", "10.0.0.1"])
    assert endpoint.send(MESSAGE, MOMENT, BODY).reason == "its name leads into a private network"


def test_it_connects_to_the_address_that_was_looked_at_whatever_the_name_means_afterwards(receiver: Receiver) -> None:
    asked: list[str] = []

    def resolve(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["192.0.2.1"]

    endpoint = Endpoint(f"http://hooks.example:{receiver.port}/", [SECRET], private=True, resolve=resolve)
    assert endpoint.send(MESSAGE, MOMENT, BODY).result == "delivered"
    assert asked == ["hooks.example"]
    assert receiver.got[0][1]["Host"] == f"hooks.example:{receiver.port}"


def test_an_address_of_ipv6_may_stand_in_the_url(receiver: Receiver) -> None:
    url = f"http://[fd00::a]:{receiver.port}/"
    endpoint = Endpoint(url, [SECRET], private=True, resolve=lambda host, _: {"fd00::a": ["127.0.0.1"]}[host])
    assert endpoint.send(MESSAGE, MOMENT, BODY).result == "delivered"
    assert receiver.got[0][1]["Host"] == f"[fd00::a]:{receiver.port}"


def test_with_tls_the_name_is_asked_for_not_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        hello: list[bytes] = []

        def listen() -> None:
            connection, _ = server.accept()
            with connection:
                hello.append(connection.recv(4096))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        endpoint = Endpoint(f"https://hooks.example:{port}/", [SECRET], private=True, resolve=lambda *_: ["127.0.0.1"])
        assert endpoint.send(MESSAGE, MOMENT, BODY).result == "failed"
        thread.join(10)
    assert b"hooks.example" in hello[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_answer_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(webhooks, "WITHIN", 0.5)
    # a head that goes on and on, or one large record of TLS in single bytes
    drops = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000 if scheme == "http" else b"\x16\x03\x03\x40\x00" + bytes(10_000)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                for number in range(len(drops)):
                    connection.sendall(drops[number : number + 1])
                    time.sleep(0.01)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        endpoint = Endpoint(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/", [SECRET], private=True)
        began = time.monotonic()
        assert endpoint.send(MESSAGE, MOMENT, BODY) == ("failed", "it did not answer in time")
        assert time.monotonic() - began < 3
        thread.join(10)


def test_after_a_name_that_took_too_long_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setattr(webhooks, "WITHIN", 0.01)

    def resolve(*_: Any) -> list[str]:
        time.sleep(0.02)
        return ["127.0.0.1"]

    endpoint = Endpoint(f"http://hooks.example:{receiver.port}/", [SECRET], private=True, resolve=resolve)
    assert endpoint.send(MESSAGE, MOMENT, BODY).result == "failed"
    assert receiver.got == []


def test_no_proxy_of_the_environment_gets_anything(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    with Receiver() as proxy:  # which nobody serves: whoever asks it waits
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        outcome = Endpoint(f"http://127.0.0.1:{receiver.port}/", [SECRET], private=True).send(MESSAGE, MOMENT, BODY)
    assert outcome.result == "delivered"


def test_a_failure_says_nothing_of_where_it_was_sent(receiver: Receiver) -> None:
    receiver.status, hidden = 500, "n0t-t0-be-seen"
    for url, addresses in (
        (f"http://{hidden}.example:{receiver.port}/{hidden}?{hidden}", ["127.0.0.1"]),
        (f"http://{hidden}.example:{receiver.port}/{hidden}\x7f", ["127.0.0.1"]),
        (f"https://{hidden}.example/{hidden}", ["10.0.0.1"]),
    ):
        endpoint = Endpoint(url, [SECRET], private=url.startswith("http:"), resolve=lambda *_, to=addresses: to)
        outcome = endpoint.send(MESSAGE, MOMENT, BODY)
        assert outcome.result == "failed"
        assert hidden not in f"{outcome} {endpoint!r} {endpoint.name}"


def test_a_name_that_is_not_known_and_a_port_where_nobody_is_are_failures() -> None:
    def unknown(*_: Any) -> list[str]:
        raise socket.gaierror("Name or service not known")

    assert Endpoint("https://no.example/", [SECRET], resolve=unknown).send(MESSAGE, MOMENT, BODY).result == "failed"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    nobody = Endpoint(f"http://127.0.0.1:{port}/", [SECRET], private=True).send(MESSAGE, MOMENT, BODY)
    assert nobody == ("failed", "it cannot be connected to")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::1", "64:ff9b:1::1", "fec0::1", "::a00:1", "5f00::1"),
        *("168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110", "2002:a83f:8110::", "192.0.0.192"),
        *("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:0:4136:e378:8000:63bf:f5ff:fffe"),
    ],
)
def test_an_address_that_is_not_out_in_the_internet_is_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_an_address_out_in_the_internet_is_known(address: str) -> None:
    assert is_public(address)
