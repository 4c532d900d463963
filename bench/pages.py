"""What a page of conferences costs among a thousand and among a hundred thousand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from flask.testing import FlaskClient

from app.store.feed import Feed
from app.store.snapshots import Question, Snapshots
from app.twilio.signature import Key
from app.upstream.api import Twilio
from app.web import create_app
from bench.load import ACCOUNT, TOKEN
from bench.store import SHARDS, Store

PAGE = 50

QUESTIONS = {
    "newest": Question(),
    "in progress, by account": Question(account=ACCOUNT, status="in-progress"),
    "by name": Question(account=ACCOUNT, friendly_name="Room 7"),
    "by label": Question(label="agent 7", status="in-progress"),
}
LISTS = {
    "Twilio's list": "",
    "Twilio's, Status": "&Status=in-progress",
    "Twilio's, FriendlyName": "&FriendlyName=Room%207",
    "Twilio's, DateCreated": "&DateCreated%3C=2026-11-22&DateCreated%3E=2026-11-15",
}


def measure(url: str, databases: int, repeats: int) -> dict[str, list[float]]:
    """Median milliseconds of one page of 50 for each question, in each database, taken in turn.

    `url` is that of a Valkey that `rooms.fill` has filled.
    """
    stores = [Store(url, database) for database in range(databases)]
    clients = [_client(store) for store in stores]
    costs = {
        name: _in_turn([_pages(store.snapshots, question) for store in stores], repeats)
        for name, question in QUESTIONS.items()
    }
    return costs | {
        name: _in_turn([_lists(client, query) for client in clients], repeats) for name, query in LISTS.items()
    }


def _in_turn(readers: list[Iterator[float]], repeats: int) -> list[float]:
    """The median of what each reader yields, a page of one after a page of the other."""
    times = [[next(reader) for reader in readers] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def _client(store: Store) -> FlaskClient:
    app = create_app(
        inbox=store.inbox,
        snapshots=store.snapshots,
        feed=Feed(store.redis, SHARDS),
        nudge=lambda: None,
        keys={ACCOUNT: (Key("main", TOKEN.encode()),)},
        parents={},
        api_keys={},
        public_url=None,
        twilio=Twilio("http://127.0.0.1:1", {}),
    )
    return app.test_client()


def _lists(client: FlaskClient, query: str) -> Iterator[float]:
    """Whole requests, their JSON included, led from page to page as the SDKs are; what each took, in ms."""
    first = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences.json?PageSize={PAGE}{query}"
    path = first
    while True:
        began = time.perf_counter()
        answer = client.get(path, auth=(ACCOUNT, TOKEN))
        took = (time.perf_counter() - began) * 1000
        page = answer.get_json()
        if len(page["conferences"]) == PAGE:
            yield took
        path = page["next_page_uri"] or first


def _pages(snapshots: Snapshots, question: Question) -> Iterator[float]:
    """Pages from all through the list, not only from its head; what each took, in ms."""
    place = None
    while True:
        began = time.perf_counter()
        headers, place = snapshots.page(question, place, PAGE)
        if len(headers) == PAGE:
            yield (time.perf_counter() - began) * 1000
