"""Made-up histories of conferences, as the stream tells them, for tests of its clients."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.cast import ACCOUNT
from tests.clients.server import Frame

ROOMS = ["CF" + digit * 32 for digit in "123"]
CALLS = ["CA" + digit * 32 for digit in "1234"]
TIMES = ["2026-11-22T12:00:00Z", "2026-11-22T12:00:00.500000Z", "2026-11-22T12:00:01Z", None]
EPOCH = "first life"


def person(call: str, created_at: str | None = TIMES[0], **more: Any) -> dict[str, Any]:
    """A participant, with fewer fields than real ones have."""
    return {"call_sid": call, "label": "anna", "created_at": created_at, "muted": False} | more


def room(sid: str, revision: int, *people: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A document."""
    return {
        "sid": sid,
        "account_sid": ACCOUNT,
        "friendly_name": "Stand-up",
        "status": "in-progress",
        "counts": {"participants": len(people)},
        "revision": revision,
        "participants": list(people),
    } | more


def message(document: dict[str, Any], *changed: dict[str, Any], epoch: str = EPOCH) -> dict[str, Any]:
    """What tells that a conference has become this document, since these participants have changed."""
    kind = "conference-end" if document["status"] == "completed" else "participant-mute"
    call = changed[0]["call_sid"] if changed else None
    return {
        "conference_sid": document["sid"],
        "account_sid": ACCOUNT,
        "epoch": epoch,
        "revision": document["revision"],
        "events": [{"type": kind, "sequence": document["revision"], "at": TIMES[0], "call_sid": call}],
        "conference": {name: value for name, value in document.items() if name != "participants"},
        "participants": list(changed),
    }


def snapshot(*documents: dict[str, Any], id: str = "s") -> Frame:
    """The frame that shows these."""
    return Frame("snapshot", {"conferences": list(documents), "more": False, "at": TIMES[0]}, id)


def change(document: dict[str, Any], *changed: dict[str, Any], id: str = "c", epoch: str = EPOCH) -> Frame:
    """The frame that tells it."""
    return Frame("change", message(document, *changed, epoch=epoch), id)


def beat(behind: float | None = 0.0, *, at: str = TIMES[0] or "", id: str = "b") -> Frame:
    """The frame that says how late the news are."""
    return Frame("beat", {"at": at, "behind": behind}, id)


def reset(reason: str = "gone") -> Frame:
    """The frame that a snapshot follows."""
    return Frame("reset", {"reason": reason}, "")


class History(NamedTuple):
    """What has happened."""

    changes: list[Frame]
    states: list[dict[str, dict[str, Any]]]
    """All documents by sid: before everything, and after each change."""

    def live(self, position: int) -> list[dict[str, Any]]:
        """The documents that a snapshot shows after so many changes."""
        return [each for each in self.states[position].values() if each["status"] != "completed"]

    def snapshot(self, position: int) -> Frame:
        """The frame."""
        return snapshot(*self.live(position), id=f"s{position}")


@st.composite
def histories(draw: st.DrawFn) -> History:
    """A few conferences in which people come, are muted and not, and some end; late news of those as well."""
    state: dict[str, dict[str, Any]] = {}
    states, changes = [{}], []
    happenings = st.tuples(st.sampled_from(ROOMS), st.sampled_from(CALLS), st.booleans(), st.integers(0, 5))
    for number, (sid, call, muted, ends) in enumerate(draw(st.lists(happenings, min_size=1, max_size=25)), start=1):
        known = state.get(sid) or room(sid, 0)
        people = {each["call_sid"]: each for each in known["participants"]}
        created_at = people[call]["created_at"] if call in people else draw(st.sampled_from(TIMES))
        people[call] = person(call, created_at, muted=muted)
        ordered = sorted(people.values(), key=lambda each: (TIMES.index(each["created_at"]), each["call_sid"]))
        status = "completed" if ends == 0 else known["status"]
        state[sid] = room(sid, known["revision"] + 1, *ordered, status=status)
        changes.append(change(state[sid], people[call], id=f"c{number}"))
        states.append(deepcopy(state))
    return History(changes, states)
