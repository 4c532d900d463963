"""Faults inside our own code: at named places, by certain callbacks, and by two versions of the fold at once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from redis import Redis

from app import failpoints, fold
from app.store import keys
from app.store.snapshots import Snapshots
from bench.load import deliver
from tests.chaos.crashes import redis_of
from tests.chaos.lab import Lab, signal_to
from tests.chaos.ledger import SHARDS, Load, Parameters, audit, await_settled, events_of, stories, waiting
from tests.chaos.traffic import Flow, requests
from tests.system.house import House, awaited

ACTS = {"kill": "kill", "raise": "raise*2", "stall": "stall:6*1"}
"""A stall outlasts a lease. What raises and stalls goes on in the end; a process that is killed is followed by another
that will be killed."""
HITS = {"kill": 3, "raise": 1, "stall": 1}
AFTERWARDS = {"kill": 0.5, "raise": 0.5, "stall": 7.0}
"""Seconds for what comes of it, before all is killed and begins anew without failpoints."""
SPOOLING = ("before_spool", "after_spool")


def at_failpoints(lab: Lab) -> None:
    """Each named place in the code, and at each a process that dies, fails, or stands still."""
    chosen = [(name, act) for name in failpoints.NAMES for act in ACTS]
    if lab.size == "test":
        chosen = [(name, act) for name, act in chosen if (name, act) in TESTED]
    houses = lab.of(4, 4, 3)

    def part(number: int) -> list[tuple[str, int, int, int]]:
        return [strike(lab, name, act) for name, act in chosen[number::houses]]

    done = [each for part in lab.side_by_side(houses, part) for each in part]
    fault, count = f"failpoints: {len({name for name, _ in chosen})} places; kill, raise, stall", len(chosen)
    never = [where for where, hits, *_ in done if not hits]
    said = f"{sum(hits for _, hits, *_ in done)} strikes; never {', '.join(never) or 'missed'}"
    lab.promise(fault, count, "each is hit", said, not never)
    lost = [where for where, _, wrong, _ in done if wrong]
    said = f"of {sum(promised for *_, promised in done):,}: {sum(wrong for _, _, wrong, _ in done)} wrong {lost or ''}"
    lab.promise(fault, count, "0 lost, 0 doubled, verify clean", said, not lost)


TESTED = (("after_append", "kill"), ("before_fold", "raise"), ("before_commit", "kill"))


def strike(lab: Lab, name: str, act: str) -> tuple[str, int, int, int]:
    """One place: what it is called, how often it struck, how much is wrong after it all, how much was promised."""
    valkey, where = lab.valkey(), f"{name}={act}"
    proxy = lab.proxy(valkey)
    common = {"REDIS_URL": proxy.url, "OFFHOOK_SPOOL": "on", "WEB_CONCURRENCY": "1"}
    house = lab.house(**common, OFFHOOK_FAILPOINTS=f"{name}={ACTS[act]}")
    with Load(house, lab.seed, rate=60) as load:
        if name in SPOOLING:
            time.sleep(0.5)  # some are stored before Redis fails
            proxy.turn("canned", line="-LOADING Redis is loading the dataset in memory")
        with contextlib.suppress(AssertionError):
            awaited(where, lambda: strikes(house, name) >= HITS[act], 30)
        proxy.turn("pass")
        time.sleep(AFTERWARDS[act])  # callbacks go on coming meanwhile
        house.kill()
        hits = strikes(house, name)
        after = lab.house(**common, PORT=str(house.port), folder=house.folder)
        load.await_more(30)
    await_settled(after, 90)
    awaited("an empty spool", lambda: not list((house.folder / "data" / "spool").glob("*.spool")))
    await_settled(after)
    replayed = after.command("replay", "--dead-letters", seconds=120)
    found = audit(Snapshots(valkey.redis(), SHARDS), load.acknowledged)
    verified = after.command("verify")
    wrong = found.lost + found.doubled + found.strange + found.unlike
    if wrong or verified.returncode or replayed.returncode or load.wrong:
        lab.say(f"{where}: {found} {load.wrong}\n{replayed.stdout}{replayed.stderr}{verified.stdout}")
    lab.say(f"{where}: struck {hits} times, {found.acknowledged} acknowledged")
    after.kill()
    valkey.kill()
    wrong += bool(verified.returncode) + bool(replayed.returncode) + len(load.wrong)
    return where, hits, wrong, found.acknowledged


def strikes(house: House, name: str) -> int:
    """How often a failpoint has struck, by the log."""
    return house.log.read_bytes().count(f"failpoint {name}:".encode())


def poison(lab: Lab) -> None:
    """Callbacks that the fold fails on, and some that kill their process, among many that are well."""
    total, raising, killing = lab.of((10_000, 20, 5), (2_000, 8, 2), (600, 4, 1))
    rng = random.Random(f"{lab.seed} poison")
    told: list[Parameters] = list(islice(once_each(stories(lab.seed)), total))
    places = [place for place, each in enumerate(told) if "StatusCallbackEvent" in each]
    bad = rng.sample(places, raising + killing)
    for number, place in enumerate(bad):
        told[place] |= {"PoisonRaise" if number < raising else "PoisonKill": "1"}
    letters = set(events_of([told[place] for place in bad]))
    ids = events_of(told).keys()
    points = "before_fold~PoisonRaise=raise,before_fold~PoisonKill=kill"
    house = lab.house("--workers", "2", OFFHOOK_FAILPOINTS=points)
    redis = redis_of(house)
    snapshots = Snapshots(redis, SHARDS)
    began = time.monotonic()
    deliver(house.port, iter([request.raw for request in requests(house, told)]), seconds=120)
    awaited("all is folded or set aside", lambda: waiting(redis) == 0, 300)
    await_settled(house)
    lab.say(f"settled after {time.monotonic() - began:.0f} s")
    fault, count = f"{raising} callbacks that raise and {killing} that kill, among {len(ids):,}", len(bad)
    aside = snapshots.letters_left()
    lab.promise(fault, count, f"{len(bad)} set aside", aside, aside == len(bad))
    found = audit(snapshots, told, letters=letters)
    said = f"{found.lost} lost, {found.doubled} doubled, {found.unlike} documents differ"
    lab.promise(fault, count, "all the others are folded", said, found.clean)

    house.stop()
    after = lab.house(PORT=str(house.port), folder=house.folder)
    replayed = after.command("replay", "--dead-letters", seconds=120)
    left = Snapshots(redis_of(after), SHARDS).letters_left()
    said = f"{replayed.stdout.splitlines()[0] if replayed.stdout else replayed.stderr}, {left} left"
    lab.promise(fault, count, "replay sends them again, none is left", said, replayed.returncode == left == 0)
    lab.accounts(fault, count, after, redis_of(after), told)


def once_each(told: Iterable[Parameters]) -> Iterator[Parameters]:
    """Without repeats: of a callback that is set aside each copy makes a dead letter."""
    seen: set[str] = set()
    for parameters in told:
        if (form := urlencode(parameters)) not in seen:
            seen.add(form)
            yield parameters


NEWER = """
import app.fold
app.fold.VERSION += 1
from workers.__main__ import main
main()
"""


class Newer:
    """A worker of the next version of the fold, beside a house's own."""

    def __init__(self, house: House, redis_url: str) -> None:
        with house.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", NEWER],
                env={**house.environ, "REDIS_URL": redis_url},
                stdout=log,
                stderr=log,
            )

    def end(self, number: int) -> None:
        """Send a signal and wait for its end."""
        self.process.send_signal(number)
        self.process.wait(30)


