// The console: what the city told, drawn. Every age is computed from the city's clock, which each message carries, so a wrong
// clock in this machine changes nothing. Each part of the page is drawn by itself; what fails in one is said in the head.

import { announce, cardOf, drawCard, dropCard, holdMoved, press } from "/static/cards.js";
import { fill, make, put } from "/static/dom.js";
import { ask } from "/static/ask.js";
import { share } from "/static/share.js";
import { beep, drawSound, openSound } from "/static/sound.js";
import { ago, byUrgency, clockTime, countWords, isCall, isLoud, metres, now, roughAgo, setClock, span, standing, waitingWords, zoneKnown } from "/static/phrases.js";

const $ = (id) => document.getElementById(id);
const QUIET_MAX_S = 12; // after this without a word from the city the page says that it is cut off
const UNKNOWN_MAX_S = 5; // after this without any state the page says that it knows nothing
const FRESH_S = 120; // an older place is marked as old, an older arrival as told late
const CLOSED_MAX = 50;
const PASSAGES_MAX = 100;
const FAULT_CHARS_MAX = 160;
const SURE_S = 5; // a state lists what was stored this long before it
const REMIND_S = 5; // the sound for a call that nobody has acknowledged is repeated after this
const MAP_LIMIT_S = 10;

const incidents = new Map();
const tags = new Map(); // pseudonym -> {the newest word of each kind: position, presence, route_deviation ..; marker, ring, row}
const readers = new Map(); // gateway and reader -> the newest word
const notes = new Map();
const gateways = new Map();
const faults = new Map(); // part of this page -> the error that it failed with
let passages = [];
let boot = null; // which run of the city the state is from
let heard_at = 0; // performance.now() of the last message
let said_at = 0; // the city's time in the last message; 0: this page never got the state
let link = { how: "cut", why: "" };
let lanes = {};
let problems = []; // what the city says of itself: its disk, its log, its threads, its gateways' keys
let beaten_at = 0;
let sounded_at = 0;
let chart = null; // the map, once it is loaded
let selected = null; // the child whose circle stays on the map until Escape, a second press or a press on the map
let pointed = null; // the child under the pointer or the keyboard's focus

// ---- drawing: only what has changed ------------------------------------------------------------------------------

// Runs one part of the page. Returns whether it succeeded; if not, the head of the page says so.
function safely(part, action) {
  try {
    action();
    faults.delete(part);
    return true;
  } catch (error) {
    if (!faults.has(part)) console.error(part, error);
    faults.set(part, String(error.message ?? error).slice(0, FAULT_CHARS_MAX));
    return false;
  }
}

// Does all of a list, each by itself; throws the last error after that.
function each(list, action) {
  let failed = null;
  for (const one of list) {
    try {
      action(one);
    } catch (error) {
      failed = error;
    }
  }
  if (failed) throw failed;
}

const act = {
  press: (number, action) => press(incidents.get(number), action, { taken: (view) => takeIncident(view, false), changed: draw }),
  find: (number) => chart && chart.find(incidents.get(number), latestPlace(incidents.get(number))),
};

function arrange(list, wanted) {
  const same = wanted.length === list.children.length && wanted.every((card, i) => list.children[i] === card);
  if (same) return;
  const focused = document.activeElement;
  list.replaceChildren(...wanted);
  if (focused && list.contains(focused)) focused.focus({ preventScroll: true });
}

