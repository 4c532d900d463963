"""What a request does to a conference, and what is told of it: on a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.simulator.exchange import CONFERENCES_KEPT, Exchange, Missing, Refusal
from app.simulator.stories import story

ACCOUNT = "AC" + "0a" * 16
NOON = datetime(2026, 11, 5, 12, tzinfo=UTC)
HOOK, PROGRESS, RECORDED = "http://hook.example/c", "http://hook.example/p", "http://hook.example/r"
ALL = "start end join leave mute hold modify speaker announcement"
ROOM = "CF" + "b" * 32
ANNA, BEN = "CA" + "1" * 32, "CA" + "2" * 32
untimed = settings(deadline=None)


class Bench:
    """An exchange, its clock, and all that it has told."""

    def __init__(self) -> None:
        self.now = NOON
        self.told: list[tuple[str | None, dict[str, str]]] = []
        self._agenda: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = count()
        self.exchange = Exchange(
            ACCOUNT, self._send, self._later, clock=lambda: self.now, random_bits=Random(1).getrandbits
        )

    def _send(self, url: str | None, parameters: Mapping[str, str]) -> None:
        self.told.append((url, dict(parameters)))

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._agenda.append((self.now + timedelta(seconds=seconds), next(self._order), what))

    def wait(self, seconds: float = 20) -> None:
        """Let so much time pass, and all that was to happen in it."""
        until = self.now + timedelta(seconds=seconds)
        while due := sorted(entry for entry in self._agenda if entry[0] <= until):
            self._agenda.remove(due[0])
            self.now = due[0][0]
            due[0][2]()
        self.now = until

    def add(self, label: str = "", room: str = "Kitchen", **form: str) -> dict[str, Any]:
        """Dial somebody into a room with every callback, and wait for the answer."""
        hooks = {"ConferenceStatusCallback": HOOK, "ConferenceStatusCallbackEvent": ALL}
        number = {"From": "+12065550100", "To": "+12065550101"}
        leg = self.exchange.create_participant(room, {**hooks, **number, "Label": label, **form})
        self.wait()
        return leg

    def events(self) -> list[dict[str, str]]:
        """Conference events since the last time, whose numbers must be dense."""
        told = [parameters for _, parameters in self.told if "StatusCallbackEvent" in parameters]
        numbers: dict[str, list[int]] = {}
        for parameters in told:
            numbers.setdefault(parameters["ConferenceSid"], []).append(int(parameters["SequenceNumber"]))
        assert all(of_one == list(range(of_one[0], of_one[0] + len(of_one))) for of_one in numbers.values())
        self.told.clear()
        return told

    def kinds(self) -> list[str]:
        """What those events are."""
        return [parameters["StatusCallbackEvent"] for parameters in self.events()]

    def say(self, event: str, call: str | None = None, *, room: str = ROOM, **more: str) -> bool:
        """A story's callback; flags are false unless told."""
        told = {
            "AccountSid": ACCOUNT,
            "ConferenceSid": room,
            "FriendlyName": "Stand-up",
            "StatusCallbackEvent": event,
            "SequenceNumber": "77",
            "Timestamp": "Thu, 05 Nov 2026 12:00:00 +0000",
        }
        if call:
            flags = dict.fromkeys(("Muted", "Hold", "Coaching", "EndConferenceOnExit"), "false")
            told |= {"CallSid": call, **flags, "StartConferenceOnEnter": "true"}
        return self.exchange.play(room, told | more)

    def leave(self, call: str, reason: str = "participant_hung_up", **more: str) -> bool:
        """A story's leave."""
        return self.say(
            "participant-leave", call, ParticipantCallStatus="completed", ReasonParticipantLeft=reason, **more
        )

    def present(self, room: str) -> dict[str | None, str]:
        """Status by label, newest first."""
        listed = (each for _, each in self.exchange.list_participants(room, {}))
        return {each["label"]: each["status"] for each in listed if each}


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def pair(bench: Bench) -> Bench:
    """A story in which Anna and Ben have met."""
    bench.say("participant-join", ANNA, ParticipantLabel="anna")
    bench.say("participant-join", BEN, ParticipantLabel="ben")
    bench.say("conference-start")
    assert bench.kinds() == ["participant-join", "participant-join", "conference-start"]
    return bench


# Dialling


