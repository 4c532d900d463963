"""`/readyz` is red while Redis keeps callbacks less safely than was asked, and green once that is mended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from werkzeug.test import TestResponse

from app import wsgi
from app.store.durability import inspect
from app.store.inbox import Inbox
from config.settings import from_env
from tests.cast import ACCOUNT, ANNA, said
from tests.servers import Server
from tests.system.house import awaited, free_port
from tests.web.conftest import signature

URL = "https://offhook.example.com"
PATH = "/webhooks/twilio"

Serve = Callable[..., Server]


class Web:
    """A web process on this server, as gunicorn builds it."""

    def __init__(self, server: Server, mode: str, **more: str) -> None:
        environ = {
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": "a-pretend-token",
            "PUBLIC_URL": URL,
            "REDIS_URL": server.url,
            "OFFHOOK_DURABILITY": mode,
            "OFFHOOK_SPOOL": "off",
            **more,
        }
        self.http = wsgi.build(from_env(environ)).test_client()

    def readyz(self) -> TestResponse:
        return self.http.get("/readyz")

    def send(self) -> int:
        told = said("participant-join", ANNA, number=1, second=0)
        headers = {"X-Twilio-Signature": signature(URL + PATH, told, "a-pretend-token")}
        return self.http.post(PATH, data=told, headers=headers).status_code


def setting(name: str, value: str) -> Callable[[Redis], Any]:
    return lambda redis: redis.config_set(name, value)


@pytest.mark.parametrize(
    ("mode", "spoil", "advice", "mend"),
    [
        ("everysec", setting("appendonly", "no"), "set appendonly yes", setting("appendonly", "yes")),
        ("everysec", setting("appendfsync", "no"), "appendfsync everysec", setting("appendfsync", "everysec")),
        ("always", setting("appendfsync", "everysec"), "appendfsync always", setting("appendfsync", "always")),
        (
            "everysec",
            setting("maxmemory-policy", "allkeys-lru"),
            "set maxmemory-policy noeviction",
            setting("maxmemory-policy", "noeviction"),
        ),
        (
            "always",
            setting("no-appendfsync-on-rewrite", "yes"),
            "set no-appendfsync-on-rewrite no",
            setting("no-appendfsync-on-rewrite", "no"),
        ),
        (
            "everysec",
            lambda redis: redis.replicaof("127.0.0.1", 1),
            "Set REDIS_URL to the primary",
            lambda redis: redis.replicaof("NO", "ONE"),
        ),
        ("memory", setting("maxmemory", "1"), "Cannot store callbacks", setting("maxmemory", "0")),
    ],
    ids=["no file", "no fsync", "fsync late", "eviction", "no fsync on rewrite", "a replica", "full"],
)
def test_readyz_says_what_is_wrong_until_it_is_mended(
    serve: Serve, mode: str, spoil: Callable[[Redis], Any], advice: str, mend: Callable[[Redis], Any]
) -> None:
    server = serve()
    redis, web = server.client(), Web(server, mode)
    assert web.readyz().status_code == 200
    spoil(redis)
    answer = web.readyz()
    assert answer.status_code == 503
    assert answer.get_json()["status"] == 503
    assert advice in answer.get_json()["message"]
    mend(redis)
    assert web.readyz().status_code == 200


def test_readyz_tells_what_it_found(serve: Serve) -> None:
    server = serve(appendfsync="everysec", maxmemory_policy="allkeys-lru", appendonly="no")
    Inbox(server.client(), 16).announce(1)
    assert Web(server, "memory").readyz().get_json() == {
        "status": "ready",
        "reasons": [],
        "append_only_file": False,
        "durability": {"mode": "memory", "fsync": "everysec", "eviction": "allkeys-lru", "replicas": 0},
        "spooled_bytes": 0,
    }


def test_readyz_has_null_for_what_redis_does_not_say(serve: Serve) -> None:
    server = serve()
    Inbox(server.client(), 16).announce(1)
    server.client().execute_command("ACL", "SETUSER", "default", "-config", "-info")
    assert Web(server, "always").readyz().get_json() == {
        "status": "ready",
        "reasons": [],
        "append_only_file": None,
        "durability": {"mode": "always", "fsync": None, "eviction": None, "replicas": None},
        "spooled_bytes": 0,
    }


def test_where_a_replica_is_asked_for_and_none_is_there_nothing_is_acknowledged(serve: Serve) -> None:
    port = free_port()
    primary = serve(port=str(port))
    redis, web = primary.client(), Web(primary, "replica")
    assert web.send() == 503
    assert "No replica is connected" in web.readyz().get_json()["message"]
    replica = serve(replicaof=f"127.0.0.1 {port}")
    awaited("the replica to follow", lambda: inspect(redis).replicas == 1)
    awaited("an acknowledgement", lambda: web.send() == 204)
    answer = awaited("/readyz", lambda: (green := web.readyz()).status_code == 200 and green)
    assert answer.get_json()["durability"]["replicas"] == 1
    replica.kill()
    assert web.send() == 503
    assert web.readyz().status_code == 503


def test_what_no_replica_has_is_kept_in_the_spool(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    primary = serve(port=str(port))
    redis = primary.client()
    replica = serve(replicaof=f"127.0.0.1 {port}")
    awaited("the replica to follow", lambda: inspect(redis).replicas == 1)
    web = Web(primary, "replica", OFFHOOK_SPOOL="on", OFFHOOK_DATA_DIR=str(tmp_path))
    replica.pause()
    assert web.send() == 204
    answer = web.readyz()
    assert answer.status_code == 200
    assert answer.get_json()["status"] == "degraded"
    assert "No replica had it within" in " ".join(answer.get_json()["reasons"])
    assert answer.get_json()["spooled_bytes"] > 0
    replica.go_on()
