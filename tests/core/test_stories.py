"""Short real stories, in all their orders: the document is the same, and it is the right one."""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest
from msgspec.structs import replace

from app.conference import SHOWN, Conference, Participant
from app.events import Event
from app.fold import fold
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, ROOM, at, event, progress, said
from tests.core.test_fold import arriving, written


def everyones_story() -> list[Event]:
    """Anna waits, Ben comes, Ben is muted and held, Ben hangs up, Anna is the last to go."""
    return [
        event(said("participant-join", ANNA, number=1, second=0)),
        event(said("participant-join", BEN, number=2, second=5)),
        event(said("conference-start", number=3, second=5)),
        event(said("participant-mute", BEN, number=4, second=10, Muted="true")),
        event(said("participant-hold", BEN, number=5, second=12, Muted="true", Hold="true")),
        event(said("participant-unmute", BEN, number=6, second=20, Hold="true")),
        event(
            said(
                *("participant-leave", BEN),
                number=7,
                second=30,
                Hold="true",
                ParticipantCallStatus="completed",
                ReasonParticipantLeft="participant_hung_up",
            )
        ),
    ]


def the_moderator_ends_it() -> list[Event]:
    """Anna's leaving ends the conference; Ben's leave comes numbered after the end."""
    anna = {"EndConferenceOnExit": "true"}
    return [
        event(said("participant-join", ANNA, number=0, second=0, **anna)),
        event(said("participant-join", BEN, number=1, second=1)),
        event(said("participant-speech-start", BEN, number=2, second=4)),
        event(said("participant-leave", ANNA, number=3, second=9, **anna, ReasonParticipantLeft="participant_hung_up")),
        event(
            said(
                "conference-end",
                number=4,
                second=9,
                ReasonConferenceEnded="participant-with-end-conference-on-exit-left",
                CallSidEndingConference=ANNA,
                ParticipantLabelEndingConference="anna",
                Reason=f"Participant {ANNA} with endConferenceOnExit left the conference",
            )
        ),
        event(said("participant-leave", BEN, number=5, second=10, ReasonParticipantLeft="moderator_ended_conference")),
    ]


def a_call_comes_back() -> list[Event]:
    """Ben is sent elsewhere and returns, on hold; nothing is numbered."""
    return [
        event(said("participant-join", BEN, number=None, second=0)),
        event(said("participant-leave", BEN, number=None, second=10, ParticipantCallStatus="in-progress")),
        event(said("participant-join", BEN, number=None, second=20, Hold="true")),
        event(said("participant-unhold", BEN, number=None, second=26)),
        event(said("participant-speech-start", BEN, number=None, second=27)),
        event(said("participant-speech-stop", BEN, number=None, second=29)),
    ]


def a_dial_that_fails() -> list[Event]:
    """Cleo's phone is busy: a leave without a join, and the progress of a call that never was one."""
    failed = {"ReasonParticipantLeft": "participant_add_failed", "ParticipantCallStatus": "busy"}
    filed = [progress(CLEO, "initiated", number=0, second=2), progress(CLEO, "busy", number=1, second=7)]
    return [
        event(said("participant-join", ANNA, number=1, second=0)),
        *(filed_under_the_room(event(told)) for told in filed),
        event(said("participant-leave", CLEO, number=2, second=8, **failed)),
        event(said("conference-end", number=4, second=20, ReasonConferenceEnded="conference-ended-via-api")),
    ]


def filed_under_the_room(progress_event: Event) -> Event:
    """The event as it is once filed under the room."""
    return replace(progress_event, conference_sid=ROOM)


STORIES = [everyones_story, the_moderator_ends_it, a_call_comes_back, a_dial_that_fails]


@pytest.mark.parametrize("story", STORIES)
def test_all_orders_of_a_story_give_one_document(story):
    events = story()
    once = written(fold(events))
    for order in permutations(events):
        assert written(fold(order)) == once


@pytest.mark.parametrize("story", STORIES)
def test_all_orders_of_a_story_arriving_one_by_one_give_that_document(story):
    events = story()[:6]
    once = written(fold(events))
    for order in permutations(events):
        assert written(arriving(order, [1], Random(2026))) == once


def participant(conference: Conference, call: str) -> Participant:
    return conference.participants[call]


def test_mute_and_hold_are_timed_until_they_end_or_the_participant_leaves():
    ben = participant(fold(everyones_story()), BEN)
    assert (ben.muted_seconds, ben.hold_seconds) == (10.0, 18.0)
    assert (ben.status, ben.left_at, ben.reason_left) == ("complete", at(30), "participant_hung_up")
    assert ben.call_status == "completed"


def test_a_conference_with_someone_in_it_is_in_progress_and_knows_when_it_started():
    header = fold(everyones_story()).header
    times = (header.created_at, header.started_at, header.ended_at)
    assert (header.status, times) == ("in-progress", (at(0), at(5), None))
    assert (header.counts.participants, header.counts.present) == (2, 1)


def test_before_the_start_a_lone_participant_is_connected_and_the_start_is_unknown():
    header = fold(everyones_story()[:1]).header
    assert (header.status, header.started_at) == ("in-progress", None)