def test_a_participant_is_queued_dialled_rings_answers_and_joins(bench: Bench) -> None:
    leg = bench.exchange.create_participant(
        "Kitchen", {"From": "+12065550100", "To": "client:ann", "StatusCallback": PROGRESS}
    )
    assert (leg["status"], leg["queue_time"]) == ("queued", "0")
    seen = []
    for _ in range(30):
        bench.wait(0.1)
        seen.append(bench.exchange.fetch_participant(leg["conference_sid"], leg["call_sid"]))
    statuses = list(dict.fromkeys(each["status"] for each in seen))
    assert statuses == ["queued", "connecting", "ringing", "connected"]
    assert {each["queue_time"] for each in seen} == {None}
    assert bench.exchange.fetch_conference(leg["conference_sid"])["status"] == "in-progress"


def test_flags_and_label_of_the_creation_are_honoured_and_told(bench: Bench) -> None:
    agent = bench.add("agent")
    bench.events()
    leg = bench.add(
        "boss",
        Muted="true",
        Hold="true",
        EndConferenceOnExit="true",
        StartConferenceOnEnter="false",
        CallSidToCoach=agent["call_sid"],
    )
    join, start = bench.events()
    assert (join["StatusCallbackEvent"], start["StatusCallbackEvent"]) == ("participant-join", "conference-start")
    assert (
        join.items()
        >= {
            "ParticipantLabel": "boss",
            "Muted": "true",
            "Hold": "true",
            "Coaching": "true",
            "EndConferenceOnExit": "true",
            "StartConferenceOnEnter": "false",
        }.items()
    )
    assert (leg["coaching"], leg["call_sid_to_coach"]) == (True, agent["call_sid"])


def test_a_conference_does_not_start_while_nobody_may_start_it(bench: Bench) -> None:
    bench.add(StartConferenceOnEnter="false")
    bench.add(StartConferenceOnEnter="false")
    assert bench.kinds() == ["participant-join"] * 2
    bench.add()
    assert bench.kinds() == ["participant-join", "conference-start"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("initiated ringing answered completed", ["initiated", "ringing", "in-progress", "completed"]),
        ("answered", ["in-progress"]),
        ("", ["completed"]),
    ],
)
def test_call_progress_is_told_as_subscribed_and_numbered_from_zero(bench: Bench, asked: str, told: list[str]) -> None:
    leg = bench.add(StatusCallback=PROGRESS, StatusCallbackEvent=asked)
    bench.exchange.delete_participant(leg["conference_sid"], leg["call_sid"])
    progress = [parameters for url, parameters in bench.told if url == PROGRESS]
    assert [one["CallStatus"] for one in progress] == told
    assert [one["SequenceNumber"] for one in progress] == [str(number) for number in range(len(told))]
    assert {(one["CallSid"], one["CallbackSource"]) for one in progress} == {(leg["call_sid"], "call-progress-events")}
    assert all(("CallDuration" in one) == (one["CallStatus"] == "completed") for one in progress)


def test_a_number_that_ends_in_0199_never_answers(bench: Bench) -> None:
    bench.add("host")
    bench.events()
    leg = bench.add("ghost", To="+12065550199", StatusCallback=PROGRESS)
    assert [one["CallStatus"] for url, one in bench.told if url == PROGRESS] == ["no-answer"]
    [leave] = bench.events()
    assert (
        leave.items()
        >= {
            "StatusCallbackEvent": "participant-leave",
            "CallSid": leg["call_sid"],
            "ParticipantCallStatus": "no-answer",
            "ReasonParticipantLeft": "participant_add_failed",
        }.items()
    )
    assert bench.present(leg["conference_sid"]) == {"host": "connected"}


def test_a_conference_whose_only_call_is_not_answered_ends(bench: Bench) -> None:
    leg = bench.add(To="+12065550199", EndConferenceOnExit="true")
    assert bench.kinds() == ["participant-leave", "conference-end"]
    conference = bench.exchange.fetch_conference(leg["conference_sid"])
    assert (conference["status"], conference["reason_conference_ended"]) == ("completed", "last-participant-left")


def test_who_is_kicked_before_an_answer_is_not_dialled_any_more(bench: Bench) -> None:
    bench.add("host")
    bench.events()
    form = {"From": "+12065550100", "To": "+12065550101", "Label": "late", "StatusCallback": PROGRESS}
    leg = bench.exchange.create_participant("Kitchen", form)
    bench.wait(1)
    bench.exchange.delete_participant(leg["conference_sid"], "late")
    bench.wait()
    assert [one["CallStatus"] for url, one in bench.told if url == PROGRESS] == ["canceled"]
    [leave] = bench.events()
    assert (leave["ParticipantCallStatus"], leave["ReasonParticipantLeft"]) == ("canceled", "participant_add_failed")


