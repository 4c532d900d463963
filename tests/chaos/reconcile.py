"""Much is lost at once, and Twilio's REST API is no help: the budget, one look each, nobody kept waiting."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import requests as http
from redis import Redis

from app.conference import read_header
from app.simulator.api import Double
from app.simulator.exchange import Exchange
from app.simulator.sender import Sender
from app.store import keys
from app.store.snapshots import Snapshots
from tests.cast import ACCOUNT, ANNA, BEN, said
from tests.chaos.crashes import redis_of
from tests.chaos.lab import Lab
from tests.chaos.ledger import SHARDS, await_settled
from tests.chaos.traffic import Flow, quantile
from tests.system.house import House, awaited

RATE, BURST = 2, 2
WINDOW = 10
"""Seconds over which requests are counted."""
NOTICED = 0.25
"""Seconds between two looks at what was asked for."""
FAULTS: list[dict[str, Any]] = [
    {"status": 429, "times": 2},
    {"status": 500, "times": 2},
    {"delay": 1.5, "times": 3},
    {"hang_up": True, "times": 1},
]
TROUBLED_EVERY = 12
"""Requests."""
EVENTS = (("conference-start", None), ("participant-join", ANNA), ("participant-join", BEN), ("participant-mute", ANNA))
LOST = 3
"""Its number."""


def reconcile(lab: Lab) -> None:
    """Conferences that each miss a callback, and a REST API that answers 429, 500, slowly, not at all, and well."""
    holes, windows, seconds = lab.of((200, 6, 10.0), (16, 3, 2.0), (4, 2, 1.0))
    exchange = Exchange(ACCOUNT, lambda *_: None, lambda *_: None)
    with Double(exchange, (token := secrets.token_hex(16))) as double:
        house = lab.house(
            OFFHOOK_RECONCILE="on", OFFHOOK_ADOPT="off", TWILIO_API_BASE_URL=double.url, TWILIO_AUTH_TOKEN=token
        )
        sids = [f"CF{number:032x}" for number in range(1, holes + 1)]
        redis = redis_of(house)
        lose_one(house, exchange, sids)
        with troubled(double, token) as asked:
            quiet, busy = by_turns(lab, house, redis, windows, seconds)
            awaited(
                "every conference to have been seen", lambda: not left(redis, sids), seconds=60 + holes * 2 / RATE * 3
            )
    await_settled(house)
    fault, looks = "callbacks lost, REST failing", [snapshots(house, sid) for sid in sids]
    lab.promise(fault, holes, "each is seen", f"{sum(map(bool, looks))} of {holes}", all(looks))
    lab.promise(fault, holes, "one look each", f"at most {max(looks)}", max(looks) == 1)
    most, allowed = most_in(asked, WINDOW), RATE * WINDOW + BURST
    lab.promise(fault, holes, f"<= {RATE} requests/s", f"at most {most} in {WINDOW} s", most <= allowed)
    lab.within(fault, holes, "callbacks' p99 10 % above that without", quiet * 1.1 + 0.001, busy)


def by_turns(lab: Lab, house: House, redis: Redis, windows: int, seconds: float) -> tuple[float, float]:
    """The p99 of callbacks without looks and with them: medians over so many windows of each, by turns.

    What else the machine does meanwhile is in both. Looks are withheld by a pause, as if Twilio had asked for it.
    """
    turns: list[tuple[float, float]] = []
    with Flow(house, lab.seed, lab.of(200, 200, 60)) as flow:
        for number in range(2 * windows):
            if number % 2 == 0:
                until = int((time.time() + seconds) * 1000)
                redis.hset(keys.budget(ACCOUNT), "paused", until)
            began = time.perf_counter()
            time.sleep(seconds)
            turns.append((began + seconds / 4, began + seconds))  # what was under way before is not counted
    tails = [quantile((each.took for each in flow.answers if a <= each.due < b), 0.99) for a, b in turns]
    return median(tails[::2]), median(tails[1::2])


def lose_one(house: House, exchange: Exchange, sids: list[str]) -> None:
    """Tell of these conferences, but for one callback each. Twilio itself knows all of it."""
    sender = Sender(f"{house.url}/webhooks/twilio", house.environ["TWILIO_AUTH_TOKEN"])
    for place, sid in enumerate(sids):
        calls = {ANNA: f"CA{2 * place:032x}", BEN: f"CA{2 * place + 1:032x}", None: None}
        for number, (event, who) in enumerate(EVENTS, start=1):
            told = said(event, calls[who], number=number, second=number, room=sid)
            if who is not None:
                told["ParticipantLabel"] = f"guest {place}"
            exchange.play(sid, told)
            if number != LOST:
                assert sender.send(told) == 204
    await_settled(house)


@contextmanager
def troubled(double: Double, token: str) -> Iterator[list[tuple[float, int]]]:
    """A block in which the API has one trouble after the other; when how many requests had been made."""
    asked: list[tuple[float, int]] = []
    over = threading.Event()

    def watch() -> None:
        number = 0
        with http.Session() as session:
            session.auth = (ACCOUNT, token)
            while not over.wait(NOTICED):
                counts = session.get(f"{double.url}/double/requests", timeout=30).json()["counts"]
                asked.append((time.monotonic(), counts["GET"]))
                if counts["GET"] >= TROUBLED_EVERY * (number + 1):
                    session.put(f"{double.url}/double/faults", json=FAULTS[number % len(FAULTS)], timeout=30)
                    number += 1

    thread = threading.Thread(target=watch, daemon=True, name="troubles")
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()


def most_in(asked: list[tuple[float, int]], seconds: float) -> int:
    """The most requests in any time of this length, as far as they were noticed."""
    return max((last - first for at, first in asked for when, last in asked if at < when <= at + seconds), default=0)


def left(redis: Redis, sids: list[str]) -> int:
    """How many of these have not been seen yet."""
    headers = Snapshots(redis, SHARDS).headers(sids)
    return sum(raw is None or read_header(raw).coverage.snapshots == 0 for raw in headers)


def snapshots(house: House, sid: str) -> int:
    """How many looks a conference's log holds."""
    logged = house.get(f"/api/conferences/{sid}/events?limit=500")
    return sum(each["source"] == "snapshot" for each in logged["events"])
