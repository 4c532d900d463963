"""Whatever is killed, stopped or away, and when: nothing acknowledged is lost, and nothing counts twice.

These are the shortest runs of the fault lab, without its limits of time: `make chaos` is the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos import crashes, failures, faults, serving
from tests.chaos.lab import Lab

SCENARIOS = [
    crashes.kills,
    crashes.pauses,
    crashes.wakes,
    crashes.restarts,
    serving.graceful,
    faults.errors,
    failures.spool,
    failures.at_failpoints,
]


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[Callable[[str], Lab]]:
    """Opens a lab; it is closed whatever happens in it."""
    labs: list[Lab] = []

    def opened(name: str) -> Lab:
        labs.append(Lab(name, 20261122, tmp_path, "test"))
        return labs[-1]

    yield opened
    for lab in labs:
        lab.close()
        for house in lab.houses:
            house.logs_are_clean()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_what_is_promised_is_kept_whatever_happens(open_lab, scenario):
    lab = open_lab(scenario.__name__)
    scenario(lab)
    broken = [finding for finding in lab.findings if not finding.kept and not finding.timed]
    assert lab.findings
    assert not broken
