"""What a stored callback says, as a typed event: Twilio's conference, call-progress, recording ones, and our records.

The only place that knows the names of their parameters. A callback comes as a form, or in an event of Event Streams, or
in one of the Debugger; on whatever road it comes it is the same event, with the same id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from app import alerts
from app.events import DELETED, Call, Callback, Ending, Event, Leg, Recording
from app.twilio import debugger, snapshot, streams
from app.twilio.control import Record, read_record, without_credentials
from app.twilio.sids import is_sid
from app.twilio.signature import Malformed, form_fields
from app.twilio.streams import Notice, Pairs
from app.twilio.times import read_time

LONGEST_TEXT = 256
"""Names and labels are cut here; Twilio allows 128 characters (Twilio docs, TwiML Conference)."""


class Unusable(ValueError):
    """A callback that is genuine but cannot be read; the message says why and holds no value of its parameters."""


def read(callback: Callback) -> Event:
    """The event that a callback tells of. Raises `Unusable`."""
    if callback.media == "control":
        return _control(callback.body)
    if callback.media == "snapshot":
        return _snapshot(callback.body)
    if callback.media == "alert":
        return _alert(callback.body)
    contents = _contents(callback)
    if contents is None:
        raise Unusable("not about a conference")
    if isinstance(contents, Notice):
        return _notice(contents, callback)
    told = _told(contents)
    source = _recording if "RecordingStatus" in told else _conference if "ConferenceSid" in told else _call
    event = source(told, _identity(contents))
    if event.conference_sid is None and callback.conference_sid is not None:
        event = replace(event, conference_sid=callback.conference_sid)
    return event


def read_filed(callback: Callback, conference_sid: str) -> Event:
    """The event of a callback from this conference's log. Raises `Unusable`."""
    return replace(read(callback), conference_sid=conference_sid)


class Glance(NamedTuple):
    """As much of a callback as is plain to see."""

    account_sid: str
    conference_sid: str
    event_id: str
    """Of the event that it would be."""


def glance(callback: Callback) -> Glance | None:
    """What a callback is about that nobody can or dares to read. None: that is not plain to see."""
    if callback.media == "snapshot":
        try:
            event = _snapshot(callback.body)
        except Unusable:
            return None
        return Glance(event.account_sid, str(event.conference_sid), event.id)
    try:
        contents = _contents(callback)
    except Unusable:
        return None
    if contents is None:
        return None
    if isinstance(contents, Notice):
        return Glance(contents.account_sid, contents.conference_sid, _identity_of(callback))
    told = _first(contents)
    sid, account = told.get("ConferenceSid") or callback.conference_sid or "", told.get("AccountSid", "")
    return Glance(account, sid, _identity(contents)) if is_sid("CF", sid) else None


class Address(NamedTuple):
    """Where a callback belongs."""

    account_sid: str
    """Whose it says that it is; empty: nobody's."""
    sid: str
    """Of its conference, else of its call, else of its account: who has the same shares its shard."""
    event: str
    """Twilio's StatusCallbackEvent, if there is one."""


def address(callback: Callback) -> Address | None:
    """Where a callback of Twilio's belongs, by what is plain to see. None: it is not about conferences.

    Raises `Unusable` where that is not to be found out.
    """
    contents = _contents(callback)
    if contents is None:
        return None
    if isinstance(contents, Notice):
        return Address(contents.account_sid, contents.conference_sid, "")
    told = _first(contents)
    account, conference, call = told.get("AccountSid", ""), told.get("ConferenceSid", ""), told.get("CallSid", "")
    home = conference if is_sid("CF", conference) else call if is_sid("CA", call) else account
    return Address(account, home, told.get("StatusCallbackEvent", ""))


def call_in(callback: Callback) -> str | None:
    """The call that a callback of Twilio's names. None: none, or it is not plain to see."""
    try:
        contents = _contents(callback)
    except Unusable:
        return None
    if contents is None or isinstance(contents, Notice):
        return None
    call = _first(contents).get("CallSid", "")
    return call if is_sid("CA", call) else None


