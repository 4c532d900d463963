"""Times as Twilio writes them: RFC 2822 in callbacks and REST resources, ISO 8601 elsewhere. Always UTC here."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache


@lru_cache(maxsize=4096)
def read_time(text: str) -> datetime | None:
    """RFC 2822 as Twilio sends it, or ISO 8601 as its neighbours do; UTC. None where it is neither."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            time = parse(text)
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def rfc_2822(time: datetime | None) -> str | None:
    """The form that every SDK parses: a two-digit day, English names, whole seconds, `+0000`."""
    return None if time is None else format_datetime(time.astimezone(UTC).replace(microsecond=0))
