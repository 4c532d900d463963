// Control requests: sent at Twilio's own addresses, and what has become of them as the conference's document tells.

export async function send(method, conference, part, fields) {
  const path = [conference.account_sid, 'Conferences', conference.sid, ...part].map(encodeURIComponent).join('/');
  const answer = await fetch(`/2010-04-01/Accounts/${path}.json`, {
    method,
    headers: { 'Content-Type': 'application/x-www-form-urlencoded', 'Idempotency-Key': key() },
    body: method === 'DELETE' ? undefined : new URLSearchParams(fields).toString(),
  }).catch(() => null);
  if (!answer) return 'Offhook could not be reached: nothing is known of this request.';
  if (answer.ok) return null;
  const told = await answer.json().catch(() => ({}));
  return told.message || `Refused with status ${answer.status}.`;
}

// Asks for a look at Twilio, to see what callbacks have not told. Returns why not, or null.
export async function reconcile(sid) {
  const answer = await fetch(`/api/conferences/${encodeURIComponent(sid)}/reconcile`, { method: 'POST' }).catch(() => null);
  if (!answer) return 'Offhook could not be reached.';
  if (answer.ok) return null;
  const told = await answer.json().catch(() => ({}));
  return told.message || `Refused with status ${answer.status}.`;
}

function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export const VERBS = {
  'update-conference': 'Change the conference',
  'add-participant': 'Dial somebody in',
  'update-participant': 'Change a participant',
  'remove-participant': 'Remove a participant',
  'update-recording': 'Change a recording',
  'delete-recording': 'Delete a recording',
};

export const OUTCOMES = {
  requested: 'requested',
  accepted: 'accepted by Twilio',
  confirmed: 'confirmed',
  ignored: 'not confirmed',
  failed: 'failed',
};

// What an action asks for, in words.
export function wish(action) {
  const words = { 'muted=true': 'Mute', 'muted=false': 'Unmute', 'hold=true': 'Hold', 'hold=false': 'Take off hold', 'conference-end': 'End the conference' };
  for (const awaited of action.awaits) {
    if (words[awaited]) return words[awaited];
    if (awaited.startsWith('announcement-end')) return 'Announce';
  }
  return VERBS[action.verb] || action.verb;
}

export function isOpen(action) {
  return action.state === 'requested' || (action.state === 'accepted' && action.awaits.length > 0);
}
