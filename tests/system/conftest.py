"""A house for each test, torn down whatever happened in it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.house import House, alive, descendants

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # they find the processes to kill in /proc


@pytest.fixture
def open_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Starts an Offhook; whatever is left of it at the end of the test is killed."""
    houses: list[House] = []

    def start(*arguments: str, **environ: str) -> House:
        houses.append(House(tmp_path, *arguments, **environ))
        return houses[-1]

    yield start
    for house in houses:
        left = [*descendants(house.process.pid), house.process.pid]
        for pid in filter(alive, left):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        house.process.wait()
    for house in houses:
        house.logs_are_clean()
