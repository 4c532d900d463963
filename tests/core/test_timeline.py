"""The timeline says what the document says, spread out in time; order and repeats cannot matter to it either."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.conference import ACTIONS_SHOWN, encode
from app.events import Answer, Event
from app.fold import fold
from app.replay import UNTOLD
from app.timeline import Mark, Span, Timeline, timeline
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, ROOM, at, event, progress, said
from tests.core.test_actions import action, record
from tests.core.test_fold import tellings
from tests.core.test_stories import (
    STORIES,
    a_call_comes_back,
    a_dial_that_fails,
    everyones_story,
    filed_under_the_room,
    the_moderator_ends_it,
)

TOTALS = {"muted": "muted_seconds", "hold": "hold_seconds", "speaking": "talk_seconds"}
SINCE = {"muted": "muted_since", "hold": "hold_since", "speaking": "speaking_since"}


def spans(drawn: Timeline, call: str, state: str) -> list[Span]:
    """The spans of one state in one lane."""
    [lane] = [lane for lane in drawn.lanes if lane.call_sid == call]
    return [span for span in lane.spans if span.state == state]


def bounds(drawn: Timeline, call: str, state: str) -> list[tuple[datetime | None, datetime | None]]:
    """When they begin and end."""
    return [(span.from_, span.until) for span in spans(drawn, call, state)]


def marks(drawn: Timeline, kind: str) -> list[Mark]:
    """The marks of one kind."""
    return [mark for mark in drawn.marks if mark.kind == kind]


def check_agreement(events: list[Event]) -> None:
    """Whatever the document says of times, the timeline says too."""
    conference, drawn = fold(events), timeline(events)
    people = conference.in_order()
    assert [(lane.call_sid, lane.label) for lane in drawn.lanes] == [(one.call_sid, one.label) for one in people]
    for one in people:
        for state, total in TOTALS.items():
            told = spans(drawn, one.call_sid, state)
            closed = sum((s.until - s.from_).total_seconds() for s in told if s.until and s.from_)
            assert closed == (getattr(one, total) or 0)
            since = getattr(one, SINCE[state])
            assert [s.from_ for s in told if s.until is None] == ([since] if since else [])
        here = [stay for stay in one.stays if stay.left_at != UNTOLD]
        assert [(s.from_, s.until, s.inferred) for s in spans(drawn, one.call_sid, "here")] == [
            (stay.joined_at, stay.left_at and max(stay.left_at, stay.joined_at or stay.left_at), not_told)
            for stay in here
            for not_told in [stay.inferred or stay.reconciled or stay.joined_at is None]
        ]
        coaching = [s for s in spans(drawn, one.call_sid, "coaching") if s.until is None]
        assert not coaching or (one.present and one.coaching)
    shown = {(mark.id, mark.state) for mark in marks(drawn, "action")}
    assert {(told.id, told.state) for told in conference.header.actions} <= shown


def check_frame(drawn: Timeline, *, ended: bool) -> None:
    """All that is shown lies within the timeline's own bounds, and nothing ends before it begins."""
    everything = [span for lane in drawn.lanes for span in lane.spans]
    starts, ends = [span.from_ for span in everything], [span.until for span in everything]
    moments = [moment for moment in [*starts, *ends, *(mark.at for mark in drawn.marks)] if moment is not None]
    assert all(drawn.from_ is not None and drawn.from_ <= moment for moment in moments)
    assert all(s.from_ <= s.until for s in everything if s.from_ and s.until)
    assert [mark.at for mark in drawn.marks] == sorted(mark.at for mark in drawn.marks)
    if ended:
        assert None not in ends
        assert all(drawn.until is not None and moment <= drawn.until for moment in moments)
    else:
        assert drawn.until is None


# The laws.


@settings(max_examples=700, deadline=None)
@given(tellings, st.randoms(use_true_random=False))
def test_any_order_and_any_repeats_give_the_same_timeline(events, random):
    twice = [*events, *random.sample(events, random.randint(0, len(events)))]
    random.shuffle(twice)
    assert encode(timeline(twice)) == encode(timeline(events))


@settings(max_examples=1000, deadline=None)
@given(tellings)
def test_spans_add_up_to_the_documents_totals_and_those_that_go_on_are_its_open_intervals(events):
    check_agreement(events)


@settings(max_examples=700, deadline=None)
@given(tellings)
def test_everything_lies_within_the_bounds_and_nothing_goes_on_after_the_end(events):
    check_frame(timeline(events), ended=fold(events).header.status == "completed")


