"""Every key and channel: its type, what it holds, and who writes it.

All keys of a shard carry its number as hash tag, so one shard's commit is one slot of a Redis Cluster. Only SIDs that
were matched against their pattern, shard numbers and digests ever become part of a key: no names, labels or numbers of
people.
"""

from zlib import crc32

LAYOUT = "offhook:shards"
"""String: for how many shards this data was laid out, and in which form. Written once, by whoever starts first."""

RULES = "offhook:rules"
"""String: digest of the rules by which alerts are raised. The workers write it."""

REFUSED = "offhook:refused"
"""Hash: refused requests by reason. Web counts them."""

REST = "offhook:rest"
"""Hash: our own requests to Twilio's REST API by outcome, and the looks they made up by reason. Workers count them."""

ATTENDED = "offhook:attended"
"""Hash: when a web process last said that it takes callbacks, and an outage that nobody has seen to yet."""

PROBE = "offhook:probe"
"""String with a short life: written to learn whether anything can be. Web writes it for /readyz."""

ALL_CONFERENCES = "offhook:conferences"
"""Channel: every committed change."""


def shard_of(sid: str, shards: int) -> int:
    """The shard that a conference, or a call that names no conference, lives on."""
    return crc32(sid.encode()) % shards


def inbox(shard: int) -> str:
    """Stream: callbacks not folded yet, and links between calls and conferences. Web appends, commits trim."""
    return f"offhook:{{{shard}}}:inbox"


def woken(shard: int) -> str:
    """String with a short life: a drain has been asked for, or is attending. Only spares repeats of the wake-up."""
    return f"offhook:{{{shard}}}:woken"


def lease(shard: int) -> str:
    """String with a short life: the random token of the one drain that may commit to this shard."""
    return f"offhook:{{{shard}}}:lease"


def trial(shard: int) -> str:
    """String: the batch that was begun last and is not committed (see `CLAIM`). Claims count, commits settle it."""
    return f"offhook:{{{shard}}}:trial"


def newest(shard: int) -> str:
    """String with a short life: the highest fold version of the workers that are alive. Each sweep says its own."""
    return f"offhook:{{{shard}}}:newest"


def epoch(shard: int) -> str:
    """String: random name of this shard's lifetime. A new one means that the data was flushed or replaced."""
    return f"offhook:{{{shard}}}:epoch"


def index(shard: int) -> str:
    """Sorted set, all scores 0: where to find conferences (see `index.py`). Commits write it."""
    return f"offhook:{{{shard}}}:index"


def pending(shard: int) -> str:
    """Sorted set: unfinished control requests, by the time in ms until which callbacks may confirm them."""
    return f"offhook:{{{shard}}}:pending"


def looks(shard: int) -> str:
    """Sorted set: conferences for which Twilio's REST API is to be looked at, with the reason, by the time in ms from
    which it is due. Commits keep a conference's own want in it; web, commands and workers add other reasons, and
    workers put off."""
    return f"offhook:{{{shard}}}:looks"


def look(sid: str, reason: str) -> str:
    """Member of `looks`."""
    return f"{sid} {reason}"


def asking(shard: int, sid: str) -> str:
    """String with a short life: the random token of the one worker that looks at this conference at Twilio."""
    return f"offhook:{{{shard}}}:asking:{sid}"


def asked_by(shard: int, sid: str) -> str:
    """String with a life of a day: name of the key with which somebody asked for a look. Web and commands write it."""
    return f"offhook:{{{shard}}}:asked:{sid}"


def seen(shard: int, sid: str) -> str:
    """String with a life of a day: when Twilio's REST API last showed a conference, in ms. Workers write it."""
    return f"offhook:{{{shard}}}:seen:{sid}"


def tried(shard: int, sid: str) -> str:
    """String with a life of a day: how often in a row a look at this conference has failed. Workers count it."""
    return f"offhook:{{{shard}}}:tried:{sid}"


def timers(shard: int) -> str:
    """Sorted set: what alerts are to be looked at, by when, in ms. Commits write it, and the worker that has looked."""
    return f"offhook:{{{shard}}}:timers"


