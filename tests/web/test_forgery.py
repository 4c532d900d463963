"""What Twilio did not sign changes nothing, however it was made out of what Twilio did sign.

A signature proves neither where a name ends and its value begins, nor order, nor repeats. A genuine callback with
such changes is therefore believed: it must be known as the callback that it was made of, or be set aside.
"""

from __future__ import annotations

import base64
import hmac
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import NamedTuple
from urllib.parse import quote_from_bytes, quote_plus, urlencode

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs
from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict

from app.simulator.stories import story
from app.twilio.callbacks import UNDERSTOOD, Unusable, read
from app.twilio.signature import form_fields, signed_urls, verify
from tests.cast import ACCOUNT, ANNA, BEN, TOKEN, callback, said
from tests.web.conftest import (
    CHILD,
    CHILD_TOKEN,
    KEYS,
    OLD_TOKEN,
    OURS,
    OWN_KEYS,
    PATH,
    SHARED_KEY,
    STRANGER,
    STRANGERS_TOKEN,
    Site,
)
from tests.web.hostile import CASES, SEED, Sent, signed_text

Pairs = list[tuple[bytes, bytes]]
URL = (OURS + PATH).encode()
SECRETS = [TOKEN, OLD_TOKEN, CHILD_TOKEN, STRANGERS_TOKEN, SHARED_KEY.secret.decode(), "", "12345"]


class Attempt(NamedTuple):
    """A request that somebody made out of a genuine one."""

    pairs: Pairs
    signed: str
    settings: str = ""
    target: str = PATH
    believed_at: bytes = URL
    """The URL that we take it to be for."""
    plain: bool = False
    """Whether only what must be is percent-encoded."""

    def sent(self) -> Sent:
        """As a POST."""
        encode = (lambda text: quote_from_bytes(text, safe="/:+-., ").replace("+", "%2B")) if self.plain else quote_plus
        body = b"&".join(f"{encode(name)}={encode(value)}".encode() for name, value in self.pairs)
        headers = {"HTTP_X_TWILIO_SIGNATURE": self.signed}
        if self.settings:
            headers["HTTP_X_TWILIO_WEBHOOKS_SIGNATURE_SETTINGS"] = self.settings
        return Sent(body, headers, self.target)

    @property
    def text(self) -> bytes:
        """What would have to be signed."""
        return signed_text(self.believed_at, self.pairs)

    def is_signed(self) -> bool:
        """Whether one of the account's keys has signed it: Twilio's docs in the fewest words, beside our own code."""
        account = next((value.decode("utf-8", "replace") for name, value in self.pairs if name == b"AccountSid"), "")
        ring = KEYS.get(account, ()) if account else {key for keys in KEYS.values() for key in keys}
        words = dict(part.split("=", 1) for part in self.settings.split(",") if "=" in part)
        key_id, algorithm = words.get("key", ""), words.get("algorithm", "HMAC_SHA1")
        return any(
            hmac.compare_digest(signed_by(key.secret, self.text, key.algorithm).encode(), self.signed.encode())
            for key in ring
            if (key.algorithm, algorithm, key_id) == ("sha1", "HMAC_SHA1", "")
            or ((key.algorithm, algorithm) == ("sha256", "HMAC_SHA256") and key_id == key.key_id)
        )


def signed_by(secret: bytes, text: bytes, algorithm: str) -> str:
    """A signature."""
    return base64.b64encode(hmac.digest(secret, text, algorithm)).decode()


def genuine_callbacks(rng: Random, number: int) -> list[dict[str, str]]:
    """Whole stories, and rooms with names in which more can be seen than there is."""
    told = [
        said("participant-join", ANNA, number=1, second=0, FriendlyName="roomHoldtrue", room=f"CF{'7' * 32}"),
        said("participant-join", BEN, number=2, second=1, ParticipantLabel="MutedtrueHoldtrue", room=f"CF{'7' * 32}"),
        said("conference-start", number=3, second=2, FriendlyName="x" + "StatusCallbackEventconference-end"),
    ]
    while len(told) < number:
        told += [one.parameters for one in story(rng, ACCOUNT, datetime(2026, 11, 22, 12, tzinfo=UTC))]
    return told


