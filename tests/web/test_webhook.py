"""The webhook's promise: 2xx means stored, and what Twilio did not sign is never stored."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from redis import ConnectionError as Unconnected
from redis import Redis
from structlog.testing import capture_logs
from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict
from werkzeug.test import EnvironBuilder, run_wsgi_app

from app.events import Callback
from app.store import keys
from app.store.connect import connect
from app.store.inbox import Inbox
from app.web.webhook import LARGEST_BODY
from config.logs import configure_logs
from tests.cast import ACCOUNT, ANNA, BEN, ROOM, TOKEN, progress, said
from tests.conftest import now_ms
from tests.web.conftest import (
    CHILD,
    CHILD_TOKEN,
    FORM,
    OLD_TOKEN,
    OPERATOR,
    OURS,
    PATH,
    SHARED_KEY,
    STRANGER,
    STRANGERS_TOKEN,
    Site,
    signature,
)

JOIN = said("participant-join", ANNA, number=1, second=0, FriendlyName="Büro & Café 100%")
RINGING = progress(ANNA, "ringing", number=0, second=0)
PHONE = "+15550123456"


def only(site: Site) -> Callback:
    """The one callback that is stored."""
    [[stored]] = site.stored().values()
    return stored


# What is stored


def test_a_post_is_stored_exactly_as_sent_in_its_conferences_shard(site: Site) -> None:
    body, before = urlencode(JOIN).encode(), now_ms()
    answer = site.send(
        JOIN,
        signature(OURS + PATH, JOIN),
        headers={"I-Twilio-Idempotency-Token": "3f1c-1"},
        content_type=f"{FORM}; charset=utf-8",
    )
    assert (answer.status_code, answer.data) == (204, b"")
    [(shard, [stored])] = site.stored().items()
    assert shard == site.inbox.shard_of(ROOM)
    assert before <= stored.received_at <= now_ms()
    assert replace(stored, received_at=0) == Callback(body=body, received_at=0, key="main", token="3f1c-1")


def test_a_get_is_stored_exactly_as_sent_in_its_conferences_shard(site: Site) -> None:
    query = urlencode(JOIN)
    answer = site.http.get(f"{PATH}?{query}", headers={"X-Twilio-Signature": signature(f"{OURS}{PATH}?{query}")})
    assert (answer.status_code, answer.data) == (204, b"")
    [(shard, [stored])] = site.stored().items()
    assert shard == site.inbox.shard_of(ROOM)
    assert replace(stored, received_at=0) == Callback(body=query.encode(), received_at=0, key="main")


@pytest.mark.parametrize("spelling", ["a+b", "a%20b", "a%2Bb", "%7e~", "caf%e9", "caf%C3%A9", "100%", "it's", "&&=x&"])
def test_a_get_is_checked_and_kept_in_the_very_bytes_it_came_in(site: Site, spelling: str) -> None:
    query = f"{urlencode(JOIN)}&Tag={spelling}"
    answer = site.http.get(f"{PATH}?{query}", headers={"X-Twilio-Signature": signature(f"{OURS}{PATH}?{query}")})
    assert answer.status_code == 204
    assert only(site).body == query.encode()


def test_an_owners_own_query_is_signed_and_kept(site: Site) -> None:
    query = "?tenant=a%2Fb&team=it's+us"
    answer = site.send(JOIN, signature(OURS + PATH + query, JOIN), query=query)
    assert answer.status_code == 204
    assert only(site).query == "tenant=a%2Fb&team=it's+us"
    assert only(site).body == urlencode(JOIN).encode()


def test_a_callback_that_names_only_a_call_goes_to_the_calls_shard(site: Site) -> None:
    site.tell(RINGING)
    assert list(site.stored()) == [site.inbox.shard_of(ANNA)]


def test_a_callback_sent_twice_is_taken_twice_and_folded_once(site: Site) -> None:
    site.tell(JOIN, JOIN)
    site.fold()
    callbacks = site.told("/api/stats")["callbacks"]
    assert (callbacks["folded"], callbacks["repeated"], callbacks["dead_letters"]) == (1, 1, 0)
    assert len(site.told(f"/api/conferences/{ROOM}/events")["events"]) == 1


@pytest.mark.parametrize(
    "spoiled",
    [
        {"ConferenceSid": "CF" + "b" * 32 + "\nX: y"},
        {"ConferenceSid": "{0}:conference:*"},
        {"ConferenceSid": ""},
        {"CallSid": "CA{" + "b" * 30 + "}"},
        {"CallSid": "../../etc/passwd"},
        {"StatusCallbackEvent": ""},
    ],
)
def test_a_genuine_callback_is_stored_even_if_nobody_can_read_it(site: Site, spoiled: dict[str, str]) -> None:
    site.tell(JOIN | spoiled)
    assert only(site).body == urlencode(JOIN | spoiled).encode()
    site.fold()
    stats = site.told("/api/stats")
    assert (stats["callbacks"]["dead_letters"], stats["callbacks"]["folded"]) == (1, 0)
    assert stats["dead_letters"][0]["parameters"] == JOIN | spoiled
    assert all(name.decode().isprintable() for name in site.redis.scan_iter())


def test_a_json_callback_is_stored_when_its_digest_is_signed(site: Site) -> None:
    body = b' {"specversion": "1.0"}'
    query = f"?bodySHA256={sha256(body).hexdigest()}"
    answer = site.send(body, signature(OURS + PATH + query), query=query, content_type="application/json")
    assert answer.status_code == 204
    assert (only(site).media, only(site).body, only(site).query) == ("json", body, query[1:])


@pytest.mark.parametrize("query", ["", f"?bodySHA256={sha256(b'[]').hexdigest()}", "?bodySHA256="])
def test_a_json_callback_whose_digest_is_not_signed_is_refused(site: Site, query: str) -> None:
    answer = site.send(b"{}", signature(OURS + PATH + query), query=query, content_type="application/json")
    assert (answer.status_code, answer.data, site.stored()) == (403, b"", {})


# Whose signature counts


@pytest.mark.parametrize(
    ("public_url", "signed"),
    [
        ("https://hooks.example.com", "https://hooks.example.com"),
        ("https://hooks.example.com", "https://hooks.example.com:443"),
        ("https://hooks.example.com:8443", "https://hooks.example.com:8443"),
        ("https://hooks.example.com:8443", "https://hooks.example.com"),
        ("http://hooks.example.com:8080", "http://hooks.example.com:8080"),
        ("http://hooks.example.com:8080", "http://hooks.example.com"),
        ("http://hooks.example.com", "http://hooks.example.com:80"),
        ("https://anna:secret@hooks.example.com", "https://hooks.example.com"),
        ("https://anna:secret@hooks.example.com", "https://anna:secret@hooks.example.com"),
        ("https://anna:secret@hooks.example.com:8443", "https://hooks.example.com"),
        ("https://anna:secret@hooks.example.com:8443", "https://anna:secret@hooks.example.com:8443"),
        ("https://hooks.example.com/offhook", "https://hooks.example.com/offhook"),
    ],
)
def test_each_way_twilio_may_have_signed_our_url_is_accepted(redis: Redis, public_url: str, signed: str) -> None:
    site = Site(redis, public_url)
    assert site.send(JOIN, signature(signed + PATH, JOIN)).status_code == 204
    assert only(site).key == "main"


@pytest.mark.parametrize(
    "signed", ["http://hooks.example.com", "https://hooks.example.com:8443", "https://localhost", "https://example.com"]
)
def test_a_signature_for_another_address_is_refused(site: Site, signed: str) -> None:
    forwarded = {"X-Forwarded-Host": signed.partition("//")[2], "X-Forwarded-Proto": signed.partition(":")[0]}
    answer = site.send(JOIN, signature(signed + PATH, JOIN), base_url=signed, headers=forwarded)
    assert (answer.status_code, site.stored()) == (403, {})


@pytest.mark.parametrize(
    "inner", ["http://localhost:8000", "http://10.0.0.7", "http://evil.example", "https://[::1]:99"]
)
def test_the_public_url_counts_and_not_where_a_proxy_sent_it(site: Site, inner: str) -> None:
    assert site.send(JOIN, signature(OURS + PATH, JOIN), base_url=inner).status_code == 204


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("port", ["", ":8443"])
def test_without_a_public_url_the_requests_host_counts_under_either_scheme(
    redis: Redis, scheme: str, port: str
) -> None:
    site = Site(redis, None)
    signed = signature(f"{scheme}://tunnel.example{port}{PATH}", JOIN)
    assert site.send(JOIN, signed, base_url=f"http://tunnel.example{port}").status_code == 204
    assert site.send(JOIN, signed, base_url="http://other.example").status_code == 403


def test_without_public_url_and_host_nothing_is_accepted_unsigned(redis: Redis) -> None:
    site = Site(redis, None)
    answer = site.send(JOIN, None, environ_overrides={"HTTP_HOST": ""})
    assert (answer.status_code, site.stored()) == (403, {})


@pytest.mark.parametrize(("token", "name"), [(TOKEN, "main"), (OLD_TOKEN, "main-2")])
def test_while_tokens_rotate_both_are_good_and_which_one_it_was_is_kept(site: Site, token: str, name: str) -> None:
    site.tell(JOIN, token=token)
    assert only(site).key == name


@pytest.mark.parametrize(("token", "name"), [(CHILD_TOKEN, "child"), (TOKEN, "main"), (OLD_TOKEN, "main-2")])
def test_a_subaccounts_callback_is_signed_by_itself_or_by_its_parent(site: Site, token: str, name: str) -> None:
    site.tell(JOIN | {"AccountSid": CHILD}, token=token)
    assert only(site).key == name


@pytest.mark.parametrize(
    ("account", "token"),
    [(ACCOUNT, CHILD_TOKEN), (ACCOUNT, STRANGERS_TOKEN), (CHILD, STRANGERS_TOKEN), (STRANGER, TOKEN), (ACCOUNT, "")],
)
def test_one_accounts_token_does_not_sign_for_another(site: Site, account: str, token: str) -> None:
    told = JOIN | {"AccountSid": account}
    answer = site.send(told, signature(OURS + PATH, told, token))
    assert (answer.status_code, answer.data, site.stored()) == (403, b"", {})


def test_a_second_account_sid_does_not_smuggle_a_callback_into_another_account(site: Site) -> None:
    rest = [(name, value) for name, value in JOIN.items() if name != "AccountSid"]
    pairs = [("AccountSid", STRANGER), *rest, ("AccountSid", ACCOUNT)]
    body = urlencode(pairs).encode()
    signed = RequestValidator(STRANGERS_TOKEN).compute_signature(OURS + PATH, MultiDict(pairs))
    assert site.send(body, signed).status_code == 204
    site.fold()
    assert site.ask(f"/api/conferences/{ROOM}").status_code == 404
    assert site.told("/api/stats")["callbacks"]["dead_letters"] == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_second_account_sid_puts_no_mark_on_another_accounts_conference(site: Site, first: bool) -> None:
    site.tell(JOIN)
    site.fold()
    before = site.told(f"/api/conferences/{ROOM}")
    pairs = [*JOIN.items(), ("SequenceNumber", "2")]
    pairs = [("AccountSid", STRANGER), *pairs] if first else [*pairs, ("AccountSid", STRANGER)]
    signed = RequestValidator(STRANGERS_TOKEN).compute_signature(OURS + PATH, MultiDict(pairs))
    assert site.send(urlencode(pairs).encode(), signed).status_code == (204 if first else 403)
    site.fold()
    assert site.told(f"/api/conferences/{ROOM}") == before


@pytest.mark.parametrize(
    ("secret", "algorithm", "header", "status"),
    [
        ("a shared secret", "HMAC_SHA256", "key=MK1,algorithm=HMAC_SHA256", 204),
        ("a shared secret", "HMAC_SHA256", "key=MK2,algorithm=HMAC_SHA256", 403),
        ("a shared secret", "HMAC_SHA256", "", 403),
        ("a shared secret", "HMAC_SHA1", "", 403),
        ("a shared secret", "HMAC_SHA1", "key=MK1,algorithm=HMAC_SHA1", 403),
        (TOKEN, "HMAC_SHA256", "key=MK1,algorithm=HMAC_SHA256", 403),
        (TOKEN, "HMAC_SHA1", "key=MK1,algorithm=HMAC_SHA256", 403),
        (TOKEN, "HMAC_SHA256", "algorithm=HMAC_SHA256", 403),
    ],
)
def test_a_shared_key_signs_with_its_own_algorithm_only(
    site: Site, secret: str, algorithm: str, header: str, status: int
) -> None:
    signed = RequestValidator(secret).compute_signature(OURS + PATH, JOIN, algorithm)
    answer = site.send(JOIN, signed, headers={"X-Twilio-Webhooks-Signature-Settings": header})
    assert answer.status_code == status
    assert [stored.key for mail in site.stored().values() for stored in mail] == (
        [SHARED_KEY.name] if status == 204 else []
    )


# What is refused


GENUINE = signature(OURS + PATH, JOIN)


@pytest.mark.parametrize(
    "signed", [None, "", " ", "x", GENUINE[:-1], GENUINE.lower(), GENUINE + "=", "=" * 28, "\xe9" * 28, GENUINE[::-1]]
)
def test_what_is_unsigned_or_mis_signed_is_refused_without_a_word(site: Site, signed: str | None) -> None:
    answer = site.send(JOIN, signed)
    assert (answer.status_code, answer.data, site.stored()) == (403, b"", {})


@pytest.mark.parametrize(
    ("told", "query"),
    [
        (JOIN | {"Muted": "true"}, ""),
        (JOIN | {"ConferenceSid": "CF" + "0" * 32}, ""),
        (JOIN | {"AccountSid": CHILD}, ""),
        (JOIN | {"Extra": "x"}, ""),
        (JOIN | {"AccountSid": ""}, ""),
        ({name: value for name, value in JOIN.items() if name != "Muted"}, ""),
        ({}, ""),
        (JOIN, "?tenant=1"),
    ],
)
def test_what_was_tampered_with_is_refused_without_a_word(site: Site, told: dict[str, str], query: str) -> None:
    answer = site.send(told, GENUINE, query=query)
    assert (answer.status_code, answer.data, site.stored()) == (403, b"", {})


def test_a_changed_get_is_refused(site: Site) -> None:
    query = urlencode(JOIN)
    signed = signature(f"{OURS}{PATH}?{query}")
    for changed in (query.replace("Muted=false", "Muted=true"), f"{query}&Extra=1", f"{query}&", ""):
        answer = site.http.get(f"{PATH}?{changed}", headers={"X-Twilio-Signature": signed})
        assert (answer.status_code, answer.data) == (403, b"")
    assert site.stored() == {}


def test_an_account_nobody_knows_is_refused_whoever_signed(site: Site) -> None:
    for account in ("AC" + "0" * 32, "AC", ACCOUNT.upper(), PHONE):
        told = JOIN | {"AccountSid": account}
        answer = site.send(told, signature(OURS + PATH, told))
        assert (answer.status_code, answer.data) == (403, b"")
    assert site.stored() == {}


def padded(size: int) -> dict[str, str]:
    """A callback whose body is so many bytes."""
    return JOIN | {"Pad": "x" * (size - len(urlencode(JOIN | {"Pad": ""})))}


def test_the_largest_body_is_taken_and_one_byte_more_is_not(site: Site) -> None:
    assert LARGEST_BODY == 64 * 1024
    site.tell(padded(LARGEST_BODY))
    too_much = padded(LARGEST_BODY + 1)
    answer = site.send(too_much, signature(OURS + PATH, too_much))
    assert answer.status_code == 413
    assert len(only(site).body) == LARGEST_BODY


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("size", "status"), [(LARGEST_BODY, 204), (LARGEST_BODY + 1, 413), (LARGEST_BODY * 20, 413)])
def test_a_body_that_does_not_say_its_length_may_be_no_larger_either(
    site: Site, size: int, status: int, signed: bool
) -> None:
    told = padded(size)
    environ = EnvironBuilder(PATH, method="POST", data=urlencode(told), content_type=FORM).get_environ()
    del environ["CONTENT_LENGTH"]
    environ |= {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    if signed:
        environ["HTTP_X_TWILIO_SIGNATURE"] = signature(OURS + PATH, told)
    _, answered, _ = run_wsgi_app(site.app, environ, buffered=True)
    assert int(answered[:3]) == (status if signed or status == 413 else 403)
    assert bool(site.stored()) == (signed and status == 204)


@pytest.mark.parametrize("media", ["", "text/plain", "multipart/form-data; boundary=x", "application/xml", "nonsense"])
def test_another_media_type_is_refused(site: Site, media: str) -> None:
    answer = site.send(JOIN, GENUINE, content_type=media)
    assert (answer.status_code, site.stored()) == (415, {})
    assert "application/x-www-form-urlencoded" in answer.get_json()["message"]


def test_two_hundred_fields_are_taken_and_one_more_is_not(site: Site) -> None:
    most = JOIN | {f"Extra{n}": "" for n in range(200 - len(JOIN))}
    site.tell(most)
    more = most | {"Last": ""}
    answer = site.send(more, signature(OURS + PATH, more))
    assert answer.status_code == 400
    assert "200" in answer.get_json()["message"]
    assert only(site).body == urlencode(most).encode()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
def test_another_method_is_refused(site: Site, method: str) -> None:
    answer = site.http.open(PATH, method=method, data=urlencode(JOIN), headers={"X-Twilio-Signature": GENUINE})
    assert (answer.status_code, site.stored()) == (405, {})
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


def test_an_unsigned_head_is_refused(site: Site) -> None:
    answer = site.http.head(f"{PATH}?{urlencode(JOIN)}")
    assert (answer.status_code, answer.data, site.stored()) == (403, b"", {})


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "PUT"])
@pytest.mark.parametrize(
    "path",
    [
        *(
            "/webhooks/twilio/",
            "//webhooks/twilio",
            "/webhooks//twilio",
            "/webhooks/twilio//",
            "/webhooks",
            "/webhooks/",
        ),
        *(
            "/Webhooks/Twilio",
            "/webhooks/./twilio",
            "/webhooks/twilio/..",
            "/webhooks/twilio;a=b",
            "/webhooks%2Ftwilio",
        ),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nothing_is_ever_redirected(site: Site, method: str, path: str, scheme: str) -> None:
    """Twilio follows redirects, but without its parameters."""
    answer = site.http.open(
        method=method,
        base_url=f"{scheme}://hooks.example.com",
        environ_overrides={"PATH_INFO": unquote(path), "RAW_URI": path, "REQUEST_URI": path},
    )
    assert answer.status_code in (403, 404, 405, 415)
    assert "Location" not in answer.headers


def test_a_trailing_slash_is_taken_as_it_was_signed(site: Site) -> None:
    answer = site.http.post(
        f"{PATH}/",
        data=urlencode(JOIN),
        content_type=FORM,
        headers={"X-Twilio-Signature": signature(f"{OURS}{PATH}/", JOIN)},
    )
    assert answer.status_code == 204
    assert only(site).body == urlencode(JOIN).encode()


# When Redis or the queue is in trouble


def test_when_redis_is_away_twilio_is_told_that_nothing_is_stored(nowhere: Redis) -> None:
    with capture_logs() as lines:
        answer = Site(nowhere).send(JOIN, GENUINE)
    assert answer.status_code == 503
    assert "Redis" in answer.get_json()["message"]
    assert any(line.get("reason") == "not stored" for line in lines)


def test_when_redis_is_away_the_unsigned_is_still_refused(nowhere: Redis) -> None:
    site = Site(nowhere)
    assert [site.send(JOIN, None).status_code for _ in range(3)] == [403, 403, 403]


@pytest.fixture
def silent() -> Iterator[Redis]:
    """A client of a Redis that takes connections and never says anything."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as deaf:
        path = Path(folder) / "deaf.sock"
        deaf.bind(str(path))
        deaf.listen()
        client = connect(f"unix://{path}", patience=0.05)
        yield client
        client.close()


