"""The browser's client, run by Node with an EventSource, a network and a clock that the tests move."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import offhook
from offhook import Refused, follow
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, ROOM
from tests.clients.history import CALLS, TIMES, beat, change, histories, person, reset, room, snapshot
from tests.clients.server import Frame, Stream, serving

NODE = shutil.which("node")
PLAY = Path(__file__).with_name("play.mjs")
OTHER = "CF" + "c" * 32
RECONNECTING, CLOSED = 0, 2
"""EventSource's states after an error: it tries again itself, or leaves that to us."""

pytestmark = pytest.mark.skipif(NODE is None, reason="no node is here to run the browser's client: install Node 20")

Step = tuple[Any, ...]
Played = dict[str, Any]
Play = Callable[..., Played]


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    """Plays steps to a client, and says what came of it."""
    with subprocess.Popen([str(NODE), str(PLAY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdin
        assert node.stdout

        def played(*steps: Step | Frame, **options: str) -> Played:
            script = [("frame", *step) if isinstance(step, Frame) else step for step in steps]
            node.stdin.write(json.dumps({"options": {"url": "/api/stream", **options}, "steps": script}) + "\n")
            node.stdin.flush()
            answer: Played = json.loads(node.stdout.readline())
            return answer

        yield played
        node.stdin.close()
        assert node.wait(10) == 0


def changes(played: Played) -> list[dict[str, Any]]:
    return [each[1] for each in played["told"] if each[0] == "change"]


def states(played: Played) -> list[str]:
    return [each[1] for each in played["told"] if each[0] == "state"]


def revisions(played: Played) -> list[int]:
    return [each["conference"]["revision"] for each in changes(played)]


def test_a_snapshot_is_held_and_changes_are_merged_into_it(play):
    anna, ben, muted = person(ANNA), person(BEN), person(BEN, muted=True)
    told = change(room(ROOM, 5, anna, muted, friendly_name="Retro"), muted)
    played = play(snapshot(room(ROOM, 4, anna, ben), room(OTHER, 1)), beat(), told)
    merged = room(ROOM, 5, anna, muted, friendly_name="Retro")
    assert played["told"] == [
        ["snapshot", [ROOM, OTHER]],
        ["state", "live"],
        [
            "change",
            {"conference": merged, "events": told.data["events"], "message": told.data, "gone": False},
            [ROOM, OTHER],
        ],
    ]
    assert played["conferences"] == {ROOM: merged, OTHER: room(OTHER, 1)}
    assert played["opened"] == ["/api/stream"]
    assert played["fetched"] == []


def test_participants_stand_in_the_order_of_the_document(play):
    late, early, unknown, half = person(ANNA, TIMES[2]), person(CLEO), person(CALLS[3], None), person(BEN, TIMES[1])
    people = enumerate([unknown, late, half, early], start=1)
    played = play(*(change(room(ROOM, number, each), each) for number, each in people))
    assert played["conferences"][ROOM]["participants"] == [early, half, late, unknown]


def test_what_is_held_already_is_ignored(play):
    frames = [snapshot(room(ROOM, 7)), change(room(ROOM, 6)), change(room(ROOM, 7)), change(room(ROOM, 8))]
    assert revisions(play(*frames, *frames[1:])) == [8]


def test_a_gap_reads_the_document_and_changes_wait_for_it(play):
    whole = room(ROOM, 9, person(ANNA), person(BEN))
    late = [change(room(ROOM, number), person(ANNA, muted=True)) for number in (8, 9, 10)]
    played = play(("documents", {ROOM: whole}), snapshot(room(ROOM, 5)), ("hold",), *late, ("let_go",))
    assert revisions(played) == [9, 10]
    assert changes(played)[0]["conference"] == whole
    assert changes(played)[0]["events"] == late[0].data["events"]
    assert played["conferences"][ROOM]["participants"] == [person(ANNA, muted=True), person(BEN)]
    assert played["fetched"] == [f"/api/conferences/{ROOM}"]


@pytest.mark.parametrize("trouble", [503, "unreachable"])
def test_a_document_that_cannot_be_read_is_read_later(play, trouble):
    gap = [("documents", {ROOM: trouble}), change(room(ROOM, 5)), change(room(ROOM, 6)), ("pass", 1500)]
    played = play(*gap, ("documents", {ROOM: room(ROOM, 5)}), ("pass", 10_000))
    assert revisions(played) == [5, 6]
    assert len(played["fetched"]) == 3


def test_a_snapshot_makes_reading_needless(play):
    gap = [("hold",), change(room(ROOM, 5)), reset(), snapshot(room(ROOM, 7))]
    played = play(*gap, ("documents", {ROOM: room(ROOM, 9)}), ("let_go",), change(room(ROOM, 8)))
    assert revisions(played) == [8]


def test_what_was_being_read_at_the_end_comes_with_a_snapshot(play):
    gap = [snapshot(id="one"), ("hold",), change(room(ROOM, 5), id="five")]
    assert play(*gap, ("close",), ("let_go",), ("open",))["opened"] == ["/api/stream", "/api/stream"]
    answered = [*gap, ("documents", {ROOM: room(ROOM, 5)}), ("let_go",), ("close",), ("open",)]
    assert play(*answered)["opened"] == ["/api/stream", "/api/stream?last_event_id=five"]


def test_another_epoch_drops_what_is_held(play):
    frames = [change(room(ROOM, 1)), change(room(ROOM, 2)), change(room(ROOM, 2, friendly_name="Anew"), epoch="second")]
    anew = room(ROOM, 2, person(ANNA), friendly_name="Anew")
    played = play(("documents", {ROOM: anew}), *frames)
    assert revisions(played) == [1, 2, 2]
    assert played["conferences"] == {ROOM: anew}


def test_one_that_nobody_knows_any_more_is_told(play):
    played = play(snapshot(room(ROOM, 5)), change(room(ROOM, 9)), change(room(OTHER, 9)))
    assert changes(played) == [{"conference": room(ROOM, 5), "events": [], "message": None, "gone": True}]
    assert played["conferences"] == {}


def test_after_a_reset_the_snapshot_replaces_what_was_held(play):
    played = play(snapshot(room(ROOM, 5), room(OTHER, 9)), reset(), snapshot(room(OTHER, 2)))
    assert played["conferences"] == {OTHER: room(OTHER, 2)}
    assert played["told"] == [["snapshot", [ROOM, OTHER]], ["snapshot", [OTHER]]]


def test_one_that_a_stale_snapshot_does_not_show_yet_comes_back_with_its_changes(play):
    played = play(change(room(ROOM, 1)), reset("slow"), snapshot(), change(room(ROOM, 1)))
    assert played["conferences"] == {ROOM: room(ROOM, 1)}


def test_a_conference_that_has_ended_is_dropped_and_late_changes_of_it_need_no_reading(play):
    ended = [change(room(ROOM, number, status="completed")) for number in (2, 3)]
    played = play(snapshot(room(ROOM, 1)), *ended)
    assert [(each[1]["conference"]["revision"], each[2]) for each in played["told"][1:]] == [(2, []), (3, [])]
    assert played["fetched"] == []


def test_of_those_that_have_ended_the_latest_two_hundred_are_remembered(play):
    sids = [f"CF{number:032x}" for number in range(201)]
    ended = [change(room(sid, 1, status="completed")) for sid in sids]
    late = [change(room(sid, 2, status="completed")) for sid in (sids[1], sids[0])]
    assert play(*ended, *late)["fetched"] == [f"/api/conferences/{sids[0]}"]


def test_the_conference_that_was_asked_for_stays_when_it_has_ended(play):
    ended = [snapshot(room(ROOM, 1)), change(room(ROOM, 2, status="completed"))]
    played = play(*ended, conference=ROOM, account=ACCOUNT)
    assert played["conferences"][ROOM]["status"] == "completed"
    assert played["opened"] == [f"/api/stream?conference={ROOM}&account={ACCOUNT}"]


def test_it_says_how_it_stands_and_what_the_servers_clock_says(play):
    beats = [beat(0.4), beat(3.5), beat(2.0, at="2026-11-22T12:00:01.500Z"), beat(None, at="2026-11-22T11:59:59Z")]
    played = play(snapshot(), *beats)
    assert states(played) == ["live", "catching up", "live", "catching up"]
    assert (played["state"], played["behind"], played["offset"]) == ("catching up", None, -1000)


def test_a_lost_connection_is_left_to_the_browser_as_long_as_that_tries(play):
    lost = [snapshot(), beat(), ("error", RECONNECTING)]
    assert play(*lost)["state"] == "lost"
    assert play(*lost, ("pass", 40_000))["state"] == "lost"
    played = play(*lost, ("pass", 20_000), change(room(ROOM, 1)), beat())
    assert states(played) == ["live", "lost", "live"]
    assert len(played["opened"]) == 1


def test_after_an_http_error_it_connects_again_itself_with_the_last_id(play):
    closed = [snapshot(id="one"), change(room(ROOM, 1), id="two+words"), beat(id="two+words"), ("error", CLOSED)]
    assert len(play(*closed, ("pass", 499))["opened"]) == 1
    played = play(*closed, ("pass", 1000), change(room(ROOM, 2)), beat())
    assert played["opened"] == ["/api/stream", "/api/stream?last_event_id=two%2Bwords"]
    assert played["fetched"] == ["/api/conferences?limit=1"]
    assert states(played) == ["live", "lost", "live"]
    assert revisions(played) == [1, 2]


def test_waits_double_up_to_half_a_minute_and_begin_anew_when_something_has_come(play):
    failures: list[Step | Frame] = []
    for most in (1, 2, 4, 8, 16, 30, 30):
        failures += [("stats", "unreachable"), ("error", CLOSED), ("pass", most * 500 - 1), ("pass", most * 500 + 1)]
    for count in range(1, 8):
        assert len(play(*failures[: count * 4])["opened"]) == count + 1
        assert len(play(*failures[: count * 4 - 1])["opened"]) == count
    assert len(play(*failures, beat(), ("error", CLOSED), ("pass", 1000))["opened"]) == 9


@pytest.mark.parametrize("passing", ["pass", "sleep"])
def test_silence_makes_it_connect_again_also_after_a_sleep(play, passing):
    silent = [snapshot(id="one"), beat(id="one"), ("pass", 24_000)]
    assert play(*silent)["state"] == "live"
    assert len(play(*silent, beat(), ("pass", 24_000))["opened"]) == 1
    played = play(*silent, (passing, 2_000), ("pass", 5_000), ("old", *change(room(ROOM, 1))))
    assert played["state"] == "stale"
    assert played["opened"] == ["/api/stream", "/api/stream?last_event_id=one"]
    assert played["open"] == 1
    assert revisions(played) == []  # what the old connection still brings does not count


def test_whoever_is_signed_out_stays_so_until_it_is_opened_again(play):
    out = [snapshot(id="one"), beat(id="one"), ("stats", 401), ("error", CLOSED), ("pass", 600_000)]
    played = play(*out)
    assert played["state"] == "signed out"
    assert (len(played["opened"]), played["open"], played["timers"]) == (1, 0, 0)
    again = play(*out, ("stats", 200), ("open",), beat())
    assert states(again) == ["live", "lost", "signed out", "connecting", "live"]
    assert again["opened"][1] == "/api/stream?last_event_id=one"


def test_what_is_closed_is_silent(play):
    played = play(snapshot(), ("close",), ("pass", 600_000))
    assert (played["open"], played["timers"], len(played["opened"])) == (0, 0, 1)


def test_what_is_closed_while_it_asks_why_it_was_refused_stays_so(play):
    asking = [("hold",), ("stats", 401), ("error", CLOSED), ("close",), ("let_go",), ("pass", 600_000)]
    played = play(*asking)
    assert (played["state"], len(played["opened"]), played["timers"]) == ("lost", 1, 0)


def test_after_a_reset_those_that_had_ended_are_forgotten_too(play):
    ended = [change(room(ROOM, 1, status="completed")), reset("gone"), snapshot()]
    assert revisions(play(*ended, change(room(ROOM, 1), epoch="2"))) == [1, 1]


def test_the_address_of_the_stream_gives_those_of_documents(play):
    played = play(change(room(ROOM, 3)), url="https://offhook.example.com/below/api/stream")
    assert played["fetched"] == [f"https://offhook.example.com/below/api/conferences/{ROOM}"]


@st.composite
def scripts(draw: st.DrawFn) -> tuple[list[list[Frame]], dict[str, Any]]:
    """Connections that tell, repeat and leave out what they like, and the documents as they stand in the end."""
    history = draw(histories())
    whole = len(history.changes)
    telling = st.integers(0, whole - 1).map(lambda position: [history.changes[position]])
    showing = st.integers(0, whole).map(lambda position: [reset(), history.snapshot(position)])
    parts = st.lists(st.lists(telling | telling | showing, max_size=8), max_size=4)
    connections = [list(chain.from_iterable(each)) for each in draw(parts)]
    latest = {frame.data["conference_sid"]: frame for frame in history.changes}
    return [*connections, list(latest.values())], history.states[-1]


@given(script=scripts(), slow=st.booleans(), error=st.sampled_from([RECONNECTING, CLOSED]))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_frames_give_the_same_documents_as_in_python(play, script, slow, error):
    connections, documents = script
    with serving(*map(Stream, connections), documents=documents) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(offhook, "FIRST_WAIT", 0.001)
        live = follow(server.url, ("name", "secret"))
        with pytest.raises(Refused):
            list(live)
    steps: list[Step | Frame] = [("documents", documents)]
    for frames in connections:
        steps += [*[("hold",)] * slow, *frames, *[("let_go",)] * slow, ("error", error), ("pass", 8000)]
    played = play(*steps)
    assert played["conferences"] == live.conferences
