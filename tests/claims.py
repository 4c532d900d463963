"""Leasing and committing one shard at a time, where a test is about one."""

from __future__ import annotations

from app.store.commits import Commit
from app.store.inbox import Batch, Inbox
from app.store.snapshots import Snapshots


class Fenced(Exception):
    """Nothing was written."""


def claim(inbox: Inbox, shard: int, most: int = 500) -> Batch | None:
    """Lease a shard. None: another has it, or it has no mail."""
    batches = inbox.claim([shard], most, version=1).batches
    return batches[0] if batches else None


def committed(snapshots: Snapshots, batch: Batch, fold_version: int, work: Commit) -> int:
    """Commit one batch. How many entries its shard has left. Raises `Fenced`."""
    [left] = snapshots.commit([(batch, work)], fold_version)
    if left is None:
        raise Fenced
    return left