def test_when_redis_does_not_answer_nobody_waits_for_it(silent: Redis) -> None:
    assert Site(silent).send(JOIN, GENUINE).status_code == 503


def test_when_redis_is_full_twilio_is_told_that_nothing_is_stored(site: Site) -> None:
    site.redis.config_set("maxmemory", "1")
    try:
        assert site.send(JOIN, GENUINE).status_code == 503
        assert site.ask("/readyz").status_code == 503
    finally:
        site.redis.config_set("maxmemory", "0")
    assert site.stored() == {}
    site.tell(JOIN)
    assert only(site).body == urlencode(JOIN).encode()
    assert site.told("/api/stats")["callbacks"]["refused"] == {"not stored": 1}


def test_a_callback_is_stored_though_nobody_can_be_woken(redis: Redis) -> None:
    def fails() -> None:
        raise Unconnected("the queue is away")

    site = Site(redis, nudge=fails)
    with capture_logs() as lines:
        site.tell(JOIN)
    assert site.woken == 1
    assert only(site).body == urlencode(JOIN).encode()
    assert [line["log_level"] for line in lines] == ["warning"]


def test_a_drain_is_asked_for_once_and_again_when_it_has_gone(site: Site) -> None:
    site.tell(*(JOIN | {"SequenceNumber": str(number)} for number in range(20)))
    assert site.woken == 1
    site.fold()
    assert site.inbox.leave() is False
    site.tell(JOIN)
    assert site.woken == 2


