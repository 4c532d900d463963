"""A rolling upgrade: documents of every past fold, stored as it stored them, go on as if it had always been today's."""

from __future__ import annotations

import pytest
from redis import Redis

from app import fold
from app.conference import read_header, read_participant
from app.events import Callback
from app.store import keys
from app.store.connect import claim_layout
from app.store.inbox import Inbox
from app.store.index import entries_of
from app.store.snapshots import Snapshots
from app.twilio.callbacks import read
from tests import golden
from tests.cast import ROOM, callback, said
from tests.conftest import SHARDS
from tests.golden import Golden, events_of, form
from tests.golden.rolled import stored
from tests.workers.post import empty, kept, post, written
from workers.drain import Drain

EACH = [pytest.param(n, story, id=f"{n}-{story.name}") for n in golden.versions() for story in golden.golden(n)]
NEWCOMER = "CA" + "9" * 32


def joins(sid: str) -> Callback:
    """One more callback: somebody new comes, later than all."""
    return callback(said("participant-join", NEWCOMER, number=900, second=900, room=sid), received_at=1_795_350_000_000)


def index_of(redis: Redis) -> set[bytes]:
    return {entry for shard in range(SHARDS) for entry in redis.zrange(keys.index(shard), 0, -1)}


def log_of(snapshots: Snapshots, sid: str) -> list[tuple[str, Callback]]:
    return [(entry.event_id, entry.callback) for entry in snapshots.log(sid)]


@pytest.mark.parametrize(("version", "story"), EACH)
def test_a_document_of_any_version_becomes_what_a_fold_of_everything_says(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, drain: Drain, version: int, story: Golden
) -> None:
    stored(redis, version, story)
    more = joins(story.sid)
    post(inbox, more)
    empty(drain)
    conference = kept(snapshots, story.sid)
    told = [event for _, event in events_of(story.sid, story.log)]
    assert written(conference) == written(fold.fold([*told, read(more)]))
    holes = 0 if version == fold.VERSION else 1
    revision = read_header(story.header).revision + 1 + holes
    assert conference.header.revision == revision, "a hole: whoever follows must read it anew"
    assert snapshots.load({story.sid: None})[story.sid].fold_version == fold.VERSION
    assert index_of(redis) == entries_of(conference.header, conference.participants.values())
    assert log_of(snapshots, story.sid) == [*story.log, (read(more).id, more)]
    assert snapshots.counters() == {"folded": 1, "noted": 0, "repeated": 0, "dead": 0}


@pytest.mark.parametrize(("version", "story"), EACH)
def test_repeats_of_what_a_past_fold_has_heard_change_nothing(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, drain: Drain, version: int, story: Golden
) -> None:
    stored(redis, version, story)
    for event_id, each in story.log:
        if event_id in dict(events_of(story.sid, story.log)):
            inbox.append(inbox.shard_of(story.sid), each)
    empty(drain)
    [document] = snapshots.documents([story.sid])
    assert document == story.document
    assert log_of(snapshots, story.sid) == story.log


@pytest.mark.parametrize(("version", "story"), EACH)
def test_the_document_of_any_version_can_be_read_as_it_stands(
    redis: Redis, snapshots: Snapshots, version: int, story: Golden
) -> None:
    stored(redis, version, story)
    assert snapshots.documents([story.sid]) == [story.document]
    known = snapshots.load({story.sid: None})[story.sid]
    assert (known.fold_version, known.whole) == (version, True)
    assert known.conference.header == read_header(story.header)
    assert known.conference.in_order() == list(map(read_participant, story.participants))


@pytest.mark.parametrize("name", form.names())
def test_mail_that_an_earlier_build_left_is_folded_into_what_it_had(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, drain: Drain, name: str
) -> None:
    read_then = form.restored(redis, name)
    claim_layout(redis, SHARDS)
    waiting = len(read_then["waiting"])
    assert waiting > 0
    before = len(snapshots.log(ROOM))
    empty(drain)
    told = [event for _, event in events_of(ROOM, log_of(snapshots, ROOM))]
    assert len(told) > before
    assert written(kept(snapshots, ROOM)) == written(fold.fold(told))
    assert snapshots.expired(2**50, 10) == [], "what was pending has been answered and confirmed"
    assert snapshots.counters()["dead"] == read_then["counters"]["dead"]
    everyone = [snapshots.load({sid: None})[sid].conference for sid in snapshots.sids()]
    entries = [entries_of(each.header, each.participants.values()) for each in everyone]
    assert index_of(redis) == set().union(*entries)
