"""Each conference's latest document and its log: get, list, commit (see `commits.py`)."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec
from redis import Redis

from app.conference import (
    Conference,
    Header,
    document,
    read_header,
    read_participant,
)
from app.events import Status
from app.store import keys, scripts
from app.store.commits import (
    COMMIT,
    FOLD,
    HEADER,
    CallNotes,
    Commit,
    DeadLetter,
    committing,
    read_call_notes,
    read_letter,
)
from app.store.inbox import Batch
from app.store.index import ANY, EVERYONE, LIVE, Created, Place, bounds, place_in, place_of
from app.store.logs import ID_BYTES, Logged, unpacked

UNREADABLE = -1
"""Fold version of a document whose shape this release does not know."""

LETTERS_AT_ONCE = 500
AT_ONCE = 500
"""Headers, where all are read."""
LIVE_AT_ONCE = 500

RETAINED = 16_000
"""Changes, evenly of all shards, that a subscriber can miss and still be told, once it is back. Some KiB each."""


class Kept(NamedTuple):
    """A conference as Redis has it."""

    conference: Conference
    fold_version: int
    whole: bool
    """Whether all its participants are there, as far as is known."""


class Parts(NamedTuple):
    """A native document as it is kept."""

    header: bytes
    participants: list[bytes]
    """In order."""

    def document(self) -> bytes:
        """The whole."""
        return document(self.header, self.participants)


# Part of a log. KEYS 1 log, 2 ids. ARGV 1 number of the first callback that is wanted, 2 of the last. Returns the ids,
# from that of the first pack's first callback on, then the packs that hold what is wanted.
READ = """
local function first_of(place)
  local pack = redis.call('LINDEX', KEYS[1], place)
  return pack and struct.unpack('>I4', pack)
end
local wanted, last = tonumber(ARGV[1]), tonumber(ARGV[2])
local low, high = 0, redis.call('LLEN', KEYS[1]) - 1
while low < high do
  local middle = math.ceil((low + high) / 2)
  if first_of(middle) <= wanted then low = middle else high = middle - 1 end
end
local first = first_of(low)
if not first then return {} end
local packs = {redis.call('GETRANGE', KEYS[2], (first - 1) * ID_BYTES, last * ID_BYTES - 1)}
while first and first <= last do
  table.insert(packs, redis.call('LINDEX', KEYS[1], low))
  low = low + 1
  first = first_of(low)
end
return packs
""".replace("ID_BYTES", str(ID_BYTES))


# Which of some ids are among a conference's. KEYS 1 ids. ARGV ids. Returns 1 or 0 for each. The end of one and the
# beginning of the next may look like another.
HEARD = """
local ids = redis.call('GET', KEYS[1]) or ''
local function heard(id)
  local place = string.find(ids, id, 1, true)
  while place and (place - 1) % ID_BYTES ~= 0 do place = string.find(ids, id, place + 1, true) end
  return place and 1 or 0
