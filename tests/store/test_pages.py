"""The list of conferences: newest first, any filter, and pages that fit together while the list changes under them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from redis import Redis

from app.conference import Conference, Header, Participant, read_header
from app.events import Status
from app.store import keys
from app.store.inbox import Inbox
from app.store.index import Place, entries_of
from app.store.snapshots import PASSED_OVER, Question, Snapshots
from tests.cast import ACCOUNT, ANNA, BEN, CLEO, at
from tests.conftest import SHARDS
from tests.store.rooms import room, write

STATUSES = get_args(Status)
OTHER = "AC" + "9" * 32
PEOPLE = st.dictionaries(st.sampled_from([ANNA, BEN, CLEO]), st.sampled_from([None, "anna", "guest"]), max_size=3)

rooms = st.lists(
    st.tuples(
        st.integers(0, 200),
        st.one_of(st.none(), st.integers(0, 6).map(at)),
        st.sampled_from(STATUSES),
        st.sampled_from([None, "Stand-up", "Retro"]),
        st.sampled_from([ACCOUNT, OTHER]),
        PEOPLE,
    ),
    max_size=25,
    unique_by=lambda parts: parts[0],
).map(lambda drawn: [room(n, t, status=s, name=f, account=a, people=p) for n, t, s, f, a, p in drawn])

questions = st.builds(
    lambda account, status, name, person: Question(account=account, status=status, friendly_name=name, **person),
    st.sampled_from([None, ACCOUNT, OTHER]),
    st.sampled_from([None, *STATUSES]),
    st.sampled_from([None, "Stand-up", "Retro", "stand-up"]),
    st.sampled_from([{}, {"call_sid": ANNA}, {"call_sid": BEN}, {"label": "guest"}, {"label": "anna"}]),
)

on_the_real_store = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def place_of(header: Header) -> Place:
    return Place(int(header.created_at.timestamp()) if header.created_at else 0, header.sid)


def answers(conferences: Iterable[Conference], question: Question) -> list[str]:
    """What a reader of every document would answer."""
    fitting = [
        conference.header
        for conference in conferences
        if question.account in (None, conference.header.account_sid)
        and question.status in (None, conference.header.status)
        and question.friendly_name in (None, conference.header.friendly_name)
        and (question.call_sid is None or question.call_sid in conference.participants)
        and (question.label is None or question.label in {p.label for p in conference.participants.values()})
    ]
    return [header.sid for header in sorted(fitting, key=place_of, reverse=True)]


def pages(snapshots: Snapshots, question: Question, most: int) -> Iterator[list[str]]:
    """Page after page, until there is no more."""
    after: Place | None = None
    for _ in range(1_000):
        headers, after = snapshots.page(question, after, most)
        assert len(headers) <= most
        yield [read_header(header).sid for header in headers]
        if after is None:
            return
    raise AssertionError("the list has no end")


def walked(snapshots: Snapshots, question: Question, most: int) -> list[str]:
    return [sid for page in pages(snapshots, question, most) for sid in page]


@given(rooms, questions, st.integers(1, 8))
@on_the_real_store
def test_any_question_is_answered_newest_first_with_all_that_fits_and_nothing_else(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, conferences: list[Conference], question: Question, most: int
) -> None:
    redis.flushall()
    write(inbox, snapshots, *conferences)
    assert walked(snapshots, question, most) == answers(conferences, question)


def walked_back(snapshots: Snapshots, question: Question, place: Place, most: int) -> list[str]:
    """What comes before a place, read page by page towards the newest; as it stands in the list."""
    after: Place | None = place
    found: list[str] = []
    for _ in range(1_000):
        headers, after = snapshots.page(question, after, most, newer=True)
        assert len(headers) <= most
        found = [*(read_header(header).sid for header in headers), *found]
        if after is None:
            return found
    raise AssertionError("the list has no beginning")


@given(rooms, questions, st.integers(0, 7), st.integers(0, 200), st.integers(1, 8))
@on_the_real_store
def test_from_any_place_a_list_can_be_read_both_ways(
    redis: Redis,
    inbox: Inbox,
    snapshots: Snapshots,
    conferences: list[Conference],
    question: Question,
    second: int,
    number: int,
    most: int,
) -> None:
    redis.flushall()
    write(inbox, snapshots, *conferences)
    place = Place(int(at(second).timestamp()), f"CF{number:032x}")
    places = {conference.header.sid: place_of(conference.header) for conference in conferences}
    everything = answers(conferences, question)
    assert walked_back(snapshots, question, place, most) == [sid for sid in everything if places[sid] > place]
    older, _ = snapshots.page(question, place, 1_000)
    assert [read_header(header).sid for header in older] == [sid for sid in everything if places[sid] < place]


def test_the_page_before_a_place_is_the_nearest(inbox: Inbox, snapshots: Snapshots) -> None:
    conferences = [room(n, at(n)) for n in range(10)]
    write(inbox, snapshots, *conferences)
    headers, further = snapshots.page(Question(), place_of(conferences[3].header), 2, newer=True)
    assert [read_header(header).sid for header in headers] == [conferences[n].header.sid for n in (5, 4)]
    assert further == place_of(conferences[5].header)
    assert snapshots.page(Question(), place_of(conferences[9].header), 2, newer=True) == ([], None)


moments = st.one_of(st.none(), st.integers(-1, 8).map(at))


@given(
    rooms,
    st.lists(st.one_of(st.none(), st.integers(0, 6)), min_size=25, max_size=25),
    questions,
    st.tuples(moments, moments),
    st.tuples(moments, moments),
    st.integers(1, 8),
)
@on_the_real_store
def test_a_question_may_have_limits_of_time(
    redis: Redis,
    inbox: Inbox,
    snapshots: Snapshots,
    conferences: list[Conference],
    ages: list[int | None],
    question: Question,
    created: tuple[datetime | None, datetime | None],
    updated: tuple[datetime | None, datetime | None],
    most: int,
) -> None:
    redis.flushall()
    conferences = [
        Conference(replace(each.header, updated_at=_later(each.header.created_at, age)), each.participants)
        for each, age in zip(conferences, ages, strict=False)
        if each.header.created_at is not None
    ]
    write(inbox, snapshots, *conferences)
    first, last = (None if moment is None else int(moment.timestamp()) for moment in created)
    question = question._replace(created=(first, last), updated=updated)
    places = {each.header.sid: (place_of(each.header), each.header.updated_at) for each in conferences}
    expected = [
        sid
        for sid in answers(conferences, question)
        if _between(places[sid][0].created, first, last)
        and (updated == (None, None) or (places[sid][1] is not None and _between(places[sid][1], *updated)))
    ]
    assert walked(snapshots, question, most) == expected
    beginning = Place(0, "")
    assert walked_back(snapshots, question, beginning, most) == expected


def _later(time: datetime | None, seconds: int | None) -> datetime | None:
    return None if time is None or seconds is None else time + timedelta(seconds=seconds)


def _between(value: Any, first: Any, last: Any) -> bool:
    return (first is None or value >= first) and (last is None or value <= last)


@pytest.mark.parametrize(("first", "last"), [(-86_400, None), (None, 256**5), (-1, 256**6), (0, 256**5 - 1)])
def test_limits_beyond_what_an_index_can_hold_exclude_nothing(
    inbox: Inbox, snapshots: Snapshots, first: int | None, last: int | None
) -> None:
    write(inbox, snapshots, room(1, at(1)), room(2, at(0)))
    assert walked(snapshots, Question(created=(first, last)), 10) == [f"CF{1:032x}", f"CF{2:032x}"]


@pytest.mark.parametrize(("first", "last"), [(None, -1), (256**5, None), (10, 9), (256**6, -(256**6))])
def test_limits_that_leave_no_time_are_answered_with_nothing(
    inbox: Inbox, snapshots: Snapshots, first: int | None, last: int | None
) -> None:
    write(inbox, snapshots, room(1, at(0)), room(2, None))
    assert walked(snapshots, Question(created=(first, last)), 10) == []


@given(rooms, st.sampled_from([None, ACCOUNT, OTHER]))
@on_the_real_store
def test_the_counts_are_those_of_the_lists(
    redis: Redis, inbox: Inbox, snapshots: Snapshots, conferences: list[Conference], account: str | None
) -> None:
    redis.flushall()
    write(inbox, snapshots, *conferences)
    assert snapshots.count(account) == {
        status: len(answers(conferences, Question(account=account, status=status))) for status in STATUSES
    }


def test_an_empty_store_has_one_empty_page(snapshots: Snapshots) -> None:
    assert snapshots.page(Question(), None, 10) == ([], None)


@pytest.mark.parametrize("question", [Question(label=""), Question(friendly_name=""), Question(call_sid="")])
def test_a_filter_that_was_left_empty_does_not_show_everything(
    inbox: Inbox, snapshots: Snapshots, question: Question
) -> None:
    write(inbox, snapshots, room(1, at(0), people={ANNA: "anna"}))
    assert walked(snapshots, question, 10) == []


def test_the_header_in_a_list_is_the_header_of_the_document(inbox: Inbox, snapshots: Snapshots) -> None:
    write(inbox, snapshots, room(1, at(0), people={ANNA: "anna"}))
    [header], _ = snapshots.page(Question(), None, 10)
    document = snapshots.documents([f"CF{1:032x}"])[0]
    assert document is not None
    assert document.startswith(header[:-1])


# While the list changes.

Change = Callable[[dict[str, Conference]], Conference | None]
"""From what there is, one conference that is new or other than it was; None: nothing to change."""


def appears(number: int, second: int | None) -> Change:
    def change(known: dict[str, Conference]) -> Conference | None:
        new = room(1_000 + number, None if second is None else at(second), people={ANNA: "anna"})
        return None if new.header.sid in known else new

    return change


def moves_on(pick: int, status: Status) -> Change:
    def change(known: dict[str, Conference]) -> Conference | None:
        conference = _picked(known, pick)
        if conference is None or STATUSES.index(conference.header.status) >= STATUSES.index(status):
            return None
        return Conference(replace(conference.header, status=status), conference.participants)

    return change


def turns_out_older(pick: int, seconds: int) -> Change:
    def change(known: dict[str, Conference]) -> Conference | None:
        conference = _picked(known, pick)
        if conference is None or conference.header.created_at is None:
            return None
        return Conference(replace(conference.header, created_at=at(-seconds)), conference.participants)

    return change


def is_joined(pick: int, label: str) -> Change:
    def change(known: dict[str, Conference]) -> Conference | None:
        conference = _picked(known, pick)
        if conference is None:
            return None
        return Conference(conference.header, conference.participants | {CLEO: Participant(call_sid=CLEO, label=label)})

    return change


def _picked(known: dict[str, Conference], pick: int) -> Conference | None:
    return known[sorted(known)[pick % len(known)]] if known else None


between_pages = st.lists(
    st.one_of(
        st.builds(appears, st.integers(0, 50), st.one_of(st.none(), st.integers(-10, 60))),
        st.builds(moves_on, st.integers(0, 99), st.sampled_from(STATUSES)),
        st.builds(turns_out_older, st.integers(0, 99), st.integers(1, 60)),
        st.builds(is_joined, st.integers(0, 99), st.sampled_from(["anna", "guest"])),
    ),
    max_size=4,
)


@given(
    rooms,
    st.lists(between_pages, min_size=1, max_size=8),
    st.integers(1, 5),
    st.sampled_from([Question(), Question(account=ACCOUNT), Question(status="in-progress"), Question(label="guest")]),
)
@on_the_real_store
def test_pages_neither_repeat_nor_miss_what_stays_while_the_list_changes_under_them(
    redis: Redis,
    inbox: Inbox,
    snapshots: Snapshots,
    conferences: list[Conference],
    rounds: Sequence[Sequence[Change]],
    most: int,
    question: Question,
) -> None:
    redis.flushall()
    write(inbox, snapshots, *conferences)
    known = {conference.header.sid: conference for conference in conferences}
    always = set(answers(known.values(), question))
    moved: set[str] = set()
    seen: list[str] = []
    coming = iter(rounds)
    for page in pages(snapshots, question, most):
        seen += page
        for change in next(coming, ()):
            after = change(known)
            if after is None:
                continue
            before = known.get(after.header.sid)
            if before is not None and before.header.created_at != after.header.created_at:
                moved.add(after.header.sid)
            known[after.header.sid] = after
            write(inbox, snapshots, after)
            always &= set(answers(known.values(), question))
    assert always <= set(seen), "what has fitted all the time must have been shown"
    again = {sid for sid in seen if seen.count(sid) > 1}
    assert again <= moved, "only what has turned out to be older may come a second time, in its new place"


def test_a_conference_that_moves_on_while_a_page_passes_over_others_is_not_missed(
    inbox: Inbox, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of one account's guests reads on and on through another's; meanwhile ours goes in progress."""
    ours = next(n for n in range(1_000, 2_000) if inbox.shard_of(f"CF{n:032x}") == 0)
    theirs = [n for n in range(1_000) if inbox.shard_of(f"CF{n:032x}") == 0][:40]
    guests: dict[str, str | None] = {ANNA: "guest"}
    begun = room(ours, at(-60), status="init", people=guests)
    write(inbox, snapshots, begun)
    write(inbox, snapshots, *(room(n, at(n), status="init", account=OTHER, people=guests) for n in theirs))
    read_headers = snapshots.headers
    reads: list[int] = []

    def headers(sids: Sequence[str]) -> list[bytes | None]:
        reads.append(len(sids))
        if len(reads) == 1:
            moved = Conference(replace(begun.header, status="in-progress"), begun.participants)
            write(inbox, Snapshots(snapshots.redis, SHARDS), moved)
        return read_headers(sids)

    monkeypatch.setattr(snapshots, "headers", headers)
    assert walked(snapshots, Question(account=ACCOUNT, label="guest"), 5) == [begun.header.sid]
    assert len(reads) > 1


