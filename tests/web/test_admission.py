"""Who cannot keep up turns callbacks away: speech first, the rest only where nobody takes speech, no burst at all."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import pytest

from app import admission
from app.admission import BURST, GRACE, KEPT_UP, LAST, TOO_LATE, Admission, waiting, whole_callback
from tests.cast import ANNA, said
from tests.web.conftest import OURS, PATH, Site, signature

SPEECH = b"...&StatusCallbackEvent=participant-speech-start&..."
LEAVE = b"...&StatusCallbackEvent=participant-leave&..."
Clock = list[float]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    now = [1000.0]
    for name in ("monotonic", "thread_time"):
        monkeypatch.setattr(admission.time, name, lambda: now[0])
    return now


@pytest.fixture
def process(clock: Clock) -> Callable[[], Admission]:
    """Makes one of several web processes."""
    shared = bytearray(8)
    return lambda: Admission(shared)


def turns(process: Admission, clock: Clock, length: float, seconds: float, *, callbacks: int = 500) -> None:
    """Let this go on for so long, each turn as long as that, and so many callbacks in it."""
    for _ in range(round(seconds / length)):
        process.begin_turn()
        process._callbacks = callbacks
        clock[0] += length
        process.end_turn()


def test_who_keeps_up_turns_nothing_away(process: Callable[[], Admission], clock: Clock) -> None:
    one = process()
    turns(one, clock, KEPT_UP * 0.9, 5)
    assert one.calm
    assert not one.refuses(SPEECH)


def test_a_burst_is_taken_whole(process: Callable[[], Admission], clock: Clock) -> None:
    one = process()
    turns(one, clock, 0.005, 1)
    turns(one, clock, 0.1, BURST * 0.9)
    assert not one.refuses(SPEECH)
    turns(one, clock, 0.005, BURST / admission.EARNED)
    turns(one, clock, 0.1, BURST * 0.9)
    assert not one.refuses(LEAVE)


def test_an_idle_process_is_not_behind(process: Callable[[], Admission], clock: Clock) -> None:
    one = process()
    for _ in range(10):
        turns(one, clock, 0.001, 0.001)
        clock[0] += 30  # nothing comes
        assert not one.refuses(SPEECH)
        one.begin_turn()
        assert not one.refuses(SPEECH)


def test_one_long_answer_is_not_being_behind(process: Callable[[], Admission], clock: Clock) -> None:
    one = process()
    turns(one, clock, 3.0, 3.0)
    assert not one.refuses(SPEECH)


@pytest.mark.parametrize(("events", "calm"), [(1, True), (100, False)])
def test_each_event_of_a_batch_counts_as_a_callback(
    process: Callable[[], Admission], clock: Clock, events: int, calm: bool
) -> None:
    one = process()
    for _ in range(4):
        one.begin_turn()
        assert not one.refuses(b"")
        one.brought(events - 1)
        clock[0] += 0.1
        one.end_turn()
    assert one.calm is calm


def test_readers_who_keep_it_busy_are_no_reason_to_turn_callbacks_away(
    process: Callable[[], Admission], clock: Clock
) -> None:
    one = process()
    turns(one, clock, 0.3, 10, callbacks=20)
    assert not one.refuses(SPEECH)
    assert not one.refuses(LEAVE)


def test_who_stays_behind_turns_speech_away_and_then_the_rest(process: Callable[[], Admission], clock: Clock) -> None:
    one = process()
    turns(one, clock, 0.1, BURST + 0.1)
    assert one.refuses(SPEECH)
    assert not one.refuses(LEAVE), "the others do not know of it yet"
    turns(one, clock, 0.1, GRACE + 0.1)
    assert one.refuses(SPEECH)
    assert one.refuses(LEAVE)


def test_who_is_behind_by_little_turns_only_speech_away(process: Callable[[], Admission], clock: Clock) -> None:
    one = process()
    turns(one, clock, (KEPT_UP + TOO_LATE) / 2, 3)
    assert one.refuses(SPEECH)
    assert not one.refuses(LEAVE)


def test_nobody_takes_speech_while_anybody_turns_more_away(process: Callable[[], Admission], clock: Clock) -> None:
    one, other = process(), process()
    turns(one, clock, 0.2, 2)
    turns(other, clock, 0.005, 0.1)
    assert not other.refuses(SPEECH)
    assert one.refuses(LEAVE)
    assert other.refuses(SPEECH)
    assert not other.refuses(LEAVE)


def test_once_it_keeps_up_again_everything_is_taken_but_no_burst(
    process: Callable[[], Admission], clock: Clock
) -> None:
    one = process()
    turns(one, clock, 0.2, 2)
    assert one.refuses(LEAVE)
    turns(one, clock, 0.005, 1)
    assert one.calm
    assert not one.refuses(SPEECH)
    turns(one, clock, 0.1, 0.1)
    assert one.refuses(SPEECH)
    turns(one, clock, 0.005, 26)
    turns(one, clock, 0.1, BURST * 0.9)
    assert not one.refuses(SPEECH), "that was long enough to have credit again"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_connections_that_wait_to_be_accepted_are_being_behind(process: Callable[[], Admission], clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=400) as listener:
        connections = [
            socket.create_connection(listener.getsockname()) for _ in range(int(TOO_LATE / admission.FOR_ONE) + 50)
        ]
        assert waiting(listener) == len(connections)
        one = process()
        one.listeners = [listener]
        turns(one, clock, 0.005, 2)
        assert one.refuses(LEAVE)
        for connection in connections:
            listener.accept()[0].close()
            connection.close()
        assert waiting(listener) == 0
        turns(one, clock, 0.005, 1)
        assert one.calm


def test_what_is_turned_away_is_told_so_counted_and_not_stored(site: Site, clock: Clock) -> None:
    webhook = site.app.extensions["offhook.webhook"]
    webhook.admission = Admission(bytearray(8))
    webhook.admission.credit = 0.0
    spoken = said("participant-speech-start", ANNA, number=3, second=2)
    answer = site.send(spoken, signature(OURS + PATH, spoken))
    assert answer.status_code == 503
    assert answer.get_json()["message"] == "Not stored: more callbacks come than can be taken in."
    site.tell(said("participant-join", ANNA, number=2, second=1))
    assert site.told("/api/stats")["callbacks"]["refused"] == {"too many at once": 1}
    assert [len(mail) for mail in site.stored().values()] == [1]


FORM = b"From=1&StatusCallbackEvent=participant-leave"
POST = b"POST /webhooks/twilio HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\n\r\n" + FORM
GET = b"GET /webhooks/twilio?From=1 HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_whole_callback_is_known_by_its_bytes_and_nothing_behind_it_is_counted() -> None:
    assert whole_callback(POST) == len(POST)
    assert whole_callback(GET + POST) == len(GET)
    assert whole_callback(POST + b"GET / HTTP/1.1") == len(POST)
    assert whole_callback(POST.replace(b"twilio", b"twilio?a=b")) == len(POST) + 4
    last = POST.replace(b"Host: x", b"Connection: close")
    assert whole_callback(last) == len(last)
    assert LAST.search(last)
    assert LAST.search(GET.replace(b"1.1", b"1.0"))
    assert not LAST.search(POST)


@pytest.mark.parametrize(
    "there",
    [
        b"",
        POST[:-1],
        POST[:40],
        POST.replace(b"/twilio", b"/twilios"),
        POST.replace(b"POST", b"PUT"),
        b"GET /healthz HTTP/1.1\r\n\r\n",
        POST.replace(b"Content-Length: 44", b"Transfer-Encoding: chunked"),
        POST.replace(b"Host: x", b"Transfer-Encoding : chunked"),
        POST.replace(b"Host: x", b"Content-Length: 43"),
        POST.replace(b"Host: x", b"content-length : 43"),
        POST.replace(b"Host: x", b"Host: x\r\n folded"),
        POST.replace(b"44", b"+44"),
        POST.replace(b"44", b"44, 44"),
        POST.replace(b"Host: x", b"Expect: 100-continue"),
        POST.replace(b"\r\n", b"\n"),
    ],
)
def test_what_could_be_read_in_another_way_is_left_to_the_server(there: bytes) -> None:
    assert whole_callback(there) == 0
