"""`/api/stream` tells what is true now, then every change once; who comes back is told what was missed, or so."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from structlog.testing import capture_logs

from app.store import embedded, feed, keys
from app.store.connect import connect, until_answering
from app.store.feed import Feed, read_places, written
from app.store.snapshots import Question, Snapshots
from app.web import FANOUT, fanout, stream
from app.web.fanout import Fanout, Listener, Lost, Wanted
from app.web.stream import Looks
from tests.cast import ACCOUNT, ANNA, CLEO, said
from tests.conftest import SHARDS
from tests.sse import Frame, frames
from tests.web.conftest import (
    CHILD,
    KNOWN,
    OPERATOR,
    OUTSIDER,
    OWNER,
    STRANGER,
    SUBACCOUNT,
    TENANT,
    TOKENS,
    Site,
    room,
)

DEADLINE = 20.0
"""Seconds. Nothing takes this long unless it never comes."""
EVERYTHING = Wanted(None, None)

ALL = Wanted(None, None).mark
"""Ends the ids of a stream of everything."""


@pytest.fixture(autouse=True)
def quick(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beats come so often that whoever waits for a frame soon sees that none comes. Nothing waits for the disk."""
    monkeypatch.setattr(fanout, "BEAT", 0.05)
    monkeypatch.setattr(fanout, "WAIT", 0.05)
    redis.config_set("appendfsync", "no")
    yield
    redis.config_set("appendfsync", "always")


@pytest.fixture
def open_site() -> Iterator[Callable[[Redis], Site]]:
    """Starts an Offhook; its reading of the feed is over when the test is."""
    sites: list[Site] = []

    def opened(redis: Redis) -> Site:
        sites.append(Site(redis))
        return sites[-1]

    yield opened
    for site in sites:
        fanout_of(site).stopping = lambda: True
    for thread in reading():
        thread.join(DEADLINE)
    assert reading() == []


@pytest.fixture
def site(redis: Redis, open_site: Callable[[Redis], Site]) -> Site:
    return open_site(redis)


def fanout_of(site: Site) -> Fanout:
    found: Fanout = site.app.extensions[FANOUT]
    return found


def reading() -> list[threading.Thread]:
    """The threads that read a feed."""
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


def until(what: str, condition: Callable[[], Any]) -> Any:
    """The condition's value, once it is true."""
    pause = threading.Event()
    deadline = monotonic() + DEADLINE
    while monotonic() < deadline:
        if value := condition():
            return value
        pause.wait(0.005)
    raise AssertionError(f"waited in vain: {what}")


class Reader:
    """Whoever reads a stream, a frame at a time, and holds what it is told to the rules."""

    def __init__(
        self, site: Site, query: str = "", who: tuple[str, str] | None = OPERATOR, last: str | None = None
    ) -> None:
        headers = {} if last is None else {"Last-Event-ID": last}
        self.answer = site.http.get(f"/api/stream{query}", auth=who, headers=headers, buffered=False)
        assert self.answer.status_code == 200, self.answer.get_data()
        self.frames = frames(iter(self.answer.response))  # type: ignore[arg-type]  # a WSGI body of bytes
        self.last = ""
        """What a browser would come back with."""
        self.revisions: dict[str, int] = {}
        """Of the conferences that it holds."""
        self.resumed = last is not None or "last_event_id" in query

    def next(self) -> Frame:
        """The next frame. A change must be the one that follows."""
        told = next(self.frames)
        if told.name != "retry":
            self.last = told.id
        if told.name == "reset":
            self.revisions, self.resumed = {}, False
        if told.name == "snapshot":
            self.revisions = {each["sid"]: each["revision"] for each in told.data["conferences"]}
            assert len(self.revisions) == len(told.data["conferences"]), "a conference is shown twice"
        if told.name == "change":
            sid, revision = told.data["conference_sid"], told.data["revision"]
            ended = told.data["conference"]["status"] == "completed"
            if sid in self.revisions or not (self.resumed or ended):  # one that has ended is in no snapshot
                assert revision == self.revisions.get(sid, 0) + 1, "a hole, or a repeat"
            self.revisions[sid] = revision
        return told

    def until(self, name: str, condition: Callable[[Any], Any] = lambda data: True) -> list[Frame]:
        """What comes, up to and including the first frame of that name whose data fulfils the condition."""
        told = []
        deadline = monotonic() + DEADLINE
        while monotonic() < deadline:
            told.append(self.next())
            if told[-1].name == name and condition(told[-1].data):
                return told
        raise AssertionError(f"no {name} came, but {[each.name for each in told][-5:]}")

    def up_to_date(self) -> Frame:
        """Read until it is told that it has been told everything; the snapshot."""
        [snapshot] = [each for each in self.until("beat") if each.name == "snapshot"]
        return snapshot

    def until_holding(self, revisions: dict[str, int]) -> list[Frame]:
        """The changes that come until it holds these revisions."""
        told = []
        deadline = monotonic() + DEADLINE
        while any(self.revisions.get(sid, 0) < revision for sid, revision in revisions.items()):
            assert monotonic() < deadline, f"{self.revisions} in place of {revisions}"
            frame = self.next()
            assert frame.name != "reset", frame.data
            if frame.name == "change":
                told.append(frame)
        return told

    def ends(self) -> list[Frame]:
        """What comes before the stream ends by itself."""
        told = []
        deadline = monotonic() + DEADLINE
        while monotonic() < deadline:
            try:
                told.append(self.next())
            except StopIteration:
                return told
        raise AssertionError("the stream goes on")

    def leave(self) -> str:
        """Go away; the id to come back with."""
        self.answer.close()
        return self.last


