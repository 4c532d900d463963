"""Writes callbacks, and records of control requests, down where they will be folded: all that wait, in one round trip.

While one request waits for Redis, others come. They queue up here, and the first of them sends all of theirs together
as soon as the answer is in; or the last of them does, once there are enough. One that comes alone is sent at once.
A request that brings many is stored once all of them are.

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
    """What a request brings, on its way, and the request that waits for it."""

    __slots__ = ("failure", "load", "mail", "turn")

    def __init__(self, mail: Sequence[Spooled]) -> None:
        self.mail = mail
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
        self.store_all([Spooled(home, callback, speech)])

    def store_all(self, mail: Sequence[Spooled]) -> None:
        """Write all of these down, in one round trip; they are safe once this returns.

        Raises as `store` does when one of them is not known to be stored. Others may be: they may come again.
        """
        letter = Letter(mail)
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
                most = _within(LARGEST_LOAD, self._queue)
                following, self._queue = self._queue[:most], self._queue[most:]
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
        mail = load[0].mail if len(load) == 1 else [each for letter in load for each in letter.mail]
        outcomes = self._stored([Posted(self.inbox.shard_of(each.home), each.callback, each.speech) for each in mail])
        failures: dict[int, Exception] = {}
        due = False
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                failures[place] = outcome
            due = due or outcome is True
        if failures and self.spool is not None:
            # speech that Redis has no room for would only be in the way of what the spool is for
            left = [place for place, why in failures.items() if not (mail[place].speech and isinstance(why, Full))]
            for place, is_taken in zip(left, self._spooled([mail[place] for place in left]), strict=True):
                if is_taken:
                    del failures[place]
        last = 0
        for letter in load:
            first, last = last, last + len(letter.mail)
            letter.failure = next((failures[place] for place in range(first, last) if place in failures), None)
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

    def _spooled(self, mail: Sequence[Spooled]) -> Sequence[bool]:
        """Write these to the spool instead, as far as that is possible. Of each whether it is there."""
        if not mail or self.spool is None:
            return []
        try:
            failpoints.reach("before_spool")
            taken = self.spool.write(mail)
            failpoints.reach("after_spool")
        except OSError as error:
            now = time.monotonic()
            if now - self._complained_at > SAID_EVERY:
                self._complained_at = now
                log.error("not spooled", error=error.strerror or type(error).__name__)
            return [False] * len(mail)
        return taken

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


def _within(most: int, queue: Sequence[Letter]) -> int:
    """How many of the first letters hold this many callbacks together; one at least, if there is one."""
    count = 0
    for place, letter in enumerate(queue):
        count += len(letter.mail)
        if count >= most:
            return place + 1
    return len(queue)
