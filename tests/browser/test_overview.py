"""The overview in a real Chromium: who is shown, how they are shown to be, and finding one among many."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.stage import OTHER_ACCOUNT, Stage
from tests.browser.views import ask, card, cards, is_live, part, sideways, someone, tally

HUNDREDS = 500
"""Conferences at a time."""

NOTES_REDRAWING = """
() => {
  globalThis.redrawn = new Set();
  const note = (node) => {
    const element = node.nodeType === 1 ? node : node.parentElement;
    const own = element && element.closest('[aria-label="Live conferences"] > li');
    if (own && !element.closest('time')) redrawn.add(own.querySelector('h2').textContent);
  };
  new MutationObserver((records) => records.forEach((each) => [each.target, ...each.addedNodes].forEach(note)))
    .observe(document.querySelector('main'), { subtree: true, childList: true, characterData: true, attributes: true });
}
"""
"""Keeps the names of conferences of which anything but a duration is drawn anew."""


def test_a_conference_appears_as_it_begins_and_is_under_recently_ended_once_it_ends(page, stage, house):
    page.goto("/")
    expect(page.get_by_text("No conference is in progress")).to_be_visible()
    room = stage.open_room("Support desk 4", ago=60)
    room.join("Anna")
    room.join("Ben")
    expect(card(page, "Support desk 4")).to_contain_text("2 people")
    expect(someone(card(page, "Support desk 4"), "Anna")).to_be_visible()
    room.wait(60)
    room.end()
    expect(card(page, "Support desk 4")).to_have_count(0)
    ended = part(page, "Recently ended")
    link = page.locator(f"[href$='{room.sid}']")
    expect(ended.get_by_role("listitem").filter(has=link)).to_contain_text("1:00")
    link.click()
    expect(page).to_have_url(f"{house.url}/conferences/{room.sid}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Support desk 4")


def test_everybody_is_shown_as_they_are_from_moment_to_moment(page, stage):
    room = stage.open_room("Board call")
    anna, ben, cleo = (room.join(name) for name in ("Anna", "Ben", "Cleo"))
    page.goto("/")
    of = {name: someone(card(page, "Board call"), name) for name in ("Anna", "Ben", "Cleo")}
    room.speak(anna)
    expect(of["Anna"]).to_contain_text("speaking")
    room.wait(2)
    room.fall_silent(anna)
    expect(of["Anna"]).to_contain_text("listening")
    room.change(ben, Muted=True)
    expect(of["Ben"]).to_contain_text("muted")
    room.change(ben, Hold=True)
    expect(of["Ben"]).to_contain_text("on hold, muted")
    room.change(ben, Hold=False)
    room.change(ben, Muted=False)
    expect(of["Ben"]).not_to_contain_text(re.compile("muted|on hold"))
    room.change(cleo, Coaching=True)
    expect(of["Cleo"]).to_contain_text("coaching")
    room.leave(ben)
    expect(of["Ben"]).to_have_count(0)
    expect(card(page, "Board call")).to_contain_text("2 people")


def test_whom_somebody_coaches_is_named_once_a_control_request_has_said_it(page, stage):
    room = stage.open_room("Onboarding")
    room.join("Customer")
    agent = room.join("Finn")
    coach = room.join("Beatriz")
    stage.settle()
    page.goto("/")
    is_live(page)
    path = f"{room.sid}/Participants/{coach.call_sid}"
    assert ask(page, "POST", path, Coaching="true", CallSidToCoach=agent.call_sid) == 200
    expect(someone(card(page, "Onboarding"), "Beatriz")).to_contain_text("coaching Finn")


def test_who_waits_for_a_moderator_and_who_is_being_called_is_shown(page, stage):
    room = stage.open_room("Support desk 5", ago=38)
    room.join("Caller", StartConferenceOnEnter=False)
    page.goto("/")
    expect(someone(card(page, "Support desk 5"), "Caller")).to_contain_text("waiting")
    expect(tally(page, "waiting")).to_have_text(re.compile("^1"))
    stage.set_fault(ignore=True)  # so that it goes on ringing
    assert ask(page, "POST", f"{room.sid}/Participants", From="+15550100", To="+15550142") == 201
    expect(card(page, "Support desk 5").get_by_role("listitem").last).to_contain_text("queued")
    expect(card(page, "Support desk 5")).to_contain_text("1 person")


def test_tallies_count_people_and_show_only_conferences_with_such(page, stage):
    desk, board = stage.open_room("Desk"), stage.open_room("Board")
    held, other = desk.join("Held"), board.join("Other")
    for room in (desk, board):
        room.join("Agent")
    desk.change(held, Hold=True)
    desk.change(held, Muted=True)
    board.change(other, Muted=True)
    board.speak(other)
    page.goto("/")
    expect(page.get_by_role("list", name="Now")).to_contain_text(re.compile("2 conferences.*4 people"))
    expect(tally(page, "on hold")).to_have_text(re.compile("^1"))
    expect(tally(page, "muted")).to_have_text(re.compile("^2"))
    expect(tally(page, "on hold")).to_have_attribute("aria-pressed", "false")
    tally(page, "on hold").click()
    expect(tally(page, "on hold")).to_have_attribute("aria-pressed", "true")
    expect(cards(page)).to_have_count(1)
    expect(card(page, "Desk")).to_be_visible()
    desk.change(held, Hold=False)
    expect(page.get_by_text("No conference fits")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(cards(page)).to_have_count(2)


def test_a_conference_is_found_by_its_name_sid_and_people(page, stage):
    room = stage.open_room("Support desk 4")
    room.join("Zoë")
    emre = room.join("Emre", dialled="+15550117")
    other = stage.open_room("Board call")
    other.join("Anna")
    other.join("Ben")
    page.goto("/")
    search = page.get_by_role("searchbox")
    for words in ("support DESK", "zoë", "0117", "emre desk", room.sid, emre.call_sid):
        search.fill("")
        expect(cards(page)).to_have_count(2)
        search.fill(words)
        expect(cards(page)).to_have_count(1)
        expect(card(page, "Support desk 4")).to_be_visible()
        expect(page.get_by_role("main").get_by_role("status")).to_have_text(re.compile("^1 conferences? shown"))


def test_the_accounts_are_a_choice_where_there_are_several(page, stage):
    stage.open_room("Ours").join("Anna")
    theirs = stage.open_room("Theirs")
    theirs.send("conference-start", AccountSid=OTHER_ACCOUNT, SequenceNumber="1")
    page.goto("/")
    expect(cards(page)).to_have_count(2)
    page.get_by_role("combobox", name="Account").select_option(OTHER_ACCOUNT)
    expect(cards(page)).to_have_count(1)
    expect(card(page, "Theirs")).to_be_visible()
    page.get_by_role("combobox", name="Account").select_option("All accounts")
    expect(cards(page)).to_have_count(2)
    theirs.send("conference-end", AccountSid=OTHER_ACCOUNT, SequenceNumber="2")


def test_the_order_is_a_choice(page, stage):
    for name, ago, crowd in (("Desk 10", 50, 2), ("Desk 9", 300, 4), ("Ämter", 100, 3)):
        room = stage.open_room(name, ago=ago)
        for _ in range(crowd):
            room.join()
    page.goto("/")
    expect(cards(page)).to_have_count(3)
    order = page.get_by_role("combobox", name="Order")
    for choice, expected in {
        "Longest first": ["Desk 9", "Ämter", "Desk 10"],
        "Newest first": ["Desk 10", "Ämter", "Desk 9"],
        "By name": ["Ämter", "Desk 9", "Desk 10"],
        "Most people": ["Desk 9", "Ämter", "Desk 10"],
    }.items():
        order.select_option(choice)
        expect(cards(page).get_by_role("heading")).to_have_text(expected)


def test_what_was_chosen_outlasts_a_reload_and_a_look_at_a_conference(page, stage, house):
    for name in ("Desk 1", "Desk 2", "Board"):
        room = stage.open_room(name)
        room.change(room.join("Anna"), Hold=True)
        room.join("Ben")
    page.goto("/")
    page.get_by_role("searchbox").fill("desk")
    page.get_by_role("combobox", name="Order").select_option("By name")
    tally(page, "on hold").click()
    page.get_by_role("button", name="Rows").click()

    def is_as_chosen() -> None:
        expect(cards(page).get_by_role("heading")).to_have_text(["Desk 1", "Desk 2"])
        expect(page.get_by_role("searchbox")).to_have_value("desk")
        expect(page.get_by_role("combobox", name="Order")).to_have_value("name")
        expect(tally(page, "on hold")).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("button", name="Rows")).to_have_attribute("aria-pressed", "true")

    is_as_chosen()
    page.reload()
    is_as_chosen()
    page.get_by_role("link", name="Desk 2", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Desk 2")
    page.go_back()
    is_as_chosen()
    page.get_by_role("link", name="Desk 1", exact=True).click()
    page.get_by_role("link", name="All conferences", exact=True).click()
    is_as_chosen()


def test_durations_go_on_by_themselves(page, stage):
    room = stage.open_room("Desk", ago=65)
    held = room.join("Anna")
    room.join("Ben")
    room.change(held, Hold=True)
    page.goto("/")
    is_live(page)
    for timer in (
        card(page, "Desk").get_by_role("time").first,
        someone(card(page, "Desk"), "Anna").get_by_role("time"),
    ):
        expect(timer).to_have_text(re.compile(r"^1:[01]\d$"))
        shown = timer.inner_text()
        expect(timer).not_to_have_text(shown)
        expect(timer).to_have_text(re.compile(r"^1:\d\d$"))


def test_only_the_conference_that_changes_is_drawn_anew(page, stage):
    rooms = {name: stage.open_room(name) for name in ("Desk 1", "Desk 2", "Desk 3")}
    people = {name: [room.join("Anna"), room.join("Ben")] for name, room in rooms.items()}
    page.goto("/")
    expect(cards(page)).to_have_count(3)
    is_live(page)
    page.evaluate(NOTES_REDRAWING)
    rooms["Desk 2"].change(people["Desk 2"][0], Hold=True)
    expect(someone(card(page, "Desk 2"), "Anna")).to_contain_text("on hold")
    assert page.evaluate("[...redrawn]") == ["Desk 2"]


def test_hundreds_of_conferences_are_drawn_as_one_scrolls_and_changes_stay_cheap(page, stage):
    rooms = _crowd(stage)
    page.goto("/")
    expect(page.get_by_role("list", name="Now")).to_contain_text(f"{HUNDREDS} conferences")
    assert cards(page).count() < HUNDREDS / 3
    page.evaluate(NOTES_REDRAWING)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")
    before = _busy(devtools)
    changed = 0
    for room, caller in rooms[:150]:
        room.change(caller, Hold=True)
        page.wait_for_timeout(20)  # the pace of a busy site; nothing is waited for
        changed += 1
    expect(tally(page, "on hold")).to_have_text(re.compile(f"^{changed}"))
    seconds, busy = (after - first for after, first in zip(_busy(devtools), before, strict=True))
    drawn = page.evaluate("redrawn.size")
    print(
        f"{HUNDREDS} conferences, {changed / seconds:.0f} changes/s: the page's main thread was busy for "
        f"{100 * busy / seconds:.1f} % of the time, {1000 * busy / changed:.2f} ms per change; {drawn} cards redrawn"
    )
    assert drawn <= cards(page).count()
    page.get_by_role("combobox", name="Order").select_option("By name")
    shown = cards(page).count()
    page.mouse.wheel(0, 100_000)
    expect(cards(page).nth(shown)).to_be_attached()
    assert cards(page).count() < HUNDREDS
    assert sideways(page) == 0


def test_among_many_one_goes_to_a_conference_and_comes_back_to_them_all(page, stage):
    for number in range(70):
        stage.open_room(f"Desk {number}", ago=600 - number).join("Agent")
    page.goto("/")
    expect(page.get_by_role("list", name="Now")).to_contain_text("70 conferences")
    for way_back in (page.go_back, lambda: page.get_by_role("link", name="All conferences", exact=True).click()):
        card(page, "Desk 3").get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Desk 3")
        way_back()
        expect(card(page, "Desk 3")).to_be_visible()
        expect(page.get_by_role("button", name="Announce…")).to_have_count(0)
        assert cards(page).count() >= 60


def test_when_a_conference_ends_only_the_last_card_moves_and_takes_its_place(page, stage):
    rooms = [stage.open_room(name, ago=600 - number) for number, name in enumerate("ABCDE")]
    for room in rooms:
        room.join("Agent")
    page.goto("/")
    expect(cards(page).get_by_role("heading")).to_have_text([*"ABCDE"])
    rooms[1].end()
    expect(cards(page).get_by_role("heading")).to_have_text([*"AECD"])
    stage.open_room("F").join("Agent")
    expect(cards(page).get_by_role("heading")).to_have_text([*"AECDF"])


def _crowd(stage: Stage) -> list:
    """That many conferences of two, with who called first."""
    rooms = []
    for number in range(HUNDREDS):
        room = stage.open_room(f"Desk {number}", ago=3600 - number)
        caller = room.join("Agent")
        room.send("conference-start", SequenceNumber="2")
        rooms.append((room, caller))
    stage.settle()
    return rooms


def _busy(devtools) -> tuple[float, float]:
    """The time, and how long of it the page's main thread has been busy, in seconds."""
    measured = {each["name"]: each["value"] for each in devtools.send("Performance.getMetrics")["metrics"]}
    return measured["Timestamp"], measured["TaskDuration"]
