"""Where a scenario works: a seed, a folder, what it has started, and what it has found."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count as counted
from pathlib import Path
from typing import NamedTuple, TypeVar

from redis import Redis, RedisError

from app.store import embedded
from app.store.connect import connect
from app.store.snapshots import Snapshots
from tests.chaos.ledger import SHARDS, Audit, Parameters, audit, await_settled
from tests.chaos.proxy import Proxy
from tests.system.house import House, alive, awaited

SIZES = ("full", "quick", "test")
T = TypeVar("T")


class Finding(NamedTuple):
    """One promise, and whether it was kept."""

    fault: str
    count: str
    promise: str
    measured: str
    kept: bool
    timed: bool = False
    """Whether it is about seconds: on a busy machine it says nothing."""


class Valkey:
    """A server like the embedded one, which the lab starts and stops itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = embedded.socket_path(folder)
        self.url = embedded.url(folder)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and return before it answers."""
        self.process = subprocess.Popen(embedded.command(self.folder))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and no new one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def answers(self) -> bool:
        """Whether it answers PING."""
        with contextlib.suppress(RedisError):
            return bool(self.redis(1.0).ping())
        return False

    def redis(self, patience: float = 5.0) -> Redis:
        """A client of it, past any proxy."""
        return connect(self.url, patience=patience)


class Lab:
    """What one scenario is given. All that it has started is gone when the lab is closed."""

    def __init__(self, name: str, seed: int, folder: Path, size: str = "full") -> None:
        self.name = name
        self.seed = seed
        self.rng = random.Random(f"{seed} {name}")
        self.folder = folder
        self.size = size
        self.findings: list[Finding] = []
        self.houses: list[House] = []
        self.began = time.monotonic()
        self._started: list[Callable[[], None]] = []
        self._places = counted(1)

    def chance(self, number: int) -> random.Random:
        """The chance of one of several that go on side by side."""
        return random.Random(f"{self.seed} {self.name} {number}")

    def of(self, full: T, quick: T, test: T | None = None) -> T:
        """What the size asks for."""
        return {"full": full, "quick": quick, "test": quick if test is None else test}[self.size]

    def say(self, what: str) -> None:
        """Tell whoever watches."""
        print(f"{time.monotonic() - self.began:6.1f} s  {self.name}: {what}", file=sys.stderr, flush=True)

    def place(self) -> Path:
        """A new folder."""
        folder = self.folder / f"{self.name}-{next(self._places)}"
        folder.mkdir(parents=True)
        return folder

    def house(self, *arguments: str, folder: Path | None = None, **environ: str) -> House:
        """An Offhook that is ready. Without a spool, unless asked for: what Redis does not take is refused."""
        usual = {"WEB_CONCURRENCY": "2", "OFFHOOK_SPOOL": "off"}
        house = House(folder or self.place(), *arguments, **usual | environ)
        self.houses.append(house)
        self._started.append(house.kill)
        return house.ready()

    def valkey(self) -> Valkey:
        """A Valkey that answers."""
        valkey = Valkey(self.place())
        self._started.append(valkey.kill)
        awaited("a Valkey", valkey.answers)
        return valkey

    def proxy(self, valkey: Valkey) -> Proxy:
        """A proxy in front of it."""
        proxy = Proxy(valkey.socket)
        self._started.append(proxy.close)
        return proxy

    def close(self) -> None:
        """Kill all."""
        for end in reversed(self._started):
            end()

    def side_by_side(self, count: int, part: Callable[[int], T]) -> list[T]:
        """Several at once, each with its number."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(part, range(count)))

    def found(self, fault: str, count: object, promise: str, measured: object, kept: bool, *, timed: bool) -> None:
        """Note what came out."""
        self.findings.append(Finding(fault, str(count), promise, str(measured), kept, timed))

    def promise(self, fault: str, count: object, promise: str, measured: object, kept: bool) -> None:
        """A promise that holds on any machine."""
        self.found(fault, count, promise, measured, kept, timed=False)

    def within(self, fault: str, count: object, what: str, seconds: float, measured: float) -> None:
        """A promise that something takes no longer."""
        self.found(fault, count, f"{what} <= {told(seconds)}", told(measured), measured <= seconds, timed=True)

    def accounts(
        self,
        fault: str,
        count: object,
        house: House,
        redis: Redis,
        acknowledged: Iterable[Parameters],
        unsure: Iterable[Parameters] = (),
        patience: float = 60.0,
    ) -> Audit:
        """Let everything settle, and hold the house to what it has acknowledged."""
        return self.accounts_of(fault, count, [(house, redis, acknowledged, unsure)], patience)

    def accounts_of(
        self,
        fault: str,
        count: object,
        houses: Iterable[tuple[House, Redis, Iterable[Parameters], Iterable[Parameters]]],
        patience: float = 60.0,
    ) -> Audit:
        """The same for several houses, told as one."""
        total, verified = Audit(0, 0, 0, 0, 0, 0), True
        for house, redis, acknowledged, unsure in houses:
            await_settled(house, patience)
            each = audit(Snapshots(redis, SHARDS), acknowledged, unsure)
            total = Audit(*(one + other for one, other in zip(total, each, strict=True)))
            answer = house.command("verify", seconds=300)
            verified &= answer.returncode == 0
            if answer.returncode:
                self.say(answer.stdout + answer.stderr)
        said = f"of {total.acknowledged:,}: {total.lost} lost, {total.doubled} doubled"
        self.promise(
            fault, count, "0 acknowledged lost, 0 doubled", said, not (total.lost or total.doubled or total.strange)
        )
        said = f"{total.unlike} differ, verify {'clean' if verified else 'NOT clean'}"
        self.promise(fault, count, "documents equal their fold", said, verified and not total.unlike)
        return total


def told(seconds: float) -> str:
    """A time for the table."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s".replace(".00 s", " s")


def signal_to(pid: int, number: int) -> bool:
    """Whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_one(house: House, kind: str, rng: random.Random) -> None:
    """SIGKILL for one process of a kind."""
    victims = awaited(f"a {kind} to kill", lambda: [pid for pid in house.processes()[kind] if alive(pid)])
    signal_to(rng.choice(victims), signal.SIGKILL)
