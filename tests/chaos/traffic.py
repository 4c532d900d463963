"""Callbacks that come when they are due, whether the service keeps up or not, and what each was answered, and when."""

from __future__ import annotations

import contextlib
import math
import random
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urlencode
from uuid import UUID

from twilio.request_validator import RequestValidator

from tests.chaos.ledger import Parameters, stories
from tests.system.house import House

LONGEST_ANSWER = 15.0
"""Seconds. Twilio waits no longer either (Twilio docs, Connection Overrides)."""
MOST = 2000
"""Connections at once. What is due and finds none waits here, and its time runs."""
LOOKED_EVERY = 0.5
"""Seconds between two looks for what has gone unanswered too long."""
CUT, REFUSED, SILENT = 0, -1, -2
"""In place of a status: the connection was closed on the request; nobody listened; no answer came in time."""


class Request(NamedTuple):
    """One callback."""

    parameters: Parameters
    raw: bytes
    """The signed POST, byte for byte."""


class Answer(NamedTuple):
    """What became of a request."""

    request: Request
    due: float
    """By time.perf_counter()."""
    sent: float
    at: float
    status: int
    first: bool
    """Whether its connection had carried none before."""

    @property
    def took(self) -> float:
        """Seconds since it was due."""
        return self.at - self.due


def requests(house: House, told: Iterable[Parameters]) -> Iterator[Request]:
    """The signed POST of each."""
    host = f"127.0.0.1:{house.port}"
    validator = RequestValidator(house.environ["TWILIO_AUTH_TOKEN"])
    url = f"http://{host}/webhooks/twilio"
    for parameters in told:
        body = urlencode(parameters)
        token = UUID((parameters.get("ConferenceSid") or parameters["CallSid"])[2:])
        yield Request(
            parameters,
            (
                "POST /webhooks/twilio HTTP/1.1\r\n"
                f"Host: {host}\r\n"
                "User-Agent: TwilioProxy/1.1\r\n"
                "Accept: */*\r\n"
                "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"
                f"Content-Length: {len(body)}\r\n"
                f"I-Twilio-Idempotency-Token: {token}\r\n"
                f"X-Twilio-Signature: {validator.compute_signature(url, parameters)}\r\n"
                f"\r\n{body}"
            ).encode(),
        )


class Flow:
    """A block in which so many callbacks a second are sent, each once."""

    def __init__(
        self,
        house: House,
        source: int | Iterable[Request],
        rate: float,
        *,
        fresh: float = 0.0,
        patience: float = LONGEST_ANSWER,
    ) -> None:
        """`source`: the requests, or a seed for endless ones. `fresh`: the share that has a connection of its own."""
        self.port = house.port
        self.source = iter(requests(house, stories(source)) if isinstance(source, int) else source)
        self.rate = rate
        self.patience = patience
        self.answers: list[Answer] = []
        self.over = threading.Event()
        self.busy = 0.0
        """Share of a core that this generator used."""
        self._fresh = fresh
        self._rng = random.Random(0)
        self._poll = select.epoll()
        self._lines: dict[int, Line] = {}
        self._idle: list[Line] = []
        self._thread = threading.Thread(target=self._run, daemon=True, name="flow")

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    def join(self) -> None:
        """Wait for the last answer."""
        self._thread.join()

    @property
    def acknowledged(self) -> list[Parameters]:
        return [answer.request.parameters for answer in self.answers if answer.status == 204]

    @property
    def unsure(self) -> list[Parameters]:
        """What was not acknowledged: it may be stored for all that."""
        return [answer.request.parameters for answer in self.answers if answer.status != 204]

    def counts(self) -> dict[int, int]:
        """How often each status, or what stands for one."""
        found: dict[int, int] = {}
        for answer in list(self.answers):
            found[answer.status] = found.get(answer.status, 0) + 1
        return found

    def _run(self) -> None:
        began, used = time.perf_counter(), time.thread_time()
        sent, looked = 0, began
        upcoming = next(self.source, None)
        while upcoming or any(line.request for line in self._lines.values()):
            now = time.perf_counter()
            if self.over.is_set():
                upcoming = None
            while upcoming and (due := began + sent / self.rate) <= now and self._send(upcoming, due):
                sent += 1
                upcoming = next(self.source, None)
            pause = max(0.0, min(LOOKED_EVERY, began + sent / self.rate - now)) if upcoming else 0.05
            if len(self._lines) >= MOST and not self._idle:
                pause = 0.05
            for number, event in self._poll.poll(pause):
                if line := self._lines.get(number):
                    self._hear(line, event)
            if now - looked > LOOKED_EVERY:
                looked = now
                for line in [each for each in self._lines.values() if each.request]:
                    if now - line.due > self.patience:
                        self._end(line, SILENT)
        self.busy = (time.thread_time() - used) / (time.perf_counter() - began)
        for line in self._lines.values():
            line.socket.close()
        self._poll.close()

    def _send(self, request: Request, due: float) -> bool:
        """Whether there was a connection for it."""
        fresh = self._fresh > 0 and self._rng.random() < self._fresh
        if self._idle and not fresh:
            line = self._idle.pop()
        elif len(self._lines) < MOST:
            line = self._open()
        else:
            return False
        line.request, line.due, line.sent, line.fresh = request, due, time.perf_counter(), fresh
        line.unsent, line.heard = request.raw, b""
        self._push(line)
        return True

    def _open(self) -> Line:
        line = Line(socket.socket())
        line.socket.setblocking(False)
        line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.socket.connect_ex(("127.0.0.1", self.port))
        self._lines[line.socket.fileno()] = line
        self._poll.register(line.socket, select.EPOLLIN)
        return line

    def _push(self, line: Line) -> None:
        try:
            line.unsent = line.unsent[line.socket.send(line.unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(line, REFUSED if isinstance(error, ConnectionRefusedError) else CUT)
            return
        wanted = select.EPOLLIN | (select.EPOLLOUT if line.unsent else 0)
        if wanted != line.wanted:
            line.wanted = wanted
            self._poll.modify(line.socket, wanted)

    def _hear(self, line: Line, event: int) -> None:
        if line.unsent and event & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP):
            self._push(line)
            return
        try:
            chunk = line.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._end(line, CUT)
            return
        line.heard += chunk
        head, found, body = line.heard.partition(b"\r\n\r\n")
        if found and len(body) >= _length(head):
            status = int(head[9:12])
            if line.fresh or b"\r\nconnection: close" in head.lower():
                self._end(line, status)
            else:
                self._note(line, status)
                self._idle.append(line)

    def _note(self, line: Line, status: int) -> None:
        if line.request:
            self.answers.append(Answer(line.request, line.due, line.sent, time.perf_counter(), status, line.first))
            line.request, line.first = None, False

    def _end(self, line: Line, status: int) -> None:
        self._note(line, status)
        del self._lines[line.socket.fileno()]
        with contextlib.suppress(ValueError):
            self._idle.remove(line)
        line.socket.close()


class Line:
    """A connection."""

    __slots__ = ("due", "first", "fresh", "heard", "request", "sent", "socket", "unsent", "wanted")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.request: Request | None = None
        self.due = self.sent = 0.0
        self.first = True
        self.fresh = False
        self.unsent = b""
        self.heard = b""
        self.wanted = select.EPOLLIN


def _length(head: bytes) -> int:
    """Of the body that is told of; 0: there is none."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def quantile(values: Iterable[float], share: float) -> float:
    """The value that such a share of them do not exceed; infinite of none."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * share) - 1] if ordered else math.inf
