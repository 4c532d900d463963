"""What can happen to a conference: the callback as it came, and the typed event it tells of.

Knows no clock, store, HTTP or settings. Values in, values out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

Media = Literal["form", "json", "control", "snapshot", "alert"]
"""What a body is: parameters of Twilio's, JSON of Twilio's, or a record of our own: of a control request, of what
Twilio's REST API has shown, of an alert."""


class Callback(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A verified request of Twilio's, as it came, or a record of our own. Nothing in it is interpreted."""

    body: bytes
    """Its parameters as sent: the body of a POST, the query of a GET."""
    media: Media = "form"
    received_at: int
    """Milliseconds since 1970, by the clock of whoever answered the request."""
    key: str
    """Name of the key that verified it, or of who asked for a control request."""
    token: str = ""
    """I-Twilio-Idempotency-Token: the same on each attempt, and not signed (Twilio docs, Connection Overrides)."""
    query: str = ""
    """A POST's own query: what the owner of the URL wrote into it."""
    conference_sid: str | None = None
    """The conference it was filed under by its call, where it names none itself."""


Source = Literal["conference", "call", "recording", "control", "snapshot", "alert"]
"""Which of Twilio's callbacks told us; or that it is about a control request that passed through us, a look at
Twilio's REST API, or an alert.

Only `conference` events carry a conference-wide sequence number.
"""


class Leg(msgspec.Struct, frozen=True):
    """One call's standing in a conference as an event shows it; None is what the event did not say."""

    label: str | None = None
    muted: bool | None = None
    hold: bool | None = None
    coaching: bool | None = None
    start_conference_on_enter: bool | None = None
    end_conference_on_exit: bool | None = None
    call_status: str | None = None
    reason_left: str | None = None


class Call(msgspec.Struct, frozen=True):
    """What call progress tells about a call."""

    status: str | None = None
    from_: str | None = None
    to: str | None = None
    direction: str | None = None
    answered_by: str | None = None
    sip_response_code: str | None = None
    duration: int | None = None
    """Seconds, told when the call has ended."""


class Ending(msgspec.Struct, frozen=True):
    """Why a conference ended."""

    reason: str | None = None
    call_sid: str | None = None
    label: str | None = None
    text: str | None = None


DELETED = "deleted"
"""Status of a recording that Twilio has accepted to delete; no callback tells of it."""


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """A recording as far as its callbacks have told. `status` is Twilio's word; `duration` is in seconds."""

    sid: str
    status: str
    call_sid: str | None = None
    url: str | None = None
    duration: int | None = None
    channels: int | None = None
    source: str | None = None
    start_time: datetime | None = None
    error_code: int | None = None


Verb = Literal[
    "update-conference",
    "add-participant",
    "update-participant",
    "remove-participant",
    "update-recording",
    "delete-recording",
]
ActionState = Literal["requested", "accepted", "confirmed", "ignored", "failed"]


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """A control request that passed through us to Twilio, as far as it has got."""

    id: str
    verb: Verb
    state: ActionState = "requested"
    """Follows from the rest: confirmed once callbacks have told all it awaits, ignored if they have not in time."""
    by: str
    """Name of the API key, or the account, that asked for it."""
    call_sid: str | None = None
    recording_sid: str | None = None
    requested_at: datetime
    expires_at: datetime
    """Until when callbacks may confirm it."""
    after: int = 0
    """The highest sequence number heard of the conference when it was requested."""
    awaits: tuple[str, ...] = ()
    """What callbacks are to tell: a type of event, perhaps with the URL it speaks of, or `flag=value` of the call."""
    told: tuple[str, ...] = ()
    """What of that they have told."""
    refused: bool = False
    """A callback has told that it did not work out."""
    expired: bool = False
    answered_at: datetime | None = None
    status: int | None = None
    """HTTP status of Twilio's answer; None while there is none."""
    code: int | None = None
    """Twilio's error code, if it gave one."""
    error: Literal["not sent", "no answer"] | None = None
    """Twilio could not be reached; or it was, and whether it has done it is not known."""
    request_id: str | None = None
    """Twilio-Request-Id of the answer."""

    @property
    def finished(self) -> bool:
        """Whether nothing more is awaited of it."""
        return self.state in ("confirmed", "ignored", "failed") or (self.state == "accepted" and not self.awaits)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the resource that Twilio answered a control request with tells, and callbacks never do."""

    created_at: datetime | None = None
    """Of the participant, where the answer names a call, else of the conference."""
    updated_at: datetime | None = None
    region: str | None = None
    label: str | None = None
    queue_time: int | None = None
    """Milliseconds that the call is expected to wait to be dialled, told when it is created."""
    call_sid_to_coach: str | None = None
    dialled: bool = False
    """Whether the call was made by this request; else it was there already."""


ParticipantStatus = Literal["queued", "connecting", "ringing", "connected", "complete", "failed"]
Status = Literal["init", "in-progress", "completed"]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A participant as Twilio's REST API listed it. None is what the resource did not say."""

    call_sid: str
    status: ParticipantStatus | None = None
    label: str | None = None
    muted: bool | None = None
    hold: bool | None = None
    coaching: bool | None = None
    call_sid_to_coach: str | None = None
    start_conference_on_enter: bool | None = None
    end_conference_on_exit: bool | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A conference as Twilio's REST API showed it."""

    taken_at: datetime
    """A moment on Twilio's clock at or before which it was surely not yet read: whatever happened before is in it."""
    after: int = 0
    """The highest sequence number heard before it was asked for: all events up to that one are in it."""
    missing: bool = False
    """Whether it was asked for because events are known, or suspected, to have been lost."""
    reason: str = "operator"
    """Why it was asked for, see `app.healing`."""
    status: Status | None = None
    """None: Twilio knows no such conference (any more)."""
    region: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    reason_conference_ended: str | None = None
    call_sid_ending_conference: str | None = None
    participants: tuple[Seen, ...] | None = None
    """Everyone who is there or on the way; None: not asked for."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something about a conference that somebody should look at, for as long as it lasts."""

    rule: str
    """Name of the rule in config/alerts.toml."""
    kind: str
    """What the rule looks at, such as `alone` or `hold`."""
    severity: Literal["info", "warning", "critical"] = "warning"
    subject: str = ""
    """The call, action or recording it is about; empty: the conference."""
    since: datetime
    """Since when it has been so."""
    at: datetime
    """When it was raised, or cleared; by our clock."""
    cleared: bool = False
    text: str = ""
    """One sentence for people. Holds no names, labels or numbers."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. Two callbacks that say the same have the same `id`."""

    id: str
    """Digest of everything the callback said; receive-side facts are not in it."""
    source: Source
    type: str
    """Twilio's word, such as participant-mute; unknown words are kept as they came."""
    account_sid: str
    conference_sid: str | None = None
    """None on a callback that names only a call; whoever files it knows the conference."""
    call_sid: str | None = None
    sequence: int | None = None
    at: datetime | None = None
    """When it happened, as Twilio says; UTC."""
    friendly_name: str | None = None
    leg: Leg | None = None
    call: Call | None = None
    ending: Ending | None = None
    recording: Recording | None = None
    announcement: str | None = None
    """URL of the announcement that has ended or failed."""
    action: Action | None = None
    answer: Answer | None = None
    snapshot: Snapshot | None = None
    alert: Alert | None = None
