"""Twilio's REST API on an address of this machine: HTTP in front of an exchange, for who has no Twilio at hand.

What this module adds to the exchange is from Twilio's docs (API responses) and from its OpenAPI description:
authentication, envelopes and paging of lists, error bodies. Under `/double/` are addresses that only the
double has: what it has been asked so far, and faults to meet the next requests with.
"""

import base64
import socket
import threading
from collections import Counter, deque
from collections.abc import Mapping
from hmac import compare_digest
from http.client import responses
from time import sleep
from typing import Annotated, Any, Self
from urllib.parse import quote, urlencode
from uuid import uuid4

import msgspec
from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter
from werkzeug.serving import WSGIRequestHandler, make_server

from app.simulator.exchange import Exchange, Listing, Refusal

REQUESTS_KEPT = 1000

PAGE_SIZE, LARGEST_PAGE = 50, 1000

CODES = {400: 20001, 401: 20003, 403: 20003, 404: 20404, 405: 20004, 429: 20429}
"""Twilio's code by the HTTP status of an error that has no more special one; 20500 for the rest."""

MESSAGES = {401: "Authenticate", 405: "Method not allowed", 429: "Too Many Requests"}


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the next `times` API requests meet. Nothing is done for one that is answered with `status`.

    `delay` is in seconds, before anything else. What is to be ignored is answered as if it had been done.
    To hang up is to close the connection without an answer once it has been done.
    """

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    delay: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    ignore: bool = False
    hang_up: bool = False
    times: Annotated[int, msgspec.Meta(ge=0)] = 1


class _Faults:
    """The fault that has been set, and how often it is still to be met."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fault = Fault()
        self._left = 0

    def set(self, fault: Fault) -> None:
        with self._lock:
            self._fault, self._left = fault, fault.times

    def meet(self) -> Fault:
        with self._lock:
            if self._left == 0:
                return Fault()
            self._left -= 1
            return self._fault


class _Asked:
    """The API requests so far: all are counted, the newest are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        with self._lock:
            self._counts = Counter(GET=0, POST=0, DELETE=0)
            self._requests: deque[dict[str, Any]] = deque(maxlen=REQUESTS_KEPT)

    def note(self, asked: dict[str, Any]) -> None:
        with self._lock:
            self._counts[asked["method"]] += 1
            self._requests.append(asked)

    def shown(self) -> dict[str, Any]:
        with self._lock:
            return {"counts": dict(self._counts), "requests": list(self._requests)}


class _Greedy(BaseConverter):
    """A label or a name, which may hold slashes and begin with one."""

    regex = ".+"
    part_isolating = False


def create_app(exchange: Exchange, auth_token: str) -> Flask:
    """The WSGI app. Every address wants HTTP Basic with the exchange's account sid and `auth_token`."""
    app = Flask(__name__, static_folder=None)
    app.url_map.converters["greedy"] = _Greedy
    app.url_map.merge_slashes = False
    asked, faults = _Asked(), _Faults()
    _receive(app, exchange, auth_token, asked, faults)
    _answer(app)
    _serve_conferences(app)
    _serve_participants(app)
    _serve_recordings(app)
    _serve_controls(app, asked, faults)
    return app


def _receive(app: Flask, exchange: Exchange, auth_token: str, asked: _Asked, faults: _Faults) -> None:
    """What a request passes before its own function."""
    expected = b"Basic " + base64.b64encode(f"{exchange.account_sid}:{auth_token}".encode())

    @app.url_value_preprocessor
    def take_account(_: str | None, values: dict[str, Any] | None) -> None:
        g.account = (values or {}).pop("account", exchange.account_sid)

    @app.before_request
    def receive() -> Response | None:
        g.exchange, g.fault = exchange, Fault()
        is_api = not request.path.startswith("/double/")
        if is_api:
            asked.note(_as_asked())
        if not compare_digest(request.headers.get("Authorization", "").encode(), expected):
            return _error(401)
        if g.account != exchange.account_sid:
            return _error(404)
        if is_api:
            g.fault = faults.meet()
        sleep(g.fault.delay)
        if g.fault.ignore:
            g.exchange = exchange.pretence()
        return _error(g.fault.status) if g.fault.status else None


