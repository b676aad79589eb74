// The console. Its state comes from /api/state, then from the stream /events. Every age is computed from the city's clock,
// which each message carries, so a wrong clock in this machine changes nothing.

import { fill, make, put } from "/static/dom.js";
import { drawAlarms, drawReader, drawSite, drawTag, find, firstView, onGround, reveal } from "/static/map.js";
import { KINDS, STATES, ago, byUrgency, clockTime, countWords, hops, isCall, lampWords, marks, metres, now, roughAgo, roughSpan, setClock, shortWords, span, standing, waitingWords, what } from "/static/phrases.js";

const $ = (id) => document.getElementById(id);
const QUIET_MAX_S = 12; // the city sends a message at least every 5 s
const FRESH_S = 120; // an older place is marked as old, an older arrival as told late
const CLOSED_MAX = 50;
const PASSAGES_MAX = 100;
const SETTLE_MS = 600; // a card that has just moved or changed takes no press: the press was meant for what was there before
const REMIND_S = 5; // the sound for a call that nobody has acknowledged is repeated after this

const incidents = new Map();
const cards = new Map();
const tags = new Map(); // pseudonym -> {position, presence, route_deviation, marker, ring, row}
const readers = new Map();
const notes = new Map();
const gateways = new Map();
let passages = [];
let heard_at = 0; // performance.now() of the last message
let said_at = 0; // the city's time in the last message
let lanes = {};
let source = null;
let retry_s = 1;
let audio = null;
let selected = null; // the child whose circle stays on the map until Escape, a second press or a press on the map
let pointed = null; // the child under the pointer or the keyboard's focus

// ---- drawing: only what has changed ------------------------------------------------------------------------------

function cardOf(number) {
  if (cards.has(number)) return cards.get(number);
  const card = $(isCall(incidents.get(number)) ? "card" : "notice").content.firstElementChild.cloneNode(true);
  card.dataset.number = number;
  const more = card.querySelector(".more");
  if (more) {
    more.addEventListener("click", () => {
      const open = more.getAttribute("aria-expanded") !== "true";
      more.setAttribute("aria-expanded", String(open));
      card.querySelector(".rest").hidden = !open;
    });
  }
  card.querySelector(".acknowledge").addEventListener("click", () => press(number, "acknowledge"));
  card.querySelector(".close").addEventListener("click", () => press(number, "close"));
  card.querySelector(".find").addEventListener("click", () => find(incidents.get(number), latestPlace(incidents.get(number))));
  card.addEventListener("animationend", () => card.classList.remove("fresh"));
  cards.set(number, card);
  return card;
}

