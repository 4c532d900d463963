"""What the tests share: a real Valkey, started once, and emptied for each test that asks for it."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.connection import AbstractConnection

from app.store import embedded
from app.store.connect import connect, until_answering
from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from tests.leaks import leaks
from tests.servers import Server

SHARDS = 4


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whatever a test is about: if its logs tell of a person, a secret or a signature, it has failed."""
    report = yield
    found = leaks(report.capstdout + report.capstderr + report.caplog) if report.passed else []
    if found:
        report.outcome = "failed"
        report.longrepr = f"its logs hold {found}"
    return report


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a Valkey server of our own."""
    with tempfile.TemporaryDirectory(prefix="offhook-test-") as folder:
        server = subprocess.Popen(embedded.command(Path(folder)))
        try:
            url = embedded.url(Path(folder))
            client = connect(url, patience=5.0)
            until_answering(client)
            client.close()
            yield url
        finally:
            server.terminate()
            server.wait(10)


@pytest.fixture
def redis(valkey: str) -> Iterator[Redis]:
    """A client of that server, which is empty."""
    client = connect(valkey, patience=5.0)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts a Valkey of the test's own, with the settings that it is given."""
    servers: list[Server] = []

    def start(**settings: str) -> Server:
        servers.append(Server(**settings))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def inbox(redis: Redis) -> Inbox:
    """Inboxes of four shards."""
    return Inbox(redis, SHARDS)


@pytest.fixture
def snapshots(redis: Redis) -> Snapshots:
    """The conferences of the same four shards."""
    return Snapshots(redis, SHARDS)


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each message that a client sends to Redis: a command, or a whole pipeline."""
    trips: list[int] = []
    send: Any = AbstractConnection.send_packed_command

    def counted(self: Any, command: Any, check_health: bool = True) -> None:
        trips.append(1)
        send(self, command, check_health)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    return trips


def now_ms() -> int:
    """The time as callbacks carry it."""
    return time.time_ns() // 1_000_000
