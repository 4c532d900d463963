"""From mail to documents: whatever comes, in whatever order, whoever dies, each callback counts exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace
from redis import Redis
from redis.connection import AbstractConnection
from redis.exceptions import TimeoutError as TimedOut

from app import fold
from app.conference import Conference, Participant, encode
from app.events import Action, Answer, Callback
from app.replay import Track
from app.simulator.stories import shuffled, story
from app.store import feed, keys
from app.store.inbox import Batch, Inbox, Link, Mail
from app.store.logs import packed
from app.store.snapshots import Question, Snapshots
from app.twilio.callbacks import read
from app.twilio.control import Record, encode_record
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, NOON, ROOM, at, callback, progress, said
from tests.claims import claim
from tests.conftest import SHARDS
from tests.workers.post import empty, kept, post, told_of, written
from workers import drain as drain_module
from workers.drain import Drain, Tracks

START = callback(said("conference-start", number=1, second=1))
ANNA_JOINS = callback(said("participant-join", ANNA, number=2, second=1))
BEN_JOINS = callback(said("participant-join", BEN, number=3, second=2))
BEN_MUTES = callback(said("participant-mute", BEN, number=4, second=5, Muted="true"))
BEN_UNMUTES = callback(said("participant-unmute", BEN, number=5, second=9))
BEN_LEAVES = callback(said("participant-leave", BEN, number=6, second=20, ReasonParticipantLeft="participant_hung_up"))
ANNA_LEAVES = callback(said("participant-leave", ANNA, number=7, second=21))
END = callback(said("conference-end", number=8, second=21, ReasonConferenceEnded="last-participant-left"))
WHOLE_CALL = [START, ANNA_JOINS, BEN_JOINS, BEN_MUTES, BEN_UNMUTES, BEN_LEAVES, ANNA_LEAVES, END]

BEN_RINGS = callback(progress(BEN, "ringing", number=1, second=0))
BEN_ANSWERS = callback(progress(BEN, "in-progress", number=2, second=2))
BEN_HANGS_UP = callback(progress(BEN, "completed", number=3, second=20, CallDuration="18"))

OTHER_ACCOUNT = "AC" + "9" * 32
OTHER_ROOM = "CF" + "0" * 31 + "1"


def log_of(snapshots: Snapshots, sid: str = ROOM) -> list[Callback]:
    return [entry.callback for entry in snapshots.events(sid, 0, 10_000)]


def everything(redis: Redis) -> dict[str, object]:
    """Whatever Redis holds, but for what passes by itself, and the marks that gone mail leaves in an inbox."""
    passing = {name(shard) for name in (keys.woken, keys.lease, keys.inbox) for shard in range(SHARDS)}
    return {name: redis.dump(name) for name in names(redis) if name not in passing}


def names(redis: Redis) -> list[str]:
    """Of every key there is."""
    return sorted(key.decode() for key in redis.scan_iter())


def told_by_a_story(seed: int) -> tuple[str, list[Callback]]:
    """A made-up conference's sid and its callbacks, as an unreliable network delivers them."""
    chance = Random(seed)
    callbacks = story(chance, ACCOUNT, NOON)
    room = next(told.parameters["ConferenceSid"] for told in callbacks if "ConferenceSid" in told.parameters)
    arriving = shuffled(chance, callbacks)
    if seed % 2:
        chance.shuffle(arriving)
    return room, [callback(told.parameters, received_at=number) for number, told in enumerate(arriving)]


# What comes out.


def test_a_call_from_start_to_end_is_in_the_document(drain: Drain, snapshots: Snapshots) -> None:
    post(drain.inbox, *WHOLE_CALL)
    empty(drain)
    document = json.loads(snapshots.documents([ROOM])[0] or b"")
    assert document["status"] == "completed"
    assert document["friendly_name"] == "Stand-up"
    assert document["ended_at"] == "2026-11-22T12:00:21Z"
    assert document["reason_conference_ended"] == "last-participant-left"
    assert document["counts"]["participants"] == 2
    assert document["counts"]["present"] == 0
    assert document["coverage"]["sequences"] == [[1, 8]]
    anna, ben = document["participants"]
    assert (anna["call_sid"], anna["label"], anna["status"]) == (ANNA, "anna", "complete")
    assert (ben["muted"], ben["muted_seconds"], ben["reason_left"]) == (False, 4.0, "participant_hung_up")
    assert (ben["joined_at"], ben["left_at"]) == ("2026-11-22T12:00:02Z", "2026-11-22T12:00:20Z")


def test_the_log_keeps_each_callback_as_it_came_in_order_of_arrival(drain: Drain, snapshots: Snapshots) -> None:
    arriving = [BEN_JOINS, START, BEN_LEAVES, ANNA_JOINS]
    for each in arriving:
        post(drain.inbox, each)
        empty(drain)
    assert log_of(snapshots) == arriving


