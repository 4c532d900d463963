"""Golden files: what past builds wrote, kept so that every later one can be held to it.

`fold-N.jsonl` has some stories: the log of each, callback by callback as it was stored, and the document that version N
of the fold made of it, byte for byte. A document of another version is folded again from its log, so of the same log
every version's file tells what that version owes. `form-N.jsonl` has whole databases of form N (see `form.py`).

The files are never edited, only added to: they stand for data that is in somebody's Redis. Who raises `fold.VERSION`
writes the next file with `python -m tests.golden 3`; who thinks of another story adds it to `stories.py` and calls the
same for the version of today, which adds what is missing and changes nothing that is there.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from app.conference import UNDETERMINED, Conference, document, encode
from app.events import Callback, Event
from app.fold import fold
from app.twilio.callbacks import Unusable, read_filed

FOLDER = Path(__file__).parent


class Golden(NamedTuple):
    """One story as a file has it."""

    name: str
    log: list[tuple[str, Callback]]
    """Each callback of the log behind the id that it was stored under."""
    header: bytes
    participants: list[bytes]
    """In order."""

    @property
    def document(self) -> bytes:
        return document(self.header, self.participants)

    @property
    def sid(self) -> str:
        return str(msgspec.json.decode(self.header)["sid"])

    @property
    def fields(self) -> dict[str, bytes]:
        """The conference's hash, but for the fold's version."""
        named = {str(msgspec.json.decode(each)["call_sid"]): each for each in self.participants}
        return {"header": self.header, **named}


def path_of(version: int) -> Path:
    """The file of a version of the fold."""
    return FOLDER / f"fold-{version}.jsonl"


def versions() -> list[int]:
    """Those that there is a file of, the newest last."""
    return sorted(int(path.stem.removeprefix("fold-")) for path in FOLDER.glob("fold-*.jsonl"))


def golden(version: int) -> list[Golden]:
    """The stories of a version's file."""
    return list(_told(path_of(version).read_bytes().splitlines()))


class _Line(msgspec.Struct):
    """A line of a file has one of these."""

    story: str | None = None
    logged: dict[str, Any] | None = None
    header: msgspec.Raw = msgspec.Raw()
    participant: msgspec.Raw = msgspec.Raw()


def _told(lines: Iterable[bytes]) -> Iterator[Golden]:
    story: Golden | None = None
    for line in map(msgspec.json.Decoder(_Line).decode, lines):
        if line.story is not None:
            if story is not None:
                yield story
            story = Golden(line.story, [], b"", [])
            continue
        assert story is not None, "a file begins with the name of a story"
        if line.logged is not None:
            story.log.append((line.logged.pop("id"), read_callback(line.logged)))
        elif line.header:
            story = story._replace(header=bytes(line.header))
        else:
            story.participants.append(bytes(line.participant))
    if story is not None:
        yield story


def determined(story: Golden) -> bytes:
    """The document as far as the callbacks determine it, byte for byte."""
    told = msgspec.json.decode(story.document)
    return msgspec.json.encode({name: value for name, value in told.items() if name not in UNDETERMINED})


def lines_of(story: Golden) -> Iterator[bytes]:
    """A story as a file has it."""
    yield msgspec.json.encode({"story": story.name})
    for event_id, callback in story.log:
        yield msgspec.json.encode({"logged": {"id": event_id, **written_callback(callback)}})
    yield b'{"header":%b}' % story.header
    for each in story.participants:
        yield b'{"participant":%b}' % each


def written_callback(callback: Callback) -> dict[str, Any]:
    """All that is stored of a callback, for people to read; less what is as it is by default."""
    told = {name: getattr(callback, name) for name in callback.__struct_fields__}
    defaults = {field.name: field.default for field in msgspec.structs.fields(callback)}
    return {
        name: written_bytes(value) if name == "body" else value
        for name, value in told.items()
        if value != defaults[name]
    }


def read_callback(said: dict[str, Any]) -> Callback:
    """The callback that `written_callback` wrote."""
    return Callback(**{**said, "body": read_bytes(said["body"])})


def written_bytes(raw: bytes) -> str | dict[str, str]:
    """Bytes as text where they are that."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(raw).decode()}


def read_bytes(said: str | dict[str, str]) -> bytes:
    """The bytes that `written_bytes` wrote."""
    return said.encode() if isinstance(said, str) else b64decode(said["base64"])


def events_of(sid: str, log: Iterable[tuple[str, Callback]]) -> Iterator[tuple[str, Event]]:
    """The events of a log behind the ids that they were stored under. What cannot be read is passed over."""
    for event_id, callback in log:
        try:
            yield event_id, read_filed(callback, sid)
        except Unusable:
            continue


def made_of(sid: str, log: Sequence[tuple[str, Callback]]) -> Conference:
    """What the fold of today makes of a log, had its callbacks been committed one by one."""
    told = fold(event for _, event in events_of(sid, log))
    heard = max(callback.received_at for _, callback in log if callback.media != "control")
    header = replace(told.header, revision=len(log), heard_at=datetime.fromtimestamp(heard / 1000, UTC))
    return Conference(header, told.participants)


def refolded(name: str, sid: str, log: Sequence[tuple[str, Callback]]) -> Golden:
    """A story as the file of today's version is to have it."""
    conference = made_of(sid, log)
    return Golden(name, list(log), encode(conference.header), list(map(encode, conference.in_order())))
