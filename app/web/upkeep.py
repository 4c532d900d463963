"""What a web process does beside answering: it sends what is spooled, writes down what it has refused, and says that it
is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from redis import RedisError

from app.store.attendance import Attendance
from app.store.connect import WrongLayout
from app.web.intake import Intake
from app.web.refusals import Refusals

EVERY = 0.5
"""Seconds."""
SAID_EVERY = 1.0
"""Seconds between two times that it says so."""

log = structlog.get_logger("offhook.web")


class Upkeep:
    """Looks after one web process once in a while, in a thread of its own."""

    def __init__(
        self,
        intake: Intake,
        refusals: Refusals,
        attendance: Attendance,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives seconds since 1970."""
        self.intake = intake
        self.refusals = refusals
        self.attendance = attendance
        self.clock = clock
        self.said_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set. Redis being away is waited for."""
        while not stop.wait(EVERY):
            self.look()

    def look(self) -> None:
        """Look once."""
        try:
            self.intake.empty_spool()
            self.refusals.write()
            self.attend()
        except Exception:  # without it callbacks would stay where nobody reads them
            log.exception("upkeep failed")

    def attend(self) -> None:
        """Say that callbacks are taken, and since when some were lost. Redis being away is told by who comes next."""
        now = self.clock()
        if abs(now - self.said_at) < SAID_EVERY:
            return
        lost_since = self.refusals.take_lost()
        try:
            self.intake.prepare()
            self.attendance.beat(int(now * 1000), lost_since)
        except (RedisError, WrongLayout):
            self.refusals.lost_since = lost_since or self.refusals.lost_since
        else:
            self.said_at = now
