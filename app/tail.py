"""The feed in a terminal: which changes are shown, and each as a line for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click
import msgspec
from redis import RedisError

from app.store.feed import Feed, Gone, Told, moved

WAIT = 1.0
"""Seconds."""
COLOURS = {
    "join": "green",
    "start": "green",
    "leave": "bright_black",
    "end": "bright_black",
    "mute": "yellow",
    "hold": "yellow",
    "modify": "magenta",
    "speech": "cyan",
    "announcement": "blue",
    "control": "magenta",
    "snapshot": "blue",
    "alert-raised": "red",
    "alert-cleared": "bright_black",
}
WORDS = {
    "participant-join": "joins",
    "participant-leave": "leaves",
    "participant-mute": "is muted",
    "participant-unmute": "is unmuted",
    "participant-hold": "is put on hold",
    "participant-unhold": "is taken off hold",
    "participant-modify": "is changed",
    "participant-speech-start": "speaks",
    "participant-speech-stop": "falls silent",
    "conference-start": "the conference starts",
    "conference-end": "the conference ends",
    "snapshot": "Twilio was asked",
    "alert-raised": "alert",
    "alert-cleared": "alert is over",
}


class Chosen(NamedTuple):
    """Which changes are shown; None, or nothing: any."""

    conference: str | None = None
    account: str | None = None
    name: str | None = None
    """Part of the conference's name, in any case."""
    who: str | None = None
    """A call sid, or part of a label, in any case."""
    events: tuple[str, ...] = ()
    """Parts of event types, such as `mute` or `participant-join`."""

    def covers(self, told: Told) -> bool:
        """Whether this change may be one of them, as far as can be told without reading it."""
        return self.conference in (None, told.conference_sid) and self.account in (None, told.account_sid)

    def fits(self, message: dict[str, Any]) -> bool:
        """Whether it is."""
        if self.name is not None and self.name.lower() not in (message["conference"]["friendly_name"] or "").lower():
            return False
        if self.who is not None and not any(_is(self.who, each) for each in message["participants"]):
            return False
        types = [event["type"] for event in message["events"]]
        return not self.events or any(part in kind for part in self.events for kind in types)


def changes(feed: Feed, chosen: Chosen, say: Callable[[str], None]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Messages that fit, from now on, as published and as read.

    `say` is told when Redis is away, and when something has been missed. Raises RedisError if it is away at first.
    """
    places = feed.end()
    say("listening")
    away = lost = False
    while True:
        try:
            if lost:
                places, lost = feed.end(), False
                say("Redis has not kept all that has changed: some changes are not shown")
            told = feed.wait(places, WAIT)
        except Gone:
            lost = True
            continue
        except RedisError as error:
            if not away:
                say(f"Redis does not answer ({type(error).__name__}); trying again")
            away = True
            time.sleep(WAIT)
            continue
        if away:
            say("Redis is back")
            away = False
        for each in told:
            places = moved(places, each.shard, each.place)
            if chosen.covers(each) and chosen.fits(message := msgspec.json.decode(each.message)):
                yield each.message, message


def line(message: dict[str, Any]) -> str:
    """One change for people: when, where, what, and how many are there now."""
    conference = message["conference"]
    names = {each["call_sid"]: each["label"] or f"{each['call_sid'][:8]}…" for each in message["participants"]}
    what = ", ".join(_said(event, names) for event in message["events"])
    moment = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
    name = _plain(conference["friendly_name"] or message["conference_sid"])
    return f"{click.style(moment, dim=True)}  {name[:28]:28}  {conference['counts']['present']:3} here  {what}"


def _said(event: dict[str, Any], names: dict[str, str]) -> str:
    kind = str(event["type"])
    colour = next((colour for part, colour in COLOURS.items() if part in kind), None)
    call_sid = event["call_sid"]
    who = names.get(call_sid, f"{call_sid[:8]}…" if call_sid else "")  # an alert changes nobody, so names nobody
    what = ": ".join(_plain(each) for each in (WORDS.get(kind, kind), event.get("text")) if each)
    return click.style(f"{_plain(who)} {what}".strip(), fg=colour)


def _is(who: str, participant: dict[str, Any]) -> bool:
    return who == participant["call_sid"] or who.lower() in (participant["label"] or "").lower()


def _plain(text: str) -> str:
    """Names come from elsewhere: nothing in them may steer a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
