// The view of all conferences: tallies that filter, search, a card or a row for each, and who has just ended.

import { Component, html } from '../vendor/preact.js';
import { Alerts, alertsOf, AlertSign } from './alerts.js';
import { drawn, Gap, Mark } from './known.js';
import { Elapsed, Icon, Person } from './parts.js';
import { duration, isComing, isHere, isWaiting, lead, matches, people, shortened, statesOf, timeOf, titleOf } from './words.js';

const SHOWN_AT_FIRST = 60;
const PEOPLE_ON_A_CARD = 6;
const ENDED_SHOWN = 24;

const TALLIES = { speaking: 'speaking', hold: 'on hold', muted: 'muted', coaching: 'coaching', waiting: 'waiting' };

const ORDERS = {
  steady: ['Each in its place', null],
  longest: ['Longest first', (a, b) => compare(began(a), began(b))],
  newest: ['Newest first', (a, b) => compare(began(b), began(a))],
  name: ['By name', (a, b) => titleOf(a).localeCompare(titleOf(b), undefined, { numeric: true })],
  people: ['Most people', (a, b) => b.counts.present - a.counts.present],
};

const IMPORTANCE = ['speaking', 'hold', 'coaching', 'waiting', 'coming', 'muted', 'here', 'gone'];

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

function began(conference) {
  return conference.started_at || conference.created_at || '9';
}

function has(conference, state) {
  if (state === 'waiting') return isWaiting(conference);
  return conference.counts[state] > 0;
}

export class Overview extends Component {
  constructor() {
    super();
    const asked = new URLSearchParams(location.search);
    this.state = {
      words: asked.get('q') || '',
      show: asked.get('show') || '',
      account: asked.get('account') || '',
      order: ORDERS[asked.get('sort')] ? asked.get('sort') : 'steady',
      rows: localStorage.getItem('offhook rows') === 'yes',
      most: SHOWN_AT_FIRST,
    };
    this.choose = this.choose.bind(this);
    this.places = [];
    this.sentinel = new IntersectionObserver((seen) => {
      if (seen.some((each) => each.isIntersecting)) this.setState({ most: this.state.most + SHOWN_AT_FIRST });
    }, { rootMargin: '600px' });
  }

  componentDidMount() {
    document.title = 'Offhook';
  }

  componentDidUpdate() {
    const { words, show, account, order, rows } = this.state;
    const asked = new URLSearchParams();
    if (words) asked.set('q', words);
    if (show) asked.set('show', show);
    if (account) asked.set('account', account);
    if (order !== 'steady') asked.set('sort', order);
    const query = asked.toString();
    if (location.search !== (query && `?${query}`)) history.replaceState(null, '', query ? `?${query}` : location.pathname);
    localStorage.setItem('offhook rows', rows ? 'yes' : 'no');
  }

  componentWillUnmount() {
    this.sentinel.disconnect();
  }

  choose(choice) {
    this.setState({ ...choice, most: SHOWN_AT_FIRST });
  }

  // All that go on, each where it was before: the place of one that has ended goes to the last, so that only that moves.
  placed(live) {
    if (!this.places.length) this.places = [...live.values()].sort(ORDERS.longest[1]).map((each) => each.sid);
    for (let place = this.places.length - 1; place >= 0; place -= 1) {
      if (live.has(this.places[place])) continue;
      const last = this.places.pop();
      if (place < this.places.length) this.places[place] = last;
    }
    const known = new Set(this.places);
    for (const sid of live.keys()) if (!known.has(sid)) this.places.push(sid);
    return this.places.map((sid) => live.get(sid));
  }

  render({ live, ended, more, ready }, { words, show, account, order, rows, most }) {
    const all = this.placed(live).filter((each) => !account || each.account_sid === account);
    const found = all.filter((each) => matches(each, words) && (!show || has(each, show)));
    if (ORDERS[order][1]) found.sort((a, b) => ORDERS[order][1](a, b) || compare(a.sid, b.sid));
    const accounts = [...new Set([...live.values(), ...ended.values()].map((each) => each.account_sid))].sort();
    const past = [...ended.values()]
      .filter((each) => (!account || each.account_sid === account) && matches(each, words))
      .sort((a, b) => compare(b.ended_at || '', a.ended_at || ''))
      .slice(0, ENDED_SHOWN);
    const alarmed = [...found, ...past].filter((each) => alertsOf(each).length > 0);
    const alerts = alarmed.reduce((sum, each) => sum + alertsOf(each).length, 0);
    return html`
      <h1 class="unseen" tabindex="-1">Live conferences</h1>
      <${Alerts} conferences=${alarmed} elsewhere />
      <${Tallies} conferences=${all} show=${show} choose=${this.choose} />
      <${Filters} ...${{ words, account, order, rows, accounts }} choose=${this.choose} />
      <p class="unseen" role="status">${ready && `${found.length} conferences shown${alerts ? `, ${alerts === 1 ? '1 alert' : `${alerts} alerts`}` : ''}`}</p>
      ${!ready ? html`<p class="nothing">Looking…</p>` : null}
      ${ready && found.length === 0 ? html`<${Nothing} any=${all.length} clear=${() => this.choose({ words: '', show: '', account: '' })} />` : null}
      <ul class=${rows ? 'conferences rows' : 'conferences cards'} aria-label="Live conferences">
        ${found.slice(0, most).map((each) => html`<${Card} key=${each.sid} conference=${each} account=${accounts.length > 1} />`)}
        ${found.length > most && html`<li class="sentinel" ref=${(element) => element && this.sentinel.observe(element)}></li>`}
      </ul>
      ${more && html`<p class="note">There are more than are shown here: only the newest. Search by the API, or by account.</p>`}
      ${past.length > 0 && html`<${Ended} conferences=${past} />`}
    `;
  }
}

