"""Sessions stand for as long as was said, tickets are taken once, and what Redis holds of them opens nothing."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis, RedisError

from app.store import keys, sessions
from app.store.connect import connect
from app.store.sessions import LONGEST, RENEWED, TICKET, UNUSED, Session, Sessions, digest

NAME, SECRET = "operator", b"the operator's secret"
HOUR = 3600


@pytest.fixture
def opened(redis: Redis) -> Sessions:
    return Sessions(redis)


@pytest.fixture
def away() -> Iterator[Sessions]:
    client = connect("unix:///nonexistent/valkey.sock", patience=1.0)
    yield Sessions(client)
    client.close()


class Clock:
    """What the time is for sessions."""

    def __init__(self) -> None:
        self.now = 1_800_000_000

    def time(self) -> float:
        return float(self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sessions, "time", clock)
    return clock


def key_of(token: str) -> str:
    return keys.session(digest(token))


def test_an_opened_session_is_found_by_its_token_and_proves_its_secret(opened: Sessions) -> None:
    token = opened.open(NAME, SECRET)
    session = opened.find(token)
    assert session is not None
    assert session.name == NAME
    assert session.proves(token, SECRET)
    assert not session.proves(token, b"another secret")
    assert not session.proves(opened.open(NAME, SECRET), SECRET), "another session's token"


def test_each_session_has_a_token_of_256_bits_of_its_own(opened: Sessions) -> None:
    tokens = {opened.open(NAME, SECRET) for _ in range(20)}
    assert len(tokens) == 20
    assert {len(bytes.fromhex(token)) for token in tokens} == {32}


def test_a_session_is_known_by_a_digest_of_its_token(opened: Sessions, redis: Redis) -> None:
    token = opened.open(NAME, SECRET)
    assert redis.keys("*") == [f"offhook:session:{sha256(token.encode()).hexdigest()}".encode()]
    proof = hmac.new(token.encode(), SECRET, "sha256").digest()
    assert msgspec.msgpack.decode(redis.get(key_of(token)))[:2] == [NAME, proof]


def test_neither_token_nor_secret_is_in_redis(opened: Sessions, redis: Redis) -> None:
    tokens = [opened.open(NAME, SECRET), opened.ticket(NAME, SECRET)]
    held = b"\n".join(key + b"\n" + redis.get(key) for key in redis.keys("*"))
    for token in tokens:
        assert token.encode() not in held
        assert bytes.fromhex(token) not in held
    assert SECRET not in held


def test_a_closed_session_is_over(opened: Sessions) -> None:
    token, other = opened.open(NAME, SECRET), opened.open(NAME, SECRET)
    opened.close(token)
    opened.close(token)
    assert opened.find(token) is None
    assert not opened.stands(digest(token))
    assert opened.stands(digest(other))


def test_a_session_stands_for_twelve_hours(opened: Sessions, redis: Redis) -> None:
    token = opened.open(NAME, SECRET)
    assert UNUSED - 60 < redis.ttl(key_of(token)) <= UNUSED == 12 * HOUR


def test_use_makes_it_stand_for_twelve_hours_more(opened: Sessions, redis: Redis) -> None:
    token = opened.open(NAME, SECRET)
    for use in (lambda: opened.find(token), lambda: opened.stands(digest(token))):
        redis.expire(key_of(token), HOUR)
        assert use()
        assert redis.ttl(key_of(token)) > UNUSED - 60


def test_use_is_written_down_once_in_ten_minutes_at_most(
    opened: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    expire = redis.expire
    token = opened.open(NAME, SECRET)
    with monkeypatch.context() as patch:
        patch.setattr(redis, "expire", lambda key, life: (written.append(life), expire(key, life)))
        opened.find(token)
        expire(key_of(token), UNUSED - RENEWED + 60)
        opened.find(token)
        assert written == []
        expire(key_of(token), UNUSED - RENEWED - 60)
        opened.find(token)
        opened.find(token)
        assert written == [UNUSED]


def test_it_is_over_after_a_week_however_much_it_is_used(opened: Sessions, redis: Redis, clock: Clock) -> None:
    token = opened.open(NAME, SECRET)
    clock.now += LONGEST - HOUR
    redis.expire(key_of(token), 60)
    assert opened.find(token) is not None
    assert HOUR - 60 < redis.ttl(key_of(token)) <= HOUR
    clock.now += HOUR - 1
    assert opened.find(token) is not None
    clock.now += 1
    assert opened.find(token) is None
    assert LONGEST == 7 * 24 * HOUR


def test_a_session_that_ends_while_it_is_used_does_not_come_back(
    opened: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = opened.open(NAME, SECRET)
    redis.expire(key_of(token), HOUR)
    expire = redis.expire
    monkeypatch.setattr(redis, "expire", lambda key, life: (opened.close(token), expire(key, life)))
    opened.find(token)
    assert opened.find(token) is None


def test_a_ticket_is_taken_once_within_an_hour(opened: Sessions, redis: Redis) -> None:
    token = opened.ticket(NAME, SECRET)
    assert TICKET - 60 < redis.ttl(keys.ticket(digest(token))) <= TICKET == HOUR
    ticket = opened.take(token)
    assert ticket is not None
    assert ticket.name == NAME
    assert ticket.proves(token, SECRET)
    assert opened.take(token) is None
    assert redis.keys("*") == []


def test_of_many_at_once_one_has_the_ticket(opened: Sessions) -> None:
    token, together = opened.ticket(NAME, SECRET), threading.Barrier(8)

    def take(_: int) -> Session | None:
        together.wait(20)
        return opened.take(token)

    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(take, range(8)))
    assert len([ticket for ticket in taken if ticket]) == 1


def test_a_ticket_is_no_session_and_a_session_no_ticket(opened: Sessions) -> None:
    ticket, token = opened.ticket(NAME, SECRET), opened.open(NAME, SECRET)
    assert opened.find(ticket) is None
    assert opened.take(token) is None
    assert opened.find(token) is not None


@pytest.mark.parametrize(
    "kept", [b"", b"x", b"\xff" * 50, b'{"name": "operator"}', b"\x93\xa2\xff\xff\xc4\x01x\x00", b"\x92\xa1x\xc4\x00"]
)
def test_what_others_have_written_there_is_no_session(opened: Sessions, redis: Redis, kept: bytes) -> None:
    redis.set(key_of("token"), kept)
    redis.set(keys.ticket(digest("token")), kept)
    assert opened.find("token") is None
    assert opened.take("token") is None


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=st.text())
def test_any_text_may_be_asked_for(opened: Sessions, token: str) -> None:
    assert opened.find(token) is None
    assert opened.take(token) is None
    opened.close(token)


tokens = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(token=tokens, other=tokens, secret=st.binary(), guess=st.binary())
def test_only_token_and_secret_together_are_a_proof(token: str, other: str, secret: bytes, guess: bytes) -> None:
    session = Session(NAME, hmac.digest(token.encode(), secret, "sha256"), 0)
    assert session.proves(token, secret)
    assert session.proves(other, guess) == ((other, guess) == (token, secret))


def test_without_redis_a_session_stands_but_cannot_be_found(away: Sessions) -> None:
    assert away.stands(digest("token"))
    for attempt in (away.find, away.close, away.take):
        with pytest.raises(RedisError):
            attempt("token")
    for attempt_to_open in (away.open, away.ticket):
        with pytest.raises(RedisError):
            attempt_to_open(NAME, SECRET)


def test_a_redis_that_takes_no_writes_still_lets_in(
    opened: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = opened.open(NAME, SECRET)
    redis.expire(key_of(token), HOUR)

    def refuse(*_: object) -> None:
        raise RedisError("MISCONF")

    monkeypatch.setattr(redis, "expire", refuse)
    assert opened.find(token) is not None
