"""Every Twilio callback comes in here: believe it or not, write it down as it came, nudge, 204."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import structlog
from flask import Blueprint, Response, request
from redis import RedisError
from werkzeug.exceptions import RequestEntityTooLarge

from app.events import Callback, Media
from app.store.connect import WrongShards
from app.twilio.sids import is_sid
from app.twilio.signature import Key, Malformed, form_fields, signed_urls, verify, verify_json
from app.web.answers import failure, target
from app.web.intake import Intake
from app.web.refusals import Refusals

PATH = "/webhooks/twilio"
LONGEST_TOKEN = 128

log = structlog.get_logger("offhook.webhook")

Fields = Sequence[tuple[bytes, bytes]]


def create(
    *,
    intake: Intake,
    keys: Mapping[str, tuple[Key, ...]],
    public_url: str | None,
    refusals: Refusals,
) -> Blueprint:
    """The route. See `app.web.create_app` for what it is handed."""
    webhook = Blueprint("webhook", __name__)
    every_key = tuple({key.name: key for account in keys.values() for key in account}.values())

    @webhook.route(PATH, methods=["GET", "POST"], provide_automatic_options=False)
    def receive() -> Response:
        sent = target()
        query = sent.partition("?")[2].encode("latin-1")
        try:
            body = request.get_data(cache=False) if request.method == "POST" else query
        except RequestEntityTooLarge:
            refusals.note("too large")
            raise
        except Exception:  # each server has errors of its own for a body that is cut off, or not chunked as it says
            refusals.note("malformed")
            return failure(400, "The body is cut off, or its chunks are malformed.")
        media = _media(request.mimetype) if request.method == "POST" else "form"
        if media is None:
            refusals.note("media type")
            return failure(415, "Send application/x-www-form-urlencoded, as Twilio does, or application/json.")
        try:
            fields = form_fields(body) if media == "form" else []
        except Malformed as error:
            refusals.note("malformed")
            return failure(400, str(error))
        account = _first(fields, b"AccountSid")
        if media == "form" and account and account not in keys:
            refusals.note("unknown account", account=account if is_sid("AC", account) else "no sid")
            return Response(status=403)
        key = _signer(sent, body, media, fields if request.method == "POST" else (), keys.get(account, every_key))
        if key is None:
            refusals.note("signature", expected_at=_without_credentials(_bases()[0]) + request.path)
            return Response(status=403)
        callback = Callback(
            body=body,
            media=media,
            received_at=time.time_ns() // 1_000_000,
            key=key.name,
            token=request.headers.get("I-Twilio-Idempotency-Token", "")[:LONGEST_TOKEN],
            query=query.decode("latin-1") if request.method == "POST" else "",
        )
        return _stored(_home(fields, account), callback)

    def _signer(sent: str, body: bytes, media: Media, fields: Fields, ring: Sequence[Key]) -> Key | None:
        urls = [url for base in _bases() for url in signed_urls(base, sent)]
        signature = request.headers.get("X-Twilio-Signature", "")
        settings = request.headers.get("X-Twilio-Webhooks-Signature-Settings", "")
        if media == "json":
            return verify_json(urls, body, signature, ring, settings)
        return verify(urls, fields, signature, ring, settings)

    def _bases() -> list[str]:
        """What Twilio was given. Unless that is configured, any proxy may have taken the TLS off: both are tried."""
        if public_url is not None:
            return [public_url]
        host = request.environ.get("HTTP_HOST", "")
        return [f"https://{host}", f"http://{host}"]

    def _stored(home: str, callback: Callback) -> Response:
        """2xx means stored: nothing answers 204 before Redis has."""
        try:
            intake.store(home, callback)
        except (RedisError, WrongShards) as error:
            log.error("not stored", error=type(error).__name__)
            refusals.note("not stored")
            return failure(503, "Not stored: Redis does not answer, or cannot.")
        return Response(status=204)

    return webhook


def _without_credentials(base: str) -> str:
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _media(mimetype: str) -> Media | None:
    kinds: dict[str, Media] = {"application/x-www-form-urlencoded": "form", "application/json": "json"}
    return kinds.get(mimetype)


def _first(fields: Fields, name: bytes) -> str:
    return next((value.decode("utf-8", "replace") for given, value in fields if given == name), "")


def _home(fields: Fields, account: str) -> str:
    """The sid whose shard a callback goes to: its conference's, else its call's, else any that is always the same."""
    for name, kind in ((b"ConferenceSid", "CF"), (b"CallSid", "CA")):
        sid = _first(fields, name)
        if is_sid(kind, sid):
            return sid
    return account
