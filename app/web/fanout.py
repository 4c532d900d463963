"""Reads the feed of changes once for all streams of this process, and hands each what it wants as ready bytes."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Literal, NamedTuple
from zlib import crc32

import structlog
from redis import RedisError
from redis.exceptions import TimeoutError as TimedOut

from app.conference import encode
from app.store.feed import Feed, Gone, Place, Places, Told, moved, written
from app.store.inbox import Inbox, lag

BEAT = 10.0
"""Seconds. Proxies and people take a stream for dead that is silent for half a minute."""
WAIT = 0.5
"""Seconds that one read waits; well under the patience of the connection."""
LINGER = 5.0
"""Seconds that reading goes on when the last stream has ended: most come back."""
WAITING = 500
"""Chunks that may wait for one stream. All that came in one read is one chunk."""
RECENT = 2000
"""Changes that are remembered, of all shards: who comes back soon is told from memory what was missed."""
PAUSE, LONGEST_PAUSE = 50e-6, 0.1
"""Seconds for each listener, and at most, until reading goes on: each then gets more at a time, and less often."""
READ_UP_WITHIN = 2.0
"""Seconds in which this process should get as far as a reader has got elsewhere; after that, is such a place known?"""

LONGEST_BEHIND = 20.0
"""Seconds that a reader waits for that; then it is sent away, for another process may be better."""

Reason = Literal["gone", "malformed", "slow"]

log = structlog.get_logger("offhook.feed")


class Wanted(NamedTuple):
    """Which changes a stream is for."""

    accounts: frozenset[str] | None
    """None: all."""
    conference: str | None
    """None: all."""

    @property
    def mark(self) -> str:
        """Stands at the end of its events' ids: a stream that is for something else cannot be taken up with them."""
        return f"{crc32(repr((sorted(self.accounts or ()), self.accounts is None, self.conference)).encode()):08x}"

    def covers(self, told: Told) -> bool:
        """Whether this change is one of them."""
        return self.conference in (None, told.conference_sid) and (
            self.accounts is None or told.account_sid in self.accounts
        )


