"""Control requests that must not be sent twice: remembered from before they are sent, with the answer they got."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Any

import msgspec
from redis import Redis

from app.store import keys

KEPT = 24 * 3600
"""Seconds for which a promise is kept."""
MEANT = 60
"""Seconds for which one stands that has not been sealed. Well over the time in which Twilio must answer."""


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """An answer as the client got it."""

    status: int
    headers: dict[str, str]
    body: bytes


class Promise(msgspec.Struct, frozen=True, array_like=True):
    """A control request that was made before."""

    fingerprint: str
    """Digest of the request it was made with."""
    maker: str = ""
    """Random: whoever finds this one of its own has made the promise, even if the client sent the command twice."""
    answer: Answered | None = None
    """None: it is still under way, or whoever sent it has died meanwhile."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Promise).decode


def digest(*words: bytes) -> str:
    """One word for several; each is delimited by its length."""
    return blake2b(b"".join(b"%d:%b" % (len(word), word) for word in words), digest_size=16).hexdigest()


class Promises:
    """All of them, by the digest of who promised what."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def make(self, name: str, fingerprint: str) -> Promise | None:
        """Promise to send a request once. The earlier promise, if there is one under this name; else None.

        It stands for `MEANT` seconds only, until `seal`: should we fail before anything is sent, it may be made again.
        Raises redis.RedisError when the promise is not known to be kept: then nothing may be sent.
        """
        ours = Promise(fingerprint, secrets.token_hex(8))
        while not self.redis.set(keys.promise(name), _encode(ours), nx=True, ex=MEANT):
            if earlier := self.find(name):
                return None if earlier.maker == ours.maker else earlier
            # else it was taken back meanwhile
        return None

    def seal(self, name: str, fingerprint: str) -> None:
        """From here on the request may have been sent. Raises redis.RedisError: then it must not be."""
        self.keep(name, fingerprint, None)

    def find(self, name: str) -> Promise | None:
        """The promise under this name."""
        found: Any = self.redis.get(keys.promise(name))
        return None if found is None else _decode(found)

    def keep(self, name: str, fingerprint: str, answer: Answered | None, *, seconds: int = KEPT) -> None:
        """Remember the answer, whether promised before or not."""
        self.redis.set(keys.promise(name), _encode(Promise(fingerprint, answer=answer)), ex=seconds)

    def forget(self, name: str) -> None:
        """Take back a promise, because nothing was done: it may be made again."""
        self.redis.delete(keys.promise(name))