def test_nobody_is_woken_while_a_drain_attends(site: Site) -> None:
    site.inbox.attend()
    site.tell(JOIN, RINGING, said("participant-join", BEN, number=2, second=0, room="CF" + "0" * 32))
    assert site.woken == 0


def test_what_is_refused_wakes_nobody(site: Site) -> None:
    site.send(JOIN, None)
    assert site.woken == 0


# Counting and logging


Refused = Callable[[Site], Any]

REFUSALS: list[tuple[str, Refused]] = [
    ("signature", lambda site: site.send(JOIN, None)),
    ("unknown account", lambda site: site.send(JOIN | {"AccountSid": "AC" + "0" * 32}, GENUINE)),
    ("media type", lambda site: site.send(JOIN, GENUINE, content_type="text/plain")),
    ("malformed", lambda site: site.send(b"a&" * 300, GENUINE)),
    ("too large", lambda site: site.send(padded(LARGEST_BODY + 1), GENUINE)),
]


@pytest.mark.parametrize(("reason", "refused"), REFUSALS)
def test_every_refusal_is_counted_by_its_reason(site: Site, reason: str, refused: Refused) -> None:
    for _ in range(3):
        refused(site)
    counts = site.told("/api/stats")["callbacks"]["refused"]
    assert sum(counts.values()) == 3, f"nothing tells the operator of: {reason}"
    assert len(counts) == 1


