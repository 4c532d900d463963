// How the dashboard says things: names, states, times. Nothing here touches the page.

export const KINDS = {
  'conference-start': 'conference started',
  'conference-end': 'conference ended',
  'participant-join': 'joined',
  'participant-leave': 'left',
  'participant-mute': 'muted',
  'participant-unmute': 'unmuted',
  'participant-hold': 'put on hold',
  'participant-unhold': 'taken off hold',
  'participant-modify': 'changed',
  'participant-speech-start': 'began to speak',
  'participant-speech-stop': 'fell silent',
  'announcement-end': 'announcement played',
  'announcement-fail': 'announcement failed',
  'control-requested': 'request sent to Twilio',
  'control-answered': 'Twilio answered',
  'control-expired': 'nothing confirmed the request',
  look: 'Twilio was asked',
  snapshot: 'Twilio was asked',
  'alert-raised': 'alert',
  'alert-cleared': 'alert is over',
};

export function kindOf(event) {
  return KINDS[event.type] || (event.type ? event.type.replaceAll('-', ' ') : 'not readable');
}

const OUTCOMES = { init: 'not started', 'in-progress': 'in progress', completed: 'over' };

// What an event of ours tells besides its kind: [why, what came of it, the call it is about].
export function tellingOf({ source, parameters }) {
  const { alert, conference, participants, reason } = parameters;
  if (source === 'alert') return [alert.rule, alert.text, alert.subject];
  if (source !== 'snapshot') return [];
  if (!conference && !participants) return [REASONS[reason] || reason, 'unknown to Twilio'];
  const status = conference ? conference.status : 'in-progress'; // of no other are participants listed
  const listed = participants && (participants.length === 1 ? ', 1 participant' : `, ${participants.length} participants`);
  return [REASONS[reason] || reason, `${OUTCOMES[status] || status}${listed || ''}`];
}

// Why Twilio's REST API is looked at.
export const REASONS = {
  hole: 'callbacks are missing',
  midway: 'it was seen from the middle on',
  doubted: 'a call had told otherwise than the latest look',
  silent: 'nothing has been heard for long',
  empty: 'everybody has gone, and no end was told',
  outage: 'callbacks were lost on their way',
  control: 'nothing has confirmed a request',
  adopted: 'it was found at Twilio',
  operator: 'somebody has asked for it',
};

// Twilio's words for what can be subscribed to, and the events that show that somebody has.
export const SUBSCRIPTIONS = {
  start: ['conference-start'],
  end: ['conference-end'],
  join: ['participant-join'],
  leave: ['participant-leave'],
  mute: ['participant-mute', 'participant-unmute'],
  hold: ['participant-hold', 'participant-unhold'],
  modify: ['participant-modify'],
  speaker: ['participant-speech-start', 'participant-speech-stop'],
  announcement: ['announcement-end', 'announcement-fail'],
};

// The states of somebody who is there, the most telling first.
export const STATES = {
  speaking: 'speaking',
  hold: 'on hold',
  coaching: 'coaching',
  waiting: 'waiting',
  muted: 'muted',
};

export function titleOf(conference) {
  return conference.friendly_name || shortened(conference.sid);
}

export function nameOf(participant) {
  const inbound = (participant.direction || '').startsWith('inbound');
  const number = inbound ? participant.from : participant.to;
  return participant.label || number || participant.from || shortened(participant.call_sid);
}

export function shortened(sid) {
  return `${sid.slice(0, 2)}…${sid.slice(-6)}`;
}

export function isHere(participant) {
  const stay = participant.stays[participant.stays.length - 1];
  return Boolean(stay) && stay.left_at === null;
}

export function isComing(participant) {
  return ['queued', 'connecting', 'ringing'].includes(participant.status);
}

// Whether those who are there wait: for somebody else, or for somebody who may start the conference.
export function isWaiting(conference) {
  if (conference.status === 'completed' || conference.started_at) return false;
  const here = conference.participants.filter(isHere);
  return here.length === 1 || (here.length > 1 && !here.some((each) => each.start_conference_on_enter));
}

// Every state that somebody who is there is in, in the order of STATES.
export function statesOf(participant, conference) {
  const waiting = isWaiting(conference);
  const holds = {
    speaking: participant.speaking,
    hold: participant.hold,
    coaching: participant.coaching,
    waiting,
    muted: participant.muted,
  };
  return Object.keys(STATES).filter((state) => holds[state]);
}

export function lead(participant, conference) {
  if (isHere(participant)) return statesOf(participant, conference)[0] || 'here';
  return isComing(participant) ? 'coming' : 'gone';
}

export function wordsFor(participant, conference) {
  if (!isHere(participant)) {
    if (participant.stays.length) return 'left';
    return participant.status === 'failed' ? 'did not join' : participant.status;
  }
  const coached = conference.participants.find((each) => each.call_sid === participant.call_sid_to_coach);
  const words = statesOf(participant, conference).map((state) =>
    state === 'coaching' && coached ? `coaching ${nameOf(coached)}` : STATES[state],
  );
  if (words.length) return words.join(', ');
  return participant.speaking === false ? 'listening' : 'here'; // where speech is not told nobody knows of silence
}

// The moment from which the leading state has lasted, where that is known.
export function sinceOf(participant, conference) {
  const state = lead(participant, conference);
  const stay = participant.stays[participant.stays.length - 1];
  if (state === 'speaking') return participant.speaking_since;
  if (state === 'hold') return participant.hold_since;
  if (state === 'waiting') return stay.joined_at;
  return null;
}

export function matches(conference, words) {
  if (!words) return true;
  const said = [
    conference.friendly_name,
    conference.sid,
    ...conference.participants.flatMap((each) => [each.label, each.call_sid, each.from, each.to]),
  ];
  const text = said.filter(Boolean).join('\n').toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

export function duration(milliseconds) {
  const total = Math.max(0, Math.floor(milliseconds / 1000));
  const hours = Math.floor(total / 3600);
  const minutes = Math.floor((total % 3600) / 60);
  const seconds = String(total % 60).padStart(2, '0');
  return hours ? `${hours}:${String(minutes).padStart(2, '0')}:${seconds}` : `${minutes}:${seconds}`;
}

const clockTime = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const dayAndTime = new Intl.DateTimeFormat(undefined, {
  year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23',
});

export function timeOf(moment) {
  return moment ? clockTime.format(new Date(moment)) : 'at an unknown time';
}

export function dateOf(moment) {
  return moment ? dayAndTime.format(new Date(moment)) : 'at an unknown time';
}

export function people(number) {
  return number === 1 ? '1 person' : `${number} people`;
}
