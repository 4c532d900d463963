"""What alerts are to be looked at and when, and which stand. Commits write both (see `commits.py`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from redis import Redis

from app.alerts import Key
from app.conference import Header, read_header
from app.events import Alert
from app.store import keys, scripts
from app.store.commits import milliseconds, timer_of
from app.store.snapshots import Snapshots

AT_ONCE = 500
"""Alerts of one shard read at once, where those of some accounts are looked for among others."""


class Look(NamedTuple):
    """At what is to be looked, and when."""

    conference_sid: str
    key: Key
    due: datetime


# Put a look off, or drop it, unless it has been set to another time meanwhile.
# KEYS 1 timers. ARGV 1 member, 2 for when it was set, ms, 3 to when, or empty: drop it.
LOOKED = """#!lua flags=allow-oom
local due = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not due or tonumber(due) ~= tonumber(ARGV[2]) then return end
if ARGV[3] == '' then redis.call('ZREM', KEYS[1], ARGV[1]) else redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
"""


class Alerts:
    """The alerts of all shards."""

    def __init__(self, snapshots: Snapshots) -> None:
        """Of these conferences."""
        self.redis: Redis = snapshots.redis
        self.shards = snapshots.shards
        self.snapshots = snapshots
        self._looked = self.redis.register_script(LOOKED)

    def due(self, now: datetime, most: int) -> list[Look]:
        """What is to be looked at by now, in one round trip; `most` of each shard."""
        until = str(milliseconds(now))
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.zrange(keys.timers(shard), "-inf", until, byscore=True, offset=0, num=most, withscores=True)
            return [_look(*each) for found in pipe.execute() for each in found]

    def looked(self, outcomes: Iterable[tuple[Look, datetime | None]]) -> None:
        """Put looks off, or drop them (None), in one round trip; none that has been set to another time meanwhile."""
        calls = (
            (
                [self._timers(look.conference_sid)],
                [timer_of(look.conference_sid, look.key), milliseconds(look.due), milliseconds(again) if again else ""],
            )
            for look, again in outcomes
        )
        scripts.run(self.redis, self._looked, calls)

    def watch(self, looks: Iterable[Look]) -> None:
        """Have things looked at, in one round trip; what is to be looked at anyway stays as it is set."""
        with self.redis.pipeline(transaction=False) as pipe:
            for look in looks:
                member = timer_of(look.conference_sid, look.key)
                pipe.zadd(self._timers(look.conference_sid), {member: milliseconds(look.due)}, nx=True)
            pipe.execute()

    def rules(self) -> str | None:
        """The digest of the rules by which alerts have been raised so far; None: by none."""
        digest: bytes | None = self.redis.get(keys.RULES)  # type: ignore[assignment]  # the client's types allow for asyncio
        return digest.decode() if digest is not None else None

    def follow(self, digest: str) -> None:
        """Remember the digest of the rules by which they are raised from now on."""
        self.redis.set(keys.RULES, digest)

    def conferences(self) -> Iterator[str]:
        """Every conference in which an alert stands; some more than once."""
        for shard in range(self.shards):
            for member, _ in self.redis.zscan_iter(keys.alerts(shard)):
                yield _words(member)[1]

    def standing(self, accounts: Collection[str] | None, most: int) -> list[tuple[Header, Alert]]:
        """The alerts that stand in conferences of these accounts (None: of all), those that began last first."""
        shown = sorted(self._newest(accounts, most), reverse=True)[:most]
        sids = list({words[1]: None for _, words in shown})
        headers = {sid: read_header(raw) for sid, raw in zip(sids, self.snapshots.headers(sids), strict=True) if raw}
        return [
            (headers[sid], alert)
            for _, (_, sid, rule, subject) in shown
            for alert in (headers[sid].alerts if sid in headers else ())
            if (alert.rule, alert.subject or "-") == (rule, subject)
        ]

    def _newest(self, accounts: Collection[str] | None, most: int) -> list[tuple[float, list[str]]]:
        """Of each shard the newest alerts of these accounts, at least `most` if there are so many; by since when."""
        found: dict[int, dict[bytes, float]] = {shard: {} for shard in range(self.shards)}
        size, start, unread = most if accounts is None else max(most, AT_ONCE), 0, list(found)
        while unread:
            with self.redis.pipeline(transaction=False) as pipe:
                for shard in unread:
                    pipe.zrange(keys.alerts(shard), start, start + size - 1, desc=True, withscores=True)
                pages = dict(zip(unread, pipe.execute(), strict=True))
            for shard, page in pages.items():
                found[shard] |= {each: at for each, at in page if accounts is None or _words(each)[0] in accounts}
            unread = [shard for shard, page in pages.items() if len(page) == size and len(found[shard]) < most]
            start += size
        return [(since, _words(member)) for some in found.values() for member, since in some.items()]

    def _timers(self, conference_sid: str) -> str:
        return keys.timers(keys.shard_of(conference_sid, self.shards))


def _words(member: bytes) -> list[str]:
    """Account, conference, rule and subject of an alert that stands."""
    return member.decode().split(" ")


def _look(member: bytes, score: float) -> Look:
    sid, rule, subject = member.decode().split(" ")
    return Look(sid, (rule, "" if subject == "-" else subject), datetime.fromtimestamp(score / 1000, UTC))
