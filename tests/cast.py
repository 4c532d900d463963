"""The standing cast: one account, one room, three people; and how to say what happens to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from app.events import Callback, Event
from app.twilio.callbacks import read

ACCOUNT, TOKEN = "AC" + "a" * 32, "a pretend auth token"
ROOM = "CF" + "b" * 32
ANNA, BEN, CLEO = ("CA" + digit * 32 for digit in "123")
NAMES = {ANNA: "anna", BEN: "ben", CLEO: "cleo"}
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So long after noon."""
    return NOON + timedelta(seconds=seconds)


def said(
    event: str, call: str | None = None, *, number: int | None, second: int, room: str = ROOM, **more: str
) -> dict[str, str]:
    """Twilio's parameters for a conference event, `second` seconds after noon; `more` adds or replaces some."""
    told = {
        "AccountSid": ACCOUNT,
        "ConferenceSid": room,
        "FriendlyName": "Stand-up",
        "StatusCallbackEvent": event,
        "Timestamp": format_datetime(at(second)),
    }
    if number is not None:
        told["SequenceNumber"] = str(number)
    if call is not None:
        told |= {
            "CallSid": call,
            "ParticipantLabel": NAMES.get(call, "guest"),
            "Muted": "false",
            "Hold": "false",
            "Coaching": "false",
            "StartConferenceOnEnter": "true",
            "EndConferenceOnExit": "false",
        }
    return told | more


def progress(call: str, status: str, *, number: int, second: int, **more: str) -> dict[str, str]:
    """Twilio's parameters for a call-progress callback."""
    return {
        "AccountSid": ACCOUNT,
        "CallSid": call,
        "CallStatus": status,
        "CallbackSource": "call-progress-events",
        "SequenceNumber": str(number),
        "Timestamp": format_datetime(at(second)),
        "From": "+15550100",
        "To": "+15550101",
        "Direction": "outbound-api",
    } | more


def callback(told: dict[str, str], *, received_at: int = 1_795_348_800_000, **more: Any) -> Callback:
    """The callback that carries these parameters, as the webhook would have stored it."""
    return Callback(body=urlencode(told).encode(), received_at=received_at, key="main", **more)


def event(told: dict[str, str]) -> Event:
    """The event that these parameters tell of."""
    return read(callback(told))
