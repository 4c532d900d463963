"""What about a conference somebody should look at: rules, what they find, and which alerts stand.

Whether an alert stands is told by records in the conference's log, one when it was raised and one when it was
cleared, so it is a pure function of the set of events like everything else. When to look again is worked out here and
kept by commits; the clock is handed in.

Knows no clock, store, HTTP or settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from app.conference import Conference, Header, Participant
from app.events import Action, Alert, Event

Kind = Literal[
    "alone",
    "hold",
    "waiting",
    "not-started",
    "silent",
    "long",
    "crowded",
    "announcement-failed",
    "add-failed",
    "dead-letters",
    "holes",
]
"""What a rule looks at, see config/alerts.toml."""
Severity = Literal["info", "warning", "critical"]

PASSING = ("announcement-failed", "add-failed")
"""What has happened, and does not cease to be so: shown for `clear_after` seconds."""
HANGS_ON_ALL = ("waiting", "not-started")
"""What only all participants together can tell. While such an alert stands, it is looked at once nobody has moved for a
while."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an alert is raised."""

    name: str
    kind: Kind
    severity: Severity = "warning"
    after: int = 0
    """Seconds that it must have been so."""
    clear_after: int = 30
    """Seconds after it has ceased to be so that the alert is cleared, unless it is so again by then."""
    more_than: int | None = None
    """Participants, of `crowded`."""


EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""Callbacks may tell any time: one beyond these counts as one of them, so that something may be added to it."""
TICK = timedelta(microseconds=1)

Rules = Mapping[str, Rule]
"""By their names."""
Key = tuple[str, str]
"""A rule's name, and whom it is about: a call, an action; empty is the conference."""
Found = dict[Key, datetime | None]
"""What is so, and since when; None: no document tells, it is so since it was first seen."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down of an alert that is raised or cleared."""

    account_sid: str
    conference_sid: str
    alert: Alert


encode_record = msgspec.json.Encoder().encode
read_record = msgspec.json.Decoder(Record).decode


def id_of(record: Record) -> str:
    """The event's id. It does not depend on the clock: whoever raises the same alert writes the same event."""
    alert = record.alert
    step = "cleared" if alert.cleared else "raised"
    words = (record.conference_sid, alert.rule, alert.subject, alert.since.isoformat(), step)
    return blake2b("\n".join(words).encode(), digest_size=12).hexdigest()


# Which alerts stand.


def after(known: Iterable[Alert], events: Iterable[Event]) -> tuple[Alert, ...]:
    """The alerts that stand after these events, oldest first: of each rule and subject the latest record counts.

    A header does not hold what was cleared. So beside `known` ones no record may be `is_late`; `fold` over the whole
    log needs none.
    """
    records = [event.alert for event in events if event.alert is not None]
    if not records:
        return tuple(known)
    latest: dict[Key, Alert] = {}
    for alert in (*known, *records):
        key = (alert.rule, alert.subject)
        latest[key] = max(latest.get(key, alert), alert, key=_lateness)
    return tuple(sorted((alert for alert in latest.values() if not alert.cleared), key=_age))


def is_late(header: Header, alert: Alert) -> bool:
    """Whether a record that is new may count less than one that has been cleared: only the log can tell."""
    return header.alerted_at is not None and (alert.at, alert.cleared) <= (header.alerted_at, False)


def _lateness(alert: Alert) -> tuple[datetime, bool, datetime, str]:
    return alert.at, alert.cleared, alert.since, repr(alert)


def _age(alert: Alert) -> tuple[datetime, str, str]:
    return alert.since, alert.rule, alert.subject


# What is so.


def conditions(rules: Rules, header: Header, participants: Mapping[str, Participant]) -> Found:
    """What these rules find, whether or not it has lasted long enough.

    Of a conference of which only some participants are given it tells what is about those. What is about the whole
    follows from the header and from whoever has moved, who must be given; but for whether it has begun, which may hang
    on others, see `HANGS_ON_ALL`.
    """
    found: Found = {}
    for rule in rules.values():
        if header.status != "completed" or rule.kind == "dead-letters":
            for subject, since in _found(rule, header, participants):
                found[rule.name, subject] = since and min(max(since, EARLIEST), LATEST)
    return found


def _found(
    rule: Rule, header: Header, participants: Mapping[str, Participant]
) -> Iterable[tuple[str, datetime | None]]:
    """Of one rule: subjects, and since when."""
    present = header.counts.present
    match rule.kind:
        case "hold":
            return [
                (each.call_sid, each.hold_since) for each in participants.values() if each.present and each.hold is True
            ]
        case "announcement-failed":
            return [(each.id, None) for each in header.actions if _failed_to_announce(each)]
        case "add-failed":
            return _failed_to_add(header, participants)
        case "alone":
            return [("", _alone_since(participants))] if present == 1 else ()
        case "waiting":
            waiting = present and not _is_begun(header, participants, together=1)
            return [("", _here_since(participants))] if waiting else ()
        case "not-started":
            waiting = present and not _is_begun(header, participants, together=2)
            return [("", _here_since(participants))] if waiting else ()
        case "silent":
            return [("", header.heard_at)] if header.status == "in-progress" else ()
        case "long":
            return [("", header.started_at or header.created_at)] if header.status == "in-progress" else ()
        case "crowded":
            return [("", None)] if present > (rule.more_than or 0) else ()
        case "dead-letters":
            return [("", None)] if header.set_aside else ()
        case "holes":
            return [("", None)] if header.coverage.lacks else ()


