"""What the whole service, as `offhook run` starts it, uses of a core: with nothing to do, and for each callback."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from app.store import embedded
from bench import machine
from bench.load import Parameters, deliver, request
from bench.measures import expect, free_port
from bench.store import Store

PROCESSES = ("valkey", "worker", "web")
"""In the order in which the supervisor starts them."""
SETTLED = 10.0
"""Seconds until the first spell of a worker has ended."""
RATES = (20.0, 200.0)
"""Callbacks a second."""
LONGEST_WAIT = 10.0
"""Seconds until everything that was acknowledged is folded."""


class Form(NamedTuple):
    """How much is measured."""

    idle: float
    """Seconds without a callback."""
    busy: float
    """Seconds of callbacks, at each rate."""


FULL = Form(idle=20.0, busy=15.0)
QUICK = Form(idle=3.0, busy=2.0)


class Service(NamedTuple):
    """A running service."""

    port: int
    pid: int
    store: Store

    def used(self) -> dict[str, float]:
        """Processor seconds so far, by process; web is gunicorn with its one worker."""
        used = {"supervisor": machine.own_cpu_seconds(self.pid)}
        for name, pid in zip(PROCESSES, machine.children(self.pid), strict=True):
            used[name] = machine.cpu_seconds(pid)
        return used


def measure(told: Sequence[Parameters], form: Form) -> dict[str, dict[str, float]]:
    """Shares of the measured core while idle, and processor microseconds a callback at each rate, by process.

    All of the service is on the measured core. What it uses while idle is in the microseconds too.
    """
    requests = iter([request(one) for one in told])
    with _service() as service:
        time.sleep(SETTLED)
        before = service.used()
        time.sleep(form.idle)
        numbers = {"idle": {name: (used - before[name]) / form.idle for name, used in service.used().items()}}
        for rate in RATES:
            before, folded = service.used(), service.store.snapshots.counters()["folded"]
            sent = deliver(service.port, requests, seconds=form.busy, rate=rate)
            _until_folded(service.store, folded + sent.answers)
            numbers[f"{rate:.0f}/s"] = {
                name: (used - before[name]) / sent.answers * 1e6 for name, used in service.used().items()
            }
    return numbers


@contextmanager
def _service() -> Iterator[Service]:
    machine.RESULTS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=machine.RESULTS))
    port = free_port()
    environ = machine.environment("", port) | {"OFFHOOK_DATA_DIR": str(folder)}
    try:
        command = [*machine.PYTHON, "app", "run"]
        with machine.running(command, environ, machine.MEASURED, partial(machine.answers_http, port)) as pid:
            yield Service(port, pid, Store(embedded.url(folder)))
    finally:
        shutil.rmtree(embedded.socket_path(folder).parent, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _until_folded(store: Store, many: int) -> None:
    deadline = time.monotonic() + LONGEST_WAIT
    while (folded := store.snapshots.counters()["folded"]) < many and time.monotonic() < deadline:
        time.sleep(0.2)
    expect("callbacks folded", folded, many)
