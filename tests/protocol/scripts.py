"""What the scripts in `app/store` do to one shard, as pure functions. `test_conformance.py` holds them to it."""

from __future__ import annotations

from typing import NamedTuple

from app.store.inbox import TOGETHER
from workers.drain import BEGUN_ALONE

MOST = 2
"""Entries claimed at once, at most."""

BROKEN = (
    "append never asks",
    "leave does not look",
    "claim takes no heed of leases",
    "trials are not counted",
    "suspects are read together",
    "commit does not check its token",
    "commit does not check its batch",
    "commit trims later",
    "commit settles no trial",
    "commit keeps the count",
)
"""Ways in which what a script does may be wrong; both the search and the comparison with the real ones must see it."""


class Shard(NamedTuple):
    """What Redis holds of a shard, and what has happened to it."""

    sent: tuple[str, ...] = ()
    """Every entry that was ever stored, by what it tells. Those from `done` on are the inbox."""
    done: int = 0
    woken: bool = False
    lease: int = 0
    """A token; 0: nobody has it."""
    trial: tuple[int, int, int] = (0, 0, 0)
    newest: int = 0
    revision: int = 0
    log: tuple[tuple[str, str], ...] = ()
    """What commits have written: each entry, and what became of it."""
    commits: int = 0
    """How many of them changed the conference: what its revision must be."""
    alone: int = 0
    """How often the oldest entry was begun by itself, whatever the trial says."""


class Batch(NamedTuple):
    """What a worker has claimed."""

    shard: int
    token: int
    first: int
    count: int
    begun: int
    lost: bool = False
    """Whether its lease has come to its end."""
    fates: tuple[str, ...] = ()
    """What is to become of its entries, as the fold has found: new, known or dead."""
    revision: int = 0


def append(shard: Shard, entries: tuple[str, ...], broken: str = "") -> tuple[Shard, bool]:
    """APPEND, and FORWARD. Whether a wake-up is due."""
    due = not shard.woken and broken != "append never asks"
    return shard._replace(sent=shard.sent + entries, woken=True), due


def attend(shard: Shard) -> Shard:
    """ATTEND."""
    return shard._replace(woken=True)


def leave(shard: Shard, broken: str = "") -> tuple[Shard, bool]:
    """LEAVE. Whether there is mail."""
    mail = len(shard.sent) > shard.done
    if mail and broken != "leave does not look":
        return shard, True
    return shard._replace(woken=False), False


def claim(
    shard: Shard, token: int, version: int, *, alone: bool, most: int = MOST, broken: str = ""
) -> tuple[Shard, tuple[int, int] | None]:
    """CLAIM. None: held; else how many entries were read, and how often the first was begun by itself (-1: suspect)."""
    if shard.lease not in (0, token) and broken != "claim takes no heed of leases":
        return shard, None
    if shard.newest > version:
        return shard, None
    left, together, begun = shard.trial
    suspect = together >= TOGETHER
    if suspect != alone:
        return shard, (0, -1 if suspect else 0)
    one = suspect and broken != "suspects are read together"
    count = min(len(shard.sent) - shard.done, 1 if one else left or most)
    if count == 0:
        return shard, (0, 0)
    trial = (left, together, begun + 1) if suspect else (count, together + 1, 0)
    if broken == "trials are not counted":
        trial = shard.trial
    return shard._replace(lease=token, trial=trial, alone=shard.alone + (alone and count == 1)), (count, begun)


def commit(shard: Shard, batch: Batch, broken: str = "") -> tuple[Shard, int | None]:
    """COMMIT. How much mail is left; None: fenced."""
    if shard.lease != batch.token and broken != "commit does not check its token":
        return shard, None
    if (shard.done != batch.first or shard.done == len(shard.sent)) and broken != "commit does not check its batch":
        return shard, None
    told = shard.sent[batch.first : batch.first + batch.count]
    changes = "new" in batch.fates
    soon = shard.alone <= BEGUN_ALONE
    fates = ["dead too soon" if fate == "dead" and soon else fate for fate in batch.fates]
    left, together, begun = shard.trial
    stays = max(shard.done, batch.first + batch.count)
    left -= stays - shard.done
    trial = (left, together, begun if broken == "commit keeps the count" else 0) if left > 0 else (0, 0, 0)
    shard = shard._replace(
        done=shard.done if broken == "commit trims later" else stays,
        lease=0,
        trial=shard.trial if broken == "commit settles no trial" else trial,
        revision=batch.revision if changes else shard.revision,
        log=shard.log + tuple(zip(told, fates, strict=True)),
        commits=shard.commits + changes,
        alone=0,
    )
    return shard, len(shard.sent) - stays
