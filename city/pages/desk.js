// The dispatcher's page. State comes from /api/state, then from the stream /events; every age is reckoned from the
// city's clock, which each message carries, so that a wrong clock in this machine changes nothing.

const L = window.L;
const $ = (id) => document.getElementById(id);
const QUIET_MAX_S = 12; // the city speaks at least every 5 s
const FRESH_S = 120; // a place older than this is called old
const PLACE_OLD_S = 30; // the same for the place of somebody who cries
const CLOSED_MAX = 50;
const PASSAGES_MAX = 100;
const RINGS_MAX = 300; // accuracy circles drawn; more are only noise

const zone = document.body.dataset.timezone;
const clockFormat = new Intl.DateTimeFormat("en-GB", { timeZone: zone, hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-CA", { timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit" });

const incidents = new Map();
const cards = new Map();
const tags = new Map(); // pseudonym -> {position, presence, marker, ring, row}
const readers = new Map();
const notes = new Map();
const gateways = new Map();
let passages = [];
let offset_s = 0;
let heard_at = 0; // performance.now() of the last message
let said_at = 0; // the city's time of the last message
let lanes = {};
let source = null;
let retry_s = 1;
let audio = null;

const now = () => Date.now() / 1000 + offset_s;

// ---- words -------------------------------------------------------------------------------------------------------

function clockTime(at) {
  const text = clockFormat.format(at * 1000);
  const day = dayFormat.format(at * 1000);
  return day === dayFormat.format(now() * 1000) ? text : `${day} ${text}`;
}

