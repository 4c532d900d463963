"""What a batch does, and how it is written: everything at once, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from app.alerts import NONE, Key, Timers
from app.conference import Conference, Coverage, Header, Participant, encode
from app.events import Callback
from app.store import keys
from app.store.inbox import Batch
from app.store.index import entries_of, same_place
from app.store.logs import ID_BYTES, packed
from app.store.scripts import Call

HEADER, FOLD = b"header", b"fold"
"""Fields of a conference's hash beside its participants."""
CALL_REMEMBERED = 3 * 24 * 3600
"""Seconds after its last callback that a call is remembered apart from its conferences. Calls end within a day."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Callback).decode


class Change(NamedTuple):
    """One conference's part of a commit."""

    before: Conference | None
    anew: bool
    """Whether nothing of the stored document is to stay: there is none, or another fold wrote it."""
    after: Conference
    """With its new revision."""
    changed: Sequence[Participant]
    news: Sequence[tuple[str, Callback]]
    """What joins the log, with each event's id."""
    message: bytes
    """What subscribers are sent."""
    timers: Timers = NONE
    """When its alerts are to be looked at."""
    outgoing: Sequence[tuple[str, bytes]] = ()
    """Records of alerts to be told to others, each with its event's id."""


class DeadLetter(msgspec.Struct, frozen=True, array_like=True):
    """A callback that is set aside: it could not be folded."""

    reason: str
    callback: Callback
    set_aside_at: int = 0
    """Milliseconds since 1970."""
    by: str = ""
    """Which code could not fold it."""
    entry: bool = False
    """Whether the callback's body is a whole entry of an inbox, which this release could not read."""


read_letter = msgspec.msgpack.Decoder(DeadLetter).decode
"""What an entry of the dead letters holds."""


class CallNotes(NamedTuple):
    """What is remembered of a call apart from its conferences."""

    conferences: set[str]
    """In which it has been seen."""
    callbacks: dict[str, Callback]
    """Its own callbacks, which name no conference, by event id."""


class SeenIn(NamedTuple):
    """To remember: a call has been seen in a conference."""

    call_sid: str
    conference_sid: str


class Said(NamedTuple):
    """To remember: a callback of the call's own."""

    call_sid: str
    event_id: str
    callback: Callback


class Commit(NamedTuple):
    """Everything one batch does."""

    changes: Sequence[Change] = ()
    call_notes: Sequence[SeenIn | Said] = ()
    dead_letters: Sequence[DeadLetter] = ()
    folded: int = 0
    """Callbacks that joined a conference's log."""
    noted: int = 0
    """Callbacks that name only a call, remembered and sent on to its conferences."""
    repeated: int = 0


# The whole effect of a batch and the inbox's progress, or nothing.
# KEYS 1 lease, 2 inbox, 3 index, 4 counters, 5 dead letters, 6 pending, 7 changes, 8 trial, 9 looks, 10 gaps, 11
# timers, 12 alerts, 13 outbox, then a document, a log and its ids for each changed conference, then each noted call.
# ARGV is read from the front: token, first and last id of the batch, first id that stays, fold version, how many
# changes are kept; counters; gaps; dead letters; conferences; call notes. Lists are preceded by their length. Returns
# nil when fenced, else how much mail is left; the lease is given back.
COMMIT = """#!lua flags=allow-oom
local next_arg, next_key = 0, 13
local function take() next_arg = next_arg + 1 return ARGV[next_arg] end
local function key() next_key = next_key + 1 return KEYS[next_key] end
local function each(step, act) for _ = 1, tonumber(take()) / step do act() end end

local holder, trial = unpack(redis.call('MGET', KEYS[1], KEYS[8]))
if holder ~= take() then return nil end
local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
if #oldest == 0 or oldest[1][1] ~= take() then return nil end
local last, stays, version, kept = take(), take(), take(), take()

each(2, function() redis.call('HINCRBY', KEYS[4], take(), take()) end)
each(2, function() redis.call('HINCRBY', KEYS[10], take(), take()) end)
each(1, function() redis.call('XADD', KEYS[5], '*', 'e', take()) end)
each(1, function()
  local doc, log, ids = key(), key(), key()
  each(1, function() redis.call('DEL', doc) end)
  each(2, function() redis.call('HSET', doc, take(), take()) end)
  redis.call('HSET', doc, 'fold', version)
  each(2, function()
    local number = redis.call('STRLEN', ids) / ID_BYTES + 1
    redis.call('APPEND', ids, take())
    redis.call('RPUSH', log, struct.pack('>I4', number) .. take())
  end)
  each(1, function() redis.call('ZREM', KEYS[3], take()) end)
  each(1, function() redis.call('ZADD', KEYS[3], 0, take()) end)
  each(1, function() redis.call('ZREM', KEYS[6], take()) end)
  each(2, function() redis.call('ZADD', KEYS[6], take(), take()) end)
  each(1, function() redis.call('ZREM', KEYS[9], take()) end)
  each(2, function() redis.call('ZADD', KEYS[9], take(), take()) end)
  each(1, function() redis.call('ZREM', KEYS[11], take()) end)
  each(2, function() redis.call('ZADD', KEYS[11], take(), take()) end)
  each(1, function() redis.call('ZREM', KEYS[12], take()) end)
  each(2, function() redis.call('ZADD', KEYS[12], take(), take()) end)
  each(2, function() redis.call('XADD', KEYS[13], '*', 'i', take(), 'e', take()) end)
  local sid, account, revision, message = take(), take(), take(), take()
  redis.call('XADD', KEYS[7], 'MAXLEN', '~', kept, '*',
    'c', sid, 'a', account, 'r', revision, 'm', message)
  each(1, function() redis.call('PUBLISH', take(), message) end)
end)
each(3, function()
  local call = key()
  redis.call('HSET', call, take(), take())
  redis.call('EXPIRE', call, take())
end)

redis.call('XTRIM', KEYS[2], 'MINID', stays)
redis.call('DEL', KEYS[1], KEYS[8])
local tried, together = string.match(trial or '', '(%S+) (%d+)')
if tried and tried ~= last and #redis.call('XRANGE', KEYS[2], '-', tried, 'COUNT', 1) > 0 then
  redis.call('SET', KEYS[8], tried .. ' ' .. together .. ' - 0')
end
return redis.call('XLEN', KEYS[2])
""".replace("ID_BYTES", str(ID_BYTES))


