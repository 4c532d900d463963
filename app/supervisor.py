"""Keeps a few processes running together: starts them in order, restarts one that dies, stops them in reverse."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

PR_SET_PDEATHSIG = 1


class CannotStart(RuntimeError):
    """A process has ended again and again before it was ever ready."""


GIVEN_UP_AFTER = 5
"""Ends before it was ever ready."""
SHORTEST_LIFE = 5.0
"""Seconds. A process that dies sooner waits before its next start, each time longer."""
LONGEST_WAIT = 2.0
LOOK = 0.1

log = structlog.get_logger("offhook.run")


@dataclass
class Process:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    ready: Callable[[], bool] = lambda: True
    """Whether what is started after it may start."""
    patience: float = 10.0
    """Seconds that it is given to end by itself."""
    running: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    started_at: float = 0.0
    wait: float = 0.0
    start_at: float = 0.0
    was_ready: bool = False
    deaths: int = 0


class Supervisor:
    """Runs processes, first to last, until a signal; whoever kills the supervisor itself takes them with it (Linux)."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self.processes = processes
        self.stopping = False

    def run(self, started: Callable[[], None]) -> None:
        """Start all, call `started` when the last is ready, and return once SIGTERM or SIGINT has stopped all.

        Raises `CannotStart`, with all stopped.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            for process in self.processes:
                self._start(process)
                while not self.stopping and not process.ready():
                    self._look_after()
                    time.sleep(LOOK)
                process.was_ready = True
            if not self.stopping:
                started()
            while not self.stopping:
                self._look_after()
                time.sleep(LOOK)
        finally:
            for process in reversed(self.processes):
                self._end(process)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _start(self, process: Process) -> None:
        process.started_at = time.monotonic()
        process.running = subprocess.Popen(  # noqa: S603 - our own commands
            process.command,
            env=dict(process.environ),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the supervisor, which stops them in order
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        log.debug("started", process=process.name, pid=process.running.pid)

    def _look_after(self) -> None:
        """Restart whatever has died, after a wait that grows with each quick death."""
        now = time.monotonic()
        for process in self.processes:
            if process.running is not None and (status := process.running.poll()) is not None:
                lived = now - process.started_at
                process.running = None
                process.wait = 0.0 if lived > SHORTEST_LIFE else min(LONGEST_WAIT, process.wait * 2 or 0.1)
                process.start_at = now + process.wait
                process.deaths += 1
                if not process.was_ready and process.deaths >= GIVEN_UP_AFTER:
                    raise CannotStart(f"{process.name} cannot start: it ended with status {status} every time")
                log.error("died", process=process.name, status=status, starts_again_in=process.wait)
            if process.running is None and process.start_at and now >= process.start_at:
                self._start(process)

    def _end(self, process: Process) -> None:
        if process.running is None or process.running.poll() is not None:
            return
        process.running.terminate()
        try:
            process.running.wait(process.patience)
        except subprocess.TimeoutExpired:
            log.error("killed, for it did not stop", process=process.name)
            process.running.kill()
            process.running.wait()


def _die_with_parent() -> None:
    """Between fork and exec: ask the kernel for SIGTERM when the parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
