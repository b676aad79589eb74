// The shared worker: one connection to the city for all tabs of a browser. Six tabs with a stream each would take all six
// connections that a browser opens to one host, and no press would ever leave it.

import { Feed } from "/static/feed.js";

const GONE_S = 300; // a tab that says nothing for this long is gone; a tab in the background says something once a minute
const ports = new Map(); // port -> when it last said something

const feed = new Feed((message) => {
  for (const port of ports.keys()) port.postMessage(message);
  if (message.about === "link") dropGone();
});

function dropGone() {
  for (const [port, at] of ports) if (performance.now() - at > GONE_S * 1000) ports.delete(port);
  if (!ports.size) feed.stop();
}

self.addEventListener("connect", (event) => {
  const port = event.ports[0];
  port.onmessage = ({ data }) => {
    if (data === "bye" || data === "logout") {
      ports.delete(port); // first: the tab that logs out is already on its way
      if (data === "logout") feed.tell({ about: "login" });
      if (!ports.size || data === "logout") feed.stop();
      return;
    }
    ports.set(port, performance.now());
    feed.start();
    if (data === "hello") feed.owe();
  };
});
