"""How safe a callback is once it is acknowledged: what may be asked of Redis, and what is wrong with the one at hand.

A mode is the least that must hold before a callback is answered 204:

- `memory`: nothing. For tests, and for servers that keep what they have in a way of their own.
- `everysec`: an append-only file, which is brought to the disk each second.
- `always`: an append-only file, brought to the disk before each answer.
- `replica`: as `everysec`, and a replica has the callback in memory.
- `replica-always`: as `always`, and a replica has the callback on its disk.

What an acknowledged callback survives:

- The end of our processes, by whatever signal: in every mode.
- The end of Redis: in all but `memory`. With `everysec` and `replica` only where its disk keeps up: while an fsync
  takes longer than a second, Redis has up to two seconds of callbacks in its memory alone.
- A crash of the system or loss of power: in `always` and `replica-always`. In `everysec` the last second or two are
  gone. In `replica` they are there if the replica takes over; if that Redis comes back as the primary, its replica
  follows it, and they are gone.
- Loss of the disk or of the machine: in `replica` and `replica-always`, if a replica that has the callback takes
  over. Of several, it must be the one that has the most.
- A failover while the old primary is alive: in `replica` and `replica-always`, what was acknowledged until then. What
  two sides of a split network take at the same time does not come together again: what the losing side took is gone,
  in every mode.

Nobody waits for what workers write: replication keeps the order, so a replica that has a callback has it in the
inbox, or folded.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from redis import Redis, RedisError

from app.store import keys
from app.store.scripts import Command

Mode = Literal["memory", "everysec", "always", "replica", "replica-always"]

REPLICA_WITHIN = 200
"""Milliseconds that a replica has for it."""

# WAITAOF by itself takes a second: a replica is asked how far it is before it has written what it just received, and
# tells again of its own accord only each second. Once WAIT is answered it has, and the second question finds it so.
_WAIT: Command = ("WAIT", 1, REPLICA_WITHIN)
_WAITS: dict[Mode, tuple[Command, ...]] = {
    "replica": (_WAIT,),
    "replica-always": (_WAIT, ("WAITAOF", 1, 1, REPLICA_WITHIN)),
}


class NotReplicated(RedisError):
    """Stored, but no replica is known to have it. `str()` says what to do."""


class Found(NamedTuple):
    """What a Redis says of itself. None: it does not say."""

    append_only_file: bool | None = None
    written: bool | None = None
    """Whether its last write to that file went well."""
    fsync: str | None = None
    """When the file is brought to the disk: always, everysec or no."""
    fsync_rests: bool | None = None
    """Whether it is not while a child of Redis writes another file."""
    eviction: str | None = None
    """What is thrown out when the memory is full; noeviction: nothing."""
    primary: bool | None = None
    replicas: int | None = None
    """How many are connected and follow."""


def waits(mode: Mode) -> tuple[Command, ...]:
    """What is sent after a callback, on the same connection, to learn whether it is as safe as this mode asks."""
    return _WAITS.get(mode, ())


def shortfall(answers: Sequence[Any]) -> NotReplicated | None:
    """What the answers to `waits` leave to be desired."""
    for answer in answers:
        if isinstance(answer, RedisError):
            return NotReplicated(
                f"Redis did not wait for a replica: {answer}. Should it not know WAITAOF, which is there from 7.2 on, "
                "set OFFHOOK_DURABILITY=replica."
            )
        if isinstance(answer, int) and answer < 1:
            return NotReplicated(
                f"No replica had it within {REPLICA_WITHIN} ms: see whether one is connected and keeps up."
            )
        if isinstance(answer, list) and answer[0] < 1:
            return NotReplicated(
                f"Redis did not bring it to its disk within {REPLICA_WITHIN} ms: set appendfsync always, or "
                "OFFHOOK_DURABILITY=replica."
            )
        if isinstance(answer, list) and answer[1] < 1:
            return NotReplicated(
                f"No replica had it on its disk within {REPLICA_WITHIN} ms: set appendonly yes and appendfsync always "
                "on the replica too, or OFFHOOK_DURABILITY=replica."
            )
    return None


def replicated(outcomes: list[bool | RedisError], answers: Sequence[Any]) -> list[bool | RedisError]:
    """What became of some callbacks: where the answers to `waits` fall short, what has gone well has not."""
    lacking = shortfall(answers)
    if lacking is None:
        return outcomes
    return [outcome if isinstance(outcome, RedisError) else lacking for outcome in outcomes]


def try_out(redis: Redis, mode: Mode, word: str) -> None:
    """Write and forget a word, as storing a callback would. Raises redis.RedisError when nothing can be stored."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.set(keys.PROBE, word, px=1000)
        for command in waits(mode):
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]  # the client ships it without types
        stored, *answers = pipe.execute(raise_on_error=False)
    problem = stored if isinstance(stored, RedisError) else shortfall(answers)
    if problem is not None:
        raise problem


