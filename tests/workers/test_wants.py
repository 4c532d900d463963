"""A commit keeps what is wanted of Twilio's REST API, and counts what is missing, with the document."""

from __future__ import annotations

import time

from redis import Redis

from app.conference import Header, read_header
from app.events import Callback
from app.store import keys
from app.twilio.snapshot import Record, encode_record
from tests.cast import ACCOUNT, ANNA, BEN, ROOM, at, callback, said
from tests.workers.post import empty, post
from workers.drain import Drain


def heard(drain: Drain, number: int, event: str = "participant-mute", call: str = BEN, **more: str) -> None:
    """One callback has come just now, and is folded."""
    now = time.time_ns() // 1_000_000
    post(drain.inbox, callback(said(event, call, number=number, second=number, **more), received_at=now))
    empty(drain)


def looks(redis: Redis, drain: Drain) -> dict[str, float]:
    """What is due, and when, in seconds from now."""
    found = redis.zrange(keys.looks(drain.inbox.shard_of(ROOM)), 0, -1, withscores=True)
    return {member.decode(): score / 1000 - time.time() for member, score in found}


def header(drain: Drain) -> Header:
    [raw] = drain.snapshots.headers([ROOM])
    return read_header(raw)


def test_a_hole_has_a_look_wanted_until_it_is_filled(redis: Redis, drain: Drain) -> None:
    heard(drain, 1, "participant-join", ANNA)
    assert looks(redis, drain).keys() == {f"{ROOM} silent"}
    heard(drain, 3, "participant-join")
    assert looks(redis, drain).keys() == {f"{ROOM} hole"}
    assert drain.snapshots.gaps() == {"missing": 1, "looks": 0, "fruitful": 0}
    due = header(drain).want
    heard(drain, 4)
    assert header(drain).want == due, "traffic puts it off for nobody"
    heard(drain, 2, "conference-start", ANNA)
    assert looks(redis, drain).keys() == {f"{ROOM} silent"}
    assert drain.snapshots.gaps()["missing"] == 0


def test_what_is_only_put_off_is_left_where_it_is(redis: Redis, drain: Drain) -> None:
    heard(drain, 1, "participant-join", ANNA)
    [before] = redis.zrange(keys.looks(drain.inbox.shard_of(ROOM)), 0, -1, withscores=True)
    first = header(drain).want
    heard(drain, 2)
    [after] = redis.zrange(keys.looks(drain.inbox.shard_of(ROOM)), 0, -1, withscores=True)
    second = header(drain).want
    assert after == before, "whoever comes for it reads the header"
    assert first is not None
    assert second is not None
    assert second.due_at > first.due_at


def test_the_record_of_a_look_answers_it(redis: Redis, drain: Drain) -> None:
    heard(drain, 1, "participant-join", ANNA)
    heard(drain, 3, "participant-join")
    told = {"sid": ROOM, "status": "in-progress", "friendly_name": "Stand-up"}
    record = Record(
        account_sid=ACCOUNT,
        conference_sid=ROOM,
        taken_at=at(20),
        after=3,
        missing=True,
        reason="hole",
        by="offhook",
        conference=told,
        participants=[{"call_sid": call, "status": "connected", "muted": call == BEN} for call in (ANNA, BEN)],
    )
    heard_at = header(drain).heard_at
    now = time.time_ns() // 1_000_000
    seen = Callback(body=encode_record(record), media="snapshot", received_at=now, key="offhook")
    drain.inbox.append(drain.inbox.shard_of(ROOM), seen)
    empty(drain)
    known = header(drain)
    assert known.heard_at == heard_at, "it is no callback"
    assert known.asked_at is not None
    assert round(known.asked_at.timestamp() * 1000) == now
    assert looks(redis, drain).keys() == {f"{ROOM} silent"}
    assert drain.snapshots.gaps() == {"missing": 1, "looks": 1, "fruitful": 1}


def test_what_has_ended_is_looked_at_no_more(redis: Redis, drain: Drain) -> None:
    heard(drain, 2, "participant-join", ANNA)
    assert looks(redis, drain).keys() == {f"{ROOM} midway"}
    post(drain.inbox, callback(said("conference-end", number=3, second=9)))
    empty(drain)
    assert looks(redis, drain) == {}
    assert header(drain).want is None


def test_where_nobody_looks_nothing_is_wanted(redis: Redis, drain: Drain) -> None:
    drain.heals = False
    heard(drain, 3, "participant-join")
    assert header(drain).want is None
    assert looks(redis, drain) == {}
