"""Made-up conferences are told as Twilio documents them."""

import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.simulator.stories import Callback, shuffled, story

ACCOUNT = "AC" + "0a" * 16
START = datetime(2026, 11, 1, 9, 30, 15, 250_000, tzinfo=UTC)

COMMON = {
    "AccountSid",
    "ConferenceSid",
    "FriendlyName",
    "SequenceNumber",
    "Timestamp",
    "StatusCallbackEvent",
}
LEG = {"CallSid", "Muted", "Hold", "Coaching", "EndConferenceOnExit", "StartConferenceOnEnter"}
FLAGS = LEG - {"CallSid"}
ONE_LEG = {
    "participant-join",
    "participant-mute",
    "participant-unmute",
    "participant-hold",
    "participant-unhold",
    "participant-modify",
    "participant-speech-start",
    "participant-speech-stop",
}
DOCUMENTED = ONE_LEG | {
    "participant-leave",
    "conference-start",
    "conference-end",
    "announcement-end",
    "announcement-fail",
}
ENDINGS = {
    "conference-ended-via-api": "conference_ended_via_api",
    "last-participant-kicked": "participant_updated_via_api",
    "last-participant-left": "participant_hung_up",
    "participant-with-end-conference-on-exit-kicked": "participant_updated_via_api",
    "participant-with-end-conference-on-exit-left": "participant_hung_up",
}
GEOGRAPHY = {side + part for side in ("From", "To", "Caller", "Called") for part in ("City", "State", "Zip", "Country")}
PROGRESS = GEOGRAPHY | {
    "AccountSid",
    "ApiVersion",
    "CallSid",
    "CallStatus",
    "CallbackSource",
    "Called",
    "Caller",
    "Direction",
    "From",
    "SequenceNumber",
    "Timestamp",
    "To",
}
RECORDING = {
    "AccountSid",
    "ConferenceSid",
    "RecordingChannels",
    "RecordingSid",
    "RecordingSource",
    "RecordingStartTime",
    "RecordingStatus",
    "RecordingUrl",
}

untimed = settings(deadline=None)
stories = st.integers(0, 2**32).map(lambda seed: story(Random(seed), ACCOUNT, START, minutes=1))


def events(callbacks: Iterable[Callback]) -> list[dict[str, str]]:
    return [c.parameters for c in callbacks if "StatusCallbackEvent" in c.parameters]


def progress(callbacks: Iterable[Callback]) -> list[dict[str, str]]:
    return [c.parameters for c in callbacks if "CallStatus" in c.parameters]


def recordings(callbacks: Iterable[Callback]) -> list[dict[str, str]]:
    return [c.parameters for c in callbacks if "RecordingStatus" in c.parameters]


def documented(parameters: dict[str, str]) -> tuple[set[str], set[str]]:
    """The names that an event must have, and those that it may have besides."""
    kind = parameters["StatusCallbackEvent"]
    if kind == "conference-start":
        return COMMON, set()
    if kind == "conference-end":
        must = COMMON | {"ReasonConferenceEnded", "Reason"}
        if parameters["ReasonConferenceEnded"] == "conference-ended-via-api":
            return must, set()
        return must | {"CallSidEndingConference"}, {"ParticipantLabelEndingConference"}
    if kind == "participant-leave":
        return COMMON | LEG | {"ParticipantCallStatus", "ReasonParticipantLeft"}, {"ParticipantLabel"}
    if kind in ("announcement-end", "announcement-fail"):
        must = COMMON | {"AnnounceUrl"} | ({"ReasonAnnouncementFailed"} if kind.endswith("fail") else set())
        return (must | LEG, {"ParticipantLabel"}) if "CallSid" in parameters else (must, set())
    return COMMON | LEG, {"ParticipantLabel"}


@pytest.fixture(scope="module")
def many() -> list[list[Callback]]:
    return [story(Random(seed), ACCOUNT, START, minutes=1) for seed in range(300)]


