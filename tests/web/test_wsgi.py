"""The web process as gunicorn builds it: from settings, whether Redis is there yet or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask
from redis import Redis

from app import wsgi
from app.store import keys
from app.store.inbox import Inbox
from app.web import UPKEEP
from config.settings import from_env
from tests.cast import ACCOUNT, ANNA, said
from tests.web.conftest import signature

URL = "https://offhook.example.com"
PATH = "/webhooks/twilio"


TOLD = said("participant-join", ANNA, number=1, second=0)


def built(redis_url: str, **environ: str) -> Flask:
    """A web process on this Redis, with eight shards, and no spool unless there is to be one."""
    settings = from_env(
        {
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": "a-pretend-token",
            "PUBLIC_URL": URL,
            "REDIS_URL": redis_url,
            "OFFHOOK_SHARDS": "8",
            "OFFHOOK_SPOOL": "off",
            **environ,
        }
    )
    return wsgi.build(settings)


def answer_of(app: Flask) -> int:
    """What a signed callback gets."""
    headers = {"X-Twilio-Signature": signature(URL + PATH, TOLD, "a-pretend-token")}
    return app.test_client().post(PATH, data=TOLD, headers=headers).status_code


def test_callbacks_are_stored_in_an_empty_redis_and_its_layout_is_claimed(redis: Redis, valkey: str) -> None:
    assert answer_of(built(valkey)) == 204
    assert redis.get(keys.LAYOUT) == b"8 form 2"


def test_nothing_is_stored_where_it_would_not_be_looked_for(redis: Redis, valkey: str) -> None:
    redis.set(keys.LAYOUT, "16 form 2")
    assert answer_of(built(valkey)) == 503
    assert list(redis.scan_iter(match="*inbox*")) == []


def test_a_web_process_is_built_while_redis_is_away(tmp_path: Path) -> None:
    assert answer_of(built(f"unix://{tmp_path}/nobody.sock")) == 503


def readiness(app: Flask) -> tuple[int, Any]:
    answer = app.test_client().get("/readyz")
    return answer.status_code, answer.get_json()["status"]


def test_with_a_spool_nothing_is_lost_while_redis_is_away_and_it_says_so(
    redis: Redis, valkey: str, tmp_path: Path
) -> None:
    nowhere = f"unix://{tmp_path}/valkey.sock"
    app = built(nowhere, OFFHOOK_SPOOL="on", OFFHOOK_DATA_DIR=str(tmp_path / "data"))
    assert answer_of(app) == 204
    assert readiness(app) == (200, "degraded")
    app.extensions[UPKEEP].look()
    assert readiness(app) == (200, "degraded")

    (tmp_path / "valkey.sock").symlink_to(valkey.removeprefix("unix://"))
    assert readiness(app) == (200, "degraded"), "there is still something in the spool"
    app.extensions[UPKEEP].look()
    Inbox(redis, 8).announce(1)
    assert readiness(app) == (200, "ready")
    assert [int(redis.xlen(name)) for name in redis.scan_iter(match="*inbox*")] == [1]


def test_a_spool_that_cannot_be_written_is_no_spool(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, where a directory should be")
    app = built(f"unix://{tmp_path}/nobody.sock", OFFHOOK_SPOOL="on", OFFHOOK_DATA_DIR=str(tmp_path / "data"))
    assert answer_of(app) == 503
    assert readiness(app)[0] == 503


def test_what_a_web_process_is_made_for_is_spooled_where_the_layout_is_anothers(
    redis: Redis, valkey: str, tmp_path: Path
) -> None:
    redis.set(keys.LAYOUT, "16 form 2")
    app = built(valkey, OFFHOOK_SPOOL="on", OFFHOOK_DATA_DIR=str(tmp_path))
    assert answer_of(app) == 204
    app.extensions[UPKEEP].look()
    assert list(redis.scan_iter(match="*inbox*")) == []
    assert readiness(app) == (200, "degraded")
