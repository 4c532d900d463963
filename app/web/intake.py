"""Writes callbacks, and records of control requests, down where they will be folded: all that wait, in one round trip.

While one request waits for Redis, others come. They queue up here, and the first of them sends all of theirs together
as soon as the answer is in; or the last of them does, once there are enough. One that comes alone is sent at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from redis import RedisError

from app.events import Callback
from app.store.inbox import Inbox

AT_ONCE = 2
"""Round trips under way at the same time, at most: one is on its way while Redis writes the other to disk."""
WORTH_ANOTHER = 8
"""Callbacks that must be waiting for a second one to begin: smaller loads would cost more than the waiting does."""
LARGEST_LOAD = 200
"""Callbacks that are left to one of those that have waited: few enough to be answered in time."""

log = structlog.get_logger("offhook.intake")


class Interrupted(RedisError):
    """Whoever was sending this was stopped: it is not known to be stored."""


class Letter:
    """A callback on its way, and the request that waits for it."""

    __slots__ = ("callback", "failure", "load", "shard", "turn")

    def __init__(self, shard: int, callback: Callback) -> None:
        self.shard = shard
        self.callback = callback
        self.load: list[Letter] = []
        """What it is on this request to send, for others too."""
        self.failure: Exception | None = Interrupted("not sent")
        self.turn = threading.Lock()
        """Held until there is something for this request to do."""
        self.turn.acquire()


class Intake:
    """The inboxes, and whom to wake when something has come. Safe among threads and greenlets."""

    def __init__(self, inbox: Inbox, nudge: Callable[[], None], prepare: Callable[[], None]) -> None:
        self.inbox = inbox
        self.nudge = nudge
        self.prepare = prepare
        self._queue: list[Letter] = []
        self._under_way = 0
        self._guard = threading.Lock()

    def store(self, home: str, callback: Callback) -> None:
        """Write it down on the shard of the sid `home`; it is safe once this returns.

        Raises redis.RedisError or `WrongLayout` when it is not known to be stored.
        """
        self.prepare()
        letter = Letter(self.inbox.shard_of(home), callback)
        with self._guard:
            self._queue.append(letter)
            if self._under_way == 0 or (self._under_way < AT_ONCE and len(self._queue) >= WORTH_ANOTHER):
                self._under_way += 1
                letter.load, self._queue = self._queue, []
            waits = not letter.load
        if waits:
            self._wait(letter)
        if letter.load:
            self._send(letter.load)
        if letter.failure is not None:
            raise letter.failure.with_traceback(None)  # it may be that of others, too

    def _wait(self, letter: Letter) -> None:
        """Until it has been sent, or is to send. A request that is stopped meanwhile leaves nobody waiting for it."""
        try:
            letter.turn.acquire()
        except BaseException:
            with self._guard:
                if letter in self._queue:
                    self._queue.remove(letter)
            if letter.load:
                self._send(letter.load)
            raise

    def _send(self, load: list[Letter]) -> None:
        """Send these in one round trip, and leave what has queued up meanwhile to the first of them."""
        due = False
        try:
            due = self._sent(load)
        except Exception as error:
            for letter in load:
                letter.failure = error
        finally:
            with self._guard:
                following, self._queue = self._queue[:LARGEST_LOAD], self._queue[LARGEST_LOAD:]
                self._under_way -= not following
            if following:
                following[0].load = following
                following[0].turn.release()
            for letter in load:
                letter.turn.release()
        if due:
            self._wake()

    def _sent(self, load: list[Letter]) -> bool:
        """Store them. Whether a wake-up is due."""
        outcomes = self.inbox.append_all([(letter.shard, letter.callback) for letter in load])
        for letter in load:
            outcome = outcomes[letter.shard]
            letter.failure = outcome if isinstance(outcome, RedisError) else None
        return any(outcome is True for outcome in outcomes.values())

    def _wake(self) -> None:
        try:
            self.nudge()
        except RedisError as error:
            log.warning("nobody woken; the sweep will find it", error=type(error).__name__)
