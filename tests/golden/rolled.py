"""Puts stories of the golden files into Redis, as their builds would have stored them in today's form."""

from __future__ import annotations

from redis import Redis

from app.conference import read_header, read_participant
from app.store import keys
from app.store.index import entries_of
from app.store.logs import NUMBER_BYTES, packed
from tests.conftest import SHARDS
from tests.golden import Golden


def stored(redis: Redis, version: int, story: Golden) -> None:
    """The document of this version of the fold, the log, callback by callback, and the index.

    Version 1 is older than form 2: builds that folded so stored logs otherwise, which no build of form 2 reads.
    """
    sid, shard = story.sid, keys.shard_of(story.sid, SHARDS)
    redis.hset(keys.conference(shard, sid), mapping={**story.fields, "fold": version})
    for number, told in enumerate(story.log, start=1):
        [(ids, pack)] = packed(sid, [told])
        redis.append(keys.ids(shard, sid), ids)
        redis.rpush(keys.log(shard, sid), number.to_bytes(NUMBER_BYTES, "big") + pack)
    entries = entries_of(read_header(story.header), map(read_participant, story.participants))
    redis.zadd(keys.index(shard), dict.fromkeys(entries, 0))
