"""`make screenshots`: pictures of the pages in docs/screenshots, of conferences that are the same every time.

Only what the clock shows differs from one run to the next.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, sync_playwright

from tests.browser import chromium
from tests.browser.line import Line
from tests.browser.stage import Room, Stage, opened

FOLDER = Path("docs/screenshots")


class Shot(NamedTuple):
    """One picture. `path` may name a room of `tell`, such as `{board}`; `wait_for` is what must be seen before it."""

    name: str
    path: str
    wait_for: str = "text=Support desk 4"
    width: int = 1440
    height: int = 900
    scheme: str = "light"
    key: str | None = "desk"
    press: str | None = None
    """Name of a button to press first."""
    crowded: bool = False
    """Whether many more conferences go on."""
    lost: bool = False
    """Whether the connection is lost."""
    kept: bool = True
    """Whether it is among the documents; otherwise it is taken only if asked for."""


TIMELINE = "svg[role=img] .span"

SHOTS = (
    Shot("overview-light", "/"),
    Shot("overview-dark", "/", scheme="dark"),
    Shot("phone", "/", width=390, height=844, scheme="dark"),
    Shot("conference", "/conferences/{board}", TIMELINE, height=1180),
    Shot("conference-dark", "/conferences/{desk}", TIMELINE, height=1000, scheme="dark", kept=False),
    Shot("conference-320", "/conferences/{desk}", TIMELINE, width=320, height=1400, kept=False),
    Shot("class", "/conferences/{class}", TIMELINE, height=1400, kept=False),
    Shot("incident", "/conferences/{bridge}", TIMELINE, height=1000, kept=False),
    Shot("healed", "/conferences/{healed}", TIMELINE, height=990),
    Shot("healed-dark", "/conferences/{healed}", TIMELINE, height=1180, scheme="dark", kept=False),
    Shot("healed-320", "/conferences/{healed}", TIMELINE, width=320, height=1800, kept=False),
    Shot("alarmed", "/conferences/{waiting}", TIMELINE, height=900, kept=False),
    Shot("ended", "/conferences/{ended}", TIMELINE, height=1000, kept=False),
    Shot("lost", "/", lost=True, kept=False),
    Shot("phone-320", "/", width=320, height=700, kept=False),
    Shot("sign-in", "/sign-in", "form button:enabled", key=None, kept=False),
    Shot("rows", "/", press="Rows", crowded=True),
    Shot("wall", "/", width=2560, height=1080, scheme="dark", crowded=True),
)


def tell(stage: Stage) -> dict[str, str]:
    """Make everything happen that is to be seen. Returns the sids of the rooms by the names that shots give them."""
    rooms = {
        "ended": _interview(stage),
        "class": _class_room(stage),
        "bridge": _incident_bridge(stage),
        "board": _board_call(stage),
        "coached": _coached_call(stage),
        "desk": _support_desk(stage),
        "waiting": _waiting_caller(stage),
        "healed": _healed_consultation(stage),
    }
    for name, ago, *people in GOING_ON:
        room = _plain_call(stage, name, ago, people)
        if name == "Support desk 1":
            stage.alarm(room, "hold", "Has been on hold for longer than two minutes.", room.legs[0], ago=151)
    waiting = rooms["waiting"]
    stage.alarm(waiting, "alone", "Nobody else has come.", waiting.legs[0], severity="critical", ago=38)
    for number, (name, ago, *people) in enumerate(OVER):
        room = _plain_call(stage, name, ago, people)
        room.wait(180 + 271 * number)
        room.end()
    stage.settle()
    return {name: room.sid for name, room in rooms.items()}


def crowd(stage: Stage) -> None:
    """Many more calls at many more desks."""
    agents = ("Amara", "Bram", "Chiara", "Dilan", "Elif", "Finn", "Gesa", "Hugo", "Ines", "Jonas", "Kaja", "Luca")
    callers = ("speaking", "", "on hold", "", "speaking", "muted", "")
    for number in range(28):
        agent = agents[number % len(agents)]
        manner = callers[number % len(callers)]
        people = [("", manner), (f"{agent} (agent)", "" if manner else "speaking")]
        _plain_call(stage, f"Support desk {number + 11}", 17 + 53 * number, people)
    stage.settle()


GOING_ON: tuple[tuple[Any, ...], ...] = (
    ("Sales floor 2", 204, ("Sunniva (agent)", "speaking"), ("", "")),
    ("Sales floor 7", 96, ("Iker (agent)", ""), ("", "speaking")),
    ("Support desk 1", 655, ("", "on hold"), ("Wanjiru (agent)", "muted")),
    ("Stand-up, payments", 540, ("Leo", "muted"), ("Mireille", "speaking"), ("Aroha", "muted"), ("Pavel", "")),
    ("Interpreter, ward 3", 372, ("Dr Lindqvist", ""), ("Interpreter", "speaking"), ("Patient", "")),
    ("Interview: Noor", 1260, ("Noor", "speaking"), ("Thandiwe (host)", ""), ("Observer", "muted")),
    ("Claims, second opinion", 488, ("", "on hold"), ("Marek (agent)", ""), ("Yasmin (lawyer)", "speaking")),
    ("Night shift handover", 148, ("Oyelaran", "speaking"), ("Birgit", "")),
)
"""Plain conferences: name, seconds since they began, and who is in them in which state."""

OVER: tuple[tuple[Any, ...], ...] = (
    ("Support desk 3", 2400, ("", ""), ("Nadia (agent)", "")),
    ("Sales floor 4", 2100, ("", ""), ("Iker (agent)", "")),
    ("Tenants' meeting", 3300, ("Gudrun", ""), ("Ferenc", ""), ("Aiko", "")),
)
"""Such as have ended since."""


def _plain_call(stage: Stage, name: str, ago: float, people: Iterable[tuple[str, str]]) -> Room:
    """People come in one after the other; then each is as is said here."""
    room = stage.open_room(name, ago=ago)
    legs = []
    for label, state in people:
        legs.append((room.join(label or None, dialled=None if label else _number(name)), state))
        room.wait(2 + len(label) % 5)
    for leg, state in legs:
        if state == "on hold":
            room.wait_until(20 + ago / 5)
            room.change(leg, Hold=True)
        elif state == "muted":
            room.change(leg, Muted=True)
        elif state == "speaking":
            room.wait_until(2 + ago % 29)
            room.speak(leg)
    return room


def _number(name: str) -> str:
    """A telephone number for whoever calls there, from those that are nobody's."""
    return f"+155501{sum(map(ord, name)) % 100:02}"


