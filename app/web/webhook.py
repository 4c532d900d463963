"""Every Twilio callback comes in here: believe it or not, write it down as it came, nudge, 204.

It comes by itself, as a form. Or, on a second road, it comes wrapped: many at once in a request of Event Streams, or
one that has failed in what the Debugger tells of it. A request that was believed is not refused for what it holds,
for Twilio would never send it again: what cannot be read is written down too, and set aside when it is folded.

A WSGI application of its own, ahead of Flask's: there is one address, and nothing of what Flask does for a request is
needed here. Dispatching would cost more than checking a signature does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog
from flask import Response
from msgspec.structs import replace
from redis import RedisError
from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge
from werkzeug.wsgi import get_input_stream

from app.admission import Admission
from app.events import Callback, Media
from app.store.connect import WrongLayout
from app.store.inbox import Full
from app.store.spool import Spooled
from app.twilio.callbacks import Unusable, address
from app.twilio.sids import is_sid
from app.twilio.signature import Key, Malformed, form_fields, signed_urls, verify, verify_json
from app.twilio.streams import TooMany, split
from app.web.answers import failure, guarded, target, with_headers
from app.web.intake import Intake
from app.web.refusals import Refusals

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATH = "/webhooks/twilio"
ADDRESSES = (PATH, f"{PATH}/")
LARGEST_BODY = 64 * 1024
"""Bytes of a form. Twilio's status callbacks are well under 2 KiB."""
LARGEST_JSON = 1024 * 1024
"""Bytes of JSON. An event of Event Streams has about 2 KiB, and a request holds many."""
LONGEST_TOKEN = 128
SPEECH = (b"participant-speech-start", b"participant-speech-stop")
"""Most of what Twilio sends where it is subscribed to, and the least of what is missed."""
MEDIA: Mapping[str, Media] = {
    "application/x-www-form-urlencoded": "form",
    "application/json": "json",
    "application/cloudevents+json": "json",
    "application/cloudevents-batch+json": "json",
}

log = structlog.get_logger("offhook.webhook")

Fields = Sequence[tuple[bytes, bytes]]

_urls = lru_cache(maxsize=64)(signed_urls)  # nearly all requests have one target; strangers may send any


