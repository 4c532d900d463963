"""A genuine callback that somebody sends again, when it is all over, elsewhere, or in other words, changes nothing."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from random import Random
from urllib.parse import urlencode

import pytest
from structlog.testing import capture_logs

from app.simulator.stories import story
from tests.cast import ACCOUNT
from tests.web.conftest import OURS, PATH, Site, signature
from tests.web.hostile import CASES, SEED, Sent

REPLAYS = CASES // 10


@pytest.mark.timeout(120 + CASES // 100)
def test_what_is_sent_again_after_the_end_changes_nothing_and_brings_nothing_back(site: Site) -> None:
    rng = Random(SEED)
    told = [one.parameters for _ in range(8) for one in story(rng, ACCOUNT, datetime(2026, 11, 22, 12, tzinfo=UTC))]
    site.tell(*told)
    site.fold()
    assert site.told("/api/stats")["conferences"]["completed"] > 0
    before, counted = kept(site), site.snapshots.counters()
    answered: Counter[tuple[str, int]] = Counter()
    with capture_logs():
        for _ in range(REPLAYS):
            parameters = rng.choice(told)
            signed = signature(OURS + PATH, parameters)
            way, sent = rng.choice(list(WAYS.items()))
            status, _, _ = sent(parameters, {"HTTP_X_TWILIO_SIGNATURE": signed}).to(site)
            answered[way, status] += 1
        site.fold()
    print(f"{REPLAYS} replays, seed {SEED}: {dict(answered)}")
    assert dict(list(answered)) == STATUSES
    assert kept(site) == before
    counters = site.snapshots.counters()
    stored = sum(number for (_, status), number in answered.items() if status == 204)
    assert counters == counted | {"repeated": counted["repeated"] + stored}


def _plain(parameters: dict[str, str], headers: dict[str, str]) -> Sent:
    return Sent(urlencode(parameters).encode(), headers)


def _in_another_order(parameters: dict[str, str], headers: dict[str, str]) -> Sent:
    return _plain(dict(reversed(parameters.items())), headers)


def _with_repeats(parameters: dict[str, str], headers: dict[str, str]) -> Sent:
    body = urlencode(parameters).encode()
    return Sent(body + b"&" + body, headers)


def _with_another_token(parameters: dict[str, str], headers: dict[str, str]) -> Sent:
    """The one header that tells Twilio's own retries is not signed."""
    return _plain(parameters, headers | {"HTTP_I_TWILIO_IDEMPOTENCY_TOKEN": "another"})


def _elsewhere(parameters: dict[str, str], headers: dict[str, str]) -> Sent:
    return _plain(parameters, headers)._replace(target="/webhooks/other")


def _with_a_query(parameters: dict[str, str], headers: dict[str, str]) -> Sent:
    return _plain(parameters, headers)._replace(target=f"{PATH}?a=b")


def _below(parameters: dict[str, str], headers: dict[str, str]) -> Sent:
    return _plain(parameters, headers)._replace(target=f"{PATH}/")


def _by_get(parameters: dict[str, str], headers: dict[str, str]) -> Sent:
    return Sent(b"", headers, f"{PATH}?{urlencode(parameters)}", "GET")


WAYS = {
    "plain": _plain,
    "in another order": _in_another_order,
    "with repeats": _with_repeats,
    "with another token": _with_another_token,
    "elsewhere": _elsewhere,
    "with a query": _with_a_query,
    "below": _below,
    "by GET": _by_get,
}
STATUSES = {
    **dict.fromkeys(("plain", "in another order", "with repeats", "with another token"), 204),
    "elsewhere": 404,
    "with a query": 403,
    "below": 403,
    "by GET": 403,
}


def kept(site: Site) -> dict[bytes, bytes]:
    """Every key that holds what is true or what was told, as it is."""
    patterns = (
        "conference:*",
        "log:*",
        "ids:*",
        "call:*",
        "index",
        "changes",
        "dead",
        "pending",
        "looks",
        "gaps",
        "timers",
        "alerts",
        "outbox",
    )
    names = [name for pattern in patterns for name in site.redis.scan_iter(f"offhook:{{*}}:{pattern}")]
    return {name: site.redis.dump(name) for name in names}
