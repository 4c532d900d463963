"""The web server's worker process: gunicorn's for gevent, which can turn callbacks away (see `admission.py`).

gunicorn loads this before it forks, and gevent has to come before nearly everything: nothing else of ours is loaded.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from mmap import mmap
from typing import Any

import gevent
from gevent.socket import wait_read
from gunicorn.http.body import LengthReader
from gunicorn.workers.ggevent import GeventWorker

from app.admission import LAST, PEEKED, Admission, whole_callback

SHARED = mmap(-1, 8)
"""Of all web processes: the first of them has it before it forks the others."""
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 54\r\n\r\n"
    b"Not stored: more callbacks come than can be taken in.\n"
)
LISTENS = 1.0
"""Seconds that a kept connection is listened to here before it is gunicorn's again."""


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
        if not self.admission.calm:
            client.setblocking(1)
            self._turn_away(client)
        super().handle(listener, client, addr)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serve one request."""
        super().handle_request(listener_name, req, sock, addr)
        if not self.admission.calm and _is_read(req):
            self._turn_away(sock)

    def _turn_away(self, sock: Any) -> None:
        """Refuse callbacks by their bytes, at a fraction of what reading them costs, until one comes that is taken.

        Only where a request begins: what stands in the middle of one is not looked at.
        """
        try:
            while self.alive and not self.admission.calm:
                wait_read(sock.fileno(), timeout=LISTENS, timeout_exc=TimeoutError())
                length = whole_callback(there := sock.recv(PEEKED, socket.MSG_PEEK))
                if not length or not self.admission.refuses(there[:length]):
                    return
                sock.recv(length)
                sock.sendall(REFUSAL)
                self.note()
                if LAST.search(there[:length]):
                    sock.shutdown(socket.SHUT_RDWR)
                    return
        except OSError:  # it is silent, or gone: gunicorn sees to that
            return


def _is_read(req: Any) -> bool:
    """Whether what comes next on this request's connection is the beginning of another."""
    reader = req.body.reader
    return isinstance(reader, LengthReader) and reader.length == 0 and not req.unreader.buf.getvalue()
