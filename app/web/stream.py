"""`/api/stream`: what is true now, then every change, as Server-Sent Events. Look, listen, catch up, follow.

The log of changes makes that free of holes: whatever was committed after the look began is in the log, and is sent
from there up to where listening began.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import structlog
from flask import Blueprint, Response, abort, request
from redis import RedisError
from werkzeug.exceptions import ServiceUnavailable

from app.conference import encode, read_header
from app.events import Status
from app.store.feed import Feed, Gone, Places, moved, read_places
from app.store.snapshots import Question, Snapshots
from app.twilio.sids import is_sid
from app.web.access import Access, Reader, asked_account
from app.web.fanout import Fanout, Listener, Lost, Reason, Wanted, frame
from app.web.queries import query, visible_header

SHOWN: dict[Status, int] = {"init": 200, "in-progress": 1000}
"""How many conferences a snapshot has of each status: the newest. Looked for in this order: one that starts meanwhile
is then found twice, not never."""
LOT = 50
"""Conferences read whole between two waits for Redis. Others have their turn there: callbacks must not wait."""
SHARED_FOR = 1.0
"""Seconds that one snapshot is good for whoever comes: after a restart everybody comes at once."""
MOST_STREAMS = 2000
"""Of one process."""
LOOKED_AFTER = 15.0
"""Seconds, more or less, after which it is asked again whether whoever reads is still signed in."""
LARGEST_CHUNK = 64 * 1024

log = structlog.get_logger("offhook.stream")


class Look(NamedTuple):
    """What is true now."""

    shown: bytes
    """The `snapshot` event. Whoever gets it gets these very bytes: a thousand copies would be much."""
    revisions: dict[str, int]
    since: Places
    """Everything from before this place is in it. What came later may be, or not."""
    until: Places
    """Nothing from behind this place is in it."""
    taken: float
    """When it was begun, by the monotonic clock."""


def create(*, snapshots: Snapshots, feed: Feed, fanout: Fanout, access: Access) -> Blueprint:
    """`/api/stream`. See `app.web.create_app` for what it is handed."""
    blueprint = Blueprint("stream", __name__, url_prefix="/api")
    looks = Looks(snapshots, feed)

    @blueprint.get("/stream")
    def stream() -> Response:
        reader = access.reader()
        given = query("conference", "account", "last_event_id")
        wanted = _wanted(reader, given, snapshots)
        if fanout.listening >= MOST_STREAMS:
            raise ServiceUnavailable(
                f"This process has {MOST_STREAMS} streams already: try again, or raise WEB_CONCURRENCY.",
                retry_after=random.randint(2, 10),  # noqa: S311 - spreads them
            )
        last = request.headers.get("Last-Event-ID") or given.get("last_event_id") or None
        frames = Stream(looks, fanout, wanted, partial(access.still_in, reader)).frames(last)
        first = next(frames, b"")  # where Redis is away this is a 503, not a stream that ends at once
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return Response(_body(first, frames), headers=headers, content_type="text/event-stream; charset=utf-8")

    return blueprint


def _body(first: bytes, frames: Iterator[bytes]) -> Iterator[bytes]:
    try:
        if first:
            yield first
        yield from frames
    except RedisError as error:
        log.warning("a stream ended", error=type(error).__name__)


def _wanted(reader: Reader, given: dict[str, str], snapshots: Snapshots) -> Wanted:
    conference, account = given.get("conference"), given.get("account")
    if account is not None and not is_sid("AC", account):
        abort(400, "account: expected AC and 32 hexadecimal digits.")
    accounts = reader.accounts if account is None else frozenset({str(asked_account(reader, account))})
    if conference is None:
        return Wanted(accounts, None)
    if not is_sid("CF", conference):
        abort(400, "conference: expected CF and 32 hexadecimal digits.")
    if snapshots.headers([conference])[0] is not None:  # one that is yet to come may be waited for
        visible_header(reader, conference, snapshots)
    return Wanted(accounts, conference)


class Looks:
    """Snapshots, each shared by whoever wants the same within a second."""

    def __init__(self, snapshots: Snapshots, feed: Feed) -> None:
        self.snapshots = snapshots
        self.feed = feed
        self._latest: dict[Wanted, Look] = {}
        self._failed: tuple[float, RedisError] | None = None
        self._one_at_a_time = threading.Lock()

    def take(self, wanted: Wanted, not_before: float) -> Look:
        """What is true now, or was not before that moment of the monotonic clock. Raises RedisError."""
        if wanted.conference is not None:
            return self._look(wanted)
        asked_at = time.monotonic()
        with self._one_at_a_time:
            if self._failed is not None and self._failed[0] > asked_at:
                raise self._failed[1]  # who has waited for a look that failed must not wait for another
            look = self._latest.get(wanted)
            if look is None or look.taken < not_before:
                try:
                    look = self._look(wanted)
                except RedisError as error:
                    self._failed = time.monotonic(), error
                    raise
                horizon = look.taken - SHARED_FOR
                fresh = {of: kept for of, kept in self._latest.items() if kept.taken > horizon}
                self._latest = {**fresh, wanted: look}
            return look

    def _look(self, wanted: Wanted) -> Look:
        taken, since, at = time.monotonic(), self.feed.end(), datetime.now(UTC)
        sids, more = self._live(wanted) if wanted.conference is None else ([wanted.conference], False)
        documents: list[bytes] = []
        revisions: dict[str, int] = {}
        for start in range(0, len(sids), LOT):
            for document in self.snapshots.documents(sids[start : start + LOT]):
                if document is None:
                    continue
                header = read_header(document)
                if wanted.conference is None and header.status not in SHOWN:
                    continue  # it has just ended; that is in the log
                if wanted.accounts is None or header.account_sid in wanted.accounts:
                    revisions[header.sid] = header.revision
                    documents.append(document)
        ends = b'"more":%b,"at":%b' % (encode(more), encode(at))
        data = b'{"conferences":[%b],%b}' % (b",".join(documents), ends)
        return Look(frame("snapshot", data, since, wanted.mark), revisions, since, self.feed.end(), taken)

    def _live(self, wanted: Wanted) -> tuple[list[str], bool]:
        """The conferences that are going on, and whether there are more than are shown."""
        sids: dict[str, None] = {}
        more = False
        for status, most in SHOWN.items():
            for account in sorted(wanted.accounts) if wanted.accounts else [None]:
                headers, following = self.snapshots.page(Question(account=account, status=status), None, most + 1)
                sids |= dict.fromkeys(read_header(header).sid for header in headers[:most])
                more = more or following is not None
        return list(sids), more


class Stream:
    """One reader's stream."""

    def __init__(self, looks: Looks, fanout: Fanout, wanted: Wanted, still_in: Callable[[], bool]) -> None:
        self.looks = looks
        self.fanout = fanout
        self.wanted = wanted
        self.still_in = still_in

    def frames(self, last: str | None) -> Iterator[bytes]:
        """Everything that is sent, from behind the event `last` on. Ends when it should be asked for anew.

        Raises RedisError.
        """
        retry = b"retry: %d\n\n" % random.randint(1000, 4000)  # noqa: S311 - so that not all come back at once
        places, reason = self._taken_up(last)
        not_before = time.monotonic() - SHARED_FOR
        while not self.fanout.stopping():
            look = None
            if places is None:
                look = self.looks.take(self.wanted, not_before)
                places = look.since
                yield retry + (frame("reset", encode({"reason": reason})) if reason else b"")
                retry = b""
                yield look.shown
            try:
                with self.fanout.listen(self.wanted, look.until if look else places) as listener:
                    if look is None:
                        yield retry
                        retry = b""
                    yield from self._caught_up(places, listener.places, look.revisions if look else {})
                    look = None
                    yield self.fanout.beat(listener.places, self.wanted)
                    yield from self._followed(listener)
                return
            except Gone:
                reason = "gone"
            except Lost as lost:
                reason = lost.reason
            places, not_before = None, time.monotonic()

    def _taken_up(self, last: str | None) -> tuple[Places | None, Reason | None]:
        """Where a reader has got to; or why that cannot be said, where it should."""
        if last is None:
            return None, None
        try:
            word, _, mark = last.partition("~")
            places = read_places(word, self.fanout.feed.shards)
        except ValueError:
            return None, "malformed"
        return (places, None) if mark == self.wanted.mark else (None, "gone")

    def _caught_up(self, places: Places, until: Places, shown: dict[str, int]) -> Iterator[bytes]:
        """What was told between these places, less what a snapshot has shown already."""
        chunk = b""
        for told in self.fanout.missed(places, until):
            places = moved(places, told.shard, told.place)
            if self.wanted.covers(told) and told.revision > shown.get(told.conference_sid, 0):
                chunk += frame("change", told.message, places, self.wanted.mark)
            if len(chunk) > LARGEST_CHUNK:
                yield chunk
                chunk = b""
        if chunk:
            yield chunk

    def _followed(self, listener: Listener) -> Iterator[bytes]:
        """What comes, for as long as whoever reads is still let in. Raises `Lost`."""
        asked_at = time.monotonic()
        for chunk in listener.chunks():
            yield chunk
            if time.monotonic() - asked_at > LOOKED_AFTER:
                asked_at = time.monotonic() + random.uniform(0, LOOKED_AFTER / 2)  # noqa: S311 - not all at once
                if not self.still_in():
                    return
