"""The Python client against a server that plays what each test has prepared, over real sockets."""

from __future__ import annotations

import logging
import socket
from collections import defaultdict
from collections.abc import Iterator
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import offhook
from offhook import Change, Live, Refused, follow
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, ROOM
from tests.clients.history import CALLS, TIMES, History, beat, change, histories, person, reset, room, snapshot
from tests.clients.server import Answer, Server, Stream, serving

KEY = ("wallboard", "a-secret-that-may-only-read")
OTHER = "CF" + "c" * 32


@pytest.fixture(autouse=True, scope="module")
def _short_waits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offhook, "FIRST_WAIT", 0.001)
        patch.setattr(offhook, "LONGEST_WAIT", 0.01)
        yield


def followed(server: Server, **options: str | float) -> tuple[list[Change], Live]:
    """Everything that a client is told until the server has played all it has."""
    changes: list[Change] = []
    with follow(server.url, KEY, **options) as live, pytest.raises(Refused, match="That was all"):
        changes.extend(live)
    return changes, live


def revisions(changes: list[Change]) -> list[int]:
    return [each.conference["revision"] for each in changes]


def test_a_snapshot_is_told_document_by_document_and_changes_are_merged_into_it():
    anna, ben = person(ANNA), person(BEN)
    shown = room(ROOM, 4, anna, ben)
    muted = person(BEN, muted=True)
    told = change(room(ROOM, 5, anna, muted, friendly_name="Retro"), muted)
    with serving(Stream([snapshot(shown, room(OTHER, 1)), beat(), told])) as server:
        changes, live = followed(server)
    assert [(each.conference["sid"], each.events, each.message) for each in changes[:2]] == [
        (ROOM, [], None),
        (OTHER, [], None),
    ]
    assert changes[2].conference == room(ROOM, 5, anna, muted, friendly_name="Retro")
    assert changes[2].events == told.data["events"]
    assert changes[2].message == told.data
    assert live.conferences == {ROOM: changes[2].conference, OTHER: room(OTHER, 1)}
    assert changes[0].conference == shown  # what was handed out is never changed
    assert server.read == []


def test_participants_stand_in_the_order_of_the_document():
    late, early, unknown, half = person(ANNA, TIMES[2]), person(CLEO), person(CALLS[3], None), person(BEN, TIMES[1])
    frames = [change(room(ROOM, number, each), each) for number, each in enumerate([unknown, late, half, early], 1)]
    with serving(Stream(frames)) as server:
        changes, _ = followed(server)
    assert changes[-1].conference["participants"] == [early, half, late, unknown]


def test_a_lost_connection_is_taken_up_behind_the_last_frame():
    first = Stream([snapshot(room(ROOM, 1)), change(room(ROOM, 2), id="two")])
    with serving(first, Stream([change(room(ROOM, 3), id="three"), beat(id="beat")]), Stream()) as server:
        changes, _ = followed(server)
    assert revisions(changes) == [1, 2, 3]
    assert [each.last_id for each in server.streams] == [None, "two", "beat", "beat"]


@pytest.mark.parametrize("kept", [5, -3, -1])
def test_half_a_frame_is_not_applied_and_its_id_not_taken(kept):
    lost = change(room(ROOM, 2), id="two")
    cut = Stream([snapshot(room(ROOM, 1), id="one")], half=lost.bytes()[:kept])
    with serving(cut, Stream([lost])) as server:
        changes, _ = followed(server)
    assert revisions(changes) == [1, 2]
    assert server.streams[1].last_id == "one"


def test_comments_and_unknown_events_are_nothing():
    told = change(room(ROOM, 2)).bytes()
    noise = b": a comment\n\nid: new\nevent: news\ndata: {}\n\n" + told.replace(b"\ndata", b"\n: another\ndata")
    with serving(Stream([snapshot(room(ROOM, 1))], half=noise)) as server:
        changes, _ = followed(server)
    assert revisions(changes) == [1, 2]


