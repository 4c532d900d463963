"""When Twilio's REST API is to be looked at, and why: never without a reason, and seldom with one.

One look shows a conference and everyone in it. What callbacks tell makes nearly all looks needless; what makes one due
is that some were lost, or may have been. A reason lasts until a look has answered it, and has one that succeeds.

Knows no clock, store, HTTP or settings. What it says hangs on when callbacks came, so it is no part of the fold.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from app.conference import Header, Reason, Want

GRACE = timedelta(seconds=5)
"""How long a missing number may take to come, late or by Twilio's second attempt."""
EMPTY = timedelta(seconds=60)
"""How long the end may take to come once everyone has left. Twilio tells both at once."""
SILENCE = timedelta(minutes=10)
"""After so long without a callback an open conference may have gone on, or ended, without a word."""
SILENCE_GROWS = 4
"""Each look that finds a silent conference open is followed by one after so many times as long: five in a day."""
MOST_DOUBLED = 10
"""The grace of holes doubles with each look that a conference has had, up to `SILENCE`: a bad line costs a handful.
With each of the latest that showed nothing new it doubles twice. Whether Twilio numbers events that nobody has
subscribed to is not documented: if so, there are holes all the time, and nothing is lost."""


def wanted(before: Header | None, after: Header, now: datetime) -> Want | None:
    """The look that is to be had next, after a change of a conference at `now` from one header to another.

    None: nothing is wanted, for all is well, or over: Twilio forgets the participants of what has ended (Twilio docs,
    Participant resource). Both headers have their receive-side facts.
    """
    if after.status == "completed":
        return None
    return min(_wants(before, after, now), key=lambda want: (want.due_at, want.reason), default=None)


def _wants(before: Header | None, after: Header, now: datetime) -> Iterator[Want]:
    if after.coverage.lacks or after.coverage.doubted:
        since = now
        if before and before.want and before.want.reason in HOLES and before.asked_at == after.asked_at:
            since = before.want.since  # the same episode
        reason: Reason = "hole" if after.coverage.from_start or after.coverage.snapshots else "midway"
        reason = "doubted" if after.coverage.doubted else reason
        doubled = min(after.coverage.snapshots + after.coverage.fruitless, MOST_DOUBLED)
        yield Want(reason=reason, since=since, due_at=since + min(GRACE * 2**doubled, SILENCE))
    ignored = max((each.expires_at for each in after.actions if each.state == "ignored"), default=None)
    if ignored is not None and (after.asked_at is None or after.asked_at < ignored):
        yield Want(reason="control", since=ignored, due_at=ignored)
    heard, asked = min(after.heard_at or after.created_at or after.asked_at or now, now), after.asked_at
    if asked is None or asked <= heard:
        if after.status == "in-progress" and after.counts.present == 0:
            yield Want(reason="empty", since=heard, due_at=heard + EMPTY)
        yield Want(reason="silent", since=heard, due_at=heard + SILENCE)
    else:
        again = max(SILENCE, SILENCE_GROWS * (asked - heard))
        yield Want(reason="silent", since=heard, due_at=asked + again)


HOLES: tuple[Reason, ...] = ("hole", "midway", "doubted")
