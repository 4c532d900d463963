"""A drain on the real store, and a tally of the wake-ups that it asks for."""

from __future__ import annotations

import pytest

from app.store.inbox import Inbox
from app.store.snapshots import Snapshots
from workers.drain import Drain


@pytest.fixture
def nudges() -> list[str]:
    """One entry for each wake-up that was asked for."""
    return []


@pytest.fixture
def drain(inbox: Inbox, snapshots: Snapshots, nudges: list[str]) -> Drain:
    """A drain that nobody stops."""
    return Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: nudges.append("drain"), stopping=lambda: False)
