"""How many bytes of Redis a conference takes, and whether the processes of the service keep their size."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import linear_regression
from typing import Any, NamedTuple

from redis import Redis

from app.store.connect import connect
from bench import machine
from bench.load import Parameters, callbacks, deliver, request
from bench.measures import expect, free_port, web, works
from bench.rooms import opened
from bench.store import Store

RATE = 200.0
"""Callbacks a second while the processes are watched."""
LOOKED_EVERY = 0.5
"""Seconds between two looks at the size of a process."""
AT_ONCE = 1000
PEOPLE = 4
"""In a conference that is measured by difference."""
STATE = ("conference", "index", "call")
"""Kinds of keys that hold what is so now: documents, where to find them, and what is noted about calls."""
LOG = ("log", "ids")
"""Kinds of keys that hold what has happened."""


class Form(NamedTuple):
    """How much is measured."""

    callbacks: int
    """Of the simulator's stories. Half of them are told: then most of those conferences are under way."""
    events: int
    """By which the log of one conference is made longer, in batches."""
    singly: int
    """Callbacks that are committed one at a time."""
    rooms: int
    """Conferences that one more person joins."""
    seconds: float
    """For which the size of the processes is watched."""


FULL = Form(callbacks=60_000, events=20_000, singly=4_000, rooms=2_000, seconds=60.0)
QUICK = Form(callbacks=8_000, events=2_000, singly=500, rooms=200, seconds=8.0)


def redis_bytes(form: Form) -> dict[str, Any]:
    """Bytes of Redis, with nothing in it but conferences in progress.

    The first half of the callbacks of overlapping stories is folded, without those of conferences that end within it.
    So each is caught somewhere in its life. A live participant is one who is present then. `used_memory` is Redis's
    own count, with all its overhead; less what it was before, and less the logs of changes, which are a constant.
    `by_kind` is MEMORY USAGE of all keys of a kind. What is called one more is a difference of `used_memory`.
    """
    told = _under_way(callbacks(form.callbacks))
    sids = list({one["ConferenceSid"] for one in told})
    with machine.valkey() as url:
        store = Store(url)
        Store(url, 1).fold(opened(0)[1])  # Redis keeps the scripts
        empty = _used(store.redis)
        store.fold(told)
        used = _used(store.redis) - empty
        expect("callbacks folded", store.snapshots.counters()["folded"], len(told))
        by_kind = _by_kind(store.redis)
        counts = [each.header.counts for each in store.snapshots.conferences(sids)]
    present = sum(each.present for each in counts)
    held = used - by_kind["changes"]
    batches, singly = _one_more_event(form.events, AT_ONCE), _one_more_event(form.singly, 1)
    return {
        "conferences": len(sids),
        "present": present,
        "gone": sum(each.participants for each in counts) - present,
        "events": len(told),
        "a_live_participant": held / present,
        "a_live_participant_without_log": _sum(by_kind, STATE) / present,
        "one_more_participant": _one_more_participant(form.rooms),
        "an_event": _sum(by_kind, LOG) / len(told),
        "an_event_singly": _told_singly(form.singly),
        "one_more_event": batches,
        "one_more_event_singly": singly,
        "changes": by_kind["changes"],
        "by_kind": by_kind | {"Redis's own": used - sum(by_kind.values())},
    }


def _sum(by_kind: Counter[str], kinds: Iterable[str]) -> int:
    return sum(by_kind[kind] for kind in kinds)


