"""Delivers callbacks from a few threads, sends each once more that got no answer, and counts how they fared."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from uuid import uuid4

from app.simulator.sender import Sender

SENDING_THREADS = 8

CROWD = 64
"""So many callbacks may wait for a thread before `crowded`."""

PATIENCE = 0.5
"""Seconds that requests under way are given at the end."""


@dataclass(frozen=True, slots=True)
class Report:
    """How the callbacks fared so far: answered 2xx, answered anything else, not answered at all."""

    accepted: int = 0
    refused: int = 0
    unanswered: int = 0

    @property
    def sent(self) -> int:
        """Callbacks whose fate is known; one that was sent twice counts once."""
        return self.accepted + self.refused + self.unanswered


class Post:
    """Threads that send. A callback that gets no answer is sent once more with the same idempotency token, as
    Twilio does when it cannot connect, and is then given up.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._waiting: SimpleQueue[tuple[str | None, Mapping[str, str]] | None] = SimpleQueue()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._accepted = self._refused = self._unanswered = 0
        self._threads = [
            threading.Thread(target=self._deliver, name=f"sending-{number}", daemon=True)
            for number in range(SENDING_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, url: str | None, parameters: Mapping[str, str]) -> None:
        """Have this delivered to `url`, or to the sender's own when None. Returns at once."""
        self._waiting.put((url, parameters))

    @property
    def crowded(self) -> bool:
        """Whether more should wait until those that have been put are on their way."""
        return self._waiting.qsize() >= CROWD

    def report(self) -> Report:
        """The counts so far."""
        with self._lock:
            return Report(self._accepted, self._refused, self._unanswered)

    def clear(self) -> None:
        """Forget what no thread has taken yet."""
        try:
            while True:
                self._waiting.get_nowait()
        except Empty:
            return

    def close(self) -> None:
        """Give what has been put half a second. Later answers are not waited for and not counted."""
        for _ in self._threads:
            self._waiting.put(None)
        until = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._closed.set()

    def _deliver(self) -> None:
        while (letter := self._waiting.get()) is not None and not self._closed.is_set():
            url, parameters = letter
            token = str(uuid4())
            status = self._sender.send(parameters, url=url, idempotency_token=token)
            if status == 0 and not self._closed.is_set():
                status = self._sender.send(parameters, url=url, idempotency_token=token)
            self._count(status)

    def _count(self, status: int) -> None:
        with self._lock:
            if status == 0:
                self._unanswered += 1
            elif 200 <= status < 300:
                self._accepted += 1
            else:
                self._refused += 1
