"""The description of the Twilio-compatible endpoints is sound, and answers are held to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.cast import ACCOUNT, ANNA, BEN, ROOM
from tests.described import DESCRIPTION, check, resolve

CONFERENCES = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences"
PARTICIPANTS = f"{CONFERENCES}/{ROOM}/Participants"
RECORDINGS = f"{CONFERENCES}/{ROOM}/Recordings"
RECORDING = "RE" + "d" * 32
SUMMARIES = "https://offhook.example.com/v1/Conferences"
JSON = "application/json"
NOON, LATER = "Sun, 22 Nov 2026 12:00:00 +0000", "Sun, 22 Nov 2026 12:00:05 +0000"

CONFERENCE = {
    "account_sid": ACCOUNT,
    "api_version": "2010-04-01",
    "call_sid_ending_conference": None,
    "date_created": NOON,
    "date_updated": LATER,
    "friendly_name": "Stand-up",
    "reason_conference_ended": None,
    "region": None,
    "sid": ROOM,
    "status": "in-progress",
    "subresource_uris": {"participants": f"{PARTICIPANTS}.json", "recordings": f"{RECORDINGS}.json"},
    "uri": f"{CONFERENCES}/{ROOM}.json",
}
PARTICIPANT = {
    "account_sid": ACCOUNT,
    "call_sid": ANNA,
    "call_sid_to_coach": None,
    "coaching": None,
    "conference_sid": ROOM,
    "date_created": NOON,
    "date_updated": LATER,
    "end_conference_on_exit": False,
    "hold": False,
    "label": "anna",
    "muted": None,
    "queue_time": None,
    "start_conference_on_enter": True,
    "status": "connected",
    "uri": f"{PARTICIPANTS}/{ANNA}.json",
}
A_RECORDING = {
    "account_sid": ACCOUNT,
    "api_version": "2010-04-01",
    "call_sid": None,
    "channels": 1,
    "conference_sid": ROOM,
    "date_created": NOON,
    "date_updated": LATER,
    "duration": "61",
    "encryption_details": None,
    "error_code": None,
    "price": None,
    "price_unit": None,
    "sid": RECORDING,
    "source": "Conference",
    "start_time": NOON,
    "status": "completed",
    "uri": f"{RECORDINGS}/{RECORDING}.json",
}
CONFERENCE_SUMMARY = {
    "account_sid": ACCOUNT,
    "conference_sid": ROOM,
    "connect_duration_seconds": None,
    "create_time": "2026-11-22T12:00:00Z",
    "detected_issues": None,
    "duration_seconds": None,
    "end_reason": None,
    "end_time": None,
    "ended_by": None,
    "friendly_name": "Stand-up",
    "links": {"conference_participants": f"{SUMMARIES}/{ROOM}/Participants"},
    "max_concurrent_participants": 2,
    "max_participants": None,
    "mixer_region": None,
    "mixer_region_requested": None,
    "processing_state": "in_progress",
    "recording_enabled": None,
    "start_time": "2026-11-22T12:00:05Z",
    "status": "in_progress",
    "tag_info": None,
    "tags": None,
    "unique_participants": 2,
    "url": f"{SUMMARIES}/{ROOM}",
}
PARTICIPANT_SUMMARY = {
    "account_sid": ACCOUNT,
    "call_direction": None,
    "call_sid": ANNA,
    "call_status": None,
    "call_type": None,
    "coached_participants": [BEN],
    "conference_region": None,
    "conference_sid": ROOM,
    "country_code": None,
    "duration_seconds": 64,
    "events": {"mute": [1795348800000]},
    "from": None,
    "is_coach": True,
    "is_moderator": False,
    "jitter_buffer_size": None,
    "join_time": "2026-11-22T12:00:00Z",
    "label": "anna",
    "leave_time": None,
    "metrics": None,
    "outbound_queue_length": None,
    "outbound_time_in_queue": None,
    "participant_region": None,
    "participant_sid": None,
    "processing_state": "in_progress",
    "properties": {
        "beep_on_enter": None,
        "beep_on_exit": None,
        "end_conference_on_exit": False,
        "enter_muted": False,
        "play_early_media": None,
        "start_conference_on_enter": True,
    },
    "to": None,
    "url": f"{SUMMARIES}/{ROOM}/Participants/{ANNA}",
}
NOT_FOUND = {
    "code": 20404,
    "message": "The requested resource was not found",
    "more_info": "https://www.twilio.com/docs/errors/20404",
    "status": 404,
}


def page(path: str, *items: dict[str, Any]) -> dict[str, Any]:
    """The second of several pages of one item each."""
    asked = f"{path}.json?DateCreated%3E=2026-11-22&PageSize=1&Page="
    return {
        path.rpartition("/")[2].lower(): list(items),
        "first_page_uri": f"{asked}0",
        "next_page_uri": f"{asked}2&PageToken=PA{ROOM}",
        "previous_page_uri": f"{asked}0&PageToken=PB{ROOM}",
        "uri": f"{asked}1&PageToken=PA{ROOM}",
        "page": 1,
        "page_size": 1,
        "start": 1,
        "end": 1,
    }


def summaries(path: str, *items: dict[str, Any]) -> dict[str, Any]:
    """The only page of a list of summaries."""
    key = path.rpartition("/")[2].lower()
    asked = f"https://offhook.example.com{path}?PageSize=50&Page=0"
    meta = {"key": key, "page": 0, "page_size": 50, "first_page_url": asked, "url": asked}
    return {key: list(items), "meta": {**meta, "previous_page_url": None, "next_page_url": None}}


def answered(value: Any, path: str = f"{CONFERENCES}/{ROOM}.json", method: str = "GET", status: int = 200) -> None:
    """Check a JSON answer, by default to whoever fetches the conference."""
    check(method, path, status, json.dumps(value).encode(), JSON)


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of the description."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts(part)


def operations() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every operation, with its path and what all operations of that path share."""
    for path, item in DESCRIPTION["paths"].items():
        for method in item.keys() & {"get", "post", "delete"}:
            yield path, item, item[method]