function drawCard(incident) {
  const card = cardOf(incident.number);
  const fresh = incident.state === "new" && card.classList.contains("fresh") ? " fresh" : "";
  const kind = `card ${isCall(incident) ? "call" : "notice"} ${incident.state}${fresh}`;
  if (card.className !== kind) card.className = kind;
  const call = isCall(incident);
  put(card.querySelector(".kind"), call ? KINDS[incident.kind] : "Danger");
  const whose = incident.kind === "bell" ? "bell " : incident.kind === "unreadable" ? "gateway " : "tag ";
  put(card.querySelector(".subject"), call ? `${whose}${incident.subject}  #${incident.number}` : incident.subject);
  const waits = incident.state === "new" ? ` ${(call ? span : roughSpan)(now() - incident.stored_at)}` : "";
  put(card.querySelector(".state"), STATES[incident.state] + waits);
  const latest = latestPlace(incident);
  const found = marks(incident, latest);
  fill(card.querySelector(".marks"), JSON.stringify(found), () => found.map(([text, className]) => make("li", text, className)));
  put(card.querySelector(".what"), `${call ? "" : `#${incident.number}. `}${what(incident, latest)}`);
  if (call) {
    const lamp = card.querySelector(".lamp");
    lamp.hidden = incident.kind === "unreadable";
    const [lit, words] = lampWords(incident);
    lamp.className = `lamp ${lit}`;
    put(card.querySelector(".lamp-words"), words);
  } else put(card.querySelector(".short"), shortWords(incident));
  card.querySelector(".acknowledge").hidden = incident.state !== "new";
  card.querySelector(".close").hidden = incident.state !== "acknowledged";
  card.querySelector(".find").hidden = !incident.where && !latest;
  const steps = hops(incident);
  fill(card.querySelector(".hops"), JSON.stringify(steps), () =>
    steps.map(([name, at, delay]) => {
      const box = make("div");
      const value = make("dd", at);
      if (delay) value.append(make("span", delay, "delay"));
      box.append(make("dt", name), value);
      return box;
    }),
  );
  fill(card.querySelector(".log"), String(incident.log.length), () =>
    incident.log.map((line) => {
      const item = make("li");
      const who = line.who === "city" ? "" : ` by ${line.who}`;
      item.append(make("time", clockTime(line.at)), `${line.word.replaceAll("_", " ")}${who}${line.detail ? `: ${line.detail}` : ""}`);
      return item;
    }),
  );
}

function arrange(list, wanted) {
  const same = wanted.length === list.children.length && wanted.every((card, i) => list.children[i] === card);
  if (same) return;
  const focused = document.activeElement;
  list.replaceChildren(...wanted);
  if (focused && list.contains(focused)) focused.focus({ preventScroll: true });
}

function holdMoved(open) {
  open.forEach((incident, i) => {
    const card = cardOf(incident.number);
    const spot = `${i} ${incident.state}`;
    if (card.dataset.spot === spot) return;
    card.dataset.spot = spot;
    card.dataset.moved = "";
    setTimeout(() => delete card.dataset.moved, SETTLE_MS);
  });
}

function drawIncidents() {
  const all = [...incidents.values()];
  const open = all.filter((i) => i.state !== "closed").sort(byUrgency);
  const closed = all.filter((i) => i.state === "closed").sort((a, b) => b.closed_at - a.closed_at);
  for (const gone of closed.splice(CLOSED_MAX)) {
    incidents.delete(gone.number);
    cards.delete(gone.number);
  }
  for (const incident of [...open, ...closed]) drawCard(incident);
  holdMoved(open);
  arrange($("incident-list"), open.map((i) => cardOf(i.number)));
  arrange($("closed-list"), closed.map((i) => cardOf(i.number)));
  $("no-incidents").hidden = open.length > 0;
  $("closed").hidden = closed.length === 0;
  put($("closed-count"), String(closed.length));
  put($("incident-count"), countWords(open));
  const waits = waitingWords(open);
  put($("waiting"), waits);
  $("waiting").hidden = !waits;
  drawAlarms(open);
}

function newestPlace(tag) {
  if (tag.presence && tag.presence.state === "paused") return undefined; // the guardian does not want the place shown
  const placed = [tag.position, tag.presence].filter((word) => word && word.where);
  return placed.sort((a, b) => b.as_of - a.as_of)[0];
}

function latestPlace(incident) {
  const tag = incident.kind === "sos" || incident.kind === "danger" ? tags.get(incident.subject) : null;
  return tag ? newestPlace(tag) : null;
}

function drawChildren() {
  const subjects = (kind) => new Set([...incidents.values()].filter((i) => i.state !== "closed" && i.kind === kind).map((i) => i.subject));
  const [crying, near] = [subjects("sos"), subjects("danger")];
  const rank = (name) => (crying.has(name) ? 0 : near.has(name) ? 1 : 2);
  const known = (name) => tags.get(name).position || tags.get(name).presence;
  const rows = [...tags.keys()].filter(known).sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  for (const name of rows) {
    const tag = tags.get(name);
    if (!tag.row) {
      tag.row = make("tr");
      const cell = make("td");
      const button = make("button", name);
      button.type = "button";
      button.title = `${name}: show its circle on the map`;
      cell.append(button);
      const state = make("td");
      state.append(make("span", "", "glyph"), " ", make("span", "", "words"));
      tag.row.append(cell, state, make("td", "", "number"), make("td", "", "number"));
      tag.row.addEventListener("click", () => select(name));
      watch(tag.row, name);
    }
    const [glyph, kind, words] = standing(tag);
    const place = newestPlace(tag);
    const seen = Math.max(tag.position ? tag.position.as_of : 0, tag.presence && kind !== "unseen" ? tag.presence.as_of : 0) || tag.presence.as_of;
    const old = now() - seen > FRESH_S;
    const alarm = crying.has(name) ? "crying" : near.has(name) ? "near" : "";
    const className = `${kind} ${alarm}${name === selected ? " selected" : ""}`;
    tag.row.querySelector("button").setAttribute("aria-pressed", String(name === selected));
    if (tag.row.className !== className) tag.row.className = className;
    put(tag.row.querySelector(".glyph"), glyph);
    put(tag.row.querySelector(".words"), words);
    put(tag.row.cells[2], place ? metres(place.where.accuracy_95_m) : "–");
    put(tag.row.cells[3], roughAgo(seen));
    tag.row.cells[3].classList.toggle("old", old);
    drawTag(name, tag, place, { kind, alarm, old, ringed: alarm === "crying" || name === selected || name === pointed, crowd: rows.length });
    if (tag.marker && !tag.watched) {
      tag.watched = true;
      tag.marker.on("click", () => select(name));
      const spot = tag.marker.getElement();
      spot.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        select(name);
      });
      watch(spot, name);
    }
  }
  arrange($("children"), rows.map((name) => tags.get(name).row));
  put($("child-count"), rows.length ? String(rows.length) : "none heard yet");
}

