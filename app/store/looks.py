"""Looks at Twilio's REST API that are due: found, begun by one worker at a time, put off, and settled.

A commit writes the one that the fold wants, and takes it away again; the reasons of `ASKED` are written and taken away
here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
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


class Listing(msgspec.Struct, frozen=True):
    """How far the list of an account's conferences in progress has come."""

    address: str | None = None
    """Of the page that is next; None: the first."""
    pages: int = 0
    """That are done with."""
    has_failed: bool = False
    """Whether the page that is next has."""
    failures: int = 0
    """Of all pages."""
    not_before: int = 0
    """When it is tried again, in ms."""


_read_listing = msgspec.json.Decoder(Listing).decode


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


# Begin a look, unless another worker is at it or has had it: whoever found it may have found it long ago.
# KEYS 1 asking, 2 who asked, 3 when it was seen, 4 the conference, 5 looks. ARGV 1 a random token, 2 for how long no
# other may begin it, ms, 3 now, ms, then the members that were found. Returns nil, or {the header, who asked, when
# seen, then of each member its score, '' if it is not due any more}.
BEGIN = """
local scores, is_due = {}, false
for n = 4, #ARGV do
  local score = redis.call('ZSCORE', KEYS[5], ARGV[n])
  if score and tonumber(score) <= tonumber(ARGV[3]) then is_due = true else score = '' end
  scores[n - 3] = score
end
if not is_due or not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return nil end
return {redis.call('HGET', KEYS[4], 'header'), redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3]), unpack(scores)}
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
    dues: list[Due]
    """What is still due of what was found."""
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

    def begin(self, found: Sequence[Due], now: int) -> Begun | None:
        """The right to look at one conference, for the time of `ALONE`, for what was found to be due and still is.

        None: another worker has it, or nothing is due any more at `now`, in ms.
        """
        sid = found[0].sid
        shard, token = keys.shard_of(sid, self.shards), secrets.token_hex(8)
        names = [each(shard, sid) for each in (keys.asking, keys.asked_by, keys.seen, keys.conference)]
        words: list[Any] = [token, ALONE, now, *(due.member for due in found)]
        begun: Any = self._begin([*names, keys.looks(shard)], words)
        if begun is None:
            return None
        header, asked_by, seen_at, *scores = begun
        dues = [due._replace(at=int(float(score))) for due, score in zip(found, scores, strict=True) if score]
        return Begun(token, dues, header, asked_by.decode() if asked_by else None, int(seen_at) if seen_at else None)

    def go_on(self, sid: str, token: str) -> bool:
        """Have the right last from now on. False: it has passed on."""
        return bool(self._go_on([keys.asking(keys.shard_of(sid, self.shards), sid)], [token, ALONE]))

    def leave(self, sid: str, token: str) -> None:
        """Give the right back."""
        self._leave([keys.asking(keys.shard_of(sid, self.shards), sid)], [token])

    def put_off(self, moves: Mapping[Due, int | None]) -> None:
        """Have looks at a later time, in ms, or not at all (None), unless they were moved since they were found.

        A commit may have put one back, or brought it forward; another worker may have come to it.
        """
        self._moved([(due, due.at, "" if to is None else to) for due, to in moves.items()])

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
        self._moved([(due, "", now + wait) for due in dues])
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

    def listing(self, account: str) -> Listing:
        """How far the list has come, within a day."""
        found: Any = self.redis.get(keys.listing(account))
        return Listing() if found is None else _read_listing(found)

    def note_listing(self, account: str, listing: Listing) -> None:
        """Say how far it has come."""
        self.redis.set(keys.listing(account), msgspec.json.encode(listing), ex=REMEMBERED)

    def listed(self, account: str) -> None:
        """They have been listed, and what was not known is on its way."""
        self.redis.set(keys.adopted(account), "1")
        self.redis.delete(keys.listing(account))
