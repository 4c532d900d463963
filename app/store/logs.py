"""A conference's log: its callbacks as they came, each once, in order of arrival, numbered from 1, and packed.

Callbacks of one conference are much alike. A log is a list of packs: what one commit has added, deflated against a
dictionary of what nearly all callbacks hold, behind the number of its first callback. Beside it, in the same order, is
a string of their ids: whether a callback has been heard is one search in that, however long the log.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from app.events import Callback

ID_BYTES = 12
"""Of an event's id, which is written as hexadecimal digits elsewhere."""
NUMBER_BYTES = 4
LARGEST_PACK = 50
"""Callbacks. Who wants one of them unpacks all."""
WINDOW = -13
"""Of deflate: 8 KiB, without header and checksum."""

DICTIONARY = (
    b"&ParticipantCallStatus=no-answer&ReasonParticipantLeft=participant_add_failed&Reason=Participant+"
    b"&CallSidEndingConference=CA&ParticipantLabelEndingConference=&ReasonConferenceEnded=conference-ended-via-api"
    b"last-participant-leftparticipant-with-end-conference-on-exit-left&AnnounceUrl=https%3A%2F%2F"
    b"&RecordingSid=RE&RecordingStatus=completed&RecordingUrl=https%3A%2F%2Fapi.twilio.com%2F2010-04-01%2FAccounts%2FAC"
    b"&RecordingDuration=&RecordingChannels=1&RecordingSource=Conference&RecordingStartTime="
    b"&Direction=outbound-api&CallStatus=ringing&From=%2B1&To=%2B1&CallDuration=&SipResponseCode=200&ApiVersion=2010-04-01"
    b"&StatusCallbackEvent=announcement-end&StatusCallbackEvent=conference-start&StatusCallbackEvent=conference-end"
    b"&StatusCallbackEvent=participant-unmute&StatusCallbackEvent=participant-unhold"
    b"&StatusCallbackEvent=participant-modify&ParticipantCallStatus=completed&ReasonParticipantLeft=participant_hung_up"
    b"&StatusCallbackEvent=participant-leave&StatusCallbackEvent=participant-join"
    b"&StatusCallbackEvent=participant-speech-stop&StatusCallbackEvent=participant-speech-start"
    b"&Timestamp=Mon%2C+01+Jan+2026+00%3A00%3A00+%2B0000&SequenceNumber=1&FriendlyName=&ParticipantLabel="
    b"&Coaching=false&EndConferenceOnExit=true&EndConferenceOnExit=false&StartConferenceOnEnter=true"
    b"&Hold=true&Muted=true&Hold=false&Muted=false&CallSid=CA&AccountSid=AC&ConferenceSid="
)
"""Part of how logs are stored: what was packed with it can be read with nothing else."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Callback]).decode


class Logged(NamedTuple):
    """One callback of a log."""

    number: int
    """Its place in the log, from 1; places never change."""
    event_id: str
    callback: Callback


def packed(sid: str, news: Sequence[tuple[str, Callback]]) -> Iterator[tuple[bytes, bytes]]:
    """What is added to the conference's ids and to its log, pack by pack; the number in front is not known yet."""
    for first in range(0, len(news), LARGEST_PACK):
        some = news[first : first + LARGEST_PACK]
        deflate = zlib.compressobj(wbits=WINDOW, memLevel=5, zdict=_dictionary(sid))
        body = deflate.compress(_encode([callback for _, callback in some]))
        yield b"".join(bytes.fromhex(event_id) for event_id, _ in some), body + deflate.flush()


def unpacked(sid: str, ids: bytes, packs: Iterable[bytes]) -> Iterator[Logged]:
    """The callbacks of packs that follow each other; `ids` begin with that of the first."""
    place = 0
    for pack in packs:
        first = int.from_bytes(pack[:NUMBER_BYTES], "big")
        inflate = zlib.decompressobj(wbits=WINDOW, zdict=_dictionary(sid))
        for number, callback in enumerate(_decode(inflate.decompress(pack[NUMBER_BYTES:])), start=first):
            yield Logged(number, ids[place : place + ID_BYTES].hex(), callback)
            place += ID_BYTES


def _dictionary(sid: str) -> bytes:
    return DICTIONARY + sid.encode()
