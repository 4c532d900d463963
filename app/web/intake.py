"""Writes a callback, or a record of a control request, down where it will be folded."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from redis import RedisError

from app.events import Callback
from app.store.inbox import Inbox

log = structlog.get_logger("offhook.intake")


class Intake:
    """The inboxes, and whom to wake when something has come."""

    def __init__(self, inbox: Inbox, nudge: Callable[[], None], prepare: Callable[[], None]) -> None:
        self.inbox = inbox
        self.nudge = nudge
        self.prepare = prepare

    def store(self, home: str, callback: Callback) -> None:
        """Write it down on the shard of the sid `home`; it is safe once this returns.

        Raises redis.RedisError or `WrongShards` when it is not known to be stored.
        """
        self.prepare()
        if self.inbox.append(self.inbox.shard_of(home), callback):
            try:
                self.nudge()
            except RedisError as error:
                log.warning("nobody woken; the sweep will find it", error=type(error).__name__)