def test_a_duplicate_changes_nothing(redis: Redis, drain: Drain, snapshots: Snapshots) -> None:
    post(drain.inbox, *WHOLE_CALL)
    empty(drain)
    before = snapshots.documents([ROOM])[0], log_of(snapshots)
    again = [replace(each, received_at=each.received_at + 60_000, token="another attempt") for each in WHOLE_CALL]
    post(drain.inbox, *again)
    empty(drain)
    assert (snapshots.documents([ROOM])[0], log_of(snapshots)) == before
    assert kept(snapshots, ROOM).header.revision == 1
    assert snapshots.counters() == {"folded": 8, "noted": 0, "repeated": 8, "dead": 0}


def test_a_duplicate_in_the_same_batch_counts_once(drain: Drain, snapshots: Snapshots) -> None:
    post(
        drain.inbox,
        *[START, ANNA_JOINS] * 3,
        callback(dict(reversed(said("participant-join", ANNA, number=2, second=1).items()))),
    )
    empty(drain)
    assert len(log_of(snapshots)) == 2
    assert snapshots.counters() == {"folded": 2, "noted": 0, "repeated": 5, "dead": 0}


def test_each_commit_raises_the_revision_by_one(drain: Drain, snapshots: Snapshots) -> None:
    revisions = []
    for each in WHOLE_CALL:
        post(drain.inbox, each)
        empty(drain)
        revisions.append(kept(snapshots, ROOM).header.revision)
    assert revisions == list(range(1, len(WHOLE_CALL) + 1))


def test_heard_at_is_when_the_last_callback_reached_us(drain: Drain, snapshots: Snapshots) -> None:
    noon = int(NOON.timestamp() * 1000)
    heard = []
    for each, received in ((START, noon + 5_000), (ANNA_JOINS, noon + 9_000), (BEN_JOINS, noon + 7_000)):
        post(drain.inbox, replace(each, received_at=received))
        empty(drain)
        heard.append(kept(snapshots, ROOM).header.heard_at)
    assert heard == [at(5), at(9), at(9)]


@pytest.mark.parametrize("seed", range(24))
def test_any_order_and_any_batches_end_in_what_the_fold_makes_of_all(
    drain: Drain, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = Random(seed)
    monkeypatch.setattr(drain_module, "BATCH", chance.choice([1, 2, 7, 500]))
    room, callbacks = told_by_a_story(seed)
    for each in callbacks:
        post(drain.inbox, each)
        if chance.random() < 0.2:
            drain.drain([chance.randrange(SHARDS)])
    empty(drain)
    assert written(kept(snapshots, room)) == written(told_of(room, callbacks))
    assert snapshots.dead_letters(10) == []
    identities = [entry.event_id for entry in snapshots.events(room, 0, 10_000)]
    assert len(identities) == len(set(identities))


def test_many_drains_at_once_end_in_what_the_fold_makes_of_all(
    inbox: Inbox, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH", 3)
    stories = [told_by_a_story(seed) for seed in range(100, 106)]
    mail = [each for _, callbacks in stories for each in callbacks]
    Random(7).shuffle(mail)

    def work(number: int) -> None:
        drain = Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: False)
        for each in mail[number::4]:
            post(inbox, each)
            drain.drain([number])
            drain.drain([(number + 1) % SHARDS])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    empty(Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: False))
    for room, callbacks in stories:
        assert written(kept(snapshots, room)) == written(told_of(room, callbacks))


def test_what_people_are_called_is_in_no_key(redis: Redis, drain: Drain) -> None:
    room = said("participant-join", ANNA, number=2, second=1, ParticipantLabel="}{ \r\nanna*", FriendlyName="{9}\0[x]")
    post(drain.inbox, callback(room), BEN_RINGS, callback({"AccountSid": ACCOUNT, "CallSid": "}{*"}))
    empty(drain)
    for name in names(redis):
        for sid in (ROOM, ANNA, BEN):
            name = name.replace(sid, "")
        assert set(name) <= set("offhook:{0123}inboxwokenleaseepochindexcountersdeadconferencelogidscall")


# Calls and recordings.


@pytest.mark.parametrize("late", [False, True], ids=["before the join", "after the join"])
@pytest.mark.parametrize("caller", [f"CA{n:032x}" for n in range(4)], ids=lambda sid: f"shard {keys.shard_of(sid, 4)}")
def test_call_progress_reaches_the_participant_exactly_once_whichever_comes_first(
    drain: Drain, snapshots: Snapshots, caller: str, late: bool
) -> None:
    rings = callback(progress(caller, "ringing", number=1, second=0, To="+15550199"))
    answers = callback(progress(caller, "in-progress", number=2, second=2, To="+15550199"))
    joins = callback(said("participant-join", caller, number=3, second=2))
    for each in (joins, rings, answers) if late else (rings, answers, joins):
        post(drain.inbox, each)
        empty(drain)
    participant = kept(snapshots, ROOM).participants[caller]
    assert (participant.to, participant.call_status, participant.direction) == (
        "+15550199",
        "in-progress",
        "outbound-api",
    )
    assert participant.events == 1
    filed = [each for each in log_of(snapshots) if each.conference_sid is not None]
    assert sorted(each.body for each in filed) == sorted([rings.body, answers.body])
    assert snapshots.counters() == {"folded": 3, "noted": 2, "repeated": 0, "dead": 0}


