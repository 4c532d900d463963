"""Callbacks that come while Redis is being asked share the next round trip, and each learns what became of it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, RedisError
from redis.exceptions import ConnectionError as Unconnected
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as TimedOut
from structlog.testing import capture_logs

from app.events import Callback
from app.store import keys
from app.store.connect import WrongLayout
from app.store.inbox import Full, Inbox, Posted
from app.store.spool import Spool, Spooled
from app.web.intake import LARGEST_LOAD, LEFT_ALONE, WORTH_ANOTHER, Intake
from tests.cast import ANNA, callback, said
from tests.conftest import SHARDS

HOMES = [f"CF{n:032x}" for n in range(300)]
Outcomes = list[bool | RedisError]


def numbered(number: int) -> Callback:
    return callback(said("participant-modify", ANNA, number=number, second=number))


class Slow(Inbox):
    """Inboxes whose first append waits until it is let go, and that answer as they are told."""

    def __init__(self, answer: Callable[[Sequence[Posted]], Outcomes]) -> None:
        self.shards = SHARDS
        self.answer = answer
        self.loads: list[list[Posted]] = []
        self.under_way, self.go_on = threading.Event(), threading.Event()

    def append_all(self, mail: Sequence[Posted]) -> Outcomes:
        self.loads.append(list(mail))
        self.under_way.set()
        assert self.go_on.wait(10)
        return self.answer(mail)


def stored(mail: Sequence[Posted]) -> Outcomes:
    return [False] * len(mail)


def together(inbox: Slow, intake: Intake, many: int) -> list[BaseException | None]:
    """Store one, and while it is under way so many more. What each raised."""
    with ThreadPoolExecutor(many + 1) as threads:
        futures: list[Future[Any]] = [threads.submit(intake.store, HOMES[0], numbered(0))]
        assert inbox.under_way.wait(10)
        futures += [threads.submit(intake.store, HOMES[n], numbered(n)) for n in range(1, many + 1)]
        while sum(map(len, inbox.loads)) + len(intake._queue) <= many:
            time.sleep(0.001)  # they are on their way, and nothing says when they have come
        inbox.go_on.set()
        return [future.exception(10) for future in futures]


def test_those_that_wait_go_together_in_their_order_and_nobody_goes_twice() -> None:
    inbox = Slow(stored)
    intake = Intake(inbox, nudge=lambda: None, prepare=lambda: None)
    assert together(inbox, intake, WORTH_ANOTHER - 1) == [None] * WORTH_ANOTHER
    assert [len(load) for load in inbox.loads] == [1, WORTH_ANOTHER - 1]
    told = [each for load in inbox.loads for each in load]
    assert sorted(told, key=repr) == sorted(
        (Posted(inbox.shard_of(HOMES[n]), numbered(n)) for n in range(WORTH_ANOTHER)), key=repr
    )


def test_many_that_wait_do_not_wait_for_the_first_answer() -> None:
    inbox = Slow(stored)
    assert together(inbox, Intake(inbox, lambda: None, lambda: None), 2 * WORTH_ANOTHER + 1) == [None] * (
        2 * WORTH_ANOTHER + 2
    )
    assert [len(load) for load in inbox.loads] == [1, WORTH_ANOTHER, WORTH_ANOTHER + 1], "two at once, and no more"


def test_more_than_fit_into_one_round_trip_take_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.intake.LARGEST_LOAD", 4)
    monkeypatch.setattr("app.web.intake.AT_ONCE", 1)
    inbox = Slow(stored)
    assert together(inbox, Intake(inbox, lambda: None, lambda: None), 9) == [None] * 10
    assert [len(load) for load in inbox.loads] == [1, 4, 4, 1]
    assert LARGEST_LOAD >= 100


def test_what_fails_in_one_shard_is_told_to_its_own_and_to_no_others() -> None:
    broken = Unconnected("of one shard")

    def answer(mail: Sequence[Posted]) -> Outcomes:
        return [broken if posted.shard == 2 else False for posted in mail]

    inbox = Slow(answer)
    raised = together(inbox, Intake(inbox, lambda: None, lambda: None), 20)
    homes = [inbox.shard_of(home) for home in HOMES[:21]]
    assert {2, 0} < set(homes)
    assert raised == [broken if shard == 2 else None for shard in homes]


def test_what_fails_for_all_is_told_to_all_and_the_next_are_sent() -> None:
    def answer(mail: Sequence[Posted]) -> Outcomes:
        if len(mail) == 1:
            raise Unconnected("away")
        return stored(mail)

    inbox = Slow(answer)
    first, *others = together(inbox, Intake(inbox, lambda: None, lambda: None), 5)
    assert isinstance(first, Unconnected)
    assert others == [None] * 5


def test_a_wake_up_is_asked_for_once_for_all_and_may_fail() -> None:
    nudges: list[int] = []

    def nudge() -> None:
        nudges.append(1)
        raise Unconnected("the queue is away")

    inbox = Slow(lambda mail: [True] * len(mail))
    assert together(inbox, Intake(inbox, nudge, lambda: None), 20) == [None] * 21
    assert len(nudges) == len(inbox.loads) < 21


@pytest.mark.parametrize("killed", [0, 1], ids=["who sends", "who waits"])
def test_a_request_that_is_killed_leaves_nobody_waiting(killed: int) -> None:
    """Greenlets can be killed. In a process of its own: they change everything that waits."""
    answer = subprocess.run([sys.executable, "-c", KILLED, str(killed)], capture_output=True, text=True, timeout=60)
    assert answer.stdout.split() == [str(number) for number in range(5) if number != killed], answer.stderr


KILLED = """
import sys
from gevent import monkey; monkey.patch_all()
import gevent
from app.web.intake import Intake

