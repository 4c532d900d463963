"""Whether a webhook request really comes from Twilio: its fields, the URLs Twilio may have signed, the check.

Bytes throughout, so that what is checked is what was sent, valid UTF-8 or not. Knows no request object,
clock, store, log or settings.
"""

from __future__ import annotations

import hmac
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from typing import Literal
from urllib.parse import unquote_to_bytes


class Malformed(ValueError):
    """The body or query cannot be read as form fields; the message says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Key:
    """A secret that Twilio signs with. Only the name may be stored or logged; repr never shows the secret.

    The algorithm belongs to the key and is never taken from the request: no sender can choose a weaker one.
    Raises ValueError on an empty secret, because anybody could sign with that.
    """

    name: str
    secret: bytes = field(repr=False)
    algorithm: Literal["sha1", "sha256"] = "sha1"
    """sha1: an account's Auth Token. sha256: a SharedKey (twilio-python 9.13, request_validator.py)."""
    key_id: str | None = None
    """A SharedKey's id, as the header X-Twilio-Webhooks-Signature-Settings names it."""

    def __post_init__(self) -> None:
        if not self.secret:
            raise ValueError(f"the secret of key {self.name!r} is empty; set it, or leave the key out")


def form_fields(raw: bytes, most: int = 200) -> list[tuple[bytes, bytes]]:
    """Read an urlencoded body or query: percent-decoded (name, value) pairs in the order sent.

    Blank names and values are kept, '+' is a space, a broken percent sequence stays as it is, and nothing
    between two '&' is no field. Raises Malformed when there are more than `most` fields.
    """
    pieces = [piece for piece in raw.replace(b"+", b" ").split(b"&") if piece]
    if len(pieces) > most:
        raise Malformed(f"{len(pieces)} form fields, and at most {most} are read")
    fields = []
    for piece in pieces:
        name, _, value = piece.partition(b"=")
        if b"%" in name:  # most have nothing to decode, and finding that out is cheaper
            name = _unquoted(name)
        if b"%" in value:
            value = _unquoted(value)
        fields.append((name, value))
    return fields


def _unquoted(text: bytes) -> bytes:
    """Percent-decoded. Times and names of rooms come again and again."""
    return _unquoted_once(text) if len(text) <= 128 else unquote_to_bytes(text)


_unquoted_once = lru_cache(maxsize=2048)(unquote_to_bytes)


def signed_urls(base: str, target: str) -> tuple[bytes, ...]:
    """Every URL Twilio may have signed for a request, the most likely first, none twice.

    `base` is what Twilio was given, scheme://[user:password@]host[:port][/prefix]; its case is kept.
    `target` is the raw request target, path and query as on the wire, in the form WSGI hands it over: one
    character a byte. A target with other characters was on no wire and has no URL: the answer is empty.

    Twilio leaves credentials out, and under https the port too (Twilio docs, Webhooks security). Some of its
    products keep them, so each URL also comes with them, and with the scheme's own port where none was given.
    Its SDKs know one more, older form: the query's ' is %27 (twilio-node, spec/validation.spec.js).
    """
    try:
        wire = target.encode("latin-1")
    except UnicodeEncodeError:
        return ()
    scheme, _, rest = base.encode().partition(b"://")
    authority, _, prefix = rest.partition(b"/")
    credentials, at, server = authority.rpartition(b"@")
    paths = _paths(prefix, wire)
    return tuple(
        dict.fromkeys(
            scheme + b"://" + user + host + path
            for path in (*paths, *map(_legacy, paths))
            for user in (b"", credentials + at)
            for host in _hosts(scheme, server)
        )
    )


def _paths(prefix: bytes, wire: bytes) -> tuple[bytes, ...]:
    """The path and query Twilio was given: a proxy may have taken the base's prefix off, or left it on."""
    prefix = b"/" + prefix.rstrip(b"/") if prefix else b""
    if prefix and (wire == prefix or wire.startswith((prefix + b"/", prefix + b"?"))):
        return wire, prefix + wire
    return (prefix + wire,)


