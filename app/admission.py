"""Turns callbacks away while the web processes cannot keep up with them: those of speech first, the others last.

Twilio does not slow down for anybody, so what cannot be answered in time had better be answered at once, and cheaply.
How far behind a process is shows in how much work one turn of its event loop is, for all connections that have
something are served in one, and in how many connections wait to be accepted. It is counted in seconds of this process's
own work: that others have the machine is no reason to turn anybody away. A burst is not turned away either: who keeps
up has credit for one.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from mmap import mmap

KEPT_UP = 0.008
"""Seconds of work in a turn. Who is behind by less keeps up."""
BURST = 0.15
"""Seconds of being behind for which there is credit at most. When it is used up, speech is turned away."""
EARNED = 0.02
"""Seconds of credit for each second of keeping up."""
GRACE = 0.2
"""Seconds more after which the rest may be, for the other processes to know of it."""
WORTH_A_GRACE = 0.02
"""Seconds. Whose credit was no more than that has not been without for longer than a moment."""
TOO_LATE = 0.012
"""Seconds of work. Only who is behind by more turns away what is not speech."""
LONGEST_TURN = 0.1
"""Seconds of credit that one turn costs at most."""
FOR_ONE = 0.0004
"""Seconds of work that a connection is that waits to be accepted, more or less."""
MOST_FOR_ONE = 0.002
"""Seconds of work that a callback is at most. Where there is more work than that, it is something else's."""
LOOKED_EVERY = 0.01
"""Seconds between two looks at how many those are."""
SPEECH = b"StatusCallbackEvent=participant-speech-"
PEEKED = 4096
"""Bytes of a request that are looked at. Twilio's callbacks are shorter."""

UNACKED = slice(24, 28)
"""Where in the kernel's tcp_info it is: of a listening socket, how many connections wait to be accepted."""


BEGIN = re.compile(rb"POST /webhooks/twilio[? ]|GET /webhooks/twilio\?")
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,5})\r\n", re.IGNORECASE)
"""Of a request's body."""
UNUSUAL = re.compile(
    rb"\r\n(transfer-encoding|expect|upgrade|[ \t])|\r\n[^:\r\n]*[ \t]:|(?<!\r)\n|\r(?!\n)", re.IGNORECASE
)
"""What makes more of a request than its length and its body."""
LAST = re.compile(rb" HTTP/1\.0\r\n|\r\nconnection: *close\r\n", re.IGNORECASE)
"""What makes a request the last of its connection."""


class Admission:
    """Of one process. `shared` is the memory of all of them: until when each turns more than speech away."""

    def __init__(self, shared: mmap | bytearray) -> None:
        self.shared = memoryview(shared).cast("d")
        self.listeners: list[socket.socket] = []
        self.credit = BURST
        self._spent_at = 0.0
        """When the credit was used up, if it is."""
        self._ended = self._turned = self._looked_at = time.monotonic()
        self._began = time.thread_time()
        self._work = 0.0
        self._callbacks = self._counted = 0
        """In this turn, and in the one before."""
        self._waiting = 0

    def begin_turn(self) -> None:
        """Say that the event loop has looked at its sockets."""
        self._began, self._turned = time.thread_time(), time.monotonic()

    def end_turn(self) -> None:
        """Say that it has served all of them that had something."""
        now = time.monotonic()
        passed, self._ended = now - self._ended, now
        self._work = time.thread_time() - self._began
        self._callbacks, self._counted = 0, self._callbacks
        if self._behind(now) < KEPT_UP:
            self.credit = min(BURST, self.credit + EARNED * passed)
        elif self.credit > 0:  # one turn says nothing: it may have been one large answer
            if self.credit > WORTH_A_GRACE:
                self._spent_at = now
            self.credit = max(0.0, self.credit - min(now - self._turned, LONGEST_TURN))

    def _behind(self, now: float) -> float:
        """By how much work, in seconds, at least; 0 where it is not callbacks that are the work."""
        work = max(self._work, time.thread_time() - self._began)
        if max(self._callbacks, self._counted) * MOST_FOR_ONE < work:
            return 0.0
        if now - self._looked_at > LOOKED_EVERY:
            self._looked_at = now
            self._waiting = max(map(waiting, self.listeners), default=0)
        return max(work, self._waiting * FOR_ONE)

    @property
    def calm(self) -> bool:
        """Whether nothing is to be turned away."""
        return self.credit > 0 and self.shared[0] < time.monotonic()

    def brought(self, more: int) -> None:
        """Say that the request that was asked for last holds so many more callbacks."""
        self._callbacks += more

    def refuses(self, request: bytes) -> bool:
        """Whether this callback, or as much of it as is there, is to be turned away. Asked once for each."""
        self._callbacks += 1
        if self.calm:
            return False
        if SPEECH in request:
            return True
        now = time.monotonic()
        if self.credit > 0 or self._behind(now) < TOO_LATE:
            return False
        self.shared[0] = now + 2 * GRACE  # first the others cease to take speech
        return now - self._spent_at > GRACE


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
