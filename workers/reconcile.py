"""Looks at Twilio's REST API when there is a reason to: within a budget, one at a time, each written down.

A look is one fetch of a conference and one list of its participants. What it shows joins the conference's log as a
record, like a callback; what it means is for the fold. Why and when to look is said by commits (`app.healing`), and
here: where web was away, where an operator asks, and of what goes on when Offhook starts.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import msgspec
import structlog
from msgspec.structs import replace
from redis import RedisError

from app.conference import Header, read_header
from app.events import Callback
from app.store.attendance import Attendance, Outage
from app.store.budget import Budget, Outcome
from app.store.inbox import Full, Inbox, Posted, lag
from app.store.index import LIVE
from app.store.looks import ASKED, LONGEST, Begun, Due, Listing, Looks
from app.store.snapshots import Snapshots
from app.twilio import snapshot
from app.twilio.snapshot import Record, Resource, Unexpected
from app.twilio.times import read_time
from app.upstream.api import Answer, Busy, Twilio, Unanswered

EVERY = 1.0
"""Seconds between two rounds with nothing to do."""
AT_ONCE = 50
"""Looks of each shard that one round considers."""
LOOK = 2
"""Requests."""
AT_THE_SAME_TIME = 4
"""Accounts that one worker asks about, each with one request under way."""
FOLDED_WITHIN = 600_000
"""Milliseconds for which the record of a look may wait to be folded. Until then the fold does not get another."""
COME_BACK = 10_000
"""Milliseconds after which it is seen whether it is."""
BEHIND = 1_000
"""Milliseconds that mail may wait before nothing is said to be lost of its shard. So long a look is put off then."""
LISTED_EVERY = 10.0
"""Seconds between two questions whether an account is yet to be listed: at the start, and after Redis was emptied."""
LISTED_AGAIN, LISTED_AT_LEAST = 10_000, 3_600_000
"""Milliseconds after which a list that has failed is gone on with: the first time, and at most; each time twice as
long."""
PAGES = 20
"""Of an account's conferences in progress, at most: newest first, a thousand each."""
PATIENCE = 5_000
"""Milliseconds that a list waits for the budget of its next page. What takes longer is gone on with later."""
ERRAND_LASTS = 120
"""Seconds for which an errand is left to who has begun it. Two at once do no harm but ask twice."""
OURS = "offhook"
"""Who asks where nobody does: the key that our own records carry."""

log = structlog.get_logger("offhook.reconcile")

T = TypeVar("T")


class Found(NamedTuple, Generic[T]):
    """An answer."""

    what: T | None
    """None: Twilio says that it does not know this."""
    at: datetime
    """A moment on Twilio's clock at which it was surely not yet made."""


class Failed(Exception):
    """A request that told nothing; the message is for the log."""


class PassedOn(Exception):
    """Another worker has begun the same look, for we took too long."""


class Turn:
    """One look under way, with the requests that are paid for and not made yet."""

    def __init__(self, account: str, sid: str, token: str) -> None:
        self.account = account
        self.sid = sid
        self.token = token
        self.left = LOOK


class _Owner(msgspec.Struct):
    """As much of a header as tells whose budget it is about. Every release has it."""

    account_sid: str


_owner = msgspec.json.Decoder(_Owner).decode


def _is_asked_for(dues: Sequence[Due]) -> bool:
    """Whether somebody waits for this look."""
    return any(due.reason == "operator" for due in dues)


def _in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True, name="look").start()