function select(name) {
  selected = name === selected ? null : name;
  pointed = null;
  drawChildren();
  if (selected) reveal(tags.get(selected).marker);
}

function watch(element, name) {
  const point = (to) => () => {
    pointed = to;
    drawChildren();
  };
  for (const event of ["mouseenter", "focusin"]) element.addEventListener(event, point(name));
  for (const event of ["mouseleave", "focusout"]) element.addEventListener(event, point(null));
}

function selectNone() {
  selected = pointed = null;
  drawChildren();
}

function drawPassages() {
  fill($("arrivals"), JSON.stringify([passages.length, passages[0]]), () =>
    passages.map((p) => {
      const item = make("li");
      const words = p.kind === "arrival" ? `arrived at ${p.place}` : `left ${p.place}`;
      item.append(make("time", clockTime(p.as_of)), make("span", `${p.subject} ${words}`), make("span", `within ${metres(p.where.accuracy_95_m)}`, "right"));
      if (p.stored_at - p.as_of > FRESH_S) item.append(make("span", `told late, by ${span(p.stored_at - p.as_of)}`, "small"));
      return item;
    }),
  );
  put($("arrival-count"), passages.length ? String(passages.length) : "");
  $("no-arrivals").hidden = passages.length > 0;
}

function drawHealth() {
  const lines = [...gateways.values()].sort((a, b) => a.gateway.localeCompare(b.gateway)).map((g) => {
    const item = make("li");
    const backlog = Object.values(g.backlog).reduce((a, b) => a + b, 0);
    item.append(make("span", `${g.gateway}: ${g.online ? "✓ online" : "✗ OFFLINE"}`, g.online ? "" : "bad"));
    item.append(make("span", ago(g.heard_at), "right"));
    const silent = g.readers_silent ? `, ${g.readers_silent} silent` : "";
    item.append(make("span", `readers ${g.readers_ok} ok${silent}; waiting to be sent ${backlog}; clock ${g.clock}; version ${g.version}`, "small"));
    return item;
  });
  for (const note of notes.values()) {
    if (note.ok) continue;
    const item = make("li");
    item.append(make("span", `✗ ${note.gateway}: ${note.what.replaceAll("_", " ")}`, "bad"), make("span", ago(note.as_of), "right"), make("span", note.detail, "small"));
    lines.push(item);
  }
  $("gateways").replaceChildren(...lines);
  const each = [...readers.values()].sort((a, b) => a.reader - b.reader);
  $("readers").replaceChildren(
    ...each.map((r) => {
      const item = make("li");
      item.append(make("span", `${r.state === "ok" ? "✓" : "✗"} reader ${r.reader}${r.state === "ok" ? "" : " silent"}`, r.state === "ok" ? "" : "bad"), make("span", roughAgo(r.as_of), "right"));
      return item;
    }),
  );
  $("no-gateways").hidden = lines.length + each.length > 0;
}

