"""Who may do what at which address: one table, from which no address may be missing. And ways around it."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import requests
from twilio.base.exceptions import TwilioRestException
from twilio.http import HttpClient
from twilio.http.response import Response
from twilio.rest import Client

from app.store.sessions import Sessions
from app.upstream.api import Answer, Twilio
from app.web import webhook
from tests.cast import ACCOUNT, ANNA, ROOM, said
from tests.web.conftest import FORM, OPERATOR, OUTSIDER, OWNER, STEERER, STRANGER, Site
from tests.web.hostile import Sent

HERE = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences"
RECORDING = "RE" + "4" * 32

Key = tuple[str, str]


class Who(NamedTuple):
    """Somebody who asks."""

    key: Key | None = None
    session: Key | None = None
    """Whose browser it is."""
    site: str | None = None
    """What the browser says of the page that asks."""


PEOPLE = [
    Who(),
    Who(OPERATOR),
    Who(STEERER),
    Who(OUTSIDER),
    Who(session=STEERER, site="same-origin"),
    Who(session=STEERER),
    Who(session=STEERER, site="cross-site"),
]
"""Nobody; a key that reads; one that controls; another account's owner; and browsers that are signed in with a key that
controls: on our page, on nobody knows which, on another site's."""

PUBLIC = (200, 200, 200, 200, 200, 200, 200)
LIST = (401, 200, 200, 200, 200, 200, 200)
ONE = (401, 200, 200, 404, 200, 200, 200)
PAGE = (303, 200, 200, 200, 200, 200, 200)
CHANGE = (401, 403, 200, 404, 200, 403, 403)
LOOK = (401, 403, 202, 404, 202, 403, 403)
NO_CHANGE = (401, 405, 405, 404, 405, 403, 403)
SIGN_IN = (403, 403, 403, 403, 415, 403, 403)
SIGN_OUT = (403, 403, 403, 403, 204, 403, 403)
UNSIGNED = (403, 403, 403, 403, 403, 403, 403)
NONE = (405, 405, 405, 405, 405, 405, 405)

Allowed = dict[str, tuple[int, ...]]
READ_ONLY: Allowed = dict.fromkeys(("POST", "PUT", "PATCH", "DELETE"), NO_CHANGE)
TABLE: dict[str, dict[str, Allowed]] = {
    # rule -> address -> method -> what each of PEOPLE gets. Every other method is NONE
    "/": {"/": {"GET": PAGE}},
    "/conferences/<sid>": {f"/conferences/{ROOM}": {"GET": PAGE}},
    "/sign-in": {"/sign-in": {"GET": PUBLIC}},
    "/session": {"/session": {"POST": SIGN_IN, "DELETE": SIGN_OUT}},
    "/healthz": {"/healthz": {"GET": PUBLIC}},
    "/readyz": {"/readyz": {"GET": PUBLIC}},
    "/openapi.json": {"/openapi.json": {"GET": PUBLIC}},
    "/static/<path:filename>": {"/static/follow.js": {"GET": PUBLIC}},
    "/api/conferences": {"/api/conferences": {"GET": LIST}},
    "/api/conferences/<sid>": {f"/api/conferences/{ROOM}": {"GET": ONE}},
    "/api/conferences/<sid>/events": {f"/api/conferences/{ROOM}/events": {"GET": ONE}},
    "/api/conferences/<sid>/timeline": {f"/api/conferences/{ROOM}/timeline": {"GET": ONE}},
    "/api/conferences/<sid>/reconcile": {f"/api/conferences/{ROOM}/reconcile": {"POST": LOOK}},
    "/api/alerts": {"/api/alerts": {"GET": LIST}},
    "/api/stats": {"/api/stats": {"GET": LIST}},
    "/metrics": {"/metrics": {"GET": LIST}},
    "/api/stream": {"/api/stream": {"GET": LIST}, f"/api/stream?conference={ROOM}": {"GET": ONE}},
    "/v1/Conferences": {"/v1/Conferences": {"GET": LIST}},
    "/v1/Conferences/<sid>": {f"/v1/Conferences/{ROOM}": {"GET": ONE}},
    "/v1/Conferences/<sid>/Participants": {f"/v1/Conferences/{ROOM}/Participants": {"GET": ONE}},
    "/v1/Conferences/<sid>/Participants/<anything:who>": {
        f"/v1/Conferences/{ROOM}/Participants/{ANNA}": {"GET": ONE},
    },
    "/2010-04-01/<anything:resource>": {
        f"{HERE}.json": READ_ONLY | {"GET": ONE},
        f"{HERE}/{ROOM}.json": READ_ONLY | {"GET": ONE, "POST": CHANGE},
        f"{HERE}/{ROOM}/Participants.json": READ_ONLY | {"GET": ONE, "POST": CHANGE},
        f"{HERE}/{ROOM}/Participants/{ANNA}.json": READ_ONLY | {"GET": ONE, "POST": CHANGE, "DELETE": CHANGE},
        f"{HERE}/{ROOM}/Recordings.json": READ_ONLY | {"GET": ONE},
        f"{HERE}/{ROOM}/Recordings/{RECORDING}.json": READ_ONLY | {"GET": ONE, "POST": CHANGE, "DELETE": CHANGE},
    },
    webhook.PATH: {f"{webhook.PATH}?AccountSid={ACCOUNT}": {"GET": UNSIGNED, "POST": (415,) * 7}},
}
ADDRESSES = [(rule, address) for rule, addresses in TABLE.items() for address in addresses]
NO_OPTIONS = ("/2010-04-01/<anything:resource>", webhook.PATH)


