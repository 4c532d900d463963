"""Whatever is sent, signed or not, with a key or without: a clear answer, no error of ours, and nothing is lost."""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from random import Random
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from app.events import Callback
from app.store.sessions import Sessions
from app.twilio.callbacks import UNDERSTOOD, read
from app.web import FANOUT
from tests.cast import ACCOUNT, ANNA, BEN, ROOM, callback, said
from tests.roads import alerted, streamed
from tests.web.conftest import (
    CHILD,
    FORM,
    KNOWN,
    OPERATOR,
    OURS,
    OUTSIDER,
    OWNER,
    PATH,
    STEERER,
    STRANGER,
    TENANT,
    Site,
    room,
    signature,
)
from tests.web.hostile import CASES, SEED, STRINGS, Sent

EVENTS = [
    *("conference-start", "conference-end", "participant-join", "participant-leave", "participant-mute"),
    *("participant-hold", "participant-speech-start", "announcement-end", "participant-modify", ""),
]
STATUSES = ["ringing", "in-progress", "completed", "absent", "failed"]
SIDS = [ROOM, room(1), room(5), room(7), ANNA, BEN, ACCOUNT, CHILD, STRANGER, "CF" + "0" * 32, "RE" + "4" * 32]
NEARLY = [
    ROOM + "\n",
    ROOM[:-1],
    ROOM.lower(),
    "CF{" + "b" * 30 + "}",
    ROOM + "%00",
    "CF" + "\uff11" * 32,
    ".",
    "..",
    "*",
]
TWILIOS = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences"
PATHS = [
    *("/", "/sign-in", "/session", "/healthz", "/readyz", "/openapi.json", "/static/follow.js", "/static/{}", "/{}"),
    *("/api/conferences", "/api/conferences/{}", "/api/conferences/{}/events", "/api/conferences/{}/timeline"),
    *("/api/stats", "/api/stream", "/api/{}", "/conferences/{}", "/v1/Conferences", "/v1/Conferences/{}"),
    *("/v1/Conferences/{}/Participants", "/v1/Conferences/{}/Participants/{}", "/2010-04-01/{}", "/2010-04-01"),
    *(
        f"{TWILIOS}.json",
        f"{TWILIOS}/{{}}.json",
        f"{TWILIOS}/{{}}/Participants{{}}",
        f"{TWILIOS}/{{}}/Participants/{{}}.json",
    ),
    *(
        f"{TWILIOS}/{{}}/Recordings.xml",
        f"{TWILIOS}/{{}}/Recordings/{{}}.json",
        "/2010-04-01/Accounts/{}/Conferences/{}",
    ),
    *(
        "//{}",
        "/..%2f{}",
        "/%2e%2e/api/stats",
        "/;/api/stats",
        "/api%2Fstats",
        "/webhooks/twilio/{}",
        "*",
        "http://x/{}",
    ),
]
QUERIES = [
    *("status", "friendly_name", "participant", "account", "limit", "after", "expand", "conference", "last_event_id"),
    *(
        "Status",
        "FriendlyName",
        "DateCreated",
        "DateCreated>",
        "DateUpdated<",
        "PageSize",
        "Page",
        "PageToken",
        "Muted",
    ),
    *(
        "ParticipantLabel",
        "ParticipantCallSid",
        "Events",
        "EndReason",
        "Subaccount",
        "CreatedAfter",
        "next",
        "bodySHA256",
    ),
]
FIELDS = [
    *("Muted", "Hold", "Coaching", "CallSidToCoach", "AnnounceUrl", "AnnounceMethod", "HoldUrl", "WaitUrl", "Status"),
    *("To", "From", "Label", "StatusCallback", "Twiml", "ConferenceRecord", "EndConferenceOnExit", "Timeout", "Beep"),
]
MEDIA = [
    FORM,
    FORM,
    FORM,
    "application/json",
    "application/json",
    f"{FORM}; charset=utf-16",
    "text/plain",
    "",
    "multipart/form-data",
]
WHO = [OPERATOR, STEERER, TENANT, OWNER, OUTSIDER, (OPERATOR[0], "wrong"), ("", ""), ("\u00e9", "\U0001f600")]