# The description itself.


def test_it_is_openapi_3_1_in_the_dialect_of_its_schemas():
    assert DESCRIPTION["openapi"] == "3.1.0"
    assert DESCRIPTION["jsonSchemaDialect"] == Draft202012Validator.META_SCHEMA["$id"]
    assert DESCRIPTION["info"]["title"]
    assert DESCRIPTION["info"]["version"]


def test_every_reference_leads_somewhere():
    references = [part for part in parts(DESCRIPTION) if "$ref" in part]
    assert references
    assert all(resolve(reference) for reference in references)


def test_every_component_is_referred_to():
    used = {part["$ref"] for part in parts(DESCRIPTION) if "$ref" in part}
    kinds = {kind: group for kind, group in DESCRIPTION["components"].items() if kind != "securitySchemes"}
    there = {f"urn:offhook:twilio#/components/{kind}/{name}" for kind, group in kinds.items() for name in group}
    assert there == used


def test_every_schema_is_a_valid_one():
    schemas = [part["schema"] for part in parts(DESCRIPTION) if "schema" in part]
    for schema in [*schemas, *DESCRIPTION["components"]["schemas"].values()]:
        Draft202012Validator.check_schema(schema)


def test_every_pattern_speaks_of_the_whole_text():
    patterns = [part["pattern"] for part in parts(DESCRIPTION) if isinstance(part.get("pattern"), str)]
    assert patterns
    assert all(pattern.startswith("^") and pattern.endswith("$") for pattern in patterns)
    assert all(re.compile(pattern) for pattern in patterns)


def test_every_operation_has_a_name_of_its_own():
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names)) == 16


def test_every_operation_describes_the_parameters_in_its_path_and_none_twice():
    for path, item, operation in operations():
        named = [resolve(one) for one in [*item.get("parameters", ()), *operation.get("parameters", ())]]
        names = [(one["in"], one["name"]) for one in named]
        assert len(names) == len(set(names)), path
        assert {name for place, name in names if place == "path"} == set(re.findall(r"\{(\w+)\}", path)), path
        assert all(one["required"] for one in named if one["in"] == "path"), path
        assert all(one["schema"] for one in named), path


