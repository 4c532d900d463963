"""The double as the official SDK meets it, and the callbacks that follow as a webhook meets them."""

from __future__ import annotations

import json
import socket
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import pytest
import requests
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from app.simulator import api
from app.simulator.agenda import Agenda
from app.simulator.api import Double
from app.simulator.exchange import Exchange
from app.simulator.post import Post
from app.simulator.sender import Sender
from tests.simulator.conftest import Request, Webhook

ACCOUNT, TOKEN = "AC" + "0a" * 16, "a pretend auth token"
BASE = f"/2010-04-01/Accounts/{ACCOUNT}"
EVENTS = ["start", "end", "join", "leave", "mute", "hold", "modify", "announcement"]
NOBODY = "CF" + "0" * 32
LABEL = "/Zoë (agent) 100%/Participants?#"


@pytest.fixture
def double(webhook: Webhook) -> Iterator[Double]:
    agenda, post = Agenda(), Post(Sender(f"{webhook.origin}/hook", TOKEN))
    with Double(Exchange(ACCOUNT, post.put, agenda.later, speed=1000), TOKEN) as double:
        yield double
    agenda.close()
    post.close()


@pytest.fixture
def client(double: Double) -> Iterator[Client]:
    client = Client(ACCOUNT, TOKEN)
    client.api.base_url = double.url
    yield client
    client.http_client.session.close()


class Heard:
    """The callbacks that arrive, to be waited for."""

    def __init__(self, webhook: Webhook) -> None:
        self.url = f"{webhook.origin}/rest"
        self._arriving: SimpleQueue[Request] = SimpleQueue()
        self._all: list[Request] = []
        webhook.answer = self._take

    def _take(self, request: Request) -> int:
        self._arriving.put(request)
        return 204

    def until(self, *kinds: str) -> list[dict[str, str]]:
        """All so far, in their own order, once one of each of these kinds has come and no number is missing."""
        return self._until(lambda told: set(kinds) <= set(map(kind, told)))

    def until_many(self, number: int, wanted: str) -> list[dict[str, str]]:
        """The same, once so many of one kind have come."""
        return self._until(lambda told: list(map(kind, told)).count(wanted) == number)

    def _until(self, complete: Callable[[list[dict[str, str]]], bool]) -> list[dict[str, str]]:
        while not (complete(self.told()) and self._dense()):
            self._all.append(self._arriving.get(timeout=20))
            assert believed(self._all[-1])
        return self.told()

    def told(self) -> list[dict[str, str]]:
        return sorted((one.parameters for one in self._all), key=lambda told: int(told.get("SequenceNumber", 0)))

    def _dense(self) -> bool:
        numbers = [int(told["SequenceNumber"]) for told in self.told() if "StatusCallbackEvent" in told]
        return numbers == list(range(1, len(numbers) + 1))


def kind(told: dict[str, str]) -> str:
    return told.get("StatusCallbackEvent") or told.get("RecordingStatus") or told["CallStatus"]


def believed(request: Request) -> bool:
    url = f"http://{request.headers['Host']}{request.target}"
    return RequestValidator(TOKEN).validate(url, request.parameters, request.headers["X-Twilio-Signature"])


@pytest.fixture
def heard(webhook: Webhook) -> Heard:
    return Heard(webhook)


def dial(client: Client, heard: Heard, room: str = "Kitchen", **more: Any) -> Any:
    return client.conferences(room).participants.create(
        from_="+12065550100",
        to="+12065550101",
        conference_status_callback=heard.url,
        conference_status_callback_event=EVENTS,
        **more,
    )


@pytest.fixture
def pair(client: Client, heard: Heard) -> Any:
    """The conference of two who have been dialled and have met."""
    leg = dial(client, heard, label="anna")
    dial(client, heard, label=LABEL)
    heard.until("conference-start")
    return client.conferences(leg.conference_sid)