def test_the_end_says_why_and_a_leave_numbered_after_it_still_counts():
    conference = fold(the_moderator_ends_it())
    header, ben = conference.header, participant(conference, BEN)
    assert header.status == "completed"
    assert header.ended_at == at(9)
    assert header.reason_conference_ended == "participant-with-end-conference-on-exit-left"
    assert (header.call_sid_ending_conference, header.participant_label_ending_conference) == (ANNA, "anna")
    assert (ben.left_at, ben.reason_left, ben.talk_seconds) == (at(10), "moderator_ended_conference", 6.0)
    assert not ben.stays[0].inferred


def test_whoever_was_there_at_the_end_is_taken_to_have_left_with_it():
    ben = participant(fold(the_moderator_ends_it()[:-1]), BEN)
    assert (ben.left_at, ben.reason_left, ben.stays[0].inferred) == (at(9), None, True)
    assert (ben.talk_seconds, ben.speaking, ben.speaking_since) == (5.0, False, None)


def test_an_ended_conference_does_not_resurrect():
    late = event(said("participant-join", CLEO, number=9, second=60))
    conference = fold([*the_moderator_ends_it(), late])
    assert conference.header.status == "completed"
    assert conference.header.counts.present == 0


def test_a_call_that_leaves_and_returns_has_two_stays():
    ben = participant(fold(a_call_comes_back()), BEN)
    assert [(stay.joined_at, stay.left_at) for stay in ben.stays] == [(at(0), at(10)), (at(20), None)]
    assert ben.present
    assert (ben.joined_at, ben.left_at) == (at(0), None)
    assert (ben.hold_seconds, ben.talk_seconds) == (6.0, 2.0)


def test_a_leg_that_never_joined_has_failed_and_no_stay():
    conference = fold(a_dial_that_fails())
    cleo = participant(conference, CLEO)
    assert (cleo.status, cleo.stays, cleo.call_status) == ("failed", (), "busy")
    assert (cleo.from_, cleo.to, cleo.direction) == ("+15550100", "+15550101", "outbound-api")
    assert conference.header.reason_conference_ended == "conference-ended-via-api"
    assert conference.header.call_sid_ending_conference is None


def test_a_ringing_leg_is_ringing():
    told = [filed_under_the_room(event(progress(CLEO, "ringing", number=1, second=3)))]
    assert participant(fold(told), CLEO).status == "ringing"


def test_a_leave_whose_join_was_lost_leaves_a_stay_with_an_unknown_beginning():
    anna = participant(fold([event(said("participant-leave", ANNA, number=3, second=9))]), ANNA)
    assert [(stay.joined_at, stay.left_at) for stay in anna.stays] == [(None, at(9))]


def test_a_conference_known_only_from_a_mute_has_that_participant_in_it():
    conference = fold([event(said("participant-mute", BEN, number=7, second=3, Muted="true"))])
    ben = participant(conference, BEN)
    assert (ben.present, ben.muted, ben.joined_at, ben.status) == (True, True, None, "connected")
    assert conference.header.coverage.holes == ((1, 6),)


def test_a_join_after_a_lost_leave_ends_the_earlier_stay_by_inference():
    told = [said("participant-join", BEN, number=1, second=0), said("participant-join", BEN, number=5, second=9)]
    first, second = participant(fold(map(event, told)), BEN).stays
    assert (first.left_at, first.inferred, second.joined_at, second.left_at) == (at(9), True, at(9), None)


def test_whoever_is_heard_of_behind_a_leave_must_have_come_back():
    told = [
        said("participant-join", BEN, number=1, second=0),
        said("participant-leave", BEN, number=2, second=5),
        said("participant-speech-start", BEN, number=4, second=9),
    ]
    ben = participant(fold(map(event, told)), BEN)
    assert (ben.present, ben.speaking, len(ben.stays), ben.stays[1].joined_at) == (True, True, 2, None)


def test_nobody_stays_in_a_conference_beyond_the_end_of_the_call():
    told = [
        event(said("participant-join", CLEO, number=1, second=0)),
        event(said("participant-hold", CLEO, number=2, second=3, Hold="true")),
        filed_under_the_room(event(progress(CLEO, "completed", number=3, second=8))),
    ]
    for order in permutations(told):
        cleo = participant(arriving(order, [1], Random(2026)), CLEO)
        assert (cleo.present, cleo.left_at, cleo.hold_seconds, cleo.stays[0].inferred) == (False, at(8), 5.0, True)
    leave = event(said("participant-leave", CLEO, number=3, second=8, ReasonParticipantLeft="participant_hung_up"))
    for order in permutations([*told, leave]):
        cleo = participant(arriving(order, [1], Random(2026)), CLEO)
        assert [(s.left_at, s.reason_left, s.inferred) for s in cleo.stays] == [(at(8), "participant_hung_up", False)]


def test_speech_ends_with_a_stay_whose_leave_was_lost():
    told = [
        said("participant-join", BEN, number=1, second=0),
        said("participant-speech-start", BEN, number=2, second=2),
        said("participant-join", BEN, number=5, second=600),
    ]
    ben = participant(fold(map(event, told)), BEN)
    assert (ben.speaking, ben.talk_seconds, ben.speaking_since) == (False, 598.0, None)