def inspect(redis: Redis) -> Found:
    """What Redis says of itself, in one round trip. Raises redis.RedisError when it does not answer."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.info("memory", "persistence", "replication")
        pipe.config_get("appendfsync", "no-appendfsync-on-rewrite")  # who runs a server for others may refuse this
        answers: list[Any] = pipe.execute(raise_on_error=False)
    info, config = ({} if isinstance(answer, RedisError) else answer for answer in answers)
    replicas = [info.get(f"slave{number}", {}) for number in range(info.get("connected_slaves", 0))]
    return Found(
        append_only_file=_is(1, info.get("aof_enabled")),
        written=_is("ok", info.get("aof_last_write_status")),
        fsync=config.get("appendfsync"),
        fsync_rests=_is("yes", config.get("no-appendfsync-on-rewrite")),
        eviction=info.get("maxmemory_policy"),
        primary=_is("master", info.get("role")),
        replicas=sum(replica.get("state") == "online" for replica in replicas) if "role" in info else None,
    )


def wrong(found: Found, mode: Mode) -> list[str]:
    """What is wrong with that for this mode, and what to do. What is not known is not wrong."""
    if mode == "memory":
        return []
    said = []
    if found.primary is False:
        said.append(
            "This Redis is a replica: what it takes, if it takes any, is gone when it next follows its primary. Set "
            "REDIS_URL to the primary."
        )
    if found.append_only_file is False:
        said.append("Redis keeps no append-only file: set appendonly yes.")
    else:
        said += _wrong_with_file(found, mode)
    if found.eviction not in (None, "noeviction"):
        said.append(
            f"Redis throws out callbacks when its memory is full (maxmemory-policy {found.eviction}): set "
            "maxmemory-policy noeviction."
        )
    if waits(mode) and found.replicas == 0:
        said.append(
            "No replica is connected, so no callback can be acknowledged: start one with replicaof, or set "
            "OFFHOOK_DURABILITY to always or everysec."
        )
    return said


class Examined(NamedTuple):
    """How it stands with a Redis, for a mode."""

    found: Found
    wrong: list[str]
    """What is wrong with what it says of itself."""
    failure: RedisError | None
    """Why a word could not be stored on trial."""

    @property
    def sentences(self) -> list[str]:
        """All that is wrong, and what to do."""
        if self.failure is None:
            return self.wrong
        if isinstance(self.failure, NotReplicated):
            return [*self.wrong, str(self.failure)]
        name = type(self.failure).__name__
        return [*self.wrong, f"Cannot store callbacks: {name}. See whether Redis is up and has memory and disk left."]


def examine(redis: Redis, mode: Mode) -> Examined:
    """Ask Redis what it is like, and store a word on trial."""
    found = Found()
    try:
        found = inspect(redis)
        try_out(redis, mode, secrets.token_hex(4))
    except RedisError as error:
        return Examined(found, wrong(found, mode), error)
    return Examined(found, wrong(found, mode), None)


def _wrong_with_file(found: Found, mode: Mode) -> list[str]:
    said = []
    if found.written is False:
        said.append("Redis could not write its append-only file: see whether its disk is full, and what its log says.")
    if mode in ("always", "replica-always"):
        if found.fsync not in (None, "always"):
            said.append(
                f"Redis answers before callbacks are on its disk (appendfsync {found.fsync}): set appendfsync always, "
                "or ask for less with OFFHOOK_DURABILITY."
            )
    elif found.fsync == "no":
        said.append(
            "Redis leaves callbacks off its disk for long (appendfsync no): set appendfsync everysec or always."
        )
    if found.fsync_rests:
        said.append(
            "Redis brings nothing to the disk while it rewrites its append-only file: set no-appendfsync-on-rewrite no."
        )
    return said


def _is(expected: object, told: object) -> bool | None:
    return None if told is None else told == expected
