"""The sender speaks HTTP as Twilio does, and the official SDK believes it."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from twilio.request_validator import RequestValidator

from app.simulator.sender import Sender
from tests.simulator.conftest import Webhook

TOKEN = "a pretend auth token"
PARAMETERS = {
    "StatusCallbackEvent": "conference-end",
    "FriendlyName": "Café | Zürich & 'co' = 100 %",
    "Reason": "Participant CA1 left the conference",
    "ReasonConferenceEnded": "last-participant-left",
    "FromCity": "",
}


def test_a_posted_callback_is_a_form_that_the_sdk_believes(webhook: Webhook) -> None:
    url = f"{webhook.origin}/hook?tenant=42"
    assert Sender(url, TOKEN).send(PARAMETERS) == 204
    [request] = webhook.requests
    assert (request.method, request.target, request.parameters) == ("POST", "/hook?tenant=42", PARAMETERS)
    signature = request.headers["X-Twilio-Signature"]
    assert RequestValidator(TOKEN).validate(url, request.parameters, signature)
    assert not RequestValidator("another").validate(url, request.parameters, signature)


@pytest.mark.parametrize(("path", "joint"), [("/hook", "?"), ("/hook?tenant=42", "&")])
def test_a_get_callback_is_a_query_that_the_sdk_believes(webhook: Webhook, path: str, joint: str) -> None:
    assert Sender(webhook.origin + path, TOKEN).send(PARAMETERS, method="GET") == 204
    [request] = webhook.requests
    assert request.method == "GET"
    assert request.body == ""
    assert request.target.startswith(path + joint)
    assert request.parameters.items() >= PARAMETERS.items()
    signature = request.headers["X-Twilio-Signature"]
    assert RequestValidator(TOKEN).validate(webhook.origin + request.target, {}, signature)


def test_the_headers_are_those_of_twilio(webhook: Webhook) -> None:
    Sender(webhook.origin + "/hook", TOKEN).send(PARAMETERS, idempotency_token="f3f1")
    headers = webhook.requests[0].headers
    assert headers["User-Agent"] == "TwilioProxy/1.1"
    assert headers["Content-Type"] == "application/x-www-form-urlencoded; charset=utf-8"
    assert headers["I-Twilio-Idempotency-Token"] == "f3f1"


def test_each_callback_has_an_idempotency_token_of_its_own(webhook: Webhook) -> None:
    sender = Sender(webhook.origin + "/hook", TOKEN)
    sender.send(PARAMETERS)
    sender.send(PARAMETERS)
    first, second = (request.headers["I-Twilio-Idempotency-Token"] for request in webhook.requests)
    assert first
    assert first != second


def test_connection_overrides_are_neither_signed_nor_sent(webhook: Webhook) -> None:
    Sender(f"{webhook.origin}/hook#rc=5&rp=all", TOKEN).send(PARAMETERS)
    [request] = webhook.requests
    assert request.target == "/hook"
    signature = request.headers["X-Twilio-Signature"]
    assert RequestValidator(TOKEN).validate(f"{webhook.origin}/hook", request.parameters, signature)


def test_one_connection_serves_many_callbacks(webhook: Webhook) -> None:
    sender = Sender(webhook.origin + "/hook", TOKEN)
    for _ in range(5):
        sender.send(PARAMETERS)
    assert len({request.client for request in webhook.requests}) == 1


def test_a_sender_can_be_shared_between_threads(webhook: Webhook) -> None:
    sender = Sender(webhook.origin + "/hook", TOKEN)
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda n: sender.send({"SequenceNumber": str(n)}), range(100)))
    assert statuses == [204] * 100
    assert {request.parameters["SequenceNumber"] for request in webhook.requests} == set(map(str, range(100)))


@pytest.mark.parametrize("status", [200, 302, 307, 403, 503])
def test_the_status_is_handed_back_and_neither_followed_nor_retried(webhook: Webhook, status: int) -> None:
    webhook.answer = lambda _: status
    assert Sender(webhook.origin + "/hook", TOKEN).send(PARAMETERS) == status
    assert len(webhook.requests) == 1


def test_a_refused_connection_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert Sender(f"http://127.0.0.1:{port}/hook", TOKEN).send(PARAMETERS) == 0


def test_a_hang_up_is_no_answer_and_is_not_retried(webhook: Webhook) -> None:
    webhook.answer = lambda _: None
    assert Sender(webhook.origin + "/hook", TOKEN).send(PARAMETERS) == 0
    assert len(webhook.requests) == 1


def test_an_answer_that_does_not_come_in_time_is_no_answer(webhook: Webhook) -> None:
    given_up = threading.Event()

    def late(_: object) -> None:
        given_up.wait()

    webhook.answer = late
    assert Sender(webhook.origin + "/hook", TOKEN, timeout=0.1).send(PARAMETERS) == 0
    given_up.set()


@pytest.mark.parametrize("url", ["", "/hook", "example.com/hook", "ftp://example.com/hook", "http:///hook"])
def test_a_url_that_is_not_absolute_http_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not absolute"):
        Sender(url, TOKEN)


def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="cannot log in") as refusal:
        Sender("https://amy:secret@example.com/hook", TOKEN)
    assert "secret" not in str(refusal.value)


def test_the_token_stays_out_of_the_repr() -> None:
    assert TOKEN not in repr(Sender("https://example.com/hook", TOKEN))
