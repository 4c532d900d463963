"""Control requests: passed on to Twilio as they came, written down before and after, told truly, never sent twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest
from redis import ConnectionError as Unconnected
from redis import Redis
from structlog.testing import capture_logs
from werkzeug.datastructures import Authorization
from werkzeug.test import TestResponse

from app.events import Callback
from app.twilio import control as asking
from app.upstream import api as upstream_api
from app.upstream.api import FORWARDED_BY
from app.web.control import SAME_AGAIN
from app.web.webhook import LARGEST_BODY
from tests import described
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, ROOM, TOKEN, at, progress, said
from tests.web.conftest import (
    CHILD,
    FORM,
    OPERATOR,
    OURS,
    OUTSIDER,
    OWNER,
    PATH,
    STEERER,
    STRANGER,
    STRANGERS_TOKEN,
    SUBACCOUNT,
    TENANT,
    Site,
)
from workers.drain import Drain
from workers.sweep import Sweep

BASE = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences"
HERE = f"{BASE}/{ROOM}"
OTHER_ROOM = "CF" + "e" * 32
RECORDING, OTHER_RECORDING = "RE" + "1" * 32, "RE" + "2" * 32
PHONE = "+15550123456"
SOUND = "https://sound.example.com/hello.mp3"
LATER = "Sun, 22 Nov 2026 13:00:00 +0000"
NEW_CALL = {"From": "+15550100", "To": PHONE, "Label": "cleo"}

Form = Mapping[str, Any] | list[tuple[str, str]] | bytes


def sweep_of(site: Site) -> Sweep:
    """A worker's sweep."""
    drain = Drain(inbox=site.inbox, snapshots=site.snapshots, nudge=lambda: None, stopping=lambda: False)
    return Sweep(site.inbox, site.snapshots, lambda: None, drain)


class Asked(NamedTuple):
    """A request as Twilio would have got it."""

    method: str
    target: str
    headers: Message
    body: bytes


class Said(NamedTuple):
    """What Twilio answers."""

    status: int
    resource: Any = None
    headers: Mapping[str, str] = {}

    @property
    def body(self) -> bytes:
        if self.resource is None or isinstance(self.resource, bytes):
            return self.resource or b""
        return json.dumps(self.resource).encode()


def participant(call: str = ANNA, **more: Any) -> dict[str, Any]:
    """Twilio's Participant resource."""
    return {
        "account_sid": ACCOUNT,
        "call_sid": call,
        "call_sid_to_coach": None,
        "coaching": False,
        "conference_sid": ROOM,
        "date_created": LATER,
        "date_updated": LATER,
        "end_conference_on_exit": False,
        "hold": False,
        "label": None,
        "muted": False,
        "queue_time": None,
        "start_conference_on_enter": True,
        "status": "connected",
        "uri": f"{HERE}/Participants/{call}.json",
    } | more


def conference(**more: Any) -> dict[str, Any]:
    """Twilio's Conference resource."""
    return {
        "account_sid": ACCOUNT,
        "api_version": "2010-04-01",
        "call_sid_ending_conference": None,
        "date_created": LATER,
        "date_updated": LATER,
        "friendly_name": "Stand-up",
        "reason_conference_ended": None,
        "region": "us1",
        "sid": ROOM,
        "status": "in-progress",
        "subresource_uris": {
            "participants": f"{HERE}/Participants.json",
            "recordings": f"{HERE}/Recordings.json",
        },
        "uri": f"{HERE}.json",
    } | more


def recording(sid: str = RECORDING, **more: Any) -> dict[str, Any]:
    """Twilio's Recording resource."""
    return {
        "account_sid": ACCOUNT,
        "api_version": "2010-04-01",
        "call_sid": None,
        "channels": 1,
        "conference_sid": ROOM,
        "date_created": LATER,
        "date_updated": LATER,
        "duration": None,
        "encryption_details": None,
        "error_code": None,
        "price": None,
        "price_unit": None,
        "sid": sid,
        "source": "StartConferenceRecordingAPI",
        "start_time": LATER,
        "status": "stopped",
        "uri": f"{HERE}/Recordings/{sid}.json",
    } | more


def refused(status: int, code: int, message: str = "No.") -> dict[str, Any]:
    """Twilio's error body."""
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    return {"code": code, "message": message, "more_info": more_info, "status": status}


def usual(asked: Asked) -> Said:
    """What Twilio would say to a request that is in order."""
    path = asked.target.partition("?")[0]
    if asked.method == "DELETE":
        return Said(204)
    if path.endswith("/Participants.json"):
        return Said(201, participant(CLEO, status="queued", queue_time="1200", label="cleo"))
    if "/Participants/" in path:
        call = path.rpartition("/")[2].removesuffix(".json")
        return Said(200, participant(call if call.startswith("CA") else ANNA))
    return Said(200, recording() if "/Recordings/" in path else conference())


@dataclass
class Upstream:
    """Twilio's REST API as far as it is needed here. `answer` may return None: it hangs up without one."""

    origin: str = ""
    answer: Callable[[Asked], Said | None] = usual
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    """The test has ended: whoever is kept waiting may go."""

    def says(self, status: int, resource: Any = None, **headers: str) -> None:
        """From now on answer everything so."""
        told = Said(status, resource, {name.replace("_", "-"): value for name, value in headers.items()})
        self.answer = lambda _: told

    def hangs_up(self) -> None:
        """From now on take requests and give no answer."""
        self.answer = lambda _: None

    def keeps_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on take requests and say nothing. For sites made after this, it is soon too long."""
        monkeypatch.setattr(upstream_api, "PATIENCE", 0.2)

        def never(_: Asked) -> None:
            self.over.wait(60)

        self.answer = never


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    twilio = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = Asked(
                self.command, self.path, self.headers, self.rfile.read(int(self.headers.get("Content-Length", 0)))
            )
            twilio.asked.append(asked)
            told = twilio.answer(asked)
            if told is None:
                self.close_connection = True
                return
            self.send_response(told.status)
            for name, value in {"Content-Type": "application/json;charset=utf-8", **told.headers}.items():
                self.send_header(name, value)
            if told.status != 204:
                self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        do_DELETE = do_POST  # noqa: N815 - http.server looks the method up by this name

        def log_message(self, *_: object) -> None:
            """Says nothing: the requests are kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    twilio.origin = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield twilio
    twilio.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def site(redis: Redis, upstream: Upstream) -> Site:
    """An Offhook in front of that Twilio, which has heard nothing yet."""
    return Site(redis, upstream=upstream.origin)


@pytest.fixture
def room(site: Site) -> Site:
    """A conference with Anna and Ben. Ben is muted, held, coaching, and it ends with him. Numbers 2 and 3 are lost."""
    site.tell(
        said("conference-start", number=1, second=0),
        said("participant-join", ANNA, number=4, second=1),
        said(
            "participant-join",
            BEN,
            number=5,
            second=2,
            Muted="true",
            Hold="true",
            Coaching="true",
            EndConferenceOnExit="true",
        ),
    )
    site.fold()
    return site


def change(
    site: Site, path: str, form: Form = b"", who: tuple[str, str] = STEERER, method: str = "POST", **more: Any
) -> TestResponse:
    """A control request; its answer is held to its description as far as that goes."""
    body = form if isinstance(form, bytes) else urlencode(form, doseq=True).encode()
    headers = more.pop("headers", {})
    answer = site.app.test_client().open(
        path,
        method=method,
        data=body,
        auth=who,
        content_type=more.pop("content_type", FORM if body else None),
        headers=headers,
        **more,
    )
    if answer.status_code not in NOT_DESCRIBED and path.partition("?")[0].endswith(".json"):
        described.check(method, path, answer.status_code, answer.data, answer.content_type or "")
    return answer


NOT_DESCRIBED = (500,)
"""Whatever Twilio answers there, in whatever shape."""


def failed(answer: TestResponse, status: int) -> str:
    """What a failure in Twilio's shape says."""
    body = answer.get_json()
    assert answer.status_code == status, body
    assert set(body) == {"code", "message", "more_info", "status"}
    assert body["status"] == status
    assert body["more_info"] == f"https://www.twilio.com/docs/errors/{body['code']}"
    message = body["message"]
    assert isinstance(message, str)
    return message


def actions(site: Site, sid: str = ROOM) -> list[dict[str, Any]]:
    """The actions of a conference's document, once all that waits is folded."""
    site.fold()
    told: list[dict[str, Any]] = site.told(f"/api/conferences/{sid}")["actions"]
    return told


def action(site: Site, sid: str = ROOM) -> dict[str, Any]:
    """The one action of a conference."""
    [only] = actions(site, sid)
    return only


def records(site: Site, sid: str = ROOM) -> list[dict[str, Any]]:
    """The records of control requests in a conference's log."""
    site.fold()
    events = site.told(f"/api/conferences/{sid}/events")["events"]
    return [event for event in events if event["source"] == "control"]


def person(site: Site, call: str, sid: str = ROOM) -> dict[str, Any]:
    """A participant of the document, once all that waits is folded."""
    site.fold()
    everyone = site.told(f"/api/conferences/{sid}")["participants"]
    found: dict[str, Any] = next(each for each in everyone if each["call_sid"] == call)
    return found


# Where it goes


@pytest.mark.parametrize(
    ("method", "path", "form", "verb"),
    [
        ("POST", f"{HERE}.json", {"Status": "completed"}, "update-conference"),
        ("POST", f"{HERE}/Participants.json", NEW_CALL, "add-participant"),
        ("POST", f"{HERE}/Participants/{ANNA}.json", {"Muted": "true"}, "update-participant"),
        ("POST", f"{HERE}/Participants/anna.json", {"Muted": "true"}, "update-participant"),
        ("DELETE", f"{HERE}/Participants/{ANNA}.json", {}, "remove-participant"),
        ("DELETE", f"{HERE}/Participants/anna.json", {}, "remove-participant"),
        ("POST", f"{HERE}/Recordings/{RECORDING}.json", {"Status": "paused"}, "update-recording"),
        ("POST", f"{HERE}/Recordings/Twilio.CURRENT.json", {"Status": "paused"}, "update-recording"),
        ("DELETE", f"{HERE}/Recordings/{RECORDING}.json", {}, "delete-recording"),
    ],
)
def test_every_request_goes_where_it_was_meant_to_go(
    room: Site, upstream: Upstream, method: str, path: str, form: dict[str, str], verb: str
) -> None:
    answer = change(room, path, form, method=method)
    [asked] = upstream.asked
    assert (asked.method, asked.target, asked.body) == (method, path, urlencode(form).encode())
    told = usual(asked)
    assert (answer.status_code, answer.data) == (told.status, told.body)
    assert action(room)["verb"] == verb
    assert action(room)["id"] == answer.headers["Offhook-Action"]


