"""The live feed: how soon and at what cost a thousand streams of one web process hear of every change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from redis import Redis

from app.store import keys
from app.store.connect import connect
from app.store.snapshots import Snapshots
from bench import machine
from bench.audience import Audience, Change, audience
from bench.load import callbacks, quantile, request, steadily
from bench.measures import expect, free_port, web, works
from bench.store import SHARDS

RATE = 100.0
"""Callbacks a second. A change is what a batch does to a conference: mostly one callback."""
WARM_UP = 1.0
"""Seconds of callbacks that are not looked at."""
SETTLED = 20.0
"""Seconds within which everything that was acknowledged must have been folded, and everything committed heard."""
COME_BACK = 60.0
"""Seconds within which all clients are to be connected and told what they missed."""
FALLEN_BEHIND = 1.0
"""Seconds that a peer has, once nothing more is sent, to deliver what it still holds."""
PATHS = {"offhook": "/api/stream", "flask_sse": "/naive/stream"}


class Form(NamedTuple):
    """How much is measured."""

    clients: int
    few: int
    """Clients with which the peer can keep up."""
    seconds: float
    """Of callbacks, each time."""
    cuts: int
    """How often each client cuts its connection."""
    cut_for: float
    """Seconds over which these moments are spread."""


FULL = Form(clients=1000, few=50, seconds=5.0, cuts=5, cut_for=50.0)
QUICK = Form(clients=100, few=10, seconds=2.0, cuts=2, cut_for=3.0)


class Sent(NamedTuple):
    """How some seconds of callbacks went."""

    waits: list[float]
    """Seconds from when a callback was due to its 204, sorted."""
    refused: int
    """Callbacks that were answered otherwise, or not within Twilio's 15 s. Twilio drops them."""
    peak: int
    """Bytes of memory that the web process has had meanwhile, at most."""
    cpu: float
    """Processor seconds of the web process."""
    seconds: float


class Server:
    """Web process, worker and Valkey, and what they are sent."""

    def __init__(self, port: int, pid: int, redis: Redis, requests: Sequence[bytes]) -> None:
        self.port = port
        self.pid = pid
        self.redis = redis
        self.snapshots = Snapshots(redis, SHARDS)
        self.requests = requests
        self.sent = self.acknowledged = 0

    def send(self, seconds: float) -> Sent:
        """Send callbacks at the steady rate, whatever becomes of those before, as long as a connection is free."""
        some = self.requests[self.sent : self.sent + round(RATE * seconds)]
        peak = 0

        def look() -> None:
            nonlocal peak
            peak = max(peak, self.memory())

        used, began = machine.cpu_seconds(self.pid), time.perf_counter()
        waits = steadily(self.port, some, RATE, look)
        used, took = machine.cpu_seconds(self.pid) - used, time.perf_counter() - began
        self.sent += len(some)
        self.acknowledged += len(waits)
        return Sent(waits, len(some) - len(waits), peak, used, took)

    def memory(self) -> int:
        """What gunicorn's one worker holds of the machine's memory, in bytes."""
        [worker] = machine.children(self.pid)
        return machine.memory(worker)

    def committed(self) -> dict[Change, float]:
        """Every change so far, with the time of its commit. Waits until all that was acknowledged is folded.

        Raises RuntimeError when that takes too long. What was answered with an error may have been stored, and more
        than was acknowledged be folded.
        """
        _until(lambda: self.snapshots.counters()["folded"] >= self.acknowledged, SETTLED)
        folded = self.snapshots.counters()["folded"]
        expect("callbacks folded of those acknowledged", min(folded, self.acknowledged), self.acknowledged)
        found: dict[Change, float] = {}
        for shard in range(SHARDS):
            entries: Any = self.redis.xrange(keys.changes(shard))
            for entry_id, fields in entries:
                if b"c" in fields:
                    found[fields[b"c"].decode(), int(fields[b"r"])] = int(entry_id.split(b"-")[0]) / 1000
        return found


def measure(form: Form) -> dict[str, dict[str, float]]:
    """Offhook and the peer, each with many clients and with few.

    Raises RuntimeError when a client of Offhook's missed a change that was committed, or heard one again.
    """
    return {
        "offhook": _streams("offhook", form, form.clients),
        "flask_sse": _streams("flask_sse", form._replace(cuts=0), form.clients),
        "offhook, few": _streams("offhook", form._replace(cuts=0), form.few),
        "flask_sse, few": _streams("flask_sse", form._replace(cuts=0), form.few),
    }