// ---- messages from the city, and requests to it ------------------------------------------------------------------

function takeIncident(incident, loud) {
  const before = incidents.get(incident.number);
  if (before && before.version > incident.version) return; // this view is older than the one on the page
  incidents.set(incident.number, incident);
  const cried = !before || incident.alarms.length > before.alarms.length || (incident.overdue && !before.overdue);
  if (!loud || incident.state !== "new" || !cried) return;
  put($("announce"), `${KINDS[incident.kind]} ${incident.subject}${incident.drill ? ", drill" : ""}: ${incident.overdue ? "not acknowledged" : "new incident"}`);
  const card = cardOf(incident.number);
  card.classList.remove("fresh");
  requestAnimationFrame(() => card.classList.add("fresh"));
  beep(isCall(incident));
  if (!before && isCall(incident)) $("incidents").scrollTop = 0; // a new call is at the top: scroll there, so that it is visible at once
}

function takeWord(word) {
  if (word.about === "gateway") gateways.set(word.gateway, word);
  else if (word.kind === "position" || word.kind === "presence" || word.kind === "route_deviation") {
    if (!tags.has(word.subject)) tags.set(word.subject, {});
    tags.get(word.subject)[word.kind] = word;
  } else if (word.kind === "reader_health") {
    readers.set(word.reader, word);
    drawReader(word);
  } else if (word.kind === "gateway_health") notes.set(word.subject, word);
  else if (word.kind === "arrival" || word.kind === "departure") {
    const same = (p) => p.subject === word.subject && p.kind === word.kind && p.as_of === word.as_of;
    if (!passages.some(same)) passages = [word, ...passages].sort((a, b) => b.as_of - a.as_of).slice(0, PASSAGES_MAX);
  }
}

function heard(message) {
  heard_at = performance.now();
  said_at = message.at;
  setClock(message.at);
  if (message.lanes) lanes = message.lanes;
}

async function ask(path, method = "GET") {
  const answer = await fetch(path, { method, credentials: "same-origin" });
  if (answer.status === 401) window.location.assign("/login");
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.detail ?? `the city answered ${answer.status}`);
  return body;
}

async function press(number, action) {
  const card = cardOf(number);
  const problem = card.querySelector(".problem");
  const button = card.querySelector(`.${action}`);
  problem.hidden = button.disabled = true;
  try {
    takeIncident(await ask(`/api/incidents/${number}/${action}`, "POST"), false);
    draw();
    if (action === "acknowledge") card.focus({ preventScroll: true }); // not on Close: a second Enter must not close the incident
  } catch (error) {
    problem.textContent = `${action === "close" ? "Not closed" : "Not acknowledged"}: ${error.message}. Press again.`;
    problem.hidden = false;
  } finally {
    button.disabled = false;
  }
}

async function load(first) {
  const state = await ask("/api/state");
  heard({ at: state.at, lanes: Object.fromEntries(Object.entries(state.lanes).map(([lane, of]) => [lane, of.connected])) });
  const known = new Set(incidents.keys());
  for (const incident of state.incidents) takeIncident(incident, first ? false : !known.has(incident.number));
  for (const word of state.words) takeWord(word);
  for (const gateway of state.gateways) takeWord({ about: "gateway", ...gateway });
  passages = state.passages;
  draw();
  firstView([...incidents.values()].filter((i) => i.state !== "closed" && isCall(i)));
  if (first) $("announce").textContent = "";
  return state.position;
}