@pytest.mark.parametrize(
    "word", ["a/b", "what?", "no #1", "100%", "50%25", "a b", "Büro ☎", "a+b", "a&b=c", "a.json", "~", "a;b"]
)
def test_names_and_labels_arrive_as_they_are(room: Site, upstream: Upstream, word: str) -> None:
    spelled = quote(word, safe="")
    paths = [f"{BASE}/{spelled}/Participants.json", f"{HERE}/Participants/{spelled}.json"]
    for path in paths:
        assert change(room, path, {"Muted": "true"}).status_code in (200, 201)
    assert [asked.target for asked in upstream.asked] == paths


@pytest.mark.parametrize(
    ("spelled", "word"), [("B%c3%bcro", "B%C3%BCro"), ("%61nna", "anna"), ("a%2fb", "a%2Fb"), ("a/b", "a%2Fb")]
)
def test_another_spelling_of_a_label_is_the_same_label(room: Site, upstream: Upstream, spelled: str, word: str) -> None:
    change(room, f"{HERE}/Participants/{spelled}.json", {"Muted": "true"})
    assert [asked.target for asked in upstream.asked] == [f"{HERE}/Participants/{word}.json"]


@pytest.mark.parametrize("name", [".", "..", "%2e", "%2E%2e"])
def test_a_name_that_would_lead_elsewhere_is_refused(room: Site, upstream: Upstream, name: str) -> None:
    assert failed(change(room, f"{BASE}/{name}/Participants.json", NEW_CALL), 400)
    assert upstream.asked == []


@pytest.mark.parametrize(
    "label", ["..%2F..%2F..%2FCalls", "..", ".", "a%2F..%2F..", "../../../Calls", "%2e%2e%2fCalls"]
)
def test_no_label_leads_out_of_its_conference(room: Site, upstream: Upstream, label: str) -> None:
    change(room, f"{HERE}/Participants/{label}.json", {"Muted": "true"})
    for asked in upstream.asked:
        assert asked.target.startswith(f"{HERE}/Participants/")
        assert asked.target.count("/") == f"{HERE}/Participants/x".count("/")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("POST", f"{BASE}.json"), ("DELETE", f"{HERE}.json"), ("DELETE", f"{HERE}/Participants.json")],
        *[("POST", f"{HERE}/Recordings.json"), ("PUT", f"{HERE}.json"), ("PATCH", f"{HERE}/Participants/{ANNA}.json")],
        *[("POST", f"{BASE}/Stand-up.json"), ("POST", f"{BASE}/Stand-up/Participants/{ANNA}.json")],
        *[("DELETE", f"{BASE}/Stand-up/Participants/{ANNA}.json"), ("POST", f"{BASE}/CF1/Recordings/{RECORDING}.json")],
    ],
)
def test_what_twilio_does_not_have_is_not_sent(room: Site, upstream: Upstream, method: str, path: str) -> None:
    assert change(room, path, method=method).status_code == 405
    assert upstream.asked == []


@pytest.mark.parametrize("path", [f"{HERE}/Recordings/nonsense.json", f"{HERE}/Recordings/RE1.json"])
def test_a_recording_that_cannot_be_is_not_here(room: Site, upstream: Upstream, path: str) -> None:
    assert failed(change(room, path, {"Status": "stopped"}), 404)
    assert upstream.asked == []


def test_the_current_recording_cannot_be_deleted(room: Site, upstream: Upstream) -> None:
    assert failed(change(room, f"{HERE}/Recordings/Twilio.CURRENT.json", method="DELETE"), 404)
    assert upstream.asked == []


def test_a_label_that_was_cut_short_changes_nobody(room: Site, upstream: Upstream) -> None:
    answer = change(room, f"{HERE}/Participants/anna?.json", {"Muted": "true"}, headers={"Accept": "application/json"})
    assert failed(answer, 404)
    assert upstream.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"StatusCallbackEvent=initiated&StatusCallbackEvent=ringing&To=%2B1&From=%2B2",
        b"NotYetKnown=1&Label=B%c3%bcro&a+b=c%20d&e=%7e&&=x&y",
        b"Label=caf%e9&Label=100%",
        "Label=Büro".encode(),
    ],
)
def test_parameters_arrive_byte_for_byte(room: Site, upstream: Upstream, body: bytes) -> None:
    change(room, f"{HERE}/Participants.json", body)
    [asked] = upstream.asked
    assert asked.body == body


@pytest.mark.parametrize(
    "below", [f"/{ROOM}.json", f"/{ROOM}", f"/{ROOM}/Participants/{ANNA}.json", "/Room/Participants"]
)
@pytest.mark.parametrize("query", ["Status=completed", "Status=completed&x=.json", ".json", "&", "a=b/Participants"])
def test_a_query_is_refused_for_a_sid_or_label_may_have_brought_it(
    room: Site, upstream: Upstream, below: str, query: str
) -> None:
    """SDKs do not escape sids: with one that a stranger has written, somebody would be held, or a conference ended."""
    answer = change(room, f"{BASE}{below}?{query}", {"Muted": "true"}, headers={"Accept": "application/json"})
    assert "body" in failed(answer, 400)
    assert upstream.asked == []
    assert records(room) == []


def test_twilio_is_asked_with_its_own_credentials_and_without_ours(room: Site, upstream: Upstream) -> None:
    change(room, f"{HERE}.json", headers={"Cookie": "a=b", "X-Forwarded-For": "192.0.2.1", "Idempotency-Key": "k"})
    change(room, f"{HERE}.json".replace(ACCOUNT, CHILD).replace(ROOM, OTHER_ROOM), who=OWNER)
    assert [_basic(asked) for asked in upstream.asked] == [(ACCOUNT, TOKEN), SUBACCOUNT]
    for asked in upstream.asked:
        assert not {"Cookie", "X-Forwarded-For", "Idempotency-Key"} & set(asked.headers)


def _basic(asked: Asked) -> tuple[str, str]:
    given = Authorization.from_header(asked.headers["Authorization"])
    assert given is not None
    return str(given.username), str(given.password)


# Who may


def test_a_key_that_reads_changes_nothing(room: Site, upstream: Upstream) -> None:
    for method, path in (("POST", f"{HERE}.json"), ("DELETE", f"{HERE}/Participants/{ANNA}.json")):
        assert failed(change(room, path, who=OPERATOR, method=method), 403)
    assert upstream.asked == []
    assert actions(room) == []


@pytest.mark.parametrize("who", [("", ""), (ACCOUNT, "wrong"), ("steerer", "wrong"), (OPERATOR[0], STEERER[1])])
def test_who_is_unknown_changes_nothing(room: Site, upstream: Upstream, who: tuple[str, str]) -> None:
    assert failed(change(room, f"{HERE}.json", who=who), 401).startswith("Authenticate")
    assert upstream.asked == []


@pytest.mark.parametrize("who", [OWNER, STEERER])
def test_an_account_and_a_control_key_may_change(room: Site, upstream: Upstream, who: tuple[str, str]) -> None:
    assert change(room, f"{HERE}.json", {"Status": "completed"}, who=who).status_code == 200
    assert action(room)["by"] == who[0]


@pytest.mark.parametrize("who", [TENANT, OUTSIDER, SUBACCOUNT])
def test_another_account_might_as_well_not_exist(room: Site, upstream: Upstream, who: tuple[str, str]) -> None:
    nobody = "AC" + "0" * 32
    others = change(room, f"{HERE}.json", who=who)
    nobodys = change(room, f"{HERE}.json".replace(ACCOUNT, nobody), who=who)
    assert failed(others, 404).replace(ACCOUNT, nobody) == failed(nobodys, 404)
    assert upstream.asked == []


def test_an_unknown_account_is_not_here(site: Site, upstream: Upstream) -> None:
    assert failed(change(site, f"{HERE}.json".replace(ACCOUNT, "AC" + "0" * 32)), 404)
    assert upstream.asked == []


def test_a_conference_of_another_account_is_not_here(site: Site, upstream: Upstream) -> None:
    told = said("participant-join", CLEO, number=1, second=0, room=OTHER_ROOM, AccountSid=STRANGER)
    site.tell(told, token=STRANGERS_TOKEN)
    site.fold()
    for who in (STEERER, OWNER):
        for path in (f"{BASE}/{OTHER_ROOM}.json", f"{BASE}/{OTHER_ROOM}/Participants.json"):
            assert failed(change(site, path, NEW_CALL, who=who), 404)
    assert upstream.asked == []
    assert actions(site, OTHER_ROOM) == []


def test_a_conference_that_nobody_has_heard_of_is_twilios_business(site: Site, upstream: Upstream) -> None:
    assert change(site, f"{HERE}/Participants/{ANNA}.json", {"Muted": "true"}).status_code == 200
    assert len(upstream.asked) == 1
    assert action(site)["state"] == "accepted"
    assert action(site)["awaits"] == ["muted=true"]


def test_a_conference_that_twilio_does_not_know_either_leaves_no_trace(site: Site, upstream: Upstream) -> None:
    upstream.says(404, refused(404, 20404))
    assert failed(change(site, f"{HERE}.json", {"Status": "completed"}), 404) == "No."
    site.fold()
    assert site.ask(f"/api/conferences/{ROOM}").status_code == 404


