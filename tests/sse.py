"""Reads Server-Sent Events as a browser does, and is stricter: what our streams never send is an error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class Frame(NamedTuple):
    """One event of a stream, or its `retry`."""

    name: str
    id: str
    data: Any


def frames(chunks: Iterable[bytes]) -> Iterator[Frame]:
    """The frames of a stream's body, however it was cut into chunks."""
    kept = b""
    for chunk in chunks:
        *whole, kept = (kept + chunk).split(b"\n\n")
        yield from map(_frame, whole)
    assert kept == b"", "the stream ended within a frame"


def _frame(text: bytes) -> Frame:
    if text.startswith(b"retry: "):
        return Frame("retry", "", int(text.removeprefix(b"retry: ")))
    place, name, data = text.decode().split("\n")
    assert place.startswith("id: ")
    assert name.startswith("event: ")
    assert data.startswith("data: ")
    return Frame(name[7:], place[4:], json.loads(data[6:]))
