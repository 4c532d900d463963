"""The three things that are measured, each once, each with servers of its own that are gone afterwards."""

from __future__ import annotations

import itertools
import math
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import msgspec
from redis import Redis, RedisError
from rq import Queue, Worker

from app.store.connect import connect
from app.store.feed import subscribe
from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from bench import express, machine
from bench.load import CONNECTIONS, Parameters, deliver, request
from bench.store import SHARDS, Store

WARM_UP = 0.5
"""Seconds of load that are not measured."""
LONGEST_SILENCE = 10
"""Seconds that published changes may take after the last answer."""


class Layout(NamedTuple):
    """Which cores do what, and how a service is made and asked that is measured as a whole."""

    service: set[int]
    """The cores of web and worker."""
    others: set[int]
    """Those of Valkey and of the load generator."""
    web_processes: int
    connections: int
    gather: float
    """See `deliver`."""


PINNED = Layout(machine.MEASURED, machine.OTHERS, web_processes=1, connections=CONNECTIONS, gather=0.0)
SHARED = Layout(machine.EVERY, machine.EVERY, web_processes=2, connections=32, gather=0.002)
"""Everything may use every core. The generator looks so seldom that it costs half, and yet the servers have requests
waiting all the time: a round of 32 takes longer."""

GUNICORN = [*machine.PYTHON, "gunicorn", "--config", "python:config.gunicorn"]


def web(name: str, port: int, processes: int = 1) -> list[str]:
    """How to start web processes: Offhook's as `offhook web` does, a Python peer's under the same gunicorn settings.

    Offhook and Express read their number in WEB_CONCURRENCY; see `machine.environment`.
    """
    if name == "offhook":
        return [*machine.PYTHON, "app", "web", "--host", "127.0.0.1"]
    if name.startswith("express"):
        return express.program("empty" if name == "express_empty" else "server")
    return [*GUNICORN, "--workers", str(processes), "--bind", f"127.0.0.1:{port}", f"bench.peers.{name}:app"]


def ingest(name: str, requests: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Requests a second that one web process answers 204, and processor microseconds that it spends on each.

    Raises RuntimeError when what it stored is not what it acknowledged.
    """
    with machine.valkey() as url:
        port = free_port()
        environ = machine.environment(url, port)
        with machine.running(web(name, port), environ, machine.MEASURED, partial(machine.answers_http, port)) as pid:
            endless = itertools.cycle(requests)
            warm = deliver(port, endless, seconds=WARM_UP)
            used = machine.cpu_seconds(pid)
            measured = deliver(port, endless, seconds=seconds)
            used = machine.cpu_seconds(pid) - used
        _check_stored(name, url, warm.answers + measured.answers)
    return {
        "per_second": measured.answers / measured.seconds,
        "cpu_us": used / measured.answers * 1e6,
        "generator_busy": measured.busy,
    }


def _check_stored(name: str, url: str, acknowledged: int) -> None:
    redis = connect(url, patience=5.0)
    if name == "offhook":
        expect("callbacks in the inboxes", sum(shard.waiting for shard in Inbox(redis, SHARDS).backlog()), acknowledged)
    elif name == "flask_rq":
        expect("jobs in the queue", Queue("callbacks", connection=redis).count, acknowledged)
    elif name == "express":
        expect("jobs in the queue", redis.llen("bull:callbacks:wait"), acknowledged)


def fold(name: str, told: Sequence[Parameters]) -> dict[str, float]:
    """Callbacks a second that one worker process makes of inboxes, or a queue, filled beforehand.

    Raises RuntimeError when not every callback was folded.
    """
    with machine.valkey() as url:
        redis = connect(url, patience=5.0)
        if name == "offhook":
            Store(url).put(told)
        else:
            _fill_queue(redis, told)
        command = [*machine.PYTHON, "bench.fold", name]
        seconds = float(machine.output(command, machine.environment(url, free_port()), machine.MEASURED))
        if name == "offhook":
            counters = Snapshots(redis, SHARDS).counters()
            expect("callbacks folded", counters["folded"], len(told))
        else:
            queue = Queue("callbacks", connection=redis)
            expect("jobs done", queue.finished_job_registry.count, len(told))
    return {"per_second": len(told) / seconds}


def _fill_queue(redis: Redis, told: Sequence[Parameters]) -> None:
    queue = Queue("callbacks", connection=redis)
    queue.enqueue_many([Queue.prepare_data("bench.peers.flask_rq.apply", args=(one,)) for one in told])


def latency(told: Sequence[Parameters], rate: float, seconds: float, layout: Layout = PINNED) -> dict[str, float]:
    """Milliseconds from when a callback is due to be sent until a subscriber has the change it makes.

    At a steady rate, web and worker already awake: the first second is not counted. `web_busy` and `worker_busy` are
    the shares of a core that they use, all web processes together. Raises RuntimeError when a callback's change is
    never published.
    """
    awaking, told = told[: int(rate)], told[int(rate) : int(rate * (1 + seconds))]
    first, requests = ([request(parameters) for parameters in some] for some in (awaking, told))
    with machine.staying_on(layout.others), machine.valkey(layout.others) as url:
        port = free_port()
        environ = machine.environment(url, port, layout.web_processes)
        redis = connect(url, patience=5.0)
        working = machine.running([*machine.PYTHON, "workers"], environ, layout.service, partial(works, redis))
        serving = machine.running(web("offhook", port), environ, layout.service, partial(machine.answers_http, port))
        send = partial(deliver, port, seconds=math.inf, rate=rate, connections=layout.connections, gather=layout.gather)
        heard: dict[tuple[str, int], float] = {}
        with working as worker_pid, serving as web_pid, subscribe(redis) as messages:
            listening = threading.Thread(target=_listen, args=(messages, heard, len(awaking) + len(told)), daemon=True)
            listening.start()
            send(iter(first))
            pids = (web_pid, worker_pid)
            before = [machine.cpu_seconds(pid) for pid in pids]
            sent = send(iter(requests))  # on new connections: by now all web processes take some
            listening.join(LONGEST_SILENCE)
            web_used, worker_used = (machine.cpu_seconds(pid) - used for pid, used in zip(pids, before, strict=True))
        expect("callbacks published", len(heard), len(awaking) + len(told))
    taken = sorted(
        (heard[one["ConferenceSid"], int(one["SequenceNumber"])] - (sent.began + number / rate)) * 1000
        for number, one in enumerate(told)
    )
    return {
        "p50_ms": taken[len(taken) // 2],
        "p99_ms": taken[len(taken) * 99 // 100],
        "web_busy": web_used / sent.seconds,
        "worker_busy": worker_used / sent.seconds,
        "generator_busy": sent.busy,
    }


def _listen(messages: Iterator[bytes], heard: dict[tuple[str, int], float], expected: int) -> None:
    with suppress(RedisError):  # Valkey stops when the benchmark does; what was not heard is missed by the count
        for message in messages:
            now = time.perf_counter()
            change = msgspec.json.decode(message)
            heard |= {(change["conference_sid"], event["sequence"]): now for event in change["events"]}
            if len(heard) >= expected:
                return


def works(redis: Redis, many: int = 1) -> bool:
    """Whether so many workers have announced themselves."""
    return bool(Worker.count(redis) == many)


def expect(what: str, found: int, expected: int) -> None:
    """Raise RuntimeError unless it is so."""
    if found != expected:
        raise RuntimeError(f"{what}: expected {expected}, found {found}; the measurement is void")


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port