async function connect(first) {
  try {
    const position = await load(first);
    retry_s = 1;
    beat();
    if (source) source.close();
    source = new EventSource(`/events?after=${encodeURIComponent(position)}`);
    const on = (name, action) =>
      source.addEventListener(name, (event) => {
        const message = JSON.parse(event.data);
        heard(message);
        action(message);
      });
    on("incident", (m) => (takeIncident(m.incident, true), draw()));
    on("words", (m) => (m.words.forEach(takeWord), draw()));
    on("tick", () => draw());
    on("reset", () => connect(false));
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) again();
    });
  } catch (error) {
    again();
  }
}

let planned = null;
function again() {
  if (planned) return;
  planned = setTimeout(() => {
    planned = null;
    connect(false);
  }, retry_s * 1000);
  retry_s = Math.min(retry_s * 2, 10);
}

// ---- every second ------------------------------------------------------------------------------------------------

function draw() {
  drawIncidents();
  drawChildren();
  drawPassages();
  drawHealth();
}

function beat() {
  const quiet_s = (performance.now() - heard_at) / 1000;
  const cut = said_at > 0 && quiet_s > QUIET_MAX_S;
  if (cut && source && source.readyState === EventSource.OPEN) {
    source.close(); // open but silent: the connection is dead, and the browser has not noticed
    again();
  }
  const dead = Object.entries(lanes).filter(([, up]) => !up).map(([lane]) => (lane === "sos" ? "emergencies" : "places"));
  const lost = $("lost");
  let words = "";
  if (cut) words = `Connection to the city lost. What you see is from ${clockTime(said_at)}, ${span(quiet_s)} old. Calls for help do not reach this screen.`;
  else if (dead.length) words = `The city has no connection to its broker: no ${dead.join(", no ")} arrive. The gateways keep them and send them later.`;
  lost.hidden = !words;
  put(lost, words);
  document.body.classList.toggle("is-cut", cut);
  $("link").className = `link ${cut || dead.length ? "cut" : said_at ? "live" : ""}`;
  put($("link-words"), cut ? "cut off" : dead.length ? "broker lost" : said_at ? "live" : "connecting");
  if (said_at) put($("clock"), clockTime(now()));
  const calls = [...incidents.values()].filter((i) => i.state === "new" && isCall(i));
  const flash = calls.length && Math.floor(now()) % 2 ? waitingWords(calls) : `${calls.length ? `(${calls.length}) ` : ""}Ansim ${document.body.dataset.site}`;
  if (document.title !== flash) document.title = flash;
  if (calls.some((i) => !i.drill) && Math.floor(now()) % REMIND_S === 0) beep(true);
  draw();
}

function beep(call) {
  if (!audio) return;
  for (const [at, pitch] of call ? [[0, 880], [0.22, 660], [0.44, 880]] : [[0, 440]]) {
    const tone = audio.createOscillator();
    const gain = audio.createGain();
    tone.frequency.value = pitch;
    gain.gain.setValueAtTime(0.25, audio.currentTime + at);
    gain.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + at + 0.2);
    tone.connect(gain).connect(audio.destination);
    tone.start(audio.currentTime + at);
    tone.stop(audio.currentTime + at + 0.2);
  }
}

$("sound").addEventListener("click", (event) => {
  if (audio) audio.close();
  audio = audio ? null : new AudioContext(); // a browser allows sound only after a press
  event.target.setAttribute("aria-pressed", String(audio !== null));
  put(event.target, `Sound: ${audio ? "on" : "off"}`);
  beep(true);
});

$("waiting").addEventListener("click", (event) => {
  event.preventDefault();
  $("incidents").scrollTop = 0;
  $("incidents").scrollIntoView();
  const card = $("incident-list").firstElementChild;
  if (card) card.focus({ preventScroll: true });
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") selectNone();
});
onGround(selectNone);

ask("/map.geojson").then(drawSite, () => {}).finally(() => connect(true));
setInterval(beat, 1000);
