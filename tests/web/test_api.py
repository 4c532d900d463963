"""What the API shows is what Redis keeps and what subscribers were sent; what it does not understand it says."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from structlog.testing import capture_logs

from app.alerts import Record, encode_record
from app.events import Alert, Callback
from app.store import feed, keys
from app.store.snapshots import Snapshots
from app.web.api import DEAD_LETTERS_SHOWN
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, NOON, ROOM, at, progress, said
from tests.conftest import SHARDS
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
    Site,
    room,
)

EMPTY_PAGE: dict[str, Any] = {"conferences": [], "next": None}


def listed(site: Site, query: str = "", who: tuple[str, str] = OPERATOR) -> list[str]:
    """The sids on a page of conferences."""
    return [conference["sid"] for conference in site.told(f"/api/conferences{query}", who)["conferences"]]


def pages(site: Site, path: str, kind: str) -> list[list[dict[str, Any]]]:
    """All pages from this one on, as `next` leads."""
    found: list[list[dict[str, Any]]] = []
    following: str | None = path
    while following is not None:
        page = site.told(following)
        found.append(page[kind])
        following = page["next"]
        assert len(found) < 1000, "next leads nowhere"
    return found


def joined(found: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What is on these pages, as one list."""
    return list(itertools.chain.from_iterable(found))


def meeting(sid: str = ROOM) -> list[dict[str, str]]:
    """A conference with all that can happen in one, from its first join to its end."""
    ben = {"room": sid, "ParticipantLabel": "ben & <co>"}
    return [
        said("participant-join", ANNA, number=1, second=0, room=sid),
        said("participant-join", BEN, number=2, second=5, **ben),
        said("conference-start", number=3, second=5, room=sid),
        said("participant-mute", BEN, number=4, second=6, Muted="true", **ben),
        said("participant-speech-start", ANNA, number=5, second=7, room=sid),
        said("participant-hold", BEN, number=6, second=8, Muted="true", Hold="true", **ben),
        said("participant-speech-stop", ANNA, number=7, second=11, room=sid),
        said("participant-leave", BEN, number=9, second=12, ReasonParticipantLeft="participant_hung_up", **ben),
        said(
            "conference-end",
            number=10,
            second=20,
            room=sid,
            ReasonConferenceEnded="last-participant-left",
            CallSidEndingConference=ANNA,
        ),
    ]


RECORDED = {
    "AccountSid": ACCOUNT,
    "ConferenceSid": ROOM,
    "RecordingSid": "RE" + "e" * 32,
    "RecordingStatus": "completed",
    "RecordingDuration": "61",
}


# The list


@pytest.mark.parametrize("status", [None, NEW, STANDING, ENDED])
@pytest.mark.parametrize("name", [None, "Stand-up", "Planning | Büro", "stand-up", "Nobody's"])
def test_filters_can_be_put_together(several: Site, status: str | None, name: str | None) -> None:
    participants = [None, ANNA, BEN, CLEO, "anna", "cleo", "nobody", "CA" + "0" * 32]
    accounts = [None, ACCOUNT, CHILD, STRANGER]
    for participant, account, who in itertools.product(participants, accounts, [OPERATOR, OWNER, SUBACCOUNT]):
        visible = {OPERATOR: set(accounts), OWNER: {None, ACCOUNT, CHILD}, SUBACCOUNT: {None, CHILD}}[who]
        if account not in visible:
            continue
        meant = account or (None if who == OPERATOR else who[0])
        asked = {"status": status, "friendly_name": name, "participant": participant, "account": account}
        query = urlencode({key: value for key, value in asked.items() if value is not None})
        expected = [
            sid
            for sid, owner, called, standing, people in reversed(KNOWN)
            if meant in (None, owner)
            and status in (None, standing)
            and name in (None, called)
            and (participant is None or participant in people or participant in people.values())
        ]
        assert listed(several, f"?{query}", who) == expected, f"{query} for {who[0]}"


@pytest.mark.parametrize("filtered", ["participant", "friendly_name", "account"])
def test_an_empty_filter_does_not_show_everything(several: Site, filtered: str) -> None:
    answer = several.ask(f"/api/conferences?{filtered}=")
    assert answer.status_code == 400 or answer.get_json() == EMPTY_PAGE