def test_every_operation_describes_one_success_and_its_failures():
    for path, _, operation in operations():
        answers = {status: resolve(answer) for status, answer in operation["responses"].items()}
        assert len([status for status in answers if status < "400"]) == 1, path
        assert {"401", "403", "404", "503"} <= answers.keys(), path
        for status, answer in answers.items():
            assert answer["description"], path
            if status >= "400":
                schema = answer["content"][JSON]["schema"]
                assert schema["$ref"].endswith("/Error")
                assert schema["properties"]["status"]["const"] == int(status)


def test_every_write_takes_an_idempotency_key_and_names_its_action():
    for path, item, operation in operations():
        takes = any(resolve(one)["name"] == "Idempotency-Key" for one in operation.get("parameters", ()))
        names = [answer for status, answer in operation["responses"].items() if status < "400" and "headers" in answer]
        writes = operation is not item.get("get")
        assert (takes, bool(names)) == (writes, writes), path
        assert all({"Offhook-Action", "Twilio-Request-Id"} == answer["headers"].keys() for answer in names), path


# Answers that are as described.


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (CONFERENCES, page(CONFERENCES, CONFERENCE)),
        (f"{CONFERENCES}/{ROOM}", CONFERENCE),
        (PARTICIPANTS, page(PARTICIPANTS, PARTICIPANT)),
        (f"{PARTICIPANTS}/{ANNA}", PARTICIPANT),
        (RECORDINGS, page(RECORDINGS, A_RECORDING)),
        (f"{RECORDINGS}/{RECORDING}", A_RECORDING),
    ],
)
def test_a_good_answer_is_accepted_with_and_without_json_in_the_path(path, value):
    answered(value, path)
    answered(value, f"{path}.json")
    answered(value, f"{path}.json?Status=completed&PageSize=2")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", summaries("/v1/Conferences", CONFERENCE_SUMMARY)),
        (f"/{ROOM}", CONFERENCE_SUMMARY),
        (f"/{ROOM}/Participants", summaries(f"/v1/Conferences/{ROOM}/Participants", PARTICIPANT_SUMMARY)),
        (f"/{ROOM}/Participants/{ANNA}", PARTICIPANT_SUMMARY),
    ],
)
def test_good_summaries_are_accepted(path, value):
    answered(value, f"/v1/Conferences{path}")


def test_a_last_page_has_no_next_and_an_empty_one_no_items():
    only = f"{CONFERENCES}.json?PageSize=50&Page=0"
    ends = {"first_page_uri": only, "uri": only, "next_page_uri": None, "previous_page_uri": None, "page_size": 50}
    answered(page(CONFERENCES) | ends | {"page": 0, "start": 0, "end": 0}, CONFERENCES)


@given(st.text(st.characters(exclude_characters="?", exclude_categories=["Cs"]), min_size=1))
def test_a_label_in_the_path_may_be_anything(label):
    answered(PARTICIPANT, f"{PARTICIPANTS}/{label}.json")
    answered(PARTICIPANT, f"{PARTICIPANTS}/{label}")


@pytest.mark.parametrize("label", ["front%2Fdesk", "front/desk", "50%25", "a.json", "Recordings", "a/Participants/b"])
def test_a_label_may_hold_a_slash_encoded_or_not(label):
    answered(PARTICIPANT, f"{PARTICIPANTS}/{label}.json")
    check("DELETE", f"{PARTICIPANTS}/{label}", 204, b"", "")


def test_a_conference_is_named_by_its_friendly_name_where_somebody_is_called():
    answered(PARTICIPANT | {"status": "queued"}, f"{CONFERENCES}/Room%207/Participants.json", "POST", 201)


def test_twilios_own_answer_may_tell_more():
    more = {"a_new_field": 1}
    answered(CONFERENCE | more, method="POST")
    answered(PARTICIPANT | more, f"{PARTICIPANTS}/{ANNA}.json", "POST")
    answered(A_RECORDING | more, f"{RECORDINGS}/Twilio.CURRENT.json", "POST")


