"""From callback to published change, flat out: what a machine sustains when everything on it shares its cores.

Web processes, worker, Valkey and the load generator run at once and may use every core; none is pinned. So the
generator takes its part of what is measured, and `generator_us` says how much. Callbacks are sent on 32 kept
connections as fast as they are answered, each once, and then everything that was acknowledged is waited for. Callbacks
of a conference may overtake each other on the way: at this speed a third of them have another of theirs among the 32.

Nobody is subscribed to the changes. Offhook counts the callbacks that it has folded in the step that publishes them; of
a peer Valkey counts the PUBLISH commands, one for each callback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from redis import Redis

from app.store.connect import connect
from app.store.snapshots import Snapshots
from bench import express, machine
from bench.load import Delivered, deliver
from bench.measures import SHARED, WARM_UP, free_port, web, works
from bench.store import SHARDS

LONGEST_DRAIN = 60.0
"""Seconds that the worker may go on after the last answer."""
LOOKED_EVERY = 0.02
"""Seconds between two looks at how much is done: so exactly is the end known."""
MOST = {"flask_rq": 1_000}
"""Callbacks that a slow peer is sent at most, or its queue would last for minutes."""
WARMING = 0.2
"""Share of the callbacks that the warm-up may take, at most."""

WEB_PROCESSES = {
    "offhook": (SHARED.web_processes,),
    "flask_rq": (SHARED.web_processes,),
    "express": (1, SHARED.web_processes),
}
"""How many are tried, unless told. What did best counts: Node does much with one, and two cores are soon full."""
WORKERS = {
    "offhook": [*machine.PYTHON, "workers"],
    "flask_rq": [*machine.PYTHON, "bench.peers.flask_rq"],
    "express": express.program("worker"),
}


class Kinds(NamedTuple):
    """What is running: the processes of each kind, and how many callbacks have come to their end so far."""

    port: int
    web: int
    workers: list[int]
    valkey: int
    done: Callable[[], int]

    def cpu_seconds(self) -> dict[str, float]:
        """Of each kind, so far."""
        pids = {"web": [self.web], "worker": self.workers, "valkey": [self.valkey]}
        return {kind: sum(map(machine.cpu_seconds, some)) for kind, some in pids.items()}

    def web_cpu_seconds(self) -> dict[int, float]:
        """Of each web process, so far."""
        return {pid: machine.cpu_seconds(pid) for pid in machine.children(self.web) or [self.web]}


def measure(
    name: str, requests: Sequence[bytes], seconds: float, *, web_processes: int | None = None, workers: int = 1
) -> dict[str, float]:
    """Send for so many seconds, or until there are no more requests, and wait until everything is folded.

    The requests must all be different: a repeat is not folded.

    - `sustained_per_second`: callbacks by the seconds of sending and draining together.
    - `accepted_per_second`: callbacks answered 204 a second while they were sent.
    - `backlog`: callbacks that were acknowledged but not folded when the last was answered; `lag_s`: as many seconds'
      worth of what was accepted, so how long ago the callback was acknowledged that is folded just then.
    - `drain_s`: seconds from the last answer until everything was folded.
    - `web_us`, `worker_us`, `valkey_us`, `generator_us`: processor microseconds for each callback, of all processes of
      that kind, until the end of the draining; the generator's until the last answer.
    - `web_least`: the part of all web processes' time that the least busy of them had.
    - `callbacks`, `seconds`: how many, and in how long, with the draining.
    - `reconnects`: connections that the server closed; `resent`: callbacks sent again because of that.
    - `web_processes`, `workers`: how many there were.

    Raises RuntimeError when not exactly what was acknowledged was folded.
    """
    tried = WEB_PROCESSES[name] if web_processes is None else (web_processes,)
    measured = [_measure(name, requests, seconds, many, workers) for many in tried]
    return max(measured, key=lambda numbers: numbers["sustained_per_second"])


def _measure(
    name: str, requests: Sequence[bytes], seconds: float, web_processes: int, workers: int
) -> dict[str, float]:
    some = requests[: MOST.get(name)]
    upcoming = iter(some)
    with machine.staying_on(SHARED.service), _running(name, web_processes, workers) as kinds:
        send = partial(deliver, kinds.port, connections=SHARED.connections, gather=SHARED.gather)
        warm = send(islice(upcoming, int(len(some) * WARMING)), seconds=WARM_UP)
        _drain(kinds, warm.answers, warm.resent)
        before, web_before = kinds.cpu_seconds(), kinds.web_cpu_seconds()
        sent = send(upcoming, seconds=seconds)
        backlog = warm.answers + sent.answers - kinds.done()
        _drain(kinds, warm.answers + sent.answers, warm.resent + sent.resent)
        ended = time.perf_counter()
        used = {kind: after - before[kind] for kind, after in kinds.cpu_seconds().items()}
        webs = [after - web_before.get(pid, 0.0) for pid, after in kinds.web_cpu_seconds().items()]
    return {
        **_numbers(sent, max(0, backlog), ended, used),
        "web_least": min(webs) / sum(webs),
        "web_processes": web_processes,
        "workers": workers,
    }


def _numbers(sent: Delivered, backlog: int, ended: float, used: Mapping[str, float]) -> dict[str, float]:
    used = {**used, "generator": sent.busy * sent.seconds}
    accepted = sent.answers / sent.seconds
    return {
        "sustained_per_second": sent.answers / (ended - sent.began),
        "accepted_per_second": accepted,
        "backlog": backlog,
        "lag_s": backlog / accepted,
        "drain_s": ended - sent.began - sent.seconds,
        **{f"{kind}_us": spent / sent.answers * 1e6 for kind, spent in used.items()},
        "callbacks": sent.answers,
        "seconds": ended - sent.began,
        "reconnects": sent.reconnects,
        "resent": sent.resent,
    }


def _drain(kinds: Kinds, acknowledged: int, resent: int) -> None:
    """Wait until everything acknowledged is folded. What was sent twice may have been taken twice, but nothing else."""
    deadline = time.monotonic() + LONGEST_DRAIN
    while (done := kinds.done()) < acknowledged and time.monotonic() < deadline:
        time.sleep(LOOKED_EVERY)
    if not acknowledged <= done <= acknowledged + resent:
        raise RuntimeError(f"callbacks folded: expected {acknowledged}, found {done}; the measurement is void")


@contextmanager
def _running(name: str, web_processes: int, workers: int) -> Iterator[Kinds]:
    with ExitStack() as stack:
        url = stack.enter_context(machine.valkey(SHARED.others))
        redis = connect(url, patience=5.0)
        info: Any = redis.info("server")
        port = free_port()
        environ = machine.environment(url, port, web_processes)

        def start(command: list[str], ready: Callable[[], bool]) -> int:
            return stack.enter_context(machine.running(command, environ, SHARED.service, ready))

        work = [start(WORKERS[name], partial(_work, redis, name, number)) for number in range(1, workers + 1)]
        serve = start(web(name, port, web_processes), partial(machine.answers_http, port))
        yield Kinds(port, serve, work, info["process_id"], partial(_done, redis, name))


def _work(redis: Redis, name: str, many: int) -> bool:
    """Whether so many workers wait for jobs."""
    if name == "express":
        clients: Any = redis.client_list()
        return len([client for client in clients if client["cmd"] == "bzpopmin"]) == many
    return works(redis, many)


def _done(redis: Redis, name: str) -> int:
    """How many callbacks have been folded and their changes published."""
    if name == "offhook":
        return Snapshots(redis, SHARDS).counters()["folded"]
    commands: Any = redis.info("commandstats")
    published: int = commands.get("cmdstat_publish", {"calls": 0})["calls"]
    return published
