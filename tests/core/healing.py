"""Conferences whose callbacks are lost, late, repeated and overtaken, and what becomes of their documents. All in
virtual time: a seed makes up everything, and makes it up again.

A story goes through an exchange, its callbacks over a bad line, and whatever arrives is folded as a worker folds it.
When the document wants Twilio's REST API to be looked at, that is done, with the delays of a network. In the end it is
held to what the exchange knows, and to the perfect document: what the fold makes of all that was ever sent.

    python -m tests.core.healing 20000         # so many seeds, with a table of what was lost and looked at
    python -m tests.core.healing 20000 5000    # those from 5000 on
    python -m tests.core.healing --seed 4711   # one, told step by step
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from heapq import heappop, heappush
from itertools import count, pairwise
from math import ceil
from random import Random
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import quote_plus

import msgspec
from msgspec.structs import asdict, replace

from app import fold
from app.conference import UNDETERMINED, Conference, Header, Want, encode
from app.events import Callback, Event, Seen, Snapshot
from app.replay import Track, by_call
from app.simulator.exchange import Exchange, Refusal
from app.simulator.faults import Faults, Line
from app.simulator.stories import story
from app.twilio.callbacks import read
from app.twilio.times import read_time
from tests.cast import ACCOUNT, NOON
from tests.truth import truth, untrue

Told = Mapping[str, str]
Wanted = Callable[[Header | None, Header, datetime], Want | None]

PATIENCE = timedelta(hours=26)
"""After the end of a story, until nothing is wanted any more."""
SILENCE = timedelta(minutes=10)
"""So long a conference may be unheard of before that is a reason to look."""
MOST_LOOKS = 60
"""A conference that wants more than that is in a loop."""


# What is lost


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


# The world, in virtual time


class World:
    """A clock, which is Twilio's, and what is to happen when."""

    def __init__(self) -> None:
        self.now = NOON
        self._agenda: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = count()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Have this done in so many seconds."""
        self.at(self.now + timedelta(seconds=seconds), what)

    def at(self, moment: datetime, what: Callable[[], None]) -> None:
        """Have this done then, or now if that is past."""
        heappush(self._agenda, (max(moment, self.now), next(self._order), what))

    def run(self, until: datetime) -> None:
        """Let time pass until then."""
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, what = heappop(self._agenda)
            what()
        self.now = until


class Look(NamedTuple):
    """One look at Twilio's REST API."""

    want: Want
    at: datetime
    """By our clock."""
    heard_at: datetime | None


