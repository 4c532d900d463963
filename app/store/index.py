"""Where to find conferences: one sorted set a shard, read in lexical order.

An entry is a digest of what is asked for, then the time the conference was created, then its sid. All entries for one
question stand together, oldest first, so a page is one range from a cursor and costs the same among a hundred thousand
conferences as among a thousand. Names and labels are only in it as digests.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

from app.conference import Header, Participant
from app.events import Status

LIVE: tuple[Status, ...] = ("init", "in-progress")
"""Statuses that have entries of their own, besides those that every conference has for any status."""
ANY = ""
EVERYONE = "*"
"""Stands for an account where the question is about all of them."""

DIGEST, TIME = 10, 5
LATEST: int = 256**TIME - 1

Created = tuple[int | None, int | None]
"""First and last second since 1970 in which a conference may have been created; None: no limit."""


class Place(NamedTuple):
    """Where a conference stands in every list: by when it was created, then by sid. Lists go from the newest down."""

    created: int
    """Seconds since 1970; 0 where no callback told a time."""
    sid: str


def entries_of(header: Header, participants: Iterable[Participant]) -> set[bytes]:
    """All that the index holds about a conference because of its header and these participants."""
    questions = [(header.account_sid, "", ""), (EVERYONE, "", "")]
    if header.friendly_name:
        questions += [
            (header.account_sid, "name", header.friendly_name),
            (EVERYONE, "name", header.friendly_name),
        ]
    for participant in participants:
        questions.append((EVERYONE, "call", participant.call_sid))
        if participant.label:
            questions.append((EVERYONE, "label", participant.label))
    statuses = (ANY, header.status) if header.status in LIVE else (ANY,)
    tail = _tail(place_of(header))
    return {_question(account, status, kind, value) + tail for account, kind, value in questions for status in statuses}


def same_place(before: Header, after: Header) -> bool:
    """Whether a change of header leaves the entries of its participants as they are."""
    return (before.status, before.created_at) == (after.status, after.created_at)


def bounds(
    account: str,
    status: str,
    kind: str,
    value: str,
    *,
    older_than: Place | None = None,
    newer_than: Place | None = None,
    created: Created = (None, None),
) -> tuple[bytes, bytes]:
    """The lower and the upper bound, for ZRANGE BYLEX, of the answers to a question in a part of the list.

    `status` is one of `LIVE`, or `ANY`. `kind` is "" for any conference, or "name", "call" or "label" with its `value`.
    """
    question = _question(account, status, kind, value)
    first, last = created
    lowest = [b"[" + question + _time(first or 0)]
    highest = [b"(" + question + (b"\xff" * (TIME + 1) if last is None else _time(last + 1))]
    if newer_than is not None:
        lowest.append(b"(" + question + _tail(newer_than))
    if older_than is not None:
        highest.append(b"(" + question + _tail(older_than))
    return max(lowest, key=_word), min(highest, key=_word)


def _word(bound: bytes) -> bytes:
    return bound[1:]


def place_of(header: Header) -> Place:
    """Where a conference stands by its document."""
    return place(header.sid, header.created_at)


def place(sid: str, created: datetime | None) -> Place:
    """Where something with this sid, created then, stands in a list."""
    return Place(0 if created is None else max(0, int(created.timestamp())), sid)


def place_in(entry: bytes) -> Place:
    """The place that an entry of the index speaks of."""
    return Place(int.from_bytes(entry[DIGEST : DIGEST + TIME], "big"), entry[DIGEST + TIME :].decode())


def _question(account: str, status: str, kind: str, value: str) -> bytes:
    return blake2b("\0".join((account, status, kind, value)).encode(), digest_size=DIGEST).digest()


def _tail(place: Place) -> bytes:
    return _time(place.created) + place.sid.encode()


def _time(seconds: int) -> bytes:
    return max(0, min(seconds, LATEST)).to_bytes(TIME, "big")
