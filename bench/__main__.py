"""Measures everything in turn, round after round, prints the table and keeps the numbers. `python -m bench`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import defaultdict
from datetime import UTC, datetime
from statistics import median
from types import FrameType
from typing import Any

from bench import machine, pages, streams
from bench.load import callbacks, request
from bench.measures import fold, ingest, latency

RATE = 200.0
"""Callbacks a second at which the latency is measured."""
REPEATS = 100
"""How many pages are taken of each list."""
TITLES = {
    "offhook": "Offhook",
    "flask_empty": "empty Flask route",
    "flask_rq": "Flask + SDK + RQ",
    "flask_sse": "a subscription each",
}

Numbers = dict[str, list[dict[str, float]]]
"""What each measurement gave in each round, by `measurement/name`."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (3)")
    parser.add_argument("--quick", action="store_true", help="one short round: whether it works, not how fast")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    os.sched_setaffinity(0, machine.OTHERS)
    description = machine.description()
    _introduce(description)
    numbers = _measure(1, 1.0, 4_000, 300) if options.quick else _measure(options.rounds, 4.0, 20_000, 1_500)
    print(_table(numbers))
    fed = streams.measure(streams.QUICK if options.quick else streams.FULL)
    print(_streams(fed))
    sizes = (1_000, 3_000) if options.quick else (1_000, 100_000)
    with machine.valkey() as url:
        costs = pages.measure(url, sizes, REPEATS)
    print(_pages(costs, sizes))
    now = datetime.now(UTC)
    file = machine.RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    kept = {
        "at": now.isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": description,
        "rounds": numbers,
        "streams": fed,
        "pages_ms": costs,
    }
    file.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"kept in {file.relative_to(machine.ROOT)}")