def _answer(app: Flask) -> None:
    """What every answer has, and what errors look like."""

    @app.after_request
    def finish(answer: Response) -> Response:
        answer.headers["Twilio-Request-Id"] = f"RQ{uuid4().hex}"
        answer.headers["Content-Type"] = "application/json;charset=utf-8"
        if g.fault.hang_up:
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer

    @app.errorhandler(Refusal)
    def refuse(refusal: Refusal) -> Response:
        return _error(refusal.status, refusal.code, str(refusal))

    @app.errorhandler(HTTPException)
    def misdirected(error: HTTPException) -> Response:
        return _error(error.code or 500)


def _serve_conferences(app: Flask) -> None:
    base = "/2010-04-01/Accounts/<account>/Conferences"

    @app.get(f"{base}.json")
    def list_conferences() -> Response:
        return _page("conferences", g.exchange.list_conferences(request.args))

    @app.get(f"{base}/<greedy:sid>.json")
    def fetch_conference(sid: str) -> Response:
        return jsonify(g.exchange.fetch_conference(sid))

    @app.post(f"{base}/<greedy:sid>.json")
    def update_conference(sid: str) -> Response:
        return jsonify(g.exchange.update_conference(sid, _form()))


def _serve_participants(app: Flask) -> None:
    base = "/2010-04-01/Accounts/<account>/Conferences/<greedy:conference>/Participants"

    @app.get(f"{base}.json")
    def list_participants(conference: str) -> Response:
        return _page("participants", g.exchange.list_participants(conference, request.args))

    @app.post(f"{base}.json")
    def create_participant(conference: str) -> tuple[Response, int]:
        return jsonify(g.exchange.create_participant(conference, _form())), 201

    @app.get(f"{base}/<greedy:who>.json")
    def fetch_participant(conference: str, who: str) -> Response:
        return jsonify(g.exchange.fetch_participant(conference, who))

    @app.post(f"{base}/<greedy:who>.json")
    def update_participant(conference: str, who: str) -> Response:
        return jsonify(g.exchange.update_participant(conference, who, _form()))

    @app.delete(f"{base}/<greedy:who>.json")
    def delete_participant(conference: str, who: str) -> tuple[str, int]:
        g.exchange.delete_participant(conference, who)
        return "", 204


def _serve_recordings(app: Flask) -> None:
    base = "/2010-04-01/Accounts/<account>/Conferences/<greedy:conference>/Recordings"

    @app.get(f"{base}.json")
    def list_recordings(conference: str) -> Response:
        return _page("recordings", g.exchange.list_recordings(conference, request.args))

    @app.get(f"{base}/<sid>.json")
    def fetch_recording(conference: str, sid: str) -> Response:
        return jsonify(g.exchange.fetch_recording(conference, sid))

    @app.post(f"{base}/<sid>.json")
    def update_recording(conference: str, sid: str) -> Response:
        return jsonify(g.exchange.update_recording(conference, sid, _form()))

    @app.delete(f"{base}/<sid>.json")
    def delete_recording(conference: str, sid: str) -> tuple[str, int]:
        g.exchange.delete_recording(conference, sid)
        return "", 204


def _serve_controls(app: Flask, asked: _Asked, faults: _Faults) -> None:
    """The addresses that only the double has."""

    @app.get("/double/requests")
    def requests() -> Response:
        return jsonify(asked.shown())

    @app.delete("/double/requests")
    def forget_requests() -> tuple[str, int]:
        asked.forget()
        return "", 204

    @app.put("/double/faults")
    def set_fault() -> tuple[str, int]:
        faults.set(_read_fault(request.get_data()))
        return "", 204

    @app.delete("/double/faults")
    def clear_faults() -> tuple[str, int]:
        faults.set(Fault(times=0))
        return "", 204


def _read_fault(body: bytes) -> Fault:
    try:
        return msgspec.json.decode(body, type=Fault)
    except msgspec.DecodeError as error:
        raise Refusal(400, 20001, f"That is no fault: {error}") from error