def change(site: Site, sid: str, number: int, event: str = "participant-modify", account: str = ACCOUNT) -> None:
    """Have something happen in a conference: one more revision."""
    call = ANNA if event.startswith("participant") else None
    about = {"AccountSid": account, "FriendlyName": "Stand-up"}
    site.tell(said(event, call, number=number, second=number % 3000, room=sid, **about), token=TOKENS[account])
    site.fold()


def revisions(site: Site, *sids: str) -> dict[str, int]:
    """How far these conferences are."""
    return {each.header.sid: each.header.revision for each in site.snapshots.conferences(sids)}


def in_every_shard(count: int = 1) -> list[str]:
    """So many rooms of each shard."""
    found: dict[int, list[str]] = {shard: [] for shard in range(SHARDS)}
    for sid in map(room, range(1000, 1000 + 50 * count)):
        ours = found[keys.shard_of(sid, SHARDS)]
        if len(ours) < count:
            ours.append(sid)
    return [sid for ours in found.values() for sid in ours]


class Bustle:
    """Changes without end, from a thread of their own."""

    def __init__(self, site: Site, sids: list[str], seed: int = 0) -> None:
        self.site = site
        self.sids = sids
        self.rng = random.Random(seed)
        self.over = threading.Event()
        self.told = 0
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self.told += 1
                change(self.site, self.rng.choice(self.sids), 100 + self.told)
        except BaseException as failure:
            self.failure = failure

    def __enter__(self) -> Bustle:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(DEADLINE)
        assert self.failure is None, self.failure

    def await_more(self, count: int) -> None:
        goal = self.told + count
        until("more changes", lambda: self.told >= goal or self.failure)


def once(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], object], *, after: bool
) -> list[str]:
    """Have something happen right before, or after, the next call of this function; what has happened so far."""
    call = getattr(owner, name)
    done: list[str] = []

    def wrapped(*words: Any, **more: Any) -> Any:
        if not after and not done:
            done.append(name)
            act()
        answer = call(*words, **more)
        if after and not done:
            done.append(name)
            act()
        return answer

    monkeypatch.setattr(owner, name, wrapped)
    return done


# How it begins


def test_a_stream_begins_with_when_to_retry_then_what_is_true_then_a_beat(several: Site) -> None:
    reader = Reader(several)
    retry, snapshot, beat = reader.next(), reader.next(), reader.next()
    assert [each.name for each in (retry, snapshot, beat)] == ["retry", "snapshot", "beat"]
    assert 1000 <= retry.data <= 4000
    assert set(snapshot.data) == {"conferences", "more", "at"}
    assert set(beat.data) == {"at", "behind"}
    for at in (snapshot.data["at"], beat.data["at"]):
        assert at.endswith("Z")
        assert datetime.fromisoformat(at).tzinfo is not None
    for told in (snapshot, beat):
        assert 20 <= len(told.id) <= 4000
        assert told.id.isascii()
        assert told.id.isprintable()
    assert " " not in beat.id


def test_each_connection_is_given_a_retry_of_its_own(site: Site) -> None:
    retries = {Reader(site).next().data for _ in range(20)}
    assert len(retries) > 5


def test_the_answer_is_an_event_stream_that_nobody_may_keep_or_hold_back(site: Site) -> None:
    headers = Reader(site).answer.headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in headers


def test_a_snapshot_has_whole_documents_as_everyone_else_reads_them(several: Site) -> None:
    snapshot = Reader(several).up_to_date()
    documents = {each["sid"]: each for each in snapshot.data["conferences"]}
    assert set(documents) == {sid for sid, _, _, status, _ in KNOWN if status != "completed"}
    for sid, document in documents.items():
        assert document == several.told(f"/api/conferences/{sid}")
    assert snapshot.data["more"] is False


WHO_SEES_WHAT = [
    (OPERATOR, ""),
    (OPERATOR, f"?account={ACCOUNT}"),
    (OPERATOR, f"?account={CHILD}"),
    (OPERATOR, f"?account={'AC' + '0' * 32}"),
    (OWNER, ""),
    (OWNER, f"?account={CHILD}"),
    (SUBACCOUNT, ""),
    (SUBACCOUNT, f"?account={CHILD}"),
    (TENANT, ""),
    (TENANT, f"?account={STRANGER}"),
    (OUTSIDER, ""),
]