class Webhook:
    """The WSGI application. See `app.web.create_app` for what it is handed."""

    def __init__(
        self, *, intake: Intake, keys: Mapping[str, tuple[Key, ...]], public_url: str | None, refusals: Refusals
    ) -> None:
        self.intake = intake
        self.keys = keys
        self.every_key = tuple(dict.fromkeys(key for account in keys.values() for key in account))
        self.public_url = public_url
        self.refusals = refusals
        self.admission: Admission | None = None
        """Whom to ask whether this process keeps up. The web server hands it over."""

    def ahead_of(self, others: WSGIApplication) -> WSGIApplication:
        """An application that answers the webhook's address itself, and has the others answer for all else."""

        def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            answers = self if environ["PATH_INFO"] in ADDRESSES else others
            return answers(environ, start_response)

        return application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request. Whatever goes wrong, it is not answered 2xx, and not with a redirect."""
        try:
            refusal = self._receive(environ)
        except HTTPException as error:
            refusal = with_headers(failure(error.code or 400, error.description or error.name), error)
        except Exception as error:
            log.exception("callback failed", error=type(error).__name__)
            self.refusals.note("not stored")
            refusal = failure(503, "Not stored: something is wrong inside Offhook; its log says what.")
        if refusal is not None:
            return guarded(refusal)(environ, start_response)
        start_response("204 NO CONTENT", [])
        return ()

    def _receive(self, environ: WSGIEnvironment) -> Response | None:
        """Why a request is refused; None: its callback is stored."""
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD", "POST"):
            answer = failure(405, "Twilio's callbacks come by POST or GET.")
            answer.headers["Allow"] = "GET, HEAD, POST"
            return answer
        sent = target(environ)
        query = sent.partition("?")[2].encode("latin-1")
        posted = method == "POST"
        media = MEDIA.get(environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()) if posted else "form"
        try:
            body = _body(environ, LARGEST_JSON if media == "json" else LARGEST_BODY) if posted else query
        except RequestEntityTooLarge:
            self.refusals.note("too large")
            raise
        except Exception:  # each server has errors of its own for a body that is cut off, or not chunked as it says
            self.refusals.note("malformed")
            return failure(400, "The body is cut off, or its chunks are malformed.")
        if self.admission is not None and self.admission.refuses(body if media == "form" else b""):
            self.refusals.note("too many at once")
            return failure(503, "Not stored: more callbacks come than can be taken in.")
        if media is None:
            self.refusals.note("media type")
            return failure(415, "Send application/x-www-form-urlencoded, as Twilio does, or application/json.")
        try:
            fields = form_fields(body) if media == "form" else []
        except Malformed as error:
            self.refusals.note("malformed")
            return failure(400, str(error))
        first = dict(reversed(fields))  # of a name that is given twice the first value counts
        account = _text(first, b"AccountSid")
        if media == "form" and account and account not in self.keys:
            self.refusals.note("unknown account", account=account if is_sid("AC", account) else "no sid")
            return Response(status=403)
        ring = self.keys.get(account, self.every_key)
        bases = self._bases(environ)
        key = _signer(environ, [url for base in bases for url in _urls(base, sent)], media, body, fields, ring)
        if key is None:
            self.refusals.note("signature", expected_at=_without_credentials(bases[0]) + environ["PATH_INFO"])
            return Response(status=403)
        callback = Callback(
            body=body,
            media=media,
            received_at=time.time_ns() // 1_000_000,
            key=key.name,
            token=environ.get("HTTP_I_TWILIO_IDEMPOTENCY_TOKEN", "")[:LONGEST_TOKEN],
            query=query.decode("latin-1") if posted else "",
        )
        if media == "json":
            return self._stored_each(callback, key)
        if b"Payload" in first:
            return self._stored(self._addressed([callback], key))
        return self._stored([Spooled(_home(first, account), callback, first.get(b"StatusCallbackEvent") in SPEECH)])

    def _stored_each(self, callback: Callback, key: Key) -> Response | None:
        """As `_stored`, of all the events that are in a request of Event Streams."""
        try:
            bodies = split(callback.body)
        except TooMany as error:
            self.refusals.note("too large")
            return failure(413, f"Not stored: {error}.")
        except Malformed as error:
            self.refusals.note("malformed")
            return failure(400, f"The body is {error}.")
        if self.admission is not None:
            self.admission.brought(len(bodies) - 1)
        return self._stored(self._addressed([replace(callback, body=body) for body in bodies], key))

    def _addressed(self, callbacks: Sequence[Callback], key: Key) -> list[Spooled]:
        """Where callbacks that came wrapped belong; the others are counted, and left out.

        Whoever has a key tells only of accounts whose callbacks that key may sign. Speech gives way only if it comes by
        itself: for what else there is in a request the whole would come again.
        """
        mail = []
        for callback in callbacks:
            try:
                to = address(callback)
            except Unusable:  # the fold will say why, and keep it
                mail.append(Spooled("", callback))
                continue
            if to is None:
                self.refusals.note("not about a conference")
            elif to.account_sid and key not in self.keys.get(to.account_sid, ()):
                said = to.account_sid if is_sid("AC", to.account_sid) else "no sid"
                self.refusals.note("another account", account=said, key=key.name)
            else:
                mail.append(Spooled(to.sid, callback, to.event.encode() in SPEECH and len(callbacks) == 1))
        return mail

    def _bases(self, environ: WSGIEnvironment) -> list[str]:
        """What Twilio was given. Unless that is configured, any proxy may have taken the TLS off: both are tried."""
        if self.public_url is not None:
            return [self.public_url]
        host = environ.get("HTTP_HOST", "")
        return [f"https://{host}", f"http://{host}"]

    def _stored(self, mail: Sequence[Spooled]) -> Response | None:
        """2xx means stored: nothing answers 204 before Redis has all of it, or the spool."""
        if not mail:
            return None
        try:
            self.intake.store_all(mail)
        except Full:
            if mail[0].speech:  # nothing but a callback tells of it
                self.refusals.note("speech, for want of room")
            else:
                self.refusals.note_lost("no room")
            return failure(503, "Not stored: too many callbacks are waiting to be folded.")
        except (RedisError, WrongLayout) as error:
            self.refusals.note_lost("not stored", error=type(error).__name__)
            return failure(503, "Not stored: Redis does not answer, or cannot.")
        return None


def _signer(
    environ: WSGIEnvironment, urls: Sequence[bytes], media: Media, body: bytes, fields: Fields, ring: Sequence[Key]
) -> Key | None:
    signature = environ.get("HTTP_X_TWILIO_SIGNATURE", "")
    settings = environ.get("HTTP_X_TWILIO_WEBHOOKS_SIGNATURE_SETTINGS", "")
    if media == "json":
        return verify_json(urls, body, signature, ring, settings)
    return verify(urls, fields if environ["REQUEST_METHOD"] == "POST" else (), signature, ring, settings)


def _without_credentials(base: str) -> str:
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _body(environ: WSGIEnvironment, largest: int) -> bytes:
    """The body of a POST. Raises RequestEntityTooLarge, or whatever the server has for one that is cut off."""
    said = environ.get("CONTENT_LENGTH", "")
    body: bytes
    if not (said.isascii() and said.isdecimal() and int(said) <= largest):
        body = get_input_stream(environ, max_content_length=largest + 1).read()  # it cuts off, and says nothing
        if len(body) > largest:
            raise RequestEntityTooLarge
        return body
    body = environ["wsgi.input"].read(int(said))  # as nearly always, and a tenth of the work
    if len(body) < int(said):
        raise ClientDisconnected
    return body


def _text(fields: Mapping[bytes, bytes], name: bytes) -> str:
    return fields.get(name, b"").decode("utf-8", "replace")


def _home(fields: Mapping[bytes, bytes], account: str) -> str:
    """The sid whose shard a callback goes to: its conference's, else its call's, else any that is always the same."""
    for name, kind in ((b"ConferenceSid", "CF"), (b"CallSid", "CA")):
        sid = _text(fields, name)
        if is_sid(kind, sid):
            return sid
    return account
