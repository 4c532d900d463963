"""Does things later, one after the other, in a thread of its own."""

import sched
import threading
import time
from collections.abc import Callable


class Agenda:
    """What is to be done, and when. The thread ends with `close`; what is not yet due then is never done."""

    def __init__(self) -> None:
        self._scheduler = sched.scheduler(time.monotonic)
        self._changed = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="agenda", daemon=True)
        self._thread.start()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Have this done in so many seconds. May be called from any thread."""
        self._scheduler.enter(seconds, 0, what)
        self._changed.set()

    def _run(self) -> None:
        while not self._closed:
            pause = self._scheduler.run(blocking=False)
            self._changed.wait(pause)
            self._changed.clear()

    def close(self) -> None:
        """Forget the rest and end the thread."""
        self._closed = True
        self._changed.set()
        self._thread.join()