def test_a_room_is_found_by_name_or_sid_and_a_name_is_used_again_after_the_end(bench: Bench) -> None:
    first = bench.add("one")["conference_sid"]
    assert bench.add("two")["conference_sid"] == first
    assert bench.add("three", room=first)["conference_sid"] == first
    bench.exchange.update_conference(first, {"Status": "completed"})
    assert bench.add("one")["conference_sid"] != first
    with pytest.raises(Missing):
        bench.add("four", room=first)


def test_the_first_participant_decides_where_callbacks_go_and_which(bench: Bench) -> None:
    bench.add("one", ConferenceStatusCallbackEvent="")
    leg = bench.add("two", ConferenceStatusCallback=PROGRESS)
    bench.exchange.update_participant(leg["conference_sid"], "two", {"Muted": "true"})
    bench.exchange.update_conference(leg["conference_sid"], {"Status": "completed"})
    assert {url for url, _ in bench.told} == {HOOK}
    assert bench.kinds() == ["conference-start", "conference-end"]


def test_without_a_callback_url_nothing_is_told(bench: Bench) -> None:
    leg = bench.add(ConferenceStatusCallback="")
    bench.exchange.update_conference(leg["conference_sid"], {"Status": "completed"})
    assert bench.told == []


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"To": ""}, 21201),
        ({"From": ""}, 21213),
        ({"To": "somebody"}, 21211),
        ({"StatusCallback": "/relative"}, 21205),
        ({"ConferenceStatusCallback": "http://user:pass@host/"}, 21205),
        ({"WaitUrl": "http://[broken"}, 21205),
        ({"MaxParticipants": "many"}, 20001),
        ({"Label": "host"}, 16025),
        ({"MaxParticipants": "1"}, 16020),
        ({"CallSidToCoach": ANNA}, 20001),
        ({"Coaching": "true"}, 20001),
    ],
)
def test_a_creation_that_cannot_be_is_refused_and_does_nothing(bench: Bench, form: dict[str, str], code: int) -> None:
    sid = bench.add("host")["conference_sid"]
    bench.events()
    with pytest.raises(Refusal) as refusal:
        bench.add(**form)
    assert (refusal.value.status, refusal.value.code) == (400, code)
    assert bench.told == []
    assert bench.present(sid) == {"host": "connected"}


def test_a_refused_creation_makes_no_conference(bench: Bench) -> None:
    with pytest.raises(Refusal):
        bench.add(CallSidToCoach=ANNA)
    assert bench.exchange.list_conferences({"Status": "init"}) == []


# Updates


@pytest.mark.parametrize(
    ("form", "kinds"),
    [
        ({"Muted": "true"}, ["participant-mute"]),
        ({"Muted": "false"}, []),
        ({"Muted": "yes"}, []),
        ({"Hold": "true", "HoldUrl": "http://music.example/"}, ["participant-hold"]),
        ({"Muted": "true", "Hold": "true"}, ["participant-mute", "participant-hold"]),
        ({"EndConferenceOnExit": "true"}, ["participant-modify"]),
        ({"EndConferenceOnExit": "false"}, []),
        ({"BeepOnExit": "false"}, ["participant-modify"]),
        ({"WaitUrl": "http://music.example/", "EndConferenceOnExit": "true"}, ["participant-modify"]),
        ({"Anything": "else"}, []),
    ],
)
def test_an_update_is_told_only_where_something_changes(bench: Bench, form: dict[str, str], kinds: list[str]) -> None:
    sid = bench.add("ann/1")["conference_sid"]
    bench.events()
    bench.exchange.update_participant(sid, "ann/1", form)
    assert bench.kinds() == kinds


def test_what_was_muted_and_held_is_unmuted_and_unheld(bench: Bench) -> None:
    sid = bench.add("ann", Muted="true", Hold="true")["conference_sid"]
    bench.events()
    answer = bench.exchange.update_participant(sid, "ann", {"Muted": "false", "Hold": "false"})
    assert (answer["muted"], answer["hold"]) == (False, False)
    unmute, unhold = bench.events()
    assert (unmute["StatusCallbackEvent"], unmute["Muted"], unmute["Hold"]) == ("participant-unmute", "false", "true")
    assert (unhold["StatusCallbackEvent"], unhold["Hold"]) == ("participant-unhold", "false")


