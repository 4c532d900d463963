"""The reads that Twilio's SDKs make: its Conference, Participant and Recording resources, its lists, its failures."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from structlog.testing import capture_logs

from app.events import Action, Answer, Callback, Status
from app.store.snapshots import PASSED_OVER
from app.twilio.control import Record, encode_record
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, NOON, ROOM, TOKEN, at, progress, said
from tests.described import check
from tests.store import rooms
from tests.web.conftest import (
    CHILD,
    ENDED,
    KNOWN,
    NEW,
    OPERATOR,
    OUTSIDER,
    OWNER,
    STANDING,
    STRANGER,
    SUBACCOUNT,
    TENANT,
    Site,
    asked,
    refused,
    room,
)

DAVE = "CA" + "4" * 32


def home(account: str = ACCOUNT) -> str:
    """The address of an account's conferences, without an ending."""
    return f"/2010-04-01/Accounts/{account}/Conferences"


LIST, ONE = f"{home()}.json", f"{home()}/{ROOM}"
PARTICIPANTS, RECORDINGS = f"{ONE}/Participants.json", f"{ONE}/Recordings.json"
TAPE = "RE" + "e" * 32

PATHS = [
    LIST,
    f"{ONE}.json",
    PARTICIPANTS,
    f"{ONE}/Participants/{ANNA}.json",
    f"{ONE}/Participants/anna.json",
    RECORDINGS,
    f"{ONE}/Recordings/{TAPE}.json",
]
"""One of each kind; all are there once `meeting` has been told."""


def listed(site: Site, query: str = "", path: str = LIST, **more: Any) -> list[str]:
    """The sids of the conferences on a page."""
    return [conference["sid"] for conference in asked(site, f"{path}{query}", **more)["conferences"]]


def calls(site: Site, query: str = "") -> dict[str, str]:
    """The calls in the list of participants, each with its status."""
    return {each["call_sid"]: each["status"] for each in asked(site, f"{PARTICIPANTS}{query}")["participants"]}


def taped(number: int = 0, status: str = "completed", **more: str) -> dict[str, str]:
    """Twilio's parameters for the callback of a conference recording."""
    return {
        "AccountSid": ACCOUNT,
        "ConferenceSid": ROOM,
        "RecordingSid": TAPE if number == 0 else f"RE{number:032x}",
        "RecordingStatus": status,
        "RecordingStartTime": format_datetime(at(2)),
        "RecordingSource": "Conference",
    } | more


def meeting() -> list[dict[str, str]]:
    """Anna and Ben meet, Ben is muted and put on hold, he goes and Anna ends it. It is recorded."""
    return [
        said("participant-join", ANNA, number=1, second=0),
        said("participant-join", BEN, number=2, second=5),
        said("conference-start", number=3, second=5),
        said("participant-mute", BEN, number=4, second=6, Muted="true"),
        said("participant-hold", BEN, number=5, second=8, Muted="true", Hold="true"),
        said("participant-leave", BEN, number=6, second=12, Muted="true", Hold="true"),
        said(
            "conference-end",
            number=7,
            second=20,
            ReasonConferenceEnded="participant-with-end-conference-on-exit-left",
            CallSidEndingConference=ANNA,
        ),
        taped(RecordingDuration="18", RecordingChannels="1"),
    ]


def dialled(call: str, *, second: int = 0, **answer: Any) -> Callback:
    """What is written down when Twilio has answered that it will dial a call into the conference."""
    action = Action(
        id=f"dial-{call}",
        verb="add-participant",
        by="steerer",
        call_sid=call,
        requested_at=at(second),
        expires_at=at(second + 120),
    )
    record = Record(
        step="answered",
        account_sid=ACCOUNT,
        conference_sid=ROOM,
        resource=f"Conferences/{ROOM}/Participants",
        parameters=[],
        action=action,
        friendly_name="Stand-up",
        answer=Answer(created_at=at(second), dialled=True, **answer),
    )
    return Callback(body=encode_record(record), media="control", received_at=1_795_348_800_000, key="steerer")


def dial(site: Site, *answers: Callback) -> None:
    """Have these written down."""
    for answer in answers:
        site.inbox.append(site.inbox.shard_of(ROOM), answer)
    site.fold()


# A conference


def test_an_ended_conference_is_shown_as_twilio_shows_it(site: Site) -> None:
    site.tell(*meeting())
    site.fold()
    assert asked(site, f"{ONE}.json") == {
        "account_sid": ACCOUNT,
        "api_version": "2010-04-01",
        "call_sid_ending_conference": ANNA,
        "date_created": "Sun, 22 Nov 2026 12:00:00 +0000",
        "date_updated": "Sun, 22 Nov 2026 12:00:20 +0000",
        "friendly_name": "Stand-up",
        "reason_conference_ended": "participant-with-end-conference-on-exit-left",
        "region": None,
        "sid": ROOM,
        "status": "completed",
        "subresource_uris": {"participants": PARTICIPANTS, "recordings": RECORDINGS},
        "uri": f"{ONE}.json",
    }


def test_a_conference_that_goes_on_has_no_end(site: Site) -> None:
    site.tell(*meeting()[:3])
    site.fold()
    conference = asked(site, f"{ONE}.json")
    assert conference["status"] == "in-progress"
    assert conference["reason_conference_ended"] is None
    assert conference["call_sid_ending_conference"] is None


def test_a_conference_that_nobody_has_joined_is_init(site: Site) -> None:
    site.tell(said("conference-create", number=1, second=0))
    site.fold()
    assert asked(site, f"{ONE}.json")["status"] == "init"
    assert calls(site) == {}


def test_what_no_callback_told_is_null(site: Site) -> None:
    told = said("participant-join", ANNA, number=1, second=0)
    for name in ("FriendlyName", "Timestamp", "ParticipantLabel", "Muted", "Hold", "Coaching"):
        del told[name]
    site.tell(told, taped(RecordingStartTime="", RecordingSource=""))
    site.fold()
    conference = asked(site, f"{ONE}.json")
    assert [conference[name] for name in ("friendly_name", "date_created", "date_updated")] == [None] * 3
    [participant] = asked(site, PARTICIPANTS)["participants"]
    nulls = ("label", "muted", "hold", "coaching", "date_created", "date_updated", "queue_time", "call_sid_to_coach")
    assert [participant[name] for name in nulls] == [None] * len(nulls)
    [recording] = asked(site, RECORDINGS)["recordings"]
    nulls = ("duration", "source", "start_time", "date_created", "price", "price_unit", "error_code", "call_sid")
    assert [recording[name] for name in nulls] == [None] * len(nulls)


def test_an_item_of_a_list_is_the_resource_itself(site: Site) -> None:
    site.tell(*meeting())
    site.fold()
    for path, kind in ((LIST, "conferences"), (PARTICIPANTS, "participants"), (RECORDINGS, "recordings")):
        items = asked(site, path)[kind]
        assert items
        for item in items:
            assert asked(site, item["uri"]) == item
    for path in asked(site, f"{ONE}.json")["subresource_uris"].values():
        asked(site, path)


# Participants


def test_a_participant_is_shown_as_twilio_shows_it(site: Site) -> None:
    site.tell(*meeting()[:5])
    site.fold()
    assert asked(site, f"{ONE}/Participants/{BEN}.json") == {
        "account_sid": ACCOUNT,
        "call_sid": BEN,
        "call_sid_to_coach": None,
        "coaching": False,
        "conference_sid": ROOM,
        "date_created": "Sun, 22 Nov 2026 12:00:05 +0000",
        "date_updated": "Sun, 22 Nov 2026 12:00:08 +0000",
        "end_conference_on_exit": False,
        "hold": True,
        "label": "ben",
        "muted": True,
        "queue_time": None,
        "start_conference_on_enter": True,
        "status": "connected",
        "uri": f"{ONE}/Participants/{BEN}.json",
    }


