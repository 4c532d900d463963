"""The spool: what it takes is on disk, within its bound, and sent once Redis is back, whoever has died meanwhile."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as Unconnected
from structlog.testing import capture_logs

from app.events import Callback
from app.store import spool as spooling
from app.store.spool import FRAME, Spool, Spooled, lasts
from tests.cast import ANNA, callback, said

ROOT = Path(__file__).parent.parent.parent
HOME = "CF" + "b" * 32


def numbered(number: int, *, speech: bool = False) -> Spooled:
    return Spooled(HOME, callback(said("participant-modify", ANNA, number=number, second=number)), speech)


class Inboxes:
    """Where it is all sent: takes so many loads, then Redis is away."""

    def __init__(self, loads: int = 1_000) -> None:
        self.loads = loads
        self.had: list[Spooled] = []

    def send(self, mail: Sequence[Spooled]) -> list[bool]:
        if not self.loads:
            raise Unconnected("away")
        self.loads -= 1
        self.had += mail
        return [True] * len(mail)


def emptied(spool: Spool) -> list[Spooled]:
    inboxes = Inboxes()
    assert spool.empty(inboxes.send) == len(inboxes.had)
    return inboxes.had


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "spool"


def test_what_is_written_is_sent_as_it_was_and_then_gone(folder: Path) -> None:
    spool = Spool(folder)
    assert not spool.waiting()
    mail = [numbered(n) for n in range(450)]
    assert spool.write(mail[:1]) == [True]
    assert spool.write(mail[1:]) == [True] * 449
    assert spool.waiting()
    assert spool.bytes() > 450 * 200
    assert emptied(spool) == mail
    assert list(folder.iterdir()) == []
    assert (spool.waiting(), spool.bytes(), emptied(spool)) == (False, 0, [])


def test_the_largest_event_of_a_sink_is_sent_as_it_was(folder: Path) -> None:
    largest = Spooled("CF" + "0" * 32, Callback(body=b"x" * 2**20, media="json", received_at=1, key="main"))
    spool = Spool(folder)
    assert spool.write([largest, numbered(1)]) == [True, True]
    assert emptied(spool) == [largest, numbered(1)]


def test_only_the_owner_can_read_it(folder: Path) -> None:
    Spool(folder).write([numbered(1)])
    [file] = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_it_is_on_disk_before_it_is_acknowledged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", sync)
    spool = Spool(folder)
    spool.write([numbered(1), numbered(2)])
    assert synced == [spool.bytes()], "once for all that come together"


def test_when_redis_goes_away_again_it_goes_on_behind_what_was_sent(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "SENT_AT_ONCE", 3)
    spool, inboxes = Spool(folder), Inboxes(loads=2)
    mail = [numbered(n) for n in range(10)]
    spool.write(mail)
    with pytest.raises(Unconnected):
        spool.empty(inboxes.send)
    assert inboxes.had == mail[:6]
    spool.write([numbered(99)])
    inboxes.loads = 100
    assert spool.empty(inboxes.send) == 5
    assert inboxes.had == [*mail, numbered(99)]
    assert not spool.waiting()


def test_what_is_not_taken_stays_and_what_is_is_not_sent_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "SENT_AT_ONCE", 4)
    spool, had = Spool(folder), []
    mail = [numbered(n) for n in range(10)]
    spool.write(mail)
    full = {mail[1], mail[6]}

    def send(some: Sequence[Spooled]) -> list[bool]:
        had.extend(each for each in some if each not in full)
        return [each not in full for each in some]

    for _ in range(5):
        spool.write([numbered(99)])
        spool.empty(send)
    assert len(list(folder.iterdir())) == 2, "however long it lasts"
    assert had == [mail[0], mail[2], mail[3], mail[4]] or had[:3] == [mail[0], mail[2], mail[3]]
    full.clear()
    spool.empty(send)
    assert not spool.waiting()
    assert sorted(had, key=repr) == sorted([*mail, *[numbered(99)] * 5], key=repr), "each once"


def test_a_file_that_cannot_be_opened_is_said_once_and_the_others_are_sent(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "0-strange.spool").mkdir()
    spool = Spool(folder)
    with capture_logs() as lines:
        for number in range(3):
            spool.write([numbered(number)])
            assert emptied(spool) == [numbered(number)]
    assert [line["error"] for line in lines if line["event"] == "a spool file cannot be sent"] == ["Is a directory"]


def test_a_folder_that_cannot_be_synced_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    spool, before = Spool(folder), len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        for _ in range(5):
            with pytest.raises(OSError, match="Input/output"):
                spool.write([numbered(1)])
    assert list(folder.iterdir()) == []
    assert sys.platform != "linux" or len(list(Path("/proc/self/fd").iterdir())) == before
    assert spool.write([numbered(1)]) == [True]


def test_beyond_its_bound_nothing_is_taken_and_speech_only_to_the_half(folder: Path) -> None:
    frame = len(spooling._frame(numbered(1)))
    spool = Spool(folder, limit=10 * frame)
    assert spool.write([numbered(n, speech=True) for n in range(1, 8)]) == [True] * 5 + [False] * 2
    assert spool.write([numbered(8), numbered(8, speech=True), numbered(9)]) == [True, False, True]
    assert spool.has_room()
    assert spool.write([numbered(n) for n in range(1, 6)]) == [True] * 3 + [False] * 2
    assert not spool.has_room()
    assert spool.bytes() == 10 * frame
    assert len(emptied(spool)) == 10
    assert spool.write([numbered(1)]) == [True]


def test_a_disk_that_is_full_acknowledges_nothing_and_spoils_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(folder)
    spool.write([numbered(1)])
    write = os.write

    def half(descriptor: int, frames: bytes) -> int:
        if len(frames) < 10:
            raise OSError(28, "No space left on device")
        return write(descriptor, frames[: len(frames) // 2])

    with monkeypatch.context() as full:
        full.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            spool.write([numbered(2)])
    spool.write([numbered(3)])
    assert emptied(spool) == [numbered(1), numbered(3)]
    assert list(folder.iterdir()) == []


DIES = """
import os, signal, sys
from pathlib import Path
from app.store.spool import Spool, Spooled
from tests.store.test_spool import numbered
spool = Spool(Path(sys.argv[1]))
spool.write([numbered(n) for n in range(5)])
print("written", flush=True)
signal.pause()
"""


def test_a_dead_process_leaves_its_file_to_the_others_and_a_living_one_does_not(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", DIES, str(folder)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while process.stdout.readline() != b"written\n":
            assert process.poll() is None
        spool = Spool(folder)
        assert emptied(spool) == []
        assert spool.waiting()
        process.kill()
        process.wait()
        assert emptied(spool) == [numbered(n) for n in range(5)]
    assert process.returncode == -signal.SIGKILL
    assert not spool.waiting()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_wherever_the_last_frame_is_torn_the_others_are_sent_and_the_file_is_kept(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "spool"
        abandoned = Spool(folder)
        abandoned.write([numbered(n) for n in range(3)])
        [file] = folder.iterdir()
        frame = abandoned.bytes() // 3
        cut = data.draw(st.integers(1, frame - 1))
        os.truncate(file, 3 * frame - cut)
        assert abandoned._open is not None
        abandoned._open.close()
        spool = Spool(folder)
        assert emptied(spool) == [numbered(0), numbered(1)]
        assert [each.suffix for each in folder.iterdir()] == [".damaged"]
        assert not spool.waiting()


def test_a_damaged_frame_costs_itself_and_the_file_is_kept_for_whoever_can_read_it(folder: Path) -> None:
    spool = Spool(folder)
    spool.write([numbered(n) for n in range(3)])
    [file] = folder.iterdir()
    frame = spool.bytes() // 3
    with file.open("r+b") as damaged:
        damaged.seek(frame + FRAME.size + 20)
        damaged.write(b"\xff\xff\xff")
    assert emptied(spool) == [numbered(0), numbered(2)]
    assert [each.suffix for each in folder.iterdir()] == [".damaged"]


def test_a_callback_keeps_everything_that_was_known_of_it(folder: Path) -> None:
    told = Callback(body=b"\x00\xff=1", received_at=123, key="main-2", token="token", query="a=b", media="control")
    spool = Spool(folder)
    spool.write([Spooled("CA1", told)])
    assert emptied(spool) == [Spooled("CA1", told)]


def test_what_ends_with_a_container_is_told_from_what_lasts(tmp_path: Path) -> None:
    if sys.platform != "linux" or not Path("/dev/shm").exists():
        pytest.skip("needs Linux with /dev/shm")
    assert not lasts(Path("/dev/shm/offhook/data"))
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True).stdout
    assert lasts(tmp_path / "data" / "spool") == (not kind.startswith(("tmpfs", "overlay", "ramfs")))
