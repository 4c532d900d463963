"""What an event means: a conference is a pure function of the set of its events, in whatever order they came.

Three rules make that so.
1. The header only merges: each of its facts is the least, the greatest or the union of what the events say, so order
   cannot matter.
2. A participant replays: the conference events about its call, put in Twilio's order, are applied one after the other.
   No other call's events touch it. What call progress and Twilio's answers tell about it only merges.
3. The end of a call, and that of the conference, close whatever is still open, last of all. Nothing reopens a
   conference.

`fold` is the definition. `advance` is the short way for events that are new and the newest of their call.
`replay` shows each step of the second rule.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, TypeVar

from msgspec.structs import replace

from app import actions
from app.conference import (
    SHOWN,
    Conference,
    Counts,
    Coverage,
    Header,
    Interval,
    Participant,
    ParticipantStatus,
    Stay,
)
from app.events import DELETED, Answer, Call, Event, Leg, Recording

VERSION = 2
"""Of the fold's meaning. A document folded by another version is folded again from its log, not migrated."""

UNTOLD = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands where a time is needed and no callback has told one."""

T = TypeVar("T", str, int, datetime, tuple[datetime, str])


def fold(events: Iterable[Event]) -> Conference:
    """The conference that these events tell of. Repeats and order do not matter.

    There is at least one, and all carry the same `conference_sid`.
    """
    told = sorted({event.id: event for event in events}.values(), key=_in_twilios_order)
    header = Header(sid=str(told[0].conference_sid), account_sid=min(event.account_sid for event in told))
    header = _ended(_merged(header, told), told)
    return _closed(header, {sid: _replayed(sid, leg) for sid, leg in by_call(told).items()})


def by_call(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Those of these events that a participant's state hangs on, by its call."""
    legs: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        if concerns_a_call(event):
            legs[str(event.call_sid)].append(event)
    return legs


def advance(conference: Conference, events: Sequence[Event]) -> Conference | None:
    """The conference after events it has not heard yet, or None where only `fold` over the whole log can tell.

    The caller makes sure that each event is new (see `may_have_heard`) and given once.
    """
    before, ended = conference.header, conference.header.status == "completed"
    participants = dict(conference.participants)
    if actions.may_have_missed(before, participants, [event.action for event in events if event.action is not None]):
        return None
    for event in events:
        if ended and event.type == "conference-end":
            return None
        if event.source == "conference" and event.sequence is not None and event.sequence < before.coverage.shown_from:
            return None
        if not concerns_a_call(event):
            continue
        sid = str(event.call_sid)
        participant = participants.get(sid) or Participant(call_sid=sid)
        if event.source == "control":
            if participant.label and event.answer and event.answer.label not in (None, participant.label):
                return None  # two answers, or an answer and a callback, disagree
            participants[sid] = _applied(participant, event)
            continue
        if participant.stays and participant.stays[-1].inferred:
            return None  # what is told now may show that this was inferred wrongly
        if event.source == "conference" and (ended or not _is_newest(participant, event)):
            return None
        participants[sid] = _applied(participant, event)
    header = _ended(_merged(before, events), events)
    if len(header.coverage.sequences) < SHOWN <= len(before.coverage.sequences):
        return None  # a hole was filled: an interval that is not shown any more would be shown again
    return _closed(header, participants)


def may_have_heard(conference: Conference, event: Event) -> bool:
    """Whether the log must be looked into to know that this event is new."""
    if event.source == "control":
        return actions.may_have_heard(conference.header, event)
    if event.source != "conference" or event.sequence is None:
        return True
    return conference.header.coverage.heard(event.sequence)


def concerns_a_call(event: Event) -> bool:
    """Whether a participant's state hangs on this event. An unknown kind of event changes nobody."""
    return event.call_sid is not None and (
        event.source == "call" or event.answer is not None or (event.source == "conference" and event.type in RULES)
    )


