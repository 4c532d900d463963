"""What Twilio's REST API shows is taken for what it is, whatever stands in it, and never for more."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import Callback, Seen
from app.twilio import snapshot
from app.twilio.callbacks import Unusable, glance, parameters, read
from app.twilio.snapshot import Record, Unexpected, encode_record, taken_at
from tests.cast import ACCOUNT, ANNA, BEN, NOON, ROOM, at
from tests.upstream.pretend import conference, participant

LIST = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences.json"


def written(**more: Any) -> Callback:
    """The record of a look, as it lies in an inbox."""
    about: dict[str, Any] = {"account_sid": ACCOUNT, "conference_sid": ROOM, "taken_at": at(9), "reason": "hole"}
    record = Record(**about | {"by": "offhook"} | more)
    return Callback(body=encode_record(record), media="snapshot", received_at=0, key="offhook")


def test_a_record_tells_of_the_conference_and_of_everyone_in_it() -> None:
    event = read(written(conference=conference(ROOM), participants=[participant(ANNA, ROOM)], after=4, missing=True))
    seen = event.snapshot
    assert (event.source, event.conference_sid, event.friendly_name) == ("snapshot", ROOM, "Stand-up")
    assert seen is not None
    assert (seen.taken_at, seen.after, seen.missing, seen.reason) == (at(9), 4, True, "hole")
    assert (seen.status, seen.region, seen.created_at, seen.updated_at) == ("in-progress", "us1", at(0), at(5))
    assert seen.participants == (
        Seen(
            call_sid=ANNA,
            status="connected",
            label="anna",
            muted=True,
            hold=False,
            coaching=False,
            start_conference_on_enter=True,
            end_conference_on_exit=False,
            created_at=at(1),
            updated_at=at(2),
        ),
    )


def test_what_nobody_was_asked_for_is_not_known_and_what_twilio_does_not_know_has_no_status() -> None:
    listed, unknown, ended = (
        read(written(**more)).snapshot
        for more in (
            {"participants": [participant(ANNA, ROOM)]},
            {},
            {"conference": conference(ROOM, status="completed", reason_conference_ended="last-participant-left")},
        )
    )
    assert listed is not None
    assert (listed.status, listed.region) == ("in-progress", None)
    assert unknown is not None
    assert (unknown.status, unknown.participants) == (None, None)
    assert ended is not None
    assert (ended.status, ended.reason_conference_ended, ended.participants) == (
        "completed",
        "last-participant-left",
        None,
    )


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda some: st.lists(some, max_size=2),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from(sorted(conference(ROOM))), ANYTHING), st.data())
def test_whatever_stands_in_a_field_the_rest_is_read_and_the_record_shows_all(
    odd: dict[str, Any], data: st.DataObject
) -> None:
    odd_people = data.draw(st.dictionaries(st.sampled_from([*participant(ANNA, ROOM), "new"]), ANYTHING))
    shown = {"conference": conference(ROOM) | odd, "participants": [odd_people, participant(BEN, ROOM)]}
    callback = written(**shown)
    seen = read(callback).snapshot
    assert seen is not None
    assert seen.participants is not None
    assert seen.participants[-1].call_sid == BEN
    said = parameters(callback)
    assert {name: said[name] for name in shown} == shown


def test_a_region_that_twilio_does_not_know_is_none() -> None:
    seen = read(written(conference=conference(ROOM, region="unknown"))).snapshot
    assert seen is not None
    assert seen.region is None


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", written(conference_sid="x").body, b"\xff"])
def test_a_record_that_is_none_is_set_aside(body: bytes) -> None:
    callback = Callback(body=body, media="snapshot", received_at=0, key="offhook")
    with pytest.raises(Unusable):
        read(callback)
    assert glance(callback) is None


def test_a_record_that_cannot_be_folded_says_which_conference_lacks_it() -> None:
    callback = written()
    seen = glance(callback)
    assert seen is not None
    assert seen == (ACCOUNT, ROOM, read(callback).id)


# Answers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"sid":',
        b"[" * 100_000,
        json.dumps(conference("CF" + "0" * 32)).encode(),
        json.dumps(conference(ROOM, "AC" + "0" * 32)).encode(),
        json.dumps(conference(ROOM, status="odd")).encode(),
    ],
)
def test_what_is_not_the_conference_that_was_asked_for_is_nothing(body: bytes) -> None:
    with pytest.raises(Unexpected):
        snapshot.read_conference(body, ACCOUNT, ROOM)


@pytest.mark.parametrize(
    "page",
    [
        {"participants": {}},
        {"participants": [1], "next_page_uri": None},
        {"participants": []},
        {"participants": [participant(ANNA, ROOM)], "next_page_uri": "/more"},
        {"participants": [participant(ANNA, "CF" + "0" * 32)], "next_page_uri": None},
        {"participants": [participant("anna", ROOM)], "next_page_uri": None},
        {"conferences": [], "next_page_uri": None},
    ],
)
def test_what_is_not_the_whole_list_of_participants_is_nothing(page: Any) -> None:
    with pytest.raises(Unexpected):
        snapshot.read_participants(json.dumps(page).encode(), ROOM)


@pytest.mark.parametrize(
    "following",
    [
        "https://example.com" + LIST + "?Page=1",
        "//example.com" + LIST + "?Page=1",
        f"/2010-04-01/Accounts/AC{'0' * 32}/Conferences.json?Page=1",
        LIST + "/../../Calls.json?Page=1",
        LIST,
        LIST + "?Page=1\r\nX: y",
        "@example.com/" + LIST + "?Page=1",
        1,
    ],
)
def test_a_list_of_conferences_leads_nowhere_but_on(following: Any) -> None:
    with pytest.raises(Unexpected):
        snapshot.read_conferences(json.dumps({"conferences": [], "next_page_uri": following}).encode(), ACCOUNT)


def test_only_twilio_says_that_it_does_not_know_something() -> None:
    assert snapshot.is_unknown(404, b'{"code":20404}')
    for status, body in [(404, b"<h1>404</h1>"), (404, b'{"code":1}'), (404, b""), (200, b'{"code":20404}')]:
        assert not snapshot.is_unknown(status, body)


# When it was taken


def test_a_look_was_taken_before_twilio_answered_by_as_long_as_it_took() -> None:
    date = "Sun, 22 Nov 2026 12:00:10 GMT"
    assert taken_at(date, 0.2, at(10)) == at(9)
    assert taken_at(date, 3.5, at(10)) == at(6)


@pytest.mark.parametrize("date", [None, "", "soon"])
def test_without_a_date_it_was_taken_a_minute_before_we_asked(date: str | None) -> None:
    assert taken_at(date, 0.2, at(10)) == at(-50)


def test_a_date_far_ahead_of_us_is_not_believed() -> None:
    assert taken_at("Sun, 22 Nov 2026 18:00:00 GMT", 0.2, NOON) == NOON + timedelta(seconds=60)