# What comes back


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 21220), (401, 20003), (404, 20404), (429, 20429), (502, 20500), (503, 20503), (504, 20504)],
)
def test_twilios_refusals_come_back_as_they_are(room: Site, upstream: Upstream, status: int, code: int) -> None:
    body = refused(status, code, "Büro")
    upstream.says(status, body, Twilio_Request_Id="RQ1", Retry_After="7", X_Powered_By="AT", Set_Cookie="a=b")
    answer = change(room, f"{HERE}/Participants/{ANNA}.json", {"Muted": "true"})
    assert (answer.status_code, answer.get_json()) == (status, body)
    assert answer.data == json.dumps(body).encode()
    assert answer.headers["Twilio-Request-Id"] == "RQ1"
    assert answer.headers["Retry-After"] == "7"
    assert not {"X-Powered-By", "Set-Cookie"} & set(answer.headers.keys())
    told = action(room)
    assert (told["state"], told["status"], told["code"], told["request_id"]) == ("failed", status, code, "RQ1")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"\xff", b'{"sid": 1, "code": "x"}', b'{"call_sid": {}}', b"null"]
)
@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_makes_no_sense_comes_back_as_it_is(
    room: Site, upstream: Upstream, status: int, body: bytes
) -> None:
    upstream.says(status, body)
    answer = room.http.post(f"{HERE}.json", data="Status=completed", content_type=FORM, auth=STEERER)
    assert (answer.status_code, answer.data) == (status, body)
    assert action(room)["status"] == status


def test_a_redirect_of_twilios_comes_back_and_is_not_followed(room: Site, upstream: Upstream) -> None:
    upstream.says(307, b"", Location=f"{upstream.origin}/elsewhere")
    answer = room.http.post(f"{HERE}.json", data="Status=completed", content_type=FORM, auth=STEERER)
    assert answer.status_code == 307
    assert len(upstream.asked) == 1
    assert action(room)["state"] == "failed"


def test_who_is_removed_leaves_an_answer_without_a_body(room: Site, upstream: Upstream) -> None:
    upstream.says(204, None, Twilio_Request_Id="RQ1")
    answer = change(room, f"{HERE}/Participants/{ANNA}.json", method="DELETE")
    assert (answer.status_code, answer.data, answer.headers["Twilio-Request-Id"]) == (204, b"", "RQ1")


def test_who_asks_for_no_json_gets_xml(room: Site, upstream: Upstream) -> None:
    for path in (f"{HERE}/Participants/{ANNA}", f"{HERE}/Participants/{ANNA}.xml"):
        answer = change(room, path, {"Muted": "true"})
        assert answer.content_type.startswith("application/xml")
        assert f"<CallSid>{ANNA}</CallSid>" in answer.get_data(as_text=True)
    assert [asked.target for asked in upstream.asked] == [f"{HERE}/Participants/{ANNA}.json"] * 2
    upstream.says(404, refused(404, 20404))
    assert b"<RestException>" in change(room, f"{HERE}/Participants/{ANNA}", {"Muted": "true"}).data
    assert b"<RestException>" in change(room, f"{HERE}", who=OPERATOR).data


def test_where_nobody_listens_nothing_was_done(redis: Redis) -> None:
    site = Site(redis)
    site.tell(said("participant-join", ANNA, number=1, second=0))
    site.fold()
    message = failed(change(site, f"{HERE}/Participants/{ANNA}.json", {"Muted": "true"}), 502)
    assert "Nothing was done" in message
    told = action(site)
    assert (told["state"], told["error"], told["status"]) == ("failed", "not sent", None)
    assert told["answered_at"] is not None


def test_where_no_answer_comes_it_may_have_been_done(room: Site, upstream: Upstream) -> None:
    upstream.hangs_up()
    message = failed(change(room, f"{HERE}/Participants/{ANNA}.json", {"Muted": "true"}), 502)
    assert "not known" in message
    assert len(upstream.asked) == 1
    told = action(room)
    assert (told["state"], told["error"], told["status"]) == ("requested", "no answer", None)
    room.tell(said("participant-mute", ANNA, number=6, second=9, Muted="true"))
    assert action(room)["state"] == "confirmed"


def test_where_the_answer_is_late_it_may_have_been_done(
    redis: Redis, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.keeps_silent(monkeypatch)
    site = Site(redis, upstream=upstream.origin)
    site.tell(said("participant-join", ANNA, number=1, second=0))
    site.fold()
    message = failed(change(site, f"{HERE}/Participants/{ANNA}.json", {"Muted": "true"}), 504)
    assert "not known" in message
    told = action(site)
    assert (told["state"], told["error"], told["status"]) == ("requested", "no answer", None)
    assert len(upstream.asked) == 1


# What is not passed on


@pytest.mark.parametrize("media", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
def test_a_body_must_be_a_form(room: Site, upstream: Upstream, media: str) -> None:
    assert "Content-Type" in failed(change(room, f"{HERE}.json", b'{"Status":"completed"}', content_type=media), 400)
    assert upstream.asked == []


def test_a_forms_charset_does_not_matter(room: Site, upstream: Upstream) -> None:
    assert change(room, f"{HERE}.json", b"Status=completed", content_type=f"{FORM}; charset=UTF-8").status_code == 200


def test_a_body_may_not_be_too_large(room: Site, upstream: Upstream) -> None:
    body = b"Label=" + b"x" * LARGEST_BODY
    assert failed(change(room, f"{HERE}/Participants.json", body), 413)
    assert change(room, f"{HERE}/Participants.json", body[:LARGEST_BODY]).status_code == 201
    assert len(upstream.asked) == 1


def test_too_many_parameters_are_refused(room: Site, upstream: Upstream) -> None:
    assert failed(change(room, f"{HERE}.json", b"&".join([b"a=b"] * 201)), 400)
    assert upstream.asked == []


def test_an_upstream_that_is_ourselves_is_found_out(room: Site, upstream: Upstream) -> None:
    change(room, f"{HERE}.json")
    assert upstream.asked[0].headers[FORWARDED_BY] == "1"
    answer = change(room, f"{HERE}.json", headers={FORWARDED_BY: "1"})
    assert "TWILIO_API_BASE_URL" in failed(answer, 502)
    assert room.ask(f"{HERE}.json", OWNER, headers={FORWARDED_BY: "1"}).status_code == 502, (
        "nor is it what Twilio shows"
    )
    assert len(upstream.asked) == 1


OWN = [
    f"{OURS}{PATH}",
    f"{OURS}{PATH}/",
    f"{OURS}{PATH}?a=b",
    f"{OURS}{PATH}#rc=3",
    f"HTTPS://HOOKS.EXAMPLE.COM{PATH}",
    f"http://hooks.example.com{PATH}",
    f"https://hooks.example.com:443{PATH}",
    f"https://hooks.example.com:8443{PATH}",
    f"https://hooks.example.com:{PATH}",
    f"https://hooks.example.com.{PATH}",
    f"https://me:secret@hooks.example.com{PATH}",
    f"https://other.example@hooks.example.com{PATH}",
    f"{OURS}/webhooks/%74wilio",
    f"{OURS}/%77%65bhooks%2Ftwilio",
    f"{OURS}/./webhooks/../webhooks/twilio",
    f"{OURS}/webhooks//twilio",
    f"{OURS}//webhooks/twilio",
    f"{OURS}/x/%2e%2e/webhooks/twilio",
    f" {OURS}{PATH} ",
    f"//hooks.example.com{PATH}",
]


@pytest.mark.parametrize("url", OWN)
@pytest.mark.parametrize("hosts", [None, frozenset({"hooks.example.com"})], ids=["any host", "our host"])
def test_our_own_address_is_no_twiml(redis: Redis, upstream: Upstream, url: str, hosts: frozenset[str] | None) -> None:
    site = Site(redis, upstream=upstream.origin, url_hosts=hosts)
    assert "AnnounceUrl" in failed(change(site, f"{HERE}.json", {"AnnounceUrl": url}), 400)
    assert upstream.asked == []


@pytest.mark.parametrize(
    "url",
    [
        *(f"http://localhost{PATH}", f"https://LOCALHOST:5000{PATH}/", "http://a@localhost/webhooks/%74wilio?x=1"),
        f"https://whatever.host.is.ours.example{PATH}",
    ],
)
def test_our_own_address_is_known_without_being_told(redis: Redis, upstream: Upstream, url: str) -> None:
    site = Site(redis, upstream=upstream.origin, public_url=None)
    assert failed(change(site, f"{HERE}.json", {"AnnounceUrl": url}), 400)
    assert upstream.asked == []
    assert change(site, f"{HERE}.json", {"AnnounceUrl": f"https://other.example{PATH}/x"}).status_code == 200


def test_our_own_address_below_a_prefix(redis: Redis, upstream: Upstream) -> None:
    site = Site(redis, upstream=upstream.origin, public_url="https://Example.com:8443/offhook")
    assert failed(change(site, f"{HERE}.json", {"AnnounceUrl": f"https://example.com/offhook{PATH}"}), 400)
    assert change(site, f"{HERE}.json", {"AnnounceUrl": f"https://example.com{PATH}"}).status_code == 200


@pytest.mark.parametrize(
    "name", ["AnnounceUrl", "HoldUrl", "WaitUrl", "ClientNotificationUrl", "announceurl", "ANNOUNCEURL", " AnnounceUrl"]
)
def test_no_parameter_may_fetch_from_our_own_address(room: Site, upstream: Upstream, name: str) -> None:
    assert failed(change(room, f"{HERE}/Participants.json", {name: OURS + PATH}), 400)
    assert upstream.asked == []


@pytest.mark.parametrize("where", ["second", "encoded name"])
def test_our_own_address_is_found_wherever_it_stands(room: Site, upstream: Upstream, where: str) -> None:
    own = quote(OURS + PATH, safe="")
    path, body = {
        "second": (f"{HERE}.json", f"AnnounceUrl={quote(SOUND)}&AnnounceUrl={own}".encode()),
        "encoded name": (f"{HERE}.json", f"%41nnounceUrl={own}".encode()),
    }[where]
    assert failed(change(room, path, body), 400)
    assert upstream.asked == []


@pytest.mark.parametrize(
    "name",
    [
        *("StatusCallback", "ConferenceStatusCallback", "RecordingStatusCallback", "AmdStatusCallback"),
        "ConferenceRecordingStatusCallback",
    ],
)
def test_our_own_address_is_for_callbacks(redis: Redis, upstream: Upstream, name: str) -> None:
    site = Site(redis, upstream=upstream.origin, url_hosts=frozenset({"sound.example.com"}))
    assert change(site, f"{HERE}/Participants.json", {**NEW_CALL, name: OURS + PATH}).status_code == 201
    assert len(upstream.asked) == 1


HOSTS = frozenset({"sound.example.com", "*.cdn.example.net", "[::1]"})


@pytest.mark.parametrize(
    "url",
    [
        "https://sound.example.com/a.mp3",
        "http://sound.example.com:8080/a.mp3?b=c#d",
        "HTTPS://Sound.Example.COM/a",
        "https://sound.example.com./a",
        "https://user:secret@sound.example.com/a",
        "https://a.cdn.example.net/",
        "https://a.b.CDN.example.net",
        "",
    ],
)
def test_allowed_hosts_may_be_named(redis: Redis, upstream: Upstream, url: str) -> None:
    site = Site(redis, upstream=upstream.origin, url_hosts=HOSTS)
    assert change(site, f"{HERE}.json", {"AnnounceUrl": url}).status_code == 200
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a",
        "https://cdn.example.net/",
        "https://evilcdn.example.net/",
        "https://a.cdn.example.net.evil.example/",
        "https://a.sound.example.com/",
        "https://sound.example.com.evil.example/",
        "https://sound.example.com@evil.example/",
        "https://sound.example.com:80@evil.example/",
        "https://evil.example\\@sound.example.com/",
        "https://evil.example\\.cdn.example.net/",
        "https:\\\\sound.example.com\\a",
        "https://evil.example/\\sound.example.com",
        "https://evil.example\t@sound.example.com/",
        "https://sound.example.com\n.evil.example/",
        "https://evil.example?@sound.example.com/",
        "https://evil.example#@sound.example.com/",
        "https://evil.example%2f.cdn.example.net/",
        "https://evil.example%00.cdn.example.net/",
        "https://evil.example;.cdn.example.net/",
        "https://evil.example%23.cdn.example.net/",
        "https://[::1]/",
        "https://[::ffff:192.0.2.1]/",
        "https://[sound.example.com]/",
        "https://[::1].cdn.example.net/",
        "https://[",
        "https://192.0.2.1/",
        "https://3221225985/",
        "https://\u0455ound.example.com/",
        "https://sound\u3002example.com/",
        "https:///sound.example.com/",
        "https:sound.example.com/",
        "//sound.example.com/a",
        "sound.example.com/a",
        "ftp://sound.example.com/a",
        "javascript://sound.example.com/%0aalert(1)",
        "file://sound.example.com/etc/passwd",
        "https://",
        "nonsense",
    ],
)
def test_other_hosts_may_not_be_named(redis: Redis, upstream: Upstream, url: str) -> None:
    site = Site(redis, upstream=upstream.origin, url_hosts=HOSTS)
    for name in ("AnnounceUrl", "HoldUrl", "WaitUrl"):
        assert name in failed(change(site, f"{HERE}/Participants/{ANNA}.json", {name: url}), 400)
    assert upstream.asked == []