def _legacy(path: bytes) -> bytes:
    """The same path with the query's ' as %27."""
    head, mark, query = path.partition(b"?")
    return head + mark + query.replace(b"'", b"%27")


def _hosts(scheme: bytes, server: bytes) -> tuple[bytes, bytes]:
    """The host without a port and with one; under http a port that was given comes first."""
    host, _, port = server.rpartition(b":")
    if not (host and port.isdigit()):  # none was given: the colon, if any, is inside an IPv6 address
        host, port = server, b""
    plain_http = scheme.lower() == b"http"
    explicit = host + b":" + (port or (b"80" if plain_http else b"443"))
    return (explicit, host) if port and plain_http else (host, explicit)


def verify(
    urls: Sequence[bytes],
    fields: Sequence[tuple[bytes, bytes]],
    signature: str,
    keys: Iterable[Key],
    settings: str = "",
) -> Key | None:
    """The key that signed this request, or None when none did. Raises nothing, whatever was sent.

    `urls` come from signed_urls. `fields` are a POST's form fields; a GET has none, for its URL holds them.
    `signature` is the header X-Twilio-Signature, `settings` is X-Twilio-Webhooks-Signature-Settings, and
    either is empty when it was not sent.

    Signed is the URL, then each distinct name and value, sorted by name and then value, with nothing between
    them (Twilio docs, Webhooks security). So a signature proves neither where a name ends and its value
    begins, nor how often a pair was sent, nor when: callers refuse unexpected names and know a repeat.
    """
    if not signature.isascii():
        return None
    given = signature.encode()
    form = b"".join(chain.from_iterable(sorted(set(fields))))
    candidates = _named(keys, settings)
    for url in urls:
        text = url + form
        # Every key is compared, so that the time taken does not tell which one was right.
        matching = [key for key in candidates if hmac.compare_digest(_sign(key, text), given)]
        if matching:
            return matching[0]
    return None


def _named(keys: Iterable[Key], settings: str) -> list[Key]:
    """The keys that `settings` calls for: on "key=…,algorithm=HMAC_SHA256" that SharedKey, else Auth Tokens.

    The first of a repeated word counts. Another algorithm, or a key with another one, calls for none.
    """
    named: dict[str, str] = {}
    for part in settings.split(","):
        name, _, value = part.partition("=")
        if value.strip():
            named.setdefault(name.strip(), value.strip())
    key_id, algorithm = named.get("key"), named.get("algorithm", "HMAC_SHA1").upper()
    if key_id is None and algorithm == "HMAC_SHA1":
        return [key for key in keys if key.algorithm == "sha1"]
    if key_id is not None and algorithm == "HMAC_SHA256":
        return [key for key in keys if key.algorithm == "sha256" and key.key_id == key_id]
    return []


def _sign(key: Key, text: bytes) -> bytes:
    """The signature Twilio would send: Base64 of the HMAC."""
    return b2a_base64(hmac.digest(key.secret, text, key.algorithm), newline=False)


def verify_json(
    urls: Sequence[bytes], body: bytes, signature: str, keys: Iterable[Key], settings: str = ""
) -> Key | None:
    """As verify, for a JSON body: Twilio signs its SHA-256 in the URL (Twilio docs, Webhooks security).

    The query must hold bodySHA256, the raw body's digest in lower-case hexadecimal, and no other value.
    """
    digest = sha256(body).hexdigest().encode()
    return verify([url for url in urls if _carries(url, digest)], (), signature, keys, settings)


def _carries(url: bytes, digest: bytes) -> bool:
    """Whether the URL's query holds this digest and no other."""
    query = url.partition(b"?")[2]
    digests = {piece for piece in query.split(b"&") if piece.startswith(b"bodySHA256=")}
    return digests == {b"bodySHA256=" + digest}
