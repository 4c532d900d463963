"""Signing in with a browser: what opens a session, what it lets see and do, what ends it, and what must not use it."""

from __future__ import annotations

import hmac
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from app.store import keys
from app.store.sessions import LONGEST, Session, Sessions, digest
from app.upstream.api import Answer, Twilio
from tests.cast import ACCOUNT, TOKEN
from tests.described import check
from tests.web import conftest
from tests.web.conftest import (
    CHILD,
    KEYS,
    OLD_TOKEN,
    OPERATOR,
    OUTSIDER,
    OWNER,
    SHARED_KEY,
    STEERER,
    STRANGER,
    SUBACCOUNT,
    TENANT,
    Site,
    room,
)

OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}
END = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences/{room(2)}.json"
"""Where a conference of `several` is ended."""


def ask_in(site: Site, given: Any, **headers: str) -> TestResponse:
    """What the page is answered that sends this JSON. The site's client keeps the cookie, as a browser would."""
    return site.http.post("/session", json=given, headers=headers or OUR_PAGE)


def sign_in(site: Site, who: tuple[str, str]) -> str:
    """The token of the session that somebody has opened."""
    answer = ask_in(site, {"name": who[0], "secret": who[1]})
    assert answer.status_code == 204, answer.get_data(as_text=True)
    return token_of(answer)


def signed_in_elsewhere(site: Site, who: tuple[str, str]) -> str:
    """The token of a session that somebody has opened with a browser of their own."""
    words = {"name": who[0], "secret": who[1]}
    return token_of(site.app.test_client().post("/session", json=words, headers=OUR_PAGE))


def token_of(answer: TestResponse) -> str:
    cookie = re.match("offhook=([0-9a-f]{64});", answer.headers["Set-Cookie"])
    assert cookie is not None
    return cookie[1]


def status(site: Site, token: str | None = None) -> int:
    """How the API answers a session: the one of the site's client, or of this token."""
    if token is None:
        return site.ask("/api/stats", None).status_code
    other = site.app.test_client(use_cookies=False)
    return other.get("/api/stats", headers={"Cookie": f"offhook={token}"}).status_code


