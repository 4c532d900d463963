"""What an event means: a conference is a pure function of the set of its events, in whatever order they came.

Three rules make that so.
1. The header only merges: each of its facts is the least, the greatest or the union of what the events say, so order
   cannot matter.
2. A participant replays: the conference events about its call, put in Twilio's order, are applied one after the other
   (see `replay.py`). No other call's events touch it.
3. The end of a call, and that of the conference, close whatever is still open, last of all. Nothing reopens a
   conference.

`fold` is the definition. `advance` is the short way: it needs no log, only what new events are about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from msgspec.structs import astuple, replace

from app import actions, alerts
from app.conference import SHOWN, Conference, Counts, Coverage, Header, Interval, Participant
from app.events import DELETED, Event, Recording
from app.replay import UNTOLD, Track, by_call, cut_off, followed, in_twilios_order, is_unknown, least, most, replayed

VERSION = 2
"""Of the fold's meaning. A document folded by another version is folded again from its log, not migrated."""

END = "conference-end"
OWN = ("control", "alert")
"""Sources of records of our own: no kinds of events that Twilio was heard to tell."""


def fold(events: Iterable[Event]) -> Conference:
    """The conference that these events tell of. Repeats and order do not matter.

    There is at least one, and all carry the same `conference_sid`.
    """
    told = sorted({event.id: event for event in events}.values(), key=in_twilios_order)
    header = Header(sid=str(told[0].conference_sid), account_sid=min(event.account_sid for event in told))
    header = _ended(_merged(header, told), told)
    return _closed(header, {}, {sid: replayed(sid, leg).now for sid, leg in by_call(told).items()})


class Advance(NamedTuple):
    """A conference after more events."""

    conference: Conference
    tracks: dict[str, Track]
    """Of the calls that the events were about."""


class Missing(NamedTuple):
    """What is to be known besides."""

    histories: Collection[str]
    """Of these calls: every event about them that has been folded."""


def advance(
    conference: Conference,
    events: Sequence[Event],
    tracks: Mapping[str, Track] | None = None,
    histories: Mapping[str, Sequence[Event]] | None = None,
) -> Advance | Missing | None:
    """The conference after events it has not heard yet, or None where only `fold` over the whole log can tell.

    The caller makes sure that each event is new (see `may_have_heard`) and given once. Of the participants only those
    that the events are about need be in `conference`, unless one of the events `concerns_everyone`. `tracks` are those
    that led to just this conference, as far as known; without one a late event needs the `histories` of its call.
    """
    before = conference.header
    if _is_for_the_log(conference, events):
        return None
    moved: dict[str, Track] = {}
    missing: list[str] = []
    for sid, news in by_call(events).items():
        if histories and sid in histories:
            moved[sid] = replayed(sid, [*histories[sid], *news])
            continue
        track = _taken_up((tracks or {}).get(sid), sid, conference)
        for event in sorted(news, key=in_twilios_order):
            track = track and followed(track, event)
        if track is None:
            missing.append(sid)
        else:
            moved[sid] = track
    if missing:
        return Missing(missing)
    header = _ended(_merged(before, events), events)
    if len(header.coverage.sequences) < SHOWN <= len(before.coverage.sequences):
        return None  # a hole was filled: an interval that is not shown any more would be shown again
    if any(each.stays and not moved[sid].now.stays for sid, each in conference.participants.items() if sid in moved):
        return None  # turns out never to have been here: the conference may not have begun either
    after = _closed(header, conference.participants, {sid: track.now for sid, track in moved.items()})
    return Advance(after, moved)


def _is_for_the_log(conference: Conference, events: Sequence[Event]) -> bool:
    before = conference.header
    if any(event.alert is not None for event in events):
        return True  # a header does not hold those that were cleared
    records = [event.action for event in events if event.action is not None]
    if records:
        told, about = {record.id for record in records}, {None, *(event.call_sid for event in events)}
        if any(action.id in told and action.call_sid not in about for action in before.actions):
            return True  # its participant may not be here
        if actions.may_have_missed(before, conference.participants, records):
            return True
    if before.status == "completed" and any(event.type == END for event in events):
        return True
    lowest = before.coverage.shown_from
    return any(e.source == "conference" and e.sequence is not None and e.sequence < lowest for e in events)


def _taken_up(track: Track | None, sid: str, conference: Conference) -> Track | None:
    """Where to go on with a call. None: something was cut off that may turn out to have been something else."""
    known = conference.participants.get(sid)
    if known is None:
        return Track((), Participant(call_sid=sid))
    if track is not None and _settled(track.now, _end_of(conference.header)) == known:
        return track
    return None if known.stays and known.stays[-1].inferred else Track((), known)


