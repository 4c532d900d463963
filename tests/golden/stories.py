"""The stories of the golden files, as callbacks in the order in which they came. Only the files bind anybody.

What a story says is written down once: a file of a later version takes its logs from those before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from msgspec.structs import replace

from app.events import Callback
from app.fold import OUR_OWN
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, NOON, at, progress, said

Said = dict[str, str] | Callback
RECORDING, OTHER_RECORDING = "RE" + "1" * 32, "RE" + "2" * 32
SOUND = "https://example.com/wait.mp3"


class Story(NamedTuple):
    """One story."""

    name: str
    since: int
    """The first version of the fold that understands it."""
    tell: Callable[[Callable[..., dict[str, str]], str], Iterable[Said]]

    @property
    def sid(self) -> str:
        """Of its conference: each story has its own."""
        return "CF" + blake2b(self.name.encode(), digest_size=16).hexdigest()

    def log(self) -> list[Callback]:
        """Its callbacks as the webhook and the drain store them."""

        def here(*words: Any, **more: Any) -> dict[str, str]:
            return said(*words, room=self.sid, **more)

        return [_stored(place, told) for place, told in enumerate(self.tell(here, self.sid))]


def _stored(place: int, told: Said) -> Callback:
    """Every other one with a token of Twilio's, every third with a query of its own."""
    more = {
        "received_at": int(NOON.timestamp() * 1000) + 317 * place,
        "token": f"5f0c{place:04x}" if place % 2 else "",
        "query": "tenant=42" if place % 3 == 2 else "",
    }
    if isinstance(told, Callback):
        return replace(told, **({"received_at": more["received_at"]} if told.media in OUR_OWN else more))
    return Callback(body=urlencode(told).encode(), key="main", **more)


STORIES: list[Story] = []


def story(since: int) -> Callable[[Any], Any]:
    """Add a story under its function's name."""

    def add(tell: Any) -> Any:
        STORIES.append(Story(tell.__name__.replace("_", " "), since, tell))
        return tell

    return add


def raw(body: bytes) -> Callback:
    """A callback whose body is just this."""
    return Callback(body=body, received_at=0, key="shared:MK1")


def filed(told: dict[str, str], room: str) -> Callback:
    """A callback that names only a call, as it is filed under the room."""
    return Callback(body=urlencode(told).encode(), received_at=0, key="main", conference_sid=room)


# What people do.