def test_every_documented_event_happens_and_now_and_then_an_unknown_one(many: list[list[Callback]]) -> None:
    seen = Counter(p["StatusCallbackEvent"] for callbacks in many for p in events(callbacks))
    assert seen.keys() >= DOCUMENTED
    unknown = seen.keys() - DOCUMENTED
    assert unknown
    assert sum(seen[kind] for kind in unknown) < len(many) / 10


def test_conferences_end_in_all_five_ways(many: list[list[Callback]]) -> None:
    assert {events(callbacks)[-1].get("ReasonConferenceEnded") for callbacks in many} >= ENDINGS.keys()


def test_participants_leave_for_every_documented_reason_and_with_every_call_status(
    many: list[list[Callback]],
) -> None:
    leaves = [p for callbacks in many for p in events(callbacks) if "ReasonParticipantLeft" in p]
    assert {p["ReasonParticipantLeft"] for p in leaves} == {
        "conference_ended_via_api",
        "moderator_ended_conference",
        "participant_updated_via_api",
        "participant_hung_up",
        "participant_add_failed",
    }
    assert {p["ParticipantCallStatus"] for p in leaves} == {
        "no-answer",
        "busy",
        "in-progress",
        "failed",
        "canceled",
        "completed",
    }


def test_calls_and_recordings_are_told_too(many: list[list[Callback]]) -> None:
    assert {p["CallStatus"] for callbacks in many for p in progress(callbacks)} == {
        "initiated",
        "ringing",
        "in-progress",
        "completed",
        "busy",
        "failed",
        "no-answer",
        "canceled",
    }
    assert {p["RecordingStatus"] for callbacks in many for p in recordings(callbacks)} == {
        "in-progress",
        "completed",
        "absent",
    }


def test_some_conferences_never_start_and_some_calls_rejoin(many: list[list[Callback]]) -> None:
    kinds = [[p["StatusCallbackEvent"] for p in events(callbacks)] for callbacks in many]
    assert any("conference-start" not in told for told in kinds)
    joins = [
        Counter(p["CallSid"] for p in events(callbacks) if p["StatusCallbackEvent"] == "participant-join")
        for callbacks in many
    ]
    assert any(times > 1 for joined in joins for times in joined.values())


def test_a_leave_is_sometimes_told_after_the_end(many: list[list[Callback]]) -> None:
    last = Counter(events(callbacks)[-1]["StatusCallbackEvent"] for callbacks in many)
    assert last.keys() == {"conference-end", "participant-leave"}
    assert last["conference-end"] > last["participant-leave"]


@untimed
@given(stories)
def test_an_event_has_exactly_its_documented_parameters(callbacks: list[Callback]) -> None:
    for parameters in events(callbacks):
        must, may = documented(parameters)
        assert must <= parameters.keys() <= must | may
        assert parameters["AccountSid"] == ACCOUNT


@untimed
@given(stories)
def test_a_call_progress_callback_has_exactly_its_documented_parameters(callbacks: list[Callback]) -> None:
    for parameters in progress(callbacks):
        ended = (
            {"SipResponseCode"} if parameters["CallStatus"] not in ("initiated", "ringing", "in-progress") else set()
        )
        timed = {"CallDuration", "Duration"} if parameters["CallStatus"] == "completed" else set()
        assert parameters.keys() == PROGRESS | ended | timed
        assert parameters["CallbackSource"] == "call-progress-events"


@untimed
@given(stories)
def test_a_recording_callback_has_exactly_its_documented_parameters(callbacks: list[Callback]) -> None:
    for parameters in recordings(callbacks):
        timed = {"RecordingDuration"} if parameters["RecordingStatus"] == "completed" else set()
        assert parameters.keys() == RECORDING | timed


@untimed
@given(stories)
def test_sids_and_numbers_look_right_and_the_numbers_are_fictional(callbacks: list[Callback]) -> None:
    for parameters in (c.parameters for c in callbacks):
        for name, prefix in (("ConferenceSid", "CF"), ("CallSid", "CA"), ("RecordingSid", "RE")):
            assert re.fullmatch(prefix + "[0-9a-f]{32}", parameters.get(name, prefix + "0" * 32))
        for name in ("From", "To", "Caller", "Called"):
            assert re.fullmatch(r"\+1\d{3}55501\d{2}", parameters.get(name, "+12065550100"))