class Watch:
    """A worker and its store for one conference: folds what arrives and looks when that is wanted."""

    def __init__(self, world: World, exchange: Exchange, sid: str, wanted: Wanted, rng: Random, skew: float) -> None:
        """`skew` is how many seconds our clock is ahead of Twilio's."""
        self.sid = sid
        self.conference: Conference | None = None
        self.log: dict[str, Event] = {}
        self.looks: list[Look] = []
        self._world = world
        self._exchange = exchange
        self._wanted = wanted
        self._rng = rng
        self._skew = timedelta(seconds=skew)
        self._tracks: dict[str, Track] = {}
        self._unfiled: dict[str, list[Event]] = {}
        self._looking = False

    @property
    def now(self) -> datetime:
        """By our clock."""
        return self._world.now + self._skew

    def take(self, event: Event) -> None:
        """Fold what has arrived, as a worker would: what names only a call waits until its conference is known."""
        if event.conference_sid is None:
            call = str(event.call_sid)
            if self.conference is None or call not in self.conference.participants:
                self._unfiled.setdefault(call, []).append(event)
                return
            event = replace(event, conference_sid=self.sid)
        if event.id in self.log:
            return
        before = self.conference
        after = self._advanced(event)
        self.log[event.id] = event
        if after is None:
            after = fold.fold(self.log.values())
            self._tracks.clear()
        self._commit(before, after, event)
        known = before.participants if before else {}
        for call in [call for call in after.participants if call not in known and call in self._unfiled]:
            for waiting in self._unfiled.pop(call):
                self.take(waiting)

    def _advanced(self, event: Event) -> Conference | None:
        if self.conference is None:
            return None
        after = fold.advance(self.conference, [event], self._tracks)
        if isinstance(after, fold.Missing):
            legs = by_call(self.log.values())
            histories = {sid: legs.get(sid, []) for sid in after.histories}
            after = fold.advance(self.conference, [event], self._tracks, histories)
            assert not isinstance(after, fold.Missing), "no more can be known than the whole history"
        if after is None:
            return None
        self._tracks |= after.tracks
        return after.conference

    def _commit(self, before: Conference | None, after: Conference, event: Event) -> None:
        was = before.header if before else None
        heard_at, asked_at = (was.heard_at, was.asked_at) if was else (None, None)
        if event.source == "snapshot":
            asked_at = self.now
        else:
            heard_at = self.now
        header = replace(after.header, heard_at=heard_at, asked_at=asked_at)
        header = replace(header, want=self._wanted(was, header, self.now))
        self.conference = Conference(header, after.participants)
        self._await_due()

    def _await_due(self) -> None:
        want = self.conference and self.conference.header.want
        if want and not self._looking:
            self._world.at(want.due_at - self._skew, self._look_if_due)

    def _look_if_due(self) -> None:
        assert self.conference is not None
        header = self.conference.header
        if self._looking or header.want is None or header.want.due_at > self.now or header.status == "completed":
            return
        assert len(self.looks) < MOST_LOOKS, f"{MOST_LOOKS} looks, and another for: {header.want}"
        self.looks.append(Look(header.want, self.now, header.heard_at))
        self._looking = True
        self._fetch_conference(header)

    def _fetch_conference(self, header: Header) -> None:
        """The conference first and, if it goes on, its participants; each is read some time after it is asked for."""
        sequences = header.coverage.sequences
        assert header.want is not None
        known = Snapshot(
            taken_at=NOON,
            after=sequences[-1][1] if sequences else 0,
            missing=header.coverage.missing > 0 or header.coverage.from_start is False,
            reason=header.want.reason,
        )

        def conference_read() -> None:
            try:
                told = self._exchange.fetch_conference(self.sid)
            except Refusal:
                self._see(known, self._world.now, 0.0)
                return
            seen = replace(
                known,
                status=told["status"],
                region=told["region"],
                created_at=read_time(told["date_created"]),
                updated_at=read_time(told["date_updated"]),
                reason_conference_ended=told["reason_conference_ended"],
                call_sid_ending_conference=told["call_sid_ending_conference"],
            )
            if told["status"] == "completed":
                self._see(seen, self._world.now, 0.5)
            else:
                self._request(lambda took: participants_read(seen, took))

        def participants_read(seen: Snapshot, took: float) -> None:
            listed = self._exchange.list_participants(self.sid, {})
            people = tuple(_seen(resource) for _, resource in listed if resource is not None)
            self._see(replace(seen, participants=people), self._world.now, took)

        self._request(lambda _: conference_read())

    def _request(self, what: Callable[[float], None]) -> None:
        """Have Twilio do this; it is told how long the whole request will take."""
        took = self._rng.choice((0.05, 0.4, 3.0))
        self._world.later(took * self._rng.random(), lambda: what(took))

    def _see(self, seen: Snapshot, read_at: datetime, took: float) -> None:
        """Fold, some time later, what was read then; Twilio dates answers in whole seconds."""
        dated = read_at.replace(microsecond=0)
        seen = replace(seen, taken_at=dated - timedelta(seconds=ceil(took)))
        event = Event(
            id=f"look {len(self.looks)}",
            source="snapshot",
            type="snapshot",
            account_sid=ACCOUNT,
            conference_sid=self.sid,
            snapshot=seen,
        )

        def arrived() -> None:
            self._looking = False
            self.take(event)
            self._await_due()

        self._world.later(took + self._rng.choice((0.0, 0.2, 5.0)), arrived)


