"""Lists as Twilio pages them: a clamped PageSize, an informative Page, and a PageToken that says where to go on.

A token is PA or PB, after or before, then the sid that it stands at and when that was created.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from flask import request

from app.conference import Header, read_header
from app.store.index import LATEST, Place, place_of
from app.store.snapshots import Question, Snapshots
from app.web.failures import BAD_PAGE_TOKEN, Failure

USUAL, LARGEST = 50, 1000
TOKEN = re.compile(r"P([AB])([A-Z]{2}[0-9a-fA-F]{32})([0-9a-f]{10})")

T = TypeVar("T")


class Asked(NamedTuple):
    """Which part of a list is asked for."""

    size: int
    page: int
    place: Place | None
    """Where it begins, or ends; not part of it. None: at the beginning of the list."""
    newer: bool
    """Whether it ends there. Lists go from the newest down."""


class Part(NamedTuple):
    """Where the parts beside the one that is shown begin; None where there are none."""

    older_than: Place | None
    newer_than: Place | None


def asked(kind: str) -> Asked:
    """From the query of the current request, for a list of things whose sids begin with `kind`.

    PageSize is clamped, not refused: SDKs send whatever limit they have.
    """
    size, page = (_number(name, usual) for name, usual in (("PageSize", USUAL), ("Page", 0)))
    token = request.args.get("PageToken", "")
    found = TOKEN.fullmatch(token)
    if token and (not found or not found[2].startswith(kind)):
        raise Failure(400, "PageToken is not one that this list has given out", BAD_PAGE_TOKEN)
    at = Place(int(found[3], 16), found[2]) if found else None
    return Asked(min(max(1, size), LARGEST), page, at, bool(found and found[1] == "B"))


def _number(name: str, usual: int) -> int:
    text = request.args.get(name) or str(usual)
    if not re.fullmatch("[0-9]+", text):
        raise Failure(400, f"{name} is not a whole number")
    return int(text[:10])


def conferences(snapshots: Snapshots, question: Question, where: Asked) -> tuple[list[Header], Part]:
    """The part of a list of conferences that is asked for."""
    found, further = snapshots.page(question, where.place, where.size + 1, newer=where.newer)
    shown, more = cut([read_header(header) for header in found], where)
    part = beside([place_of(header) for header in shown], where, more)
    if not more and further is not None:  # much had to be passed over: there may be more beyond, and nothing up to it
        if where.newer:
            part = Part(part.older_than if shown else further, further)
        else:
            part = Part(further, part.newer_than if shown else further)
    return shown, part


def part_of(things: Mapping[Place, T], where: Asked) -> tuple[list[T], Part]:
    """The part of a list that is at hand as a whole."""
    listed = sorted(things.items(), key=lambda entry: entry[0], reverse=True)
    if where.place is None:
        rest = listed
    elif where.newer:
        rest = [entry for entry in listed if entry[0] > where.place]
    else:
        rest = [entry for entry in listed if entry[0] < where.place]
    shown, more = cut(rest, where)
    return [thing for _, thing in shown], beside([at for at, _ in shown], where, more)


def cut(found: list[T], where: Asked) -> tuple[list[T], bool]:
    """As much as fits on the page of what was found, the newest first; and whether something was left over."""
    shown = found[-where.size :] if where.newer else found[: where.size]
    return shown, len(found) > where.size


def beside(places: Sequence[Place], where: Asked, more: bool) -> Part:
    """What stands beside the places that are shown. `more`: further on in the direction that was asked for."""
    if not places and where.place:  # nothing more in this direction: the list's end is on the other side
        kind = where.place.sid[:2]
        if where.newer:
            return Part(Place(LATEST, kind + "f" * 32), None)
        return Part(None, Place(0, kind + "0" * 32))
    if not places:
        return Part(None, None)
    first, last = places[0], places[-1]
    if where.newer:
        return Part(last, first if more else None)
    return Part(last if more else None, first if where.place else None)


def links(path: str, filters: Mapping[str, str], where: Asked, part: Part) -> dict[str, str | None]:
    """The addresses `own`, `first`, `next` and `previous`, each with the filters first."""

    def link(page: int, letter: str = "", at: Place | None = None) -> str:
        words = {**filters, "PageSize": str(where.size), "Page": str(page)}
        if at is not None:
            words["PageToken"] = f"P{letter}{at.sid}{at.created:010x}"
        return f"{path}?{urlencode(words, quote_via=quote)}"

    older, newer = part
    return {
        "own": link(where.page, "B" if where.newer else "A", where.place),
        "first": link(0),
        "next": link(where.page + 1, "A", older) if older else None,
        "previous": link(max(0, where.page - 1), "B", newer) if newer else None,
    }
