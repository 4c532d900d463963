"""What `make install` brings is enough to run: development packages are hidden, and the demo starts all the same."""

from __future__ import annotations

import re
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.system.house import awaited

HIDE = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def hiding(folder: Path, modules: set[str]) -> str:
    """A PYTHONPATH under which these modules are as if not installed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=modules))
    return str(folder)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_demo_runs_with_nothing_but_the_locked_requirements(open_house, tmp_path):
    locked = {normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", Path("requirements.lock").read_text(), re.M)}
    ours = {"offhook", "pip"}
    hidden = {
        module
        for module, owners in packages_distributions().items()
        if not {normal(owner) for owner in owners} & (locked | ours)
    }
    assert "pytest" in hidden
    house = open_house("--demo", PYTHONPATH=hiding(tmp_path / "hide", hidden)).ready()
    awaited("a live conference", lambda: house.get("/api/conferences?status=in-progress")["conferences"])


def test_a_web_process_that_cannot_start_ends_the_whole_with_a_message(open_house, tmp_path):
    house = open_house("--demo", PYTHONPATH=hiding(tmp_path / "hide", {"gevent"}))
    assert house.process.wait(60) == 1
    assert "web cannot start" in house.log.read_text()
    assert not any(house.processes().values())
