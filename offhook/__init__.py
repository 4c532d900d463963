"""Follow Twilio conferences as they change, from a program of your own: the client of Offhook's `/api/stream`.

    from offhook import follow

    with follow("https://offhook.example.com", ("name", "secret")) as live:
        for change in live:
            print(change.conference["friendly_name"], [event["type"] for event in change.events])

The loop goes on for ever: lost connections are made again and taken up where they broke off. It needs the standard
library only. Certificates are checked against the system's, or those that the variable SSL_CERT_FILE names.
"""

from __future__ import annotations

import json
import logging
import random
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Literal, Self
from urllib.parse import urlencode, urlsplit

__all__ = ["Change", "Document", "Live", "Refused", "State", "follow"]

Document = dict[str, Any]
"""A conference as `GET /api/conferences/{sid}` shows it. Never changed in place: each change makes another."""
State = Literal["connecting", "live", "lost"]

SILENCE = 25.0
"""Seconds without a word after which a connection is dead; Offhook says something every ten."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before a lost connection is made again, until the server has said otherwise; and at most."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds. A `Retry-After` beyond that is somebody's mistake."""
SET_ASIDE = 200
"""How many conferences that have ended are remembered: callbacks of theirs may still come."""

log = logging.getLogger("offhook")


class Refused(Exception):
    """The server will not let this client follow, and asking again would not help. `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Offhook answered {status}: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """One change of one conference."""

    conference: Document
    """The whole document as it is now."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """What happened: `type`, `sequence`, `at`, `call_sid` of each callback, `text` of looks and alerts. Empty where
    only the outcome is known."""
    message: dict[str, Any] | None = None
    """The message that told it, to be passed on as it came; None where only the outcome is known."""
    gone: bool = False
    """Offhook does not know this conference any more: it was emptied. `conference` is what was known last."""

    def __repr__(self) -> str:
        kinds = ", ".join(event["type"] for event in self.events)
        return f"<Change {self.conference['sid']} revision {self.conference['revision']}: {kinds or 'read'}>"


def follow(
    url: str,
    key: tuple[str, str],
    *,
    conference: str | None = None,
    account: str | None = None,
    silence: float = SILENCE,
) -> Live:
    """Follow all conferences that this key may see, or those of one account, or one conference by its sid.

    `url` is where Offhook is, without `/api`. `key` is name and secret of an API key, or AccountSid and Auth Token.
    After `silence` seconds without a word a connection is taken for dead. Raises ValueError for a URL that cannot be
    used; nothing is sent before the first change is asked for.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or parts.query:
        raise ValueError("the URL is not one of an Offhook: give it as https://offhook.example.com")
    if "@" in parts.netloc:
        raise ValueError("the URL holds a name or a secret: give them as the second argument, where no log shows them")
    if ":" in key[0]:
        raise ValueError("the key's name holds a colon: give name and secret apart")
    query = {"conference": conference, "account": account}
    return Live(
        url.rstrip("/"),
        f"Basic {b64encode(':'.join(key).encode()).decode()}",
        {name: value for name, value in query.items() if value is not None},
        silence,
    )


