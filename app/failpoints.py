"""Named places in which a process can be made to die, fail or stand still, to show that nothing is lost there.

Nothing arms them but OFFHOOK_FAILPOINTS, such as `after_append=kill,before_fold~CF00=raise*3`: where, perhaps a text
that must be in what it is about, what happens, perhaps how often at most.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import structlog

NAMES = (
    "before_append",
    "after_append",
    "before_spool",
    "after_spool",
    "after_claim",
    "before_read",
    "before_fold",
    "before_forward",
    "before_commit",
    "after_commit",
)
"""Where, in the order in which a callback comes by."""

FORM = re.compile(
    r"(?P<name>[a-z_]+)(~(?P<text>[^=,]+))?=(?P<act>kill|raise|stall)(:(?P<seconds>\d+(\.\d+)?))?(\*(?P<times>\d+))?"
)


log = structlog.get_logger("offhook.failpoints")


class Injected(Exception):
    """What a failpoint raises."""


@dataclass
class Failpoint:
    """What is to happen where."""

    name: str
    act: Literal["kill", "raise", "stall"]
    text: bytes = b""
    seconds: float = 0.0
    times: int = -1
    """How often it still strikes; below zero: always."""


armed: list[Failpoint] = []
"""Those of this process. Where one would be reached often, look first whether there are any."""


def parse(words: str) -> list[Failpoint]:
    """What OFFHOOK_FAILPOINTS asks for. Raises ValueError; its message holds no value."""
    return [_parsed(word) for word in words.split(",") if word]


def _parsed(word: str) -> Failpoint:
    found = FORM.fullmatch(word)
    if found is None or found["name"] not in NAMES or (found["act"] == "stall") != bool(found["seconds"]):
        raise ValueError(f"name[~text]=kill, =raise or =stall:SECONDS, perhaps *TIMES; names are {', '.join(NAMES)}")
    return Failpoint(
        name=found["name"],
        act=found["act"],  # type: ignore[arg-type]  # the pattern allows no other
        text=(found["text"] or "").encode(),
        seconds=float(found["seconds"] or 0),
        times=int(found["times"] or -1),
    )


def arm(failpoints: Iterable[Failpoint]) -> None:
    """Have these strike in this process from now on, and no others."""
    armed[:] = failpoints
    if armed:
        log.warning("faults are injected", at=[each.name for each in armed])


def reach(name: str, about: bytes = b"") -> None:
    """Say that the process has come here, and what it is at. Raises `Injected` where that was asked for."""
    for failpoint in armed:
        if failpoint.name == name and failpoint.times and failpoint.text in about:
            failpoint.times -= 1
            _strike(failpoint)


def _strike(failpoint: Failpoint) -> None:
    os.write(2, f"failpoint {failpoint.name}: {failpoint.act}\n".encode())  # a killed process can say nothing later
    if failpoint.act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if failpoint.act == "stall":
        time.sleep(failpoint.seconds)
    else:
        raise Injected(f"at {failpoint.name}")
