"""Keeps several made-up conferences going at once, in real time, until it is told to stop."""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import heapify, heapreplace

from app.simulator.exchange import Exchange
from app.simulator.post import Post, Report
from app.simulator.stories import Callback, story

STAGGER = 1.5
"""Seconds between the first conferences' beginnings, and from the end of one to its replacement."""


def simulate(
    post: Post,
    exchange: Exchange,
    *,
    conferences: int = 8,
    seed: int | None = None,
    speed: float = 1.0,
    stop: threading.Event,
    report: Callable[[Report], None] | None = None,
) -> Report:
    """Plays `conferences` conferences at a time, each replaced when it ends, until `stop`; returns totals.

    The first begins at once and the others a little later, one by one; with none it only waits, for an exchange
    that has something else to tell. `seed` fixes the stories but not their times; `speed` divides all times.
    Each callback goes through the exchange, which is to send it with `post`; a conference that is ended there
    is replaced too. Returns within a second of `stop`: all conferences of the exchange are ended as by the API,
    as many as half a second allows, and `post` is closed. `report` is called about once a second, and once with
    the totals, in the calling thread. Raises ValueError when `conferences` is below 0 or `speed` not above 0.
    """
    if conferences < 0:
        raise ValueError(f"conferences is {conferences}: it must be at least 0")
    if not speed > 0:
        raise ValueError(f"speed is {speed}: it must be above 0")
    rng = random.Random(seed)  # noqa: S311  it makes up calls, not secrets

    def tell() -> None:
        if report:
            report(post.report())

    try:
        _play(rng, exchange, conferences, speed, post, stop, tell)
        post.clear()
        exchange.end_all()
    finally:
        post.close()
    tell()
    return post.report()


@dataclass(slots=True)
class _Show:
    """A conference that is playing: what is yet to come, and the clock reading at which it began."""

    sid: str
    coming: deque[Callback]
    began: float


def _play(
    rng: random.Random,
    exchange: Exchange,
    conferences: int,
    speed: float,
    post: Post,
    stop: threading.Event,
    tell: Callable[[], None],
) -> None:
    """The scheduler: the heap holds, for each place on the bill, when it has something to do next."""
    now = time.monotonic()
    tell_at = now + 1
    agenda = [(now + place * STAGGER / speed, place) for place in range(conferences)]
    heapify(agenda)
    playing: dict[int, _Show] = {}
    while not stop.is_set():
        now = time.monotonic()
        if now >= tell_at:
            tell()
            tell_at = now + 1
        due, place = agenda[0] if agenda else (tell_at, 0)
        if due > now or post.crowded:
            stop.wait(min(max(due - now, 0.005), tell_at - now))
            continue
        if place not in playing:
            playing[place] = _begin(rng, exchange.account_sid, speed, now, exchange.live_names())
        show = playing[place]
        goes_on = exchange.play(show.sid, show.coming.popleft().parameters)
        if goes_on and show.coming:
            heapreplace(agenda, (show.began + show.coming[0].at, place))
        else:
            del playing[place]
            heapreplace(agenda, (now + STAGGER / speed, place))


def _begin(rng: random.Random, account_sid: str, speed: float, now: float, taken: Collection[str]) -> _Show:
    """A new conference under a name of its own: Twilio has one live conference to a name."""
    while True:
        callbacks = story(rng, account_sid, datetime.now(UTC), speed=speed)
        first = next(c.parameters for c in callbacks if "FriendlyName" in c.parameters)
        if first["FriendlyName"] not in taken:
            return _Show(first["ConferenceSid"], deque(callbacks), now)