def rolling(lab: Lab) -> None:
    """Workers of two versions of the fold on the same shards, while both are restarted and web is reloaded."""
    seconds, rate = lab.of(120, 30, 12), 80
    valkey = lab.valkey()
    house = lab.house("--workers", "2", REDIS_URL=valkey.url)
    redis = valkey.redis()
    lives = threading.Event()
    over = threading.Event()
    seen = Versions(redis, lives)
    watching = threading.Thread(target=seen.watch, args=[over], daemon=True)
    turns = 0
    with Load(house, lab.seed, rate=rate) as load:
        load.await_more(50)
        watching.start()
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            newer = Newer(house, valkey.url)
            try:
                announced = f"{fold.VERSION + 1}".encode()
                awaited("a newer worker", lambda n=announced: redis.get(keys.newest(0)) == n)
                time.sleep(1.0)  # what an older one had claimed before is committed, or never
                lives.set()
                time.sleep(lab.of(8.0, 6.0, 4.0))
                if master := house.web_master():
                    signal_to(master, signal.SIGHUP)
                workers = house.processes()["worker"]
                if workers:
                    signal_to(lab.rng.choice(workers), lab.rng.choice([signal.SIGTERM, signal.SIGKILL]))
                time.sleep(lab.of(6.0, 4.0, 2.0))
            finally:
                lives.clear()
                newer.end(lab.rng.choice([signal.SIGTERM, signal.SIGKILL]))
            turns += 1
            load.await_more(50)  # an older one takes over again
        over.set()
        watching.join()
    fault, count = f"fold {fold.VERSION} and {fold.VERSION + 1} side by side for {seconds} s", f"{turns} turns"
    lab.accounts(fault, count, house, redis, load.acknowledged)
    aside = Snapshots(redis, SHARDS).letters_left()
    lab.promise(fault, count, "0 dead letters", aside, aside == 0)
    said = f"{seen.down} of {seen.looks:,} looks; both versions wrote: {'yes' if len(seen.found) > 1 else 'NO'}"
    promise = "no document goes back while the newer lives"
    lab.promise(fault, count, promise, said, seen.down == 0 and len(seen.found) > 1)


