"""The peer in Node: installs what it needs, once, and says why it cannot be measured where it cannot."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "peers" / "express"
INSTALLED = FOLDER / "node_modules" / ".package-lock.json"
LONGEST_INSTALL = 300
"""Seconds."""
OLDEST_NODE = 20
"""What the SDK asks for."""


def program(name: str) -> list[str]:
    """How to start one of its programs: server, worker or empty."""
    return ["node", str(FOLDER / f"{name}.js")]


@cache
def missing() -> str | None:
    """Why the peer must be left out, in a sentence; None once it is installed, which this sees to."""
    for needed in ("node", "npm"):
        if shutil.which(needed) is None:
            return f"Express is left out: there is no {needed}."
    if int(_node().partition(".")[0]) < OLDEST_NODE:
        return f"Express is left out: it needs Node {OLDEST_NODE} or newer, and this is {_node()}."
    if _is_installed():
        return None
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=LONGEST_INSTALL)
    except subprocess.TimeoutExpired:
        return f"Express is left out: npm ci did not end within {LONGEST_INSTALL} s."
    if done.returncode:
        return f"Express is left out: npm ci failed.\n{done.stderr[-1000:].strip()}"
    return None


def _node() -> str:
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return said.strip().removeprefix("v")


def _is_installed() -> bool:
    lock = FOLDER / "package-lock.json"
    return INSTALLED.exists() and INSTALLED.stat().st_mtime >= lock.stat().st_mtime


def versions() -> dict[str, str]:
    """Node's and its packages' versions; nothing where the peer is left out."""
    if missing():
        return {}
    packages: dict[str, str] = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    return {"node": _node(), **packages}
