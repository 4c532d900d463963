"""What a page of conferences costs among a thousand and among a hundred thousand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlencode

from flask.testing import FlaskClient

from app.events import Callback
from app.store.connect import connect
from app.store.feed import Feed
from app.store.inbox import Inbox, Mail
from app.store.snapshots import Question, Snapshots
from app.twilio.signature import Key
from app.upstream.api import Twilio
from app.web import create_app
from workers.drain import Drain

ACCOUNT = "AC" + "a" * 32
TOKEN = "a token for the benchmark"
SHARDS = 16
PAGE = 50
CHUNK = 5_000

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


class Store(NamedTuple):
    """Conferences in a database of their own, and an application over them."""

    snapshots: Snapshots
    client: FlaskClient


def measure(url: str, sizes: tuple[int, ...], repeats: int) -> dict[str, list[float]]:
    """Median milliseconds of one page of 50 for each question, at each size, taken in turn.

    `url` is a Valkey's, empty.
    """
    stores = []
    for database, size in enumerate(sizes):
        redis = connect(f"{url}?db={database}", patience=30.0)
        inbox, snapshots = Inbox(redis, SHARDS), Snapshots(redis, SHARDS)
        _fill(inbox, snapshots, size)
        stores.append(Store(snapshots, _client(inbox, snapshots)))
    costs = {
        name: _in_turn([_pages(store.snapshots, question) for store in stores], repeats)
        for name, question in QUESTIONS.items()
    }
    return costs | {
        name: _in_turn([_lists(store.client, query) for store in stores], repeats) for name, query in LISTS.items()
    }


def _in_turn(readers: list[Iterator[float]], repeats: int) -> list[float]:
    """The median of what each reader yields, a page of one after a page of the other."""
    times = [[next(reader) for reader in readers] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def _client(inbox: Inbox, snapshots: Snapshots) -> FlaskClient:
    app = create_app(
        inbox=inbox,
        snapshots=snapshots,
        feed=Feed(inbox.redis, inbox.shards),
        nudge=lambda: None,
        keys={ACCOUNT: (Key("main", TOKEN.encode()),)},
        parents={},
        api_keys={},
        public_url=None,
        twilio=Twilio("http://127.0.0.1:1", {}),
    )
    return app.test_client()


def _fill(inbox: Inbox, snapshots: Snapshots, many: int) -> None:
    drain = Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: False)
    for start in range(0, many, CHUNK):
        conferences = ((f"CF{n:032x}", n) for n in range(start, min(start + CHUNK, many)))
        inbox.forward((inbox.shard_of(sid), Mail(_join(sid, n))) for sid, n in conferences)
        for shard in range(SHARDS):
            while inbox.backlog()[shard].waiting:
                drain.drain([shard])


def _join(sid: str, number: int) -> Callback:
    clock = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(1_795_000_000 + number // 10))
    told = {
        "AccountSid": ACCOUNT,
        "ConferenceSid": sid,
        "FriendlyName": f"Room {number % 10}",
        "SequenceNumber": "1",
        "Timestamp": clock,
        "StatusCallbackEvent": "participant-join",
        "CallSid": f"CA{number:032x}",
        "ParticipantLabel": f"agent {number % 10}",
        "Muted": "false",
        "Hold": "false",
    }
    return Callback(body=urlencode(told).encode(), received_at=0, key="main")


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
