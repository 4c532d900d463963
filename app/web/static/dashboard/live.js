// The live feed of this page: by way of the worker that all tabs share or, where a browser has none, by itself.

import { follow } from '../follow.js';

// Calls `tell({type: 'all' | 'news', documents, looked, more, state})` with whole documents; `all` replaces everything.
// `looked`: whether there has been anything to see yet.
export function connect(name, tell) {
  if (!('SharedWorker' in globalThis)) {
    share(tell);
    return;
  }
  let port;
  let heard;
  let tries = 0;
  const attach = () => {
    heard = Date.now();
    tries += 1;
    port = new SharedWorker('/static/dashboard/worker.js', { type: 'module', name }).port;
    port.onmessage = (event) => {
      heard = Date.now();
      tries = 0;
      tell(event.data);
    };
    port.postMessage('hello');
  };
  const watch = setInterval(() => {
    if (Math.abs(Date.now() - heard) < DEAD) return;
    port.onmessage = null; // browsers end workers, and some cannot begin this one
    if (tries < 2) {
      attach();
    } else {
      clearInterval(watch);
      share(tell);
    }
  }, 5000);
  attach();
  addEventListener('pagehide', () => port.postMessage('bye'));
  addEventListener('pageshow', (event) => {
    if (event.persisted) attach();
  });
}

const PULSE = 10_000; // ms: a worker says so often that it lives
const DEAD = 3 * PULSE;
const BATCH = 100; // ms: a page is told of many changes at once rather than one by one

// Follows the feed and tells everybody who listens. `all()` is what a newcomer is told.
export function share(tell) {
  let told = new Map();
  let timer = null;
  let looked = false;
  const state = () => ({ name: live.state, behind: live.behind, offset: live.offset, heard: live.heard });
  const flush = () => {
    timer = null;
    tell({ type: 'news', documents: [...told.values()], state: state() });
    told = new Map();
  };
  const soon = () => {
    timer ??= setTimeout(flush, BATCH);
  };
  const live = follow({ url: '/api/stream' }, {
    onsnapshot: () => {
      looked = true;
      told = new Map();
      tell(all());
    },
    onchange: ({ conference, gone }) => {
      if (!gone) told.set(conference.sid, conference);
      soon();
    },
    onstate: soon,
  });
  setInterval(soon, PULSE);
  const all = () => ({ type: 'all', documents: [...live.conferences.values()], looked, more: live.more, state: state() });
  const open = () => {
    if (live.state === 'signed out') live.open();
  };
  return { all, open };
}