def test_while_it_goes_on_only_those_in_it_are_shown(site: Site) -> None:
    site.tell(
        *meeting()[:6],
        said("participant-leave", CLEO, number=8, second=13, ReasonParticipantLeft="participant_add_failed"),
    )
    site.fold()
    assert calls(site) == {ANNA: "connected"}
    for gone in (BEN, "ben", CLEO, "cleo"):
        refused(site, f"{ONE}/Participants/{gone}.json", 404, 20404)


def test_whoever_comes_back_is_shown_again(site: Site) -> None:
    site.tell(*meeting()[:6], said("participant-join", BEN, number=7, second=15))
    site.fold()
    assert calls(site) == {BEN: "connected", ANNA: "connected"}


def test_once_it_has_ended_everyone_who_took_part_is_shown_and_complete(site: Site) -> None:
    site.tell(
        *meeting(),
        said("participant-leave", CLEO, number=8, second=13, ReasonParticipantLeft="participant_add_failed"),
    )
    site.fold()
    assert calls(site) == {BEN: "complete", ANNA: "complete"}
    assert asked(site, f"{ONE}/Participants/ben.json")["call_sid"] == BEN
    refused(site, f"{ONE}/Participants/{CLEO}.json", 404, 20404)


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ([], "queued"),
        (["initiated"], "connecting"),
        (["initiated", "ringing"], "ringing"),
        (["ringing", "in-progress"], "connecting"),
        (["ringing", "busy"], None),
        (["ringing", "no-answer"], None),
        (["failed"], None),
        (["canceled"], None),
        (["ringing", "in-progress", "completed"], None),
    ],
)
def test_whoever_is_on_the_way_is_shown_as_far_as_the_call_has_got(
    site: Site, told: list[str], status: str | None
) -> None:
    site.tell(*meeting()[:3])
    dial(site, dialled(CLEO, second=6, label="cleo", queue_time=1500))
    site.tell(*(progress(CLEO, word, number=n, second=7 + n) for n, word in enumerate(told)))
    site.fold()
    shown = {BEN: "connected", ANNA: "connected"}
    assert calls(site) == (shown if status is None else {CLEO: status, **shown})
    if status is None:
        refused(site, f"{ONE}/Participants/cleo.json", 404, 20404)
    else:
        participant = asked(site, f"{ONE}/Participants/cleo.json")
        assert (participant["call_sid"], participant["queue_time"]) == (CLEO, "1500")


def test_whoever_was_on_the_way_when_it_ended_did_not_take_part(site: Site) -> None:
    site.tell(*meeting()[:3])
    dial(site, dialled(CLEO, second=6, label="cleo"))
    site.tell(*meeting()[3:])
    site.fold()
    assert calls(site) == {BEN: "complete", ANNA: "complete"}


@pytest.mark.parametrize("name", ["Muted", "Hold", "Coaching"])
@pytest.mark.parametrize("value", ["true", "false"])
def test_participants_are_found_by_their_flags(site: Site, name: str, value: str) -> None:
    untold = said("participant-join", DAVE, number=4, second=9)
    for flag in ("Muted", "Hold", "Coaching"):
        del untold[flag]
    site.tell(
        said("participant-join", ANNA, number=1, second=0),
        said("participant-join", BEN, number=2, second=5, Muted="true", Coaching="true"),
        said("participant-join", CLEO, number=3, second=7, Muted="true", Hold="true"),
        untold,
    )
    site.fold()
    true = {"Muted": {BEN, CLEO}, "Hold": {CLEO}, "Coaching": {BEN}}[name]
    expected = true if value == "true" else {ANNA, BEN, CLEO, DAVE} - true
    assert calls(site, f"?{name}={value}").keys() == expected
    both = calls(site, "?Muted=true&Hold=false").keys()
    assert both == {BEN}


@pytest.mark.parametrize("name", ["Muted", "Hold", "Coaching"])
@pytest.mark.parametrize("value", ["TRUE", "1", "yes", "true%20"])
def test_a_flag_is_true_or_false(site: Site, name: str, value: str) -> None:
    site.tell(*meeting())
    site.fold()
    assert name in refused(site, f"{PARTICIPANTS}?{name}={value}", 400, 20001)


# By label

LABELS = [
    "anna",
    "two words",
    "a/b",
    "a/b/c.d",
    "a//b",
    "/a",
    "a/",
    "100%",
    "100%25",
    "a%2Fb",
    "Büro ☎ \U0001f600",
    "a|b",
    "x.json",
    "x.json.json",
    "x.xml",
    "x.csv",
    "?&=+;#",
    "\"<\\>'",
    "two\nlines",
    "Participants",
    "Participants/anna",
    "Recordings",
    ".",
    "CA" + "g" * 32,
    "ca" + "1" * 32,
    "CF" + "b" * 32,
]


@pytest.mark.parametrize("safe", ["", "/"], ids=["escaped", "raw"])
@pytest.mark.parametrize("label", LABELS)
def test_a_participant_is_found_by_any_label(site: Site, label: str, safe: str) -> None:
    site.tell(
        said("participant-join", ANNA, number=1, second=0, ParticipantLabel=label),
        said("participant-join", BEN, number=2, second=1, ParticipantLabel="ben"),
    )
    site.fold()
    participant = asked(site, f"{ONE}/Participants/{quote(label, safe=safe)}.json")
    assert (participant["call_sid"], participant["label"]) == (ANNA, label)
    assert participant["uri"] == f"{ONE}/Participants/{ANNA}.json"
    if not label.endswith((".json", ".xml", ".csv", "/")):
        without = asked(site, f"{ONE}/Participants/{quote(label, safe=safe)}", headers={"Accept": "application/json"})
        assert without == participant


@pytest.mark.parametrize("label", ["ann", "annaa", "ANNA", "anna ", " anna", "anna/", "ann*", "%61nna%00", "%ff"])
def test_a_label_is_taken_to_the_letter(site: Site, label: str) -> None:
    site.tell(*meeting())
    site.fold()
    refused(site, f"{ONE}/Participants/{label if '%' in label else quote(label, safe='')}.json", 404, 20404)


def test_a_label_that_is_anothers_call_sid_takes_nothing_from_that_call(site: Site) -> None:
    site.tell(
        said("participant-join", BEN, number=1, second=0),
        said("participant-join", ANNA, number=2, second=1, ParticipantLabel=BEN),
        said("participant-join", CLEO, number=3, second=2, ParticipantLabel=DAVE),
    )
    site.fold()
    assert asked(site, f"{ONE}/Participants/{BEN}.json")["call_sid"] == BEN
    assert asked(site, f"{ONE}/Participants/{DAVE}.json")["call_sid"] == CLEO


@pytest.mark.parametrize("order", [*itertools.permutations([ANNA, BEN, CLEO])])
def test_of_several_with_one_label_the_one_who_is_there_is_meant(site: Site, order: tuple[str, ...]) -> None:
    joins = [
        said("participant-join", call, number=n, second=n, ParticipantLabel="guest") for n, call in enumerate(order, 1)
    ]
    site.tell(*joins, said("participant-join", DAVE, number=4, second=4, ParticipantLabel="dave"))
    site.fold()
    assert asked(site, f"{ONE}/Participants/guest.json")["call_sid"] == order[2]
    site.tell(said("participant-leave", order[2], number=5, second=5, ParticipantLabel="guest"))
    site.fold()
    assert asked(site, f"{ONE}/Participants/guest.json")["call_sid"] == order[1]
    site.tell(said("conference-end", number=6, second=6))
    site.fold()
    assert asked(site, f"{ONE}/Participants/guest.json")["call_sid"] == order[2]


def test_of_several_with_one_label_whoever_is_there_goes_before_who_is_still_called(site: Site) -> None:
    site.tell(said("participant-join", ANNA, number=1, second=0, ParticipantLabel="guest"))
    dial(site, dialled(BEN, second=5, label="guest"))
    assert asked(site, f"{ONE}/Participants/guest.json")["call_sid"] == ANNA


# Recordings


