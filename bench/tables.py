"""What was measured, as lines for people: medians, and the lowest to the highest round where there are several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from bench import memory, reads, streams
from bench.growth import Row
from bench.pages import PAGE

TITLES = {
    "offhook": "Offhook",
    "flask_empty": "empty Flask route",
    "flask_rq": "Flask + SDK + RQ",
    "express_empty": "empty Express route",
    "express": "Express + SDK + BullMQ",
    "flask_sse": "a subscription each",
}

Measured = dict[str, dict[str, float]]
"""Numbers of each system, by what they are."""


def beside(title: str, unit: str, field: str, base: str, rounds: Sequence[Measured]) -> list[str]:
    """One number of each system, and how many times that of the `base` it is, both in the same round."""
    head = f"{title:<24}{unit:>13}{'':<14}{f'times {TITLES[base]}':<29}"
    measured_cpu = any("cpu_us" in numbers for numbers in rounds[0].values())
    lines = [f"{head}{'cpu µs each':>11}" if measured_cpu else head.rstrip()]
    for name in rounds[0]:
        values = [each[name][field] for each in rounds]
        ratios = [each[name][field] / each[base][field] for each in rounds]
        costs = [each[name]["cpu_us"] for each in rounds if "cpu_us" in each[name]]
        cost = _spread(costs, ",.0f") if costs else ""
        lines.append(f"  {TITLES[name]:<22}{_spread(values, ',.0f')}{_spread(ratios, ',.2f')}{cost}".rstrip())
    busiest = max((numbers.get("generator_busy", 0.0) for each in rounds for numbers in each.values()), default=0.0)
    return [*lines, f"  the generator used at most {busiest:.0%} of its core"] if busiest else lines


def latency(title: str, rounds: Sequence[dict[str, float]]) -> list[str]:
    """From due to published, at one rate."""
    rows = (
        ("p50, ms", "p50_ms", ",.1f"),
        ("p99, ms", "p99_ms", ",.1f"),
        ("web, of a core", "web_busy", ".2f"),
        ("worker, of a core", "worker_busy", ".2f"),
        ("generator, the same", "generator_busy", ".2f"),
    )
    head = f"latency at {title}, Offhook, from due to published"
    return [head, *(f"  {name:<18}{_spread([each[field] for each in rounds], form)}" for name, field, form in rows)]


def end_to_end(rounds: Sequence[Measured]) -> list[str]:
    """What the whole machine sustains, and how many times a peer's that Offhook's is, both in the same round."""
    columns = (
        ("accepted/s", "accepted_per_second", ",.0f"),
        ("backlog", "backlog", ",.0f"),
        ("drain s", "drain_s", ",.1f"),
        ("web", "web_us", ",.0f"),
        ("worker", "worker_us", ",.0f"),
        ("Valkey", "valkey_us", ",.0f"),
        ("generator", "generator_us", ",.0f"),
    )
    heads = "".join(f"{head:>11}" for head, _, _ in columns)
    lines = [
        f"{'':<24}{'':<28}{'Offhook has':<28}{'':<33}  cpu µs each:",
        f"{'end to end':<24}{'sustained/s':>13}{'':<15}{'so many times':<28}{heads}   web processes",
    ]
    for name in rounds[0]:
        mine = [each[name] for each in rounds]
        sustained = [each["sustained_per_second"] for each in mine]
        times = [each["offhook"]["sustained_per_second"] / each[name]["sustained_per_second"] for each in rounds]
        cells = "".join(f"{median(each[field] for each in mine):>11{form}}" for _, field, form in columns)
        webs = " or ".join(sorted({f"{each['web_processes']:.0f}" for each in mine}))
        lines.append(
            f"  {TITLES[name]:<22}{_spread(sustained, ',.0f')}{_spread(times, ',.2f')}{cells}   {webs}".rstrip()
        )
    return lines


def near_capacity(rounds: Sequence[dict[str, float] | None]) -> list[str]:
    """The same at four fifths of what can be sustained, if that is known."""
    known = [each for each in rounds if each is not None]
    if not known:
        return ["latency near capacity: not measured; end-to-end or --capacity tells what is sustained"]
    low, high = (f"{bound(each['rate'] for each in known):,.0f}" for bound in (min, max))
    rates = low if low == high else f"{low} to {high}"
    return latency(f"{rates} callbacks/s, 80 % of what is sustained", known)


def growth(rounds: Sequence[list[Row]]) -> list[str]:
    """What a callback costs in a small and in a large case."""
    heads = f"{'cpu: small':>10}{'large':>10}{'times':>8}{'wall: small':>13}{'large':>10}{'times':>8}{'goal':>10}"
    lines = [f"{'a fold, µs a callback':<46}{heads}"]
    for row in rounds[0]:
        cpu, wall = row.large.cpu / row.small.cpu, row.large.wall / row.small.wall
        goal = "" if row.goal is None else f"<= {row.goal:.1f}"
        lines.append(
            f"  {row.title:<44}{row.small.cpu:>10,.0f}{row.large.cpu:>10,.0f}{cpu:>8.2f}"
            f"{row.small.wall:>13,.0f}{row.large.wall:>10,.0f}{wall:>8.2f}{goal:>10}"
        )
    return lines


def redis_bytes(rounds: Sequence[dict[str, Any]]) -> list[str]:
    """Where the bytes of conferences in progress are."""
    [told] = rounds
    present, events = told["present"], told["events"]
    each = events / present
    rows = (
        (f"a live participant, with its log of {each:.1f} events", "a_live_participant", 2048),
        ("  without its log", "a_live_participant_without_log", None),
        ("  one more of a conference, without its log", "one_more_participant", None),
        ("an event in a log, folded in batches", "an_event", 250),
        ("  committed one at a time", "an_event_singly", None),
        ("  one more of a long conference, in batches", "one_more_event", 250),
        ("  the same, committed one at a time", "one_more_event_singly", None),
    )
    return [
        f"Redis, {told['conferences']:,} conferences in progress: {present:,} present, {told['gone']:,} gone, "
        f"{events:,} events",
        *(f"  {title:<50}{told[field]:>8,.0f} bytes{f'   <= {goal:,}' if goal else ''}" for title, field, goal in rows),
        f"  {'of which':<26}{'bytes':>12}{'a participant':>16}{'an event':>12}",
        *(
            f"    {kind:<24}{size:>12,}{size / present:>16,.0f}{size / events:>12,.0f}"
            for kind, size in sorted(told["by_kind"].items(), key=lambda item: -item[1])
        ),
        "  changes are the log of changes for those who follow: as large as it gets, not counted above",
    ]


def flatness(rounds: Sequence[Measured]) -> list[str]:
    """Whether processes grow."""
    [sizes] = rounds
    heads = "".join(f"{head:>10}" for head in ("at first", "half way", "at last", "KiB/min"))
    lines = [f"{f'size at {memory.RATE:.0f} callbacks/s, MiB':<30}{heads}"]
    fields = ("first_mib", "half_way_mib", "last_mib", "kib_per_minute")
    lines += [f"  {name:<28}{''.join(f'{each[field]:>10,.1f}' for field in fields)}" for name, each in sizes.items()]
    return lines


def pages(rounds: Sequence[dict[str, Any]]) -> list[str]:
    """A page among few and among many."""
    [told] = rounds
    few, many = told["sizes"]
    lines = [f"a page of {PAGE} conferences, in process, ms: among {few:,}, among {many:,}"]
    return lines + [f"  {name:<26}{a:>8.2f}{b:>8.2f}{b / a:>8.2f} times" for name, (a, b) in told["ms"].items()]


def reading(rounds: Sequence[dict[str, Any]]) -> list[str]:
    """What reading over a socket costs."""
    [told] = rounds
    titles = {
        "empty": "GET of the empty route",
        "document": f"a conference with {reads.PEOPLE} people",
        "document, many": "  among many",
        "page": f"a page of {PAGE}",
        "page, many": "  among many",
    }
    lines = [f"{'reads, one web process':<34}{'requests/s':>12}{'of the empty':>14}"]
    lines += [
        f"  {titles[name]:<32}{each['per_second']:>12,.0f}{each['of_empty']:>14.2f}"
        for name, each in told["requests"].items()
    ]
    lines.append(f"{'Twilio SDK, ms a call':<34}{'among few':>12}{'among many':>14}{'times':>8}")
    lines += [f"  {name:<32}{a:>12.2f}{b:>14.2f}{b / a:>8.2f}" for name, (a, b) in told["sdk_ms"].items()]
    lines.append(f"{f'POST at {reads.RATE:.0f}/s, ms':<34}{'p50':>12}{'p99':>14}{'refused':>10}")
    lines += [
        f"  {name:<32}{each['p50_ms']:>12.1f}{each['p99_ms']:>14.1f}{each['refused']:>10,.0f}"
        for name, each in told["post"].items()
    ]
    return lines


def idle(rounds: Sequence[Measured]) -> list[str]:
    """What the whole service uses."""
    [told] = rounds
    names = list(told["idle"])
    lines = [f"{'the whole service':<26}{''.join(f'{name:>12}' for name in names)}{'all':>12}"]
    for title, used in told.items():
        values = [*used.values(), sum(used.values())]
        words = [f"{value:.2%}" if title == "idle" else f"{value:,.0f}" for value in values]
        what = "idle, of a core" if title == "idle" else f"{title}, cpu µs each"
        goal = "   <= 1 %" if title == "idle" else ""
        lines.append(f"  {what:<24}{''.join(f'{word:>12}' for word in words)}{goal}")
    return lines


def feed(rounds: Sequence[Measured]) -> list[str]:
    """The live feed, and a peer's."""
    [fed] = rounds
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
    lines = [f"{f'streams at {streams.RATE:.0f} callbacks/s':<28}{heads}"]
    lines += [
        f"  {title:<26}{''.join(f'{each[field]:>22{form}}' for each in fed.values())}" for title, field, form in rows
    ]
    one, other = fed["offhook"]["frame_us"], fed["flask_sse"]["frame_us"]
    cut = fed["offhook"]
    return [
        *lines,
        f"  a subscription each costs {other / one:.1f} times the cpu for a client and change",
        f"  cut off {cut['cuts']:,.0f} times: 0 missed, 0 again, {cut['resets']:.0f} resets; "
        f"{cut['streams_refused']:,.0f} requests for a stream and {cut['post_refused_cuts']:.0f} callbacks refused",
        f"  meanwhile POST p50 {cut['post_p50_ms_cuts']:,.1f} ms, p99 {cut['post_p99_ms_cuts']:,.1f} ms; "
        f"all were back {cut['all_back_s']:.1f} s after it",
        f"  the clients used at most {max(each['clients_busy'] for each in fed.values()):.0%} of their core",
    ]


def _spread(values: Iterable[float], form: str) -> str:
    values = list(values)
    low, middle, high = (format(value, form) for value in (min(values), median(values), max(values)))
    return f"{middle:>8}  {f'{low} to {high}':<18}"
