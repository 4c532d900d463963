"""While a deployment goes on, and until its next callback, a conference is read as a past fold has left it."""

from __future__ import annotations

import json

import pytest

from tests import golden
from tests.cast import ACCOUNT, ANNA
from tests.golden import Golden
from tests.golden.rolled import stored
from tests.web.conftest import OWNER, Site, asked

VERSIONS = golden.versions()
STORIES = [pytest.param(n, story, id=f"{n}-{story.name}") for n in VERSIONS for story in golden.golden(n)]
TWILIOS = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences"


@pytest.mark.parametrize(("version", "story"), STORIES)
def test_a_document_of_any_version_is_served(site: Site, version: int, story: Golden) -> None:
    stored(site.redis, version, story)
    people = [json.loads(each) for each in story.participants]
    assert site.ask(f"/api/conferences/{story.sid}").data == story.document
    events = site.told(f"/api/conferences/{story.sid}/events?limit=500")["events"]
    assert len(events) == len(story.log)
    assert site.told(f"/api/conferences/{story.sid}/timeline")["revision"] == len(story.log)
    assert asked(site, f"{TWILIOS}/{story.sid}.json", who=OWNER)["sid"] == story.sid
    asked(site, f"{TWILIOS}/{story.sid}/Recordings.json", who=OWNER)
    listed = asked(site, f"{TWILIOS}/{story.sid}/Participants.json", who=OWNER)["participants"]
    assert {each["call_sid"] for each in listed} <= {each["call_sid"] for each in people}
    asked(site, f"/v1/Conferences/{story.sid}", who=OWNER)
    summaries = asked(site, f"/v1/Conferences/{story.sid}/Participants", who=OWNER)["participants"]
    assert {each["call_sid"] for each in summaries} == {each["call_sid"] for each in people}


@pytest.mark.parametrize("version", VERSIONS)
def test_documents_of_any_version_are_listed(site: Site, version: int) -> None:
    told = golden.golden(version)
    for story in told:
        stored(site.redis, version, story)
    sids = {story.sid for story in told}
    listed = site.told("/api/conferences?expand=participants&limit=500")["conferences"]
    assert sorted(map(json.dumps, listed)) == sorted(json.dumps(json.loads(story.document)) for story in told)
    assert {each["sid"] for each in asked(site, f"{TWILIOS}.json?PageSize=500", who=OWNER)["conferences"]} == sids
    assert {each["conference_sid"] for each in asked(site, "/v1/Conferences", who=OWNER)["conferences"]} == sids
    with_anna = {each["sid"] for each in site.told(f"/api/conferences?participant={ANNA}&limit=500")["conferences"]}
    assert with_anna == {story.sid for story in told if ANNA in story.fields}
