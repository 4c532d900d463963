"""For whoever watches the processes: is this one alive, and could it store a callback now, as safely as is asked?"""

from __future__ import annotations

from flask import Blueprint, Response

from app.store.durability import examine
from app.store.inbox import Inbox
from app.store.spool import Spool
from app.web.answers import failure, json_value


def create(*, inbox: Inbox, spool: Spool | None) -> Blueprint:
    """`/healthz` and `/readyz`; neither needs a key or tells about conferences.

    `inbox` had better have connections of its own: who asks must not keep callbacks waiting.
    """
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> Response:
        return json_value({"status": "alive"})

    @health.get("/readyz")
    def readyz() -> Response:
        examined = examine(inbox.redis, inbox.mode)
        answer = {
            "append_only_file": examined.found.append_only_file,
            "durability": {
                "mode": inbox.mode,
                "fsync": examined.found.fsync,
                "eviction": examined.found.eviction,
                "replicas": examined.found.replicas,
            },
            "spooled_bytes": spool.bytes() if spool else 0,
        }
        if examined.failure is not None and spool is not None and spool.has_room():
            reasons = ["Callbacks are written to the spool.", *examined.sentences]
        elif examined.sentences:
            return failure(503, " ".join(examined.sentences))
        else:
            reasons = [_sending(spool)] if spool is not None and answer["spooled_bytes"] else []
            if not inbox.attended():
                reasons.append("No worker has been alive for a while: what is stored is not folded.")
        return json_value({"status": "degraded" if reasons else "ready", "reasons": reasons, **answer})

    return health


def _sending(spool: Spool) -> str:
    if spool.trouble:
        return f"Spooled callbacks could not be sent the last time ({spool.trouble})."
    return "Spooled callbacks are being sent."
