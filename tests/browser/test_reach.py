"""The dashboard is for everybody: by keyboard and screen reader, in any width, light or dark, still if one wishes."""

from __future__ import annotations

import hashlib
import re
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import app.web
from tests.browser.chromium import barriers
from tests.browser.stage import Room, Stage
from tests.browser.views import card, cards, is_live, part, sideways, someone

VENDORED = "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7"
"""SHA-256 of preact/standalone.module.js of htm 3.1.1, as its publisher made it."""

WIDTHS = (320, 768, 1440, 2560)

NOTES_FOCUS = """
() => {
  globalThis.reached = new Set();
  globalThis.unseen = [];
  addEventListener('focusin', ({ target }) => {
    reached.add(target);
    const styles = [getComputedStyle(target), getComputedStyle(target, '::after')];
    if (!styles.some(({ outlineStyle, outlineWidth }) => outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2))
      unseen.push(target.outerHTML.slice(0, 120));
  });
}
"""

NOT_REACHED = """
[...document.querySelectorAll('a[href], button:enabled, input, select, summary')]
  .filter((each) => each.checkVisibility() && !reached.has(each)).map((each) => each.outerHTML.slice(0, 120))
"""

MOVING = "document.getAnimations().filter((each) => each.playState === 'running').length"


@pytest.fixture
def room(stage) -> Room:
    """A conference with people in every state there is, others beside it, and one that has ended."""
    room = _everything(stage)
    stage.settle()
    return room


def _everything(stage: Stage) -> Room:
    over = stage.open_room("Interview: Maeve", ago=900)
    over.join("Viktor")
    over.wait(600)
    over.end()
    waiting = stage.open_room("Waiting room", ago=40)
    caller = waiting.join("Caller", StartConferenceOnEnter=False)
    room = stage.open_room("Support desk 4 with a name that goes on for longer than one would wish", ago=500)
    anna, ben, cleo, dora = (room.join(name) for name in ("Anna", "Ben", "Cleo", "Dora Featherstonehaugh-Cholmondeley"))
    room.join("Emre", dialled="+15550117")
    room.record()
    room.speak(anna, 60)
    room.change(ben, Hold=True)
    room.change(cleo, Muted=True)
    room.change(dora, Coaching=True)
    with stage.losing():
        room.speak(ben, 20)
    room.leave(room.join("Farah"))
    room.announce()
    room.speak(anna)
    stage.heal(waiting, {caller.call_sid: {"muted": None, "facts": {"hold": "reconciled", "hold_seconds": "partial"}}})
    for severity in ("critical", "warning", "info"):
        stage.alarm(room, severity, "Something goes on for longer than somebody has thought it should.", ben)
    stage.alarm(room, "hold", "And one that nobody sees at first.", severity=severity)
    stage.alarm(room, "hold again", "And another.", severity=severity)
    return room


def test_a_machine_finds_no_barrier_in_any_state_of_the_overview(open_page, stage, line, room, complaints):
    for scheme in ("light", "dark"):
        page = open_page(line=line, color_scheme=scheme)
        page.goto("/")
        is_live(page)
        expect(cards(page)).to_have_count(2)
        expect(part(page, "Recently ended")).to_be_visible()
        assert barriers(page) == ""
        page.get_by_role("button", name="Rows").click()
        page.get_by_role("button", name="speaking").click()
        assert barriers(page) == ""
        page.get_by_role("searchbox").fill("nothing is called so")
        expect(page.get_by_text("No conference fits")).to_be_visible()
        assert barriers(page) == ""
        page.get_by_role("searchbox").fill("")
        line.cut()
        expect(page.get_by_role("alert")).to_be_visible()
        _is_still(page)
        assert barriers(page) == ""
        line.mend()
        is_live(page)
        page.close()
    complaints[:] = [each for each in complaints if "net::ERR" not in each]


