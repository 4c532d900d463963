"""For whoever watches the processes: is this one alive, and could it store a callback now?"""

from __future__ import annotations

import secrets

from flask import Blueprint, Response
from redis import RedisError

from app.store.inbox import Inbox
from app.store.spool import Spool
from app.web.answers import failure, json_value


def create(*, inbox: Inbox, spool: Spool | None) -> Blueprint:
    """`/healthz` and `/readyz`; neither needs a key or tells about conferences."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> Response:
        return json_value({"status": "alive"})

    @health.get("/readyz")
    def readyz() -> Response:
        spooled = spool.bytes() if spool else 0
        try:
            durable = inbox.probe(secrets.token_hex(4))
        except RedisError as error:
            if spool is None or not spool.has_room():
                return failure(
                    503,
                    f"Cannot store callbacks: {type(error).__name__}. Is Redis up, and has it memory and disk left?",
                )
            return json_value({"status": "degraded", "redis": type(error).__name__, "spooled_bytes": spooled})
        status = "degraded" if spooled else "ready"
        return json_value({"status": status, "append_only_file": durable, "spooled_bytes": spooled})

    return health
