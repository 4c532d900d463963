"""Makes up conferences and tells each as the callbacks that Twilio would send about it.

No I/O and no clock: all chance comes from the `random.Random` and all time from the start that are handed in,
so one seed always tells the same story. The parameters are those of Twilio's docs: TwiML Conference
(conference and recording callbacks) and Call resource (call-progress callbacks).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import ceil
from random import Random

PEOPLE = (
    "Abena", "Anouk", "Arvid", "Beatriz", "Bogdan", "Carmen", "Chidi", "Dagny", "Diego", "Edda", "Emre",
    "Farah", "Finn", "Goran", "Hana", "Ilse", "Imran", "Jarek", "Jonna", "Kamala", "Kofi", "Leïla", "Ludo",
    "Maeve", "Mateo", "Nadia", "Nils", "Oksana", "Pia", "Quentin", "Rafael", "Runa", "Sanna", "Søren",
    "Tadeo", "Tomás", "Ulla", "Viktor", "Wanda", "Yuki", "Zoë",
)  # fmt: skip

AREA_CODES = ("206", "303", "312", "415", "503", "617", "702", "919")

ENDINGS = {
    "last-participant-left": 4,
    "participant-with-end-conference-on-exit-left": 4,
    "conference-ended-via-api": 2,
    "last-participant-kicked": 1,
    "participant-with-end-conference-on-exit-kicked": 1,
}
"""Every ReasonConferenceEnded that Twilio documents, and how often it is drawn."""

SIP_CODES = {"completed": "200", "no-answer": "487", "canceled": "487", "busy": "486", "failed": "404"}
"""The final SIP response by the CallStatus that it leads to."""

PLACES = {
    f"{side}{part}": "US" if part == "Country" else ""
    for side in ("From", "To", "Caller", "Called")
    for part in ("City", "State", "Zip", "Country")
}
"""Where the numbers of a call-progress callback are: nowhere in particular."""


@dataclass(frozen=True, slots=True)
class Callback:
    """One request of Twilio's: `at` is seconds after the story's start, `parameters` is the form.

    The parameters hold numbers and labels, so they are left out of the repr.
    """

    at: float
    parameters: dict[str, str] = field(repr=False)


@dataclass(slots=True, repr=False)
class _Leg:
    """One call's standing in the conference; `to` is its number when it was dialled through the API."""

    call_sid: str
    label: str | None
    muted: bool = False
    hold: bool = False
    coaching: bool = False
    end_on_exit: bool = False
    start_on_enter: bool = True
    to: str | None = None
    progress: int = 0
    answered_at: float = 0.0

    def snapshot(self) -> dict[str, str]:
        label = {} if self.label is None else {"ParticipantLabel": self.label}
        return {
            "CallSid": self.call_sid,
            **label,
            "Muted": _spell(self.muted),
            "Hold": _spell(self.hold),
            "Coaching": _spell(self.coaching),
            "EndConferenceOnExit": _spell(self.end_on_exit),
            "StartConferenceOnEnter": _spell(self.start_on_enter),
        }


def _spell(flag: bool) -> str:
    return "true" if flag else "false"