def committing(batch: Batch, fold_version: int, retained: int, work: Commit) -> Call:
    """Keys and arguments of `COMMIT` for what a batch does; `retained`: how many changes the shard keeps at least."""
    shard = batch.shard
    names = [
        keys.lease(shard),
        keys.inbox(shard),
        keys.index(shard),
        keys.counters(shard),
        keys.dead_letters(shard),
        keys.pending(shard),
        keys.changes(shard),
        keys.trial(shard),
        keys.looks(shard),
        keys.gaps(shard),
        keys.timers(shard),
        keys.alerts(shard),
        keys.outbox(shard),
    ]
    counters = {
        "folded": work.folded,
        "noted": work.noted,
        "repeated": work.repeated,
        "dead": len(work.dead_letters),
    }
    words: list[Any] = [batch.token, batch.first_id, batch.last_id, _next_id(batch.last_id), fold_version, retained]
    for counts in (counters, _gaps(work.changes)):
        _say(words, [word for name, count in counts.items() if count for word in (name, count)])
    _say(words, [_encode(letter) for letter in work.dead_letters])
    words.append(len(work.changes))
    for change in work.changes:
        sid = change.after.header.sid
        names += [keys.conference(shard, sid), keys.log(shard, sid), keys.ids(shard, sid)]
        _say_change(words, change)
    _say(words, [word for note in work.call_notes for word in (*_call_note(note), CALL_REMEMBERED)])
    names += [keys.call(shard, note.call_sid) for note in work.call_notes]
    return names, words


def _gaps(changes: Sequence[Change]) -> dict[str, int]:
    """What these changes add to, or take from, the gaps of all conferences."""
    pairs = [
        (change.before.header.coverage if change.before else Coverage(), change.after.header.coverage)
        for change in changes
    ]
    return {
        "missing": sum(after.missing - before.missing for before, after in pairs),
        "looks": sum(after.snapshots - before.snapshots for before, after in pairs),
        "fruitful": sum(after.snapshots > before.snapshots and after.fruitless == 0 for before, after in pairs),
    }


def _say(words: list[Any], saying: Sequence[Any]) -> None:
    words.append(len(saying))
    words.extend(saying)


def _say_change(words: list[Any], change: Change) -> None:
    header = change.after.header
    words.append(int(change.anew))
    fields: list[Any] = [HEADER, encode(header)]
    for participant in change.changed:
        fields += [participant.call_sid, encode(participant)]
    _say(words, fields)
    _say(words, [word for pack in packed(header.sid, change.news) for word in pack])
    stale, fresh = _index_changes(change)
    _say(words, list(stale))
    _say(words, list(fresh))
    _say_moves(words, _pending(change.before), _pending(change.after))
    for looks in _look_changes(change.before.header if change.before else None, header):
        _say(words, looks)
    timers = change.timers
    _say(words, [timer_of(header.sid, key) for key in timers.dropped])
    _say(words, [word for key, at in timers.at.items() for word in (milliseconds(at), timer_of(header.sid, key))])
    _say_moves(words, _standing(change.before), _standing(change.after))
    _say(words, [word for pair in change.outgoing for word in pair])
    words += [header.sid, header.account_sid, header.revision, change.message]
    _say(
        words,
        [keys.ALL_CONFERENCES, keys.conference_channel(header.sid), keys.account_channel(header.account_sid)],
    )