class Maker:
    """Makes up requests, the same for the same seed."""

    def __init__(self, rng: Random, cookie: str) -> None:
        self.rng = rng
        self.cookie = cookie

    def word(self) -> str:
        rng = self.rng
        kind = rng.randrange(8)
        if kind < 3:
            return rng.choice(STRINGS)
        if kind < 5:
            return rng.choice(SIDS)
        if kind < 6:
            return rng.choice(NEARLY)
        if kind < 7:
            return str(
                rng.choice([0, 1, -1, 50, 501, 10**6, 10**20, "2026-11-22", "true", "false", "in-progress", "1e9"])
            )
        return rng.randbytes(rng.randrange(1, 30)).decode("latin-1")

    def request(self) -> Sent:
        """Any request, more often one that gets somewhere."""
        rng = self.rng
        if rng.random() < 0.3:
            return self.callback()
        path = rng.choice(PATHS)
        path = path.format(*(self.written(self.word()) for _ in range(path.count("{}"))))
        method = rng.choice(
            ["GET"] * 6
            + ["POST"] * 3
            + ["DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "QUERY", "get", "X" * 40]
        )
        target = path + rng.choice(["", "", "?" + self.query(QUERIES)])
        media = rng.choice(MEDIA)
        body = b"" if method in ("GET", "HEAD") else self.body(media)
        return Sent(body, self.headers(), target, method, media, rng.random() < 0.05)

    def callback(self) -> Sent:
        """A callback that is signed, with something in it that nobody expects."""
        rng = self.rng
        about = {"room": rng.choice([ROOM, *(sid for sid, *_ in KNOWN)])}
        told = said(
            rng.choice(EVENTS),
            rng.choice([ANNA, BEN, None]),
            number=rng.randrange(60),
            second=rng.randrange(99),
            **about,
        )
        names = [*sorted(UNDERSTOOD), "CallStatus", "Extra", *STRINGS]
        for _ in range(rng.randrange(5)):
            told[rng.choice(names)] = rng.choice(
                [self.word, lambda: rng.choice(STATUSES), lambda: rng.choice(EVENTS)]
            )()
        if rng.random() < 0.1:
            del told[rng.choice(sorted(told))]
        told = {
            name.encode("utf-8", "replace").decode(): text.encode("utf-8", "replace").decode()
            for name, text in told.items()
        }
        if rng.random() < 0.2:
            return self.wrapped(told)
        body, headers = urlencode(told).encode(), self.headers()
        signed = "" if rng.random() < 0.1 else signature(OURS + PATH, told)
        if rng.random() < 0.1:
            query = urlencode(told)
            signed = signature(f"{OURS}{PATH}?{query}")
            return Sent(b"", headers | {"HTTP_X_TWILIO_SIGNATURE": signed}, f"{PATH}?{query}", "GET")
        media = FORM if rng.random() < 0.9 else rng.choice(MEDIA)
        return Sent(body, headers | {"HTTP_X_TWILIO_SIGNATURE": signed}, media=media, chunked=rng.random() < 0.1)

    def wrapped(self, told: dict[str, str]) -> Sent:
        """A callback in an event of Event Streams, or in an alert of the Debugger, one as odd as the other."""
        rng = self.rng
        odd: Any = [None, True, 1e300, -0.0, [], ["a", {}], {}, {"a": {"b": []}}, "\ud800", "\x00", self.word()]
        said: Any = told | {rng.choice(sorted(UNDERSTOOD)): rng.choice(odd)} if rng.random() < 0.4 else told
        said = rng.choice([said, said, said, urlencode(told), rng.choice(odd)])
        if rng.random() < 0.4:
            alert = alerted(said, **rng.choice([{}, {"resource_sid": rng.choice(SIDS)}, {"webhook": rng.choice(odd)}]))
            if rng.random() < 0.2:
                alert[rng.choice(sorted(alert))] = self.word().encode("utf-8", "replace").decode()
            return Sent(urlencode(alert).encode(), {"HTTP_X_TWILIO_SIGNATURE": signature(OURS + PATH, alert)})
        event: Any = streamed(said)
        if rng.random() < 0.3:
            event[rng.choice(sorted(event))] = rng.choice([*odd, json.dumps(event["data"]), {"conference_sid": ROOM}])
        body = json.dumps(event).encode()
        if rng.random() < 0.2:
            at = rng.randrange(len(body))
            body = body[:at] + rng.choice([b"", b"\xff", b"[" * 5000, b"NaN", b"9" * 5000, b'"']) + body[at:]
        target = f"{PATH}?bodySHA256={sha256(body).hexdigest()}"
        return Sent(body, {"HTTP_X_TWILIO_SIGNATURE": signature(OURS + target)}, target, media="application/json")

    def written(self, word: str) -> str:
        """A word of a path or query, escaped or not."""
        rng = self.rng
        raw = word.encode("utf-8", "replace")
        plain = "".join(chr(byte) for byte in raw if byte > 32 and byte not in b"?#\x7f")
        return rng.choice([quote(raw, safe=""), quote(raw), plain, quote(quote(raw)), plain + "%", quote(raw).lower()])

    def query(self, names: list[str]) -> str:
        rng = self.rng
        pairs = [
            f"{self.written(rng.choice([*names, self.word()]))}={self.written(self.word())}"
            for _ in range(rng.randrange(4))
        ]
        return rng.choice(["&", "&&", ";"]).join(pairs)

    def body(self, media: str) -> bytes:
        rng = self.rng
        if rng.random() < 0.1:
            return rng.randbytes(rng.randrange(200))
        if rng.random() < 0.02:
            return b"x=" + b"y" * (64 * 1024 + rng.randrange(3) - 3)
        if media != "application/json":
            return self.query(FIELDS).encode("latin-1")
        given: Any = {name: self.word() for name in rng.sample(["name", "secret", "ticket", "other"], rng.randrange(4))}
        if rng.random() < 0.3:
            given = rng.choice([[], None, 1, {"name": [given]}, {"name": OPERATOR[0], "secret": OPERATOR[1]}])
        text = json.dumps(given).encode()
        return (
            text if rng.random() < 0.8 else text[: rng.randrange(len(text) + 1)] + b"\xff" + b"[" * rng.randrange(2000)
        )

    def headers(self) -> dict[str, str]:
        rng = self.rng
        sent: dict[str, str] = {}
        if rng.random() < 0.6:
            name, secret = rng.choice(WHO)
            sent["HTTP_AUTHORIZATION"] = f"Basic {b64encode(f'{name}:{secret}'.encode()).decode()}"
        elif rng.random() < 0.3:
            sent["HTTP_COOKIE"] = f"offhook={rng.choice([self.cookie, self.cookie, 'x', self.written(self.word())])}"
        for name, values in OTHERS.items():
            if rng.random() < 0.1:
                sent[name] = (
                    rng.choice([*values, self.word()]).replace("\n", " ").encode("utf-8", "replace").decode("latin-1")
                )
        return sent


OTHERS = {
    "HTTP_HOST": ["", "evil.example", "[::1", "a@b:99999", "hooks.example.com"],
    "HTTP_ACCEPT": ["application/json", "text/event-stream", "*/*;q=x", "application/xml, */*"],
    "HTTP_ORIGIN": ["null", "https://hooks.example.com", "https://evil.example", "http://["],
    "HTTP_SEC_FETCH_SITE": ["same-origin", "cross-site", "none"],
    "HTTP_SEC_FETCH_MODE": ["navigate", "cors"],
    "HTTP_AUTHORIZATION": ["Basic", "Basic !", "Bearer x", "Basic " + b64encode(b"\xff\xfe:").decode(), "Digest a=b"],
    "HTTP_IDEMPOTENCY_KEY": ["1", "", "k" * 300],
    "HTTP_X_HTTP_METHOD_OVERRIDE": ["DELETE", "POST"],
    "HTTP_LAST_EVENT_ID": ["1-0.1-0.1-0.1-0", "x", "0.0.0.0~all"],
    "HTTP_X_TWILIO_WEBHOOKS_SIGNATURE_SETTINGS": ["key=MK1,algorithm=HMAC_SHA256", "=", ","],
    "HTTP_I_TWILIO_IDEMPOTENCY_TOKEN": ["t", "t" * 500],
    "HTTP_X_FORWARDED_FOR": ["127.0.0.1"],
    "HTTP_X_FORWARDED_HOST": ["evil.example"],
    "HTTP_X_ORIGINAL_URL": ["/api/stats"],
    "HTTP_IF_NONE_MATCH": ["*", 'W/"x"'],
    "HTTP_RANGE": ["bytes=0-0", "bytes=9-1", "x"],
    "CONTENT_LENGTH": ["-1", "x", "99999999999", "\u0661", "1"],
}


@pytest.mark.timeout(120 + CASES // 50)
def test_no_request_whatsoever_is_answered_with_an_error_of_ours_and_no_callback_is_lost(several: Site) -> None:
    several.app.extensions[FANOUT].stopping = lambda: True  # a stream would never end
    rng = Random(SEED)
    token = Sessions(several.redis).open(OPERATOR[0], OPERATOR[1].encode())
    make = Maker(rng, token)
    answered: Counter[int] = Counter()
    genuine: list[Callback] = []
    with capture_logs() as lines:
        for number in range(CASES):
            sent = make.request()
            before = waiting(several)
            status, headers, body = sent.to(several)
            answered[status] += 1
            where = (SEED, number, status, sent)
            # where a control request goes to, nobody listens
            assert status < 500 or (status == 502 and "Offhook-Action" in headers), where
            assert status >= 200, where
            check_answer(sent, status, headers, body, where)
            if sent.target.partition("?")[0] == PATH:
                taken, wrapped = waiting(several) - before, sent.media != FORM or b"Payload=" in sent.body
                assert taken == (status == 204) or (wrapped and status == 204), where
                if taken:
                    told = sent.body if sent.method == "POST" else sent.target.partition("?")[2].encode()
                    media = "json" if sent.media == "application/json" else "form"
                    genuine.append(replace(callback({}), body=told, media=media))
            if number % 500 == 499 or number == CASES - 1:
                several.fold()
                mishaps = [line for line in lines if line["log_level"] in ("error", "critical")]
                assert mishaps == []
                lines.clear()
    assert lost(several, genuine) == []
    for path in (
        "/api/conferences?expand=participants&limit=500",
        "/api/stats",
        f"/api/conferences/{ROOM}/events?limit=500",
    ):
        several.told(path)
    print(f"{CASES} requests, seed {SEED}: {dict(sorted(answered.items()))}; {several.snapshots.counters()}")


def waiting(site: Site) -> int:
    """How much is in the inboxes."""
    return sum(shard.waiting for shard in site.inbox.backlog())


def lost(site: Site, genuine: list[Callback]) -> list[Callback]:
    """Those that are neither in a conference's log nor noted for a call nor set aside."""
    aside = {letter.callback.body for letter in site.snapshots.dead_letters(len(genuine) + 1)}
    kept = {name.decode() for call in site.redis.scan_iter("offhook:*:call:*") for name in site.redis.hkeys(call)}
    for sid in site.snapshots.sids():
        kept |= {read(entry.callback).id for entry in site.snapshots.events(sid, 0, 10**6)}
    return [each for each in genuine if each.body not in aside and read(each).id not in kept]


def check_answer(sent: Sent, status: int, headers: dict[str, str], body: bytes, where: object) -> None:
    """What every answer has: it is what it says it is, leads nowhere else, and gives nothing of ours away."""
    media = headers.get("Content-Type", "").partition(";")[0]
    if body and media == "application/json":
        json.loads(body.decode("utf-8"))
    elif body and media == "application/xml":
        ElementTree.fromstring(body)
    assert b"Traceback" not in body, where
    assert not any(name.lower().startswith("access-control-") for name in headers), where
    assert not any(set(value) & set("\r\n") for value in headers.values()), where
    if "Location" in headers:
        assert status == 303, where
        assert headers["Location"].startswith("/sign-in?"), where
    if sent.target.partition("?")[0] not in (PATH, f"{PATH}/"):
        assert headers["X-Content-Type-Options"] == "nosniff", where
