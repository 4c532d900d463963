"""From a shard's inbox to its documents: claim a batch, fold it, commit. Safe to run twice, safe to kill anywhere."""

from __future__ import annotations

import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime

import structlog
from msgspec.structs import replace
from redis import RedisError

from app import fold
from app.conference import Conference
from app.events import Callback, Event
from app.replay import Track, by_call
from app.store import feed
from app.store.inbox import ONLY_NEW, Batch, Entry, Inbox, Link, Mail, Unread
from app.store.logs import Logged
from app.store.snapshots import (
    Change,
    Commit,
    DeadLetter,
    Fenced,
    Kept,
    Said,
    SeenIn,
    Snapshots,
    others_move,
)
from app.twilio.callbacks import Unusable, read, read_filed

BATCH = 500
"""Entries claimed at once."""
BATCHES = 8
"""Batches of one shard before the others have their turn."""
LONGEST_SPELL = 30.0
"""Seconds; RQ's upkeep has its turn between spells."""
QUIET = 5.0
"""Seconds without mail after which a spell ends."""
TRACKS = 4_000
"""Calls whose latest steps a worker remembers: a few KiB each."""
REREAD_BETWEEN_RENEWALS = 5_000
"""Logged callbacks read again before the lease is renewed: a small part of what it lasts."""
CALL_SID = re.compile(rb"(?:^|&)CallSid=(CA[0-9a-fA-F]{32})(?:&|$)")
TICK = 1.0
"""Seconds that a spell waits for mail before it looks whether it should stop. Well under what a wake-up lasts."""

log = structlog.get_logger("offhook.drain")

Told = tuple[Event, Callback]


