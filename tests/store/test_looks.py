"""What is due is found, belongs to one worker at a time, and is never lost on the way."""

from __future__ import annotations

import pytest
from redis import Redis

from app.store import keys
from app.store.attendance import Attendance, Outage
from app.store.looks import FIRST, LONGEST, Due, Looks
from tests.conftest import SHARDS

NOW = 1_795_348_800_000
SIDS = [f"CF{number:032x}" for number in range(1, 9)]
HOLE = Due(SIDS[0], "hole", NOW - 5)


def wanted(redis: Redis, *dues: Due) -> None:
    """As a commit would write it down."""
    for due in dues:
        redis.zadd(keys.looks(keys.shard_of(due.sid, SHARDS)), {due.member: due.at})


def pending(redis: Redis) -> dict[str, int]:
    """All looks that are to be had, with their time."""
    found: dict[str, int] = {}
    for shard in range(SHARDS):
        some: list[tuple[bytes, float]] = redis.zrange(keys.looks(shard), 0, -1, withscores=True)
        found |= {member.decode(): int(score) for member, score in some}
    return found


@pytest.fixture
def looks(redis: Redis) -> Looks:
    return Looks(redis, SHARDS)


def test_what_is_due_is_found_the_oldest_first(redis: Redis, looks: Looks) -> None:
    dues = [Due(sid, "silent", NOW - number) for number, sid in enumerate(SIDS)]
    wanted(redis, *dues, Due(SIDS[0], "empty", NOW + 1))
    assert looks.due(NOW, 50) == dues[::-1]
    assert len(looks.due(NOW, 1)) == len({keys.shard_of(sid, SHARDS) for sid in SIDS})
    assert looks.due(NOW - 100, 50) == []


def test_one_worker_has_a_look_until_it_gives_it_back(redis: Redis, looks: Looks) -> None:
    first = looks.begin(SIDS[0])
    assert first is not None
    assert looks.begin(SIDS[0]) is None
    assert looks.go_on(SIDS[0], first.token)
    assert looks.begin(SIDS[1]) is not None
    looks.leave(SIDS[0], "another's")
    assert looks.begin(SIDS[0]) is None
    assert 0 < redis.pttl(keys.asking(keys.shard_of(SIDS[0], SHARDS), SIDS[0])) <= 60_000
    looks.leave(SIDS[0], first.token)
    assert not looks.go_on(SIDS[0], first.token)
    assert looks.begin(SIDS[0]) is not None


def test_a_success_puts_off_what_the_fold_wanted_and_takes_away_what_was_asked(redis: Redis, looks: Looks) -> None:
    asked, silent = HOLE._replace(reason="operator"), HOLE._replace(reason="silent", at=NOW + 99)
    wanted(redis, HOLE, asked, silent)
    looks.settle([asked, HOLE], NOW, NOW + 600_000)
    assert pending(redis) == {HOLE.member: NOW + 600_000, silent.member: NOW + 99}
    assert redis.hgetall(keys.REST) == {b"snapshot:operator": b"1"}


def test_what_a_commit_has_taken_away_does_not_come_back(redis: Redis, looks: Looks) -> None:
    looks.settle([HOLE], NOW, NOW + 600_000)
    looks.failed([HOLE], NOW)
    looks.put_off({HOLE: NOW + 5})
    assert pending(redis) == {}


def test_what_another_worker_has_come_to_is_not_put_off_again(redis: Redis, looks: Looks) -> None:
    wanted(redis, HOLE)
    looks.settle([HOLE], NOW, NOW + 600_000)
    looks.put_off({HOLE: NOW + 5})
    assert pending(redis) == {HOLE.member: NOW + 600_000}


def test_each_failure_in_a_row_puts_a_look_off_twice_as_long_and_never_away(redis: Redis, looks: Looks) -> None:
    wanted(redis, HOLE)
    waits = [looks.failed([HOLE], NOW) for _ in range(12)]
    assert waits == [min(LONGEST, FIRST * 2**tries) for tries in range(12)]
    assert pending(redis) == {HOLE.member: NOW + LONGEST}
    looks.settle([HOLE], NOW, NOW)
    assert looks.failed([HOLE], NOW) == FIRST


def test_who_asks_gets_it_no_later_than_it_was_due(redis: Redis, looks: Looks) -> None:
    looks.ask([SIDS[0]], "operator", NOW + 9, by="desk")
    looks.ask([SIDS[0]], "operator", NOW, by="wallboard")
    looks.ask([SIDS[0]], "operator", NOW + 5, by="desk")
    looks.ask([SIDS[1]], "outage", NOW)
    looks.ask([SIDS[1]], "outage", NOW + 7)
    assert pending(redis) == {f"{SIDS[0]} operator": NOW, f"{SIDS[1]} outage": NOW}
    begun = looks.begin(SIDS[0])
    assert begun is not None
    assert (begun.header, begun.asked_by, begun.seen_at) == (None, "desk", None)


def test_an_errand_has_one_worker(looks: Looks) -> None:
    assert looks.first_at("outage", 9)
    assert not looks.first_at("outage", 9)
    assert looks.first_at("adopt", 9)
    looks.done_with("outage")
    assert looks.first_at("outage", 9)


# Whether somebody was there


def test_the_first_who_comes_has_missed_nothing_and_who_comes_in_time_neither(redis: Redis) -> None:
    web = Attendance(redis)
    for after in (0, 15_000, 15_001, 16_000, 10_000):  # a clock that is behind
        web.beat(NOW + after)
    assert web.outage() is None


def test_who_comes_too_late_notes_since_when_nobody_was_there(redis: Redis) -> None:
    one, other = Attendance(redis), Attendance(redis)
    one.beat(NOW)
    other.beat(NOW + 15_001)
    one.beat(NOW + 15_500)
    assert one.outage() == Outage(NOW, NOW + 15_001)


def test_refusals_are_an_outage_and_outages_are_seen_to_as_one(redis: Redis) -> None:
    web = Attendance(redis)
    web.beat(NOW)
    web.beat(NOW + 1_000, refused_since=NOW + 500)
    noted = web.outage()
    assert noted == Outage(NOW + 500, NOW + 1_000)
    web.beat(NOW + 60_000)
    web.over(noted)
    assert web.outage() == Outage(NOW + 500, NOW + 60_000), "it has grown"
    web.over(Outage(NOW + 500, NOW + 60_000))
    assert web.outage() is None
