"""Measures everything in turn, prints the tables, and keeps the numbers with a chart. `python -m bench`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, NamedTuple

from bench import chart, end_to_end, express, growth, idle, machine, memory, pages, reads, rooms, streams, tables
from bench.load import Parameters, callbacks, request
from bench.measures import SHARED, fold, ingest, latency

RATE = 200.0
"""Callbacks a second at which the latency is measured."""
NEAR = 0.8
"""Of what is sustained: there the latency is measured once more."""


class Form(NamedTuple):
    """How much is measured of what has no form of its own."""

    seconds: float
    """Of load, each time."""
    flat_out: float
    """Of load, until which everything is to be folded; less when there are no callbacks left."""
    callbacks: int
    """To fold; and to send, again and again."""
    jobs: int
    """As many of them for the peer that makes a job of each."""
    pages: int
    """Of each list."""
    streams: streams.Form
    growth: growth.Form
    memory: memory.Form
    reads: reads.Form
    idle: idle.Form


FULL = Form(4.0, 10.0, 20_000, 1_500, 100, streams.FULL, growth.FULL, memory.FULL, reads.FULL, idle.FULL)
QUICK = Form(1.0, 2.0, 5_000, 300, 20, streams.QUICK, growth.QUICK, memory.QUICK, reads.QUICK, idle.QUICK)


class Run:
    """What sections share. Each is made when the first of them asks for it."""

    def __init__(self, form: Form, capacity: float | None, until_the_end: ExitStack) -> None:
        self.form = form
        self.capacity = capacity
        """Callbacks a second that are sustained end to end: as the command line says, or as measured in this round."""
        self.capacity_is_given = capacity is not None
        self._until_the_end = until_the_end

    @cached_property
    def told(self) -> list[Parameters]:
        """Callbacks of the simulator's stories."""
        return callbacks(self.form.callbacks)

    @cached_property
    def requests(self) -> list[bytes]:
        """The same as signed requests."""
        return [request(one) for one in self.told]

    @cached_property
    def crowd(self) -> str:
        """URL of a Valkey with few live conferences in database 0, and many in database 1."""
        url = self._until_the_end.enter_context(machine.valkey())
        rooms.fill(url, (self.form.growth.few, self.form.growth.many))
        return url


class Section(NamedTuple):
    """Something that is measured."""

    name: str
    measure: Callable[[Run], Any]
    """Once. Its numbers are kept as JSON."""
    table: Callable[[Sequence[Any]], list[str]]
    """Lines about the numbers of all rounds."""
    in_rounds: bool = False
    """Whether it is measured in every round, in turn with the others of these."""


def _ingest(run: Run) -> dict[str, Any]:
    systems = ("offhook", "flask_empty", "flask_rq", "express_empty", "express")
    return {name: ingest(name, run.requests, run.form.seconds) for name in _present(systems)}


def _present(systems: Sequence[str]) -> list[str]:
    """Those that can be measured on this machine."""
    return [name for name in systems if not (name.startswith("express") and express.missing())]


def _fold(run: Run) -> dict[str, Any]:
    return {"offhook": fold("offhook", run.told), "flask_rq": fold("flask_rq", run.told[: run.form.jobs])}


def _end_to_end(run: Run) -> dict[str, Any]:
    systems = _present(("offhook", "express", "flask_rq"))
    measured = {name: end_to_end.measure(name, run.requests, run.form.flat_out) for name in systems}
    if not run.capacity_is_given:
        run.capacity = measured["offhook"]["sustained_per_second"]
    return measured


def _near_capacity(run: Run) -> dict[str, float] | None:
    if run.capacity is None:
        return None
    rate = NEAR * run.capacity
    told = callbacks(int(rate * (1 + run.form.seconds)))
    return {"rate": rate, **latency(told, rate, run.form.seconds, SHARED)}


def _pages(run: Run) -> dict[str, Any]:
    sizes = (run.form.growth.few, run.form.growth.many)
    return {"sizes": sizes, "ms": pages.measure(run.crowd, len(sizes), run.form.pages)}


SECTIONS = [
    Section("ingest", _ingest, partial(tables.beside, "ingest", "requests/s", "per_second", "flask_empty"), True),
    Section("fold", _fold, partial(tables.beside, "fold", "callbacks/s", "per_second", "flask_rq"), True),
    Section(
        "latency",
        lambda run: latency(run.told, RATE, run.form.seconds),
        partial(tables.latency, f"{RATE:.0f} callbacks/s"),
        True,
    ),
    Section("end-to-end", _end_to_end, tables.end_to_end, True),
    Section("near-capacity", _near_capacity, tables.near_capacity, True),
    Section("growth", lambda run: growth.measure(run.crowd, run.form.growth), tables.growth),
    Section("pages", _pages, tables.pages),
    Section("reads", lambda run: reads.measure(run.crowd, run.form.reads), tables.reading),
    Section("memory", lambda run: memory.redis_bytes(run.form.memory), tables.redis_bytes),
    Section("flatness", lambda run: memory.flatness(run.form.memory), tables.flatness),
    Section("idle", lambda run: idle.measure(run.told, run.form.idle), tables.idle),
    Section("streams", lambda run: streams.measure(run.form.streams), tables.feed),
]
"""All that is measured, in this order; first what is measured in rounds."""