@pytest.fixture
def passed_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Twilio was asked; it agrees to everything."""
    asked: list[str] = []

    def send(_: Twilio, method: str, account: str, target: str, body: bytes) -> Answer:
        asked.append(f"{method} {target}")
        return Answer(200, {"Content-Type": "application/json"}, b"{}")

    monkeypatch.setattr(Twilio, "send", send)
    return asked


@pytest.fixture
def met(site: Site, passed_on: list[str]) -> Site:
    """A conference, somebody in it, and a recording of it."""
    recorded = {"ConferenceSid": ROOM, "RecordingSid": RECORDING, "RecordingStatus": "completed"}
    site.tell(said("participant-join", ANNA, number=1, second=0), {"AccountSid": ACCOUNT, **recorded})
    site.fold()
    site.app.extensions["offhook.fanout"].stopping = lambda: True  # a stream would never end
    return site


def test_no_address_is_missing(site: Site) -> None:
    assert {rule.rule for rule in site.app.url_map.iter_rules()} | {webhook.PATH} == set(TABLE)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(("rule", "address"), ADDRESSES)
def test_everybody_gets_what_the_table_says(
    met: Site, passed_on: list[str], rule: str, address: str, method: str
) -> None:
    allowed = {**TABLE[rule][address]}
    allowed["HEAD"] = allowed.get("GET", NONE)
    if rule not in NO_OPTIONS:
        allowed["OPTIONS"] = PUBLIC
    for who, status in zip(PEOPLE, allowed.get(method, NONE), strict=True):
        http = met.app.test_client()
        if who.session:
            http.set_cookie("offhook", Sessions(met.redis).open(who.session[0], who.session[1].encode()))
        headers = {"Sec-Fetch-Site": who.site} if who.site else {}
        passed_on.clear()
        with http.open(address, method=method, auth=who.key, headers=headers) as answer:
            assert answer.status_code == status, who
            assert bool(passed_on) == (allowed.get(method) is CHANGE and status == 200), who
            check_headers(answer.headers, public=rule.startswith("/static"), empty=answer.data == b"")
            if status == 405 or method == "OPTIONS":
                assert answer.headers.get("Allow") or rule in NO_OPTIONS, who
            if method == "OPTIONS":
                assert answer.data == b"" or status == 405, who


def check_headers(headers: Any, *, public: bool, empty: bool) -> None:
    """What no answer is without, and what none has."""
    assert not [name for name, _ in headers if name.startswith("Access-Control-")]
    if empty and "X-Content-Type-Options" not in headers:
        return  # an answer of the webhook that says nothing
    assert headers["X-Content-Type-Options"] == "nosniff"
    if not public:
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_no_header_makes_a_question_an_order(met: Site, passed_on: list[str], name: str) -> None:
    for method in ("DELETE", "POST"):
        answer = met.ask(f"{HERE}/{ROOM}/Participants/{ANNA}.json?_method={method}", STEERER, headers={name: method})
        assert answer.status_code == 200
    assert passed_on == []


@pytest.mark.parametrize(
    "name", ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Script-Name", "X-Forwarded-User"]
)
def test_no_header_leads_around_the_table(met: Site, name: str) -> None:
    assert met.ask("/api/stats", None, headers={name: "/healthz"}).status_code == 401
    assert met.ask("/healthz", None, headers={name: "/api/stats"}).get_json() == {"status": "alive"}


TRICKS = [
    *(f"{HERE}/../Calls/{ANNA}.json", f"{HERE}/{ROOM}/../../Calls/{ANNA}.json", f"{HERE}/%2e%2e/Calls/{ANNA}.json"),
    *(f"{HERE}/{ROOM}%2F..%2F..%2FCalls.json", f"{HERE}/{ROOM}%0A.json", f"{HERE}/{ROOM}%00.json"),
    *(f"{HERE}/{ROOM}%0D%0AX:y.json", f"{HERE}/{ROOM};x=1.json", f"{HERE}//{ROOM}.json", f"{HERE}/{ROOM}%3Fx.json"),
    *(f"{HERE}/{ROOM}/participants/{ANNA}.json", f"{HERE}/{ROOM}/Participants/{ANNA}.json/../..", f"{HERE}/{ROOM}/%2e"),
    *(f"{HERE}/{ROOM}/Recordings/..%2F..%2FCalls.json", f"{HERE}/{ROOM}/Recordings/{RECORDING}%0A.json"),
    *(
        f"/2010-04-01/Accounts/{ACCOUNT}%0A/Conferences/{ROOM}.json",
        f"/2010-04-01//Accounts/{ACCOUNT}/Conferences/{ROOM}",
    ),
    *(f"/2010-04-01/Accounts/{STRANGER}/../{ACCOUNT}/Conferences/{ROOM}.json", f"/2010%2D04-01/Accounts/{ACCOUNT}"),
    *(
        f"/x/..{HERE}/{ROOM}.json",
        f"/%2e{HERE}/{ROOM}.json",
        f"{HERE.replace('/C', '%2FC')}/{ROOM}",
    ),
    *(
        f"/2010-04-01/Accounts/{ACCOUNT}.json",
        f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{ANNA}.json",
        f"/2010-04-01/{ROOM}",
    ),
]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("path", TRICKS)
def test_no_path_leads_to_another_part_of_twilio(met: Site, passed_on: list[str], path: str, method: str) -> None:
    basic = "Basic " + b64encode(":".join(STEERER).encode()).decode()
    status, _, _ = Sent(b"Status=completed", {"HTTP_AUTHORIZATION": basic}, path, method, FORM).to(met)
    assert 400 <= status < 500
    assert passed_on == []


@pytest.mark.parametrize(
    "path",
    [
        *(
            "//api/stats",
            "/./api/stats",
            "/x/../api/stats",
            "/%2e/api/stats",
            "/api/stats/",
            "/api/stats;x",
            "/api%2Fstats",
        ),
        *(
            "/API/stats",
            "/api/stats%00",
            "/api/stats%0A",
            "/api/stats.json",
            "/healthz/../api/stats",
            "/static/../api/stats",
        ),
        *("/static/..%2f..%2fapi.py", "/static/%2e%2e/api.py", "/static//etc/passwd", "/static/..\\api.py"),
        *(f"/api/conferences/{ROOM}%0A", f"/v1/Conferences/{ROOM}%00", "http://hooks.example.com/api/stats"),
    ],
)
def test_no_path_leads_past_the_key(met: Site, path: str) -> None:
    status, _, body = Sent(b"", target=path, method="GET").to(met)
    assert status in (400, 401, 404)
    assert b"participants" not in body


class Through(HttpClient):
    """Has the SDK's requests, as they would go over the wire, answered by an application."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def request(
        self,
        method: str,
        url: str,
        params: Any = None,
        data: Any = None,
        headers: Any = None,
        auth: Any = None,
        **_: Any,
    ) -> Response:
        """What the SDK calls."""
        basic = {"HTTP_AUTHORIZATION": "Basic " + b64encode(":".join(auth).encode()).decode()}
        wire = requests.Request(method, url, params=params, data=data, headers=headers).prepare()
        parts = urlsplit(str(wire.url))
        sent = Sent(
            str(wire.body or "").encode(), basic, parts.path + (f"?{parts.query}" if parts.query else ""), method
        )
        status, _, body = sent.to(self.site)
        return Response(status, body.decode())


