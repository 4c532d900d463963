"""From a shard's inbox to its documents: claim a batch, fold it, commit. Safe to run twice, safe to kill anywhere."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import NamedTuple, TypeVar

import structlog
from msgspec.structs import replace
from redis import RedisError

from app import alerts, failpoints, fold, healing
from app.alerts import Rules
from app.conference import SHOWN, Conference
from app.events import Callback, Event
from app.fold import Advance
from app.replay import Track, by_call
from app.store import feed
from app.store.commits import CallNotes, Change, Commit, DeadLetter, Said, SeenIn, others_move
from app.store.inbox import ONLY_NEW, Batch, Entry, Inbox, Link, Mail, Unread, raw
from app.store.logs import Logged
from app.store.snapshots import Kept, Snapshots
from app.twilio import debugger
from app.twilio.callbacks import Glance, Unusable, call_in, glance, read, read_filed

BATCH = 500
"""Entries of one shard claimed at once, at most."""
PASS = 8_000
"""Entries of all shards claimed at once, at most. Half a second's work, mostly; the more at once, the cheaper each."""
RENEWED_EVERY = 1.0
"""Seconds after which a pass that takes longer has its leases last their whole length again."""
LONGEST_SPELL = 30.0
"""Seconds; RQ's upkeep has its turn between spells."""
BEGUN_ALONE = 3
"""How often a callback is begun by itself. If none of them came to an end, it is set aside unread."""
QUIET = 5.0
"""Seconds without mail after which a spell ends."""
TRACKS = 4_000
"""Calls whose latest steps a worker remembers, at most: a few KiB each."""
PAUSE = 0.0005
"""Seconds for each callback of the last time that a spell lets more come before it looks again. Few cost nearly as much
as many: the more there are, the more it pays to take them together."""
LONGEST_PAUSE = 0.02
CALL_SID = re.compile(rb"(?:^|&)CallSid=(CA[0-9a-fA-F]{32})(?:&|$)")
TICK = 1.0
"""Seconds that a spell waits for mail before it looks whether it should stop. Well under what a wake-up lasts."""

CODE = f"offhook {version('offhook')}, fold {fold.VERSION}"

log = structlog.get_logger("offhook.drain")

Told = tuple[Event, Callback]
T = TypeVar("T")


class Remembered(NamedTuple):
    """How a conference stood when this worker committed it."""

    epoch: str
    revision: int
    tracks: dict[str, Track]
    """By call: how those who have changed lately came to be what they are."""


class Tracks:
    """What this worker remembers of the conferences that it committed last. Losing it costs time, no more."""

    def __init__(self) -> None:
        self._remembered: dict[str, Remembered] = {}
        self._calls = 0

    def of(self, sid: str, epoch: str, revision: int) -> dict[str, Track]:
        """The tracks of a conference, if nobody has changed it since."""
        known = self._remembered.get(sid)
        return known.tracks if known is not None and known[:2] == (epoch, revision) else {}

    def remember(self, sid: str, epoch: str, revision: int, moved: Mapping[str, Track] | None) -> None:
        """What the commit of this revision has led to. None: nothing of what was known before holds.

        Those that have not changed for longest are forgotten.
        """
        tracks = self.of(sid, epoch, revision - 1) if moved is not None else {}
        self._calls -= len(self._remembered.pop(sid, NOTHING).tracks)
        tracks.update(moved or {})
        if tracks:
            self._remembered[sid] = Remembered(epoch, revision, tracks)
            self._calls += len(tracks)
        while self._calls > TRACKS:
            self._calls -= len(self._remembered.pop(next(iter(self._remembered))).tracks)


NOTHING = Remembered("", 0, {})
NO_RULES: Rules = {}


class After(NamedTuple):
    """A conference before and after some callbacks."""

    before: Kept | None
    conference: Conference
    tracks: dict[str, Track] | None
    """Of the calls that have changed. None: it was folded from its log."""

    @property
    def set_aside(self) -> tuple[str, ...]:
        """What was set aside of it before."""
        return self.before.conference.header.set_aside if self.before else ()


class Folded(NamedTuple):
    """What became of a conference, and of its tracks."""

    change: Change
    tracks: dict[str, Track] | None
    """Of the calls that have changed. None: it was folded from its log."""


