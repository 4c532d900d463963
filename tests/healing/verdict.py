"""What should be so in the end, and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from app import fold
from app.conference import UNDETERMINED, Conference
from app.events import Event
from app.simulator.exchange import Exchange
from tests.healing.watch import Watch
from tests.healing.weather import Weather
from tests.truth import truth, untrue

QUIET = {"silent": timedelta(minutes=10), "empty": timedelta(minutes=1)}
"""How long nothing may have been heard before these are reasons to look; they may come again, as nothing is heard."""


def findings(watch: Watch, exchange: Exchange, weather: Weather, sent: Sequence[Event]) -> Iterator[tuple[str, bool]]:
    """What is not as it should be, and whether that is wrong or only unsaid."""
    conference = watch.conference
    assert conference is not None
    for what in untrue(document(conference), truth(exchange, watch.sid)):
        yield f"Twilio says otherwise: {what}", True
    again = fold.fold(watch.log.values())
    for what in _unlike(conference, again):
        yield f"the short way differs from the fold of its log: {what}", True

    def folded(events: Sequence[Event]) -> Conference:
        filed = _filed(watch.sid, events)
        return again if {event.id for event in filed} == watch.log.keys() else fold.fold(filed)

    for what in _differences(conference, folded(sent), unnumbered=True):
        yield what, False
    if conference.header.coverage.complete:
        untold = [event for event in sent if event.source == "conference" or event.id in watch.log]
        for what in _differences(conference, folded(untold), unnumbered=False):
            yield f"it is complete, but {what}", True
    yield from ((what, True) for what in _needless(watch, weather))


def _needless(watch: Watch, weather: Weather) -> Iterator[str]:
    """Looks that should not have been."""
    conference = watch.conference
    if weather.harmless:
        for look in watch.looks:
            if look.want.reason == "doubted":
                continue  # another look has led to it, and is judged by itself
            quiet = QUIET.get(look.want.reason)
            if quiet is None or look.heard_at is None or look.at - look.heard_at < quiet:
                yield f"nothing was lost, but it was looked at for {look.want}"
    episodes = Counter((look.want.reason, look.want.since) for look in watch.looks if look.want.reason not in QUIET)
    for (reason, since), looks in episodes.items():
        if looks > 1:
            yield f"{looks} looks for one episode: {reason} since {since}"
    often = [look for look in watch.looks if look.want.reason in QUIET]
    for one, other in pairwise(often):
        if other.at - one.at < QUIET["silent"] and other.heard_at == one.heard_at:
            yield f"looked again after {other.at - one.at}: {other.want}"
    if conference and conference.header.status == "completed" and conference.header.want:
        yield f"it has ended and wants {conference.header.want}"


def document(conference: Conference) -> dict[str, Any]:
    """The native JSON."""
    header = msgspec.to_builtins(conference.header)
    return {**header, "participants": [msgspec.to_builtins(each) for each in conference.in_order()]}


def _unlike(conference: Conference, again: Conference) -> Iterator[str]:
    """In what two documents of the same events differ."""
    pairs: list[tuple[str, Any, Any]] = [("header", conference.header, again.header)]
    pairs.append(("coverage", conference.header.coverage, again.header.coverage))
    calls = sorted(conference.participants.keys() | again.participants.keys())
    pairs += [(call, conference.participants.get(call), again.participants.get(call)) for call in calls]
    for whose, one, other in pairs:
        if one is None or other is None:
            yield f"{whose} is only in one of them"
        elif one != other:
            names = [name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name)]
            for name in (name for name in names if name not in (*UNDETERMINED, "coverage")):
                yield f"{name} of {whose} is {getattr(one, name)}, not {getattr(other, name)}"


def _filed(sid: str, events: Sequence[Event]) -> list[Event]:
    """These events with call progress in its place; that of calls which were never in the conference is left out."""
    calls = {event.call_sid for event in events if event.conference_sid is not None}
    return [
        replace(event, conference_sid=sid) if event.conference_sid is None else event
        for event in events
        if event.conference_sid is not None or event.call_sid in calls
    ]


NOT_COMPARED = {*UNDETERMINED, "alerts", "actions", "coverage"}
"""Of a header: what callbacks do not determine; and of the coverage only some."""
PROVENANCE = {"facts", "coach_told", "not_coaching_at"}
"""Of a participant: how its facts came to be known."""
HEARD = {"events", "last_sequence", "updated_at", "counts"}
"""What speaks only of what has been heard, and is right about that."""


def _differences(conference: Conference, perfect: Conference, *, unnumbered: bool) -> Iterator[str]:
    """Fields that are neither as in the perfect document, nor null, nor named as not told.

    `unnumbered`: what has no number has been lost, too, so that nobody can know that it is missing.
    """
    heard = HEARD if unnumbered else set()
    yield from _fields("", conference.header, perfect.header, conference.header.coverage.facts, NOT_COMPARED | heard)
    if not unnumbered:
        for name in ("events", "sequences", "holes", "missing", "conflicts", "from_start"):
            got, right = (getattr(each.header.coverage, name) for each in (conference, perfect))
            if name == "events":
                got = tuple(kind for kind in got if kind != "snapshot")
            if got != right:
                yield f"coverage.{name} is {got}, not {right}"
    for call, right in perfect.participants.items():
        participant = conference.participants.get(call)
        if participant is not None:
            yield from _fields(f" of {call[:6]}", participant, right, participant.facts, PROVENANCE | heard)
        elif not unnumbered:
            yield f"{call} is unknown"
    for call in conference.participants.keys() - perfect.participants.keys():
        yield f"{call} is nobody"


def _fields(whose: str, got: Any, right: Any, facts: Mapping[str, str], ignored: set[str]) -> Iterator[str]:
    for name, value in asdict(got).items():
        if value == getattr(right, name) or value is None or name in facts or name in ignored:
            continue
        if name == "stays" and any(stay.inferred or stay.reconciled for stay in value):
            continue  # they say so themselves
        yield f"{name}{whose} is {value}, not {getattr(right, name)}"
