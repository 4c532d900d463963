"""The show goes on until it is stopped."""

import threading
from collections.abc import Iterator
from datetime import datetime
from itertools import chain, repeat
from random import Random

import pytest
from twilio.request_validator import RequestValidator

from app.simulator import run
from app.simulator.exchange import Exchange
from app.simulator.post import Post, Report
from app.simulator.run import simulate
from app.simulator.sender import Sender
from app.simulator.stories import Callback
from tests.simulator.conftest import Request, Webhook

ACCOUNT = "AC" + "0a" * 16
TOKEN = "a pretend auth token"


def play(webhook: Webhook, stop: threading.Event, **options: object) -> Report:
    post = Post(Sender(f"{webhook.origin}/hook", TOKEN))
    return simulate(post, an_exchange(post), stop=stop, **options)  # type: ignore[arg-type]


def an_exchange(post: Post) -> Exchange:
    """One to which nothing happens later."""
    return Exchange(ACCOUNT, post.put, lambda *_: None)


def test_conferences_are_played_replaced_and_believed(webhook: Webhook) -> None:
    stop = threading.Event()
    ended = threading.Semaphore(0)

    def answer(request: Request) -> int:
        if request.parameters.get("StatusCallbackEvent") == "conference-end":
            ended.release()
        return 204

    def wait_for_five_ends() -> None:
        for _ in range(5):
            ended.acquire()
        stop.set()

    webhook.answer = answer
    watcher = threading.Thread(target=wait_for_five_ends)
    watcher.start()
    report = play(webhook, stop, conferences=2, seed=1, speed=500)
    watcher.join()
    assert len({r.parameters["ConferenceSid"] for r in webhook.requests if "ConferenceSid" in r.parameters}) >= 5
    assert (report.refused, report.unanswered) == (0, 0)
    assert 0 < report.accepted == report.sent <= len(webhook.requests)
    validator = RequestValidator(TOKEN)
    for request in webhook.requests:
        signature = request.headers["X-Twilio-Signature"]
        assert validator.validate(f"{webhook.origin}/hook", request.parameters, signature)


def test_a_refused_callback_is_counted_and_the_show_goes_on(webhook: Webhook) -> None:
    stop = threading.Event()

    def answer(_: Request) -> int:
        if len(webhook.requests) >= 20:
            stop.set()
        return 403

    webhook.answer = answer
    report = play(webhook, stop, speed=100)
    assert report.refused == report.sent > 0


def test_a_callback_without_an_answer_is_sent_once_more_as_the_same(webhook: Webhook) -> None:
    stop = threading.Event()
    attempts: dict[str, list[Request]] = {}

    def hang_up_at_first(request: Request) -> int | None:
        alike = attempts.setdefault(request.headers["I-Twilio-Idempotency-Token"], [])
        alike.append(request)
        if len(alike) == 1:
            return None
        stop.set()
        return 204

    webhook.answer = hang_up_at_first
    report = play(webhook, stop, conferences=1)
    [first, second, *more] = max(attempts.values(), key=len)
    assert first.parameters == second.parameters
    assert not more
    assert report.accepted >= 1


def test_a_callback_without_a_second_answer_is_given_up(webhook: Webhook) -> None:
    stop = threading.Event()

    def hang_up(_: Request) -> None:
        if len(webhook.requests) >= 40:
            stop.set()

    webhook.answer = hang_up
    report = play(webhook, stop, speed=100)
    assert report.unanswered == report.sent > 0
    tokens = [request.headers["I-Twilio-Idempotency-Token"] for request in webhook.requests]
    assert max(map(tokens.count, tokens)) == 2


def test_stopping_does_not_wait_for_an_answer_that_does_not_come(webhook: Webhook) -> None:
    stop, released = threading.Event(), threading.Event()

    def hang(_: Request) -> int:
        stop.set()
        released.wait()
        return 204

    webhook.answer = hang
    report = play(webhook, stop, conferences=1)
    assert not released.is_set()
    assert report == Report()
    released.set()


def test_a_show_that_is_stopped_leaves_nobody_in_a_conference(webhook: Webhook) -> None:
    stop = threading.Event()

    def answer(_: Request) -> int:
        if len(webhook.requests) >= 30:
            stop.set()
        return 204

    webhook.answer = answer
    play(webhook, stop, conferences=3, seed=4, speed=20)
    told = [
        r.parameters for r in webhook.requests if "ConferenceSid" in r.parameters and "SequenceNumber" in r.parameters
    ]
    ended = {one["ConferenceSid"] for one in told if one["StatusCallbackEvent"] == "conference-end"}
    assert ended == {one["ConferenceSid"] for one in told}


