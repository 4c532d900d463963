"""What became of a control request: Twilio's answer says that it was accepted, only a callback that it was done.

Twilio's REST API may show it too, where the callbacks were lost.

An action and an event either match or do not, whichever of them came first; so what has been told of an action is a
pure function of the set of events, like everything else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from app.conference import ACTIONS_SHOWN, Header, Participant
from app.events import Action, ActionState, Event, Leg, Seen, Snapshot

FLAGS = ("muted", "hold", "coaching", "end_conference_on_exit")
"""What of a call's standing an update may ask for; awaited as `muted=true`."""
STOPPED = ("stopped", "processing", "completed", "absent", "failed")
"""Statuses of a recording that runs no longer."""
SKEW = timedelta(minutes=1)
"""How far Twilio's clock and ours may be apart."""
NEVER_ANSWERED = ("busy", "canceled", "failed", "no-answer")
OVER = (*NEVER_ANSWERED, "completed")


def after(known: Sequence[Action], events: Sequence[Event]) -> tuple[Action, ...]:
    """The actions that a header shows after these events: the unfinished, and the newest of the others."""
    told = all_after(known, events)
    dropped = {action.id for action in [action for action in told if action.finished][:-ACTIONS_SHOWN]}
    return tuple(action for action in told if action.id not in dropped)


def all_after(known: Sequence[Action], events: Sequence[Event]) -> tuple[Action, ...]:
    """These actions after these events, oldest first: records of actions, and whatever callbacks tell of them."""
    records = [event.action for event in events if event.action is not None]
    if not known and not records:
        return ()
    actions = {action.id: action for action in known}
    for record in records:
        actions[record.id] = _joined(actions[record.id], record) if record.id in actions else record
    heard: defaultdict[str | None, list[Event]] = defaultdict(list)
    for event in events:
        heard[event.recording.sid if event.recording else event.call_sid].append(event)
    return tuple(sorted((_settled(action, heard) for action in actions.values()), key=_age))


def may_have_heard(header: Header, event: Event) -> bool:
    """Whether the log must be looked into to know that this record is new."""
    record = event.action
    known = next((action for action in header.actions if record and action.id == record.id), None)
    if record is None or event.type == "control-requested" or known is None:
        return record is None or known is not None or _may_be_dropped(header, record)
    return known.expired if event.type == "control-expired" else known.answered_at is not None


def may_have_missed(header: Header, participants: Mapping[str, Participant], records: Iterable[Action]) -> bool:
    """Whether only the log can tell how actions stand after these records: something told earlier may match one."""
    news: dict[str, Action] = {}
    for record in records:
        news[record.id] = _joined(news[record.id], record) if record.id in news else record
    return any(_may_have_missed(header, participants, record) for record in news.values())


def _may_have_missed(header: Header, participants: Mapping[str, Participant], record: Action) -> bool:
    known = next((action for action in header.actions if action.id == record.id), None)
    if known is None:
        if _may_be_dropped(header, record):
            return True
        action = record
    else:
        action = _joined(known, record)
        if _matched_by(action) == _matched_by(known):
            return False
        if known.told or known.refused:
            return True  # that may no longer match
    return _was_told(header, participants, action)


def _may_be_dropped(header: Header, record: Action) -> bool:
    """Whether an action that a header does not show may have been in it."""
    shown = [action for action in header.actions if action.finished]
    return len(shown) >= ACTIONS_SHOWN and _age(record) < _age(shown[0])


def _matched_by(action: Action) -> tuple[object, ...]:
    """Everything that decides which events match."""
    return action.call_sid, action.recording_sid, action.after, action.requested_at, action.awaits


def _was_told(header: Header, participants: Mapping[str, Participant], action: Action) -> bool:
    if not action.awaits:
        return False
    if header.coverage.snapshot_at is not None:
        return True
    participant = participants.get(action.call_sid or "")
    if participant and (
        participant.last_sequence is None or participant.last_sequence > action.after or participant.call_status in OVER
    ):
        return True
    if any(recording.sid == action.recording_sid for recording in header.recordings):
        return True
    kinds = {word.partition(" ")[0] for word in action.awaits}
    wide = {"conference-end"} | ({"announcement-end", "announcement-fail"} if "announcement-end" in kinds else set())
    return bool(wide & set(header.coverage.events))


