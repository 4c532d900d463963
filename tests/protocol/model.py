"""The protocol of wake-ups, leases, trials and commits as a pure model: what can be, and what can happen next.

`scripts.py` says what each script does; this says in which order web processes, workers and sweeps run them. Between
any two steps a process may stand still for any time, die, or be overtaken. So no clock is needed: whatever takes its
time is a step that may come at any point.

Not modelled: how many callbacks there is room for, the spool, and what a fold makes of callbacks, except that it may
kill, may find a callback that it knows already, and may have entries for other shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tests.protocol.scripts import MOST, Batch, Shard, append, attend, claim, commit, leave
from workers.drain import BEGUN_ALONE


class Worker(NamedTuple):
    """A worker process: where its spell is."""

    version: int = 1
    at: str = "idle"
    deaf: frozenset[int] = frozenset()
    """Shards of which it waits for what is new only."""
    todo: tuple[int, ...] = ()
    """Shards whose turn is still to come in this round of claiming or leaving."""
    batches: tuple[Batch, ...] = ()
    suspects: tuple[int, ...] = ()
    alone: bool = False
    over: bool = False
    mail: bool = False
    sends: tuple[tuple[int, str], ...] = ()
    due: bool = False


class Web(NamedTuple):
    """A web process: what it is still to be sent, and where it is with the first of these."""

    loads: tuple[tuple[int, tuple[str, ...]], ...]
    at: str = "post"
    due: bool = False


class Copy(NamedTuple):
    """A message that was sent twice, the second time on its way still."""

    batch: Batch
    commits: bool
    alone: bool = False
    version: int = 1


class State(NamedTuple):
    """Everything."""

    shards: tuple[Shard, ...]
    webs: tuple[Web, ...]
    workers: tuple[Worker, ...]
    queue: int = 0
    acked: frozenset[str] = frozenset()
    faults: int = 0
    copies: tuple[Copy, ...] = ()
    looked: frozenset[int] = frozenset()
    """Shards whose oldest mail the last sweep has seen already. One sweep stands for all: it comes at any time."""


class Setting(NamedTuple):
    """Who is there, what comes, and what may go wrong."""

    loads: tuple[tuple[tuple[int, tuple[str, ...]], ...], ...]
    """By web process: what it is sent, one after another."""
    shards: int = 1
    versions: tuple[int, ...] = (1, 1)
    """Of each worker's fold."""
    poison: frozenset[str] = frozenset()
    """Entries that kill whoever folds them."""
    forwards: Mapping[str, tuple[int, str]] = {}
    """Entries that have something for another shard."""
    faults: int = 0
    """How often a batch may be lost to a death or a pause, or a message be sent twice."""
    losses: bool = True
    """Whether, besides, RQ may lose jobs, wake-ups expire, and who holds no batch die, without end."""
    sweeps: bool = True
    copies: bool = False
    broken: str = ""
    """What is wrong with the protocol, for the search to find."""


# What can happen next.


def first(setting: Setting) -> State:
    """How it begins."""
    return State(
        (Shard(),) * setting.shards,
        tuple(Web(loads) for loads in setting.loads),
        tuple(Worker(version) for version in setting.versions),
    )


Step = tuple[str, State, bool]
"""What happens, what is then, and whether it is bound to happen sooner or later if nothing goes wrong any more.

Steps come in the order of their urgency. Taking the first that is bound to happen, again and again, is a fair run in
which web processes are the slowest, so that nobody profits from mail that comes later, and in which wake-ups never
expire: what is promised must not depend on that."""


def steps(state: State, setting: Setting) -> Iterator[Step]:
    """All that can happen next."""
    spare = state.faults < setting.faults
    for copy in state.copies:
        yield (
            f"a copy arrives of {'commit' if copy.commits else 'claim'} {copy.batch.token}",
            _arrived(state, copy, setting.broken),
            True,
        )
    for n, worker in enumerate(state.workers):
        if worker.at not in ("idle", "look"):
            yield from _working(state, setting, n, worker, spare)
        elif worker.at == "look" and (visible := _mail(state) - worker.deaf):
            begun = worker._replace(at="claim", todo=tuple(sorted(visible)))
            yield from _working(state, setting, n, begun, spare)
    yield from _expiring(state, setting, spare)
    for n, worker in enumerate(state.workers):
        if worker.at == "idle" and state.queue:
            yield f"worker {n} takes a job", _with(state, n, worker._replace(at="attend"), queue=state.queue - 1), True
    if setting.sweeps:
        for version in sorted(set(setting.versions)):
            swept = _swept(state, setting, version)
            if swept != state:
                yield f"a sweep of version {version}", swept, True
    for n, worker in sorted(enumerate(state.workers), key=lambda each: -each[1].version):
        if worker.at == "look":
            yield from _listening(state, setting, n, worker)
    for n, worker in enumerate(state.workers):
        if worker.at != "idle" and (spare if worker.batches else setting.losses):
            yield f"worker {n} dies", _dead(state, n, worker, fault=bool(worker.batches)), False
    for n, web in enumerate(state.webs):
        yield from _web(state, setting, n, web, spare)


