"""Whatever people, rooms and URLs are called comes out everywhere as it went in, and gets into nothing else."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import pytest
from structlog.testing import capture_logs

from app.twilio.callbacks import LONGEST_TEXT
from app.web import FANOUT
from tests.cast import ACCOUNT, progress, said
from tests.sse import Frame, frames
from tests.web.conftest import OPERATOR, STEERER, Site, room
from tests.web.hostile import STRINGS

KEY = re.compile(
    r"offhook:(shards|rules|refused|probe|(promise|session|ticket):[0-9a-f]{32,64}|\{\d+\}:(inbox|woken|lease|trial|newest|epoch|index|pending"
    r"|looks|gaps|timers|alerts|outbox|deliveries:[0-9a-f]{16}|messages|undelivered|told|changes|counters|dead|(conference|log|ids):CF[0-9a-fA-F]{32}|call:CA[0-9a-fA-F]{32}))"
)
"""Every name that a key in Redis may have."""


def call(number: int) -> str:
    """The sid of the call in a room."""
    return f"CA{number:032x}"


def whole_story(number: int, text: str) -> list[dict[str, str]]:
    """A conference in which everything that is text says this."""
    sid, about = call(number), {"room": room(number), "FriendlyName": text}
    person = {"ParticipantLabel": text, "ParticipantCallStatus": text, "ReasonParticipantLeft": text, **about}
    end = {"ReasonConferenceEnded": text, "Reason": text, "ParticipantLabelEndingConference": text, **about}
    dialled = dict.fromkeys(("From", "To", "Direction", "AnsweredBy", "SipResponseCode", "CallerName"), text)
    recorded = {
        "RecordingSid": f"RE{number:032x}",
        "RecordingUrl": text,
        "RecordingSource": text,
        "RecordingStatus": text,
    }
    return [
        said("participant-join", sid, number=1, second=0, **person),
        said("participant-modify", sid, number=2, second=1, **person, Muted=text, Hold=text, Coaching=text),
        said("announcement-end", number=3, second=2, AnnounceUrl=text, ReasonAnnouncementFailed=text, **about),
        said(f"participant-{text[:100]}", sid, number=4, second=3, **about),
        said("participant-speech-start", sid, number=5, second=4, **about, **({text[:500]: text} if text else {})),
        progress(sid, "in-progress", number=0, second=0, **dialled),
        {"AccountSid": ACCOUNT, "ConferenceSid": room(number), **recorded},
        said("participant-leave", sid, number=6, second=5, **person),
        said("conference-end", number=7, second=6, **end),
    ]


@pytest.fixture
def told(site: Site) -> Iterator[Site]:
    """A conference for each of the strings, and the place in the feed where that began."""
    [*_, beat] = heard(site)
    site.beginning = beat.id  # type: ignore[attr-defined]
    with capture_logs():
        for number, text in enumerate([*STRINGS, "plain"]):
            site.tell(*whole_story(number, text))
            headers = {"Idempotency-Key": f"k{number}{text}"[:200].encode("ascii", "ignore").decode().translate(PLAIN)}
            label = quote(text[:100] or "x", safe="")
            path = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences/{room(number)}/Participants/{label}.json"
            site.http.post(path, auth=STEERER, data={"HoldUrl": text, text[:100]: text}, headers=headers)
        site.fold()
    yield site
    site.app.extensions[FANOUT].stopping = lambda: True
    for thread in threading.enumerate():
        if thread.name == "feed":
            thread.join(20)


PLAIN = dict.fromkeys(range(32))
"""Headers cannot hold these."""


def heard(site: Site, since: str = "") -> list[Frame]:
    """What a stream says until it is up to date."""
    answer = site.http.get(f"/api/stream?last_event_id={since}", auth=OPERATOR, buffered=False)
    told = []
    for frame in frames(answer.iter_encoded()):
        told.append(frame)
        if frame.name == "beat":
            break
    answer.close()
    return told


def shown(text: str) -> str | None:
    """How a document has a text."""
    return text[:LONGEST_TEXT] or None


def read(site: Site, path: str, status: int = 200) -> Any:
    """The JSON of an address, which is UTF-8."""
    answer = site.ask(path)
    assert answer.status_code == status, path
    assert answer.content_type == "application/json"
    return json.loads(answer.data.decode("utf-8"))


def test_our_own_json_has_every_text_as_it_was_told(told: Site) -> None:
    for number, text in enumerate(STRINGS):
        document = read(told, f"/api/conferences/{room(number)}")
        [participant] = document["participants"]
        assert document["friendly_name"] == document["reason_conference_ended"] == document["reason"] == shown(text)
        assert (
            participant["label"]
            == participant["reason_left"]
            == participant["from"]
            == participant["to"]
            == shown(text)
        )
        [recording] = document["recordings"]
        assert recording["url"] is None, "none of them is a URL"
        assert recording["source"] == recording["status"] == shown(text)
        events = read(told, f"/api/conferences/{room(number)}/events?limit=100")["events"]
        assert events[0]["parameters"]["FriendlyName"] == text
        read(told, f"/api/conferences/{room(number)}/timeline")
        if text:
            found = read(told, f"/api/conferences?{urlencode({'friendly_name': text[:LONGEST_TEXT]})}")
            assert room(number) in {each["sid"] for each in found["conferences"]}
    assert len(read(told, "/api/conferences?expand=participants&limit=500")["conferences"]) == len(STRINGS) + 1
    read(told, "/api/stats")


def test_twilios_json_and_xml_can_be_read_whatever_the_text(told: Site) -> None:
    below = f"/2010-04-01/Accounts/{ACCOUNT}/Conferences"
    paths = ("", "/Participants", "/Recordings")
    plain = {path: tags(told, f"{below}/{room(len(STRINGS))}{path}.xml") for path in paths}
    for number, text in enumerate(STRINGS):
        assert read(told, f"{below}/{room(number)}.json")["friendly_name"] == shown(text)
        for path in plain:
            assert tags(told, f"{below}/{room(number)}{path}.xml") == plain[path], "no text has become markup"
        read(told, f"/v1/Conferences/{room(number)}")
        read(told, f"/v1/Conferences/{room(number)}/Participants?Events=all")
        if text and text not in (".", ".."):
            label = quote(text[:LONGEST_TEXT], safe="")
            assert told.ask(f"{below}/{room(number)}/Participants/{label}.json").status_code == 200
    ElementTree.fromstring(told.ask(f"{below}.xml?PageSize=1000").data)
    ElementTree.fromstring(told.ask(f"{below}/{quote('<x>&]]>', safe='')}.xml").data)


def tags(told: Site, path: str) -> set[str]:
    """The elements of an address's XML, which is UTF-8."""
    answer = told.ask(path)
    assert answer.status_code == 200, path
    answer.data.decode("utf-8")
    return {element.tag for element in ElementTree.fromstring(answer.data).iter()}


def test_the_stream_has_whole_frames_whatever_the_text(told: Site) -> None:
    changes = [frame for frame in heard(told, told.beginning) if frame.name == "change"]  # type: ignore[attr-defined]
    names = {change.data["conference_sid"]: change.data["conference"]["friendly_name"] for change in changes}
    assert names == {room(number): shown(text) for number, text in enumerate([*STRINGS, "plain"])}
    assert "snapshot" in {frame.name for frame in heard(told)}


def test_no_text_gets_into_the_name_of_a_key_or_into_a_script(told: Site) -> None:
    names = [name.decode() for name in told.redis.scan_iter(count=1000)]
    assert len(names) > len(STRINGS) * 3
    assert [name for name in names if not KEY.fullmatch(name) and not name.startswith("rq:")] == []
    scripts = told.redis.info("memory")["number_of_cached_scripts"]
    told.tell(*whole_story(len(STRINGS) + 1, "redis.call('FLUSHALL')"))
    told.fold()
    assert told.redis.info("memory")["number_of_cached_scripts"] == scripts
