"""A stage for pages: a running Offhook, the double of Twilio beside it, and rooms where things are made to happen.

The double is the simulator's own, in this process: what a test tells of a room it knows too, so whatever a page then
asks of Twilio is done there, and told by further callbacks.
"""

from __future__ import annotations

import json
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import msgspec

from app.alerts import Record as AlertRecord
from app.events import Alert, Callback
from app.simulator.agenda import Agenda
from app.simulator.api import Double
from app.simulator.exchange import Exchange
from app.simulator.rooms import Leg, any_starts, stamp
from app.simulator.sender import Sender
from app.simulator.stories import PLACES
from app.store import embedded, keys
from app.store.connect import connect
from app.store.inbox import Inbox
from app.twilio.snapshot import Record
from tests.cast import ACCOUNT, TOKEN
from tests.system.house import House, awaited, free_port

AUTH_TOKEN = TOKEN.replace(" ", "-")

KEYS = {
    "desk": "a-secret-that-may-do-more",
    "wallboard": "a-secret-that-may-only-read",
}
"""Secrets by the name of the key. The desk may control, the wallboard may read."""

OTHER_ACCOUNT = "AC" + "f" * 32
"""Another account of this Offhook, with the same Auth Token. The double knows nothing of it."""

SPEED = 10.0
"""The double's delays are divided by it: who is dialled answers after 0.2 s."""