function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} days`;
}

const ago = (at) => `${span(now() - at)} ago`;
const metres = (m) => (m < 10 ? `${m.toFixed(1)} m` : `${Math.round(m)} m`);
const KINDS = { sos: "SOS", bell: "Bell", danger: "Danger area", unreadable: "Unreadable emergency" };
const STATES = { new: "NEW", acknowledged: "ACKNOWLEDGED", closed: "CLOSED" };
const ORDER = ["received", "stored", "acknowledged", "dispatched", "closed"];

function furthestTold(incident) {
  const told = incident.alarms.flatMap((alarm) => alarm.told);
  return told.sort((a, b) => ORDER.indexOf(b.stage) - ORDER.indexOf(a.stage) || a.stored_at - b.stored_at)[0];
}

function lampWords(incident) {
  const told = furthestTold(incident);
  if (!told) return ["", "lamp: no word from it yet"];
  const lit = `${clockTime(told.told_at)}, reader ${told.reader}`;
  if (told.stage === "closed") return ["lit-help", `lamp: closed (${lit})`];
  if (ORDER.indexOf(told.stage) >= 2) return ["lit-help", `lamp: help is coming, lit ${lit}`];
  const more = incident.state === "new" ? "" : "; help is coming: on its way to the lamp";
  return ["lit-received", `lamp: received, lit ${lit}${more}`];
}

function placeWords(incident) {
  if (!incident.where) return "Place unknown.";
  const heard = incident.readers.length ? ` Heard by ${incident.readers.length === 1 ? "reader" : "readers"} ${incident.readers.join(", ")}.` : "";
  return `Within ${metres(incident.where.accuracy_95_m)}, as of ${ago(incident.where_at)}.${heard}`;
}

function what(incident) {
  if (incident.kind === "unreadable") return `Gateway ${incident.gateway} sent an emergency that cannot be read: ${incident.detail}. Call the site.`;
  const pressed = `${clockTime(incident.observed_at)}, ${ago(incident.observed_at)}`;
  if (incident.kind === "danger") {
    const clear = incident.cleared_at ? ` Clear again since ${clockTime(incident.cleared_at)}.` : "";
    return `Near ${incident.area} at ${pressed} (${Math.round((incident.probability ?? 0) * 100)} % sure).${clear} ${placeWords(incident)}`;
  }
  const times = incident.presses > 1 ? ` (${incident.presses} presses)` : "";
  return `Pressed at ${pressed}${times}. ${placeWords(incident)}`;
}

function marks(incident) {
  const found = [];
  if (incident.overdue && incident.state === "new") found.push(["OVERDUE: nobody has acknowledged", "strong"]);
  if (incident.drill) found.push(["DRILL", "plain"]);
  if (incident.trust === "unverified") found.push(["UNVERIFIED: call before you send anyone", ""]);
  if (incident.late_s !== null) found.push([`LATE by ${span(incident.late_s)}`, ""]);
  if (incident.clock === "unsure") found.push(["the gateway's clock is unsure", "plain"]);
  if (incident.where_at && incident.state !== "closed" && now() - incident.where_at > PLACE_OLD_S) found.push(["place is old", ""]);
  if (incident.battery_mv && incident.battery_mv < 2500) found.push([`tag battery ${incident.battery_mv} mV`, "plain"]);
  return found;
}

function hops(incident) {
  const help = incident.alarms.flatMap((a) => a.told).filter((t) => ORDER.indexOf(t.stage) >= 2 && t.stage !== "closed");
  const lit = help.length ? Math.min(...help.map((t) => t.told_at)) : null;
  const steps = [
    [incident.kind === "danger" ? "Came near" : "Pressed", incident.observed_at],
    ["Gateway has it", incident.queued_at],
    ["City has it", incident.stored_at],
    ["On a screen", incident.shown_at],
    [`Acknowledged${incident.acknowledged_by ? ` by ${incident.acknowledged_by}` : ""}`, incident.acknowledged_at],
    ["Lamp: help", lit],
    [`Closed${incident.closed_by ? ` by ${incident.closed_by}` : ""}`, incident.closed_at],
  ].filter(([, at]) => at !== null);
  return steps.map(([name, at], i) => {
    const delay = i ? at - steps[i - 1][1] : null;
    const words = delay === null ? "" : delay < 0 ? "clocks differ" : delay < 60 ? `+${delay.toFixed(delay < 10 ? 2 : 1)} s` : `+${span(delay)}`;
    return [name, clockTime(at), words];
  });
}

// ---- drawing, only what changed ----------------------------------------------------------------------------------

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(name, text, className) {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function fill(list, key, rows) {
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...rows());
}

function cardOf(number) {
  if (cards.has(number)) return cards.get(number);
  const card = $("card").content.firstElementChild.cloneNode(true);
  card.dataset.number = number;
  card.querySelector(".acknowledge").addEventListener("click", () => press(number, "acknowledge"));
  card.querySelector(".close").addEventListener("click", () => press(number, "close"));
  card.querySelector(".find").addEventListener("click", () => find(incidents.get(number)));
  cards.set(number, card);
  return card;
}

function drawCard(incident) {
  const card = cardOf(incident.number);
  const fresh = card.classList.contains("fresh") ? " fresh" : "";
  const kind = `card ${incident.state}${fresh}`;
  if (card.className !== kind) card.className = kind;
  put(card.querySelector(".kind"), KINDS[incident.kind]);
  const whose = incident.kind === "bell" ? "bell " : incident.kind === "unreadable" ? "gateway " : "tag ";
  put(card.querySelector(".subject"), `${whose}${incident.subject}  #${incident.number}`);
  const waits = incident.state === "new" ? ` ${span(now() - incident.stored_at)}` : "";
  put(card.querySelector(".state"), STATES[incident.state] + waits);
  const found = marks(incident);
  fill(card.querySelector(".marks"), JSON.stringify(found), () => found.map(([text, className]) => make("li", text, className)));
  put(card.querySelector(".what"), what(incident));
  const lamp = card.querySelector(".lamp");
  lamp.hidden = incident.kind === "danger" || incident.kind === "unreadable";
  const [lit, words] = lampWords(incident);
  lamp.className = `lamp ${lit}`;
  put(card.querySelector(".lamp-words"), words);
  card.querySelector(".acknowledge").hidden = incident.state !== "new";
  card.querySelector(".close").hidden = incident.state !== "acknowledged";
  card.querySelector(".find").hidden = !incident.where;
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
  if (focused && list.contains(focused)) focused.focus();
}

