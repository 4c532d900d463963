"""What others are to be told of alerts: kept until it was delivered, or given up.

A commit appends to the shard's stream, in the step that raises or clears the alert. From there it becomes one delivery
for each endpoint, in a sorted set of that endpoint by when it is to be tried. Whoever takes a delivery has it for a
while; if they die, it is there again. So each arrives at least once, always with the same id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec
from redis import Redis

from app.store import keys, scripts

HELD = 60_000
"""Milliseconds for which whoever took a delivery has it."""
SPREAD_AT_ONCE = 100
"""Entries of one shard's stream."""
UNDELIVERED_KEPT = 1_000
"""Of each shard, the newest."""


class Delivery(NamedTuple):
    """One message to one endpoint."""

    shard: int
    message_id: str
    endpoint: str
    """Its name, see `app.upstream.webhooks.Endpoint`."""
    attempts: int
    """How many there were before."""
    record: bytes


# Make a delivery for each endpoint of each entry of the stream. KEYS 1 outbox, 2 messages, then the deliveries of each
# endpoint. ARGV 1 now, ms, 2 how many entries, then the endpoints.
SPREAD = """#!lua flags=allow-oom
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])) do
  local id, record = entry[2][2], entry[2][4]
  for n = 3, #ARGV do
    local name = id .. ' ' .. ARGV[n]
    redis.call('HSET', KEYS[2], name, '0 ' .. record)
    redis.call('ZADD', KEYS[n], ARGV[1], name)
  end
  redis.call('XDEL', KEYS[1], entry[1])
end
"""

# Take deliveries that are still due, and hold them. KEYS 1 deliveries, 2 messages. ARGV 1 now, ms, 2 until when they
# are held, then their names. Returns name and message of each.
TAKE = """#!lua flags=allow-oom
local taken = {}
for n = 3, #ARGV do
  local due = redis.call('ZSCORE', KEYS[1], ARGV[n])
  if due and tonumber(due) <= tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[1], ARGV[2], ARGV[n])
    table.insert(taken, ARGV[n])
    table.insert(taken, redis.call('HGET', KEYS[2], ARGV[n]) or '')
  end
end
return taken
"""

# Say what came of a delivery. KEYS 1 deliveries, 2 messages, 3 undelivered, 4 told. ARGV 1 name, 2 attempts, 3 when to
# try again, ms, or empty: it is done with, 4 why it was given up, or empty: it was not, 5 the record, 6 how many of
# those given up are kept. What somebody else has settled stays as it is.
SETTLE = """#!lua flags=allow-oom
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return end
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. ARGV[5])
  return
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
if ARGV[4] == '' then redis.call('HINCRBY', KEYS[4], 'delivered', 1) return end
redis.call('HINCRBY', KEYS[4], 'given_up', 1)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'n', ARGV[1], 'r', ARGV[4], 'e', ARGV[5])
"""


class Settled(NamedTuple):
    """What came of a delivery: tried again, given up, or, with neither, delivered."""

    delivery: Delivery
    again_at: int | None = None
    """Milliseconds since 1970."""
    given_up: str = ""
    """Why."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How deliveries stand, of all shards."""

    waiting: int
    delivered: int
    given_up: int