def test_a_filter_speaks_of_how_things_are_now(several: Site) -> None:
    assert room(2) in listed(several, "?status=in-progress&participant=ben")
    several.tell(said("conference-end", number=9, second=30, room=room(2)))
    several.fold()
    assert room(2) not in listed(several, "?status=in-progress&participant=ben")
    assert room(2) in listed(several, "?status=completed&participant=ben")


def test_the_list_has_headers_and_with_expand_whole_documents(several: Site) -> None:
    for conference in several.told("/api/conferences")["conferences"]:
        whole = several.told(f"/api/conferences/{conference['sid']}")
        assert conference == {name: value for name, value in whole.items() if name != "participants"}
    expanded = several.told("/api/conferences?expand=participants")["conferences"]
    assert expanded == [several.told(f"/api/conferences/{sid}") for sid in listed(several)]


def test_an_empty_list_is_a_list(site: Site) -> None:
    assert site.told("/api/conferences") == EMPTY_PAGE
    assert site.told("/api/conferences?expand=participants") == EMPTY_PAGE


@pytest.mark.parametrize(
    "query", ["", "?expand=participants", "?status=in-progress", "?friendly_name=Stand-up", "?participant=anna"]
)
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 500])
def test_following_next_shows_each_conference_once_and_in_order(several: Site, query: str, limit: int) -> None:
    path = f"/api/conferences{query}"
    found = pages(several, f"{path}{'&' if query else '?'}limit={limit}", "conferences")
    assert joined(found) == several.told(path)["conferences"]
    assert all(len(page) <= limit for page in found)


def test_following_next_keeps_the_filters_whatever_is_in_them(site: Site) -> None:
    name = "R&D + ops = 100% / Büro?#"
    for number in range(5):
        site.tell(said("conference-start", number=1, second=number, room=room(number), FriendlyName=name))
        site.tell(said("conference-start", number=1, second=number, room=room(number + 100), FriendlyName="R"))
    site.fold()
    found = pages(site, f"/api/conferences?friendly_name={quote(name)}&status=in-progress&limit=2", "conferences")
    assert [conference["sid"] for conference in joined(found)] == [room(number) for number in (4, 3, 2, 1, 0)]


def test_conferences_of_the_same_second_are_all_found(site: Site) -> None:
    rooms = {room(number) for number in range(30)}
    site.tell(*(said("conference-start", number=1, second=0, room=sid) for sid in rooms))
    site.fold()
    found = [one["sid"] for one in joined(pages(site, "/api/conferences?limit=4", "conferences"))]
    assert len(found) == 30
    assert set(found) == rooms


def test_a_new_conference_does_not_shift_the_pages(several: Site) -> None:
    first = several.told("/api/conferences?limit=3")
    several.tell(said("conference-start", number=1, second=500, room=room(99)))
    several.fold()
    rest = joined(pages(several, first["next"], "conferences"))
    sids = [conference["sid"] for conference in [*first["conferences"], *rest]]
    assert sids == [sid for sid, *_ in reversed(KNOWN)]


@pytest.mark.parametrize(
    "when",
    [
        "",
        "garbage",
        "Thu, 01 Jan 1970 00:00:00 +0000",
        "0001-01-01T00:00:00Z",
        "5138-11-16T09:46:41Z",
        "9999-12-31T23:59:59Z",
    ],
)
def test_paging_works_whatever_time_twilio_tells(site: Site, when: str) -> None:
    site.tell(*(said("conference-start", number=1, second=0, room=room(n), Timestamp=when) for n in range(3)))
    site.fold()
    found = pages(site, "/api/conferences?limit=1", "conferences")
    assert joined(found) == site.told("/api/conferences")["conferences"]
    assert len(listed(site)) == 3


def test_a_page_holds_fifty_unless_told_and_five_hundred_at_most(site: Site) -> None:
    site.tell(*(said("conference-start", number=1, second=0, room=room(number)) for number in range(505)))
    site.fold()
    assert [len(listed(site, query)) for query in ("", "?limit=501", "?limit=999999")] == [50, 500, 500]


