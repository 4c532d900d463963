"""`/api/stream` of a real Offhook, read from bare sockets: many at once, some that take nothing, and all cut off."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from app.simulator.sender import Sender
from tests.cast import ACCOUNT, ANNA, said
from tests.sse import Frame, frames
from tests.system.house import PATIENCE, House, awaited
from tests.web.conftest import room


class Line:
    """A connection on which a stream is read."""

    def __init__(self, house: House, query: str = "", last: str = "", takes: int | None = None) -> None:
        """`takes` is how many bytes may wait on our side; None: as many as usual."""
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if takes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
        self.socket.connect(("127.0.0.1", house.port))
        key = b64encode(f"{ACCOUNT}:{house.environ['TWILIO_AUTH_TOKEN']}".encode()).decode()
        words = [f"GET /api/stream{query} HTTP/1.1", f"Host: 127.0.0.1:{house.port}", f"Authorization: Basic {key}"]
        words += [f"Last-Event-ID: {last}"] * bool(last)
        self.socket.sendall("\r\n".join([*words, "", ""]).encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        head = iter(self.file.readline, b"\r\n")
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.decode().partition(":") for line in head)
        }
        self.ended = False
        """Whether its end was said, rather than the connection cut."""
        self.last = last
        self.frames = frames(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.file.readline() or b"0", 16):
            yield self.file.read(size)
            self.file.readline()
        self.ended = self.file.readline() == b"\r\n"

    def next(self) -> Frame:
        """The next frame, and its id kept."""
        told = next(self.frames)
        if told.name != "retry":
            self.last = told.id
        return told

    def until(self, name: str, condition: Callable[[Frame], bool] = lambda told: True) -> list[Frame]:
        """What comes, up to and including such a frame."""
        told = []
        deadline = monotonic() + PATIENCE
        while monotonic() < deadline:
            told.append(self.next())
            if told[-1].name == name and condition(told[-1]):
                return told
        raise AssertionError(f"no {name} came, but {[each.name for each in told][-5:]}")

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def call(open_house: Callable[..., House]) -> Iterator[Callable[..., Line]]:
    """Opens a stream; all are closed in the end."""
    lines: list[Line] = []

    def opened(house: House, *words: str, **more: int) -> Line:
        lines.append(Line(house, *words, **more))
        return lines[-1]

    yield opened
    for line in lines:
        line.close()


def sender_to(house: House) -> Sender:
    return Sender(f"{house.url}/webhooks/twilio", house.environ["TWILIO_AUTH_TOKEN"], timeout=3.0)


def modified(sid: str, number: int) -> dict[str, str]:
    """Something that happens in a conference: one more revision, if it comes alone."""
    return said("participant-modify", ANNA, number=number, second=number % 3000, room=sid)


def sequences(told: list[Frame]) -> list[int]:
    """The numbers of the callbacks that these frames tell of, in order."""
    return [each["sequence"] for frame in told if frame.name == "change" for each in frame.data["events"]]


def check_whole(told: list[Frame]) -> None:
    """Each conference's revisions follow one another from the first."""
    heard: dict[str, int] = {}
    for frame in told:
        if frame.name == "change":
            sid = frame.data["conference_sid"]
            assert frame.data["revision"] == heard.get(sid, 0) + 1, "a hole, or a repeat"
            heard[sid] = frame.data["revision"]


def test_a_hundred_streams_and_some_that_take_nothing_keep_nobody_waiting(open_house, call):
    house = open_house(WEB_CONCURRENCY="1").ready()
    lines = [call(house) for _ in range(100)]
    assert {line.status for line in lines} == {200}
    assert lines[0].headers["content-type"] == "text/event-stream; charset=utf-8"
    assert lines[0].headers["cache-control"] == "no-store"
    assert lines[0].headers["x-accel-buffering"] == "no"
    assert lines[0].headers["transfer-encoding"] == "chunked"
    assert [lines[0].next().name for _ in range(3)] == ["retry", "snapshot", "beat"]
    for line in lines[1:]:
        line.until("beat")
    sender = sender_to(house)
    for number in range(1, 6):
        assert sender.send(modified(room(1), number)) == 204
    heard = [line.until("change", lambda frame: 5 in sequences([frame])) for line in lines]
    for told in heard:
        check_whole(told)
        assert sequences(told) == [1, 2, 3, 4, 5]

    for line in lines[5:]:
        line.close()
    stalled = [call(house, "", "", takes=2048) for _ in range(3)]
    assert {line.status for line in stalled} == {200}
    for number in range(6, 66):
        assert sender.send(modified(room(1), number) | {"FriendlyName": "x" * 50_000}) == 204
    for line, told in zip(lines[:5], heard, strict=False):
        told += line.until("change", lambda frame: 65 in sequences([frame]))
        check_whole(told)
        assert sequences(told) == [*range(1, 66)]
    for line in stalled:
        assert 0 < unsent(line) < 1_000_000, "much is held back, and not by the network"


def unsent(line: Line) -> int:
    """How many bytes wait at the server to be sent on a connection."""
    ours = f"{line.socket.getsockname()[1]:04X}"
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, theirs, _, queues, *_ = row.split()
        if theirs.endswith(f":{ours}"):
            return int(queues.split(":")[0], 16)
    raise AssertionError("there is no such connection")


def test_a_stop_ends_streams_where_they_are_and_does_not_wait_for_them(open_house, call):
    house = open_house(WEB_CONCURRENCY="2").ready()
    lines = [call(house) for _ in range(10)]
    for line in lines:
        line.until("beat")
    assert sender_to(house).send(modified(room(1), 1)) == 204
    for line in lines:
        line.until("change")
    assert house.stop() == 0
    for line in lines:
        assert {frame.name for frame in line.frames} <= {"beat"}
        assert line.ended
    said_so = house.log.read_text()
    assert "graceful timeout" not in said_so
    assert "did not stop" not in said_so


@pytest.mark.parametrize("victims", ["a worker", "the whole server"])
def test_a_reader_that_comes_back_after_a_crash_has_missed_nothing(open_house, call, victims):
    house = open_house(WEB_CONCURRENCY="1").ready()
    rng, over, acknowledged = random.Random(7), threading.Event(), []

    def tell() -> None:
        sender = sender_to(house)
        while not over.is_set():
            number = len(acknowledged) + 1
            parameters = modified(room(rng.randrange(20)), number)
            awaited("an acknowledgement", lambda parameters=parameters: sender.send(parameters) == 204)
            acknowledged.append(number)

    line = call(house)
    told = line.until("beat")
    with ThreadPoolExecutor(1) as pool:
        telling = pool.submit(tell)
        try:
            for _ in range(2):
                told += line.until("change")
                web = house.processes()["web"]
                for pid in web[1:] if victims == "a worker" else web:
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(StopIteration, AssertionError, ValueError, OSError):  # however it is cut off
                    while True:
                        told.append(line.next())
                last = next(frame.id for frame in reversed(told) if frame.id)
                awaited("another web process", lambda: house.get("/readyz"))
                line = call(house, "", last)
        finally:
            over.set()
        telling.result()
    while len(sequences(told)) < len(acknowledged):
        told += line.until("change")
    assert not {"reset", "snapshot"} & {frame.name for frame in told[2:]}
    check_whole(told)
    assert sorted(sequences(told)) == sorted(acknowledged)
