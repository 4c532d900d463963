"""`/metrics`, for Prometheus: what stands in Redis for all processes, read when it is asked for.

Nothing is counted in this process: whichever of several answers, it answers the same. No label tells of a person, a
conference or an account.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from app.store.inbox import Inbox, lag
from app.store.outbox import Outbox
from app.store.snapshots import Snapshots
from app.store.spool import Spool
from app.web.access import Access
from app.web.queries import query
from app.web.refusals import Refusals

OUTCOMES = ("folded", "noted", "repeated", "dead")
"""What becomes of a callback, see `app.store.commits.Commit`."""
SNAPSHOT = "snapshot:"
"""Begins the fields of what is counted of Twilio's REST API that say why it was looked at."""


def create(*, inbox: Inbox, snapshots: Snapshots, access: Access, refusals: Refusals, spool: Spool | None) -> Blueprint:
    """`/metrics`, for whoever may read. `inbox` had better have connections of its own, as for `/readyz`."""
    metrics = Blueprint("metrics", __name__)

    @metrics.get("/metrics")
    def shown() -> Response:
        reader = access.reader()
        query()
        registry = CollectorRegistry()
        registry.register(_Standing(inbox, snapshots, refusals, spool, reader.account))
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    return metrics


class _Standing(Collector):
    """How the service stands, as metrics. Costs a fixed number of round trips, however much is known."""

    def __init__(
        self, inbox: Inbox, snapshots: Snapshots, refusals: Refusals, spool: Spool | None, account: str | None
    ) -> None:
        """`account` is whose conferences are counted; None: everybody's."""
        self.outbox = Outbox(snapshots.redis, snapshots.shards)
        self.inbox = inbox
        self.snapshots = snapshots
        self.refusals = refusals
        self.spool = spool
        self.account = account

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry that is used once need not look for doubles."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All of it. Raises redis.RedisError."""
        counters, backlog, newest = self.snapshots.counters(), self.inbox.backlog(), self.inbox.newest()
        rest, gaps = self.snapshots.rest_counts(), self.snapshots.gaps()
        yield _gauges("offhook_build_info", "Always 1; says which release answers.", "version", {version("offhook"): 1})
        yield _gauge("offhook_workers_alive", "Whether a worker has said of late that it is alive.", newest is not None)
        yield _gauge(
            "offhook_fold_version", "Of the newest fold among the workers that are alive; 0: none.", newest or 0
        )
        yield _counter(
            "offhook_callbacks",
            "Callbacks by what became of them.",
            "outcome",
            {outcome: counters[outcome] for outcome in OUTCOMES},
        )
        yield _counter("offhook_refused", "Requests refused, by reason.", "reason", self.refusals.totals())
        yield _gauges(
            "offhook_waiting",
            "Callbacks stored that no worker has folded yet.",
            "shard",
            {str(shard): standing.waiting for shard, standing in enumerate(backlog)},
        )
        yield _gauge(
            "offhook_oldest_waiting_seconds",
            "For how long the oldest of them has waited; 0: none waits.",
            lag(backlog, time.time()) or 0,
        )
        yield _gauges(
            "offhook_conferences", "Conferences that are kept, by status.", "status", self.snapshots.count(self.account)
        )
        yield _gauge("offhook_dead_letters", "Callbacks set aside, now.", self.snapshots.letters_left())
        yield _gauge(
            "offhook_sequence_numbers_missing",
            "Sequence numbers below the highest of their conference under which nothing has come.",
            gaps["missing"],
        )
        yield _counter(
            "offhook_looks",
            "Looks at Twilio's REST API that are in a conference's log, by whether they showed anything new.",
            "fruitful",
            {"yes": gaps["fruitful"], "no": gaps["looks"] - gaps["fruitful"]},
        )
        yield _gauge("offhook_alerts_standing", "Alerts that stand.", self.snapshots.alerts_standing())
        deliveries = self.outbox.standing()
        yield _gauge("offhook_deliveries_waiting", "Alerts that others have not been told yet.", deliveries.waiting)
        yield _counter(
            "offhook_deliveries",
            "Alerts that others were told, or could not be.",
            "outcome",
            {"delivered": deliveries.delivered, "given_up": deliveries.given_up},
        )
        yield _counter(
            "offhook_rest_requests",
            "Requests to Twilio's REST API on our own account, lists included, by what became of them.",
            "outcome",
            {name: count for name, count in rest.items() if not name.startswith(SNAPSHOT)},
        )
        yield _counter(
            "offhook_rest_snapshots",
            "Conferences as Twilio's REST API showed them, by why it was looked at.",
            "reason",
            {name.removeprefix(SNAPSHOT): count for name, count in rest.items() if name.startswith(SNAPSHOT)},
        )
        if self.spool is not None:
            yield _gauge(
                "offhook_spool_bytes", "Callbacks on this machine's disk, not yet in Redis.", self.spool.bytes()
            )


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
