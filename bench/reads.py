"""What reading costs over a real socket, from one web process, among few and among many conferences.

`python -m bench.reads PORT PATH` reads that path on four connections until it is stopped.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from twilio.rest import Client

from bench import machine
from bench.load import ACCOUNT, PATH, TOKEN, callbacks, deliver, quantile, reading, request, steadily
from bench.measures import free_port, web
from bench.pages import PAGE
from bench.rooms import opened
from bench.store import Store

PEOPLE = 50
"""In the conference that is read."""
CONFERENCE, _JOINS = opened(10_000_000, PEOPLE)
READERS = 4
RATE = 100.0
"""Callbacks a second while others read."""
DOCUMENT = f"/api/conferences/{CONFERENCE.sid}"
LIST = f"/api/conferences?limit={PAGE}"


class Form(NamedTuple):
    """How much is measured."""

    slices: int
    """How often each request has its turn."""
    seconds: float
    """That a turn lasts."""
    calls: int
    """Of the SDK, each."""
    posting: float
    """Seconds of callbacks, with readers and without."""


FULL = Form(slices=5, seconds=1.5, calls=100, posting=10.0)
QUICK = Form(slices=1, seconds=0.5, calls=10, posting=2.0)

Numbers = dict[str, dict[str, Any]]


def measure(url: str, form: Form) -> Numbers:
    """All that is read, measured at one web process on the measured core; one is idle while another is asked.

    `url` is that of a Valkey that `rooms.fill` has filled: few conferences in database 0, many in database 1. Both get
    one more, the newest, with 50 people in it.
    """
    stores = [Store(url, database) for database in (0, 1)]
    for store in stores:
        store.fold(_JOINS)
    with ExitStack() as stack:
        few, many = (stack.enter_context(_serving("offhook", f"{url}?db={database}")) for database in (0, 1))
        empty = stack.enter_context(_serving("flask_empty", url))
        numbers: Numbers = {
            "requests": _requests(few, many, empty, form),
            "sdk_ms": _sdk(few, many, form.calls),
            "post": _post(few, form.posting),
        }
    stores[0].fold()  # what was posted is in its inboxes
    return numbers


@contextmanager
def _serving(name: str, url: str) -> Iterator[int]:
    port = free_port()
    environ = machine.environment(url, port)
    with machine.running(web(name, port), environ, machine.MEASURED, partial(machine.answers_http, port)):
        yield port


def _requests(few: int, many: int, empty: int, form: Form) -> dict[str, dict[str, float]]:
    """Requests a second of each kind, in turn; and as a share of what the empty route did just before."""
    asked = {
        "empty": partial(deliver, empty, itertools.repeat(request_of_nothing)),
        "document": partial(deliver, few, itertools.repeat(reading(DOCUMENT)), status=200),
        "document, many": partial(deliver, many, itertools.repeat(reading(DOCUMENT)), status=200),
        "page": partial(deliver, few, itertools.repeat(reading(LIST)), status=200),
        "page, many": partial(deliver, many, itertools.repeat(reading(LIST)), status=200),
    }
    turns = [{name: ask(seconds=form.seconds) for name, ask in asked.items()} for _ in range(form.slices)]
    rates = [{name: each.answers / each.seconds for name, each in turn.items()} for turn in turns]
    return {
        name: {
            "per_second": median(turn[name] for turn in rates),
            "of_empty": median(turn[name] / turn["empty"] for turn in rates),
            "generator_busy": max(turn[name].busy for turn in turns),
        }
        for name in asked
    }


request_of_nothing = reading(PATH)
"""The same GET as the others', of the route that does nothing."""


def _sdk(few: int, many: int, calls: int) -> dict[str, list[float]]:
    """Median milliseconds of a call of Twilio's own SDK, which is most of it; among few and among many, in turn."""
    clients = [_client(port) for port in (few, many)]
    asked: dict[str, Callable[[Client], list[Any]]] = {
        "participants.list": lambda client: client.conferences(CONFERENCE.sid).participants.list(),
        "conferences.list": lambda client: client.conferences.list(page_size=PAGE, limit=PAGE),
    }
    taken = {name: [[_taken(ask, each) for each in clients] for _ in range(calls)] for name, ask in asked.items()}
    return {name: [median(column) for column in zip(*times, strict=True)] for name, times in taken.items()}


def _client(port: int) -> Client:
    client = Client(ACCOUNT, TOKEN)
    client.api.base_url = f"http://127.0.0.1:{port}"
    return client


def _taken(ask: Callable[[Client], list[Any]], client: Client) -> float:
    began = time.perf_counter()
    found = ask(client)
    took = (time.perf_counter() - began) * 1000
    if len(found) != PAGE:
        raise RuntimeError(f"expected {PAGE}, and the SDK found {len(found)}")
    return took


def _post(port: int, seconds: float) -> dict[str, dict[str, float]]:
    """How long callbacks wait for their 204 at a steady rate, while nobody reads, and while four read flat out."""
    requests = [request(each) for each in callbacks(round(2 * RATE * seconds))]
    half = len(requests) // 2
    alone = steadily(port, requests[:half], RATE)
    command = [*machine.PYTHON, "bench.reads", str(port), DOCUMENT]
    with machine.running(command, {}, machine.OTHERS, lambda: True):
        beside = steadily(port, requests[half:], RATE)
    return {
        name: {
            "p50_ms": quantile(waits, half, 0.5) * 1000,
            "p99_ms": quantile(waits, half, 0.99) * 1000,
            "refused": half - len(waits),
        }
        for name, waits in (("alone", alone), (f"beside {READERS} readers", beside))
    }


if __name__ == "__main__":
    port, path = int(sys.argv[1]), sys.argv[2]
    deliver(port, itertools.repeat(reading(path)), seconds=math.inf, status=200, connections=READERS)
