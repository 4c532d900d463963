"""Who is let in, and how much they are shown: their own account and its subaccounts, and no sign of any other."""

from __future__ import annotations

from base64 import b64encode

import pytest
from redis import Redis

from app.store.sessions import Sessions
from app.web.access import Access, Grant
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, ROOM, TOKEN, said
from tests.web.conftest import (
    CHILD,
    CHILD_TOKEN,
    KEYS,
    OLD_TOKEN,
    OPERATOR,
    OUTSIDER,
    OWNER,
    SHARED_KEY,
    STRANGER,
    STRANGERS_TOKEN,
    SUBACCOUNT,
    Site,
)

CHILDS_ROOM, STRANGERS_ROOM, NO_ROOM = ("CF" + digit * 32 for digit in "123")
PAGES = [
    *("/api/conferences", f"/api/conferences/{ROOM}", f"/api/conferences/{ROOM}/events", "/api/stats"),
    *(f"/api/conferences/{ROOM}/timeline", "/api/stream", f"/api/stream?conference={ROOM}"),
    *("/api/conferences/nonsense", "/api/conferences?nonsense=1", "/api/stats?nonsense=1"),
]
ENCODED = b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()


@pytest.fixture
def rooms(site: Site) -> Site:
    """Three accounts with a conference each."""
    site.tell(said("participant-join", ANNA, number=1, second=1))
    site.tell(said("participant-join", BEN, number=1, second=2, room=CHILDS_ROOM, AccountSid=CHILD), token=CHILD_TOKEN)
    site.tell(
        said("participant-join", CLEO, number=1, second=3, room=STRANGERS_ROOM, AccountSid=STRANGER),
        token=STRANGERS_TOKEN,
    )
    site.fold()
    return site


def seen(site: Site, who: tuple[str, str], query: str = "") -> list[str]:
    """The sids of the conferences that somebody is shown."""
    return [conference["sid"] for conference in site.told(f"/api/conferences{query}", who)["conferences"]]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    "who",
    [
        None,
        ("", ""),
        (ACCOUNT, ""),
        (ACCOUNT, "wrong"),
        (ACCOUNT, TOKEN.upper()),
        (ACCOUNT, TOKEN + " "),
        (ACCOUNT, CHILD_TOKEN),
        (ACCOUNT, SHARED_KEY.secret.decode()),
        (ACCOUNT.upper(), TOKEN),
        ("", TOKEN),
        (STRANGER, TOKEN),
        ("AC" + "0" * 32, TOKEN),
        (OPERATOR[0], TOKEN),
        (OPERATOR[0], ""),
        ("other", OPERATOR[1]),
        (ACCOUNT, "\u00e9\U0001f600"),
    ],
)
def test_who_is_unknown_is_asked_who_they_are(rooms: Site, path: str, who: tuple[str, str] | None) -> None:
    answer = rooms.ask(path, who)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert answer.get_json()["status"] == 401


@pytest.mark.parametrize(
    "header",
    [
        *("", "Basic", "Basic !", "Basic Og==", f"Bearer {TOKEN}", "Digest x=y", f"Token {ENCODED}", ENCODED),
        "Basic " + b64encode(b"\xff:\xff").decode(),
    ],
)
def test_anything_but_http_basic_is_nobody(site: Site, header: str) -> None:
    answer = site.http.get("/api/conferences", headers={"Authorization": header})
    assert answer.status_code == 401
    assert "Basic" in answer.headers["WWW-Authenticate"]


SCRIPTS: list[dict[str, str]] = [
    {"Accept": "text/event-stream"},
    {"Sec-Fetch-Mode": "cors"},
    {"Sec-Fetch-Mode": "same-origin"},
    {},
]
"""What a script's requests carry; the last one nothing but the cookie of a session that has ended."""


@pytest.mark.parametrize("headers", SCRIPTS)
@pytest.mark.parametrize("who", [None, (ACCOUNT, "wrong")])
def test_a_page_s_script_is_told_without_the_browser_s_own_dialog(
    site: Site, headers: dict[str, str], who: tuple[str, str] | None
) -> None:
    if not headers:
        site.http.set_cookie("offhook", "x")
    for path in ("/api/stats", f"/2010-04-01/Accounts/{ACCOUNT}/Conferences.json"):
        answer = site.ask(path, who, headers=headers)
        assert answer.status_code == 401
        assert "WWW-Authenticate" not in answer.headers
        assert answer.get_json()["status"] == 401