def is_unknown(event: Event) -> bool:
    """Whether this is about a call, in words that have no meaning here."""
    return event.source == "conference" and event.call_sid is not None and event.type not in RULES


# The header: merging.


def _merged(header: Header, events: Sequence[Event]) -> Header:
    name, region = header.friendly_name, header.region
    created, updated, started = header.created_at, header.updated_at, header.started_at
    recordings = {recording.sid: recording for recording in header.recordings}
    for event in events:
        updated = _most(updated, event.at)
        if event.source in ("conference", "control"):
            name = _least(name, event.friendly_name)
        if event.source == "conference":
            created = _least(created, event.at)
        if event.answer is not None:
            region = _least(region, event.answer.region)
            created = _least(created, event.answer.created_at)
        if event.type == "conference-start":
            started = _least(started, event.at)
        if event.recording is not None:
            known = recordings.get(event.recording.sid, event.recording)
            recordings[event.recording.sid] = max(known, event.recording, key=_progress_of_recording)
    return replace(
        header,
        friendly_name=name,
        created_at=created,
        updated_at=updated,
        started_at=started,
        region=region,
        recordings=tuple(recordings[sid] for sid in sorted(recordings)),
        actions=actions.after(header.actions, [event for event in events if not is_unknown(event)]),
        coverage=_covered(header.coverage, events),
    )


def _progress_of_recording(recording: Recording) -> tuple[int, str]:
    """Recording callbacks carry neither a number nor a time (Twilio docs, Recordings): the furthest status wins."""
    return RECORDING_PROGRESS.get(recording.status, -1), repr(recording)


def _covered(coverage: Coverage, events: Sequence[Event]) -> Coverage:
    numbers = Counter(e.sequence for e in events if e.source == "conference" and e.sequence is not None)
    fresh = {number for number in numbers if not coverage.heard(number)}
    conflicts = {number for number, times in numbers.items() if times > 1 or number not in fresh}
    sequences = _joined_up([*coverage.sequences, *((number, number) for number in fresh)])[-SHOWN:]
    shown = sequences if len(sequences) >= SHOWN else [(0, 0), *sequences]
    return Coverage(
        events=tuple(sorted({*coverage.events, *(event.type for event in events if event.source != "control")})),
        sequences=tuple(sequences),
        holes=tuple((a[1] + 1, b[0] - 1) for a, b in pairwise(shown) if b[0] > a[1] + 1),
        missing=coverage.missing
        + _highest(sequences)
        - _highest(coverage.sequences)
        - sum(number > 0 for number in fresh),
        conflicts=tuple(sorted({*coverage.conflicts, *conflicts})[-SHOWN:]),
    )


def _highest(sequences: Sequence[Interval]) -> int:
    return sequences[-1][1] if sequences else 0


def _joined_up(intervals: Iterable[Interval]) -> list[Interval]:
    joined: list[Interval] = []
    for first, last in sorted(intervals):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _ended(header: Header, events: Sequence[Event]) -> Header:
    """The end that Twilio numbered first, should it ever tell two."""
    endings = [event for event in events if event.type == "conference-end"]
    if not endings:
        return header
    end = min(endings, key=_in_twilios_order)
    told = end.ending
    return replace(
        header,
        ended_at=end.at,
        reason_conference_ended=told and told.reason,
        call_sid_ending_conference=told and told.call_sid,
        participant_label_ending_conference=told and told.label,
        reason=told and told.text,
    )


# A participant: replaying.


def _replayed(sid: str, events: list[Event]) -> Participant:
    participant = Participant(call_sid=sid)
    for _, step in replay(sid, events):
        participant = step
    return participant


def replay(sid: str, events: list[Event]) -> Iterator[tuple[datetime, Participant]]:
    """The participant after each of these events about its call, and when that was; `UNTOLD` where nobody knows.

    Each event is given once. What the end of the call or of the conference cuts off is only in `fold`.
    """
    participant = Participant(call_sid=sid)
    for event in _ordered(events):
        at = _moment(participant, event)
        participant = _applied(participant, event)
        yield at, participant


