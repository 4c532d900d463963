"""What an event means: a conference is a pure function of the set of its events, in whatever order they came.

Four rules make that so.
1. The header only merges: each of its facts is the least, the greatest or the union of what the events say, so order
   cannot matter.
2. A participant replays: the conference events about its call, put in Twilio's order, are applied one after the other
   (see `replay.py`). No other call's events touch it.
3. The end of a call, and that of the conference, close whatever is still open, last of all. Nothing reopens a
   conference.
4. What Twilio's REST API has shown is an event like the others. It has its place behind all that it has surely seen, so
   it undoes nothing newer; and what the callbacks tell of the conference's end prevails over it.

`fold` is the definition. `advance` is the short way: it needs no log, only what new events are about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise, takewhile
from typing import NamedTuple

from msgspec.structs import astuple, replace

from app import actions, alerts
from app.conference import SHOWN, Conference, Counts, Coverage, Header, Interval, Participant, Word
from app.events import DELETED, Event, Recording, Snapshot
from app.replay import (
    SETTLED,
    UNTOLD,
    Track,
    by_call,
    concerns_a_call,
    cut_off,
    followed,
    in_twilios_order,
    is_unknown,
    least,
    most,
    replayed,
)

VERSION = 3
"""Of the fold's meaning. A document folded by another version is folded again from its log, not migrated."""

END = "conference-end"


def fold(events: Iterable[Event]) -> Conference:
    """The conference that these events tell of. Repeats and order do not matter.

    There is at least one, and all carry the same `conference_sid`.
    """
    told = sorted({event.id: event for event in events}.values(), key=in_twilios_order)
    header = Header(sid=str(told[0].conference_sid), account_sid=min(event.account_sid for event in told))
    tracks = {sid: replayed(sid, leg) for sid, leg in by_call(told).items()}
    header = _ended(_looked_at(_merged(header, told), told, tracks.values()), told)
    return _closed(header, {}, {sid: track.now for sid, track in tracks.items()})


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
    if any(event.snapshot is not None or _may_have_been_seen(before.coverage, event) for event in events):
        return True
    if any(event.alert is not None and alerts.is_late(before, event.alert) for event in events):
        return True
    records = [event.action for event in events if event.action is not None]
    if records:
        told, about = {record.id for record in records}, {None, *(event.call_sid for event in events)}
        if any(action.id in told and action.call_sid not in about for action in before.actions):
            return True  # its participant may not be here
        if actions.may_have_missed(before, conference.participants, records):
            return True
    if before.status == "completed" and any(event.type == END for event in events):
        return True
    if before.status == "completed" and END not in before.coverage.events:
        return True  # a look has found it over: that may turn out otherwise
    lowest = before.coverage.shown_from
    return any(e.source == "conference" and e.sequence is not None and e.sequence < lowest for e in events)


def _may_have_been_seen(coverage: Coverage, event: Event) -> bool:
    """Whether an event may belong before the latest look at Twilio's REST API."""
    if coverage.snapshot_at is None or not (event.source == "conference" or concerns_a_call(event)):
        return False
    if event.at is None or event.at <= coverage.snapshot_at:
        return True
    heard = max(coverage.snapshot_sequence, _highest(coverage.sequences))  # of what is late, times may say otherwise
    return event.source == "conference" and (event.sequence is None or event.sequence <= heard)


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
    alerted = header.alerted_at
    recordings = {recording.sid: recording for recording in header.recordings}
    for event in events:
        updated = most(updated, event.at)
        if event.source in ("conference", "control", "snapshot"):
            name = least(name, event.friendly_name)
        if event.source == "conference":
            created = least(created, event.at)
        if event.answer is not None:
            region = least(region, event.answer.region)
            created = least(created, event.answer.created_at)
        if event.snapshot is not None:
            region = least(region, event.snapshot.region)
            created = least(created, event.snapshot.created_at)
            updated = most(updated, event.snapshot.updated_at)
        if event.type == "conference-start":
            started = least(started, event.at)
        if event.alert is not None:
            alerted = most(alerted, event.alert.at)
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
        alerted_at=alerted,
        coverage=_sourced(_covered(header.coverage, events), events, created, region),
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
    kinds = {*coverage.events, *(event.type for event in events if event.source not in OUR_OWN)}
    return replace(
        coverage,
        events=tuple(sorted(kinds)),
        from_start=bool(coverage.from_start or (numbers and numbers[0] <= 1)) if sequences else None,
        sequences=tuple(sequences),
        holes=tuple((a[1] + 1, b[0] - 1) for a, b in pairwise(shown) if b[0] > a[1] + 1),
        missing=coverage.missing
        + _highest(sequences)
        - _highest(coverage.sequences)
        - sum(number > 0 for number in fresh),
        conflicts=tuple(sorted({*coverage.conflicts, *conflicts})[-SHOWN:]),
    )


def _sourced(coverage: Coverage, events: Sequence[Event], created: datetime | None, region: str | None) -> Coverage:
    """How those facts of the header are known that only Twilio's REST API tells for sure."""
    told = coverage.facts.get("created_at") == "reconciled" or any(
        (each.snapshot and each.snapshot.created_at) or (each.answer and each.answer.created_at and not each.call_sid)
        for each in events
    )
    return _known(
        coverage,
        created_at=("reconciled" if told else "inferred") if created is not None else None,
        region="reconciled" if region is not None else None,
    )