class _Conference:
    """A conference while it is being told: each method is one thing that happens.

    `wait` moves its clock. `speed` divides the times on their way out, so that stamps and durations agree
    with the moments at which the callbacks are sent.
    """

    def __init__(self, rng: Random, account_sid: str, start: datetime, name: str, speed: float) -> None:
        self.rng = rng
        self.present: list[_Leg] = []
        self.callbacks: list[Callback] = []
        self._account_sid = account_sid
        self._start = start
        self._name = name
        self._speed = speed
        self._clock = 0.0
        self._sid = self._new_sid("CF")
        self._number = self._new_number()
        self._people = rng.sample(PEOPLE, len(PEOPLE))
        self._sequence = 0
        self._started = False
        self._speaker: _Leg | None = None
        self._recording_sid = self._new_sid("RE") if self.chance(0.35) else None
        self._recording_from: float | None = None

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def wait(self, shortest: float, longest: float) -> None:
        self._clock += self.rng.uniform(shortest, longest)

    def leg(
        self,
        role: str | None = None,
        *,
        labelled: bool = True,
        muted: bool = False,
        start_on_enter: bool = True,
        end_on_exit: bool = False,
    ) -> _Leg:
        person = self._people.pop()
        label = f"{person} ({role})" if role else person
        return _Leg(
            self._new_sid("CA"),
            label if labelled else None,
            muted=muted,
            start_on_enter=start_on_enter,
            end_on_exit=end_on_exit,
        )

    def dial(self, leg: _Leg) -> None:
        """Rings the leg, which answers and joins; whoever is there talks on meanwhile."""
        self._ring(leg)
        self.talk(self.rng.uniform(2, 7))
        leg.answered_at = self._clock
        self._report_progress(leg, "in-progress")
        self.join(leg)

    def dial_in_vain(self, leg: _Leg) -> None:
        """Rings a leg that never joins: it is a leave without a join."""
        status = self.rng.choice(("no-answer", "no-answer", "busy", "failed", "canceled"))
        self._ring(leg)
        self.talk(self.rng.uniform(8, 15) if status == "no-answer" else self.rng.uniform(1, 3))
        self._report_progress(leg, status, SipResponseCode=SIP_CODES[status])
        self._report_leave(leg, "participant_add_failed", status)

    def join(self, leg: _Leg) -> None:
        self.present.append(leg)
        self._report("participant-join", leg)
        if not self._started and len(self.present) > 1 and any(leg.start_on_enter for leg in self.present):
            self._started = True
            self._report("conference-start")
            if self._recording_sid:
                self._recording_from = self._clock
                self._report_recording("in-progress")
                self.announce()

    def announce(self, leg: _Leg | None = None) -> None:
        """Plays an announcement to one leg, or to all."""
        self.wait(1.5, 3)
        url = "https://example.com/announcements/" + self.rng.choice(("recorded.xml", "two-minutes.xml", "welcome.xml"))
        if self.chance(0.15):
            reason = "The announcement could not be played because of an internal error"
            self._report("announcement-fail", leg, AnnounceUrl=url, ReasonAnnouncementFailed=reason)
        else:
            self._report("announcement-end", leg, AnnounceUrl=url)

    def mute(self, leg: _Leg, muted: bool) -> None:
        leg.muted = muted
        self._report("participant-mute" if muted else "participant-unmute", leg)

    def hold(self, leg: _Leg, hold: bool) -> None:
        leg.hold = hold
        self._report("participant-hold" if hold else "participant-unhold", leg)

    def coach(self, leg: _Leg, coaching: bool) -> None:
        leg.coaching = coaching
        self._report("participant-modify", leg)

    def end_on_exit(self, leg: _Leg, end_on_exit: bool) -> None:
        leg.end_on_exit = end_on_exit
        self._report("participant-modify", leg)

    def talk(self, seconds: float) -> None:
        """Lets those who can be heard take turns for so long; one turn in five is cut short by another."""
        until = self._clock + seconds
        while (left := until - self._clock) > 0.01:
            voices = [leg for leg in self.present if not (leg.muted or leg.hold)]
            if not self._started or not voices:
                self.wait(left, left)
                return
            self._take_turn([leg for leg in voices if leg is not self._speaker] or voices, left)

    def _take_turn(self, voices: list[_Leg], left: float) -> None:
        speaker = self.rng.choice(voices)
        others = [leg for leg in voices if leg is not speaker]
        self._report("participant-speech-start", speaker)
        turn = min(self.rng.uniform(1.5, 6), left)
        if others and self.chance(0.2):
            interrupter = self.rng.choice(others)
            self.wait(turn * 0.6, turn * 0.7)
            self._report("participant-speech-start", interrupter)
            self.wait(turn * 0.1, turn * 0.2)
            self._report("participant-speech-stop", speaker)
            speaker = interrupter
            turn *= 0.1
        self.wait(turn, turn)
        self._report("participant-speech-stop", speaker)
        self._speaker = speaker
        self.wait(0.3, 1.2)

    def step_out(self, leg: _Leg) -> None:
        """The call is redirected elsewhere and later back: the same CallSid leaves and joins again."""
        self._leave(leg, "participant_updated_via_api", "in-progress")
        self.talk(self.rng.uniform(4, 10))
        self.join(leg)

    def hang_up(self, leg: _Leg) -> None:
        """Leaves a conference that goes on without it."""
        self._leave(leg, "participant_hung_up", "completed")

    def finish(self, host: _Leg) -> None:
        """Ends the conference in one of Twilio's ways; flags that stand in the way are changed first."""
        if self.chance(0.04):
            self._report("participant-reaction", host)  # not an event today: docs say that new ones may come
        ending = self.rng.choices(list(ENDINGS), weights=list(ENDINGS.values()))[0]
        if ending == "conference-ended-via-api":
            self._close(ending, "conference_ended_via_api", None)
        elif ending.startswith("last-participant"):
            self._empty(ending)
        else:
            if not host.end_on_exit:
                self.end_on_exit(host, True)
            self.wait(0.5, 2)
            self._leave(host, _reason_left(ending), "completed")
            self._close(ending, "moderator_ended_conference", host)

    def give_up(self, leg: _Leg) -> None:
        """The only one there hangs up before anybody came: a conference that never started."""
        self._leave(leg, "participant_hung_up", "completed")
        self._close("last-participant-left", "", leg)

    def _empty(self, ending: str) -> None:
        for leg in [leg for leg in self.present if leg.end_on_exit]:
            self.end_on_exit(leg, False)
        *early, last = self.rng.sample(self.present, len(self.present))
        for leg in early:
            self.wait(0.2, 2)
            self._leave(leg, "participant_hung_up", "completed")
        self.wait(0.2, 2)
        self._leave(last, _reason_left(ending), "completed")
        self._close(ending, "", last)

    def _close(self, ending: str, reason_left: str, ender: _Leg | None) -> None:
        """Ends the conference; those still there leave just before it or, as has been seen, just after."""
        end_comes_first = self.chance(0.25)
        if end_comes_first:
            self._report_end(ending, ender)
        for leg in list(self.present):
            self._leave(leg, reason_left, "completed")
        if not end_comes_first:
            self._report_end(ending, ender)
        if self._recording_from is not None:
            seconds = int((self._clock - self._recording_from) / self._speed)
            self.wait(2, 6)
            if self.chance(0.1):
                self._report_recording("absent")
            else:
                self._report_recording("completed", RecordingDuration=str(seconds))

    def _leave(self, leg: _Leg, reason: str, status: str) -> None:
        self.present.remove(leg)
        self._report_leave(leg, reason, status)
        if leg.to and status == "completed":
            seconds = int((self._clock - leg.answered_at) / self._speed)
            minutes = max(1, ceil(seconds / 60))
            self._report_progress(
                leg,
                status,
                SipResponseCode=SIP_CODES[status],
                CallDuration=str(seconds),
                Duration=str(minutes),
            )

    def _report_leave(self, leg: _Leg, reason: str, status: str) -> None:
        self._report("participant-leave", leg, ParticipantCallStatus=status, ReasonParticipantLeft=reason)

    def _report_end(self, ending: str, ender: _Leg | None) -> None:
        if ender is None:
            self._report("conference-end", ReasonConferenceEnded=ending, Reason="The conference was ended via API")
            return
        verb = "was kicked from" if ending.endswith("kicked") else "left"
        who = f"{ender.call_sid} with endConferenceOnExit" if ender.end_on_exit else ender.call_sid
        label = {} if ender.label is None else {"ParticipantLabelEndingConference": ender.label}
        self._report(
            "conference-end",
            None,
            ReasonConferenceEnded=ending,
            CallSidEndingConference=ender.call_sid,
            Reason=f"Participant {who} {verb} the conference",
            **label,
        )

    def _report(self, event: str, leg: _Leg | None = None, **more: str) -> None:
        self._sequence += 1
        self._write(
            ConferenceSid=self._sid,
            FriendlyName=self._name,
            SequenceNumber=str(self._sequence),
            Timestamp=self._stamp(self._clock),
            StatusCallbackEvent=event,
            **(leg.snapshot() if leg else {}),
            **more,
        )

    def _report_recording(self, status: str, **more: str) -> None:
        url = f"https://api.twilio.com/2010-04-01/Accounts/{self._account_sid}/Recordings/{self._recording_sid}"
        self._write(
            ConferenceSid=self._sid,
            RecordingSid=str(self._recording_sid),
            RecordingUrl=url,
            RecordingStatus=status,
            RecordingChannels="1",
            RecordingSource="Conference",
            RecordingStartTime=self._stamp(self._recording_from or 0.0),
            **more,
        )

    def _ring(self, leg: _Leg) -> None:
        leg.to = self._new_number()
        self._report_progress(leg, "initiated")
        self.wait(0.3, 1)
        self._report_progress(leg, "ringing")

    def _report_progress(self, leg: _Leg, status: str, **more: str) -> None:
        to = str(leg.to)
        self._write(
            CallSid=leg.call_sid,
            ApiVersion="2010-04-01",
            CallStatus=status,
            From=self._number,
            To=to,
            Caller=self._number,
            Called=to,
            Direction="outbound-api",
            **PLACES,
            Timestamp=self._stamp(self._clock),
            CallbackSource="call-progress-events",
            SequenceNumber=str(leg.progress),
            **more,
        )
        leg.progress += 1

    def _write(self, **parameters: str) -> None:
        self.callbacks.append(Callback(self._clock / self._speed, {"AccountSid": self._account_sid, **parameters}))

    def _stamp(self, clock: float) -> str:
        return format_datetime((self._start + timedelta(seconds=clock / self._speed)).replace(microsecond=0))

    def _new_sid(self, prefix: str) -> str:
        return f"{prefix}{self.rng.getrandbits(128):032x}"

    def _new_number(self) -> str:
        """A number from the range kept for fiction: 555-0100 to 555-0199."""
        return f"+1{self.rng.choice(AREA_CODES)}55501{self.rng.randrange(100):02d}"


