"""What may befall the callbacks of one conference."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from app.simulator.faults import Faults
from tests.healing.watch import Told


class Weather(NamedTuple):
    """What befalls the callbacks of one conference."""

    faults: Faults
    lost: Callable[[int, Told], bool] = lambda _place, _told: False
    """Whether the callback in this place of all is lost besides."""
    harmless: bool = False
    """Nothing is lost, and what is late comes well before anybody should worry."""


def _good(rng: Random, _length: int) -> Weather:
    return Weather(Faults(delay=rng.choice((0, 1.5)), duplicate=rng.choice((0, 0.2))), harmless=True)


def _late(rng: Random, _length: int) -> Weather:
    return Weather(Faults(delay=rng.choice((20, 120, 1500)), reorder=0.2, duplicate=0.1))


def _some_lost(rng: Random, _length: int) -> Weather:
    return Weather(Faults(lose=rng.choice((0.02, 0.1, 0.4, 0.9)), delay=rng.choice((0, 2, 40)), reorder=0.1))


def _bursts(rng: Random, _length: int) -> Weather:
    return Weather(Faults(burst=rng.choice((0.1, 0.4)), delay=rng.choice((0, 2)), duplicate=0.05))


def _outages(rng: Random, _length: int) -> Weather:
    return Weather(Faults(outage=rng.choice((0.1, 0.4)), delay=rng.choice((0, 2))))


def _midway(rng: Random, length: int) -> Weather:
    until = rng.randrange(1, length + 1)
    return Weather(Faults(delay=rng.choice((0, 2)), lose=rng.choice((0, 0.05))), lambda place, _: place < until)


def _torn_off(rng: Random, length: int) -> Weather:
    since = rng.randrange(1, length + 1)
    return Weather(Faults(delay=rng.choice((0, 2)), lose=rng.choice((0, 0.05))), lambda place, _: place >= since)


def _without(*kinds: str) -> Callable[[Random, int], Weather]:
    def weather(rng: Random, _length: int) -> Weather:
        return Weather(Faults(delay=rng.choice((0, 2))), lambda _, told: told.get("StatusCallbackEvent") in kinds)

    return weather


WEATHERS: dict[str, Callable[[Random, int], Weather]] = {
    "good": _good,
    "late": _late,
    "some lost": _some_lost,
    "bursts": _bursts,
    "outages": _outages,
    "seen midway": _midway,
    "torn off": _torn_off,
    "no end": _without("conference-end"),
    "no leaves": _without("participant-leave"),
    "no leaves, no end": _without("participant-leave", "conference-end"),
    "no joins": _without("participant-join"),
    "no changes": _without("participant-mute", "participant-unmute", "participant-hold", "participant-unhold"),
}