# How requests are spoiled


def _signature(rng: Random, genuine: Attempt) -> Attempt:
    """Another signature, most of them nearly right."""
    right, at = genuine.signed, rng.randrange(len(genuine.signed))
    raw = base64.b64decode(right)
    wrong: list[Callable[[], str]] = [
        lambda: right[:at] + chr(rng.randrange(33, 127)) + right[at + 1 :],
        lambda: right[:at],
        lambda: right[at:] + right[:at],
        lambda: right + right[:at],
        lambda: right.swapcase(),
        lambda: right.rstrip("="),
        lambda: right + "=",
        lambda: right.replace("+", "-").replace("/", "_") + "\n",
        lambda: f"{right},{right}",
        lambda: f" {right}",
        lambda: f"sha1={right}",
        lambda: raw.hex(),
        lambda: base64.b32encode(raw).decode(),
        lambda: base64.b64encode(raw[:at]).decode(),
        lambda: base64.b64encode(bytes([raw[0] ^ 1]) + raw[1:]).decode(),
        lambda: raw.decode("latin-1"),
        lambda: right[:at] + chr(rng.randrange(128, 256)) + right[at:],
        lambda: "\0" * len(right),
        lambda: "",
        lambda: signed_by(rng.choice(SECRETS[2:]).encode(), genuine.text, "sha1"),
        lambda: signed_by(TOKEN.encode(), genuine.text, "sha512"),
        lambda: signed_by(TOKEN.encode(), genuine.text + b"\n", "sha1"),
        lambda: signed_by(TOKEN.encode(), URL, "sha1"),
    ]
    return genuine._replace(signed=rng.choice(wrong)())


def _settings(rng: Random, genuine: Attempt) -> Attempt:
    """A mix of keys and algorithms; some of them are right."""
    algorithm = rng.choice(["HMAC_SHA1", "HMAC_SHA256", "HMAC_SHA512", "NONE", "SHA1", "none"])
    key = rng.choice(["MK1", "MK1", "MK2", "main", "mk1", "", TOKEN])
    words = [f"key={key}" if key else "", f"algorithm={algorithm}", rng.choice(["", "version=2", "=", "key"])]
    rng.shuffle(words)
    settings = ",".join(words[: rng.randrange(4)])
    by = signed_by(rng.choice(SECRETS).encode(), genuine.text, rng.choice(["sha1", "sha256", "sha256"]))
    return genuine._replace(settings=settings, signed=by)


def _url(rng: Random, genuine: Attempt) -> Attempt:
    """Signed for another address, or sent to another than it was signed for."""
    elsewhere = [
        *(
            "http://hooks.example.com",
            "https://hooks.example.com:8443",
            "https://hooks.example.org",
            "https://localhost",
        ),
        *(
            "https://hooks.example.com.",
            "https://HOOKS.example.com",
            "https://a@hooks.example.com",
            "//hooks.example.com",
        ),
    ]
    paths = ["?", "?a=b", "#rc=5", "/x", ";v=1", "//", "%2f", "?bodySHA256=", "?Muted=true"]
    if rng.random() < 0.5:
        url = rng.choice(elsewhere) + PATH if rng.random() < 0.5 else OURS + PATH + rng.choice(paths)
        return genuine._replace(signed=signed_by(TOKEN.encode(), signed_text(url.encode(), genuine.pairs), "sha1"))
    target = rng.choice(["/", "?", "?a=b", f"?{rng.randrange(10**6)}", "?AccountSid=" + ACCOUNT, "/?"])
    return genuine._replace(target=PATH + target, believed_at=URL + target.encode())