@pytest.mark.parametrize("story", STORIES)
def test_all_orders_of_a_story_give_one_timeline_that_agrees_with_the_document(story):
    events = story()
    once = timeline(events)
    check_agreement(events)
    check_frame(once, ended=fold(events).header.status == "completed")
    for order in permutations(events):
        assert timeline(order) == once


def test_of_nothing_there_is_an_empty_timeline():
    assert encode(timeline([])) == b'{"from":null,"until":null,"lanes":[],"marks":[]}'


# Presence.


def test_a_lane_has_a_span_for_each_stay_and_those_of_its_states_over_it():
    drawn = timeline(a_call_comes_back())
    assert bounds(drawn, BEN, "here") == [(at(0), at(10)), (at(20), None)]
    assert bounds(drawn, BEN, "hold") == [(at(20), at(26))]
    assert bounds(drawn, BEN, "speaking") == [(at(27), at(29))]
    assert (drawn.from_, drawn.until) == (at(0), None)


def test_a_span_is_as_short_in_json_as_what_is_known_of_it():
    [lane] = timeline([event(said("participant-leave", ANNA, number=3, second=9))]).lanes
    assert encode(lane.spans) == b'[{"state":"here","from":null,"until":"2026-11-22T12:00:09Z","inferred":true}]'
    [lane] = timeline([event(said("participant-join", ANNA, number=1, second=0))]).lanes
    assert encode(lane.spans[0]) == b'{"state":"here","from":"2026-11-22T12:00:00Z","until":null}'


def test_a_leave_that_follows_from_the_end_is_marked():
    [stay] = spans(timeline(the_moderator_ends_it()[:-1]), BEN, "here")
    assert (stay.from_, stay.until, stay.inferred) == (at(1), at(9), True)
    [stay] = spans(timeline(the_moderator_ends_it()), BEN, "here")
    assert (stay.until, stay.inferred) == (at(10), False)


def test_speech_is_cut_off_by_the_end_as_in_the_document():
    assert bounds(timeline(the_moderator_ends_it()[:-1]), BEN, "speaking") == [(at(4), at(9))]


def test_a_stay_that_ends_before_it_began_by_twilios_clock_is_empty():
    told = [said("participant-join", BEN, number=1, second=9), said("participant-leave", BEN, number=2, second=8)]
    assert bounds(timeline(map(event, told)), BEN, "here") == [(at(9), at(9))]


def test_a_stay_without_any_time_is_not_drawn_once_it_is_over():
    told = said("participant-leave", BEN, number=2, second=8)
    del told["Timestamp"]
    drawn = timeline([event(told)])
    assert [lane.spans for lane in drawn.lanes] == [()]
    assert (drawn.from_, drawn.until) == (None, None)


def test_coaching_lasts_until_it_is_taken_back_or_the_coach_leaves():
    coach = {"Coaching": "true"}
    told = [
        said("participant-join", ANNA, number=1, second=0, **coach),
        said("participant-modify", ANNA, number=2, second=5),
        said("participant-modify", ANNA, number=3, second=7, **coach),
        said("participant-leave", ANNA, number=4, second=9, **coach),
    ]
    assert bounds(timeline(map(event, told)), ANNA, "coaching") == [(at(0), at(5)), (at(7), at(9))]
    assert bounds(timeline(map(event, told[:3])), ANNA, "coaching") == [(at(0), at(5)), (at(7), None)]


def test_coaching_without_any_time_is_drawn_from_the_next_time_on():
    told = [
        said("participant-join", ANNA, number=1, second=0, Coaching="true"),
        said("participant-mute", ANNA, number=2, second=4, Coaching="true", Muted="true"),
    ]
    del told[0]["Timestamp"]
    assert bounds(timeline(map(event, told)), ANNA, "coaching") == [(at(4), None)]


def test_a_state_that_began_and_ended_in_one_second_is_an_empty_span():
    told = [
        said("participant-join", ANNA, number=1, second=0),
        said("participant-speech-start", ANNA, number=2, second=3),
        said("participant-speech-stop", ANNA, number=3, second=3),
    ]
    assert bounds(timeline(map(event, told)), ANNA, "speaking") == [(at(3), at(3))]


# Waiting.


def waiting(drawn: Timeline, call: str) -> list[tuple[datetime | None, datetime | None, bool]]:
    """From when until when somebody waited, and whether its end was inferred."""
    return [(span.from_, span.until, span.inferred) for span in spans(drawn, call, "waiting")]


