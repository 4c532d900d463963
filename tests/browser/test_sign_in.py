"""Signing in as a person does it, in a real Chromium."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.chromium import barriers
from tests.browser.stage import KEYS


def test_the_name_and_secret_of_a_key_lead_to_the_conferences(open_page, house, stage):
    stage.open_room("Support desk").join("Anna")
    stage.settle()
    page = open_page(None)
    page.goto("/sign-in")
    page.get_by_label("Name").fill("desk")
    page.get_by_label("Secret").fill(KEYS["desk"])
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{house.url}/")
    expect(page.get_by_role("heading", name="Support desk", exact=True)).to_be_visible()
    expect(page.get_by_text("Anna")).to_be_visible()


def test_a_wrong_secret_is_said_and_the_form_stays(open_page, complaints):
    page = open_page(None)
    page.goto("/sign-in")
    page.get_by_label("Name").fill("desk")
    page.get_by_label("Secret").fill("not the secret")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    expect(page).to_have_url(re.compile("/sign-in$"))
    assert "401" in complaints.pop()  # the browser's own line about any answer that is an error


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1440])
def test_the_form_has_no_barrier_that_a_machine_can_find_and_fits_its_window(open_page, scheme, width):
    page = open_page(None, color_scheme=scheme, viewport={"width": width, "height": 800})
    page.goto("/sign-in")
    assert barriers(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
