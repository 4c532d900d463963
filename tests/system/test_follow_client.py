"""The Python client on a real Offhook whose web process is killed and started again, while callbacks come."""

from __future__ import annotations

import os
import random
import signal
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Thread

import pytest

import offhook
from app.simulator.sender import Sender
from app.simulator.stories import story
from offhook import Change, Document, follow
from tests.cast import ACCOUNT
from tests.system.house import House, awaited

RESTARTS = 3


def tell(house: House, seed: int) -> None:
    """Send the callbacks of a few conferences, each until it is acknowledged."""
    rng = random.Random(seed)
    told = [story(rng, ACCOUNT, datetime(2026, 11, 22, 12, tzinfo=UTC)) for _ in range(3)]
    sender = Sender(f"{house.url}/webhooks/twilio", house.environ["TWILIO_AUTH_TOKEN"], timeout=3.0)
    for callback in (each for one in told for each in one):
        awaited("an acknowledgement", lambda parameters=callback.parameters: sender.send(parameters) == 204)


def told_by(changes: list[Change]) -> dict[str, list[Document]]:
    """The documents of each conference, one after the other."""
    told = defaultdict(list)
    for each in changes[:]:
        told[each.conference["sid"]].append(each.conference)
    return told


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_client_misses_no_revision_while_the_web_process_is_restarted(open_house, monkeypatch, number):
    monkeypatch.setattr(offhook, "LONGEST_WAIT", 0.2)
    house = open_house(WEB_CONCURRENCY="1").ready()
    changes: list[Change] = []
    with follow(house.url, (ACCOUNT, house.environ["TWILIO_AUTH_TOKEN"])) as live, ThreadPoolExecutor() as pool:
        following = Thread(target=lambda: changes.extend(live))
        following.start()
        awaited("an empty beginning", lambda: live.state == "live")
        sending = []
        for restart in range(RESTARTS):
            sending.append(pool.submit(tell, house, restart))
            before, heard = house.processes()["web"], len(changes)
            awaited("news", lambda heard=heard: len(changes) > heard)
            for pid in before if number == signal.SIGKILL else before[:1]:
                os.kill(pid, number)
            awaited("the loss", lambda: live.state == "lost")
            awaited("another web process", lambda before=before: set(house.processes()["web"]) - set(before))
            awaited("being up to date again", lambda: live.state == "live")
        for each in sending:
            each.result()

        awaited("everything folded", lambda: (stats := house.get("/api/stats")) and not stats["callbacks"]["waiting"])
        listed = house.get("/api/conferences?expand=participants&limit=500")["conferences"]
        final = {each["sid"]: each for each in listed}
        awaited("everything told", lambda: {sid: each[-1] for sid, each in told_by(changes).items()} == final)
        live.close()
        following.join(10)
    assert len(final) == RESTARTS * 3
    for sid, documents in told_by(changes).items():
        assert [each["revision"] for each in documents] == list(range(1, final[sid]["revision"] + 1))
    assert live.conferences == {sid: each for sid, each in final.items() if each["status"] != "completed"}
    assert sum(len(each.events) for each in changes) == house.get("/api/stats")["callbacks"]["folded"]
