"""A server that plays what a test has prepared, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

SOON = b"retry: 1\n\n"
"""Milliseconds; no test waits."""


class Frame(NamedTuple):
    """One event of a stream."""

    event: str
    data: Any
    id: str

    def bytes(self) -> bytes:
        """As it is sent."""
        return f"id: {self.id}\nevent: {self.event}\ndata: {json.dumps(self.data)}\n\n".encode()


@dataclass
class Stream:
    """An answer that goes on: these frames, perhaps the beginning of another, then the end, or nothing more."""

    frames: list[Frame] = field(default_factory=list)
    half: bytes = b""
    silent: bool = False


@dataclass
class Answer:
    """Any other answer."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Asked(NamedTuple):
    """A request."""

    path: str
    last_id: str | None
    authorization: str | None


class Server:
    """Gives the prepared answers to requests for the stream, one after the other, and 401 when there are no more."""

    def __init__(self, answers: list[Stream | Answer], documents: Mapping[str, Any]) -> None:
        self.answers = answers
        self.documents = dict(documents)
        """By sid: a document, or an Answer to be given once, or a list of what to give one after the other."""
        self.asked: list[Asked] = []
        self.url = ""

    @property
    def streams(self) -> list[Asked]:
        """What was asked of the stream."""
        return [each for each in self.asked if each.path.startswith("/api/stream")]

    @property
    def read(self) -> list[str]:
        """Sids of the conferences that were read."""
        return [each.path.rsplit("/", 1)[1] for each in self.asked if each.path.startswith("/api/conferences/")]

    def answer(self, path: str) -> Stream | Answer:
        """What this request gets."""
        if path == "/api/stream":
            return self.answers.pop(0) if self.answers else Answer(401, {"status": 401, "message": "That was all."})
        found = self.documents.get(path.rsplit("/", 1)[1])
        if isinstance(found, list):
            found = found.pop(0)
        if found is None:
            return Answer(404, {"status": 404, "message": "No such conference is known here."})
        return found if isinstance(found, Answer) else Answer(200, found)


@contextmanager
def serving(*answers: Stream | Answer, documents: Mapping[str, Any] | None = None) -> Iterator[Server]:
    """A server on a port of its own."""
    script = Server(list(answers), documents or {})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            script.asked.append(Asked(self.path, self.headers["Last-Event-ID"], self.headers["Authorization"]))
            self.close_connection = True
            answer = script.answer(urlsplit(self.path).path)
            if isinstance(answer, Answer):
                self._whole(answer)
            else:
                self._stream(answer)

        def _whole(self, answer: Answer) -> None:
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, stream: Stream) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in [SOON, *(frame.bytes() for frame in stream.frames)]:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if stream.half:  # of a chunk as well
                self.wfile.write(b"%x\r\n%b" % (len(stream.half) + 100, stream.half))
            if stream.silent:
                self.rfile.read()  # until the client lets go

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = False
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        script.url = f"http://127.0.0.1:{http.server_port}"
        try:
            yield script
        finally:
            http.shutdown()
            thread.join()