def test_call_progress_of_a_call_that_is_in_no_conference_waits(drain: Drain, snapshots: Snapshots) -> None:
    post(drain.inbox, BEN_RINGS, BEN_ANSWERS, BEN_RINGS)
    empty(drain)
    assert snapshots.page(Question(), None, 10) == ([], None)
    assert snapshots.counters() == {"folded": 0, "noted": 2, "repeated": 1, "dead": 0}
    post(drain.inbox, BEN_JOINS)
    empty(drain)
    assert len(log_of(snapshots)) == 3


def test_call_progress_reaches_every_conference_that_the_call_has_been_in(drain: Drain, snapshots: Snapshots) -> None:
    moved = callback(said("participant-join", BEN, number=1, second=15, room=OTHER_ROOM))
    post(drain.inbox, BEN_RINGS, BEN_JOINS)
    empty(drain)
    post(drain.inbox, moved)
    empty(drain)
    post(drain.inbox, BEN_HANGS_UP)
    empty(drain)
    for room in (ROOM, OTHER_ROOM):
        participant = kept(snapshots, room).participants[BEN]
        assert (participant.call_duration, participant.call_status) == (18, "completed")
        assert len(log_of(snapshots, room)) == 3


@pytest.mark.parametrize("names_the_call", [False, True])
def test_a_recording_of_a_conference_is_in_its_document(
    drain: Drain, snapshots: Snapshots, names_the_call: bool
) -> None:
    more = {"CallSid": ANNA} if names_the_call else {}
    recorded(drain, {"ConferenceSid": ROOM} | more)
    [recording] = kept(snapshots, ROOM).header.recordings
    assert (recording.status, recording.duration) == ("completed", 19)
    assert recording.call_sid == more.get("CallSid")


def test_a_recording_of_a_call_is_in_the_document_of_its_conference(drain: Drain, snapshots: Snapshots) -> None:
    recorded(drain, {"CallSid": ANNA})
    [recording] = kept(snapshots, ROOM).header.recordings
    assert (recording.status, recording.duration, recording.call_sid) == ("completed", 19, ANNA)
    assert len(log_of(snapshots)) == 3


def recorded(drain: Drain, of: dict[str, str]) -> None:
    told = {"AccountSid": ACCOUNT, "RecordingSid": "RE" + "e" * 32, **of}
    post(drain.inbox, callback(told | {"RecordingStatus": "in-progress"}), ANNA_JOINS)
    empty(drain)
    done = callback(told | {"RecordingStatus": "completed", "RecordingDuration": "19"})
    post(drain.inbox, done, done)
    empty(drain)


def test_forwards_that_are_sent_twice_change_nothing(redis: Redis, drain: Drain, snapshots: Snapshots) -> None:
    post(drain.inbox, BEN_RINGS, BEN_JOINS)
    empty(drain)
    before = everything(redis)
    filed = replace(BEN_RINGS, conference_sid=ROOM)
    for _ in range(2):
        drain.inbox.forward([(drain.inbox.shard_of(BEN), Link(BEN, ROOM))] * 2)
        drain.inbox.forward([(drain.inbox.shard_of(ROOM), Mail(filed))] * 2)
        empty(drain)
    after = everything(redis)
    repeats = {name for name in after if before.get(name) != after[name]}
    assert repeats <= {keys.counters(shard) for shard in range(SHARDS)}
    assert snapshots.counters() == {"folded": 2, "noted": 1, "repeated": 4, "dead": 0}


# What cannot be folded.


def test_a_callback_that_cannot_be_read_is_put_aside_with_the_reason_and_the_rest_flows(
    drain: Drain, snapshots: Snapshots
) -> None:
    garbled = [
        callback({"AccountSid": ACCOUNT, "Hello": "there"}),
        callback(said("participant-join", ANNA, number=2, second=1, ConferenceSid="CF{0}")),
        Callback(body=b'{"AccountSid": "AC"}', media="json", received_at=1, key="main"),
        Callback(body=b"ConferenceSid=%ff%00&=&&&StatusCallbackEvent", received_at=1, key="main"),
    ]
    shard = drain.inbox.shard_of(ROOM)
    for each in (START, garbled[0], ANNA_JOINS, *garbled[1:], BEN_JOINS):
        drain.inbox.append(shard, each)
    empty(drain)
    assert kept(snapshots, ROOM).header.counts.present == 2
    letters = snapshots.dead_letters(10)
    assert {letter.callback for letter in letters} == set(garbled)
    assert {letter.callback: letter.reason for letter in letters}[garbled[1]].startswith("ConferenceSid is not a SID")
    assert snapshots.counters() == {"folded": 3, "noted": 0, "repeated": 0, "dead": 4}