def alerts(shard: int) -> str:
    """Sorted set: the alerts that stand, by since when, in ms. Commits write it."""
    return f"offhook:{{{shard}}}:alerts"


def outbox(shard: int) -> str:
    """Stream: records of alerts that are to be told to others. Commits append, the sender takes them out."""
    return f"offhook:{{{shard}}}:outbox"


def deliveries(shard: int, endpoint: str) -> str:
    """Sorted set: what an endpoint is to be told, by when it is to be tried, in ms. The sender writes it."""
    return f"offhook:{{{shard}}}:deliveries:{endpoint}"


def messages(shard: int) -> str:
    """Hash: of each delivery, how often it was tried, and the record."""
    return f"offhook:{{{shard}}}:messages"


def undelivered(shard: int) -> str:
    """Stream: deliveries that were given up, each with the reason; the newest. The sender appends."""
    return f"offhook:{{{shard}}}:undelivered"


def told(shard: int) -> str:
    """Hash: deliveries that arrived, and those given up, counted by the sender."""
    return f"offhook:{{{shard}}}:told"


def changes(shard: int) -> str:
    """Stream: the latest changes as subscribers were sent them (see `feed.py`). Commits append, and drop the oldest."""
    return f"offhook:{{{shard}}}:changes"


def counters(shard: int) -> str:
    """Hash: callbacks folded, noted, repeated and set aside, counted by the commits that did it."""
    return f"offhook:{{{shard}}}:counters"


def gaps(shard: int) -> str:
    """Hash: how many sequence numbers are missing in all conferences, how often Twilio's REST API was looked at, and
    how many of those looks showed something new. Commits keep it."""
    return f"offhook:{{{shard}}}:gaps"


def dead_letters(shard: int) -> str:
    """Stream: callbacks that could not be folded, each with its reason. Commits append."""
    return f"offhook:{{{shard}}}:dead"


def conference(shard: int, sid: str) -> str:
    """Hash: `header` and one field a participant, each the JSON that readers get; `fold` is the fold's version."""
    return f"offhook:{{{shard}}}:conference:{sid}"


def log(shard: int, sid: str) -> str:
    """List: the conference's callbacks, packed (see `logs.py`). The source of truth. Commits append."""
    return f"offhook:{{{shard}}}:log:{sid}"


def ids(shard: int, sid: str) -> str:
    """String: the ids of the callbacks in a conference's log, in their order, twelve bytes each. Commits append."""
    return f"offhook:{{{shard}}}:ids:{sid}"


def call(shard: int, sid: str) -> str:
    """Hash with a long life: a call's own callbacks by identity, and the conferences it has been seen in."""
    return f"offhook:{{{shard}}}:call:{sid}"


def budget(account: str) -> str:
    """Hash with a life of an hour: what an account may still ask Twilio's REST API (see `budget.py`). Workers count."""
    return f"offhook:budget:{account}"


def adopted(account: str) -> str:
    """String: this account's conferences in progress have been listed once. The worker that did it writes it."""
    return f"offhook:adopted:{account}"


def listing(account: str) -> str:
    """String with a life of a day: how far the list of this account's conferences in progress has come. Workers write
    it."""
    return f"offhook:listing:{account}"


def errand(name: str) -> str:
    """String with a short life: a worker is about something that only one should do at a time."""
    return f"offhook:errand:{name}"


def promise(digest: str) -> str:
    """String with a life of a day: a control request that must not be sent twice, and its answer. Web writes it."""
    return f"offhook:promise:{digest}"


def session(digest: str) -> str:
    """String with a life of up to a week: who is signed in with a browser (see `sessions.py`). Web writes it."""
    return f"offhook:session:{digest}"


def ticket(digest: str) -> str:
    """String with a life of an hour: a link that signs in once. `offhook run` and `link` write it, web takes it."""
    return f"offhook:ticket:{digest}"


def conference_channel(sid: str) -> str:
    """Channel: one conference's changes."""
    return f"offhook:conference:{sid}"


def account_channel(sid: str) -> str:
    """Channel: one account's changes."""
    return f"offhook:account:{sid}"
