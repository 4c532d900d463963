"""Redis when its memory is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from redis import Redis


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
