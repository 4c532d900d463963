"""`make screenshots`: pictures of the pages in docs/screenshots, of conferences that are the same every time.

Only what the clock shows differs from one run to the next.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, sync_playwright

from tests.browser import chromium
from tests.browser.stage import Room, Stage, opened

FOLDER = Path("docs/screenshots")


class Shot(NamedTuple):
    """One picture. `path` may name a room of `tell`, such as `{board}`; `wait_for` is what must be seen before it."""

    name: str
    path: str
    wait_for: str
    width: int = 1440
    height: int = 900
    scheme: str = "light"
    key: str | None = "desk"


SHOTS = (
    Shot("sign-in", "/sign-in", "form button:enabled", key=None),
    Shot("sign-in-320-dark", "/sign-in", "form button:enabled", width=320, height=640, scheme="dark", key=None),
    Shot("conferences", "/", "text=Support desk 4"),
    Shot("conferences-dark", "/", "text=Support desk 4", scheme="dark"),
    Shot("conferences-320", "/", "text=Support desk 4", width=320, height=700),
    Shot("conferences-768", "/", "text=Support desk 4", width=768, height=1024),
    Shot("conferences-2560", "/", "text=Support desk 4", width=2560, height=1440),
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
    }
    stage.settle()
    return {name: room.sid for name, room in rooms.items()}


def _support_desk(stage: Stage) -> Room:
    """An agent asks a colleague, the caller is on hold."""
    room = stage.open_room("Support desk 4", ago=412)
    caller = room.join(StartConferenceOnEnter=False)
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
    room.speak(agent)
    return room


def _waiting_caller(stage: Stage) -> Room:
    """Nobody has taken the call yet."""
    room = stage.open_room("Support desk 5", ago=38)
    room.join(StartConferenceOnEnter=False)
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
    for turn, director in enumerate((0, 1, 0, 4, 3, 0, 2)):
        room.speak(directors[director], 110 + 17 * turn)
    room.change(directors[5], Muted=True)
    room.wait(2)
    room.speak(directors[1])
    return room


def _coached_call(stage: Stage) -> Room:
    """A supervisor whispers to a new agent."""
    room = stage.open_room("Onboarding, desk 2", ago=265)
    customer = room.join()
    room.wait(9)
    agent = room.join("Finn (agent)", EndConferenceOnExit=True)
    room.speak(agent, 20)
    room.speak(customer, 55)
    supervisor = room.join("Beatriz (supervisor)", Muted=True)
    room.wait(15)
    room.change(supervisor, Coaching=True)
    room.change(supervisor, Muted=False)
    room.speak(supervisor, 12)
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
    room.change(commander, Hold=True)
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
    context = chromium.new_context(
        browser,
        stage.house.url,
        complaints,
        viewport={"width": shot.width, "height": shot.height},
        color_scheme=shot.scheme,
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
    )
    if shot.key:
        chromium.sign_in(context, stage.house.url, shot.key)
    page = context.new_page()
    page.goto(shot.path.format_map(rooms))
    page.locator(shot.wait_for).first.wait_for()
    page.screenshot(path=FOLDER / f"{shot.name}.png", animations="disabled", caret="hide")
    chromium.close(context)
    assert not complaints, f"{shot.name}: {complaints}"


def main() -> None:
    """All of them, or with words on the command line those whose names begin with one."""
    executable = chromium.path()
    if executable is None:
        sys.exit(chromium.NONE_THERE)
    FOLDER.mkdir(exist_ok=True)
    words = tuple(sys.argv[1:]) or ("",)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        opened(Path(folder)) as stage,
        sync_playwright() as playwright,
        chromium.launch(playwright, executable) as browser,
    ):
        rooms = tell(stage)
        for shot in SHOTS:
            if shot.name.startswith(words):
                take(browser, stage, shot, rooms)
                print(FOLDER / f"{shot.name}.png")


if __name__ == "__main__":
    main()
