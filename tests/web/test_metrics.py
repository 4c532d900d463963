"""`/metrics` says how all of Offhook stands, in Prometheus' own format, at a cost that does not grow."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from app.store import keys
from app.store.spool import Spool
from tests.cast import ACCOUNT, ANNA, BEN, ROOM, said
from tests.conftest import SHARDS
from tests.costs import Tally
from tests.web.conftest import KEYS, OPERATOR, OUTSIDER, STANDING, Site, populate, room

Sample = tuple[str, tuple[tuple[str, str], ...]]


def samples(site: Site, who: tuple[str, str] = OPERATOR) -> dict[Sample, float]:
    """Every value by name and labels; the answer is one that Prometheus can read."""
    answer = site.ask("/metrics", who)
    assert (answer.status_code, answer.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(answer.get_data(as_text=True)):
        assert family.documentation
        for sample in family.samples:
            where = (sample.name, tuple(sample.labels.items()))
            assert where not in found
            found[where] = sample.value
    return found


def total(found: dict[Sample, float], name: str, **labels: str) -> float:
    """The sum of a name's values with these labels."""
    fitting = [value for (each, has), value in found.items() if each == name and set(labels.items()) <= set(has)]
    assert fitting, f"no {name} with {labels}"
    return sum(fitting)


def test_it_counts_what_became_of_callbacks_wherever_they_were_taken_in(site: Site, redis: Redis) -> None:
    joined = said("participant-join", ANNA, number=1, second=0)
    site.tell(joined, joined, said("participant-join", BEN, number=5, second=1))
    site.tell(said("participant-join", "no sid", number=6, second=2))
    site.send(joined, "a wrong signature")
    found = samples(site)
    assert total(found, "offhook_waiting") == 4
    assert total(found, "offhook_oldest_waiting_seconds") > 0
    assert total(found, "offhook_refused_total", reason="signature") == 1
    site.fold()
    for one in (site, Site(redis)):  # another process says the same
        found = samples(one)
        outcomes = {outcome: total(found, "offhook_callbacks_total", outcome=outcome) for outcome in ("folded", "dead")}
        assert outcomes == {"folded": 2, "dead": 1}
        assert total(found, "offhook_callbacks_total", outcome="repeated") == 1
        assert total(found, "offhook_dead_letters") == 1
        assert total(found, "offhook_waiting") == total(found, "offhook_oldest_waiting_seconds") == 0
        assert total(found, "offhook_refused_total", reason="signature") == 1
        assert total(found, "offhook_conferences") == 1


def test_it_tells_of_looks_at_twilio_missing_numbers_alerts_and_workers(site: Site, redis: Redis) -> None:
    found = samples(site)
    assert not [name for name, _ in found if name.startswith("offhook_rest")]
    assert total(found, "offhook_alerts_standing") == total(found, "offhook_sequence_numbers_missing") == 0
    assert total(found, "offhook_workers_alive") == total(found, "offhook_fold_version") == 0
    redis.hset(keys.told(0), mapping={"delivered": 3, "given_up": 2})
    redis.hset(keys.REST, mapping={"ok": 3, "rate_limited": 1, "snapshot:hole": 2, "snapshot:midway": 1})
    for shard in range(SHARDS):
        redis.zadd(keys.alerts(shard), {f"{room(shard)} alone": 1, f"{room(shard)} hold": 2})
        redis.hincrby(keys.gaps(shard), "missing", shard)
    site.inbox.announce(3)
    found = samples(site)
    assert total(found, "offhook_rest_requests_total") == 4
    assert total(found, "offhook_rest_requests_total", outcome="rate_limited") == 1
    assert total(found, "offhook_rest_snapshots_total", reason="hole") == 2
    assert total(found, "offhook_rest_snapshots_total") == 3
    assert total(found, "offhook_alerts_standing") == 2 * SHARDS
    assert total(found, "offhook_deliveries_total", outcome="given_up") == 2
    assert total(found, "offhook_deliveries_waiting") == 0
    assert total(found, "offhook_sequence_numbers_missing") == sum(range(SHARDS))
    assert (total(found, "offhook_workers_alive"), total(found, "offhook_fold_version")) == (1, 3)
    assert total(found, "offhook_build_info", version=version("offhook")) == 1


def test_conferences_are_those_of_the_key_and_nothing_names_one(several: Site) -> None:
    everything = several.ask("/metrics").get_data(as_text=True)
    assert total(samples(several), "offhook_conferences") == 7
    assert total(samples(several, OUTSIDER), "offhook_conferences") == 1
    for word in (*KEYS, ACCOUNT, room(1), ANNA, "Stand-up", "anna"):
        assert word not in everything


def test_a_spool_is_measured_where_there_is_one(redis: Redis, tmp_path: Path) -> None:
    assert ("offhook_spool_bytes", ()) not in samples(Site(redis))
    assert samples(Site(redis, spool=Spool(tmp_path)))["offhook_spool_bytes", ()] == 0


def test_it_costs_the_same_however_much_is_known(site: Site, redis: Redis, round_trips: list[int]) -> None:
    populate(site, [(ROOM, ACCOUNT, "Stand-up", STANDING, {ANNA: "anna"})])
    samples(site)
    tally = Tally(redis, round_trips)
    few = tally.of(lambda: samples(site))
    populate(site, [(room(n), ACCOUNT, "Stand-up", STANDING, {ANNA: "anna", BEN: "ben"}) for n in range(40)])
    many = tally.of(lambda: samples(site))
    assert (many.trips, many.commands) == (few.trips, few.commands)
    assert few.trips <= 10
    assert few.commands <= 14 * SHARDS + 3


def test_without_redis_it_says_so(nowhere: Redis) -> None:
    answer = Site(nowhere).ask("/metrics")
    assert answer.status_code == 503
    assert "Redis does not answer" in answer.get_json()["message"]
