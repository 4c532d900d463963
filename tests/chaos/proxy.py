"""A TCP proxy in front of a Redis, which can be told to misbehave while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import hiredis

CHUNK = 65536
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing such a socket sends RST."""


class Proxy:
    """Forwards to a Unix socket, in one of these ways (`turn`):

    - `pass`: as it comes
    - `delay`: each answer so many seconds later
    - `blackhole`: nothing that is sent comes back; new connections are taken, and not answered either
    - `half-open`: the connections that there are go silent, new ones pass
    - `reset`: connections are cut off with RST, and so is each new one
    - `canned`: each command is answered with one line, and never reaches Redis

    A connection that has been silent stays so: what it swallowed is missing.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.way = "pass"
        self.seconds = 0.0
        self.line = b""
        self.answered = 0
        """Commands that had a canned answer."""
        self._lines: set[Line] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True, name="proxy")
        self._thread.start()

    def turn(self, way: str, *, seconds: float = 0.0, line: str = "") -> None:
        """From now on behave so; `seconds` for `delay`, `line` for `canned`, such as "-LOADING …"."""
        done = asyncio.run_coroutine_threadsafe(self._turn(way, seconds, f"{line}\r\n".encode()), self._loop)
        done.result(5)

    @contextlib.contextmanager
    def behaving(self, way: str, *, seconds: float = 0.0, line: str = "") -> Iterator[None]:
        """Behave so until the block ends."""
        self.turn(way, seconds=seconds, line=line)
        try:
            yield
        finally:
            self.turn("pass")

    def close(self) -> None:
        """Cut all off and stop."""
        self.turn("reset")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._meet, sock=self._listener))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    async def _turn(self, way: str, seconds: float, line: bytes) -> None:
        self.way, self.seconds, self.line = way, seconds, line
        for each in list(self._lines):
            each.silent |= way in ("blackhole", "half-open")
            if way == "reset":
                each.cut()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(self, reader, writer)
        self._lines.add(line)
        try:
            await line.carry()
        except (OSError, asyncio.CancelledError):
            pass  # either side has gone
        finally:
            self._lines.discard(line)
            line.close()


class Line:
    """One client's connection, and ours to Redis."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.reader = reader
        self.writer = writer
        self.onward: asyncio.StreamWriter | None = None
        self.silent = proxy.way == "blackhole"
        self.commands = hiredis.Reader()

    async def carry(self) -> None:
        """Until one side closes."""
        if self.proxy.way == "reset":
            self.cut()
            return
        back, self.onward = await asyncio.open_unix_connection(self.proxy.target)
        both = [asyncio.create_task(self._there(self.onward)), asyncio.create_task(self._back(back))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _there(self, onward: asyncio.StreamWriter) -> None:
        while chunk := await self.reader.read(CHUNK):
            if self.silent:
                continue
            if self.proxy.way == "canned":
                await self._answer(chunk)
            elif self.commands.has_data():  # half of a command was taken, the other half would be nonsense
                return
            else:
                onward.write(chunk)
                await onward.drain()

    async def _answer(self, chunk: bytes) -> None:
        self.commands.feed(chunk)
        while self.commands.gets() is not False:
            self.proxy.answered += 1
            self.writer.write(self.proxy.line)
        await self.writer.drain()

    async def _back(self, back: asyncio.StreamReader) -> None:
        while chunk := await back.read(CHUNK):
            if self.proxy.way == "delay":
                await asyncio.sleep(self.proxy.seconds)
            if not self.silent:
                self.writer.write(chunk)
                await self.writer.drain()
        while self.silent:  # Redis has hung up, which the client is not to learn
            await asyncio.sleep(0.1)

    def cut(self) -> None:
        """RST to the client."""
        with contextlib.suppress(OSError):
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        self.close()

    def close(self) -> None:
        """Both sides."""
        for writer in (self.writer, self.onward):
            if writer is not None:
                writer.transport.abort()