def _support_desk(stage: Stage) -> Room:
    """An agent asks a colleague, the caller is on hold."""
    room = stage.open_room("Support desk 4", ago=412)
    caller = room.join(dialled="+15550142", StartConferenceOnEnter=False)
    room.wait(21)
    agent = room.join("Nadia (agent)", EndConferenceOnExit=True)
    room.wait(4)
    room.speak(agent, 6)
    room.speak(caller, 48)
    room.wait(3)
    room.change(caller, Hold=True)
    room.wait(12)
    colleague = room.join("Emre (second line)", dialled="+15550117")
    room.wait(2)
    room.speak(colleague, 31)
    room.wait_until(17)
    room.speak(agent)
    return room


def _waiting_caller(stage: Stage) -> Room:
    """Nobody has taken the call yet."""
    room = stage.open_room("Support desk 5", ago=38)
    room.join(dialled="+15550168", StartConferenceOnEnter=False)
    return room


def _class_room(stage: Stage) -> Room:
    """A teacher and eleven pupils, all muted but the one who answers."""
    room = stage.open_room("Year 9 geometry", ago=1830)
    teacher = room.join("Ms Okafor (teacher)", EndConferenceOnExit=True)
    names = ("Abena", "Bogdan", "Carmen", "Dagny", "Edda", "Farah", "Goran", "Hana", "Imran", "Jonna", "Leïla")
    pupils = []
    for name in names:
        room.wait(5)
        pupils.append(room.join(name, Muted=True, StartConferenceOnEnter=False))
    for asked in (pupils[2], pupils[7], pupils[4]):
        room.speak(teacher, 140)
        room.change(asked, Muted=False)
        room.speak(asked, 36)
        room.change(asked, Muted=True)
    room.leave(pupils[9])
    room.speak(teacher, 95)
    room.wait_until(31)
    room.change(pupils[0], Muted=False)
    room.speak(pupils[0])
    return room


def _board_call(stage: Stage) -> Room:
    """Six directors, one recording."""
    room = stage.open_room("Board call, third quarter", ago=2710)
    names = ("Ilse Brandt (chair)", "Kofi Mensah", "Oksana Hrytsenko", "Rafael Duarte", "Sanna Virtanen", "Tomás Rey")
    directors = []
    for name in names:
        room.wait(14)
        directors.append(room.join(name, EndConferenceOnExit=name.endswith("(chair)")))
    room.record()
    room.wait(3)
    room.announce("https://example.com/announcements/recorded.xml")
    for turn, director in enumerate((0, 1, 0, 4, 3, 0, 2, 4, 1, 5, 2, 0, 3)):
        room.speak(directors[director], 110 + 17 * turn % 100)
        room.wait(9)
    room.change(directors[5], Muted=True)
    room.wait_until(24)
    room.speak(directors[1])
    return room


