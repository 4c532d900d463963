"""Whatever is killed, and when: nothing acknowledged is lost, and nothing counts twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import sleep
from urllib.parse import urlencode

import pytest
from msgspec.structs import replace
from redis import RedisError

from app import fold
from app.conference import document, encode
from app.events import Callback, Event
from app.simulator.sender import Sender
from app.simulator.stories import shuffled, story
from app.store import embedded
from app.store.connect import connect
from app.store.feed import subscribe
from app.store.snapshots import Snapshots
from app.twilio.callbacks import read
from tests.cast import ACCOUNT
from tests.system.house import House, awaited

KILLS = int(os.environ.get("KILLS", "12"))
"""More of them: KILLS=200 pytest tests/system/test_kill.py"""
SENDERS = 6


def stories(seed: int) -> Iterator[dict[str, str]]:
    """Endless callbacks of conferences, several at a time, as an unreliable network delivers them."""
    rng = random.Random(seed)
    while True:
        told = [story(rng, ACCOUNT, datetime(2026, 11, 22, 12, tzinfo=UTC)) for _ in range(4)]
        for callback in shuffled(rng, [callback for one in told for callback in one]):
            yield callback.parameters


class Load:
    """Senders that repeat each callback until it is acknowledged, and remember it then."""

    def __init__(self, house: House, seed: int) -> None:
        self.house = house
        self.seed = seed
        self.stop = threading.Event()
        self.acknowledged: list[dict[str, str]] = []
        self.attempts = 0

    def send(self, number: int) -> None:
        sender = Sender(f"{self.house.url}/webhooks/twilio", self.house.environ["TWILIO_AUTH_TOKEN"], timeout=3.0)
        for parameters in stories(self.seed + number):
            if self.stop.is_set():
                return
            status = 0
            while not 200 <= status < 300:
                status = sender.send(parameters)
                self.attempts += 1
                assert status in (0, 204, 503), f"answered {status}"
                if status != 204:
                    sleep(0.02)  # a sender's pause before it tries again
            self.acknowledged.append(parameters)

    def await_more(self, number: int) -> None:
        """Wait until so many more have been acknowledged."""
        goal = len(self.acknowledged) + number
        awaited("callbacks are acknowledged again", lambda: len(self.acknowledged) >= goal)


def kill_one(house: House, rng: random.Random) -> None:
    """SIGKILL for one process of a kind."""
    kind = rng.choice(["valkey", "worker", "web", "web"])
    victims = awaited(f"a {kind} to kill", lambda: house.processes()[kind])
    os.kill(rng.choice(victims), signal.SIGKILL)


@pytest.mark.timeout(60 + KILLS * 5)
@pytest.mark.parametrize("seed", [20261122])
def test_nothing_acknowledged_is_lost_or_counted_twice_whatever_is_killed(open_house, seed):
    house = open_house(WEB_CONCURRENCY="2").ready()
    load, rng = Load(house, seed), random.Random(seed)
    with ThreadPoolExecutor(SENDERS) as pool:
        sending = [pool.submit(load.send, number) for number in range(SENDERS)]
        try:
            for _ in range(KILLS):
                load.await_more(rng.randint(5, 60))
                kill_one(house, rng)
        finally:
            load.stop.set()
        for sender in sending:
            sender.result()

    expected = events_of(load.acknowledged)
    awaited("a house that has folded everything", lambda: settled(house))
    snapshots = Snapshots(connect(embedded.url(house.folder / "data"), patience=5.0), 16)
    print(f"{KILLS} kills, {load.attempts} attempts, {len(load.acknowledged)} acknowledged, {len(expected)} distinct")
    assert check(snapshots, expected) == snapshots.counters()["folded"]
    verified = house.command("verify")
    assert verified.returncode == 0, verified.stdout
    assert house.stop() == 0


def settled(house: House) -> bool:
    """Nothing waits in any inbox."""
    stats = house.get("/api/stats")
    return bool(stats) and stats["callbacks"]["waiting"] == 0


def events_of(acknowledged: list[dict[str, str]]) -> dict[str, Event]:
    """What was acknowledged, each event once."""
    bodies = [Callback(body=urlencode(told).encode(), received_at=0, key="") for told in acknowledged]
    return {event.id: event for event in map(read, bodies)}


def check(snapshots: Snapshots, expected: dict[str, Event]) -> int:
    """Each conference's log holds exactly its callbacks, each once, and its document is their fold. How many in all."""
    checked = 0
    of_conference: dict[str, list[Event]] = {}
    of_call: dict[str, list[Event]] = {}
    for event in expected.values():
        if event.conference_sid:
            of_conference.setdefault(event.conference_sid, []).append(event)
        else:
            of_call.setdefault(str(event.call_sid), []).append(event)
    for sid, events in of_conference.items():
        kept = snapshots.load({sid: None})[sid].conference
        told = events + [
            replace(event, conference_sid=sid) for call in kept.participants for event in of_call.get(call, ())
        ]
        checked += len(told)
        logged = [entry.event_id for entry in snapshots.log(sid)]
        assert sorted(logged) == sorted(event.id for event in told)
        oracle = fold.fold(told)
        header = replace(oracle.header, revision=kept.header.revision, heard_at=kept.header.heard_at)
        assert document(encode(kept.header), map(encode, kept.in_order())) == document(
            encode(header), map(encode, oracle.in_order())
        )
    assert sorted(of_conference) == sorted(snapshots.sids())
    return checked


