"""Whether there was somebody to take callbacks: web says so every second, and who comes too late finds out."""

from __future__ import annotations

from typing import Any, NamedTuple

from redis import Redis

from app.store import keys

LONGEST_GAP = 15_000
"""Milliseconds. Twilio gives a callback up after that (Twilio docs, Connection Overrides): some are lost by then."""

# Say that callbacks are taken. Redis' clock is the one that all web processes have in common. KEYS 1 attended. ARGV 1
# for how long whoever says so has taken them without a break, ms, 2 the longest gap that is none, ms, 3 how long ago
# some were first refused for want of a place, ms, or '', 4 when this process said so last, or ''. Notes an outage if
# there was one, joined with one that is noted already. That nobody could say so for a while, as when Redis was away, is
# none; but it is one if Redis has come back without what it was told before. Returns what is said now, ms.
BEAT = """#!lua flags=allow-oom
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local last, noted = unpack(redis.call('HMGET', KEYS[1], 'at', 'outage'))
local from = ARGV[3] ~= '' and now - tonumber(ARGV[3])
local has_forgotten = last and ARGV[4] ~= '' and tonumber(last) < tonumber(ARGV[4])
if has_forgotten or last and now - tonumber(ARGV[1]) - tonumber(last) > tonumber(ARGV[2]) then
  from = math.min(from or now, tonumber(last))
end
if from then
  if noted then from = math.min(from, tonumber(string.match(noted, '^%d+'))) end
  redis.call('HSET', KEYS[1], 'outage', string.format('%d,%d', from, now))
end
local at = math.max(now, tonumber(last or now)) -- its clock may have been set back
redis.call('HSET', KEYS[1], 'at', string.format('%d', at))
return at
"""

# Forget an outage, unless it has grown since. KEYS 1 attended. ARGV 1 how it was noted.
OVER = """#!lua flags=allow-oom
if redis.call('HGET', KEYS[1], 'outage') == ARGV[1] then redis.call('HDEL', KEYS[1], 'outage') end
"""


class Outage(NamedTuple):
    """A time in which callbacks may have been lost, in ms since 1970."""

    since: int
    until: int


class Attendance:
    """That of all web processes. Every method raises redis.RedisError."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._beat = redis.register_script(BEAT)
        self._over = redis.register_script(OVER)
        self.said_at: int | None = None
        """When this process last said that it is there, by Redis' clock, in ms."""

    def beat(self, taken_for: int, refused_for: int | None = None) -> None:
        """Say that callbacks are taken, and for how many ms without a break; and how many ms ago some that were
        Twilio's were first refused.
        """
        words = [taken_for, LONGEST_GAP, *("" if each is None else each for each in (refused_for, self.said_at))]
        self.said_at = int(self._beat([keys.ATTENDED], words))

    def outage(self) -> Outage | None:
        """The time that nobody has seen to yet."""
        noted: Any = self.redis.hget(keys.ATTENDED, "outage")
        return None if noted is None else Outage(*map(int, noted.split(b",")))

    def over(self, outage: Outage) -> None:
        """It has been seen to. One that has grown meanwhile stays."""
        self._over([keys.ATTENDED], [f"{outage.since},{outage.until}"])