end
local answers = {}
for n, id in ipairs(ARGV) do answers[n] = heard(id) end
return answers
""".replace("ID_BYTES", str(ID_BYTES))


class Snapshots:
    """The conferences of all shards."""

    def __init__(self, redis: Redis, shards: int, retained: int | None = None) -> None:
        """`retained`: how many changes of each shard are kept, at least, for subscribers that come back."""
        self.redis = redis
        self.shards = shards
        self.retained = retained or RETAINED // shards
        self._commit = redis.register_script(COMMIT)
        self._read = redis.register_script(READ)
        self._heard = redis.register_script(HEARD)

    def load(self, wanted: Mapping[str, Collection[str] | None]) -> dict[str, Kept]:
        """Those of these conferences that are known, in one round trip.

        Each with the participants that are wanted of it, by call sid, as far as there are any; None: with all.
        """
        with self.redis.pipeline(transaction=False) as pipe:
            for sid, calls in wanted.items():
                if calls is None:
                    pipe.hgetall(keys.conference(self._shard(sid), sid))
                else:
                    pipe.hmget(keys.conference(self._shard(sid), sid), [HEADER, FOLD, *calls])
            found = [_fields(calls, fields) for calls, fields in zip(wanted.values(), pipe.execute(), strict=True)]
        return {sid: _kept(fields, wanted[sid]) for sid, fields in zip(wanted, found, strict=True) if fields}

    def log(self, sid: str) -> list[Logged]:
        """A conference's whole log; an unknown conference has an empty one."""
        with self.redis.pipeline(transaction=True) as pipe:  # a commit adds to both
            pipe.get(keys.ids(self._shard(sid), sid))
            pipe.lrange(keys.log(self._shard(sid), sid), 0, -1)
            ids, packs = pipe.execute()
        return list(unpacked(sid, ids or b"", packs))

    def heard(self, asked: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
        """By conference, those of these events' ids that are in its log already; in one round trip."""
        calls = (([keys.ids(self._shard(sid), sid)], list(map(bytes.fromhex, ids))) for sid, ids in asked.items())
        answers = scripts.run(self.redis, self._heard, calls)
        return {
            sid: {event_id for event_id, heard in zip(ids, answer, strict=True) if heard}
            for (sid, ids), answer in zip(asked.items(), answers, strict=True)
        }

    def calls(self, sids: Sequence[str]) -> dict[str, CallNotes]:
        """What is remembered of these calls, in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for sid in sids:
                pipe.hgetall(keys.call(self._shard(sid), sid))
            return {sid: read_call_notes(fields) for sid, fields in zip(sids, pipe.execute(), strict=True)}

    def _shard(self, sid: str) -> int:
        return keys.shard_of(sid, self.shards)

    def commit(self, work: Iterable[tuple[Batch, Commit]], fold_version: int) -> list[int | None]:
        """Write all that batches do, take them out of their inboxes, and give the leases back; in one round trip.

        Each batch is one atomic step. For each, how many entries its shard has left; None: nothing was written, for the
        shard has passed to another drain, or the batch is committed already.
        """
        calls = (committing(batch, fold_version, self.retained, commit) for batch, commit in work)
        return [None if left is None else int(left) for left in scripts.run(self.redis, self._commit, calls)]

    def parts(self, sids: Sequence[str]) -> list[Parts | None]:
        """Native documents, not put together, in the order asked for, in one round trip; None where one is unknown."""
        with self.redis.pipeline(transaction=False) as pipe:
            for sid in sids:
                pipe.hgetall(keys.conference(self._shard(sid), sid))
            return [_parts(fields) if fields else None for fields in pipe.execute()]

    def documents(self, sids: Sequence[str]) -> list[bytes | None]:
        """Native documents in the order asked for, in one round trip; None where one is unknown."""
        return [None if parts is None else parts.document() for parts in self.parts(sids)]

    def conferences(self, sids: Sequence[str]) -> list[Conference]:
        """Those of the conferences that are known, in the order asked for, in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for sid in sids:
                pipe.hgetall(keys.conference(self._shard(sid), sid))
            return [_kept(fields).conference for fields in pipe.execute() if fields]

    def headers(self, sids: Sequence[str]) -> list[bytes | None]:
        """Headers as JSON in the order asked for, in one round trip; None where one is unknown."""
        with self.redis.pipeline(transaction=False) as pipe:
            for sid in sids:
                pipe.hget(keys.conference(self._shard(sid), sid), HEADER)
            return list(pipe.execute())

    def events(self, sid: str, after: int, most: int) -> list[Logged]:
        """A conference's callbacks in order of arrival, from behind a place in its log on."""
        shard, last = self._shard(sid), after + most
        found = self._read([keys.log(shard, sid), keys.ids(shard, sid)], [after + 1, last])
        ids, packs = (found[0], found[1:]) if found else (b"", [])
        return [entry for entry in unpacked(sid, ids, packs) if after < entry.number <= last]

    def page(
        self, question: Question, place: Place | None, most: int, *, newer: bool = False
    ) -> tuple[list[bytes], Place | None]:
        """Headers as JSON, newest conference first, from behind a place on; and where to read on, None at the end.

        With `newer` those that come before the place, the nearest of them; reading on then leads to the newest. May be
        shorter than `most` with more to come, when much had to be passed over.
        """
        found, place = self._found(question, place, most, newer)
        return (found[::-1] if newer else found), place

    def all_of(self, status: Status, account: str | None = None) -> Iterator[Header]:
        """Every conference with this status, of one account or of all; those that come meanwhile may be left out."""
        place: Place | None = None
        while True:
            page, place = self.page(Question(account=account, status=status), place, AT_ONCE)
            yield from map(read_header, page)
            if place is None:
                return

    def _found(
        self, question: Question, place: Place | None, most: int, newer: bool
    ) -> tuple[list[bytes], Place | None]:
        found: list[bytes] = []
        places = self._places(question, place, most + 1, newer)
        for _ in range(PASSED_OVER):
            chunk = list(islice(places, most))
            for place, header in zip(chunk, self.headers([place.sid for place in chunk]), strict=True):
                if header is not None and question.fits(known := read_header(header)) and place_of(known) == place:
                    found.append(header)
                if len(found) == most:
                    return found, place
            if len(chunk) < most:
                return found, None
        return found, place

    def _places(self, question: Question, place: Place | None, chunk: int, newer: bool) -> Iterator[Place]:
        """Where the conferences stand that may fit, merged from all shards."""
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                self._range(pipe, question, shard, place, chunk, newer)
            firsts = pipe.execute()
        lists = [self._read_on(question, shard, first, chunk, newer) for shard, first in enumerate(firsts) if first]
        return heapq.merge(*lists, reverse=not newer)

    def _read_on(
        self, question: Question, shard: int, entries: list[bytes], chunk: int, newer: bool
    ) -> Iterator[Place]:
        while entries:
            yield from map(place_in, entries)
            if len(entries) < chunk:
                return
            entries = self._range(self.redis, question, shard, place_in(entries[-1]), chunk, newer)

    def _range(
        self, client: Redis, question: Question, shard: int, place: Place | None, chunk: int, newer: bool
    ) -> Any:
        lowest, highest = bounds(
            question.indexed_account,
            question.indexed_status,
            question.kind,
            question.value,
            older_than=None if newer else place,
            newer_than=place if newer else None,
            created=question.created,
        )
        begin, end = (lowest, highest) if newer else (highest, lowest)
        return client.zrange(keys.index(shard), begin, end, desc=not newer, bylex=True, offset=0, num=chunk)

    def count(self, account: str | None) -> dict[str, int]:
        """How many conferences an account has in each status; None: all accounts."""
        with self.redis.pipeline(transaction=False) as pipe:
            for status in (ANY, *LIVE):
                lowest, highest = bounds(account or EVERYONE, status, "", "")
                for shard in range(self.shards):
                    pipe.zlexcount(keys.index(shard), lowest, highest)
            counts = pipe.execute()
        known, *live = (sum(counts[n * self.shards : (n + 1) * self.shards]) for n in range(len(LIVE) + 1))
        return {**dict(zip(LIVE, live, strict=True)), "completed": known - sum(live)}

    def expired(self, now: int, most: int) -> list[tuple[str, str]]:
        """Conference and id of control requests that none has confirmed by `now`, in ms; `most` of each shard."""
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.zrange(keys.pending(shard), "-inf", str(now), byscore=True, offset=0, num=most)
            members = [member.decode() for found in pipe.execute() for member in found]
        return [(sid, action) for sid, _, action in (member.partition(" ") for member in members)]

    def counters(self) -> dict[str, int]:
        """What all commits so far have done with callbacks (see `Commit`)."""
        totals = {"folded": 0, "noted": 0, "repeated": 0, "dead": 0}
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.hgetall(keys.counters(shard))
            for counters in pipe.execute():
                for name, count in counters.items():
                    totals[name.decode()] = totals.get(name.decode(), 0) + int(count)
        return totals

    def gaps(self) -> dict[str, int]:
        """Of all conferences: numbers `missing`, `looks` at Twilio's REST API, and how many were `fruitful`."""
        totals = Counter(missing=0, looks=0, fruitful=0)
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.hgetall(keys.gaps(shard))
            for gaps in pipe.execute():
                totals.update({name.decode(): int(count) for name, count in gaps.items()})
        return dict(totals)

    def alerts_standing(self) -> int:
        """How many alerts stand now."""
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.zcard(keys.alerts(shard))
            return sum(pipe.execute())

    def rest_counts(self) -> dict[str, int]:
        """Our own requests to Twilio's REST API by outcome, and what it has shown by reason (see `keys.REST`)."""
        counts: Any = self.redis.hgetall(keys.REST)
        return {name.decode(): int(count) for name, count in counts.items()}

    def dead_letters(self, most: int) -> list[DeadLetter]:
        """The newest callbacks that could not be folded, the newest first."""
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.xrevrange(keys.dead_letters(shard), count=most)
            letters = [read_letter(fields[b"e"]) for entries in pipe.execute() for _, fields in entries]
        return sorted(letters, key=lambda letter: letter.callback.received_at, reverse=True)[:most]

    def letters(self) -> Iterator[tuple[int, bytes, DeadLetter]]:
        """Every dead letter, with its shard and its id; those that come meanwhile are not among them."""
        for shard in range(self.shards):
            newest: Any = self.redis.xrevrange(keys.dead_letters(shard), count=1)
            behind = b"-"
            while newest and behind != b"(" + newest[0][0]:
                entries: Any = self.redis.xrange(
                    keys.dead_letters(shard), min=behind, max=newest[0][0], count=LETTERS_AT_ONCE
                )
                for letter_id, fields in entries:
                    yield shard, letter_id, read_letter(fields[b"e"])
                behind = b"(" + (entries or newest)[-1][0]

    def letters_left(self) -> int:
        """How many dead letters there are now."""
        with self.redis.pipeline(transaction=False) as pipe:
            for shard in range(self.shards):
                pipe.xlen(keys.dead_letters(shard))
            return sum(pipe.execute())

    def live(self) -> Iterator[str]:
        """Every conference that has not ended, the newest first of each status."""
        for status in LIVE:
            for place in self._places(Question(status=status), None, LIVE_AT_ONCE, newer=False):
                yield place.sid

    def sids(self) -> Iterator[str]:
        """Every conference that is kept."""
        for shard in range(self.shards):
            prefix = keys.conference(shard, "")
            for name in self.redis.scan_iter(match=f"{prefix}*", count=1000):
                yield name.decode().removeprefix(prefix)


class Question(NamedTuple):
    """Which conferences are asked for; None: any."""

    account: str | None = None
    status: Status | None = None
    friendly_name: str | None = None
    call_sid: str | None = None
    label: str | None = None
    created: Created = (None, None)
    updated: tuple[datetime | None, datetime | None] = (None, None)
    """First and last moment of its latest event. Not indexed: those that do not fit are passed over."""

    @property
    def kind(self) -> str:
        """The narrowest index that holds the answer."""
        if self.call_sid is not None:
            return "call"
        if self.label is not None:
            return "label"
        return "" if self.friendly_name is None else "name"

    @property
    def value(self) -> str:
        """What to look up in that index."""
        return next((word for word in (self.call_sid, self.label, self.friendly_name) if word is not None), "")

    @property
    def indexed_status(self) -> str:
        """The status to look under; the ended ones are found among all."""
        return self.status if self.status in LIVE else ANY

    @property
    def indexed_account(self) -> str:
        """Participants are indexed for all accounts at once."""
        return EVERYONE if self.account is None or self.kind in ("call", "label") else self.account

    def fits(self, header: Header) -> bool:
        """Whether a conference found by the index is what was asked for, as far as its header tells."""
        return (
            self.account in (None, header.account_sid)
            and self.status in (None, header.status)
            and self.friendly_name in (None, header.friendly_name)
            and within(self.updated, header.updated_at and header.updated_at.replace(microsecond=0))
            and within(self.created, None if header.created_at is None else int(header.created_at.timestamp()))
        )


T = TypeVar("T", int, datetime)


def within(span: tuple[T | None, T | None], moment: T | None) -> bool:
    """Whether a moment lies between two, or just any where there are no limits. Twilio's times are whole seconds."""
    first, last = span
    if first is None and last is None:
        return True
    return moment is not None and (first is None or moment >= first) and (last is None or moment <= last)


PASSED_OVER = 20
"""How many chunks one page reads before it hands back what it has."""


CREATED = re.compile(rb'"created_at":"([^"]+)Z"')
"""In a participant's JSON, whichever release wrote it. Quotes within a text are escaped: it can be nowhere else."""


class _Stub(msgspec.Struct):
    """As much of a header as every release has."""

    sid: str
    account_sid: str
    revision: int = 0


def _fields(calls: Collection[str] | None, found: Any) -> dict[bytes, bytes]:
    """A document's fields, whether all were asked for or only some."""
    if calls is None:
        return dict(found)
    names = (HEADER, FOLD, *(sid.encode() for sid in calls))
    return {name: value for name, value in zip(names, found, strict=True) if value is not None}


def _kept(fields: dict[bytes, bytes], calls: Collection[str] | None = None) -> Kept:
    version, header = int(fields.pop(FOLD)), fields.pop(HEADER)
    try:
        participants = {sid.decode(): read_participant(raw) for sid, raw in fields.items()}
        known = Conference(read_header(header), participants)
        return Kept(known, version, calls is None or len(participants) == known.header.counts.participants)
    except msgspec.ValidationError:  # of another shape: only its log can tell
        stub = msgspec.json.decode(header, type=_Stub)
        header_only = Header(sid=stub.sid, account_sid=stub.account_sid, revision=stub.revision)
        return Kept(Conference(header_only, {}), UNREADABLE, whole=True)


def _parts(fields: dict[bytes, bytes]) -> Parts:
    header = fields.pop(HEADER)
    fields.pop(FOLD)
    return Parts(header, [raw for _, raw in sorted(fields.items(), key=_rank)])


def _rank(field: tuple[bytes, bytes]) -> tuple[bool, bytes, bytes]:
    """A participant's place in its document, as `seniority` tells it. Reading it whole would take far longer.

    Without their Z, times that are written so sort as letters do, with fractions of seconds and without.
    """
    sid, raw = field
    created = CREATED.search(raw)
    return created is None, created[1] if created else b"", sid
