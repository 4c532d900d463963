"""The Debugger's webhook: what Twilio tells of a failure, and the callback inside that did not get through.

A form with Sid, AccountSid, Timestamp, Level and a Payload in JSON (Twilio docs, Debugging Events Webhook). The request
that failed stands in the payload's `webhook.request`; that its `parameters` are a callback's own is not documented.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from app.twilio.sids import is_sid
from app.twilio.signature import Malformed
from app.twilio.streams import Notice, Pairs, pairs_of, parsed

MARK = b"Payload="
"""In every form of the Debugger's, for Twilio escapes no letters; in few others."""
_CODE = re.compile(r"[0-9]{1,6}")


def is_alert(fields: Pairs) -> bool:
    """Whether these are the Debugger's.

    A signature does not prove where a name ends and its value begins, so somebody who is heard in a callback, by a name
    or an address of his, might have got hold of it and moved its borders, to make an alert of it. But what is signed of
    a callback goes on, after its account, with a ConferenceSid or CallSid or what sorts before those; of an alert, with
    its Level. Nothing else is an alert.
    """
    told = _first(fields)
    return (
        b"Payload" in told
        and is_sid("NO", _text(told.get(b"Sid")))
        and is_sid("AC", _text(told.get(b"AccountSid")))
        and sorted(told)[:2] == [b"AccountSid", b"Level"]
    )


def contents(fields: Pairs) -> Pairs | Notice | None:
    """The pairs of the callback that failed, or word of a conference; None: it is about neither. Raises Malformed."""
    told = _first(fields)
    payload = _payload(told[b"Payload"])
    request = _within(_within(payload, "webhook"), "request")
    if _holds_a_callback(request.get("parameters")):
        return pairs_of(request)
    conference, account = payload.get("resource_sid"), _text(told[b"AccountSid"])
    if not isinstance(conference, str) or not is_sid("CF", conference):
        return None
    code = payload.get("error_code")
    known = isinstance(code, str) and _CODE.fullmatch(code)
    return Notice(f"debugger-{code}" if known else "debugger", account, conference)


def _first(fields: Pairs) -> dict[bytes, bytes]:
    """Of a name that is given twice the first value counts: for that account it was signed."""
    return dict(reversed(fields))


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


def _payload(text: bytes) -> dict[str, Any]:
    try:
        payload = parsed(text.decode("utf-8", "surrogateescape"))
    except RecursionError as error:
        raise Malformed("a Debugger event whose Payload is nested too deeply") from error
    except Malformed as error:
        raise Malformed(f"a Debugger event whose Payload is {error}") from error
    if not isinstance(payload, dict):
        raise Malformed("a Debugger event whose Payload is no JSON object")
    return payload


def _within(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inside = value.get(name)
    return inside if isinstance(inside, dict) else {}


def _holds_a_callback(parameters: object) -> bool:
    """Whether these are a status callback's, and not those of a request for TwiML or of another product.

    Of call progress CallbackSource tells: a request for TwiML names a call and its status, too.
    """
    names: Collection[str] = ()
    if isinstance(parameters, str):
        names = {part.partition("=")[0] for part in parameters.split("&")}
    elif isinstance(parameters, dict):
        names = parameters.keys()
    return (
        "RecordingStatus" in names
        or "CallbackSource" in names
        or ("ConferenceSid" in names and ("StatusCallbackEvent" in names or "EventName" in names))
    )