def test_coaching_begins_moves_on_and_ends(bench: Bench) -> None:
    ann, ben, cleo = (bench.add(name) for name in ("ann", "ben", "cleo"))
    sid = ann["conference_sid"]
    bench.events()

    def update(**form: str) -> tuple[str | None, list[str]]:
        answer = bench.exchange.update_participant(sid, "ann", form)
        assert answer["coaching"] == (answer["call_sid_to_coach"] is not None)
        return answer["call_sid_to_coach"], [event["Coaching"] for event in bench.events()]

    assert update(Coaching="true", CallSidToCoach=ben["call_sid"]) == (ben["call_sid"], ["true"])
    assert update(Coaching="true") == (ben["call_sid"], [])
    assert update(CallSidToCoach=cleo["call_sid"]) == (cleo["call_sid"], ["true"])
    assert update(Muted="true") == (cleo["call_sid"], ["true"])
    assert update(Coaching="false") == (None, ["false"])
    with pytest.raises(Refusal):
        update(Coaching="true")


@pytest.mark.parametrize("to_one", [True, False])
def test_an_announcement_ends_a_moment_later(bench: Bench, to_one: bool) -> None:
    leg = bench.add("ann")
    bench.events()
    form = {"AnnounceUrl": "http://announce.example/"}
    if to_one:
        bench.exchange.update_participant(leg["conference_sid"], "ann", form)
    else:
        bench.exchange.update_conference(leg["conference_sid"], form)
    assert bench.told == []
    bench.wait()
    [end] = bench.events()
    assert (end["StatusCallbackEvent"], end["AnnounceUrl"]) == ("announcement-end", form["AnnounceUrl"])
    assert end.get("CallSid") == (leg["call_sid"] if to_one else None)


def test_an_announcement_outlasts_its_hearer_but_not_the_conference(bench: Bench) -> None:
    bench.add("ann")
    sid = bench.add("ben")["conference_sid"]
    form = {"AnnounceUrl": "http://announce.example/"}
    bench.exchange.update_participant(sid, "ben", form)
    bench.exchange.delete_participant(sid, "ben")
    bench.events()
    bench.wait()
    [end] = bench.events()
    assert "CallSid" not in end
    bench.exchange.update_conference(sid, {**form, "Status": "completed"})
    bench.events()
    bench.wait()
    assert bench.told == []


def test_who_is_not_there_yet_cannot_be_muted(bench: Bench) -> None:
    bench.add("host")
    leg = bench.exchange.create_participant("Kitchen", {"From": "+12065550100", "To": "+12065550101"})
    with pytest.raises(Refusal) as refusal:
        bench.exchange.update_participant(leg["conference_sid"], leg["call_sid"], {"Muted": "true"})
    assert refusal.value.code == 21220


# Ends


def test_who_is_kicked_leaves_and_the_others_stay(bench: Bench) -> None:
    sid = bench.add("ann")["conference_sid"]
    ben = bench.add("ben")
    bench.events()
    bench.exchange.delete_participant(sid, "ben")
    [leave] = bench.events()
    assert (leave["CallSid"], leave["ParticipantCallStatus"]) == (ben["call_sid"], "completed")
    assert leave["ReasonParticipantLeft"] == "participant_updated_via_api"
    assert bench.present(sid) == {"ann": "connected"}
    with pytest.raises(Missing):
        bench.exchange.fetch_participant(sid, ben["call_sid"])


def test_kicking_the_last_one_ends_the_conference(bench: Bench) -> None:
    leg = bench.add("ann")
    sid = leg["conference_sid"]
    bench.events()
    bench.exchange.delete_participant(sid, "ann")
    leave, end = bench.events()
    assert leave["ReasonParticipantLeft"] == "participant_updated_via_api"
    assert (
        end.items()
        >= {
            "StatusCallbackEvent": "conference-end",
            "ReasonConferenceEnded": "last-participant-kicked",
            "CallSidEndingConference": leg["call_sid"],
            "ParticipantLabelEndingConference": "ann",
        }.items()
    )
    assert "CallSid" not in end
    conference = bench.exchange.fetch_conference(sid)
    assert (conference["status"], conference["call_sid_ending_conference"]) == ("completed", leg["call_sid"])
    assert bench.present(sid) == {}


def test_kicking_one_with_end_conference_on_exit_sends_everyone_home(bench: Bench) -> None:
    sid = bench.add("host", EndConferenceOnExit="true")["conference_sid"]
    bench.add("guest")
    bench.events()
    bench.exchange.delete_participant(sid, "host")
    host, guest, end = bench.events()
    assert host["ReasonParticipantLeft"] == "participant_updated_via_api"
    assert (guest["ParticipantLabel"], guest["ReasonParticipantLeft"]) == ("guest", "moderator_ended_conference")
    assert end["ReasonConferenceEnded"] == "participant-with-end-conference-on-exit-kicked"