def _seen(resource: Mapping[str, Any]) -> Seen:
    told = {name: resource[name] for name in Seen.__struct_fields__ if name not in ("created_at", "updated_at")}
    return Seen(**told, created_at=read_time(resource["date_created"]), updated_at=read_time(resource["date_updated"]))


# One conference


class Outcome(NamedTuple):
    """What became of a conference."""

    weather: str
    looks: list[Look]
    wrong: list[str]
    """What should not be so."""
    unsaid: list[str]
    """Fields of a document that is not complete which are neither right, nor null, nor named as not told."""
    callbacks: int
    arrived: int
    log: list[Event]


def play(seed: int, wanted: Wanted) -> Outcome:
    """Make a conference up, let its callbacks fare as they do, heal it, and look what is wrong in the end."""
    rng = Random(seed)
    name = rng.choice(list(WEATHERS))
    told = story(rng, ACCOUNT, NOON, minutes=rng.uniform(0.2, 0.8), speed=rng.choice((1, 0.25, 0.04)))
    if rng.random() < 0.6:
        told = [
            one for one in told if not one.parameters.get("StatusCallbackEvent", "").startswith("participant-speech")
        ]
    if rng.random() < 0.5:
        told = told[: rng.randint(1, len(told))]  # it still goes on when the story breaks off
    weather = WEATHERS[name](rng, len(told))
    sid = told[0].parameters["ConferenceSid"]

    world = World()
    sent: list[Event] = []
    arrived: list[datetime] = []

    def send(url: str | None, parameters: Told) -> None:
        event = _event(parameters)
        sent.append(event)
        if not weather.lost(len(sent) - 1, parameters):
            line.send(url, Letter(parameters, event))

    def receive(_: str | None, letter: Told) -> None:
        assert isinstance(letter, Letter)
        arrived.append(world.now)
        watch.take(letter.event)

    line = Line(weather.faults, seed, receive, world.later)
    exchange = Exchange(ACCOUNT, send, world.later, clock=lambda: world.now, random_bits=rng.getrandbits)
    watch = Watch(world, exchange, sid, wanted, Random(seed), rng.choice((0, 0, 2.5, -2.5)))
    for one in told:
        world.at(NOON + timedelta(seconds=one.at), lambda one=one: exchange.play(sid, one.parameters))  # type: ignore[misc]
    if rng.random() < 0.25:
        for _ in range(rng.randint(1, 4)):
            moment = NOON + timedelta(seconds=rng.uniform(0, told[-1].at))
            world.at(moment, lambda: _meddle(rng, exchange, sid))
    world.run(NOON + timedelta(seconds=told[-1].at) + PATIENCE)

    wrong: list[str] = []
    unsaid: list[str] = []
    if watch.conference is not None:
        found = list(_findings(watch, exchange, weather, sent, arrived))
        wrong = [what for what, is_wrong in found if is_wrong]
        unsaid = [what for what, is_wrong in found if not is_wrong]
    return Outcome(name, watch.looks, wrong, unsaid, len(sent), len(arrived), [*watch.log.values()])


class Letter(dict[str, str]):
    """A callback on its way, with what it tells: to read it once is enough."""

    def __init__(self, parameters: Told, event: Event) -> None:
        super().__init__(parameters)
        self.event = event


_quoted = lru_cache(4096)(quote_plus)


def _event(parameters: Told) -> Event:
    body = "&".join(
        [f"{name}={_quoted(value)}" for name, value in parameters.items()]
    )  # urlencode takes ten times as long
    return read(Callback(body=body.encode(), received_at=0, key="main"))


