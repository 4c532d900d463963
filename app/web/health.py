"""For whoever watches the processes: is this one alive, and could it store a callback now?"""

from __future__ import annotations

import secrets

from flask import Blueprint, Response
from redis import RedisError

from app.store.inbox import Inbox
from app.web.answers import failure, json_value


def create(*, inbox: Inbox) -> Blueprint:
    """`/healthz` and `/readyz`; neither needs a key or tells about conferences."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> Response:
        return json_value({"status": "alive"})

    @health.get("/readyz")
    def readyz() -> Response:
        try:
            durable = inbox.probe(secrets.token_hex(4))
        except RedisError as error:
            return failure(
                503,
                f"Cannot store callbacks: {type(error).__name__}. Is Redis up, and has it memory and disk left?",
            )
        return json_value({"status": "ready", "append_only_file": durable})

    return health
