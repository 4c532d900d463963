// The view of one conference: who is in it and what can be done, what happened when, and how complete the picture is.

import { Component, html } from '../vendor/preact.js';
import { isOpen, OUTCOMES, send, wish } from './control.js';
import { Elapsed, Icon } from './parts.js';
import { Timeline } from './timeline.js';
import { dateOf, duration, isComing, isHere, isWaiting, kindOf, lead, nameOf, people, sinceOf, SUBSCRIPTIONS, timeOf, titleOf, wordsFor } from './words.js';

const EVENTS_AT_ONCE = 50;
const SOONEST = 1000; // ms between two readings of what the log tells
const AGAIN = 3000; // ms after one that failed
const COSTS = 10; // and that many times as long as the last reading took, so that long logs are read seldom

export class ConferencePage extends Component {
  constructor() {
    super();
    this.state = { read: null, timeline: null, events: [], first: null, problem: null, dialog: null, told: null };
    this.ask = (dialog) => this.setState({ dialog, told: null });
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
    this.setState({ told: `${what}: sent…`, wrong: false });
    const refused = await send(method, this.document, part, fields);
    if (!this.gone) this.setState({ told: refused ? `${what}: ${refused}` : null, wrong: Boolean(refused) });
  }

  render({ control, sid }, { timeline, events, first, problem, dialog, told, wrong }) {
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
      <p class=${wrong ? 'told wrong' : 'told'} role="status">${told}</p>
      <${Coverage} conference=${conference} />
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
  const began = conference.started_at || conference.created_at;
  const words = { init: 'Not started', 'in-progress': isWaiting(conference) ? 'Waiting to start' : 'In progress', completed: 'Ended' };
  const lasted = conference.ended_at && began && duration(Date.parse(conference.ended_at) - Date.parse(began));
  return html`<div class="heading">
    <h1 tabindex="-1">${titleOf(conference)}</h1>
    <span class=${`badge ${conference.status}`}>${words[conference.status]}</span>
    ${conference.status === 'completed' ? html`<span class="elapsed">${lasted}</span>` : began && html`<${Elapsed} since=${began} />`}
    ${may && html`<div class="commands">
      <button onClick=${() => ask({ kind: 'announce', part: [], what: 'Announce to all' })}>Announce…</button>
      <button class="grave" onClick=${() => ask({ kind: 'end', part: [], what: 'End the conference', whom: people(conference.counts.present) })}>End…</button>
    </div>`}
    <dl class="facts">
      <div><dt>Here</dt><dd>${conference.counts.present} of ${conference.counts.participants}</dd></div>
      <div><dt>Began</dt><dd>${dateOf(began)}</dd></div>
      ${conference.ended_at && html`<div><dt>Ended</dt><dd>${dateOf(conference.ended_at)}${conference.reason_conference_ended && `, ${conference.reason_conference_ended}`}</dd></div>`}
      ${conference.region && html`<div><dt>Region</dt><dd>${conference.region}</dd></div>`}
      <div><dt>Conference</dt><dd><code>${conference.sid}</code></dd></div>
      <div><dt>Account</dt><dd><code>${conference.account_sid}</code></dd></div>
    </dl>
  </div>`;
}

// How complete the picture is: what was never told, and what is known to be missing.
function Coverage({ conference }) {
  const { coverage } = conference;
  const heard = new Set(coverage.events);
  const ended = conference.status === 'completed';
  const unheard = Object.keys(SUBSCRIPTIONS).filter((word) => (ended || word !== 'end') && !SUBSCRIPTIONS[word].some((kind) => heard.has(kind)));
  const aside = conference.set_aside?.length ?? 0;
  const holes = coverage.holes.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`));
  return html`
    ${coverage.missing > 0 && html`<p class="notice holes">
      <b>${coverage.missing === 1 ? 'One callback has' : `${coverage.missing} callbacks have`} not arrived</b>${holes.length > 0 && html` (number ${holes.slice(-8).join(', ')})`}.
      What ${coverage.missing === 1 ? 'it' : 'they'} told is missing from this page.</p>`}
    ${aside > 0 && html`<p class="notice holes">
      <b>${aside === 1 ? 'One callback' : `${aside} callbacks`} could not be folded</b>, and ${aside === 1 ? 'is' : 'are'} set aside.
      What ${aside === 1 ? 'it' : 'they'} told is missing from this page until ${aside === 1 ? 'it is' : 'they are'} sent again
      (<code>offhook replay --dead-letters</code>).</p>`}
    ${coverage.conflicts.length > 0 && html`<p class="notice holes">Different callbacks came under the same number (${coverage.conflicts.join(', ')}).</p>`}
    ${unheard.length > 0 && html`<details class="unheard"><summary>Not heard of so far: ${unheard.join(', ')}</summary>
      <p>They have not happened, or they happen unseen: only what is among the ${html`<code>statusCallbackEvent</code>`} of the conference’s first
      participant is ever told.</p></details>`}`;
}

function Roster({ conference, may, act, ask }) {
  const sorted = [...conference.participants].sort((a, b) => place(a) - place(b));
  if (!sorted.length) return html`<p class="nothing">Nobody has been heard of yet.</p>`;
  return html`<ul class="roster">
    <li class="head" aria-hidden="true"><span>Here for</span><span>Spoke</span><span>On hold</span><span>Muted</span></li>
    ${sorted.map((each) => html`<${Row} key=${each.call_sid} ...${{ participant: each, conference, may, act, ask }} />`)}
  </ul>`;
}

function place(participant) {
  return isHere(participant) ? 0 : isComing(participant) ? 1 : 2;
}

function Row({ participant, conference, may, act, ask }) {
  const here = isHere(participant);
  const state = lead(participant, conference);
  const since = sinceOf(participant, conference);
  const joined = participant.stays.length && participant.stays[participant.stays.length - 1].joined_at;
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
    <div class="who"><b>${name}</b><code>${participant.call_sid}</code></div>
    <div class="how">${wordsFor(participant, conference)}${since && html` <${Elapsed} since=${since} />`}
      ${participant.reason_left && html`<small>${participant.reason_left.replaceAll('_', ' ')}</small>`}</div>
    <dl class="sums">
      <div><dt>${here ? 'Here for' : 'Was here'}</dt><dd>${here && joined ? html`<${Elapsed} since=${joined} />` : stayed(participant)}</dd></div>
      <${Sum} word="Spoke" total=${participant.talk_seconds} since=${participant.speaking_since} />
      <${Sum} word="On hold" total=${participant.hold_seconds} since=${participant.hold_since} />
      <${Sum} word="Muted" total=${participant.muted_seconds} since=${participant.muted_since} />
    </dl>
    ${may && here && html`<div class="commands">
      ${participant.muted ? toggle('Muted', false, 'Unmute') : toggle('Muted', true, 'Mute')}
      ${participant.hold ? toggle('Hold', false, 'Resume') : toggle('Hold', true, 'Hold')}
      <button class="grave" aria-label=${`Remove ${name}…`} onClick=${() => ask({ kind: 'remove', part, what: `Remove ${name}`, whom: name })}>Remove…</button>
    </div>`}
    ${open.length > 0 && html`<p class="open" role="status">${open.map((each) => `${wish(each)}: ${OUTCOMES[each.state]}…`).join(' ')}</p>`}
  </li>`;
}

function Sum({ word, total, since }) {
  return html`<div><dt>${word}</dt><dd>${since ? html`<${Elapsed} since=${since} more=${total || 0} />` : total === null ? html`<span title="Nobody has told">–</span>` : duration(total * 1000)}</dd></div>`;
}

function stayed(participant) {
  const told = participant.stays.filter((each) => each.joined_at && each.left_at);
  if (!told.length) return '–';
  return duration(told.reduce((sum, each) => sum + Date.parse(each.left_at) - Date.parse(each.joined_at), 0));
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
            <span class="what">${kindOf(each)}</span>
            <span class="about">${names.get(each.call_sid) || ''}</span>
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
