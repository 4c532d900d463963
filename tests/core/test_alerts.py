"""Alerts: what each rule finds, that timers lose nothing, that nothing flaps, and that order does not matter."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app import fold
from app.alerts import (
    PASSING,
    Key,
    Kind,
    Record,
    Rule,
    Rules,
    after,
    conditions,
    encode_record,
    is_late,
    timers,
    verdict,
)
from app.conference import Conference
from app.events import Action, Alert, Callback, Event
from app.store.commits import milliseconds
from app.twilio.callbacks import read
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, NOON, ROOM, at, event, said


def rules_of(*rules: Rule) -> Rules:
    return {rule.name: rule for rule in rules}


def rule(kind: Kind, **more: Any) -> Rule:
    return Rule(name=kind, kind=kind, **more)


def told(*parameters: dict[str, str]) -> Conference:
    return fold.fold(map(event, parameters))


def found(kind: Kind, conference: Conference, **more: Any) -> dict[str, datetime | None]:
    """What a rule of this kind finds, by subject."""
    whole = conditions(rules_of(rule(kind, **more)), conference.header, conference.participants)
    return {subject: since for (_, subject), since in whole.items()}


def comes(call: str, number: int, second: int, starts: bool = True) -> dict[str, str]:
    starts_it = str(starts).lower()
    return said("participant-join", call, number=number, second=second, StartConferenceOnEnter=starts_it)


def goes(call: str, number: int, second: int, **more: str) -> dict[str, str]:
    return said("participant-leave", call, number=number, second=second, **more)


END = said("conference-end", number=99, second=90)
BOTH = (comes(ANNA, 1, 0), comes(BEN, 2, 1))
GUESTS = (comes(ANNA, 1, 0, starts=False), comes(BEN, 2, 1, starts=False))
HELD = said("participant-hold", BEN, number=3, second=5)


@pytest.mark.parametrize(
    ("kind", "parameters", "expected"),
    [
        ("alone", BOTH[:1], {"": at(0)}),
        ("alone", BOTH, {}),
        ("alone", (*BOTH, goes(ANNA, 3, 7)), {"": at(7)}),
        ("alone", (*BOTH, goes(ANNA, 3, 7), END), {}),
        ("hold", BOTH, {}),
        ("hold", (*BOTH, HELD), {BEN: at(5)}),
        ("hold", (*BOTH, HELD, goes(BEN, 4, 8)), {}),
        ("waiting", GUESTS, {"": at(0)}),
        ("waiting", (*GUESTS, goes(ANNA, 3, 7, StartConferenceOnEnter="false")), {"": at(1)}),
        ("waiting", BOTH[:1], {}),
        ("waiting", (*GUESTS, comes(CLEO, 3, 9)), {}),
        ("waiting", (*GUESTS, said("conference-start", number=3, second=2)), {}),
        ("not-started", BOTH[:1], {"": at(0)}),
        ("not-started", GUESTS, {"": at(0)}),
        ("not-started", BOTH, {}),
        ("long", BOTH, {"": at(0)}),
        ("long", (*BOTH, said("conference-start", number=3, second=1)), {"": at(1)}),
        ("long", (*BOTH, END), {}),
        ("silent", (*BOTH, END), {}),
        ("holes", (BOTH[0], HELD), {"": None}),
        ("holes", (*BOTH, HELD), {}),
        ("add-failed", (BOTH[0], goes(BEN, 2, 5, ReasonParticipantLeft="participant_add_failed")), {BEN: None}),
        ("add-failed", (*BOTH, goes(BEN, 3, 5)), {}),
    ],
)
def test_what_a_rule_finds(kind: Kind, parameters: tuple[dict[str, str], ...], expected: dict[str, Any]) -> None:
    assert found(kind, told(*parameters)) == expected


def test_a_room_is_crowded_when_more_are_there_than_the_rule_says() -> None:
    assert found("crowded", told(*BOTH), more_than=1) == {"": None}
    assert found("crowded", told(*BOTH), more_than=2) == {}


def test_dead_letters_are_found_even_after_the_end() -> None:
    conference = told(*BOTH, END)
    marked = Conference(replace(conference.header, set_aside=("a",)), conference.participants)
    assert found("dead-letters", marked) == {"": None}
    assert found("dead-letters", conference) == {}


def test_what_is_missing_is_no_hole_once_a_look_has_made_up_for_it() -> None:
    conference = told(BOTH[0], HELD, said("participant-unhold", BEN, number=6, second=9))
    for seen, holes in ((0, {"": None}), (3, {"": None}), (5, {})):
        coverage = replace(conference.header.coverage, snapshot_sequence=seen, snapshot_at=at(9))
        healed = Conference(replace(conference.header, coverage=coverage), conference.participants)
        assert found("holes", healed) == holes


def test_an_announcement_of_ours_that_failed_is_found() -> None:
    asked = Action(
        id="a1",
        verb="update-conference",
        state="failed",
        by="operator",
        requested_at=NOON,
        expires_at=at(60),
        awaits=("announcement-end https://example.com/a",),
    )
    conference = told(*BOTH)
    header = replace(conference.header, actions=(asked,))
    assert found("announcement-failed", Conference(header, conference.participants)) == {"a1": None}


# Records.


def recorded(alert: Alert) -> Event:
    record = Record(account_sid=ACCOUNT, conference_sid=ROOM, alert=alert)
    return read(Callback(body=encode_record(record), media="alert", received_at=0, key="offhook"))


ALERTS = st.builds(
    lambda rule, subject, since, moment, cleared: recorded(
        Alert(rule=rule, kind="alone", subject=subject, since=at(since), at=at(moment), cleared=cleared)
    ),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", ANNA]),
    st.integers(0, 3),
    st.integers(0, 5),
    st.booleans(),
)


@given(st.lists(ALERTS, max_size=8), st.randoms())
def test_what_stands_is_a_function_of_the_set_of_records(records: list[Event], chance: Any) -> None:
    shuffled = [*records, *records[:2]]
    chance.shuffle(shuffled)
    stands = after((), records)
    assert after((), shuffled) == stands
    assert not any(alert.cleared for alert in stands)
    assert len({(alert.rule, alert.subject) for alert in stands}) == len(stands)


@given(st.lists(ALERTS, min_size=1, max_size=8, unique_by=lambda record: record.id), st.integers(1, 3))
def test_a_record_that_is_not_late_needs_no_log(records: list[Event], at_once: int) -> None:
    told = [event(parameters) for parameters in BOTH]
    now = fold.fold(told)
    for start in range(0, len(records), at_once):
        some = records[start : start + at_once]
        late = any(each.alert and is_late(now.header, each.alert) for each in some)
        told += some
        advanced = fold.advance(now, some)
        assert late == (advanced is None)
        now = advanced.conference if isinstance(advanced, fold.Advance) else fold.fold(told)
        assert now == fold.fold(told)


def test_of_two_records_of_one_moment_the_one_that_clears_counts() -> None:
    alert = Alert(rule="a", kind="alone", since=NOON, at=at(9))
    assert after((), [recorded(replace(alert, cleared=True)), recorded(alert)]) == ()


def test_an_alert_changes_nothing_but_alerts() -> None:
    alert = Alert(rule="alone", kind="alone", since=NOON, at=at(900))
    events = [event(parameters) for parameters in BOTH]
    before, with_it = fold.fold(events), fold.fold([*events, recorded(alert)])
    assert with_it.header.alerts == (alert,)
    assert Conference(replace(with_it.header, alerts=(), alerted_at=None), with_it.participants) == before


def test_whoever_raises_the_same_alert_writes_the_same_event() -> None:
    alert = Alert(rule="alone", kind="alone", since=NOON, at=at(900))
    again = recorded(replace(alert, at=at(901)))
    assert again.id == recorded(alert).id
    others = [replace(alert, since=at(1)), replace(alert, subject=ANNA), replace(alert, cleared=True)]
    assert len({again.id, *(recorded(other).id for other in others)}) == 4


# Timers. A world in which only those of a conference are loaded that an event is about, as a drain loads them.

KINDS: dict[Kind, int] = {
    "alone": 10,
    "hold": 8,
    "waiting": 6,
    "not-started": 9,
    "silent": 7,
    "long": 14,
    "crowded": 0,
    "add-failed": 0,
    "holes": 5,
}
CLEAR_AFTER = 3
RULES = rules_of(
    *(
        rule(kind, after=seconds, clear_after=CLEAR_AFTER, more_than=2 if kind == "crowded" else None)
        for kind, seconds in KINDS.items()
    )
)


class World:
    """A conference, a clock, and the looks that are set."""

    def __init__(self) -> None:
        self.now = NOON
        self.events: dict[str, Event] = {}
        self.set: dict[Key, datetime] = {}
        self.heard_at = NOON
        self.number = 0
        self.lost: list[tuple[int, int]] = []
        self.starts = {CLEO}
        """Who may start the conference."""
        self.written: list[Alert] = []
        self.spent: set[Key] = set()
        """What was not raised again for a moment for which it had been."""

    def stands(self) -> Conference | None:
        if not self.events:
            return None
        whole = fold.fold(self.events.values())
        return Conference(replace(whole.header, heard_at=self.heard_at), whole.participants)

    def raised(self) -> set[Key]:
        """The alerts that stand."""
        conference = self.stands()
        return {(alert.rule, alert.subject) for alert in conference.header.alerts} if conference else set()

    def lasting(self, unknown: timedelta | None = None) -> set[Key]:
        """What has been so for as long as its rule says; that of which no document tells since when, for so long."""
        conference = self.stands()
        so = conditions(RULES, conference.header, conference.participants) if conference else {}
        lasts = {key: self.now - since if since else unknown for key, since in so.items()}
        return {
            (name, subject)
            for (name, subject), lasted in lasts.items()
            if RULES[name].kind not in PASSING
            and lasted is not None
            and (lasted >= timedelta(seconds=RULES[name].after))
        }

    def fold(self, told: Event) -> None:
        before = self.stands()
        self.events[told.id] = told
        if told.alert is None:
            self.heard_at = self.now
        now = self.stands()
        assert now is not None
        if told.alert is None and told.type != fold.END:
            before, now = (None if each is None else only(each, told.call_sid) for each in (before, now))
            assert now is not None
        change = timers(RULES, before, now, self.now)
        for key in change.dropped:
            self.set.pop(key, None)
        self.set |= change.at

    def tell(self, what: str, who: str) -> None:
        """One callback, or the loss of one.

        `fill` tells one that was lost, `turn` that somebody may start the conference, or not any more.
        """
        number, second = self.number + 1, int((self.now - NOON).total_seconds())
        if what == "lose":
            self.lost.append((number, second))
        self.number = number
        if what == "turn":
            self.starts ^= {who}
            what = "participant-modify"
        if what == "fill":
            if not self.lost:
                return
            what, (number, second) = "participant-modify", self.lost.pop()
            self.number -= 1
        if what != "lose":
            starts = {"StartConferenceOnEnter": str(who in self.starts).lower()}
            call = None if what.startswith("conference") else who
            self.fold(event(said(what, call, number=number, second=second, **(starts if call else {}))))

    def run(self, seconds: float) -> None:
        """Let time pass, and look at whatever is due."""
        until = self.now + timedelta(seconds=seconds)
        for _ in range(1_000):
            due = min(self.set.items(), key=lambda each: each[1], default=None)
            if due is None or due[1] > until:
                self.now = max(self.now, until)
                return
            key, when = due
            self.now = max(self.now, when)
            conference = self.stands()
            assert conference is not None
            alert, again = verdict(RULES, conference, key, when, self.now)
            if alert is None:
                del self.set[key]
                if again is not None:
                    assert again > self.now, "it would be looked at for ever"
                    self.set[key] = again
            elif (raised := recorded(alert)).id in self.events:
                assert key == ("alone", ""), "said twice"  # decision 16: not again for the very same moment
                self.spent.add(key)
                del self.set[key]
            else:
                self.written.append(alert)
                self.fold(raised)
        raise AssertionError("it looks and looks")


def only(conference: Conference, call: str | None) -> Conference:
    return Conference(conference.header, {sid: p for sid, p in conference.participants.items() if sid == call})


STEPS = st.tuples(
    st.integers(0, 12),
    st.sampled_from(
        [
            *("participant-join", "participant-join", "participant-leave", "participant-hold", "participant-unhold"),
            *("conference-start", "lose", "fill", "turn"),
        ]
    ),
    st.sampled_from([ANNA, BEN, CLEO]),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(STEPS, max_size=14), st.booleans())
def test_whatever_happens_timers_lose_nothing_and_nothing_flaps(story: Iterable[Any], ends: bool) -> None:
    world = World()
    for seconds, what, who in story:
        world.run(seconds)
        late = world.lasting() - world.raised()
        assert late <= {("alone", "")}, "its time may hang on others"
        world.tell(what, who)
    if ends:
        world.tell("conference-end", ANNA)
    world.run(100)
    conference = world.stands()
    if conference is None:
        return
    lasting = world.lasting(unknown=timedelta(hours=1))
    assert lasting - world.spent <= world.raised() <= lasting
    raised: dict[Key, Alert] = {}
    for alert in world.written:
        key = (alert.rule, alert.subject)
        if not alert.cleared:
            assert key not in raised, "raised while it stood"
            raised[key] = alert
            assert alert.at >= alert.since + timedelta(seconds=RULES[key[0]].after)
        else:
            lasted = alert.at - raised.pop(key).at
            lasted += timedelta(milliseconds=1)  # records of one moment are a microsecond apart
            assert lasted >= timedelta(seconds=CLEAR_AFTER) or conference.header.status == "completed"


def test_what_ceases_for_a_moment_only_leaves_the_alert_as_it_is() -> None:
    world = World()
    world.tell("participant-join", CLEO)
    world.tell("participant-hold", CLEO)
    world.run(8.5)
    world.tell("participant-unhold", CLEO)
    world.run(CLEAR_AFTER - 1)
    world.tell("participant-hold", CLEO)
    world.run(60)
    assert [alert.cleared for alert in world.written if alert.rule == "hold"] == [False]
    world.tell("participant-unhold", CLEO)
    ceased = world.now
    world.run(60)
    [raised, cleared] = [alert for alert in world.written if alert.rule == "hold"]
    assert raised.at == at(KINDS["hold"])
    assert cleared.at == ceased + timedelta(seconds=CLEAR_AFTER)


def test_silence_that_is_broken_may_be_an_alert_again() -> None:
    world = World()
    world.tell("participant-join", ANNA)
    world.run(10)
    world.tell("participant-modify", ANNA)
    broken = world.now
    world.run(60)
    silences = [(alert.cleared, alert.since) for alert in world.written if alert.rule == "silent"]
    assert silences == [(False, NOON), (True, NOON), (False, broken)]


def test_whoever_turns_out_not_to_start_the_conference_has_others_wait_each_time_anew() -> None:
    world = World()
    world.tell("participant-join", ANNA)
    world.tell("participant-join", CLEO)
    world.run(1)
    world.tell("turn", CLEO)
    world.run(KINDS["waiting"] - 1)
    assert world.raised() == {("waiting", "")}
    world.tell("turn", CLEO)
    for _ in range(2):
        world.run(60)
        assert not {("waiting", ""), ("not-started", "")} & world.raised()
        world.tell("turn", CLEO)
        world.run(60)
        assert {("waiting", ""), ("not-started", "")} <= world.raised()
        world.tell("turn", CLEO)


def test_an_alert_is_raised_behind_one_that_a_faster_clock_has_cleared() -> None:
    world = World()
    for who in (ANNA, BEN, CLEO):
        world.tell("participant-join", who)
    world.run(1)
    world.tell("participant-leave", BEN)
    world.now += timedelta(minutes=5)
    world.run(CLEAR_AFTER)
    assert ("crowded", "") not in world.raised()
    world.now -= timedelta(minutes=5)
    world.tell("participant-join", BEN)
    world.run(1)
    assert ("crowded", "") in world.raised()


@pytest.mark.parametrize("since", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_no_time_is_too_far_away_for_a_timer_or_a_verdict(since: datetime) -> None:
    conference = told(*GUESTS, HELD)
    long_ago = {
        sid: replace(each, hold_since=since, stays=(replace(each.stays[0], joined_at=since),))
        for sid, each in conference.participants.items()
    }
    far = Conference(replace(conference.header, heard_at=since, created_at=since), long_ago)
    now = at(10_000)
    for key, when in timers(RULES, None, far, now).at.items():
        assert milliseconds(when) >= 0
        alert, again = verdict(RULES, far, key, when, now)
        assert (alert is None) == (again is not None)


def test_what_failed_is_said_once_however_many_requests_are_finished_after_it() -> None:
    def asked(number: int, state: str) -> Action:
        awaits = ("announcement-end https://example.com/a",)
        moment = at(number)
        return Action(
            id=f"{number}",
            verb="update-conference",
            state=state,
            by="",
            requested_at=moment,
            expires_at=at(999),
            awaits=awaits,
        )

    rules = rules_of(rule("announcement-failed", clear_after=900))
    conference, shown, key = told(*BOTH), (asked(0, "failed"),), ("announcement-failed", "0")
    before = conference
    dues = []
    for number in range(1, 40):
        now = Conference(replace(conference.header, actions=shown), conference.participants)
        dues.append(key in timers(rules, before, now, at(number)).at)
        before, shown = now, (*shown, asked(number, "confirmed"))[-20:]
    assert dues == [True] + [False] * 38


def test_what_turns_out_to_have_been_so_for_longer_is_looked_at_sooner() -> None:
    late = (comes(BEN, 2, 5), comes(ANNA, 1, 0))
    change = timers(RULES, told(*late[:1]), told(*late), at(6))
    assert change.at["long", ""] == at(KINDS["long"])
    begun = (comes(ANNA, 1, 5), comes(BEN, 2, 5))
    change = timers(RULES, told(*begun), told(*begun, said("announcement-end", number=3, second=0)), at(6))
    assert change.at["long", ""] == at(KINDS["long"])


def test_a_participant_who_could_not_be_added_is_shown_for_a_while() -> None:
    world = World()
    world.tell("participant-join", ANNA)
    failed = goes(BEN, 2, 0, ReasonParticipantLeft="participant_add_failed")
    world.number = 2
    world.fold(event(failed))
    world.run(60)
    shown = [(alert.cleared, alert.subject, alert.at) for alert in world.written if alert.rule == "add-failed"]
    assert shown == [(False, BEN, NOON), (True, BEN, at(CLEAR_AFTER))]