def _under_way(told: Sequence[Parameters]) -> list[Parameters]:
    """Their first half, without that of conferences that end in it."""
    told = told[: len(told) // 2]
    over = {one["ConferenceSid"] for one in told if one["StatusCallbackEvent"] == "conference-end"}
    return [one for one in told if one["ConferenceSid"] not in over]


def _told_singly(many: int) -> float:
    """Bytes of the logs for each event, when each of the stories' callbacks has been committed by itself."""
    told = _under_way(callbacks(2 * many))
    with machine.valkey() as url:
        store = Store(url)
        for one in told:
            store.fold([one])
        expect("callbacks folded", store.snapshots.counters()["folded"], len(told))
        return _sum(_by_kind(store.redis), LOG) / len(told)


def _one_more_event(events: int, at_once: int) -> float:
    """What another event of a conference of four adds to `used_memory`, so many to a commit at most.

    People mute themselves and speak in turn.
    """
    with machine.valkey() as url:
        store = Store(url)
        room, told = opened(0, PEOPLE)
        store.fold(told)
        sizes: list[int] = []
        for _ in range(2):
            for first in range(0, events, at_once):
                store.fold([room.act(turn % PEOPLE) for turn in range(first, min(events, first + at_once))])
            sizes.append(_without(store.redis, ("changes",)))
    return (sizes[1] - sizes[0]) / events


def _one_more_participant(many: int) -> float:
    """What another person in each of many conferences of three adds to `used_memory`, without logs."""
    with machine.valkey() as url:
        store = Store(url)
        rooms, told = zip(*(opened(number, PEOPLE - 1) for number in range(many)), strict=True)
        store.fold(one for joins in told for one in joins)
        before = _without(store.redis, ("changes", *LOG))
        store.fold(room.join(PEOPLE - 1) for room in rooms)
        return (_without(store.redis, ("changes", *LOG)) - before) / many


def _without(redis: Redis, kinds: Iterable[str]) -> int:
    """`used_memory` without keys of these kinds."""
    redis.memory_purge()
    return _used(redis) - _sum(_by_kind(redis), kinds)


def _used(redis: Redis) -> int:
    memory: Any = redis.info("memory")
    return int(memory["used_memory"])


def _by_kind(redis: Redis) -> Counter[str]:
    """Bytes of all keys, by what follows the shard in their names: conference, log, index, call, changes, …"""
    sizes: Counter[str] = Counter()
    names = list(redis.scan_iter(count=AT_ONCE))
    for first in range(0, len(names), AT_ONCE):
        some = names[first : first + AT_ONCE]
        with redis.pipeline(transaction=False) as pipe:
            for name in some:
                pipe.memory_usage(name, samples=0)
            for name, size in zip(some, pipe.execute(), strict=True):
                sizes[_kind(name.decode())] += size
    return sizes


def _kind(name: str) -> str:
    words = name.split(":")
    return words[2] if len(words) > 2 else name


def flatness(form: Form) -> dict[str, dict[str, float]]:
    """Size of a web and a worker process in MiB while callbacks come at a steady rate, and how it changes.

    `kib_per_minute` is the slope of a line through the sizes of the last half.
    """
    requests = [request(one) for one in callbacks(round(RATE * form.seconds))]
    with machine.valkey() as url:
        port = free_port()
        environ, redis = machine.environment(url, port), connect(url, patience=5.0)
        working = machine.running([*machine.PYTHON, "workers"], environ, machine.MEASURED, partial(works, redis))
        serving = machine.running(web("offhook", port), environ, machine.MEASURED, partial(machine.answers_http, port))
        with working as worker_pid, serving as gunicorn_pid:
            pids = {"web": machine.children(gunicorn_pid)[0], "worker": worker_pid}
            sending = threading.Thread(
                target=deliver, args=(port, iter(requests)), kwargs={"seconds": math.inf, "rate": RATE}
            )
            sending.start()
            sizes = _watched(pids.values(), sending)
        expect("callbacks folded", Store(url).snapshots.counters()["folded"], len(requests))
    return {name: _slope(column) for name, column in zip(pids, zip(*sizes, strict=True), strict=True)}


def _watched(pids: Iterable[int], sending: threading.Thread) -> list[list[int]]:
    sizes = []
    while sending.is_alive():
        sizes.append([machine.memory(pid) for pid in pids])
        time.sleep(LOOKED_EVERY)
    return sizes


def _slope(sizes: Sequence[int]) -> dict[str, float]:
    last = sizes[len(sizes) // 2 :]
    slope, _ = linear_regression([place * LOOKED_EVERY for place in range(len(last))], last)
    return {
        "first_mib": sizes[0] / 2**20,
        "half_way_mib": last[0] / 2**20,
        "last_mib": last[-1] / 2**20,
        "kib_per_minute": slope * 60 / 1024,
    }
