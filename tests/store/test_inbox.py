"""An inbox keeps what it is given, wakes somebody exactly once, and lets one drain at a time have it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis, RedisError

from app.events import Callback
from app.store import keys
from app.store.commits import Commit, DeadLetter
from app.store.inbox import (
    ANNOUNCED,
    LEASE_LASTS,
    ONLY_NEW,
    TOGETHER,
    WAKE_UP_LASTS,
    Batch,
    Full,
    Inbox,
    Link,
    Mail,
    Posted,
    Unread,
)
from app.store.snapshots import Snapshots
from tests.cast import ANNA, BEN, ROOM, callback, progress, said
from tests.claims import claim, committed
from tests.conftest import SHARDS

MUTED = callback(said("participant-mute", ANNA, number=3, second=9))


def numbered(count: int) -> list[Callback]:
    return [callback(said("participant-modify", ANNA, number=n, second=n)) for n in range(1, count + 1)]


def claimed(inbox: Inbox, shard: int, most: int = 500) -> Batch:
    batch = claim(inbox, shard, most)
    assert batch is not None
    return batch


def emptied(inbox: Inbox, snapshots: Snapshots, shard: int) -> None:
    assert committed(snapshots, claimed(inbox, shard), 1, Commit()) == 0


# Appending.


def test_an_append_is_one_round_trip(inbox: Inbox, round_trips: list[int]) -> None:
    inbox.append(0, MUTED)
    round_trips.clear()
    inbox.append(0, MUTED)
    assert len(round_trips) == 1


def test_a_forward_of_many_entries_takes_no_more_round_trips_than_of_one(inbox: Inbox, round_trips: list[int]) -> None:
    inbox.forward([(0, Link(ANNA, ROOM))])
    round_trips.clear()
    inbox.forward([(0, Link(ANNA, ROOM))])
    of_one = len(round_trips)
    inbox.forward([(shard, Link(ANNA, ROOM)) for shard in range(SHARDS)])
    assert len(round_trips) == 2 * of_one


def test_the_backlog_of_all_shards_is_one_round_trip(inbox: Inbox, round_trips: list[int]) -> None:
    inbox.append(0, MUTED)
    round_trips.clear()
    inbox.backlog()
    assert len(round_trips) == 1


hostile_text = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.lists(
        st.builds(
            Callback,
            body=st.binary(),
            media=st.sampled_from(["form", "json"]),
            received_at=st.integers(0, 2**53),
            key=hostile_text,
            token=hostile_text,
            query=hostile_text,
            conference_sid=st.sampled_from([None, ROOM]),
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_callback_comes_out_as_it_went_in(redis: Redis, inbox: Inbox, callbacks: list[Callback]) -> None:
    redis.flushall()
    for sent in callbacks:
        inbox.append(1, sent)
    assert claimed(inbox, 1).entries == [Mail(sent) for sent in callbacks]


def test_a_body_that_is_no_text_comes_out_as_it_went_in(inbox: Inbox) -> None:
    sent = Callback(body=b"\x00\xff\xfe\r\n*3\r\n$3\r\n}{=&%zz" + bytes(range(256)), received_at=0, key="main")
    inbox.append(0, sent)
    assert claimed(inbox, 0).entries == [Mail(sent)]


def test_only_the_first_append_asks_for_a_wake_up(inbox: Inbox) -> None:
    assert [inbox.append(2, MUTED) for _ in range(4)] == [True, False, False, False]


def test_each_shard_asks_for_itself(inbox: Inbox) -> None:
    assert inbox.append(0, MUTED)
    assert inbox.append(1, MUTED)


def test_of_many_appends_at_once_one_asks_for_a_wake_up(inbox: Inbox) -> None:
    with ThreadPoolExecutor(8) as threads:
        due = list(threads.map(lambda _: inbox.append(0, MUTED), range(80)))
    assert due.count(True) == 1
    assert inbox.backlog()[0].waiting == 80


def test_a_wake_up_that_came_to_nothing_is_asked_for_again_once_it_has_expired(redis: Redis, inbox: Inbox) -> None:
    inbox.append(0, MUTED)
    assert 0 < int(redis.pttl(keys.woken(0))) <= WAKE_UP_LASTS
    redis.pexpire(keys.woken(0), 0)
    assert inbox.append(0, MUTED)


def test_while_a_drain_attends_no_append_asks(redis: Redis, inbox: Inbox) -> None:
    inbox.attend()
    assert [inbox.append(shard, MUTED) for shard in range(SHARDS)] == [False] * SHARDS
    assert all(0 < int(redis.pttl(keys.woken(shard))) <= WAKE_UP_LASTS for shard in range(SHARDS))


def test_an_append_that_finds_the_memory_full_stores_nothing_and_says_so(
    redis: Redis, inbox: Inbox, memory_full: Callable[[], AbstractContextManager[None]]
) -> None:
    with memory_full(), pytest.raises(RedisError):
        inbox.append(0, MUTED)
    assert redis.keys() == []
    assert inbox.append(0, MUTED), "a refused append must not have used up the wake-up"


# Leaving.


def test_after_a_leave_the_next_append_asks_again(inbox: Inbox, snapshots: Snapshots) -> None:
    inbox.append(0, MUTED)
    emptied(inbox, snapshots, 0)
    assert inbox.leave() is False
    assert inbox.append(0, MUTED)


def test_who_would_leave_mail_behind_is_told_and_still_counts_as_attending(inbox: Inbox) -> None:
    inbox.attend()
    inbox.append(3, MUTED)
    assert inbox.leave() is True
    assert inbox.append(3, MUTED) is False
    assert inbox.append(0, MUTED) is True, "the other shards were left"


def test_an_append_that_meets_a_leave_is_seen_by_it_or_asks_for_a_wake_up(redis: Redis, inbox: Inbox) -> None:
    outcomes = set()
    with ThreadPoolExecutor(2) as threads:
        for _ in range(150):
            redis.delete(keys.inbox(0))
            inbox.attend()
            both = threading.Barrier(2)

            def leave(both: threading.Barrier = both) -> bool:
                both.wait()
                return inbox.leave()

            def append(both: threading.Barrier = both) -> bool:
                both.wait()
                return inbox.append(0, MUTED)

            leaving, appending = threads.submit(leave), threads.submit(append)
            outcomes.add((leaving.result(), appending.result()))
    assert outcomes <= {(True, False), (False, True)}


# Claiming.


def test_a_claim_reads_the_oldest_entries_first(redis: Redis, inbox: Inbox) -> None:
    sent = numbered(7)
    for each in sent:
        inbox.append(0, each)
    batch = claimed(inbox, 0, most=3)
    assert batch.entries == [Mail(each) for each in sent[:3]]
    ids = [entry[0] for entry in redis.xrange(keys.inbox(0)) or [] if entry]
    assert (batch.first_id, batch.last_id) == (ids[0], ids[2])


def test_a_claim_takes_nothing_out(redis: Redis, inbox: Inbox) -> None:
    inbox.append(0, MUTED)
    claimed(inbox, 0)
    redis.delete(keys.lease(0))
    assert claimed(inbox, 0).entries == [Mail(MUTED)]


def test_an_empty_shard_cannot_be_claimed_and_is_not_leased(redis: Redis, inbox: Inbox) -> None:
    assert claim(inbox, 0, 10) is None
    assert redis.keys() == []


def test_a_claimed_shard_cannot_be_claimed_by_another(inbox: Inbox) -> None:
    inbox.append(0, MUTED)
    inbox.append(1, MUTED)
    claimed(inbox, 0)
    assert claim(inbox, 0, 10) is None
    assert claim(inbox, 1, 10) is not None


def test_of_many_who_claim_at_once_one_gets_the_shard(inbox: Inbox) -> None:
    inbox.append(0, MUTED)
    with ThreadPoolExecutor(8) as threads:
        batches = list(threads.map(lambda _: claim(inbox, 0, 10), range(40)))
    assert len([batch for batch in batches if batch is not None]) == 1


def test_a_lease_ends_by_itself_should_its_holder_die(redis: Redis, inbox: Inbox) -> None:
    inbox.append(0, MUTED)
    first = claimed(inbox, 0)
    assert 0 < int(redis.pttl(keys.lease(0))) <= LEASE_LASTS
    redis.pexpire(keys.lease(0), 0)
    second = claimed(inbox, 0)
    assert second.entries == first.entries
    assert second.token != first.token


def test_no_token_is_given_twice_and_none_can_be_guessed(redis: Redis, inbox: Inbox) -> None:
    inbox.append(0, MUTED)
    tokens = set()
    for _ in range(20):
        batch = claimed(inbox, 0)
        tokens.add(batch.token)
        redis.delete(keys.lease(0), keys.trial(0))
    assert len(tokens) == 20
    assert all(len(bytes.fromhex(token)) >= 16 for token in tokens)


def test_a_commit_gives_the_lease_back_with_mail_still_waiting(inbox: Inbox, snapshots: Snapshots) -> None:
    for each in numbered(3):
        inbox.append(0, each)
    batch = claimed(inbox, 0, most=2)
    assert committed(snapshots, batch, 1, Commit()) == 1
    following = claim(inbox, 0, 2)
    assert following is not None
    assert following.token != batch.token
    assert following.entries == [Mail(numbered(3)[2])]


def test_a_claim_whose_answer_was_lost_may_be_sent_again(
    redis: Redis, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the client does when it finds its connection dead."""
    inbox.append(0, MUTED)
    monkeypatch.setattr("app.store.inbox.secrets.token_hex", lambda _: "the same token")
    assert claimed(inbox, 0).entries == claimed(inbox, 0).entries == [Mail(MUTED)]
    monkeypatch.undo()
    assert claim(inbox, 0, 10) is None