def _say_moves(words: list[Any], was: dict[str, int], now: dict[str, int]) -> None:
    """What a sorted set loses, and what it gains."""
    if not was and not now:
        words += (0, 0)  # nearly always
        return
    _say(words, list(was.keys() - now.keys()))
    _say(words, [word for member, score in now.items() if was.get(member) != score for word in (score, member)])


def milliseconds(moment: datetime) -> int:
    """Since 1970."""
    return round(moment.timestamp() * 1000)


def timer_of(conference_sid: str, key: Key) -> str:
    """What the sorted set of timers holds of a conference's rule and subject."""
    rule, subject = key
    return f"{conference_sid} {rule} {subject or '-'}"


def _standing(conference: Conference | None) -> dict[str, int]:
    """Since when each alert of a conference stands, in ms, by what the sorted set holds of it."""
    if conference is None or not conference.header.alerts:
        return {}
    header = conference.header
    return {
        f"{header.account_sid} {timer_of(header.sid, (each.rule, each.subject))}": milliseconds(each.since)
        for each in header.alerts
    }


def _pending(conference: Conference | None) -> dict[str, int]:
    """When each unfinished action of a conference expires, in ms, by what the sorted set holds of it."""
    if conference is None:
        return {}
    sid, actions = conference.header.sid, conference.header.actions
    return {f"{sid} {each.id}": milliseconds(each.expires_at) for each in actions if not each.finished}


def _look_changes(before: Header | None, after: Header) -> tuple[list[Any], list[Any]]:
    """What to take out of, and to put into, the looks at Twilio's REST API.

    A look that is only put off stays where it is: whoever comes for it finds that. Most commits put off the same one.
    """
    was, now = before and before.want, after.want
    if was and now and was.reason == now.reason:
        return [], [] if was.due_at <= now.due_at else [milliseconds(now.due_at), keys.look(after.sid, now.reason)]
    gone = [keys.look(after.sid, was.reason)] if was else []
    return gone, [milliseconds(now.due_at), keys.look(after.sid, now.reason)] if now else []


def _index_changes(change: Change) -> tuple[set[bytes], set[bytes]]:
    """Entries to take out, and to put in. Only a change of place touches those of unchanged participants."""
    before, after = change.before, change.after
    if before is None:
        return set(), entries_of(after.header, after.participants.values())
    if change.anew or not same_place(before.header, after.header):
        old = entries_of(before.header, before.participants.values())
        new = entries_of(after.header, after.participants.values())
        return old - new, new - old
    known = before.participants
    sids = [p.call_sid for p in change.changed if p.call_sid not in known or known[p.call_sid].label != p.label]
    if not sids and before.header.friendly_name == after.header.friendly_name:
        return set(), set()  # nearly always
    old = entries_of(before.header, [known[sid] for sid in sids if sid in known])
    new = entries_of(after.header, [after.participants[sid] for sid in sids])
    if old - new:  # two participants may share a label: what one gives up the other may still have
        return old - entries_of(after.header, after.participants.values()), new - old
    return set(), new - old


def others_move(before: Conference, after: Conference) -> bool:
    """Whether the index changes for more than the participants in `after`: then all of them are needed to commit it."""
    if not same_place(before.header, after.header):
        return True
    labels = ((each.label, after.participants[sid].label) for sid, each in before.participants.items())
    return any(was is not None and was != now for was, now in labels)


def _next_id(stream_id: bytes) -> bytes:
    milliseconds, number = stream_id.split(b"-")
    return b"%b-%d" % (milliseconds, int(number) + 1)


def _call_note(note: SeenIn | Said) -> tuple[str, bytes]:
    if isinstance(note, SeenIn):
        return f"in:{note.conference_sid}", b""
    return f"said:{note.event_id}", _encode(note.callback)


def read_call_notes(fields: dict[bytes, bytes]) -> CallNotes:
    """What a call's hash holds."""
    notes = CallNotes(set(), {})
    for field, value in fields.items():
        kind, _, name = field.decode(errors="replace").partition(":")
        if kind == "in":
            notes.conferences.add(name)
        elif kind == "said":
            with suppress(msgspec.DecodeError):  # of a shape that is not known here: nobody could read it anyway
                notes.callbacks[name] = _decode(value)
    return notes