def test_what_is_held_already_is_ignored():
    frames = [snapshot(room(ROOM, 7)), change(room(ROOM, 6)), change(room(ROOM, 7)), change(room(ROOM, 8))]
    with serving(Stream([*frames, *frames[1:]])) as server:
        changes, _ = followed(server)
    assert revisions(changes) == [7, 8]
    assert server.read == []


def test_a_gap_reads_the_document_and_what_that_has_told_is_ignored():
    whole = room(ROOM, 9, person(ANNA), person(BEN))
    told = [change(room(ROOM, number), person(ANNA)) for number in (8, 9)]
    following = change(room(ROOM, 10), person(ANNA, muted=True))
    stream = Stream([snapshot(room(ROOM, 5)), *told, following])
    with serving(stream, documents={ROOM: whole}) as server:
        changes, _ = followed(server)
    assert revisions(changes) == [5, 9, 10]
    assert changes[1].conference == whole
    assert changes[1].events == told[0].data["events"]
    assert changes[2].conference["participants"] == [person(ANNA, muted=True), person(BEN)]
    assert server.read == [ROOM]


def test_a_document_that_is_no_newer_than_what_is_held_is_not_taken():
    with serving(Stream([snapshot(room(ROOM, 5)), change(room(ROOM, 8))]), documents={ROOM: room(ROOM, 5)}) as server:
        changes, _ = followed(server)
    assert revisions(changes) == [5]


def test_a_conference_that_was_not_known_is_read_unless_it_begins():
    stream = Stream([snapshot(), change(room(ROOM, 1), person(ANNA)), change(room(OTHER, 4))])
    with serving(stream, documents={OTHER: room(OTHER, 4, person(BEN))}) as server:
        changes, live = followed(server)
    assert [each.conference for each in changes] == [
        room(ROOM, 1, person(ANNA), counts={"participants": 0}),
        live.conferences[OTHER],
    ]
    assert server.read == [OTHER]


def test_a_change_whose_document_cannot_be_read_is_asked_for_again():
    missed = change(room(ROOM, 8), id="eight")
    documents = {ROOM: [Answer(503, {"status": 503, "message": "Redis does not answer."}), room(ROOM, 8)]}
    stream = Stream([snapshot(room(ROOM, 5), id="five"), missed], silent=True)
    with serving(stream, Stream([missed]), documents=documents) as server:
        changes, _ = followed(server)
    assert revisions(changes) == [5, 8]
    assert [each.last_id for each in server.streams] == [None, "five", "eight"]


def test_another_epoch_drops_what_is_held():
    frames = [change(room(ROOM, 1)), change(room(ROOM, 2)), change(room(ROOM, 2, friendly_name="Anew"), epoch="second")]
    anew = room(ROOM, 2, person(ANNA), friendly_name="Anew")
    with serving(Stream(frames), documents={ROOM: anew}) as server:
        changes, live = followed(server)
    assert revisions(changes) == [1, 2, 2]
    assert live.conferences == {ROOM: anew}


def test_after_a_reset_the_snapshot_replaces_what_was_held_and_only_what_differs_is_told():
    same, other = room(ROOM, 5), room(OTHER, 9)
    frames = [snapshot(same, other, id="one"), reset()]
    with serving(Stream(frames), Stream([snapshot(same, room(OTHER, 2))])) as server:
        changes, live = followed(server)
    assert [(each.conference["sid"], each.conference["revision"]) for each in changes] == [
        (ROOM, 5),
        (OTHER, 9),
        (OTHER, 2),
    ]
    assert live.conferences == {ROOM: same, OTHER: room(OTHER, 2)}
    assert server.streams[1].last_id is None  # the reset's id was empty


def test_after_a_reset_those_that_had_ended_are_forgotten_too():
    frames = [change(room(ROOM, 1, status="completed")), reset("gone"), snapshot(), change(room(ROOM, 1), epoch="2")]
    with serving(Stream(frames)) as server:
        changes, live = followed(server)
    assert revisions(changes) == [1, 1]
    assert live.conferences == {ROOM: room(ROOM, 1)}


