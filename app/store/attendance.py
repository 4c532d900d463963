"""Whether there was somebody to take callbacks: web says so every second, and who comes too late finds out."""

from __future__ import annotations

from typing import Any, NamedTuple

from redis import Redis

from app.store import keys

LONGEST_GAP = 15_000
"""Milliseconds. Twilio gives a callback up after that (Twilio docs, Connection Overrides): some are lost by then."""

# Say that callbacks are taken. KEYS 1 attended. ARGV 1 now, ms, 2 the longest gap that is none, ms, 3 since when some
# were refused for want of a place, or ''. Notes an outage if there was one, joined with one that is noted already.
BEAT = """#!lua flags=allow-oom
local last, noted = unpack(redis.call('HMGET', KEYS[1], 'at', 'outage'))
local now, from = tonumber(ARGV[1]), tonumber(ARGV[3])
if last and now - tonumber(last) > tonumber(ARGV[2]) then from = math.min(from or now, tonumber(last)) end
if from then
  if noted then from = math.min(from, tonumber(string.match(noted, '^%d+'))) end
  redis.call('HSET', KEYS[1], 'outage', string.format('%d,%d', from, now))
end
redis.call('HSET', KEYS[1], 'at', string.format('%d', math.max(now, tonumber(last or now))))
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

    def beat(self, now: int, refused_since: int | None = None) -> None:
        """Say at `now`, in ms, that callbacks are taken; and since when some that were Twilio's had to be refused."""
        words = [now, LONGEST_GAP, "" if refused_since is None else refused_since]
        self._beat([keys.ATTENDED], words)

    def outage(self) -> Outage | None:
        """The time that nobody has seen to yet."""
        noted: Any = self.redis.hget(keys.ATTENDED, "outage")
        return None if noted is None else Outage(*map(int, noted.split(b",")))

    def over(self, outage: Outage) -> None:
        """It has been seen to. One that has grown meanwhile stays."""
        self._over([keys.ATTENDED], [f"{outage.since},{outage.until}"])
