"""`/openapi.json`: what our own addresses take and answer, with schemas of the very types that answers are made of.

Those in Twilio's shapes are described in docs/openapi/twilio.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any, get_args

import msgspec
from flask import Blueprint, Response

from app.conference import Counts, Coverage, Header, Participant, Stay, Want, encode
from app.events import Action, Alert, Recording, Source, Status
from app.timeline import Lane, Mark, Span, Timeline
from app.web.access import COOKIE
from app.web.answers import json_bytes

Schema = dict[str, Any]

ENCODED = (Header, Participant, Stay, Counts, Coverage, Want, Alert, Recording, Action, Timeline, Lane, Span, Mark)
"""What answers are encoded from."""

INTEGER: Schema = {"type": "integer", "minimum": 0}
TEXT: Schema = {"type": "string"}
TIME: Schema = {"type": "string", "format": "date-time"}


def create() -> Blueprint:
    """`/openapi.json`; it needs no key."""
    openapi = Blueprint("openapi", __name__)
    shown = encode(described())

    @openapi.get("/openapi.json")
    def description() -> Response:
        return json_bytes(shown)

    return openapi


def described() -> Schema:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Offhook",
            "version": version("offhook"),
            "description": "Who is in which Twilio conference, and how they are. Times are UTC, durations are seconds, "
            "and null is what nobody has told. A parameter that an address does not have is an error. "
            "The addresses in Twilio's own shapes have a description of their own.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"basic": []}, {"session": []}],
        "paths": PATHS,
        "components": {
            "schemas": {**_encoded(), **SCHEMAS},
            "parameters": PARAMETERS,
            "responses": {f"Failure{code}": _answer(text, _ref("Failure")) for code, text in FAILURES.items()},
            "securitySchemes": {
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "AccountSid and Auth Token, or the name and secret of one of Offhook's keys.",
                },
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "From POST /session."},
            },
        },
    }


def _encoded() -> dict[str, Schema]:
    """The schemas of `ENCODED`, of which every field is always there unless its type leaves defaults out."""
    _, schemas = msgspec.json.schema_components(ENCODED, ref_template="#/components/schemas/{name}")
    for each in ENCODED:
        schema = schemas[each.__name__]
        for field in msgspec.structs.fields(each):
            shown = schema["properties"][field.encode_name]
            shown.pop("default", None)  # nobody sends these: there is nothing to leave out
            if datetime in (field.type, *get_args(field.type)):
                [text] = [one for one in shown.get("anyOf", [shown]) if one.get("type") == "string"]
                text["format"] = "date-time"
        if not each.__struct_config__.omit_defaults:
            schema["required"] = list(schema["properties"])
    return schemas


def _ref(name: str, kind: str = "schemas") -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(properties: Mapping[str, Schema], optional: tuple[str, ...] = (), **more: Any) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, **more}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _answer(text: str, schema: Schema | None = None, media: str = "application/json") -> Schema:
    return {"description": text} if schema is None else {"description": text, "content": {media: {"schema": schema}}}


def _asking(name: str, schema: Schema, text: str = "") -> Schema:
    return {"name": name, "in": "query", "schema": schema, **({"description": text} if text else {})}


def _operation(
    summary: str,
    answers: Mapping[int, Schema],
    failures: tuple[int, ...] = (),
    parameters: tuple[Schema, ...] = (),
    *,
    key: bool = True,
    **more: Any,
) -> Schema:
    """What one method of an address does. `failures` are answered as all of them are."""
    refusals = {status: _ref(f"Failure{status}", "responses") for status in failures}
    responses = {str(status): each for status, each in {**answers, **refusals}.items()}
    operation: Schema = {"summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = list(parameters)
    return operation | ({} if key else {"security": []}) | more


FAILURES = {
    400: "What was sent cannot be used; `message` says why.",
    401: "Not signed in, or the name or the secret is wrong.",
    403: "A browser sent this from another site's page, or does not say from which.",
    404: "Not known here, or not to this key.",
    409: "It cannot be done as Offhook is set; `message` says why.",
    413: "The body is larger than 64 KiB.",
    415: "The body is of another media type.",
    503: "Redis does not answer, or cannot.",
}

PARAMETERS = {
    "Sid": {
        "name": "sid",
        "in": "path",
        "required": True,
        "description": "The conference's.",
        "schema": _ref("ConferenceSid"),
    },
    "Limit": _asking("limit", {"type": "integer", "minimum": 1, "maximum": 999_999}, "More than 500 is taken as 500."),
}

SCHEMAS: dict[str, Schema] = {
    "ConferenceSid": {"type": "string", "pattern": "^CF[0-9a-fA-F]{32}$"},
    "AccountSid": {"type": "string", "pattern": "^AC[0-9a-fA-F]{32}$"},
    "Failure": _object({"status": INTEGER, "message": TEXT}),
    "Conference": {
        "description": "A conference with everyone who is or was in it.",
        "allOf": [_ref("Header"), _object({"participants": _list(_ref("Participant"))})],
    },
    "Conferences": _object(
        {"conferences": _list({"anyOf": [_ref("Conference"), _ref("Header")]}), "next": _or_null(TEXT)}
    ),
    "LoggedCallback": _object(
        {
            "number": INTEGER,
            "type": _or_null(TEXT),
            "source": {"enum": [*get_args(Source), None]},
            "sequence": _or_null(INTEGER),
            "at": _or_null(TIME),
            "call_sid": _or_null(TEXT),
            "received_at": TIME,
            "verified_by": TEXT,
            "parameters": {"type": "object"},
        }
    ),
    "LoggedCallbacks": _object({"events": _list(_ref("LoggedCallback")), "next": _or_null(TEXT)}),
    "Picture": {
        "description": "A timeline, the document's revision that it shows, and of how many callbacks it was made.",
        "allOf": [_ref("Timeline"), _object({"revision": INTEGER, "events": INTEGER})],
    },
    "DeadLetter": _object(
        {
            "reason": TEXT,
            "received_at": TIME,
            "set_aside_at": TIME,
            "set_aside_by": TEXT,
            "parameters": {"type": ["object", "string"]},
        }
    ),
    "StandingAlert": {
        "description": "An alert that stands, and the conference that it is about.",
        "allOf": [
            _ref("Alert"),
            _object(
                {
                    "conference_sid": _ref("ConferenceSid"),
                    "account_sid": _ref("AccountSid"),
                    "friendly_name": _or_null(TEXT),
                }
            ),
        ],
    },
    "Alerts": _object({"alerts": _list(_ref("StandingAlert")), "more": {"type": "boolean"}}),
    "Stats": _object(
        {
            "conferences": _object(dict.fromkeys(get_args(Status), INTEGER)),
            "callbacks": _object(
                {
                    **dict.fromkeys(("folded", "noted", "repeated", "dead_letters", "waiting"), INTEGER),
                    "oldest_waiting_seconds": _or_null({"type": "number"}),
                    "refused": {"type": "object", "additionalProperties": INTEGER},
                }
            ),
            "twilio": _object(
                {
                    "requests": {"type": "object", "additionalProperties": INTEGER},
                    "looks": {"type": "object", "additionalProperties": INTEGER},
                },
                description="Our own requests to Twilio's REST API by what became of them, and looks by their reason.",
            ),
            "gaps": _object({"missing": INTEGER, "looks": INTEGER, "fruitful": INTEGER}),
            "deliveries": _object(dict.fromkeys(("waiting", "delivered", "given_up"), INTEGER)),
            "shards": _list(_object({"waiting": INTEGER, "leased": {"type": "boolean"}})),
            "dead_letters": _list(_ref("DeadLetter")),
        },
        optional=("dead_letters",),
    ),
    "Snapshot": _object(
        {"conferences": _list(_ref("Conference")), "more": {"type": "boolean"}, "at": TIME},
        description="The data of an event `snapshot`: what is true now. Replace what you hold.",
    ),
    "Change": _object(
        {
            "conference_sid": _ref("ConferenceSid"),
            "account_sid": _ref("AccountSid"),
            "epoch": TEXT,
            "revision": INTEGER,
            "events": _list(
                _object(
                    {
                        "type": TEXT,
                        "sequence": _or_null(INTEGER),
                        "at": _or_null(TIME),
                        "call_sid": _or_null(TEXT),
                        "text": TEXT,
                    },
                    optional=("text",),
                )
            ),
            "conference": _ref("Header"),
            "participants": _list(_ref("Participant")),
        },
        description="The data of an event `change`, with each participant that changed, whole. "
        "Leave out what is not newer than the revision you hold.",
    ),
    "Beat": _object(
        {"at": TIME, "behind": _or_null({"type": "number"})},
        description="The data of an event `beat`: you are up to date. `behind`: for how many seconds the oldest "
        "callback has been waiting; null while Redis does not answer.",
    ),
    "Reset": _object(
        {"reason": {"enum": ["gone", "slow", "malformed"]}},
        description="The data of an event `reset`: forget what you hold, a snapshot follows.",
    ),
    "SignIn": {
        "description": "A name with its secret, or the ticket of a link that signs in once.",
        **_object(
            dict.fromkeys(("name", "secret", "ticket"), TEXT),
            optional=("name", "secret", "ticket"),
            additionalProperties=False,
        ),
    },
}

PAGE = _answer("The page.", TEXT, "text/html")
LED_AWAY = _answer("A browser that is not signed in is led to /sign-in.", TEXT, "text/html")
STORED = _answer("Stored. A repeat is, too.")
UNSIGNED = _answer("Not signed by an account that is known here.")
CALLBACK = "For Twilio: a status callback, signed by X-Twilio-Signature."

PATHS: dict[str, Schema] = {
    "/api/conferences": {
        "get": _operation(
            "Conferences, the newest first",
            {200: _answer("A page of them. `next` is where the list goes on.", _ref("Conferences"))},
            (400, 401, 404, 503),
            (
                _asking("status", {"enum": list(get_args(Status))}),
                _asking("friendly_name", TEXT, "The whole name."),
                _asking("participant", TEXT, "Call sid or label of somebody who is or was in it."),
                _asking("account", _ref("AccountSid")),
                _ref("Limit", "parameters"),
                _asking(
                    "after", {"type": "string", "pattern": "^[0-9]{1,12}-CF[0-9a-fA-F]{32}$"}, "Take it from `next`."
                ),
                _asking("expand", {"const": "participants"}, "Whole documents."),
            ),
        )
    },
    "/api/conferences/{sid}": {
        "get": _operation(
            "One conference",
            {200: _answer("The conference.", _ref("Conference"))},
            (400, 401, 404, 503),
            (_ref("Sid", "parameters"),),
        )
    },
    "/api/conferences/{sid}/events": {
        "get": _operation(
            "Its callbacks in the order in which they came",
            {200: _answer("A page of them.", _ref("LoggedCallbacks"))},
            (400, 401, 404, 503),
            (
                _ref("Sid", "parameters"),
                _asking("after", {"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999}, "A `number`."),
                _ref("Limit", "parameters"),
            ),
        )
    },
    "/api/conferences/{sid}/timeline": {
        "get": _operation(
            "Who was in it from when until when, and how",
            {200: _answer("The timeline.", _ref("Picture"))},
            (400, 401, 404, 503),
            (_ref("Sid", "parameters"),),
        )
    },
    "/api/conferences/{sid}/reconcile": {
        "post": _operation(
            "Have it looked at once through Twilio's REST API",
            {
                202: _answer(
                    "It is due. What is seen joins the conference's log.",
                    _object({"conference_sid": _ref("ConferenceSid"), "due": {"const": True}}),
                )
            },
            (400, 401, 403, 404, 409, 503),
            (_ref("Sid", "parameters"),),
        )
    },
    "/api/alerts": {
        "get": _operation(
            "Alerts that stand, those that began last first",
            {200: _answer("They are. `more`: there are others than these.", _ref("Alerts"))},
            (400, 401, 404, 503),
            (_asking("account", _ref("AccountSid")), _ref("Limit", "parameters")),
        )
    },
    "/api/stats": {
        "get": _operation(
            "How the service stands",
            {200: _answer("The numbers. Dead letters are for keys that see all accounts.", _ref("Stats"))},
            (400, 401, 503),
        )
    },
    "/api/stream": {
        "get": _operation(
            "What is true now, then every change",
            {
                200: _answer(
                    "Server-Sent Events `snapshot`, `change`, `beat` and `reset`, with data as the schemas so named.",
                    TEXT,
                    "text/event-stream",
                )
            },
            (400, 401, 404, 503),
            (
                _asking("conference", _ref("ConferenceSid")),
                _asking("account", _ref("AccountSid")),
                _asking("last_event_id", TEXT, "For who cannot send the header Last-Event-ID."),
            ),
        )
    },
    "/healthz": {
        "get": _operation(
            "Whether this process is alive",
            {200: _answer("It is.", _object({"status": {"const": "alive"}}))},
            key=False,
        )
    },
    "/readyz": {
        "get": _operation(
            "Whether callbacks can be stored now",
            {
                200: _answer(
                    "They can. `degraded`: on a second line, or nobody folds them; `reasons` say which.",
                    _object(
                        {
                            "status": {"enum": ["ready", "degraded"]},
                            "reasons": {"type": "array", "items": {"type": "string"}},
                            "append_only_file": {"type": ["boolean", "null"]},
                            "durability": _object(
                                {
                                    "mode": {"type": "string"},
                                    "fsync": {"type": ["string", "null"]},
                                    "eviction": {"type": ["string", "null"]},
                                    "replicas": {"type": ["integer", "null"]},
                                }
                            ),
                            "spooled_bytes": {"type": "integer"},
                        }
                    ),
                )
            },
            (503,),
            key=False,
        )
    },
    "/metrics": {
        "get": _operation(
            "How the service stands, for Prometheus",
            {200: _answer("Metrics in its text format.", TEXT, "text/plain")},
            (400, 401, 503),
        )
    },
    "/openapi.json": {
        "get": _operation("This description", {200: _answer("It.", {"type": "object"})}, key=False),
    },
    "/session": {
        "post": _operation(
            "Sign a browser in",
            {204: _answer("The session is in the cookie.")},
            (400, 401, 403, 413, 415, 503),
            key=False,
            requestBody={"required": True, "content": {"application/json": {"schema": _ref("SignIn")}}},
        ),
        "delete": _operation(
            "Sign it out", {204: _answer("The session has ended, if there was one.")}, (403, 503), key=False
        ),
    },
    "/sign-in": {
        "get": _operation(
            "Where a browser signs in",
            {200: PAGE},
            parameters=(_asking("next", TEXT, "The path of ours to go to afterwards."),),
            key=False,
        )
    },
    "/": {"get": _operation("The dashboard", {200: PAGE, 303: LED_AWAY}, (401, 503))},
    "/conferences/{sid}": {
        "get": _operation("A conference's page", {200: PAGE, 303: LED_AWAY}, (401, 503), (_ref("Sid", "parameters"),))
    },
    "/webhooks/twilio": {
        "post": _operation(
            CALLBACK,
            {204: STORED, 403: UNSIGNED},
            (400, 413, 415, 503),
            key=False,
            requestBody={
                "required": True,
                "content": {
                    "application/x-www-form-urlencoded": {"schema": _object({"AccountSid": _ref("AccountSid")})}
                },
            },
        ),
        "get": _operation(CALLBACK, {204: STORED, 403: UNSIGNED}, (400, 503), key=False),
    },
}
