/** Earlier answers with small pictures, in this browser's own database and nowhere else. */

const STORE = "answers";
const MOST = 200; // the oldest are let go
const SIDE = 160; // pixels of a kept picture's longer side

/** A request of IndexedDB as a promise. */
function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** The history of one model at one address. */
export class History {
  /** Open it; where a browser keeps nothing (some private windows), nothing is kept. */
  static async open(name) {
    try {
      const request = indexedDB.open(`vitreous ${location.pathname} ${name}`, 1);
      request.onupgradeneeded = () =>
        request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
      return new History(await done(request));
    } catch {
      return new History(null);
    }
  }

  constructor(database) {
    this.database = database;
  }

  #store(mode) {
    return this.database.transaction(STORE, mode).objectStore(STORE);
  }

  /** Everything kept, newest first. */
  async entries() {
    try {
      return this.database ? (await done(this.#store("readonly").getAll())).reverse() : [];
    } catch {
      return []; // a browser may fail to read what it kept
    }
  }

  /** Keep an answer; false where nothing can be kept. */
  async add(answer, blob) {
    if (!this.database) return false;
    const thumbnail = await small(blob);
    try {
      const keys = await done(this.#store("readonly").getAllKeys());
      const store = this.#store("readwrite");
      for (const key of keys.slice(0, Math.max(0, keys.length + 1 - MOST))) store.delete(key);
      await done(store.add({ when: Date.now(), answer, thumbnail }));
      return true;
    } catch {
      return false; // the disk may be full
    }
  }

  /** Forget everything. */
  async clear() {
    if (this.database) await done(this.#store("readwrite").clear());
  }
}

/** A picture made small, or nothing where the browser can't show it. */
async function small(blob) {
  try {
    const image = await createImageBitmap(blob);
    const scale = Math.min(1, SIDE / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    image.close();
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.85));
  } catch {
    return null;
  }
}