class Live:
    """Changes as they come, and what is true now. Made by `follow`; belongs to the thread that iterates over it.

    Iterating yields a `Change` for each message, every revision of a conference once and in order. A snapshot, with
    which following begins, yields one for each conference that is not as it was held. The server asks for another
    snapshot (`reset`) when it cannot continue where a connection broke off: revisions between the two are skipped then,
    and one may come twice. What a snapshot no longer lists is read, and yielded if it has ended.

    Ends only when it is closed. Raises `Refused` for 400, 401, 403, 404 and whatever else will not pass by itself, and
    ssl.SSLCertVerificationError.
    """

    def __init__(self, url: str, authorization: str, query: dict[str, str], silence: float) -> None:
        self.state: State = "connecting"
        """`live`: all that Offhook can tell has been yielded, or soon is (see `behind`). `lost`: trying again."""
        self.behind: float | None = None
        """Age in seconds of the oldest callback that is stored but not yet told, a few seconds ago. None: unknown."""
        self._url = url
        self._authorization = authorization
        self._query = query
        self._silence = silence
        self._held = _Held(self._document, ended="conference" in query)
        self._last_id = b""
        self._retry = FIRST_WAIT
        self._failures = 0
        self._sockets: list[socket.socket] = []
        self._closed = threading.Event()
        self._changes = self._follow()

    @property
    def conferences(self) -> dict[str, Document]:
        """Every conference that goes on, by sid; one that was asked for by its sid is here after its end as well.

        Of more than a snapshot holds (1,000 in progress), the others come with their next change.
        """
        return self._held.live

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change:
        return next(self._changes)

    def __repr__(self) -> str:
        return f"<Live {self._url}: {self.state}, {len(self.conferences)} conferences>"

    def close(self) -> None:
        """Let go. Any thread may call this; one that waits for the next change finds the end of the loop."""
        self._closed.set()
        for each in self._sockets[:]:
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)  # TLS's own would upset the thread that reads
        with suppress(ValueError):  # another thread is in it, and about to leave
            self._changes.close()

    def _follow(self) -> Generator[Change]:
        while not self._closed.is_set():
            try:
                for frame in self._frames():
                    yield from self._told(frame)
                    self._last_id = frame.get(b"id", self._last_id)
                raise ConnectionResetError("the server has ended the stream")
            except ssl.SSLCertVerificationError:
                raise
            except (OSError, HTTPException) as error:
                self._wait_after(error)

    def _frames(self) -> Iterator[dict[bytes, bytes]]:
        headers: dict[str, str | bytes] = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        query = urlencode(self._query)
        with self._answer(f"/api/stream?{query}" if query else "/api/stream", headers) as answer:
            if answer.headers.get_content_type() != "text/event-stream":
                raise Refused(answer.status, "but not with a stream. Is there an Offhook at this URL?")
            yield from _parsed(answer)

    def _told(self, frame: dict[bytes, bytes]) -> Iterable[Change]:
        """What a frame changes."""
        if frame.get(b"retry", b"").isdigit():
            self._retry = min(int(frame[b"retry"]) / 1000, LONGEST_WAIT)
        if b"data" not in frame:
            return []
        self._failures = 0
        data = json.loads(frame[b"data"])
        match frame.get(b"event"):
            case b"snapshot":
                return self._held.replace(data["conferences"])
            case b"change":
                return self._held.change(data)
            case b"reset":
                self._held.forget()
            case b"beat":
                self.state, self.behind = "live", data["behind"]
        return []

    def _document(self, sid: str) -> Document | None:
        """Read a conference; None where it is not known."""
        try:
            with self._answer(f"/api/conferences/{sid}", {"Accept": "application/json"}) as answer:
                document: Document = json.loads(answer.read())
                return document
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    @contextmanager
    def _answer(self, path: str, headers: dict[str, str | bytes]) -> Iterator[HTTPResponse]:
        """A 200. Raises `Refused`, OSError or HTTPException for anything else."""
        parts = urlsplit(self._url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        with closing(kind(parts.netloc, timeout=self._silence)) as connection:
            connection.connect()
            self._sockets.append(connection.sock)
            try:
                if self._closed.is_set():
                    raise ConnectionAbortedError("closed")
                connection.request("GET", parts.path + path, headers={**headers, "Authorization": self._authorization})
                with closing(connection.getresponse()) as answer:
                    _check(answer)
                    yield answer
            finally:
                self._sockets.pop()

    def _wait_after(self, error: Exception) -> None:
        if self._closed.is_set():
            return
        self.state, self.behind = "lost", None
        most = min(self._retry * 2 ** min(self._failures, 10), LONGEST_WAIT)
        wait = random.uniform(max(self._retry, most / 2), most)  # noqa: S311 - so that not all come back at once
        if isinstance(error, _Unavailable):
            wait = max(wait, error.retry_after)
        self._failures += 1
        log.warning("%s: no stream (%s: %s); again in %.1f s", self._url, type(error).__name__, error, wait)
        self._closed.wait(wait)


class _Unavailable(ConnectionError):
    """The server cannot serve now, and says for how many seconds at least."""

    def __init__(self, status: int, message: str, retry_after: float) -> None:
        super().__init__(f"{status}, {message}")
        self.retry_after = retry_after


def _check(answer: HTTPResponse) -> None:
    """Raises `_Unavailable` for what passes by itself, `Refused` for what does not."""
    if answer.status == 200:
        return
    try:
        message = str(json.loads(answer.read(65536))["message"])
    except (ValueError, TypeError, KeyError):
        redirects = 300 <= answer.status < 400
        message = "it redirects; give the URL that it redirects to." if redirects else answer.reason or "no reason."
    if answer.status >= 500 or answer.status in (408, 429):
        seconds = answer.getheader("Retry-After", "")
        raise _Unavailable(answer.status, message, min(float(seconds), LONGEST_RETRY_AFTER) if seconds.isdigit() else 0)
    raise Refused(answer.status, message)


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[bytes, bytes]]:
    """Frames of Server-Sent Events, by field. Each counts when its blank line has come: half a frame never does.

    Offhook writes every field on one line.
    """
    frame: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.rstrip(b"\r\n").partition(b":")
        if name:
            frame[name] = value.removeprefix(b" ")
        elif not value and frame:
            yield frame
            frame = {}


