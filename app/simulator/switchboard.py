"""What happens in conferences, and what is told of it: dialling, joining, leaving, ending, recording.

No HTTP and no clock of its own: time, chance, delays and the way out for callbacks are handed in. The callbacks
are those of Twilio's docs: TwiML Conference (conference and recording callbacks), Call resource (call progress).
"""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from math import ceil

from app.simulator.rooms import Conference, Leg, Recording, any_starts, stamp
from app.simulator.stories import SIP_CODES

DIALLING, RINGING, ANSWERING, UNANSWERED = 0.2, 0.3, 1.5, 4.0
"""Seconds from a request to `initiated`, on to `ringing`, and on to an answer, or to giving up."""

ANNOUNCING, STORING = 0.5, 0.5
"""Seconds that an announcement lasts, and from the end of a recording to its `completed`."""

NEVER_ANSWERS = "0199"
"""Who dials a number that ends so waits in vain."""

TERMINAL = frozenset(SIP_CODES)
"""The CallStatus values after which nothing comes; who subscribes to `completed` hears of each."""


class Switchboard:
    """Makes things happen to conferences that are kept elsewhere, and tells whoever is subscribed.

    Its callers hold `lock`; what it does later, it does with `lock` held.
    """

    def __init__(
        self,
        send: Callable[[str | None, Mapping[str, str]], None],
        later: Callable[[float, Callable[[], None]], None],
        clock: Callable[[], datetime],
        random_bits: Callable[[int], int],
        speed: float,
    ) -> None:
        self.lock = threading.RLock()
        self.send = send
        self.clock = clock
        self._later = later
        self._random_bits = random_bits
        self._speed = speed

    def dial(self, conference: Conference, leg: Leg) -> None:
        """Have a queued leg dialled, which then rings, and answers and joins or does neither."""
        self._soon(DIALLING, self._set_out, conference, leg)

    def _set_out(self, conference: Conference, leg: Leg) -> None:
        if leg.present:
            self._move(leg, "connecting")
            self._progress(conference, leg.call_sid, "initiated")
            self._soon(RINGING, self._ring, conference, leg)

    def _ring(self, conference: Conference, leg: Leg) -> None:
        if leg.present:
            self._move(leg, "ringing")
            self._progress(conference, leg.call_sid, "ringing")
            if conference.calls[leg.call_sid].parameters["To"].endswith(NEVER_ANSWERS):
                self._soon(UNANSWERED, self._give_up, conference, leg)
            else:
                self._soon(ANSWERING, self._answer, conference, leg)

    def _give_up(self, conference: Conference, leg: Leg) -> None:
        if leg.present:
            self.leave(conference, leg, "participant_add_failed", "no-answer")
            self.settle(conference, leg, "left")

    def _answer(self, conference: Conference, leg: Leg) -> None:
        if leg.present:
            self._move(leg, "connected")
            leg.joined = True
            conference.calls[leg.call_sid].answered = self.clock()
            self._progress(conference, leg.call_sid, "in-progress")
            if conference.status == "init":
                conference.status, conference.updated = "in-progress", self.clock()
            self.tell(conference, "participant-join", leg)
            self.start_if_enough(conference)

    def start_if_enough(self, conference: Conference) -> None:
        """Start the conference, and its recording if it is to have one, once two are there of whom one may start it."""
        if conference.started or not any_starts(conference.connected()):
            return
        conference.started = True
        self.tell(conference, "conference-start")
        if conference.record:
            now = self.clock()
            recording = Recording(self.new_sid("RE"), conference.record, now, now)
            conference.recordings[recording.sid] = recording
            self._tell_recording(conference, recording)

    def announce(self, conference: Conference, leg: Leg | None, url: str) -> None:
        """Play something to one leg or, when None, to all; a moment later it has ended."""
        self._soon(ANNOUNCING, self._announced, conference, leg, url)

    def _announced(self, conference: Conference, leg: Leg | None, url: str) -> None:
        if conference.live:
            self.tell(conference, "announcement-end", leg if leg and leg.present else None, AnnounceUrl=url)

    def leave(self, conference: Conference, leg: Leg, reason: str, status: str = "completed") -> None:
        """Take a leg out and tell so. A call that was not answered is canceled, unless `status` says why not."""
        if not leg.joined:
            reason, status = "participant_add_failed", "canceled" if status == "completed" else status
        self.tell(conference, "participant-leave", leg, ParticipantCallStatus=status, ReasonParticipantLeft=reason)
        self._move(leg, "complete")
        conference.removed.add(leg.call_sid)
        self._end_call(conference, leg.call_sid, status)

    def settle(self, conference: Conference, leg: Leg, how: str) -> None:
        """End the conference if this leg's leave means so; `how` is left or kicked."""
        if leg.joined and leg.flags["EndConferenceOnExit"]:
            ending = f"participant-with-end-conference-on-exit-{how}"
            self.end(conference, ending, "moderator_ended_conference", leg)
        elif not conference.present():
            self.end(conference, f"last-participant-{how}", "", leg)

    def end(self, conference: Conference, ending: str, reason_left: str, ender: Leg | None) -> None:
        """Everyone leaves, the conference ends, calls that still ring are canceled, recordings are completed."""
        for leg in conference.present():
            self.leave(conference, leg, reason_left)
        self.tell_end(conference, ending, ender)
        for sid, call in conference.calls.items():
            self._end_call(conference, sid, "completed" if call.answered else "canceled")
        for recording in conference.recordings.values():
            if recording.running:
                recording.status = "processing"
                self.store(conference, recording)

    def store(self, conference: Conference, recording: Recording) -> None:
        """Complete a recording that has been stopped; a moment later it is."""
        self._soon(STORING, self._complete, conference, recording)

    def _complete(self, conference: Conference, recording: Recording) -> None:
        if recording.sid in conference.recordings:
            recording.status, recording.updated = "completed", self.clock()
            recording.duration = int((recording.updated - recording.started).total_seconds())
            self._tell_recording(conference, recording, RecordingDuration=str(recording.duration))

    def mark_ended(self, conference: Conference, ending: str, ender: str | None) -> None:
        """Note the end; `ender` is the sid of the call that ended it by leaving."""
        conference.status, conference.updated = "completed", self.clock()
        conference.reason_ended, conference.ended_by = ending, ender

    def new_sid(self, prefix: str) -> str:
        """A sid that nothing else has."""
        return f"{prefix}{self._random_bits(128):032x}"

    def tell(self, conference: Conference, event: str, leg: Leg | None = None, **more: str) -> None:
        """Tell an event, with the standing of the leg that it is about."""
        common = {
            "AccountSid": conference.account_sid,
            "ConferenceSid": conference.sid,
            "FriendlyName": conference.friendly_name,
            "Timestamp": stamp(self.clock()),
            "StatusCallbackEvent": event,
        }
        self.number(conference, common | (leg.snapshot() if leg else {}) | more)

    def number(self, conference: Conference, told: dict[str, str]) -> None:
        """Send an event, if anybody wants it, with the next number of its conference."""
        if conference.subscription.wants(told["StatusCallbackEvent"]):
            conference.sequence += 1
            told["SequenceNumber"] = str(conference.sequence)
            self.send(conference.subscription.url, told)

    def tell_end(self, conference: Conference, ending: str, ender: Leg | None) -> None:
        """End the conference in our own words, whoever is still in it; `ender` is who ended it by leaving."""
        conference.cut_short = True
        self.mark_ended(conference, ending, ender.call_sid if ender else None)
        more = {"ReasonConferenceEnded": ending, "Reason": "The conference was ended via API"}
        if ender:
            who = f"{ender.call_sid} with endConferenceOnExit" if "on-exit" in ending else ender.call_sid
            verb = "was kicked from" if ending.endswith("kicked") else "left"
            more |= {"CallSidEndingConference": ender.call_sid, "Reason": f"Participant {who} {verb} the conference"}
            if ender.label is not None:
                more["ParticipantLabelEndingConference"] = ender.label
        self.tell(conference, "conference-end", None, **more)

    def _end_call(self, conference: Conference, sid: str, status: str) -> None:
        """Tell that a dialled call is over, if it was dialled and nobody has been told yet."""
        call = conference.calls.get(sid)
        if call is None or call.ended:
            return
        call.ended = True
        more = {"SipResponseCode": SIP_CODES[status]}
        if status == "completed":
            seconds = int((self.clock() - (call.answered or self.clock())).total_seconds())
            more |= {"CallDuration": str(seconds), "Duration": str(max(1, ceil(seconds / 60)))}
        self._progress(conference, sid, status, **more)

    def _progress(self, conference: Conference, sid: str, status: str, **more: str) -> None:
        call = conference.calls[sid]
        event = "answered" if status == "in-progress" else "completed" if status in TERMINAL else status
        if call.subscription.wants(event):
            passing = {"CallStatus": status, "Timestamp": stamp(self.clock()), "SequenceNumber": str(call.number)}
            call.number += 1
            self.send(call.subscription.url, call.parameters | passing | more)

    def _tell_recording(self, conference: Conference, recording: Recording, **more: str) -> None:
        if recording.subscription.wants(recording.status):
            base = f"https://api.twilio.com/2010-04-01/Accounts/{conference.account_sid}"
            told = {
                "AccountSid": conference.account_sid,
                "ConferenceSid": conference.sid,
                "RecordingSid": recording.sid,
                "RecordingUrl": f"{base}/Recordings/{recording.sid}",
                "RecordingStatus": recording.status,
                "RecordingChannels": "1",
                "RecordingSource": "Conference",
                "RecordingStartTime": stamp(recording.started),
            }
            self.send(recording.subscription.url, told | more)

    def _move(self, leg: Leg, status: str) -> None:
        leg.status, leg.updated = status, self.clock()

    def _soon(self, seconds: float, what: Callable[..., None], *of: object) -> None:
        def now() -> None:
            with self.lock:
                what(*of)

        self._later(seconds / self._speed, now)
