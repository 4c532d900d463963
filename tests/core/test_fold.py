"""The law: a conference is a function of the set of its events. Order, repeats and batching cannot matter."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.conference import Conference, document, encode
from app.events import Action, Alert, Answer, Call, Ending, Event, Leg, Recording, Seen, Snapshot
from app.fold import Advance, Missing, advance, concerns_everyone, fold, may_have_heard
from app.replay import REMEMBERED, Track, by_call, followed, replayed

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROOM, ACCOUNT = "CF" + "b" * 32, "AC" + "a" * 32
ANNA, BEN, CLEO = ("CA" + letter * 32 for letter in "abc")

LEG_KINDS = [
    *("participant-join", "participant-leave", "participant-mute", "participant-unmute", "participant-hold"),
    *("participant-unhold", "participant-modify", "participant-speech-start", "participant-speech-stop"),
    *("announcement-end", "announcement-fail", "participant-teleport"),
]


def written(conference: Conference) -> bytes:
    """The document, byte for byte."""
    return document(encode(conference.header), map(encode, conference.in_order()))


def arriving(events: Sequence[Event], sizes: Sequence[int], random: Random) -> Conference:
    """The conference as a worker would come to know it: in batches, by the short way where there is one.

    It is handed no more of a conference than the store would, and now and then forgets its tracks.
    """
    conference: Conference | None = None
    log: dict[str, Event] = {}
    tracks: dict[str, Track] = {}
    waiting, batches = list(events), itertools.cycle(sizes)
    while waiting:
        size = next(batches)
        batch, waiting = waiting[:size], waiting[size:]
        fresh = {e.id: e for e in batch if e.id not in log}
        if conference is not None:
            assert all(may_have_heard(conference, e) for e in batch if e.id in log), "a repeat would go unnoticed"
        if not fresh:
            continue
        after = shortcut(conference, list(fresh.values()), tracks, list(log.values())) if conference else None
        log |= fresh
        conference = after.conference if after else fold(log.values())
        if after is None or random.random() < 0.2:
            tracks.clear()
        else:
            tracks |= after.tracks
    assert conference is not None
    return conference


def shortcut(
    conference: Conference, news: Sequence[Event], tracks: Mapping[str, Track], log: Sequence[Event]
) -> Advance | None:
    """What `advance` makes of only those whom the news is about, where it can, put back among the others."""
    everyone = any(map(concerns_everyone, news))
    about = {event.call_sid for event in news}
    known = {sid: each for sid, each in conference.participants.items() if everyone or sid in about}
    after = advance(Conference(conference.header, known), news, tracks)
    if isinstance(after, Missing):
        legs = by_call(log)
        after = advance(
            Conference(conference.header, known), news, tracks, {sid: legs.get(sid, []) for sid in after.histories}
        )
        assert not isinstance(after, Missing), "no more can be known than the whole history"
    if after is None:
        return None
    whole = {**conference.participants, **after.conference.participants}
    return Advance(Conference(after.conference.header, whole), after.tracks)


# Whatever Twilio might send: any numbers, any times, or none.

numbers = st.one_of(st.none(), st.integers(0, 12))
times = st.one_of(st.none(), st.integers(0, 30).map(lambda s: NOON + timedelta(seconds=s / 2)))
flags = st.sampled_from([None, True, False])
calls = st.sampled_from([ANNA, BEN, CLEO])
legs = st.builds(
    Leg,
    label=st.sampled_from([None, "anna", "guest"]),
    muted=flags,
    hold=flags,
    coaching=flags,
    end_conference_on_exit=flags,
    call_status=st.sampled_from([None, "completed", "in-progress", "no-answer"]),
    reason_left=st.sampled_from([None, "participant_hung_up", "participant_add_failed"]),
)
about_a_leg = st.builds(
    dict,
    source=st.just("conference"),
    type=st.sampled_from(LEG_KINDS),
    call_sid=calls,
    sequence=numbers,
    at=times,
    leg=legs,
    announcement=st.sampled_from([None, "https://example.com/a"]),
)
about_the_room = st.builds(
    dict,
    source=st.just("conference"),
    type=st.sampled_from(["conference-start", "conference-end", "announcement-end", "conference-painted"]),
    sequence=numbers,
    at=times,
    friendly_name=st.sampled_from([None, "Stand-up", "Room"]),
    announcement=st.sampled_from([None, "https://example.com/a"]),
    ending=st.builds(Ending, reason=st.sampled_from([None, "last-participant-left"])),
)
about_a_call = st.builds(
    dict,
    source=st.just("call"),
    type=st.just("call"),
    call_sid=calls,
    at=times,
    call=st.builds(
        Call,
        status=st.sampled_from(["initiated", "ringing", "in-progress", "busy", "completed"]),
        to=st.sampled_from([None, "+15550100"]),
        duration=st.sampled_from([None, 7]),
    ),
)
about_a_recording = st.builds(
    dict,
    source=st.just("recording"),
    type=st.just("recording"),
    at=times,
    recording=st.builds(
        Recording,
        sid=st.sampled_from(["RE" + "1" * 32, "RE" + "2" * 32]),
        status=st.sampled_from(["in-progress", "completed", "absent"]),
        duration=st.sampled_from([None, 61]),
    ),
)
AWAITED = [
    *("participant-join", "participant-leave", "participant-modify", "conference-end", "recording-stopped"),
    *("muted=true", "muted=false", "hold=true", "coaching=true", "announcement-end https://example.com/a"),
]
REQUESTED_AT = {f"a{n}": NOON + timedelta(seconds=n * 4 + n / 4) for n in range(6)}
"""Whatever else the records of one action may say: when it was requested they agree on."""
records = st.builds(
    lambda id, **said: Action(id=id, requested_at=REQUESTED_AT[id], **said),
    id=st.sampled_from(sorted(REQUESTED_AT)),
    verb=st.sampled_from(["update-participant", "add-participant", "update-conference"]),
    by=st.just("operator"),
    call_sid=st.one_of(st.none(), calls),
    recording_sid=st.sampled_from([None, "RE" + "1" * 32]),
    expires_at=st.just(NOON + timedelta(seconds=60)),
    after=st.integers(0, 8),
    awaits=st.lists(st.sampled_from(AWAITED), max_size=2, unique=True).map(tuple),
    expired=st.booleans(),
    answered_at=times,
    status=st.sampled_from([None, 200, 201, 404, 500]),
    error=st.sampled_from([None, "not sent", "no answer"]),
)
about_a_request = st.builds(
    lambda action, answer: {
        "source": "control",
        "type": (
            "control-expired"
            if action.expired
            else "control-requested"
            if not action.answered_at
            else "control-answered"
        ),
        "call_sid": action.call_sid,
        "action": action,
        "answer": answer,
    },
    records,
    st.one_of(
        st.none(),
        st.builds(
            Answer,
            created_at=times,
            updated_at=times,
            region=st.sampled_from([None, "us1", "ie1"]),
            label=st.sampled_from([None, "anna", "guest", "somebody"]),
            queue_time=st.sampled_from([None, 0, 1000]),
            call_sid_to_coach=st.one_of(st.none(), calls),
            dialled=st.booleans(),
        ),
    ),
)
sightings = st.builds(
    Seen,
    call_sid=calls,
    status=st.sampled_from([None, "queued", "connecting", "ringing", "connected", "connected", "complete", "failed"]),
    label=st.sampled_from([None, "anna", "guest"]),
    muted=flags,
    hold=flags,
    coaching=flags,
    call_sid_to_coach=st.one_of(st.none(), calls),
    end_conference_on_exit=flags,
    created_at=times,
    updated_at=times,
)
about_a_look = st.builds(
    lambda snapshot, name: {
        "source": "snapshot",
        "type": "snapshot",
        "friendly_name": name,
        "snapshot": snapshot,
    },
    st.builds(
        Snapshot,
        taken_at=st.integers(0, 30).map(lambda s: NOON + timedelta(seconds=s / 2)),
        after=st.integers(0, 12),
        missing=st.booleans(),
        status=st.sampled_from([None, "init", "in-progress", "in-progress", "in-progress", "completed"]),
        region=st.sampled_from([None, "us1", "ie1"]),
        created_at=times,
        updated_at=times,
        reason_conference_ended=st.sampled_from([None, "last-participant-left"]),
        participants=st.one_of(
            st.none(), st.lists(sightings, max_size=3, unique_by=lambda each: each.call_sid).map(tuple)
        ),
    ),
    st.sampled_from([None, "Stand-up"]),
)
about_an_alert = st.builds(
    lambda alert: {"source": "alert", "type": "alert", "alert": alert},
    st.builds(
        Alert,
        rule=st.sampled_from(["hold", "alone"]),
        kind=st.just("hold"),
        subject=st.sampled_from(["", ANNA]),
        since=st.just(NOON),
        at=st.integers(0, 3).map(lambda s: NOON + timedelta(seconds=s)),
        cleared=st.booleans(),
    ),
)
about_anything = st.one_of(
    *(about_a_leg, about_a_leg, about_a_leg, about_a_leg, about_the_room, about_a_call, about_a_recording),
    *(about_a_request, about_a_look, about_an_alert),
)
tellings = st.lists(
    about_anything,
    min_size=1,
    max_size=14,
).map(lambda said: [Event(id=f"{n:02}", account_sid=ACCOUNT, conference_sid=ROOM, **e) for n, e in enumerate(said)])


@settings(max_examples=3000, deadline=None)
@given(tellings, st.randoms(use_true_random=False), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_any_order_any_repeats_any_batches_give_the_same_document(events, random, sizes):
    once = written(fold(events))
    twice = [*events, *random.sample(events, random.randint(0, len(events)))]
    random.shuffle(twice)
    assert written(fold(twice)) == once
    assert written(arriving(twice, sizes, random)) == once


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tellings, st.randoms(use_true_random=False), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_that_holds_too_where_not_all_numbers_can_be_shown(monkeypatch, events, random, sizes):
    for module in ("app.conference", "app.fold"):
        monkeypatch.setattr(f"{module}.SHOWN", 2)
    monkeypatch.setattr("app.actions.ACTIONS_SHOWN", 1)
    shuffled = random.sample(events, len(events))
    assert written(arriving(shuffled, sizes, random)) == written(fold(events))
    numbers = {e.sequence for e in events if e.source == "conference" and e.sequence is not None}
    assert fold(events).header.coverage.missing == len(set(range(1, max(numbers, default=0))) - numbers)


@settings(max_examples=500, deadline=None)
@given(tellings, st.randoms(use_true_random=False))
def test_counts_are_those_of_the_participants_and_intervals_are_open_only_for_those_present(events, random):
    conference = fold(events)
    here = [p for p in conference.participants.values() if p.present]
    assert conference.header.counts.present == len(here)
    assert conference.header.counts.muted == sum(p.muted is True for p in here)
    for p in conference.participants.values():
        assert p.hold_seconds >= 0
        assert p.muted_seconds >= 0
        assert (p.talk_seconds or 0) >= 0
        if not p.present:
            assert (p.muted_since, p.hold_since, p.speaking_since) == (None, None, None)
            assert p.speaking in (None, False)
    if conference.header.status == "completed":
        assert not here


# What needs no history.


def told(kind: str, number: int, **more) -> Event:
    at = NOON + timedelta(seconds=number)
    said = {"id": f"{number:05}", "account_sid": ACCOUNT, "conference_sid": ROOM, "call_sid": ANNA}
    leg = Leg(muted=number % 2 == 0)
    return Event(source="conference", type=kind, sequence=number, at=at, **{"leg": leg, **said, **more})


JOIN = told("participant-join", 1)
TURNS = [told("participant-mute" if n % 2 == 0 else "participant-unmute", n) for n in range(2, 60)]


def walked(events: Sequence[Event]) -> tuple[Conference, dict[str, Track]]:
    """A conference that has heard these one by one, and what is remembered of it."""
    conference, tracks = fold(events[:1]), {}
    for event in events[1:]:
        after = advance(conference, [event], tracks)
        assert isinstance(after, Advance)
        conference, tracks = after
    return conference, tracks


@given(st.integers(1, len(TURNS)), st.integers(1, REMEMBERED - 1))
def test_a_callback_overtaken_by_a_few_of_its_call_needs_no_history(place, by):
    events = [JOIN, *TURNS[:place], *TURNS[place + 1 : place + by]]
    late = TURNS[place : place + 1]
    conference, tracks = walked(events)
    after = advance(conference, late, tracks) if late else Advance(conference, tracks)
    assert isinstance(after, Advance)
    assert written(after.conference) == written(fold([*events, *late]))


def test_a_track_is_the_end_of_the_history_and_no_longer():
    history = [JOIN, *TURNS]
    _, tracks = walked(history)
    assert tracks[ANNA] == replayed(ANNA, history)
    assert len(tracks[ANNA].steps) == REMEMBERED
    assert followed(tracks[ANNA], told("participant-hold", 30)) is None, "that is too long ago"


def test_a_track_that_has_missed_something_is_not_believed():
    events = [JOIN, *TURNS[:6]]
    _, old = walked(events[:-2])
    conference, _ = walked(events)
    assert isinstance(advance(conference, [told("participant-hold", 3, id="late")], old), Missing)


def test_a_leave_told_after_the_end_needs_no_history_of_who_is_remembered():
    conference, tracks = walked([JOIN, *TURNS[:4]])
    end = told("conference-end", 8, call_sid=None, leg=None)
    ended = advance(conference, [end], tracks)
    assert isinstance(ended, Advance)
    assert ended.conference.participants[ANNA].stays[-1].inferred
    leave = told("participant-leave", 7, leg=Leg(reason_left="participant_hung_up"))
    after = advance(ended.conference, [leave], tracks)
    assert isinstance(after, Advance)
    assert written(after.conference) == written(fold([JOIN, *TURNS[:4], end, leave]))


def test_within_a_batch_the_order_of_arrival_costs_nothing():
    after = advance(fold([JOIN]), [TURNS[1], TURNS[3], TURNS[0], TURNS[2]])
    assert isinstance(after, Advance)
    assert written(after.conference) == written(fold([JOIN, *TURNS[:4]]))
