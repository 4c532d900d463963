"""The ground itself: what is told of a room is known, what a page asks of Twilio is done, what goes wrong is heard."""

from __future__ import annotations

import pytest

from tests.browser.chromium import barriers, close
from tests.cast import ACCOUNT


def test_what_happens_in_a_room_is_live_state_once_it_has_settled(stage, house):
    room = stage.open_room("Support desk", ago=60)
    anna, caller = (
        room.join("Anna", EndConferenceOnExit=True),
        room.join(dialled="+15550142", StartConferenceOnEnter=False),
    )
    room.wait(10)
    room.speak(anna, 5)
    with stage.losing():
        room.change(caller, Hold=True)
    room.change(caller, Muted=True)
    room.record()
    stage.settle()
    known = house.get(f"/api/conferences/{room.sid}")
    assert (known["status"], known["coverage"]["missing"], len(known["recordings"])) == ("in-progress", 1, 1)
    [agent, customer] = known["participants"]
    assert (agent["label"], agent["talk_seconds"]) == ("Anna", 5.0)
    assert (customer["to"], customer["muted"], customer["hold"]) == ("+15550142", True, True)
    room.end()
    stage.settle()
    assert house.get(f"/api/conferences/{room.sid}")["status"] == "completed"


def test_what_a_page_asks_of_twilio_is_done_to_the_room(page, stage, house):
    room = stage.open_room("Board call")
    anna = room.join("Anna")
    room.join("Ben")
    stage.settle()
    page.goto("/sign-in")
    address = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences/{room.sid}/Participants/{anna.call_sid}.json"
    status = page.evaluate(
        "address => fetch(address, {method: 'POST', body: new URLSearchParams({Muted: 'true'})}).then(a => a.status)",
        address,
    )
    assert status == 200
    stage.settle()
    assert house.get(f"/api/conferences/{room.sid}")["participants"][0]["muted"]


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("console.error('woe')", "woe"),
        ("setTimeout(() => { throw new Error('alas') })", "alas"),
        ("document.body.append(Object.assign(document.createElement('script'), {text: '0'}))", "script-src"),
        ("fetch('https://example.com/').catch(() => 0)", "connect-src"),
        ("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:1/'}))", "elsewhere"),
    ],
)
def test_whatever_goes_wrong_in_a_page_is_heard(page, complaints, script, complaint):
    page.goto("/sign-in")
    page.evaluate(f"() => {{ {script} }}")
    page.evaluate("() => new Promise(done => setTimeout(done))")
    close(page.context)
    assert complaint in " ".join(complaints)
    complaints.clear()


def test_a_barrier_is_found_and_named(page):
    page.goto("/sign-in")
    page.evaluate("() => document.body.append(document.createElement('button'))")
    assert "button-name" in barriers(page)
