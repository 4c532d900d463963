// The view of one conference: who is in it and what can be done, what happened when, and how complete the picture is.

import { Component, html } from '../vendor/preact.js';
import { Alerts } from './alerts.js';
import { isOpen, OUTCOMES, reconcile, send, wish } from './control.js';
import { drawn, Known, Legend, Mark } from './known.js';
import { Elapsed, Icon } from './parts.js';
import { Timeline } from './timeline.js';
import { dateOf, duration, isComing, isHere, isWaiting, kindOf, lead, nameOf, people, shortened, sinceOf, tellingOf, timeOf, titleOf, wordsFor } from './words.js';

const EVENTS_AT_ONCE = 50;
const SOONEST = 1000; // ms between two readings of what the log tells
const AGAIN = 3000; // ms after one that failed
const COSTS = 10; // and that many times as long as the last reading took, so that long logs are read seldom

export class ConferencePage extends Component {
  constructor() {
    super();
    this.state = { read: null, timeline: null, events: [], first: null, problem: null, dialog: null, told: null, until: null };
    this.ask = (dialog) => this.setState({ dialog, told: null, until: null });
  }

  componentDidMount() {
    if (!this.props.document) this.readDocument();
    else this.readLater();
  }

  componentDidUpdate(before) {
    const now = this.document;
    if (now) document.title = `${titleOf(now)} – Offhook`;
    if (this.props.document && before.document !== this.props.document) this.readLater();
    if (before.document && !this.props.document) this.readDocument(); // it has ended unseen, or long ago
  }

  componentWillUnmount() {
    clearTimeout(this.later);
    this.gone = true;
  }

  get document() {
    const { document } = this.props;
    const { read } = this.state;
    for (const each of [document, read]) {
      if (each && !(this.last && this.last.revision > each.revision)) this.last = each;
    }
    return this.last;
  }

  async fetched(path) {
    const answer = await fetch(`/api/conferences/${encodeURIComponent(this.props.sid)}${path}`).catch(() => null);
    if (this.gone) return null;
    const told = answer && (await answer.json().catch(() => null));
    if (answer && answer.ok && told) {
      this.setState({ problem: null });
      return told;
    }
    this.refused = Boolean(told) && answer.status < 500;
    this.setState({ problem: this.refused ? told.message : 'Offhook does not answer; what is below may be old.' });
    return null;
  }

  async readDocument() {
    const read = await this.fetched('');
    if (read) this.setState({ read }, () => this.readLater());
    else if (!this.gone && !this.refused) setTimeout(() => this.readDocument(), AGAIN);
  }

  // The picture and the list are read again soon after a change, but never so often that reading is all there is.
  readLater() {
    if (this.later || this.gone) return;
    const wait = Math.max(0, (this.next || 0) - performance.now());
    this.later = setTimeout(async () => {
      const began = performance.now();
      const heard = this.document && this.document.revision;
      const done = await this.readLog();
      this.next = performance.now() + Math.max(done ? SOONEST : AGAIN, COSTS * (performance.now() - began));
      this.later = null;
      if (!done || (this.document && this.document.revision > heard)) this.readLater();
    }, wait);
  }

  async readLog() {
    const timeline = await this.fetched('/timeline');
    if (!timeline) return this.refused;
    this.setState({ timeline });
    const { events } = this.state;
    const first = this.state.first ?? Math.max(0, timeline.events - EVENTS_AT_ONCE);
    const after = events.length ? events[events.length - 1].number : first;
    const page = await this.fetched(`/events?after=${after}&limit=500`);
    if (page) this.setState({ first, events: [...this.state.events.filter((each) => each.number <= after), ...page.events] });
    return page ? page.next === null : this.refused;
  }

  async readOlder() {
    const first = Math.max(0, this.state.first - EVENTS_AT_ONCE);
    const page = await this.fetched(`/events?after=${first}&limit=${this.state.first - first}`);
    if (page && first < this.state.first) this.setState({ first, events: [...page.events, ...this.state.events] });
  }

  async carryOut(method, part, fields, what) {
    this.setState({ told: `${what}: sent…`, wrong: false, until: null });
    const refused = await send(method, this.document, part, fields);
    if (!this.gone) this.setState({ told: refused ? `${what}: ${refused}` : null, wrong: Boolean(refused) });
  }

