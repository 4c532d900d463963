"""What the tests of hostile requests share: how many there are to be, and words that nobody should be hurt by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote

from werkzeug.test import run_wsgi_app

from tests.web.conftest import FORM, PATH, Site

CASES = int(os.environ.get("CASES", "2000"))
"""More of them: CASES=100000 pytest tests/web -k hostile_or_forged"""
SEED = int(os.environ.get("SEED", "20261122"))
"""Another one makes up other cases; the same one the same."""


class Sent(NamedTuple):
    """A request, as WSGI hands it over."""

    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})
    """By their names in the environment."""
    target: str = PATH
    method: str = "POST"
    media: str = FORM
    chunked: bool = False

    def to(self, site: Site) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer. Whatever the application raises comes through."""
        path, _, query = self.target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(path, encoding="latin-1"),
            "QUERY_STRING": query,
            "RAW_URI": self.target,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "HTTP_HOST": "hooks.example.com",
            "CONTENT_TYPE": self.media,
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(self.body),
            "wsgi.input_terminated": True,
            **self.headers,
        }
        if not self.chunked:
            environ.setdefault("CONTENT_LENGTH", str(len(self.body)))
        pieces, status, headers = run_wsgi_app(site.app, environ, buffered=True)
        return int(status[:3]), dict(headers), b"".join(pieces)


def signed_text(url: bytes, pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """What Twilio signs, by its docs: the URL, then each distinct name and value, sorted."""
    return url + b"".join(name + value for name, value in sorted(set(pairs)))
