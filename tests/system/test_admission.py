"""A real web server that cannot keep up: who is turned away is told so, in turn, and the connection goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest
from twilio.request_validator import RequestValidator

from app.store.inbox import Inbox
from tests.cast import ACCOUNT, ANNA, said
from tests.system.house import awaited, free_port

TOKEN = "0123456789abcdef0123456789abcdef"
URL = "https://offhook.example"
SPOKEN = said("participant-speech-start", ANNA, number=3, second=2)
JOINED = said("participant-join", ANNA, number=2, second=1)
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def post(told: Mapping[str, str], *headers: str) -> bytes:
    body = urlencode(told)
    signature = RequestValidator(TOKEN).compute_signature(f"{URL}/webhooks/twilio", told)
    lines = ["Host: x", f"X-Twilio-Signature: {signature}", *headers]
    if not any("chunked" in header for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    else:
        body = f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"
    lines += ["Content-Type: application/x-www-form-urlencoded"]
    return "\r\n".join(["POST /webhooks/twilio HTTP/1.1", *lines, "", body]).encode()


@pytest.fixture
def port(valkey: str, redis: object) -> Iterator[int]:
    """Of a web server of one process that takes itself to be behind."""
    port = free_port()
    environ = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "PUBLIC_URL": URL,
        "REDIS_URL": valkey,
        "OFFHOOK_SHARDS": "4",
        "OFFHOOK_SPOOL": "off",
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn", "--workers", "1"]
    command += ["--bind", f"127.0.0.1:{port}", "tests.system.pressed:main()"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as server:
        try:
            awaited("a web server", lambda: answering(port))
            yield port
        finally:
            server.terminate()


def answering(port: int) -> bool:
    try:
        with connected(port) as (_, send):
            return send(HEALTHZ, 1) == [200]
    except OSError:
        return False


@contextmanager
def connected(port: int) -> Iterator[tuple[socket.socket, object]]:
    """A connection, and what sends on it and returns so many statuses."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:

        def send(requests: bytes, answers: int) -> list[int]:
            connection.sendall(requests)
            heard = b""
            while heard.count(b"HTTP/1.1 ") < answers and (more := connection.recv(65536)):
                heard += more
            return [int(part[:3]) for part in heard.split(b"HTTP/1.1 ")[1:]]

        yield connection, send


def test_on_a_kept_connection_each_request_has_its_own_answer(port: int, inbox: Inbox) -> None:
    with connected(port) as (_, send):
        for _ in range(3):
            assert send(post(SPOKEN), 1) == [503]
            assert send(post(JOINED), 1) == [204]
            assert send(HEALTHZ, 1) == [200]
            assert send(post(SPOKEN, "Transfer-Encoding: chunked"), 1) == [503]
        assert send(post(SPOKEN) + post(JOINED) + HEALTHZ + post(SPOKEN) + HEALTHZ, 5) == [503, 204, 200, 503, 200]
    assert sum(shard.waiting for shard in inbox.backlog()) == 4


def test_who_asks_for_the_end_of_the_connection_gets_its_answer_and_the_end(port: int) -> None:
    with connected(port) as (connection, send):
        assert send(post(SPOKEN, "Connection: close"), 1) == [503]
        awaited("the end", lambda: connection.recv(1) == b"")


def test_a_body_that_looks_like_a_callback_is_not_taken_for_one(port: int) -> None:
    """Else who shares a connection behind a proxy could be given another's answer."""
    inner = post(SPOKEN)
    head = f"POST /session HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: {len(inner)}\r\n\r\n"
    with connected(port) as (connection, send):
        assert send(post(JOINED), 1) == [204]
        connection.sendall(head.encode())
        assert send(inner + HEALTHZ, 2) == [403, 200]


def test_a_client_that_sends_slowly_is_waited_for(port: int) -> None:
    with connected(port) as (connection, send):
        whole = post(JOINED)
        connection.sendall(whole[:50])
        with connected(port) as (_, other):
            assert other(HEALTHZ, 1) == [200]
        assert send(whole[50:], 1) == [204]
