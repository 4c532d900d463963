"""Makes callbacks as Twilio sends them and delivers them over kept connections, flat out or at a steady pace."""

from __future__ import annotations

import random
import select
import socket
import time
from collections.abc import Iterator
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


_validator = RequestValidator(TOKEN)


class Delivered(NamedTuple):
    """How a delivery went. Every one of its answers was a 204."""

    answers: int
    began: float
    """By time.perf_counter()."""
    seconds: float
    """From the first request to the last answer."""
    busy: float
    """Share of its core that this generator used. Near 1 it, not the server, was what was measured."""


def deliver(port: int, requests: Iterator[bytes], *, seconds: float, rate: float | None = None) -> Delivered:
    """Send on sixteen connections, one request at a time on each, until the time is up or there are no more.

    With a `rate`, request n is due n / rate seconds after the beginning, whether the server keeps up or not, as long
    as a connection is free. Raises RuntimeError on an answer that is not an empty 204, or on none within 15 s.
    """
    idle = [socket.create_connection(("127.0.0.1", port), LONGEST_ANSWER) for _ in range(CONNECTIONS)]
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
                    _take_answer(connection)
                    idle.append(connection)
                    answers += 1
            ended = time.perf_counter()
            busy = (time.process_time() - used) / (ended - began)
            return Delivered(answers, began, ended - began, busy)
        finally:
            for connection in [*idle, *waiting.values()]:
                connection.close()


def _take_answer(connection: socket.socket) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = connection.recv(65536)
        if not more:
            raise RuntimeError("the server closed a connection instead of answering")
        answer += more
    if not (answer.startswith(b"HTTP/1.1 204 ") and answer.endswith(b"\r\n\r\n")):
        raise RuntimeError(f"expected an empty 204, and the answer is {answer[:300]!r}")
