"""The queue of wake-ups: asks for a drain, and lets a worker run nothing else.

RQ carries wake-ups, never callbacks. Whatever is lost in it costs the time until the next sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

NAME = "offhook"
DRAIN = "drain"
NEVER = -1
"""RQ's alarm would strike in the middle of a fold or of an answer from Redis. A drain ends itself instead."""


def wake_ups(redis: Redis) -> Queue:
    """The queue, on RQ's Redis. Its jobs are JSON: nothing that is read from it is ever unpickled."""
    return Queue(NAME, connection=redis, serializer=JSONSerializer)


def nudge(queue: Queue) -> None:
    """Ask for a drain, unless one is waiting to begin: whoever begins later finds all mail there is by then.

    Each job has an id of its own. With a shared id RQ would refuse, or silently drop, a wake-up that meets a running
    job. Raises redis.RedisError; the sweep makes up for it.
    """
    if queue.count == 0:
        queue.enqueue(DRAIN, result_ttl=0, failure_ttl=3600, job_timeout=NEVER)


def job_class(chores: Mapping[str, Callable[[], None]]) -> type[Job]:
    """A job that runs one of these by its name, and no other function or webhook that whoever wrote it has named."""

    class Chore(Job):
        def restore(self, raw_data: Any) -> None:
            super().restore(raw_data)
            self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
            self.webhooks = []

        @property
        def func(self) -> Callable[..., Any]:
            chore = chores.get(self.func_name or "")
            if chore is None:
                raise PermissionError(f"a job asks for something other than {', '.join(chores)}")
            return chore

    return Chore