@given(st.lists(st.integers(0, 5), max_size=25), st.integers(1, 6))
@settings(
    max_examples=15,
    deadline=None,  # no test is timed
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example empties Redis itself
)
def test_paging_loses_and_repeats_nothing(redis: Redis, seconds: list[int], limit: int) -> None:
    redis.flushall()
    site = Site(redis)
    site.tell(*(said("conference-start", number=1, second=second, room=room(n)) for n, second in enumerate(seconds)))
    site.fold()
    found = [one["sid"] for one in joined(pages(site, f"/api/conferences?limit={limit}", "conferences"))]
    assert found == [room(n) for _, n in sorted(((second, n) for n, second in enumerate(seconds)), reverse=True)]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        *(("?colour=red", "colour"), ("?Status=completed", "Status"), ("?limit=1&page=2", "page"), ("?=x", "")),
        *(("?status=", "status"), ("?status=done", "status"), ("?status=In-Progress", "status")),
        ("?status=init&status=completed", "status"),
        *(("?limit=0", "limit"), ("?limit=-1", "limit"), ("?limit=x", "limit"), ("?limit=1.5", "limit")),
        *(("?limit=", "limit"), ("?limit=%D9%A1", "limit"), ("?limit=1&limit=1", "limit"), ("?limit=9999999", "limit")),
        *(("?after=", "after"), ("?after=x", "after"), (f"?after={ROOM}", "after"), ("?after=1-CFx", "after")),
        *((f"?after=1-{ROOM}%0A", "after"), (f"?after=%D9%A1-{ROOM}", "after"), (f"?after={'9' * 30}-{ROOM}", "after")),
        *(("?expand=", "expand"), ("?expand=everything", "expand"), ("?participant=a&participant=b", "participant")),
    ],
)
def test_a_question_that_is_not_understood_is_named_and_explained(site: Site, query: str, name: str) -> None:
    answer = site.ask(f"/api/conferences{query}")
    assert answer.status_code == 400
    message = answer.get_json()["message"]
    assert message.startswith(f"{name}: ")
    assert re.search("expected|known are|more than once|take it from", message)


@pytest.mark.parametrize("path", [f"/api/conferences/{ROOM}", f"/api/conferences/{ROOM}/events", "/api/stats"])
def test_no_page_takes_a_parameter_it_does_not_know(site: Site, path: str) -> None:
    site.tell(*meeting())
    site.fold()
    answer = site.ask(f"{path}?status=completed")
    assert answer.status_code == 400
    assert answer.get_json()["message"].startswith("status: ")


# One conference


def test_a_conferences_document_is_what_its_callbacks_tell(site: Site) -> None:
    site.tell(*meeting(), RECORDED)
    site.fold()
    document = site.told(f"/api/conferences/{ROOM}")
    anna, ben = document.pop("participants")
    assert (document["status"], document["started_at"], document["ended_at"]) == (
        "completed",
        "2026-11-22T12:00:05Z",
        "2026-11-22T12:00:20Z",
    )
    assert document["reason_conference_ended"] == "last-participant-left"
    assert (document["friendly_name"], document["counts"]["participants"], document["counts"]["present"]) == (
        "Stand-up",
        2,
        0,
    )
    assert document["coverage"]["holes"] == [[8, 8]]
    assert document["recordings"][0]["status"] == "completed"
    assert (anna["label"], anna["talk_seconds"], anna["stays"][0]["inferred"]) == ("anna", 4.0, True)
    assert (ben["label"], ben["muted_seconds"], ben["hold_seconds"]) == ("ben & <co>", 6.0, 4.0)
    assert ben["reason_left"] == "participant_hung_up"


