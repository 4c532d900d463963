"""`offhook verify` tells a document that is wrong from one that is only older than this release."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from app import fold
from app.__main__ import main
from app.store import keys
from tests.cast import ACCOUNT, TOKEN
from tests.conftest import SHARDS
from tests.golden import Golden, golden, versions
from tests.golden.rolled import stored

TORN = "a callback that only the first fold could read"


def verified(valkey: str) -> Result:
    told = {
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": TOKEN.replace(" ", "-"),
        "REDIS_URL": valkey,
        "OFFHOOK_SHARDS": str(SHARDS),
    }
    return CliRunner(env=told).invoke(main, ["verify"])


def newest(name: str) -> Golden:
    return next(story for story in golden(fold.VERSION) if story.name == name)


def test_documents_of_this_release_are_what_their_logs_tell(redis: Redis, valkey: str) -> None:
    for story in golden(fold.VERSION):
        stored(redis, fold.VERSION, story)
    result = verified(valkey)
    assert (result.exit_code, result.output) == (0, f"{len(golden(fold.VERSION))} conferences folded again, 0 differ\n")


def test_what_only_an_earlier_release_could_read_is_passed_over(redis: Redis, valkey: str) -> None:
    stored(redis, fold.VERSION, newest(TORN))
    result = verified(valkey)
    assert (result.exit_code, result.output) == (0, "1 conferences folded again, 0 differ\n")


@pytest.mark.parametrize("version", [version for version in versions() if version != fold.VERSION])
def test_documents_of_an_earlier_fold_are_not_called_wrong(redis: Redis, valkey: str, version: int) -> None:
    told = golden(version)
    for story in told:
        stored(redis, version, story)
    result = verified(valkey)
    assert result.exit_code == 0
    assert result.output.startswith(f"{len(told)} were folded by another release")
    assert result.output.endswith("\n0 conferences folded again, 0 differ\n")


def test_a_document_that_is_wrong_is_named(redis: Redis, valkey: str) -> None:
    story = newest(TORN)
    stored(redis, fold.VERSION, story)
    wrong = story.header.replace(b"Stand-up", b"Sit-down")
    redis.hset(keys.conference(keys.shard_of(story.sid, SHARDS), story.sid), "header", wrong)
    result = verified(valkey)
    assert result.exit_code == 1
    assert result.output.startswith(f"{story.sid}: ")
