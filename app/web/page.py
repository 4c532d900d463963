"""A plain page of the conferences in progress, for a first look in a browser. It renews itself."""

from __future__ import annotations

from flask import Blueprint, render_template

from app.conference import read_header
from app.store.snapshots import Question, Snapshots
from app.web.access import Access

SHOWN = 30


def create(*, snapshots: Snapshots, access: Access) -> Blueprint:
    """`/`. See `app.web.create_app` for what it is handed."""
    page = Blueprint("page", __name__)

    @page.get("/")
    def conferences() -> tuple[str, dict[str, str]]:
        reader = access.reader()
        headers, following = snapshots.page(Question(account=reader.account, status="in-progress"), None, SHOWN)
        found = snapshots.conferences([read_header(header).sid for header in headers])
        html = render_template("conferences.html", conferences=found, more=following is not None)
        return html, {
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; style-src 'self'",
        }

    return page