@pytest.mark.parametrize("batches", [1, 3, 9])
def test_the_document_is_what_redis_keeps_and_what_subscribers_were_sent(site: Site, batches: int) -> None:
    told = meeting()
    told.insert(2, told.pop(0))  # the first join comes late
    with feed.subscribe(site.redis, keys.conference_channel(ROOM)) as messages:
        for start in range(0, len(told), -(-len(told) // batches)):
            site.tell(*told[start : start + -(-len(told) // batches)])
            site.fold()
        document = site.told(f"/api/conferences/{ROOM}")
        heard = [json.loads(next(messages)) for _ in range(document["revision"])]

    fields: dict[bytes, bytes] = site.redis.hgetall(keys.conference(keys.shard_of(ROOM, SHARDS), ROOM))  # type: ignore[assignment]  # the client may be asynchronous
    header = json.loads(fields[b"header"])
    kept = {name.decode(): json.loads(value) for name, value in fields.items() if name.startswith(b"CA")}
    assert document == {**header, "participants": [kept[ANNA], kept[BEN]]}

    assert [message["revision"] for message in heard] == list(range(1, document["revision"] + 1))
    assert len({message["epoch"] for message in heard}) == 1
    sent: dict[str, Any] = {}
    for message in heard:
        sent |= {participant["call_sid"]: participant for participant in message["participants"]}
    assert document == {**heard[-1]["conference"], "participants": [sent[ANNA], sent[BEN]]}
    types = [event["type"] for message in heard for event in message["events"]]
    assert sorted(types) == sorted(callback["StatusCallbackEvent"] for callback in told)


@pytest.mark.parametrize("sid", ["CF", "x", ANNA, ROOM + "0", ROOM[:-1] + "g", "CF*", ROOM + "%0A", "%7B0%7D"])
@pytest.mark.parametrize("what", ["", "/events"])
def test_what_is_no_sid_is_named_so(site: Site, sid: str, what: str) -> None:
    answer = site.ask(f"/api/conferences/{sid}{what}")
    assert answer.status_code == 400
    assert "CF and 32 hexadecimal digits" in answer.get_json()["message"]


@pytest.mark.parametrize("what", ["", "/events"])
def test_a_conference_nobody_has_told_of_is_not_found(site: Site, what: str) -> None:
    answer = site.ask(f"/api/conferences/{ROOM}{what}")
    assert answer.status_code == 404
    assert ROOM in answer.get_json()["message"]


def test_what_is_true_now_is_kept_by_no_cache(several: Site) -> None:
    for path in (
        "/api/conferences",
        f"/api/conferences/{room(1)}",
        f"/api/conferences/{room(1)}/events",
        "/api/stats",
        "/",
    ):
        assert several.ask(path).headers["Cache-Control"] == "no-store"


# Its events


def test_events_are_everything_that_was_said_in_order_of_arrival(site: Site) -> None:
    told = meeting()
    told.insert(0, told.pop())  # the end comes first
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    site.tell(*told)
    site.fold()
    page = site.told(f"/api/conferences/{ROOM}/events")
    assert page["next"] is None
    assert [event["parameters"] for event in page["events"]] == told
    for event, callback in zip(page["events"], told, strict=True):
        second = datetime.strptime(callback["Timestamp"], "%a, %d %b %Y %H:%M:%S %z")
        assert datetime.fromisoformat(event["at"]) == second
        assert before <= datetime.fromisoformat(event["received_at"]) <= datetime.now(UTC)
        assert {key: event[key] for key in ("type", "source", "sequence", "call_sid", "verified_by")} == {
            "type": callback["StatusCallbackEvent"],
            "source": "conference",
            "sequence": int(callback["SequenceNumber"]),
            "call_sid": callback.get("CallSid"),
            "verified_by": "main",
        }


def test_events_of_a_call_and_of_a_recording_stand_with_the_conferences(site: Site) -> None:
    ringing = progress(ANNA, "ringing", number=0, second=-5)
    site.tell(ringing, *meeting()[:1], RECORDED)
    site.fold()
    events = site.told(f"/api/conferences/{ROOM}/events")["events"]
    assert {event["type"]: event["source"] for event in events} == {
        "call-ringing": "call",
        "participant-join": "conference",
        "recording-completed": "recording",
    }
    assert ringing in [event["parameters"] for event in events]


@pytest.mark.parametrize("limit", [1, 2, 4, 9, 10])
def test_following_next_shows_each_event_once(site: Site, limit: int) -> None:
    site.tell(*meeting())
    site.fold()
    path = f"/api/conferences/{ROOM}/events"
    found = pages(site, f"{path}?limit={limit}", "events")
    assert joined(found) == site.told(path)["events"]
    assert all(len(page) <= limit for page in found)


def test_events_can_be_read_on_from_any_of_them(site: Site) -> None:
    site.tell(*meeting())
    site.fold()
    path = f"/api/conferences/{ROOM}/events"
    events = site.told(path)["events"]
    assert [event["number"] for event in events] == list(range(1, len(meeting()) + 1))
    for place, event in enumerate(events):
        assert site.told(f"{path}?after={event['number']}")["events"] == events[place + 1 :]
    assert site.told(f"{path}?after=0")["events"] == events


@pytest.mark.parametrize("after", ["", "x", "-1", "%2B1", "1.5", "1-0", "1%0A", "1_0", "%D9%A1", "9" * 16, "9" * 400])
def test_a_place_that_is_none_is_explained(site: Site, after: str) -> None:
    site.tell(*meeting())
    site.fold()
    answer = site.ask(f"/api/conferences/{ROOM}/events?after={after}")
    assert answer.status_code == 400
    assert answer.get_json()["message"].startswith("after: ")


@pytest.mark.parametrize("after", ["10", "1000000", "9" * 15])
def test_behind_the_last_event_there_are_none_yet(site: Site, after: str) -> None:
    site.tell(*meeting())
    site.fold()
    assert site.told(f"/api/conferences/{ROOM}/events?after={after}") == {"events": [], "next": None}


# How the service stands


def test_the_stats_follow_a_callback_from_the_inbox_to_its_document(site: Site) -> None:
    site.tell(*meeting())
    waiting = site.told("/api/stats")
    assert waiting["callbacks"]["waiting"] == len(meeting())
    assert waiting["callbacks"]["oldest_waiting_seconds"] >= 0
    assert sum(shard["waiting"] for shard in waiting["shards"]) == len(meeting())
    assert len(waiting["shards"]) == SHARDS
    site.tell(meeting()[0], progress(ANNA, "ringing", number=0, second=-5))
    site.fold()
    done = site.told("/api/stats")
    assert done["conferences"] == {"init": 0, "in-progress": 0, "completed": 1}
    assert done["callbacks"]["waiting"] == 0
    assert done["callbacks"]["oldest_waiting_seconds"] is None
    assert done["callbacks"]["repeated"] == 1
    assert done["callbacks"]["dead_letters"] == 0
    assert done["callbacks"]["folded"] == len(site.told(f"/api/conferences/{ROOM}/events")["events"])
    assert done["dead_letters"] == []


def test_a_dead_letter_says_why_and_what_it_said(site: Site) -> None:
    spoiled = said("participant-join", "no sid", number=1, second=0)
    site.tell(spoiled)
    site.fold()
    [letter] = site.told("/api/stats")["dead_letters"]
    assert letter["parameters"] == spoiled
    assert "CallSid" in letter["reason"]
    assert datetime.fromisoformat(letter["received_at"]).tzinfo is not None


def test_the_newest_dead_letters_are_shown(site: Site) -> None:
    for number in range(DEAD_LETTERS_SHOWN + 5):
        site.tell(said("participant-join", "no sid", number=number, second=0, room=room(number)))
    site.fold()
    stats = site.told("/api/stats")
    assert stats["callbacks"]["dead_letters"] == DEAD_LETTERS_SHOWN + 5
    shown = [datetime.fromisoformat(letter["received_at"]) for letter in stats["dead_letters"]]
    assert len(shown) == DEAD_LETTERS_SHOWN
    assert shown == sorted(shown, reverse=True)


def test_ready_means_that_a_callback_could_be_stored_and_somebody_would_fold_it(site: Site) -> None:
    answer = site.ask("/readyz", None)
    assert (answer.status_code, answer.get_json()["status"]) == (200, "degraded")
    assert answer.get_json()["reasons"] == ["No worker has been alive for a while: what is stored is not folded."]
    site.inbox.announce(1)
    answer = site.ask("/readyz", None)
    assert (answer.status_code, answer.get_json()) == (
        200,
        {
            "status": "ready",
            "reasons": [],
            "append_only_file": True,
            "durability": {"mode": "everysec", "fsync": "always", "eviction": "noeviction", "replicas": 0},
            "spooled_bytes": 0,
        },
    )


def test_away_from_redis_a_process_is_alive_and_not_ready(nowhere: Redis) -> None:
    site = Site(nowhere)
    assert (site.ask("/healthz", None).status_code, site.ask("/healthz", None).get_json()) == (200, {"status": "alive"})
    answer = site.ask("/readyz", None)
    assert answer.status_code == 503
    assert answer.get_json()["status"] == 503
    assert "Redis" in answer.get_json()["message"]


@pytest.mark.parametrize(
    "path",
    [
        *("/api/conferences", f"/api/conferences/{ROOM}", "/api/stats", "/api/stream"),
        *(f"/api/conferences/{ROOM}/events", f"/api/conferences/{ROOM}/timeline"),
    ],
)
def test_away_from_redis_every_page_says_so(nowhere: Redis, path: str) -> None:
    with capture_logs() as lines:
        answer = Site(nowhere).ask(path)
    assert answer.status_code == 503
    assert "Redis" in answer.get_json()["message"]
    assert [line["event"] for line in lines] == ["redis failed"]


# Failures


@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/api/", "/api/conference", f"/api/conferences/{ROOM}/x", "/static/x"]
)
def test_what_is_not_there_is_json_too(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert (answer.status_code, answer.content_type) == (404, "application/json")
    assert answer.get_json()["status"] == 404
    assert answer.get_json()["message"]


@pytest.mark.parametrize("path", ["/api/conferences", f"/api/conferences/{ROOM}", "/api/stats", "/", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_method_that_is_not_there_is_json_too(site: Site, method: str, path: str) -> None:
    answer = site.http.open(path, method=method, auth=OPERATOR)
    assert (answer.status_code, answer.content_type) == (405, "application/json")
    assert "GET" in answer.headers["Allow"]


def test_a_fault_of_our_own_is_json_and_keeps_its_particulars_in_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("a fault about +15550123456")

    monkeypatch.setattr(Snapshots, "parts", breaks)
    with capture_logs() as lines:
        answer = site.ask(f"/api/conferences/{ROOM}")
    assert (answer.status_code, answer.content_type) == (500, "application/json")
    assert "fault" not in answer.get_data(as_text=True)
    assert [(line["event"], line["error"]) for line in lines] == [("request failed", "RuntimeError")]


@given(
    st.sampled_from(
        ["/", "/api/conferences", f"/api/conferences/{ROOM}", f"/api/conferences/{ROOM}/events", "/api/stats"]
    ),
    st.lists(
        st.tuples(
            st.sampled_from(
                ["status", "friendly_name", "participant", "account", "limit", "after", "expand", "\xe9", ""]
            ),
            st.one_of(
                st.text(max_size=20),
                st.sampled_from(
                    ["in-progress", ANNA, ROOM, ACCOUNT, "1", "9" * 15, "participants", f"1-{ROOM}", "9-9"]
                ),
            ),
        ),
        max_size=4,
    ),
)
@settings(
    max_examples=200,
    deadline=None,  # no test is timed
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # nothing is changed by asking
)
def test_no_question_is_answered_with_an_error_of_ours(several: Site, path: str, asked: list[tuple[str, str]]) -> None:
    answer = several.ask(f"{path}?{urlencode(asked, errors='replace')}")
    assert answer.status_code in (200, 400, 404)
    assert path == "/" or answer.is_json


def test_alerts_that_stand_are_listed_to_who_may_see_their_conferences(site: Site) -> None:
    site.tell(said("participant-join", ANNA, number=1, second=0))
    alert = Alert(rule="alone", kind="alone", since=NOON, at=at(600), text="One participant has been alone for 10 min.")
    record = Record(account_sid=ACCOUNT, conference_sid=ROOM, alert=alert)
    written = Callback(body=encode_record(record), media="alert", received_at=0, key="offhook")
    site.inbox.append(site.inbox.shard_of(ROOM), written)
    site.fold()
    shown = {
        "conference_sid": ROOM,
        "account_sid": ACCOUNT,
        "friendly_name": "Stand-up",
        "rule": "alone",
        "kind": "alone",
        "severity": "warning",
        "subject": "",
        "since": "2026-11-22T12:00:00Z",
        "at": "2026-11-22T12:10:00Z",
        "cleared": False,
        "text": "One participant has been alone for 10 min.",
    }
    assert site.ask("/api/alerts").get_json() == {"alerts": [shown], "more": False}
    assert site.ask("/api/alerts", OWNER).get_json()["alerts"] == [shown]
    assert site.ask("/api/alerts", OUTSIDER).get_json()["alerts"] == []
    assert site.ask(f"/api/alerts?account={ACCOUNT}", OUTSIDER).status_code == 404
    assert site.ask(f"/api/conferences/{ROOM}").get_json()["alerts"][0]["rule"] == "alone"
    [_, logged] = site.ask(f"/api/conferences/{ROOM}/events").get_json()["events"]
    assert (logged["type"], logged["parameters"]["alert"]["rule"]) == ("alert-raised", "alone")
