"""How requests fare: while web is reloaded and stopped, beside clients that stall, and when there are too many."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import time
from bisect import bisect
from collections.abc import Sequence
from itertools import islice

from bench.load import deliver
from tests.chaos.crashes import redis_of
from tests.chaos.lab import Lab, signal_to, told
from tests.chaos.ledger import Parameters, await_settled, stories
from tests.chaos.traffic import CUT, REFUSED, SILENT, Answer, Flow, Request, quantile, requests
from tests.system.house import House, awaited

IN_FLIGHT = 0.1
"""Seconds that Redis takes to answer, so that there are always some requests under way."""


def graceful(lab: Lab) -> None:
    """Reloads and stops of web under load: by HUP, one process of it, all of it."""
    rate = lab.of(200, 200, 60)
    hups, terms, stops = lab.of(10, 3, 1), lab.of(5, 2, 1), lab.of(5, 2, 0)
    valkey = lab.valkey()
    proxy = lab.proxy(valkey)
    house = lab.house(REDIS_URL=proxy.url)
    flows: list[Flow] = []

    def under_load(fault: str, times: int, seed: int, apart: float, hit: str) -> None:
        if not times:
            return
        awaited("web's first process", house.web_master)
        with proxy.behaving("delay", seconds=IN_FLIGHT), Flow(house, lab.seed + seed, rate, fresh=0.5) as flow:
            flows.append(flow)
            time.sleep(1.0)
            for _ in range(times):
                master = awaited("web's first process", house.web_master)
                others = awaited("web's processes", lambda m=master: [p for p in house.processes()["web"] if p != m])
                victim = lab.rng.choice(others) if hit == "one" else master
                signal_to(victim, signal.SIGHUP if hit == "reload" else signal.SIGTERM)
                time.sleep(apart)
        counts, sent = flow.counts(), len(flow.answers)
        cut, nobody, busy = (counts.get(each, 0) for each in (CUT, REFUSED, 503))
        others = sent - cut - nobody - busy - counts.get(204, 0)
        if hit == "all":  # what the kernel had taken in when the socket was closed has met nobody either
            unmet = sum(each.status == CUT and each.first for each in flow.answers)
            said = (
                f"of {sent:,}: {cut - unmet} cut off; nobody listens for {(nobody + unmet) / times / rate:.1f} s each"
            )
            lab.promise(fault, times, "what is under way is answered", said, cut == unmet and not others)
        else:
            said = f"of {sent:,}: {cut + nobody + others}"
            lab.promise(fault, times, "none is cut off or refused a connection", said, not (cut or nobody or others))
        lab.found(fault, times, "0 answered 503", busy, busy == 0, timed=True)
        if busy:
            lab.say(f"{fault}: {busy} x 503; refused so far: {refusals(house)}")

    apart = lab.of(3.0, 3.0, 2.0)
    under_load(f"gunicorn reload (HUP), {rate}/s", hups, 1, apart, "reload")
    under_load(f"SIGTERM of one web process, {rate}/s", terms, 2, apart, "one")
    under_load(f"SIGTERM of all of web, then started again, {rate}/s", stops, 3, lab.of(7.0, 7.0, 6.0), "all")
    acknowledged = [each for flow in flows for each in flow.acknowledged]
    unsure = [each for flow in flows for each in flow.unsure]
    lab.accounts("reloads and stops of web", hups + terms + stops, house, valkey.redis(), acknowledged, unsure)


def refusals(house: House) -> dict[str, int]:
    """What web says that it has refused, and why."""
    stats = house.get("/api/stats")
    return dict(stats["callbacks"]["refused"]) if stats else {}


def stalled(lab: Lab) -> None:
    """Clients that send half a header, half a body, or nothing, and stay."""
    count, seconds = lab.of(200, 200, 60), lab.of(60, 15, 5)
    house = lab.house()
    said = next(requests(house, stories(lab.seed))).raw
    beginnings = (b"", said[:60], said[: said.index(b"\r\n\r\n") + 24])
    with contextlib.ExitStack() as open_ones:
        for number in range(count):
            connection = open_ones.enter_context(socket.create_connection(("127.0.0.1", house.port)))
            connection.sendall(beginnings[number % len(beginnings)])
        with Flow(house, lab.seed + 1, 20, fresh=0.5) as flow:
            time.sleep(seconds)
    waits = [answer.took for answer in flow.answers if answer.status == 204]
    fault = f"stalled clients, and 20 callbacks/s for {seconds} s"
    failed = len(flow.answers) - len(waits)
    lab.promise(fault, count, "0 of the others fail", f"of {len(flow.answers):,}: {failed} failed", not failed)
    lab.within(fault, count, "the others' p99", 1, quantile(waits, 0.99))
    lab.accounts(fault, count, house, redis_of(house), flow.acknowledged, flow.unsure)


SPEECH = ("participant-speech-start", "participant-speech-stop")
WARMING = 2000
"""Callbacks before capacity is measured."""
AT_ONCE = 0.3
"""Seconds after a lifecycle callback was refused in which none of speech is to be sent, and taken."""


def is_speech(parameters: Parameters) -> bool:
    """Whether losing this one matters little: who spoke when."""
    return parameters.get("StatusCallbackEvent") in SPEECH


def capacity(house: House, due: Sequence[Request], seconds: float) -> float:
    """Callbacks a second, when each of 32 connections sends its next as soon as it has been answered."""
    raw = iter([request.raw for request in due])
    deliver(house.port, islice(raw, WARMING), seconds=seconds, connections=32)
    return (found := deliver(house.port, raw, seconds=seconds, connections=32)).answers / found.seconds


def overload(lab: Lab) -> None:
    """Twice as many callbacks as it can take, due whether it keeps up or not."""
    measured_for, seconds = lab.of(8, 4, 2), lab.of(60, 10, 5)
    house = lab.house()
    source = requests(house, stories(lab.seed))
    first = list(islice(source, WARMING + 6000 * measured_for))
    found = capacity(house, first, measured_for)
    await_settled(house, 120)
    lab.say(f"takes {found:,.0f}/s; preparing")
    rate = 2 * found
    due = list(islice(source, int(rate * seconds)))
    gc.collect()
    gc.freeze()  # or the generator stands still when Python looks through a million objects
    with Flow(house, due, rate) as flow:
        flow.join()
    gc.unfreeze()
    lab.say(f"refused, by the service's own count: {refusals(house)}")
    answers = flow.answers
    counts = flow.counts()
    taken = [answer.took for answer in answers if answer.status == 204]
    refused = [answer.took for answer in answers if answer.status == 503]
    span = max(answer.at for answer in answers) - min(answer.due for answer in answers)
    lab.say(
        f"{len(answers):,} in {span:.1f} s, {counts}, generator {flow.busy:.0%} of a core; taken "
        f"p50 {quantile(taken, 0.5):.3f} s p99 {quantile(taken, 0.99):.3f} s, "
        f"refused p50 {quantile(refused, 0.5):.3f} s p99 {quantile(refused, 0.99):.3f} s"
    )
    fault, count = f"{rate:,.0f} callbacks/s, twice what it takes, for {seconds} s", f"{len(answers):,}"
    lab.within(fault, count, "taken (204): p99", 0.25, quantile(taken, 0.99))
    lab.within(fault, count, "refused (503): p99", 0.1, quantile(refused, 0.99) if refused else 0.0)
    unanswered = sum(counts.get(each, 0) for each in (CUT, REFUSED, SILENT))
    lab.found(fault, count, "0 without an answer", unanswered, unanswered == 0, timed=True)
    wrong = wrongly_taken(answers)
    lab.promise(fault, count, f"0 of speech taken within {told(AT_ONCE)} of a lifecycle refused", wrong, wrong == 0)
    shares = f"taken {len(taken) / len(answers):.0%}; refused {len(refused) / len(answers):.0%}"
    lab.promise(fault, count, "all others are refused with 503", shares, len(taken) + len(refused) == len(answers))
    before = [request.parameters for request in first]  # how many of these were sent nobody has counted
    lab.accounts(fault, count, house, redis_of(house), flow.acknowledged, [*before, *flow.unsure], 300)


def wrongly_taken(answers: Sequence[Answer]) -> int:
    """Callbacks of speech for which there was room just after there was none for one that matters more."""
    lifecycle = sorted(each.at for each in answers if each.status == 503 and not is_speech(each.request.parameters))
    speech = [each for each in answers if each.status == 204 and is_speech(each.request.parameters)]
    return sum(bisect(lifecycle, each.sent) > bisect(lifecycle, each.at - AT_ONCE) for each in speech)
