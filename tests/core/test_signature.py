"""A webhook request is believed when, and only when, Twilio's own SDK would find its signature right.

The SDK's validator is the oracle, except where it errs or has no answer; there we say ourselves what holds.
To take a port off it cuts the host at the first colon, which spoils credentials, or IPv6, with a port.
It tidies URLs: an empty ;params or ? goes, the scheme gets small letters. It knows no %27 form.
It raises on a port that is no number, a lone surrogate, a missing signature, and JSON without bodySHA256.
"""

from __future__ import annotations

import hmac
import string
from base64 import b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator, get_signature_algorithm
from werkzeug.datastructures import MultiDict

from app.twilio.signature import Key, Malformed, form_fields, signed_urls, verify, verify_json

Form = list[tuple[str, str]]

TOKEN = "12345"
MAIN = Key("main", TOKEN.encode())
SHARED = Key("shared:MK1", b"a shared secret", "sha256", "MK1")
NAMES_SHARED = "key=MK1,algorithm=HMAC_SHA256"
SDK = RequestValidator(TOKEN)
SHARED_SDK = RequestValidator("a shared secret")

CALL: Form = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
]
REASONS: Form = [*CALL, ("ReasonConferenceEnded", "test"), ("Reason", "Participant")]
JOIN: Form = [
    ("AccountSid", "AC" + 32 * "a"),
    ("ConferenceSid", "CF" + 32 * "b"),
    ("FriendlyName", "Support room 7"),
    ("StatusCallbackEvent", "participant-join"),
    ("SequenceNumber", "1"),
    ("Timestamp", "Thu, 01 Jun 2017 20:48:32 +0000"),
    ("CallSid", "CA" + 32 * "c"),
    ("ParticipantLabel", "agent 1"),
    ("Muted", "false"),
    ("Hold", "false"),
    ("Coaching", "false"),
    ("EndConferenceOnExit", "true"),
    ("StartConferenceOnEnter", "true"),
]
END: Form = [
    *JOIN[:3],
    ("StatusCallbackEvent", "conference-end"),
    ("SequenceNumber", "6"),
    ("Timestamp", "Thu, 01 Jun 2017 20:52:02 +0000"),
    ("CallSidEndingConference", "CA" + 32 * "c"),
    ("ParticipantLabelEndingConference", "agent 1"),
    ("ReasonConferenceEnded", "participant-with-end-conference-on-exit-left"),
    ("Reason", f"Participant CA{32 * 'c'} with endConferenceOnExit left the conference"),
]
SITE = "https://mycompany.com"
PAGE = "/myapp.php?foo=1&bar=2"
OURS = "https://hooks.example.com"


def on_the_wire(text: str) -> str:
    """The text as WSGI hands over a request target: one character a byte."""
    return text.encode().decode("latin-1")


def posted(form: Form) -> list[tuple[bytes, bytes]]:
    return form_fields(urlencode(form).encode())


def signed(url: str, form: Form, sdk: RequestValidator = SDK, algorithm: str | None = None) -> str:
    signature = sdk.compute_signature(url, MultiDict(form), algorithm)
    assert isinstance(signature, str)
    return signature


def signed_bytes(secret: bytes, data: bytes) -> str:
    """For bytes that are not text, which the SDK cannot sign."""
    return b64encode(hmac.new(secret, data, "sha1").digest()).decode()


# What the SDKs' own tests, the documentation and recorded conferences say


