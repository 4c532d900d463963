"""Where things are on the dashboard, by what people and screen readers know them by."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.cast import ACCOUNT


def cards(page: Page) -> Locator:
    """All conferences that the overview shows, as cards or rows."""
    return page.get_by_role("listitem").filter(has=page.get_by_role("heading", level=2))


def card(page: Page, name: str) -> Locator:
    """The one of that name."""
    return page.get_by_role("listitem").filter(has=page.get_by_role("heading", level=2, name=name, exact=True))


def tally(page: Page, state: str) -> Locator:
    """The number of people in a state, which is a filter too."""
    return page.get_by_role("list", name="Now").get_by_role("button", name=state)


def part(page: Page, name: str) -> Locator:
    """A part of the page by its heading, such as `People`."""
    return page.get_by_role("region", name=name, exact=True)


def someone(within: Locator, name: str) -> Locator:
    """A person in a card, or in the part `People`."""
    return within.get_by_role("listitem").filter(has_text=name)


def freshness(page: Page) -> Locator:
    """What the page says of its own news."""
    return page.get_by_role("banner").get_by_role("status")


def is_live(page: Page) -> None:
    """Wait until the page says that it tells what is true now."""
    expect(freshness(page)).to_have_text("Live")


def ask(page: Page, method: str, path: str, **fields: str) -> int:
    """Make a control request as a script of the page would, at a path of Twilio's. Returns the answer's status."""
    asked = "([method, path, fields]) => fetch(path, {method, body: new URLSearchParams(fields)}).then((a) => a.status)"
    status = page.evaluate(asked, [method, f"/2010-04-01/Accounts/{ACCOUNT}/Conferences/{path}.json", fields])
    return int(status)


def sideways(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return int(overflow)