def test_what_a_snapshot_no_longer_shows_is_read_to_tell_its_end():
    ended = room(ROOM, 8, status="completed")
    frames = [snapshot(room(ROOM, 5), room(OTHER, 3)), reset(), snapshot(), change(room(ROOM, 9, status="completed"))]
    with serving(Stream(frames), documents={ROOM: ended}) as server:
        changes, live = followed(server)
    assert [(each.conference["sid"], each.conference["revision"], each.gone) for each in changes[2:]] == [
        (ROOM, 8, False),
        (OTHER, 3, True),  # nobody knows it any more
        (ROOM, 9, False),
    ]
    assert live.conferences == {}


def test_one_that_a_stale_snapshot_does_not_show_yet_comes_back_with_its_changes():
    frames = [change(room(ROOM, 1)), reset("slow"), snapshot(), change(room(ROOM, 1))]
    with serving(Stream(frames), documents={ROOM: room(ROOM, 1)}) as server:
        changes, live = followed(server)
    assert revisions(changes) == [1, 1]
    assert live.conferences == {ROOM: room(ROOM, 1)}


def test_one_beyond_the_bound_of_a_snapshot_comes_back_with_its_next_change():
    frames = [snapshot(room(ROOM, 5)), reset("slow"), snapshot(), change(room(ROOM, 6))]
    with serving(Stream(frames), documents={ROOM: [room(ROOM, 5), room(ROOM, 6)]}) as server:
        changes, live = followed(server)
    assert revisions(changes) == [5, 6]
    assert live.conferences[ROOM]["revision"] == 6


def test_a_conference_that_has_ended_is_dropped_and_late_changes_of_it_need_no_reading():
    frames = [
        snapshot(room(ROOM, 1, person(ANNA))),
        change(room(ROOM, 2, status="completed")),
        change(room(ROOM, 3, status="completed"), person(BEN)),
    ]
    with serving(Stream(frames)) as server, follow(server.url, KEY) as live:
        told = [(next(live).conference, list(live.conferences)) for _ in frames]
    held = [(each["revision"], len(each["participants"]), sids) for each, sids in told]
    assert held == [(1, 1, [ROOM]), (2, 1, []), (3, 2, [])]
    assert server.read == []


def test_of_those_that_have_ended_only_the_latest_are_remembered(monkeypatch):
    monkeypatch.setattr(offhook, "SET_ASIDE", 1)
    ended = {sid: room(sid, 1, status="completed") for sid in (ROOM, OTHER)}
    late = [change(room(sid, 2, status="completed")) for sid in (OTHER, ROOM)]
    stream = Stream([*map(change, ended.values()), *late])
    with serving(stream, documents={ROOM: room(ROOM, 2, status="completed")}) as server:
        changes, _ = followed(server)
    assert revisions(changes) == [1, 1, 2, 2]
    assert server.read == [ROOM]


def test_the_conference_that_was_asked_for_stays_when_it_has_ended():
    frames = [snapshot(room(ROOM, 1)), change(room(ROOM, 2, status="completed"))]
    with serving(Stream(frames)) as server:
        _, live = followed(server, conference=ROOM, account=ACCOUNT)
    assert live.conferences[ROOM]["status"] == "completed"
    assert server.streams[0].path == f"/api/stream?conference={ROOM}&account={ACCOUNT}"


def test_a_connection_on_which_nothing_comes_is_dead():
    silent = Stream([snapshot(room(ROOM, 1), id="one")], silent=True)
    with serving(silent, Stream([change(room(ROOM, 2))])) as server:
        changes, _ = followed(server, silence=0.2)
    assert revisions(changes) == [1, 2]
    assert server.streams[1].last_id == "one"


