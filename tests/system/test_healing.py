"""Callbacks are lost on their way to a real Offhook, which looks at Twilio's REST API and then knows again what is so.

The exchange, its REST double and the bad line are in this process.
"""

from __future__ import annotations

import threading
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from random import Random

import pytest
import requests as http

from app.simulator.agenda import Agenda
from app.simulator.api import Double
from app.simulator.exchange import Exchange
from app.simulator.faults import Faults, Line
from app.simulator.post import Post
from app.simulator.sender import Sender
from app.simulator.stories import story
from tests.cast import ACCOUNT
from tests.chaos.ledger import await_settled
from tests.system.house import House, awaited, free_port
from tests.truth import truth, untrue

CONFERENCES = 30
SPEED = 20.0
STAGGER = 0.05
"""Seconds from one conference's beginning to the next one's."""
SEED = 20261122
FAULTS = Faults(lose=0.08, delay=2, duplicate=0.05, reorder=0.1, burst=0.03)
AUTH_TOKEN = "a-pretend-auth-token"


class Town:
    """An exchange with its REST double, and a line to a webhook."""

    def __init__(self, webhook: str, port: int, faults: Faults) -> None:
        self._post = Post(Sender(webhook, AUTH_TOKEN))
        self._agenda = Agenda()
        self.put = 0
        self._lock = threading.Lock()
        self.torn_off: set[str] = set()
        """Conferences of which nothing is told any more."""
        self.line = Line(faults, SEED, self._send, self._agenda.later, speed=SPEED)
        self.exchange = Exchange(ACCOUNT, self._tell, self._agenda.later, speed=SPEED)
        self.double = Double(self.exchange, AUTH_TOKEN, port=port)

    def _tell(self, url: str | None, parameters: Mapping[str, str]) -> None:
        if parameters.get("ConferenceSid") not in self.torn_off:
            self.line.send(url, parameters)

    def _send(self, url: str | None, parameters: Mapping[str, str]) -> None:
        with self._lock:
            self.put += 1
        self._post.put(url, parameters)

    def play(self, *, tears: bool) -> list[str]:
        """Play the conferences and wait until all is told. Returns their sids.

        Half of them go on, for their stories break off. Where the line `tears`, most of each third is not told at all.
        """
        rng = Random(SEED)
        over = threading.Event()
        sids, last = [], 0.0
        for number in range(CONFERENCES):
            callbacks = story(rng, ACCOUNT, datetime.now(UTC), name=f"Room {number}", minutes=0.5, speed=SPEED)
            told = [(one.at, one.parameters) for one in callbacks]
            sids.append(told[0][1]["ConferenceSid"])
            for at, parameters in told if number % 2 else told[: rng.randint(len(told) // 2, len(told) - 1)]:
                last = max(last, at + number * STAGGER)
                self._agenda.later(at + number * STAGGER, partial(self.exchange.play, sids[-1], parameters))
            if tears and number % 3 == 0:
                torn_off_at = told[len(told) // 3][0] + number * STAGGER
                self._agenda.later(torn_off_at, partial(self.torn_off.add, sids[-1]))
        self._agenda.later(last + 30 / SPEED, over.set)
        assert over.wait(60)
        awaited("all that has been sent to be answered", lambda: self._post.report().sent == self.put)
        assert self._post.report().accepted == self.put
        return sids

    def close(self) -> None:
        """Stop everything."""
        self.double.close()
        self._agenda.close()
        self._post.close()


@contextmanager
def town(webhook: str, port: int, faults: Faults) -> Iterator[Town]:
    built = Town(webhook, port, faults)
    try:
        yield built
    finally:
        built.close()


def look_now(house: House, sid: str) -> int:
    """Ask as an operator for one to be looked at."""
    request = urllib.request.Request(f"{house.url}/api/conferences/{sid}/reconcile", method="POST")
    words = f"{ACCOUNT}:{AUTH_TOKEN}".encode()
    request.add_header("Authorization", f"Basic {b64encode(words).decode()}")
    with urllib.request.urlopen(request, timeout=5) as answer:
        return int(answer.status)


def healing(open_house: Callable[..., House], port: int) -> House:
    """An Offhook that may look at the double on this port as often as it wants to."""
    return open_house(
        TWILIO_AUTH_TOKEN=AUTH_TOKEN,
        TWILIO_API_BASE_URL=f"http://127.0.0.1:{port}",
        OFFHOOK_RECONCILE="on",
        OFFHOOK_RECONCILE_RATE="50",
        OFFHOOK_ADOPT="off",
    ).ready()


@pytest.mark.timeout(120)
def test_after_losses_offhook_knows_again_what_twilio_knows(open_house: Callable[..., House]) -> None:
    port = free_port()
    house = healing(open_house, port)
    with town(f"{house.url}/webhooks/twilio", port, FAULTS) as here:
        sids = here.play(tears=True)
        assert here.line.lost > 0
        await_settled(house)

        def documents() -> dict[str, dict]:
            found = ((sid, house.get(f"/api/conferences/{sid}")) for sid in sids)
            return {sid: document for sid, document in found if document is not None}

        def wrong(document: dict) -> list[str]:
            return list(untrue(document, truth(here.exchange, document["sid"])))

        def waits(document: dict) -> bool:
            """Whether it is to be looked at soon: something is known, or suspected, to be missing."""
            return document["want"] is not None and document["want"]["reason"] != "silent"

        before = documents()
        assert len(before) == CONFERENCES
        assert any(map(wrong, before.values())), "nothing to heal: the test tests nothing"
        awaited("holes to be healed", lambda: not any(map(waits, documents().values())))
        after = documents()
        torn = {sid for sid, document in after.items() if wrong(document)}  # which nobody notices for ten minutes
        assert torn
        assert torn <= here.torn_off
        for sid in torn:
            assert look_now(house, sid) == 202
        awaited("all to be as Twilio knows them", lambda: not any(map(wrong, documents().values())))
        looked = [document["coverage"]["snapshots"] for document in documents().values()]
        assert max(looked) <= 3
        print(f"{here.line.lost} callbacks lost, {here.put} sent; {len(torn)} conferences torn off unnoticed")
        print(f"{sum(looked)} looks, of one conference at most {max(looked)}")


def test_as_long_as_callbacks_come_twilio_is_not_asked_for_anything(open_house: Callable[..., House]) -> None:
    port = free_port()
    house = healing(open_house, port)
    with town(f"{house.url}/webhooks/twilio", port, Faults(duplicate=0.05)) as here:
        sids = here.play(tears=False)
        await_settled(house)
        for sid in sids:
            document = house.get(f"/api/conferences/{sid}")
            wrong = untrue(document, truth(here.exchange, sid))
            assert [each for each in wrong if "call_sid_to_coach" not in each] == [], "which no callback tells"
            assert document["coverage"]["missing"] == 0
        assert house.get("/api/stats")["twilio"] == {"requests": {}, "looks": {}}
        asked = http.get(f"{here.double.url}/double/requests", auth=(ACCOUNT, AUTH_TOKEN), timeout=5).json()
        assert asked["counts"] == {"GET": 0, "POST": 0, "DELETE": 0}