def test_a_stream_shows_and_tells_of_the_accounts_that_its_key_may_see(several: Site) -> None:
    readers = []
    for who, query in WHO_SEES_WHAT:
        listed = several.told(f"/api/conferences{query}", who)["conferences"]
        if (who, query) == (OWNER, ""):  # a list has to be asked for a subaccount by its name
            listed += several.told(f"/api/conferences?account={CHILD}", who)["conferences"]
        live = {each["sid"] for each in listed if each["status"] != "completed"}
        reader = Reader(several, query, who)
        assert {each["sid"] for each in reader.up_to_date().data["conferences"]} == live, (who, query)
        readers.append((reader, live))
    assert {len(live) for _, live in readers} == {0, 1, 3, 4, 5}
    accounts = {sid: account for sid, account, _, status, _ in KNOWN if status != "completed"}
    for number in (20, 21):
        for sid, account in accounts.items():
            change(several, sid, number, account=account)
    end = Feed(several.redis, SHARDS).end()
    for reader, live in readers:
        changes = reader.until_holding(revisions(several, *live))
        while read_places(reader.last.partition("~")[0], SHARDS) != end:
            changes.append(reader.next())
        changes = [told for told in changes if told.name == "change"]
        assert {told.data["conference_sid"] for told in changes} == live
        assert {told.data["account_sid"] for told in changes} == {accounts[sid] for sid in live}
        assert len(changes) == 2 * len(live)


REFUSED = [
    (None, "", 401),
    (("operator", "wrong"), "", 401),
    (OPERATOR, "?status=init", 400),
    (OPERATOR, "?acount=x", 400),
    (OPERATOR, f"?account={ACCOUNT}&account={CHILD}", 400),
    (OPERATOR, "?last_event_id=a&last_event_id=b", 400),
    (OPERATOR, "?conference=", 400),
    (OPERATOR, f"?conference={room(2).lower()}", 400),
    (OPERATOR, f"?conference={room(2)}0", 400),
    (OPERATOR, f"?conference={ACCOUNT}", 400),
    (TENANT, f"?account={ACCOUNT}", 404),
    (SUBACCOUNT, f"?account={ACCOUNT}", 404),
    (OWNER, f"?account={STRANGER}", 404),
    (TENANT, f"?conference={room(2)}", 404),
    (SUBACCOUNT, f"?conference={room(1)}", 404),
    (OWNER, f"?conference={room(7)}", 404),
]


def test_what_is_refused_is_refused_in_json_before_a_stream_begins(several: Site) -> None:
    for who, query, status in REFUSED:
        answer = several.ask(f"/api/stream{query}", who)
        assert answer.status_code == status, (who, query)
        assert answer.content_type == "application/json"
        failure = answer.get_json()
        assert failure["status"] == status
        assert failure["message"]
    assert reading() == []


def test_with_redis_away_there_is_no_stream_but_a_503(nowhere: Redis) -> None:
    answer = Site(nowhere).ask("/api/stream")
    assert answer.status_code == 503
    assert answer.get_json()["status"] == 503


def test_a_snapshot_is_bounded_and_says_that_there_is_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SHARED_FOR", 0.0)
    monkeypatch.setitem(stream.SHOWN, "in-progress", 3)
    monkeypatch.setitem(stream.SHOWN, "init", 2)
    monkeypatch.setattr(stream, "LOT", 2)
    for number, (started, waiting, more) in enumerate([(3, 2, False), (4, 2, True), (4, 3, True)]):
        ours = [*range(started)], [*range(10, 10 + waiting)]
        for n in ours[0]:
            change(site, room(n), 1 + n, "conference-start")
        for n in ours[1]:
            change(site, room(n), 1 + n, "announcement-end")
        snapshot = Reader(site).up_to_date()
        newest = [*ours[0][-3:], *ours[1][-2:]]
        assert {each["sid"] for each in snapshot.data["conferences"]} == set(map(room, newest)), number
        assert snapshot.data["more"] is more


def test_those_who_come_at_once_share_one_look(several: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Question] = []
    page = Snapshots.page

    def counted(snapshots: Snapshots, question: Question, *words: Any) -> Any:
        looks.append(question)
        return page(snapshots, question, *words)

    monkeypatch.setattr(Snapshots, "page", counted)
    readers = [Reader(several) for _ in range(20)]
    first, *others = [reader.up_to_date() for reader in readers]
    assert all(told == first for told in others)
    assert len(looks) == 2, "one for each status"
    change(several, room(2), 20)
    for reader in readers:
        reader.until_holding({room(2): 2})


# Nothing falls between looking and listening

MOMENTS = {
    "before the look": (Looks, "take", False),
    "when its place is known": (Feed, "end", True),
    "before conferences are found": (Snapshots, "page", False),
    "when those of one status are found": (Snapshots, "page", True),
    "before documents are read": (Snapshots, "documents", False),
    "when documents are read": (Snapshots, "documents", True),
    "when the look is over": (Looks, "take", True),
    "when listening begins": (Listener, "__init__", False),
    "when it has begun": (Listener, "__init__", True),
    "before it is caught up": (Fanout, "missed", False),
    "when it is up to date": (Fanout, "beat", False),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside another"])
def test_a_change_at_any_moment_of_joining_is_shown_or_told_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, moment: str, others: int
) -> None:
    monkeypatch.setattr(stream, "SHARED_FOR", 0.0)
    going, waiting, new = in_every_shard()[:3]
    change(site, going, 1, "conference-start")
    change(site, waiting, 1, "announcement-end")
    beside = [Reader(site) for _ in range(others)]
    for each in beside:
        each.up_to_date()
    for sid, event in (
        (going, "participant-modify"),
        (new, "participant-modify"),
        (waiting, "conference-start"),
        (going, "conference-end"),
    ):
        owner, name, after = MOMENTS[moment]
        with monkeypatch.context() as for_once:
            done = once(for_once, owner, name, partial(change, site, sid, 5, event), after=after)
            reader = Reader(site)
            snapshot = reader.until("snapshot")[-1]
            told = reader.until("beat")
        assert done == [name]
        assert {each["status"] for each in snapshot.data["conferences"]} <= {"init", "in-progress"}
        shown = {each["sid"]: each["revision"] for each in snapshot.data["conferences"]}.get(sid, 0)
        known = revisions(site, sid)
        if event != "conference-end" or shown:
            told += reader.until_holding(known)
        heard = [each.data["revision"] for each in told if each.name == "change"]
        assert heard in ([], [known[sid]])
        for each in beside:
            each.until_holding(known)
        reader.leave()


