// The zone's map. It is drawn from the site's own file, without tiles and without another host. The page stands without it:
// this file and Leaflet are loaded after everything else, and whatever fails here is said under the map.

import { make } from "/static/dom.js";
import { isCall, isLoud, isRepeat, kindWords } from "/static/phrases.js";

const LOAD_MAX_S = 20;

function leaflet() {
  return new Promise((resolve, reject) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/leaflet/leaflet.css" });
    const script = Object.assign(document.createElement("script"), { src: "/leaflet/leaflet.js" });
    script.onload = () => (window.L ? resolve(window.L) : reject(new Error("leaflet.js is not Leaflet")));
    script.onerror = () => reject(new Error("leaflet.js did not load"));
    setTimeout(() => reject(new Error(`leaflet.js did not load within ${LOAD_MAX_S} s`)), LOAD_MAX_S * 1000);
    document.head.prepend(style); // before our own, which changes it
    document.head.append(script);
  });
}

const L = await leaflet();
const NAMES_MAX = 300; // more tags than this are drawn without their names
const NAMES_ZOOM = 18.5; // from this zoom on every tag shows its name; below it the names would cover each other
const CLOSE = 18; // the highest zoom that the page sets by itself: a circle with a radius of 60 m is then 250 pixels wide
const map = L.map("map", { attributionControl: false, zoomSnap: 0.5, maxZoom: 20 }).setView([37.5665, 126.978], 15);
const attribution = L.control.attribution({ prefix: false }).addTo(map);
const ground = L.canvas({ padding: 0.5 });
const poles = new Map(); // number -> {latlng, marker}
const alarms = new Map(); // incident -> layer group
let many = false;
let seen = false; // the first view is set once; after that the map moves only when a person asks for it
let home = null; // the readers and the school
const WIDTHS = { primary: 9, secondary: 7, tertiary: 6, residential: 4.5, footway: 1.5, path: 1.5, steps: 1.5, service: 2.5 };
const STYLES = {
  building: { color: "#3b4956", weight: 1, fillColor: "#232e38", fillOpacity: 1 },
  school: { color: "#6cbcff", weight: 2, fillColor: "#173450", fillOpacity: 0.75 },
  danger: { color: "#ff9d5c", weight: 2, dashArray: "6 5", fillColor: "#ff9d5c", fillOpacity: 0.16 },
};

function icon(className, html, size) {
  return L.divIcon({ className: "", html: `<div class="${className}">${html}</div>`, iconSize: [size, size], iconAnchor: [size / 2, size / 2] });
}

const RANKS = ["street", "building", "school", "danger", "crossing", "gate", "reader"];

function drawFeature(feature) {
  const p = feature.properties;
  return L.geoJSON(feature, {
    interactive: false,
    renderer: ground,
    style: () => STYLES[p.kind] ?? { color: "#46535f", weight: WIDTHS[p.class] ?? 3, dashArray: WIDTHS[p.class] === 1.5 ? "2 4" : null },
    pointToLayer: (_, latlng) => {
      if (p.kind !== "reader") return L.circleMarker(latlng, { renderer: ground, interactive: false, radius: p.kind === "gate" ? 5 : 2, color: "#9fd0ff", weight: 1, fillOpacity: 0.5 });
      const html = `<div class="reader-mark"></div><span class="reader-name">${Number(p.number)}</span>`;
      const marker = L.marker(latlng, { icon: L.divIcon({ className: "", html, iconSize: [10, 10], iconAnchor: [5, 5] }), keyboard: false, interactive: false });
      poles.set(p.number, { latlng, marker });
      return marker;
    },
    onEachFeature: (_, layer) => {
      const words = p.kind === "school" ? (p.id ?? "school") : p.kind === "danger" ? `danger: ${p.what ?? p.id}` : null;
      if (words) layer.bindTooltip(make("span", words), { permanent: true, direction: "center", className: `place-name${p.kind === "danger" ? " warn" : ""}` });
    },
  }).addTo(map);
}