def test_a_fold_that_fails_costs_only_that_conferences_news(
    drain: Drain, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(drain.inbox, START, ANNA_JOINS)
    empty(drain)
    before = kept(snapshots, ROOM)
    advance = fold.advance

    def failing(conference: Conference, *more: Any) -> Any:
        if conference.header.sid == ROOM:
            raise ZeroDivisionError("of the fold's own making")
        return advance(conference, *more)

    others = [callback(said("participant-join", CLEO, number=2, second=3, room=f"CF{n:032x}")) for n in range(8)]
    begun = [callback(said("conference-start", number=1, second=0, room=f"CF{n:032x}")) for n in range(8)]
    post(drain.inbox, *begun)
    empty(drain)
    with monkeypatch.context() as broken:
        broken.setattr(fold, "advance", failing)
        post(drain.inbox, *others[:4], BEN_JOINS, BEN_MUTES, *others[4:])
        empty(drain)
    assert all(CLEO in kept(snapshots, f"CF{n:032x}").participants for n in range(8))
    assert written(kept(snapshots, ROOM)) == written(before)
    assert set(kept(snapshots, ROOM).header.set_aside) == {read(BEN_JOINS).id, read(BEN_MUTES).id}
    letters = snapshots.dead_letters(10)
    assert {letter.callback for letter in letters} == {BEN_JOINS, BEN_MUTES}
    assert {letter.reason for letter in letters} == {"fold failed: ZeroDivisionError"}
    post(drain.inbox, *(letter.callback for letter in letters))
    empty(drain)
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [START, ANNA_JOINS, BEN_JOINS, BEN_MUTES]))
    assert kept(snapshots, ROOM).header.set_aside == ()


def test_a_redis_that_fails_while_a_log_is_read_costs_no_callback(
    drain: Drain, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late callback needs the log. Redis being away then is no fault of the callback's."""
    post(drain.inbox, START, BEN_JOINS, BEN_UNMUTES)
    empty(drain)
    post(drain.inbox, BEN_MUTES)
    drain.tracks = Tracks()  # as in a process that was started anew

    def away(sid: str) -> Any:
        raise TimedOut("Timeout reading from socket")

    with monkeypatch.context() as broken:
        broken.setattr(snapshots, "log", away)
        try:
            drain.drain([drain.inbox.shard_of(ROOM)])
        except TimedOut:
            """The job fails, and the mail is still there."""
    snapshots.redis.delete(keys.lease(drain.inbox.shard_of(ROOM)))
    empty(drain)
    assert snapshots.dead_letters(10) == []
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [START, BEN_JOINS, BEN_MUTES, BEN_UNMUTES]))


def test_another_accounts_word_on_a_conference_is_set_aside(drain: Drain, snapshots: Snapshots) -> None:
    intruding = callback(said("conference-end", number=9, second=9, AccountSid=OTHER_ACCOUNT))
    post(drain.inbox, START, intruding)
    empty(drain)
    post(drain.inbox, replace(intruding, received_at=1), ANNA_JOINS)
    empty(drain)
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [START, ANNA_JOINS]))
    letters = snapshots.dead_letters(10)
    assert [letter.reason for letter in letters] == ["the conference belongs to another account"] * 2


def test_another_accounts_word_on_a_call_does_not_reach_its_participant(drain: Drain, snapshots: Snapshots) -> None:
    post(drain.inbox, BEN_JOINS)
    empty(drain)
    post(drain.inbox, callback(progress(BEN, "failed", number=1, second=1, AccountSid=OTHER_ACCOUNT)))
    empty(drain)
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [BEN_JOINS]))


# Documents of another version.


def outdated(redis: Redis, snapshots: Snapshots, participant: Participant) -> None:
    """Make the document one that another version of the fold has left behind, with this participant."""
    name = keys.conference(keys.shard_of(ROOM, SHARDS), ROOM)
    header = replace(kept(snapshots, ROOM).header, friendly_name="what another version made of it", reason="so")
    redis.hset(name, mapping={"fold": fold.VERSION - 1, "header": encode(header)})
    redis.hset(name, participant.call_sid, encode(participant))


def test_a_document_of_another_fold_is_folded_again_from_its_log(
    redis: Redis, drain: Drain, snapshots: Snapshots
) -> None:
    post(drain.inbox, START, ANNA_JOINS, BEN_RINGS, BEN_JOINS)
    empty(drain)
    revision = kept(snapshots, ROOM).header.revision
    outdated(redis, snapshots, Participant(call_sid=BEN, label="somebody"))
    post(drain.inbox, BEN_MUTES)
    empty(drain)
    told = [START, ANNA_JOINS, BEN_RINGS, BEN_JOINS, BEN_MUTES]
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, told))
    assert kept(snapshots, ROOM).header.revision == revision + 2, "a hole: whoever follows must read it anew"
    assert snapshots.load({ROOM: None})[ROOM].fold_version == fold.VERSION


def test_a_participant_whom_only_another_fold_knew_is_gone_with_it(
    redis: Redis, drain: Drain, snapshots: Snapshots
) -> None:
    post(drain.inbox, START, ANNA_JOINS)
    empty(drain)
    outdated(redis, snapshots, Participant(call_sid=CLEO, label="cleo"))
    post(drain.inbox, BEN_JOINS)
    empty(drain)
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [START, ANNA_JOINS, BEN_JOINS]))


# Whoever dies, and wherever.


class Killed(BaseException):
    """The process ended here."""


@contextmanager
def killed_at(trip: int, *, sent: bool) -> Iterator[list[int]]:
    """Whoever goes to Redis for the `trip`th time dies: before that has been sent, or before the answer."""
    trips: list[int] = []
    send: Any = AbstractConnection.send_packed_command

    def mortal(self: Any, command: Any, check_health: bool = True) -> None:
        trips.append(1)
        if len(trips) == trip and not sent:
            raise Killed
        send(self, command, check_health)
        if len(trips) == trip:
            self.read_response()  # what Redis had to do is done
            self.disconnect()
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", mortal)
        yield trips


