"""What the telephone exchange keeps: conferences, their legs and recordings, and how Twilio's REST API shows them.

No I/O and no clock. The shapes are those of Twilio's OpenAPI description, version 2010-04-01.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Any

FLAGS = ("Muted", "Hold", "Coaching", "EndConferenceOnExit", "StartConferenceOnEnter")
"""A participant's flags, as callbacks and write parameters call them."""

TOKENS = {
    "start": ("conference-start",),
    "end": ("conference-end",),
    "join": ("participant-join",),
    "leave": ("participant-leave",),
    "mute": ("participant-mute", "participant-unmute"),
    "hold": ("participant-hold", "participant-unhold"),
    "modify": ("participant-modify",),
    "speaker": ("participant-speech-start", "participant-speech-stop"),
    "announcement": ("announcement-end", "announcement-fail"),
}
"""What can be subscribed to, and the events that it brings (Twilio docs, TwiML Conference)."""


def spell(flag: bool) -> str:
    """A flag as callbacks spell it."""
    return "true" if flag else "false"


def stamp(moment: datetime) -> str:
    """RFC 2822 in whole seconds with a two-digit day, which Twilio's own clients insist on."""
    return format_datetime(moment.replace(microsecond=0))


@dataclass(frozen=True, slots=True, repr=False)
class Subscription:
    """Where callbacks go and which. `url` None is the simulator's own webhook; `events` None is all of them."""

    url: str | None = None
    events: frozenset[str] | None = None

    def wants(self, event: str) -> bool:
        """Whether this event is to be told."""
        return self.events is None or event in self.events


@dataclass(slots=True, repr=False)
class Call:
    """A dialled call: who hears of its progress, and what the next such callback builds on."""

    subscription: Subscription
    parameters: dict[str, str]
    """All that stays the same from one progress callback to the next: From, To, Direction, …"""
    number: int = 0
    answered: datetime | None = None
    ended: bool = False


@dataclass(slots=True, repr=False)
class Leg:
    """One call's stay in a conference. `told` is what its story believes of the flags; empty without a story."""

    call_sid: str
    label: str | None
    flags: dict[str, bool]
    created: datetime
    updated: datetime
    status: str = "connected"
    joined: bool = True
    coaches: str | None = None
    speaking: bool = False
    told: dict[str, bool] = field(default_factory=dict)

    @property
    def present(self) -> bool:
        """Whether it is in the conference or on its way there."""
        return self.status != "complete"

    def snapshot(self) -> dict[str, str]:
        """The participant block of a callback."""
        label = {} if self.label is None else {"ParticipantLabel": self.label}
        return {"CallSid": self.call_sid, **label, **{name: spell(self.flags[name]) for name in FLAGS}}


@dataclass(slots=True, repr=False)
class Recording:
    """A conference's recording. `duration` is in seconds, None until it is completed."""

    sid: str
    subscription: Subscription
    started: datetime
    updated: datetime
    status: str = "in-progress"
    duration: int | None = None

    @property
    def running(self) -> bool:
        """Whether it can still be paused, resumed or stopped."""
        return self.status in ("in-progress", "paused")


@dataclass(slots=True, repr=False)
class Conference:
    """A conference with everyone who is or was in it, in the order in which they came."""

    sid: str
    account_sid: str
    friendly_name: str
    created: datetime
    updated: datetime
    subscription: Subscription
    status: str = "init"
    reason_ended: str | None = None
    ended_by: str | None = None
    started: bool = False
    sequence: int = 0
    legs: dict[str, Leg] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    recordings: dict[str, Recording] = field(default_factory=dict)
    record: Subscription | None = None
    """Whom to tell of the recording that begins when the conference starts."""
    removed: set[str] = field(default_factory=set)
    """Sids of calls and recordings that REST has done away with: their story goes on without them."""
    altered: bool = False
    """REST has changed who is there or what a leave means: its story no longer knows how it ends."""
    cut_short: bool = False
    """It was ended here and not by its story."""

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.status != "completed"

    def present(self) -> list[Leg]:
        """Those who are there or being dialled; nobody once it has ended."""
        return [leg for leg in self.legs.values() if leg.present] if self.live else []

    def connected(self) -> list[Leg]:
        """Those who are there."""
        return [leg for leg in self.present() if leg.status == "connected"]


def conference_resource(conference: Conference) -> dict[str, Any]:
    """Twilio's Conference object."""
    uri = _uri(conference)
    return {
        "account_sid": conference.account_sid,
        "api_version": "2010-04-01",
        "call_sid_ending_conference": conference.ended_by,
        "date_created": stamp(conference.created),
        "date_updated": stamp(conference.updated),
        "friendly_name": conference.friendly_name,
        "reason_conference_ended": conference.reason_ended,
        "region": "us1",
        "sid": conference.sid,
        "status": conference.status,
        "subresource_uris": {part: f"{uri}/{part.title()}.json" for part in ("participants", "recordings")},
        "uri": f"{uri}.json",
    }


def participant_resource(conference: Conference, leg: Leg, *, queue_time: str | None = None) -> dict[str, Any]:
    """Twilio's Participant object; only the answer to its creation has a `queue_time`, in milliseconds."""
    return {
        "account_sid": conference.account_sid,
        "call_sid": leg.call_sid,
        "call_sid_to_coach": leg.coaches,
        "coaching": leg.flags["Coaching"],
        "conference_sid": conference.sid,
        "date_created": stamp(leg.created),
        "date_updated": stamp(leg.updated),
        "end_conference_on_exit": leg.flags["EndConferenceOnExit"],
        "hold": leg.flags["Hold"],
        "label": leg.label,
        "muted": leg.flags["Muted"],
        "queue_time": queue_time,
        "start_conference_on_enter": leg.flags["StartConferenceOnEnter"],
        "status": leg.status,
        "uri": f"{_uri(conference)}/Participants/{leg.call_sid}.json",
    }


def recording_resource(conference: Conference, recording: Recording) -> dict[str, Any]:
    """Twilio's conference Recording object; what it cost is known once it is completed."""
    completed = recording.status == "completed"
    return {
        "account_sid": conference.account_sid,
        "api_version": "2010-04-01",
        "call_sid": None,
        "channels": 1,
        "conference_sid": conference.sid,
        "date_created": stamp(recording.started),
        "date_updated": stamp(recording.updated),
        "duration": None if recording.duration is None else str(recording.duration),
        "encryption_details": None,
        "error_code": None,
        "price": "-0.0025" if completed else None,
        "price_unit": "USD" if completed else None,
        "sid": recording.sid,
        "source": "Conference",
        "start_time": stamp(recording.started),
        "status": recording.status,
        "uri": f"{_uri(conference)}/Recordings/{recording.sid}.json",
    }


def subscription(url: str | None, tokens: str, default: str) -> Subscription:
    """To the conference events that these space-separated tokens bring; without a URL to none."""
    asked = (tokens or default).split() if url else []
    return Subscription(url, frozenset(event for token in asked for event in TOKENS.get(token, ())))


def any_starts(legs: Iterable[Leg]) -> bool:
    """Whether these are enough for a conference to start: two, one of whom may start it."""
    legs = list(legs)
    return len(legs) > 1 and any(leg.flags["StartConferenceOnEnter"] for leg in legs)


def _uri(conference: Conference) -> str:
    return f"/2010-04-01/Accounts/{conference.account_sid}/Conferences/{conference.sid}"
