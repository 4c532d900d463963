"""The telephone exchange: which conferences there are, what stories tell of them, and what REST requests do to them.

No HTTP. What requests mean and answer is from Twilio's docs: Conference, Participant and Recordings resources.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import UTC, date, datetime
from re import fullmatch
from secrets import randbits
from typing import Any
from urllib.parse import urlsplit

from app.simulator.rooms import (
    FLAGS,
    Call,
    Conference,
    Leg,
    Recording,
    Subscription,
    any_starts,
    conference_resource,
    participant_resource,
    recording_resource,
    spell,
    subscription,
)
from app.simulator.stories import PLACES
from app.simulator.switchboard import TERMINAL, Switchboard

CONFERENCES_KEPT = 300
"""Beyond it the oldest that has ended is forgotten."""

PARTICIPANTS = 250

CHANGES = ("participant-mute", "participant-unmute", "participant-hold", "participant-unhold", "participant-modify")
"""Events that say that a flag is not what it was."""

Listing = list[tuple[str, dict[str, Any] | None]]
"""Sids in order, each with its resource, or with None when it is not listed: a page may begin after such a one."""


class Refusal(Exception):
    """A request that is answered with an error. `code` is Twilio's; `str()` is for the caller."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Missing(Refusal):
    """What was asked for is not there, or not any more."""

    def __init__(self) -> None:
        super().__init__(404, 20404, "The requested resource was not found")