def _ordered(events: list[Event]) -> list[Event]:
    """Twilio's numbers rule; what has no number stands where its time puts it among those that have one.

    Answers to control requests come first: what callbacks say of a label prevails.
    """
    words: dict[tuple[int, str], Event] = {}
    answers: list[Event] = []
    others: list[Event] = []
    for event in sorted(events, key=_in_twilios_order):
        if event.source == "control":
            answers.append(event)
        elif event.source == "conference" and event.sequence is not None:
            words.setdefault((event.sequence, event.type), event)  # told twice, differently: the first is believed
        else:
            others.append(event)
    if not others:
        return [*answers, *words.values()]
    clock = UNTOLD
    placed: list[tuple[datetime, int, Event]] = []
    for event in words.values():
        clock = max(clock, event.at or clock)
        placed.append((clock, len(placed), event))
    last = len(placed)
    placed.extend((event.at or UNTOLD, last + place, event) for place, event in enumerate(others))
    return [*answers, *(event for *_, event in sorted(placed, key=lambda place: place[:2]))]


def _in_twilios_order(event: Event) -> tuple[float, datetime, int, str]:
    number = float("inf") if event.sequence is None else event.sequence
    return number, event.at or UNTOLD, ORDER_WITHIN_A_SECOND.get(event.type, 1), event.id


def _is_newest(participant: Participant, event: Event) -> bool:
    if participant.events == 0:
        return True
    return (
        event.sequence is not None
        and participant.last_sequence is not None
        and event.sequence > participant.last_sequence
    )


def _applied(participant: Participant, event: Event) -> Participant:
    if event.source == "call":
        return _summed(_progressed(participant, event, event.call or Call()))
    if event.source == "control":
        return _summed(_answered(participant, event.answer or Answer()))
    leg = event.leg or Leg()
    at = _moment(participant, event)
    numbered = participant.events == 0 or participant.last_sequence is not None
    standing = replace(
        participant,
        label=_said(leg.label, participant.label),
        muted=_said(leg.muted, participant.muted),
        hold=_said(leg.hold, participant.hold),
        coaching=_said(leg.coaching, participant.coaching),
        start_conference_on_enter=_said(leg.start_conference_on_enter, participant.start_conference_on_enter),
        end_conference_on_exit=_said(leg.end_conference_on_exit, participant.end_conference_on_exit),
        not_coaching_at=_most(participant.not_coaching_at, event.at if leg.coaching is False else None),
        created_at=_least(participant.created_at, event.at),
        updated_at=_most(participant.updated_at, event.at),
        last_sequence=event.sequence if numbered else None,
        events=participant.events + 1,
    )
    return _summed(_timed(RULES[event.type](standing, event, at), at))


def _moment(participant: Participant, event: Event) -> datetime:
    if event.at is not None:
        return event.at
    stays = participant.stays
    times = [*(stay.joined_at for stay in stays), *(stay.left_at for stay in stays)]
    return max((time for time in times if time is not None), default=UNTOLD)


def _joins(participant: Participant, event: Event, at: datetime) -> Participant:
    stays = participant.stays
    if participant.present and stays[-1].joined_at is None:
        return replace(participant, stays=(*stays[:-1], replace(stays[-1], joined_at=event.at)))
    if participant.present:
        stays = (*stays[:-1], replace(stays[-1], left_at=at, inferred=True))
        participant = _timed(_silenced(replace(participant, stays=stays)), at)
    return replace(participant, stays=(*stays, Stay(joined_at=event.at)))


def _leaves(participant: Participant, event: Event, at: datetime) -> Participant:
    leg = event.leg or Leg()
    status = _further(participant.call_status, leg.call_status)
    if leg.reason_left == "participant_add_failed" and not participant.stays:
        return replace(participant, call_status=status, reason_left=leg.reason_left)
    *past, stay = participant.stays if participant.present else (*participant.stays, Stay())
    left = replace(stay, left_at=at, reason_left=leg.reason_left, call_status=leg.call_status)
    return _silenced(replace(participant, call_status=status, stays=(*past, left)))