class Lost(Exception):
    """A stream has not been handed everything, and must begin anew."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Listener:
    """What waits to be sent on one stream."""

    def __init__(self, places: Places) -> None:
        """It is handed everything behind these places."""
        self.places = places
        self.lost: Reason | None = None
        self._chunks: SimpleQueue[bytes | None] = SimpleQueue()

    def put(self, chunk: bytes) -> None:
        """Have frames sent; too many of them, and the stream is lost."""
        if self.lost:
            return
        if self._chunks.qsize() < WAITING:
            self._chunks.put(chunk)
        else:
            self.lose("slow")

    def lose(self, reason: Reason) -> None:
        """Say that it has missed something. What waits is not sent any more, nor kept for one who takes nothing."""
        self.lost = reason
        with suppress(Empty):
            while True:
                self._chunks.get_nowait()
        self._chunks.put(None)

    def end(self) -> None:
        """Let it end behind what it has been handed."""
        self._chunks.put(None)

    def chunks(self) -> Iterator[bytes]:
        """Whole frames as they come, until the end. Raises `Lost`."""
        while True:
            chunk = self._chunks.get()
            if self.lost:
                raise Lost(self.lost)
            if chunk is None:
                return
            yield chunk


class Fanout:
    """One reader of the feed, and all who listen."""

    def __init__(self, feed: Feed, inbox: Inbox) -> None:
        self.feed = feed
        self.inbox = inbox
        self.stopping: Callable[[], bool] = lambda: False
        """Whether all streams are to end. The web server may set it."""
        self._listeners: defaultdict[Wanted, set[Listener]] = defaultdict(set)
        self._places: Places | None = None
        self._recent: dict[tuple[int, Place], Told] = {}
        self._recent_since: Places = ()
        """Everything behind these places, up to where reading has got, is in `_recent`, by shard and place."""
        self._behind: float | None = None
        self._reading = False
        self._joining = 0
        self._moved = threading.Condition()
        """Held while what stands above changes; told when reading has got further."""

    @property
    def listening(self) -> int:
        """How many streams there are."""
        return sum(map(len, self._listeners.values()))

    @contextmanager
    def listen(self, wanted: Wanted, since: Places) -> Iterator[Listener]:
        """From now on have changes waiting; what was told before that, and since then, is the caller's to read.

        Waits until reading has got as far as `since`. Raises `Gone` where that is not kept, RedisError where that takes
        too long.
        """
        with self._moved:
            if not self._reading:
                self._reading = True
                threading.Thread(target=self._read, name="feed", daemon=True).start()
            self._joining += 1
        try:
            listener = self._listening(wanted, since)
        finally:
            with self._moved:
                self._joining -= 1
        try:
            yield listener
        finally:
            with self._moved:
                self._listeners[wanted].discard(listener)
                if not self._listeners[wanted]:
                    del self._listeners[wanted]

    def _listening(self, wanted: Wanted, since: Places) -> Listener:
        deadline = time.monotonic() + LONGEST_BEHIND
        while not self.stopping():
            with self._moved:
                if self._moved.wait_for(lambda: self._has_reached(since), READ_UP_WITHIN) and self._places is not None:
                    listener = Listener(self._places)
                    self._listeners[wanted].add(listener)
                    return listener
            if not self.feed.holds(since):
                break
            if time.monotonic() > deadline:
                raise TimedOut("this process does not keep up with the feed")
        raise Gone

    def missed(self, since: Places, until: Places) -> Iterable[Told]:
        """What was told between these places, the latter being where a listener began. Raises `Gone`, RedisError."""
        if since == until:
            return []
        with self._moved:
            if self._places is not None and all(
                place == self._recent_since[shard] or (shard, place) in self._recent
                for shard, place in enumerate(since)
            ):
                recent = self._recent.values()
                return [each for each in recent if since[each.shard] < each.place <= until[each.shard]]
        return self.feed.between(since, until)

    def beat(self, places: Places, wanted: Wanted) -> bytes:
        """The frame that says how fresh all this is."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return frame("beat", encode({"at": at, "behind": self._behind}), places, wanted.mark)

    def _has_reached(self, since: Places) -> bool:
        return self._places is not None and all(here >= there for here, there in zip(self._places, since, strict=True))

    def _read(self) -> None:
        """Read and hand out, until the server stops or nobody has listened for a while."""
        beaten = wanted_at = time.monotonic()
        answering = True
        while not self.stopping():
            now = time.monotonic()
            if self._listeners or self._joining:
                wanted_at = now
            elif now - wanted_at > LINGER and self._is_over():
                return
            try:
                if self._places is None:
                    self._begin()
                told = self.feed.wait(self._places or (), WAIT)
                if now - beaten > BEAT or not answering:
                    beaten, answering = now, True
                    self._look_around()
                self._hand_out(told, beat=beaten == now)
                if told:
                    time.sleep(min(PAUSE * self.listening, LONGEST_PAUSE))
            except Gone:
                self._lose_all()
            except RedisError as error:
                if answering or now - beaten > BEAT:
                    log.warning("the feed cannot be read", error=type(error).__name__)
                    beaten, answering, self._behind = now, False, None
                    self._hand_out([], beat=True)
                time.sleep(WAIT)
            except Exception:  # whatever it is must not silence every stream for good
                log.exception("the feed is read anew")
                self._lose_all()
                time.sleep(WAIT)
        self._end_all()

    def _is_over(self) -> bool:
        with self._moved:
            if self._listeners or self._joining:
                return False
            self._reading, self._places = False, None
            return True

    def _begin(self) -> None:
        self._behind = self._lag()
        since, told, places = self.feed.latest(RECENT // self.feed.shards)
        with self._moved:
            self._recent_since, self._recent, self._places = since, {}, places
            for each in told:
                self._remember(each)
            self._moved.notify_all()

    def _look_around(self) -> None:
        """Is Redis still the one that was read from, and how late is what it tells? Raises `Gone`."""
        if self._places is not None and not self.feed.holds(self._places):
            raise Gone
        self._behind = self._lag()

    def _lag(self) -> float:
        """For how many seconds the oldest callback has waited to be folded."""
        return lag(self.inbox.backlog(), time.time()) or 0.0

    def _hand_out(self, told: Sequence[Told], *, beat: bool) -> None:
        with self._moved:
            if self._places is None:
                return
            news: list[tuple[Told, Places]] = []
            for each in told:
                self._places = moved(self._places, each.shard, each.place)
                news.append((each, self._places))
                self._remember(each)
            for wanted, listeners in self._listeners.items():
                mark = wanted.mark
                chunk = b"".join(frame("change", e.message, places, mark) for e, places in news if wanted.covers(e))
                if beat:
                    chunk += self.beat(self._places, wanted)
                if chunk:
                    for listener in listeners:
                        listener.put(chunk)
            if told:
                self._moved.notify_all()

    def _remember(self, told: Told) -> None:
        self._recent[told.shard, told.place] = told
        if len(self._recent) > RECENT:
            oldest = self._recent.pop(next(iter(self._recent)))
            self._recent_since = moved(self._recent_since, oldest.shard, oldest.place)

    def _lose_all(self) -> None:
        """Another life of Redis, or none that can be read: everybody begins anew, and so does the reading."""
        with self._moved:
            for listeners in self._listeners.values():
                for listener in listeners:
                    listener.lose("gone")
            self._listeners.clear()
            self._places = None

    def _end_all(self) -> None:
        with self._moved:
            for listeners in self._listeners.values():
                for listener in listeners:
                    listener.end()
            self._reading, self._places = False, None


def frame(name: str, data: bytes, places: Places | None = None, mark: str = "") -> bytes:
    """One event of a stream. Without places its reader is left with nothing to come back with, and begins anew."""
    word = b"%b~%b" % (written(places).encode(), mark.encode()) if places else b""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (word, name.encode(), data)