@pytest.mark.parametrize("sent", [False, True], ids=["before a command", "after a command"])
def test_a_drain_may_die_at_any_of_its_steps_and_each_callback_still_counts_once(
    redis: Redis, inbox: Inbox, drain: Drain, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    monkeypatch.setattr(drain_module, "BATCH", 3)
    callbacks = [BEN_RINGS, START, BEN_UNMUTES, BEN_JOINS, ANNA_JOINS, BEN_MUTES, BEN_JOINS, BEN_ANSWERS, BEN_LEAVES]
    deaths = 0
    while True:
        redis.flushall()
        post(inbox, *callbacks)
        try:
            with killed_at(deaths + 1, sent=sent):
                empty(drain)
        except Killed:
            deaths += 1
        else:
            break
        for shard in range(SHARDS):
            redis.delete(keys.lease(shard))
        with feed.subscribe(redis, keys.conference_channel(ROOM)) as messages:
            empty(drain)
            redis.publish(keys.conference_channel(ROOM), b"")
            told = [json.loads(message) for message in iter(messages.__next__, b"")]
        assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, callbacks))
        assert len(log_of(snapshots)) == len(set(log_of(snapshots))) == len(callbacks) - 1
        assert all(after["revision"] == before["revision"] + 1 for before, after in pairwise(told))
        if told:
            assert told[-1]["revision"] == kept(snapshots, ROOM).header.revision
        assert snapshots.counters()["folded"] == len(callbacks) - 1
        assert snapshots.counters()["noted"] == 2
    assert deaths > 15


