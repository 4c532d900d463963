"""A promise is made once, whoever comes at the same time, and is kept for as long as was said."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis, RedisError

from app.store import keys
from app.store.connect import connect
from app.store.promises import KEPT, MEANT, Answered, Promise, Promises, digest

NAME, OTHER = digest(b"one"), digest(b"two")
ANSWER = Answered(
    201, {"Content-Type": "application/json", "Twilio-Request-Id": "RQ1"}, b'{"label":"B\xc3\xbcro"}\xff\x00'
)


@pytest.fixture
def promises(redis: Redis) -> Promises:
    return Promises(redis)


def made_by(promise: Promise | None) -> str | None:
    """The fingerprint of the request that a promise, not yet answered, was made with."""
    assert promise is None or promise.answer is None
    return promise and promise.fingerprint


def test_the_first_to_promise_may_send_and_the_next_learns_of_it(promises: Promises) -> None:
    assert promises.make(NAME, "mute") is None
    assert made_by(promises.make(NAME, "mute")) == "mute"
    assert made_by(promises.make(NAME, "unmute")) == "mute", "the request it was made with is what counts"


def test_promises_do_not_touch_each_other(promises: Promises) -> None:
    assert promises.make(NAME, "mute") is None
    assert promises.make(OTHER, "mute") is None
    promises.forget(OTHER)
    assert made_by(promises.find(NAME)) == "mute"
    assert promises.find(OTHER) is None


def test_a_kept_promise_has_its_answer_byte_for_byte(promises: Promises) -> None:
    promises.make(NAME, "mute")
    promises.keep(NAME, "mute", ANSWER)
    assert promises.make(NAME, "mute") == promises.find(NAME) == Promise("mute", answer=ANSWER)


def test_an_answer_may_be_kept_that_was_never_promised(promises: Promises) -> None:
    promises.keep(NAME, "mute", ANSWER)
    assert promises.find(NAME) == Promise("mute", answer=ANSWER)


def test_what_was_never_promised_is_not_found(promises: Promises) -> None:
    assert promises.find(NAME) is None


def test_a_promise_that_is_taken_back_may_be_made_again(promises: Promises) -> None:
    promises.make(NAME, "mute")
    promises.forget(NAME)
    promises.forget(NAME)
    assert promises.make(NAME, "unmute") is None
    assert made_by(promises.find(NAME)) == "unmute"


def test_promises_are_kept_for_a_minute_until_sealed_and_then_with_their_answers_for_a_day(
    promises: Promises, redis: Redis
) -> None:
    promises.make(NAME, "mute")
    assert 0 < redis.ttl(keys.promise(NAME)) <= MEANT == 60
    promises.seal(NAME, "mute")
    assert made_by(promises.make(NAME, "mute")) == "mute"
    assert KEPT - 60 < redis.ttl(keys.promise(NAME)) <= KEPT == 24 * 3600
    redis.expire(keys.promise(NAME), 100)
    promises.keep(NAME, "mute", ANSWER)
    assert KEPT - 60 < redis.ttl(keys.promise(NAME)) <= KEPT


def test_an_answer_may_be_kept_for_a_short_time(promises: Promises, redis: Redis) -> None:
    promises.keep(NAME, "mute", ANSWER, seconds=10)
    assert 0 < redis.ttl(keys.promise(NAME)) <= 10


def test_a_command_that_the_client_has_sent_twice_makes_one_promise(
    promises: Promises, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks before the answer has the client send SET NX again, which meets its own first one."""
    send = promises.redis.set

    def twice(*words: Any, **more: Any) -> Any:
        send(*words, **more)
        return send(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(promises.redis, "set", twice)
        assert promises.make(NAME, "mute") is None
    assert made_by(promises.make(NAME, "unmute")) == "mute"


def test_asking_again_does_not_make_it_last_longer(promises: Promises, redis: Redis) -> None:
    promises.make(NAME, "mute")
    redis.expire(keys.promise(NAME), 100)
    promises.make(NAME, "mute")
    promises.find(NAME)
    assert redis.ttl(keys.promise(NAME)) <= 100


def test_what_is_over_may_be_promised_again(promises: Promises, redis: Redis) -> None:
    promises.make(NAME, "mute")
    redis.pexpireat(keys.promise(NAME), 1)
    assert promises.find(NAME) is None
    assert promises.make(NAME, "mute") is None


def test_of_many_at_once_one_may_send(promises: Promises) -> None:
    together = threading.Barrier(8)

    def promise(number: int) -> Promise | None:
        together.wait(20)
        return promises.make(NAME, str(number))

    with ThreadPoolExecutor(8) as threads:
        earlier = list(threads.map(promise, range(8)))
    winner = earlier.index(None)
    assert [made_by(each) for each in earlier if each is not None] == [str(winner)] * 7


def test_who_looks_while_a_promise_is_taken_back_has_promised_it(
    promises: Promises, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told None goes on and sends, so nobody else may be told so after them."""
    promises.make(NAME, "first")
    find = promises.find

    def late(name: str) -> Promise | None:
        monkeypatch.setattr(promises, "find", find)
        promises.forget(name)
        return find(name)

    monkeypatch.setattr(promises, "find", late)
    assert promises.make(NAME, "second") is None
    assert made_by(promises.make(NAME, "third")) == "second"


def test_without_redis_nothing_is_promised() -> None:
    client = connect("unix:///nonexistent/valkey.sock", patience=1.0)
    promises = Promises(client)
    attempts: list[Callable[[], object]] = [
        lambda: promises.make(NAME, "mute"),
        lambda: promises.find(NAME),
        lambda: promises.keep(NAME, "mute", ANSWER),
        lambda: promises.forget(NAME),
    ]
    for attempt in attempts:
        with pytest.raises(RedisError):
            attempt()
    client.close()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.integers(200, 599),
    headers=st.dictionaries(st.text(), st.text()),
    body=st.binary(),
    fingerprint=st.text(),
)
def test_any_answer_is_found_as_it_was_kept(
    promises: Promises, status: int, headers: dict[str, str], body: bytes, fingerprint: str
) -> None:
    promises.keep(NAME, fingerprint, Answered(status, headers, body))
    assert promises.find(NAME) == Promise(fingerprint, answer=Answered(status, headers, body))


words = st.lists(st.binary(max_size=6), max_size=4)


@given(words, words)
def test_digests_are_the_same_only_for_the_same_words(some: list[bytes], others: list[bytes]) -> None:
    assert (digest(*some) == digest(*others)) == (some == others)


@pytest.mark.parametrize(
    ("some", "others"),
    [
        ([b"ab", b"c"], [b"a", b"bc"]),
        ([b"abc"], [b"abc", b""]),
        ([b"a", b"b"], [b"b", b"a"]),
        ([b"1:a"], [b"1", b"a"]),
        ([], [b""]),
        ([b"", b"a"], [b"1:a"]),
    ],
)
def test_digests_know_where_a_word_ends(some: list[bytes], others: list[bytes]) -> None:
    assert digest(*some) != digest(*others)


@given(words)
def test_a_digest_holds_nothing_but_hexadecimal_digits(some: list[bytes]) -> None:
    word = digest(*some)
    assert len(word) == 32
    assert set(word) <= set("0123456789abcdef")
