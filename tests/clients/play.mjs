// Plays scripts to follow.js in a world without browser or clock. Each line read is a script as JSON, each line written
// what came of it; test_follow_browser.py writes the ones and judges the others.

import { createInterface } from "node:readline";
import { follow } from "../../app/web/static/follow.js";

const settled = () => new Promise(setImmediate);

/** A browser's EventSource, network and clock, moved by a script's steps. */
class World {
  sources = [];
  fetched = [];
  documents = {};
  stats = 200;
  held = null; // fetches that wait to be let go
  time = Date.parse("2026-11-22T12:00:00Z");
  timers = new Map();
  made = 0;

  constructor() {
    const world = this;
    this.EventSource = class extends EventTarget {
      readyState = 1;
      constructor(url) {
        super();
        this.url = url;
        world.sources.push(this);
      }
      close() {
        this.readyState = 2;
      }
    };
  }

  fetch = async (url) => {
    this.fetched.push(url);
    if (this.held) await new Promise((letGo) => this.held.push(letGo));
    const name = url.split("/").at(-1);
    const found = name === "conferences?limit=1" ? this.stats : (this.documents[name] ?? 404);
    if (found === "unreachable") throw new TypeError("fetch failed");
    return typeof found === "number"
      ? { ok: found === 200, status: found, json: async () => ({}) }
      : { ok: true, status: 200, json: async () => structuredClone(found) };
  };

  setTimeout = (task, milliseconds) => {
    this.timers.set(++this.made, { task, at: this.time + milliseconds });
    return this.made;
  };

  clearTimeout = (number) => this.timers.delete(number);

  now = () => this.time;

  steps = {
    frame: (name, data, id) => {
      const source = this.sources.at(-1);
      if (source.readyState === 2) return;
      source.readyState = 1;
      const event = new Event(name);
      source.dispatchEvent(Object.assign(event, { data: JSON.stringify(data), lastEventId: id }));
    },
    old: (name, data, id) => {
      const event = new Event(name); // of a connection that has been given up
      this.sources.at(-2).dispatchEvent(Object.assign(event, { data: JSON.stringify(data), lastEventId: id }));
    },
    error: (readyState) => {
      const source = this.sources.at(-1);
      source.readyState = readyState;
      source.onerror(new Event("error"));
    },
    stats: (answer) => (this.stats = answer),
    documents: (documents) => Object.assign(this.documents, documents),
    hold: () => (this.held = []),
    let_go: () => {
      this.held?.forEach((letGo) => letGo());
      this.held = null;
    },
    pass: async (milliseconds) => {
      const until = this.time + milliseconds;
      for (;;) {
        const due = [...this.timers].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at)[0];
        if (!due) break;
        this.timers.delete(due[0]);
        this.time = due[1].at;
        due[1].task();
        await settled();
      }
      this.time = until;
    },
    sleep: (milliseconds) => (this.time += milliseconds), // of the computer: no timer runs
    open: () => this.live.open(),
    close: () => this.live.close(),
  };

  async play({ options, steps }) {
    const told = [];
    const sids = (conferences) => [...conferences.keys()];
    const listener = {
      onsnapshot: (conferences) => told.push(["snapshot", sids(conferences)]),
      onchange: (change) => told.push(["change", change, sids(this.live.conferences)]),
      onstate: (state) => told.push(["state", state]),
    };
    this.live = follow(options, listener, this);
    for (const [step, ...details] of steps) {
      await this.steps[step](...details);
      await settled();
    }
    const { conferences, state, behind, offset } = this.live;
    return {
      told,
      opened: this.sources.map((source) => source.url),
      open: this.sources.filter((source) => source.readyState !== 2).length,
      fetched: this.fetched,
      timers: this.timers.size,
      conferences: Object.fromEntries(conferences),
      state,
      behind,
      offset,
    };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await new World().play(JSON.parse(line))));
}