function drawIncidents() {
  const all = [...incidents.values()];
  const weight = (i) => (i.state === "new" ? 0 : 10) + (i.cleared_at ? 4 : 0) + (i.drill ? 2 : 0) + (i.kind === "danger" ? 1 : 0);
  const open = all.filter((i) => i.state !== "closed").sort((a, b) => weight(a) - weight(b) || a.stored_at - b.stored_at);
  const closed = all.filter((i) => i.state === "closed").sort((a, b) => b.closed_at - a.closed_at);
  for (const gone of closed.splice(CLOSED_MAX)) {
    incidents.delete(gone.number);
    cards.delete(gone.number);
  }
  for (const incident of [...open, ...closed]) drawCard(incident);
  arrange($("incident-list"), open.map((i) => cardOf(i.number)));
  arrange($("closed-list"), closed.map((i) => cardOf(i.number)));
  $("no-incidents").hidden = open.length > 0;
  $("closed").hidden = closed.length === 0;
  put($("closed-count"), String(closed.length));
  const fresh = open.filter((i) => i.state === "new").length;
  put($("incident-count"), open.length ? `${fresh} new, ${open.length - fresh} acknowledged` : "");
  drawAlarms(open);
}

const PRESENCE = {
  at: (p) => ["●", "at", `at ${p.place}`],
  moving: () => ["▲", "moving", "moving"],
  uncertain: () => ["?", "unseen", "place unsure"],
  unseen: (p) => ["?", "unseen", p.place ? `unseen, last at ${p.place}` : "unseen"],
  not_covered: () => ["!", "unseen", "reader dead: not covered"],
  idle: () => ["–", "unseen", "tag not moving"],
  paused: () => ["॥", "unseen", "paused"],
};

function standing(tag) {
  const { position, presence } = tag;
  if (presence && !(position && position.as_of > presence.as_of && presence.state !== "at")) return PRESENCE[presence.state](presence);
  return position.moving ? ["▲", "moving", "moving"] : ["●", "moving", "standing"];
}

function newestPlace(tag) {
  const placed = [tag.position, tag.presence].filter((word) => word && word.where);
  return placed.sort((a, b) => b.as_of - a.as_of)[0];
}

function drawChildren() {
  const crying = new Set([...incidents.values()].filter((i) => i.state !== "closed").map((i) => i.subject));
  const rows = [...tags.keys()].sort((a, b) => crying.has(b) - crying.has(a) || a.localeCompare(b));
  for (const name of rows) {
    const tag = tags.get(name);
    if (!tag.row) {
      tag.row = make("tr");
      const cell = make("td");
      const button = make("button", name);
      button.type = "button";
      button.title = "Show on map";
      button.addEventListener("click", () => tag.marker && map.setView(tag.marker.getLatLng(), 18));
      cell.append(button);
      const state = make("td");
      state.append(make("span", "", "glyph"), " ", make("span", "", "words"));
      tag.row.append(cell, state, make("td", "", "number"), make("td", "", "number"));
    }
    const [glyph, kind, words] = standing(tag);
    const place = newestPlace(tag);
    const seen = Math.max(tag.position ? tag.position.as_of : 0, tag.presence && kind !== "unseen" ? tag.presence.as_of : 0) || tag.presence.as_of;
    const old = now() - seen > FRESH_S;
    const className = `${kind}${crying.has(name) ? " alarmed" : ""}`;
    if (tag.row.className !== className) tag.row.className = className;
    put(tag.row.querySelector(".glyph"), glyph);
    put(tag.row.querySelector(".words"), words);
    put(tag.row.cells[2], place ? metres(place.where.accuracy_95_m) : "–");
    put(tag.row.cells[3], ago(seen));
    tag.row.cells[3].classList.toggle("old", old);
    drawTag(name, tag, place, kind, crying.has(name), old);
  }
  arrange($("children"), rows.map((name) => tags.get(name).row));
  put($("child-count"), rows.length ? String(rows.length) : "none heard yet");
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
      item.append(make("span", `${r.state === "ok" ? "✓" : "✗"} reader ${r.reader}${r.state === "ok" ? "" : " silent"}`, r.state === "ok" ? "" : "bad"), make("span", span(now() - r.as_of), "right"));
      return item;
    }),
  );
  $("no-gateways").hidden = lines.length + each.length > 0;
}

// ---- the map -----------------------------------------------------------------------------------------------------

