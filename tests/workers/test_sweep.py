"""The sweep finds mail that nobody comes for, whatever became of its wake-up, and does not cry without cause."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as Unconnected
from redis.exceptions import OutOfMemoryError

from app.events import Action, Callback
from app.store import keys
from app.store.commits import Commit
from app.store.inbox import Backlog, Inbox
from app.store.snapshots import Snapshots
from app.twilio.control import Record, encode_record
from tests.cast import ACCOUNT, ANNA, ROOM, callback, said
from tests.claims import claim, committed
from tests.conftest import now_ms
from tests.workers.post import empty, kept
from workers import sweep as sweep_module
from workers.drain import Drain
from workers.sweep import Sweep

JOINED = callback(said("participant-join", ANNA, number=2, second=1))


@pytest.fixture
def sweep(inbox: Inbox, drain: Drain, nudges: list[str]) -> Sweep:
    return Sweep(inbox, Snapshots(inbox.redis, inbox.shards), lambda: nudges.append("drain"), drain)


def test_where_there_is_no_mail_nobody_is_woken(sweep: Sweep, nudges: list[str]) -> None:
    assert [sweep.look() for _ in range(3)] == [False, False, False]
    assert nudges == []


def test_mail_without_a_wake_up_is_found_by_the_second_look(inbox: Inbox, sweep: Sweep, nudges: list[str]) -> None:
    inbox.append(2, JOINED)
    assert [sweep.look() for _ in range(2)] == [False, True]
    assert nudges == ["drain"]


def test_a_wake_up_is_asked_for_until_somebody_comes(inbox: Inbox, sweep: Sweep, nudges: list[str]) -> None:
    inbox.append(2, JOINED)
    assert [sweep.look() for _ in range(4)] == [False, True, True, True]
    assert len(nudges) == 3
    assert claim(inbox, 2, 10) is not None
    assert sweep.look() is False


def test_mail_in_many_shards_asks_for_one_drain(inbox: Inbox, sweep: Sweep, nudges: list[str]) -> None:
    for shard in range(4):
        inbox.append(shard, JOINED)
    sweep.look()
    sweep.look()
    assert nudges == ["drain"]


def test_mail_that_somebody_has_leased_is_left_to_them(inbox: Inbox, sweep: Sweep, nudges: list[str]) -> None:
    inbox.append(2, JOINED)
    assert claim(inbox, 2, 10) is not None
    assert [sweep.look() for _ in range(3)] == [False, False, False]
    assert nudges == []


def test_mail_whose_drain_has_died_is_found_once_the_lease_is_over(
    redis: Redis, inbox: Inbox, sweep: Sweep, nudges: list[str]
) -> None:
    inbox.append(2, JOINED)
    assert claim(inbox, 2, 10) is not None
    assert not sweep.look()
    redis.delete(keys.lease(2))
    assert sweep.look()
    assert nudges == ["drain"]


def test_mail_that_moves_on_is_left_alone(inbox: Inbox, snapshots: Snapshots, sweep: Sweep, nudges: list[str]) -> None:
    for _ in range(4):
        inbox.append(2, JOINED)
    for _ in range(3):
        assert sweep.look() is False
        batch = claim(inbox, 2, 1)
        assert batch is not None
        committed(snapshots, batch, 1, Commit())
        inbox.redis.delete(keys.lease(2))
    assert nudges == []


def test_mail_is_new_again_after_the_shard_has_been_empty(
    inbox: Inbox, snapshots: Snapshots, sweep: Sweep, nudges: list[str]
) -> None:
    for _ in range(3):
        inbox.append(2, JOINED)
        assert sweep.look() is False
        batch = claim(inbox, 2, 10)
        assert batch is not None
        committed(snapshots, batch, 1, Commit())
        assert sweep.look() is False
    assert nudges == []


def test_a_look_takes_nothing_and_leases_nothing(redis: Redis, inbox: Inbox, sweep: Sweep) -> None:
    inbox.append(2, JOINED)
    before = {key: redis.dump(key) for key in redis.scan_iter()}
    sweep.look()
    sweep.look()
    assert {key: redis.dump(key) for key in redis.scan_iter()} == before


def test_a_sweep_goes_on_after_redis_has_been_away(inbox: Inbox, drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "EVERY", 0.001)
    inbox.append(2, JOINED)
    stop, backlog = threading.Event(), inbox.backlog
    looks: list[str] = []

    def standing() -> list[Backlog]:
        looks.append("look")
        if len(looks) < 4:
            raise Unconnected("Connection refused")
        return backlog()

    def nudge() -> None:
        stop.set()

    monkeypatch.setattr(inbox, "backlog", standing)
    sweep = Sweep(inbox, Snapshots(inbox.redis, inbox.shards), nudge, drain)
    sweeping = threading.Thread(target=sweep.run, args=[stop], daemon=True)
    sweeping.start()
    sweeping.join(20)
    assert stop.is_set()
    assert not sweeping.is_alive()
    assert len(looks) >= 4


def test_where_the_queue_takes_no_job_the_sweep_folds_what_waits(
    inbox: Inbox, snapshots: Snapshots, drain: Drain
) -> None:
    def nudge() -> None:
        asked.append(1)
        if len(asked) < 3:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'")

    asked: list[int] = []
    sweep = Sweep(inbox, snapshots, nudge, drain)
    inbox.append(inbox.shard_of(ROOM), JOINED)
    assert [sweep.look(), sweep.look()] == [False, True]
    assert kept(snapshots, ROOM).header.revision == 1
    inbox.append(inbox.shard_of(ROOM), callback(said("participant-mute", ANNA, number=3, second=2)))
    sweep.look()
    assert kept(snapshots, ROOM).header.revision == 2, "it is not waited for twice"
    inbox.append(inbox.shard_of(ROOM), callback(said("participant-unmute", ANNA, number=4, second=3)))
    sweep.look()
    assert kept(snapshots, ROOM).header.revision == 2, "somebody has been woken again"
    assert len(asked) == 3


def test_a_sweep_ends_when_it_is_told_to(inbox: Inbox, drain: Drain, nudges: list[str]) -> None:
    stop = threading.Event()
    stop.set()
    Sweep(inbox, Snapshots(inbox.redis, inbox.shards), lambda: nudges.append("drain"), drain).run(stop)
    assert nudges == []


@dataclass
class Steered:
    """A conference in which somebody has asked for something."""

    drain: Drain
    sweep: Sweep

    def ask(self, expires_in: float) -> None:
        """Write down that Anna is to be muted, and fold it."""
        now = datetime.now(UTC)
        action = Action(
            id="a1",
            verb="update-participant",
            by="operator",
            call_sid=ANNA,
            requested_at=now,
            expires_at=now + timedelta(seconds=expires_in),
            after=1,
            awaits=("muted=true",),
            status=200,
        )
        record = Record(
            step="answered", account_sid=ACCOUNT, conference_sid=ROOM, resource="", parameters=[], action=action
        )
        inbox = self.drain.inbox
        inbox.append(inbox.shard_of(ROOM), callback(said("participant-join", ANNA, number=1, second=0)))
        written_down = Callback(body=encode_record(record), media="control", received_at=now_ms(), key="operator")
        inbox.append(inbox.shard_of(ROOM), written_down)
        empty(self.drain)
        inbox.leave()

    def state(self) -> str:
        """How it stands."""
        [action] = kept(self.drain.snapshots, ROOM).header.actions
        return action.state


@pytest.fixture
def steered(inbox: Inbox, snapshots: Snapshots, sweep: Sweep) -> Steered:
    drain = Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: True)
    return Steered(drain, sweep)


def test_a_control_request_that_nothing_confirmed_in_time_is_ignored(steered: Steered, nudges: list[str]) -> None:
    steered.ask(expires_in=-0.01)
    steered.sweep.expire()
    assert nudges == ["drain"]
    empty(steered.drain)
    assert steered.state() == "ignored"
    steered.sweep.expire()
    assert [shard.waiting for shard in steered.drain.inbox.backlog()] == [0, 0, 0, 0]


def test_a_control_request_is_given_its_time(steered: Steered, nudges: list[str]) -> None:
    steered.ask(expires_in=60)
    steered.sweep.expire()
    empty(steered.drain)
    assert nudges == []
    assert steered.state() == "accepted"


def test_two_sweeps_at_once_write_the_same_record(steered: Steered) -> None:
    steered.ask(expires_in=-0.01)
    inbox = steered.drain.inbox
    for _ in range(2):
        Sweep(inbox, steered.drain.snapshots, lambda: None, steered.drain).expire()
    empty(steered.drain)
    assert len(steered.drain.snapshots.events(ROOM, 0, 10)) == 3


def test_a_sweep_does_not_fill_the_inbox_while_draining_lags(steered: Steered) -> None:
    steered.ask(expires_in=-0.01)
    for _ in range(20):
        steered.sweep.expire()
    assert sum(shard.waiting for shard in steered.drain.inbox.backlog()) == 1


def test_what_a_callback_confirms_is_not_waited_for_any_longer(steered: Steered) -> None:
    steered.ask(expires_in=-0.01)
    inbox = steered.drain.inbox
    told = callback(said("participant-mute", ANNA, number=2, second=1))
    inbox.append(inbox.shard_of(ROOM), told)
    empty(steered.drain)
    assert steered.state() == "confirmed"
    assert steered.drain.snapshots.expired(now_ms() + 100_000, 10) == []