def parameters(callback: Callback) -> dict[str, Any]:
    """Everything the callback said, for people to read; a repeated name has a list. Raises `Unusable`.

    On whatever road it came: what was around it is not told. Of what is no callback everything is.
    """
    if callback.media == "control":
        return dict(msgspec.to_builtins(_record(callback.body)))
    if callback.media == "snapshot":
        return dict(msgspec.to_builtins(_looked(callback.body)))
    if callback.media == "alert":
        return dict(msgspec.to_builtins(_alert_record(callback.body)))
    contents = _contents(callback)
    if not isinstance(contents, list):
        if callback.media == "json":
            return streams.readable(callback.body)
        contents = _pairs(callback.body)
    said: dict[str, list[str]] = {}
    for name, value in contents:
        said.setdefault(_text(name), []).append(_text(value))
    return {name: values[0] if len(values) == 1 else values for name, values in said.items()}


def sid_in(told: Mapping[str, str], name: str, kind: str) -> str | None:
    """The SID under this name, or None where it is missing or empty. Raises `Unusable` if it is no SID."""
    sid = told.get(name, "")
    if sid and not is_sid(kind, sid):
        raise Unusable(f"{name} is not a SID: expected {kind} and 32 hexadecimal digits")
    return sid or None


def _contents(callback: Callback) -> Pairs | Notice | None:
    """A callback's own pairs, or word of a conference; None: it is about none. Raises `Unusable`."""
    if callback.media not in ("form", "json"):
        raise Unusable("a record of our own")
    try:
        if callback.media == "json":
            return streams.contents(callback.body)
        pairs = form_fields(callback.body)
        if debugger.MARK in callback.body and debugger.is_alert(pairs):
            return debugger.contents(pairs)
        return pairs
    except Malformed as error:
        raise Unusable(str(error)) from error


def _notice(notice: Notice, callback: Callback) -> Event:
    """An event of a kind that is unknown: it stands in the log, changes nobody, and has no time to move others."""
    return Event(
        id=_identity_of(callback),
        source="conference",
        type=notice.type[:LONGEST_TEXT],
        account_sid=notice.account_sid,
        conference_sid=notice.conference_sid,
    )


def _identity_of(callback: Callback) -> str:
    """Of what came, where that is no callback: a form by its pairs, an event by its bytes, for those are signed."""
    if callback.media == "form":
        return _identity(form_fields(callback.body))
    return blake2b(callback.body, digest_size=12).hexdigest()


def _pairs(body: bytes) -> Pairs:
    try:
        return form_fields(body)
    except Malformed as error:
        raise Unusable(str(error)) from error


def _first(pairs: Pairs) -> dict[str, str]:
    """Each parameter's first value: for that account it was signed."""
    return {_text(name): _text(value) for name, value in reversed(pairs)}


def _told(pairs: Pairs) -> dict[str, str]:
    """Each parameter's one value. Two values for one name could be a signed request with its borders moved."""
    try:
        told = {name.decode(): value.decode() for name, value in pairs}
    except UnicodeDecodeError:
        told = {_text(name): _text(value) for name, value in pairs}
    if len(told) < len(pairs):
        for name, value in pairs:
            if told[_text(name)] != _text(value) and _text(name) in UNDERSTOOD:
                raise Unusable(f"{_text(name)} is given twice, with different values")
    return told


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _identity(pairs: Pairs) -> str:
    """Of what Twilio signs: each distinct name and value, sorted, with nothing between them.

    So whoever has got hold of a signed callback and repeats pairs in it, reorders them or moves the border between a
    name and its value, all of which its signature allows, sends nothing but the same callback again.
    """
    return blake2b(b"".join(chain.from_iterable(sorted(set(pairs)))), digest_size=12).hexdigest()


