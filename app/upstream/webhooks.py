"""Tells others of alerts: a signed POST to an address that an operator has named, and to nothing within their network.

Signed as Standard Webhooks says (standardwebhooks.com): `webhook-id`, which all attempts share, `webhook-timestamp`,
and `webhook-signature`, over both and the body.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import socket
from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import blake2b, sha256
from importlib.metadata import version
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import urllib3

CONNECTED_WITHIN, ANSWERED_WITHIN = 5.0, 10.0
"""Seconds to connect, and then for the answer to begin."""
TRIED = 2
"""Addresses of one name, such as one of each kind."""
USER_AGENT = f"offhook/{version('offhook')}"

logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would log paths and queries, which may hold secrets

Resolve = Callable[[str, int], Sequence[str]]
"""A host and a port -> the addresses it has, as text. Raises OSError."""

NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Outcome(NamedTuple):
    """What came of an attempt."""

    result: Literal["delivered", "failed", "gone"]
    """`gone`: it is not wanted there any more; nothing but an operator can change that."""
    reason: str
    """In words that hold neither address nor secret."""


class Endpoint:
    """Where alerts are sent."""

    def __init__(
        self, url: str, secrets: Sequence[bytes], *, private: bool = False, resolve: Resolve | None = None
    ) -> None:
        """`url` is http or https, with a host. `secrets`: each signs, while one takes the place of another.

        `private`: it may be within our own network, and without TLS.
        """
        self.url = urlsplit(url)
        self.secrets = secrets
        self.private = private
        self.resolve = resolve or _resolved
        self.name = blake2b(url.encode(), digest_size=8).hexdigest()
        """What stands for it in Redis and in logs: the URL itself may hold a secret."""

    def send(self, message_id: str, moment: int, body: bytes) -> Outcome:
        """Send once; `moment` is now, in seconds since 1970. A redirect is a failure: it is not followed.

        Connects to the very address that was looked at, so that a name cannot mean one thing first and another then.
        """
        host, tls = self.url.hostname or "", self.url.scheme == "https"
        port = self.url.port or (443 if tls else 80)
        if not tls and not self.private:
            return Outcome("failed", "not https")
        try:
            addresses = self.resolve(host, port)
        except (OSError, UnicodeError):  # the latter of a name that none can be
            return Outcome("failed", "its name cannot be resolved")
        if not addresses or not (self.private or all(map(is_public, addresses))):
            return Outcome("failed", "its name leads into a private network")
        headers = {
            "Host": self.url.netloc,
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": message_id,
            "webhook-timestamp": str(moment),
            "webhook-signature": signature(self.secrets, message_id, moment, body),
        }
        target = (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")
        for address in dict.fromkeys(addresses[:TRIED]):
            try:
                with self._pool(address, port) as pool:
                    answer = pool.urlopen("POST", target, body, headers, redirect=False, preload_content=False)
                    answer.close()
            except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
                continue
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                return Outcome("failed", type(error).__name__)
            return _outcome(answer.status)
        return Outcome("failed", "it cannot be connected to")

    def _pool(self, address: str, port: int) -> urllib3.HTTPConnectionPool:
        """Connects to this address, and asks for a certificate of the name."""
        timeout = urllib3.Timeout(connect=CONNECTED_WITHIN, read=ANSWERED_WITHIN)
        if self.url.scheme == "http":
            return urllib3.HTTPConnectionPool(address, port, timeout=timeout, retries=False)
        name = self.url.hostname
        return urllib3.HTTPSConnectionPool(
            address, port, timeout=timeout, retries=False, server_hostname=name, assert_hostname=name
        )


def _outcome(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome("delivered", f"HTTP {status}")
    return Outcome("gone" if status == 410 else "failed", f"HTTP {status}")


def signature(secrets: Sequence[bytes], message_id: str, moment: int, body: bytes) -> str:
    """The header `webhook-signature`: one by each secret (Standard Webhooks, symmetric)."""
    signed = b"%b.%d.%b" % (message_id.encode(), moment, body)
    return " ".join("v1," + b64encode(hmac.digest(secret, signed, sha256)).decode() for secret in secrets)


def is_public(text: str) -> bool:
    """Whether an address is out in the Internet: not ours, a neighbour's, a cloud's own, or one that leads there."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = _within(address)
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not address.is_multicast and not address.is_reserved


def _within(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The address that a gateway would go on to."""
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def _resolved(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
