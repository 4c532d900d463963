"""The worker process goes on folding whatever is the matter with RQ, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from tests.cast import ACCOUNT, ANNA, ROOM, callback, said
from tests.conftest import SHARDS
from tests.servers import Server
from tests.system.house import awaited
from tests.workers.post import kept, post

START = callback(said("conference-start", number=1, second=0))
JOINED = callback(said("participant-join", ANNA, number=2, second=1))


@contextmanager
def working(redis_url: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process."""
    settings = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": "a-pretend-token",
        "REDIS_URL": redis_url,
        "OFFHOOK_SHARDS": str(SHARDS),
        "OFFHOOK_RECONCILE": "off",
        **environ,
    }
    with subprocess.Popen([sys.executable, "-m", "workers"], env=settings, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> int:
    """Its status, after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    return process.wait(30)


def revision(snapshots: Snapshots) -> int:
    known = snapshots.conferences([ROOM])
    return known[0].header.revision if known else 0


def test_with_rq_away_what_comes_is_folded_and_a_signal_ends_it(
    redis: Redis, valkey: str, inbox: Inbox, snapshots: Snapshots, tmp_path: Path
) -> None:
    with working(valkey, RQ_REDIS_URL=f"unix://{tmp_path}/nobody.sock") as process:
        post(inbox, START)
        awaited("the first to be folded", lambda: revision(snapshots) == 1)
        post(inbox, JOINED)
        awaited("the second to be folded", lambda: revision(snapshots) == 2)
        assert inbox.attended()
        assert ended(process) == 0


def test_with_the_memory_full_a_worker_that_starts_folds_what_waits(serve: Callable[..., Server]) -> None:
    server = serve()
    redis = server.client()
    inbox, snapshots = Inbox(redis, SHARDS), Snapshots(redis, SHARDS)
    with working(server.url) as process:
        post(inbox, START)
        awaited("the first to be folded", lambda: revision(snapshots) == 1)
        process.kill()
        process.wait()
    post(inbox, JOINED)
    redis.config_set("maxmemory", "1")
    with working(server.url) as process:
        awaited("the second to be folded", lambda: revision(snapshots) == 2)
        assert kept(snapshots, ROOM).participants.keys() == {ANNA}
        redis.config_set("maxmemory", "0")
        post(inbox, callback(said("participant-mute", ANNA, number=3, second=2)))
        awaited("the third to be folded", lambda: revision(snapshots) == 3)
        assert ended(process) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_worker_well(redis: Redis, valkey: str, inbox: Inbox, number: int) -> None:
    with working(valkey) as process:
        awaited("a worker", inbox.attended)
        process.send_signal(number)
        assert process.wait(30) == 0