def _alone_since(participants: Mapping[str, Participant]) -> datetime | None:
    """Since whoever is left has come, or the last of the others has gone."""
    moments = (
        stay.joined_at if stay.left_at is None else stay.left_at
        for each in participants.values()
        for stay in each.stays[-1:]
    )
    return max((moment for moment in moments if moment is not None), default=None)


def _here_since(participants: Mapping[str, Participant]) -> datetime | None:
    """Since the first of those present has come."""
    joined = (each.stays[-1].joined_at for each in participants.values() if each.present)
    return min((moment for moment in joined if moment is not None), default=None)


def _is_begun(header: Header, participants: Mapping[str, Participant], together: int) -> bool:
    """Whether the conference may have started: it was told, or so many have been in it, one of whom may start it.

    Twilio starts it once two are there, one of whom has startConferenceOnEnter (Twilio docs, TwiML Conference,
    statusCallbackEvent). So nothing hangs on whether `start` is subscribed to. Whoever is gone counts as well: a
    conference that everyone has left has ended.
    """
    if _is_told(header):
        return True
    been = [each for each in participants.values() if each.stays]
    return len(been) >= together and any(each.start_conference_on_enter is not False for each in been)


def _is_told(header: Header) -> bool:
    """Whether a callback has told that it has started."""
    return header.started_at is not None or "conference-start" in header.coverage.events


def _failed_to_announce(action: Action) -> bool:
    return action.state == "failed" and any(word.startswith("announcement-end") for word in action.awaits)


def _failed_to_add(header: Header, participants: Mapping[str, Participant]) -> Iterator[tuple[str, datetime | None]]:
    for action in header.actions:
        if action.verb == "add-participant" and action.state == "failed":
            yield action.call_sid or action.id, None
    for each in participants.values():
        if each.status == "failed" and not each.stays:
            yield each.call_sid, None


# When to look.


class Timers(NamedTuple):
    """What a change does to the times at which alerts are to be looked at."""

    at: dict[Key, datetime]
    """To set."""
    dropped: Sequence[Key] = ()


NONE = Timers({})


def timers(rules: Rules, before: Conference | None, now: Conference, moment: datetime, *, anew: bool = False) -> Timers:
    """When to look at what this change is about. Of both conferences the same participants are given.

    `moment` is our clock. `anew`: how it was before is not wholly known; what has failed may have failed long ago.
    """
    if before is not None and _is_same(before, now):
        return NONE
    old = conditions(rules, before.header, before.participants) if before else {}
    new = conditions(rules, now.header, now.participants)
    stood = {(alert.rule, alert.subject): alert for alert in before.header.alerts} if before else {}
    stands = {(alert.rule, alert.subject): alert for alert in now.header.alerts}
    at: dict[Key, datetime] = {}
    dropped: list[Key] = []
    for key in {**old, **new, **stood, **stands}:
        rule, alert = rules.get(key[0]), stands.get(key)
        if alert is not None:
            standing = key in stood
            if rule is not None and rule.kind in PASSING and key in new:
                if not standing:
                    at[key] = alert.at + timedelta(seconds=rule.clear_after)
            elif rule is None or (now.header.status == "completed" and not _fits(alert, key, new)):
                at[key] = moment
            elif rule.kind in HANGS_ON_ALL:
                if not standing or _have_moved(before, now):
                    at[key] = moment + timedelta(seconds=rule.clear_after)
            elif _fits(alert, key, new):
                if not standing or not _fits(stood[key], key, old):
                    dropped.append(key)
            elif not standing or _fits(stood[key], key, old):
                at[key] = moment + timedelta(seconds=rule.clear_after)
        elif rule is not None and key in new:
            if rule.kind in PASSING:
                if key in stood:
                    dropped.append(key)
                elif key not in old and not anew:
                    at[key] = moment
            elif rule.kind in HANGS_ON_ALL and (key in stood or _may_start_no_more(before, now)):
                at[key] = moment
            elif key not in old or key in stood or _is_earlier(new[key], old[key]):
                at[key] = (new[key] or moment) + timedelta(seconds=rule.after)
        else:
            dropped.append(key)
    return Timers(at, dropped)