def _stands(participant: Participant, event: Event, at: datetime) -> Participant:
    """Whoever is announced to or falls silent was there, even if the join was never told."""
    if participant.stays or participant.reason_left:
        return participant
    return replace(participant, stays=(Stay(),))


def _acts(participant: Participant, event: Event, at: datetime) -> Participant:
    """Whoever is muted, held or speaks is there: numbered behind a leave, it shows that a join was lost."""
    if participant.stays and not participant.present and event.sequence is not None:
        return replace(participant, stays=(*participant.stays, Stay()))
    return _stands(participant, event, at)


def _speaks(participant: Participant, event: Event, at: datetime) -> Participant:
    participant = _acts(participant, event, at)
    return replace(participant, speaking=participant.present, talk_seconds=participant.talk_seconds or 0.0)


def _falls_silent(participant: Participant, event: Event, at: datetime) -> Participant:
    participant = _stands(participant, event, at)
    return replace(participant, speaking=False, talk_seconds=participant.talk_seconds or 0.0)


def _silenced(participant: Participant) -> Participant:
    return participant if participant.speaking is None else replace(participant, speaking=False)


def _timed(participant: Participant, at: datetime) -> Participant:
    """Open or close the interval of each state that has just begun or ended."""
    changes: dict[str, Any] = {}
    for state, since, total in TIMED:
        holds = participant.present and getattr(participant, state) is True
        began = getattr(participant, since)
        if holds and began is None and at != UNTOLD:
            changes[since] = at
        elif began is not None and not holds:
            changes[since] = None
            seconds = max(0.0, (at - began).total_seconds())
            changes[total] = round((getattr(participant, total) or 0.0) + seconds, 3)
    return replace(participant, **changes) if changes else participant


def _progressed(participant: Participant, event: Event, call: Call) -> Participant:
    ended = event.at if CALL_PROGRESS.get(call.status or "") == OVER else None
    return replace(
        participant,
        call_status=_further(participant.call_status, call.status),
        from_=_most(participant.from_, call.from_),
        to=_most(participant.to, call.to),
        direction=_most(participant.direction, call.direction),
        answered_by=_most(participant.answered_by, call.answered_by),
        sip_response_code=_most(participant.sip_response_code, call.sip_response_code),
        call_duration=_most(participant.call_duration, call.duration),
        call_ended_at=_least(participant.call_ended_at, ended),
        created_at=_least(participant.created_at, event.at),
        updated_at=_most(participant.updated_at, event.at),
    )


def _answered(participant: Participant, answer: Answer) -> Participant:
    """What Twilio's answer to a control request tells of its participant."""
    coached = (answer.updated_at or UNTOLD, answer.call_sid_to_coach) if answer.call_sid_to_coach else None
    return replace(
        participant,
        label=participant.label or answer.label,
        queue_time=_least(participant.queue_time, answer.queue_time),
        call_status=participant.call_status if answer.dialled else _further(participant.call_status, "in-progress"),
        coach_told=_most(participant.coach_told, coached),
        created_at=_least(participant.created_at, answer.created_at),
        updated_at=_most(participant.updated_at, answer.updated_at),
    )


def _summed(participant: Participant) -> Participant:
    """What follows from the stays, and from the flags."""
    stays, coach_told = participant.stays, participant.coach_told
    if coach_told is not None or participant.call_sid_to_coach is not None:
        holds = participant.coaching and coach_told and coach_told[0] >= (participant.not_coaching_at or UNTOLD)
        participant = replace(participant, call_sid_to_coach=coach_told[1] if holds and coach_told else None)
    if not stays:
        return replace(participant, status=_before_joining(participant))
    return replace(
        participant,
        status="connected" if participant.present else "complete",
        joined_at=stays[0].joined_at,
        left_at=stays[-1].left_at,
        reason_left=stays[-1].reason_left,
    )


