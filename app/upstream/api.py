"""Sends requests to Twilio's REST API, each once, and hands back the answer as it came.

Through the official SDK's HTTP client, for its proxy settings and certificates; not through its typed methods, which
would lose parameters newer than themselves.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from typing import NamedTuple

import requests
import urllib3
from twilio.http.http_client import TwilioHttpClient

PATIENCE = 15.0
"""Seconds to connect, again for the answer to begin, and again for it to end."""
LARGEST_ANSWER = 4 * 1024 * 1024
"""Bytes. Most of Twilio's are well under 4 KiB; a page of a thousand conferences with long names has some 2 MiB."""
AT_ONCE = 64
"""Requests under way from one process. A slow Twilio must not take the places of callbacks."""
PASSED_BACK = ("twilio-", "retry-after", "x-home-region", "x-api-domain")
"""How the names of those headers of an answer begin that are handed back, besides its media type."""
FORWARDED_BY = "Offhook-Forwarded"
"""Marks what we have sent, so that an Offhook whose upstream is itself finds out."""

USER_AGENT = f"offhook/{version('offhook')}"

logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would log paths and queries: names, labels, numbers
silent = logging.getLogger("offhook.upstream.quiet")
silent.disabled = True  # the client would log numbers and names


class Answer(NamedTuple):
    """What Twilio answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    date: str | None = None
    """Its Date, as it came: when it was made by the clock of whoever made it."""


class Unanswered(Exception):
    """No answer came. `sent` says whether the request may have reached Twilio."""

    def __init__(self, why: str, *, sent: bool, timed_out: bool) -> None:
        super().__init__(why)
        self.sent = sent
        self.timed_out = timed_out


class Busy(Exception):
    """As many requests are under way as may be: nothing was sent."""


class Twilio:
    """Twilio's REST API with the credentials of our accounts."""

    def __init__(self, base_url: str, logins: Mapping[str, tuple[str, bytes]]) -> None:
        """`logins` are by account sid the name and the secret for HTTP Basic."""
        self.base_url = base_url
        self.logins = logins
        self.places = threading.BoundedSemaphore(AT_ONCE)
        self.session = requests.Session()
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE, max_retries=0))

    def can_reach(self, account_sid: str) -> bool:
        """Whether there are credentials for this account."""
        return account_sid in self.logins

    def send(self, method: str, account_sid: str, target: str, body: bytes) -> Answer:
        """Send once and wait for the answer, at most `PATIENCE` seconds for each step of it.

        `target` is the path with its query, percent-encoded; `body` an urlencoded form, sent as it is. Redirects are
        answers. Raises `Unanswered`, or `Busy`.
        """
        if not self.places.acquire(blocking=False):
            raise Busy
        try:
            return self._sent(method, account_sid, target, body)
        finally:
            self.places.release()

    def _sent(self, method: str, account_sid: str, target: str, body: bytes) -> Answer:
        headers = {
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
            FORWARDED_BY: "1",
        }
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        name, secret = self.logins[account_sid]
        body_read: list[bytes] = []
        # One for each request: it keeps the last answer in itself, where another thread's could take its place.
        client = TwilioHttpClient(
            pool_connections=False,
            timeout=PATIENCE,
            logger=silent,
            request_hooks={"response": lambda response, **_: body_read.append(_whole(response))},
        )
        client.session = self.session
        try:
            answer = client.request(
                method,
                self.base_url + target,
                data=body,
                headers=headers,
                auth=(name, secret.decode()),
            )
        except requests.ConnectTimeout as error:
            raise Unanswered("it could not be connected to in time", sent=False, timed_out=True) from error
        except requests.Timeout as error:
            raise Unanswered("it did not answer in time", sent=True, timed_out=True) from error
        except requests.RequestException as error:
            refused = _never_connected(error)
            why = "it could not be connected to" if refused else "the connection broke before its answer"
            raise Unanswered(why, sent=not refused, timed_out=False) from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # what the client has not foreseen
            raise Unanswered("its answer could not be read", sent=True, timed_out=False) from error
        kept = {header: value for header, value in answer.headers.items() if header.lower().startswith(PASSED_BACK)}
        media = answer.headers.get("Content-Type")
        kept |= {"Content-Type": media} if media else {}
        return Answer(answer.status_code, kept, body_read[-1], answer.headers.get("Date"))


def _whole(response: requests.Response) -> bytes:
    """The body as it came, within its limits; and a redirect leads nowhere, not even to be looked at."""
    response.headers.pop("Location", None)
    until, body = time.monotonic() + PATIENCE, b""
    try:
        while piece := response.raw.read1(65_536, decode_content=True):
            body += piece
            if len(body) > LARGEST_ANSWER or time.monotonic() > until:
                response.close()
                raise requests.ReadTimeout("the answer did not end in time")
    except urllib3.exceptions.ReadTimeoutError as error:
        raise requests.ReadTimeout("the answer did not end in time") from error
    return body


def _never_connected(error: requests.RequestException) -> bool:
    """Whether the failure surely came before anything was sent: no address, no connection, no trust, no usable URL."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(reason, urllib3.exceptions.SSLError):
        return bool(reason.args) and isinstance(reason.args[0], ssl.SSLCertVerificationError)
    unconnected = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ProxyError)
    return isinstance(error, ValueError) or isinstance(reason, unconnected)
