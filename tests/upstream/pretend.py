"""Twilio's REST API without a network: answers that a test has prepared, and what was asked when."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any, NamedTuple

from app.upstream.api import Answer, Twilio, Unanswered
from tests.cast import ACCOUNT, NOON, TOKEN, at

SILENCE = Unanswered("it did not answer in time", sent=True, timed_out=True)


@dataclass
class Clock:
    """Time that passes when it is told to. Begins at noon."""

    now: float = NOON.timestamp()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def ms(self) -> int:
        return int(self.now * 1000)


class Asked(NamedTuple):
    """A request."""

    at: float
    account: str
    target: str


def conference(sid: str, account: str = ACCOUNT, **more: Any) -> dict[str, Any]:
    """A Conference resource; `more` adds or replaces some."""
    return {
        "account_sid": account,
        "sid": sid,
        "status": "in-progress",
        "friendly_name": "Stand-up",
        "region": "us1",
        "date_created": format_datetime(at(0)),
        "date_updated": format_datetime(at(5)),
        "reason_conference_ended": None,
        "call_sid_ending_conference": None,
    } | more


def participant(call: str, conference_sid: str, **more: Any) -> dict[str, Any]:
    """A Participant resource; `more` adds or replaces some."""
    return {
        "call_sid": call,
        "conference_sid": conference_sid,
        "label": "anna",
        "status": "connected",
        "muted": True,
        "hold": False,
        "coaching": False,
        "call_sid_to_coach": None,
        "start_conference_on_enter": True,
        "end_conference_on_exit": False,
        "date_created": format_datetime(at(1)),
        "date_updated": format_datetime(at(2)),
    } | more


def answer(body: Any, status: int = 200, **headers: str) -> Answer:
    """An answer with this JSON, or with these bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def people(*listed: Mapping[str, Any], following: str | None = None) -> Answer:
    """A list of participants."""
    return answer({"participants": list(listed), "next_page_uri": following})


UNKNOWN = answer({"code": 20404, "message": "not found", "status": 404}, 404)
Answers = Callable[[str, str], Answer | Exception | None]


@dataclass
class Pretend(Twilio):
    """Answers with what `answers` makes of account and target; an exception is raised, None is as all is well."""

    clock: Clock
    accounts: tuple[str, ...] = (ACCOUNT,)
    answers: Answers = lambda *_: None
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__("http://127.0.0.1:1", {each: (each, TOKEN.encode()) for each in self.accounts})

    def send(self, method: str, account_sid: str, target: str, body: bytes) -> Answer:
        assert (method, body) == ("GET", b"")
        self.asked.append(Asked(self.clock.now, account_sid, target))
        given = self.answers(account_sid, target) or well(account_sid, target)
        if isinstance(given, Exception):
            raise given
        return given._replace(date=format_datetime(at(int(self.clock.now - NOON.timestamp())), usegmt=True))


def well(account: str, target: str) -> Answer:
    """A conference that goes on with one person; of lists of conferences an empty one."""
    path = target.partition("?")[0].removesuffix(".json")
    if path.endswith("/Conferences"):
        return answer({"conferences": [], "next_page_uri": None})
    if path.endswith("/Participants"):
        sid = path.split("/")[-2]
        return people(participant("CA" + sid[2:], sid))
    return answer(conference(path.split("/")[-1], account))