def test_refusals_of_several_processes_are_added_up(redis: Redis) -> None:
    one, other = Site(redis), Site(redis)
    for site in (one, other, one):
        site.send(JOIN, None)
    one.told("/api/stats")
    assert other.told("/api/stats")["callbacks"]["refused"] == {"signature": 3}


def test_refusals_during_an_outage_are_counted_afterwards(site: Site) -> None:
    site.redis.config_set("maxmemory", "1")
    try:
        for _ in range(3):
            site.send(JOIN, None)
    finally:
        site.redis.config_set("maxmemory", "0")
    assert site.told("/api/stats")["callbacks"]["refused"] == {"signature": 3}


def test_a_flood_of_refusals_is_one_log_line_a_second(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr("app.web.refusals.time", SimpleNamespace(monotonic=lambda: clock.seconds))
    with capture_logs() as lines:
        for _ in range(50):
            site.send(JOIN, None)
        assert len(lines) == 1
        clock.seconds += 1.5
        site.send(JOIN, None)
    assert len(lines) == 2
    assert (lines[1]["reason"], lines[1]["refused"]) == ("signature", {"signature": 50})


PRIVATE = {"FriendlyName": "Anna's salary", "ParticipantLabel": "anna@example.com", "From": PHONE, "To": PHONE}


@pytest.mark.parametrize("public_url", [OURS, None, "https://anna:secret@hooks.example.com"])
def test_the_log_names_no_person_no_secret_and_no_signature(
    redis: Redis, public_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10, 10_000, 10))
    monkeypatch.setattr("app.web.refusals.time", SimpleNamespace(monotonic=lambda: next(clock)))
    site = Site(redis, public_url)
    told = JOIN | PRIVATE
    signed = signature(OURS + PATH, told)
    query = urlencode(told)
    with capture_logs() as lines:
        site.send(told | {"Muted": "maybe"}, signed)
        site.send(told, None, query=f"?{query}")
        site.http.get(f"{PATH}?{query}", headers={"X-Twilio-Signature": signed})
        site.send(told | {"AccountSid": PHONE}, signed)
        site.send(told | {"AccountSid": "AC" + "0" * 32}, signed)
        site.send(told, signed, content_type="text/plain")
        site.send(urlencode(told).encode() + b"&a" * 300, signed)
        site.inbox.append(0, Callback(body=urlencode(told | {"CallSid": PHONE}).encode(), received_at=1, key="main"))
        site.fold()
    assert len(lines) >= 7
    written = repr(lines)
    for private in (*PRIVATE.values(), PHONE[1:], TOKEN, signed, "anna:secret", "Stand-up", "%2B1555"):
        assert private not in written


