// Alerts that stand: a list of them, the most severe first, and a sign for a card.

import { Component, html } from '../vendor/preact.js';
import { Elapsed, Icon } from './parts.js';
import { nameOf, titleOf } from './words.js';

const SEVERITIES = ['critical', 'warning', 'info'];
const SHOWN = 3; // so that what goes on stays in sight

export function alertsOf(conference) {
  return conference.alerts ?? [];
}

function rank({ severity }) {
  const place = SEVERITIES.indexOf(severity);
  return place < 0 ? SEVERITIES.length : place;
}

// All of these conferences' alerts, the most severe first, of those the oldest.
export function standing(conferences) {
  const all = conferences.flatMap((conference) => alertsOf(conference).map((alert) => ({ conference, alert })));
  return all.sort((a, b) => rank(a.alert) - rank(b.alert) || (a.alert.since < b.alert.since ? -1 : 1));
}

export function wordsOf(alert) {
  return alert.text || alert.kind || alert.rule;
}

// `elsewhere`: each is to name its conference, and lead there.
export class Alerts extends Component {
  constructor() {
    super();
    this.state = { all: false };
  }

  render({ conferences, elsewhere }, { all }) {
    const found = standing(conferences);
    if (!found.length) return null;
    const shown = all ? found : found.slice(0, found.length === SHOWN + 1 ? SHOWN + 1 : SHOWN);
    return html`<section class="alerts" aria-label="Alerts">
      <ul>
        ${shown.map(({ conference, alert }) => html`<${Row} key=${`${conference.sid} ${alert.rule} ${alert.subject}`} ...${{ conference, alert, elsewhere }} />`)}
      </ul>
      ${(found.length > shown.length || all) && html`<button class="plain" aria-expanded=${all ? 'true' : 'false'} onClick=${() => this.setState({ all: !all })}>
        ${all ? 'Show fewer' : `${found.length - shown.length} more`}</button>`}
    </section>`;
  }
}

function Row({ conference, alert, elsewhere }) {
  const about = conference.participants.find((each) => each.call_sid === alert.subject);
  return html`<li class=${`alert is-${alert.severity}`}>
    <${Icon} name=${alert.severity === 'info' ? 'note' : 'alarm'} />
    <span class="unseen">${alert.severity}: </span>
    ${elsewhere && html`<a href=${`/conferences/${conference.sid}`}>${titleOf(conference)}</a>`}
    <span class="what">${about && html`<b>${nameOf(about)}</b> `}${wordsOf(alert)}</span>
    <span class="for"><${Elapsed} since=${alert.since} /></span>
  </li>`;
}

// The most severe of a conference's alerts, and how many more there are.
export function AlertSign({ conference }) {
  const [first, ...others] = standing([conference]);
  if (!first) return null;
  const words = wordsOf(first.alert);
  return html`<span class=${`alert sign is-${first.alert.severity}`} title=${words}>
    <${Icon} name=${first.alert.severity === 'info' ? 'note' : 'alarm'} /><span class="unseen">${first.alert.severity}: </span><span class="what">${words}</span>${others.length > 0 && html`<span>+${others.length}</span>`}
  </span>`;
}