class Drain:
    """What an RQ job does: a spell of looking after every shard."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        snapshots: Snapshots,
        nudge: Callable[[], None],
        stopping: Callable[[], bool],
        rules: Rules = NO_RULES,
        outgoing: bool = False,
        heals: bool = True,
    ) -> None:
        """`rules`: by which alerts are raised. `outgoing`: whether others are to be told of alerts. `heals`: whether
        anybody looks at Twilio's REST API when that is wanted.
        """
        self.inbox = inbox
        self.snapshots = snapshots
        self.nudge = nudge
        self.stopping = stopping
        self.rules = rules
        self.outgoing = outgoing
        self.heals = heals
        self.tracks = Tracks()
        self.renewed = 0.0
        """When the leases of this pass last began."""
        self.folded = 0
        """How many entries were folded at once the last time."""
        self.company = False
        """Whether another drain held a shard when this one last looked."""
        self.at_work: float | None = None
        """When the pass that is under way was last seen to get on, by time.monotonic(). None: there is none."""

    def spell(self) -> None:
        """Drain whatever shard has mail, and listen for more, until it has been quiet or the time is up.

        While it lasts nobody needs to be woken. It ends only when it leaves no mail behind, or has asked for another.
        """
        began = heard = attended = time.monotonic()
        seen: dict[int, bytes] = {}
        self.inbox.attend()
        while True:
            shards = self.inbox.wait(seen, TICK)
            seen |= self.drain(shards)
            time.sleep(min(LONGEST_PAUSE, self.folded * PAUSE))
            now = time.monotonic()
            if shards:
                heard = now
            over = self.stopping() or now - began > LONGEST_SPELL
            if over or now - heard > QUIET:
                mail = self.inbox.leave()
                if over and mail:
                    self._ask()
                if over or not mail:
                    return
                seen.clear()
            if now - attended > TICK or now - heard > QUIET:
                self.inbox.attend()
                attended = now
                # whoever had these may have died since; asking again finds out
                seen = {shard: last for shard, last in seen.items() if last != ONLY_NEW}

    def drain(self, shards: Sequence[int]) -> dict[int, bytes]:
        """Fold the oldest of these shards' mail, as far as their leases can be had.

        By shard, up to which entry it needs no more looking at. All shards take each step together: a round trip of
        Redis for all of them costs hardly more than one for each.
        """
        if self.company:  # another drain is at it: neither is to take everything at once
            shards = random.sample(shards, (len(shards) + 1) // 2)
        shards = shards[:PASS]
        most = max(1, min(BATCH, PASS // max(1, len(shards))))
        batches, held, suspect = self.inbox.claim(shards, most, fold.VERSION)
        failpoints.reach("after_claim")
        self.company = bool(held)
        self.folded = sum(len(batch.entries) for batch in batches)
        seen = dict.fromkeys(held, ONLY_NEW)  # whoever has these sees to all that is there
        left = self.fold(batches)
        for batch, waiting in zip(batches, left, strict=True):
            seen[batch.shard] = ONLY_NEW if waiting is None else batch.last_id
        if sum(waiting or 0 for waiting in left) >= BATCH:
            self._ask()  # mail piles up: another worker, if one is free, may take its share
        for shard in suspect:
            self._one_by_one(shard)
        return seen

    def _one_by_one(self, shard: int) -> None:
        """Fold a batch that may have killed who began it, each of it by itself, apart from the mail of other shards."""
        log.warning("folding one by one what was begun and never committed", shard=shard)
        while not self.stopping():
            batch = self.inbox.claim_alone(shard, fold.VERSION)
            if batch is None or self.fold([batch]) == [None]:
                return

    def _ask(self) -> None:
        """Ask for another drain. That this fails must not stop the one that is on: the sweep asks again."""
        try:
            self.nudge()
        except RedisError as error:
            log.warning("nobody woken", error=type(error).__name__)

    def fold(self, batches: Sequence[Batch]) -> list[int | None]:
        """Fold batches of different shards and commit each. How many entries its shard has left; None: it was fenced.

        1. Read each callback. What cannot be read becomes a dead letter.
        2. Fold what concerns conferences, each on its own; one that cannot be folded becomes dead letters.
        3. Send on what belongs to other shards. Should we die after this, it is sent twice, which folds to the same.
        4. Commit each batch at once.
        """
        if not batches:
            return []
        self.renewed = self.at_work = time.monotonic()
        try:
            return self._fold(batches)
        finally:
            self.at_work = None

    def _fold(self, batches: Sequence[Batch]) -> list[int | None]:
        piles = [_pile(batch) for batch in batches]
        known = self._known(piles)
        folded = [self._folded(pile, known, batches) for pile in piles]
        notes, forwards = self._note_calls(piles)
        forwards += [
            (self.inbox.shard_of(sid), Link(sid, change.after.header.sid))
            for some in folded
            for change, _ in some
            for sid in change.after.participants
            if change.before is None or sid not in change.before.participants
        ]
        self._keep(batches)
        failpoints.reach("before_forward")
        if forwards and self.inbox.forward(forwards):
            self._ask()
        failpoints.reach("before_commit")
        commits = [_commit(*each) for each in zip(piles, folded, notes, strict=True)]
        left = self.snapshots.commit(zip(batches, commits, strict=True), fold.VERSION)
        failpoints.reach("after_commit")
        refused = [batch.shard for batch, waiting in zip(batches, left, strict=True) if waiting is None]
        if refused:
            log.warning("not committed: another drain has done it, or has the lease", shards=refused)
        for pile, some, waiting in zip(piles, folded, left, strict=True):
            if waiting is not None:
                self._remember(pile.batch.epoch, some)
        return left

    def _remember(self, epoch: str, folded: Sequence[Folded]) -> None:
        """What has been committed is what tracks lead to from now on."""
        for change, tracks in folded:
            header = change.after.header
            self.tracks.remember(header.sid, epoch, header.revision, tracks)

    def _keep(self, batches: Sequence[Batch]) -> None:
        """Have the leases of a pass that takes its time last longer."""
        now = time.monotonic()
        self.at_work = now
        if now - self.renewed > RENEWED_EVERY:
            self.inbox.renew(batches)
            self.renewed = time.monotonic()

    def _known(self, piles: Sequence[Pile]) -> dict[str, Kept]:
        """The conferences that the callbacks are about, as far as they are. Takes repeats out of the piles."""
        wanted = {sid: _wanted(fresh.values()) for pile in piles for sid, fresh in pile.conferences.items()}
        known = self.snapshots.load(wanted) if wanted else {}
        asked: dict[str, list[str]] = {}
        for pile in piles:
            for sid, fresh in pile.conferences.items():
                if sid in known:
                    _set_strangers_aside(pile, known[sid].conference.header.account_sid, fresh)
                    unsure = [event.id for event, _ in fresh.values() if _may_have_heard(known[sid], event)]
                    unsure += [mark.event_id for mark in pile.marks.get(sid, ())]
                    if unsure:
                        asked[sid] = unsure
                elif fresh:
                    _set_strangers_aside(pile, next(iter(fresh.values()))[0].account_sid, fresh)
        heard = self.snapshots.heard(asked) if asked else {}
        for pile in piles:
            for sid in pile.conferences.keys() & heard.keys():
                for event_id in heard[sid]:
                    pile.conferences[sid].pop(event_id, None)
                pile.repeats[sid] = heard[sid]
        return known

    def _folded(self, pile: Pile, known: Mapping[str, Kept], batches: Sequence[Batch]) -> list[Folded]:
        """What a pile does to conferences. What cannot be folded is set aside, and its conference says so."""
        folded: list[Folded] = []
        for sid, fresh in pile.conferences.items():
            self._keep(batches)
            after, culprits = self._sound(pile.batch.epoch, known.get(sid), fresh, batches)
            for event_id, reason in culprits.items():
                pile.set_aside(fresh.pop(event_id)[1], reason)
            before = known.get(sid)
            if after is None and before is not None and before.fold_version == fold.VERSION:
                after = After(before, before.conference, {})
            if after is None:
                continue
            set_aside = pile.set_aside_of(sid, after)
            if fresh or set_aside != after.set_aside:
                change = _change(pile.batch.epoch, after.before, after.conference, fresh, set_aside, self.heals)
                folded.append(Folded(self._watched(change, fresh.values()), after.tracks))
        return folded

    def _watched(self, change: Change, fresh: Collection[Told]) -> Change:
        """With what the change means for alerts."""
        anew = change.anew and change.before is not None
        timers = _spared(
            "alerts",
            change.after,
            lambda: alerts.timers(self.rules, change.before, change.after, datetime.now(UTC), anew=anew),
        )
        timers = timers or alerts.NONE
        raised = [(event.id, told.body) for event, told in fresh if event.alert is not None] if self.outgoing else []
        return change._replace(timers=timers, outgoing=raised) if timers is not alerts.NONE or raised else change

    def _sound(
        self, epoch: str, known: Kept | None, fresh: dict[str, Told], batches: Sequence[Batch]
    ) -> tuple[After | None, dict[str, str]]:
        """The conference after these callbacks, and why some of them cannot be folded, by event id.

        A fault in the fold must cost the callbacks that meet with it, never the others of their conference or shard.
        """
        if not fresh:
            return None, {}
        try:
            return self._after(epoch, known, fresh, batches), {}
        except RedisError:
            raise
        except Exception as error:
            failure, reason = error, f"fold failed: {type(error).__name__}"
        culprits: dict[str, str] = {}
        if len(fresh) > 1:
            ids = list(fresh)
            for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
                culprits |= self._sound(epoch, known, {each: fresh[each] for each in half}, batches)[1]
        if not culprits:  # it is one, or each half is fine by itself
            sid = next(iter(fresh.values()))[0].conference_sid
            log.error("fold failed", conference_sid=sid, callbacks=len(fresh), exc_info=failure)
            return None, dict.fromkeys(fresh, reason)
        rest = {event_id: told for event_id, told in fresh.items() if event_id not in culprits}
        after, more = self._sound(epoch, known, rest, batches)
        return after, culprits | more

    def _after(self, epoch: str, known: Kept | None, fresh: dict[str, Told], batches: Sequence[Batch]) -> After:
        """The conference after these callbacks. `batches` are those whose leases are to be kept meanwhile."""
        if failpoints.armed:
            for _, callback in fresh.values():
                failpoints.reach("before_fold", callback.body)
        events = [event for event, _ in fresh.values()]
        if known is None:
            return After(None, fold.fold(events), None)
        before, sid = known.conference, known.conference.header.sid
        after = self._advanced(epoch, before, events, batches) if known.fold_version == fold.VERSION else None
        if after is not None and (known.whole or not others_move(before, after.conference)):
            return After(known, after.conference, after.tracks)
        if not known.whole:
            return self._after(epoch, self.snapshots.load({sid: None})[sid], fresh, batches)
        logged = self._reread(sid, self.snapshots.log(sid), batches)
        return After(known, fold.fold([*logged, *events]), None)

    def _advanced(
        self, epoch: str, before: Conference, events: list[Event], batches: Sequence[Batch]
    ) -> Advance | None:
        """The conference, by the short way. None: there is none."""
        sid = before.header.sid
        tracks = self.tracks.of(sid, epoch, before.header.revision)
        after = fold.advance(before, events, tracks)
        if isinstance(after, fold.Missing):
            after = fold.advance(before, events, tracks, self._histories(sid, after.histories, batches))
        return after if isinstance(after, Advance) else None

    def _histories(self, sid: str, calls: Collection[str], batches: Sequence[Batch]) -> dict[str, list[Event]]:
        """All that a conference's log holds about some calls."""
        names = {call.encode() for call in calls}
        logged = [each for each in self.snapshots.log(sid) if _named(each.callback) in (None, *names)]
        legs = by_call({event.id: event for event in self._reread(sid, logged, batches)}.values())
        return {call: legs.get(call, []) for call in calls}

    def _reread(self, sid: str, logged: list[Logged], batches: Sequence[Batch]) -> Iterator[Event]:
        """A log's events. What an earlier release could read and this one cannot is passed over, and said."""
        for entry in logged:
            self._keep(batches)
            try:
                yield read_filed(entry.callback, sid)
            except Unusable as error:
                log.error("unreadable in a log", conference_sid=sid, number=entry.number, reason=str(error))

    def _note_calls(self, piles: Sequence[Pile]) -> tuple[list[list[SeenIn | Said]], list[tuple[int, Entry]]]:
        """Callbacks that name only a call go to every conference that the call has been seen in, before or after.

        What each pile has to remember, and what is to be sent on.
        """
        sids = {sid for pile in piles for sid, _ in pile.links}
        sids |= {str(event.call_sid) for pile in piles for event, _ in pile.calls}
        known = self.snapshots.calls(list(sids)) if sids else {}
        forwards: list[tuple[int, Entry]] = []
        return [self._noted(pile, known, forwards) for pile in piles], forwards

    def _noted(self, pile: Pile, known: dict[str, CallNotes], forwards: list[tuple[int, Entry]]) -> list[SeenIn | Said]:
        notes: list[SeenIn | Said] = []
        for sid, conference in sorted(pile.links):
            if conference not in known[sid].conferences:
                known[sid].conferences.add(conference)
                notes.append(SeenIn(sid, conference))
                forwards += [self._filed(callback, conference) for callback in known[sid].callbacks.values()]
        for event, callback in pile.calls:
            call = known[str(event.call_sid)]
            if event.id not in call.callbacks:
                call.callbacks[event.id] = callback
                notes.append(Said(str(event.call_sid), event.id, callback))
                forwards += [self._filed(callback, conference) for conference in sorted(call.conferences)]
        return notes

    def _filed(self, callback: Callback, conference_sid: str) -> tuple[int, Entry]:
        return self.inbox.shard_of(conference_sid), Mail(replace(callback, conference_sid=conference_sid))