def test_a_browser_that_goes_to_an_address_is_asked_who_it_is(site: Site) -> None:
    answer = site.ask("/api/stats", None, headers={"Sec-Fetch-Mode": "navigate"})
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize("header", ["", "Basic", "Basic !", f"Bearer {TOKEN}", f"Basic {ENCODED[:-8]}", "x"])
def test_who_sends_a_bad_key_is_not_let_in_by_a_session(site: Site, header: str) -> None:
    site.http.set_cookie("offhook", Sessions(site.redis).open(OPERATOR[0], OPERATOR[1].encode()))
    assert site.ask("/api/stats", None).status_code == 200
    assert site.ask("/api/stats", None, headers={"Authorization": header}).status_code == 401


def test_who_sends_a_key_and_a_cookie_is_whose_key_it_is(rooms: Site) -> None:
    rooms.http.set_cookie("offhook", Sessions(rooms.redis).open(OPERATOR[0], OPERATOR[1].encode()))
    assert seen(rooms, SUBACCOUNT) == [CHILDS_ROOM]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        *(({}, 404), ({"Sec-Fetch-Site": "none"}, 404), ({"Sec-Fetch-Site": "same-origin"}, 404)),
        *(({"Origin": "http://localhost"}, 404), ({"Origin": "https://localhost"}, 404)),
        *(({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403)),
        *(({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Origin": "http://["}, 403)),
    ],
)
def test_a_key_changes_nothing_for_another_site_s_page(site: Site, headers: dict[str, str], status: int) -> None:
    """A browser remembers keys, too. What is asked for here is nowhere, so that whoever may ask is told just that."""
    path = f"/2010-04-01/Accounts/{ACCOUNT}/Nothing.json"
    assert site.http.post(path, auth=OWNER, headers=headers).status_code == status
    assert site.ask("/api/stats", OWNER, headers=headers).status_code == 200, "reading is not changing"


def access_of(sessions: Sessions) -> Access:
    """Who may be let in, on these sessions."""
    return Access(KEYS, {}, {OPERATOR[0]: Grant(OPERATOR[1].encode(), control=False, account=None)}, sessions)


def test_a_long_stream_learns_that_its_session_has_ended(site: Site) -> None:
    sessions = Sessions(site.redis)
    access, token = access_of(sessions), sessions.open(OPERATOR[0], OPERATOR[1].encode())
    with site.app.test_request_context(headers={"Cookie": f"offhook={token}"}):
        reader = access.reader()
    assert access.still_in(reader)
    assert token not in repr(reader)
    sessions.close(token)
    assert not access.still_in(reader)


def test_a_long_stream_goes_on_for_who_sent_a_key_and_while_redis_is_away(site: Site, nowhere: Redis) -> None:
    sessions = Sessions(site.redis)
    token = sessions.open(OPERATOR[0], OPERATOR[1].encode())
    access = access_of(sessions)
    with site.app.test_request_context(auth=OPERATOR):
        by_key = access.reader()
    with site.app.test_request_context(headers={"Cookie": f"offhook={token}"}):
        by_session = access.reader()
    sessions.close(token)
    assert access.still_in(by_key)
    assert access_of(Sessions(nowhere)).still_in(by_session)


def test_a_wrong_name_and_a_wrong_secret_are_told_apart_by_nothing(site: Site) -> None:
    answers = [site.ask("/api/stats", who) for who in ((ACCOUNT, "wrong"), ("AC" + "0" * 32, "wrong"), ("x", "wrong"))]
    assert len({answer.data for answer in answers}) == 1


def test_wrong_secrets_are_counted_and_stand_in_nobodys_way(site: Site) -> None:
    for _ in range(50):
        assert site.ask("/api/stats", (OPERATOR[0], "wrong")).status_code == 401
        assert site.ask("/healthz", ("nobody", "")).status_code == 200, "that needs no key"
    site.ask("/api/stats", None)
    assert site.told("/api/stats", OPERATOR)["callbacks"]["refused"] == {"sign-in": 50}


@pytest.mark.parametrize("token", [TOKEN, OLD_TOKEN])
def test_while_tokens_rotate_both_let_in(rooms: Site, token: str) -> None:
    assert seen(rooms, (ACCOUNT, token)) == [ROOM]


def test_an_account_sees_itself_and_an_api_key_sees_all(rooms: Site) -> None:
    assert seen(rooms, OWNER) == [ROOM]
    assert seen(rooms, SUBACCOUNT) == [CHILDS_ROOM]
    assert seen(rooms, OUTSIDER) == [STRANGERS_ROOM]
    assert seen(rooms, OPERATOR) == [STRANGERS_ROOM, CHILDS_ROOM, ROOM]


def test_a_parent_may_ask_for_its_subaccount(rooms: Site) -> None:
    assert seen(rooms, OWNER, f"?account={CHILD}") == [CHILDS_ROOM]
    assert rooms.told(f"/api/conferences/{CHILDS_ROOM}", OWNER)["account_sid"] == CHILD
    assert len(rooms.told(f"/api/conferences/{CHILDS_ROOM}/events", OWNER)["events"]) == 1


def test_an_api_key_may_ask_for_any_account(rooms: Site) -> None:
    assert seen(rooms, OPERATOR, f"?account={STRANGER}") == [STRANGERS_ROOM]
    assert seen(rooms, OPERATOR, f"?account=AC{'0' * 32}") == []


@pytest.mark.parametrize(
    ("who", "account"),
    [(SUBACCOUNT, ACCOUNT), (SUBACCOUNT, STRANGER), (OWNER, STRANGER), (OUTSIDER, CHILD), (OWNER, ""), (OWNER, "x")],
)
def test_another_account_may_not_be_asked_for(rooms: Site, who: tuple[str, str], account: str) -> None:
    answer = rooms.ask(f"/api/conferences?account={account}", who)
    assert answer.status_code == 404
    assert set(answer.get_json()) == {"status", "message"}


@pytest.mark.parametrize("what", ["", "/events", "/events?limit=1"])
@pytest.mark.parametrize(
    ("who", "hidden"), [(SUBACCOUNT, ROOM), (SUBACCOUNT, STRANGERS_ROOM), (OWNER, STRANGERS_ROOM), (OUTSIDER, ROOM)]
)
def test_what_is_anothers_might_as_well_not_exist(rooms: Site, who: tuple[str, str], hidden: str, what: str) -> None:
    others, nobodys = (
        rooms.ask(f"/api/conferences/{hidden}{what}", who),
        rooms.ask(f"/api/conferences/{NO_ROOM}{what}", who),
    )
    assert (others.status_code, nobodys.status_code) == (404, 404)
    assert others.get_data(as_text=True).replace(hidden, NO_ROOM) == nobodys.get_data(as_text=True)
    assert dict(others.headers) == dict(nobodys.headers)


@pytest.mark.parametrize("query", [f"?participant={CLEO}", "?participant=cleo", "?friendly_name=Stand-up&limit=500"])
def test_no_filter_finds_what_is_anothers(rooms: Site, query: str) -> None:
    assert STRANGERS_ROOM in seen(rooms, OPERATOR, query)
    assert STRANGERS_ROOM not in seen(rooms, OWNER, query)
    assert STRANGERS_ROOM not in seen(rooms, SUBACCOUNT, query)


def test_the_numbers_are_of_ones_own_conferences(rooms: Site) -> None:
    for who in (OWNER, SUBACCOUNT, OUTSIDER):
        assert rooms.told("/api/stats", who)["conferences"] == {"init": 0, "in-progress": 1, "completed": 0}
    assert rooms.told("/api/stats")["conferences"]["in-progress"] == 3


@pytest.mark.parametrize("who", [OWNER, SUBACCOUNT, OUTSIDER])
def test_dead_letters_are_for_the_operator_only(rooms: Site, who: tuple[str, str]) -> None:
    rooms.tell(said("participant-join", "no sid", number=2, second=4))
    rooms.fold()
    assert "dead_letters" not in rooms.told("/api/stats", who)
    assert "no sid" not in rooms.ask("/api/stats", who).get_data(as_text=True)
    assert len(rooms.told("/api/stats", OPERATOR)["dead_letters"]) == 1


def test_the_health_of_the_process_is_no_secret(rooms: Site) -> None:
    for path in ("/healthz", "/readyz"):
        answer = rooms.ask(path, None)
        assert answer.status_code == 200
        assert not {ACCOUNT, ROOM, ANNA, "anna"} & set(answer.get_data(as_text=True).split('"'))
