"""The second roads, through the front door: believed or not, stored whole or not at all, folded to the same."""

from __future__ import annotations

import json
from functools import partial
from hashlib import sha256
from random import Random
from typing import Any

import pytest
from redis import ConnectionError as Unconnected
from redis import Redis
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from app.events import Callback
from app.simulator.stories import story
from app.store.inbox import Full, Inbox
from app.web.webhook import LARGEST_BODY, LARGEST_JSON
from tests.cast import ACCOUNT, ANNA, BEN, NOON, ROOM, TOKEN, callback, progress, said
from tests.roads import alerted, streamed
from tests.web.conftest import (
    CHILD,
    CHILD_TOKEN,
    KNOWN,
    OURS,
    PATH,
    STRANGER,
    STRANGERS_TOKEN,
    Site,
    populate,
    room,
    signature,
)
from tests.workers.post import kept, told_of, written

JOIN = said("participant-join", ANNA, number=1, second=0)
BEN_JOINS = said("participant-join", BEN, number=2, second=1)
OTHERS = said("participant-leave", ANNA, number=9, second=50, room=room(7), AccountSid=STRANGER)


def stream(site: Site, events: Any, token: str = TOKEN, **more: Any) -> TestResponse:
    """POST this as a sink's request, signed with this token."""
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    query = f"?bodySHA256={sha256(body).hexdigest()}"
    return site.send(
        body, signature(OURS + PATH + query, token=token), query=query, **{"content_type": "application/json"} | more
    )


def alert(site: Site, told: dict[str, str], token: str = TOKEN) -> TestResponse:
    """POST this as the Debugger does."""
    return site.send(told, signature(OURS + PATH, told, token))


def refused(site: Site) -> dict[str, int]:
    """How many were refused, by reason."""
    counts: dict[str, int] = site.told("/api/stats")["callbacks"]["refused"]
    return counts


def letters(site: Site) -> list[dict[str, Any]]:
    """What was set aside."""
    site.fold()
    told: list[dict[str, Any]] = site.told("/api/stats")["dead_letters"]
    return told


def bodies(site: Site) -> list[bytes]:
    """What waits in the inboxes."""
    return sorted(each.body for shard in site.stored().values() for each in shard)


# What comes of it


@pytest.mark.parametrize("seed", range(3))
def test_a_conference_that_is_told_by_all_roads_is_the_one_that_its_forms_tell_of(site: Site, seed: int) -> None:
    chance = Random(seed)
    told = [each.parameters for each in story(chance, ACCOUNT, NOON)]
    its = next(each["ConferenceSid"] for each in told if "ConferenceSid" in each)
    by_form, by_alert, by_stream = (chance.sample(told, len(told) * 2 // 3) for _ in range(3))
    by_stream += [each for each in told if each not in [*by_form, *by_alert]]
    ways = [
        *(partial(site.tell, each) for each in by_form),
        *(partial(alert, site, alerted(each)) for each in by_alert),
        *(
            partial(stream, site, [streamed(each) for each in by_stream[n : n + 7]])
            for n in range(0, len(by_stream), 7)
        ),
    ]
    chance.shuffle(ways)
    for way in ways:
        answer = way()
        assert answer is None or answer.status_code == 204
        if chance.random() < 0.2:
            site.fold()
    site.fold()
    assert letters(site) == []
    assert written(kept(site.snapshots, its)) == written(told_of(its, map(callback, told)))


def test_each_event_of_a_batch_is_stored_as_it_came_where_its_conference_is(site: Site) -> None:
    ringing = progress(BEN, "ringing", number=0, second=0)
    events = [json.dumps(streamed(told), indent=1).encode() for told in (JOIN, ringing)]
    assert stream(site, b"[ " + b" ,\n".join(events) + b"]").status_code == 204
    stored = site.stored()
    assert set(stored) == {site.inbox.shard_of(ROOM), site.inbox.shard_of(BEN)}
    assert bodies(site) == sorted(events)
    for shard in stored.values():
        assert {(each.media, each.key) for each in shard} == {("json", "main")}


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "application/cloudevents-batch+json"])
def test_a_batch_of_a_hundred_takes_one_round_trip(site: Site, round_trips: list[int], media: str) -> None:
    told = [said("participant-join", f"CA{n:032x}", number=n, second=n, room=room(n % 9)) for n in range(1, 101)]
    site.inbox.attend()
    stream(site, [streamed(told[0])])
    before = len(round_trips)
    assert stream(site, [streamed(each) for each in told], content_type=media).status_code == 204
    assert len(round_trips) - before == 1
    site.fold()
    assert site.told("/api/stats")["callbacks"]["folded"] == 100


def test_one_event_by_itself_is_taken_and_so_is_none(site: Site) -> None:
    assert stream(site, streamed(JOIN)).status_code == 204
    assert stream(site, []).status_code == 204
    assert len(bodies(site)) == 1