  async reconcile() {
    const { sid, asked_at: asked } = this.document;
    this.setState({ told: 'Reconcile: sent…', wrong: false, until: null });
    const refused = await reconcile(sid);
    if (this.gone) return;
    if (refused) this.setState({ told: `Reconcile: ${refused}`, wrong: true });
    else this.setState({ told: 'Twilio is to be looked at.', until: { asked } });
  }

  render({ control, sid }, { timeline, events, first, problem, dialog, told, wrong, until }) {
    const conference = this.document;
    if (!conference) {
      return html`<p><a class="back" href="/"><${Icon} name="back" />All conferences</a></p>
        <h1 tabindex="-1">${this.refused ? 'No such conference' : 'Looking…'}</h1>
        <p class="nothing">${problem || sid}</p>`;
    }
    const live = conference.status !== 'completed';
    const may = control && live;
    const act = (...words) => this.carryOut(...words);
    return html`
      <p><a class="back" href="/"><${Icon} name="back" />All conferences</a></p>
      <${Heading} conference=${conference} may=${may} ask=${this.ask} />
      ${problem && html`<p class="banner" role="alert">${problem}</p>`}
      <p class=${wrong ? 'told wrong' : 'told'} role="status">${until && until.asked !== conference.asked_at ? null : told}</p>
      <${Alerts} conferences=${[conference]} />
      <${Known} conference=${conference} reconcile=${control && (() => this.reconcile())} />
      <section aria-labelledby="people"><h2 id="people">People</h2>
        <${Roster} conference=${conference} may=${may} act=${act} ask=${this.ask} /></section>
      <section aria-labelledby="timeline"><h2 id="timeline">Timeline</h2>
        <${Timeline} timeline=${timeline} participants=${conference.participants} /></section>
      ${conference.actions.length > 0 && html`<section aria-labelledby="requests"><h2 id="requests">Control requests</h2><${Requests} conference=${conference} /></section>`}
      ${conference.recordings.length > 0 && html`<section aria-labelledby="recordings"><h2 id="recordings">Recordings</h2><${Recordings} recordings=${conference.recordings} /></section>`}
      <section aria-labelledby="events"><h2 id="events">Events</h2>
        <${Events} events=${events} conference=${conference} older=${first > 0 && (() => this.readOlder())} /></section>
      ${dialog && html`<${Dialog} ...${dialog} close=${() => this.setState({ dialog: null })} act=${act} />`}
    `;
  }
}

function Heading({ conference, may, ask }) {
  const { coverage } = conference;
  const start = conference.started_at ? 'started_at' : 'created_at';
  const began = conference[start];
  const words = { init: 'Not started', 'in-progress': isWaiting(conference) ? 'Waiting to start' : 'In progress', completed: 'Ended' };
  const lasted = conference.ended_at && began && duration(Date.parse(conference.ended_at) - Date.parse(began));
  return html`<div class="heading">
    <h1 tabindex="-1">${titleOf(conference)}</h1>
    <span class=${`badge ${conference.status}`}>${words[conference.status]}<${Mark} of=${coverage} fields=${['status']} /></span>
    ${conference.status === 'completed' ? html`<span class="elapsed">${lasted}</span>` : began && html`<${Elapsed} since=${began} />`}
    ${may && html`<div class="commands">
      <button onClick=${() => ask({ kind: 'announce', part: [], what: 'Announce to all' })}>Announce…</button>
      <button class="grave" onClick=${() => ask({ kind: 'end', part: [], what: 'End the conference', whom: people(conference.counts.present) })}>End…</button>
    </div>`}
    <dl class="facts">
      <div><dt>Here</dt><dd>${conference.counts.present} of ${conference.counts.participants}</dd></div>
      <div><dt>Began</dt><dd>${dateOf(began)}<${Mark} of=${coverage} fields=${[start]} /></dd></div>
      ${conference.ended_at && html`<div><dt>Ended</dt><dd>${dateOf(conference.ended_at)}${conference.reason_conference_ended && `, ${conference.reason_conference_ended}`}<${Mark} of=${coverage} fields=${['ended_at', 'reason_conference_ended']} /></dd></div>`}
      ${conference.region && html`<div><dt>Region</dt><dd>${conference.region}</dd></div>`}
      <div><dt>Conference</dt><dd><code>${conference.sid}</code></dd></div>
      <div><dt>Account</dt><dd><code>${conference.account_sid}</code></dd></div>
    </dl>
  </div>`;
}

