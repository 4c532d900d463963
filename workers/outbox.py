"""Tells others of alerts, in a thread of each worker process: sends what is due, and again until it is given up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import structlog
from redis import RedisError

from app.alerts import Record, read_record
from app.conference import encode
from app.store.outbox import Delivery, Outbox, Settled
from app.upstream.webhooks import Endpoint, Outcome

EVERY = 1.0
"""Seconds between two looks."""
AT_ONCE = 4
"""Of one shard. All that is taken must have been sent before it is there for others again."""
SENDERS = 32
"""Threads that send. Most of the time there are none."""
AGAIN_AFTER = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
"""Seconds after each failure until the next attempt, and a tenth more at random. After the last it is given up."""

log = structlog.get_logger("offhook.outbox")


class Sender:
    """Sends what is due to the endpoints that are configured."""

    def __init__(self, outbox: Outbox, endpoints: Sequence[Endpoint], clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self.outbox = outbox
        self.endpoints: Mapping[str, Endpoint] = {endpoint.name: endpoint for endpoint in endpoints}
        self.clock = clock

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set. Redis being away is waited for."""
        while not stop.wait(EVERY):
            try:
                while self.send() and not stop.is_set():
                    pass
            except RedisError as error:
                log.warning("cannot send", error=type(error).__name__)
            except Exception:  # others must hear of what comes next
                log.exception("sending failed")

    def send(self) -> int:
        """Send once what is due. How much that was. Raises redis.RedisError; what was sent may be sent again then."""
        taken = self.outbox.take(list(self.endpoints), int(self.clock() * 1000), AT_ONCE)
        if taken:
            with ThreadPoolExecutor(min(SENDERS, len(taken)), thread_name_prefix="send") as threads:
                self.outbox.settle(threads.map(self._settled, taken))
        return len(taken)

    def _settled(self, delivery: Delivery) -> Settled:
        outcome = self._sent(delivery)
        if outcome.result == "delivered":
            return Settled(delivery)
        last = delivery.attempts >= len(AGAIN_AFTER)
        log.warning(
            "an alert was not delivered",
            message=delivery.message_id,
            endpoint=delivery.endpoint,
            attempt=delivery.attempts + 1,
            reason=outcome.reason,
            given_up=last or outcome.result == "gone",
        )
        if last or outcome.result == "gone":
            return Settled(delivery, given_up=outcome.reason)
        wait = AGAIN_AFTER[delivery.attempts] * (1 + random.random() / 10)  # noqa: S311  # spreads, hides nothing
        return Settled(delivery, again_at=int((self.clock() + wait) * 1000))

    def _sent(self, delivery: Delivery) -> Outcome:
        endpoint = self.endpoints.get(delivery.endpoint)
        if endpoint is None:
            return Outcome("gone", "it is not configured any more")
        try:
            body = message(read_record(delivery.record))
        except msgspec.DecodeError:
            return Outcome("gone", "a record that this release cannot read")
        try:
            return endpoint.send(f"alert_{delivery.message_id}", int(self.clock()), body)
        except Exception as error:  # a fault of ours must not keep back what others are to be told
            log.exception("sending failed", message=delivery.message_id)
            return Outcome("failed", type(error).__name__)


def message(record: Record) -> bytes:
    """The body that others are sent. Names and labels are not in it: whoever may know them asks for the conference."""
    alert = record.alert
    data: dict[str, Any] = {
        "conference_sid": record.conference_sid,
        "account_sid": record.account_sid,
        **{name: getattr(alert, name) for name in ("rule", "kind", "severity", "subject", "since", "at", "text")},
    }
    kind = "cleared" if alert.cleared else "raised"
    return encode({"type": f"conference.alert.{kind}", "timestamp": alert.at, "data": data})