def _meddle(rng: Random, exchange: Exchange, sid: str) -> None:
    """Somebody else does something to the conference by Twilio's REST API, as far as that can be done."""
    try:
        people = [call for call, each in exchange.list_participants(sid, {}) if each is not None]
        does = rng.choice(("mute", "hold", "coach", "kick", "dial", "dial", "end on exit", "end"))
        if does == "end":
            exchange.update_conference(sid, {"Status": "completed"})
        elif does == "dial":
            to = "+12065550199" if rng.random() < 0.4 else "+12065550101"
            exchange.create_participant(sid, {"From": "+12065550100", "To": to, "Label": f"guest {rng.random()}"})
        elif people:
            call, other = rng.choice(people), rng.choice(people)
            forms = {
                "mute": {"Muted": rng.choice(("true", "false"))},
                "hold": {"Hold": rng.choice(("true", "false"))},
                "end on exit": {"EndConferenceOnExit": "true"},
                "coach": {"Coaching": "true", "CallSidToCoach": other},
            }
            if does == "kick":
                exchange.delete_participant(sid, call)
            else:
                exchange.update_participant(sid, call, forms[does])
    except Refusal:
        return


# What should be so


def _findings(
    watch: Watch, exchange: Exchange, weather: Weather, sent: Sequence[Event], arrived: Sequence[datetime]
) -> Iterator[tuple[str, bool]]:
    """What is not as it should be, and whether that is wrong or only unsaid."""
    conference = watch.conference
    assert conference is not None
    for what in untrue(_document(conference), truth(exchange, watch.sid)):
        yield f"Twilio says otherwise: {what}", True
    again = fold.fold(watch.log.values())
    if _determined(again) != _determined(conference):
        yield "it is not what the fold makes of its log", True
    complete = conference.header.coverage.complete
    perfect = fold.fold(_filed(watch.sid, sent))
    for what in _differences(conference, perfect, unnumbered=True):
        yield what, False
    if complete:
        untold = [event for event in sent if event.source == "conference" or event.id in watch.log]
        for what in _differences(conference, fold.fold(_filed(watch.sid, untold)), unnumbered=False):
            yield f"it is complete, but {what}", True
    yield from ((what, True) for what in _needless(watch, weather, arrived))


def _needless(watch: Watch, weather: Weather, arrived: Sequence[datetime]) -> Iterator[str]:
    """Looks that should not have been."""
    conference = watch.conference
    if weather.harmless:
        for look in watch.looks:
            if look.want.reason != "silent" or (look.heard_at and look.at - look.heard_at < SILENCE):
                yield f"nothing was lost, but it was looked at: {look}"
    repeating = ("silent", "empty")
    episodes = Counter((look.want.reason, look.want.since) for look in watch.looks if look.want.reason not in repeating)
    for (reason, since), looks in episodes.items():
        if looks > 1:
            yield f"{looks} looks for one episode: {reason} since {since}"
    often = [look for look in watch.looks if look.want.reason in repeating]
    for one, other in pairwise(often):
        if other.at - one.at < SILENCE and other.heard_at == one.heard_at:
            yield f"looked again after {other.at - one.at}: {other.want}"
    if conference and conference.header.status == "completed" and conference.header.want:
        yield f"it has ended and wants {conference.header.want}"


def _document(conference: Conference) -> dict[str, Any]:
    """The native JSON."""
    header = msgspec.to_builtins(conference.header)
    return {**header, "participants": [msgspec.to_builtins(each) for each in conference.in_order()]}


def _determined(conference: Conference) -> tuple[bytes, ...]:
    plain = Header(sid="", account_sid="")
    header = replace(conference.header, **{name: getattr(plain, name) for name in UNDETERMINED})
    return encode(header), *map(encode, conference.in_order())


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


def _differences(conference: Conference, perfect: Conference, *, unnumbered: bool) -> Iterator[str]:
    """Fields that are neither as in the perfect document, nor null, nor named as not told.

    `unnumbered`: what has no number has been lost, too, so that nobody can know that it is missing.
    """
    yield from _fields("", conference.header, perfect.header, conference.header.coverage.facts, NOT_COMPARED)
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
            yield from _fields(f" of {call[:6]}", participant, right, participant.facts, PROVENANCE)
        elif not unnumbered:
            yield f"{call} is unknown"
    for call in conference.participants.keys() - perfect.participants.keys():
        yield f"{call} is nobody"