def concerns_everyone(event: Event) -> bool:
    """Whether this event may change participants that it is not about."""
    return event.type == END


def may_have_heard(conference: Conference, event: Event) -> bool:
    """Whether the log must be looked into to know that this event is new."""
    if event.source == "control":
        return actions.may_have_heard(conference.header, event)
    if event.source != "conference" or event.sequence is None:
        return True
    return conference.header.coverage.heard(event.sequence)


# The header: merging.


def _merged(header: Header, events: Sequence[Event]) -> Header:
    name, region = header.friendly_name, header.region
    created, updated, started = header.created_at, header.updated_at, header.started_at
    recordings = {recording.sid: recording for recording in header.recordings}
    for event in events:
        updated = most(updated, event.at)
        if event.source in ("conference", "control"):
            name = least(name, event.friendly_name)
        if event.source == "conference":
            created = least(created, event.at)
        if event.answer is not None:
            region = least(region, event.answer.region)
            created = least(created, event.answer.created_at)
        if event.type == "conference-start":
            started = least(started, event.at)
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
        alerts=alerts.after(header.alerts, events),
        coverage=_covered(header.coverage, events),
    )


def _progress_of_recording(recording: Recording) -> tuple[int, str]:
    """Recording callbacks carry neither a number nor a time (Twilio docs, Recordings): the furthest status wins."""
    return RECORDING_PROGRESS.get(recording.status, -1), repr(recording)


def _covered(coverage: Coverage, events: Sequence[Event]) -> Coverage:
    numbers = sorted(e.sequence for e in events if e.source == "conference" and e.sequence is not None)
    fresh = {number for number in numbers if not coverage.heard(number)}
    conflicts = {number for number in numbers if number not in fresh}
    conflicts |= {number for number, following in pairwise(numbers) if number == following}
    sequences = _joined_up([*coverage.sequences, *((number, number) for number in fresh)])[-SHOWN:]
    shown = sequences if len(sequences) >= SHOWN else [(0, 0), *sequences]
    return Coverage(
        events=tuple(sorted({*coverage.events, *(event.type for event in events if event.source not in OWN)})),
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
    endings = [event for event in events if event.type == END]
    if not endings:
        return header
    end = min(endings, key=in_twilios_order)
    told = end.ending
    return replace(
        header,
        ended_at=end.at,
        reason_conference_ended=told and told.reason,
        call_sid_ending_conference=told and told.call_sid,
        participant_label_ending_conference=told and told.label,
        reason=told and told.text,
    )


# The end: closing.


def _closed(header: Header, before: Mapping[str, Participant], moved: Mapping[str, Participant]) -> Conference:
    """Nobody is in a conference that has ended, nor in any once the call itself has ended.

    `header` has the counts of before, when those who have `moved` stood as in `before`.
    """
    if END in header.coverage.events:
        header = replace(header, status="completed")
    elif "conference-start" in header.coverage.events or any(p.stays for p in moved.values()):
        header = replace(header, status="in-progress")
    end = _end_of(header)
    after = {sid: _settled(participant, end) for sid, participant in {**before, **moved}.items()}
    return Conference(replace(header, counts=_recounted(header.counts, before, after)), after)


def _end_of(header: Header) -> datetime | None:
    return (header.ended_at or UNTOLD) if header.status == "completed" else None


def _settled(participant: Participant, end: datetime | None) -> Participant:
    over = participant.call_ended_at or end
    return cut_off(participant, over) if over and participant.present else participant


def _recounted(counts: Counts, before: Mapping[str, Participant], after: Mapping[str, Participant]) -> Counts:
    """The counts, after some participants have changed: each counts as it stands, and no more as it stood."""
    totals = list(astuple(counts))
    for sid, participant in after.items():
        was = before.get(sid)
        if was is not participant:
            for place, (more, less) in enumerate(zip(_counted(participant), _counted(was), strict=True)):
                totals[place] += more - less
    return Counts(**dict(zip(Counts.__struct_fields__, totals, strict=True)))


def _counted(participant: Participant | None) -> tuple[int, ...]:
    """What a participant adds to each of the counts, in their order."""
    if participant is None:
        return (0, 0, 0, 0, 0, 0)
    here = participant.present
    flags = (participant.muted, participant.hold, participant.coaching, participant.speaking)
    return (1, here, *(here and flag is True for flag in flags))


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
