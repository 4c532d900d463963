"""The web server's worker process: gunicorn's for gevent, which can turn callbacks away (see `web/admission.py`)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from mmap import mmap
from typing import Any

import gevent
from gunicorn.workers.ggevent import GeventWorker

from app.web.admission import Admission
from app.web.webhook import PATH

SHARED = mmap(-1, 8)
"""Of all web processes: the first of them has it before it forks the others."""
CALLBACK = (f"POST {PATH} ".encode(), f"GET {PATH}?".encode())
PEEKED = 4096
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 54\r\n\r\n"
    b"Not stored: more callbacks come than can be taken in.\n"
)


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    """A web process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.admission = Admission(SHARED)
        self.note: Callable[[], None] = lambda: None
        """Told of each request that was refused before it was read."""

    def run(self) -> None:
        """Serve until told to stop."""
        self.admission.listeners = list(self.sockets)
        loop = gevent.get_hub().loop
        checking, preparing = loop.check(), loop.prepare()
        checking.start(self.admission.begin_turn)
        preparing.start(self.admission.end_turn)
        super().run()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        if self.admission.calm or not self._turn_away(client):
            super().handle(listener, client, addr)

    def _turn_away(self, client: Any) -> bool:
        """Refuse a callback by its first bytes, at a fraction of what reading it would cost; whether that was done."""
        client.setblocking(0)
        try:
            if not (request := client.recv(PEEKED, socket.MSG_PEEK)).startswith(CALLBACK):
                return False
            if not self.admission.refuses(request):
                return False
            client.recv(PEEKED)
            client.send(REFUSAL)
            client.shutdown(socket.SHUT_WR)
        except BlockingIOError:  # it has said nothing yet
            return False
        except OSError:  # it has gone away
            pass
        client.close()
        self.note()
        return True
