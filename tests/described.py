"""Holds answers of the Twilio-compatible endpoints to their description, docs/openapi/twilio.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.jsonschema import DRAFT202012

HOME = "urn:offhook:twilio"
TEXT = (Path(__file__).parents[1] / "docs/openapi/twilio.json").read_text()
DESCRIPTION = json.loads(TEXT.replace('"#/', f'"{HOME}#/'))
"""With absolute references, so that each schema in it stands by itself."""
FORMATS = FormatChecker(formats=())
MANY_SEGMENTS = {"CallSid", "ParticipantSid"}
"""Parameters that take a label, which may hold a slash, encoded or not."""


def check(method: str, path: str, status: int, body: bytes, content_type: str) -> None:
    """Raise AssertionError, saying what is wrong, unless this answer is as described.

    `path` is the request's, still percent-encoded; `.json` at its end and a query do not matter. A method that the
    description does not give to a known path must have been answered with 405.
    """
    template = _template(path.partition("?")[0])
    asked = f"{method} {template}"
    operation = DESCRIPTION["paths"][template].get(method.lower())
    if operation is None:
        assert status == 405, f"{asked} is not described, and was answered with {status} in place of 405"
        response = DESCRIPTION["components"]["responses"]["MethodNotAllowed"]
    else:
        described = operation["responses"]
        assert str(status) in described, f"{asked}: status {status} is not described, only {', '.join(described)}"
        response = resolve(described[str(status)])
    if "content" not in response:
        assert body == b"", f"{asked}: an answer {status} has no body, and this one has {len(body)} bytes"
        return
    media = content_type.partition(";")[0].strip().lower()
    assert media in response["content"], f"{asked}, {status}: content type {content_type!r}, not application/json"
    try:
        value = msgspec.json.decode(body)
    except ValueError as unreadable:
        raise AssertionError(f"{asked}, {status}: the body is not JSON: {unreadable}") from unreadable
    validator = Validator(response["content"][media]["schema"], registry=REGISTRY, format_checker=FORMATS)
    wrong = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    assert not wrong, f"{asked}, {status}: " + "; ".join(wrong)


def _template(path: str) -> str:
    for template in DESCRIPTION["paths"]:
        if re.fullmatch(_pattern(template), path, re.DOTALL):
            return str(template)
    raise AssertionError(f"no described path is like {path}")


def _pattern(template: str) -> str:
    """A regular expression for the paths of a template. Whoever asks may leave `.json` away."""
    stem, dot_json, _ = template.partition(".json")
    parts = re.split(r"\{(\w+)\}", stem)
    names = (".+?" if name in MANY_SEGMENTS else "[^/]+?" for name in parts[1::2])
    literals = (re.escape(part) for part in parts[2::2])
    rest = "".join(name + literal for name, literal in zip(names, literals, strict=True))
    return re.escape(parts[0]) + rest + (r"(\.json)?" if dot_json else "")


def resolve(value: dict[str, Any]) -> Any:
    """A part of the description, or what it refers to."""
    return REGISTRY.resolver().lookup(value["$ref"]).contents if "$ref" in value else value


def _matches(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    """`pattern` as JSON Schema means it: unlike Python's, its `$` is no place before a line feed."""
    if isinstance(value, str) and not re.search(pattern.removesuffix("$") + r"\Z", value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


@FORMATS.checks("date-time-rfc-2822", raises=(ValueError, OverflowError))
def _is_a_date_of_twilios(value: Any) -> bool:
    """Whether it is a day that there was, with its own day of the week."""
    return not isinstance(value, str) or format_datetime(parsedate_to_datetime(value)) == value


@FORMATS.checks("date-time", raises=ValueError)
def _is_a_time(value: Any) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


REGISTRY = Registry().with_resource(HOME, DRAFT202012.create_resource(DESCRIPTION))
Validator = extend(Draft202012Validator, {"pattern": _matches})
