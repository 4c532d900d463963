"""What befalls callbacks on their way: some are lost, late, sent twice, or overtaken by later ones.

No HTTP, no clock and no chance of its own: the ways out are handed in, and what befalls a callback is a function of the
seed and of what the callback says. So the same seed loses the same ones, whichever thread sends them and when.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from math import inf

STRETCH = 10
"""Consecutive numbers of one conference that a burst takes."""

WINDOW = 20
"""Seconds that an outage lasts, by the callbacks' own time, from a full multiple on."""

HELD_BACK = 5.0
"""Seconds, at most, that a callback is held back so that later ones overtake it."""

SENT_AGAIN = 15.0
"""Seconds, at most, after which it comes again: as long as Twilio tries (Twilio docs, Connection Overrides)."""

IDENTITY = (
    "ConferenceSid", "CallSid", "RecordingSid", "SequenceNumber", "StatusCallbackEvent", "CallStatus",
    "RecordingStatus",
)  # fmt: skip
"""The parameters that tell one callback from every other; speech of one call has different numbers."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How a way of callbacks is bad. All but `delay` are probabilities, from 0 to 1; all zero is a good one.

    `lose` is of each callback, `burst` of each ten in a row of one conference, and `outage` of each twenty seconds, in
    which everything is lost. `delay` is the most seconds that each is late; some are hardly late at all. `reorder` is
    how many are held back until later ones have overtaken them, and `duplicate` how many come again.
    """

    lose: float = 0.0
    delay: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    burst: float = 0.0
    outage: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for what is no probability, and for a delay below 0."""
        for name, value in asdict(self).items():
            most = inf if name == "delay" else 1
            if not 0 <= value <= most:
                raise ValueError(f"{name} is {value}: it must be from 0 to {most}")

    def fate(self, seed: int, parameters: Mapping[str, str]) -> tuple[float, ...]:
        """In how many seconds this callback is to be sent, once for each; empty: it is lost."""
        conference, number = parameters.get("ConferenceSid", ""), parameters.get("SequenceNumber", "")
        if self.burst and conference and number:
            (lost,) = _dice(1, seed, "burst", conference, str(int(number) // STRETCH))
            if lost < self.burst:
                return ()
        if self.outage and (told := parameters.get("Timestamp")):
            (lost,) = _dice(1, seed, "outage", str(int(parsedate_to_datetime(told).timestamp()) // WINDOW))
            if lost < self.outage:
                return ()
        lost, late, held, holding, again, repeating = _dice(6, seed, *(parameters.get(name, "") for name in IDENTITY))
        if lost < self.lose:
            return ()
        first = late * self.delay + (holding * HELD_BACK if held < self.reorder else 0.0)
        return (first, first + repeating * SENT_AGAIN) if again < self.duplicate else (first,)


def _dice(count: int, seed: int, *words: str) -> list[float]:
    """Numbers from 0 to 1, the same for the same words; at most eight."""
    digest = blake2b("\0".join((str(seed), *words)).encode()).digest()
    return [int.from_bytes(digest[8 * n : 8 * n + 8]) / 2**64 for n in range(count)]


class Line:
    """A way of callbacks, with its faults. May be shared between threads."""

    def __init__(
        self,
        faults: Faults,
        seed: int,
        send: Callable[[str | None, Mapping[str, str]], None],
        later: Callable[[float, Callable[[], None]], None],
        *,
        speed: float = 1.0,
        calm: Callable[[], bool] = lambda: False,
    ) -> None:
        """What gets through leaves by `send`, at once or `later`; all delays are divided by `speed`. While it is
        `calm` nothing befalls what is sent.
        """
        self._faults = faults
        self._seed = seed
        self._send = send
        self._later = later
        self._speed = speed
        self._calm = calm
        self._lock = threading.Lock()
        self._lost = 0

    @property
    def lost(self) -> int:
        """How many callbacks have been lost here so far."""
        return self._lost

    def send(self, url: str | None, parameters: Mapping[str, str]) -> None:
        """Let a callback meet its fate. Does not wait."""
        fate = (0.0,) if self._calm() else self._faults.fate(self._seed, parameters)
        if not fate:
            with self._lock:
                self._lost += 1
        for seconds in fate:
            if seconds:
                self._later(seconds / self._speed, lambda: self._send(url, parameters))
            else:
                self._send(url, parameters)
