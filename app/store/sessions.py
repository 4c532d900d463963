"""Who is signed in with a browser, and one-use links to sign in with: kept so that Redis alone opens nothing.

A token is random and known to the browser only. Redis has its digest, and a proof that whoever opened the session knew
the secret of the key it is for. So reading Redis yields nothing to sign in with, writing to it yields no session that
opens anything, and a session ends when its secret is replaced.
"""

from __future__ import annotations

import hmac
import secrets
import time
from contextlib import suppress
from hashlib import sha256
from typing import Any

import msgspec
from redis import Redis, RedisError

from app.store import keys

UNUSED = 12 * 3600
"""Seconds for which a session stands that nobody uses."""
LONGEST = 7 * 24 * 3600
"""Seconds after which one ends, however much it is used."""
RENEWED = 10 * 60
"""Seconds of use that pass before it is written down that it is used."""
TICKET = 3600
"""Seconds for which a one-use link works."""


class Session(msgspec.Struct, frozen=True, array_like=True):
    """A session, or a ticket, as Redis keeps it."""

    name: str
    """The key that was signed in with."""
    proof: bytes
    """HMAC-SHA256 of that key's secret, under the token."""
    opened_at: int
    """In seconds since 1970."""

    def proves(self, token: str, secret: bytes) -> bool:
        """Whether it was opened, with this token, by somebody who knew this secret."""
        return hmac.compare_digest(self.proof, _proof(token, secret))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Session).decode


def digest(token: str) -> str:
    """What a token is known by in Redis. It opens nothing, and the token does not follow from it."""
    return sha256(_bytes(token)).hexdigest()


class Sessions:
    """All sessions and tickets. Every method but `stands` raises redis.RedisError."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def open(self, name: str, secret: bytes) -> str:
        """The token of a new session for this key."""
        token = secrets.token_hex(32)
        self.redis.set(keys.session(digest(token)), _session(name, token, secret), ex=UNUSED)
        return token

    def find(self, token: str) -> Session | None:
        """The session with this token, which counts as a use of it. Whether it `proves` anything is yet to be seen."""
        return self._used(digest(token))

    def stands(self, digest: str) -> bool:
        """Whether the session known by this digest still stands, which counts as a use. While Redis is away: yes."""
        try:
            return self._used(digest) is not None
        except RedisError:
            return True

    def close(self, token: str) -> None:
        """End a session, if there is one with this token."""
        self.redis.delete(keys.session(digest(token)))

    def ticket(self, name: str, secret: bytes) -> str:
        """The token of a new ticket, which whoever has it can `take` once."""
        token = secrets.token_hex(32)
        self.redis.set(keys.ticket(digest(token)), _session(name, token, secret), ex=TICKET)
        return token

    def take(self, token: str) -> Session | None:
        """The ticket with this token, and nobody gets it again. Whether it `proves` anything is yet to be seen."""
        return _read(self.redis.getdel(keys.ticket(digest(token))))

    def _used(self, digest: str) -> Session | None:
        key = keys.session(digest)
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.get(key)
            pipe.ttl(key)
            kept, left = pipe.execute()
        session = _read(kept)
        if session is None:
            return None
        life = min(UNUSED, session.opened_at + LONGEST - int(time.time()))
        if left < life - RENEWED:
            with suppress(RedisError):  # a Redis that takes no writes can still be read from
                self.redis.expire(key, life)
        return session if life > 0 else None


def _session(name: str, token: str, secret: bytes) -> bytes:
    return _encode(Session(name, _proof(token, secret), int(time.time())))


def _proof(token: str, secret: bytes) -> bytes:
    return hmac.digest(_bytes(token), secret, "sha256")


def _bytes(token: str) -> bytes:
    """Any text at all: a browser may send one that is no token of ours."""
    return token.encode("utf-8", "replace")


def _read(kept: Any) -> Session | None:
    """What Redis has under a key of ours. None: nothing, or nothing that we have written."""
    if kept is None:
        return None
    try:
        return _decode(kept)
    except ValueError:
        return None