def test_an_error_is_accepted_whatever_its_charset():
    check("GET", f"{CONFERENCES}/{ROOM}.json", 404, json.dumps(NOT_FOUND).encode(), "application/json;charset=utf-8")


def test_a_method_that_a_path_does_not_have_is_answered_with_405():
    error = NOT_FOUND | {"code": 20004, "status": 405}
    answered(error, f"{CONFERENCES}.json", "POST", 405)
    with pytest.raises(AssertionError, match="not described"):
        answered(NOT_FOUND, f"{CONFERENCES}.json", "POST", 404)


# Answers that are not.


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: one for key, one in value.items() if key != name}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{CONFERENCES}/{ROOM}", CONFERENCE),
        (f"{PARTICIPANTS}/{ANNA}", PARTICIPANT),
        (f"{RECORDINGS}/{RECORDING}", A_RECORDING),
        (CONFERENCES, page(CONFERENCES, CONFERENCE)),
        (PARTICIPANTS, page(PARTICIPANTS, PARTICIPANT)),
        (RECORDINGS, page(RECORDINGS, A_RECORDING)),
        (f"/v1/Conferences/{ROOM}", CONFERENCE_SUMMARY),
        (f"/v1/Conferences/{ROOM}/Participants/{ANNA}", PARTICIPANT_SUMMARY),
        ("/v1/Conferences", summaries("/v1/Conferences", CONFERENCE_SUMMARY)),
    ],
)
def test_a_missing_field_and_an_extra_one_are_refused(path, value):
    for name in value:
        with pytest.raises(AssertionError, match=f"'{name}' is a required property"):
            answered(without(value, name), path)
    with pytest.raises(AssertionError, match="'source_of_truth' was unexpected"):
        answered(value | {"source_of_truth": "Offhook"}, path)


def test_what_is_wrong_with_an_item_is_said_with_its_place():
    with pytest.raises(AssertionError, match=r"\$\.participants\[1\]\.status: 'completed' is not one of"):
        answered(page(PARTICIPANTS, PARTICIPANT, PARTICIPANT | {"status": "completed"}), PARTICIPANTS)


def test_twilios_own_answer_tells_no_less():
    with pytest.raises(AssertionError, match="'region' is a required property"):
        answered(without(CONFERENCE, "region"), method="POST")


@pytest.mark.parametrize(
    "date",
    [
        "Tue, 1 Dec 2026 12:00:00 +0000",
        "Sun, 22 Nov 2026 12:00:00 GMT",
        "Sun, 22 Nov 2026 13:00:00 +0100",
        "Son, 22 Nov 2026 12:00:00 +0000",
        "Mon, 22 Nov 2026 12:00:00 +0000",
        "Sat, 31 Feb 2026 12:00:00 +0000",
        "Sun, 22 Nov 20262026202620262026 12:00:00 +0000",
        "2026-11-22T12:00:00Z",
        "Sun, 22 Nov 2026 12:00:00 +0000\n",
        "",
        1795348800,
    ],
)
def test_a_date_that_twilios_sdks_would_misread_is_refused(date):
    with pytest.raises(AssertionError, match=r"\$\.date_created"):
        answered(CONFERENCE | {"date_created": date})


@pytest.mark.parametrize(
    "time",
    ["2026-11-22T12:00:00", "2026-11-22T12:00:00.000Z", "2026-11-22T12:00:00+00:00", "2026-02-30T12:00:00Z", NOON],
)
def test_a_time_of_a_summary_that_twilios_sdks_would_misread_is_refused(time):
    with pytest.raises(AssertionError, match=r"\$\.create_time"):
        answered(CONFERENCE_SUMMARY | {"create_time": time}, f"/v1/Conferences/{ROOM}")


@pytest.mark.parametrize("sid", [ANNA, ROOM[:-1], ROOM + "0", ROOM + "\n", "CF" + "g" * 32, "", None])
def test_a_wrong_sid_is_refused(sid):
    with pytest.raises(AssertionError, match=r"\$\.sid"):
        answered(CONFERENCE | {"sid": sid})