@untimed
@given(stories)
def test_events_are_numbered_densely_from_one(callbacks: list[Callback]) -> None:
    numbers = [int(p["SequenceNumber"]) for p in events(callbacks)]
    assert numbers == list(range(1, len(numbers) + 1))


@untimed
@given(stories)
def test_the_progress_of_each_call_is_numbered_densely_from_zero(callbacks: list[Callback]) -> None:
    calls: dict[str, list[int]] = {}
    for parameters in progress(callbacks):
        calls.setdefault(parameters["CallSid"], []).append(int(parameters["SequenceNumber"]))
    assert all(numbers == list(range(len(numbers))) for numbers in calls.values())


@untimed
@given(stories)
def test_times_only_go_forward_and_are_stamped_in_whole_seconds(callbacks: list[Callback]) -> None:
    times = [c.at for c in callbacks]
    assert times[0] == 0
    assert times == sorted(times)
    for callback in callbacks:
        if stamp := callback.parameters.get("Timestamp"):
            assert re.fullmatch(r"\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} \+0000", stamp)
            happened = START + timedelta(seconds=callback.at)
            assert parsedate_to_datetime(stamp) == happened.replace(microsecond=0)


@untimed
@given(stories)
def test_snapshots_agree_with_what_has_happened(callbacks: list[Callback]) -> None:
    changes = {
        "participant-mute": {"Muted": "true"},
        "participant-unmute": {"Muted": "false"},
        "participant-hold": {"Hold": "true"},
        "participant-unhold": {"Hold": "false"},
    }
    present: dict[str, dict[str, str]] = {}
    for parameters in events(callbacks):
        if "CallSid" not in parameters:
            continue
        kind, call = parameters["StatusCallbackEvent"], parameters["CallSid"]
        flags = {name: parameters[name] for name in FLAGS}
        if kind == "participant-join":
            assert call not in present
            present[call] = flags
        elif kind == "participant-leave":
            if parameters["ReasonParticipantLeft"] == "participant_add_failed":
                assert call not in present
            else:
                assert present.pop(call) == flags
        elif kind == "participant-modify":
            changed = {name for name in FLAGS if present[call][name] != flags[name]}
            assert changed in ({"Coaching"}, {"EndConferenceOnExit"})
            present[call] = flags
        elif kind in changes:
            assert flags != present[call]
            assert flags == present[call] | changes[kind]
            present[call] = flags
        else:
            assert flags == present[call]
    assert not present


@untimed
@given(stories)
def test_only_those_who_can_be_heard_speak_and_nobody_starts_twice(callbacks: list[Callback]) -> None:
    speaking: set[str] = set()
    for parameters in events(callbacks):
        kind = parameters["StatusCallbackEvent"]
        if kind == "participant-speech-start":
            assert (parameters["Muted"], parameters["Hold"]) == ("false", "false")
            assert parameters["CallSid"] not in speaking
            speaking.add(parameters["CallSid"])
        elif kind == "participant-speech-stop":
            speaking.remove(parameters["CallSid"])
        assert len(speaking) <= 2
    assert not speaking


@untimed
@given(stories)
def test_a_conference_starts_once_two_are_there_and_one_of_them_may_start_it(
    callbacks: list[Callback],
) -> None:
    present: dict[str, bool] = {}
    started = False
    for parameters in events(callbacks):
        kind = parameters["StatusCallbackEvent"]
        if kind == "conference-start":
            assert not started
            assert len(present) > 1
            started = True
        assert started or len(present) < 2 or not any(present.values())
        if kind == "participant-join":
            present[parameters["CallSid"]] = parameters["StartConferenceOnEnter"] == "true"
        elif kind == "participant-leave":
            present.pop(parameters["CallSid"], None)


