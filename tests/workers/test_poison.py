"""A callback that raises, or kills who is at it, costs itself: it is set aside and its conference says so."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from app import fold
from app.events import Callback, Event
from app.failpoints import arm, parse
from app.store import keys
from app.store.inbox import TOGETHER, Inbox
from app.store.snapshots import Snapshots
from app.twilio.callbacks import read
from tests.cast import ANNA, BEN, CLEO, callback, said
from tests.conftest import SHARDS
from tests.workers.post import empty, kept, post, told_of, written
from workers import watch as watching
from workers.drain import BEGUN_ALONE, CODE, Drain

ROOM, OTHER = "CF" + "b" * 32, "CF" + "0" * 31 + "1"
START = callback(said("conference-start", number=1, second=0))
ANNA_JOINS = callback(said("participant-join", ANNA, number=2, second=1))
POISON = callback(said("participant-mute", ANNA, number=3, second=2, ParticipantLabel="poison"))
BEN_JOINS = callback(said("participant-join", BEN, number=4, second=3))
ALL = [START, ANNA_JOINS, POISON, BEN_JOINS]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm([])


def send_again(drain: Drain) -> None:
    for shard, letter_id, letter in drain.snapshots.letters():
        assert drain.inbox.send_again(shard, letter_id, letter.callback)
    empty(drain)


@pytest.mark.parametrize("where", ["before_read", "before_fold"])
def test_a_callback_that_raises_is_set_aside_by_itself_and_its_conference_says_so(
    drain: Drain, snapshots: Snapshots, where: str
) -> None:
    arm(parse(f"{where}~poison=raise"))
    post(drain.inbox, *ALL, callback(said("participant-join", CLEO, number=1, second=0, room=OTHER)))
    empty(drain)
    [letter] = snapshots.dead_letters(10)
    assert letter.callback == POISON
    assert letter.reason == f"{'reading' if where == 'before_read' else 'fold'} failed: Injected"
    assert letter.by == CODE
    assert f"fold {fold.VERSION}" in letter.by
    assert letter.set_aside_at > 0
    conference = kept(snapshots, ROOM)
    assert conference.header.set_aside == (read(POISON).id,)
    assert written(conference) == written(told_of(ROOM, [START, ANNA_JOINS, BEN_JOINS]))
    assert kept(snapshots, OTHER).header.set_aside == ()


def test_once_it_is_mended_the_state_is_as_if_it_had_never_failed(drain: Drain, snapshots: Snapshots) -> None:
    arm(parse("before_fold~poison=raise"))
    post(drain.inbox, *ALL)
    empty(drain)
    arm([])
    send_again(drain)
    assert snapshots.letters_left() == 0
    assert kept(snapshots, ROOM).header.set_aside == ()
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, ALL))


def test_what_is_not_mended_is_set_aside_once_more_and_marked_once(drain: Drain, snapshots: Snapshots) -> None:
    arm(parse("before_fold~poison=raise"))
    post(drain.inbox, *ALL)
    empty(drain)
    send_again(drain)
    assert snapshots.letters_left() == 1
    assert kept(snapshots, ROOM).header.set_aside == (read(POISON).id,)


def test_the_mark_goes_when_the_callback_comes_by_another_way(drain: Drain, snapshots: Snapshots) -> None:
    arm(parse("before_fold~poison=raise"))
    post(drain.inbox, *ALL)
    empty(drain)
    arm([])
    post(drain.inbox, POISON)  # Twilio's own repeat
    empty(drain)
    assert kept(snapshots, ROOM).header.set_aside == ()
    revision = kept(snapshots, ROOM).header.revision
    send_again(drain)
    assert (snapshots.letters_left(), kept(snapshots, ROOM).header.revision) == (0, revision)


def test_a_mark_alone_is_a_change_that_subscribers_hear_of(drain: Drain, snapshots: Snapshots) -> None:
    post(drain.inbox, START, ANNA_JOINS)
    empty(drain)
    before = kept(snapshots, ROOM)
    arm(parse("before_fold~poison=raise"))
    post(drain.inbox, POISON)
    empty(drain)
    after = kept(snapshots, ROOM)
    assert (after.header.revision, after.participants) == (before.header.revision + 1, before.participants)
    assert after.header.set_aside == (read(POISON).id,)


def test_another_account_cannot_mark_a_conference(drain: Drain, snapshots: Snapshots) -> None:
    post(drain.inbox, START)
    empty(drain)
    stranger = callback(said("participant-mute", ANNA, number=3, second=2, AccountSid="AC" + "9" * 32))
    garbled = callback(said("participant-mute", "no sid", number=4, second=2, AccountSid="AC" + "9" * 32))
    post(drain.inbox, stranger, garbled)
    empty(drain)
    assert snapshots.letters_left() == 2
    assert kept(snapshots, ROOM).header.set_aside == ()


def test_two_that_fail_only_together_are_both_set_aside(
    drain: Drain, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(drain.inbox, START)
    empty(drain)
    advance: Any = fold.advance

    def failing(conference: Any, events: list[Event], *more: Any) -> Any:
        if {2, 4} <= {event.sequence for event in events}:
            raise ZeroDivisionError
        return advance(conference, events, *more)

    monkeypatch.setattr(fold, "advance", failing)
    post(drain.inbox, ANNA_JOINS, POISON, BEN_JOINS)
    empty(drain)
    assert snapshots.letters_left() in (2, 3)
    assert kept(snapshots, ROOM).header.coverage.sequences[0][0] == 1


# What kills.


class Killed(BaseException):
    """As SIGKILL: nothing more is done."""


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have whoever reads the poison die of it, until it is undone."""
    from workers import drain as draining

    def reading(told: Callback) -> Event:
        if b"poison" in told.body:
            raise Killed
        return read(told)

    monkeypatch.setattr(draining, "read", reading)
    return lambda: monkeypatch.setattr(draining, "read", read)