def test_without_any_time_nothing_is_timed():
    told = [
        said("participant-join", BEN, number=1, second=0, Hold="true"),
        said("participant-unhold", BEN, number=2, second=5),
    ]
    del told[0]["Timestamp"]
    ben = participant(fold(map(event, told)), BEN)
    assert (ben.joined_at, ben.hold_seconds) == (None, 0.0)


def test_of_very_many_holes_only_the_latest_are_shown_and_all_are_counted():
    told = [event(said("participant-unmute", BEN, number=2 * n, second=n)) for n in range(1, 201)]
    for order in (told, told[::-1]):
        coverage = arriving(order, [7], Random(2026)).header.coverage
        assert len(coverage.sequences) == SHOWN
        assert coverage.missing == 200
        assert coverage.holes[-1] == (399, 399)
    assert (
        written(arriving(told, [1], Random(2026)))
        == written(fold(told))
        == written(arriving(told[::-1], [3], Random(2026)))
    )


def test_speech_that_stops_after_the_leave_does_not_bring_anyone_back():
    told = [
        said("participant-join", BEN, number=1, second=0),
        said("participant-speech-start", BEN, number=2, second=2),
        said("participant-leave", BEN, number=3, second=5),
        said("participant-speech-stop", BEN, number=4, second=5),
    ]
    ben = participant(fold(map(event, told)), BEN)
    assert (ben.present, ben.talk_seconds) == (False, 3.0)


def test_numbers_rule_over_times_and_no_duration_is_negative():
    told = [
        said("participant-mute", BEN, number=2, second=9, Muted="true"),
        said("participant-unmute", BEN, number=3, second=8),
    ]
    ben = participant(fold(map(event, told)), BEN)
    assert (ben.muted, ben.muted_seconds) == (False, 0.0)


def test_two_callbacks_under_one_number_are_both_kept_and_flagged():
    told = [said("participant-join", ANNA, number=1, second=0), said("participant-join", BEN, number=1, second=0)]
    conference = fold(map(event, told))
    assert conference.header.counts.present == 2
    assert conference.header.coverage.conflicts == (1,)


def test_one_callback_told_twice_with_a_difference_counts_once_and_is_flagged():
    told = [said("participant-leave", ANNA, number=2, second=8), said("participant-leave", ANNA, number=2, second=9)]
    conference = fold(map(event, [said("participant-join", ANNA, number=1, second=0), *told]))
    assert len(participant(conference, ANNA).stays) == 1
    assert conference.header.coverage.conflicts == (2,)


def test_no_speech_events_is_not_silence():
    told = [said("participant-join", ANNA, number=1, second=0)]
    anna = participant(fold(map(event, told)), ANNA)
    assert (anna.speaking, anna.talk_seconds) == (None, None)


def test_holes_are_named_and_numbering_may_begin_at_nought():
    told = [said("participant-join", ANNA, number=n, second=n) for n in (0, 1, 4, 5, 8)]
    assert fold(map(event, told)).header.coverage.holes == ((2, 3), (6, 7))
    told = [said("participant-join", ANNA, number=n, second=n) for n in (1, 2)]
    assert fold(map(event, told)).header.coverage.holes == ()


def test_an_unknown_kind_changes_nobody_and_is_named():
    told = [said("participant-join", ANNA, number=1, second=0), said("participant-yawn", BEN, number=2, second=1)]
    conference = fold(map(event, told))
    assert set(conference.participants) == {ANNA}
    assert conference.header.coverage.events == ("participant-join", "participant-yawn")


def test_times_in_iso_8601_count_like_any_other():
    told = [
        said("participant-join", ANNA, number=1, second=0),
        said("participant-leave", ANNA, number=2, second=0) | {"Timestamp": "2026-11-22T12:00:07.250Z"},
    ]
    anna = participant(fold(map(event, told)), ANNA)
    assert anna.left_at == at(7.25)


def test_a_label_and_flags_are_those_last_told():
    told = [
        said("participant-join", ANNA, number=1, second=0),
        said("participant-modify", ANNA, number=2, second=3, Coaching="true", EndConferenceOnExit="true"),
    ]
    anna = participant(fold(map(event, told)), ANNA)
    assert (anna.label, anna.coaching, anna.end_conference_on_exit) == ("anna", True, True)
    assert anna.start_conference_on_enter
    assert fold(map(event, told)).header.counts.coaching == 1


def recorded(status: str, **more: str) -> Event:
    told = {"AccountSid": ACCOUNT, "ConferenceSid": ROOM, "RecordingSid": "RE" + "7" * 32}
    return event(told | {"RecordingStatus": status, "RecordingSource": "Conference"} | more)


def test_a_recording_is_as_far_as_any_callback_has_told_whatever_came_first():
    events = [recorded("completed", RecordingDuration="61"), recorded("in-progress")]
    for order in permutations(events):
        [recording] = fold(order).header.recordings
        assert (recording.status, recording.duration) == ("completed", 61)
