"""Callbacks as they came, by shard: appended before they are acknowledged, claimed by one drain at a time.

A shard's lease holds a random token. A commit carries the token and is refused when the lease has passed on, so what a
paused or forgotten drain has worked out can never be written (see `snapshots.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from redis import Redis, RedisError

from app.events import Callback
from app.store import durability, keys, scripts

WAKE_UP_LASTS = 5_000
"""Milliseconds for which one wake-up stands for all. Its loss costs at most this; the sweep is sooner."""
LEASE_LASTS = 5_000
"""Milliseconds after which another drain may take over from one that died."""


ONLY_NEW = b"$"


class Link(msgspec.Struct, frozen=True, array_like=True, tag="link"):
    """Tells the shard of a call that the call has been seen in a conference."""

    call_sid: str
    conference_sid: str


class Mail(msgspec.Struct, frozen=True, array_like=True, tag="mail"):
    """A callback in an inbox."""

    callback: Callback


class Unread(NamedTuple):
    """An entry that is none of these: another release wrote it."""

    raw: bytes


Entry = Mail | Link

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Entry)


class Batch(NamedTuple):
    """What one claim brought: the oldest entries of a shard, with the right to commit their effect."""

    shard: int
    token: str
    epoch: str
    entries: list[Entry | Unread]
    first_id: bytes
    last_id: bytes
    """Stream ids of the first and the last of them."""


class Claims(NamedTuple):
    """What came of trying to lease some shards. Those that are in neither list have no mail."""

    batches: list[Batch]
    held: list[int]
    """Shards that another drain has, and sees to."""


class Backlog(NamedTuple):
    """How one shard's inbox stands."""

    waiting: int
    oldest_id: bytes | None
    leased: bool


# Store entries and ask whether a wake-up is due, in one step.
# KEYS 1 inbox, 2 woken. ARGV 1 how long a wake-up stands, ms, then the entries. Returns 1 when the caller owes one.
APPEND = """
for n = 2, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[n]) end
if redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[1]) then return 1 end
return 0
"""

# The same when a drain sends on what was stored already: refusing it would stop the draining that makes room.
FORWARD = f"#!lua flags=allow-oom{APPEND}"

# Say that a shard is attended. KEYS 1 woken. ARGV 1 how long, ms.
ATTEND = """#!lua flags=allow-oom
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
"""

# Take the lease, unless another has it, and read the oldest entries. The client may send this twice. A full memory must
# not stop the draining that would empty it.
# KEYS 1 lease, 2 inbox, 3 epoch. ARGV 1 token, 2 lease's length in ms, 3 how many, 4 name for a new epoch.
# Returns nil when another holds the lease, else {epoch, entries}; with no entries the lease is not taken.
CLAIM = """#!lua flags=allow-oom
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return nil end
local entries = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', ARGV[3])
if #entries == 0 then return {'', entries} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[3], ARGV[4], 'NX')
return {redis.call('GET', KEYS[3]), entries}
"""

# Stop attending to a shard, unless there is mail: then whoever attends must go on. Atomic with APPEND, so mail is
# either seen here, or finds no `woken` and owes a wake-up.
# KEYS 1 inbox, 2 woken. Returns 1 when there is mail.
LEAVE = """
if redis.call('XLEN', KEYS[1]) > 0 then return 1 end
redis.call('DEL', KEYS[2])
return 0
"""


