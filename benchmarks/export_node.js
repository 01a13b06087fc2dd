// Answers of a sealed file in Node.js, one JSON line a picture: see export.py.
//   node export_node.js RUNTIME FILE arrays  INDEX.json PIXELS.bin
//   node export_node.js RUNTIME FILE DECODER INDEX.json
// RUNTIME is onnxruntime-node or onnxruntime-web, DECODER sharp or jpeg-js; INDEX lists
// [height, width] of the arrays, or the paths of JPEG files.
const fs = require("fs");
const path = require("path");

const [runtime, file, source, index, pixels] = process.argv.slice(2);
const modules = path.join(process.env.NODE_MODULES || "node_modules", "/");
const load = (name) => require(path.resolve(modules, name));

const DECODERS = {
  sharp: async (name) => {
    const upright = load("sharp")(name).rotate().toColourspace("srgb").removeAlpha();
    const { data, info } = await upright.raw().toBuffer({ resolveWithObject: true });
    return [new Uint8Array(data), info.height, info.width];
  },
  "jpeg-js": async (name) => {
    const options = { useTArray: true, formatAsRGBA: false, maxMemoryUsageInMB: 2048 };
    const { data, height, width } = load("jpeg-js").decode(fs.readFileSync(name), options);
    return [data, height, width];
  },
};

async function* pictures() {
  const listed = JSON.parse(fs.readFileSync(index, "utf8"));
  if (source !== "arrays") {
    for (const name of listed) yield await DECODERS[source](name);
    return;
  }
  const handle = fs.openSync(pixels, "r");
  for (const [height, width] of listed) {
    const bytes = new Uint8Array(height * width * 3);
    fs.readSync(handle, bytes, 0, bytes.length, null);
    yield [bytes, height, width];
  }
}

(async () => {
  const ort = load(runtime);
  if (runtime === "onnxruntime-web") ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(file);
  for await (const [bytes, height, width] of pictures()) {
    const picture = new ort.Tensor("uint8", bytes, [height, width, 3]);
    const { probabilities } = await session.run({ picture });
    process.stdout.write(JSON.stringify(Array.from(probabilities.data)) + "\n");
  }
})();
