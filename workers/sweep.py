"""What nobody nudges for: mail that no drain has come for, and control requests that no callback has confirmed.

The first is the reason why RQ may lose anything. It also says which fold its worker has, for older ones to stand back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog
from msgspec.structs import replace
from redis import RedisError

from app import fold
from app.conference import read_header
from app.events import Callback
from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from app.twilio.control import Record, encode_record
from workers.drain import Drain

EVERY = 1.0
"""Seconds. Mail is found by the second sweep that sees it, so within two of them."""
ANNOUNCED_EVERY = 5.0
"""Seconds. That a worker is alive holds for three times as long."""
EXPIRED_AT_ONCE = 100
"""Control requests of one shard in one sweep."""

SAY_AGAIN = 60.0
"""Seconds after which an overdue one is written down once more, should the record be lost. Draining may lag."""

log = structlog.get_logger("offhook.sweep")


class Sweep:
    """Looks at every shard once in a while, in a thread of each worker process."""

    def __init__(
        self,
        inbox: Inbox,
        snapshots: Snapshots,
        nudge: Callable[[], None],
        drain: Drain,
        chores: Sequence[Callable[[], None]] = (),
    ) -> None:
        """`drain` is for when nobody can be nudged, and nobody else's. `chores` are done with each sweep."""
        self.inbox = inbox
        self.snapshots = snapshots
        self.nudge = nudge
        self.drain = drain
        self.chores = chores
        self.by_itself = False
        """Whether it is this sweep that folds, for nobody has come."""
        self.waiting: dict[int, tuple[bytes | None, int]] = {}
        """The oldest mail of each shard, and how often it was seen again with nobody at it."""
        self.announced_at = -ANNOUNCED_EVERY
        self.said: dict[tuple[str, str], float] = {}
        """When each overdue control request was last written down as expired."""

    def run(self, stop: threading.Event) -> None:
        """Sweep until `stop` is set. Redis being away is waited for."""
        while True:
            try:
                self._announce()
                self.look()
                self.expire()
                for chore in self.chores:
                    chore()
            except RedisError as error:
                log.warning("cannot sweep", error=type(error).__name__)
            except Exception:  # without its sweep a worker would go on as if nothing could be lost
                log.exception("sweep failed")
            if stop.wait(EVERY):
                return

    def _announce(self) -> None:
        now = time.monotonic()
        if now - self.announced_at > ANNOUNCED_EVERY:
            self.inbox.announce(fold.VERSION)
            self.announced_at = now

    def look(self) -> bool:
        """Sweep once. Asks for a drain, and says so, if the same mail was waiting, unleased, the last time already.

        If nobody can be asked, or nobody has come by the next time, it drains what waits itself: RQ's Redis may be
        away, or too full to hand out the job that it has.
        """
        before, self.waiting = self.waiting, {}
        unattended: list[int] = []
        for shard, standing in enumerate(self.inbox.backlog()):
            if standing.waiting:
                oldest, looks = before.get(shard, (None, 0))
                looks = looks + (not standing.leased) if oldest == standing.oldest_id else 0
                self.waiting[shard] = standing.oldest_id, looks
                if not standing.leased:
                    unattended.append(shard)
        forgotten = [shard for shard in unattended if self.waiting[shard][1]]
        self.by_itself = bool(unattended) and (self.by_itself or any(self.waiting[each][1] > 1 for each in unattended))
        if forgotten:
            log.warning("mail nobody came for", shards=forgotten)
            try:
                self.nudge()
            except RedisError as error:
                log.warning("nobody can be woken", error=type(error).__name__)
                self.by_itself = True
        if self.by_itself:
            self.drain.drain(unattended)
        return bool(forgotten)

    def expire(self) -> None:
        """Write down which control requests have waited in vain. Safe to do twice: the log knows a record it has."""
        now = time.time_ns() // 1_000_000
        self.said = {each: at for each, at in self.said.items() if time.monotonic() - at < SAY_AGAIN}
        overdue = [each for each in self.snapshots.expired(now, EXPIRED_AT_ONCE) if each not in self.said]
        headers = self.snapshots.headers([sid for sid, _ in overdue])
        due = False
        for (sid, action_id), raw in zip(overdue, headers, strict=True):
            header = read_header(raw) if raw else None
            action = next((each for each in header.actions if each.id == action_id), None) if header else None
            if header is None or action is None or action.finished:
                continue
            record = Record(
                step="expired",
                account_sid=header.account_sid,
                conference_sid=sid,
                resource=f"Conferences/{sid}",
                parameters=[],
                action=replace(action, expired=True),
            )
            body = encode_record(record)
            callback = Callback(body=body, media="control", received_at=now, key="offhook")
            due = self.inbox.append(self.inbox.shard_of(sid), callback) or due
            self.said[sid, action_id] = time.monotonic()
        if due:
            self.nudge()
