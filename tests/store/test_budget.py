"""No account is asked more than its budget allows, by all workers together, and none while it fails."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from app.store.budget import BURST, Budget, Outcome
from app.store.snapshots import Snapshots
from tests.cast import ACCOUNT

OTHER = "AC" + "9" * 32
NOW = 1_795_348_800_000


@pytest.fixture
def budget(redis: Redis) -> Budget:
    """Two requests a second, and pauses that are not stretched."""
    return Budget(redis, 2.0, chance=lambda: 0.0)


@given(
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, BURST), st.integers(-400, 400)), max_size=40),
    st.sampled_from([0.1, 2.0, 7.5]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_no_time_are_there_more_requests_than_the_rate_and_one_burst(
    redis: Redis, tries: list[tuple[int, int, int]], rate: float
) -> None:
    redis.flushall()
    workers = [Budget(redis, rate), Budget(redis, rate)]
    now, made = NOW, []
    for number, (later, requests, skew) in enumerate(tries):
        now += later
        if workers[number % 2].take(ACCOUNT, now + skew * (number % 2), requests) == 0:
            made += [now] * requests
    for first in range(len(made)):
        for last in range(first, len(made)):
            span = made[last] - made[first] + 800  # the first clock 0.4 s behind, the last as much ahead
            assert last - first + 1 <= BURST + span * rate / 1000 + 0.001


def test_who_waits_as_long_as_is_said_is_let_through(budget: Budget) -> None:
    assert budget.take(ACCOUNT, NOW, 2) == 0
    assert budget.take(ACCOUNT, NOW, 2) == 1000
    assert budget.take(ACCOUNT, NOW + 400, 1) == 100
    assert budget.take(ACCOUNT, NOW + 1000, 2) == 0


def test_a_clock_that_is_behind_neither_fills_the_bucket_nor_empties_it(budget: Budget) -> None:
    assert budget.take(ACCOUNT, NOW + 10_000) == 0
    assert budget.take(ACCOUNT, NOW) == 0
    assert budget.take(ACCOUNT, NOW, 2) == 1000
    assert budget.take(ACCOUNT, NOW + 10_000, 2) == 1000


def test_what_is_given_back_is_there_again_and_no_more_than_that(budget: Budget) -> None:
    budget.give_back(ACCOUNT, 2)
    assert budget.take(ACCOUNT, NOW, 2) == 0
    budget.give_back(ACCOUNT, 1)
    assert budget.take(ACCOUNT, NOW, 1) == 0
    budget.give_back(ACCOUNT, 9)
    assert budget.take(ACCOUNT, NOW, 2) == 0
    assert budget.take(ACCOUNT, NOW, 1) == 500


def test_each_account_has_its_own(budget: Budget) -> None:
    assert [budget.take(each, NOW, 2) for each in (ACCOUNT, OTHER)] == [0, 0]
    budget.note(ACCOUNT, NOW, "unanswered")
    assert budget.take(OTHER, NOW + 1000, 2) == 0


@pytest.mark.parametrize("outcome", ["rate_limited", "failed", "unanswered"])
def test_each_failure_in_a_row_pauses_twice_as_long_up_to_a_minute(budget: Budget, outcome: Outcome) -> None:
    now, pauses = NOW, []
    for _ in range(8):
        pauses.append(budget.note(ACCOUNT, now, outcome))
        assert budget.take(ACCOUNT, now + pauses[-1] - 1) > 0
        now += pauses[-1]
        assert budget.take(ACCOUNT, now) == 0
    assert pauses == [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
    budget.note(ACCOUNT, now, "ok")
    assert budget.note(ACCOUNT, now, outcome) == 1000


def test_pauses_differ(redis: Redis) -> None:
    assert Budget(redis, chance=lambda: 1.0).note(ACCOUNT, NOW, "failed") == 1250


def test_failures_that_come_together_count_once(budget: Budget) -> None:
    assert [budget.note(ACCOUNT, NOW, "failed") for _ in range(4)] == [1000] * 4
    assert budget.note(ACCOUNT, NOW + 1000, "failed") == 2000


@pytest.mark.parametrize(("told", "pause"), [(7_000, 7_000), (0, 1), (10**12, 600_000), (None, 1000)])
def test_what_twilio_asks_for_is_kept_within_reason(budget: Budget, told: int | None, pause: int) -> None:
    assert budget.note(ACCOUNT, NOW, "rate_limited", told) == pause


def test_a_success_elsewhere_does_not_end_a_pause_that_was_asked_for(budget: Budget) -> None:
    budget.note(ACCOUNT, NOW, "rate_limited", 7_000)
    assert budget.note(ACCOUNT, NOW + 1, "ok") == 0
    assert budget.take(ACCOUNT, NOW + 2) == 6_998


def test_refused_credentials_are_not_tried_again_for_ten_minutes(budget: Budget) -> None:
    assert budget.note(ACCOUNT, NOW, "refused") == 600_000
    assert budget.take(ACCOUNT, NOW + 599_999) == 1


def test_requests_are_counted_by_what_became_of_them(redis: Redis, budget: Budget) -> None:
    redis.script_flush()
    outcomes: Any = ["ok", "ok", "not_found", "rate_limited", "refused", "failed", "unanswered"]
    for outcome in outcomes:
        budget.note(ACCOUNT, NOW, outcome)
    counts = {"failed": 1, "not_found": 1, "ok": 2, "rate_limited": 1, "refused": 1, "unanswered": 1}
    assert Snapshots(redis, 4).rest_counts() == counts
