"""What Twilio's REST API has shown, among what callbacks tell: it mends what was lost, and undoes nothing newer."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from msgspec.structs import replace

from app.conference import Conference, Participant
from app.events import Action, Event, Seen, Snapshot
from app.fold import fold
from app.timeline import timeline
from tests.cast import ACCOUNT, ANNA, BEN, ROOM, at, event, progress, said
from tests.core.test_fold import written

HUNG_UP = {"ReasonParticipantLeft": "participant_hung_up", "ParticipantCallStatus": "completed"}


def seen(call: str, **more: Any) -> Seen:
    flags = {"muted": False, "hold": False, "coaching": False, "start_conference_on_enter": True}
    told = {"status": "connected", "label": {ANNA: "anna", BEN: "ben"}.get(call), **flags}
    return Seen(call_sid=call, **(told | {"end_conference_on_exit": False} | more))


def look(*present: Seen, second: float, after: int, status: str | None = "in-progress", **more: Any) -> Event:
    """What a look showed that was taken then, when `after` was the highest number heard."""
    shown = {"participants": present if status == "in-progress" else None, "region": "us1"}
    snapshot = Snapshot(taken_at=at(second), after=after, status=status, **(shown | more))
    told = f"look {second} {after} {snapshot}"
    return Event(
        id=told, source="snapshot", type="snapshot", account_sid=ACCOUNT, conference_sid=ROOM, snapshot=snapshot
    )


ANNA_JOINS = event(said("participant-join", ANNA, number=1, second=0))
BEN_JOINS = event(said("participant-join", BEN, number=2, second=2))
STARTS = event(said("conference-start", number=3, second=2))
BEGUN = [ANNA_JOINS, BEN_JOINS, STARTS]


def of(conference: Conference, call: str) -> Participant:
    return conference.participants[call]


def folded(*events: Event) -> Conference:
    """The conference, the same in every order of the last four."""
    first, last = events[:-4], events[-4:]
    documents = {written(fold([*first, *some])) for some in permutations(last)}
    assert len(documents) == 1
    return fold(events)


def test_a_flag_whose_callback_was_lost_is_mended_and_marked() -> None:
    lost = event(said("participant-mute", BEN, number=4, second=5, Muted="true"))
    later = event(said("participant-hold", ANNA, number=5, second=8, Hold="true"))
    conference = folded(*BEGUN, later, look(seen(ANNA, hold=True), seen(BEN, muted=True), second=13, after=5))
    ben = of(conference, BEN)
    assert ben.muted is True
    assert ben.facts == {"muted": "reconciled", "muted_seconds": "partial", "muted_since": "reconciled"}
    assert ben.muted_since == at(13)
    assert of(conference, ANNA).facts == {}
    coverage = conference.header.coverage
    assert (coverage.holes, coverage.snapshot_sequence, coverage.fruitless) == (((4, 4),), 5, 0)
    late = fold([*BEGUN, later, look(seen(ANNA, hold=True), seen(BEN, muted=True), second=13, after=5), lost])
    assert of(late, BEN).muted_since == at(5)
    assert of(late, BEN).facts == {}
    assert (late.header.coverage.holes, late.header.coverage.fruitless) == ((), 1)


def test_whoever_is_not_listed_has_left_and_nobody_knows_quite_when() -> None:
    later = event(said("participant-mute", ANNA, number=5, second=8, Muted="true"))
    conference = folded(*BEGUN, later, look(seen(ANNA, muted=True), second=13, after=5))
    ben = of(conference, BEN)
    assert (ben.status, ben.left_at, ben.stays[-1].reconciled) == ("complete", at(13), True)
    assert ben.facts == {"left_at": "reconciled", "stays": "partial", "status": "reconciled"}
    assert conference.header.counts.present == 1


def test_the_leave_that_was_late_tells_when_and_why() -> None:
    shown = look(seen(ANNA), second=13, after=5)
    for second, number in ((7, 4), (13, 6)):  # before the look had been asked for; and as it was taken
        leave = event(said("participant-leave", BEN, number=number, second=second, **HUNG_UP))
        ben = of(folded(*BEGUN, shown, leave), BEN)
        assert [stay.left_at for stay in ben.stays] == [at(second)]
        assert (ben.reason_left, ben.facts) == ("participant_hung_up", {})


def test_whoever_is_listed_is_there_though_nobody_has_told_that_they_came() -> None:
    conference = folded(ANNA_JOINS, look(seen(ANNA), seen(BEN, label="ben"), second=9, after=1))
    ben = of(conference, BEN)
    assert (ben.status, ben.label, ben.joined_at) == ("connected", "ben", None)
    assert ben.facts["status"] == "reconciled"
    assert ben.facts["stays"] == "partial"
    assert conference.header.counts.present == 2
    again = fold([ANNA_JOINS, look(seen(ANNA), seen(BEN), second=9, after=1), BEN_JOINS])
    assert [(stay.joined_at, stay.left_at) for stay in of(again, BEN).stays] == [(at(2), None)]
    assert of(again, BEN).facts == {}


def test_a_look_undoes_nothing_that_came_later_whenever_it_is_folded() -> None:
    unmute = event(said("participant-unmute", BEN, number=6, second=13))
    mute = event(said("participant-mute", BEN, number=4, second=5, Muted="true"))
    conference = folded(*BEGUN, mute, look(seen(ANNA), seen(BEN, muted=True), second=13, after=4), unmute)
    assert of(conference, BEN).muted is False
    assert of(conference, BEN).facts == {}


def test_what_was_on_its_way_when_the_look_was_taken_stands_behind_it_only_if_it_is_later() -> None:
    mute = event(said("participant-mute", BEN, number=4, second=5, Muted="true"))
    unmuted = look(seen(ANNA), seen(BEN), second=13, after=3)  # the unmute was lost
    ben = of(folded(*BEGUN, mute, unmuted), BEN)
    assert (ben.muted, ben.muted_seconds) == (False, 8.0)
    assert ben.facts == {"muted": "reconciled", "muted_seconds": "partial"}


def test_an_event_without_a_time_is_older_only_if_a_later_one_is() -> None:
    hold = event(said("participant-hold", BEN, number=9, second=0, Hold="true") | {"Timestamp": ""})
    unheld = look(seen(ANNA), seen(BEN), second=13, after=3)
    assert of(folded(*BEGUN, hold, unheld), BEN).hold is True
    mute = event(said("participant-mute", BEN, number=10, second=9, Muted="true", Hold="true"))
    assert of(folded(*BEGUN, hold, mute, unheld), BEN).hold is False


@pytest.mark.parametrize("told", [12, 13])
def test_twilios_api_may_lag_so_it_is_not_believed_about_a_call_that_just_spoke_for_itself(told: int) -> None:
    ben = event(said("participant-join", BEN, number=2, second=told))
    lagging = look(seen(ANNA), second=13, after=2, missing=True)
    doubted = fold([ANNA_JOINS, ben, lagging])
    assert of(doubted, BEN).present
    assert doubted.header.coverage.doubted, "another look has to tell"
    believed = fold([ANNA_JOINS, ben, lagging, look(seen(ANNA), second=20, after=2)])
    for conference in (fold([ANNA_JOINS, BEN_JOINS, lagging]), believed):
        assert not of(conference, BEN).present
        assert not conference.header.coverage.doubted
    agreeing = look(seen(ANNA), seen(BEN), second=13, after=2, missing=True)
    nothing_lost = look(seen(ANNA), second=13, after=2)
    for shown in (agreeing, nothing_lost):
        assert not fold([ANNA_JOINS, ben, shown]).header.coverage.doubted


def test_what_may_have_come_and_gone_is_not_known_any_more_once_callbacks_were_lost() -> None:
    speaks = event(said("participant-speech-start", BEN, number=4, second=4))
    later = event(said("participant-mute", ANNA, number=6, second=8, Muted="true"))
    lost = look(seen(ANNA, muted=True), seen(BEN), second=13, after=6, missing=True)
    ben = of(folded(*BEGUN, speaks, later, lost), BEN)
    assert (ben.speaking, ben.speaking_since) == (None, None)
    assert ben.facts == dict.fromkeys(("hold_seconds", "muted_seconds", "talk_seconds"), "partial")
    nothing_lost = look(seen(ANNA, muted=True), seen(BEN), second=13, after=6)
    assert of(fold([*BEGUN, speaks, later, nothing_lost]), BEN).speaking is True


def test_whom_somebody_coaches_only_the_look_tells() -> None:
    coaches = event(said("participant-modify", BEN, number=4, second=4, Coaching="true"))
    shown = look(seen(ANNA), seen(BEN, coaching=True, call_sid_to_coach=ANNA), second=13, after=4)
    ben = of(folded(*BEGUN, coaches, shown), BEN)
    assert (ben.call_sid_to_coach, ben.facts) == (ANNA, {"call_sid_to_coach": "reconciled"})
    stops = event(said("participant-modify", BEN, number=5, second=20))
    assert of(fold([*BEGUN, coaches, shown, stops]), BEN).call_sid_to_coach is None


def test_a_conference_that_twilio_says_is_over_is_closed_with_what_is_known() -> None:
    over = look(
        *(),
        second=100,
        after=3,
        status="completed",
        updated_at=at(40),
        reason_conference_ended="last-participant-left",
        call_sid_ending_conference=BEN,
    )
    header = (conference := folded(*BEGUN, over)).header
    assert (header.status, header.ended_at, header.reason_conference_ended) == (
        *("completed", at(40)),
        "last-participant-left",
    )
    assert header.coverage.facts["status"] == header.coverage.facts["ended_at"] == "reconciled"
    assert header.coverage.complete is False
    assert of(conference, BEN).facts["left_at"] == "inferred"
    assert header.counts.present == 0


def test_the_end_that_callbacks_tell_prevails() -> None:
    over = look(second=100, after=3, status="completed", updated_at=at(41))
    told = event(said("conference-end", number=6, second=40, ReasonConferenceEnded="last-participant-left"))
    header = folded(*BEGUN, over, told).header
    assert (header.ended_at, header.reason_conference_ended) == (at(40), "last-participant-left")
    assert header.coverage.facts == {"created_at": "inferred", "region": "reconciled"}


def test_a_conference_that_twilio_does_not_know_is_over_and_nobody_knows_since_when() -> None:
    header = folded(*BEGUN, look(second=100, after=3, status=None)).header
    assert (header.status, header.ended_at, header.reason_conference_ended) == ("completed", at(100), None)
    assert header.coverage.facts["ended_at"] == "inferred"


@pytest.mark.parametrize("status", [None, "completed"])
def test_a_conference_that_tells_of_itself_after_it_was_found_over_goes_on(status: str | None) -> None:
    over = look(second=20, after=3, status=status)
    mute = event(said("participant-mute", BEN, number=4, second=60, Muted="true"))
    conference = folded(*BEGUN, over, mute)
    assert (conference.header.status, conference.header.ended_at) == ("in-progress", None)
    assert conference.header.counts.present == 2
    assert of(conference, BEN).muted is True
    again = folded(*BEGUN, over, mute, look(second=80, after=4, status=status))
    assert (again.header.status, again.header.ended_at) == ("completed", at(80))


def test_a_look_that_has_shown_nobody_makes_up_for_nothing() -> None:
    later = event(said("participant-mute", BEN, number=5, second=60, Muted="true"))
    coverage = folded(*BEGUN, look(second=20, after=3, status=None), later).header.coverage
    assert (coverage.holes, coverage.snapshot_sequence, coverage.lacks) == (((4, 4),), 0, True)


def test_the_latest_look_tells_whether_it_is_over() -> None:
    first, second = look(second=20, after=3, status=None), look(seen(ANNA), seen(BEN), second=60, after=3)
    assert folded(*BEGUN, first, second).header.status == "in-progress"


def test_what_has_just_begun_may_not_be_known_yet() -> None:
    assert folded(*BEGUN, look(second=3, after=3, status=None)).header.status == "in-progress"
    assert folded(*BEGUN, look(second=3, after=3, status="completed", updated_at=at(3))).header.status == "completed"


def test_a_call_that_never_came_is_given_up() -> None:
    rings = replace(event(progress(BEN, "ringing", number=1, second=3)), conference_sid=ROOM)
    ben = of(fold([ANNA_JOINS, rings, look(seen(ANNA), second=30, after=1)]), BEN)
    assert (ben.status, ben.gone_at, ben.facts) == ("failed", at(30), {"status": "reconciled"})
    listed = look(seen(ANNA), seen(BEN, status="ringing"), second=30, after=1)
    assert of(fold([ANNA_JOINS, rings, listed]), BEN).status == "ringing"
    came = event(said("participant-join", BEN, number=2, second=40))
    ben = of(fold([ANNA_JOINS, rings, look(seen(ANNA), second=30, after=1), came]), BEN)
    assert (ben.status, ben.gone_at, ben.facts) == ("connected", None, {})


def test_a_request_that_no_callback_confirmed_is_confirmed_by_what_the_look_shows() -> None:
    def requested(expired: bool) -> Event:
        action = Action(
            id="a1",
            verb="update-participant",
            by="operator",
            call_sid=BEN,
            requested_at=at(5),
            expires_at=at(35),
            after=3,
            awaits=("muted=true",),
            status=200,
            expired=expired,
        )
        return Event(
            id=f"request {expired}",
            source="control",
            type="control-expired" if expired else "control-answered",
            account_sid=ACCOUNT,
            conference_sid=ROOM,
            call_sid=BEN,
            action=action,
        )

    def state(*events: Event) -> str:
        return folded(*BEGUN, requested(False), requested(True), *events).header.actions[0].state

    assert state() == "ignored"
    assert state(look(seen(ANNA), seen(BEN, muted=True), second=36, after=3)) == "confirmed"
    assert state(look(seen(ANNA), seen(BEN), second=36, after=3)) == "ignored"
    assert state(look(seen(ANNA), seen(BEN, muted=True), second=4, after=3)) == "ignored"


def test_complete_is_a_conference_of_which_everything_was_heard() -> None:
    leaves = [
        event(said("participant-leave", call, number=number, second=number, **HUNG_UP))
        for number, call in ((4, BEN), (5, ANNA))
    ]
    end = event(said("conference-end", number=6, second=6, ReasonConferenceEnded="last-participant-left"))
    whole = [*BEGUN, *leaves, end]
    assert fold(whole).header.coverage.complete is True
    assert fold(whole[:-1]).header.coverage.complete is False, "nobody knows what is still to come"
    for lost in whole[:-1]:
        assert fold([each for each in whole if each is not lost]).header.coverage.complete is False
    assert fold(whole[1:]).header.coverage.from_start is False


def test_the_timeline_tells_of_the_look_and_marks_what_it_has_cut_off() -> None:
    drawn = timeline([*BEGUN, look(seen(ANNA), second=13, after=5)])
    assert [(mark.kind, mark.at) for mark in drawn.marks] == [("conference-start", at(2)), ("look", at(13))]
    ben = next(lane for lane in drawn.lanes if lane.call_sid == BEN)
    assert [(span.state, span.until, span.inferred) for span in ben.spans] == [("here", at(13), True)]
