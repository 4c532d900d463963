"""Offhook as its users start it: real processes on a port and a data directory of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from secrets import randbelow
from time import monotonic, sleep
from typing import Any
from urllib.error import HTTPError, URLError

from tests.cast import ACCOUNT, TOKEN
from tests.leaks import leaks

PATIENCE = 40.0


def free_port() -> int:
    """A port that nobody had a moment ago, and that no outgoing connection will get: those begin at 32,768."""
    while True:
        port = 20_000 + randbelow(12_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def awaited(what: str, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The condition's value, once it is true."""
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        if value := condition():
            return value
        sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain: {what}")


class House:
    """One `offhook run`."""

    def __init__(self, folder: Path, *arguments: str, **environ: str) -> None:
        self.folder = folder
        self.port = int(environ.get("PORT") or free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "offhook.log"
        self.environ = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN.replace(" ", "-"),
            "OFFHOOK_DATA_DIR": str(folder / "data"),
            "OFFHOOK_RECONCILE": "off",
            "PORT": str(self.port),
            "OFFHOOK_ALERTS_FILE": os.devnull,  # logs hold what was sent to it, and nothing of its own
            **environ,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "run", *arguments], env=self.environ, stdout=log, stderr=log
            )

    def ready(self) -> House:
        """Wait until it can store callbacks."""
        awaited(f"/readyz of\n{self.log.read_text()}", lambda: self.process.poll() is not None or self.get("/readyz"))
        assert self.process.poll() is None, self.log.read_text()
        return self

    def get(self, path: str) -> Any:
        """An address's JSON, asked for as the main account; None where it gives no 200."""
        request = urllib.request.Request(self.url + path)
        words = f"{ACCOUNT}:{self.environ['TWILIO_AUTH_TOKEN']}".encode()
        request.add_header("Authorization", f"Basic {b64encode(words).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)
        except (HTTPError, URLError, OSError, ValueError):
            return None

    def logs_are_clean(self) -> None:
        """Raise AssertionError if its logs, or those of its Valkey, tell of a person, a secret or a signature."""
        for log in self.folder.rglob("*.log"):
            found = leaks(log.read_text(errors="replace"))
            assert found == [], f"{log.name} holds {found}"

    def command(self, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run one of offhook's other commands on the same settings."""
        return subprocess.run(
            [sys.executable, "-m", "app", *words], env=self.environ, capture_output=True, text=True, timeout=seconds
        )

    def processes(self) -> dict[str, list[int]]:
        """Pids of what it has started, directly or not, by what they are."""
        found: dict[str, list[int]] = {"valkey": [], "worker": [], "web": []}
        for pid in descendants(self.process.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            kind = "valkey" if "valkey" in words[0] else "worker" if "workers" in words else "web"
            found[kind].append(pid)
        return found

    def web_master(self) -> int | None:
        """The pid of gunicorn's first process, which keeps the others; None: it is being started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next((pid for pid in self.processes()["web"] if str(pid) in children), None)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill whatever is left of it."""
        left = [*descendants(self.process.pid), self.process.pid]
        for pid in filter(alive, left):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def descendants(pid: int) -> list[int]:
    """Every living process that stems from this one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    family, grown = {pid}, True
    while grown:
        grown = False
        for child, parent in parents.items():
            if parent in family and child not in family:
                family.add(child)
                grown = True
    return sorted(family - {pid})


def alive(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