def test_readers_that_join_and_leave_in_a_bustle_miss_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SHARED_FOR", 0.02)
    monkeypatch.setattr(stream, "LOT", 3)
    monkeypatch.setattr(feed, "AT_ONCE", 2)
    monkeypatch.setattr(fanout, "LINGER", 0.0)
    sids = in_every_shard(2)
    for sid in sids:
        change(site, sid, 1, "conference-start")
    with Bustle(site, sids) as bustle:
        readers = []
        for number in range(60):
            reader = Reader(site)
            reader.up_to_date()
            reader.until("change")
            if number % 3:
                readers.append(reader)
            else:
                reader.leave()
            if number % 20 == 19:
                for each in readers[::2]:
                    each.leave()
                readers = readers[1::2] if number % 40 == 19 else []
        readers.append(Reader(site))
        bustle.await_more(5)
    for reader in readers:
        reader.until_holding(revisions(site, *sids))
        assert reader.revisions == revisions(site, *sids)


# Coming back


def test_whoever_was_cut_off_anywhere_is_told_the_rest_and_nothing_twice(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "AT_ONCE", 3)
    monkeypatch.setattr(stream, "LARGEST_CHUNK", 3000)
    rng = random.Random(5)
    sids = in_every_shard(2)
    whole = Reader(site)
    told = whole.until("beat")[1:]
    for number in range(60):
        change(site, rng.choice(sids), 1 + number)
        if number % 10 == 5:
            told += whole.until_holding(revisions(site, *sids))
    told += whole.until_holding(revisions(site, *sids))
    everything = [(each.data["conference_sid"], each.data["revision"]) for each in told if each.name == "change"]
    assert len(everything) == 60

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.integers(0, 70), min_size=1, max_size=5), st.booleans())
    def cut_at(cuts: list[int], in_the_header: bool) -> None:
        heard: list[tuple[str, int]] = []
        last = told[0].id
        for cut in [*cuts, 1000]:
            reader = Reader(site, last=last) if in_the_header else Reader(site, f"?last_event_id={last}")
            for _ in range(cut):
                frame = reader.next()
                assert frame.name in ("retry", "change", "beat")
                if frame.name == "change":
                    heard.append((frame.data["conference_sid"], frame.data["revision"]))
                if frame.name == "beat":
                    break
            last = reader.leave() or last
        assert sorted(heard) == sorted(everything)
        for sid in sids:
            assert [each for each in heard if each[0] == sid] == [each for each in everything if each[0] == sid]

    cut_at()


def test_coming_back_again_and_again_in_a_bustle_misses_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "LINGER", 0.0)
    rng = random.Random(6)
    sids = in_every_shard(1)
    reader = Reader(site)
    reader.up_to_date()
    held = reader.revisions
    with Bustle(site, sids):
        for _ in range(60):
            for _ in range(rng.randint(1, 6)):
                reader.next()
            reader = Reader(site, last=reader.leave())
            assert reader.next().name == "retry"
            reader.revisions = held
            reader.last = reader.next().id
            held = reader.revisions
    reader = Reader(site, last=reader.leave())
    reader.revisions = held
    reader.until_holding(revisions(site, *sids))


def test_every_kind_of_frame_can_be_come_back_with(several: Site) -> None:
    reader = Reader(several, f"?conference={room(2)}")
    snapshot = reader.until("snapshot")[-1]
    beat = reader.until("beat")[-1]
    change(several, room(2), 20)
    told = reader.until("change")[-1]
    change(several, room(2), 21)
    reader.until_holding({room(2): 3})
    for last, heard in ((snapshot.id, [2, 3]), (beat.id, [2, 3]), (told.id, [3])):
        again = Reader(several, f"?conference={room(2)}", last=last).until("beat")
        assert [each.data["revision"] for each in again if each.name == "change"] == heard
        assert [each.name for each in again] == ["retry", *["change"] * len(heard), "beat"]


def test_what_is_missed_ends_where_listening_begins(site: Site) -> None:
    sid = in_every_shard()[0]
    change(site, sid, 1)
    reader = Reader(site)
    reader.up_to_date()
    feed, fan = Feed(site.redis, SHARDS), fanout_of(site)
    ends = [feed.end()]
    for number in (2, 3, 4):
        change(site, sid, number)
        ends.append(feed.end())
    reader.until_holding({sid: 4})
    assert [told.revision for told in fan.missed(ends[0], ends[2])] == [2, 3]
    assert [told.revision for told in fan.missed(ends[1], ends[3])] == [3, 4]
    assert list(fan.missed(ends[3], ends[3])) == []


