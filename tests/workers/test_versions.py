"""Workers of two releases side by side: the newer writes, the older stands back while the newer lives."""

from __future__ import annotations

import threading

import pytest
from redis import Redis

from app import fold
from app.store import keys
from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from tests.cast import ANNA, BEN, callback, said
from tests.conftest import SHARDS
from tests.workers.post import empty, kept, post, told_of, written
from workers.drain import Drain
from workers.sweep import Sweep

ROOM = "CF" + "b" * 32
START = callback(said("conference-start", number=1, second=0))
ANNA_JOINS = callback(said("participant-join", ANNA, number=2, second=1))
BEN_JOINS = callback(said("participant-join", BEN, number=3, second=2))
ANNA_LEAVES = callback(said("participant-leave", ANNA, number=4, second=3))


def version_of(redis: Redis, inbox: Inbox) -> int:
    """The fold that wrote the room's document."""
    return int(str(redis.hget(keys.conference(inbox.shard_of(ROOM), ROOM), "fold"), "ascii"))  # type: ignore[arg-type]


def announced(drain: Drain) -> None:
    """Sweep once."""
    stop = threading.Event()
    stop.set()
    Sweep(drain.inbox, drain.snapshots, lambda: None, drain).run(stop)


def test_no_older_worker_writes_while_a_newer_one_lives(
    redis: Redis, drain: Drain, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = drain.inbox
    post(inbox, START)
    empty(drain)
    with monkeypatch.context() as newer:
        newer.setattr(fold, "VERSION", fold.VERSION + 1)
        announced(drain)
        post(inbox, ANNA_JOINS)
        empty(drain)
    upgraded = version_of(redis, inbox)
    assert upgraded == fold.VERSION + 1

    announced(drain)
    post(inbox, BEN_JOINS)
    drain.drain(range(SHARDS))
    assert version_of(redis, inbox) == upgraded
    assert inbox.backlog()[inbox.shard_of(ROOM)].waiting == 1, "it is left to the newer one"
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [START, ANNA_JOINS]))

    with monkeypatch.context() as newer:
        newer.setattr(fold, "VERSION", upgraded)
        empty(drain)
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [START, ANNA_JOINS, BEN_JOINS]))


def test_after_a_roll_back_the_older_worker_goes_on_from_the_log(
    redis: Redis, drain: Drain, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = drain.inbox
    with monkeypatch.context() as newer:
        newer.setattr(fold, "VERSION", fold.VERSION + 1)
        announced(drain)
        post(inbox, START, ANNA_JOINS)
        empty(drain)
    post(inbox, ANNA_LEAVES)
    drain.drain(range(SHARDS))
    assert inbox.backlog()[inbox.shard_of(ROOM)].waiting == 1
    redis.delete(*(keys.newest(shard) for shard in range(SHARDS)))  # nobody says any longer that it lives
    empty(drain)
    assert version_of(redis, inbox) == fold.VERSION
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [START, ANNA_JOINS, ANNA_LEAVES]))
    assert snapshots.letters_left() == 0
