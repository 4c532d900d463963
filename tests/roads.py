"""The roads by which a callback comes: as a form, in an event of Event Streams, in an alert of the Debugger."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from app.events import Callback
from tests.cast import ACCOUNT

UPDATED = "com.twilio.voice.status-callback.conference.participant.updated"
HERE = "https://hooks.example.com/webhooks/twilio"


def streamed(told: Mapping[str, Any] | str, kind: str = UPDATED, *, url: str = HERE, **request: Any) -> dict[str, Any]:
    """The CloudEvent that mirrors a callback with these parameters."""
    return {
        "specversion": "1.0",
        "type": kind,
        "source": f"/2010-04-01/Accounts/{ACCOUNT}/Conferences",
        "id": "EZ" + "0" * 32,
        "time": "2026-11-22T12:00:00.123Z",
        "data": {
            "timestamp": "2026-11-22T12:00:00.123Z",
            "request": {"method": "POST", "url": url, "parameters": told, **request},
            "response": {"responseCode": 200, "requestDuration": 12},
        },
    }


def alerted(told: Mapping[str, Any] | str | None, *, account: str = ACCOUNT, **payload: Any) -> dict[str, str]:
    """The Debugger's parameters for a callback with these that failed; None: it is about no request."""
    said: dict[str, Any] = {"resource_sid": "NO" + "1" * 32, "error_code": "11200", "more_info": {"Msg": "Bad gateway"}}
    if told is not None:
        request = {"url": HERE, "method": "POST", "parameters": told}
        said["webhook"] = {"type": "application/json", "request": request, "response": {"status_code": None}}
    return {
        "Sid": "NO" + "0" * 32,
        "AccountSid": account,
        "Timestamp": "2026-11-22T12:00:01Z",
        "Level": "ERROR",
        "PayloadType": "application/json",
        "Payload": json.dumps(said | payload),
    }


def by_stream(event: Any) -> Callback:
    """An event of Event Streams, as the webhook stores it."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return Callback(body=body, media="json", received_at=1_795_348_800_000, key="main")


def by_debugger(told: Mapping[str, str]) -> Callback:
    """An alert of the Debugger, as the webhook stores it."""
    return Callback(body=urlencode(told).encode(), received_at=1_795_348_800_000, key="main")
