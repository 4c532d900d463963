"""A callback is the same on whatever road it comes: one event, one id, one document."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.events import Callback
from app.simulator.stories import story
from app.twilio.callbacks import Address, Unusable, address, call_in, glance, parameters, read
from app.twilio.signature import Malformed
from app.twilio.streams import MOST_EVENTS, TooMany, split
from tests.cast import ACCOUNT, ANNA, BEN, NOON, ROOM, callback, event, progress, said
from tests.roads import HERE, alerted, by_debugger, by_stream, streamed
from tests.workers.post import told_of, written
from workers.drain import _named

JOIN = said("participant-join", ANNA, number=1, second=0, FriendlyName="Büro & Café 100% +", ParticipantLabel="")
RECORDED = {
    "AccountSid": ACCOUNT,
    "ConferenceSid": ROOM,
    "RecordingSid": "RE" + "4" * 32,
    "RecordingStatus": "completed",
    "RecordingDuration": "61",
}
RINGING = progress(ANNA, "ringing", number=0, second=0)
SUMMARY = "com.twilio.voice.insights.conference-summary.complete"


def in_text(told: dict[str, str]) -> Callback:
    """Its data is JSON in a string, its parameters are a form."""
    sent = streamed(urlencode(told))
    return by_stream(sent | {"data": json.dumps(sent["data"])})


ROADS = [
    callback,
    lambda told: by_stream(streamed(told)),
    in_text,
    lambda told: by_debugger(alerted(told)),
    lambda told: by_debugger(alerted(urlencode(told))),
]


@pytest.mark.parametrize("told", [JOIN, said("conference-end", number=9, second=3), RECORDED, RINGING])
@pytest.mark.parametrize("road", ROADS)
def test_on_every_road_a_callback_is_the_same(road, told) -> None:
    sent = road(told)
    assert read(sent) == event(told)
    assert parameters(sent) == told
    assert glance(sent) == glance(callback(told))
    home = told.get("ConferenceSid", ANNA)
    assert address(sent) == Address(ACCOUNT, home, told.get("StatusCallbackEvent", ""))
    named = told.get("CallSid")
    assert call_in(sent) == named
    assert _named(sent) == (named and named.encode())


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_any_mix_of_roads_repeats_and_orders_gives_one_document(seed: int, chance: Random) -> None:
    told = [each.parameters for each in story(Random(seed), ACCOUNT, NOON)]
    room = next(each["ConferenceSid"] for each in told if "ConferenceSid" in each)
    mixed = [road(each) for each in told for road in chance.sample(ROADS, chance.randint(1, 3))]
    chance.shuffle(mixed)
    assert written(told_of(room, mixed)) == written(told_of(room, map(callback, told)))


def test_what_json_knows_besides_text_is_what_a_form_would_say() -> None:
    loose = JOIN | {"SequenceNumber": 1, "Muted": False, "Hold": True, "ParticipantLabel": None, "Tag": ["a", "b"]}
    body = json.dumps(streamed(loose | {"Huge": 0})).replace('"Huge": 0', '"Huge": ' + "9" * 5000).encode()
    form = [(name, str(value)) for name, value in JOIN.items()]
    form = [*form, ("Tag", "a"), ("Tag", "b"), ("Huge", "9" * 5000)]
    form[list(JOIN).index("Hold")] = ("Hold", "true")
    assert read(by_stream(body)) == read(Callback(body=urlencode(form).encode(), received_at=0, key="main"))


def test_a_get_says_what_its_owner_wrote_into_the_url_too() -> None:
    query = f"tenant=42&{urlencode(JOIN)}"
    by_get = Callback(body=query.encode(), received_at=0, key="main")
    mirrored = by_stream(streamed(JOIN, url=f"{HERE}?tenant=42#rc=5", method="GET"))
    assert read(mirrored) == read(by_get)
    assert read(by_stream(streamed(JOIN, url=f"{HERE}?{query}", method="GET"))) == read(by_get)
    assert read(by_stream(streamed(JOIN, url=f"{HERE}?tenant=42"))) == event(JOIN)


def test_bytes_that_are_no_text_are_the_same_bytes() -> None:
    body = json.dumps(streamed(JOIN | {"Tag": "?!"})).encode().replace(b"?!", b"\xff\xfe")
    form = Callback(body=urlencode(JOIN).encode() + b"&Tag=%ff%fe", received_at=0, key="main")
    assert read(by_stream(body)) == read(form)


# What is no callback


def test_other_word_of_a_conference_is_an_unknown_event_of_it_and_moves_nothing() -> None:
    summary = by_stream({"type": SUMMARY, "data": {"account_sid": ACCOUNT, "conference_sid": ROOM, "end": "\ud800"}})
    refused = by_debugger(alerted(None, resource_sid=ROOM, error_code=16025))
    told = {each: read(each) for each in (summary, refused)}
    assert [(each.source, each.type, each.conference_sid) for each in told.values()] == [
        ("conference", SUMMARY, ROOM),
        ("conference", "debugger-16025", ROOM),
    ]
    assert parameters(summary)["data"]["end"] == "?"
    assert json.loads(parameters(refused)["Payload"])["error_code"] == 16025
    before, after = (told_of(ROOM, [callback(JOIN), *more]) for more in ([], [summary, refused, summary]))
    assert after.participants == before.participants
    kinds = {SUMMARY, "debugger-16025"}
    assert set(after.header.coverage.events) == {*before.header.coverage.events, *kinds}
    for name in ("status", "created_at", "updated_at", "friendly_name", "counts"):
        assert getattr(after.header, name) == getattr(before.header, name)
    assert after.header.coverage.sequences == before.header.coverage.sequences


@pytest.mark.parametrize(
    "sent",
    [
        by_stream({"type": "com.twilio.messaging.message.sent", "data": {"accountSid": ACCOUNT}}),
        by_stream({"type": "com.twilio.eventstreams.test-event"}),
        by_debugger(alerted(None)),
        by_debugger(alerted({"MessageSid": "SM" + "1" * 32, "AccountSid": ACCOUNT, "Nested": {"a": 1}})),
        by_debugger(alerted({"CallSid": ANNA, "AccountSid": ACCOUNT, "CallStatus": "ringing"}, resource_sid=ANNA)),
    ],
)
def test_what_is_about_no_conference_has_no_address(sent: Callback) -> None:
    assert address(sent) is None
    with pytest.raises(Unusable, match="not about a conference"):
        read(sent)


def test_an_alert_is_not_made_of_a_callback_whose_borders_were_moved() -> None:
    forged = said("participant-leave", BEN, number=99, second=0)
    inside = alerted(forged)["Payload"]
    target = f"sip:xLevelERRORPayload{inside}SidNO{'0' * 32}"
    genuine = progress(ANNA, "ringing", number=0, second=0, To=target, ToCity="", ApiVersion="2010-04-01")
    text = "".join(name + genuine[name] for name in sorted(genuine))
    head, tail = text.split("ApiVersion", 1)
    absorbed, rest = tail.split("Level", 1)
    moved = {
        "AccountSid": head.removeprefix("AccountSid"),
        "ApiVersion": absorbed,
        "Level": "ERROR",
        "Payload": inside,
        "Sid": "NO" + "0" * 32,
        "ToCity": "",
    }
    assert "".join(name + moved[name] for name in sorted(moved)) == text == f"{head}ApiVersion{absorbed}Level{rest}"
    with pytest.raises(Unusable):
        read(by_debugger(moved))


# What nobody can read

DEEP = b"[" * 100_000 + b"]" * 100_000


def nested(depth: int) -> object:
    """Objects in objects."""
    value: object = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (by_stream([1]), "no JSON object"),
        (by_stream(b'{"type": }'), "not JSON"),
        (by_stream(b"{} {}"), "not JSON"),
        (by_stream(DEEP), "nested too deeply"),
        (by_stream({"type": SUMMARY, "data": {"conference_sid": ROOM, "x": nested(60)}}), "nested too deeply"),
        (by_stream(streamed(JOIN) | {"data": json.dumps(nested(60))}), "nested too deeply"),
        (by_stream({"data": {}}), "without a type"),
        (by_stream({"type": 5, "data": {}}), None),
        (by_stream(streamed(JOIN) | {"data": "{"}), "data of an event com.twilio.voice.* is not JSON"),
        (by_stream(streamed(JOIN) | {"data": {}}), "without data.request"),
        (by_stream(streamed(JOIN) | {"data": None}), "without data.request"),
        (by_stream(streamed([])), "neither an object nor a form"),  # type: ignore[arg-type]
        (by_stream(streamed(JOIN | {"Muted": {"a": "b"}})), "neither text nor a number"),
        (by_stream(streamed(JOIN | {f"Extra{n}": "" for n in range(200)})), "at most 200"),
        (by_stream(streamed({**JOIN, "AccountSid": ""})), "AccountSid is missing"),
        (by_stream(streamed({**JOIN, "ConferenceSid": [ROOM, ANNA]})), "given twice"),
        (by_stream({"type": SUMMARY, "data": {"conference_sid": ROOM}}), "names a conference and no account"),
        (by_debugger(alerted(JOIN) | {"Payload": "{"}), "Payload is not JSON"),
        (by_debugger(alerted(JOIN) | {"Payload": "[]"}), "Payload is no JSON object"),
        (by_debugger(alerted(JOIN) | {"Payload": DEEP.decode()}), "Payload is nested too deeply"),
        (by_debugger(alerted(None, resource_sid=ROOM, more_info=nested(60))), "Payload is nested too deeply"),
        (by_debugger(alerted(JOIN | {"Hold": {}})), "neither text nor a number"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(sent: Callback, reason: str | None) -> None:
    with pytest.raises(Unusable, match=reason):
        read(sent)
    assert call_in(sent) in (None, ANNA)


@given(st.binary(max_size=60) | st.text('{}[]",:0eE+-\\ud8tnaN ', max_size=60).map(str.encode))
def test_whatever_stands_in_an_event_it_is_read_or_refused(junk: bytes) -> None:
    inside = json.dumps(streamed(JOIN)).encode().replace(b'"participant-join"', junk)
    for sent in (by_stream(junk), by_stream(inside), by_debugger(alerted(JOIN) | {"Payload": junk.decode("latin-1")})):
        for look in (read, parameters, address):
            with suppress(Unusable):
                look(sent)
        call_in(sent)
        glance(sent)


# The events of one request


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b' {"a": 1} ', [b' {"a": 1} ']),
        (b"[]", []),
        (b' [ {"a" : [1, 2]} ,\n"x",null,1e999,NaN ] ', [b'{"a" : [1, 2]}', b'"x"', b"null", b"1e999", b"NaN"]),
        (b'[{"a":"\\ud800"},"\xff","\x01"]', [b'{"a":"\\ud800"}', b'"\xff"', b'"\x01"']),
        (DEEP, [DEEP]),
        (b"[{}, " + DEEP + b"]", [b"[{}, " + DEEP + b"]"]),
    ],
)
def test_a_request_is_taken_apart_into_the_bytes_of_its_events(body: bytes, events: list[bytes]) -> None:
    assert split(body) == events


@pytest.mark.parametrize(
    "body", [b"", b" ", b"x", b"[", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1 2]", b"[1]x", b"{}{}", b"\xff", b"a=b&c=d"]
)
def test_what_is_not_json_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(Malformed):
        split(body)


def test_a_request_holds_no_more_events_than_twilio_could_put_into_one() -> None:
    assert len(split(b"[" + b",".join([b"{}"] * MOST_EVENTS) + b"]")) == MOST_EVENTS
    with pytest.raises(TooMany):
        split(b"[" + b",".join([b"{}"] * (MOST_EVENTS + 1)) + b"]")