class Stage:
    """A running Offhook, and whatever happens at Twilio; made by `opened`."""

    def __init__(self, folder: Path, at_the_end: ExitStack) -> None:
        port = free_port()
        self._sender = Sender(f"http://127.0.0.1:{port}/webhooks/twilio", AUTH_TOKEN)
        self._letters: Queue[tuple[str | None, Mapping[str, str]] | None] = Queue()
        self._not_stored: list[int] = []
        self._losing = False
        self._numbers = count(1)
        self.alarmed: dict[str, Room] = {}
        """Rooms in which alerts stand, by their sid."""
        postman = Thread(target=self._deliver, name="postman")
        postman.start()
        at_the_end.callback(postman.join)
        at_the_end.callback(self._letters.put, None)
        agenda = Agenda()
        at_the_end.callback(agenda.close)
        self.exchange = Exchange(ACCOUNT, self.put, agenda.later, speed=SPEED)
        self.double = at_the_end.enter_context(Double(self.exchange, AUTH_TOKEN))
        accounts = folder / "accounts.toml"
        accounts.write_text(f'[[account]]\nsid = "{OTHER_ACCOUNT}"\ntokens = ["{AUTH_TOKEN}"]\n')
        self.house = House(
            folder,
            PORT=str(port),
            OFFHOOK_ACCOUNTS_FILE=str(accounts),
            OFFHOOK_API_KEYS=f"desk:{KEYS['desk']}:control,wallboard:{KEYS['wallboard']}:read",
            TWILIO_API_BASE_URL=self.double.url,
        )
        at_the_end.callback(self.house.process.wait)
        at_the_end.callback(self.house.logs_are_clean)
        at_the_end.callback(self.house.process.kill)  # takes all that it has started with it, and waits for no browser
        self.house.ready()

    def open_room(self, name: str, *, ago: float = 0.0) -> Room:
        """A conference in which nothing has happened yet; its clock stands so many seconds before now."""
        now = datetime.now(UTC).replace(microsecond=0)
        return Room(self, self.new_sid("CF"), name, now - timedelta(seconds=ago))

    def new_sid(self, prefix: str) -> str:
        """A sid that nothing else on this stage has; the same story has the same sids."""
        return f"{prefix}{next(self._numbers):032x}"

    def put(self, url: str | None, parameters: Mapping[str, str]) -> None:
        """Have a callback delivered, signed, after those put before it; to the house's webhook where `url` is None."""
        if not self._losing:
            self._letters.put((url, parameters))

    @contextmanager
    def losing(self) -> Iterator[None]:
        """What is put meanwhile is lost on its way; its number is used up."""
        self._losing = True
        yield
        self._losing = False

    def settle(self) -> None:
        """Wait until every callback that has been put is stored and is part of the live state."""
        self._letters.join()
        assert not self._not_stored, f"callbacks were answered {self._not_stored}: {self.house.log.read_text()}"
        awaited("folded callbacks", lambda: (self.house.get("/api/stats") or WAITING)["callbacks"]["waiting"] == 0)

    def requests(self, room: Room) -> list[tuple[str, str, dict[str, str]]]:
        """What Twilio has been asked to change in a room: method, path below the conference, parameters."""
        asked = self._double("GET", "/double/requests")["requests"]
        about = [(each, each["path"].partition(room.sid)[2]) for each in asked if room.sid in each["path"]]
        return [(each["method"], path, dict(each["parameters"])) for each, path in about if each["method"] != "GET"]

    def forget_requests(self) -> None:
        """Begin anew with what Twilio has been asked, and without faults."""
        self._double("DELETE", "/double/requests")
        self._double("DELETE", "/double/faults")

    def set_fault(self, **fault: Any) -> None:
        """What Twilio's API is to do with the next request; see `app.simulator.api.Fault`."""
        self._double("PUT", "/double/faults", fault)

    def expire_requests(self) -> None:
        """Let the time run out that control requests have to be confirmed in."""
        with connect(embedded.url(self.house.folder / "data"), patience=5.0) as redis:
            for key in redis.scan_iter("offhook:*:pending"):
                redis.zadd(key, dict.fromkeys(redis.zrange(key, 0, -1), 0))

    def write_down(self, room: Room, record: Alert | Mapping[str, Any]) -> None:
        """Have a record in a room's log, as workers write it: of an alert, or of a look with these fields."""
        self.settle()
        named = {"account_sid": ACCOUNT, "conference_sid": room.sid}
        now = datetime.now(UTC)
        written: Any
        if isinstance(record, Alert):
            media, written = "alert", AlertRecord(**named, alert=record)
        else:
            media, written = "snapshot", Record(**named, taken_at=now, by="offhook", **record)
        told = Callback(
            body=msgspec.json.encode(written), media=media, received_at=int(now.timestamp() * 1000), key="offhook"
        )
        with connect(embedded.url(self.house.folder / "data"), patience=5.0) as redis:
            layout: Any = redis.get(keys.LAYOUT)
            inbox = Inbox(redis, int(layout.split()[0]))
            inbox.append(inbox.shard_of(room.sid), told)
        self.settle()

    def dress(self, room: Room, people: Mapping[str, Mapping[str, Any]] | None = None, **header: Any) -> None:
        """Show a room as other than its callbacks have told, until its next one: with these fields of its header, and
        of people by call sid. A mapping replaces fields of what is there.

        It is written and told as a commit does it, so that a page sees what it would see of a look at Twilio or of an
        alert, whatever it takes to come to that.
        """
        self.settle()
        with connect(embedded.url(self.house.folder / "data"), patience=5.0) as redis:
            layout: Any = redis.get(keys.LAYOUT)
            shard = keys.shard_of(room.sid, int(layout.split()[0]))
            name, changes = keys.conference(shard, room.sid), keys.changes(shard)
            known: Any = redis.hgetall(name)
            head = _merged(json.loads(known[b"header"]), header)
            head["revision"] += 1
            changed = {sid: _merged(json.loads(known[sid.encode()]), told) for sid, told in (people or {}).items()}
            message = json.dumps(
                {
                    "conference_sid": room.sid,
                    "account_sid": head["account_sid"],
                    "epoch": (redis.get(keys.epoch(shard)) or b"").decode(),
                    "revision": head["revision"],
                    "events": [],
                    "conference": head,
                    "participants": list(changed.values()),
                }
            )
            redis.hset(name, mapping={each: json.dumps(told) for each, told in {"header": head, **changed}.items()})
            place = {"c": room.sid, "a": head["account_sid"], "r": head["revision"], "m": message}
            redis.xadd(changes, place)
            for each in (keys.ALL_CONFERENCES, keys.conference_channel(room.sid)):
                redis.publish(each, message)

    def heal(self, room: Room, people: Mapping[str, Mapping[str, Any]] | None = None, *, ago: float = 0.0) -> None:
        """Show a room as a look at Twilio so many seconds ago has left it: all that was missing until now is seen."""
        self.settle()
        heard = self.house.get(f"/api/conferences/{room.sid}")["coverage"]["sequences"]
        looked = {
            "from_start": heard[0][0] <= 1,
            "snapshots": 1,
            "snapshot_at": _before_now(ago),
            "snapshot_sequence": heard[-1][1],
        }
        self.dress(room, people, coverage=looked, asked_at=_before_now(ago), want=None)

    def alarm(
        self, room: Room, kind: str, text: str, leg: Leg | None = None, *, severity: str = "warning", ago: float = 0.0
    ) -> None:
        """Have one more alert stand in a room for so many seconds, about somebody or about all of it."""
        self.settle()
        alert = {"rule": f"{kind} too long", "kind": kind, "severity": severity, "text": text, "cleared": False}
        self.alarmed[room.sid] = room
        alert |= {"subject": leg.call_sid if leg else "", "since": _before_now(ago), "at": _before_now(ago)}
        self.dress(room, alerts=[*self.house.get(f"/api/conferences/{room.sid}").get("alerts", ()), alert])

    def end_all(self) -> None:
        """End every conference, as by the API, and its alerts."""
        self.exchange.end_all()
        self.settle()
        for room in self.alarmed.values():
            self.dress(room, alerts=[])
        self.alarmed.clear()

    def _double(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.double.url + path, data, method=method)
        request.add_header("Authorization", f"Basic {b64encode(f'{ACCOUNT}:{AUTH_TOKEN}'.encode()).decode()}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def _deliver(self) -> None:
        while letter := self._letters.get():
            url, parameters = letter
            status = self._sender.send(parameters, url=url)
            if status != 204:
                self._not_stored.append(status)
            self._letters.task_done()


def _before_now(seconds: float) -> str:
    moment = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=seconds)
    return moment.isoformat().replace("+00:00", "Z")