def _parameters(rng: Random, genuine: Attempt) -> Attempt:
    """Something else is said."""
    pairs, at = list(genuine.pairs), rng.randrange(len(genuine.pairs))
    name, value = pairs[at]
    other = pairs[rng.randrange(len(pairs))]
    spot = rng.randrange(len(value) + 1)
    ways: list[Callable[[], Pairs]] = [
        lambda: [*pairs[:at], *pairs[at + 1 :]],
        lambda: [*pairs[:at], (name, value[:spot] + rng.randbytes(1) + value[spot:]), *pairs[at + 1 :]],
        lambda: [*pairs[:at], (name, value[:spot]), *pairs[at + 1 :]],
        lambda: [*pairs[:at], (name, b"true" if value == b"false" else b"false"), *pairs[at + 1 :]],
        lambda: [*pairs[:at], (name.swapcase(), value), *pairs[at + 1 :]],
        lambda: [*pairs[:at], (name, value.swapcase()), *pairs[at + 1 :]],
        lambda: [*pairs[:at], (name, other[1]), *pairs[at + 1 :]],
        lambda: [*pairs, (name, other[1])],
        lambda: [(name, other[1]), *pairs],
        lambda: [*pairs, (rng.choice(sorted(UNDERSTOOD)).encode(), b"true")],
        lambda: [*pairs, (b"", b"x")],
        lambda: [*pairs[:at], (b" " + name, value), *pairs[at + 1 :]],
        lambda: [*pairs[:at], (name + b"\0", value), *pairs[at + 1 :]],
        lambda: [(key, rng.randbytes(3)) if key == name else (key, kept) for key, kept in pairs],
        list,
    ]
    return genuine._replace(pairs=rng.choice(ways)())


def _account(rng: Random, genuine: Attempt) -> Attempt:
    """As if it were of another account, signed with whatever there is."""
    account = rng.choice([CHILD, STRANGER, ACCOUNT.upper(), "AC" + "0" * 32, "", ACCOUNT + " ", "x"]).encode()
    rest = [pair for pair in genuine.pairs if pair[0] != b"AccountSid"]
    pairs = rng.choice([rest, [(b"AccountSid", account), *rest], [(b"AccountSid", account), *genuine.pairs]])
    pairs = pairs if rng.random() < 0.8 else [*genuine.pairs, (b"AccountSid", account)]
    secret = rng.choice(["12345", "", CHILD_TOKEN, STRANGERS_TOKEN]).encode()
    signed = genuine.signed if rng.random() < 0.5 else signed_by(secret, signed_text(URL, pairs), "sha1")
    return genuine._replace(pairs=pairs, signed=signed)


def _borders(rng: Random, genuine: Attempt) -> Attempt:
    """The same text under the signature, cut into names and values elsewhere."""
    pairs = sorted(set(genuine.pairs))
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(pairs))
        text = b"".join(pairs[at])
        following = b"".join(pairs[at + 1]) if at + 1 < len(pairs) else b""
        cut, spot = rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)
        pieces = rng.choice(
            [
                [(text[:cut], text[cut:])],
                [(text[: min(cut, spot)], text[min(cut, spot) : max(cut, spot)]), (text[max(cut, spot) :], b"")],
                [(text[:cut], text[cut:] + following)],
            ]
        )
        if known := [name.encode() for name in sorted(UNDERSTOOD) if name.encode() in text[1:]]:
            inner = rng.choice(known)  # a parameter of its own out of a value that has it in it
            found = text.index(inner, 1)
            cut = len(pairs[at][0]) if len(pairs[at][0]) <= found else cut
            pieces = [(text[:cut], text[cut:found]), (inner, text[found + len(inner) :])] if cut <= found else pieces
        swallowed = following and b"".join(pieces[-1]).endswith(following)
        pairs = sorted({*pairs[:at], *pieces, *pairs[at + 1 + bool(swallowed) :]})
    return _arranged(rng, genuine, pairs)


def _arranged(rng: Random, genuine: Attempt, pairs: Pairs) -> Attempt:
    """In another order, with repeats, and written otherwise."""
    arranged = [*pairs, *rng.choices(pairs, k=rng.choice([0, 0, 1, 3]))]
    rng.shuffle(arranged)
    return genuine._replace(pairs=arranged, plain=rng.random() < 0.5)


def _order(rng: Random, genuine: Attempt) -> Attempt:
    """The same callback in other words."""
    return _arranged(rng, genuine, genuine.pairs)


WAYS = {_signature: 20, _settings: 12, _url: 12, _parameters: 26, _account: 10, _borders: 16, _order: 4}
"""How requests are spoiled, and of a hundred how many."""


