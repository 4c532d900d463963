"""The web process as gunicorn builds it: from settings, whether Redis is there yet or not."""

from __future__ import annotations

from pathlib import Path

from redis import Redis

from app import wsgi
from app.store import keys
from config.settings import from_env
from tests.cast import ACCOUNT, ANNA, said
from tests.web.conftest import signature

URL = "https://offhook.example.com"
PATH = "/webhooks/twilio"


def answer_of(redis_url: str) -> int:
    """What a signed callback gets from a web process on this Redis, with eight shards."""
    settings = from_env(
        {
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": "a-pretend-token",
            "PUBLIC_URL": URL,
            "REDIS_URL": redis_url,
            "OFFHOOK_SHARDS": "8",
        }
    )
    told = said("participant-join", ANNA, number=1, second=0)
    headers = {"X-Twilio-Signature": signature(URL + PATH, told, "a-pretend-token")}
    return wsgi.build(settings).test_client().post(PATH, data=told, headers=headers).status_code


def test_callbacks_are_stored_in_an_empty_redis_and_its_layout_is_claimed(redis: Redis, valkey: str) -> None:
    assert answer_of(valkey) == 204
    assert redis.get(keys.LAYOUT) == b"8 form 2"


def test_nothing_is_stored_where_it_would_not_be_looked_for(redis: Redis, valkey: str) -> None:
    redis.set(keys.LAYOUT, "16 form 2")
    assert answer_of(valkey) == 503
    assert list(redis.scan_iter(match="*inbox*")) == []


def test_a_web_process_is_built_while_redis_is_away(tmp_path: Path) -> None:
    assert answer_of(f"unix://{tmp_path}/nobody.sock") == 503
