"""Whatever callbacks are lost: in the end a document says nothing but what is so, and what it does not know it says.

`python -m tests.healing 20000` plays many more. CASES=20000 has this test do so, SEED begins elsewhere.
"""

from __future__ import annotations

import os
from random import Random

from app.healing import wanted
from app.simulator.exchange import Exchange
from app.simulator.stories import story
from tests.cast import ACCOUNT, NOON
from tests.healing.play import heal, play
from tests.truth import truth, untrue

CASES, SEED = int(os.environ.get("CASES", "1000")), int(os.environ.get("SEED", "0"))


def test_whatever_is_lost_every_document_is_healed_and_nothing_is_looked_at_in_vain() -> None:
    outcomes = heal(range(SEED, SEED + CASES), wanted)
    steady = [outcome for outcome in outcomes if outcome.weather == "good" and outcome.ended]
    assert steady
    assert not any(outcome.looks for outcome in steady)


def test_without_a_look_losses_show() -> None:
    outcomes = [play(seed, lambda *_: None) for seed in range(40)]
    assert any("Twilio says otherwise" in what for outcome in outcomes for what in outcome.wrong)


def test_a_seed_plays_the_same_again() -> None:
    assert all(play(seed, lambda *_: None) == play(seed, lambda *_: None) for seed in range(10))


def test_what_contradicts_twilio_or_is_not_known_is_named() -> None:
    exchange = Exchange(ACCOUNT, lambda *_: None, lambda *_: None, clock=lambda: NOON)
    told = story(Random(5), ACCOUNT, NOON, minutes=0.5)
    sid = told[0].parameters["ConferenceSid"]
    for one in told[: len(told) // 2]:
        exchange.play(sid, one.parameters)
    now = truth(exchange, sid)
    stay = {"joined_at": None, "left_at": None}
    people = [{**each, "stays": [stay]} for each in now.participants.values()]
    document = {**now.conference, "participants": people, "counts": {"present": len(people)}}
    first, *others = people
    assert others
    assert list(untrue(document, now)) == []
    assert list(untrue({**document, "region": None}, now)) == []
    for wrong in (
        {"status": "completed"},
        {"region": "elsewhere"},
        {"participants": others},
        {"participants": [*people, {**first, "call_sid": "CA of nobody"}]},
        {"counts": {"present": len(others)}},
        *({"participants": [{**first, flag: None}, *others]} for flag in ("muted", "hold", "label", "coaching")),
    ):
        assert len(list(untrue({**document, **wrong}, now))) == 1, wrong
