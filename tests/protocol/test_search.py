"""Whoever dies, pauses or is overtaken, and wherever: every state that the protocol can come to, and how each goes on.

OFFHOOK_SEARCH_FAULTS=1 allows one fault more in each setting, which takes minutes; `pytest -s` says what was searched.
"""

from __future__ import annotations

import os
import time
from functools import cache

import pytest

from app.store.inbox import TOGETHER
from tests.protocol import scripts
from tests.protocol.model import Setting
from tests.protocol.search import Found, search
from workers.drain import BEGUN_ALONE

MORE = int(os.environ.get("OFFHOOK_SEARCH_FAULTS", "0"))

POISON = frozenset({"poison"})


def sent(*loads: str | tuple[int, str]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """What one web process is sent: words that come together, and of which shard, if not of the first."""
    pairs = (load if isinstance(load, tuple) else (0, load) for load in loads)
    return tuple((home, tuple(words.split())) for home, words in pairs)


SETTINGS = {
    "nothing fails, and nobody sweeps": Setting((sent("a", "b"), sent("c", "d")), losses=False, sweeps=False),
    "wake-ups are lost": Setting((sent("a"), sent("b"))),
    "wake-ups and a batch are lost": Setting((sent("a", "b"),), faults=1),
    "a batch is lost more often than a callback is begun": Setting(
        (sent("a b"),), faults=TOGETHER + BEGUN_ALONE + 1, losses=False
    ),
    "poison among others": Setting((sent("a poison"), sent("b")), poison=POISON, faults=1, losses=False),
    "poison on another shard": Setting(
        (sent("poison", (1, "a")),), shards=2, poison=POISON, faults=1, versions=(1,), losses=False
    ),
    "entries for another shard": Setting((sent("a"),), shards=2, forwards={"a": (1, "a too")}, faults=1, losses=False),
    "messages come twice": Setting((sent("a b", "c"),), faults=2, losses=False, copies=True),
    "an older worker beside a newer": Setting((sent("a", "b"),), versions=(1, 2), faults=1, losses=False),
}
ENOUGH = 100_000
"""States, of all settings."""


@cache
def searched(name: str) -> Found:
    setting = SETTINGS[name]
    began = time.process_time()
    found = search(setting._replace(faults=setting.faults + (MORE if setting.sweeps else 0)))
    print(f"{name}: {found.states:,} states in {time.process_time() - began:.1f} s, {', '.join(sorted(found.fates))}")
    return found


@pytest.mark.timeout(3600 if MORE else 600)
@pytest.mark.parametrize("name", SETTINGS)
def test_nothing_is_lost_nothing_is_stale_and_all_mail_is_seen_to(name: str) -> None:
    found = searched(name)
    assert not found.wrong, "\n".join([found.wrong, *found.trace])


def test_that_was_a_search() -> None:
    assert sum(searched(name).states for name in SETTINGS) >= ENOUGH


def test_it_came_to_where_callbacks_are_set_aside_and_to_where_they_are_known_already() -> None:
    assert searched("a batch is lost more often than a callback is begun").fates == {"new", "dead"}
    assert searched("poison among others").fates == {"new", "dead"}
    assert searched("wake-ups and a batch are lost").fates == {"new", "known"}
    assert searched("nothing fails, and nobody sweeps").fates == {"new"}


@pytest.mark.parametrize(("faults", "fates"), [(-1, {"new"}), (0, {"new", "dead"})], ids=["one less", "as many"])
def test_a_callback_is_set_aside_once_it_was_begun_as_often_as_promised_and_not_before(
    faults: int, fates: set[str]
) -> None:
    found = search(Setting((sent("a b"),), faults=TOGETHER + BEGUN_ALONE + faults, losses=False))
    assert (found.wrong, found.fates) == ("", fates)


CALM, LOST = "nothing fails, and nobody sweeps", "wake-ups and a batch are lost"
MUCH = Setting((sent("a b c d e f g h"),), versions=(1,), losses=False)
POISONED = Setting((sent("a poison"),), poison=POISON, losses=False)

BROKEN = [
    ("append never asks", SETTINGS[CALM], "mail is left"),
    ("leave does not look", SETTINGS[CALM], "mail is left"),
    ("nobody sweeps", SETTINGS[LOST]._replace(sweeps=False), "mail is left"),
    ("acknowledged before it is stored", SETTINGS[LOST], "acknowledged"),
    ("claim takes no heed of leases", SETTINGS[CALM], "one worker"),
    ("commit does not check its token", SETTINGS[LOST], "one worker"),
    ("commit does not check its batch", SETTINGS["messages come twice"], "once"),
    ("commit trims later", SETTINGS[CALM], "once"),
    ("commit settles no trial", MUCH, "often enough"),
    ("commit keeps the count", POISONED, "often enough"),
    ("trials are not counted", POISONED, "goes on for ever"),
    ("suspects are read together", POISONED, "often enough"),
    ("forwarded after the commit", SETTINGS["entries for another shard"], "another shard"),
]


@pytest.mark.parametrize(("broken", "setting", "said"), BROKEN, ids=[broken for broken, _, _ in BROKEN])
def test_a_broken_protocol_is_found_out(broken: str, setting: Setting, said: str) -> None:
    found = search(setting._replace(broken=broken))
    assert said in found.wrong
    assert found.trace


def test_no_way_to_break_a_script_is_left_out() -> None:
    assert set(scripts.BROKEN) <= {broken for broken, _, _ in BROKEN}