def _reason_left(ending: str) -> str:
    return "participant_updated_via_api" if ending.endswith("kicked") else "participant_hung_up"


def _support_call(conference: _Conference, seconds: float) -> None:
    """A caller waits for an agent, who puts the call on hold once; some callers do not wait."""
    caller = conference.leg(labelled=False, start_on_enter=False)
    conference.join(caller)
    conference.wait(3, 10)
    if conference.chance(0.1):
        conference.give_up(caller)
        return
    agent = conference.leg("agent", end_on_exit=True)
    conference.join(agent)
    conference.talk(seconds * 0.4)
    conference.hold(caller, True)
    conference.wait(seconds * 0.1, seconds * 0.1)
    conference.hold(caller, False)
    conference.talk(seconds * 0.5)
    conference.finish(agent)


def _class_room(conference: _Conference, seconds: float) -> None:
    """A teacher and six to fifteen muted pupils, who are unmuted one at a time to answer."""
    teacher = conference.leg("teacher", end_on_exit=True)
    conference.join(teacher)
    pupils = [conference.leg(muted=True, start_on_enter=False) for _ in range(conference.rng.randint(6, 15))]
    for pupil in pupils:
        conference.wait(0.2, 1.5)
        conference.join(pupil)
    for _ in range(4):
        pupil = conference.rng.choice(pupils)
        conference.talk(seconds * 0.12)
        conference.mute(pupil, False)
        conference.talk(seconds * 0.12)
        conference.mute(pupil, True)
    conference.hang_up(conference.rng.choice(pupils))
    conference.finish(teacher)