def test_whoever_came_first_waits_until_the_conference_starts():
    drawn = timeline(everyones_story())
    assert waiting(drawn, ANNA) == [(at(0), at(5), False)]
    assert waiting(drawn, BEN) == []


def test_whoever_is_alone_waits_still_or_has_waited_in_vain():
    told = [
        event(said("participant-join", ANNA, number=1, second=0)),
        event(said("participant-leave", ANNA, number=2, second=40)),
    ]
    assert waiting(timeline(told[:1]), ANNA) == [(at(0), None, False)]
    assert waiting(timeline(told), ANNA) == [(at(0), at(40), False)]


def test_where_no_start_was_told_two_of_whom_one_may_start_it_end_the_waiting():
    guest = {"StartConferenceOnEnter": "false"}
    told = [
        event(said("participant-join", ANNA, number=1, second=0, **guest)),
        event(said("participant-join", BEN, number=2, second=10, **guest)),
    ]
    both = timeline(told)
    assert (waiting(both, ANNA), waiting(both, BEN)) == ([(at(0), None, False)], [(at(10), None, False)])
    moderated = timeline([*told, event(said("participant-join", CLEO, number=3, second=15))])
    assert waiting(moderated, ANNA) == [(at(0), at(15), True)]
    assert waiting(moderated, BEN) == [(at(10), at(15), True)]
    assert waiting(moderated, CLEO) == []


def test_one_who_left_before_the_other_came_did_not_start_it():
    told = [
        said("participant-join", ANNA, number=1, second=0),
        said("participant-leave", ANNA, number=2, second=10),
        said("participant-join", BEN, number=3, second=10),
    ]
    drawn = timeline(map(event, told))
    assert (waiting(drawn, ANNA), waiting(drawn, BEN)) == ([(at(0), at(10), False)], [(at(10), None, False)])


def test_one_who_was_gone_within_a_second_did_not_start_it():
    told = [
        said("participant-join", ANNA, number=1, second=0),
        said("participant-leave", ANNA, number=2, second=0),
        said("participant-join", BEN, number=3, second=10),
    ]
    assert waiting(timeline(map(event, told)), BEN) == [(at(10), None, False)]


def test_one_of_whom_it_was_not_told_may_start_it():
    told = [said("participant-join", who, number=n, second=n) for n, who in enumerate((ANNA, BEN), start=1)]
    for each in told:
        del each["StartConferenceOnEnter"]
    assert waiting(timeline(map(event, told)), ANNA) == [(at(1), at(2), True)]


def test_nobody_is_said_to_wait_who_may_have_been_there_since_anytime():
    told = [said("participant-mute", BEN, number=4, second=3), said("participant-join", ANNA, number=5, second=9)]
    drawn = timeline(map(event, told))
    assert (waiting(drawn, ANNA), waiting(drawn, BEN)) == ([], [])


# Dialling.


def dialled(status: str, second: int, **more: str) -> Event:
    """Progress of Cleo's call."""
    return filed_under_the_room(event(progress(CLEO, status, number=second, second=second, **more)))


def dialling(events: Iterable[Event]) -> list[tuple[datetime | None, datetime | None, bool]]:
    """From when until when Cleo was dialled, and whether its end was inferred."""
    return [(span.from_, span.until, span.inferred) for span in spans(timeline(events), CLEO, "dialling")]


def test_a_call_is_dialled_until_it_joins():
    calling = [dialled("initiated", 2), dialled("ringing", 4)]
    assert dialling(calling) == [(at(2), None, False)]
    answered = [*calling, dialled("in-progress", 8), event(said("participant-join", CLEO, number=3, second=9))]
    assert dialling(answered) == [(at(2), at(9), False)]


def test_a_call_is_dialled_until_it_fails():
    assert dialling(a_dial_that_fails()) == [(at(2), at(7), False)]
    unsaid = [told for told in a_dial_that_fails() if told.call is None or told.call.status != "busy"]
    assert dialling(unsaid) == [(at(2), at(8), False)]


def test_a_call_that_rang_when_the_conference_ended_was_dialled_until_then():
    told = [dialled("ringing", 2), event(said("conference-end", number=4, second=20))]
    assert dialling(told) == [(at(2), at(20), True)]