def _coached_call(stage: Stage) -> Room:
    """A supervisor whispers to a new agent."""
    room = stage.open_room("Onboarding, desk 2", ago=265)
    customer = room.join(dialled="+15550133")
    room.wait(9)
    agent = room.join("Finn (agent)", EndConferenceOnExit=True)
    room.speak(agent, 20)
    room.speak(customer, 55)
    supervisor = room.join("Beatriz (supervisor)", Muted=True)
    room.wait(15)
    room.change(supervisor, Coaching=True)
    room.change(supervisor, Muted=False)
    room.speak(supervisor, 12)
    room.wait_until(12)
    room.speak(agent)
    return room


def _incident_bridge(stage: Stage) -> Room:
    """Engineers at night; some callbacks never came."""
    room = stage.open_room("Bridge INC-2041", ago=5400)
    commander = room.join("Quentin (commander)")
    room.wait(30)
    database = room.join("Yuki (database)", dialled="+15550126")
    room.speak(commander, 200)
    with stage.losing():
        room.speak(database, 420)
        room.change(database, Muted=True)
    network = room.join("Goran (network)", dialled="+15550131")
    room.speak(network, 610)
    room.speak(commander, 95)
    room.wait_until(190)
    room.change(commander, Hold=True)
    room.wait_until(26)
    room.speak(network)
    return room


def _healed_consultation(stage: Stage) -> Room:
    """Some callbacks never came; a look at Twilio has shown since who is there."""
    room = stage.open_room("Consultation, Dr Roos", ago=1190)
    doctor = room.join("Dr Roos", EndConferenceOnExit=True)
    room.wait(11)
    room.speak(doctor, 74)
    patient = room.join("Patient", dialled="+15550150")
    with stage.losing():
        interpreter = room.join("Interpreter", dialled="+15550151")
        room.change(patient, Muted=True)
    room.speak(doctor, 130)
    room.wait_until(140)
    room.speak(interpreter, 35)
    room.speak(doctor)
    stage.heal(
        room,
        {
            patient.call_sid: {"muted": True, "facts": {"muted": "reconciled", "muted_seconds": "partial"}},
            interpreter.call_sid: {"facts": {"joined_at": "reconciled", "stays": "reconciled"}},
        },
        ago=95,
    )
    return room


def _interview(stage: Stage) -> Room:
    """It is over."""
    room = stage.open_room("Interview: Maeve", ago=3600)
    host = room.join("Viktor (host)")
    guest = room.join("Maeve")
    room.speak(host, 240)
    room.speak(guest, 900)
    room.end()
    return room


def take(browser: Browser, stage: Stage, shot: Shot, rooms: dict[str, str]) -> None:
    """Open the page, wait for what is to be seen, write the picture. Nothing in it moves."""
    complaints: list[str] = []
    line = Line(stage.house.port)
    context = chromium.new_context(
        browser,
        line.url,
        complaints,
        viewport={"width": shot.width, "height": shot.height},
        color_scheme=shot.scheme,
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
    )
    if shot.key:
        chromium.sign_in(context, line.url, shot.key)
    page = context.new_page()
    page.goto(shot.path.format_map(rooms))
    page.locator(shot.wait_for).first.wait_for()
    if shot.key:
        page.get_by_role("banner").get_by_text("Live", exact=True).wait_for()
    if shot.press:
        page.get_by_role("button", name=shot.press).click()
    if shot.lost:
        line.cut()
        page.get_by_role("alert").wait_for()
    page.screenshot(path=FOLDER / f"{shot.name}.png", animations="disabled", caret="hide")
    chromium.close(context)
    line.close()
    assert shot.lost or not complaints, f"{shot.name}: {complaints}"


def main() -> None:
    """Those that are kept, or with words on the command line those whose names begin with one."""
    executable = chromium.path()
    if executable is None:
        sys.exit(chromium.NONE_THERE)
    FOLDER.mkdir(exist_ok=True)
    words = tuple(sys.argv[1:])
    shots = [shot for shot in SHOTS if (shot.name.startswith(words) if words else shot.kept)]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        opened(Path(folder)) as stage,
        sync_playwright() as playwright,
        chromium.launch(playwright, executable) as browser,
    ):
        rooms, is_crowded = tell(stage), False
        for shot in shots:
            if shot.crowded and not is_crowded:
                crowd(stage)
                is_crowded = True
            take(browser, stage, shot, rooms)
            print(FOLDER / f"{shot.name}.png")


if __name__ == "__main__":
    main()
