"""Finds mail that nobody has come for, whatever became of its wake-up: the reason why RQ may lose anything."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from redis import RedisError

from app.store.inbox import Inbox

EVERY = 1.0
"""Seconds. Mail is found by the second sweep that sees it, so within two of them."""

log = structlog.get_logger("offhook.sweep")


class Sweep:
    """Looks at every shard once in a while, in a thread of each worker process."""

    def __init__(self, inbox: Inbox, nudge: Callable[[], None]) -> None:
        self.inbox = inbox
        self.nudge = nudge
        self.waiting: dict[int, bytes | None] = {}

    def run(self, stop: threading.Event) -> None:
        """Sweep until `stop` is set. Redis being away is waited for."""
        while True:
            try:
                self.look()
            except RedisError as error:
                log.warning("cannot sweep", error=type(error).__name__)
            except Exception:  # without its sweep a worker would go on as if nothing could be lost
                log.exception("sweep failed")
            if stop.wait(EVERY):
                return

    def look(self) -> bool:
        """Sweep once. Asks for a drain, and says so, if the same mail was waiting, unleased, the last time already."""
        standings = dict(enumerate(self.inbox.backlog()))
        found = {shard: standing.oldest_id for shard, standing in standings.items() if standing.waiting}
        forgotten = [
            shard
            for shard, oldest in found.items()
            if self.waiting.get(shard) == oldest and not standings[shard].leased
        ]
        self.waiting = found
        if forgotten:
            log.warning("mail nobody came for", shards=forgotten)
            self.nudge()
        return bool(forgotten)