def test_a_quiet_stream_can_be_come_back_to_however_much_has_happened_elsewhere(
    redis: Redis, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "RECENT", 1)
    site.snapshots = Snapshots(redis, SHARDS, retained=20)
    [quiet, *_], shard = in_every_shard(), 0
    loud = [sid for sid in in_every_shard(20) if site.inbox.shard_of(sid) == shard and sid != quiet]
    change(site, quiet, 1, "conference-start")
    reader = Reader(site, f"?conference={quiet}")
    stale = reader.until("beat")[-1].id
    for number in range(20):
        for sid in loud:
            site.tell(said("participant-modify", ANNA, number=number, second=number, room=sid))
        site.fold()
        end = Feed(redis, SHARDS).end()
        while read_places(reader.last.partition("~")[0], SHARDS) != end:
            assert reader.next().name == "beat"
    assert redis.xlen(keys.changes(shard)) < len(loud) * 20
    last = reader.last
    change(site, quiet, 2)
    reader.until("change")
    again = Reader(site, f"?conference={quiet}", last=last).until("beat")
    assert [each.name for each in again] == ["retry", "change", "beat"]
    assert again[1].data["revision"] == 2
    late = Reader(site, f"?conference={quiet}", last=stale).until("beat")
    assert [each.name for each in late] == ["retry", "reset", "snapshot", "beat"]
    assert late[1].data == {"reason": "gone"}


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ("nonsense", "malformed"),
        ("1.2.3", "malformed"),
        ("0.0.0.٣", "malformed"),
        ("f" * 5000, "malformed"),
        (f"0.0.0.0~{ALL}", "gone"),
        ("0.0.0.0", "gone"),
        (f"18d0000000a-1.18d0000000a.18d0000000a.18d0000000a~{ALL}", "gone"),
    ],
)
@pytest.mark.parametrize("by", ["header", "query"])
def test_a_foreign_id_is_answered_with_a_reset_and_a_snapshot(several: Site, last: str, reason: str, by: str) -> None:
    if by == "header":
        reader = Reader(several, last=last.encode().decode("latin-1"))
    else:
        reader = Reader(several, f"?last_event_id={last}")
    _, reset, snapshot, beat = reader.until("beat")
    assert (reset.name, reset.data, reset.id) == ("reset", {"reason": reason}, "")
    assert (snapshot.name, beat.name) == ("snapshot", "beat")
    assert len(snapshot.data["conferences"]) == 5
    change(several, room(2), 20)
    reader.until_holding({room(2): 2})


@pytest.mark.parametrize(("query", "who"), [("", TENANT), ("", OWNER), (f"?account={ACCOUNT}", OPERATOR)])
def test_a_stream_is_not_taken_up_by_one_that_is_for_something_else(
    several: Site, query: str, who: tuple[str, str]
) -> None:
    reader = Reader(several)
    reader.up_to_date()
    _, reset, snapshot, _ = Reader(several, query, who, last=reader.leave()).until("beat")
    assert reset.data == {"reason": "gone"}
    assert {each["account_sid"] for each in snapshot.data["conferences"]} < {ACCOUNT, CHILD, STRANGER}


def test_an_id_from_the_future_is_waited_for_a_while_and_then_answered_with_a_reset(
    several: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "READ_UP_WITHIN", 0.1)
    ahead = f"{written((((1 << 52) - 1, 0),) * SHARDS)}~{ALL}"
    _, reset, snapshot, _ = Reader(several, last=ahead).until("beat")
    assert reset.data == {"reason": "gone"}
    assert snapshot.name == "snapshot"


def test_an_empty_id_is_none(several: Site) -> None:
    for reader in (Reader(several, last=""), Reader(several, "?last_event_id=")):
        assert [each.name for each in reader.until("beat")] == ["retry", "snapshot", "beat"]


def test_the_header_prevails_over_the_query(several: Site) -> None:
    reader = Reader(several)
    reader.up_to_date()
    last = reader.leave()
    resumed = Reader(several, "?last_event_id=nonsense", last=last).until("beat")
    assert [each.name for each in resumed] == ["retry", "beat"]
    reset = Reader(several, f"?last_event_id={last}", last="nonsense").until("beat")
    assert [each.name for each in reset] == ["retry", "reset", "snapshot", "beat"]


def held_back(monkeypatch: pytest.MonkeyPatch, site: Site) -> threading.Event:
    """From now on this Offhook reads nothing new of the feed, until the event is set."""
    stuck, go_on = threading.Event(), threading.Event()
    wait = fanout_of(site).feed.wait

    def lagging(*words: Any) -> Any:
        if go_on.is_set():
            return wait(*words)
        stuck.set()
        go_on.wait(0.01)
        return []

    monkeypatch.setattr(fanout_of(site).feed, "wait", lagging)
    assert stuck.wait(DEADLINE)
    return go_on