def seen(site: Site) -> list[str]:
    """The accounts whose conferences the session shows."""
    listed = site.ask("/api/conferences", None).get_json()["conferences"]
    return sorted({conference["account_sid"] for conference in listed})


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What has reached Twilio: method and path."""
    requests: list[tuple[str, str]] = []

    def send(_: Twilio, method: str, account: str, path: str, body: bytes) -> Answer:
        requests.append((method, path))
        return Answer(200, {"Content-Type": "application/json"}, b"{}")

    monkeypatch.setattr(Twilio, "send", send)
    return requests


def test_the_page_needs_no_key_and_keeps_to_itself(site: Site) -> None:
    answer = site.ask("/sign-in", None)
    assert answer.status_code == 200
    assert answer.content_type == "text/html; charset=utf-8"
    policy = {words[0]: words[1:] for words in map(str.split, answer.headers["Content-Security-Policy"].split(";"))}
    assert {name: what for name, what in policy.items() if what != ["'self'"]} == {
        "default-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers


def test_the_page_has_nothing_in_it_that_its_policy_forbids_and_all_that_it_names_is_there(site: Site) -> None:
    page = site.ask("/sign-in", None).get_data(as_text=True)
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert [address for address in named if not address.startswith("/static/")] == []
    for address in named:
        with site.ask(address, None) as answer:
            assert answer.status_code == 200


def test_without_its_script_the_form_sends_nothing_in_an_address(site: Site) -> None:
    page = site.ask("/sign-in", None).get_data(as_text=True)
    assert '<form method="post"' in page
    assert re.search("<button[^>]* disabled", page)
    assert "needs JavaScript" in page
    form = {"name": OPERATOR[0], "secret": OPERATOR[1]}
    answer = site.http.post("/session", data=form, headers=OUR_PAGE)
    assert answer.status_code == 415
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "place", ["/", "/conferences/CF1", "/?status=in-progress#now", "/a//b", "/-", "/conferences/CF1?label=%C3%BC%2F%5C"]
)
def test_a_page_of_ours_may_be_where_one_goes_after(site: Site, place: str) -> None:
    assert going_to(site, place) == place


@pytest.mark.parametrize(
    "place",
    [
        *("", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "\\/evil.example"),
        *("https://evil.example", "https:evil.example", "javascript:alert(1)", "evil.example", " //evil.example"),
        *("/\t/evil.example", "/\n/evil.example", "/\r\n/evil.example", "\t//evil.example", "/a\\b", "/ü", "/\u3000"),
        *("?next=//evil.example", "#x", "/\x00/evil.example", "/ /evil.example", "./"),
    ],
)
def test_nowhere_else_may(site: Site, place: str) -> None:
    assert going_to(site, place) == "/"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("/\\:@?#%.ae \t\n\r\"'<>&") | st.characters(codec="utf-8"), max_size=12))
def test_whatever_is_asked_for_a_browser_stays_on_this_site(site: Site, place: str) -> None:
    assert re.fullmatch(r"/([!-.0-\[\]-~][!-\[\]-~]*)?", going_to(site, place))


def going_to(site: Site, place: str) -> str:
    """Where the page goes once somebody has signed in."""
    page = site.http.get("/sign-in", query_string={"next": place}).get_data(as_text=True)
    found = re.findall(r'data-after="([^"]*)"', page)
    assert len(found) == 1
    return unescape(found[0])


@pytest.mark.parametrize("who", [OWNER, (ACCOUNT, OLD_TOKEN), SUBACCOUNT, OPERATOR, STEERER, TENANT])
def test_who_may_ask_with_a_key_may_sign_in_with_it(site: Site, who: tuple[str, str]) -> None:
    sign_in(site, who)
    assert status(site) == 200


@pytest.mark.parametrize(
    "who",
    [
        *(("", ""), (ACCOUNT, ""), (ACCOUNT, "wrong"), (ACCOUNT, TOKEN + " "), (OPERATOR[0], TOKEN), ("", TOKEN)),
        *((ACCOUNT, SHARED_KEY.secret.decode()), ("other", OPERATOR[1]), (STRANGER, TOKEN), ("é\U0001f600", "é")),
    ],
)
def test_who_may_not_may_not_and_learns_no_more_than_that(site: Site, who: tuple[str, str]) -> None:
    answer = ask_in(site, {"name": who[0], "secret": who[1]})
    assert answer.get_json() == {"status": 401, "message": "The name or the secret is wrong."}
    assert answer.status_code == 401
    assert {"Set-Cookie", "WWW-Authenticate"}.isdisjoint(answer.headers.keys())


def test_the_cookie_is_for_the_browser_and_this_site_only(site: Site) -> None:
    answer = ask_in(site, {"name": OPERATOR[0], "secret": OPERATOR[1]})
    first, *attributes = answer.headers["Set-Cookie"].split("; ")
    assert re.fullmatch("offhook=[0-9a-f]{64}", first)
    assert {each for each in attributes if not each.startswith("Expires=")} == {
        "HttpOnly",
        "SameSite=Strict",
        "Path=/",
        f"Max-Age={LONGEST}",
    }
    assert answer.data == b""


@pytest.mark.parametrize(("origin", "secure"), [("https://localhost", True), ("http://localhost", False)])
def test_behind_tls_the_cookie_is_never_sent_without_it(site: Site, origin: str, secure: bool) -> None:
    answer = ask_in(site, {"name": OPERATOR[0], "secret": OPERATOR[1]}, Origin=origin)
    assert answer.status_code == 204
    assert ("Secure" in answer.headers["Set-Cookie"].split("; ")) is secure


def test_neither_a_token_nor_a_secret_is_in_redis(site: Site) -> None:
    tokens = [signed_in_elsewhere(site, OPERATOR), signed_in_elsewhere(site, OWNER)]
    tokens.append(Sessions(site.redis).ticket(*encoded(OPERATOR)))
    assert len(site.redis.keys("*")) == len(tokens)
    for key in site.redis.keys("*"):
        held = key + site.redis.get(key)
        for word in (*tokens, OPERATOR[1], TOKEN):
            assert word.encode() not in held
            assert not re.fullmatch("[0-9a-f]{64}", word) or bytes.fromhex(word) not in held


def encoded(who: tuple[str, str]) -> tuple[str, bytes]:
    return who[0], who[1].encode()


@pytest.mark.parametrize("name", [OPERATOR[0], STEERER[0], ACCOUNT, CHILD, STRANGER, "", "nobody"])
@pytest.mark.parametrize("known", [b"", b"\x00" * 32, b"a guess", TENANT[1].encode()])
def test_who_can_write_to_redis_but_knows_no_secret_opens_nothing(site: Site, name: str, known: bytes) -> None:
    token = "0" * 64
    for proof in (known, hmac.digest(token.encode(), known, "sha256")):
        record = msgspec.msgpack.encode(Session(name, proof, 1_800_000_000))
        site.redis.set(keys.session(digest(token)), record)
        site.redis.set(keys.ticket(digest(token)), record)
        assert status(site, token) == 401
        assert ask_in(site, {"ticket": token}).status_code == 401


def test_who_has_a_session_cannot_make_it_another_s_by_writing_to_redis(site: Site) -> None:
    token = sign_in(site, TENANT)
    mine = msgspec.msgpack.decode(site.redis.get(keys.session(digest(token))), type=Session)
    assert status(site, token) == 200
    site.redis.set(keys.session(digest(token)), msgspec.msgpack.encode(Session(STEERER[0], mine.proof, mine.opened_at)))
    assert status(site, token) == 401


def test_a_session_ends_when_its_secret_is_replaced(site: Site, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, owner, old = (signed_in_elsewhere(site, who) for who in (OPERATOR, OWNER, (ACCOUNT, OLD_TOKEN)))
    ticket = Sessions(redis).ticket(*encoded(OPERATOR))
    monkeypatch.setattr(conftest, "OPERATOR", (OPERATOR[0], "the operator's new secret"))
    monkeypatch.setattr(conftest, "KEYS", {**KEYS, ACCOUNT: KEYS[ACCOUNT][:1]})
    restarted = Site(redis)
    assert status(restarted, operator) == 401
    assert status(restarted, old) == 401
    assert status(restarted, owner) == 200, "the token that stays"
    assert ask_in(restarted, {"ticket": ticket}).status_code == 401


def test_a_session_ends_when_its_key_is_taken_away(site: Site, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    token = sign_in(site, OUTSIDER)
    monkeypatch.setattr(conftest, "KEYS", {ACCOUNT: KEYS[ACCOUNT]})
    assert status(Site(redis), token) == 401


def test_a_ticket_signs_in_once(site: Site) -> None:
    ticket = Sessions(site.redis).ticket(*encoded(STEERER))
    answer = ask_in(site, {"ticket": ticket})
    assert answer.status_code == 204
    assert status(site, token_of(answer)) == 200
    again = ask_in(site, {"ticket": ticket})
    assert again.status_code == 401
    assert "offhook link" in again.get_json()["message"]
    assert status(site, token_of(answer)) == 200, "whoever had it first stays"


def test_of_two_who_ask_at_the_same_time_one_is_signed_in(site: Site) -> None:
    ticket, together = Sessions(site.redis).ticket(*encoded(STEERER)), threading.Barrier(6)

    def take(_: int) -> int:
        client = site.app.test_client()
        together.wait(20)
        return client.post("/session", json={"ticket": ticket}, headers=OUR_PAGE).status_code

    with ThreadPoolExecutor(6) as threads:
        answers = sorted(threads.map(take, range(6)))
    assert answers == [204, 401, 401, 401, 401, 401]


def test_a_ticket_is_no_cookie_and_a_cookie_no_ticket(site: Site) -> None:
    ticket, token = Sessions(site.redis).ticket(*encoded(STEERER)), sign_in(site, STEERER)
    assert status(site, ticket) == 401
    assert ask_in(site, {"ticket": token}).status_code == 401


def test_signing_out_ends_the_session_and_takes_the_cookie(site: Site) -> None:
    token = sign_in(site, OPERATOR)
    answer = site.http.delete("/session", headers=OUR_PAGE)
    assert answer.status_code == 204
    assert answer.headers["Set-Cookie"].startswith("offhook=;")
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert site.http.get_cookie("offhook") is None
    assert status(site, token) == 401
    assert site.http.delete("/session", headers=OUR_PAGE).status_code == 204, "who is out already, too"


def test_signing_in_anew_ends_the_session_before(site: Site) -> None:
    first = sign_in(site, OPERATOR)
    second = sign_in(site, STEERER)
    assert (status(site, first), status(site, second)) == (401, 200)


def test_a_failed_attempt_leaves_one_signed_in(site: Site) -> None:
    token = sign_in(site, OPERATOR)
    assert ask_in(site, {"name": OPERATOR[0], "secret": "wrong"}).status_code == 401
    assert status(site, token) == 200


@pytest.mark.parametrize(
    ("who", "accounts"),
    [
        (OWNER, [ACCOUNT]),
        (SUBACCOUNT, [CHILD]),
        (TENANT, [STRANGER]),
        (OPERATOR, sorted([ACCOUNT, CHILD, STRANGER])),
    ],
)
def test_a_session_shows_what_its_key_shows(several: Site, who: tuple[str, str], accounts: list[str]) -> None:
    sign_in(several, who)
    assert seen(several) == accounts
    hidden = [room(number) for number, account in ((2, ACCOUNT), (5, CHILD), (7, STRANGER)) if account not in accounts]
    if who == OWNER:
        hidden.remove(room(5))  # its subaccount's
    for sid in hidden:
        assert several.ask(f"/api/conferences/{sid}", None).status_code == 404


def test_a_session_reads_twilio_s_addresses_and_the_page(several: Site) -> None:
    sign_in(several, OWNER)
    for path in ("/", f"/2010-04-01/Accounts/{ACCOUNT}/Conferences.json", "/v1/Conferences"):
        assert several.ask(path, None).status_code == 200


@pytest.mark.parametrize("who", [OWNER, STEERER])
@pytest.mark.parametrize("headers", [OUR_PAGE, {"Origin": "http://localhost"}, {"Origin": "https://localhost"}])
def test_our_page_controls_with_the_session(
    several: Site, sent: list[tuple[str, str]], who: tuple[str, str], headers: dict[str, str]
) -> None:
    sign_in(several, who)
    answer = several.http.post(END, data={"Status": "completed"}, headers=headers)
    assert answer.status_code == 200
    assert sent == [("POST", END)]


@pytest.mark.parametrize(("who", "expected"), [(OPERATOR, 403), (TENANT, 404), (OUTSIDER, 404)])
def test_a_session_controls_no_more_than_its_key(
    several: Site, sent: list[tuple[str, str]], who: tuple[str, str], expected: int
) -> None:
    sign_in(several, who)
    assert several.http.post(END, data={"Status": "completed"}, headers=OUR_PAGE).status_code == expected
    assert sent == []


ELSEWHERE: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://evil.example/http://localhost"},
    {"Origin": "http://user@localhost"},
    {"Origin": "localhost"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://["},
    {"Origin": "", "Host": "not a host"},
    {"Origin": "null", "Host": "é"},
    {"Referer": "http://localhost/"},
]


@pytest.mark.parametrize("headers", ELSEWHERE)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_what_is_not_known_to_come_from_our_page_does_nothing_with_the_session(
    several: Site, sent: list[tuple[str, str]], method: str, headers: dict[str, str]
) -> None:
    sign_in(several, STEERER)
    path = END.replace(".json", f"/Participants/{'CA' + '1' * 32}.json")
    answer = several.http.open(path, method=method, headers=headers)
    assert answer.status_code == 403
    if method in ("POST", "DELETE"):
        check(method, path, 403, answer.data, answer.content_type)
    assert answer.get_json()["code"] == 20003
    assert sent == []
    assert several.stored() == {shard: [] for shard in several.stored()}, "not even written down"


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_what_is_not_known_to_come_from_our_page_signs_nobody_in_or_out(site: Site, headers: dict[str, str]) -> None:
    ticket = Sessions(site.redis).ticket(*encoded(STEERER))
    for words in ({"name": OPERATOR[0], "secret": OPERATOR[1]}, {"ticket": ticket}):
        answer = site.http.post("/session", json=words, headers=headers)
        assert answer.status_code == 403
        assert "Set-Cookie" not in answer.headers
    token = token_of(ask_in(site, {"ticket": ticket}))
    answer = site.http.delete("/session", headers=headers)
    assert answer.status_code == 403
    assert status(site, token) == 200


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"{", b'"x"', b"\xff", b"[" * 60_000, b'{"name":' * 8_000, b'{"ticket": "\\ud800"}'),
        *(b'{"name": 1, "secret": 2}', b'{"ticket": null}', b'{"ticket": ["x"]}', b'{"name": {}, "secret": "x"}'),
        *(b'{"ticket": "x", "more": 1}', b'{"password": "x"}', b"name=x&secret=y", b'{"name": "\xff"}'),
    ],
)
def test_what_cannot_be_understood_is_said_so(site: Site, body: bytes) -> None:
    answer = site.http.post("/session", data=body, content_type="application/json", headers=OUR_PAGE)
    assert answer.status_code == 400
    assert "ticket" in answer.get_json()["message"]


@pytest.mark.parametrize("given", [{}, {"ticket": ""}, {"name": "x"}, {"ticket": "x" * 60_000}, {"ticket": "é\0\n"}])
def test_what_says_too_little_or_nonsense_signs_nobody_in(site: Site, given: dict[str, str]) -> None:
    assert ask_in(site, given).status_code == 401


def test_a_huge_body_is_not_read(site: Site) -> None:
    assert ask_in(site, {"ticket": "x" * 70_000}).status_code == 413


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_any_page_can_send_by_a_form_is_refused(site: Site, media: str) -> None:
    body = b'{"name": "operator", "secret": "x"}'
    assert site.http.post("/session", data=body, content_type=media, headers=OUR_PAGE).status_code == 415


@pytest.mark.parametrize(
    "cookie", ["", '""', "x", "0" * 64, "é", "\xff", "x" * 4000, "a=b", "..", "\\", '"\\303', "*", "offhook:session:x"]
)
def test_a_cookie_that_is_none_of_ours_is_nobody(site: Site, cookie: str) -> None:
    sign_in(site, OPERATOR)
    assert status(site, cookie) == 401


def test_failed_attempts_are_counted_in_the_log_with_nothing_of_what_was_tried(site: Site) -> None:
    with capture_logs() as lines:
        for number in range(20):
            ask_in(site, {"name": f"a name {number}", "secret": "a wrong secret"})
            ask_in(site, {"ticket": "a wrong ticket"})
    assert [(line["log_level"], line["reason"]) for line in lines] == [("warning", "sign-in")]
    assert "a wrong" not in str(lines)
    assert "a name" not in str(lines)
    assert site.told("/api/stats")["callbacks"]["refused"] == {"sign-in": 40}


def test_without_redis_a_browser_is_told_so(nowhere: Redis) -> None:
    site = Site(nowhere)
    assert ask_in(site, {"name": OPERATOR[0], "secret": OPERATOR[1]}).status_code == 503
    assert ask_in(site, {"ticket": "x"}).status_code == 503
    assert status(site, "x") == 503
    assert site.ask("/sign-in", None).status_code == 200