class Reconcile:
    """What one worker does about it, in a thread of its own."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        snapshots: Snapshots,
        looks: Looks,
        budget: Budget,
        attendance: Attendance,
        twilio: Twilio,
        nudge: Callable[[], None],
        adopts: bool = True,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
        start: Callable[[Callable[[], None]], None] = _in_a_thread,
    ) -> None:
        """`adopts`: whether conferences that go on and are not known are taken over. `clock` gives seconds since 1970,
        `timer` seconds since anything, `chance` numbers from 0 to 1; `start` does something beside everything else.
        """
        self.inbox = inbox
        self.snapshots = snapshots
        self.looks = looks
        self.budget = budget
        self.attendance = attendance
        self.twilio = twilio
        self.accounts = sorted(twilio.logins)
        self.nudge = nudge
        self.adopts = adopts
        self.clock = clock
        self.timer = timer
        self.sleep = sleep
        self.chance = chance
        self.start = start
        self._lists_at = self.timer()
        self._under_way: set[str] = set()
        self._sooner = threading.Event()
        """Set when a look was put off: the next round may be due before its time."""
        self._turns: dict[str, int] = {}
        """When what was put off is due, in ms, by account; the first of it, the last time."""

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set. Redis being away is waited for."""
        while True:
            pause = EVERY
            self._sooner.clear()
            try:
                self.see_to_outage()
                self.adopt()
                pause = self.round(stop.is_set)
            except RedisError as error:
                log.warning("cannot reconcile", error=type(error).__name__)
            except Exception:  # without it a worker would go on as if nothing were ever lost
                log.exception("reconciling failed")
            self._sooner.wait(pause)
            if stop.is_set():
                return

    def _now(self) -> int:
        return int(self.clock() * 1000)

    # Looks

    def round(self, stopping: Callable[[], bool] = lambda: False) -> float:
        """Have the looks that are due, as far as budgets allow. For how many seconds to rest then.

        Each account has a thread of its own meanwhile, as far as `AT_THE_SAME_TIME` allows: a slow answer keeps nobody
        else waiting. What cannot be had now is put off to when its turn comes: it must not be in the way of others.
        """
        now = self._now()
        due: dict[str, list[Due]] = {}
        for each in self.looks.due(now, AT_ONCE):
            due.setdefault(each.sid, []).append(each)
        headers = dict(zip(due, self.snapshots.headers(list(due)), strict=True))
        behind = self._behind(now) if due else set()
        late: list[Due] = []
        queues: dict[str, list[list[Due]]] = {}
        for sid, dues in sorted(due.items(), key=lambda item: not _is_asked_for(item[1])):  # and the oldest first
            if self.inbox.shard_of(sid) in behind and not _is_asked_for(dues):
                late += dues
                continue
            raw = headers[sid]
            queues.setdefault(_owner(raw).account_sid if raw else "", []).append(dues)
        if late:
            self._turns[""] = now + BEHIND
            self.looks.put_off(dict.fromkeys(late, now + BEHIND))
        for account, queue in queues.items():
            if not self._begin(account, partial(self._turn, account, queue, stopping)):
                self._put_off(account, queue, EVERY * 1000)
        return min([EVERY, *((to - self._now()) / 1000 for to in [*self._turns.values()] if to > self._now())])

    def _turn(self, account: str, queue: Sequence[Sequence[Due]], stopping: Callable[[], bool]) -> None:
        """Have looks at conferences of one account, one after the other, until its budget or `EVERY` is used up."""
        until = self.timer() + EVERY
        for place, dues in enumerate(queue):
            if stopping():
                return
            wait = self._safely(dues)
            if wait:
                self._put_off(account, queue[place:], wait)
                return
            if self.timer() > until:  # somebody may have asked meanwhile
                self._put_off(account, queue[place + 1 :], self._slot)
                return

    def _put_off(self, account: str, queue: Sequence[Sequence[Due]], wait: float) -> None:
        """The first for so many ms, and each of the others behind the one before."""
        moves: dict[Due, int | None] = {}
        turn = self._now() + wait
        for dues in queue:
            moves |= dict.fromkeys(dues, int(turn))
            turn += self._slot
        self._turns[account] = int(self._now() + wait)
        self.looks.put_off(moves)
        self._sooner.set()

    @property
    def _slot(self) -> float:
        """Milliseconds in which the budget of one look comes together."""
        return LOOK * 1000 / self.budget.rate

    def _begin(self, name: str, work: Callable[[], None]) -> bool:
        """Do this beside what else goes on. False: it is under way, or as much is as may be."""
        if name in self._under_way or len(self._under_way) >= AT_THE_SAME_TIME:
            return False
        self._under_way.add(name)
        self.start(partial(self._beside, name, work))
        return True

    def _beside(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except RedisError as error:
            log.warning("cannot reconcile", error=type(error).__name__)
        except Exception:
            log.exception("reconciling failed")
        finally:
            self._under_way.discard(name)

    def _behind(self, now: int) -> set[int]:
        """Shards with mail that has waited for long: what is thought to be lost may be in it."""
        standings = enumerate(self.inbox.backlog())
        return {shard for shard, standing in standings if (lag([standing], now / 1000) or 0) * 1000 > BEHIND}

    def _safely(self, dues: Sequence[Due]) -> int:
        """Have one look. A fault of ours must cost this look, never the others. For how many ms its account waits."""
        try:
            return self._look(dues)
        except RedisError:
            raise
        except Exception:
            log.exception("look failed", conference_sid=dues[0].sid)
            self.looks.failed(dues, self._now())
            return 0

    def _look(self, dues: Sequence[Due]) -> int:
        """Have one look, unless it is needless or another worker has it."""
        sid = dues[0].sid
        begun = self.looks.begin(dues, self._now())
        if begun is None:
            return 0
        try:
            if begun.header is None:
                self._unknown(begun.dues)
                return 0
            return self._begun(read_header(begun.header), begun)
        finally:
            self.looks.leave(sid, begun.token)

    def _unknown(self, dues: Sequence[Due]) -> None:
        """What is being taken over is known once its first record is folded; other unknown conferences are gone."""
        if any(due.reason == "adopted" for due in dues):
            self.looks.failed(dues, self._now())
        else:
            self.looks.put_off(dict.fromkeys(dues))

    def _begun(self, header: Header, begun: Begun) -> int:
        account = header.account_sid
        asked = [due for due in begun.dues if due.reason == "operator"]
        dues = [due for due in begun.dues if due.reason in ASKED or self._still_wanted(due, header, begun)]
        if not dues:
            return 0
        if header.status == "completed" and not asked:
            self.looks.put_off(dict.fromkeys(dues))
            return 0
        if not self.twilio.can_reach(account):  # it stays until somebody is let in
            self.looks.put_off(dict.fromkeys(dues, self._now() + LONGEST))
            return 0
        if wait := self.budget.take(account, self._now(), LOOK):
            return wait
        dues = [*asked, *(due for due in dues if due not in asked)]
        turn = Turn(account, header.sid, begun.token)
        try:
            record = self._record(header, dues[0].reason, begun.asked_by, turn)
        except Failed as failure:
            wait = self.looks.failed(dues, self._now(), 1 + self.chance() / 4)
            log.warning(
                "look failed", conference_sid=turn.sid, reason=dues[0].reason, why=str(failure), again_in_ms=wait
            )
        except PassedOn:
            log.warning("look left to another worker", conference_sid=turn.sid)
        else:
            self._write_down(record, dues)
        finally:
            if turn.left:
                self.budget.give_back(account, turn.left)
        return 0  # if the account is to pause now, its next look finds out

    def _still_wanted(self, due: Due, header: Header, begun: Begun) -> bool:
        """Whether the fold wants this look, and now; else it is put off until then, or taken away.

        A commit leaves a look where it is that is only put off, and one is not had twice while its record waits.
        """
        now, want = self._now(), header.want
        if want is None or want.reason != due.reason:
            self.looks.put_off({due: None})
            return False
        later = int(want.due_at.timestamp() * 1000)
        asked_at = 0 if header.asked_at is None else round(header.asked_at.timestamp() * 1000)
        if begun.seen_at is not None and asked_at < begun.seen_at and now < begun.seen_at + FOLDED_WITHIN:
            later = now + COME_BACK
        if later > now:
            self.looks.put_off({due: later})
        return later <= now

    def _record(self, header: Header, reason: str, asked_by: str | None, turn: Turn) -> Record:
        """What Twilio shows of a conference. Raises `Failed`, `PassedOn`.

        Of one that was just taken over the list alone will do, if there is somebody in it.
        """
        people = self._people(turn) if reason == "adopted" else None
        conference: Found[Resource] | None = None
        if people is None or not people.what:
            conference = self._conference(turn)
            if conference.what is None or conference.what["status"] == "completed":
                people = None
            else:
                people = people or self._people(turn)
                if people.what is None:
                    raise Failed("Twilio knows the conference, and not who is in it")
        coverage = header.coverage
        return Record(
            account_sid=turn.account,
            conference_sid=turn.sid,
            taken_at=min(found.at for found in (conference, people) if found is not None),
            after=coverage.sequences[-1][1] if coverage.sequences else 0,
            missing=coverage.lacks or reason == "outage",
            reason=reason,
            by=(asked_by or OURS) if reason == "operator" else OURS,
            conference=conference.what if conference else None,
            participants=people.what if people else None,
        )

    def _conference(self, turn: Turn) -> Found[Resource]:
        address = snapshot.conference_address(turn.account, turn.sid)
        return self._step(turn, address, lambda body: snapshot.read_conference(body, turn.account, turn.sid))

    def _people(self, turn: Turn) -> Found[list[Resource]]:
        address = snapshot.participants_address(turn.account, turn.sid)
        return self._step(turn, address, lambda body: snapshot.read_participants(body, turn.sid))

    def _step(self, turn: Turn, address: str, read: Callable[[bytes], T]) -> Found[T]:
        """One request of a look, for which it has the right anew. Raises `Failed`, `PassedOn`."""
        if turn.left < LOOK and not self.looks.go_on(turn.sid, turn.token):
            raise PassedOn
        turn.left -= 1
        return self._fetched(turn.account, address, read)

    def _write_down(self, record: Record, dues: Sequence[Due]) -> None:
        """Dying before this is done costs another look, and nothing else."""
        try:
            callback = self._callback(record)
            due = self.inbox.append(self.inbox.shard_of(record.conference_sid), callback)
        except Full:
            wait = self.looks.failed(dues, self._now())
            log.warning("look not written down: inboxes are full", conference_sid=dues[0].sid, again_in_ms=wait)
            return
        self.looks.settle(dues, callback.received_at, self._now() + COME_BACK)
        status = record.conference["status"] if record.conference else None
        log.info("looked at Twilio", conference_sid=record.conference_sid, reason=record.reason, status=status)
        if due:
            self._wake()

    def _callback(self, record: Record) -> Callback:
        body = snapshot.encode_record(record)
        return Callback(body=body, media="snapshot", received_at=self._now(), key=record.by)

    def _wake(self) -> None:
        try:
            self.nudge()
        except RedisError as error:
            log.warning("nobody woken; the sweep will find it", error=type(error).__name__)

    # Requests

    def _fetched(self, account: str, address: str, read: Callable[[bytes], T]) -> Found[T]:
        """What a GET has found. It is counted, and paid for already. Raises `Failed`."""
        asked_at, began = datetime.fromtimestamp(self.clock(), UTC), self.timer()
        outcome: Outcome = "unanswered"
        found, date, told, why = None, None, None, ""
        try:
            answer = self.twilio.send("GET", account, address, b"")
            date, outcome, told = answer.date, _outcome(answer), self._told(answer)
            why = f"Twilio answered {answer.status}"
            found = read(answer.body) if outcome == "ok" else None
        except Unanswered as error:
            why = str(error)
        except Unexpected as error:
            outcome, why = "unanswered", f"the answer cannot be used: {error}"
        except Busy:
            why = "too many requests are under way"
        took = self.timer() - began
        paused = self.budget.note(account, self._now(), outcome, told)
        if outcome == "refused":
            log.error(
                "Twilio refuses the credentials of an account. Put its newest Auth Token into TWILIO_AUTH_TOKEN or "
                "OFFHOOK_ACCOUNTS_FILE and start the workers again; or set OFFHOOK_RECONCILE=off",
                account=account,
                paused_ms=paused,
            )
        if outcome not in ("ok", "not_found"):
            raise Failed(why)
        return Found(found, snapshot.taken_at(date, took, asked_at))

    def _told(self, answer: Answer) -> int | None:
        """For how many ms Retry-After asks to wait: seconds, or a date (RFC 9110)."""
        told = next((value for name, value in answer.headers.items() if name.lower() == "retry-after"), "").strip()
        if told.isascii() and told.isdigit():
            return int(told[:9]) * 1000
        until = read_time(told) if told else None
        return None if until is None else int((until.timestamp() - self.clock()) * 1000)

    # What goes on when Offhook starts

    def adopt(self) -> None:
        """List the conferences in progress of accounts that never were, and take over those that are not known."""
        if not self.adopts or self.timer() < self._lists_at:
            return
        self._lists_at = self.timer() + LISTED_EVERY
        for account in self.looks.unlisted(self.accounts):
            self._begin(f"adopt:{account}", partial(self._adopt, account))

    def _adopt(self, account: str) -> None:
        errand = f"adopt:{account}"
        if self.looks.first_at(errand, ERRAND_LASTS):
            try:
                self._go_on_listing(account)
            finally:
                self.looks.done_with(errand)

    def _go_on_listing(self, account: str) -> None:
        """List what is left, from the page on at which that broke off.

        After each failure that is later. A page that fails twice may have an address that is good no more: then the
        list is begun anew.
        """
        listing = self.looks.listing(account)
        taken = 0
        while self._now() >= listing.not_before:
            if not self._may_ask(account):
                return
            address = listing.address or snapshot.in_progress_address(account)
            try:
                page = self._fetched(account, address, lambda body: snapshot.read_conferences(body, account))
                if page.what is None:
                    raise Failed("Twilio does not know the account")
                taken += self._take_over(account, page.what.conferences, page.at)
            except (Failed, Full) as failure:
                wait = min(LISTED_AGAIN * 2 ** min(listing.failures, 20), LISTED_AT_LEAST)
                kept = Listing() if listing.has_failed else replace(listing, has_failed=True)
                again = replace(kept, failures=listing.failures + 1, not_before=self._now() + wait)
                self.looks.note_listing(account, again)
                why = str(failure)
                log.warning("conferences in progress not listed", account=account, why=why, again_in_ms=wait)
                return
            following = page.what.following
            if following is None or listing.pages + 1 >= PAGES:
                self.looks.listed(account)
                log.info("conferences in progress listed", account=account, taken_over=taken, more=bool(following))
                return
            listing = Listing(following, listing.pages + 1, failures=listing.failures)
            self.looks.note_listing(account, listing)

    def _may_ask(self, account: str) -> bool:
        """Wait for the budget of one request. False: it is not to be had soon."""
        while wait := self.budget.take(account, self._now()):
            if wait > PATIENCE:
                return False
            self.sleep(wait / 1000)
        return True

    def _take_over(self, account: str, listed: dict[str, Resource], at: datetime) -> int:
        """Have those that are not known looked at, and write down what is known of them so far. How many these are.

        In this order: one that is known is not taken over any more. Raises `Full`.
        """
        known = self.snapshots.headers(list(listed))
        unknown = [sid for sid, header in zip(listed, known, strict=True) if header is None]
        self.looks.ask(unknown, "adopted", self._now())
        records = [
            Record(
                account_sid=account,
                conference_sid=sid,
                taken_at=at,
                missing=True,
                reason="adopted",
                by=OURS,
                conference=listed[sid],
            )
            for sid in unknown
        ]
        mail = [Posted(self.inbox.shard_of(each.conference_sid), self._callback(each)) for each in records]
        due = False
        for outcome in self.inbox.append_all(mail):
            if isinstance(outcome, RedisError):
                raise outcome
            due = due or outcome
        if due:
            self._wake()
        return len(unknown)

    # What was missed

    def see_to_outage(self) -> None:
        """If callbacks may have been lost for want of anybody to take them: have what goes on since then looked at."""
        outage = self.attendance.outage()
        if outage is None or not self.looks.first_at("outage", ERRAND_LASTS):
            return
        try:
            asked = sum(self._ask_for(account, outage) for account in self.accounts)
            self.attendance.over(outage)  # dying before this, it is done again
            log.warning(
                "callbacks may have been lost while nobody took them",
                since=datetime.fromtimestamp(outage.since / 1000, UTC).isoformat(),
                until=datetime.fromtimestamp(outage.until / 1000, UTC).isoformat(),
                looks=asked,
            )
        finally:
            self.looks.done_with("outage")

    def _ask_for(self, account: str, outage: Outage) -> int:
        """Have an account's open conferences looked at that were last heard before an outage's end. How many."""
        until = datetime.fromtimestamp(outage.until / 1000, UTC)
        known = (header for status in LIVE for header in self.snapshots.all_of(status, account))
        sids = [header.sid for header in known if header.heard_at is None or header.heard_at < until]
        self.looks.ask(sids, "outage", self._now())
        return len(sids)


def _outcome(answer: Answer) -> Outcome:
    """What an answer's status says (Twilio docs, API responses)."""
    if answer.status == 200:
        return "ok"
    if snapshot.is_unknown(answer.status, answer.body):
        return "not_found"
    if answer.status == 429:
        return "rate_limited"
    return "refused" if answer.status in (401, 403) else "failed"