class Pile(NamedTuple):
    """One batch, sorted."""

    batch: Batch
    conferences: dict[str, dict[str, Told]]
    """What is about each conference, by event id. Of one that only has something set aside it is empty."""
    calls: list[Told]
    links: set[tuple[str, str]]
    """Calls, and conferences that they were seen in."""
    letters: list[DeadLetter]
    """What is set aside."""
    marks: dict[str, list[Glance]]
    """By conference, what is set aside of it."""
    repeats: dict[str, set[str]]
    """By conference, the ids of those that are in its log already."""

    def set_aside(self, callback: Callback, reason: str, *, marked: bool = True) -> None:
        """Make a dead letter of a callback that cannot be folded. Unless told not to, its conference will say so."""
        self.letters.append(_letter(reason, callback))
        seen = glance(callback) if marked else None
        if seen is not None:
            self.conferences.setdefault(seen.conference_sid, {})
            self.marks.setdefault(seen.conference_sid, []).append(seen)

    def set_aside_of(self, sid: str, after: After) -> tuple[str, ...]:
        """The ids of a conference's events that are set aside, once this pile is done with."""
        if not after.set_aside and sid not in self.marks:
            return ()  # nearly always
        folded = self.conferences[sid].keys() | self.repeats.get(sid, set())
        owner = after.conference.header.account_sid
        ids = [*after.set_aside, *(mark.event_id for mark in self.marks.get(sid, ()) if mark.account_sid == owner)]
        return tuple(event_id for event_id in dict.fromkeys(ids) if event_id not in folded)[-SHOWN:]


