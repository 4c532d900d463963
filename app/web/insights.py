"""Summaries of conferences and participants, shaped like Twilio's Voice Insights, live and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, request

from app.conference import Conference, Header, Participant
from app.events import Event, Status
from app.store.index import place
from app.store.snapshots import Question, Snapshots
from app.twilio import insights
from app.twilio.callbacks import Unusable, read_filed
from app.twilio.sids import is_sid
from app.twilio.times import read_time
from app.web import pages
from app.web.access import Access, Reader, asked_account
from app.web.failures import Failure, as_asked, not_here, speak_as_twilio

STATUSES: dict[str, Status] = {insight: status for status, insight in insights.STATUSES.items()}
NEVER = "summary_timeout"
"""A status that no conference has here: its summary is always there."""
CONFERENCE_FILTERS = (
    "ConferenceSid",
    "FriendlyName",
    "Status",
    "CreatedAfter",
    "CreatedBefore",
    "Subaccount",
    "EndReason",
)
LOT = 20
"""Conferences read whole between two waits for Redis."""
AT_ONCE = 250
"""So much of a log is read between two waits for Redis. Others have their turn there: callbacks must not wait."""
UNKNOWN_HERE = ("MixerRegion", "Tags", "DetectedIssues")
"""Filters on what callbacks do not tell."""


def create(*, snapshots: Snapshots, access: Access, public_url: str | None) -> Blueprint:
    """Routes under `/v1/`. See `app.web.create_app` for what it is handed."""
    summaries = Blueprint("insights", __name__, url_prefix="/v1")
    speak_as_twilio(summaries)

    def base() -> str:
        """Our address as the caller has it: SDKs follow links to further pages as they stand, with their credentials.

        A proxy may have taken the TLS off; that our own host has it, `public_url` tells.
        """
        if public_url is not None and urlsplit(public_url).netloc.rpartition("@")[2] == request.host:
            return f"{urlsplit(public_url).scheme}://{request.host}"
        return request.host_url.rstrip("/")

    @summaries.get("/Conferences")
    def conferences() -> Response:
        reader = access.reader()
        where, filters = pages.asked("CF"), _filters(CONFERENCE_FILTERS)
        headers, part = _listed(reader, filters, where)
        items = [
            insights.conference(each.header, each.participants.values(), base())
            for start in range(0, len(headers), LOT)
            for each in snapshots.conferences([header.sid for header in headers[start : start + LOT]])
        ]
        if reason := filters.get("EndReason"):
            items = [item for item in items if item["end_reason"] == reason]
        return as_asked(_page("conferences", items, f"{base()}/v1/Conferences", filters, where, part))

    def _listed(reader: Reader, filters: Mapping[str, str], where: pages.Asked) -> tuple[list[Header], pages.Part]:
        account = asked_account(reader, filters.get("Subaccount"))
        if sid := filters.get("ConferenceSid"):
            known = _visible(reader, sid)
            fits = known and filters.get("Status") != NEVER and _question(account, filters).fits(known.header)
            return ([known.header] if known and fits else []), pages.Part(None, None)
        question = _question(account, filters)
        if filters.get("Status") == NEVER:
            return [], pages.Part(None, None)
        return pages.conferences(snapshots, question, where)

    @summaries.get("/Conferences/<sid>")
    def conference(sid: str) -> Response:
        known = _known(access.reader(), sid)
        return as_asked(insights.conference(known.header, known.participants.values(), base()))

    @summaries.get("/Conferences/<sid>/Participants")
    def participants(sid: str) -> Response:
        known = _known(access.reader(), sid)
        where, filters = pages.asked("CA"), _filters(("ParticipantSid", "Label", "Events"))
        asked_for = {
            place(each.call_sid, each.created_at): each
            for each in known.participants.values()
            if filters.get("Label") in (None, each.label) and filters.get("ParticipantSid") in (None, each.call_sid)
        }
        shown, part = pages.part_of(asked_for, where)
        path = f"{base()}/v1/Conferences/{sid}/Participants"
        return as_asked(_page("participants", _summed(known, shown), path, filters, where, part))

    @summaries.get("/Conferences/<sid>/Participants/<anything:who>")
    def participant(sid: str, who: str) -> Response:
        known = _known(access.reader(), sid)
        found = known.named(who)
        if found is None:
            raise not_here()
        [summary] = _summed(known, [found])
        return as_asked(summary)

    def _summed(known: Conference, participants: list[Participant]) -> list[dict[str, Any]]:
        """Times of events are only in the log, and only there if they are asked for, as at Twilio's."""
        header, asked_for = known.header, {each.call_sid for each in participants}
        if not request.args.get("Events"):
            return [insights.participant(header, each, base()) for each in participants]
        events: dict[str, list[Event]] = {sid: [] for sid in asked_for}
        after = 0
        while logged := snapshots.events(header.sid, after, AT_ONCE):
            after = logged[-1].number
            for entry in logged:
                try:
                    event = read_filed(entry.callback, header.sid)
                except Unusable:  # an earlier release could read it
                    continue
                if event.call_sid in asked_for:
                    events[event.call_sid].append(event)
        return [insights.participant(header, each, base(), events[each.call_sid]) for each in participants]

    def _known(reader: Reader, sid: str) -> Conference:
        known = _visible(reader, sid)
        if known is None:
            raise not_here()
        return known

    def _visible(reader: Reader, sid: str) -> Conference | None:
        found = snapshots.conferences([sid]) if is_sid("CF", sid) else []
        return found[0] if found and reader.may_see(found[0].header.account_sid) else None

    return summaries


def _filters(names: tuple[str, ...]) -> dict[str, str]:
    for name in UNKNOWN_HERE:
        if request.args.get(name):
            raise Failure(400, f"{name}: callbacks do not tell, so nothing can be found by it here")
    return {name: request.args[name] for name in names if request.args.get(name)}


def _question(account: str | None, filters: Mapping[str, str]) -> Question:
    status = filters.get("Status")
    if status is not None and status not in STATUSES and status != NEVER:
        raise Failure(400, f"Status: expected one of {', '.join(STATUSES)}")
    first, last = (_moment(filters, name) for name in ("CreatedAfter", "CreatedBefore"))
    return Question(
        account=account,
        status=STATUSES.get(status or ""),
        friendly_name=filters.get("FriendlyName"),
        created=(first, last),
    )


def _moment(filters: Mapping[str, str], name: str) -> int | None:
    text = filters.get(name)
    if text is None:
        return None
    moment = read_time(text)
    if moment is None:
        raise Failure(400, f"{name}: expected a time such as 2026-11-22T12:00:00Z")
    return int(moment.timestamp())


def _page(
    key: str, items: list[dict[str, Any]], url: str, filters: Mapping[str, str], where: pages.Asked, part: pages.Part
) -> dict[str, Any]:
    links = pages.links(url, filters, where, part)
    return {
        "meta": {
            "page": where.page,
            "page_size": where.size,
            "first_page_url": links["first"],
            "previous_page_url": links["previous"],
            "url": links["own"],
            "next_page_url": links["next"],
            "key": key,
        },
        key: items,
    }
