"""The law: a conference is a function of the set of its events. Order, repeats and batching cannot matter."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.conference import Conference, document, encode
from app.events import Action, Answer, Call, Ending, Event, Leg, Recording
from app.fold import advance, fold, may_have_heard

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


def arriving(events: Sequence[Event], sizes: Sequence[int]) -> Conference:
    """The conference as a worker would come to know it: in batches, the short way where there is one."""
    conference: Conference | None = None
    log: dict[str, Event] = {}
    waiting, batches = list(events), itertools.cycle(sizes)
    while waiting:
        size = next(batches)
        batch, waiting = waiting[:size], waiting[size:]
        fresh = {e.id: e for e in batch if e.id not in log}
        if conference is not None:
            assert all(may_have_heard(conference, e) for e in batch if e.id in log), "a repeat would go unnoticed"
        log |= fresh
        if fresh:
            shortcut = advance(conference, list(fresh.values())) if conference else None
            conference = shortcut or fold(log.values())
    assert conference is not None
    return conference


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
tellings = st.lists(
    st.one_of(about_a_leg, about_a_leg, about_a_leg, about_the_room, about_a_call, about_a_recording, about_a_request),
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
    assert written(arriving(twice, sizes)) == once


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tellings, st.randoms(use_true_random=False), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_that_holds_too_where_not_all_numbers_can_be_shown(monkeypatch, events, random, sizes):
    for module in ("app.conference", "app.fold"):
        monkeypatch.setattr(f"{module}.SHOWN", 2)
    monkeypatch.setattr("app.actions.ACTIONS_SHOWN", 1)
    shuffled = random.sample(events, len(events))
    assert written(arriving(shuffled, sizes)) == written(fold(events))
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