class Tracks:
    """How those who have changed lately came to be what they are, see `Track`. Losing one costs time, no more."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[str, str], Track] = {}

    def of(self, conference_sid: str, calls: Iterable[str]) -> dict[str, Track]:
        """What is remembered of these calls."""
        found = ((call, self._tracks.get((conference_sid, call))) for call in calls)
        return {call: track for call, track in found if track is not None}

    def remember(self, conference_sid: str, tracks: Mapping[str, Track]) -> None:
        """Keep these, and forget those that have not changed for longest."""
        for call, track in tracks.items():
            self._tracks.pop((conference_sid, call), None)
            self._tracks[conference_sid, call] = track
        while len(self._tracks) > TRACKS:
            del self._tracks[next(iter(self._tracks))]


class Drain:
    """What an RQ job does: a spell of looking after every shard."""

    def __init__(
        self, *, inbox: Inbox, snapshots: Snapshots, nudge: Callable[[], None], stopping: Callable[[], bool]
    ) -> None:
        self.inbox = inbox
        self.snapshots = snapshots
        self.nudge = nudge
        self.stopping = stopping
        self.tracks = Tracks()

    def spell(self) -> None:
        """Drain whatever shard has mail, and listen for more, until it has been quiet or the time is up.

        While it lasts nobody needs to be woken. It ends only when it leaves no mail behind, or has asked for another.
        """
        began = heard = attended = time.monotonic()
        seen: dict[int, bytes] = {}
        self.inbox.attend()
        while True:
            shards = self.inbox.wait(seen, TICK)
            random.shuffle(shards)  # two spells at once then mostly begin with different shards
            for shard in shards:
                seen[shard] = self.drain(shard)
                if time.monotonic() - attended > TICK:
                    break  # a full shard takes its time; first see whether to stop, and say that all are attended
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

    def drain(self, shard: int) -> bytes:
        """Fold a shard's mail, as far as its lease can be had. Up to which entry it needs no more looking at."""
        batch = self.inbox.claim(shard, BATCH)
        if batch is None:
            return ONLY_NEW  # someone else has it, and sees to all that is there
        for _ in range(BATCHES):
            try:
                left = self.fold(batch)
            except Fenced:
                log.warning("fenced", shard=shard, entries=len(batch.entries))
                return ONLY_NEW
            if left == 0:
                return batch.last_id
            following = self.inbox.claim_again(batch, BATCH)
            if following is None:
                return ONLY_NEW
            batch = following
            if self.stopping():
                break
        self._ask()  # mail piles up: another worker, if one is free, may take its share
        self.inbox.release(batch)
        return b"0"

    def _ask(self) -> None:
        """Ask for another drain. That this fails must not stop the one that is on: the sweep asks again."""
        try:
            self.nudge()
        except RedisError as error:
            log.warning("nobody woken", error=type(error).__name__)

    def fold(self, batch: Batch) -> int:
        """Fold one batch and commit it. How many entries the shard has left. Raises `Fenced`.

        1. Read each callback. What cannot be read becomes a dead letter.
        2. Fold what concerns conferences, each on its own; one that cannot be folded becomes dead letters.
        3. Send on what belongs to other shards. Should we die after this, it is sent twice, which folds to the same.
        4. Commit everything else at once.
        """
        conferences: defaultdict[str, list[Told]] = defaultdict(list)
        calls: list[Told] = []
        letters: list[DeadLetter] = []
        for entry in batch.entries:
            if isinstance(entry, Unread):
                strange = Callback(body=entry.raw, received_at=0, key="")
                letters.append(DeadLetter(strange, "an inbox entry that this release cannot read"))
            elif isinstance(entry, Mail):
                try:
                    event = read(entry.callback)
                except Unusable as error:
                    letters.append(DeadLetter(entry.callback, str(error)))
                    continue
                mail = conferences[event.conference_sid] if event.conference_sid else calls
                mail.append((event, entry.callback))
        links = [entry for entry in batch.entries if isinstance(entry, Link)]

        changes, refused = self._fold_conferences(batch, conferences)
        letters += refused
        notes, forwards = self._note_calls(batch.shard, calls, {(link.call_sid, link.conference_sid) for link in links})
        forwards += [
            (self.inbox.shard_of(sid), Link(sid, change.after.header.sid))
            for change in changes
            for sid in change.after.participants
            if change.before is None or sid not in change.before.participants
        ]
        if forwards and self.inbox.forward(forwards):
            self._ask()
        for letter in letters:
            log.warning(
                "dead letter",
                shard=batch.shard,
                reason=letter.reason,
                received_at=letter.callback.received_at,
            )
        folded = sum(len(change.news) for change in changes)
        noted = sum(isinstance(note, Said) for note in notes)
        return self.snapshots.commit(
            batch,
            fold.VERSION,
            Commit(
                changes=changes,
                call_notes=notes,
                dead_letters=letters,
                folded=folded,
                noted=noted,
                repeated=len(batch.entries) - len(links) - len(letters) - folded - noted,
            ),
        )

    def _fold_conferences(self, batch: Batch, mail: dict[str, list[Told]]) -> tuple[list[Change], list[DeadLetter]]:
        """Each conference's change, and what could not be folded."""
        kept = self.snapshots.load(batch.shard, {sid: _wanted(told) for sid, told in mail.items()}) if mail else {}
        news: dict[str, dict[str, Told]] = {}
        letters: list[DeadLetter] = []
        for sid, told in mail.items():
            own, foreign = _by_account(kept.get(sid), told)
            news[sid] = {event.id: (event, callback) for event, callback in own}
            letters += [DeadLetter(callback, "the conference belongs to another account") for callback in foreign]
        self._forget_repeats(batch.shard, kept, news)
        changes: list[Change] = []
        for sid, fresh in news.items():
            if not fresh:
                continue
            try:
                changes.append(self._changed(batch, kept.get(sid), fresh))
            except RedisError:
                raise
            except Exception as error:  # a fault in the fold must cost one conference's news, never the shard's
                log.exception("fold failed", conference_sid=sid)
                letters += [
                    DeadLetter(callback, f"fold failed: {type(error).__name__}") for _, callback in fresh.values()
                ]
        return changes, letters

    def _forget_repeats(self, shard: int, kept: dict[str, Kept], news: dict[str, dict[str, Told]]) -> None:
        """Take out what has been folded already. Nearly always the document tells that nothing has."""
        asked: dict[str, list[str]] = {}
        for sid, known in kept.items():
            unsure = [event.id for event, _ in news[sid].values() if fold.may_have_heard(known.conference, event)]
            if unsure:
                asked[sid] = unsure
        if asked:
            for sid, heard in self.snapshots.heard(shard, asked).items():
                for event_id in heard:
                    del news[sid][event_id]

    def _changed(self, batch: Batch, known: Kept | None, fresh: dict[str, Told]) -> Change:
        """What these callbacks do to a conference."""
        events = [event for event, _ in fresh.values()]
        if known is None:
            return _change(batch.epoch, None, fold.fold(events), fresh)
        before, sid = known.conference, known.conference.header.sid
        after = self._advanced(batch, before, events) if known.fold_version == fold.VERSION else None
        if after is not None and (known.whole or not others_move(before, after)):
            return _change(batch.epoch, known, after, fresh)
        if not known.whole:
            return self._changed(batch, self.snapshots.load(batch.shard, {sid: None})[sid], fresh)
        logged = self._log_of(batch, sid)
        return _change(batch.epoch, known, fold.fold([*self._reread(batch, sid, logged), *events]), fresh)

    def _advanced(self, batch: Batch, before: Conference, events: list[Event]) -> Conference | None:
        """The conference, by the short way. None: there is none."""
        sid = before.header.sid
        tracks = self.tracks.of(sid, {str(event.call_sid) for event in events})
        after = fold.advance(before, events, tracks)
        if isinstance(after, fold.Missing):
            after = fold.advance(before, events, tracks, self._histories(batch, sid, after.histories))
        if not isinstance(after, fold.Advance):
            return None
        self.tracks.remember(sid, after.tracks)
        return after.conference

    def _histories(self, batch: Batch, sid: str, calls: Collection[str]) -> dict[str, list[Event]]:
        """All that a conference's log holds about some calls."""
        names = {call.encode() for call in calls}
        logged = [each for each in self._log_of(batch, sid) if _named(each.callback) in (None, *names)]
        legs = by_call(self._reread(batch, sid, logged))
        return {call: legs.get(call, []) for call in calls}

    def _log_of(self, batch: Batch, sid: str) -> list[Logged]:
        self.inbox.renew(batch)  # a long log takes its time
        return self.snapshots.log(batch.shard, sid)

    def _reread(self, batch: Batch, sid: str, logged: list[Logged]) -> Iterator[Event]:
        """A log's events. What an earlier release could read and this one cannot is passed over, and said."""
        for place, entry in enumerate(logged, start=1):
            if place % REREAD_BETWEEN_RENEWALS == 0:
                self.inbox.renew(batch)
            try:
                yield read_filed(entry.callback, sid)
            except Unusable as error:
                log.error("unreadable in a log", conference_sid=sid, number=entry.number, reason=str(error))

    def _note_calls(
        self, shard: int, told: list[Told], links: set[tuple[str, str]]
    ) -> tuple[list[SeenIn | Said], list[tuple[int, Entry]]]:
        """Callbacks that name only a call go to every conference that the call has been seen in, before or after."""
        if not told and not links:
            return [], []
        sids = list({sid for sid, _ in links} | {str(event.call_sid) for event, _ in told})
        known = self.snapshots.calls(shard, sids)
        notes: list[SeenIn | Said] = []
        forwards: list[tuple[int, Entry]] = []
        for sid, conference in sorted(links):
            if conference not in known[sid].conferences:
                known[sid].conferences.add(conference)
                notes.append(SeenIn(sid, conference))
                forwards += [self._filed(callback, conference) for callback in known[sid].callbacks.values()]
        for event, callback in told:
            call = known[str(event.call_sid)]
            if event.id not in call.callbacks:
                call.callbacks[event.id] = callback
                notes.append(Said(str(event.call_sid), event.id, callback))
                forwards += [self._filed(callback, conference) for conference in sorted(call.conferences)]
        return notes, forwards

    def _filed(self, callback: Callback, conference_sid: str) -> tuple[int, Entry]:
        return self.inbox.shard_of(conference_sid), Mail(replace(callback, conference_sid=conference_sid))


