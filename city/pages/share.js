// How a tab gets the city's messages, one stream for all tabs of a browser: from the shared worker; where there is none, from
// the one tab that holds a lock, over a broadcast channel; where there is neither, it reads the state again and again. Whatever
// stands in between may die: a tab that hears nothing from it reads the state by itself.

import { Feed } from "/static/feed.js";

const SILENT_MAX_S = 4; // what stands in between says something every second
const LOCK = "ansim-feed";

export function share(take, build) {
  let heard_at = performance.now();
  const own = new Feed(take, { withStream: false });
  const heard = (message) => {
    heard_at = performance.now();
    own.stop();
    take(message);
  };
  let link = openWorker(heard, build, () => (link = openChannel(heard))) ?? openChannel(heard);
  setInterval(() => {
    link.say("here");
    if (performance.now() - heard_at > SILENT_MAX_S * 1000) own.start();
  }, 1000);
  addEventListener("pagehide", () => link.say("bye"));
  addEventListener("pageshow", (event) => event.persisted && link.say("hello"));
  return { logout: () => link.say("logout") };
}

function openWorker(heard, build, onFailure) {
  if (!("SharedWorker" in window)) return null;
  try {
    const worker = new SharedWorker(`/static/feed_worker.js?${build}`, { type: "module", name: "ansim" });
    worker.addEventListener("error", onFailure, { once: true });
    worker.port.onmessage = ({ data }) => heard(data);
    worker.port.postMessage("hello");
    return { say: (word) => worker.port.postMessage(word) };
  } catch (error) {
    console.error("the shared worker", error);
    return null;
  }
}

function openChannel(heard) {
  const shared = "BroadcastChannel" in window && "locks" in navigator; // the locks need https, or this machine
  const channel = shared ? new BroadcastChannel(LOCK) : null;
  const feed = new Feed((message) => {
    heard(message);
    if (channel) channel.postMessage(message);
  });
  if (!channel) {
    const alone = new Feed(heard, { withStream: false }); // tabs that cannot share would take all connections with their streams
    alone.start();
    return { say: (word) => (word === "bye" || word === "logout") && alone.stop() };
  }
  channel.onmessage = ({ data }) => {
    if (data === "hello") feed.owe(); // does nothing in a tab that does not lead
    else if (data === "logout") feed.stop();
    else heard(data);
  };
  channel.postMessage("hello");
  navigator.locks.request(LOCK, () => new Promise(() => feed.start())); // held until this tab ends: then another tab leads
  return {
    say: (word) => {
      if (word === "logout") {
        channel.postMessage({ about: "login" });
        channel.postMessage("logout");
      }
      if (word === "logout" || word === "bye") feed.stop();
    },
  };
}
