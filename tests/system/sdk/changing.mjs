// What the SDK for Node changes through Offhook: Twilio does it, and its callbacks confirm it.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import twilio from "twilio";
import { action, awaited, client, document, meetNextWith, requestsAtTwilio, stage } from "./stage.mjs";

const WEBHOOK = `${stage.offhook}/webhooks/twilio`;
const EVENTS = ["start", "end", "join", "leave", "mute", "hold", "modify", "announcement"];
const SOUND = "https://sounds.example.com/one.mp3";
const operator = client(stage.account.sid, stage.account.token);
let shows = 0;
let conference, guest, host;

function dial(room, more) {
  return operator.conferences(room).participants.create({
    from: "+12065550100",
    to: "+12065550101",
    conferenceStatusCallback: WEBHOOK,
    conferenceStatusCallbackEvent: EVENTS,
    ...more,
  });
}

/** Dial two into a conference that is made by it, and wait until they are told to be there. */
async function onAir(more) {
  const name = `Show of Node's ${++shows}`;
  host = await dial(name, { label: "host", ...more });
  guest = await dial(name, { label: "guest", ...more });
  const two = async () => JSON.stringify((await document(host.conferenceSid))?.coverage.sequences) === "[[1,3]]";
  await awaited("two on air", two);
  conference = operator.conferences(host.conferenceSid);
}

beforeEach(() => onAir());

const confirmed = (verb) => action(host.conferenceSid, verb, "confirmed");

test("a participant is dialled, joins and is confirmed", async () => {
  const late = await dial(host.conferenceSid, {
    label: stage.roundTheCorner,
    statusCallback: WEBHOOK,
    statusCallbackEvent: ["initiated", "ringing", "answered", "completed"],
  });
  assert.deepEqual([late.status, late.queueTime, late.label], ["queued", "0", stage.roundTheCorner]);
  assert.equal((await confirmed("add-participant")).call_sid, late.callSid);
  const joined = await conference.participants(encodeURIComponent(stage.roundTheCorner)).fetch();
  assert.deepEqual([joined.callSid, joined.status, joined.queueTime], [late.callSid, "connected", "0"]);
});

test("who is not dialled yet is queued", async () => {
  await meetNextWith({ ignore: true });
  const late = await dial("Show of Node's that never is", { label: "late" });
  await awaited("the participant", () => document(late.conferenceSid));
  const queued = await operator.conferences(late.conferenceSid).participants("late").fetch();
  assert.deepEqual([queued.callSid, queued.status, queued.queueTime], [late.callSid, "queued", "0"]);
});

const CHANGES = {
  muted: [{ muted: true }, ["muted=true"]],
  hold: [{ hold: true, holdUrl: SOUND, holdMethod: "GET" }, ["hold=true"]],
  end: [{ endConferenceOnExit: true }, ["end_conference_on_exit=true"]],
  announcement: [{ announceUrl: SOUND }, [`announcement-end ${SOUND}`]],
  "wait url": [{ waitUrl: SOUND }, ["participant-modify"]],
  beep: [{ beepOnExit: false }, ["participant-modify"]],
};

for (const [name, [asked, told]] of Object.entries(CHANGES)) {
  test(`a change of ${name} is confirmed by its callback`, async () => {
    const answer = await conference.participants("guest").update(asked);
    assert.equal(answer.callSid, guest.callSid);
    assert.deepEqual((await confirmed("update-participant")).told, told);
    const now = await conference.participants(guest.callSid).fetch();
    for (const flag of ["muted", "hold", "endConferenceOnExit"]) assert.equal(now[flag], asked[flag] ?? false);
  });
}

test("whom someone coaches is known from Twilio's answer", async () => {
  await conference.participants("host").update({ coaching: true, callSidToCoach: guest.callSid });
  await confirmed("update-participant");
  const coach = await conference.participants(host.callSid).fetch();
  assert.deepEqual([coach.coaching, coach.callSidToCoach], [true, guest.callSid]);
});

test("who is removed is gone, and the conference goes on", async () => {
  assert.equal(await conference.participants("guest").remove(), true);
  await confirmed("remove-participant");
  await assert.rejects(conference.participants(guest.callSid).fetch(), failed(404, 20404));
  assert.equal((await conference.fetch()).status, "in-progress");
});

test("a conference is announced to and ended, and its participants stay to be read", async () => {
  await conference.update({ announceUrl: SOUND });
  assert.deepEqual((await confirmed("update-conference")).told, [`announcement-end ${SOUND}`]);
  assert.equal((await conference.update({ status: "completed" })).status, "completed");
  await awaited("its end", async () => (await conference.fetch()).status === "completed");
  assert.deepEqual((await confirmed("update-conference")).told, ["conference-end"]);
  const statuses = (await conference.participants.list()).map((each) => each.status);
  assert.deepEqual(statuses, ["complete", "complete"]);
});

test("a recording is paused, stopped and deleted", async () => {
  await onAir({
    conferenceRecord: "record-from-start",
    conferenceRecordingStatusCallback: WEBHOOK,
    conferenceRecordingStatusCallbackEvent: ["in-progress", "completed"],
  });
  const running = await awaited("the recording", async () => (await conference.recordings.list())[0]);
  const paused = await conference.recordings("Twilio.CURRENT").update({ status: "paused", pauseBehavior: "skip" });
  assert.deepEqual([paused.sid, paused.status], [running.sid, "paused"]);
  assert.equal((await conference.recordings(running.sid).update({ status: "stopped" })).status, "stopped");
  assert.equal((await confirmed("update-recording")).recording_sid, running.sid);
  assert.equal(await conference.recordings(running.sid).remove(), true);
  assert.equal((await action(host.conferenceSid, "delete-recording", "accepted")).status, 204);
});

for (const [status, code] of [[429, 20429], [500, 20500]]) {
  test(`Twilio's ${status} comes back, and nothing was done`, async () => {
    const before = await requestsAtTwilio();
    await meetNextWith({ status });
    await assert.rejects(conference.participants("guest").update({ muted: true }), failed(status, code));
    assert.equal((await requestsAtTwilio()).POST, before.POST + 1);
    assert.equal((await action(host.conferenceSid, "update-participant", "failed")).code, code);
    assert.equal((await conference.participants("guest").fetch()).muted, false);
  });
}

test("a slow answer is waited for", async () => {
  await meetNextWith({ delay: 1 });
  assert.equal((await conference.participants("guest").update({ muted: true })).muted, true);
  await confirmed("update-participant");
});

test("what Twilio only says it did is not shown as done", async () => {
  await meetNextWith({ ignore: true });
  assert.equal((await conference.participants("guest").update({ muted: true })).muted, true);
  await action(host.conferenceSid, "update-participant", "accepted");
  assert.equal((await conference.participants("guest").fetch()).muted, false);
});

test("a key with control changes, and one that only reads is forbidden to", async () => {
  const { desk, wallboard, account } = stage;
  const reading = client(wallboard.name, wallboard.secret, account.sid).conferences(host.conferenceSid);
  const before = await requestsAtTwilio();
  await assert.rejects(reading.participants("guest").update({ muted: true }), failed(403, 20003));
  await assert.rejects(reading.update({ status: "completed" }), failed(403, 20003));
  assert.deepEqual(await requestsAtTwilio(), before);
  const changing = client(desk.name, desk.secret, account.sid).conferences(host.conferenceSid);
  await changing.participants("guest").update({ muted: true });
  assert.equal((await confirmed("update-participant")).by, desk.name);
});

function failed(status, code) {
  return (error) => error instanceof twilio.RestException && error.status === status && error.code === code;
}
