"""Twilio's resources as tables of cases: what each value becomes, in JSON and in XML."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.conference import Header, Participant, Stay
from app.events import Recording
from app.twilio import insights, resources
from app.twilio.times import read_time, rfc_2822
from tests.cast import ACCOUNT, ANNA, BEN, ROOM, at

HEADER = Header(sid=ROOM, account_sid=ACCOUNT, status="in-progress", created_at=at(0), updated_at=at(9))
TAPE = Recording(sid="RE" + "e" * 32, status="completed")
LINKS: dict[str, str | None] = {"own": "/own", "first": "/first", "next": None, "previous": None}

# Times


@pytest.mark.parametrize(
    ("time", "written"),
    [
        (None, None),
        (datetime(2026, 11, 2, 3, 4, 5, tzinfo=UTC), "Mon, 02 Nov 2026 03:04:05 +0000"),
        (datetime(2026, 11, 2, 3, 4, 5, 999_999, tzinfo=UTC), "Mon, 02 Nov 2026 03:04:05 +0000"),
        (
            datetime(2026, 11, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            "Sun, 01 Nov 2026 21:34:05 +0000",
        ),
        (datetime(1970, 1, 1, tzinfo=UTC), "Thu, 01 Jan 1970 00:00:00 +0000"),
        (datetime(1, 1, 1, tzinfo=UTC), "Mon, 01 Jan 0001 00:00:00 +0000"),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "Fri, 31 Dec 9999 23:59:59 +0000"),
    ],
)
def test_times_are_written_as_every_sdk_reads_them(time: datetime | None, written: str | None) -> None:
    assert rfc_2822(time) == written


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)))  # before it a year has two meanings
def test_a_time_that_was_written_is_read_as_it_was(time: datetime) -> None:
    written = rfc_2822(time)
    assert written is not None
    assert read_time(written) == parsedate_to_datetime(written) == time.replace(microsecond=0)
    assert read_time(time.isoformat()) == time


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("Sun, 22 Nov 2026 12:00:00 +0000", at(0)),
        ("Sun, 22 Nov 2026 13:00:00 +0100", at(0)),
        ("Sun, 22 Nov 2026 12:00:00 GMT", at(0)),
        ("Sun, 22 Nov 2026 12:00:00 -0000", at(0)),
        ("2026-11-22T12:00:00Z", at(0)),
        ("2026-11-22T14:00:00+02:00", at(0)),
        ("2026-11-22T12:00:00", at(0)),
        ("2026-11-22T12:00:00.250Z", at(0.25)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("", None),
        ("noon", None),
        ("2026-13-01", None),
        ("Sun, 32 Nov 2026 12:00:00 +0000", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
    ],
)
def test_a_time_is_read_however_twilio_and_its_neighbours_write_it(text: str, time: datetime | None) -> None:
    assert read_time(text) == time


# Conferences and participants


@pytest.mark.parametrize("region", [None, "us1", "ie1", "unknown"])
def test_the_region_is_whatever_twilio_has_told(region: str | None) -> None:
    assert resources.conference(replace(HEADER, region=region))["region"] == region


@pytest.mark.parametrize(("region", "shown"), [(None, None), ("us1", "us1"), ("in1", "in1"), ("unknown", None)])
def test_a_summary_has_only_regions_that_insights_knows(region: str | None, shown: str | None) -> None:
    header = replace(HEADER, region=region)
    assert insights.conference(header, [], "https://x")["mixer_region"] == shown
    assert insights.participant(header, Participant(call_sid=ANNA), "https://x")["conference_region"] == shown


@pytest.mark.parametrize(("milliseconds", "shown"), [(None, None), (0, "0"), (1500, "1500")])
def test_the_queue_time_is_a_string(milliseconds: int | None, shown: str | None) -> None:
    waiting = Participant(call_sid=ANNA, queue_time=milliseconds)
    assert resources.participant(HEADER, waiting)["queue_time"] == shown


def test_the_coached_call_is_told_where_an_answer_told_it() -> None:
    coach = Participant(call_sid=ANNA, coaching=True, call_sid_to_coach=BEN, coach_told=(at(0), BEN))
    assert resources.participant(HEADER, coach)["call_sid_to_coach"] == BEN
    summary = insights.participant(HEADER, coach, "https://x")
    assert (summary["is_coach"], summary["coached_participants"]) == (True, [BEN])


@pytest.mark.parametrize(
    ("participant", "on", "ended"),
    [
        (Participant(call_sid=ANNA, status="queued"), True, False),
        (Participant(call_sid=ANNA, status="connecting"), True, False),
        (Participant(call_sid=ANNA, status="ringing"), True, False),
        (Participant(call_sid=ANNA, status="connected", stays=(Stay(joined_at=at(0)),)), True, True),
        (Participant(call_sid=ANNA, status="complete", stays=(Stay(joined_at=at(0), left_at=at(1)),)), False, True),
        (Participant(call_sid=ANNA, status="complete"), False, False),
        (Participant(call_sid=ANNA, status="failed"), False, False),
    ],
)
def test_who_is_shown_of_a_conference_that_goes_on_and_of_one_that_has_ended(
    participant: Participant, on: bool, ended: bool
) -> None:
    assert bool(resources.shown(HEADER, [participant])) is on
    assert bool(resources.shown(replace(HEADER, status="init"), [participant])) is on
    assert bool(resources.shown(replace(HEADER, status="completed"), [participant])) is ended


@pytest.mark.parametrize(
    ("direction", "begins", "goes", "told"),
    [
        (None, None, None, (None, None)),
        ("inbound", "+15550100", "+15550101", ("inbound", "carrier")),
        ("inbound", "client:anna", "+15550101", ("inbound", "client")),
        ("inbound", "sip:anna@example.com", "+15550101", ("inbound", "sip")),
        ("outbound-api", "+15550100", "client:anna", ("outbound", "client")),
        ("outbound-dial", "client:ben", "sip:anna@example.com", ("outbound", "sip")),
        ("outbound-api", "client:ben", "+15550101", ("outbound", "carrier")),
        ("outbound-api", "client:ben", None, ("outbound", None)),
    ],
)
def test_the_type_of_a_call_is_that_of_its_far_end(
    direction: str | None, begins: str | None, goes: str | None, told: tuple[str | None, str | None]
) -> None:
    summary = insights.participant(
        HEADER, Participant(call_sid=ANNA, direction=direction, from_=begins, to=goes), "https://x"
    )
    assert (summary["call_direction"], summary["call_type"]) == told


@pytest.mark.parametrize(
    ("start", "end", "moderator"),
    [
        (None, None, None),
        (True, None, True),
        (None, True, True),
        (False, None, False),
        (False, False, False),
        (True, False, True),
        (False, True, True),
    ],
)
def test_a_moderator_begins_or_ends_the_conference(
    start: bool | None, end: bool | None, moderator: bool | None
) -> None:
    participant = Participant(call_sid=ANNA, start_conference_on_enter=start, end_conference_on_exit=end)
    assert insights.participant(HEADER, participant, "https://x")["is_moderator"] is moderator


# Recordings


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("started", "in-progress"),
        ("in-progress", "in-progress"),
        ("resumed", "in-progress"),
        ("paused", "paused"),
        ("stopped", "stopped"),
        ("processing", "processing"),
        ("completed", "completed"),
        ("absent", "absent"),
        ("failed", "absent"),
    ],
)
def test_a_recordings_status_is_one_of_the_resources(told: str, shown: str) -> None:
    assert resources.recording(HEADER, replace(TAPE, status=told))["status"] == shown


@pytest.mark.parametrize(("seconds", "shown"), [(None, None), (0, "0"), (61, "61")])
def test_a_recordings_duration_is_a_string_once_it_is_told(seconds: int | None, shown: str | None) -> None:
    assert resources.recording(HEADER, replace(TAPE, duration=seconds))["duration"] == shown


@pytest.mark.parametrize(("told", "shown"), [(None, 1), (1, 1), (2, 2)])
def test_a_conferences_recording_has_one_channel_unless_told(told: int | None, shown: int) -> None:
    assert resources.recording(HEADER, replace(TAPE, channels=told))["channels"] == shown


def test_a_recording_is_as_old_as_its_beginning() -> None:
    recording = resources.recording(HEADER, replace(TAPE, start_time=at(2)))
    assert {recording[name] for name in ("start_time", "date_created", "date_updated")} == {rfc_2822(at(2))}


# Lists


@pytest.mark.parametrize(
    ("count", "page", "size", "start", "end"),
    [
        (0, 0, 50, 0, 0),
        (1, 0, 50, 0, 0),
        (50, 0, 50, 0, 49),
        (50, 1, 50, 50, 99),
        (3, 2, 50, 100, 102),
        (1, 4, 1, 4, 4),
    ],
)
def test_a_page_counts_from_the_beginning_of_the_list(count: int, page: int, size: int, start: int, end: int) -> None:
    listing = resources.listing("conferences", [resources.conference(HEADER)] * count, page, size, LINKS)
    assert (listing["start"], listing["end"], listing["page"], listing["page_size"]) == (start, end, page, size)


@pytest.mark.parametrize("kind", ["conferences", "participants", "recordings"])
def test_beside_its_items_a_page_has_twilios_eight_keys_and_no_more(kind: resources.Kind) -> None:
    listing = resources.listing(kind, [], 0, 50, LINKS)
    assert listing.keys() - {kind} == {
        *("end", "start", "page", "page_size"),
        *("uri", "first_page_uri", "next_page_uri", "previous_page_uri"),
    }


def test_a_failure_has_twilios_four_keys_and_no_more() -> None:
    assert resources.error(404, 20404, "It is not there") == {
        "code": 20404,
        "message": "It is not there",
        "more_info": "https://www.twilio.com/docs/errors/20404",
        "status": 404,
    }


# XML


def read(payload: dict[str, Any]) -> ElementTree.Element:
    """The one element in TwilioResponse."""
    root = ElementTree.fromstring(resources.xml(payload))
    assert root.tag == "TwilioResponse"
    [element] = root
    return element


@pytest.mark.parametrize(
    ("payload", "tag"),
    [
        (resources.conference(HEADER), "Conference"),
        (resources.participant(HEADER, Participant(call_sid=ANNA)), "Participant"),
        (resources.recording(HEADER, TAPE), "Recording"),
        (resources.listing("conferences", [], 0, 50, LINKS), "Conferences"),
        (resources.listing("participants", [], 0, 50, LINKS), "Participants"),
        (resources.listing("recordings", [], 0, 50, LINKS), "Recordings"),
        (resources.error(404, 20404, "It is not there"), "RestException"),
    ],
)
def test_what_it_is_gives_the_element_its_name(payload: dict[str, Any], tag: str) -> None:
    assert read(payload).tag == tag


@pytest.mark.parametrize(("muted", "written"), [(None, None), (True, "true"), (False, "false")])
def test_flags_are_words_and_what_nobody_told_is_empty(muted: bool | None, written: str | None) -> None:
    assert read(resources.participant(HEADER, Participant(call_sid=ANNA, muted=muted))).findtext("Muted") == (
        written or ""
    )


def test_addresses_in_xml_lead_to_xml() -> None:
    conference = read(resources.conference(HEADER))
    assert conference.findtext("Uri") == f"/2010-04-01/Accounts/{ACCOUNT}/Conferences/{ROOM}"
    links = dict.fromkeys(LINKS, f"/2010-04-01/Accounts/{ACCOUNT}/Conferences.json?FriendlyName=x.json")
    page = read(resources.listing("conferences", [resources.conference(HEADER)], 0, 50, {**links}))
    expected = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences?FriendlyName=x.json"
    assert {page.get(name) for name in ("uri", "firstpageuri", "nextpageuri", "previouspageuri")} == {expected}
    assert [each.tag for each in page] == ["Conference"]


@given(st.text())
def test_any_text_is_told_in_xml_as_far_as_xml_can_hold_it(name: str) -> None:
    told = read(resources.conference(replace(HEADER, friendly_name=name))).findtext("FriendlyName")
    assert told is not None
    held = {"\r": "\n"}
    for said, read_back in zip(name.replace("\r\n", "\n"), told, strict=True):
        assert read_back in (said, held.get(said), "\ufffd")
    if name.isprintable():
        assert told == name


@given(st.text())
def test_any_message_is_told_in_xml(message: str) -> None:
    assert read(resources.error(404, 20404, message)).findtext("Code") == "20404"
