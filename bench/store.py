"""Offhook's store in a database of a Valkey, with a drain that folds in this process and is timed."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from app.events import Callback
from app.store.connect import connect
from app.store.inbox import Inbox, Mail
from app.store.snapshots import Snapshots
from bench.load import Parameters
from workers.drain import Drain

SHARDS = 16
"""Offhook's default."""
AT_ONCE = 500
"""How many callbacks a filling sends in one round trip."""


class Cost(NamedTuple):
    """What the folding of some callbacks took, in microseconds for each."""

    cpu: float
    """Processor time of the folding process."""
    wall: float
    """From the claim of the batch until its commit has been answered, so with Valkey's work and its fsync."""


class Store:
    """The inboxes and the conferences of one database, and who folds them."""

    def __init__(self, url: str, database: int = 0) -> None:
        self.redis = connect(f"{url}?db={database}", patience=60.0)
        self.inbox = Inbox(self.redis, SHARDS)
        self.snapshots = Snapshots(self.redis, SHARDS)
        self._drain = Drain(inbox=self.inbox, snapshots=self.snapshots, nudge=lambda: None, stopping=lambda: False)

    def put(self, told: Iterable[Parameters]) -> list[int]:
        """Store callbacks in the inboxes, as web does; the shards that have got some, each once."""
        entries = [(self._shard_of(one), Mail(callback(one))) for one in told]
        for first in range(0, len(entries), AT_ONCE):
            self.inbox.forward(entries[first : first + AT_ONCE])
        return list(dict.fromkeys(shard for shard, _ in entries))

    def fold(self, told: Iterable[Parameters] = (), shards: Collection[int] = range(SHARDS)) -> None:
        """Store these callbacks too, and fold until no inbox of these shards has any left."""
        self.put(told)
        while waiting := [shard for shard, left in enumerate(self.inbox.backlog()) if left.waiting and shard in shards]:
            self._drain.drain(waiting)

    def cost(self, told: Sequence[Parameters], sent_on_to: Iterable[str] = ()) -> Cost:
        """Fold these callbacks, and see what each costs. All other inboxes are empty.

        `sent_on_to` are conferences to whose shards the drain sends something on: the time there counts as well.
        """
        shards = [*self.put(told), *map(self.inbox.shard_of, sent_on_to)]
        used, began = time.process_time(), time.perf_counter()
        for shard in shards:
            self._drain.drain([shard])
        used, took = time.process_time() - used, time.perf_counter() - began
        return Cost(used / len(told) * 1e6, took / len(told) * 1e6)

    def _shard_of(self, told: Parameters) -> int:
        return self.inbox.shard_of(told.get("ConferenceSid") or told["CallSid"])


def callback(told: Parameters) -> Callback:
    """As web would store it, had it come just now."""
    return Callback(body=urlencode(told).encode(), received_at=time.time_ns() // 1_000_000, key="bench")
