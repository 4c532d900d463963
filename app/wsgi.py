"""The web process: settings -> Redis -> stores -> create_app. What gunicorn loads."""

from __future__ import annotations

import os
import threading
from functools import cache, partial

from flask import Flask

from app import failpoints
from app.store.connect import claim_layout, connect
from app.store.feed import Feed
from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from app.store.spool import Spool, lasts
from app.upstream.api import Twilio
from app.web import UPKEEP, create_app
from app.web.access import Grant
from config.logs import configure_logs
from config.settings import Settings, from_env
from workers.queue import nudge, wake_ups

PATIENCE = 1.0
"""Seconds that a request waits for Redis. Twilio gives up after 15, and drops the callback."""


def build(settings: Settings) -> Flask:
    """The application from settings. Redis may still be away. Raises ValueError where none is named."""
    if settings.redis_url is None or settings.rq_redis_url is None:
        raise ValueError("REDIS_URL is not set")
    state, reading, following = (connect(settings.redis_url, patience=PATIENCE) for _ in range(3))
    return create_app(
        inbox=Inbox(state, settings.shards, settings.inbox_limit, settings.durability),
        snapshots=Snapshots(reading, settings.shards),
        feed=Feed(following, settings.shards),
        nudge=partial(nudge, wake_ups(connect(settings.rq_redis_url, patience=PATIENCE))),
        keys={sid: account.keys for sid, account in settings.accounts.items()},
        parents={sid: account.parent for sid, account in settings.accounts.items() if account.parent},
        api_keys={key.name: Grant(key.secret, key.scope == "control", key.account) for key in settings.api_keys},
        public_url=settings.public_url,
        twilio=Twilio(settings.twilio_api_base_url, settings.logins()),
        reconciles=settings.reconcile,
        list_status=None if settings.list_status == "all" else settings.list_status,
        url_hosts=settings.url_hosts,
        prepare=cache(partial(claim_layout, state, settings.shards)),  # what it raises is not remembered
        spool=_spool(settings),
    )


def _spool(settings: Settings) -> Spool | None:
    if settings.spool == "off" or (settings.spool == "auto" and not lasts(settings.data_dir)):
        return None
    return Spool(settings.data_dir / "spool")


def main() -> Flask:
    """What gunicorn calls, once in each of its workers."""
    settings = from_env(os.environ)
    configure_logs(settings.log_level)
    failpoints.arm(settings.failpoints)
    app = build(settings)
    threading.Thread(target=app.extensions[UPKEEP].run, args=[threading.Event()], daemon=True, name="upkeep").start()
    return app
