"""What one would write first: Flask, the SDK's RequestValidator, and an RQ job for each callback.

`python -m bench.peers.flask_rq` is a worker.

It is short and clear, and it is not safe: a job changes a document that another worker may be changing too, late and
repeated callbacks are taken as they come, and a job that dies with its worker is gone. None of that is held against
it here; only its speed is measured.
"""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask, abort, request
from redis import Redis
from rq import Queue, SimpleWorker
from twilio.request_validator import RequestValidator

app = Flask(__name__)
redis = Redis.from_url(os.environ["REDIS_URL"])
queue = Queue("callbacks", connection=redis)
validator = RequestValidator(os.environ["TWILIO_AUTH_TOKEN"])

FLAGS = {
    "Muted": "muted",
    "Hold": "hold",
    "Coaching": "coaching",
    "StartConferenceOnEnter": "start_conference_on_enter",
    "EndConferenceOnExit": "end_conference_on_exit",
}


@app.post("/webhooks/twilio")
def receive() -> tuple[str, int]:
    """Check the signature and leave the rest to a job."""
    if not validator.validate(request.url, request.form, request.headers.get("X-Twilio-Signature", "")):
        abort(403)
    queue.enqueue(apply, request.form.to_dict())
    return "", 204


def apply(told: dict[str, str]) -> None:
    """The job: load the conference, change it as one callback tells, save and publish it."""
    key = f"conference:{told['ConferenceSid']}"
    saved: Any = redis.get(key)
    new = {"sid": told["ConferenceSid"], "status": "init", "participants": {}}
    conference: dict[str, Any] = json.loads(saved) if saved else new
    event = told["StatusCallbackEvent"]
    conference["friendly_name"] = told["FriendlyName"]
    conference["updated_at"] = told["Timestamp"]
    if event == "conference-start":
        conference["status"] = "in-progress"
    elif event == "conference-end":
        conference["status"] = "completed"
        conference["reason_conference_ended"] = told["ReasonConferenceEnded"]
    if "CallSid" in told:
        participant = conference["participants"].setdefault(told["CallSid"], {"call_sid": told["CallSid"]})
        participant["label"] = told.get("ParticipantLabel")
        participant |= {name: told[flag] == "true" for flag, name in FLAGS.items()}
        if event == "participant-join":
            participant["joined_at"] = told["Timestamp"]
        elif event == "participant-leave":
            participant["left_at"] = told["Timestamp"]
        elif event.startswith("participant-speech"):
            participant["speaking"] = event == "participant-speech-start"
    document = json.dumps(conference)
    redis.set(key, document)
    redis.publish("conferences", json.dumps({"event": event, "conference": conference}))


if __name__ == "__main__":
    SimpleWorker([queue], connection=redis, log_job_description=False).work(logging_level="WARNING")