function drawIncidents() {
  const all = [...incidents.values()];
  const open = all.filter((i) => i.state !== "closed").sort(byUrgency);
  const closed = all.filter((i) => i.state === "closed").sort((a, b) => b.closed_at - a.closed_at);
  for (const gone of closed.splice(CLOSED_MAX)) {
    forget(gone.number);
  }
  const failed = [];
  for (const incident of [...open, ...closed]) {
    const fault = drawCard(incident, latestPlace(incident), act);
    if (fault) failed.push(`#${incident.number}: ${fault.message}`);
  }
  open.forEach((incident, i) => holdMoved(cardOf(incident, act), `${i} ${incident.state}`));
  arrange($("incident-list"), open.map((i) => cardOf(i, act)));
  arrange($("closed-list"), closed.map((i) => cardOf(i, act)));
  put($("no-incidents"), said_at ? "No open incident." : "Not known: this page has not had the list of incidents from the city.");
  $("no-incidents").classList.toggle("unknown", !said_at);
  $("no-incidents").hidden = open.length > 0;
  $("closed").hidden = closed.length === 0;
  put($("closed-count"), String(closed.length));
  put($("incident-count"), countWords(open));
  const waits = waitingWords(open);
  put($("waiting"), waits);
  $("waiting").hidden = !waits;
  safely("cards", () => {
    if (failed.length) throw new Error(`not drawn in full: ${failed.join(", ")}`);
  });
  safely("calls on the map", () => chart && chart.drawAlarms(open));
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
  const subjects = (kind) => new Set([...incidents.values()].filter((i) => i.state !== "closed" && i.kind === kind && (isLoud(i) || !isCall(i))).map((i) => i.subject));
  const [crying, near] = [subjects("sos"), subjects("danger")];
  const rank = (name) => (crying.has(name) ? 0 : near.has(name) ? 1 : 2);
  const known = (name) => tags.get(name).position || tags.get(name).presence;
  const rows = [...tags.keys()].filter(known).sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  arrange($("children"), rows.map(rowOf));
  put($("child-count"), rows.length ? String(rows.length) : said_at ? "none heard yet" : "not known");
  each(rows, (name) => drawChild(name, crying.has(name) ? "crying" : near.has(name) ? "near" : "", rows.length));
}

function rowOf(name) {
  const tag = tags.get(name);
  if (tag.row) return tag.row;
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
  return tag.row;
}

