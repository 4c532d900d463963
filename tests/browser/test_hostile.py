"""Whatever callers, labels and URLs are called, the dashboard shows it as text, in its place, and runs none of it."""

from __future__ import annotations

from datetime import UTC, datetime

from playwright.sync_api import Page, expect

from app.simulator.rooms import stamp
from tests.browser.stage import Room, Stage
from tests.browser.views import cards, is_live, part, sideways

STRINGS = {
    "markup": '<img src=x onerror="globalThis.ran = true"><script>globalThis.ran = true</script>',
    "attribute": "\"'></a><svg onload=globalThis.ran=true>${globalThis.ran=true}",
    "address": "javascript:globalThis.ran=true",
    "right to left": "\u202eevil\u2066\u200f conference\u0000",
    "long": "W" * 10_000,
    "invisible": "\u200b\ufeff\u200d",
    "lines": "one\r\ntwo\u2028three\n\n\n",
}

EVENTS = 8
"""How many callbacks `_happen` sends."""


def test_no_string_of_a_callback_runs_or_breaks_the_page(open_page, stage):
    rooms = {kind: _happen(stage, text) for kind, text in STRINGS.items()}
    stage.settle()
    narrow, wide = (open_page(viewport={"width": width, "height": 800}) for width in (320, 1440))
    for page in (narrow, wide):
        page.goto("/")
        is_live(page)
        expect(cards(page)).to_have_count(len(STRINGS))
        _is_whole(page)
        page.get_by_role("button", name="Rows").click()
        _is_whole(page)
    for kind, sid in rooms.items():
        page = wide if kind == "markup" else narrow
        page.goto(f"/conferences/{sid}")
        events = part(page, "Events").get_by_role("listitem")
        expect(events).to_have_count(EVENTS)
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        expect(page.get_by_role("img", name="Timeline of 1 participants")).to_be_visible()
        _is_whole(page)
        end = {"ReasonConferenceEnded": STRINGS[kind]}
        stage.put(None, _told(stage, sid, "conference-end", STRINGS[kind], number=EVENTS + 1) | end)
        expect(page.get_by_text("Ended", exact=True).first).to_be_visible()
        _is_whole(page)
    for page in (narrow, wide):
        page.goto("/")
        for sid in rooms.values():
            expect(part(page, "Recently ended").locator(f"[href$='{sid}']")).to_be_attached()
        _is_whole(page)


def _is_whole(page: Page) -> None:
    assert page.evaluate("globalThis.ran") is None
    assert page.evaluate("document.querySelectorAll('main script, main img, main iframe, main [onload]').length") == 0
    links = page.evaluate("[...document.links].map((each) => each.protocol)")
    assert set(links) <= {"http:"}
    assert sideways(page) == 0


def _happen(stage: Stage, text: str) -> str:
    """A conference in which everything that is text says this. Returns its sid."""
    sid, call = stage.new_sid("CF"), stage.new_sid("CA")
    person = {"CallSid": call, "ParticipantLabel": text, "From": text, "To": text, "Direction": text}
    more = [
        ("conference-start", {"Region": text}),
        ("participant-join", person),
        ("participant-hold", person | {"Hold": "true"}),
        ("participant-speech-start", person | {text[:200]: text}),
        ("announcement-end", {"AnnounceUrl": text, "ReasonAnnouncementFailed": text}),
        (f"participant-{text[:100]}", person),
    ]
    for number, (event, about) in enumerate(more, start=1):
        stage.put(None, _told(stage, sid, event, text, number=number) | about)
    stage.put(
        None,
        {
            "AccountSid": stage.exchange.account_sid,
            "ConferenceSid": sid,
            "RecordingSid": stage.new_sid("RE"),
            "RecordingStatus": "in-progress",
            "RecordingUrl": text,
        },
    )
    stage.put(
        None,
        {
            "AccountSid": stage.exchange.account_sid,
            "CallSid": call,
            "CallStatus": text,
            "To": text,
            "SequenceNumber": "0",
        },
    )
    stage.alarm(Room(stage, sid, text, datetime.now(UTC)), text, text)
    return sid


def _told(stage: Stage, sid: str, event: str, text: str, *, number: int) -> dict[str, str]:
    return {
        "AccountSid": stage.exchange.account_sid,
        "ConferenceSid": sid,
        "FriendlyName": text,
        "StatusCallbackEvent": event,
        "SequenceNumber": str(number),
        "Timestamp": stamp(datetime.now(UTC)),
    }