def test_a_conference_is_ended_and_then_takes_nothing_more(bench: Bench) -> None:
    sid = bench.add("ann")["conference_sid"]
    bench.add("ben")
    bench.events()
    answer = bench.exchange.update_conference(sid, {"Status": "completed"})
    assert (answer["status"], answer["reason_conference_ended"]) == ("completed", "conference-ended-via-api")
    assert answer["call_sid_ending_conference"] is None
    *leaves, end = bench.events()
    assert [leave["ReasonParticipantLeft"] for leave in leaves] == ["conference_ended_via_api"] * 2
    assert end["ReasonConferenceEnded"] == "conference-ended-via-api"
    assert "CallSidEndingConference" not in end
    with pytest.raises(Refusal) as refusal:
        bench.exchange.update_conference(sid, {"Status": "completed"})
    assert refusal.value.status == 400
    for call in (bench.exchange.fetch_participant, bench.exchange.delete_participant):
        with pytest.raises(Missing):
            call(sid, "ann")
    with pytest.raises(Missing):
        bench.exchange.update_participant(sid, "ann", {"Muted": "true"})
    assert bench.told == []


def test_a_conference_cannot_be_set_to_anything_but_completed(bench: Bench) -> None:
    sid = bench.add("ann")["conference_sid"]
    with pytest.raises(Refusal) as refusal:
        bench.exchange.update_conference(sid, {"Status": "in-progress"})
    assert (refusal.value.status, refusal.value.code) == (400, 20001)


# Recordings


def recorded(bench: Bench, events: str = "in-progress completed") -> tuple[str, str]:
    """A conference that is being recorded, and its recording."""
    record = {
        "ConferenceRecord": "true",
        "ConferenceRecordingStatusCallback": RECORDED,
        "ConferenceRecordingStatusCallbackEvent": events,
    }
    sid = bench.add("ann", **record)["conference_sid"]
    bench.add("ben")
    [(recording, _)] = bench.exchange.list_recordings(sid, {})
    return sid, recording


def test_a_recording_begins_with_the_conference_and_is_completed_after_it(bench: Bench) -> None:
    sid, recording = recorded(bench)
    bench.wait(60)
    bench.exchange.update_conference(sid, {"Status": "completed"})
    bench.wait()
    begun, completed = [parameters for url, parameters in bench.told if url == RECORDED]
    assert (begun["RecordingStatus"], completed["RecordingStatus"]) == ("in-progress", "completed")
    assert begun["RecordingSid"] == completed["RecordingSid"] == recording
    assert int(completed["RecordingDuration"]) > 60
    shown = bench.exchange.fetch_recording(sid, recording)
    assert (shown["status"], shown["duration"]) == ("completed", completed["RecordingDuration"])


def test_of_a_recording_only_its_completion_is_told_unless_asked(bench: Bench) -> None:
    sid, _ = recorded(bench, events="")
    bench.exchange.update_recording(sid, "Twilio.CURRENT", {"Status": "stopped"})
    bench.wait()
    assert [told["RecordingStatus"] for url, told in bench.told if url == RECORDED] == ["completed"]


def test_a_recording_is_paused_resumed_and_stopped_once(bench: Bench) -> None:
    sid, recording = recorded(bench, "completed")
    for status in ("paused", "in-progress", "stopped"):
        shown = bench.exchange.update_recording(sid, "Twilio.CURRENT", {"Status": status})
        assert (shown["sid"], shown["status"], shown["price"]) == (recording, status, None)
    assert not [url for url, _ in bench.told if url == RECORDED]
    bench.wait()
    assert bench.exchange.fetch_recording(sid, recording)["status"] == "completed"
    with pytest.raises(Missing):
        bench.exchange.update_recording(sid, "Twilio.CURRENT", {"Status": "paused"})
    with pytest.raises(Refusal) as refusal:
        bench.exchange.update_recording(sid, recording, {"Status": "paused"})
    assert refusal.value.code == 21220


@pytest.mark.parametrize("form", [{}, {"Status": "completed"}])
def test_a_recording_cannot_be_set_to_anything_else(bench: Bench, form: dict[str, str]) -> None:
    sid, recording = recorded(bench)
    with pytest.raises(Refusal) as refusal:
        bench.exchange.update_recording(sid, recording, form)
    assert (refusal.value.status, refusal.value.code) == (400, 20001)


