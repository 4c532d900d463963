"""Failpoints: armed by words alone, they strike where, at what and as often as they were told."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import failpoints
from app.failpoints import NAMES, Injected, arm, parse, reach

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm([])


def test_unless_armed_nothing_happens() -> None:
    for name in NAMES:
        reach(name, b"anything")
    assert parse("") == []


def test_it_strikes_at_what_it_was_told_and_only_so_often() -> None:
    arm(parse("before_fold~CF07=raise*2,after_commit=stall:0.01"))
    reach("before_fold", b"about CF08")
    reach("before_commit", b"about CF07")
    for _ in range(2):
        with pytest.raises(Injected, match="before_fold"):
            reach("before_fold", b"about CF07")
    reach("before_fold", b"about CF07")
    began = time.monotonic()
    reach("after_commit")
    assert time.monotonic() - began >= 0.01


@pytest.mark.parametrize("words", ["somewhere=kill", "before_fold", "before_fold=die", "before_fold=stall", "=kill"])
def test_words_that_mean_nothing_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"names are before_append, "):
        parse(words)


def test_a_kill_is_a_kill() -> None:
    program = "from app.failpoints import arm, parse, reach; arm(parse('after_claim=kill')); reach('after_claim')"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == -signal.SIGKILL


def test_every_name_is_a_place_in_the_code() -> None:
    code = "".join(path.read_text() for folder in ("app", "workers") for path in (ROOT / folder).rglob("*.py"))
    assert set(re.findall(r'failpoints\.reach\("(\w+)"', code)) == set(NAMES)
    assert not failpoints.armed