def _stand_up(conference: _Conference, seconds: float) -> None:
    """Three to six colleagues; one mutes a noisy room, another is redirected out and comes back."""
    team = [conference.leg() for _ in range(conference.rng.randint(3, 6))]
    for member in team:
        conference.join(member)
        conference.wait(0.4, 3)
    noisy, wanted = conference.rng.sample(team, 2)
    conference.talk(seconds * 0.3)
    conference.mute(noisy, True)
    conference.talk(seconds * 0.3)
    conference.mute(noisy, False)
    if conference.chance(0.5):
        conference.step_out(wanted)
    conference.talk(seconds * 0.4)
    conference.finish(team[0])


def _coached_call(conference: _Conference, seconds: float) -> None:
    """A supervisor listens in on an agent, coaches and sometimes speaks to the customer too."""
    customer = conference.leg(labelled=False)
    agent = conference.leg("agent", end_on_exit=True)
    supervisor = conference.leg("supervisor", muted=True)
    conference.join(customer)
    conference.wait(2, 6)
    conference.join(agent)
    conference.talk(seconds * 0.3)
    conference.join(supervisor)
    conference.talk(seconds * 0.2)
    conference.coach(supervisor, True)
    conference.mute(supervisor, False)
    conference.talk(seconds * 0.3)
    if conference.chance(0.5):
        conference.coach(supervisor, False)
        conference.talk(seconds * 0.2)
    conference.hang_up(supervisor)
    conference.finish(agent)


def _warm_transfer(conference: _Conference, seconds: float) -> None:
    """An agent rings a customer, perhaps twice, and hands over to a specialist, the customer on hold."""
    agent = conference.leg("agent", end_on_exit=True)
    conference.join(agent)
    if conference.chance(0.3):
        conference.dial_in_vain(conference.leg("customer"))
    customer, specialist = conference.leg("customer"), conference.leg("specialist")
    conference.dial(customer)
    conference.talk(seconds * 0.4)
    conference.hold(customer, True)
    conference.dial(specialist)
    conference.talk(seconds * 0.15)
    conference.hold(customer, False)
    conference.end_on_exit(specialist, True)
    conference.end_on_exit(agent, False)
    conference.talk(seconds * 0.1)
    conference.hang_up(agent)
    conference.talk(seconds * 0.35)
    conference.finish(specialist)