def _known(coverage: Coverage, **facts: Word | None) -> Coverage:
    """With these facts known so; None: told by callbacks, or not known at all."""
    if all(coverage.facts.get(name) == word for name, word in facts.items()):
        return coverage
    known = {**coverage.facts, **facts}
    return replace(coverage, facts={name: word for name, word in sorted(known.items()) if word is not None})


def _looked_at(header: Header, told: Sequence[Event], tracks: Collection[Track]) -> Header:
    """What the looks at Twilio's REST API among all events tell of the conference. The latest of them counts."""
    looks = [(event.snapshot, event.id) for event in told if event.snapshot is not None]
    if not looks:
        return header
    looks.sort(key=lambda look: (look[0].taken_at, look[0].after, look[1]))
    fruitful = {look for track in tracks for look in track.corrected_by}
    fruitful |= {*[look_id for look, look_id in looks if look.status in OVER][:1]}
    coverage = replace(
        header.coverage,
        snapshots=len(looks),
        snapshot_at=looks[-1][0].taken_at,
        snapshot_sequence=max((look.after for look, _ in looks if look.participants is not None), default=0),
        fruitless=sum(1 for _ in takewhile(lambda look: look[1] not in fruitful, reversed(looks))),
        doubted=looks[-1][0].missing and any(looks[-1][1] in track.doubted for track in tracks),
    )
    over = [*takewhile(lambda look: look.status in OVER, (look for look, _ in reversed(looks)))][::-1]
    closing = [look for look in over if not _went_on(look, told)]
    if not closing:
        begun = any(look.status == "in-progress" for look, _ in looks)
        return replace(header, status="in-progress" if begun else header.status, coverage=coverage)
    end = next((look for look in closing if look.status == "completed"), closing[0])
    return replace(
        header,
        status="completed",
        ended_at=end.updated_at or end.taken_at,
        reason_conference_ended=end.reason_conference_ended,
        call_sid_ending_conference=end.call_sid_ending_conference,
        coverage=_known(coverage, ended_at="reconciled" if end.updated_at else "inferred"),
    )


OVER = (None, "completed")
"""Statuses of a conference at Twilio's REST API that is no more; None: it is not known there."""


def _went_on(over: Snapshot, told: Sequence[Event]) -> bool:
    """Whether a conference has told of itself behind a look that found it over.

    What is not known (yet) may be of that very moment, so then also just before it.
    """
    after, until = (over.after, over.taken_at + SETTLED) if over.status else (-1, over.taken_at - SETTLED)
    return any(
        event.source == "conference"
        and event.at is not None
        and event.at > until
        and (event.sequence is None or event.sequence > after)
        for event in told
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
        coverage=_known(header.coverage, ended_at=None),
    )


# The end: closing.


def _closed(header: Header, before: Mapping[str, Participant], moved: Mapping[str, Participant]) -> Conference:
    """Nobody is in a conference that has ended, nor in any once the call itself has ended.

    `header` has the counts of before, when those who have `moved` stood as in `before`.
    """
    kinds = header.coverage.events
    if END in kinds or header.status == "completed":
        header = replace(header, status="completed")
    elif "conference-start" in kinds or any(p.stays for p in moved.values()):
        header = replace(header, status="in-progress")
    end = _end_of(header)
    after = {sid: _settled(participant, end) for sid, participant in {**before, **moved}.items()}
    coverage = _standing(header, before, after)
    return Conference(replace(header, counts=_recounted(header.counts, before, after), coverage=coverage), after)


def _standing(header: Header, before: Mapping[str, Participant], after: Mapping[str, Participant]) -> Coverage:
    """How complete the picture is, once it is drawn."""
    coverage = header.coverage
    changed = [(each, before.get(sid)) for sid, each in after.items() if before.get(sid) is not each]
    untold = coverage.untold + sum(_is_untold(each) - _is_untold(was) for each, was in changed)
    if header.status == "init" or END in coverage.events:
        word: Word | None = None
    elif "conference-start" in coverage.events and header.status == "in-progress":
        word = None
    else:
        word = "reconciled" if coverage.snapshot_at is not None else "inferred"
    complete = END in coverage.events and coverage.from_start is True and coverage.missing == 0 and untold == 0
    coverage = _known(coverage, status=word)
    if (untold, complete) == (coverage.untold, coverage.complete):
        return coverage  # nearly always
    return replace(coverage, untold=untold, complete=complete)


def _is_untold(participant: Participant | None) -> bool:
    """Whether no callback has told that a participant has left, or when it came."""
    return participant is not None and any(
        stay.joined_at is None or stay.reconciled or (stay.inferred and stay is participant.stays[-1])
        for stay in participant.stays
    )


def _end_of(header: Header) -> datetime | None:
    return (header.ended_at or UNTOLD) if header.status == "completed" else None


def _settled(participant: Participant, end: datetime | None) -> Participant:
    if end and not participant.stays and participant.status not in ("complete", "failed"):
        facts: dict[str, Word] = {**participant.facts, "status": "inferred"}
        return replace(participant, status="failed", facts=dict(sorted(facts.items())))
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


OUR_OWN = ("control", "snapshot", "alert")
"""Sources of events that are no callbacks."""

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
