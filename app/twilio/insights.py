"""Summaries in the shape of Twilio's Voice Insights (insights v1), from what callbacks tell; the rest is null.

Twilio's come some minutes after the end; these are there from the first callback on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from app.conference import Header, Participant
from app.events import Event, Status
from app.twilio.resources import kept

STATUSES: dict[Status, str] = {"init": "not_started", "in-progress": "in_progress", "completed": "completed"}
CALL_STATUSES = {
    "ringing": "ringing",
    "in-progress": "answered",
    "completed": "completed",
    "busy": "busy",
    "failed": "fail",
    "no-answer": "noanswer",
    "canceled": "canceled",
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LESS_THAN_A_SECOND = timedelta(seconds=0.5)
REGIONS = ("us1", "us2", "au1", "br1", "ie1", "jp1", "sg1", "de1", "in1")
KINDS = {
    "participant-join": "join",
    "participant-leave": "leave",
    "participant-mute": "mute",
    "participant-unmute": "unmute",
    "participant-hold": "hold",
    "participant-unhold": "unhold",
    "participant-modify": "modify",
    "participant-speech-start": "speech_start",
    "participant-speech-stop": "speech_stop",
}


def conference(header: Header, participants: Iterable[Participant], base: str) -> dict[str, Any]:
    """A conference summary. `base` is our own address, for links."""
    url = f"{base}/v1/Conferences/{header.sid}"
    ended = header.status == "completed"
    return {
        "conference_sid": header.sid,
        "account_sid": header.account_sid,
        "friendly_name": header.friendly_name,
        "create_time": _iso(header.created_at),
        "start_time": _iso(header.started_at),
        "end_time": _iso(header.ended_at),
        "duration_seconds": _seconds(header.created_at, header.ended_at),
        "connect_duration_seconds": _seconds(header.started_at, header.ended_at),
        "status": STATUSES[header.status],
        "max_participants": None,
        "max_concurrent_participants": _most_at_once(participants),
        "unique_participants": None,
        "end_reason": _underscored(header.reason_conference_ended),
        "ended_by": header.call_sid_ending_conference,
        "mixer_region": header.region if header.region in REGIONS else None,
        "mixer_region_requested": None,
        "recording_enabled": True if kept(header.recordings) else None,
        "detected_issues": None,
        "tags": None,
        "tag_info": None,
        "processing_state": "complete" if ended else "in_progress",
        "url": url,
        "links": {"conference_participants": f"{url}/Participants"},
    }


def participant(
    header: Header, participant: Participant, base: str, events: Iterable[Event] | None = None
) -> dict[str, Any]:
    """A participant summary. Its own SID is known to Twilio only; the call's stands for it in addresses.

    `events` are those about it, where they were asked for.
    """
    coached = participant.coach_told[1] if participant.coach_told else None
    over = participant.status in ("complete", "failed")
    return {
        "participant_sid": None,
        "label": participant.label,
        "conference_sid": header.sid,
        "call_sid": participant.call_sid,
        "account_sid": header.account_sid,
        "call_direction": None if participant.direction is None else participant.direction.partition("-")[0],
        "from": participant.from_,
        "to": participant.to,
        "call_status": CALL_STATUSES.get(participant.call_status or ""),
        "country_code": None,
        "is_moderator": _either(participant.start_conference_on_enter, participant.end_conference_on_exit),
        "join_time": _iso(participant.joined_at),
        "leave_time": _iso(participant.left_at),
        "duration_seconds": _seconds(participant.joined_at, participant.left_at),
        "outbound_queue_length": None,
        "outbound_time_in_queue": participant.queue_time,
        "jitter_buffer_size": None,
        "is_coach": True if coached else participant.coaching,
        "coached_participants": [coached] if coached else None,
        "participant_region": None,
        "conference_region": header.region if header.region in REGIONS else None,
        "call_type": _call_type(participant),
        "processing_state": "complete" if over else "in_progress",
        "properties": {
            "start_conference_on_enter": participant.start_conference_on_enter,
            "end_conference_on_exit": participant.end_conference_on_exit,
            "play_early_media": None,
            "enter_muted": None,
            "beep_on_enter": None,
            "beep_on_exit": None,
        },
        "events": None if events is None else _times(events),
        "metrics": None,
        "url": f"{base}/v1/Conferences/{header.sid}/Participants/{participant.call_sid}",
    }


def _times(events: Iterable[Event]) -> dict[str, list[int]]:
    """When each kind of thing happened, in ms since 1970."""
    times: dict[str, list[int]] = {}
    for event in events:
        if event.at is not None and event.at >= EPOCH and event.type in KINDS:
            times.setdefault(KINDS[event.type], []).append(int(event.at.timestamp() * 1000))
    return {kind: sorted(those) for kind, those in sorted(times.items())}


def _most_at_once(participants: Iterable[Participant]) -> int:
    """Someone who leaves in the second in which another joins makes room first: Twilio's times are whole seconds."""
    steps: list[tuple[datetime, int]] = []
    stays = [(participant, stay) for participant in participants for stay in participant.stays]
    for participant, stay in stays:
        joined = stay.joined_at or participant.created_at
        if joined is not None:
            steps.append((joined, 1))
            if stay.left_at is not None:
                steps.append((stay.left_at if stay.left_at > joined else joined + LESS_THAN_A_SECOND, -1))
    most = here = 0
    for _, step in sorted(steps):
        here += step
        most = max(most, here)
    return most


def _either(*flags: bool | None) -> bool | None:
    told = [flag for flag in flags if flag is not None]
    return any(told) if told else None


def _call_type(participant: Participant) -> str | None:
    other = participant.to if (participant.direction or "").startswith("outbound") else participant.from_
    if other is None:
        return None
    return next((kind for kind in ("client", "sip") if other.startswith(f"{kind}:")), "carrier")


def _seconds(begin: datetime | None, end: datetime | None) -> int | None:
    return None if begin is None or end is None else max(0, int((end - begin).total_seconds()))


def _underscored(word: str | None) -> str | None:
    return None if word is None else word.replace("-", "_")


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
