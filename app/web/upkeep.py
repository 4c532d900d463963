"""What a web process does beside answering: it sends what is spooled, writes down what it has refused, and says that it
is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from redis import RedisError

from app.store.attendance import LONGEST_GAP, Attendance
from app.store.connect import WrongLayout
from app.web.intake import Intake
from app.web.refusals import Refusals

EVERY = 0.5
"""Seconds."""
SAID_EVERY = 1.0
"""Seconds between two times that it says so."""

log = structlog.get_logger("offhook.web")


def _running() -> float:
    """Seconds since the machine was started. No setting of its clock changes that."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Upkeep:
    """Looks after one web process once in a while, in a thread of its own."""

    def __init__(
        self,
        intake: Intake,
        refusals: Refusals,
        attendance: Attendance,
        timer: Callable[[], float] = _running,
    ) -> None:
        """`timer` gives seconds since anything, also those in which the machine slept."""
        self.intake = intake
        self.refusals = refusals
        self.attendance = attendance
        self.timer = timer
        self.said_at: float | None = None
        self.rested_at: float | None = None
        """When there was nothing more to do, the last time."""
        self.taken_since = 0.0
        """Since when callbacks are taken here without a break, whether or not Redis could be told."""

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set. Redis being away is waited for."""
        while not stop.wait(EVERY):
            self.look()

    def look(self) -> None:
        """Look once."""
        now = self.timer()
        if self.rested_at is None or now - self.rested_at > LONGEST_GAP / 1000:  # just begun, or it was stopped
            self.taken_since = now
        try:
            self.intake.empty_spool()
            self.refusals.write()
            self.attend()
        except Exception:  # without it callbacks would stay where nobody reads them
            log.exception("upkeep failed")
        self.rested_at = self.timer()

    def attend(self) -> None:
        """Say that callbacks are taken, and since when some were lost. Redis being away is told by who comes next."""
        now = self.timer()
        if self.said_at is not None and now - self.said_at < SAID_EVERY:
            return
        lost_since = self.refusals.take_lost()
        lost_for = None if lost_since is None else int((time.monotonic() - lost_since) * 1000)
        try:
            self.intake.prepare()
            self.attendance.beat(int((now - self.taken_since) * 1000), lost_for)
        except (RedisError, WrongLayout):
            self.refusals.lost_since = lost_since or self.refusals.lost_since
        else:
            self.said_at = now
