"""The post round: callbacks put into inboxes as the webhook puts them, and drained until nothing waits."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl

from msgspec.structs import replace

from app import fold
from app.conference import Conference, document, encode
from app.events import Callback, Event
from app.replay import concerns_a_call
from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from app.twilio.callbacks import read
from workers.drain import Drain


def post(inbox: Inbox, *callbacks: Callback) -> None:
    """Put each callback into its shard: its conference's, else its call's, else its account's."""
    for callback in callbacks:
        told = dict(parse_qsl(callback.body.decode("latin-1")))
        home = told.get("ConferenceSid") or told.get("CallSid") or told.get("AccountSid", "")
        inbox.append(inbox.shard_of(home), callback)


def empty(drain: Drain) -> None:
    """Drain every shard until none has mail, forwards included."""
    for _ in range(100):
        waiting = [shard for shard, standing in enumerate(drain.inbox.backlog()) if standing.waiting]
        if not waiting:
            return
        for shard in waiting:
            drain.drain([shard])
    raise AssertionError("mail is left after a hundred rounds")


def kept(snapshots: Snapshots, sid: str) -> Conference:
    """A conference as the store has it."""
    [conference] = snapshots.conferences([sid])
    return conference


def written(conference: Conference) -> bytes:
    """The document, byte for byte, without what the callbacks do not determine."""
    header = replace(conference.header, revision=0, heard_at=None, asked_at=None, want=None, set_aside=())
    return document(encode(header), map(encode, conference.in_order()))


def told_of(room: str, callbacks: Iterable[Callback]) -> Conference:
    """What the fold makes of all that these callbacks say about a room, by way of its calls too."""
    events = [read(callback) for callback in callbacks]
    about = [event for event in events if event.conference_sid == room]
    calls = {event.call_sid for event in about if concerns_a_call(event)}
    return fold.fold([*about, *(_filed(event, room) for event in events if _of_a_call(event, calls))])


def _of_a_call(event: Event, calls: set[str | None]) -> bool:
    return event.conference_sid is None and event.call_sid in calls


def _filed(event: Event, room: str) -> Event:
    return replace(event, conference_sid=room)
