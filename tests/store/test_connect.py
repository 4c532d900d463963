"""Clients of Redis give up in time, try a dead connection once more, and keep to one layout of shards."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from redis import Redis, RedisError
from redis.exceptions import ConnectionError as Unconnected
from redis.exceptions import TimeoutError as TimedOut

from app.store import keys
from app.store.connect import WrongLayout, claim_layout, connect, until_answering
from app.store.inbox import Inbox
from tests.cast import ANNA, callback, said
from tests.conftest import SHARDS

HANG_UP = None
SAY_NOTHING = b""
PONG = b"+PONG\r\n"

Answer = Callable[[int], bytes | None]
"""What to say to the nth command, counted over all connections."""


class Double:
    """A pretended Redis: it lets clients introduce themselves, and answers each other command as it is told."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        self.clients: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.clients.append(client)
            self.threads.append(threading.Thread(target=self._serve, args=[client]))
            self.threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as lines:
            try:
                while line := lines.readline():
                    sizes = range(int(line[1:]))
                    words = [lines.read(int(lines.readline()[1:]) + 2)[:-2] for _ in sizes]
                    if words[0] == b"CLIENT":
                        client.sendall(b"+OK\r\n")
                        continue
                    self.heard.append(words[0])
                    said = self.answer(len(self.heard))
                    if said is HANG_UP:
                        return
                    client.sendall(said)
            except OSError:
                return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.threads[0].join()
        for client in self.clients:
            with suppress(OSError):  # it may have hung up already
                client.shutdown(socket.SHUT_RDWR)
        for thread in self.threads[1:]:
            thread.join()


@contextmanager
def double(answer: Answer) -> Iterator[Double]:
    server = Double(answer)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def client(url: str, patience: float = 5.0, connections: int = 50) -> Iterator[Redis]:
    redis = connect(url, patience=patience, connections=connections)
    try:
        yield redis
    finally:
        redis.close()


def test_a_redis_that_does_not_answer_is_given_up_and_is_not_asked_again() -> None:
    with double(lambda _: SAY_NOTHING) as server, client(server.url, patience=0.05) as redis:
        with pytest.raises(TimedOut):
            redis.ping()
        assert server.heard == [b"PING"]


def test_a_connection_that_is_found_dead_is_replaced_and_the_command_sent_once_more() -> None:
    with double(lambda n: HANG_UP if n == 1 else PONG) as server, client(server.url) as redis:
        assert redis.ping()
        assert server.heard == [b"PING", b"PING"]


def test_a_command_is_not_sent_a_third_time() -> None:
    with double(lambda _: HANG_UP) as server, client(server.url) as redis:
        with pytest.raises(Unconnected):
            redis.ping()
        assert server.heard == [b"PING", b"PING"]


def test_a_pipeline_on_a_dead_connection_is_sent_once_more() -> None:
    with double(lambda n: HANG_UP if n == 1 else PONG) as server, client(server.url) as redis:
        with redis.pipeline(transaction=False) as pipe:
            pipe.ping()
            assert pipe.execute() == [True]
        assert server.heard == [b"PING", b"PING"]


def test_where_nothing_listens_the_error_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with client(f"redis://127.0.0.1:{port}") as redis, pytest.raises(Unconnected):
        redis.ping()


def test_who_finds_all_connections_in_use_gives_up_too() -> None:
    with double(lambda _: PONG) as server, client(server.url, patience=0.05, connections=1) as redis:
        taken = redis.connection_pool.get_connection()
        with pytest.raises(RedisError):
            redis.ping()
        redis.connection_pool.release(taken)
        assert redis.ping()


def test_an_append_outlives_the_connection_that_it_was_going_to_use(valkey: str, redis: Redis) -> None:
    with client(valkey, connections=1) as ours:
        inbox = Inbox(ours, SHARDS)
        number = ours.client_id()
        redis.client_kill_filter(_id=str(number))
        assert inbox.append(0, callback(said("participant-join", ANNA, number=2, second=1)))
        assert inbox.backlog()[0].waiting == 1


def test_a_starting_redis_is_waited_for_until_it_answers() -> None:
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    with double(lambda n: loading if n < 4 else PONG) as server, client(server.url) as redis:
        until_answering(redis)
        assert len(server.heard) >= 4


def test_a_redis_that_never_answers_is_not_waited_for_forever() -> None:
    with double(lambda _: HANG_UP) as server, client(server.url) as redis, pytest.raises(Unconnected):
        until_answering(redis, seconds=0)


def test_an_empty_redis_takes_the_layout_of_whoever_comes_first(redis: Redis) -> None:
    claim_layout(redis, 16)
    claim_layout(redis, 16)


def test_another_number_of_shards_is_refused_with_what_to_do(redis: Redis) -> None:
    claim_layout(redis, 16)
    with pytest.raises(WrongLayout) as refusal:
        claim_layout(redis, 8)
    assert "OFFHOOK_SHARDS is 8" in str(refusal.value)
    assert "OFFHOOK_SHARDS=16" in str(refusal.value)
    claim_layout(redis, 16)


@pytest.mark.parametrize("stored", ["16", "16 form 1", "16 form 3", ""])
def test_data_of_another_form_is_refused_with_what_to_do(redis: Redis, stored: str) -> None:
    redis.set(keys.LAYOUT, stored)
    with pytest.raises(WrongLayout, match="OFFHOOK_DATA_DIR"):
        claim_layout(redis, 16)
    assert redis.get(keys.LAYOUT) == stored.encode()


def test_of_two_layouts_claimed_at_once_one_holds(redis: Redis) -> None:
    def claims(shards: int) -> bool:
        try:
            claim_layout(redis, shards)
        except WrongLayout:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(claims, [8, 16] * 20))
    assert set(outcomes[::2]) != set(outcomes[1::2])
