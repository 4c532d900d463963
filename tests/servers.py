"""Valkey servers of a test's own, set as it likes, to be stopped and started again."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path

from redis import Redis

from app.store import embedded
from app.store.connect import connect, until_answering


class Server:
    """One Valkey: set as the embedded one but for what is said."""

    def __init__(self, **settings: str) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="offhook-test-")  # pytest's may be too long for a socket
        self.url = embedded.url(Path(self.folder.name))
        settings = {"repl_diskless_sync_delay": "0", **settings}
        words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
        self.command = [*embedded.command(Path(self.folder.name)), *words]
        self.clients: list[Redis] = []

    def start(self) -> None:
        """Start it, again too, and wait until it answers."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        until_answering(self.client())

    def client(self, patience: float = 5.0) -> Redis:
        """A client, to be closed with the server."""
        self.clients.append(connect(self.url, patience=patience))
        return self.clients[-1]

    def pause(self) -> None:
        """It stands still, and its connections stay."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of a pause."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        """The end of it and its clients."""
        self.kill()
        for client in self.clients:
            client.close()
        self.folder.cleanup()
