"""For whoever watches the processes: is this one alive, and could it store a callback now, as safely as is asked?"""

from __future__ import annotations

from flask import Blueprint, Response

from app.store.durability import examine
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
        found, wrong = examine(inbox.redis, inbox.mode)
        if wrong:
            return failure(503, " ".join(wrong))
        return json_value(
            {
                "status": "ready",
                "append_only_file": found.append_only_file,
                "durability": {
                    "mode": inbox.mode,
                    "fsync": found.fsync,
                    "eviction": found.eviction,
                    "replicas": found.replicas,
                },
            }
        )

    return health
