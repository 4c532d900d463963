"""One script for many keys in one round trip, each call on its own: some may fail while others have done their work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from redis import Redis, RedisError
from redis.commands.core import Script
from redis.exceptions import NoScriptError, ReadOnlyError

Call = tuple[Sequence[str], Sequence[Any]]
"""Keys and arguments."""
Command = tuple[Any, ...]
"""Its words."""


def attempt(redis: Redis, script: Script, calls: Sequence[Call], then: Sequence[Command] = ()) -> list[Any]:
    """What each call gave, in their order: its answer, or the redis.RedisError that it failed with.

    `then` are commands that follow the calls on the same connection; their answers come last.

    The client's own pipelines ask beforehand whether the script is known, which is a round trip more each time.
    Raises redis.RedisError when it is not known which of the calls were carried out.
    """
    answers = _sent(redis, script, calls, then)
    unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if unknown:  # a new server, or one that was restarted
        again = _sent(redis, script, [calls[place] for place in unknown], then, whole=True)
        for place, answer in zip([*unknown, *range(len(calls), len(answers))], again, strict=True):
            answers[place] = answer
    if any(isinstance(answer, ReadOnlyError) for answer in answers):
        # the primary no longer: its name may stand for another server by now
        redis.connection_pool.disconnect(inuse_connections=False)
    return answers


def run(redis: Redis, script: Script, calls: Iterable[Call]) -> list[Any]:
    """What each call answered, in their order. Raises the first redis.RedisError that one failed with."""
    answers = attempt(redis, script, list(calls))
    for answer in answers:
        if isinstance(answer, RedisError):
            raise answer
    return answers


def _sent(
    redis: Redis, script: Script, calls: Iterable[Call], then: Iterable[Command], *, whole: bool = False
) -> list[Any]:
    """What came back. `whole`: the script is sent itself, not only its name."""
    with redis.pipeline(transaction=False) as pipe:
        send, name = (pipe.eval, str(script.script)) if whole else (pipe.evalsha, script.sha)
        for keys, arguments in calls:
            send(name, len(keys), *keys, *arguments)
        for command in then:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]  # the client ships it without types
        return list(pipe.execute(raise_on_error=False))