class Versions:
    """Which fold wrote each document, looked at again and again."""

    def __init__(self, redis: Redis, lives: threading.Event) -> None:
        self.redis: Any = redis
        self.lives = lives
        self.last: dict[bytes, int] = {}
        self.found: set[int] = set()
        self.looks = self.down = 0

    def watch(self, over: threading.Event) -> None:
        """Until `over`. What is seen while no newer worker lives may go down: somebody has gone back."""
        while not over.wait(0.1):
            before = self.lives.is_set()
            names = list(self._documents())
            with self.redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hget(name, "fold")
                versions = [int(version or 0) for version in pipe.execute()]
            counts = before and self.lives.is_set()
            self.looks += len(names)
            for name, version in zip(names, versions, strict=True):
                self.found.add(version)
                self.down += counts and version < self.last.get(name, 0)
                self.last[name] = version
            if not counts:
                self.last = dict(zip(names, versions, strict=True))

    def _documents(self) -> Iterator[bytes]:
        yield from self.redis.scan_iter(match="offhook:*:conference:*", count=1000)


def spool(lab: Lab) -> None:
    """Redis is away for long, web processes are killed meanwhile, and the last frame of a dead one is torn."""
    seconds, kills, rate = lab.of(30.0, 12.0, 4.0), lab.of(5, 3, 2), 100
    valkey = lab.valkey()
    house = lab.house(REDIS_URL=valkey.url, OFFHOOK_SPOOL="on")
    folder = house.folder / "data" / "spool"
    with Flow(house, lab.seed, rate, fresh=0.2) as flow:
        awaited("callbacks that are taken", lambda: len(flow.answers) > 100)
        valkey.kill()
        away = time.perf_counter()
        torn, degraded = 0, False
        for _ in range(kills):
            time.sleep(seconds / (kills + 1))
            found = house.get("/readyz")
            degraded |= bool(found) and found["status"] == "degraded" and found["spooled_bytes"] > 0
            torn += kill_a_writer(house, folder, lab.rng)
        time.sleep(seconds / (kills + 1))
        spooled = sum(path.stat().st_size for path in folder.glob("*.spool"))
        valkey.start()
        awaited("a Valkey that answers", valkey.answers)
        back = time.perf_counter()
        awaited("an empty spool", lambda: not list(folder.glob("*.spool")), 60)
        drained = time.perf_counter() - back
        awaited("a house that is ready", lambda: (house.get("/readyz") or {}).get("status") == "ready", 30)
    during = [answer for answer in flow.answers if away <= answer.due <= back]
    taken = sum(answer.status == 204 for answer in during)
    fault = f"Redis away for {seconds:g} s at {rate}/s, {kills} SIGKILLs of web, {torn} torn frames"
    said = f"{taken:,} of {len(during):,}; {spooled / 1024:,.0f} KiB on disk"
    lab.say(f"{said}; all answers: {flow.counts()}")
    lab.found(fault, 1, "most callbacks are taken meanwhile", said, taken > len(during) * 0.9, timed=True)
    lab.promise(fault, 1, "frames were torn", torn, torn > 0)
    lab.promise(fault, 1, "/readyz says degraded, then ready", degraded, degraded)
    lab.within(fault, 1, "since PING, the spool is empty", 10, drained)
    lab.accounts(fault, 1, house, valkey.redis(), flow.acknowledged, flow.unsure)


def kill_a_writer(house: House, folder: Path, rng: random.Random) -> int:
    """SIGKILL for a web process that has a spool file, and half a frame behind what it wrote. Whether that was done."""
    writers = {int(path.name.split("-")[0]): path for path in folder.glob("*.spool")}
    alive = [pid for pid in house.processes()["web"] if pid in writers]
    if not alive:
        return 0
    pid = rng.choice(alive)
    os.kill(pid, signal.SIGKILL)
    awaited("its end", lambda: pid not in house.processes()["web"])
    with contextlib.suppress(OSError), writers[pid].open("ab") as file:
        file.write(rng.randbytes(rng.randint(5, 300)))
        return 1
    return 0
