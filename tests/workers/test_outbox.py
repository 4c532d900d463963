"""Others are told of each alert: at least once, always under the same id, and again until it is given up."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from app.alerts import Record, encode_record
from app.events import Alert
from app.store import keys
from app.store.outbox import HELD, Outbox, Standing
from app.upstream.webhooks import Endpoint, Outcome
from tests.cast import ACCOUNT, ANNA, NOON, ROOM, at
from tests.conftest import SHARDS
from workers.outbox import AGAIN_AFTER, AT_ONCE, FORSAKEN_AFTER, Sender

ALERT = Alert(rule="hold", kind="hold", subject=ANNA, since=NOON, at=at(300), text="A participant has been on hold.")


class Hook(Endpoint):
    """An endpoint that answers what it is told to."""

    def __init__(self, url: str, answers: list[Outcome], got: list[tuple[str, int, bytes]]) -> None:
        super().__init__(url, [b"secret"])
        self.answers = answers
        self.got = got

    def send(self, message_id: str, moment: int, body: bytes) -> Outcome:
        self.got.append((message_id, moment, body))
        return self.answers.pop(0) if self.answers else Outcome("delivered", "HTTP 204")


class Slow(Endpoint):
    """An endpoint that answers once it is let."""

    def __init__(self, url: str) -> None:
        super().__init__(url, [b"secret"])
        self.let = threading.Event()

    def send(self, *_: Any) -> Outcome:
        assert self.let.wait(10)
        return Outcome("delivered", "HTTP 204")


def wait(sender: Sender) -> None:
    """Until all that was begun has ended."""
    for threads in sender.threads.values():
        for thread in threads:
            thread.join(10)


@dataclass
class Post:
    """A sender, its clock, and who is told."""

    redis: Redis
    answers: list[Outcome] = field(default_factory=list)
    urls: tuple[str, ...] = ("https://hooks.example/a",)
    now: float = 1_795_348_800.0
    got: list[tuple[str, int, bytes]] = field(default_factory=list)

    def sender(self) -> Sender:
        hooks = [Hook(url, self.answers, self.got) for url in self.urls]
        return Sender(Outbox(self.redis, SHARDS), hooks, lambda: self.now)

    def send(self) -> int:
        sender = self.sender()
        began = sender.send()
        wait(sender)
        return began

    def standing(self) -> Standing:
        return Outbox(self.redis, SHARDS).standing()


@pytest.fixture
def post(redis: Redis) -> Post:
    return Post(redis)


@pytest.fixture
def written(redis: Redis) -> Callable[..., None]:
    """Writes an alert into the outbox, as a commit does."""

    def write(alert: Alert = ALERT, event_id: str = "aa") -> None:
        record = encode_record(Record(account_sid=ACCOUNT, conference_sid=ROOM, alert=alert))
        fields: Any = {"i": event_id, "e": record}
        redis.xadd(keys.outbox(1), fields)

    return write


def test_an_alert_is_told_once_to_each(redis: Redis, post: Post, written: Callable[..., None]) -> None:
    post.urls = ("https://hooks.example/a", "https://hooks.example/b")
    written()
    assert [post.send(), post.send()] == [2, 0]
    assert [message for message, *_ in post.got] == ["alert_aa", "alert_aa"]
    assert post.standing() == Standing(waiting=0, delivered=2, given_up=0)
    assert not redis.keys("*:deliveries*")
    assert not redis.exists(keys.messages(1))


def test_what_is_told_names_nobody(post: Post, written: Callable[..., None]) -> None:
    written()
    post.send()
    told = json.loads(post.got[0][2])
    assert told == {
        "type": "conference.alert.raised",
        "timestamp": "2026-11-22T12:05:00Z",
        "data": {
            "conference_sid": ROOM,
            "account_sid": ACCOUNT,
            "rule": "hold",
            "kind": "hold",
            "severity": "warning",
            "subject": ANNA,
            "since": "2026-11-22T12:00:00Z",
            "at": "2026-11-22T12:05:00Z",
            "text": "A participant has been on hold.",
        },
    }


def test_it_is_tried_again_after_longer_and_longer_and_then_given_up(
    redis: Redis, post: Post, written: Callable[..., None]
) -> None:
    post.answers += [Outcome("failed", "HTTP 503")] * 20
    written()
    assert post.send() == 1
    for wait in AGAIN_AFTER:
        post.now += wait - 0.1
        assert post.send() == 0
        post.now += wait / 10 + 0.2
        assert post.send() == 1
    post.now += timedelta(days=2).total_seconds()
    assert post.send() == 0
    assert len(post.got) == len(AGAIN_AFTER) + 1
    assert {message for message, *_ in post.got} == {"alert_aa"}
    assert post.standing() == Standing(waiting=0, delivered=0, given_up=1)
    [(_, letter)] = redis.xrange(keys.undelivered(1))
    assert letter[b"r"] == b"HTTP 503"
    assert b"hooks.example" not in b"".join(letter.values()), "its URL may hold a secret"


def test_a_success_after_failures_ends_it(post: Post, written: Callable[..., None]) -> None:
    post.answers += [Outcome("failed", "HTTP 500"), Outcome("delivered", "HTTP 200")]
    written()
    post.send()
    post.now += 6
    assert [post.send(), post.send()] == [1, 0]
    assert post.standing() == Standing(waiting=0, delivered=1, given_up=0)


def test_who_says_gone_is_not_asked_again(post: Post, written: Callable[..., None]) -> None:
    post.answers += [Outcome("gone", "HTTP 410")]
    written()
    post.send()
    assert post.standing().given_up == 1


def test_what_a_sender_took_and_died_with_is_sent_by_another(
    redis: Redis, post: Post, written: Callable[..., None]
) -> None:
    written()
    places = dict.fromkeys(post.sender().endpoints, 10)
    assert len(Outbox(redis, SHARDS).take(places, int(post.now * 1000))) == 1
    assert post.send() == 0, "somebody has it"
    post.now += HELD / 1000 + 1
    assert post.send() == 1
    assert [message for message, *_ in post.got] == ["alert_aa"]


def test_a_worker_that_does_not_know_an_endpoint_leaves_what_is_for_it(
    post: Post, written: Callable[..., None]
) -> None:
    post.answers += [Outcome("failed", "HTTP 500")]
    written()
    post.send()
    mine, post.urls, post.now = post.urls, ("https://hooks.example/b",), post.now + 10
    assert post.send() == 0
    post.sender().give_up()
    assert post.standing() == Standing(waiting=1, delivered=0, given_up=0)
    post.urls = mine
    assert post.send() == 1
    assert post.standing() == Standing(waiting=0, delivered=1, given_up=0)


@pytest.mark.parametrize("left", [("https://hooks.example/b",), ()])
def test_what_is_for_an_endpoint_that_nobody_has_any_more_is_given_up(
    redis: Redis, post: Post, written: Callable[..., None], left: tuple[str, ...]
) -> None:
    post.answers += [Outcome("failed", "HTTP 500")]
    written()
    post.send()
    mine, post.now = post.sender(), post.now + FORSAKEN_AFTER + 10
    mine.give_up()
    assert post.standing().waiting == 1, "it is known here, only late"
    post.urls = left
    post.sender().give_up()
    assert post.standing() == Standing(waiting=0, delivered=0, given_up=1)
    assert not redis.keys("*:deliveries*")
    [(_, letter)] = redis.xrange(keys.undelivered(1))
    assert letter[b"r"] == b"it is not configured any more"
    assert mine.send() == 0


def test_one_that_is_slow_holds_nobody_up_and_takes_no_more_than_it_has_places(
    post: Post, written: Callable[..., None]
) -> None:
    slow = Slow("https://hooks.example/slow")
    sender = Sender(Outbox(post.redis, SHARDS), [slow, *post.sender().endpoints.values()], lambda: post.now)
    for number in range(2 * AT_ONCE):
        written(event_id=f"{number:02x}")
    assert sender.send() == 2 * AT_ONCE, "as much to each as it has places"
    wait_for = [thread for name, threads in sender.threads.items() if name != slow.name for thread in threads]
    for thread in wait_for:
        thread.join(10)
    assert post.standing().delivered == AT_ONCE, "each says so as it ends"
    assert sender.send() == AT_ONCE
    slow.let.set()
    wait(sender)
    assert sender.send() == AT_ONCE, "what there was no place for was left to be taken"
    wait(sender)
    assert post.standing() == Standing(waiting=0, delivered=4 * AT_ONCE, given_up=0)


def test_one_that_fails_holds_nobody_up(post: Post, written: Callable[..., None]) -> None:
    post.answers += [Outcome("failed", "HTTP 500")]
    written()
    post.send()
    written(event_id="bb")
    assert post.send() == 1
    assert post.standing() == Standing(waiting=1, delivered=1, given_up=0)
