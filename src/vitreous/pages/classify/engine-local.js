/**
 * The engine of a page that stands alone: a sealed file and onnxruntime-web, on this device.
 *
 * It has the functions of `engine-server.js`. Decoding and computing are in `local-worker.js`;
 * thresholds are applied here, as vitreous applies them.
 */

export const words = "Pictures are classified on this device and never leave it.";

const FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF"]; // what all browsers decode

const worker = new Worker(new URL("local-worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let asked = 0;
let broken = null; // once the worker is dead nothing is ever answered

worker.addEventListener("message", ({ data: { id, answer, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(answer);
  else reject(new Error(error));
});
worker.addEventListener("error", () => {
  broken = new Error("this browser can’t run the model");
  for (const { reject } of waiting.values()) reject(broken);
  waiting.clear();
});

function ask(message) {
  if (broken) return Promise.reject(broken);
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ id: asked, ...message });
  });
}

let contract = null;
let ready = null;

/** What the sealed file says of itself, in the words of `GET /v1/model`. */
export async function model() {
  const response = await fetch(new URL("../model.json", import.meta.url));
  if (!response.ok) throw new Error("model.json is missing beside this page");
  contract = await response.json();
  const { resize, image_size: seen } = contract.preprocess;
  const { oversampling } = contract.decoding;
  const file = new URL("../model.onnx", import.meta.url).href;
  ready = ask({ open: file, cover: resize ?? seen, oversampling });
  ready.catch(() => {}); // told with the first picture
  return {
    ...contract,
    runtime: "onnxruntime-web",
    sets: contract.sets !== null,
    coverages: contract.sets && Object.keys(contract.sets).map(Number),
    refuse: contract.refuse !== null,
    explain: false,
    methods: [],
    formats: FORMATS,
  };
}

/** As in `engine-server.js`. */
export async function predict(blob, { name, sets = null, refuse = false }) {
  await ready;
  const { probabilities, strangeness } = await ask({ picture: blob });
  const { classes } = contract;
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const answer = {
    file: name,
    label: classes[order[0]],
    probability: probabilities[order[0]],
    probabilities: Object.fromEntries(classes.map((one, at) => [one, probabilities[at]])),
  };
  if (sets) {
    const { limits } = contract.sets[String(sets)];
    // As in float32: Math.fround rounds as the limits were.
    const within = (at) => Math.fround(1 - probabilities[at]) <= limits[at];
    answer.set = order.filter((at, rank) => rank === 0 || within(at)).map((at) => classes[at]);
  }
  return refuse ? { ...answer, ...refusal(strangeness, answer) } : answer;
}

/** Whether a picture is none of these, and in what it is unlike all that the model learned from. */
function refusal(strangeness, { set }) {
  const worst = strangeness.indexOf(Math.max(...strangeness));
  if (!(strangeness[worst] > contract.refuse.limit)) return { refused: false, reason: null };
  const reason = contract.refuse.words[worst];
  return { refused: true, reason, label: null, probability: null, ...(set && { set: [] }) };
}

/** Gradients are not in a sealed file. */
export const explain = null;
