"""Keeps several made-up conferences going at once, in real time, until it is told to stop."""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from heapq import heapify, heapreplace
from queue import SimpleQueue
from uuid import uuid4

from app.simulator.sender import Sender
from app.simulator.stories import Callback, story

SENDING_THREADS = 8

CROWD = 64
"""So many callbacks may wait for a thread; beyond it the show slows down instead of piling them up."""

STAGGER = 1.5
"""Seconds between the first conferences' beginnings, and from the end of one to its replacement."""

PATIENCE = 0.5
"""Seconds that requests under way are given once the show has been stopped."""


@dataclass(frozen=True, slots=True)
class Report:
    """How the callbacks fared so far: answered 2xx, answered anything else, not answered at all."""

    accepted: int = 0
    refused: int = 0
    unanswered: int = 0

    @property
    def sent(self) -> int:
        """Callbacks whose fate is known; one that was sent twice counts once."""
        return self.accepted + self.refused + self.unanswered


class _Tally:
    """Counts from many threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accepted = self._refused = self._unanswered = 0

    def count(self, status: int) -> None:
        with self._lock:
            if status == 0:
                self._unanswered += 1
            elif 200 <= status < 300:
                self._accepted += 1
            else:
                self._refused += 1

    def report(self) -> Report:
        with self._lock:
            return Report(self._accepted, self._refused, self._unanswered)


def simulate(
    sender: Sender,
    account_sid: str,
    *,
    conferences: int = 8,
    seed: int | None = None,
    speed: float = 1.0,
    stop: threading.Event,
    report: Callable[[Report], None] | None = None,
) -> Report:
    """Plays `conferences` conferences at a time, each replaced when it ends, until `stop`; returns totals.

    The first begins at once and the others a little later, one by one. `seed` fixes the stories but not their
    times; `speed` divides all times. A callback that gets no answer is sent once more with the same
    idempotency token, as Twilio does when it cannot connect, and is then given up. Returns within a second of
    `stop`: the conferences that are playing are ended as by the API, as many as half a second allows; requests
    still under way then are left to end by themselves and are not counted. `report` is
    called about once a second, and once with the totals, in the calling thread. Raises ValueError when
    `conferences` is below 1 or `speed` is not above 0.
    """
    if conferences < 1:
        raise ValueError(f"conferences is {conferences}: it must be at least 1")
    if not speed > 0:
        raise ValueError(f"speed is {speed}: it must be above 0")
    rng = random.Random(seed)  # noqa: S311  it makes up calls, not secrets
    waiting: SimpleQueue[Callback | None] = SimpleQueue()
    tally = _Tally()
    threads = [
        threading.Thread(target=_deliver, args=(waiting, sender, tally, stop), name=f"sending-{number}", daemon=True)
        for number in range(SENDING_THREADS)
    ]

    def tell() -> None:
        if report:
            report(tally.report())

    for thread in threads:
        thread.start()
    try:
        playing = _play(rng, account_sid, conferences, speed, waiting, stop, tell)
        threads.append(threading.Thread(target=_end, args=(playing, sender, tally), daemon=True, name="ending"))
        threads[-1].start()
    finally:
        for _ in threads:
            waiting.put(None)
        _join(threads)
    tell()
    return tally.report()


@dataclass(slots=True)
class _Show:
    """A conference that is playing: what is yet to come, and the clock reading at which it began."""

    name: str
    coming: deque[Callback]
    began: float
    told: Callback | None = None
    """The last conference callback that was handed out."""


def _play(
    rng: random.Random,
    account_sid: str,
    conferences: int,
    speed: float,
    waiting: SimpleQueue[Callback | None],
    stop: threading.Event,
    tell: Callable[[], None],
) -> Iterable[_Show]:
    """The scheduler: the heap holds, for each place on the bill, when it has something to do next.

    Returns the shows that `stop` has interrupted.
    """
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
        due, place = agenda[0]
        if due > now or waiting.qsize() >= CROWD:
            stop.wait(min(max(due - now, 0.005), tell_at - now))
            continue
        if place not in playing:
            playing[place] = _begin(rng, account_sid, speed, now, {show.name for show in playing.values()})
        show = playing[place]
        callback = show.coming.popleft()
        waiting.put(callback)
        if "SequenceNumber" in callback.parameters and "ConferenceSid" in callback.parameters:
            show.told = callback
        if show.coming:
            heapreplace(agenda, (show.began + show.coming[0].at, place))
        else:
            del playing[place]
            heapreplace(agenda, (now + STAGGER / speed, place))
    return playing.values()


def _end(playing: Iterable[_Show], sender: Sender, tally: _Tally) -> None:
    """Twilio would go on; who stops a show wants nobody left in it."""
    until = time.monotonic() + PATIENCE
    for show in playing:
        if show.told is not None and time.monotonic() < until:
            told = show.told.parameters
            common = {name: told[name] for name in ("AccountSid", "ConferenceSid", "FriendlyName")}
            end = {
                "StatusCallbackEvent": "conference-end",
                "ReasonConferenceEnded": "conference-ended-via-api",
                "Reason": "Conference ended via API",
                "SequenceNumber": str(int(told["SequenceNumber"]) + 1),
                "Timestamp": format_datetime(datetime.now(UTC).replace(microsecond=0)),
            }
            tally.count(sender.send(common | end))


def _begin(rng: random.Random, account_sid: str, speed: float, now: float, taken: Collection[str]) -> _Show:
    """A new conference under a name of its own: Twilio has one live conference to a name."""
    while True:
        callbacks = story(rng, account_sid, datetime.now(UTC), speed=speed)
        name = next(c.parameters["FriendlyName"] for c in callbacks if "FriendlyName" in c.parameters)
        if name not in taken:
            return _Show(name, deque(callbacks), now)


def _deliver(waiting: SimpleQueue[Callback | None], sender: Sender, tally: _Tally, stop: threading.Event) -> None:
    while (callback := waiting.get()) is not None and not stop.is_set():
        token = str(uuid4())
        status = sender.send(callback.parameters, idempotency_token=token)
        if status == 0 and not stop.is_set():
            status = sender.send(callback.parameters, idempotency_token=token)
        tally.count(status)


def _join(threads: Iterable[threading.Thread]) -> None:
    until = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
