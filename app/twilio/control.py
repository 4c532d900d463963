"""What a control request asks of Twilio, which callbacks it should lead to, and what Twilio's answer tells.

Parameters are those of Twilio's docs: Conference resource, Participant resource, conference Recordings resource.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from posixpath import normpath
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from app.conference import Participant
from app.events import Action, Answer, Verb
from app.twilio.sids import is_sid
from app.twilio.times import read_time
from app.twilio.twiml import EVENTS

Fields = Sequence[tuple[str, str]]

SOON = timedelta(seconds=30)
"""How long the callback of a request may take that is carried out at once."""
ANNOUNCED_WITHIN = timedelta(minutes=10)
"""An announcement is reported when it has ended."""
DIALLED_WITHIN = timedelta(seconds=60)
"""Twilio queues calls, by default one a second (Twilio docs, Participant resource), before they ring for `Timeout`."""

NOT_KEPT = "(not kept)"
PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
"""What a parameter's name can be. A body that is no form reads as one long, strange name."""
SECRET = re.compile("password|secret|token|passport|sipauth", re.IGNORECASE)
CREDENTIALS = (
    (re.compile(r"(?<=//)[^/?#\s]*@"), ""),
    (re.compile(r"(sips?:[^@:;?\s]+):[^@\s]*@", re.IGNORECASE), r"\1@"),
    (re.compile(rf"([?&][^=&#\s]*(?:{SECRET.pattern})[^=&#\s]*=)[^&#\s]*", re.IGNORECASE), rf"\1{NOT_KEPT}"),
)

