"""Whatever is killed, stopped or away, and when: nothing acknowledged is lost, and nothing counts twice.

These are the shortest runs of the fault lab, without its limits of time: `make chaos` is the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos import crashes, faults, serving
from tests.chaos.lab import Lab


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab that is closed whatever happens in it."""
    lab = Lab(request.node.name, 20261122, tmp_path, "test")
    yield lab
    lab.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "scenario",
    [
        crashes.kills,
        crashes.pauses,
        crashes.takeover,
        crashes.wakes,
        crashes.restarts,
        serving.graceful,
        faults.errors,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_what_is_promised_is_kept_whatever_happens(lab: Lab, scenario: Callable[[Lab], None]):
    scenario(lab)
    broken = [finding for finding in lab.findings if not finding.kept and not finding.timed]
    assert lab.findings
    assert not broken
