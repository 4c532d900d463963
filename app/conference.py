"""What is true now: a conference, the participants it has had, and the one JSON document every reader shares.

Knows no clock, store, HTTP or settings. Times are UTC and ISO 8601, durations are seconds, values are Twilio's words.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec

from app.events import Action, Alert, ParticipantStatus, Recording, Status

Word = Literal["inferred", "reconciled", "partial"]
"""How we come to know a fact that no callback has told: it follows from others; Twilio's REST API has shown it; or
(of durations, and of stays) something of it is known to be missing."""
Interval = tuple[int, int]
"""First and last number, both included."""


class Stay(msgspec.Struct, frozen=True, kw_only=True):
    """One presence of a call in the conference; a call can leave and come back."""

    joined_at: datetime | None = None
    """None: the join was never told."""
    left_at: datetime | None = None
    """None: still here."""
    reason_left: str | None = None
    call_status: str | None = None
    inferred: bool = False
    """The leave was not told: a later join, the call's end or the conference's end showed it."""
    reconciled: bool = False
    """Its begin, or its end, was not told but shown by Twilio's REST API. `left_at` is then when that was."""


class Participant(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One call in the conference, from the first that was heard of it. None is what nobody has told us."""

    call_sid: str
    label: str | None = None
    status: ParticipantStatus = "queued"
    call_status: str | None = None
    muted: bool | None = None
    hold: bool | None = None
    coaching: bool | None = None
    call_sid_to_coach: str | None = None
    """Whom it coaches, as far as control requests that passed through us have told; callbacks never do."""
    speaking: bool | None = None
    """None until speech has been reported for this call: no news is not silence."""
    start_conference_on_enter: bool | None = None
    end_conference_on_exit: bool | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    joined_at: datetime | None = None
    left_at: datetime | None = None
    reason_left: str | None = None
    stays: tuple[Stay, ...] = ()
    talk_seconds: float | None = None
    hold_seconds: float = 0.0
    muted_seconds: float = 0.0
    speaking_since: datetime | None = None
    """Start of an interval that is still open, and so not yet in its total."""
    hold_since: datetime | None = None
    muted_since: datetime | None = None
    from_: str | None = None
    to: str | None = None
    direction: str | None = None
    answered_by: str | None = None
    sip_response_code: str | None = None
    call_duration: int | None = None
    queue_time: int | None = None
    """Milliseconds it was expected to wait to be dialled, as the answer to its creation told."""
    call_ended_at: datetime | None = None
    """When the call itself ended, as call progress tells; nobody stays in a conference beyond that."""
    last_sequence: int | None = None
    """The newest conference event folded in; None when one of them carried no number."""
    events: int = 0
    """How many conference events were about this call."""
    coach_told: tuple[datetime, str] | None = None
    """The latest word on whom it coaches, with its time."""
    not_coaching_at: datetime | None = None
    """The latest time at which it was told not to coach: words from before it no longer hold."""
    gone_at: datetime | None = None
    """When Twilio's REST API did not list it any more, and nothing has been heard of it since."""
    facts: dict[str, Word] = {}
    """Fields that no callback has told, by how they are known. Those that are not here, and not null, were told."""

    @property
    def present(self) -> bool:
        """Whether the call is in the conference now."""
        return bool(self.stays) and self.stays[-1].left_at is None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Always counted from the participants. All but the first speak of those present."""

    participants: int = 0
    present: int = 0
    muted: int = 0
    hold: int = 0
    coaching: int = 0
    speaking: int = 0


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How complete the picture is."""

    events: tuple[str, ...] = ()
    """Kinds of events observed. A kind that is not here was not told, which is not the same as not having happened."""
    sequences: tuple[Interval, ...] = ()
    """Sequence numbers heard: the highest `SHOWN` intervals of them."""
    holes: tuple[Interval, ...] = ()
    """Numbers not heard between those. Numbering starts at 1, or at 0 where a 0 was heard."""
    missing: int = 0
    """How many numbers below the highest one were not heard, shown or not."""
    conflicts: tuple[int, ...] = ()
    """Numbers under which different callbacks came: the highest `SHOWN` of them."""
    from_start: bool | None = None
    """Whether it was seen from its first event; None: no event carried a number."""
    untold: int = 0
    """Of how many participants a join, or the last leave, was not told."""
    complete: bool = False
    """Whether it has ended and every event of it was heard. Of one that goes on nobody can know."""
    snapshots: int = 0
    """How often Twilio's REST API has been looked at for it."""
    fruitless: int = 0
    """How many of those, up to the latest, in a row showed nothing that was not known."""
    snapshot_at: datetime | None = None
    """When the latest of those was taken, by Twilio's clock."""
    snapshot_sequence: int = 0
    """Up to which number one that has shown the participants has seen everything."""
    doubted: bool = False
    """Whether the latest look, had because something was lost, was not believed in something: a call had just told
    otherwise of itself. Twilio's REST API may lag, or that was lost too; another look will tell."""
    facts: dict[str, Word] = {}
    """Fields of the header that no callback has told, by how they are known."""

    @property
    def shown_from(self) -> int:
        """The number from which on `sequences` tells everything."""
        return self.sequences[0][0] if len(self.sequences) >= SHOWN else 0

    @property
    def lacks(self) -> bool:
        """Whether numbers are missing that no look at Twilio's REST API has made up for."""
        return bool(self.holes) and (self.snapshot_at is None or self.holes[-1][1] > self.snapshot_sequence)

    def heard(self, sequence: int) -> bool:
        """Whether this number may have come before; surely only from `shown_from` on."""
        if sequence < self.shown_from:
            return True
        return any(first <= sequence <= last for first, last in reversed(self.sequences))


SHOWN = 50
"""Of a conference with very many holes only so much is carried in its header."""


ACTIONS_SHOWN = 20
"""How many finished actions a header carries; the log has them all."""


Reason = Literal["hole", "midway", "doubted", "silent", "empty", "outage", "control", "adopted", "operator"]
"""Why Twilio's REST API is to be looked at, see `healing.py`."""


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """That Twilio's REST API is to be looked at, unless the reason goes away before that."""

    reason: Reason
    since: datetime
    due_at: datetime


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a conference but its participants."""

    sid: str
    account_sid: str
    friendly_name: str | None = None
    status: Status = "init"
    created_at: datetime | None = None
    updated_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason_conference_ended: str | None = None
    call_sid_ending_conference: str | None = None
    participant_label_ending_conference: str | None = None
    reason: str | None = None
    """Twilio's sentence on why it ended."""
    region: str | None = None
    """Where it is mixed, as far as the answer to a control request has told; callbacks never do."""
    counts: Counts = Counts()
    recordings: tuple[Recording, ...] = ()
    actions: tuple[Action, ...] = ()
    """Control requests that passed through us, oldest first: the unfinished, and the newest `ACTIONS_SHOWN` others."""
    coverage: Coverage = Coverage()
    revision: int = 0
    """Rises by one with each committed change. Not part of what the callbacks determine."""
    heard_at: datetime | None = None
    """When a callback of this conference last reached us. Not part of what the callbacks determine."""
    asked_at: datetime | None = None
    """When Twilio's REST API was last looked at for it. Not part of what the callbacks determine."""
    want: Want | None = None
    """Why, and when, it is to be looked at next. Not part of what the callbacks determine."""
    alerts: tuple[Alert, ...] = ()
    """Those that stand, oldest first. By rule and subject; raised and cleared by records in the log."""
    alerted_at: datetime | None = None
    """When the latest of those records was written, be it that it cleared; by our clock, and behind all before it."""
    set_aside: tuple[str, ...] = ()
    """Ids of its callbacks that could not be folded, the newest `SHOWN`: they are dead letters, not in here. Not part
    of what the callbacks determine."""


UNDETERMINED = ("revision", "heard_at", "asked_at", "want", "set_aside")
"""What a header holds that the set of its callbacks does not determine."""


class Conference(msgspec.Struct, frozen=True):
    """A conference and the participants it has had, by call sid."""

    header: Header
    participants: dict[str, Participant]

    def named(self, who: str, among: Iterable[Participant] | None = None) -> Participant | None:
        """The participant with this call sid or, failing that, this label; None: nobody.

        Of several with one label it is who is there, else who is on the way, else the newest.
        """
        people = list(self.participants.values() if among is None else among)
        by_sid = [each for each in people if each.call_sid == who]
        labelled = sorted((each for each in people if each.label == who), key=seniority)
        return max(
            by_sid or labelled[::-1],
            key=lambda each: (each.present, each.status not in ("complete", "failed")),
            default=None,
        )

    def in_order(self) -> list[Participant]:
        """Participants by the time they were first heard of."""
        return sorted(self.participants.values(), key=seniority)


def seniority(participant: Participant) -> tuple[bool, datetime | None, str]:
    """Sorts participants by the time they were first heard of."""
    return participant.created_at is None, participant.created_at, participant.call_sid


encode = msgspec.json.Encoder().encode
"""Any of these values as JSON bytes."""

read_header = msgspec.json.Decoder(Header).decode
read_participant = msgspec.json.Decoder(Participant).decode


def document(header: bytes, participants: Iterable[bytes]) -> bytes:
    """The native document from its encoded parts: the header's fields, then `participants`."""
    return b'%b,"participants":[%b]}' % (header[:-1], b",".join(participants))
