// The words and times that the console shows. Every age is computed from the city's clock, which each message carries, so
// a wrong clock in this machine changes nothing. Every time of day is in the city's time zone.

const PLACE_OLD_S = 30; // after this the place of an open incident is marked as old
const zone = document.body.dataset.timezone;
export const zoneKnown = isZone(zone); // if this browser does not know it, all times are in UTC, and say so
const timeZone = zoneKnown ? zone : "UTC";
const clockFormat = new Intl.DateTimeFormat("en-GB", { timeZone, hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-CA", { timeZone, year: "numeric", month: "2-digit", day: "2-digit" });

function isZone(name) {
  try {
    return Boolean(new Intl.DateTimeFormat("en-GB", { timeZone: name }));
  } catch {
    return false;
  }
}

let offset_s = 0;

export function setClock(at) {
  offset_s = at - Date.now() / 1000;
}

export const now = () => Date.now() / 1000 + offset_s;

export function clockTime(at) {
  if (!Number.isFinite(at)) return "time unknown";
  const text = `${clockFormat.format(at * 1000)}${zoneKnown ? "" : " UTC"}`;
  const day = dayFormat.format(at * 1000);
  return day === dayFormat.format(now() * 1000) ? text : `${day} ${text}`;
}

export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} days`;
}

export function roughSpan(seconds) {
  const s = Math.max(0, seconds);
  return s < 60 ? `${Math.floor(s)} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 86400 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

export const roughAgo = (at) => `${roughSpan(now() - at)} ago`;

export const ago = (at) => `${span(now() - at)} ago`;
export const metres = (m) => (m < 10 ? `${m.toFixed(1)} m` : `${Math.round(m)} m`);
const KINDS = { sos: "SOS", bell: "Bell", danger: "Danger area", unreadable: "Unreadable emergency" };
export const isRepeat = (incident) => incident.trust === "replayed"; // the tag is named, but somebody else repeats its cry
export const kindWords = (incident) => (isRepeat(incident) ? "Repeated cry" : (KINDS[incident.kind] ?? `Emergency (${incident.kind})`));
export const STATES = { new: "NEW", acknowledged: "ACKNOWLEDGED", closed: "CLOSED" };
const ORDER = ["received", "stored", "acknowledged", "dispatched", "closed"];

function furthestTold(incident) {
  const told = incident.alarms.flatMap((alarm) => alarm.told);
  return told.sort((a, b) => ORDER.indexOf(b.stage) - ORDER.indexOf(a.stage) || a.stored_at - b.stored_at)[0];
}

const isButton = (incident) => incident.kind === "sos" && incident.subject.startsWith("unknown button"); // of another maker: it has no lamp

export function lampWords(incident) {
  if (isButton(incident)) return ["", "no lamp: a button of another maker"];
  const told = furthestTold(incident);
  if (!told) return ["", "lamp: no word from it yet"];
  const lit = `${clockTime(told.told_at)}, reader ${told.reader}`;
  if (told.stage === "closed") return ["lit-help", `lamp: closed (${lit})`];
  if (ORDER.indexOf(told.stage) >= 2) return ["lit-help", `lamp: help is coming, lit ${lit}`];
  const more = incident.state === "new" ? "" : "; help is coming: on its way to the lamp";
  return ["lit-received", `lamp: received, lit ${lit}${more}`];
}

const newer = (incident, latest) => (latest && latest.as_of > (incident.where_at ?? 0) ? latest : null);

function placeWords(incident, latest) {
  const moved = incident.state !== "closed" && newer(incident, latest);
  const since = moved ? ` The tag now: within ${metres(moved.where.accuracy_95_m)}, ${ago(moved.as_of)}.` : "";
  if (!incident.where) return `Place unknown.${since}`;
  const heard = incident.readers.length ? ` Heard by ${incident.readers.length === 1 ? "reader" : "readers"} ${incident.readers.join(", ")}.` : "";
  return `Within ${metres(incident.where.accuracy_95_m)}, as of ${ago(incident.where_at)}.${since}${heard}`;
}

export const numberWords = (incident) => (incident.number < 1e9 ? `#${incident.number}` : "(no number yet)"); // in the city's memory only

export function subjectWords({ kind, subject }) {
  if (kind === "sos" && subject === "unknown") return "unknown tag";
  if (kind === "danger" || /^unknown (tag|bell|button)\b/.test(subject)) return subject;
  return `${kind === "bell" ? "bell" : kind === "unreadable" ? "gateway" : "tag"} ${subject}`;
}

// latest: the newest known place of the incident's tag, or null.
export function what(incident, latest) {
  if (incident.kind === "unreadable") return `Gateway ${incident.gateway} sent an emergency that cannot be read: ${incident.detail}. Call the site.`;
  const pressed = `${clockTime(incident.observed_at)}, ${ago(incident.observed_at)}`;
  if (incident.kind === "danger") {
    const clear = incident.cleared_at ? ` Clear again since ${clockTime(incident.cleared_at)}.` : "";
    return `Near ${incident.area} at ${pressed} (${Math.round((incident.probability ?? 0) * 100)} % sure).${clear} ${placeWords(incident, latest)}`;
  }
  if (isRepeat(incident)) {
    const near = incident.readers.length ? ` near ${incident.readers.length === 1 ? "reader" : "readers"} ${incident.readers.join(", ")}` : "";
    return `Somebody repeats this tag's cry${near}, since ${pressed}. This says nothing about where the child is.`;
  }
  const presses = isButton(incident) ? incident.press : incident.presses;
  const times = presses > 1 ? ` (${presses} presses)` : "";
  return `Pressed at ${pressed}${times}. ${placeWords(incident, latest)}`;
}

export const isCall = (incident) => incident.kind !== "danger"; // a person pressed, or a message is unreadable: never listed below a danger notice
export const isLoud = (incident) => isCall(incident) && !isRepeat(incident);

// Calls come before repeated cries, and these before danger notices, even before newer ones. In each group: new before
// acknowledged, then drills after the others, then dangers that are clear again after the others, then the oldest first.
export function byUrgency(a, b) {
  const group = (i) => (isLoud(i) ? 0 : isCall(i) ? 8 : 16);
  const rank = (i) => group(i) + (i.state === "new" ? 0 : 4) + (i.drill ? 2 : 0) + (i.cleared_at ? 1 : 0);
  return rank(a) - rank(b) || (a.stored_at ?? 0) - (b.stored_at ?? 0) || a.number - b.number;
}

const many = (n, one, more) => `${n} ${n === 1 ? one : more}`;

export function waitingWords(open) {
  const fresh = open.filter((i) => isLoud(i) && i.state === "new");
  const of = (kind) => fresh.filter((i) => (i.drill ? "drill" : i.kind) === kind).length;
  const found = [[of("sos"), "SOS", "SOS"], [of("bell"), "bell", "bells"], [of("unreadable"), "unreadable", "unreadable"], [of("drill"), "drill", "drills"]];
  return found.filter(([n]) => n).map(([n, one, more]) => `${many(n, one, more)} new`).join(", ");
}

export function countWords(open) {
  const taken = open.filter((i) => isLoud(i) && i.state === "acknowledged").length;
  const repeats = open.filter(isRepeat).length;
  const notices = open.filter((i) => !isCall(i)).length;
  return [waitingWords(open), taken ? `${taken} acknowledged` : "", repeats ? many(repeats, "repeated cry", "repeated cries") : "", notices ? many(notices, "danger notice", "danger notices") : ""].filter(Boolean).join(", ");
}

export function shortWords(incident) {
  const drill = incident.drill ? "DRILL: " : "";
  const late = incident.late_s === null ? "" : `, LATE by ${span(incident.late_s)}`;
  const clear = incident.cleared_at ? `, clear since ${clockTime(incident.cleared_at)}` : "";
  const where = incident.where ? `, within ${metres(incident.where.accuracy_95_m)}` : "";
  const sure = incident.cleared_at ? "" : `, ${Math.round((incident.probability ?? 0) * 100)} % sure`;
  return `${drill}${incident.area}${sure}${where}${clear}${late}`;
}

export function marks(incident, latest) {
  const found = [];
  if (incident.overdue && incident.state === "new") found.push(["OVERDUE: nobody has acknowledged", "strong"]);
  if (incident.only_in_memory) found.push(["KEPT IN MEMORY ONLY: the city cannot write now", "strong"]);
  if (incident.drill) found.push(["DRILL", "plain"]);
  if (incident.trust === "unverified") found.push([incident.kind === "bell" ? "UNVERIFIED: it may be an older press, sent again" : "UNVERIFIED: call before you send anyone", ""]);
  if (incident.only_in_memory) found.push(["ONLY IN THE CITY'S MEMORY: its store takes nothing now", "plain"]);
  if (isRepeat(incident)) found.push(["REPEATED: an older cry, sent again by somebody", "plain"]);
  if (typeof incident.late_s === "number") found.push([`LATE by ${span(incident.late_s)}`, ""]);
  if (incident.clock === "unsure") found.push(["the gateway's clock is unsure", "plain"]);
  const placed_at = newer(incident, latest)?.as_of ?? incident.where_at;
  if (placed_at && incident.state !== "closed" && now() - placed_at > PLACE_OLD_S) found.push(["place is old", ""]);
  if (incident.battery_mv && incident.battery_mv < 2500) found.push([`tag battery ${incident.battery_mv} mV`, "plain"]);
  return found;
}

export function hops(incident) {
  const help = incident.alarms.flatMap((a) => a.told).filter((t) => ORDER.indexOf(t.stage) >= 2 && t.stage !== "closed");
  const lit = help.length ? Math.min(...help.map((t) => t.told_at)) : null;
  const steps = [
    [incident.kind === "danger" ? "Came near" : "Pressed", incident.observed_at],
    ["Gateway", incident.queued_at],
    ["City", incident.stored_at],
    ["Screen", incident.shown_at],
    [`Acknowledged${incident.acknowledged_by ? ` by ${incident.acknowledged_by}` : ""}`, incident.acknowledged_at],
    ["Lamp: help", lit],
    [`Closed${incident.closed_by ? ` by ${incident.closed_by}` : ""}`, incident.closed_at],
  ].filter(([, at]) => at !== null);
  return steps.map(([name, at], i) => {
    const delay = i ? at - steps[i - 1][1] : null;
    const words = delay === null ? "" : delay <= -1 ? "clocks differ" : delay < 0 ? `−${(-delay).toFixed(2)} s` : delay < 60 ? `+${delay.toFixed(delay < 10 ? 2 : 1)} s` : `+${span(delay)}`;
    return [name, clockTime(at), words];
  });
}

const PRESENCE = {
  at: (p) => ["●", "at", `at ${p.place}${p.still ? ", tag not moving" : ""}`],
  moving: () => ["▲", "moving", "moving"],
  uncertain: () => ["?", "unseen", "place unsure"],
  unseen: (p) => ["?", "unseen", p.place ? `unseen, last at ${p.place}` : "unseen"],
  not_covered: () => ["!", "unseen", "reader dead: not covered"],
  idle: () => ["–", "unseen", "tag not moving"],
  paused: () => ["॥", "unseen", "paused"],
};

export function standing(tag) {
  const [glyph, kind, words] = stands(tag);
  const strayed = tag.route_deviation;
  return [glyph, kind, strayed && strayed.off ? `${words}; off route ${strayed.route} since ${clockTime(strayed.as_of)}` : words];
}

// A position says only where a tag is. So these states stay on the page until the gateway reports another presence.
const SETTLED = ["at", "uncertain", "idle", "paused"];

function stands(tag) {
  const { position, presence } = tag;
  if (presence && (SETTLED.includes(presence.state) || !(position && position.as_of > presence.as_of))) return (PRESENCE[presence.state] ?? (() => ["?", "unseen", String(presence.state)]))(presence);
  return position.moving ? ["▲", "moving", "moving"] : ["●", "moving", "standing"];
}