def test_a_recording_is_shown_as_twilio_shows_it(site: Site) -> None:
    site.tell(*meeting())
    site.fold()
    assert asked(site, f"{ONE}/Recordings/{TAPE}.json") == {
        "account_sid": ACCOUNT,
        "api_version": "2010-04-01",
        "call_sid": None,
        "channels": 1,
        "conference_sid": ROOM,
        "date_created": "Sun, 22 Nov 2026 12:00:02 +0000",
        "date_updated": "Sun, 22 Nov 2026 12:00:02 +0000",
        "duration": "18",
        "encryption_details": None,
        "error_code": None,
        "price": None,
        "price_unit": None,
        "sid": TAPE,
        "source": "Conference",
        "start_time": "Sun, 22 Nov 2026 12:00:02 +0000",
        "status": "completed",
        "uri": f"{ONE}/Recordings/{TAPE}.json",
    }


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("started", "in-progress"),
        ("in-progress", "in-progress"),
        ("resumed", "in-progress"),
        ("paused", "paused"),
        ("stopped", "stopped"),
        ("completed", "completed"),
        ("absent", "absent"),
        ("failed", "absent"),
    ],
)
def test_a_recordings_status_is_one_that_the_resource_knows(site: Site, told: str, shown: str) -> None:
    site.tell(*meeting()[:3], taped(status=told))
    site.fold()
    assert [recording["status"] for recording in asked(site, RECORDINGS)["recordings"]] == [shown]


def test_a_recording_of_one_call_is_not_the_conferences(site: Site) -> None:
    """Twilio docs, Conference Recordings: the list has recordings of the conference, not of a participant's call."""
    of_a_call = taped(7, CallSid=BEN, RecordingSource="OutboundAPI", RecordingChannels="2", RecordingTrack="both")
    del of_a_call["ConferenceSid"]
    site.tell(*meeting(), of_a_call)
    site.fold()
    assert [recording["sid"] for recording in asked(site, RECORDINGS)["recordings"]] == [TAPE]


@pytest.mark.parametrize("recording", ["RE" + "0" * 32, "Twilio.CURRENT", ANNA, "x", TAPE.lower()])
def test_a_recording_that_is_not_there_is_not_found(site: Site, recording: str) -> None:
    site.tell(*meeting())
    site.fold()
    refused(site, f"{ONE}/Recordings/{recording}.json", 404, 20404)


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", [4, 3, 2, 1]),
        ("?DateCreated=2026-11-22", [3, 2]),
        ("?DateCreated%3C=2026-11-22", [3, 2, 1]),
        ("?DateCreated%3E=2026-11-22", [4, 3, 2]),
        ("?DateCreated>=2026-11-23", [4]),
        ("?DateCreated%3E=2026-11-22&DateCreated%3C=2026-11-22", [3, 2]),
        ("?DateCreated=2026-11-21&DateCreated%3E=2026-11-22", []),
        ("?DateCreated%3C=2026-11-22T00:00:00Z", [2, 1]),
    ],
)
def test_recordings_are_found_by_the_day_they_began(site: Site, query: str, numbers: list[int]) -> None:
    midnight = NOON - timedelta(hours=12)
    times = [midnight - timedelta(seconds=1), midnight, midnight + timedelta(seconds=86_399), midnight + DAY]
    site.tell(
        *meeting()[:3],
        *(taped(n, RecordingStartTime=format_datetime(time)) for n, time in enumerate(times, 1)),
        *([taped(9, RecordingStartTime="")] if query else []),
    )
    site.fold()
    found = asked(site, f"{RECORDINGS}{query}")["recordings"]
    assert [recording["sid"] for recording in found] == [f"RE{number:032x}" for number in numbers]


# Filters


@pytest.mark.parametrize("status", [None, NEW, STANDING, ENDED])
@pytest.mark.parametrize("name", [None, "Stand-up", "Planning | Büro", "stand-up", "Stand", "Nobody's"])
def test_filters_can_be_put_together(several: Site, status: str | None, name: str | None) -> None:
    people = [{}, *({"ParticipantCallSid": sid} for sid in (ANNA, BEN, DAVE))]
    people += [{"ParticipantLabel": label} for label in ("anna", "ben", "nobody")]
    for account, person in itertools.product([ACCOUNT, CHILD, STRANGER], people):
        wanted = {"Status": status, "FriendlyName": name, **person}
        query = urlencode({key: value for key, value in wanted.items() if value is not None})
        expected = [
            each
            for each, owner, called, standing, known in reversed(KNOWN)
            if owner == account
            and status in (None, standing)
            and name in (None, called)
            and {*person.values()} <= {*known, *known.values()}
        ]
        assert listed(several, f"?{query}", f"{home(account)}.json") == expected, query


def test_a_call_and_a_label_are_not_asked_for_together(several: Site) -> None:
    path = f"{LIST}?ParticipantCallSid={ANNA}&ParticipantLabel=anna"
    assert "one of the two" in asked(several, path, 400)["message"]


def test_a_filter_speaks_of_how_things_are_now(several: Site) -> None:
    assert room(2) in listed(several, "?Status=in-progress&ParticipantLabel=ben")
    several.tell(said("conference-end", number=9, second=30, room=room(2)))
    several.fold()
    assert room(2) not in listed(several, "?Status=in-progress&ParticipantLabel=ben")
    assert room(2) in listed(several, "?Status=completed&ParticipantLabel=ben")


DAY = timedelta(days=1)
MIDNIGHT = NOON - timedelta(hours=12)
CREATED_AND_UPDATED = [
    # room(0), room(1), … in this order
    (MIDNIGHT - 40 * DAY, MIDNIGHT - 40 * DAY),
    (MIDNIGHT - DAY, MIDNIGHT - timedelta(seconds=1)),
    (MIDNIGHT - timedelta(seconds=1), MIDNIGHT - timedelta(seconds=1)),
    (MIDNIGHT - timedelta(seconds=1), MIDNIGHT),
    (MIDNIGHT, MIDNIGHT),
    (MIDNIGHT, NOON),
    (NOON, NOON + timedelta(seconds=1)),
    (MIDNIGHT + timedelta(seconds=86_399), MIDNIGHT + timedelta(seconds=86_399)),
    (MIDNIGHT + timedelta(seconds=86_399), MIDNIGHT + DAY),
    (MIDNIGHT + DAY, MIDNIGHT + DAY),
    (MIDNIGHT + DAY, MIDNIGHT + 2 * DAY),
]


@pytest.fixture
def dated(site: Site) -> Site:
    """Conferences around the borders of a day, the last of them the newest."""
    for number, (created, updated) in enumerate(CREATED_AND_UPDATED):
        site.tell(
            said("conference-start", number=1, second=0, room=room(number), Timestamp=format_datetime(created)),
            said("announcement-end", number=2, second=0, room=room(number), Timestamp=format_datetime(updated)),
        )
    site.fold()
    return site


def moments(text: str) -> tuple[datetime, datetime]:
    """The first and the last second that a date or a time in a filter stands for."""
    if "T" in text:
        time = datetime.fromisoformat(text).astimezone(UTC)
        return time, time
    day = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return day, day + DAY - timedelta(seconds=1)


def allows(sign: str, text: str, time: datetime) -> bool:
    """Whether a filter lets this time through; inequalities include their day, as `<=` and `>=` on the wire say."""
    first, last = moments(text)
    return {"": first <= time <= last, "<": time <= last, ">": time >= first}[sign]


DATES = [
    "2026-10-13",
    "2026-11-21",
    "2026-11-22",
    "2026-11-23",
    "1969-01-01",
    "9998-12-31",
    "2026-11-22T00:00:00Z",
    "2026-11-22T23:59:59Z",
    "2026-11-22T12:00:00+00:00",
    "2026-11-22T14:00:01+02:00",
    "2026-11-21T19:00:00-05:00",
]