function Roster({ conference, may, act, ask }) {
  const sorted = [...conference.participants].sort((a, b) => place(a) - place(b));
  if (!sorted.length) return html`<p class="nothing">Nobody has been heard of yet.</p>`;
  return html`<ul class="roster">
    <li class="head" aria-hidden="true"><span>Here for</span><span>Spoke</span><span>On hold</span><span>Muted</span></li>
    ${sorted.map((each) => html`<${Row} key=${each.call_sid} ...${{ participant: each, conference, may, act, ask }} />`)}
  </ul>
  <${Legend} participants=${sorted} />`;
}

function place(participant) {
  return isHere(participant) ? 0 : isComing(participant) ? 1 : 2;
}

function Row({ participant, conference, may, act, ask }) {
  const here = isHere(participant);
  const state = lead(participant, conference);
  const since = sinceOf(participant, conference);
  const open = conference.actions.filter((each) => each.call_sid === participant.call_sid && isOpen(each));
  const part = ['Participants', participant.call_sid];
  const name = nameOf(participant);
  const toggle = (field, on, word) => {
    const waits = open.find((each) => each.awaits.some((word) => word.startsWith(`${field.toLowerCase()}=`)));
    return html`<button aria-label=${`${word} ${name}`} disabled=${Boolean(waits)} onClick=${() => act('POST', part, { [field]: String(on) }, `${word} ${name}`)}>
      ${waits ? html`<span class="waits">${word}</span>` : word}</button>`;
  };
  return html`<li class=${`participant is-${state}`}>
    <${Icon} name=${state} />
    <div class="who"><b>${name}<${Mark} of=${participant} fields=${['label']} /></b><code>${participant.call_sid}</code></div>
    <div class="how">${wordsFor(participant, conference)}${since && html` <${Elapsed} since=${since} />`}<${Mark} of=${participant} fields=${drawn(participant)} />
      ${participant.reason_left && html`<small>${participant.reason_left.replaceAll('_', ' ')}<${Mark} of=${participant} fields=${['reason_left']} /></small>`}
      ${participant.gone_at && html`<small>not listed by Twilio any more</small>`}</div>
    <dl class="sums">
      <div><dt>${here ? 'Here for' : 'Was here'}</dt><dd>${stayed(participant)}</dd></div>
      <${Sum} word="Spoke" of=${participant} field="talk_seconds" told=${participant.speaking !== null} since=${participant.speaking_since} />
      <${Sum} word="On hold" of=${participant} field="hold_seconds" told=${participant.hold !== null} since=${participant.hold_since} />
      <${Sum} word="Muted" of=${participant} field="muted_seconds" told=${participant.muted !== null} since=${participant.muted_since} />
    </dl>
    ${may && here && html`<div class="commands">
      ${participant.muted !== true && toggle('Muted', true, 'Mute')}
      ${participant.muted !== false && toggle('Muted', false, 'Unmute')}
      ${participant.hold !== true && toggle('Hold', true, 'Hold')}
      ${participant.hold !== false && toggle('Hold', false, 'Resume')}
      <button class="grave" aria-label=${`Remove ${name}…`} onClick=${() => ask({ kind: 'remove', part, what: `Remove ${name}`, whom: name })}>Remove…</button>
    </div>`}
    ${open.length > 0 && html`<p class="open" role="status">${open.map((each) => `${wish(each)}: ${OUTCOMES[each.state]}…`).join(' ')}</p>`}
  </li>`;
}

// `told`: whether anybody has told at all. What nobody has told is not nought.
function Sum({ word, of, field, told, since }) {
  const total = of[field] || 0;
  if (!since && !told && !total) return html`<div><dt>${word}</dt><dd>${notTold()}</dd></div>`;
  return html`<div><dt>${word}</dt><dd><${Mark} of=${of} fields=${[field]} />${since ? html`<${Elapsed} since=${since} more=${total} />` : duration(total * 1000)}</dd></div>`;
}

function notTold() {
  return html`<span class="untold">not told</span>`;
}

// How long somebody who is here has been, and how long in all who has gone, as far as their times are known.
function stayed(participant) {
  const here = isHere(participant);
  const told = participant.stays.filter((each) => each.joined_at && (here || each.left_at));
  const latest = told[told.length - 1];
  if (!latest || (here && latest !== participant.stays[participant.stays.length - 1])) return notTold();
  const sum = told.reduce((total, each) => total + Date.parse(each.left_at) - Date.parse(each.joined_at), 0);
  return html`<${Mark} of=${participant} fields=${here ? ['stays'] : ['stays', 'joined_at', 'left_at']} />
    ${here ? html`<${Elapsed} since=${latest.joined_at} />` : duration(sum)}`;
}

