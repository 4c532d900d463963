"""The model says what the scripts do: both are taken through the same random steps, and compared after each."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace
from redis import Redis

from app.conference import read_header
from app.store import inbox as inboxes
from app.store import keys
from app.store.commits import Commit, DeadLetter
from app.store.inbox import Inbox, Link, Mail, Posted
from app.store.snapshots import Snapshots
from tests.cast import ANNA, NOON, ROOM, callback, said
from tests.protocol import scripts
from tests.protocol.scripts import Batch, Shard
from tests.store.rooms import changed, room
from workers.drain import BEGUN_ALONE

HOME = 1
"""The shard of the room that changes."""
NUMBER = int(ROOM[2:], 16)
TRACES, LENGTH = 40, 120


class Both:
    """The scripts, and the model of them."""

    def __init__(
        self, redis: Redis, inbox: Inbox, snapshots: Snapshots, chance: random.Random, broken: str = ""
    ) -> None:
        self.redis, self.inbox, self.snapshots, self.chance, self.broken = redis, inbox, snapshots, chance, broken
        self.shard = Shard()
        self.batches: list[tuple[Batch, inboxes.Batch]] = []
        """Claimed at some time, and committed or not: any may still be committed, for the first time or once more."""
        self.token = 0
        self.epoch = ""

    def append(self) -> Any:
        entries = self._entries()
        mail = [Posted(HOME, callback(said("participant-modify", ANNA, number=int(n), second=0))) for n in entries]
        outcomes = self.inbox.append_all(mail)
        self.shard, due = scripts.append(self.shard, entries, self.broken)
        assert outcomes == [due] * len(entries)
        return due

    def forward(self) -> Any:
        entries = self._entries()
        answer = self.inbox.forward([(HOME, Link(f"CA{int(n):032x}", ROOM)) for n in entries])
        self.shard, due = scripts.append(self.shard, entries, self.broken)
        assert answer == due
        return due

    def attend(self) -> Any:
        self.inbox.attend()
        self.shard = scripts.attend(self.shard)

    def leave(self) -> Any:
        answer = self.inbox.leave()
        self.shard, mail = scripts.leave(self.shard, self.broken)
        assert answer == mail
        return mail

    def claim(self) -> Any:
        return self._claim(alone=False)

    def claim_alone(self) -> Any:
        return self._claim(alone=True)

    def claim_again(self) -> Any:
        """As a copy of an earlier claim would, should it arrive late."""
        if not self.batches:
            return "none yet"
        return self._claim(alone=self.chance.random() < 0.5, token=self.chance.choice(self.batches[-3:])[0].token)

    def _claim(self, *, alone: bool, token: int | None = None) -> Any:
        version, most = self.chance.choice([1, 1, 2]), self.chance.choice([1, 2, 5])
        if token is None:
            self.token = token = self.token + 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inboxes.secrets, "token_hex", lambda _: f"{token:032x}")
            if alone:
                batch, other = self.inbox.claim_alone(HOME, version), None
            else:
                claims = self.inbox.claim([HOME], most, version)
                batch = claims.batches[0] if claims.batches else None
                other = "held" if claims.held else "suspect" if claims.suspect else None
        first = self.shard.done
        self.shard, answer = scripts.claim(self.shard, token, version, alone=alone, most=most, broken=self.broken)
        if answer is None or answer[0] == 0:
            assert batch is None
            if not alone:
                assert other == ("held" if answer is None else "suspect" if answer[1] else None)
            return "held" if answer is None else answer[1]
        assert batch is not None
        self.epoch = self.epoch or batch.epoch
        assert batch.epoch == self.epoch
        count, begun = answer
        assert [_word(entry) for entry in batch.entries] == list(self.shard.sent[first : first + count])
        assert batch.begun == begun
        fates = ("dead" if begun >= BEGUN_ALONE else "new",) * count
        self.batches.append((Batch(HOME, token, first, count, begun, False, fates, self.shard.revision + 1), batch))
        return "one that has been begun often" if begun >= BEGUN_ALONE else "mail"

    def commit(self) -> Any:
        if not self.batches:
            return "none yet"
        of_the_lease = [each for each in self.batches if each[0].token == self.shard.lease]
        mine, its = self.chance.choice(
            self.chance.choice([self.batches, of_the_lease, self.batches[-1:]]) or self.batches
        )
        letters = [DeadLetter("dead", callback({"word": _word(entry)})) for entry in its.entries]
        stands = room(NUMBER, NOON)
        stands = replace(stands, header=replace(stands.header, revision=mine.revision - 1))
        change = changed(stands if mine.revision > 1 else None, stands)
        dead = "dead" in mine.fates
        work = Commit(dead_letters=letters) if dead else Commit(changes=[change], folded=mine.count)
        [answer] = self.snapshots.commit([(its, work)], 1)
        self.shard, left = scripts.commit(self.shard, mine, self.broken)
        assert answer == left
        return "fenced" if left is None else "some left" if left else "all done"

    def renew(self) -> Any:
        if self.batches:
            self.inbox.renew([self.chance.choice(self.batches)[1]])

    def announce(self) -> Any:
        version = self.chance.choice([1, 1, 2])
        self.inbox.announce(version)
        self.shard = self.shard._replace(newest=max(self.shard.newest, version))

    def lease_ends(self) -> Any:
        self.redis.delete(keys.lease(HOME))
        self.shard = self.shard._replace(lease=0)

    def wake_up_expires(self) -> Any:
        self.redis.delete(keys.woken(HOME))
        self.shard = self.shard._replace(woken=False)

    def newest_is_forgotten(self) -> Any:
        self.redis.delete(keys.newest(HOME))
        self.shard = self.shard._replace(newest=0)

    def _entries(self) -> tuple[str, ...]:
        begin = len(self.shard.sent)
        return tuple(str(begin + n) for n in range(self.chance.choice([1, 1, 2, 3])))

    def compare(self) -> None:
        """What Redis holds is what the model says."""
        shard = self.shard
        with self.redis.pipeline() as pipe:
            for each in (keys.woken, keys.lease, keys.trial, keys.newest):
                pipe.get(each(HOME))
            pipe.xrange(keys.inbox(HOME))
            pipe.xrange(keys.dead_letters(HOME))
            pipe.hget(keys.counters(HOME), "folded")
            pipe.hget(keys.conference(HOME, ROOM), "header")
            woken, lease, trial, newest, waiting, letters, folded, header = pipe.execute()
        assert bool(woken) == shard.woken
        assert lease == (b"%032x" % shard.lease if shard.lease else None)
        assert trial == (b"%d %d %d" % shard.trial if shard.trial[0] else None)
        assert int(newest or 0) == shard.newest
        entries = [inboxes._read(fields[b"e"]) for _, fields in waiting]
        assert [_word(entry) for entry in entries] == list(shard.sent[shard.done :])
        assert len(letters) == sum(fate.startswith("dead") for _, fate in shard.log)
        assert int(folded or 0) == sum(fate == "new" for _, fate in shard.log)
        assert (read_header(header).revision if header else 0) == shard.revision


OFTEN = {
    Both.append: 4,
    Both.forward: 1,
    Both.attend: 2,
    Both.leave: 3,
    Both.claim: 8,
    Both.claim_alone: 6,
    Both.claim_again: 2,
    Both.commit: 5,
    Both.renew: 1,
    Both.announce: 1,
    Both.lease_ends: 6,
    Both.wake_up_expires: 1,
    Both.newest_is_forgotten: 1,
}
ANSWERS = {
    "append": {True, False},
    "forward": {True, False},
    "leave": {True, False},
    "claim": {"held", "mail", 0, -1},
    "claim_alone": {"held", "mail", "one that has been begun often", 0},
    "claim_again": {"held", "mail", -1},
    "commit": {"fenced", "some left", "all done"},
}


def replayed(redis: Redis, inbox: Inbox, snapshots: Snapshots, broken: str = "") -> dict[str, Counter[Any]]:
    """Take both through all traces. What each step has answered, how often. Raises AssertionError if they differ."""
    answers: dict[str, Counter[Any]] = {act.__name__: Counter() for act in OFTEN}
    for seed in range(TRACES):
        redis.flushall()
        chance = random.Random(seed)
        both, trace = Both(redis, inbox, snapshots, chance, broken), []
        for act in chance.choices(list(OFTEN), list(OFTEN.values()), k=LENGTH):
            trace.append(act.__name__)
            try:
                answer = act(both)
                both.compare()
            except AssertionError as error:
                raise AssertionError(f"trace {seed} differs: {trace}; the model holds {both.shard}") from error
            answers[act.__name__][answer] += 1
    return answers


def test_the_scripts_do_what_the_model_says(redis: Redis, inbox: Inbox, snapshots: Snapshots) -> None:
    assert inbox.shard_of(ROOM) == HOME
    answers = replayed(redis, inbox, snapshots)
    for name, wanted in ANSWERS.items():
        assert wanted <= answers[name].keys(), f"{name} never gave all of these: {answers[name]}"


@pytest.mark.parametrize("broken", scripts.BROKEN)
def test_a_model_of_other_scripts_is_found_out(redis: Redis, inbox: Inbox, snapshots: Snapshots, broken: str) -> None:
    with pytest.raises(AssertionError, match="differs"):
        replayed(redis, inbox, snapshots, broken)


def _word(entry: object) -> str:
    if isinstance(entry, Mail):
        return dict(pair.split("=") for pair in entry.callback.body.decode().split("&"))["SequenceNumber"]
    assert isinstance(entry, Link)
    return str(int(entry.call_sid[2:], 16))
