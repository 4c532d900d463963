"""Sends one signed callback over HTTP, as Twilio does.

urllib3 rather than requests: its pool keeps connections alive and is safe to share between threads, and it
brings no cookies, no proxies from the environment and, when told so, neither redirects nor retries.
"""

from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import urllib3
from twilio.request_validator import RequestValidator

KEPT_CONNECTIONS = 32


class Sender:
    """Delivers callbacks, mostly to one webhook URL, signed with one auth token; may be shared between threads."""

    def __init__(self, url: str, auth_token: str, *, signed_url: str | None = None, timeout: float = 15.0) -> None:
        """`timeout` is seconds, for connecting and for each wait for an answer (15 is Twilio's read timeout).

        `signed_url` is what Twilio was given, where that is not the URL itself: a proxy stands in between.

        The URL is used as it would be configured at Twilio: a fragment (Twilio's connection overrides) is
        neither signed nor sent, and for https the port is left out of what is signed (Twilio docs, Webhooks
        security). Raises ValueError when the URL is not absolute http or https, or holds credentials.
        """
        self._url, signed = _addresses(url)
        self._signed_url = signed_url or signed
        self._validator = RequestValidator(auth_token)
        self._http = urllib3.PoolManager(maxsize=KEPT_CONNECTIONS, timeout=timeout, retries=False)

    def send(
        self,
        parameters: Mapping[str, str],
        *,
        url: str | None = None,
        method: Literal["POST", "GET"] = "POST",
        idempotency_token: str | None = None,
    ) -> int:
        """Sends once and returns the HTTP status, or 0 when no answer was had (no connection, timeout).

        `url` is where to send it instead of the webhook, with the same rules. POST carries the parameters as a
        form, GET in the query. Attempts at one callback share its `idempotency_token`; a new one is made when
        None. Redirects are answers: they are not followed.
        """
        address, signed = (self._url, self._signed_url) if url is None else _addresses(url)
        form = urlencode(parameters)
        headers = {
            "User-Agent": "TwilioProxy/1.1",
            "Accept": "*/*",
            "I-Twilio-Idempotency-Token": idempotency_token or str(uuid4()),
        }
        if method == "GET":
            joint = "&" if "?" in address else "?"
            target, body = f"{address}{joint}{form}", None
            headers["X-Twilio-Signature"] = self._validator.compute_signature(f"{signed}{joint}{form}", {})
        else:
            target, body = address, form
            headers["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"
            headers["X-Twilio-Signature"] = self._validator.compute_signature(signed, parameters)
        try:
            return self._http.urlopen(method, target, body=body, headers=headers, redirect=False).status
        except urllib3.exceptions.HTTPError:
            return 0


def _addresses(url: str) -> tuple[str, str]:
    """What to call and what to sign. Raises ValueError for a URL that cannot be called."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the webhook URL is not absolute: give it as http://host/path or https://host/path")
    if "@" in parts.netloc:
        raise ValueError("the webhook URL holds a user name or password: the simulator cannot log in, leave it out")
    called = url.partition("#")[0]
    if parts.scheme == "https" and parts.port is not None:
        return called, called.replace(parts.netloc, parts.netloc.removesuffix(f":{parts.port}"), 1)
    return called, called
