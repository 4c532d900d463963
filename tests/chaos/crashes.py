"""Processes that are killed, stopped, and started again; and wake-ups that nobody hears."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

from redis import Redis, RedisError

from app.events import Callback
from app.simulator.sender import Sender
from app.store import embedded, keys
from app.store.connect import connect
from app.store.feed import subscribe
from app.store.inbox import LEASE_LASTS, Inbox, Posted
from app.store.snapshots import Snapshots
from tests.chaos.lab import Lab, kill_one, signal_to
from tests.chaos.ledger import SHARDS, Load, Parameters, stories, waiting
from tests.chaos.traffic import quantile
from tests.system.house import House, alive, awaited

LOOKED_EVERY = 0.01


def redis_of(house: House) -> Redis:
    """A client of a house's own Valkey."""
    return connect(embedded.url(house.folder / "data"), patience=5.0)


def kills(lab: Lab) -> None:
    """SIGKILL for any process at any moment, under load."""
    counts = {
        "worker": lab.of(80, 10, 4),
        "web": lab.of(60, 8, 5),
        "valkey": lab.of(60, 8, 3),
    }
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    lab.rng.shuffle(kinds)
    house = lab.house()
    with Load(house, lab.seed) as load:
        for number, kind in enumerate(kinds, 1):
            load.await_more(lab.rng.randint(75, 150))
            kill_one(house, kind, lab.rng)
            if number % 20 == 0:
                lab.say(f"{number} of {len(kinds)} kills, {len(load.acknowledged):,} acknowledged")
    fault = f"SIGKILL: {', '.join(f'{count} {kind}' for kind, count in counts.items())}"
    audit = lab.accounts(fault, len(kinds), house, redis_of(house), load.acknowledged)
    folded = Snapshots(redis_of(house), SHARDS).counters()["folded"]
    lab.promise(fault, len(kinds), "each is counted once", f"{folded:,} counted", folded == audit.acknowledged)
    lab.promise(fault, len(kinds), "answers are 204, 503 or none", f"{len(load.wrong)} others", not load.wrong)


def leases(redis: Redis) -> dict[int, bytes]:
    """Whose token each leased shard holds."""
    found = redis.mget([keys.lease(shard) for shard in range(SHARDS)])
    return {shard: token for shard, token in enumerate(found) if token}


def stop_at_work(house: House, redis: Redis, rng: random.Random, spared: set[int]) -> tuple[int, dict[int, bytes]]:
    """SIGSTOP a worker while it has the lease of some shard: its pid, and the tokens that it held."""
    for _ in range(3000):
        workers = [pid for pid in house.processes()["worker"] if alive(pid) and pid not in spared]
        if workers and signal_to(pid := rng.choice(workers), signal.SIGSTOP):
            before = leases(redis)
            time.sleep(0.04)  # a command that it had sent already may still be on its way
            held = {shard: token for shard, token in leases(redis).items() if before.get(shard) == token}
            # those of one that has been stopped before do not change either
            held = {shard: token for shard, token in held.items() if redis.pttl(keys.lease(shard)) > LEASE_LASTS - 500}
            if held:
                return pid, held
            signal_to(pid, signal.SIGCONT)
        time.sleep(rng.uniform(0.005, 0.05))  # another moment
    said = f"{waiting(redis)} wait, leases {sorted(leases(redis))}, workers {house.processes()['worker']}"
    raise AssertionError(f"no worker was ever at work: {said}; {house.log.read_text()[-2000:]}")


