"""What work costs, in counts that are the same on every machine with the same Python and the locked packages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from redis import Redis


class Cost(NamedTuple):
    """Of one piece of work."""

    calls: int
    """Calls of functions, Python's own included: about in proportion to the processor's time."""
    trips: int
    """Messages sent to Redis, each with whatever it holds."""
    commands: int
    """Commands that Redis has carried out, those of scripts included."""
    received: int
    """Bytes that Redis has received."""
    sent: int
    """Bytes that Redis has answered."""


class Tally:
    """Looks at the counters of this process and of Redis."""

    def __init__(self, redis: Redis, round_trips: list[int]) -> None:
        self.redis = redis
        self.round_trips = round_trips

    def of(self, work: Callable[[], object]) -> Cost:
        """What this work costs. It must have been done before, so that scripts and caches are warm."""
        commands, received, sent = self._redis()
        trips = len(self.round_trips)
        with _counted() as calls:
            work()
        trips = len(self.round_trips) - trips
        now_commands, now_received, now_sent = self._redis()
        return Cost(calls[0], trips, now_commands - commands - LOOKING, now_received - received, now_sent - sent)

    def _redis(self) -> tuple[int, int, int]:
        stats: Any = self.redis.info("commandstats")
        traffic: Any = self.redis.info("stats")
        commands = sum(each["calls"] for each in stats.values())
        return commands, traffic["total_net_input_bytes"], traffic["total_net_output_bytes"]


LOOKING = 2
"""Commands with which the counters are looked at."""


@contextmanager
def _counted() -> Iterator[list[int]]:
    calls = [0]

    def count(_: FrameType, event: str, __: Any) -> None:
        if event in ("call", "c_call"):
            calls[0] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)
