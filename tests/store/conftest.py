"""What is looked at under the store: how often it goes to Redis, and Redis when its memory is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from redis import Redis
from redis.connection import AbstractConnection


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


@pytest.fixture
def memory_full(redis: Redis) -> Callable[[], AbstractContextManager[None]]:
    """A block in which Redis has reached its `maxmemory`."""

    @contextmanager
    def full() -> Iterator[None]:
        redis.config_set("maxmemory", 1)
        try:
            yield
        finally:
            redis.config_set("maxmemory", 0)

    return full