def test_it_says_how_it_stands():
    frames = [snapshot(room(ROOM, 1)), beat(0.4), change(room(ROOM, 2)), beat(None), change(room(ROOM, 3)), beat(1)]
    again = [change(room(ROOM, 4)), beat(), change(room(ROOM, 5))]
    with serving(Stream(frames), Stream(again)) as server, follow(server.url, KEY) as live:
        assert live.state == "connecting"
        states = [(live.state, live.behind) for _, _ in zip(range(5), live, strict=False)]
    assert states == [("connecting", None), ("live", 0.4), ("live", None), ("lost", None), ("live", 0.0)]


def test_a_server_that_cannot_serve_is_waited_for_as_long_as_it_says():
    away = Answer(503, {"status": 503, "message": "Redis does not answer."}, {"Retry-After": "7"})
    proxy = Answer(502, b"<h1>Bad gateway</h1>", {"Retry-After": "tomorrow"})
    busy = Answer(429, b"", {"Retry-After": "99999"})
    with serving(away, proxy, busy, Stream([snapshot(room(ROOM, 1))])) as server, follow(server.url, KEY) as live:
        waits: list[float] = []
        live._closed.wait = waits.append  # type: ignore[assignment,method-assign]
        assert next(live).conference == room(ROOM, 1)
    assert waits[0] == 7
    assert waits[1] < 1
    assert waits[2] == offhook.LONGEST_RETRY_AFTER


def test_waits_begin_anew_when_something_has_come():
    away = Answer(503, {"status": 503, "message": "Redis does not answer."})
    again = Stream([change(room(ROOM, 2))])
    with serving(away, away, away, Stream([snapshot(room(ROOM, 1))]), again) as server, follow(server.url, KEY) as live:
        waits: list[float] = []
        live._closed.wait = waits.append  # type: ignore[assignment,method-assign]
        assert revisions([next(live), next(live)]) == [1, 2]
    assert waits[3] == 0.001  # as the server has said
    assert waits[2] > 0.001


def test_waits_grow_to_half_a_minute(monkeypatch):
    monkeypatch.setattr(offhook, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(offhook, "LONGEST_WAIT", 30.0)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    waits: list[float] = []
    with follow(f"http://127.0.0.1:{port}", KEY) as live:

        def wait(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 8:
                live.close()

        live._closed.wait = wait  # type: ignore[assignment,method-assign]
        assert list(live) == []
    assert live.state == "lost"
    for seconds, most in zip(waits, [1, 2, 4, 8, 16, 30, 30, 30], strict=True):
        assert max(1, most / 2) <= seconds <= most


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_an_error_with_the_servers_words(status):
    with serving(Answer(status, {"status": status, "message": "Because."})) as server, follow(server.url, KEY) as live:
        with pytest.raises(Refused, match=f"Offhook answered {status}: Because.") as refused:
            next(live)
        assert (refused.value.status, refused.value.message) == (status, "Because.")
        assert list(live) == []
    assert len(server.asked) == 1


def test_a_refusal_while_a_document_is_read_is_an_error_too():
    documents = {ROOM: Answer(401, {"status": 401, "message": "The name or the secret is wrong."})}
    with serving(Stream([change(room(ROOM, 5))]), documents=documents) as server:
        live = follow(server.url, KEY)
        with pytest.raises(Refused, match="the secret is wrong"):
            next(live)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(200, b"<h1>Welcome</h1>", {"Content-Type": "text/html"}), "Is there an Offhook at this URL"),
        (Answer(301, b"", {"Location": "https://elsewhere.example.com/"}), "give the URL that it redirects to"),
        (Answer(404, b"<h1>Not found</h1>"), "Not Found"),
        (Answer(404, b"[]"), "Not Found"),
    ],
)
def test_what_is_no_offhook_is_an_error(answer, words):
    with serving(answer) as server, follow(server.url, KEY) as live, pytest.raises(Refused, match=words):
        next(live)


@pytest.mark.parametrize(
    "url",
    [
        "offhook.example.com",
        "ftp://offhook.example.com",
        "https://name:secret@offhook.example.com",
        "https:///x",
        "https://offhook.example.com/?x=1",
        "http://offhook.example.com:port",
    ],
)
def test_a_url_that_cannot_be_used_is_an_error_without_a_secret_in_it(url):
    with pytest.raises(ValueError, match=r".") as error:
        follow(url, KEY)
    assert "secret@" not in str(error.value)


