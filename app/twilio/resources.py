"""Conferences, participants and recordings as Twilio's REST API shows them, with its list pages and its errors.

Fields, types and nulls are those of Twilio's OpenAPI description, version 2010-04-01. What nobody has told us is null.
Only a list's own keys may stand beside its items: the official Python SDK refuses a page with one more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal
from xml.etree import ElementTree

from app.conference import Header, Participant
from app.events import DELETED, Recording
from app.twilio.times import rfc_2822

VERSION = "2010-04-01"
NOT_ALLOWED_IN_XML = dict.fromkeys([*range(0x20), 0xFFFE, 0xFFFF, *range(0xD800, 0xE000)], "\ufffd")
for _space in "\t\n\r":
    del NOT_ALLOWED_IN_XML[ord(_space)]

ADDRESSES = (
    *("uri", "first_page_uri", "next_page_uri", "previous_page_uri"),
    *("participants", "recordings"),
)
Kind = Literal["conferences", "participants", "recordings"]
Resource = dict[str, Any]


def accounts_path(account_sid: str) -> str:
    """What the address of everything of an account begins with."""
    return f"/{VERSION}/Accounts/{account_sid}"


def conference(header: Header) -> Resource:
    """A Conference resource."""
    path = f"{accounts_path(header.account_sid)}/Conferences/{header.sid}"
    return {
        "account_sid": header.account_sid,
        "api_version": VERSION,
        "call_sid_ending_conference": header.call_sid_ending_conference,
        "date_created": rfc_2822(header.created_at),
        "date_updated": rfc_2822(header.updated_at),
        "friendly_name": header.friendly_name,
        "reason_conference_ended": header.reason_conference_ended,
        "region": header.region,
        "sid": header.sid,
        "status": header.status,
        "subresource_uris": {
            "participants": f"{path}/Participants.json",
            "recordings": f"{path}/Recordings.json",
        },
        "uri": f"{path}.json",
    }


def shown(header: Header, participants: Iterable[Participant]) -> list[Participant]:
    """The participants that the resource has: whoever is in, or on the way into, a conference that goes on.

    Twilio shows none once it has ended (Twilio docs, Participant resource). We show everyone who took part.
    """
    if header.status == "completed":
        return [participant for participant in participants if participant.stays]
    return [participant for participant in participants if participant.status not in ("complete", "failed")]


def participant(header: Header, participant: Participant) -> Resource:
    """A Participant resource."""
    path = f"{accounts_path(header.account_sid)}/Conferences/{header.sid}/Participants/{participant.call_sid}"
    return {
        "account_sid": header.account_sid,
        "call_sid": participant.call_sid,
        "call_sid_to_coach": participant.call_sid_to_coach,
        "coaching": participant.coaching,
        "conference_sid": header.sid,
        "date_created": rfc_2822(participant.created_at),
        "date_updated": rfc_2822(participant.updated_at),
        "end_conference_on_exit": participant.end_conference_on_exit,
        "hold": participant.hold,
        "label": participant.label,
        "muted": participant.muted,
        "queue_time": None if participant.queue_time is None else str(participant.queue_time),
        "start_conference_on_enter": participant.start_conference_on_enter,
        "status": participant.status,
        "uri": f"{path}.json",
    }


OF_A_CONFERENCE = ("Conference", "StartConferenceRecordingAPI")


def kept(recordings: Iterable[Recording]) -> list[Recording]:
    """The recordings that a conference's list has: not those of single calls (Twilio docs, Recordings), nor deleted."""
    ours = (each for each in recordings if each.call_sid is None or each.source in OF_A_CONFERENCE)
    return [recording for recording in ours if recording.status != DELETED]


RECORDING_STATUS = {"started": "in-progress", "resumed": "in-progress", "failed": "absent"}
"""What callbacks call it, and the resource does not know."""


def recording(header: Header, recording: Recording) -> Resource:
    """A Recording resource of a conference. Such a recording has one channel (Twilio docs, TwiML Conference)."""
    path = f"{accounts_path(header.account_sid)}/Conferences/{header.sid}/Recordings/{recording.sid}"
    started = rfc_2822(recording.start_time)
    return {
        "account_sid": header.account_sid,
        "api_version": VERSION,
        "call_sid": recording.call_sid,
        "channels": recording.channels or 1,
        "conference_sid": header.sid,
        "date_created": started,
        "date_updated": started,
        "duration": None if recording.duration is None else str(recording.duration),
        "encryption_details": None,
        "error_code": recording.error_code,
        "price": None,
        "price_unit": None,
        "sid": recording.sid,
        "source": recording.source,
        "start_time": started,
        "status": RECORDING_STATUS.get(recording.status, recording.status),
        "uri": f"{path}.json",
    }


def error(status: int, code: int, message: str) -> Resource:
    """The body of a failure."""
    return {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }


def listing(
    kind: Kind, items: Sequence[Resource], page: int, page_size: int, links: dict[str, str | None]
) -> dict[str, Any]:
    """A page of a list. `links` are its own, the first, the next and the previous address, relative to the host."""
    start = page * page_size if items else 0
    return {
        kind: items,
        "end": start + len(items) - 1 if items else 0,
        "first_page_uri": links["first"],
        "next_page_uri": links["next"],
        "page": page,
        "page_size": page_size,
        "previous_page_uri": links["previous"],
        "start": start,
        "uri": links["own"],
    }


def xml(payload: dict[str, Any]) -> bytes:
    """Any of these as XML, which Twilio answers with where no `.json` is asked for (Twilio docs, Twilio's Response)."""
    root = ElementTree.Element("TwilioResponse")
    if "more_info" in payload:
        _fill(ElementTree.SubElement(root, "RestException"), payload)
    elif kind := next((kind for kind in ("conferences", "participants", "recordings") if kind in payload), None):
        words = {name: _written(name, value) for name, value in payload.items() if name != kind}
        page = ElementTree.SubElement(root, kind.title(), {name.replace("_", ""): words[name] for name in words})
        for item in payload[kind]:
            _fill(ElementTree.SubElement(page, kind.removesuffix("s").title()), item)
    else:
        name = "Participant" if "muted" in payload else "Recording" if "channels" in payload else "Conference"
        _fill(ElementTree.SubElement(root, name), payload)
    written: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return written


def _fill(element: ElementTree.Element, resource: dict[str, Any]) -> None:
    for name, value in resource.items():
        if not name.isidentifier():
            raise ValueError("a field whose name cannot be an element")
        child = ElementTree.SubElement(element, name.title().replace("_", ""))
        if isinstance(value, dict):
            _fill(child, value)
        elif value is not None:
            child.text = _written(name, value)


def _written(name: str, value: Any) -> str:
    """A value as XML can hold it; addresses of resources lead to XML again."""
    if isinstance(value, bool):
        return str(value).lower()
    text = "" if value is None else str(value).translate(NOT_ALLOWED_IN_XML)
    if name in ADDRESSES:
        path, mark, query = text.partition("?")
        return path.removesuffix(".json") + mark + query
    return text
