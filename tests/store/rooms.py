"""Conferences written straight into the store, by the commits that a drain would make of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from msgspec.structs import replace

from app.conference import Conference, Counts, Header, Participant
from app.events import Status
from app.store.commits import Change, Commit
from app.store.inbox import Batch, Inbox
from app.store.snapshots import Snapshots
from tests.cast import ACCOUNT, callback, said
from tests.claims import claim, committed


def room(
    number: int,
    created_at: datetime | None,
    *,
    status: Status = "in-progress",
    name: str | None = "Stand-up",
    account: str = ACCOUNT,
    people: Mapping[str, str | None] | None = None,
) -> Conference:
    """A conference of that number, with the labels of its people by call sid."""
    participants = {call: Participant(call_sid=call, label=label) for call, label in (people or {}).items()}
    header = Header(
        sid=f"CF{number:032x}",
        account_sid=account,
        friendly_name=name,
        status=status,
        created_at=created_at,
        counts=Counts(participants=len(participants)),
    )
    return Conference(header, participants)


def changed(before: Conference | None, after: Conference, message: bytes = b"{}") -> Change:
    """The change from one to the other, with the revision that follows."""
    revision = before.header.revision + 1 if before else 1
    return Change(
        before=before,
        anew=before is None,
        after=Conference(replace(after.header, revision=revision), after.participants),
        changed=[
            person
            for person in after.in_order()
            if before is None or before.participants.get(person.call_sid) != person
        ],
        news=[],
        message=message,
    )


def claimed(inbox: Inbox, shard: int, most: int = 500) -> Batch:
    """The lease and the oldest entries of a shard that has mail and is free."""
    batch = claim(inbox, shard, most)
    assert batch is not None
    return batch


def write(inbox: Inbox, snapshots: Snapshots, *conferences: Conference) -> None:
    """Make the store hold these, whatever it has held of them."""
    by_shard: defaultdict[int, list[Conference]] = defaultdict(list)
    for conference in conferences:
        by_shard[inbox.shard_of(conference.header.sid)].append(conference)
    for shard, ours in by_shard.items():
        for start in range(0, len(ours), 500):
            some = ours[start : start + 500]
            kept = snapshots.load({conference.header.sid: None for conference in some})
            before = {sid: each.conference for sid, each in kept.items()}
            inbox.append(shard, callback(said("conference-start", number=1, second=0)))
            work = Commit(changes=[changed(before.get(each.header.sid), each) for each in some])
            committed(snapshots, claimed(inbox, shard), 1, work)
