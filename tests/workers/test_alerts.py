"""Alerts from callback to document: raised and cleared in time, once each, whoever dies in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from app.alerts import Rule, Rules, Verdict, verdict
from app.conference import Conference
from app.events import Alert, Callback
from app.fold import fold
from app.store import keys
from app.store.alerts import Alerts
from app.store.commits import Commit
from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from app.twilio.callbacks import read
from config.settings import from_env
from tests.cast import ACCOUNT, ANNA, BEN, NOON, ROOM, at, callback, said
from tests.claims import Fenced, claim, committed
from tests.store.rooms import changed
from tests.workers.post import empty, kept, post, written
from workers import alerts
from workers.alerts import Lookout
from workers.drain import Drain

ALONE = Rule(name="alone", kind="alone", after=600)
HOLD = Rule(name="hold", kind="hold", after=300)
SOON = timedelta(seconds=31)
"""After this what has ceased to be so is cleared."""


def joins(call: str, number: int, second: int) -> Callback:
    return callback(said("participant-join", call, number=number, second=second))


@dataclass
class Shift:
    """A worker, by its rules and its clock."""

    inbox: Inbox
    snapshots: Snapshots
    rules: Rules = field(default_factory=lambda: {rule.name: rule for rule in (ALONE, HOLD)})

    def __post_init__(self) -> None:
        self.now = datetime.now(UTC)
        self.drain = Drain(
            inbox=self.inbox,
            snapshots=self.snapshots,
            nudge=lambda: None,
            stopping=lambda: True,
            rules=self.rules,
            outgoing=True,
        )
        self.lookout = Lookout(self.inbox, self.snapshots, self.rules, lambda: None, lambda: self.now)

    def hear(self, *callbacks: Callback) -> None:
        post(self.inbox, *callbacks)
        empty(self.drain)

    def look(self, moment: datetime) -> tuple[Alert, ...]:
        """Look at this time, and fold what comes of it. The alerts that stand then."""
        self.now = moment
        self.lookout.look()
        empty(self.drain)
        return self.stand()

    def stand(self) -> tuple[Alert, ...]:
        return kept(self.snapshots, ROOM).header.alerts

    def told(self) -> list[str]:
        """What the log holds of alerts."""
        events = (read(entry.callback) for entry in self.snapshots.events(ROOM, 0, 1_000))
        return [event.type for event in events if event.source == "alert"]

    def timers(self) -> list[tuple[str, str]]:
        """What is to be looked at, ever."""
        return sorted(look.key for look in Alerts(self.snapshots).due(datetime(2100, 1, 1, tzinfo=UTC), 1_000))


@pytest.fixture
def shift(inbox: Inbox, snapshots: Snapshots) -> Shift:
    return Shift(inbox, snapshots)


@pytest.fixture
def another(inbox: Inbox, snapshots: Snapshots) -> Callable[..., Shift]:
    """Another worker, or the same one after a restart."""
    return lambda *rules: Shift(inbox, snapshots, {rule.name: rule for rule in rules or (ALONE, HOLD)})


def test_an_alert_is_raised_when_its_time_has_come_and_stands_in_the_document(shift: Shift) -> None:
    shift.hear(joins(ANNA, 1, 0))
    assert shift.look(at(599)) == ()
    [alert] = shift.look(at(600))
    assert (alert.rule, alert.kind, alert.since, alert.at) == ("alone", "alone", NOON, at(600))
    assert alert.text == "One participant has been alone for 10 min."
    assert Alerts(shift.snapshots).standing(None, 10) == [(kept(shift.snapshots, ROOM).header, alert)]
    assert shift.timers() == []


def test_an_alert_disturbs_nothing_else_in_the_document(shift: Shift) -> None:
    shift.hear(joins(ANNA, 1, 0))
    before = kept(shift.snapshots, ROOM)
    shift.look(at(600))
    after = kept(shift.snapshots, ROOM)
    assert after.participants == before.participants
    names = ("coverage", "updated_at", "heard_at", "counts", "created_at", "status")
    assert all(getattr(after.header, name) == getattr(before.header, name) for name in names)


def test_the_document_is_what_its_log_tells(shift: Shift) -> None:
    shift.hear(joins(ANNA, 1, 0), callback(said("participant-hold", ANNA, number=2, second=1)))
    shift.look(at(600))
    shift.hear(callback(said("participant-unhold", ANNA, number=3, second=700)))
    assert [alert.rule for alert in shift.look(datetime.now(UTC) + SOON)] == ["alone"]
    logged = fold([read(entry.callback) for entry in shift.snapshots.events(ROOM, 0, 1_000)])
    assert written(logged) == written(kept(shift.snapshots, ROOM))


def test_rules_cost_no_round_trip_and_a_callback_that_is_about_none_sets_no_look(
    shift: Shift, round_trips: list[int]
) -> None:
    shift.hear(joins(ANNA, 1, 0), joins(BEN, 2, 1), callback(said("participant-mute", BEN, number=3, second=2)))
    post(shift.inbox, callback(said("participant-unmute", BEN, number=4, second=3)))
    del round_trips[:]
    shift.drain.drain([shift.inbox.shard_of(ROOM)])
    assert len(round_trips) == 3
    assert shift.timers() == []


@pytest.mark.parametrize("module", ["alerts.timers", "healing.wanted"])
def test_a_fault_in_what_follows_from_a_change_costs_no_callback(
    shift: Shift, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    def faulty(*_: Any, **__: Any) -> None:
        raise OverflowError

    monkeypatch.setattr(f"app.{module}", faulty)
    shift.hear(joins(ANNA, 1, 0))
    assert kept(shift.snapshots, ROOM).header.counts.present == 1
    monkeypatch.undo()
    shift.hear(joins(BEN, 2, 1), callback(said("participant-hold", BEN, number=3, second=2)))
    assert [alert.rule for alert in shift.look(at(600))] == ["hold"]


@pytest.mark.parametrize(
    "time", ["Fri, 31 Dec 9999 23:59:59 +0000", "Wed, 31 Dec 1969 23:59:59 +0000", "Mon, 01 Jan 0001 00:00:00 +0000"]
)
def test_no_time_that_a_callback_may_tell_stops_a_drain_or_a_look(
    redis: Redis, another: Callable[..., Shift], time: str
) -> None:
    worker = another(*from_env({}).alert_rules.values())
    worker.hear(
        callback(said("participant-join", ANNA, number=1, second=0, Timestamp=time, Hold="true")),
        callback(said("participant-join", BEN, number=1, second=0, room="CF" + "c" * 32)),
    )
    worker.look(datetime.now(UTC))
    assert kept(worker.snapshots, ROOM).header.counts.present == 1
    assert kept(worker.snapshots, "CF" + "c" * 32).header.counts.present == 1
    assert sum(redis.xlen(keys.dead_letters(shard)) for shard in range(worker.inbox.shards)) == 0


def test_a_record_folds_without_the_log_and_those_of_a_round_together(
    shift: Shift, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [f"CA{n:032x}" for n in range(20)]
    shift.hear(*(joins(call, n, 0) for n, call in enumerate(calls, 1)))
    shift.hear(*(callback(said("participant-hold", call, number=21 + n, second=1)) for n, call in enumerate(calls)))
    monkeypatch.setattr(shift.snapshots, "log", None)
    assert len(shift.look(at(301))) == 20
    shift.hear(*(callback(said("participant-unhold", call, number=41 + n, second=302)) for n, call in enumerate(calls)))
    assert shift.look(datetime.now(UTC) + SOON) == ()


def test_a_fault_in_looking_at_one_conference_keeps_no_other_waiting(
    shift: Shift, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "CF" + "c" * 32
    shift.hear(joins(ANNA, 1, 0), callback(said("participant-join", BEN, number=1, second=0, room=other)))

    def faulty(rules: Rules, conference: Conference, *rest: Any) -> Verdict:
        if conference.header.sid == other:
            raise ZeroDivisionError
        return verdict(rules, conference, *rest)

    monkeypatch.setattr(alerts, "verdict", faulty)
    assert [alert.rule for alert in shift.look(at(600))] == ["alone"]


def test_a_worker_that_begins_later_raises_it_in_time(shift: Shift, another: Callable[..., Shift]) -> None:
    shift.hear(joins(ANNA, 1, 0), callback(said("participant-hold", ANNA, number=2, second=100)))
    late = another()
    assert [alert.rule for alert in late.look(at(400))] == ["hold"]
    assert [alert.rule for alert in late.look(at(600))] == ["alone", "hold"]


def test_workers_that_look_at_once_or_die_before_it_is_folded_raise_it_once(
    redis: Redis, shift: Shift, another: Callable[..., Shift]
) -> None:
    shift.hear(joins(ANNA, 1, 0))
    for worker in (shift, another(), another()):
        worker.now = at(600)
        worker.lookout.look()
    empty(shift.drain)
    another().look(at(601))
    assert shift.told() == ["alert-raised"]
    assert sum(redis.xlen(keys.outbox(shard)) for shard in range(shift.inbox.shards)) == 1


def test_while_draining_lags_a_worker_does_not_repeat_itself(shift: Shift) -> None:
    shift.hear(joins(ANNA, 1, 0))
    shift.now = at(600)
    for _ in range(5):
        shift.lookout.look()
    assert sum(shard.waiting for shard in shift.inbox.backlog()) == 1


def test_what_is_over_is_cleared_after_a_while_unless_it_is_so_again(shift: Shift) -> None:
    shift.hear(joins(ANNA, 1, 0))
    shift.look(at(600))
    shift.hear(joins(BEN, 2, 700))
    assert shift.timers() == [("alone", "")]
    shift.hear(callback(said("participant-leave", BEN, number=3, second=710)))
    assert shift.timers() == []
    assert len(shift.look(datetime.now(UTC) + SOON)) == 1
    shift.hear(joins(BEN, 4, 720))
    assert len(shift.look(datetime.now(UTC))) == 1, "not yet"
    assert shift.look(datetime.now(UTC) + SOON) == ()
    assert shift.told() == ["alert-raised", "alert-cleared"]
    assert Alerts(shift.snapshots).standing(None, 10) == []


def test_what_is_so_anew_is_raised_anew(shift: Shift) -> None:
    shift.hear(joins(ANNA, 1, 0))
    shift.look(at(600))
    shift.hear(joins(BEN, 2, 700))
    later = datetime.now(UTC) + SOON
    shift.look(later)
    shift.hear(callback(said("participant-leave", BEN, number=3, second=800)))
    [alert] = shift.look(later + timedelta(seconds=1))
    assert alert.since == at(800)


def test_a_conference_that_ends_clears_its_alerts_at_once(shift: Shift) -> None:
    shift.hear(joins(ANNA, 1, 0), callback(said("participant-hold", ANNA, number=2, second=1)))
    assert len(shift.look(at(600))) == 2
    shift.hear(callback(said("conference-end", number=3, second=601)))
    assert shift.look(datetime.now(UTC)) == ()
    assert shift.timers() == []


def test_dead_letters_are_an_alert_until_they_are_folded(shift: Shift, another: Callable[..., Shift]) -> None:
    worker = another(Rule(name="lost", kind="dead-letters", severity="critical", clear_after=0))
    unreadable = said("participant-join", "no sid", number=2, second=1)
    worker.hear(joins(ANNA, 1, 0), callback(unreadable))
    [alert] = worker.look(datetime.now(UTC))
    assert alert.severity == "critical"
    worker.hear(callback(said("conference-end", number=3, second=9)))
    assert worker.look(datetime.now(UTC)) == (alert,), "it outlives the conference"


def test_when_a_rule_is_gone_its_alerts_are_cleared(shift: Shift, another: Callable[..., Shift]) -> None:
    shift.hear(joins(ANNA, 1, 0))
    assert len(shift.look(at(600))) == 1
    worker = another(HOLD)
    worker.look(datetime.now(UTC))
    assert worker.look(datetime.now(UTC)) == ()


def test_a_rule_that_is_new_looks_at_conferences_that_were_there_before(
    shift: Shift, another: Callable[..., Shift]
) -> None:
    shift.hear(joins(ANNA, 1, 0))
    shift.lookout.look()
    worker = another(Rule(name="lonely", kind="alone", after=60))
    worker.look(datetime.now(UTC))
    assert [alert.rule for alert in worker.look(datetime.now(UTC))] == ["lonely"]


def test_alerts_are_listed_newest_first_and_by_account(shift: Shift) -> None:
    rooms = [f"CF{number:032x}" for number in range(3)]
    shift.hear(
        *(
            callback(said("participant-join", ANNA, number=1, second=n, room=room, AccountSid=account))
            for n, (room, account) in enumerate(zip(rooms, (ACCOUNT, "AC" + "c" * 32, ACCOUNT), strict=True))
        )
    )
    shift.now = at(700)
    shift.lookout.look()
    empty(shift.drain)
    alerts = Alerts(shift.snapshots)
    assert [header.sid for header, _ in alerts.standing(None, 10)] == rooms[::-1]
    assert [header.sid for header, _ in alerts.standing({ACCOUNT}, 10)] == [rooms[2], rooms[0]]
    assert [header.sid for header, _ in alerts.standing(None, 1)] == [rooms[2]]


def test_alerts_of_an_account_are_found_among_very_many_of_others(redis: Redis, shift: Shift) -> None:
    shift.hear(joins(ANNA, 1, 0))
    [alert] = shift.look(at(600))
    shard = shift.inbox.shard_of(ROOM)
    newer = {f"AC{n:032x} CF{n:032x} alone -": at(10_000 + n).timestamp() * 1000 for n in range(1_200)}
    redis.zadd(keys.alerts(shard), newer)
    found = Alerts(shift.snapshots).standing({ACCOUNT}, 2)
    assert [each for _, each in found] == [alert]


def test_a_commit_that_is_fenced_sets_no_look(redis: Redis, inbox: Inbox, snapshots: Snapshots, shift: Shift) -> None:
    shift.hear(joins(ANNA, 1, 0))
    shard = inbox.shard_of(ROOM)
    redis.delete(keys.timers(shard))
    post(inbox, joins(BEN, 2, 5))
    batch = claim(inbox, shard)
    assert batch is not None
    conference = kept(snapshots, ROOM)
    redis.set(keys.lease(shard), "another's")
    change = changed(None, conference)._replace(outgoing=[("00", b"{}")])
    with pytest.raises(Fenced):
        committed(snapshots, batch, 2, Commit(changes=[change]))
    assert not redis.exists(keys.timers(shard), keys.outbox(shard), keys.alerts(shard))
