// What the SDK for Node reads from an Offhook that has heard the cast's callbacks.

import assert from "node:assert/strict";
import { test } from "node:test";
import twilio from "twilio";
import { client, stage } from "./stage.mjs";

const { cast, home, people, recordings, rooms } = stage;
const reader = client(home.sid, home.token);
const { anna, ben, cleo } = people;

const sids = (listed) => listed.map((each) => each.sid);
const conferenceSids = (listed) => listed.map((each) => each.conferenceSid);
const calls = (listed) => listed.map((each) => each.callSid);
const fitting = (fits) => sids(cast.filter(fits));
const at = (second) => new Date(Date.UTC(2026, 10, 22, 12, 0, second));
const day = (time) => new Date(time).getUTCDate();

const THE_21ST = new Date(Date.UTC(2026, 10, 21));
const FILTERS = {
  nothing: [{}, () => true],
  "in progress": [{ status: "in-progress" }, (each) => each.status === "in-progress"],
  completed: [{ status: "completed" }, (each) => each.status === "completed"],
  init: [{ status: "init" }, () => false],
  "a name": [{ friendlyName: "Retro" }, (each) => each.name === "Retro"],
  "created on": [{ dateCreated: THE_21ST }, (each) => day(each.created) === 21],
  "created until": [{ dateCreatedBefore: THE_21ST }, (each) => day(each.created) <= 21],
  "created since": [{ dateCreatedAfter: THE_21ST }, (each) => day(each.created) >= 21],
  "updated on": [{ dateUpdated: THE_21ST }, (each) => day(each.updated) === 21],
  "updated until": [{ dateUpdatedBefore: THE_21ST }, (each) => day(each.updated) <= 21],
  "updated since": [{ dateUpdatedAfter: THE_21ST }, (each) => day(each.updated) >= 21],
  "all at once": [
    { friendlyName: "Retro", status: "completed", dateCreatedAfter: THE_21ST },
    (each) => each.sid === rooms.retros[1],
  ],
};

for (const [name, [filter, fits]] of Object.entries(FILTERS)) {
  test(`a list filtered by ${name} has what fits, the newest first`, async () => {
    assert.deepEqual(sids(await reader.conferences.list(filter)), fitting(fits));
  });
}

test("each goes through many small pages, and misses and repeats nobody", async () => {
  const found = [];
  await new Promise((resolve, reject) => {
    const done = (error) => (error ? reject(error) : resolve());
    reader.conferences.each({ pageSize: 7, callback: (each) => found.push(each.sid), done });
  });
  assert.deepEqual(found, sids(cast));
});

test("pages lead there and back, and are found again by their address", async () => {
  const pages = [];
  let page = await reader.conferences.page({ status: "completed", pageSize: 25 });
  let last;
  for (; page; page = await page.nextPage()) {
    pages.push(sids(page.instances));
    last = page;
  }
  assert.deepEqual(pages.flat(), fitting((each) => each.status === "completed"));
  assert.deepEqual(pages.map((page) => page.length), [25, 25, 13]);
  const third = await reader.conferences.getPage((await last.previousPage()).nextPageUrl);
  assert.deepEqual(sids(third.instances), pages[2]);
  const back = [];
  for (page = await last.previousPage(); page; page = await page.previousPage()) back.push(sids(page.instances));
  assert.deepEqual(back, [pages[1], pages[0]]);
});

test("a limit beyond the largest page is taken as it is", async () => {
  assert.equal((await reader.conferences.list({ limit: 5000 })).length, cast.length);
  assert.equal((await reader.conferences.list({ limit: 3 })).length, 3);
});

test("a live conference is fetched with its properties", async () => {
  const live = await reader.conferences(rooms.standUp).fetch();
  const path = `/2010-04-01/Accounts/${home.sid}/Conferences/${rooms.standUp}`;
  assert.deepEqual(live.toJSON(), {
    accountSid: home.sid,
    dateCreated: at(0),
    dateUpdated: at(20),
    apiVersion: "2010-04-01",
    friendlyName: "Stand-up",
    region: null,
    sid: rooms.standUp,
    status: "in-progress",
    uri: `${path}.json`,
    subresourceUris: { participants: `${path}/Participants.json`, recordings: `${path}/Recordings.json` },
    reasonConferenceEnded: null,
    callSidEndingConference: null,
  });
  assert.deepEqual(calls(await live.participants().list()), [cleo, ben, anna]);
});

test("an ended conference says why, and still has those who took part", async () => {
  const ended = await reader.conferences(rooms.retros[0]).fetch();
  assert.equal(ended.reasonConferenceEnded, "last-participant-left");
  assert.equal(ended.callSidEndingConference, anna);
  const [left] = await ended.participants().list();
  assert.deepEqual([left.callSid, left.label, left.status], [anna, "anna", "complete"]);
});

test("participants are listed by how they are", async () => {
  const { participants } = reader.conferences(rooms.standUp);
  assert.deepEqual(calls(await participants.list({ muted: true })), [anna]);
  assert.deepEqual(calls(await participants.list({ muted: false })), [cleo, ben]);
  assert.deepEqual(calls(await participants.list({ hold: true })), [ben]);
  assert.deepEqual(calls(await participants.list({ coaching: true })), [cleo]);
  assert.deepEqual(calls(await participants.list({ muted: true, hold: true })), []);
  assert.deepEqual(calls(await participants.list({ pageSize: 1 })), [cleo, ben, anna]);
});