@pytest.mark.timeout(120)
def test_deleting_every_key_of_rq_loses_nothing(open_house):
    house = open_house().ready()
    load = Load(house, 11)
    redis = connect(embedded.url(house.folder / "data"), patience=5.0)
    with ThreadPoolExecutor(SENDERS) as pool:
        sending = [pool.submit(load.send, number) for number in range(SENDERS)]
        try:
            for _ in range(10):
                load.await_more(50)
                for name in redis.scan_iter(match="rq:*"):
                    redis.delete(name)
        finally:
            load.stop.set()
        for sender in sending:
            sender.result()
    awaited("a house that has folded everything", lambda: settled(house))
    check(Snapshots(redis, 16), events_of(load.acknowledged))


@pytest.mark.timeout(120)
def test_revisions_rise_by_exactly_one_while_workers_are_killed(open_house):
    house = open_house("--workers", "2").ready()
    load, rng = Load(house, 7), random.Random(7)
    redis = connect(embedded.url(house.folder / "data"), patience=5.0)
    messages: list[bytes] = []
    with subscribe(redis) as published, ThreadPoolExecutor(SENDERS) as pool:
        threading.Thread(target=lambda: collect(published, messages), daemon=True).start()
        sending = [pool.submit(load.send, number) for number in range(SENDERS)]
        try:
            for _ in range(6):
                load.await_more(100)
                os.kill(rng.choice(awaited("a worker", lambda: house.processes()["worker"])), signal.SIGKILL)
            load.await_more(100)
        finally:
            load.stop.set()
        for sender in sending:
            sender.result()
        awaited("a house that has folded everything", lambda: settled(house))
        snapshots = Snapshots(connect(embedded.url(house.folder / "data"), patience=5.0), 16)
        last = {sid: revision_of(snapshots, sid) for sid in snapshots.sids()}
        awaited("all messages", lambda: len(messages) >= sum(last.values()))
    heard: dict[str, list[int]] = {}
    for message in messages:
        told = json.loads(message)
        heard.setdefault(told["conference_sid"], []).append(told["revision"])
    assert heard == {sid: list(range(1, revision + 1)) for sid, revision in last.items()}


def collect(published: Iterator[bytes], messages: list[bytes]) -> None:
    with contextlib.suppress(RedisError, ValueError, OSError):  # the end of the test closes the subscription
        for message in published:
            messages.append(message)  # noqa: PERF402 - each is to be seen as it comes


def revision_of(snapshots: Snapshots, sid: str) -> int:
    kept = snapshots.load({sid: None})
    return kept[sid].conference.header.revision