def test_a_machine_finds_no_barrier_where_nothing_is_going_on(open_page, stage):
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        page.goto("/")
        expect(page.get_by_text("No conference is in progress")).to_be_visible()
        assert barriers(page) == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_machine_finds_no_barrier_in_any_state_of_a_conference(open_page, stage, room, scheme):
    page = open_page(color_scheme=scheme)
    page.goto(f"/conferences/{room.sid}")
    is_live(page)
    page.get_by_role("button", name="Mute Anna", exact=True).click()
    expect(page.get_by_role("button", name="Unmute Anna", exact=True)).to_be_enabled()
    stage.set_fault(ignore=True)
    page.get_by_role("button", name="Hold Anna", exact=True).click()
    expect(page.get_by_role("button", name="Hold Anna", exact=True)).to_be_disabled()
    expect(page.get_by_role("img", name="Timeline")).to_be_visible()
    part(page, "Events").locator("summary").first.click()
    assert barriers(page) == ""
    for name in ("Announce…", "Remove Ben…", "End…"):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert barriers(page) == ""
        page.keyboard.press("Escape")
    room.end()
    expect(page.get_by_text("Ended", exact=True).first).to_be_visible()
    assert barriers(page) == ""


def test_everything_is_reached_by_keyboard_and_seen_to_be(page, room):
    for path in ("/", f"/conferences/{room.sid}"):
        page.goto(path)
        is_live(page)
        expect(page.locator("time").first).to_be_visible()
        if path != "/":
            expect(part(page, "Events").get_by_role("listitem").first).to_be_visible()
        page.evaluate(NOTES_FOCUS)
        for _ in range(page.locator("a[href], button, input, select, summary").count() + 2):
            page.keyboard.press("Tab")
        assert page.evaluate(NOT_REACHED) == []
        assert page.evaluate("unseen") == []


def test_the_title_has_the_focus_after_a_step_to_another_view_and_back(page, room):
    page.goto("/")
    is_live(page)
    card(page, room.name).get_by_role("link").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name=room.name)).to_be_focused()
    expect(page).to_have_title(re.compile(f"^{room.name} . Offhook$"))
    page.get_by_role("link", name="All conferences", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Live conferences")).to_be_focused()
    expect(page).to_have_title("Offhook")


def test_nothing_goes_beyond_the_side_of_a_window_of_any_width(page, room):
    page.goto("/")
    is_live(page)
    expect(cards(page)).to_have_count(2)
    for manner in ("Rows", "Cards"):
        page.get_by_role("button", name=manner).click()
        assert {width: _sideways(page, width) for width in WIDTHS} == dict.fromkeys(WIDTHS, 0)
    page.goto(f"/conferences/{room.sid}")
    expect(page.get_by_role("img", name="Timeline")).to_be_visible()
    expect(part(page, "Events").get_by_role("listitem").first).to_be_visible()
    assert {width: _sideways(page, width) for width in WIDTHS} == dict.fromkeys(WIDTHS, 0)
    page.get_by_role("button", name="End…").click()
    for width in WIDTHS:
        assert _sideways(page, width) == 0
        expect(page.get_by_role("dialog")).to_be_in_viewport(ratio=1)


def test_nothing_goes_on_moving_because_somebody_speaks(open_page, room):
    for motion in ("no-preference", "reduce"):
        page = open_page(reduced_motion=motion)
        page.goto("/")
        expect(someone(card(page, room.name), "Anna")).to_contain_text("speaking")
        page.wait_for_function(f"() => !({MOVING})")


def test_the_page_is_a_shell_that_runs_and_loads_nothing_but_its_own(page, stage, house):
    answer = page.goto("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert not re.search(r"unsafe|\*|https?:", policy)
    assert "'unsafe-inline'" not in policy
    assert page.evaluate("[...document.scripts].every((each) => each.src && !each.text)")
    shell = answer.text()
    assert not re.search(r"<style|\sstyle=|\son\w+=", shell)
    with pytest.raises(urllib.error.HTTPError, match="303") as told:
        urllib.request.build_opener(_NoRedirects).open(f"{house.url}/conferences/CF{'0' * 32}")
    assert told.value.headers["Location"] == f"/sign-in?next=%2Fconferences%2FCF{'0' * 32}"
    told.value.close()


def test_the_vendored_library_is_as_its_publisher_made_it():
    vendored = Path(app.web.__file__).parent / "static/vendor/preact.js"
    assert hashlib.sha256(vendored.read_bytes()).hexdigest() == VENDORED


def _sideways(page: Page, width: int) -> int:
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return sideways(page)


def _is_still(page: Page) -> None:
    """Wait until nothing fades any more: the colours are then what they will be."""
    page.evaluate(
        "Promise.all(document.getAnimations().filter((a) => a instanceof CSSTransition).map((a) => a.finished))"
    )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None