def test_a_conference_that_is_met_under_two_statuses_is_shown_once(
    redis: Redis, inbox: Inbox, snapshots: Snapshots
) -> None:
    """As when it moves on after its old status has been read and before its new one is."""
    conferences = [room(n, at(n), people={ANNA: "guest"}) for n in range(4)]
    write(inbox, snapshots, *conferences)
    for conference in conferences:
        stale = entries_of(replace(conference.header, status="init"), conference.participants.values())
        redis.zadd(keys.index(inbox.shard_of(conference.header.sid)), dict.fromkeys(stale, 0))
    for question in (Question(), Question(label="guest")):
        assert walked(snapshots, question, 3) == answers(conferences, question)


# What a page costs.


def test_one_page_reads_only_so_much_and_says_where_to_read_on(inbox: Inbox, snapshots: Snapshots) -> None:
    guests: dict[str, str | None] = {ANNA: "guest"}
    write(inbox, snapshots, room(5_000, at(-60), people=guests))
    write(inbox, snapshots, *(room(n, at(n), account=OTHER, people=guests) for n in range(300)))
    question = Question(account=ACCOUNT, label="guest")
    found = list(pages(snapshots, question, 3))
    assert len(found) > 300 / (3 * PASSED_OVER) - 1
    assert [sid for page in found for sid in page] == [f"CF{5_000:032x}"]
    assert walked_back(snapshots, question, Place(0, ""), 3) == [f"CF{5_000:032x}"]


