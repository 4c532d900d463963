"""Each mode asks of Redis what it says, what is wrong is told with what to do, and what was acknowledged is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, get_args

import pytest
from redis import Redis, RedisError
from redis.exceptions import OutOfMemoryError, ResponseError

from app.events import Callback
from app.store.connect import connect
from app.store.durability import (
    REPLICA_WITHIN,
    Found,
    Mode,
    NotReplicated,
    examine,
    inspect,
    replicated,
    shortfall,
    waits,
    wrong,
)
from app.store.inbox import Inbox, Mail, Posted
from tests.cast import callback
from tests.claims import claim
from tests.conftest import SHARDS
from tests.servers import Server
from tests.system.house import awaited, free_port

MODES: tuple[Mode, ...] = get_args(Mode)
ON_DISK = {"everysec", "always", "replica", "replica-always"}
BEFORE_THE_ANSWER = {"always", "replica-always"}
ON_A_REPLICA = {"replica", "replica-always"}

GOOD = Found(True, True, "always", False, "noeviction", True, 1)

Serve = Callable[..., Server]


def numbered(number: int) -> Callback:
    return callback({"Number": str(number)}, received_at=number)


def append(inbox: Inbox, number: int = 0, shard: int = 0) -> None:
    """Store one callback as web does. Raises what it fails with."""
    inbox.append(shard, numbered(number))


def acknowledged(inbox: Inbox) -> bool:
    try:
        append(inbox)
    except RedisError:
        return False
    return True


def stored(redis: Redis) -> set[int]:
    """The numbers of all callbacks that are in the inboxes."""
    inbox = Inbox(redis, SHARDS)
    batches = [claim(inbox, shard, 1_000_000) for shard in range(SHARDS)]
    entries = [entry for batch in batches if batch is not None for entry in batch.entries]
    return {entry.callback.received_at for entry in entries if isinstance(entry, Mail)}


# What is wrong


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("found", [GOOD, Found()], ids=["all is good", "nothing is known"])
def test_nothing_is_wrong_where_all_is_good_or_not_known(found: Found, mode: Mode) -> None:
    assert wrong(found, mode) == []


@pytest.mark.parametrize(
    ("change", "modes", "advice"),
    [
        ({"append_only_file": False}, ON_DISK, "set appendonly yes"),
        ({"append_only_file": False, "fsync": "everysec", "fsync_rests": True}, ON_DISK, "set appendonly yes"),
        ({"written": False}, ON_DISK, "disk is full"),
        ({"fsync": "everysec"}, BEFORE_THE_ANSWER, "(appendfsync everysec): set appendfsync always"),
        ({"fsync": "no"}, ON_DISK, "(appendfsync no): set appendfsync"),
        ({"fsync_rests": True}, ON_DISK, "set no-appendfsync-on-rewrite no"),
        ({"eviction": "allkeys-lru"}, ON_DISK, "(maxmemory-policy allkeys-lru): set maxmemory-policy noeviction"),
        ({"eviction": "volatile-ttl"}, ON_DISK, "(maxmemory-policy volatile-ttl): set maxmemory-policy noeviction"),
        ({"primary": False}, ON_DISK, "Set REDIS_URL to the primary"),
        ({"replicas": 0}, ON_A_REPLICA, "start one with replicaof"),
        ({"replicas": 2}, set(), ""),
    ],
)
def test_each_fault_is_told_once_in_the_modes_that_it_matters_to(
    change: dict[str, Any], modes: set[Mode], advice: str
) -> None:
    told = {mode: wrong(GOOD._replace(**change), mode) for mode in MODES}
    assert {mode for mode, sentences in told.items() if sentences} == modes
    for mode in modes:
        [sentence] = told[mode]
        assert advice in sentence
        assert sentence.endswith(".")


def test_several_faults_are_all_told() -> None:
    bad = Found(False, True, "no", False, "allkeys-lru", False, 0)
    assert len(wrong(bad, "replica")) == 4


@pytest.mark.parametrize(
    ("answers", "lacking"),
    [
        ([], None),
        ([1], None),
        ([3], None),
        ([1, [1, 1]], None),
        ([0], "No replica had it within"),
        ([0, [1, 0]], "No replica had it within"),
        ([1, [1, 0]], "appendfsync always on the replica too"),
        ([1, [0, 1]], "set appendfsync always, or"),
        ([1, ResponseError("unknown command 'WAITAOF'")], "unknown command 'WAITAOF'"),
        ([ResponseError("UNBLOCKED force unblock")], "UNBLOCKED"),
    ],
)
def test_too_few_replicas_are_a_shortfall(answers: list[Any], lacking: str | None) -> None:
    found = shortfall(answers)
    assert (found is None) == (lacking is None)
    assert (lacking or "") in str(found)


def test_a_shortfall_concerns_all_that_had_gone_well() -> None:
    full = OutOfMemoryError("full")
    assert replicated([True, full, False], [1]) == [True, full, False]
    first, second, third = replicated([True, full, False], [0])
    assert second is full
    assert isinstance(first, NotReplicated)
    assert first is third


# What Redis says of itself


def test_what_redis_says_of_itself_is_read_in_one_round_trip(redis: Redis, round_trips: list[int]) -> None:
    redis.ping()
    round_trips.clear()
    assert inspect(redis) == GOOD._replace(replicas=0)
    assert len(round_trips) == 1


@pytest.mark.parametrize(
    ("name", "value", "field", "found"),
    [
        ("appendonly", "no", "append_only_file", False),
        ("appendfsync", "everysec", "fsync", "everysec"),
        ("appendfsync", "no", "fsync", "no"),
        ("no-appendfsync-on-rewrite", "yes", "fsync_rests", True),
        ("maxmemory-policy", "allkeys-lru", "eviction", "allkeys-lru"),
        ("replicaof", "127.0.0.1 1", "primary", False),
    ],
)
def test_each_setting_is_found_as_it_is(serve: Serve, name: str, value: str, field: str, found: object) -> None:
    settings = {name.replace("-", "_"): value}
    assert inspect(serve(**settings).client()) == GOOD._replace(replicas=0)._replace(**{field: found})


@pytest.mark.parametrize(
    ("refused", "found"),
    [
        ("-config", GOOD._replace(fsync=None, fsync_rests=None, replicas=0)),
        ("-info", Found(fsync="always", fsync_rests=False)),
        ("-config -info", Found()),
    ],
)
def test_what_redis_refuses_to_say_is_not_known_and_not_wrong(
    redis: Redis, valkey: str, refused: str, found: Found
) -> None:
    redis.execute_command("ACL", "SETUSER", "guest", "reset", "on", ">secret", "~*", "&*", "+@all", *refused.split())
    guest = connect(valkey.replace("unix://", "unix://guest:secret@"), patience=5.0)
    try:
        for mode in ("memory", "everysec", "always"):
            assert examine(guest, mode) == (found, [], None)
    finally:
        guest.close()
        redis.execute_command("ACL", "DELUSER", "guest")


def test_of_a_redis_that_is_away_only_that_is_told() -> None:
    nobody = connect("unix:///nonexistent/valkey.sock", patience=1.0)
    for mode in MODES:
        examined = examine(nobody, mode)
        assert examined.found == Found()
        [sentence] = examined.sentences
        assert sentence.startswith("Cannot store callbacks: ConnectionError.")


def test_in_every_mode_nothing_may_be_stored_on_a_replica(serve: Serve) -> None:
    redis = serve(replicaof="127.0.0.1 1").client()
    for mode in MODES:
        assert any("Cannot store callbacks: ReadOnlyError" in sentence for sentence in examine(redis, mode).sentences)


# A replica has it


class Pair:
    """A primary and its replica."""

    def __init__(self, serve: Serve, **settings: str) -> None:
        port = free_port()
        self.primary = serve(port=str(port))
        self.redis = self.primary.client()
        self.replica = serve(replicaof=f"127.0.0.1 {port}", **settings)
        self.follows()

    def follows(self) -> None:
        awaited("the replica to follow", lambda: inspect(self.redis).replicas == 1)


@pytest.fixture
def pair(serve: Serve) -> Pair:
    return Pair(serve)


def refusal(inbox: Inbox) -> str:
    """What is said of a callback that is not acknowledged, which must come in time for the sender to be told."""
    began = monotonic()
    with pytest.raises(NotReplicated) as caught:
        append(inbox)
    # two questions of so long each, which Redis rounds up to its next tenth of a second, on a machine that is busy
    assert monotonic() - began < 2 * (REPLICA_WITHIN + 100) / 1000 + 1
    return str(caught.value)


def test_while_no_replica_has_it_a_callback_is_stored_and_not_acknowledged(pair: Pair) -> None:
    inbox = Inbox(pair.redis, SHARDS, mode="replica")
    awaited("an acknowledgement", lambda: acknowledged(inbox))
    before = inbox.backlog()[0].waiting
    pair.replica.pause()
    assert "No replica had it within" in refusal(inbox)
    assert any("No replica had it within" in sentence for sentence in examine(pair.redis, "replica").sentences)
    assert inbox.backlog()[0].waiting == before + 1
    pair.replica.go_on()
    awaited("an acknowledgement after the pause", lambda: acknowledged(inbox))
    assert awaited("nothing wrong", lambda: examine(pair.redis, "replica").sentences == [])
    pair.replica.kill()
    assert "No replica had it within" in refusal(inbox)
    awaited("its end to be noticed", lambda: inspect(pair.redis).replicas == 0)
    assert any("start one with replicaof" in sentence for sentence in examine(pair.redis, "replica").sentences)
    pair.replica.start()
    awaited("an acknowledgement after its return", lambda: acknowledged(inbox))
    assert awaited("nothing wrong", lambda: examine(pair.redis, "replica").sentences == [])


@pytest.mark.parametrize("mode", ["memory", "everysec", "always"])
def test_other_modes_do_not_wait_for_a_replica(pair: Pair, mode: Mode) -> None:
    pair.replica.pause()
    append(Inbox(pair.redis, SHARDS, mode=mode))
    pair.replica.go_on()


@pytest.mark.parametrize("mode", ["replica", "replica-always"])
def test_waiting_for_a_replica_takes_no_further_round_trip(pair: Pair, round_trips: list[int], mode: Mode) -> None:
    inbox = Inbox(pair.redis, SHARDS, mode=mode)
    awaited("an acknowledgement", lambda: acknowledged(inbox))
    round_trips.clear()
    inbox.append_all([Posted(shard, numbered(shard)) for shard in range(SHARDS)])
    assert len(round_trips) == 1


def test_a_callback_is_acknowledged_though_the_script_was_forgotten(pair: Pair) -> None:
    inbox = Inbox(pair.redis, SHARDS, mode="replica")
    awaited("an acknowledgement", lambda: acknowledged(inbox))
    pair.redis.script_flush()
    outcomes = inbox.append_all([Posted(shard, numbered(shard)) for shard in range(SHARDS)])
    assert outcomes == [False, True, True, True]
    pair.replica.pause()
    pair.redis.script_flush()
    assert "No replica had it within" in refusal(inbox)
    pair.replica.go_on()


def test_on_the_disk_of_a_replica_is_soon_enough_to_be_waited_for(pair: Pair) -> None:
    inbox = Inbox(pair.redis, SHARDS, mode="replica-always")
    awaited("an acknowledgement", lambda: acknowledged(inbox))
    # WAITAOF by itself finds a replica's disk behind, three times of four, and a second later right
    assert sum(acknowledged(inbox) for _ in range(20)) > 15


@pytest.mark.parametrize("settings", [{"appendonly": "no"}, {"appendfsync": "everysec"}], ids=str)
def test_a_replica_that_does_not_write_at_once_is_told_to(serve: Serve, settings: dict[str, str]) -> None:
    pair = Pair(serve, **settings)
    awaited("an acknowledgement", lambda: acknowledged(Inbox(pair.redis, SHARDS, mode="replica")))

    def told() -> bool:
        return any(
            "appendfsync always on the replica too" in each for each in examine(pair.redis, "replica-always").sentences
        )

    assert awaited("the advice", told)  # once in a while the replica's second is just over


def test_a_redis_that_does_not_know_how_to_wait_for_disks_says_so(pair: Pair) -> None:
    pair.redis.execute_command("ACL", "SETUSER", "older", "reset", "on", ">secret", "~*", "&*", "+@all", "-waitaof")
    older = connect(pair.primary.url.replace("unix://", "unix://older:secret@"), patience=5.0)
    awaited("an acknowledgement", lambda: acknowledged(Inbox(older, SHARDS, mode="replica")))
    sentence = refusal(Inbox(older, SHARDS, mode="replica-always"))
    assert sentence.startswith("Redis did not wait for a replica")
    assert "OFFHOOK_DURABILITY=replica" in sentence
    older.close()


def test_only_modes_with_a_replica_wait_for_one() -> None:
    assert {mode for mode in MODES if waits(mode)} == ON_A_REPLICA


# What was acknowledged is kept


class Senders:
    """One for each shard, that store callbacks until Redis is gone."""

    def __init__(self, redis: Redis, mode: Mode) -> None:
        self.inbox = Inbox(redis, SHARDS, mode=mode)
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()
        self.threads = [threading.Thread(target=self._send, args=[shard]) for shard in range(SHARDS)]
        for thread in self.threads:
            thread.start()

    def _send(self, shard: int) -> None:
        for number in range(shard, 1_000_000, SHARDS):
            try:
                append(self.inbox, number, shard)
            except NotReplicated:
                self.refused.add(number)
            except RedisError:
                return
            else:
                self.acknowledged.add(number)

    def join(self) -> None:
        for thread in self.threads:
            thread.join()


def test_with_a_disk_that_keeps_up_everysec_outlives_redis(serve: Serve) -> None:
    server = serve(appendfsync="everysec")
    senders = Senders(server.client(), "everysec")
    awaited("many acknowledgements", lambda: len(senders.acknowledged) > 2_000)
    server.kill()
    senders.join()
    server.start()
    assert senders.acknowledged <= stored(server.client())


@pytest.mark.parametrize("mode", ["replica", "replica-always"])
@pytest.mark.parametrize("order", ["killed, then replaced", "replaced while it goes on"])
def test_a_replica_that_takes_over_has_all_that_was_acknowledged(pair: Pair, mode: Mode, order: str) -> None:
    awaited("an acknowledgement", lambda: acknowledged(Inbox(pair.redis, SHARDS, mode=mode)))
    successor = pair.replica.client()
    senders = Senders(pair.primary.client(), mode)
    awaited("many acknowledgements", lambda: len(senders.acknowledged) > 500)
    if order.startswith("replaced"):
        successor.replicaof("NO", "ONE")
        beyond = len(senders.refused) + 2 * SHARDS
        awaited("callbacks that only the old primary has", lambda: len(senders.refused) > beyond)
    pair.primary.kill()
    senders.join()
    successor.replicaof("NO", "ONE")
    assert examine(successor, "everysec").sentences == []
    kept = stored(successor)
    assert senders.acknowledged <= kept
    if order.startswith("replaced"):
        assert senders.refused - kept, "callbacks were lost, and none of them had been acknowledged"
