"""A whole Offhook in one process: its web application in front, its drain behind, and Twilio's own SDK to sign."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest
from redis import Redis
from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from app.events import Callback, Status
from app.store import keys
from app.store.connect import connect
from app.store.feed import Feed
from app.store.inbox import Inbox, Mail
from app.store.snapshots import Snapshots
from app.store.spool import Spool
from app.twilio.signature import Key
from app.upstream.api import Twilio
from app.web import create_app
from app.web.access import Grant
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, TOKEN, said
from tests.conftest import SHARDS
from tests.described import check
from workers.drain import Drain

OURS = "https://hooks.example.com"
PATH = "/webhooks/twilio"
FORM = "application/x-www-form-urlencoded"

OLD_TOKEN = "the token from before"
CHILD, CHILD_TOKEN = "AC" + "c" * 32, "the subaccount's token"
STRANGER, STRANGERS_TOKEN = "AC" + "d" * 32, "a stranger's token"
SHARED_KEY = Key("shared:MK1", b"a shared secret", "sha256", "MK1")

OWN_KEYS = (Key("main", TOKEN.encode()), Key("main-2", OLD_TOKEN.encode()), SHARED_KEY)
KEYS = {
    ACCOUNT: OWN_KEYS,
    CHILD: (Key("child", CHILD_TOKEN.encode()), *OWN_KEYS),
    STRANGER: (Key("stranger", STRANGERS_TOKEN.encode()),),
}

OPERATOR = ("operator", "the operator's secret")
STEERER = ("steerer", "the steerer's secret")
TENANT = ("tenant", "the tenant's secret")
OWNER = (ACCOUNT, TOKEN)
SUBACCOUNT = (CHILD, CHILD_TOKEN)
OUTSIDER = (STRANGER, STRANGERS_TOKEN)
LOGINS = {
    ACCOUNT: (ACCOUNT, TOKEN.encode()),
    CHILD: (CHILD, CHILD_TOKEN.encode()),
    STRANGER: (STRANGER, STRANGERS_TOKEN.encode()),
}


def signature(url: str, told: Mapping[str, str] | None = None, token: str = TOKEN) -> str:
    """What Twilio would put into X-Twilio-Signature; a GET signs no parameters apart from its URL."""
    signed = RequestValidator(token).compute_signature(url, MultiDict(told or {}))
    assert isinstance(signed, str)
    return signed


@dataclass
class Site:
    """One Offhook, and what it did."""

    redis: Redis
    public_url: str | None = OURS
    nudge: Callable[[], None] = lambda: None
    upstream: str = "http://127.0.0.1:1"
    """Where Twilio's REST API is; nobody is there."""
    list_status: Status | None = None
    url_hosts: frozenset[str] | None = None
    reconciles: bool = True
    logins: Mapping[str, tuple[str, bytes]] = field(default_factory=lambda: LOGINS)
    spool: Spool | None = None
    woken: int = 0
    """How often a drain was asked for."""
    inbox: Inbox = field(init=False)
    snapshots: Snapshots = field(init=False)

    def __post_init__(self) -> None:
        self.inbox, self.snapshots = Inbox(self.redis, SHARDS), Snapshots(self.redis, SHARDS)
        self.app = create_app(
            inbox=self.inbox,
            snapshots=self.snapshots,
            feed=Feed(self.redis, SHARDS),
            nudge=self._nudged,
            keys=KEYS,
            parents={CHILD: ACCOUNT},
            api_keys={
                OPERATOR[0]: Grant(OPERATOR[1].encode(), control=False, account=None),
                STEERER[0]: Grant(STEERER[1].encode(), control=True, account=None),
                TENANT[0]: Grant(TENANT[1].encode(), control=True, account=STRANGER),
            },
            public_url=self.public_url,
            twilio=Twilio(self.upstream, self.logins),
            reconciles=self.reconciles,
            list_status=self.list_status,
            url_hosts=self.url_hosts,
            spool=self.spool,
        )
        self.http = self.app.test_client()

    def _nudged(self) -> None:
        self.woken += 1
        self.nudge()

    def send(
        self, told: Mapping[str, str] | bytes, signed: str | None, *, query: str = "", **more: Any
    ) -> TestResponse:
        """POST these parameters under this signature; `more` goes to werkzeug's client."""
        headers = {} if signed is None else {"X-Twilio-Signature": signed}
        body = told if isinstance(told, bytes) else urlencode(told).encode()
        request: dict[str, Any] = {"data": body, "content_type": FORM, **more}
        return self.http.post(PATH + query, headers=headers | request.pop("headers", {}), **request)

    def tell(self, *callbacks: Mapping[str, str], token: str = TOKEN) -> None:
        """Have Twilio tell these, one after the other."""
        for told in callbacks:
            answer = self.send(told, signature(OURS + PATH, told, token))
            assert answer.status_code == 204

    def stored(self) -> dict[int, list[Callback]]:
        """What waits in the inboxes, by shard."""
        waiting = {}
        for shard in range(SHARDS):
            for batch in self.inbox.claim([shard], 1000, version=1).batches:
                waiting[shard] = [entry.callback for entry in batch.entries if isinstance(entry, Mail)]
            self.redis.delete(keys.lease(shard), keys.trial(shard))
        return waiting

    def fold(self) -> None:
        """Do the worker's part, until nothing waits."""
        drain = Drain(inbox=self.inbox, snapshots=self.snapshots, nudge=lambda: None, stopping=lambda: True)
        while any(shard.waiting for shard in self.inbox.backlog()):
            drain.drain(range(SHARDS))

    def ask(self, path: str, who: tuple[str, str] | None = OPERATOR, **more: Any) -> TestResponse:
        """GET a page as somebody, by default as the operator, who may see everything."""
        return self.http.get(path, auth=who, **more)

    def told(self, path: str, who: tuple[str, str] = OPERATOR, **more: Any) -> Any:
        """The JSON of a page that is there."""
        answer = self.ask(path, who, **more)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return answer.get_json()