def test_another_process_that_has_not_read_as_far_reads_up_before_it_goes_on(
    redis: Redis, site: Site, open_site: Callable[[Redis], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_site(redis)
    sids = in_every_shard()[:2]
    beside = Reader(other)
    beside.up_to_date()
    go_on = held_back(monkeypatch, other)
    reader = Reader(site)
    reader.up_to_date()
    for sid in sids:
        change(site, sid, 1)
    reader.until_holding(revisions(site, *sids))
    last, held = reader.leave(), reader.revisions
    for sid in sids:
        change(site, sid, 2)
    once(monkeypatch, fanout_of(other), "_has_reached", go_on.set, after=True)
    reader = Reader(other, last=last)
    assert reader.next().name == "retry"
    reader.revisions = held
    changes = reader.until_holding(revisions(site, *sids))
    assert go_on.is_set()
    assert [each.data["revision"] for each in changes] == [2] * len(sids)
    beside.until_holding(revisions(site, *sids))


def test_a_process_that_has_not_read_as_far_as_it_has_shown_does_not_tell_that_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sid = in_every_shard()[0]
    beside = Reader(site)
    beside.up_to_date()
    go_on = held_back(monkeypatch, site)
    monkeypatch.setattr(stream, "SHARED_FOR", 0.0)
    once(monkeypatch, Feed, "end", partial(change, site, sid, 1), after=True)
    once(monkeypatch, fanout_of(site), "_has_reached", go_on.set, after=True)
    reader = Reader(site)
    assert [each["revision"] for each in reader.up_to_date().data["conferences"]] == [1]
    change(site, sid, 2)
    for each in (reader, beside):
        each.until_holding({sid: 2})


def test_a_process_that_never_reads_up_sends_readers_away_instead_of_skipping(
    redis: Redis, site: Site, open_site: Callable[[Redis], Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "READ_UP_WITHIN", 0.1)
    monkeypatch.setattr(fanout, "LONGEST_BEHIND", 0.0)
    other = open_site(redis)
    Reader(other).up_to_date()
    go_on = held_back(monkeypatch, other)
    sid = in_every_shard()[0]
    reader = Reader(site)
    reader.up_to_date()
    change(site, sid, 1)
    reader.until("change")
    change(site, sid, 2)
    last = reader.leave()
    answer = other.ask("/api/stream", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    go_on.set()
    monkeypatch.setattr(fanout, "LONGEST_BEHIND", 20.0)
    again = Reader(other, last=last)
    assert [each.data["revision"] for each in again.until_holding({sid: 2}) if each.name == "change"] == [2]


# Another life of Redis


@pytest.mark.parametrize("what_comes_then", ["nothing", "changes", "readers"])
@pytest.mark.parametrize("told_before", [False, True])
@pytest.mark.parametrize("query", ["", f"?conference={room(7)}"])
def test_when_redis_is_flushed_a_reader_is_told_to_forget_and_goes_on_with_what_is_new(
    redis: Redis,
    several: Site,
    monkeypatch: pytest.MonkeyPatch,
    what_comes_then: str,
    told_before: bool,
    query: str,
) -> None:
    monkeypatch.setattr(stream, "SHARED_FOR", 0.0)
    reader = Reader(several, query)
    assert room(7) in {each["sid"] for each in reader.up_to_date().data["conferences"]}
    sids = in_every_shard()
    if told_before:
        for sid in [*sids, room(7)]:
            change(several, sid, 90, account=STRANGER if sid == room(7) else ACCOUNT)
        reader.until_holding(revisions(several, room(7) if query else sids[0]))
    redis.flushall()
    if what_comes_then == "changes":
        for number in (91, 92):
            for sid in sids:
                change(several, sid, number)
    if what_comes_then == "readers":
        newcomer = Reader(several)
        newcomer.until("beat")
        assert newcomer.revisions == {}
    reset = reader.until("reset")[-1]
    assert reset.data == {"reason": "gone"}
    assert reset.id == ""
    snapshot = reader.next()
    assert snapshot.name == "snapshot"
    assert room(7) not in {each["sid"] for each in snapshot.data["conferences"]}
    reader.until("beat")
    change(several, room(7), 93, account=STRANGER)
    change(several, sids[0], 93)
    reader.until_holding(revisions(several, *([room(7)] if query else [room(7), sids[0]])))
    assert reader.revisions[room(7)] == 1


def test_after_a_flush_redis_is_not_asked_without_pause(
    redis: Redis, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "BEAT", 1000.0)
    reads = 0
    wait = Feed.wait

    def counted(*words: Any) -> Any:
        nonlocal reads
        reads += 1
        return wait(*words)

    monkeypatch.setattr(Feed, "wait", counted)
    reader = Reader(site)
    reader.up_to_date()
    redis.flushall()
    Feed(redis, SHARDS).end()
    before = reads
    assert reader.until("reset")[-1].data == {"reason": "gone"}
    assert reads - before <= 3


def test_a_process_that_could_not_keep_up_with_the_log_begins_anew_and_skips_nothing(
    redis: Redis, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "BEAT", 1000.0)
    site.snapshots = Snapshots(redis, SHARDS, retained=10)
    shard = 0
    sids = [sid for sid in in_every_shard(20) if site.inbox.shard_of(sid) == shard]
    reader = Reader(site)
    reader.up_to_date()
    read, go_on = threading.Event(), threading.Event()
    wait = Feed.wait

    def stalled(*words: Any) -> Any:
        if not go_on.is_set():
            read.set()
            go_on.wait(DEADLINE)
        return wait(*words)

    monkeypatch.setattr(Feed, "wait", stalled)
    assert read.wait(DEADLINE)
    for number in range(20):
        for sid in sids:
            site.tell(said("participant-modify", ANNA, number=number, second=number, room=sid))
        site.fold()
    go_on.set()
    reader.until("reset")
    reader.until("beat")
    assert reader.revisions == revisions(site, *sids)


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[tuple[Redis, Callable[[], None], Callable[[], None]]]:
    """A Redis that can be stopped and started again, with its data."""
    client = connect(embedded.url(tmp_path), patience=5.0)
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        running.append(subprocess.Popen(embedded.command(tmp_path)))
        until_answering(client)

    def stop() -> None:
        running[-1].terminate()
        running[-1].wait(10)

    start()
    yield client, stop, start
    stop()
    client.close()


def test_a_stream_outlives_an_outage_of_redis_without_a_hole(
    own_valkey: tuple[Redis, Callable[[], None], Callable[[], None]], open_site: Callable[[Redis], Site]
) -> None:
    redis, stop, start = own_valkey
    site = open_site(redis)
    sid = in_every_shard()[0]
    change(site, sid, 1)
    reader = Reader(site)
    reader.up_to_date()
    stop()
    reader.until("beat", lambda beat: beat["behind"] is None)
    answer = site.ask(f"/api/stream?conference={sid}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    start()
    change(site, sid, 2)
    change(site, sid, 3)
    told = reader.until_holding({sid: 3})
    assert [each.data["revision"] for each in told] == [2, 3]
    reader.until("beat", lambda beat: beat["behind"] == 0)
    resumed = Reader(site, last=reader.leave())
    assert [each.name for each in resumed.until("beat")] == ["retry", "beat"]


def test_a_reader_that_fails_for_any_reason_reads_anew(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(site)
    reader.up_to_date()
    sid = in_every_shard()[0]
    with capture_logs() as logs:
        once(monkeypatch, fanout, "frame", lambda: 1 / 0, after=False)
        change(site, sid, 1)
        reader.until("reset")
    assert [line["event"] for line in logs] == ["the feed is read anew"]
    reader.until_holding({sid: 1})
    change(site, sid, 2)
    reader.until_holding({sid: 2})


# One conference


@pytest.mark.parametrize("sid", [room(1), room(2), room(4)], ids=["ended", "started", "waiting"])
def test_a_stream_of_one_conference_shows_and_tells_only_it_whatever_its_status(several: Site, sid: str) -> None:
    reader = Reader(several, f"?conference={sid}")
    snapshot = reader.up_to_date()
    assert snapshot.data["conferences"] == [several.told(f"/api/conferences/{sid}")]
    assert snapshot.data["more"] is False
    for number in (30, 31):
        for other in (room(3), sid):
            change(several, other, number)
    told = reader.until_holding(revisions(several, sid))
    assert {each.data["conference_sid"] for each in told} == {sid}
    assert len(told) == 2


def test_a_conference_can_be_waited_for_before_it_begins(site: Site) -> None:
    reader = Reader(site, f"?conference={room(1)}")
    assert reader.up_to_date().data["conferences"] == []
    change(site, room(2), 1)
    change(site, room(1), 1)
    assert [each.data["conference_sid"] for each in reader.until_holding({room(1): 1})] == [room(1)]


def test_a_conference_waited_for_that_turns_out_to_be_somebody_elses_is_not_told(site: Site) -> None:
    readers = [
        Reader(site, f"?conference={room(1)}", TENANT),
        Reader(site, f"?conference={room(1)}&account={CHILD}"),
    ]
    for reader in readers:
        assert reader.up_to_date().data["conferences"] == []
    sees = Reader(site, f"?conference={room(1)}", OWNER)
    sees.up_to_date()
    change(site, room(1), 1)
    sees.until_holding({room(1): 1})
    end = Feed(site.redis, SHARDS).end()
    for reader in readers:
        while read_places(reader.last.partition("~")[0], SHARDS) != end:
            assert reader.next().name == "beat"
        again = Reader(site, f"?conference={room(1)}&account={CHILD}")
        assert again.up_to_date().data["conferences"] == []


def test_a_parent_may_follow_a_conference_of_its_subaccount(several: Site) -> None:
    reader = Reader(several, f"?conference={room(5)}", OWNER)
    assert [each["sid"] for each in reader.up_to_date().data["conferences"]] == [room(5)]
    change(several, room(5), 20, account=CHILD)
    reader.until_holding({room(5): 2})


# Beats


def test_a_beat_tells_how_late_the_news_are(site: Site) -> None:
    reader = Reader(site)
    reader.up_to_date()
    reader.until("beat", lambda beat: beat["behind"] == 0)
    site.tell(said("participant-join", CLEO, number=1, second=1))
    first = reader.until("beat", lambda beat: beat["behind"] > 0)[-1]
    reader.until("beat", lambda beat: beat["behind"] > first.data["behind"])
    site.fold()
    reader.until("beat", lambda beat: beat["behind"] == 0)


# A slow reader


def test_a_slow_reader_begins_anew_and_keeps_nobody_else_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "WAITING", 3)
    sid = in_every_shard()[0]
    change(site, sid, 1)
    slow, fast = Reader(site), Reader(site)
    slow.up_to_date()
    fast.up_to_date()
    for number in range(2, 22):
        change(site, sid, number)
        told = fast.until_holding({sid: number})
        assert [each.data["revision"] for each in told] == [number]
    reset, snapshot = slow.until("snapshot")[-2:]
    assert reset.data == {"reason": "slow"}
    assert [each["revision"] for each in snapshot.data["conferences"]] == [21]
    change(site, sid, 22)
    assert [each.data["revision"] for each in slow.until_holding({sid: 22})] == [22]
    assert fanout_of(site).listening == 2


def test_nothing_is_kept_for_a_reader_that_is_lost() -> None:
    listener = Listener(((0, 0),))
    chunk = b"".join([b"a chunk ", b"of its own"])
    alone = sys.getrefcount(chunk)
    for _ in range(fanout.WAITING):
        listener.put(chunk)
    assert sys.getrefcount(chunk) == alone + fanout.WAITING
    for _ in range(100):
        listener.put(chunk)
    assert sys.getrefcount(chunk) == alone
    with pytest.raises(Lost, match="slow"):
        next(listener.chunks())


# Who reads, and who is left


def test_a_stream_ends_with_the_session_that_it_was_opened_by(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LOOKED_AFTER", 0.0)
    page = {"Sec-Fetch-Site": "same-origin"}
    words = {"name": OPERATOR[0], "secret": OPERATOR[1]}
    assert site.http.post("/session", json=words, headers=page).status_code == 204
    mine, keyed = Reader(site, who=None), Reader(site)
    other = site.app.test_client()
    assert other.post("/session", json=words, headers=page).status_code == 204
    mine.up_to_date()
    keyed.up_to_date()
    assert other.delete("/session", headers=page).status_code == 204
    change(site, room(1), 1)
    mine.until_holding({room(1): 1})
    assert site.http.delete("/session", headers=page).status_code == 204
    mine.ends()
    assert site.ask("/api/stream", None).status_code == 401
    change(site, room(1), 2)
    keyed.until_holding({room(1): 2})
    assert fanout_of(site).listening == 1


def test_one_thread_reads_for_everybody_and_only_while_somebody_listens(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "LINGER", 0.1)
    for _ in range(2):
        assert reading() == []
        readers = [Reader(site, query) for query in ("", f"?account={ACCOUNT}", f"?conference={room(1)}") * 3]
        for reader in readers:
            reader.up_to_date()
        [thread] = reading()
        assert fanout_of(site).listening == 9
        for reader in readers[1:]:
            reader.leave()
        assert fanout_of(site).listening == 1
        readers[0].until("beat")
        readers[0].leave()
        assert fanout_of(site).listening == 0
        thread.join(DEADLINE)
        change(site, room(1), 1)


def test_a_hundred_streams_cost_redis_one_reader(redis: Redis, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "WAIT", 0.5)
    monkeypatch.setattr(fanout, "BEAT", 0.5)
    readers = [Reader(site) for _ in range(100)]
    for reader in readers:
        reader.up_to_date()

    def blocked() -> int:
        return sum("b" in client["flags"] for client in redis.client_list())

    until("a reader that waits", blocked)
    sid = in_every_shard()[0]
    for number in range(1, 4):
        change(site, sid, number)
        assert blocked() <= 1
        for reader in readers:
            reader.until_holding({sid: number})
    assert fanout_of(site).listening == 100


def test_more_streams_than_a_process_is_to_have_are_put_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_STREAMS", 2)
    readers = [Reader(site), Reader(site)]
    for reader in readers:
        reader.up_to_date()
    answer = site.ask("/api/stream")
    assert answer.status_code == 503
    assert 2 <= int(answer.headers["Retry-After"]) <= 10
    assert "2 streams" in answer.get_json()["message"]
    assert answer.content_type == "application/json"
    readers[0].leave()
    Reader(site).up_to_date()


def test_the_very_same_bytes_reach_everybody_who_wants_the_same(site: Site) -> None:
    fan, end = fanout_of(site), Feed(site.redis, SHARDS).end()
    with (
        fan.listen(EVERYTHING, end) as one,
        fan.listen(Wanted(None, None), end) as another,
        fan.listen(Wanted(frozenset({ACCOUNT}), None), end) as ours,
    ):
        change(site, room(1), 1)
        heard = [next(chunk for chunk in each.chunks() if b"event: change" in chunk) for each in (one, another, ours)]
    assert heard[0] is heard[1]
    assert heard[0].startswith(heard[2][:20])


# The end


def test_when_the_process_is_to_stop_each_stream_ends_behind_what_it_was_told(site: Site) -> None:
    sid = in_every_shard()[0]
    readers = [Reader(site) for _ in range(3)]
    for reader in readers:
        reader.up_to_date()
    change(site, sid, 1)
    readers[0].until_holding({sid: 1})
    fanout_of(site).stopping = lambda: True
    for reader in readers:
        assert {each.name for each in reader.ends()} <= {"change", "beat"}
        assert reader.revisions == {sid: 1}
    until("the end of reading", lambda: not reading())
    assert fanout_of(site).listening == 0


def test_a_stream_that_comes_while_the_process_stops_ends_at_once(site: Site) -> None:
    fanout_of(site).stopping = lambda: True
    assert Reader(site).ends() == []
    assert Reader(site, last="1.1.1.1").ends() == []
    assert reading() == []
