"""For whoever watches the processes: is this one alive, and could it store a callback now, as safely as is asked?"""

from __future__ import annotations

from flask import Blueprint, Response

from app.store.durability import examine
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
        examined = examine(inbox.redis, inbox.mode)
        if examined.wrong or (examined.failure and not (spool and spool.has_room())):
            return failure(503, " ".join(examined.sentences))
        if examined.failure:
            redis = type(examined.failure).__name__
            return json_value({"status": "degraded", "redis": redis, "spooled_bytes": spooled})
        return json_value(
            {
                "status": "degraded" if spooled else "ready",
                "append_only_file": examined.found.append_only_file,
                "durability": {
                    "mode": inbox.mode,
                    "fsync": examined.found.fsync,
                    "eviction": examined.found.eviction,
                    "replicas": examined.found.replicas,
                },
                "spooled_bytes": spooled,
            }
        )

    return health
