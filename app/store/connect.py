"""Connections to Redis, with time limits that suit who uses them."""

from __future__ import annotations

import time
from typing import Any

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as Unconnected
from redis.exceptions import TimeoutError as TimedOut
from redis.retry import Retry

from app.store import keys

FORM = 2
"""Of what is stored. Another one is neither read nor written: 1 was that of builds before the first release."""


class WrongLayout(RuntimeError):
    """This Redis holds data laid out for another number of shards, or in another form."""


def connect(url: str, *, patience: float, connections: int = 50) -> Redis:
    """A client of the Redis at `url` (redis, rediss or unix), whose every answer must come within `patience` seconds.

    A connection found dead is replaced and the command sent once more, at once; a command that timed out is never
    repeated. The client's own defaults would try for a minute.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        protocol=2,
        max_connections=connections,
        timeout=patience,
        socket_timeout=patience,
        socket_connect_timeout=min(patience, 0.5),
        health_check_interval=0,
        retry=Retry(NoBackoff(), 1, supported_errors=(Unconnected,)),
    )
    return Redis.from_pool(pool)


def until_answering(redis: Redis, seconds: float = 30.0) -> None:
    """Wait for a Redis that is still starting or loading. Raises its last redis.RedisError when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            redis.ping()
        except AuthenticationError:
            raise
        except (Unconnected, TimedOut):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def claim_layout(redis: Redis, shards: int) -> None:
    """Make sure that the data in this Redis is, or will be, laid out for so many shards, in our form.

    Raises `WrongLayout`.
    """
    found: Any = redis.get(keys.LAYOUT)
    if found is None:  # else nothing is written: a full memory would refuse it
        redis.set(keys.LAYOUT, f"{shards} form {FORM}", nx=True)
        found = redis.get(keys.LAYOUT)
    laid_out, _, form = (found or b"").decode().partition(" form ")
    if form != str(FORM):
        raise WrongLayout(
            "The conferences in this Redis were stored by another build of Offhook, in a form that this one does not "
            "read. Use that build, or an empty Redis: for the embedded one, another OFFHOOK_DATA_DIR."
        )
    if laid_out != str(shards):
        raise WrongLayout(
            f"OFFHOOK_SHARDS is {shards}, but the conferences in this Redis are laid out for {laid_out} shards. "
            f"Set OFFHOOK_SHARDS={laid_out}, or use an empty Redis."
        )