def ask(double: Double, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers and JSON of any address of the double, asked as its account unless headers say otherwise."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(double.url + path, data, method=method)
    words = b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
    for name, value in {"Authorization": f"Basic {words}", **headers}.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
            return answer.status, answer.headers, json.loads(text) if text else None
    except HTTPError as error:
        with error:
            return error.code, error.headers, json.load(error)


# Every verb


def test_a_participant_is_created_and_what_follows_is_signed_and_dense(
    client: Client, heard: Heard, webhook: Webhook
) -> None:
    leg = dial(
        client,
        heard,
        label="anna",
        muted=True,
        status_callback=f"{webhook.origin}/progress",
        status_callback_event=["initiated", "ringing", "answered", "completed"],
    )
    assert (leg.status, leg.queue_time, leg.label, leg.muted) == ("queued", "0", "anna", True)
    told = heard.until("initiated", "ringing", "in-progress", "participant-join")
    [join] = [one for one in told if kind(one) == "participant-join"]
    assert (join["CallSid"], join["Muted"], join["FriendlyName"]) == (leg.call_sid, "true", "Kitchen")
    assert {request.target for request in webhook.requests} == {"/rest", "/progress"}


def test_conferences_are_listed_fetched_announced_to_and_ended(client: Client, heard: Heard, pair: Any) -> None:
    [listed] = client.conferences.list()
    assert (listed.sid, listed.friendly_name, listed.status) == (pair.fetch().sid, "Kitchen", "in-progress")
    pair.update(announce_url="http://announce.example/")
    heard.until("announcement-end")
    ended = pair.update(status="completed")
    assert (ended.status, ended.reason_conference_ended) == ("completed", "conference-ended-via-api")
    told = heard.until("conference-end")
    assert [kind(one) for one in told[-3:]] == ["participant-leave", "participant-leave", "conference-end"]
    assert client.conferences.list() == []
    assert [one.sid for one in client.conferences.list(status="completed")] == [ended.sid]


@pytest.mark.parametrize("who", ["call sid", "label"])
def test_a_participant_is_found_by_call_sid_and_by_a_label_with_anything_in_it(
    client: Client, heard: Heard, pair: Any, who: str
) -> None:
    labels = {leg.label: leg.call_sid for leg in pair.participants.list()}
    assert labels.keys() == {"anna", LABEL}
    participant = pair.participants(labels[LABEL] if who == "call sid" else quote(LABEL, safe=""))
    assert participant.fetch().call_sid == labels[LABEL]
    assert participant.update(hold=True, hold_url="http://music.example/").hold is True
    assert [leg.label for leg in pair.participants.list(hold=True)] == [LABEL]
    assert participant.delete() is True
    told = heard.until("participant-hold", "participant-leave")
    assert {one["ParticipantLabel"] for one in told[-2:]} == {LABEL}
    assert [leg.label for leg in pair.participants.list()] == ["anna"]


def test_recordings_are_listed_fetched_stopped_and_deleted(client: Client, heard: Heard) -> None:
    told = {
        "conference_recording_status_callback": heard.url,
        "conference_recording_status_callback_event": ["in-progress", "completed"],
    }
    sid = dial(client, heard, conference_record="record-from-start", **told).conference_sid
    dial(client, heard)
    heard.until("in-progress")
    recordings = client.conferences(sid).recordings
    [recording] = recordings.list()
    assert (recording.status, recording.channels, recording.source) == ("in-progress", 1, "Conference")
    assert recordings("Twilio.CURRENT").update(status="paused").sid == recording.sid
    assert recordings(recording.sid).update(status="stopped").status == "stopped"
    heard.until("completed")
    done = recordings(recording.sid).fetch()
    assert (done.status, done.duration) == ("completed", "0")
    assert recordings(recording.sid).delete() is True
    assert recordings.list() == []


def test_resources_have_the_fields_of_twilios_description_and_no_other(
    double: Double, client: Client, heard: Heard, pair: Any
) -> None:
    sid = pair.fetch().sid
    base = f"{BASE}/Conferences/{sid}"
    _, _, conference = ask(double, f"{base}.json")
    assert conference.keys() == {
        "account_sid", "api_version", "call_sid_ending_conference", "date_created", "date_updated", "friendly_name",
        "reason_conference_ended", "region", "sid", "status", "subresource_uris", "uri",
    }  # fmt: skip
    assert conference["uri"] == f"{base}.json"
    assert conference["subresource_uris"] == {
        "participants": f"{base}/Participants.json",
        "recordings": f"{base}/Recordings.json",
    }
    _, _, page = ask(double, f"{base}/Participants.json")
    assert page.keys() == {
        "participants", "first_page_uri", "next_page_uri", "previous_page_uri", "uri", "page", "page_size", "start",
        "end",
    }  # fmt: skip
    leg = page["participants"][0]
    assert leg.keys() == {
        "account_sid", "call_sid", "call_sid_to_coach", "coaching", "conference_sid", "date_created", "date_updated",
        "end_conference_on_exit", "hold", "label", "muted", "queue_time", "start_conference_on_enter", "status", "uri",
    }  # fmt: skip
    assert leg["uri"] == f"{base}/Participants/{leg['call_sid']}.json"
    created = datetime.strptime(leg["date_created"], "%a, %d %b %Y %H:%M:%S +0000").replace(tzinfo=UTC)
    assert leg["date_created"][5:7] == f"{created.day:02}"


def test_a_recording_has_the_fields_of_twilios_description_and_no_other(double: Double, client: Client) -> None:
    sid, recording = "CF" + "c" * 32, "RE" + "d" * 32
    double.exchange.play(sid, {"StatusCallbackEvent": "participant-reaction", "FriendlyName": "Story"})
    double.exchange.play(sid, {"RecordingSid": recording, "RecordingStatus": "in-progress"})
    status, _, shown = ask(double, f"{BASE}/Conferences/{sid}/Recordings/{recording}.json")
    assert status == 200
    assert shown.keys() == {
        "account_sid", "api_version", "call_sid", "channels", "conference_sid", "date_created", "date_updated",
        "duration", "encryption_details", "error_code", "price", "price_unit", "sid", "source", "start_time", "status",
        "uri",
    }  # fmt: skip


def test_success_codes_and_headers_are_twilios(double: Double, client: Client, heard: Heard, pair: Any) -> None:
    sid = pair.fetch().sid
    form = "application/x-www-form-urlencoded"
    path = f"{BASE}/Conferences/{sid}/Participants"
    body = urllib.request.Request(f"{double.url}{path}.json", b"From=%2B12065550100&To=client%3Ax", method="POST")
    body.add_header("Authorization", f"Basic {b64encode(f'{ACCOUNT}:{TOKEN}'.encode()).decode()}")
    body.add_header("Content-Type", form)
    with urllib.request.urlopen(body) as answer:
        assert answer.status == 201
    status, headers, text = ask(double, f"{path}/anna.json", "DELETE")
    assert (status, text) == (204, None)
    assert headers["Twilio-Request-Id"].startswith("RQ")
    assert len(headers["Twilio-Request-Id"]) == 34
    status, headers, _ = ask(double, f"{BASE}/Conferences.json")
    assert (status, headers["Content-Type"]) == (200, "application/json;charset=utf-8")


def test_repeated_event_names_and_one_with_spaces_mean_the_same(client: Client, heard: Heard) -> None:
    client.conferences("Kitchen").participants.create(
        from_="+12065550100",
        to="+12065550101",
        conference_status_callback=heard.url,
        conference_status_callback_event=["start end", "join"],
    )
    assert [kind(one) for one in heard.until("participant-join")] == ["participant-join"]


def test_parameters_that_nobody_knows_are_accepted_and_kept(double: Double, client: Client, heard: Heard) -> None:
    dial(client, heard, call_reason="a test", byoc="BY" + "1" * 32)
    asked = ask(double, "/double/requests")[2]["requests"][-1]
    assert ["CallReason", "a test"] in asked["parameters"]


def test_many_at_once_are_all_told_under_numbers_of_their_own(client: Client, heard: Heard) -> None:
    with ThreadPoolExecutor(8) as threads:
        legs = list(threads.map(lambda number: dial(client, heard, label=f"{number}"), range(30)))
    [sid] = {leg.conference_sid for leg in legs}
    heard.until_many(30, "participant-join")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda leg: client.conferences(sid).participants(leg.call_sid).update(muted=True), legs))
    client.conferences(sid).update(status="completed")
    told = heard.until("conference-end")
    assert len(told) == 30 * 3 + 2
    assert kind(told[-1]) == "conference-end"


