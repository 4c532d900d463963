"""Summaries in the shape of Voice Insights: live and afterwards, with null for what callbacks do not tell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from structlog.testing import capture_logs

from app.events import Action, Answer, Callback
from app.store.snapshots import PASSED_OVER
from app.twilio.control import Record, encode_record
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, NOON, ROOM, at, progress, said
from tests.described import check
from tests.store import rooms
from tests.web.conftest import (
    CHILD,
    OPERATOR,
    OURS,
    OUTSIDER,
    OWNER,
    STRANGER,
    SUBACCOUNT,
    TENANT,
    TOKENS,
    Site,
    asked,
    refused,
    room,
)

HERE = "http://localhost"
"""Where the tests ask; Twilio was given another address."""
LIST = "/v1/Conferences"
ONE = f"{LIST}/{ROOM}"
PEOPLE = f"{ONE}/Participants"
PATHS = [LIST, ONE, PEOPLE, f"{PEOPLE}/{ANNA}", f"{PEOPLE}/anna"]
"""One of each kind; all are there once `meeting` has been told."""


def listed(site: Site, query: str = "", **more: Any) -> list[str]:
    """The sids of the conferences on a page."""
    return [conference["conference_sid"] for conference in asked(site, f"{LIST}{query}", **more)["conferences"]]


def calls(site: Site, query: str = "") -> list[str]:
    """The calls on a page of participants."""
    return [participant["call_sid"] for participant in asked(site, f"{PEOPLE}{query}")["participants"]]


def meeting(sid: str = ROOM) -> list[dict[str, str]]:
    """Anna waits for Ben, they talk, he is muted and goes, and it ends."""
    ben = {"room": sid, "EndConferenceOnExit": "true"}
    return [
        said("participant-join", ANNA, number=1, second=0, room=sid),
        said("participant-join", BEN, number=2, second=5, **ben),
        said("conference-start", number=3, second=5, room=sid),
        said("participant-mute", BEN, number=4, second=6, Muted="true", **ben),
        said("participant-unmute", BEN, number=5, second=8, **ben),
        said("participant-mute", BEN, number=6, second=9, Muted="true", **ben),
        said("participant-leave", BEN, number=7, second=12, Muted="true", **ben),
        said(
            "conference-end",
            number=8,
            second=20,
            room=sid,
            ReasonConferenceEnded="last-participant-left",
            CallSidEndingConference=ANNA,
        ),
    ]


CALLED = [
    progress(ANNA, "in-progress", number=1, second=-2, Direction="inbound", From="client:anna", To="+15550101"),
    progress(BEN, "ringing", number=1, second=1),
    progress(BEN, "in-progress", number=2, second=4),
    progress(BEN, "completed", number=3, second=12),
]


@pytest.fixture
def met(site: Site) -> Site:
    """The meeting, from its beginning to its end."""
    site.tell(*meeting(), *CALLED)
    site.fold()
    return site


# One conference


def test_a_conference_that_has_ended_is_summed_up(met: Site) -> None:
    assert asked(met, ONE) == {
        "account_sid": ACCOUNT,
        "conference_sid": ROOM,
        "connect_duration_seconds": 15,
        "create_time": "2026-11-22T12:00:00Z",
        "detected_issues": None,
        "duration_seconds": 20,
        "end_reason": "last_participant_left",
        "end_time": "2026-11-22T12:00:20Z",
        "ended_by": ANNA,
        "friendly_name": "Stand-up",
        "links": {"conference_participants": f"{HERE}{PEOPLE}"},
        "max_concurrent_participants": 2,
        "max_participants": None,
        "mixer_region": None,
        "mixer_region_requested": None,
        "processing_state": "complete",
        "recording_enabled": None,
        "start_time": "2026-11-22T12:00:05Z",
        "status": "completed",
        "tag_info": None,
        "tags": None,
        "unique_participants": None,
        "url": f"{HERE}{ONE}",
    }


def test_a_conference_that_goes_on_is_summed_up_so_far(site: Site) -> None:
    site.tell(*meeting()[:7])
    site.fold()
    conference = asked(site, ONE)
    told = ("status", "processing_state", "create_time", "start_time", "max_concurrent_participants")
    assert [conference[name] for name in told] == [
        "in_progress",
        "in_progress",
        "2026-11-22T12:00:00Z",
        "2026-11-22T12:00:05Z",
        2,
    ]
    open_still = ("end_time", "duration_seconds", "connect_duration_seconds", "end_reason", "ended_by")
    assert [conference[name] for name in open_still] == [None] * len(open_still)


def test_a_conference_that_never_started_has_no_start(site: Site) -> None:
    site.tell(said("conference-create", number=1, second=0))
    site.fold()
    assert asked(site, ONE)["status"] == "not_started"
    site.tell(said("conference-end", number=2, second=9))
    site.fold()
    conference = asked(site, ONE)
    assert conference["status"] == "completed"
    assert conference["start_time"] is conference["connect_duration_seconds"] is None
    assert (conference["duration_seconds"], conference["max_concurrent_participants"]) == (9, 0)


def test_a_recording_that_was_told_of_shows_that_recording_was_on(met: Site) -> None:
    met.tell(
        {"AccountSid": ACCOUNT, "ConferenceSid": ROOM, "RecordingSid": "RE" + "e" * 32, "RecordingStatus": "completed"}
    )
    met.fold()
    assert asked(met, ONE)["recording_enabled"] is True


@pytest.mark.parametrize(
    ("stays", "most"),
    [
        ([], 0),
        ([(ANNA, 0, 10)], 1),
        ([(ANNA, 0, None)], 1),
        ([(ANNA, 0, 10), (BEN, 5, 15)], 2),
        ([(ANNA, 0, 5), (BEN, 5, 10), (CLEO, 10, 15)], 1),
        ([(ANNA, 0, 20), (BEN, 1, 5), (CLEO, 2, 4), (BEN, 6, 8)], 3),
        ([(ANNA, 0, 5), (ANNA, 6, 9), (ANNA, 10, None)], 1),
        ([(ANNA, 0, None), (BEN, 0, None), (CLEO, 0, None)], 3),
        ([(ANNA, 3, 3)], 1),
        ([(ANNA, 0, 9), (BEN, 3, 3)], 2),
    ],
)
def test_so_many_were_there_at_once(site: Site, stays: list[tuple[str, int, int | None]], most: int) -> None:
    steps = [(second, "join", call) for call, second, _ in stays]
    steps += [(second, "leave", call) for call, _, second in stays if second is not None]
    steps.sort(key=lambda step: step[0])
    site.tell(said("conference-create", number=1, second=0))
    site.tell(*(said(f"participant-{what}", who, number=n, second=at) for n, (at, what, who) in enumerate(steps, 2)))
    site.fold()
    assert asked(site, ONE)["max_concurrent_participants"] == most


@pytest.mark.parametrize(
    "reason",
    [
        "conference-ended-via-api",
        "last-participant-kicked",
        "last-participant-left",
        "participant-with-end-conference-on-exit-kicked",
        "participant-with-end-conference-on-exit-left",
    ],
)
def test_reasons_are_written_as_insights_writes_them(site: Site, reason: str) -> None:
    site.tell(*meeting()[:-1], said("conference-end", number=8, second=20, ReasonConferenceEnded=reason))
    site.fold()
    assert asked(site, ONE)["end_reason"] == reason.replace("-", "_")
    assert listed(site, f"?EndReason={reason.replace('-', '_')}") == [ROOM]


@pytest.mark.parametrize(
    "when", ["", "garbage", "Thu, 01 Jan 1970 00:00:00 +0000", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
def test_a_summary_can_be_read_whatever_time_twilio_tells(site: Site, when: str) -> None:
    site.tell(*({**callback, "Timestamp": when} for callback in meeting()))
    site.fold()
    for path in (LIST, ONE, f"{PEOPLE}?Events=mute", f"{PEOPLE}/{BEN}?Events=mute"):
        asked(site, path)


# Participants


def test_a_participant_is_summed_up(met: Site) -> None:
    assert asked(met, f"{PEOPLE}/{BEN}") == {
        "account_sid": ACCOUNT,
        "call_direction": "outbound",
        "call_sid": BEN,
        "call_status": "completed",
        "call_type": "carrier",
        "coached_participants": None,
        "conference_region": None,
        "conference_sid": ROOM,
        "country_code": None,
        "duration_seconds": 7,
        "events": None,
        "from": "+15550100",
        "is_coach": False,
        "is_moderator": True,
        "jitter_buffer_size": None,
        "join_time": "2026-11-22T12:00:05Z",
        "label": "ben",
        "leave_time": "2026-11-22T12:00:12Z",
        "metrics": None,
        "outbound_queue_length": None,
        "outbound_time_in_queue": None,
        "participant_region": None,
        "participant_sid": None,
        "processing_state": "complete",
        "properties": {
            "beep_on_enter": None,
            "beep_on_exit": None,
            "end_conference_on_exit": True,
            "enter_muted": None,
            "play_early_media": None,
            "start_conference_on_enter": True,
        },
        "to": "+15550101",
        "url": f"{HERE}{PEOPLE}/{BEN}",
    }


def test_whoever_is_still_there_has_not_left(site: Site) -> None:
    site.tell(*meeting()[:6], *CALLED[:3])
    site.fold()
    ben = asked(site, f"{PEOPLE}/{BEN}")
    assert (ben["call_status"], ben["processing_state"]) == ("answered", "in_progress")
    assert ben["leave_time"] is ben["duration_seconds"] is None
    anna = asked(site, f"{PEOPLE}/{ANNA}")
    assert (anna["call_direction"], anna["call_type"], anna["from"]) == ("inbound", "client", "client:anna")


def test_whoever_has_left_is_still_summed_up_while_it_goes_on(site: Site) -> None:
    site.tell(*meeting()[:7])
    site.fold()
    assert calls(site) == [BEN, ANNA]
    assert asked(site, f"{PEOPLE}/ben")["processing_state"] == "complete"


def test_what_no_callback_told_is_null(site: Site) -> None:
    told = said("participant-join", ANNA, number=1, second=0)
    for name in ("FriendlyName", "Timestamp", "ParticipantLabel", "Muted", "Hold", "Coaching"):
        del told[name]
    del told["StartConferenceOnEnter"], told["EndConferenceOnExit"]
    site.tell(told)
    site.fold()
    conference = asked(site, ONE)
    assert [conference[name] for name in ("friendly_name", "create_time", "start_time", "end_time")] == [None] * 4
    [participant] = asked(site, PEOPLE)["participants"]
    nulls = ("label", "call_direction", "from", "to", "call_status", "is_moderator", "is_coach", "call_type")
    assert [participant[name] for name in nulls] == [None] * len(nulls)
    assert participant["join_time"] is participant["leave_time"] is participant["duration_seconds"] is None


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("queued", None),
        ("initiated", None),
        ("ringing", "ringing"),
        ("in-progress", "answered"),
        ("completed", "completed"),
        ("busy", "busy"),
        ("failed", "fail"),
        ("no-answer", "noanswer"),
        ("canceled", "canceled"),
    ],
)
def test_a_call_is_summed_up_before_it_is_in(site: Site, status: str, shown: str | None) -> None:
    action = Action(
        id="dial", verb="add-participant", by="steerer", call_sid=CLEO, requested_at=at(0), expires_at=at(120)
    )
    record = Record(
        step="answered",
        account_sid=ACCOUNT,
        conference_sid=ROOM,
        resource=f"Conferences/{ROOM}/Participants",
        parameters=[],
        action=action,
        answer=Answer(created_at=at(1), label="cleo", queue_time=1500, dialled=True),
    )
    dialled = Callback(body=encode_record(record), media="control", received_at=1_795_348_800_000, key="steerer")
    site.tell(*meeting()[:3])
    site.inbox.append(site.inbox.shard_of(ROOM), dialled)
    site.tell(progress(CLEO, status, number=1, second=7, To="sip:cleo@example.com"))
    site.fold()
    cleo = asked(site, f"{PEOPLE}/cleo")
    assert (cleo["call_status"], cleo["outbound_time_in_queue"], cleo["call_type"]) == (shown, 1500, "sip")
    assert cleo["join_time"] is cleo["leave_time"] is cleo["duration_seconds"] is None
    over = status in ("completed", "busy", "failed", "no-answer", "canceled")
    assert cleo["processing_state"] == ("complete" if over else "in_progress"), "a call that is coming is not over"
    assert asked(site, ONE)["max_concurrent_participants"] == 2


def test_the_times_of_events_are_told_if_asked_for(met: Site) -> None:
    noon = int(NOON.timestamp() * 1000)
    expected = {"join": [noon + 5000], "leave": [noon + 12000], "mute": [noon + 6000, noon + 9000]}
    expected["unmute"] = [noon + 8000]
    assert asked(met, f"{PEOPLE}/ben?Events=mute,unmute,join,leave")["events"] == expected
    ben, anna = asked(met, f"{PEOPLE}?Events=mute,unmute,join,leave")["participants"]
    assert ben["events"] == expected
    assert anna["events"] == {"join": [noon]}
    assert [each["events"] for each in asked(met, PEOPLE)["participants"]] == [None, None]
    assert asked(met, f"{PEOPLE}/ben?Events=")["events"] is None


def test_participants_are_found_by_label_and_sid(site: Site) -> None:
    site.tell(*meeting(), said("participant-join", CLEO, number=9, second=30, ParticipantLabel="ben"))
    site.fold()
    assert calls(site) == [CLEO, BEN, ANNA]
    assert calls(site, "?Label=ben") == [CLEO, BEN]
    assert calls(site, f"?ParticipantSid={ANNA}") == [ANNA]
    assert calls(site, f"?ParticipantSid={ANNA}&Label=ben") == calls(site, "?Label=Ben") == []
    assert asked(site, f"{PEOPLE}/ben")["call_sid"] == CLEO


@pytest.mark.parametrize("safe", ["", "/"], ids=["escaped", "raw"])
@pytest.mark.parametrize(
    "label",
    ["two words", "a/b", "a//b", "100%", "a%2Fb", "Büro ☎", "a|b", "x.json", "?&=+;#", "two\nlines", "CP" + "1" * 32],
)
def test_a_participant_is_found_by_any_label(site: Site, label: str, safe: str) -> None:
    site.tell(said("participant-join", ANNA, number=1, second=0, ParticipantLabel=label))
    site.fold()
    participant = asked(site, f"{PEOPLE}/{quote(label, safe=safe)}")
    assert (participant["call_sid"], participant["label"]) == (ANNA, label)
    assert participant["url"] == f"{HERE}{PEOPLE}/{ANNA}"
    assert calls(site, f"?Label={quote(label, safe='')}") == [ANNA]


# The list


NEW, STANDING, ENDED = "not_started", "in_progress", "completed"
KNOWN = [
    # conference, account, its name, how it stands
    (room(1), ACCOUNT, "Stand-up", ENDED),
    (room(2), ACCOUNT, "Stand-up", STANDING),
    (room(3), ACCOUNT, "Planning | Büro", STANDING),
    (room(4), ACCOUNT, "Planning | Büro", NEW),
    (room(5), CHILD, "Stand-up", STANDING),
    (room(6), CHILD, "Retro", ENDED),
    (room(7), STRANGER, "Stand-up", STANDING),
]
SEEN = {
    OPERATOR: {ACCOUNT, CHILD, STRANGER},
    OWNER: {ACCOUNT, CHILD},
    SUBACCOUNT: {CHILD},
    OUTSIDER: {STRANGER},
    TENANT: {STRANGER},
}


@pytest.fixture
def several(site: Site) -> Site:
    """The conferences of KNOWN, ten seconds apart, the last of them the newest."""
    for place, (sid, account, name, status) in enumerate(KNOWN):
        about: dict[str, Any] = {"room": sid, "AccountSid": account, "FriendlyName": name}
        told = [said("conference-create", number=1, second=place * 10, **about)]
        if status != NEW:
            told.append(said("participant-join", ANNA, number=2, second=place * 10, **about))
        if status == ENDED:
            told.append(
                said(
                    "conference-end",
                    number=3,
                    second=place * 10 + 5,
                    ReasonConferenceEnded="last-participant-left" if place else "conference-ended-via-api",
                    **about,
                )
            )
        site.tell(*told, token=TOKENS[account])
    site.fold()
    return site


def test_an_item_of_a_list_is_the_summary_itself(several: Site) -> None:
    items = asked(several, LIST)["conferences"]
    assert len(items) == len(KNOWN)
    for item in items:
        assert asked(several, urlsplit(item["url"]).path) == item
        for participant in asked(several, urlsplit(item["links"]["conference_participants"]).path)["participants"]:
            assert asked(several, urlsplit(participant["url"]).path) == participant


def seconds(sid: str) -> int:
    """When a conference of KNOWN was made, after noon."""
    return 10 * [known for known, *_ in KNOWN].index(sid)


@pytest.mark.parametrize("who", SEEN, ids=lambda who: who[0][:8])
@pytest.mark.parametrize("by_sid", [False, True], ids=["all", "by sid"])
def test_filters_can_be_put_together(several: Site, who: tuple[str, str], by_sid: bool) -> None:
    for status, name, after, before in itertools.product(
        [None, NEW, STANDING, ENDED], [None, "Stand-up", "stand-up"], [None, 10, 11], [None, 10, 35]
    ):
        times = {"CreatedAfter": after, "CreatedBefore": before}
        wanted = {"Status": status, "FriendlyName": name}
        wanted |= {key: None if time is None else f"{at(time):%Y-%m-%dT%H:%M:%SZ}" for key, time in times.items()}
        query = urlencode({key: value for key, value in wanted.items() if value is not None})
        usual = {OPERATOR: SEEN[OPERATOR], OWNER: {ACCOUNT}}.get(who, SEEN[who])
        expected = [
            sid
            for sid, account, called, standing in reversed(KNOWN)
            if account in usual
            and status in (None, standing)
            and name in (None, called)
            and (after is None or seconds(sid) >= after)
            and (before is None or seconds(sid) <= before)
        ]
        if by_sid:
            for sid, *_ in KNOWN:
                found = listed(several, f"?ConferenceSid={sid}&{query}", who=who)
                assert found == [each for each in expected if each == sid], query
        else:
            assert listed(several, f"?{query}", who=who) == expected, query


@pytest.mark.parametrize("sid", [ROOM, "CF", "x", ANNA, ROOM + "0"])
def test_a_conference_nobody_has_told_of_is_in_no_list(several: Site, sid: str) -> None:
    assert listed(several, f"?ConferenceSid={sid}") == []


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("last_participant_left", [room(6)]),
        ("conference_ended_via_api", [room(1)]),
        ("last_participant_kicked", []),
    ],
)
def test_conferences_are_found_by_the_reason_they_ended(several: Site, reason: str, expected: list[str]) -> None:
    assert listed(several, f"?EndReason={reason}") == expected
    assert walked(several, f"{LIST}?EndReason={reason}&PageSize=2") == expected
    assert listed(several, f"?EndReason={reason}&ConferenceSid={room(6)}") == [
        sid for sid in expected if sid == room(6)
    ]


@pytest.mark.parametrize("who", SEEN, ids=lambda who: who[0][:8])
@pytest.mark.parametrize("subaccount", [ACCOUNT, CHILD, STRANGER])
def test_a_subaccount_can_be_named_by_who_may_see_it(several: Site, who: tuple[str, str], subaccount: str) -> None:
    query = f"?Subaccount={subaccount}"
    if subaccount in SEEN[who]:
        expected = [sid for sid, account, *_ in reversed(KNOWN) if account == subaccount]
        assert listed(several, query, who=who) == expected
    else:
        hidden = refused(several, f"{LIST}{query}", 404, 20404, who=who)
        absent = refused(several, f"{LIST}?Subaccount=AC{'9' * 32}", 404, 20404, who=who)
        assert hidden.replace(subaccount, "") == absent.replace("AC" + "9" * 32, "")


@pytest.mark.parametrize("path", [LIST, PEOPLE])
@pytest.mark.parametrize("name", ["MixerRegion", "Tags", "DetectedIssues"])
def test_what_callbacks_do_not_tell_cannot_be_asked_for(met: Site, path: str, name: str) -> None:
    message = refused(met, f"{path}?{name}=us1", 400, 20001)
    assert message.startswith(name)
    assert asked(met, f"{path}?{name}=") == asked(met, path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Status", value) for value in ("in-progress", "init", "x")),
        *((name, value) for name in ("CreatedAfter", "CreatedBefore") for value in ("x", "2026-13-01", "1795348800x")),
        *(("PageSize", value) for value in ("x", "-1")),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(met: Site, name: str, value: str) -> None:
    assert refused(met, f"{LIST}?{urlencode({name: value})}", 400, 20001).startswith(name)


@pytest.mark.parametrize("value", ["2026-11-22T12:00:10Z", "2026-11-22T14:00:10+02:00", "2026-11-22 12:00:10"])
def test_times_can_be_written_in_any_zone(several: Site, value: str) -> None:
    assert listed(several, f"?{urlencode({'CreatedBefore': value})}") == [room(2), room(1)]


@pytest.mark.parametrize("query", ["Nonsense=1", "status=x", "Sort=asc", "Status=&FriendlyName="])
def test_a_parameter_nobody_knows_is_passed_over(several: Site, query: str) -> None:
    assert asked(several, f"{LIST}?{query}") == asked(several, LIST)


# Pages


def follow(site: Site, url: str | None, link: str) -> Iterator[Any]:
    """This page, and those that its `next_page_url` or `previous_page_url` leads to."""
    for _ in range(2_000):
        if url is None:
            return
        parts = urlsplit(url)
        page = asked(site, f"{parts.path}?{parts.query}")
        yield page
        url = page["meta"][link]
    raise AssertionError(f"{link} leads nowhere")


def things(page: Any) -> list[str]:
    """The sids of what is on a page."""
    key = page["meta"]["key"]
    assert page.keys() == {"meta", key}
    return [thing["call_sid" if key == "participants" else "conference_sid"] for thing in page[key]]


def walked(site: Site, path: str) -> list[str]:
    """All that the pages from this one on show."""
    return [sid for page in follow(site, path, "next_page_url") for sid in things(page)]


def walked_back(site: Site, path: str) -> list[str]:
    """All that is shown on the way back from the last page to the first, as it would be read forward."""
    *_, last = follow(site, path, "next_page_url")
    pages = [things(page) for page in follow(site, last["meta"]["url"], "previous_page_url")]
    return [sid for page in reversed(pages) for sid in page]


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=12), st.integers(1, 6), st.booleans())
@settings(
    max_examples=20,
    deadline=None,  # no test is timed
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example empties Redis itself
)
def test_walking_there_and_back_shows_everything_once_and_in_order(
    redis: Redis, conferences: list[tuple[int, bool]], size: int, only_ended: bool
) -> None:
    redis.flushall()
    site = Site(redis)
    for number, (second, ended) in enumerate(conferences):
        site.tell(said("conference-start", number=1, second=second, room=room(number)))
        if ended:
            site.tell(said("conference-end", number=2, second=second, room=room(number)))
    site.fold()
    order = sorted(((second, number) for number, (second, _) in enumerate(conferences)), reverse=True)
    expected = [room(number) for _, number in order if conferences[number][1] or not only_ended]
    path = f"{LIST}?PageSize={size}{'&Status=completed' if only_ended else ''}"
    assert walked(site, path) == walked_back(site, path) == expected
    pages = list(follow(site, path, "next_page_url"))
    assert len(pages) == max(1, -(-len(expected) // size)), "the last page is not empty, even if exactly full"
    assert [page["meta"]["page"] for page in pages] == list(range(len(pages)))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_participants_are_paged_too(site: Site, size: int) -> None:
    people = [f"CA{number:032x}" for number in range(8)]
    site.tell(
        *(
            said("participant-join", call, number=n, second=n // 3, ParticipantLabel="guest")
            for n, call in enumerate(people, 1)
        )
    )
    site.fold()
    when = {call: n // 3 for n, call in enumerate(people, 1)}
    expected = sorted(people, key=lambda call: (when[call], call), reverse=True)
    path = f"{PEOPLE}?Label=guest&Events=join&PageSize={size}"
    assert walked(site, path) == walked_back(site, path) == expected
    for page in follow(site, path, "next_page_url"):
        assert all(each["events"] for each in page["participants"]), "the links go on asking for events"


@pytest.mark.parametrize("kept", [[], [0], [299], [150], [1, 2, 150, 151, 297]], ids=str)
def test_filters_that_pass_over_many_lose_nothing_there_nor_back(site: Site, kept: list[int]) -> None:
    assert 3 * PASSED_OVER < 300, "one page must not be able to look at all"
    rooms.write(
        site.inbox,
        site.snapshots,
        *(rooms.room(n, at(n // 3), status="completed" if n in kept else "in-progress") for n in range(300)),
    )
    path = f"{LIST}?Status=completed&PageSize=2"
    expected = [room(number) for number in reversed(kept)]
    assert walked(site, path) == expected
    assert walked_back(site, path) == expected


def test_a_page_tells_of_itself_in_meta_with_whole_addresses(several: Site) -> None:
    first, second, third = follow(several, f"{LIST}?PageSize=3&Nonsense=1", "next_page_url")
    assert first["meta"] == {
        "first_page_url": f"{HERE}{LIST}?PageSize=3&Page=0",
        "key": "conferences",
        "next_page_url": second["meta"]["url"],
        "page": 0,
        "page_size": 3,
        "previous_page_url": None,
        "url": f"{HERE}{LIST}?PageSize=3&Page=0",
    }
    assert third["meta"]["next_page_url"] is None
    assert (third["meta"]["page"], third["meta"]["page_size"]) == (2, 3)
    assert things(asked(several, third["meta"]["previous_page_url"].removeprefix(HERE))) == things(second)


def test_without_an_address_of_ours_links_lead_to_where_the_request_came_in(several: Site) -> None:
    site = Site(several.redis, public_url=None)
    page = asked(site, f"{LIST}?PageSize=1", base_url="https://other.example.com:8443")
    for url in (page["meta"]["next_page_url"], page["conferences"][0]["url"]):
        assert url.startswith("https://other.example.com:8443/v1/Conferences")


@pytest.mark.parametrize(("given_size", "size"), [("0", 1), ("1000", 1000), ("5000", 1000), ("9" * 19, 1000)])
def test_the_size_of_a_page_is_clamped_and_never_refused(met: Site, given_size: str, size: int) -> None:
    for path in (LIST, PEOPLE):
        assert asked(met, f"{path}?PageSize={given_size}")["meta"]["page_size"] == size
        assert asked(met, path)["meta"]["page_size"] == 50


def test_links_keep_the_filters(several: Site) -> None:
    wanted = {"FriendlyName": "Planning | Büro", "Status": "in_progress", "CreatedAfter": "2026-11-22T12:00:00+00:00"}
    several.tell(
        *(
            said("conference-start", number=1, second=n, room=room(50 + n), FriendlyName=wanted["FriendlyName"])
            for n in range(1, 6)
        )
    )
    several.fold()
    path = f"{LIST}?PageSize=2&{urlencode(wanted)}"
    expected = [room(number) for number in (3, 55, 54, 53, 52, 51)]
    assert walked(several, path) == walked_back(several, path) == expected
    for page in follow(several, path, "next_page_url"):
        for name in ("url", "first_page_url", "next_page_url", "previous_page_url"):
            if page["meta"][name]:
                words = dict(parse_qsl(urlsplit(page["meta"][name]).query))
                assert {key: words[key] for key in wanted} == wanted


@pytest.mark.parametrize("path", [LIST, PEOPLE])
@pytest.mark.parametrize("token", ["x", ROOM, f"PA{ROOM}", f"PC{ROOM}006a000000"])
def test_a_page_token_that_is_none_is_refused(met: Site, path: str, token: str) -> None:
    assert "PageToken" in refused(met, f"{path}?PageToken={token}", 400, 21481)


# Who may see what; failures


@pytest.mark.parametrize("who", [None, (ACCOUNT, "wrong"), ("nobody", "x")])
@pytest.mark.parametrize("path", PATHS)
def test_nobody_in_particular_sees_nothing(met: Site, path: str, who: tuple[str, str] | None) -> None:
    answer = met.ask(path, who)
    assert answer.status_code == 401
    check("GET", path, 401, answer.data, answer.content_type)
    assert (answer.get_json()["code"], answer.get_json()["status"]) == (20003, 401)
    assert answer.headers["WWW-Authenticate"].lower().startswith("basic realm=")


@pytest.mark.parametrize("who", SEEN, ids=lambda who: who[0][:8])
def test_what_may_not_be_seen_looks_as_if_it_were_not_there(several: Site, who: tuple[str, str]) -> None:
    for sid, account, *_ in KNOWN:
        for below in ("", "/Participants", f"/Participants/{ANNA}", "/Participants/anna", "/Participants?PageSize=x"):
            if account in SEEN[who]:
                continue
            hidden = refused(several, f"{LIST}/{sid}{below}", 404, 20404, who=who)
            absent = refused(several, f"{LIST}/{room(99)}{below}", 404, 20404, who=who)
            assert hidden.replace(sid, "") == absent.replace(room(99), "")
        if account in SEEN[who]:
            asked(several, f"{LIST}/{sid}", who=who)
        else:
            assert listed(several, f"?ConferenceSid={sid}", who=who) == []


@pytest.mark.parametrize("path", [f"{LIST}/{ANNA}", f"{LIST}/Stand-up", f"{LIST}/{ROOM}0", f"{PEOPLE}/nobody"])
def test_what_is_not_there_is_not_found(met: Site, path: str) -> None:
    refused(met, path, 404, 20404)


@pytest.mark.parametrize("path", PATHS)
def test_summaries_are_json_whatever_is_accepted(met: Site, path: str) -> None:
    assert asked(met, path, headers={"Accept": "application/xml"}) == asked(met, path)


@pytest.mark.parametrize("path", PATHS)
def test_head_says_what_get_would_and_sends_nothing(met: Site, path: str) -> None:
    head, got = met.http.head(path, auth=OPERATOR), met.ask(path)
    assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", str(len(got.data)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_not_allowed(met: Site, method: str, path: str) -> None:
    answer = met.http.open(path, method=method, auth=OWNER)
    assert answer.status_code == 405
    check(method, path, 405, answer.data, answer.content_type)
    assert answer.get_json()["code"] == 20004


@pytest.mark.parametrize("path", PATHS)
def test_away_from_redis_every_read_says_so(nowhere: Redis, path: str) -> None:
    with capture_logs() as lines:
        assert "Redis" in refused(Site(nowhere), path, 503, 20500)
    assert [line["event"] for line in lines] == ["redis failed"]


@given(
    st.sampled_from([LIST, PEOPLE, f"{PEOPLE}/ben", ONE]),
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *("ConferenceSid", "FriendlyName", "Status", "CreatedAfter", "CreatedBefore", "Subaccount"),
                    *("EndReason", "ParticipantSid", "Label", "Events", "PageSize", "Page", "PageToken", "Tags", ""),
                ]
            ),
            st.one_of(
                st.text(max_size=12),
                st.datetimes().map(format_datetime),
                st.timedeltas(timedelta(days=-700_000), timedelta(days=2_000_000)).map(lambda gap: f"{NOON + gap}"),
                st.sampled_from(["completed", ROOM, ANNA, ACCOUNT, "ben", "1", "9" * 30, f"PB{ROOM}006b02d940"]),
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
def test_no_question_is_answered_with_an_error_of_ours(met: Site, path: str, wanted: list[tuple[str, str]]) -> None:
    answer = met.ask(f"{path}?{urlencode(wanted, errors='replace')}")
    assert answer.status_code in (200, 400, 404)
    check("GET", path, answer.status_code, answer.data, answer.content_type)


def test_links_lead_to_the_host_that_was_asked_and_keep_its_tls_where_that_is_ours(met: Site) -> None:
    answer = met.ask(ONE, base_url=OURS.replace("https", "http"))
    assert answer.get_json()["url"] == f"{OURS}{ONE}"
    assert met.told(ONE)["url"] == f"{HERE}{ONE}"


def test_a_password_in_our_own_address_is_shown_to_nobody(redis: Redis) -> None:
    site = Site(redis, public_url="https://twilio:hunter2secret@hooks.example.com")
    site.tell(*meeting())
    site.fold()
    answer = site.ask(LIST, base_url="http://hooks.example.com")
    assert "https://hooks.example.com/v1" in answer.get_data(as_text=True)
    assert "hunter2secret" not in answer.get_data(as_text=True)


def test_no_summary_ever_times_out(met: Site) -> None:
    assert listed(met, "?Status=summary_timeout") == []
