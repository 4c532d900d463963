"""The feed tells every committed change once, on three channels, in a shape that a subscriber can live from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from random import Random
from threading import Thread
from typing import Any

import click
import pytest
from redis import Redis, RedisError

from app import tail
from app.alerts import Record as AlertRecord
from app.conference import encode
from app.events import Alert, Callback
from app.simulator.stories import shuffled, story
from app.store import feed, keys
from app.store.connect import connect
from app.store.feed import subscribe
from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from app.twilio.snapshot import Record
from tests.cast import ACCOUNT, ANNA, BEN, NOON, ROOM, callback, said
from tests.workers.post import empty, kept, post
from workers.drain import Drain

THE_END = b"the end"

START = callback(said("conference-start", number=1, second=1))
ANNA_JOINS = callback(said("participant-join", ANNA, number=2, second=1))
BEN_JOINS = callback(said("participant-join", BEN, number=3, second=2))
ANNA_MUTES = callback(said("participant-mute", ANNA, number=4, second=9))


@pytest.fixture
def drain(inbox: Inbox, snapshots: Snapshots) -> Drain:
    return Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: False)


def until_the_end(redis: Redis, messages: Iterator[bytes], channel: str) -> list[Any]:
    """All that a channel has told so far."""
    redis.publish(channel, THE_END)
    told = []
    while (message := next(messages)) != THE_END:
        told.append(json.loads(message))
    return told


def test_a_change_is_told_on_three_channels_byte_for_byte_alike(redis: Redis, drain: Drain) -> None:
    channels = (keys.ALL_CONFERENCES, keys.conference_channel(ROOM), keys.account_channel(ACCOUNT))
    assert channels == ("offhook:conferences", f"offhook:conference:{ROOM}", f"offhook:account:{ACCOUNT}")
    with ExitStack() as stack:
        subscribers = [stack.enter_context(feed.subscribe(redis, channel)) for channel in channels]
        post(drain.inbox, START, ANNA_JOINS)
        empty(drain)
        told = {next(messages) for messages in subscribers}
        assert len(told) == 1
        for messages, channel in zip(subscribers, channels, strict=True):
            assert until_the_end(redis, messages, channel) == [], "one message for one commit"


def test_a_message_has_the_documented_shape(redis: Redis, drain: Drain) -> None:
    post(drain.inbox, START, ANNA_JOINS, BEN_JOINS)
    empty(drain)
    with feed.subscribe(redis) as messages:
        post(drain.inbox, ANNA_MUTES)
        empty(drain)
        message = json.loads(next(messages))
    document = json.loads(drain.snapshots.documents([ROOM])[0] or b"")
    epoch = redis.get(keys.epoch(drain.inbox.shard_of(ROOM)))
    assert isinstance(epoch, bytes)
    assert list(message) == [
        *("conference_sid", "account_sid", "epoch", "revision", "events", "conference", "participants")
    ]
    assert message["conference_sid"] == ROOM
    assert message["account_sid"] == ACCOUNT
    assert message["epoch"] == epoch.decode()
    assert message["revision"] == 2
    assert message["events"] == [
        {"type": "participant-mute", "sequence": 4, "at": "2026-11-22T12:00:09Z", "call_sid": ANNA}
    ]
    [anna, _ben] = document.pop("participants")
    assert message["participants"] == [anna], "each participant that changed, whole, and no other"
    assert anna["muted"] is True
    assert message["conference"] == document
    assert message["conference"]["revision"] == message["revision"]


def test_an_event_that_tells_neither_number_nor_time_nor_call_says_so(redis: Redis, drain: Drain) -> None:
    with feed.subscribe(redis) as messages:
        post(drain.inbox, callback(said("conference-painted", number=None, second=0, Timestamp="")))
        empty(drain)
        message = json.loads(next(messages))
    assert message["events"] == [{"type": "conference-painted", "sequence": None, "at": None, "call_sid": None}]
    assert message["participants"] == []


def test_looks_and_alerts_tell_when_why_and_whom_they_are_about_and_so_does_a_line_for_people(
    redis: Redis, drain: Drain
) -> None:
    named = {"account_sid": ACCOUNT, "conference_sid": ROOM}
    look = Record(**named, taken_at=NOON, reason="hole", by="offhook", conference={"status": "in-progress"})
    words: dict[str, Any] = {"rule": "vip-on-hold", "kind": "hold", "since": NOON, "at": NOON + timedelta(seconds=60)}
    raised, cleared = Alert(**words, subject=ANNA), Alert(**words, subject="", cleared=True)
    records = [
        ("snapshot", encode(look)),
        *(("alert", encode(AlertRecord(**named, alert=each))) for each in (raised, cleared)),
    ]
    post(drain.inbox, ANNA_JOINS)
    empty(drain)
    told = []
    with feed.subscribe(redis) as messages:
        for media, body in records:
            drain.inbox.append(
                drain.inbox.shard_of(ROOM), Callback(body=body, media=media, received_at=1, key="offhook")
            )
            empty(drain)
            told.append(json.loads(next(messages)))
    noon, later = "2026-11-22T12:00:00Z", "2026-11-22T12:01:00Z"
    assert [message["events"] for message in told] == [
        [{"type": "snapshot", "sequence": None, "at": noon, "call_sid": None, "text": "hole"}],
        [{"type": "alert-raised", "sequence": None, "at": later, "call_sid": ANNA, "text": "vip-on-hold"}],
        [{"type": "alert-cleared", "sequence": None, "at": later, "call_sid": None, "text": "vip-on-hold"}],
    ]
    assert [click.unstyle(tail.line(message)).rpartition(" here  ")[2] for message in told] == [
        "Twilio was asked: hole",
        f"{ANNA[:8]}… alert: vip-on-hold",
        "alert is over: vip-on-hold",
    ]


def test_what_changes_nothing_is_not_told(redis: Redis, drain: Drain) -> None:
    post(drain.inbox, START, ANNA_JOINS)
    empty(drain)
    with feed.subscribe(redis) as messages:
        post(drain.inbox, ANNA_JOINS, START, callback({"AccountSid": ACCOUNT, "Hello": "there"}))
        empty(drain)
        assert until_the_end(redis, messages, keys.ALL_CONFERENCES) == []


def test_a_channel_tells_only_its_own_conference_and_account(redis: Redis, drain: Drain) -> None:
    other, strangers = "CF" + "c" * 32, "AC" + "9" * 32
    with ExitStack() as stack:
        one = stack.enter_context(feed.subscribe(redis, keys.conference_channel(other)))
        account = stack.enter_context(feed.subscribe(redis, keys.account_channel(strangers)))
        post(drain.inbox, START, callback(said("conference-start", number=1, second=1, room=other)))
        post(
            drain.inbox,
            callback(said("conference-start", number=1, second=1, room="CF" + "d" * 32, AccountSid=strangers)),
        )
        empty(drain)
        told = until_the_end(redis, one, keys.conference_channel(other))
        assert [message["conference_sid"] for message in told] == [other]
        told = until_the_end(redis, account, keys.account_channel(strangers))
        assert [message["account_sid"] for message in told] == [strangers]


@pytest.mark.parametrize("seed", range(6))
def test_a_subscriber_that_replaces_what_it_is_handed_holds_the_document_that_everyone_reads(
    redis: Redis, drain: Drain, seed: int
) -> None:
    chance = Random(seed)
    callbacks = [
        callback(told.parameters, received_at=number)
        for number, told in enumerate(shuffled(chance, story(chance, ACCOUNT, NOON)))
    ]
    with feed.subscribe(redis) as messages:
        at_once: list[Callback] = []
        for each in callbacks:
            at_once.append(each)
            if chance.random() < 0.3:
                post(drain.inbox, *at_once)
                at_once.clear()
                empty(drain)
        post(drain.inbox, *at_once)
        empty(drain)
        told = until_the_end(redis, messages, keys.ALL_CONFERENCES)
    [room] = {message["conference_sid"] for message in told}
    assert [message["revision"] for message in told] == list(range(1, len(told) + 1))
    assert len({message["epoch"] for message in told}) == 1
    header: Any = None
    participants: dict[str, Any] = {}
    for message in told:
        header = message["conference"]
        participants |= {person["call_sid"]: person for person in message["participants"]}
    document = json.loads(drain.snapshots.documents([room])[0] or b"")
    assert participants == {person["call_sid"]: person for person in document.pop("participants")}
    assert header == document
    assert kept(drain.snapshots, room).header.revision == len(told)


def test_who_has_entered_a_subscription_misses_nothing_that_comes_later(redis: Redis) -> None:
    for number in range(50):
        with feed.subscribe(redis, f"channel {number}") as messages:
            assert redis.publish(f"channel {number}", b"at once") == 1
            assert next(messages) == b"at once"


def test_a_subscription_is_given_up_on_leaving_it(redis: Redis) -> None:
    with feed.subscribe(redis, "channel"):
        assert redis.pubsub_numsub("channel") == [(b"channel", 1)]
    while redis.pubsub_numsub("channel") != [(b"channel", 0)]:
        """Redis notices the closed connection in its own time."""


def test_a_subscriber_may_hear_nothing_for_longer_than_its_client_is_patient(valkey: str, redis: Redis) -> None:
    hasty = connect(valkey, patience=0.05)
    heard: list[bytes] = []
    with feed.subscribe(hasty, "channel") as messages:
        listening = Thread(target=lambda: heard.append(next(messages)))
        listening.start()
        listening.join(0.25)
        assert listening.is_alive(), "the silence has ended the subscription"
        redis.publish("channel", b"at last")
        listening.join(10)
    hasty.close()
    assert heard == [b"at last"]


def test_an_interrupted_subscription_says_so_instead_of_going_on(redis: Redis) -> None:
    with subscribe(redis) as messages:
        redis.publish(keys.ALL_CONFERENCES, "one")
        assert next(messages) == b"one"
        redis.client_kill_filter(_type="pubsub")
        with pytest.raises(RedisError):
            next(messages)
