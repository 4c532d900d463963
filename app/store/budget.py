"""What we may ask Twilio's REST API on our own account: so many requests a second, and none while it fails.

One bucket of tokens for each Twilio account, shared by all workers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

from redis import Redis

from app.store import keys

Outcome = Literal["ok", "not_found", "rate_limited", "refused", "failed", "unanswered"]
"""What became of a request: an answer; 404 in Twilio's words; 429; 401 or 403; another status; no usable answer."""

RATE = 2.0
"""Requests a second. Twilio's own limits are on concurrency and not published; this is far below what one meets."""
BURST = 2
"""Requests that may go at once after a rest: one look."""
LONGEST = 60_000
"""Milliseconds of the longest pause after failures in a row. The first is a second, each is twice the one before."""
LONGEST_TOLD = 600_000
"""Milliseconds. What is told in Retry-After is believed up to this."""
REFUSED = 600_000
"""Milliseconds. Credentials do not become right by trying."""
KEPT = 3_600_000
"""Milliseconds without a request after which nothing is remembered."""

# Take tokens, all of them or none. Time only moves forward, whoever's clock is behind.
# KEYS 1 budget. ARGV 1 now, ms, 2 tokens a second, 3 most tokens, 4 how many, 5 how long this is kept, ms.
# Returns for how many ms to wait: 0 when they were taken.
TAKE = """
local tokens, at, paused = unpack(redis.call('HMGET', KEYS[1], 'tokens', 'at', 'paused'))
local now, rate, most, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]) / 1000, tonumber(ARGV[3]), tonumber(ARGV[4])
if tonumber(paused or 0) > now then return math.ceil(tonumber(paused) - now) end
local last = tonumber(at or now)
tokens = math.min(most, tonumber(tokens or most) + math.max(0, now - last) * rate)
if tokens < wanted then return math.max(1, math.ceil((wanted - tokens) / rate)) end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - wanted), 'at', string.format('%d', math.max(now, last)))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 0
"""

# Put tokens back that were not used. KEYS 1 budget. ARGV 1 how many, 2 most tokens.
GIVE_BACK = """
local tokens = redis.call('HGET', KEYS[1], 'tokens')
if tokens then
  redis.call('HSET', KEYS[1], 'tokens', tostring(math.min(tonumber(ARGV[2]), tonumber(tokens) + tonumber(ARGV[1]))))
end
"""

# Note a success or a failure. Failures that come while there is a pause belong to the one that began it.
# KEYS 1 budget. ARGV 1 now, ms, 2 the pause, ms: 0 after a success, -1 for twice the one before, 3 the longest of
# those, 4 by how much they are stretched, 5 how long this is kept, ms. Returns for how many ms there is a pause now.
NOTE = """#!lua flags=allow-oom
local now, pause = tonumber(ARGV[1]), tonumber(ARGV[2])
if pause == 0 then
  redis.call('HDEL', KEYS[1], 'failures')
  return 0
end
local paused = tonumber(redis.call('HGET', KEYS[1], 'paused') or 0)
if paused <= now then
  local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
  if pause < 0 then
    pause = math.floor(math.min(tonumber(ARGV[3]), 1000 * 2 ^ math.min(failures - 1, 30)) * tonumber(ARGV[4]))
  end
end
paused = math.max(paused, now + pause)
redis.call('HSET', KEYS[1], 'paused', string.format('%d', paused))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return math.ceil(paused - now)
"""


class Budget:
    """The budgets of all accounts. Every method raises redis.RedisError."""

    def __init__(self, redis: Redis, rate: float = RATE, chance: Callable[[], float] = random.random) -> None:
        """`rate`: requests a second of each account. `chance` gives numbers from 0 to 1, for pauses to differ."""
        self.redis = redis
        self.rate = rate
        self.chance = chance
        self._take = redis.register_script(TAKE)
        self._give_back = redis.register_script(GIVE_BACK)
        self._note = redis.register_script(NOTE)

    def take(self, account: str, now: int, requests: int = 1) -> int:
        """Take what so many requests cost, at most `BURST`. For how many ms to wait, in vain till then; 0: go."""
        return int(self._take([keys.budget(account)], [now, self.rate, BURST, requests, KEPT]))

    def give_back(self, account: str, requests: int) -> None:
        """Requests that were taken and not made."""
        self._give_back([keys.budget(account)], [requests, BURST])

    def note(self, account: str, now: int, outcome: Outcome, told: int | None = None) -> int:
        """Count a request by what became of it. For how many ms the account pauses now; 0: it does not.

        `told`: the pause that Twilio has asked for, in ms.
        """
        pause = 0 if outcome in ("ok", "not_found") else REFUSED if outcome == "refused" else -1
        if outcome == "rate_limited" and told is not None:
            pause = min(max(told, 1), LONGEST_TOLD)
        words = [now, pause, LONGEST, 1 + self.chance() / 4, KEPT]
        self.redis.hincrby(keys.REST, outcome)
        return int(self._note([keys.budget(account)], words))
