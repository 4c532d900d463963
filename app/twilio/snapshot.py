"""What Twilio's REST API shows of a conference: where to ask, what an answer is, and the record of it as an event.

Addresses and fields are those of Twilio's docs: Conference resource, Participant resource, API responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast, get_args
from urllib.parse import urlsplit

import msgspec

from app.events import Event, ParticipantStatus, Seen, Snapshot, Status
from app.twilio.resources import accounts_path
from app.twilio.sids import is_sid
from app.twilio.times import read_time

LARGEST_PAGE = 1000
"""Items (Twilio docs, API responses). A conference has 250 participants at most (Twilio docs, Conference)."""
LONGEST_TEXT = 256
NOT_FOUND = 20404
"""Twilio's code for what it does not know (Twilio docs, error 20404)."""
UNSURE = timedelta(seconds=60)
"""By how much our clock may be ahead of Twilio's."""

Resource = dict[str, Any]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down of one look. The resources are as they came."""

    account_sid: str
    conference_sid: str
    taken_at: datetime
    after: int = 0
    missing: bool = False
    reason: str
    by: str
    """Who asked for it."""
    conference: Resource | None = None
    participants: list[Resource] | None = None
    """None: not asked for, or Twilio does not know the conference."""


encode_record = msgspec.json.Encoder().encode
read_record = msgspec.json.Decoder(Record).decode


class Unexpected(ValueError):
    """An answer that is not what was asked for; the message says why, and holds nothing of it."""


def conference_address(account_sid: str, conference_sid: str) -> str:
    """Where to ask for a conference."""
    return f"{accounts_path(account_sid)}/Conferences/{conference_sid}.json"


def participants_address(account_sid: str, conference_sid: str) -> str:
    """Where to ask for everyone who is in it, on one page."""
    return f"{accounts_path(account_sid)}/Conferences/{conference_sid}/Participants.json?PageSize={LARGEST_PAGE}"


def in_progress_address(account_sid: str) -> str:
    """Where to ask for an account's conferences that go on, newest first."""
    return f"{accounts_path(account_sid)}/Conferences.json?Status=in-progress&PageSize={LARGEST_PAGE}"


def is_unknown(status: int, body: bytes) -> bool:
    """Whether Twilio itself says that it does not know what was asked for; any proxy can answer 404."""
    try:
        return status == 404 and _json(body).get("code") == NOT_FOUND
    except Unexpected:
        return False


def read_conference(body: bytes, account_sid: str, conference_sid: str) -> Resource:
    """The Conference that was asked for. Raises `Unexpected`."""
    found = _json(body)
    if (found.get("account_sid"), found.get("sid")) != (account_sid, conference_sid):
        raise Unexpected("it is not the conference that was asked for")
    if found.get("status") not in get_args(Status):
        raise Unexpected("its status is none that a conference has")
    return found


def read_participants(body: bytes, conference_sid: str) -> list[Resource]:
    """All participants of the conference that was asked for. Raises `Unexpected`, also where these are not all."""
    page = _page(body, "participants")
    if page.get("next_page_uri") is not None:
        raise Unexpected("it has more participants than a page can hold")
    listed: list[Resource] = page["participants"]
    for each in listed:
        if each.get("conference_sid") != conference_sid or not _sid("CA", each.get("call_sid")):
            raise Unexpected("it lists what is no participant of the conference that was asked for")
    return listed


class Conferences(NamedTuple):
    """A page of a list."""

    conferences: dict[str, Resource]
    """By sid."""
    following: str | None
    """Where it goes on: path and query. None: it does not."""


def read_conferences(body: bytes, account_sid: str) -> Conferences:
    """A page of an account's conferences. Raises `Unexpected`; also where it leads anywhere but on in this list."""
    page = _page(body, "conferences")
    found: dict[str, Resource] = {}
    for each in page["conferences"]:
        sid = _sid("CF", each.get("sid"))
        if sid is None or each.get("account_sid") != account_sid:
            raise Unexpected("it lists what is no conference of the account that was asked for")
        if each.get("status") in get_args(Status):
            found[sid] = each
    following = page.get("next_page_uri")
    if following is not None and not _goes_on(following, account_sid):
        raise Unexpected("its next page is somewhere else")
    return Conferences(found, following)


