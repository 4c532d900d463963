"""What is due is found, belongs to one worker at a time, and is never lost on the way."""

from __future__ import annotations

import pytest
from redis import Redis

from app.store import keys
from app.store.attendance import Attendance
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
    one, other = [HOLE], [Due(SIDS[1], "silent", NOW)]
    wanted(redis, *one, *other)
    first = looks.begin(one, NOW)
    assert first is not None
    assert looks.begin(one, NOW) is None
    assert looks.go_on(SIDS[0], first.token)
    assert looks.begin(other, NOW) is not None
    looks.leave(SIDS[0], "another's")
    assert looks.begin(one, NOW) is None
    assert 0 < redis.pttl(keys.asking(keys.shard_of(SIDS[0], SHARDS), SIDS[0])) <= 60_000
    looks.leave(SIDS[0], first.token)
    assert not looks.go_on(SIDS[0], first.token)
    assert looks.begin(one, NOW) is not None


def test_what_is_not_due_any_more_is_not_begun(redis: Redis, looks: Looks) -> None:
    gone, later = HOLE._replace(reason="operator"), HOLE._replace(reason="silent")
    wanted(redis, later._replace(at=NOW + 1))
    assert looks.begin([gone, later], NOW) is None
    wanted(redis, HOLE._replace(at=NOW - 1))
    begun = looks.begin([gone, HOLE, later], NOW)
    assert begun is not None
    assert begun.dues == [HOLE._replace(at=NOW - 1)], "as it stands now"


def test_what_a_commit_has_put_back_stays(redis: Redis, looks: Looks) -> None:
    wanted(redis, HOLE)
    begun = looks.begin([HOLE], NOW)
    assert begun is not None
    again = HOLE._replace(at=NOW + 7)
    wanted(redis, again)
    looks.put_off(dict.fromkeys(begun.dues))
    assert pending(redis) == {HOLE.member: again.at}


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
    begun = looks.begin([Due(SIDS[0], "operator", NOW)], NOW)
    assert begun is not None
    assert (begun.header, begun.asked_by, begun.seen_at) == (None, "desk", None)


def test_an_errand_has_one_worker(looks: Looks) -> None:
    assert looks.first_at("outage", 9)
    assert not looks.first_at("outage", 9)
    assert looks.first_at("adopt", 9)
    looks.done_with("outage")
    assert looks.first_at("outage", 9)


# Whether somebody was there


def missed(web: Attendance, milliseconds: int) -> None:
    """As if so much time had gone by since it was last said."""
    web.redis.hincrby(keys.ATTENDED, "at", -milliseconds)
    web.said_at = None if web.said_at is None else web.said_at - milliseconds


def length(web: Attendance) -> int | None:
    """How long the noted outage was, in seconds."""
    noted = web.outage()
    return None if noted is None else (noted.until - noted.since) // 1000


def test_the_first_who_comes_has_missed_nothing_and_who_comes_in_time_neither(redis: Redis) -> None:
    web = Attendance(redis)
    for after in (0, 14_000, 1_000, -10_000):  # Redis' clock was set back
        missed(web, after) if after else None
        web.beat(0)
    assert web.outage() is None


def test_who_comes_too_late_notes_since_when_nobody_was_there(redis: Redis) -> None:
    one, other = Attendance(redis), Attendance(redis)
    one.beat(0)
    missed(one, 17_000)
    other.beat(500)
    one.beat(0)
    assert length(one) == 17


def test_who_was_there_and_could_not_say_so_has_missed_nothing(redis: Redis) -> None:
    web = Attendance(redis)
    web.beat(0)
    missed(web, 60_000)
    web.beat(50_000)
    assert web.outage() is None


def test_a_redis_that_comes_back_without_what_it_was_told_has_lost_more_than_that(redis: Redis) -> None:
    web = Attendance(redis)
    web.beat(0)
    redis.hincrby(keys.ATTENDED, "at", -2_000)
    web.beat(60_000)
    assert length(web) == 2


def test_refusals_are_an_outage_and_outages_are_seen_to_as_one(redis: Redis) -> None:
    web = Attendance(redis)
    web.beat(0)
    web.beat(60_000, refused_for=5_000)
    noted = web.outage()
    assert noted is not None
    assert length(web) == 5
    missed(web, 60_000)
    web.beat(0)
    web.over(noted)
    grown = web.outage()
    assert grown is not None
    assert grown.since <= noted.since - 50_000
    web.over(grown)
    assert web.outage() is None
