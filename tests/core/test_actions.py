"""What becomes of a control request: accepted is Twilio's word, confirmed is a callback's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from app import actions
from app.conference import ACTIONS_SHOWN
from app.events import Action, Callback, Event
from app.fold import fold
from app.twilio.callbacks import read
from app.twilio.control import Record, encode_record
from tests.cast import ACCOUNT, ANNA, BEN, NOON, ROOM, event, progress, said

URL = "https://example.com/announcement.mp3"
RECORDING = "RE" + "1" * 32


def action(**said_of_it: Any) -> Action:
    """An accepted request to mute Anna, unless told otherwise; made five seconds after noon, after number 5."""
    return Action(
        **{
            "id": "a1",
            "verb": "update-participant",
            "by": "operator",
            "call_sid": ANNA,
            "requested_at": NOON + timedelta(seconds=5),
            "expires_at": NOON + timedelta(seconds=35),
            "after": 5,
            "awaits": ("muted=true",),
            "status": 200,
            **said_of_it,
        }
    )


def record(of: Action, number: int = 0) -> Event:
    """The event that tells of an action."""
    return Event(
        id=f"control-{of.id}-{number}",
        source="control",
        type="control-answered",
        account_sid=ACCOUNT,
        conference_sid=ROOM,
        call_sid=of.call_sid,
        action=of,
    )


def state(of: Action, *told: dict[str, str]) -> str:
    """How an action stands once all this has been told, whether before or after it."""
    events = [replace(event(each), conference_sid=ROOM) for each in told]
    [before] = fold([record(of), *events]).header.actions
    [after] = fold([*events, record(of)]).header.actions
    assert before == after
    return before.state


def muted(number: int | None, call: str = ANNA, flag: str = "true", second: int = 6) -> dict[str, str]:
    return said("participant-mute" if flag == "true" else "participant-unmute", call, number=number, second=second) | {
        "Muted": flag
    }


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([muted(6)], "confirmed"),
        ([said("participant-hold", ANNA, number=6, second=6, Muted="true")], "confirmed"),
        ([muted(5)], "accepted"),
        ([muted(6, BEN)], "accepted"),
        ([muted(6, flag="false")], "accepted"),
        ([muted(None, second=5)], "confirmed"),
        ([muted(None, second=4)], "accepted"),
        ([muted(6, second=100)], "accepted"),
        ([], "accepted"),
    ],
    ids=[
        *("told", "shown", "earlier", "another's", "the contrary", "unnumbered", "unnumbered, earlier", "too late"),
        "nothing",
    ],
)
def test_only_a_later_callback_about_that_call_confirms(told: list[dict[str, str]], expected: str) -> None:
    assert state(action(), *told) == expected


def test_everything_that_is_awaited_must_be_told() -> None:
    both = action(awaits=("hold=true", "muted=true"))
    held = said("participant-hold", ANNA, number=7, second=7, Hold="true")
    assert state(both, muted(6)) == "accepted"
    assert state(both, muted(6), held) == "confirmed"


@pytest.mark.parametrize(
    ("of", "told", "expected"),
    [
        (action(status=None), [], "requested"),
        (action(status=None, error="not sent"), [muted(6)], "failed"),
        (action(status=None, error="no answer"), [], "requested"),
        (action(status=None, error="no answer"), [muted(6)], "confirmed"),
        (action(status=404), [muted(6)], "failed"),
        (action(status=500), [], "failed"),
        (action(status=500), [muted(6)], "confirmed"),
        (action(expired=True), [], "ignored"),
        (action(expired=True), [muted(6)], "confirmed"),
        (action(status=None, expired=True), [], "ignored"),
        (action(awaits=()), [], "accepted"),
    ],
)
def test_how_far_it_has_got(of: Action, told: list[dict[str, str]], expected: str) -> None:
    assert state(of, *told) == expected


def test_an_end_confirms_the_end_and_that_whoever_was_removed_is_gone() -> None:
    end = said("conference-end", number=9, second=9)
    assert state(action(verb="update-conference", call_sid=None, awaits=("conference-end",)), end) == "confirmed"
    assert state(action(verb="remove-participant", awaits=("participant-leave",)), end) == "confirmed"


def test_an_announcement_is_confirmed_or_refused_by_its_own_callback() -> None:
    announced = action(awaits=(f"announcement-end {URL}",))
    for call in (ANNA, None):
        assert state(announced, said("announcement-end", call, number=6, second=8, AnnounceUrl=URL)) == "confirmed"
    assert state(announced, said("announcement-end", BEN, number=6, second=8, AnnounceUrl=URL)) == "accepted"
    assert state(announced, said("announcement-end", ANNA, number=6, second=8, AnnounceUrl=URL + "x")) == "accepted"
    assert state(announced, said("announcement-fail", ANNA, number=6, second=8, AnnounceUrl=URL)) == "failed"


def test_an_added_participant_has_to_join() -> None:
    added = action(verb="add-participant", status=201, awaits=("participant-join",))
    gone = said("participant-leave", ANNA, number=7, second=30, ReasonParticipantLeft="participant_add_failed")
    assert state(added, progress(ANNA, "in-progress", number=2, second=9)) == "accepted"
    assert state(added, said("participant-join", ANNA, number=6, second=9)) == "confirmed"
    assert state(added, progress(ANNA, "busy", number=2, second=9)) == "failed"
    assert state(added, gone) == "failed"


def test_a_recording_is_stopped_once_its_callback_says_so() -> None:
    stopped = action(verb="update-recording", call_sid=None, recording_sid=RECORDING, awaits=("recording-stopped",))
    told = {"AccountSid": ACCOUNT, "ConferenceSid": ROOM, "RecordingSid": RECORDING}
    assert state(stopped, told | {"RecordingStatus": "in-progress"}) == "accepted"
    assert state(stopped, told | {"RecordingStatus": "completed"}) == "confirmed"
    assert state(stopped, told | {"RecordingStatus": "completed", "RecordingSid": "RE" + "2" * 32}) == "accepted"


def test_the_newest_finished_ones_are_shown_and_every_unfinished_one() -> None:
    finished = [
        action(id=f"f{n:02}", expired=True, requested_at=NOON + timedelta(seconds=n)) for n in range(ACTIONS_SHOWN + 5)
    ]
    waiting = action(id="w", requested_at=NOON - timedelta(hours=1))
    shown = actions.after((), [record(each) for each in [*finished, waiting]])
    assert [each.id for each in shown] == ["w", *(f"f{n:02}" for n in range(5, ACTIONS_SHOWN + 5))]


def test_a_recording_whose_deletion_twilio_accepted_is_marked_so_for_good() -> None:
    told = {"AccountSid": ACCOUNT, "ConferenceSid": ROOM, "RecordingSid": RECORDING, "RecordingStatus": "completed"}
    deletion = action(verb="delete-recording", call_sid=None, recording_sid=RECORDING, awaits=(), status=204)
    written_down = Record(
        step="answered", account_sid=ACCOUNT, conference_sid=ROOM, resource="", parameters=[], action=deletion
    )
    answered = read(Callback(body=encode_record(written_down), media="control", received_at=0, key="operator"))
    for events in ([event(told), answered], [answered, event(told)]):
        [recording] = fold(events).header.recordings
        assert (recording.sid, recording.status) == (RECORDING, "deleted")