@pytest.mark.parametrize("text", DATES)
@pytest.mark.parametrize("sign", ["", "<", ">"])
@pytest.mark.parametrize("what", ["Created", "Updated"])
def test_conferences_are_found_by_their_dates(dated: Site, what: str, sign: str, text: str) -> None:
    expected = [
        room(number)
        for number, times in reversed([*enumerate(CREATED_AND_UPDATED)])
        if allows(sign, text, times[what == "Updated"])
    ]
    found = listed(dated, f"?{urlencode({f'Date{what}{sign}': text})}")
    assert sorted(found) == sorted(expected)
    assert listed(dated, f"?Date{what}{sign}={quote(text)}") == found, "unescaped, as Twilio's own examples have it"


def test_filters_on_dates_can_be_put_together(dated: Site) -> None:
    some = ["2026-11-21", "2026-11-22", "2026-11-22T12:00:00Z"]
    filters = [(what, sign, text) for what in ("Created", "Updated") for sign in ("", "<", ">") for text in some]
    for one, other in itertools.combinations(filters, 2):
        if one[:2] == other[:2]:
            continue
        query = urlencode({f"Date{what}{sign}": text for what, sign, text in (one, other)})
        expected = {
            room(number)
            for number, times in enumerate(CREATED_AND_UPDATED)
            if all(allows(sign, text, times[what == "Updated"]) for what, sign, text in (one, other))
        }
        assert set(listed(dated, f"?{query}")) == expected, query


def test_a_list_by_date_goes_from_the_newest_down_and_can_have_a_status(dated: Site) -> None:
    dated.tell(said("conference-end", number=9, second=0, room=room(6), Timestamp=format_datetime(NOON)))
    dated.fold()
    assert listed(dated, "?DateCreated=2026-11-22&Status=completed") == [room(6)]
    found = asked(dated, f"{LIST}?DateCreated=2026-11-22&Status=in-progress")["conferences"]
    created = [parsedate_to_datetime(conference["date_created"]) for conference in found]
    assert len(found) == 4
    assert created == sorted(created, reverse=True)


@pytest.mark.parametrize("what", ["Created", "Updated"])
@pytest.mark.parametrize("filtered", ["=1970-01-01", "%3C=2026-11-22", "%3E=1969-01-01"])
def test_what_has_no_date_is_found_by_none(site: Site, what: str, filtered: str) -> None:
    site.tell({**said("conference-start", number=1, second=0), "Timestamp": ""})
    site.fold()
    assert asked(site, f"{ONE}.json")[f"date_{what.lower()}"] is None
    assert listed(site, f"?Date{what}{filtered}") == []


@pytest.mark.parametrize(
    "query", ["DateUpdated=2026-11-22", "DateUpdated%3C=2026-11-22", "DateUpdated=2026-11-22T23:59:59Z"]
)
def test_what_a_fraction_of_a_second_adds_belongs_to_that_second(site: Site, query: str) -> None:
    site.tell(said("conference-start", number=1, second=0, Timestamp="2026-11-22T23:59:59.500Z"))
    site.fold()
    assert asked(site, f"{ONE}.json")["date_updated"] == "Sun, 22 Nov 2026 23:59:59 +0000"
    assert listed(site, f"?{query}") == [ROOM]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Status", value) for value in ("Init", "in_progress", "done", "in-progress ", "completed,init")),
        *(("ParticipantCallSid", value) for value in ("anna", "CA", ANNA + "0", ROOM, ANNA[:-1] + "g", ANNA + "\n")),
        *(
            (f"Date{what}{sign}", value)
            for what in ("Created", "Updated")
            for sign in ("", "<", ">")
            for value in (
                *("x", "2026-11", "2026-13-01", "2026-02-30", "22-11-2026", "20261122", "2026-11-22T", "2026-11-22\n"),
                *("2026-11-22T25:00:00Z", "Sun, 22 Nov 2026 12:00:00 +0000", "0001-01-01", "9999-12-31", "2026-11-22Z"),
                *(
                    "\u0662\u0660\u0662\u0666-11-22",
                    "0001-01-01T00:00:00+14:00",
                    "-2026-11-22",
                    "yesterday",
                    "1795348800",
                ),
            )
        ),
        *(("PageSize", value) for value in ("x", "-1", "1.5", "1e3", "\u0663", "1\n", " 1")),
        *(("Page", value) for value in ("x", "-1", "1.5")),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(site: Site, name: str, value: str) -> None:
    message = refused(site, f"{LIST}?{urlencode({name: value})}", 400, 20001)
    assert message.startswith(name)


@pytest.mark.parametrize("path", [LIST, RECORDINGS])
@pytest.mark.parametrize(
    "what", ["Created<2026-11-22", "Created%3E2026-11-22", "Updated<2026-11-22", "Created<%3D2026"]
)
def test_an_inequality_without_its_equals_sign_is_not_passed_over(site: Site, path: str, what: str) -> None:
    site.tell(*meeting())
    site.fold()
    message = refused(site, f"{path}?Date{what}", 400, 20001)
    assert "DateCreated<=YYYY-MM-DD" in message


@pytest.mark.parametrize("path", [LIST, PARTICIPANTS, RECORDINGS])
@pytest.mark.parametrize(
    "query", ["Nonsense=1", "status=init", "MUTED=true&dateCreated=x", "x", "Sort=asc&=", "%ff=%fe"]
)
def test_a_parameter_nobody_knows_is_passed_over(site: Site, path: str, query: str) -> None:
    site.tell(*meeting())
    site.fold()
    assert asked(site, f"{path}?{query}") == asked(site, path)


@pytest.mark.parametrize("name", ["Status", "FriendlyName", "DateCreated", "DateUpdated<", "PageSize", "PageToken"])
def test_an_empty_value_is_as_none(several: Site, name: str) -> None:
    assert asked(several, f"{LIST}?{urlencode({name: ''})}") == asked(several, LIST)


@pytest.mark.parametrize("usual", [NEW, STANDING, ENDED])
def test_without_a_status_the_list_has_the_status_that_is_set(several: Site, usual: Status) -> None:
    site = Site(several.redis, list_status=usual)
    own = [(sid, status) for sid, account, _, status, _ in reversed(KNOWN) if account == ACCOUNT]
    assert listed(site) == [sid for sid, status in own if status == usual]
    assert walked(site, f"{LIST}?PageSize=1") == listed(site)
    for status in (NEW, STANDING, ENDED):
        assert listed(site, f"?Status={status}") == [sid for sid, how in own if how == status]
    assert len(listed(several)) == len(own), "without the setting all are shown"


# Pages

LINKS = ("first_page_uri", "next_page_uri", "previous_page_uri", "uri")


def follow(site: Site, path: str | None, link: str) -> Iterator[Any]:
    """This page, and those that its `next_page_uri` or `previous_page_uri` leads to."""
    for _ in range(2_000):
        if path is None:
            return
        page = asked(site, path)
        yield page
        path = page[link]
    raise AssertionError(f"{link} leads nowhere")


def things(page: Any) -> list[str]:
    """The sids of what is on a page."""
    [kind] = page.keys() & {"conferences", "participants", "recordings"}
    return [thing["call_sid" if kind == "participants" else "sid"] for thing in page[kind]]


def walked(site: Site, path: str) -> list[str]:
    """All that the pages from this one on show."""
    return [sid for page in follow(site, path, "next_page_uri") for sid in things(page)]


