"""The search for leaks in the logs finds them; else a clean log would prove nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests import conftest
from tests.cast import ACCOUNT, ANNA, TOKEN, said
from tests.leaks import leaks
from tests.web.conftest import OURS, PATH, signature

LEAKS = [
    "+15550123456",
    "%2B15550100",
    "15550101",
    "+12065550100",
    TOKEN,
    signature(OURS + PATH, said("x", number=1, second=0)),
]
CLEAN = [
    *(
        ACCOUNT,
        ANNA,
        "1795556209175",
        "1795556209175-0",
        "2026-11-24 21:36:49",
        "https://hooks.example.com/webhooks/twilio",
    ),
    *("port 15551", "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "a=b", ""),
]


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("around", ["{}", '{{"to": "{}"}}', "To={}&From=", "[warning] {} was called\n"])
def test_a_leak_is_found_wherever_it_stands(leak: str, around: str) -> None:
    [found] = leaks(around.format(leak))
    assert found.removeprefix("%2B") in leak


@pytest.mark.parametrize("line", CLEAN)
def test_what_is_no_secret_is_no_leak(line: str) -> None:
    assert leaks(line) == []


@pytest.mark.parametrize("where", ["capstdout", "capstderr", "caplog"])
@pytest.mark.parametrize(("line", "outcome"), [("all is well", "passed"), (f"refused {TOKEN}", "failed")])
def test_a_test_whose_logs_leak_has_failed(where: str, line: str, outcome: str) -> None:
    report = SimpleNamespace(passed=True, outcome="passed", capstdout="", capstderr="", caplog="")
    setattr(report, where, line)
    running = conftest.pytest_runtest_makereport()
    next(running)
    with pytest.raises(StopIteration):
        running.send(report)
    assert report.outcome == outcome
