"""An operator can have a conference looked at; and web knows when it was not there to take callbacks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as Unconnected

from app.store import keys
from app.store.attendance import Attendance, Outage
from app.store.inbox import Full, Inbox
from app.store.looks import Due, Looks
from app.web import UPKEEP
from app.web.upkeep import Upkeep
from tests.cast import ROOM, said
from tests.conftest import SHARDS
from tests.store.test_looks import pending
from tests.web.conftest import OURS, OWNER, PATH, STEERER, Site, signature

LOOK = f"/api/conferences/{ROOM}/reconcile"
JOINED = said("conference-start", number=1, second=0)
SPEECH = said("participant-speech-start", "CA" + "1" * 32, number=2, second=1)


def test_who_may_control_has_a_conference_looked_at(redis: Redis, site: Site) -> None:
    site.tell(JOINED)
    site.fold()
    answer = site.http.post(LOOK, auth=STEERER)
    assert (answer.status_code, answer.get_json()) == (202, {"conference_sid": ROOM, "due": True})
    assert f"{ROOM} operator" in pending(redis)
    begun = Looks(redis, SHARDS).begin([Due(ROOM, "operator", 0)], time.time_ns() // 1_000_000)
    assert begun is not None
    assert begun.asked_by == STEERER[0]
    assert site.http.post(LOOK + "?x=1", auth=STEERER).status_code == 400
    assert site.http.post(LOOK.replace("b", "c"), auth=STEERER).status_code == 404


@pytest.mark.parametrize(
    ("more", "word"), [({"reconciles": False}, "OFFHOOK_RECONCILE"), ({"logins": {}}, "No Auth Token")]
)
def test_where_nobody_would_look_that_is_said(redis: Redis, more: dict[str, object], word: str) -> None:
    site = Site(redis, **more)  # type: ignore[arg-type]
    site.tell(JOINED)
    site.fold()
    answer = site.http.post(LOOK, auth=STEERER)
    assert answer.status_code == 409
    assert word in answer.get_json()["message"]
    assert f"{ROOM} operator" not in pending(redis)


def test_stats_count_our_own_requests(redis: Redis, site: Site) -> None:
    assert site.told("/api/stats")["twilio"] == {"requests": {}, "looks": {}}
    redis.hset(keys.REST, mapping={"ok": 4, "rate_limited": 1, "snapshot:hole": 2})
    assert site.told("/api/stats", OWNER)["twilio"] == {
        "requests": {"ok": 4, "rate_limited": 1},
        "looks": {"hole": 2},
    }


# Whether web was there


@dataclass
class Watch:
    """A timer, and the upkeep that goes by it. Redis has its own: what it was told is made older instead."""

    upkeep: Upkeep
    now: float = 1_000.0

    def after(self, seconds: float, *, runs: bool = False) -> None:
        """Look again so much later; `runs`: and each half second until then."""
        step = min(seconds, 0.5) if runs else seconds
        for _ in range(round(seconds / step) if seconds else 1):
            self.passes(step)
            self.upkeep.look()

    def passes(self, seconds: float) -> None:
        """Time goes by."""
        self.now += seconds
        attendance, milliseconds = self.upkeep.attendance, int(seconds * 1000)
        if attendance.said_at is not None:
            attendance.said_at -= milliseconds
            attendance.redis.hincrby(keys.ATTENDED, "at", -milliseconds)

    @property
    def outage(self) -> Outage | None:
        return self.upkeep.attendance.outage()


def watched(site: Site) -> Watch:
    """One web process that has just begun."""
    watch = Watch(site.app.extensions[UPKEEP])
    watch.upkeep.timer = lambda: watch.now
    watch.after(0)
    return watch


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[None]:
    """A block in which nothing can be stored."""

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "append_all", fail)
        yield


def away(*_: object) -> None:
    raise Unconnected("away")


def test_a_web_process_says_once_a_second_that_it_is_there(
    redis: Redis, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, beats = watched(site), []
    beat = watch.upkeep.attendance.beat

    def noted(taken_for: int, refused_for: int | None = None) -> None:
        beats.append(taken_for)
        beat(taken_for, refused_for)

    monkeypatch.setattr(watch.upkeep.attendance, "beat", noted)
    for _ in range(5):
        watch.after(0.5)
    assert beats == [1000, 2000]
    assert abs(int(redis.hget(keys.ATTENDED, "at") or 0) - time.time() * 1000) < 5_000
    assert watch.outage is None


def test_when_all_of_web_was_away_the_first_that_comes_back_knows(site: Site) -> None:
    watch = watched(site)
    watch.after(14)
    assert watch.outage is None
    watch.after(16)
    assert watch.outage is not None
    assert 15_900 < watch.outage.until - watch.outage.since < 20_000


def test_that_redis_was_away_and_everything_spooled_is_no_outage(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watched(site)
    with monkeypatch.context() as patch:
        patch.setattr(Attendance, "beat", away)
        watch.after(20, runs=True)
    watch.after(1)
    assert watch.outage is None


def test_that_the_spool_takes_long_to_be_emptied_is_no_outage(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watched(site)

    with monkeypatch.context() as patch:
        patch.setattr(watch.upkeep.intake, "empty_spool", lambda: watch.passes(20))
        watch.after(0.5)
    assert watch.outage is None


def test_who_comes_while_redis_is_away_knows_how_long_nobody_was_there(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched(site)
    with monkeypatch.context() as patch:
        patch.setattr(Attendance, "beat", away)
        site.app.extensions[UPKEEP].rested_at = None  # a new process
        watch = watched(site)
        watch.after(16)
        watch.after(20, runs=True)
    watch.after(1)
    assert watch.outage is not None


@pytest.mark.parametrize("error", [Full("full"), Unconnected("away")], ids=["no room", "away"])
def test_a_callback_that_had_to_be_refused_is_an_outage(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    watch = watched(site)
    with failing(monkeypatch, error):
        answer = site.send(JOINED, signature(OURS + PATH, JOINED))
        assert answer.status_code == 503
    watch.after(1)
    assert watch.outage is not None
    assert site.app.extensions[UPKEEP].refusals.lost_since is None, "it is told once"


def test_a_refusal_that_is_none_of_twilios_and_speech_are_no_outage(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watched(site)
    with failing(monkeypatch, Full("full")):
        assert site.send(SPEECH, signature(OURS + PATH, SPEECH)).status_code == 503
        assert site.send(JOINED, "forged").status_code == 403
    watch.after(1)
    assert watch.outage is None


def test_what_was_refused_while_redis_was_away_is_told_once_it_is_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watched(site)
    with failing(monkeypatch, Unconnected("away")), monkeypatch.context() as patch:
        patch.setattr(Attendance, "beat", away)
        site.send(JOINED, signature(OURS + PATH, JOINED))
        watch.after(1)
    assert watch.outage is None
    watch.after(1)
    assert watch.outage is not None