def test_a_name_with_a_colon_is_an_error():
    with pytest.raises(ValueError, match="colon"):
        follow("https://offhook.example.com", ("name:secret", ""))


def test_secrets_and_people_are_in_no_address_log_or_repr(caplog):
    caplog.set_level(logging.DEBUG)
    anna = person(ANNA, label="Anna Secretname")
    with serving(Stream([snapshot(room(ROOM, 1, anna))]), Answer(503), Stream([change(room(ROOM, 2), anna)])) as server:
        changes, live = followed(server)
    shown = [repr(live), *map(repr, changes), caplog.text, *(each.path for each in server.asked)]
    assert len(caplog.records) == 3
    assert server.asked[0].authorization == "Basic d2FsbGJvYXJkOmEtc2VjcmV0LXRoYXQtbWF5LW9ubHktcmVhZA=="
    for words in (*KEY, "Secretname", server.asked[0].authorization.split()[1], "Stand-up"):
        assert not [each for each in shown if words in each], words


def test_below_a_path_it_asks_there():
    with serving(Answer(404)) as server, follow(f"{server.url}/offhook/", KEY) as live, pytest.raises(Refused):
        next(live)
    assert server.asked[0].path == "/offhook/api/stream"


def test_another_thread_may_end_it():
    with serving(Stream([snapshot(room(ROOM, 1))], silent=True)) as server, follow(server.url, KEY) as live:
        told = [next(live)]
        thread = Thread(target=lambda: told.extend(live))
        thread.start()
        live.close()
        thread.join(10)
        assert not thread.is_alive()
    assert revisions(told) == [1]


def test_leaving_the_loop_and_coming_back_misses_nothing():
    frames = [snapshot(room(ROOM, 1), room(OTHER, 1)), change(room(ROOM, 2))]
    with serving(Stream(frames)) as server, follow(server.url, KEY) as live:
        told = [next(iter(live)) for _ in range(3)]
    assert [(each.conference["sid"], each.conference["revision"]) for each in told] == [
        (ROOM, 1),
        (OTHER, 1),
        (ROOM, 2),
    ]
    assert len(server.streams) == 1


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[History, int, list[Stream]]:
    """A history, how many of its changes its snapshot shows, and connections that tell all others, some repeatedly."""
    history = draw(histories())
    whole = len(history.changes)
    nothing_ended = [at for at in range(whole + 1) if len(history.live(at)) == len(history.states[at])]
    began = draw(st.sampled_from(nothing_ended))
    ends = [*sorted(draw(st.lists(st.integers(began, whole), max_size=4))), whole]
    streams = []
    for reached, end in zip([began, *ends], ends, strict=False):
        again, twice, cut = draw(st.integers(began, reached)), draw(st.booleans()), draw(st.integers(0, 60))
        frames = history.changes[again:end] * (2 if twice else 1)
        streams.append(Stream(frames, half=history.changes[end].bytes()[:cut] if end < whole else b""))
    streams[0].frames.insert(0, history.snapshot(began))
    return history, began, streams


@given(deliveries())
@settings(deadline=None)
def test_however_it_is_cut_and_repeated_every_revision_is_told_once_and_in_order(delivery):
    history, began, streams = delivery
    with serving(*streams) as server:
        changes, live = followed(server)
    assert live.conferences == {each["sid"]: each for each in history.live(-1)}
    told = defaultdict(list)
    for each in changes:
        told[each.conference["sid"]].append(each.conference)
    for sid, final in history.states[-1].items():
        first = history.states[began][sid]["revision"] if sid in history.states[began] else 1
        assert [each["revision"] for each in told[sid]] == list(range(first, final["revision"] + 1))
        assert told[sid][-1] == final
    assert server.read == []
    assert len(server.streams) == len(streams) + 1
