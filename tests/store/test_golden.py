"""What past builds have stored in this form can be read, byte by byte, and says what it said."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from redis import Redis

from app.events import Callback
from app.store import logs, sessions
from app.store.connect import FORM, claim_layout
from tests.cast import ROOM
from tests.conftest import SHARDS
from tests.golden import form, read_callback


class Clock:
    """Says what time it is."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def time(self) -> float:
        return float(self.seconds)


def read_again(redis: Redis, read: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What this build reads, within a minute of the sessions having been opened."""
    session, ticket = form.tokens_in(read, "session"), form.tokens_in(read, "ticket")
    opened = max((read[f"session {token}"][1] for token in session), default=0)
    monkeypatch.setattr(sessions, "time", Clock(opened + 60))
    return form.reading(redis, session, ticket)


def test_todays_form_has_a_file() -> None:
    assert str(FORM) in form.names(), "write it with `python -m tests.golden.form`"


@pytest.mark.parametrize("name", form.names())
def test_this_build_reads_what_an_earlier_one_has_stored(
    redis: Redis, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = form.restored(redis, name)
    claim_layout(redis, SHARDS)
    again = read_again(redis, read, monkeypatch)
    for asked, answer in read.items():
        assert again[asked] == answer, asked


@pytest.mark.parametrize("name", form.names())
def test_what_is_restored_is_what_was_there(redis: Redis, name: str) -> None:
    form.restored(redis, name)
    lines = form.path_of(name).read_bytes().splitlines()
    stored = [line for line in lines if line.startswith(b'{"key"') and b'"holds":{"stream":[]}' not in line]
    assert list(form.held(redis)) == stored


@pytest.mark.parametrize("name", form.names())
def test_a_log_that_is_packed_today_can_be_read_by_a_build_that_knows_the_forms_dictionary(
    redis: Redis, name: str
) -> None:
    """While a deployment goes on, both read what both write. Of deflate only what comes out is laid down."""
    read = form.restored(redis, name)
    told = [(event_id, read_callback(said)) for _, event_id, said in read[f"log of {ROOM}"]]
    [(ids, pack)] = logs.packed(ROOM, told)
    assert ids.hex() == "".join(event_id for event_id, _ in told)
    inflate = zlib.decompressobj(wbits=-13, zdict=read["dictionary"].encode() + ROOM.encode())
    packed = msgspec.msgpack.decode(inflate.decompress(pack))
    assert [said[:7] for said in packed] == [plain(callback) for _, callback in told]
    assert (logs.NUMBER_BYTES, logs.ID_BYTES) == (4, 12)


def plain(callback: Callback) -> list[Any]:
    """A callback's fields in the order in which a log of form 2 has them; what comes behind is not looked at."""
    return [
        callback.body,
        callback.media,
        callback.received_at,
        callback.key,
        callback.token,
        callback.query,
        callback.conference_sid,
    ]
