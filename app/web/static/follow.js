/**
 * Follows Twilio conferences as they change: Offhook's `/api/stream` for a page or a SharedWorker.
 *
 *     import { follow } from "/static/follow.js";
 *
 *     const live = follow({ url: "/api/stream" }, {
 *       onsnapshot(conferences) { drawAll(conferences); },   // all anew: at the beginning, sometimes after a loss
 *       onchange({ conference, events }) { draw(conference); },
 *       onstate(state) { badge.textContent = state; },
 *     });
 *
 * `conference` and `account` beside `url` narrow it down to one of them, by sid.
 *
 * - `live.conferences`: a Map from sid to the whole document, as `GET /api/conferences/{sid}` shows it, of each conference
 *   that goes on. The one that was asked for by sid stays in it when it has ended. Documents are never changed in place.
 * - `onchange({ conference, events, message, gone })`: the document after the change, and what happened. One that has
 *   ended is told a last time and is not in `live.conferences` any more. `message` is the stream's, as it came. `gone`:
 *   Offhook does not know this conference any more; `conference` is what was known last, `message` is null.
 * - `live.more`: whether more go on than the snapshot could hold; those beyond come with their next change.
 * - `live.state`, and `onstate(state)` whenever that or `live.behind` changes:
 *   `connecting`; `live`; `catching up` (callbacks are stored but not told yet, for 3 s or longer); `lost` (no connection);
 *   `stale` (nothing has come for 25 s). From both it comes back by itself. `signed out`: from that by `live.open()`.
 * - `live.behind`: age in seconds of the oldest callback that is stored but not yet told; null: unknown.
 * - `live.offset`: the server's clock less this one, in milliseconds.
 * - `live.heard`: when something last came, in milliseconds of this clock; null: nothing has yet.
 * - `live.close()` ends it, `live.open()` begins again where it ended.
 */

const SILENCE = 25_000; // the server says something every ten seconds
const LOOK = 5_000; // short, because a computer that wakes up should not show old news for long
const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 30_000;
const BEHIND = 3;
const SET_ASIDE = 200; // how many that have ended are remembered: callbacks of theirs may still come
const CLOSED = 2; // EventSource's word for: it has given up