def _incident_bridge(conference: _Conference, seconds: float) -> None:
    """Two engineers ring those on call, of whom some do not answer."""
    commander, engineer = conference.leg("commander"), conference.leg("engineer")
    conference.join(commander)
    conference.wait(1, 3)
    conference.join(engineer)
    for called in range(4):
        if called == 0 or conference.chance(0.4):
            conference.dial_in_vain(conference.leg("on call"))
        else:
            conference.dial(conference.leg("on call"))
        conference.talk(seconds * 0.15)
    conference.talk(seconds * 0.4)
    conference.finish(commander)


def _town_hall(conference: _Conference, seconds: float) -> None:
    """Speakers, a muted audience and announcements to one or to all."""
    host = conference.leg("host", end_on_exit=True)
    speaker = conference.leg("speaker")
    audience = [conference.leg(labelled=False, muted=True) for _ in range(conference.rng.randint(4, 10))]
    conference.join(host)
    for leg in [speaker, *audience]:
        conference.wait(0.2, 2)
        conference.join(leg)
    conference.announce()
    conference.talk(seconds * 0.5)
    conference.announce(conference.rng.choice(audience))
    conference.talk(seconds * 0.5)
    conference.announce()
    conference.finish(host)


_SCENES: tuple[tuple[Callable[[_Conference, float], None], int, tuple[str, ...]], ...] = (
    (_support_call, 4, ("Support call {n}", "Help desk | case {n}", "Maple Street Dental, line {n}")),
    (_class_room, 2, ("Year {d} geometry", "Français, groupe {d}", "Piano theory {d}", "Chemistry lab {d}")),
    (_stand_up, 3, ("Stand-up: team Heron {d}", "Stand-up: team Otter {d}", "Zürich / Kraków daily {d}")),
    (_coached_call, 2, ("Coached call {n}", "Onboarding, desk {n}")),
    (_warm_transfer, 3, ("Order {n}", "Claims | {n}", "Riverbank Insurance {n}")),
    (_incident_bridge, 2, ("Incident {n}", "Bridge INC-{n}")),
    (_town_hall, 1, ("Town hall, floor {d}", "Harbour Choir committee {d}")),
)
"""What kinds of conference there are, how often each is drawn and what such rooms are called."""


def story(
    rng: Random,
    account_sid: str,
    start: datetime,
    *,
    name: str | None = None,
    minutes: float | None = None,
    speed: float = 1.0,
) -> list[Callback]:
    """One plausible conference: its callbacks, in the order in which things happen, the first at 0.0.

    Conference callbacks are numbered densely from 1 and call-progress callbacks from 0 for each call;
    recording callbacks have no number. `start` is an aware datetime; `Timestamp` is start + at in RFC 2822,
    whole seconds, UTC. `name` is the FriendlyName (made up when None). `minutes` is about how long people
    talk (drawn from 1 to 3 when None), to which joining, ringing and leaving add. `speed` divides every time
    and duration. Raises ValueError for a naive `start` and for a `speed` that is not above 0.
    """
    if start.tzinfo is None:
        raise ValueError("start has no time zone: pass an aware datetime, e.g. datetime.now(UTC)")
    if not speed > 0:
        raise ValueError(f"speed is {speed}: it must be above 0")
    weights = [weight for _, weight, _ in _SCENES]
    tell, _, names = rng.choices(_SCENES, weights=weights)[0]
    made_up = rng.choice(names).format(n=rng.randint(1000, 9999), d=rng.randint(1, 9))
    length = rng.uniform(1, 3) if minutes is None else minutes
    conference = _Conference(rng, account_sid, start.astimezone(UTC), name or made_up, speed)
    tell(conference, length * 60)
    return conference.callbacks


def shuffled(rng: Random, callbacks: Sequence[Callback], *, loss: float = 0.0) -> list[Callback]:
    """The same callbacks in the order in which an unreliable network would deliver them.

    About one in five is late, mostly by a few places and now and then by up to the whole length; one in
    twenty comes twice. `loss` is the probability, 0 to 1, that a callback never arrives. `at` stays the time
    when it happened. Raises ValueError for any other `loss`.
    """
    if not 0 <= loss <= 1:
        raise ValueError(f"loss is {loss}: it is a probability, from 0 to 1")
    deliveries: list[tuple[float, Callback]] = []
    for place, callback in enumerate(callbacks):
        if rng.random() < loss:
            continue
        for _ in range(2 if rng.random() < 0.05 else 1):
            reach = rng.choices((0, 4, len(callbacks)), weights=(80, 16, 4))[0]
            deliveries.append((place + rng.uniform(0, reach), callback))
    deliveries.sort(key=lambda delivery: delivery[0])
    return [callback for _, callback in deliveries]
