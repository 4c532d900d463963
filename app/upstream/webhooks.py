"""Tells others of alerts: a signed POST to an address that an operator has named, and to nothing within their network.

Signed as Standard Webhooks says (standardwebhooks.com): `webhook-id`, which all attempts share, `webhook-timestamp`,
and `webhook-signature`, over both and the body.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b, sha256
from http.client import HTTPConnection, HTTPException
from importlib.metadata import version
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

WITHIN = 15.0
"""Seconds from the name to the answer's head, all in all, however it may drip. A name that takes longer to resolve than
that cannot be left, but nothing is sent any more."""
CONNECTED_WITHIN = 5.0
"""Seconds of those, for each address."""
TRIED = 2
"""Addresses of one name, such as one of each kind."""
USER_AGENT = f"offhook/{version('offhook')}"

Resolve = Callable[[str, int], Sequence[str]]
"""A host and a port -> the addresses it has, as text. Raises OSError."""

NAT64 = ipaddress.ip_network("64:ff9b::/96")
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is out in the Internet is in here."""
OF_CLOUDS = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24")))
"""What a cloud answers to its own machines only, though the address looks like anybody's: Azure's, Oracle's."""

LATE = "it did not answer in time"


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
        self.tls = ssl.create_default_context() if self.url.scheme == "https" else None
        self.name = blake2b(url.encode(), digest_size=8).hexdigest()
        """What stands for it in Redis and in logs: the URL itself may hold a secret."""

    def send(self, message_id: str, moment: int, body: bytes) -> Outcome:
        """Send once; `moment` is now, in seconds since 1970. A redirect is a failure: it is not followed.

        Connects to the very address that was looked at, so that a name cannot mean one thing first and another then,
        and asks nobody for a proxy.
        """
        until = time.monotonic() + WITHIN
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
        connection = _connected(list(dict.fromkeys(addresses))[:TRIED], port, until)
        if connection is None:
            return Outcome("failed", "it cannot be connected to")
        try:
            with _cut_off(connection, until):
                status = self._posted(connection, body, headers)
        except (HTTPException, OSError, ValueError) as error:
            return Outcome("failed", LATE if time.monotonic() >= until else type(error).__name__)
        # What was cut off may look as if it had ended.
        return _outcome(status) if time.monotonic() < until else Outcome("failed", LATE)

    def _posted(self, connection: socket.socket, body: bytes, headers: dict[str, str]) -> int:
        """The status of the answer; what follows its head is not read."""
        host = self.url.hostname or ""
        http = HTTPConnection(host, 0)  # or it would look for a port within an address of IPv6
        try:
            http.sock = connection
            if self.tls is not None:  # asks for a certificate of the name
                http.sock = self.tls.wrap_socket(connection, server_hostname=host)
            target = (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")
            http.request("POST", target, body, headers)
            with http.getresponse() as answer:
                return answer.status
        finally:
            http.close()


def _connected(addresses: Sequence[str], port: int, until: float) -> socket.socket | None:
    for address in addresses:
        left = until - time.monotonic()
        if left <= 0:
            return None
        with suppress(OSError):
            return socket.create_connection((address, port), min(CONNECTED_WITHIN, left))
    return None


@contextmanager
def _cut_off(connection: socket.socket, until: float) -> Iterator[None]:
    """Ends what goes on over this connection at that time, in whatever layer: a timeout would begin anew each byte."""
    left = max(until - time.monotonic(), 0.001)
    with connection.dup() as same:  # TLS takes the first one for itself

        def end() -> None:
            with suppress(OSError):  # the other side has ended it
                same.shutdown(socket.SHUT_RDWR)

        connection.settimeout(left)
        timer = threading.Timer(left, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            connection.close()


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
        return address.is_global and address in GLOBAL_UNICAST
    of_cloud = any(address in network for network in OF_CLOUDS)
    return address.is_global and not (address.is_multicast or address.is_reserved or of_cloud)


def _within(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The address that a gateway would go on to."""
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def _resolved(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
