"""A clock that only the test moves, and on it what a worker and its store do for one conference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import NamedTuple

from msgspec.structs import replace

from app import fold
from app.conference import Conference, Header, Reason, Want
from app.events import Callback, Event
from app.replay import Track, by_call
from app.simulator.exchange import Exchange, Refusal
from app.twilio.callbacks import read
from app.twilio.snapshot import Record, encode_record
from tests.cast import ACCOUNT, NOON

Told = Mapping[str, str]
Wanted = Callable[[Header | None, Header, datetime], Want | None]
"""`app.healing.wanted`."""

MOST_LOOKS = 60
"""A conference that wants more than that is in a loop."""


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
    """One look at Twilio's REST API that a document has wanted."""

    want: Want
    at: datetime
    """By our clock."""
    heard_at: datetime | None


class Watch:
    """A worker and its store for one conference: folds what arrives and looks when that is wanted."""

    def __init__(
        self,
        world: World,
        exchange: Exchange,
        sid: str,
        wanted: Wanted,
        rng: Random,
        looked: Callable[[str, datetime], None],
        *,
        skew: float,
        lag: float,
    ) -> None:
        """`looked` is called when a look has been folded, with its reason, and when it was begun by Twilio's clock.

        `skew` is how many seconds our clock is ahead of that, `lag` after how many what has arrived is folded, together
        with what has come meanwhile.
        """
        self.sid = sid
        self.conference: Conference | None = None
        self.log: dict[str, Event] = {}
        self.looks: list[Look] = []
        self._world = world
        self._exchange = exchange
        self._wanted = wanted
        self._rng = rng
        self._skew = timedelta(seconds=skew)
        self._looked = looked
        self._lag = lag
        self._mail: list[tuple[Event, datetime]] = []
        self._begun: dict[str, datetime] = {}
        self._tracks: dict[str, Track] = {}
        self._unfiled: dict[str, list[Event]] = {}
        self._looking = False

    @property
    def now(self) -> datetime:
        """By our clock."""
        return self._world.now + self._skew

    def take(self, event: Event) -> None:
        """Have what has arrived folded."""
        self._mail.append((event, self.now))
        if len(self._mail) == 1 and self._lag:
            self._world.later(self._lag, self._drain)
        elif not self._lag:
            self._drain()

    def _drain(self) -> None:
        mail, self._mail = self._mail, []
        self._fold(mail)
        for event, _ in mail:
            if event.id in self._begun:
                self._looking = False
                self._looked(str(event.snapshot and event.snapshot.reason), self._begun.pop(event.id))
        self._await_due()

    def _fold(self, mail: Sequence[tuple[Event, datetime]]) -> None:
        """As a worker would: what names only a call waits until its conference is known."""
        fresh: dict[str, tuple[Event, datetime]] = {}
        known = self.conference.participants if self.conference else {}
        for event, received in mail:
            if event.conference_sid is None and event.call_sid not in known:
                self._unfiled.setdefault(str(event.call_sid), []).append(event)
            elif event.id not in self.log:
                fresh.setdefault(event.id, (replace(event, conference_sid=self.sid), received))
        if not fresh:
            return
        events = [event for event, _ in fresh.values()]
        after = self._advanced(events)
        self.log |= {event.id: event for event in events}
        if after is None:
            after = fold.fold(self.log.values())
            self._tracks.clear()
        self._commit(after, list(fresh.values()))
        heard_of = [call for call in after.participants if call not in known and call in self._unfiled]
        self._fold([(waiting, self.now) for call in heard_of for waiting in self._unfiled.pop(call)])

    def _advanced(self, events: Sequence[Event]) -> Conference | None:
        if self.conference is None:
            return None
        after = fold.advance(self.conference, events, self._tracks)
        if isinstance(after, fold.Missing):
            legs = by_call(self.log.values())
            histories = {sid: legs.get(sid, []) for sid in after.histories}
            after = fold.advance(self.conference, events, self._tracks, histories)
            assert not isinstance(after, fold.Missing), "no more can be known than the whole history"
        if after is None:
            return None
        self._tracks |= after.tracks
        return after.conference

    def _commit(self, after: Conference, news: Sequence[tuple[Event, datetime]]) -> None:
        was = self.conference.header if self.conference else None
        heard = [received for event, received in news if event.snapshot is None]
        asked = [received for event, received in news if event.snapshot is not None]
        if was is not None:
            heard += [was.heard_at] if was.heard_at else []
            asked += [was.asked_at] if was.asked_at else []
        header = replace(after.header, heard_at=max(heard, default=None), asked_at=max(asked, default=None))
        header = replace(header, want=self._wanted(was, header, self.now))
        self.conference = Conference(header, after.participants)

    def _await_due(self) -> None:
        want = self.conference and self.conference.header.want
        if want and not self._looking:
            self._world.at(want.due_at - self._skew, self._look_if_due)

    def look(self, reason: Reason) -> None:
        """Look now, for a reason that is not in the document. One that is not known is known from then on."""
        if self.conference is None:
            self._world.later(0.0, self._adopt)
        elif not self._looking and self.conference.header.status != "completed":
            self._fetch_conference(self.conference.header, reason)

    def _adopt(self) -> None:
        """Take it from a list of conferences, which does not show participants, and look once that is folded."""
        conference = self._exchange.fetch_conference(self.sid)
        if self.conference is None and conference["status"] == "in-progress":
            seen_at = self._world.now.replace(microsecond=0)
            record = Record(
                account_sid=ACCOUNT,
                conference_sid=self.sid,
                taken_at=seen_at,
                reason="adopted",
                by="offhook",
                conference=conference,
            )
            self.take(self._event(record))
            self._world.later(self._lag, lambda: self.look("adopted"))

    def _look_if_due(self) -> None:
        assert self.conference is not None
        header = self.conference.header
        if self._looking or header.want is None or header.want.due_at > self.now or header.status == "completed":
            return
        assert len(self.looks) < MOST_LOOKS, f"{MOST_LOOKS} looks, and one more as {header.want.reason}"
        self.looks.append(Look(header.want, self.now, header.heard_at))
        self._fetch_conference(header, header.want.reason)

    def _fetch_conference(self, header: Header, reason: Reason) -> None:
        """The conference first and, if it goes on, its participants; each is read some time after it is asked for."""
        self._looking = True
        sequences = header.coverage.sequences
        known = Record(
            account_sid=ACCOUNT,
            conference_sid=self.sid,
            taken_at=NOON,
            reason=reason,
            by="offhook",
            after=sequences[-1][1] if sequences else 0,
            missing=header.coverage.lacks,
        )
        begun = self._world.now

        def conference_read(took: float) -> None:
            try:
                conference = self._exchange.fetch_conference(self.sid)
            except Refusal:
                conference = None
            seen = replace(known, conference=conference)
            if conference is None or conference["status"] == "completed":
                self._see(seen, begun, took)
            else:
                self._request(lambda took: participants_read(seen, took))

        def participants_read(seen: Record, took: float) -> None:
            listed = [each for _, each in self._exchange.list_participants(self.sid, {}) if each is not None]
            self._see(replace(seen, participants=listed), begun, took)

        self._request(conference_read)

    def _request(self, what: Callable[[float], None]) -> None:
        """Have Twilio do this; it is told how long the whole request will take."""
        took = self._rng.choice((0.05, 0.4, 2.9))
        self._world.later(took * self._rng.random(), lambda: what(took))

    def _see(self, seen: Record, begun: datetime, took: float) -> None:
        """Fold, some time later, what has just been read; Twilio dates answers in whole seconds."""
        dated = self._world.now.replace(microsecond=0)
        seen = replace(seen, taken_at=dated - timedelta(seconds=int(took) + 1))

        event = self._event(seen)
        self._begun[event.id] = begun
        self._world.later(took + self._rng.choice((0.0, 0.2, 5.0)), lambda: self.take(event))

    def _event(self, seen: Record) -> Event:
        return read(Callback(body=encode_record(seen), media="snapshot", received_at=0, key="offhook"))