# Lists


@pytest.fixture
def seven(double: Double) -> list[str]:
    """Seven conferences, the newest first."""
    sids = [f"CF{number:032x}" for number in range(7)]
    for sid in sids:
        told = {"StatusCallbackEvent": "participant-join", "FriendlyName": f"Room {sid[-1]}", "CallSid": "CA" + sid[2:]}
        double.exchange.play(sid, told)
    return sids[::-1]


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_the_sdk_reads_every_page_once_in_order(client: Client, seven: list[str], size: int) -> None:
    assert [one.sid for one in client.conferences.list(page_size=size)] == seven


def test_pages_lead_on_and_back_and_their_addresses_are_relative_with_the_filters(
    double: Double, seven: list[str]
) -> None:
    _, _, first = ask(double, f"{BASE}/Conferences.json?PageSize=3&Status=in-progress")
    _, _, second = ask(double, first["next_page_uri"])
    _, _, third = ask(double, second["next_page_uri"])
    assert [[one["sid"] for one in page["conferences"]] for page in (first, second, third)] == [
        seven[:3],
        seven[3:6],
        seven[6:],
    ]
    assert [(page["page"], page["start"], page["end"]) for page in (first, second, third)] == [
        (0, 0, 2),
        (1, 3, 5),
        (2, 6, 6),
    ]
    assert first["previous_page_uri"] is None
    assert third["next_page_uri"] is None
    assert ask(double, third["previous_page_uri"])[2]["conferences"] == second["conferences"]
    assert first["first_page_uri"] == f"{BASE}/Conferences.json?Status=in-progress&PageSize=3&Page=0"
    assert first["next_page_uri"].endswith(f"&PageSize=3&Page=1&PageToken=PA{seven[2]}")


