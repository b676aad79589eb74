// One request to the city. It has a time limit, and the caller always learns what became of it.

const PROBES = 6; // a browser opens at most six connections to one host over HTTP/1.1
const PROBE_LIMIT_S = 2;

export class NoAnswer extends Error {} // whether the city has taken the request is not known
export class Refused extends Error { // the city, or a proxy in front of it, answered with something else than was asked for
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function ask(path, { method = "GET", limit_s = 6 } = {}) {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), limit_s * 1000);
  try {
    const answer = await fetch(path, { method, credentials: "same-origin", cache: "no-store", signal: limit.signal });
    const text = await answer.text();
    const body = readJson(text);
    if (!answer.ok) throw new Refused(answer.status, typeof body?.detail === "string" ? body.detail : `the answer was an error ${answer.status}`);
    if (body === null) throw new Refused(answer.status, "the answer was not the city's; is there another server or a log-in page in between?");
    return body;
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new NoAnswer(limit.signal.aborted ? `no answer within ${limit_s} s` : "the city cannot be reached");
  } finally {
    clearTimeout(timer);
  }
}

function readJson(text) {
  try {
    const body = JSON.parse(text);
    return typeof body === "object" ? body : null;
  } catch {
    return null;
  }
}

// A connection can die without a word, and a browser keeps it for later requests. Each probe takes one of these connections;
// without an answer it ends together with it. After this, requests go over new connections.
export function dropDeadConnections() {
  return Promise.allSettled(Array.from({ length: PROBES }, (_, i) => ask(`/healthz?probe=${i}`, { limit_s: PROBE_LIMIT_S })));
}

// For requests that may arrive twice without harm: if there is no answer, it is sent once more, over a new connection.
export async function insist(path, { method, limit_s, again }) {
  try {
    return await ask(path, { method, limit_s });
  } catch (error) {
    if (!(error instanceof NoAnswer)) throw error;
    again(error);
    await dropDeadConnections();
    return ask(path, { method, limit_s });
  }
}