def _web(state: State, setting: Setting, n: int, web: Web, spare: bool) -> Iterator[Step]:
    def then(
        web: Web, shards: tuple[Shard, ...] = state.shards, acked: frozenset[str] = state.acked, **more: int
    ) -> State:
        webs = (*state.webs[:n], web, *state.webs[n + 1 :])
        return state._replace(webs=webs, shards=shards, acked=acked, **more)

    if not web.loads:
        return
    (home, entries), *rest = web.loads
    ended, told = Web(tuple(rest)), state.acked | set(entries)
    if web.at == "post" and setting.broken == "acknowledged before it is stored":
        yield f"web {n} answers", then(web._replace(at="store"), acked=told), True
    elif web.at in ("post", "store"):
        shard, due = append(state.shards[home], entries, setting.broken)
        yield f"web {n} stores", then(Web(web.loads, "answer", due), _put(state, home, shard)), True
    elif web.at == "answer":
        after = web._replace(at="ask") if web.due else ended
        yield f"web {n} answers", then(after, acked=told), True
    else:
        yield f"web {n} asks", then(ended, queue=1), True
    if setting.losses:
        yield f"web {n} dies", then(ended), False
        if web.at == "answer" and spare:
            yield f"web {n} dies and is sent the same again", then(Web(web.loads), faults=state.faults + 1), False


def _expiring(state: State, setting: Setting, spare: bool) -> Iterator[Step]:
    for home, shard in enumerate(state.shards):
        if shard.lease:
            holder = next(
                (n for n, each in enumerate(state.workers) for b in each.batches if _holds(b, home, shard)), None
            )
            ended = _put(state, home, shard._replace(lease=0))
            if holder is None:
                yield f"a lease of nobody's ends on {home}", state._replace(shards=ended), True
            elif spare:
                worker = state.workers[holder]
                batches = tuple(b._replace(lost=b.lost or _holds(b, home, shard)) for b in worker.batches)
                paused = _with(state, holder, worker._replace(batches=batches), ended, fault=True)
                yield f"worker {holder} pauses, its lease ends on {home}", paused, False
        if shard.woken and setting.losses:
            yield (
                f"a wake-up expires on {home}",
                state._replace(shards=_put(state, home, shard._replace(woken=False))),
                False,
            )
        if shard.newest:
            left = _put(state, home, shard._replace(newest=0))
            yield f"the newest version is forgotten on {home}", state._replace(shards=left), False
    if state.queue and setting.losses:
        yield "RQ loses a job", state._replace(queue=state.queue - 1), False


def _swept(state: State, setting: Setting, version: int) -> State:
    mail = _mail(state)
    forgotten = any(not state.shards[home].lease for home in mail & state.looked)
    swept = state._replace(looked=mail, queue=1 if forgotten else state.queue)
    if len(set(setting.versions)) > 1:
        shards = tuple(each._replace(newest=max(each.newest, version)) for each in state.shards)
        swept = swept._replace(shards=shards)
    return swept


def _listening(state: State, setting: Setting, n: int, worker: Worker) -> Iterator[Step]:
    mail = _mail(state)
    quiet = worker._replace(at="leave", todo=tuple(range(len(state.shards))))
    [(what, left, _)] = _working(state, setting, n, quiet, False)
    yield what, left, not mail
    [(what, left, _)] = _working(state, setting, n, quiet._replace(over=True), False)
    yield f"{what}, its time is up", left, False
    if mail & worker.deaf:
        yield f"worker {n} hears of new mail", _with(state, n, worker._replace(deaf=worker.deaf - mail)), False
    ticked = _attended(state, n, worker)
    if ticked != state:
        yield f"worker {n} goes on listening", ticked, bool(mail)