def _conference(told: Mapping[str, str], identity: str) -> Event:
    kind = told.get("StatusCallbackEvent") or told.get("EventName")
    conference = sid_in(told, "ConferenceSid", "CF")
    if not kind or conference is None:
        raise Unusable("a conference callback without StatusCallbackEvent or ConferenceSid")
    return Event(
        id=identity,
        source="conference",
        type=kind[:LONGEST_TEXT],
        account_sid=_account(told),
        conference_sid=conference,
        call_sid=sid_in(told, "CallSid", "CA"),
        sequence=_number(told, "SequenceNumber"),
        at=read_time(told.get("Timestamp", "")),
        friendly_name=_words(told, "FriendlyName"),
        leg=_leg(told, kind) if told.get("CallSid") else None,
        announcement=_announcement(told),
        ending=_ending(told) if kind == "conference-end" else None,
    )


def _announcement(told: Mapping[str, str]) -> str | None:
    url = told.get("AnnounceUrl")
    return without_credentials(url)[:LONGEST_TEXT] if url else None


def _leg(told: Mapping[str, str], kind: str) -> Leg:
    implied = IMPLIED.get(kind, {})
    return Leg(
        label=_words(told, "ParticipantLabel"),
        muted=implied.get("Muted", _flag(told, "Muted")),
        hold=implied.get("Hold", _flag(told, "Hold")),
        coaching=_flag(told, "Coaching"),
        start_conference_on_enter=_flag(told, "StartConferenceOnEnter"),
        end_conference_on_exit=_flag(told, "EndConferenceOnExit"),
        call_status=_words(told, "ParticipantCallStatus"),
        reason_left=_words(told, "ReasonParticipantLeft"),
    )


def _ending(told: Mapping[str, str]) -> Ending:
    return Ending(
        reason=_words(told, "ReasonConferenceEnded"),
        call_sid=sid_in(told, "CallSidEndingConference", "CA"),
        label=_words(told, "ParticipantLabelEndingConference"),
        text=_words(told, "Reason"),
    )


def _call(told: Mapping[str, str], identity: str) -> Event:
    sid = sid_in(told, "CallSid", "CA")
    if sid is None:
        raise Unusable("names neither a conference nor a call")
    status = _words(told, "CallStatus")
    return Event(
        id=identity,
        source="call",
        type=f"call-{status}" if status else "call",
        account_sid=_account(told),
        call_sid=sid,
        at=read_time(told.get("Timestamp", "")),
        call=Call(
            status=status,
            from_=_words(told, "From"),
            to=_words(told, "To"),
            direction=_words(told, "Direction"),
            answered_by=_words(told, "AnsweredBy"),
            sip_response_code=_words(told, "SipResponseCode"),
            duration=_number(told, "CallDuration"),
        ),
    )


def _recording(told: Mapping[str, str], identity: str) -> Event:
    sid, status = sid_in(told, "RecordingSid", "RE"), _words(told, "RecordingStatus")
    conference, call = sid_in(told, "ConferenceSid", "CF"), sid_in(told, "CallSid", "CA")
    if sid is None or status is None or not (conference or call):
        raise Unusable("a recording without RecordingSid, RecordingStatus, or the conference or call it is of")
    return Event(
        id=identity,
        source="recording",
        type=f"recording-{status}",
        account_sid=_account(told),
        conference_sid=conference,
        call_sid=call,
        at=read_time(told.get("Timestamp", "")),
        recording=Recording(
            sid=sid,
            status=status,
            call_sid=call,
            url=_link(told, "RecordingUrl"),
            duration=_number(told, "RecordingDuration"),
            channels=_number(told, "RecordingChannels"),
            source=_words(told, "RecordingSource"),
            start_time=read_time(told.get("RecordingStartTime", "")),
            error_code=_number(told, "ErrorCode") or None,  # 0 stands for none
        ),
    )