def _streams(name: str, form: Form, clients: int) -> dict[str, float]:
    requests = [request(each) for each in callbacks(round(RATE * (WARM_UP + 2 * form.seconds + form.cut_for)))]
    with _serving(name, requests) as server, audience(server.port, PATHS[name]) as crowd:
        server.send(WARM_UP)
        without = server.send(form.seconds)
        before, none = server.committed(), server.memory()
        crowd.join(clients)
        _until(lambda: crowd.following() == clients, COME_BACK)
        idle = server.memory()
        crowd.busy()
        under = server.send(form.seconds)
        busy = crowd.busy()
        committed = server.committed().items() - before.items()
        numbers = {
            "clients": clients,
            "changes_per_second": len(committed) / form.seconds,
            "idle_kib": (idle - none) / clients / 1024,
            "loaded_kib": (under.peak - none) / clients / 1024,
            "web_busy": under.cpu / under.seconds,
            "web_busy_without": without.cpu / without.seconds,
            "clients_busy": busy,
            **_waits("post", "_without", without),
            **_waits("post", "", under),
            **_fan_out(crowd, dict(committed), clients, under.cpu - without.cpu, whole=name == "offhook"),
        }
        if form.cuts:
            numbers |= _cuts(server, crowd, form, before)
        return numbers


def _waits(name: str, when: str, sent: Sent) -> dict[str, float]:
    many = len(sent.waits)
    return {
        f"{name}_p50_ms{when}": quantile(sent.waits, many, 0.5) * 1000,
        f"{name}_p99_ms{when}": quantile(sent.waits, many, 0.99) * 1000,
        f"{name}_refused{when}": sent.refused,
    }


def _fan_out(
    crowd: Audience, committed: dict[Change, float], clients: int, cpu: float, *, whole: bool
) -> dict[str, float]:
    """How soon each client heard each of these changes. Only who is to hear all of them is waited for."""
    _until(lambda: crowd.heard(committed).missed == 0, SETTLED if whole else FALLEN_BEHIND)
    heard, due = crowd.heard(committed), len(committed) * clients
    if whole:
        expect("changes missed", heard.missed, 0)
    return {
        "heard": 1 - heard.missed / due,
        "frame_us": cpu / max(1, due - heard.missed) * 1e6,
        "change_p50_ms": quantile(heard.times, due, 0.5) * 1000,
        "change_p99_ms": quantile(heard.times, due, 0.99) * 1000,
    }


def _cuts(server: Server, crowd: Audience, form: Form, before: dict[Change, float]) -> dict[str, float]:
    """The same rate while all clients cut their connections at random moments, and come back with their last id."""
    crowd.cut(form.cuts, form.cut_for)
    sent = server.send(form.cut_for)
    last = time.perf_counter()
    _until(lambda: crowd.following() == form.clients, COME_BACK)
    took = time.perf_counter() - last
    committed = dict(server.committed().items() - before.items())
    _until(lambda: crowd.heard(committed).missed == 0, SETTLED)
    heard = crowd.heard(committed)
    expect("changes missed by clients that were cut off", heard.missed, 0)
    expect("changes heard again", heard.repeated, 0)
    return {
        "cuts": form.cuts * form.clients,
        "resets": heard.resets,
        "streams_refused": heard.refused,
        "streams_ended": heard.ended,
        "all_back_s": took,
        "web_busy_cuts": sent.cpu / sent.seconds,
        **_waits("post", "_cuts", sent),
    }


@contextmanager
def _serving(name: str, requests: Sequence[bytes]) -> Iterator[Server]:
    with machine.valkey() as url:
        port = free_port()
        environ = machine.environment(url, port)
        redis = connect(url, patience=5.0)
        working = machine.running([*machine.PYTHON, "workers"], environ, machine.OTHERS, partial(works, redis))
        serving = machine.running(web(name, port), environ, machine.MEASURED, partial(machine.answers_http, port))
        with working, serving as pid:
            yield Server(port, pid, redis, requests)


def _until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.2)