@pytest.mark.parametrize("where", ["second", "first", "lower case", "encoded"])
def test_other_hosts_are_found_wherever_they_stand(redis: Redis, upstream: Upstream, where: str) -> None:
    site = Site(redis, upstream=upstream.origin, url_hosts=HOSTS)
    good, evil = quote(SOUND, safe=""), quote("https://evil.example/", safe="")
    path, body = {
        "second": (f"{HERE}.json", f"AnnounceUrl={good}&AnnounceUrl={evil}"),
        "first": (f"{HERE}.json", f"AnnounceUrl={evil}&AnnounceUrl={good}"),
        "lower case": (f"{HERE}.json", f"announceurl={evil}"),
        "encoded": (f"{HERE}.json", f"AnnounceUr%6C={evil}"),
    }[where]
    assert failed(change(site, path, body.encode()), 400)
    assert upstream.asked == []


def test_no_hosts_at_all_means_no_urls(redis: Redis, upstream: Upstream) -> None:
    site = Site(redis, upstream=upstream.origin, url_hosts=frozenset())
    assert failed(change(site, f"{HERE}.json", {"AnnounceUrl": SOUND}), 400)
    assert change(site, f"{HERE}.json", {"Status": "completed"}).status_code == 200


# What is not kept, and not said

SECRETS = {
    "SipAuthUsername": "sip-name-1",
    "SipAuthPassword": "sip-password-2",
    "CallToken": "call-token-3",
    "Passports": "passport-4",
}
IN_URLS = {
    name: f"https://user-{number}:word-{number}@{SOUND.removeprefix('https://')}"
    for number, name in enumerate(["StatusCallback", "WaitUrl", "HoldUrl", "ConferenceStatusCallback", "AnnounceUrl"])
}


def everything(redis: Redis) -> bytes:
    """Whatever is in Redis: the values under every key."""
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"set": redis.smembers,
        b"zset": lambda key: redis.zrange(key, 0, -1),
        b"stream": lambda key: redis.xrange(key),
    }
    kinds: list[tuple[bytes, Any]] = [(key, redis.type(key)) for key in redis.scan_iter()]
    return b"\n".join(repr((key, read[kind](key))).encode() for key, kind in kinds)


@pytest.mark.parametrize("name", [*SECRETS, *IN_URLS])
@pytest.mark.parametrize("answered", [True, False])
def test_secrets_pass_through_and_stay_nowhere(
    room: Site, upstream: Upstream, redis: Redis, name: str, answered: bool
) -> None:
    value = {**SECRETS, **IN_URLS}[name]
    if not answered:
        upstream.hangs_up()
    for path in (f"{HERE}/Participants.json", f"{HERE}/Participants/{ANNA}.json"):
        change(room, path, {**NEW_CALL, name: value}, headers={"Idempotency-Key": path})
    change(room, f"{HERE}.json", {name: value})
    assert urlencode({name: value}).encode() in upstream.asked[0].body
    secret = value.partition("//")[2].partition("@")[0].partition(":")[2] or value
    assert secret.encode() not in everything(redis)
    assert len(records(room)) == 6
    assert secret.encode() not in everything(redis)


def test_an_announcement_from_behind_a_password_is_confirmed_all_the_same(room: Site, upstream: Upstream) -> None:
    change(room, f"{HERE}.json", {"AnnounceUrl": IN_URLS["AnnounceUrl"]})
    assert action(room)["state"] == "accepted"
    room.tell(said("announcement-end", number=6, second=9, AnnounceUrl=IN_URLS["AnnounceUrl"]))
    assert action(room)["state"] == "confirmed"


def test_the_rest_of_a_request_is_kept(room: Site, upstream: Upstream) -> None:
    form = [("Label", "Büro"), ("StatusCallbackEvent", "ringing"), ("StatusCallbackEvent", "answered"), ("WaitUrl", "")]
    change(room, f"{HERE}/Participants.json", [*form, *SECRETS.items(), *IN_URLS.items()])
    for record in records(room):
        kept = [tuple(pair) for pair in record["parameters"]["parameters"]]
        hidden = [(name, "(not kept)") for name in SECRETS]
        assert kept == [*form, *hidden, *((name, SOUND) for name in IN_URLS)]


@pytest.mark.parametrize("outcome", ["answered", "refused", "hung up", "rejected"])
def test_logs_name_nobody(room: Site, upstream: Upstream, outcome: str) -> None:
    form: dict[str, str] = {**NEW_CALL, **SECRETS, **IN_URLS, "Label": "cleo", "CallerDisplayName": "Cleopatra"}
    if outcome == "refused":
        upstream.says(400, refused(400, 21211, f"The number {PHONE} of cleo is wrong"))
    elif outcome == "hung up":
        upstream.hangs_up()
    elif outcome == "rejected":
        form["HoldUrl"] = OURS + PATH
    with capture_logs() as logs:
        change(room, f"{BASE}/Stand-up/Participants.json", form, headers={"Idempotency-Key": "key-of-cleo"})
        change(room, f"{HERE}/Participants/anna.json", form)
        change(room, f"{HERE}/Participants/anna.json", method="DELETE")
        room.fold()
    assert logs
    words = [PHONE, "5550100", "cleo", "anna", "Cleopatra", "Stand-up", "word-", *SECRETS.values(), STEERER[1], TOKEN]
    for word in words:
        assert word not in str(logs)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"To": PHONE, "SipAuthPassword": "sip-password-2"}).encode(),
        f"To:{PHONE}\nSipAuthPassword:sip-password-2".encode(),
        quote(f"To={PHONE}&SipAuthPassword=sip-password-2").encode(),
    ],
    ids=["json", "lines", "encoded twice"],
)
def test_a_body_that_is_no_form_is_neither_logged_nor_its_secrets_kept(
    room: Site, upstream: Upstream, redis: Redis, body: bytes
) -> None:
    """Such as `curl -d '{…}'` sends: it says that it is a form, and all of it is one parameter's name."""
    upstream.says(400, refused(400, 21201))
    with capture_logs() as logs:
        change(room, f"{HERE}/Participants.json", body)
    assert PHONE not in str(logs)
    assert "sip-password-2" not in str(logs)
    assert b"sip-password-2" not in everything(redis)


# Never twice


def test_a_repeat_under_the_same_key_gets_the_same_answer(room: Site, upstream: Upstream) -> None:
    upstream.says(201, participant(CLEO), Twilio_Request_Id="RQ1")
    first, *repeats = [
        change(room, f"{HERE}/Participants.json", NEW_CALL, headers={"Idempotency-Key": "one"}) for _ in range(3)
    ]
    assert len(upstream.asked) == 1
    assert "Idempotent-Replayed" not in first.headers
    for answer in repeats:
        assert (answer.status_code, answer.data) == (first.status_code, first.data)
        assert answer.headers["Idempotent-Replayed"] == "true"
        for name in ("Content-Type", "Twilio-Request-Id", "Offhook-Action"):
            assert answer.headers[name] == first.headers[name]
    assert len(actions(room)) == 1