def test_of_a_deleted_recording_nothing_more_is_told(bench: Bench) -> None:
    sid, recording = recorded(bench, "completed")
    bench.exchange.update_recording(sid, recording, {"Status": "stopped"})
    bench.exchange.delete_recording(sid, recording)
    bench.wait()
    assert not [url for url, _ in bench.told if url == RECORDED]
    assert bench.exchange.list_recordings(sid, {}) == []
    with pytest.raises(Missing):
        bench.exchange.fetch_recording(sid, recording)


# What is there


def test_ended_conferences_are_forgotten_in_the_end_and_live_ones_are_not(bench: Bench) -> None:
    live = bench.add(room="Live")["conference_sid"]
    ended = bench.add(room="Ended")["conference_sid"]
    bench.exchange.update_conference(ended, {"Status": "completed"})
    for number in range(CONFERENCES_KEPT):
        bench.exchange.create_participant(f"{number}", {"From": "+12065550100", "To": "+12065550101"})
    assert bench.exchange.fetch_conference(live)["status"] == "in-progress"
    with pytest.raises(Missing):
        bench.exchange.fetch_conference(ended)


@pytest.mark.parametrize("sid", ["Kitchen", "CF123", "CA" + "1" * 32])
def test_where_a_sid_is_needed_a_name_is_no_method(bench: Bench, sid: str) -> None:
    bench.add()
    with pytest.raises(Refusal) as refusal:
        bench.exchange.fetch_conference(sid)
    assert (refusal.value.status, refusal.value.code) == (405, 20004)


def test_a_pretence_answers_the_same_and_changes_nothing(bench: Bench) -> None:
    sid = bench.add("ann")["conference_sid"]
    bench.events()
    pretence = bench.exchange.pretence()
    assert pretence.update_participant(sid, "ann", {"Muted": "true"})["muted"] is True
    assert pretence.update_conference(sid, {"Status": "completed"})["status"] == "completed"
    bench.wait()
    assert bench.told == []
    assert bench.exchange.fetch_participant(sid, "ann")["muted"] is False


# Stories


@untimed
@given(st.integers(0, 2**32))
def test_a_story_that_nobody_interferes_with_is_told_word_for_word(seed: int) -> None:
    bench, callbacks = Bench(), story(Random(seed), ACCOUNT, NOON)
    sid = next(c.parameters["ConferenceSid"] for c in callbacks)
    assert all(bench.exchange.play(sid, callback.parameters) for callback in callbacks)
    assert [told for _, told in bench.told] == [callback.parameters for callback in callbacks]
    assert {url for url, _ in bench.told} == {None}
    assert bench.exchange.fetch_conference(sid)["status"] == "completed"


def test_who_is_in_a_story_is_shown(pair: Bench) -> None:
    pair.say("participant-mute", ANNA, ParticipantLabel="anna", Muted="true")
    pair.leave(BEN)
    [(_, ben), (_, anna)] = pair.exchange.list_participants(ROOM, {})
    assert ben is None
    assert (anna["label"], anna["muted"], anna["status"]) == ("anna", True, "connected")
    assert pair.exchange.fetch_conference(ROOM)["friendly_name"] == "Stand-up"


def test_a_flag_that_rest_set_stays_until_the_story_changes_it(pair: Bench) -> None:
    pair.exchange.update_participant(ROOM, "anna", {"Muted": "true"})
    pair.say("participant-hold", ANNA, Hold="true")
    pair.say("participant-mute", ANNA, Hold="true", Muted="true")
    pair.say("participant-unmute", ANNA, Hold="true", Muted="false")
    told = [(event["StatusCallbackEvent"], event["Muted"], event["Hold"]) for event in pair.events()]
    assert told == [
        ("participant-mute", "true", "false"),
        ("participant-hold", "true", "true"),
        ("participant-unmute", "false", "true"),
    ]


def test_who_was_muted_by_rest_does_not_begin_to_speak(pair: Bench) -> None:
    pair.say("participant-speech-start", ANNA)
    pair.exchange.update_participant(ROOM, "anna", {"Muted": "true"})
    pair.exchange.update_participant(ROOM, "ben", {"Hold": "true"})
    for event, call in (("stop", ANNA), ("start", BEN), ("stop", BEN), ("start", ANNA), ("stop", ANNA)):
        pair.say(f"participant-speech-{event}", call)
    assert pair.kinds() == [
        "participant-speech-start",
        "participant-mute",
        "participant-hold",
        "participant-speech-stop",
    ]


