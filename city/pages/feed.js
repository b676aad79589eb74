// The connection to the city: the stream of events while it works, the whole state every few seconds while it does not. It
// knows no page, so it runs in a shared worker for all tabs of a browser, or in a tab.
//
// It tells objects with `about`: state, incident, words, tick (each with the city's own message), link (every second: how the
// connection is) and login (the session is over). Messages may repeat and overtake each other; each carries what tells old from new.

import { NoAnswer, ask, dropDeadConnections } from "/static/ask.js";

const OPEN_MAX_S = 5; // a stream that is CONNECTING for longer is given up
const QUIET_MAX_S = 5; // the city sends a tick every 2 s: a stream that is silent for longer is dead
const PAUSE_MAX_S = 30; // between two tries of the stream; meanwhile the state is read
const READ_EVERY_S = 2.5;
const READS_MAX = 3; // at the same time: one that hangs must not keep the next one waiting
const READ_LIMIT_S = 6;
const READ_LONG_EVERY = 3; // every third one may take long, for a line on which the state needs more than READ_LIMIT_S
const READ_LONG_S = 20;
const DROP_EVERY_S = 5;

const now_s = () => performance.now() / 1000;

export class Feed {
  // withStream false: it only reads the state. Only one stream a browser: a browser has few connections to one host.
  constructor(tell, { withStream = true } = {}) {
    this.tell = tell;
    this.withStream = withStream;
    this.timer = null;
  }

  start() {
    if (this.timer !== null) return;
    this.source = null;
    this.opened_at = this.streamed_at = this.answered_at = this.read_at = this.dropped_at = -Infinity;
    this.try_at = now_s();
    this.pause_s = 1;
    this.reads = 0;
    this.asked = this.answered = this.owed = 0;
    this.why = this.withStream ? "" : "this tab shares no stream with others";
    this.timer = setInterval(() => this.watch(), 1000);
    if (this.withStream) this.openStream();
    this.read();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    if (this.source) this.source.close();
    this.source = null;
  }

  watch() {
    const at = now_s();
    const source = this.source;
    if (source && source.readyState === EventSource.CONNECTING && at - this.opened_at > OPEN_MAX_S) {
      this.giveUp(`the stream did not open within ${OPEN_MAX_S} s`, true);
    } else if (source && source.readyState === EventSource.OPEN && at - Math.max(this.streamed_at, this.opened_at) > QUIET_MAX_S) {
      this.giveUp(`the stream was silent for ${QUIET_MAX_S} s`, true);
    } else if (!source && this.withStream && at >= this.try_at) this.openStream();
    const streams = at - this.streamed_at <= QUIET_MAX_S;
    if ((!streams || this.answered < this.owed) && at - this.read_at >= READ_EVERY_S) this.read();
    const how = streams ? "live" : at - this.answered_at <= 2 * READ_LIMIT_S ? "asking" : "cut";
    this.tell({ about: "link", how, why: this.why, retry_s: Math.max(0, this.try_at - at) });
  }

  openStream() {
    const source = new EventSource("/events");
    this.source = source;
    this.opened_at = now_s();
    let began = false;
    source.addEventListener("error", () => {
      if (this.source === source) this.giveUp("the stream was ended", false);
    });
    for (const about of ["incident", "words", "tick", "reset"]) {
      source.addEventListener(about, (event) => {
        if (this.source !== source) return;
        this.streamed_at = this.answered_at = now_s();
        this.pause_s = 1;
        this.why = "";
        if (!began || about === "reset") this.owe(); // the city listens for this stream from before its first message on
        began = true;
        if (about !== "reset") {
          try {
            this.tell({ about, ...JSON.parse(event.data) });
          } catch (error) {
            console.error("a message of the stream", error);
            this.owe(); // it is in the state too
          }
        }
      });
    }
  }

  giveUp(why, silently) {
    this.source.close();
    this.source = null;
    this.streamed_at = -Infinity;
    this.why = why;
    this.try_at = now_s() + this.pause_s;
    this.pause_s = Math.min(2 * this.pause_s, PAUSE_MAX_S);
    if (silently) this.dropDead();
    this.read();
  }

  dropDead() {
    if (now_s() - this.dropped_at < DROP_EVERY_S) return;
    this.dropped_at = now_s();
    dropDeadConnections();
  }

  // A state that is asked for from now on must come: what happened before now may be neither in the stream nor in an older one.
  owe() {
    if (this.timer === null) return;
    this.owed = this.asked + 1;
    this.read();
  }

  async read() {
    if (this.timer === null || this.reads >= READS_MAX) return;
    this.reads += 1;
    this.read_at = now_s();
    const mine = ++this.asked;
    try {
      const state = await ask("/api/state", { limit_s: mine % READ_LONG_EVERY ? READ_LIMIT_S : READ_LONG_S });
      if (this.timer === null || mine < this.answered) return; // a later question was answered before
      this.answered = mine;
      this.answered_at = now_s();
      this.tell({ about: "state", state });
    } catch (error) {
      if (this.timer === null) return;
      if (error.status === 401) this.tell({ about: "login" });
      this.why = error.message;
      if (error instanceof NoAnswer) this.dropDead();
    } finally {
      this.reads -= 1;
    }
  }
}
