"""The page of one conference in a real Chromium: what it tells, and what may be done from it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.stage import Room
from tests.browser.views import ask, freshness, is_live, part, someone


@pytest.fixture
def room(stage) -> Room:
    """A conference with Anna, who holds it, and Ben."""
    room = stage.open_room("Support desk 4", ago=300)
    room.anna = room.join("Anna")
    room.ben = room.join("Ben", dialled="+15550117")
    stage.settle()
    return room


def show(page: Page, room: Room) -> None:
    page.goto(f"/conferences/{room.sid}")
    is_live(page)
    expect(page.get_by_role("heading", level=1)).to_have_text(room.name)


def test_it_tells_who_is_there_how_they_are_and_for_how_long(page, stage, room):
    room.speak(room.anna, 42)
    room.change(room.ben, Hold=True)
    cleo = room.join("Cleo")
    room.wait(5)
    room.leave(cleo)
    show(page, room)
    people = part(page, "People")
    expect(someone(people, "Anna")).to_contain_text(re.compile("listening.*Spoke0:42"))
    expect(someone(people, "Ben")).to_contain_text("on hold")
    expect(someone(people, "Cleo")).to_contain_text("left")
    expect(someone(people, "Cleo")).to_contain_text("participant hung up")
    expect(page.get_by_role("main")).to_contain_text("2 of 3")
    expect(page.get_by_role("main")).to_contain_text(room.sid)
    room.speak(room.anna)
    expect(someone(people, "Anna")).to_contain_text("speaking")


def test_the_timeline_has_a_lane_for_everybody_with_what_they_did_and_marks_for_all(page, stage, room):
    room.speak(room.anna, 30)
    room.change(room.ben, Hold=True)
    room.wait(20)
    room.change(room.ben, Hold=False)
    room.change(room.ben, Muted=True)
    room.announce("https://example.com/welcome.xml")
    show(page, room)
    picture = page.get_by_role("img", name="Timeline of 2 participants")
    expect(picture).to_be_visible()
    told = picture.locator("title")
    for what in ("speaking, ", "on hold, ", "muted, ", "here, "):
        expect(told.filter(has_text=re.compile(f"^{what}")).first).to_be_attached()
    for mark in ("conference started", "announcement played: https://example.com/welcome.xml"):
        expect(told.filter(has_text=mark)).to_have_count(1)
    expect(told.filter(has_text=re.compile(r"muted, \d\d:\d\d:\d\d to now"))).to_have_count(1)
    room.change(room.ben, Muted=False)
    expect(told.filter(has_text=re.compile(r"muted, .* to now"))).to_have_count(0)
    page.get_by_role("group", name="Time shown").get_by_role("button", name="5 min", exact=True).click()
    expect(picture).to_be_visible()


def test_every_event_is_listed_with_the_parameters_that_twilio_sent(page, room):
    room.change(room.ben, Hold=True)
    show(page, room)
    events = part(page, "Events")
    newest = events.get_by_role("listitem").first
    expect(newest).to_contain_text(re.compile("put on hold.*Ben"))
    newest.locator("summary").click()
    expect(newest).to_contain_text("participant-hold")
    expect(newest).to_contain_text(room.ben.call_sid)
    room.announce()
    expect(events.get_by_role("listitem").first).to_contain_text("announcement played")
    expect(events.get_by_role("listitem").nth(1)).to_contain_text("participant-hold")  # it is still open


def test_earlier_events_are_fetched_when_asked_for(page, stage, room):
    for _ in range(35):
        room.speak(room.anna, 1)
    stage.settle()
    show(page, room)
    events = part(page, "Events").get_by_role("listitem")
    expect(events).to_have_count(50)
    page.get_by_role("button", name="Earlier events").click()
    expect(events.last).to_contain_text("#1")
    expect(page.get_by_role("button", name="Earlier events")).to_have_count(0)


def test_callbacks_that_never_came_are_said_to_be_missing(page, stage, room):
    with stage.losing():
        room.change(room.ben, Hold=True)
        room.change(room.ben, Hold=False)
    room.change(room.ben, Muted=True)
    show(page, room)
    expect(page.get_by_text("2 callbacks have not arrived")).to_be_visible()
    expect(part(page, "What we know")).to_contain_text(re.compile("Not told.*hold"))


def test_an_ended_conference_is_still_there_with_all_of_it_and_nothing_to_do(page, room):
    show(page, room)
    expect(page.get_by_role("button", name="End…")).to_be_visible()
    room.wait(300)
    room.end()
    expect(page.get_by_text("Ended", exact=True).first).to_be_visible()
    expect(page.get_by_role("button", name="End…")).to_have_count(0)
    expect(page.get_by_role("button", name="Mute")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text(room.name)
    expect(page.get_by_role("main")).to_contain_text("conference-ended-via-api")
    expect(someone(part(page, "People"), "Anna")).to_contain_text("left")
    expect(page.get_by_role("img", name="Timeline of 2 participants")).to_be_visible()
    expect(part(page, "Events").get_by_role("listitem").first).to_contain_text("conference ended")


def test_an_unknown_conference_is_said_to_be_unknown(page, stage, complaints):
    page.goto(f"/conferences/{stage.new_sid('CF')}")
    expect(page.get_by_role("heading", level=1)).to_have_text("No such conference")
    assert "404" in complaints.pop()
    page.get_by_role("link", name="All conferences", exact=True).click()
    expect(page).to_have_url(re.compile("/$"))


def test_mute_and_hold_are_asked_of_twilio_once_and_stand_when_callbacks_confirm_them(page, stage, room):
    show(page, room)
    requests = part(page, "Control requests").get_by_role("listitem")
    for word, opposite, field, is_on in (
        ("Mute", "Unmute", "Muted", "true"),
        ("Unmute", "Mute", "Muted", "false"),
        ("Hold", "Resume", "Hold", "true"),
        ("Resume", "Hold", "Hold", "false"),
    ):
        stage.forget_requests()
        page.get_by_role("button", name=f"{word} Ben", exact=True).click()
        expect(page.get_by_role("button", name=f"{opposite} Ben", exact=True)).to_be_enabled()
        expect(requests.first).to_contain_text(re.compile("confirmed.*Ben.*by desk"))
        assert stage.requests(room) == [("POST", f"/Participants/{room.ben.call_sid}.json", {field: is_on})]


def test_a_request_is_shown_while_nothing_has_confirmed_it_and_when_nothing_has_in_time(page, stage, room):
    show(page, room)
    stage.set_fault(ignore=True)
    page.get_by_role("button", name="Mute Ben", exact=True).click()
    expect(someone(part(page, "People"), "Ben")).to_contain_text("Mute: accepted by Twilio…")
    expect(page.get_by_role("button", name="Mute Ben", exact=True)).to_be_disabled()
    stage.expire_requests()
    expect(part(page, "Control requests").get_by_role("listitem").first).to_contain_text(
        re.compile("not confirmed.*Mute.*Ben")
    )
    expect(page.get_by_role("button", name="Mute Ben", exact=True)).to_be_enabled()
    assert len(stage.requests(room)) == 1


def test_what_twilio_refuses_is_said(page, stage, room, complaints):
    show(page, room)
    stage.set_fault(status=429)
    page.get_by_role("button", name="Hold Anna", exact=True).click()
    expect(page.get_by_text("Hold Anna: Too Many Requests")).to_be_visible()
    expect(part(page, "Control requests").get_by_role("listitem").first).to_contain_text(re.compile("failed.*429"))
    expect(page.get_by_role("button", name="Hold Anna", exact=True)).to_be_enabled()
    assert "429" in complaints.pop()


def test_somebody_is_removed_once_that_is_confirmed_by_keyboard_alone(page, stage, room):
    show(page, room)
    button = page.get_by_role("button", name="Remove Ben…")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Remove Ben?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()
    assert stage.requests(room) == []
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(someone(part(page, "People"), "Ben")).to_contain_text("left")
    assert stage.requests(room) == [("DELETE", f"/Participants/{room.ben.call_sid}.json", {})]


def test_an_announcement_is_played_to_all(page, stage, room):
    show(page, room)
    page.get_by_role("button", name="Announce…").click()
    dialog = page.get_by_role("dialog", name="Announce to all")
    address = dialog.get_by_role("textbox")
    expect(address).to_be_focused()
    address.fill("not an address")
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    address.fill("https://example.com/soon.xml")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(part(page, "Control requests").get_by_role("listitem")).to_contain_text(re.compile("confirmed.*Announce"))
    expect(part(page, "Events").get_by_role("listitem").filter(has_text="announcement played")).to_have_count(1)
    assert stage.requests(room) == [("POST", ".json", {"AnnounceUrl": "https://example.com/soon.xml"})]


def test_a_conference_is_ended_once_that_is_confirmed(page, stage, room):
    show(page, room)
    page.get_by_role("button", name="End…").click()
    dialog = page.get_by_role("dialog", name="End the conference?")
    expect(dialog).to_contain_text("2 people will be cut off")
    dialog.get_by_role("button", name="End the conference").click()
    expect(page.get_by_role("main")).to_contain_text("conference-ended-via-api")
    expect(part(page, "Control requests").get_by_role("listitem")).to_contain_text("confirmed")
    assert stage.requests(room) == [("POST", ".json", {"Status": "completed"})]


def test_a_key_that_may_only_read_has_no_buttons_and_no_script_of_its_page_may_change_anything(
    open_page, stage, room, complaints
):
    page = open_page("wallboard")
    show(page, room)
    expect(someone(part(page, "People"), "Ben")).to_be_visible()
    expect(part(page, "People").get_by_role("button")).to_have_count(0)
    expect(page.get_by_role("button", name=re.compile("Announce|End"))).to_have_count(0)
    assert ask(page, "POST", f"{room.sid}/Participants/{room.ben.call_sid}", Muted="true") == 403
    assert "403" in complaints.pop()
    assert stage.requests(room) == []
    expect(freshness(page)).to_have_text("Live")


def test_a_callback_that_could_not_be_folded_is_said_to_be_set_aside(page, stage, room):
    room.send("participant-mute", CallSid="no sid", Muted="true")
    stage.settle()
    show(page, room)
    expect(page.get_by_text("One callback could not be folded")).to_be_visible()