def test_the_story_goes_on_without_whom_rest_has_kicked(pair: Bench) -> None:
    pair.exchange.delete_participant(ROOM, "ben")
    pair.events()
    assert pair.say("participant-mute", BEN, Muted="true")
    assert pair.leave(BEN)
    assert pair.say("participant-join", BEN)
    assert pair.say("participant-mute", ANNA, Muted="true")
    assert [event["CallSid"] for event in pair.events()] == [ANNA]


def test_when_a_storys_last_one_leaves_after_a_kick_the_conference_ends(pair: Bench) -> None:
    pair.exchange.delete_participant(ROOM, "ben")
    pair.events()
    assert not pair.leave(ANNA)
    assert not pair.leave(BEN)
    leave, end = pair.events()
    assert leave["ReasonParticipantLeft"] == "participant_hung_up"
    assert (end["ReasonConferenceEnded"], end["CallSidEndingConference"]) == ("last-participant-left", ANNA)


def test_a_story_whose_host_was_kicked_ends_in_truth(pair: Bench) -> None:
    pair.say("participant-join", "CA" + "3" * 32, ParticipantLabel="cleo", EndConferenceOnExit="true")
    pair.exchange.update_participant(ROOM, "cleo", {"EndConferenceOnExit": "false"})
    pair.exchange.delete_participant(ROOM, "cleo")
    pair.events()
    pair.leave("CA" + "3" * 32)
    assert not pair.leave(ANNA, "moderator_ended_conference")
    *leaves, end = pair.events()
    assert [leave["ReasonParticipantLeft"] for leave in leaves] == ["participant_hung_up"] * 2
    assert end["ReasonConferenceEnded"] == "last-participant-left"


def test_a_storys_end_by_the_api_takes_a_guest_along(pair: Bench) -> None:
    guest = pair.add("guest", room=ROOM)
    assert pair.kinds() == ["participant-join"]
    assert not pair.say("conference-end", ReasonConferenceEnded="conference-ended-via-api")
    *leaves, end = pair.events()
    assert [leave["CallSid"] for leave in leaves] == [ANNA, BEN, guest["call_sid"]]
    assert {leave["ReasonParticipantLeft"] for leave in leaves} == {"conference_ended_via_api"}
    assert end["ReasonConferenceEnded"] == "conference-ended-via-api"


def test_a_flag_set_by_rest_makes_a_storys_leave_the_end(pair: Bench) -> None:
    pair.exchange.update_participant(ROOM, "anna", {"EndConferenceOnExit": "true"})
    pair.events()
    assert not pair.leave(ANNA)
    anna, ben, end = pair.events()
    assert anna["EndConferenceOnExit"] == "true"
    assert ben["ReasonParticipantLeft"] == "moderator_ended_conference"
    assert end["ReasonConferenceEnded"] == "participant-with-end-conference-on-exit-left"


def test_a_guest_lets_a_waiting_conference_start_and_the_story_does_not_start_it_again(bench: Bench) -> None:
    bench.say("participant-join", ANNA)
    bench.add("guest", room="Stand-up")
    assert bench.kinds() == ["participant-join", "participant-join", "conference-start"]
    bench.say("participant-join", BEN)
    bench.say("conference-start")
    assert bench.kinds() == ["participant-join"]


def test_of_a_story_that_rest_has_ended_nothing_more_is_told(pair: Bench) -> None:
    pair.exchange.update_conference(ROOM, {"Status": "completed"})
    assert pair.kinds() == ["participant-leave", "participant-leave", "conference-end"]
    assert not pair.say("participant-mute", ANNA, Muted="true")
    assert not pair.exchange.play(ROOM, {"CallSid": ANNA, "CallStatus": "completed", "SequenceNumber": "3"})
    assert pair.told == []


def test_calls_that_a_story_has_dialled_are_over_when_rest_ends_its_conference(pair: Bench) -> None:
    pair.say("participant-mute", BEN, Muted="true")
    for call, status in ((ANNA, "in-progress"), ("CA" + "9" * 32, "ringing")):
        pair.exchange.play(ROOM, {"CallSid": call, "To": "+1", "CallStatus": status, "SequenceNumber": "2"})
    pair.told.clear()
    pair.exchange.update_conference(ROOM, {"Status": "completed"})
    progress = {told["CallSid"]: told for _, told in pair.told if "CallStatus" in told}
    assert progress[ANNA].items() >= {"CallStatus": "completed", "SequenceNumber": "3", "To": "+1"}.items()
    assert progress["CA" + "9" * 32]["CallStatus"] == "canceled"


