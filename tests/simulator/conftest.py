"""A webhook to send to: a real HTTP server in a thread that writes down what it is told."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest


@dataclass
class Request:
    method: str
    target: str
    headers: Message
    body: str
    client: tuple[str, int]

    @property
    def parameters(self) -> dict[str, str]:
        query = urlsplit(self.target).query
        return dict(parse_qsl(query if self.method == "GET" else self.body, keep_blank_values=True))


@dataclass
class Webhook:
    """What `answer` returns is the status; None hangs up without an answer."""

    origin: str
    answer: Callable[[Request], int | None] = lambda _: 204
    requests: list[Request] = field(default_factory=list)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            request = Request(self.command, self.path, self.headers, body, self.client_address)
            hook.requests.append(request)
            status = hook.answer(request)
            if status is None:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815  http.server looks the method up by this name

        def log_message(self, *_: object) -> None:
            """Says nothing: the requests are kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook = Webhook(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hook
    server.shutdown()
    server.server_close()
    thread.join()
