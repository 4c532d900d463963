"""Twilio's Conference, Participant and conference Recording resources, answered from what callbacks have told.

Reads cost Twilio nothing. Writes are handed to `control.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast, get_args
from urllib.parse import unquote

from flask import Blueprint, Response, request

from app.conference import Conference, Header, read_header
from app.events import Status
from app.store.index import Created, Place, place
from app.store.snapshots import Question, Snapshots, within
from app.twilio import resources
from app.twilio.sids import is_sid
from app.twilio.times import read_time
from app.upstream.api import FORWARDED_BY
from app.web import pages
from app.web.access import Access
from app.web.answers import target
from app.web.control import Control, Target
from app.web.failures import Failure, as_asked, not_here, speak_as_twilio

FORMS = (".json", ".xml", ".csv", ".html")
DAY = timedelta(days=1)
SPANS = ("", "<", ">")
CURRENT = "Twilio.CURRENT"


def create(*, snapshots: Snapshots, access: Access, control: Control, list_status: Status | None) -> Blueprint:
    """Everything under `/2010-04-01/`. See `app.web.create_app` for what it is handed."""
    rest = Blueprint("rest", __name__)
    speak_as_twilio(rest)

    @rest.route(
        f"/{resources.VERSION}/<anything:resource>",
        methods=["GET", "POST", "DELETE", "PUT", "PATCH"],
        provide_automatic_options=False,
    )
    def answer(**_: str) -> Response:
        reader = access.reader()
        words, form = _parted(target(request.environ))
        if len(words) < 3 or words[0] != "Accounts" or not is_sid("AC", words[1]) or words[2] != "Conferences":
            raise Failure(
                404, f"The requested resource {request.path} was not found: Offhook serves an account's Conferences"
            )
        if form in (".csv", ".html"):
            raise Failure(400, f"There is no {form[1:]} here: ask with .json, or with .xml")
        account, below = words[1], words[3:]
        if not reader.may_see(account) or account not in access.keys:
            raise not_here()
        if FORWARDED_BY in request.headers:  # a look that saw ourselves would confirm whatever we believe
            raise Failure(502, "TWILIO_API_BASE_URL leads back to Offhook itself: set it to Twilio's, or leave it out.")
        if request.method in ("GET", "HEAD"):
            return as_asked(_read(account, below))
        return control.carry_out(reader, _aimed_at(request.method, account, below, form))

    def _read(account: str, below: list[str]) -> dict[str, Any]:
        match below:
            case []:
                return _conferences(account)
            case [sid]:
                return resources.conference(_header(account, sid))
            case [sid, "Participants"]:
                return _participants(_known(account, sid))
            case [sid, "Participants", who]:
                return _participant(_known(account, sid), who)
            case [sid, "Recordings"]:
                return _recordings(_header(account, sid))
            case [sid, "Recordings", recording]:
                return _recording(_header(account, sid), recording)
        raise not_here()

    def _header(account: str, sid: str) -> Header:
        _check_conference_sid(sid)
        [found] = snapshots.headers([sid])
        header = read_header(found) if found else None
        if header is None or header.account_sid != account:
            raise not_here()
        return header

    def _known(account: str, sid: str) -> Conference:
        _check_conference_sid(sid)
        found = snapshots.conferences([sid])
        if not found or found[0].header.account_sid != account:
            raise not_here()
        return found[0]

    def _conferences(account: str) -> dict[str, Any]:
        filters = _filters(CONFERENCE_FILTERS)
        question, where = _question(account, filters, list_status), pages.asked("CF")
        headers, part = pages.conferences(snapshots, question, where)
        items = [resources.conference(header) for header in headers]
        return _listing("conferences", f"{resources.accounts_path(account)}/Conferences", items, filters, where, part)

    return rest


CONFERENCE_FILTERS = (
    "Status",
    "FriendlyName",
    *(f"Date{what}{span}" for what in ("Created", "Updated") for span in SPANS),
    "ParticipantCallSid",
    "ParticipantLabel",
)
PARTICIPANT_FILTERS = ("Muted", "Hold", "Coaching")
RECORDING_FILTERS = tuple(f"DateCreated{span}" for span in SPANS)


def _parted(target: str) -> tuple[list[str], str]:
    """The words of a path, decoded, and the form that its ending asks for.

    Names and labels may hold slashes. Escaped ones are part of their word, others belong to the label, which is last.
    """
    path = target.partition("?")[0].partition(f"/{resources.VERSION}/")[2].rstrip("/")
    form = next((form for form in FORMS if path.endswith(form)), "")
    return [unquote(word) for word in path.removesuffix(form).split("/", 5)], form


def _aimed_at(method: str, account: str, below: list[str], form: str) -> Target:
    """What a write is to change. Raises `Failure`."""
    match method, below:
        case "POST", [sid]:
            _check_conference_sid(sid)
            return Target("update-conference", account, sid)
        case "POST", [name, "Participants"]:
            return Target("add-participant", account, name)
        case (("POST" | "DELETE"), [sid, "Participants", who]):
            _check_conference_sid(sid)
            if form not in (".json", ".xml") and not is_sid("CA", who):
                # an unescaped # or ? in a label has cut it short, and the ending with it: this may be somebody else
                raise Failure(404, "A participant named by its label is only changed with .json (or .xml) behind it")
            return Target("update-participant" if method == "POST" else "remove-participant", account, sid, who)
        case (("POST" | "DELETE"), [sid, "Recordings", recording]):
            _check_conference_sid(sid)
            if not is_sid("RE", recording) and not (method == "POST" and recording == CURRENT):
                raise not_here()
            return Target("update-recording" if method == "POST" else "delete-recording", account, sid, recording)
    raise Failure(405, "Method not allowed")


def _check_conference_sid(word: str) -> None:
    """Twilio, too, says 405 where a name stands in a sid's place."""
    if not is_sid("CF", word):
        raise Failure(405, "Method not allowed: expected a conference sid here, CF and 32 hexadecimal digits")


