"""The sweep finds mail that nobody comes for, whatever became of its wake-up, and does not cry without cause."""

from __future__ import annotations

import threading

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as Unconnected

from app.store import keys
from app.store.inbox import Backlog, Inbox
from app.store.snapshots import Commit, Snapshots
from tests.cast import ANNA, callback, said
from workers import sweep as sweep_module
from workers.sweep import Sweep

JOINED = callback(said("participant-join", ANNA, number=2, second=1))


@pytest.fixture
def sweep(inbox: Inbox, nudges: list[str]) -> Sweep:
    return Sweep(inbox, lambda: nudges.append("drain"))


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
    assert inbox.claim(2, 10) is not None
    assert sweep.look() is False


def test_mail_in_many_shards_asks_for_one_drain(inbox: Inbox, sweep: Sweep, nudges: list[str]) -> None:
    for shard in range(4):
        inbox.append(shard, JOINED)
    sweep.look()
    sweep.look()
    assert nudges == ["drain"]


def test_mail_that_somebody_has_leased_is_left_to_them(inbox: Inbox, sweep: Sweep, nudges: list[str]) -> None:
    inbox.append(2, JOINED)
    assert inbox.claim(2, 10) is not None
    assert [sweep.look() for _ in range(3)] == [False, False, False]
    assert nudges == []


def test_mail_whose_drain_has_died_is_found_once_the_lease_is_over(
    redis: Redis, inbox: Inbox, sweep: Sweep, nudges: list[str]
) -> None:
    inbox.append(2, JOINED)
    assert inbox.claim(2, 10) is not None
    assert not sweep.look()
    redis.delete(keys.lease(2))
    assert sweep.look()
    assert nudges == ["drain"]


def test_mail_that_moves_on_is_left_alone(inbox: Inbox, snapshots: Snapshots, sweep: Sweep, nudges: list[str]) -> None:
    for _ in range(4):
        inbox.append(2, JOINED)
    for _ in range(3):
        assert sweep.look() is False
        batch = inbox.claim(2, 1)
        assert batch is not None
        snapshots.commit(batch, 1, Commit())
        inbox.release(batch)
    assert nudges == []


def test_mail_is_new_again_after_the_shard_has_been_empty(
    inbox: Inbox, snapshots: Snapshots, sweep: Sweep, nudges: list[str]
) -> None:
    for _ in range(3):
        inbox.append(2, JOINED)
        assert sweep.look() is False
        batch = inbox.claim(2, 10)
        assert batch is not None
        snapshots.commit(batch, 1, Commit())
        assert sweep.look() is False
    assert nudges == []


def test_a_look_takes_nothing_and_leases_nothing(redis: Redis, inbox: Inbox, sweep: Sweep) -> None:
    inbox.append(2, JOINED)
    before = {key: redis.dump(key) for key in redis.scan_iter()}
    sweep.look()
    sweep.look()
    assert {key: redis.dump(key) for key in redis.scan_iter()} == before


@pytest.mark.parametrize("failing", ["the store", "the queue"])
def test_a_sweep_goes_on_after_redis_has_been_away(inbox: Inbox, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    monkeypatch.setattr(sweep_module, "EVERY", 0.001)
    inbox.append(2, JOINED)
    stop, backlog = threading.Event(), inbox.backlog
    looks: list[str] = []

    def standing() -> list[Backlog]:
        looks.append("look")
        if failing == "the store" and len(looks) < 4:
            raise Unconnected("Connection refused")
        return backlog()

    def nudge() -> None:
        if failing == "the queue" and len(looks) < 4:
            raise Unconnected("Connection refused")
        stop.set()

    monkeypatch.setattr(inbox, "backlog", standing)
    sweep = Sweep(inbox, nudge)
    sweeping = threading.Thread(target=sweep.run, args=[stop], daemon=True)
    sweeping.start()
    sweeping.join(20)
    assert stop.is_set()
    assert not sweeping.is_alive()
    assert len(looks) >= 4


def test_a_sweep_ends_when_it_is_told_to(inbox: Inbox, nudges: list[str]) -> None:
    stop = threading.Event()
    stop.set()
    Sweep(inbox, lambda: nudges.append("drain")).run(stop)
    assert nudges == []
