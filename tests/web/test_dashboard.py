"""The dashboard's page is empty as it is served: who may see what is decided where its script asks."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest

from tests.cast import ROOM
from tests.web.conftest import KNOWN, OPERATOR, OWNER, STEERER, TENANT, Site

PAGES = ["/", f"/conferences/{ROOM}", "/conferences/nonsense"]


@pytest.mark.parametrize("path", PAGES)
def test_who_is_not_signed_in_is_led_there_and_back(site: Site, path: str) -> None:
    answer = site.ask(path, None)
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/sign-in?{urlencode({'next': path})}")


@pytest.mark.parametrize("path", ["/?show=hold&q=a%20b", "/conferences/%0d%0aX:y", "/conferences/%23?q=%26"])
def test_what_was_asked_for_is_kept_to_the_letter_while_signing_in(site: Site, path: str) -> None:
    answer = site.ask(path, None, environ_overrides={"RAW_URI": path})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/sign-in?{urlencode({'next': path})}")


@pytest.mark.parametrize("path", PAGES)
def test_a_wrong_key_is_told_so(site: Site, path: str) -> None:
    assert site.ask(path, (OPERATOR[0], "wrong")).status_code == 401


@pytest.mark.parametrize("path", PAGES)
def test_the_page_itself_tells_nothing_of_any_conference(several: Site, path: str) -> None:
    page = several.ask(path).get_data(as_text=True)
    assert not [word for sid, account, name, *_ in KNOWN for word in (sid, account, name) if word in page]


@pytest.mark.parametrize(
    ("who", "control"), [(OPERATOR, "false"), (STEERER, "true"), (TENANT, "true"), (OWNER, "true")]
)
def test_the_page_knows_whether_its_key_may_change_conferences(site: Site, who: tuple[str, str], control: str) -> None:
    page = site.ask("/", who).get_data(as_text=True)
    assert f'data-control="{control}"' in page
    assert f'data-name="{who[0]}"' in page
    assert who[1] not in page


@pytest.mark.parametrize("path", PAGES)
def test_the_page_runs_nothing_but_its_own_scripts_and_stands_in_no_frame(site: Site, path: str) -> None:
    answer = site.ask(path)
    policy = dict(word.split(" ", 1) for word in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["worker-src"] == "'self'"
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.findall(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", answer.get_data(as_text=True))


def test_everything_the_page_loads_is_its_own_and_there(site: Site) -> None:
    todo = re.findall(r'(?:src|href)="(/static/[^"]*)"', site.ask("/").get_data(as_text=True))
    seen: set[str] = set()
    while todo:
        path = todo.pop()
        with site.ask(path, None) as answer:
            assert answer.status_code == 200, path
            text = answer.get_data(as_text=True)
        seen.add(path)
        folder = path.rsplit("/", 1)[0]
        for word in re.findall(r"""(?:from|import) ['"]([^'"]+)['"]""", text) if path.endswith(".js") else []:
            target = f"{folder}/{word.removeprefix('./')}" if word.startswith("./") else f"/static/{word.lstrip('./')}"
            if target not in seen and word.startswith("."):
                todo.append(target)
    assert {"/static/dashboard/dashboard.css", "/static/follow.js", "/static/vendor/preact.js"} <= seen
