"""The dashboard: one page, filled by its script from the same addresses that everybody reads."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlencode

from flask import Blueprint, redirect, render_template, request
from werkzeug.exceptions import Unauthorized
from werkzeug.wrappers import Response

from app.web.access import Access
from app.web.answers import target

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


def create(*, access: Access) -> Blueprint:
    """`/` and `/conferences/{sid}`. See `app.web.create_app` for what it is handed."""
    dashboard = Blueprint("dashboard", __name__)
    version = _version(Path(__file__).parent / "static")

    @dashboard.get("/")
    @dashboard.get("/conferences/<sid>")
    def page(**_: str) -> Response | tuple[str, dict[str, str]]:
        try:
            reader = access.reader()
        except Unauthorized:
            if request.authorization is not None:
                raise
            return redirect(f"/sign-in?{urlencode({'next': target(request.environ)})}", 303)
        html = render_template("dashboard.html", reader=reader, version=version)
        return html, {
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
        }

    return dashboard


def _version(folder: Path) -> str:
    """Changes with the scripts: tabs of an earlier release keep a shared worker of their own."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
