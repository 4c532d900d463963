"""/openapi.json tells the truth: every address is in it, and whatever is asked, answers are as it says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from structlog.testing import capture_logs

from app.web import FANOUT, failures, webhook
from app.web.openapi import ENCODED, described
from tests import described as twilios
from tests.cast import ACCOUNT, ANNA, BEN, ROOM, progress, said
from tests.web.conftest import OPERATOR, OWNER, Site
from tests.web.hostile import CASES

DESCRIPTION = json.loads(json.dumps(described()))
OPERATIONS = [(method.upper(), path) for path, methods in DESCRIPTION["paths"].items() for method in methods]
QUESTIONS = [
    (mode, method, path)
    for method, path in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE
    or {"parameters", "requestBody"} & set(DESCRIPTION["paths"][path][method.lower()])
]
"""Of what takes nothing there is nothing to spoil."""
OURS, TWILIOS = map(schemathesis.openapi.from_dict, (DESCRIPTION, json.loads(twilios.TEXT)))
TWILIOS_READS = [path for path, methods in twilios.DESCRIPTION["paths"].items() if "get" in methods]
KNOWN = {"sid": ROOM, "Sid": ROOM, "ConferenceSid": ROOM, "AccountSid": ACCOUNT, "CallSid": ANNA}
"""Most of what is made up is not there."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture
def met(site: Site) -> Site:
    """A conference of which every part of a document has been told, and a letter that nobody could read."""
    site.tell(
        said("conference-start", number=1, second=0),
        said("participant-join", ANNA, number=2, second=0),
        said("participant-join", BEN, number=3, second=1),
        said("participant-speech-start", BEN, number=4, second=2),
        said("participant-leave", ANNA, number=6, second=5, ReasonParticipantLeft="participant_hung_up"),
        said("announcement-end", number=7, second=6, AnnounceUrl="https://example.com/a.mp3"),
        progress(BEN, "in-progress", number=0, second=0),
        {
            "AccountSid": ACCOUNT,
            "ConferenceSid": ROOM,
            "RecordingSid": "RE" + "4" * 32,
            "RecordingStatus": "completed",
            "RecordingDuration": "7",
            "RecordingStartTime": "Sun, 22 Nov 2026 12:00:03 +0000",
        },
        said("participant-join", "no sid", number=8, second=7),
    )
    site.fold()
    site.app.extensions[FANOUT].stopping = lambda: True  # a stream would never end
    return site


def test_it_is_a_description_that_tools_can_read(site: Site) -> None:
    answer = site.ask("/openapi.json", None)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.get_json() == DESCRIPTION
    assert DESCRIPTION["openapi"].startswith("3.1")
    for schema in DESCRIPTION["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    words = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DESCRIPTION))
    assert words
    for word in words:
        found: Any = DESCRIPTION
        for step in word.split("/"):
            found = found[step]


def test_every_address_of_ours_is_described_and_every_description_is_served(site: Site) -> None:
    served = {(method, webhook.PATH) for method in ("GET", "POST")}  # ahead of Flask, which has no rule for it
    for rule in site.app.url_map.iter_rules():
        if not rule.rule.startswith((*failures.TWILIOS, "/static")):
            path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
            served |= {(method, path) for method in (rule.methods or ()) - {"HEAD", "OPTIONS"}}
    assert served == set(OPERATIONS)


def test_every_part_of_an_answer_has_its_schema_and_no_part_is_left_out() -> None:
    schemas = DESCRIPTION["components"]["schemas"]
    for each in ENCODED:
        schema = schemas[each.__name__]
        assert schema["properties"], each
        assert each.__struct_config__.omit_defaults or set(schema["required"]) == set(schema["properties"])
    text = json.dumps(DESCRIPTION)
    assert all(
        f"#/components/schemas/{name}" in text
        for name in schemas
        if name not in ("Snapshot", "Change", "Beat", "Reset")
    )


@pytest.mark.parametrize(("mode", "method", "path"), QUESTIONS)
def test_whatever_is_asked_the_answer_is_as_described(met: Site, mode: GenerationMode, method: str, path: str) -> None:
    ask_whatever(met, OURS, mode, method, path)


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("path", TWILIOS_READS)
def test_whatever_is_read_at_twilios_addresses_the_answer_is_as_described(
    met: Site, mode: GenerationMode, path: str
) -> None:
    ask_whatever(met, TWILIOS, mode, "GET", path)


def ask_whatever(met: Site, description: BaseSchema, mode: GenerationMode, method: str, path: str) -> None:
    """Ask with what fits the description, or with what does not. Raises schemathesis' own failures."""
    operation = description[path][method]
    operation.app = met.app

    @given(operation.as_strategy(generation_mode=mode), st.sampled_from([OPERATOR, OWNER, None]), st.booleans())
    @settings(
        max_examples=max(15, CASES // 500),
        deadline=None,  # no test is timed
        database=None,
        suppress_health_check=list(HealthCheck),  # making up what does not fit takes some tries
    )
    def ask(case: Case, who: tuple[str, str] | None, known: bool) -> None:
        for name in set(KNOWN) & set(case.path_parameters) if known else ():
            case.path_parameters[name] = KNOWN[name]
        key = {"auth": who} if who else {}
        with capture_logs():
            case.validate_response(case.call(headers={"Sec-Fetch-Site": "same-origin"}, **key), checks=CHECKS)

    ask()
