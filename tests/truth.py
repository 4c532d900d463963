"""What Twilio's REST API would say of a conference, and how a document of ours is held to it.

A document is the native JSON, as `/api/conferences/{sid}` answers it. Works on an exchange in this process; its REST
double tells the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from app.simulator.exchange import Exchange

STANDING = (
    "label", "muted", "hold", "coaching", "call_sid_to_coach", "start_conference_on_enter", "end_conference_on_exit",
    "status",
)  # fmt: skip
"""What a participant's resource and document both have, under one name, with one meaning, while it is there."""

GONE = ("complete", "failed")


class Truth(NamedTuple):
    """A conference as Twilio's REST API shows it: its resource, and those of who is there or on the way, by call."""

    conference: Mapping[str, Any]
    participants: Mapping[str, Mapping[str, Any]]


def truth(exchange: Exchange, sid: str) -> Truth:
    """What is so now. Raises `Refusal` for a conference that the exchange does not know."""
    listed = exchange.list_participants(sid, {})
    return Truth(exchange.fetch_conference(sid), {call: each for call, each in listed if each is not None})


def untrue(document: Mapping[str, Any], now: Truth) -> Iterator[str]:
    """Each thing in which a document contradicts, or does not know, what Twilio shows.

    Region and name may be unknown: callbacks do not tell the one, and nobody need have looked.
    """
    if document["status"] != now.conference["status"]:
        yield f"status is {document['status']}, not {now.conference['status']}"
    for name in ("region", "friendly_name"):
        if document[name] not in (None, now.conference[name]):
            yield f"{name} is {document[name]}, not {now.conference[name]}"
    here = {each["call_sid"]: each for each in document["participants"] if _is_here(each)}
    for call in sorted(here.keys() | now.participants.keys()):
        if call not in now.participants:
            yield f"{call} is still {here[call]['status']}"
        elif call not in here:
            yield f"{call} is not there"
        else:
            for name in STANDING:
                if here[call][name] != now.participants[call][name]:
                    yield f"{name} of {call} is {here[call][name]}, not {now.participants[call][name]}"
    present = sum(each["status"] == "connected" for each in now.participants.values())
    if document["counts"]["present"] != present:
        yield f"{document['counts']['present']} are counted as present, not {present}"


def _is_here(participant: Mapping[str, Any]) -> bool:
    """Whether it is, by its document, in the conference or on the way there."""
    stays = participant["stays"]
    return participant["status"] not in GONE or bool(stays and stays[-1]["left_at"] is None)