def cost(redis: Redis, snapshots: Snapshots, question: Question, after: Place | None) -> tuple[dict[str, int], int]:
    """Of one page: how often each Redis command is run, and how many bytes Redis sends."""
    redis.config_resetstat()
    headers, _ = snapshots.page(question, after, 10)
    commands = {name: stats["calls"] for name, stats in redis.info("commandstats").items()}
    assert len(headers) == 10
    return commands, int(redis.info("stats")["total_net_output_bytes"])


def test_a_page_costs_the_same_among_two_hundred_conferences_as_among_twenty_thousand(
    redis: Redis, inbox: Inbox, snapshots: Snapshots
) -> None:
    asked = [
        Question(),
        Question(account=ACCOUNT),
        Question(status="completed"),
        Question(friendly_name="Stand-up"),
        Question(label="guest"),
        Question(account=ACCOUNT, status="completed", friendly_name="Stand-up", label="guest"),
    ]
    costs = []
    for first, last in ((0, 200), (200, 20_000)):
        town = (room(n, at(n), status=STATUSES[1 + n % 2], people={ANNA: "guest"}) for n in range(first, last))
        write(inbox, snapshots, *town)
        middle = place_of(room(last // 2, at(last // 2)).header)
        costs.append([cost(redis, snapshots, question, after) for question in asked for after in (None, middle)])
    for (few_commands, few_bytes), (many_commands, many_bytes) in zip(*costs, strict=True):
        assert many_commands == few_commands
        assert many_bytes < 1.5 * few_bytes


def test_a_page_is_two_round_trips(inbox: Inbox, snapshots: Snapshots, round_trips: list[int]) -> None:
    write(inbox, snapshots, *(room(n, at(n)) for n in range(200)))
    round_trips.clear()
    snapshots.page(Question(), None, 20)
    assert len(round_trips) == 2