def _merged(document: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The document with these fields, and with those of the mappings in it."""
    parts = {
        name: document[name] | part for name, part in fields.items() if isinstance(part, Mapping) and document[name]
    }
    return document | fields | parts


WAITING: Any = {"callbacks": {"waiting": None}}
"""What a house that does not answer is taken to say."""


@contextmanager
def opened(folder: Path) -> Iterator[Stage]:
    """A stage that is ready, with its files in a folder of its own; all of it ends with the context."""
    with ExitStack() as at_the_end:
        yield Stage(folder, at_the_end)


class Room:
    """One conference. Things happen at the time of its clock, which only `wait` moves.

    Nothing here waits for callbacks: `Stage.settle` does. Flags have Twilio's names, such as `Muted=True`.
    """

    def __init__(self, stage: Stage, sid: str, name: str, clock: datetime) -> None:
        self.sid = sid
        self.name = name
        self.clock = clock
        self._stage = stage
        self.legs: list[Leg] = []
        self._started = False
        self._recording: dict[str, str] = {}

    def wait(self, seconds: float) -> None:
        """Let time pass in the room, not here."""
        self.clock += timedelta(seconds=seconds)

    def wait_until(self, ago: float) -> None:
        """Let time pass in the room, up to so many seconds before now."""
        self.clock = max(self.clock, datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=ago))

    def join(self, label: str | None = None, *, dialled: str | None = None, **flags: bool) -> Leg:
        """Somebody comes in, or is dialled at that number and answers. A conference starts once two are there of whom
        one may start it.
        """
        usual = {"Muted": False, "Hold": False, "Coaching": False}
        standing = usual | {"EndConferenceOnExit": False, "StartConferenceOnEnter": True} | flags
        leg = Leg(self._stage.new_sid("CA"), label, standing, self.clock, self.clock)
        if dialled:
            for number, status in enumerate(("initiated", "ringing", "in-progress")):
                self._progress(leg, dialled, status, number)
        self.legs.append(leg)
        self._tell("participant-join", leg)
        if not self._started and any_starts(self.legs):
            self._started = True
            self._tell("conference-start")
        return leg

    def change(self, leg: Leg, **flags: bool) -> None:
        """Set flags: told as mute, unmute, hold or unhold, and as modify for the others."""
        leg.flags |= flags
        for name, flag in flags.items():
            done = {"Muted": ("unmute", "mute"), "Hold": ("unhold", "hold")}.get(name, ("modify", "modify"))[flag]
            self._tell(f"participant-{done}", leg)

    def speak(self, leg: Leg, seconds: float | None = None) -> None:
        """Somebody speaks for so long, or has not stopped yet."""
        self._tell("participant-speech-start", leg)
        if seconds is not None:
            self.wait(seconds)
            self.fall_silent(leg)

    def fall_silent(self, leg: Leg) -> None:
        """Somebody stops speaking."""
        self._tell("participant-speech-stop", leg)

    def leave(self, leg: Leg, reason: str = "participant_hung_up") -> None:
        """Somebody goes."""
        self.legs.remove(leg)
        self._tell("participant-leave", leg, ParticipantCallStatus="completed", ReasonParticipantLeft=reason)

    def announce(self, url: str = "https://example.com/announcements/welcome.xml") -> None:
        """An announcement to all has ended."""
        self._tell("announcement-end", AnnounceUrl=url)

    def record(self) -> None:
        """A recording begins."""
        recording = self._stage.new_sid("RE")
        self._recording = {
            "AccountSid": ACCOUNT,
            "ConferenceSid": self.sid,
            "RecordingSid": recording,
            "RecordingUrl": f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Recordings/{recording}",
            "RecordingChannels": "1",
            "RecordingSource": "Conference",
            "RecordingStartTime": stamp(self.clock),
        }
        self._play(self._recording | {"RecordingStatus": "in-progress"})

    def end(self) -> None:
        """The conference is ended as by the API, with whoever is still in it."""
        for leg in list(self.legs):
            self.leave(leg, "conference_ended_via_api")
        self._tell("conference-end", ReasonConferenceEnded="conference-ended-via-api")

    def send(self, event: str, **more: str) -> None:
        """Any callback about the room, just as it is given; nothing is known of it at Twilio."""
        self._stage.put(None, self._about(event) | more)

    def _progress(self, leg: Leg, number_called: str, status: str, number: int) -> None:
        self._play(
            {
                "AccountSid": ACCOUNT,
                "CallSid": leg.call_sid,
                "CallStatus": status,
                "From": "+15550100",
                "To": number_called,
                "Direction": "outbound-api",
                **PLACES,
                "Timestamp": stamp(self.clock),
                "CallbackSource": "call-progress-events",
                "SequenceNumber": str(number),
            }
        )

    def _tell(self, event: str, leg: Leg | None = None, **more: str) -> None:
        self._play(self._about(event) | (leg.snapshot() if leg else {}) | more)

    def _about(self, event: str) -> dict[str, str]:
        told = {"AccountSid": ACCOUNT, "ConferenceSid": self.sid, "FriendlyName": self.name}
        return told | {"StatusCallbackEvent": event, "Timestamp": stamp(self.clock)}

    def _play(self, told: Mapping[str, str]) -> None:
        self._stage.exchange.play(self.sid, told)
