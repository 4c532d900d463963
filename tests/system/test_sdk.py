"""Twilio's official SDKs, unmodified, as clients of a running Offhook: what they read, and what they change.

Twilio is played by `offhook simulate --api`, a process of its own. It counts what it is asked: reading costs nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from email.utils import format_datetime, parsedate_to_datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import requests
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from app.simulator.sender import Sender
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, TOKEN, at, said
from tests.system.house import House, awaited, free_port

SDK = Path(__file__).parent / "sdk"
CLIENTS = Path("docs/clients.md").read_text()
DOCUMENTED_HOST = "https://offhook.example.com"

AUTH_TOKEN = TOKEN.replace(" ", "-")
HOME, HOME_TOKEN = "AC" + "c" * 32, "another-pretend-token"
"""The account that is read from, a subaccount of the one in which conferences are changed."""
WALLBOARD, WALLBOARD_SECRET = "wallboard", "a-secret-that-may-only-read"
DESK, DESK_SECRET = "desk", "a-secret-that-may-do-more"


def sid(kind: str, number: int) -> str:
    """A sid of the cast."""
    return f"{kind}{number:032x}"


# What has happened at home, told by callbacks


DAY = 86400
STAND_UP, BOARD, NOBODY = sid("CF", 1), sid("CF", 2), sid("CF", 9)
RETROS = [sid("CF", number) for number in (3, 4, 5)]
CONFERENCES = f"/2010-04-01/Accounts/{HOME}/Conferences.json"
MORNING, EVENING = sid("RE", 1), sid("RE", 2)
ROUND_THE_CORNER = "Zoë / desk 100%"
"""A label with what an address cannot hold."""


def story(room: str, name: str, *happenings: tuple[str, str | None, int, dict[str, str]]) -> list[dict[str, str]]:
    """A conference's callbacks: what happened, to which call, how many seconds from noon, and what else is said."""
    return [
        said(event, call, number=number, second=second, room=room, AccountSid=HOME, FriendlyName=name, **more)
        for number, (event, call, second, more) in enumerate(happenings, start=1)
    ]


def recorded(recording: str, second: int, status: str, **more: str) -> dict[str, str]:
    """A recording's callback; it began so many seconds from noon."""
    return {
        "AccountSid": HOME,
        "ConferenceSid": BOARD,
        "RecordingSid": recording,
        "RecordingUrl": f"https://api.twilio.com/2010-04-01/Accounts/{HOME}/Recordings/{recording}",
        "RecordingStatus": status,
        "RecordingChannels": "1",
        "RecordingSource": "Conference",
        "RecordingStartTime": format_datetime(at(second)),
    } | more


