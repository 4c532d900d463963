"""`form-N.jsonl`: all that Redis holds of some traffic, in form N, and what the build that stored it read there.

Values are the bytes in Redis. Every build that claims to know the form must read the same in them: `reading` may learn
other ways to ask, never to expect other answers. `python -m tests.golden.form` writes the file of a form that has none
yet; what later builds store besides has a file of its own, whose name begins alike: `python -m tests.golden.form 2-b`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from redis import Redis

from app.events import Callback
from app.store import embedded, keys, logs
from app.store.connect import FORM, claim_layout, connect, until_answering
from app.store.feed import Feed
from app.store.inbox import Inbox, Link, Mail
from app.store.promises import Answered, Promises
from app.store.sessions import Sessions
from app.store.snapshots import Question, Snapshots
from tests.cast import ACCOUNT, ANNA, BEN, ROOM, TOKEN, callback, progress, said
from tests.claims import claim
from tests.conftest import SHARDS
from tests.golden import FOLDER, read_bytes, written_bytes, written_callback
from tests.golden.stories import ACCEPTED, filed, recorded
from tests.workers.post import empty, post
from workers.drain import Drain

ENDED = "CF" + "e" * 32
PASSING = {name(shard) for name in (keys.woken, keys.lease, keys.newest) for shard in range(SHARDS)}
PROMISE, FINGERPRINT = "0" * 32, "f" * 32


def path_of(name: str) -> Path:
    """The file of a form, or of some of what is stored in it."""
    return FOLDER / f"form-{name}.jsonl"


def names() -> list[str]:
    """Of the files of today's form."""
    found = sorted(path.stem.removeprefix("form-") for path in FOLDER.glob("form-*.jsonl"))
    return [name for name in found if name.partition("-")[0] == str(FORM)]


class _Line(msgspec.Struct):
    """A line of a file: a key of Redis, or what a build read."""

    key: str | None = None
    holds: Any = None
    reads: str | None = None
    answer: Any = None


def restored(redis: Redis, name: str) -> dict[str, Any]:
    """Put into Redis what a file has. What is read there, by what is asked."""
    read: dict[str, Any] = {}
    for line in map(msgspec.json.Decoder(_Line).decode, path_of(name).read_bytes().splitlines()):
        if line.reads is not None:
            read[line.reads] = line.answer
        else:
            _put(redis, str(line.key), line.holds)
    return read


def _put(redis: Redis, key: str, holds: Mapping[str, Any]) -> None:
    [(kind, value)] = holds.items()
    if kind == "string":
        redis.set(key, read_bytes(value))
    elif kind == "list":
        redis.rpush(key, *map(read_bytes, value))
    elif kind == "hash":
        redis.hset(key, mapping={read_bytes(field): read_bytes(word) for field, word in value})
    elif kind == "zset":
        redis.zadd(key, {read_bytes(member): score for member, score in value})
    else:
        for entry_id, fields in value:
            redis.xadd(key, {read_bytes(field): read_bytes(word) for field, word in fields}, id=entry_id)


def _held(redis: Redis, key: str) -> dict[str, Any]:
    kind = redis.type(key).decode()
    found: Any
    if kind == "string":
        return {kind: written_bytes(redis.get(key))}
    if kind == "list":
        return {kind: list(map(written_bytes, redis.lrange(key, 0, -1)))}
    if kind == "hash":
        return {kind: [list(map(written_bytes, pair)) for pair in sorted(redis.hgetall(key).items())]}
    if kind == "zset":
        found = redis.zrange(key, 0, -1, withscores=True)
        return {kind: [[written_bytes(member), score] for member, score in found]}
    found = redis.xrange(key)
    return {
        kind: [
            [entry_id.decode(), [list(map(written_bytes, pair)) for pair in fields.items()]]
            for entry_id, fields in found
        ]
    }


def held(redis: Redis) -> Iterator[bytes]:
    """All that is in Redis, line by line. What passes by itself is left out."""
    for key in sorted(key.decode() for key in redis.scan_iter()):
        if key not in PASSING:
            yield msgspec.json.encode({"key": key, "holds": _held(redis, key)})


def _written(redis: Redis) -> Iterator[bytes]:
    """Some traffic in Redis, and what is read there, line by line."""
    session, ticket = traffic(redis)
    yield from held(redis)
    for asked, answer in reading(redis, [session], [ticket]).items():
        yield msgspec.json.encode({"reads": asked, "answer": answer})


