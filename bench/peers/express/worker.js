// The jobs, as flask_rq.py has them: load the conference, change it as one callback tells, save and publish it. Fifty at a
// time, so that one waits for Redis while another is worked on. As there, nothing is held against it but its speed: two
// jobs may change the same conference at once, and callbacks are taken as they come.
import { Worker } from "bullmq";
import { connect } from "./redis.js";

const CONCURRENCY = 50;
const FLAGS = {
  Muted: "muted",
  Hold: "hold",
  Coaching: "coaching",
  StartConferenceOnEnter: "start_conference_on_enter",
  EndConferenceOnExit: "end_conference_on_exit",
};

const redis = connect();

async function apply({ data: told }) {
  const key = `conference:${told.ConferenceSid}`;
  const saved = await redis.get(key);
  const conference = saved ? JSON.parse(saved) : { sid: told.ConferenceSid, status: "init", participants: {} };
  const event = told.StatusCallbackEvent;
  conference.friendly_name = told.FriendlyName;
  conference.updated_at = told.Timestamp;
  if (event === "conference-start") {
    conference.status = "in-progress";
  } else if (event === "conference-end") {
    conference.status = "completed";
    conference.reason_conference_ended = told.ReasonConferenceEnded;
  }
  if (told.CallSid) {
    const participant = (conference.participants[told.CallSid] ??= { call_sid: told.CallSid });
    participant.label = told.ParticipantLabel ?? null;
    for (const [flag, name] of Object.entries(FLAGS)) participant[name] = told[flag] === "true";
    if (event === "participant-join") {
      participant.joined_at = told.Timestamp;
    } else if (event === "participant-leave") {
      participant.left_at = told.Timestamp;
    } else if (event.startsWith("participant-speech")) {
      participant.speaking = event === "participant-speech-start";
    }
  }
  await redis.set(key, JSON.stringify(conference));
  await redis.publish("conferences", JSON.stringify({ event, conference }));
}

new Worker("callbacks", apply, { connection: connect({ maxRetriesPerRequest: null }), concurrency: CONCURRENCY });