function Tallies({ conferences, show, choose }) {
  const sum = (name) => conferences.reduce((total, each) => total + each.counts[name], 0);
  const waiting = conferences.filter(isWaiting).reduce((total, each) => total + each.counts.present, 0);
  const numbers = { speaking: sum('speaking'), hold: sum('hold'), muted: sum('muted'), coaching: sum('coaching'), waiting };
  const live = conferences.filter((each) => each.status === 'in-progress').length;
  return html`<ul class="tallies" aria-label="Now">
    <li class="tally"><b>${live}</b> ${live === 1 ? 'conference' : 'conferences'}</li>
    <li class="tally"><b>${sum('present')}</b> ${sum('present') === 1 ? 'person' : 'people'}</li>
    ${Object.entries(TALLIES).map(([state, word]) => html`<li>
      <button class=${`tally is-${state} ${numbers[state] ? '' : 'none'}`} aria-pressed=${show === state ? 'true' : 'false'} onClick=${() => choose({ show: show === state ? '' : state })}>
        <${Icon} name=${state} /><b>${numbers[state]}</b> ${word}
      </button>
    </li>`)}
  </ul>`;
}

function Filters({ words, account, order, rows, accounts, choose }) {
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
    <label class="search">
      <span class="unseen">Search by conference, person, number or sid</span>
      <${Icon} name="search" />
      <input type="search" placeholder="Conference, person, number or sid" value=${words} onInput=${(event) => choose({ words: event.target.value })} />
    </label>
    ${accounts.length > 1 && html`<label><span class="unseen">Account</span>
      <select value=${account} onChange=${(event) => choose({ account: event.target.value })}>
        <option value="">All accounts</option>
        ${accounts.map((sid) => html`<option value=${sid}>${shortened(sid)}</option>`)}
      </select></label>`}
    <label><span class="unseen">Order</span>
      <select value=${order} onChange=${(event) => choose({ order: event.target.value })}>
        ${Object.entries(ORDERS).map(([name, [word]]) => html`<option value=${name}>${word}</option>`)}
      </select></label>
    <div class="switch" role="group" aria-label="Show as">
      <button type="button" aria-pressed=${rows ? 'false' : 'true'} onClick=${() => choose({ rows: false })}><${Icon} name="cards" />Cards</button>
      <button type="button" aria-pressed=${rows ? 'true' : 'false'} onClick=${() => choose({ rows: true })}><${Icon} name="list" />Rows</button>
    </div>
  </form>`;
}

// Redrawn only when its conference has changed: five hundred of them may be here.
class Card extends Component {
  shouldComponentUpdate(next) {
    return next.conference !== this.props.conference || next.account !== this.props.account;
  }

  render({ conference, account }) {
    const around = conference.participants
      .filter((each) => isHere(each) || isComing(each))
      .map((each) => [IMPORTANCE.indexOf(lead(each, conference)), each]);
    const shown = around.length <= PEOPLE_ON_A_CARD ? around : important(around);
    const here = conference.counts.present;
    const recording = conference.recordings.some((each) => each.status === 'in-progress');
    return html`<li class="conference">
      <h2><a href=${`/conferences/${conference.sid}`}>${titleOf(conference)}</a></h2>
      <p class="facts">
        <span>${here ? people(here) : 'nobody here'}</span>
        ${recording && html`<span class="running"><${Icon} name="recording" />recording</span>`}
        ${account && html`<span>${shortened(conference.account_sid)}</span>`}
        <${Gap} conference=${conference} />
        <${AlertSign} conference=${conference} />
      </p>
      ${began(conference) !== '9' && html`<${Elapsed} since=${began(conference)} />`}
      <ul class="people">
        ${shown.map(([, each]) => html`<${Person} key=${each.call_sid} participant=${each} conference=${conference} mark=${html`<${Mark} of=${each} fields=${drawn(each)} />`} />`)}
        ${around.length > shown.length && html`<li class="others">and ${around.length - shown.length} more</li>`}
      </ul>
    </li>`;
  }
}

// Of many people those in a state worth seeing, in the order in which they came, so that nobody jumps about for long.
function important(around) {
  const chosen = new Set([...around].sort((a, b) => a[0] - b[0]).slice(0, PEOPLE_ON_A_CARD - 1));
  return around.filter((each) => chosen.has(each));
}

function Nothing({ any, clear }) {
  if (any) return html`<p class="nothing">No conference fits. <button class="plain" onClick=${clear}>Show all</button></p>`;
  return html`<p class="nothing">No conference is in progress. They appear here as soon as Twilio tells of one.</p>`;
}

function Ended({ conferences }) {
  return html`<section class="ended" aria-labelledby="ended">
    <h2 id="ended">Recently ended</h2>
    <ul>
      ${conferences.map((each) => html`<li key=${each.sid}>
        <div><a href=${`/conferences/${each.sid}`}>${titleOf(each)}</a><${Gap} conference=${each} /><${AlertSign} conference=${each} /></div>
        <span>${people(each.counts.participants)}</span>
        <span>${each.started_at && each.ended_at ? duration(Date.parse(each.ended_at) - Date.parse(each.started_at)) : '–'}</span>
        <span>${timeOf(each.ended_at)}</span>
      </li>`)}
    </ul>
  </section>`;
}
