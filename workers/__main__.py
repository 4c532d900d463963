"""The worker process: settings -> Redis -> drain, under RQ's SimpleWorker. `python -m workers`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial

import structlog
from redis import RedisError
from rq import SimpleWorker
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer

from app import failpoints
from app.store.attendance import Attendance
from app.store.budget import Budget
from app.store.connect import WrongLayout, claim_layout, connect, until_answering
from app.store.durability import examine
from app.store.inbox import Inbox
from app.store.looks import Looks
from app.store.outbox import Outbox
from app.store.snapshots import Snapshots
from app.upstream.api import Twilio
from app.upstream.webhooks import Endpoint
from config.logs import configure_logs
from config.settings import Settings, SettingsError, from_env
from workers.alerts import Lookout
from workers.drain import Drain
from workers.outbox import Sender
from workers.queue import DRAIN, job_class, nudge, wake_ups
from workers.reconcile import Reconcile
from workers.sweep import Sweep
from workers.watch import watch

PATIENCE = 5.0
"""Seconds that the worker waits for Redis to answer; longer than any of its blocking reads."""
WORKER_LASTS = 20
"""Seconds after which RQ takes a silent worker for dead. It waits for a job 15 s less at a time."""

BEFORE_ANOTHER_TRIAL = 1.0
"""Seconds, after RQ's Redis was lost."""

log = structlog.get_logger("offhook.worker")

stop = threading.Event()
"""Set once a signal has asked this process to end, after the job it may be at."""


class Worker(SimpleWorker):
    """RQ's in-process worker: connections and imports stay warm between jobs, and a crash ends it whole."""

    max_connection_wait_time = 2.0

    connection_timeout = 8
    """Seconds, longer than RQ waits for a job. So late it is noticed that a connection has gone without a word."""

    def handle_warm_shutdown_request(self) -> None:
        """RQ calls this on the first signal."""
        stop.set()

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()  # type: ignore[no-untyped-call]  # RQ has left it without
        if stop.is_set():  # a signal came before these were there to hear it
            raise StopRequested


def main() -> None:
    """Work until SIGTERM or SIGINT, then end with status 0. Any other end wants a restart."""
    try:
        settings = from_env(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    if settings.redis_url is None:
        sys.exit("REDIS_URL is not set. `offhook run` starts a Redis of its own; a worker by itself needs to be told.")
    configure_logs(settings.log_level)
    failpoints.arm(settings.failpoints)
    try:
        drain, sweep = build(settings)
    except (WrongLayout, RedisError) as error:
        sys.exit(f"The worker cannot start: {error}")
    for number in (signal.SIGTERM, signal.SIGINT):  # until RQ has its own
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=sweep.run, args=[stop], daemon=True, name="sweep").start()
    if (reconcile := reconciling(settings, sweep)) is not None:
        threading.Thread(target=reconcile.run, args=[stop], daemon=True, name="reconcile").start()
    threading.Thread(target=watch, args=[[drain, sweep.drain], stop], daemon=True, name="watch").start()
    threading.Thread(target=sender(settings).run, args=[stop], daemon=True, name="outbox").start()
    log.info("working", pid=os.getpid())
    with suppress(StopRequested):
        while not stop.is_set():
            try:
                of_rq(settings, drain).work(logging_level="WARNING")
            except RedisError as error:
                log.warning("RQ's Redis gives out no jobs", error=type(error).__name__)
            stop.wait(BEFORE_ANOTHER_TRIAL)


def build(settings: Settings) -> tuple[Drain, Sweep]:
    """What a worker does, and its sweep, from settings. Raises redis.RedisError, or `WrongLayout`."""
    state = connect(str(settings.redis_url), patience=PATIENCE)
    until_answering(state)
    claim_layout(state, settings.shards)
    if wrong := examine(state, settings.durability).sentences:
        log.error("Redis is not what OFFHOOK_DURABILITY asks for", asked=settings.durability, wrong=wrong)
    inbox = Inbox(state, settings.shards, settings.inbox_limit)
    wake = partial(nudge, wake_ups(connect(str(settings.rq_redis_url), patience=PATIENCE)))
    snapshots = Snapshots(state, settings.shards)
    rules = settings.alert_rules
    of_jobs, of_sweep = (
        Drain(
            inbox=inbox,
            snapshots=snapshots,
            nudge=wake,
            stopping=stop.is_set,
            rules=rules,
            outgoing=bool(settings.alert_webhooks),
            heals=settings.reconcile,
        )
        for _ in range(2)
    )
    return of_jobs, Sweep(inbox, snapshots, wake, of_sweep, [Lookout(inbox, snapshots, rules, wake).look])


def sender(settings: Settings) -> Sender:
    """Who tells others of alerts."""
    endpoints = [
        Endpoint(url, settings.alert_secrets, private=settings.alert_webhooks_private)
        for url in settings.alert_webhooks
    ]
    return Sender(Outbox(connect(str(settings.redis_url), patience=PATIENCE), settings.shards), endpoints)


def reconciling(settings: Settings, sweep: Sweep) -> Reconcile | None:
    """What looks at Twilio's REST API, beside this sweep. None: nothing is to, or there are no credentials for it."""
    logins = settings.logins()
    if not settings.reconcile or not logins:
        return None
    state = connect(str(settings.redis_url), patience=PATIENCE)
    return Reconcile(
        inbox=Inbox(state, settings.shards, settings.inbox_limit),
        snapshots=Snapshots(state, settings.shards),
        looks=Looks(state, settings.shards),
        budget=Budget(state, settings.reconcile_rate),
        attendance=Attendance(state),
        twilio=Twilio(settings.twilio_api_base_url, logins),
        nudge=sweep.nudge,
        adopts=settings.adopt,
    )


def of_rq(settings: Settings, drain: Drain) -> Worker:
    """RQ's worker. Raises redis.RedisError."""
    connection = connect(str(settings.rq_redis_url), patience=Worker.connection_timeout)
    return Worker(
        [wake_ups(connection)],
        connection=connection,
        job_class=job_class({DRAIN: drain.spell}),
        serializer=JSONSerializer,
        worker_ttl=WORKER_LASTS,
        maintenance_interval=60,
        log_job_description=False,
    )


if __name__ == "__main__":
    main()