def test_a_storys_recording_is_stopped_by_rest_and_completed_once(pair: Bench) -> None:
    told = {"ConferenceSid": ROOM, "RecordingSid": "RE" + "4" * 32, "RecordingStatus": "in-progress"}
    pair.exchange.play(ROOM, told)
    pair.exchange.update_recording(ROOM, "Twilio.CURRENT", {"Status": "stopped"})
    pair.wait()
    pair.exchange.play(ROOM, told | {"RecordingStatus": "completed", "RecordingDuration": "99"})
    assert [one["RecordingStatus"] for _, one in pair.told] == ["in-progress", "completed"]


def test_who_stops_everything_ends_every_conference_in_one_word(pair: Bench) -> None:
    pair.add("guest", room="Kitchen")
    pair.events()
    pair.exchange.end_all()
    assert pair.kinds() == ["conference-end", "conference-end"]
    assert pair.exchange.live_names() == set()


CHOICES = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 5), st.integers(0, 30)),
    min_size=1,
    max_size=8,
    unique_by=lambda c: c[0],
)


@untimed
@given(st.integers(0, 2**32), CHOICES)
def test_whatever_rest_does_to_a_story_what_is_told_stays_consistent(
    seed: int, interference: list[tuple[int, int, int]]
) -> None:
    bench, callbacks = Bench(), story(Random(seed), ACCOUNT, NOON)
    sid = next(c.parameters["ConferenceSid"] for c in callbacks)
    doings = {place % len(callbacks): (what, whom) for place, what, whom in interference}
    for place, callback in enumerate(callbacks):
        bench.exchange.play(sid, callback.parameters)
        if place in doings:
            interfere(bench, sid, *doings[place])
        bench.wait(callback.at - callbacks[place - 1].at if place else 0)
    bench.wait(60)
    consistent(bench.events())


def interfere(bench: Bench, sid: str, what: int, whom: int) -> None:
    present = [each for _, each in bench.exchange.list_participants(sid, {}) if each]
    live = bench.exchange.fetch_conference(sid)["status"] != "completed"
    if what == 5 and live:
        bench.exchange.create_participant(sid, {"From": "+12065550100", "To": "+12065550101"})
    if not present:
        return
    one = present[whom % len(present)]
    if what == 4:
        bench.exchange.delete_participant(sid, one["call_sid"])
    elif what == 3 and whom > 25:
        bench.exchange.update_conference(sid, {"Status": "completed"})
    elif what < 4 and one["status"] == "connected":
        name, now = [("Muted", "muted"), ("Hold", "hold"), ("EndConferenceOnExit", "end_conference_on_exit")][what % 3]
        bench.exchange.update_participant(sid, one["call_sid"], {name: str(not one[now]).lower()})


def consistent(told: list[dict[str, str]]) -> None:
    """Numbers are dense from 1, nobody acts who is not there, changes change, and there is one start and one end."""
    assert [int(event["SequenceNumber"]) for event in told] == list(range(1, len(told) + 1))
    kinds = [event["StatusCallbackEvent"] for event in told]
    assert kinds.count("conference-end") == 1
    assert kinds.count("conference-start") <= 1
    assert set(kinds[kinds.index("conference-end") + 1 :]) <= {"participant-leave"}
    present: dict[str, dict[str, str]] = {}
    for kind, event in zip(kinds, told, strict=True):
        if "CallSid" not in event:
            continue
        call = event["CallSid"]
        flags = {name: event[name] for name in ("Muted", "Hold", "Coaching", "EndConferenceOnExit")}
        if kind == "participant-join":
            assert call not in present
        elif kind == "participant-leave" and event["ReasonParticipantLeft"] == "participant_add_failed":
            assert call not in present
            continue
        elif kind == "participant-leave":
            assert present.pop(call) == flags
            continue
        elif kind in ("participant-mute", "participant-unmute", "participant-hold", "participant-unhold"):
            name, on = ("Muted" if "mute" in kind else "Hold"), str("-un" not in kind).lower()
            assert present[call] != flags == present[call] | {name: on}
        elif kind == "participant-modify":
            assert present[call] != flags
        else:
            assert present[call] == flags
        present[call] = flags
    assert not present


def test_stamps_are_the_clocks(bench: Bench) -> None:
    bench.add("ann")
    [join] = bench.events()
    stamp = join["Timestamp"]
    assert stamp.startswith("Thu, 05 Nov 2026 12:00:")
    assert NOON < parsedate_to_datetime(stamp) <= bench.now
