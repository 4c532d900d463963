"""What the log tells afterwards: who was in a conference from when until when, and how; and what happened meanwhile.

A lane for each participant, with spans of time in it, and marks at single moments. Like the document it is a pure
function of the set of events, and drawn from the very steps that led to the document.

Knows no clock, store, HTTP or settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import msgspec

from app import actions
from app.conference import Conference, Header, Participant, encode
from app.events import Event
from app.fold import fold
from app.replay import TIMED, UNTOLD, by_call, is_unknown, replay

Step = tuple[datetime, Participant]
"""A participant after an event, and when that was."""


class Span(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}, omit_defaults=True):
    """A time through which a participant was in a state. It may be empty: most of Twilio's times are whole seconds."""

    state: str
    """`here` is a stay; `dialling` comes before it. The others lie over it: `waiting` (the conference had not started),
    `coaching`, `muted`, `hold`, `speaking`."""
    from_: datetime | None
    """None: nobody has told when they joined."""
    until: datetime | None
    """None: it goes on. Never before `from_`."""
    inferred: bool = False
    """Not all of it was told. Of a stay: its join was not, or its leave follows from something else. Of waiting and
    dialling: their end does."""


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """One participant's spans: of each state in order of time, in the order in which they are to be drawn."""

    call_sid: str
    label: str | None
    spans: tuple[Span, ...]


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened at one moment."""

    kind: str
    """`conference-start`, `conference-end`, `announcement-end`, `announcement-fail`, `recording`, `action`, or `look`:
    then Twilio's REST API was looked at."""
    at: datetime
    call_sid: str | None
    """Whom it concerns; the participant whose leaving ended the conference."""
    text: str | None = None
    """Why the conference ended, in Twilio's word; the URL of the announcement; why Twilio was asked."""
    sid: str | None = None
    """Of the recording."""
    status: str | None = None
    """Of the recording, as far as it has got."""
    id: str | None = None
    """Of the action, as are the following."""
    verb: str | None = None
    state: str | None = None
    by: str | None = None


