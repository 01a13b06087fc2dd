/**
 * The engine of a page that a server sent: it asks the server.
 *
 * `engine-local.js` has the same functions and asks nobody.
 */

export const words = "Pictures are sent to this server to be classified; it keeps none of them.";

const PATIENCE = 20; // tries, while others are before us

let key = null;

/** The key that the server asks for; it lives as long as the page. */
export function setKey(value) {
  key = value.trim();
}

/** What is served; see `GET /v1/model`. */
export async function model() {
  return ask("v1/model");
}

/**
 * Classify a picture.
 *
 * @param blob a file of a picture, as it is.
 * @param options {name, sets, refuse}: a coverage or null, and whether to say none of these.
 * @returns an object with the keys of `vitreous predict --json`.
 */
export async function predict(blob, { name, sets = null, refuse = false }) {
  const query = new URLSearchParams(sets ? { sets, refuse } : { refuse });
  return { ...(await ask(`v1/predict?${query}`, blob)), file: name };
}

/**
 * Say where an answer comes from.
 *
 * @param options {className, method}, each of them or null.
 * @returns {class, method, passed, verdict, box, heatmap, ...}; see `POST /v1/explain`.
 */
export async function explain(blob, { className, method }) {
  const query = new URLSearchParams();
  if (className) query.set("class_name", className);
  if (method) query.set("method", method);
  return ask(`v1/explain?${query}`, blob);
}

async function ask(address, blob) {
  // No key has other signs, and a browser refuses to send them.
  if (key && !/^[\x20-\x7e]+$/.test(key)) throw wrong(401, "that is not its key");
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const request = { headers, cache: "no-store" };
  if (blob) {
    headers["Content-Type"] = "application/octet-stream";
    // Read here: of a folder, or a file changed since it was chosen, the server isn't to blame.
    const body = await blob.arrayBuffer().catch(() => {
      throw new Error("this file can’t be read");
    });
    Object.assign(request, { method: "POST", body });
  }
  for (let left = PATIENCE; ; left--) {
    const response = await fetch(address, request).catch(() => {
      throw new Error("the server doesn’t answer");
    });
    if (response.ok) return response.json();
    if (response.status === 429 && left) {
      await pause(response.headers.get("Retry-After"));
      continue;
    }
    const { detail } = await response.json().catch(() => ({}));
    throw wrong(response.status, detail ?? `the server says ${response.status}`);
  }
}

function wrong(status, words) {
  return Object.assign(new Error(words), { status });
}

function pause(seconds) {
  const wait = Math.min(Number(seconds) || 1, 10);
  return new Promise((resolve) => setTimeout(resolve, 1000 * wait));
}
