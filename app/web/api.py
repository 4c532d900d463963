"""The native JSON API: conferences, one conference, its events and timeline, alerts, and how the service stands."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast, get_args
from urllib.parse import urlencode

import msgspec
import structlog
from flask import Blueprint, Response, abort

from app.conference import Header, encode, read_header
from app.events import Alert, Callback, Event, Status
from app.store.alerts import Alerts
from app.store.commits import DeadLetter
from app.store.inbox import Inbox, lag
from app.store.index import Place
from app.store.logs import Logged
from app.store.looks import Looks
from app.store.outbox import Outbox
from app.store.snapshots import Question, Snapshots
from app.timeline import timeline
from app.twilio.callbacks import Unusable, parameters, read, read_filed
from app.twilio.sids import is_sid
from app.web.access import Access, asked_account
from app.web.answers import json_bytes, json_value
from app.web.insights import AT_ONCE
from app.web.queries import check_visible, query, visible_header
from app.web.refusals import Refusals

USUAL_PAGE, LARGEST_PAGE = 50, 500
DEAD_LETTERS_SHOWN = 20

log = structlog.get_logger("offhook.api")


class Reconciling(NamedTuple):
    """Looks at Twilio's REST API that can be asked for."""

    looks: Looks
    can_reach: Callable[[str], bool]
    """Whether there are credentials for an account."""
    on: bool
    """Whether workers look at all."""