def _working(state: State, setting: Setting, n: int, worker: Worker, spare: bool) -> Iterator[Step]:
    at, name = worker.at, f"worker {n}"
    if at == "attend":
        yield f"{name} attends", _attended(state, n, worker), True
    elif at in ("claim", "alone"):
        home = worker.todo[0] if at == "claim" else worker.suspects[0]
        token = _unused(state)
        yield f"{name} claims {home}, {at}", _claimed(state, setting, n, worker, home, token), True
        if at == "alone":
            yield f"{name} stops", _with(state, n, worker._replace(at="look", suspects=(), alone=False)), False
        if setting.copies and spare:
            more = state.faults + 1
            copy = Copy(Batch(home, token, 0, 0, 0), False, at == "alone", worker.version)
            late = state._replace(copies=(*state.copies, copy), faults=more)
            yield f"{name} claims {home}, {at}, a copy is late", _claimed(late, setting, n, worker, home, token), True
            shard, _ = claim(state.shards[home], token, worker.version, alone=at == "alone")
            twice = state._replace(shards=_put(state, home, shard), faults=more)
            yield f"{name} claims {home}, {at}, twice", _claimed(twice, setting, n, worker, home, token), True
    elif at == "fold":
        yield f"{name} folds", _folded(state, setting, n, worker), True
    elif at == "send":
        (home, entry), *rest = worker.sends
        shard, due = append(state.shards[home], (entry,), setting.broken)
        due, on = due or worker.due, "commit" if setting.broken != "forwarded after the commit" else _onward(worker)
        after = worker._replace(sends=tuple(rest), due=due, at="send" if rest else "ask" if due else on)
        yield f"{name} forwards to {home}", _with(state, n, after, _put(state, home, shard)), True
    elif at == "ask":
        on = "idle" if worker.over else "commit" if worker.batches else _onward(worker)
        asked = Worker(worker.version) if worker.over else worker._replace(at=on, due=False)
        yield f"{name} asks", _with(state, n, asked, queue=1), True
    elif at == "commit":
        batch = worker.batches[0]
        yield f"{name} commits {batch.shard}", _committed(state, setting, n, worker, batch), True
        if setting.copies and spare:
            late = state._replace(copies=(*state.copies, Copy(batch, True)), faults=state.faults + 1)
            yield f"{name} commits {batch.shard}, a copy is late", _committed(late, setting, n, worker, batch), True
            twice = _arrived(late, late.copies[-1], setting.broken)
            yield f"{name} commits {batch.shard} twice", _committed(twice, setting, n, worker, batch), True
    elif at == "trim":  # only where this is wrong
        batch = worker.batches[0]
        shard = state.shards[batch.shard]._replace(done=batch.first + batch.count)
        after = worker._replace(batches=worker.batches[1:], at="commit" if worker.batches[1:] else _onward(worker))
        yield f"{name} trims", _with(state, n, after, _put(state, batch.shard, shard)), True
    elif at == "leave":
        home = worker.todo[0]
        shard, mail = leave(state.shards[home], setting.broken)
        after = worker._replace(todo=worker.todo[1:], mail=worker.mail or mail)
        if not after.todo and after.mail:
            after = after._replace(at="ask" if after.over else "attend", deaf=frozenset(), mail=False)
        elif not after.todo:
            after = Worker(worker.version)
        yield f"{name} leaves {home}", _with(state, n, after, _put(state, home, shard)), True


def _attended(state: State, n: int, worker: Worker) -> State:
    shards = tuple(attend(each) for each in state.shards)
    return _with(state, n, worker._replace(at="look", deaf=frozenset()), shards)


def _claimed(state: State, setting: Setting, n: int, worker: Worker, home: int, token: int) -> State:
    alone = worker.at == "alone"
    before = state.shards[home]
    shard, answer = claim(before, token, worker.version, alone=alone, broken=setting.broken)
    got = Batch(home, token, before.done, *answer) if answer and answer[0] else None
    after = worker._replace(todo=worker.todo[1:]) if not alone else worker
    if got:
        after = after._replace(batches=(*after.batches, got))
    if alone:
        suspects = after.suspects if got else after.suspects[1:]
        after = after._replace(suspects=suspects, alone=bool(got), at="fold" if got else "")
    elif answer is None:
        after = after._replace(deaf=after.deaf | {home})
    elif not got and answer[1]:
        after = after._replace(suspects=(*after.suspects, home))
    if not after.todo and after.at != "fold":
        after = after._replace(at="fold" if after.batches else _onward(after))
    return _with(state, n, after, _put(state, home, shard))