def test_a_failure_that_is_about_a_conference_stands_among_its_events(site: Site) -> None:
    site.tell(JOIN)
    full = alerted(None, resource_sid=ROOM, error_code="16020")
    summary = {
        "type": "com.twilio.voice.insights.conference-summary.partial",
        "source": f"/v1/Accounts/{ACCOUNT}/x",
        "data": {"conference_sid": ROOM},
    }
    assert (alert(site, full).status_code, stream(site, [summary]).status_code) == (204, 204)
    assert letters(site) == []
    events = site.told(f"/api/conferences/{ROOM}/events")["events"]
    assert [(each["type"], each["at"]) for each in events[1:]] == [("debugger-16020", None), (summary["type"], None)]
    assert events[1]["parameters"] == full
    assert events[2]["parameters"] == summary
    site.told(f"/api/conferences/{ROOM}/timeline")


def test_what_is_about_no_conference_is_counted_and_not_kept(site: Site) -> None:
    sent = {"type": "com.twilio.messaging.message.sent", "data": {"account_sid": ACCOUNT}}
    assert stream(site, [sent, sent, streamed(JOIN)]).status_code == 204
    assert alert(site, alerted({"MessageSid": "SM" + "1" * 32, "AccountSid": ACCOUNT})).status_code == 204
    assert len(bodies(site)) == 1
    assert refused(site) == {"not about a conference": 3}


# Who may tell what


@pytest.mark.parametrize(
    ("token", "query", "status"),
    [
        (TOKEN, "?bodySHA256={}", 204),
        (CHILD_TOKEN, "?bodySHA256={}", 204),
        ("nobody's token", "?bodySHA256={}", 403),
        (TOKEN, "", 403),
        (TOKEN, "?bodySHA256=" + "0" * 64, 403),
        (TOKEN, "?bodySHA256={}&bodySHA256=" + "0" * 64, 403),
    ],
)
def test_a_batch_is_believed_by_its_digest_and_its_key(site: Site, token: str, query: str, status: int) -> None:
    body = json.dumps([streamed(JOIN | {"AccountSid": CHILD})]).encode()
    query = query.format(sha256(body).hexdigest())
    signed = signature(OURS + PATH + query, token=token)
    assert site.send(body, signed, query=query, content_type="application/json").status_code == status
    assert bool(site.stored()) == (status == 204)


@pytest.mark.parametrize(
    ("token", "allowed"),
    [(TOKEN, {ACCOUNT, CHILD}), (CHILD_TOKEN, {CHILD}), (STRANGERS_TOKEN, {STRANGER})],
)
def test_who_has_a_key_tells_of_no_other_accounts_conferences(site: Site, token: str, allowed: set[str]) -> None:
    accounts = [ACCOUNT, CHILD, STRANGER, "AC" + "7" * 32, "nobody"]
    told = {each: JOIN | {"AccountSid": each} for each in accounts}
    with capture_logs() as lines:
        assert stream(site, [streamed(each) for each in told.values()], token).status_code == 204
    assert bodies(site) == sorted(json.dumps(streamed(told[each])).encode() for each in allowed)
    assert refused(site) == {"another account": len(accounts) - len(allowed)}
    assert [line["event"] for line in lines] == ["refused"]
    assert "Stand-up" not in str(lines)


@pytest.mark.parametrize("road", ["stream", "alert", "notice"])
def test_a_strangers_conference_cannot_be_forged_on_a_second_road(several: Site, road: str) -> None:
    before = several.told(f"/api/conferences/{room(7)}")
    if road == "stream":
        assert stream(several, [streamed(OTHERS)]).status_code == 204
    elif road == "alert":
        assert alert(several, alerted(OTHERS)).status_code == 204
    else:
        assert alert(several, alerted(None, resource_sid=room(7))).status_code == 204
    several.fold()
    assert several.told(f"/api/conferences/{room(7)}") == before
    assert len(several.told(f"/api/conferences/{room(7)}/events")["events"]) == 2


def test_a_parents_alert_may_hold_its_subaccounts_callback_and_not_the_other_way(site: Site) -> None:
    childs = JOIN | {"AccountSid": CHILD}
    assert alert(site, alerted(childs)).status_code == 204
    assert alert(site, alerted(JOIN, account=CHILD), CHILD_TOKEN).status_code == 204
    assert len(bodies(site)) == 1
    assert refused(site) == {"another account": 1}


def test_of_two_accounts_one_may_bring_what_the_other_may_not(site: Site) -> None:
    populate(site, KNOWN[-1:])
    mixed = [streamed(JOIN), streamed(OTHERS), streamed(BEN_JOINS)]
    assert stream(site, mixed).status_code == 204
    site.fold()
    assert len(site.told(f"/api/conferences/{ROOM}")["participants"]) == 2
    assert site.told(f"/api/conferences/{room(7)}")["counts"]["present"] == 1


# What is odd


def test_one_odd_event_costs_itself_and_is_kept(site: Site) -> None:
    odd: list[Any] = [None, 5, "x", {}, {"type": []}, streamed({}), streamed(JOIN) | {"data": "{"}]
    text = json.dumps([*odd, streamed(JOIN)])[:-1] + ', {"a": "\\ud800"}, 1e999, NaN]'
    assert stream(site, text.encode()).status_code == 204
    kept_aside = letters(site)
    assert len(kept_aside) == len(odd) + 3
    assert all(each["reason"] for each in kept_aside)
    assert len(site.told(f"/api/conferences/{ROOM}/events")["events"]) == 1


