"""The proxy does what the lab believes that it does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from redis import ReadOnlyError, Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as Unconnected
from redis.exceptions import TimeoutError as TimedOut
from redis.retry import Retry

from tests.chaos.proxy import Proxy


@pytest.fixture
def proxy(valkey: str, redis: Redis) -> Iterator[Proxy]:
    proxy = Proxy(Path(valkey.removeprefix("unix://")))
    yield proxy
    proxy.close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Redis]:
    with Redis(port=proxy.port, protocol=2, socket_timeout=0.3, retry=Retry(NoBackoff(), 0)) as client:
        client.set("name", "Anna")
        yield client


def test_it_passes_on_what_it_is_sent(client):
    assert client.get("name") == b"Anna"
    client.set("long", "x" * 300_000)
    assert client.strlen("long") == 300_000


def test_delayed_answers_come_late(proxy, client):
    with proxy.behaving("delay", seconds=0.1):
        began = monotonic()
        assert client.get("name") == b"Anna"
        assert monotonic() - began >= 0.1


def test_a_black_hole_takes_commands_and_connections_and_answers_none(proxy, client):
    with proxy.behaving("blackhole"):
        for _ in range(2):  # on the connection that there was, and on another
            with pytest.raises(TimedOut):
                client.get("name")
    assert client.get("name") == b"Anna"


def test_what_a_black_hole_has_swallowed_never_arrives(proxy, client):
    with proxy.behaving("blackhole"), pytest.raises(TimedOut):
        client.set("name", "Ben")
    assert client.get("name") == b"Anna"


def test_half_open_connections_are_silent_and_new_ones_pass(proxy, client):
    with proxy.behaving("half-open"):
        with pytest.raises(TimedOut):
            client.get("name")
        assert client.get("name") == b"Anna"


def test_a_reset_is_a_reset_and_meets_new_connections_too(proxy, client):
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"
        with proxy.behaving("reset"):
            with pytest.raises(ConnectionResetError):
                connection.recv(100)
            with pytest.raises(Unconnected):
                client.get("name")
    assert client.get("name") == b"Anna"


def test_canned_answers_answer_each_command_and_redis_hears_of_none(proxy, client):
    with proxy.behaving("canned", line="-READONLY You can't write against a read only replica."):
        with pytest.raises(ReadOnlyError):
            client.set("name", "Ben")
        before = proxy.answered
        answers = client.pipeline(transaction=False).get("name").get("name").execute(raise_on_error=False)
        assert [type(each) for each in answers] == [ReadOnlyError] * 2
        assert proxy.answered >= before + 2
    loading = proxy.behaving("canned", line="-LOADING Redis is loading the dataset in memory")
    with loading, pytest.raises(BusyLoadingError):
        client.get("name")
    assert client.get("name") == b"Anna"