class _Held:
    """The documents that a client holds, and the rule by which messages change them."""

    def __init__(self, read: Callable[[str], Document | None], *, ended: bool) -> None:
        """`read` gets a document from the server, None where it is not known. `ended` ones are held as live, or not."""
        self.live: dict[str, Document] = {}
        self._aside: dict[str, Document] = {}
        """Those that have ended, the latest last: what still comes of them needs no reading."""
        self._epochs: dict[str, str] = {}
        """Of those whose latest change was told by a message."""
        self._read = read
        self._ended = ended

    def forget(self) -> None:
        """A snapshot follows, perhaps of another life of the server's Redis."""
        self._aside.clear()
        self._epochs.clear()

    def replace(self, documents: list[Document]) -> list[Change]:
        """Take a snapshot for what is live."""
        listed = {document["sid"]: document for document in documents}
        unlisted = {sid: self._read(sid) for sid in self.live if sid not in listed}
        before = self._aside | self.live
        self.live.clear()
        changes = []
        for sid, document in unlisted.items():
            self._drop(sid)
            if document is None:
                changes.append(Change(before[sid], gone=True))
            elif document["status"] == "completed":
                self._set_aside(document)
                changes.append(Change(document))
        for sid, document in listed.items():
            self._hold(document)
            if document != before.get(sid):
                changes.append(Change(document))
        return changes

    def change(self, message: dict[str, Any]) -> list[Change]:
        """Merge a message into what is held of its conference, or read that if it does not follow on it."""
        sid, revision, epoch = message["conference_sid"], message["revision"], message["epoch"]
        before = held = self.live.get(sid) or self._aside.get(sid)
        if self._epochs.get(sid, epoch) != epoch:
            held = None
        known = held["revision"] if held else 0
        if revision <= known:
            return []
        document = _merged(held, message) if revision == known + 1 else self._read(sid)
        if document is None:
            self._drop(sid)
            return [Change(before, gone=True)] if before else []
        if document["revision"] <= known:
            return []
        self._hold(document)
        self._epochs[sid] = epoch
        return [Change(document, message["events"], message)]

    def _hold(self, document: Document) -> None:
        sid = document["sid"]
        if self._ended or document["status"] != "completed":
            self._aside.pop(sid, None)
            self.live[sid] = document
        else:
            self.live.pop(sid, None)
            self._set_aside(document)

    def _set_aside(self, document: Document) -> None:
        self._aside.pop(document["sid"], None)
        self._aside[document["sid"]] = document
        if len(self._aside) > SET_ASIDE:
            self._drop(next(iter(self._aside)))

    def _drop(self, sid: str) -> None:
        for held in (self.live, self._aside, self._epochs):
            held.pop(sid, None)


def _merged(held: Document | None, message: dict[str, Any]) -> Document:
    """The document after a message: another header, the participants that are listed replaced, the others as before."""
    people = {each["call_sid"]: each for each in [*(held["participants"] if held else []), *message["participants"]]}
    return {**message["conference"], "participants": sorted(people.values(), key=_seniority)}


def _seniority(participant: dict[str, Any]) -> tuple[bool, str, str]:
    created = participant["created_at"]
    return created is None, (created or "").removesuffix("Z"), participant["call_sid"]
