"""The line between a browser and Offhook, which a test can cut, hold up and listen in on."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from threading import Event, Thread

LOOK = 0.05
"""Seconds after which a connection notices what has been done to the line."""


class Line:
    """A TCP proxy on a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.streams: set[socket.socket] = set()
        """The connections on which the live feed is open."""
        self._whole, self._flowing = Event(), Event()
        self.mend()
        Thread(target=self._take, name="line", daemon=True).start()

    def cut(self) -> None:
        """Every connection breaks, and so does each new one."""
        self._whole.clear()

    def hold_up(self) -> None:
        """Connections stay, and nothing passes."""
        self._flowing.clear()

    def mend(self) -> None:
        """All is well again; what was held up arrives."""
        self._whole.set()
        self._flowing.set()

    def close(self) -> None:
        """End it."""
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                Thread(target=self._serve, args=(near,), name="connection", daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as far:
            self._carry(near, far)
        self.streams.discard(near)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        while self._whole.is_set():
            if not self._flowing.wait(LOOK):
                continue
            for ready in select.select([near, far], [], [], LOOK)[0]:
                if not self._flowing.is_set():
                    break
                data = ready.recv(65536)
                if not data:
                    return
                if ready is near and data.startswith(b"GET /api/stream"):
                    self.streams.add(near)
                (far if ready is near else near).sendall(data)
