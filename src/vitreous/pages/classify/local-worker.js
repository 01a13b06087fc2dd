/** Decodes pictures and runs a sealed file on them, beside the page; asked by `engine-local.js`. */

import { env, InferenceSession, Tensor } from "./runtime/ort.wasm.min.js";

const computes = new URL("runtime/ort-wasm-simd-threaded", import.meta.url).href;
env.wasm.wasmPaths = { mjs: `${computes}.js`, wasm: `${computes}.wasm` };
env.wasm.numThreads = 1; // more take headers that a plain host doesn't send
env.logLevel = "error";

// More are halved first, whatever the format: the graph holds a picture as floats.
const MOST_PIXELS = 2 ** 24;

let session = null;
let cover = null;
let oversampling = null;
let last = Promise.resolve(); // one picture at a time

addEventListener("message", ({ data: { id, ...message } }) => {
  last = last.then(async () => {
    try {
      postMessage({ id, answer: await (message.open ? open(message) : classify(message.picture)) });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  });
});

async function open(message) {
  ({ cover, oversampling } = message);
  session = await InferenceSession.create(message.open);
  // The first picture costs more: let it be one that nobody waits for.
  await session.run({ picture: new Tensor("uint8", new Uint8Array(3), [1, 1, 3]) });
}

async function classify(blob) {
  const { data, width, height } = await decode(blob);
  const picture = new Tensor("uint8", data, [height, width, 3]);
  const { probabilities, strangeness } = await session.run({ picture });
  return { probabilities: probabilities.data, strangeness: strangeness?.data };
}

/** A file as an upright RGB picture: transparency over white, colours as they stand in the file. */
async function decode(blob) {
  const image = await createImageBitmap(blob, {
    imageOrientation: "from-image",
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  }).catch(() => {
    throw new Error("this browser can’t decode it: it is damaged, or of a kind that it doesn’t know");
  });
  const { width, height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  image.close();
  const { data } = context.getImageData(0, 0, width, height);
  // Over white nothing is transparent, but where the canvas is larger than the browser allows.
  if (data[3] !== 255) throw new Error("it is larger than this browser can hold");
  return shrink(data, width, height, await shrinkage(blob, width, height));
}

/** By what a picture is divided first: as Pillow decodes a JPEG, and any that is huge. */
async function shrinkage(blob, width, height) {
  const wanted = [cover[1] * oversampling, cover[0] * oversampling];
  const room = Math.min(Math.floor(width / wanted[0]), Math.floor(height / wanted[1]));
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  const most = first === 0xff && second === 0xd8 ? 8 : 1;
  let factor = [8, 4, 2, 1].find((one) => one <= Math.min(room, most)) ?? 1;
  while ((width * height) / factor ** 2 > MOST_PIXELS) factor *= 2;
  return factor;
}

/** RGBA to RGB, each pixel the mean of a square; those at the edges may be of less. */
function shrink(rgba, width, height, factor) {
  const wide = Math.ceil(width / factor);
  const high = Math.ceil(height / factor);
  const data = new Uint8Array(wide * high * 3);
  for (let y = 0, to = 0; y < high; y++) {
    const bottom = Math.min((y + 1) * factor, height);
    for (let x = 0; x < wide; x++, to += 3) {
      const right = Math.min((x + 1) * factor, width);
      let red = 0, green = 0, blue = 0;
      for (let row = y * factor; row < bottom; row++) {
        for (let at = 4 * (row * width + x * factor); at < 4 * (row * width + right); at += 4) {
          red += rgba[at];
          green += rgba[at + 1];
          blue += rgba[at + 2];
        }
      }
      const count = (bottom - y * factor) * (right - x * factor);
      data[to] = Math.round(red / count);
      data[to + 1] = Math.round(green / count);
      data[to + 2] = Math.round(blue / count);
    }
  }
  return { data, width: wide, height: high };
}
