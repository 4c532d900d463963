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
"""More of them: CASES=100000 pytest tests/web/test_forgery.py tests/web/test_fuzz.py tests/web/test_again.py"""
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


STRINGS = [
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"'><svg onload=alert(1)>", "</title><b>", "]]>"),
    *("<!--", "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;", "&lt;&amp;&#0;&#x0;", "{{7*7}}${7*7}#{7*7}"),
    *(
        "javascript:alert(1)",
        "data:text/html,<script>",
        "'; DROP TABLE conferences; --",
        "' OR '1'='1",
        "%00%0d%0a%2e%2e",
    ),
    *(
        "$(reboot)`reboot`;|&",
        "../../../../etc/passwd",
        "..\\..\\windows",
        "{0}{}%s%n%(x)s",
        "{offhook}:*",
        "\x00KEYS[1]",
    ),
    *(
        "\r\nSet-Cookie: offhook=x",
        "\n\nevent: change\ndata: {}",
        "line\rbreaks\x0b\x0c\x1c\x85\u2028\u2029",
        "\x00\x01\x1f",
    ),
    *(
        "\x7f\x80\x9f",
        "\x1b[31mred\x1b[0m\x07",
        "\ufffe\uffff\ufdd0",
        "\ufeff\u200b\u200d",
        "\u202eevil\u2066",
        "e\u0301" * 40,
    ),
    *(
        "\U0001f469\u200d\U0001f469\u200d\U0001f467",
        "\U000e0041\U0010ffff",
        "\u00e9\u65e5\u672c \u05d0",
        "W" * 3000,
        "\u65e5" * 300,
    ),
    *(
        "=1+1",
        "+15550123456",
        "@SUM(A1)",
        "null",
        "NaN",
        "-1e999",
        "true",
        "__proto__",
        "constructor",
        "[object Object]",
    ),
    *(
        ")]}',\n",
        '{"a": 1}',
        "redis.call('FLUSHALL')",
        "return 1 -- ]] ",
        "a,b;c|d\te",
        " leading and trailing ",
        " ",
    ),
]
"""Words that have hurt somebody: markup, commands, paths, templates, Redis, Lua, frames, terminals, Unicode, sheets."""