@pytest.mark.parametrize(
    "uri",
    [
        f"https://offhook.example.com{CONFERENCES}.json?PageSize=1&Page=2&PageToken=PA{ROOM}",
        f"{CONFERENCES}?PageSize=1&Page=2&PageToken=PA{ROOM}",
        f"{CONFERENCES}.json?Page=2&PageSize=1&PageToken=PA{ROOM}",
        f"{CONFERENCES}.json?PageSize=1&Page=2",
        f"{CONFERENCES}.json?DateCreated<=2026-11-22&PageSize=1&Page=2&PageToken=PA{ROOM}",
        f"{CONFERENCES}.json?PageSize=1&Page=2&PageToken=PA{ROOM}&FriendlyName=Stand-up",
    ],
)
def test_a_next_page_that_twilios_sdks_would_not_find_is_refused(uri):
    with pytest.raises(AssertionError, match=r"\$\.next_page_uri"):
        answered(page(CONFERENCES, CONFERENCE) | {"next_page_uri": uri}, CONFERENCES)


def test_a_relative_link_of_summaries_is_refused():
    value = summaries("/v1/Conferences")
    value["meta"]["next_page_url"] = f"/v1/Conferences?PageSize=50&Page=1&PageToken=PA{ROOM}"
    with pytest.raises(AssertionError, match=r"\$\.meta\.next_page_url"):
        answered(value, "/v1/Conferences")


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        (f"{PARTICIPANTS}/{ANNA}", {"muted": "false"}),
        (f"{PARTICIPANTS}/{ANNA}", {"queue_time": 1000}),
        (f"{PARTICIPANTS}/{ANNA}", {"uri": f"{PARTICIPANTS}/anna.json"}),
        (f"{RECORDINGS}/{RECORDING}", {"duration": 61}),
        (f"{RECORDINGS}/{RECORDING}", {"status": "failed"}),
        (f"{CONFERENCES}/{ROOM}", {"reason_conference_ended": "last_participant_left"}),
        (f"{CONFERENCES}/{ROOM}", {"subresource_uris": CONFERENCE["subresource_uris"] | {"events": "/"}}),
    ],
)
def test_a_value_of_another_kind_is_refused(path, changes):
    good = {PARTICIPANTS: PARTICIPANT, RECORDINGS: A_RECORDING, CONFERENCES: CONFERENCE}[path.rpartition("/")[0]]
    with pytest.raises(AssertionError, match=rf"\$\.{next(iter(changes))}"):
        answered(good | changes, path)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 400},
        {"code": "20404"},
        {"more_info": None},
        {"type": "about:blank"},
    ],
)
def test_an_error_of_another_shape_is_refused(changes):
    with pytest.raises(AssertionError):
        answered(NOT_FOUND | changes, status=404)


@pytest.mark.parametrize(
    "path", ["/", "/api/conferences", f"{CONFERENCES}.json/", f"/2010-04-01/Accounts/{ACCOUNT}/Calls.json", "/v1/Rooms"]
)
def test_an_unknown_path_is_refused(path):
    with pytest.raises(AssertionError, match="no described path"):
        answered(NOT_FOUND, path, status=404)


@pytest.mark.parametrize("status", [201, 204, 302, 500])
def test_an_undescribed_status_is_refused(status):
    with pytest.raises(AssertionError, match=f"status {status} is not described"):
        answered(CONFERENCE, status=status)


def test_a_body_where_there_should_be_none_is_refused():
    with pytest.raises(AssertionError, match="has no body"):
        answered({}, f"{PARTICIPANTS}/{ANNA}.json", "DELETE", 204)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"sid": NaN}', b"\xff"])
def test_a_body_that_is_not_json_is_refused(body):
    with pytest.raises(AssertionError, match="not JSON"):
        check("GET", f"{CONFERENCES}/{ROOM}.json", 200, body, JSON)


def test_another_content_type_is_refused():
    with pytest.raises(AssertionError, match="content type 'text/html'"):
        check("GET", f"{CONFERENCES}/{ROOM}.json", 200, json.dumps(CONFERENCE).encode(), "text/html")