def _is_same(before: Conference, now: Conference) -> bool:
    """Whether nothing has changed that rules look at, but for when a callback came. Nearly always so."""
    was, header = before.header, now.header
    if header.alerts or was.alerts or (was.status, was.counts.present) != (header.status, header.counts.present):
        return False
    if (
        was.actions != header.actions
        or was.set_aside != header.set_aside
        or was.coverage.lacks != header.coverage.lacks
    ):
        return False
    if (was.created_at, was.started_at) != (header.created_at, header.started_at) or _is_told(was) != _is_told(header):
        return False
    for sid, each in now.participants.items():
        known = before.participants.get(sid)
        if known is None or known.stays != each.stays or known.status != each.status:
            return False
        if (known.hold, known.hold_since) != (each.hold, each.hold_since):
            return False
        if known.start_conference_on_enter != each.start_conference_on_enter:
            return False
    return True


def _have_moved(before: Conference | None, now: Conference) -> bool:
    """Whether somebody may have come or gone, or may start the conference now."""
    if before is None or before.header.counts != now.header.counts or before.header.status != now.header.status:
        return True
    if before.header.started_at != now.header.started_at:
        return True
    known = before.participants
    return any(
        sid not in known
        or known[sid].stays != each.stays
        or known[sid].start_conference_on_enter != each.start_conference_on_enter
        for sid, each in now.participants.items()
    )


def _may_start_no_more(before: Conference | None, now: Conference) -> bool:
    """Whether somebody who might have started the conference turns out not to: it may hang on that alone."""
    known = before.participants if before else {}
    return any(
        sid in known and known[sid].start_conference_on_enter is not False and each.start_conference_on_enter is False
        for sid, each in now.participants.items()
    )


def _fits(alert: Alert, key: Key, found: Found) -> bool:
    """Whether what an alert was raised for is so, be it again."""
    if key not in found:
        return False
    since = found[key]
    return alert.kind != "silent" or since is None or since <= alert.at


def _is_earlier(since: datetime | None, known: datetime | None) -> bool:
    return since is not None and known is not None and since < known


class Verdict(NamedTuple):
    """What a look has found."""

    alert: Alert | None = None
    """To be written down: raised, or cleared."""
    again_at: datetime | None = None
    """When to look again. With neither there is nothing more to look for."""


def verdict(rules: Rules, conference: Conference, key: Key, due: datetime, moment: datetime) -> Verdict:
    """What is to be done about one rule and subject of a conference, of which everyone is given.

    `due` is for when the look was set, `moment` is our clock. To look too early does no harm.
    """
    header, (name, subject) = conference.header, key
    rule = rules.get(name)
    found = conditions({name: rule}, header, conference.participants) if rule else {}
    alert = next((each for each in header.alerts if (each.rule, each.subject) == key), None)
    if alert is not None:
        if rule is not None and rule.kind in PASSING and key in found:
            until = alert.at + timedelta(seconds=rule.clear_after)
            return Verdict(again_at=until) if moment < until else Verdict(_cleared(alert, header, moment))
        return Verdict() if _fits(alert, key, found) else Verdict(_cleared(alert, header, moment))
    if rule is None or key not in found:
        return Verdict()
    lasts = timedelta(seconds=rule.after)
    since = found[key] or due - lasts
    if rule.kind in HANGS_ON_ALL:
        since = max(since, due - lasts)  # it may have been otherwise meanwhile, and an alert of that time cleared
    if since + lasts > moment:
        return Verdict(again_at=since + lasts)
    return Verdict(
        Alert(
            rule=name,
            kind=rule.kind,
            severity=rule.severity,
            subject=subject,
            since=since,
            at=_behind(header, moment),
            text=text_of(rule),
        )
    )


def _cleared(alert: Alert, header: Header, moment: datetime) -> Alert:
    """The word that it is over."""
    return replace(alert, at=_behind(header, moment), cleared=True)


def _behind(header: Header, moment: datetime) -> datetime:
    """Now, or just behind all that has been recorded: the latest record counts, whatever our clocks say."""
    return moment if header.alerted_at is None else max(moment, header.alerted_at + TICK)


def text_of(rule: Rule) -> str:
    """One sentence for people."""
    return TEXTS[rule.kind].format(after=_lasting(rule.after), more_than=rule.more_than)


def _lasting(seconds: int) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


TEXTS: dict[str, str] = {
    "alone": "One participant has been alone for {after}.",
    "hold": "A participant has been on hold for {after}.",
    "waiting": "Participants have been waiting for {after} with nobody who may start the conference.",
    "not-started": "Participants have been there for {after}, and the conference has not started.",
    "silent": "No callback has come for {after}, and the conference has not ended.",
    "long": "The conference has lasted {after}.",
    "crowded": "More than {more_than} participants are present.",
    "announcement-failed": "An announcement has failed.",
    "add-failed": "A participant could not be added.",
    "dead-letters": "Callbacks of this conference could not be folded, and are set aside.",
    "holes": "Callbacks have been missing for {after}.",
}
