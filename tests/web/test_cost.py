"""What taking in a callback costs. Counts, not times: the same on every machine, so they can be held."""

from __future__ import annotations

import sys
from io import BytesIO
from urllib.parse import urlencode

from redis import Redis

from tests.cast import ANNA, said
from tests.costs import Tally
from tests.web.conftest import OURS, PATH, Site, signature

JOIN = said("participant-join", ANNA, number=1, second=0)
SIGNED = signature(OURS + PATH, JOIN)


def test_a_callback_is_one_round_trip_and_costs_no_more_than_it_did(redis: Redis, round_trips: list[int]) -> None:
    site = Site(redis)
    site.inbox.attend()
    site.tell(JOIN)
    body = urlencode(JOIN).encode()
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": PATH,
        "RAW_URI": PATH,
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_X_TWILIO_SIGNATURE": SIGNED,
        "wsgi.input": BytesIO(body),
    }
    answers: list[str] = []
    cost = Tally(redis, round_trips).of(lambda: site.app.wsgi_app(environ, lambda status, *_: answers.append(status)))
    assert answers == ["204 NO CONTENT"]
    assert (cost.trips, cost.commands) == (1, 4), "the script, and in it XLEN, XADD and SET"
    if sys.version_info[:2] == (3, 11):  # other Pythons count their calls otherwise
        assert cost.calls <= 420