// Draws the site, feature by feature, and returns what it left out, in words.
export function drawSite(site) {
  attribution.addAttribution(String(site.attribution ?? "").replace(/[<>&"]/g, "")); // Leaflet reads this text as HTML
  const leftOut = [...(site.left_out ?? [])];
  const [all, core] = [L.latLngBounds([]), L.latLngBounds([])];
  const features = [...site.features].sort((a, b) => RANKS.indexOf(a.properties?.kind) - RANKS.indexOf(b.properties?.kind));
  for (const feature of features) {
    const name = `${feature.properties?.kind ?? "a feature"} ${feature.properties?.number ?? feature.properties?.id ?? ""}`.trim();
    try {
      const bounds = drawFeature(feature).getBounds();
      if (!bounds.isValid()) throw new Error("it has no coordinates");
      all.extend(bounds);
      if (["reader", "school"].includes(feature.properties.kind)) core.extend(bounds);
    } catch (error) {
      leftOut.push(`${name}: ${error.message}`);
    }
  }
  home = core.isValid() ? core : all.isValid() ? all : null;
  if (home) map.fitBounds(home.pad(0.1), { maxZoom: CLOSE });
  return leftOut;
}

// ok: whether every reader with this number is; two gateways may each have a reader 1.
export function drawReader(number, ok) {
  const pole = poles.get(number);
  const mark = pole && pole.marker.getElement();
  if (mark) for (const part of mark.children) part.classList.toggle("silent", !ok);
}

function latlng(where) {
  return [where.geometry.coordinates[1], where.geometry.coordinates[0]];
}

export function firstView(calls) {
  if (seen) return;
  seen = true;
  const placed = calls.filter((i) => i.where).map((i) => latlng(i.where));
  if (!home && !placed.length) return;
  const bounds = home ? L.latLngBounds(home.getSouthWest(), home.getNorthEast()) : L.latLngBounds(placed);
  for (const at of placed) bounds.extend(at);
  map.fitBounds(bounds.pad(0.1), { maxZoom: CLOSE, animate: false });
}

export function drawTag(name, tag, place, { kind, alarm, old, ringed, crowd }) {
  many = crowd > NAMES_MAX;
  if (!place) {
    if (tag.marker) for (const drawn of [tag.marker, tag.ring]) drawn.remove();
    tag.marker = tag.ring = undefined;
    tag.watched = false;
    return;
  }
  const shape = kind === "at" ? "at" : kind === "unseen" || old ? "unseen" : "moving";
  if (!tag.marker) {
    tag.marker = L.marker(latlng(place.where), { icon: icon("tag", '<span class="tag-dot"></span><span class="tag-name"></span>', 14), alt: name }).addTo(map);
    tag.marker.getElement().setAttribute("aria-label", name);
    tag.ring = L.circle(latlng(place.where), { className: "ring of-tag", radius: 1, weight: 2, color: "#6cbcff", fillOpacity: 0.08, interactive: false });
    tag.marker.getElement().querySelector(".tag-name").textContent = name;
  }
  tag.marker.setLatLng(latlng(place.where));
  const body = tag.marker.getElement().firstElementChild;
  const className = `tag ${shape} ${alarm}${ringed ? " ringed" : ""}`;
  if (body.className !== className) {
    body.className = className;
    body.querySelector(".tag-dot").textContent = shape === "unseen" ? "?" : "";
  }
  tag.marker.setZIndexOffset(alarm === "crying" ? 4000 : ringed ? 3000 : 0);
  if (ringed) {
    tag.ring.setLatLng(latlng(place.where)).setRadius(place.where.accuracy_95_m).addTo(map);
    tag.ring.setStyle({ color: alarm === "crying" ? "#ff7b70" : "#6cbcff", dashArray: shape === "unseen" ? "3 4" : null });
  } else tag.ring.remove();
}

function alarmLayer(incident) {
  const at = latlng(incident.where);
  const call = isCall(incident);
  const loud = isLoud(incident);
  const color = !loud ? "#ff9d5c" : incident.state === "new" ? "#ff7b70" : "#ffc95c";
  const words = isRepeat(incident) ? "AGAIN" : incident.kind === "bell" ? "BELL" : "SOS";
  const mark = loud ? icon(`alarm-mark ${incident.state}`, words, 44) : call ? icon(`notice-mark repeated ${incident.state}`, words, 44) : icon(`notice-mark ${incident.state}`, "!", 20);
  const ring = loud ? { className: "ring of-call", weight: 3, fillOpacity: 0.08 } : { className: "ring of-notice", weight: 1, opacity: 0.8, fill: false };
  const parts = [
    L.circle(at, { ...ring, radius: incident.where.accuracy_95_m, color, interactive: false }),
    L.marker(at, { icon: mark, zIndexOffset: !call ? 1000 : incident.state === "new" ? 9000 : 8000, title: `${kindWords(incident)} ${incident.subject}`, interactive: call, keyboard: false }),
  ];
  for (const number of call ? incident.readers : []) {
    const pole = poles.get(number);
    if (pole) parts.push(L.polyline([at, pole.latlng], { color, weight: 2, dashArray: "4 6", interactive: false }));
  }
  return L.layerGroup(parts);
}

// Draws the open incidents, each by itself. If one could not be drawn, it throws after the others.
export function drawAlarms(open) {
  let failed = null;
  const here = new Set();
  for (const incident of open) {
    if (!incident.where) continue;
    here.add(incident.number);
    const key = JSON.stringify([incident.state, incident.trust, incident.where.geometry, incident.where.accuracy_95_m, incident.readers]);
    const held = alarms.get(incident.number);
    if (held && held.key === key) continue;
    if (held) held.layer.remove();
    alarms.delete(incident.number);
    try {
      alarms.set(incident.number, { key, layer: alarmLayer(incident).addTo(map) });
    } catch (error) {
      failed = new Error(`#${incident.number} is not on the map: ${error.message}`);
    }
  }
  for (const [number, held] of alarms) {
    if (here.has(number)) continue;
    held.layer.remove();
    alarms.delete(number);
  }
  if (failed) throw failed;
}

// Shows where the incident happened, with room for its circle, and where its tag is now.
export function find(incident, latest) {
  const places = [incident.where, latest && latest.where].filter(Boolean);
  const bounds = L.latLngBounds([]);
  for (const where of places) bounds.extend(L.latLng(latlng(where)).toBounds(4 * where.accuracy_95_m));
  if (places.length) map.fitBounds(bounds, { maxZoom: CLOSE });
  document.querySelector(".map-panel").scrollIntoView({ block: "nearest" });
}

export function reveal(marker) {
  if (marker) map.panInside(marker.getLatLng(), { padding: [60, 60] });
  document.querySelector(".map-panel").scrollIntoView({ block: "nearest" });
}

export function onGround(action) {
  map.on("click", action);
}

map.on("zoomend", () => map.getContainer().classList.toggle("named", map.getZoom() >= NAMES_ZOOM && !many));
