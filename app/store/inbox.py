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
LEASE_LASTS = 4_000
"""Milliseconds after which another drain may take over from one that died."""
TOGETHER = 2
"""How often a batch is begun as a whole. One that then is still not committed may hold something that kills."""
ANNOUNCED = 15_000
"""Milliseconds for which a worker is taken to be alive after it last said so."""
ROOM = 400_000
"""Callbacks that may wait, of all shards. Some 0.7 KiB each."""


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
    begun: int = 0
    """How often its only entry was begun by itself before, and never committed."""


class Claims(NamedTuple):
    """What came of trying to lease some shards. Those that are in neither list have no mail."""

    batches: list[Batch]
    held: list[int]
    """Shards that another drain has, and sees to."""
    suspect: list[int]
    """Shards whose oldest mail may have killed who began it: to be read one by one (see `claim_alone`)."""


class Backlog(NamedTuple):
    """How one shard's inbox stands."""

    waiting: int
    oldest_id: bytes | None
    leased: bool


# Store entries, as far as there is room, and ask whether a wake-up is due, in one step.
# KEYS 1 inbox, 2 woken. ARGV 1 how long a wake-up stands, ms, 2 below how many waiting there is room, 3 and for speech,
# 4 how many of the entries are not speech, then the entries, those first. Returns {1 when the caller owes a wake-up,
# how many were stored}: all, all but speech, or none.
APPEND = """
local waiting, last = redis.call('XLEN', KEYS[1]), #ARGV
if waiting >= tonumber(ARGV[2]) then last = 4
elseif waiting >= tonumber(ARGV[3]) then last = 4 + ARGV[4] end
for n = 5, last do redis.call('XADD', KEYS[1], '*', 'e', ARGV[n]) end
local due = redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[1])
return {due and 1 or 0, last - 4}
"""

# Store entries that a drain sends on: refusing them would stop the draining that makes room.
# KEYS 1 inbox, 2 woken. ARGV 1 how long a wake-up stands, ms, then the entries. Returns 1 when the caller owes one.
FORWARD = """#!lua flags=allow-oom
for n = 2, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[n]) end
if redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[1]) then return 1 end
return 0
"""

# Put a dead letter back where it came from. KEYS 1 inbox, 2 dead letters. ARGV 1 its id, 2 the entry. Returns the
# entry's id, or nil where somebody else has done it.
SEND_AGAIN = """#!lua flags=allow-oom
if redis.call('XDEL', KEYS[2], ARGV[1]) == 0 then return nil end
return redis.call('XADD', KEYS[1], '*', 'e', ARGV[2])
"""

# Say that a shard is attended. KEYS 1 woken. ARGV 1 how long, ms.
ATTEND = """#!lua flags=allow-oom
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
"""

