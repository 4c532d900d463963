"""Twilio's REST API is looked at where something was lost: within the budget, once, and whatever it answers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from msgspec.structs import replace
from redis import Redis

from app.__main__ import main
from app.conference import Conference, Coverage, Reason, Want
from app.events import Callback, Event
from app.simulator.api import Double
from app.simulator.exchange import Exchange
from app.store import keys
from app.store.attendance import Attendance
from app.store.budget import BURST, Budget
from app.store.inbox import Full, Inbox, Mail
from app.store.looks import Looks
from app.store.snapshots import Snapshots
from app.twilio.callbacks import read
from app.upstream.api import Answer, Twilio
from tests.cast import ACCOUNT, ANNA, BEN, NOON, ROOM, TOKEN, at, said
from tests.conftest import SHARDS
from tests.store.rooms import room, write
from tests.store.test_looks import pending
from tests.upstream.pretend import (
    SILENCE,
    UNKNOWN,
    Answers,
    Clock,
    Pretend,
    answer,
    conference,
    participant,
    people,
)
from workers.reconcile import COME_BACK, FOLDED_WITHIN, LISTED_EVERY, Reconcile

OTHER = "AC" + "9" * 32
LIST = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences.json"
CONFERENCE, PARTICIPANTS = f"/Conferences/{ROOM}.json", f"/Conferences/{ROOM}/Participants.json?PageSize=1000"

Worker = Callable[..., Reconcile]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def worker(redis: Redis, clock: Clock, nudges: list[str]) -> Worker:
    """Makes what one worker does, on these answers."""

    def made(answers: Answers = lambda *_: None, **more: Any) -> Reconcile:
        twilio = more.pop("twilio", None) or Pretend(clock, more.pop("accounts", (ACCOUNT,)), answers)
        usual: dict[str, Any] = {"adopts": False, "chance": lambda: 0.0, "rate": 2.0} | more
        rate = usual.pop("rate")
        return Reconcile(
            inbox=Inbox(redis, SHARDS),
            snapshots=Snapshots(redis, SHARDS),
            looks=Looks(redis, SHARDS),
            budget=Budget(redis, rate, chance=lambda: 0.0),
            attendance=Attendance(redis),
            twilio=twilio,
            nudge=lambda: nudges.append("drain"),
            clock=clock,
            timer=clock,
            sleep=clock.sleep,
            **({"start": lambda work: work()} | usual),
        )

    return made


def asked(reconcile: Reconcile) -> list[str]:
    """What Twilio was asked for, below its account."""
    assert isinstance(reconcile.twilio, Pretend)
    return [target.partition(account)[2] for _, account, target in reconcile.twilio.asked]


def known(reconcile: Reconcile, *rooms: Conference) -> None:
    """Have these conferences, nothing in their inboxes, and no look due: tests say when."""
    write(reconcile.inbox, reconcile.snapshots, *rooms)
    for header in (each.header for each in rooms):
        if header.want:
            reconcile.looks.redis.zrem(
                keys.looks(keys.shard_of(header.sid, SHARDS)), keys.look(header.sid, header.want.reason)
            )
    reconcile.inbox.redis.delete(*(keys.woken(shard) for shard in range(SHARDS)))


HOLE = Want(reason="hole", since=NOON - timedelta(minutes=9), due_at=NOON - timedelta(minutes=9))


def wanting(number: int, reason: Reason = "hole", **more: Any) -> Conference:
    """A conference of that number, at which a look is wanted."""
    told = room(number, NOON, **more)
    return Conference(replace(told.header, want=replace(HOLE, reason=reason)), told.participants)


def stand_up(reason: Reason = "hole", **more: Any) -> Conference:
    """A conference of which number 3 was not heard."""
    told = wanting(1, reason)
    coverage = Coverage(sequences=((1, 2), (4, 6)), holes=((3, 3),), missing=1, from_start=True)
    return Conference(replace(told.header, sid=ROOM, coverage=coverage, **more), told.participants)


def want(reconcile: Reconcile, reason: str = "hole", sid: str = ROOM, ago: float = 0) -> str:
    """Have a look due, as a commit would. Returns how it is written down."""
    member = f"{sid} {reason}"
    due = int((reconcile.clock() - ago) * 1000)
    reconcile.looks.redis.zadd(keys.looks(keys.shard_of(sid, SHARDS)), {member: due})
    return member


def mail(reconcile: Reconcile) -> list[Callback]:
    """What waits in the inboxes."""
    found: list[Callback] = []
    for shard in range(SHARDS):
        for batch in reconcile.inbox.claim([shard], 10_000, version=99).batches:
            found += [entry.callback for entry in batch.entries if isinstance(entry, Mail)]
        reconcile.inbox.redis.delete(keys.lease(shard), keys.trial(shard))
    return found


def seen(reconcile: Reconcile) -> Event:
    """The one record that was written down."""
    [record] = mail(reconcile)
    assert record.media == "snapshot"
    return read(record)


def later(reconcile: Reconcile, seconds: float) -> list[str]:
    """Rounds until so much later. What was asked for."""
    assert isinstance(reconcile.twilio, Pretend)
    clock, before = reconcile.twilio.clock, len(reconcile.twilio.asked)
    until = clock.now + seconds
    while clock.now < until:
        clock.now += reconcile.round()
    return asked(reconcile)[before:]


# A look


def test_while_mail_waits_nothing_is_said_to_be_lost(redis: Redis, worker: Worker, clock: Clock) -> None:
    reconcile = worker()
    known(reconcile, stand_up())
    want(reconcile)
    inbox = keys.inbox(keys.shard_of(ROOM, SHARDS))
    redis.delete(inbox)  # its ids begin anew
    redis.xadd(inbox, {"e": b"the callback that is missing"}, id=f"{clock.ms - 5000}-1")
    assert later(reconcile, 30) == []
    reconcile.looks.ask([ROOM], "operator", clock.ms, "desk")
    assert later(reconcile, 3) == [CONFERENCE, PARTICIPANTS], "who asks is not kept waiting"
    redis.delete(inbox)


def test_a_look_is_two_requests_and_one_record_and_is_not_had_again_before_it_is_folded(
    redis: Redis, worker: Worker, clock: Clock, nudges: list[str]
) -> None:
    reconcile = worker()
    known(reconcile, stand_up())
    member = want(reconcile)
    reconcile.round()
    assert asked(reconcile) == [CONFERENCE, PARTICIPANTS]
    event = seen(reconcile)
    shown = event.snapshot
    assert shown is not None
    assert (event.account_sid, event.conference_sid) == (ACCOUNT, ROOM)
    assert (shown.status, shown.reason, shown.after, shown.missing) == ("in-progress", "hole", 6, True)
    assert shown.taken_at == datetime.fromtimestamp(clock.now, UTC).replace(microsecond=0) - (at(1) - NOON)
    assert [each.call_sid for each in shown.participants or ()] == ["CA" + ROOM[2:]]
    assert pending(redis) == {member: clock.ms + COME_BACK}
    assert nudges == ["drain"]
    assert later(reconcile, FOLDED_WITHIN / 1000 - 60) == []
    assert reconcile.snapshots.rest_counts() == {"ok": 2, "snapshot:hole": 1}


def test_a_look_was_taken_before_the_first_of_its_answers_was_made(worker: Worker, clock: Clock) -> None:
    reconcile = worker(lambda *_: clock.sleep(2.5))
    known(reconcile, stand_up())
    want(reconcile)
    reconcile.round()
    shown = seen(reconcile).snapshot
    assert shown is not None
    assert shown.taken_at == at(2) - (at(3) - NOON)


def test_twilios_rest_api_is_looked_at_over_http(redis: Redis, worker: Worker, clock: Clock) -> None:
    exchange = Exchange(ACCOUNT, lambda *_: None, lambda *_: None)
    for number, call in enumerate((ANNA, BEN), start=1):
        exchange.play(ROOM, said("participant-join", call, number=number, second=number, Muted="true"))
    with Double(exchange, TOKEN) as double:
        reconcile = worker(twilio=Twilio(double.url, {ACCOUNT: (ACCOUNT, TOKEN.encode())}))
        clock.now = datetime.now(UTC).timestamp()
        known(reconcile, stand_up())
        want(reconcile)
        reconcile.round()
    event = seen(reconcile)
    assert event.snapshot is not None
    assert event.friendly_name == "Stand-up"
    assert {(each.call_sid, each.label, each.muted) for each in event.snapshot.participants or ()} == {
        (ANNA, "anna", True),
        (BEN, "ben", True),
    }
    assert -10 < event.snapshot.taken_at.timestamp() - clock.now < 0


def test_of_what_has_ended_the_participants_are_not_asked_for(worker: Worker, clock: Clock) -> None:
    reconcile = worker(lambda *_: answer(conference(ROOM, status="completed")))
    known(reconcile, stand_up("empty"))
    want(reconcile, "empty")
    reconcile.round()
    shown = seen(reconcile).snapshot
    assert shown is not None
    assert (shown.status, shown.participants) == ("completed", None)
    assert asked(reconcile) == [CONFERENCE]
    assert reconcile.budget.take(ACCOUNT, clock.ms, BURST - 1) == 0, "what was not asked for is not paid for"


def test_what_twilio_does_not_know_any_more_is_seen_too(worker: Worker) -> None:
    reconcile = worker(lambda *_: UNKNOWN)
    known(reconcile, stand_up())
    want(reconcile)
    reconcile.round()
    shown = seen(reconcile).snapshot
    assert shown is not None
    assert (shown.status, shown.participants) == (None, None)
    assert reconcile.snapshots.rest_counts() == {"not_found": 1, "snapshot:hole": 1}


def test_a_conference_that_has_ended_is_only_looked_at_for_an_operator(redis: Redis, worker: Worker) -> None:
    reconcile = worker()
    known(reconcile, stand_up("silent", status="completed"))
    want(reconcile, "silent")
    reconcile.round()
    assert (asked(reconcile), pending(redis)) == ([], {})
    reconcile.looks.ask([ROOM], "operator", int(reconcile.clock() * 1000), by="desk")
    want(reconcile, "silent", ago=60)
    reconcile.round()
    assert asked(reconcile) == [CONFERENCE, PARTICIPANTS]
    [record] = mail(reconcile)
    assert record.key == "desk"
    shown = read(record).snapshot
    assert shown is not None
    assert shown.reason == "operator"


def test_a_look_at_an_unknown_conference_is_none(redis: Redis, worker: Worker) -> None:
    reconcile = worker()
    want(reconcile)
    reconcile.round()
    assert (asked(reconcile), pending(redis)) == ([], {})


def test_what_the_fold_does_not_want_any_more_or_not_yet_is_not_had(redis: Redis, worker: Worker, clock: Clock) -> None:
    reconcile = worker()
    soon = replace(HOLE, reason="silent", due_at=at(90))
    known(reconcile, stand_up(want=soon), room(2, NOON))
    want(reconcile, sid=f"CF{2:032x}")
    want(reconcile)
    member = want(reconcile, "silent")
    reconcile.round()
    assert (asked(reconcile), pending(redis)) == ([], {member: clock.ms + 90_000})
    assert later(reconcile, 91) == [CONFERENCE, PARTICIPANTS]


def test_once_a_look_is_folded_the_fold_may_want_the_next_and_never_waits_in_vain(
    redis: Redis, worker: Worker, clock: Clock
) -> None:
    reconcile = worker()
    known(reconcile, stand_up())
    member = want(reconcile)
    assert len(later(reconcile, 60)) == 2
    known(reconcile, stand_up(asked_at=datetime.fromtimestamp(clock.now, UTC)))
    want(reconcile)
    assert len(later(reconcile, 5)) == 2
    clock.now += FOLDED_WITHIN / 1000
    assert len(later(reconcile, 5)) == 2, "a record that is never folded must not stand in the way for ever"
    assert list(pending(redis)) == [member]


def test_without_credentials_a_look_waits_for_them(redis: Redis, worker: Worker) -> None:
    reconcile = worker(accounts=(OTHER,))
    known(reconcile, stand_up())
    want(reconcile)
    reconcile.round()
    assert (asked(reconcile), len(pending(redis))) == ([], 1)


# What goes wrong


def at_the_list(bad: Answer | Exception) -> Answers:
    return lambda _, target: bad if "Participants" in target else None


def always(bad: Answer | Exception) -> Answers:
    return lambda *_: bad


FAILURES = {
    "429": (always(answer(b"", 429)), "rate_limited", 1),
    "429 with Retry-After": (always(answer(b"", 429, Retry_After="7")), "rate_limited", 7),
    "429 until": (always(answer(b"", 429, Retry_After="Sun, 22 Nov 2026 12:00:09 GMT")), "rate_limited", 9),
    "500": (always(answer({"code": 20500}, 500)), "failed", 1),
    "302": (always(answer(b"", 302)), "failed", 1),
    "404 of a proxy": (always(answer(b"<h1>Not here</h1>", 404)), "failed", 1),
    "silence": (always(SILENCE), "unanswered", 1),
    "no JSON": (always(answer(b"<html>")), "unanswered", 1),
    "half a body": (always(answer(b'{"sid":"CF')), "unanswered", 1),
    "another conference": (always(answer(conference("CF" + "0" * 32))), "unanswered", 1),
    "401": (always(answer({"code": 20003}, 401)), "refused", 600),
    "403": (always(answer({"code": 20003}, 403)), "refused", 600),
    "no list": (at_the_list(answer({"participants": None})), "unanswered", 1),
    "half a list": (at_the_list(people(participant(ANNA, ROOM), following="/more")), "unanswered", 1),
    "silence at the list": (at_the_list(SILENCE), "unanswered", 1),
    "429 at the list": (at_the_list(answer(b"", 429)), "rate_limited", 1),
}


@pytest.mark.parametrize(("bad", "outcome", "pause"), FAILURES.values(), ids=FAILURES)
def test_what_cannot_be_used_is_no_record_and_is_asked_for_again_later(
    worker: Worker, bad: Answers, outcome: str, pause: int
) -> None:
    well_again = [False]
    reconcile = worker(lambda *about: None if well_again[0] else bad(*about))
    known(reconcile, stand_up())
    want(reconcile)
    reconcile.round()
    before = len(asked(reconcile))
    assert mail(reconcile) == []
    assert reconcile.snapshots.rest_counts()[outcome] == 1
    well_again[0] = True
    assert later(reconcile, pause - 0.01) == []
    assert later(reconcile, 5) == [CONFERENCE, PARTICIPANTS]
    assert seen(reconcile).snapshot is not None
    assert len(asked(reconcile)) == before + 2


def test_a_list_that_twilio_knows_nothing_of_tells_nothing(worker: Worker) -> None:
    reconcile = worker(at_the_list(UNKNOWN))
    known(reconcile, stand_up())
    want(reconcile)
    reconcile.round()
    assert mail(reconcile) == []


@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 500}, {"hang_up": True}])
def test_a_failure_over_http_is_made_up_for(worker: Worker, clock: Clock, fault: dict[str, Any]) -> None:
    exchange = Exchange(ACCOUNT, lambda *_: None, lambda *_: None)
    exchange.play(ROOM, said("participant-join", ANNA, number=1, second=1))
    with Double(exchange, TOKEN) as double:
        reconcile = worker(twilio=Twilio(double.url, {ACCOUNT: (ACCOUNT, TOKEN.encode())}))
        known(reconcile, stand_up())
        want(reconcile)
        requests.put(f"{double.url}/double/faults", json=fault, auth=(ACCOUNT, TOKEN), timeout=5)
        reconcile.round()
        assert mail(reconcile) == []
        clock.now += 3
        reconcile.round()
    assert seen(reconcile).conference_sid == ROOM


def test_a_conference_that_always_fails_is_asked_for_less_and_less_often(redis: Redis, worker: Worker) -> None:
    reconcile = worker(always(answer(b"?")))
    known(reconcile, stand_up())
    want(reconcile)
    assert 5 < len(later(reconcile, 1200)) < 12
    assert len(pending(redis)) == 1


def test_a_fault_of_ours_costs_one_look(
    redis: Redis, worker: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile = worker(rate=100)
    known(reconcile, stand_up(), wanting(7))
    want(reconcile, ago=1)
    member = want(reconcile, sid=f"CF{7:032x}")

    append = reconcile.inbox.append

    def broken(shard: int, record: Callback) -> bool:
        if ROOM.encode() in record.body:
            raise RuntimeError("a fault")
        return append(shard, record)

    monkeypatch.setattr(reconcile.inbox, "append", broken)
    reconcile.round()
    clock.now += 0.05
    reconcile.round()
    assert pending(redis) == {f"{ROOM} hole": clock.ms + 1_950, member: clock.ms + COME_BACK}


def test_with_inboxes_full_a_look_is_had_again_later(
    redis: Redis, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile = worker()
    known(reconcile, stand_up())
    member = want(reconcile)

    def full(*_: Any) -> bool:
        raise Full("full")

    monkeypatch.setattr(reconcile.inbox, "append", full)
    reconcile.round()
    assert 0 < pending(redis)[member] - int(reconcile.clock() * 1000) <= 2_000
    monkeypatch.undo()
    assert len(later(reconcile, 3)) == 2
    assert seen(reconcile)


# Several workers


def test_two_workers_at_once_have_one_look(worker: Worker) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def slow(*_: str) -> None:
        under_way.set()
        assert go_on.wait(10)

    one, other = worker(slow), worker()
    known(one, stand_up())
    want(one)
    thread = threading.Thread(target=one.round)
    thread.start()
    assert under_way.wait(10)
    other.round()
    go_on.set()
    thread.join()
    other.round()
    assert (len(asked(one)), asked(other)) == (2, [])
    assert len(mail(one)) == 1


@pytest.mark.parametrize("reason", ["hole", "operator", "outage", "adopted"])
def test_who_comes_late_to_what_was_found_long_ago_does_not_look_again(
    redis: Redis, worker: Worker, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    one, other = worker(), worker()
    known(one, stand_up())
    want(one, reason)
    found = one.looks.due(int(one.clock() * 1000), 50)
    other.round()
    before = pending(redis)
    other.twilio.clock.now += 1.5  # type: ignore[attr-defined]
    monkeypatch.setattr(one.looks, "due", lambda *_: found)
    one.round()
    assert (asked(one), len(mail(one)), pending(redis)) == ([], 1, before)


def test_a_look_that_comes_back_while_it_is_taken_away_stays(
    redis: Redis, worker: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile = worker()
    known(reconcile, room(2, NOON))
    sid = f"CF{2:032x}"
    member = want(reconcile, sid=sid, ago=9)
    begin = reconcile.looks.begin

    def and_back(*about: Any) -> Any:
        begun = begin(*about)
        want(reconcile, sid=sid)
        return begun

    monkeypatch.setattr(reconcile.looks, "begin", and_back)
    reconcile.round()
    assert pending(redis) == {member: clock.ms}


def test_who_dies_between_what_was_seen_and_writing_it_down_costs_another_look(
    redis: Redis, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = worker(), worker()
    known(one, stand_up())
    want(one)

    def dies(*_: Any) -> bool:
        raise SystemExit

    monkeypatch.setattr(one.inbox, "append", dies)
    monkeypatch.setattr(one.looks, "leave", dies)
    with pytest.raises(SystemExit):
        one.round()
    other.twilio.clock.now += 2  # type: ignore[attr-defined]
    other.round()
    assert asked(other) == [], "it may be at it still"
    redis.delete(keys.asking(keys.shard_of(ROOM, SHARDS), ROOM))  # after a minute
    other.round()
    assert asked(other) == [CONFERENCE, PARTICIPANTS]
    assert seen(other)


def test_who_was_away_too_long_leaves_a_look_to_another(redis: Redis, worker: Worker) -> None:
    def away(*_: str) -> None:
        redis.set(keys.asking(keys.shard_of(ROOM, SHARDS), ROOM), "another's")

    reconcile = worker(away)
    known(reconcile, stand_up())
    want(reconcile)
    reconcile.round()
    assert asked(reconcile) == [CONFERENCE]
    assert mail(reconcile) == []


def test_a_look_that_the_fold_does_not_want_any_more_is_not_wanted_afterwards(redis: Redis, worker: Worker) -> None:
    member = f"{ROOM} hole"

    def healed(*_: str) -> None:
        redis.zrem(keys.looks(keys.shard_of(ROOM, SHARDS)), member)

    reconcile = worker(healed)
    known(reconcile, stand_up())
    want(reconcile)
    reconcile.round()
    assert pending(redis) == {}


# Many at once


def test_of_many_at_once_none_is_lost_none_seen_twice_and_none_goes_beyond_the_budget(
    redis: Redis, worker: Worker, clock: Clock
) -> None:
    troubles = {7: answer(b"", 429), 20: answer(b"", 500), 21: SILENCE, 40: answer(b"", 429, Retry_After="5")}
    count = [0]

    def troubled(*_: str) -> Answer | Exception | None:
        count[0] += 1
        clock.now += 0.08  # it takes its time
        return troubles.get(count[0])

    one, other = worker(troubled), worker(troubled)
    sids = [f"CF{number:032x}" for number in range(1, 31)]
    known(one, *(wanting(number) for number in range(1, 31)))
    for sid in sids:
        want(one, sid=sid)
    for _ in range(1_000):
        clock.now += min(one.round(), other.round())
        if len(mail(one)) == len(sids):
            break
    looked = Counter(read(record).conference_sid for record in mail(one))
    assert looked == dict.fromkeys(sids, 1)
    made = sorted(each.at for some in (one, other) for each in some.twilio.asked)  # type: ignore[attr-defined]
    for first, moment in enumerate(made):
        within = sum(moment <= each < moment + 10 for each in made[first:])
        assert within <= BURST + 10 * one.budget.rate
    assert len(made) <= 2 * len(sids) + 2 * len(troubles)


def test_an_account_that_is_slow_to_be_served_is_not_in_the_way_of_another(
    worker: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.reconcile.AT_ONCE", 1)
    reconcile = worker(lambda account, _: answer(b"", 429) if account == ACCOUNT else None, accounts=(ACCOUNT, OTHER))
    known(reconcile, *(wanting(number) for number in range(1, 41)), wanting(99, account=OTHER))
    for number in range(1, 41):
        want(reconcile, sid=f"CF{number:032x}", ago=100)
    want(reconcile, sid=f"CF{99:032x}")
    for _ in range(40):
        assert reconcile.round() <= 1.0
    assert [each.account for each in reconcile.twilio.asked] == [ACCOUNT, OTHER, OTHER]  # type: ignore[attr-defined]
    assert seen(reconcile).account_sid == OTHER


def test_a_slow_answer_keeps_no_other_account_waiting_and_its_own_account_has_one_look_at_a_time(
    worker: Worker, clock: Clock
) -> None:
    under_way, go_on, threads = threading.Event(), threading.Event(), []

    def slow(account: str, _: str) -> None:
        if account == ACCOUNT:
            under_way.set()
            assert go_on.wait(10)

    def start(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    reconcile = worker(slow, accounts=(ACCOUNT, OTHER), start=start)
    known(reconcile, stand_up(), wanting(7), wanting(99, account=OTHER))
    want(reconcile, ago=1)
    reconcile.round()
    assert under_way.wait(10)
    want(reconcile, sid=f"CF{7:032x}", ago=1)
    want(reconcile, sid=f"CF{99:032x}")
    reconcile.round()
    threads[-1].join(10)
    assert [each.account for each in reconcile.twilio.asked] == [ACCOUNT, OTHER, OTHER]  # type: ignore[attr-defined]
    go_on.set()
    for _ in range(4):  # the clock stands still while somebody is at work
        for thread in threads:
            thread.join(10)
        clock.now += 1
        reconcile.round()
    for thread in threads:
        thread.join(10)
    assert len(mail(reconcile)) == 3


def test_who_asks_comes_before_all_that_waits(worker: Worker, clock: Clock) -> None:
    reconcile = worker()
    known(reconcile, *(wanting(number) for number in range(1, 21)))
    for number in range(1, 21):
        want(reconcile, sid=f"CF{number:032x}", ago=100)
    later(reconcile, 3)
    reconcile.looks.ask([f"CF{20:032x}"], "operator", clock.ms, "desk")
    assert f"/Conferences/CF{20:032x}.json" in later(reconcile, 2)


# What goes on when Offhook starts

SIDS = [f"CF{number:032x}" for number in range(1, 8)]


def listing(pages: dict[str, list[str]], *, account: str = ACCOUNT) -> Answers:
    """Lists of conferences in progress: the page that a query asks for, and the name of the next one."""
    names = list(pages)

    def answered(_: str, target: str) -> Answer | None:
        path, _, asked_for = target.partition("?")
        if not path.endswith("/Conferences.json"):
            return None
        name = next((name for name in names[1:] if asked_for == name), names[0])
        following = dict(pairwise(names)).get(name)
        listed = [conference(sid, account) for sid in pages[name]]
        return answer({"conferences": listed, "next_page_uri": following and f"{path}?{following}"})

    return answered


TWO_PAGES = listing({"first": SIDS[:4], "PageToken=2": SIDS[4:]})


def test_at_the_start_what_goes_on_and_is_not_known_is_taken_over_once(redis: Redis, worker: Worker) -> None:
    reconcile = worker(TWO_PAGES, adopts=True)
    known(reconcile, room(2, NOON), room(5, NOON, status="completed"))
    reconcile.adopt()
    assert asked(reconcile) == [
        "/Conferences.json?Status=in-progress&PageSize=1000",
        "/Conferences.json?PageToken=2",
    ]
    taken = [read(record) for record in mail(reconcile)]
    fresh = sorted({*SIDS} - {SIDS[1], SIDS[4]})
    assert sorted(str(event.conference_sid) for event in taken) == fresh
    for event in taken:
        shown = event.snapshot
        assert shown is not None
        assert (shown.status, shown.participants, shown.reason, shown.missing) == ("in-progress", None, "adopted", True)
    assert sorted(pending(redis)) == [f"{sid} adopted" for sid in fresh]
    reconcile.twilio.clock.now += LISTED_EVERY  # type: ignore[attr-defined]
    reconcile.adopt()
    assert len(asked(reconcile)) == 2


def test_what_was_taken_over_then_needs_its_participants_only(redis: Redis, worker: Worker, clock: Clock) -> None:
    reconcile = worker(TWO_PAGES, adopts=True, rate=100)
    reconcile.adopt()
    assert later(reconcile, 30) == [], "nothing is known of it before its first record is folded"
    assert len(pending(redis)) == len(SIDS)
    redis.delete(*(keys.inbox(shard) for shard in range(SHARDS)))
    known(reconcile, *(room(number, NOON) for number in range(1, 8)))
    requests_made = later(reconcile, 60)
    assert sorted(requests_made) == [f"/Conferences/{sid}/Participants.json?PageSize=1000" for sid in SIDS]
    shown = read(mail(reconcile)[0]).snapshot
    assert shown is not None
    assert (shown.status, len(shown.participants or ())) == ("in-progress", 1)
    assert pending(redis) == {}


@pytest.mark.parametrize(("listed", "status"), [(people(), "completed"), (people(), "in-progress"), (UNKNOWN, None)])
def test_where_nobody_is_listed_the_conference_itself_is_asked_for(
    worker: Worker, listed: Answer, status: str | None
) -> None:
    def answered(_: str, target: str) -> Answer:
        if "Participants" in target:
            return listed
        return UNKNOWN if status is None else answer(conference(ROOM, status=status))

    reconcile = worker(answered)
    known(reconcile, stand_up())
    want(reconcile, "adopted")
    reconcile.round()
    assert asked(reconcile) == [PARTICIPANTS, CONFERENCE]
    shown = seen(reconcile).snapshot
    assert shown is not None
    assert (shown.status, shown.participants) == (status, () if status == "in-progress" else None)


def test_after_redis_was_emptied_what_goes_on_is_taken_over_again(redis: Redis, worker: Worker, clock: Clock) -> None:
    reconcile = worker(TWO_PAGES, adopts=True)
    reconcile.adopt()
    redis.flushall()
    clock.now += LISTED_EVERY
    reconcile.adopt()
    assert len(mail(reconcile)) == len(SIDS)


def test_a_list_that_breaks_off_is_gone_on_with(redis: Redis, worker: Worker, clock: Clock) -> None:
    broken = [True]
    reconcile = worker(
        lambda account, target: SILENCE if broken[0] and "PageToken" in target else TWO_PAGES(account, target),
        adopts=True,
    )
    reconcile.adopt()
    assert len(mail(reconcile)) == 4
    assert redis.keys("offhook:adopted:*") == []
    broken[0] = False
    clock.now += LISTED_EVERY
    reconcile.adopt()
    assert sorted(str(read(each).conference_sid) for each in mail(reconcile)) == SIDS
    assert len(asked(reconcile)) == 3, "the first page is not asked for again"
    assert redis.keys("offhook:adopted:*") == [f"offhook:adopted:{ACCOUNT}".encode()]
    assert redis.keys("offhook:listing:*") == []


def test_with_a_small_budget_each_page_is_listed_once(redis: Redis, worker: Worker, clock: Clock) -> None:
    reconcile = worker(
        listing({"first": SIDS[:2], "PageToken=2": SIDS[2:4], "PageToken=3": SIDS[4:]}), adopts=True, rate=0.1
    )
    for _ in range(8):
        reconcile.adopt()
        clock.now += LISTED_EVERY
    assert len(asked(reconcile)) == 3
    assert redis.keys("offhook:adopted:*")


def test_a_list_that_always_fails_is_asked_for_less_and_less_often_and_begun_anew(worker: Worker, clock: Clock) -> None:
    reconcile = worker(
        lambda account, target: UNKNOWN if "PageToken" in target else TWO_PAGES(account, target), adopts=True
    )
    for _ in range(1440):
        reconcile.adopt()
        clock.now += 60
    assert 20 < len(asked(reconcile)) < 80, "in a day"
    assert asked(reconcile)[:4] == [
        "/Conferences.json?" + query
        for query in (
            "Status=in-progress&PageSize=1000",
            "PageToken=2",
            "PageToken=2",
            "Status=in-progress&PageSize=1000",
        )
    ]


def test_one_worker_lists_an_account_and_each_account_is_listed(redis: Redis, worker: Worker) -> None:
    reconcile = worker(adopts=True, accounts=(ACCOUNT, OTHER))
    assert reconcile.looks.first_at(f"adopt:{ACCOUNT}", 60)
    reconcile.adopt()
    assert [each.account for each in reconcile.twilio.asked] == [OTHER]  # type: ignore[attr-defined]


def test_nothing_is_taken_over_where_that_is_off_or_twilio_refuses(redis: Redis, worker: Worker) -> None:
    off, refused = worker(TWO_PAGES), worker(always(answer({"code": 20003}, 401)), adopts=True)
    off.adopt()
    assert asked(off) == []
    refused.adopt()
    refused.twilio.clock.now += LISTED_EVERY  # type: ignore[attr-defined]
    refused.adopt()
    assert len(asked(refused)) == 1


# What was missed


def test_after_an_outage_what_was_not_heard_since_is_looked_at(redis: Redis, worker: Worker, clock: Clock) -> None:
    reconcile = worker(rate=100)
    told = {
        1: room(1, NOON),
        2: room(2, NOON, status="init"),
        3: room(3, NOON, status="completed"),
        4: room(4, NOON, account=OTHER),
        5: room(5, NOON),
    }
    known(
        reconcile,
        *(Conference(replace(each.header, heard_at=at(30 if n == 5 else 5)), {}) for n, each in told.items()),
    )
    redis.hset(keys.ATTENDED, "outage", f"{int(at(0).timestamp() * 1000)},{int(at(20).timestamp() * 1000)}")
    reconcile.see_to_outage()
    assert sorted(pending(redis)) == [f"CF{number:032x} outage" for number in (1, 2)]
    assert reconcile.attendance.outage() is None
    later(reconcile, 5)
    shown = [read(record).snapshot for record in mail(reconcile)]
    assert [(each.reason, each.missing) for each in shown if each] == [("outage", True)] * 2
    assert pending(redis) == {}


def test_who_dies_while_seeing_to_an_outage_leaves_it_to_another(
    redis: Redis, worker: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = worker(), worker()
    known(one, stand_up())
    redis.hset(keys.ATTENDED, "outage", f"1,{clock.ms}")

    def dies(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(one.attendance, "over", dies)
    with pytest.raises(SystemExit):
        one.see_to_outage()
    other.see_to_outage()
    assert list(pending(redis)) == [f"{ROOM} outage"]
    assert other.attendance.outage() is None


# The thread, and the command


def test_it_goes_on_after_redis_has_been_away(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    reconcile = worker()
    known(reconcile, stand_up())
    want(reconcile)
    stop, due, tries = threading.Event(), reconcile.looks.due, []

    def away(*about: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("away")  # not Redis' own: the worst that may come
        if len(tries) == 3:
            stop.set()
        return due(*about)

    monkeypatch.setattr("workers.reconcile.EVERY", 0.001)
    monkeypatch.setattr(reconcile.looks, "due", away)
    reconcile.run(stop)
    assert len(mail(reconcile)) == 1


@pytest.mark.parametrize(
    ("words", "settings", "status", "due"),
    [
        ([ROOM], {}, 0, 1),
        (["--all-open"], {}, 0, 2),
        ([], {}, 1, 0),
        ([ROOM, "--all-open"], {}, 1, 0),
        (["room"], {}, 1, 0),
        (["CF" + "0" * 32], {}, 1, 0),
        ([ROOM], {"OFFHOOK_RECONCILE": "off"}, 1, 0),
        ([ROOM], {"TWILIO_ACCOUNT_SID": OTHER}, 1, 0),
    ],
)
def test_the_command_asks_for_looks(
    redis: Redis, valkey: str, worker: Worker, words: list[str], settings: dict[str, str], status: int, due: int
) -> None:
    known(worker(), stand_up(), room(2, NOON), room(3, NOON, status="completed"), room(4, NOON, account=OTHER))
    environ = {
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": "a-pretend-token",
        "REDIS_URL": valkey,
        "OFFHOOK_SHARDS": str(SHARDS),
    }
    ended = CliRunner().invoke(main, ["reconcile", *words], env=environ | settings)
    assert (ended.exit_code, len(pending(redis))) == (status, due)
    assert ended.output.startswith("Error: " if status else f"{due} due")
