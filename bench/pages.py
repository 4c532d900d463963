"""What a page of conferences costs among a thousand and among a hundred thousand."""

from __future__ import annotations

import statistics
import time
from urllib.parse import urlencode

from redis import Redis

from app.events import Callback
from app.store.inbox import Inbox, Mail
from app.store.snapshots import Question, Snapshots
from workers.drain import Drain

ACCOUNT = "AC" + "a" * 32
SHARDS = 16
PAGE = 50
CHUNK = 5_000

QUESTIONS = {
    "newest": Question(),
    "in progress, by account": Question(account=ACCOUNT, status="in-progress"),
    "by name": Question(account=ACCOUNT, friendly_name="Room 7"),
    "by label": Question(label="agent 7", status="in-progress"),
}


def measure(redis: Redis, sizes: tuple[int, ...], repeats: int) -> dict[str, list[float]]:
    """Median milliseconds of one page of 50 for each question, at each size. The store is empty before."""
    inbox, snapshots = Inbox(redis, SHARDS), Snapshots(redis, SHARDS)
    costs: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    filled = 0
    for size in sizes:
        _fill(inbox, snapshots, filled, size)
        filled = size
        for name, question in QUESTIONS.items():
            costs[name].append(_cost(snapshots, question, repeats))
    return costs


def _fill(inbox: Inbox, snapshots: Snapshots, first: int, last: int) -> None:
    drain = Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: False)
    for start in range(first, last, CHUNK):
        conferences = ((f"CF{n:032x}", n) for n in range(start, min(start + CHUNK, last)))
        inbox.forward((inbox.shard_of(sid), Mail(_join(sid, n))) for sid, n in conferences)
        for shard in range(SHARDS):
            while inbox.backlog()[shard].waiting:
                drain.drain(shard)


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


def _cost(snapshots: Snapshots, question: Question, repeats: int) -> float:
    """Pages are taken from all through the list, not only from its head."""
    place, times = None, []
    for _ in range(repeats):
        began = time.perf_counter()
        headers, place = snapshots.page(question, place, PAGE)
        if len(headers) == PAGE:
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)