def test_a_page_goes_on_where_one_ended_whose_last_has_gone(double: Double, client: Client, seven: list[str]) -> None:
    _, _, first = ask(double, f"{BASE}/Conferences.json?PageSize=3")
    client.conferences(seven[2]).update(status="completed")
    _, _, second = ask(double, first["next_page_uri"])
    assert [one["sid"] for one in second["conferences"]] == seven[3:6]


def test_an_empty_list_is_a_page_too(double: Double) -> None:
    _, _, page = ask(double, f"{BASE}/Conferences.json")
    assert (page["conferences"], page["start"], page["end"], page["next_page_uri"]) == ([], 0, 0, None)


@pytest.mark.parametrize(("asked", "size"), [("0", 1), ("-5", 1), ("5000", 1000), ("many", 50), ("7", 7)])
def test_a_page_size_is_brought_within_bounds(double: Double, asked: str, size: int) -> None:
    assert ask(double, f"{BASE}/Conferences.json?PageSize={asked}")[2]["page_size"] == size


def test_an_unknown_page_token_is_refused(double: Double, seven: list[str]) -> None:
    status, _, error = ask(double, f"{BASE}/Conferences.json?PageToken=PA{NOBODY}f")
    assert (status, error["code"]) == (400, 21481)


def test_conferences_are_filtered_by_name_status_and_days(client: Client, seven: list[str]) -> None:
    client.conferences(seven[0]).update(status="completed")
    listed = client.conferences.list
    assert [one.sid for one in listed(friendly_name="Room 3")] == [seven[3]]
    assert [one.sid for one in listed(status="completed")] == [seven[0]]
    assert len(listed(status="in-progress")) == 6
    today = datetime.now(UTC).date()
    long_ago, far_off = today - timedelta(days=9), today + timedelta(days=9)
    assert len(listed(date_created_after=long_ago, date_created_before=far_off)) == 6
    assert len(listed(date_updated_after=long_ago)) == 6
    assert (
        listed(date_created=long_ago)
        == listed(date_created_after=far_off)
        == listed(date_created_before=long_ago)
        == []
    )


@pytest.mark.parametrize("query", ["Status=over", "DateCreated=2026-11-22T12:00:00Z", "DateUpdated%3C=soon"])
def test_a_filter_that_means_nothing_is_refused(double: Double, query: str) -> None:
    status, _, error = ask(double, f"{BASE}/Conferences.json?{query}")
    assert (status, error["code"]) == (400, 20001)


# Errors


def test_errors_have_twilios_body(double: Double) -> None:
    path = f"{BASE}/Conferences/{NOBODY}.json"
    status, _, error = ask(double, path)
    assert status == 404
    assert error == {
        "code": 20404,
        "message": f"The requested resource {path} was not found",
        "more_info": "https://www.twilio.com/docs/errors/20404",
        "status": 404,
    }


@pytest.mark.parametrize("words", ["", "Basic nonsense", f"Basic {b64encode(f'{ACCOUNT}:another'.encode()).decode()}"])
@pytest.mark.parametrize("path", [f"{BASE}/Conferences.json", "/double/requests", "/nowhere"])
def test_who_does_not_know_the_token_is_refused(double: Double, path: str, words: str) -> None:
    status, headers, error = ask(double, path, Authorization=words)
    assert (status, error["code"], error["message"]) == (401, 20003, "Authenticate")
    assert headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/2010-04-01",
        f"{BASE}/Calls.json",
        f"{BASE}/Conferences",
        f"/2010-04-01/Accounts/AC{'f' * 32}/Conferences.json",
        f"{BASE}/Conferences/{NOBODY}/Participants.json",
        f"{BASE}/Conferences/{NOBODY}/Participants/anna.json",
        f"{BASE}/Conferences/{NOBODY}/Recordings/RE{'1' * 32}.json",
    ],
)
def test_what_is_not_there_is_404(double: Double, path: str) -> None:
    status, _, error = ask(double, path)
    assert (status, error["code"]) == (404, 20404)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/Conferences.json"), ("DELETE", f"/Conferences/{NOBODY}.json"), ("GET", "/Conferences/Room.json")],
)
def test_what_cannot_be_done_is_405(double: Double, method: str, path: str) -> None:
    status, _, error = ask(double, BASE + path, method)
    assert (status, error["code"]) == (405, 20004)


