"""Looks at every state that can be reached, whether all is well in it, and how it goes on if nothing more fails."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from app.store.inbox import TOGETHER
from tests.protocol.model import Setting, State, first, steps
from workers.drain import BEGUN_ALONE


class Found(NamedTuple):
    """What a search came to."""

    states: int
    fates: frozenset[str]
    """What entries may come to."""
    wrong: str = ""
    """What does not hold; then the shortest way there."""
    trace: tuple[str, ...] = ()


def search(setting: Setting) -> Found:
    """Look at all states, nearest first, up to the first in which something is wrong; then look how each goes on."""
    begin = first(setting)
    numbers = {_key(begin): 0}
    states = [begin]
    came_from, by, goes_on = array("l", [0]), [""], array("l")
    fates: set[str] = set()
    for number, state in enumerate(states):  # grows meanwhile
        fates.update(fate for shard in state.shards for _, fate in shard.log)
        if said := wrong(state, setting):
            return Found(len(states), frozenset(fates), said, _trace(number, came_from, by))
        following = -1
        for what, after, bound in steps(state, setting):
            known = numbers.setdefault(_key(after), len(states))
            if known == len(states):
                states.append(after)
                came_from.append(number)
                by.append(what)
            if bound and following < 0:
                following = known
        goes_on.append(following)
    stuck = _stuck(states, goes_on)
    if stuck is None:
        return Found(len(states), frozenset(fates))
    number, said = stuck
    way = [
        *_trace(number, came_from, by),
        "and then, if nothing more fails:",
        *_way_on(states, goes_on, number, setting),
    ]
    return Found(len(states), frozenset(fates), said, tuple(way))


def _key(state: State) -> State:
    """The same for states that differ by which worker is which."""
    return state._replace(workers=tuple(sorted(state.workers, key=hash)))


def wrong(state: State, setting: Setting) -> str:
    """What does not hold in this state, if anything."""
    stored: set[str] = set()
    for home, shard in enumerate(state.shards):
        stored.update(shard.sent)
        told = tuple(entry for entry, _ in shard.log)
        if told != shard.sent[: shard.done]:
            return "entries are committed in the order in which they came, and leave the inbox by that, once"
        fresh = [entry for entry, fate in shard.log if fate == "new"]
        if len(fresh) != len(set(fresh)):
            return "nothing has an effect twice"
        if shard.revision != shard.commits:
            return "the revision goes up by one with each commit that changes something"
        for entry, fate in shard.log:
            if fate == "dead too soon":
                return "what is set aside was begun by itself often enough before"
            enough = BEGUN_ALONE if setting.poison else TOGETHER + BEGUN_ALONE
            if fate == "dead" and entry not in setting.poison and state.faults < enough:
                return "few faults cost nothing but poison"
            if fate == "new" and entry in setting.poison:
                return "poison is never folded"
            if fate == "new" and entry in setting.forwards:
                there, other = setting.forwards[entry]
                if other not in state.shards[there].sent:
                    return "what a committed entry has for another shard is stored there"
        holders = [
            batch
            for worker in state.workers
            for batch in worker.batches
            if batch.shard == home and not batch.lost and worker.at != "trim"
        ]
        if len(holders) > 1 or any(batch.token != shard.lease for batch in holders):
            return "of a shard one worker has a batch, until its lease ends"
    if not state.acked <= stored:
        return "what was acknowledged is stored"
    return ""


def _stuck(states: list[State], goes_on: array[int]) -> tuple[int, str] | None:
    """The first state from which, though nothing fails any more, mail is never seen to, and how that comes."""
    fine = bytearray(len(states))  # 1: on the way that is walked just now, 2: ends well
    for number in range(len(states)):
        way = []
        at = number
        while not fine[at]:
            fine[at] = 1
            way.append(at)
            if goes_on[at] < 0:
                if any(len(shard.sent) > shard.done for shard in states[at].shards):
                    return number, "mail is left for ever, and nobody comes"
                fine[at] = 2
                break
            at = goes_on[at]
        if fine[at] == 1:
            return number, "it goes on for ever, and mail is left"
        for each in way:
            fine[each] = 2
    return None


def _way_on(states: list[State], goes_on: array[int], number: int, setting: Setting) -> list[str]:
    """The steps of the fair run from a state, until it ends or has been there before."""
    way, been = [], set()
    while goes_on[number] >= 0 and number not in been:
        been.add(number)
        way.append(next(what for what, _, bound in steps(states[number], setting) if bound))
        number = goes_on[number]
    return way


def _trace(number: int, came_from: array[int], by: list[str]) -> tuple[str, ...]:
    trace = []
    while number:
        trace.append(by[number])
        number = came_from[number]
    return tuple(reversed(trace))
