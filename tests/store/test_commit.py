"""A commit is all or nothing, is refused once its lease has passed on, and never happens twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from hashlib import blake2b
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from redis import Redis, RedisError

from app.conference import Conference, Participant, encode, seniority
from app.events import Callback
from app.store import feed, keys
from app.store.commits import CALL_REMEMBERED, Change, Commit, DeadLetter, Said, SeenIn
from app.store.inbox import Batch, Inbox
from app.store.logs import LARGEST_PACK
from app.store.snapshots import Question, Snapshots, _parts
from tests.cast import ROOM, at, callback, progress, said
from tests.claims import Fenced, claim, committed
from tests.conftest import SHARDS
from tests.store.rooms import changed, claimed, room

SHARD = 1
"""Where the room lives, and two callers."""
ANNA, BEN = [sid for sid in (f"CA{n:032x}" for n in range(99)) if keys.shard_of(sid, SHARDS) == SHARD][:2]

JOINED = callback(said("participant-join", ANNA, number=2, second=1))
RINGING = callback(progress(BEN, "ringing", number=1, second=0))
GARBLED = callback({"Hello": "there"})


def standup(people: int = 1) -> Conference:
    conference = room(0, at(0), people={f"CA{n:032x}": f"guest {n}" for n in range(people)})
    return Conference(replace(conference.header, sid=ROOM), conference.participants)


def event_id(number: int) -> str:
    """An id, as the digest of a callback would be one."""
    return blake2b(str(number).encode(), digest_size=12).hexdigest()


def whole_work(before: Conference | None = None) -> Commit:
    """One of everything that a batch can do."""
    change = changed(before, standup(), message=b'{"said": "of this commit"}')._replace(news=[(event_id(1), JOINED)])
    return Commit(
        changes=[change],
        call_notes=[SeenIn(ANNA, ROOM), Said(BEN, event_id(2), RINGING)],
        dead_letters=[DeadLetter("names neither a conference nor a call", GARBLED)],
        folded=1,
        noted=1,
        repeated=3,
    )


def mail(inbox: Inbox, count: int = 3) -> None:
    for number in range(1, count + 1):
        inbox.append(SHARD, callback(said("participant-modify", ANNA, number=number, second=number)))


def under_the_keys(redis: Redis) -> dict[str, object]:
    """Everything that Redis holds, but for how long leases still last."""
    return {str(key): redis.dump(key) for key in sorted(redis.keys())}


def fenced(redis: Redis, snapshots: Snapshots, batch: Batch, work: Commit) -> None:
    """Make the commit, which must be refused, write nothing and tell nobody."""
    before = under_the_keys(redis)
    with feed.subscribe(redis) as messages:
        with pytest.raises(Fenced):
            committed(snapshots, batch, 1, work)
        redis.publish(keys.ALL_CONFERENCES, b"nothing before this")
        assert next(messages) == b"nothing before this"
    assert under_the_keys(redis) == before


def test_a_commit_writes_all_that_a_batch_does(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox)
    with feed.subscribe(redis) as messages:
        left = committed(snapshots, claimed(inbox, SHARD), 7, whole_work())
        assert next(messages) == b'{"said": "of this commit"}'
    assert left == 0
    kept = snapshots.load({ROOM: None})[ROOM]
    assert kept.fold_version == 7
    assert kept.conference.header.revision == 1
    assert list(kept.conference.participants.values()) == list(standup().participants.values())
    assert [(entry.event_id, entry.callback) for entry in snapshots.log(ROOM)] == [(event_id(1), JOINED)]
    assert [json.loads(header)["sid"] for header in snapshots.page(Question(), None, 5)[0]] == [ROOM]
    assert snapshots.counters() == {"folded": 1, "noted": 1, "repeated": 3, "dead": 1}
    assert snapshots.dead_letters(5) == [DeadLetter("names neither a conference nor a call", GARBLED)]
    notes = snapshots.calls([ANNA, BEN])
    assert notes[ANNA].conferences == {ROOM}
    assert notes[BEN].callbacks == {event_id(2): RINGING}
    assert inbox.backlog()[SHARD] == (0, None, False)


def test_a_commit_takes_out_its_own_batch_and_nothing_that_came_since(inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox, 3)
    batch = claimed(inbox, SHARD, most=2)
    mail(inbox, 2)
    assert committed(snapshots, batch, 1, whole_work()) == 3
    following = claim(inbox, SHARD, 10)
    assert following is not None
    assert len(following.entries) == 3


def test_a_commit_without_the_lease_writes_nothing(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox)
    batch = claimed(inbox, SHARD)
    redis.delete(keys.lease(SHARD))
    fenced(redis, snapshots, batch, whole_work())


def test_a_commit_under_anothers_lease_writes_nothing(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox)
    batch = claimed(inbox, SHARD)
    redis.delete(keys.lease(SHARD))
    heir = claimed(inbox, SHARD)
    fenced(redis, snapshots, batch, whole_work())
    assert committed(snapshots, heir, 1, whole_work()) == 0


def test_a_commit_with_another_token_writes_nothing(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox)
    batch = claimed(inbox, SHARD)
    for token in ("", "0" * 32, batch.token.upper() + "0", batch.token[:-1]):
        fenced(redis, snapshots, batch._replace(token=token), whole_work())


def test_the_very_same_commit_again_writes_nothing(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox)
    batch = claimed(inbox, SHARD)
    committed(snapshots, batch, 1, whole_work())
    fenced(redis, snapshots, batch, whole_work())


def test_the_very_same_commit_again_writes_nothing_although_its_lease_goes_on(
    redis: Redis, inbox: Inbox, snapshots: Snapshots
) -> None:
    mail(inbox)
    batch = claimed(inbox, SHARD, most=2)
    assert committed(snapshots, batch, 1, whole_work()) == 1
    fenced(redis, snapshots, batch, whole_work())


def test_a_commit_after_the_data_was_flushed_writes_nothing(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox)
    batch = claimed(inbox, SHARD)
    redis.flushall()
    fenced(redis, snapshots, batch, whole_work())


def test_of_two_who_commit_the_same_batch_at_once_one_succeeds(inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox)
    batch = claimed(inbox, SHARD)

    def succeeds(_: int) -> bool:
        try:
            committed(snapshots, batch, 1, whole_work())
        except Fenced:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(succeeds, range(8))) == [False] * 7 + [True]
    assert snapshots.counters() == {"folded": 1, "noted": 1, "repeated": 3, "dead": 1}
    assert len(snapshots.log(ROOM)) == 1


def test_nobody_ever_sees_a_commit_half_done(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    commits = 150
    mail(inbox, commits)

    def commit_them_all() -> None:
        before: Conference | None = None
        batch: Batch | None = claimed(inbox, SHARD, most=1)
        for number in range(commits):
            assert batch is not None
            change = changed(before, standup())._replace(news=[(event_id(number), JOINED)])
            committed(snapshots, batch, 1, Commit(changes=[change], folded=1))
            before, batch = change.after, claim(inbox, SHARD, 1)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(commit_them_all)
        looks = 0
        while not writing.done() or not looks:
            with redis.pipeline(transaction=True) as look:
                look.hget(keys.conference(SHARD, ROOM), "header")
                look.llen(keys.log(SHARD, ROOM))
                look.hget(keys.counters(SHARD), "folded")
                look.xlen(keys.inbox(SHARD))
                header, logged, folded, waiting = look.execute()
            revision = json.loads(header)["revision"] if header else 0
            assert (revision, logged, int(folded or 0), commits - waiting) == (revision,) * 4
            looks += 1
        writing.result()
    assert snapshots.load({ROOM: None})[ROOM].conference.header.revision == commits


def test_with_the_memory_full_nothing_is_taken_in_but_what_waits_can_be_committed(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, memory_full: Callable[[], AbstractContextManager[None]]
) -> None:
    mail(inbox, 3)
    with memory_full():
        with pytest.raises(RedisError):
            inbox.append(SHARD, JOINED)
        batch = claimed(inbox, SHARD, most=2)
        assert committed(snapshots, batch, 1, whole_work()) == 1
        following = claim(inbox, SHARD, 2)
        assert following is not None
        [change] = whole_work().changes
        assert committed(snapshots, following, 1, Commit(changes=[changed(change.after, standup(3))])) == 0
        assert inbox.leave() is False
    assert len(snapshots.load({ROOM: None})[ROOM].conference.participants) == 3
    assert inbox.append(SHARD, JOINED)


def test_a_commit_survives_a_script_flush(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox)
    redis.script_flush()
    batch = claimed(inbox, SHARD)
    redis.script_flush()
    assert committed(snapshots, batch, 1, whole_work()) == 0
    assert len(snapshots.log(ROOM)) == 1


def test_a_commit_of_a_whole_town_hall_goes_through_in_one(inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox, 500)
    change = changed(None, standup(people=1_000))
    change = change._replace(news=[(event_id(n), JOINED) for n in range(500)])
    others = [changed(None, room(n, at(n), people={ANNA: "anna"})) for n in range(1, 200)]
    assert committed(snapshots, claimed(inbox, SHARD), 1, Commit(changes=[change, *others])) == 0
    kept = snapshots.load({ROOM: None})[ROOM].conference
    assert len(kept.participants) == 1_000
    assert len(snapshots.log(ROOM)) == 500


def test_only_participants_that_changed_are_written(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    before = standup(people=3)
    mail(inbox, 2)
    batch = claimed(inbox, SHARD, most=1)
    committed(snapshots, batch, 1, Commit(changes=[changed(None, before)]))
    first = next(iter(before.participants))
    after = Conference(before.header, before.participants | {first: Participant(call_sid=first, muted=True)})
    following = claim(inbox, SHARD, 1)
    assert following is not None
    change = changed(Conference(replace(before.header, revision=1), before.participants), after)
    assert len(change.changed) == 1
    committed(snapshots, following, 1, Commit(changes=[change]))
    kept = snapshots.load({ROOM: None})[ROOM].conference
    assert kept.participants == after.participants
    assert kept.header.revision == 2


def test_a_document_lists_participants_as_everyone_else_does(inbox: Inbox, snapshots: Snapshots) -> None:
    people = {
        "CA" + "1" * 32: at(9),
        "CA" + "2" * 32: None,
        "CA" + "3" * 32: at(4),
        "CA" + "4" * 32: None,
        "CA" + "5" * 32: at(4),
    }
    participants = {call: Participant(call_sid=call, created_at=when) for call, when in people.items()}
    mail(inbox, 1)
    change = changed(None, Conference(standup().header, participants))
    committed(snapshots, claimed(inbox, SHARD), 1, Commit(changes=[change]))
    document = json.loads(snapshots.documents([ROOM])[0] or b"")
    assert [person["call_sid"][2] for person in document["participants"]] == ["3", "5", "1", "2", "4"]
    assert [person.call_sid[2] for person in change.after.in_order()] == ["3", "5", "1", "2", "4"]
    assert {name: value for name, value in document.items() if name != "participants"} == json.loads(
        snapshots.headers([ROOM])[0] or b""
    )


def test_what_is_unknown_has_no_document(snapshots: Snapshots) -> None:
    assert snapshots.documents([ROOM])[0] is None
    assert snapshots.documents([ROOM, ROOM]) == [None, None]
    assert snapshots.headers([ROOM]) == [None]
    assert snapshots.events(ROOM, 0, 10) == []
    assert snapshots.log(ROOM) == []
    assert snapshots.load({ROOM: None}) == {}


@given(
    st.lists(
        st.builds(
            Participant,
            call_sid=st.integers(0, 9).map(lambda n: f"CA{n:032x}"),
            label=st.sampled_from([None, '"created_at":"2000-01-01T00:00:00Z"', "anna"]),
            created_at=st.one_of(
                st.none(),
                st.sampled_from([0, 1, 0.5, 0.25, 0.123456, 86_400]).map(lambda seconds: at(seconds)),
            ),
        ),
        max_size=8,
        unique_by=lambda each: each.call_sid,
    )
)
def test_a_document_has_its_participants_in_the_order_of_the_fold(people: list[Participant]) -> None:
    fields = {each.call_sid.encode(): encode(each) for each in people} | {b"header": b"{}", b"fold": b"2"}
    assert _parts(fields).participants == [encode(each) for each in sorted(people, key=seniority)]


@pytest.fixture
def long_log(inbox: Inbox, snapshots: Snapshots) -> list[tuple[str, Callback]]:
    """What a conference has heard: in commits of one, a few, and more callbacks than are packed together."""
    news = [(event_id(n), replace(JOINED, received_at=n)) for n in range(1, 2 * LARGEST_PACK + 21)]
    before, told = None, 0
    for size in (1, 1, 3, 2 * LARGEST_PACK + 5, 1, 9):
        mail(inbox, 1)
        change = changed(before, standup())._replace(news=news[told : told + size])
        committed(snapshots, claimed(inbox, SHARD), 1, Commit(changes=[change]))
        before, told = change.after, told + size
    assert told == len(news)
    return news


def test_a_log_is_what_was_heard_in_its_order(snapshots: Snapshots, long_log: list[tuple[str, Callback]]) -> None:
    assert snapshots.log(ROOM) == [(number, *each) for number, each in enumerate(long_log, start=1)]


def test_a_log_is_read_on_from_any_of_its_entries(snapshots: Snapshots, long_log: list[tuple[str, Callback]]) -> None:
    whole = snapshots.log(ROOM)
    for after in range(len(whole) + 2):
        for most in (1, 2, 7, 50, 500):
            assert snapshots.events(ROOM, after, most) == whole[after : after + most]


def test_what_was_heard_is_known_and_nothing_else(snapshots: Snapshots, long_log: list[tuple[str, Callback]]) -> None:
    heard = [known for known, _ in long_log]
    between = [(one + other)[k : k + 24] for one, other in pairwise(heard) for k in range(1, 24)]
    others = [event_id(0), event_id(10_000), *(each for each in between if each not in heard)]
    asked = {ROOM: [*heard, *others], f"CF{0:032x}": heard[:2]}
    assert snapshots.heard(asked) == {ROOM: set(heard), f"CF{0:032x}": set()}


def test_a_callback_of_a_long_log_takes_little_room(
    redis: Redis, snapshots: Snapshots, long_log: list[tuple[str, Callback]]
) -> None:
    kept = sum(int(redis.memory_usage(name(SHARD, ROOM)) or 0) for name in (keys.log, keys.ids))
    assert kept / len(long_log) < len(JOINED.body) / 4


def test_a_call_is_forgotten_in_the_end_but_not_while_it_is_spoken_of(
    redis: Redis, inbox: Inbox, snapshots: Snapshots
) -> None:
    mail(inbox, 2)
    batch = claimed(inbox, SHARD, most=1)
    committed(snapshots, batch, 1, Commit(call_notes=[SeenIn(BEN, ROOM)]))
    name = keys.call(SHARD, BEN)
    assert 0 < int(redis.ttl(name)) <= CALL_REMEMBERED
    redis.expire(name, 60)
    following = claim(inbox, SHARD, 1)
    assert following is not None
    committed(snapshots, following, 1, Commit(call_notes=[Said(BEN, event_id(2), RINGING)]))
    assert int(redis.ttl(name)) > 60


def test_every_dead_letter_is_kept_and_the_newest_are_shown_first(inbox: Inbox, snapshots: Snapshots) -> None:
    mail(inbox, 1)
    letters = [DeadLetter("garbled", callback({"Number": str(n)}, received_at=n)) for n in range(2_000)]
    committed(snapshots, claimed(inbox, SHARD), 1, Commit(dead_letters=letters))
    assert [letter.callback.received_at for letter in snapshots.dead_letters(3)] == [1999, 1998, 1997]
    assert len(snapshots.dead_letters(5_000)) == snapshots.counters()["dead"] == 2_000


def test_dead_letters_of_all_shards_are_shown_newest_first(inbox: Inbox, snapshots: Snapshots) -> None:
    for shard, received in ((0, 30), (1, 10), (2, 20)):
        inbox.append(shard, GARBLED)
        letter = DeadLetter("garbled", callback({"Hello": "there"}, received_at=received))
        committed(snapshots, claimed(inbox, shard), 1, Commit(dead_letters=[letter]))
    assert [letter.callback.received_at for letter in snapshots.dead_letters(2)] == [30, 20]


def test_each_conference_that_is_kept_is_named_once(inbox: Inbox, snapshots: Snapshots) -> None:
    changes: dict[int, list[Change]] = {}
    sids = [f"CF{n:032x}" for n in range(40)]
    for n in range(40):
        conference = room(n, at(n), people={ANNA: "anna"})
        changes.setdefault(inbox.shard_of(conference.header.sid), []).append(changed(None, conference))
    for shard, ours in changes.items():
        inbox.append(shard, JOINED)
        committed(snapshots, claimed(inbox, shard), 1, Commit(changes=ours, call_notes=[SeenIn(ANNA, ROOM)]))
    assert sorted(snapshots.sids()) == sids
