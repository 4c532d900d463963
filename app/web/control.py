"""Passes control requests on to Twilio: checked, written down before and after, and never sent twice.

Twilio's answer comes back as it is. Whether it was done, callbacks tell: see `app/actions.py`.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import structlog
from flask import Response, request
from msgspec.structs import replace
from redis import RedisError

from app.actions import state_of
from app.conference import Conference, Participant, read_header
from app.events import Action, Callback, Verb
from app.store.connect import WrongShards
from app.store.promises import Answered, Promise, Promises, digest
from app.store.snapshots import Question, Snapshots
from app.twilio.control import (
    Addresses,
    Fields,
    Record,
    Told,
    awaited,
    encode_record,
    mistaken_events,
    patience,
    read_answer,
    refusal,
    without_secrets,
)
from app.twilio.resources import accounts_path, error, xml
from app.twilio.sids import is_sid
from app.twilio.signature import Malformed, form_fields
from app.upstream.api import FORWARDED_BY, Answer, Busy, Twilio, Unanswered
from app.web.access import Reader
from app.web.answers import target
from app.web.failures import Failure, not_here, wants_json
from app.web.intake import Intake
from app.web.webhook import PATH as WEBHOOK

FORM = "application/x-www-form-urlencoded"
LONGEST_KEY = 255
SAME_AGAIN = 10
"""Seconds for which a create that Twilio has not answered is not sent again: some SDKs repeat whatever got a 5xx."""

log = structlog.get_logger("offhook.control")


class Target(NamedTuple):
    """What a control request is to change. Its sids have been matched against their pattern."""

    verb: Verb
    account: str
    conference: str
    """Its sid; where a participant is added, perhaps its name."""
    part: str | None = None
    """Call sid or label of a participant, or sid of a recording."""

    @property
    def words(self) -> list[str]:
        """Its path below the account."""
        words = ["Conferences", self.conference]
        if self.verb.endswith("participant"):
            words.append("Participants")
        elif self.verb.endswith("recording"):
            words.append("Recordings")
        return words if self.part is None else [*words, self.part]

    @property
    def path(self) -> str:
        """Its address at Twilio."""
        return "/".join([accounts_path(self.account), *(quote(word, safe="") for word in self.words)]) + ".json"


class Request(NamedTuple):
    """A control request as it came."""

    target: Target
    by: str
    body: bytes
    query: str
    """In one plain encoding, which nothing on the way will change."""
    fields: Fields

    @property
    def fingerprint(self) -> str:
        """The same for the same request."""
        return digest(request.method.encode(), self.target.path.encode(), self.query.encode(), self.body)


class Control:
    """Everything that a control request needs."""

    def __init__(
        self,
        *,
        snapshots: Snapshots,
        promises: Promises,
        intake: Intake,
        twilio: Twilio,
        url_hosts: frozenset[str] | None,
        own_address: str | None,
    ) -> None:
        """`url_hosts` may be named in AnnounceUrl and the like, None: any; `own_address` is where our callbacks come.

        None: it is taken from each request.
        """
        self.snapshots = snapshots
        self.promises = promises
        self.intake = intake
        self.twilio = twilio
        self.url_hosts = url_hosts
        self.own_address = own_address

    def carry_out(self, reader: Reader, aim: Target) -> Response:
        """Pass the current request on, and answer with Twilio's answer. Raises `Failure`, RedisError, `WrongShards`."""
        asked = self._checked(reader, aim)
        promised = self._promised(asked)
        if isinstance(promised, Response):
            return promised
        try:
            home, action = self._begun(asked)
        except BaseException:
            if promised:
                self.promises.forget(promised)
            raise
        answer, outcome = self._sent(asked, action)
        answer.headers["Offhook-Action"] = action.id
        if mistaken := mistaken_events(asked.fields):
            events = " ".join(mistaken)
            answer.headers["Offhook-Hint"] = (
                f"StatusCallbackEvent is about the call; {events} belong into ConferenceStatusCallbackEvent"
            )
        self._remember(asked, promised, answer, outcome)
        self._write_down(asked, home, outcome, answer)
        return _answer(answer)

    def _checked(self, reader: Reader, aim: Target) -> Request:
        if not reader.control:
            raise Failure(403, "This key only reads. Use one with the scope control.")
        if _from_another_site():
            raise Failure(
                403, "A browser sent this from another site's page. Control requests are taken from our own only."
            )
        if FORWARDED_BY in request.headers:
            raise Failure(502, "TWILIO_API_BASE_URL leads back to Offhook itself: set it to Twilio's, or leave it out.")
        if not self.twilio.can_reach(aim.account):
            raise Failure(403, "No Auth Token is configured for this account: Twilio would not let us in.")
        if aim.conference in (".", "..") or not aim.conference:
            raise Failure(400, "A conference cannot be named so")
        body, raw_query = request.get_data(cache=False), target().partition("?")[2].encode("latin-1")
        if body and request.mimetype != FORM:
            raise Failure(400, f"Content-Type: expected {FORM}, as Twilio takes it")
        try:
            in_query, in_body = form_fields(raw_query), form_fields(body)
        except Malformed as malformed:
            raise Failure(400, str(malformed)) from malformed
        query = urlencode(in_query, quote_via=quote)
        pairs = [*in_body, *in_query]
        fields = [(name.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for name, value in pairs]
        addresses = Addresses(self.url_hosts, self.own_address or f"{request.host_url.rstrip('/')}{WEBHOOK}")
        for name, value in fields:
            if why := refusal(name, value, addresses):
                raise Failure(400, why)
        return Request(aim, reader.name, body, query, fields)

    def _promised(self, asked: Request) -> str | Response | None:
        """The name under which this request is promised to be sent once, or the answer that it has already got."""
        key = request.headers.get("Idempotency-Key")
        if key is None:
            if asked.target.verb != "add-participant":
                return None
            earlier = self.promises.find(_implicit(asked))
            return None if earlier is None else _again(earlier, asked)
        if not 0 < len(key) <= LONGEST_KEY:
            raise Failure(400, f"Idempotency-Key: expected 1 to {LONGEST_KEY} characters")
        name = digest(asked.target.account.encode(), asked.by.encode(), key.encode("utf-8", "replace"))
        earlier = self.promises.make(name, asked.fingerprint)
        return name if earlier is None else _again(earlier, asked)

    def _begun(self, asked: Request) -> tuple[str | None, Action]:
        """The conference it is about, if we know it, and the action, written down there as requested."""
        aim = asked.target
        conference = self._known(aim)
        participant = _named(conference, aim)
        call_sid = participant.call_sid if participant else None
        if call_sid is None and aim.part and is_sid("CA", aim.part):
            call_sid = aim.part
        awaits = awaited(aim.verb, asked.fields, participant)
        now = datetime.now(UTC)
        sequences = conference.header.coverage.sequences if conference else ()
        action = Action(
            id=secrets.token_hex(8),
            verb=aim.verb,
            by=asked.by,
            call_sid=call_sid,
            recording_sid=aim.part if aim.part and is_sid("RE", aim.part) else None,
            requested_at=now,
            expires_at=now + patience(awaits, asked.fields),
            after=sequences[-1][1] if sequences else 0,
            awaits=awaits,
        )
        home = conference.header.sid if conference else None
        log.info(
            "control requested",
            action=action.id,
            verb=action.verb,
            by=action.by,
            account=aim.account,
            conference_sid=home,
            parameters=sorted({name for name, _ in without_secrets(asked.fields)}),
        )
        if home is not None:
            self._record("requested", asked, home, action)
        return home, action

    def _known(self, aim: Target) -> Conference | None:
        """The conference that is meant, as far as callbacks have told of it."""
        if is_sid("CF", aim.conference):
            sids = [aim.conference]
        else:
            named = Question(account=aim.account, status="in-progress", friendly_name=aim.conference)
            sids = [read_header(header).sid for header in self.snapshots.page(named, None, 1)[0]]
        found = self.snapshots.conferences(sids)
        if found and found[0].header.account_sid != aim.account:
            raise not_here()
        return found[0] if found else None

    def _record(self, step: Any, asked: Request, sid: str, action: Action, told: Told | None = None) -> None:
        record = Record(
            step=step,
            account_sid=asked.target.account,
            conference_sid=sid,
            resource="/".join(asked.target.words),
            parameters=without_secrets(asked.fields),
            action=action,
            friendly_name=told and told.friendly_name,
            answer=told and told.answer,
        )
        now = int(datetime.now(UTC).timestamp() * 1000)
        callback = Callback(body=encode_record(record), media="control", received_at=now, key=asked.by)
        self.intake.store(sid, callback)

    def _sent(self, asked: Request, action: Action) -> tuple[Answer, Action]:
        """Twilio's answer, or ours in its place; and the action with what the answer makes of it."""
        aim = asked.target
        try:
            query = f"?{asked.query}" if asked.query else ""
            answer = self.twilio.send(request.method, aim.account, aim.path + query, asked.body)
        except Busy:
            why = "Too many control requests are under way here. This one was not sent: try again."
            return _own_answer(429, 20429, why), replace(action, error="not sent", answered_at=datetime.now(UTC))
        except Unanswered as unanswered:
            fate = "Whether it has done as asked is not known." if unanswered.sent else "Nothing was done."
            answer = _own_answer(
                504 if unanswered.timed_out else 502, 20500, f"No answer from Twilio: {unanswered}. {fate}"
            )
            error = "no answer" if unanswered.sent else "not sent"
            return answer, replace(action, error=error, answered_at=datetime.now(UTC))
        words = {name.lower(): value for name, value in answer.headers.items()}
        return answer, replace(
            action,
            status=answer.status,
            request_id=words.get("twilio-request-id"),
            answered_at=datetime.now(UTC),
        )

    def _remember(self, asked: Request, promised: str | None, answer: Answer, outcome: Action) -> None:
        """Keep the promise; or take it back where nothing can have been done, so that it may be tried again."""
        unknown = outcome.error == "no answer" and asked.target.verb == "add-participant"
        try:
            if promised and (outcome.error == "not sent" or outcome.status == 429):
                self.promises.forget(promised)
            elif promised:
                self.promises.keep(promised, asked.fingerprint, Answered(*answer))
            elif unknown:
                self.promises.keep(_implicit(asked), asked.fingerprint, Answered(*answer), seconds=SAME_AGAIN)
        except RedisError as error:
            log.error("an answer could not be remembered", action=outcome.id, error=type(error).__name__)

    def _write_down(self, asked: Request, home: str | None, outcome: Action, answer: Answer) -> None:
        """Twilio has done it or not by now: whatever goes wrong here must not take its answer from the client."""
        told = read_answer(asked.target.verb, answer.status, answer.body) if outcome.status else Told()
        outcome = replace(
            outcome,
            code=told.code,
            call_sid=told.call_sid or outcome.call_sid,
            recording_sid=told.recording_sid or outcome.recording_sid,
        )
        outcome = replace(outcome, state=state_of(outcome))
        log.info(
            "control answered",
            action=outcome.id,
            state=outcome.state,
            verb=outcome.verb,
            by=outcome.by,
            status=outcome.status,
            code=outcome.code,
            error=outcome.error,
            request_id=outcome.request_id,
        )
        done = outcome.status is not None and outcome.status < 300
        sid = told.conference_sid or home or (asked.target.conference if done else None)
        try:
            if sid is not None and is_sid("CF", sid) and (done or home is not None):
                self._record("answered", asked, sid, outcome, told)
            if home is not None and sid != home:  # the name has passed to another conference meanwhile
                self._record("answered", asked, home, outcome)
        except (RedisError, WrongShards) as error:
            log.error("an answer could not be written down", action=outcome.id, error=type(error).__name__)


def _from_another_site() -> bool:
    """Whether a page elsewhere has made a browser send this: it would sign in with what the browser remembers."""
    fetched, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if fetched is not None:
        return fetched not in ("none", "same-origin")
    return origin is not None and urlsplit(origin).netloc != request.host


def _named(conference: Conference | None, aim: Target) -> Participant | None:
    """The participant that is meant; of several with one label the one who is there."""
    if conference is None or aim.part is None or not aim.verb.endswith("participant"):
        return None
    participants = conference.participants
    labelled = [each for each in conference.in_order() if each.label == aim.part]
    return participants.get(aim.part) or max(labelled, key=lambda each: each.present, default=None)


def _implicit(asked: Request) -> str:
    return digest(b"unanswered", asked.target.account.encode(), asked.by.encode(), asked.fingerprint.encode())


def _again(earlier: Promise, asked: Request) -> Response:
    """The answer to a request that was made before. Raises `Failure`."""
    if earlier.fingerprint != asked.fingerprint:
        raise Failure(422, "Idempotency-Key: it was used for another request. Use a new one for each.")
    if earlier.answer is None:
        raise Failure(
            409, "Idempotency-Key: this request was passed on before and has no answer yet. It is not sent again."
        )
    answer = _answer(Answer(*msgspec.structs.astuple(earlier.answer)))
    answer.headers["Idempotent-Replayed"] = "true"
    return answer


def _own_answer(status: int, code: int, message: str) -> Answer:
    body = msgspec.json.encode(error(status, code, message))
    return Answer(status, {"Content-Type": "application/json"}, body)


def _answer(answer: Answer) -> Response:
    """For the client. Twilio was asked for JSON; who wants XML is given the same as XML."""
    body, headers = answer.body, dict(answer.headers)
    if body and not wants_json():
        with suppress(msgspec.DecodeError, UnicodeDecodeError):  # else it stays as it came
            body, headers["Content-Type"] = xml(msgspec.json.decode(body, type=dict)), "application/xml"
    return Response(body, answer.status, headers)
