"""The timeline over HTTP: all of a conference's log, for whoever may see the conference."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from app.twilio import callbacks
from app.web import api
from tests.cast import ANNA, BEN, ROOM, said
from tests.web.conftest import CHILD, OPERATOR, OUTSIDER, OWNER, SUBACCOUNT, TOKENS, Site

PATH = f"/api/conferences/{ROOM}/timeline"


def meeting() -> list[dict[str, str]]:
    """Anna waits for Ben, Ben is muted, and it ends."""
    return [
        said("participant-join", ANNA, number=1, second=0),
        said("participant-join", BEN, number=2, second=5),
        said("conference-start", number=3, second=5),
        said("participant-mute", BEN, number=4, second=6, Muted="true"),
        said("participant-leave", BEN, number=5, second=12, Muted="true"),
        said("conference-end", number=6, second=20, ReasonConferenceEnded="last-participant-left"),
    ]


def noon(second: int) -> str:
    """So long after noon, as JSON has it."""
    return f"2026-11-22T12:00:{second:02}Z"


def span(state: str, begin: int, end: int, **more: Any) -> dict[str, Any]:
    """A span as JSON."""
    return {"state": state, "from": noon(begin), "until": noon(end), **more}


@pytest.fixture
def met(site: Site) -> Site:
    """An Offhook that has heard of the meeting, its end first."""
    told = meeting()
    site.tell(told[-1], *told[:-1])
    site.fold()
    return site


def test_the_timeline_tells_who_was_there_and_what_happened(met: Site) -> None:
    assert met.told(PATH) == {
        "revision": met.told(f"/api/conferences/{ROOM}")["revision"],
        "events": 6,
        "from": noon(0),
        "until": noon(20),
        "lanes": [
            {
                "call_sid": ANNA,
                "label": "anna",
                "spans": [span("here", 0, 20, inferred=True), span("waiting", 0, 5)],
            },
            {"call_sid": BEN, "label": "ben", "spans": [span("here", 5, 12), span("muted", 6, 12)]},
        ],
        "marks": [
            {"kind": "conference-start", "at": noon(5), "call_sid": None},
            {"kind": "conference-end", "at": noon(20), "call_sid": None, "text": "last-participant-left"},
        ],
    }
    assert met.ask(PATH).headers["Cache-Control"] == "no-store"


def test_events_are_as_many_as_the_log_has_so_that_a_page_knows_what_is_new(met: Site) -> None:
    before = met.told(PATH)
    met.tell(said("participant-leave", ANNA, number=7, second=20))
    met.fold()
    after = met.told(PATH)
    assert (before["events"], after["events"]) == (6, 7)
    assert after["revision"] == before["revision"] + 1
    assert after["events"] == met.told(f"/api/conferences/{ROOM}/events")["events"][-1]["number"]


@pytest.mark.parametrize("lot", [1, 4, 6])
def test_a_long_log_is_read_in_lots_and_gives_the_same(met: Site, monkeypatch: pytest.MonkeyPatch, lot: int) -> None:
    whole = met.told(PATH)
    monkeypatch.setattr(api, "AT_ONCE", lot)
    assert met.told(PATH) == whole


def test_what_this_release_cannot_read_is_passed_over(met: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def unusable(*_: object) -> None:
        raise callbacks.Unusable("of another release")

    read = callbacks.read

    monkeypatch.setattr(callbacks, "read", lambda one: unusable() if b"participant-mute" in one.body else read(one))
    drawn = met.told(PATH)
    assert drawn["events"] == 6
    assert [span["state"] for span in drawn["lanes"][1]["spans"]] == ["here"]
    monkeypatch.setattr(callbacks, "read", unusable)
    nothing = met.told(PATH)
    assert (nothing["events"], nothing["from"], nothing["lanes"], nothing["marks"]) == (6, None, [], [])


def test_only_who_may_see_the_conference_sees_its_timeline(site: Site) -> None:
    site.tell(said("participant-join", ANNA, number=1, second=0, AccountSid=CHILD), token=TOKENS[CHILD])
    site.fold()
    for who in (OPERATOR, OWNER, SUBACCOUNT):
        assert [lane["call_sid"] for lane in site.told(PATH, who)["lanes"]] == [ANNA]
    answer = site.ask(PATH, OUTSIDER)
    assert answer.status_code == 404
    assert ROOM in answer.get_json()["message"]
    assert site.ask(PATH, None).status_code == 401


@pytest.mark.parametrize("query", ["?after=1", "?limit=5", "?x="])
def test_a_parameter_it_does_not_have_is_refused(met: Site, query: str) -> None:
    answer = met.ask(PATH + query)
    assert answer.status_code == 400
    assert "no such parameter" in answer.get_json()["message"]


@pytest.mark.parametrize("sid", ["CF", ANNA, ROOM + "0", "CF*"])
def test_what_is_no_sid_has_no_timeline(site: Site, sid: str) -> None:
    answer = site.ask(f"/api/conferences/{sid}/timeline")
    assert answer.status_code == 400
    assert "CF and 32 hexadecimal digits" in answer.get_json()["message"]


def test_a_conference_nobody_has_told_of_has_no_timeline(site: Site) -> None:
    assert site.ask(PATH).status_code == 404


def test_away_from_redis_it_says_so(nowhere: Redis) -> None:
    with capture_logs():
        answer = Site(nowhere).ask(PATH)
    assert answer.status_code == 503
    assert "Redis" in answer.get_json()["message"]