def _control(body: bytes) -> Event:
    record = _record(body)
    action = record.action
    deleted = action.verb == "delete-recording" and action.recording_sid and 200 <= (action.status or 0) < 300
    return Event(
        id=blake2b(body, digest_size=12).hexdigest(),
        source="control",
        type=f"control-{record.step}",
        account_sid=record.account_sid,
        conference_sid=record.conference_sid,
        call_sid=action.call_sid,
        friendly_name=record.friendly_name,
        recording=Recording(sid=str(action.recording_sid), status=DELETED) if deleted else None,
        action=action,
        answer=record.answer,
    )


def _record(body: bytes) -> Record:
    try:
        return read_record(body)
    except msgspec.DecodeError as error:
        raise Unusable("a record of a control request that this release cannot read") from error


def _snapshot(body: bytes) -> Event:
    record = _looked(body)
    if not (is_sid("AC", record.account_sid) and is_sid("CF", record.conference_sid)):
        raise Unusable("a record of a look at Twilio's REST API that names no account and conference")
    return snapshot.event_of(record, blake2b(body, digest_size=12).hexdigest())


def _looked(body: bytes) -> snapshot.Record:
    try:
        return snapshot.read_record(body)
    except msgspec.DecodeError as error:
        raise Unusable("a record of a look at Twilio's REST API that this release cannot read") from error


def _alert(body: bytes) -> Event:
    record = _alert_record(body)
    return Event(
        id=alerts.id_of(record),
        source="alert",
        type="alert-cleared" if record.alert.cleared else "alert-raised",
        account_sid=record.account_sid,
        conference_sid=record.conference_sid,
        alert=record.alert,
    )


def _alert_record(body: bytes) -> alerts.Record:
    try:
        return alerts.read_record(body)
    except msgspec.DecodeError as error:
        raise Unusable("a record of an alert that this release cannot read") from error


def _account(told: Mapping[str, str]) -> str:
    sid = sid_in(told, "AccountSid", "AC")
    if sid is None:
        raise Unusable("AccountSid is missing")
    return sid


def _words(told: Mapping[str, str], name: str) -> str | None:
    return told.get(name, "")[:LONGEST_TEXT] or None


def _link(told: Mapping[str, str], name: str) -> str | None:
    url = _words(told, name)
    return url if url is not None and url.startswith(("https://", "http://")) else None


def _flag(told: Mapping[str, str], name: str) -> bool | None:
    word = told.get(name)
    return FLAGS.get(word.lower()) if word else None


def _number(told: Mapping[str, str], name: str) -> int | None:
    digits = told.get(name, "")
    return int(digits) if NUMBER.fullmatch(digits) else None


FLAGS = {"true": True, "false": False}
NUMBER = re.compile(r"[0-9]{1,15}")

IMPLIED = {
    "participant-mute": {"Muted": True},
    "participant-unmute": {"Muted": False},
    "participant-hold": {"Hold": True},
    "participant-unhold": {"Hold": False},
}
"""What an event's name says of its own flag, should the flag be missing or disagree."""

UNDERSTOOD = frozenset(
    [
        *("AccountSid", "AnnounceUrl", "AnsweredBy", "CallDuration", "CallSid", "CallSidEndingConference"),
        *("CallStatus", "Coaching", "ConferenceSid", "Direction", "EndConferenceOnExit", "ErrorCode", "EventName"),
        *("From", "FriendlyName", "Hold", "Muted"),
        *("ParticipantCallStatus", "ParticipantLabel", "ParticipantLabelEndingConference", "Reason"),
        *("ReasonConferenceEnded", "ReasonParticipantLeft", "RecordingChannels", "RecordingDuration", "RecordingSid"),
        *("RecordingSource", "RecordingStartTime", "RecordingStatus", "RecordingUrl", "SequenceNumber"),
        *("SipResponseCode", "StartConferenceOnEnter", "StatusCallbackEvent", "Timestamp", "To"),
    ]
)
"""Parameters whose values we act on."""
