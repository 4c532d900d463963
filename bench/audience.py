"""A thousand readers of a stream, in one process of its own: they follow, cut their connections, and miss nothing.

It must not be the bottleneck. All clients that follow get the same bytes, so each chunk is read in full once, and every
other client's is compared with it, byte for byte, which takes far less time. What is said of all clients is exact.
"""

from __future__ import annotations

import itertools
import random
import resource
import select
import socket
import time
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from heapq import heappop, heappush
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import msgspec

from bench.load import ACCOUNT, HOST, LONGEST_ANSWER, TOKEN

AWAY = (1.0, 4.0)
"""Seconds until a client that has cut its connection, or was refused, comes back: what the server asks of browsers."""
MOST_READ = 1 << 18
"""Bytes."""
LAST_CHUNK = b"0\r\n\r\n"
KEY = 256
"""Bytes by which a chunk is looked up before it is compared in full: they hold an id, or a revision."""

Change = tuple[str, int]
"""A conference and its revision."""


class Heard(NamedTuple):
    """What became of some changes."""

    missed: int
    """How many were not heard by a client that should have, summed over all clients."""
    repeated: int
    """How many were heard again, of all changes."""
    resets: int
    """How often a client had to begin anew."""
    refused: int
    """Requests for a stream that were answered with an error."""
    ended: int
    """Streams that the server ended."""
    times: list[float]
    """Seconds from commit to client, sorted: one for each client and change."""


class Audience:
    """What the benchmark's own process holds of it."""

    def __init__(self, orders: Connection) -> None:
        self._orders = orders

    def join(self, clients: int) -> None:
        """Have so many more clients connect. Returns when they have."""
        self._ask("join", clients)

    def cut(self, times: int, seconds: float) -> None:
        """Have each client cut its connection so often, at random moments of so many seconds. Returns at once."""
        self._ask("cut", times, seconds)

    def following(self) -> int:
        """How many clients have been told all that they missed. With cuts still to come: none."""
        count: int = self._ask("following")
        return count

    def busy(self) -> float:
        """The share of its core that it has used since it was asked last."""
        share: float = self._ask("busy")
        return share

    def heard(self, committed: Mapping[Change, float]) -> Heard:
        """What became of these changes; each with the time of its commit, in seconds of the system's clock."""
        answer: Heard = self._ask("compare", committed)
        return answer

    def _ask(self, *order: object) -> Any:
        try:
            self._orders.send(order)
            return self._orders.recv()
        except (EOFError, OSError):
            raise RuntimeError("the clients have stopped; what was the matter stands above") from None


@contextmanager
def audience(port: int, path: str) -> Iterator[Audience]:
    """A process of clients of the stream at this path, none of them connected yet. It ends with the block."""
    mine, others = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_run, args=(others, port, path), daemon=True)
    process.start()
    others.close()
    try:
        yield Audience(mine)
    finally:
        mine.close()
        process.join(5)
        process.kill()


class Chunk(NamedTuple):
    """Some whole frames, as one write of the server."""

    data: bytes
    changes: list[Change]
    kinds: Counter[bytes]
    last_id: bytes
    heard_at: array[float]
    """By each client that got it."""


class Head(msgspec.Struct):
    """What is looked at of a change. Its JSON is read to the end."""

    conference_sid: str
    revision: int