def _as_asked() -> dict[str, Any]:
    """A request as it came: path and query are still percent-encoded."""
    path, _, query = request.environ["RAW_URI"].partition("?")
    return {
        "method": request.method,
        "path": path,
        "query": query,
        "parameters": [list(pair) for pair in request.form.items(multi=True)],
        "user_agent": request.headers.get("User-Agent", ""),
    }


def _form() -> Mapping[str, str]:
    """The form. SDKs repeat a name that has several values, Twilio's docs put spaces between them: the same here."""
    return {name: " ".join(values) for name, values in request.form.lists()}


def _page(name: str, listing: Listing) -> Response:
    """One page in Twilio's envelope. After the item of a token `PA…` comes the next page, before that of `PB…` came
    the previous one; the number of the page only counts.
    """
    size = min(max(request.args.get("PageSize", PAGE_SIZE, type=int), 1), LARGEST_PAGE)
    number = max(request.args.get("Page", 0, type=int), 0)
    token = request.args.get("PageToken")
    listed = [place for place, (_, each) in enumerate(listing) if each is not None]
    if token is None:
        shown = listed[:size]
    else:
        anchor = _place(listing, token)
        after, before = [n for n in listed if n > anchor], [n for n in listed if n < anchor]
        shown = after[:size] if token.startswith("PA") else before[-size:]
    follows = bool(shown) and shown[-1] != listed[-1]
    precedes = bool(shown) and shown[0] != listed[0]
    start = number * size if shown else 0
    body = {
        name: [listing[place][1] for place in shown],
        "first_page_uri": _page_uri(size, 0),
        "next_page_uri": _page_uri(size, number + 1, f"PA{listing[shown[-1]][0]}") if follows else None,
        "previous_page_uri": _page_uri(size, max(number - 1, 0), f"PB{listing[shown[0]][0]}") if precedes else None,
        "uri": _page_uri(size, number, token),
        "page": number,
        "page_size": size,
        "start": start,
        "end": start + max(len(shown) - 1, 0),
    }
    return jsonify(body)


def _place(listing: Listing, token: str) -> int:
    """Where in the whole list the item of a token stands."""
    for place, (sid, _) in enumerate(listing):
        if token in (f"PA{sid}", f"PB{sid}"):
            return place
    raise Refusal(400, 21481, "Invalid PageToken")


def _page_uri(size: int, number: int, token: str | None = None) -> str:
    """The request's filters first, then what makes the page; relative, as Twilio's are."""
    paging = {"PageSize": size, "Page": number} | ({"PageToken": token} if token else {})
    filters = [(name, value) for name, value in request.args.items(multi=True) if not name.startswith("Page")]
    return f"{request.path}?{urlencode([*filters, *paging.items()], quote_via=quote)}"


def _error(status: int, code: int | None = None, message: str | None = None) -> Response:
    """Twilio's error body."""
    code = code or CODES.get(status, 20500)
    if status == 404:
        message = f"The requested resource {request.path} was not found"
    answer = jsonify(
        code=code,
        message=message or MESSAGES.get(status, responses.get(status, "Error")),
        more_info=f"https://www.twilio.com/docs/errors/{code}",
        status=status,
    )
    answer.status_code = status
    if status == 401:
        answer.headers["WWW-Authenticate"] = 'Basic realm="Twilio API"'
    return answer


class _Quiet(WSGIRequestHandler):
    """Requests are kept, not logged."""

    def log(self, *_: object) -> None:
        """Say nothing."""


class Double:
    """The API on a port of 127.0.0.1, served from threads from its making until `close`; a context manager too."""

    def __init__(self, exchange: Exchange, auth_token: str, *, port: int = 0) -> None:
        """Port 0 is any free one. Raises OSError when the port cannot be had."""
        with socket.create_server(("127.0.0.1", port)) as listener:
            app = create_app(exchange, auth_token)
            self._server = make_server(
                "127.0.0.1", port, app, threaded=True, request_handler=_Quiet, fd=listener.fileno()
            )
        self.exchange = exchange
        self.url = f"http://127.0.0.1:{self._server.port}"
        """What TWILIO_API_BASE_URL, or an SDK's base URL, is to be."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="double", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