class Slow:
    def shard_of(self, home): return 0
    def append_all(self, mail):
        gevent.sleep(0.05)
        return [False] * len(mail)

intake = Intake(Slow(), lambda: None, lambda: None)
stored = set()

def store(number):
    try:
        intake.store("home", None)
    except Exception as error:
        print("failed", type(error).__name__, file=sys.stderr)
        intake.store("home", None)
    stored.add(number)

requests = [gevent.spawn(store, number) for number in range(4)]
gevent.sleep(0.01)
requests[int(sys.argv[1])].kill(block=False)
requests.append(gevent.spawn(store, 4))
gevent.joinall(requests, timeout=10)
print(*sorted(stored))
"""


def test_threads_that_come_and_go_at_any_moment_are_all_answered() -> None:
    inbox = Slow(stored)
    inbox.go_on.set()
    intake = Intake(inbox, lambda: None, lambda: None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as threads:
            futures = [threads.submit(intake.store, HOMES[n % 300], numbered(1)) for n in range(5_000)]
            assert all(future.exception(60) is None for future in futures)
    finally:
        sys.setswitchinterval(before)
    assert sum(map(len, inbox.loads)) == 5_000


def test_where_callbacks_may_not_be_stored_nothing_is_sent() -> None:
    def prepare() -> None:
        raise Unconnected("away")

    inbox = Slow(stored)
    with pytest.raises(Unconnected):
        Intake(inbox, lambda: None, prepare).store(HOMES[0], numbered(0))
    assert inbox.loads == []


def test_real_inboxes_take_all_that_many_threads_bring(inbox: Inbox) -> None:
    intake = Intake(inbox, lambda: None, lambda: None)
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: intake.store(HOMES[n], numbered(n)), range(300)))
    claimed = inbox.claim(range(SHARDS), 1_000, version=1).batches
    assert sorted(each.callback.body for batch in claimed for each in batch.entries) == sorted(  # type: ignore[union-attr]
        numbered(n).body for n in range(300)
    )


# The spool.


def away() -> RedisError:
    return Unconnected("away")


class Taking(Slow):
    """Inboxes that answer at once."""

    def __init__(self, answer: Callable[[Sequence[Posted]], Outcomes]) -> None:
        super().__init__(answer)
        self.go_on.set()

    def probe(self, word: str) -> None:
        self.answer([])


def unreachable(_: Sequence[Posted]) -> Outcomes:
    raise away()


def spooled(spool: Spool) -> list[Callback]:
    had: list[Callback] = []

    def send(mail: Sequence[Spooled]) -> list[bool]:
        had.extend(each.callback for each in mail)
        return [True] * len(mail)

    spool.empty(send)
    return had


@pytest.mark.parametrize(
    "answer",
    [
        unreachable,
        lambda mail: [away()] * len(mail),
        lambda mail: [OutOfMemoryError("full")] * len(mail),
        lambda mail: [ReadOnlyError("a replica")] * len(mail),
        lambda mail: [Full("much waits")] * len(mail),
    ],
    ids=["no answer", "unconnected", "out of memory", "read only", "no room"],
)
def test_what_redis_does_not_take_is_spooled(tmp_path: Path, answer: Callable[[Sequence[Posted]], Outcomes]) -> None:
    spool = Spool(tmp_path)
    Intake(Taking(answer), lambda: None, lambda: None, spool).store(HOMES[0], numbered(7))
    assert spooled(spool) == [numbered(7)]


def test_a_layout_that_is_not_ours_is_no_reason_to_lose_anything(tmp_path: Path) -> None:
    def prepare() -> None:
        raise WrongLayout("of another build")

    spool = Spool(tmp_path)
    Intake(Taking(stored), lambda: None, prepare, spool).store(HOMES[0], numbered(7))
    assert spooled(spool) == [numbered(7)]


def test_what_some_shards_take_is_not_spooled(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    inbox = Slow(lambda mail: [away() if posted.shard == 2 else False for posted in mail])
    assert together(inbox, Intake(inbox, lambda: None, lambda: None, spool), 20) == [None] * 21
    expected = [numbered(n) for n in range(21) if inbox.shard_of(HOMES[n]) == 2]
    assert sorted(each.body for each in spooled(spool)) == sorted(each.body for each in expected)


def test_of_many_that_one_request_brings_the_spool_takes_what_redis_does_not(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    inbox = Taking(lambda mail: [away() if posted.shard == 2 else False for posted in mail])
    mail = [Spooled(HOMES[n], numbered(n)) for n in range(40)]
    Intake(inbox, lambda: None, lambda: None, spool).store_all(mail)
    expected = [each.callback for each in mail if inbox.shard_of(each.home) == 2]
    assert 0 < len(expected) < 40
    assert (len(inbox.loads), spooled(spool)) == (1, expected)


def test_a_request_that_brings_many_fails_with_one_of_them_and_the_others_beside_it_do_not() -> None:
    inbox = Slow(lambda mail: [Full("much waits") if posted.shard == 2 else False for posted in mail])
    intake = Intake(inbox, lambda: None, lambda: None)
    fine = [Spooled(home, numbered(1)) for home in HOMES if inbox.shard_of(home) != 2]
    full = next(Spooled(home, numbered(1)) for home in HOMES if inbox.shard_of(home) == 2)
    with ThreadPoolExecutor(4) as threads:
        futures: list[Future[None]] = [threads.submit(intake.store_all, fine[:3])]
        assert inbox.under_way.wait(10)
        futures += [threads.submit(intake.store_all, mail) for mail in (fine[3:90], [*fine[:150], full], fine[90:99])]
        inbox.go_on.set()
        assert sorted(str(future.exception(10)) for future in futures) == ["None", "None", "None", "much waits"]


def test_speech_that_there_is_no_room_for_is_refused_and_not_spooled(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    intake = Intake(Taking(lambda mail: [Full("much waits")] * len(mail)), lambda: None, lambda: None, spool)
    with pytest.raises(Full):
        intake.store(HOMES[0], numbered(1), speech=True)
    assert not spool.waiting()


def test_speech_is_spooled_where_redis_is_away(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    Intake(Taking(unreachable), lambda: None, lambda: None, spool).store(HOMES[0], numbered(1), speech=True)
    assert spooled(spool) == [numbered(1)]


def test_with_no_room_in_the_spool_either_it_is_refused(tmp_path: Path) -> None:
    intake = Intake(Taking(unreachable), lambda: None, lambda: None, Spool(tmp_path, limit=10))
    with pytest.raises(Unconnected):
        intake.store(HOMES[0], numbered(1))


def test_a_disk_that_fails_is_said_and_acknowledges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.store.spool.os.write", full)
    intake = Intake(Taking(unreachable), lambda: None, lambda: None, Spool(tmp_path))
    with capture_logs() as lines, pytest.raises(Unconnected):
        intake.store(HOMES[0], numbered(1))
    assert [line["error"] for line in lines if line["event"] == "not spooled"] == ["No space left on device"]


def test_a_redis_that_hangs_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("app.web.intake.time.monotonic", lambda: now[0])

    def hangs(_: Sequence[Posted]) -> Outcomes:
        now[0] += 1.0
        raise TimedOut("no answer")

    inbox, spool = Taking(hangs), Spool(tmp_path)
    intake = Intake(inbox, lambda: None, lambda: None, spool)
    for number in range(5):
        intake.store(HOMES[0], numbered(number))
    assert len(inbox.loads) == 1
    now[0] += LEFT_ALONE
    inbox.answer = stored
    intake.store(HOMES[0], numbered(9))
    assert len(inbox.loads) == 2
    assert spooled(spool) == [numbered(number) for number in range(5)]


def test_once_redis_is_back_everything_is_in_its_inbox_and_somebody_is_woken(inbox: Inbox, tmp_path: Path) -> None:
    spool, woken = Spool(tmp_path), []
    intake = Intake(Taking(unreachable), lambda: woken.append(1), lambda: None, spool)
    for number in range(300):
        intake.store(HOMES[number], numbered(number))
    intake.empty_spool()
    assert spool.trouble == "ConnectionError"
    intake.inbox = inbox
    intake.empty_spool()
    assert spool.trouble == ""
    claimed = inbox.claim(range(SHARDS), 1_000, version=1).batches
    assert sum(len(batch.entries) for batch in claimed) == 300
    assert {inbox.shard_of(HOMES[0]), inbox.shard_of(HOMES[1])} <= {batch.shard for batch in claimed}
    assert (woken, spool.waiting()) == ([1], False)
    intake.empty_spool()
    assert woken == [1]


def test_what_does_not_fit_yet_stays_in_the_spool(redis: Redis, tmp_path: Path) -> None:
    small, spool = Inbox(redis, SHARDS, room=SHARDS), Spool(tmp_path)
    intake = Intake(small, lambda: None, lambda: None, spool)
    for number in range(3):
        intake.store(HOMES[0], numbered(number))
    for _ in range(3):
        intake.empty_spool()
    assert spool.waiting()
    assert small.backlog()[small.shard_of(HOMES[0])].waiting == 1
    redis.delete(keys.inbox(small.shard_of(HOMES[0])))
    intake.empty_spool()
    assert not spool.waiting()


def test_nobody_waits_twice_for_a_redis_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("app.web.intake.time.monotonic", lambda: now[0])

    def hangs(_: Sequence[Posted]) -> Outcomes:
        raise TimedOut("no answer")

    inbox = Slow(hangs)
    intake = Intake(inbox, lambda: None, lambda: None)
    with ThreadPoolExecutor(3 * WORTH_ANOTHER) as threads:
        futures = [threads.submit(intake.store, HOMES[0], numbered(0))]
        assert inbox.under_way.wait(10)
        now[0] += 0.9
        futures += [threads.submit(intake.store, HOMES[0], numbered(n)) for n in range(1, 2 * WORTH_ANOTHER)]
        while len(intake._queue) < 2 * WORTH_ANOTHER - 1:
            time.sleep(0.001)  # they are on their way, and nothing says when they have come
        inbox.go_on.set()
        assert all(isinstance(future.exception(10), TimedOut) for future in futures)
    assert len(inbox.loads) == 1, "who came meanwhile has not been sent after it"
