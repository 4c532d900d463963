"""Raises and clears alerts: looks at a conference when the time for it has come, and writes down what it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import msgspec
import structlog
from redis import RedisError

from app import fold
from app.alerts import Record, Rules, Verdict, encode_record, id_of, timers, verdict
from app.events import Alert, Callback
from app.store.alerts import Alerts, Look
from app.store.commits import milliseconds
from app.store.inbox import Inbox, Posted
from app.store.snapshots import Kept, Snapshots

AT_ONCE = 500
"""Timers of one shard at once, at most."""
LOADED_AT_ONCE = 50
"""Conferences, each with everyone in it."""
SAY_AGAIN = 60.0
"""Seconds after which a record is written once more, should it be lost. Draining may lag."""
BY_ANOTHER_FOLD = AFTER_A_FAULT = timedelta(seconds=30)
"""After which is looked again: at what another release has folded, until a callback mends that; or after a failure."""
EVERYTHING = ("*", "")
"""Stands for all rules and subjects: whoever looks sets the looks that they need."""

log = structlog.get_logger("offhook.alerts")


class Lookout:
    """What a worker does about alerts. Several may do so at once: the log knows a record that it has."""

    def __init__(
        self,
        inbox: Inbox,
        snapshots: Snapshots,
        rules: Rules,
        nudge: Callable[[], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.inbox = inbox
        self.snapshots = snapshots
        self.alerts = Alerts(snapshots)
        self.rules = rules
        self.nudge = nudge
        self.clock = clock
        self.follows = False
        """Whether it is known that conferences are watched by these rules."""
        self.said: dict[Look, float] = {}
        """When the record that a look led to was last written."""

    def look(self) -> None:
        """Look at all whose time has come. Raises redis.RedisError; then the next look makes up for it."""
        if not self.follows:
            self._follow()
        moment = self.clock()
        self.said = {look: at for look, at in self.said.items() if time.monotonic() - at < SAY_AGAIN}
        due = [look for look in self.alerts.due(moment, AT_ONCE) if look not in self.said]
        sids = list({look.conference_sid: None for look in due})
        for start in range(0, len(sids), LOADED_AT_ONCE):
            some = sids[start : start + LOADED_AT_ONCE]
            known = self.snapshots.load(dict.fromkeys(some))
            self._look([look for look in due if look.conference_sid in some], known, moment)

    def _follow(self) -> None:
        """Where alerts were raised by other rules before, have every conference looked at that they may concern."""
        digest = blake2b(msgspec.json.encode(list(self.rules.values())), digest_size=12).hexdigest()
        before = self.alerts.rules()
        if before != digest:
            moment = self.clock()
            if self.rules or before is not None:
                for sids in (self.snapshots.live(), self.alerts.conferences()):
                    for some in _batches(sids):
                        self.alerts.watch(Look(sid, EVERYTHING, moment) for sid in some)
            self.alerts.follow(digest)
        self.follows = True

    def _look(self, due: Sequence[Look], known: dict[str, Kept], moment: datetime) -> None:
        done: list[tuple[Look, datetime | None]] = []
        found: list[tuple[Look, Record]] = []
        for look in due:
            kept = known.get(look.conference_sid)
            if kept is None:
                done.append((look, None))
            elif kept.fold_version != fold.VERSION:
                done.append((look, moment + BY_ANOTHER_FOLD))
            elif look.key == EVERYTHING:
                done.append((look, self._watched(kept, moment)))
            else:
                alert, again = self._decided(kept, look, moment)
                if alert is None:
                    done.append((look, again))
                else:
                    found.append((look, _record(kept, alert)))
        done += [(look, None) for look in self._written(found, moment)]
        if done:
            self.alerts.looked(done)

    def _decided(self, kept: Kept, look: Look, moment: datetime) -> Verdict:
        """What is to be done about it. A fault of ours must not stop others from being looked at."""
        try:
            return verdict(self.rules, kept.conference, look.key, look.due, moment)
        except Exception:
            log.exception("looking failed", conference_sid=look.conference_sid, rule=look.key[0])
            return Verdict(again_at=moment + AFTER_A_FAULT)

    def _watched(self, kept: Kept, moment: datetime) -> datetime | None:
        """Set the looks that a conference needs, as far as there are none. When to try again, if that fails."""
        sid = kept.conference.header.sid
        try:
            at = timers(self.rules, None, kept.conference, moment, anew=True).at
        except Exception:
            log.exception("looking failed", conference_sid=sid, rule=EVERYTHING[0])
            return moment + AFTER_A_FAULT
        self.alerts.watch(Look(sid, key, when) for key, when in at.items())
        return None

    def _written(self, found: Sequence[tuple[Look, Record]], moment: datetime) -> list[Look]:
        """Write records into the inboxes. Those looks whose records are in the log already; they are done with."""
        if not found:
            return []
        asked: dict[str, list[str]] = {}
        for look, record in found:
            asked.setdefault(look.conference_sid, []).append(id_of(record))
        heard = self.snapshots.heard(asked)
        repeated = [look for look, record in found if id_of(record) in heard[look.conference_sid]]
        fresh = [(look, record) for look, record in found if look not in repeated]
        mail = [
            Posted(
                self.inbox.shard_of(look.conference_sid),
                Callback(body=encode_record(record), media="alert", received_at=milliseconds(moment), key="offhook"),
            )
            for look, record in fresh
        ]
        due = False
        for (look, record), outcome in zip(fresh, self.inbox.append_all(mail), strict=True):
            if isinstance(outcome, RedisError):
                log.warning("an alert cannot be written down", rule=record.alert.rule, error=type(outcome).__name__)
                continue
            due = outcome or due
            self.said[look] = time.monotonic()
        if due:
            self.nudge()
        return repeated


def _record(kept: Kept, alert: Alert) -> Record:
    header = kept.conference.header
    return Record(account_sid=header.account_sid, conference_sid=header.sid, alert=alert)


def _batches(sids: Iterable[str]) -> Iterable[list[str]]:
    """These sids, a few hundred at a time."""
    batch: list[str] = []
    for sid in sids:
        batch.append(sid)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
