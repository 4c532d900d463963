"""Looks at Twilio's REST API that are due: found, begun by one worker at a time, put off, and settled.

A commit writes the one that the fold wants, and takes it away again; the reasons of `ASKED` are written and taken away
here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from redis import Redis

from app.store import keys, scripts

ASKED = ("operator", "outage", "adopted")
"""Reasons that no commit knows of."""
ALONE = 60_000
"""Milliseconds for which a look, or a step of it, is left to the worker that has begun it. Longer than a request."""
REMEMBERED = 24 * 3600
"""Seconds for which it is remembered who asked, and how often it has failed."""
FIRST, LONGEST = 2_000, 600_000
"""Milliseconds that a look is put off after its first failure, and at most; each time twice as long."""


class Due(NamedTuple):
    """A look that is due."""

    sid: str
    reason: str
    at: int
    """Since when, in ms."""

    @property
    def member(self) -> str:
        """How it is written down."""
        return keys.look(self.sid, self.reason)


# Begin a look, unless another worker is at it. KEYS 1 asking, 2 who asked, 3 when it was seen, 4 the conference. ARGV 1
# a random token, 2 for how long nobody else may begin it, ms. Returns nil, or {the header, who asked, when seen}.
BEGIN = """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return nil end
return {redis.call('HGET', KEYS[4], 'header'), redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3])}
"""

# Have it left to us for its whole length again. KEYS 1 asking. ARGV 1 our token, 2 how long, ms.
# Returns 1, or 0 where it is not ours any more.
GO_ON = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

# Give it to others. KEYS 1 asking. ARGV 1 our token.
LEAVE = """#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""

# Move looks that are there, or take them away.
# KEYS 1 looks. ARGV in threes: member, its score if it must not have changed, else '', the new one, or '' to take it
# away.
MOVE = """#!lua flags=allow-oom
for n = 1, #ARGV, 3 do
  if ARGV[n + 1] == '' or tonumber(redis.call('ZSCORE', KEYS[1], ARGV[n]) or -1) == tonumber(ARGV[n + 1]) then
    if ARGV[n + 2] == '' then
      redis.call('ZREM', KEYS[1], ARGV[n])
    else
      redis.call('ZADD', KEYS[1], 'XX', ARGV[n + 2], ARGV[n])
    end
  end
end
"""

# Count another failure. KEYS 1 tried. ARGV 1 for how long it is remembered, s. Returns how many there are in a row.
COUNT = """#!lua flags=allow-oom
local tries = redis.call('INCR', KEYS[1])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return tries
"""


class Begun(NamedTuple):
    """The right to look at a conference."""

    token: str
    header: bytes | None
    """As it is now; None: the conference is not known."""
    asked_by: str | None
    """Who asked for it, if anybody did."""
    seen_at: int | None
    """When it was last seen, in ms; the record of that may still wait to be folded."""


