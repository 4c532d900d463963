// Who plays and where, as ../test_sdk.py tells it, and clients as docs/clients.md makes them.

import { setTimeout } from "node:timers/promises";
import twilio from "twilio";

export const stage = JSON.parse(process.env.STAGE);

/** The SDK's client, sent to Offhook. */
export function client(name, secret, accountSid) {
  const offhook = twilio(name, secret, { accountSid, autoRetry: false, timeout: 20000 });
  offhook.api.baseUrl = stage.offhook;
  offhook.insights.baseUrl = stage.offhook;
  return offhook;
}

/** The condition's value, once it is true. */
export async function awaited(what, condition) {
  const deadline = Date.now() + 40000;
  while (Date.now() < deadline) {
    const value = await condition();
    if (value) return value;
    await setTimeout(50);
  }
  throw new Error(`waited in vain: ${what}`);
}

/** A conference as Offhook's own API shows it, null where it does not. */
export async function document(conference) {
  const answer = await asked(`${stage.offhook}/api/conferences/${conference}`);
  return answer.ok ? answer.json() : null;
}

/** The newest request of this kind that passed through for a conference, once it has got so far. */
export function action(conference, verb, state) {
  return awaited(`${verb} is ${state}`, async () => {
    const newest = (await document(conference))?.actions.filter((each) => each.verb === verb).at(-1);
    return newest?.state === state && newest;
  });
}

/** What becomes of the next request at Twilio. */
export async function meetNextWith(fault) {
  const answer = await asked(`${stage.twilio}/double/faults`, { method: "PUT", body: JSON.stringify(fault) });
  if (!answer.ok) throw new Error(await answer.text());
}

/** How many requests Twilio has got, by method. */
export async function requestsAtTwilio() {
  return (await (await asked(`${stage.twilio}/double/requests`)).json()).counts;
}

function asked(address, options = {}) {
  const words = Buffer.from(`${stage.account.sid}:${stage.account.token}`).toString("base64");
  return fetch(address, { ...options, headers: { Authorization: `Basic ${words}` } });
}