def _settled(action: Action, heard: Mapping[str | None, Sequence[Event]]) -> Action:
    """The action with what these events tell of it."""
    places = {None, action.call_sid, action.recording_sid}
    events = [event for place in places for event in heard.get(place, ()) if _follows(action, event)]
    told = {word for event in events for word in _words(event, action.call_sid) if word in action.awaits}
    action = replace(
        action,
        told=tuple(sorted({*action.told, *told})),
        refused=action.refused or any(_refuses(action, event) for event in events),
    )
    return replace(action, state=state_of(action))


def _follows(action: Action, event: Event) -> bool:
    """Whether an event can be the consequence of an action: after it, and within its time. Times are whole seconds."""
    if event.at is not None and event.at > action.expires_at + SKEW:
        return False
    if event.snapshot is not None:
        return action.requested_at <= event.snapshot.taken_at <= action.expires_at + SKEW
    if event.source == "control":
        return False
    if event.source != "conference":
        return event.at is None or event.at >= action.requested_at - SKEW
    if event.sequence is not None:
        return event.sequence > action.after
    return event.at is None or event.at >= action.requested_at.replace(microsecond=0)


def _words(event: Event, call_sid: str | None) -> Iterable[str]:
    """What an event tells, in the words of `Action.awaits`, of an action about this call."""
    if event.snapshot is not None:
        yield from _shown(event.snapshot, call_sid)
        return
    if event.recording is not None:
        if event.recording.status in STOPPED:
            yield "recording-stopped"
        return
    yield f"{event.type} {event.announcement}" if event.announcement else event.type
    if event.type == "conference-end" or (event.call is not None and event.call.status in OVER):
        yield "participant-leave"  # nobody is left, or has not even come
    yield from _flags(event.leg)


def _shown(snapshot: Snapshot, call_sid: str | None) -> Iterable[str]:
    """What Twilio's REST API showed. It has no word for what has come and gone, such as announcements."""
    if snapshot.status == "completed":
        yield from ("conference-end", "participant-leave")
    if call_sid is None or snapshot.participants is None:
        return
    seen = next((each for each in snapshot.participants if each.call_sid == call_sid), None)
    if seen is None:
        yield "participant-leave"
        return
    if seen.status == "connected":
        yield "participant-join"
    yield from _flags(seen)


def _flags(call: Leg | Seen | None) -> Iterable[str]:
    """How a call stands, as far as that is told."""
    for flag in FLAGS:
        standing = getattr(call, flag, None)
        if standing is not None:
            yield f"{flag}={str(standing).lower()}"


def _refuses(action: Action, event: Event) -> bool:
    if event.announcement and event.type == "announcement-fail":
        return f"announcement-end {event.announcement}" in action.awaits
    if "participant-join" not in action.awaits:
        return False
    added = event.leg is None or event.leg.reason_left != "participant_add_failed"
    return not added or (event.call is not None and event.call.status in NEVER_ANSWERED)


def state_of(action: Action) -> ActionState:
    """How far an action has got, by all that is known of it."""
    status = action.status
    if action.error == "not sent" or (status is not None and 300 <= status < 500):
        return "failed"
    if action.awaits and set(action.awaits) <= set(action.told):
        return "confirmed"
    if action.refused or (status is not None and status >= 500):
        return "failed"
    if action.expired:
        return "ignored"
    return "requested" if status is None else "accepted"


def _joined(a: Action, b: Action) -> Action:
    """Two records of one action. Neither order nor repetition matters."""
    greater = {}
    for name in a.__struct_fields__:
        words = [word for word in (getattr(a, name), getattr(b, name)) if word is not None]
        greater[name] = max(words) if words else None
    return replace(
        a,
        **{
            **greater,
            "awaits": tuple(sorted({*a.awaits, *b.awaits})),
            "told": tuple(sorted({*a.told, *b.told})),
        },
    )


def _age(action: Action) -> tuple[datetime, str]:
    return (action.requested_at, action.id)
