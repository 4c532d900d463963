"""Who has been promised what: the callbacks that were acknowledged, and whether all of them, and no others, count."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlencode

from msgspec.structs import replace
from redis import Redis

from app import fold
from app.conference import UNDETERMINED, document, encode
from app.events import Callback, Event
from app.simulator.sender import Sender
from app.simulator.stories import shuffled, story
from app.store import keys
from app.store.snapshots import Snapshots
from app.twilio.callbacks import read
from tests.cast import ACCOUNT
from tests.system.house import PATIENCE, House, awaited

SHARDS = 16
SENDERS = 6
BEFORE_ANOTHER_TRY = 0.02
"""Seconds."""

Parameters = dict[str, str]


def stories(seed: int) -> Iterator[Parameters]:
    """Endless callbacks of conferences, several at a time, as an unreliable network delivers them."""
    rng = random.Random(seed)
    while True:
        told = [story(rng, ACCOUNT, datetime(2026, 11, 22, 12, tzinfo=UTC)) for _ in range(4)]
        for callback in shuffled(rng, [callback for one in told for callback in one]):
            yield callback.parameters


class Load:
    """Senders that repeat each callback until it is acknowledged, and remember it then. A block in which they send."""

    def __init__(self, house: House, seed: int, rate: float | None = None) -> None:
        """`rate`: callbacks a second of all senders together, at most."""
        self.house = house
        self.seed = seed
        self.pause = SENDERS / rate if rate else 0.0
        self.over = threading.Event()
        self.acknowledged: list[Parameters] = []
        self.attempts = 0
        self.wrong: list[int] = []
        """Answers that a sender must never see, such as 500."""
        self.threads = [threading.Thread(target=self._send, args=[number], daemon=True) for number in range(SENDERS)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a callback is not taken, however often it is sent"

    def _send(self, number: int) -> None:
        sender = Sender(f"{self.house.url}/webhooks/twilio", self.house.environ["TWILIO_AUTH_TOKEN"], timeout=3.0)
        for parameters in stories(self.seed * 1000 + number):
            status = 0
            while status != 204:  # to the last: of one that is given up nobody would know whether it is stored
                status = sender.send(parameters)
                self.attempts += 1
                if status not in (0, 204, 503):
                    self.wrong.append(status)
                if status != 204:
                    self.over.wait(BEFORE_ANOTHER_TRY)
            self.acknowledged.append(parameters)
            if self.over.wait(self.pause):
                return

    def await_more(self, number: int) -> None:
        """Wait until so many more have been acknowledged."""
        goal = len(self.acknowledged) + number
        awaited("callbacks are acknowledged again", lambda: len(self.acknowledged) >= goal)


class Audit(NamedTuple):
    """What became of the callbacks."""

    acknowledged: int
    """Different ones, of which each that names only a call counts for each conference that the call was in."""
    folded: int
    """In the logs."""
    lost: int
    doubled: int
    strange: int
    """In a log, though nobody has sent it there."""
    unlike: int
    """Conferences whose document is not what its callbacks tell."""

    @property
    def clean(self) -> bool:
        """Whether each is there once and tells what it should."""
        return not (self.lost or self.doubled or self.strange or self.unlike)


def audit(
    snapshots: Snapshots,
    acknowledged: Iterable[Parameters],
    unsure: Iterable[Parameters] = (),
    letters: Collection[str] = (),
) -> Audit:
    """Compare each conference's log and document with what was acknowledged.

    `unsure` was sent and not acknowledged: it may be there or not. `letters`: ids of what was set aside.
    """
    promised = {event_id: event for event_id, event in events_of(acknowledged).items() if event_id not in letters}
    known = events_of(unsure) | promised
    by_conference: dict[str, list[Event]] = {}
    by_call: dict[str, list[Event]] = {}
    for event in known.values():
        if event.conference_sid:
            by_conference.setdefault(event.conference_sid, []).append(event)
        else:
            by_call.setdefault(str(event.call_sid), []).append(event)
    kept_sids = set(snapshots.sids())
    owed = {str(event.conference_sid) for event in promised.values() if event.conference_sid}
    lost = sum(event.conference_sid in owed - kept_sids for event in promised.values())
    strange = len(kept_sids - by_conference.keys())
    count = folded = doubled = unlike = 0
    for sid in sorted(kept_sids & by_conference.keys()):
        kept = snapshots.load({sid: None})[sid].conference
        told = by_conference[sid] + [
            replace(event, conference_sid=sid) for call in kept.participants for event in by_call.get(call, ())
        ]
        events = {event.id: event for event in told}
        logged = Counter(entry.event_id for entry in snapshots.log(sid))
        expected = events.keys() & promised.keys()
        count += len(expected)
        folded += len(logged)
        lost += len(expected - logged.keys())
        doubled += logged.total() - len(logged)
        strange += len(logged.keys() - events.keys())
        oracle = fold.fold([event for event in told if event.id in logged])
        ours = kept.header
        header = replace(oracle.header, **{name: getattr(ours, name) for name in UNDETERMINED})
        unlike += document(encode(kept.header), map(encode, kept.in_order())) != document(
            encode(header), map(encode, oracle.in_order())
        )
    return Audit(count, folded, lost, doubled, strange, unlike)


def events_of(told: Iterable[Parameters]) -> dict[str, Event]:
    """What was told, each event once, by its id."""
    bodies = [Callback(body=urlencode(each).encode(), received_at=0, key="") for each in told]
    return {event.id: event for event in map(read, bodies)}


def settled(house: House) -> bool:
    """Nothing waits in any inbox."""
    stats = house.get("/api/stats")
    return bool(stats) and stats["callbacks"]["waiting"] == 0


def await_settled(house: House, seconds: float = PATIENCE) -> None:
    """Wait until everything is folded."""
    awaited("a house that has folded everything", lambda: settled(house), seconds)


def waiting(redis: Redis) -> int:
    """How much is in the inboxes, by Redis itself."""
    with redis.pipeline(transaction=False) as pipe:
        for shard in range(SHARDS):
            pipe.xlen(keys.inbox(shard))
        return sum(pipe.execute())
