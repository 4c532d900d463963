"""What a fold costs, and that it does not grow. Counts, not times: the same on every machine, so they can be held.

Whoever makes something cheaper may lower a bound; whoever has to raise one says why in the commit. Calls are those of
Python 3.11 with the locked packages, and a tenth more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from redis import Redis

from app.events import Callback
from tests.cast import ANNA, BEN, callback, progress, said
from tests.conftest import SHARDS
from tests.costs import Cost, Tally
from tests.workers.post import empty, post
from workers.drain import Drain

ROOM = "CF" + "b" * 32
TURNS = ("participant-mute", "participant-unmute", "participant-speech-start", "participant-speech-stop")


@pytest.fixture
def tally(redis: Redis, round_trips: list[int]) -> Tally:
    """Of this process and its Redis."""
    return Tally(redis, round_trips)


def turn(number: int, call: str = ANNA, room: str = ROOM) -> Callback:
    """Somebody mutes, unmutes, begins to speak or falls silent, in turn."""
    return callback(said(TURNS[number % 4], call, number=number, second=number, room=room))


def heard(drain: Drain, events: int, people: int = 2) -> None:
    """Have the room hear so many callbacks, the first of them joins."""
    calls = [ANNA, BEN, *(f"CA{n:032x}" for n in range(people - 2))]
    joins = [callback(said("participant-join", call, number=n, second=n)) for n, call in enumerate(calls, start=1)]
    post(drain.inbox, *joins, *(turn(n, calls[n % 2]) for n in range(people + 1, events + 1)))
    empty(drain)


def folding(drain: Drain, tally: Tally, *callbacks: Callback) -> Cost:
    """What a drain costs that folds these at once. What they lead to in other shards is not in it."""
    post(drain.inbox, *callbacks)
    waiting = [shard for shard, standing in enumerate(drain.inbox.backlog()) if standing.waiting]
    return tally.of(lambda: drain.drain(waiting))


def test_one_callback_is_three_round_trips(drain: Drain, tally: Tally) -> None:
    """Claim, look, commit."""
    heard(drain, 10)
    assert folding(drain, tally, turn(11)).trips == 3


def test_any_number_of_callbacks_in_all_shards_is_three_round_trips(drain: Drain, tally: Tally) -> None:
    rooms = [f"CF{n:032x}" for n in range(40)]
    assert {drain.inbox.shard_of(room) for room in rooms} == set(range(SHARDS))
    post(drain.inbox, *(callback(said("participant-join", ANNA, number=1, second=1, room=room)) for room in rooms))
    empty(drain)
    assert folding(drain, tally, *(turn(n, room=room) for room in rooms for n in range(2, 8))).trips == 3


counted = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other Pythons count their calls otherwise")


@counted
def test_one_callback_costs_no_more_than_it_did(drain: Drain, tally: Tally) -> None:
    heard(drain, 10)
    cost = folding(drain, tally, turn(11))
    assert cost.calls <= 1_450
    assert cost.commands <= 25
    assert cost.received <= 6_100


@counted
def test_a_hundred_callbacks_at_once_cost_no_more_than_they_did(drain: Drain, tally: Tally) -> None:
    heard(drain, 10)
    cost = folding(drain, tally, *(turn(n, (ANNA, BEN)[n % 2]) for n in range(11, 111)))
    assert cost.calls / 100 <= 275
    assert cost.commands <= 29
    assert cost.received / 100 <= 225


def nearly(one: Cost, other: Cost, allowed: float = 1.1) -> None:
    """Assert that the second costs hardly more than the first."""
    assert other.trips <= one.trips
    assert other.calls <= one.calls * allowed
    assert other.commands <= one.commands + 2
    assert other.received <= one.received * allowed + 200
    assert other.sent <= one.sent * allowed + 500


def after_few_and_many(drain: Drain, tally: Tally, work: Callable[[int], Callback]) -> tuple[Cost, Cost]:
    """What it costs to fold the callback that `work` makes for a number, behind 100 and behind 5,000 callbacks."""
    heard(drain, 100)
    few = folding(drain, tally, work(101))
    empty(drain)
    post(drain.inbox, *(turn(n, (ANNA, BEN)[n % 2]) for n in range(103, 5_001)))
    empty(drain)
    return few, folding(drain, tally, work(5_001))


def test_the_five_thousandth_callback_of_a_conference_costs_what_the_hundredth_did(drain: Drain, tally: Tally) -> None:
    nearly(*after_few_and_many(drain, tally, turn))


def test_call_progress_costs_the_same_in_a_long_conference(drain: Drain, tally: Tally) -> None:
    """The ids of all that was heard are looked through for it, in one search."""
    for some in ([callback(said("participant-join", ANNA, number=1, second=1))], [turn(n) for n in range(2, 20)]):
        post(drain.inbox, *some)
        empty(drain)

    def folded(number: int) -> Cost:
        post(drain.inbox, callback(progress(ANNA, "in-progress", number=number, second=number)))
        drain.drain([drain.inbox.shard_of(ANNA)])
        return tally.of(lambda: drain.drain([drain.inbox.shard_of(ROOM)]))

    folded(1)
    few = folded(2)
    post(drain.inbox, *(turn(n) for n in range(20, 3_000)))
    empty(drain)
    nearly(few, folded(3))


def test_a_callback_that_is_a_little_late_costs_little_more_than_one_in_order(drain: Drain, tally: Tally) -> None:
    heard(drain, 2_000)
    in_order = folding(drain, tally, turn(2_001))
    post(drain.inbox, turn(2_003))
    empty(drain)
    nearly(in_order, folding(drain, tally, turn(2_002)), allowed=1.5)


def test_a_repeat_is_known_without_reading_the_log(drain: Drain, tally: Tally) -> None:
    heard(drain, 2_000)
    in_order = folding(drain, tally, turn(2_001))
    repeat = folding(drain, tally, turn(40))
    assert repeat.calls <= in_order.calls
    assert repeat.trips <= in_order.trips + 1


def test_a_leave_after_the_end_costs_little_more_than_one_before_it(drain: Drain, tally: Tally) -> None:
    heard(drain, 1_000)
    before = folding(drain, tally, callback(said("participant-leave", BEN, number=1_001, second=1_001)))
    post(drain.inbox, callback(said("conference-end", number=1_003, second=1_003)))
    empty(drain)
    late = folding(drain, tally, callback(said("participant-leave", ANNA, number=1_002, second=1_002)))
    nearly(before, late, allowed=1.5)


def test_in_a_town_hall_a_callback_costs_what_it_does_in_a_small_room(drain: Drain, tally: Tally) -> None:
    heard(drain, 10)
    small = folding(drain, tally, turn(11))
    crowd = [f"CA{n:032x}" for n in range(1_000)]
    post(drain.inbox, *(callback(said("participant-join", c, number=12 + n, second=n)) for n, c in enumerate(crowd)))
    post(
        drain.inbox, *(callback(said("participant-leave", c, number=1_012 + n, second=n)) for n, c in enumerate(crowd))
    )
    empty(drain)
    nearly(small, folding(drain, tally, turn(2_013)))
