"""What one would write first for a live feed: a Redis subscription for each stream, and each message made JSON anew.

The same application takes the callbacks, and the same worker publishes the changes; only the stream is another. It does
less: no snapshot, no ids, nothing to take up again after a lost connection. Only its speed is measured.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from flask import Response
from redis import Redis

from app.wsgi import main

app = main()
redis = Redis.from_url(os.environ["REDIS_URL"], max_connections=5000)


@app.get("/naive/stream")
def stream() -> Response:
    """Every change from now on."""

    def frames() -> Iterator[str]:
        with redis.pubsub() as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe("offhook:conferences")
            for message in pubsub.listen():
                if message["type"] == "subscribe":
                    yield "event: beat\ndata: {}\n\n"
                else:
                    yield f"event: change\ndata: {json.dumps(json.loads(message['data']))}\n\n"

    return Response(frames(), content_type="text/event-stream")
