"""Changes going out: what subscribers of Redis pub/sub are sent, and the log of it that lets a reader take up again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import ConnectionError as Unconnected

from app.conference import Header, Participant, encode
from app.events import Event
from app.store import keys, scripts

CONFIRMED_WITHIN = 5.0
"""Seconds."""
AT_ONCE = 200
"""Changes of a shard read in one go."""

Place = tuple[int, int]
"""Of a change in its shard's log: the id that Redis gave it."""
Places = tuple[Place, ...]
"""How far a reader has got, shard by shard."""


class Gone(LookupError):
    """What a reader has heard last is not in the log any more, or never was: it cannot be told what it has missed."""


class Told(NamedTuple):
    """One change as it is kept in the log."""

    shard: int
    place: Place
    conference_sid: str
    account_sid: str
    revision: int
    message: bytes


def message(epoch: str, header: Header, changed: Iterable[Participant], events: Iterable[Event]) -> bytes:
    """One committed change as JSON: the header, each participant that changed, whole, and the events that did it."""
    return encode(
        {
            "conference_sid": header.sid,
            "account_sid": header.account_sid,
            "epoch": epoch,
            "revision": header.revision,
            "events": [_said(event) for event in events],
            "conference": header,
            "participants": list(changed),
        }
    )


def _said(event: Event) -> dict[str, Any]:
    """An event in a message. Looks and alerts have a `text` besides: why Twilio was asked, the rule."""
    at, call_sid, look, alert = event.at, event.call_sid, event.snapshot, event.alert
    more: dict[str, str] = {}
    if look is not None:
        at, more = look.taken_at, {"text": look.reason}
    elif alert is not None:
        call_sid = alert.subject if alert.subject.startswith("CA") else None
        at, more = alert.at, {"text": alert.rule}
    return {"type": event.type, "sequence": event.sequence, "at": at, "call_sid": call_sid, **more}


def written(places: Places) -> str:
    """Places as one word that a reader can hand back: letters, digits, dots and hyphens."""
    return ".".join(f"{first:x}-{second:x}" if second else f"{first:x}" for first, second in places)


def read_places(word: str, shards: int) -> Places:
    """The places that `written` wrote. Raises ValueError for any other word, or one of another number of shards."""
    places = word.split(".")
    if len(places) != shards or not all(PLACE.fullmatch(place) for place in places):
        raise ValueError(f"not a place in the feed of {shards} shards")
    return tuple((int(first, 16), int(second or "0", 16)) for first, _, second in (p.partition("-") for p in places))


PLACE = re.compile("[0-9a-f]{1,13}(-[0-9a-f]{1,8})?")

# The last id of a log. One that has nothing in it yet is begun, so that every place is that of an entry: by its entry
# being there a place is known. KEYS 1 changes.
LAST = """#!lua flags=allow-oom
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #last > 0 then return last[1][1] end
return redis.call('XADD', KEYS[1], '*', 'begun', '')
"""


class Feed:
    """The logs of changes of all shards. All in them was published as well; whoever reads here misses nothing."""

    def __init__(self, redis: Redis, shards: int) -> None:
        self.redis = redis
        self.shards = shards
        self._last = redis.register_script(LAST)
        self._shards = {keys.changes(shard).encode(): shard for shard in range(shards)}

    def end(self) -> Places:
        """The place behind everything that has been committed so far."""
        each = (([keys.changes(shard)], ()) for shard in range(self.shards))
        return tuple(map(_place, scripts.run(self.redis, self._last, each)))

    def latest(self, most: int) -> tuple[Places, list[Told], Places]:
        """Up to so many changes of each shard, the latest, in order within it; the place before them, and behind."""
        self.end()
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.xrevrange(keys.changes(shard), count=most + 1)
            found: Any = [entries[::-1] for entries in pipe.execute()]
        told = [each for shard, entries in enumerate(found) for each in _told(shard, entries[1:])]
        return tuple(_place(e[0][0]) for e in found), told, tuple(_place(e[-1][0]) for e in found)

    def wait(self, places: Places, seconds: float) -> list[Told]:
        """Changes behind these places, in order within a shard; blocks until there is one. Empty: the time is up.

        Raises `Gone` where these places are not kept any more: something behind them may be gone as well.
        """
        streams: Mapping[Any, Any] = {keys.changes(shard): _id(place) for shard, place in enumerate(places)}
        found: Any = self.redis.xread(dict(streams), count=AT_ONCE, block=max(1, int(seconds * 1000))) or []
        if not self.holds(places, [self._shards[name] for name, _ in found]):
            raise Gone
        return [told for name, entries in found for told in _told(self._shards[name], entries)]

    def between(self, places: Places, until: Places) -> Iterator[Told]:
        """Changes behind these places, up to and including those others. Raises `Gone` where some are not kept."""
        behind = [shard for shard, (place, last) in enumerate(zip(places, until, strict=True)) if place != last]
        while behind:
            with self.redis.pipeline(transaction=False) as pipe:
                for shard in behind:
                    pipe.xrange(keys.changes(shard), _id(places[shard]), _id(until[shard]), count=AT_ONCE + 1)
                found: Any = pipe.execute()
            following = []
            for shard, entries in zip(behind, found, strict=True):
                if not entries or _place(entries[0][0]) != places[shard]:
                    raise Gone
                yield from _told(shard, entries[1:])
                if len(entries) > AT_ONCE:
                    places = moved(places, shard, _place(entries[-1][0]))
                    following.append(shard)
            behind = following

    def holds(self, places: Places, shards: Sequence[int] | None = None) -> bool:
        """Whether all that has come since these places is there, as far as Redis can tell; in all shards or these."""
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards) if shards is None else shards:
                pipe.xrange(keys.changes(shard), _id(places[shard]), _id(places[shard]))
            return all(pipe.execute())


def moved(places: Places, shard: int, place: Place) -> Places:
    """The places after one more change."""
    return (*places[:shard], place, *places[shard + 1 :])


def _told(shard: int, entries: Any) -> Iterator[Told]:
    for entry_id, fields in entries:
        if b"m" in fields:
            yield Told(
                shard,
                _place(entry_id),
                fields[b"c"].decode(),
                fields[b"a"].decode(),
                int(fields[b"r"]),
                fields[b"m"],
            )


def _place(entry_id: bytes) -> Place:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


def _id(place: Place) -> str:
    return f"{place[0]}-{place[1]}"


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