@untimed
@given(stories)
def test_the_reason_for_the_end_agrees_with_how_people_left(callbacks: list[Callback]) -> None:
    told = events(callbacks)
    [end] = [p for p in told if p["StatusCallbackEvent"] == "conference-end"]
    ending = end["ReasonConferenceEnded"]
    after = told[told.index(end) + 1 :]
    assert {p["StatusCallbackEvent"] for p in after} <= {"participant-leave"}
    leaves = {p["CallSid"]: p for p in told if p["StatusCallbackEvent"] == "participant-leave"}
    reasons = Counter(p["ReasonParticipantLeft"] for p in leaves.values())
    if ending == "conference-ended-via-api":
        assert reasons["conference_ended_via_api"]
        return
    ender = leaves[end["CallSidEndingConference"]]
    assert ender["ReasonParticipantLeft"] == ENDINGS[ending]
    assert ender.get("ParticipantLabel") == end.get("ParticipantLabelEndingConference")
    by_flag = "end-conference-on-exit" in ending
    assert ender["EndConferenceOnExit"] == ("true" if by_flag else "false")
    assert bool(reasons["moderator_ended_conference"]) == by_flag


@untimed
@given(stories)
def test_labels_are_unique_within_a_conference(callbacks: list[Callback]) -> None:
    labels = {p["CallSid"]: p["ParticipantLabel"] for p in events(callbacks) if "ParticipantLabel" in p}
    assert len(set(labels.values())) == len(labels)


@untimed
@given(st.integers(0, 2**32))
def test_the_same_seed_tells_the_same_story(seed: int) -> None:
    assert story(Random(seed), ACCOUNT, START) == story(Random(seed), ACCOUNT, START)


def test_a_name_and_a_length_can_be_asked_for() -> None:
    short = story(Random(4), ACCOUNT, START, name="Kitchen", minutes=0.5)
    long = story(Random(4), ACCOUNT, START, name="Kitchen", minutes=5)
    assert {p["FriendlyName"] for p in events(short + long)} == {"Kitchen"}
    assert long[-1].at - short[-1].at > 200


def test_speed_shortens_times_and_durations_alike() -> None:
    slow = story(Random(8), ACCOUNT, START)
    fast = story(Random(8), ACCOUNT, START, speed=10)
    assert [c.at / 10 for c in slow] == pytest.approx([c.at for c in fast])
    elapsed = parsedate_to_datetime(events(fast)[-1]["Timestamp"]) - START
    assert elapsed <= timedelta(seconds=fast[-1].at)


def test_a_start_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        story(Random(1), ACCOUNT, datetime(2026, 11, 1))


@pytest.mark.parametrize("speed", [0, -1, float("nan")])
def test_a_speed_that_is_not_above_zero_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        story(Random(1), ACCOUNT, START, speed=speed)


def test_numbers_and_labels_stay_out_of_the_repr() -> None:
    [first, *_] = story(Random(3), ACCOUNT, START)
    assert "parameters" not in repr(first)


@untimed
@given(stories, st.integers(0, 2**32))
def test_without_loss_every_callback_arrives(callbacks: list[Callback], seed: int) -> None:
    delivered = Counter(map(id, shuffled(Random(seed), callbacks)))
    assert delivered.keys() == set(map(id, callbacks))
    assert max(delivered.values()) <= 2


def test_some_arrive_late_and_some_twice() -> None:
    callbacks = story(Random(5), ACCOUNT, START, minutes=5)
    delivered = shuffled(Random(5), callbacks)
    assert len(delivered) > len(callbacks)
    assert [c.at for c in delivered] != sorted(c.at for c in delivered)


def test_loss_loses_that_share() -> None:
    callbacks = story(Random(5), ACCOUNT, START, minutes=5)
    arrived = {id(c) for c in shuffled(Random(5), callbacks, loss=0.5)}
    assert len(callbacks) * 0.3 < len(arrived) < len(callbacks) * 0.7
    assert shuffled(Random(5), callbacks, loss=1) == []


@pytest.mark.parametrize("loss", [-0.1, 1.1, float("nan")])
def test_a_loss_that_is_no_probability_is_refused(loss: float) -> None:
    with pytest.raises(ValueError, match="loss"):
        shuffled(Random(1), [], loss=loss)