class Exchange:
    """All conferences of one account. May be shared between threads."""

    def __init__(
        self,
        account_sid: str,
        send: Callable[[str | None, Mapping[str, str]], None],
        later: Callable[[float, Callable[[], None]], None],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        random_bits: Callable[[int], int] = randbits,
        speed: float = 1.0,
    ) -> None:
        """`send` takes a callback's URL, or None for the simulator's own webhook, and its parameters, and does
        not wait. `later` does something in so many seconds; all delays are divided by `speed`. `clock` gives
        aware datetimes in UTC; new sids are made of `random_bits`.
        """
        self.account_sid = account_sid
        self._board = Switchboard(send, later, clock, random_bits, speed)
        self._conferences: dict[str, Conference] = {}

    # Stories

    def play(self, conference_sid: str, parameters: Mapping[str, str]) -> bool:
        """Take a story's next callback, and send it as far as it still fits what REST has done meanwhile.

        A callback about a call or recording that REST has removed is dropped, and so is one that tells of a
        change which REST made before; flags are as REST set them until the story itself changes them. Returns
        False when the conference has been ended here: the rest of its story need not be told.
        """
        with self._board.lock:
            conference = self._conferences.get(conference_sid)
            if conference is None:
                now = self._board.clock()
                conference = Conference(conference_sid, self.account_sid, "", now, now, Subscription())
                self._add(conference)
            about = {parameters.get("CallSid"), parameters.get("RecordingSid")}
            if conference.cut_short or about & conference.removed:
                return not conference.cut_short
            if "StatusCallbackEvent" in parameters:
                self._play_event(conference, dict(parameters))
            elif "RecordingSid" in parameters:
                self._play_recording(conference, parameters)
            elif "CallStatus" in parameters:
                self._play_progress(conference, parameters)
            else:
                self._board.send(None, parameters)
            return not conference.cut_short

    def _play_event(self, conference: Conference, told: dict[str, str]) -> None:
        event = told["StatusCallbackEvent"]
        conference.friendly_name = told.get("FriendlyName", conference.friendly_name)
        if conference.altered and conference.present() and _closes(told):
            self._close_in_our_words(conference, told)
            return
        leg = conference.legs.get(told.get("CallSid", ""))
        if event == "participant-leave":
            self._play_leave(conference, leg, told)
        elif "CallSid" in told:
            self._play_leg(conference, leg, told)
        elif event == "conference-start":
            self._play_start(conference, told)
        else:
            if event == "conference-end":
                self._board.mark_ended(conference, told["ReasonConferenceEnded"], told.get("CallSidEndingConference"))
            self._board.number(conference, told)

    def _close_in_our_words(self, conference: Conference, told: dict[str, str]) -> None:
        """The story ends a conference that is no longer as it believes; whoever is really there leaves first."""
        reasons = told.get("ReasonConferenceEnded"), told.get("ReasonParticipantLeft")
        if "conference-ended-via-api" in reasons or "conference_ended_via_api" in reasons:
            self._board.end(conference, "conference-ended-via-api", "conference_ended_via_api", None)
            return
        present = conference.present()
        for leg in present:
            self._board.leave(conference, leg, "participant_hung_up")
        self._board.end(conference, "last-participant-left", "", present[-1])

    def _play_leave(self, conference: Conference, leg: Leg | None, told: dict[str, str]) -> None:
        if leg is None or not leg.present:  # was dialled in vain
            self._board.number(conference, told)
            return
        self._board.number(conference, told | leg.snapshot())
        leg.status = "complete"
        if conference.altered and conference.live:
            kicked = told.get("ReasonParticipantLeft") == "participant_updated_via_api"
            self._board.settle(conference, leg, "kicked" if kicked else "left")

    def _play_leg(self, conference: Conference, leg: Leg | None, told: dict[str, str]) -> None:
        event = told["StatusCallbackEvent"]
        flags = {name: told.get(name) == "true" for name in FLAGS}
        if leg is None or not leg.present:
            leg = self._seat(conference, told, flags)
        believed, leg.told = leg.told, flags
        changed = {name: flag for name, flag in flags.items() if believed[name] != flag}
        news = any(leg.flags[name] != flag for name, flag in changed.items())
        leg.flags |= changed
        if "Coaching" in changed:
            others = [other.call_sid for other in conference.present() if other is not leg]
            leg.coaches = others[-1] if others and changed["Coaching"] else None
        if event in CHANGES:
            leg.updated = self._board.clock()
            if not news:
                return
        if event == "participant-speech-start":
            leg.speaking = not (leg.flags["Muted"] or leg.flags["Hold"])
            if not leg.speaking:
                return
        if event == "participant-speech-stop" and not leg.speaking:
            return
        self._board.number(conference, told | leg.snapshot())
        if event == "participant-join" and conference.altered:
            self._board.start_if_enough(conference)

    def _seat(self, conference: Conference, told: Mapping[str, str], flags: dict[str, bool]) -> Leg:
        now = self._board.clock()
        leg = Leg(told["CallSid"], told.get("ParticipantLabel"), dict(flags), now, now, told=dict(flags))
        conference.legs.pop(leg.call_sid, None)
        conference.legs[leg.call_sid] = leg
        if conference.status == "init":
            conference.status = "in-progress"
        return leg

    def _play_start(self, conference: Conference, told: dict[str, str]) -> None:
        if not conference.started and (not conference.altered or any_starts(conference.connected())):
            conference.started = True
            self._board.number(conference, told)

    def _play_recording(self, conference: Conference, told: Mapping[str, str]) -> None:
        sid, status = told["RecordingSid"], told["RecordingStatus"]
        now = self._board.clock()
        if sid not in conference.recordings:
            conference.recordings[sid] = Recording(sid, Subscription(), now, now)
        recording = conference.recordings[sid]
        if not recording.running:  # REST has stopped it, and we tell of its completion
            return
        recording.status, recording.updated = status, now
        if "RecordingDuration" in told:
            recording.duration = int(told["RecordingDuration"])
        self._board.send(None, told)

    def _play_progress(self, conference: Conference, told: Mapping[str, str]) -> None:
        passing = ("CallStatus", "Timestamp", "SequenceNumber", "SipResponseCode", "CallDuration", "Duration")
        lasting = {name: value for name, value in told.items() if name not in passing}
        call = conference.calls.setdefault(told["CallSid"], Call(Subscription(), lasting))
        call.number = int(told["SequenceNumber"]) + 1
        call.ended = told["CallStatus"] in TERMINAL
        if told["CallStatus"] == "in-progress":
            call.answered = self._board.clock()
        self._board.send(None, told)

    def live_names(self) -> set[str]:
        """The names of conferences that have not ended: Twilio has one live conference to a name."""
        with self._board.lock:
            return {conference.friendly_name for conference in self._conferences.values() if conference.live}

    def end_all(self) -> None:
        """End every conference as by the API, saying only that: for who is about to hang up the whole exchange."""
        with self._board.lock:
            for conference in self._conferences.values():
                if conference.live:
                    self._board.tell_end(conference, "conference-ended-via-api", None)

    # Conferences

    def list_conferences(self, filters: Mapping[str, str]) -> Listing:
        """Newest first; as from September 2026 those in progress unless `Status` is given (Twilio's SDKs)."""
        status = filters.get("Status") or "in-progress"
        if status not in ("init", "in-progress", "completed"):
            raise Refusal(400, 20001, "Status is none of init, in-progress and completed")
        name = filters.get("FriendlyName")
        created, updated = _days(filters, "DateCreated"), _days(filters, "DateUpdated")

        def is_listed(each: Conference) -> bool:
            found = each.status == status and name in (None, each.friendly_name)
            return found and created(each.created) and updated(each.updated)

        with self._board.lock:
            return [
                (each.sid, conference_resource(each) if is_listed(each) else None)
                for each in reversed(self._conferences.values())
            ]

    def fetch_conference(self, sid: str) -> dict[str, Any]:
        """One conference, whatever its status. Raises Refusal."""
        with self._board.lock:
            return conference_resource(self._conference(sid))

    def update_conference(self, sid: str, form: Mapping[str, str]) -> dict[str, Any]:
        """End it (Status=completed), play an announcement to all (AnnounceUrl), or both. Raises Refusal."""
        _check_urls(form)
        if form.get("Status", "completed") != "completed":
            raise Refusal(400, 20001, "Status can only be completed")
        with self._board.lock:
            conference = self._conference(sid)
            if not conference.live:
                raise Refusal(400, 20001, "The conference has ended")
            if url := form.get("AnnounceUrl"):
                self._board.announce(conference, None, url)
            if "Status" in form:
                self._board.end(conference, "conference-ended-via-api", "conference_ended_via_api", None)
            return conference_resource(conference)

    # Participants

    def list_participants(self, conference_sid: str, filters: Mapping[str, str]) -> Listing:
        """Those who are there or on their way, newest first; of an ended conference nobody. Raises Refusal."""
        asked = {name: _is_true(filters[name]) for name in ("Muted", "Hold", "Coaching") if name in filters}
        with self._board.lock:
            conference = self._conference(conference_sid)
            listed = {leg.call_sid for leg in conference.present() if leg.flags.items() >= asked.items()}
            return [
                (sid, participant_resource(conference, leg) if sid in listed else None)
                for sid, leg in reversed(conference.legs.items())
            ]

    def create_participant(self, room: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Dial `To` into the conference of this sid or name, which is made if it is not there. Raises Refusal.

        The first participant's ConferenceStatusCallback, -Event and ConferenceRecord are the conference's.
        """
        _check_create(form)
        with self._board.lock:
            conference = self._room(room, form)
            label = form.get("Label") or None
            if label and any(leg.label == label for leg in conference.present()):
                raise Refusal(400, 16025, "Another participant of this conference has the same Label")
            if len(conference.present()) >= int(form.get("MaxParticipants") or PARTICIPANTS):
                raise Refusal(400, 16020, "The conference is full")
            coaches = _coached(conference, form, None)
            flags = {
                **{name: _is_true(form.get(name, "")) for name in ("Muted", "Hold", "EndConferenceOnExit")},
                "StartConferenceOnEnter": _is_true(form.get("StartConferenceOnEnter", "true")),
                "Coaching": coaches is not None,
            }
            if conference.sid not in self._conferences:
                self._add(conference)
            now = self._board.clock()
            leg = Leg(self._board.new_sid("CA"), label, flags, now, now, "queued", joined=False, coaches=coaches)
            conference.legs[leg.call_sid] = leg
            conference.calls[leg.call_sid] = _call(conference, leg.call_sid, form)
            conference.altered = True
            self._board.dial(conference, leg)
            return participant_resource(conference, leg, queue_time="0")

    def _room(self, room: str, form: Mapping[str, str]) -> Conference:
        if fullmatch("CF[0-9a-f]{32}", room):
            conference = self._conference(room)
            if not conference.live:
                raise Missing
            return conference
        for conference in self._conferences.values():
            if conference.live and conference.friendly_name == room:
                return conference
        now = self._board.clock()
        told = subscription(
            form.get("ConferenceStatusCallback"), form.get("ConferenceStatusCallbackEvent", ""), "start end"
        )
        conference = Conference(self._board.new_sid("CF"), self.account_sid, room, now, now, told)
        if form.get("ConferenceRecord") in ("true", "record-from-start"):
            url = form.get("ConferenceRecordingStatusCallback")
            statuses = form.get("ConferenceRecordingStatusCallbackEvent") or "completed"
            conference.record = Subscription(url, frozenset(statuses.split() if url else ()))
        return conference

    def fetch_participant(self, conference_sid: str, who: str) -> dict[str, Any]:
        """One who is there, by call sid or label. Raises Refusal."""
        with self._board.lock:
            return participant_resource(*self._leg(conference_sid, who))

    def update_participant(self, conference_sid: str, who: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Change flags, or announce something to one participant, by call sid or label. Raises Refusal.

        Each change is told by itself, in the order mute, hold, modify; what is as it was is not told.
        """
        _check_urls(form)
        with self._board.lock:
            conference, leg = self._leg(conference_sid, who)
            if leg.status != "connected":
                raise Refusal(400, 21220, "The call is not in progress")
            coaching = leg.coaches, leg.flags["Coaching"]
            if "Coaching" in form or "CallSidToCoach" in form:
                coaches = _coached(conference, form, leg.coaches)
                coaching = coaches, coaches is not None
            leg.updated = self._board.clock()
            if _changes(leg, form, "Muted"):
                self._board.tell(conference, "participant-mute" if leg.flags["Muted"] else "participant-unmute", leg)
            if _changes(leg, form, "Hold"):
                self._board.tell(conference, "participant-hold" if leg.flags["Hold"] else "participant-unhold", leg)
            modified = "BeepOnExit" in form or "WaitUrl" in form or coaching != (leg.coaches, leg.flags["Coaching"])
            leg.coaches, leg.flags["Coaching"] = coaching
            if _changes(leg, form, "EndConferenceOnExit"):
                modified = conference.altered = True
            if modified:
                self._board.tell(conference, "participant-modify", leg)
            if url := form.get("AnnounceUrl"):
                self._board.announce(conference, leg, url)
            return participant_resource(conference, leg)

    def delete_participant(self, conference_sid: str, who: str) -> None:
        """Kick one who is there, or stop dialling one who is not yet. Raises Refusal."""
        with self._board.lock:
            conference, leg = self._leg(conference_sid, who)
            conference.altered = True
            self._board.leave(conference, leg, "participant_updated_via_api")
            self._board.settle(conference, leg, "kicked")

    # Recordings

    def list_recordings(self, conference_sid: str, filters: Mapping[str, str]) -> Listing:
        """All of a conference, newest first, also when it has ended. Raises Refusal."""
        created = _days(filters, "DateCreated")
        with self._board.lock:
            conference = self._conference(conference_sid)
            return [
                (sid, recording_resource(conference, each) if created(each.started) else None)
                for sid, each in reversed(conference.recordings.items())
            ]

    def fetch_recording(self, conference_sid: str, sid: str) -> dict[str, Any]:
        """One recording. Raises Refusal."""
        with self._board.lock:
            return recording_resource(*self._recording(conference_sid, sid))

    def update_recording(self, conference_sid: str, sid: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Pause, resume or stop one that is running; sid `Twilio.CURRENT` is the newest such. Raises Refusal."""
        status = form.get("Status", "")
        if status not in ("in-progress", "paused", "stopped"):
            raise Refusal(400, 20001, "Status must be in-progress, paused or stopped")
        with self._board.lock:
            conference, recording = self._recording(conference_sid, sid)
            if not recording.running:
                raise Refusal(400, 21220, "The recording is not in progress")
            recording.status, recording.updated = status, self._board.clock()
            if status == "stopped":
                self._board.store(conference, recording)
            return recording_resource(conference, recording)

    def delete_recording(self, conference_sid: str, sid: str) -> None:
        """Forget a recording; nothing more is told of it. Raises Refusal."""
        with self._board.lock:
            conference, recording = self._recording(conference_sid, sid)
            conference.removed.add(recording.sid)
            del conference.recordings[recording.sid]

    # What is there

    def pretence(self) -> "Exchange":
        """A copy that answers as this would, whose doings are neither kept nor told."""
        with self._board.lock:
            copy = Exchange(self.account_sid, lambda *_: None, lambda *_: None, clock=self._board.clock)
            copy._conferences = deepcopy(self._conferences)
            return copy

    def _add(self, conference: Conference) -> None:
        self._conferences[conference.sid] = conference
        if len(self._conferences) > CONFERENCES_KEPT:
            oldest = next((each.sid for each in self._conferences.values() if not each.live), None)
            self._conferences.pop(oldest or "", None)

    def _conference(self, sid: str) -> Conference:
        if not fullmatch("CF[0-9a-fA-F]{32}", sid):  # Twilio takes a name for a method it does not have
            raise Refusal(405, 20004, "Method not allowed")
        if sid not in self._conferences:
            raise Missing
        return self._conferences[sid]

    def _leg(self, conference_sid: str, who: str) -> tuple[Conference, Leg]:
        conference = self._conference(conference_sid)
        for leg in conference.present():
            if who in (leg.call_sid, leg.label):
                return conference, leg
        raise Missing

    def _recording(self, conference_sid: str, sid: str) -> tuple[Conference, Recording]:
        conference = self._conference(conference_sid)
        for recording in reversed(conference.recordings.values()):
            if recording.sid == sid or (sid == "Twilio.CURRENT" and recording.running):
                return conference, recording
        raise Missing


def _closes(told: Mapping[str, str]) -> bool:
    """Whether this callback of a story's belongs to the end of its conference."""
    ends = ("moderator_ended_conference", "conference_ended_via_api")
    return told["StatusCallbackEvent"] == "conference-end" or told.get("ReasonParticipantLeft") in ends


def _is_true(value: str) -> bool:
    """Anything but true is false (Twilio docs, Participant resource)."""
    return value.lower() == "true"


def _days(filters: Mapping[str, str], name: str) -> Callable[[datetime], bool]:
    """Whether a moment is on, until and since the days asked for; both bounds include their day (UTC)."""
    on, until, since = (_day(filters.get(name + sign)) for sign in ("", "<", ">"))

    def fits(moment: datetime) -> bool:
        day = moment.date()
        return on in (None, day) and (until is None or day <= until) and (since is None or day >= since)

    return fits


def _day(text: str | None) -> date | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise Refusal(400, 20001, "A date is not of the form YYYY-MM-DD") from None


def _check_create(form: Mapping[str, str]) -> None:
    """Refuse what no call can be made of."""
    if not form.get("To"):
        raise Refusal(400, 21201, "No 'To' number is specified")
    if not form.get("From"):
        raise Refusal(400, 21213, "No 'From' number is specified")
    if not fullmatch(r"\+?[0-9]{3,15}|(client|sip|sips|app):.+", form["To"]):
        raise Refusal(400, 21211, "The 'To' number is not a valid phone number")
    if not fullmatch("[0-9]*", form.get("MaxParticipants", "")):
        raise Refusal(400, 20001, "MaxParticipants is not a number")
    _check_urls(form)


def _check_urls(form: Mapping[str, str]) -> None:
    for name, value in form.items():
        if not (name.endswith(("Url", "Callback")) and value):
            continue
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
            _ = parts.port
        except ValueError:
            usable = False
        if not usable:
            raise Refusal(400, 21205, f"{name} is not a valid URL")


def _call(conference: Conference, call_sid: str, form: Mapping[str, str]) -> Call:
    """The call that a creation asks for; without a StatusCallbackEvent its end is told (Twilio docs, Call resource)."""
    url = form.get("StatusCallback") or None
    events = (form.get("StatusCallbackEvent") or "completed").split() if url else ()
    lasting = {
        "AccountSid": conference.account_sid,
        "CallSid": call_sid,
        "ApiVersion": "2010-04-01",
        "From": form["From"],
        "To": form["To"],
        "Caller": form["From"],
        "Called": form["To"],
        "Direction": "outbound-api",
        **PLACES,
        "CallbackSource": "call-progress-events",
    }
    return Call(Subscription(url, frozenset(events)), lasting)


def _changes(leg: Leg, form: Mapping[str, str], name: str) -> bool:
    """Set a flag as asked for, if it is; whether it is another now."""
    before = leg.flags[name]
    if name in form:
        leg.flags[name] = _is_true(form[name])
    return leg.flags[name] != before


def _coached(conference: Conference, form: Mapping[str, str], so_far: str | None) -> str | None:
    """Whom to coach, if anybody; CallSidToCoach alone implies Coaching (Twilio docs, Participant resource)."""
    if not _is_true(form.get("Coaching", spell("CallSidToCoach" in form))):
        return None
    coached = form.get("CallSidToCoach") or so_far
    if coached not in {leg.call_sid for leg in conference.present()}:
        raise Refusal(400, 20001, "CallSidToCoach is not the sid of a call in this conference")
    return coached
