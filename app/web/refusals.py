"""Counts refused callbacks by reason and says so in the log, however many come."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import structlog
from redis import Redis, RedisError

from app.store import keys

AT_MOST_EVERY = 1.0
"""Seconds between two log lines of one process."""

log = structlog.get_logger("offhook.webhook")


class Refusals:
    """Refusals of this process that are not in Redis yet, and the count of all that are."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.unwritten: Counter[str] = Counter()
        self.unsaid: Counter[str] = Counter()
        self.said_at = -AT_MOST_EVERY
        self.lost_since: float | None = None
        """When the first was refused that was surely Twilio's and has no place, by time.monotonic(); None: none was."""

    def note(self, reason: str, **particulars: str) -> None:
        """Count one. `particulars` go into the log as they are: nothing secret, nothing of a person."""
        self.unwritten[reason] += 1
        self.unsaid[reason] += 1
        now = time.monotonic()
        if now - self.said_at > AT_MOST_EVERY:
            log.warning("refused", reason=reason, refused=dict(self.unsaid), **particulars)
            self.unsaid.clear()
            self.said_at = now

    def note_lost(self, reason: str, **particulars: str) -> None:
        """Count one that was surely Twilio's: it may be lost, and what it told has to be found out otherwise."""
        self.lost_since = self.lost_since or time.monotonic()
        self.note(reason, **particulars)

    def take_lost(self) -> float | None:
        """Since when some may be lost, by time.monotonic(), told once."""
        since, self.lost_since = self.lost_since, None
        return since

    def totals(self) -> dict[str, int]:
        """How many were refused, by reason, by all web processes; others may hold back a few. Raises RedisError."""
        self.write()
        counts: Any = self.redis.hgetall(keys.REFUSED)
        return {reason.decode(): int(count) for reason, count in counts.items()}

    def write(self) -> None:
        """Add what this process has counted to what all have. Where Redis is away it is kept for the next time."""
        if not self.unwritten:
            return
        counts, self.unwritten = self.unwritten, Counter()
        try:
            with self.redis.pipeline(transaction=False) as pipe:
                for reason, count in counts.items():
                    pipe.hincrby(keys.REFUSED, reason, count)
                pipe.execute()
        except RedisError:
            self.unwritten += counts