def walked_back(site: Site, path: str) -> list[str]:
    """All that is shown on the way back from the last page to the first, as it would be read forward."""
    *_, last = follow(site, path, "next_page_uri")
    pages = [things(page) for page in follow(site, last["uri"], "previous_page_uri")]
    return [sid for page in reversed(pages) for sid in page]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from(["Stand-up", "Retro"])), max_size=14),
    st.integers(1, 6),
    st.sampled_from(
        [
            *("", "Status=in-progress", "Status=completed", "FriendlyName=Retro", "DateCreated=2026-11-22"),
            *("ParticipantLabel=guest", "DateUpdated%3E=2026-11-22T12:00:02Z", f"ParticipantCallSid={ANNA}"),
        ]
    ),
)
@settings(
    max_examples=40,
    deadline=None,  # no test is timed
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example empties Redis itself
)
def test_walking_there_and_back_shows_everything_once_and_in_order(
    redis: Redis, conferences: list[tuple[int, bool, str]], size: int, query: str
) -> None:
    redis.flushall()
    site = Site(redis)
    for number, (second, ended, name) in enumerate(conferences):
        told = [said("participant-join", ANNA, number=1, second=second, room=room(number), ParticipantLabel="guest")]
        if ended:
            told.append(said("conference-end", number=2, second=second, room=room(number)))
        site.tell(*({**callback, "FriendlyName": name} for callback in told))
    site.fold()
    order = sorted(((second, number) for number, (second, *_) in enumerate(conferences)), reverse=True)
    expected = [
        room(number)
        for second, number in order
        if (query != "Status=completed" or conferences[number][1])
        and (query != "Status=in-progress" or not conferences[number][1])
        and (query != "FriendlyName=Retro" or conferences[number][2] == "Retro")
        and (not query.startswith("DateUpdated") or second >= 2)
    ]
    path = f"{LIST}?{query}&PageSize={size}"
    pages = list(follow(site, path, "next_page_uri"))
    assert [sid for page in pages for sid in things(page)] == expected
    assert [len(things(page)) for page in pages[:-1]] == [size] * (len(pages) - 1)
    assert len(pages) == max(1, -(-len(expected) // size)), "the last page is not empty, even if exactly full"
    assert walked_back(site, path) == expected
    back = list(follow(site, pages[-1]["uri"], "previous_page_uri"))
    assert back[-1]["previous_page_uri"] is None
    for page, again in zip(pages, reversed(back), strict=True):
        assert things(page) == things(again)
        assert [page[key] for key in ("page", "start", "end")] == [again[key] for key in ("page", "start", "end")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_participants_and_recordings_are_paged_too(site: Site, size: int) -> None:
    people = [f"CA{number:032x}" for number in range(8)]
    site.tell(
        *(said("participant-join", call, number=n, second=n // 3, Muted="true") for n, call in enumerate(people, 1)),
        *(taped(n, RecordingStartTime=format_datetime(at(n // 3))) for n in range(1, 8)),
        taped(8, RecordingStartTime=""),
    )
    site.fold()
    seconds = {call: n // 3 for n, call in enumerate(people, 1)}
    expected = sorted(people, key=lambda call: (seconds[call], call), reverse=True)
    path = f"{PARTICIPANTS}?Muted=true&PageSize={size}"
    assert walked(site, path) == walked_back(site, path) == expected
    tapes = [f"RE{number:032x}" for number in (7, 6, 5, 4, 3, 2, 1, 8)]
    path = f"{RECORDINGS}?PageSize={size}"
    assert walked(site, path) == walked_back(site, path) == tapes


def guests(site: Site, kept: Sequence[int], others: int) -> None:
    """Of many conferences of one second of each minute with a guest, some are ours: those with these numbers."""
    people: dict[str, str | None] = {ANNA: "guest"}
    rooms.write(
        site.inbox,
        site.snapshots,
        *(rooms.room(n, at(n // 3), account=ACCOUNT if n in kept else STRANGER, people=people) for n in range(others)),
    )


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    "kept",
    [
        [],
        [0],
        [299],
        [150],
        [0, 299],
        [1, 2, 150, 151, 297],
        [100, 101, 102, 103],
        [5, 6, 7, 200, 201, 202],
    ],
    ids=str,
)
def test_filters_that_pass_over_many_lose_nothing_there_nor_back(site: Site, kept: list[int], size: int) -> None:
    assert (size + 1) * PASSED_OVER < 300, "one page must not be able to look at all"
    guests(site, kept, 300)
    path = f"{LIST}?ParticipantLabel=guest&PageSize={size}"
    expected = [room(number) for number in reversed(kept)]
    assert walked(site, path) == expected
    assert walked_back(site, path) == expected


def test_a_page_that_is_not_the_first_leads_back_even_if_nothing_on_it_fits(site: Site) -> None:
    guests(site, [299], 300)
    first, *rest = follow(site, f"{LIST}?ParticipantLabel=guest&PageSize=1", "next_page_uri")
    assert first["previous_page_uri"] is None
    assert rest
    assert all(page["previous_page_uri"] for page in rest)


@pytest.mark.parametrize("kind", [LIST, PARTICIPANTS, RECORDINGS])
def test_the_last_page_leads_no_further_even_if_it_is_full(site: Site, kind: str) -> None:
    site.tell(*(said("conference-start", number=1, second=n, room=room(n)) for n in range(3)))
    site.tell(*(said("participant-join", f"CA{n:032x}", number=n, second=n) for n in range(1, 5)))
    site.tell(*(taped(n) for n in range(1, 5)))
    site.fold()
    page = asked(site, f"{kind}?PageSize=4")
    assert (len(things(page)), page["next_page_uri"], page["previous_page_uri"]) == (4, None, None)
    first, second = follow(site, f"{kind}?PageSize=2", "next_page_uri")
    assert len(things(first)) == len(things(second)) == 2


@pytest.mark.parametrize("path", [LIST, PARTICIPANTS, RECORDINGS])
def test_an_empty_list_is_a_page(site: Site, path: str) -> None:
    site.tell({**said("conference-end", number=1, second=0), "AccountSid": ACCOUNT})
    site.fold()
    query = "?Status=init" if path == LIST else ""
    page = asked(site, f"{path}{query}")
    assert things(page) == []
    assert [page[key] for key in ("page", "start", "end", "page_size")] == [0, 0, 0, 50]
    assert page["next_page_uri"] is page["previous_page_uri"] is None


def test_a_page_says_which_it_is(several: Site) -> None:
    first, second = follow(several, f"{LIST}?PageSize=3", "next_page_uri")
    assert [first[key] for key in ("page", "page_size", "start", "end")] == [0, 3, 0, 2]
    assert [second[key] for key in ("page", "page_size", "start", "end")] == [1, 3, 3, 3]
    assert asked(several, f"{LIST}?PageSize=1")["end"] == 0


def test_the_number_of_a_page_only_informs(several: Site) -> None:
    first, second = follow(several, f"{LIST}?PageSize=2", "next_page_uri")
    renumbered = asked(several, second["uri"].replace("Page=1", "Page=7"))
    assert things(renumbered) == things(second)
    assert [renumbered[key] for key in ("page", "start", "end")] == [7, 14, 15]
    assert renumbered["previous_page_uri"] == second["previous_page_uri"].replace("Page=0", "Page=6")
    assert things(asked(several, renumbered["previous_page_uri"])) == things(first)


@pytest.mark.parametrize(
    ("given_size", "size"),
    [
        *((None, 50), ("0", 1), ("1", 1), ("999", 999), ("1000", 1000), ("1001", 1000), ("5000", 1000)),
        *(("007", 7), ("999999999", 1000), (str(sys.maxsize), 1000), ("1" + "0" * 40, 1000)),
    ],
)
def test_the_size_of_a_page_is_clamped_and_never_refused(several: Site, given_size: str | None, size: int) -> None:
    query = "" if given_size is None else f"?PageSize={given_size}"
    for path in (LIST, f"{home()}/{room(2)}/Participants.json", f"{home()}/{room(2)}/Recordings.json"):
        assert asked(several, f"{path}{query}")["page_size"] == size
    assert len(listed(several, query)) == min(4, size)


def test_fifty_are_on_a_page_unless_told_and_a_thousand_at_most(site: Site) -> None:
    rooms.write(site.inbox, site.snapshots, *(rooms.room(n, at(n // 10)) for n in range(1010)))
    assert [len(listed(site, query)) for query in ("", "?PageSize=999", "?PageSize=5000")] == [50, 999, 1000]
    assert walked(site, f"{LIST}?PageSize=5000") == [room(number) for number in reversed(range(1010))]


def test_links_are_relative_and_carry_filters_then_size_then_page_then_token(several: Site) -> None:
    filters = {"Status": "in-progress", "FriendlyName": "Stand-up", "DateCreated>": "2026-11-22"}
    several.tell(*(said("conference-start", number=1, second=n, room=room(50 + n)) for n in range(5)))
    several.fold()
    path = f"{LIST}?PageSize=2&Nonsense=1&{urlencode(filters)}"
    for number, page in enumerate(follow(several, path, "next_page_uri")):
        for name in LINKS:
            link = page[name]
            if link is None:
                continue
            at_number = {"first_page_uri": 0, "next_page_uri": number + 1, "previous_page_uri": number - 1}
            parts = urlsplit(link)
            assert (parts.scheme, parts.netloc, parts.path) == ("", "", LIST)
            words = parse_qsl(parts.query)
            expected = [*filters.items(), ("PageSize", "2"), ("Page", str(at_number.get(name, number)))]
            assert words[: len(expected)] == expected
            token = [key for key, _ in words[len(expected) :]]
            assert token == ([] if name == "first_page_uri" or (name == "uri" and number == 0) else ["PageToken"])
        again = asked(several, page["uri"])
        assert again == page
        assert asked(several, page["first_page_uri"])["page"] == 0


@pytest.mark.parametrize(
    "name", ["R&D + ops = 100% / Büro?#", "a;b|c", "\x00\x1b", "%2F%", "' \"<>`{}[]\\^~", "ä" * 60]
)
def test_links_keep_the_filters_whatever_is_in_them(site: Site, name: str) -> None:
    for number in range(5):
        site.tell(said("conference-start", number=1, second=number, room=room(number), FriendlyName=name))
        site.tell(said("conference-start", number=1, second=number, room=room(number + 100), FriendlyName="R"))
    site.fold()
    path = f"{LIST}?FriendlyName={quote(name, safe='')}&Status=in-progress&PageSize=2"
    assert walked(site, path) == walked_back(site, path) == [room(number) for number in (4, 3, 2, 1, 0)]


def test_a_new_conference_does_not_shift_the_pages(several: Site) -> None:
    first = asked(several, f"{LIST}?PageSize=2")
    several.tell(said("conference-start", number=1, second=500, room=room(99)))
    several.fold()
    assert [*things(first), *walked(several, first["next_page_uri"])] == [room(number) for number in (4, 3, 2, 1)]
    *_, last = follow(several, first["next_page_uri"], "next_page_uri")
    assert room(99) in [sid for page in follow(several, last["uri"], "previous_page_uri") for sid in things(page)]


@pytest.mark.parametrize("path", [LIST, PARTICIPANTS, RECORDINGS])
@pytest.mark.parametrize(
    "token",
    [
        *("x", "PA", "1", ROOM, f"PA{ROOM}", f"PC{ROOM}006a000000", f"PA{ROOM}006a00000", f"PA{ROOM}006a00000g"),
        *(
            f"PA{ROOM}006a0000000",
            f"PA{ROOM[:-1]}g006a000000",
            f"PA{ROOM}006a000000\n",
            f" PA{ROOM}006a000000",
            "\u0663",
        ),
    ],
)
def test_a_page_token_that_is_none_is_refused(site: Site, path: str, token: str) -> None:
    site.tell(*meeting())
    site.fold()
    message = refused(site, f"{path}?{urlencode({'PageToken': token})}", 400, 21481)
    assert "PageToken" in message


@pytest.mark.parametrize("path", [LIST, PARTICIPANTS, RECORDINGS])
@pytest.mark.parametrize("other", [LIST, PARTICIPANTS, RECORDINGS])
def test_a_page_token_is_only_good_for_its_kind_of_list(site: Site, path: str, other: str) -> None:
    site.tell(*meeting()[:3], taped(1), taped(2), said("conference-start", number=1, second=-9, room=room(1)))
    site.fold()
    link = asked(site, f"{other}?PageSize=1")["next_page_uri"]
    token = dict(parse_qsl(urlsplit(link).query))["PageToken"]
    if path == other:
        assert len(things(asked(site, f"{path}?PageToken={token}"))) == 1
    else:
        refused(site, f"{path}?PageToken={token}", 400, 21481)


def test_a_page_token_shows_nothing_of_another_account(several: Site) -> None:
    strangers = dict(parse_qsl(urlsplit(asked(several, f"{LIST}?PageSize=1")["next_page_uri"]).query))["PageToken"]
    for letter in "AB":
        token = strangers.replace("PA", f"P{letter}", 1)
        page = asked(several, f"{home(STRANGER)}.json?PageToken={token}", who=TENANT)
        assert set(things(page)) <= {room(7)}


# What is no sid, what is not there


@pytest.mark.parametrize("name", ["Stand-up", "CF", "x", ANNA, ROOM + "0", ROOM[:-1] + "g", ROOM.lower(), ROOM + "%0A"])
@pytest.mark.parametrize("below", ["", "/Participants", f"/Participants/{ANNA}", "/Recordings", f"/Recordings/{TAPE}"])
def test_a_name_in_the_place_of_a_sid_is_not_allowed(site: Site, name: str, below: str) -> None:
    site.tell(*meeting())
    site.fold()
    assert refused(site, f"{home()}/{name}{below}.json", 405, 20004).startswith("Method not allowed")


@pytest.mark.parametrize("path", PATHS[1:])
def test_a_conference_nobody_has_told_of_is_not_found(site: Site, path: str) -> None:
    assert refused(site, path, 404, 20404) == f"The requested resource {path} was not found"


@pytest.mark.parametrize(
    "path",
    [
        *("/2010-04-01/Accounts.json", f"/2010-04-01/Accounts/{ACCOUNT}.json", "/2010-04-01/x"),
        *(f"/2010-04-01/Accounts/{ACCOUNT}/{other}.json" for other in ("Calls", "Recordings", "conferences", "")),
        *(f"{home('x')}.json", f"{home(ACCOUNT.lower())}.json", f"{ONE}/Nothing.json", f"{ONE}/participants.json"),
        f"{ONE}/Recordings/{TAPE}/x.json",
    ],
)
def test_what_is_not_served_is_not_found(site: Site, path: str) -> None:
    site.tell(*meeting())
    site.fold()
    answer = site.ask(path, headers={"Accept": "application/json"})
    assert (answer.status_code, answer.content_type) == (404, "application/json")
    assert answer.get_json().keys() == {"code", "message", "more_info", "status"}
    assert answer.get_json()["code"] == 20404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *itertools.product(["PUT", "PATCH"], PATHS),
        *itertools.product(["POST"], [LIST, RECORDINGS]),
        *itertools.product(["DELETE"], [LIST, f"{ONE}.json", PARTICIPANTS, RECORDINGS]),
        ("OPTIONS", LIST),
    ],
)
def test_other_methods_are_not_allowed(site: Site, method: str, path: str) -> None:
    site.tell(*meeting())
    site.fold()
    answer = site.http.open(path, method=method, auth=OWNER)
    assert answer.status_code == 405
    check(method, path, 405, answer.data, answer.content_type)
    assert answer.get_json()["code"] == 20004


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", [".json", ".xml"])
def test_head_says_what_get_would_and_sends_nothing(site: Site, path: str, form: str) -> None:
    site.tell(*meeting())
    site.fold()
    path = path.replace(".json", form)
    head, got = site.http.head(path, auth=OPERATOR), site.ask(path)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    assert head.headers["Content-Length"] == str(len(got.data))
    for missing in (f"{home()}/{room(9)}{form}", f"{home()}/name{form}"):
        assert site.http.head(missing, auth=OPERATOR).status_code == site.ask(missing).status_code


# Forms


def parsed(site: Site, path: str, status: int = 200, **more: Any) -> ElementTree.Element:
    """The element below TwilioResponse of an answer in XML."""
    answer = site.ask(path, **more)
    assert answer.status_code == status, answer.get_data(as_text=True)
    assert answer.content_type.partition(";")[0] == "application/xml"
    root = ElementTree.fromstring(answer.data)
    assert root.tag == "TwilioResponse"
    [element] = root
    return element


CONFERENCE_TAGS = {
    "AccountSid": "account_sid",
    "ApiVersion": "api_version",
    "CallSidEndingConference": "call_sid_ending_conference",
    "DateCreated": "date_created",
    "DateUpdated": "date_updated",
    "FriendlyName": "friendly_name",
    "ReasonConferenceEnded": "reason_conference_ended",
    "Region": "region",
    "Sid": "sid",
    "Status": "status",
}
PARTICIPANT_TAGS = {
    "AccountSid": "account_sid",
    "CallSid": "call_sid",
    "CallSidToCoach": "call_sid_to_coach",
    "Coaching": "coaching",
    "ConferenceSid": "conference_sid",
    "DateCreated": "date_created",
    "DateUpdated": "date_updated",
    "EndConferenceOnExit": "end_conference_on_exit",
    "Hold": "hold",
    "Label": "label",
    "Muted": "muted",
    "QueueTime": "queue_time",
    "StartConferenceOnEnter": "start_conference_on_enter",
    "Status": "status",
}


def texts(element: ElementTree.Element) -> dict[str, str | None]:
    return {child.tag: child.text for child in element}


def as_text(value: Any) -> str | None:
    return str(value).lower() if isinstance(value, bool) else value


@pytest.mark.parametrize("ending", ["", ".xml"])
def test_without_json_a_resource_is_xml(site: Site, ending: str) -> None:
    site.tell(*meeting())
    site.fold()
    conference, shown = parsed(site, f"{ONE}{ending}"), asked(site, f"{ONE}.json")
    assert conference.tag == "Conference"
    words = texts(conference)
    assert {tag: words[tag] for tag in CONFERENCE_TAGS} == {tag: shown[key] for tag, key in CONFERENCE_TAGS.items()}
    assert (words["Uri"], words.keys() - CONFERENCE_TAGS.keys()) == (ONE, {"Uri", "SubresourceUris"})
    subresources = conference.find("SubresourceUris")
    assert subresources is not None
    assert texts(subresources) == {"Participants": f"{ONE}/Participants", "Recordings": f"{ONE}/Recordings"}
    for uri in (ONE, *texts(subresources).values()):
        parsed(site, str(uri))

    participant, shown = parsed(site, f"{ONE}/Participants/ben{ending}"), asked(site, f"{ONE}/Participants/ben.json")
    assert participant.tag == "Participant"
    words = texts(participant)
    assert words.pop("Uri") == f"{ONE}/Participants/{BEN}"
    assert words == {tag: as_text(shown[key]) for tag, key in PARTICIPANT_TAGS.items()}

    recording = parsed(site, f"{ONE}/Recordings/{TAPE}{ending}")
    assert recording.tag == "Recording"
    assert recording.findtext("Sid") == TAPE
    assert recording.findtext("Duration") == "18"


def test_a_list_in_xml_has_its_pages_in_attributes(site: Site) -> None:
    site.tell(*(said("conference-start", number=1, second=n, room=room(n)) for n in range(3)))
    site.fold()
    path: str | None = f"{home()}?Status=in-progress&PageSize=2"
    found: list[str | None] = []
    numbers = []
    while path:
        page = parsed(site, path)
        assert page.tag == "Conferences"
        assert {each.tag for each in page} == {"Conference"}
        found += [each.findtext("Sid") for each in page]
        numbers.append((page.get("page"), page.get("pagesize"), page.get("start"), page.get("end")))
        assert str(page.get("uri")).startswith(f"{home()}?")
        path = page.get("nextpageuri")
    assert found == [room(2), room(1), room(0)]
    assert numbers == [("0", "2", "0", "1"), ("1", "2", "2", "2")]
    for kind in ("Participants", "Recordings"):
        assert parsed(site, f"{home()}/{room(0)}/{kind}").tag == kind


def test_an_error_is_xml_where_a_resource_would_be(site: Site) -> None:
    for path, status, code in (
        (f"{ONE}.xml", 404, "20404"),
        (f"{home()}/name", 405, "20004"),
        (f"{home()}?Status=x", 400, "20001"),
        (f"{home()}.xml?PageToken=x", 400, "21481"),
    ):
        error = parsed(site, path, status)
        assert error.tag == "RestException"
        words = texts(error)
        assert words.keys() == {"Code", "Message", "MoreInfo", "Status"}
        assert (words["Code"], words["Status"]) == (code, str(status))
        assert words["Message"]
        assert words["MoreInfo"] == f"https://www.twilio.com/docs/errors/{code}"
    assert parsed(site, home(), 401, who=None).findtext("Code") == "20003"


NAMES_IN_XML = {
    "<&>\"' \U0001f600 Büro ]]>": "<&>\"' \U0001f600 Büro ]]>",
    "a\x00b\x1bc\x08": "a\ufffdb\ufffdc\ufffd",
    "\ufffe\uffff": "\ufffd\ufffd",
    "tab\tline\nend": "tab\tline\nend",
    "/2010-04-01/notes.json": "/2010-04-01/notes.json",
    "notes.json": "notes.json",
}


@pytest.mark.parametrize("name", NAMES_IN_XML)
def test_any_name_can_be_told_in_xml(site: Site, name: str) -> None:
    site.tell(said("participant-join", ANNA, number=1, second=0, FriendlyName=name, ParticipantLabel=name))
    site.fold()
    assert asked(site, f"{ONE}.json")["friendly_name"] == name
    assert parsed(site, ONE).findtext("FriendlyName") == NAMES_IN_XML[name]
    assert parsed(site, f"{ONE}/Participants").findtext("Participant/Label") == NAMES_IN_XML[name]
    page = parsed(site, f"{home()}?FriendlyName={quote(name, safe='')}")
    assert page.findtext("Conference/FriendlyName") == NAMES_IN_XML[name]


def test_an_error_can_tell_of_any_path_in_xml(site: Site) -> None:
    site.tell(*meeting())
    site.fold()
    for label in ("\x00\x1b", "<&>", "%ff", "\ufffe", "]]>"):
        escaped = label if label == "%ff" else quote(label, safe="")
        assert parsed(site, f"{ONE}/Participants/{escaped}", 404).findtext("Code") == "20404"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("accept", ["application/json", "text/html, application/json;q=0.9, */*;q=0.1"])
def test_json_can_be_asked_for_by_accept(site: Site, path: str, accept: str) -> None:
    site.tell(*meeting())
    site.fold()
    plain = asked(site, path.removesuffix(".json"), headers={"Accept": accept})
    assert plain == asked(site, path)
    parsed(site, path.replace(".json", ".xml"), headers={"Accept": accept})
    assert asked(site, path, headers={"Accept": "application/xml"}) == plain


@pytest.mark.parametrize("accept", ["*/*", "application/xml", "text/html", ""])
def test_xml_is_what_is_answered_to_who_does_not_ask_for_json(site: Site, accept: str) -> None:
    assert parsed(site, home(), headers={"Accept": accept}).tag == "Conferences"


@pytest.mark.parametrize("form", [".csv", ".html"])
@pytest.mark.parametrize("path", PATHS)
def test_other_forms_are_refused_and_those_there_are_named(site: Site, path: str, form: str) -> None:
    site.tell(*meeting())
    site.fold()
    error = parsed(site, path.replace(".json", form), 400)
    assert error.findtext("Code") == "20001"
    message = str(error.findtext("Message"))
    assert form[1:] in message
    assert ".json" in message


@pytest.mark.parametrize("path", [home(), ONE, f"{ONE}/Participants"])
def test_a_slash_at_the_end_changes_nothing(site: Site, path: str) -> None:
    site.tell(*meeting())
    site.fold()
    assert site.ask(f"{path}/").data == site.ask(path).data
    json = {"Accept": "application/json"}
    assert site.ask(f"{path}/", headers=json).data == site.ask(path, headers=json).data


# Who may see what


@pytest.mark.parametrize(
    "who",
    [None, (ACCOUNT, "wrong"), (ACCOUNT, ""), ("", ""), ("nobody", "x"), (OPERATOR[0], TOKEN), (ROOM, TOKEN)],
)
@pytest.mark.parametrize("path", PATHS)
def test_nobody_in_particular_sees_nothing(site: Site, path: str, who: tuple[str, str] | None) -> None:
    site.tell(*meeting())
    site.fold()
    answer = site.ask(path, who)
    assert answer.status_code == 401
    check("GET", path, 401, answer.data, answer.content_type)
    assert answer.get_json()["code"] == 20003
    assert answer.get_json()["message"].startswith("Authenticate")
    assert answer.headers["WWW-Authenticate"].lower().startswith("basic realm=")
    unknown = site.ask(path.replace(ROOM, room(9)), who)
    assert (unknown.status_code, unknown.data) == (401, answer.data), "whether it is there is not told"


SEEN = {
    OPERATOR: {ACCOUNT, CHILD, STRANGER},
    OWNER: {ACCOUNT, CHILD},
    SUBACCOUNT: {CHILD},
    OUTSIDER: {STRANGER},
    TENANT: {STRANGER},
}
NOBODYS = "AC" + "9" * 32


@pytest.mark.parametrize("who", SEEN, ids=lambda who: who[0][:8])
def test_everyone_sees_their_own_accounts_and_no_other(several: Site, who: tuple[str, str]) -> None:
    for account in (ACCOUNT, CHILD, STRANGER):
        path = f"{home(account)}.json"
        if account in SEEN[who]:
            own = [sid for sid, owner, *_ in reversed(KNOWN) if owner == account]
            assert listed(several, "", path, who=who) == own
            for sid, owner, *_ in KNOWN:
                for below in ("", "/Participants", "/Recordings"):
                    asked(several, f"{home(account)}/{sid}{below}.json", 200 if owner == account else 404, who=who)
        else:
            refused(several, path, 404, 20404, who=who)


BELOW = ["", "/Participants", f"/Participants/{ANNA}", "/Participants/anna", "/Recordings", f"/Recordings/{TAPE}"]
QUERIES = ["", "?Status=nonsense&PageToken=x&PageSize=x&Muted=x&DateCreated=x"]


@pytest.mark.parametrize("query", QUERIES, ids=["plain", "faulty"])
@pytest.mark.parametrize("form", [".json", ".xml", ".csv"])
def test_what_may_not_be_seen_looks_as_if_it_were_not_there(several: Site, form: str, query: str) -> None:
    for who, visible in SEEN.items():
        for sid, owner, *_ in KNOWN:
            for account, below in itertools.product([ACCOUNT, CHILD, STRANGER], BELOW):
                if account == owner and account in visible:
                    continue
                hidden = f"{home(account)}/{sid}{below}{form}{query}"
                absent = hidden.replace(sid, room(99))
                if account not in visible:
                    absent = absent.replace(account, NOBODYS)
                assert alike(several, who, hidden, absent, {sid: room(99), account: NOBODYS}), f"{hidden} for {who[0]}"
    for who, visible in SEEN.items():
        for account, tail in itertools.product({ACCOUNT, CHILD, STRANGER} - visible, ["", "/x", "/x/Participants"]):
            hidden = f"{home(account)}{tail}{form}{query}"
            assert alike(several, who, hidden, hidden.replace(account, NOBODYS), {account: NOBODYS})


def alike(site: Site, who: tuple[str, str], hidden: str, absent: str, same: dict[str, str]) -> bool:
    """Whether two addresses are answered with the same, but for the sids in them."""
    answers = []
    for path in (hidden, absent):
        answer = site.ask(path, who)
        assert answer.status_code == (400 if ".csv" in path else 404), answer.get_data(as_text=True)
        if ".json" in path:
            check("GET", path, 404, answer.data, answer.content_type)
        text = answer.get_data(as_text=True)
        for sid, other in same.items():
            text = text.replace(sid, other)
        headers = {name: value for name, value in answer.headers if name != "Content-Length"}
        answers.append((answer.status_code, text, headers))
    return answers[0] == answers[1]


def test_an_account_that_is_not_configured_has_no_list_even_for_who_sees_all(several: Site) -> None:
    refused(several, f"{home(NOBODYS)}.json", 404, 20404)


def test_a_participant_of_another_conference_is_not_found_in_this_one(several: Site) -> None:
    for account, sid, who in ((ACCOUNT, room(3), ANNA), (ACCOUNT, room(3), "ben"), (STRANGER, room(7), BEN)):
        refused(several, f"{home(account)}/{sid}/Participants/{who}.json", 404, 20404)


def test_a_call_in_conferences_of_two_accounts_is_found_in_each_by_itself(several: Site) -> None:
    for account, expected in ((ACCOUNT, [room(2), room(1)]), (STRANGER, [room(7)]), (CHILD, [])):
        assert listed(several, f"?ParticipantCallSid={ANNA}", f"{home(account)}.json") == expected
        assert walked(several, f"{home(account)}.json?ParticipantCallSid={ANNA}&PageSize=1") == expected


def test_a_key_that_only_reads_changes_nothing(site: Site) -> None:
    site.tell(*meeting())
    site.fold()
    path = f"{ONE}.json"
    answer = site.http.post(path, auth=OPERATOR, data={"Status": "completed"})
    assert answer.status_code == 403
    check("POST", path, 403, answer.data, answer.content_type)
    assert answer.get_json()["code"] == 20003


# Failures


@pytest.mark.parametrize("path", PATHS)
def test_away_from_redis_every_read_says_so(nowhere: Redis, path: str) -> None:
    site = Site(nowhere)
    with capture_logs() as lines:
        assert "Redis" in refused(site, path, 503, 20500)
        assert parsed(site, path.replace(".json", ".xml"), 503).findtext("Code") == "20500"
    assert [line["event"] for line in lines] == ["redis failed"] * 2


def test_a_fault_of_our_own_is_told_as_twilio_would_and_keeps_its_particulars_in_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("a fault about +15550123456")

    monkeypatch.setattr(site.snapshots, "headers", breaks)
    with capture_logs() as lines:
        answer = site.ask(f"{ONE}.json")
    assert (answer.status_code, answer.get_json()["code"]) == (500, 20500)
    assert "fault" not in answer.get_data(as_text=True)
    assert [(line["event"], line["error"]) for line in lines] == [("request failed", "RuntimeError")]


WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            *(
                "in-progress",
                "true",
                "2026-11-22",
                "2026-11-22T12:00:00Z",
                "0",
                "1",
                "9" * 30,
                ANNA,
                "anna",
                "Stand-up",
            ),
            *(f"PA{ROOM}006a000000", f"PB{ROOM}ffffffffff", f"PA{ANNA}0000000000", f"PBZZ{'0' * 32}0123456789"),
        ]
    ),
)


@given(
    st.one_of(
        st.sampled_from([LIST, PARTICIPANTS, RECORDINGS]),
        st.builds("{}/Participants/{}.json".format, st.just(ONE), st.text(min_size=1, max_size=8).map(quote)),
        st.builds(
            "{}/{}.json".format, st.just(home()), st.binary(min_size=1, max_size=8).map(lambda raw: quote(raw, safe=""))
        ),
    ),
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *("Status", "FriendlyName", "DateCreated", "DateCreated<", "DateUpdated>", "ParticipantCallSid"),
                    *("ParticipantLabel", "Muted", "Hold", "PageSize", "Page", "PageToken", "\xe9", ""),
                ]
            ),
            WORDS,
        ),
        max_size=4,
    ),
)
@settings(
    max_examples=200,
    deadline=None,  # no test is timed
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # nothing is changed by asking
)
def test_no_question_is_answered_with_an_error_of_ours(met: Site, path: str, wanted: list[tuple[str, str]]) -> None:
    answer = met.ask(f"{path}?{urlencode(wanted, errors='replace')}")
    assert answer.status_code in (200, 400, 404, 405)
    check("GET", path, answer.status_code, answer.data, answer.content_type)


@pytest.fixture
def met(site: Site) -> Site:
    """The meeting, and nothing else."""
    site.tell(*meeting())
    site.fold()
    return site