def create(
    *, inbox: Inbox, snapshots: Snapshots, access: Access, refusals: Refusals, reconcile: Reconciling
) -> Blueprint:
    """Routes under `/api`. See `app.web.create_app` for what they are handed."""
    api = Blueprint("api", __name__, url_prefix="/api")
    alerts, outbox = Alerts(snapshots), Outbox(snapshots.redis, snapshots.shards)

    @api.get("/conferences")
    def conferences() -> Response:
        reader = access.reader()
        asked = query("status", "friendly_name", "participant", "account", "limit", "after", "expand")
        place = _place(asked.get("after"))
        question = _question(asked, asked_account(reader, asked.get("account")))
        headers, following = snapshots.page(question, place, _limit(asked))
        if asked.get("expand") == "participants":
            sids = [read_header(header).sid for header in headers]
            headers = [document for document in snapshots.documents(sids) if document is not None]
        link = _link("/api/conferences", asked, f"{following.created}-{following.sid}" if following else None)
        return json_bytes(b'{"conferences":[%b],"next":%b}' % (b",".join(headers), link))

    @api.get("/conferences/<sid>")
    def conference(sid: str) -> Response:
        reader = access.reader()
        query()
        return json_bytes(check_visible(reader, sid, snapshots.parts, lambda parts: parts.header).document())

    @api.get("/conferences/<sid>/events")
    def events(sid: str) -> Response:
        reader = access.reader()
        asked = query("after", "limit")
        visible_header(reader, sid, snapshots)
        after = asked.get("after", "0")
        if not re.fullmatch(r"[0-9]{1,15}", after):
            abort(400, "after: expected the `number` of an event of this list; `next` has it.")
        limit = _limit(asked)
        logged = snapshots.events(sid, int(after), limit)
        link = _link(f"/api/conferences/{sid}/events", asked, str(logged[-1].number) if len(logged) == limit else None)
        return json_bytes(b'{"events":%b,"next":%b}' % (encode([_shown(entry) for entry in logged]), link))

    @api.get("/conferences/<sid>/timeline")
    def picture(sid: str) -> Response:
        reader = access.reader()
        query()
        revision = read_header(visible_header(reader, sid, snapshots)).revision
        told: list[Event] = []
        heard = 0
        while logged := snapshots.events(sid, heard, AT_ONCE):
            heard = logged[-1].number
            for entry in logged:
                with suppress(Unusable):  # an earlier release could read it
                    told.append(read_filed(entry.callback, sid))
        shown = encode(timeline(told))
        return json_bytes(b'{"revision":%d,"events":%d,%b' % (revision, heard, shown[1:]))

    @api.post("/conferences/<sid>/reconcile")
    def look(sid: str) -> Response:
        reader = access.reader()
        query()
        account = read_header(visible_header(reader, sid, snapshots)).account_sid
        if not reader.control:
            abort(403, "This key only reads. Use one with the scope control.")
        if not reconcile.on:
            abort(409, "Nothing here looks at Twilio: OFFHOOK_RECONCILE is off.")
        if not reconcile.can_reach(account):
            abort(409, "No Auth Token is configured for this account: Twilio would not let us in.")
        reconcile.looks.ask([sid], "operator", time.time_ns() // 1_000_000, by=reader.name)
        log.info("look asked for", conference_sid=sid, by=reader.name)
        return json_value({"conference_sid": sid, "due": True}, 202)

    @api.get("/alerts")
    def standing() -> Response:
        reader = access.reader()
        asked = query("account", "limit")
        account, limit = asked_account(reader, asked.get("account")), _limit(asked)
        found = alerts.standing(None if account is None else {account}, limit + 1)
        return json_value({"alerts": [_alert(*each) for each in found[:limit]], "more": len(found) > limit})

    @api.get("/stats")
    def stats() -> Response:
        reader = access.reader()
        query()
        backlog, counters = inbox.backlog(), snapshots.counters()
        answer: dict[str, Any] = {
            "conferences": snapshots.count(reader.account),
            "callbacks": {
                "folded": counters["folded"],
                "noted": counters["noted"],
                "repeated": counters["repeated"],
                "dead_letters": snapshots.letters_left(),
                "waiting": sum(shard.waiting for shard in backlog),
                "oldest_waiting_seconds": lag(backlog, time.time()),
                "refused": refusals.totals(),
            },
            "twilio": _our_requests(snapshots.rest_counts()),
            "gaps": snapshots.gaps(),
            "deliveries": msgspec.to_builtins(outbox.standing()),
            "shards": [{"waiting": shard.waiting, "leased": shard.leased} for shard in backlog],
        }
        if reader.accounts is None:
            answer["dead_letters"] = [_buried(letter) for letter in snapshots.dead_letters(DEAD_LETTERS_SHOWN)]
        return json_value(answer)

    return api


def _question(asked: dict[str, str], account: str | None) -> Question:
    status, participant = asked.get("status"), asked.get("participant")
    if status is not None and status not in get_args(Status):
        abort(400, f"status: expected one of {', '.join(get_args(Status))}.")
    if asked.get("expand") not in (None, "participants"):
        abort(400, "expand: expected participants.")
    by_call = participant is not None and is_sid("CA", participant)
    return Question(
        account=account,
        status=cast(Status | None, status),
        friendly_name=asked.get("friendly_name"),
        call_sid=participant if by_call else None,
        label=None if by_call else participant,
    )


def _limit(asked: dict[str, str]) -> int:
    text = asked.get("limit", str(USUAL_PAGE))
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        abort(400, f"limit: expected a whole number from 1 to {LARGEST_PAGE}.")
    return min(int(text), LARGEST_PAGE)


def _place(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    created, _, sid = cursor.partition("-")
    if not re.fullmatch(r"[0-9]{1,12}", created) or not is_sid("CF", sid):
        abort(400, "after: not a place in this list; take it from `next`.")
    return Place(int(created), sid)


def _link(path: str, asked: dict[str, str], after: str | None) -> bytes:
    """Where the list goes on, as JSON; null at its end."""
    return encode(None if after is None else f"{path}?{urlencode({**asked, 'after': after})}")


def _alert(header: Header, alert: Alert) -> dict[str, Any]:
    names = {"conference_sid": header.sid, "account_sid": header.account_sid, "friendly_name": header.friendly_name}
    return names | msgspec.structs.asdict(alert)


def _shown(entry: Logged) -> dict[str, Any]:
    try:
        event: Event | None = read(entry.callback)
    except Unusable:  # an earlier release could read it
        event = None
    return {
        "number": entry.number,
        "type": event and event.type,
        "source": event and event.source,
        "sequence": event and event.sequence,
        "at": event and event.at,
        "call_sid": event and event.call_sid,
        "received_at": _time(entry.callback),
        "verified_by": entry.callback.key,
        "parameters": parameters(entry.callback),
    }


def _our_requests(counts: dict[str, int]) -> dict[str, dict[str, int]]:
    """Requests by outcome, and looks by reason."""
    shown: dict[str, dict[str, int]] = {"requests": {}, "looks": {}}
    for name, count in sorted(counts.items()):
        kind, _, reason = name.partition(":")
        shown["looks" if reason else "requests"][reason or kind] = count
    return shown


def _buried(letter: DeadLetter) -> dict[str, Any]:
    said: Any
    try:
        said = parameters(letter.callback)
    except Unusable:
        said = letter.callback.body.decode("utf-8", "replace")
    return {
        "reason": letter.reason,
        "received_at": _time(letter.callback),
        "set_aside_at": _moment(letter.set_aside_at),
        "set_aside_by": letter.by,
        "parameters": said,
    }


def _time(callback: Callback) -> datetime:
    return _moment(callback.received_at)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
