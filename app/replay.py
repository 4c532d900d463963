"""How a call fares in a conference: the events about it, in Twilio's order, applied one after the other.

No other call's events touch it. What call progress and Twilio's answers tell about it only merges. What Twilio's REST
API has shown stands behind every event that it has surely seen, and before every other. What the end of the call or of
the conference cuts off is not here, see `fold`.

`replayed` is the definition. A `Track` remembers the latest steps of it, so that an event which comes a little late is
put into its place without the whole history.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from msgspec.structs import replace

from app.conference import Participant, Stay, Word
from app.events import Answer, Call, Event, Leg, ParticipantStatus, Snapshot

UNTOLD = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands where a time is needed and no callback has told one."""

SETTLED = timedelta(seconds=2)
"""Twilio's REST API may lag behind its callbacks. So long after a callback about a call it is not believed about it."""

REMEMBERED = 8
"""Steps of a track. Callbacks that swap places mostly do so with their neighbours."""

T = TypeVar("T", str, int, datetime, tuple[datetime, str])


class Step(NamedTuple):
    """An event about a call, and the participant just before it."""

    before: Participant
    event: Event


class Track(NamedTuple):
    """How a participant came to be what it is: the latest steps, and where they have led. Nothing is cut off."""

    steps: tuple[Step, ...]
    now: Participant
    corrected_by: frozenset[str] = frozenset()
    """Ids of the looks at Twilio's REST API that have shown something new; known where the call was replayed."""
    doubted: frozenset[str] = frozenset()
    """Ids of those that said otherwise than the call just had of itself, and were not believed."""


def concerns_a_call(event: Event) -> bool:
    """Whether a participant's state hangs on this event. An unknown kind of event changes nobody."""
    return event.call_sid is not None and (
        event.source == "call" or event.answer is not None or (event.source == "conference" and event.type in RULES)
    )


def is_unknown(event: Event) -> bool:
    """Whether this is about a call, in words that have no meaning here."""
    return event.source == "conference" and event.call_sid is not None and event.type not in RULES


