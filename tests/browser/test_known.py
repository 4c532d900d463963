"""What is not known is said, and what somebody should look at stands out, in a real Chromium."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from app.events import Alert
from tests.browser.stage import Room
from tests.browser.views import card, is_live, part, someone

TO = "\N{EN DASH}"


@pytest.fixture
def room(stage) -> Room:
    """A conference with Anna and Ben, of which two callbacks have been lost."""
    room = stage.open_room("Support desk 4", ago=300)
    room.anna = room.join("Anna")
    room.ben = room.join("Ben")
    with stage.losing():
        room.change(room.ben, Hold=True)
        room.change(room.ben, Hold=False)
    room.change(room.anna, Muted=True)
    stage.settle()
    return room


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def show(page: Page, room: Room) -> None:
    page.goto(f"/conferences/{room.sid}")
    is_live(page)


def test_a_conference_says_what_it_lacks_what_is_done_about_it_and_that_it_is_healed(page, stage, room):
    later = in_seconds(7200)
    stage.dress(room, want={"reason": "hole", "since": later, "due_at": later}, coverage={"from_start": True})
    page.goto("/")
    expect(card(page, room.name)).to_contain_text("2 callbacks missing")
    card(page, room.name).get_by_role("link").click()
    known = part(page, "What we know")
    for words in (
        "2 callbacks have not arrived. What they told is missing",
        "Seenfrom its first event",
        f"Numbers heard1{TO}3, 6",
        f"Not heard4{TO}5 (2)",
        "Looked at Twilionever",
    ):
        expect(known).to_contain_text(words)
    expect(known).to_contain_text(re.compile(r"Last heard\d:\d\d ago"))
    expect(known).to_contain_text(re.compile(r"To be looked atin \d:\d\d:\d\d, because callbacks are missing"))
    expect(known).to_contain_text(re.compile("Told of.*join.*mute.*Not told.*leave.*hold.*announcement"))
    stage.heal(room)
    expect(known).to_contain_text("2 callbacks have not arrived, but Twilio")
    expect(known).to_contain_text(re.compile(r"Looked at Twilio\d\d:\d\d:\d\d, covers all up to number 6"))
    expect(known).not_to_contain_text("To be looked at")
    page.get_by_role("link", name="All conferences", exact=True).click()
    expect(card(page, room.name)).to_contain_text("healed")
    expect(card(page, room.name)).not_to_contain_text("missing")


LONG = {"sequences": [[60, 63], [66, 66]], "holes": [[64, 65]], "missing": 9}
"""Not all holes are listed."""
MIDWAY = {"sequences": [[3, 6]], "holes": [[1, 2]], "from_start": False}
UNHEALED = {
    "sequences": [[1, 3], [6, 6]],
    "holes": [[4, 5]],
    "missing": 2,
    "snapshot_sequence": 0,
    "from_start": True,
    "complete": False,
    "snapshots": 0,
    "doubted": False,
    "events": ["conference-start", "participant-join"],
}
"""Two have not arrived."""


WELL = {"holes": [], "missing": 0}
NUMBERLESS = WELL | {"sequences": [], "from_start": None}
COVERED = {"snapshots": 1, "snapshot_sequence": 6}

PICTURES = (
    (WELL, "Nothing is known to be missing", ""),
    (WELL | {"complete": True}, "Complete: it has ended", ""),
    (MIDWAY, "It had begun before its first callback came. What came before number 3 is", "seen from the middle on"),
    ({"snapshot_sequence": 4}, "One callback has not arrived. What it told is missing", "1 callback missing"),
    ({"snapshot_sequence": 4}, "1 more did not arrive either; what came of that Twilio", "1 callback missing"),
    (LONG | {"snapshot_sequence": 62}, "2 callbacks have not arrived. What", "2 callbacks missing"),
    (COVERED, "2 callbacks have not arrived, but Twilio", "healed"),
    (NUMBERLESS | {"snapshots": 1, "events": []}, "REST API alone, until callbacks come", ""),
    (NUMBERLESS, "No callback with a number has come", ""),
    (WELL | {"doubted": True}, "A call has told otherwise than the latest look", ""),
    (LONG, "9 callbacks have not arrived. What", "9 callbacks missing"),
)
"""Fields of the coverage; the sentence that tells of it; its sign on a card, or what is there without one."""


def test_how_complete_it_is_is_said_in_a_few_words(page, stage, room):
    show(page, room)
    overview = page.context.new_page()
    overview.goto("/")
    for coverage, verdict, sign in PICTURES:
        stage.dress(room, coverage=UNHEALED | coverage)
        expect(part(page, "What we know")).to_contain_text(verdict)
        expect(card(overview, room.name)).to_contain_text(re.compile(f"2 people{re.escape(sign)}\\d:"))


WANTS = (
    (
        -100,
        "hole",
        r"because callbacks are missing; overdue by 1:4\d: it waits for its turn, or Twilio",
    ),
    (-5, "hole", "now, because callbacks are missing"),
    (600, "doubted", r"in 9:5\d, because a call had told otherwise"),
    (100, "silent", r"if nothing is heard for 1:3\d more"),
)
"""In how many seconds a look is due, why, and how that is said."""


def test_it_is_said_when_and_why_twilio_is_to_be_looked_at_and_of_silence_only_when_it_is_near(page, stage, room):
    show(page, room)
    known = part(page, "What we know")
    for seconds, reason, words in WANTS:
        due = in_seconds(seconds)
        stage.dress(room, want={"reason": reason, "since": due, "due_at": due})
        expect(known).to_contain_text(re.compile(f"To be looked at{words}"))
    stage.dress(room, want={"reason": "silent", "since": due, "due_at": in_seconds(590)})
    expect(known).not_to_contain_text("To be looked at")
    expect(known).to_contain_text("Last heard")


def test_one_that_twilio_did_not_know_is_said_to_be_closed_so_and_what_it_lacks_is_quiet(page, stage, room):
    page.goto("/")
    is_live(page)
    stage.write_down(room, {"reason": "hole", "after": 6})
    ended = part(page, "Recently ended").get_by_role("listitem").filter(has=page.locator(f"[href$={room.sid}]"))
    expect(ended.get_by_text("2 callbacks missing")).to_have_class("holes past")
    ended.get_by_role("link").click()
    known = part(page, "What we know")
    expect(known).to_contain_text("Twilio does not know this conference (any more). It was closed at")
    expect(known).to_contain_text("with what was known. 2 callbacks have not arrived.")
    expect(known).not_to_contain_text("Nothing is known to be missing")
    button = page.get_by_role("button", name="Reconcile now")
    expect(button).to_have_attribute("title", re.compile("A look at Twilio can only tell"))
    expect(part(page, "Events").get_by_role("listitem").first).to_contain_text(
        re.compile("Twilio was asked: callbacks are missing.*unknown to Twilio")
    )
    room.end()
    expect(known).to_contain_text("2 callbacks have not arrived.")
    expect(button).to_have_count(0)


def test_events_say_why_twilio_was_asked_what_came_of_it_and_what_alerts_are_about(page, stage, room):
    listed = [{"call_sid": leg.call_sid, "status": "connected"} for leg in room.legs]
    shown = {"sid": room.sid, "status": "in-progress"}
    stage.write_down(room, {"reason": "empty", "after": 6, "conference": shown, "participants": listed})
    now = datetime.now(UTC)
    words = {"rule": "vip-on-hold", "kind": "hold", "text": "A participant has been on hold for 1 min."}
    for cleared in (False, True):
        stage.write_down(room, Alert(**words, subject=room.ben.call_sid, since=now, at=now, cleared=cleared))
    show(page, room)
    rows = part(page, "Events").get_by_role("listitem")
    for place, told in enumerate(
        (
            "alert is over: vip-on-hold.*Ben A participant has been on hold for 1 min.",
            "alert: vip-on-hold.*Ben A participant has been on hold for 1 min.",
            "Twilio was asked: everybody has gone.*in progress, 2 participants",
        )
    ):
        expect(rows.nth(place)).to_contain_text(re.compile(told))


def test_facts_that_no_callback_has_told_are_marked_and_unknown_is_not_no(page, stage, room):
    facts = {"hold": "reconciled", "hold_seconds": "partial", "stays": "inferred"}
    ben = {"hold": True, "hold_seconds": 4.0, "muted": None, "muted_seconds": 0.0, "facts": facts}
    stage.dress(room, {room.ben.call_sid: ben}, coverage={"facts": {"started_at": "inferred"}})
    show(page, room)
    row = someone(part(page, "People"), "Ben")
    expect(row).to_contain_text(re.compile(r"on hold \(muted unknown\) \(its stays inferred\) \(on hold reconciled\)"))
    expect(row).to_contain_text(re.compile(r"Spokenot toldOn hold \(how long on hold partial\)0:04Mutednot told"))
    expect(row.get_by_title("on hold: shown by Twilio")).to_be_visible()
    for word in ("Mute", "Unmute"):
        expect(page.get_by_role("button", name=f"{word} Ben", exact=True)).to_be_enabled()
    for way in ("unknown: nobody has told", "inferred: ", "reconciled: ", "partial: "):
        expect(part(page, "People")).to_contain_text(way)
    expect(page.get_by_role("main")).to_contain_text(re.compile(r"Began.* \(when it began inferred\)"))
    page.get_by_role("link", name="All conferences", exact=True).click()
    of_ben = someone(card(page, room.name), "Ben")
    expect(of_ben.get_by_title("on hold: shown by Twilio")).to_be_visible()
    page.get_by_role("button", name="Rows").click()
    expect(of_ben.get_by_title("on hold: shown by Twilio")).to_be_visible()


def test_where_speech_is_not_told_nobody_is_said_to_listen(page, stage, room):
    room.speak(room.anna, 2)
    page.goto("/")
    expect(someone(card(page, room.name), "Ben")).to_contain_text("here")
    room.speak(room.ben, 2)
    expect(someone(card(page, room.name), "Ben")).to_contain_text("listening")


def test_alerts_stand_above_all_the_most_severe_first_and_go_as_they_are_cleared(page, stage, room):
    other = stage.open_room("Board call", ago=90)
    other.join("Cleo")
    page.goto("/")
    is_live(page)
    alerts = part(page, "Alerts")
    expect(alerts).to_have_count(0)
    stage.alarm(room, "hold", "Has been on hold for long.", room.ben, ago=130)
    expect(alerts.get_by_role("listitem")).to_have_text(
        re.compile(r"^warning: Support desk 4Ben Has been on hold for long\.2:1\d$")
    )
    expect(page.get_by_role("main").get_by_role("status")).to_have_text("2 conferences shown, 1 alert")
    stage.alarm(other, "alone", "Nobody else has come.", severity="critical")
    for number in range(3):
        stage.alarm(other, f"news {number}", "All is well.", severity="info")
    expect(alerts.get_by_role("listitem")).to_have_count(3)
    expect(alerts.get_by_role("listitem").first).to_contain_text("critical: Board call")
    alerts.get_by_role("button", name="2 more").click()
    expect(alerts.get_by_role("listitem")).to_have_count(5)
    expect(card(page, "Board call")).to_contain_text("critical: Nobody else has come.+3")
    alerts.get_by_role("link", name="Support desk 4").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Support desk 4")
    expect(alerts.get_by_role("listitem")).to_have_text(re.compile("^warning: Ben Has been"))
    stage.dress(room, alerts=[])
    expect(alerts).to_have_count(0)


def test_whoever_may_control_has_twilio_looked_at_and_is_told_why_not(page, stage, room, complaints):
    asked = []

    def answer(route, status, body):
        asked.append((route.request.method, route.request.post_data))
        route.fulfill(status=status, json=body)

    show(page, room)
    button = page.get_by_role("button", name="Reconcile now")
    address = f"**/api/conferences/{room.sid}/reconcile"
    page.route(address, lambda route: answer(route, 429, {"status": 429, "message": "Twilio was just looked at."}))
    button.click()
    expect(page.get_by_text("Reconcile: Twilio was just looked at.")).to_be_visible()
    assert "429" in complaints.pop()
    page.unroute(address)
    page.route(address, lambda route: answer(route, 202, {"conference_sid": room.sid, "due": True}))
    button.click()
    expect(page.get_by_text("Twilio is to be looked at.")).to_be_visible()
    assert asked == [("POST", None)] * 2
    stage.heal(room)
    expect(page.get_by_text("Twilio is to be looked at.")).to_have_count(0)
    soon = "2099-01-01T00:00:00Z"
    stage.dress(room, want={"reason": "operator", "since": soon, "due_at": soon})
    expect(button).to_be_disabled()
    expect(part(page, "What we know")).to_contain_text("because somebody has asked for it")


def test_whoever_may_only_read_is_told_all_and_has_no_button(open_page, room):
    page = open_page("wallboard")
    show(page, room)
    expect(part(page, "What we know")).to_contain_text("2 callbacks have not arrived")
    expect(page.get_by_role("button", name="Reconcile now")).to_have_count(0)
