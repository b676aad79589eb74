// The cards of the incidents, and the presses on them. Each card is drawn by itself: one that cannot be drawn in full is drawn
// bare, with its buttons, and takes no other along.

import { NoAnswer, insist } from "/static/ask.js";
import { fill, make, put } from "/static/dom.js";
import { STATES, clockTime, hops, isCall, isLoud, isRepeat, kindWords, lampWords, marks, now, numberWords, roughSpan, shortWords, span, subjectWords, what } from "/static/phrases.js";

const SETTLE_MS = 600; // a card that has just moved or changed takes no press: the press was meant for what was there before
const PRESS_LIMIT_S = 4; // a press is sent twice, so a person knows after 10 s at the latest
const DONE = { acknowledge: ["acknowledged", "closed"], close: ["closed"] };

const cards = new Map(); // number -> the card
const pressed = new Map(); // number -> {action, words, sending}
const $ = (id) => document.getElementById(id);

// act: {press(number, action), find(number)}
export function cardOf(incident, act) {
  const number = incident.number;
  const found = cards.get(number);
  if (found) return found;
  const card = $(isCall(incident) ? "card" : "notice").content.firstElementChild.cloneNode(true);
  card.dataset.number = number;
  const more = card.querySelector(".more");
  if (more) {
    more.addEventListener("click", () => {
      const open = more.getAttribute("aria-expanded") !== "true";
      more.setAttribute("aria-expanded", String(open));
      card.querySelector(".rest").hidden = !open;
    });
  }
  card.querySelector(".acknowledge").addEventListener("click", () => act.press(number, "acknowledge"));
  card.querySelector(".close").addEventListener("click", () => act.press(number, "close"));
  card.querySelector(".find").addEventListener("click", () => act.find(number));
  card.addEventListener("animationend", () => card.classList.remove("fresh"));
  cards.set(number, card);
  return card;
}

export function dropCard(number) {
  cards.delete(number);
  pressed.delete(number);
}

// latest: the newest known place of the incident's tag, or null. Returns whether the card was drawn in full.
export function drawCard(incident, latest, act) {
  const card = cardOf(incident, act);
  let fault = null;
  try {
    drawFully(card, incident, latest);
  } catch (error) {
    fault = error;
    drawBare(card, incident);
  }
  drawPresses(card, incident, fault);
  return fault;
}

function drawFully(card, incident, latest) {
  const fresh = incident.state === "new" && card.classList.contains("fresh") ? " fresh" : "";
  const call = isCall(incident);
  const kind = `card ${call ? "call" : "notice"}${isRepeat(incident) ? " repeated" : ""} ${incident.state}${fresh}`;
  if (card.className !== kind) card.className = kind;
  put(card.querySelector(".kind"), call ? kindWords(incident) : "Danger");
  put(card.querySelector(".subject"), call ? `${subjectWords(incident)}  ${numberWords(incident)}` : incident.subject);
  const waits = incident.state === "new" ? ` ${(call ? span : roughSpan)(now() - incident.stored_at)}` : "";
  put(card.querySelector(".state"), (STATES[incident.state] ?? incident.state) + waits);
  const found = marks(incident, latest);
  fill(card.querySelector(".marks"), JSON.stringify(found), () => found.map(([text, className]) => make("li", text, className)));
  put(card.querySelector(".what"), `${call ? "" : `${numberWords(incident)}. `}${what(incident, latest)}`);
  if (call) {
    const lamp = card.querySelector(".lamp");
    lamp.hidden = incident.kind === "unreadable" || (isRepeat(incident) && !incident.alarms.some((alarm) => alarm.told.length));
    const [lit, words] = lampWords(incident);
    lamp.className = `lamp ${lit}`;
    put(card.querySelector(".lamp-words"), words);
  } else put(card.querySelector(".short"), shortWords(incident));
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
  fill(card.querySelector(".log"), `${incident.log.length} ${incident.log_more ?? 0}`, () =>
    incident.log.map((line) => {
      const item = make("li");
      const who = line.who === "city" ? "" : ` by ${line.who}`;
      item.append(make("time", clockTime(line.at)), `${line.word.replaceAll("_", " ")}${who}${line.detail ? `: ${line.detail}` : ""}`);
      return item;
    }),
  );
}

function drawBare(card, incident) {
  card.className = `card ${isCall(incident) ? "call" : "notice"} ${incident.state}`;
  put(card.querySelector(".kind"), kindWords(incident));
  put(card.querySelector(".subject"), `${incident.subject}  #${incident.number}`);
  put(card.querySelector(".state"), String(incident.state).toUpperCase());
  put(card.querySelector(isCall(incident) ? ".what" : ".short"), `Stored at ${clockTime(incident.stored_at)}.`);
}

function drawPresses(card, incident, fault) {
  const press = pressed.get(incident.number);
  if (press && !press.sending && DONE[press.action].includes(incident.state)) pressed.delete(incident.number);
  const held = pressed.get(incident.number);
  card.querySelector(".acknowledge").hidden = ["acknowledged", "closed"].includes(incident.state);
  card.querySelector(".close").hidden = incident.state !== "acknowledged";
  for (const action of ["acknowledge", "close"]) {
    const sending = held?.sending && held.action === action;
    const button = card.querySelector(`.${action}`);
    button.disabled = Boolean(sending);
    put(button, sending ? "Sending …" : action === "close" ? "Close" : "Acknowledge");
  }
  const words = [held?.words, fault && `Not all of this card could be drawn (${fault.message}); see the plain list.`].filter(Boolean).join(" ");
  const problem = card.querySelector(".problem");
  problem.hidden = !words;
  put(problem, words);
}

// Sends a press and says on the card what becomes of it. The city takes the same press twice without harm.
export async function press(incident, action, { taken, changed }) {
  const number = incident.number;
  if (pressed.get(number)?.sending) return;
  const mine = { action, words: "", sending: true };
  pressed.set(number, mine);
  changed();
  const not = action === "close" ? "Not closed" : "Not acknowledged";
  try {
    const again = (error) => {
      mine.words = `${error.message}; sending it again over another connection.`;
      changed();
    };
    const view = await insist(`/api/incidents/${number}/${action}`, { method: "POST", limit_s: PRESS_LIMIT_S, again });
    pressed.delete(number);
    taken(view);
    if (action === "acknowledge") cards.get(number)?.focus({ preventScroll: true }); // not on Close: a second Enter must not close the incident
  } catch (error) {
    mine.sending = false;
    mine.words = error instanceof NoAnswer ? `${not} as far as this page knows: ${error.message}. Press again.` : `${not}: ${error.message}. Press again.`;
    if (error.status === 401) window.location.assign("/login");
  }
  changed();
}

export function holdMoved(card, spot) {
  if (card.dataset.spot === spot) return;
  card.dataset.spot = spot;
  card.dataset.moved = "";
  setTimeout(() => delete card.dataset.moved, SETTLE_MS);
}

export function announce(incident, card) {
  const words = `${kindWords(incident)} ${incident.subject}${incident.drill ? ", drill" : ""}: ${incident.overdue ? "not acknowledged" : "new incident"}`;
  put($("announce"), words);
  if (!isLoud(incident)) return;
  card.classList.remove("fresh");
  requestAnimationFrame(() => card.classList.add("fresh"));
}
