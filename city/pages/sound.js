// The sound of the page. A browser gives none before a press, and may take it away again. So a duty begins with a test that a
// person hears, and the head of the page says whenever it is silent.

import { put } from "/static/dom.js";

const $ = (id) => document.getElementById(id);
const CALL = [[0, 880], [0.22, 660], [0.44, 880]]; // seconds from now, Hz
const LOW = [[0, 440]];
const RESUME_MAX_S = 3; // without a loudspeaker a browser may never answer

let audio = null;
let heard = false; // a person has heard the test
let asked = false; // the test was played; the answer is awaited
let words = "";

const runs = () => audio !== null && audio.state === "running";

export function beep(loud) {
  if (!runs()) return;
  for (const [after, pitch] of loud ? CALL : LOW) {
    const tone = audio.createOscillator();
    const gain = audio.createGain();
    tone.frequency.value = pitch;
    gain.gain.setValueAtTime(0.25, audio.currentTime + after);
    gain.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + after + 0.2);
    tone.connect(gain).connect(audio.destination);
    tone.start(audio.currentTime + after);
    tone.stop(audio.currentTime + after + 0.2);
  }
}

export function drawSound() {
  const on = runs() && heard;
  if (heard && audio && !runs()) words = "The browser has stopped the sound of this page.";
  $("sound").setAttribute("aria-pressed", String(on));
  put($("sound"), on ? "On duty, sound on" : "Sound: off");
  put($("silent-words"), asked ? "Did you hear three tones?" : `This page is SILENT. ${words || "Begin your duty with a sound test."}`);
  $("silent").hidden = on;
  $("sound-test").hidden = asked;
  $("sound-yes").hidden = $("sound-no").hidden = !asked;
}

async function test() {
  heard = false;
  try {
    if (!audio || audio.state === "closed") {
      audio = new AudioContext();
      audio.addEventListener("statechange", drawSound);
    }
    await Promise.race([audio.resume(), new Promise((resolve) => setTimeout(resolve, RESUME_MAX_S * 1000))]);
    asked = runs();
    words = asked ? "" : "The browser refuses the sound: allow it for this page, then test again.";
    beep(true);
  } catch (error) {
    asked = false;
    words = `The sound failed: ${error.message}.`;
  }
  drawSound();
}

function answer(yes) {
  asked = false;
  heard = yes;
  words = yes ? "" : "Nothing was heard: check the loudspeaker and its volume, then test again.";
  drawSound();
}

function silence() {
  asked = heard = false;
  words = "";
  if (audio) audio.close();
  audio = null;
  drawSound();
}

export function openSound() {
  $("sound").addEventListener("click", () => (heard && runs() ? silence() : test()));
  $("sound-test").addEventListener("click", test);
  $("sound-test").disabled = false; // before this a press would do nothing
  $("sound-yes").addEventListener("click", () => answer(true));
  $("sound-no").addEventListener("click", () => answer(false));
  drawSound();
}
