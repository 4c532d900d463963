"""Refusals are counted without ever being in the way: on a pretended Redis that can be switched off."""

from __future__ import annotations

import pytest
from fakeredis import FakeRedis, FakeServer
from redis import RedisError
from structlog.testing import capture_logs

from app.store import keys
from app.web import refusals
from app.web.refusals import Refusals


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def counted(server: FakeServer) -> Refusals:
    return Refusals(FakeRedis(server=server))


def test_a_refusal_is_counted_for_everyone_and_logged_at_once(counted, server):
    with capture_logs() as lines:
        counted.note("signature", expected_at="https://offhook.example.com/webhooks/twilio")
    assert [line["reason"] for line in lines] == ["signature"]
    counted.write()
    assert FakeRedis(server=server).hgetall(keys.REFUSED) == {b"signature": b"1"}


def test_a_flood_is_one_log_line_and_one_write_until_a_second_has_passed(counted, server, monkeypatch):
    with capture_logs() as lines:
        for _ in range(1000):
            counted.note("signature")
    assert len(lines) == 1
    monkeypatch.setattr(refusals, "AT_MOST_EVERY", -1.0)
    with capture_logs() as lines:
        counted.note("media type")
    assert lines[0]["refused"] == {"signature": 999, "media type": 1}
    assert counted.totals() == {"signature": 1000, "media type": 1}


def test_the_totals_have_what_this_process_had_not_written_yet(counted):
    for _ in range(3):
        counted.note("malformed")
    assert counted.totals() == {"malformed": 3}


def test_with_redis_away_nothing_is_raised_and_nothing_forgotten(counted, server):
    server.connected = False
    counted.note("signature")
    with pytest.raises(RedisError):
        counted.totals()
    server.connected = True
    assert counted.totals() == {"signature": 1}