@pytest.mark.parametrize(
    ("base", "target", "form", "signature"),
    [
        (SITE, PAGE, CALL, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (SITE, PAGE, CALL, "kvajT1Ptam85bY51eRf/AJRuM3w="),
        (SITE + ":443", PAGE, CALL, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (SITE + ":443", PAGE, CALL, "kvajT1Ptam85bY51eRf/AJRuM3w="),
        (SITE + ":1234", PAGE, CALL, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        (SITE + ":1234", PAGE, CALL, "CYn1h0gLBdNxDGkKJg6hYohgeD8="),
        ("http://mycompany.com", PAGE, CALL, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ("http://mycompany.com:80", PAGE, CALL, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ("http://mycompany.com:1234", PAGE, CALL, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        (SITE, "/myapp.php", CALL, "1xaxFBvyzXYvWplzNOSs28HWO94="),
        (SITE, PAGE, [], "zYQTYrRWXE7LtzbG4PfP7/bkkGo="),
        ("https://user:pass@mycompany.com", PAGE, CALL, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("https://user:pass@mycompany.com", PAGE, CALL, "CukzLTc1tT5dXEDIHm/tKBanW10="),
        ("https://user@mycompany.com", PAGE, CALL, "2YRLlVAflCqxaNicjMpJcSTgzSs="),
        ("https://user:pass@mycompany.com", PAGE, CALL, "ZQFR1PTIZXF2MXB8ZnKCvnnA+rI="),
        ("https://user:pass@mycompany.com:443", PAGE, CALL, "ZQFR1PTIZXF2MXB8ZnKCvnnA+rI="),
        ("https://user:pass@mycompany.com:443", PAGE, CALL, "CukzLTc1tT5dXEDIHm/tKBanW10="),
        (
            SITE,
            PAGE,
            [("Sid", "CA123"), ("SidAccount", "AC123"), *[("Digits", d) for d in ("5678", "1234", "1234")]],
            "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
        ),
        (
            SITE,
            PAGE,
            [("MessagingBinding.Address", "+1325xxxxxxx"), ("MessagingBinding.Address", "+1415xxxxxxx")],
            "83O6e2vORAoJHUNzJjDWN1jz+BA=",
        ),
        (
            SITE,
            PAGE,
            [("Digits", ""), ("CallSid", "CA1234567890ABCDE"), ("EmptyParam", "")],
            "9HHp/OqQMEwdrVebHDdA/+tqjX8=",
        ),
        (
            SITE,
            PAGE,
            [("Zebra", "last"), ("Alpha", "first"), ("Beta", "second"), ("Gamma", "third")],
            "enveUe73ZTVLAekHxez3Qx6JuuQ=",
        ),
        (
            SITE,
            PAGE,
            [("callSid", "lowercase"), ("CallSid", "uppercase"), ("CALLSID", "allcaps")],
            "jDK7WKT8wiNrwggd4ceTv4e1MJ4=",
        ),
        (
            SITE,
            PAGE,
            [
                ("Message", "Hello & goodbye! @#$%^*()"),
                ("From", "+1 (415) 867-5309"),
                ("Special", "unicode: ñáéíóú"),
            ],
            "dCPiR4WtQ6QFN6pJh81CtlCcWLQ=",
        ),
        (SITE, "/myapp.php?foo=hello%20world&bar=test%2Bvalue", CALL, "er2tvAP1Wx+iuTTE2BPgvEaN1cs="),
        (SITE, on_the_wire("/webhook/España?año=2023"), CALL, "G/Hx6mqqnjUNlPAoi2Sp9bGst0g="),
        (SITE, PAGE + "&Body=It's+amazing", CALL, "TfZzewPq8wqrGlMfyAud8+/IvJ0="),
        (SITE, PAGE, REASONS, "vOEb5UThFn24KEfnOFLQY2AE5FY="),
        ("http://mycompany.com", PAGE, REASONS, "n2xBNyzSW7rfYStDtOFiFMv7qNo="),
        (SITE, PAGE, [("property", "value"), ("boolean", "true")], "NBdBDr/T/lgjI+tlgpXjKZQZs/k="),
        (
            "https://example.com",
            PAGE,
            [(name, value.replace("5309", "5310")) for name, value in CALL],
            "L/OH5YylLD5NRKLltdqwSvS0BnU=",
        ),
        (OURS, "/twilio/conference", JOIN, "Xqf5oJB7CLTSqL97OmhNo5gezA4="),
        (OURS, "/twilio/conference?tenant=42&env=prod", JOIN, "Sew3SCLPI6kM+H5jLg5sQmoNYas="),
        (OURS, "/twilio/conference?" + urlencode(JOIN), [], "dwMuSJrtpbnfdtHZiYrmaiXip74="),
        (
            OURS,
            "/twilio/conference?" + urlencode(JOIN, quote_via=quote),
            [],
            "BG+ZOnpTlX8eN9JfFtHApXWIfmQ=",
        ),
        (OURS, "/twilio/conference", END, "ubLtYudUD+yEMWAVwrGOS2uF4Ug="),
        (OURS + ":8443", "/twilio/conference", END, "BVMeBgqNhFL6LP8er331e2oOdqg="),
        (OURS + ":8443", "/twilio/conference", END, "ubLtYudUD+yEMWAVwrGOS2uF4Ug="),
    ],
)
def test_a_known_signature_is_believed(base: str, target: str, form: Form, signature: str) -> None:
    assert verify(signed_urls(base, target), posted(form), signature, [MAIN]) is MAIN


@pytest.mark.parametrize(
    ("base", "target", "form", "signature"),
    [
        (SITE, PAGE, REASONS, "95+Bu0JVPi0r/SsESZCVf0dWAjw="),
        (OURS, "/twilio/conference", END, "iR4rvkzFU1PgEpDtsqLCC8RW+ho="),
    ],
)
def test_names_sort_alone_so_reason_comes_before_reason_conference_ended(
    base: str, target: str, form: Form, signature: str
) -> None:
    assert verify(signed_urls(base, target), posted(form), signature, [MAIN]) is None


@pytest.mark.parametrize(
    ("base", "target", "body", "signature"),
    [
        (SITE, PAGE + "&", b'{"property": "value", "boolean": true}', "a9nBmqA0ju/hNViExpshrM61xv4="),
        (SITE, "/myapp.php?", b'{"property": "value", "boolean": true}', "y77kIzt2vzLz71DgmJGsen2scGs="),
        (SITE, PAGE + "&", b"{}", "Ldidvp12m26NI7eqEvxnEpkd9Hc="),
        (
            OURS,
            "/twilio/sink?",
            b'[{"specversion":"1.0","id":"EZ00000000000000000000000000000001",'
            b'"type":"com.twilio.voice.status-callback.conference.updated"}]',
            "I9IOtgqbqLRu9dIoFx4b1kr/gj8=",
        ),
    ],
)
def test_a_known_json_signature_is_believed_for_that_body_alone(
    base: str, target: str, body: bytes, signature: str
) -> None:
    urls = signed_urls(base, target + "bodySHA256=" + sha256(body).hexdigest())

    assert verify_json(urls, body, signature, [MAIN]) is MAIN
    assert verify_json(urls, body + b" ", signature, [MAIN]) is None


# What the SDK believes, we believe

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
form_names = st.sampled_from(["Reason", "ReasonConferenceEnded", "Digits", "a", "A", "é", ""]) | text
forms = st.lists(st.tuples(form_names, text | st.sampled_from(["+", "%2B", "&", "=", " ", "a+b", "ñ"])), max_size=15)
secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
path_characters = string.ascii_letters + string.digits + "-._~!$&()*+,=:@%/é日"
query_characters = path_characters.replace("&", "") + "';?[]"  # an & of its own would part what a piece is
paths = st.text(st.sampled_from(path_characters), max_size=12).map("/hook/".__add__)
pieces = st.text(st.sampled_from(query_characters), min_size=1, max_size=12)
targets = st.tuples(paths, st.lists(pieces, max_size=4)).map(lambda t: t[0] + "?" * bool(t[1]) + "&".join(t[1]))
hosts = st.sampled_from(["hooks.example.com", "Hooks.Example.COM", "10.0.0.7", "localhost"])
ports = st.sampled_from(["", ":80", ":443", ":8443"])
schemes = st.sampled_from(["http", "https"])


@given(form=forms, secret=secrets)
@settings(max_examples=2000, deadline=None)
def test_a_form_is_believed_exactly_when_the_sdk_signed_it(form: Form, secret: str) -> None:
    url, key = "https://hooks.example.com/webhooks/twilio", Key("main", secret.encode())
    signature = signed(url, form, RequestValidator(secret))

    assert verify([url.encode()], posted(form), signature, [key]) is key
    assert verify([url.encode()], [*posted(form), (b"More", b"x" * 200)], signature, [key]) is None


@given(scheme=schemes, host=hosts, port=ports, target=targets, form=forms, data=st.data())
@settings(max_examples=1000, deadline=None)
def test_a_url_is_believed_exactly_when_the_sdk_believes_it(
    scheme: str, host: str, port: str, target: str, form: Form, data: st.DataObject
) -> None:
    configured = scheme + "://" + host + port
    sender = data.draw(schemes) + "://" + data.draw(hosts) + data.draw(ports)
    signature = signed(data.draw(st.sampled_from([configured, scheme + "://" + host, sender])) + target, form)

    ours = verify(signed_urls(configured, on_the_wire(target)), posted(form), signature, [MAIN])

    assert (ours is MAIN) == SDK.validate(configured + target, MultiDict(form), signature)


@given(port=st.sampled_from(["", ":443"]), target=targets, form=forms)
@settings(max_examples=250, deadline=None)
def test_a_url_with_credentials_is_believed_as_configured_and_as_the_sdk_completes_it(
    port: str, target: str, form: Form
) -> None:
    base = "https://user:pa%40ss@hooks.example.com"
    signature = signed(base + port + target, form)

    assert SDK.validate(base + target, MultiDict(form), signature)
    assert verify(signed_urls(base, on_the_wire(target)), posted(form), signature, [MAIN]) is MAIN


@given(form=forms, encode=st.sampled_from([quote, quote_plus]))
@settings(max_examples=500, deadline=None)
def test_a_get_is_believed_exactly_as_it_was_sent(form: Form, encode: Any) -> None:
    target = "/webhooks/twilio?of=all&" + urlencode(form, quote_via=encode)
    signature = signed(OURS + target, [])

    assert SDK.validate(OURS + target, {}, signature)
    assert verify(signed_urls(OURS, target), [], signature, [MAIN]) is MAIN
    assert verify(signed_urls(OURS, target + "&"), [], signature, [MAIN]) is None
    assert [(name.decode(), value.decode()) for name, value in form_fields(target.encode())[1:]] == form


@given(body=text, other=text, port=st.sampled_from(["", ":443"]))
@settings(max_examples=500, deadline=None)
def test_a_json_body_is_believed_exactly_when_the_sdk_believes_it(body: str, other: str, port: str) -> None:
    target = f"/sink?tenant=7&bodySHA256={sha256(body.encode()).hexdigest()}"
    signature = signed(OURS + port + target, [])
    urls = signed_urls(OURS, target)

    assert SDK.validate(OURS + target, body, signature)
    assert verify_json(urls, body.encode(), signature, [MAIN]) is MAIN
    assert (verify_json(urls, other.encode(), signature, [MAIN]) is MAIN) == SDK.validate(
        OURS + target, other, signature
    )


@given(form=forms, target=targets)
@settings(max_examples=500, deadline=None)
def test_a_shared_key_is_believed_exactly_when_the_sdk_believes_it(form: Form, target: str) -> None:
    algorithm = get_signature_algorithm(NAMES_SHARED)
    signature = signed(OURS + target, form, SHARED_SDK, algorithm)
    urls, fields = signed_urls(OURS, on_the_wire(target)), posted(form)

    assert SHARED_SDK.validate(OURS + target, MultiDict(form), signature, algorithm)
    assert verify(urls, fields, signature, [MAIN, SHARED], NAMES_SHARED) is SHARED
    assert verify(urls, fields, signed(OURS + target, form, SHARED_SDK), [SHARED], NAMES_SHARED) is None


# What the SDK errs on, or does not know


@pytest.mark.parametrize("port", ["", ":443"])
@pytest.mark.parametrize("user", ["", "user:pass@", "user@"])
@pytest.mark.parametrize("host", ["hooks.example.com", "[2001:db8::7]", "[::1]", "127.0.0.1", "2130706433"])
def test_host_credentials_and_port_are_told_apart(host: str, user: str, port: str) -> None:
    expected = {f"https://{u}{host}{p}/hook".encode() for u in ("", user) for p in ("", ":443")}

    assert set(signed_urls(f"https://{user}{host}{port}", "/hook")) == expected


def test_another_port_than_the_configured_one_is_not_believed() -> None:
    assert signed_urls("https://h:8443", "/x") == (b"https://h/x", b"https://h:8443/x")


@pytest.mark.parametrize(
    ("base", "first"),
    [
        ("https://hooks.example.com", b"https://hooks.example.com/hook"),
        ("https://hooks.example.com/", b"https://hooks.example.com/hook"),
        ("https://hooks.example.com:8443", b"https://hooks.example.com/hook"),
        ("https://user:pass@hooks.example.com", b"https://hooks.example.com/hook"),
        ("http://hooks.example.com", b"http://hooks.example.com/hook"),
        ("http://hooks.example.com:8000", b"http://hooks.example.com:8000/hook"),
        ("HTTP://Hooks.Example.com:8000", b"HTTP://Hooks.Example.com:8000/hook"),
        ("https://münchen.example", "https://münchen.example/hook".encode()),
    ],
)
def test_what_twilio_most_likely_signed_comes_first(base: str, first: bytes) -> None:
    assert signed_urls(base, "/hook")[0] == first


@pytest.mark.parametrize("base", ["https://h/offhook", "https://h/offhook/"])
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/hook?x=1", [b"https://h/offhook/hook?x=1"]),
        ("/offhook/hook", [b"https://h/offhook/hook", b"https://h/offhook/offhook/hook"]),
        ("/offhook", [b"https://h/offhook", b"https://h/offhook/offhook"]),
        ("/offhook?x=1", [b"https://h/offhook?x=1", b"https://h/offhook/offhook?x=1"]),
        ("/offhooks", [b"https://h/offhook/offhooks"]),
    ],
)
def test_a_prefix_may_have_been_taken_off_by_a_proxy_or_left_on(base: str, target: str, expected: list[bytes]) -> None:
    assert [url for url in signed_urls(base, target) if b":443" not in url] == expected


def test_an_apostrophe_may_have_been_signed_as_it_is_or_escaped_in_the_query_only() -> None:
    urls = signed_urls("https://h", "/o'clock?Body=It's&To='")

    assert urls[0] == b"https://h/o'clock?Body=It's&To='"
    assert b"https://h/o'clock?Body=It%27s&To=%27" in urls
    assert not any(b"/o%27clock" in url for url in urls)


def test_a_target_that_was_on_no_wire_has_no_url() -> None:
    assert signed_urls(OURS, "/日本") == ()
    assert verify((), [], signed(OURS + "/日本", []), [MAIN]) is None


def test_bytes_that_are_not_utf8_are_signed_as_they_were_sent() -> None:
    fields = form_fields(b"FriendlyName=caf%E9+%ff\xfe")
    assert fields == [(b"FriendlyName", b"caf\xe9 \xff\xfe")]

    signature = signed_bytes(MAIN.secret, b"https://h/hook" + b"FriendlyName" + b"caf\xe9 \xff\xfe")
    assert verify([b"https://h/hook"], fields, signature, [MAIN]) is MAIN
    assert verify([b"https://h/hook"], form_fields(b"FriendlyName=caf%EF%BF%BD"), signature, [MAIN]) is None


# Keys


def test_any_of_several_tokens_will_do_and_the_one_that_did_is_named() -> None:
    ring = [Key("main", b"new"), Key("main-2", b"old"), SHARED]
    urls, fields = signed_urls(OURS, "/hook"), posted(JOIN)

    assert verify(urls, fields, signed(OURS + "/hook", JOIN, RequestValidator("old")), iter(ring)) is ring[1]
    assert verify(urls, fields, signed(OURS + ":443/hook", JOIN, RequestValidator("new")), iter(ring)) is ring[0]
    assert verify(urls, fields, signed(OURS + "/hook", JOIN, RequestValidator("gone")), iter(ring)) is None
    assert verify(urls, fields, signed(OURS + "/hook", JOIN, RequestValidator("old")), []) is None


@pytest.mark.parametrize(
    ("header", "believed"),
    [
        (NAMES_SHARED, True),
        (" algorithm = hmac_sha256 , key = MK1 ", True),
        ("key=MK1,algorithm=HMAC_SHA256,key=MK9,version=2", True),
        ("", False),
        ("key=MK9,algorithm=HMAC_SHA256", False),
        ("key=MK1,algorithm=HMAC_SHA512", False),
        ("key=MK1,algorithm=HMAC_SHA1", False),
        ("key=MK1", False),
        ("algorithm=HMAC_SHA256", False),
        ("key=,algorithm=HMAC_SHA256", False),
        ("key=MK9,key=MK1,algorithm=HMAC_SHA256", False),
        ("\ud800=,,=,key", False),
    ],
)
def test_a_shared_key_counts_only_when_the_header_names_it(header: str, believed: bool) -> None:
    url = OURS + "/hook"
    signature = signed(url, JOIN, SHARED_SDK, "HMAC_SHA256")

    assert verify([url.encode()], posted(JOIN), signature, [MAIN, SHARED], header) is (SHARED if believed else None)


@pytest.mark.parametrize(
    ("header", "believed"),
    [
        ("", True),
        ("algorithm=HMAC_SHA1", True),
        ("key= ,algorithm=HMAC_SHA1", True),
        ("version=2", True),
        (NAMES_SHARED, False),
        ("key=MK1", False),
        ("key=MK9,algorithm=HMAC_SHA1", False),
        ("algorithm=HMAC_SHA256", False),
        ("algorithm=NONE", False),
    ],
)
def test_an_auth_token_counts_only_when_the_header_names_no_other_key(header: str, believed: bool) -> None:
    url = OURS + "/hook"

    assert verify([url.encode()], posted(JOIN), signed(url, JOIN), [MAIN, SHARED], header) is (
        MAIN if believed else None
    )


@pytest.mark.parametrize("header", ["", NAMES_SHARED, "key=MK1,algorithm=HMAC_SHA1", "algorithm=HMAC_SHA256"])
def test_no_header_makes_a_key_sign_with_another_algorithm_than_its_own(header: str) -> None:
    url = OURS + "/hook"
    token_as_sha256 = signed(url, JOIN, SDK, "HMAC_SHA256")
    shared_as_sha1 = signed(url, JOIN, SHARED_SDK, "HMAC_SHA1")

    for signature in (token_as_sha256, shared_as_sha1):
        assert verify([url.encode()], posted(JOIN), signature, [MAIN, SHARED], header) is None


def test_a_key_is_only_ever_used_in_its_own_scheme() -> None:
    url = OURS + "/hook"
    nameless = Key("shared", b"a shared secret", "sha256")
    token_with_id = Key("main", TOKEN.encode(), "sha1", "MK1")
    fields, shared_signature = posted(JOIN), signed(url, JOIN, SHARED_SDK, "HMAC_SHA256")

    for header in ("", "algorithm=HMAC_SHA256", NAMES_SHARED):
        assert verify([url.encode()], fields, shared_signature, [nameless], header) is None
    assert verify([url.encode()], fields, signed(url, JOIN), [token_with_id], NAMES_SHARED) is None


def test_of_two_keys_with_one_secret_the_first_is_named() -> None:
    ring = [Key("main", b"same"), Key("main-2", b"same")]
    signature = signed(OURS + "/hook", JOIN, RequestValidator("same"))

    assert verify(signed_urls(OURS, "/hook"), posted(JOIN), signature, ring) is ring[0]


def test_a_shared_key_signs_json_too() -> None:
    target = "/sink?bodySHA256=" + sha256(b"[]").hexdigest()
    signature = signed(OURS + target, [], SHARED_SDK, "HMAC_SHA256")

    assert verify_json(signed_urls(OURS, target), b"[]", signature, [MAIN, SHARED], NAMES_SHARED) is SHARED
    assert verify_json(signed_urls(OURS, target), b"[]", signature, [MAIN, SHARED]) is None


def test_a_key_never_shows_its_secret() -> None:
    key = Key("main", b"hush-hush")

    assert "hush" not in f"{key!r} {key} {[key]}"
    assert "main" in repr(key)


def test_a_key_without_a_secret_is_refused_because_anybody_could_sign_with_it() -> None:
    with pytest.raises(ValueError, match="secret of key 'main-2' is empty; set it, or leave the key out"):
        Key("main-2", b"")


# What is not to be believed


uniquely_named = st.lists(
    st.tuples(st.binary(min_size=1), st.binary()), min_size=1, max_size=8, unique_by=lambda pair: pair[0]
)


@given(fields=uniquely_named, data=st.data())
@settings(max_examples=500, deadline=None)
def test_one_changed_byte_anywhere_is_refused(fields: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    def changed(value: bytes) -> bytes:
        at, by = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(1, 255))
        return value[:at] + bytes([value[at] ^ by]) + value[at + 1 :]

    url = b"https://hooks.example.com/webhooks/twilio?tenant=42"
    signature = signed_bytes(MAIN.secret, url + b"".join(name + value for name, value in sorted(fields)))
    assert verify([url], fields, signature, [MAIN]) is MAIN

    (name, value), *others = fields
    assert verify([url], [(changed(name), value), *others], signature, [MAIN]) is None
    if value:
        assert verify([url], [(name, changed(value)), *others], signature, [MAIN]) is None
    assert verify([url], others, signature, [MAIN]) is None
    assert verify([url], [*fields, (b"", b"x")], signature, [MAIN]) is None
    assert verify([changed(url)], fields, signature, [MAIN]) is None
    assert verify([url], fields, changed(signature.encode()).decode("latin-1"), [MAIN]) is None
    assert verify([url], fields, signature, [Key("main", changed(MAIN.secret))]) is None


def test_a_signature_tells_neither_where_a_name_ends_nor_how_often_a_pair_was_sent() -> None:
    url = b"https://h/hook"
    signature = signed(url.decode(), [("FriendlyName", "roomHoldtrue")])

    shifted = form_fields(b"FriendlyName=room&Hold=true&Hold=true")

    assert verify([url], shifted, signature, [MAIN]) is MAIN  # Twilio's scheme; refusing this is the caller's part


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "=",
        "RSOYDt4T1cUTdK1PDd93/VVr8B8",
        "RSOYDt4T1cUTdK1PDd93/VVr8B9=",
        "rsoydt4t1cutdk1pdd93/vvr8b8=",
        "RSOYDt4T1cUTdK1PDd93_VVr8B8=",
        " RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=\n",
        "RSOYDt4T1cUTdK1PDd93/VVr8B8=, RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        "ÿ" * 28,
        "日本",
        "\ud800",
        "\0" * 28,
        pytest.param("A" * 1_000_000, id="too long"),
    ],
)
def test_a_signature_that_is_not_the_very_one_is_refused(signature: str) -> None:
    assert verify(signed_urls(SITE, PAGE), posted(CALL), signature, [MAIN, SHARED]) is None
    assert verify_json(signed_urls(SITE, PAGE), b"{}", signature, [MAIN, SHARED]) is None


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?tenant=42",
        "?bodySHA256=",
        "?bodySHA256",
        "?BodySHA256={digest}",
        "?xbodySHA256={digest}",
        "?bodySHA256={digest}0",
        "?bodySHA256={other}",
        "?bodySHA256={other}&bodySHA256={digest}",
        "?bodySHA256={digest}&bodySHA256={other}",
        "?bodySHA256={upper}",
    ],
)
def test_json_is_refused_unless_the_signed_url_holds_its_digest_and_no_other(query: str) -> None:
    digest, other = sha256(b"{}").hexdigest(), sha256(b"[]").hexdigest()
    target = "/sink" + query.format(digest=digest, other=other, upper=digest.upper())

    assert verify_json(signed_urls(OURS, target), b"{}", signed(OURS + target, []), [MAIN]) is None


anything = st.text(st.characters())  # lone surrogates too


@given(
    base=st.sampled_from([OURS, "http://user:pass@[::1]:8000/prefix/"]),
    target=anything | st.text(st.characters(max_codepoint=255)),
    body=st.binary(max_size=300),
    signature=anything,
    header=anything | st.just(NAMES_SHARED),
)
@settings(max_examples=1000, deadline=None)
def test_nothing_that_can_be_sent_raises_or_is_believed(
    base: str, target: str, body: bytes, signature: str, header: str
) -> None:
    urls = signed_urls(base, target)
    assert len(set(urls)) == len(urls)
    assert verify(urls, form_fields(body, most=300), signature, [MAIN, SHARED], header) is None
    assert verify_json(urls, body, signature, [MAIN, SHARED], header) is None


# Form fields


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (b"", []),
        (b"&&", []),
        (b"a=1&b=2&a=1", [(b"a", b"1"), (b"b", b"2"), (b"a", b"1")]),
        (b"a=&=b&c&=", [(b"a", b""), (b"", b"b"), (b"c", b""), (b"", b"")]),
        (b"a+b=+c%2B%20", [(b"a b", b" c+ ")]),
        (b"a=b=c%3D%26d;e", [(b"a", b"b=c=&d;e")]),
        (b"%41=%zz%4%", [(b"A", b"%zz%4%")]),
        (b"n=%00%C3%A9\xc3\xa9\xff", [(b"n", b"\0\xc3\xa9\xc3\xa9\xff")]),
    ],
)
def test_fields_are_read_in_order_and_nothing_is_trimmed(raw: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    assert form_fields(raw) == fields


@given(form=st.lists(st.tuples(text, text), max_size=20))
@settings(max_examples=500, deadline=None)
def test_what_was_encoded_is_read_back(form: Form) -> None:
    assert [(name.decode(), value.decode()) for name, value in posted(form)] == form


def test_more_fields_than_allowed_are_refused_without_quoting_them() -> None:
    assert len(form_fields(b"secret=1&" * 200)) == 200
    with pytest.raises(Malformed, match=r"^201 form fields, and at most 200 are read$"):
        form_fields(b"secret=1&" * 201)
    with pytest.raises(Malformed, match="3 form fields, and at most 2"):
        form_fields(b"a&b&c", most=2)
