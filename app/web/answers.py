"""What was asked for, to the letter; and JSON answers: bytes that are JSON already, values, failures that say why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response
from werkzeug.exceptions import HTTPException

from app.conference import encode

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

GUARDS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer that has none of its own: nobody keeps it, it runs nothing, and is what it says it is."""


def target(environ: WSGIEnvironment) -> str:
    """Path and query of a request as they were sent, not decoded."""
    sent: str = environ.get("RAW_URI") or environ.get("REQUEST_URI", "")
    return sent


def json_bytes(body: bytes, status: int = 200) -> Response:
    """An answer that is JSON already."""
    return Response(body, status, {"Cache-Control": "no-store"}, content_type="application/json")


def json_value(value: Any, status: int = 200) -> Response:
    """An answer from anything that can be encoded."""
    return json_bytes(encode(value), status)


def with_headers(answer: Response, refusal: HTTPException) -> Response:
    """The answer with what a refusal adds to its headers, such as WWW-Authenticate or Allow."""
    for name, value in refusal.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            answer.headers[name] = value
    return answer


def failure(status: int, message: str) -> Response:
    """`message` says what was wrong and what to do."""
    return json_value({"status": status, "message": message}, status)


def guarded(answer: Response) -> Response:
    """The answer with the headers that none of ours is without."""
    for name, value in GUARDS.items():
        answer.headers.setdefault(name, value)
    return answer