def _pile(batch: Batch) -> Pile:
    pile = Pile(batch, {}, [], set(), [], {}, {})
    for entry in batch.entries:
        if batch.begun >= BEGUN_ALONE:
            _give_up(pile, entry, f"begun by itself {batch.begun} times, and never finished")
        elif isinstance(entry, Unread):
            _give_up(pile, entry, "an inbox entry that this release cannot read")
        elif isinstance(entry, Link):
            pile.links.add((entry.call_sid, entry.conference_sid))
        else:
            _sort(pile, entry.callback)
    return pile


def _give_up(pile: Pile, entry: Entry | Unread, reason: str) -> None:
    """Set an entry aside that nobody can or dares to read."""
    if isinstance(entry, Mail):
        pile.set_aside(entry.callback, reason)
    else:
        pile.letters.append(_letter(reason, Callback(body=raw(entry), received_at=0, key=""), entry=True))


def _letter(reason: str, callback: Callback, *, entry: bool = False) -> DeadLetter:
    return DeadLetter(reason, callback, time.time_ns() // 1_000_000, CODE, entry)


def _sort(pile: Pile, callback: Callback) -> None:
    try:
        if failpoints.armed:
            failpoints.reach("before_read", callback.body)
        event = read(callback)
    except Unusable as error:
        pile.set_aside(callback, str(error))
    except Exception as error:  # a fault in the reading must cost this callback, never the shard
        log.exception("reading failed")
        pile.set_aside(callback, f"reading failed: {type(error).__name__}")
    else:
        if event.conference_sid:
            pile.conferences.setdefault(event.conference_sid, {})[event.id] = (event, callback)
        else:
            pile.calls.append((event, callback))


def _set_strangers_aside(pile: Pile, owner: str, fresh: dict[str, Told]) -> None:
    """A conference belongs to the account that was first heard of it; another's word on it is set aside."""
    for event, callback in [told for told in fresh.values() if told[0].account_sid != owner]:
        pile.set_aside(callback, "the conference belongs to another account", marked=False)
        del fresh[event.id]


def _commit(pile: Pile, folded: list[Folded], notes: list[SeenIn | Said]) -> Commit:
    for letter in pile.letters:
        received_at = letter.callback.received_at
        log.warning("dead letter", shard=pile.batch.shard, reason=letter.reason, received_at=received_at)
    changes = [change for change, _ in folded]
    told = sum(len(change.news) for change in changes)
    noted = sum(isinstance(note, Said) for note in notes)
    callbacks = sum(not isinstance(entry, Link) for entry in pile.batch.entries)
    return Commit(
        changes=changes,
        call_notes=notes,
        dead_letters=pile.letters,
        folded=told,
        noted=noted,
        repeated=callbacks - len(pile.letters) - told - noted,
    )


def _named(callback: Callback) -> bytes | None:
    """Which call a callback of Twilio's is about, where that is plain to see without reading it; most name one."""
    if callback.media == "json" or (callback.media == "form" and debugger.MARK in callback.body):
        call = call_in(callback)
        return call.encode() if call else None
    if callback.media != "form":
        return None
    found = CALL_SID.search(callback.body)
    return found[1] if found else None


def _may_have_heard(known: Kept, event: Event) -> bool:
    """Whether the log must be asked. A document of another release may not tell what has been heard."""
    return known.fold_version != fold.VERSION or fold.may_have_heard(known.conference, event)


def _wanted(told: Collection[Told]) -> set[str] | None:
    """Whom of a conference these callbacks are about; None: everyone. What an alert is about may be any of them."""
    if any(fold.concerns_everyone(event) or event.alert is not None for event, _ in told):
        return None
    return {event.call_sid for event, _ in told if event.call_sid is not None}


def _change(
    epoch: str, known: Kept | None, folded: Conference, fresh: dict[str, Told], set_aside: tuple[str, ...], heals: bool
) -> Change:
    before = known.conference if known else None
    anew = known is None or known.fold_version != fold.VERSION
    was = before.header if before else None
    heard = _latest(
        was.heard_at if was else None, (told for told in fresh.values() if told[0].source not in fold.OUR_OWN)
    )
    asked = _latest(was.asked_at if was else None, (told for told in fresh.values() if told[0].snapshot is not None))
    # Folded by another version, somebody may be in it no more. No message tells that: a hole makes everybody read it.
    header = replace(
        folded.header,
        revision=before.header.revision + (2 if anew else 1) if before else 1,
        heard_at=heard,
        asked_at=asked,
        set_aside=set_aside,
    )
    if heals:
        want = _spared("healing", folded, lambda: healing.wanted(was, header, datetime.now(UTC)))
        header = replace(header, want=want)
    changed = [
        participant
        for participant in folded.in_order()
        if anew or before is None or before.participants.get(participant.call_sid) != participant
    ]
    return Change(
        before=before,
        anew=anew,
        after=Conference(header, folded.participants),
        changed=changed,
        news=[(event.id, callback) for event, callback in fresh.values()],
        message=feed.message(epoch, header, changed, (event for event, _ in fresh.values())),
    )


def _spared(what: str, conference: Conference, worked_out: Callable[[], T]) -> T | None:
    """What only follows from a change; None if that fails, which must cost no callback."""
    try:
        return worked_out()
    except Exception as error:
        sid = conference.header.sid
        log.exception("a change was not looked at", by=what, conference_sid=sid, error=type(error).__name__)
        return None


def _latest(known: datetime | None, told: Iterable[Told]) -> datetime | None:
    """When the latest of these callbacks came, unless an earlier one is known to have come later."""
    times = [datetime.fromtimestamp(callback.received_at / 1000, UTC) for _, callback in told]
    return max([*times, *([known] if known else [])], default=None)