TOKENS = {ACCOUNT: TOKEN, CHILD: CHILD_TOKEN, STRANGER: STRANGERS_TOKEN}

Known = tuple[str, str, str, str, Mapping[str, str]]
"""A conference's sid, account, name and status, and the labels of its people by call."""


def room(number: int) -> str:
    """The sid of a conference by its number."""
    return f"CF{number:032x}"


def populate(site: Site, conferences: Iterable[Known]) -> None:
    """Tell of these, the last of them the newest."""
    for place, (sid, account, name, status, people) in enumerate(conferences):
        about: dict[str, Any] = {"room": sid, "AccountSid": account, "FriendlyName": name}
        told = [said("announcement-end", number=1, second=place * 10, **about)]
        for number, (call, label) in enumerate(people.items(), start=2):
            told.append(
                said("participant-join", call, number=number, second=place * 10, ParticipantLabel=label, **about)
            )
        if status == "completed":
            told.append(said("conference-end", number=9, second=place * 10 + 5, **about))
        site.tell(*told, token=TOKENS[account])
    site.fold()


def asked(site: Site, path: str, status: int = 200, who: tuple[str, str] | None = OPERATOR, **more: Any) -> Any:
    """The JSON of a Twilio-compatible address's answer, which has this status and is as the description says."""
    answer = site.ask(path, who, **more)
    assert answer.status_code == status, answer.get_data(as_text=True)
    check("GET", path, status, answer.data, answer.content_type)
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.get_json()


def refused(site: Site, path: str, status: int, code: int, **more: Any) -> str:
    """The message of a failure in Twilio's shape."""
    failure = asked(site, path, status, **more)
    assert (failure["status"], failure["code"]) == (status, code)
    assert failure["more_info"] == f"https://www.twilio.com/docs/errors/{code}"
    message: str = failure["message"]
    return message


@pytest.fixture
def site(redis: Redis) -> Site:
    """An Offhook that has heard nothing yet."""
    return Site(redis)


@pytest.fixture
def nowhere() -> Iterator[Redis]:
    """A client of a Redis that is away."""
    client = connect("unix:///nonexistent/valkey.sock", patience=1.0)
    yield client
    client.close()


NEW, STANDING, ENDED = "init", "in-progress", "completed"
KNOWN = [
    # conference, account, its name, how it stands, who has been in it
    (room(1), ACCOUNT, "Stand-up", ENDED, {ANNA: "anna"}),
    (room(2), ACCOUNT, "Stand-up", STANDING, {ANNA: "anna", BEN: "ben"}),
    (room(3), ACCOUNT, "Planning | Büro", STANDING, {CLEO: "anna"}),
    (room(4), ACCOUNT, "Planning | Büro", NEW, {}),
    (room(5), CHILD, "Stand-up", STANDING, {BEN: "anna"}),
    (room(6), CHILD, "Retro", ENDED, {CLEO: "cleo"}),
    (room(7), STRANGER, "Stand-up", STANDING, {ANNA: "anna"}),
]


@pytest.fixture
def several(site: Site) -> Site:
    """The conferences of KNOWN, the last of them the newest."""
    populate(site, KNOWN)
    return site
