"""What an operator copies into Twilio is well-formed, asks for everything, and cannot be broken by a room's name."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.twilio.twiml import EVENTS, callback_url, participant_parameters, twiml

OURS = "https://hooks.example.com"
URL = f"{OURS}/webhooks/twilio#rc=5&rp=all&ct=2000&rt=4000&tt=15000"
EVERY_EVENT = {"start", "end", "join", "leave", "mute", "hold", "modify", "speaker", "announcement"}


def conference(room: str, public_url: str = OURS) -> ElementTree.Element:
    """The noun of the document, which holds nothing else."""
    response = ElementTree.fromstring(twiml(room, public_url))
    assert response.tag == "Response"
    [dial] = response
    [noun] = dial
    assert (dial.tag, noun.tag, len(noun)) == ("Dial", "Conference", 0)
    assert (dial.attrib, (dial.text or "").strip(), (noun.tail or "").strip()) == ({}, "", "")
    return noun


def test_all_nine_events_are_asked_for() -> None:
    assert set(EVENTS) == EVERY_EVENT
    assert len(EVENTS) == 9


def test_the_conference_tells_everything_to_our_webhook() -> None:
    noun = conference("Stand-up")
    assert noun.text == "Stand-up"
    assert set(noun.attrib.pop("statusCallbackEvent").split(" ")) == EVERY_EVENT
    assert noun.attrib == {
        "statusCallback": URL,
        "statusCallbackMethod": "POST",
        "recordingStatusCallback": URL,
        "recordingStatusCallbackMethod": "POST",
        "recordingStatusCallbackEvent": "in-progress completed absent",
    }


@pytest.mark.parametrize(
    "room",
    [
        "</Conference><Hangup/>",
        "a & b < c > d",
        "\"quoted\" and 'quoted'",
        "]]>",
        "<!--",
        "<![CDATA[x]]>",
        "&amp;",
        "<?xml?>",
        "{room}%s",
        "Büro ☎ 会議",
    ],
)
def test_a_hostile_room_name_is_only_a_name(room: str) -> None:
    assert conference(room).text == room


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1))
def test_every_name_that_xml_can_say_comes_back_as_it_was(room: str) -> None:
    assert conference(room).text == room


def test_a_hostile_url_stays_inside_its_attribute() -> None:
    url = 'https://hooks.example.com/a?x="1"&y=<2>'
    assert conference("room", url).attrib["statusCallback"] == callback_url(url)


def test_the_connection_overrides_keep_within_what_twilio_allows() -> None:
    overrides = dict(re.findall(r"(\w+)=(\w+)", callback_url(OURS).partition("#")[2]))
    assert overrides["rp"] == "all"
    assert 0 <= int(overrides["rc"]) <= 5
    assert 100 <= int(overrides["ct"]) <= 10_000
    assert all(100 <= int(overrides[key]) <= 15_000 for key in ("rt", "tt"))


def test_the_same_can_be_said_to_the_participants_api() -> None:
    asked = participant_parameters(OURS)
    for name in ("ConferenceStatusCallback", "ConferenceRecordingStatusCallback", "StatusCallback"):
        assert [value for given, value in asked if given == name] == [URL]
        assert [value for given, value in asked if given == f"{name}Method"] == ["POST"]
    assert {value for name, value in asked if name == "ConferenceStatusCallbackEvent"} == EVERY_EVENT
    assert {value for name, value in asked if name == "StatusCallbackEvent"} == {
        "initiated",
        "ringing",
        "answered",
        "completed",
    }
    assert {value for name, value in asked if name == "ConferenceRecordingStatusCallbackEvent"} == {
        "in-progress",
        "completed",
        "absent",
    }
    assert len(asked) == len(set(asked))
