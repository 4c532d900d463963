"""A real Chromium: where it is, how it is started, and what it complains of."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # ships no types
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request
from playwright.sync_api import Error as PlaywrightError

from tests.browser.stage import KEYS

NAMES = ("chromium", "chromium-browser", "google-chrome")
NONE_THERE = f"no {', '.join(NAMES)} on PATH; on Debian and Ubuntu: apt install chromium"

SWITCHES = (
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # it reaches nothing but this machine
)

TELL_OF_VIOLATIONS = """
addEventListener("securitypolicyviolation", violation =>
    console.error(`Content-Security-Policy: ${violation.effectiveDirective} ${violation.blockedURI}`))
"""

WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")


def path() -> str | None:
    """The first of the names that is on PATH."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def launch(playwright: Playwright, executable: str) -> Browser:
    """Start it, without a window. Its sandbox cannot hold root."""
    return playwright.chromium.launch(executable_path=executable, args=SWITCHES, chromium_sandbox=os.geteuid() != 0)


def new_context(browser: Browser, url: str, complaints: list[str], **options: Any) -> BrowserContext:
    """A window with nothing kept from others, for the pages of one Offhook. What it complains of goes to the list:
    errors and warnings on its console, exceptions that no script has caught, breaches of the Content-Security-Policy
    and requests to anywhere else.
    """
    context = browser.new_context(base_url=url, accept_downloads=False, **options)
    context.add_init_script(TELL_OF_VIOLATIONS)

    def hear(message: ConsoleMessage) -> None:
        where = message.location["url"]
        if message.type in ("error", "warning") and not where.endswith("/favicon.ico"):  # asked for by no page of ours
            complaints.append(f"{message.type}: {message.text} ({where})")

    def look(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(url).netloc:
            complaints.append(f"a request to elsewhere: {request.url}")

    context.on("console", hear)
    context.on("weberror", lambda error: complaints.append(f"uncaught: {error.error}"))
    context.on("request", look)
    return context


def sign_in(context: BrowserContext, url: str, name: str) -> None:
    """As the form does it; the cookie is the window's from then on."""
    words = {"name": name, "secret": KEYS[name]}
    answer = context.request.post(f"{url}/session", data=words, headers={"Origin": url})
    assert answer.status == 204, f"signing in as {name} was answered {answer.status}"


def close(context: BrowserContext) -> None:
    """Close it once its pages have said all that they have to say."""
    for page in context.pages:
        with suppress(PlaywrightError):  # a page may have crashed or be on its way elsewhere
            page.evaluate("0")
    context.close()


def barriers(page: Page) -> str:
    """What axe finds against WCAG 2.2 AA in the page as it stands; empty if that is nothing."""
    options = {
        "resultTypes": ["violations"],
        "runOnly": {"type": "tag", "values": WCAG},
        "rules": {"target-size": {"enabled": True}},
    }
    found = Axe().run(page, options=options)
    return found.generate_report() if found.violations_count else ""
