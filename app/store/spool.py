"""Callbacks on this machine's disk while Redis cannot take them: the second line, and a bounded one.

Each process appends to a file of its own, a frame for each callback, and has it on disk before anything is
acknowledged. Any process of this folder empties the files of those that are dead, and its own. The fold minds neither
order nor repeats, so nothing more is needed: what was sent and is sent again changes nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import msgspec
import structlog

from app.events import Callback

LIMIT = 256 * 1024 * 1024
"""Bytes of all files together; speech may use half of them. A callback has some 0.7 KiB."""
SENT_AT_ONCE = 200
FRAME = struct.Struct(">II")
"""Before each callback: how long it is, in bytes, and its CRC-32."""
LONGEST_FRAME = 2 * 1024 * 1024
"""Bytes. A callback has 1 MiB at most; a length beyond this is none."""
FLEETING = ("tmpfs", "ramfs", "overlay", "aufs", "devtmpfs")
"""Kinds of file systems that end with the machine or with a container."""

log = structlog.get_logger("offhook.spool")


class Spooled(msgspec.Struct, frozen=True, array_like=True):
    """A callback, and the sid whose shard it belongs to."""

    home: str
    callback: Callback
    speech: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Spooled).decode


class Segment:
    """One file, locked by the process that has it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.sent = 0
        """Bytes that need not be looked at again."""
        self.taken: set[int] = set()
        """Of what comes behind them, where the frames end that were sent all the same."""

    def append(self, frames: bytes) -> None:
        """Have these on disk. Raises OSError with nothing added."""
        try:
            written = 0
            while written < len(frames):
                written += os.write(self.descriptor, frames[written:])
            os.fdatasync(self.descriptor)
        except BaseException:
            os.ftruncate(self.descriptor, self.size)
            raise
        self.size += len(frames)

    def frames(self) -> Iterator[tuple[int, Spooled | None]]:
        """What is still to be sent, each with where it ends; None for what cannot be read."""
        at = self.sent
        while at + FRAME.size <= self.size:
            length, check = FRAME.unpack(os.pread(self.descriptor, FRAME.size, at))
            if length > LONGEST_FRAME or at + FRAME.size + length > self.size:
                break
            raw = os.pread(self.descriptor, length, at + FRAME.size)
            at += FRAME.size + length
            yield at, _read(raw, check)
        if at < self.size:  # mostly torn off: whoever was writing it died, and has acknowledged nothing of it
            yield self.size, None

    def close(self) -> None:
        """Give the lock back."""
        os.close(self.descriptor)


