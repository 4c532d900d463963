// One for all tabs of a browser: holds the one stream, and tells each tab.

import { share } from './live.js';

const ports = new Set();
const shared = share((message) => {
  for (const port of ports) port.postMessage(message);
});

globalThis.onconnect = (event) => {
  const [port] = event.ports;
  port.onmessage = ({ data }) => {
    if (data === 'hello') {
      ports.add(port);
      shared.open(); // it may have stopped because nobody was signed in
      port.postMessage(shared.all());
    } else if (data === 'bye') {
      ports.delete(port);
    }
  };
};
