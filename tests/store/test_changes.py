"""The log of changes has what subscribers were sent, byte for byte, and says so when it cannot tell everything."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from app.store import feed, keys
from app.store.commits import Commit
from app.store.feed import Feed, Gone, Place, Places, moved, read_places, written
from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from tests.cast import ACCOUNT, ANNA, ROOM, at, callback, said
from tests.claims import Fenced, committed
from tests.conftest import SHARDS
from tests.store.rooms import changed, claimed, room

BEYOND_ANY: Place = ((1 << 52) - 1, 1)
"""A place that Redis gives in the year 144000."""


@pytest.fixture
def changes(redis: Redis) -> Feed:
    return Feed(redis, SHARDS)


def commit(inbox: Inbox, snapshots: Snapshots, *numbers: int) -> list[bytes]:
    """Have rooms of these numbers change, those of a shard in one commit; the messages, shard by shard."""
    rooms = [room(number, at(number)) for number in numbers]
    messages = []
    for shard in range(SHARDS):
        ours = [
            changed(None, each, b'{"room": %d}' % int(each.header.sid[2:], 16))
            for each in rooms
            if inbox.shard_of(each.header.sid) == shard
        ]
        if ours:
            inbox.append(shard, callback(said("conference-start", number=1, second=0)))
            committed(snapshots, claimed(inbox, shard), 1, Commit(changes=ours))
            messages += [change.message for change in ours]
    return messages


def of_shard(shard: int, inbox: Inbox, count: int) -> list[int]:
    """Numbers of so many rooms that live there."""
    numbers = (n for n in range(count * SHARDS * 10) if inbox.shard_of(f"CF{n:032x}") == shard)
    return [next(numbers) for _ in range(count)]


# What is in the log


def test_every_committed_change_is_in_its_shards_log_with_the_bytes_that_were_published(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, changes: Feed
) -> None:
    before = changes.end()
    with feed.subscribe(redis) as messages:
        sent = commit(inbox, snapshots, *range(40))
        published = [next(messages) for _ in sent]
    told = list(changes.between(before, changes.end()))
    assert [each.message for each in told] == published == sent
    assert {each.shard for each in told} == set(range(SHARDS))
    for each in told:
        assert each.shard == inbox.shard_of(each.conference_sid)
        assert each.message == b'{"room": %d}' % int(each.conference_sid[2:], 16)
        assert (each.account_sid, each.revision) == (ACCOUNT, 1)


def test_places_rise_with_each_change_of_a_shard(inbox: Inbox, snapshots: Snapshots, changes: Feed) -> None:
    before = changes.end()
    for _ in range(5):
        commit(inbox, snapshots, *range(20))
    told = list(changes.between(before, changes.end()))
    for shard in range(SHARDS):
        places = [before[shard], *(each.place for each in told if each.shard == shard)]
        assert len(places) > 5
        assert all(earlier < later for earlier, later in pairwise(places))


def test_a_fenced_commit_writes_nothing_into_the_log(inbox: Inbox, snapshots: Snapshots, changes: Feed) -> None:
    end = changes.end()
    shard = inbox.shard_of(ROOM)
    inbox.append(shard, callback(said("conference-start", number=1, second=0)))
    batch = claimed(inbox, shard)
    work = Commit(changes=[changed(None, room(1, at(1)))])
    with pytest.raises(Fenced):
        committed(snapshots, batch._replace(token="somebody else's"), 1, work)
    assert changes.end() == end
    committed(snapshots, batch, 1, work)
    once = changes.end()
    assert once != end
    with pytest.raises(Fenced):
        committed(snapshots, batch, 1, work)
    assert changes.end() == once


def test_a_commit_that_changes_no_conference_tells_nothing(inbox: Inbox, snapshots: Snapshots, changes: Feed) -> None:
    end = changes.end()
    inbox.append(1, callback(said("conference-start", number=1, second=0)))
    committed(snapshots, claimed(inbox, 1), 1, Commit(repeated=1))
    assert changes.end() == end
    assert changes.wait(end, 0.001) == []


def test_full_memory_stops_neither_the_log_nor_who_reads_it(
    inbox: Inbox, snapshots: Snapshots, changes: Feed, memory_full: Callable[[], AbstractContextManager[None]]
) -> None:
    inbox.append(2, callback(said("conference-start", number=1, second=0)))
    [number] = of_shard(2, inbox, 1)
    with memory_full():
        before = changes.end()
        committed(snapshots, claimed(inbox, 2), 1, Commit(changes=[changed(None, room(number, at(0)), b"in need")]))
        assert [each.message for each in changes.wait(before, 1)] == [b"in need"]


@pytest.mark.parametrize("retained", [1, 100, 250])
def test_the_log_is_capped_but_never_holds_fewer_than_it_is_to_retain(
    redis: Redis, inbox: Inbox, changes: Feed, retained: int
) -> None:
    snapshots = Snapshots(redis, SHARDS, retained)
    shard = 1
    numbers = of_shard(shard, inbox, 90)
    changes.end()
    told = 1  # the log's beginning is an entry
    for _ in range(12):
        commit(inbox, snapshots, *numbers)
        told += len(numbers)
        assert min(told, retained) <= redis.xlen(keys.changes(shard)) <= retained + 200
    assert told > retained + 200


# Reading it


def test_between_gives_exactly_what_lies_between(inbox: Inbox, snapshots: Snapshots, changes: Feed) -> None:
    ends = [changes.end()]
    batches: list[set[bytes]] = []
    for start in range(0, 50, 10):
        batches.append(set(commit(inbox, snapshots, *range(start, start + 10))))
        ends.append(changes.end())
    for first in range(len(ends)):
        for last in range(first, len(ends)):
            told = [each.message for each in changes.between(ends[first], ends[last])]
            assert len(told) == len(set(told)) == 10 * (last - first)
            assert set(told) == set().union(*batches[first:last])


@pytest.mark.parametrize("lot", [1, 2, 3, 7])
def test_between_is_exact_in_any_number_of_lots(
    inbox: Inbox, snapshots: Snapshots, changes: Feed, monkeypatch: pytest.MonkeyPatch, lot: int
) -> None:
    before = changes.end()
    sent = commit(inbox, snapshots, *range(30))
    end = changes.end()
    commit(inbox, snapshots, 99)
    monkeypatch.setattr(feed, "AT_ONCE", lot)
    told = list(changes.between(before, end))
    assert sorted(each.message for each in told) == sorted(sent)
    for shard in range(SHARDS):
        places = [each.place for each in told if each.shard == shard]
        assert places == sorted(places)
        assert places[-1] == end[shard]


def test_each_change_is_a_place_from_which_the_rest_can_be_read(
    inbox: Inbox, snapshots: Snapshots, changes: Feed
) -> None:
    places = changes.end()
    sent = commit(inbox, snapshots, *range(20))
    end = changes.end()
    whole = list(changes.between(places, end))
    for heard, told in enumerate(whole, start=1):
        places = moved(places, told.shard, told.place)
        rest = list(changes.between(read_places(written(places), SHARDS), end))
        assert sorted(rest) == sorted(whole[heard:])
    assert places == end
    assert len(whole) == len(sent)


def test_waiting_gives_what_comes_and_nothing_when_the_time_is_up(
    inbox: Inbox, snapshots: Snapshots, changes: Feed
) -> None:
    end = changes.end()
    assert changes.wait(end, 0.001) == []
    sent = commit(inbox, snapshots, *range(12))
    assert sorted(each.message for each in changes.wait(end, 10)) == sorted(sent)
    assert changes.wait(changes.end(), 0.001) == []


def test_an_empty_log_has_an_end_that_stays_until_something_happens(redis: Redis, changes: Feed) -> None:
    assert redis.keys("*changes") == []
    end = changes.end()
    assert changes.end() == end
    assert Feed(redis, SHARDS).end() == end
    assert list(changes.between(end, end)) == []
    assert changes.holds(end)


# Where it cannot tell


def trimmed(redis: Redis, inbox: Inbox, changes: Feed, shard: int = 1) -> tuple[Places, Places]:
    """A place that has fallen out of the log of a shard, and the end."""
    snapshots = Snapshots(redis, SHARDS, retained=10)
    before = changes.end()
    for _ in range(6):
        commit(inbox, snapshots, *of_shard(shard, inbox, 50))
    assert redis.xlen(keys.changes(shard)) < 300
    return before, changes.end()


def test_whoever_was_away_for_longer_than_the_log_reaches_is_told_so(redis: Redis, inbox: Inbox, changes: Feed) -> None:
    before, end = trimmed(redis, inbox, changes)
    with pytest.raises(Gone):
        list(changes.between(before, end))
    assert not changes.holds(before)


def test_a_reader_that_does_not_keep_up_is_told_so_instead_of_reading_on_behind_a_gap(
    redis: Redis, inbox: Inbox, changes: Feed
) -> None:
    before, end = trimmed(redis, inbox, changes)
    with pytest.raises(Gone):
        changes.wait(before, 0.001)
    assert changes.wait(end, 0.001) == []


@pytest.mark.parametrize("what_comes_then", ["nothing", "another reader", "changes"])
def test_after_a_flush_nothing_of_before_can_be_continued(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, changes: Feed, what_comes_then: str
) -> None:
    start = changes.end()
    commit(inbox, snapshots, *range(20))
    middle = changes.end()
    redis.flushall()
    if what_comes_then == "another reader":
        Feed(redis, SHARDS).end()
    if what_comes_then == "changes":
        commit(inbox, snapshots, *range(20))
    assert not changes.holds(middle)
    if what_comes_then != "nothing":
        with pytest.raises(Gone):
            changes.wait(middle, 0.001)
    end = changes.end()
    for places in (start, middle):
        with pytest.raises(Gone):
            list(changes.between(places, end))


@pytest.mark.parametrize("place", [(0, 0), (1, 0), (1_700_000_000_000, 5), BEYOND_ANY])
def test_a_place_that_never_was_cannot_be_continued(
    inbox: Inbox, snapshots: Snapshots, changes: Feed, place: Place
) -> None:
    commit(inbox, snapshots, *range(20))
    end = changes.end()
    assert not changes.holds(moved(end, 2, place))
    with pytest.raises(Gone):
        list(changes.between(moved(end, 2, place), end))


# Places as one word

milliseconds = st.integers(0, (1 << 52) - 1)
numbers = st.integers(0, (1 << 32) - 1)
all_places = st.lists(st.tuples(milliseconds, numbers), min_size=1, max_size=64).map(tuple)


@given(all_places)
def test_a_written_place_is_read_back_as_it_was(places: Places) -> None:
    word = written(places)
    assert read_places(word, len(places)) == places
    assert word.isascii()
    assert set(word) <= set("0123456789abcdef-.")


@given(all_places, st.integers(1, 70))
def test_a_place_of_another_number_of_shards_is_refused(places: Places, shards: int) -> None:
    if shards != len(places):
        with pytest.raises(ValueError, match=f"{shards} shards"):
            read_places(written(places), shards)


@given(st.text(max_size=200) | st.text("0123456789abcdef-.٣१x+_ \n", max_size=60))
def test_any_other_word_is_refused_or_is_a_place_that_can_be_written(word: str) -> None:
    try:
        places = read_places(word, 2)
    except ValueError:
        return
    assert read_places(written(places), 2) == places
    assert word.isascii()


@pytest.mark.parametrize(
    "word",
    [
        "",
        ".",
        "1.2\n",
        "1.٣",
        "1.१-1",
        "1.-1",
        "1.1-",
        "1.1-1-1",
        "1.+1",
        "1. 1",
        "1.0x1",
        "1.1_0",
        "1.A",
        "1.$",
        "1.1-*",
        "1.(1",
        "1.99999999999999",
        "1.1-999999999",
        "f" * 100_000,
        ".".join("1" * 50_000),
    ],
)
def test_a_hostile_word_is_no_place(word: str) -> None:
    with pytest.raises(ValueError, match="not a place"):
        read_places(word, 2)


@pytest.mark.parametrize("shards", [4, 16, 256])
def test_the_word_of_todays_places_keeps_to_the_length_that_is_documented(shards: int) -> None:
    places = tuple((1_795_348_800_000 + n, n % 3) for n in range(shards))
    assert 20 <= len(written(places)) <= 4000


def test_what_is_told_names_the_conference_but_the_message_is_as_it_was(
    inbox: Inbox, snapshots: Snapshots, changes: Feed
) -> None:
    before = changes.end()
    shard = inbox.shard_of(ROOM)
    inbox.append(shard, callback(said("participant-join", ANNA, number=1, second=0)))
    message = bytes(range(256))
    committed(snapshots, claimed(inbox, shard), 1, Commit(changes=[changed(None, room(5, at(0)), message)]))
    [told] = changes.wait(before, 1)
    assert told.message == message
    assert told.conference_sid == f"CF{5:032x}"