def _folded(state: State, setting: Setting, n: int, worker: Worker) -> State:
    batches, sends = [], []
    for batch in worker.batches:
        shard, dead = state.shards[batch.shard], batch.begun >= BEGUN_ALONE
        told = shard.sent[batch.first : batch.first + batch.count]
        if not dead and setting.poison.intersection(told):
            return _dead(state, n, worker, fault=False)
        known = {entry for entry, fate in shard.log if fate == "new"}
        fates = []
        for entry in told:
            fates.append("dead" if dead else "known" if entry in known else "new")
            known.add(entry)
        sends += [
            setting.forwards[e] for e, fate in zip(told, fates, strict=True) if fate == "new" and e in setting.forwards
        ]
        batches.append(batch._replace(fates=tuple(fates), revision=shard.revision + 1))
    first_of_all = sends and setting.broken != "forwarded after the commit"
    after = worker._replace(batches=tuple(batches), sends=tuple(sends), at="send" if first_of_all else "commit")
    return _with(state, n, after)


def _committed(state: State, setting: Setting, n: int, worker: Worker, batch: Batch) -> State:
    shard, left = commit(state.shards[batch.shard], batch, setting.broken)
    state = state._replace(shards=_put(state, batch.shard, shard))
    if setting.broken == "commit trims later" and left is not None:
        return _with(state, n, worker._replace(at="trim"))
    after, queue = worker._replace(batches=worker.batches[1:]), state.queue
    if left is None and worker.alone:
        after = after._replace(suspects=after.suspects[1:])
    elif left is None:
        after = after._replace(deaf=after.deaf | {batch.shard})
    elif not worker.alone:
        after, queue = after._replace(deaf=after.deaf - {batch.shard}), 1 if left >= MOST else queue
    if not after.batches:
        after = after._replace(alone=False, at="send" if after.sends else _onward(after))
    state = _with(state, n, after, queue=queue)
    return state if left is None else _unseen(state, batch.shard)


def _arrived(state: State, copy: Copy, broken: str) -> State:
    """A message that was sent twice is carried out once more, and nobody waits for its answer."""
    batch, rest = copy.batch, list(state.copies)
    rest.remove(copy)
    shard = state.shards[batch.shard]
    if copy.commits:
        after, left = commit(shard, batch, broken)
    else:
        (after, _), left = claim(shard, batch.token, copy.version, alone=copy.alone), None
    state = state._replace(shards=_put(state, batch.shard, after), copies=tuple(rest))
    return state if left is None else _unseen(state, batch.shard)


def _dead(state: State, n: int, worker: Worker, *, fault: bool) -> State:
    return _with(state, n, Worker(worker.version), fault=fault)


def _unseen(state: State, home: int) -> State:
    """The oldest mail of a shard is another now, which no sweep has seen."""
    return state._replace(looked=state.looked - {home})


def _onward(worker: Worker) -> str:
    return "alone" if worker.suspects else "look"


def _mail(state: State) -> frozenset[int]:
    return frozenset(home for home, shard in enumerate(state.shards) if len(shard.sent) > shard.done)


def _holds(batch: Batch, home: int, shard: Shard) -> bool:
    return batch.shard == home and batch.token == shard.lease


def _unused(state: State) -> int:
    """A token that nobody has, or has a message with: forgotten ones may be used again, for nobody could tell."""
    used = {shard.lease for shard in state.shards} | {copy.batch.token for copy in state.copies}
    used |= {batch.token for worker in state.workers for batch in worker.batches}
    return next(token for token in range(1, len(used) + 2) if token not in used)


def _put(state: State, home: int, shard: Shard) -> tuple[Shard, ...]:
    return (*state.shards[:home], shard, *state.shards[home + 1 :])


def _with(
    state: State,
    n: int,
    worker: Worker,
    shards: tuple[Shard, ...] | None = None,
    queue: int | None = None,
    fault: bool = False,
) -> State:
    return State(
        state.shards if shards is None else shards,
        state.webs,
        (*state.workers[:n], worker, *state.workers[n + 1 :]),
        state.queue if queue is None else queue,
        state.acked,
        state.faults + fault,
        state.copies,
        state.looked,
    )