class Timeline(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """What a picture of a conference shows."""

    from_: datetime | None = None
    """The first moment that is known; None: none is."""
    until: datetime | None = None
    """The last; None while the conference goes on."""
    lanes: tuple[Lane, ...] = ()
    """In the document's order."""
    marks: tuple[Mark, ...] = ()
    """By their time. What has none is left out."""


def timeline(events: Iterable[Event]) -> Timeline:
    """The timeline of the conference that these events, all of one, tell of. Repeats and order do not matter."""
    told = list({event.id: event for event in events}.values())
    if not told:
        return Timeline()
    conference, legs = fold(told), by_call(told)
    started = _started(conference)
    lanes = tuple(
        Lane(
            call_sid=each.call_sid,
            label=each.label,
            spans=_spans(conference.header, each, legs[each.call_sid], started),
        )
        for each in conference.in_order()
    )
    marks = tuple(sorted(_marks(conference.header, told), key=lambda mark: (mark.at, encode(mark))))
    spans = [span for lane in lanes for span in lane.spans]
    shown = [conference.header.created_at, conference.header.ended_at, *(mark.at for mark in marks)]
    moments = [at for at in (*shown, *(s.from_ for s in spans), *(s.until for s in spans)) if at is not None]
    return Timeline(
        from_=min(moments, default=None),
        until=max(moments, default=None) if conference.header.status == "completed" else None,
        lanes=lanes,
        marks=marks,
    )


def _started(conference: Conference) -> datetime | None:
    """When it started or, if that was not told, the earliest that it can have; None if it cannot have yet.

    It takes two participants, one of whom may start it (Twilio docs, TwiML Conference, statusCallbackEvent). Whoever
    leaves in the second in which another joins is gone by then.
    """
    if conference.header.started_at is not None:
        return conference.header.started_at
    steps: list[tuple[datetime, int, bool]] = []
    for participant in conference.participants.values():
        starts = participant.start_conference_on_enter is not False
        for stay in participant.stays:
            joined = stay.joined_at or UNTOLD
            if stay.left_at is None or stay.left_at > joined:
                steps.append((joined, 1, starts))
            if stay.left_at is not None and stay.left_at > joined:
                steps.append((stay.left_at, -1, starts))
    here = starters = 0
    for at, change, starts in sorted(steps):
        here += change
        starters += change * starts
        if here > 1 and starters:
            return at
    return None


def _spans(header: Header, participant: Participant, leg: list[Event], started: datetime | None) -> tuple[Span, ...]:
    end = header.ended_at or UNTOLD if header.status == "completed" else None
    last = (participant.left_at or end or UNTOLD, participant)  # only the fold knows what the end has cut off
    steps = [*replay(participant.call_sid, leg), last]
    spans = [*_dialling(participant, leg, steps, end), *_here(participant), *_waiting(header, participant, started)]
    spans.extend(_between("coaching", _coaching(steps)))
    for state, since, _ in TIMED:
        spans.extend(_between(state, ((at, getattr(step, since)) for at, step in steps)))
    return tuple(spans)


def _dialling(
    participant: Participant, leg: Sequence[Event], steps: Sequence[Step], end: datetime | None
) -> Iterator[Span]:
    """From the first that was heard of the call until it joined, came to nothing, or the conference was over."""
    heard = [event.at for event in leg if event.source == "call"]
    heard.extend(event.answer.created_at for event in leg if event.answer and event.answer.dialled)
    began = min((at for at in heard if at is not None), default=None)
    if began is None or participant.direction == "inbound":
        return
    gone = ("failed", "complete")
    until = participant.joined_at or next((at for at, step in steps if step.stays or step.status in gone), end)
    told = participant.joined_at is not None or (not participant.stays and "status" not in participant.facts)
    if until is None or until > began:
        yield Span(state="dialling", from_=began, until=until, inferred=until is not None and not told)


def _here(participant: Participant) -> Iterator[Span]:
    for stay in participant.stays:
        if stay.left_at == UNTOLD:
            continue  # it is over, and of no moment is it known that they were there
        left = stay.left_at and max(stay.left_at, stay.joined_at or stay.left_at)
        inferred = stay.inferred or stay.reconciled or stay.joined_at is None
        yield Span(state="here", from_=stay.joined_at, until=left, inferred=inferred)


def _waiting(header: Header, participant: Participant, started: datetime | None) -> Iterator[Span]:
    for stay in participant.stays:
        until = min((at for at in (stay.left_at, started) if at is not None), default=None)
        if stay.joined_at is not None and (until is None or until > stay.joined_at):
            inferred = stay.inferred if until == stay.left_at else header.started_at is None
            yield Span(state="waiting", from_=stay.joined_at, until=until, inferred=inferred)


def _coaching(steps: Iterable[Step]) -> Iterator[tuple[datetime, datetime | None]]:
    """Since when it has been coaching at each step, as the fold keeps it for the other states."""
    since: datetime | None = None
    for at, participant in steps:
        holds = participant.present and participant.coaching is True
        since = (since or (at if at != UNTOLD else None)) if holds else None
        yield at, since


def _between(state: str, steps: Iterable[tuple[datetime, datetime | None]]) -> Iterator[Span]:
    """The spans of a state from moments, and since when it has been so at each of them; None: it is not so."""
    began: datetime | None = None
    for at, since in steps:
        if began is not None and since != began:
            yield Span(state=state, from_=began, until=max(began, at))
        began = since
    if began is not None:
        yield Span(state=state, from_=began, until=None)


def _marks(header: Header, told: Sequence[Event]) -> Iterator[Mark]:
    if header.started_at is not None:
        yield Mark(kind="conference-start", at=header.started_at, call_sid=None)
    if header.ended_at is not None:
        ended_by, reason = header.call_sid_ending_conference, header.reason_conference_ended
        yield Mark(kind="conference-end", at=header.ended_at, call_sid=ended_by, text=reason)
    for event in told:
        if event.type in ("announcement-end", "announcement-fail") and event.at is not None:
            yield Mark(kind=event.type, at=event.at, call_sid=event.call_sid, text=event.announcement)
        elif event.snapshot is not None:
            yield Mark(kind="look", at=event.snapshot.taken_at, call_sid=None, text=event.snapshot.reason)
    for recording in header.recordings:
        if recording.start_time is not None:
            about = {"call_sid": recording.call_sid, "sid": recording.sid, "status": recording.status}
            yield Mark(kind="recording", at=recording.start_time, **about)
    for action in actions.all_after((), [event for event in told if not is_unknown(event)]):
        yield Mark(
            kind="action",
            at=action.requested_at,
            call_sid=action.call_sid,
            sid=action.recording_sid,
            id=action.id,
            verb=action.verb,
            state=action.state,
            by=action.by,
        )