def _named(callback: Callback) -> bytes | None:
    """Which call a callback is about, where that is plain to see without reading it; most name one."""
    found = CALL_SID.search(callback.body)
    return found[1] if found else None


def _by_account(known: Kept | None, told: list[Told]) -> tuple[list[Told], list[Callback]]:
    """A conference belongs to the account that was first heard of it; another's word on it is set aside."""
    owner = known.conference.header.account_sid if known else told[0][0].account_sid
    own = [(event, callback) for event, callback in told if event.account_sid == owner]
    return own, [callback for event, callback in told if event.account_sid != owner]


def _wanted(told: list[Told]) -> set[str] | None:
    """Whom of a conference these callbacks are about; None: everyone."""
    if any(fold.concerns_everyone(event) for event, _ in told):
        return None
    return {event.call_sid for event, _ in told if event.call_sid is not None}


def _change(epoch: str, known: Kept | None, folded: Conference, fresh: dict[str, Told]) -> Change:
    before = known.conference if known else None
    anew = known is None or known.fold_version != fold.VERSION
    heard = [
        datetime.fromtimestamp(callback.received_at / 1000, UTC)
        for event, callback in fresh.values()
        if event.source != "control"
    ]
    if before is not None and before.header.heard_at is not None:
        heard.append(before.header.heard_at)
    # Folded by another version, somebody may be in it no more. No message tells that: a hole makes everybody read it.
    header = replace(
        folded.header,
        revision=before.header.revision + (2 if anew else 1) if before else 1,
        heard_at=max(heard, default=None),
    )
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
