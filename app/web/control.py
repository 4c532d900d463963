"""Passes control requests on to Twilio: checked, written down before and after, and never sent twice.

Twilio's answer comes back as it is. Whether it was done, callbacks tell: see `app/actions.py`.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import msgspec
import structlog
from flask import Response, request
from msgspec.structs import replace
from redis import RedisError
from werkzeug.exceptions import RequestEntityTooLarge

from app.actions import state_of
from app.conference import Conference, Participant, read_header
from app.events import Action, Callback, Verb
from app.store.connect import WrongLayout
from app.store.promises import Answered, Promise, Promises, digest
from app.store.snapshots import Question, Snapshots
from app.twilio.callbacks import UNDERSTOOD
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
from app.upstream.api import Answer, Busy, Twilio, Unanswered
from app.web.access import Reader
from app.web.answers import target
from app.web.failures import Failure, not_here, wants_json
from app.web.intake import Intake

FORM = "application/x-www-form-urlencoded"
LONGEST_KEY = 255
SAME_AGAIN = 10
"""Seconds for which a create that Twilio left without an answer is not sent again: some SDKs repeat every 5xx."""

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
    fields: Fields

    @property
    def fingerprint(self) -> str:
        """The same for the same request."""
        return digest(request.method.encode(), self.target.path.encode(), self.body)


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
        own_address: str,
    ) -> None:
        """`url_hosts` may be named in AnnounceUrl and the like, None: any.

        `own_address` is where our callbacks come; its path alone, where nobody has said on which host.
        """
        self.snapshots = snapshots
        self.promises = promises
        self.intake = intake
        self.twilio = twilio
        self.url_hosts = url_hosts
        self.own_address = own_address

    def carry_out(self, reader: Reader, aim: Target) -> Response:
        """Pass the current request on, and answer with Twilio's answer. Raises `Failure`, RedisError, `WrongLayout`."""
        asked = self._checked(reader, aim)
        key = self._key(asked)
        if key is not None and (earlier := self.promises.make(key, asked.fingerprint)):
            return _again(earlier, asked)
        try:
            known, action = self._begun(asked)
            if key is not None:
                self.promises.seal(key, asked.fingerprint)
        except BaseException:  # nothing has been sent; should this fail as well, the promise is over in a minute
            if key is not None:
                with suppress(RedisError):
                    self.promises.forget(key)
            raise
        answer, outcome = self._sent(asked, action)
        answer.headers["Offhook-Action"] = action.id
        if hint := _hint(asked, known):
            answer.headers["Offhook-Hint"] = hint
        if key is not None:
            self._remember(key, asked, answer, outcome)
        self._write_down(asked, known, outcome, answer)
        return _answer(answer)

    def _checked(self, reader: Reader, aim: Target) -> Request:
        if not reader.control:
            raise Failure(403, "This key only reads. Use one with the scope control.")
        if not self.twilio.can_reach(aim.account):
            raise Failure(403, "No Auth Token is configured for this account: Twilio would not let us in.")
        if aim.conference in (".", "..") or not aim.conference:
            raise Failure(400, "A conference cannot be named so")
        if target(request.environ).partition("?")[2]:
            raise Failure(
                400,
                "Send the parameters in the body. Or has a ? in a sid or label, not escaped, cut the address short?",
            )
        body = _body()
        if body and request.mimetype != FORM:
            raise Failure(400, f"Content-Type: expected {FORM}, as Twilio takes it")
        try:
            pairs = form_fields(body)
        except Malformed as malformed:
            raise Failure(400, str(malformed)) from malformed
        fields = [(name.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for name, value in pairs]
        addresses = Addresses(self.url_hosts, self.own_address, UNDERSTOOD)
        for name, value in fields:
            if why := refusal(name, value, addresses):
                raise Failure(400, why)
        return Request(aim, reader.name, body, fields)

    def _key(self, asked: Request) -> str | None:
        """The name under which this request is promised to be sent once. A create has one of its own; None: none."""
        key, who = request.headers.get("Idempotency-Key"), (asked.target.account.encode(), asked.by.encode())
        if key is None:
            dials = asked.target.verb == "add-participant"
            return digest(b"the same again", *who, asked.fingerprint.encode()) if dials else None
        if not 0 < len(key) <= LONGEST_KEY:
            raise Failure(400, f"Idempotency-Key: expected 1 to {LONGEST_KEY} characters")
        return digest(b"key", *who, key.encode("utf-8", "replace"))

    def _begun(self, asked: Request) -> tuple[Conference | None, Action]:
        """The conference it is about, if we know it, and the action, written down there as requested."""
        aim = asked.target
        conference = self._known(aim)
        participant = _named(conference, aim)
        awaits = awaited(aim.verb, asked.fields, participant)
        now = datetime.now(UTC)
        sequences = conference.header.coverage.sequences if conference else ()
        action = Action(
            id=secrets.token_hex(8),
            verb=aim.verb,
            by=asked.by,
            call_sid=aim.part if aim.part and is_sid("CA", aim.part) else None,
            recording_sid=aim.part if aim.part and is_sid("RE", aim.part) else None,
            requested_at=now,
            expires_at=now + patience(awaits, asked.fields),
            after=sequences[-1][1] if sequences else 0,
            awaits=awaits,
        )
        log.info(
            "control requested",
            action=action.id,
            verb=action.verb,
            by=action.by,
            account=aim.account,
            conference_sid=conference and conference.header.sid,
            parameters=sorted({name for name, _ in without_secrets(asked.fields)}),
        )
        if conference is not None:
            self._record("requested", asked, conference.header.sid, action)
        else:
            self.intake.inbox.probe(action.id)  # it can only be written down afterwards: at least there must be room
        return conference, action

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
            answer = self.twilio.send(request.method, aim.account, aim.path, asked.body)
        except Busy:
            why = "Too many control requests are under way here. This one was not sent: try again."
            return _own_answer(429, 20429, why), replace(action, error="not sent", answered_at=datetime.now(UTC))
        except Unanswered as unanswered:
            fate = "Whether it has done as asked is not known." if unanswered.sent else "Nothing was done."
            answer = _own_answer(
                504 if unanswered.timed_out else 502, 20500, f"No answer from Twilio: {unanswered}. {fate}"
            )
            reached: Literal["no answer", "not sent"] = "no answer" if unanswered.sent else "not sent"
            return answer, replace(action, error=reached, answered_at=datetime.now(UTC))
        words = {name.lower(): value for name, value in answer.headers.items()}
        return answer, replace(
            action,
            status=answer.status,
            request_id=words.get("twilio-request-id"),
            answered_at=datetime.now(UTC),
        )

    def _remember(self, key: str, asked: Request, answer: Answer, outcome: Action) -> None:
        """Keep the promise; or take it back where nothing can have been done, so that it may be tried again.

        A create without a key of the client's is only kept from being repeated while nobody knows whether it was done.
        """
        named = "Idempotency-Key" in request.headers
        try:
            if outcome.error == "no answer" and not named:
                self.promises.keep(
                    key, asked.fingerprint, Answered(answer.status, answer.headers, answer.body), seconds=SAME_AGAIN
                )
            elif outcome.error == "not sent" or outcome.status == 429 or not named:
                self.promises.forget(key)
            else:
                self.promises.keep(key, asked.fingerprint, Answered(answer.status, answer.headers, answer.body))
        except RedisError as failure:
            log.error("an answer could not be remembered", action=outcome.id, error=type(failure).__name__)

    def _write_down(self, asked: Request, known: Conference | None, outcome: Action, answer: Answer) -> None:
        """Twilio has done it or not by now: whatever goes wrong here must not take its answer from the client."""
        aim, participant = asked.target, _named(known, asked.target)
        told = read_answer(aim.verb, answer.status, answer.body) if outcome.status else Told()
        if aim.verb == "add-participant" and not is_sid("CF", aim.conference):
            told = told._replace(friendly_name=aim.conference)
        outcome = replace(
            outcome,
            code=told.code,
            call_sid=outcome.call_sid or told.call_sid or (participant and participant.call_sid),
            recording_sid=outcome.recording_sid or told.recording_sid,
        )
        outcome = replace(outcome, state=state_of(outcome))
        say = log.info if outcome.error is None else log.warning
        say(
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
        home = known.header.sid if known else None
        sid = told.conference_sid or home or aim.conference
        try:
            if home is not None and sid != home:  # the name has passed to another conference meanwhile
                self._record("answered", asked, home, outcome)
                outcome = replace(outcome, after=0)
            if is_sid("CF", sid) and (done or home is not None):
                self._record("answered", asked, sid, outcome, told)
        except (RedisError, WrongLayout) as failure:
            log.error("an answer could not be written down", action=outcome.id, error=type(failure).__name__)


def _body() -> bytes:
    """The body, if it is there as a whole. A part of it would be another request: a shorter number is another phone."""
    if request.headers.get("Transfer-Encoding"):
        raise Failure(400, "Send the body in one piece, with its Content-Length")
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise
    except Exception as error:  # each server has errors of its own for a body that is cut off
        raise Failure(400, "The body is cut off") from error
    if len(body) != (request.content_length or 0):
        raise Failure(400, "The body is shorter than its Content-Length")
    return body


def _named(conference: Conference | None, aim: Target) -> Participant | None:
    """The participant that is meant, as far as we know it."""
    if conference is None or aim.part is None or not aim.verb.endswith("participant"):
        return None
    return conference.named(aim.part)


def _hint(asked: Request, known: Conference | None) -> str | None:
    """Why Offhook may never hear of what this leads to."""
    if mistaken := " ".join(mistaken_events(asked.fields)):
        return f"StatusCallbackEvent is about the call; {mistaken} belong into ConferenceStatusCallbackEvent"
    silent = not any(name == "ConferenceStatusCallback" for name, _ in asked.fields)
    if asked.target.verb == "add-participant" and known is None and silent:
        return (
            "Without ConferenceStatusCallback a new conference tells nothing; `offhook twiml ROOM` prints what to send"
        )
    return None


def _again(earlier: Promise, asked: Request) -> Response:
    """The answer to a request that was made before. Raises `Failure`."""
    if earlier.fingerprint != asked.fingerprint:
        raise Failure(422, "Idempotency-Key: it was used for another request. Use a new one for each.")
    if earlier.answer is None:
        raise Failure(409, "The same request is under way, or its answer was lost. It is not sent again.")
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
        with suppress(Exception):  # Twilio has answered: what cannot be read as its JSON goes back as it came
            body, headers["Content-Type"] = xml(msgspec.json.decode(body, type=dict)), "application/xml"
    return Response(body, answer.status, headers)
