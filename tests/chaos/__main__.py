"""`python -m tests.chaos`: which faults, on which seed, and one table of what was kept."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos import crashes, failures, faults, reconcile, serving, soak
from tests.chaos.lab import SIZES, Finding, Lab

SCENARIOS: dict[str, Callable[[Lab], None]] = {
    "kills": crashes.kills,
    "pauses": crashes.pauses,
    "takeover": crashes.takeover,
    "wakes": crashes.wakes,
    "restarts": crashes.restarts,
    "graceful": serving.graceful,
    "stalled": serving.stalled,
    "errors": faults.errors,
    "overload": serving.overload,
    "soak": soak.soak,
    "spool": failures.spool,
    "poison": failures.poison,
    "failpoints": failures.at_failpoints,
    "rolling": failures.rolling,
    "reconcile": reconcile.reconcile,
}
ALONE = ("graceful", "stalled", "errors", "overload", "reconcile")
"""What measures short times; the others go on two at a time, the longest first."""
LONGEST = ("soak", "kills", "failpoints", "takeover", "rolling", "pauses", "restarts")
HEADER = ("fault", "count", "promise", "measured", "verdict")


def main() -> int:
    """Run them, print the table; 1 if any promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", action="append", choices=SCENARIOS, metavar="NAME", help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer faults, shorter loads")
    parser.add_argument("--seed", type=int, default=20261122, help="the same schedule and traffic again")
    parser.add_argument("--list", action="store_true", help="names, and what each does")
    parser.add_argument("--findings", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:10} {scenario.__doc__}")
        return 0
    size = SIZES[asked.quick]
    names = asked.only or list(SCENARIOS)
    if asked.findings:  # one scenario, in a process of its own
        asked.findings.write_text(json.dumps(run(names[0], asked.seed, size)))
        return 0
    began = time.monotonic()
    findings = all_of(names, asked.seed, size)
    print(table(findings))
    broken = sum(not finding.kept for finding in findings)
    words = f"{len(findings)} promises, {broken} broken; seed {asked.seed}, {size}"
    print(f"\n{words}, {(time.monotonic() - began) / 60:.1f} minutes")
    return 1 if broken else 0


def all_of(names: Sequence[str], seed: int, size: str) -> list[Finding]:
    """What all these scenarios find, in their order: each in a process of its own, so that none slows another."""
    told: dict[str, list[Finding]] = {}

    def one(name: str) -> None:
        with tempfile.TemporaryDirectory(prefix="offhook-chaos-") as folder:
            file = Path(folder, "findings.json")
            command = [sys.executable, "-m", "tests.chaos", "--only", name, "--seed", str(seed)]
            command += ["--findings", str(file)] + ["--quick"] * (size == "quick")
            subprocess.run(command, check=False)
            lines = json.loads(file.read_text()) if file.exists() else [(name, "", "it ends", "it died", False, False)]
            told[name] = [Finding(*line) for line in lines]

    side_by_side = [name for name in names if name not in ALONE]
    side_by_side.sort(key=lambda name: LONGEST.index(name) if name in LONGEST else len(LONGEST))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, side_by_side))
    for name in names:
        if name in ALONE:
            one(name)
    return [finding for name in names for finding in told[name]]


def run(name: str, seed: int, size: str) -> list[Finding]:
    """One scenario's findings. That it fails is one, too."""
    with tempfile.TemporaryDirectory(prefix="offhook-chaos-") as folder:
        lab = Lab(name, seed, Path(folder), size)
        try:
            SCENARIOS[name](lab)
        except Exception as error:
            traceback.print_exc()
            lab.promise(name, "", "it comes to its end", f"{type(error).__name__}: {str(error)[:90]}", False)
        finally:
            lab.close()
        return lab.findings


def table(findings: Sequence[Finding]) -> str:
    """Aligned, one promise a line; a fault's name only on its first."""
    rows = [HEADER]
    for before, finding in zip([None, *findings], findings, strict=False):
        same = before is not None and before[:2] == finding[:2]
        name = ("", "") if same else (finding.fault, finding.count)
        rows.append((*name, finding.promise, finding.measured, "kept" if finding.kept else "BROKEN"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


if __name__ == "__main__":
    sys.exit(main())
