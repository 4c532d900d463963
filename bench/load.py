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
from contextlib import closing, suppress
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
MOST_READ = 65536
"""Bytes."""
BETWEEN = 0.005
"""Seconds between two connections that are opened. Of those opened at once one web process would take nearly all."""
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


class Delivered(NamedTuple):
    """How a delivery went. Every one of its answers was the expected one."""

    answers: int
    began: float
    """By time.perf_counter()."""
    seconds: float
    """From the first request to the last answer."""
    busy: float
    """Share of its core that this generator used. Near 1 it, not the server, was what was measured."""
    reconnects: int
    """Connections that the server closed, as it does when it has one process follow another."""
    resent: int
    """Requests sent again because their connection was closed without an answer: the server may have had them twice."""


def deliver(
    port: int,
    requests: Iterator[bytes],
    *,
    seconds: float,
    rate: float | None = None,
    status: int = 204,
    connections: int = CONNECTIONS,
    gather: float = 0.0,
) -> Delivered:
    """Send on kept connections, one request at a time on each, until the time is up or there are no more.

    Between two looks at what was answered `gather` seconds pass: several answers at a time cost this generator less.

    With a `rate`, request n is due n / rate seconds after the beginning, whether the server keeps up or not, as long
    as a connection is free. Raises RuntimeError on an answer of another status, on a 204 that is not empty, on another
    that does not tell its length, and on none within 15 s.
    """
    sent = answers = 0
    upcoming: bytes | None = next(requests)
    with closing(_Lines(port, connections, status)) as lines:
        used, began = time.process_time(), time.perf_counter()
        while True:
            passed = time.perf_counter() - began
            if passed > seconds:
                upcoming = None
            while upcoming and lines.idle and (rate is None or sent <= passed * rate):
                lines.send(upcoming)
                sent += 1
                upcoming = next(requests, None)
            if upcoming is None and not lines.waiting:
                break
            pause = sent / rate - passed - gather if rate and upcoming and lines.idle else LONGEST_ANSWER
            if gather:
                time.sleep(gather)
            answers += lines.answers(max(0.0, pause))
        ended = time.perf_counter()
        busy = (time.process_time() - used) / (ended - began)
        return Delivered(answers, began, ended - began, busy, lines.reconnects, lines.resent)


class _Lines:
    """Kept connections. One that the server closes is replaced, as Twilio's proxy would."""

    def __init__(self, port: int, many: int, status: int) -> None:
        self.port = port
        self.status = status
        self.poll = select.epoll()
        self.idle: list[socket.socket] = []
        self.waiting: dict[int, tuple[socket.socket, bytes]] = {}
        self.reconnects = self.resent = 0
        for _ in range(many):
            self._open()
            time.sleep(BETWEEN)

    def close(self) -> None:
        """Close all."""
        for connection in [*self.idle, *(connection for connection, _ in self.waiting.values())]:
            connection.close()
        self.poll.close()

    def send(self, request: bytes) -> None:
        """Send it on one that is idle."""
        connection = self.idle.pop()
        try:
            connection.sendall(request)
        except ConnectionError:  # closed just now; nobody has read it
            self._replace(connection)
            self.send(request)
        else:
            self.waiting[connection.fileno()] = connection, request

    def answers(self, pause: float) -> int:
        """Take the answers that are there, or come within so many seconds; how many.

        Raises RuntimeError when one is not as expected, and when there are none for 15 s.
        """
        ready = self.poll.poll(pause)
        if not ready and pause == LONGEST_ANSWER:
            raise RuntimeError(f"no answer for {LONGEST_ANSWER} seconds")
        taken = 0
        for number, _ in ready:
            if number in self.waiting:
                taken += self._take_answer(*self.waiting.pop(number))
            else:
                self._forget_idle(number)
        return taken

    def _take_answer(self, connection: socket.socket, request: bytes) -> bool:
        """Whether there was one. If the server has closed the connection instead, the request is sent once more."""
        answer = _read_answer(connection)
        if not answer:
            self._replace(connection)
            self.resent += 1
            self.send(request)
            return False
        whole = answer.endswith(b"\r\n\r\n") if self.status == 204 else LENGTH.search(answer)
        if not (whole and answer.startswith(b"HTTP/1.1 %d " % self.status)):
            raise RuntimeError(f"expected {self.status}, and the answer is {answer[:300]!r}")
        if b"\r\nConnection: close\r\n" in answer:
            self._replace(connection)
        else:
            self.idle.append(connection)
        return True

    def _forget_idle(self, number: int) -> None:
        for connection in self.idle:
            if connection.fileno() == number:
                self.idle.remove(connection)
                self._replace(connection)
                return

    def _replace(self, connection: socket.socket) -> None:
        connection.close()
        self.reconnects += 1
        self._open()

    def _open(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self.port), LONGEST_ANSWER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)  # with a time limit, Python would poll before each call
        self.poll.register(connection, select.EPOLLIN)
        self.idle.append(connection)


def _read_answer(connection: socket.socket) -> bytes:
    """All of it, for a first part of it is there. Empty when the server has closed the connection instead."""
    try:
        answer = connection.recv(MOST_READ)
    except ConnectionError:
        return b""
    while answer and _is_short(answer):
        connection.settimeout(LONGEST_ANSWER)
        more = connection.recv(MOST_READ)
        connection.setblocking(False)
        if not more:
            raise RuntimeError("the server closed a connection in the middle of an answer")
        answer += more
    return answer


def _is_short(answer: bytes) -> bool:
    """Whether more of it must come. An answer that does not tell its length has no body."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return True
    length = LENGTH.search(answer, 0, end + 2)
    return length is not None and len(answer) < end + 4 + int(length[1])


LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)


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