@pytest.mark.parametrize("status", [204, 400, 404, 500, 503])
def test_whatever_twilio_said_is_what_a_repeat_gets(room: Site, upstream: Upstream, status: int) -> None:
    upstream.says(status, None if status == 204 else refused(status, 20500))
    answers = [
        room.http.delete(f"{HERE}/Participants/{ANNA}.json", auth=STEERER, headers={"Idempotency-Key": "one"})
        for _ in range(2)
    ]
    assert len(upstream.asked) == 1
    assert [(each.status_code, each.data) for each in answers] == [(status, answers[0].data)] * 2


@pytest.mark.parametrize("other", ["body", "path", "method"])
def test_a_key_is_for_one_request(room: Site, upstream: Upstream, other: str) -> None:
    headers = {"Idempotency-Key": "one"}
    first = f"{HERE}/Participants/{ANNA}.json"
    change(room, first, {"Muted": "true"}, headers=headers)
    path = f"{HERE}/Participants/{BEN}.json" if other == "path" else first
    form = {"Muted": "false" if other == "body" else "true"}
    answer = change(room, path, form, method="DELETE" if other == "method" else "POST", headers=headers)
    assert "Idempotency-Key" in failed(answer, 422)
    assert len(upstream.asked) == 1


def test_another_key_is_another_request(room: Site, upstream: Upstream) -> None:
    for key in ("one", "two"):
        change(room, f"{HERE}/Participants.json", NEW_CALL, headers={"Idempotency-Key": key})
    assert len(upstream.asked) == 2


def test_another_callers_key_is_another_key(room: Site, upstream: Upstream) -> None:
    for who in (STEERER, OWNER):
        answer = change(room, f"{HERE}/Participants.json", NEW_CALL, who=who, headers={"Idempotency-Key": "one"})
        assert "Idempotent-Replayed" not in answer.headers
    assert len(upstream.asked) == 2


def test_another_accounts_key_is_another_key(room: Site, upstream: Upstream) -> None:
    for account in (ACCOUNT, CHILD):
        path = f"{HERE}/Participants.json".replace(ACCOUNT, account).replace(ROOM, "Stand-up")
        change(room, path, NEW_CALL, headers={"Idempotency-Key": "one"})
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_its_limits(room: Site, upstream: Upstream, key: str) -> None:
    answer = change(room, f"{HERE}/Participants.json", NEW_CALL, headers={"Idempotency-Key": key})
    assert "Idempotency-Key" in failed(answer, 400)
    assert upstream.asked == []


def test_of_many_at_once_under_one_key_one_is_sent(room: Site, upstream: Upstream) -> None:
    gate = threading.Event()

    def slow(asked: Asked) -> Said:
        gate.wait(20)
        return usual(asked)

    upstream.answer = slow

    def ask() -> TestResponse:
        return change(room, f"{HERE}/Participants.json", NEW_CALL, headers={"Idempotency-Key": "one"})

    with ThreadPoolExecutor(8) as threads, ExitStack() as stack:
        stack.callback(gate.set)
        answers = as_completed([threads.submit(ask) for _ in range(8)])
        for _ in range(7):
            assert "is not sent again" in failed(next(answers).result(), 409)
        gate.set()
        assert next(answers).result().status_code == 201
    assert len(upstream.asked) == 1


def test_without_a_key_every_request_is_sent(room: Site, upstream: Upstream) -> None:
    for _ in range(3):
        assert "Idempotent-Replayed" not in change(room, f"{HERE}/Participants.json", NEW_CALL).headers
    assert len(upstream.asked) == 3


def test_what_twilio_had_no_time_for_may_be_tried_again(room: Site, upstream: Upstream) -> None:
    headers = {"Idempotency-Key": "one"}
    upstream.says(429, refused(429, 20429))
    assert failed(change(room, f"{HERE}/Participants.json", NEW_CALL, headers=headers), 429)
    upstream.answer = usual
    assert change(room, f"{HERE}/Participants.json", NEW_CALL, headers=headers).status_code == 201
    assert len(upstream.asked) == 2


def test_what_we_had_no_place_for_may_be_tried_again(
    redis: Redis, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Idempotency-Key": "one"}
    monkeypatch.setattr(upstream_api, "AT_ONCE", 1)
    site = Site(redis, upstream=upstream.origin)
    started, gate = threading.Event(), threading.Event()

    def slow(asked: Asked) -> Said:
        started.set()
        gate.wait(20)
        return usual(asked)

    upstream.answer = slow
    with ThreadPoolExecutor(1) as thread, ExitStack() as stack:
        stack.callback(gate.set)
        first = thread.submit(change, site, f"{HERE}.json")
        assert started.wait(20)
        assert failed(change(site, f"{HERE}/Participants.json", NEW_CALL, headers=headers), 429)
        gate.set()
        assert first.result().status_code == 200
    assert change(site, f"{HERE}/Participants.json", NEW_CALL, headers=headers).status_code == 201
    assert len(upstream.asked) == 2


def test_what_never_got_through_may_be_tried_again(redis: Redis, upstream: Upstream) -> None:
    headers = {"Idempotency-Key": "one"}
    assert failed(change(Site(redis), f"{HERE}/Participants.json", NEW_CALL, headers=headers), 502)
    site = Site(redis, upstream=upstream.origin)
    assert change(site, f"{HERE}/Participants.json", NEW_CALL, headers=headers).status_code == 201
    assert len(upstream.asked) == 1


def test_what_was_refused_here_may_be_tried_again(room: Site, upstream: Upstream) -> None:
    headers = {"Idempotency-Key": "one"}
    assert failed(change(room, f"{HERE}.json", {"AnnounceUrl": OURS + PATH}, headers=headers), 400)
    assert change(room, f"{HERE}.json", {"AnnounceUrl": SOUND}, headers=headers).status_code == 200


@pytest.mark.parametrize("silent", [True, False])
def test_what_may_have_been_done_is_never_sent_again(
    redis: Redis, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    if silent:
        upstream.keeps_silent(monkeypatch)
    else:
        upstream.hangs_up()
    site, headers = Site(redis, upstream=upstream.origin), {"Idempotency-Key": "one"}
    status = 504 if silent else 502
    first = failed(change(site, f"{HERE}/Participants.json", NEW_CALL, headers=headers), status)
    upstream.answer = usual
    again = change(site, f"{HERE}/Participants.json", NEW_CALL, headers=headers)
    assert failed(again, status) == first
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(upstream.asked) == 1


def test_a_create_without_an_answer_is_not_sent_again_at_once(room: Site, upstream: Upstream, redis: Redis) -> None:
    upstream.hangs_up()
    first = failed(change(room, f"{HERE}/Participants.json", NEW_CALL), 502)
    upstream.answer = usual
    again = change(room, f"{HERE}/Participants.json", NEW_CALL)
    assert failed(again, 502) == first
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(upstream.asked) == 1
    [promise] = redis.scan_iter("offhook:promise:*")
    assert 0 < int(redis.ttl(promise)) <= SAME_AGAIN
    redis.delete(promise)  # its seconds are over
    assert change(room, f"{HERE}/Participants.json", NEW_CALL).status_code == 201


@pytest.mark.parametrize("other", ["body", "conference", "caller", "account"])
def test_a_create_without_an_answer_stands_in_no_others_way(room: Site, upstream: Upstream, other: str) -> None:
    upstream.hangs_up()
    change(room, f"{BASE}/Stand-up/Participants.json", NEW_CALL)
    upstream.answer = usual
    path = {"conference": f"{BASE}/Sit-down/Participants.json"}.get(other, f"{BASE}/Stand-up/Participants.json")
    form = {**NEW_CALL, "To": "+15550199"} if other == "body" else NEW_CALL
    path = path.replace(ACCOUNT, CHILD) if other == "account" else path
    assert change(room, path, form, who=OWNER if other == "caller" else STEERER).status_code == 201
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("status", [429, 500])
def test_a_create_that_twilio_refused_may_be_sent_again(room: Site, upstream: Upstream, status: int) -> None:
    upstream.says(status, refused(status, 20500))
    assert change(room, f"{HERE}/Participants.json", NEW_CALL).status_code == status
    upstream.answer = usual
    assert change(room, f"{HERE}/Participants.json", NEW_CALL).status_code == 201


def test_an_update_without_an_answer_may_be_sent_again(room: Site, upstream: Upstream) -> None:
    upstream.hangs_up()
    for _ in range(2):
        assert failed(change(room, f"{HERE}/Participants/{ANNA}.json", {"Muted": "true"}), 502)
    assert len(upstream.asked) == 2


# When Redis is away


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "one"}])
@pytest.mark.parametrize("path", [f"{HERE}.json", f"{HERE}/Participants.json", f"{BASE}/Stand-up/Participants.json"])
def test_without_redis_nothing_is_sent(nowhere: Redis, upstream: Upstream, path: str, headers: dict[str, str]) -> None:
    site = Site(nowhere, upstream=upstream.origin)
    assert "nothing" in failed(change(site, path, NEW_CALL, headers=headers), 503)
    assert upstream.asked == []


