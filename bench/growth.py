"""Whether the cost of a fold grows: with the number of conferences, with a conference's age, and with its people.

`python -m bench.growth URL FORM` folds in a process of its own and prints the numbers as JSON. URL is that of a Valkey
that `rooms.fill` has filled.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from statistics import median
from typing import NamedTuple

from bench import machine
from bench.load import Parameters
from bench.measures import expect
from bench.rooms import Room, opened
from bench.store import Cost, Store

PEOPLE = 4
"""In each conference that grows old."""
SCRATCH = 2
"""The database of the conferences that are made here; those before it hold the crowds."""
BATCH = 20
STORM = 50
"""Callbacks in a batch."""

chance = random.Random(2026)


class Form(NamedTuple):
    """How much is measured."""

    few: int
    many: int
    """Live conferences."""
    young: int
    old: int
    """Callbacks that a conference has had."""
    olds: int
    """How many old conferences there are."""
    present: int
    past: int
    """People in the large conference."""
    repeats: int
    """How often each case is measured, at most."""


FULL = Form(few=1_000, many=100_000, young=100, old=10_000, olds=5, present=250, past=5_000, repeats=200)
QUICK = Form(few=1_000, many=3_000, young=100, old=1_000, olds=5, present=50, past=300, repeats=20)


class Row(NamedTuple):
    """One question: what a callback costs in a small case, and in a large one."""

    title: str
    small: Cost
    large: Cost
    goal: float | None
    """At most so many times as much in the large case; None: nothing was promised."""


Case = Callable[[], Cost]
"""Folds some callbacks, each time others."""


def measure(url: str, form: Form) -> list[Row]:
    """Medians of each case, small and large in turn, folded on the measured core.

    `url` is that of a Valkey with `few` conferences in database 0 and `many` in database 1.
    """
    command = [*machine.PYTHON, "bench.growth", url, json.dumps(form)]
    rows = json.loads(machine.output(command, os.environ, machine.MEASURED))
    return [Row(title, Cost(*small), Cost(*large), goal) for title, small, large, goal in rows]


def _in_turn(title: str, cases: list[Case], times: int, goal: float | None) -> Row:
    """The small case and the large one, one after the other, so many times."""
    costs = [[case() for case in cases] for _ in range(times)]
    small, large = (_median(column) for column in zip(*costs, strict=True))
    return Row(title, small, large, goal)


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(median(cost.cpu for cost in costs), median(cost.wall for cost in costs))


# Many conferences.


class Crowd(NamedTuple):
    """Live conferences in a database of their own."""

    store: Store
    size: int
    told: dict[int, Room]
    """Those that something has been told of here, by number."""


def _among(url: str, form: Form) -> Iterator[Row]:
    """Callbacks about random conferences, all of one shard, each about another one."""
    crowds = [Crowd(Store(url, 0), form.few, {}), Crowd(Store(url, 1), form.many, {})]
    for size, times in ((1, form.repeats), (BATCH, form.repeats // 4)):
        cases: list[Case] = [partial(_somewhere, crowd, size) for crowd in crowds]
        yield _in_turn(f"among many conferences, {_batches(size)}", cases, times, 1.2)


def _somewhere(crowd: Crowd, size: int) -> Cost:
    shard_of = crowd.store.inbox.shard_of
    shard = shard_of(Room(chance.randrange(crowd.size)).sid)
    rooms: dict[int, Room] = {}
    while len(rooms) < size:
        number = chance.randrange(crowd.size)
        if shard_of(Room(number).sid) == shard:
            rooms[number] = crowd.told.setdefault(number, opened(number)[0])
    return crowd.store.cost([room.act(chance.randrange(2)) for room in rooms.values()])


# Old conferences.


class Aged(NamedTuple):
    """Conferences of the same age, and a callback that each has had long ago."""

    store: Store
    rooms: list[Room]
    first: dict[str, Parameters]


def _aged(store: Store, numbers: range, events: int) -> Aged:
    rooms, first = [], {}
    for number in numbers:
        room, told = opened(number, PEOPLE)
        told += [room.act(turn % PEOPLE) for turn in range(events - len(told))]
        store.fold(told)
        rooms.append(room)
        first[room.sid] = told[PEOPLE]
    return Aged(store, rooms, first)


def _growing(store: Store, form: Form) -> Iterator[Row]:
    """The same in young conferences and in old ones. There are more of the young, so that they stay young."""
    many = form.repeats // 5
    young = _aged(store, range(many), form.young)
    old = _aged(store, range(many, many + form.olds), form.old)
    few = form.repeats // 8
    for title, case, times in (
        ("in an old conference, a callback a batch", _next, form.repeats),
        (f"in an old conference, {_batches(BATCH)}", _several, few),
        ("a little late, behind its neighbour", _late, few),
        ("a repeat of an old callback", _repeated, few),
        ("call progress", _progress, few),
    ):
        cases: list[Case] = [partial(case, aged, cycle(_seats(aged))) for aged in (young, old)]
        yield _in_turn(title, cases, times, 1.5)
    ends: list[Case] = [partial(_after_the_end, aged, iter(_seats(aged))) for aged in (young, old)]
    yield _in_turn("a leave after the conference's end", ends, min(few, form.olds * PEOPLE), 1.5)


Seats = Iterator[tuple[Room, int]]
"""Where the next callback happens: a conference, and who of it."""


def _seats(aged: Aged) -> list[tuple[Room, int]]:
    return [(room, who) for who in range(PEOPLE) for room in aged.rooms]


def _next(aged: Aged, seats: Seats) -> Cost:
    room, who = next(seats)
    return aged.store.cost([room.act(who)])


def _several(aged: Aged, seats: Seats) -> Cost:
    room, _ = next(seats)
    return aged.store.cost([room.act(turn % PEOPLE) for turn in range(BATCH)])


def _late(aged: Aged, seats: Seats) -> Cost:
    room, who = next(seats)
    late, early = room.act(who), room.act(who)
    aged.store.fold([early])
    return aged.store.cost([late])


def _repeated(aged: Aged, seats: Seats) -> Cost:
    room, _ = next(seats)
    return aged.store.cost([aged.first[room.sid]])


def _progress(aged: Aged, seats: Seats) -> Cost:
    room, who = next(seats)
    return aged.store.cost([room.progress(who)], sent_on_to=[room.sid])


def _after_the_end(aged: Aged, seats: Seats) -> Cost:
    room, who = next(seats)
    if who == 0:
        aged.store.fold([room.end()])
    return aged.store.cost([room.leave(who)])


# A large conference.


def _crowded(store: Store, form: Form) -> Iterator[Row]:
    """The same in a conference of five people and in a large one that still more have left."""
    five, large = Room(1_000_001), Room(1_000_002)
    store.fold([five.join(who) for who in range(5)])
    store.fold([large.join(who) for who in range(form.present)])
    past = range(form.present, form.present + form.past)
    store.fold([told for who in past for told in (large.join(who), large.leave(who))])
    few = form.repeats // 5
    for title, case in (
        ("in a large conference, a callback a batch", _anyone),
        (f"everyone speaks at once, {_batches(STORM)}", _storm),
    ):
        cases: list[Case] = [partial(case, store, five, 5), partial(case, store, large, form.present)]
        yield _in_turn(title, cases, few, None)


def _anyone(store: Store, room: Room, people: int) -> Cost:
    return store.cost([room.act(chance.randrange(people))])


def _storm(store: Store, room: Room, people: int) -> Cost:
    first = chance.randrange(people)
    return store.cost([room.speak((first + turn) % people) for turn in range(STORM)])


def _batches(size: int) -> str:
    return "a callback a batch" if size == 1 else f"batches of {size}"


def _check(store: Store, repeats: int) -> None:
    """Raise RuntimeError unless every callback was folded, none was set aside, and only those repeated were repeats."""
    counters = store.snapshots.counters()
    expect("callbacks left in the inboxes", sum(shard.waiting for shard in store.inbox.backlog()), 0)
    expect("callbacks set aside", counters["dead"], 0)
    expect("repeats", counters["repeated"], repeats)


if __name__ == "__main__":
    url, form = sys.argv[1], Form(*json.loads(sys.argv[2]))
    scratch = Store(url, SCRATCH)
    measured = [*_among(url, form), *_growing(scratch, form), *_crowded(scratch, form)]
    for database in range(SCRATCH + 1):
        _check(Store(url, database), form.repeats // 8 * 2 if database == SCRATCH else 0)
    print(json.dumps(measured))
