"""Ends a worker whose drain has got stuck: another can only take over what it holds from a process that is dead."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Sequence

from workers.drain import Drain

STUCK_AFTER = 15.0
"""Seconds that a drain may be at one conference, or one long answer of Redis, before its process is ended."""
EVERY = 1.0
"""Seconds between two looks. A drain that has not got on for longer than this is not vouched for."""


def watch(drains: Sequence[Drain], stop: threading.Event) -> None:
    """Look at these until `stop` is set.

    What ends the process is not this thread but a timer outside of Python, put off here as long as all is well. So it
    also ends one that is stuck in C and lets no other thread run. It says where on stderr: lines of code, no values.
    """
    while not stop.is_set():
        now = time.monotonic()
        if all((since := drain.at_work) is None or now - since < 2 * EVERY for drain in drains):
            faulthandler.dump_traceback_later(STUCK_AFTER, exit=True)
        stop.wait(EVERY)
    faulthandler.cancel_dump_traceback_later()
