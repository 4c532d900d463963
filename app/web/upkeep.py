"""What a web process does beside answering: it sends what is spooled, and writes down what it has refused."""

from __future__ import annotations

import threading

import structlog

from app.web.intake import Intake
from app.web.refusals import Refusals

EVERY = 0.5
"""Seconds."""

log = structlog.get_logger("offhook.web")


class Upkeep:
    """Looks after one web process once in a while, in a thread of its own."""

    def __init__(self, intake: Intake, refusals: Refusals) -> None:
        self.intake = intake
        self.refusals = refusals

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set. Redis being away is waited for."""
        while not stop.wait(EVERY):
            self.look()

    def look(self) -> None:
        """Look once."""
        try:
            self.intake.empty_spool()
            self.refusals.write()
        except Exception:  # without it callbacks would stay where nobody reads them
            log.exception("upkeep failed")