class Spool:
    """The files of one folder. Safe among threads and greenlets."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        """`limit`: how many bytes all files may have together."""
        self.folder = folder
        self.limit = limit
        self._open: Segment | None = None
        self._emptying: list[Segment] = []
        self._complained: set[Path] = set()
        self.trouble = ""
        """Why what is there was not sent the last time; empty: it was."""
        self._guard = threading.Lock()

    def write(self, mail: Sequence[Spooled]) -> list[bool]:
        """Have these on disk, as far as there is room. Of each whether it is. Raises OSError: then none is."""
        with self._guard:
            room = self.limit - self.bytes()
            taken: list[bool] = []
            frames = bytearray()
            for each in mail:
                frame = _frame(each)
                least = self.limit // 2 if each.speech else 0
                fits = room - len(frames) - len(frame) >= least
                taken.append(fits)
                if fits:
                    frames += frame
            if frames:
                if self._open is None:
                    self._open = self._new()
                    log.error("Redis does not take callbacks: they are written to the spool", folder=str(self.folder))
                try:
                    self._open.append(bytes(frames))
                except BaseException:  # what is at its end now is not known
                    self._emptying.append(self._open)
                    self._open = None
                    raise
        return taken

    def bytes(self) -> int:
        """How much is in the folder."""
        total = 0
        for path in self._files():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def has_room(self) -> bool:
        """Whether something could be written now, as far as can be told without doing it."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self.folder, os.W_OK) and self.bytes() < self.limit

    def waiting(self) -> bool:
        """Whether anything is in the folder."""
        return next(self._files(), None) is not None

    def empty(self, send: Callable[[Sequence[Spooled]], Sequence[bool]]) -> int:
        """Send what is there, and take away each file that is done with. How many callbacks were sent.

        `send` tells of each whether it was taken. What was not stays where it is, with all behind it, until the next
        time; what was is not sent again. What `send` raises is raised. Files of living processes are theirs.
        """
        sent = 0
        while segment := self._next():
            try:
                count, done = self._empty(segment, send)
            except OSError as error:
                self._complain(segment.path, error)  # and leave it, locked, to whoever comes after this process
                count, done = 0, True
            sent += count
            if not done:
                break
            with self._guard:
                self._emptying.remove(segment)
        if sent:
            log.info("spooled callbacks are sent", callbacks=sent)
        return sent

    def _next(self) -> Segment | None:
        """The file whose turn it is. No new ones while there are some: else there would be more and more."""
        with self._guard:
            if not self._emptying and self._open is not None:
                self._emptying.append(self._open)
                self._open = None
            if not self._emptying:
                left = (path for path in self._files() if path not in self._complained)
                self._emptying += filter(None, map(self._taken_over, left))
            return self._emptying[0] if self._emptying else None

    def _empty(self, segment: Segment, send: Callable[[Sequence[Spooled]], Sequence[bool]]) -> tuple[int, bool]:
        """How many were sent, and whether the file is done with and gone."""
        sent, damaged = 0, 0
        load: dict[int, Spooled] = {}
        for end, each in segment.frames():
            if each is None:
                damaged += 1
            elif end not in segment.taken:
                load[end] = each
            if len(load) >= SENT_AT_ONCE:
                sent += _sent(segment, load, send)
                if load:
                    return sent, False
                segment.sent = end
        sent += _sent(segment, load, send)
        if load:
            return sent, False
        if damaged:
            kept = segment.path.with_suffix(".damaged")
            segment.path.rename(kept)
            log.error("part of a spool file cannot be read; the file is kept", file=str(kept), parts=damaged)
        else:
            segment.path.unlink(missing_ok=True)
        segment.close()
        return sent, True

    def _taken_over(self, path: Path) -> Segment | None:
        """A file whose process is dead. None: it lives, or another has taken it over, or it cannot be opened."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(path, error)
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink == 0:  # emptied between the two
            os.close(descriptor)
            return None
        return Segment(path, descriptor)

    def _complain(self, path: Path, error: OSError) -> None:
        """Say once that a file cannot be read: the others are sent all the same."""
        if path not in self._complained:
            self._complained.add(path)
            log.error("a spool file cannot be sent", file=str(path), error=error.strerror or type(error).__name__)

    def _files(self) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            yield from self.folder.glob("*.spool")

    def _new(self) -> Segment:
        """A file of this process. It has its lock before others can find it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{os.getpid()}-{secrets.token_hex(4)}.spool"
        unnamed = path.with_suffix(".new")
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            folder = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                unnamed.rename(path)
                os.fsync(folder)
            finally:
                os.close(folder)
        except BaseException:
            os.close(descriptor)
            for name in (unnamed, path):
                name.unlink(missing_ok=True)
            raise
        return Segment(path, descriptor)


def lasts(folder: Path) -> bool:
    """Whether what is written there outlives this machine's, or container's, end, as far as its file system tells."""
    if sys.platform != "linux":
        return True
    there = folder
    try:
        while not there.exists():
            there = there.parent
        device = there.stat().st_dev
    except OSError:  # it can neither be looked into nor written
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if fields.split()[2] == number:
            return kind.split()[0] not in FLEETING
    return True


def _sent(segment: Segment, load: dict[int, Spooled], send: Callable[[Sequence[Spooled]], Sequence[bool]]) -> int:
    """Send these, by where they end. How many were taken; what was not stays in `load`."""
    if not load:
        return 0
    taken = [end for end, is_taken in zip(load, send(list(load.values())), strict=True) if is_taken]
    segment.taken.update(taken)
    for end in taken:
        del load[end]
    return len(taken)


def _frame(each: Spooled) -> bytes:
    raw = _encode(each)
    return FRAME.pack(len(raw), crc32(raw)) + raw


def _read(raw: bytes, check: int) -> Spooled | None:
    if crc32(raw) != check:
        return None
    try:
        return _decode(raw)
    except msgspec.DecodeError:
        return None
