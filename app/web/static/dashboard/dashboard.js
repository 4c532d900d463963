// The dashboard's beginning: keeps what the feed tells, shows the view that the address names, says how fresh it is.

import { Component, html, render } from '../vendor/preact.js';
import { ConferencePage } from './conference.js';
import { connect } from './live.js';
import { Overview } from './overview.js';
import { setClock } from './parts.js';
import { timeOf } from './words.js';

const { accounts, control, name, version, session } = document.body.dataset;
const others = new BroadcastChannel('offhook'); // tabs that sign in or out
const ENDED_KEPT = 200;
const PATIENCE = 5000; // ms until a lost connection is worth a word: most are back at once

class Dashboard extends Component {
  constructor() {
    super();
    this.live = new Map();
    this.ended = new Map();
    this.state = { ready: false, more: false, connection: 'connecting', behind: 0, heard: null, path: location.pathname, visit: 0 };
    this.offset = 0;
    setClock(() => (this.state.heard ?? Date.now()) + this.offset); // nothing goes on that may have ended unseen
    this.leave = this.leave.bind(this);
  }

  componentDidMount() {
    connect(`offhook ${version} ${session}`, (message) => this.told(message));
    addEventListener('popstate', () => this.setState({ path: location.pathname }, () => this.announce()));
    document.addEventListener('click', (event) => this.followed(event));
    others.onmessage = () => location.reload();
    this.readEnded();
  }

  // What the feed tells, kept; drawn once a frame at most.
  told({ type, documents, looked, more, state }) {
    if (type === 'all') {
      const listed = new Set(documents.map((each) => each.sid));
      if ([...this.live.keys()].some((sid) => !listed.has(sid))) this.readEnded(); // they have ended unseen
      this.live = new Map();
      for (const sid of listed) this.ended.delete(sid);
    }
    for (const document of documents) this.keep(document);
    this.offset = state.offset || 0;
    if (state.name === 'signed out') location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
    const lost = state.name === 'stale' || (state.name === 'lost' && Date.now() - state.heard > PATIENCE);
    clearTimeout(this.later);
    if (state.name === 'lost' && !lost) this.later = setTimeout(() => this.told({ type: 'news', documents: [], looked, state }), PATIENCE);
    this.setState({
      ready: this.state.ready || Boolean(looked),
      more: type === 'all' ? Boolean(more) : this.state.more,
      connection: state.name,
      behind: state.behind,
      heard: lost ? state.heard ?? Date.now() : null,
    });
  }

  keep(document) {
    const held = this.live.get(document.sid) || this.ended.get(document.sid);
    if (held && held.revision > document.revision) return;
    if (document.status === 'completed') {
      this.live.delete(document.sid);
      this.ended.delete(document.sid);
      this.ended.set(document.sid, document);
      for (const sid of [...this.ended.keys()].slice(0, this.ended.size - ENDED_KEPT)) this.ended.delete(sid);
    } else {
      this.live.set(document.sid, document);
    }
  }

  async readEnded() {
    for (const account of accounts.split(' ')) await this.readEndedOf(account);
    this.setState({});
  }

  async readEndedOf(account) {
    let next = `/api/conferences?status=completed&limit=50&expand=participants${account && `&account=${account}`}`;
    for (let pages = 0; next && pages < 3; pages += 1) {
      const answer = await fetch(next).catch(() => null);
      if (!answer || !answer.ok) return;
      const page = await answer.json();
      const ended = page.conferences.filter((each) => !this.live.has(each.sid) && !this.ended.has(each.sid));
      this.ended = new Map([...ended.reverse().map((each) => [each.sid, each]), ...this.ended]);
      next = page.next;
    }
  }

  // A link to another view changes the view, not the page: the stream goes on.
  followed(event) {
    const link = event.target.closest && event.target.closest('a[href]');
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.origin !== location.origin || link.target || !/^\/($|conferences\/)/.test(link.pathname)) return;
    event.preventDefault();
    if (link.pathname === '/' && history.state === 'from the overview') {
      history.back();
      return;
    }
    history.pushState(this.state.path === '/' ? 'from the overview' : null, '', link.href);
    this.setState({ path: location.pathname, visit: this.state.visit + 1 }, () => {
      scrollTo(0, 0);
      this.announce();
    });
  }

  // Another view: who does not see it hears its title, and goes on from there.
  announce() {
    const title = document.querySelector('h1');
    if (title) title.focus({ preventScroll: true });
  }

  async leave() {
    const answer = await fetch('/session', { method: 'DELETE' }).catch(() => null);
    if (!answer || !answer.ok) {
      this.setState({ problem: 'You are still signed in: Offhook did not answer. Try again.' });
      return;
    }
    others.postMessage('signed out');
    location.assign('/sign-in');
  }

  render(_, { ready, more, connection, behind, heard, path, visit, problem }) {
    const sid = path.startsWith('/conferences/') ? path.split('/')[2] : null;
    const old = heard !== null;
    return html`
      <header class="top">
        <a class="brand" href="/" aria-label="Offhook, all conferences">Offhook</a>
        <${Freshness} connection=${connection} behind=${behind} old=${old} />
        <span class="reader" title="Signed in as">${name}</span>
        ${session !== 'key' && html`<button class="plain" onClick=${this.leave}>Sign out</button>`}
      </header>
      ${old && html`<p class="banner" role="alert">
        ${connection === 'lost' ? 'The connection is lost.' : 'Nothing has been heard for a while.'} What you see is
        from ${timeOf(heard + this.offset)}. Trying again…
      </p>`}
      ${problem && html`<p class="banner" role="alert">${problem}</p>`}
      <main class=${old ? 'old' : ''}>
        ${sid === null
          ? html`<${Overview} key=${visit} live=${this.live} ended=${this.ended} more=${more} ready=${ready} />`
          : html`<${ConferencePage} key=${sid} sid=${sid} document=${this.live.get(sid) || this.ended.get(sid)} control=${control === 'true'} />`}
      </main>`;
  }
}

const FRESHNESS = {
  connecting: ['Connecting', ''],
  live: ['Live', 'well'],
  'catching up': ['Catching up', 'late'],
  stale: ['Stale', 'away'],
  lost: ['Connecting again', 'away'],
  'signed out': ['Signed out', 'away'],
};

function Freshness({ connection, behind, old }) {
  const [word, how] = FRESHNESS[connection] || FRESHNESS.connecting;
  return html`<p class=${`freshness ${how}`}>
    <span role="status">${connection === 'lost' && old ? 'Connection lost' : word}</span>
    ${connection === 'catching up' && html`<span>${behind === null ? 'state store does not answer' : `${Math.round(behind)} s behind`}</span>`}
  </p>`;
}

render(html`<${Dashboard} />`, document.getElementById('dashboard'));