class Revisions:
    """What subscribers are told from now on, until Redis ends."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.heard: dict[str, list[int]] = {}
        subscribed = threading.Event()
        threading.Thread(target=self._listen, args=[subscribed], daemon=True).start()
        assert subscribed.wait(10)

    def _listen(self, subscribed: threading.Event) -> None:
        with contextlib.suppress(RedisError, OSError), subscribe(self.redis) as published:
            subscribed.set()
            for message in published:
                told = json.loads(message)
                self.heard.setdefault(told["conference_sid"], []).append(told["revision"])

    def wrong(self, snapshots: Snapshots) -> int:
        """Conferences whose revisions did not rise by one, from the first to the one that is stored."""
        last = {sid: snapshots.load({sid: None})[sid].conference.header.revision for sid in snapshots.sids()}
        with contextlib.suppress(AssertionError):
            awaited("all messages", lambda: sum(map(len, self.heard.values())) >= sum(last.values()), 10)
        return sum(self.heard.get(sid) != list(range(1, revision + 1)) for sid, revision in last.items())


def pauses(lab: Lab) -> None:
    """SIGSTOP for workers that hold a lease, for longer than it lasts; some while others are stopped."""
    count, houses, turns = lab.of(50, 8, 2), lab.of(2, 1, 1), 2
    fault = f"SIGSTOP of a worker that has the lease, {lab.of('6-8', '6-8', '5.5-6')} s"

    def part(number: int) -> tuple[House, Redis, list[Parameters], int, int]:
        house, rng = lab.house("--workers", "3"), lab.chance(number)
        redis = redis_of(house)
        revisions, stopped, guard = Revisions(redis), set[int](), threading.Lock()
        share = count // houses

        def pause(turn: int) -> None:
            rng = random.Random(f"{lab.seed} {number} {turn}")
            for _ in range(share // turns + (turn < share % turns)):
                with guard:
                    pid, _ = stop_at_work(house, redis, rng, stopped)
                    stopped.add(pid)
                time.sleep(rng.uniform(*lab.of((6, 8), (6, 8), (5.5, 6))))  # the fault: longer than a lease
                signal_to(pid, signal.SIGCONT)
                stopped.discard(pid)
                time.sleep(rng.uniform(0.2, 1.0))  # in which it takes up what it had begun

        with Load(house, lab.seed + number, rate=150) as load, ThreadPoolExecutor(turns) as pool:
            load.await_more(100)
            list(pool.map(pause, range(turns)))
            load.await_more(rng.randint(50, 100))
        awaited("everything is folded", lambda: waiting(redis) == 0)
        wrong = revisions.wrong(Snapshots(redis, SHARDS))
        refused = house.log.read_text().count("not committed")
        return house, redis, load.acknowledged, wrong, refused

    parts = lab.side_by_side(houses, part)
    lab.accounts_of(fault, count, [(house, redis, told, ()) for house, redis, told, _, _ in parts])
    wrong, refused = sum(each[3] for each in parts), sum(each[4] for each in parts)
    lab.promise(
        fault,
        count,
        "0 stale commits, revisions strictly +1",
        f"{wrong} conferences wrong; {refused} stale commits refused",
        not wrong,
    )


def takeover(lab: Lab) -> None:
    """SIGKILL for a worker that holds leases: how long what waited has to wait."""
    count, houses = lab.of(100, 8, 2), lab.of(4, 2, 1)
    fault = "SIGKILL of a worker that has the lease"

    def part(number: int) -> tuple[House, Redis, list[Parameters], list[float], int]:
        house, rng = lab.house("--workers", "2", WEB_CONCURRENCY="1"), lab.chance(number)
        redis, waits = redis_of(house), []
        revisions = Revisions(redis)
        with Load(house, lab.seed + number, rate=60) as load:
            for turn in range(count // houses):
                load.await_more(rng.randint(20, 60))
                awaited("two workers", lambda: redis.scard("rq:workers") >= 2)
                pid, held = stop_at_work(house, redis, rng, set())
                signal_to(pid, signal.SIGKILL)
                killed = time.monotonic()
                last = {shard: last_id(redis, shard) for shard in held}
                awaited("another takes over", lambda last=last: not behind(redis, last), 30)
                waits.append(time.monotonic() - killed)
                if number == 0 and turn % 5 == 4:
                    lab.say(f"{turn + 1} of {count // houses} in each of {houses} houses")
        awaited("everything is folded", lambda: waiting(redis) == 0)
        return house, redis, load.acknowledged, waits, revisions.wrong(Snapshots(redis, SHARDS))

    parts = lab.side_by_side(houses, part)
    waits = sorted(wait for each in parts for wait in each[3])
    lab.accounts_of(fault, len(waits), [(house, redis, told, ()) for house, redis, told, _, _ in parts])
    wrong = sum(each[4] for each in parts)
    lab.promise(fault, len(waits), "revisions strictly +1", f"{wrong} conferences wrong", not wrong)
    lab.say(f"p50 {quantile(waits, 0.5):.2f} s, p99 {quantile(waits, 0.99):.2f} s, longest {waits[-1]:.2f} s")
    lab.within(fault, len(waits), "what waited is folded: p99", 6, quantile(waits, 0.99))


def last_id(redis: Redis, shard: int) -> tuple[int, int]:
    """Of the newest entry of an inbox."""
    return _id(redis.xrevrange(keys.inbox(shard), count=1))


def behind(redis: Redis, last: dict[int, tuple[int, int]]) -> list[int]:
    """The shards that still hold an entry up to these."""
    with redis.pipeline(transaction=False) as pipe:
        for shard in last:
            pipe.xrange(keys.inbox(shard), count=1)
        oldest = pipe.execute()
    return [shard for (shard, until), found in zip(last.items(), oldest, strict=True) if found and _id(found) <= until]


def _id(entries: list[tuple[bytes, object]]) -> tuple[int, int]:
    if not entries:
        return 0, 0
    milliseconds, number = entries[0][0].split(b"-")
    return int(milliseconds), int(number)


def wakes(lab: Lab) -> None:
    """Callbacks that are stored while nobody is told; and RQ's keys gone, again and again."""
    count, houses, together = lab.of(1000, 200, 50), lab.of(5, 2, 1), 50
    fault = "append without a wake-up"

    def part(number: int) -> tuple[House, Redis, list[Parameters], list[float]]:
        house = lab.house(WEB_CONCURRENCY="1")
        redis, waits, told = redis_of(house), [], []
        inbox, source = Inbox(redis, SHARDS), stories(lab.seed * 1000 + number)
        for _ in range(count // houses // together):
            awaited("that nobody attends", lambda: not redis.exists(*(keys.woken(shard) for shard in range(SHARDS))))
            batch = [next(source) for _ in range(together)]
            inbox.append_all([Posted(shard_of(inbox, each), as_callback(each)) for each in batch])
            began = time.monotonic()
            last = {shard: last_id(redis, shard) for shard in range(SHARDS)}
            while left := behind(redis, last):
                last = {shard: last[shard] for shard in left}
                time.sleep(LOOKED_EVERY)
            waits += [time.monotonic() - began] * together
            told += batch
        return house, redis, told, waits

    parts = lab.side_by_side(houses, part)
    waits = [wait for *_, some in parts for wait in some]
    lab.accounts_of(fault, len(waits), [(house, redis, told, ()) for house, redis, told, _ in parts])
    lab.within(fault, len(waits), "the last one is folded", 3, max(waits))

    house = lab.house()
    redis, times = redis_of(house), lab.of(10, 4, 2)
    with Load(house, lab.seed, rate=200) as load:
        for _ in range(times):
            load.await_more(lab.rng.randint(50, 150))
            for name in redis.scan_iter(match="rq:*"):
                redis.delete(name)
    lab.accounts("all of RQ's keys deleted under load", times, house, redis, load.acknowledged)


def shard_of(inbox: Inbox, told: Parameters) -> int:
    """Where web would put it."""
    return inbox.shard_of(told.get("ConferenceSid") or told["CallSid"])


def as_callback(told: Parameters) -> Callback:
    """As web would store it."""
    return Callback(body=urlencode(told).encode(), received_at=time.time_ns() // 1_000_000, key="main")


def restarts(lab: Lab) -> None:
    """Valkey is killed under load, stays away, and is started again: how long until it is as before."""
    count, houses, away = lab.of(20, 4, 1), lab.of(2, 1, 1), 2.0
    fault = f"Valkey killed, started again after {away:.0f} s"

    def part(number: int) -> tuple[House, Redis, list[Parameters], list[float], list[float]]:
        valkey, rng = lab.valkey(), lab.chance(number)
        house = lab.house(REDIS_URL=valkey.url)
        redis = valkey.redis()
        snapshots, ingest, folding = Snapshots(redis, SHARDS), [], []
        probe = Sender(f"{house.url}/webhooks/twilio", house.environ["TWILIO_AUTH_TOKEN"], timeout=3.0)
        probes = stories(lab.seed * 1000 + 999 + number)
        probed: list[Parameters] = []
        with Load(house, lab.seed + number, rate=80) as load:
            for _ in range(count // houses):
                load.await_more(rng.randint(80, 240))
                valkey.kill()
                time.sleep(away)  # the fault
                valkey.start()
                awaited("a Valkey that answers", valkey.answers)
                back = time.monotonic()
                folded = snapshots.counters()["folded"]
                told = next(probes)
                while probe.send(told) != 204:
                    time.sleep(LOOKED_EVERY)
                ingest.append(time.monotonic() - back)
                probed.append(told)
                awaited("folding goes on", lambda folded=folded: snapshots.counters()["folded"] > folded)
                folding.append(time.monotonic() - back)
        return house, redis, [*load.acknowledged, *probed], ingest, folding

    parts = lab.side_by_side(houses, part)
    lab.accounts_of(fault, count, [(house, redis, told, ()) for house, redis, told, _, _ in parts])
    lab.within(fault, count, "since PING, the first 204", 1, max(wait for each in parts for wait in each[3]))
    lab.within(fault, count, "since PING, the first fold", 3, max(wait for each in parts for wait in each[4]))