class Client:
    """One reader: its connection, its last id, and every chunk that it got."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.connection: socket.socket | None = None
        self.last_id = b""
        self.heard: list[Chunk] = []
        self.rest = b""
        self.answered = False
        self.following = False
        """Whether it has been told what it missed."""

    def connect(self, port: int, path: str) -> socket.socket:
        """Ask for the stream, from behind what was heard last."""
        self.rest, self.answered = b"", False
        self.connection = socket.create_connection(("127.0.0.1", port), LONGEST_ANSWER)
        login = b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
        last = f"Last-Event-ID: {self.last_id.decode()}\r\n" if self.last_id else ""
        self.connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Basic {login}\r\n{last}\r\n".encode()
        )
        self.connection.setblocking(False)
        return self.connection


class Crowd:
    """All clients, in one epoll loop."""

    def __init__(self, orders: Connection, port: int, path: str) -> None:
        self.orders = orders
        self.port = port
        self.path = path
        self.clients: list[Client] = []
        self.connected: dict[int, Client] = {}
        self.chunks: dict[bytes, Chunk] = {}
        self.agenda: list[tuple[float, int, bool]] = []
        """When, which client, and whether it cuts or comes back."""
        self.looked = _clocks()
        self.refused = self.ended = 0
        self.poll = select.epoll()
        self.poll.register(orders, select.EPOLLIN)

    def run(self) -> None:
        """Read and obey, until the orders end."""
        while True:
            pause = max(0.0, self.agenda[0][0] - time.monotonic()) if self.agenda else None
            for number, _ in self.poll.poll(pause):
                client = self.connected.get(number)
                if client is not None and client.connection is not None:
                    self._read(client, client.connection)
                elif number == self.orders.fileno():
                    try:
                        order, *details = self.orders.recv()
                    except EOFError:
                        return
                    self.orders.send(getattr(self, order)(*details))
            while self.agenda and self.agenda[0][0] <= time.monotonic():
                _, which, cuts = heappop(self.agenda)
                (self._cut if cuts else self._connect)(which)

    def join(self, clients: int) -> None:
        """See `Audience`, here and below."""
        first = len(self.clients)
        self.clients += [Client(number) for number in range(first, first + clients)]
        for which in range(first, first + clients):
            self._connect(which)

    def cut(self, times: int, seconds: float) -> None:
        """The moments are the same in each run."""
        rng, now = random.Random(2026), time.monotonic()
        for which in range(len(self.clients)):
            for _ in range(times):
                heappush(self.agenda, (now + rng.uniform(0, seconds), which, True))

    def following(self) -> int:
        """How many have been told what they missed."""
        return 0 if self.agenda else sum(client.following for client in self.clients)

    def busy(self) -> float:
        """Processor time by the clock on the wall."""
        (used, at), self.looked = self.looked, _clocks()
        return (self.looked[0] - used) / (self.looked[1] - at)

    def compare(self, committed: Mapping[Change, float]) -> Heard:
        """Counts, for each client, what it heard."""
        missed = repeated = resets = 0
        for client in self.clients:
            heard = Counter(itertools.chain.from_iterable(chunk.changes for chunk in client.heard))
            missed += len(committed.keys() - heard.keys())
            repeated += heard.total() - len(heard)
            resets += sum(chunk.kinds[b"reset"] for chunk in client.heard)
        distinct = {id(chunk): chunk for client in self.clients for chunk in client.heard}
        times = [
            at - committed[change]
            for chunk in distinct.values()
            for change in chunk.changes
            if change in committed
            for at in chunk.heard_at
        ]
        return Heard(missed, repeated, resets, self.refused, self.ended, sorted(times))

    def _connect(self, which: int) -> None:
        client = self.clients[which]
        connection = client.connect(self.port, self.path)
        self.connected[connection.fileno()] = client
        self.poll.register(connection, select.EPOLLIN)

    def _cut(self, which: int) -> None:
        """Close, whatever is under way."""
        client = self.clients[which]
        if client.connection is None:  # away already: later, then
            heappush(self.agenda, (time.monotonic() + AWAY[1], which, True))
        else:
            self._close(client.connection)

    def _close(self, connection: socket.socket) -> None:
        """Have a client without its connection for a while."""
        client = self.connected.pop(connection.fileno())
        connection.close()
        client.connection, client.following = None, False
        heappush(self.agenda, (time.monotonic() + random.uniform(*AWAY), client.number, False))

    def _read(self, client: Client, connection: socket.socket) -> None:
        data = connection.recv(MOST_READ)
        now = time.time()
        data = client.rest + data if data else LAST_CHUNK
        start = 0
        if not client.answered and data != LAST_CHUNK:
            start = data.find(b"\r\n\r\n") + 4
            if start < 4:
                client.rest = data
                return
            if not data.startswith(b"HTTP/1.1 200 "):
                self.refused += 1
                self._close(connection)
                return
            client.answered = True
        while (line := data.find(b"\r\n", start)) > 0:
            end = line + 2 + int(data[start:line], 16)
            if end + 2 > len(data):
                break
            if data.startswith(LAST_CHUNK, start):
                self.ended += 1
                self._close(connection)
                return
            self._take(client, data[line + 2 : end], now)
            start = end + 2
        client.rest = data[start:]

    def _take(self, client: Client, data: bytes, now: float) -> None:
        chunk = self.chunks.get(data[:KEY])
        if chunk is None or chunk.data != data:
            chunk = _read_chunk(data)
            if client.following or b"snapshot" in chunk.kinds:  # others get the same
                self.chunks[data[:KEY]] = chunk
            else:
                chunk = chunk._replace(data=b"")
        if b"beat" in chunk.kinds:
            client.following = True
        client.last_id = chunk.last_id or client.last_id
        chunk.heard_at.append(now)
        client.heard.append(chunk)


def _clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _read_chunk(data: bytes) -> Chunk:
    """Every frame of it, in full."""
    if not data.endswith(b"\n\n"):
        raise RuntimeError(f"a chunk does not end with a frame: {data[-100:]!r}")
    changes: list[Change] = []
    kinds: Counter[bytes] = Counter()
    last_id = b""
    for frame in data[:-2].split(b"\n\n"):
        fields = dict(line.partition(b": ")[::2] for line in frame.split(b"\n"))
        kind = fields.get(b"event", b"")
        kinds[kind] += 1
        last_id = fields.get(b"id", last_id)
        if kind == b"change":
            head = _read_head(fields[b"data"])
            changes.append((head.conference_sid, head.revision))
    return Chunk(data, changes, kinds, last_id, array("d"))


_read_head = msgspec.json.Decoder(Head).decode


def _run(orders: Connection, port: int, path: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Crowd(orders, port, path).run()