PLAIN_HOST = re.compile(r"(?:[^@\[\]]*@)?(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
"""The part of a URL between // and the path: one that no two programs read differently."""
BLANK = re.compile(r"[\\\s\x00-\x20]")

FLAGS = {
    "Muted": "muted",
    "Hold": "hold",
    "Coaching": "coaching",
    "EndConferenceOnExit": "end_conference_on_exit",
}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down of a control request, of its answer, and of no callback having followed. Whole each time."""

    step: Literal["requested", "answered", "expired"]
    account_sid: str
    conference_sid: str
    resource: str
    """The path below the account that was asked for."""
    parameters: Fields
    """As sent, less secrets."""
    action: Action
    friendly_name: str | None = None
    answer: Answer | None = None


encode_record = msgspec.json.Encoder().encode
read_record = msgspec.json.Decoder(Record).decode


def awaited(verb: Verb, fields: Fields, participant: Participant | None) -> tuple[str, ...]:
    """What callbacks are to tell when Twilio has done as asked (see `Action.awaits`).

    Empty where none will come: because the participant stands so already, or because callbacks do not show it.
    """
    asked = dict(fields)
    if verb == "add-participant":
        return ("participant-join",)
    if verb == "remove-participant":
        return ("participant-leave",)
    if verb == "update-recording":
        return ("recording-stopped",) if asked.get("Status") == "stopped" else ()
    words: list[str] = []
    if verb == "update-conference" and asked.get("Status") == "completed":
        words.append("conference-end")
    if verb in ("update-conference", "update-participant") and asked.get("AnnounceUrl"):
        words.append(f"announcement-end {without_credentials(asked['AnnounceUrl'])[:256]}")
    if verb == "update-participant":
        words += _changed(asked, participant)
    return tuple(sorted(words))


def _changed(asked: Mapping[str, str], participant: Participant | None) -> Iterable[str]:
    """Flags that are not yet as asked; another coachee, and what no flag shows, is only told to be a modification."""
    wanted = {flag: _is_true(asked[name]) for name, flag in FLAGS.items() if name in asked}
    if asked.get("CallSidToCoach"):
        wanted.setdefault("coaching", True)
    fresh = {flag: value for flag, value in wanted.items() if getattr(participant, flag, None) is not value}
    yield from (f"{flag}={str(value).lower()}" for flag, value in fresh.items())
    if not fresh and (asked.get("CallSidToCoach") or "BeepOnExit" in asked or asked.get("WaitUrl")):
        yield "participant-modify"


def _is_true(text: str) -> bool:
    """Anything but true counts as false (Twilio docs, Participant resource, Muted)."""
    return text.lower() == "true"


def patience(awaits: Collection[str], fields: Fields) -> timedelta:
    """How long the callbacks may take."""
    if "participant-join" in awaits:
        rings = dict(fields).get("Timeout", "")
        return DIALLED_WITHIN + timedelta(seconds=int(rings) if re.fullmatch("[0-9]{1,3}", rings) else 60)
    return ANNOUNCED_WITHIN if any(word.startswith("announcement") for word in awaits) else SOON


def without_secrets(fields: Fields) -> list[tuple[str, str]]:
    """The parameters as they may be written down: no passwords, no tokens, no credentials in URLs, no strange names."""
    return [
        (name, NOT_KEPT if SECRET.search(name) else without_credentials(value))
        if PARAMETER.fullmatch(name)
        else (NOT_KEPT, NOT_KEPT)
        for name, value in fields
    ]


def without_credentials(url: str) -> str:
    """A URL as it may be written down."""
    for secret, kept in CREDENTIALS:
        url = secret.sub(kept, url)
    return url


class Told(NamedTuple):
    """What an answer of Twilio's tells."""

    conference_sid: str | None = None
    call_sid: str | None = None
    recording_sid: str | None = None
    friendly_name: str | None = None
    code: int | None = None
    answer: Answer | None = None


class _Resource(msgspec.Struct):
    """As much as is read of a Conference, a Participant, a Recording or an error. Anything may stand in a field."""

    sid: Any = None
    conference_sid: Any = None
    call_sid: Any = None
    friendly_name: Any = None
    label: Any = None
    region: Any = None
    date_created: Any = None
    date_updated: Any = None
    queue_time: Any = None
    call_sid_to_coach: Any = None
    code: Any = None


def read_answer(verb: Verb, status: int, body: bytes) -> Told:
    """What Twilio's answer tells; nothing, where it is no JSON or not what was expected."""
    try:
        resource = msgspec.json.decode(body, type=_Resource)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Told()
    if not 200 <= status < 300:
        return Told(code=resource.code if isinstance(resource.code, int) else None)
    created, updated = _time(resource.date_created), _time(resource.date_updated)
    if verb == "update-conference":
        region = _text(resource.region)
        answer = Answer(created_at=created, updated_at=updated, region=None if region == "unknown" else region)
        return Told(_sid("CF", resource.sid), friendly_name=_text(resource.friendly_name), answer=answer)
    if verb not in ("add-participant", "update-participant"):
        return Told(_sid("CF", resource.conference_sid), recording_sid=_sid("RE", resource.sid))
    queued = str(resource.queue_time)
    answer = Answer(
        created_at=created,
        updated_at=updated,
        label=_text(resource.label),
        queue_time=int(queued) if re.fullmatch("[0-9]{1,12}", queued) else None,
        call_sid_to_coach=_sid("CA", resource.call_sid_to_coach),
        dialled=verb == "add-participant",
    )
    return Told(_sid("CF", resource.conference_sid), _sid("CA", resource.call_sid), answer=answer)


def _sid(kind: str, word: Any) -> str | None:
    return word if isinstance(word, str) and is_sid(kind, word) else None


def _text(word: Any) -> str | None:
    return word[:256] if isinstance(word, str) and word else None


def _time(word: Any) -> Any:
    return read_time(word) if isinstance(word, str) else None


def mistaken_events(fields: Fields) -> list[str]:
    """Conference events asked for under StatusCallbackEvent, which is about the call's progress: none will come."""
    asked = {word for name, value in fields if name == "StatusCallbackEvent" for word in value.split()}
    return sorted(asked & set(EVENTS))


class Addresses(NamedTuple):
    """Which URLs Twilio may be given."""

    hosts: frozenset[str] | None
    """Where it may fetch instructions or sound: in lower case, `*.` for every name below one. None: any host."""
    own: str
    """Our own callback address; only its path, where our host is not known."""
    spoken: frozenset[str]
    """Parameters that mean something in a callback: nobody may put words into Twilio's mouth."""


def refusal(name: str, value: str, addresses: Addresses) -> str | None:
    """Why a parameter may not be passed on, or None."""
    text = value.strip()
    if addresses.hosts is not None and not PARAMETER.fullmatch(name):
        return "A parameter has a name that Twilio cannot know, and OFFHOOK_URL_HOSTS is set."
    fetched = name.strip().lower().endswith("url")
    if not text or not (fetched or "//" in text):
        return None
    try:
        url = urlsplit(text)
        host = (url.hostname or "").rstrip(".")
        queried = {word for word, _ in parse_qsl(url.query, keep_blank_values=True)}
    except ValueError:
        return f"{name} is not a URL."
    plain = url.scheme in ("http", "https") and PLAIN_HOST.fullmatch(url.netloc) and not BLANK.search(text)
    own = _is_own(url.path, host, addresses.own)
    if not fetched:
        put = queried & addresses.spoken if own or not plain else set()
        return (
            f"{name}: {', '.join(sorted(put))} in its query would speak for Twilio. Choose other names."
            if put
            else None
        )
    if own:
        return f"{name} is Offhook's own address for callbacks. It answers with no TwiML: Twilio would hang up."
    if not plain:
        return f"{name} is not a plain http or https URL."
    allowed = addresses.hosts is None or host in addresses.hosts
    if not allowed and not any(f"*.{parent}" in (addresses.hosts or ()) for parent in _parents(host)):
        return f"{name}: its host is not among those that OFFHOOK_URL_HOSTS allows."
    return None


def _is_own(path: str, host: str, own: str) -> bool:
    ours = urlsplit(own)
    return ours.hostname in (None, host) and _plain_path(path) == _plain_path(ours.path)


def _plain_path(path: str) -> str:
    """A path as a server would take it, however it is spelled."""
    return normpath("/" + re.sub(r"[/\\]+", "/", unquote(path)).lstrip("/"))


def _parents(host: str) -> Iterable[str]:
    while host := host.partition(".")[2]:
        yield host
