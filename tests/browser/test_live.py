"""How fresh the dashboard is, in a real Chromium: it says so, comes back by itself, and never shows old news as new."""

from __future__ import annotations

import os
import re
import signal

from playwright.sync_api import Page, expect

from tests.browser.views import card, freshness, is_live, part, someone
from tests.system.house import awaited


def forgive_lost_requests(complaints: list[str]) -> None:
    """Take out what Chromium itself says of requests that a cut line, or a stopped server, has not answered."""
    complaints[:] = [each for each in complaints if "net::ERR" not in each and "503" not in each]


def is_dimmed(page: Page) -> bool:
    return bool(page.get_by_role("main").evaluate("main => getComputedStyle(main).filter !== 'none'"))


def test_a_lost_connection_is_said_and_dims_the_page_until_it_is_back_and_right(open_page, stage, line, complaints):
    desk, board = stage.open_room("Desk"), stage.open_room("Board")
    anna = desk.join("Anna")
    for room in (desk, board):
        room.join("Ben")
    board.join("Cleo")
    page = open_page(line=line)
    page.goto("/")
    is_live(page)
    expect(card(page, "Board")).to_be_visible()
    assert not is_dimmed(page)
    line.cut()
    expect(freshness(page)).to_have_text("Connection lost")
    expect(page.get_by_role("alert")).to_contain_text(re.compile(r"The connection is lost\.[^:]*from\s+\d\d:\d\d:\d\d"))
    expect(card(page, "Board")).to_be_visible()
    assert is_dimmed(page)
    desk.change(anna, Hold=True)
    board.end()
    stage.open_room("Bridge").join("Dora")
    stage.settle()
    line.mend()
    is_live(page)
    expect(someone(card(page, "Desk"), "Anna")).to_contain_text("on hold")
    expect(card(page, "Board")).to_have_count(0)
    expect(part(page, "Recently ended").get_by_role("link", name="Board").first).to_be_visible()
    expect(someone(card(page, "Bridge"), "Dora")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    desk.change(anna, Hold=False)
    expect(someone(card(page, "Desk"), "Anna")).not_to_contain_text("on hold")
    forgive_lost_requests(complaints)


def test_the_page_of_a_conference_comes_back_too(open_page, stage, line, complaints):
    room = stage.open_room("Desk")
    anna = room.join("Anna")
    room.join("Ben")
    stage.settle()
    page = open_page(line=line)
    page.goto(f"/conferences/{room.sid}")
    is_live(page)
    expect(someone(part(page, "People"), "Anna")).to_be_visible()
    line.cut()
    expect(freshness(page)).to_have_text("Connection lost")
    room.change(anna, Muted=True)
    room.end()
    stage.settle()
    line.mend()
    is_live(page)
    expect(page.get_by_text("Ended", exact=True).first).to_be_visible()
    expect(someone(part(page, "People"), "Anna")).to_contain_text("left")
    expect(part(page, "Events").get_by_role("listitem").first).to_contain_text("conference ended")
    forgive_lost_requests(complaints)


def test_a_restart_of_the_web_process_is_got_over(page, stage, house, complaints):
    room = stage.open_room("Desk")
    anna = room.join("Anna")
    page.goto("/")
    is_live(page)
    for pid in house.processes()["web"]:
        os.kill(pid, signal.SIGKILL)
    expect(freshness(page)).to_have_text("Connecting again")
    house.ready()
    is_live(page)
    room.change(anna, Hold=True)
    expect(someone(card(page, "Desk"), "Anna")).to_contain_text("on hold")
    forgive_lost_requests(complaints)


def test_silence_is_said_to_be_stale_and_got_over(open_page, stage, line, complaints):
    """In a browser without shared workers, where the page listens by itself and the test may turn its clock."""
    room = stage.open_room("Desk")
    anna = room.join("Anna")
    page = open_page(line=line)
    page.add_init_script("delete globalThis.SharedWorker")
    page.clock.install()
    page.goto("/")
    is_live(page)
    line.hold_up()
    page.clock.fast_forward(31_000)
    expect(freshness(page)).to_have_text("Stale")
    room.change(anna, Hold=True)
    expect(page.get_by_role("alert")).to_contain_text("Nothing has been heard for a while")
    assert is_dimmed(page)
    line.mend()
    is_live(page)
    expect(someone(card(page, "Desk"), "Anna")).to_contain_text("on hold")
    page.close()  # what it still complains of has then been heard
    forgive_lost_requests(complaints)


def test_it_says_that_it_is_catching_up_while_callbacks_wait_to_be_folded(page, stage, house):
    room = stage.open_room("Desk")
    anna = room.join("Anna")
    stage.settle()
    page.goto("/")
    is_live(page)
    [worker] = house.processes()["worker"]
    os.kill(worker, signal.SIGSTOP)
    try:
        room.change(anna, Hold=True)
        expect(freshness(page)).to_have_text("Catching up")
        expect(page.get_by_role("banner")).to_contain_text(re.compile(r"\d+ s behind"))
        expect(someone(card(page, "Desk"), "Anna")).not_to_contain_text("on hold")
    finally:
        os.kill(worker, signal.SIGCONT)
    is_live(page)
    expect(someone(card(page, "Desk"), "Anna")).to_contain_text("on hold")


def test_all_tabs_share_one_stream_which_ends_with_the_last(open_page, stage, line):
    room = stage.open_room("Desk")
    anna = room.join("Anna")
    stage.settle()
    first = open_page(line=line)
    second = first.context.new_page()
    third = first.context.new_page()
    for page in (first, second):
        page.goto("/")
    third.goto(f"/conferences/{room.sid}")
    for page in (first, second, third):
        is_live(page)
    assert len(line.streams) == 1
    first.close()
    room.change(anna, Hold=True)
    expect(someone(card(second, "Desk"), "Anna")).to_contain_text("on hold")
    expect(someone(part(third, "People"), "Anna")).to_contain_text("on hold")
    assert len(line.streams) == 1
    second.close()
    third.goto("about:blank")
    awaited("end of the stream", lambda: not line.streams)


def test_signing_out_leads_to_the_form_and_ends_the_stream(open_page, house, line):
    page = open_page(line=line)
    page.goto("/")
    is_live(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{line.url}/sign-in")
    awaited("end of the stream", lambda: not line.streams)
    page.goto("/")
    expect(page).to_have_url(f"{line.url}/sign-in?next=%2F")


def test_every_tab_is_led_to_the_form_when_the_session_has_ended_elsewhere(open_page, stage, line, complaints):
    room = stage.open_room("Desk")
    room.join("Anna")
    stage.settle()
    page = open_page(line=line)
    page.goto("/")
    other = page.context.new_page()
    other.goto(f"/conferences/{room.sid}")
    for each in (page, other):
        is_live(each)
    answer = page.context.request.delete(f"{line.url}/session", headers={"Origin": line.url})
    assert answer.status == 204
    line.cut()  # otherwise it is asked every 15 s whether the session still stands
    expect(freshness(page)).to_have_text("Connection lost")
    line.mend()
    expect(page).to_have_url(f"{line.url}/sign-in?next=%2F")
    expect(other).to_have_url(f"{line.url}/sign-in?next=%2Fconferences%2F{room.sid}")
    complaints[:] = [each for each in complaints if "401" not in each]
    forgive_lost_requests(complaints)


def test_signing_in_leads_back_to_where_one_was(open_page, stage, line):
    room = stage.open_room("Desk")
    room.join("Anna")
    stage.settle()
    page = open_page(None)
    page.goto(f"/conferences/{room.sid}")
    expect(page).to_have_url(re.compile(f"/sign-in\\?next=%2Fconferences%2F{room.sid}$"))
    page.get_by_label("Name").fill("wallboard")
    page.get_by_label("Secret").fill("a-secret-that-may-only-read")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Desk")
    is_live(page)
