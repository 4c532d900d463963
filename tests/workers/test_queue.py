"""RQ carries wake-ups: one at a time, in JSON, and nothing that a stranger might have put there instead."""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback as Afterwards
from rq import SimpleWorker
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from tests.cast import ANNA, ROOM, callback, said
from tests.workers.post import kept, post
from workers import drain as drain_module
from workers.drain import Drain
from workers.queue import DRAIN, NAME, job_class, nudge, wake_ups

ran: list[str] = []
"""What has been run. A job can only name functions of a module, so they cannot keep their tally elsewhere."""


def planted(*_: Any) -> None:
    """What a stranger would like a worker to run."""
    ran.append("planted")


class Trap:
    """Runs what a stranger likes, when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[()]]:
        return planted, ()


@pytest.fixture(autouse=True)
def _clean_slate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has run; and a worker leaves the signals of whoever runs the tests alone."""
    ran.clear()
    monkeypatch.setattr(SimpleWorker, "_install_signal_handlers", lambda self: None)


def work(redis: Redis, chore: Callable[[], None] = lambda: ran.append("drain")) -> None:
    """Do whatever is in the queue, as the worker process does, and end."""
    worker = SimpleWorker(
        [wake_ups(redis)], connection=redis, job_class=job_class({DRAIN: chore}), serializer=JSONSerializer
    )
    worker.work(burst=True, logging_level="CRITICAL")


def jobs(redis: Redis) -> list[str]:
    return wake_ups(redis).job_ids


def test_a_nudge_makes_a_worker_drain(redis: Redis) -> None:
    nudge(wake_ups(redis))
    work(redis)
    assert ran == ["drain"]


def test_a_woken_worker_folds_what_waits(redis: Redis, drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "TICK", 0.02)
    monkeypatch.setattr(drain_module, "QUIET", 0.05)
    post(drain.inbox, callback(said("participant-join", ANNA, number=2, second=1)))
    nudge(wake_ups(redis))
    work(redis, drain.spell)
    assert ANNA in kept(drain.snapshots, ROOM).participants


def test_one_waiting_wake_up_stands_for_all(redis: Redis) -> None:
    for _ in range(5):
        nudge(wake_ups(redis))
    assert len(jobs(redis)) == 1


def test_a_wake_up_that_comes_while_a_drain_runs_is_kept_and_is_a_job_of_its_own(redis: Redis) -> None:
    began: list[str] = []

    def draining() -> None:
        began.append("drain")
        if len(began) == 1:
            assert jobs(redis) == []
            nudge(wake_ups(redis))
            nudge(wake_ups(redis))
            assert len(jobs(redis)) == 1

    nudge(wake_ups(redis))
    [first] = jobs(redis)
    work(redis, draining)
    assert began == ["drain", "drain"]
    nudge(wake_ups(redis))
    assert jobs(redis) != [first]


def test_a_drain_that_fails_does_not_keep_the_next_from_its_turn(redis: Redis) -> None:
    def failing() -> None:
        raise RuntimeError("of the drain's own making")

    nudge(wake_ups(redis))
    work(redis, failing)
    nudge(wake_ups(redis))
    work(redis)
    assert ran == ["drain"]


def test_what_was_done_leaves_nothing_behind(redis: Redis) -> None:
    nudge(wake_ups(redis))
    work(redis)
    assert [key for key in redis.scan_iter() if key.startswith(b"rq:job:")] == []


def test_a_wake_up_is_json_and_names_nothing_but_the_drain(redis: Redis) -> None:
    nudge(wake_ups(redis))
    [job] = jobs(redis)
    data = redis.hget(f"rq:job:{job}", "data")
    assert isinstance(data, bytes)
    assert json.loads(zlib.decompress(data)) == [DRAIN, None, [], {}]


@pytest.mark.parametrize("name", ["tests.workers.test_queue.planted", "os.system", "drain.spell", "workers.drain", ""])
def test_a_job_that_asks_for_anything_else_is_not_run(redis: Redis, tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    queue = wake_ups(redis)
    queue.enqueue(name, f"touch {trace}")
    queue.enqueue(DRAIN)
    work(redis)
    assert ran == ["drain"], "only the drain has run, and it has run in spite of the other job"
    assert not trace.exists()
    assert len(FailedJobRegistry(NAME, connection=redis, serializer=JSONSerializer)) == 1


def test_nothing_from_the_queue_is_ever_unpickled(redis: Redis) -> None:
    nudge(wake_ups(redis))
    [job] = jobs(redis)
    redis.hset(f"rq:job:{job}", "data", zlib.compress(pickle.dumps((DRAIN, None, [Trap()], {}))))
    work(redis)
    assert ran == []


@pytest.mark.parametrize("hook", ["on_success", "on_failure"])
def test_a_job_that_names_something_to_run_afterwards_does_not_get_it_run(redis: Redis, hook: str) -> None:
    afterwards: dict[str, Any] = {hook: Afterwards("tests.workers.test_queue.planted")}
    wake_ups(redis).enqueue(DRAIN, **afterwards)

    def draining() -> None:
        if hook == "on_failure":
            raise RuntimeError("of the drain's own making")

    work(redis, draining)
    assert ran == []


def test_the_refusal_says_what_a_job_may_ask_for(redis: Redis) -> None:
    job = job_class({DRAIN: lambda: None}).create("os.system", args=["true"], connection=redis)
    with pytest.raises(PermissionError, match="something other than drain"):
        job.perform()