@pytest.mark.timeout(120 + CASES // 100)
def test_out_of_genuine_callbacks_no_other_can_be_made(site: Site) -> None:
    rng = Random(SEED)
    told = genuine_callbacks(rng, min(CASES, 3000))
    site.tell(*told)
    site.fold()
    before, counted = documents(site), site.snapshots.counters()
    accepted: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    recognised = 0
    with capture_logs():
        for number in range(CASES):
            parameters = rng.choice(told)
            pairs = [(name.encode(), value.encode()) for name, value in parameters.items()]
            genuine = Attempt(pairs, signed_by(TOKEN.encode(), signed_text(URL, pairs), "sha1"))
            [way] = rng.choices(list(WAYS), weights=list(WAYS.values()))
            attempt = way(rng, genuine)
            sent = attempt.sent()
            status, _, body = sent.to(site)
            tried[way.__name__] += 1
            believed = attempt.is_signed()
            assert (status, body) == ((204, b"") if believed else (403, b"")), (SEED, number, way.__name__, attempt)
            if not believed:
                continue
            accepted[way.__name__] += 1
            if way is _account and attempt.text != genuine.text:  # signed by that account itself, about what is not its
                continue
            assert attempt.text == genuine.text, (SEED, number, way.__name__, attempt)
            recognised += is_recognised(sent.body, parameters)
        site.fold()
    print(f"{CASES} cases, seed {SEED}: {dict(tried)}")
    print(f"of them the same callbacks once more: {dict(accepted)}, {recognised} recognised and the others set aside")
    assert documents(site) == before
    assert site.snapshots.counters()["folded"] == counted["folded"]
    assert tried["_borders"] >= CASES // 50
    assert accepted["_borders"] > 0
    assert accepted["_settings"] > 0, "some of them are right"


def is_recognised(body: bytes, genuine: dict[str, str]) -> bool:
    """Whether this is read as the genuine callback. Else it is set aside; it is never read as another."""
    try:
        event = read(replace(callback({}), body=body))
    except Unusable:
        return False
    assert event.id == read(callback(genuine)).id
    return True


def documents(site: Site) -> dict[bytes, object]:
    """Every conference, with its revision, and its log."""
    kept: dict[bytes, object] = {}
    for name in site.redis.scan_iter("offhook:*:conference:*"):
        kept[name] = site.redis.hgetall(name)
    for name in [*site.redis.scan_iter("offhook:*:ids:*"), *site.redis.scan_iter("offhook:*:index")]:
        kept[name] = site.redis.dump(name)
    return kept


@pytest.mark.timeout(120 + CASES // 100)
def test_whatever_twilios_own_sdk_signs_is_believed() -> None:
    rng = Random(SEED)
    told = genuine_callbacks(rng, min(CASES, 3000))
    for number in range(CASES // 2):
        base = rng.choice(["https", "http"]) + "://" + rng.choice(["", "user:pass@"]) + rng.choice(HOSTS)
        parameters = dict(rng.sample(sorted(rng.choice(told).items()), rng.randrange(5)))
        parameters |= {**rng.choice(told), "Label": rng.choice(WORDS)}
        query = rng.choice(["", "?tenant=7", f"?{urlencode({'q': rng.choice(WORDS)})}"])
        key = rng.choice(OWN_KEYS)
        settings = "" if key.key_id is None else f"key={key.key_id},algorithm=HMAC_SHA256"
        algorithm = "HMAC_SHA1" if key.key_id is None else "HMAC_SHA256"
        signed = RequestValidator(key.secret.decode()).compute_signature(
            base + PATH + query, MultiDict(parameters), algorithm
        )
        fields = form_fields(urlencode(parameters).encode())
        found = verify(signed_urls(base, PATH + query), fields, signed, OWN_KEYS, settings)
        assert found == key, (SEED, number, base, query, parameters, settings)
    print(f"{CASES // 2} genuine ones, seed {SEED}: all believed")


HOSTS = ["hooks.example.com", "hooks.example.com:8443", "10.0.0.7:80", "Hooks.Example.com", "localhost:443"]
WORDS = ["", "a b", "Büro & Café 100%", "日本", "=&+%2B", "'\"<>", "x" * 300, "\u202e", "a\r\nb", "\0"]