@pytest.mark.parametrize(
    "sid", [f"../../../Calls/{ANNA}", f"../{ROOM}", "x?Status=completed", "x#", f"{ANNA}\n/", "..", "../..", ".?"]
)
def test_a_sid_that_a_program_took_from_a_stranger_changes_nothing_through_the_sdk(
    met: Site, passed_on: list[str], sid: str
) -> None:
    client = Client(*OWNER, http_client=Through(met))
    conference = client.conferences(ROOM)
    conference.participants(ANNA).update(muted=True)
    assert passed_on == [f"POST {HERE}/{ROOM}/Participants/{ANNA}.json"], "this is how it should be"
    passed_on.clear()
    orders = [
        lambda: conference.participants(sid).update(muted=True),
        lambda: client.conferences(sid).update(status="completed"),
        lambda: client.conferences(sid).participants(ANNA).delete(),
        lambda: conference.recordings(sid).delete(),
    ]
    below = f"POST {HERE}/{ROOM}/Participants/"
    for order in orders:
        try:
            order()
        except TwilioRestException as refusal:
            refused = 400 <= refusal.status < 500
        else:
            refused = False
        # a label may be anything, and stays one
        assert refused or (passed_on[0].startswith(below) and "/" not in passed_on[0].removeprefix(below))
        assert len(passed_on) == (not refused)
        passed_on.clear()