# Take the lease, unless another has it, and read the oldest entries. The client may send this twice. A full memory must
# not stop the draining that would empty it.
#
# What is read is on trial until it is committed: up to which entry, how often that was begun together, and which entry
# was begun by itself how often. What was begun `TOGETHER` times and never committed may have killed who began it; it is
# read one by one, and only by who asks for such.
# KEYS 1 lease, 2 inbox, 3 epoch, 4 trial, 5 newest. ARGV 1 token, 2 lease's length in ms, 3 how many, 4 name for a new
# epoch, 5 our fold version, 6 how often together, 7 whether one by one.
# Returns nil when another holds the lease, or is of a newer version; else {epoch, entries, how often the first was
# begun by itself, before now}. With no entries the lease is not taken; -1 says that there are some to read one by one.
CLAIM = """#!lua flags=allow-oom
local holder, newest, trial = unpack(redis.call('MGET', KEYS[1], KEYS[5], KEYS[4]))
if holder and holder ~= ARGV[1] then return nil end
if newest and tonumber(newest) > tonumber(ARGV[5]) then return nil end
local last, together, first, alone = string.match(trial or '', '(%S+) (%d+) (%S+) (%d+)')
if last then
  local oldest = redis.call('XRANGE', KEYS[2], '-', last, 'COUNT', 1)[1]
  if not oldest then last, together, alone = nil, 0, 0 elseif oldest[1] ~= first then alone = 0 end
end
local suspect = last and tonumber(together) >= tonumber(ARGV[6])
if suspect and ARGV[7] == '0' then return {'', {}, -1} end
if ARGV[7] == '1' and not suspect then return {'', {}, 0} end
local most = suspect and 1 or last and 1000000 or ARGV[3]
local entries = redis.call('XRANGE', KEYS[2], '-', last or '+', 'COUNT', most)
if #entries == 0 then return {'', {}, 0} end
if suspect then
  redis.call('SET', KEYS[4], table.concat({last, together, entries[1][1], alone + 1}, ' '))
else
  redis.call('SET', KEYS[4], table.concat({last or entries[#entries][1], (together or 0) + 1, '-', 0}, ' '))
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[3], ARGV[4], 'NX')
return {redis.call('GET', KEYS[3]), entries, tonumber(alone or 0)}
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


# Say that a worker of this version is alive. KEYS 1 newest. ARGV 1 version, 2 for how long that holds, ms.
ANNOUNCE = """#!lua flags=allow-oom
local newest = redis.call('GET', KEYS[1])
if newest and tonumber(newest) > tonumber(ARGV[1]) then return end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
"""


class Full(RedisError):
    """So much is waiting to be folded that there is no room for this. It was not stored."""


class Posted(NamedTuple):
    """A callback to be stored."""

    shard: int
    callback: Callback
    speech: bool = False
    """Whether it only tells that somebody began or ceased to speak: when mail piles up these are refused first."""


class Inbox:
    """The inboxes of all shards."""

    def __init__(self, redis: Redis, shards: int, room: int = ROOM, mode: durability.Mode = "everysec") -> None:
        """`room`: how many callbacks may wait, evenly of all shards; for speech there is half of it.
        `mode`: the least that must hold before a callback counts as stored.

        `redis` must answer blocking reads of a second (see `wait`) where that is used.
        """
        self.redis = redis
        self.shards = shards
        self.room = -(-room // shards)
        self.mode = mode
        self._shards = {keys.inbox(shard).encode(): shard for shard in range(shards)}
        self._append = redis.register_script(APPEND)
        self._forward = redis.register_script(FORWARD)
        self._again = redis.register_script(SEND_AGAIN)
        self._attend = redis.register_script(ATTEND)
        self._claim = redis.register_script(CLAIM)
        self._leave = redis.register_script(LEAVE)
        self._renew = redis.register_script(RENEW)
        self._announce = redis.register_script(ANNOUNCE)

    def shard_of(self, sid: str) -> int:
        """The shard of a conference's sid, or of a call's or account's where no conference is named."""
        return keys.shard_of(sid, self.shards)

    def append(self, shard: int, callback: Callback) -> bool:
        """Store a callback, in one round trip; it is safe once this returns. True: a wake-up is due.

        Raises redis.RedisError when it is not known to be stored; `Full` when it is not.
        """
        [outcome] = self.append_all([Posted(shard, callback)])
        if isinstance(outcome, RedisError):
            raise outcome
        return outcome

    def append_all(self, mail: Sequence[Posted]) -> list[bool | RedisError]:
        """Store callbacks of several shards, in one round trip. Of each: whether a wake-up is due, or what failed.

        Of one shard all are stored, or all but speech, or none. Raises redis.RedisError when it is not known which.
        What fails as `NotReplicated` is stored, but not as safely as the mode asks.
        """
        shards: dict[int, list[int]] = {}
        for place, posted in enumerate(mail):
            shards.setdefault(posted.shard, []).append(place)
        calls = []
        for shard, places in shards.items():
            places.sort(key=lambda place: mail[place].speech)
            others = sum(not mail[place].speech for place in places)
            words: list[Any] = [WAKE_UP_LASTS, self.room, self.room // 2, others]
            words += [_encode(Mail(mail[place].callback)) for place in places]
            calls.append(([keys.inbox(shard), keys.woken(shard)], words))
        outcomes: list[bool | RedisError] = [False] * len(mail)
        answers = scripts.attempt(self.redis, self._append, calls, then=durability.waits(self.mode))
        for places, answer in zip(shards.values(), answers[: len(calls)], strict=True):
            for number, place in enumerate(places):
                outcomes[place] = _outcome(answer, number)
        return durability.replicated(outcomes, answers[len(calls) :])

    def forward(self, entries: Iterable[tuple[int, Entry]]) -> bool:
        """Store entries found to belong to other shards, in one round trip. True: a wake-up is due."""
        words: dict[int, list[Any]] = {}
        for shard, entry in entries:
            words.setdefault(shard, [WAKE_UP_LASTS]).append(_encode(entry))
        calls = [([keys.inbox(shard), keys.woken(shard)], said) for shard, said in words.items()]
        return any(scripts.run(self.redis, self._forward, calls))

    def send_again(self, shard: int, letter_id: bytes, callback: Callback | bytes) -> bytes | None:
        """Move a dead letter of this shard into its inbox; bytes are an entry as it was. Its id there.

        None: it is gone already. Nobody is woken; a sweep finds it.
        """
        entry = callback if isinstance(callback, bytes) else _encode(Mail(callback))
        found: bytes | None = self._again([keys.inbox(shard), keys.dead_letters(shard)], [letter_id, entry])
        return found

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

    def claim(self, shards: Iterable[int], most: int, version: int) -> Claims:
        """Lease shards and read the oldest `most` entries of each, in one round trip. A commit gives the lease back.

        Shards that a worker with a newer fold than this `version` can see to are left to it, as if it held them.
        """
        batches: list[Batch] = []
        held: list[int] = []
        suspect: list[int] = []
        for shard, token, answer in self._claimed(shards, most, version, alone=False):
            if answer is None:
                held.append(shard)
            elif answer[1]:
                batches.append(_batch(shard, token, *answer))
            elif answer[2]:
                suspect.append(shard)
        return Claims(batches, held, suspect)

    def claim_alone(self, shard: int, version: int) -> Batch | None:
        """Lease a suspect shard and read its oldest entry only. None: it is held, or not suspect any longer."""
        [(_, token, answer)] = self._claimed([shard], 1, version, alone=True)
        return _batch(shard, token, *answer) if answer is not None and answer[1] else None

    def _claimed(
        self, shards: Iterable[int], most: int, version: int, *, alone: bool
    ) -> Iterable[tuple[int, str, Any]]:
        tokens = {shard: secrets.token_hex(16) for shard in shards}
        calls = (
            (
                [each(shard) for each in (keys.lease, keys.inbox, keys.epoch, keys.trial, keys.newest)],
                [token, LEASE_LASTS, most, _name(), version, TOGETHER, int(alone)],
            )
            for shard, token in tokens.items()
        )
        answers = scripts.run(self.redis, self._claim, calls)
        return zip(tokens, tokens.values(), answers, strict=True)

    def announce(self, version: int) -> None:
        """Say that a worker whose fold is of this version is alive: older ones are to leave the shards to it."""
        each = (([keys.newest(shard)], [version, ANNOUNCED]) for shard in range(self.shards))
        scripts.run(self.redis, self._announce, each)

    def attended(self) -> bool:
        """Whether a worker has said of late that it is alive. Raises redis.RedisError."""
        return self.newest() is not None

    def newest(self) -> int | None:
        """The newest fold version of the workers that have said of late that they are alive; None: there are none."""
        found: Any = self.redis.get(keys.newest(0))
        return None if found is None else int(found)

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


def raw(entry: Entry | Unread) -> bytes:
    """An entry as inboxes hold it."""
    return entry.raw if isinstance(entry, Unread) else _encode(entry)


def is_behind(stream_id: bytes, other: bytes) -> bool:
    """Whether an id of a stream is higher than another."""
    return tuple(map(int, stream_id.split(b"-"))) > tuple(map(int, other.split(b"-")))


def _name() -> str:
    """A name for a shard's lifetime, should it have none."""
    return secrets.token_hex(8)


def _outcome(answer: Any, number: int) -> bool | RedisError:
    """What became of a shard's entry with this number, by what its script has answered."""
    if isinstance(answer, RedisError):
        return answer
    due, stored = answer
    return due == 1 if number < stored else Full("too much is waiting to be folded")


def _batch(shard: int, token: str, epoch: bytes, entries: list[tuple[bytes, list[bytes]]], begun: int) -> Batch:
    return Batch(
        shard=shard,
        token=token,
        epoch=epoch.decode(),
        entries=[_read(fields[1]) for _, fields in entries],
        first_id=entries[0][0],
        last_id=entries[-1][0],
        begun=begun,
    )


def _read(raw: bytes) -> Entry | Unread:
    try:
        entry: Entry = _decoder.decode(raw)
    except msgspec.DecodeError:
        return Unread(raw)
    return entry


def _threes(answers: Sequence[Any]) -> Iterable[tuple[Any, Any, Any]]:
    return zip(answers[::3], answers[1::3], answers[2::3], strict=True)
