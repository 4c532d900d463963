"""Tells others of alerts, in a thread of each worker process: sends what is due, and again until it is given up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
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
AT_ONCE = 8
"""To one endpoint, each in a thread of its own; most of the time there are none. Who is slow keeps only these."""
AGAIN_AFTER = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
"""Seconds after each failure until the next attempt, and a tenth more at random. After the last it is given up."""
FORSAKEN_AFTER = sum(AGAIN_AFTER)
"""Seconds after which what is due to an endpoint that is not known here is given up: nobody has taken it. While
settings are changed, one worker after the other, some do not know an endpoint yet."""
FORSAKEN_EVERY = 3_600.0
"""Seconds between two looks at that."""

log = structlog.get_logger("offhook.outbox")


class Sender:
    """Sends what is due to the endpoints that are configured."""

    def __init__(self, outbox: Outbox, endpoints: Sequence[Endpoint], clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self.outbox = outbox
        self.endpoints: Mapping[str, Endpoint] = {endpoint.name: endpoint for endpoint in endpoints}
        self.clock = clock
        self.threads: dict[str, list[threading.Thread]] = {name: [] for name in self.endpoints}
        """What is being sent, by endpoint."""
        self.ended = threading.Event()
        """Something has been sent since this was last cleared."""

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set. Redis being away is waited for."""
        looked_at = 0.0
        while not stop.wait(EVERY):
            try:
                if self.clock() - looked_at >= FORSAKEN_EVERY:
                    looked_at = self.clock()
                    self.give_up()
                while self.send() and not stop.is_set():
                    self.ended.wait(EVERY)
            except RedisError as error:
                log.warning("cannot send", error=type(error).__name__)
            except Exception:  # others must hear of what comes next
                log.exception("sending failed")

    def send(self) -> int:
        """Begin to send what is due, as far as its endpoint has places. How much that was. Raises redis.RedisError."""
        if not self.endpoints:
            return 0
        self.ended.clear()
        for name, threads in self.threads.items():
            self.threads[name] = [thread for thread in threads if thread.is_alive()]
        places = {name: AT_ONCE - len(threads) for name, threads in self.threads.items()}
        taken = self.outbox.take(places, int(self.clock() * 1000))
        for delivery in taken:
            thread = threading.Thread(target=self._see_to, args=[delivery], daemon=True, name="send")
            thread.start()
            self.threads[delivery.endpoint].append(thread)
        return len(taken)

    def give_up(self) -> None:
        """Give up what is for endpoints that nobody has any more. Raises redis.RedisError."""
        before = int((self.clock() - FORSAKEN_AFTER) * 1000)
        forsaken = self.outbox.forsaken(self.endpoints, before)
        if forsaken:
            self.outbox.settle(Settled(delivery, given_up="it is not configured any more") for delivery in forsaken)
            whose = sorted({delivery.endpoint for delivery in forsaken})
            log.warning("alerts were given up whose endpoint is not configured any more", count=len(forsaken), of=whose)

    def _see_to(self, delivery: Delivery) -> None:
        try:
            self.outbox.settle([self._settled(delivery)])
        except RedisError as error:  # it is sent again
            log.warning("cannot say what was sent", message=delivery.message_id, error=type(error).__name__)
        finally:
            self.ended.set()

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
        endpoint = self.endpoints[delivery.endpoint]
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
