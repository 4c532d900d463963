"""Signing in with a browser: the page that asks for a key, or has a one-use link, and the session that it opens."""

from __future__ import annotations

import re

import msgspec
from flask import Blueprint, Response, render_template, request
from werkzeug.exceptions import RequestEntityTooLarge

from app.store.sessions import LONGEST, Sessions
from app.web.access import COOKIE, Access, check_page
from app.web.answers import failure
from app.web.refusals import Refusals

ON_THIS_SITE = re.compile(r"/(?!/)[!-\[\]-~]*")
"""A path of ours. Browsers take two slashes for another host, a backslash for a slash, and skip control characters."""

PAGE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""The page's headers: it runs and loads nothing but ours, in no frame, and tells nobody where it was."""


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    """What the page sends: a key, or a ticket."""

    name: str = ""
    secret: str = ""
    ticket: str = ""


SHAPES = '{"name": …, "secret": …} or {"ticket": …}'
_read = msgspec.json.Decoder(_Given).decode


def create(*, access: Access, sessions: Sessions, refusals: Refusals) -> Blueprint:
    """`/sign-in` and `/session`. See `app.web.create_app` for what they are handed."""
    sign_in = Blueprint("sign_in", __name__)

    @sign_in.get("/sign-in")
    def page() -> tuple[str, dict[str, str]]:
        wanted = request.args.get("next", "/")
        return render_template("sign-in.html", after=wanted if ON_THIS_SITE.fullmatch(wanted) else "/"), PAGE

    @sign_in.post("/session")
    def opened() -> Response:
        check_page(by_cookie=True)
        if request.mimetype != "application/json":
            return failure(415, f"Send application/json: {SHAPES}.")
        try:
            given = _read(request.get_data(cache=False))
        except RequestEntityTooLarge:
            raise
        except Exception:  # not JSON, or not so shaped; or cut off, for which each server has errors of its own
            return failure(400, f"Not understood. Expected {SHAPES}, and all of it texts.")
        key = _by_ticket(given.ticket) if given.ticket else _by_secret(given.name, given.secret.encode())
        if key is None:
            refusals.note("sign-in")
            return failure(
                401,
                "This link has been used already, or is older than an hour. `offhook link` prints another."
                if given.ticket
                else "The name or the secret is wrong.",
            )
        if earlier := request.cookies.get(COOKIE):
            sessions.close(earlier)
        return _with_cookie(sessions.open(*key), LONGEST)

    def _by_ticket(token: str) -> tuple[str, bytes] | None:
        ticket = sessions.take(token)
        secret = access.proven(ticket, token)
        return (ticket.name, secret) if ticket and secret else None

    def _by_secret(name: str, secret: bytes) -> tuple[str, bytes] | None:
        return (name, secret) if access.knows(name, secret) else None

    @sign_in.delete("/session")
    def closed() -> Response:
        check_page(by_cookie=True)
        if token := request.cookies.get(COOKIE):
            sessions.close(token)
        return _with_cookie("", 0)

    return sign_in


def _with_cookie(token: str, seconds: int) -> Response:
    """Nothing but the cookie, for a browser to keep so long: no script may read it, no other site has it sent."""
    answer = Response(status=204, headers={"Cache-Control": "no-store"})
    secure = request.headers.get("Origin", "").startswith("https://")  # the proxy that took the TLS off may not say so
    answer.set_cookie(COOKIE, token, max_age=seconds, path="/", secure=secure, httponly=True, samesite="Strict")
    return answer
