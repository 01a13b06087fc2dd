/** The page: from pictures that come in to cards; which engine answers is named in its head. */

import { Camera } from "./camera.js";
import { Card, showPicture } from "./answers.js";
import { element, setWords, verdict } from "./elements.js";
import { History } from "./history.js";

const COVERAGES = [0.8, 0.9, 0.95, 0.99];
const AT_ONCE = 2; // pictures that are asked about at a time

const at = (id) => document.getElementById(id);
const engine = await import(`./engine-${document.querySelector("meta[name=engine]").content}.js`);

let model;
let history;
let camera;
const cards = [];
const waiting = [];
let working = 0;
const batch = new Set(); // cards asked about since nobody was working
let earlier = 0;

/** What the person wants beside the likeliest class. */
function options() {
  return {
    sets: model.sets && at("sets").value ? Number(at("sets").value) : null,
    refuse: model.refuse && at("refuse").checked,
  };
}

async function begin(given = false) {
  at("late").hidden = true;
  try {
    model = await engine.model();
  } catch (error) {
    if (error.status === 401) {
      at("key").hidden = false;
      at("about").textContent = "Programs and people need its key.";
      at("key-wrong").textContent = given ? "That is not its key." : "";
      at("key-value").focus();
    } else at("about").textContent = `There is no model to ask: ${error.message}.`;
    return;
  }
  at("key").hidden = true;
  describe();
  history = await History.open(model.name);
  camera = new Camera(at("camera"), {
    engine,
    options,
    keep: (blob) => take([new File([blob], `camera ${clock(Date.now())}.jpg`)]),
    size: model.image_size,
  });
  await showHistory();
  at("work").hidden = false;
}

function describe() {
  const { name, classes, image_size: size } = model;
  document.title = `${name}: classify pictures`;
  at("name").textContent = name;
  const listed = classes.length > 8 ? `${classes.length} classes` : classes.join(", ");
  at("about").textContent = `${listed}. Sees ${size[1]} × ${size[0]} pixels of a picture.`;
  at("where").textContent = engine.words;
  at("links").hidden = !engine.explain; // a server's
  at("card").hidden = !model.card;
  at("card-text").textContent = model.card ?? "";
  const kinds = model.formats.map((format) => `image/${format.toLowerCase()}`);
  at("files").accept = kinds.join(",");
  at("photograph").hidden = !matchMedia("(pointer: coarse)").matches;
  at("caution").hidden = !model.sets && !model.refuse;
  at("sets-option").hidden = !model.sets;
  at("refuse-option").hidden = !model.refuse;
  const shares = (model.coverages ?? COVERAGES).map((share) => {
    return new Option(`that should hold the true one in ${Math.round(100 * share)} %`, share);
  });
  at("sets").replaceChildren(new Option("none", ""), ...shares);
  if (shares.some(({ value }) => value === "0.9")) at("sets").value = "0.9";
}

/** Take pictures in; each gets a card at once and its answer in turn. */
function take(files) {
  if (!model || !files.length) return;
  const fresh = [...files].map((file) => new Card(file, file.name || "picture", engine, model));
  at("answers").hidden = false;
  at("cards").prepend(...fresh.map((card) => card.element));
  cards.push(...fresh);
  say(fresh.length === 1 ? `Classifying ${fresh[0].name} …` : `Classifying ${fresh.length} pictures …`);
  ask(fresh);
}

/** Ask about cards, those that were asked about before too: what is wanted may have changed. */
function ask(some) {
  const fresh = some.filter((card) => !waiting.includes(card));
  if (!working) batch.clear();
  for (const card of fresh) batch.add(card);
  waiting.push(...fresh);
  while (working < AT_ONCE && waiting.length) work();
}

async function work() {
  working++;
  while (waiting.length) {
    const card = waiting.shift();
    const asked = options();
    const answer = await card.classify(asked);
    if (!answer) continue;
    if (batch.size === 1) say(inWords(answer, asked.sets));
    else if (waiting.length) say(`${waiting.length} pictures left.`);
    if (answer.error || card.kept) continue;
    card.kept = true;
    if (await history.add(answer, card.blob)) await showHistory();
  }
  if (!--working && batch.size > 1) say(`${batch.size} pictures classified.`);
}

function inWords(answer, coverage) {
  const set = setWords(answer, coverage);
  const words = answer.error ?? verdict(answer) + (set ? `; ${set}` : "");
  return `${answer.file}: ${words}`;
}

function say(words) {
  at("status").textContent = words;
}

/** What was kept before this visit, and what there is to clear. */
async function showHistory() {
  const entries = await history.entries();
  const began = performance.timeOrigin;
  const old = entries.filter(({ when }) => when < began);
  at("history").hidden = !entries.length;
  const words = "Small copies, kept in this browser on this device and nowhere else.";
  at("kept").textContent = old.length ? words : `For your next visit. ${words}`;
  if (old.length === earlier && at("entries").childElementCount === earlier) return;
  earlier = old.length;
  at("entries").replaceChildren(...old.map(entryElement));
}

function entryElement({ answer, thumbnail, when }) {
  const box = element("div", { className: "picture" });
  if (thumbnail) showPicture(box, URL.createObjectURL(thumbnail), answer.file);
  else box.append(element("span", { className: "gone" }, "no preview"));
  return element(
    "li",
    {},
    box,
    element("strong", {}, verdict(answer)),
    element("span", { className: "file" }, answer.file),
    element("small", {}, element("time", { dateTime: new Date(when).toISOString() }, clock(when))),
  );
}

function clock(when) {
  return new Date(when).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  engine.setKey(at("key-value").value);
  at("about").textContent = "…";
  begin(true);
});
at("choose").addEventListener("click", () => at("files").click());
at("photograph").addEventListener("click", () => at("photo").click());
for (const input of [at("files"), at("photo")]) {
  input.addEventListener("change", () => {
    take(input.files);
    input.value = ""; // the same file may be chosen again
  });
}
at("live").addEventListener("click", () => camera.open());
at("clear").addEventListener("click", async () => {
  await history.clear();
  await showHistory();
  say("The history is cleared.");
  at("choose").focus(); // the button is gone
});
for (const select of [at("sets"), at("refuse")]) {
  select.addEventListener("change", () => ask(cards));
}
addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files.length) take(clipboardData.files);
  else if (!document.activeElement.matches("input")) say("There is no picture on the clipboard.");
});
let inside = 0; // elements that a dragged file has entered and not left
for (const [kind, step] of [["dragenter", 1], ["dragleave", -1]]) {
  addEventListener(kind, () => at("drop").classList.toggle("over", (inside += step) > 0));
}
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault(); // or the browser would leave for the picture
  inside = 0;
  at("drop").classList.remove("over");
  take(event.dataTransfer.files);
});

await begin();