class Looks:
    """Those of all shards. Every method raises redis.RedisError."""

    def __init__(self, redis: Redis, shards: int) -> None:
        self.redis = redis
        self.shards = shards
        self._begin = redis.register_script(BEGIN)
        self._go_on = redis.register_script(GO_ON)
        self._leave = redis.register_script(LEAVE)
        self._move = redis.register_script(MOVE)
        self._count = redis.register_script(COUNT)

    def due(self, now: int, most: int) -> list[Due]:
        """What is due at `now`, in ms, the oldest first; `most` of each shard. One round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.zrange(keys.looks(shard), "-inf", str(now), byscore=True, offset=0, num=most, withscores=True)
            found = [(member.decode().partition(" "), at) for some in pipe.execute() for member, at in some]
        dues = [Due(sid, reason, int(at)) for (sid, _, reason), at in found]
        return sorted(dues, key=lambda each: (each.at, each.sid))

    def ask(self, sids: Iterable[str], reason: str, now: int, by: str | None = None) -> None:
        """Have these conferences looked at from `now` on, in ms, if that is not later than they would be anyway.

        `by` is the name of the key with which somebody asks, for the record.
        """
        with self.redis.pipeline(transaction=False) as pipe:
            for sid in sids:
                shard = keys.shard_of(sid, self.shards)
                if by is not None:
                    pipe.set(keys.asked_by(shard, sid), by, ex=REMEMBERED)
                pipe.zadd(keys.looks(shard), {Due(sid, reason, now).member: now}, nx=by is None, lt=by is not None)
            pipe.execute()

    def begin(self, sid: str) -> Begun | None:
        """The right to look at a conference, for the time of `ALONE`. None: another worker has it."""
        shard, token = keys.shard_of(sid, self.shards), secrets.token_hex(8)
        names = [each(shard, sid) for each in (keys.asking, keys.asked_by, keys.seen, keys.conference)]
        found: Any = self._begin(names, [token, ALONE])
        if found is None:
            return None
        header, asked_by, seen_at = found
        return Begun(token, header, asked_by.decode() if asked_by else None, int(seen_at) if seen_at else None)

    def go_on(self, sid: str, token: str) -> bool:
        """Have the right last from now on. False: it has passed on."""
        return bool(self._go_on([keys.asking(keys.shard_of(sid, self.shards), sid)], [token, ALONE]))

    def leave(self, sid: str, token: str) -> None:
        """Give the right back."""
        self._leave([keys.asking(keys.shard_of(sid, self.shards), sid)], [token])

    def put_off(self, moves: Mapping[Due, int]) -> None:
        """Have looks at a later time, in ms, unless another worker has come to them since they were found."""
        self._moved([(due, due.at, to) for due, to in moves.items()])

    def move(self, dues: Iterable[Due], to: int | None = None) -> None:
        """Have looks that we have the right to at another time, in ms, or not at all (None)."""
        self._moved([(due, "", "" if to is None else to) for due in dues])

    def _moved(self, moves: Iterable[tuple[Due, int | str, int | str]]) -> None:
        words: dict[int, list[Any]] = {}
        for due, was, to in moves:
            words.setdefault(keys.shard_of(due.sid, self.shards), []).extend((due.member, was, to))
        scripts.run(self.redis, self._move, (([keys.looks(shard)], said) for shard, said in words.items()))

    def failed(self, dues: Sequence[Due], now: int, stretch: float = 1.0) -> int:
        """Put the looks at one conference off after a failure: by twice as long as after the one before.

        `stretch` is what that is multiplied with. Returns for how many ms.
        """
        sid = dues[0].sid
        tries = int(self._count([keys.tried(keys.shard_of(sid, self.shards), sid)], [REMEMBERED]))
        wait = int(min(LONGEST, FIRST * 2 ** min(tries - 1, 20)) * stretch)
        self.move(dues, now + wait)
        return wait

    def settle(self, dues: Sequence[Due], seen_at: int, again: int) -> None:
        """After what was seen has been written down at `seen_at`, in ms; count it by its reason.

        What the fold wanted is come back to at `again`, unless the commit that folds this takes it away before. What
        others asked for is done.
        """
        sid = dues[0].sid
        shard = keys.shard_of(sid, self.shards)
        self._moved([(due, "", "" if due.reason in ASKED else again) for due in dues])
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.set(keys.seen(shard, sid), seen_at, ex=REMEMBERED)
            pipe.delete(keys.tried(shard, sid))
            pipe.hincrby(keys.REST, f"snapshot:{dues[0].reason}")
            pipe.execute()

    def first_at(self, errand: str, seconds: int) -> bool:
        """Whether nobody else is about this errand; then it is ours for so long, or until `done_with`."""
        return bool(self.redis.set(keys.errand(errand), "1", nx=True, ex=seconds))

    def done_with(self, errand: str) -> None:
        """Leave an errand to others."""
        self.redis.delete(keys.errand(errand))

    def unlisted(self, accounts: Sequence[str]) -> list[str]:
        """Those of these accounts whose conferences in progress have never been listed."""
        with self.redis.pipeline(transaction=False) as pipe:
            for account in accounts:
                pipe.exists(keys.adopted(account))
            return [account for account, found in zip(accounts, pipe.execute(), strict=True) if not found]

    def listed(self, account: str) -> None:
        """They have been listed, and what was not known is on its way."""
        self.redis.set(keys.adopted(account), "1")
