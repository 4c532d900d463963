"""Who is asking, and which accounts they may see: HTTP Basic with an account's token, or with one of Offhook's keys."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from flask import abort, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from app.twilio.signature import Key


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
        self, keys: Mapping[str, tuple[Key, ...]], parents: Mapping[str, str], api_keys: Mapping[str, Grant]
    ) -> None:
        self.keys = keys
        self.parents = parents
        self.api_keys = api_keys

    def reader(self) -> Reader:
        """Whoever sends the current request. Answers it with 401 if that is nobody."""
        try:
            given = request.authorization
        except ValueError:  # werkzeug's answer to a header that is not ASCII
            given = None
        if given is None or given.type != "basic":
            raise _unauthorized(
                "Send HTTP Basic: an AccountSid with its Auth Token, or the name and secret of an API key."
            )
        name, secret = given.username or "", (given.password or "").encode()
        grant = self.api_keys.get(name)
        secrets = [grant.secret] if grant else [k.secret for k in self.keys.get(name, ()) if k.algorithm == "sha1"]
        matching = [one for one in secrets if hmac.compare_digest(secret, one)]
        if not matching:
            raise _unauthorized("The name or the secret is wrong.")
        account, control = (grant.account, grant.control) if grant else (name, True)
        children = {child for child, parent in self.parents.items() if parent == account}
        accounts = None if account is None else frozenset({account, *children})
        return Reader(name, accounts, account, control)


def asked_account(reader: Reader, named: str | None) -> str | None:
    """The account to look into, for a request that may name one. Answers with 404 if it may not be seen."""
    if named is None:
        return reader.account
    if not reader.may_see(named):
        abort(404, f"No account {named} is known here for this key.")
    return named


def _unauthorized(message: str) -> Unauthorized:
    return Unauthorized(message, www_authenticate=WWWAuthenticate("basic", {"realm": "Offhook"}))