function Requests({ conference }) {
  const names = new Map(conference.participants.map((each) => [each.call_sid, nameOf(each)]));
  return html`<ul class="requests">
    ${[...conference.actions].reverse().map((each) => html`<li key=${each.id}>
      <span class=${`outcome ${each.state}`}>${OUTCOMES[each.state]}</span>
      <b>${wish(each)}</b>
      <span>${names.get(each.call_sid) || ''}</span>
      <span class="quiet">by ${each.by}, ${timeOf(each.requested_at)}${each.status && each.status >= 300 ? `, Twilio answered ${each.status}` : ''}${each.error ? `, ${each.error}` : ''}</span>
    </li>`)}
  </ul>`;
}

function Recordings({ recordings }) {
  return html`<ul class="requests">
    ${recordings.map((each) => html`<li key=${each.sid}>
      <span class=${`outcome ${each.status}`}>${each.status === 'in-progress' ? 'recording' : each.status}</span>
      <code>${each.sid}</code>
      <span class="quiet">${each.duration === null ? '' : duration(each.duration * 1000)}</span>
    </li>`)}
  </ul>`;
}

function Events({ events, conference, older }) {
  const names = new Map(conference.participants.map((each) => [each.call_sid, nameOf(each)]));
  return html`<div class="events">
    <ol reversed>
      ${[...events].reverse().map((each) => html`<li key=${each.number}>
        <details>
          <summary>
            <time dateTime=${each.at || each.received_at}>${timeOf(each.at || each.received_at)}</time>
            <span class="number">${each.sequence === null ? '' : `#${each.sequence}`}</span>
            <${Telling} event=${each} names=${names} />
          </summary>
          <dl class="parameters">
            <div><dt>received</dt><dd>${dateOf(each.received_at)}, verified by ${each.verified_by}</dd></div>
            ${Object.entries(each.parameters).map(([name, value]) => html`<div><dt>${name}</dt><dd>${typeof value === 'string' ? value : JSON.stringify(value)}</dd></div>`)}
          </dl>
        </details>
      </li>`)}
    </ol>
    ${older && html`<button class="plain" onClick=${older}>Earlier events</button>`}
  </div>`;
}

// What an event was, and whom it was about; of our own looks and alerts also why, and what they tell.
function Telling({ event, names }) {
  const [why, told, subject] = tellingOf(event);
  const whom = names.get(subject || event.call_sid) || (subject?.startsWith('CA') ? shortened(subject) : '');
  return html`<span class="what">${kindOf(event)}${why && html`<span class="quiet">: ${why}</span>`}</span>
    <span class=${told ? 'about telling' : 'about'}>${whom}${told && html`<span class="quiet">${whom && ' '}${told}</span>`}</span>`;
}

// Asks once more before what cannot be taken back, and for the address of an announcement.
class Dialog extends Component {
  componentDidMount() {
    this.base.showModal();
  }

  // Closed by the browser in each case: it gives the focus back to the button that asked.
  render({ kind, part, what, whom, close, act }) {
    const submit = (event) => {
      event.preventDefault();
      this.base.close();
      if (kind === 'announce') act('POST', part, { AnnounceUrl: event.target.url.value }, what);
      else if (kind === 'end') act('POST', part, { Status: 'completed' }, what);
      else act('DELETE', part, {}, what);
    };
    return html`<dialog aria-labelledby="question" onClose=${close}>
      <form onSubmit=${submit}>
        <h2 id="question">${kind === 'announce' ? what : `${what}?`}</h2>
        ${kind === 'end' && html`<p>${whom} will be cut off.</p>`}
        ${kind === 'remove' && html`<p>The call leaves the conference, and goes on with what its TwiML says next.</p>`}
        ${kind === 'announce' && html`<label>Address of TwiML or audio that Twilio fetches<input name="url" type="url" required placeholder="https://example.com/announcement.xml" autocomplete="off" /></label>`}
        <div class="commands">
          <button type="button" class="plain" onClick=${() => this.base.close()}>Cancel</button>
          <button type="submit" class=${kind === 'announce' ? 'chief' : 'chief grave'}>${kind === 'announce' ? 'Announce' : what}</button>
        </div>
      </form>
    </dialog>`;
  }
}