test("a participant is fetched by its call and by its label", async () => {
  const { participants } = reader.conferences(rooms.standUp);
  assert.deepEqual((await participants(anna).fetch()).toJSON(), {
    accountSid: home.sid,
    callSid: anna,
    label: "anna",
    callSidToCoach: null,
    coaching: false,
    conferenceSid: rooms.standUp,
    dateCreated: at(0),
    dateUpdated: at(20),
    endConferenceOnExit: true,
    muted: true,
    hold: false,
    startConferenceOnEnter: true,
    status: "connected",
    queueTime: null,
    uri: `/2010-04-01/Accounts/${home.sid}/Conferences/${rooms.standUp}/Participants/${anna}.json`,
  });
  assert.equal((await participants("ben").fetch()).callSid, ben);
  assert.equal((await participants(encodeURIComponent(stage.roundTheCorner)).fetch()).callSid, cleo);
});

test("recordings are listed and fetched", async () => {
  const { morning, evening } = recordings;
  const ofBoard = reader.conferences(rooms.board).recordings;
  assert.deepEqual(sids(await ofBoard.list()), [evening, morning]);
  assert.deepEqual(sids(await ofBoard.list({ dateCreated: THE_21ST })), [morning]);
  assert.deepEqual(sids(await ofBoard.list({ dateCreatedBefore: THE_21ST })), [morning]);
  assert.deepEqual(sids(await ofBoard.list({ dateCreatedAfter: THE_21ST })), [evening, morning]);
  const found = await ofBoard(morning).fetch();
  assert.deepEqual([found.duration, found.channels, found.status], ["30", 1, "completed"]);
  assert.equal((await ofBoard(evening).fetch()).status, "in-progress");
});

test("insights sums up conferences", async () => {
  const { conferences } = reader.insights.v1;
  assert.deepEqual(conferenceSids(await conferences.list()), sids(cast));
  assert.deepEqual(conferenceSids(await conferences.list({ pageSize: 7 })), sids(cast));
  assert.deepEqual(conferenceSids(await conferences.list({ endReason: "last_participant_left" })), [rooms.retros[0]]);
  const recent = await conferences.list({ status: "in_progress", createdAfter: "2026-11-22T00:00:00Z" });
  assert.deepEqual(conferenceSids(recent), [rooms.retros[2], rooms.standUp]);
  const board = await conferences(rooms.board).fetch();
  assert.deepEqual([board.status, board.endReason], ["completed", "conference_ended_via_api"]);
  assert.deepEqual([board.createTime, board.endTime], [at(-86400), at(3600)]);
  assert.equal(board.durationSeconds, 90000);
});

test("insights sums up participants", async () => {
  const { conferenceParticipants } = reader.insights.v1.conferences(rooms.standUp);
  assert.deepEqual(calls(await conferenceParticipants.list()), [cleo, ben, anna]);
  assert.deepEqual(calls(await conferenceParticipants.list({ pageSize: 1 })), [cleo, ben, anna]);
  assert.deepEqual(calls(await conferenceParticipants.list({ label: "ben" })), [ben]);
  const found = await conferenceParticipants(anna).fetch({ events: "mute" });
  assert.deepEqual([found.label, found.joinTime, found.isModerator], ["anna", at(0), true]);
  assert.deepEqual(found.events, { join: [at(0).getTime()], mute: [at(20).getTime()] });
});

test("what is not there is Twilio's not found", async () => {
  const missing = [
    () => reader.conferences(rooms.nobody).fetch(),
    () => reader.conferences(rooms.nobody).participants.list(),
    () => reader.conferences(rooms.standUp).participants("nobody").fetch(),
    () => reader.conferences(rooms.standUp).recordings(recordings.morning).fetch(),
    () => reader.insights.v1.conferences(rooms.nobody).fetch(),
  ];
  for (const read of missing) await assert.rejects(read, failed(404, 20404));
  await assert.rejects(reader.conferences("Stand-up").fetch(), failed(405, 20004));
  await assert.rejects(reader.conferences.list({ status: "over" }), failed(400, 20001));
});

test("a wrong secret is Twilio's unauthorized, for lists too", async () => {
  const stranger = client(home.sid, "not-the-token");
  const { conferences, insights } = stranger;
  const refused = [
    () => conferences(rooms.standUp).fetch(),
    () => conferences.list(),
    () => insights.v1.conferences.list(),
  ];
  for (const read of refused) await assert.rejects(read, failed(401, 20003));
});

test("a parent reads its subaccount, and a key reads every account", async () => {
  for (const [name, secret] of [
    [stage.account.sid, stage.account.token],
    [stage.wallboard.name, stage.wallboard.secret],
    [stage.desk.name, stage.desk.secret],
  ]) {
    assert.deepEqual(sids(await client(name, secret, home.sid).conferences.list()), sids(cast));
  }
});

test("without the option accountSid a key is no account", () => {
  assert.throws(() => client(stage.desk.name, stage.desk.secret), /accountSid must start with AC/);
});

test("hosts come out as the document says, and edge and region can be passed over", async () => {
  const other = client(home.sid, home.token);
  for (const host of ["localhost", "127.0.0.1", "a.example.com", "a.b.example.com", "a.b.c.example.com"]) {
    assert.equal(other.getHostname(host), host);
  }
  assert.equal(other.getHostname("example.com"), "example.com.example.com");
  assert.notEqual(other.getHostname("a.b.c.d.example.com"), "a.b.c.d.example.com");
  Object.assign(other, { edge: "dublin", region: "ie1" });
  other.getHostname = (hostname) => hostname;
  assert.equal((await other.conferences(rooms.standUp).fetch()).sid, rooms.standUp);
});

test("no connection is an error of axios", async () => {
  const nowhere = client(home.sid, home.token);
  nowhere.api.baseUrl = "http://127.0.0.1:1";
  await assert.rejects(nowhere.conferences(rooms.standUp).fetch(), { isAxiosError: true });
});

function failed(status, code) {
  return (error) => error instanceof twilio.RestException && error.status === status && error.code === code;
}
