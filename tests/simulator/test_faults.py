"""Callbacks fare as badly as was asked for, and by one seed always in the same way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import groupby
from random import Random

import pytest

from app.simulator.exchange import Exchange
from app.simulator.faults import SENT_AGAIN, STRETCH, WINDOW, Faults, Line
from app.simulator.post import Post
from app.simulator.run import simulate
from app.simulator.sender import Sender
from app.simulator.stories import story
from tests.simulator.conftest import Request, Webhook

ACCOUNT = "AC" + "0a" * 16
NOON = datetime(2026, 11, 5, 12, tzinfo=UTC)
TOLD = [
    callback.parameters for seed in range(40) for callback in story(Random(seed), ACCOUNT, NOON, minutes=0.5)
]  # some five thousand, enough for shares to be near what was asked for
CONFERENCE = [told for told in TOLD if "StatusCallbackEvent" in told]


def fates(told: list[dict[str, str]], seed: int = 7, **faults: float) -> list[tuple[float, ...]]:
    return [Faults(**faults).fate(seed, parameters) for parameters in told]


def share(fates: list[tuple[float, ...]], holds: Callable[[tuple[float, ...]], object]) -> float:
    return sum(map(bool, map(holds, fates))) / len(fates)


def test_a_good_line_changes_nothing() -> None:
    assert set(fates(TOLD)) == {(0.0,)}


def test_each_fault_strikes_as_often_as_was_asked_for() -> None:
    assert share(fates(TOLD, lose=0.1), lambda fate: not fate) == pytest.approx(0.1, abs=0.02)
    again = fates(TOLD, duplicate=0.1)
    assert share(again, lambda fate: len(fate) == 2) == pytest.approx(0.1, abs=0.02)
    assert all(fate[0] == 0.0 < fate[-1] <= SENT_AGAIN for fate in again if len(fate) == 2)
    assert share(fates(TOLD, reorder=0.1), lambda fate: fate[0]) == pytest.approx(0.1, abs=0.02)
    late = [fate[0] for fate in fates(TOLD, delay=4)]
    assert 0 <= min(late) < 0.1 < 3.9 < max(late) <= 4


def test_the_same_seed_gives_the_same_fates_in_any_order_and_another_gives_others() -> None:
    faults = {"lose": 0.3, "delay": 2.0, "duplicate": 0.2, "reorder": 0.2, "burst": 0.1, "outage": 0.1}
    assert fates(TOLD, **faults) == fates(TOLD[::-1], **faults)[::-1]
    assert fates(TOLD, **faults) != fates(TOLD, 8, **faults)


def test_a_burst_takes_all_of_a_stretch_of_one_conference() -> None:
    def stretch(told: Mapping[str, str]) -> tuple[str, int]:
        return told["ConferenceSid"], int(told["SequenceNumber"]) // STRETCH

    groups = [list(group) for _, group in groupby(CONFERENCE, stretch)]
    lost = [{bool(fate) for fate in fates(group, burst=0.2)} for group in groups]
    assert all(len(each) == 1 for each in lost)
    assert sum(each == {False} for each in lost) / len(lost) == pytest.approx(0.2, abs=0.08)


def test_an_outage_takes_all_conferences_at_once() -> None:
    lost: dict[int, set[bool]] = {}
    for told in CONFERENCE:
        moment = datetime.strptime(told["Timestamp"], "%a, %d %b %Y %H:%M:%S %z")
        (fate,) = fates([told], outage=0.4)
        lost.setdefault(int(moment.timestamp()) // WINDOW, set()).add(bool(fate))
    assert all(len(each) == 1 for each in lost.values())
    assert {True} in lost.values()
    assert {False} in lost.values()


@pytest.mark.parametrize("faults", [{"lose": 1.1}, {"reorder": -0.1}, {"delay": -1}, {"burst": float("nan")}])
def test_a_fault_that_cannot_be_is_refused(faults: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(faults))):
        Faults(**faults)


def test_what_is_late_is_sent_later_and_what_is_lost_is_counted() -> None:
    sent: list[Mapping[str, str]] = []
    agenda: list[tuple[float, Callable[[], None]]] = []
    faults = Faults(lose=0.5, delay=2)
    line = Line(faults, 7, lambda _, told: sent.append(told), lambda *what: agenda.append(what), speed=10)
    for told in TOLD[:100]:
        line.send(None, told)
    expected = [faults.fate(7, told) for told in TOLD[:100]]
    assert line.lost == expected.count(()) > 0
    assert not sent
    assert [seconds for seconds, _ in agenda] == [seconds / 10 for fate in expected for seconds in fate]
    for _, what in agenda:
        what()
    assert sent == [told for told, fate in zip(TOLD, expected, strict=False) if fate]


def test_a_show_over_a_bad_line_still_ends_every_conference_that_it_stops(webhook: Webhook) -> None:
    stop = threading.Event()

    def answer(_: Request) -> int:
        if len(webhook.requests) >= 30:
            stop.set()
        return 204

    webhook.answer = answer
    post = Post(Sender(f"{webhook.origin}/hook", "a pretend auth token"))
    line = Line(Faults(lose=0.3), 4, post.put, lambda *_: None, calm=stop.is_set)
    simulate(post, Exchange(ACCOUNT, line.send, lambda *_: None), conferences=3, seed=4, speed=20, stop=stop)
    told = [request.parameters for request in webhook.requests if "StatusCallbackEvent" in request.parameters]
    ended = {one["ConferenceSid"] for one in told if one["StatusCallbackEvent"] == "conference-end"}
    assert ended == {one["ConferenceSid"] for one in told}
    assert line.lost > 0