# Make the lease last its whole length from now. KEYS 1 lease. ARGV 1 token, 2 lease's length in ms.
RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
"""


class Inbox:
    """The inboxes of all shards."""

    def __init__(self, redis: Redis, shards: int, mode: durability.Mode = "everysec") -> None:
        """`mode`: the least that must hold before a callback counts as stored.

        `redis` must answer blocking reads of a second (see `wait`) where that is used."""
        self.redis = redis
        self.shards = shards
        self.mode = mode
        self._shards = {keys.inbox(shard).encode(): shard for shard in range(shards)}
        self._append = redis.register_script(APPEND)
        self._forward = redis.register_script(FORWARD)
        self._attend = redis.register_script(ATTEND)
        self._claim = redis.register_script(CLAIM)
        self._leave = redis.register_script(LEAVE)
        self._renew = redis.register_script(RENEW)

    def shard_of(self, sid: str) -> int:
        """The shard of a conference's sid, or of a call's or account's where no conference is named."""
        return keys.shard_of(sid, self.shards)

    def append(self, shard: int, callback: Callback) -> bool:
        """Store a callback, in one round trip; it is safe once this returns. True: a wake-up is due.

        Raises redis.RedisError when it is not known to be stored.
        """
        due = self._append([keys.inbox(shard), keys.woken(shard)], [WAKE_UP_LASTS, _encode(Mail(callback))])
        return bool(due)

    def append_all(self, mail: Sequence[tuple[int, Callback]]) -> dict[int, bool | RedisError]:
        """Store callbacks of several shards, in one round trip. By shard: whether a wake-up is due, or what failed.

        Those of one shard are stored all or none. Raises redis.RedisError when none is known to be stored. What fails
        as `NotReplicated` is stored, but not as safely as the mode asks.
        """
        calls = self._calls((shard, Mail(callback)) for shard, callback in mail)
        answers = scripts.attempt(self.redis, self._append, list(calls.values()), then=durability.waits(self.mode))
        answers = durability.replicated(answers, len(calls))
        return {
            shard: answer if isinstance(answer, RedisError) else bool(answer)
            for shard, answer in zip(calls, answers, strict=True)
        }

    def forward(self, entries: Iterable[tuple[int, Entry]]) -> bool:
        """Store entries found to belong to other shards, in one round trip. True: a wake-up is due."""
        return any(scripts.run(self.redis, self._forward, self._calls(entries).values()))

    def _calls(self, entries: Iterable[tuple[int, Entry]]) -> dict[int, scripts.Call]:
        """By shard what stores its entries, in their order."""
        words: dict[int, list[Any]] = {}
        for shard, entry in entries:
            words.setdefault(shard, [WAKE_UP_LASTS]).append(_encode(entry))
        return {shard: ([keys.inbox(shard), keys.woken(shard)], said) for shard, said in words.items()}

    def wait(self, seen: Mapping[int, bytes], seconds: float) -> list[int]:
        """Block until some shard has an entry newer than the id `seen` of it; the shards that have. Empty: time is up.

        A shard that is not in `seen` is looked at from its beginning; `ONLY_NEW` stands for what comes from now on.
        """
        streams: dict[Any, Any] = {name: seen.get(shard, b"0") for name, shard in self._shards.items()}
        found: Any = self.redis.xread(streams, block=max(1, int(seconds * 1000)), count=1)
        return [self._shards[name] for name, _ in found or []]

    def attend(self) -> None:
        """Say that a drain is looking after every shard, for as long as a wake-up stands: nobody need ask for one."""
        scripts.run(self.redis, self._attend, (([keys.woken(shard)], [WAKE_UP_LASTS]) for shard in range(self.shards)))

    def claim(self, shards: Iterable[int], most: int) -> Claims:
        """Lease shards and read the oldest `most` entries of each, in one round trip. A commit gives the lease back."""
        tokens = {shard: secrets.token_hex(16) for shard in shards}
        answers = scripts.run(
            self.redis,
            self._claim,
            (
                ([keys.lease(shard), keys.inbox(shard), keys.epoch(shard)], [token, LEASE_LASTS, most, _name()])
                for shard, token in tokens.items()
            ),
        )
        batches: list[Batch] = []
        held: list[int] = []
        for (shard, token), answer in zip(tokens.items(), answers, strict=True):
            if answer is None:
                held.append(shard)
            elif answer[1]:
                batches.append(_batch(shard, token, *answer))
        return Claims(batches, held)

    def renew(self, batches: Iterable[Batch]) -> None:
        """Have leases last their whole length again. If one is lost, that is for the commit to find out."""
        each = (([keys.lease(batch.shard)], [batch.token, LEASE_LASTS]) for batch in batches)
        scripts.run(self.redis, self._renew, each)

    def leave(self) -> bool:
        """Stop attending, shard by shard. True: some shard has mail that must still be seen to."""
        each = (([keys.inbox(shard), keys.woken(shard)], ()) for shard in range(self.shards))
        return any(scripts.run(self.redis, self._leave, each))

    def backlog(self) -> list[Backlog]:
        """Every shard's standing, in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.xlen(keys.inbox(shard))
                pipe.xrange(keys.inbox(shard), count=1)
                pipe.exists(keys.lease(shard))
            answers = pipe.execute()
        return [
            Backlog(waiting, oldest[0][0] if oldest else None, bool(leased))
            for waiting, oldest, leased in _threes(answers)
        ]

    def probe(self, word: str) -> None:
        """Write and forget a word, as storing a callback would. Raises redis.RedisError when nothing can be stored."""
        durability.try_out(self.redis, self.mode, word)


def lag(backlog: Iterable[Backlog], now: float) -> float | None:
    """For how many seconds the oldest entry has waited, `now` being seconds since 1970. None: none is waiting."""
    oldest = [int(shard.oldest_id.split(b"-")[0]) for shard in backlog if shard.oldest_id]
    return max(0.0, round(now - min(oldest) / 1000, 3)) if oldest else None


def _name() -> str:
    """A name for a shard's lifetime, should it have none."""
    return secrets.token_hex(8)


def _batch(shard: int, token: str, epoch: bytes, entries: list[tuple[bytes, list[bytes]]]) -> Batch:
    return Batch(
        shard=shard,
        token=token,
        epoch=epoch.decode(),
        entries=[_read(fields[1]) for _, fields in entries],
        first_id=entries[0][0],
        last_id=entries[-1][0],
    )


def _read(raw: bytes) -> Entry | Unread:
    try:
        entry: Entry = _decoder.decode(raw)
    except msgspec.DecodeError:
        return Unread(raw)
    return entry


def _threes(answers: Sequence[Any]) -> Iterable[tuple[Any, Any, Any]]:
    return zip(answers[::3], answers[1::3], answers[2::3], strict=True)
