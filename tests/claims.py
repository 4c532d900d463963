"""Leasing one shard at a time, where a test is about one."""

from __future__ import annotations

from app.store.inbox import Batch, Inbox


def claim(inbox: Inbox, shard: int, most: int = 500) -> Batch | None:
    """Lease a shard. None: another has it, or it has no mail."""
    batches, _ = inbox.claim([shard], most)
    return batches[0] if batches else None
