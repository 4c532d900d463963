"""What a request to our own API asks for, and whether who asks may see it."""

from __future__ import annotations

from collections.abc import Callable

from flask import abort, request

from app.conference import read_header
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


def check_visible(reader: Reader, sid: str, look: Callable[[list[str]], list[bytes | None]]) -> bytes:
    """What `look` finds about a conference, if this reader may see it."""
    if not is_sid("CF", sid):
        abort(400, "Not a conference sid: expected CF and 32 hexadecimal digits.")
    [found] = look([sid])
    if found is None or not reader.may_see(read_header(found).account_sid):
        abort(404, f"No conference {sid} is known here for this key.")
    return found