class Outbox:
    """The outboxes of all shards."""

    def __init__(self, redis: Redis, shards: int) -> None:
        self.redis = redis
        self.shards = shards
        self._spread = redis.register_script(SPREAD)
        self._take = redis.register_script(TAKE)
        self._settle = redis.register_script(SETTLE)

    def take(self, places: Mapping[str, int], now: int) -> list[Delivery]:
        """Deliveries whose time has come, `now` being ms since 1970; of each endpoint at most so many, the first first.

        They are held for `HELD`. What is for other endpoints is left to those who know them.
        """
        every = range(self.shards)
        spread = (
            (
                [keys.outbox(shard), keys.messages(shard), *(keys.deliveries(shard, endpoint) for endpoint in places)],
                [now, SPREAD_AT_ONCE, *places],
            )
            for shard in every
        )
        scripts.run(self.redis, self._spread, spread)
        asked = [(shard, endpoint) for endpoint, most in places.items() if most > 0 for shard in every]
        with self.redis.pipeline(transaction=False) as pipe:
            for shard, endpoint in asked:
                key, most = keys.deliveries(shard, endpoint), places[endpoint]
                pipe.zrange(key, "-inf", str(now), byscore=True, offset=0, num=most, withscores=True)
            found: dict[str, list[tuple[float, int, bytes]]] = {}
            for (shard, endpoint), due in zip(asked, pipe.execute(), strict=True):
                found.setdefault(endpoint, []).extend((moment, shard, name) for name, moment in due)
        chosen: dict[tuple[int, str], list[bytes]] = {}
        for endpoint, all_due in found.items():
            for _, shard, name in sorted(all_due)[: places[endpoint]]:
                chosen.setdefault((shard, endpoint), []).append(name)
        take = (
            ([keys.deliveries(shard, endpoint), keys.messages(shard)], [now, now + HELD, *names])
            for (shard, endpoint), names in chosen.items()
        )
        return [
            _delivery(shard, name, message)
            for (shard, _), taken in zip(chosen, scripts.run(self.redis, self._take, take), strict=True)
            for name, message in zip(taken[::2], taken[1::2], strict=True)
        ]

    def forsaken(self, endpoints: Collection[str], before: int) -> list[Delivery]:
        """Deliveries to other endpoints than these that have been due since `before`, in ms: nobody knows those.

        Reads the names of all that waits.
        """
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.hkeys(keys.messages(shard))
            waiting: list[list[bytes]] = pipe.execute()
            others = [
                (shard, name)
                for shard, names in enumerate(waiting)
                for name in names
                if _endpoint(name) not in endpoints
            ]
            for shard, name in others:
                pipe.zscore(keys.deliveries(shard, _endpoint(name)), name)
            due: list[float | None] = pipe.execute()
            late = [other for other, moment in zip(others, due, strict=True) if moment is not None and moment < before]
            for shard, name in late:
                pipe.hget(keys.messages(shard), name)
            messages: list[bytes | None] = pipe.execute()
        return [
            _delivery(shard, name, message)
            for (shard, name), message in zip(late, messages, strict=True)
            if message is not None
        ]

    def settle(self, settled: Iterable[Settled]) -> None:
        """Say what came of deliveries, in one round trip."""
        calls = (
            (
                [
                    keys.deliveries(one.delivery.shard, one.delivery.endpoint),
                    *(each(one.delivery.shard) for each in (keys.messages, keys.undelivered, keys.told)),
                ],
                [
                    f"{one.delivery.message_id} {one.delivery.endpoint}",
                    one.delivery.attempts + 1,
                    "" if one.again_at is None else one.again_at,
                    one.given_up,
                    one.delivery.record,
                    UNDELIVERED_KEPT,
                ],
            )
            for one in settled
        )
        scripts.run(self.redis, self._settle, calls)

    def standing(self) -> Standing:
        """How deliveries stand, in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.xlen(keys.outbox(shard))
                pipe.hlen(keys.messages(shard))
                pipe.hmget(keys.told(shard), ["delivered", "given_up"])
            answers = pipe.execute()
        told = [[int(count or 0) for count in counts] for counts in answers[2::3]]
        return Standing(
            waiting=sum(answers[::3]) + sum(answers[1::3]),
            delivered=sum(delivered for delivered, _ in told),
            given_up=sum(given_up for _, given_up in told),
        )


def _endpoint(name: bytes) -> str:
    return name.decode().partition(" ")[2]


def _delivery(shard: int, name: bytes, message: bytes) -> Delivery:
    message_id, endpoint = name.decode().split(" ")
    attempts, _, record = message.partition(b" ")
    return Delivery(shard, message_id, endpoint, int(attempts or 0), record)