CHARTED = {
    "ingest": ("Ingest: callbacks acknowledged a second", "per_second"),
    "fold": ("Fold: callbacks folded a second, catching up", "per_second"),
    "end-to-end": (
        "End to end: callbacks sustained a second, from request to published change",
        "sustained_per_second",
    ),
}
"""Sections that the chart shows: a title for it, and the number of each system."""


def main() -> None:
    """The command line."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    os.sched_setaffinity(0, machine.OTHERS)
    description = machine.description()
    _introduce(description)
    sections = [each for each in SECTIONS if not options.only or each.name in options.only]
    with ExitStack() as until_the_end:
        run = Run(QUICK if options.quick else FULL, options.capacity, until_the_end)
        results = _measure(run, sections, 1 if options.quick else options.rounds)
    now = datetime.now(UTC)
    kept = {
        "at": now.isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": description,
        "results": results,
    }
    for file in _keep(machine.RESULTS / f"{now:%Y%m%dT%H%M%SZ}", kept):
        print(f"kept in {file.relative_to(machine.ROOT)}")


def _options() -> argparse.Namespace:
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often what has peers is measured (3)")
    parser.add_argument(
        "--quick", action="store_true", help="everything once and short: whether it works, not how fast"
    )
    parser.add_argument(
        "--only", action="append", choices=names, metavar="SECTION", help=f"may be repeated: {', '.join(names)}"
    )
    parser.add_argument(
        "--capacity", type=float, help="callbacks/s sustained end to end, for near-capacity; else that of end-to-end"
    )
    return parser.parse_args()


def _stop(number: int, _: FrameType | None) -> None:
    """An exit that unwinds, and so stops everything that was started."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)
    sys.exit(128 + number)


def _introduce(description: dict[str, Any]) -> None:
    print(f"{description['cpu']}, {description['cores']} cores; fsync {description['fsync_ms']} ms")
    print(f"core {description['measured_core']}: what is measured, one process of each kind")
    print(f"cores {description['other_cores']}: Valkey and the load generator (Python, epoll, 16 kept connections)")
    print("end-to-end and near-capacity: everything on every core")
    if reason := express.missing():
        print(reason)
    if description["measured_core"] == description["other_cores"]:
        print("one core for everything: the ratios below are too close to 1")
    if description["load_average_before"] > 0.5:
        print(f"not a quiet machine: load average {description['load_average_before']}; read the ratios only")
    sys.stdout.flush()


def _measure(run: Run, sections: Sequence[Section], rounds: int) -> dict[str, list[Any]]:
    """What each section measured, a number of rounds or once. Tables are printed as soon as they are complete."""
    in_rounds = [section for section in sections if section.in_rounds]
    results: dict[str, list[Any]] = {section.name: [] for section in sections}
    for number in range(1, rounds + 1):
        for section in in_rounds:
            print(f"round {number} of {rounds}: {section.name}", file=sys.stderr)
            results[section.name].append(section.measure(run))
    _print(in_rounds, results)
    for section in sections:
        if not section.in_rounds:
            print(section.name, file=sys.stderr)
            results[section.name].append(section.measure(run))
            _print([section], results)
    return results


def _print(sections: Sequence[Section], results: dict[str, list[Any]]) -> None:
    for section in sections:
        print("", *section.table(results[section.name]), sep="\n", flush=True)


def _keep(name: Path, kept: dict[str, Any]) -> list[Path]:
    """The files that were written: the numbers and, where there is something to be seen, the chart."""
    files = {name.with_suffix(".json"): json.dumps(_plain(kept), indent=1) + "\n"}
    if groups := _charted(kept["results"]):
        files[name.with_suffix(".svg")] = chart.svg(groups)
    for file, text in files.items():
        file.write_text(text)
    return list(files)


def _plain(value: Any) -> Any:
    """The same with a name for every number in JSON: NamedTuples as objects."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _charted(results: dict[str, list[Any]]) -> chart.Groups:
    """Medians of the rounds, by the names that people read."""
    return {
        title: {
            tables.TITLES[name]: median(measured[name][field] for measured in results[section])
            for name in results[section][0]
        }
        for section, (title, field) in CHARTED.items()
        if section in results
    }


if __name__ == "__main__":
    main()