def test_a_fault_of_our_own_is_logged_without_what_was_in_our_hands(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Inbox, "append_all", breaks)
    told = JOIN | PRIVATE
    configure_logs("info")
    structlog.configure(cache_logger_on_first_use=False)  # or later tests could not listen
    try:
        answer = site.send(told, signature(OURS + PATH, told))
    finally:
        structlog.reset_defaults()
    written = capsys.readouterr().err
    assert answer.status_code == 503
    assert "a fault" in written
    assert "webhook.py" in written
    for private in (PHONE[1:], "anna%40example.com", "anna@example.com", TOKEN, signature(OURS + PATH, told)):
        assert private not in written
        assert private not in answer.get_data(as_text=True)


# Whatever is sent


wire = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=30)
targets = st.one_of(
    st.sampled_from(
        [PATH, f"{PATH}/", f"/{PATH}", "/", "/api/conferences", "/api/stats", "/healthz", "*", "/static/x"]
    ),
    wire.map(lambda text: f"/{text}"),
    wire.map(lambda text: f"{PATH}{text}"),
    wire.map(lambda text: f"/api/conferences/{text}"),
    wire.map(lambda text: f"/api/conferences/{ROOM}/{text}"),
    st.sampled_from([f"https://hooks.example.com{PATH}", "", "?", "//", "http://[", "/%", "/%00", "/..%2f..", "/\xff"]),
)
queries = st.one_of(
    st.just(""),
    wire.map(lambda text: f"?{text}"),
    st.sampled_from([f"?{urlencode(JOIN)}", "?limit=1", "?after=9-9", "?status=\xe9", "?bodySHA256=", "?&&=&", "?%"]),
)
headers = st.dictionaries(
    st.sampled_from(
        [
            *(
                "HTTP_HOST",
                "HTTP_X_TWILIO_SIGNATURE",
                "HTTP_X_TWILIO_WEBHOOKS_SIGNATURE_SETTINGS",
                "HTTP_AUTHORIZATION",
            ),
            *("HTTP_I_TWILIO_IDEMPOTENCY_TOKEN", "HTTP_X_FORWARDED_HOST", "HTTP_ACCEPT", "HTTP_COOKIE", "HTTP_RANGE"),
            *("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_TRANSFER_ENCODING", "HTTP_X_HTTP_METHOD_OVERRIDE"),
        ]
    ),
    st.one_of(
        wire, st.sampled_from(["Basic", "Basic Og==", "Basic /w==", "Bearer x", "key=,algorithm=HMAC_SHA256", ""])
    ),
    max_size=5,
)
bodies = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([urlencode(JOIN).encode(), b"", b"&" * 500, b"a&" * 300, b"{}", b"%" * 50, b"AccountSid=%ff"]),
    st.just(b"x" * (LARGEST_BODY + 1)),
)
media_types = st.one_of(
    wire, st.sampled_from([FORM, f"{FORM}; charset=utf-16", "application/json", "", "multipart/form-data"])
)


