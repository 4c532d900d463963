"""Summaries of conferences and participants, shaped like Twilio's Voice Insights, live and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, request

from app.conference import Conference, Header, Participant, Status
from app.events import Event
from app.store.snapshots import Question, Snapshots
from app.twilio import insights
from app.twilio.callbacks import Unusable, read_filed
from app.twilio.sids import is_sid
from app.twilio.times import read_time
from app.web import pages
from app.web.access import Access, Reader, asked_account
from app.web.failures import Failure, as_asked, not_here, speak_as_twilio

STATUSES: dict[str, Status] = {insight: status for status, insight in insights.STATUSES.items()}
CONFERENCE_FILTERS = (
    "ConferenceSid",
    "FriendlyName",
    "Status",
    "CreatedAfter",
    "CreatedBefore",
    "Subaccount",
    "EndReason",
)
MOST_EVENTS = 20_000
"""So much of a log is looked through for the times of events."""
UNKNOWN_HERE = ("MixerRegion", "Tags", "DetectedIssues")
"""Filters on what callbacks do not tell."""


def create(*, snapshots: Snapshots, access: Access, public_url: str | None) -> Blueprint:
    """Routes under `/v1/`. See `app.web.create_app` for what it is handed."""
    summaries = Blueprint("insights", __name__, url_prefix="/v1")
    speak_as_twilio(summaries)

    def base() -> str:
        return public_url or request.host_url.rstrip("/")

    @summaries.get("/Conferences")
    def conferences() -> Response:
        reader = access.reader()
        where, filters = pages.asked("CF"), _filters(CONFERENCE_FILTERS)
        headers, part = _listed(reader, filters, where)
        found = snapshots.conferences([header.sid for header in headers])
        items = [insights.conference(each.header, each.participants.values(), base()) for each in found]
        if reason := filters.get("EndReason"):
            items = [item for item in items if item["end_reason"] == reason]
        return as_asked(_page("conferences", items, f"{base()}/v1/Conferences", filters, where, part))

    def _listed(reader: Reader, filters: Mapping[str, str], where: pages.Asked) -> tuple[list[Header], pages.Part]:
        account = asked_account(reader, filters.get("Subaccount"))
        if sid := filters.get("ConferenceSid"):
            known = _visible(reader, sid)
            fits = known is not None and _question(account, filters).fits(known.header)
            return ([known.header] if known and fits else []), pages.Part(None, None)
        return pages.conferences(snapshots, _question(account, filters), where)

    @summaries.get("/Conferences/<sid>")
    def conference(sid: str) -> Response:
        known = _known(access.reader(), sid)
        return as_asked(insights.conference(known.header, known.participants.values(), base()))

    @summaries.get("/Conferences/<sid>/Participants")
    def participants(sid: str) -> Response:
        known = _known(access.reader(), sid)
        where, filters = pages.asked("CA"), _filters(("ParticipantSid", "Label", "Events"))
        asked_for = {
            pages.place(each.call_sid, each.created_at): each
            for each in known.participants.values()
            if filters.get("Label") in (None, each.label) and filters.get("ParticipantSid") in (None, each.call_sid)
        }
        shown, part = pages.part_of(asked_for, where)
        path = f"{base()}/v1/Conferences/{sid}/Participants"
        return as_asked(_page("participants", _summed(known, shown), path, filters, where, part))

    @summaries.get("/Conferences/<sid>/Participants/<anything:who>")
    def participant(sid: str, who: str) -> Response:
        known = _known(access.reader(), sid)
        labelled = [each for each in known.in_order() if each.label == who]
        found = known.participants.get(who) or (labelled[-1] if labelled else None)
        if found is None:
            raise not_here()
        [summary] = _summed(known, [found])
        return as_asked(summary)

    def _summed(known: Conference, participants: list[Participant]) -> list[dict[str, Any]]:
        """Times of events are only in the log, and only there if they are asked for, as at Twilio's."""
        header = known.header
        events: list[Event] | None = None
        if request.args.get("Events"):
            events = []
            for entry in snapshots.events(header.sid, 0, MOST_EVENTS):
                try:
                    events.append(read_filed(entry.callback, header.sid))
                except Unusable:  # an earlier release could read it
                    continue
        return [insights.participant(header, each, base(), events) for each in participants]

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
    if status is not None and status not in STATUSES:
        raise Failure(400, f"Status: expected one of {', '.join(STATUSES)}")
    first, last = (_moment(filters, name) for name in ("CreatedAfter", "CreatedBefore"))
    return Question(
        account=account,
        status=STATUSES[status] if status else None,
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