@pytest.mark.parametrize(
    "payload", ["", "{", "null", '{"webhook": {"request": {"parameters": {"RecordingStatus": {}}}}}']
)
def test_an_alert_that_cannot_be_read_is_kept_with_the_reason(site: Site, payload: str) -> None:
    assert alert(site, alerted(JOIN) | {"Payload": payload}).status_code == 204
    [letter] = letters(site)
    assert "Payload" in letter["reason"] or "parameter" in letter["reason"]


def test_what_is_nested_too_deeply_is_kept_whole(site: Site) -> None:
    assert stream(site, b"[{}, " + b"[" * 100_000 + b"]" * 100_000 + b"]").status_code == 204
    [letter] = letters(site)
    assert "nested too deeply" in letter["reason"]


@pytest.mark.parametrize("body", [b"", b"x", b"[", b"[{}", b"[{}] x", b"a=b", b"\xff\xfe"])
def test_a_body_that_is_not_json_is_refused(site: Site, body: bytes) -> None:
    answer = stream(site, body)
    assert (answer.status_code, site.stored()) == (400, {})
    assert "not JSON" in answer.get_json()["message"]


def test_json_may_be_larger_than_a_form_and_not_endless(site: Site) -> None:
    large = json.dumps([streamed(JOIN | {"Pad": ""})])
    large = large.replace('"Pad": ""', f'"Pad": "{"x" * (LARGEST_JSON - len(large))}"')
    assert len(large) == LARGEST_JSON > LARGEST_BODY
    assert stream(site, large.encode()).status_code == 204
    assert stream(site, large.encode() + b" ").status_code == 413
    assert stream(site, [{}] * 2_001).status_code == 413
    assert [len(body) for body in bodies(site)] == [LARGEST_JSON - 2]
    site.fold()
    assert site.told(f"/api/conferences/{ROOM}")["counts"]["present"] == 1


# What cannot be stored


class Failing(Inbox):
    """Inboxes of which some do not answer, until they do."""

    broken: frozenset[int] = frozenset()
    away = False

    def append_all(self, mail: Any) -> Any:
        """As ever, unless told to fail."""
        if self.away:
            raise Unconnected("away")
        outcomes = iter(super().append_all([each for each in mail if each.shard not in self.broken]))
        return [Full("no room") if each.shard in self.broken else next(outcomes) for each in mail]


def failing(site: Site) -> Failing:
    """Have a site's inboxes fail as told."""
    inbox = site.inbox
    inbox.__class__ = Failing
    assert isinstance(inbox, Failing)
    return inbox


@pytest.mark.parametrize("fault", ["away", "one shard"])
def test_a_batch_that_is_not_wholly_stored_is_not_acknowledged_and_counts_once_when_it_comes_again(
    redis: Redis, fault: str
) -> None:
    site = Site(redis)
    inbox = failing(site)
    told = [said("participant-join", ANNA, number=1, second=n, room=room(n)) for n in range(1, 20)]
    inbox.away, inbox.broken = fault == "away", frozenset({inbox.shard_of(room(1))})
    answer = stream(site, [streamed(each) for each in told])
    assert answer.status_code == 503
    assert "Not stored" in answer.get_json()["message"]
    inbox.away, inbox.broken = False, frozenset()
    assert stream(site, [streamed(each) for each in told]).status_code == 204
    site.fold()
    for n in range(1, 20):
        assert written(kept(site.snapshots, room(n))) == written(told_of(room(n), [callback(told[n - 1])]))


def test_speech_in_a_batch_has_the_room_of_the_rest(site: Site) -> None:
    speech = said("participant-speech-start", ANNA, number=2, second=1)
    asked: list[list[bool]] = []
    append_all = site.inbox.append_all

    def noted(mail: Any) -> Any:
        asked.append([each.speech for each in mail])
        return append_all(mail)

    site.inbox.append_all = noted  # type: ignore[method-assign]
    stream(site, [streamed(speech), streamed(JOIN)])
    stream(site, streamed(speech))
    alert(site, alerted(speech))
    site.tell(speech)
    assert asked == [[False, False], [True], [True], [True]]


def stored(site: Site) -> list[Callback]:
    """All that waits."""
    return [each for shard in site.stored().values() for each in shard]


def test_an_overload_turns_a_batch_away_after_speech(site: Site) -> None:
    asked: list[bytes] = []
    brought: list[int] = []

    class Busy:
        def refuses(self, request: bytes) -> bool:
            asked.append(request)
            return b"speech" in request

        def brought(self, more: int) -> None:
            brought.append(more)

    site.app.extensions["offhook.webhook"].admission = Busy()
    speech = said("participant-speech-start", ANNA, number=2, second=1)
    assert site.send(speech, signature(OURS + PATH, speech)).status_code == 503
    assert stream(site, [streamed(speech), streamed(JOIN), streamed(BEN_JOINS)]).status_code == 204
    assert (len(stored(site)), brought) == (3, [2])