def _before_joining(participant: Participant) -> ParticipantStatus:
    if participant.reason_left:
        return "failed"
    return BEFORE_JOINING.get(participant.call_status or "", "queued")


# The end: closing.


def _closed(header: Header, participants: Mapping[str, Participant]) -> Conference:
    """Nobody is in a conference that has ended, nor in any once the call itself has ended."""
    end: datetime | None = None
    if "conference-end" in header.coverage.events:
        end = header.ended_at or UNTOLD
        header = replace(header, status="completed")
    elif "conference-start" in header.coverage.events or any(p.stays for p in participants.values()):
        header = replace(header, status="in-progress")
    settled = {}
    for sid, participant in participants.items():
        over = participant.call_ended_at or end
        settled[sid] = _cut_off(participant, over) if over and participant.present else participant
    return Conference(replace(header, counts=_counted(settled)), settled)


def _cut_off(participant: Participant, at: datetime) -> Participant:
    *past, stay = participant.stays
    left = max(at, stay.joined_at or at)
    stays = (*past, replace(stay, left_at=left, inferred=True))
    return _summed(_timed(_silenced(replace(participant, stays=stays)), left))


def _counted(participants: Mapping[str, Participant]) -> Counts:
    here = [participant for participant in participants.values() if participant.present]
    return Counts(
        participants=len(participants),
        present=len(here),
        muted=sum(p.muted is True for p in here),
        hold=sum(p.hold is True for p in here),
        coaching=sum(p.coaching is True for p in here),
        speaking=sum(p.speaking is True for p in here),
    )


# Merging two words: neither order nor repetition matters.


def _least(a: T | None, b: T | None) -> T | None:
    return b if a is None else a if b is None else min(a, b)


def _most(a: T | None, b: T | None) -> T | None:
    return b if a is None else a if b is None else max(a, b)


def _further(a: str | None, b: str | None) -> str | None:
    return max((a, b), key=lambda status: (CALL_PROGRESS.get(status or "", -1), status or ""))


def _said(word: Any, before: Any) -> Any:
    return before if word is None else word


Rule = Callable[[Participant, Event, datetime], Participant]

RULES: dict[str, Rule] = {
    "participant-join": _joins,
    "participant-leave": _leaves,
    "participant-mute": _acts,
    "participant-unmute": _acts,
    "participant-hold": _acts,
    "participant-unhold": _acts,
    "participant-modify": _acts,
    "participant-speech-start": _speaks,
    "participant-speech-stop": _falls_silent,
    "announcement-end": _stands,
    "announcement-fail": _stands,
}
"""What each event about a call does to its participant, once its flags have been taken over."""

TIMED = (
    ("muted", "muted_since", "muted_seconds"),
    ("hold", "hold_since", "hold_seconds"),
    ("speaking", "speaking_since", "talk_seconds"),
)

ORDER_WITHIN_A_SECOND = {"participant-join": 0, "participant-leave": 2, "conference-end": 3}
"""Only for events without a number: Twilio's times are whole seconds (Twilio docs, TwiML Conference)."""

OVER = 4
CALL_PROGRESS = {
    "queued": 0,
    "initiated": 1,
    "ringing": 2,
    "in-progress": 3,
    "canceled": OVER,
    "failed": OVER,
    "no-answer": OVER,
    "busy": OVER,
    "completed": OVER,
}
BEFORE_JOINING: dict[str, ParticipantStatus] = {
    "initiated": "connecting",
    "ringing": "ringing",
    "in-progress": "connecting",
    "canceled": "failed",
    "failed": "failed",
    "no-answer": "failed",
    "busy": "failed",
    "completed": "complete",
}
"""A participant's REST status from its call's, while it has not joined."""

RECORDING_PROGRESS = {
    "started": 0,
    "in-progress": 1,
    "resumed": 2,
    "paused": 3,
    "stopped": 4,
    "completed": 5,
    "absent": 5,
    "failed": 5,
    DELETED: 6,
}