def test_a_drain_that_loses_its_lease_while_it_works_writes_nothing_and_the_next_does_it(
    redis: Redis, drain: Drain, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = drain.inbox.shard_of(ROOM)
    post(drain.inbox, START)
    before = everything(redis)
    load = snapshots.load

    def meanwhile(wanted: Any) -> Any:
        redis.set(keys.lease(shard), "another's")
        return load(wanted)

    with monkeypatch.context() as paused:
        paused.setattr(snapshots, "load", meanwhile)
        drain.drain([shard])
    after = everything(redis)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {keys.epoch(shard), keys.trial(shard)}
    assert redis.get(keys.lease(shard)) == b"another's"
    redis.delete(keys.lease(shard))
    empty(drain)
    assert kept(snapshots, ROOM).header.revision == 1
    assert log_of(snapshots) == [START]


def test_a_shard_that_another_drain_has_is_left_alone(drain: Drain) -> None:
    post(drain.inbox, START)
    shard = drain.inbox.shard_of(ROOM)
    theirs = claim(drain.inbox, shard, 10)
    assert theirs is not None
    drain.drain([shard])
    assert drain.inbox.backlog()[shard].waiting == 1
    assert drain.fold([theirs]) == [0]


def test_mail_that_piles_up_asks_for_another_worker(
    drain: Drain, nudges: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH", 3)
    shard = drain.inbox.shard_of(ROOM)
    post(drain.inbox, *(callback(said("conference-start", number=n, second=n)) for n in range(1, 9)))
    seen = drain.drain([shard])
    waiting, oldest, leased = drain.inbox.backlog()[shard]
    assert (waiting, leased) == (5, False)
    assert oldest is not None
    assert drain.inbox.wait(seen, 1) == [shard], "it must be looked at again"
    assert len(nudges) == 1
    drain.drain([shard])
    assert len(nudges) == 1, "the rest is little"


def test_a_busy_shard_does_not_keep_the_others_waiting(
    drain: Drain, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail that comes to one shard while it is being folded is left for the next look, at all of them."""
    shard, other = drain.inbox.shard_of(ROOM), drain.inbox.shard_of(OTHER_ROOM)
    assert shard != other
    commit = snapshots.commit

    def meanwhile(*work: Any) -> Any:
        post(drain.inbox, BEN_MUTES, callback(said("conference-start", number=1, second=1, room=OTHER_ROOM)))
        return commit(*work)

    post(drain.inbox, START)
    with monkeypatch.context() as busy:
        busy.setattr(snapshots, "commit", meanwhile)
        seen = drain.drain([shard])
    assert sorted(drain.inbox.wait(seen, 1)) == sorted([shard, other])


def test_a_drain_that_sees_to_everything_asks_for_nobody(drain: Drain, nudges: list[str]) -> None:
    drain.inbox.attend()
    post(drain.inbox, *WHOLE_CALL, BEN_RINGS)
    empty(drain)
    assert nudges == []


def test_a_forward_to_a_shard_that_nobody_looks_after_asks_for_a_wake_up(drain: Drain, nudges: list[str]) -> None:
    caller = next(sid for sid in (f"CA{n:032x}" for n in range(99)) if drain.inbox.shard_of(sid) == 3)
    post(drain.inbox, callback(said("participant-join", caller, number=2, second=1)))
    drain.drain([drain.inbox.shard_of(ROOM)])
    assert nudges
    assert drain.inbox.backlog()[3].waiting == 1


def test_with_the_memory_full_what_waits_is_still_folded(redis: Redis, drain: Drain, snapshots: Snapshots) -> None:
    post(drain.inbox, *WHOLE_CALL)
    redis.config_set("maxmemory", 1)
    try:
        drain.drain([drain.inbox.shard_of(ROOM)])
    finally:
        redis.config_set("maxmemory", 0)
    assert kept(snapshots, ROOM).header.status == "completed"


# Spells.


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spells that look around often, and are soon content."""
    monkeypatch.setattr(drain_module, "TICK", 0.02)
    monkeypatch.setattr(drain_module, "QUIET", 0.05)


@pytest.mark.usefixtures("brisk")
def test_a_spell_sees_to_every_shard_and_ends_when_it_is_quiet(drain: Drain, nudges: list[str]) -> None:
    rooms = [f"CF{n:032x}" for n in range(12)]
    post(drain.inbox, *(callback(said("participant-join", ANNA, number=2, second=1, room=room)) for room in rooms))
    post(drain.inbox, BEN_RINGS, BEN_JOINS)
    drain.spell()
    assert all(ANNA in kept(drain.snapshots, room).participants for room in rooms)
    assert kept(drain.snapshots, ROOM).participants[BEN].to == "+15550101"
    assert drain.inbox.backlog() == [(0, None, False)] * SHARDS
    assert nudges == []


@pytest.mark.usefixtures("brisk")
def test_after_a_spell_the_next_callback_asks_for_a_wake_up(drain: Drain) -> None:
    drain.spell()
    assert [drain.inbox.append(shard, START) for shard in range(SHARDS)] == [True] * SHARDS


@contextmanager
def spelling(redis: Redis, drain: Drain) -> Iterator[None]:
    """A block in which a spell listens; it is told to stop on leaving."""
    over = False

    def stopping() -> bool:
        return over

    drain.stopping = stopping
    with ThreadPoolExecutor(1) as threads:
        spell = threads.submit(drain.spell)
        try:
            while not any("b" in client["flags"] for client in redis.client_list()):
                assert not spell.done()
            yield
        finally:
            over = True
            spell.result(10)


def test_a_spell_listens_and_nobody_needs_to_be_woken(redis: Redis, drain: Drain, snapshots: Snapshots) -> None:
    with feed.subscribe(redis) as messages, spelling(redis, drain):
        for revision, each in enumerate(WHOLE_CALL, 1):
            assert drain.inbox.append(drain.inbox.shard_of(ROOM), each) is False
            assert json.loads(next(messages))["revision"] == revision
    assert kept(snapshots, ROOM).header.status == "completed"


def test_a_spell_ends_when_the_worker_is_to_stop(redis: Redis, drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "TICK", 0.05)
    with spelling(redis, drain):
        """It would go on for QUIET seconds; leaving the block awaits its end."""
    assert not any(redis.exists(keys.woken(shard)) for shard in range(SHARDS))


def test_a_spell_that_must_stop_hands_its_mail_over(
    drain: Drain, nudges: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH", 1)
    shard = drain.inbox.shard_of(ROOM)
    post(drain.inbox, *WHOLE_CALL)
    drain.stopping = lambda: True
    drain.spell()
    waiting, _, leased = drain.inbox.backlog()[shard]
    assert waiting > 0
    assert not leased, "the next worker must not have to wait for a lease"
    assert nudges


def test_mail_that_comes_as_a_spell_stops_is_handed_over(drain: Drain, nudges: list[str]) -> None:
    """Its sender was told that somebody attends, and will wake nobody."""
    post(drain.inbox, END)
    due: list[bool] = []

    def stopping() -> bool:
        due.append(drain.inbox.append(drain.inbox.shard_of(ROOM), START))
        return True

    drain.stopping = stopping
    drain.spell()
    assert due == [False]
    assert nudges


def test_a_spell_that_has_lasted_long_enough_hands_over(
    drain: Drain, nudges: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "LONGEST_SPELL", -1.0)
    monkeypatch.setattr(drain_module, "BATCH", 1)
    post(drain.inbox, *WHOLE_CALL)
    drain.spell()
    assert drain.inbox.backlog()[drain.inbox.shard_of(ROOM)].waiting > 0
    assert nudges


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_spell_takes_over_from_a_dead_drain_although_other_shards_keep_it_busy(
    redis: Redis, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dead one's lease lasts five seconds. Long after, its mail has been seen to, new mail or no."""
    clock = Clock()
    monkeypatch.setattr(drain_module, "time", clock)
    shard = drain.inbox.shard_of(ROOM)
    post(drain.inbox, START)
    redis.set(keys.lease(shard), "of the dead")
    busy = next(n for n in range(99) if drain.inbox.shard_of(f"CF{n:032x}") != shard)
    wait = drain.inbox.wait

    def waiting(seen: dict[int, bytes], seconds: float) -> list[int]:
        clock.now += 0.5
        if clock.now > 5.0:
            redis.delete(keys.lease(shard))
        event = said("participant-modify", number=int(clock.now * 2), second=1, room=f"CF{busy:032x}")
        post(drain.inbox, callback(event))
        return wait(seen, seconds)

    monkeypatch.setattr(drain.inbox, "wait", waiting)
    drain.stopping = lambda: clock.now > 12.0
    drain.spell()
    assert drain.inbox.backlog()[shard].waiting == 0


@pytest.mark.usefixtures("brisk")
def test_with_the_memory_full_a_spell_still_empties_the_inboxes(redis: Redis, drain: Drain) -> None:
    post(drain.inbox, START)
    redis.config_set("maxmemory", 1)
    try:
        drain.spell()
    finally:
        redis.config_set("maxmemory", 0)
    assert drain.inbox.backlog() == [(0, None, False)] * SHARDS


def test_a_label_that_one_participant_gives_up_still_finds_the_other(
    inbox: Inbox, snapshots: Snapshots, drain: Drain
) -> None:
    told = [
        said("participant-join", ANNA, number=1, second=0, ParticipantLabel="agent"),
        said("participant-join", BEN, number=2, second=1, ParticipantLabel="agent"),
        said("participant-modify", ANNA, number=3, second=2, ParticipantLabel="supervisor"),
    ]
    for one in told:
        post(inbox, callback(one))
        empty(drain)
    for label in ("agent", "supervisor"):
        assert len(snapshots.page(Question(label=label, status="in-progress"), None, 10)[0]) == 1


def test_an_entry_of_another_release_becomes_a_dead_letter_and_the_rest_flows(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, drain: Drain
) -> None:
    redis.xadd(keys.inbox(inbox.shard_of(ROOM)), {"e": b"\x93\xa5later\x01\x02"})
    post(inbox, callback(said("participant-join", ANNA, number=1, second=0)))
    empty(drain)
    assert snapshots.documents([ROOM])[0] is not None
    [letter] = snapshots.dead_letters(10)
    assert "this release cannot read" in letter.reason
    assert letter.callback.body == b"\x93\xa5later\x01\x02"


def test_a_document_of_a_shape_that_is_not_known_is_folded_again_from_its_log(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, drain: Drain
) -> None:
    post(inbox, callback(said("participant-join", ANNA, number=1, second=0)))
    empty(drain)
    shard = inbox.shard_of(ROOM)
    header = f'{{"sid":"{ROOM}","account_sid":"{ACCOUNT}","revision":7,"status":["of","another","shape"]}}'
    redis.hset(keys.conference(shard, ROOM), mapping={"header": header, "fold": 0, ANNA: '{"call_sid":"' + ANNA + '"}'})
    post(inbox, callback(said("participant-join", BEN, number=2, second=1)))
    empty(drain)
    known = snapshots.load({ROOM: None})[ROOM].conference
    assert set(known.participants) == {ANNA, BEN}
    assert known.header.revision == 9, "a hole: whoever follows must read it anew"


def test_a_log_entry_that_cannot_be_read_any_more_is_passed_over(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, drain: Drain
) -> None:
    post(inbox, callback(said("participant-join", ANNA, number=5, second=9)))
    empty(drain)
    [(ids, pack)] = packed(ROOM, [("0" * 24, callback({"Nonsense": "1"}))])
    redis.append(keys.ids(inbox.shard_of(ROOM), ROOM), ids)
    redis.rpush(keys.log(inbox.shard_of(ROOM), ROOM), (2).to_bytes(4, "big") + pack)
    drain.tracks = Tracks()  # as in a process that was started anew
    post(inbox, callback(said("participant-mute", ANNA, number=4, second=3, Muted="true")))  # late: folds from the log
    empty(drain)
    assert snapshots.load({ROOM: None})[ROOM].conference.participants[ANNA].events == 2
    assert snapshots.dead_letters(10) == []


class Worked(Clock):
    """Time that passes with every look at the clock, as where there is much to do."""

    def monotonic(self) -> float:
        self.now += 0.4
        return self.now


@pytest.fixture
def renewals(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The shards whose leases were made to last longer, each time."""
    renewed: list[list[int]] = []
    renew = inbox.renew

    def counted(batches: list[Batch]) -> None:
        renewed.append([batch.shard for batch in batches])
        renew(batches)

    monkeypatch.setattr(inbox, "renew", counted)
    return renewed


def test_the_lease_is_renewed_while_a_long_log_is_read_again(
    inbox: Inbox, drain: Drain, renewals: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    post(inbox, *(callback(said("participant-unmute", ANNA, number=n, second=n)) for n in range(2, 22)))
    empty(drain)
    drain.tracks = Tracks()
    monkeypatch.setattr(drain_module, "time", Worked())
    renewals.clear()
    post(inbox, callback(said("participant-join", ANNA, number=1, second=1)))  # late: folds from the log
    empty(drain)
    assert len(renewals) >= 20 // 4


def test_a_pass_that_takes_long_keeps_all_its_leases(
    inbox: Inbox, drain: Drain, renewals: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = [f"CF{n:032x}" for n in range(60)]
    post(inbox, *(callback(said("participant-join", ANNA, number=1, second=1, room=room)) for room in rooms))
    monkeypatch.setattr(drain_module, "time", Worked())
    drain.drain(range(SHARDS))
    assert len(renewals) >= 60 // 4
    assert all(shards == list(range(SHARDS)) for shards in renewals)


@pytest.mark.parametrize("shards", [4, 64, 256])
def test_a_pass_takes_so_much_and_no_more_however_many_shards(
    redis: Redis, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "PASS", 80)
    inbox, snapshots = Inbox(redis, shards), Snapshots(redis, shards)
    drain = Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: False)
    post(
        inbox,
        *(
            callback(said("conference-start", number=n, second=n, room=f"CF{room:032x}"))
            for room in range(3 * shards)
            for n in range(1, 11)
        ),
    )
    before = sum(standing.waiting for standing in inbox.backlog())
    seen = drain.drain(inbox.wait({}, 1))
    folded = before - sum(standing.waiting for standing in inbox.backlog())
    assert 40 <= folded <= 80
    assert inbox.wait(seen, 1), "the rest is looked at next"


# What a worker remembers.


def test_a_record_whose_url_speaks_of_another_call_is_in_its_own_calls_history(
    inbox: Inbox, drain: Drain, snapshots: Snapshots
) -> None:
    action = Action(
        id="a",
        verb="update-participant",
        by="operator",
        call_sid=ANNA,
        requested_at=at(3),
        expires_at=at(60),
        after=3,
        answered_at=at(4),
        status=200,
    )
    record = Record(
        step="answered",
        account_sid=ACCOUNT,
        conference_sid=ROOM,
        resource=f"Conferences/{ROOM}/Participants/{ANNA}",
        parameters=[("AnnounceUrl", f"https://example.com/?a=b&CallSid={BEN}&c=d")],
        action=action,
        answer=Answer(queue_time=77),
    )
    joins = callback(said("participant-join", ANNA, number=1, second=1))
    mutes = callback(said("participant-mute", ANNA, number=5, second=8))
    told = Callback(body=encode_record(record), media="control", received_at=1, key="operator")
    late = callback(said("participant-unmute", ANNA, number=3, second=4))
    for each in (joins, mutes):
        post(inbox, each)
        empty(drain)
    inbox.append(inbox.shard_of(ROOM), told)
    empty(drain)
    drain.tracks = Tracks()
    post(inbox, late)
    empty(drain)
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [joins, mutes, told, late]))


@pytest.mark.parametrize("other", [True, False], ids=["by another worker", "by a fold of the whole log"])
def test_what_was_folded_elsewhere_is_not_forgotten_by_who_remembers(
    inbox: Inbox, drain: Drain, snapshots: Snapshots, other: bool
) -> None:
    """Call progress that changes nothing to be seen, until the callback that hid it turns out not to be the first."""
    joins = callback(said("participant-join", ANNA, number=1, second=1))
    begins = callback(progress(ANNA, "in-progress", number=1, second=2))
    hides = callback(said("participant-modify", ANNA, number=5, second=8))
    hidden = callback(progress(ANNA, "in-progress", number=2, second=7))
    prevails = callback(said("participant-modify", ANNA, number=5, second=4))
    for each in (joins, begins, hides):
        post(inbox, each)
        empty(drain)
    post(inbox, hidden)
    if other:
        empty(Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: False))
    else:
        snapshots.redis.hset(keys.conference(inbox.shard_of(ROOM), ROOM), "fold", fold.VERSION - 1)
        empty(drain)
    post(inbox, prevails)
    empty(drain)
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [joins, begins, hides, hidden, prevails]))


def test_a_repeat_is_known_though_the_document_cannot_be_read(
    redis: Redis, inbox: Inbox, drain: Drain, snapshots: Snapshots
) -> None:
    post(inbox, START, ANNA_JOINS)
    empty(drain)
    header = f'{{"sid":"{ROOM}","account_sid":"{ACCOUNT}","revision":7,"status":["of","another","shape"]}}'
    redis.hset(keys.conference(inbox.shard_of(ROOM), ROOM), mapping={"header": header, "fold": 0})
    post(inbox, ANNA_JOINS, BEN_JOINS)
    empty(drain)
    assert log_of(snapshots) == [START, ANNA_JOINS, BEN_JOINS]
    assert snapshots.counters()["repeated"] == 1


def test_no_more_is_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "TRACKS", 5)
    tracks = Tracks()
    one = {ANNA: Track((), Participant(call_sid=ANNA)), BEN: Track((), Participant(call_sid=BEN))}
    for number in range(4):
        tracks.remember(f"CF{number:032x}", "epoch", 1, one)
    assert [len(tracks.of(f"CF{number:032x}", "epoch", 1)) for number in range(4)] == [0, 0, 2, 2]
    tracks.remember(f"CF{2:032x}", "epoch", 2, {CLEO: one[ANNA]})
    assert set(tracks.of(f"CF{2:032x}", "epoch", 2)) == {ANNA, BEN, CLEO}
    assert tracks.of(f"CF{2:032x}", "epoch", 1) == {}
    assert tracks.of(f"CF{2:032x}", "another", 2) == {}
    tracks.remember(f"CF{2:032x}", "epoch", 3, None)
    assert tracks.of(f"CF{2:032x}", "epoch", 3) == {}
    for number in range(10, 100):
        tracks.remember(f"CF{number:032x}", "epoch", 1, None)
    assert len(tracks._remembered) <= 5, "conferences of which nothing is remembered take no room"