@given(
    st.one_of(st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "CONNECT"]), st.text("ABCXYZ-", min_size=1)),
    targets,
    queries,
    headers,
    media_types,
    bodies,
    st.booleans(),
    st.booleans(),
)
@settings(
    max_examples=500,
    deadline=None,  # no test is timed
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # what an earlier example stored is no harm
)
def test_no_request_of_a_stranger_is_answered_with_an_error_of_ours(
    site: Site,
    method: str,
    target: str,
    query: str,
    sent: dict[str, str],
    media: str,
    body: bytes,
    chunked: bool,
    signed: bool,
) -> None:
    path = unquote(target, encoding="latin-1")
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query[1:],
        "RAW_URI": target + query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "CONTENT_TYPE": media,
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        "wsgi.input_terminated": chunked,
        **sent,
    }
    if not chunked:
        environ["CONTENT_LENGTH"] = str(len(body))
    if signed:
        environ["HTTP_X_TWILIO_SIGNATURE"] = GENUINE
    inbox = keys.inbox(site.inbox.shard_of(ROOM))
    waiting = site.redis.xlen(inbox)
    with capture_logs():
        answer, status, sent_back = run_wsgi_app(site.app, environ, buffered=True)
    code, stored = int(status[:3]), site.redis.xlen(inbox) > waiting
    if code == 303:  # a browser that asks for a page is led to where it signs in; nothing of Twilio's ever is
        assert path.rstrip("/") == "" or path.startswith("/conferences/")
        assert sent_back["Location"].startswith("/sign-in?")
    else:
        assert 200 <= code < 300 or 400 <= code < 500
        assert "Location" not in sent_back
    assert b"Traceback" not in b"".join(answer)
    assert stored == (code == 204)
    assert not stored or (signed and body == urlencode(JOIN).encode())


@given(
    st.dictionaries(st.sampled_from([*JOIN, "From", "RecordingSid", "CallStatus", "\xe9", ""]), st.text(max_size=40)),
    st.sampled_from([OURS, None]),
)
@settings(
    max_examples=150,
    deadline=None,  # no test is timed
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example empties Redis itself
)
def test_whatever_twilio_signs_is_stored_and_never_stops_the_shard(
    redis: Redis, changes: dict[str, str], public_url: str | None
) -> None:
    redis.flushall()
    site = Site(redis, public_url)
    told = {name: value.encode("utf-8", "replace").decode() for name, value in (JOIN | changes).items()}
    told["AccountSid"] = ACCOUNT
    with capture_logs():
        answer = site.send(told, signature(OURS + PATH, told), base_url=OURS)
        assert answer.status_code == 204
        site.fold()
    callbacks = site.told("/api/stats", OPERATOR)["callbacks"]
    assert callbacks["folded"] + callbacks["noted"] + callbacks["dead_letters"] == 1
    assert callbacks["waiting"] == 0
    for conference in site.told("/api/conferences?expand=participants")["conferences"]:
        events = site.told(f"/api/conferences/{conference['sid']}/events")["events"]
        assert [entry["parameters"] for entry in events] == [told]
