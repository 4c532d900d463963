"""Failures of the Twilio-compatible addresses, in Twilio's words and numbers (Twilio docs, Twilio's Response)."""

from __future__ import annotations

import structlog
from flask import Blueprint, Response, request
from redis import RedisError
from werkzeug.exceptions import HTTPException

from app.conference import encode
from app.store.connect import WrongLayout
from app.twilio.resources import error, xml
from app.web.answers import with_headers

CODES = {401: 20003, 403: 20003, 404: 20404, 405: 20004, 429: 20429}
BAD_PARAMETER = 20001
TWILIOS = ("/2010-04-01", "/v1")
"""How the addresses begin that are answered as by Twilio."""
BAD_PAGE_TOKEN = 21481
INTERNAL = 20500

log = structlog.get_logger("offhook.web")


class Failure(Exception):
    """What a request is answered with instead. `code` follows from the status unless given."""

    def __init__(self, status: int, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or CODES.get(status, BAD_PARAMETER if status < 500 else INTERNAL)


def not_here() -> Failure:
    """For what is not there, and for what the caller may not see: the two must look the same."""
    return Failure(404, f"The requested resource {request.path} was not found")


def wants_json() -> bool:
    """Whether JSON is asked for, by `.json`, by Accept, or because no other form exists. Twilio's default is XML."""
    path = request.path.rstrip("/")
    if path.startswith("/v1") or path.endswith(".json"):
        return True
    accepted = {media for media, quality in request.accept_mimetypes if quality > 0}
    return not path.endswith(".xml") and "application/json" in accepted


def as_asked(payload: dict[str, object], status: int = 200) -> Response:
    """A resource, a page or an error, as JSON or XML."""
    if wants_json():
        return Response(encode(payload), status, {"Cache-Control": "no-store"}, content_type="application/json")
    return Response(xml(payload), status, {"Cache-Control": "no-store"}, content_type="application/xml")


def failed(failure: Failure) -> Response:
    """The answer that says so."""
    return as_asked(error(failure.status, failure.code, str(failure)), failure.status)


def refused(exception: HTTPException) -> Response:
    """The same for what Flask, or whoever asks for credentials, has refused."""
    status = exception.code or 500
    message = exception.description or exception.name
    answer = failed(Failure(status, f"Authenticate: {message}" if status == 401 else message))
    return with_headers(answer, exception)


def speak_as_twilio(blueprint: Blueprint) -> None:
    """Have whatever fails in this blueprint answered in Twilio's shape."""
    blueprint.register_error_handler(Failure, failed)
    blueprint.register_error_handler(HTTPException, refused)
    blueprint.register_error_handler(RedisError, away)
    blueprint.register_error_handler(WrongLayout, away)
    blueprint.register_error_handler(Exception, broken)


def away(exception: Exception) -> Response:
    """For when Redis is."""
    log.error("redis failed", error=type(exception).__name__)
    return failed(Failure(503, "Redis does not answer, or cannot: nothing was read or sent. Try again shortly."))


def broken(exception: Exception) -> Response:
    """For a fault of ours."""
    log.exception("request failed", error=type(exception).__name__)
    return failed(Failure(500, "Something is wrong inside Offhook; its log says what."))