def reading(redis: Redis, sessions: Iterable[str], tickets: Iterable[str]) -> dict[str, Any]:
    """Everything that Redis holds, as this build reads it: by what is asked, in words of JSON."""
    snapshots, inbox, feed = Snapshots(redis, SHARDS), Inbox(redis, SHARDS), Feed(redis, SHARDS)
    rooms = sorted(snapshots.sids())
    read: dict[str, Any] = {"layout": redis.get(keys.LAYOUT)}
    for sid in rooms:
        kept = snapshots.load({sid: None})[sid]
        read[f"document of {sid}"] = (snapshots.documents([sid])[0] or b"").decode()
        read[f"participants of {sid}"] = [kept.fold_version, kept.whole, sorted(kept.conference.participants)]
        read[f"log of {sid}"] = [_logged(entry) for entry in snapshots.log(sid)]
        read[f"events of {sid}"] = [_logged(entry) for entry in snapshots.events(sid, 2, 3)]
        heard = snapshots.heard({sid: [entry.event_id for entry in snapshots.log(sid)]})[sid]
        read[f"heard of {sid}"] = sorted(heard)
    for call in (ANNA, BEN):
        notes = snapshots.calls([call])[call]
        told = {event_id: written_callback(each) for event_id, each in sorted(notes.callbacks.items())}
        read[f"notes of {call}"] = [sorted(notes.conferences), told]
    asked = {
        "all": Question(),
        "live": Question(account=ACCOUNT, status="in-progress"),
        "by name": Question(friendly_name="Büro"),
        "by call": Question(call_sid=BEN),
        "by label": Question(label="anna"),
    }
    for name, question in asked.items():
        read[f"page {name}"] = [msgspec.json.decode(each)["sid"] for each in snapshots.page(question, None, 10)[0]]
    read["count"] = snapshots.count(None)
    read["counters"] = snapshots.counters()
    read["expired"] = sorted(snapshots.expired(2**50, 10))
    letters = snapshots.dead_letters(10)
    read["dead letters"] = sorted([letter.reason, written_callback(letter.callback)["body"]] for letter in letters)
    _, changes, _ = feed.latest(100)
    read["changes"] = [
        [each.place, each.conference_sid, each.account_sid, each.revision, each.message.decode()] for each in changes
    ]
    batches = [claim(inbox, shard) for shard in range(SHARDS)]
    read["waiting"] = [_waiting(entry) for batch in batches if batch for entry in batch.entries]
    redis.delete(*PASSING)
    promise = Promises(redis).find(PROMISE)
    answer = promise and promise.answer
    read["promise"] = answer and [promise.fingerprint, answer.status, answer.headers, answer.body.decode()]
    for token in sessions:
        session = Sessions(redis).find(token)
        read[f"session {token}"] = session and [session.name, session.opened_at, session.proves(token, TOKEN.encode())]
    for token in tickets:
        ticket = Sessions(redis).take(token)
        read[f"ticket {token}"] = ticket and [ticket.name, ticket.opened_at, ticket.proves(token, TOKEN.encode())]
    read["dictionary"] = logs.DICTIONARY
    return dict(msgspec.json.decode(msgspec.json.encode({asked: _word(answer) for asked, answer in read.items()})))


def _word(answer: Any) -> Any:
    return answer.decode() if isinstance(answer, bytes) else answer


def _logged(entry: logs.Logged) -> list[Any]:
    return [entry.number, entry.event_id, written_callback(entry.callback)]


def _waiting(entry: Any) -> list[Any]:
    if isinstance(entry, Link):
        return ["link", entry.call_sid, entry.conference_sid]
    assert isinstance(entry, Mail), "what was mail is mail"
    return ["mail", written_callback(entry.callback)]


def traffic(redis: Redis) -> tuple[str, str]:
    """Something of all that is stored. The tokens of a session and of a ticket."""
    claim_layout(redis, SHARDS)
    inbox, snapshots = Inbox(redis, SHARDS), Snapshots(redis, SHARDS)
    drain = Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: False)
    name = {"FriendlyName": "Büro"}
    torn = b"&".join([callback(said("participant-hold", BEN, number=5, second=7, Hold="true")).body, b"torn=\xff\xfe"])
    rounds = [
        [callback(said("participant-join", ANNA, number=1, second=0, **name), token="5f0c", query="tenant=42")],
        [callback(progress(BEN, "ringing", number=1, second=2))],
        [
            callback(said("participant-join", BEN, number=2, second=4, **name)),
            callback(said("conference-start", number=3, second=4, **name)),
            callback(said("participant-mute", BEN, number=4, second=6, Muted="true", **name)),
        ],
        [Callback(body=torn, received_at=1_795_348_807_000, key="shared:MK1")],
        [callback(progress(BEN, "in-progress", number=2, second=4)), callback({"AccountSid": ACCOUNT, "CallSid": "?"})],
        [callback(said("participant-join", ANNA, number=1, second=0, room=ENDED))],
        [callback(said("conference-end", number=2, second=9, room=ENDED))],
        [Callback(body=b'{"a":1}', media="json", received_at=1_795_348_809_000, key="main")],
        [callback(said("participant-join", ANNA, number=1, second=0, **name))],
    ]
    for told in rounds:
        post(inbox, *told)
        empty(drain)
    mute = {"id": "01", "awaits": ["muted=true"]}
    inbox.append(inbox.shard_of(ROOM), recorded(ROOM, "requested", mute, parameters=[["Muted", "true"]]))
    empty(drain)
    post(inbox, callback(said("participant-mute", ANNA, number=6, second=8, Muted="true", **name)))
    inbox.append(inbox.shard_of(ROOM), filed(progress(BEN, "completed", number=3, second=9), ROOM))
    inbox.append(inbox.shard_of(ROOM), recorded(ROOM, "answered", mute | ACCEPTED))
    inbox.forward([(inbox.shard_of(ANNA), Link(ANNA, "CF" + "0" * 32))])
    Promises(redis).keep(PROMISE, FINGERPRINT, Answered(201, {"Content-Type": "application/json"}, b"{}"))
    signing_in = Sessions(redis)
    return signing_in.open(ACCOUNT, TOKEN.encode()), signing_in.ticket(ACCOUNT, TOKEN.encode())


def tokens_in(read: Mapping[str, Any], kind: str) -> list[str]:
    """The tokens of the sessions, or of the tickets, that something was read of."""
    return [asked.removeprefix(f"{kind} ") for asked in read if asked.startswith(f"{kind} ")]


def main(name: str = str(FORM)) -> str:
    """Write a file. Nothing that is in one is ever changed."""
    path = path_of(name)
    if path.exists():
        return f"{path.name} is there, and is never overwritten."
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(embedded.command(Path(folder)))
        try:
            redis = connect(embedded.url(Path(folder)), patience=5.0)
            until_answering(redis)
            path.write_bytes(b"".join(line + b"\n" for line in _written(redis)))
        finally:
            server.terminate()
            server.wait(10)
    return f"{path.name} written."


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
