"""Each kind of callback Twilio documents is read into exactly one event, and nothing else gets past the reader."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.events import Call, Callback, Ending, Event, Leg, Recording
from app.twilio.callbacks import IMPLIED, UNDERSTOOD, Unusable, parameters, read
from app.twilio.sids import is_sid
from tests.cast import ACCOUNT, ANNA, NOON, ROOM, at, callback, event, progress, said

RECORDING = "RE" + "e" * 32
RECORDING_URL = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Recordings/{RECORDING}"
NOON_IN_WORDS = "Sun, 22 Nov 2026 12:00:00 +0000"


def posted(*pairs: tuple[bytes, bytes], **more: Any) -> Callback:
    """A callback with exactly these pairs, in this order, every byte of them escaped."""
    body = b"&".join(escaped(name) + b"=" + escaped(value) for name, value in pairs)
    facts: dict[str, Any] = {"received_at": 1, "key": "main"} | more
    return Callback(body=body, **facts)


def escaped(text: bytes) -> bytes:
    return quote_from_bytes(text, safe="").encode()


def nameless(told: dict[str, str]) -> Event:
    """The event these parameters tell of, without its digest."""
    return replace(event(told), id="")


# The thirteen events of a conference, each with every parameter that is documented for it


COMMON: dict[str, Any] = {
    "id": "",
    "source": "conference",
    "account_sid": ACCOUNT,
    "conference_sid": ROOM,
    "friendly_name": "Stand-up",
    "sequence": 7,
    "at": at(4),
}
LEG = Leg(
    label="anna",
    muted=False,
    hold=False,
    coaching=False,
    start_conference_on_enter=True,
    end_conference_on_exit=False,
)
HEARD = "https://example.com/announcement.mp3"
WHY = f"Participant {ANNA} with endConferenceOnExit left the conference"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            said("conference-start", number=7, second=4),
            Event(type="conference-start", **COMMON),
        ),
        (
            said("participant-join", ANNA, number=7, second=4, Coaching="true", EndConferenceOnExit="true"),
            Event(
                type="participant-join",
                call_sid=ANNA,
                leg=replace(LEG, coaching=True, end_conference_on_exit=True),
                **COMMON,
            ),
        ),
        (
            said("participant-mute", ANNA, number=7, second=4, Muted="true"),
            Event(type="participant-mute", call_sid=ANNA, leg=replace(LEG, muted=True), **COMMON),
        ),
        (
            said("participant-unmute", ANNA, number=7, second=4, Hold="true"),
            Event(type="participant-unmute", call_sid=ANNA, leg=replace(LEG, hold=True), **COMMON),
        ),
        (
            said("participant-hold", ANNA, number=7, second=4, Hold="true"),
            Event(type="participant-hold", call_sid=ANNA, leg=replace(LEG, hold=True), **COMMON),
        ),
        (
            said("participant-unhold", ANNA, number=7, second=4, Muted="true"),
            Event(type="participant-unhold", call_sid=ANNA, leg=replace(LEG, muted=True), **COMMON),
        ),
        (
            said("participant-modify", ANNA, number=7, second=4, Coaching="true", StartConferenceOnEnter="false"),
            Event(
                type="participant-modify",
                call_sid=ANNA,
                leg=replace(LEG, coaching=True, start_conference_on_enter=False),
                **COMMON,
            ),
        ),
        (
            said("participant-speech-start", ANNA, number=7, second=4),
            Event(type="participant-speech-start", call_sid=ANNA, leg=LEG, **COMMON),
        ),
        (
            said("participant-speech-stop", ANNA, number=7, second=4),
            Event(type="participant-speech-stop", call_sid=ANNA, leg=LEG, **COMMON),
        ),
        (
            said("announcement-end", ANNA, number=7, second=4, AnnounceUrl=HEARD),
            Event(type="announcement-end", call_sid=ANNA, leg=LEG, announcement=HEARD, **COMMON),
        ),
        (
            said("announcement-fail", number=7, second=4, AnnounceUrl=HEARD, ReasonAnnouncementFailed="inside Twilio"),
            Event(type="announcement-fail", announcement=HEARD, **COMMON),
        ),
        (
            said(
                "participant-leave",
                ANNA,
                number=7,
                second=4,
                ParticipantCallStatus="completed",
                ReasonParticipantLeft="participant_hung_up",
            ),
            Event(
                type="participant-leave",
                call_sid=ANNA,
                leg=replace(LEG, call_status="completed", reason_left="participant_hung_up"),
                **COMMON,
            ),
        ),
        (
            said(
                "conference-end",
                number=7,
                second=4,
                ReasonConferenceEnded="participant-with-end-conference-on-exit-left",
                CallSidEndingConference=ANNA,
                ParticipantLabelEndingConference="anna",
                Reason=WHY,
            ),
            Event(
                type="conference-end",
                ending=Ending(
                    reason="participant-with-end-conference-on-exit-left", call_sid=ANNA, label="anna", text=WHY
                ),
                **COMMON,
            ),
        ),
    ],
    ids=lambda value: value.type if isinstance(value, Event) else "",
)
def test_a_conference_event_is_read_whole(told: dict[str, str], expected: Event) -> None:
    assert nameless(told) == expected


@pytest.mark.parametrize(("kind", "flag"), [(kind, *flags) for kind, flags in IMPLIED.items()])
@pytest.mark.parametrize("spoken", ["true", "false", "maybe", None])
def test_an_events_name_decides_its_own_flag(kind: str, flag: str, spoken: str | None) -> None:
    told = said(kind, ANNA, number=1, second=0, Muted="false", Hold="false")
    del told[flag]
    leg = event(told if spoken is None else told | {flag: spoken}).leg
    assert leg == replace(LEG, **{flag.lower(): kind in ("participant-mute", "participant-hold")})


def test_only_mute_and_hold_imply_anything() -> None:
    assert set(IMPLIED) == {"participant-mute", "participant-unmute", "participant-hold", "participant-unhold"}


def test_an_end_by_api_names_nobody_who_ended_it() -> None:
    told = said("conference-end", number=7, second=4, ReasonConferenceEnded="conference-ended-via-api")
    assert event(told).ending == Ending(reason="conference-ended-via-api")


def test_a_leg_without_a_label_has_none() -> None:
    told = said("participant-join", ANNA, number=1, second=0)
    del told["ParticipantLabel"]
    assert nameless(told).leg == replace(LEG, label=None)


def test_flags_that_were_not_sent_are_unknown_and_not_false() -> None:
    told = said("conference-start", number=1, second=0, StatusCallbackEvent="participant-join", CallSid=ANNA)
    assert event(told).leg == Leg()


def test_a_kind_of_event_nobody_has_heard_of_is_kept() -> None:
    told = said("participant-teleport", ANNA, number=7, second=4, Destination="Mars")
    assert nameless(told) == Event(type="participant-teleport", call_sid=ANNA, leg=LEG, **COMMON)


def test_the_older_name_of_an_event_is_understood() -> None:
    told = said("", number=7, second=4, EventName="conference-record-end")
    assert nameless(told) == Event(type="conference-record-end", **COMMON)


# Call progress, machine detection, recordings


def test_call_progress_is_read_whole() -> None:
    told = progress(
        ANNA,
        "completed",
        number=3,
        second=4,
        ApiVersion="2010-04-01",
        Caller="+15550100",
        Called="+15550101",
        FromCity="",
        CallDuration="42",
        Duration="1",
        SipResponseCode="487",
        AnsweredBy="human",
    )
    assert nameless(told) == Event(
        id="",
        source="call",
        type="call-completed",
        account_sid=ACCOUNT,
        call_sid=ANNA,
        at=at(4),
        call=Call(
            status="completed",
            from_="+15550100",
            to="+15550101",
            direction="outbound-api",
            answered_by="human",
            sip_response_code="487",
            duration=42,
        ),
    )


def test_a_calls_own_numbering_is_not_taken_for_the_conferences() -> None:
    assert event(progress(ANNA, "ringing", number=1, second=0)).sequence is None


def test_call_progress_of_a_recorded_call_is_still_call_progress() -> None:
    recorded = {"RecordingSid": RECORDING, "RecordingUrl": RECORDING_URL, "RecordingDuration": "40"}
    told = progress(ANNA, "completed", number=3, second=4, CallDuration="42") | recorded
    read_as = event(told)
    assert (read_as.source, read_as.type) == ("call", "call-completed")
    assert read_as.call is not None
    assert read_as.call.duration == 42


def test_what_machine_detection_found_is_told_of_the_call() -> None:
    told = {"AccountSid": ACCOUNT, "CallSid": ANNA, "AnsweredBy": "machine_start", "MachineDetectionDuration": "2100"}
    assert nameless(told) == Event(
        id="",
        source="call",
        type="call",
        account_sid=ACCOUNT,
        call_sid=ANNA,
        call=Call(answered_by="machine_start"),
    )


RECORDED = {
    "AccountSid": ACCOUNT,
    "ConferenceSid": ROOM,
    "RecordingSid": RECORDING,
    "RecordingUrl": RECORDING_URL,
    "RecordingStatus": "completed",
    "RecordingDuration": "61",
    "RecordingChannels": "1",
    "RecordingSource": "Conference",
    "RecordingStartTime": NOON_IN_WORDS,
    "RecordingTrack": "both",
    "ErrorCode": "0",
}


def test_a_recording_callback_is_read_whole() -> None:
    assert nameless(RECORDED) == Event(
        id="",
        source="recording",
        type="recording-completed",
        account_sid=ACCOUNT,
        conference_sid=ROOM,
        recording=Recording(
            sid=RECORDING,
            status="completed",
            url=RECORDING_URL,
            duration=61,
            channels=1,
            source="Conference",
            start_time=NOON,
        ),
    )


@pytest.mark.parametrize("status", ["in-progress", "completed", "absent", "failed", "paused", "stopped"])
def test_a_recordings_status_is_part_of_its_kind(status: str) -> None:
    read_as = event(RECORDED | {"RecordingStatus": status})
    assert read_as.type == f"recording-{status}"
    assert read_as.recording is not None
    assert read_as.recording.status == status


def test_a_calls_recording_names_its_call() -> None:
    told = {name: value for name, value in RECORDED.items() if name != "ConferenceSid"} | {"CallSid": ANNA}
    read_as = event(told)
    assert (read_as.source, read_as.conference_sid, read_as.call_sid) == ("recording", None, ANNA)
    assert read_as.recording is not None
    assert read_as.recording.call_sid == ANNA


def test_an_empty_call_sid_in_a_recording_is_no_call() -> None:
    read_as = event(RECORDED | {"CallSid": ""})
    assert read_as.call_sid is None
    assert read_as.recording is not None
    assert read_as.recording.call_sid is None


@pytest.mark.parametrize("missing", ["RecordingStatus", "ConferenceSid"])
def test_a_recording_that_lacks_what_makes_it_one_is_refused(missing: str) -> None:
    with pytest.raises(Unusable):
        event({name: value for name, value in RECORDED.items() if name != missing})


def test_a_calls_news_goes_to_the_conference_it_was_filed_under() -> None:
    filed = callback(progress(ANNA, "ringing", number=0, second=0), conference_sid=ROOM)
    assert read(filed).conference_sid == ROOM


def test_the_conference_a_callback_names_itself_comes_first() -> None:
    elsewhere = "CF" + "f" * 32
    assert read(callback(said("conference-start", number=1, second=0), conference_sid=elsewhere)).conference_sid == ROOM


# Values that are not what they should be


@pytest.mark.parametrize("flag", ["maybe", "", "1", "yes", "tru\u0435", "true\n"])
@pytest.mark.parametrize("name", ["Muted", "Hold", "Coaching", "StartConferenceOnEnter", "EndConferenceOnExit"])
def test_a_flag_that_is_neither_true_nor_false_is_unknown(name: str, flag: str) -> None:
    snake = {"StartConferenceOnEnter": "start_conference_on_enter", "EndConferenceOnExit": "end_conference_on_exit"}
    leg = event(said("participant-modify", ANNA, number=1, second=0) | {name: flag}).leg
    assert leg == replace(LEG, **{snake.get(name, name.lower()): None})


@pytest.mark.parametrize(("flag", "truth"), [("true", True), ("True", True), ("FALSE", False)])
def test_a_flag_may_be_in_capitals(flag: str, truth: bool) -> None:
    assert event(said("participant-modify", ANNA, number=1, second=0, Muted=flag)).leg == replace(LEG, muted=truth)


@pytest.mark.parametrize(
    "number",
    [
        "",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1.0",
        "1_000",
        "1e3",
        "0x1",
        "\u0661\u0662",
        "\u00b2",
        "one",
        "1" + "0" * 400,
        "9" * 16,
    ],
)
@pytest.mark.parametrize(
    ("told", "name"),
    [
        (said("conference-start", number=1, second=0), "SequenceNumber"),
        (progress(ANNA, "completed", number=1, second=0), "CallDuration"),
        (RECORDED, "RecordingDuration"),
        (RECORDED, "RecordingChannels"),
    ],
    ids=["sequence", "call", "recording", "channels"],
)
def test_a_number_that_is_none_is_as_if_it_had_not_been_sent(told: dict[str, str], name: str, number: str) -> None:
    assert nameless(told | {name: number}) == nameless({key: value for key, value in told.items() if key != name})


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1", 1), ("007", 7), ("9" * 15, 999_999_999_999_999)])
def test_a_sequence_number_is_decimal_digits(text: str, number: int) -> None:
    assert event(said("conference-start", number=1, second=0, SequenceNumber=text)).sequence == number


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("Thu, 1 Jun 2017 20:48:32 +0000", datetime(2017, 6, 1, 20, 48, 32, tzinfo=UTC)),
        ("Thu, 01 Jun 2017 20:48:32 +0000", datetime(2017, 6, 1, 20, 48, 32, tzinfo=UTC)),
        ("Thu, 01 Jun 2017 22:48:32 +0200", datetime(2017, 6, 1, 20, 48, 32, tzinfo=UTC)),
        ("2017-06-01T20:48:32Z", datetime(2017, 6, 1, 20, 48, 32, tzinfo=UTC)),
        ("2017-06-01T20:48:32.125Z", datetime(2017, 6, 1, 20, 48, 32, 125_000, tzinfo=UTC)),
        ("2017-06-01T20:48:32", datetime(2017, 6, 1, 20, 48, 32, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_in_mail_form_and_in_iso_form(text: str, time: datetime) -> None:
    found = event(said("conference-start", number=1, second=0, Timestamp=text)).at
    assert found == time
    assert found is not None
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1717274912",
        "Thu, 32 Jun 2017 20:48:32 +0000",
        "Thu, 01 Jun 99999 20:48:32 +0000",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Thu, 01 Jun 2017 20:48:32 +99999999999999999999",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "\u0662\u0660\u0661\u0667-06-01T20:48:32Z",
        "Thu, 01 Jun 2017 " + "9" * 5000 + ":00:00 +0000",
    ],
)
def test_a_time_that_is_none_is_as_if_it_had_not_been_sent(text: str) -> None:
    assert event(said("conference-start", number=1, second=0, Timestamp=text)).at is None


def test_long_names_are_cut_and_not_refused() -> None:
    told = said("participant-join", ANNA, number=1, second=0, FriendlyName="n" * 5000, ParticipantLabel="l" * 5000)
    read_as = event(told)
    assert read_as.friendly_name == "n" * 256
    assert read_as.leg == replace(LEG, label="l" * 256)


def test_what_is_not_utf_8_still_gives_a_name() -> None:
    told = said("conference-start", number=1, second=0)
    del told["FriendlyName"]
    pairs = [(name.encode(), value.encode()) for name, value in told.items()]
    assert read(posted(*pairs, (b"FriendlyName", b"caf\xe9"))).friendly_name == "caf\ufffd"


B = "b" * 32
SPOILED = [
    *("XX", "x", "XX" + B[1:], "XX" + B + "b", "XX" + "g" * 32, " XX" + B, "XX" + B + " "),
    *("XX" + B + "\n", "\nXX" + B, "XX" + B + "\r\nX: y", "XX" + B + "\0", "XX" + B[1:] + "\n"),
    *("XX{" + B + "}", "XX" + B[2:] + "}{", "XX" + B[1:] + "*", "XX" + B[1:] + ":", "XX" + B[16:] + "/../"),
    *("XX" + "\u0661" * 32, "XX" + "\uff41" * 32),
]
"""What is nearly a SID; XX stands for its kind."""
NAMED_SIDS = [("AccountSid", "AC"), ("ConferenceSid", "CF"), ("CallSid", "CA"), ("CallSidEndingConference", "CA")]


@pytest.mark.parametrize(("name", "kind"), NAMED_SIDS)
@pytest.mark.parametrize("shape", SPOILED)
def test_what_is_no_sid_is_refused(name: str, kind: str, shape: str) -> None:
    told = said("conference-end", ANNA, number=1, second=0, CallSidEndingConference=ANNA)
    spoiled = shape.replace("XX", kind)
    assert not is_sid(kind, spoiled)
    with pytest.raises(Unusable):
        event(told | {name: spoiled})


@pytest.mark.parametrize(("name", "kind"), [*NAMED_SIDS, ("RecordingSid", "RE")])
def test_a_sid_of_another_kind_is_refused(name: str, kind: str) -> None:
    told = RECORDED if kind == "RE" else said("conference-end", ANNA, number=1, second=0)
    for other in {"AC", "CA", "CF", "RE", "SM", kind.lower()} - {kind}:
        with pytest.raises(Unusable):
            event(told | {name: other + "b" * 32})


@given(st.sampled_from(["AC", "CA", "CF", "RE"]), st.text("0123456789abcdefABCDEF", min_size=32, max_size=32))
def test_thirty_two_hexadecimal_digits_make_a_sid(kind: str, digits: str) -> None:
    assert is_sid(kind, kind + digits)


@given(st.sampled_from(["AC", "CA", "CF", "RE"]), st.text())
def test_no_key_of_redis_can_be_spoiled_through_a_sid(kind: str, text: str) -> None:
    for candidate in (text, kind + text, kind + "b" * 32 + text):
        if is_sid(kind, candidate):
            assert len(candidate) == 34
            assert candidate.isascii()
            assert candidate.isalnum()


@pytest.mark.parametrize("missing", ["AccountSid", "ConferenceSid", "StatusCallbackEvent"])
def test_a_conference_callback_without_its_essentials_is_refused(missing: str) -> None:
    told = said("conference-start", number=1, second=0)
    del told[missing]
    with pytest.raises(Unusable):
        event(told)


def test_a_callback_about_nothing_we_know_is_refused() -> None:
    with pytest.raises(Unusable):
        event({"AccountSid": ACCOUNT, "MessageSid": "SM" + "b" * 32, "MessageStatus": "sent"})


def test_a_json_body_is_refused() -> None:
    with pytest.raises(Unusable):
        read(callback(said("conference-start", number=1, second=0), media="json"))


@pytest.mark.parametrize("name", sorted(UNDERSTOOD))
def test_two_different_values_for_one_name_are_refused(name: str) -> None:
    pairs = [(word.encode(), b"x") for word in said("participant-join", ANNA, number=1, second=0) if word != name]
    with pytest.raises(Unusable, match=f"^{name} is given twice"):
        read(posted(*pairs, (name.encode(), b"one"), (name.encode(), b"two")))


def test_every_parameter_we_act_on_is_guarded_against_a_second_value() -> None:
    everything = {
        **said("conference-end", ANNA, number=1, second=0, CallSidEndingConference=ANNA, Reason=WHY),
        "ReasonConferenceEnded": "x",
        "ParticipantLabelEndingConference": "x",
        "EventName": "x",
        "AnnounceUrl": "x",
        "ParticipantCallStatus": "x",
        "ReasonParticipantLeft": "x",
        **progress(ANNA, "completed", number=1, second=0, AnsweredBy="x", SipResponseCode="1", CallDuration="1"),
        **RECORDED,
    }
    without_effect = {"CallbackSource", "RecordingTrack"}
    assert set(everything) - without_effect == UNDERSTOOD


def test_a_repeated_name_that_means_nothing_to_us_is_no_harm() -> None:
    told = said("conference-start", number=7, second=4)
    pairs = [(name.encode(), value.encode()) for name, value in told.items()]
    assert replace(read(posted(*pairs, (b"Tag", b"one"), (b"Tag", b"two"))), id="") == nameless(told)


# Identity: what was said, and nothing else


names = st.sampled_from([*sorted(UNDERSTOOD - {"AccountSid", "ConferenceSid", "StatusCallbackEvent"}), "Tag", "T", ""])
values = st.one_of(st.sampled_from([ANNA.encode(), b"true", b"1", b""]), st.binary(max_size=12))
sayings = st.dictionaries(names.map(str.encode), values, max_size=8).map(
    lambda told: [
        (b"AccountSid", ACCOUNT.encode()),
        (b"ConferenceSid", ROOM.encode()),
        (b"StatusCallbackEvent", b"participant-join"),
        *((name, ANNA.encode() if name.startswith((b"CallSid", b"Rec")) else value) for name, value in told.items()),
    ]
)


def identity(pairs: Sequence[tuple[bytes, bytes]], **more: Any) -> str | None:
    """The id of the callback that says this; None where it says something unusable."""
    try:
        return read(posted(*pairs, **more)).id
    except Unusable:
        return None


@given(sayings.flatmap(lambda pairs: st.tuples(st.just(pairs), st.permutations(pairs))))
def test_order_does_not_change_who_a_callback_is(case: tuple[list[tuple[bytes, bytes]], ...]) -> None:
    pairs, shuffled = case
    assert identity(shuffled) == identity(pairs)


@given(sayings, st.data())
def test_any_changed_value_makes_another_callback(pairs: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(pairs) - 1))
    name, value = pairs[place]
    other = data.draw(st.one_of(values, st.just("CA" + "9" * 32).map(str.encode)).filter(lambda text: text != value))
    before, after = identity(pairs), identity([*pairs[:place], (name, other), *pairs[place + 1 :]])
    assert before is None or before != after


@given(sayings, names.map(str.encode), values)
def test_another_parameter_makes_another_callback(pairs: list[tuple[bytes, bytes]], name: bytes, value: bytes) -> None:
    before, after = identity(pairs), identity([*pairs, (name, value)])
    assert before is None or name + value == b"" or (name, value) in pairs or before != after


def test_a_callback_with_its_borders_moved_is_the_same_callback() -> None:
    """Its signature is right, for what is signed has no borders; so it must not be news."""
    told = said("participant-join", ANNA, number=5, second=0)
    moved = {"SequenceNumber5" if name == "SequenceNumber" else name: value for name, value in told.items()}
    moved["SequenceNumber5"] = ""
    assert event(moved).sequence is None
    assert event(moved).id == event(told).id


@given(
    sayings,
    st.integers(0, 2**45),
    st.text(max_size=8),
    st.text(max_size=8),
    st.sampled_from([None, "CF" + "f" * 32]),
)
def test_how_and_when_it_reached_us_does_not_change_who_it_is(
    pairs: list[tuple[bytes, bytes]], received_at: int, token: str, query: str, filed: str | None
) -> None:
    more = {"received_at": received_at, "key": "other", "token": token, "query": query, "conference_sid": filed}
    assert identity(pairs, **more) == identity(pairs)


def test_escaping_does_not_change_who_a_callback_is() -> None:
    told = said("participant-join", ANNA, number=1, second=0, FriendlyName="Stand up")
    plain = urlencode(told).encode()
    spelled = posted(*((name.encode(), value.encode()) for name, value in told.items())).body
    assert plain != spelled
    assert (
        read(Callback(body=plain, received_at=1, key="main")).id
        == read(Callback(body=spelled, received_at=1, key="main")).id
    )


def test_a_pair_sent_twice_says_nothing_new() -> None:
    """A signature does not prove how often a pair was sent: whoever kept a callback could repeat one and be news."""
    told = said("participant-mute", ANNA, number=1, second=0)
    pairs = [(name.encode(), value.encode()) for name, value in told.items()]
    assert identity([*pairs, pairs[-1]]) == identity(pairs)


# Whatever is sent


hostile_values = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([ACCOUNT.encode(), ROOM.encode(), ANNA.encode(), RECORDING.encode(), b"participant-join"]),
    st.dates().map(lambda day: f"{day:%a, %d %b %Y} 25:61:61 +9999".encode()),
    st.from_regex(rb"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d [+-]\d{4,9}", fullmatch=True),
    st.from_regex(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?([+-]\d\d:\d\d)?", fullmatch=True),
)
hostile_pairs = st.lists(st.tuples(st.sampled_from(sorted(UNDERSTOOD)).map(str.encode), hostile_values), max_size=12)


def read_or_refused(sent: Callback) -> Unusable | None:
    for reading in (read, parameters):
        try:
            reading(sent)
        except Unusable as refusal:
            return refusal
    return None


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_unusable(body: bytes) -> None:
    read_or_refused(Callback(body=body, received_at=1, key="main"))


@given(hostile_pairs)
def test_no_parameters_raise_anything_but_unusable(pairs: list[tuple[bytes, bytes]]) -> None:
    read_or_refused(posted(*pairs))


@given(st.text())
def test_no_time_raises_anything(text: str) -> None:
    told = said("conference-start", number=1, second=0) | {"Timestamp": text.encode("utf-8", "replace").decode()}
    found = event(told).at
    assert found is None or found.tzinfo is UTC


def test_too_many_parameters_are_refused() -> None:
    with pytest.raises(Unusable):
        event(said("conference-start", number=1, second=0) | {f"Extra{n}": "x" for n in range(200)})


MARK = "zq7-"
marked = st.text("0123456789", min_size=1, max_size=30).map(lambda text: (MARK + text).encode())


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(UNDERSTOOD)).map(str.encode), st.one_of(marked, hostile_values)), max_size=14
    ),
    st.sampled_from(["form", "json"]),
    st.integers(0, 250),
)
def test_a_refusal_repeats_no_value(pairs: list[tuple[bytes, bytes]], media: str, extra: int) -> None:
    sent = posted(*pairs, *[(b"Extra%d" % n, MARK.encode()) for n in range(extra)], media=media)
    refusal = read_or_refused(sent)
    if refusal is not None:
        words = f"{refusal} {refusal.args}"
        assert MARK not in words
        for _, value in pairs:
            text = value.decode("utf-8", "replace")
            assert len(text) < 16 or text not in words


# For people to read


def test_parameters_are_shown_as_they_were_said() -> None:
    told = said("participant-join", ANNA, number=1, second=0, ParticipantLabel="a & b = c + é", Tag="")
    assert parameters(callback(told)) == told


def test_repeated_parameters_are_shown_as_a_list() -> None:
    assert parameters(posted((b"Tag", b"one"), (b"Other", b"x"), (b"Tag", b"two"))) == {
        "Tag": ["one", "two"],
        "Other": "x",
    }


def test_parameters_that_are_not_utf_8_can_be_shown() -> None:
    assert parameters(posted((b"\xff", b"\xfe"))) == {"\ufffd": "\ufffd"}
