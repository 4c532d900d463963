"""Makes callbacks as Twilio sends them and delivers them over kept connections, flat out or at a steady pace.

Requests that read are delivered in the same way.
"""

from __future__ import annotations

import math
import random
import re
import select
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlencode
from uuid import UUID

from twilio.request_validator import RequestValidator

from app.simulator.stories import story

ACCOUNT = f"AC{'0123456789abcdef' * 2}"
TOKEN = "0123456789abcdef0123456789abcdef"  # of nobody's account
HOST = "offhook.example"
PATH = "/webhooks/twilio"
CONNECTIONS = 16
LONGEST_ANSWER = 15
"""Seconds. Twilio waits no longer either (Twilio docs, Connection Overrides)."""

Parameters = dict[str, str]


def callbacks(count: int) -> list[Parameters]:
    """So many conference callbacks, of whole conferences that overlap; the same ones each time.

    Most have 13 to 15 parameters. Those of a conference are in order.
    """
    rng = random.Random(2026)
    start = datetime(2026, 11, 22, 12, tzinfo=UTC)
    told: list[tuple[float, Parameters]] = []
    while len(told) < count:
        begins = rng.uniform(0, 300)
        told += [
            (begins + callback.at, callback.parameters)
            for callback in story(rng, ACCOUNT, start)
            if "StatusCallbackEvent" in callback.parameters
        ]
    told.sort(key=lambda at_and_parameters: at_and_parameters[0])
    return [parameters for _, parameters in told[:count]]


def request(parameters: Parameters) -> bytes:
    """The signed POST, byte for byte as a proxy that ends TLS would pass it on."""
    body = urlencode(parameters)
    return (
        f"POST {PATH} HTTP/1.1\r\n"
        f"Host: {HOST}\r\n"
        "X-Forwarded-Proto: https\r\n"
        "X-Forwarded-For: 203.0.113.7\r\n"
        "User-Agent: TwilioProxy/1.1\r\n"
        "Accept: */*\r\n"
        "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"I-Twilio-Idempotency-Token: {UUID(parameters['ConferenceSid'][2:])}\r\n"
        f"X-Twilio-Signature: {_validator.compute_signature(f'https://{HOST}{PATH}', parameters)}\r\n"
        f"\r\n{body}"
    ).encode()


def reading(path: str) -> bytes:
    """A GET by the account itself."""
    login = b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic {login}\r\n\r\n".encode()


_validator = RequestValidator(TOKEN)


def take_204(connection: socket.socket) -> None:
    """Read an answer that is to be an empty 204. Raises RuntimeError if it is another."""
    answer = _head(connection)
    if not (answer.startswith(b"HTTP/1.1 204 ") and answer.endswith(b"\r\n\r\n")):
        raise RuntimeError(f"expected an empty 204, and the answer is {answer[:300]!r}")


def take_200(connection: socket.socket) -> None:
    """Read an answer that is to be a 200, to its last byte. Raises RuntimeError if it is another."""
    head, _, body = _head(connection).partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 200 ") or length is None:
        raise RuntimeError(f"expected a 200 with its length, and the answer is {head[:300]!r}")
    left = int(length[1]) - len(body)
    while left > 0:
        left -= len(_more(connection))


LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)", re.IGNORECASE)
MOST_READ = 65536


def _head(connection: socket.socket) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _more(connection)
    return answer


def _more(connection: socket.socket) -> bytes:
    more = connection.recv(MOST_READ)
    if not more:
        raise RuntimeError("the server closed a connection instead of answering")
    return more


class Delivered(NamedTuple):
    """How a delivery went. Every one of its answers was the expected one."""

    answers: int
    began: float
    """By time.perf_counter()."""
    seconds: float
    """From the first request to the last answer."""
    busy: float
    """Share of its core that this generator used. Near 1 it, not the server, was what was measured."""


def deliver(
    port: int,
    requests: Iterator[bytes],
    *,
    seconds: float,
    rate: float | None = None,
    take: Callable[[socket.socket], None] = take_204,
    connections: int = CONNECTIONS,
) -> Delivered:
    """Send on so many connections, one request at a time on each, until the time is up or there are no more.

    With a `rate`, request n is due n / rate seconds after the beginning, whether the server keeps up or not, as long
    as a connection is free. Raises RuntimeError on an answer that `take` does not expect, or on none within 15 s.
    """
    idle = [socket.create_connection(("127.0.0.1", port), LONGEST_ANSWER) for _ in range(connections)]
    for connection in idle:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting: dict[int, socket.socket] = {}
    sent = answers = 0
    used, began = time.process_time(), time.perf_counter()
    upcoming: bytes | None = next(requests)
    with select.epoll() as poll:
        for connection in idle:
            poll.register(connection, select.EPOLLIN)
        try:
            while True:
                passed = time.perf_counter() - began
                if passed > seconds:
                    upcoming = None
                while upcoming and idle and (rate is None or sent <= passed * rate):
                    connection = idle.pop()
                    connection.sendall(upcoming)
                    waiting[connection.fileno()] = connection
                    sent += 1
                    upcoming = next(requests, None)
                if upcoming is None and not waiting:
                    break
                pause = sent / rate - passed if rate and upcoming and idle else LONGEST_ANSWER
                ready = poll.poll(max(0.0, pause))
                if not ready and pause == LONGEST_ANSWER:
                    raise RuntimeError(f"no answer for {LONGEST_ANSWER} seconds")
                for number, _ in ready:
                    connection = waiting.pop(number)
                    take(connection)
                    idle.append(connection)
                    answers += 1
            ended = time.perf_counter()
            busy = (time.process_time() - used) / (ended - began)
            return Delivered(answers, began, ended - began, busy)
        finally:
            for connection in [*idle, *waiting.values()]:
                connection.close()


def steadily(
    port: int, requests: Sequence[bytes], rate: float, meanwhile: Callable[[], object] = lambda: None
) -> list[float]:
    """Seconds from when each callback was due until its 204, sorted. Whatever becomes of one, the next is sent.

    Those that were answered otherwise, or not within Twilio's 15 s, are missing. `meanwhile` is called now and then.
    """
    waits: list[float] = []
    began = time.perf_counter()
    lines = [
        threading.Thread(target=_send, args=(port, requests[line::CONNECTIONS], rate, began + line / rate, waits))
        for line in range(CONNECTIONS)
    ]
    for line in lines:
        line.start()
    while any(line.is_alive() for line in lines):
        meanwhile()
        time.sleep(LOOKED_EVERY)
    return sorted(waits)


LOOKED_EVERY = 0.1
"""Seconds."""


def _send(port: int, some: Sequence[bytes], rate: float, began: float, waits: list[float]) -> None:
    """On one connection, each when it is due, or once the one before is answered; none when Twilio has given up."""
    connected = socket.create_connection(("127.0.0.1", port), LONGEST_ANSWER)
    with suppress(TimeoutError), connected as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, each in enumerate(some):
            due = began + number * CONNECTIONS / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            if time.perf_counter() - due > LONGEST_ANSWER:
                continue
            connection.sendall(each)
            if connection.recv(MOST_READ).startswith(b"HTTP/1.1 204 "):
                waits.append(time.perf_counter() - due)


def quantile(values: Sequence[float], due: int, share: float) -> float:
    """Of so many values that are due, sorted. Those that are not there are the largest: infinite."""
    place = int(due * share)
    return values[place] if place < len(values) else math.inf