def worked(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> tuple[Drain, int]:
    """Have worker after worker at the mail until none waits: the last of them, and how many have died."""
    for deaths in range(30):
        drain = Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: False)
        try:
            while any(shard.waiting for shard in inbox.backlog()):
                drain.drain(range(SHARDS))
        except Killed:
            redis.delete(*(keys.lease(shard) for shard in range(SHARDS)))  # they run out
        else:
            return drain, deaths
    raise AssertionError("thirty workers have died of it")


def test_a_callback_that_kills_its_workers_is_set_aside_and_costs_nobody_else(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, deadly: Callable[[], None]
) -> None:
    others = [
        callback(said("participant-join", CLEO, number=n, second=n, room=f"CF{room:032x}"))
        for room in range(20)
        for n in range(1, 4)
    ]
    post(inbox, *others[:30], *ALL, *others[30:])
    drain, deaths = worked(redis, inbox, snapshots)
    assert deaths == TOGETHER + BEGUN_ALONE
    [letter] = snapshots.dead_letters(10)
    assert letter.callback == POISON
    assert letter.reason == f"begun by itself {BEGUN_ALONE} times, and never finished"
    assert kept(snapshots, ROOM).header.set_aside == (read(POISON).id,)
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, [START, ANNA_JOINS, BEN_JOINS]))
    assert snapshots.counters()["folded"] == 63
    deadly()
    send_again(drain)
    assert written(kept(snapshots, ROOM)) == written(told_of(ROOM, ALL))
    assert kept(snapshots, ROOM).header.set_aside == ()


def test_five_that_kill_among_many_are_set_aside_and_only_they(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, deadly: Callable[[], None]
) -> None:
    told = [
        callback(
            said("participant-modify", ANNA, number=n, second=n, ParticipantLabel="poison" if n % 40 == 39 else "anna")
        )
        for n in range(200)
    ]
    post(inbox, *told)
    _, deaths = worked(redis, inbox, snapshots)
    assert snapshots.letters_left() == 5
    assert snapshots.counters()["folded"] == 195
    assert deaths == TOGETHER + 5 * BEGUN_ALONE, "one batch is tried as a whole no more often than it must"


def test_without_room_for_one_more_byte_attempts_are_counted_all_the_same(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, deadly: Callable[[], None]
) -> None:
    post(inbox, *ALL)
    redis.config_set("maxmemory", "1")
    try:
        worked(redis, inbox, snapshots)
        assert snapshots.letters_left() == 1
    finally:
        redis.config_set("maxmemory", "0")


# What never ends.


def test_a_worker_that_gets_stuck_is_ended_with_its_traceback_and_one_that_works_is_not() -> None:
    root = Path(__file__).parent.parent.parent
    stuck = subprocess.run([sys.executable, "-c", STUCK], cwd=root, capture_output=True, text=True, timeout=60)
    assert stuck.returncode == 1
    assert stuck.stdout == "well\nstuck\n"
    assert "in spin" in stuck.stderr


STUCK = """
import threading, time
from types import SimpleNamespace
from workers import watch
watch.STUCK_AFTER, watch.EVERY = 0.6, 0.05
drain = SimpleNamespace(at_work=None)
drains = [SimpleNamespace(at_work=None), drain]
threading.Thread(target=watch.watch, args=[drains, threading.Event()], daemon=True).start()
for _ in range(30):
    drain.at_work = time.monotonic()
    time.sleep(0.05)
drain.at_work = None
time.sleep(1)
print("well", flush=True)

def spin():
    drain.at_work = time.monotonic()
    print("stuck", flush=True)
    while True:
        pass

spin()
"""


def test_the_watch_ends_with_the_worker() -> None:
    stop = threading.Event()
    watcher = threading.Thread(target=watching.watch, args=[[], stop])
    watcher.start()
    stop.set()
    watcher.join(10)
    assert not watcher.is_alive()


def test_a_drain_says_when_it_is_at_work(drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float | None] = []
    commit = drain.snapshots.commit

    def watched(*more: Any) -> Any:
        seen.append(drain.at_work)
        return commit(*more)

    monkeypatch.setattr(drain.snapshots, "commit", watched)
    post(drain.inbox, *ALL)
    empty(drain)
    assert seen[0] is not None
    assert seen[0] <= time.monotonic()
    assert drain.at_work is None