def test_shards_are_claimed_together_and_those_that_others_have_are_named(inbox: Inbox, round_trips: list[int]) -> None:
    for shard in (0, 1, 3):
        inbox.append(shard, MUTED)
    claimed(inbox, 1)
    round_trips.clear()
    batches, held, _ = inbox.claim(range(SHARDS), 10, version=1)
    assert ([batch.shard for batch in batches], held) == ([0, 3], [1])
    assert len({batch.token for batch in batches}) == 2
    assert len(round_trips) == 1


def test_a_holder_can_make_its_lease_last_longer_and_nobody_else_can(redis: Redis, inbox: Inbox) -> None:
    inbox.append(0, MUTED)
    holder = claimed(inbox, 0)
    redis.pexpire(keys.lease(0), LEASE_LASTS // 10)
    inbox.renew([holder._replace(token="another")])
    assert int(redis.pttl(keys.lease(0))) <= LEASE_LASTS // 10
    inbox.renew([holder])
    assert int(redis.pttl(keys.lease(0))) > LEASE_LASTS // 10
    redis.delete(keys.lease(0))
    inbox.renew([holder])
    assert not redis.exists(keys.lease(0)), "what is lost stays lost"


def test_the_epoch_stays_until_the_data_is_flushed(redis: Redis, inbox: Inbox) -> None:
    epochs = []
    for flush in (False, False, True):
        if flush:
            redis.flushall()
        inbox.append(0, MUTED)
        batch = claimed(inbox, 0)
        redis.delete(keys.lease(0))
        epochs.append(batch.epoch)
    assert epochs[0]
    assert epochs[0] == epochs[1]
    assert epochs[1] != epochs[2]


# Room.


def told(number: int, *, speech: bool = False) -> Posted:
    return Posted(0, callback({"Number": str(number)}, received_at=number), speech)


def waiting(inbox: Inbox) -> list[str]:
    """What waits in the first shard, by its number."""
    return [entry.callback.body.decode() for entry in claimed(inbox, 0).entries if isinstance(entry, Mail)]


def refused(outcomes: Sequence[bool | RedisError]) -> list[bool]:
    return [isinstance(outcome, Full) for outcome in outcomes]


def test_speech_has_half_of_the_room_and_everything_else_all_of_it(redis: Redis) -> None:
    inbox = Inbox(redis, SHARDS, room=6 * SHARDS)
    assert refused(inbox.append_all([told(n, speech=True) for n in range(3)])) == [False] * 3
    mixed = [told(3, speech=True), told(4), told(5, speech=True), told(6), told(7)]
    assert refused(inbox.append_all(mixed)) == [True, False, True, False, False]
    assert refused(inbox.append_all([told(8)])) == [True]
    with pytest.raises(Full):
        inbox.append(0, MUTED)
    assert waiting(inbox) == [f"Number={n}" for n in (0, 1, 2, 4, 6, 7)]


def test_a_full_shard_leaves_the_others_their_room(redis: Redis) -> None:
    inbox = Inbox(redis, SHARDS, room=SHARDS)
    outcomes = inbox.append_all([told(1), told(2)._replace(shard=1)])
    assert outcomes == [True, True]
    assert refused(inbox.append_all([told(3), told(4)._replace(shard=2)])) == [True, False]


def test_there_is_room_again_once_something_is_folded(redis: Redis, snapshots: Snapshots) -> None:
    inbox = Inbox(redis, SHARDS, room=2 * SHARDS)
    assert refused(inbox.append_all([told(1), told(2)])) == [False, False]
    assert refused(inbox.append_all([told(3)])) == [True]
    committed(snapshots, claimed(inbox, 0), 1, Commit())
    assert refused(inbox.append_all([told(3)])) == [False]


def test_with_no_room_somebody_is_woken_all_the_same(redis: Redis) -> None:
    inbox = Inbox(redis, SHARDS, room=SHARDS)
    inbox.append_all([told(1)])
    redis.delete(keys.woken(0))
    inbox.append_all([told(2)])
    assert redis.exists(keys.woken(0))


def test_what_a_drain_sends_on_is_never_refused(redis: Redis) -> None:
    inbox = Inbox(redis, SHARDS, room=SHARDS)
    inbox.append_all([told(1)])
    inbox.forward([(0, Mail(MUTED))])
    assert inbox.backlog()[0].waiting == 2


# Mail that may have killed who began it.


def begun(redis: Redis, inbox: Inbox, times: int) -> None:
    """Claim the first shard so often, and die each time."""
    for _ in range(times):
        assert inbox.claim([0], 500, version=1).batches
        redis.delete(keys.lease(0))


def begun_alone(redis: Redis, inbox: Inbox) -> Batch | None:
    batch = inbox.claim_alone(0, version=1)
    redis.delete(keys.lease(0))
    return batch


def test_what_was_begun_and_never_committed_is_read_one_by_one(
    redis: Redis, inbox: Inbox, snapshots: Snapshots
) -> None:
    for each in numbered(3):
        inbox.append(0, each)
    assert begun_alone(redis, inbox) is None, "there is no reason to"
    begun(redis, inbox, TOGETHER)
    inbox.append(0, MUTED)
    assert inbox.claim([0], 500, version=1) == ([], [], [0])
    for times in range(4):
        batch = begun_alone(redis, inbox)
        assert batch is not None
        assert (batch.entries, batch.begun) == ([Mail(numbered(3)[0])], times)
    for each in numbered(3):
        batch = inbox.claim_alone(0, version=1)
        assert batch is not None
        assert batch.entries == [Mail(each)]
        committed(snapshots, batch, 1, Commit())
    assert inbox.claim_alone(0, version=1) is None
    assert claimed(inbox, 0).entries == [Mail(MUTED)], "what came later is not under suspicion"


def test_each_of_a_suspect_batch_has_its_own_count(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    for each in numbered(2):
        inbox.append(0, each)
    begun(redis, inbox, TOGETHER)
    begun_alone(redis, inbox)
    first = inbox.claim_alone(0, version=1)
    assert first is not None
    committed(snapshots, first, 1, Commit())
    second = inbox.claim_alone(0, version=1)
    assert second is not None
    assert (first.begun, second.begun) == (1, 0)


def test_a_batch_that_is_begun_again_is_the_same_one(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    inbox.append(0, MUTED)
    begun(redis, inbox, 1)
    inbox.append(0, MUTED)
    batch = claimed(inbox, 0)
    assert len(batch.entries) == 1
    committed(snapshots, batch, 1, Commit())
    assert len(claimed(inbox, 0).entries) == 1
    [_, together, first, alone] = redis.get(keys.trial(0)).split()
    assert (together, first, alone) == (b"1", b"-", b"0"), "a commit clears what went before it"


def test_a_count_is_of_one_entry_and_passes_on_to_no_other(redis: Redis, inbox: Inbox) -> None:
    for each in numbered(2):
        inbox.append(0, each)
    begun(redis, inbox, TOGETHER)
    for _ in range(3):
        begun_alone(redis, inbox)
    redis.xtrim(keys.inbox(0), maxlen=1, approximate=False)  # an operator's hand
    batch = begun_alone(redis, inbox)
    assert batch is not None
    assert (batch.entries, batch.begun) == ([Mail(numbered(2)[1])], 0)
    redis.xtrim(keys.inbox(0), maxlen=0, approximate=False)
    inbox.append(0, MUTED)
    assert claimed(inbox, 0).begun == 0, "nor is what comes later under suspicion"


# Workers of several versions.


def test_older_workers_leave_the_shards_to_a_newer_one_while_it_lives(redis: Redis, inbox: Inbox) -> None:
    inbox.append(0, MUTED)
    inbox.announce(7)
    assert inbox.claim([0], 500, version=6) == ([], [0], [])
    assert inbox.claim_alone(0, version=6) is None
    inbox.announce(6)
    assert inbox.claim([0], 500, version=6).held == [0], "the older one has not unsaid it"
    assert 0 < int(redis.pttl(keys.newest(0))) <= ANNOUNCED
    redis.delete(keys.newest(0))
    inbox.announce(6)
    assert len(inbox.claim([0], 500, version=6).batches) == 1


def test_the_newer_one_sees_to_them(inbox: Inbox) -> None:
    inbox.append(0, MUTED)
    inbox.announce(6)
    inbox.announce(7)
    assert len(inbox.claim([0], 500, version=7).batches) == 1


# Dead letters.


def test_a_dead_letter_goes_back_into_its_inbox_once(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    inbox.append(0, MUTED)
    letters = [DeadLetter("a reason", MUTED), DeadLetter("another", Callback(body=b"?", received_at=0, key=""))]
    committed(snapshots, claimed(inbox, 0), 1, Commit(dead_letters=letters))
    assert snapshots.letters_left() == 2
    (shard, first, letter), (_, second, strange) = snapshots.letters()
    assert (shard, letter, strange) == (0, *letters)
    assert inbox.send_again(0, first, letter.callback)
    assert not inbox.send_again(0, first, letter.callback)
    assert inbox.send_again(0, second, strange.callback.body)
    assert snapshots.letters_left() == 0
    assert claimed(inbox, 0).entries == [Mail(MUTED), Unread(b"?")]


def test_letters_are_read_to_their_end_and_those_that_come_meanwhile_are_left(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.snapshots.LETTERS_AT_ONCE", 2)
    for shard in (0, 2):
        inbox.append(shard, MUTED)
        some = [DeadLetter(f"{shard} {n}", MUTED) for n in range(5)]
        committed(snapshots, claimed(inbox, shard), 1, Commit(dead_letters=some))
    read = []
    for shard, letter_id, letter in snapshots.letters():
        read.append(letter.reason)
        assert inbox.send_again(shard, letter_id, letter.callback)
        redis.xadd(keys.dead_letters(shard), {"e": msgspec.msgpack.encode(letter)})
    assert read == [f"{shard} {n}" for shard in (0, 2) for n in range(5)]


# Waiting.


def test_a_wait_names_the_shards_that_have_mail(inbox: Inbox) -> None:
    inbox.append(1, MUTED)
    inbox.append(3, MUTED)
    assert sorted(inbox.wait({}, 1.0)) == [1, 3]


def test_a_wait_passes_over_what_has_been_seen(inbox: Inbox) -> None:
    inbox.append(1, MUTED)
    inbox.append(3, MUTED)
    seen = claimed(inbox, 1).last_id
    assert inbox.wait({1: seen}, 1.0) == [3]
    assert inbox.wait({1: seen, 3: ONLY_NEW}, 0.01) == []
    inbox.append(1, MUTED)
    assert inbox.wait({1: seen, 3: ONLY_NEW}, 1.0) == [1]


def test_a_wait_comes_back_empty_when_its_time_is_up(inbox: Inbox) -> None:
    assert inbox.wait({}, 0.01) == []


@pytest.mark.parametrize("seen", [{}, {2: ONLY_NEW}], ids=["from its beginning", "only new"])
def test_a_wait_ends_when_mail_comes(redis: Redis, inbox: Inbox, seen: dict[int, bytes]) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(inbox.wait, seen, 4.0)
        while not any("b" in client["flags"] for client in redis.client_list()):
            assert not waiting.done()
        inbox.append(2, MUTED)
        assert waiting.result() == [2]


# Forwarding, and how things stand.


def test_forwarded_entries_reach_their_shards(inbox: Inbox) -> None:
    answered = callback(progress(BEN, "in-progress", number=2, second=8), conference_sid=ROOM)
    assert inbox.forward([(0, Link(ANNA, ROOM)), (3, Mail(answered)), (0, Link(BEN, ROOM))])
    assert claimed(inbox, 0).entries == [Link(ANNA, ROOM), Link(BEN, ROOM)]
    assert claimed(inbox, 3).entries == [Mail(answered)]


def test_a_forward_asks_for_a_wake_up_where_any_of_its_shards_needs_one(inbox: Inbox) -> None:
    inbox.append(0, MUTED)
    assert inbox.forward([(0, Link(ANNA, ROOM)), (1, Link(ANNA, ROOM))]) is True
    assert inbox.forward([(0, Link(ANNA, ROOM)), (1, Link(ANNA, ROOM))]) is False


def test_the_backlog_tells_how_each_shard_stands(inbox: Inbox) -> None:
    for each in numbered(3):
        inbox.append(2, each)
    inbox.append(0, MUTED)
    batch = claimed(inbox, 2)
    backlog = inbox.backlog()
    assert [(shard.waiting, shard.leased) for shard in backlog] == [(1, False), (0, False), (3, True), (0, False)]
    assert backlog[2].oldest_id == batch.first_id
    assert backlog[1].oldest_id is None


def test_a_probe_leaves_nothing_that_lasts(redis: Redis, inbox: Inbox) -> None:
    inbox.probe("a word")
    assert redis.get(keys.PROBE) == b"a word"
    assert 0 < redis.pttl(keys.PROBE) <= 1_000


def test_a_probe_fails_where_nothing_can_be_stored(
    inbox: Inbox, memory_full: Callable[[], AbstractContextManager[None]]
) -> None:
    with memory_full(), pytest.raises(RedisError):
        inbox.probe("a word")


def test_every_inbox_call_survives_a_script_flush(redis: Redis, inbox: Inbox) -> None:
    redis.script_flush()
    assert inbox.append(0, MUTED)
    redis.script_flush()
    assert inbox.forward([(0, Link(ANNA, ROOM))]) is False
    redis.script_flush()
    batch = claimed(inbox, 0)
    assert len(batch.entries) == 2
    redis.script_flush()
    inbox.renew([batch])
    redis.script_flush()
    assert inbox.leave() is True


def test_conferences_spread_over_the_shards_and_stay_where_they_are(inbox: Inbox) -> None:
    sids = [f"CF{n:032x}" for n in range(400)]
    homes = [inbox.shard_of(sid) for sid in sids]
    assert all(homes.count(shard) > 50 for shard in range(SHARDS))
    assert [inbox.shard_of(sid) for sid in sids] == homes
    assert inbox.shard_of(ROOM) == 1, "a stored conference must be found again by every later release"