def _fields(whose: str, got: Any, right: Any, facts: Mapping[str, str], ignored: set[str]) -> Iterator[str]:
    values = asdict(right)
    for name, value in asdict(got).items():
        if value != values[name] and value is not None and name not in facts and name not in ignored:
            yield f"{name}{whose} is {value}, not {values[name]}"


# Many conferences


class Sick(AssertionError):
    """A seed that did not heal."""


def heal(seeds: range, wanted: Wanted) -> list[Outcome]:
    """Play all of these. Raises `Sick` at the first that is not as it should be, which says how to play it again."""
    outcomes = []
    for seed in seeds:
        try:
            outcome = play(seed, wanted)
        except Exception as error:
            raise Sick(f"seed {seed} raises; again with: python -m tests.core.healing --seed {seed}") from error
        if outcome.wrong:
            what = "\n  ".join(outcome.wrong[:20])
            raise Sick(
                f"seed {seed} ({outcome.weather}) is not healed:\n  {what}\n"
                f"again with: python -m tests.core.healing --seed {seed}"
            )
        outcomes.append(outcome)
    return outcomes


def _told(outcome: Outcome) -> None:
    """One conference, step by step."""
    for event in outcome.log:
        number = "" if event.sequence is None else f"#{event.sequence}"
        print(f"{number:>5} {event.at} {event.type} {event.call_sid or ''}{event.snapshot or ''}")
    for look in outcome.looks:
        print(f"look at {look.at}: {look.want}")
    print(f"{outcome.weather}: {outcome.arrived} arrivals of {outcome.callbacks} callbacks, {len(outcome.looks)} looks")
    print("\n".join(["wrong:", *outcome.wrong, "unsaid:", *outcome.unsaid]))


def _table(outcomes: Sequence[Outcome]) -> None:
    print(f"{'what befell them':20} conferences  looks: none   one   two  3-5  6 and more  reasons")
    for name in WEATHERS:
        some = [outcome for outcome in outcomes if outcome.weather == name]
        counts = [len(outcome.looks) for outcome in some]
        shown = [
            sum(low <= each <= high for each in counts) for low, high in ((0, 0), (1, 1), (2, 2), (3, 5), (6, 999))
        ]
        reasons = Counter(look.want.reason for outcome in some for look in outcome.looks)
        numbers = "{:11,} {:12} {:5} {:5} {:4} {:11}".format(len(some), *shown)
        print(f"{name:20} {numbers}  {', '.join(f'{reason} {many}' for reason, many in reasons.most_common())}")
    unsaid = Counter(what.split(" is ")[0].split(" of ")[0] for outcome in outcomes for what in outcome.unsaid)
    print(
        "neither right, nor null, nor named as not told, in documents that do not call themselves complete or for "
        "want of what has no number:"
    )
    print("  " + (", ".join(f"{name} {many:,}" for name, many in unsaid.most_common()) or "nothing"))


def _main(words: Sequence[str]) -> int:
    from app.healing import wanted

    if words[:1] == ["--seed"]:
        outcome = play(int(words[1]), wanted)
        _told(outcome)
        return bool(outcome.wrong)
    many, first = [*map(int, words), 2000, 0][:2] if len(words) < 2 else map(int, words[:2])
    began = perf_counter()
    outcomes: list[Outcome] = []
    sick = 0
    for seed in range(first, first + many):
        try:
            outcomes += heal(range(seed, seed + 1), wanted)
        except Sick as error:
            sick += 1
            if sick <= 10:
                traceback.print_exception(error, limit=-3)
    _table(outcomes)
    seconds = perf_counter() - began
    print(f"{many:,} conferences, {sick:,} not healed, {seconds:.1f} s, {many / seconds:.0f} a second")
    return bool(sick)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