def test_a_show_that_is_stopped_before_it_begins_sends_nothing(webhook: Webhook) -> None:
    stop = threading.Event()
    stop.set()
    assert play(webhook, stop).sent == 0
    assert webhook.requests == []


def test_progress_is_reported_and_the_totals_at_the_end(webhook: Webhook) -> None:
    stop = threading.Event()
    reports: list[Report] = []

    def report(so_far: Report) -> None:
        reports.append(so_far)
        if so_far.sent:
            stop.set()

    totals = play(webhook, stop, speed=20, report=report)
    *_, last_but_one, last = reports
    assert 0 < last_but_one.sent <= last.sent
    assert last == totals


def test_two_live_conferences_never_share_a_name(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    names: Iterator[str] = chain(["Kitchen", "Kitchen"], repeat("Cellar"))

    def long_story(_rng: Random, _account: str, _start: datetime, *, speed: float) -> list[Callback]:
        name = next(names)
        form = {"ConferenceSid": f"CF {name}", "FriendlyName": name, "StatusCallbackEvent": "participant-reaction"}
        return [Callback(0.0, form), Callback(1e6 / speed, form)]

    stop = threading.Event()

    def answer(_: Request) -> int:
        if len(webhook.requests) == 2:
            stop.set()
        return 204

    webhook.answer = answer
    monkeypatch.setattr(run, "story", long_story)
    play(webhook, stop, conferences=2, speed=10)
    assert {r.parameters["FriendlyName"] for r in webhook.requests} == {"Cellar", "Kitchen"}
    assert {r.parameters["ConferenceSid"] for r in webhook.requests} == {"CF Cellar", "CF Kitchen"}


def test_a_conference_that_the_exchange_has_ended_is_replaced_by_another(webhook: Webhook) -> None:
    stop = threading.Event()
    post = Post(Sender(f"{webhook.origin}/hook", TOKEN))
    exchange = an_exchange(post)
    begun: list[str] = []

    def end_each_at_its_first_join(request: Request) -> int:
        told = request.parameters
        if told.get("StatusCallbackEvent") == "participant-join" and told["ConferenceSid"] not in begun:
            begun.append(told["ConferenceSid"])
            if len(begun) == 4:
                stop.set()
            else:
                exchange.update_conference(told["ConferenceSid"], {"Status": "completed"})
        return 204

    webhook.answer = end_each_at_its_first_join
    simulate(post, exchange, conferences=1, seed=7, speed=5, stop=stop)
    told = [r.parameters for r in webhook.requests if "StatusCallbackEvent" in r.parameters]
    assert len(begun) == 4
    for sid in begun[:3]:
        numbers = [int(one["SequenceNumber"]) for one in told if one["ConferenceSid"] == sid]
        [end] = [one for one in told if one["ConferenceSid"] == sid and one["StatusCallbackEvent"] == "conference-end"]
        assert end["ReasonConferenceEnded"] == "conference-ended-via-api"
        assert sorted(numbers) == list(range(1, int(end["SequenceNumber"]) + 1))


def test_who_is_muted_in_the_exchange_stays_muted_in_the_show(webhook: Webhook) -> None:
    stop = threading.Event()
    post = Post(Sender(f"{webhook.origin}/hook", TOKEN))
    exchange = an_exchange(post)
    muted: list[dict[str, str]] = []

    def mute_the_first_who_joins(request: Request) -> int:
        told = request.parameters
        if not muted and told.get("StatusCallbackEvent") == "participant-join" and told["Muted"] == "false":
            muted.append(told)
            exchange.update_participant(told["ConferenceSid"], told["CallSid"], {"Muted": "true"})
        if told.get("StatusCallbackEvent") == "participant-leave" and told["CallSid"] == muted[0]["CallSid"]:
            muted.append(told)
            stop.set()
        return 204

    webhook.answer = mute_the_first_who_joins
    simulate(post, exchange, conferences=1, seed=3, speed=200, stop=stop)
    assert [one["Muted"] for one in muted] == ["false", "true"]


def test_a_show_without_conferences_waits_to_be_stopped(webhook: Webhook) -> None:
    stop = threading.Event()
    report = play(webhook, stop, conferences=0, report=lambda _: stop.set())
    assert report == Report()


@pytest.mark.parametrize("options", [{"conferences": -1}, {"speed": 0}, {"speed": float("nan")}])
def test_a_show_that_cannot_be_played_is_refused(webhook: Webhook, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        play(webhook, threading.Event(), **options)
