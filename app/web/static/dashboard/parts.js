// Small parts that both views are made of: icons, people, durations that tick.

import { Component, html } from '../vendor/preact.js';
import { REASONS, duration, isHere, lead, nameOf, sinceOf, wordsFor } from './words.js';

// Each drawn in a box of 16 by 16, in the colour of its text.
const PATHS = {
  speaking: 'M3 6v4M6 3.5v9M10 5v6M13 6.5v3',
  hold: 'M5.5 3.5v9M10.5 3.5v9',
  muted: 'M6 7V4a2 2 0 0 1 4 0v3M3.8 8.2a4.2 4.2 0 0 0 7 2.4M12.2 8.2v.3M8 12.5V14M2.5 2.5l11 11',
  coaching: 'M3 9V8a5 5 0 0 1 10 0v1M3 9h2v4H4a1 1 0 0 1-1-1zM13 9h-2v4h1a1 1 0 0 0 1-1z',
  waiting: 'M8 4.5V8l2.3 1.6M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0z',
  here: 'M11 8a3 3 0 1 1-6 0 3 3 0 0 1 6 0z',
  coming: 'M4 2.8 6 2.5l1.2 3-1.4 1.2a7 7 0 0 0 3.5 3.5l1.2-1.4 3 1.2-.3 2a1.5 1.5 0 0 1-1.6 1.2A9.8 9.8 0 0 1 2.8 4.4 1.5 1.5 0 0 1 4 2.8z',
  gone: 'M10 5V3.5H3.5v9H10V11M6.5 8h7M11.5 6l2 2-2 2',
  search: 'M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.7 10.7 14 14',
  cards: 'M2.5 2.5h4.5v4.5H2.5zM9 2.5h4.5v4.5H9zM2.5 9h4.5v4.5H2.5zM9 9h4.5v4.5H9z',
  list: 'M2.5 4h11M2.5 8h11M2.5 12h11',
  recording: 'M11.5 8a3.5 3.5 0 1 1-7 0 3.5 3.5 0 0 1 7 0z',
  announcement: 'M3 6.5v3h2l4 3v-9l-4 3zM11.5 5.5a3.5 3.5 0 0 1 0 5',
  back: 'M9.5 3.5 5 8l4.5 4.5',
  unknown: 'M5.8 6a2.3 2.3 0 1 1 3.3 2c-.8.4-1.1.8-1.1 1.6M8 12.3v.1',
  inferred: 'M8 4.6v.1M4.6 11v.1M11.4 11v.1',
  reconciled: 'M13 8a5 5 0 1 1-1.5-3.6M13 2.5V5h-2.5',
  partial: 'M4.5 3.5 11 6.5l-6.5 3M4.5 12.8H11',
  complete: 'M3 8.5 6.5 12 13 4.5',
  alarm: 'M8 2.5 14.2 13H1.8zM8 6.5v3M8 11.2v.1',
  note: 'M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0zM8 7.5v3.2M8 5.2v.1',
};

export function Icon({ name }) {
  return html`<svg class=${`icon ${name}`} viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d=${PATHS[name]} /></svg>`;
}

const ticking = new Set();
let clock = Date.now;

// From now on durations are told by this clock, Twilio's and the server's rather than the browser's.
export function setClock(now) {
  clock = now;
}

export function now() {
  return clock();
}

setInterval(() => {
  if (!document.hidden) for (const each of ticking) each.tick();
}, 1000);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) for (const each of ticking) each.tick();
});

// How long something has lasted, counting on.
export class Elapsed extends Component {
  componentDidMount() {
    ticking.add(this);
    this.tick();
  }

  componentDidUpdate() {
    this.tick();
  }

  componentWillUnmount() {
    ticking.delete(this);
  }

  tick() {
    const text = this.text();
    if (this.base.firstChild.data !== text) this.base.firstChild.data = text;
  }

  text() {
    return duration(now() - Date.parse(this.props.since) + (this.props.more || 0) * 1000);
  }

  render() {
    return html`<time class="elapsed" dateTime=${this.props.since}>${this.text()}</time>`;
  }
}

const NEAR = 120_000; // ms before silence is due: until then it is no plan
const LATE = 15_000;

// When Twilio is to be looked at, and why, as a fact of its own; nothing while that is no more than a condition.
export class Due extends Elapsed {
  tick() {
    if (this.told !== this.text()) this.setState({});
  }

  text() {
    const { reason, due_at: due } = this.props.want;
    const left = Date.parse(due) - now();
    const why = `because ${REASONS[reason] || reason}`;
    if (left <= -LATE) return `${why}; overdue by ${duration(-left)}: it waits for its turn, or Twilio cannot be asked`;
    if (left <= 0) return `now, ${why}`;
    if (reason !== 'silent') return `in ${duration(left)}, ${why}`;
    return left <= NEAR ? `if nothing is heard for ${duration(left)} more` : null;
  }

  render() {
    this.told = this.text();
    return this.told && html`<div><dt>To be looked at</dt><dd>${this.told}</dd></div>`;
  }
}

// Somebody in a conference, in one line. `mark`: what says which of it no callback has told.
export function Person({ participant, conference, mark }) {
  const state = lead(participant, conference);
  const since = sinceOf(participant, conference);
  const also = isHere(participant) && participant.muted && state !== 'muted' ? 'and-muted' : '';
  return html`<li class=${`person is-${state} ${also}`}>
    <${Icon} name=${state} />
    <span class="who">${nameOf(participant)}</span>
    <span class="how">${wordsFor(participant, conference)}${since && html` <${Elapsed} since=${since} />`}</span>${mark}
  </li>`;
}
