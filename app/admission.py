"""Turns callbacks away while the web processes cannot keep up with them: those of speech first, the others last.

Twilio does not slow down for anybody, so what cannot be answered in time had better be answered at once, and cheaply.
How far behind a process is shows in how long one turn of its event loop takes, for all connections that have something
are served in one, and in how many connections wait to be accepted. A burst is not turned away: only who has been behind
for a while is.
"""

from __future__ import annotations

import re
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
PEEKED = 4096
"""Bytes of a request that are looked at. Twilio's callbacks are shorter."""

UNACKED = slice(24, 28)
"""Where in the kernel's tcp_info it is: of a listening socket, how many connections wait to be accepted."""


BEGIN = re.compile(rb"POST /webhooks/twilio[? ]|GET /webhooks/twilio\?")
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,5})\r\n", re.IGNORECASE)
"""Of a request's body."""
UNUSUAL = re.compile(rb"\r\n(transfer-encoding|expect|upgrade|[ \t])|\r\n[^:\r\n]*[ \t]:", re.IGNORECASE)
"""What makes more of a request than its length and its body."""
LAST = re.compile(rb" HTTP/1\.0\r\n|\r\nconnection: *close\r\n", re.IGNORECASE)
"""What makes a request the last of its connection."""


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
    try:
        told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:  # it is closed
        return 0
    return int.from_bytes(told[UNACKED], sys.byteorder)


def whole_callback(there: bytes) -> int:
    """How long the request is that these bytes begin with; 0 where it is no callback, not all there, or unusual."""
    if not BEGIN.match(there):
        return 0
    end = there.find(b"\r\n\r\n") + 4
    head = there[:end]
    lengths = LENGTH.findall(head)
    if end < 4 or UNUSUAL.search(head) or len(lengths) > 1 or head.lower().count(b"content-length") != len(lengths):
        return 0
    length = end + (int(lengths[0]) if lengths else 0)
    return length if length <= len(there) else 0
