// What is known of a conference, and how: marks at facts that no callback has told, a word on a picture that has gaps.

import { html } from '../vendor/preact.js';
import { Due, Elapsed, Icon } from './parts.js';
import { SUBSCRIPTIONS, dateOf, isHere, kindOf, timeOf } from './words.js';

// How a fact is known that no callback has told; `unknown`: it is not.
export const WAYS = {
  unknown: 'nobody has told',
  inferred: 'follows from what else was told',
  reconciled: 'shown by Twilio’s REST API, told by no callback',
  partial: 'something of it is missing',
};

const FIELDS = {
  label: 'label', status: 'status', joined_at: 'when it came', left_at: 'when it left', reason_left: 'why it left', stays: 'its stays',
  muted: 'muted', hold: 'on hold', coaching: 'coaching', call_sid_to_coach: 'whom it coaches', speaking: 'speaking',
  talk_seconds: 'how long it spoke', hold_seconds: 'how long on hold', muted_seconds: 'how long muted',
  friendly_name: 'name', created_at: 'when it began', started_at: 'when it began', ended_at: 'when it ended', reason_conference_ended: 'why it ended',
};

const FLAGS = ['muted', 'hold', 'coaching'];
const HOLES_SHOWN = 8;
const ICONS = { healed: 'reconciled', holes: 'partial', unsure: 'note', well: 'complete' };

// What a person's state, as it is drawn, is made of.
export function drawn(participant) {
  const of = isHere(participant) ? ['status', 'stays', 'joined_at', ...FLAGS, 'call_sid_to_coach', 'speaking'] : ['status', 'left_at'];
  return of.filter((field) => participant[field] !== null || FLAGS.includes(field));
}

function wayOf(holder, field) {
  return holder.facts?.[field] ?? (FLAGS.includes(field) && holder[field] === null ? 'unknown' : null);
}

// A small sign beside what is drawn, for each way in which some of these fields are known; none where all was told.
export function Mark({ of, fields }) {
  return Object.keys(WAYS).map((way) => {
    const such = fields.filter((field) => wayOf(of, field) === way);
    if (!such.length) return null;
    const which = [...new Set(such.map((field) => FIELDS[field] || field))].join(', ');
    return html`<span class=${`known-by ${way}`} title=${`${which}: ${WAYS[way]}`}><${Icon} name=${way} /><span class="unseen"> (${which} ${way})</span></span>`;
  });
}

// What the signs mean that are to be seen at these people.
export function Legend({ participants }) {
  const ways = Object.keys(WAYS).filter((way) =>
    participants.some((each) => Object.values(each.facts ?? {}).includes(way) || (way === 'unknown' && isHere(each) && FLAGS.some((flag) => each[flag] === null))),
  );
  if (!ways.length) return null;
  return html`<ul class="legend ways">${ways.map((way) => html`<li key=${way} class=${`known-by ${way}`}><${Icon} name=${way} />${way}: ${WAYS[way]}</li>`)}</ul>`;
}

// Whether it was closed only because Twilio did not know it when it was looked at.
function closedUnknown({ coverage, status }) {
  const { ended_at: ended, status: how } = coverage.facts ?? {};
  return status === 'completed' && ended === 'inferred' && how === 'reconciled' && !coverage.events.includes('conference-end');
}

// How many callbacks are missing whose effects no look at Twilio has shown since.
export function missing(conference) {
  const { coverage } = conference;
  const seen = closedUnknown(conference) ? 0 : coverage.snapshot_sequence ?? 0;
  const size = (first, last) => Math.max(0, last - first + 1);
  const open = coverage.holes.reduce((sum, [first, last]) => sum + size(Math.max(first, seen + 1), last), 0);
  const older = coverage.missing - coverage.holes.reduce((sum, [first, last]) => sum + size(first, last), 0);
  return open + (seen < (coverage.sequences[0]?.[0] ?? 1) - 1 ? older : 0); // they are below all that is shown
}

