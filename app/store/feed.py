"""Changes going out: what subscribers of Redis pub/sub are sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from redis import Redis

from app.conference import Header, Participant, encode
from app.events import Event
from app.store import keys


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
    """The messages of a channel from now on. Entered once Redis has confirmed: nothing later is missed."""
    with redis.pubsub() as pubsub:  # type: ignore[no-untyped-call]  # the client ships it without types
        pubsub.subscribe(channel)
        pubsub.get_message(timeout=redis.connection_pool.connection_kwargs.get("socket_timeout") or 5)
        yield (message["data"] for message in pubsub.listen() if message["type"] == "message")