def test_the_sdk_raises_what_it_raises_with_twilio(client: Client, heard: Heard) -> None:
    with pytest.raises(TwilioRestException) as refusal:
        client.conferences("Kitchen").participants.create(from_="+12065550100", to="")
    assert (refusal.value.status, refusal.value.code) == (400, 21201)
    with pytest.raises(TwilioException):
        client.conferences(NOBODY).participants.list()


# What only the double has


def test_requests_are_counted_and_kept_until_they_are_forgotten(double: Double, client: Client, pair: Any) -> None:
    pair.participants("anna").update(muted=True)
    client.conferences.list(status="completed")
    shown = ask(double, "/double/requests")[2]
    assert shown["counts"] == {"GET": 1, "POST": 3, "DELETE": 0}
    update, listing = shown["requests"][-2:]
    assert (update["method"], update["parameters"]) == ("POST", [["Muted", "true"]])
    assert update["path"].endswith("/Participants/anna.json")
    assert update["user_agent"].startswith("twilio-python/")
    assert (listing["path"], listing["query"]) == (f"{BASE}/Conferences.json", "Status=completed")
    assert ask(double, "/double/requests", "DELETE")[0] == 204
    assert ask(double, "/double/requests")[2] == {"counts": {"GET": 0, "POST": 0, "DELETE": 0}, "requests": []}


def test_only_so_many_requests_are_kept_but_all_are_counted(
    double: Double, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    monkeypatch.setattr(api, "REQUESTS_KEPT", 3)
    ask(double, "/double/requests", "DELETE")
    for _ in range(5):
        client.conferences.list()
    shown = ask(double, "/double/requests")[2]
    assert (shown["counts"]["GET"], len(shown["requests"])) == (5, 3)


@pytest.mark.parametrize(("status", "code"), [(429, 20429), (500, 20500), (503, 20500), (499, 20500), (403, 20003)])
def test_a_status_is_met_as_often_as_asked_and_nothing_is_done(
    double: Double, pair: Any, status: int, code: int
) -> None:
    assert ask(double, "/double/faults", "PUT", {"status": status, "times": 2})[0] == 204
    for _ in range(2):
        with pytest.raises(TwilioRestException) as refusal:
            pair.participants("anna").update(muted=True)
        assert (refusal.value.status, refusal.value.code) == (status, code)
    assert pair.participants("anna").fetch().muted is False


def test_a_fault_is_met_once_unless_told_otherwise_and_can_be_cleared(double: Double, pair: Any) -> None:
    ask(double, "/double/faults", "PUT", {"status": 500})
    with pytest.raises(TwilioRestException):
        pair.fetch()
    pair.fetch()
    ask(double, "/double/faults", "PUT", {"status": 500, "times": 9})
    ask(double, "/double/faults", "DELETE")
    pair.fetch()


def test_an_answer_is_delayed(double: Double, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(api, "sleep", slept.append)
    ask(double, "/double/faults", "PUT", {"delay": 2.5})
    pair.fetch()
    assert slept[-1] == 2.5


def test_what_is_ignored_is_answered_and_not_done(double: Double, heard: Heard, pair: Any) -> None:
    ask(double, "/double/faults", "PUT", {"ignore": True, "times": 2})
    assert pair.participants("anna").update(muted=True).muted is True
    assert pair.update(status="completed").status == "completed"
    assert pair.participants("anna").fetch().muted is False
    pair.participants("anna").update(hold=True)
    assert "participant-mute" not in {kind(one) for one in heard.until("participant-hold")}


def test_a_connection_is_hung_up_after_the_deed(double: Double, heard: Heard, pair: Any) -> None:
    ask(double, "/double/faults", "PUT", {"hang_up": True})
    with pytest.raises(requests.exceptions.ConnectionError):
        pair.participants("anna").update(muted=True)
    heard.until("participant-mute")
    assert pair.participants("anna").fetch().muted is True


@pytest.mark.parametrize(
    "fault", [[], {"stats": 500}, {"status": 200}, {"status": "500"}, {"delay": -1}, {"times": 0.5}]
)
def test_a_fault_that_cannot_be_is_refused(double: Double, fault: Any) -> None:
    status, _, error = ask(double, "/double/faults", "PUT", fault)
    assert (status, error["code"]) == (400, 20001)


def test_a_taken_port_is_an_error_of_the_caller() -> None:
    exchange = Exchange(ACCOUNT, lambda *_: None, lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Double(exchange, TOKEN, port=taken.getsockname()[1])