def test_a_call_whose_join_was_lost_was_dialled_until_it_was_heard():
    told = [dialled("ringing", 2), event(said("participant-mute", CLEO, number=4, second=20, Muted="true"))]
    assert dialling(told) == [(at(2), at(20), True)]


def test_somebody_who_calls_in_is_not_dialled():
    told = [dialled("ringing", 2, Direction="inbound"), event(said("participant-join", CLEO, number=1, second=9))]
    assert dialling(told) == []


def test_a_call_made_through_us_is_dialled_from_twilios_answer_on():
    request = action(verb="add-participant", call_sid=CLEO)
    answered = replace(record(request), answer=Answer(created_at=at(5), dialled=True))
    assert dialling([answered]) == [(at(5), None, False)]
    seen = replace(record(request), answer=Answer(created_at=at(5)))
    assert dialling([seen]) == []


# Marks.


def test_start_and_end_are_marked_with_who_ended_it_and_why():
    drawn = timeline([*the_moderator_ends_it(), event(said("conference-start", number=9, second=1))])
    assert [(mark.kind, mark.at, mark.call_sid, mark.text) for mark in drawn.marks] == [
        ("conference-start", at(1), None, None),
        ("conference-end", at(9), ANNA, "participant-with-end-conference-on-exit-left"),
    ]
    assert (drawn.from_, drawn.until) == (at(0), at(10))


def test_announcements_are_marked_where_they_ended_or_failed():
    url = "https://example.com/welcome.mp3"
    told = [
        said("announcement-end", number=3, second=8, AnnounceUrl=url),
        said("announcement-fail", ANNA, number=2, second=6, AnnounceUrl=url),
    ]
    assert [(mark.kind, mark.at, mark.call_sid, mark.text) for mark in timeline(map(event, told)).marks] == [
        ("announcement-fail", at(6), ANNA, url),
        ("announcement-end", at(8), None, url),
    ]


def test_marks_of_one_second_stand_in_one_order():
    told = [event(said("announcement-end", who, number=n, second=8)) for n, who in enumerate((ANNA, BEN, CLEO))]
    for order in permutations(told):
        assert [mark.call_sid for mark in timeline(order).marks] == [ANNA, BEN, CLEO]


def test_a_recording_is_marked_where_it_began_as_far_as_it_has_got():
    told = {"AccountSid": ACCOUNT, "ConferenceSid": ROOM, "RecordingSid": "RE" + "7" * 32}
    began = {"RecordingStartTime": "Sun, 22 Nov 2026 12:00:04 +0000"}
    events = [event(told | {"RecordingStatus": status} | began) for status in ("in-progress", "completed")]
    [mark] = timeline(events).marks
    assert (mark.kind, mark.at, mark.sid, mark.status) == ("recording", at(4), "RE" + "7" * 32, "completed")
    assert timeline([event(told | {"RecordingStatus": "completed"})]).marks == ()


def test_control_requests_are_marked_with_what_became_of_them():
    muted = event(said("participant-mute", ANNA, number=6, second=7, Muted="true"))
    [mark] = marks(timeline([record(action()), muted]), "action")
    assert encode(mark) == (
        b'{"kind":"action","at":"2026-11-22T12:00:05Z","call_sid":"%b","id":"a1","verb":"update-participant",'
        b'"state":"confirmed","by":"operator"}' % ANNA.encode()
    )


def test_all_control_requests_are_marked_though_a_document_shows_only_the_newest():
    count = 2 * ACTIONS_SHOWN + 5
    made = [action(id=f"a{n:03}", requested_at=at(5 + n), expires_at=at(35 + n)) for n in range(count)]
    muted = event(said("participant-mute", ANNA, number=6, second=7, Muted="true"))
    events = [*map(record, made), muted]
    assert len(fold(events).header.actions) == ACTIONS_SHOWN
    drawn = marks(timeline(events), "action")
    assert [(mark.id, mark.at) for mark in drawn] == [(one.id, one.requested_at) for one in made]
    assert {mark.state for mark in drawn} == {"confirmed"}


def test_what_has_no_meaning_here_confirms_no_control_request():
    yawn = event(said("participant-yawn", ANNA, number=6, second=7, Muted="true"))
    [mark] = marks(timeline([record(action()), yawn]), "action")
    assert mark.state == "accepted"


def test_the_first_moment_shown_may_be_a_requests():
    drawn = timeline([record(action()), event(said("participant-join", ANNA, number=1, second=60))])
    assert drawn.from_ == at(0) + timedelta(seconds=5)