def by_call(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Those of these events that a participant's state hangs on, by its call.

    Of a look at Twilio's REST API each call gets what was shown of it, or that it was not listed.
    """
    legs: defaultdict[str, list[Event]] = defaultdict(list)
    looks: list[Event] = []
    for event in events:
        if concerns_a_call(event):
            legs[str(event.call_sid)].append(event)
        elif event.snapshot is not None and event.snapshot.participants is not None:
            looks.append(event)
    seen = [{each.call_sid: each for each in (look.snapshot and look.snapshot.participants) or ()} for look in looks]
    for sid in {*legs, *(sid for each in seen for sid in each)} if looks else ():
        for look, listed in zip(looks, seen, strict=True):
            shown = (listed[sid],) if sid in listed else ()
            legs[sid].append(
                replace(look, call_sid=sid, snapshot=look.snapshot and replace(look.snapshot, participants=shown))
            )
    return legs


def replayed(sid: str, events: list[Event]) -> Track:
    """The participant that these events about its call, each given once, make; in whatever order they are."""
    return _walked([], Participant(call_sid=sid), events)


def replay(sid: str, events: list[Event]) -> Iterator[tuple[datetime, Participant]]:
    """The participant after each of these events about its call, and when that was; `UNTOLD` where nobody knows.

    Each event is given once.
    """
    for before, event, after in _steps(Participant(call_sid=sid), events):
        yield event.snapshot.taken_at if event.snapshot else _moment(before, event), after


def followed(track: Track, event: Event) -> Track | None:
    """The track with one more event, wherever it belongs; None where only the whole history can tell.

    The result is that of `replayed` over the history with the event in it.
    """
    steps, now = track.steps, track.now
    if event.source == "control" and now.label and event.answer and event.answer.label not in (None, now.label):
        return None  # two answers, or an answer and a callback, disagree
    if event.source != "conference":  # merges, whenever it was
        return Track(
            tuple(Step(_applied(before, event), following) for before, following in steps), _applied(now, event)
        )
    if _is_newest(now, event):
        return Track((*steps[1 - REMEMBERED :], Step(now, event)), _applied(now, event))
    if now.last_sequence is None or event.sequence is None:
        return None  # what has no number is placed by its time
    place = next((n for n in reversed(range(len(steps))) if _is_newest(steps[n].before, event)), None)
    if place is None:
        return None
    return _walked(steps[:place], steps[place].before, [event, *(step.event for step in steps[place:])])


def _walked(behind: Iterable[Step], participant: Participant, events: list[Event]) -> Track:
    """The track on which a participant has these steps behind it, and takes those of the events in their order."""
    steps = [*behind]
    corrected_by, doubted = set(), set()
    for before, event, after in _steps(participant, events):
        steps.append(Step(before, event))
        participant = after
        if event.snapshot is not None and _says_otherwise(before, after):
            corrected_by.add(event.id)
        elif event.snapshot is not None and after is before and _says_otherwise(before, _shown(before, event.snapshot)):
            doubted.add(event.id)
    return Track(tuple(steps[-REMEMBERED:]), participant, frozenset(corrected_by), frozenset(doubted))


def _says_otherwise(one: Participant, other: Participant) -> bool:
    """Whether two views of a call differ in what Twilio's REST API shows."""
    return any(getattr(one, name) != getattr(other, name) for name in SHOWN_BY_REST)


def _steps(participant: Participant, events: list[Event]) -> Iterator[tuple[Participant, Event, Participant]]:
    """Each of these events in its order, with the participant before and after it."""
    heard: datetime | None = None
    for event in _ordered(events):
        before = participant
        if event.snapshot is None:
            participant = _applied(participant, event)
            heard = most(heard, event.at if event.source == "conference" else None)
        else:
            participant = _looked_at(participant, event.snapshot, heard or participant.created_at)
        yield before, event, participant


def _ordered(events: list[Event]) -> list[Event]:
    """Twilio's numbers rule; what has no number stands where its time puts it among those that have one.

    Answers to control requests come first: what callbacks say of a label prevails. A look at Twilio's REST API stands
    before the first event that may have happened later: of higher number than it had heard of, and not surely earlier.
    """
    words: dict[tuple[int, str], Event] = {}
    answers: list[Event] = []
    others: list[Event] = []
    looks: list[Event] = []
    for event in sorted(events, key=in_twilios_order):
        if event.source == "control":
            answers.append(event)
        elif event.snapshot is not None:
            looks.append(event)
        elif event.source == "conference" and event.sequence is not None:
            words.setdefault((event.sequence, event.type), event)  # told twice, differently: the first is believed
        else:
            others.append(event)
    if not others and not looks:
        return [*answers, *words.values()]
    clocks: list[datetime] = []
    for event in words.values():
        clocks.append(max(clocks[-1] if clocks else UNTOLD, event.at or UNTOLD))
    gaps = [((bisect_right(clocks, event.at or UNTOLD), event.at or UNTOLD), event) for event in others]
    for look in looks:
        taken, after = _seen_until(look)
        earlier = (
            number <= after or (event.at is not None and clock < taken)
            for (number, _), event, clock in zip(words, words.values(), clocks, strict=True)
        )
        gaps.append(((max((n for n, each in enumerate(earlier, start=1) if each), default=0), taken), look))
    placed = [((place, 0, time, n), event) for n, ((place, time), event) in enumerate(gaps)]
    placed += [((n, 1, UNTOLD, 0), event) for n, event in enumerate(words.values())]
    return [*answers, *(event for _, event in sorted(placed, key=lambda each: each[0]))]


def _seen_until(look: Event) -> tuple[datetime, int]:
    """Everything before this time, and up to this number, a look has surely seen."""
    return (look.snapshot.taken_at, look.snapshot.after) if look.snapshot else (UNTOLD, 0)


def in_twilios_order(event: Event) -> tuple[float, datetime, int, str]:
    """Sorts events by Twilio's number; those without one come last, by their time."""
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
    said = {name: word for name in STANDING if (word := getattr(leg, name)) is not None}
    standing = replace(
        participant,
        **said,
        not_coaching_at=most(participant.not_coaching_at, event.at if leg.coaching is False else None),
        created_at=least(participant.created_at, event.at),
        updated_at=most(participant.updated_at, event.at),
        last_sequence=event.sequence if numbered else None,
        events=participant.events + 1,
        gone_at=None,
        facts=_without(participant.facts, {"status", *said}),
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
    stays = participant.stays
    seen_gone = bool(stays) and stays[-1].reconciled  # and here is when and why
    *past, stay = stays if participant.present or seen_gone else (*stays, Stay())
    left = replace(stay, left_at=at, reason_left=leg.reason_left, call_status=leg.call_status, reconciled=False)
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


def _timed(participant: Participant, at: datetime, *, told: bool = True) -> Participant:
    """Open or close the interval of each state that has just begun or ended. `told`: whether it was just then."""
    changes: dict[str, Any] = {}
    facts = participant.facts
    present = participant.present
    for state, since, total in TIMED:
        holds = present and getattr(participant, state) is True
        began = getattr(participant, since)
        if holds and began is None and at != UNTOLD:
            changes[since] = at
        elif began is not None and not holds:
            changes[since] = None
            seconds = max(0.0, (at - began).total_seconds())
            changes[total] = round((getattr(participant, total) or 0.0) + seconds, 3)
        if since in changes:
            if not told:
                facts = {**facts, total: "partial"}
            facts = {**facts, since: "reconciled"} if holds and not told else _without(facts, {since})
    if not changes:
        return participant
    return replace(participant, **changes, facts=facts)


def _progressed(participant: Participant, event: Event, call: Call) -> Participant:
    ended = event.at if CALL_PROGRESS.get(call.status or "") == OVER else None
    return replace(
        participant,
        call_status=_further(participant.call_status, call.status),
        from_=most(participant.from_, call.from_),
        to=most(participant.to, call.to),
        direction=most(participant.direction, call.direction),
        answered_by=most(participant.answered_by, call.answered_by),
        sip_response_code=most(participant.sip_response_code, call.sip_response_code),
        call_duration=most(participant.call_duration, call.duration),
        call_ended_at=least(participant.call_ended_at, ended),
        created_at=least(participant.created_at, event.at),
        updated_at=most(participant.updated_at, event.at),
    )


def _answered(participant: Participant, answer: Answer) -> Participant:
    """What Twilio's answer to a control request tells of its participant."""
    coached = (answer.updated_at or UNTOLD, answer.call_sid_to_coach) if answer.call_sid_to_coach else None
    return replace(
        participant,
        label=participant.label or answer.label,
        queue_time=least(participant.queue_time, answer.queue_time),
        call_status=participant.call_status if answer.dialled else _further(participant.call_status, "in-progress"),
        coach_told=most(participant.coach_told, coached),
        created_at=least(participant.created_at, answer.created_at),
        updated_at=most(participant.updated_at, answer.updated_at),
    )


def _looked_at(participant: Participant, snapshot: Snapshot, heard: datetime | None) -> Participant:
    """What is believed of what Twilio's REST API showed of a call that was last `heard` of then."""
    if heard is not None and heard > snapshot.taken_at - SETTLED:
        return participant
    return _shown(participant, snapshot)


def _shown(participant: Participant, snapshot: Snapshot) -> Participant:
    """What Twilio's REST API showed of a call."""
    at = snapshot.taken_at
    seen = next(iter(snapshot.participants or ()), None)
    if seen is None or seen.status in ("complete", "failed"):
        return _summed(_seen_gone(participant, at))
    said = {name: word for name in STANDING if getattr(participant, name) != (word := getattr(seen, name)) is not None}
    facts: dict[str, Word] = {**participant.facts, **dict.fromkeys(said, "reconciled")}
    created_at = least(participant.created_at, seen.created_at)
    if created_at != participant.created_at:
        facts["created_at"] = "reconciled"
    if snapshot.missing and participant.stays:  # what was lost may have come and gone
        facts.update((total, "partial") for *_, total in TIMED if getattr(participant, total) is not None)
    stays, call_status = participant.stays, participant.call_status
    if seen.status not in ("connected", None):
        call_status = _further(call_status, CALL_STATUS[seen.status]) if not stays else call_status
    elif not participant.present:
        stays = (*stays, Stay())
        facts["status"] = "reconciled"
    shown = replace(
        participant,
        **said,
        stays=stays,
        call_status=call_status,
        gone_at=None,
        not_coaching_at=most(participant.not_coaching_at, at if seen.coaching is False else None),
        coach_told=most(participant.coach_told, (at, seen.call_sid_to_coach) if seen.call_sid_to_coach else None),
        created_at=created_at,
        updated_at=most(participant.updated_at, seen.updated_at),
        facts=facts,
    )
    if snapshot.missing and shown.speaking is not None:
        shown = replace(shown, speaking=None)
    return _summed(_timed(shown, at, told=False))


def _seen_gone(participant: Participant, at: datetime) -> Participant:
    """A call that Twilio's REST API does not list: it has left, or will not come."""
    if participant == Participant(call_sid=participant.call_sid):
        return participant  # is first heard of later
    if not participant.present:
        over = participant.stays or participant.reason_left or _before_joining(participant) in ("failed", "complete")
        return participant if over else replace(participant, gone_at=at)
    *past, stay = participant.stays
    left = replace(stay, left_at=max(at, stay.joined_at or at), reconciled=True)
    return _timed(_silenced(replace(participant, stays=(*past, left))), at, told=False)


def _summed(participant: Participant) -> Participant:
    """What follows from the stays, and from the flags."""
    stays, coach_told = participant.stays, participant.coach_told
    if coach_told is not None or participant.call_sid_to_coach is not None:
        holds = participant.coaching and coach_told and coach_told[0] >= (participant.not_coaching_at or UNTOLD)
        participant = replace(participant, call_sid_to_coach=coach_told[1] if holds and coach_told else None)
    if not stays:
        return _sourced(replace(participant, status=_before_joining(participant)))
    return _sourced(
        replace(
            participant,
            status="connected" if participant.present else "complete",
            joined_at=stays[0].joined_at,
            left_at=stays[-1].left_at,
            reason_left=stays[-1].reason_left,
        )
    )


def _sourced(participant: Participant) -> Participant:
    """How those facts are known that follow from others."""
    facts: dict[str, Word] = {}
    if participant.call_sid_to_coach is not None:
        facts["call_sid_to_coach"] = "reconciled"
    if participant.gone_at is not None:
        facts["status"] = "reconciled"
    if participant.stays and not participant.present:
        last = participant.stays[-1]
        word: Word | None = "reconciled" if last.reconciled else "inferred" if last.inferred else None
        if word is not None:
            facts["status"] = facts["left_at"] = word
    if any(stay.joined_at is None or stay.reconciled for stay in participant.stays):
        facts["stays"] = "partial"
    if any(stay.joined_at is None for stay in participant.stays):
        facts.update((total, "partial") for *_, total in TIMED if getattr(participant, total) is not None)
    if participant.facts.get("created_at") == "reconciled":
        facts["created_at"] = "reconciled"
    elif participant.stays and participant.stays[0].joined_at is None and participant.created_at is not None:
        facts["created_at"] = "inferred"
    if not facts and not participant.facts:
        return participant  # nearly always
    told = _without(participant.facts, FOLLOWING - {"status"} if participant.present else FOLLOWING)
    return replace(participant, facts=dict(sorted({**told, **facts}.items())))


def _without(facts: dict[str, Word], names: Set[str]) -> dict[str, Word]:
    return {name: word for name, word in facts.items() if name not in names} if facts else facts


def _before_joining(participant: Participant) -> ParticipantStatus:
    if participant.reason_left or participant.gone_at:
        return "failed"
    return BEFORE_JOINING.get(participant.call_status or "", "queued")


def cut_off(participant: Participant, at: datetime) -> Participant:
    """Whoever is still in a conference, once its call, or the conference itself, has ended."""
    *past, stay = participant.stays
    left = max(at, stay.joined_at or at)
    stays = (*past, replace(stay, left_at=left, inferred=True))
    return _summed(_timed(_silenced(replace(participant, stays=stays)), left))


# Merging two words: neither order nor repetition matters.


def least(a: T | None, b: T | None) -> T | None:
    """The lesser of two words, or whichever was said."""
    return b if a is None else a if b is None else min(a, b)


def most(a: T | None, b: T | None) -> T | None:
    """The greater of two words, or whichever was said."""
    return b if a is None else a if b is None else max(a, b)


def _further(a: str | None, b: str | None) -> str | None:
    return max((a, b), key=lambda status: (CALL_PROGRESS.get(status or "", -1), status or ""))


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

STANDING = ("label", "muted", "hold", "coaching", "start_conference_on_enter", "end_conference_on_exit")
"""What an event's word on its call replaces in the participant."""

FOLLOWING = frozenset(["call_sid_to_coach", "created_at", "left_at", "status", "stays"])
"""Facts that follow from others, each time anew."""

SHOWN_BY_REST = (*STANDING, "status", "call_sid_to_coach", "stays")
"""What a look at Twilio's REST API may correct."""

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
CALL_STATUS = {"queued": "queued", "connecting": "initiated", "ringing": "ringing"}
"""A call's status from its participant's, while it has not joined."""

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
