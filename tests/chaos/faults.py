"""A Redis that answers wrongly, late, or not at all."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from redis import Redis, RedisError

from tests.chaos.crashes import behind, last_id
from tests.chaos.lab import Lab, Valkey, signal_to, told
from tests.chaos.ledger import SHARDS, waiting
from tests.chaos.proxy import Proxy
from tests.chaos.traffic import Flow
from tests.system.house import House, awaited

RATE = 50
LONGEST_ANSWER = 1.5
LONGEST_RECOVERY = 60.0
"""Seconds after which it is said not to recover."""

CANNED = {
    "LOADING": "-LOADING Redis is loading the dataset in memory",
    "READONLY": "-READONLY You can't write against a read only replica.",
    "MISCONF": "-MISCONF Errors writing to the AOF file: No space left on device",
    "OOM": "-OOM command not allowed when used memory > 'maxmemory'.",
}


class Place:
    """One house behind a proxy, and its Valkey."""

    def __init__(self, lab: Lab) -> None:
        self.valkey: Valkey = lab.valkey()
        self.proxy: Proxy = lab.proxy(self.valkey)
        self.house: House = lab.house(REDIS_URL=self.proxy.url)
        self.redis: Redis = self.valkey.redis()
        self.flows: list[Flow] = []

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Memory is full, and there is a backlog that was taken before."""
        self.redis.config_set("maxmemory", 1)
        try:
            yield
            awaited("a full Redis whose inboxes are drained", lambda: waiting(self.redis) == 0, LONGEST_RECOVERY)
        finally:
            self.redis.config_set("maxmemory", 0)

    @contextlib.contextmanager
    def replica(self) -> Iterator[None]:
        """It has been made a replica of a primary that is not there."""
        self.redis.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            self.redis.replicaof("NO", "ONE")

    @contextlib.contextmanager
    def paused(self, seconds: float) -> Iterator[None]:
        """It keeps all clients waiting, those that would have it go on as well."""
        self.redis.client_pause(int(seconds * 1000))
        yield

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Its process stands still."""
        signal_to(self.valkey.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            signal_to(self.valkey.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def forgetful(self) -> Iterator[None]:
        """It forgets its scripts, a hundred times a second."""
        over = threading.Event()

        def forget() -> None:
            while not over.wait(0.01):
                with contextlib.suppress(RedisError):
                    self.redis.script_flush()

        forgetting = threading.Thread(target=forget, daemon=True)
        forgetting.start()
        try:
            yield
        finally:
            over.set()
            forgetting.join()


Fault = tuple[str, float, Callable[[Place], AbstractContextManager[None]]]
"""What it is called, for how many seconds, and what does it."""


def all_faults(lab: Lab) -> list[Fault]:
    """Each class of errors, by the proxy and, where that can be, for real."""
    some = lab.of(5.0, 3.0, 1.0)

    def proxied(way: str, **more: Any) -> Callable[[Place], AbstractContextManager[None]]:
        return lambda place: place.proxy.behaving(way, **more)

    faults: list[Fault] = [(name, some, proxied("canned", line=line)) for name, line in CANNED.items()]
    faults += [(way, some, proxied(way)) for way in ("blackhole", "reset", "half-open")]
    faults += [
        ("answers 2 s late", some, proxied("delay", seconds=2.0)),
        ("memory is full", some, Place.full),
        ("made a replica", some, Place.replica),
        ("CLIENT PAUSE", some, lambda place: place.paused(some)),
        ("SCRIPT FLUSH, 100 times a second", some, Place.forgetful),
        ("SIGSTOP of Valkey", lab.of(3.0, 3.0, 1.5), Place.stopped),
    ]
    return faults + lab.of([("SIGSTOP of Valkey", 12.0, Place.stopped)], [], [])


def errors(lab: Lab) -> None:
    """Every way in which Redis can fail, while callbacks come: what they are answered, and whether it all goes on."""
    faults, houses = all_faults(lab), 3
    places = lab.side_by_side(houses, lambda _: Place(lab))

    def part(number: int) -> None:
        for turn, (name, seconds, fault) in list(enumerate(faults))[number::houses]:
            suffer(lab, places[number], name, seconds, fault, lab.seed + turn)

    lab.side_by_side(houses, part)
    lab.accounts_of(
        "all of these",
        len(faults),
        [
            (
                place.house,
                place.redis,
                [each for flow in place.flows for each in flow.acknowledged],
                [each for flow in place.flows for each in flow.unsure],
            )
            for place in places
        ],
    )


def suffer(
    lab: Lab,
    place: Place,
    name: str,
    seconds: float,
    fault: Callable[[Place], AbstractContextManager[None]],
    seed: int,
) -> None:
    """One fault, and what came of it."""
    with Flow(place.house, seed, RATE, fresh=0.2) as flow:
        place.flows.append(flow)
        awaited("callbacks that are taken", lambda: 204 in flow.counts())
        time.sleep(0.5)  # all of it is at work
        with fault(place):
            began = time.perf_counter()
            time.sleep(seconds)  # that long it lasts
        ended = time.perf_counter()
        back = flows_again(place, flow, ended)
    during = [answer for answer in flow.answers if began <= answer.due <= ended]
    longest = max(answer.took for answer in during)
    statuses = {status: sum(each.status == status for each in flow.answers) for status in sorted(flow.counts())}
    wrong = sum(count for status, count in statuses.items() if status not in (204, 503))
    said = ", ".join(f"{count} x {status}" for status, count in statuses.items())
    fault_name = f"{name}, {seconds:g} s"
    lab.within(fault_name, 1, "each answer", LONGEST_ANSWER, longest)
    if back is None:
        said += "; it does NOT go on"
    else:
        said += f"; goes on after {told(back)}"
    lab.promise(fault_name, 1, "204 or 503; goes on by itself", said, back is not None and not wrong)
    lab.say(f"{fault_name}: longest {told(longest)}; {said}")


def flows_again(place: Place, flow: Flow, ended: float) -> float | None:
    """Seconds after the fault's end when something new was taken and all that waited then was folded; None: never."""
    try:
        awaited(
            "something new is taken",
            lambda: any(answer.status == 204 and answer.due > ended for answer in flow.answers[-200:]),
            LONGEST_RECOVERY,
        )
        last = {shard: last_id(place.redis, shard) for shard in range(SHARDS)}
        awaited("what waits is folded", lambda: not behind(place.redis, last), LONGEST_RECOVERY)
    except AssertionError:
        return None
    return time.perf_counter() - ended
