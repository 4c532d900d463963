"""One Chromium and one stage for all of these tests, and windows that tell of what goes wrong in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser import chromium
from tests.browser.line import Line
from tests.browser.stage import Stage, opened
from tests.system.house import House

SECONDS = 20
"""For which a page may make a test wait."""

expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium. Playwright's event loop runs in this thread as long as it is there: no longer than these tests."""
    executable = chromium.path()
    if executable is None:
        pytest.skip(chromium.NONE_THERE)
    with sync_playwright() as playwright, chromium.launch(playwright, executable) as browser:
        yield browser


@pytest.fixture(scope="package")
def theatre(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Stage]:
    """The stage; no browser, no stage."""
    with opened(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture
def stage(theatre: Stage) -> Iterator[Stage]:
    """The stage with no conference in progress; those of the test are ended after it."""
    yield theatre
    theatre.forget_requests()
    theatre.end_all()


@pytest.fixture
def house(stage: Stage) -> House:
    """The stage's Offhook."""
    return stage.house


@pytest.fixture
def line(house: House) -> Iterator[Line]:
    """A line to Offhook for the browser to go by: `open_page(line=line)`."""
    line = Line(house.port)
    yield line
    line.close()


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What the windows have complained of. A test that provokes some takes them out; any other fails."""
    heard: list[str] = []
    yield heard
    assert heard == []


@pytest.fixture
def open_page(browser: Browser, stage: Stage, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    """Opens an empty page in a window of its own, signed in with a key of `KEYS`, or with None not at all; by a `line`
        or directly.

    `options` are Playwright's for a new context, such as `viewport` and `color_scheme`.
    """
    with ExitStack() as at_the_end:

        def open_one(key: str | None = "desk", line: Line | None = None, **options: Any) -> Page:
            url = line.url if line else stage.house.url
            context = chromium.new_context(browser, url, complaints, **options)
            at_the_end.callback(chromium.close, context)
            context.set_default_timeout(SECONDS * 1000)
            if key:
                chromium.sign_in(context, url, key)
            return context.new_page()

        yield open_one


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """An empty page, signed in as the desk."""
    return open_page()
