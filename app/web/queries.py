"""What a request to our own API asks for, and whether who asks may see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flask import abort, request

from app.conference import read_header
from app.store.snapshots import Snapshots
from app.twilio.sids import is_sid
from app.web.access import Reader


def query(*names: str) -> dict[str, str]:
    """The query's parameters. An unknown or repeated one is an error: a mistyped filter must not show everything."""
    given: dict[str, str] = {}
    for name, values in request.args.lists():
        if name not in names:
            known = f"known are {', '.join(names)}" if names else "this address takes none"
            abort(400, f"{name}: there is no such parameter; {known}.")
        if len(values) > 1:
            abort(400, f"{name}: given more than once.")
        given[name] = values[0]
    return given


T = TypeVar("T")


def check_visible(
    reader: Reader, sid: str, look: Callable[[list[str]], list[T | None]], header_of: Callable[[T], bytes]
) -> T:
    """What `look` finds about a conference, if this reader may see it: its header tells."""
    if not is_sid("CF", sid):
        abort(400, "Not a conference sid: expected CF and 32 hexadecimal digits.")
    [found] = look([sid])
    if found is None or not reader.may_see(read_header(header_of(found)).account_sid):
        abort(404, f"No conference {sid} is known here for this key.")
    return found


def visible_header(reader: Reader, sid: str, snapshots: Snapshots) -> bytes:
    """A conference's header as JSON, if this reader may see it."""
    return check_visible(reader, sid, snapshots.headers, lambda header: header)