def _stop(number: int, _: FrameType | None) -> None:
    """An exit that unwinds, and so stops everything that was started."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)
    sys.exit(128 + number)


def _introduce(description: dict[str, Any]) -> None:
    print(f"{description['cpu']}, {description['cores']} cores; fsync {description['fsync_ms']} ms")
    print(f"core {description['measured_core']}: what is measured, one process of each kind")
    print(f"cores {description['other_cores']}: Valkey and the load generator (Python, epoll, 16 kept connections)")
    if description["measured_core"] == description["other_cores"]:
        print("one core for everything: the ratios below are too close to 1")
    if description["load_average_before"] > 0.5:
        print(f"not a quiet machine: load average {description['load_average_before']}; read the ratios only")
    sys.stdout.flush()


def _measure(rounds: int, seconds: float, many: int, jobs: int) -> Numbers:
    told = callbacks(many)
    requests = [request(parameters) for parameters in told]
    numbers: Numbers = defaultdict(list)
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr)
        for name in ("offhook", "flask_empty", "flask_rq"):
            numbers[f"ingest/{name}"].append(ingest(name, requests, seconds))
        numbers["fold/offhook"].append(fold("offhook", told))
        numbers["fold/flask_rq"].append(fold("flask_rq", told[:jobs]))
        numbers["latency/offhook"].append(latency(told, RATE, seconds))
    return numbers


def _table(numbers: Numbers) -> str:
    def spread(values: list[float], form: str) -> str:
        low, middle, high = (format(value, form) for value in (min(values), median(values), max(values)))
        return f"{middle:>8}  {f'{low} to {high}':<18}"

    def column(key: str, field: str) -> list[float]:
        return [measured[field] for measured in numbers[key]]

    def ratio(key: str, base: str) -> str:
        pairs = zip(column(key, "per_second"), column(base, "per_second"), strict=True)
        return spread([one / other for one, other in pairs], ",.2f")

    lines = ["", f"{'ingest':<20}{'requests/s':>8}{'':<19}{'of the empty route':>14}{'':<13}{'cpu µs each':>11}"]
    for name in ("offhook", "flask_empty", "flask_rq"):
        key = f"ingest/{name}"
        lines.append(
            f"  {TITLES[name]:<18}{spread(column(key, 'per_second'), ',.0f')}"
            f"{ratio(key, 'ingest/flask_empty')}{spread(column(key, 'cpu_us'), ',.0f')}"
        )
    lines += ["", f"{'fold':<20}{'callbacks/s':>8}{'':<19}{'times a job each':>14}"]
    for name in ("offhook", "flask_rq"):
        key = f"fold/{name}"
        lines.append(f"  {TITLES[name]:<18}{spread(column(key, 'per_second'), ',.0f')}{ratio(key, 'fold/flask_rq')}")
    lines += ["", f"latency at {RATE:.0f} callbacks/s, Offhook, from due to published"]
    for field, title, form in (
        ("p50_ms", "p50, ms", ",.1f"),
        ("p99_ms", "p99, ms", ",.1f"),
        ("web_busy", "web, of a core", ".2f"),
        ("worker_busy", "worker, of a core", ".2f"),
    ):
        lines.append(f"  {title:<18}{spread(column('latency/offhook', field), form)}")
    busiest = max(measured["generator_busy"] for key in numbers if "ingest" in key for measured in numbers[key])
    lines += ["", f"medians, and the lowest to the highest round; the generator used at most {busiest:.0%} of its core"]
    return "\n".join(lines)


def _streams(fed: dict[str, dict[str, float]]) -> str:
    rows = (
        ("clients", "clients", ",.0f"),
        ("changes/s", "changes_per_second", ",.0f"),
        ("heard, of all due", "heard", ".1%"),
        ("commit to client p50, ms", "change_p50_ms", ",.0f"),
        ("commit to client p99, ms", "change_p99_ms", ",.0f"),
        ("web, of a core", "web_busy", ".2f"),
        ("cpu µs a client and change", "frame_us", ",.1f"),
        ("KiB a client, idle", "idle_kib", ",.0f"),
        ("KiB a client, loaded", "loaded_kib", ",.0f"),
        ("POST p50, ms, no streams", "post_p50_ms_without", ",.1f"),
        ("POST p50, ms", "post_p50_ms", ",.1f"),
        ("POST p99, ms, no streams", "post_p99_ms_without", ",.1f"),
        ("POST p99, ms", "post_p99_ms", ",.1f"),
        ("POSTs refused", "post_refused", ",.0f"),
    )
    heads = "".join(f"{TITLES[key.partition(',')[0]]:>22}" for key in fed)
    lines = ["", f"{f'streams at {streams.RATE:.0f} callbacks/s':<28}{heads}"]
    lines += [
        f"  {title:<26}{''.join(f'{each[field]:>22{form}}' for each in fed.values())}" for title, field, form in rows
    ]
    one, other = fed["offhook"]["frame_us"], fed["flask_sse"]["frame_us"]
    cut = fed["offhook"]
    lines += [
        f"  a subscription each costs {other / one:.1f} times the cpu for a client and change",
        f"  cut off {cut['cuts']:,.0f} times: 0 missed, 0 again, {cut['resets']:.0f} resets; "
        f"{cut['streams_refused']:,.0f} requests for a stream and {cut['post_refused_cuts']:.0f} callbacks refused",
        f"  meanwhile POST p50 {cut['post_p50_ms_cuts']:,.1f} ms, p99 {cut['post_p99_ms_cuts']:,.1f} ms; "
        f"all were back {cut['all_back_s']:.1f} s after it",
        f"  the clients used at most {max(each['clients_busy'] for each in fed.values()):.0%} of their core",
    ]
    return "\n".join(lines)


def _pages(costs: dict[str, list[float]], sizes: tuple[int, int]) -> str:
    lines = ["", f"a page of {pages.PAGE} conferences, ms, median of {REPEATS}: among {sizes[0]:,}, among {sizes[1]:,}"]
    lines += [f"  {name:<26}{few:>8.2f}{many:>8.2f}{many / few:>8.2f} times" for name, (few, many) in costs.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
