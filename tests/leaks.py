"""What must be in no log: numbers of people, secrets, signatures. The whole suite's logs are searched for them."""

from __future__ import annotations

import re

from tests.cast import TOKEN

SECRETS = [
    *(TOKEN, TOKEN.replace(" ", "-"), "the token from before", "the subaccount's token", "a stranger's token"),
    *("a shared secret", "the operator's secret", "the steerer's secret", "the tenant's secret"),
]
NUMBER = r"(?<![0-9A-Za-z])(?:%2B)?1(?:555[0-9]{4,7}|[2-9][0-9]{2}5550[0-9]{3})(?![0-9])"
"""Of people in tests, and in made-up stories."""
SIGNATURE = r"(?<![0-9A-Za-z+/])(?:[0-9A-Za-z+/]{27}|[0-9A-Za-z+/]{43})=(?![0-9A-Za-z=])"
PATTERN = re.compile("|".join([NUMBER, SIGNATURE, *map(re.escape, SECRETS)]))


def leaks(log: str) -> list[str]:
    """Whatever is in this log and should not be, each once."""
    return sorted({found.group() for found in PATTERN.finditer(log)})
