"""Event Streams: what a sink's request holds, and the callback that each of its events mirrors.

An event of Event Streams is a CloudEvent, and those of the types com.twilio.voice.status-callback.* carry a callback's
parameters in `data.request.parameters` (Twilio docs, Event Streams, schema Voice.WebhookEvent). Out of them come the
pairs that the callback itself brings as a form. Numbers are read as the digits that stand there, and what Unicode does
not know, such as half a pair of surrogates, spoils one word and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from app.twilio.sids import is_sid
from app.twilio.signature import Malformed, form_fields

STATUS_CALLBACK = "com.twilio.voice.status-callback."
MOST_EVENTS = 2_000
"""Of one request. A CloudEvent of Twilio's has 500 bytes and more: a body of 1 MiB holds no more of them."""
MOST_PAIRS = 200
DEEPEST = 50
"""Objects and arrays in one another. Twilio's have seven; what can be read must not hang on who reads it."""

Pairs = list[tuple[bytes, bytes]]

_SPACE = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"com\.twilio(?:\.[a-z-]{1,40}){1,6}")
_OF_ACCOUNT = re.compile(r"/Accounts/(AC[0-9a-fA-F]{32})(?:/|$)")
_scanned = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str, strict=False).raw_decode


class TooMany(Malformed):
    """A request holds more events than anybody looks at."""


class Notice(NamedTuple):
    """Word of a conference that is no callback of it."""

    type: str
    account_sid: str
    conference_sid: str


def split(body: bytes) -> list[bytes]:
    """The events of a sink's request, one or an array of them, each in the bytes it came in.

    What is nested too deeply to be taken apart is one event. Raises `TooMany`, or Malformed when it is not JSON.
    """
    text = body.decode("utf-8", "surrogateescape")
    try:
        at = _behind_space(text, 0)
        if not text.startswith("[", at):
            parsed(text)
            return [body]
        events = _elements(text, at + 1)
    except RecursionError:
        return [body]
    return [event.encode("utf-8", "surrogateescape") for event in events]


def contents(event: bytes) -> Pairs | Notice | None:
    """A callback's pairs, or word of a conference; None: it is about no conference. Raises Malformed.

    A type that does not mirror a callback counts as word of the conference that it names, wherever in its data.
    """
    told = _object(event.decode("utf-8", "surrogateescape"), "an element of a sink's request")
    kind = told.get("type")
    if not isinstance(kind, str) or not kind:
        raise Malformed("an element of a sink's request without a type")
    name = kind if _NAME.fullmatch(kind) else "of a strange type"
    data = told.get("data")
    if isinstance(data, str):  # both forms are documented
        data = _object(data, f"the data of an event {name}")
    if kind.startswith(STATUS_CALLBACK):
        request = data.get("request") if isinstance(data, dict) else None
        if not isinstance(request, dict):
            raise Malformed(f"an event {name} without data.request")
        return pairs_of(request)
    if not isinstance(data, dict):
        return None
    conference = _sid_within(data, "conferencesid", "CF")
    if conference is None:
        return None
    account = _sid_within(told | {"data": data}, "accountsid", "AC") or _account_in(told.get("source"))
    if account is None:
        raise Malformed(f"an event {name} that names a conference and no account")
    return Notice(kind, account, conference)


def pairs_of(request: Mapping[str, Any]) -> Pairs:
    """The pairs that this request was made with, of a `request` with its parameters, method and URL. Raises Malformed.

    Parameters are an object, or a form as text. Those of a GET are part of its URL, and so is what its owner wrote into
    that: our callback by GET has both.
    """
    pairs = _pairs(request.get("parameters"))
    url = request.get("url")
    if request.get("method") == "GET" and isinstance(url, str):
        own = form_fields(as_bytes(url.partition("#")[0].partition("?")[2]))
        pairs += [pair for pair in own if pair not in pairs]
    return pairs


def parsed(text: str) -> Any:
    """The one JSON value that stands here, numbers as text. Raises Malformed; RecursionError where it is too deep."""
    try:
        value, end = _scanned(text, _behind_space(text, 0))
    except ValueError as error:
        raise Malformed("not JSON") from error
    if _behind_space(text, end) < len(text):
        raise Malformed("not JSON: there is more behind its end")
    if _is_too_deep(value):
        raise RecursionError(f"nested more than {DEEPEST} deep")
    return value


def readable(event: bytes) -> dict[str, Any]:
    """All that an event says, for people to read. Raises Malformed."""
    told = _object(event.decode("utf-8", "replace"), "an element of a sink's request")
    return dict(json.loads(json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")))


def as_bytes(text: str) -> bytes:
    """Text as it was sent, in UTF-8 or not. Half a pair of surrogates was sent in no form: it becomes a `?`."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _elements(text: str, at: int) -> list[str]:
    """What stands in an array that begins before `at`."""
    elements: list[str] = []
    at = _behind_space(text, at)
    while not text.startswith("]", at):
        if elements:
            if not text.startswith(",", at):
                raise Malformed("not JSON")
            at = _behind_space(text, at + 1)
        try:
            _, end = _scanned(text, at)
        except ValueError as error:
            raise Malformed("not JSON") from error
        elements.append(text[at:end])
        if len(elements) > MOST_EVENTS:
            raise TooMany(f"more than {MOST_EVENTS} events in one request")
        at = _behind_space(text, end)
    if _behind_space(text, at + 1) < len(text):
        raise Malformed("not JSON: there is more behind its end")
    return elements


def _behind_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = parsed(text)
    except RecursionError as error:
        raise Malformed(f"{what} is nested too deeply") from error
    except Malformed as error:
        raise Malformed(f"{what} is {error}") from error
    if not isinstance(value, dict):
        raise Malformed(f"{what} is no JSON object")
    return value


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inside
            for each in level
            if isinstance(each, dict | list)
            for inside in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def _pairs(parameters: object) -> Pairs:
    if isinstance(parameters, str):
        return form_fields(as_bytes(parameters))
    if not isinstance(parameters, dict):
        raise Malformed("the parameters of a request are neither an object nor a form")
    pairs = [
        (as_bytes(name), _value(each))
        for name, value in parameters.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    if len(pairs) > MOST_PAIRS:
        raise Malformed(f"{len(pairs)} parameters, and at most {MOST_PAIRS} are read")
    return pairs


def _value(value: object) -> bytes:
    if isinstance(value, str):
        return as_bytes(value)
    if value is None or isinstance(value, bool):
        return {None: b"", True: b"true", False: b"false"}[value]
    raise Malformed("a parameter of a request is neither text nor a number")


def _sid_within(value: Mapping[str, Any], name: str, kind: str) -> str | None:
    """The sid that stands under this name, as it would be spelled without underscores and capitals, the least deep."""
    level = [value]
    while level:
        for each in level:
            for key, inside in each.items():
                if key.lower().replace("_", "") == name and isinstance(inside, str) and is_sid(kind, inside):
                    return inside
        level = [inside for each in level for inside in each.values() if isinstance(inside, dict)]
    return None


def _account_in(source: object) -> str | None:
    found = _OF_ACCOUNT.search(source) if isinstance(source, str) else None
    return found[1] if found else None
