"""What to tell Twilio so that it tells us everything: TwiML and Participants API parameters for one room."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

EVENTS = ("start", "end", "join", "leave", "mute", "hold", "modify", "speaker", "announcement")
"""All that can be subscribed (Twilio docs, TwiML Conference)."""

OVERRIDES = "#rc=5&rp=all&ct=2000&rt=4000&tt=15000"
"""By default a callback is retried once, and only if no connection was made. These make it five times in 15 s, after
any failure (Twilio docs, Connection Overrides). Twilio keeps the fragment to itself and does not sign it."""


def callback_url(public_url: str) -> str:
    """The URL to give Twilio for status callbacks, with its connection overrides."""
    return f"{public_url}/webhooks/twilio{OVERRIDES}"


def twiml(room: str, public_url: str) -> str:
    """A TwiML document that puts a call into the room. The first participant's attributes decide for all of it."""
    url = callback_url(public_url)
    attributes = {
        "statusCallback": url,
        "statusCallbackMethod": "POST",
        "statusCallbackEvent": " ".join(EVENTS),
        "recordingStatusCallback": url,
        "recordingStatusCallbackMethod": "POST",
        "recordingStatusCallbackEvent": "in-progress completed absent",
    }
    lines = "\n".join(f"      {name}={quoteattr(value)}" for name, value in attributes.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Response>\n  <Dial>\n'
        f"    <Conference\n{lines}>{escape(room)}</Conference>\n  </Dial>\n</Response>"
    )


def participant_parameters(public_url: str) -> list[tuple[str, str]]:
    """The same for POST /Conferences/{room}/Participants.json, in pairs, because some names are repeated.

    `StatusCallback` there is the call's own progress; the conference's is `ConferenceStatusCallback`. Without
    `ConferenceStatusCallbackEvent` only start and end are told (Twilio docs, Participant resource).
    """
    url = callback_url(public_url)
    return [
        ("ConferenceStatusCallback", url),
        ("ConferenceStatusCallbackMethod", "POST"),
        *(("ConferenceStatusCallbackEvent", event) for event in EVENTS),
        ("ConferenceRecordingStatusCallback", url),
        ("ConferenceRecordingStatusCallbackMethod", "POST"),
        *(("ConferenceRecordingStatusCallbackEvent", event) for event in ("in-progress", "completed", "absent")),
        ("StatusCallback", url),
        ("StatusCallbackMethod", "POST"),
        *(("StatusCallbackEvent", event) for event in ("initiated", "ringing", "answered", "completed")),
    ]
