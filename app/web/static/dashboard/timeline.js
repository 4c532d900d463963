// The picture of a conference: a lane for each participant, time from left to right, marks for what concerned all.

import { Component, html } from '../vendor/preact.js';
import { OUTCOMES, VERBS } from './control.js';
import { now } from './parts.js';
import { KINDS, REASONS, nameOf, shortened, timeOf } from './words.js';

const LANE = 30;
const TOP = 34;
const RANGES = { all: ['Everything', Infinity], 15: ['15 min', 15 * 60_000], 5: ['5 min', 5 * 60_000] };
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400].map((seconds) => seconds * 1000);
const WORDS = { dialling: 'being called', here: 'here', waiting: 'waiting', hold: 'on hold', muted: 'muted', coaching: 'coaching', speaking: 'speaking' };
const MARKS = { 'conference-start': 'start', 'conference-end': 'end', 'announcement-end': 'announcement', 'announcement-fail': 'failed announcement', recording: 'recording', action: 'control request', look: 'look at Twilio' };
const BANDS = { dialling: [12, 6], here: [5, 20], waiting: [5, 20], hold: [5, 20], muted: [21, 4], coaching: [5, 4], speaking: [9, 12] };

export class Timeline extends Component {
  constructor() {
    super();
    this.state = { width: 800, range: 'all' };
  }

  componentDidMount() {
    this.watch = new ResizeObserver(([entry]) => this.setState({ width: Math.max(240, entry.contentRect.width) }));
    this.watch.observe(this.base);
    this.clock = setInterval(() => {
      if (!document.hidden && this.props.timeline && this.props.timeline.until === null) this.setState({});
    }, 1000);
  }

  componentWillUnmount() {
    this.watch.disconnect();
    clearInterval(this.clock);
  }

  render({ timeline, participants }, { width, range }) {
    if (!timeline) return html`<div class="picture"><p class="nothing">Drawing…</p></div>`;
    const told = timeline.from && Date.parse(timeline.from);
    if (!told) return html`<div class="picture"><p class="nothing">Nothing that has a time has been told yet.</p></div>`;
    const until = timeline.until ? Date.parse(timeline.until) : now();
    const from = Math.max(told, until - RANGES[range][1]);
    const names = width < 560 ? 84 : 150;
    const scale = (width - names - 8) / Math.max(1000, until - from);
    const x = (moment) => names + (Math.min(Math.max(moment, from), until) - from) * scale;
    const height = TOP + timeline.lanes.length * LANE + 8;
    const known = new Map(participants.map((each) => [each.call_sid, each]));
    const name = (lane) => lane.label || (known.has(lane.call_sid) ? nameOf(known.get(lane.call_sid)) : shortened(lane.call_sid));
    return html`<div class="picture">
      <div class="switch" role="group" aria-label="Time shown">
        ${Object.entries(RANGES).map(([key, [word]]) => html`<button type="button" aria-pressed=${range === key ? 'true' : 'false'} onClick=${() => this.setState({ range: key })}>${word}</button>`)}
      </div>
      <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${`Timeline of ${timeline.lanes.length} participants from ${timeOf(from)} to ${timeOf(until)}. The list of events below says the same in words.`}>
        <defs>
          <pattern id="stripes" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="stripe" width="2.5" height="6" /></pattern>
        </defs>
        ${ticks(from, until, (width - names) / 90).map((moment) => html`<g class="tick">
          <line x1=${x(moment)} x2=${x(moment)} y1=${TOP - 6} y2=${height - 4} />
          ${x(moment) < width - 56 && html`<text x=${x(moment)} y=${TOP - 12}>${timeOf(moment)}</text>`}
        </g>`)}
        ${timeline.lanes.map((lane, place) => html`<g class="lane" transform=${`translate(0 ${TOP + place * LANE})`}>
          <line class="ground" x1="0" x2=${width} y1=${LANE} y2=${LANE} />
          <text class="who" x="0" y="20"><title>${name(lane)}</title>${cut(name(lane), names / 7.6)}</text>
          ${lane.spans.map((span) => bar(span, x, from, until))}
        </g>`)}
        ${timeline.marks.filter((mark) => Date.parse(mark.at) >= from).map((mark) => html`<g class=${`mark ${mark.kind}`}>
          <line x1=${x(Date.parse(mark.at))} x2=${x(Date.parse(mark.at))} y1=${TOP - 4} y2=${height - 4} />
          <circle cx=${x(Date.parse(mark.at))} cy=${TOP - 4} r="4"><title>${`${said(mark)}, ${timeOf(mark.at)}`}</title></circle>
        </g>`)}
      </svg>
      <ul class="legend" aria-hidden="true">
        ${['here', 'waiting', 'speaking', 'hold', 'muted', 'coaching'].map((state) => html`<li><svg width="22" height="30" viewBox="0 0 22 30">${state !== 'here' && html`<rect class="span here" x="0" width="22" y="5" height="20" rx="3" />`}<rect class=${`span ${state}`} x="0" width="22" y=${BANDS[state][0]} height=${BANDS[state][1]} rx="2" /></svg>${WORDS[state]}</li>`)}
        ${Object.keys(MARKS).filter((kind) => timeline.marks.some((mark) => mark.kind === kind)).map((kind) => html`<li><svg width="12" height="30" viewBox="0 0 12 30"><g class=${`mark ${kind}`}><circle cx="6" cy="15" r="4" /></g></svg>${MARKS[kind]}</li>`)}
      </ul>
    </div>`;
  }
}

function bar(span, x, from, until) {
  const begin = span.from ? Date.parse(span.from) : from;
  const end = span.until ? Date.parse(span.until) : until;
  if (end < from) return null;
  const [top, high] = BANDS[span.state];
  const told = `${WORDS[span.state]}, ${timeOf(span.from)} to ${span.until ? timeOf(span.until) : 'now'}${span.inferred ? ' (inferred, not told)' : ''}`;
  return html`<rect class=${`span ${span.state} ${span.inferred ? 'inferred' : ''}`} x=${x(begin)} width=${Math.max(2, x(end) - x(begin))} y=${top} height=${high} rx=${span.state === 'here' ? 4 : 2}><title>${told}</title></rect>`;
}

function cut(text, most) {
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join('')}…` : text;
}

function said(mark) {
  if (mark.kind === 'action') return `${VERBS[mark.verb] || mark.verb}: ${OUTCOMES[mark.state]}`;
  if (mark.kind === 'look') return `${KINDS.look}: ${REASONS[mark.text] || mark.text}`;
  if (mark.kind === 'recording') return `recording ${mark.status}`;
  return mark.text ? `${KINDS[mark.kind] || mark.kind}: ${mark.text}` : KINDS[mark.kind] || mark.kind;
}

function ticks(from, until, most) {
  const step = STEPS.find((each) => (until - from) / each <= Math.max(2, most)) || STEPS[STEPS.length - 1];
  const moments = [];
  for (let moment = Math.ceil(from / step) * step; moment <= until; moment += step) moments.push(moment);
  return moments;
}