def test_what_cannot_be_written_down_is_not_sent_and_may_be_tried_again(
    room: Site, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Idempotency-Key": "one"}
    with monkeypatch.context() as patch:
        patch.setattr(room.inbox, "append_all", _full)
        assert failed(change(room, f"{HERE}/Participants.json", NEW_CALL, headers=headers), 503)
    assert upstream.asked == []
    assert change(room, f"{HERE}/Participants.json", NEW_CALL, headers=headers).status_code == 201


def _full(*_: Any, **__: Any) -> bool:
    raise Unconnected("away")


def test_twilios_answer_gets_through_when_redis_goes_away_meanwhile(
    room: Site, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(asked: Asked) -> Said:
        monkeypatch.setattr(room.inbox, "append_all", _full)
        monkeypatch.setattr(room.redis, "set", _full)
        return usual(asked)

    upstream.answer = answer
    with capture_logs() as logs:
        told = change(room, f"{HERE}/Participants.json", NEW_CALL, headers={"Idempotency-Key": "one"})
    assert (told.status_code, told.get_json()["call_sid"]) == (201, CLEO)
    assert {line["event"] for line in logs if line["log_level"] == "error"} == {
        "an answer could not be remembered",
        "an answer could not be written down",
    }


# The audit


def test_a_request_is_written_down_before_it_is_sent_and_after(room: Site, upstream: Upstream) -> None:
    before: list[Callback] = []

    def answer(asked: Asked) -> Said:
        before.extend(callback for callbacks in room.stored().values() for callback in callbacks)
        return Said(200, participant(ANNA, muted=True), {"Twilio-Request-Id": "RQ1"})

    upstream.answer = answer
    told = change(room, f"{HERE}/Participants/anna.json", [("Muted", "true"), ("X", "1"), ("X", "2")])
    assert [(callback.media, callback.key) for callback in before] == [("control", "steerer")]
    requested, answered = records(room)
    for record in (requested, answered):
        assert record["verified_by"] == "steerer"
        assert record["parameters"]["resource"] == f"Conferences/{ROOM}/Participants/anna"
        assert record["parameters"]["parameters"] == [["Muted", "true"], ["X", "1"], ["X", "2"]]
        assert record["parameters"]["account_sid"] == ACCOUNT
        assert record["parameters"]["action"]["id"] == told.headers["Offhook-Action"]
        assert record["parameters"]["action"]["verb"] == "update-participant"
        assert record["parameters"]["action"]["by"] == "steerer"
    assert (requested["call_sid"], answered["call_sid"]) == (None, ANNA), "whom a label names, the answer tells"
    assert (requested["type"], answered["type"]) == ("control-requested", "control-answered")
    first, last = requested["parameters"]["action"], answered["parameters"]["action"]
    assert (first["status"], first["answered_at"], first["state"]) == (None, None, "requested")
    assert (last["status"], last["request_id"], last["state"]) == (200, "RQ1", "accepted")
    assert _moment(first["requested_at"]) <= _moment(last["answered_at"])
    assert first["requested_at"] == last["requested_at"]
    assert _moment(requested["received_at"]) <= _moment(answered["received_at"])


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_request_that_has_not_been_answered_yet_is_shown(room: Site, upstream: Upstream) -> None:
    seen: list[dict[str, Any]] = []

    def answer(asked: Asked) -> Said:
        seen.append(action(room))
        return usual(asked)

    upstream.answer = answer
    change(room, f"{HERE}.json", {"Status": "completed"})
    assert (seen[0]["state"], seen[0]["status"], seen[0]["awaits"]) == ("requested", None, ["conference-end"])
    assert action(room)["state"] == "accepted"


def test_requests_change_nothing_that_only_callbacks_tell(room: Site, upstream: Upstream) -> None:
    before = room.told(f"/api/conferences/{ROOM}")
    change(room, f"{HERE}/Participants/{ANNA}.json", {"Muted": "true"})
    change(room, f"{HERE}.json", {"Status": "completed"})
    change(room, f"{HERE}/Participants/{BEN}.json", method="DELETE")
    assert len(actions(room)) == 3
    after = room.told(f"/api/conferences/{ROOM}")
    assert after["coverage"].pop("facts") == {"created_at": "reconciled", "region": "reconciled"}, "Twilio's answers"
    del before["coverage"]["facts"]
    for name in ("status", "counts", "coverage", "heard_at"):
        assert after[name] == before[name]
    for each in after["participants"]:
        assert (each["status"], each["muted"]) == ("connected", each["call_sid"] == BEN)


def test_a_request_for_a_named_conference_is_filed_with_the_one_that_is_on(room: Site, upstream: Upstream) -> None:
    change(room, f"{BASE}/Stand-up/Participants.json", NEW_CALL)
    assert [record["type"] for record in records(room)] == ["control-requested", "control-answered"]
    assert action(room)["call_sid"] == CLEO


def test_a_name_that_has_passed_on_is_filed_with_both(room: Site, upstream: Upstream) -> None:
    upstream.says(201, participant(CLEO, conference_sid=OTHER_ROOM))
    change(room, f"{BASE}/Stand-up/Participants.json", NEW_CALL)
    assert [record["type"] for record in records(room)] == ["control-requested", "control-answered"]
    assert [record["type"] for record in records(room, OTHER_ROOM)] == ["control-answered"]
    assert [each["call_sid"] for each in room.told(f"/api/conferences/{OTHER_ROOM}")["participants"]] == [CLEO]
    assert {each["call_sid"] for each in room.told(f"/api/conferences/{ROOM}")["participants"]} == {ANNA, BEN}


def test_a_new_conference_begins_with_whoever_is_added(site: Site, upstream: Upstream) -> None:
    change(site, f"{BASE}/B%C3%BCro/Participants.json", NEW_CALL)
    assert (action(site)["state"], action(site)["call_sid"]) == ("accepted", CLEO)
    assert person(site, CLEO)["status"] == "queued"


# What becomes of it


class Case(NamedTuple):
    """A request, and the callback that shows that it was done."""

    method: str
    below: str
    form: dict[str, str]
    told: dict[str, str]


def tells(event: str, call: str | None = None, **more: str) -> dict[str, str]:
    """A callback after the request."""
    return said(event, call, number=9, second=9, **more)


def recorded(status: str, sid: str = RECORDING) -> dict[str, str]:
    """A recording's callback."""
    return {"AccountSid": ACCOUNT, "ConferenceSid": ROOM, "RecordingSid": sid, "RecordingStatus": status}


ANNAS, BENS = f"/Participants/{ANNA}", f"/Participants/{BEN}"
CASES = {
    "mute": Case("POST", ANNAS, {"Muted": "true"}, tells("participant-mute", ANNA, Muted="true")),
    "mute by label": Case(
        "POST", "/Participants/anna", {"Muted": "true"}, tells("participant-mute", ANNA, Muted="true")
    ),
    "unmute": Case("POST", BENS, {"Muted": "false"}, tells("participant-unmute", BEN, Hold="true")),
    "hold": Case("POST", ANNAS, {"Hold": "true", "HoldUrl": SOUND}, tells("participant-hold", ANNA, Hold="true")),
    "unhold": Case("POST", BENS, {"Hold": "false"}, tells("participant-unhold", BEN, Muted="true")),
    "coach": Case(
        "POST", ANNAS, {"Coaching": "true", "CallSidToCoach": BEN}, tells("participant-modify", ANNA, Coaching="true")
    ),
    "coach by sid only": Case(
        "POST", ANNAS, {"CallSidToCoach": BEN}, tells("participant-modify", ANNA, Coaching="true")
    ),
    "coach another": Case("POST", BENS, {"CallSidToCoach": CLEO}, tells("participant-modify", BEN, Coaching="true")),
    "stop coaching": Case("POST", BENS, {"Coaching": "false"}, tells("participant-modify", BEN, Coaching="false")),
    "end on exit": Case(
        "POST",
        ANNAS,
        {"EndConferenceOnExit": "true"},
        tells("participant-modify", ANNA, EndConferenceOnExit="true"),
    ),
    "beep on exit": Case("POST", ANNAS, {"BeepOnExit": "true"}, tells("participant-modify", ANNA)),
    "announce to one": Case("POST", ANNAS, {"AnnounceUrl": SOUND}, tells("announcement-end", ANNA, AnnounceUrl=SOUND)),
    "announce to all": Case("POST", "", {"AnnounceUrl": SOUND}, tells("announcement-end", AnnounceUrl=SOUND)),
    "kick": Case("DELETE", ANNAS, {}, tells("participant-leave", ANNA)),
    "kick by label": Case("DELETE", "/Participants/anna", {}, tells("participant-leave", ANNA)),
    "add": Case("POST", "/Participants", NEW_CALL, tells("participant-join", CLEO)),
    "end": Case("POST", "", {"Status": "completed"}, tells("conference-end")),
    "stop recording": Case("POST", f"/Recordings/{RECORDING}", {"Status": "stopped"}, recorded("stopped")),
    "stop this recording": Case("POST", "/Recordings/Twilio.CURRENT", {"Status": "stopped"}, recorded("completed")),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def carried_out(site: Site, case: Case) -> dict[str, Any]:
    """The action of a request that Twilio has accepted."""
    assert change(site, f"{HERE}{case.below}.json", case.form, method=case.method).status_code < 300
    return action(site)


@every_case
def test_twilios_yes_is_not_yet_done_and_its_callback_is(room: Site, case: Case) -> None:
    before = carried_out(room, case)
    assert (before["state"], before["told"]) == ("accepted", [])
    assert before["awaits"]
    room.tell(case.told)
    after = action(room)
    assert (after["state"], after["told"]) == ("confirmed", after["awaits"])


@pytest.mark.parametrize("name", [name for name in CASES if "recording" not in name and name != "end"])
def test_a_callback_from_before_confirms_nothing(room: Site, name: str) -> None:
    """Callbacks of recordings have no number, and there is nothing from before after an end."""
    case = CASES[name]
    carried_out(room, case)
    room.tell(case.told | {"SequenceNumber": "3"})
    assert action(room)["state"] == "accepted"
    room.tell(case.told)
    assert action(room)["state"] == "confirmed"


@every_case
def test_what_is_told_of_another_confirms_nothing(room: Site, case: Case) -> None:
    carried_out(room, case)
    if "RecordingSid" in case.told:
        another = case.told | {"RecordingSid": OTHER_RECORDING}
    elif "CallSid" in case.told:
        another = case.told | {"CallSid": "CA" + "7" * 32, "ParticipantLabel": "anna", "SequenceNumber": "8"}
    else:
        another = case.told | {"ConferenceSid": OTHER_ROOM}
    room.tell(another)
    assert action(room)["state"] == "accepted"
    room.tell(case.told)
    assert action(room)["state"] == "confirmed"


@every_case
def test_a_callback_may_come_before_the_answer(room: Site, upstream: Upstream, case: Case) -> None:
    def hasty(asked: Asked) -> Said:
        room.tell(case.told)
        room.fold()
        return usual(asked)

    upstream.answer = hasty
    assert carried_out(room, case)["state"] == "confirmed"


@every_case
def test_what_has_not_happened_in_time_was_ignored_until_a_late_callback_tells(
    room: Site, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    for patience in ("SOON", "ANNOUNCED_WITHIN"):
        monkeypatch.setattr(asking, patience, timedelta(0))
    monkeypatch.setattr(asking, "DIALLED_WITHIN", timedelta(seconds=-60))
    assert carried_out(room, case)["state"] == "accepted"
    swept(room)
    assert action(room)["state"] == "ignored"
    swept(room)
    assert [record["type"] for record in records(room)][-1] == "control-expired"
    assert len(records(room)) == 3
    room.tell(case.told)
    assert action(room)["state"] == "confirmed"


def swept(site: Site) -> None:
    """Do the sweep's part, once, and fold what comes of it."""
    sweep_of(site).expire()
    site.fold()


@every_case
def test_before_its_time_is_over_nothing_was_ignored(room: Site, case: Case) -> None:
    carried_out(room, case)
    swept(room)
    assert action(room)["state"] == "accepted"


def test_what_was_confirmed_or_failed_does_not_expire(
    room: Site, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SOON", timedelta(0))
    carried_out(room, CASES["mute"])
    room.tell(CASES["mute"].told)
    room.fold()
    upstream.says(400, refused(400, 20001))
    change(room, f"{HERE}{BENS}.json", {"Hold": "false"})
    room.fold()
    swept(room)
    swept(room)
    assert [each["state"] for each in actions(room)] == ["confirmed", "failed"]
    assert not any(each["expired"] for each in actions(room))


def test_what_got_no_answer_and_did_not_happen_was_ignored(
    room: Site, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SOON", timedelta(0))
    upstream.hangs_up()
    change(room, f"{HERE}{ANNAS}.json", {"Muted": "true"})
    assert action(room)["state"] == "requested"
    swept(room)
    assert (action(room)["state"], action(room)["error"]) == ("ignored", "no answer")


def test_all_that_was_asked_must_happen(room: Site) -> None:
    form = {"Muted": "true", "Hold": "true", "AnnounceUrl": SOUND}
    change(room, f"{HERE}{ANNAS}.json", form)
    for number, told in enumerate(
        [
            said("participant-mute", ANNA, number=6, second=6, Muted="true"),
            said("participant-hold", ANNA, number=7, second=7, Muted="true", Hold="true"),
        ],
        1,
    ):
        room.tell(told)
        assert (action(room)["state"], len(action(room)["told"])) == ("accepted", number)
    room.tell(said("announcement-end", ANNA, number=8, second=8, Muted="true", Hold="true", AnnounceUrl=SOUND))
    assert action(room)["state"] == "confirmed"


def test_another_announcement_confirms_nothing(room: Site) -> None:
    change(room, f"{HERE}.json", {"AnnounceUrl": SOUND})
    room.tell(said("announcement-end", number=6, second=6, AnnounceUrl=f"{SOUND}?other"))
    assert action(room)["state"] == "accepted"


def test_the_end_of_a_conference_removes_whoever_was_to_be_removed(room: Site) -> None:
    change(room, f"{HERE}{ANNAS}.json", method="DELETE")
    room.tell(said("conference-end", number=6, second=6))
    assert action(room)["state"] == "confirmed"


def test_removing_a_call_that_still_rings_is_confirmed_by_its_end(room: Site) -> None:
    change(room, f"{HERE}/Participants.json", NEW_CALL)
    room.tell(progress(CLEO, "ringing", number=0, second=5, Timestamp=_now()))
    room.fold()
    change(room, f"{HERE}/Participants/{CLEO}.json", method="DELETE")
    room.tell(progress(CLEO, "canceled", number=1, second=6, Timestamp=_now()))
    assert [each["state"] for each in actions(room)] == ["failed", "confirmed"]


def _now() -> str:
    """Twilio's Timestamp of this moment."""
    return format_datetime(datetime.now(UTC).replace(microsecond=0))


@pytest.mark.parametrize("below", ["", ANNAS])
def test_an_announcement_that_failed_has_failed(room: Site, below: str) -> None:
    change(room, f"{HERE}{below}.json", {"AnnounceUrl": SOUND})
    told = said("announcement-fail", ANNA if below else None, number=6, second=6, AnnounceUrl=f"{SOUND}?other")
    room.tell(told)
    assert action(room)["state"] == "accepted"
    room.tell(told | {"AnnounceUrl": SOUND, "SequenceNumber": "7", "ReasonAnnouncementFailed": "no sound"})
    assert (action(room)["state"], action(room)["refused"]) == ("failed", True)


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled"])
@pytest.mark.parametrize("early", [True, False])
def test_a_leg_that_never_answers_has_failed(room: Site, upstream: Upstream, status: str, early: bool) -> None:
    told = progress(CLEO, status, number=2, second=8, Timestamp=_now())

    def answer(asked: Asked) -> Said:
        if early:
            room.tell(told)
            room.fold()
        return usual(asked)

    upstream.answer = answer
    change(room, f"{HERE}/Participants.json", NEW_CALL)
    if not early:
        room.tell(progress(CLEO, "ringing", number=1, second=5))
        assert action(room)["state"] == "accepted"
        room.tell(told)
    assert action(room)["state"] == "failed"
    assert person(room, CLEO)["status"] == "failed"


def test_a_leg_that_could_not_be_added_has_failed(room: Site) -> None:
    change(room, f"{HERE}/Participants.json", NEW_CALL)
    room.tell(said("participant-leave", CLEO, number=6, second=6, ReasonParticipantLeft="participant_add_failed"))
    assert action(room)["state"] == "failed"


def test_a_leg_that_joined_and_hung_up_was_added(room: Site) -> None:
    change(room, f"{HERE}/Participants.json", NEW_CALL)
    room.tell(said("participant-join", CLEO, number=6, second=6), said("participant-leave", CLEO, number=7, second=7))
    room.tell(progress(CLEO, "completed", number=3, second=7))
    assert action(room)["state"] == "confirmed"


@pytest.mark.parametrize(
    ("below", "form"),
    [
        (ANNAS, {"Muted": "false"}),
        (ANNAS, {"Hold": "no"}),
        (ANNAS, {"Coaching": "false", "EndConferenceOnExit": "false"}),
        (BENS, {"Muted": "TRUE", "Hold": "true", "EndConferenceOnExit": "true"}),
        (f"/Recordings/{RECORDING}", {"Status": "paused"}),
    ],
)
def test_what_is_so_already_or_is_never_told_awaits_nothing(
    room: Site, monkeypatch: pytest.MonkeyPatch, below: str, form: dict[str, str]
) -> None:
    monkeypatch.setattr(asking, "SOON", timedelta(0))
    change(room, f"{HERE}{below}.json", form)
    assert (action(room)["state"], action(room)["awaits"]) == ("accepted", [])
    swept(room)
    assert action(room)["state"] == "accepted"


def test_of_several_with_one_label_the_one_who_is_there_is_meant(room: Site) -> None:
    room.tell(said("participant-leave", ANNA, number=6, second=6))
    room.tell(said("participant-join", CLEO, number=7, second=7, ParticipantLabel="anna"))
    room.fold()
    change(room, f"{HERE}/Participants/anna.json", method="DELETE")
    assert action(room)["call_sid"] == CLEO


def test_the_states_do_not_hang_on_the_order_of_things(room: Site, upstream: Upstream) -> None:
    """Records and callbacks in one batch, and each in a batch of its own, fold to the same actions."""
    carried_out(room, CASES["mute"])
    room.tell(CASES["mute"].told)
    apart = actions(room)
    room.redis.flushall()
    site = Site(room.redis, upstream=upstream.origin)
    site.tell(said("participant-join", ANNA, number=4, second=1))
    site.fold()
    change(site, f"{HERE}{ANNAS}.json", {"Muted": "true"})
    site.tell(CASES["mute"].told)
    assert [each["state"] for each in actions(site)] == [each["state"] for each in apart] == ["confirmed"]


# What answers teach


def test_whom_somebody_coaches_is_known_while_they_coach(room: Site, upstream: Upstream) -> None:
    def coached() -> tuple[str | None, str | None]:
        native = person(room, ANNA)["call_sid_to_coach"]
        return native, room.told(f"{HERE}/Participants/{ANNA}.json")["call_sid_to_coach"]

    upstream.says(200, participant(ANNA, coaching=True, call_sid_to_coach=BEN))
    change(room, f"{HERE}{ANNAS}.json", {"Coaching": "true", "CallSidToCoach": BEN})
    assert coached() == (None, None)
    room.tell(said("participant-modify", ANNA, number=6, second=3601, Coaching="true"))
    assert coached() == (BEN, BEN)
    room.tell(said("participant-modify", ANNA, number=7, second=3660, Coaching="false"))
    assert coached() == (None, None)
    room.tell(said("participant-modify", ANNA, number=8, second=3700, Coaching="true"))
    assert coached() == (None, None), "told before the coaching ended, and so of another"
    upstream.says(200, participant(ANNA, coaching=True, call_sid_to_coach=CLEO, date_updated=_date(3701)))
    change(room, f"{HERE}{ANNAS}.json", {"CallSidToCoach": CLEO})
    assert coached() == (CLEO, CLEO)


def test_the_latest_word_on_whom_somebody_coaches_counts(room: Site, upstream: Upstream) -> None:
    for second, call in ((100, ANNA), (300, CLEO), (200, ANNA)):
        upstream.says(200, participant(BEN, coaching=True, call_sid_to_coach=call, date_updated=_date(second)))
        change(room, f"{HERE}{BENS}.json", {"CallSidToCoach": call})
    assert person(room, BEN)["call_sid_to_coach"] == CLEO


def _date(second: int) -> str:
    return at(second).strftime("%a, %d %b %Y %H:%M:%S +0000")


def test_an_added_call_is_there_before_it_joins(room: Site, upstream: Upstream) -> None:
    upstream.says(201, participant(CLEO, status="queued", queue_time="1200", label="Cléo"))
    change(room, f"{HERE}/Participants.json", NEW_CALL)
    cleo = person(room, CLEO)
    assert (cleo["label"], cleo["queue_time"], cleo["status"], cleo["stays"]) == ("Cléo", 1200, "queued", [])
    shown = room.told(f"{HERE}/Participants/{CLEO}.json")
    assert (shown["label"], shown["queue_time"], shown["status"]) == ("Cléo", "1200", "queued")
    assert [each["call_sid"] for each in room.told(f"{HERE}/Participants.json")["participants"]].count(CLEO) == 1
    found = room.told("/api/conferences?participant=Cl%C3%A9o")["conferences"]
    assert [each["sid"] for each in found] == [ROOM]


def test_what_a_callback_calls_somebody_prevails(room: Site, upstream: Upstream) -> None:
    upstream.says(201, participant(CLEO, status="queued", label="asked for"))
    change(room, f"{HERE}/Participants.json", NEW_CALL)
    room.tell(said("participant-join", CLEO, number=6, second=6, ParticipantLabel="told"))
    assert person(room, CLEO)["label"] == "told"


@pytest.mark.parametrize("early", [True, False])
def test_progress_of_an_added_call_is_filed_before_it_joins(room: Site, upstream: Upstream, early: bool) -> None:
    told = [progress(CLEO, "initiated", number=0, second=4), progress(CLEO, "ringing", number=1, second=5)]

    def answer(asked: Asked) -> Said:
        if early:
            room.tell(*told)
            room.fold()
        return usual(asked)

    upstream.answer = answer
    change(room, f"{HERE}/Participants.json", NEW_CALL)
    if not early:
        room.fold()
        room.tell(*told)
    cleo = person(room, CLEO)
    assert (cleo["status"], cleo["call_status"], cleo["to"]) == ("ringing", "ringing", "+15550101")
    room.tell(said("participant-join", CLEO, number=6, second=6))
    assert person(room, CLEO)["status"] == "connected"
    types = [event["type"] for event in room.told(f"/api/conferences/{ROOM}/events")["events"]]
    assert {"call-initiated", "call-ringing"} <= set(types)


@pytest.mark.parametrize(("region", "shown"), [("us1", "us1"), ("ie1", "ie1"), ("unknown", None), (None, None)])
def test_where_a_conference_is_mixed_is_told_by_an_answer(
    room: Site, upstream: Upstream, region: str | None, shown: str | None
) -> None:
    assert room.told(f"/api/conferences/{ROOM}")["region"] is None
    upstream.says(200, conference(region=region))
    change(room, f"{HERE}.json", {"AnnounceUrl": SOUND})
    room.fold()
    assert room.told(f"/api/conferences/{ROOM}")["region"] == shown
    assert room.told(f"{HERE}.json")["region"] == shown


def test_an_error_teaches_nothing(room: Site, upstream: Upstream) -> None:
    upstream.says(500, participant(CLEO, label="x", queue_time="1"))
    room.http.post(f"{HERE}/Participants.json", data=urlencode(NEW_CALL), content_type=FORM, auth=STEERER)
    room.fold()
    assert {each["call_sid"] for each in room.told(f"/api/conferences/{ROOM}")["participants"]} == {ANNA, BEN}


# Hints


@pytest.mark.parametrize(
    ("events", "named"),
    [
        ([("StatusCallbackEvent", "join")], "join"),
        ([("StatusCallbackEvent", "initiated join"), ("StatusCallbackEvent", "leave")], "join leave"),
        ([("StatusCallbackEvent", "initiated"), ("StatusCallbackEvent", "answered")], None),
        ([("ConferenceStatusCallbackEvent", "join leave")], None),
        ([], None),
    ],
)
def test_events_that_will_never_come_are_pointed_out(
    room: Site, upstream: Upstream, events: list[tuple[str, str]], named: str | None
) -> None:
    answer = change(room, f"{HERE}/Participants.json", [*NEW_CALL.items(), *events])
    assert answer.status_code == 201
    hint = answer.headers.get("Offhook-Hint")
    if named is None:
        assert hint is None
    else:
        assert hint is not None
        assert named in hint
        assert "ConferenceStatusCallbackEvent" in hint


# What a reading with fresh eyes found


@pytest.mark.parametrize(
    "broken", [{"environ_overrides": {"CONTENT_LENGTH": "100"}}, {"headers": {"Transfer-Encoding": "chunked"}}]
)
def test_a_body_that_is_not_there_as_a_whole_is_not_sent(
    room: Site, upstream: Upstream, broken: dict[str, Any]
) -> None:
    """Half a phone number is somebody else's."""
    assert failed(change(room, f"{HERE}/Participants.json", b"From=%2B1&To=%2B1555", **broken), 400)
    assert upstream.asked == []


def _in_an_hour() -> str:
    return format_datetime(datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1))


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_what_happens_of_its_own_accord_long_afterwards_confirms_nothing(
    room: Site, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(asking, "SOON", timedelta(seconds=-1))
    if method == "DELETE":
        change(room, f"{HERE}/Participants/{ANNA}.json", method="DELETE")
    else:
        change(room, f"{HERE}.json", {"Status": "completed"})
    room.fold()
    sweep_of(room).expire()
    assert action(room)["state"] == "ignored"
    room.tell(said("conference-end", number=60, second=0, Timestamp=_in_an_hour()))
    assert action(room)["state"] == "ignored"


@pytest.mark.parametrize("name", ["StatusCallback", "ConferenceStatusCallback", "RecordingStatusCallback"])
def test_nobody_puts_words_into_twilios_mouth(room: Site, upstream: Upstream, name: str) -> None:
    """A query of the caller's would come back by GET among Twilio's own parameters, and signed."""
    url = f"{OURS}{PATH}?StatusCallbackEvent=conference-end&ConferenceSid={ROOM}"
    assert name in failed(change(room, f"{HERE}/Participants.json", {**NEW_CALL, name: url}), 400)
    assert upstream.asked == []
    tenants = {**NEW_CALL, name: f"{OURS}{PATH}?tenant=42#rc=5"}
    assert change(room, f"{HERE}/Participants.json", tenants).status_code == 201


def test_a_name_that_has_passed_to_another_conference_is_confirmed_there(room: Site, upstream: Upstream) -> None:
    room.tell(said("participant-mute", ANNA, number=40, second=3, Muted="true"))
    room.fold()
    upstream.says(201, participant(CLEO, status="queued", conference_sid=OTHER_ROOM, label="cleo"))
    assert change(room, f"{BASE}/Stand-up/Participants.json", NEW_CALL).status_code == 201
    room.tell(said("participant-join", CLEO, number=1, second=4, room=OTHER_ROOM))
    assert action(room, OTHER_ROOM)["state"] == "confirmed"


def test_whom_a_label_means_twilio_says(room: Site, upstream: Upstream) -> None:
    room.tell(said("participant-join", CLEO, number=6, second=3, ParticipantLabel="x"))
    room.fold()
    upstream.says(200, participant(ANNA, muted=True, label="x"))
    change(room, f"{HERE}/Participants/x.json", {"Muted": "true"})
    room.tell(said("participant-mute", ANNA, number=9, second=5, Muted="true", ParticipantLabel="x"))
    assert (action(room)["call_sid"], action(room)["state"]) == (ANNA, "confirmed")


def test_of_two_who_had_a_label_one_after_the_other_the_newer_is_meant(room: Site, upstream: Upstream) -> None:
    join = {"ParticipantLabel": "x"}
    room.tell(
        said("participant-join", BEN, number=6, second=3, **join),
        said("participant-leave", BEN, number=7, second=4, **join),
        said("participant-join", CLEO, number=8, second=5, **join),
        said("participant-leave", CLEO, number=9, second=6, **join),
    )
    room.fold()
    change(room, f"{HERE}/Participants/x.json", method="DELETE")
    assert action(room)["call_sid"] == CLEO


def test_the_same_create_is_not_sent_again_while_the_first_is_under_way(room: Site, upstream: Upstream) -> None:
    arrived, gate = threading.Event(), threading.Event()

    def slow(asked: Asked) -> Said:
        arrived.set()
        gate.wait(20)
        return usual(asked)

    upstream.answer = slow
    with ThreadPoolExecutor(1) as thread, ExitStack() as stack:
        stack.callback(gate.set)
        first = thread.submit(change, room, f"{HERE}/Participants.json", NEW_CALL)
        assert arrived.wait(20)
        assert failed(change(room, f"{HERE}/Participants.json", NEW_CALL), 409)
        gate.set()
        assert first.result().status_code == 201
    assert len(upstream.asked) == 1
    assert change(room, f"{HERE}/Participants.json", NEW_CALL).status_code == 201, "it may be meant twice"


def test_a_conference_has_the_name_it_was_begun_by(redis: Redis, upstream: Upstream) -> None:
    site = Site(redis, upstream=upstream.origin)
    assert (
        "ConferenceStatusCallback" in change(site, f"{BASE}/Retro/Participants.json", NEW_CALL).headers["Offhook-Hint"]
    )
    site.fold()
    assert [each["friendly_name"] for each in site.told("/api/conferences?friendly_name=Retro")["conferences"]] == [
        "Retro"
    ]


def test_credentials_of_a_sip_address_and_in_a_query_are_not_kept(room: Site, redis: Redis) -> None:
    asked = {
        "From": "+15550100",
        "To": "sip:alice:hunter2@sip.example.com",
        "StatusCallback": "https://x.example/?token=hunter3&tenant=4",
    }
    change(room, f"{HERE}/Participants.json", asked)
    room.fold()
    kept = repr(room.told(f"/api/conferences/{ROOM}/events"))
    assert "hunter" not in kept
    assert "sip:alice@sip.example.com" in kept
    assert "tenant=4" in kept


@pytest.mark.parametrize("body", [b'{"participants": 5}', b'{"conferences": {"a": 1}}', b'{"a b": "x", "1": [1]}'])
def test_an_answer_that_cannot_be_told_in_xml_comes_back_as_it_is(room: Site, upstream: Upstream, body: bytes) -> None:
    upstream.says(201, body)
    answer = room.http.post(f"{HERE}/Participants", data=NEW_CALL, auth=STEERER)
    assert (answer.status_code, answer.data) == (201, body)
