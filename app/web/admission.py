"""Turns callbacks away while the web processes cannot keep up with them: those of speech first, the others last.

Twilio does not slow down for anybody, so what cannot be answered in time had better be answered at once, and cheaply.
How far behind a process is shows in how long one turn of its event loop takes, for all connections that have something
are served in one, and in how many connections wait to be accepted. A burst is not turned away: only who has been behind
for a while is.
"""

from __future__ import annotations

import socket
import sys
import time
from mmap import mmap

KEPT_UP = 0.05
"""Seconds. Who is behind by less keeps up."""
BURST = 0.4
"""Seconds of being behind after which speech is turned away."""
GRACE = 0.2
"""Seconds more after which the rest may be, for the other processes to know of it."""
TOO_LATE = 0.1
"""Seconds. Only who is behind by more turns away what is not speech."""
FOR_ONE = 0.0005
"""Seconds that a connection takes that waits to be accepted, more or less."""
LOOKED_EVERY = 0.01
"""Seconds between two looks at how many those are."""
SPEECH = b"participant-speech-"

UNACKED = slice(24, 28)
"""Where in the kernel's tcp_info it is: of a listening socket, how many connections wait to be accepted."""


class Admission:
    """Of one process. `shared` is the memory of all of them: until when each turns more than speech away."""

    def __init__(self, shared: mmap | bytearray) -> None:
        self.shared = memoryview(shared).cast("d")
        self.listeners: list[socket.socket] = []
        self._began = self._looked_at = self._kept_up_at = time.monotonic()
        self._turn = 0.0
        self._waiting = 0

    def begin_turn(self) -> None:
        """Say that the event loop has looked at its sockets."""
        self._began = time.monotonic()

    def end_turn(self) -> None:
        """Say that it has served all of them that had something."""
        now = time.monotonic()
        self._turn = now - self._began
        if self._behind(now) < KEPT_UP:
            self._kept_up_at = now

    def _behind(self, now: float) -> float:
        """By how many seconds, at least."""
        if now - self._looked_at > LOOKED_EVERY:
            self._looked_at = now
            self._waiting = max(map(waiting, self.listeners), default=0)
        return max(self._turn, now - self._began, self._waiting * FOR_ONE)

    @property
    def calm(self) -> bool:
        """Whether nothing is to be turned away."""
        now = time.monotonic()
        return now - self._kept_up_at <= BURST and self.shared[0] < now

    def refuses(self, request: bytes) -> bool:
        """Whether this callback, or as much of it as is there, is to be turned away."""
        if self.calm:
            return False
        now = time.monotonic()
        for_long = now - self._kept_up_at - BURST
        if SPEECH in request:
            return True
        if for_long < GRACE or self._behind(now) < TOO_LATE:
            return False
        self.shared[0] = now + 2 * GRACE
        return True


def waiting(listener: socket.socket) -> int:
    """How many connections wait to be accepted, where the system tells and as long as it listens."""
    if sys.platform != "linux" or listener.fileno() < 0 or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    return int.from_bytes(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[UNACKED], sys.byteorder)