BY_API = {"ReasonConferenceEnded": "conference-ended-via-api"}
BY_ANNA = {"ReasonConferenceEnded": "last-participant-left", "CallSidEndingConference": ANNA}
LEFT = {"ParticipantCallStatus": "completed", "ReasonParticipantLeft": "participant_hung_up"}
STORIES = [
    story(
        STAND_UP,
        "Stand-up",
        ("participant-join", ANNA, 0, {"EndConferenceOnExit": "true"}),
        ("participant-join", BEN, 5, {"Hold": "true"}),
        ("conference-start", None, 5, {}),
        ("participant-join", CLEO, 10, {"Coaching": "true", "ParticipantLabel": ROUND_THE_CORNER}),
        ("participant-mute", ANNA, 20, {"Muted": "true", "EndConferenceOnExit": "true"}),
    ),
    story(
        BOARD,
        "Board",
        ("participant-join", ANNA, -DAY, {}),
        ("participant-join", BEN, -DAY + 60, {}),
        ("conference-start", None, -DAY + 60, {}),
        ("conference-end", None, 3600, BY_API),
    ),
    story(
        RETROS[0],
        "Retro",
        ("participant-join", ANNA, -2 * DAY, {}),
        ("participant-leave", ANNA, -2 * DAY + 90, LEFT),
        ("conference-end", None, -2 * DAY + 90, BY_ANNA),
    ),
    story(RETROS[1], "Retro", ("participant-join", BEN, -DAY, {}), ("conference-end", None, -DAY + 90, BY_API)),
    story(RETROS[2], "Retro", ("participant-join", CLEO, 30, {})),
    *(  # two of them in each second, of which one has ended
        story(
            sid("CF", 1000 + number),
            f"Room {number:03}",
            ("participant-join", sid("CA", 1000 + number), -3 * DAY + number // 2, {}),
            *[("conference-end", None, -3 * DAY + 600, BY_API)] * (number % 2),
        )
        for number in range(120)
    ),
]
RECORDINGS = [
    recorded(MORNING, -DAY + 60, "in-progress"),
    recorded(MORNING, -DAY + 60, "completed", RecordingDuration="30"),
    recorded(EVENING, 60, "in-progress"),
]


class Told(NamedTuple):
    """What callbacks have told of a conference."""

    sid: str
    name: str
    status: str
    created: datetime
    updated: datetime


def told(callbacks: list[dict[str, str]]) -> Told:
    """The conference of a story."""
    times = [parsedate_to_datetime(each["Timestamp"]) for each in callbacks]
    ended = any(each["StatusCallbackEvent"] == "conference-end" for each in callbacks)
    status = "completed" if ended else "in-progress"
    return Told(callbacks[0]["ConferenceSid"], callbacks[0]["FriendlyName"], status, min(times), max(times))


CAST = sorted(map(told, STORIES), key=lambda each: (each.created, each.sid), reverse=True)
"""The newest first, as lists have them."""


# The stage


class Twilio:
    """`offhook simulate --api`: plays Twilio's REST API for the account that is not the home, twenty times as fast."""

    def __init__(self, port: int, webhook: str, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        command = [sys.executable, "-m", "app", "simulate", "--api", "--api-port", str(port), "--url", webhook]
        environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, "--conferences", "0", "--speed", "20", "--quiet"],
                env={**environ, "TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": AUTH_TOKEN},
                stdout=out,
                stderr=out,
            )

    def ready(self) -> Twilio:
        """Wait until it answers."""
        awaited("the double", lambda: self.process.poll() is not None or self._answers())
        assert self.process.poll() is None, self.log.read_text()
        return self

    def _answers(self) -> bool:
        try:
            return bool(self.asked())
        except OSError:
            return False

    def asked(self) -> dict[str, int]:
        """How many requests have come so far, by method."""
        counts: dict[str, int] = json.loads(self._request("GET", "/double/requests"))["counts"]
        return counts

    def meet_next_with(self, **fault: Any) -> None:
        """What becomes of the next request: see `app.simulator.api.Fault`."""
        self._request("PUT", "/double/faults", json.dumps(fault).encode())

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        words = b64encode(f"{ACCOUNT}:{AUTH_TOKEN}".encode()).decode()
        request = urllib.request.Request(self.url + path, body, {"Authorization": f"Basic {words}"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())


class Stage(NamedTuple):
    """A running Offhook that has heard the cast's callbacks, and the Twilio that it passes requests on to."""

    house: House
    twilio: Twilio

    @property
    def webhook(self) -> str:
        """Where callbacks belong."""
        return f"{self.house.url}/webhooks/twilio"

    def document(self, conference: str) -> Any:
        """A conference as Offhook's own API shows it."""
        return self.house.get(f"/api/conferences/{conference}")

    def action(self, conference: str, verb: str, state: str) -> Any:
        """The newest request of this kind that passed through for a conference, once it has got so far."""

        def newest() -> Any:
            known = self.document(conference) or {"actions": []}
            actions = [each for each in known["actions"] if each["verb"] == verb]
            done = actions and actions[-1]["state"] == state and actions[-1]["answered_at"]
            return done and actions[-1]  # a callback may be sooner than the record of Twilio's answer

        return awaited(f"{verb} is {state}", newest)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    accounts = folder / "accounts.toml"
    accounts.write_text(f'[[account]]\nsid = "{HOME}"\ntokens = ["{HOME_TOKEN}"]\nparent = "{ACCOUNT}"\n')
    ports = free_port(), free_port()
    house = House(
        folder,
        PORT=str(ports[0]),
        OFFHOOK_ACCOUNTS_FILE=str(accounts),
        OFFHOOK_API_KEYS=f"{WALLBOARD}:{WALLBOARD_SECRET}:read,{DESK}:{DESK_SECRET}:control",
        TWILIO_API_BASE_URL=f"http://127.0.0.1:{ports[1]}",
    )
    with ExitStack() as at_the_end:
        at_the_end.callback(end, house.process)
        twilio = Twilio(ports[1], f"{house.url}/webhooks/twilio", folder / "twilio.log")
        at_the_end.callback(end, twilio.process)
        stage = Stage(house.ready(), twilio.ready())
        tell(stage, [*(each for one in STORIES for each in one), *RECORDINGS])
        yield stage


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop it; kill it if it will not, which takes what it has started with it."""
    process.terminate()
    try:
        process.wait(30)
    finally:
        process.kill()


def tell(stage: Stage, callbacks: list[dict[str, str]]) -> None:
    """Send them, signed, and wait until all are part of what is true."""
    sender = Sender(stage.webhook, HOME_TOKEN)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(sender.send, callbacks)) == {204}
    awaited("the cast", lambda: stage.house.get("/api/stats")["callbacks"]["folded"] == len(callbacks))


@contextmanager
def sdk(stage: Stage, name: str, secret: str, account: str | None = None) -> Iterator[Client]:
    """The SDK's client as docs/clients.md makes it."""
    client = Client(name, secret, account, http_client=TwilioHttpClient(timeout=20))
    client.api.base_url = stage.house.url
    client.insights.base_url = stage.house.url
    yield client
    client.http_client.session.close()


@pytest.fixture
def reader(stage: Stage) -> Iterator[Client]:
    """Reads at home. It has cost not one request at Twilio."""
    before = stage.twilio.asked()
    with sdk(stage, HOME, HOME_TOKEN) as client:
        yield client
    assert stage.twilio.asked() == before


@pytest.fixture
def operator(stage: Stage) -> Iterator[Client]:
    """Changes conferences, and reads them. What it reads is never looked up at Twilio."""
    with sdk(stage, ACCOUNT, AUTH_TOKEN) as client:
        yield client
    assert stage.twilio.asked()["GET"] == 0


# Reading


FILTERS: dict[str, tuple[dict[str, Any], Callable[[Told], bool]]] = {
    "nothing": ({}, lambda each: True),
    "in progress": ({"status": "in-progress"}, lambda each: each.status == "in-progress"),
    "completed": ({"status": "completed"}, lambda each: each.status == "completed"),
    "init": ({"status": "init"}, lambda each: False),
    "a name": ({"friendly_name": "Retro"}, lambda each: each.name == "Retro"),
    "created on": ({"date_created": date(2026, 11, 21)}, lambda each: each.created.day == 21),
    "created until": ({"date_created_before": date(2026, 11, 21)}, lambda each: each.created.day <= 21),
    "created since": ({"date_created_after": date(2026, 11, 21)}, lambda each: each.created.day >= 21),
    "updated on": ({"date_updated": date(2026, 11, 22)}, lambda each: each.updated.day == 22),
    "updated until": ({"date_updated_before": date(2026, 11, 21)}, lambda each: each.updated.day <= 21),
    "updated since": ({"date_updated_after": date(2026, 11, 21)}, lambda each: each.updated.day >= 21),
    "all at once": (
        {"friendly_name": "Retro", "status": "completed", "date_created_after": date(2026, 11, 21)},
        lambda each: each.sid == RETROS[1],
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_list_has_what_its_filter_lets_through_and_the_newest_first(reader: Client, name: str) -> None:
    asked, fits = FILTERS[name]
    assert [each.sid for each in reader.conferences.list(**asked)] == [each.sid for each in CAST if fits(each)]


def test_a_stream_of_small_pages_misses_nobody_and_repeats_nobody(reader: Client) -> None:
    assert [each.sid for each in reader.conferences.stream(page_size=7)] == [each.sid for each in CAST]
    live = [each.sid for each in CAST if each.status == "in-progress"]
    assert [each.sid for each in reader.conferences.stream(status="in-progress", page_size=7)] == live


def test_pages_lead_there_and_back_and_are_found_again_by_their_address(reader: Client) -> None:
    page = reader.conferences.page(status="completed", page_size=25)
    assert page.previous_page() is None
    pages, addresses = [], []
    while page is not None:
        pages.append([each.sid for each in page])
        addresses.append(page.next_page_url)
        last, page = page, page.next_page()
    assert [each for page in pages for each in page] == [each.sid for each in CAST if each.status == "completed"]
    assert [len(each) for each in pages] == [25, 25, 13]
    back = []
    while (last := last.previous_page()) is not None:
        back.append([each.sid for each in last])
    assert back == pages[-2::-1]
    assert [each.sid for each in reader.conferences.get_page(addresses[1])] == pages[2]
    assert addresses[-1] is None


def test_a_limit_beyond_the_largest_page_is_taken_as_it_is(reader: Client) -> None:
    assert len(reader.conferences.list(limit=5000)) == len(CAST)
    assert len(reader.conferences.list(limit=3)) == 3


def test_a_live_conference_is_fetched_with_its_properties(reader: Client) -> None:
    live = reader.conferences(STAND_UP).fetch()
    path = f"/2010-04-01/Accounts/{HOME}/Conferences/{STAND_UP}"
    assert (
        vars(live).items()
        >= {
            "account_sid": HOME,
            "api_version": "2010-04-01",
            "call_sid_ending_conference": None,
            "date_created": at(0),
            "date_updated": at(20),
            "friendly_name": "Stand-up",
            "reason_conference_ended": None,
            "region": None,
            "sid": STAND_UP,
            "status": "in-progress",
            "uri": f"{path}.json",
        }.items()
    )
    assert live.subresource_uris == {
        "participants": f"{path}/Participants.json",
        "recordings": f"{path}/Recordings.json",
    }
    assert [each.call_sid for each in live.participants.list()] == [CLEO, BEN, ANNA]


def test_an_ended_conference_says_why_and_still_has_those_who_took_part(reader: Client) -> None:
    ended = reader.conferences(RETROS[0]).fetch()
    assert (ended.status, ended.reason_conference_ended) == ("completed", "last-participant-left")
    assert ended.call_sid_ending_conference == ANNA
    [anna] = ended.participants.list()
    assert (anna.call_sid, anna.label, anna.status) == (ANNA, "anna", "complete")


def test_participants_are_listed_by_how_they_are(reader: Client) -> None:
    participants = reader.conferences(STAND_UP).participants
    assert [each.call_sid for each in participants.list(muted=True)] == [ANNA]
    assert [each.call_sid for each in participants.list(muted=False)] == [CLEO, BEN]
    assert [each.call_sid for each in participants.list(hold=True)] == [BEN]
    assert [each.call_sid for each in participants.list(coaching=True)] == [CLEO]
    assert [each.call_sid for each in participants.list(muted=False, hold=False)] == [CLEO]
    assert participants.list(muted=True, hold=True) == []
    assert [each.call_sid for each in participants.stream(page_size=1)] == [CLEO, BEN, ANNA]


def test_a_participant_is_fetched_by_its_call_and_by_its_label(reader: Client) -> None:
    participants = reader.conferences(STAND_UP).participants
    anna = participants(ANNA).fetch()
    assert (
        vars(anna).items()
        >= {
            "account_sid": HOME,
            "call_sid": ANNA,
            "call_sid_to_coach": None,
            "coaching": False,
            "conference_sid": STAND_UP,
            "date_created": at(0),
            "date_updated": at(20),
            "end_conference_on_exit": True,
            "hold": False,
            "label": "anna",
            "muted": True,
            "queue_time": None,
            "start_conference_on_enter": True,
            "status": "connected",
            "uri": f"/2010-04-01/Accounts/{HOME}/Conferences/{STAND_UP}/Participants/{ANNA}.json",
        }.items()
    )
    assert participants("ben").fetch().call_sid == BEN
    assert participants(quote(ROUND_THE_CORNER, safe="")).fetch().call_sid == CLEO


def test_recordings_are_listed_and_fetched(reader: Client) -> None:
    recordings = reader.conferences(BOARD).recordings
    assert [each.sid for each in recordings.list()] == [EVENING, MORNING]
    assert [each.sid for each in recordings.list(date_created=date(2026, 11, 21))] == [MORNING]
    assert [each.sid for each in recordings.list(date_created_before=date(2026, 11, 21))] == [MORNING]
    assert [each.sid for each in recordings.list(date_created_after=date(2026, 11, 22))] == [EVENING]
    morning = recordings(MORNING).fetch()
    assert (
        vars(morning).items()
        >= {
            "account_sid": HOME,
            "conference_sid": BOARD,
            "channels": 1,
            "duration": "30",
            "sid": MORNING,
            "source": "Conference",
            "start_time": at(-DAY + 60),
            "status": "completed",
        }.items()
    )
    assert recordings(EVENING).fetch().status == "in-progress"
    assert reader.conferences(STAND_UP).recordings.list() == []


def test_insights_sums_up_conferences(reader: Client) -> None:
    conferences = reader.insights.v1.conferences
    assert [each.conference_sid for each in conferences.list()] == [each.sid for each in CAST]
    assert [each.conference_sid for each in conferences.stream(page_size=7)] == [each.sid for each in CAST]
    assert [each.conference_sid for each in conferences.list(friendly_name="Retro")] == RETROS[::-1]
    assert [each.conference_sid for each in conferences.list(conference_sid=BOARD)] == [BOARD]
    assert [each.conference_sid for each in conferences.list(end_reason="last_participant_left")] == [RETROS[0]]
    recent = conferences.list(status="in_progress", created_after="2026-11-22T00:00:00Z")
    assert [each.conference_sid for each in recent] == [RETROS[2], STAND_UP]
    older = conferences.list(friendly_name="Retro", created_before="2026-11-21T23:59:59Z")
    assert [each.conference_sid for each in older] == [RETROS[1], RETROS[0]]
    board = conferences(BOARD).fetch()
    assert (board.create_time, board.start_time, board.end_time) == (at(-DAY), at(-DAY + 60), at(3600))
    assert (board.status, board.end_reason) == ("completed", "conference_ended_via_api")
    assert (board.duration_seconds, board.max_concurrent_participants) == (DAY + 3600, 2)


def test_insights_sums_up_participants(reader: Client) -> None:
    participants = reader.insights.v1.conferences(STAND_UP).conference_participants
    assert [each.call_sid for each in participants.list()] == [CLEO, BEN, ANNA]
    assert [each.call_sid for each in participants.stream(page_size=1)] == [CLEO, BEN, ANNA]
    assert [each.call_sid for each in participants.list(label="ben")] == [BEN]
    anna = participants(ANNA).fetch(events="mute")
    assert (anna.label, anna.join_time, anna.leave_time, anna.is_moderator) == ("anna", at(0), None, True)
    assert anna.events == {"join": [at(0).timestamp() * 1000], "mute": [at(20).timestamp() * 1000]}
    assert participants("ben").fetch().call_sid == BEN


def test_a_parent_reads_its_subaccount_and_a_key_reads_every_account(stage: Stage, reader: Client) -> None:
    everything = [each.sid for each in CAST]
    for name, secret in [(ACCOUNT, AUTH_TOKEN), (WALLBOARD, WALLBOARD_SECRET), (DESK, DESK_SECRET)]:
        with sdk(stage, name, secret, HOME) as client:
            assert [each.sid for each in client.conferences.list()] == everything
            assert client.conferences(STAND_UP).participants("anna").fetch().call_sid == ANNA
            listed = client.insights.v1.conferences.list(subaccount=HOME)
            assert [each.conference_sid for each in listed] == everything


def test_edge_and_region_are_taken_back_as_documented(stage: Stage, reader: Client) -> None:
    client = Client(HOME, HOME_TOKEN, edge="dublin", region="ie1", http_client=reader.http_client)
    client.api.base_url = stage.house.url
    client.edge = client.region = None
    assert client.conferences(STAND_UP).fetch().sid == STAND_UP


# Failures, and how the SDK tells of them


@pytest.mark.parametrize(
    ("fetch", "status", "code"),
    [
        (lambda client: client.conferences(NOBODY).fetch(), 404, 20404),
        (lambda client: client.conferences(STAND_UP).participants("nobody").fetch(), 404, 20404),
        (lambda client: client.conferences(RETROS[0]).participants(CLEO).fetch(), 404, 20404),
        (lambda client: client.conferences(STAND_UP).recordings(MORNING).fetch(), 404, 20404),
        (lambda client: client.insights.v1.conferences(NOBODY).fetch(), 404, 20404),
        (lambda client: client.conferences("Stand-up").fetch(), 405, 20004),
    ],
    ids=["conference", "label", "call", "recording", "insights", "a name for a sid"],
)
def test_what_is_not_there_is_twilios_not_found(
    reader: Client, fetch: Callable[[Client], Any], status: int, code: int
) -> None:
    with pytest.raises(TwilioRestException) as failure:
        fetch(reader)
    assert (failure.value.status, failure.value.code) == (status, code)


@pytest.mark.parametrize(
    ("read", "status", "code"),
    [
        (lambda client: client.conferences.list(status="over"), 400, 20001),
        (lambda client: client.conferences.get_page(f"{client.api.base_url}{CONFERENCES}?PageToken=PA1"), 400, 21481),
        (lambda client: client.conferences(NOBODY).participants.list(), 404, 20404),
    ],
    ids=["filter", "page token", "conference"],
)
def test_a_list_that_fails_carries_its_answer(
    reader: Client, read: Callable[[Client], Any], status: int, code: int
) -> None:
    with pytest.raises(TwilioException) as failure:
        read(reader)
    assert type(failure.value) is TwilioException
    answer = failure.value.args[1]
    assert (answer.status_code, json.loads(answer.text)["code"]) == (status, code)


def test_a_wrong_secret_is_twilios_unauthorized(stage: Stage, reader: Client) -> None:
    with sdk(stage, HOME, "not-the-token") as stranger:
        with pytest.raises(TwilioRestException) as fetched:
            stranger.conferences(STAND_UP).fetch()
        with pytest.raises(TwilioException) as listed:
            stranger.conferences.list()
        with pytest.raises(TwilioRestException) as summed:
            stranger.insights.v1.conferences(STAND_UP).fetch()
    assert (fetched.value.status, fetched.value.code) == (401, 20003)
    assert type(listed.value) is TwilioException
    assert listed.value.args[1].status_code == 401
    assert (summed.value.status, summed.value.code) == (401, 20003)


def test_one_account_does_not_see_its_parents_conferences(stage: Stage, reader: Client) -> None:
    with sdk(stage, HOME, HOME_TOKEN, ACCOUNT) as child, pytest.raises(TwilioException) as failure:
        child.conferences.list()
    assert failure.value.args[1].status_code == 404


def test_no_connection_is_an_exception_of_requests(stage: Stage, reader: Client) -> None:
    reader.api.base_url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(requests.ConnectionError):
        reader.conferences(STAND_UP).fetch()


# Changing


FROM, TO, IN_VAIN = "+12065550100", "+12065550101", "+12065550199"
EVENTS = ["start", "end", "join", "leave", "mute", "hold", "modify", "announcement"]
NAMES = (f"Show {number}" for number in count(1))
SOUND = "https://sounds.example.com/one.mp3"


class Show(NamedTuple):
    """A live conference with two in it."""

    sid: str
    host: str
    guest: str


@pytest.fixture
def show(stage: Stage, operator: Client) -> Show:
    return on_air(stage, operator)


def on_air(stage: Stage, operator: Client, **more: Any) -> Show:
    """Dial two into a conference that is made by it, and wait until they are told to be there."""
    name = next(NAMES)
    host, guest = (dial(stage, operator, name, label=label, **more) for label in ("host", "guest"))
    awaited("two on air", lambda: heard(stage, host.conference_sid) == [[1, 3]])
    return Show(host.conference_sid, host.call_sid, guest.call_sid)


def dial(stage: Stage, operator: Client, name: str, **more: Any) -> Any:
    """Add a participant who answers, or who is as `more` says."""
    return operator.conferences(name).participants.create(
        **{
            "from_": FROM,
            "to": TO,
            "conference_status_callback": stage.webhook,
            "conference_status_callback_event": EVENTS,
        }
        | more
    )


def heard(stage: Stage, conference: str) -> Any:
    """The numbers of a conference's events that have been folded."""
    document = stage.document(conference)
    return document and document["coverage"]["sequences"]


def test_a_participant_is_dialled_joins_and_is_confirmed(stage: Stage, operator: Client) -> None:
    name = next(NAMES)
    leg = dial(
        stage,
        operator,
        name,
        label=ROUND_THE_CORNER,
        status_callback=stage.webhook,
        status_callback_event=["initiated", "ringing", "answered", "completed"],
    )
    assert (leg.status, leg.queue_time, leg.label) == ("queued", "0", ROUND_THE_CORNER)
    added = stage.action(leg.conference_sid, "add-participant", "confirmed")
    assert (added["call_sid"], added["status"], added["by"]) == (leg.call_sid, 201, ACCOUNT)
    [conference] = operator.conferences.list(friendly_name=name)
    assert (conference.sid, conference.status) == (leg.conference_sid, "in-progress")
    joined = conference.participants(quote(ROUND_THE_CORNER, safe="")).fetch()
    assert (joined.call_sid, joined.status, joined.queue_time) == (leg.call_sid, "connected", "0")
    summary = operator.insights.v1.conferences(leg.conference_sid).conference_participants(leg.call_sid)

    def progress() -> bool:
        known = summary.fetch()
        return (known.to, known.call_direction, known.call_status) == (TO, "outbound", "answered")

    awaited("the call's own progress", progress)


def test_who_is_not_dialled_yet_is_queued(stage: Stage, operator: Client) -> None:
    stage.twilio.meet_next_with(ignore=True)
    leg = dial(stage, operator, next(NAMES), label="late")
    awaited("the participant", lambda: stage.document(leg.conference_sid))
    conference = operator.conferences(leg.conference_sid)
    queued = conference.participants("late").fetch()
    assert (queued.call_sid, queued.status, queued.queue_time) == (leg.call_sid, "queued", "0")
    assert [each.call_sid for each in conference.participants.list()] == [leg.call_sid]
    assert conference.fetch().status == "init"
    assert leg.conference_sid in [each.sid for each in operator.conferences.list(status="init")]


def test_a_call_that_nobody_answers_has_failed(stage: Stage, operator: Client, show: Show) -> None:
    leg = dial(stage, operator, show.sid, to=IN_VAIN, label="away")
    assert stage.action(show.sid, "add-participant", "failed")["call_sid"] == leg.call_sid
    assert {each.call_sid for each in operator.conferences(show.sid).participants.list()} == {show.guest, show.host}


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "muted": ({"muted": True}, {"muted": True}, ["muted=true"]),
    "hold": ({"hold": True, "hold_url": SOUND, "hold_method": "GET"}, {"hold": True}, ["hold=true"]),
    "end": ({"end_conference_on_exit": True}, {"end_conference_on_exit": True}, ["end_conference_on_exit=true"]),
    "announcement": ({"announce_url": SOUND}, {}, [f"announcement-end {SOUND}"]),
    "wait url": ({"wait_url": SOUND}, {}, ["participant-modify"]),
    "beep": ({"beep_on_exit": False}, {}, ["participant-modify"]),
    "two": ({"muted": True, "hold": True}, {"muted": True, "hold": True}, ["hold=true", "muted=true"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_a_participant_is_confirmed_by_its_callback(
    stage: Stage, operator: Client, show: Show, name: str
) -> None:
    asked, then, awaits = CHANGES[name]
    guest = operator.conferences(show.sid).participants(show.guest)
    assert vars(guest.update(**asked)).items() >= then.items()
    assert stage.action(show.sid, "update-participant", "confirmed")["told"] == awaits
    assert vars(guest.fetch()).items() >= then.items()


def test_a_change_by_label_reaches_who_has_it_and_is_taken_back(stage: Stage, operator: Client, show: Show) -> None:
    guest = operator.conferences(show.sid).participants("guest")
    assert guest.update(muted=True).call_sid == show.guest
    assert stage.action(show.sid, "update-participant", "confirmed")["told"] == ["muted=true"]
    assert guest.update(muted=False).call_sid == show.guest
    awaited("an unmuted guest", lambda: guest.fetch().muted is False)
    assert stage.action(show.sid, "update-participant", "confirmed")["told"] == ["muted=false"]
    assert operator.conferences(show.sid).participants.list(muted=True) == []


def test_whom_someone_coaches_is_known_from_twilios_answer(stage: Stage, operator: Client, show: Show) -> None:
    host = operator.conferences(show.sid).participants("host")
    assert host.update(coaching=True, call_sid_to_coach=show.guest).call_sid_to_coach == show.guest
    assert stage.action(show.sid, "update-participant", "confirmed")["told"] == ["coaching=true"]
    coach = host.fetch()
    assert (coach.coaching, coach.call_sid_to_coach) == (True, show.guest)
    summary = operator.insights.v1.conferences(show.sid).conference_participants(show.host).fetch()
    assert (summary.is_coach, summary.coached_participants) == (True, [show.guest])
    host.update(coaching=False)
    awaited("the end of it", lambda: host.fetch().coaching is False)
    assert host.fetch().call_sid_to_coach is None


def test_who_is_removed_is_gone_and_the_conference_goes_on(stage: Stage, operator: Client, show: Show) -> None:
    conference = operator.conferences(show.sid)
    assert conference.participants("guest").delete() is True
    assert stage.action(show.sid, "remove-participant", "confirmed")["call_sid"] == show.guest
    with pytest.raises(TwilioRestException) as failure:
        conference.participants(show.guest).fetch()
    assert failure.value.code == 20404
    assert [each.call_sid for each in conference.participants.list()] == [show.host]
    assert conference.fetch().status == "in-progress"


def test_a_conference_is_announced_to(stage: Stage, operator: Client, show: Show) -> None:
    assert operator.conferences(show.sid).update(announce_url=SOUND, announce_method="GET").status == "in-progress"
    assert stage.action(show.sid, "update-conference", "confirmed")["told"] == [f"announcement-end {SOUND}"]


def test_a_conference_is_ended_and_its_participants_stay_to_be_read(stage: Stage, operator: Client, show: Show) -> None:
    conference = operator.conferences(show.sid)
    assert conference.update(status="completed").status == "completed"
    stage.action(show.sid, "update-conference", "confirmed")
    ended = conference.fetch()
    assert (ended.status, ended.reason_conference_ended) == ("completed", "conference-ended-via-api")
    assert {(each.call_sid, each.status) for each in conference.participants.list()} == {
        (show.host, "complete"),
        (show.guest, "complete"),
    }


def test_a_recording_is_paused_stopped_and_deleted(stage: Stage, operator: Client) -> None:
    show = on_air(
        stage,
        operator,
        conference_record="record-from-start",
        conference_recording_status_callback=stage.webhook,
        conference_recording_status_callback_event=["in-progress", "completed"],
    )
    recordings = operator.conferences(show.sid).recordings
    [running] = awaited("the recording", recordings.list)
    assert running.status == "in-progress"
    assert recordings("Twilio.CURRENT").update(status="paused", pause_behavior="skip").sid == running.sid
    assert stage.action(show.sid, "update-recording", "accepted")["awaits"] == []
    assert recordings(running.sid).update(status="in-progress").status == "in-progress"
    assert recordings(running.sid).update(status="stopped").status == "stopped"
    assert stage.action(show.sid, "update-recording", "confirmed")["recording_sid"] == running.sid
    assert recordings(running.sid).fetch().status == "completed"
    assert recordings(running.sid).delete() is True
    assert stage.action(show.sid, "delete-recording", "accepted")["status"] == 204
    with pytest.raises(TwilioRestException) as failure:
        recordings(running.sid).delete()
    assert (failure.value.status, failure.value.code) == (404, 20404)


# What Twilio answers comes back as it is


@pytest.mark.parametrize(("status", "code"), [(429, 20429), (500, 20500), (503, 20500)])
def test_an_error_of_twilios_comes_back_and_nothing_was_done(
    stage: Stage, operator: Client, show: Show, status: int, code: int
) -> None:
    guest = operator.conferences(show.sid).participants("guest")
    before = stage.twilio.asked()
    stage.twilio.meet_next_with(status=status)
    with pytest.raises(TwilioRestException) as failure:
        guest.update(muted=True)
    assert (failure.value.status, failure.value.code) == (status, code)
    failed = stage.action(show.sid, "update-participant", "failed")
    assert (failed["status"], failed["code"]) == (status, code)
    assert stage.twilio.asked()["POST"] == before["POST"] + 1
    assert guest.fetch().muted is False


def test_a_refusal_of_twilios_comes_back(stage: Stage, operator: Client, show: Show) -> None:
    with pytest.raises(TwilioRestException) as failure:
        dial(stage, operator, show.sid, label="guest")
    assert (failure.value.status, failure.value.code) == (400, 16025)
    assert "Label" in failure.value.msg
    with pytest.raises(TwilioRestException) as failure:
        operator.conferences(show.sid).participants(sid("CA", 99)).update(muted=True)
    assert (failure.value.status, failure.value.code) == (404, 20404)


def test_a_slow_answer_is_waited_for(stage: Stage, operator: Client, show: Show) -> None:
    stage.twilio.meet_next_with(delay=1.5)
    assert operator.conferences(show.sid).participants("guest").update(muted=True).muted is True
    stage.action(show.sid, "update-participant", "confirmed")


def test_what_twilio_only_says_it_did_is_not_shown_as_done(stage: Stage, operator: Client, show: Show) -> None:
    guest = operator.conferences(show.sid).participants("guest")
    stage.twilio.meet_next_with(ignore=True)
    assert guest.update(muted=True).muted is True
    assert stage.action(show.sid, "update-participant", "accepted")["told"] == []
    assert guest.fetch().muted is False


def test_no_answer_is_said_to_be_none_and_what_was_done_is_still_found_out(
    stage: Stage, operator: Client, show: Show
) -> None:
    guest = operator.conferences(show.sid).participants("guest")
    stage.twilio.meet_next_with(hang_up=True)
    with pytest.raises(TwilioRestException) as failure:
        guest.update(muted=True)
    assert (failure.value.status, failure.value.code) == (502, 20500)
    assert stage.action(show.sid, "update-participant", "confirmed")["error"] == "no answer"
    assert guest.fetch().muted is True


def test_a_key_with_control_changes_and_one_that_reads_is_forbidden_to(
    stage: Stage, operator: Client, show: Show
) -> None:
    before = stage.twilio.asked()
    with sdk(stage, WALLBOARD, WALLBOARD_SECRET, ACCOUNT) as wallboard:
        assert wallboard.conferences(show.sid).fetch().status == "in-progress"
        guest = wallboard.conferences(show.sid).participants("guest")
        changes: list[Callable[[], Any]] = [
            lambda: guest.update(muted=True),
            lambda: guest.delete(),
            lambda: dial(stage, wallboard, show.sid),
            lambda: wallboard.conferences(show.sid).update(status="completed"),
        ]
        for change in changes:
            with pytest.raises(TwilioRestException) as failure:
                change()
            assert (failure.value.status, failure.value.code) == (403, 20003)
    assert stage.twilio.asked() == before
    with sdk(stage, DESK, DESK_SECRET, ACCOUNT) as desk:
        assert desk.conferences(show.sid).participants("guest").update(muted=True).muted is True
    assert stage.action(show.sid, "update-participant", "confirmed")["by"] == DESK


def test_reading_what_was_changed_costs_not_one_request_at_twilio(stage: Stage, operator: Client, show: Show) -> None:
    before = stage.twilio.asked()
    conference = operator.conferences(show.sid)
    summary = operator.insights.v1.conferences(show.sid)
    assert show.sid in [each.sid for each in operator.conferences.stream(page_size=3)]
    assert conference.fetch().sid == show.sid
    assert len(conference.participants.list()) == 2
    assert conference.participants("host").fetch().call_sid == show.host
    assert conference.recordings.list() == []
    assert show.sid in [each.conference_sid for each in operator.insights.v1.conferences.list()]
    assert summary.fetch().conference_sid == show.sid
    assert len(summary.conference_participants.list(events="join")) == 2
    assert stage.twilio.asked() == before
    assert before["GET"] == 0


def test_what_was_changed_folds_again_to_what_is_shown(stage: Stage, show: Show) -> None:
    checked = stage.house.command("verify")
    assert checked.returncode == 0, checked.stdout + checked.stderr


# Node


UNREACHED = re.compile(r"code (E(?:NOTFOUND|AI_AGAIN|CONNREFUSED|CONNRESET|TIMEDOUT|HOSTUNREACH|NETUNREACH))")


@pytest.fixture(scope="module")
def node() -> list[str]:
    """The command, where the SDK for Node is installed: by this, if it has not been yet."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("there is no node, or no npm")
    lock, installed = SDK / "package-lock.json", SDK / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=30000"]
        ended = subprocess.run(["npm", "ci", *options], cwd=SDK, capture_output=True, text=True)
        if ended.returncode and (why := UNREACHED.search(ended.stderr)):
            pytest.skip(f"the npm registry cannot be reached: {why[1]}")
        assert ended.returncode == 0, ended.stderr
        installed.touch()
    return ["node"]


def environ(stage: Stage) -> dict[str, str]:
    """What a program at home is started with."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**inherited, "TWILIO_ACCOUNT_SID": HOME, "TWILIO_AUTH_TOKEN": HOME_TOKEN}


@pytest.mark.parametrize("suite", ["reading.mjs", "changing.mjs"])
def test_the_sdk_for_node_does_the_same(stage: Stage, node: list[str], suite: str) -> None:
    before = stage.twilio.asked()
    told = {
        "offhook": stage.house.url,
        "twilio": stage.twilio.url,
        "home": {"sid": HOME, "token": HOME_TOKEN},
        "account": {"sid": ACCOUNT, "token": AUTH_TOKEN},
        "wallboard": {"name": WALLBOARD, "secret": WALLBOARD_SECRET},
        "desk": {"name": DESK, "secret": DESK_SECRET},
        "cast": [
            each._asdict() | {"created": each.created.isoformat(), "updated": each.updated.isoformat()} for each in CAST
        ],
        "people": {"anna": ANNA, "ben": BEN, "cleo": CLEO},
        "rooms": {"standUp": STAND_UP, "board": BOARD, "retros": RETROS, "nobody": NOBODY},
        "recordings": {"morning": MORNING, "evening": EVENING},
        "roundTheCorner": ROUND_THE_CORNER,
    }
    ended = subprocess.run(
        [*node, "--test-reporter=spec", suite],
        cwd=SDK,
        env={**environ(stage), "STAGE": json.dumps(told)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    after = stage.twilio.asked()
    assert after["GET"] == 0
    if suite == "reading.mjs":
        assert after == before


# docs/clients.md


def fenced(language: str) -> list[str]:
    """The document's programs in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", CLIENTS, re.M | re.S)


def printed(stage: Stage, command: list[str], program: str, **more: str) -> str:
    """What a documented program prints against this Offhook."""
    program = program.replace(DOCUMENTED_HOST, stage.house.url)
    ended = subprocess.run(
        command,
        input=program,
        cwd=SDK,
        env={**environ(stage), **more},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


LIVE = [each for each in CAST if each.status == "in-progress"]
SHOWN = "".join(f"{each.sid} {each.name}\n" for each in LIVE[:20])


def test_the_documented_python_prints_who_is_live(stage: Stage, reader: Client) -> None:
    [program] = fenced("python")
    assert printed(stage, [sys.executable, "-"], program) == SHOWN


def test_the_documented_node_prints_who_is_live(stage: Stage, reader: Client, node: list[str]) -> None:
    [program] = fenced("js")
    assert printed(stage, [*node, "--input-type=module"], program) == SHOWN


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_each_documented_curl_works_as_printed(stage: Stage, reader: Client) -> None:
    texts = [CLIENTS, Path("README.md").read_text()]
    blocks = [block for text in texts for block in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)]
    commands = [one for block in blocks for one in re.findall(r"^curl (?:.*\\\n)*.*$", block, re.M)]
    commands = [each for each in commands if "/api/stream" not in each]  # that one goes on for ever
    assert commands
    for command in commands:
        page = json.loads(printed(stage, ["sh"], command))
        assert [each["sid"] for each in page["conferences"]] == [each.sid for each in LIVE][:50]
        with_key = command.replace("$TWILIO_ACCOUNT_SID:$TWILIO_AUTH_TOKEN", "$KEY:$SECRET")
        assert json.loads(printed(stage, ["sh"], with_key, KEY=WALLBOARD, SECRET=WALLBOARD_SECRET)) == page


def test_the_document_names_the_versions_that_are_tested() -> None:
    for_node = json.loads((SDK / "package.json").read_text())["dependencies"]["twilio"]
    named = re.search(r"\| Python (\S+), Node (\S+) \|", CLIENTS)
    assert named
    assert [version("twilio").rpartition(".")[0], for_node.rpartition(".")[0]] == [named[1], named[2]]
