"""One conference from its first callback until nothing is wanted any more; and many of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from random import Random
from typing import NamedTuple
from urllib.parse import quote_plus

from app.events import Callback, Event
from app.simulator.exchange import Exchange, Refusal
from app.simulator.faults import Line
from app.simulator.stories import story
from app.twilio.callbacks import read
from tests.cast import ACCOUNT, NOON
from tests.healing.verdict import document, findings
from tests.healing.watch import Look, Told, Wanted, Watch, World
from tests.healing.weather import WEATHERS
from tests.truth import truth, untrue

PATIENCE = timedelta(hours=26)
"""After the end of a story, until nothing is wanted any more."""


class Outcome(NamedTuple):
    """What became of a conference."""

    weather: str
    ended: bool
    """Whether it was over in the end, and not broken off."""
    looks: list[Look]
    wrong: list[str]
    """What should not be so."""
    unsaid: list[str]
    """Fields of a document that is not complete which are neither right, nor null, nor named as not told."""
    settled: int
    """Looks during which, and since whose beginning, nothing happened, and before which nothing was still to come."""
    stale: list[str]
    """What a document then did not know all the same."""
    callbacks: int
    arrived: int
    log: list[Event]


def play(seed: int, wanted: Wanted) -> Outcome:
    """Make a conference up, let its callbacks fare as they do, heal it, and look what is wrong in the end."""
    rng = Random(seed)
    name = rng.choice(list(WEATHERS))
    told = story(rng, ACCOUNT, NOON, minutes=rng.uniform(0.05, 0.4), speed=rng.choice((1, 0.25, 0.04)))
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
    arrived: list[Event] = []
    latest, under_way, settled = world.now, 0, 0
    stale: list[str] = []

    def send(url: str | None, parameters: Told) -> None:
        nonlocal latest
        latest, event = world.now, _event(parameters)
        sent.append(event)
        if not weather.lost(len(sent) - 1, parameters):
            line.send(url, Letter(parameters, event))

    def receive(_: str | None, letter: Told) -> None:
        assert isinstance(letter, Letter)
        arrived.append(letter.event)
        watch.take(letter.event)

    def later(seconds: float, what: Callable[[], None]) -> None:
        nonlocal under_way
        under_way += 1

        def now() -> None:
            nonlocal under_way
            under_way -= 1
            what()

        world.later(seconds, now)

    def looked(reason: str, begun: datetime) -> None:
        nonlocal settled
        if watch.conference is not None and latest < begun and not under_way:
            settled += 1
            wrong_now = untrue(document(watch.conference), truth(exchange, sid))
            stale.extend(f"looked for {reason}: {what}" for what in wrong_now)

    line = Line(weather.faults, seed, receive, later)
    exchange = Exchange(ACCOUNT, send, world.later, clock=lambda: world.now, random_bits=rng.getrandbits)
    skew, lag = rng.choice((0, 0, 2.5, -2.5)), rng.choice((0, 0, 0, 1, 3 if weather.harmless else 15))
    watch = Watch(world, exchange, sid, wanted, Random(seed), looked, skew=skew, lag=lag)
    for one in told:
        world.at(NOON + timedelta(seconds=one.at), lambda one=one: exchange.play(sid, one.parameters))  # type: ignore[misc]
    if rng.random() < 0.25:
        for _ in range(rng.randint(1, 4)):
            moment = NOON + timedelta(seconds=rng.uniform(0, told[-1].at))
            world.at(moment, lambda: _meddle(rng, exchange, sid))
    if rng.random() < 0.25:
        moment = NOON + timedelta(seconds=rng.uniform(0, told[-1].at))
        world.at(moment, lambda: watch.look("outage"))
    world.run(NOON + timedelta(seconds=told[-1].at) + PATIENCE)

    wrong: list[str] = []
    unsaid: list[str] = []
    if watch.conference is not None:
        found = list(findings(watch, exchange, weather, sent))
        wrong = [what for what, is_wrong in found if is_wrong]
        unsaid = [what for what, is_wrong in found if not is_wrong]
    log = [*watch.log.values()]
    ended = exchange.fetch_conference(sid)["status"] == "completed"
    return Outcome(name, ended, watch.looks, wrong, unsaid, settled, stale, len(sent), len(arrived), log)


class Letter(dict[str, str]):
    """A callback on its way, with what it tells: to read it once is enough."""

    def __init__(self, parameters: Told, event: Event) -> None:
        super().__init__(parameters)
        self.event = event


_quoted = lru_cache(4096)(quote_plus)


def _event(parameters: Told) -> Event:
    body = "&".join([f"{name}={_quoted(value)}" for name, value in parameters.items()])  # as urlencode, but faster
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


class Sick(AssertionError):
    """A seed that did not heal."""


def heal(seeds: Iterable[int], wanted: Wanted) -> list[Outcome]:
    """Play all of these. Raises `Sick` at the first that is not as it should be, which says how to play it again."""
    outcomes = []
    for seed in seeds:
        again = f"again with: python -m tests.healing --seed {seed}"
        try:
            outcome = play(seed, wanted)
        except Exception as error:
            raise Sick(f"seed {seed} raises; {again}") from error
        if outcome.wrong:
            what = "\n  ".join(outcome.wrong[:20])
            raise Sick(f"seed {seed} ({outcome.weather}) is not healed:\n  {what}\n{again}")
        outcomes.append(outcome)
    return outcomes
