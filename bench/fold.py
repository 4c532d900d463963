"""Empties inboxes that were filled beforehand, in a process of its own, and prints how many seconds it took.

`python -m bench.fold offhook` is our drain; `python -m bench.fold flask_rq` is RQ's SimpleWorker, a job a callback.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from functools import partial

from rq import SimpleWorker

from app.store.commits import Commit
from app.store.connect import connect
from app.store.inbox import Batch, Inbox
from app.store.snapshots import Snapshots
from bench.peers import flask_rq
from config.settings import from_env
from workers.drain import Drain
from workers.queue import nudge, wake_ups

STILL = 0.5
"""Seconds without a commit after which the inboxes are empty."""


class Timed(Snapshots):
    """Snapshots that remember when they last committed."""

    committed_at = float("inf")

    def commit(self, work: Iterable[tuple[Batch, Commit]], fold_version: int) -> list[int | None]:
        """Commit, and look at the clock."""
        left = super().commit(work, fold_version)
        self.committed_at = time.perf_counter()
        return left


def offhook() -> float:
    """Seconds from the beginning of one spell to its last commit."""
    settings = from_env(os.environ)
    redis = connect(str(settings.redis_url), patience=5.0)
    snapshots = Timed(redis, settings.shards)
    drain = Drain(
        inbox=Inbox(redis, settings.shards),
        snapshots=snapshots,
        nudge=partial(nudge, wake_ups(redis)),
        stopping=lambda: time.perf_counter() - snapshots.committed_at > STILL,
    )
    began = time.perf_counter()
    drain.spell()
    return snapshots.committed_at - began


def rq() -> float:
    """Seconds that the worker took for all jobs of its queue. It is spared its log."""
    worker = SimpleWorker([flask_rq.queue], connection=flask_rq.redis, log_job_description=False)
    began = time.perf_counter()
    worker.work(burst=True, logging_level="WARNING")
    return time.perf_counter() - began


if __name__ == "__main__":
    print({"offhook": offhook, "flask_rq": rq}[sys.argv[1]]())
