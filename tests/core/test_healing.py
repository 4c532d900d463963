"""When Twilio's REST API is to be looked at: with a reason, once for each, and ever more seldom where it is in vain."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.conference import Counts, Coverage, Header, Want
from app.events import Action
from app.healing import EMPTY, GRACE, SILENCE, wanted
from tests.cast import ACCOUNT, ROOM, at


def header(
    *, heard: float, asked: float | None = None, present: int = 2, status: str = "in-progress", **coverage: object
) -> Header:
    known = Coverage(from_start=True, **coverage)
    return Header(
        sid=ROOM,
        account_sid=ACCOUNT,
        status=status,
        counts=Counts(participants=2, present=present),
        coverage=known,
        heard_at=at(heard),
        asked_at=None if asked is None else at(asked),
    )


def want(after: Header, now: datetime, before: Header | None = None) -> tuple[str, datetime] | None:
    found = wanted(before, after, now)
    return None if found is None else (found.reason, found.due_at)


def test_a_conference_that_is_heard_of_wants_nothing_before_it_falls_silent() -> None:
    assert want(header(heard=0), at(0)) == ("silent", at(0) + SILENCE)
    assert want(header(heard=60), at(60)) == ("silent", at(60) + SILENCE)


def test_one_that_has_ended_wants_nothing_whatever_is_missing() -> None:
    assert want(header(heard=0, status="completed", holes=((4, 4),), missing=1), at(0)) is None


def test_a_hole_has_its_grace_from_when_it_was_first_seen() -> None:
    first = header(heard=0, holes=((4, 4),), missing=1)
    first = replace(first, want=wanted(None, first, at(0)))
    assert first.want is not None
    assert (first.want.reason, first.want.due_at) == ("hole", at(0) + GRACE)
    later = header(heard=3, holes=((4, 4), (9, 9)), missing=2)
    assert want(later, at(3), first) == ("hole", at(0) + GRACE), "traffic must not put it off for ever"


def test_a_hole_that_is_filled_wants_nothing_any_more() -> None:
    first = header(heard=0, holes=((4, 4),), missing=1)
    first = replace(first, want=wanted(None, first, at(0)))
    assert want(header(heard=2), at(2), first) == ("silent", at(2) + SILENCE)


def test_a_look_answers_all_holes_below_what_it_had_heard_of() -> None:
    seen = {"snapshots": 1, "snapshot_at": at(6), "snapshot_sequence": 9}
    looked = header(heard=5, asked=6, holes=((4, 4),), missing=1, **seen)
    assert want(looked, at(6)) == ("silent", at(6) + SILENCE)
    another = header(heard=8, asked=6, holes=((4, 4), (11, 11)), missing=2, **seen)
    assert want(another, at(8), looked) == ("hole", at(8) + 2 * GRACE)
    again = replace(another, want=wanted(looked, another, at(8)))
    assert want(header(heard=9, asked=9, holes=((4, 4), (11, 11)), missing=2, **seen), at(9), again) == (
        *("hole", at(9) + 2 * GRACE),
    ), "an episode that is over gives no other its time"


def test_a_look_that_was_doubted_is_had_again() -> None:
    seen = {"snapshots": 1, "snapshot_at": at(6), "snapshot_sequence": 9, "doubted": True}
    assert want(header(heard=5, asked=6, **seen), at(6)) == ("doubted", at(6) + 2 * GRACE)


def test_first_seen_midway_is_a_reason_of_its_own() -> None:
    midway = replace(header(heard=0), coverage=Coverage(from_start=False, holes=((1, 7),), missing=7))
    assert want(midway, at(0)) == ("midway", at(0) + GRACE)


def test_each_look_makes_holes_wait_longer_above_all_one_that_showed_nothing_new_but_not_for_ever() -> None:
    def grace(fruitless: int, fruitful: int = 0) -> timedelta:
        seen = {"snapshots": fruitful + fruitless, "snapshot_at": at(6), "snapshot_sequence": 3, "fruitless": fruitless}
        found = wanted(None, header(heard=8, asked=6, holes=((5, 5),), missing=1, **seen), at(8))
        assert found is not None
        assert found.reason == "hole"
        return found.due_at - at(8)

    assert [grace(n).total_seconds() for n in (0, 1, 2, 3)] == [5, 20, 80, 320]
    assert [grace(0, n).total_seconds() for n in (0, 1, 2, 3)] == [5, 10, 20, 40]
    assert grace(50) == grace(0, 50) == SILENCE


def test_an_end_that_does_not_come_once_everyone_has_left_is_asked_for_once() -> None:
    assert want(header(heard=0, present=0), at(0)) == ("empty", at(0) + EMPTY)
    assert want(header(heard=0, present=0, asked=60), at(60)) == ("silent", at(60) + SILENCE)


def test_silence_is_asked_about_a_handful_of_times_in_a_day() -> None:
    now, asked, looks = at(0), None, 0
    while now < at(24 * 3600):
        found = wanted(None, header(heard=0, asked=asked), now)
        assert found is not None
        assert found.reason == "silent"
        now = found.due_at
        asked = (now - at(0)).total_seconds()
        looks += 1
    assert looks == 5, "the last of them is after nearly a day"


def test_a_request_that_no_callback_has_confirmed_is_looked_into_once() -> None:
    ignored = Action(
        id="a",
        verb="update-participant",
        state="ignored",
        by="operator",
        requested_at=at(0),
        expires_at=at(30),
        awaits=("muted=true",),
    )
    waiting = replace(header(heard=0), actions=(ignored,))
    assert want(waiting, at(31)) == ("control", at(30))
    assert want(replace(waiting, asked_at=at(31)), at(32)) == ("silent", at(31) + SILENCE)


@given(st.lists(st.tuples(st.integers(1, 900), st.booleans()), min_size=1, max_size=30))
def test_whatever_happens_a_look_makes_its_own_reason_go_away(steps: list[tuple[int, bool]]) -> None:
    """An episode has one look that succeeds: right after it, nothing is due that was due before."""
    now, number = 0.0, 1
    known = header(heard=0)
    holes: tuple[tuple[int, int], ...] = ()
    for seconds, lost in steps:
        now, number = now + seconds, number + 1 + lost
        holes = (*holes, (number - 1, number - 1)) if lost else holes
        heard = replace(known, heard_at=at(now), coverage=replace(known.coverage, holes=holes, missing=len(holes)))
        known = replace(heard, want=wanted(known, heard, at(now)))
        due: Want | None = known.want
        assert due is not None
        if due.due_at <= at(now):
            looked = replace(
                known,
                asked_at=at(now),
                coverage=replace(known.coverage, snapshot_at=at(now), snapshot_sequence=number, snapshots=1),
            )
            known = replace(looked, want=wanted(known, looked, at(now)))
            assert known.want is not None
            assert known.want.due_at > at(now)