@story(1)
def a_hold_and_a_mute(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    yield here("participant-join", BEN, number=2, second=5)
    yield here("conference-start", number=3, second=5)
    yield here("participant-mute", BEN, number=4, second=10, Muted="true")
    yield here("participant-hold", BEN, number=5, second=12, Muted="true", Hold="true")
    yield here("participant-unmute", BEN, number=6, second=20, Hold="true")
    left = {"ParticipantCallStatus": "completed", "ReasonParticipantLeft": "participant_hung_up"}
    yield here("participant-leave", BEN, number=7, second=30, Hold="true", **left)
    yield here("participant-mute", ANNA, number=8, second=33, Muted="true")


@story(1)
def a_coach_whispers_and_then_speaks_up(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    yield here("participant-join", BEN, number=2, second=1)
    yield here("conference-start", number=3, second=1)
    yield here("participant-join", CLEO, number=4, second=9, Coaching="true", Muted="true")
    yield here("participant-unmute", CLEO, number=5, second=11, Coaching="true")
    yield here("participant-speech-start", CLEO, number=6, second=12, Coaching="true")
    yield here("participant-speech-stop", CLEO, number=7, second=14, Coaching="true")
    yield here("participant-modify", CLEO, number=8, second=20, EndConferenceOnExit="true")
    yield here("participant-modify", ANNA, number=9, second=21, Coaching="true")


@story(1)
def a_call_comes_back_on_hold_and_nothing_is_numbered(here, room):
    yield here("participant-join", BEN, number=None, second=0)
    yield here("participant-leave", BEN, number=None, second=10, ParticipantCallStatus="in-progress")
    yield here("participant-join", BEN, number=None, second=20, Hold="true")
    yield here("participant-unhold", BEN, number=None, second=26)
    yield here("participant-speech-start", BEN, number=None, second=27)
    yield here("participant-speech-stop", BEN, number=None, second=29)


@story(1)
def a_call_comes_back_and_its_leave_was_lost(here, room):
    yield here("participant-join", BEN, number=1, second=0)
    yield here("participant-speech-start", BEN, number=2, second=2)
    yield here("participant-join", BEN, number=5, second=60)
    yield here("participant-leave", BEN, number=6, second=70)
    yield here("participant-mute", BEN, number=8, second=80, Muted="true")


@story(1)
def callers_are_heard_of_after_they_have_left(here, room):
    kinds = ["mute", "unmute", "hold", "unhold", "modify", "speech-start", "speech-stop"]
    kinds = [*(f"participant-{kind}" for kind in kinds), "announcement-end", "announcement-fail"]
    for place, kind in enumerate(kinds):
        call = f"CA{place:032x}"
        yield here("participant-leave", call, number=2 * place + 1, second=place)
        yield here(kind, call, number=2 * place + 2, second=place + 5, ParticipantLabel=kind)


@story(1)
def all_happens_within_a_second_and_nothing_is_numbered(here, room):
    yield here("conference-end", number=None, second=3)
    yield here("participant-leave", ANNA, number=None, second=3)
    yield here("participant-mute", ANNA, number=None, second=3, Muted="true")
    yield here("participant-join", ANNA, number=None, second=3)
    yield here("participant-join", BEN, number=2, second=3)
    yield here("participant-hold", BEN, number=None, second=3, Hold="true")
    yield here("participant-unhold", BEN, number=3, second=4)


# Callbacks that come late, or first.


@story(1)
def a_leave_comes_late(here, room):
    yield here("participant-join", ANNA, number=1, second=0, EndConferenceOnExit="true")
    yield here("participant-join", BEN, number=2, second=1)
    yield here("participant-speech-start", BEN, number=3, second=4)
    yield here("participant-leave", ANNA, number=4, second=9, EndConferenceOnExit="true")
    yield here(
        "conference-end",
        number=5,
        second=9,
        ReasonConferenceEnded="participant-with-end-conference-on-exit-left",
        CallSidEndingConference=ANNA,
        ParticipantLabelEndingConference="anna",
        Reason=f"Participant {ANNA} with endConferenceOnExit left the conference",
    )
    yield here("participant-leave", BEN, number=6, second=10, ReasonParticipantLeft="moderator_ended_conference")
    yield here("conference-start", number=0, second=1)


@story(1)
def a_leave_comes_before_its_join(here, room):
    yield here("participant-leave", ANNA, number=3, second=9, ReasonParticipantLeft="participant_hung_up")
    yield here("participant-mute", ANNA, number=2, second=4, Muted="true")
    yield here("participant-join", BEN, number=4, second=12)
    yield here("participant-join", ANNA, number=1, second=0)


@story(1)
def the_end_comes_first(here, room):
    yield here("conference-end", number=6, second=30, ReasonConferenceEnded="conference-ended-via-api")
    yield here("participant-hold", BEN, number=5, second=20, Hold="true")
    yield here("conference-start", number=3, second=2)
    yield here("participant-join", BEN, number=2, second=2)
    yield here("participant-join", ANNA, number=1, second=0)
    yield here("participant-leave", ANNA, number=4, second=15)
    yield here("conference-end", number=9, second=31, ReasonConferenceEnded="last-participant-left")


# Numbers and times.


@story(1)
def different_things_come_under_one_number(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    yield here("participant-join", BEN, number=1, second=0)
    yield here("participant-leave", ANNA, number=2, second=9)
    yield here("participant-leave", ANNA, number=2, second=8)
    yield here("participant-mute", BEN, number=3, second=10, Muted="true")
    yield here("participant-hold", BEN, number=3, second=10, Hold="true")


@story(1)
def numbers_are_missing(here, room):
    for number in (0, 1, 4, 5, 8):
        yield here("participant-unmute", ANNA, number=number, second=number)
    yield here("participant-join", BEN, number=2, second=2)


@story(1)
def more_numbers_are_missing_than_are_shown(here, room):
    for number in range(1, 54):
        yield here("participant-unhold", BEN, number=2 * number, second=number)
    yield here("participant-join", BEN, number=1, second=0)


@story(1)
def times_are_odd_or_missing(here, room):
    yield here("participant-join", ANNA, number=1, second=0) | {"Timestamp": "2026-11-22T12:00:07.250Z"}
    yield here("participant-hold", ANNA, number=2, second=0, Hold="true") | {"Timestamp": ""}
    yield here("participant-unhold", ANNA, number=3, second=0) | {"Timestamp": "yesterday, at about noon"}
    yield here("participant-mute", ANNA, number=4, second=9, Muted="true")
    yield here("participant-unmute", ANNA, number=5, second=8)
    untimed = here("participant-join", BEN, number=6, second=0)
    del untimed["Timestamp"]
    yield untimed
    yield here("participant-leave", BEN, number=7, second=0) | {"Timestamp": "Sun, 22 Nov 2026 14:00:20 +0200"}
    yield here("participant-join", CLEO, number=-1, second=12) | {"SequenceNumber": "many"}


@story(1)
def flags_disagree_with_what_has_happened_and_times_have_fractions(here, room):
    yield here("participant-join", ANNA, number=1, second=0) | {"Timestamp": "2026-11-22T12:00:00.125Z"}
    yield here("participant-hold", ANNA, number=2, second=0, Hold="false") | {"Timestamp": "2026-11-22T12:00:01.5Z"}
    yield here("participant-mute", ANNA, number=3, second=0, Hold="", Muted="no") | {
        "Timestamp": "2026-11-22T12:00:02Z"
    }
    told = here("participant-unhold", ANNA, number=4, second=0, Hold="true")
    yield told | {"Timestamp": "2026-11-22T12:00:04.0317Z"}
    yield here("participant-unmute", ANNA, number=5, second=0, Muted="true") | {"Timestamp": "2026-11-22T12:00:05.75Z"}


# Calls, recordings, announcements.


@story(1)
def calls_are_dialled_and_one_is_busy(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    yield filed(progress(CLEO, "initiated", number=0, second=2), room)
    yield filed(progress(CLEO, "busy", number=1, second=7, SipResponseCode="486"), room)
    failed = {"ReasonParticipantLeft": "participant_add_failed", "ParticipantCallStatus": "busy"}
    yield here("participant-leave", CLEO, number=2, second=8, **failed)
    yield filed(progress(BEN, "ringing", number=1, second=4), room)
    yield filed(progress(BEN, "initiated", number=0, second=3), room)


@story(1)
def nobody_who_is_dialled_ever_joins(here, room):
    statuses = ["queued", "initiated", "ringing", "in-progress", "canceled", "failed", "no-answer", "completed", "lost"]
    for place, status in enumerate(statuses):
        yield filed(progress(f"CA{place:032x}", status, number=place, second=place), room)
    yield filed(progress(f"CA{8:032x}", "ringing", number=9, second=9, AnsweredBy="fax"), room)
    yield here("conference-start", number=1, second=12)


@story(1)
def a_call_ends_and_its_leave_is_not_told(here, room):
    yield here("participant-join", CLEO, number=1, second=1)
    yield here("participant-hold", CLEO, number=2, second=3, Hold="true")
    yield filed(progress(CLEO, "in-progress", number=2, second=1, AnsweredBy="human"), room)
    yield filed(progress(CLEO, "completed", number=3, second=8, CallDuration="7", SipResponseCode="200"), room)
    yield here("participant-join", ANNA, number=3, second=9)


def _recording(room: str, sid: str, status: str, **more: str) -> dict[str, str]:
    told = {"AccountSid": ACCOUNT, "ConferenceSid": room, "RecordingSid": sid, "RecordingStatus": status}
    return told | {"RecordingSource": "Conference"} | more


@story(1)
def two_recordings_of_which_one_comes_to_nothing(here, room):
    yield here("conference-start", number=1, second=0)
    url = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Recordings/{RECORDING}"
    began = {"RecordingStartTime": "Sun, 22 Nov 2026 12:00:03 +0000"}
    length = {"RecordingDuration": "61", "RecordingChannels": "1"}
    yield _recording(room, RECORDING, "completed", RecordingUrl=url, **length, **began)
    yield _recording(room, RECORDING, "in-progress", **began)
    yield _recording(room, OTHER_RECORDING, "absent", ErrorCode="0", RecordingUrl="javascript:alert(1)")
    yield _recording(room, OTHER_RECORDING, "in-progress", CallSid=ANNA)


@story(1)
def announcements_end_or_fail(here, room):
    yield here("announcement-end", number=1, second=3, AnnounceUrl=SOUND)
    yield here("announcement-end", ANNA, number=2, second=5, AnnounceUrl=SOUND)
    yield here("announcement-fail", BEN, number=3, second=6, AnnounceUrl="https://me:secret@example.com/a?token=1")
    yield here("participant-join", ANNA, number=4, second=9)


# What nobody expects.


@story(1)
def labels_are_hostile(here, room):
    forged = '","created_at":"1999-01-01T00:00:00Z","x":"'
    yield here("participant-join", ANNA, number=1, second=0, ParticipantLabel="<script>alert('anna')</script>")
    yield here("participant-join", BEN, number=2, second=1, ParticipantLabel=forged, FriendlyName=forged)
    yield here("participant-join", CLEO, number=3, second=2, ParticipantLabel='a\r\nb\0c\x1bd\\"&=%00+ \u2028')
    yield here("participant-modify", CLEO, number=4, second=3, ParticipantLabel="long " * 80)
    yield here(
        "participant-join", "CA" + "4" * 32, number=5, second=4, ParticipantLabel="<script>alert('anna')</script>"
    )
    yield here("participant-modify", "CA" + "4" * 32, number=6, second=5, ParticipantLabel="")


@story(1)
def names_are_in_many_scripts(here, room):
    name = {"FriendlyName": "Büro – 会議室 🎧"}  # noqa: RUF001  a real dash
    yield here("participant-join", ANNA, number=1, second=0, ParticipantLabel="Zoë Łukasz", **name)
    yield here(
        "participant-join",
        BEN,
        number=2,
        second=1,
        ParticipantLabel="\u202eevitagen \u0645\u0631\u062d\u0628\u0627",
        **name,
    )
    begin = f"ConferenceSid={room}&AccountSid={ACCOUNT}&SequenceNumber=3&StatusCallbackEvent=participant-join"
    cleo = f"{begin}&CallSid={CLEO}&ParticipantLabel="
    yield raw(cleo.encode() + "Søren 🎈".encode())  # not encoded as a form would be
    yield raw(cleo.replace("Number=3", "Number=4").replace("join", "mute").encode() + b"%ff%FE\xf0\x28 torn")
    yield here(
        "participant-join", "CA" + "5" * 32, number=5, second=9, ParticipantLabel="e\u0301 \U0001f469\u200d\U0001f680"
    )


@story(1)
def kinds_and_parameters_are_unknown(here, room):
    yield here("participant-join", ANNA, number=1, second=0, ShoeSize="43", Muted="perhaps")
    yield here("participant-yawn", BEN, number=2, second=1, Depth="abyssal")
    yield here("conference-painted", number=3, second=2)
    yield here("participant-mute", ANNA, number=4, second=3) | {"Muted": "", "Hold": "TRUE"}
    body = urlencode(here("participant-unhold", ANNA, number=5, second=4)).encode()
    yield raw(body + b"&CallSid=" + ANNA.encode() + b"&&ShoeSize=43&ShoeSize=44&=&Empty")
    renamed = here("participant-speech-start", ANNA, number=6, second=6)
    renamed["EventName"] = renamed.pop("StatusCallbackEvent")
    yield renamed


@story(1)
def a_callback_that_only_the_first_fold_could_read(here, room):
    """Two values of a parameter that meant nothing then."""
    yield here("participant-join", ANNA, number=1, second=0)
    twice = urlencode(here("announcement-end", ANNA, number=2, second=4, AnnounceUrl=SOUND)).encode()
    yield raw(twice + b"&AnnounceUrl=another")
    yield here("participant-mute", ANNA, number=3, second=6, Muted="true")


# Control requests that passed through us.


def recorded(
    room: str, step: str, action: dict[str, Any], answer: dict[str, Any] | None = None, **more: Any
) -> Callback:
    """What is written down of a control request, in the words of its first release."""
    plain = {
        "id": "",
        "verb": "update-participant",
        "state": "requested",
        "by": "operator",
        "call_sid": ANNA,
        "recording_sid": None,
        "requested_at": at(5.25),
        "expires_at": at(35.25),
        "after": 2,
        "awaits": [],
        "told": [],
        "refused": False,
        "expired": False,
        "answered_at": None,
        "status": None,
        "code": None,
        "error": None,
        "request_id": None,
    }
    silent = {
        "created_at": None,
        "updated_at": None,
        "region": None,
        "label": None,
        "queue_time": None,
        "call_sid_to_coach": None,
        "dialled": False,
    }
    record = {
        "step": step,
        "account_sid": ACCOUNT,
        "conference_sid": room,
        "resource": f"Conferences/{room}",
        "parameters": [],
        "action": plain | action,
        "friendly_name": None,
        "answer": None if answer is None else silent | answer,
        **more,
    }
    return Callback(body=msgspec.json.encode(record), media="control", received_at=0, key="operator")


ACCEPTED = {"answered_at": at(5.5), "status": 200, "request_id": "RQ" + "0" * 32}


@story(2)
def requests_are_confirmed_refused_and_ignored(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    yield here("participant-join", BEN, number=2, second=1)
    mute = {"id": "01", "awaits": ["muted=true"]}
    yield recorded(room, "requested", mute, parameters=[["Muted", "true"]])
    yield here("participant-mute", ANNA, number=3, second=6, Muted="true")
    yield recorded(room, "answered", mute | ACCEPTED, {"updated_at": at(5)})
    hold = {"id": "02", "call_sid": BEN, "awaits": ["hold=true"], "requested_at": at(7.5)}
    yield recorded(room, "requested", hold)
    yield recorded(room, "answered", hold | ACCEPTED)
    yield recorded(room, "expired", hold | {"expired": True})
    kick = {"id": "03", "verb": "remove-participant", "call_sid": BEN, "awaits": ["participant-leave"]}
    yield recorded(room, "requested", kick)
    yield recorded(room, "answered", kick | {"answered_at": at(8), "status": 404, "code": 20404})
    say = {"id": "04", "verb": "update-conference", "call_sid": None, "awaits": [f"announcement-end {SOUND}"]}
    yield recorded(room, "requested", say | {"expires_at": at(600)}, parameters=[["AnnounceUrl", SOUND]])
    yield here("announcement-fail", number=4, second=9, AnnounceUrl=SOUND)
    lost = {"id": "05", "verb": "update-conference", "call_sid": None, "awaits": ["conference-end"]}
    yield recorded(room, "answered", lost | {"answered_at": at(20), "error": "no answer"})


@story(2)
def answers_teach_what_callbacks_never_tell(here, room):
    dial = {"id": "11", "verb": "add-participant", "call_sid": CLEO, "awaits": ["participant-join"], "status": 201}
    told = {
        "created_at": at(6),
        "updated_at": at(6),
        "label": "cleo of the answer",
        "queue_time": 1000,
        "dialled": True,
    }
    yield recorded(room, "answered", dial | {"answered_at": at(6.125)}, told, friendly_name="Stand-up")
    yield filed(progress(CLEO, "ringing", number=1, second=8), room)
    coach = {"id": "12", "call_sid": BEN, "awaits": ["coaching=true"], "requested_at": at(9.5)}
    yield here("participant-join", ANNA, number=3, second=7)
    yield here("participant-join", BEN, number=4, second=8)
    yield recorded(room, "requested", coach, parameters=[["Coaching", "true"], ["CallSidToCoach", ANNA]])
    yield here("participant-modify", BEN, number=5, second=10, Coaching="true")
    yield recorded(room, "answered", coach | ACCEPTED, {"updated_at": at(10), "call_sid_to_coach": ANNA})
    announce = {"id": "13", "verb": "update-conference", "call_sid": None} | ACCEPTED
    yield recorded(room, "answered", announce, {"created_at": at(-3), "region": "us1"}, friendly_name="Stand-up")
    yield _recording(room, RECORDING, "completed", RecordingDuration="4")
    gone = {"id": "14", "verb": "delete-recording", "call_sid": None, "recording_sid": RECORDING, "status": 204}
    yield recorded(room, "answered", gone | {"answered_at": at(30)})


@story(2)
def more_requests_are_finished_than_are_shown(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    for number in range(22):
        asked = {
            "id": f"{number:02}",
            "requested_at": at(number),
            "awaits": ["hold=true"],
            "status": 400,
            "code": 20001,
        }
        yield recorded(room, "answered", asked | {"answered_at": at(number + 0.5)})
    yield recorded(
        room, "requested", {"id": "99", "requested_at": at(40), "expires_at": at(70), "awaits": ["hold=true"]}
    )


@story(2)
def clocks_differ_when_a_call_is_dialled(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    for place, (call, second) in enumerate([(BEN, -20), (CLEO, -90), ("CA" + "4" * 32, 90), ("CA" + "5" * 32, 100)]):
        dial = {"id": f"2{place}", "verb": "add-participant", "call_sid": call, "awaits": ["participant-join"]}
        yield recorded(room, "answered", dial | ACCEPTED, {"label": "somebody", "dialled": True})
        yield filed(progress(call, "no-answer", number=1, second=second), room)


# What Twilio's REST API shows, what other roads bring, and what somebody should look at.


def looked(room: str, second: float, *people: dict[str, Any] | None, after: int = 0, **more: Any) -> Callback:
    """The record of a look; of `people` none at all: they were not asked for."""
    conference, record = dict(LIVE, sid=room), {name: more.pop(name) for name in ("missing", "reason") if name in more}
    told = {
        "account_sid": ACCOUNT,
        "conference_sid": room,
        "taken_at": at(second),
        "after": after,
        "reason": "hole",
        "by": "offhook",
        "conference": conference | more,
        "participants": [LISTED | each for each in people if each] if people else None,
    }
    return Callback(body=msgspec.json.encode(told | record), media="snapshot", received_at=0, key="offhook")


def alarmed(room: str, second: float, *, cleared: bool, **more: Any) -> Callback:
    """The record of an alert."""
    alert = {"rule": "hold", "kind": "hold", "since": at(10), "at": at(second), "cleared": cleared, "text": "On hold."}
    told = {"account_sid": ACCOUNT, "conference_sid": room, "alert": alert | more}
    return Callback(body=msgspec.json.encode(told), media="alert", received_at=0, key="offhook")


LIVE = {
    "account_sid": ACCOUNT,
    "date_created": "Sun, 22 Nov 2026 12:00:00 +0000",
    "date_updated": "Sun, 22 Nov 2026 12:00:20 +0000",
    "friendly_name": "Stand-up",
    "status": "in-progress",
    "region": "ie1",
    "reason_conference_ended": None,
    "call_sid_ending_conference": None,
    "something_new": [1, {"two": None}],
}
LISTED = {
    "label": None,
    "status": "connected",
    "muted": False,
    "hold": False,
    "coaching": False,
    "call_sid_to_coach": None,
    "start_conference_on_enter": True,
    "end_conference_on_exit": False,
    "date_created": "Sun, 22 Nov 2026 12:00:01 +0000",
    "date_updated": "Sun, 22 Nov 2026 12:00:20 +0000",
}


@story(3)
def a_look_mends_what_was_lost_and_late_callbacks_take_their_place(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    yield here("participant-join", BEN, number=2, second=5)
    yield here("participant-speech-start", BEN, number=5, second=9)
    yield here("participant-hold", ANNA, number=8, second=12, Hold="true")
    ben = {"call_sid": BEN, "label": "ben", "muted": True, "coaching": True, "call_sid_to_coach": ANNA}
    yield looked(room, 20, {"call_sid": ANNA, "label": "anna"}, ben, {"call_sid": CLEO}, after=8, missing=True)
    yield here("participant-unhold", ANNA, number=10, second=20)
    yield here("participant-mute", BEN, number=6, second=10, Muted="true")
    yield here("participant-leave", CLEO, number=11, second=25, ReasonParticipantLeft="participant_hung_up")
    yield looked(room, 40, {"call_sid": ANNA, "label": "anna"}, after=11)
    yield here("participant-unmute", BEN, number=12, second=41)


@story(3)
def a_look_finds_it_over(here, room):
    yield here("participant-join", ANNA, number=4, second=0)
    yield filed(progress(CLEO, "ringing", number=1, second=2), room)
    yield looked(room, 9, {"call_sid": ANNA}, {"call_sid": CLEO, "status": "ringing"}, after=4, reason="midway")
    over = {
        "status": "completed",
        "reason_conference_ended": "last-participant-left",
        "call_sid_ending_conference": ANNA,
    }
    yield looked(room, 700, after=4, reason="silent", **over)


@story(3)
def a_look_finds_it_over_and_then_its_end_is_told(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    yield looked(room, 700, after=1, reason="silent", status="completed")
    yield here("conference-end", number=3, second=21, ReasonConferenceEnded="last-participant-left")
    yield here("participant-leave", ANNA, number=2, second=21, ReasonParticipantLeft="participant_hung_up")


@story(3)
def it_is_adopted_from_a_list(here, room):
    yield looked(room, 3, reason="adopted", region="unknown")
    yield looked(room, 5, {"call_sid": ANNA, "hold": True}, {"call_sid": BEN, "status": "queued"}, reason="adopted")
    yield here("participant-unhold", ANNA, number=9, second=30)


@story(3)
def twilio_does_not_know_it(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    gone = {
        "account_sid": ACCOUNT,
        "conference_sid": room,
        "taken_at": at(700),
        "after": 1,
        "reason": "silent",
        "by": "ops",
    }
    yield Callback(body=msgspec.json.encode(gone), media="snapshot", received_at=0, key="ops")


@story(3)
def alerts_are_raised_and_cleared(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    yield here("participant-hold", ANNA, number=2, second=10, Hold="true")
    yield alarmed(room, 310, cleared=False, subject=ANNA)
    yield alarmed(room, 600, cleared=False, rule="alone", kind="alone", since=at(0), severity="critical")
    yield alarmed(room, 400, cleared=True, subject=ANNA)
    yield here("participant-unhold", ANNA, number=3, second=390)


@story(3)
def other_roads_bring_the_same(here, room):
    yield here("participant-join", ANNA, number=1, second=0)
    muted = here("participant-mute", ANNA, number=2, second=4, Muted="true")
    event = {
        "specversion": "1.0",
        "type": "com.twilio.voice.status-callback.conference.participant.updated",
        "id": "EZ" + "5" * 32,
        "data": {"request": {"method": "POST", "parameters": muted}, "response": {"responseCode": 503}},
    }
    yield Callback(body=msgspec.json.encode(event), media="json", received_at=0, key="main")
    lost = here("participant-leave", ANNA, number=3, second=9, ReasonParticipantLeft="participant_hung_up")
    payload = {"resource_sid": room, "error_code": "16011", "webhook": {"request": {"parameters": lost}}}
    alert = {"AccountSid": ACCOUNT, "Level": "ERROR", "Sid": "NO" + "6" * 32, "Timestamp": "2026-11-22T12:00:10Z"}
    told = alert | {"Payload": msgspec.json.encode(payload).decode(), "PayloadType": "application/json"}
    yield Callback(body=urlencode(told).encode(), received_at=0, key="main")
    full = told | {"Payload": msgspec.json.encode({"resource_sid": room, "error_code": "16020"}).decode()}
    yield Callback(body=urlencode(full).encode(), received_at=0, key="main")
