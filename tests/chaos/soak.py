"""A long steady load: what grows meanwhile, and what is left of it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from app.store import keys
from app.store.snapshots import Snapshots
from bench.load import deliver
from bench.machine import memory
from tests.chaos.crashes import redis_of
from tests.chaos.lab import Lab
from tests.chaos.ledger import SHARDS, await_settled, stories
from tests.chaos.traffic import Flow, requests
from tests.system.house import awaited

RATE = 150
EVERY = 5.0
"""Seconds between two looks."""
MIB = 1024 * 1024


class Look(NamedTuple):
    """How things stand."""

    minute: float
    resident: dict[tuple[str, int], int]
    """Bytes of each process, by its kind and pid."""
    files: dict[tuple[str, int], int]
    """How many each has open."""
    redis: int
    """Bytes that Redis uses."""
    folded: int


def soak(lab: Lab) -> None:
    """Ten minutes at 150 callbacks a second, after a rush that fills what is bounded: memory, files, Redis."""
    seconds, rush = lab.of(600, 30), lab.of(40_000, 3_000)
    limit = lab.of(1.0, 20.0)  # in half a minute everything still warms up
    house = lab.house()
    redis: Any = redis_of(house)
    snapshots = Snapshots(redis, SHARDS)
    source = requests(house, stories(lab.seed))
    first = list(islice(source, rush))
    deliver(house.port, iter([request.raw for request in first]), seconds=120)
    await_settled(house, 120)
    looks: list[Look] = []
    with Flow(house, source, RATE, fresh=0.1) as flow:
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            resident, files = {}, {}
            for kind, pids in house.processes().items():
                for pid in pids:
                    with contextlib.suppress(OSError, RuntimeError):
                        resident[kind, pid] = memory(pid)
                        files[kind, pid] = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            used, folded = redis.info("memory")["used_memory"], snapshots.counters()["folded"]
            looks.append(Look(passed / 60, resident, files, used, folded))
            if len(looks) % 12 == 0:
                lab.say(f"{passed / 60:.0f} min, {folded:,} folded, {used / MIB:.0f} MiB in Redis")
            time.sleep(EVERY)
    fault, count = f"{RATE} callbacks/s for {seconds / 60:g} min", f"{len(flow.answers):,}"
    half = looks[len(looks) // 2 :]
    steady = [each for each in half[0].resident if all(each in look.resident for look in half)]
    for kind in ("web", "worker"):
        those = [each for each in steady if each[0] == kind]
        most = max((slope([(k.minute, k.resident[each] / MIB) for k in half]) for each in those), default=math.inf)
        promise = f"{kind}: memory grows < {limit:g} MiB/min"
        lab.found(fault, count, promise, f"{most:+.2f} MiB/min", most < limit, timed=True)
        opened = [grown([look.files[each] for look in half]) for each in those]
        most_files = max(opened, default=999)  # fewer are connections that have been closed
        lab.promise(fault, count, f"{kind}: open files do not grow", f"{most_files:+.0f}", most_files <= 5)
    failed = sum(answer.status != 204 for answer in flow.answers)
    lab.found(fault, count, "all are taken", f"{failed} were not", not failed, timed=True)
    acknowledged = [*(request.parameters for request in first), *flow.acknowledged]
    lab.accounts(fault, count, house, redis, acknowledged, flow.unsure, 120)
    names = [key(shard) for shard in range(SHARDS) for key in (keys.inbox, keys.lease, keys.woken)]
    left = awaited_floor(lambda: sum(redis.xlen(n) if n.endswith("inbox") else redis.exists(n) for n in names))
    lab.promise(fault, count, "inboxes, leases, wake-ups: nothing left", left, left == 0)
    larger, more = half[-1].redis - half[0].redis, half[-1].folded - half[0].folded
    lab.promise(
        fault, count, "Redis keeps what it must (no retention yet)", f"{larger / max(1, more):.0f} bytes/callback", True
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line through these, by least squares."""
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    across = sum((each - x) ** 2 for each, _ in points)
    return sum((each - x) * (value - y) for each, value in points) / across if across else 0.0


def grown(counts: Sequence[int]) -> float:
    """By how much the median of the last third exceeds that of the first: one may come at a moment of many requests."""
    third = max(1, len(counts) // 3)
    return median(counts[-third:]) - median(counts[:third])


def awaited_floor(left: Any) -> int:
    """What is left once nothing lessens it any more."""
    with contextlib.suppress(AssertionError):
        awaited("nothing is left", lambda: left() == 0, 15)
    return int(left())