def _filters(names: tuple[str, ...]) -> dict[str, str]:
    """The filters of the current request. Unknown parameters are passed over, as by Twilio."""
    for name in request.args:
        if re.match(r"Date(Created|Updated)[<>].", name):
            raise Failure(400, f"{name}: write the inequality as DateCreated<=YYYY-MM-DD or DateCreated>=YYYY-MM-DD")
    return {name: request.args[name] for name in names if request.args.get(name)}


def _question(account: str, filters: Mapping[str, str], usual: Status | None) -> Question:
    status = filters.get("Status", usual)
    if status is not None and status not in get_args(Status):
        raise Failure(400, f"Status: expected one of {', '.join(get_args(Status))}")
    call_sid = filters.get("ParticipantCallSid")
    if call_sid is not None and not is_sid("CA", call_sid):
        raise Failure(400, "ParticipantCallSid: expected CA and 32 hexadecimal digits")
    if call_sid is not None and "ParticipantLabel" in filters:
        raise Failure(400, "ParticipantCallSid and ParticipantLabel: ask with one of the two")
    first, last = _span(filters, "DateCreated")
    touched = _span(filters, "DateUpdated")
    ends = [moment for moment in (last, touched[1]) if moment is not None]  # created before it was last changed
    created: Created = (_seconds(first), _seconds(min(ends)) if ends else None)
    return Question(
        account=account,
        status=cast(Status | None, status),
        friendly_name=filters.get("FriendlyName"),
        call_sid=call_sid,
        label=filters.get("ParticipantLabel"),
        created=created,
        updated=touched,
    )


def _span(filters: Mapping[str, str], name: str) -> tuple[datetime | None, datetime | None]:
    """First and last moment that filters on a date allow. Days are UTC and belong to both inequalities, whole."""
    firsts, lasts = [], []
    for sign in SPANS:
        text = filters.get(name + sign)
        if text is None:
            continue
        first, last = _moments(name + sign, text)
        if sign in ("", ">"):
            firsts.append(first)
        if sign in ("", "<"):
            lasts.append(last)
    return max(firsts, default=None), min(lasts, default=None)


def _moments(name: str, text: str) -> tuple[datetime, datetime]:
    """The first and the last second of a day, or twice the second that is named: a time is more than Twilio takes."""
    day = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text)
    moment = read_time(text) if day or re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]", text) else None
    if moment is None or not 1 < moment.year < 9999:
        raise Failure(400, f"{name}: expected YYYY-MM-DD, or a time such as 2026-11-22T12:00:00Z")
    moment = moment.astimezone(UTC).replace(microsecond=0)
    return moment, moment + DAY - timedelta(seconds=1) if day else moment


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())


def _participants(conference: Conference) -> dict[str, Any]:
    filters, where = _filters(PARTICIPANT_FILTERS), pages.asked("CA")
    wanted = {name.lower(): _flag(name, text) for name, text in filters.items()}
    listed = {
        place(each.call_sid, each.created_at): resources.participant(conference.header, each)
        for each in resources.shown(conference.header, conference.participants.values())
        if all((getattr(each, flag) or False) is value for flag, value in wanted.items())
    }
    return _sublist("participants", conference.header, listed, filters, where)


def _flag(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise Failure(400, f"{name}: expected true or false")
    return text == "true"


def _participant(conference: Conference, who: str) -> dict[str, Any]:
    """By call sid or by label, of those that the list has."""
    found = conference.named(who, resources.shown(conference.header, conference.participants.values()))
    if found is None:
        raise not_here()
    return resources.participant(conference.header, found)


def _recordings(header: Header) -> dict[str, Any]:
    filters, where = _filters(RECORDING_FILTERS), pages.asked("RE")
    span = _span(filters, "DateCreated")
    listed = {
        place(each.sid, each.start_time): resources.recording(header, each)
        for each in resources.kept(header.recordings)
        if within(span, each.start_time and each.start_time.replace(microsecond=0))
    }
    return _sublist("recordings", header, listed, filters, where)


def _recording(header: Header, sid: str) -> dict[str, Any]:
    for recording in resources.kept(header.recordings):
        if recording.sid == sid:
            return resources.recording(header, recording)
    raise not_here()


def _sublist(
    kind: resources.Kind,
    header: Header,
    listed: Mapping[Place, resources.Resource],
    filters: Mapping[str, str],
    where: pages.Asked,
) -> dict[str, Any]:
    items, part = pages.part_of(listed, where)
    path = f"{resources.accounts_path(header.account_sid)}/Conferences/{header.sid}/{kind.title()}"
    return _listing(kind, path, items, filters, where, part)


def _listing(
    kind: resources.Kind,
    path: str,
    items: list[resources.Resource],
    filters: Mapping[str, str],
    where: pages.Asked,
    part: pages.Part,
) -> dict[str, Any]:
    return resources.listing(kind, items, where.page, where.size, pages.links(f"{path}.json", filters, where, part))
