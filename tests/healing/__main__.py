"""Conferences whose callbacks are lost, late, repeated and overtaken, and what becomes of their documents. All in
virtual time: a seed makes up everything, and makes it up again.

A story goes through an exchange, its callbacks over a bad line, and whatever arrives is folded as a worker folds it.
When the document wants Twilio's REST API to be looked at, that is done, with the delays of a network. In the end it is
held to what the exchange knows, and to the perfect document: what the fold makes of all that was ever sent.

    python -m tests.healing 20000         # so many seeds, with a table of what befell them and how often they looked
    python -m tests.healing 20000 5000    # those from 5000 on
    python -m tests.healing --seed 4711   # one, told step by step
"""

from __future__ import annotations

import re
import sys
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from time import perf_counter

from app.healing import wanted
from tests.healing.play import Outcome, play
from tests.healing.weather import WEATHERS

BINS = {"none": (0, 0), "one": (1, 1), "two": (2, 2), "3-5": (3, 5), "6-9": (6, 9), "more": (10, 999)}

SHORT = re.compile(r"CA[0-9a-f]+|[0-9][-0-9:.T+Z ]*")
"""What differs from seed to seed in what is said."""


def tell(outcome: Outcome) -> None:
    """One conference, step by step."""
    for event in outcome.log:
        number = "" if event.sequence is None else f"#{event.sequence}"
        print(f"{number:>5} {event.at} {event.type} {event.call_sid or ''}{event.snapshot or ''}")
    for look in outcome.looks:
        print(f"look at {look.at}: {look.want}")
    print(f"{outcome.weather}: {outcome.arrived} arrivals of {outcome.callbacks} callbacks, {len(outcome.looks)} looks")
    print("\n".join(["wrong:", *outcome.wrong, "unsaid:", *outcome.unsaid, "stale:", *outcome.stale]))


def tabulate(outcomes: Sequence[Outcome]) -> None:
    """How often conferences were looked at, by what befell them, and why."""
    print(f"{'conferences by looks':20}{'all':>7}{''.join(f'{name:>7}' for name in BINS)}  reasons")
    for name in WEATHERS:
        some = [outcome for outcome in outcomes if outcome.weather == name]
        shown = [sum(low <= len(each.looks) <= high for each in some) for low, high in BINS.values()]
        reasons = Counter(look.want.reason for outcome in some for look in outcome.looks)
        why = ", ".join(f"{reason} {many:,}" for reason, many in reasons.most_common())
        print(f"{name:20}{len(some):7,}{''.join(f'{many:7,}' for many in shown)}  {why}")
    unsaid = Counter(re.split(r" is | of ", what)[0] for outcome in outcomes for what in outcome.unsaid)
    print("Neither right, nor null, nor named as not told, for want of what was lost:")
    print("  " + (", ".join(f"{name} {many:,}" for name, many in unsaid.most_common()) or "nothing"))
    settled, stale = sum(outcome.settled for outcome in outcomes), [each for each in outcomes if each.stale]
    print(f"Right after one of {settled:,} looks in a quiet moment {len(stale):,} documents were wrong all the same:")
    kinds = Counter(kind for each in stale for kind in {SHORT.sub("…", what) for what in each.stale})
    print("  " + ("\n  ".join(f"{many:,} {kind}" for kind, many in kinds.most_common(20)) or "none"))


def complain(faults: Mapping[str, Sequence[int]]) -> None:
    """What is wrong, by kind, with the seeds that show it."""
    for kind, seeds in sorted(faults.items(), key=lambda fault: -len(fault[1])):
        print(f"WRONG in {len(seeds):,}, such as {', '.join(map(str, seeds[:4]))}: {kind}")


def main(words: Sequence[str]) -> int:
    """The command. 1 if anything is wrong."""
    if words[:1] == ["--seed"]:
        outcome = play(int(words[1]), wanted)
        tell(outcome)
        return bool(outcome.wrong)
    many, first = int(words[0]) if words else 2000, int(words[1]) if len(words) > 1 else 0
    began = perf_counter()
    outcomes: list[Outcome] = []
    faults: dict[str, list[int]] = {}
    for seed in range(first, first + many):
        try:
            outcome = play(seed, wanted)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            wrong = {f"{type(error).__name__} in {place.name}: {SHORT.sub('…', str(error))[:150]}"}
        else:
            outcomes.append(outcome)
            wrong = {SHORT.sub("…", what)[:150] for what in outcome.wrong}
        for kind in wrong:
            faults.setdefault(kind, []).append(seed)
    tabulate(outcomes)
    complain(faults)
    sick = len({seed for seeds in faults.values() for seed in seeds})
    seconds = perf_counter() - began
    print(f"{many:,} conferences, {sick:,} of them not healed, {seconds:.1f} s, {many / seconds:.0f} a second")
    return bool(sick)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
