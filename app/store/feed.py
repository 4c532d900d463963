"""Changes going out: what subscribers of Redis pub/sub are sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as Unconnected

from app.conference import Header, Participant, encode
from app.events import Event
from app.store import keys

CONFIRMED_WITHIN = 5.0
"""Seconds."""


def message(epoch: str, header: Header, changed: Iterable[Participant], events: Iterable[Event]) -> bytes:
    """One committed change as JSON: the header, each participant that changed, whole, and the events that did it."""
    return encode(
        {
            "conference_sid": header.sid,
            "account_sid": header.account_sid,
            "epoch": epoch,
            "revision": header.revision,
            "events": [
                {"type": event.type, "sequence": event.sequence, "at": event.at, "call_sid": event.call_sid}
                for event in events
            ],
            "conference": header,
            "participants": list(changed),
        }
    )


@contextmanager
def subscribe(redis: Redis, channel: str = keys.ALL_CONFERENCES) -> Iterator[Iterator[bytes]]:
    """The messages of a channel from now on. Entered once Redis has confirmed; ends where one might be missed.

    Raises redis.ConnectionError when the connection was lost, for what was published meanwhile is gone.
    """
    with redis.pubsub() as pubsub:  # type: ignore[no-untyped-call]  # the client ships it without types
        pubsub.subscribe(channel)
        if pubsub.get_message(timeout=CONFIRMED_WITHIN) is None:
            raise Unconnected(f"Redis did not confirm the subscription within {CONFIRMED_WITHIN} s")
        yield _messages(pubsub.listen())


def _messages(heard: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    for message in heard:
        if message["type"] == "subscribe":  # the client has connected anew, and would not say so otherwise
            raise Unconnected("the subscription was interrupted: changes may have been missed")
        yield message["data"]
