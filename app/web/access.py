"""Who is asking, and which accounts they may see: by HTTP Basic, or by the session that a browser has opened."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from flask import abort, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from app.store.sessions import Session, Sessions, digest
from app.twilio.signature import Key

COOKIE = "offhook"
"""Holds the token of a browser's session."""
SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Whoever was let in."""

    name: str
    accounts: frozenset[str] | None
    """Which may be seen; None: all."""
    account: str | None
    """Which is meant when none is named; None: all."""
    control: bool
    """Whether conferences may be changed, too."""
    session: str | None = None
    """The digest that the session they came by is known by; None: they sent a key with the request."""

    def may_see(self, account: str) -> bool:
        """Whether this account's conferences are shown."""
        return self.accounts is None or account in self.accounts


class Grant(NamedTuple):
    """What one of Offhook's own keys opens."""

    secret: bytes
    control: bool
    account: str | None
    """None: all."""


class Access:
    """All who may be let in."""

    def __init__(
        self,
        keys: Mapping[str, tuple[Key, ...]],
        parents: Mapping[str, str],
        api_keys: Mapping[str, Grant],
        sessions: Sessions,
        wrong: Callable[[], None] = lambda: None,
    ) -> None:
        """`wrong` is called whenever a name comes with a secret that is not its own."""
        self.keys = keys
        self.parents = parents
        self.api_keys = api_keys
        self.sessions = sessions
        self.wrong = wrong

    def reader(self) -> Reader:
        """Whoever sends the current request. Answers it with 401 if that is nobody, and with 403 if another site does.

        A request that sends a key stands by it: if that is wrong, a session does not help. Raises redis.RedisError.
        """
        token = None if "Authorization" in request.headers else request.cookies.get(COOKIE)
        reader = self._by_key() if token is None else self._by_session(token)
        if request.method not in SAFE:
            check_page(by_cookie=reader.session is not None)
        return reader

    def still_in(self, reader: Reader) -> bool:
        """Whether somebody who was let in before would be let in now: a session may have ended. Needs no request."""
        return reader.session is None or self.sessions.stands(reader.session)

    def knows(self, name: str, secret: bytes) -> bool:
        """Whether this is a key and its secret."""
        return any(hmac.compare_digest(secret, one) for one in self._secrets(name))

    def proven(self, session: Session | None, token: str) -> bytes | None:
        """The secret that whoever opened this session, or ticket, has known. None if it is not one of today's."""
        if session is None:
            return None
        return next((secret for secret in self._secrets(session.name) if session.proves(token, secret)), None)

    def _by_key(self) -> Reader:
        try:
            given = request.authorization
        except ValueError:  # werkzeug's answer to a header that is not ASCII
            given = None
        if given is None or given.type != "basic":
            raise _unauthorized(
                "Send HTTP Basic: an AccountSid with its Auth Token, or the name and secret of an API key. "
                "A browser signs in at /sign-in."
            )
        name = given.username or ""
        if not self.knows(name, (given.password or "").encode()):
            self.wrong()
            raise _unauthorized("The name or the secret is wrong.")
        return self._let_in(name)

    def _by_session(self, token: str) -> Reader:
        session = self.sessions.find(token)
        if session is None or self.proven(session, token) is None:
            raise _unauthorized("You are not signed in, or not any longer. Sign in at /sign-in.")
        return self._let_in(session.name, digest(token))

    def _secrets(self, name: str) -> list[bytes]:
        """Each of them lets this name in: several while they are being replaced, none if nobody is called so."""
        grant = self.api_keys.get(name)
        return [grant.secret] if grant else [key.secret for key in self.keys.get(name, ()) if key.algorithm == "sha1"]

    def _let_in(self, name: str, session: str | None = None) -> Reader:
        grant = self.api_keys.get(name)
        account, control = (grant.account, grant.control) if grant else (name, True)
        children = {child for child, parent in self.parents.items() if parent == account}
        accounts = None if account is None else frozenset({account, *children})
        return Reader(name, accounts, account, control, session)


def asked_account(reader: Reader, named: str | None) -> str | None:
    """The account to look into, for a request that may name one. Answers with 404 if it may not be seen."""
    if named is None:
        return reader.account
    if not reader.may_see(named):
        abort(404, f"No account {named} is known here for this key.")
    return named


def check_page(*, by_cookie: bool) -> None:
    """Answers the current request with 403 if it is not known to come from where it may: not from another site's page.

    A program sends a key and says nothing of pages. Cookies are sent by the browser itself, whoever asks it to: then it
    must say that a page of ours did.
    """
    ours = _from_our_page()
    if ours is False:
        abort(403, "A browser sent this from another site's page. Changes are taken from our own only.")
    if by_cookie and ours is None:
        abort(
            403,
            "Nothing says which page sent this: expected Sec-Fetch-Site or Origin, as browsers send them. "
            "A program sends a key with each request, by HTTP Basic.",
        )


def _from_our_page() -> bool | None:
    """Whether a page of ours has sent the current request. None: as far as is said, no page has."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return None if site == "none" else site == "same-origin"
    if origin is not None:
        return bool(request.host) and origin.partition("://")[2] == request.host
    return None


def _unauthorized(message: str) -> Unauthorized:
    """The answer to nobody. To a page's script it is no challenge: its browser would put up a dialog of its own."""
    by_script = (
        COOKIE in request.cookies
        or request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate"
        or "text/event-stream" in request.headers.get("Accept", "")
    )
    challenge = None if by_script else WWWAuthenticate("basic", {"realm": "Offhook"})
    return Unauthorized(message, www_authenticate=challenge)
