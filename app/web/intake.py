"""Writes callbacks, and records of control requests, down where they will be folded: all that wait, in one round trip.

While one request waits for Redis, others come. They queue up here, and the first of them sends all of theirs together
as soon as the answer is in; or the last of them does, once there are enough. One that comes alone is sent at once.

What Redis cannot take is written to the spool, if there is one, and sent once it can.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog
from redis import RedisError

from app import failpoints
from app.events import Callback
from app.store.connect import WrongLayout
from app.store.inbox import Full, Inbox, Posted
from app.store.spool import Spool, Spooled

AT_ONCE = 2
"""Round trips under way at the same time, at most: one is on its way while Redis writes the other to disk."""
WORTH_ANOTHER = 8
"""Callbacks that must be waiting for a second one to begin: smaller loads would cost more than the waiting does."""
LARGEST_LOAD = 200
"""Callbacks that are left to one of those that have waited: few enough to be answered in time."""
SLOW = 0.25
"""Seconds. A failure that took longer has kept others waiting, as a Redis does that hangs or cannot be reached."""
LEFT_ALONE = 0.5
"""Seconds for which Redis is not asked again after such a failure."""

SAID_EVERY = 1.0
"""Seconds between two log lines about a disk that fails."""

log = structlog.get_logger("offhook.intake")


class Interrupted(RedisError):
    """Whoever was sending this was stopped: it is not known to be stored."""


class Letter:
    """A callback on its way, and the request that waits for it."""

    __slots__ = ("callback", "failure", "home", "load", "speech", "turn")

    def __init__(self, home: str, callback: Callback, speech: bool) -> None:
        self.home = home
        self.callback = callback
        self.speech = speech
        self.load: list[Letter] = []
        """What it is on this request to send, for others too."""
        self.failure: Exception | None = Interrupted("not sent")
        self.turn = threading.Lock()
        """Held until there is something for this request to do."""
        self.turn.acquire()


class Intake:
    """The inboxes, and whom to wake when something has come. Safe among threads and greenlets."""

    def __init__(
        self, inbox: Inbox, nudge: Callable[[], None], prepare: Callable[[], None], spool: Spool | None = None
    ) -> None:
        self.inbox = inbox
        self.nudge = nudge
        self.prepare = prepare
        self.spool = spool
        self._away: Exception | None = None
        """Why Redis was not reached the last time."""
        self._left_alone_until = 0.0
        self._complained_at = -SAID_EVERY
        self._queue: list[Letter] = []
        self._under_way = 0
        self._begun_at = 0.0
        """When a load was last begun."""
        self._guard = threading.Lock()

    def store(self, home: str, callback: Callback, *, speech: bool = False) -> None:
        """Write it down on the shard of the sid `home`; it is safe once this returns.

        Raises redis.RedisError or `WrongLayout` when it is not known to be stored: `Full` when too much waits already,
        which speech is told first.
        """
        letter = Letter(home, callback, speech)
        with self._guard:
            self._queue.append(letter)
            if self._under_way == 0 or (
                self._under_way < AT_ONCE
                and len(self._queue) >= WORTH_ANOTHER
                and time.monotonic() - self._begun_at < SLOW  # else Redis hangs, and all would wait for it twice
            ):
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
        self._begun_at = time.monotonic()
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
        outcomes = self._stored([Posted(self.inbox.shard_of(each.home), each.callback, each.speech) for each in load])
        due = False
        for letter, outcome in zip(load, outcomes, strict=True):
            letter.failure = outcome if isinstance(outcome, Exception) else None
            due = due or outcome is True
        if self.spool is not None:
            # speech that Redis has no room for would only be in the way of what the spool is for
            self._spooled(
                [each for each in load if each.failure and not (each.speech and isinstance(each.failure, Full))]
            )
        return due

    def _stored(self, mail: Sequence[Posted]) -> Sequence[bool | Exception]:
        """Of each whether a wake-up is due, or what failed. A Redis that does not answer is left alone for a while."""
        began = time.monotonic()
        if self._away is not None and began < self._left_alone_until:
            return [self._away] * len(mail)
        try:
            failpoints.reach("before_append")
            self.prepare()
            outcomes = self.inbox.append_all(mail)
            failpoints.reach("after_append")
        except (RedisError, WrongLayout) as error:
            if time.monotonic() - began > SLOW:
                self._away, self._left_alone_until = error, time.monotonic() + LEFT_ALONE
            return [error] * len(mail)
        return outcomes

    def _spooled(self, letters: Sequence[Letter]) -> None:
        """Write these to the spool instead, as far as that is possible."""
        if not letters or self.spool is None:
            return
        try:
            failpoints.reach("before_spool")
            taken = self.spool.write([Spooled(each.home, each.callback, each.speech) for each in letters])
            failpoints.reach("after_spool")
        except OSError as error:
            now = time.monotonic()
            if now - self._complained_at > SAID_EVERY:
                self._complained_at = now
                log.error("not spooled", error=error.strerror or type(error).__name__)
            return
        for letter, is_taken in zip(letters, taken, strict=True):
            if is_taken:
                letter.failure = None

    def empty_spool(self) -> None:
        """Send what is in the spool, as far as Redis takes it."""
        if self.spool is None:
            return
        trouble = ""
        try:
            if self.spool.waiting():
                self.prepare()
                self.inbox.probe("spool")  # else what no replica takes would be sent again and again
                if self.spool.empty(self._sent_again):
                    self._wake()
        except (RedisError, WrongLayout, OSError) as error:
            trouble = type(error).__name__
        if trouble and trouble != self.spool.trouble:
            log.warning("spooled callbacks wait", error=trouble)
        self.spool.trouble = trouble

    def _sent_again(self, mail: Sequence[Spooled]) -> list[bool]:
        """Of each whether it was taken. What was acknowledged is speech no more: it has the whole room."""
        outcomes = self.inbox.append_all([Posted(self.inbox.shard_of(each.home), each.callback) for each in mail])
        return [not isinstance(outcome, RedisError) for outcome in outcomes]

    def _wake(self) -> None:
        try:
            self.nudge()
        except RedisError as error:
            log.warning("nobody woken; the sweep will find it", error=type(error).__name__)