/** Begin to follow. `world` replaces the browser's EventSource, fetch, setTimeout, clearTimeout and now, for tests. */
export function follow({ url = "/api/stream", conference, account } = {}, listener = {}, world = {}) {
  const { EventSource, fetch, setTimeout, clearTimeout, now } = { ...browsers(), ...world };
  const api = url.slice(0, url.lastIndexOf("/") + 1);
  const aside = new Map(); // documents that have ended, the latest last
  const epochs = new Map();
  const reading = new Map(); // sid -> messages that have come while its document is being read
  const live = { conferences: new Map(), more: false, state: "connecting", behind: null, offset: 0, heard: null, open, close };
  let source, timer, lookedAt, lastId = "", failures = 0;

  function open() {
    close();
    failures = 0;
    say("connecting");
    connect();
  }

  function close() {
    source?.close();
    source = undefined;
    clearTimeout(timer);
    if (reading.size) lastId = ""; // what is being read would be missing
    reading.clear();
  }

  function connect() {
    source?.close();
    clearTimeout(timer);
    lookedAt = now();
    const given = { conference, account, last_event_id: lastId };
    const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value)).toString();
    const opened = (source = new EventSource(query ? `${url}?${query}` : url));
    for (const [name, take] of Object.entries({ snapshot, change, beat, reset })) {
      opened.addEventListener(name, (event) => {
        if (opened !== source) return;
        live.heard = lookedAt = now();
        failures = 0;
        lastId = event.lastEventId;
        take(JSON.parse(event.data));
      });
    }
    opened.onerror = () => {
      if (opened !== source) return;
      say("lost");
      if (opened.readyState === CLOSED) again(opened); // otherwise the browser itself connects again
    };
    timer = setTimeout(look, LOOK);
  }

  function look() {
    timer = setTimeout(look, LOOK);
    if (Math.abs(now() - lookedAt) <= SILENCE) return; // clocks are set back, too
    if (live.state !== "lost") say("stale");
    connect();
  }

  /** An HTTP error: EventSource does not tell which. */
  async function again(closed) {
    const answer = await fetch(`${api}conferences?limit=1`, { cache: "no-store" }).catch(() => null);
    if (closed !== source) return;
    if (answer?.status === 401) {
      close();
      say("signed out");
      return;
    }
    clearTimeout(timer);
    timer = setTimeout(connect, Math.min(FIRST_WAIT * 2 ** failures++, LONGEST_WAIT) * (0.5 + Math.random() / 2));
  }

  function snapshot({ conferences, more }) {
    live.more = more;
    reading.clear();
    live.conferences.clear();
    conferences.forEach(hold);
    listener.onsnapshot?.(live.conferences);
  }

  function change(message) {
    const { conference_sid: sid, epoch, revision } = message;
    if (reading.has(sid)) {
      reading.get(sid).push(message);
      return;
    }
    if ((epochs.get(sid) ?? epoch) !== epoch) drop(sid); // Redis was emptied
    const known = held(sid)?.revision ?? 0;
    if (revision <= known) return;
    if (revision === known + 1) tell(merged(held(sid), message), message);
    else read(message, [], FIRST_WAIT);
  }

  function beat({ at, behind }) {
    live.offset = Date.parse(at) - now();
    say(behind === null || behind > BEHIND ? "catching up" : "live", behind);
  }

  function reset() {
    aside.clear();
    epochs.clear();
  }

  /** The message does not follow on what is held: read the document instead, until that has been answered. */
  async function read(message, waiting, wait) {
    const sid = message.conference_sid;
    reading.set(sid, waiting);
    const answer = await fetch(`${api}conferences/${sid}`, { cache: "no-store" }).catch(() => null);
    const document = answer?.ok ? await answer.json().catch(() => null) : null;
    if (reading.get(sid) !== waiting) return; // a snapshot has come, or it was closed
    if (document) {
      reading.delete(sid);
      if (document.revision > (held(sid)?.revision ?? 0)) tell(document, message);
      waiting.forEach(change);
    } else if (answer?.status === 404) {
      reading.delete(sid);
      const last = held(sid);
      drop(sid);
      if (last) listener.onchange?.({ conference: last, events: [], message: null, gone: true });
    } else {
      const retry = () => reading.get(sid) === waiting && read(message, waiting, Math.min(wait * 2, LONGEST_WAIT));
      setTimeout(retry, wait);
    }
  }

  function tell(document, message) {
    hold(document);
    epochs.set(document.sid, message.epoch);
    listener.onchange?.({ conference: document, events: message.events, message, gone: false });
  }

  function held(sid) {
    return live.conferences.get(sid) ?? aside.get(sid);
  }

  function hold(document) {
    drop(document.sid, [aside]);
    if (conference || document.status !== "completed") live.conferences.set(document.sid, document);
    else {
      live.conferences.delete(document.sid);
      setAside(document);
    }
  }

  function setAside(document) {
    aside.set(document.sid, document);
    if (aside.size > SET_ASIDE) drop(aside.keys().next().value);
  }

  function drop(sid, from = [live.conferences, aside, epochs]) {
    for (const each of from) each.delete(sid);
  }

  function say(state, behind = null) {
    if (state === live.state && behind === live.behind) return;
    Object.assign(live, { state, behind });
    listener.onstate?.(state);
  }

  connect();
  return live;
}

/** The document after a message: another header, the participants that are listed replaced, the others as before. */
function merged(held, message) {
  const people = new Map([...(held?.participants ?? []), ...message.participants].map((each) => [each.call_sid, each]));
  const participants = [...people.values()].sort((a, b) => (seniority(a) < seniority(b) ? -1 : 1));
  return { ...message.conference, participants };
}

function seniority({ created_at: created, call_sid: sid }) {
  return `${created === null ? 1 : 0} ${(created ?? "").replace("Z", "")} ${sid}`;
}

function browsers() {
  const { EventSource, fetch, setTimeout, clearTimeout } = globalThis;
  return { EventSource, fetch, setTimeout, clearTimeout, now: Date.now };
}
