"""Conferences made to measure: as many people, events and conferences as a question needs.

`python -m bench.rooms URL DATABASE MANY SHARE OF` makes a share of many small ones in a database: those of its shards.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence

from bench import machine
from bench.load import ACCOUNT, Parameters
from bench.store import SHARDS, Store

PEOPLE = 3
"""In each conference of a crowd."""
NAMES = 10
"""Different names of conferences, and labels of whoever is first in one."""
BEGINNING = 1_795_000_000
"""When the first conference began, in seconds since 1970. Ten begin in each second."""
AT_ONCE = 2_000
"""Conferences that are folded together."""
ACTS = ("participant-mute", "participant-unmute", "participant-speech-start", "participant-speech-stop")


class Room:
    """One conference, told a callback at a time, each with the parameters that Twilio sends with it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sid = f"CF{number:032x}"
        self.sequence = 0
        self._acts: Counter[int] = Counter()
        self._progress: Counter[int] = Counter()

    def join(self, who: int) -> Parameters:
        """This one comes in."""
        return self._told("participant-join", **self._person(who))

    def leave(self, who: int) -> Parameters:
        """This one hangs up."""
        how = {"ParticipantCallStatus": "completed", "ReasonParticipantLeft": "participant_hung_up"}
        return self._told("participant-leave", **self._person(who), **how)

    def act(self, who: int) -> Parameters:
        """What this one does next: mutes itself, unmutes, speaks, falls silent, and so on."""
        act = ACTS[self._acts[who] % len(ACTS)]
        self._acts[who] += 1
        return self._told(act, **self._person(who, muted=act == "participant-mute"))

    def speak(self, who: int) -> Parameters:
        """This one begins to speak or, if it did the last time, stops."""
        act = ACTS[2 + self._acts[who] % 2]
        self._acts[who] += 1
        return self._told(act, **self._person(who))

    def end(self) -> Parameters:
        """The conference is ended by an API request; who is there leaves."""
        return self._told("conference-end", ReasonConferenceEnded="conference-ended-via-api")

    def progress(self, who: int) -> Parameters:
        """A call-progress callback of this one's call: it names no conference."""
        number = self._progress[who]
        self._progress[who] += 1
        return {
            "AccountSid": ACCOUNT,
            "CallSid": self.call_sid(who),
            "CallStatus": ("initiated", "ringing", "in-progress")[min(number, 2)],
            "From": "+12065550100",
            "To": "+12065550101",
            "Direction": "outbound-api",
            "Timestamp": _clock(BEGINNING + self.number // 10 + number),
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(number),
        }

    def call_sid(self, who: int) -> str:
        """This one's call."""
        return f"CA{self.number:016x}{who:016x}"

    def _person(self, who: int, *, muted: bool = False) -> Parameters:
        return {
            "CallSid": self.call_sid(who),
            "ParticipantLabel": f"guest {who}" if who else f"agent {self.number % NAMES}",
            "Muted": "true" if muted else "false",
            "Hold": "false",
            "Coaching": "false",
            "EndConferenceOnExit": "false",
            "StartConferenceOnEnter": "true",
        }

    def _told(self, event: str, **more: str) -> Parameters:
        self.sequence += 1
        return {
            "AccountSid": ACCOUNT,
            "ConferenceSid": self.sid,
            "FriendlyName": f"Room {self.number % NAMES}",
            "SequenceNumber": str(self.sequence),
            "Timestamp": _clock(BEGINNING + self.number // 10 + self.sequence),
            "StatusCallbackEvent": event,
            **more,
        }


def _clock(seconds: int) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(seconds))


def opened(number: int, people: int = PEOPLE) -> tuple[Room, list[Parameters]]:
    """A conference that so many have joined, and what was told of it. A crowd has them numbered from 0."""
    room = Room(number)
    return room, [room.join(who) for who in range(people)]


def fill(url: str, sizes: Sequence[int]) -> None:
    """So many live conferences in the databases 0, 1, and so on. All cores work at it, each at shards of its own."""
    cores = sorted(machine.EVERY)
    for database, size in enumerate(sizes):
        shares = {core: (database, size, share, len(cores)) for share, core in enumerate(cores)}
        machine.together(
            {core: [*machine.PYTHON, "bench.rooms", url, *map(str, share)] for core, share in shares.items()}
        )
        Store(url, database).fold()  # what they have sent on to each other's shards


def _fill(url: str, database: int, many: int, share: int, of: int) -> None:
    store = Store(url, database)
    shards = range(share, SHARDS, of)
    numbers = [number for number in range(many) if store.inbox.shard_of(Room(number).sid) in shards]
    for first in range(0, len(numbers), AT_ONCE):
        some = numbers[first : first + AT_ONCE]
        store.fold((told for number in some for told in opened(number)[1]), shards)


if __name__ == "__main__":
    _fill(sys.argv[1], *map(int, sys.argv[2:]))