def _goes_on(address: Any, account_sid: str) -> bool:
    """Whether this is a relative address of the same list: credentials must not be led elsewhere."""
    if not isinstance(address, str) or not address.isascii() or not address.isprintable() or " " in address:
        return False
    path, found, _ = address.partition("?")
    return found == "?" and path == urlsplit(in_progress_address(account_sid)).path


def taken_at(date: str | None, took: float, asked_at: datetime) -> datetime:
    """A moment on Twilio's clock at which an answer was surely not yet made.

    `date` is the answer's Date, whole seconds and cut off; `took` for how many seconds it was waited for, `asked_at`
    when it was asked for by our clock.
    """
    answered = read_time(date) if date else None
    if answered is None:
        return asked_at - UNSURE
    # too early is safe: it only says less. A Date far ahead of us would call old what is yet to come
    return min(answered - timedelta(seconds=int(took) + 1), asked_at + UNSURE)


def event_of(record: Record, event_id: str) -> Event:
    """The event that a record tells of."""
    return Event(
        id=event_id,
        source="snapshot",
        type="snapshot",
        account_sid=record.account_sid,
        conference_sid=record.conference_sid,
        friendly_name=_text((record.conference or {}).get("friendly_name")),
        snapshot=snapshot_of(record),
    )


def snapshot_of(record: Record) -> Snapshot:
    """What a record shows. Whatever is not of its type is as if it had not been said."""
    conference, listed = record.conference or {}, record.participants
    status = conference.get("status")
    if record.conference is None and listed:
        status = "in-progress"  # Twilio lists the participants of no other (Twilio docs, Participant resource)
    region = _text(conference.get("region"))
    return Snapshot(
        taken_at=record.taken_at,
        after=record.after,
        missing=record.missing,
        reason=record.reason,
        status=cast(Status, status) if status in get_args(Status) else None,
        region=None if region == "unknown" else region,
        created_at=_time(conference.get("date_created")),
        updated_at=_time(conference.get("date_updated")),
        reason_conference_ended=_text(conference.get("reason_conference_ended")),
        call_sid_ending_conference=_sid("CA", conference.get("call_sid_ending_conference")),
        participants=None
        if listed is None
        else tuple(_seen(each) for each in listed if _sid("CA", each.get("call_sid"))),
    )


def _seen(listed: Mapping[str, Any]) -> Seen:
    status = listed.get("status")
    return Seen(
        call_sid=listed["call_sid"],
        status=cast(ParticipantStatus, status) if status in get_args(ParticipantStatus) else None,
        label=_text(listed.get("label")),
        muted=_flag(listed.get("muted")),
        hold=_flag(listed.get("hold")),
        coaching=_flag(listed.get("coaching")),
        call_sid_to_coach=_sid("CA", listed.get("call_sid_to_coach")),
        start_conference_on_enter=_flag(listed.get("start_conference_on_enter")),
        end_conference_on_exit=_flag(listed.get("end_conference_on_exit")),
        created_at=_time(listed.get("date_created")),
        updated_at=_time(listed.get("date_updated")),
    )


def _json(body: bytes) -> Resource:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unexpected("it is not JSON") from None
    if not isinstance(found, dict):
        raise Unexpected("it is not a JSON object")
    return found


def _page(body: bytes, name: str) -> Resource:
    page = _json(body)
    listed = page.get(name)
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise Unexpected(f"it is not a list of {name}")
    if "next_page_uri" not in page:
        raise Unexpected("it does not say whether it is the whole list")
    return page


def _sid(kind: str, word: Any) -> str | None:
    return word if isinstance(word, str) and is_sid(kind, word) else None


def _text(word: Any) -> str | None:
    return word[:LONGEST_TEXT] if isinstance(word, str) and word else None


def _flag(word: Any) -> bool | None:
    return word if isinstance(word, bool) else None


def _time(word: Any) -> datetime | None:
    return read_time(word) if isinstance(word, str) else None