const map = L.map("map", { attributionControl: false, zoomSnap: 0.5, maxZoom: 20 }).setView([37.5665, 126.978], 15);
const attribution = L.control.attribution({ prefix: false }).addTo(map);
const ground = L.canvas({ padding: 0.5 });
const poles = new Map(); // number -> {latlng, marker}
const alarms = new Map(); // incident -> layer group
const WIDTHS = { primary: 9, secondary: 7, tertiary: 6, residential: 4.5, footway: 1.5, path: 1.5, steps: 1.5, service: 2.5 };
const STYLES = {
  building: { color: "#3b4956", weight: 1, fillColor: "#232e38", fillOpacity: 1 },
  school: { color: "#6cbcff", weight: 2, fillColor: "#173450", fillOpacity: 0.75 },
  danger: { color: "#ff9d5c", weight: 2, dashArray: "6 5", fillColor: "#ff9d5c", fillOpacity: 0.16 },
};

function icon(className, html, size) {
  return L.divIcon({ className: "", html: `<div class="${className}">${html}</div>`, iconSize: [size, size], iconAnchor: [size / 2, size / 2] });
}

function drawSite(site) {
  attribution.addAttribution((site.attribution ?? "").replace(/[<>&"]/g, "")); // Leaflet takes HTML here
  const ranks = ["street", "building", "school", "danger", "crossing", "gate", "reader"];
  const features = [...site.features].sort((a, b) => ranks.indexOf(a.properties.kind) - ranks.indexOf(b.properties.kind));
  const all = L.geoJSON(
    { type: "FeatureCollection", features },
    {
      interactive: false,
      renderer: ground,
      style: ({ properties: p }) => STYLES[p.kind] ?? { color: "#46535f", weight: WIDTHS[p.class] ?? 3, dashArray: WIDTHS[p.class] === 1.5 ? "2 4" : null },
      pointToLayer: ({ properties: p }, latlng) => {
        if (p.kind !== "reader") return L.circleMarker(latlng, { renderer: ground, interactive: false, radius: p.kind === "gate" ? 5 : 2, color: "#9fd0ff", weight: 1, fillOpacity: 0.5 });
        const marker = L.marker(latlng, { icon: icon("reader-mark", "", 10), keyboard: false, interactive: false });
        poles.set(p.number, { latlng, marker });
        return marker;
      },
      onEachFeature: ({ properties: p }, layer) => {
        const words = p.kind === "school" ? (p.id ?? "school") : p.kind === "danger" ? `danger: ${p.what ?? p.id}` : null;
        if (words) layer.bindTooltip(make("span", words), { permanent: true, direction: "center", className: `place-name${p.kind === "danger" ? " warn" : ""}` });
      },
    },
  ).addTo(map);
  for (const [number, pole] of poles) {
    pole.marker.setIcon(L.divIcon({ className: "", html: `<div class="reader-mark"></div><span class="reader-name">${Number(number)}</span>`, iconSize: [10, 10], iconAnchor: [5, 5] }));
  }
  if (features.length) {
    map.fitBounds((poles.size ? L.latLngBounds([...poles.values()].map((p) => p.latlng)) : all.getBounds()).pad(0.08));
  }
}

function drawReader(reader) {
  const pole = poles.get(reader.reader);
  const mark = pole && pole.marker.getElement();
  if (mark) for (const part of mark.children) part.classList.toggle("silent", reader.state !== "ok");
}

function latlng(where) {
  return [where.geometry.coordinates[1], where.geometry.coordinates[0]];
}

function drawTag(name, tag, place, kind, alarmed, old) {
  if (!place) return;
  const shape = kind === "at" ? "at" : kind === "unseen" || old ? "unseen" : "moving";
  if (!tag.marker) {
    tag.marker = L.marker(latlng(place.where), { icon: icon("tag", '<span class="tag-dot"></span><span class="tag-name"></span>', 14), keyboard: false, alt: name }).addTo(map);
    tag.ring = L.circle(latlng(place.where), { radius: 1, weight: 1, color: "#6cbcff", fillOpacity: 0.05, interactive: false });
    tag.marker.getElement().querySelector(".tag-name").textContent = name;
  }
  tag.marker.setLatLng(latlng(place.where));
  const body = tag.marker.getElement().firstElementChild;
  const className = `tag ${shape}${alarmed ? " alarmed" : ""}`;
  if (body.className !== className) {
    body.className = className;
    body.querySelector(".tag-dot").textContent = shape === "unseen" ? "?" : "";
  }
  const ringed = tags.size <= RINGS_MAX || alarmed;
  if (ringed) {
    tag.ring.setLatLng(latlng(place.where)).setRadius(place.where.accuracy_95_m).addTo(map);
    tag.ring.setStyle({ color: alarmed ? "#ff7b70" : shape === "unseen" ? "#aebbc7" : "#6cbcff", dashArray: shape === "unseen" ? "3 4" : null, opacity: alarmed ? 0.9 : 0.35 });
  } else tag.ring.remove();
}

function drawAlarms(open) {
  const here = new Set();
  for (const incident of open) {
    if (!incident.where) continue;
    here.add(incident.number);
    const key = JSON.stringify([incident.state, incident.where.geometry, incident.where.accuracy_95_m, incident.readers]);
    const held = alarms.get(incident.number);
    if (held && held.key === key) continue;
    if (held) held.layer.remove();
    const at = latlng(incident.where);
    const color = incident.state === "new" ? "#ff7b70" : "#ffc95c";
    const parts = [
      L.circle(at, { radius: incident.where.accuracy_95_m, color, weight: 3, fillOpacity: 0.12, interactive: false }),
      L.marker(at, { icon: icon(`alarm-mark ${incident.state}`, incident.kind === "sos" ? "SOS" : incident.kind === "bell" ? "BELL" : "NEAR", 44), zIndexOffset: 1000, title: `${KINDS[incident.kind]} ${incident.subject}`, keyboard: false }),
    ];
    for (const number of incident.readers) {
      const pole = poles.get(number);
      if (pole) parts.push(L.polyline([at, pole.latlng], { color, weight: 2, dashArray: "4 6", interactive: false }));
    }
    alarms.set(incident.number, { key, layer: L.layerGroup(parts).addTo(map) });
  }
  for (const [number, held] of alarms) {
    if (here.has(number)) continue;
    held.layer.remove();
    alarms.delete(number);
  }
}

function find(incident) {
  if (incident && incident.where) map.setView(latlng(incident.where), 18);
  document.querySelector(".map-panel").scrollIntoView({ block: "nearest" });
}

const nameTags = () => $("map").classList.toggle("named", map.getZoom() >= 17.5 && tags.size <= RINGS_MAX);
map.on("zoomend", nameTags);

// ---- what comes in -----------------------------------------------------------------------------------------------

function takeIncident(incident, loud) {
  const before = incidents.get(incident.number);
  if (before && before.version > incident.version) return; // an answer that a later word overtook
  incidents.set(incident.number, incident);
  const cried = !before || incident.alarms.length > before.alarms.length || (incident.overdue && !before.overdue);
  if (!loud || incident.state !== "new" || !cried) return;
  put($("announce"), `${KINDS[incident.kind]} ${incident.subject}${incident.drill ? ", drill" : ""}: ${incident.overdue ? "not acknowledged" : "new incident"}`);
  const card = cardOf(incident.number);
  card.classList.remove("fresh");
  requestAnimationFrame(() => card.classList.add("fresh"));
  beep();
  if (!before) find(incident);
}

function takeWord(word) {
  if (word.about === "gateway") gateways.set(word.gateway, word);
  else if (word.kind === "position" || word.kind === "presence") {
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
  offset_s = message.at - Date.now() / 1000;
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
    if (action === "acknowledge") card.querySelector(".close").focus();
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
    source.close(); // open, and silent: a dead line the browser has not noticed
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
  const fresh = [...incidents.values()].filter((i) => i.state === "new").length;
  const flash = fresh && Math.floor(now()) % 2 ? `(${fresh}) NEW INCIDENT` : `${fresh ? `(${fresh}) ` : ""}Ansim ${document.body.dataset.site}`;
  if (document.title !== flash) document.title = flash;
  draw();
}

function beep() {
  if (!audio) return;
  for (const [at, pitch] of [[0, 880], [0.22, 660], [0.44, 880]]) {
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
  audio = audio ? null : new AudioContext(); // a browser lets a page sound only after a press
  event.target.setAttribute("aria-pressed", String(audio !== null));
  put(event.target, `Sound: ${audio ? "on" : "off"}`);
  beep();
});

ask("/map.geojson").then(drawSite, () => {}).finally(() => connect(true));
setInterval(beat, 1000);
