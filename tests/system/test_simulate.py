"""`offhook simulate --api` as its users meet it: the official SDK talks to it, and a webhook hears what follows."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twilio.rest import Client

from app.simulator.faults import Faults
from tests.cast import ACCOUNT
from tests.simulator.conftest import Request, Webhook, webhook  # noqa: F401 - a fixture
from tests.system.house import House, awaited

TOKEN = "a-pretend-auth-token"
ENVIRON = {
    **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
    "TWILIO_ACCOUNT_SID": ACCOUNT,
    "TWILIO_AUTH_TOKEN": TOKEN,
}


def simulate(*arguments: str) -> list[str]:
    """The command."""
    return [sys.executable, "-m", "app", "simulate", *arguments]


@pytest.fixture
def double() -> Iterator[subprocess.Popen[str]]:
    """The double with no stories, on a port of its own choice."""
    command = simulate("--api", "--api-port", "0", "--conferences", "0", "--speed", "100")
    with subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_the_double_answers_the_sdk_and_ends_well_without_a_story(
    double: subprocess.Popen[str],
    webhook: Webhook,  # noqa: F811
) -> None:
    arrived = threading.Event()

    def answer(_: Request) -> int:
        arrived.set()
        return 204

    webhook.answer = answer
    client = Client(ACCOUNT, TOKEN)
    client.api.base_url = re.search(r"http://127.0.0.1:\d+", double.stdout.readline()).group()
    leg = client.conferences("Kitchen").participants.create(
        from_="+12065550100",
        to="+12065550101",
        conference_status_callback=f"{webhook.origin}/hook",
        conference_status_callback_event=["join", "end"],
    )
    assert client.conferences(leg.conference_sid).update(status="completed").status == "completed"
    client.http_client.session.close()
    assert arrived.wait(30)
    double.send_signal(signal.SIGTERM)
    assert double.wait(30) == 0
    assert [request.parameters["StatusCallbackEvent"] for request in webhook.requests] == ["conference-end"]


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = simulate("--api", "--api-port", str(port))
        ended = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "--api-port" in ended.stderr


def test_nothing_to_do_is_said() -> None:
    ended = subprocess.run(simulate("--conferences", "0"), env=ENVIRON, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "--api" in ended.stderr


def test_callbacks_are_lost_on_purpose_by_seed_and_counted(webhook: Webhook) -> None:  # noqa: F811
    faults = ("--lose", "0.3", "--delay", "1", "--duplicate", "0.1", "--reorder", "0.1")
    few = ("--url", f"{webhook.origin}/hook", "--conferences", "1", "--speed", "500", "--seconds", "1.5", "--seed", "3")
    ended = subprocess.run(simulate(*few, *faults), env=ENVIRON, capture_output=True, text=True, timeout=60, check=True)
    assert "--seed 3" in ended.stdout
    assert int(re.findall(r"(\d+) lost on purpose", ended.stdout)[-1]) > 0
    told = [request.parameters for request in webhook.requests if "StatusCallbackEvent" in request.parameters]
    first = [one for one in told if one["ConferenceSid"] == told[0]["ConferenceSid"]]
    passing = [one for one in first if one["StatusCallbackEvent"] != "conference-end"]  # a stop loses no end
    numbers = [int(one["SequenceNumber"]) for one in passing]
    assert numbers != sorted(numbers)
    assert max(Counter(numbers).values()) > 1
    assert len(set(numbers)) < max(numbers)
    assert all(Faults(lose=0.3).fate(3, one) for one in passing)


def variable(pid: int, name: str) -> str | None:
    """A variable in the environment of a running process."""
    entries = dict(entry.partition("=")[::2] for entry in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return entries.get(name)


def test_in_the_demo_whom_the_double_kicks_offhook_sees_leave(open_house: Callable[..., House]) -> None:
    house = open_house("--demo").ready()
    web = house.processes()["web"][0]
    client = Client(ACCOUNT, house.environ["TWILIO_AUTH_TOKEN"])
    client.api.base_url = variable(web, "TWILIO_API_BASE_URL")
    assert variable(web, "OFFHOOK_API_KEYS").endswith(":control")

    def somebody() -> tuple[str, str] | None:
        for conference in house.get("/api/conferences?expand=participants")["conferences"]:
            for one in conference["participants"]:
                if one["status"] == "connected":
                    return conference["sid"], one["call_sid"]
        return None

    sid, call = awaited("somebody in a conference", somebody)
    assert client.conferences(sid).participants(call).delete() is True
    client.http_client.session.close()

    def left() -> str | None:
        participants = house.get(f"/api/conferences/{sid}")["participants"]
        return next(one["reason_left"] for one in participants if one["call_sid"] == call)

    assert awaited("the leave", left) == "participant_updated_via_api"


def test_the_demo_leaves_an_api_that_the_operator_has_named(open_house: Callable[..., House]) -> None:
    house = open_house("--demo", TWILIO_API_BASE_URL="https://api.example.com").ready()
    web = house.processes()["web"][0]
    assert variable(web, "TWILIO_API_BASE_URL") == "https://api.example.com"