// Whether all that is missing came before what was heard first.
function midway({ coverage }) {
  return coverage.from_start === false && coverage.holes.length === 1 && coverage.holes[0][1] < (coverage.sequences[0]?.[0] ?? 0);
}

// The picture in a few words, for a sign; null where nothing is known to be missing. `past`: and nothing will mend it.
export function gap(conference) {
  const { coverage } = conference;
  const aside = conference.set_aside?.length ?? 0;
  const open = missing(conference) + aside;
  if (open) {
    const past = conference.status === 'completed' && !aside;
    return { healed: false, past, words: midway(conference) && !aside ? 'seen from the middle on' : `${open === 1 ? '1 callback' : `${open} callbacks`} missing` };
  }
  if (coverage.snapshots && (coverage.missing || coverage.from_start === false)) return { healed: true, words: 'healed' };
  return null;
}

export function Gap({ conference }) {
  const found = gap(conference);
  if (!found) return null;
  return found.healed
    ? html`<span class="healed" title="Some callbacks have not arrived; Twilio’s REST API has shown since how things stand"><${Icon} name="reconciled" />healed</span>`
    : html`<span class=${found.past ? 'holes past' : 'holes'}>${found.words}</span>`;
}

function intervals(numbers) {
  const shown = numbers.slice(-HOLES_SHOWN).map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`));
  return `${numbers.length > HOLES_SHOWN ? '…, ' : ''}${shown.join(', ')}`;
}

// The part of a conference's page that says how complete the rest of it is. `reconcile`: asks for a look at Twilio.
export function Known({ conference, reconcile }) {
  const { coverage, want } = conference;
  const ended = conference.status === 'completed';
  const aside = conference.set_aside?.length ?? 0;
  const heard = new Set(coverage.events);
  const words = Object.keys(SUBSCRIPTIONS).filter((word) => ended || word !== 'end' || heard.has('conference-end'));
  const told = words.filter((word) => SUBSCRIPTIONS[word].some((kind) => heard.has(kind)));
  const others = coverage.events.filter((kind) => !Object.values(SUBSCRIPTIONS).flat().includes(kind)).map(groupOf);
  const untold = words.filter((word) => !told.includes(word));
  const found = gap(conference);
  const [verdict, manner] = verdictOn(conference, found);
  const final = ended && heard.has('conference-end');
  return html`<section class="known" aria-labelledby="known">
    <div class="verdict">
      <h2 id="known">What we know</h2>
      <p class=${found?.past ? `${manner} past` : manner}><${Icon} name=${ICONS[manner]} /><span>${verdict}</span></p>
      ${reconcile && !final && html`<button onClick=${reconcile} disabled=${want?.reason === 'operator'} title=${ended ? 'It is over as far as is known. A look at Twilio can only tell whether, when and why' : null}>Reconcile now</button>`}
    </div>
    ${aside > 0 && html`<p class="notice holes">
      <b>${aside === 1 ? 'One callback' : `${aside} callbacks`} could not be folded</b>, and ${aside === 1 ? 'is' : 'are'} set aside.
      What ${aside === 1 ? 'it' : 'they'} told is missing from this page until ${aside === 1 ? 'it is' : 'they are'} sent again
      (<code>offhook replay --dead-letters</code>).</p>`}
    ${coverage.conflicts.length > 0 && html`<p class="notice holes">Different callbacks came under the same number (${coverage.conflicts.join(', ')}).</p>`}
    <dl class="facts">
      <div><dt>Seen</dt><dd>${{ true: 'from its first event', false: 'from the middle on' }[coverage.from_start] ?? 'since when is not known'}</dd></div>
      <div><dt>Numbers heard</dt><dd>${intervals(coverage.sequences) || 'none'}</dd></div>
      ${coverage.missing > 0 && html`<div><dt>Not heard</dt><dd>${coverage.holes.length > 0 ? `${intervals(coverage.holes)} (${coverage.missing})` : coverage.missing}</dd></div>`}
      <div><dt>Last heard</dt><dd>${!conference.heard_at ? (heard.size > 0 ? 'at an unknown time' : 'never') : ended ? dateOf(conference.heard_at) : html`<${Elapsed} since=${conference.heard_at} /> ago`}</dd></div>
      <div><dt>Looked at Twilio</dt><dd>${looks(conference)}</dd></div>
      ${want && html`<${Due} want=${want} />`}
    </dl>
    <dl class="groups">
      ${(told.length > 0 || others.length > 0) && html`<div><dt>Told of</dt><dd>${[...told, ...new Set(others)].map((word) => html`<span class="group" key=${word}>${word}</span>`)}</dd></div>`}
      ${untold.length > 0 && html`<div><dt title="Only what the conference’s first participant has subscribed to is told.">Not told: they have not happened, or they happen unseen</dt><dd>${untold.map((word) => html`<span class="group untold" key=${word}>${word}</span>`)}</dd></div>`}
    </dl>
  </section>`;
}

// How complete it is in a sentence or two, and the manner in which that is shown.
function verdictOn(conference, found) {
  const { coverage, status } = conference;
  const ended = status === 'completed';
  const open = missing(conference);
  const manner = found && !found.healed ? 'holes' : 'unsure';
  if (coverage.complete) return ['Complete: it has ended, and every event of it was heard.', found ? manner : 'well'];
  if (closedUnknown(conference)) return [html`<b>Twilio does not know this conference (any more).</b> It was closed at ${timeOf(conference.ended_at)} with what was known.${open > 0 && ` ${lost(open)} not arrived.`}`, manner];
  if (open && midway(conference)) return [html`<b>It had begun before its first callback came.</b> What came before number ${coverage.sequences[0][0]} is missing from this page.`, manner];
  if (open) return [html`<b>${lost(open)} not arrived.</b> What ${open === 1 ? 'it' : 'they'} told is missing from this page.${coverage.missing > open && ` ${coverage.missing - open} more did not arrive either; what came of that Twilio’s REST API has shown since.`}`, manner];
  if (coverage.missing) return [html`<b>${lost(coverage.missing)} not arrived,</b> but Twilio’s REST API has shown since how things stand, though not when they changed.`, found ? 'healed' : 'unsure'];
  if (conference.set_aside?.length) return ['Not all that has arrived is in here.', manner];
  if (coverage.snapshots && !coverage.events.length) return [`Known from Twilio’s REST API alone${ended ? ': no callback of it has come.' : ', until callbacks come.'}`, 'unsure'];
  if (coverage.from_start === null) return ['No callback with a number has come: whether something is missing is not known.', 'unsure'];
  if (ended && !coverage.events.includes('conference-end')) return ['No callback has told of its end; Twilio’s REST API has shown it.', 'unsure'];
  if (coverage.doubted && !ended) return ['A call has told otherwise than the latest look at Twilio.', 'unsure'];
  if (ended) return ['Nothing is known to be missing, but not every event is accounted for.', 'unsure'];
  return ['Nothing is known to be missing.', found ? 'healed' : 'well'];
}

function lost(number) {
  return number === 1 ? 'One callback has' : `${number} callbacks have`;
}

// Twilio's word for what is subscribed to separately, or what it is.
function groupOf(type) {
  if (/^call-/.test(type)) return 'call progress';
  return /^recording-/.test(type) ? 'recordings' : kindOf({ type });
}

function looks({ coverage, asked_at: asked }) {
  const last = coverage.snapshot_at || asked;
  if (!last) return 'never';
  const often = coverage.snapshots > 1 ? `, ${coverage.snapshots} times` : '';
  const covers = coverage.snapshot_sequence > 0 ? `, covers all up to number ${coverage.snapshot_sequence}` : '';
  return `${coverage.snapshot_at ? '' : 'asked '}${timeOf(last)}${often}${covers}`;
}