function drawChild(name, alarm, crowd) {
  const tag = tags.get(name);
  const row = rowOf(name);
  const [glyph, kind, words] = standing(tag);
  const place = newestPlace(tag);
  const seen = Math.max(tag.position ? tag.position.as_of : 0, tag.presence && kind !== "unseen" ? tag.presence.as_of : 0) || tag.presence.as_of;
  const old = now() - seen > FRESH_S;
  const className = `${kind} ${alarm}${name === selected ? " selected" : ""}`;
  row.querySelector("button").setAttribute("aria-pressed", String(name === selected));
  if (row.className !== className) row.className = className;
  put(row.querySelector(".glyph"), glyph);
  put(row.querySelector(".words"), words);
  put(row.cells[2], place ? metres(place.where.accuracy_95_m) : "–");
  put(row.cells[3], roughAgo(seen));
  row.cells[3].classList.toggle("old", old);
  if (!chart) return;
  chart.drawTag(name, tag, place, { kind, alarm, old, ringed: alarm === "crying" || name === selected || name === pointed, crowd });
  if (!tag.marker || tag.watched) return;
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

function select(name) {
  selected = name === selected ? null : name;
  pointed = null;
  safely("children", drawChildren);
  if (selected && chart) chart.reveal(tags.get(selected).marker);
}

function watch(element, name) {
  const point = (to) => () => {
    pointed = to;
    safely("children", drawChildren);
  };
  for (const event of ["mouseenter", "focusin"]) element.addEventListener(event, point(name));
  for (const event of ["mouseleave", "focusout"]) element.addEventListener(event, point(null));
}

function selectNone() {
  selected = pointed = null;
  safely("children", drawChildren);
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
  put($("no-arrivals"), said_at ? "None yet." : "Not known.");
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
  const each = [...readers.values()].sort((a, b) => a.reader - b.reader || a.gateway.localeCompare(b.gateway));
  const several = new Set(each.map((r) => r.gateway)).size > 1; // each gateway counts its readers from 1
  $("readers").replaceChildren(
    ...each.map((r) => {
      const item = make("li");
      const name = `reader ${r.reader}${several ? ` of ${r.gateway}` : ""}`;
      item.append(make("span", `${r.state === "ok" ? "✓" : "✗"} ${name}${r.state === "ok" ? "" : " silent"}`, r.state === "ok" ? "" : "bad"), make("span", roughAgo(r.as_of), "right"));
      return item;
    }),
  );
  put($("no-gateways"), said_at ? "No gateway heard yet." : "Not known.");
  $("no-gateways").hidden = lines.length + each.length > 0;
  if (!chart) return;
  for (const number of new Set(each.map((r) => r.reader))) chart.drawReader(number, each.every((r) => r.reader !== number || r.state === "ok"));
}

// ---- messages from the city --------------------------------------------------------------------------------------

function forget(number) {
  incidents.delete(number);
  dropCard(number);
}

function takeIncident(incident, loud) {
  if (incident.moved_to) { // it was only in the city's memory, and has its number in the store now
    forget(incident.number);
    return;
  }
  const before = incidents.get(incident.number);
  if (before && before.version > incident.version) return; // this view is older than the one on the page
  incidents.set(incident.number, incident);
  const cried = !before || (incident.alarms?.length ?? 0) > (before.alarms?.length ?? 0) || (incident.overdue && !before.overdue);
  if (!loud || incident.state !== "new" || !cried) return;
  beep(isLoud(incident));
  announce(incident, cardOf(incident, act));
  if (!before && isLoud(incident)) $("incidents").scrollTop = 0; // a new call is at the top: scroll there, so that it is visible at once
}

const isOlder = (word, held) => held !== undefined && held.as_of > word.as_of;

function takeWord(word) {
  const name = `${word.gateway} ${word.subject ?? ""}`;
  const keep = (map, key) => {
    if (!isOlder(word, map.get(key))) map.set(key, word);
  };
  if (word.about === "gateway") {
    const held = gateways.get(word.gateway);
    if (!held || held.at <= word.at || held.heard_at <= word.heard_at) gateways.set(word.gateway, word);
  } else if (word.tag !== undefined) {
    if (!tags.has(word.subject)) tags.set(word.subject, {});
    const tag = tags.get(word.subject);
    if (!isOlder(word, tag[word.kind])) tag[word.kind] = word;
  } else if (word.kind === "reader_health") keep(readers, `${word.gateway} ${word.reader}`);
  else if (word.kind === "gateway_health") keep(notes, name);
  else if (word.kind === "arrival" || word.kind === "departure") {
    const same = (p) => p.subject === word.subject && p.kind === word.kind && p.as_of === word.as_of;
    if (!passages.some(same)) passages = [word, ...passages].sort((a, b) => b.as_of - a.as_of).slice(0, PASSAGES_MAX);
  }
}

function takeState(state) {
  const first = boot === null;
  const run = String(state.position).split("-")[0];
  const listed = new Set(state.incidents.map((i) => i.number));
  if (!first && run !== boot) { // the city was started again, perhaps with another store: its numbers may mean other incidents
    for (const number of [...incidents.keys()]) {
      if (!listed.has(number)) forget(number);
      else incidents.get(number).version = -1;
    }
  }
  const moved = (i) => i.only_in_memory && !listed.has(i.number) && state.at > i.stored_at + SURE_S;
  for (const incident of [...incidents.values()].filter(moved)) forget(incident.number);
  boot = run;
  const gateways = state.gateways.map((gateway) => ({ about: "gateway", ...gateway }));
  safely("an incident", () => each(state.incidents, (incident) => takeIncident(incident, !first)));
  safely("words", () => each([...state.words, ...gateways, ...state.passages], takeWord));
}

function heard(message) {
  heard_at = performance.now();
  said_at = message.at;
  setClock(message.at);
  if (message.lanes) lanes = message.lanes;
  if (message.problems) problems = message.problems;
}

function take(message) {
  const { about } = message;
  if (about === "link") {
    link = message;
    beat();
    return;
  }
  if (about === "login") {
    window.location.assign("/login");
    return;
  }
  if (about === "state") {
    if (!Array.isArray(message.state?.incidents)) return;
    heard(message.state);
    safely("the state", () => takeState(message.state));
  } else {
    if (said_at) heard(message);
    else setClock(message.at); // before the first state a message must not look like knowledge of everything
    if (about === "incident") safely("an incident", () => takeIncident(message.incident, true));
    if (about === "words") safely("words", () => each(message.words, takeWord));
  }
  draw();
  if (about === "state" && chart) safely("map", firstView);
}

// ---- every second ------------------------------------------------------------------------------------------------

function draw() {
  const drawn = safely("incidents", drawIncidents);
  safely("children", drawChildren);
  safely("arrivals", drawPassages);
  safely("gateways and readers", drawHealth);
  if (drawn && said_at && !faults.has("an incident") && !faults.has("the state")) holdPlainList();
}

// The style sheet shows the plain list of open calls by itself, a few seconds after this was last called: so the list appears
// whatever becomes of this script.
function holdPlainList() {
  for (const animation of $("plain").getAnimations()) animation.currentTime = 0;
}

function causes() {
  const down = Object.entries(lanes).filter(([, of]) => !of.connected || of.store_problem);
  if (!down.length) return "";
  const store = down.map(([, of]) => of.store_problem).find(Boolean);
  const what = down.map(([lane]) => (lane === "sos" ? "emergencies" : "places")).join(", no ");
  const why = store ? `The city cannot write into its store (${store})` : `The city has no connection to its broker${down[0][1].problem ? ` (${down[0][1].problem})` : ""}`;
  return `${why}: no ${what} arrive. The gateways keep them and send them later.`;
}

function lostWords(quiet_s) {
  const why = link.why ? ` (${link.why})` : "";
  if (!said_at) return performance.now() > UNKNOWN_MAX_S * 1000 ? `This page knows nothing yet: it has not had the state from the city${why}. Calls for help do not reach this screen. It keeps trying.` : "";
  if (quiet_s > QUIET_MAX_S) return `Connection to the city lost${why}. What you see is from ${clockTime(said_at)}, ${span(quiet_s)} old. Calls for help do not reach this screen.`;
  return causes();
}

function drawHead() {
  const quiet_s = (performance.now() - heard_at) / 1000;
  const cut = said_at > 0 && quiet_s > QUIET_MAX_S;
  const words = lostWords(quiet_s);
  $("lost").hidden = !words;
  put($("lost"), words);
  document.body.classList.toggle("is-cut", cut);
  const asking = said_at > 0 && !cut && link.how === "asking";
  $("link").className = `link ${cut || words ? "cut" : said_at && link.how === "live" ? "live" : ""}`;
  put($("link-words"), cut ? "cut off" : words && said_at ? "city in trouble" : !said_at ? "connecting" : asking ? "asking every 3 s" : link.how === "live" ? "live" : "connecting");
  $("link").title = asking ? `The stream of events does not come through (${link.why}); the page asks for the whole state instead.` : "";
  const zone = zoneKnown ? "" : `This browser does not know the city's time zone ${document.body.dataset.timezone}: all times are UTC. `;
  const failed = [...faults].map(([part, error]) => `${part}: ${error}`).join("; ");
  const said = problems.length ? `The city reports: ${problems.join("; ")}. ` : "";
  put($("fault-words"), `${zone}${said}${failed ? `A part of this page failed (${failed}). The rest goes on.` : ""}`);
  $("faults").hidden = !$("fault-words").textContent;
  if (said_at) put($("clock"), clockTime(now()));
  drawSound();
}

function remind() {
  const calls = [...incidents.values()].filter((i) => i.state === "new" && isLoud(i));
  const flash = calls.length && Math.floor(now()) % 2 ? waitingWords(calls) : `${calls.length ? `(${calls.length}) ` : ""}Ansim ${document.body.dataset.site}`;
  if (document.title !== flash) document.title = flash;
  if (!calls.some((i) => !i.drill) || performance.now() - sounded_at < REMIND_S * 1000 - 300) return;
  sounded_at = performance.now();
  beep(true);
}

function beat() {
  if (performance.now() - beaten_at < 500) return; // both the clock of this tab, slow in the background, and the feed's call it
  beaten_at = performance.now();
  draw();
  safely("the head", drawHead);
  safely("the reminder", remind);
}

// ---- the map and the handlers ------------------------------------------------------------------------------------

function firstView() {
  chart.firstView([...incidents.values()].filter((i) => i.state !== "closed" && isLoud(i)));
}

async function openMap() {
  const leftOut = [];
  try {
    const [loaded, site] = await Promise.all([import("/static/map.js"), ask("/map.geojson", { limit_s: MAP_LIMIT_S }).catch((error) => error)]);
    if (site instanceof Error) leftOut.push(`the site's map did not come: ${site.message}`);
    else leftOut.push(...loaded.drawSite(site));
    chart = loaded;
    chart.onGround(selectNone);
    if (said_at) firstView();
  } catch (error) {
    leftOut.push(`the map failed: ${error.message}`);
    console.error("map", error);
  }
  $("left-out").hidden = !leftOut.length;
  put($("left-out"), `Left out of the map: ${leftOut.join("; ")}. The lists show everything.`);
  draw();
}

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
document.addEventListener("visibilitychange", beat);

safely("sound", openSound);
const hub = share((message) => safely("a message", () => take(message)), document.body.dataset.build);
$("logout").addEventListener("submit", () => hub.logout());
setInterval(beat, 1000);
openMap();
