"""The index holds, at every moment, exactly what the documents say it should: found by each question, and no other."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from app.conference import Header, Participant
from app.events import Callback, Status
from app.store import keys
from app.store.inbox import Inbox
from app.store.index import ANY, EVERYONE, LIVE, Place, bounds, entries_of, place_in, same_place
from app.store.snapshots import Snapshots
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, ROOM, at, callback, progress, said
from tests.conftest import SHARDS
from tests.workers.post import empty, post
from workers.drain import Drain

OTHER = "AC" + "9" * 32
OTHER_ROOM = "CF" + "c" * 32

words = st.one_of(
    st.none(),
    st.sampled_from(["anna", "Stand-up", "name", "call", "label", "", "*", "\0", "a\0b", "Zürich \U0001f600"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
statuses = st.sampled_from(get_args(Status))
times = st.one_of(
    st.none(),
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from([at(0), at(0.5), at(1), datetime(9999, 12, 31, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)]),
)
headers = st.builds(
    Header,
    sid=st.sampled_from([ROOM, OTHER_ROOM, "CF" + "0" * 32, "CF" + "f" * 32]),
    account_sid=st.sampled_from([ACCOUNT, OTHER]),
    friendly_name=words,
    status=statuses,
    created_at=times,
)
participants = st.lists(
    st.builds(Participant, call_sid=st.sampled_from([ANNA, BEN, CLEO]), label=words),
    max_size=3,
    unique_by=lambda participant: participant.call_sid,
)
Asked = tuple[str, str, str, str]
questions: st.SearchStrategy[Asked] = st.tuples(
    st.sampled_from([EVERYONE, ACCOUNT, OTHER]),
    st.sampled_from([ANY, *LIVE]),
    st.sampled_from(["", "name", "call", "label"]),
    words.map(lambda word: word or "") | st.sampled_from([ANNA, BEN]),
)


def between(entries: Iterable[bytes], lowest: bytes, highest: bytes) -> list[bytes]:
    """What ZRANGE BYLEX REV answers."""
    assert highest[:1] == b"("
    assert lowest[:1] in (b"(", b"[")
    found = (entry for entry in entries if lowest[1:] <= entry < highest[1:])
    return sorted((entry for entry in found if lowest != b"(" + entry), reverse=True)


def asked_about(header: Header, people: Iterable[Participant]) -> set[Asked]:
    """Every question that this conference answers."""
    asked: set[Asked] = set()
    for status in {ANY, header.status} - {"completed"}:
        asked |= {(account, status, "", "") for account in (EVERYONE, header.account_sid)}
        if header.friendly_name:
            asked |= {(account, status, "name", header.friendly_name) for account in (EVERYONE, header.account_sid)}
        for person in people:
            asked.add((EVERYONE, status, "call", person.call_sid))
            if person.label:
                asked.add((EVERYONE, status, "label", person.label))
    return asked


def seconds(header: Header) -> int:
    return 0 if header.created_at is None else max(0, int(header.created_at.timestamp()))


def test_the_index_knows_every_status() -> None:
    assert set(get_args(Status)) == {*LIVE, "completed"}


@given(headers, participants)
def test_a_conference_is_found_once_by_each_question_that_it_answers(header: Header, people: list[Participant]) -> None:
    entries = entries_of(header, people)
    asked = asked_about(header, people)
    assert len(entries) == len(asked)
    for question in asked:
        [entry] = between(entries, *bounds(*question))
        assert place_in(entry) == (seconds(header), header.sid)


@given(headers, participants, questions)
def test_a_conference_is_found_by_no_other_question(header: Header, people: list[Participant], asked: Asked) -> None:
    if asked not in asked_about(header, people):
        assert between(entries_of(header, people), *bounds(*asked)) == []


@given(st.lists(headers, max_size=12, unique_by=lambda header: header.sid), headers)
def test_a_place_parts_the_list_into_what_is_older_and_what_is_newer(listed: list[Header], other: Header) -> None:
    entries = {entry for header in listed for entry in entries_of(header, [])}
    for status in (ANY, *LIVE):
        everywhere = [place_in(entry) for entry in between(entries, *bounds(EVERYONE, status, "", ""))]
        assert everywhere == sorted(
            (Place(seconds(header), header.sid) for header in listed if status in (ANY, header.status)), reverse=True
        )
        cursor = Place(seconds(other), other.sid)
        older = between(entries, *bounds(EVERYONE, status, "", "", older_than=cursor))
        assert [place_in(entry) for entry in older] == [place for place in everywhere if place < cursor]
        newer = between(entries, *bounds(EVERYONE, status, "", "", newer_than=cursor))
        assert [place_in(entry) for entry in newer] == [place for place in everywhere if place > cursor]


@given(st.lists(headers, max_size=12, unique_by=lambda header: header.sid), headers, headers)
def test_a_span_of_time_has_those_created_in_it_its_ends_included(
    listed: list[Header], first: Header, last: Header
) -> None:
    entries = {entry for header in listed for entry in entries_of(header, [])}
    span = seconds(first), seconds(last)
    found = between(entries, *bounds(EVERYONE, ANY, "", "", created=span))
    expected = {header.sid for header in listed if span[0] <= seconds(header) <= span[1]}
    assert {place_in(entry).sid for entry in found} == expected


@given(headers, headers, participants)
def test_who_stays_in_the_same_place_keeps_its_participants_entries(
    before: Header, after: Header, people: list[Participant]
) -> None:
    if before.sid == after.sid and same_place(before, after):
        gone = entries_of(before, people) - entries_of(after, people)
        new = entries_of(after, people) - entries_of(before, people)
        assert gone <= entries_of(before, [])
        assert new <= entries_of(after, [])


@given(headers, participants)
def test_no_name_and_no_label_can_be_read_in_the_index(header: Header, people: list[Participant]) -> None:
    secrets = [word for word in (header.friendly_name, *(p.label for p in people)) if word and len(word) > 3]
    for entry in entries_of(header, people):
        assert not any(word.encode() in entry for word in secrets)


# Through real commits.

happenings = st.builds(
    lambda kind, call, number, second, room, more: callback(
        said(
            kind,
            call if kind.startswith("participant") else None,
            number=number,
            second=second,
            room=room,
            **more,
        )
    ),
    st.sampled_from(
        [
            *("participant-join", "participant-leave", "participant-mute", "participant-modify"),
            *("conference-start", "conference-end"),
        ]
    ),
    st.sampled_from([ANNA, BEN, CLEO]),
    st.one_of(st.none(), st.integers(1, 30)),
    st.integers(-30, 30),
    st.sampled_from([ROOM, OTHER_ROOM]),
    st.dictionaries(
        st.sampled_from(["FriendlyName", "ParticipantLabel", "Timestamp"]),
        st.sampled_from(["", "guest", "anna", "Retro"]),
        max_size=2,
    ),
) | st.builds(
    lambda call, status, number: callback(progress(call, status, number=number, second=number)),
    st.sampled_from([ANNA, BEN]),
    st.sampled_from(["ringing", "in-progress", "completed"]),
    st.integers(0, 4),
)


@given(st.lists(st.tuples(happenings, st.booleans()), min_size=1, max_size=25))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_any_changes_the_index_holds_exactly_what_the_documents_say(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, arriving: list[tuple[Callback, bool]]
) -> None:
    redis.flushall()
    drain = Drain(inbox=inbox, snapshots=snapshots, nudge=lambda: None, stopping=lambda: False)
    for happening, now in arriving:
        post(inbox, happening)
        if now:
            empty(drain)
            check(redis, snapshots)
    empty(drain)
    check(redis, snapshots)


def check(redis: Redis, snapshots: Snapshots) -> None:
    held = {entry for shard in range(SHARDS) for entry in redis.zrange(keys.index(shard), 0, -1)}
    should: set[bytes] = set()
    for conference in snapshots.conferences([ROOM, OTHER_ROOM]):
        should |= entries_of(conference.header, conference.participants.values())
    assert held == should
